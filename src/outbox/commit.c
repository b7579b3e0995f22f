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
#include "tables/tracking.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A longer id or key, in bytes, might not fit into a notification with all that is escaped. */
#define MAX_NOTIFIED 255

/*
 * The outcome counts only if the claim is still that of the attempt.  What
 * stood behind a request that is finished comes forward, if it was put at
 * infinity.  $3 .. are the columns of the outcome.
 */
static ClerkStatement write_statement = {
	.text = "WITH written AS (UPDATE %1$s.enterprise_connection_requests q"
	" SET state = o.state::%1$s.enterprise_connection_state,"
	" step = coalesce(o.step::%1$s.enterprise_connection_step, q.step),"
	" next_attempt_at = coalesce(o.next_attempt_at, q.next_attempt_at),"
	" attempts = greatest(q.attempts - o.uncounted, 0),"
	" connection_id = nullif(coalesce(o.connection_id, q.connection_id), ''),"
	" http_status = o.http_status, error = o.error, doubt_since = o.doubt_since,"
	" claimer = CASE WHEN o.state = 'sending' THEN q.claimer END,"
	" finished_at = CASE WHEN o.final THEN clock_timestamp() END,"
	" params = CASE WHEN o.scrub THEN enterprise_connection_without_secrets(q.params) ELSE q.params END"
	" FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS o (id, attempt, state, step, next_attempt_at,"
	" uncounted, connection_id, http_status, error, doubt_since, final, scrub)"
	" CROSS JOIN LATERAL (SELECT t.ctid AS place FROM %1$s.enterprise_connection_requests t WHERE t.id = o.id LIMIT 1) t"
	" WHERE q.ctid = t.place AND q.attempts = o.attempt AND q.claimer = $1 AND q.state <= 'in_doubt'"
	" RETURNING q.id, q.server, q.lane, o.final), forward AS ("
	"UPDATE %1$s.enterprise_connection_requests n SET next_attempt_at = clock_timestamp() WHERE n.id = ANY (ARRAY("
	"SELECT l.id FROM %1$s.enterprise_connection_requests l WHERE l.next_attempt_at = 'infinity' AND l.id = ANY (ARRAY("
	"SELECT (SELECT x.id FROM %1$s.enterprise_connection_requests x WHERE x.server = w.server AND x.lane = w.lane"
	" AND x.state <= 'queued' AND x.id <> w.id ORDER BY x.state, x.id LIMIT 1)"
	" FROM written w WHERE w.final AND w.lane IS NOT NULL)) FOR UPDATE SKIP LOCKED))"
	" RETURNING n.id) SELECT w.id, (SELECT count(*) FROM forward) FROM written w",
	.nargs = 13,
	.args = {INT4OID, INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID,
	INT4ARRAYOID, JSONBARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID, BOOLARRAYOID},
};

/* Requests that somebody has locked. */
static ClerkStatement locked_statement = {
	.text = "SELECT o.id FROM unnest($1) AS o (id) WHERE NOT EXISTS (SELECT FROM (SELECT q.id FROM"
	" %1$s.enterprise_connection_requests q WHERE q.id = o.id FOR UPDATE SKIP LOCKED) q)"
	" AND EXISTS (SELECT FROM %1$s.enterprise_connection_requests q WHERE q.id = o.id)",
	.nargs = 1,
	.args = {INT8ARRAYOID},
};

/* Outcomes of one server. */
typedef struct Batch
{
	Server	   *server;
	Delivery  **deliveries;
	int			count;
} Batch;

/*-------------------------------------------------------------------------
 * Outcomes as arrays
 *-------------------------------------------------------------------------
 */

typedef struct Column
{
	Datum	   *datums;
	bool	   *nulls;
} Column;

static void
put(Column *column, int n, bool isnull, Datum datum)
{
	column->nulls[n] = isnull;
	column->datums[n] = datum;
}

static void
put_text(Column *column, int n, const char *text)
{
	put(column, n, text == NULL, text ? CStringGetTextDatum(text) : (Datum) 0);
}

