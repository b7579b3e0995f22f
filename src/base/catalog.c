/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		The extension's own objects: where they are.
 *
 * The extension lives in whatever schema its installer chose, so nothing is
 * found through search_path: everything starts at pg_extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static ClerkCatalog catalog;
static bool catalog_valid = false;

/* Any relation's change may be ours; looking up again costs microseconds. */
static void
forget_catalog(Datum arg, Oid relation)
{
	catalog_valid = false;
}

static void
forget_schema(Datum arg, ClerkSysCacheId cache, uint32 hash)
{
	catalog_valid = false;
}

/*
 * The schema of the extension, or InvalidOid.
 */
static Oid
extension_namespace(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("pg_clerk"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static Oid
relation_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			result = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return result;
}

const ClerkCatalog *
clerk_catalog(void)
{
	static bool registered = false;
	ClerkCatalog found;
	const char *schema;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_catalog, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
		registered = true;
	}
	if (catalog_valid)
		return &catalog;

	/*
	 * Valid before the look-ups: an invalidation that arrives during one of
	 * them must not be lost.
	 */
	catalog_valid = true;
	found.namespace = extension_namespace();
	found.connections = get_relname_relid("enterprise_connections", found.namespace);
	found.connections_key = get_relname_relid("enterprise_connections_pkey", found.namespace);
	found.connections_by_key = get_relname_relid("enterprise_connections_key_server_key", found.namespace);
	found.requests = get_relname_relid("enterprise_connection_requests", found.namespace);
	found.lanes = get_relname_relid("enterprise_connection_requests_lane_idx", found.namespace);
	found.pauses = get_relname_relid("enterprise_connection_pauses", found.namespace);
	found.owner = relation_owner(found.connections);
	schema = get_namespace_name(found.namespace);
	if (schema == NULL || !OidIsValid(found.lanes) ||
		!OidIsValid(found.pauses) || !OidIsValid(found.owner) ||
		!OidIsValid(found.connections) || !OidIsValid(found.connections_key) ||
		!OidIsValid(found.connections_by_key) || !OidIsValid(found.requests))
	{
		catalog_valid = false;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"pg_clerk\" is not installed in this database"),
				 errhint("Use CREATE EXTENSION pg_clerk.")));
	}
	namestrcpy(&found.schema, schema);
	catalog = found;
	return &catalog;
}
