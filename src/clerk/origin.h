/*-------------------------------------------------------------------------
 *
 * origin.h
 *		Is this database the one for which a server was armed, or a copy of it?
 *
 * A server's option "origin" names the database for which it was armed: the
 * cluster's system identifier, the database's oid and the server's own oid.
 * Whatever copies the server into another database (a dump of the schema alone, a
 * restore over the same database, a template copy, a logical subscriber) copies
 * the option, too, and at least one of the three differs there.  A copy must not
 * send to the original's Clerk instance.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_ORIGIN_H
#define CLERK_ORIGIN_H

typedef enum ClerkOrigin
{
	CLERK_ORIGIN_NONE,			/* never armed */
	CLERK_ORIGIN_HERE,			/* armed for this database */
	CLERK_ORIGIN_ELSEWHERE		/* armed for the database this one is a copy
								 * of */
} ClerkOrigin;

/* What the option "origin" of a server says; NULL: it has none. */
extern ClerkOrigin clerk_origin(Oid server, const char *option);

/* Says what is wrong with a value of the option; NULL if nothing is. */
extern const char *clerk_origin_fault(const char *option);

/* A fingerprint of this database, which a copy of it does not share. */
extern int64 clerk_origin_fingerprint(void);

/*
 * Arm a server that was never armed.  Does not wait: if another open transaction
 * is about to do so, it is left to that one.
 */
extern void clerk_origin_arm_first(Oid server);

#endif							/* CLERK_ORIGIN_H */
