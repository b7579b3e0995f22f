/*-------------------------------------------------------------------------
 *
 * composite.c
 *		Composite parameters become jsonb: the implicit casts.
 *
 * NULL attributes are left out, at every level.  The members of an attribute
 * "more" are merged into the object that it stands in.  The names and types
 * of the attributes are read from the catalog: which parameters there are,
 * params.c knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/json.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* What a later release of Clerk's API has, and our types have not. */
#define MORE "more"

static ClerkJson *json_of_value(Datum value, Oid type);

PG_FUNCTION_INFO_V1(enterprise_connection_record_to_jsonb);
PG_FUNCTION_INFO_V1(enterprise_connection_array_to_jsonb);

static ClerkJson *
json_of_text(Datum value)
{
	text	   *string = DatumGetTextPP(value);
	char	   *bytes = VARDATA_ANY(string);
	int			len = (int) VARSIZE_ANY_EXHDR(string);
	char	   *utf8 = pg_server_to_any(bytes, len, PG_UTF8);

	return clerk_json_new_string(utf8, utf8 == bytes ? (size_t) len : strlen(utf8));
}

/* NULL elements become null: to leave them out would shift the others. */
static ClerkJson *
json_of_array(Datum value, Oid element_type)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	ClerkJson  *json = clerk_json_new_array();
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int16		len;
	bool		by_value;
	char		align;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an array of parameters must have one dimension, not %d", ARR_NDIM(array))));
	get_typlenbyvalalign(element_type, &len, &by_value, &align);
	deconstruct_array(array, element_type, len, by_value, align, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		clerk_json_append(json, nulls[i] ? NULL : json_of_value(elements[i], element_type));
	}
	return json;
}

/* Merging the members of "more" into the object of its row */
typedef struct Merge
{
	ClerkJson  *object;
	Oid			type;			/* of the row */
} Merge;

static bool
merge_member(const char *name, ClerkJson *value, void *arg)
{
	Merge	   *merge = arg;
	ClerkJson  *there;

	if (clerk_json_get(merge->object, name, &there))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" is given both as an attribute and in \"%s\"", name, MORE),
				 errdetail("The value is of type %s.", format_type_be(merge->type))));
	clerk_json_set(merge->object, name, value);
	return true;
}

static void
merge_more(ClerkJson *object, Datum value, Oid type)
{
	Merge		merge = {object, type};
	const char *fault;
	ClerkJson  *more = clerk_json_from_jsonb(DatumGetJsonbP(value), &fault);

	if (fault == NULL && clerk_json_type(more) != CLERK_JSON_OBJECT)
		fault = psprintf("must be a JSON object, not %s", clerk_json_type_name(more));
	if (fault)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attribute \"%s\" of type %s %s", MORE, format_type_be(type), fault)));
	clerk_json_each(more, merge_member, &merge);
}

/* NULL if all attributes are: such a row is null to SQL as well. */
static ClerkJson *
json_of_row(HeapTupleHeader row)
{
	Oid			type = HeapTupleHeaderGetTypeId(row);
	TupleDesc	desc = lookup_rowtype_tupdesc(type, HeapTupleHeaderGetTypMod(row));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row), .t_data = row};
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	ClerkJson  *object = NULL;
	int			more = -1;

	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		ClerkJson  *value;

		if (attribute->attisdropped || nulls[i])
			continue;
		if (strcmp(NameStr(attribute->attname), MORE) == 0)
		{
			more = i;
			continue;
		}
		value = json_of_value(values[i], attribute->atttypid);
		if (value == NULL)
			continue;
		if (object == NULL)
			object = clerk_json_new_object();
		clerk_json_set(object, NameStr(attribute->attname), value);
	}
	if (more >= 0)
	{
		if (object == NULL)
			object = clerk_json_new_object();
		merge_more(object, values[more], type);
	}
	ReleaseTupleDesc(desc);
	return object;
}

static ClerkJson *
json_of_value(Datum value, Oid type)
{
	const char *fault;
	ClerkJson  *json;

	check_stack_depth();
	if (type == TEXTOID)
		return json_of_text(value);
	if (type == BOOLOID)
		return clerk_json_new_boolean(DatumGetBool(value));
	if (type == JSONBOID)
	{
		json = clerk_json_from_jsonb(DatumGetJsonbP(value), &fault);
		if (fault)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a parameter %s", fault)));
		return json;
	}
	if (OidIsValid(get_element_type(type)))
		return json_of_array(value, get_element_type(type));
	if (type_is_rowtype(type))
		return json_of_row(DatumGetHeapTupleHeader(value));
	elog(ERROR, "cannot convert type %s to a parameter", format_type_be(type));
	return NULL;
}

static Jsonb *
value_to_jsonb(Datum value, Oid type)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "clerk composite", ALLOCSET_DEFAULT_SIZES);
	ClerkJson  *json;
	char	   *text;
	size_t		len;
	const char *fault;
	Jsonb	   *jsonb;

	MemoryContextSwitchTo(work);
	json = json_of_value(value, type);
	if (json == NULL)
		json = clerk_json_new_object();
	text = clerk_json_to_text(json, &len);
	MemoryContextSwitchTo(caller);
	jsonb = clerk_json_text_to_jsonb(text, len, &fault);
	MemoryContextDelete(work);
	if (jsonb == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the parameters %s", fault)));
	return jsonb;
}

/* enterprise_connection_params, and the types of its attributes, to jsonb */
Datum
enterprise_connection_record_to_jsonb(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);

	PG_RETURN_JSONB_P(value_to_jsonb(PointerGetDatum(row), HeapTupleHeaderGetTypeId(row)));
}

/* enterprise_connection_custom_attribute[] to jsonb */
Datum
enterprise_connection_array_to_jsonb(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);

	PG_RETURN_JSONB_P(value_to_jsonb(PointerGetDatum(array),
									 get_array_type(ARR_ELEMTYPE(array))));
}