static Datum
array_of(const Column *column, int count, Oid element)
{
	int			lower = 1;
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(element, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(column->datums, column->nulls, 1, &count, &lower, element, len, byval, align));
}

/*
 * The columns of the write statement, from $2 on.
 */
static void
outcome_arrays(const Batch *batch, Datum *values)
{
	static const Oid elements[] = {INT8OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, TEXTOID, INT4OID, JSONBOID,
	TIMESTAMPTZOID, BOOLOID, BOOLOID};
	Column		columns[lengthof(elements)];
	TimestampTz now = GetCurrentTimestamp();

	for (size_t c = 0; c < lengthof(elements); c++)
	{
		columns[c].datums = palloc0(sizeof(Datum) * batch->count);
		columns[c].nulls = palloc0(sizeof(bool) * batch->count);
	}
	for (int i = 0; i < batch->count; i++)
	{
		const Delivery *delivery = batch->deliveries[i];
		const ClerkOutcome *outcome = &delivery->outcome;
		bool		has_secrets = delivery->params == NULL || delivery->params->secrets != NIL;

		put(&columns[0], i, false, Int64GetDatum(delivery->row->id));
		put(&columns[1], i, false, Int32GetDatum(delivery->row->attempts));
		put_text(&columns[2], i, clerk_state_name(outcome->state));
		put_text(&columns[3], i, clerk_step_name(outcome->step));
		put(&columns[4], i, outcome->delay < 0, TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, outcome->delay)));
		put(&columns[5], i, false, Int32GetDatum(outcome->uncounted));
		put_text(&columns[6], i, outcome->connection_id);
		put(&columns[7], i, outcome->http_status == 0, Int32GetDatum(outcome->http_status));
		put(&columns[8], i, outcome->error == NULL, PointerGetDatum(outcome->error));
		put(&columns[9], i, outcome->doubt_since == 0, TimestampTzGetDatum(outcome->doubt_since));
		put(&columns[10], i, false, BoolGetDatum(clerk_state_is_final(outcome->state)));
		put(&columns[11], i, false, BoolGetDatum(outcome->state == CLERK_STATE_DELIVERED && has_secrets));
	}
	for (size_t c = 0; c < lengthof(elements); c++)
		values[c] = array_of(&columns[c], batch->count, elements[c]);
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

static void
put_off(Delivery *delivery)
{
	delivery->not_before = clerk_now_ms() + clerk_outbox_pause(delivery->tries++);
}

/*
 * Those that are left come first; none is lost, as they may be needed once more.
 */
static void
keep(Batch *batch, int to, int from)
{
	Delivery   *kept = batch->deliveries[from];

	batch->deliveries[from] = batch->deliveries[to];
	batch->deliveries[to] = kept;
}

/*
 * Put off those whose tracking row somebody has locked, and lock the others'.
 */
static void
lock_tracked(Batch *batch)
{
	const char **ids = palloc0(sizeof(char *) * batch->count);
	const char **keys = palloc0(sizeof(char *) * batch->count);
	bool	   *locked = palloc0(sizeof(bool) * batch->count);
	bool		any = false;
	int			left = 0;

	for (int i = 0; i < batch->count; i++)
	{
		const Delivery *delivery = batch->deliveries[i];
		const ClerkOutcome *outcome = &delivery->outcome;

		if (outcome->track == NULL && outcome->untrack == NULL)
			continue;
		ids[i] = outcome->untrack ? outcome->untrack : outcome->connection_id;
		keys[i] = delivery->row->key;
		any = true;
	}
	if (!any)
		return;
	clerk_try_lock_tracked_all(batch->server->name, ids, keys, batch->count, locked);
	for (int i = 0; i < batch->count; i++)
	{
		if (locked[i])
			put_off(batch->deliveries[i]);
		else
			keep(batch, left++, i);
	}
	batch->count = left;
}

