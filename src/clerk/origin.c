/*-------------------------------------------------------------------------
 *
 * origin.c
 *		Is this database the one for which a server was armed, or a copy of it?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/wake.h"
#include "catalog/indexing.h"
#include "catalog/pg_foreign_server.h"
#include "clerk/origin.h"
#include "clerk/settings.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(arm_enterprise_connections);
PG_FUNCTION_INFO_V1(enterprise_connection_origin);
PG_FUNCTION_INFO_V1(enterprise_connection_is_armed);

/*-------------------------------------------------------------------------
 * Looking
 *-------------------------------------------------------------------------
 */

static char *
origin_of_here(Oid server)
{
	return psprintf(UINT64_FORMAT "/%u/%u", GetSystemIdentifier(), MyDatabaseId, server);
}

ClerkOrigin
clerk_origin(Oid server, const char *option)
{
	if (option == NULL)
		return CLERK_ORIGIN_NONE;
	return strcmp(option, origin_of_here(server)) == 0 ? CLERK_ORIGIN_HERE : CLERK_ORIGIN_ELSEWHERE;
}

const char *
clerk_origin_fault(const char *option)
{
	if (*option != '\0' && strspn(option, "0123456789/") == strlen(option))
		return NULL;
	return "It is set by pg_clerk itself; arm_enterprise_connections() arms a server for this database.";
}

int64
clerk_origin_fingerprint(void)
{
	struct
	{
		uint64		system_identifier;
		uint64		database;
	}			here = {GetSystemIdentifier(), MyDatabaseId};

	return (int64) hash_bytes_extended((const unsigned char *) &here, sizeof(here), 0);
}

/*
 * enterprise_connection_origin()
 */
Datum
enterprise_connection_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(clerk_origin_fingerprint());
}

/*
 * enterprise_connection_is_armed(server name)
 */
Datum
enterprise_connection_is_armed(PG_FUNCTION_ARGS)
{
	ClerkOrigin origin;

	PG_RETURN_BOOL(clerk_settings_origin(NameStr(*PG_GETARG_NAME(0)), &origin) &&
				   origin != CLERK_ORIGIN_ELSEWHERE);
}

/*-------------------------------------------------------------------------
 * Arming
 *-------------------------------------------------------------------------
 */

/*
 * The options of a server, with another origin.
 */
static Datum
options_with_origin(HeapTuple tuple, Oid server)
{
	DefElem    *origin = makeDefElem("origin", (Node *) makeString(origin_of_here(server)), -1);
	bool		isnull;
	Datum		options = SysCacheGetAttr(FOREIGNSERVEROID, tuple, Anum_pg_foreign_server_srvoptions, &isnull);
	ListCell   *lc;

	origin->defaction = DEFELEM_ADD;
	foreach(lc, isnull ? NIL : untransformRelOptions(options))
		if (strcmp(lfirst_node(DefElem, lc)->defname, "origin") == 0)
		origin->defaction = DEFELEM_SET;
	return transformGenericOptions(ForeignServerRelationId, isnull ? PointerGetDatum(NULL) : options,
								   list_make1(origin), InvalidOid);
}

/*
 * Write the option into the catalog, without ALTER SERVER: the role that uses a
 * server first is seldom its owner, and event triggers would run in the middle of
 * a call.
 */
static void
write_origin(Oid server)
{
	Relation	rel = table_open(ForeignServerRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(FOREIGNSERVEROID, ObjectIdGetDatum(server));
	Datum		values[Natts_pg_foreign_server] = {0};
	bool		nulls[Natts_pg_foreign_server] = {0};
	bool		replace[Natts_pg_foreign_server] = {0};

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for foreign server %u", server);
	values[Anum_pg_foreign_server_srvoptions - 1] = options_with_origin(tuple, server);
	replace[Anum_pg_foreign_server_srvoptions - 1] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

void
clerk_origin_arm_first(Oid server)
{
	ClerkOrigin origin;

	/*
	 * If another transaction is about to arm the server, leave it to that
	 * one: it may be waiting for Clerk, and both would write the same option.
	 */
	if (clerk_try_lock(CLERK_LOCK_ARMING, server) &&
		clerk_settings_origin(GetForeignServer(server)->servername, &origin) &&
		origin == CLERK_ORIGIN_NONE)
		write_origin(server);
}

/*
 * arm_enterprise_connections(server name): let this database send to Clerk for
 * this server, although the server was armed for another database.  Only for the
 * server's owner: in a copy of production, nothing may arm a server by accident.
 *
 * Nothing else has to be written.  A request in the outbox has the database in
 * which it was enqueued; if that is another one, a create is looked up before it
 * is sent.
 */
Datum
arm_enterprise_connections(PG_FUNCTION_ARGS)
{
	char	   *name = NameStr(*PG_GETARG_NAME(0));
	Oid			server = clerk_held_server(name);

	if (!clerk_server_ownercheck(server, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, name);
	PreventCommandIfReadOnly("arm_enterprise_connections()");
	clerk_lock(CLERK_LOCK_ARMING, server);
	write_origin(server);
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
