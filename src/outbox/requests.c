/*-------------------------------------------------------------------------
 *
 * requests.c
 *		What may be done with a request of the outbox: await, retry, cancel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/statements.h"
#include "base/wake.h"
#include "calls/connection.h"
#include "catalog/pg_type.h"
#include "clerk/report.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "outbox/requests.h"
#include "outbox/states.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(await_enterprise_connection);
PG_FUNCTION_INFO_V1(retry_enterprise_connection_request);
PG_FUNCTION_INFO_V1(cancel_enterprise_connection_request);

#define REQUESTS "%1$s.enterprise_connection_requests"
#define EQUALS " OPERATOR(pg_catalog.=) "

typedef struct Request
{
	Oid			role;			/* who has enqueued it; InvalidOid: it is gone */
	ClerkState	state;
	ClerkOutboxOperation operation;
	char	   *server;
	char	   *lane;
	char	   *key;
	bool		scrubbed;
	int64		superseded_by;	/* 0: by none */
	bool		own;			/* of this transaction */
	Jsonb	   *error;
	char	   *code;			/* of Clerk's first error */
	char	   *param_name;
	Jsonb	   *connection;		/* of one that is delivered; what a deletion
								 * answers if it is gone */
} Request;

static const ClerkColumn request_columns[] = {
	CLERK_MEMBER("role", CLERK_OID, Request, role),
	CLERK_MEMBER_WORDS("state", clerk_state_words, Request, state),
	CLERK_MEMBER_WORDS("operation", clerk_operation_words, Request, operation),
	CLERK_MEMBER("server", CLERK_TEXT, Request, server),
	CLERK_MEMBER("lane", CLERK_TEXT, Request, lane),
	CLERK_MEMBER("key", CLERK_TEXT, Request, key),
	CLERK_MEMBER("scrubbed", CLERK_BOOL, Request, scrubbed),
	CLERK_MEMBER("superseded_by", CLERK_INT8, Request, superseded_by),
	CLERK_MEMBER("own", CLERK_BOOL, Request, own),
	CLERK_MEMBER("error", CLERK_JSONB, Request, error),
	CLERK_MEMBER("code", CLERK_TEXT, Request, code),
	CLERK_MEMBER("param_name", CLERK_TEXT, Request, param_name),
	CLERK_MEMBER("connection", CLERK_JSONB, Request, connection),
	CLERK_MEMBERS_END
};

#define REQUEST \
	"SELECT (SELECT r.oid FROM pg_catalog.pg_roles r WHERE CASE WHEN q.origin" EQUALS "pg_catalog.enterprise_connection_origin()" \
	" THEN r.oid" EQUALS "q.role_oid ELSE r.rolname" EQUALS "q.role END)," \
	" q.state, q.operation, q.server, q.lane, q.key, q.scrubbed, q.superseded_by," \
	" q.xact" EQUALS "coalesce(pg_catalog.pg_current_xact_id_if_assigned(), '0')," \
	" q.error, q.error OPERATOR(pg_catalog.#>>) '{errors,0,code}', q.error OPERATOR(pg_catalog.#>>) '{errors,0,meta,param_name}'," \
	" CASE WHEN q.state" EQUALS "'delivered' THEN coalesce((SELECT k.connection FROM %1$s.enterprise_connections k" \
	" WHERE k.server" EQUALS "q.server AND k.id" EQUALS "q.connection_id)," \
	" pg_catalog.jsonb_build_object('id', q.connection_id, 'object', 'enterprise_connection', 'deleted', true)) END" \
	" FROM " REQUESTS " q WHERE q.id" EQUALS "$1"

/* The transaction's snapshot may be older than the delivery. */
static ClerkStatement look_statement = {
	.text = REQUEST,
	.nargs = 1,
	.args = {INT8OID},
	.returns = request_columns,
	.latest = true,
};

static ClerkStatement lock_statement = {
	.text = REQUEST " FOR UPDATE OF q",
	.nargs = 1,
	.args = {INT8OID},
	.returns = request_columns,
	.latest = true,
};

static ClerkStatement was_there_statement = {
	.text = "SELECT s.is_called AND $1 OPERATOR(pg_catalog.<=) s.last_value AND NOT EXISTS (SELECT FROM " REQUESTS " q WHERE q.id" EQUALS "$1)"
	" FROM " REQUESTS "_id_seq s",
	.nargs = 1,
	.args = {INT8OID},
	.latest = true,
};

