/*-------------------------------------------------------------------------
 *
 * claim.c
 *		Claiming: requests are given to this process, to be sent.
 *
 * A server's queue is claimed from by one process at a time, which holds a lock
 * on it until it commits.  It claims the first unfinished request of a lane, and
 * none if one of the lane is on its way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/locks.h"
#include "base/wake.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/pace.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "outbox/claims.h"
#include "tables/tracking.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Rows that are looked at beyond those that are wanted: they may stand behind others. */
#define LOOK_FURTHER 100
#define LOOK_A_LITTLE 16

/* After a failover there can be many in doubt, for which one listing is enough. */
#define MANY_DOUBTS 1000

/* Those of the rows that nobody has locked. */
static ClerkStatement lock_statement = {
	.text = "SELECT q.id FROM " REQUESTS " q WHERE q.id = ANY ($1) FOR UPDATE SKIP LOCKED",
	.nargs = 1,
	.args = {INT8ARRAYOID},
};

#define RETURNING \
	" RETURNING q.id, q.state, q.step, q.operation, q.key, q.connection_id, q.params, q.attempts, q.created_at," \
	" q.started_at, q.doubt_since, q.http_status, q.error, q.role, q.role_oid, q.origin"

/* Only what is still as it was looked at: its process may have written an outcome, and gone. */
static ClerkStatement claim_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'sending', step = o.step::%1$s.enterprise_connection_step,"
	" connection_id = o.connection_id, attempts = q.attempts + 1, started_at = clock_timestamp(),"
	" next_attempt_at = clock_timestamp() + make_interval(secs => $4), claimer = $5, http_status = NULL"
	" FROM unnest($1, $2, $3, $6) AS o (id, step, connection_id, claimer)" PLACE("o.id")
	" WHERE q.ctid = t.place AND q.state IN ('queued', 'sending') AND coalesce(q.claimer, 0) = o.claimer" RETURNING,
	.nargs = 6,
	.args = {INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, FLOAT8OID, INT4OID, INT4ARRAYOID},
};

static ClerkStatement claim_doubts_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'in_doubt', step = 'create', attempts = q.attempts + 1,"
	" doubt_since = coalesce(q.doubt_since, q.started_at, q.created_at),"
	" next_attempt_at = clock_timestamp() + make_interval(secs => $2), claimer = $3"
	" FROM unnest($1, $4) AS o (id, claimer)" PLACE("o.id")
	" WHERE q.ctid = t.place AND q.state IN ('sending', 'in_doubt') AND coalesce(q.claimer, 0) = o.claimer" RETURNING,
	.nargs = 4,
	.args = {INT8ARRAYOID, FLOAT8OID, INT4OID, INT4ARRAYOID},
};

/* It may have been sent from elsewhere just now: to be looked up at the end of a lease. */
static ClerkStatement doubt_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'in_doubt', step = 'create', doubt_since = coalesce(q.doubt_since, q.created_at),"
	" http_status = NULL, next_attempt_at = clock_timestamp() + make_interval(secs => $2), claimer = NULL,"
	" role_oid = CASE WHEN q.origin = $3 THEN q.role_oid"
	" ELSE coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = q.role), 0::oid) END,"
	" origin = $3, server_oid = $4, timeline = $5 WHERE q.id = ANY ($1) AND q.state = 'queued'",
	.nargs = 5,
	.args = {INT8ARRAYOID, FLOAT8OID, INT8OID, OIDOID, INT4OID},
};

