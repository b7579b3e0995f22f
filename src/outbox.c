/*-------------------------------------------------------------------------
 *
 * outbox.c
 *		The outbox, enterprise_connection_requests: requests that are delivered
 *		after commit.
 *
 * What must be one step for others, such as a claim, is a function in the
 * extension's script.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "json.h"
#include "miscadmin.h"
#include "origin.h"
#include "outbox.h"
#include "settings.h"
#include "statements.h"
#include "tracking.h"
#include "utils/array.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "wake.h"

/* The states in which a request is still to be delivered, as an array. */
#define UNFINISHED " OPERATOR(pg_catalog.=) ANY (ARRAY['queued', 'sending', 'in_doubt'])"
#define EQUALS " OPERATOR(pg_catalog.=) "

/* Columns of a claimed row, in the order in which read_row takes them. */
#define ROW_COLUMNS "c.id, c.server, c.role, c.operation, c.key, c.connection_id, c.params, c.step," \
	" c.attempts, c.claimer, c.started_at, c.doubt_since, c.http_status, c.error, c.created_at," \
	" c.state, c.origin, c.role_oid"

/*
 * An id that is there already is met once, or as often as others enqueue at the
 * same time.
 */
#define MAX_ENQUEUE_TRIES 100

/* Lanes that one call of the sweep looks at. */
#define SWEEP_LANES 500

static ClerkStatement enqueue_statement = {
	.text = "INSERT INTO %1$s.enterprise_connection_requests"
	" (server, server_oid, role, role_oid, origin, timeline, operation, key, connection_id, params, lane, next_attempt_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN $12 THEN 'infinity' ELSE pg_catalog.now() END)"
	" ON CONFLICT (id) DO NOTHING RETURNING id",
	.nargs = 12,
	.args = {NAMEOID, OIDOID, NAMEOID, OIDOID, INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, BOOLOID},
};

static ClerkStatement mend_sequence_statement = {
	.text = "SELECT pg_catalog.setval($1, (SELECT pg_catalog.max(q.id) FROM %1$s.enterprise_connection_requests q))",
	.nargs = 1,
	.args = {REGCLASSOID},
};

static ClerkStatement servers_statement = {
	.text = "WITH RECURSIVE s (server) AS ("
	" (SELECT q.server FROM %1$s.enterprise_connection_requests q WHERE q.state" EQUALS "'queued'"
	" ORDER BY q.server LIMIT 1)"
	" UNION ALL SELECT (SELECT q.server FROM %1$s.enterprise_connection_requests q WHERE q.state" EQUALS "'queued'"
	" AND q.server OPERATOR(pg_catalog.>) s.server ORDER BY q.server LIMIT 1) FROM s WHERE s.server IS NOT NULL)"
	" SELECT server FROM s WHERE server IS NOT NULL UNION"
	" SELECT q.server FROM %1$s.enterprise_connection_requests q WHERE q.state" EQUALS "'in_doubt'",
};

static ClerkStatement claim_statement = {
	.text = "SELECT " ROW_COLUMNS " FROM pg_catalog.enterprise_connection_claim($1, $2, $3, $4, $5, $6,"
	" pg_catalog.make_interval(secs => $7), $8, NULL::pg_catalog.timestamptz) c",
	.nargs = 8,
	.args = {NAMEOID, OIDOID, INT4OID, INT4OID, INT4OID, OIDOID, FLOAT8OID, INT8ARRAYOID},
};

static ClerkStatement claim_doubts_statement = {
	.text = "SELECT " ROW_COLUMNS " FROM pg_catalog.enterprise_connection_claim_doubts($1, $2, $3, $4) c",
	.nargs = 4,
	.args = {NAMEOID, INT4OID, OIDOID, INT8ARRAYOID},
};

