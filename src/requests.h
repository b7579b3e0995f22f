/*-------------------------------------------------------------------------
 *
 * requests.h
 *		Enqueueing with all its checks, for SQL functions and triggers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_REQUESTS_H
#define CLERK_REQUESTS_H

#include "settings.h"
#include "utils/jsonb.h"

/*
 * Check the parameters of a create, update or upsert as a call at once would,
 * and return them in the wire's spelling, as they are stored.  Throws 22023.
 */
extern Jsonb *clerk_check_request_params(const ClerkSettings *settings, const char *operation,
										 Jsonb *params);

/*
 * Enqueue what was checked, for the current user.  In a copy of a database it
 * is held, with a warning.
 */
extern int64 clerk_enqueue_checked(const ClerkSettings *settings, const char *operation,
								   Jsonb *params, const char *key, const char *id);

#endif							/* CLERK_REQUESTS_H */