static Datum
claimers_datum(Datum *claimers, int count)
{
	return PointerGetDatum(construct_array(claimers, count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static ClerkRequestRow *
read_row(uint64 n)
{
	ClerkRequestRow *row = palloc0(sizeof(*row));
	Datum		datum;

	row->id = DatumGetInt64(clerk_row_value(n, 1));
	row->state = clerk_state_of(clerk_row_text(n, 2));
	row->step = clerk_step_of(clerk_row_text(n, 3));
	row->operation = clerk_operation_of(clerk_row_text(n, 4));
	row->key = clerk_row_text(n, 5);
	row->connection_id = clerk_row_text(n, 6);
	datum = clerk_row_value(n, 7);
	row->params = datum ? DatumGetJsonbPCopy(datum) : NULL;
	row->attempts = DatumGetInt32(clerk_row_value(n, 8));
	row->created_at = DatumGetTimestampTz(clerk_row_value(n, 9));
	row->started_at = DatumGetTimestampTz(clerk_row_value(n, 10));
	row->doubt_since = DatumGetTimestampTz(clerk_row_value(n, 11));
	row->http_status = DatumGetInt32(clerk_row_value(n, 12));
	datum = clerk_row_value(n, 13);
	row->error = datum ? DatumGetJsonbPCopy(datum) : NULL;
	row->role = clerk_row_text(n, 14);
	row->role_oid = DatumGetInt64(clerk_row_value(n, 16)) == clerk_origin_fingerprint() ?
		DatumGetObjectId(clerk_row_value(n, 15)) : get_role_oid(row->role, true);
	return row;
}

/*
 * A claimed row becomes a delivery, in a context of its own: one of the
 * transaction, until the delivery is in a list of the loop.
 */
static Delivery *
new_delivery(Loop *loop, Server *server, uint64 n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk delivery", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Delivery   *delivery = palloc0(sizeof(*delivery));

	delivery->context = context;
	delivery->server = server;
	delivery->row = read_row(n);
	delivery->state = DELIVERY_READY;
	delivery->outcome.delay = -1;
	delivery->outcome.step = CLERK_STEP_NONE;
	MemoryContextSwitchTo(old);
	return delivery;
}

/*
 * What is there to do?  That depends on whether the connection is known by now;
 * but what has made one goes on with that.
 */
static void
decide_step(const Claim *claim, Due *due)
{
	const ClerkOperationInfo *info = &clerk_operations[due->operation];

	if (due->step == CLERK_STEP_COMPLETE ||
		(due->operation == CLERK_REQUEST_CREATE && due->step == CLERK_STEP_UPDATE))
		return;
	if (due->connection_id == NULL && due->key != NULL)
		due->connection_id = clerk_tracked_id(claim->name, due->key);
	due->step = due->connection_id != NULL ? info->known : info->unknown;
}

/*
 * Run a statement that claims, and make deliveries of its rows.
 */
static List *
claim_rows(Loop *loop, Claim *claim, ClerkStatement *statement, Datum *values)
{
	List	   *deliveries = NIL;
	MemoryContext caller = CurrentMemoryContext;

	SPI_connect();
	clerk_run(statement, values, NULL, false);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		deliveries = lappend(deliveries, new_delivery(loop, claim->server, i));
	SPI_finish();
	claim->taken += list_length(deliveries);
	loop->look_again |= deliveries != NIL;
	return deliveries;
}

/* The chosen by what becomes of them, as arrays. */
typedef struct Sorted
{
	int64	   *ids;
	Datum	   *claimers;		/* as they were looked at */
	const char **steps;
	const char **connections;
	int			count;
} Sorted;

enum
{
	SORTED_SENT,				/* sent */
	SORTED_LOOKED_UP,			/* looked up */
	SORTED_DOUBTFUL,			/* to be looked up when a lease is over */
	SORTED_KINDS
};

static void
sort_chosen(const Claim *claim, List *chosen, Sorted *sorted)
{
	int			count = list_length(chosen) + 1;
	ListCell   *lc;

	for (int kind = 0; kind < SORTED_KINDS; kind++)
	{
		sorted[kind].ids = palloc(sizeof(int64) * count);
		sorted[kind].claimers = palloc(sizeof(Datum) * count);
		sorted[kind].steps = palloc(sizeof(char *) * count);
		sorted[kind].connections = palloc(sizeof(char *) * count);
		sorted[kind].count = 0;
	}
	foreach(lc, chosen)
	{
		Due		   *due = lfirst(lc);
		int			kind = clerk_due_is_doubt(due) ? SORTED_LOOKED_UP : SORTED_SENT;
		Sorted	   *to;

		if (due->id == 0)
			continue;
		if (kind == SORTED_SENT)
			decide_step(claim, due);
		if (kind == SORTED_SENT && due->step == CLERK_STEP_CREATE && due->elsewhere)
			kind = SORTED_DOUBTFUL;
		to = &sorted[kind];
		to->claimers[to->count] = Int32GetDatum(due->claimer);
		to->steps[to->count] = clerk_step_name(due->step);
		to->connections[to->count] = due->connection_id;
		to->ids[to->count++] = due->id;
	}
}

static List *
claim_sent(Loop *loop, Claim *claim, const Sorted *sorted, Datum lease)
{
	Datum		values[] = {clerk_ids_datum(sorted->ids, sorted->count), clerk_texts_datum(sorted->steps, sorted->count),
		clerk_texts_datum(sorted->connections, sorted->count), lease, Int32GetDatum(loop->claimer),
		claimers_datum(sorted->claimers, sorted->count)
	};

	return sorted->count > 0 ? claim_rows(loop, claim, &claim_statement, values) : NIL;
}

static List *
claim_doubts(Loop *loop, Claim *claim, const Sorted *sorted, Datum lease)
{
	Datum		values[] = {clerk_ids_datum(sorted->ids, sorted->count), lease, Int32GetDatum(loop->claimer),
		claimers_datum(sorted->claimers, sorted->count)
	};

	return sorted->count > 0 ? claim_rows(loop, claim, &claim_doubts_statement, values) : NIL;
}

static void
make_doubtful(Claim *claim, const Sorted *sorted, Datum lease)
{
	Datum		values[] = {clerk_ids_datum(sorted->ids, sorted->count), lease, Int64GetDatum(clerk_origin_fingerprint()),
		ObjectIdGetDatum(claim->server->oid), Int32GetDatum((int32) clerk_timeline())
	};

	if (sorted->count == 0)
		return;
	SPI_connect();
	clerk_run(&doubt_statement, values, NULL, false);
	SPI_finish();
	claim->taken += sorted->count;
}

/*
 * What is sent, becomes the loop's.
 */
static void
take_sent(Loop *loop, Server *server, List *sent)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	/* All of them first: if there is an error, they are dropped. */
	foreach(lc, sent)
	{
		MemoryContextSetParent(((Delivery *) lfirst(lc))->context, loop->context);
		dlist_push_tail(&loop->deliveries, &((Delivery *) lfirst(lc))->node);
	}
	server->sending += list_length(sent);
	foreach(lc, sent)
	{
		Delivery   *delivery = lfirst(lc);
		ErrorData  *error;

		MemoryContextSwitchTo(delivery->context);
		error = clerk_outbox_try(loop, clerk_outbox_prepare, delivery);
		if (error != NULL)
			clerk_outbox_judge_error(delivery, error);
		server->sending -= delivery->state != DELIVERY_READY;
		MemoryContextSwitchTo(old);
	}
}

/*
 * Claim what is chosen: one statement for what is sent, one for what is to be
 * looked up, one for what becomes doubtful.
 */
static void
claim_chosen(Loop *loop, Claim *claim, List *chosen)
{
	Datum		lease = Float8GetDatum(claim->limits->timeout / 1000.0);
	Sorted		sorted[SORTED_KINDS];
	List	   *sent;
	List	   *doubts;

	sort_chosen(claim, chosen, sorted);
	sent = claim_sent(loop, claim, &sorted[SORTED_SENT], lease);
	doubts = claim_doubts(loop, claim, &sorted[SORTED_LOOKED_UP], lease);
	make_doubtful(claim, &sorted[SORTED_DOUBTFUL], lease);
	take_sent(loop, claim->server, sent);
	if (doubts != NIL)
		clerk_outbox_take_doubts(loop, claim->server, doubts);
}

/*
 * Leave out for a while what somebody has locked.
 */
static void
leave_out_locked(Loop *loop, List *chosen)
{
	int64	   *ids = palloc(sizeof(int64) * (list_length(chosen) + 1));
	Datum		value;
	int			count = 0;
	ListCell   *lc;

	foreach(lc, chosen)
		ids[count++] = ((Due *) lfirst(lc))->id;
	value = clerk_ids_datum(ids, count);
	SPI_connect();
	clerk_run(&lock_statement, &value, NULL, false);
	foreach(lc, chosen)
	{
		Due		   *due = lfirst(lc);
		bool		locked = true;

		for (uint64 i = 0; i < SPI_processed; i++)
			locked &= DatumGetInt64(clerk_row_value(i, 1)) != due->id;
		if (locked)
			clerk_due_set_aside(loop, due->id);
	}
	SPI_finish();
}

/*
 * Claim from one server, whose queue is locked.
 */
static void
claim_from(Loop *loop, void *arg)
{
	Claim	   *claim = arg;
	Server	   *server = claim->server;
	bool		further = server->many_doubts || server->waits;
	List	   *rows = clerk_due_rows(loop, claim, claim->wanted + (server->many_doubts ? MANY_DOUBTS : further ? LOOK_FURTHER : LOOK_A_LITTLE));
	List	   *lanes;
	List	   *chosen = clerk_due_choose(loop, claim, rows, &lanes);
	bool		both_ends = server->from_newest;

	claim->taken = 0;
	claim->moved = false;

	/* During a look-up, doubts are not looked at. */
	if (!server->looking_up)
		server->many_doubts = list_length(chosen) > claim->wanted + LOOK_A_LITTLE / 2;
	if (claim->only_look)
	{
		leave_out_locked(loop, chosen);
		return;
	}
	clerk_merge_upserts(claim, chosen);
	clerk_overtake_failed(loop, claim, chosen);
	claim_chosen(loop, claim, chosen);
	if (lanes != NIL)
		clerk_due_put_behind(claim, lanes);

	/* What stands behind others hides the rest: look from the other end, too. */
	server->from_newest = lanes != NIL && !server->from_newest;
	server->backlog |= claim->moved;

	/* All that was looked at may stand behind others: look further, at once. */
	if (claim->taken == 0 && !further && server->backlog)
	{
		server->waits = true;
		return;
	}

	/* What is due and could not be claimed, may be free soon. */
	if (rows != NIL && claim->taken == 0 && !claim->moved && (both_ends || lanes == NIL || !server->backlog))
	{
		server->backlog = false;
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_LOOK_AGAIN);
	}
}

/*
 * What was claimed until now stays, if what follows is rolled back.
 */
static void
secure_claims(Loop *loop, bool secured)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
		dlist_container(Delivery, node, iter.cur)->secured = secured;
	dlist_foreach(iter, &loop->look_ups)
		dlist_container(LookUp, node, iter.cur)->secured = secured;
}

