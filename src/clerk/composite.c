/*-------------------------------------------------------------------------
 *
 * composite.c
 *		Composite parameters become jsonb: the implicit casts.
 *
 * NULL attributes are left out, at every level.  The members of an attribute
 * "more" are merged into the object that it stands in.  The names and types
 * of the attributes are read from the catalog: which parameters there are,
 * params_table.c knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/jsonb.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* What a later release of Clerk's API has, and our types have not. */
#define MORE "more"

static bool value_of(Datum datum, Oid type, JsonbValue *value);

PG_FUNCTION_INFO_V1(enterprise_connection_record_to_jsonb);
PG_FUNCTION_INFO_V1(enterprise_connection_array_to_jsonb);

/* NULL elements become null: to leave them out would shift the others. */
static JsonbValue
value_of_array(Datum datum, Oid element_type)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);
	JsonbValue	value = clerk_jsonb_new_array();
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
		JsonbValue	element = clerk_jsonb_new_string(NULL);

		CHECK_FOR_INTERRUPTS();
		if (!nulls[i])
			(void) value_of(elements[i], element_type, &element);
		clerk_jsonb_append(&value, element);
	}
	return value;
}

/* Merge the members of "more" into the object of its row. */
static void
merge_more(JsonbValue *object, Datum datum, Oid type)
{
	JsonbValue	more = clerk_jsonb_value(DatumGetJsonbP(datum));
	const char *fault = clerk_jsonb_fault(&more);
	JsonbPair  *pairs;
	int			count;

	if (fault == NULL && clerk_jsonb_type(&more) != CLERK_JSON_OBJECT)
		fault = psprintf("must be a JSON object, not %s", clerk_jsonb_type_name(&more));
	if (fault)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attribute \"%s\" of type %s %s", MORE, format_type_be(type), fault)));
	pairs = clerk_jsonb_members(&more, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *name = pnstrdup(pairs[i].key.val.string.val, pairs[i].key.val.string.len);
		JsonbValue	there;

		if (clerk_jsonb_get(object, name, &there))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("parameter \"%s\" is given both as an attribute and in \"%s\"", name, MORE),
					 errdetail("The value is of type %s.", format_type_be(type))));
		clerk_jsonb_add(object, name, pairs[i].value);
	}
}

/* False if all attributes are NULL: such a row is null to SQL as well. */
static bool
value_of_row(HeapTupleHeader row, JsonbValue *object)
{
	Oid			type = HeapTupleHeaderGetTypeId(row);
	TupleDesc	desc = lookup_rowtype_tupdesc(type, HeapTupleHeaderGetTypMod(row));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row),.t_data = row};
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	int			more = -1;

	*object = clerk_jsonb_new_object();
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		JsonbValue	value;

		if (attribute->attisdropped || nulls[i])
			continue;
		if (strcmp(NameStr(attribute->attname), MORE) == 0)
			more = i;
		else if (value_of(values[i], attribute->atttypid, &value))
			clerk_jsonb_add(object, pstrdup(NameStr(attribute->attname)), value);
	}
	if (more >= 0)
		merge_more(object, values[more], type);
	ReleaseTupleDesc(desc);
	return more >= 0 || object->val.object.nPairs > 0;
}

/* False, with *value unchanged, if there is nothing to say. */
static bool
value_of(Datum datum, Oid type, JsonbValue *value)
{
	JsonbValue	object;
	const char *fault;

	check_stack_depth();
	if (type == TEXTOID)
		*value = clerk_jsonb_new_text(DatumGetTextPP(datum));
	else if (type == BOOLOID)
		*value = clerk_jsonb_new_boolean(DatumGetBool(datum));
	else if (type == JSONBOID)
	{
		*value = clerk_jsonb_value(DatumGetJsonbP(datum));
		fault = clerk_jsonb_fault(value);
		if (fault)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a parameter %s", fault)));
	}
	else if (OidIsValid(get_element_type(type)))
		*value = value_of_array(datum, get_element_type(type));
	else if (type_is_rowtype(type))
	{
		if (!value_of_row(DatumGetHeapTupleHeader(datum), &object))
			return false;
		*value = object;
	}
	else
		elog(ERROR, "cannot convert type %s to a parameter", format_type_be(type));
	return true;
}

static Jsonb *
value_to_jsonb(Datum datum, Oid type)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "pg_clerk composite", ALLOCSET_DEFAULT_SIZES);
	JsonbValue	value = clerk_jsonb_new_object();
	Jsonb	   *jsonb;

	MemoryContextSwitchTo(work);
	(void) value_of(datum, type, &value);
	jsonb = clerk_jsonb_pack(&value);
	MemoryContextSwitchTo(caller);
	jsonb = clerk_jsonb_copy(jsonb);
	MemoryContextDelete(work);
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