static ClerkStatement next_due_statement = {
	.text = "SELECT pg_catalog.min(x.t) FROM pg_catalog.unnest($1) AS s (s), LATERAL ("
	"(SELECT q.next_attempt_at FROM %1$s.enterprise_connection_requests q"
	" WHERE q.server" EQUALS "s.s AND q.state" EQUALS "'queued' AND q.id OPERATOR(pg_catalog.<>) ALL ($2)"
	" ORDER BY q.next_attempt_at LIMIT 1)"
	" UNION ALL (SELECT q.next_attempt_at FROM %1$s.enterprise_connection_requests q"
	" WHERE q.server" EQUALS "s.s AND q.state" EQUALS "'in_doubt' AND q.claimer IS NULL AND q.id OPERATOR(pg_catalog.<>) ALL ($2)"
	" ORDER BY q.next_attempt_at LIMIT 1)) x (t) WHERE x.t OPERATOR(pg_catalog.<) 'infinity'",
	.nargs = 2,
	.args = {NAMEARRAYOID, INT8ARRAYOID},
};

static ClerkStatement finish_statement = {
	.text = "SELECT f.counted, f.swept, f.server FROM"
	" pg_catalog.enterprise_connection_finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) f",
	.nargs = 12,
	.args = {INT8OID, INT4OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, BOOLOID, TEXTOID, INT4OID, JSONBOID, TIMESTAMPTZOID,
	INT8OID},
};

static ClerkStatement in_the_way_statement = {
	.text = "SELECT w.verdict, w.awaits, w.keeps FROM pg_catalog.enterprise_connection_in_the_way($1, $2) w",
	.nargs = 2,
	.args = {INT8OID, BOOLOID},
};

static ClerkStatement wake_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_wake($1)",
	.nargs = 1,
	.args = {INT8OID},
};

static ClerkStatement wake_missed_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_wake_missed()",
};

static ClerkStatement hand_over_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_hand_over($1, $2, $3)",
	.nargs = 3,
	.args = {INT8OID, INT4OID, INT4OID},
};

static ClerkStatement made_by_other_statement = {
	.text = "SELECT EXISTS (SELECT FROM %1$s.enterprise_connection_requests q WHERE q.connection_id" EQUALS "$2"
	" AND q.server" EQUALS "$3 AND q.id OPERATOR(pg_catalog.<>) $1)",
	.nargs = 3,
	.args = {INT8OID, TEXTOID, NAMEOID},
};

static ClerkStatement claimers_statement = {
	.text = "SELECT DISTINCT q.claimer FROM %1$s.enterprise_connection_requests q"
	" WHERE q.state" EQUALS "ANY (ARRAY['sending', 'in_doubt']) AND q.claimer IS NOT NULL",
};

static ClerkStatement recover_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_recover($1)",
	.nargs = 1,
	.args = {INT4OID},
};

static ClerkStatement sweep_statement = {
	.text = "SELECT s.lane, s.server FROM pg_catalog.enterprise_connection_sweep_lanes($1, $2, $3) s",
	.nargs = 3,
	.args = {TEXTOID, NAMEOID, INT4OID},
};

static ClerkStatement purge_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_purge($1)",
	.nargs = 1,
	.args = {TIMESTAMPTZOID},
};

static ClerkStatement pause_statement = {
	.text = "INSERT INTO %1$s.enterprise_connection_pauses AS p (server, since, reason, probed_at, settings)"
	" VALUES ($1, pg_catalog.clock_timestamp(), $2, pg_catalog.clock_timestamp(), $3)"
	" ON CONFLICT (server) DO UPDATE SET reason = excluded.reason, probed_at = excluded.probed_at,"
	" settings = excluded.settings",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, INT8OID},
};

static ClerkStatement pauses_statement = {
	.text = "SELECT p.server, p.probed_at, p.settings FROM %1$s.enterprise_connection_pauses p",
};

static ClerkStatement may_probe_statement = {
	.text = "SELECT FROM %1$s.enterprise_connection_pauses p WHERE p.server" EQUALS "$1"
	" AND (p.settings OPERATOR(pg_catalog.<>) $2 OR p.probed_at OPERATOR(pg_catalog.<=) $3) FOR UPDATE SKIP LOCKED",
	.nargs = 3,
	.args = {NAMEOID, INT8OID, TIMESTAMPTZOID},
};

static ClerkStatement probed_statement = {
	.text = "UPDATE %1$s.enterprise_connection_pauses p SET probed_at = pg_catalog.clock_timestamp()"
	" WHERE p.server" EQUALS "$1",
	.nargs = 1,
	.args = {NAMEOID},
};