/*
 * Forget what was claimed since the last commit and is not secured, of this
 * server or of all.
 */
static void
drop_claims(Loop *loop, const Server *server)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->claimed || delivery->secured || (server != NULL && delivery->server != server))
			continue;
		delivery->server->sending -= delivery->state == DELIVERY_READY;
		dlist_delete(&delivery->node);
		MemoryContextDelete(delivery->context);
	}
	dlist_foreach_modify(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->claimed || look_up->secured || (server != NULL && look_up->server != server))
			continue;
		look_up->server->looking_up = false;
		dlist_delete(&look_up->node);
		MemoryContextDelete(look_up->context);
	}
}

static void
keep_claims(Loop *loop)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
		dlist_container(Delivery, node, iter.cur)->claimed = true;
	dlist_foreach(iter, &loop->look_ups)
		dlist_container(LookUp, node, iter.cur)->claimed = true;
}

/*
 * A claim that has raised an error: what is locked is left out; if that was not
 * the reason, each is claimed alone, and the one that cannot be is left out.
 * Returns the last error, if there was another one than of single requests.
 */
static ErrorData *
claim_carefully(Loop *loop, Claim *claim)
{
	ErrorData  *error;

	drop_claims(loop, claim->server);
	claim->only_look = true;
	error = clerk_outbox_try(loop, claim_from, claim);
	claim->only_look = false;
	if (error != NULL || (error = clerk_outbox_try(loop, claim_from, claim)) == NULL)
		return error;
	drop_claims(loop, claim->server);
	claim->alone = true;
	for (int i = claim->wanted; i > 0; i--)
	{
		claim->first = 0;
		claim->taken = 0;
		secure_claims(loop, true);
		error = clerk_outbox_try(loop, claim_from, claim);
		if (error != NULL)
			drop_claims(loop, claim->server);
		secure_claims(loop, false);
		if (error == NULL && claim->taken == 0)
			break;
		if (error == NULL)
			continue;
		if (claim->first == 0)
			return error;
		clerk_outbox_log(psprintf("claim request " INT64_FORMAT, claim->first), error);
		clerk_due_set_aside(loop, claim->first);
	}
	claim->server->backlog = true;
	return NULL;
}

