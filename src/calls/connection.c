/*-------------------------------------------------------------------------
 *
 * connection.c
 *		The SQL functions that call Clerk directly: create, update, get, delete,
 *		and test runs.
 *
 * Each one is the same few steps: settings, parameters, the call, tracking.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "calls/connection.h"
#include "calls/rollback.h"
#include "catalog/pg_type.h"
#include "clerk/default_server.h"
#include "clerk/dispatch.h"
#include "clerk/params.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(create_enterprise_connection);
PG_FUNCTION_INFO_V1(update_enterprise_connection);
PG_FUNCTION_INFO_V1(get_enterprise_connection);
PG_FUNCTION_INFO_V1(delete_enterprise_connection);
PG_FUNCTION_INFO_V1(create_enterprise_connection_test_run);

/* Of create_enterprise_connection(), after params and server; clerk_params_named() has them. */
#define FIRST_NAMED_ARGUMENT 2

/* Longer parameters would make a hint unreadable; "..." stands for them. */
#define MAX_HINT_PARAMS 500

/*-------------------------------------------------------------------------
 * In common
 *-------------------------------------------------------------------------
 */

void
clerk_prevent_write(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}

const char *
clerk_server_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : NameStr(*PG_GETARG_NAME(n));
}

char *
clerk_text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" cannot be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Jsonb *
clerk_call(const ClerkSettings *settings, ClerkEndpoint endpoint, const char *id,
		   const ClerkBody *body, List *secrets, ClerkReport **report)
{
	ClerkCall	call = {
		.settings = settings,
		.endpoint = endpoint,
		.id = id,
		.body = body,
		.secrets = secrets,
	};

	clerk_dispatch_one(&call);
	if (report != NULL)
		*report = call.report;
	else if (call.report != NULL)
		clerk_report_raise(ERROR, call.report);
	return call.result;
}

Jsonb *
clerk_jsonb_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

ClerkParams *
clerk_read_params(const ClerkSettings *settings, Jsonb *params, const JsonbValue *named,
				  ClerkOperation operation)
{
	ClerkParams *result = clerk_params_read(params, named, operation, settings->extra_params);

	clerk_params_check(result);
	return result;
}

ClerkParams *
clerk_read_upsert_params(const ClerkSettings *settings, Jsonb *params, const char *provider)
{
	ClerkParams *result = clerk_params_read_upsert(params, provider, settings->extra_params);

	clerk_params_check(result);
	return result;
}

/*-------------------------------------------------------------------------
 * Named arguments
 *-------------------------------------------------------------------------
 */

static JsonbValue
strings_value(const char *name, Datum datum)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);
	JsonbValue	value = clerk_jsonb_new_array();
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" must be a one-dimensional array", name)));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
		clerk_jsonb_append(&value, nulls[i] ? clerk_jsonb_new_string(NULL) :
						   clerk_jsonb_new_text(DatumGetTextPP(elements[i])));
	return value;
}

static JsonbValue
argument_value(const char *name, ClerkParamType type, Datum datum)
{
	switch (type)
	{
		case PARAM_TEXT:
			return clerk_jsonb_new_text(DatumGetTextPP(datum));
		case PARAM_TEXT_ARRAY:
			return strings_value(name, datum);
		case PARAM_BOOLEAN:
			return clerk_jsonb_new_boolean(DatumGetBool(datum));
		case PARAM_OBJECT:
		case PARAM_OBJECT_ARRAY:
			break;
	}
	return clerk_jsonb_value(DatumGetJsonbP(datum));
}

/*
 * The named arguments that are not null, as one object.
 */
static JsonbValue
named_arguments(FunctionCallInfo fcinfo)
{
	JsonbValue	named = clerk_jsonb_new_object();

	for (int n = FIRST_NAMED_ARGUMENT; n < PG_NARGS(); n++)
	{
		ClerkParamType type;
		const char *name = clerk_params_named(n - FIRST_NAMED_ARGUMENT, &type);

		if (!PG_ARGISNULL(n))
			clerk_jsonb_add(&named, name, argument_value(name, type, PG_GETARG_DATUM(n)));
	}
	return named;
}

/*-------------------------------------------------------------------------
 * Create
 *-------------------------------------------------------------------------
 */

/*
 * Until the transaction has noted the connection, every ERROR says that it
 * exists: nothing is rolled back at Clerk.
 */
static void
created_context(void *arg)
{
	errcontext("tracking of the enterprise connection \"%s\", which exists at Clerk now",
			   clerk_report_id(arg));
}

char *
clerk_server_clause(const ClerkSettings *settings)
{
	if (strcmp(settings->server_name, clerk_default_server) == 0)
		return "";
	return psprintf(", server => %s", quote_literal_cstr(settings->server_name));
}

void
clerk_note_creation(const ClerkSettings *settings, Jsonb *connection, const char *key)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = created_context,
	};
	char	   *id = clerk_jsonb_string(connection, "id");

	callback.arg = id;
	error_context_stack = &callback;
	clerk_rollback_note(settings, id);
	if (key != NULL)
		clerk_free_key(settings->server_name, key);
	clerk_track(connection, settings->server_name, key);
	error_context_stack = callback.previous;
}

/*
 * Send the parameters that Clerk takes only once the connection exists.  A
 * failure is a WARNING: an error would roll back the row of a connection that
 * exists.
 */
