/*-------------------------------------------------------------------------
 *
 * http.h
 *		HTTP requests, many at a time: a set of requests in, answers out.
 *
 * The connections are kept open between sets, for the life of the process.
 * Every wait ends at once on query cancel, shutdown and postmaster death.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_HTTP_H
#define CLERK_HTTP_H

#include "nodes/pg_list.h"

typedef enum ClerkHttpOutcome
{
	CLERK_HTTP_ANSWERED,		/* a whole answer came */
	CLERK_HTTP_NOT_SENT,		/* no connection: nothing of the request was
								 * sent */
	CLERK_HTTP_SHORTAGE,		/* no socket in this process: nothing was even
								 * tried */
	CLERK_HTTP_BROKEN,			/* it may have been received, no whole answer
								 * came */
	CLERK_HTTP_TOO_LARGE		/* the answer is larger than max_answer, or
								 * its headers too large */
} ClerkHttpOutcome;

typedef enum ClerkHttpFault
{
	CLERK_HTTP_FAULT_OTHER,
	CLERK_HTTP_FAULT_RESOLVE,	/* the host's (or the proxy's) name */
	CLERK_HTTP_FAULT_TLS,
	CLERK_HTTP_FAULT_TIMEOUT
} ClerkHttpFault;

/*
 * Request and answer.  It must be palloc'd: its memory context owns all that
 * belongs to it, and when that context is reset, the request is abandoned.  No
 * string is copied: what the struct points to must live until the request is
 * finished, its set has ended, or the context is reset.
 */
typedef struct ClerkHttpRequest
{
	/* what to send */
	const char *method;
	const char *url;			/* absolute, encoded, https or (loopback) http */
	List	   *headers;		/* of char *, "Name: value", one line each */
	const char *body;			/* NULL: none */
	size_t		body_len;
	int			timeout;		/* ms, for all of it */
	int			connect_timeout;	/* ms */
	size_t		max_answer;		/* bytes */
	const char *ca_file;		/* NULL: the system's */
	const char *proxy;			/* NULL: none */
	const char *proxy_user;		/* NULL: none */
	const char *proxy_password;

	/* what became of it; valid once clerk_http_next has returned it */
	ClerkHttpOutcome outcome;
	bool		started;		/* sending had begun (valid at any time) */
	int			status;			/* of the answer, 0 if there was no status
								 * line */
	char	   *answer;			/* the body so far, ends in an added NUL; may
								 * be NULL */
	size_t		answer_len;
	int64		elapsed;		/* us, from its start to its end */
	int64		retry_after;	/* ms, from the answer's Retry-After; -1: none */
	bool		kept_broke;		/* BROKEN because a kept connection had been
								 * closed */
	char	   *fault;			/* if not answered: why, ASCII; for SHORTAGE a
								 * sentence, else (libcurl's words) without a
								 * full stop */
	ClerkHttpFault fault_kind;

	void	   *caller;			/* for the caller's use */
	struct ClerkHttpTransfer *transfer; /* private */
} ClerkHttpRequest;

typedef struct ClerkHttpSet ClerkHttpSet;

/*
 * Begin a set.  concurrency: about how many of its requests are under way at a
 * time; as many connections are kept open, if there are files for them.  The set
 * lives in the current memory context.  When that is reset, also after an ERROR,
 * requests that are under way are abandoned and everything is released.  The
 * contexts of the set and of its requests may be reset in any order.  Throws
 * 53000 if there is no file for the wait set.
 */
extern ClerkHttpSet *clerk_http_begin(int concurrency);

/*
 * Start a request, without waiting.  It is sent by the next clerk_http_next, or
 * by clerk_http_push if the caller has something else to do before.
 */
extern void clerk_http_send(ClerkHttpSet *set, ClerkHttpRequest *request);
extern void clerk_http_push(void);

/*
 * How many more requests this process can send now, over all sets, so that each
 * finds a socket.  If it is 0, wait until a request is finished, or for a moment;
 * it is never 0 while none is under way.  A request beyond this number may end as
 * CLERK_HTTP_SHORTAGE.
 */
extern int	clerk_http_room(void);

/*
 * Wait until a request of the set is finished and return it.  Returns NULL when
 * clerk_now_ms() has reached until (-1: no limit), or when the process's latch
 * is set; then *latch_set is true, and the caller must reset the latch.  Polls at
 * least once even if until has passed or the latch is set already, or a caller
 * that is always late would never see an answer.  Also waits if the set is empty.
 */
extern ClerkHttpRequest *clerk_http_next(ClerkHttpSet *set, int64 until, bool *latch_set);

/* The number of requests that are under way or not yet returned. */
extern int	clerk_http_pending(const ClerkHttpSet *set);

/*
 * A header of a finished request's answer, palloc'd, whole, printable ASCII
 * only; NULL if there is none.  (The last one if there are several.)
 */
extern char *clerk_http_header(const ClerkHttpRequest *request, const char *name);

/* Release what belongs to a finished request, its answer too. */
extern void clerk_http_release(ClerkHttpRequest *request);

extern void clerk_http_end(ClerkHttpSet *set);

/*
 * End the sets that were begun at this nesting level of subtransactions or a
 * deeper one.  To be called at an abort, whose callbacks run before the memory
 * contexts are reset: until then, requests of the aborted transaction could
 * still be sent.
 */
extern void clerk_http_abandon(int nest_level);

#endif							/* CLERK_HTTP_H */
