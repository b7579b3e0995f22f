/*-------------------------------------------------------------------------
 *
 * loop.c
 *		Delivering what is in the outbox.
 *
 * One loop: claim what is due and commit; send it; take the answers as they
 * come; claim for the places that they free and send; then commit what the
 * answers mean.  Between the transactions nothing is held: no snapshot, no
 * lock, no xid.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/progress.h"
#include "base/wake.h"
#include "calls/connection.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Connections of this process in all, to whatever server. */
#define MAX_CONNECTIONS 500

/* A worker that is asked to leave waits up to this time (ms) for what is under way. */
#define LEAVE_TIME 400

PG_FUNCTION_INFO_V1(deliver_enterprise_connections);

/*-------------------------------------------------------------------------
 * The loop
 *-------------------------------------------------------------------------
 */

/*
 * By its oid: a server that is renamed is the same, and another one of its name
 * is not.
 */
Server *
clerk_outbox_server(Loop *loop, const char *name)
{
	Oid			oid = get_foreign_server_oid(name, true);
	MemoryContext old;
	Server	   *server;
	ListCell   *lc;

	foreach(lc, loop->servers)
	{
		server = lfirst(lc);
		if (server->oid == oid)
		{
			strlcpy(server->name, name, NAMEDATALEN);
			return server;
		}
	}
	old = MemoryContextSwitchTo(loop->context);
	server = palloc0(sizeof(*server));
	server->oid = oid;
	strlcpy(server->name, name, NAMEDATALEN);
	loop->servers = lappend(loop->servers, server);
	MemoryContextSwitchTo(old);
	return server;
}

bool
clerk_outbox_nothing_under_way(const Loop *loop)
{
	return dlist_is_empty((dlist_head *) &loop->deliveries);
}

/*
 * Is it a create that goes on with a PATCH?
 */
bool
clerk_outbox_completes(const Delivery *delivery)
{
	return delivery->row.step == CLERK_STEP_CREATE && delivery->params != NULL && delivery->params->patch != NULL;
}

/*
 * How many deliveries of a server have a place, which is a socket?  A create
 * keeps its place for the PATCH that completes it: unless its outcome could not
 * be written, because somebody has it locked, for who knows how long.
 */
int
clerk_outbox_sending(const Loop *loop, const Server *server)
{
	int			count = 0;
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &loop->deliveries)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->server != server)
			continue;
		count += delivery->state == DELIVERY_READY || delivery->state == DELIVERY_SENT ||
			((delivery->state == DELIVERY_ANSWERED || delivery->state == DELIVERY_JUDGED) &&
			 delivery->tries == 0 && clerk_outbox_completes(delivery));
	}
	return count;
}

static void
send_all(Loop *loop)
{
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_READY)
			continue;
		MemoryContextSwitchTo(delivery->context);
		delivery->state = DELIVERY_SENT;
		clerk_call_send(loop->set, &delivery->call);
		MemoryContextSwitchTo(loop->context);
	}
	foreach(lc, loop->servers)
	{
		LookUp	   *look_up = ((Server *) lfirst(lc))->look_up;

		if (look_up != NULL && !look_up->answered && !look_up->sent)
			clerk_outbox_send_look_up(loop, look_up);
	}
	clerk_http_push();
}

/*
 * One more may be sent to the server.
 */
void
clerk_outbox_place_is_free(Loop *loop, const Server *server)
{
	if ((server->backlog || loop->crowded) && !server->stopped)
		loop->next_claim = clerk_now_ms();
}

/*
 * Note which delivery or look-up the answer is for.
 */
static void
note_answer(Loop *loop, ClerkCall *call)
{
	Delivery   *delivery = call->caller;

	loop->look_again = true;
	if (call->endpoint == CLERK_LIST)
	{
		((LookUp *) call->caller)->page_came = true;
		return;
	}
	delivery->state = DELIVERY_ANSWERED;

	/*
	 * It may concern all others of the server, so it is judged before one is
	 * sent.
	 */
	if (call->request->status == 401 || call->request->status == 429)
		delivery->server->stopped = true;
	if (!clerk_outbox_completes(delivery))
		clerk_outbox_place_is_free(loop, delivery->server);
}

/*
 * Wait until an answer has come, or there is something else to do; then take
 * all the answers that are there, so that they are committed together.
 */
static void
take_answers(Loop *loop, int64 until)
{
	bool		woken = false;
	ClerkCall  *call = clerk_call_next(loop->set, until, &woken);

	for (; call != NULL; call = clerk_call_next(loop->set, 0, &woken))
		note_answer(loop, call);
	loop->woken = woken;
}

/*
 * When is there something to do, if nothing happens before?  After an error
 * not before the pause is over; but a process that is asked to leave does not wait
 * for that.
 */
static int64
next_wake(Loop *loop)
{
	int64		now = clerk_now_ms();
	int64		wake = Min(Min(loop->next_chores, loop->next_claim), loop->next_tend);

	if (loop->swept_lane != NULL || loop->purging)
		wake = Min(wake, clerk_outbox_nothing_under_way(loop) ? now : loop->next_sweep);
	if (loop->leave_at != 0)
		wake = CLERK_NO_TIME;
	wake = Max(Min(wake, clerk_outbox_next_outcome(loop)), Max(now, loop->pause_until));
	return loop->leave_at != 0 ? Min(wake, loop->leave_at) : wake;
}

/*
 * Is there nothing left that a session that delivers by itself should wait
 * for?
 */
static bool
drained(const Loop *loop)
{
	return clerk_outbox_nothing_under_way(loop) && !loop->limited && loop->swept_lane == NULL &&
		loop->next_claim > clerk_now_ms();
}