/*
 * Returns whether the server is to be claimed from now: there is a place, and
 * no other process does.
 */
static bool
may_claim(Loop *loop, Claim *claim)
{
	Server	   *server = claim->server;

	claim->limits = clerk_settings_limits(claim->name);

	/* Without a server, or in a copy of the database, requests are held. */
	if (claim->limits == NULL || claim->limits->origin == CLERK_ORIGIN_ELSEWHERE)
		return false;
	if (clerk_now_ms() < server->claim_not_before)
	{
		loop->next_claim = Min(loop->next_claim, server->claim_not_before);
		return false;
	}
	if (server->stopped || (server->paused && !clerk_outbox_may_probe(loop, server)))
		return false;
	claim->wanted = clerk_due_places(loop, server, claim->limits);
	if (claim->wanted <= 0)
	{
		/* Else an answer makes room. */
		if (clerk_pace_allows(claim->limits) <= 0)
			clerk_due_wait_for_pace(loop, claim->limits);
		server->backlog = true;
		if (server->sending == 0)
		{
			loop->crowded = true;
			loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_LOOK_AGAIN);
		}
		return false;
	}

	/* It is being dropped or renamed just now; or another process claims. */
	if (!clerk_try_hold_server(server->oid) || !clerk_try_lock(CLERK_LOCK_QUEUE, server->oid))
	{
		loop->limited = true;
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_QUEUE_BUSY);
		return false;
	}
	return true;
}

