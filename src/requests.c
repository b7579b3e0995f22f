/*-------------------------------------------------------------------------
 *
 * requests.c
 *		The SQL functions of the outbox: enqueue, await, retry, cancel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "connections.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "http.h"
#include "json.h"
#include "miscadmin.h"
#include "outbox.h"
#include "params.h"
#include "report.h"
#include "requests.h"
#include "statements.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wake.h"

/* How often await_enterprise_connection looks, in ms: first and later. */
#define AWAIT_FIRST 5
#define AWAIT_LAST 200

PG_FUNCTION_INFO_V1(enqueue_enterprise_connection);
PG_FUNCTION_INFO_V1(await_enterprise_connection);
PG_FUNCTION_INFO_V1(retry_enterprise_connection_request);
PG_FUNCTION_INFO_V1(cancel_enterprise_connection_request);

#define EQUALS " OPERATOR(pg_catalog.=) "

/* The oid of who has enqueued a request; null if that role is gone. */
#define ROLE_OF_ROW "(SELECT r.oid FROM pg_catalog.pg_roles r" \
	" WHERE CASE WHEN q.origin" EQUALS "pg_catalog.enterprise_connection_origin()" \
	" THEN r.oid" EQUALS "q.role_oid ELSE r.rolname" EQUALS "q.role END)"

static ClerkStatement merge_params_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_params_merge($1, $2)",
	.nargs = 2,
	.args = {JSONBOID, JSONBOID},
};

static ClerkStatement look_statement = {
	.text = "SELECT " ROLE_OF_ROW ", q.state, q.error, q.superseded_by,"
	" q.xact" EQUALS "coalesce(pg_catalog.pg_current_xact_id_if_assigned(), '0'),"
	" CASE WHEN q.state" EQUALS "'delivered' THEN coalesce("
	"(SELECT k.connection FROM %1$s.enterprise_connections k WHERE k.server" EQUALS "q.server AND k.id" EQUALS "q.connection_id),"
	" pg_catalog.jsonb_build_object('id', q.connection_id, 'object', 'enterprise_connection', 'deleted', true)) END,"
	" q.error OPERATOR(pg_catalog.#>>) '{errors,0,code}', q.error OPERATOR(pg_catalog.#>>) '{errors,0,meta,param_name}',"
	" q.server"
	" FROM %1$s.enterprise_connection_requests q WHERE q.id" EQUALS "$1",
	.nargs = 1,
	.args = {INT8OID},
};

static ClerkStatement lock_statement = {
	.text = "SELECT " ROLE_OF_ROW ", q.state, q.server, q.operation, q.lane,"
	" EXISTS (SELECT FROM %1$s.enterprise_connection_requests n WHERE n.lane" EQUALS "q.lane AND n.server" EQUALS "q.server"
	" AND n.id OPERATOR(pg_catalog.>) q.id AND n.state OPERATOR(pg_catalog.<>) 'cancelled'), q.scrubbed"
	" FROM %1$s.enterprise_connection_requests q WHERE q.id" EQUALS "$1 FOR UPDATE",
	.nargs = 1,
	.args = {INT8OID},
};

static ClerkStatement retry_statement = {
	.text = "UPDATE %1$s.enterprise_connection_requests q SET state = 'queued', attempts = 0, finished_at = NULL,"
	" next_attempt_at = pg_catalog.clock_timestamp(), params = coalesce($2, q.params), scrubbed = false,"
	" timeline = CASE WHEN q.doubt_since IS NULL THEN q.timeline ELSE 0 END,"
	" step = CASE WHEN $2 IS NOT NULL AND q.step" EQUALS "'complete' THEN 'update' ELSE q.step END WHERE q.id" EQUALS "$1",
	.nargs = 2,
	.args = {INT8OID, JSONBOID},
};

/* One that stands behind another does so still. */
static ClerkStatement hurry_statement = {
	.text = "UPDATE %1$s.enterprise_connection_requests q SET params = coalesce($2, q.params),"
	" next_attempt_at = CASE WHEN q.next_attempt_at OPERATOR(pg_catalog.=) 'infinity' THEN q.next_attempt_at"
	" ELSE pg_catalog.clock_timestamp() END WHERE q.id" EQUALS "$1",
	.nargs = 2,
	.args = {INT8OID, JSONBOID},
};

static ClerkStatement cancel_statement = {
	.text = "UPDATE %1$s.enterprise_connection_requests q SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(), awaits = NULL,"
	" params = pg_catalog.enterprise_connection_without_secrets(q.params) WHERE q.id" EQUALS "$1",
	.nargs = 1,
	.args = {INT8OID},
};

/*
 * Unless the request stood behind another one, and so in nobody's way: that
 * one is left alone.
 */
