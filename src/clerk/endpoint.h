/*-------------------------------------------------------------------------
 *
 * endpoint.h
 *		Clerk's endpoints for enterprise connections: calls and their results.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_ENDPOINT_H
#define CLERK_ENDPOINT_H

#include "clerk/limits.h"
#include "clerk/params.h"
#include "clerk/report.h"
#include "clerk/settings.h"
#include "http/http.h"
#include "utils/jsonb.h"

typedef enum ClerkEndpoint
{
	CLERK_CREATE,
	CLERK_LIST,
	CLERK_GET,
	CLERK_UPDATE,
	CLERK_DELETE,
	CLERK_CREATE_TEST_RUN,
	CLERK_LIST_TEST_RUNS
} ClerkEndpoint;

/* An id is longer in no table of ours; Clerk's have some 35 bytes. */
#define CLERK_MAX_ID_LENGTH 255

/* An element of a page that is left out. */
typedef struct ClerkLeftOut
{
	char	   *id;				/* NULL: it has none that can be shown */
	const char *fault;			/* "has ...", "is ..." */
	int64		position;		/* on the page, from 0 */
} ClerkLeftOut;

/* What an endpoint that lists has answered. */
typedef struct ClerkPage
{
	Jsonb	  **elements;		/* connections with an id; or test runs, usually objects */
	int			count;
	List	   *left_out;		/* ClerkLeftOut *; each fares by itself */
	int64		received;		/* both together: so far the offset moves on */
	int64		total;			/* of all pages; -1: it does not say */
} ClerkPage;

/*
 * One call of an endpoint.  The caller fills in the first part; what it points
 * to must live until the call is read.
 */
typedef struct ClerkCall
{
	const ClerkSettings *settings;	/* of the server that is called */
	ClerkEndpoint endpoint;
	const char *id;				/* server encoding; of the endpoints that have one */
	const char *query;			/* encoded, without the question mark, or NULL */
	const ClerkBody *body;
	List	   *secrets;		/* UTF-8 strings in the body that no message may show */
	bool		retry;			/* an attempt before has come to nothing */
	void	   *caller;			/* for the caller's use */

	/* on its way */
	ClerkHttpRequest *request;	/* from clerk_call_build to clerk_call_read */
	void	   *attempt;		/* of clerk_dispatch */

	/* the outcome: exactly one of result, page and report */
	int			status;			/* HTTP's; 0: no answer */
	Jsonb	   *result;
	ClerkPage  *page;			/* of the endpoints that list */
	ClerkReport *report;
} ClerkCall;

/* Is it a POST that makes a connection, and so must not be sent twice? */
extern bool clerk_api_creates(ClerkEndpoint endpoint);

/* Throws 22023 if it cannot be the id of a connection. */
extern void clerk_api_check_id(const char *id);

/*
 * Make call->request, in the current memory context, which must live until the
 * call is read; when it is reset before, the call is abandoned.  Throws 22023
 * if the id cannot be one.
 */
extern void clerk_call_build(ClerkCall *call);

/*
 * Read the answer of a call that clerk_call_next has returned into the outcome,
 * in the current memory context, and release the request.  Throws only out of
 * memory; the answer is still there then, and can be read again.
 */
extern void clerk_call_read(ClerkCall *call);

/*
 * Release the request with its answer, if there is one, read or not.  Throws
 * nothing.
 */
extern void clerk_call_release(ClerkCall *call);

/*
 * The call is not sent, as Clerk has asked (by a 429) to wait for so many ms:
 * fill in its report.
 */
extern void clerk_call_held_back(ClerkCall *call, int64 wait);

#endif							/* CLERK_ENDPOINT_H */