static ClerkStatement unpause_statement = {
	.text = "DELETE FROM %1$s.enterprise_connection_pauses p WHERE p.server" EQUALS "$1",
	.nargs = 1,
	.args = {NAMEOID},
};

static Datum
optional_text(const char *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? CStringGetTextDatum(value) : (Datum) 0;
}

/*-------------------------------------------------------------------------
 * Enqueueing
 *-------------------------------------------------------------------------
 */

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

static void
warn_if_not_served(void)
{
	static bool warned = false;

	if (warned || clerk_wake_served())
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("no worker of pg_clerk delivers what is enqueued here"),
			 errhint("Add pg_clerk to shared_preload_libraries and restart, or run CALL deliver_enterprise_connections() now and then.")));
}

/*
 * Is an unfinished request in the lane?
 *
 * As of now, whatever the transaction's snapshot, and without a predicate
 * lock, for which serializable transactions that enqueue would fail each other.
 * An answer that is wrong a moment later does no harm: the request is looked
 * at too early, and put behind then; or too late, by the sweep.
 */
bool
clerk_lane_is_taken(const char *server, const char *lane)
{
	Relation	rel = table_open(clerk_catalog()->requests, AccessShareLock);
	Relation	index = index_open(clerk_catalog()->lanes, AccessShareLock);
	const int16 *columns = index->rd_index->indkey.values;
	NameData	name;
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		taken;

	/* Its first two columns: the lane and the server. */
	ScanKeyEntryInitialize(&keys[0], 0, columns[0], BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(lane));
	ScanKeyInit(&keys[1], columns[1], BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	scan = systable_beginscan_ordered(rel, index, SnapshotSelf, 2, keys);
	taken = HeapTupleIsValid(systable_getnext_ordered(scan, ForwardScanDirection));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return taken;
}

int64
clerk_enqueue(const ClerkSettings *settings, const char *operation, Jsonb *params,
			  const char *key, const char *connection_id)
{
	const char *server = settings->server_name;
	char	   *lane = request_lane(server, key, connection_id);
	char		nulls[12] = "            ";
	NameData	server_name;
	NameData	role_name;
	bool		isnull;
	int64		id;
	Datum		values[] = {
		clerk_name_datum(&server_name, server),
		ObjectIdGetDatum(settings->server),
		clerk_name_datum(&role_name, GetUserNameFromId(GetUserId(), false)),
		ObjectIdGetDatum(GetUserId()),
		Int64GetDatum(clerk_origin_fingerprint()),
		Int32GetDatum((int32) clerk_timeline()),
		CStringGetTextDatum(operation),
		optional_text(key, &nulls[7]),
		optional_text(connection_id, &nulls[8]),
		params ? JsonbPGetDatum(params) : (Datum) 0,
		optional_text(lane, &nulls[10]),
		BoolGetDatum(lane != NULL && clerk_lane_is_taken(server, lane)),
	};

	nulls[9] = params ? ' ' : 'n';
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
	clerk_wake_at_commit();
	warn_if_not_served();
	return id;
}

/*-------------------------------------------------------------------------
 * Claims
 *-------------------------------------------------------------------------
 */

static ClerkRequestRow *
read_row(uint64 n)
{
	ClerkRequestRow *row = palloc0(sizeof(*row));
	bool		isnull;
	Datum		datum;

	row->id = DatumGetInt64(clerk_row_datum(n, 1, &isnull));
	row->server = clerk_row_text(n, 2);
	row->role = clerk_row_text(n, 3);
	row->operation = clerk_row_text(n, 4);
	row->key = clerk_row_text(n, 5);
	row->connection_id = clerk_row_text(n, 6);
	datum = clerk_row_datum(n, 7, &isnull);
	row->params = isnull ? NULL : DatumGetJsonbPCopy(datum);
	row->step = clerk_row_text(n, 8);
	row->attempts = DatumGetInt32(clerk_row_datum(n, 9, &isnull));
	datum = clerk_row_datum(n, 10, &isnull);
	row->claimer = isnull ? 0 : DatumGetInt32(datum);
	datum = clerk_row_datum(n, 11, &isnull);
	row->started_at = isnull ? 0 : DatumGetTimestampTz(datum);
	datum = clerk_row_datum(n, 12, &isnull);
	row->doubt_since = isnull ? 0 : DatumGetTimestampTz(datum);
	datum = clerk_row_datum(n, 13, &isnull);
	row->http_status = isnull ? 0 : DatumGetInt32(datum);
	datum = clerk_row_datum(n, 14, &isnull);
	row->error = isnull ? NULL : DatumGetJsonbPCopy(datum);
	row->created_at = DatumGetTimestampTz(clerk_row_datum(n, 15, &isnull));
	row->aside = strcmp(clerk_row_text(n, 16), "queued") == 0 ||
		(strcmp(clerk_row_text(n, 16), "in_doubt") == 0 && row->claimer == 0);
	row->role_oid = DatumGetInt64(clerk_row_datum(n, 17, &isnull)) == clerk_origin_fingerprint() ?
		DatumGetObjectId(clerk_row_datum(n, 18, &isnull)) : get_role_oid(row->role, true);
	return row;
}

static char *
copy_string(const char *string)
{
	return string ? pstrdup(string) : NULL;
}

ClerkRequestRow *
clerk_outbox_copy(const ClerkRequestRow *row)
{
	ClerkRequestRow *copy = palloc(sizeof(*copy));

	*copy = *row;
	copy->server = copy_string(row->server);
	copy->role = copy_string(row->role);
	copy->operation = copy_string(row->operation);
	copy->key = copy_string(row->key);
	copy->connection_id = copy_string(row->connection_id);
	copy->params = clerk_jsonb_copy(row->params);
	copy->step = copy_string(row->step);
	copy->error = clerk_jsonb_copy(row->error);
	return copy;
}

static List *
read_rows(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *rows = NIL;

	for (uint64 i = 0; i < SPI_processed; i++)
		rows = lappend(rows, read_row(i));
	MemoryContextSwitchTo(old);
	return rows;
}

List *
clerk_outbox_servers(void)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	List	   *servers = NIL;

	SPI_connect();
	clerk_run(&servers_statement, NULL, NULL, false);
	old = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		servers = lappend(servers, clerk_row_text(i, 1));
	MemoryContextSwitchTo(old);
	SPI_finish();
	return servers;
}

