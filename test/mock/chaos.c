/*-------------------------------------------------------------------------
 *
 * chaos.c
 *		Rate limiting, and faults at random.
 *
 *-------------------------------------------------------------------------
 */
#include "chaos.h"


#include "settings.h"

static gint64 window_start;		/* 0: no window is open */
static gint64 window_count;
static GRand *draws;

void
chaos_restart(void)
{
	window_start = 0;
	window_count = 0;
	g_clear_pointer(&draws, g_rand_free);
	draws = g_rand_new_with_seed((guint32) settings.chaos.seed);
}

bool
rate_limit_hit(void)
{
	const RateLimit *limit = &settings.rate_limit;
	gint64		now;

	if (!limit->on)
		return false;
	now = g_get_monotonic_time();
	if (window_start == 0 || now - window_start >= limit->window_ms * 1000)
	{
		window_start = now;
		window_count = 0;
	}
	return ++window_count > limit->requests;
}

/* The seconds until the open window ends, at least one. */
static gint64
window_left_s(void)
{
	gint64		left = window_start + settings.rate_limit.window_ms * 1000 - g_get_monotonic_time();

	if (window_start == 0 || left <= 0)
		return 1;
	return (left + G_USEC_PER_SEC - 1) / G_USEC_PER_SEC;
}

void
rate_limit_answer(Answer *answer)
{
	const RateLimit *limit = &settings.rate_limit;
	gint64		seconds = limit->on && limit->retry_after_s > 0 ? limit->retry_after_s : window_left_s();

	answer_error(answer, 429, "too_many_requests",
				 "Too many requests. Please try again in a bit.");
	if (limit->on && limit->as_date)
	{
		g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(g_get_real_time() / G_USEC_PER_SEC + seconds);
		g_autofree char *date = g_date_time_format(when, "%a, %d %b %Y %H:%M:%S GMT");

		g_strlcpy(answer->retry_after, date, sizeof(answer->retry_after));
	}
	else
		g_snprintf(answer->retry_after, sizeof(answer->retry_after), "%" G_GINT64_FORMAT, seconds);
}

void
server_error_answer(Answer *answer)
{
	answer_error(answer, 500, "internal_clerk_error",
				 "There was an internal error on our servers.");
}

ChaosDraw
chaos_draw(void)
{
	const Chaos *c = &settings.chaos;
	ChaosDraw	draw = {0};
	double		u;

	if (!c->on)
		return draw;
	u = g_rand_double(draws);
	if ((u -= c->p_500) < 0)
		draw.outcome = CHAOS_500;
	else if ((u -= c->p_429) < 0)
		draw.outcome = CHAOS_429;
	else if ((u -= c->p_reset_before) < 0)
		draw.outcome = CHAOS_RESET_BEFORE;
	else if (u < c->p_reset_after)
		draw.outcome = CHAOS_RESET_AFTER;
	/* Both are drawn always, so that one option does not shift the other. */
	if (g_rand_double(draws) < c->p_slow)
		draw.slow_ms = c->slow_ms;
	if (g_rand_double(draws) < c->p_slow_after)
		draw.slow_after_ms = c->slow_after_ms;
	return draw;
}
