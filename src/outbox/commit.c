/*-------------------------------------------------------------------------
 *
 * commit.c
 *		Writing what attempts have come to.
 *
 * All outcomes of a server are written together: one statement for the requests,
 * one for the tracking rows.  If that raises an error, each is written alone;
 * one that cannot be written becomes failed, with the reason.  What somebody
 * has locked is left for later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/locks.h"
#include "base/wake.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "outbox/claims.h"
#include "tables/activity.h"
#include "tables/tracking.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A longer id or key, in bytes, might not fit into a notification with all that is escaped. */
#define MAX_NOTIFIED 255

/* These take about a minute. */
#define MAX_TRIES_OF_SESSION 9

static const ClerkColumn id_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Delivery, row.id),
	CLERK_MEMBERS_END
};

static const ClerkColumn outcome_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Delivery, row.id),
	CLERK_MEMBER("attempt", CLERK_INT4, Delivery, row.attempts),
	CLERK_MEMBER_WORDS("state", clerk_state_words, Delivery, outcome.state),
	CLERK_MEMBER_WORDS("step", clerk_step_words, Delivery, outcome.step),
	CLERK_MEMBER("delay", CLERK_INT8, Delivery, outcome.delay),
	CLERK_MEMBER("uncounted", CLERK_BOOL, Delivery, outcome.uncounted),
	CLERK_MEMBER("connection_id", CLERK_TEXT, Delivery, outcome.connection_id),
	CLERK_MEMBER("http_status", CLERK_INT4, Delivery, outcome.http_status),
	CLERK_MEMBER("error", CLERK_JSONB, Delivery, outcome.error),
	CLERK_MEMBER("doubt_since", CLERK_TIME, Delivery, outcome.doubt_since),
	CLERK_MEMBER("has_secrets", CLERK_BOOL, Delivery, has_secrets),
	CLERK_MEMBERS_END
};

/*
 * The outcome counts only if the claim is still that of the attempt.  What
 * stood behind a request that is finished comes forward, if it was put at
 * infinity.
 */
static ClerkStatement write_statement = {
	.text = "WITH written AS (UPDATE " REQUESTS " q SET state = o.state::%1$s.enterprise_connection_state,"
	" step = coalesce(o.step::%1$s.enterprise_connection_step, q.step),"
	" next_attempt_at = CASE WHEN o.delay >= 0 THEN clock_timestamp() + make_interval(secs => o.delay / 1000.0)"
	" ELSE q.next_attempt_at END,"
	" attempts = greatest(q.attempts - o.uncounted::integer, 0),"
	" connection_id = nullif(coalesce(o.connection_id, q.connection_id), ''),"
	" http_status = nullif(o.http_status, 0), error = o.error, doubt_since = o.doubt_since,"
	" claimer = CASE WHEN o.state = 'sending' THEN q.claimer END,"
	" finished_at = CASE WHEN o.state IN ('failed', 'delivered') THEN clock_timestamp() END,"
	" params = CASE WHEN o.state = 'delivered' AND o.has_secrets"
	" THEN enterprise_connection_without_secrets(q.params) ELSE q.params END"
	" FROM <rows>" PLACE("o.id")
	" WHERE q.ctid = t.place AND t.attempts = o.attempt AND t.claimer = $1 AND t.state <= 'in_doubt'"
	" RETURNING q.id, q.server, q.lane, q.finished_at), forward AS ("
	"UPDATE " REQUESTS " n SET next_attempt_at = clock_timestamp() WHERE n.id = ANY (ARRAY("
	"SELECT l.id FROM " REQUESTS " l WHERE l.next_attempt_at = 'infinity' AND l.id = ANY (ARRAY("
	"SELECT (SELECT x.id FROM " REQUESTS " x WHERE x.server = w.server AND x.lane = w.lane"
	" AND x.state <= 'queued' AND x.id <> w.id ORDER BY x.state, x.id LIMIT 1)"
	" FROM written w WHERE w.finished_at IS NOT NULL AND w.lane IS NOT NULL)) FOR UPDATE SKIP LOCKED))"
	" RETURNING n.id) SELECT w.id, (SELECT count(*) FROM forward) FROM written w",
	.nargs = 1,
	.args = {INT4OID},
	.given = outcome_columns,
};

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

