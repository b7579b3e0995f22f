/*-------------------------------------------------------------------------
 *
 * requests.c
 *		The SQL functions of the outbox: enqueue, await, retry, cancel.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/json.h"
#include "base/statements.h"
#include "base/wake.h"
#include "calls/connection.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/params.h"
#include "clerk/report.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "http/http.h"
#include "miscadmin.h"
#include "outbox/requests.h"
#include "outbox/states.h"
#include "tables/tracking.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

PG_FUNCTION_INFO_V1(enqueue_enterprise_connection);
PG_FUNCTION_INFO_V1(await_enterprise_connection);
PG_FUNCTION_INFO_V1(retry_enterprise_connection_request);
PG_FUNCTION_INFO_V1(cancel_enterprise_connection_request);

#define EQUALS " OPERATOR(pg_catalog.=) "

/*
 * An id that is there already is met once, or as often as others enqueue at the
 * same time.
 */
#define MAX_ENQUEUE_TRIES 100

/* Each priority that is in use costs each claim a look. */
#define MAX_PRIORITY 1000

/* The oid of who has enqueued a request; null if that role is gone. */
#define ROLE_OF_ROW "(SELECT r.oid FROM pg_catalog.pg_roles r" \
	" WHERE CASE WHEN q.origin" EQUALS "pg_catalog.enterprise_connection_origin()" \
	" THEN r.oid" EQUALS "q.role_oid ELSE r.rolname" EQUALS "q.role END)"

static ClerkStatement look_statement = {
	.text = "SELECT " ROLE_OF_ROW ", q.state, q.error, q.superseded_by,"
	" q.xact" EQUALS "coalesce(pg_catalog.pg_current_xact_id_if_assigned(), '0'),"
	" CASE WHEN q.state" EQUALS "'delivered' THEN coalesce("
	"(SELECT k.connection FROM %1$s.enterprise_connections k WHERE k.server" EQUALS "q.server AND k.id" EQUALS "q.connection_id),"
	" pg_catalog.jsonb_build_object('id', q.connection_id, 'object', 'enterprise_connection', 'deleted', true)) END,"
	" q.error OPERATOR(pg_catalog.#>>) '{errors,0,code}', q.error OPERATOR(pg_catalog.#>>) '{errors,0,meta,param_name}',"
	" q.server, q.key"
	" FROM %1$s.enterprise_connection_requests q WHERE q.id" EQUALS "$1",
	.nargs = 1,
	.args = {INT8OID},
};

static ClerkStatement lock_statement = {
	.text = "SELECT " ROLE_OF_ROW ", q.state, q.server, q.operation, q.lane, q.scrubbed, q.key"
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
	.text = "UPDATE %1$s.enterprise_connection_requests q SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
	" params = pg_catalog.enterprise_connection_without_secrets(q.params) WHERE q.id" EQUALS "$1",
	.nargs = 1,
	.args = {INT8OID},
};

/* The next of its lane goes on, if it was put at infinity. */
static ClerkStatement advance_statement = {
	.text = "UPDATE %1$s.enterprise_connection_requests q SET next_attempt_at = pg_catalog.clock_timestamp()"
	" WHERE q.next_attempt_at" EQUALS "'infinity' AND q.id" EQUALS "(SELECT n.id FROM %1$s.enterprise_connection_requests n"
	" WHERE n.server" EQUALS "$2 AND n.lane" EQUALS "$1 AND n.state OPERATOR(pg_catalog.<=) 'queued' ORDER BY n.state, n.id LIMIT 1)",
	.nargs = 2,
	.args = {TEXTOID, NAMEOID},
};

static ClerkStatement enqueue_statement = {
	.text = "INSERT INTO %1$s.enterprise_connection_requests"
	" (server, server_oid, role, role_oid, origin, timeline, operation, key, connection_id, params, lane, next_attempt_at, priority)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7::%1$s.enterprise_connection_operation, $8, $9, $10, $11,"
	" CASE WHEN $12 THEN 'infinity' ELSE pg_catalog.now() END, $13)"
	" ON CONFLICT (id) DO NOTHING RETURNING id",
	.nargs = 13,
	.args = {NAMEOID, OIDOID, NAMEOID, OIDOID, INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, BOOLOID, INT2OID},
};

static ClerkStatement mend_sequence_statement = {
	.text = "SELECT pg_catalog.setval($1, (SELECT pg_catalog.max(q.id) FROM %1$s.enterprise_connection_requests q))",
	.nargs = 1,
	.args = {REGCLASSOID},
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
		body = clerk_jsonb_merge(body, clerk_params_body_jsonb(read->patch));
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

/*
 * Once in a session for each reason, whether it enqueues or awaits.
 */
static void
warn_if_not_served(void)
{
	static const char *warned = NULL;
	const char *hint;
	const char *reason = clerk_wake_unserved(&hint);

	if (reason == NULL || reason == warned)
		return;
	warned = reason;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("no worker of pg_clerk delivers what is enqueued here: %s", reason),
			 errhint("%s", hint)));
}

