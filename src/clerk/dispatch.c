/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *		Calls in, results out: the only sender.
 *
 * A place frees as soon as its call is done, and is filled at once: no call
 * waits for a slower one.  An answer 429 stops all calls of the same server
 * until it says to go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "clerk/dispatch.h"
#include "clerk/log.h"
#include "clerk/pace.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

/* The first pause before a retry, in ms; doubled each time, half of it random. */
#define RETRY_PAUSE 200

/* Where this process had no socket for a request, it is tried again after this time (ms). */
#define SHORTAGE_RETRY 100

/* A call on its way: waiting for its next attempt, or sent. */
typedef struct Attempt
{
	dlist_node	node;
	ClerkCall  *call;
	MemoryContext context;		/* of request and outcome; reset for each try */
	int64		give_up;		/* ms; no retry of a 429 after this */
	int64		deadline;		/* ms; of this try */
	int64		not_before;		/* ms; of a retry */
	int64		short_until;	/* ms; until when it waits for a socket; 0:
								 * does not wait */
	int			tries;
} Attempt;

typedef struct Run
{
	const ClerkDispatch *dispatch;
	ClerkHttpSet *set;
	MemoryContext context;		/* of the run */
	MemoryContext caller;		/* of next and done */
	dlist_head	waiting;
	dlist_head	sent;
	int			busy;			/* attempts in both lists */
	bool		exhausted;		/* next had nothing, and nothing was done
								 * since */
} Run;

/*-------------------------------------------------------------------------
 * One by one
 *-------------------------------------------------------------------------
 */

static void
count_sent(const ClerkCall *call)
{
	ClerkStatistics *statistics = call->settings->statistics;

	clerk_count(statistics, clerk_api_counter(call->endpoint), 1);
	if (call->retry)
		clerk_count(statistics, CLERK_COUNT_RETRIES, 1);
}

static void
count_finished(const ClerkCall *call)
{
	ClerkStatistics *statistics = call->settings->statistics;
	const ClerkHttpRequest *request = call->request;

	if (request->outcome == CLERK_HTTP_ANSWERED)
		clerk_count_answer(statistics, request->status, request->elapsed);
	else if (request->outcome == CLERK_HTTP_SHORTAGE)
		clerk_count(statistics, CLERK_COUNT_SHORTAGES, 1);
	else
		clerk_count(statistics, CLERK_COUNT_NETWORK_FAILURES, 1);
	clerk_pace_note_answer(call->settings, request->status);
	clerk_log_duration(call);
}

void
clerk_call_send(ClerkHttpSet *set, ClerkCall *call)
{
	call->request->caller = call;
	count_sent(call);
	clerk_pace_count(call->settings);
	clerk_http_send(set, call->request);
}

ClerkCall *
clerk_call_next(ClerkHttpSet *set, int64 until, bool *woken)
{
	ClerkHttpRequest *request;
	bool		latch_set;

	while ((request = clerk_http_next(set, until, &latch_set)) == NULL && latch_set)
	{
		/* Reset it first: an interrupt that comes later sets it again. */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (woken != NULL)
		{
			*woken = true;
			break;
		}
	}
	if (request == NULL)
		return NULL;
	count_finished(request->caller);
	return request->caller;
}

/*-------------------------------------------------------------------------
 * Attempts
 *-------------------------------------------------------------------------
 */

static void
new_attempt(Run *run, ClerkCall *call)
{
	Attempt    *attempt = MemoryContextAllocZero(run->context, sizeof(*attempt));

	attempt->call = call;
	call->attempt = attempt;
	attempt->context = AllocSetContextCreate(run->context, "pg_clerk call", ALLOCSET_SMALL_SIZES);
	dlist_push_tail(&run->waiting, &attempt->node);
	run->busy++;
}

static void
send_attempt(Run *run, Attempt *attempt)
{
	ClerkCall  *call = attempt->call;
	int64		now = clerk_now_ms();

	MemoryContextReset(attempt->context);
	MemoryContextSwitchTo(attempt->context);

	/*
	 * One call alone ends in time with all its retries.  Among many, the wait
	 * for a place or for done() must not eat up a retry's time.
	 */
	if (attempt->give_up == 0)
		attempt->give_up = attempt->deadline = now + call->settings->timeout;
	if (run->dispatch->concurrency > 1)
		attempt->deadline = now + call->settings->timeout;
	call->retry = attempt->tries++ > 0;
	clerk_call_build(call);
	call->request->timeout = (int) Max(attempt->deadline - now, 1);
	dlist_delete(&attempt->node);
	dlist_push_tail(&run->sent, &attempt->node);
	clerk_call_send(run->set, call);
	MemoryContextSwitchTo(run->context);
}

