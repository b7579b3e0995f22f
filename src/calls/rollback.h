/*-------------------------------------------------------------------------
 *
 * rollback.h
 *		What becomes of a connection whose transaction is rolled back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_ROLLBACK_H
#define CLERK_ROLLBACK_H

#include "clerk/settings.h"

typedef enum ClerkOnRollback
{
	CLERK_ROLLBACK_WARN,
	CLERK_ROLLBACK_DELETE,
	CLERK_ROLLBACK_IGNORE
} ClerkOnRollback;

/* The value of pg_clerk.on_rollback, a ClerkOnRollback. */
extern int	clerk_on_rollback;

/*
 * Note that the current (sub)transaction has created a connection at Clerk.
 * If it is rolled back, what pg_clerk.on_rollback says now is done.
 */
extern void clerk_rollback_note(const ClerkSettings *settings, const char *id);

/* The same where an error tells of the connection: no warning repeats that. */
extern void clerk_rollback_note_failed(const ClerkSettings *settings, const char *id);

/* The connection was deleted again: there is nothing left to do. */
extern void clerk_rollback_forget(const char *server_name, const char *id);

/* Once in each process that loads the library. */
extern void clerk_rollback_init(void);

#endif							/* CLERK_ROLLBACK_H */
