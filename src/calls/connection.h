/*-------------------------------------------------------------------------
 *
 * connection.h
 *		What the SQL functions that call Clerk directly have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_CONNECTION_H
#define CLERK_CONNECTION_H

#include "clerk/endpoint.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "fmgr.h"
#include "utils/jsonb.h"

/* Raise 25006 or 25000 where nothing may be written; function is "name()". */
extern void clerk_prevent_write(const char *function);

/* The argument "server", or NULL for the default. */
extern const char *clerk_server_argument(FunctionCallInfo fcinfo, int n);

/* A text argument that must not be null; name is the argument's. */
extern char *clerk_text_argument(FunctionCallInfo fcinfo, int n, const char *name);

extern Jsonb *clerk_jsonb_argument(FunctionCallInfo fcinfo, int n);

/* The parameters, if they are right; else an error. */
extern ClerkParams *clerk_read_params(const ClerkSettings *settings, Jsonb *params,
									  const JsonbValue *named, ClerkOperation operation);

/* The same for an upsert of a connection that exists; see params.h. */
extern ClerkParams *clerk_read_upsert_params(const ClerkSettings *settings, Jsonb *params, const char *provider);

/*
 * Make one call.  Returns its result; or NULL with *report set; or, if report
 * is NULL, raises the error.
 */
extern Jsonb *clerk_call(const ClerkSettings *settings, ClerkEndpoint endpoint, const char *id,
						 const ClerkBody *body, List *secrets, ClerkReport **report);

/*
 * Create a connection, with the PATCH that may have to follow, and track it,
 * under a key if it is not NULL.  Returns it, or as clerk_call does.
 */
extern Jsonb *clerk_create(const ClerkSettings *settings, const ClerkParams *params,
						   const char *key, ClerkReport **report);

/* What a hint with a call must add, if the server is not the default one. */
extern char *clerk_server_clause(const ClerkSettings *settings);

/*
 * Take note of a connection that was just created: for the case of a
 * rollback, and in the tracking table.
 */
extern void clerk_note_creation(const ClerkSettings *settings, Jsonb *connection, const char *key);

#endif							/* CLERK_CONNECTION_H */
