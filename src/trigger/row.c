/*-------------------------------------------------------------------------
 *
 * row.c
 *		From a row to its key and its parameters.
 *
 * What types and names allow was settled when the mapping was made, so a row
 * costs no more than its columns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "outbox/requests.h"
#include "parser/parse_coerce.h"
#include "trigger/mapping.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/formatting.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*-------------------------------------------------------------------------
 * Columns
 *-------------------------------------------------------------------------
 */

static bool
is_text(Oid type)
{
	char		category = TypeCategory(type);

	return category == TYPCATEGORY_STRING || category == TYPCATEGORY_ENUM;
}

static ColumnKind
column_kind(Oid type, Oid element)
{
	switch (type)
	{
		case BOOLOID:
			return COLUMN_BOOLEAN;
		case JSONOID:
			return COLUMN_JSON;
		case JSONBOID:
			return COLUMN_JSONB;
		case UUIDOID:
			return COLUMN_UUID;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return COLUMN_INTEGER;
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return COLUMN_NUMBER;
		default:
			if (OidIsValid(element))
				return is_text(getBaseType(element)) ? COLUMN_TEXT_ARRAY : COLUMN_OTHER;
			return is_text(type) ? COLUMN_TEXT : COLUMN_OTHER;
	}
}

/*
 * The type of the extension citext, in whatever schema that is.
 */
static bool
is_citext(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "could not find type %u", type);
	result = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), "citext") == 0 &&
		((Form_pg_type) GETSTRUCT(tuple))->typcategory == TYPCATEGORY_STRING;
	ReleaseSysCache(tuple);
	return result;
}

Column *
clerk_make_column(Form_pg_attribute attribute)
{
	Column	   *column = palloc0(sizeof(*column));
	Oid			output;
	bool		is_varlena;

	column->attnum = attribute->attnum;
	column->name = pstrdup(NameStr(attribute->attname));
	column->type = getBaseType(attribute->atttypid);
	column->byval = attribute->attbyval;
	column->len = attribute->attlen;
	column->element = get_element_type(column->type);
	column->kind = column_kind(column->type, column->element);
	column->ignores_case = is_citext(column->type);
	getTypeOutputInfo(OidIsValid(column->element) ? column->element : column->type,
					  &output, &is_varlena);
	fmgr_info_cxt(output, &column->output, CurrentMemoryContext);
	return column;
}

/*
 * A value of a string type, or of a key's, as text; without the blanks that
 * fill a character(n) up.
 */
static char *
value_text(FmgrInfo *output, Oid type, Datum value)
{
	char	   *result = type == TEXTOID || type == VARCHAROID ? TextDatumGetCString(value) :
	OutputFunctionCall(output, value);

	if (type == BPCHAROID)
	{
		size_t		len = strlen(result);

		while (len > 0 && result[len - 1] == ' ')
			result[--len] = '\0';
	}
	return result;
}

static void
append_text_array(StringInfo out, Column *column, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int16		len;
	bool		byval;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("column \"%s\" has an array of more than one dimension", column->name)));
	get_typlenbyvalalign(column->element, &len, &byval, &align);
	deconstruct_array(array, column->element, len, byval, align, &elements, &nulls, &count);
	appendStringInfoChar(out, '[');
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%s\" has an array with a null element", column->name)));
		if (i > 0)
			appendStringInfoChar(out, ',');
		escape_json(out, value_text(&column->output, getBaseType(column->element), elements[i]));
	}
	appendStringInfoChar(out, ']');
}

/*
 * Append a value as JSON.  Returns false, and appends nothing, if it is the
 * JSON null.
 */
static bool
append_value(StringInfo out, Column *column, Datum value)
{
	Jsonb	   *jsonb;

	switch (column->kind)
	{
		case COLUMN_TEXT:
		case COLUMN_UUID:
			escape_json(out, value_text(&column->output, column->type, value));
			return true;
		case COLUMN_BOOLEAN:
			appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
			return true;
		case COLUMN_TEXT_ARRAY:
			append_text_array(out, column, value);
			return true;
		case COLUMN_INTEGER:
		case COLUMN_NUMBER:
			appendStringInfoString(out, OutputFunctionCall(&column->output, value));
			return true;
		case COLUMN_JSON:
			value = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(value)));
			/* fall through */
		case COLUMN_JSONB:
			jsonb = DatumGetJsonbP(value);
			if (JB_ROOT_IS_SCALAR(jsonb))
			{
				JsonbValue	scalar;

				(void) JsonbExtractScalar(&jsonb->root, &scalar);
				if (scalar.type == jbvNull)
					return false;
			}
			(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
			return true;
		case COLUMN_OTHER:
			break;
	}
	elog(ERROR, "column \"%s\" has an unexpected type", column->name);
}

/*
 * Append what a leaf has in this row.  Returns false, and appends nothing, if
 * that is null.
 */
static bool
append_leaf(StringInfo out, const Member *member, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value;
	int			before = out->len;

	if (member->constant != NULL)
	{
		appendStringInfoString(out, member->constant);
		return true;
	}
	value = slot_getattr(slot, member->column->attnum, &isnull);
	if (isnull)
		return false;
	if (member->as_array)
		appendStringInfoChar(out, '[');
	if (!append_value(out, member->column, value))
	{
		out->len = before;
		out->data[before] = '\0';
		return false;
	}
	if (member->as_array)
		appendStringInfoChar(out, ']');
	return true;
}

