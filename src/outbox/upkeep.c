/*-------------------------------------------------------------------------
 *
 * upkeep.c
 *		What is done now and then for the outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "outbox/claims.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Rows, or lanes, that one transaction looks at: what is under way must not wait for all. */
#define AT_ONCE 1000

/* ... and until the next one, in ms, while something is under way. */
#define SWEEP_INTERVAL 100

static const ClerkColumn id_columns[] = {
	{"id", CLERK_INT8, 0, NULL},
	CLERK_MEMBERS_END
};

/* What was finished longer ago than pg_clerk.retention is cleared away. */
static ClerkStatement old_statement = {
	.text = "SELECT q.id FROM " REQUESTS " q WHERE q.finished_at < $1 AND NOT q.scrubbed"
	" ORDER BY q.finished_at LIMIT $2 FOR UPDATE SKIP LOCKED",
	.nargs = 2,
	.args = {TIMESTAMPTZOID, INT4OID},
	.returns = id_columns,
};

/*
 * What has failed, and was not overtaken, stays until it is cancelled, but its
 * secrets do not; then it is looked at no more.
 */
static ClerkStatement purge_statement = {
	.text = "WITH old AS MATERIALIZED (SELECT o.id FROM <rows>),"
	" gone AS (DELETE FROM " REQUESTS " q WHERE q.id = ANY (ARRAY(SELECT o.id FROM old o)) AND q.state <> 'failed')"
	" UPDATE " REQUESTS " q SET params = enterprise_connection_without_secrets(q.params), scrubbed = true"
	" WHERE q.id = ANY (ARRAY(SELECT o.id FROM old o)) AND q.state = 'failed'",
	.given = id_columns,
};

/*
 * The first of a lane must not be at infinity.  That happens where it was put
 * there while another process finished, or a session cancelled, the one before.
 */
static ClerkStatement sweep_statement = {
	.text = "WITH RECURSIVE lanes (server, lane) AS ("
	" (SELECT q.server, q.lane FROM " REQUESTS " q WHERE q.finished_at IS NULL AND q.next_attempt_at = 'infinity'"
	" AND (q.server, q.lane) > ($1, $2) ORDER BY q.server, q.lane LIMIT 1)"
	" UNION ALL SELECT n.server, n.lane FROM lanes l CROSS JOIN LATERAL (SELECT q.server, q.lane FROM " REQUESTS " q"
	" WHERE q.finished_at IS NULL AND q.next_attempt_at = 'infinity' AND (q.server, q.lane) > (l.server, l.lane)"
	" ORDER BY q.server, q.lane LIMIT 1) n), first AS MATERIALIZED (SELECT * FROM lanes LIMIT $3),"
	" stranded AS (UPDATE " REQUESTS " q SET next_attempt_at = clock_timestamp() WHERE q.id = ANY (ARRAY("
	"SELECT l.id FROM " REQUESTS " l WHERE l.next_attempt_at = 'infinity' AND l.id = ANY (ARRAY("
	"SELECT (SELECT x.id FROM " REQUESTS " x WHERE x.server = s.server AND x.lane = s.lane AND x.state <= 'queued'"
	" ORDER BY x.state, x.id LIMIT 1) FROM first s)) FOR UPDATE SKIP LOCKED)))"
	" SELECT s.server, s.lane FROM first s OFFSET $3 - 1",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, INT4OID},
};

/*
 * The clock was ahead and was set back: nothing waits for longer than the last
 * pause ($3 is when that would end), and nothing that was never tried.
 */
