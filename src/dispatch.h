/*-------------------------------------------------------------------------
 *
 * dispatch.h
 *		Calls in, results out: concurrency, pace, pauses and retries.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_DISPATCH_H
#define CLERK_DISPATCH_H

#include "api.h"

/*
 * Where calls come from and where they go.  next returns a call, or NULL if
 * there is none at present (and none will come until a further call is done).
 * done takes a call whose outcome is known; outcomes come in the order in
 * which the answers do.  Both run in the memory context of clerk_dispatch's
 * caller; result and report live in a context that is reset after done
 * returns, so it must copy what it keeps.
 */
typedef struct ClerkDispatch
{
	ClerkCall  *(*next) (void *arg);
	void		(*done) (ClerkCall *call, void *arg);
	void	   *arg;
	int			concurrency;	/* at most so many at a time */
} ClerkDispatch;

/*
 * Run calls until next has no more and all are done.  Failures of single
 * calls are in their reports; thrown are cancel and the like, with context
 * about the creations that were under way.
 */
extern void clerk_dispatch(const ClerkSettings *settings, const ClerkDispatch *dispatch);

/*
 * Run one call.  Its outcome lives in the current memory context.
 */
extern void clerk_dispatch_one(const ClerkSettings *settings, ClerkCall *call);

/*
 * A server's pace, which all requests of this process share: when the next
 * one may go (ms), how many may go now, that one goes, and that none may go
 * until a time because Clerk has said so.
 */
extern int64 clerk_pace_next(const ClerkSettings *settings);
extern int	clerk_pace_allows(const ClerkSettings *settings);
extern void clerk_pace_count(const ClerkSettings *settings);
extern void clerk_pace_pause(const ClerkSettings *settings, int64 until);

#endif							/* CLERK_DISPATCH_H */
