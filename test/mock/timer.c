/*-------------------------------------------------------------------------
 *
 * timer.c
 *		The thread that goes on with requests whose time has come.
 *
 * A binary heap with the earliest request on top; requests due at the same
 * instant go in the order in which they were added.
 *
 *-------------------------------------------------------------------------
 */
#include "timer.h"

#include <stdlib.h>

#include "clock.h"
#include "end.h"

static Request **heap;
static size_t nheap;
static size_t heap_size;
static uint64_t last_turn;

static pthread_t thread;
static pthread_cond_t wake;
static bool stopping;
static void (*resume_request) (Request *req);

static bool
before(const Request *a, const Request *b)
{
	if (a->due_ns != b->due_ns)
		return a->due_ns < b->due_ns;
	return a->turn < b->turn;
}

static void
sift_up(size_t i)
{
	Request    *req = heap[i];

	while (i > 0 && before(req, heap[(i - 1) / 2]))
	{
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = req;
}

static void
sift_down(size_t i)
{
	Request    *req = heap[i];

	for (;;)
	{
		size_t		child = 2 * i + 1;

		if (child >= nheap)
			break;
		if (child + 1 < nheap && before(heap[child + 1], heap[child]))
			child++;
		if (!before(heap[child], req))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = req;
}

static void
push(Request *req)
{
	if (nheap == heap_size)
	{
		heap_size = heap_size ? heap_size * 2 : 64;
		heap = xrealloc(heap, heap_size * sizeof(Request *));
	}
	req->turn = ++last_turn;
	heap[nheap++] = req;
	sift_up(nheap - 1);
}

static Request *
pop(void)
{
	Request    *req = heap[0];

	heap[0] = heap[--nheap];
	if (nheap > 0)
		sift_down(0);
	return req;
}

void
timer_add(Request *req)
{
	push(req);
	if (heap[0] == req)
		pthread_cond_signal(&wake);
}

void
timer_abort_all(void)
{
	for (size_t i = 0; i < nheap; i++)
	{
		flow_abort(heap[i]);
		/* all alike is a heap, too: turns decide, and they still ascend */
		heap[i]->due_ns = 0;
		heap[i]->turn = i;
	}
	pthread_cond_signal(&wake);
}

int
timer_release_held(void)
{
	int			n = 0;

	for (size_t i = 0; i < nheap; i++)
	{
		if (heap[i]->stage != STAGE_HELD)
			continue;
		heap[i]->hold = false;
		heap[i]->due_ns = 0;
		n++;
	}
	for (size_t i = nheap / 2; i-- > 0;)
		sift_down(i);
	pthread_cond_signal(&wake);
	return n;
}

/* Sleep until the top is due, or something changes. */
static void
sleep_until_due(void)
{
	struct timespec until;

	if (nheap == 0)
	{
		pthread_cond_wait(&wake, &flow_lock);
		return;
	}
	until.tv_sec = heap[0]->due_ns / 1000000000;
	until.tv_nsec = heap[0]->due_ns % 1000000000;
	pthread_cond_timedwait(&wake, &flow_lock, &until);
}

/*
 * Resuming happens without the lock: microhttpd has locks of its own, and
 * calls back into code that takes ours.  Nobody else touches a request that
 * left the heap and is not resumed yet.
 */
static void *
run(void *arg)
{
	(void) arg;
	pthread_mutex_lock(&flow_lock);
	while (!stopping || nheap > 0)
	{
		if (nheap > 0 && heap[0]->due_ns <= clock_mono_ns())
		{
			Request    *req = pop();

			if (flow_advance(req))
			{
				pthread_mutex_unlock(&flow_lock);
				resume_request(req);
				pthread_mutex_lock(&flow_lock);
			}
			else
				push(req);
		}
		else
			sleep_until_due();
	}
	pthread_mutex_unlock(&flow_lock);
	return NULL;
}

void
timer_start(void (*resume) (Request *req))
{
	pthread_condattr_t attr;

	resume_request = resume;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&wake, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&thread, NULL, run, NULL) != 0)
		end_badly("could not start a thread");
}

bool
timer_stopped(void)
{
	return stopping;
}

void
timer_stop(void)
{
	pthread_mutex_lock(&flow_lock);
	stopping = true;
	timer_abort_all();
	pthread_mutex_unlock(&flow_lock);
	pthread_join(thread, NULL);
	pthread_cond_destroy(&wake);
	free(heap);
}