static void
track(const Batch *batch)
{
	ClerkTrackRow *rows = palloc(sizeof(*rows) * batch->count);
	const char **untracked = palloc(sizeof(char *) * batch->count);
	int			nrows = 0;
	int			nuntracked = 0;

	for (int i = 0; i < batch->count; i++)
	{
		const Delivery *delivery = batch->deliveries[i];
		const ClerkOutcome *outcome = &delivery->outcome;

		if (delivery->lost)
			continue;
		if (outcome->untrack != NULL)
			untracked[nuntracked++] = outcome->untrack;
		if (outcome->track != NULL)
			rows[nrows++] = (ClerkTrackRow)
		{
			.connection = outcome->track,.id = outcome->connection_id,.key = delivery->row->key,
			.request = delivery->row->id
		};
	}
	if (nuntracked > 0)
		clerk_untrack_all(batch->server->name, untracked, nuntracked);
	if (nrows > 0)
		clerk_track_all(batch->server->name, rows, nrows);
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
 * Tell who awaits it, and who listens.  The queue of notifications may be full,
 * of which only the commit takes notice: then they are left out.
 */
static void
announce(Loop *loop, const Delivery *delivery)
{
	const ClerkOutcome *outcome = &delivery->outcome;
	const char *id = outcome->connection_id && *outcome->connection_id ?
		outcome->connection_id : delivery->row->connection_id;
	StringInfoData text;

	if (!clerk_state_is_final(outcome->state))
		return;
	clerk_wake_finished(delivery->row->id, delivery->row->key);
	if (loop->silent)
		return;
	loop->announced = true;
	initStringInfo(&text);
	appendStringInfo(&text, "{\"request\":" INT64_FORMAT ",\"key\":", delivery->row->id);
	append_string(&text, delivery->row->key);
	appendStringInfo(&text, ",\"state\":\"%s\",\"connection\":", clerk_state_name(outcome->state));
	append_string(&text, id);
	appendStringInfoChar(&text, '}');
	Async_Notify("pg_clerk", text.data);
}

/*
 * Which claims still hold?  What somebody has changed just now is looked at
 * once more.
 */
static void
read_written(Batch *batch)
{
	bool		again = false;

	for (int i = 0; i < batch->count; i++)
		batch->deliveries[i]->lost = true;
	for (uint64 n = 0; n < SPI_processed; n++)
	{
		bool		isnull;
		int64		id = DatumGetInt64(clerk_row_datum(n, 1, &isnull));

		for (int i = 0; i < batch->count; i++)
		{
			/* They come in the order in which they were given, mostly. */
			Delivery   *delivery = batch->deliveries[(i + n) % batch->count];

			if (delivery->row->id == id)
			{
				delivery->lost = false;
				break;
			}
		}
	}
	for (int i = 0; i < batch->count; i++)
		again |= batch->deliveries[i]->lost && batch->deliveries[i]->tries == 0;
	if (again)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a request was changed by another process")));
}

static void
write_batch(Loop *loop, void *arg)
{
	Batch	   *batch = arg;
	Datum		values[13];

	/* The server may be dropped or renamed just now. */
	if (!clerk_try_hold_server(batch->server->oid))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the server is locked")));
	lock_tracked(batch);
	if (batch->count == 0)
		return;
	values[0] = Int32GetDatum(loop->claimer);
	outcome_arrays(batch, &values[1]);
	SPI_connect();
	clerk_run(&write_statement, values, NULL, false);
	read_written(batch);
	if (SPI_processed > 0)
	{
		bool		isnull;

		batch->server->waits |= DatumGetInt64(clerk_row_datum(0, 2, &isnull)) > 0;
	}
	SPI_finish();
	track(batch);
	for (int i = 0; i < batch->count; i++)
		if (!batch->deliveries[i]->lost)
			announce(loop, batch->deliveries[i]);
}

/*
 * Put off what somebody has locked.
 */
static void
put_off_locked(Loop *loop, void *arg)
{
	Batch	   *batch = arg;
	int64	   *ids = palloc(sizeof(int64) * batch->count);
	Datum		value;
	int			left = 0;

	for (int i = 0; i < batch->count; i++)
		ids[i] = batch->deliveries[i]->row->id;
	value = clerk_ids_datum(ids, batch->count);
	SPI_connect();
	clerk_run(&locked_statement, &value, NULL, false);
	for (int i = 0; i < batch->count; i++)
	{
		bool		locked = false;

		for (uint64 n = 0; n < SPI_processed; n++)
		{
			bool		isnull;

			locked |= DatumGetInt64(clerk_row_datum(n, 1, &isnull)) == batch->deliveries[i]->row->id;
		}
		if (locked)
			put_off(batch->deliveries[i]);
		else
			keep(batch, left++, i);
	}
	batch->count = left;
	SPI_finish();
}

static void
set_written(const Batch *batch)
{
	for (int i = 0; i < batch->count; i++)
		batch->deliveries[i]->state = DELIVERY_WRITTEN;
}

/*
 * Write one outcome, or, if that cannot be done, that the request has failed for
 * this reason; what Clerk has done stays to be mirrored, but the id of what it
 * has made is kept, so that a retry does not make it again.  If not even that
 * can be written, it is tried again, less and less often: the request is not
 * anybody else's as long as this process is there.
 */
static void
write_alone(Loop *loop, Server *server, Delivery *delivery)
{
	Batch		batch = {.server = server,.deliveries = &delivery,.count = 1};
	ErrorData  *error;
	ClerkOutcome outcome = delivery->outcome;

	MemoryContextSwitchTo(delivery->context);
	error = clerk_outbox_try(loop, write_batch, &batch);
	if (error != NULL && !clerk_outbox_is_transient(error))
	{
		delivery->outcome = (ClerkOutcome) {
			.delay = -1,.step = CLERK_STEP_NONE,.connection_id = outcome.connection_id,.doubt_since = outcome.doubt_since
		};
		clerk_outbox_fail(delivery, error);
		batch.count = 1;
		error = clerk_outbox_try(loop, write_batch, &batch);
		if (error != NULL)
			delivery->outcome = outcome;
	}
	if (error == NULL)
		set_written(&batch);
	else
	{
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			clerk_outbox_log(psprintf("note the outcome of request " INT64_FORMAT, delivery->row->id), error);
		put_off(delivery);
	}
	MemoryContextSwitchTo(loop->context);
}

static void
write_server(Loop *loop, Batch *batch)
{
	Batch		rest = *batch;
	ErrorData  *error = clerk_outbox_try(loop, write_batch, batch);

	if (error == NULL)
	{
		set_written(batch);
		return;
	}
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		/* The array has changed its order; the deliveries are the same. */
		error = clerk_outbox_try(loop, put_off_locked, &rest);
		if (error == NULL && rest.count > 0 && rest.count < batch->count)
		{
			*batch = rest;
			if (clerk_outbox_try(loop, write_batch, batch) == NULL)
			{
				set_written(batch);
				return;
			}
		}
	}
	for (int i = 0; i < rest.count; i++)
		write_alone(loop, rest.server, rest.deliveries[i]);
}

