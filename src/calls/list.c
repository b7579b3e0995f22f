/*-------------------------------------------------------------------------
 *
 * list.c
 *		Listings, page after page, as rows are taken.
 *
 * Clerk's pages have an offset, newest first: what is created meanwhile moves
 * the rest back, so the end of one page can turn up again on the next.  Those
 * are left out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/jsonb.h"
#include "base/url.h"
#include "calls/connection.h"
#include "calls/list.h"
#include "catalog/pg_type.h"
#include "clerk/dispatch.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/*
 * A listing ends after so many pages: that is five million connections, in
 * Clerk's pages of 500, and still an end for who gets one at a time.
 */
#define MAX_PAGES 10000

/* A server that says to have more than so many is not taken at its word. */
#define MAX_TOTAL (INT64CONST(10) * 1000 * 1000)

/* So many ms of waiting for pages: a million connections, at 300 ms a page. */
#define MAX_WAIT (10 * 60 * 1000)

PG_FUNCTION_INFO_V1(list_enterprise_connections);
PG_FUNCTION_INFO_V1(list_enterprise_connection_test_runs);

struct ClerkPager
{
	ClerkSettings *settings;
	ClerkEndpoint endpoint;
	const char *id;
	const char *query;
	bool		warn;
	int64		left;			/* rows still wanted, -1: all */
	ClerkListing listing;
	ClerkReport *endless;		/* in the page's context; NULL: not so far */
	int64		offset;			/* of the next page */
	bool		last;			/* there is no next page */
	ClerkPage  *page;			/* NULL at first */
	MemoryContext context;		/* of the page */
	int			next;			/* in page */
	ClerkPage  *previous;
	MemoryContext previous_context;
};

/*-------------------------------------------------------------------------
 * Pages
 *-------------------------------------------------------------------------
 */

char *
clerk_page_query(const char *filters, int64 offset, int64 limit)
{
	return psprintf("limit=" INT64_FORMAT "&offset=" INT64_FORMAT "%s%s", limit, offset,
					filters && *filters ? "&" : "", filters ? filters : "");
}

ClerkReport *
clerk_listing_bound(ClerkListing *listing, const ClerkSettings *settings, const char *what,
					const ClerkPage *page, int64 since)
{
	const char *fault = NULL;

	listing->pages++;
	listing->waited += clerk_now_ms() - since;
	if (page->total > MAX_TOTAL)
		fault = psprintf("It says to have " INT64_FORMAT " elements.", page->total);
	else if (listing->pages >= MAX_PAGES)
		fault = psprintf("It has more than %d pages.", MAX_PAGES);
	else if (listing->waited >= MAX_WAIT)
		fault = psprintf("It has taken more than %d minutes, for " INT64_FORMAT " pages.", MAX_WAIT / 60000, listing->pages);
	return fault ? clerk_report_endless(settings->server_name, what, fault) : NULL;
}

void
clerk_warn_left_out(const ClerkPage *page, const char *what, int64 offset)
{
	ListCell   *lc;

	foreach(lc, page->left_out)
	{
		ClerkLeftOut *left_out = lfirst(lc);

		ereport(WARNING,
				(errcode(ERRCODE_CLERK_ANSWER_UNREADABLE),
				 left_out->id != NULL ?
				 errmsg("%s \"%s\" is left out: it %s", what, left_out->id, left_out->fault) :
				 errmsg("%s number " INT64_FORMAT " of the listing is left out: it %s",
						what, offset + left_out->position + 1, left_out->fault)));
	}
}

/*
 * An element's id, not a copy of it; false if it has none.
 */
static bool
element_id(Jsonb *element, JsonbValue *id)
{
	return JB_ROOT_IS_OBJECT(element) &&
		getKeyJsonValueFromContainer(&element->root, "id", 2, id) != NULL && id->type == jbvString;
}

/*
 * Was the element on the page before this one?  What comes again is what was
 * at its end.
 */
static bool
seen_before(const ClerkPager *pager, Jsonb *element)
{
	JsonbValue	id;
	JsonbValue	other;

	if (pager->previous == NULL || !element_id(element, &id))
		return false;
	for (int i = pager->previous->count - 1; i >= 0; i--)
		if (element_id(pager->previous->elements[i], &other) &&
			id.val.string.len == other.val.string.len &&
			memcmp(id.val.string.val, other.val.string.val, id.val.string.len) == 0)
			return true;
	return false;
}

/*
 * Fetch the next page.  The one before the current one is forgotten.
 */
