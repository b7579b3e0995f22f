/*-------------------------------------------------------------------------
 *
 * pages.c
 *		Listings, page after page, as rows are taken.
 *
 * Clerk's pages have an offset, newest first: what is created meanwhile moves
 * the rest back, so the end of one page can turn up again on the next.  Those
 * are left out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "connections.h"
#include "dispatch.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "pages.h"
#include "url.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(list_enterprise_connections);
PG_FUNCTION_INFO_V1(list_enterprise_connection_test_runs);

struct ClerkPager
{
	ClerkSettings *settings;
	ClerkEndpoint endpoint;
	const char *id;
	const char *query;
	int64		left;			/* rows still wanted, -1: all */
	int64		offset;			/* of the next page */
	bool		last;			/* there is no next page */
	MemoryContext context;		/* of the two pages */
	Jsonb	   *page;			/* array, NULL at first */
	Jsonb	   *previous;
	int			next;			/* in page */
	int			count;
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

static JsonbValue *
page_member(Jsonb *page, const char *name, JsonbValue *buf)
{
	return getKeyJsonValueFromContainer(&page->root, name, (int) strlen(name), buf);
}

Jsonb *
clerk_page_data(Jsonb *page)
{
	JsonbValue	buf;

	/* The api room has seen that it is an array. */
	return JsonbValueToJsonb(page_member(page, "data", &buf));
}

int64
clerk_page_total(Jsonb *page)
{
	JsonbValue	buf;
	JsonbValue *value = page_member(page, "total_count", &buf);
	double		total;

	if (value == NULL || value->type != jbvNumeric)
		return -1;
	total = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(value->val.numeric)));
	return total >= 0 && total < 1e15 ? (int64) total : -1;
}

static Jsonb *
page_element(Jsonb *array, int n)
{
	return JsonbValueToJsonb(getIthJsonbValueFromContainer(&array->root, n));
}

bool
clerk_page_id(Jsonb *array, int n, const char **id, int *len)
{
	JsonbValue	buf;
	JsonbValue *element = getIthJsonbValueFromContainer(&array->root, n);
	JsonbValue *value;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		return false;
	value = getKeyJsonValueFromContainer(element->val.binary.data, "id", 2, &buf);
	if (value == NULL || value->type != jbvString)
		return false;
	*id = value->val.string.val;
	*len = value->val.string.len;
	return true;
}

/*
 * Was the element on the page before this one?  What comes again is what was
 * at its end.
 */
static bool
seen_before(const ClerkPager *pager, int n)
{
	const char *id;
	const char *other;
	int			len;
	int			other_len;

	if (pager->previous == NULL || !clerk_page_id(pager->page, n, &id, &len))
		return false;
	for (int i = JB_ROOT_COUNT(pager->previous) - 1; i >= 0; i--)
		if (clerk_page_id(pager->previous, i, &other, &other_len) &&
			len == other_len && memcmp(id, other, len) == 0)
			return true;
	return false;
}

/*
 * Fetch the next page.  The one before the current one is forgotten.
 */
static void
fetch_page(ClerkPager *pager)
{
	MemoryContext old_pages = pager->context;
	MemoryContext caller = CurrentMemoryContext;
	int64		limit = pager->left >= 0 ? Min(pager->left, CLERK_PAGE_SIZE) : CLERK_PAGE_SIZE;
	ClerkCall	call = {.endpoint = pager->endpoint, .id = pager->id};
	int64		total;

	pager->context = AllocSetContextCreate(GetMemoryChunkContext(pager), "pg_clerk page",
										   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(pager->context);
	call.query = clerk_page_query(pager->query, pager->offset, limit);
	clerk_dispatch_one(pager->settings, &call);
	if (call.report != NULL)
		clerk_report_raise(ERROR, call.report);

	pager->previous = pager->page ? memcpy(palloc(VARSIZE(pager->page)), pager->page,
										   VARSIZE(pager->page)) : NULL;
	pager->page = clerk_page_data(call.result);
	pager->count = JB_ROOT_COUNT(pager->page);
	pager->next = 0;
	pager->offset += pager->count;
	total = clerk_page_total(call.result);
	pager->last = pager->count == 0 || (total >= 0 ? pager->offset >= total : pager->count < limit);
	MemoryContextSwitchTo(caller);
	if (old_pages != NULL)
		MemoryContextDelete(old_pages);
}

ClerkPager *
clerk_pager(ClerkSettings *settings, ClerkEndpoint endpoint, const char *id, const char *query,
			int64 max_rows)
{
	ClerkPager *pager = palloc0(sizeof(*pager));

	pager->settings = settings;
	pager->endpoint = endpoint;
	pager->id = id;
	pager->query = query;
	pager->left = max_rows;
	return pager;
}

Jsonb *
clerk_pager_next(ClerkPager *pager)
{
	while (pager->left != 0)
	{
		if (pager->next < pager->count)
		{
			int			n = pager->next++;

			if (seen_before(pager, n))
				continue;
			if (pager->left > 0)
				pager->left--;
			return page_element(pager->page, n);
		}
		if (pager->last)
			break;
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
			add_filter(&query, "organization_id", text_to_cstring(PG_GETARG_TEXT_PP(0)));
		if (!PG_ARGISNULL(1))
			add_filter(&query, "active", PG_GETARG_BOOL(1) ? "true" : "false");
		context->user_fctx = clerk_pager(clerk_settings(clerk_server_argument(fcinfo, 3), CLERK_USE_READ),
										 CLERK_LIST, NULL, query.data, max_rows_argument(fcinfo, 2));
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
					add_filter(&query, "status", TextDatumGetCString(elements[i]));
		}
		context->user_fctx = clerk_pager(clerk_settings(clerk_server_argument(fcinfo, 2), CLERK_USE_READ),
										 CLERK_LIST_TEST_RUNS, id, query.data, -1);
		MemoryContextSwitchTo(old);
	}
	return next_row(fcinfo);
}
