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
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "outbox/claims.h"
#include "utils/memutils.h"

/* Upserts that are merged by one claim. */
#define MERGE_AT_ONCE 1000

const ClerkColumn clerk_due_lanes[] = {
	CLERK_MEMBER("id", CLERK_INT8, Due, id),
	CLERK_MEMBER("lane", CLERK_TEXT, Due, lane),
	CLERK_MEMBERS_END
};

const ClerkColumn clerk_due_ids[] = {
	CLERK_MEMBER("id", CLERK_INT8, Due, id),
	CLERK_MEMBERS_END
};

/* A row of a lane, and what becomes of it. */
typedef struct LaneRow
{
	int64		head;			/* the first of the lane */
	int64		id;
	Oid			role;
	bool		open;			/* an upsert that was not sent, or was
								 * refused; false if it is locked */
	bool		refused;		/* ... that was refused */
	bool		passes;			/* sets the connection active or inactive:
								 * nothing that an upsert depends on */
	Jsonb	   *params;			/* with those of the rows before it */
	int64		by;				/* the row that takes over its parameters */
} LaneRow;

/* ... and its params, which are read one by one: they can be large, and many. */
#define LANE_PARAMS 7

static const ClerkColumn lane_columns[] = {
	CLERK_MEMBER("head", CLERK_INT8, LaneRow, head),
	CLERK_MEMBER("id", CLERK_INT8, LaneRow, id),
	CLERK_MEMBER("role_oid", CLERK_OID, LaneRow, role),
	CLERK_MEMBER("open", CLERK_BOOL, LaneRow, open),
	CLERK_MEMBER("refused", CLERK_BOOL, LaneRow, refused),
	CLERK_MEMBER("passes", CLERK_BOOL, LaneRow, passes),
	CLERK_MEMBERS_END
};

static const ClerkColumn superseded_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, LaneRow, id),
	CLERK_MEMBER("by", CLERK_INT8, LaneRow, by),
	CLERK_MEMBERS_END
};

static const ClerkColumn forward_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, LaneRow, id),
	CLERK_MEMBERS_END
};

static const ClerkColumn merged_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, LaneRow, id),
	CLERK_MEMBER("params", CLERK_JSONB, LaneRow, params),
	CLERK_MEMBERS_END
};

/* The rows of a lane from the first on: null where somebody has one locked. */
static ClerkStatement lane_statement = {
	.text = "SELECT l.head, l.id, k.role_oid, k.operation = 'upsert' AND k.state = 'queued'"
	" AND (k.attempts = 0 OR k.http_status = 422) AND k.doubt_since IS NULL AND jsonb_typeof(k.params) = 'object'"
	" AND (k.origin, k.server_oid, k.timeline) IS NOT DISTINCT FROM ($3, $4, $5),"
	" k.attempts > 0, k.operation IN ('deactivate', 'reactivate'), k.params"
	" FROM (SELECT o.id AS head, x.id FROM <rows> CROSS JOIN LATERAL (SELECT q.id FROM " REQUESTS " q"
	" WHERE q.server = $1 AND q.lane = o.lane AND q.state <= 'queued' ORDER BY q.state, q.id LIMIT $2) x) l"
	" LEFT JOIN LATERAL (SELECT q.* FROM " REQUESTS " q WHERE q.id = l.id FOR UPDATE SKIP LOCKED) k ON true"
	" ORDER BY l.head, l.id",
	.nargs = 5,
	.args = {NAMEOID, INT4OID, INT8OID, OIDOID, INT4OID},
	.given = clerk_due_lanes,
	.returns = lane_columns,
};

static ClerkStatement supersede_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'superseded', superseded_by = o.by, finished_at = clock_timestamp(), error = NULL,"
	" params = enterprise_connection_without_secrets(q.params) FROM <rows>" PLACE("o.id") " WHERE q.ctid = t.place",
	.given = superseded_columns,
};

/* What is passed over goes on, if it was put at infinity. */
static ClerkStatement forward_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = clock_timestamp() FROM <rows>" PLACE("o.id")
	" WHERE q.ctid = t.place AND t.next_attempt_at = 'infinity'",
	.given = forward_columns,
};

static ClerkStatement merged_statement = {
	.text = "UPDATE " REQUESTS " q SET params = o.params, next_attempt_at = clock_timestamp()"
	" FROM <rows>" PLACE("o.id") " WHERE q.ctid = t.place",
	.given = merged_columns,
};

/* A later request is sent: what has failed before can't be retried any more. */
static ClerkStatement overtake_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'superseded', superseded_by = f.by, scrubbed = false,"
	" params = enterprise_connection_without_secrets(q.params)"
	" FROM (SELECT x.id, o.id AS by FROM <rows> CROSS JOIN LATERAL (SELECT f.id FROM " REQUESTS " f"
	" WHERE f.server = $1 AND f.lane = o.lane AND f.state = 'failed' FOR UPDATE SKIP LOCKED) x WHERE x.id < o.id) f"
	PLACE("f.id") " WHERE q.ctid = t.place",
	.nargs = 1,
	.args = {NAMEOID},
	.given = clerk_due_lanes,
};

/* It is not, if one of those is locked, or was queued again just now. */
static ClerkStatement not_overtaken_statement = {
	.text = "SELECT o.id FROM <rows> WHERE (SELECT f.id FROM " REQUESTS " f"
	" WHERE f.server = $1 AND f.lane = o.lane AND f.state <= 'queued' ORDER BY f.state, f.id LIMIT 1) < o.id"
	" OR (SELECT f.id FROM " REQUESTS " f WHERE f.server = $1 AND f.lane = o.lane AND f.state = 'failed' LIMIT 1) < o.id",
	.nargs = 1,
	.args = {NAMEOID},
	.given = clerk_due_lanes,
	.returns = clerk_due_ids,
};