bool
clerk_outbox_has_outcome(const Delivery *delivery, int64 now)
{
	return (delivery->state == DELIVERY_ANSWERED || delivery->state == DELIVERY_JUDGED) && delivery->not_before <= now;
}

static List *
add_if_judged(List *list, Delivery *delivery, const Server *server, int64 now)
{
	if (delivery->server == server && delivery->state == DELIVERY_JUDGED && delivery->not_before <= now)
		list = lappend(list, delivery);
	return list;
}

/*
 * What of a server has an outcome.  Those that were tried before, alone and
 * last: what they wait for may take a while.
 */
static void
write_outcomes_of(Loop *loop, Server *server)
{
	int64		now = clerk_now_ms();
	List	   *judged = NIL;
	Batch		batch = {.server = server};
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
		judged = add_if_judged(judged, dlist_container(Delivery, node, iter.cur), server, now);
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			judged = add_if_judged(judged, lfirst(lc), server, now);
	}
	if (judged == NIL)
		return;
	batch.deliveries = palloc(sizeof(Delivery *) * list_length(judged));
	foreach(lc, judged)
		if (((Delivery *) lfirst(lc))->tries == 0)
			batch.deliveries[batch.count++] = lfirst(lc);
	if (batch.count > 0)
		write_server(loop, &batch);
	foreach(lc, judged)
	{
		Delivery   *delivery = lfirst(lc);

		if (delivery->tries > 0 && delivery->state == DELIVERY_JUDGED && delivery->not_before <= now)
			write_alone(loop, server, delivery);
	}
}

