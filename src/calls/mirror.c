/*-------------------------------------------------------------------------
 *
 * mirror.c
 *		All that exists at Clerk into the tracking table.
 *
 * First all pages of the listing are read, several at a time; each is written
 * to the table as it comes.  Pages have offsets, so while connections are
 * created and deleted, one of them can be listed twice or not at all.  So a row
 * that no page confirmed is looked up by its id, and removed only if Clerk
 * answers 404.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/progress.h"
#include "calls/connection.h"
#include "calls/list.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "clerk/dispatch.h"
#include "clerk/log.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/*
 * If a server has at least this many rows, and more than half of them are not
 * listed any more, the secret key is probably another instance's.
 */
#define SWAPPED_KEY_ROWS 10

/* Elements of a page that are on the next one, too; see page_step(). */
#define PAGE_OVERLAP 10

PG_FUNCTION_INFO_V1(mirror_enterprise_connections);

typedef struct Mirror
{
	ClerkSettings *settings;
	ReturnSetInfo *result;		/* where the changes go */
	TimestampTz since;			/* before the first request */
	MemoryContext scratch;		/* reset after each page or row */
	Snapshot	before;			/* of the rows at the beginning; NULL: none */

	/* pages */
	bool		first_sent;
	bool		first_done;		/* some page has been answered */
	int64		next_offset;
	int64		end;			/* where the listing ends, as far as known */
	int64		page_size;
	ClerkProgress progress;
	ClerkListing listing;

	/* sorted ids: those on the pages, and rows that are on none; may spill */
	Tuplesortstate *seen;
	Tuplesortstate *unseen;
	text	   *next_seen;		/* NULL at the end */
	int64		rows;			/* in the table, by now */
	int64		unseen_rows;

	/* what has changed */
	int64		inserted;
	int64		updated;
	int64		deleted;
	int64		gone;
} Mirror;

/* A call and where it is in the listing. */
typedef struct PageCall
{
	ClerkCall	call;
	int64		offset;
	int64		limit;
} PageCall;

static Tuplesortstate *
begin_sort(void)
{
	return tuplesort_begin_datum(TEXTOID, TextLessOperator, C_COLLATION_OID, false,
								 work_mem, NULL, 0);
}

static void
put_id(Tuplesortstate *sort, const char *id)
{
	text	   *datum = cstring_to_text(id);

	tuplesort_putdatum(sort, PointerGetDatum(datum), false);
	pfree(datum);
}

/*-------------------------------------------------------------------------
 * Pages
 *-------------------------------------------------------------------------
 */

/*
 * Pages overlap: what is deleted meanwhile moves the rest forward, and a new
 * connection must not slip through between two of them.
 */
static int64
page_step(const Mirror *mirror)
{
	return mirror->page_size > 2 * PAGE_OVERLAP ? mirror->page_size - PAGE_OVERLAP : mirror->page_size;
}

/*
 * Until a page has said how many there are, as many are asked for as there
 * are rows; that is one page if there is none.
 */
static ClerkCall *
page_next(void *arg)
{
	Mirror	   *mirror = arg;
	PageCall   *page;

	if (mirror->first_sent && mirror->next_offset >= mirror->end)
		return NULL;
	mirror->first_sent = true;
	page = palloc0(sizeof(*page));
	page->offset = mirror->next_offset;
	page->limit = mirror->page_size;
	page->call.settings = mirror->settings;
	page->call.endpoint = CLERK_LIST;
	page->call.query = clerk_page_query(NULL, page->offset, page->limit);
	page->call.caller = page;
	mirror->next_offset += page_step(mirror);
	return &page->call;
}

/*
 * Take note of where the listing ends, by this page.  It can have grown
 * meanwhile.  If the first page shows that the server gives fewer elements at a
 * time than it was asked for, all others are asked for again in that size.
 */
static void
note_extent(Mirror *mirror, const PageCall *page, int64 count, int64 total)
{
	if (page->offset == 0 && count > 0 && count < page->limit && total > count)
	{
		mirror->page_size = count;
		mirror->next_offset = page_step(mirror);
	}
	if (!mirror->first_done)
	{
		mirror->first_done = true;
		mirror->end = total;
	}
	mirror->end = Max(mirror->end, total);
	if (count >= page->limit)
		mirror->end = Max(mirror->end, page->offset + count + 1);
	mirror->progress.done += count;
	mirror->progress.total = mirror->end;
}

static void
add_change(Mirror *mirror, Datum id, Datum key, const char *change)
{
	Datum		values[] = {id, CStringGetTextDatum(change), key};
	bool		nulls[] = {false, false, key == (Datum) 0};

	tuplestore_putvalues(mirror->result->setResult, mirror->result->setDesc, values, nulls);
}

