/*-------------------------------------------------------------------------
 *
 * dispatch.h
 *		Calls in, results out: the only sender.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_DISPATCH_H
#define CLERK_DISPATCH_H

#include "clerk/endpoint.h"

/*-------------------------------------------------------------------------
 * One by one, each sent once
 *
 *		set = clerk_http_begin(concurrency);	see http.h
 *		clerk_call_build(call);					can raise an error
 *		clerk_call_send(set, call);
 *		call = clerk_call_next(set, until, &woken);
 *		clerk_call_read(call);
 *		clerk_http_end(set);
 *
 * The set lives in the memory context in which it was begun, a call's request
 * in the one in which it was built.  Whichever is reset first, nothing is left
 * behind.  How many are under way says clerk_http_pending(set); for how many
 * more this process has sockets, clerk_http_room().
 *-------------------------------------------------------------------------
 */

/*
 * Send a call that was built, and count it to the pace of its server, for
 * which the caller has waited, if it wants to (pace.h).  Returns without
 * waiting: it goes out with the next wait, or with clerk_http_push().  It ends
 * after the settings' timeout; or call->request->timeout, if that is set (ms)
 * after the call was built.  The call must not move until clerk_call_next
 * returns it.  Needs no transaction.  Throws 53200.
 */
extern void clerk_call_send(ClerkHttpSet *set, ClerkCall *call);

/*
 * Wait until a call of the set is finished, and return it, to be read.  NULL
 * when clerk_now_ms() has reached until (-1: no limit); it has looked for
 * answers then, even if until had passed before.
 *
 * woken: NULL if the process's latch is of no concern.  Else NULL is returned
 * when it is set, too: it is reset, and *woken becomes true (never false).  So
 * that nothing is missed, look for work after this, and wait only then.  (A
 * heavyweight lock that was waited for in between has reset the latch: what
 * was told by it must be asked for before waiting.)  A latch that is always set
 * does not keep answers from being seen.
 *
 * Waits on none under way, too: for until and the latch alone.  Ends at once on
 * query cancel, shutdown (unless interrupts are held) and postmaster death.
 */
extern ClerkCall *clerk_call_next(ClerkHttpSet *set, int64 until, bool *woken);

/*-------------------------------------------------------------------------
 * Many, with retries
 *-------------------------------------------------------------------------
 */

/*
 * Where calls come from and where they go.  next returns a call, or NULL if
 * there is none at present (and none will come until a further call is done).
 * Each call is of the server that its settings say.
 *
 * done takes a call whose outcome is known; outcomes come in the order in
 * which the answers do.  Both run in the memory context of clerk_dispatch's
 * caller; the outcome lives in a context that is deleted after done returns, so
 * it must copy what it keeps.  Without done, that context becomes a child of
 * the caller's.
 */
typedef struct ClerkDispatch
{
	ClerkCall  *(*next) (void *arg);
	void		(*done) (ClerkCall *call, void *arg);
	void	   *arg;
	int			concurrency;	/* at most this number at a time */
} ClerkDispatch;

/*
 * Run calls until next has no more and all are done.  Failures of single
 * calls are in their reports; thrown are cancel and the like, with context
 * about the creations that were under way.
 */
extern void clerk_dispatch(const ClerkDispatch *dispatch);

/*
 * Run one call.  Its outcome lives as long as the current memory context.
 */
extern void clerk_dispatch_one(ClerkCall *call);

#endif							/* CLERK_DISPATCH_H */