/*
 * What is delivered in order: the key's requests, and those that name the
 * same connection by its id.
 */
static char *
request_lane(const char *server, const char *key, const char *connection_id)
{
	if (key == NULL && connection_id != NULL)
		key = clerk_tracked_key(server, connection_id);
	if (key != NULL)
		return psprintf("key %s", key);
	return connection_id ? psprintf("id %s", connection_id) : NULL;
}

static Datum
row_column(Relation rel, HeapTuple tuple, const char *name, bool *isnull)
{
	return heap_getattr(tuple, get_attnum(RelationGetRelid(rel), name), RelationGetDescr(rel), isnull);
}

/*
 * As of now, whatever the transaction's snapshot, and without a predicate
 * lock, for which serializable transactions that enqueue would fail each other.
 * The last unfinished request of the lane tells.
 */
ClerkLane
clerk_lane(const char *server, const char *lane, int *priority)
{
	Relation	rel = table_open(clerk_catalog()->requests, AccessShareLock);
	Relation	index = index_open(clerk_catalog()->lanes, AccessShareLock);
	const int16 *columns = index->rd_index->indkey.values;
	ClerkLane	result = CLERK_LANE_FREE;
	NameData	name;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	/* Its first two columns: the server and the lane. */
	ScanKeyInit(&keys[0], columns[0], BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	ScanKeyEntryInitialize(&keys[1], 0, columns[1], BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(lane));
	scan = systable_beginscan_ordered(rel, index, SnapshotSelf, 2, keys);
	while (result == CLERK_LANE_FREE &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		bool		unfinished;
		bool		isnull;

		(void) row_column(rel, tuple, "finished_at", &unfinished);
		if (!unfinished)
			continue;
		result = FullTransactionIdEquals(DatumGetFullTransactionId(row_column(rel, tuple, "xact", &isnull)),
										 GetTopFullTransactionIdIfAny()) ? CLERK_LANE_OURS : CLERK_LANE_TAKEN;
		if (priority != NULL)
			*priority = DatumGetInt16(row_column(rel, tuple, "priority", &isnull));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * What stands behind a request of this very transaction is put at infinity: both
 * are seen at the same time, so the one before will bring it forward.  But if
 * that is of lower priority, the new one stays due, so that it stands for the
 * lane.
 */
static bool
stands_behind(const char *server, const char *lane, int priority)
{
	int			before;

	return lane != NULL && clerk_lane(server, lane, &before) == CLERK_LANE_OURS && before <= priority;
}

static int64
insert_request(const ClerkSettings *settings, const char *operation, Jsonb *params,
			   const char *key, const char *connection_id, int priority)
{
	const char *server = settings->server_name;
	char	   *lane = request_lane(server, key, connection_id);
	NameData	server_name;
	NameData	role_name;
	bool		isnull;
	int64		id;
	const char *texts[] = {key, connection_id, NULL, lane};
	char		nulls[13];
	Datum		values[13] = {
		clerk_name_datum(&server_name, server),
		ObjectIdGetDatum(settings->server),
		clerk_name_datum(&role_name, GetUserNameFromId(GetUserId(), false)),
		ObjectIdGetDatum(GetUserId()),
		Int64GetDatum(clerk_origin_fingerprint()),
		Int32GetDatum((int32) clerk_timeline()),
		CStringGetTextDatum(operation),
		[9] = PointerGetDatum(params),
		[11] = BoolGetDatum(stands_behind(server, lane, priority)),
		[12] = Int16GetDatum((int16) priority),
	};

	memset(nulls, ' ', sizeof(nulls));
	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		if (texts[i] != NULL)
			values[7 + i] = CStringGetTextDatum(texts[i]);
		else if (values[7 + i] == (Datum) 0)
			nulls[7 + i] = 'n';
	}
	SPI_connect();
	clerk_run(&enqueue_statement, values, nulls, false);

	/*
	 * The id is there already: rows were restored without their sequence, or
	 * somebody has set it back (pg_write_all_data is enough).
	 */
	for (int tries = 0; SPI_processed == 0; tries++)
	{
		Datum		sequence = ObjectIdGetDatum(get_relname_relid("enterprise_connection_requests_id_seq",
																  clerk_catalog()->namespace));

		CHECK_FOR_INTERRUPTS();
		if (tries == MAX_ENQUEUE_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not enqueue the request"),
					 errdetail("A trigger on the table enterprise_connection_requests leaves the row out.")));
		clerk_run(&mend_sequence_statement, &sequence, NULL, true);
		clerk_run(&enqueue_statement, values, nulls, false);
	}
	id = DatumGetInt64(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return id;
}

int64
clerk_enqueue_checked(const ClerkSettings *settings, const char *operation, Jsonb *params,
					  const char *key, const char *id, int priority)
{
	int64		request;

	if (settings->origin == CLERK_ORIGIN_ELSEWHERE)
		warn_of_held(settings);
	request = insert_request(settings, operation, params, key, id, priority);
	clerk_wake_at_commit();
	warn_if_not_served();
	return request;
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
	ClerkOutboxOperation found;
	const ClerkOperationInfo *info;

	if (!clerk_find_operation(operation, &found))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown operation \"%s\"", operation),
				 errhint("It must be \"create\", \"update\", \"upsert\" or \"delete\".")));
	info = &clerk_operations[found];
	if (!info->takes_id && id != NULL)
		refuse(operation, "takes no id");
	if (info->needs_key && key == NULL)
		refuse(operation, "needs a key");
	if (info->takes_id && key == NULL && id == NULL)
		refuse(operation, "needs a key or an id");
	if (info->takes_id && key != NULL && id != NULL)
		refuse(operation, "takes a key or an id, not both");
	if (!info->takes_params && params != NULL)
		refuse(operation, "takes no params");
	if (id != NULL)
		clerk_api_check_id(id);
	if (key != NULL)
		clerk_api_check_length("argument \"key\"", key);
}

