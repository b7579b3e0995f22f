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

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "insertion.h"
#include "json.h"
#include "miscadmin.h"
#include "outbox.h"
#include "settings.h"
#include "statements.h"
#include "tracking.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "wake.h"

/* The states in which a request is still to be delivered, as an array. */
#define UNFINISHED " OPERATOR(pg_catalog.=) ANY (ARRAY['queued', 'sending', 'in_doubt'])"
#define EQUALS " OPERATOR(pg_catalog.=) "

/* Columns of a claimed row, in the order in which read_row takes them. */
#define ROW_COLUMNS "c.id, c.server, c.role, c.operation, c.key, c.connection_id, c.params, c.step," \
	" c.attempts, c.claimer, c.started_at, c.doubt_since, c.http_status, c.error, c.created_at"

/* Lanes that one call of the sweep looks at. */
#define SWEEP_LANES 500

static ClerkStatement enqueue_statement = {
	.text = "INSERT INTO %1$s.enterprise_connection_requests"
	" (server, role, operation, key, connection_id, params, lane, state, next_attempt_at)"
	" SELECT $1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN 'held' ELSE 'queued' END,"
	" CASE WHEN $7 IS NOT NULL AND NOT $9 AND EXISTS (SELECT FROM %1$s.enterprise_connection_requests q"
	" WHERE q.lane" EQUALS "$7 AND q.server" EQUALS "$1 AND q.state" UNFINISHED ")"
	" THEN 'infinity' ELSE pg_catalog.now() END"
	" RETURNING id",
	.nargs = 9,
	.args = {NAMEOID, NAMEOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, BOOLOID, BOOLOID},
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
	.text = "SELECT " ROW_COLUMNS " FROM pg_catalog.enterprise_connection_claim($1, $2, $3, $4,"
	" pg_catalog.make_interval(secs => $5), NULL::pg_catalog.timestamptz) c",
	.nargs = 5,
	.args = {NAMEOID, INT4OID, INT4OID, NAMEOID, FLOAT8OID},
};

static ClerkStatement claim_doubts_statement = {
	.text = "SELECT " ROW_COLUMNS " FROM pg_catalog.enterprise_connection_claim_doubts($1, $2, $3) c",
	.nargs = 3,
	.args = {NAMEOID, INT4OID, NAMEOID},
};

static ClerkStatement next_due_statement = {
	.text = "SELECT pg_catalog.min(x.t) FROM pg_catalog.unnest($1) AS s (s), LATERAL ("
	"(SELECT q.next_attempt_at FROM %1$s.enterprise_connection_requests q"
	" WHERE q.server" EQUALS "s.s AND q.state" EQUALS "'queued' ORDER BY q.next_attempt_at LIMIT 1)"
	" UNION ALL (SELECT q.next_attempt_at FROM %1$s.enterprise_connection_requests q"
	" WHERE q.server" EQUALS "s.s AND q.state" EQUALS "'in_doubt' AND q.claimer IS NULL"
	" ORDER BY q.next_attempt_at LIMIT 1)) x (t) WHERE x.t OPERATOR(pg_catalog.<) 'infinity'",
	.nargs = 1,
	.args = {NAMEARRAYOID},
};

static ClerkStatement finish_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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

static ClerkStatement check_timeline_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_check_timeline($1)",
	.nargs = 1,
	.args = {INT4OID},
};

static ClerkStatement purge_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_purge($1)",
	.nargs = 1,
	.args = {TIMESTAMPTZOID},
};

static ClerkStatement hold_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_hold($1)",
	.nargs = 1,
	.args = {NAMEOID},
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

