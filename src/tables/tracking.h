/*-------------------------------------------------------------------------
 *
 * tracking.h
 *		The tracking table, enterprise_connections: what is known of Clerk's
 *		connections, a row each.
 *
 * All statements run as the table's owner.  The caller decides who may call
 * them, when it resolves the settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_TRACKING_H
#define CLERK_TRACKING_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

/* What a row says of its connection; strings are palloc'd, nulls NULL. */
typedef struct ClerkTracked
{
	char	   *id;
	char	   *key;
	char	   *provider;
} ClerkTracked;

/*
 * Insert or update the row of a connection as Clerk answered it.  An answer
 * that is older than the row changes nothing but the key, and members that are
 * absent in an answer keep their columns' values.  key may be NULL: a row keeps
 * the one that it has.
 */
extern void clerk_track(Jsonb *connection, const char *server, const char *key);

/* Delete a row, or several.  Return whether there was one, and how many. */
extern bool clerk_untrack(const char *server, const char *id);
extern uint64 clerk_untrack_all(const char *server, const char *const *ids, int count);

/*
 * Lock the row of an id, or of a key, until the end of the transaction; NULL if
 * there is none.  To be called before anything is sent.  In every isolation
 * level the latest committed row is locked.  If the transaction's snapshot could
 * not change it, 40001 is raised now rather than after the request.
 *
 * A key that no row has is reserved: other transactions wait for it until the
 * caller's has ended, or has called clerk_free_key, which it must do before it
 * tracks a connection with that key.
 */
extern ClerkTracked *clerk_lock_id(const char *server, const char *id);
extern ClerkTracked *clerk_lock_key(const char *server, const char *key);

extern void clerk_free_key(const char *server, const char *key);

/* Track many connections of a server.  An id that comes again counts as later. */
typedef struct ClerkTrackRow
{
	Jsonb	   *connection;
	const char *id;				/* of the connection */
	const char *key;			/* NULL: the row keeps its own */
	int64		request;		/* of the outbox; 0: none */
} ClerkTrackRow;

extern void clerk_track_all(const char *server, const ClerkTrackRow *rows, int count);

/*
 * Lock the rows of ids and keys (either may be NULL) without waiting:
 * locked_by_other says of each pair whether another transaction has one of its
 * rows locked.  All other rows are locked now.
 */
extern void clerk_try_lock_tracked_all(const char *server, const char *const *ids, const char *const *keys, int count,
									   bool *locked_by_other);

/* A column of the row as it was committed last, without a lock; NULL if there is none. */
extern char *clerk_tracked_key(const char *server, const char *id);
extern char *clerk_tracked_provider(const char *server, const char *id);

/*
 * Begin a mirror of a server, after waiting for one that is under way.  Returns
 * what is in the table then: a registered snapshot, or NULL if the server has no
 * rows.  *rows: how many it has, or up_to if there are more.
 */
extern Snapshot clerk_mirror_begin(const char *server, int64 up_to, int64 *rows);

/*
 * Track the connections of a page, and visit the rows that were changed.  A row
 * that has all that the page says is neither written nor locked.  One that was
 * there when the mirror began and has been deleted since is not inserted again.
 * What has no id is left out.
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
 * Delete the row of a connection that is gone at Clerk.  Returns false if it was
 * synced since.  *held: a user's foreign key keeps it, so it is still there.
 */
extern bool clerk_mirror_remove(const char *server, const char *id, TimestampTz since, bool *held);

#endif							/* CLERK_TRACKING_H */
