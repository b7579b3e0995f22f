/*-------------------------------------------------------------------------
 *
 * origin.h
 *		Is this database the one in which a server was armed, or a copy of it?
 *
 * A copy (restored dump, template copy, logical subscriber) has the row that
 * says where the server was armed, but another system identifier or database
 * oid.  It must not speak to Clerk in the original's name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_ORIGIN_H
#define CLERK_ORIGIN_H

typedef enum ClerkOrigin
{
	CLERK_ORIGIN_NONE,			/* never armed */
	CLERK_ORIGIN_HERE,			/* armed in this database */
	CLERK_ORIGIN_ELSEWHERE		/* armed in the database this one is a copy of */
} ClerkOrigin;

/* Reads with the latest snapshot, whatever the transaction's isolation. */
extern ClerkOrigin clerk_origin(const char *server);

/*
 * Arm a server that was never armed.  Never waits: if another open transaction
 * is about to do the same, it is left to that one.
 */
extern void clerk_origin_arm_first(const char *server);

#endif							/* CLERK_ORIGIN_H */
