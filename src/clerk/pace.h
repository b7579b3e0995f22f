/*-------------------------------------------------------------------------
 *
 * pace.h
 *		How fast a server may be asked.
 *
 * Each server has a pace, which all requests of this process share.  That Clerk
 * has answered 429 is known to all processes of the database, if pg_clerk is
 * preloaded.  All times are in ms on clerk_now_ms()'s clock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PACE_H
#define CLERK_PACE_H

#include "clerk/settings.h"

/* When the next request may go, which may have passed; how many may go now. */
extern int64 clerk_pace_next(const ClerkSettings *settings);
extern int	clerk_pace_allows(const ClerkSettings *settings);

/* One goes. */
extern void clerk_pace_count(const ClerkSettings *settings);

/*
 * When a request may be sent again that was answered with 429 now; retry_after
 * is what Clerk said (ms), or -1; at most an hour is waited.  Changes nothing.
 */
extern int64 clerk_pace_after_limit(int64 retry_after);

/*
 * None may go until then, because Clerk has said so; and until when that is the
 * case (0, or a time that has passed: it is not).  A change of the server's
 * settings ends it.
 */
extern void clerk_pace_pause(const ClerkSettings *settings, int64 until);
extern int64 clerk_pace_paused_until(const ClerkSettings *settings);

/* The status of an answer, 0 if there was none: does Clerk let requests through again? */
extern void clerk_pace_note_answer(const ClerkSettings *settings, int status);

#endif							/* CLERK_PACE_H */
