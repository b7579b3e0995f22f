/*-------------------------------------------------------------------------
 *
 * chaos.c
 *		Rate limiting, and faults at random.
 *
 *-------------------------------------------------------------------------
 */
#include "chaos.h"

#include <stdio.h>

#include "clock.h"
#include "settings.h"

static int64_t window_start;	/* 0: no window is open */
static long window_count;
static uint64_t random_state;

void
chaos_restart(void)
{
	window_start = 0;
	window_count = 0;
	random_state = settings.chaos.seed;
}

bool
rate_limit_hit(void)
{
	const RateLimit *limit = &settings.rate_limit;
	int64_t		now;

	if (!limit->on)
		return false;
	now = clock_mono_ns();
	if (window_start == 0 || now - window_start >= limit->window_ms * 1000000)
	{
		window_start = now;
		window_count = 0;
	}
	return ++window_count > limit->requests;
}

/* The seconds until the open window ends, at least one. */
static long
window_left_s(void)
{
	int64_t		left = window_start + settings.rate_limit.window_ms * 1000000 - clock_mono_ns();

	if (window_start == 0 || left <= 0)
		return 1;
	return (long) ((left + 999999999) / 1000000000);
}

void
rate_limit_answer(Answer *answer)
{
	const RateLimit *limit = &settings.rate_limit;
	long		seconds = limit->on && limit->retry_after_s > 0 ? limit->retry_after_s : window_left_s();

	answer_error(answer, 429, "too_many_requests", NULL,
				 "Too many requests. Please try again in a bit.");
	if (limit->on && limit->as_date)
	{
		time_t		when = time(NULL) + seconds;
		struct tm	tm;

		gmtime_r(&when, &tm);
		strftime(answer->retry_after, sizeof(answer->retry_after),
				 "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	else
		snprintf(answer->retry_after, sizeof(answer->retry_after), "%ld", seconds);
}

void
server_error_answer(Answer *answer)
{
	answer_error(answer, 500, "internal_clerk_error", NULL,
				 "There was an internal error on our servers.");
}

/* splitmix64, scaled to [0, 1) */
static double
random_unit(void)
{
	uint64_t	z = (random_state += 0x9E3779B97F4A7C15u);

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	z ^= z >> 31;
	return (double) (z >> 11) / 9007199254740992.0;
}

ChaosDraw
chaos_draw(void)
{
	const Chaos *c = &settings.chaos;
	ChaosDraw	draw = {0};
	double		u;

	if (!c->on)
		return draw;
	u = random_unit();
	if ((u -= c->p_500) < 0)
		draw.outcome = CHAOS_500;
	else if ((u -= c->p_429) < 0)
		draw.outcome = CHAOS_429;
	else if ((u -= c->p_reset_before) < 0)
		draw.outcome = CHAOS_RESET_BEFORE;
	else if ((u -= c->p_reset_after) < 0)
		draw.outcome = CHAOS_RESET_AFTER;
	/* Both are drawn always, so that one option does not shift the other. */
	if (random_unit() < c->p_slow)
		draw.slow_ms = c->slow_ms;
	if (random_unit() < c->p_slow_after)
		draw.slow_after_ms = c->slow_after_ms;
	return draw;
}
