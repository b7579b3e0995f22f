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
	CLERK_HTTP_NOT_SENT,		/* no connection: nothing of the request was sent */
	CLERK_HTTP_SHORTAGE,		/* no socket in this process: nothing was even tried */
	CLERK_HTTP_BROKEN,			/* it may have been received, no whole answer came */
	CLERK_HTTP_TOO_LARGE		/* the answer is larger than max_answer, or its headers absurd */
} ClerkHttpOutcome;

typedef enum ClerkHttpFault
{
	CLERK_HTTP_FAULT_OTHER,
	CLERK_HTTP_FAULT_RESOLVE,	/* the host's (or the proxy's) name */
	CLERK_HTTP_FAULT_TLS,
	CLERK_HTTP_FAULT_TIMEOUT
} ClerkHttpFault;

/*
 * Request and answer.  It must be palloc'd: the context that it is in owns what
 * belongs to it, and when that is reset, the request is abandoned.  All that is
 * pointed to must live as long, or until the request is finished or its set
 * ended; no string is copied.
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
	int			status;			/* of the answer, 0 if there was no status line */
	char	   *answer;			/* the body so far, ends in an added NUL; may be NULL */
	size_t		answer_len;
	int64		elapsed;		/* us, from its start to its end */
	int64		retry_after;	/* ms, from the answer's Retry-After; -1: none */
	bool		kept_broke;		/* BROKEN, as a kept connection was closed meanwhile */
	char	   *fault;			/* if not answered: why, ASCII; for SHORTAGE a sentence,
								 * else (libcurl's words) without a full stop */
	ClerkHttpFault fault_kind;

	void	   *caller;			/* for the caller's use */
	struct ClerkHttpTransfer *transfer; /* private */
} ClerkHttpRequest;

typedef struct ClerkHttpSet ClerkHttpSet;

/*
 * Begin a set of about so many requests at a time (that many connections are
 * kept meanwhile, if there are files for them).  It lives in the current memory
 * context; when that is reset, by an ERROR too, what is still under way is
 * abandoned and everything released.  It does not matter which is reset first,
 * the set's context or that of a request.  Raises 53000 if there is no file to
 * wait with.
 */
extern ClerkHttpSet *clerk_http_begin(int concurrency);

/*
 * Start a request.  Returns without waiting.  It goes out with the next wait,
 * or with clerk_http_push, for who has something else to do before.
 */
extern void clerk_http_send(ClerkHttpSet *set, ClerkHttpRequest *request);
extern void clerk_http_push(void);

/*
 * How many more requests can be sent now by this process, over all sets, so
 * that each finds a socket.  0: none until one is finished, or a moment has
 * passed; never if none is under way.  What is sent beyond it may end as
 * CLERK_HTTP_SHORTAGE.
 */
extern int	clerk_http_room(void);

/*
 * Wait until a request of the set is finished and return it; NULL when
 * clerk_now_ms() has reached until (-1: no limit), or, with *latch_set, when
 * the process's latch is set, which the caller has to reset.  Looks for answers
 * at least once, even if until has passed or the latch is set already, and
 * waits on none too.
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
 * deeper one.  For an abort, whose callbacks come before the contexts are
 * reset: nothing more of what was aborted shall be sent.
 */
extern void clerk_http_abandon(int nest_level);


#endif							/* CLERK_HTTP_H */