List *
clerk_outbox_pauses(void)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	List	   *pauses = NIL;
	bool		isnull;

	SPI_connect();
	clerk_run(&pauses_statement, NULL, NULL, false);
	old = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		ClerkPause *pause = palloc(sizeof(*pause));

		pause->server = clerk_row_text(i, 1);
		pause->probed_at = DatumGetTimestampTz(clerk_row_datum(i, 2, &isnull));
		pause->version = DatumGetInt64(clerk_row_datum(i, 3, &isnull));
		pauses = lappend(pauses, pause);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	return pauses;
}

/*
 * Ids that are set aside, as an array.
 */
static Datum
ids_datum(const List *ids)
{
	Datum	   *datums = palloc(sizeof(Datum) * (list_length(ids) + 1));
	const ListCell *lc;
	int			n = 0;

	foreach(lc, ids)
		datums[n++] = Int64GetDatum(*(int64 *) lfirst(lc));
	return PointerGetDatum(construct_array(datums, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

List *
clerk_outbox_claim(const ClerkSettings *limits, int wanted, const ClerkClaimer *claimer)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	server_name;
	Datum		values[] = {clerk_name_datum(&server_name, limits->server_name), ObjectIdGetDatum(limits->server),
		Int32GetDatum((int32) clerk_timeline()), Int32GetDatum(wanted), Int32GetDatum(claimer->number),
		ObjectIdGetDatum(claimer->role), Float8GetDatum(limits->timeout / 1000.0), ids_datum(claimer->aside)
	};
	List	   *rows;

	SPI_connect();
	clerk_run(&claim_statement, values, OidIsValid(claimer->role) ? NULL : "     n  ", false);
	rows = read_rows(caller);
	SPI_finish();
	return rows;
}

List *
clerk_outbox_claim_doubts(const char *server, const ClerkClaimer *claimer)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	server_name;
	Datum		values[] = {clerk_name_datum(&server_name, server), Int32GetDatum(claimer->number),
	ObjectIdGetDatum(claimer->role), ids_datum(claimer->aside)};
	List	   *rows;

	SPI_connect();
	clerk_run(&claim_doubts_statement, values, OidIsValid(claimer->role) ? NULL : "  n ", false);
	rows = read_rows(caller);
	SPI_finish();
	return rows;
}

TimestampTz
clerk_outbox_next_due(List *servers, const ClerkClaimer *claimer)
{
	Datum	   *names = palloc(sizeof(Datum) * (list_length(servers) + 1));
	Datum		values[2];
	TimestampTz due = 0;
	ListCell   *lc;
	int			n = 0;
	bool		isnull;
	Datum		datum;

	if (servers == NIL)
		return 0;
	foreach(lc, servers)
		names[n++] = clerk_name_datum(palloc(sizeof(NameData)), lfirst(lc));
	values[0] = PointerGetDatum(construct_array(names, n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
	values[1] = ids_datum(claimer->aside);
	SPI_connect();
	clerk_run(&next_due_statement, values, NULL, false);
	datum = clerk_row_datum(0, 1, &isnull);
	if (!isnull)
		due = DatumGetTimestampTz(datum);
	SPI_finish();
	return due;
}

/*-------------------------------------------------------------------------
 * Outcomes
 *-------------------------------------------------------------------------
 */

ClerkFinish
clerk_outbox_finish(const ClerkRequestRow *row, const ClerkOutcome *outcome, bool *sweep, char **server)
{
	MemoryContext caller = CurrentMemoryContext;
	char		nulls[12] = "            ";
	Datum		values[12];
	ClerkFinish result;
	bool		isnull;
	bool		counted;

	SPI_connect();
	values[0] = Int64GetDatum(row->id);
	values[1] = Int32GetDatum(row->claimer);
	values[2] = Int32GetDatum(row->attempts);
	values[3] = CStringGetTextDatum(outcome->state);
	values[4] = optional_text(outcome->step, &nulls[4]);
	values[5] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), outcome->delay));
	nulls[5] = outcome->delay < 0 ? 'n' : ' ';
	values[6] = BoolGetDatum(outcome->uncounted);
	values[7] = optional_text(outcome->connection_id, &nulls[7]);
	values[8] = Int32GetDatum(outcome->http_status);
	nulls[8] = outcome->http_status == 0 ? 'n' : ' ';
	values[9] = outcome->error ? JsonbPGetDatum(outcome->error) : (Datum) 0;
	nulls[9] = outcome->error ? ' ' : 'n';
	values[10] = TimestampTzGetDatum(outcome->doubt_since);
	nulls[10] = outcome->doubt_since == 0 ? 'n' : ' ';
	values[11] = Int64GetDatum(outcome->awaits);
	nulls[11] = outcome->awaits == 0 ? 'n' : ' ';
	clerk_run(&finish_statement, values, nulls, false);
	counted = DatumGetBool(clerk_row_datum(0, 1, &isnull));
	result = isnull ? CLERK_FINISH_LOCKED : counted ? CLERK_FINISH_COUNTED : CLERK_FINISH_LOST;
	if (result == CLERK_FINISH_COUNTED)
	{
		*sweep |= !DatumGetBool(clerk_row_datum(0, 2, &isnull));
		MemoryContextSwitchTo(caller);
		*server = clerk_row_text(0, 3);
	}
	SPI_finish();
	return result;
}

