/*-------------------------------------------------------------------------
 *
 * list.h
 *		Listings, page after page, as rows are fetched.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_LIST_H
#define CLERK_LIST_H

#include "clerk/endpoint.h"

/* The most that Clerk gives at a time. */
#define CLERK_PAGE_SIZE 500

typedef struct ClerkPager ClerkPager;

/*
 * How far a listing has come, for its bounds: a server that always says that
 * there is more would otherwise keep its caller busy for ever.  Zero at first.
 */
typedef struct ClerkListing
{
	int64		pages;
	int64		waited;			/* ms, for answers */
} ClerkListing;

/*
 * Count a page, whose answer was waited for since that time (clerk_now_ms()).
 * Returns a report if the listing is beyond its bounds, else NULL.  what: "list
 * the ...".
 */
extern ClerkReport *clerk_listing_bound(ClerkListing *listing, const ClerkSettings *settings, const char *what,
										const ClerkPage *page, int64 since);

/*
 * Warn of each element of a page that was left out; what: "enterprise
 * connection".
 */
extern void clerk_warn_left_out(const ClerkPage *page, const char *what, int64 offset);

/*
 * Begin a listing, in the current memory context, which must outlive it.
 * query: filters, encoded, or NULL; max_rows: -1 for all; warn: of what is left
 * out.  Sends nothing yet.
 */
extern ClerkPager *clerk_pager(ClerkSettings *settings, ClerkEndpoint endpoint, const char *id,
							   const char *query, int64 max_rows, bool warn);

/*
 * The next element, in the current memory context, or NULL if there are no
 * more.  Sends for a page when it needs one.
 */
extern Jsonb *clerk_pager_next(ClerkPager *pager);

/* The query for a page. */
extern char *clerk_page_query(const char *filters, int64 offset, int64 limit);

#endif							/* CLERK_LIST_H */