/*
 * Try it again later.  A session does not do so for ever: when it has ended,
 * another process takes its claim over.
 */
static void
put_off(const Loop *loop, Delivery *delivery)
{
	delivery->not_before = clerk_now_ms() + clerk_outbox_pause(delivery->tries++);
	if (!loop->deliverer->forever && delivery->tries > MAX_TRIES_OF_SESSION)
		delivery->written = delivery->lost = true;
}

/*
 * Lock the tracking rows, and put off those of which somebody has it locked.
 * Returns the others.
 */
static List *
lock_tracked(const Loop *loop, const Server *server, List *deliveries)
{
	int			count = list_length(deliveries);
	const char **ids = palloc0(sizeof(char *) * count);
	const char **keys = palloc0(sizeof(char *) * count);
	bool	   *locked = palloc0(sizeof(bool) * count);
	bool		any = false;
	List	   *free = NIL;

	for (int i = 0; i < count; i++)
	{
		const Delivery *delivery = list_nth(deliveries, i);
		const ClerkOutcome *outcome = &delivery->outcome;

		if (outcome->track == NULL && outcome->untrack == NULL)
			continue;
		ids[i] = outcome->untrack ? outcome->untrack : outcome->connection_id;
		keys[i] = delivery->row.key;
		any = true;
	}
	if (any)
		clerk_try_lock_tracked_all(server->name, ids, keys, count, locked);
	for (int i = 0; i < count; i++)
	{
		if (locked[i])
			put_off(loop, list_nth(deliveries, i));
		else
			free = lappend(free, list_nth(deliveries, i));
	}
	return free;
}

static void
track(const Server *server, const List *deliveries)
{
	ClerkTrackRow *rows = palloc(sizeof(*rows) * list_length(deliveries));
	const char **untracked = palloc(sizeof(char *) * list_length(deliveries));
	int			nrows = 0;
	int			nuntracked = 0;
	ListCell   *lc;

	foreach(lc, deliveries)
	{
		const Delivery *delivery = lfirst(lc);
		const ClerkOutcome *outcome = &delivery->outcome;

		if (delivery->lost)
			continue;
		if (outcome->untrack != NULL)
			untracked[nuntracked++] = outcome->untrack;
		if (outcome->track != NULL)
			rows[nrows++] = (ClerkTrackRow)
		{
			.connection = outcome->track,.id = outcome->connection_id,.key = delivery->row.key,
				.request = delivery->row.id
		};
	}
	if (nuntracked > 0)
		clerk_untrack_all(server->name, untracked, nuntracked);
	if (nrows > 0)
		clerk_track_all(server->name, rows, nrows);
	foreach(lc, deliveries)
	{
		const Delivery *delivery = lfirst(lc);

		if (!delivery->lost && delivery->outcome.set_reactivate)
			clerk_track_reactivate(server->name, delivery->outcome.connection_id, delivery->outcome.reactivate);
	}
}

static void
append_string(StringInfo text, const char *string)
{
	if (string != NULL && strlen(string) <= MAX_NOTIFIED)
		escape_json(text, string);
	else
		appendStringInfoString(text, "null");
}

/*
 * Wake the sessions that await it, and notify those that listen.  The queue of
 * notifications may be full, which only the commit notices: then they are left
 * out.
 */
static void
announce(Loop *loop, const Delivery *delivery)
{
	const ClerkOutcome *outcome = &delivery->outcome;
	const char *id = outcome->connection_id && *outcome->connection_id ?
	outcome->connection_id : delivery->row.connection_id;
	StringInfoData text;

	if (!clerk_state_is_final(outcome->state))
		return;
	clerk_wake_finished(delivery->row.id, delivery->row.key);
	if (loop->silent)
		return;
	loop->announced = true;
	initStringInfo(&text);
	appendStringInfo(&text, "{\"request\":" INT64_FORMAT ",\"key\":", delivery->row.id);
	append_string(&text, delivery->row.key);
	appendStringInfo(&text, ",\"state\":\"%s\",\"connection\":", clerk_state_words[outcome->state]);
	append_string(&text, id);
	appendStringInfoChar(&text, '}');
	Async_Notify("pg_clerk", text.data);
}

