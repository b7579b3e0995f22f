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

/*
 * A row of the table of endpoints.  What a connection has many of is listed by
 * endpoints without a name here: clerk_api_listed_by() finds them.
 */
typedef enum ClerkEndpoint
{
	CLERK_CREATE,
	CLERK_LIST,
	CLERK_GET,
	CLERK_UPDATE,
	CLERK_DELETE,
	CLERK_CREATE_TEST_RUN
} ClerkEndpoint;

#define CLERK_MAX_QUERY_ARGUMENTS 4

/* An argument that filters a listing: text, text[] (each element) or boolean. */
typedef struct ClerkQueryArgument
{
	const char *name;			/* of the SQL function's argument and in the
								 * query */
	Oid			type;
} ClerkQueryArgument;

/*
 * A listing and its SQL function, whose arguments are: the id, if it lists what
 * one connection has; those of the query; max_rows, if it takes that; server.
 */
typedef struct ClerkListingInfo
{
	const char *function;		/* NULL: the endpoint does not list */
	const char *element;		/* what is listed: "enterprise connection" */
	bool		takes_max_rows;
	ClerkQueryArgument query[CLERK_MAX_QUERY_ARGUMENTS];	/* the first without a
															 * name ends them */
} ClerkListingInfo;

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
	Jsonb	  **elements;		/* connections with an id; or test runs,
								 * usually objects */
	int			count;
	List	   *left_out;		/* ClerkLeftOut * */
	int64		received;		/* elements and left_out together: the next
								 * page begins after them */
	int64		total;			/* of all pages; -1: the answer does not say */
} ClerkPage;

/*
 * One call of an endpoint.  The caller fills in the first part; what it points
 * to must live until the call is read.
 */
typedef struct ClerkCall
{
	const ClerkSettings *settings;	/* of the server that is called */
	ClerkEndpoint endpoint;
	const char *id;				/* server encoding; of the endpoints that have
								 * one */
	const char *query;			/* encoded, without the question mark, or NULL */
	const ClerkBody *body;
	List	   *secrets;		/* UTF-8 strings in the body that no message
								 * may show */
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

/* Does its path have the id of a connection? */
extern bool clerk_api_has_id(ClerkEndpoint endpoint);

/* Where its requests are counted. */
extern ClerkCounter clerk_api_counter(ClerkEndpoint endpoint);

/* What it does, to follow "could not": "list the enterprise connections". */
extern const char *clerk_api_what(ClerkEndpoint endpoint);

extern const ClerkListingInfo *clerk_api_listing(ClerkEndpoint endpoint);

/* The endpoint that an SQL function of this name lists. */
extern ClerkEndpoint clerk_api_listed_by(const char *function);

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
 * The call is not sent, because Clerk has asked (by a 429) to wait for this many
 * ms: fill in its report.
 */
extern void clerk_call_held_back(ClerkCall *call, int64 wait);

#endif							/* CLERK_ENDPOINT_H */
