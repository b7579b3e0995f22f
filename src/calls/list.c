/*-------------------------------------------------------------------------
 *
 * list.c
 *		Listings, page after page, as rows are fetched.
 *
 * Clerk's pages have an offset, and the newest element comes first.  What is
 * created during a listing moves the rest back, so that the last elements of a
 * page can come again on the next page.  They are left out there.
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
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * A listing with more pages than this is an error: a server that always says
 * that there is another page would keep the session busy for ever.  In Clerk's
 * pages of 500, this is five million connections.
 */
#define MAX_PAGES 10000

/* The same for the total that a server claims to have. */
#define MAX_TOTAL (INT64CONST(10) * 1000 * 1000)

/*
 * The same for the time that a listing waits for its pages, in ms: enough for a
 * million connections at 300 ms a page.
 */
#define MAX_WAIT (10 * 60 * 1000)

PG_FUNCTION_INFO_V1(enterprise_connection_list);

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
 * Was the element on the page before this one?  An element that comes again was
 * probably at its end.
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
	ClerkCall	call = {.settings = pager->settings,.endpoint = pager->endpoint,.id = pager->id};

	call.query = clerk_page_query(pager->query, pager->offset, limit);
	clerk_dispatch_one(&call);
	if (call.report != NULL)
		clerk_report_raise(ERROR, call.report);
	if (pager->warn)
		clerk_warn_left_out(call.page, clerk_api_listing(pager->endpoint)->element, pager->offset);

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
		pager->endless = clerk_listing_bound(&pager->listing, pager->settings, clerk_api_what(pager->endpoint),
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
 * The SQL functions
 *-------------------------------------------------------------------------
 */

static void
add_filter(StringInfo query, const char *name, const char *value)
{
	char	   *utf8 = pg_server_to_any(value, (int) strlen(value), PG_UTF8);

	appendStringInfo(query, "%s%s=%s", query->len > 0 ? "&" : "", name,
					 clerk_url_query_value(utf8));
}

/*
 * A text goes into the URL: it must not be longer than an id.
 */
static void
add_text_filter(StringInfo query, const char *name, const char *what, Datum value)
{
	char	   *string = TextDatumGetCString(value);

	clerk_api_check_length(psprintf("%s \"%s\"", what, name), string);
	add_filter(query, name, string);
}

static void
add_texts_filter(StringInfo query, const char *name, ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			add_text_filter(query, name, "an element of argument", elements[i]);
}

static void
add_argument(StringInfo query, const ClerkQueryArgument *argument, FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return;
	switch (argument->type)
	{
		case TEXTOID:
			add_text_filter(query, argument->name, "argument", PG_GETARG_DATUM(n));
			break;
		case TEXTARRAYOID:
			add_texts_filter(query, argument->name, PG_GETARG_ARRAYTYPE_P(n));
			break;
		case BOOLOID:
			add_filter(query, argument->name, PG_GETARG_BOOL(n) ? "true" : "false");
			break;
		default:
			elog(ERROR, "argument \"%s\" has an unexpected type", argument->name);
	}
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

static ClerkPager *
begin_listing(FunctionCallInfo fcinfo)
{
	ClerkEndpoint endpoint = clerk_api_listed_by(get_func_name(fcinfo->flinfo->fn_oid));
	const ClerkListingInfo *listing = clerk_api_listing(endpoint);
	char	   *id = NULL;
	int64		max_rows = -1;
	int			n = 0;
	StringInfoData query;

	if (clerk_api_has_id(endpoint))
	{
		id = clerk_text_argument(fcinfo, n++, "id");
		clerk_api_check_id(id);
	}
	initStringInfo(&query);
	for (int i = 0; i < CLERK_MAX_QUERY_ARGUMENTS && listing->query[i].name != NULL; i++)
		add_argument(&query, &listing->query[i], fcinfo, n++);
	if (listing->takes_max_rows)
		max_rows = max_rows_argument(fcinfo, n++);
	return clerk_pager(clerk_settings(clerk_server_argument(fcinfo, n), CLERK_USE_READ), endpoint, id,
					   query.data, max_rows, true);
}

/*
 * All functions that list; the name says what.  A value for each call, so that
 * a LIMIT in the query stops the asking.
 */
Datum
enterprise_connection_list(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	Jsonb	   *element;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		context->user_fctx = begin_listing(fcinfo);
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	element = clerk_pager_next(context->user_fctx);
	if (element == NULL)
		SRF_RETURN_DONE(context);
	SRF_RETURN_NEXT(context, JsonbPGetDatum(element));
}