/*
 * enqueue_enterprise_connection(operation text, params jsonb, key text, id text, server name, priority integer)
 */
Datum
enqueue_enterprise_connection(PG_FUNCTION_ARGS)
{
	char	   *operation;
	Jsonb	   *params = clerk_jsonb_argument(fcinfo, 1);
	char	   *key = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *id = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	int			priority = PG_ARGISNULL(5) ? 0 : PG_GETARG_INT32(5);
	ClerkSettings *settings;

	clerk_prevent_write("enqueue_enterprise_connection()");
	operation = clerk_text_argument(fcinfo, 0, "operation");
	check_operation(operation, params, key, id);
	if (priority < -MAX_PRIORITY || priority > MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority %d is out of range", priority),
				 errhint("It must be between %d and %d; lower numbers go first.", -MAX_PRIORITY, MAX_PRIORITY)));
	settings = clerk_settings(clerk_server_argument(fcinfo, 4), CLERK_USE_ENQUEUE);
	if (strcmp(operation, "delete") != 0)
		params = clerk_check_request_params(settings, operation, params);
	PG_RETURN_INT64(clerk_enqueue_checked(settings, operation, params, key, id, priority));
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
	char	   *key;
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
		look->key = clerk_row_text(0, 10);
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
is_delivered(const Look *look, int64 id, int64 superseded)
{
	check_role(look->role, look->found, id, superseded);
	if (look->mine)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot await a request of this transaction"),
				 errdetail("It is delivered after the transaction commits.")));
	/* What has failed has done so for good, even if a later one was sent since. */
	if (strcmp(look->state, "failed") == 0 || (strcmp(look->state, "superseded") == 0 && look->error != NULL))
		raise_stored_error(look);
	if (strcmp(look->state, "cancelled") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("request " INT64_FORMAT " was cancelled", id)));
	if (strcmp(look->state, "delivered") != 0)
		return false;
	check_usage(look->server);
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
	Look		look;

	for (;;)
	{
		MemoryContext old;

		MemoryContextReset(scratch);
		old = MemoryContextSwitchTo(scratch);
		look_at(id, &look);
		MemoryContextSwitchTo(old);
		if (is_delivered(&look, id, superseded))
			return look.connection;
		if (strcmp(look.state, "superseded") == 0)
		{
			superseded = id;
			id = look.superseded_by;
		}
		else if (until >= 0 && clerk_now_ms() >= until)
			return NULL;
		else
		{
			warn_if_not_served();
			clerk_wake_wait(id, look.key, until);
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

typedef struct Locked
{
	char	   *state;
	char	   *server;
	char	   *operation;
	char	   *lane;
	char	   *key;
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
		locked->scrubbed = DatumGetBool(clerk_row_datum(0, 6, &isnull));
		locked->key = clerk_row_text(0, 7);
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
	if (strcmp(locked.state, "superseded") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot retry request " INT64_FORMAT ", which a later one of its key has overtaken", id),
				 errhint("Enqueue what shall hold now as a new request.")));
	if (!queued && strcmp(locked.state, "failed") != 0)
		wrong_state(id, &locked, "retry");
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
	clerk_wake_finished(id, locked.key);
	if (locked.lane != NULL)
	{
		NameData	server;
		Datum		values[] = {CStringGetTextDatum(locked.lane), clerk_name_datum(&server, locked.server)};

		SPI_connect();
		clerk_run(&advance_statement, values, NULL, true);
		SPI_finish();
	}
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