/*
 * Which claims still hold?  What somebody has changed just now is looked at
 * once more.
 */
static void
read_written(Server *server, const List *deliveries)
{
	ListCell   *lc;

	foreach(lc, deliveries)
	{
		Delivery   *delivery = lfirst(lc);

		delivery->lost = true;
		for (uint64 i = 0; i < SPI_processed && delivery->lost; i++)
		{
			/* They come in the order in which they were given, mostly. */
			uint64		n = (i + foreach_current_index(lc)) % SPI_processed;
			bool		isnull;

			delivery->lost = DatumGetInt64(clerk_row_datum(n, 1, &isnull)) != delivery->row.id;
			server->waits |= DatumGetInt64(clerk_row_datum(n, 2, &isnull)) > 0;
		}
		if (delivery->lost && delivery->tries == 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a request was changed by another process")));
	}
}

static void
write_outcomes(Loop *loop, void *arg)
{
	const ClerkItems *items = arg;
	Server	   *server = items->arg;
	Datum		claimer = Int32GetDatum(loop->claimer);
	List	   *deliveries;
	ListCell   *lc;

	/* The server may be dropped or renamed just now. */
	if (!clerk_try_hold_server(server->oid))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the server is locked")));
	deliveries = lock_tracked(loop, server, items->items);
	if (deliveries == NIL)
		return;
	SPI_connect();
	clerk_run_rows(&write_statement, &claimer, deliveries);
	read_written(server, deliveries);
	SPI_finish();
	track(server, deliveries);
	foreach(lc, deliveries)
	{
		if (!((Delivery *) lfirst(lc))->lost)
			announce(loop, lfirst(lc));
	}
	foreach(lc, deliveries)
		((Delivery *) lfirst(lc))->written = true;
}

/*
 * An outcome that cannot be written: instead, the request has failed for this
 * reason.  What Clerk has done stays to be mirrored, but the id of what it has
 * made is kept, so that a retry does not make it again.  If not even that can be
 * written, or somebody has the row locked, it is tried again, less and less
 * often: no other process can claim the request as long as this one is there.
 */
static void
not_written(Loop *loop, void *arg, void *item, const ErrorData *error)
{
	Delivery   *delivery = item;
	MemoryContext old = MemoryContextSwitchTo(delivery->context);

	if (error != NULL && !clerk_outbox_is_transient(error))
	{
		ClerkOutcome outcome = delivery->outcome;
		ClerkItems	failed = {.items = list_make1(delivery),.arg = arg};

		delivery->outcome = CLERK_NO_OUTCOME;
		delivery->outcome.connection_id = outcome.connection_id;
		delivery->outcome.doubt_since = outcome.doubt_since;
		clerk_outbox_fail(delivery, error);
		error = clerk_outbox_try(loop, write_outcomes, &failed);
		if (error != NULL)
			delivery->outcome = outcome;
	}
	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		clerk_outbox_log(psprintf("note the outcome of request " INT64_FORMAT, delivery->row.id), error);
	if (!delivery->written)
		put_off(loop, delivery);
	MemoryContextSwitchTo(old);
}

/*
 * Is there an outcome to judge or to write now?  The settings of a delivery may
 * be needed by a look-up.
 */
static bool
is_ready(const Delivery *delivery, int64 now)
{
	const LookUp *look_up = delivery->server->look_up;

	return (delivery->state == DELIVERY_ANSWERED || delivery->state == DELIVERY_JUDGED) && delivery->not_before <= now &&
		(look_up == NULL || look_up->answered || look_up->settings != delivery->settings);
}

static List *
judged_of(Loop *loop, const Server *server)
{
	int64		now = clerk_now_ms();
	List	   *judged = NIL;
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->server == server && delivery->state == DELIVERY_JUDGED && is_ready(delivery, now))
		{
			delivery->written = false;
			judged = lappend(judged, delivery);
		}
	}
	return judged;
}

