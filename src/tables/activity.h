/*-------------------------------------------------------------------------
 *
 * activity.h
 *		Which connections were active when their rows stopped being ready.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_ACTIVITY_H
#define CLERK_ACTIVITY_H

/* Is the connection to be active again when its row is ready again? */
extern bool clerk_tracked_reactivate(const char *server, const char *id);

/* Note it; the tracking row must be locked.  Nothing happens if there is none. */
extern void clerk_track_reactivate(const char *server, const char *id, bool reactivate);

#endif							/* CLERK_ACTIVITY_H */