static int64
insert_by_statement(const ClerkNewRequest *request)
{
	char		nulls[9] = "         ";
	Datum		values[9];
	NameData	server;
	NameData	role;
	bool		isnull;
	int64		id;

	SPI_connect();
	values[0] = clerk_name_datum(&server, request->server);
	values[1] = clerk_name_datum(&role, request->role);
	values[2] = CStringGetTextDatum(request->operation);
	values[3] = request->key ? CStringGetTextDatum(request->key) : (Datum) 0;
	values[4] = request->connection_id ? CStringGetTextDatum(request->connection_id) : (Datum) 0;
	values[5] = request->params ? JsonbPGetDatum(request->params) : (Datum) 0;
	values[6] = request->lane ? CStringGetTextDatum(request->lane) : (Datum) 0;
	values[7] = BoolGetDatum(request->held);

	/*
	 * A look at the lane would make serializable transactions that enqueue
	 * depend on each other; whoever claims finds out, too.
	 */
	values[8] = BoolGetDatum(IsolationIsSerializable());
	for (int i = 3; i < 7; i++)
		nulls[i] = values[i] == (Datum) 0 ? 'n' : ' ';
	clerk_run(&enqueue_statement, values, nulls, false);
	id = DatumGetInt64(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return id;
}

int64
clerk_enqueue(const char *server, const char *operation, Jsonb *params, const char *key,
			  const char *connection_id, bool held)
{
	ClerkNewRequest request = {
		.server = server,
		.role = GetUserNameFromId(GetUserId(), false),
		.operation = operation,
		.key = key,
		.connection_id = connection_id,
		.params = params,
		.lane = request_lane(server, key, connection_id),
		.held = held,
	};
	int64		id;

	if (!clerk_insert_request(&request, &id))
		id = insert_by_statement(&request);
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
	row->claimer = DatumGetInt32(clerk_row_datum(n, 10, &isnull));
	row->started_at = DatumGetTimestampTz(clerk_row_datum(n, 11, &isnull));
	datum = clerk_row_datum(n, 12, &isnull);
	row->doubt_since = isnull ? 0 : DatumGetTimestampTz(datum);
	datum = clerk_row_datum(n, 13, &isnull);
	row->http_status = isnull ? 0 : DatumGetInt32(datum);
	datum = clerk_row_datum(n, 14, &isnull);
	row->error = isnull ? NULL : DatumGetJsonbPCopy(datum);
	row->created_at = DatumGetTimestampTz(clerk_row_datum(n, 15, &isnull));
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

List *
clerk_outbox_claim(const char *server, int wanted, int claimer, const char *role, int lease)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	server_name;
	NameData	role_name;
	Datum		values[] = {clerk_name_datum(&server_name, server), Int32GetDatum(wanted),
	Int32GetDatum(claimer), role ? clerk_name_datum(&role_name, role) : (Datum) 0,
	Float8GetDatum(lease / 1000.0)};
	List	   *rows;

	SPI_connect();
	clerk_run(&claim_statement, values, role ? NULL : "   n ", false);
	rows = read_rows(caller);
	SPI_finish();
	return rows;
}

List *
clerk_outbox_claim_doubts(const char *server, int claimer, const char *role)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	server_name;
	NameData	role_name;
	Datum		values[] = {clerk_name_datum(&server_name, server), Int32GetDatum(claimer),
	role ? clerk_name_datum(&role_name, role) : (Datum) 0};
	List	   *rows;

	SPI_connect();
	clerk_run(&claim_doubts_statement, values, role ? NULL : "  n", false);
	rows = read_rows(caller);
	SPI_finish();
	return rows;
}

TimestampTz
clerk_outbox_next_due(List *servers)
{
	Datum	   *names = palloc(sizeof(Datum) * (list_length(servers) + 1));
	Datum		values[1];
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

static Datum
optional_text(const char *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? CStringGetTextDatum(value) : (Datum) 0;
}

bool
clerk_outbox_finish(const ClerkRequestRow *row, const ClerkOutcome *outcome, bool *sweep)
{
	char		nulls[12] = "            ";
	Datum		values[12];
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
	values[6] = BoolGetDatum(!outcome->uncounted);
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
	counted = DatumGetBool(clerk_row_datum(0, 1, &isnull)) || isnull;
	*sweep |= isnull;
	SPI_finish();
	return counted;
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

void
clerk_outbox_check_timeline(void)
{
	Datum		values[] = {Int32GetDatum((int32) clerk_timeline())};

	run(&check_timeline_statement, values);
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
clerk_outbox_hold(const char *server)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server)};

	run(&hold_statement, values);
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
