/*-------------------------------------------------------------------------
 *
 * pages.h
 *		Listings, page after page, as rows are taken.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PAGES_H
#define CLERK_PAGES_H

#include "api.h"

/* The most that Clerk gives at a time. */
#define CLERK_PAGE_SIZE 500

typedef struct ClerkPager ClerkPager;

/*
 * Begin a listing, in the current memory context, which must outlive it.
 * query: filters, encoded, or NULL; max_rows: -1 for all.  Asks nothing yet.
 */
extern ClerkPager *clerk_pager(ClerkSettings *settings, ClerkEndpoint endpoint, const char *id,
							   const char *query, int64 max_rows);

/*
 * The next element, in the current memory context, or NULL if there are no
 * more.  Asks for a page when it needs one.
 */
extern Jsonb *clerk_pager_next(ClerkPager *pager);

/* The query for a page. */
extern char *clerk_page_query(const char *filters, int64 offset, int64 limit);

#endif							/* CLERK_PAGES_H */