static void
judge_and_write(Loop *loop, void *arg)
{
	MemoryContext scratch = CurrentMemoryContext;
	ListCell   *lc;

	MemoryContextSwitchTo(loop->context);
	clerk_outbox_judge_all(loop);
	MemoryContextSwitchTo(scratch);
	foreach(lc, loop->servers)
	{
		Server	   *server = lfirst(lc);
		ForeignServer *now = GetForeignServerExtended(server->oid, FSV_MISSING_OK);
		ClerkItems	judged = {
			.items = judged_of(loop, server),
			.arg = server,
			.work = write_outcomes,
			.id = id_columns,
			.failed = not_written,
		};

		if (server->stopped)
			loop->next_claim = clerk_now_ms();
		server->stopped = false;

		/* As it is called now; the rows of one that is gone are gone, too. */
		if (now != NULL)
			strlcpy(server->name, now->servername, NAMEDATALEN);
		clerk_outbox_try_all(loop, &judged);
	}
}

/*-------------------------------------------------------------------------
 * After the commit
 *-------------------------------------------------------------------------
 */

/*
 * The PATCH that completes a create: the same claim goes on.
 */
static void
complete(Delivery *delivery)
{
	delivery->row.step = delivery->outcome.step;
	delivery->row.connection_id = MemoryContextStrdup(delivery->context, delivery->outcome.connection_id);
	delivery->row.started_at = GetCurrentTimestamp();
	delivery->outcome = CLERK_NO_OUTCOME;
	delivery->tries = 0;
	delivery->written = false;
	delivery->state = DELIVERY_READY;
	delivery->call = delivery->next_call;
	delivery->next = NULL;
}

/*
 * When may the outcome give cause for a claim?
 */
static void
note_next(Loop *loop, const Delivery *delivery)
{
	const ClerkOutcome *outcome = &delivery->outcome;

	if (clerk_state_is_final(outcome->state) ? delivery->server->waits : outcome->state != CLERK_STATE_SENDING)
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + Max(outcome->delay, 0));
	if (clerk_outbox_completes(delivery))
		clerk_outbox_place_is_free(loop, delivery->server);
}

static void
end_written(Loop *loop)
{
	dlist_mutable_iter iter;
	ListCell   *lc;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (!delivery->written)
			continue;
		if (delivery->next != NULL && !delivery->lost && delivery->outcome.state == CLERK_STATE_SENDING)
		{
			complete(delivery);
			continue;
		}
		clerk_outbox_note_written(loop, delivery);
		note_next(loop, delivery);
		dlist_delete(&delivery->node);
		MemoryContextDelete(delivery->context);
	}

	/*
	 * What is put off, because somebody has a row locked, is in no other
	 * look-up's way.
	 */
	foreach(lc, loop->servers)
	{
		LookUp	   *look_up = ((Server *) lfirst(lc))->look_up;

		if (look_up != NULL && look_up->answered)
		{
			clerk_outbox_end_look_up(look_up);
			loop->next_claim = clerk_now_ms();
		}
	}
}

int64
clerk_outbox_next_outcome(const Loop *loop)
{
	int64		next = CLERK_NO_TIME;
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, (dlist_head *) &loop->deliveries)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		if (is_ready(delivery, CLERK_NO_TIME))
			next = Min(next, delivery->not_before);
	}
	foreach(lc, loop->servers)
	{
		const LookUp *look_up = ((Server *) lfirst(lc))->look_up;

		if (look_up != NULL && look_up->page_came)
			next = Min(next, look_up->not_before);
	}
	return next;
}

/*
 * If the transaction fails after all was written, notifications may be the
 * reason: the next one goes without.
 */
bool
clerk_outbox_commit(Loop *loop)
{
	if (clerk_outbox_next_outcome(loop) > clerk_now_ms())
		return false;
	loop->announced = false;
	if (!clerk_outbox_transaction(loop, "note outcomes", judge_and_write))
	{
		if (loop->announced)
			loop->pause_until = 0;
		loop->silent = loop->announced;
		return false;
	}
	loop->silent = false;
	end_written(loop);
	return true;
}
