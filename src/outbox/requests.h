/*-------------------------------------------------------------------------
 *
 * requests.h
 *		Enqueueing with all its checks, for SQL functions and triggers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_REQUESTS_H
#define CLERK_REQUESTS_H

#include "clerk/settings.h"
#include "utils/jsonb.h"

/*
 * Check the parameters of a create, update or upsert as a direct call would,
 * and return them in the wire's spelling, as they are stored.  Throws 22023.
 */
extern Jsonb *clerk_check_request_params(const ClerkSettings *settings, const char *operation,
										 Jsonb *params);

/*
 * Enqueue what was checked, for the current user.  In a copy of a database it
 * is held, with a warning.
 */
extern int64 clerk_enqueue_checked(const ClerkSettings *settings, const char *operation,
								   Jsonb *params, const char *key, const char *id, int priority);

/*
 * Does a lane ("key ...") of a server have an unfinished request now, and is the
 * last of them one of this transaction?  Its priority, too, unless that is NULL.
 */
typedef enum ClerkLane
{
	CLERK_LANE_FREE,
	CLERK_LANE_TAKEN,
	CLERK_LANE_OURS
} ClerkLane;

extern ClerkLane clerk_lane(const char *server, const char *lane, int *priority);

/* Warn, once in a session for each reason, that no worker delivers what is enqueued here. */
extern void clerk_warn_if_not_served(void);

#endif							/* CLERK_REQUESTS_H */