/*
 * Has the column a value that is not empty?
 */
static bool
is_filled(const Member *member, TupleTableSlot *slot)
{
	StringInfoData json;

	if (member->column->kind == COLUMN_TEXT)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, member->column->attnum, &isnull);

		return !isnull && *value_text(&member->column->output, member->column->type, value) != '\0';
	}
	initStringInfo(&json);
	return append_leaf(&json, member, slot) && strcmp(json.data, "\"\"") != 0 &&
		strcmp(json.data, "[]") != 0 && strcmp(json.data, "[\"\"]") != 0;
}

/*
 * Has one of the parameters a value?  Else a create could only be refused.
 */
static bool
has_value(const Member *object, TupleTableSlot *slot)
{
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	foreach(lc, object->members)
	{
		const Member *member = lfirst(lc);

		if (member->members != NIL ? has_value(member, slot) : append_leaf(&json, member, slot))
			return true;
	}
	return false;
}

bool
clerk_row_is_ready(const Mapping *mapping, TupleTableSlot *slot)
{
	if (mapping->when != NULL)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, mapping->when->attnum, &isnull);

		if (isnull || !DatumGetBool(value))
			return false;
	}
	if (mapping->name == NULL && mapping->domains == NULL)
		return has_value(&mapping->root, slot);
	return (mapping->name == NULL || is_filled(mapping->name, slot)) &&
		(mapping->domains == NULL || is_filled(mapping->domains, slot));
}

/*
 * A value that is stored out of line and was not touched has the same pointer:
 * that is seen without reading it.
 */
bool
clerk_column_changed(const Column *column, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		isnull[2];
	Datum		values[2] = {slot_getattr(old, column->attnum, &isnull[0]),
	slot_getattr(new, column->attnum, &isnull[1])};

	if (isnull[0] || isnull[1])
		return isnull[0] != isnull[1];
	if (column->len == -1 &&
		VARATT_IS_EXTERNAL(DatumGetPointer(values[0])) &&
		VARATT_IS_EXTERNAL(DatumGetPointer(values[1])) &&
		VARSIZE_ANY(DatumGetPointer(values[0])) == VARSIZE_ANY(DatumGetPointer(values[1])) &&
		memcmp(DatumGetPointer(values[0]), DatumGetPointer(values[1]),
			   VARSIZE_ANY(DatumGetPointer(values[0]))) == 0)
		return false;
	return !datum_image_eq(values[0], values[1], column->byval, column->len);
}

/*
 * A citext is the same in any case, so its key is in lower case.
 */
char *
clerk_row_key(const Mapping *mapping, TupleTableSlot *slot)
{
	Column	   *column = mapping->key;
	bool		isnull;
	Datum		value = slot_getattr(slot, column->attnum, &isnull);
	char	   *text;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("key column \"%s\" of trigger \"%s\" is null", column->name, mapping->trigger)));
	text = value_text(&column->output, column->type, value);
	if (column->ignores_case)
		text = str_tolower(text, strlen(text), DEFAULT_COLLATION_OID);
	return psprintf("%s%s", mapping->prefix, text);
}

/*-------------------------------------------------------------------------
 * Parameters
 *-------------------------------------------------------------------------
 */

static bool append_object(StringInfo out, const Member *object, TupleTableSlot *slot);

static bool
append_member(StringInfo out, const Member *member, TupleTableSlot *slot)
{
	if (member->members != NIL)
		return append_object(out, member, slot);
	if (append_leaf(out, member, slot))
		return true;
	if (!member->null_on_update)
		return false;
	appendStringInfoString(out, "null");
	return true;
}

/*
 * Append an object, unless it would be empty.  Of an optional one, the nulls
 * count only beside a value: a customer with SAML has nothing to say of OIDC.
 */
static bool
append_object(StringInfo out, const Member *object, TupleTableSlot *slot)
{
	bool		first = true;
	ListCell   *lc;

	if (object->optional && !has_value(object, slot))
		return false;
	appendStringInfoChar(out, '{');
	foreach(lc, object->members)
	{
		const Member *member = lfirst(lc);
		int			before = out->len;

		if (!first)
			appendStringInfoChar(out, ',');
		appendStringInfoString(out, member->label);
		if (append_member(out, member, slot))
			first = false;
		else
			out->len = before;
	}
	appendStringInfoChar(out, '}');
	return !first;
}

Jsonb *
clerk_row_params(const Mapping *mapping, TupleTableSlot *slot, const ClerkSettings *settings)
{
	StringInfoData json;
	Jsonb	   *params;

	initStringInfo(&json);
	(void) append_object(&json, &mapping->root, slot);
	params = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));

	/* A character may become four bytes on the way. */
	if (mapping->checked && json.len <= CLERK_MAX_BODY / 4)
		return params;
	return clerk_check_request_params(settings, "upsert", params);
}

static void
each_path(const Member *object, const char *above, void (*visit) (const char *path, void *arg), void *arg)
{
	ListCell   *lc;

	foreach(lc, object->members)
	{
		const Member *member = lfirst(lc);
		char	   *path = psprintf("%s%s", above, member->name);

		if (member->members != NIL)
			each_path(member, psprintf("%s.", path), visit, arg);
		else
			visit(path, arg);
	}
}

void
clerk_each_path(const Mapping *mapping, void (*visit) (const char *path, void *arg), void *arg)
{
	each_path(&mapping->root, "", visit, arg);
}