static ClerkStatement advance_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_advance_lane($1, $2) WHERE NOT EXISTS"
	" (SELECT FROM %1$s.enterprise_connection_requests q WHERE q.lane" EQUALS "$1 AND q.server" EQUALS "$2"
	" AND q.id OPERATOR(pg_catalog.<) $3 AND q.state" EQUALS "ANY (ARRAY['queued', 'sending', 'in_doubt']))",
	.nargs = 3,
	.args = {TEXTOID, NAMEOID, INT8OID},
};

/*-------------------------------------------------------------------------
 * Enqueue
 *-------------------------------------------------------------------------
 */

/*
 * The stored parameters: in the wire's spelling, so that two of them can be
 * merged; without a provider that was only inferred, because for an upsert of
 * a connection that exists it would be a change.
 */
static Jsonb *
stored_params(const ClerkParams *read, Jsonb *given)
{
	Jsonb	   *body = clerk_params_body_jsonb(read->body);

	if (clerk_jsonb_string(given, "provider") == NULL)
		body = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(body),
												  CStringGetTextDatum("provider")));
	if (read->patch != NULL)
	{
		MemoryContext caller = CurrentMemoryContext;
		Datum		values[] = {JsonbPGetDatum(body), JsonbPGetDatum(clerk_params_body_jsonb(read->patch))};
		bool		isnull;

		SPI_connect();
		clerk_run(&merge_params_statement, values, NULL, false);
		MemoryContextSwitchTo(caller);
		body = DatumGetJsonbPCopy(clerk_row_datum(0, 1, &isnull));
		SPI_finish();
	}
	return body;
}

Jsonb *
clerk_check_request_params(const ClerkSettings *settings, const char *operation, Jsonb *params)
{
	ClerkOperation how = strcmp(operation, "update") == 0 ?
		CLERK_OPERATION_UPDATE : CLERK_OPERATION_CREATE;
	ClerkParams *read = clerk_read_params(settings, params, NULL, how);

	return how == CLERK_OPERATION_UPDATE ? clerk_params_body_jsonb(read->body) :
		stored_params(read, params);
}

/*
 * Once in a session for each server: a statement may enqueue for many rows.
 */
static void
warn_of_held(const ClerkSettings *settings)
{
	static List *warned = NIL;
	MemoryContext old;

	if (list_member_oid(warned, settings->server))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	warned = lappend_oid(warned, settings->server);
	MemoryContextSwitchTo(old);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("server \"%s\" is not armed in this database; what is enqueued is held", settings->server_name),
			 errhint("If this database is meant to change the same Clerk instance, the server's owner runs "
					 "SELECT arm_enterprise_connections(%s).", quote_literal_cstr(settings->server_name))));
}

int64
clerk_enqueue_checked(const ClerkSettings *settings, const char *operation, Jsonb *params,
					  const char *key, const char *id)
{
	if (settings->origin == CLERK_ORIGIN_ELSEWHERE)
		warn_of_held(settings);
	return clerk_enqueue(settings, operation, params, key, id);
}

static void
refuse(const char *operation, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s %s", operation, what)));
}

static void
check_operation(const char *operation, Jsonb *params, const char *key, const char *id)
{
	bool		creates = strcmp(operation, "create") == 0;
	bool		upserts = strcmp(operation, "upsert") == 0;
	bool		deletes = strcmp(operation, "delete") == 0;

	if (!creates && !upserts && !deletes && strcmp(operation, "update") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown operation \"%s\"", operation),
				 errhint("It must be \"create\", \"update\", \"upsert\" or \"delete\".")));
	if ((creates || upserts) && id != NULL)
		refuse(operation, "takes no id");
	if (upserts && key == NULL)
		refuse(operation, "needs a key");
	if (!creates && !upserts && key == NULL && id == NULL)
		refuse(operation, "needs a key or an id");
	if (!creates && !upserts && key != NULL && id != NULL)
		refuse(operation, "takes a key or an id, not both");
	if (deletes && params != NULL)
		refuse(operation, "takes no params");
	if (id != NULL)
		clerk_api_check_id(id);
	if (key != NULL)
		clerk_api_check_length("argument \"key\"", key);
}

/*
 * enqueue_enterprise_connection(operation text, params jsonb, key text, id text, server name)
 */
Datum
enqueue_enterprise_connection(PG_FUNCTION_ARGS)
{
	char	   *operation;
	Jsonb	   *params = clerk_jsonb_argument(fcinfo, 1);
	char	   *key = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *id = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	ClerkSettings *settings;

	clerk_prevent_write("enqueue_enterprise_connection()");
	operation = clerk_text_argument(fcinfo, 0, "operation");
	check_operation(operation, params, key, id);
	settings = clerk_settings(clerk_server_argument(fcinfo, 4), CLERK_USE_ENQUEUE);
	if (strcmp(operation, "delete") != 0)
		params = clerk_check_request_params(settings, operation, params);
	PG_RETURN_INT64(clerk_enqueue_checked(settings, operation, params, key, id));
}

