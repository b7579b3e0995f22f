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

#include "base/clock.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/wake.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/pace.h"
#include "outbox/claims.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Rows that are looked at beyond those that are wanted: they may stand behind others. */
#define LOOK_FURTHER 100
#define LOOK_A_LITTLE 16

/* After a failover there can be many in doubt, for which one listing is enough. */
#define MANY_DOUBTS 1000

static const ClerkColumn claimed_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Due, id),
	CLERK_MEMBER("claimer", CLERK_INT4, Due, claimer),
	CLERK_MEMBER_WORDS("step", clerk_step_words, Due, step),
	CLERK_MEMBER("connection_id", CLERK_TEXT, Due, connection_id),
	CLERK_MEMBERS_END
};

static const ClerkColumn row_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, ClerkRequestRow, id),
	CLERK_MEMBER("role", CLERK_TEXT, ClerkRequestRow, role),
	CLERK_MEMBER("role_oid", CLERK_OID, ClerkRequestRow, role_oid),
	CLERK_MEMBER("origin", CLERK_INT8, ClerkRequestRow, origin),
	CLERK_MEMBER_WORDS("operation", clerk_operation_words, ClerkRequestRow, operation),
	CLERK_MEMBER_WORDS("state", clerk_state_words, ClerkRequestRow, state),
	CLERK_MEMBER_WORDS("step", clerk_step_words, ClerkRequestRow, step),
	CLERK_MEMBER("key", CLERK_TEXT, ClerkRequestRow, key),
	CLERK_MEMBER("connection_id", CLERK_TEXT, ClerkRequestRow, connection_id),
	CLERK_MEMBER("params", CLERK_JSONB, ClerkRequestRow, params),
	CLERK_MEMBER("attempts", CLERK_INT4, ClerkRequestRow, attempts),
	CLERK_MEMBER("started_at", CLERK_TIME, ClerkRequestRow, started_at),
	CLERK_MEMBER("doubt_since", CLERK_TIME, ClerkRequestRow, doubt_since),
	CLERK_MEMBER("http_status", CLERK_INT4, ClerkRequestRow, http_status),
	CLERK_MEMBER("error", CLERK_JSONB, ClerkRequestRow, error),
	CLERK_MEMBERS_END
};

/*
 * $1 is the lease, in s, $2 the claimer.  Only what is still as it was looked
 * at: its process may have written an outcome, and gone.
 */
#define CLAIM "UPDATE " REQUESTS " q SET attempts = q.attempts + 1," \
	" next_attempt_at = clock_timestamp() + make_interval(secs => $1), claimer = $2, "
#define CLAIMED " FROM <rows>" PLACE("o.id") " WHERE q.ctid = t.place AND coalesce(t.claimer, 0) = o.claimer AND "

static ClerkStatement claim_statement = {
	.text = CLAIM "state = 'sending', step = o.step::%1$s.enterprise_connection_step, connection_id = o.connection_id,"
	" started_at = clock_timestamp(), http_status = NULL" CLAIMED "t.state IN ('queued', 'sending') RETURNING <columns>",
	.nargs = 2,
	.args = {FLOAT8OID, INT4OID},
	.given = claimed_columns,
	.returns = row_columns,
};

static ClerkStatement claim_doubts_statement = {
	.text = CLAIM "state = 'in_doubt', step = 'create', doubt_since = coalesce(q.doubt_since, q.started_at, q.created_at)"
	CLAIMED "t.state IN ('sending', 'in_doubt') RETURNING <columns>",
	.nargs = 2,
	.args = {FLOAT8OID, INT4OID},
	.given = claimed_columns,
	.returns = row_columns,
};

/* Another database or timeline may have sent it just now: it is looked up at the end of a lease. */
static ClerkStatement doubt_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'in_doubt', step = 'create', doubt_since = coalesce(q.doubt_since, q.created_at),"
	" http_status = NULL, next_attempt_at = clock_timestamp() + make_interval(secs => $1), claimer = NULL,"
	" role_oid = CASE WHEN q.origin = $2 THEN q.role_oid"
	" ELSE coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = q.role), 0::oid) END,"
	" origin = $2, server_oid = $3, timeline = $4" CLAIMED "t.state = 'queued'",
	.nargs = 4,
	.args = {FLOAT8OID, INT8OID, OIDOID, INT4OID},
	.given = claimed_columns,
};

/*
 * A claimed row becomes a delivery, in a context of its own: one of the
 * transaction, until the claim is the loop's.
 */