static ClerkStatement retry_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'queued', attempts = 0, finished_at = NULL,"
	" next_attempt_at = pg_catalog.clock_timestamp(), params = coalesce($2, q.params), scrubbed = false,"
	" timeline = CASE WHEN q.doubt_since IS NULL THEN q.timeline ELSE 0 END,"
	" step = CASE WHEN $2 IS NOT NULL AND q.step" EQUALS "'complete' THEN 'update' ELSE q.step END WHERE q.id" EQUALS "$1",
	.nargs = 2,
	.args = {INT8OID, JSONBOID},
};

/* One that stands behind another does so still. */
static ClerkStatement hurry_statement = {
	.text = "UPDATE " REQUESTS " q SET params = coalesce($2, q.params),"
	" next_attempt_at = CASE WHEN q.next_attempt_at OPERATOR(pg_catalog.=) 'infinity' THEN q.next_attempt_at"
	" ELSE pg_catalog.clock_timestamp() END WHERE q.id" EQUALS "$1",
	.nargs = 2,
	.args = {INT8OID, JSONBOID},
};

static ClerkStatement cancel_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
	" params = pg_catalog.enterprise_connection_without_secrets(q.params) WHERE q.id" EQUALS "$1",
	.nargs = 1,
	.args = {INT8OID},
};

/* The next of its lane goes on, if it was put at infinity. */
static ClerkStatement advance_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = pg_catalog.clock_timestamp()"
	" WHERE q.next_attempt_at" EQUALS "'infinity' AND q.id" EQUALS "(SELECT n.id FROM " REQUESTS " n"
	" WHERE n.server" EQUALS "$2 AND n.lane" EQUALS "$1 AND n.state OPERATOR(pg_catalog.<=) 'queued' ORDER BY n.state, n.id LIMIT 1)",
	.nargs = 2,
	.args = {TEXTOID, NAMEOID},
	.latest = true,
};

/*
 * Look at a request of the caller's, and lock it, if lock says so.  superseded:
 * the request that it has superseded, or 0.
 */
static Request *
find_request(int64 id, bool lock, int64 superseded)
{
	Datum		value = Int64GetDatum(id);
	List	   *found = clerk_select(lock ? &lock_statement : &look_statement, &value, NIL, sizeof(Request));
	Request    *request = found ? linitial(found) : NULL;

	if (request == NULL ||
		(OidIsValid(request->role) ? !has_privs_of_role(GetUserId(), request->role) : !superuser()))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 superseded ?
				 errmsg("request " INT64_FORMAT " was superseded by request " INT64_FORMAT ", which cannot be seen", superseded, id) :
				 errmsg("there is no request " INT64_FORMAT, id),
				 errdetail("It may be that of a role whose privileges you do not have, or one that was deleted after pg_clerk.retention.")));
	return request;
}

/*-------------------------------------------------------------------------
 * Await
 *-------------------------------------------------------------------------
 */

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
raise_stored_error(const Request *request)
{
	Jsonb	   *error = request->error;
	ClerkReport report = {
		.sqlerrcode = ERRCODE_CLERK_ERROR,
		.message = "the request failed",
		.code = request->code,
		.param_name = request->param_name,
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
 * When the time is up; -1: never.
 */
static int64
end_of(Interval *timeout)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(now),
															  IntervalPGetDatum(timeout)));

	return clerk_now_ms() + (end > now ? (end - now) / 1000 : 0);
}

/*
 * Raises an error if the request will never be delivered.
 */
static bool
is_delivered(const Request *request, int64 id)
{
	if (request->own)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot await a request of this transaction"),
				 errdetail("It is delivered after the transaction commits.")));

	/*
	 * What has failed has done so for good, even if a later one was sent
	 * since.
	 */
	if (request->state == CLERK_STATE_FAILED || (request->state == CLERK_STATE_SUPERSEDED && request->error != NULL))
		raise_stored_error(request);
	if (request->state == CLERK_STATE_CANCELLED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("request " INT64_FORMAT " was cancelled", id)));
	if (request->state != CLERK_STATE_DELIVERED)
		return false;
	check_usage(request->server);
	return true;
}

