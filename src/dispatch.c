/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *		Calls in, results out: concurrency, pace, pauses and retries.
 *
 * A place frees as soon as its call is done, and is filled at once: no call
 * waits for a slower one.  Each server has a pace, kept for the life of the
 * process; an answer 429 stops all of its calls until it says to go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "dispatch.h"
#include "json.h"
#include "lib/ilist.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* The first pause before a retry, in ms; doubled each time, half of it random. */
#define RETRY_PAUSE 200

/* Where Clerk answers 429 without saying how long, in ms. */
#define DEFAULT_RETRY_AFTER 1000

/* Where this process had no socket for a request, it is tried again after so many ms. */
#define SHORTAGE_RETRY 100

/* Where it says 0, in ms: a server that repeats itself must not be hammered. */
#define MIN_RETRY_AFTER 50

/*
 * How fast a server may be asked: a request is let through when due is not
 * more than a second ahead, and moves due on by the interval.  So a second's
 * worth of requests may come at once, and no more than the rate in the long
 * run.
 */
typedef struct Pace
{
	Oid			server;			/* hash key */
	int64		due;			/* us on clerk_http_now()'s clock */
	int64		paused_until;	/* ms, after a 429 */
	int64		version;		/* of the settings; others end the pause */
} Pace;

static HTAB *paces = NULL;

/* A call on its way: waiting for its next attempt, or sent. */
typedef struct Attempt
{
	dlist_node	node;
	ClerkCall  *call;
	ClerkHttpRequest *request;	/* NULL while waiting */
	MemoryContext context;		/* of request and outcome; reset for each try */
	int64		give_up;		/* ms; no retry of a 429 after this */
	int64		deadline;		/* ms; of this try */
	int64		not_before;		/* ms; of a retry */
	int64		short_until;	/* ms; waits for a socket so long; 0: does not wait */
	int			tries;
} Attempt;

typedef struct Run
{
	const ClerkSettings *settings;
	const ClerkDispatch *dispatch;
	ClerkHttpSet *set;
	MemoryContext context;		/* of the run */
	MemoryContext caller;		/* of next and done */
	dlist_head	waiting;
	dlist_head	sent;
	int			busy;			/* attempts in both lists */
	bool		exhausted;		/* next had nothing, and nothing was done since */
} Run;

static Pace *
find_pace(const ClerkSettings *settings)
{
	Pace	   *pace;
	bool		found;

	if (paces == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Pace)};

		paces = hash_create("pg_clerk paces", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	pace = hash_search(paces, &settings->server, HASH_ENTER, &found);
	if (!found)
		pace->due = 0;
	if (!found || pace->version != settings->version)
		pace->paused_until = 0;
	pace->version = settings->version;
	return pace;
}

int64
clerk_pace_next(const ClerkSettings *settings)
{
	Pace	   *pace = find_pace(settings);

	if (settings->rate_limit == 0)
		return pace->paused_until;
	return Max(pace->paused_until, pace->due / 1000 - 1000);
}

int
clerk_pace_allows(const ClerkSettings *settings)
{
	Pace	   *pace = find_pace(settings);
	int64		now = clerk_http_now();
	int64		interval;

	if (now < pace->paused_until)
		return 0;
	if (settings->rate_limit == 0)
		return INT_MAX;
	interval = 1000000 / settings->rate_limit;
	return (int) Max((now * 1000 + 1000000 - Max(pace->due, now * 1000)) / interval, 0);
}

void
clerk_pace_count(const ClerkSettings *settings)
{
	Pace	   *pace = find_pace(settings);

	if (settings->rate_limit > 0)
		pace->due = Max(pace->due, clerk_http_now() * 1000) + 1000000 / settings->rate_limit;
}

void
clerk_pace_pause(const ClerkSettings *settings, int64 until)
{
	Pace	   *pace = find_pace(settings);

	pace->paused_until = Max(pace->paused_until, until);
}

/*-------------------------------------------------------------------------
 * Attempts
 *-------------------------------------------------------------------------
 */

static Attempt *
new_attempt(Run *run, ClerkCall *call)
{
	Attempt    *attempt = MemoryContextAllocZero(run->context, sizeof(*attempt));

	attempt->call = call;
	attempt->context = AllocSetContextCreate(run->context, "pg_clerk call", ALLOCSET_SMALL_SIZES);
	dlist_push_tail(&run->waiting, &attempt->node);
	run->busy++;
	return attempt;
}