static Delivery *
new_delivery(Server *server, const ClerkStatement *statement, uint64 n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk delivery", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Delivery   *delivery = palloc0(sizeof(*delivery));
	ClerkRequestRow *row = &delivery->row;

	delivery->context = context;
	delivery->server = server;
	clerk_read_row(statement, n, row);
	if (row->origin != clerk_origin_fingerprint())
		row->role_oid = get_role_oid(row->role, true);
	delivery->state = row->state == CLERK_STATE_IN_DOUBT ? DELIVERY_LOOKED_UP : DELIVERY_READY;
	delivery->has_secrets = true;
	delivery->outcome = CLERK_NO_OUTCOME;
	MemoryContextSwitchTo(old);
	return delivery;
}

/*
 * What is there to do?  That depends on whether the connection is known by now;
 * but what has made one goes on with that.
 */
static void
decide_step(Due *due)
{
	const ClerkOperationInfo *info = &clerk_operations[due->operation];

	if (due->step != CLERK_STEP_COMPLETE &&
		(due->operation != CLERK_REQUEST_CREATE || due->step != CLERK_STEP_UPDATE))
		due->step = due->connection_id != NULL ? info->known : info->unknown;
}

/*
 * Run a statement that claims, and make deliveries of its rows.
 */
static List *
claim_rows(Loop *loop, const Claim *claim, ClerkStatement *statement, const List *dues)
{
	Datum		values[] = {Float8GetDatum(claim->limits->timeout / 1000.0), Int32GetDatum(loop->claimer)};
	List	   *deliveries = NIL;
	MemoryContext caller = CurrentMemoryContext;

	if (dues == NIL)
		return NIL;
	SPI_connect();
	clerk_run_rows(statement, values, dues);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		deliveries = lappend(deliveries, new_delivery(claim->server, statement, i));
	SPI_finish();
	return deliveries;
}

static void
make_doubtful(const Claim *claim, const List *dues)
{
	Datum		values[] = {Float8GetDatum(claim->limits->timeout / 1000.0), Int64GetDatum(clerk_origin_fingerprint()),
	ObjectIdGetDatum(claim->server->oid), Int32GetDatum((int32) clerk_timeline())};

	if (dues != NIL)
		(void) clerk_execute(&doubt_statement, values, dues);
}

/*
 * Claim what is chosen: one statement for what is sent, one for what is looked
 * up, one for what becomes doubtful.
 */
static void
claim_chosen(Loop *loop, void *arg)
{
	const ClerkItems *items = arg;
	Claim	   *claim = items->arg;
	List	   *chosen = NIL;
	List	   *sent = NIL;
	List	   *doubts = NIL;
	List	   *doubtful = NIL;
	List	   *deliveries;
	ListCell   *lc;

	/* Copies, as what follows changes them, and it may be done again. */
	foreach(lc, items->items)
		chosen = lappend(chosen, memcpy(palloc(sizeof(Due)), lfirst(lc), sizeof(Due)));
	clerk_merge_upserts(claim, chosen);
	clerk_overtake_failed(loop, claim, chosen);
	foreach(lc, chosen)
	{
		Due		   *due = lfirst(lc);

		if (due->id == 0)
			continue;
		if (clerk_due_is_doubt(due))
		{
			doubts = lappend(doubts, due);
			continue;
		}
		decide_step(due);
		if (due->step == CLERK_STEP_CREATE && due->from_other)
			doubtful = lappend(doubtful, due);
		else
			sent = lappend(sent, due);
	}
	deliveries = claim_rows(loop, claim, &claim_statement, sent);
	deliveries = list_concat(deliveries, claim_rows(loop, claim, &claim_doubts_statement, doubts));
	make_doubtful(claim, doubtful);
	claim->sent += list_length(sent);
	claim->deliveries = list_concat(claim->deliveries, deliveries);
	claim->taken += list_length(deliveries) + list_length(doubtful);
}

/*
 * Leave out for a while what cannot be claimed, and claim what comes after it.
 */
static void
leave_out(Loop *loop, void *arg, void *item, const ErrorData *error)
{
	const Due  *due = item;

	if (error != NULL)
		clerk_outbox_log(psprintf("claim request " INT64_FORMAT, due->id), error);
	clerk_due_set_aside(loop, due->id);
	((Claim *) arg)->look_again = true;
}

/*
 * Claim from a server, whose queue is locked.
 */
