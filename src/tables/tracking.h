/*-------------------------------------------------------------------------
 *
 * tracking.h
 *		The tracking table, enterprise_connections: what is known of Clerk's
 *		connections, a row each.
 *
 * All statements run as the table's owner; who may call them is decided by
 * the caller, with the settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_TRACKING_H
#define CLERK_TRACKING_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

/* What a row says of its connection; strings palloc'd, NULL where it does. */
typedef struct ClerkTracked
{
	char	   *id;
	char	   *key;
	char	   *provider;
} ClerkTracked;

/*
 * Insert or update the row of a connection as Clerk answered it.  An answer
 * that is older than the row changes nothing, and what is absent in it stays.
 * key may be NULL: none, or the one that the row has.
 */
extern void clerk_track(Jsonb *connection, const char *server, const char *key);

/* The same, faster if there is no row of it, as of what was just created. */
extern void clerk_track_created(Jsonb *connection, const char *server, const char *key);

/* Delete the row.  Returns whether there was one. */
extern bool clerk_untrack(const char *server, const char *id);

/*
 * Lock the row of an id, or of a key, until the end of the transaction, before
 * anything is sent; NULL if there is none.  The latest committed row counts,
 * in every isolation level; if the transaction's snapshot could not change it
 * any more, 40001 is raised now rather than after the request.  A key that
 * no row has is reserved: others wait, until clerk_free_key and a row take
 * its place, or the transaction ends.
 */
extern ClerkTracked *clerk_lock_id(const char *server, const char *id);
extern ClerkTracked *clerk_lock_key(const char *server, const char *key);

extern void clerk_free_key(const char *server, const char *key);

/*
 * The same for many rows of a server, in one statement each.
 *
 * Track: the same id may come twice, and what comes later counts as later.
 * Lock: locked_by_other tells of each id and key (either may be NULL) whether
 * somebody else has one of its rows locked; all others are locked.
 */
typedef struct ClerkTrackRow
{
	Jsonb	   *connection;
	const char *id;				/* of the connection */
	const char *key;			/* NULL: none, or the one that the row has */
	int64		request;		/* of the outbox, that was answered so; 0: none */
} ClerkTrackRow;

extern void clerk_track_all(const char *server, const ClerkTrackRow *rows, int count);
extern void clerk_untrack_all(const char *server, const char *const *ids, int count);
extern void clerk_try_lock_tracked_all(const char *server, const char *const *ids, const char *const *keys, int count,
									   bool *locked_by_other);

/* The row's key, without a lock; NULL if there is no row or no key. */
extern char *clerk_tracked_key(const char *server, const char *id);
extern char *clerk_tracked_id(const char *server, const char *key);
extern char *clerk_tracked_provider(const char *server, const char *id);

/*
 * Begin a mirror, of which only one of a server runs at a time.  Returns what
 * was in the table then, after the wait for another one: a registered
 * snapshot, or NULL if the server had no rows.  *rows: how many it had, or up_to
 * if there were more.
 */
extern Snapshot clerk_mirror_begin(const char *server, int64 up_to, int64 *rows);

/*
 * Track what is news of the connections of a page, and visit the rows that it
 * changed.  A row that has nothing to learn is not written, nor locked; one
 * that was there when the mirror began and has been deleted since does not come
 * back.  What has no id is left out.
 */
typedef enum ClerkChange
{
	CLERK_CHANGE_INSERTED,
	CLERK_CHANGE_UPDATED
} ClerkChange;

/* id and key are texts; key is 0 if there is none. */
typedef void (*ClerkChangeVisitor) (Datum id, Datum key, ClerkChange change, void *arg);
extern void clerk_mirror_page(const char *server, Snapshot before, Jsonb *const *connections, int count,
							  ClerkChangeVisitor visit, void *arg);

/* Visit all rows of the server in the order of their ids (C collation). */
typedef void (*ClerkRowVisitor) (const char *id, TimestampTz synced_at, void *arg);
extern void clerk_mirror_each_row(const char *server, ClerkRowVisitor visit, void *arg);

/*
 * Remove a row that Clerk knows no more: false if it was synced since.  *held:
 * a user's foreign key keeps it.
 */
extern bool clerk_mirror_remove(const char *server, const char *id, TimestampTz since, bool *held);

#endif							/* CLERK_TRACKING_H */
