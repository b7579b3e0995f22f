/*-------------------------------------------------------------------------
 *
 * pace.c
 *		How fast a server may be asked.
 *
 * The paces are kept for the life of the process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/clock.h"
#include "base/wake.h"
#include "clerk/log.h"
#include "clerk/pace.h"
#include "http/http.h"
#include "utils/hsearch.h"

/* Where Clerk answers 429 without saying how long, in ms. */
#define DEFAULT_RETRY_AFTER 1000

/* No process waits for longer than this, in ms, whatever Clerk says. */
#define MAX_RETRY_AFTER (60 * 60 * 1000)

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
	int64		due;			/* us on clerk_now_ms()'s clock */
	int64		paused_until;	/* ms, after a 429 */
	int64		version;		/* of the settings; others end the pause */
	bool		held_back;		/* the last answers were 429, since which that
								 * is logged */
	int64		waited_since;	/* ms; something waits for the pace; 0:
								 * nothing */
	int64		waited_until;	/* ms; when the pace lets it through */
} Pace;

static HTAB *paces = NULL;

static Pace *
find_pace(const ClerkSettings *settings)
{
	Pace	   *pace;
	bool		found;

	if (paces == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Pace)};

		paces = hash_create("pg_clerk paces", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	pace = hash_search(paces, &settings->server, HASH_ENTER, &found);
	if (!found)
	{
		pace->due = 0;
		pace->held_back = false;
		pace->waited_since = 0;
	}
	if (!found || pace->version != settings->version)
		pace->paused_until = 0;
	pace->version = settings->version;

	/* What another process was told. */
	pace->paused_until = Max(pace->paused_until, clerk_wake_held_until(settings->server, settings->version));
	return pace;
}

/*
 * To ask for this time means to have a request that waits until then.
 */
int64
clerk_pace_next(const ClerkSettings *settings)
{
	Pace	   *pace = find_pace(settings);
	int64		next = pace->paused_until;
	int64		now = clerk_now_ms();

	if (settings->rate_limit > 0)
		next = Max(next, pace->due / 1000 - 1000);
	if (next > now)
	{
		if (pace->waited_since == 0)
			pace->waited_since = now;
		pace->waited_until = next;
	}
	return next;
}

int
clerk_pace_allows(const ClerkSettings *settings)
{
	Pace	   *pace = find_pace(settings);
	int64		now = clerk_now_ms();
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

	if (pace->waited_since != 0)
		clerk_count(settings->statistics, CLERK_COUNT_PACE_TIME,
					(Min(clerk_now_ms(), pace->waited_until) - pace->waited_since) * 1000);
	pace->waited_since = 0;
	if (settings->rate_limit > 0)
		pace->due = Max(pace->due, clerk_now_ms() * 1000) + 1000000 / settings->rate_limit;
}

void
clerk_pace_pause(const ClerkSettings *settings, int64 until)
{
	Pace	   *pace = find_pace(settings);

	if (until > pace->paused_until)
	{
		pace->paused_until = until;
		clerk_wake_hold(settings->server, settings->version, until);
	}
	if (!pace->held_back)
		clerk_log(psprintf("server \"%s\" is held back for " INT64_FORMAT " ms: Clerk answered 429",
						   settings->server_name, pace->paused_until - clerk_now_ms()));
	pace->held_back = true;
}

/*
 * What was sent before Clerk said so may still be let through.
 */
void
clerk_pace_note_answer(const ClerkSettings *settings, int status)
{
	Pace	   *pace = find_pace(settings);

	if (!pace->held_back || status == 0 || status == 429 || clerk_now_ms() < pace->paused_until)
		return;
	pace->held_back = false;
	clerk_log(psprintf("server \"%s\" is not held back any more", settings->server_name));
}

int64
clerk_pace_paused_until(const ClerkSettings *settings)
{
	return find_pace(settings)->paused_until;
}

int64
clerk_pace_after_limit(int64 retry_after)
{
	int64		wait = retry_after >= 0 ? Max(retry_after, MIN_RETRY_AFTER) : DEFAULT_RETRY_AFTER;

	return clerk_now_ms() + Min(wait, MAX_RETRY_AFTER);
}
