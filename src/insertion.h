/*-------------------------------------------------------------------------
 *
 * insertion.h
 *		A new row of the request table, without a statement.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_INSERTION_H
#define CLERK_INSERTION_H

#include "utils/jsonb.h"

/* NULL where the column is to be null. */
typedef struct ClerkNewRequest
{
	const char *server;
	const char *role;
	const char *operation;
	const char *key;
	const char *connection_id;
	Jsonb	   *params;
	const char *lane;
	bool		held;			/* this database is a copy */
} ClerkNewRequest;

/*
 * Insert a request, whatever the privileges of the current user; no code but
 * PostgreSQL's own is run.  Returns false, and has done nothing, if the table
 * was altered since the extension's script made it, such as with a trigger:
 * then a statement has to do it.
 */
extern bool clerk_insert_request(const ClerkNewRequest *request, int64 *id);

/*
 * Does a lane have an unfinished request?  As of now, whatever the
 * transaction's snapshot, and without a predicate lock.  Returns false if a
 * statement has to find out.
 */
extern bool clerk_lane_is_taken(const char *server, const char *lane, bool *taken);

#endif							/* CLERK_INSERTION_H */
