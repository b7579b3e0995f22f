/*-------------------------------------------------------------------------
 *
 * origin.c
 *		Is this database the one in which a server was armed, or a copy of it?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "guard.h"
#include "miscadmin.h"
#include "origin.h"
#include "statements.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "wake.h"

/* Columns of enterprise_connection_origins. */
enum
{
	ORIGIN_SERVER = 1,
	ORIGIN_SYSTEM_IDENTIFIER,
	ORIGIN_DATABASE
};

PG_FUNCTION_INFO_V1(arm_enterprise_connections);

static bool
tuple_is_here(Relation rel, HeapTuple tuple)
{
	bool		isnull[2];
	Datum		system = heap_getattr(tuple, ORIGIN_SYSTEM_IDENTIFIER,
									  RelationGetDescr(rel), &isnull[0]);
	Datum		database = heap_getattr(tuple, ORIGIN_DATABASE,
										RelationGetDescr(rel), &isnull[1]);

	return !isnull[0] && !isnull[1] &&
		DatumGetInt64(system) == (int64) GetSystemIdentifier() &&
		DatumGetObjectId(database) == MyDatabaseId;
}

ClerkOrigin
clerk_origin(const char *server)
{
	const ClerkCatalog *catalog = clerk_catalog();
	Relation	rel = table_open(catalog->origins, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ClerkOrigin result = CLERK_ORIGIN_NONE;
	NameData	name;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	namestrcpy(&name, server);
	ScanKeyInit(&key, ORIGIN_SERVER, BTEqualStrategyNumber, F_NAMEEQ,
				NameGetDatum(&name));
	scan = systable_beginscan(rel, catalog->origins_key, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = tuple_is_here(rel, tuple) ? CLERK_ORIGIN_HERE : CLERK_ORIGIN_ELSEWHERE;
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Write the row, as the owner of the table.
 */
static void
write_origin(const char *server, bool replace)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(clerk_catalog()->namespace),
												   "enterprise_connection_origins");
	Oid			types[] = {NAMEOID, INT8OID, OIDOID, NAMEOID, INT4OID};
	NameData	name;
	NameData	role;
	Datum		values[5];
	ClerkUser	saved;
	int			result;

	namestrcpy(&name, server);
	namestrcpy(&role, GetUserNameFromId(GetUserId(), false));
	values[0] = NameGetDatum(&name);
	values[1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	values[3] = NameGetDatum(&role);
	values[4] = Int32GetDatum((int32) clerk_timeline());

	clerk_become_owner(&saved);
	SPI_connect();
	result = SPI_execute_with_args(psprintf("INSERT INTO %s AS o (server, system_identifier, database, armed_at, armed_by, timeline)"
											" VALUES ($1, $2, $3, pg_catalog.now(), $4, $5)"
											" ON CONFLICT (server) DO %s", table,
											replace ? "UPDATE SET system_identifier = excluded.system_identifier,"
											" database = excluded.database, armed_at = excluded.armed_at,"
											" armed_by = excluded.armed_by, timeline = excluded.timeline" : "NOTHING"),
								   lengthof(types), types, values, NULL, false, 0);
	if (result != SPI_OK_INSERT)
		elog(ERROR, "could not arm server \"%s\": SPI error %d", server, result);
	SPI_finish();
	clerk_restore_user(&saved);
}

void
clerk_origin_arm_first(const char *server)
{
	LOCKTAG		tag;

	/*
	 * Two first uses at the same time would have one wait for the other's
	 * commit, and that transaction may be waiting for Clerk.  Whoever gets
	 * the lock writes; the row is the same whoever writes it.
	 */
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, clerk_catalog()->origins,
					   get_foreign_server_oid(server, false), 0);
	if (LockAcquire(&tag, ShareUpdateExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return;
	write_origin(server, false);
}

/*
 * What was held because this is a copy may go on.
 */
static void
release_held(NameData *server)
{
	static ClerkStatement release_statement = {
		.text = "SELECT pg_catalog.enterprise_connection_release($1)",
		.nargs = 1,
		.args = {NAMEOID},
	};
	Datum		values[] = {NameGetDatum(server)};

	SPI_connect();
	clerk_run(&release_statement, values, NULL, false);
	SPI_finish();
	clerk_wake_at_commit();
}

/*
 * arm_enterprise_connections(server name): let this database speak to Clerk in
 * this server's name, although the server was armed elsewhere.  Only for the
 * server's owner: in a copy of production this is the step that must be meant.
 */
Datum
arm_enterprise_connections(PG_FUNCTION_ARGS)
{
	char	   *server = NameStr(*PG_GETARG_NAME(0));
	Oid			oid = get_foreign_server_oid(server, false);

	if (!clerk_server_ownercheck(oid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, server);
	PreventCommandIfReadOnly("arm_enterprise_connections()");
	write_origin(server, true);
	release_held(PG_GETARG_NAME(0));
	PG_RETURN_VOID();
}
