/*-------------------------------------------------------------------------
 *
 * supersede.c
 *		What a claim makes needless: older upserts, which the newest one takes
 *		over, and what has failed before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/wake.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/settings.h"
#include "executor/spi.h"
#include "outbox/claims.h"
#include "utils/array.h"
#include "utils/memutils.h"

/* Upserts that are merged by one claim. */
#define MERGE_AT_ONCE 1000

/* The rows of a lane from the first on: null where somebody has one locked. */
static ClerkStatement lane_statement = {
	.text = "SELECT l.head, l.id, k.role_oid, k.params, k.operation = 'upsert' AND k.state = 'queued'"
	" AND (k.attempts = 0 OR k.http_status = 422) AND k.doubt_since IS NULL AND jsonb_typeof(k.params) = 'object'"
	" AND (k.origin, k.server_oid, k.timeline) IS NOT DISTINCT FROM ($5, $6, $7)"
	" FROM (SELECT h.head, x.id FROM unnest($2, $3) AS h (head, lane) CROSS JOIN LATERAL (SELECT q.id FROM " REQUESTS " q"
	" WHERE q.server = $1 AND q.lane = h.lane AND q.state <= 'queued' ORDER BY q.state, q.id LIMIT $4) x) l"
	" LEFT JOIN LATERAL (SELECT q.* FROM " REQUESTS " q WHERE q.id = l.id FOR UPDATE SKIP LOCKED) k ON true"
	" ORDER BY l.head, l.id",
	.nargs = 7,
	.args = {NAMEOID, INT8ARRAYOID, TEXTARRAYOID, INT4OID, INT8OID, OIDOID, INT4OID},
};

static ClerkStatement supersede_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'superseded', superseded_by = o.by, finished_at = clock_timestamp(), error = NULL,"
	" params = enterprise_connection_without_secrets(q.params) FROM unnest($1, $2) AS o (id, by)" PLACE("o.id")
	" WHERE q.ctid = t.place",
	.nargs = 2,
	.args = {INT8ARRAYOID, INT8ARRAYOID},
};

static ClerkStatement merged_statement = {
	.text = "UPDATE " REQUESTS " q SET params = o.params, next_attempt_at = clock_timestamp()"
	" FROM unnest($1, $2) AS o (id, params)" PLACE("o.id") " WHERE q.ctid = t.place",
	.nargs = 2,
	.args = {INT8ARRAYOID, JSONBARRAYOID},
};

/* A later request is sent: what has failed before can't be retried any more. */
static ClerkStatement overtake_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'superseded', superseded_by = f.by, scrubbed = false,"
	" params = enterprise_connection_without_secrets(q.params)"
	" FROM (SELECT x.id, o.id AS by FROM unnest($2, $3) AS o (id, lane) CROSS JOIN LATERAL (SELECT f.id FROM " REQUESTS " f"
	" WHERE f.server = $1 AND f.lane = o.lane AND f.state = 'failed' FOR UPDATE SKIP LOCKED) x WHERE x.id < o.id) f"
	PLACE("f.id") " WHERE q.ctid = t.place",
	.nargs = 3,
	.args = {NAMEOID, INT8ARRAYOID, TEXTARRAYOID},
};

/* It is not, if one of those is locked, or was queued again just now. */
static ClerkStatement failed_statement = {
	.text = "SELECT o.id FROM unnest($2, $3) AS o (id, lane) WHERE (SELECT f.id FROM " REQUESTS " f"
	" WHERE f.server = $1 AND f.lane = o.lane AND f.state <= 'queued' ORDER BY f.state, f.id LIMIT 1) < o.id"
	" OR (SELECT f.id FROM " REQUESTS " f WHERE f.server = $1 AND f.lane = o.lane AND f.state = 'failed' LIMIT 1) < o.id",
	.nargs = 3,
	.args = {NAMEOID, INT8ARRAYOID, TEXTARRAYOID},
};

/* Ids and lanes of some of the chosen. */
static int
ids_and_lanes(const List *chosen, bool followed, Datum *values)
{
	int64	   *ids = palloc(sizeof(int64) * (list_length(chosen) + 1));
	const char **lanes = palloc(sizeof(char *) * (list_length(chosen) + 1));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, chosen)
	{
		Due		   *due = lfirst(lc);

		if (followed ? due->followed : due->overtakes)
		{
			ids[count] = due->id;
			lanes[count++] = due->lane;
		}
	}
	values[0] = clerk_ids_datum(ids, count);
	values[1] = clerk_texts_datum(lanes, count);
	return count;
}

typedef struct Merges
{
	int64	   *ids;			/* superseded */
	int64	   *by;
	int			count;
	int64	   *newest;			/* the last of each run ... */
	Datum	   *params;			/* ... and what it has taken over */
	int			runs;
	MemoryContext scratch;
} Merges;

/*
 * The parameters so far (NULL: none), with those of the next.  Nothing else is
 * left of them: they can be large, and many.
 */
static Jsonb *
take_over(Merges *merges, Jsonb *params, Datum next)
{
	MemoryContext old = MemoryContextSwitchTo(merges->scratch);
	Jsonb	   *merged = DatumGetJsonbP(next);

	if (params != NULL)
		merged = clerk_jsonb_merge(params, merged);
	MemoryContextSwitchTo(old);
	merged = clerk_jsonb_copy(merged);
	if (params != NULL)
		pfree(params);
	MemoryContextReset(merges->scratch);
	return merged;
}