/*
 * Hand the call back.
 */
static void
end_attempt(Run *run, Attempt *attempt)
{
	dlist_delete(&attempt->node);
	run->exhausted = false;
	if (run->dispatch->done == NULL)
		MemoryContextSetParent(attempt->context, run->caller);
	else
	{
		MemoryContextSwitchTo(run->caller);
		run->dispatch->done(attempt->call, run->dispatch->arg);
		MemoryContextDelete(attempt->context);
	}
	MemoryContextSwitchTo(run->context);
	pfree(attempt);
}

/*
 * Clerk may have asked this process to wait for longer than a call may take.
 */
static bool
is_held_back(Run *run, Attempt *attempt)
{
	const ClerkSettings *settings = attempt->call->settings;
	int64		wait = clerk_pace_paused_until(settings) - clerk_now_ms();

	if (attempt->give_up != 0 || wait <= settings->timeout)
		return false;
	MemoryContextSwitchTo(attempt->context);
	clerk_call_held_back(attempt->call, wait);
	run->busy--;
	end_attempt(run, attempt);
	return true;
}

/*
 * When may it be sent?
 */
static int64
due(const Attempt *attempt)
{
	return Max(attempt->not_before, clerk_pace_next(attempt->call->settings));
}

/*
 * The attempt to send next: one that has waited and is due, else a new call.
 * The call first, then its pace: when all is done, nothing waits for a pace
 * that nobody needs.
 */
static Attempt *
next_attempt(Run *run)
{
	for (;;)
	{
		int64		now = clerk_now_ms();
		ClerkCall  *call;
		dlist_mutable_iter iter;

		dlist_foreach_modify(iter, &run->waiting)
		{
			Attempt    *attempt = dlist_container(Attempt, node, iter.cur);

			if (!is_held_back(run, attempt) && due(attempt) <= now)
				return attempt;
		}
		if (run->exhausted || run->busy >= run->dispatch->concurrency)
			return NULL;
		MemoryContextSwitchTo(run->caller);
		call = run->dispatch->next(run->dispatch->arg);
		MemoryContextSwitchTo(run->context);
		run->exhausted = call == NULL;
		if (call != NULL)
			new_attempt(run, call);
	}
}

/*
 * There was no socket for it: it waits its turn, as others free theirs.  That
 * is no try.
 */
static bool
wait_for_socket(Run *run, Attempt *attempt)
{
	const ClerkSettings *settings = attempt->call->settings;
	int64		now = clerk_now_ms();

	attempt->tries--;
	if (attempt->short_until == 0)
		attempt->short_until = run->dispatch->concurrency > 1 ? now + settings->timeout : attempt->deadline;
	attempt->not_before = now + SHORTAGE_RETRY;
	return attempt->not_before < attempt->short_until;
}

/*
 * Is the failure one that may be tried again at once, and is there the time?
 */
static bool
retry(Run *run, Attempt *attempt)
{
	const ClerkSettings *settings = attempt->call->settings;
	const ClerkReport *report = attempt->call->report;
	bool		limited = report != NULL && report->status == 429;

	if (report != NULL && report->retry == CLERK_RETRY_SHORTAGE)
		return wait_for_socket(run, attempt);
	attempt->short_until = 0;
	if (report == NULL || report->retry != CLERK_RETRY_AT_ONCE)
		return false;

	/* One call alone counts its 429s; among many, each may meet several. */
	if (attempt->tries > settings->max_retries &&
		(!limited || run->dispatch->concurrency == 1))
		return false;

	if (limited)
		attempt->not_before = clerk_pace_after_limit(report->retry_after);
	else
	{
		int64		pause = RETRY_PAUSE << Min(attempt->tries - 1, 6);

		pause = pause / 2 + (int64) (clerk_random() * (double) pause / 2);
		attempt->not_before = clerk_now_ms() + Max(pause, report->retry_after);
	}

	/* Of many, each try has the whole time. */
	if (!limited && run->dispatch->concurrency > 1)
		attempt->deadline = attempt->not_before + settings->timeout;
	if (attempt->not_before >= (limited ? attempt->give_up : attempt->deadline))
		return false;

	/* The other calls would be refused as well until then. */
	if (limited)
		clerk_pace_pause(settings, attempt->not_before);
	return true;
}

