/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		The extension's own objects: where they are, and acting as their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_CATALOG_H
#define CLERK_CATALOG_H

typedef struct ClerkCatalog
{
	Oid			namespace;		/* the schema the extension was created in */
	Oid			owner;			/* of the tracking table, and so of all writes */
	Oid			connections;	/* enterprise_connections */
	Oid			connections_key;	/* its primary key's index */
	Oid			requests;		/* enterprise_connection_requests */
	Oid			lanes;			/* its index of what is delivered in order */
	Oid			pauses;			/* enterprise_connection_pauses */
} ClerkCatalog;

/*
 * Look the objects up; cached until a relation changes.  Throws 42704 if the
 * extension is not (or no longer) there.  Valid until the next call.
 */
extern const ClerkCatalog *clerk_catalog(void);

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

#endif							/* CLERK_CATALOG_H */