static void
claim_server(Loop *loop, void *arg)
{
	Claim	   *claim = arg;
	Server	   *server = claim->server;
	ErrorData  *error;

	if (!may_claim(loop, claim))
		return;
	error = clerk_outbox_try(loop, claim_from, claim);
	if (error != NULL)
		error = claim_carefully(loop, claim);
	if (error != NULL)
		clerk_rethrow(error);
	if (!server->backlog)
		clerk_due_note_next(loop, claim);
	else if (clerk_pace_allows(claim->limits) <= 0)
		clerk_due_wait_for_pace(loop, claim->limits);
	else if (clerk_due_places(loop, server, claim->limits) > 0)
		loop->next_claim = clerk_now_ms();
	if (server->paused && (server->sending > 0 || server->looking_up))
		clerk_outbox_probed(server);
}

/*
 * An error of one server concerns that one alone.
 */
static void
claim_from_all(Loop *loop, void *arg)
{
	ListCell   *lc;

	foreach(lc, clerk_outbox_server_names())
	{
		Claim		claim = {
			.name = lfirst(lc),
			.server = clerk_outbox_server(loop, lfirst(lc)),
			.moment = GetCurrentTimestamp(),
		};
		ErrorData  *error = clerk_outbox_try(loop, claim_server, &claim);

		if (error == NULL)
			claim.server->failures = 0;
		else if (!loop->deliverer->forever)
			clerk_rethrow(error);
		else
		{
			clerk_outbox_log(psprintf("claim requests of server \"%s\"", claim.name), error);
			drop_claims(loop, claim.server);
			claim.server->claim_not_before = clerk_now_ms() + clerk_outbox_pause(3 + claim.server->failures++);
			loop->next_claim = Min(loop->next_claim, claim.server->claim_not_before);
		}
	}

	/* Should the session be killed, a worker is there to take over what it has claimed. */
	if (!loop->deliverer->forever && !clerk_outbox_nothing_under_way(loop))
		clerk_wake_at_commit();
}

void
clerk_outbox_claim(Loop *loop)
{
	loop->look_again = false;
	loop->limited = false;
	loop->crowded = false;
	loop->next_claim = CLERK_NO_TIME;
	if (clerk_outbox_transaction(loop, "claim requests", claim_from_all))
		keep_claims(loop);
	else
	{
		drop_claims(loop, NULL);
		loop->limited = true;
		loop->next_claim = loop->pause_until;
	}
}
