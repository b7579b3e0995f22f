/*-------------------------------------------------------------------------
 *
 * set.c
 *		Sets of HTTP requests: begin, send, next, end.
 *
 * A set and its requests may be in different memory contexts.  Each has a reset
 * callback that releases the transfers; whichever is reset first also removes
 * them from the other's lists.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "http/internal.h"
#include "miscadmin.h"
#include "utils/memutils.h"

static dlist_head sets = DLIST_STATIC_INIT(sets);	/* that have not ended */

static void
set_cleanup(void *arg)
{
	ClerkHttpSet *set = arg;
	dlist_mutable_iter iter;

	if (set->ended)
		return;
	set->ended = true;
	dlist_delete(&set->node);
	dlist_foreach_modify(iter, &set->running)
		clerk_transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	dlist_foreach_modify(iter, &set->finished)
		clerk_transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	dlist_foreach_modify(iter, &set->returned)
		clerk_transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	if (dlist_is_empty(&sets))
		clerk_pool_shrink();
}

ClerkHttpSet *
clerk_http_begin(int concurrency)
{
	ClerkHttpSet *set = palloc0(sizeof(*set));

	clerk_pool_open();
	dlist_init(&set->running);
	dlist_init(&set->finished);
	dlist_init(&set->returned);
	set->cleanup.func = set_cleanup;
	set->cleanup.arg = set;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &set->cleanup);
	set->nest_level = GetCurrentTransactionNestLevel();
	dlist_push_tail(&sets, &set->node);
	clerk_pool_keep(concurrency);
	return set;
}

static void
transfer_cleanup(void *arg)
{
	clerk_transfer_release(arg);
}

void
clerk_http_send(ClerkHttpSet *set, ClerkHttpRequest *request)
{
	MemoryContext context = GetMemoryChunkContext(request);
	ClerkHttpTransfer *transfer = MemoryContextAllocZero(context, sizeof(*transfer));

	Assert(!set->ended);
	transfer->set = set;
	transfer->request = request;
	transfer->cleanup.func = transfer_cleanup;
	transfer->cleanup.arg = transfer;
	MemoryContextRegisterResetCallback(context, &transfer->cleanup);
	transfer->easy = clerk_pool_take_handle();
	if (transfer->easy == NULL)
		clerk_http_out_of_memory();

	/* From here on, either of the two reset callbacks releases it. */
	dlist_push_tail(&set->running, &transfer->node);
	set->pending++;
	transfer->pending = true;
	request->transfer = transfer;
	request->started = false;

	clerk_transfer_start(transfer);
}

/*
 * Move the transfers that libcurl has finished to their sets' finished lists.
 */
static void
collect_finished(void)
{
	ClerkHttpTransfer *transfer;

	while ((transfer = clerk_pool_take_finished()) != NULL)
	{
		dlist_delete(&transfer->node);
		dlist_push_tail(&transfer->set->finished, &transfer->node);
	}
}

/*
 * The first finished request, if there is one.
 */
static ClerkHttpRequest *
take_finished(ClerkHttpSet *set)
{
	ClerkHttpTransfer *transfer;

	if (dlist_is_empty(&set->finished))
		return NULL;
	transfer = dlist_head_element(ClerkHttpTransfer, node, &set->finished);
	dlist_delete(&transfer->node);
	dlist_push_tail(&set->returned, &transfer->node);
	set->pending--;
	transfer->pending = false;
	clerk_transfer_report(transfer);
	return transfer->request;
}

ClerkHttpRequest *
clerk_http_next(ClerkHttpSet *set, int64 until, bool *latch_set)
{
	*latch_set = false;
	for (;;)
	{
		ClerkHttpRequest *request;
		bool		latch;

		CHECK_FOR_INTERRUPTS();
		if ((request = take_finished(set)) != NULL)
			return request;
		latch = clerk_pool_wait(until);
		collect_finished();
		if ((request = take_finished(set)) != NULL)
			return request;
		*latch_set = latch;
		if (latch || (until >= 0 && clerk_now_ms() >= until))
			return NULL;
	}
}

void
clerk_http_push(void)
{
	if (clerk_pool_act_if_due())
		collect_finished();
}

int
clerk_http_pending(const ClerkHttpSet *set)
{
	return set->pending;
}

void
clerk_http_end(ClerkHttpSet *set)
{
	set_cleanup(set);
}

void
clerk_http_abandon(int nest_level)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &sets)
	{
		ClerkHttpSet *set = dlist_container(ClerkHttpSet, node, iter.cur);

		if (set->nest_level >= nest_level)
			set_cleanup(set);
	}
}
