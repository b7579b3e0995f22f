/*-------------------------------------------------------------------------
 *
 * locks.h
 *		Heavyweight locks: their tags, and which of them are waited for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_LOCKS_H
#define CLERK_LOCKS_H

/* What is locked; the sub-id of the tag.  All are locked exclusively. */
typedef enum ClerkLock
{
	CLERK_LOCK_ARMING = 1,		/* a server's oid: writing its origin */
	CLERK_LOCK_MIRROR,			/* a server's oid: one mirror at a time */
	CLERK_LOCK_QUEUE,			/* a server's oid: one process at a time
								 * claims from it, or adopts */
	CLERK_LOCK_CLAIMER			/* a process that delivers, by its number; of
								 * the session */
} ClerkLock;

/*
 * Wait for the lock, or return false if it is not free.  It is held until the
 * transaction ends, or, for a claimer, until it is released or the process
 * ends.
 */
extern void clerk_lock(ClerkLock what, uint32 id);
extern bool clerk_try_lock(ClerkLock what, uint32 id);
extern void clerk_unlock_claimer(uint32 id);

/* Is the lock free, or this session's own? */
extern bool clerk_claimer_is_gone(uint32 id);

/*
 * Hold on to a server until the transaction ends: it can be neither dropped nor
 * renamed, so that what is written under its name is its own.  The first
 * waits, and returns the oid of the server of that name (InvalidOid if there
 * is none); the second returns false instead of waiting.
 */
extern Oid	clerk_hold_server(const char *name);
extern bool clerk_try_hold_server(Oid server);

/*
 * Lock the extension's tables for writing, all of them or none; false if
 * somebody has locked one of them, such as DROP EXTENSION, REINDEX or ALTER
 * TABLE.  At the beginning of a transaction that has no other lock: taken one
 * by one in the middle of it, they would deadlock with a command that takes several.
 */
extern bool clerk_try_lock_tables(void);

#endif							/* CLERK_LOCKS_H */