static void
note_change(Datum id, Datum key, ClerkChange change, void *arg)
{
	Mirror	   *mirror = arg;

	if (change == CLERK_CHANGE_INSERTED)
		mirror->inserted++;
	else
		mirror->updated++;
	add_change(mirror, id, key, change == CLERK_CHANGE_INSERTED ? "inserted" : "updated");
}

static void
take_page(Mirror *mirror, const ClerkPage *page)
{
	ListCell   *lc;

	for (int i = 0; mirror->before != NULL && i < page->count; i++)
	{
		char	   *id = clerk_jsonb_string(page->elements[i], "id");

		if (id != NULL)
			put_id(mirror->seen, id);
	}

	/* What is left out exists all the same. */
	foreach(lc, page->left_out)
	{
		const char *id = ((ClerkLeftOut *) lfirst(lc))->id;

		if (mirror->before != NULL && id != NULL)
			put_id(mirror->seen, id);
	}
	clerk_mirror_page(mirror->settings->server_name, mirror->before, page->elements, page->count, note_change, mirror);
}

static void
page_done(ClerkCall *call, void *arg)
{
	Mirror	   *mirror = arg;
	PageCall   *page = call->caller;
	MemoryContext old;
	ClerkReport *endless;

	if (call->report != NULL)
		clerk_report_raise(ERROR, call->report);

	/* By its pages alone: many are waited for at the same time. */
	endless = clerk_listing_bound(&mirror->listing, mirror->settings, "mirror the enterprise connections",
								  call->page, clerk_now_ms());
	if (endless != NULL)
		clerk_report_raise(ERROR, endless);
	clerk_warn_left_out(call->page, "enterprise connection", page->offset);
	mirror->progress.failed += list_length(call->page->left_out);
	old = MemoryContextSwitchTo(mirror->scratch);
	note_extent(mirror, page, call->page->received, call->page->total);
	take_page(mirror, call->page);
	MemoryContextSwitchTo(old);
	MemoryContextReset(mirror->scratch);
	pfree((void *) call->query);
	pfree(page);
	clerk_progress_show(&mirror->progress);
}

/*-------------------------------------------------------------------------
 * Rows that no page confirmed
 *-------------------------------------------------------------------------
 */

static void
advance_seen(Mirror *mirror)
{
	Datum		value;

	if (mirror->next_seen != NULL)
		pfree(mirror->next_seen);
	mirror->next_seen = clerk_tuplesort_next(mirror->seen, &value) ? DatumGetTextPP(value) : NULL;
}

/*
 * The order of two ids in C collation.
 */
static int
compare_ids(const text * seen, const char *id)
{
	size_t		seen_len = VARSIZE_ANY_EXHDR(seen);
	size_t		len = strlen(id);
	int			order = memcmp(VARDATA_ANY(seen), id, Min(seen_len, len));

	return order != 0 ? order : seen_len < len ? -1 : seen_len > len;
}

/*
 * Merge the rows with the ids that were on the pages, both in order.
 */
static void
visit_row(const char *id, TimestampTz synced_at, void *arg)
{
	Mirror	   *mirror = arg;

	mirror->rows++;
	while (mirror->next_seen != NULL && compare_ids(mirror->next_seen, id) < 0)
		advance_seen(mirror);
	if (mirror->next_seen != NULL && compare_ids(mirror->next_seen, id) == 0)
		return;
	if (synced_at < mirror->since)
	{
		mirror->unseen_rows++;
		put_id(mirror->unseen, id);
	}
}

static ClerkCall *
unseen_next(void *arg)
{
	Mirror	   *mirror = arg;
	ClerkCall  *call;
	Datum		id;

	if (!clerk_tuplesort_next(mirror->unseen, &id))
		return NULL;
	call = palloc0(sizeof(*call));
	call->settings = mirror->settings;
	call->endpoint = CLERK_GET;
	call->id = TextDatumGetCString(id);
	pfree(DatumGetPointer(id));
	return call;
}

static void
remove_row(Mirror *mirror, const char *id)
{
	const char *server = mirror->settings->server_name;
	char	   *key = clerk_tracked_key(server, id);
	bool		held;

	if (!clerk_mirror_remove(server, id, mirror->since, &held))
		return;
	if (held)
		mirror->gone++;
	else
		mirror->deleted++;
	add_change(mirror, CStringGetTextDatum(id), key ? CStringGetTextDatum(key) : (Datum) 0,
			   held ? "gone" : "deleted");
}