static void
write_outcomes(Loop *loop, void *arg)
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

		if (server->stopped)
			loop->next_claim = clerk_now_ms();
		server->stopped = false;

		/* As it is called now; the rows of one that is gone are gone, too. */
		if (now != NULL)
			strlcpy(server->name, now->servername, NAMEDATALEN);
		write_outcomes_of(loop, server);
		MemoryContextSwitchTo(scratch);
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
go_on(Delivery *delivery)
{
	delivery->row->step = delivery->outcome.step;
	delivery->row->connection_id = MemoryContextStrdup(delivery->context, delivery->outcome.connection_id);
	delivery->row->started_at = GetCurrentTimestamp();
	delivery->outcome = (ClerkOutcome) {.delay = -1,.step = CLERK_STEP_NONE};
	delivery->tries = 0;
	delivery->state = DELIVERY_READY;
	delivery->call = delivery->next_call;
	delivery->next = NULL;
	delivery->server->sending += !delivery->keeps_place;
	delivery->keeps_place = false;
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
}

static void
end_deliveries(Loop *loop)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_WRITTEN)
		{
			/* Somebody has it locked, for who knows how long. */
			if (delivery->keeps_place && delivery->tries > 0)
				clerk_outbox_free_place(loop, delivery);
			continue;
		}
		if (delivery->next != NULL && !delivery->lost && delivery->outcome.state == CLERK_STATE_SENDING)
		{
			go_on(delivery);
			continue;
		}
		if (delivery->keeps_place)
			clerk_outbox_free_place(loop, delivery);
		note_next(loop, delivery);
		dlist_delete(&delivery->node);
		MemoryContextDelete(delivery->context);
	}
}

static void
end_look_ups(Loop *loop)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);
		ListCell   *lc;
		bool		done = look_up->answered;
		bool		rest = look_up->answered;

		foreach(lc, look_up->deliveries)
		{
			const Delivery *delivery = lfirst(lc);

			done &= delivery->state == DELIVERY_WRITTEN;
			rest &= delivery->state == DELIVERY_WRITTEN || delivery->tries > 0;
		}

		/* What is only put off, because somebody has a row locked, is in nobody's way. */
		if (rest && !look_up->over)
		{
			look_up->over = true;
			look_up->server->looking_up = false;
			loop->next_claim = clerk_now_ms();
		}
		if (done)
		{
			dlist_delete(&look_up->node);
			MemoryContextDelete(look_up->context);
		}
	}
}

/*
 * Nothing was committed after all.
 */
static void
unwrite(Loop *loop)
{
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state == DELIVERY_WRITTEN)
			delivery->state = DELIVERY_JUDGED;
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		foreach(lc, dlist_container(LookUp, node, iter.cur)->deliveries)
			if (((Delivery *) lfirst(lc))->state == DELIVERY_WRITTEN)
				((Delivery *) lfirst(lc))->state = DELIVERY_JUDGED;
	}
}

static bool
has_outcomes(Loop *loop)
{
	int64		now = clerk_now_ms();
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
		if (clerk_outbox_has_outcome(dlist_container(Delivery, node, iter.cur), now))
			return true;
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->page_came && look_up->not_before <= now)
			return true;
		foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			if (clerk_outbox_has_outcome(lfirst(lc), now))
				return true;
	}
	return false;
}

/*
 * If the transaction fails after all was written, notifications may be the
 * reason: the next one goes without.
 */
bool
clerk_outbox_commit(Loop *loop)
{
	if (!has_outcomes(loop))
		return false;
	loop->announced = false;
	if (!clerk_outbox_transaction(loop, "note outcomes", write_outcomes))
	{
		unwrite(loop);
		if (loop->announced)
			loop->pause_until = 0;
		loop->silent = loop->announced;
		return false;
	}
	loop->silent = false;
	end_deliveries(loop);
	end_look_ups(loop);
	return true;
}