/*-------------------------------------------------------------------------
 * Await
 *-------------------------------------------------------------------------
 */

typedef struct Look
{
	bool		found;
	Oid			role;			/* InvalidOid: it is gone */
	char	   *state;
	Jsonb	   *error;
	char	   *code;			/* of Clerk's first error */
	char	   *param_name;
	int64		superseded_by;	/* 0: by none */
	bool		mine;			/* of this transaction */
	Jsonb	   *connection;		/* of one that is delivered; what a deletion answers if it is gone */
	char	   *server;
} Look;

static Oid
row_oid(int column)
{
	bool		isnull;
	Datum		datum = clerk_row_datum(0, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(datum);
}

static Jsonb *
row_jsonb(int column)
{
	bool		isnull;
	Datum		datum = clerk_row_datum(0, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(datum);
}

/*
 * With the latest snapshot: the transaction's may be older than the delivery.
 */
static void
look_at(int64 id, Look *look)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		values[] = {Int64GetDatum(id)};
	bool		isnull;

	memset(look, 0, sizeof(*look));
	SPI_connect();
	clerk_run(&look_statement, values, NULL, true);
	MemoryContextSwitchTo(caller);
	if (SPI_processed == 1)
	{
		look->found = true;
		look->role = row_oid(1);
		look->state = clerk_row_text(0, 2);
		look->error = row_jsonb(3);
		look->superseded_by = DatumGetInt64(clerk_row_datum(0, 4, &isnull));
		look->mine = DatumGetBool(clerk_row_datum(0, 5, &isnull));
		look->connection = row_jsonb(6);
		look->code = clerk_row_text(0, 7);
		look->param_name = clerk_row_text(0, 8);
		look->server = clerk_row_text(0, 9);
	}
	SPI_finish();
}

/*
 * superseded: the request of the caller's that this one has superseded, or 0.
 */
static void
check_role(Oid role, bool found, int64 id, int64 superseded)
{
	if (!found || (OidIsValid(role) ? !has_privs_of_role(GetUserId(), role) : !superuser()))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 superseded ?
				 errmsg("request " INT64_FORMAT " was superseded by request " INT64_FORMAT ", which cannot be seen", superseded, id) :
				 errmsg("there is no request " INT64_FORMAT, id),
				 errdetail("It may be that of a role whose privileges you do not have, or one that was deleted after pg_clerk.retention.")));
}

/*
 * The connection is as it is now, not as it was when it was delivered: who may
 * not use the server any more does not see it in the tracking table either.
 */
static void
check_usage(const char *server)
{
	Oid			oid = get_foreign_server_oid(server, true);

	if (OidIsValid(oid) && clerk_server_aclcheck(oid, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, server);
}

static void
raise_stored_error(const Look *look)
{
	Jsonb	   *error = look->error;
	ClerkReport report = {
		.sqlerrcode = ERRCODE_CLERK_ERROR,
		.message = "the request failed",
		.code = look->code,
		.param_name = look->param_name,
	};
	char	   *sqlstate = error ? clerk_jsonb_string(error, "sqlstate") : NULL;
	char	   *message = error ? clerk_jsonb_string(error, "message") : NULL;

	if (sqlstate != NULL && strlen(sqlstate) == 5)
		report.sqlerrcode = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
	if (message != NULL)
		report.message = message;
	if (error != NULL)
	{
		report.detail = clerk_jsonb_string(error, "detail");
		report.hint = clerk_jsonb_string(error, "hint");
	}
	clerk_report_raise(ERROR, &report);
}

/*
 * await_enterprise_connection(request bigint, timeout interval)
 */
Datum
await_enterprise_connection(PG_FUNCTION_ARGS)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk await",
												  ALLOCSET_SMALL_SIZES);
	int64		id;
	int64		superseded = 0;
	int64		until = -1;
	int64		pause = AWAIT_FIRST;
	Look		look;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	if (!PG_ARGISNULL(1))
	{
		Interval   *interval = PG_GETARG_INTERVAL_P(1);
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
																  TimestampTzGetDatum(now),
																  IntervalPGetDatum(interval)));

		until = clerk_http_now() + Max(end - now, 0) / 1000;
	}
	for (;;)
	{
		MemoryContext old;

		MemoryContextReset(scratch);
		old = MemoryContextSwitchTo(scratch);
		look_at(id, &look);
		MemoryContextSwitchTo(old);
		check_role(look.role, look.found, id, superseded);
		if (look.mine)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot await a request of this transaction"),
					 errdetail("It is delivered after the transaction commits.")));
		if (strcmp(look.state, "delivered") == 0)
		{
			check_usage(look.server);
			break;
		}
		if (strcmp(look.state, "superseded") == 0)
		{
			superseded = id;
			id = look.superseded_by;
		}
		else if (strcmp(look.state, "failed") == 0)
			raise_stored_error(&look);
		else if (strcmp(look.state, "cancelled") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("request " INT64_FORMAT " was cancelled", id)));
		else if (until >= 0 && clerk_http_now() >= until)
			PG_RETURN_NULL();
		else
		{
			int64		now = clerk_http_now();

			clerk_http_pause(until < 0 ? now + pause : Min(now + pause, until));
			pause = Min(pause * 2, AWAIT_LAST);
		}
	}
	PG_RETURN_JSONB_P(look.connection);
}