static void
fetch_page(ClerkPager *pager)
{
	MemoryContext context = AllocSetContextCreate(GetMemoryChunkContext(pager), "pg_clerk page",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	int64		limit = pager->left >= 0 ? Min(pager->left, CLERK_PAGE_SIZE) : CLERK_PAGE_SIZE;
	int64		since = clerk_now_ms();
	ClerkCall	call = {.settings = pager->settings, .endpoint = pager->endpoint, .id = pager->id};

	call.query = clerk_page_query(pager->query, pager->offset, limit);
	clerk_dispatch_one(&call);
	if (call.report != NULL)
		clerk_report_raise(ERROR, call.report);
	if (pager->warn)
		clerk_warn_left_out(call.page,
							pager->endpoint == CLERK_LIST ? "enterprise connection" : "test run", pager->offset);

	if (pager->previous_context != NULL)
		MemoryContextDelete(pager->previous_context);
	pager->previous = pager->page;
	pager->previous_context = pager->context;
	pager->page = call.page;
	pager->context = context;
	pager->next = 0;
	pager->offset += call.page->received;
	pager->last = call.page->received == 0 ||
		(call.page->total >= 0 ? pager->offset >= call.page->total : call.page->received < limit);
	if (!pager->last)
		pager->endless = clerk_listing_bound(&pager->listing, pager->settings,
											 pager->endpoint == CLERK_LIST ?
											 "list the enterprise connections" :
											 "list the test runs of the enterprise connection",
											 call.page, since);
	MemoryContextSwitchTo(caller);
}

ClerkPager *
clerk_pager(ClerkSettings *settings, ClerkEndpoint endpoint, const char *id, const char *query,
			int64 max_rows, bool warn)
{
	ClerkPager *pager = palloc0(sizeof(*pager));

	pager->settings = settings;
	pager->endpoint = endpoint;
	pager->id = id;
	pager->query = query;
	pager->left = max_rows;
	pager->warn = warn;
	return pager;
}

Jsonb *
clerk_pager_next(ClerkPager *pager)
{
	while (pager->left != 0)
	{
		if (pager->page != NULL && pager->next < pager->page->count)
		{
			Jsonb	   *element = pager->page->elements[pager->next++];

			if (seen_before(pager, element))
				continue;
			if (pager->left > 0)
				pager->left--;
			return clerk_jsonb_copy(element);
		}
		if (pager->last)
			break;
		if (pager->endless != NULL)
			clerk_report_raise(ERROR, pager->endless);
		fetch_page(pager);
	}
	return NULL;
}

/*-------------------------------------------------------------------------
 * The SQL functions: a value for each call, so that a LIMIT in the query
 * stops the asking
 *-------------------------------------------------------------------------
 */

static void
add_filter(StringInfo query, const char *name, const char *value)
{
	char	   *utf8 = pg_server_to_any(value, (int) strlen(value), PG_UTF8);

	appendStringInfo(query, "%s%s=%s", query->len > 0 ? "&" : "", name,
					 clerk_url_query_value(utf8));
}

static Datum
next_row(FunctionCallInfo fcinfo)
{
	FuncCallContext *context = SRF_PERCALL_SETUP();
	Jsonb	   *element = clerk_pager_next(context->user_fctx);

	if (element == NULL)
		SRF_RETURN_DONE(context);
	SRF_RETURN_NEXT(context, JsonbPGetDatum(element));
}

static int64
max_rows_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return -1;
	if (PG_GETARG_INT32(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"max_rows\" cannot be negative")));
	return PG_GETARG_INT32(n);
}

/*
 * list_enterprise_connections(organization_id text, active boolean, max_rows int, server name)
 */
Datum
list_enterprise_connections(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		FuncCallContext *context = SRF_FIRSTCALL_INIT();
		MemoryContext old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		StringInfoData query;

		initStringInfo(&query);
		if (!PG_ARGISNULL(0))
		{
			char	   *organization = text_to_cstring(PG_GETARG_TEXT_PP(0));

			clerk_api_check_length("argument \"organization_id\"", organization);
			add_filter(&query, "organization_id", organization);
		}
		if (!PG_ARGISNULL(1))
			add_filter(&query, "active", PG_GETARG_BOOL(1) ? "true" : "false");
		context->user_fctx = clerk_pager(clerk_settings(clerk_server_argument(fcinfo, 3), CLERK_USE_READ),
										 CLERK_LIST, NULL, query.data, max_rows_argument(fcinfo, 2), true);
		MemoryContextSwitchTo(old);
	}
	return next_row(fcinfo);
}

/*
 * list_enterprise_connection_test_runs(id text, status text[], server name)
 */
Datum
list_enterprise_connection_test_runs(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		FuncCallContext *context = SRF_FIRSTCALL_INIT();
		MemoryContext old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		char	   *id = clerk_text_argument(fcinfo, 0, "id");
		StringInfoData query;

		clerk_api_check_id(id);
		initStringInfo(&query);
		if (!PG_ARGISNULL(1))
		{
			Datum	   *elements;
			bool	   *nulls;
			int			count;

			deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT,
							  &elements, &nulls, &count);
			for (int i = 0; i < count; i++)
				if (!nulls[i])
				{
					char	   *status = TextDatumGetCString(elements[i]);

					clerk_api_check_length("an element of argument \"status\"", status);
					add_filter(&query, "status", status);
				}
		}
		context->user_fctx = clerk_pager(clerk_settings(clerk_server_argument(fcinfo, 2), CLERK_USE_READ),
										 CLERK_LIST_TEST_RUNS, id, query.data, -1, true);
		MemoryContextSwitchTo(old);
	}
	return next_row(fcinfo);
}