/*
 * Run a statement that answers one boolean.
 */
static bool
ask(ClerkStatement *statement, Datum *values)
{
	bool		isnull;
	bool		answer;

	SPI_connect();
	clerk_run(statement, values, NULL, false);
	answer = DatumGetBool(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return answer;
}

ClerkVerdict
clerk_outbox_in_the_way(const ClerkRequestRow *row, bool by_organization, int64 *awaits, Jsonb **keeps)
{
	static const char *const verdicts[] = {"refused", "wait", "again", "exchange"};
	MemoryContext caller = CurrentMemoryContext;
	Datum		values[] = {Int64GetDatum(row->id), BoolGetDatum(by_organization)};
	ClerkVerdict verdict = CLERK_REFUSED;
	char	   *word;
	bool		isnull;
	Datum		datum;

	SPI_connect();
	clerk_run(&in_the_way_statement, values, NULL, false);
	word = clerk_row_text(0, 1);
	for (int i = CLERK_REFUSED; i <= CLERK_EXCHANGE; i++)
		if (strcmp(word, verdicts[i]) == 0)
			verdict = (ClerkVerdict) i;
	datum = clerk_row_datum(0, 2, &isnull);
	*awaits = isnull ? 0 : DatumGetInt64(datum);
	datum = clerk_row_datum(0, 3, &isnull);
	MemoryContextSwitchTo(caller);
	*keeps = isnull ? NULL : DatumGetJsonbPCopy(datum);
	SPI_finish();
	return verdict;
}

bool
clerk_outbox_hand_over(const ClerkRequestRow *row)
{
	Datum		values[] = {Int64GetDatum(row->id), Int32GetDatum(row->claimer), Int32GetDatum(row->attempts)};

	return ask(&hand_over_statement, values);
}

bool
clerk_outbox_made_by_other(const ClerkRequestRow *row, const char *connection_id)
{
	NameData	server;
	Datum		values[] = {Int64GetDatum(row->id), CStringGetTextDatum(connection_id),
	clerk_name_datum(&server, row->server)};

	return ask(&made_by_other_statement, values);
}

/*-------------------------------------------------------------------------
 * Housekeeping
 *-------------------------------------------------------------------------
 */

static void
run(ClerkStatement *statement, Datum *values)
{
	SPI_connect();
	clerk_run(statement, values, NULL, false);
	SPI_finish();
}

List *
clerk_outbox_claimers(void)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	List	   *claimers = NIL;

	SPI_connect();
	clerk_run(&claimers_statement, NULL, NULL, false);
	old = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		claimers = lappend_int(claimers, DatumGetInt32(clerk_row_datum(i, 1, &isnull)));
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	return claimers;
}

