/*-------------------------------------------------------------------------
 *
 * timer.c
 *		Requests that wait until they are due.
 *
 * Requests due at the same instant go in the order in which they were added.
 *
 *-------------------------------------------------------------------------
 */
#include "timer.h"

static GSequence *waiting;		/* by due_us; NULL: none ever waited */
static guint64 last_turn;

static int
by_due(const void *a, const void *b, void *data)
{
	const Request *x = a;
	const Request *y = b;

	(void) data;
	if (x->due_us != y->due_us)
		return x->due_us < y->due_us ? -1 : 1;
	return x->turn < y->turn ? -1 : x->turn > y->turn;
}

void
timer_add(Request *req)
{
	if (waiting == NULL)
		waiting = g_sequence_new(NULL);
	req->turn = ++last_turn;
	g_sequence_insert_sorted(waiting, req, by_due, NULL);
}

static bool
is_empty(void)
{
	return waiting == NULL || g_sequence_is_empty(waiting);
}

gint64
timer_next(void)
{
	return is_empty() ? G_MAXINT64 : ((Request *) g_sequence_get(g_sequence_get_begin_iter(waiting)))->due_us;
}

void
timer_run(void (*resume) (Request *req))
{
	while (timer_next() <= g_get_monotonic_time())
	{
		GSequenceIter *first = g_sequence_get_begin_iter(waiting);
		Request    *req = g_sequence_get(first);

		g_sequence_remove(first);
		if (flow_advance(req))
			resume(req);
		else
			timer_add(req);
	}
}

static void
abort_one(void *req, void *data)
{
	(void) data;
	flow_abort(req);
	((Request *) req)->due_us = 0;
}

void
timer_abort_all(void)
{
	if (is_empty())
		return;
	g_sequence_foreach(waiting, abort_one, NULL);
	g_sequence_sort(waiting, by_due, NULL);
}

static void
release_one(void *p, void *released)
{
	Request    *req = p;

	if (req->stage != STAGE_HELD)
		return;
	req->hold = false;
	req->due_us = 0;
	++*(int *) released;
}

int
timer_release_held(void)
{
	int			released = 0;

	if (is_empty())
		return 0;
	g_sequence_foreach(waiting, release_one, &released);
	g_sequence_sort(waiting, by_due, NULL);
	return released;
}