static void
unseen_done(ClerkCall *call, void *arg)
{
	Mirror	   *mirror = arg;
	MemoryContext old = MemoryContextSwitchTo(mirror->scratch);

	if (call->result != NULL)
		clerk_mirror_page(mirror->settings->server_name, mirror->before, &call->result, 1, note_change, mirror);
	else if (clerk_report_is_gone(call->report))
		remove_row(mirror, call->id);
	else
	{
		/* What cannot be stored keeps the row that it has. */
		mirror->progress.failed++;
		call->report->message = psprintf("%s (of connection \"%s\")", call->report->message, call->id);
		clerk_report_raise(call->report->unstorable ? WARNING : ERROR, call->report);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(mirror->scratch);
	mirror->progress.done++;
	clerk_progress_show(&mirror->progress);
	pfree((void *) call->id);
	pfree(call);
}

static void
check_swapped_key(const Mirror *mirror)
{
	int64		unseen = mirror->unseen_rows;
	int64		all = mirror->rows - mirror->inserted;

	if (all < SWAPPED_KEY_ROWS || unseen * 2 <= all)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(INT64_FORMAT " of " INT64_FORMAT " tracked connections of server \"%s\" are not listed at Clerk any more",
					unseen, all, mirror->settings->server_name),
			 errdetail("That looks like the secret key of another Clerk instance; nothing was changed."),
			 errhint("If it is the right key, run mirror_enterprise_connections(force => true).")));
}

/*-------------------------------------------------------------------------
 * The function
 *-------------------------------------------------------------------------
 */

static void
run_mirror(Mirror *mirror, bool force)
{
	ClerkDispatch pages = {
		.next = page_next,
		.done = page_done,
		.arg = mirror,
		.concurrency = mirror->settings->max_concurrency,
	};
	ClerkDispatch rows = {
		.next = unseen_next,
		.done = unseen_done,
		.arg = mirror,
		.concurrency = mirror->settings->max_concurrency,
	};

	clerk_dispatch(&pages);

	/* What is in a table that was empty has just come from Clerk. */
	if (mirror->before == NULL)
		return;
	tuplesort_performsort(mirror->seen);
	advance_seen(mirror);
	clerk_mirror_each_row(mirror->settings->server_name, visit_row, mirror);
	if (!force)
		check_swapped_key(mirror);
	tuplesort_performsort(mirror->unseen);
	if (mirror->unseen_rows > 0)
	{
		clerk_progress_begin(&mirror->progress, "rows that are not listed any more", 0, mirror->unseen_rows);
		clerk_dispatch(&rows);
	}
}

static void
note_end(const Mirror *mirror)
{
	ClerkStatistics *statistics = mirror->settings->statistics;

	pg_atomic_write_u64(&statistics->mirrored_at, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u64(&statistics->mirror_began, (uint64) clerk_now_ms());
	if (mirror->inserted + mirror->updated + mirror->deleted + mirror->gone > 0)
		clerk_log(psprintf("mirror of server \"%s\": " INT64_FORMAT " inserted, " INT64_FORMAT " updated, "
						   INT64_FORMAT " deleted, " INT64_FORMAT " gone",
						   mirror->settings->server_name, mirror->inserted, mirror->updated, mirror->deleted, mirror->gone));
}

/*
 * mirror_enterprise_connections(server name, force boolean)
 */
Datum
mirror_enterprise_connections(PG_FUNCTION_ARGS)
{
	Mirror	   *mirror = palloc0(sizeof(*mirror));

	clerk_prevent_write("mirror_enterprise_connections()");
	mirror->settings = clerk_settings(clerk_server_argument(fcinfo, 0), CLERK_USE_WRITE);
	mirror->result = clerk_materialized_result(fcinfo);
	mirror->scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk mirror page",
											ALLOCSET_DEFAULT_SIZES);
	mirror->page_size = CLERK_PAGE_SIZE;

	mirror->seen = begin_sort();
	mirror->unseen = begin_sort();
	mirror->before = clerk_mirror_begin(mirror->settings->server_name,
										mirror->settings->max_concurrency * page_step(mirror), &mirror->end);
	mirror->since = GetCurrentTimestamp();
	mirror->progress.command = "mirror_enterprise_connections";
	mirror->progress.server = mirror->settings->server_name;
	clerk_progress_begin(&mirror->progress, "connections", 0, mirror->end);
	run_mirror(mirror, !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	tuplesort_end(mirror->seen);
	tuplesort_end(mirror->unseen);
	UnregisterSnapshot(mirror->before);
	clerk_progress_end();
	note_end(mirror);
	return (Datum) 0;
}
