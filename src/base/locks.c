/*-------------------------------------------------------------------------
 *
 * locks.c
 *		Heavyweight locks: their tags, and which of them are waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/catalog.h"
#include "base/locks.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/inval.h"

/*
 * Tags are those of parts of a server, which has none.  A claimer's lock is of
 * the kind that survives an abort, and is released at exit.
 */
static void
make_tag(LOCKTAG *tag, ClerkLock what, uint32 id)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, ForeignServerRelationId, id, what);
	if (what == CLERK_LOCK_CLAIMER)
		tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

static bool
acquire(ClerkLock what, uint32 id, bool wait)
{
	LOCKTAG		tag;

	make_tag(&tag, what, id);
	if (LockAcquire(&tag, ExclusiveLock, what == CLERK_LOCK_CLAIMER, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;

	/* What the one before has committed. */
	AcceptInvalidationMessages();
	return true;
}

void
clerk_lock(ClerkLock what, uint32 id)
{
	(void) acquire(what, id, true);
}

bool
clerk_try_lock(ClerkLock what, uint32 id)
{
	return acquire(what, id, false);
}

void
clerk_unlock_claimer(uint32 id)
{
	LOCKTAG		tag;

	make_tag(&tag, CLERK_LOCK_CLAIMER, id);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

bool
clerk_claimer_is_gone(uint32 id)
{
	LOCKTAG		tag;

	/* Of the transaction: it keeps away others that find the same. */
	make_tag(&tag, CLERK_LOCK_CLAIMER, id);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

Oid
clerk_hold_server(const char *name)
{
	for (;;)
	{
		Oid			server = get_foreign_server_oid(name, true);

		if (!OidIsValid(server))
			return InvalidOid;
		LockDatabaseObject(ForeignServerRelationId, server, 0, AccessShareLock);

		/* The wait may have been for its end, or for another name. */
		if (get_foreign_server_oid(name, true) == server)
			return server;
		UnlockDatabaseObject(ForeignServerRelationId, server, 0, AccessShareLock);
	}
}

bool
clerk_try_hold_server(Oid server)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ForeignServerRelationId, server, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

bool
clerk_try_lock_tables(void)
{
	const ClerkCatalog *catalog = clerk_catalog();
	Oid			tables[] = {catalog->requests, catalog->connections, catalog->pauses};

	for (size_t i = 0; i < lengthof(tables); i++)
		if (!ConditionalLockRelationOid(tables[i], RowExclusiveLock))
			return false;
	return true;
}
