/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		The extension's own objects: where they are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_CATALOG_H
#define CLERK_CATALOG_H

typedef struct ClerkCatalog
{
	Oid			namespace;		/* the schema the extension was created in */
	NameData	schema;			/* its name, as it is now */
	Oid			owner;			/* of the tracking table, and so of all writes */
	Oid			connections;	/* enterprise_connections */
	Oid			connections_key;	/* its primary key's index */
	Oid			connections_by_key; /* its index of keys */
	Oid			requests;		/* enterprise_connection_requests */
	Oid			lanes;			/* its index of what is delivered in order */
	Oid			pauses;			/* enterprise_connection_pauses */
} ClerkCatalog;

/*
 * Look the objects up; cached until a relation or a schema changes.  Throws
 * 42704 if the extension is not (or no longer) there.  Valid until the next
 * call.
 */
extern const ClerkCatalog *clerk_catalog(void);

#endif							/* CLERK_CATALOG_H */
