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
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "postmaster/interrupt.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* Connections of this process in all, to whatever server. */
#define MAX_CONNECTIONS 500

/*
 * No transaction is begun for so many ms at the most after one that came to
 * nothing.
 */
#define TRANSACTION_PAUSE_LAST (10 * 1000)

/* A worker that is asked to leave waits so many ms for what is under way. */
#define LEAVE_TIME 400

PG_FUNCTION_INFO_V1(deliver_enterprise_connections);

/*-------------------------------------------------------------------------
 * Transactions
 *-------------------------------------------------------------------------
 */

/*
 * Settings of a delivery's transactions, the one place where the planner is told
 * something.
 *
 * Each statement goes by an index, and its plan is made once.  A plan that was
 * made while the outbox was short would read all of it when it is long, until
 * it is analyzed; and a join by a hash table, or a sort, reads all of an index,
 * which is cheap as long as there is nothing in it.
 *
 * Rows are never waited for.  Where PostgreSQL waits by itself (for a row that
 * is updated, for one of a foreign key, or for a unique key that is being
 * inserted), it is not for long: all others wait meanwhile, and a lock that is
 * held while waiting can deadlock.
 */
static const char *const settings[][2] = {
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"enable_seqscan", "off"},
	{"enable_sort", "off"},
	{"jit", "off"},
	{"lock_timeout", "10ms"},
	{"plan_cache_mode", "force_generic_plan"},
	{"search_path", "pg_catalog, pg_temp"},
};

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * What is committed here must be known after a crash, whatever the database's
 * default: a claim that is forgotten would be sent twice.
 *
 * A deferred constraint or trigger of somebody's is checked with the row that
 * it concerns, so that an error concerns that row alone.
 *
 * A foreign key that references our tables is checked as the owner of its own
 * table, and may run code of that role's: a cast, or the expression of an
 * index.  It must not leave anything behind that would run later, with the
 * rights of this process: a deferred trigger, a cursor WITH HOLD.  So the
 * transaction is a security-restricted operation, as for ANALYZE or CREATE
 * INDEX, and what is SET in it is undone.
 */
static void
begin(Loop *loop)
{
	loop->deliverer->begin();
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		set_local("synchronous_commit", "local");
	for (size_t i = 0; i < lengthof(settings); i++)
		set_local(settings[i][0], settings[i][1]);
	AfterTriggerSetState(&(ConstraintsSetStmt) {.type = T_ConstraintsSetStmt, .deferred = false});
	loop->guc_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&loop->user.id, &loop->user.sec_context);
	SetUserIdAndSecContext(loop->user.id, loop->user.sec_context | SECURITY_RESTRICTED_OPERATION);
}

static void
commit(Loop *loop)
{
	clerk_restore_user(&loop->user);
	AtEOXact_GUC(false, loop->guc_level);
	loop->deliverer->commit();
}

int64
clerk_outbox_pause(int tries)
{
	return Min((int64) CLERK_ASIDE_FIRST << Min(tries, 12), CLERK_ASIDE_LAST);
}

bool
clerk_outbox_is_transient(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return true;
	}
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/*
 * May the error end this process or call?  What asks a session to stop does.
 */
static bool
ends_all(const Loop *loop, const ErrorData *error)
{
	return !loop->deliverer->forever &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		 error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN);
}

