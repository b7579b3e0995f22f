/*-------------------------------------------------------------------------
 *
 * params_functions.c
 *		The parameters for SQL: the body that would be sent, and all faults.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "clerk/params_internal.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(enterprise_connection_body);
PG_FUNCTION_INFO_V1(enterprise_connection_without_secrets);
PG_FUNCTION_INFO_V1(check_enterprise_connection);

static ClerkOperation
operation_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *operation;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operation cannot be null"),
				 errhint("It must be \"create\" or \"update\".")));
	operation = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(operation, "create") == 0)
		return CLERK_OPERATION_CREATE;
	if (strcmp(operation, "update") == 0)
		return CLERK_OPERATION_UPDATE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown operation \"%s\"", operation),
			 errhint("It must be \"create\" or \"update\".")));
}

static List *
extra_params_argument(FunctionCallInfo fcinfo, int n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	List	   *paths = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *element = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		char	   *path = element ? clerk_param_extra_path(element) : NULL;

		if (path == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 element ?
					 errmsg("invalid name in extra_params: \"%s\"", element) :
					 errmsg("extra_params cannot have null elements"),
					 errhint("%s", clerk_param_extra_path_fault)));
		paths = lappend(paths, path);
	}
	return paths;
}

static ClerkParams *
read_arguments(FunctionCallInfo fcinfo)
{
	return clerk_params_read(PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0), NULL,
							 operation_argument(fcinfo, 1),
							 extra_params_argument(fcinfo, 2));
}

/*
 * enterprise_connection_body(params jsonb, operation text, extra_params text[])
 *
 * NULL for NULL, as a CHECK constraint on a nullable column wants it.
 */
Datum
enterprise_connection_body(PG_FUNCTION_ARGS)
{
	ClerkParams *params;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	params = read_arguments(fcinfo);
	clerk_params_check(params);
	PG_RETURN_JSONB_P(clerk_jsonb_pack(&params->body->document));
}

/*
 * A value without the members that are secret.  level: NULL below an extra
 * parameter.
 */
static JsonbValue
without_secrets(const JsonbValue *value, const ParamLevel *level)
{
	JsonbValue	rest = clerk_jsonb_new_object();
	int			count;
	const JsonbPair *pairs = clerk_jsonb_members(value, &count);

	check_stack_depth();
	if (clerk_jsonb_type(value) != CLERK_JSON_OBJECT)
		return *value;
	for (int i = 0; i < count; i++)
	{
		int			len = pairs[i].key.val.string.len;
		char	   *name = pnstrdup(pairs[i].key.val.string.val, len);
		const ParamDef *param = level ? clerk_param_find(level, name) : NULL;

		if (param ? !(param->flags & PARAM_SECRET) : !clerk_param_sounds_secret(name, len))
			clerk_jsonb_add(&rest, name, without_secrets(&pairs[i].value, param ? param->members : NULL));
	}
	return rest;
}

/*
 * enterprise_connection_without_secrets(params jsonb), of stored parameters
 */
Datum
enterprise_connection_without_secrets(PG_FUNCTION_ARGS)
{
	JsonbValue	params = clerk_jsonb_value(PG_GETARG_JSONB_P(0));

	params = without_secrets(&params, &clerk_param_top);
	PG_RETURN_JSONB_P(clerk_jsonb_pack(&params));
}

/*
 * check_enterprise_connection(params jsonb, operation text, extra_params text[])
 */
Datum
check_enterprise_connection(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	List	   *faults;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller;
		TupleDesc	desc;

		call = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(desc);
		call->user_fctx = read_arguments(fcinfo)->faults;
		MemoryContextSwitchTo(caller);
	}

	call = SRF_PERCALL_SETUP();
	faults = call->user_fctx;
	if (call->call_cntr < (uint64) list_length(faults))
	{
		ClerkFault *fault = list_nth(faults, (int) call->call_cntr);
		Datum		values[3];
		bool		nulls[3] = {false, false, fault->hint == NULL};

		values[0] = CStringGetTextDatum(fault->path);
		values[1] = CStringGetTextDatum(fault->message);
		values[2] = fault->hint ? CStringGetTextDatum(fault->hint) : (Datum) 0;
		SRF_RETURN_NEXT(call, HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, values, nulls)));
	}
	SRF_RETURN_DONE(call);
}