/*
 * Asked to leave: nothing more is claimed, but what is under way gets a
 * little time, as it would be in doubt otherwise.
 */
static bool
may_leave(Loop *loop)
{
	if (loop->leave_at == 0)
		loop->leave_at = clerk_now_ms() + LEAVE_TIME;
	return clerk_outbox_nothing_under_way(loop) || clerk_now_ms() >= loop->leave_at;
}

/*
 * Has something happened that the loop has not looked at?  Then it must not
 * wait: the latch was set, but a wait for a lock, in one of the
 * transactions, may have reset it.
 */
static bool
is_called(Loop *loop)
{
	return loop->deliverer->called != NULL && clerk_now_ms() >= loop->pause_until &&
		loop->leave_at == 0 && (loop->deliverer->called() || loop->deliverer->leave());
}

/*
 * When is there something to do, if nothing happens before?  The chores are not
 * counted: a process that has left does not come back just for them.
 */
static int64
next_due(const Loop *loop)
{
	if (!clerk_outbox_nothing_under_way(loop) || loop->swept_lane != NULL || loop->purging ||
		loop->next_chores <= clerk_now_ms())
		return 0;
	return loop->next_claim;
}

static void
report_next(Loop *loop)
{
	if (loop->deliverer->idle)
		loop->deliverer->idle(next_due(loop));
}

static void
reload(Loop *loop)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	loop->next_chores = Min(loop->next_chores, clerk_now_ms() + clerk_naptime);
}

static void
run_loop(Loop *loop)
{
	loop->woken = true;
	for (;;)
	{
		bool		called;
		bool		written;

		CHECK_FOR_INTERRUPTS();
		reload(loop);
		if (loop->deliverer->leave == NULL || !loop->deliverer->leave())
			loop->leave_at = 0;
		else if (may_leave(loop))
		{
			report_next(loop);
			break;
		}
		loop->next_tend = CLERK_NO_TIME;
		if (loop->leave_at == 0)
		{
			if (loop->deliverer->tend != NULL)
				loop->next_tend = loop->deliverer->tend();
			clerk_outbox_chores(loop);
			if (loop->woken || loop->next_claim <= clerk_now_ms())
				clerk_outbox_claim(loop);
			loop->woken = false;
		}
		send_all(loop);

		written = clerk_outbox_commit(loop);
		if (!written && !loop->deliverer->forever && drained(loop))
		{
			if (!loop->look_again)
				break;

			/* What was committed meanwhile, or is nobody's any more. */
			loop->next_claim = clerk_now_ms();
			continue;
		}
		called = is_called(loop);
		if (!called && !written)
			report_next(loop);

		/*
		 * Look for answers even if there is something else to do, or they
		 * would never be seen.
		 */
		take_answers(loop, called || written ? 0 : next_wake(loop));
		loop->woken |= called;
	}
}

/*
 * Take a number that nobody else has, locked as long as this process delivers.
 */
static void
begin_claiming(Loop *loop)
{
	int			claimer;

	loop->set = clerk_http_begin(MAX_CONNECTIONS);
	clerk_outbox_begin(loop);
	do
		claimer = 1 + (int) (clerk_random() * (PG_INT32_MAX - 1));
	while (!clerk_try_lock(CLERK_LOCK_CLAIMER, claimer));
	loop->claimer = claimer;
	clerk_outbox_end(loop);
	MemoryContextSwitchTo(loop->context);
}

void
clerk_deliver(const ClerkDeliverer *deliverer)
{
	MemoryContext old = CurrentMemoryContext;
	Loop	   *volatile loop;
	MemoryContext volatile context = AllocSetContextCreate(TopMemoryContext, "pg_clerk deliver",
														   ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	loop = palloc0(sizeof(Loop));
	loop->context = context;
	loop->deliverer = deliverer;
	loop->clock_ahead = CLERK_NO_TIME;
	dlist_init(&loop->deliveries);

	PG_TRY();
	{
		begin_claiming(loop);
		run_loop(loop);
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(old);
		if (loop->claimer != 0)
			clerk_unlock_claimer(loop->claimer);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

/*-------------------------------------------------------------------------
 * In a session
 *-------------------------------------------------------------------------
 */

static void
procedure_begin(void)
{
	/*
	 * What the session has for default would fail where another process
	 * delivers beside this one.  Only the caller's own transaction, the first
	 * one, which looks at nothing, has a snapshot already.
	 */
	if (!FirstSnapshotSet)
		XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
procedure_commit(void)
{
	PopActiveSnapshot();
	SPI_commit();
}

/*
 * deliver_enterprise_connections()
 */
Datum
deliver_enterprise_connections(PG_FUNCTION_ARGS)
{
	ClerkDeliverer deliverer = {
		.begin = procedure_begin,
		.commit = procedure_commit,
	};
	bool		atomic = fcinfo->context && IsA(fcinfo->context, CallContext) ?
	castNode(CallContext, fcinfo->context)->atomic : true;

	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("cannot deliver in a transaction block"),
				 errhint("CALL deliver_enterprise_connections() commits as it goes: call it outside of transaction blocks and functions.")));
	clerk_prevent_write("deliver_enterprise_connections()");
	if (!superuser())
		deliverer.role = GetUserId();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	clerk_outbox_note_begin();
	clerk_deliver(&deliverer);
	clerk_progress_end();

	/* What is left, to be tried again or of other roles, is the worker's. */
	clerk_wake_at_commit();
	SPI_finish();
	PG_RETURN_VOID();
}