void
clerk_outbox_wake(const ClerkRequestRow *row)
{
	Datum		values[] = {Int64GetDatum(row->id)};

	run(&wake_statement, values);
}

void
clerk_outbox_wake_missed(void)
{
	run(&wake_missed_statement, NULL);
}

void
clerk_outbox_recover(int claimer)
{
	Datum		values[] = {Int32GetDatum(claimer)};

	run(&recover_statement, values);
}

bool
clerk_outbox_sweep(bool from_start)
{
	/* Where the last call stopped. */
	static char *last_lane = NULL;
	static NameData server;
	char	   *lane = from_start ? NULL : last_lane;
	Datum		values[] = {lane ? CStringGetTextDatum(lane) : (Datum) 0, NameGetDatum(&server),
	Int32GetDatum(SWEEP_LANES)};
	char	   *next;

	SPI_connect();
	clerk_run(&sweep_statement, values, lane ? NULL : "nn ", false);
	if (last_lane != NULL)
		pfree(last_lane);
	last_lane = NULL;
	next = clerk_row_text(0, 1);
	last_lane = next ? MemoryContextStrdup(TopMemoryContext, next) : NULL;
	if (next != NULL)
		namestrcpy(&server, clerk_row_text(0, 2));
	SPI_finish();
	return last_lane != NULL;
}

bool
clerk_outbox_purge(int retention)
{
	Datum		values[] = {TimestampTzGetDatum(GetCurrentTimestamp() - (TimestampTz) retention * USECS_PER_SEC)};

	return ask(&purge_statement, values);
}

void
clerk_outbox_pause(const char *server, const char *reason, int64 version)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(reason), Int64GetDatum(version)};

	run(&pause_statement, values);
}

void
clerk_outbox_unpause(const char *server)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server)};

	run(&unpause_statement, values);
}

bool
clerk_outbox_may_probe(const char *server, int64 version, int interval)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), Int64GetDatum(version),
	TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -interval))};
	bool		may;

	SPI_connect();
	clerk_run(&may_probe_statement, values, NULL, false);
	may = SPI_processed > 0;
	SPI_finish();
	return may;
}

void
clerk_outbox_probed(const char *server)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server)};

	run(&probed_statement, values);
}
