/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *		Enqueueing: from arguments to a row of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/statements.h"
#include "base/wake.h"
#include "calls/connection.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/params.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/requests.h"
#include "outbox/states.h"
#include "tables/tracking.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

PG_FUNCTION_INFO_V1(enqueue_enterprise_connection);

/*
 * An id that is there already is met once, or as often as others enqueue at the
 * same time.
 */
#define MAX_ENQUEUE_TRIES 100

/* Each priority that is in use costs each claim a look. */
#define MAX_PRIORITY 1000

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
	.latest = true,
};

/*
 * In the wire's spelling, so that two of them can be merged; without a provider
 * that was only inferred, because for an upsert of a connection that exists it
 * would be a change.
 */
Jsonb *
clerk_check_request_params(const ClerkSettings *settings, const char *operation, Jsonb *params)
{
	ClerkOperation how = strcmp(operation, "update") == 0 ? CLERK_OPERATION_UPDATE :
	strcmp(operation, "upsert") == 0 ? CLERK_OPERATION_UPSERT : CLERK_OPERATION_CREATE;

	return clerk_params_given(clerk_read_params(settings, params, NULL, how));
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
 * Once in a session for each reason.
 */
void
clerk_warn_if_not_served(void)
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
 * The last unfinished request of the lane is looked at.
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
	clerk_warn_if_not_served();
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

	if (!clerk_find_operation(operation, &found) || clerk_operations[found].of_trigger)
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
