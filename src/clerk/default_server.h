/*-------------------------------------------------------------------------
 *
 * default_server.h
 *		pg_clerk.server: the foreign server that is meant where a call names
 *		none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_DEFAULT_SERVER_H
#define CLERK_DEFAULT_SERVER_H

/* The value of pg_clerk.server in this session, set by any role. */
extern char *clerk_default_server;

/* To be called by _PG_init. */
extern void clerk_default_server_init(void);

/*
 * The name of the server that is meant for the current user.  In a SECURITY
 * DEFINER function, a caller's setting does not choose it.  Throws 55000 where
 * nobody can say which one is meant.
 */
extern const char *clerk_default_server_name(void);

#endif							/* CLERK_DEFAULT_SERVER_H */