static void
send_attempt(Run *run, Attempt *attempt)
{
	int64		now = clerk_http_now();

	MemoryContextReset(attempt->context);
	MemoryContextSwitchTo(attempt->context);

	/*
	 * One call alone ends in time with all its retries.  Among many, the wait
	 * for a place or for done() must not eat up a retry's time.
	 */
	if (attempt->give_up == 0)
		attempt->give_up = attempt->deadline = now + run->settings->timeout;
	if (run->dispatch->concurrency > 1)
		attempt->deadline = now + run->settings->timeout;
	attempt->tries++;
	attempt->request = clerk_api_request(run->settings, attempt->call);
	attempt->request->timeout = (int) Max(attempt->deadline - now, 1);
	attempt->request->caller = attempt;
	dlist_delete(&attempt->node);
	dlist_push_tail(&run->sent, &attempt->node);
	clerk_pace_count(run->settings);
	clerk_http_send(run->set, attempt->request);
	MemoryContextSwitchTo(run->context);
}

/*
 * The attempt to send next: a retry that is due, else a new call.
 */
static Attempt *
next_attempt(Run *run)
{
	dlist_iter	iter;
	int64		now = clerk_http_now();
	ClerkCall  *call;

	dlist_foreach(iter, &run->waiting)
	{
		Attempt    *attempt = dlist_container(Attempt, node, iter.cur);

		if (attempt->not_before <= now)
			return attempt;
	}
	if (run->exhausted || run->busy >= run->dispatch->concurrency)
		return NULL;
	MemoryContextSwitchTo(run->caller);
	call = run->dispatch->next(run->dispatch->arg);
	MemoryContextSwitchTo(run->context);
	if (call == NULL)
	{
		run->exhausted = true;
		return NULL;
	}
	return new_attempt(run, call);
}

/*
 * There was no socket for it: it waits its turn, as others free theirs.  That
 * is no try.
 */
static bool
wait_for_socket(Run *run, Attempt *attempt)
{
	int64		now = clerk_http_now();

	attempt->tries--;
	if (attempt->short_until == 0)
		attempt->short_until = run->dispatch->concurrency > 1 ? now + run->settings->timeout : attempt->deadline;
	attempt->not_before = now + SHORTAGE_RETRY;
	return attempt->not_before < attempt->short_until;
}

/*
 * Is the failure one that may be tried again at once, and is there the time?
 */
static bool
retry(Run *run, Attempt *attempt)
{
	const ClerkReport *report = attempt->call->report;
	bool		limited = report != NULL && report->status == 429;
	int64		pause;

	if (report != NULL && report->retry == CLERK_RETRY_SHORTAGE)
		return wait_for_socket(run, attempt);
	attempt->short_until = 0;
	if (report == NULL || report->retry != CLERK_RETRY_AT_ONCE)
		return false;

	/* One call alone counts its 429s; among many, each may meet several. */
	if (attempt->tries > run->settings->max_retries &&
		(!limited || run->dispatch->concurrency == 1))
		return false;

	if (limited)
		pause = report->retry_after >= 0 ? Max(report->retry_after, MIN_RETRY_AFTER) : DEFAULT_RETRY_AFTER;
	else
	{
		pause = RETRY_PAUSE << Min(attempt->tries - 1, 6);
		pause = pause / 2 + (int64) (clerk_random() * (double) pause / 2);
		pause = Max(pause, report->retry_after);
	}
	attempt->not_before = clerk_http_now() + pause;

	/* Of many, each try has the whole time. */
	if (!limited && run->dispatch->concurrency > 1)
		attempt->deadline = attempt->not_before + run->settings->timeout;
	if (attempt->not_before >= (limited ? attempt->give_up : attempt->deadline))
		return false;

	/* The other calls would be refused as well until then. */
	if (limited)
		clerk_pace_pause(run->settings, attempt->not_before);
	return true;
}

/*
 * Hand the call back.
 */
static void
end_attempt(Run *run, Attempt *attempt)
{
	run->exhausted = false;
	MemoryContextSwitchTo(run->caller);
	run->dispatch->done(attempt->call, run->dispatch->arg);
	MemoryContextSwitchTo(run->context);
	MemoryContextDelete(attempt->context);
	pfree(attempt);
}

/*
 * A request is finished: read its answer, and retry or hand the call back.
 */
static void
finish_attempt(Run *run, ClerkHttpRequest *request)
{
	Attempt    *attempt = request->caller;

	MemoryContextSwitchTo(attempt->context);
	clerk_api_read(run->settings, attempt->call, request);
	clerk_http_release(request);
	attempt->request = NULL;
	dlist_delete(&attempt->node);

	if (retry(run, attempt))
	{
		run->busy++;
		dlist_push_tail(&run->waiting, &attempt->node);
		MemoryContextSwitchTo(run->context);
		return;
	}
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
 * answer has to free a place before.  Never a time that has passed, if nothing
 * can be sent then: nobody would look for answers any more.
 */
static int64
next_wake(const Run *run)
{
	int64		first = -1;
	dlist_iter	iter;

	if (clerk_http_pending(run->set) >= run->dispatch->concurrency)
		return -1;
	if (!has_room(run))
		return clerk_http_now() + SHORTAGE_RETRY;

	dlist_foreach(iter, (dlist_head *) &run->waiting)
	{
		int64		due = dlist_container(Attempt, node, iter.cur)->not_before;

		if (first < 0 || due < first)
			first = due;
	}
	return first < 0 ? -1 : Max(first, clerk_pace_next(run->settings));
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

		if (attempt->request != NULL && attempt->request->started &&
			clerk_api_creates(attempt->call->endpoint))
			creations++;
	}
	if (creations == 1)
		errcontext("creation of an enterprise connection, which had been sent: the connection may exist at Clerk");
	else if (creations > 1)
		errcontext("creation of %d enterprise connections, which had been sent: they may exist at Clerk", creations);
}

