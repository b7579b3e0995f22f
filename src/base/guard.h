/*-------------------------------------------------------------------------
 *
 * guard.h
 *		Acting as the owner of the extension's tables, if no other role's code
 *		would.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_GUARD_H
#define CLERK_GUARD_H

/*
 * Throws 42501 if a statement on the extension's tables would run code of a
 * role that is neither their owner nor a superuser: a trigger's function, the
 * triggers of a table that a foreign key's action changes, an expression of a
 * constraint, default, index, policy or rule; or if an object of the extension
 * belongs to such a role.  The answer is kept until something changes.
 *
 * Call it before anything is sent to Clerk: clerk_become_owner() calls it
 * again, but only when there is something to write.
 */
extern void clerk_check_tables(void);

/*
 * Act as the owner of the extension's tables, as referential integrity checks
 * act as theirs.  On ERROR the (sub)transaction's abort restores the user.
 */
typedef struct ClerkUser
{
	Oid			id;
	int			sec_context;
} ClerkUser;

extern void clerk_become_owner(ClerkUser *saved);
extern void clerk_restore_user(const ClerkUser *saved);

#endif							/* CLERK_GUARD_H */