static ClerkStatement bring_back_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = clock_timestamp() WHERE q.id = ANY (ARRAY("
	"SELECT l.id FROM " REQUESTS " l WHERE l.finished_at IS NULL AND l.state <> 'sending' AND l.next_attempt_at < 'infinity'"
	" AND l.next_attempt_at > $2 AND l.server = $1 AND l.priority = ANY (ARRAY(" PRIORITIES
	"SELECT p.priority FROM priorities p WHERE p.priority IS NOT NULL))"
	" AND (l.next_attempt_at > $3 OR l.started_at IS NULL AND l.state = 'queued') LIMIT $4 FOR UPDATE SKIP LOCKED))",
	.nargs = 4,
	.args = {NAMEOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID},
};

/*
 * Of what was never tried, all is looked through only at the beginning and when
 * the clock was set back: there can be many that wait with reason.
 */
static void
bring_back(Loop *loop, void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = TimestampTzPlusMilliseconds(now, CLERK_BACKOFF_LAST);
	int64		ahead = now / 1000 - clerk_now_ms();
	bool		set_back = ahead < loop->clock_ahead - 1000;
	bool		all = true;
	ListCell   *lc;

	foreach(lc, clerk_outbox_server_names())
	{
		NameData	name;
		Datum		values[] = {clerk_name_datum(&name, lfirst(lc)), TimestampTzGetDatum(set_back ? now : last),
			TimestampTzGetDatum(last), Int32GetDatum(AT_ONCE)
		};

		all &= clerk_execute(&bring_back_statement, values, NIL) < AT_ONCE;
	}

	/*
	 * If there was too much for one transaction, the rest is for the next
	 * time.
	 */
	if (all)
		loop->clock_ahead = ahead;
}

static void
sweep(Loop *loop, void *arg)
{
	char	   *lane = loop->swept_lane;
	Datum		values[] = {NameGetDatum(&loop->swept_server), CStringGetTextDatum(lane ? lane : ""), Int32GetDatum(AT_ONCE)};

	if (lane == NULL)
		memset(&loop->swept_server, 0, sizeof(NameData));
	loop->swept_lane = NULL;
	SPI_connect();
	clerk_run(&sweep_statement, values, NULL, false);
	if (SPI_processed > 0)
	{
		namestrcpy(&loop->swept_server, clerk_row_text(0, 1));
		loop->swept_lane = MemoryContextStrdup(loop->context, clerk_row_text(0, 2));
	}
	SPI_finish();
	if (lane != NULL)
		pfree(lane);
}

static void
purge_old(Loop *loop, void *arg)
{
	(void) clerk_execute(&purge_statement, NULL, ((ClerkItems *) arg)->items);
}

static void
not_purged(Loop *loop, void *arg, void *item, const ErrorData *error)
{
	clerk_outbox_log(psprintf("clear away request " INT64_FORMAT, *(int64 *) item), error);
	loop->purging = false;
}

/*
 * One that cannot be cleared away, because a foreign key of somebody's holds it,
 * is in no other's way.
 */
static void
purge(Loop *loop, void *arg)
{
	Datum		values[] = {TimestampTzGetDatum(GetCurrentTimestamp() - (TimestampTz) clerk_retention * USECS_PER_SEC),
	Int32GetDatum(AT_ONCE)};
	ClerkItems	old = {
		.items = clerk_select(&old_statement, values, NIL, sizeof(int64)),
		.work = purge_old,
		.failed = not_purged,
	};

	loop->purging = list_length(old.items) == AT_ONCE;
	clerk_outbox_try_all(loop, &old);
}

/*
 * Each step in a subtransaction: an error of one does not affect the others.
 */
static void
run_steps(Loop *loop, void *arg)
{
	bool		all = clerk_now_ms() >= loop->next_chores;
	const struct
	{
		const char *what;
		ClerkWork	work;
		bool		wanted;
	}			steps[] = {
		{"find out which servers are paused", clerk_outbox_read_pauses, all},
		{"bring back what waits for too long", bring_back, all},
		{"look for what stands behind nothing", sweep, all || loop->swept_lane != NULL},
		{"clear away what is finished", purge, all || loop->purging},
	};

	for (size_t i = 0; i < lengthof(steps); i++)
	{
		ErrorData  *error = steps[i].wanted ? clerk_outbox_try(loop, steps[i].work, NULL) : NULL;

		if (error != NULL && !loop->deliverer->forever)
			clerk_rethrow(error);
		if (error != NULL)
			clerk_outbox_log(steps[i].what, error);
	}
}

/*
 * All steps every pg_clerk.naptime, and at the beginning; in between the rest,
 * if there was too much for one transaction.  What is due is claimed then, too:
 * it may have been brought forward, or nothing has said that it is there (COMMIT
 * PREPARED).
 */
void
clerk_outbox_chores(Loop *loop)
{
	int64		now = clerk_now_ms();
	bool		all = now >= loop->next_chores;
	bool		rest = loop->swept_lane != NULL || loop->purging;

	if (!all && !(rest && (now >= loop->next_sweep || clerk_outbox_nothing_under_way(loop))))
		return;
	if (clerk_outbox_transaction(loop, "look after the outbox", run_steps))
	{
		loop->next_claim = clerk_now_ms();
		if (all)
			loop->next_chores = clerk_now_ms() + clerk_naptime;
	}
	loop->next_sweep = clerk_now_ms() + SWEEP_INTERVAL;
}