/*
 * A call is finished: read its answer, and retry or hand the call back.
 */
static void
finish_attempt(Run *run, Attempt *attempt)
{
	MemoryContextSwitchTo(attempt->context);
	clerk_call_read(attempt->call);
	MemoryContextSwitchTo(run->context);
	if (retry(run, attempt))
	{
		run->busy++;
		dlist_delete(&attempt->node);
		dlist_push_tail(&run->waiting, &attempt->node);
	}
	else
		end_attempt(run, attempt);
}

/*
 * Is there a socket for another one?  If nothing is under way, only trying
 * shows.
 */
static bool
has_room(const Run *run)
{
	return clerk_http_room() > 0 || clerk_http_pending(run->set) == 0;
}

/*
 * When can the first of the waiting attempts go?  -1 if none waits, or if an
 * answer has to free a place before.
 */
static int64
next_wake(const Run *run)
{
	int64		first = -1;
	dlist_iter	iter;

	if (clerk_http_pending(run->set) >= run->dispatch->concurrency)
		return -1;
	if (!has_room(run))
		return clerk_now_ms() + SHORTAGE_RETRY;

	dlist_foreach(iter, (dlist_head *) &run->waiting)
	{
		int64		time = due(dlist_container(Attempt, node, iter.cur));

		if (first < 0 || time < first)
			first = time;
	}
	return first;
}

/*
 * Say of an ERROR, such as a cancel, which creations it left behind.
 */
static void
creations_context(void *arg)
{
	Run		   *run = arg;
	int			creations = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &run->sent)
	{
		Attempt    *attempt = dlist_container(Attempt, node, iter.cur);

		if (attempt->call->request != NULL && attempt->call->request->started &&
			clerk_api_creates(attempt->call->endpoint))
			creations++;
	}
	if (creations == 1)
		errcontext("creation of an enterprise connection, which had been sent: the connection may exist at Clerk");
	else if (creations > 1)
		errcontext("creation of %d enterprise connections, which had been sent: they may exist at Clerk", creations);
}

static void
fill_places(Run *run)
{
	Attempt    *attempt;

	while (clerk_http_pending(run->set) < run->dispatch->concurrency && has_room(run) &&
		   (attempt = next_attempt(run)) != NULL)
		send_attempt(run, attempt);
}

static void
run_calls(Run *run)
{
	for (;;)
	{
		ClerkCall  *call;
		int64		wake;

		fill_places(run);
		wake = next_wake(run);
		if (wake < 0 && clerk_http_pending(run->set) == 0)
			return;
		call = clerk_call_next(run->set, wake, NULL);
		if (call != NULL)
		{
			/* The next one goes out before this answer is read. */
			run->busy--;
			fill_places(run);
			clerk_http_push();
			finish_attempt(run, call->attempt);
		}
	}
}

void
clerk_dispatch(const ClerkDispatch *dispatch)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk dispatch",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Run			run = {
		.dispatch = dispatch,
		.context = context,
		.caller = old,
	};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = creations_context,
		.arg = &run,
	};

	dlist_init(&run.waiting);
	dlist_init(&run.sent);
	run.set = clerk_http_begin(dispatch->concurrency);
	error_context_stack = &callback;
	run_calls(&run);
	error_context_stack = callback.previous;
	clerk_http_end(run.set);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*-------------------------------------------------------------------------
 * One call
 *-------------------------------------------------------------------------
 */

static ClerkCall *
take_call(void *arg)
{
	ClerkCall **next = arg;
	ClerkCall  *call = *next;

	*next = NULL;
	return call;
}

void
clerk_dispatch_one(ClerkCall *call)
{
	ClerkDispatch dispatch = {
		.next = take_call,
		.arg = &call,
		.concurrency = 1,
	};

	clerk_dispatch(&dispatch);
}