/*
 * Clerk may have asked this process to wait for longer than a call may take.
 */
static bool
is_held_back(Run *run, Attempt *attempt)
{
	int64		wait = find_pace(run->settings)->paused_until - clerk_http_now();

	if (attempt->give_up != 0 || wait <= run->settings->timeout)
		return false;
	MemoryContextSwitchTo(attempt->context);
	clerk_api_held_back(run->settings, attempt->call, wait);
	dlist_delete(&attempt->node);
	run->busy--;
	end_attempt(run, attempt);
	return true;
}

/*
 * Fill the free places.  The call first, then its pace: when all is done,
 * nothing waits for a pace that nobody needs.
 */
static void
fill_places(Run *run)
{
	Attempt    *attempt;

	while (clerk_http_pending(run->set) < run->dispatch->concurrency && has_room(run) &&
		   (attempt = next_attempt(run)) != NULL)
	{
		if (is_held_back(run, attempt))
			continue;
		if (clerk_http_now() < clerk_pace_next(run->settings))
			return;
		send_attempt(run, attempt);
	}
}

static void
run_calls(Run *run)
{
	for (;;)
	{
		ClerkHttpRequest *request;
		int64		wake;

		fill_places(run);
		wake = next_wake(run);
		if (clerk_http_pending(run->set) > 0)
		{
			if ((request = clerk_http_next(run->set, wake)) != NULL)
			{
				/* The next one goes out before this answer is read. */
				run->busy--;
				fill_places(run);
				clerk_http_push();
				finish_attempt(run, request);
			}
		}
		else if (wake >= 0)
			clerk_http_pause(wake);
		else
			break;
	}
}

void
clerk_dispatch(const ClerkSettings *settings, const ClerkDispatch *dispatch)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk dispatch",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Run			run = {
		.settings = settings,
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

typedef struct One
{
	ClerkCall  *call;
	bool		taken;
} One;

static ClerkCall *
one_next(void *arg)
{
	One		   *one = arg;

	if (one->taken)
		return NULL;
	one->taken = true;
	return one->call;
}

static char *
copy_string(const char *string)
{
	return string ? pstrdup(string) : NULL;
}

static ClerkPage *
copy_page(const ClerkPage *page)
{
	ClerkPage  *copy;
	ListCell   *lc;

	if (page == NULL)
		return NULL;
	copy = palloc(sizeof(*copy));
	*copy = *page;
	copy->elements = palloc(sizeof(Jsonb *) * Max(page->count, 1));
	for (int i = 0; i < page->count; i++)
		copy->elements[i] = clerk_jsonb_copy(page->elements[i]);
	copy->left_out = NIL;
	foreach(lc, page->left_out)
	{
		ClerkLeftOut *left_out = palloc(sizeof(*left_out));

		*left_out = *(ClerkLeftOut *) lfirst(lc);
		left_out->id = copy_string(left_out->id);
		left_out->fault = copy_string(left_out->fault);
		copy->left_out = lappend(copy->left_out, left_out);
	}
	return copy;
}

static void
one_done(ClerkCall *call, void *arg)
{
	call->result = clerk_jsonb_copy(call->result);
	call->page = copy_page(call->page);
	if (call->report != NULL)
	{
		ClerkReport *copy = palloc(sizeof(*copy));

		*copy = *call->report;
		copy->message = copy_string(copy->message);
		copy->detail = copy_string(copy->detail);
		copy->hint = copy_string(copy->hint);
		copy->code = copy_string(copy->code);
		copy->param_name = copy_string(copy->param_name);
		copy->trace_id = copy_string(copy->trace_id);
		copy->connection_id = copy_string(copy->connection_id);
		copy->errors = clerk_jsonb_copy(copy->errors);
		call->report = copy;
	}
}

void
clerk_dispatch_one(const ClerkSettings *settings, ClerkCall *call)
{
	One			one = {.call = call};
	ClerkDispatch dispatch = {
		.next = one_next,
		.done = one_done,
		.arg = &one,
		.concurrency = 1,
	};

	clerk_dispatch(settings, &dispatch);
}