static Jsonb *
complete_creation(const ClerkSettings *settings, const ClerkParams *params, Jsonb *created)
{
	char	   *id = clerk_jsonb_string(created, "id");
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = created_context,
		.arg = id,
	};
	ClerkReport *report;
	Jsonb	   *completed;

	error_context_stack = &callback;
	completed = clerk_call(settings, CLERK_UPDATE, id, params->patch, params->secrets, &report);
	if (completed != NULL)
		clerk_track(completed, settings->server_name, NULL);
	error_context_stack = callback.previous;
	if (completed != NULL)
		return completed;

	report->message = psprintf("the enterprise connection \"%s\" was created, but not completed: %s",
							   clerk_report_id(id), report->message);
	report->hint = psprintf("Complete it with update_enterprise_connection(%s, %s%s).",
							quote_literal_cstr(id),
							params->patch->len > MAX_HINT_PARAMS ? "..." :
							quote_literal_cstr(pg_any_to_server(params->patch->text,
																(int) params->patch->len, PG_UTF8)),
							clerk_server_clause(settings));
	clerk_report_raise(WARNING, report);
	return created;
}

Jsonb *
clerk_create(const ClerkSettings *settings, const ClerkParams *params, const char *key,
			 ClerkReport **report)
{
	ClerkReport *failure;
	Jsonb	   *created = clerk_call(settings, CLERK_CREATE, NULL, params->body, params->secrets, &failure);

	if (created == NULL)
	{
		/* An answer that cannot be used may still have shown the id. */
		if (failure->connection_id != NULL)
			clerk_rollback_note_failed(settings, failure->connection_id);
		if (report == NULL)
			clerk_report_raise(ERROR, failure);
		*report = failure;
		return NULL;
	}
	clerk_note_creation(settings, created, key);
	return params->patch ? complete_creation(settings, params, created) : created;
}

/*
 * create_enterprise_connection(params jsonb, server name, the named arguments)
 */
Datum
create_enterprise_connection(PG_FUNCTION_ARGS)
{
	ClerkSettings *settings;
	ClerkParams *params;
	JsonbValue	named;

	clerk_prevent_write("create_enterprise_connection()");
	settings = clerk_settings(clerk_server_argument(fcinfo, 1), CLERK_USE_WRITE);
	named = named_arguments(fcinfo);
	params = clerk_read_params(settings, clerk_jsonb_argument(fcinfo, 0), &named, CLERK_OPERATION_CREATE);
	PG_RETURN_JSONB_P(clerk_create(settings, params, NULL, NULL));
}

/*-------------------------------------------------------------------------
 * Update, get, delete, test runs
 *-------------------------------------------------------------------------
 */

/*
 * update_enterprise_connection(id text, params jsonb, server name)
 */
Datum
update_enterprise_connection(PG_FUNCTION_ARGS)
{
	ClerkSettings *settings;
	ClerkParams *params;
	Jsonb	   *updated;
	char	   *id;

	clerk_prevent_write("update_enterprise_connection()");
	id = clerk_text_argument(fcinfo, 0, "id");
	clerk_api_check_id(id);
	settings = clerk_settings(clerk_server_argument(fcinfo, 2), CLERK_USE_WRITE);
	params = clerk_read_params(settings, clerk_jsonb_argument(fcinfo, 1), NULL, CLERK_OPERATION_UPDATE);
	(void) clerk_lock_id(settings->server_name, id);
	updated = clerk_call(settings, CLERK_UPDATE, id, params->body, params->secrets, NULL);
	clerk_track(updated, settings->server_name, NULL);
	PG_RETURN_JSONB_P(updated);
}

/*
 * get_enterprise_connection(id text, server name)
 */
Datum
get_enterprise_connection(PG_FUNCTION_ARGS)
{
	char	   *id = clerk_text_argument(fcinfo, 0, "id");
	ClerkSettings *settings = clerk_settings(clerk_server_argument(fcinfo, 1), CLERK_USE_READ);

	PG_RETURN_JSONB_P(clerk_call(settings, CLERK_GET, id, NULL, NIL, NULL));
}

/*
 * delete_enterprise_connection(id text, server name)
 *
 * The row goes first: if a user's foreign key holds it, the error comes before
 * anything is sent, and if Clerk refuses, the error brings the row back.
 */
Datum
delete_enterprise_connection(PG_FUNCTION_ARGS)
{
	ClerkSettings *settings;
	ClerkReport *report;
	Jsonb	   *deleted;
	bool		tracked;
	char	   *id;

	clerk_prevent_write("delete_enterprise_connection()");
	id = clerk_text_argument(fcinfo, 0, "id");
	clerk_api_check_id(id);
	settings = clerk_settings(clerk_server_argument(fcinfo, 1), CLERK_USE_WRITE);
	(void) clerk_lock_id(settings->server_name, id);
	tracked = clerk_untrack(settings->server_name, id);
	deleted = clerk_call(settings, CLERK_DELETE, id, NULL, NIL, &report);
	if (deleted == NULL && !(tracked && clerk_report_is_gone(report)))
		clerk_report_raise(ERROR, report);
	clerk_rollback_forget(settings->server_name, id);
	if (deleted != NULL)
		PG_RETURN_JSONB_P(deleted);
	ereport(NOTICE,
			(errmsg("enterprise connection \"%s\" did not exist at Clerk any more; its tracking row is removed", id)));
	PG_RETURN_NULL();
}

/*
 * create_enterprise_connection_test_run(id text, server name)
 */
Datum
create_enterprise_connection_test_run(PG_FUNCTION_ARGS)
{
	ClerkSettings *settings;
	Jsonb	   *run;
	char	   *id;

	clerk_prevent_write("create_enterprise_connection_test_run()");
	id = clerk_text_argument(fcinfo, 0, "id");
	clerk_api_check_id(id);
	settings = clerk_settings(clerk_server_argument(fcinfo, 1), CLERK_USE_WRITE);
	run = clerk_call(settings, CLERK_CREATE_TEST_RUN, id, NULL, NIL, NULL);
	PG_RETURN_TEXT_P(cstring_to_text(clerk_jsonb_string(run, "url")));
}