/*
 * Wait until a request is delivered, or the one that has superseded it.
 * Returns what it has come to, or NULL when the time is up.
 */
static Jsonb *
wait_for(int64 id, int64 until)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk await",
												  ALLOCSET_SMALL_SIZES);
	int64		superseded = 0;

	for (;;)
	{
		MemoryContext old;
		Request    *request;

		MemoryContextReset(scratch);
		old = MemoryContextSwitchTo(scratch);
		request = find_request(id, false, superseded);
		MemoryContextSwitchTo(old);
		if (is_delivered(request, id))
			return request->connection;
		if (request->state == CLERK_STATE_SUPERSEDED)
		{
			superseded = id;
			id = request->superseded_by;
		}
		else if (until >= 0 && clerk_now_ms() >= until)
			return NULL;
		else
		{
			clerk_warn_if_not_served();
			clerk_wake_wait(id, request->key, until);
		}
	}
}

/*
 * await_enterprise_connection(request bigint, timeout interval)
 */
Datum
await_enterprise_connection(PG_FUNCTION_ARGS)
{
	Jsonb	   *connection;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	connection = wait_for(PG_GETARG_INT64(0), PG_ARGISNULL(1) ? -1 : end_of(PG_GETARG_INTERVAL_P(1)));
	clerk_wake_end_wait();
	if (connection == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(connection);
}

/*-------------------------------------------------------------------------
 * Retry and cancel
 *-------------------------------------------------------------------------
 */

/*
 * Raise that the request is in another state than it would have to be.
 */
static void
refuse(const char *what, int64 id, const Request *request)
{
	const char *state = request->state == CLERK_STATE_IN_DOUBT ? "in doubt" : clerk_state_words[request->state];

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s request " INT64_FORMAT ", which is %s", what, id, state),
			 request->state < CLERK_STATE_QUEUED ?
			 errhint("Wait for what becomes of it: await_enterprise_connection(" INT64_FORMAT ").", id) : 0));
}

/*
 * What was overtaken cannot be retried, and still cannot when it was deleted
 * after pg_clerk.retention, as all that is deleted was overtaken or came to an
 * end.
 */
static void
check_overtaken(int64 id, const Request *request)
{
	Datum		value = Int64GetDatum(id);

	if (request != NULL ? request->state == CLERK_STATE_SUPERSEDED :
		id > 0 && DatumGetBool(clerk_select_datum(&was_there_statement, &value)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 request != NULL ?
				 errmsg("cannot retry request " INT64_FORMAT ", which a later one of its key has overtaken", id) :
				 errmsg("cannot retry request " INT64_FORMAT ", which is not there any more", id),
				 errhint("Enqueue what shall hold now as a new request.")));
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
	Request    *request;

	clerk_prevent_write("retry_enterprise_connection_request()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	check_overtaken(id, NULL);
	request = find_request(id, true, 0);
	check_overtaken(id, request);
	if (request->state != CLERK_STATE_QUEUED && request->state != CLERK_STATE_FAILED)
		refuse("retry", id, request);
	if (request->scrubbed && params == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot retry request " INT64_FORMAT " without params", id),
				 errdetail("It failed longer ago than pg_clerk.retention, and its secrets are gone."),
				 errhint("Give all its parameters again, or cancel it.")));
	if (params != NULL)
		params = clerk_check_request_params(clerk_settings(request->server, CLERK_USE_ENQUEUE),
											clerk_operation_words[request->operation], params);
	run_on(request->state == CLERK_STATE_QUEUED ? &hurry_statement : &retry_statement, id, params);
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
	Request    *request;

	clerk_prevent_write("cancel_enterprise_connection_request()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	request = find_request(id, true, 0);
	if (request->state != CLERK_STATE_QUEUED && request->state != CLERK_STATE_FAILED)
		refuse("cancel", id, request);
	run_on(&cancel_statement, id, NULL);
	clerk_wake_finished(id, request->key);
	if (request->lane != NULL)
	{
		NameData	server;
		Datum		values[] = {CStringGetTextDatum(request->lane), clerk_name_datum(&server, request->server)};

		(void) clerk_execute(&advance_statement, values, NIL);
	}
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
