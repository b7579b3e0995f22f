/*-------------------------------------------------------------------------
 *
 * api.h
 *		Clerk's endpoints, free of HTTP: a request in, an answer out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_API_H
#define MOCK_API_H

#include "answer.h"

/* A larger body is refused with 413. */
#define API_MAX_BODY	(16 * 1024 * 1024)

/*
 * All pointers belong to the caller.  target is as on the wire, undecoded;
 * headers that were not sent are NULL.  Of a body over the cap only its being
 * too large is known.
 */
typedef struct ApiRequest
{
	const char *method;
	const char *target;
	const char *authorization;
	const char *api_version;
	const char *content_type;
	const GString *body;
	bool		body_too_large;
} ApiRequest;

/*
 * The part of a target that follows /v1, without the query, for the caller to
 * free; NULL when there is no /v1/ in it.  *query is what follows '?', or NULL.
 */
extern char *api_path(const char *target, const char **query);

/* Carry out a request on the store. */
extern void api_execute(const ApiRequest *request, Answer *answer);

/* The time to stamp on the next write, in milliseconds. */
extern gint64 api_write_time(void);

#endif							/* MOCK_API_H */