ErrorData *
clerk_outbox_try(Loop *loop, ClerkWork work, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(loop, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (ends_all(loop, error))
			clerk_rethrow(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

void
clerk_outbox_log(const char *what, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("pg_clerk could not %s: %s", what, error->message)));
}

bool
clerk_outbox_transaction(Loop *loop, const char *what, ClerkWork work)
{
	MemoryContext scratch;
	ErrorData  *volatile error = NULL;
	volatile bool done = false;

	if (clerk_now_ms() < loop->pause_until)
		return false;
	scratch = AllocSetContextCreate(loop->context, "pg_clerk transaction", ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		begin(loop);
		MemoryContextSwitchTo(scratch);
		if (clerk_try_lock_tables())
		{
			error = clerk_outbox_try(loop, work, NULL);
			done = error == NULL;
		}
		if (error != NULL && !loop->deliverer->forever)
			clerk_rethrow(error);
		commit(loop);
	}
	PG_CATCH();
	{
		if (!loop->deliverer->forever)
			PG_RE_THROW();
		MemoryContextSwitchTo(scratch);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(loop->context);

	/* An error that is owed to the extension being dropped just now is none. */
	if (error != NULL && !loop->deliverer->leave())
		clerk_outbox_log(what, error);
	MemoryContextDelete(scratch);
	loop->pause_until = done ? 0 : clerk_now_ms() + Min(clerk_outbox_pause(loop->failures), TRANSACTION_PAUSE_LAST);
	loop->failures = done ? 0 : loop->failures + 1;
	return done;
}

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
	return dlist_is_empty((dlist_head *) &loop->deliveries) && dlist_is_empty((dlist_head *) &loop->look_ups);
}

static void
send_all(Loop *loop)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_READY || !delivery->claimed)
			continue;
		MemoryContextSwitchTo(delivery->context);
		delivery->state = DELIVERY_SENT;
		clerk_call_send(loop->set, &delivery->call);
		MemoryContextSwitchTo(loop->context);
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (!look_up->answered && !look_up->sent && look_up->claimed)
			clerk_outbox_send_look_up(loop, look_up);
	}
	clerk_http_push();
}

/*
 * A delivery does not need its socket any more.
 */
void
clerk_outbox_free_place(Loop *loop, Delivery *delivery)
{
	delivery->keeps_place = false;
	delivery->server->sending--;
	if ((delivery->server->backlog || loop->crowded) && !delivery->server->stopped)
		loop->next_claim = clerk_now_ms();
}

/*
 * Note which delivery or look-up the answer is for.
 */
static void
note_answer(Loop *loop, ClerkCall *call)
{
	Delivery   *delivery;
	dlist_iter	iter;

	loop->look_again = true;
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (&look_up->call == call)
		{
			look_up->page_came = true;
			return;
		}
	}
	delivery = call->caller;
	delivery->state = DELIVERY_ANSWERED;

	/* It may concern all others of the server, so it is judged before one is sent. */
	if (call->request->status == 401 || call->request->status == 429)
		delivery->server->stopped = true;

	/* If it goes on with another request, that takes the same place. */
	if (delivery->row->step == CLERK_STEP_CREATE && delivery->params->patch != NULL)
		delivery->keeps_place = true;
	else
		clerk_outbox_free_place(loop, delivery);
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
	dlist_iter	iter;
	ListCell   *lc;

	if (loop->swept_lane != NULL || loop->purging)
		wake = Min(wake, clerk_outbox_nothing_under_way(loop) ? now : loop->next_sweep);
	wake = loop->leave_at != 0 ? CLERK_NO_TIME : Max(wake, now);
	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (clerk_outbox_has_outcome(delivery, CLERK_NO_TIME))
			wake = Min(wake, Max(delivery->not_before, now));
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->page_came)
			wake = Min(wake, Max(look_up->not_before, now));
		foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			if (clerk_outbox_has_outcome(lfirst(lc), CLERK_NO_TIME))
				wake = Min(wake, Max(((Delivery *) lfirst(lc))->not_before, now));
	}
	wake = Max(wake, loop->pause_until);
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
tell_next(Loop *loop)
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
			tell_next(loop);
			break;
		}
		loop->next_tend = CLERK_NO_TIME;
		if (loop->leave_at == 0)
		{
			if (loop->deliverer->tend != NULL)
				loop->next_tend = loop->deliverer->tend();
			clerk_outbox_chores(loop);
			clerk_outbox_sweep(loop);
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
			tell_next(loop);

		/* If there is always something else to do, answers must be seen all the same. */
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
	begin(loop);
	do
		claimer = 1 + (int) (clerk_random() * (PG_INT32_MAX - 1));
	while (!clerk_try_lock(CLERK_LOCK_CLAIMER, claimer));
	loop->claimer = claimer;
	commit(loop);
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
	dlist_init(&loop->look_ups);

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