/*
 * Merge the upserts of one lane, which are the rows from first on; returns the
 * row after them.  due becomes the last of the run: or none, if there are more
 * than were looked at.
 */
static uint64
merge_lane(Merges *merges, uint64 first, int limit, List *chosen)
{
	int64		head = DatumGetInt64(clerk_row_value(first, 1));
	Jsonb	   *params = NULL;
	int64		last = head;
	Oid			role = InvalidOid;
	bool		open = true;
	int			length = 0;
	int			rows = 0;
	uint64		i;
	ListCell   *lc;

	for (i = first; i < SPI_processed && DatumGetInt64(clerk_row_value(i, 1)) == head; i++, rows++)
	{
		open &= DatumGetBool(clerk_row_value(i, 5)) && (rows == 0 || DatumGetObjectId(clerk_row_value(i, 3)) == role);
		if (!open)
			continue;
		if (rows > 0)
		{
			merges->ids[merges->count++] = last;
			length++;
		}
		params = take_over(merges, params, clerk_row_value(i, 4));
		role = DatumGetObjectId(clerk_row_value(i, 3));
		last = DatumGetInt64(clerk_row_value(i, 2));
	}
	for (int n = 0; n < length; n++)
		merges->by[merges->count - 1 - n] = last;
	if (length > 0)
	{
		merges->newest[merges->runs] = last;
		merges->params[merges->runs++] = JsonbPGetDatum(params);
	}
	foreach(lc, chosen)
	{
		Due		   *due = lfirst(lc);

		if (due->id != head)
			continue;
		due->id = open && rows == limit ? 0 : last;

		/* A PATCH that completes a create would not send what the newer one has. */
		if (length > 0)
			due->step = CLERK_STEP_NONE;

		/* Between the two, something may have failed: the first one was committed late. */
		due->overtakes |= length > 0;
	}
	return i;
}

/*
 * Of upserts in a row that were not sent, or that Clerk has refused, the newest
 * takes over the parameters of the others.  Only of one role: one's secrets are
 * not for the other, nor are one's privileges.
 */
void
clerk_merge_upserts(Claim *claim, List *chosen)
{
	NameData	name;
	Datum		values[7];
	Datum		update[2];
	Merges		merges = {0};
	int			lanes = ids_and_lanes(chosen, true, &values[1]);
	int			limit;
	MemoryContext caller = CurrentMemoryContext;

	if (lanes == 0)
		return;
	limit = Max(MERGE_AT_ONCE / lanes, 10);
	values[0] = clerk_name_datum(&name, claim->name);
	values[3] = Int32GetDatum(limit);
	values[4] = Int64GetDatum(clerk_origin_fingerprint());
	values[5] = ObjectIdGetDatum(claim->server->oid);
	values[6] = Int32GetDatum((int32) clerk_timeline());
	SPI_connect();
	clerk_run(&lane_statement, values, NULL, false);
	MemoryContextSwitchTo(caller);
	merges.scratch = AllocSetContextCreate(caller, "pg_clerk merge", ALLOCSET_SMALL_SIZES);
	merges.ids = palloc(sizeof(int64) * (SPI_processed + 1));
	merges.by = palloc(sizeof(int64) * (SPI_processed + 1));
	merges.newest = palloc(sizeof(int64) * (SPI_processed + 1));
	merges.params = palloc(sizeof(Datum) * (SPI_processed + 1));
	for (uint64 i = 0; i < SPI_processed;)
		i = merge_lane(&merges, i, limit, chosen);
	if (merges.count > 0)
	{
		update[0] = clerk_ids_datum(merges.ids, merges.count);
		update[1] = clerk_ids_datum(merges.by, merges.count);
		clerk_run(&supersede_statement, update, NULL, false);
		update[0] = clerk_ids_datum(merges.newest, merges.runs);
		update[1] = PointerGetDatum(construct_array(merges.params, merges.runs, JSONBOID, -1, false, TYPALIGN_INT));
		clerk_run(&merged_statement, update, NULL, false);
		claim->moved = true;
	}
	MemoryContextDelete(merges.scratch);
	SPI_finish();
}

/*
 * What has failed before is overtaken, for ever.  If somebody has it locked, to
 * retry it, the later request waits.
 */
void
clerk_overtake_failed(Loop *loop, const Claim *claim, List *chosen)
{
	NameData	name;
	Datum		values[3];
	ListCell   *lc;

	if (ids_and_lanes(chosen, false, &values[1]) == 0)
		return;
	values[0] = clerk_name_datum(&name, claim->name);
	SPI_connect();
	clerk_run(&overtake_statement, values, NULL, false);
	clerk_run(&failed_statement, values, NULL, false);
	if (SPI_processed > 0)
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_LOOK_AGAIN);
	for (uint64 i = 0; i < SPI_processed; i++)
		foreach(lc, chosen)
			if (((Due *) lfirst(lc))->id == DatumGetInt64(clerk_row_value(i, 1)))
				((Due *) lfirst(lc))->id = 0;
	SPI_finish();
}