/*-------------------------------------------------------------------------
 * Retry and cancel
 *-------------------------------------------------------------------------
 */

typedef struct Locked
{
	char	   *state;
	char	   *server;
	char	   *operation;
	char	   *lane;
	bool		overtaken;
	bool		scrubbed;
} Locked;

static void
lock_request(int64 id, Locked *locked)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		values[] = {Int64GetDatum(id)};
	Oid			role = InvalidOid;
	bool		found;
	bool		isnull;

	memset(locked, 0, sizeof(*locked));
	SPI_connect();
	clerk_run(&lock_statement, values, NULL, true);
	MemoryContextSwitchTo(caller);
	found = SPI_processed == 1;
	if (found)
	{
		role = row_oid(1);
		locked->state = clerk_row_text(0, 2);
		locked->server = clerk_row_text(0, 3);
		locked->operation = clerk_row_text(0, 4);
		locked->lane = clerk_row_text(0, 5);
		locked->overtaken = DatumGetBool(clerk_row_datum(0, 6, &isnull));
		locked->scrubbed = DatumGetBool(clerk_row_datum(0, 7, &isnull));
	}
	SPI_finish();
	check_role(role, found, id, 0);
}

static void
wrong_state(int64 id, const Locked *locked, const char *what)
{
	bool		in_doubt = strcmp(locked->state, "in_doubt") == 0;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s request " INT64_FORMAT ", which is %s", what, id,
					in_doubt ? "in doubt" : locked->state),
			 in_doubt || strcmp(locked->state, "sending") == 0 ?
			 errhint("Wait for what becomes of it: await_enterprise_connection(" INT64_FORMAT ").", id) : 0));
}

static void
run_on(ClerkStatement *statement, int64 id, Jsonb *params)
{
	Datum		values[] = {Int64GetDatum(id), params ? JsonbPGetDatum(params) : (Datum) 0};

	SPI_connect();
	clerk_run(statement, values, params ? NULL : " n", false);
	SPI_finish();
}

/*
 * retry_enterprise_connection_request(id bigint, params jsonb)
 */
Datum
retry_enterprise_connection_request(PG_FUNCTION_ARGS)
{
	int64		id;
	Jsonb	   *params = clerk_jsonb_argument(fcinfo, 1);
	Locked		locked;
	bool		queued;

	clerk_prevent_write("retry_enterprise_connection_request()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	lock_request(id, &locked);
	queued = strcmp(locked.state, "queued") == 0;
	if (!queued && strcmp(locked.state, "failed") != 0)
		wrong_state(id, &locked, "retry");
	if (!queued && locked.overtaken)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot retry request " INT64_FORMAT ", which a later one of its key has overtaken", id),
				 errhint("Enqueue what shall hold now as a new request, and cancel this one.")));
	if (locked.scrubbed && params == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot retry request " INT64_FORMAT " without params", id),
				 errdetail("It failed longer ago than pg_clerk.retention, and its secrets are gone."),
				 errhint("Give all its parameters again, or cancel it.")));
	if (params != NULL)
		params = clerk_check_request_params(clerk_settings(locked.server, CLERK_USE_ENQUEUE),
											locked.operation, params);
	run_on(queued ? &hurry_statement : &retry_statement, id, params);
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * cancel_enterprise_connection_request(id bigint)
 */
Datum
cancel_enterprise_connection_request(PG_FUNCTION_ARGS)
{
	int64		id;
	Locked		locked;

	clerk_prevent_write("cancel_enterprise_connection_request()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	lock_request(id, &locked);
	if (strcmp(locked.state, "queued") != 0 && strcmp(locked.state, "failed") != 0)
		wrong_state(id, &locked, "cancel");
	run_on(&cancel_statement, id, NULL);
	if (locked.lane != NULL)
	{
		NameData	server;
		Datum		values[] = {CStringGetTextDatum(locked.lane), clerk_name_datum(&server, locked.server),
		Int64GetDatum(id)};

		SPI_connect();
		clerk_run(&advance_statement, values, NULL, true);
		SPI_finish();
	}
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