static void
claim_from(Loop *loop, Claim *claim)
{
	Server	   *server = claim->server;
	bool		further = server->many_doubts || server->waits;
	int			beyond = server->many_doubts ? MANY_DOUBTS : further ? LOOK_FURTHER : LOOK_A_LITTLE;
	bool		both_ends = server->from_newest;
	List	   *rows = clerk_due_rows(loop, claim, claim->wanted + beyond);
	List	   *lanes;
	ClerkItems	chosen = {
		.items = clerk_due_choose(loop, claim, rows, &lanes),
		.arg = claim,
		.work = claim_chosen,
		.id = clerk_due_ids,
		.failed = leave_out,
	};

	/* During a look-up, doubts are not looked at. */
	if (server->look_up == NULL)
		server->many_doubts = list_length(chosen.items) > claim->wanted + LOOK_A_LITTLE / 2;
	clerk_outbox_try_all(loop, &chosen);
	if (lanes != NIL)
		clerk_due_put_behind(claim, lanes);

	/* What stands behind others hides the rest: look from the other end, too. */
	server->from_newest = lanes != NIL && !server->from_newest;
	server->backlog |= claim->look_again;

	/* All that was looked at may stand behind others: look further, at once. */
	if (claim->taken == 0 && !further && server->backlog)
		server->waits = true;

	/* What is due and could not be claimed, may be free soon. */
	else if (rows != NIL && claim->taken == 0 && !claim->look_again && (both_ends || lanes == NIL || !server->backlog))
	{
		server->backlog = false;
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() + CLERK_LOOK_AGAIN);
	}
}

/*
 * Make the requests of what is claimed.
 */
static void
prepare(Loop *loop, const Claim *claim)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	foreach(lc, claim->deliveries)
	{
		Delivery   *delivery = lfirst(lc);
		ErrorData  *error;

		MemoryContextSwitchTo(delivery->context);
		if (delivery->state == DELIVERY_LOOKED_UP)
			clerk_outbox_prepare_doubt(loop, delivery);
		else if ((error = clerk_outbox_try(loop, clerk_outbox_prepare, delivery)) != NULL)
			clerk_outbox_judge_error(delivery, error);
		MemoryContextSwitchTo(old);
	}
}

/*
 * Returns whether the server is to be claimed from now: there is a place, and
 * no other process does.
 */
static bool
may_claim(Loop *loop, Claim *claim)
{
	Server	   *server = claim->server;

	claim->limits = clerk_settings_limits(server->name);

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
	claim->free = clerk_due_places(loop, server, claim->limits);
	claim->wanted = Min(claim->free, clerk_pace_allows(claim->limits));
	if (claim->wanted <= 0)
	{
		/* Else an answer makes room. */
		if (clerk_pace_allows(claim->limits) <= 0)
			clerk_due_wait_for_pace(loop, claim->limits);
		server->backlog = true;
		if (clerk_outbox_sending(loop, server) == 0)
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

	if (!may_claim(loop, claim))
		return;
	claim_from(loop, claim);
	prepare(loop, claim);
	if (!server->backlog)
		clerk_due_note_next(loop, claim);
	else if (claim->sent < claim->free)
		loop->next_claim = clerk_now_ms();
	if (server->paused && claim->deliveries != NIL)
		clerk_outbox_probed(server);
}

/*
 * What was claimed becomes the loop's.
 */
static void
take(Loop *loop, const Claim *claim)
{
	ListCell   *lc;

	foreach(lc, claim->deliveries)
	{
		Delivery   *delivery = lfirst(lc);

		MemoryContextSetParent(delivery->context, loop->context);
		dlist_push_tail(&loop->deliveries, &delivery->node);
		loop->look_again = true;
	}
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
		Server	   *server = clerk_outbox_server(loop, lfirst(lc));
		Claim		claim = {.server = server,.moment = GetCurrentTimestamp()};
		ErrorData  *error = clerk_outbox_try(loop, claim_server, &claim);

		if (error == NULL)
		{
			take(loop, &claim);
			server->failures = 0;
			continue;
		}
		if (!loop->deliverer->forever)
			clerk_rethrow(error);
		clerk_outbox_log(psprintf("claim requests of server \"%s\"", server->name), error);
		server->claim_not_before = clerk_now_ms() + clerk_outbox_pause(3 + server->failures++);
		loop->next_claim = Min(loop->next_claim, server->claim_not_before);
	}

	/*
	 * Should the session be killed, a worker is there to take over what it
	 * has claimed.
	 */
	if (!loop->deliverer->forever && !clerk_outbox_nothing_under_way(loop))
		clerk_wake_at_commit();
}

/*
 * After the transaction: what it has claimed is sent or looked up, or, if it has
 * come to nothing, forgotten.
 */
static void
end_claims(Loop *loop, bool committed)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->claimed)
			continue;
		if (!committed)
		{
			dlist_delete(&delivery->node);
			MemoryContextDelete(delivery->context);
			continue;
		}
		delivery->claimed = true;
		if (delivery->state == DELIVERY_LOOKED_UP)
			clerk_outbox_look_up(loop, delivery);
	}
}

void
clerk_outbox_claim(Loop *loop)
{
	bool		committed;

	loop->look_again = false;
	loop->limited = false;
	loop->crowded = false;
	loop->next_claim = CLERK_NO_TIME;
	committed = clerk_outbox_transaction(loop, "claim requests", claim_from_all);
	end_claims(loop, committed);
	if (!committed)
	{
		loop->limited = true;
		loop->next_claim = loop->pause_until;
	}
}