static Due *
find_due(const List *chosen, int64 id)
{
	ListCell   *lc;

	foreach(lc, chosen)
	{
		if (((Due *) lfirst(lc))->id == id)
			return lfirst(lc);
	}
	return NULL;
}

/*
 * The parameters so far (NULL: none), with those of the next.  Nothing else is
 * left of them.
 */
static Jsonb *
take_over(MemoryContext scratch, Jsonb *params, Datum next)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Jsonb	   *merged = DatumGetJsonbP(next);

	if (params != NULL)
		merged = clerk_jsonb_merge(params, merged);
	MemoryContextSwitchTo(old);
	merged = clerk_jsonb_copy(merged);
	if (params != NULL)
		pfree(params);
	MemoryContextReset(scratch);
	return merged;
}

typedef struct Merges
{
	List	   *superseded;		/* LaneRow * */
	List	   *merged;			/* those that took over parameters */
	List	   *forward;		/* those that are next instead of one that was
								 * superseded */
	int			limit;			/* rows of a lane that are looked at */
	MemoryContext scratch;
} Merges;

/*
 * Merge the upserts of one lane, which are the rows from first on; returns the
 * row after them.  What is to be claimed becomes the last of the run: or none,
 * if there are more than were looked at.
 *
 * What Clerk has refused, because another connection has the domain, hands its
 * parameters on past requests that only set the connection active or inactive:
 * a later upsert may have given the domain up, for which the other connection
 * waits.  These are next then.
 */
static uint64
merge_lane(Merges *merges, uint64 first, List *chosen)
{
	LaneRow    *last = NULL;
	List	   *run = NIL;		/* those before it */
	LaneRow    *passed = NULL;	/* the first between two of them */
	bool		crossed = false;	/* ... and there is one behind it */
	bool		open = true;
	uint64		i;
	Due		   *due;
	ListCell   *lc;
	int64		head = 0;

	for (i = first; i < SPI_processed; i++)
	{
		LaneRow    *row = palloc0(sizeof(*row));
		bool		isnull;

		clerk_read_row(&lane_statement, i, row);
		if (i > first && row->head != head)
			break;
		head = row->head;
		if (open && row->passes && last != NULL && last->refused)
		{
			passed = passed ? passed : row;
			continue;
		}
		open &= row->open && (last == NULL || row->role == last->role);
		if (!open)
			continue;
		row->params = take_over(merges->scratch, last ? last->params : NULL, clerk_row_datum(i, LANE_PARAMS, &isnull));
		if (last != NULL)
			run = lappend(run, last);
		last = row;
		crossed = passed != NULL;
	}
	due = find_due(chosen, head);
	if (crossed)
		merges->forward = lappend(merges->forward, passed);
	if (crossed || (open && i - first == (uint64) merges->limit))
		due->id = 0;
	else if (last != NULL)
		due->id = last->id;
	if (run == NIL)
		return i;

	/* A PATCH that completes a create would not send what the newer one has. */
	due->step = CLERK_STEP_NONE;

	/*
	 * Between the two, something may have failed: the first one was committed
	 * late.
	 */
	due->overtakes = true;
	foreach(lc, run)
		((LaneRow *) lfirst(lc))->by = last->id;
	merges->superseded = list_concat(merges->superseded, run);
	merges->merged = lappend(merges->merged, last);
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
	Datum		values[] = {clerk_name_datum(&name, claim->server->name), 0, Int64GetDatum(clerk_origin_fingerprint()),
		ObjectIdGetDatum(claim->server->oid), Int32GetDatum((int32) clerk_timeline())
	};
	Merges		merges = {0};
	List	   *followed = NIL;
	MemoryContext caller = CurrentMemoryContext;
	ListCell   *lc;

	foreach(lc, chosen)
	{
		if (((Due *) lfirst(lc))->followed)
			followed = lappend(followed, lfirst(lc));
	}
	if (followed == NIL)
		return;
	merges.limit = Max(MERGE_AT_ONCE / list_length(followed), 10);
	merges.scratch = AllocSetContextCreate(caller, "pg_clerk merge", ALLOCSET_SMALL_SIZES);
	values[1] = Int32GetDatum(merges.limit);
	SPI_connect();
	clerk_run_rows(&lane_statement, values, followed);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed;)
		i = merge_lane(&merges, i, followed);
	SPI_finish();
	MemoryContextDelete(merges.scratch);
	if (merges.merged != NIL)
	{
		(void) clerk_execute(&supersede_statement, NULL, merges.superseded);
		(void) clerk_execute(&merged_statement, NULL, merges.merged);
		if (merges.forward != NIL)
			(void) clerk_execute(&forward_statement, NULL, merges.forward);
		claim->look_again = true;
	}
}

/*
 * What has failed before is overtaken for good.  If somebody has it locked, to
 * retry it, the later request waits.
 */
void
clerk_overtake_failed(Loop *loop, const Claim *claim, List *chosen)
{
	NameData	name;
	Datum		server = clerk_name_datum(&name, claim->server->name);
	List	   *overtaking = NIL;
	ListCell   *lc;

	foreach(lc, chosen)
	{
		if (((Due *) lfirst(lc))->overtakes)
			overtaking = lappend(overtaking, lfirst(lc));
	}
	if (overtaking == NIL)
		return;
	(void) clerk_execute(&overtake_statement, &server, overtaking);
	foreach(lc, clerk_select(&not_overtaken_statement, &server, overtaking, sizeof(Due)))
	{
		find_due(overtaking, ((Due *) lfirst(lc))->id)->id = 0;
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_LOOK_AGAIN);
	}
}
