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
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
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

/*
 * A name as CREATE EXTENSION writes it into the script: quoted where it must
 * be, even if the session quotes all.
 */
static const char *
installed_spelling(const char *name)
{
	bool		all = quote_all_identifiers;
	const char *result;

	quote_all_identifiers = false;
	result = quote_identifier(name);
	quote_all_identifiers = all;
	return result;
}

/*
 * The bodies of the extension's functions have the schema's name as text, from
 * when it was installed.  In a schema of another name they would find nothing,
 * or what somebody has put into a new schema of the old name.  The name is in
 * the body of a function that has nothing else.
 */
static void
check_schema_name(Oid namespace)
{
	const char *present = installed_spelling(get_namespace_name(namespace));
	HeapTuple	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum("enterprise_connection_schema"),
										PointerGetDatum(buildoidvector(NULL, 0)),
										ObjectIdGetDatum(namespace));
	Datum		body;
	bool		isnull;
	char	   *installed;

	if (!HeapTupleIsValid(tuple))
	{
		catalog_valid = false;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function \"enterprise_connection_schema\" of extension \"pg_clerk\" is missing")));
	}
	body = SysCacheGetAttr(PROCNAMEARGSNSP, tuple, Anum_pg_proc_prosrc, &isnull);
	installed = TextDatumGetCString(body);
	ReleaseSysCache(tuple);
	if (strcmp(installed, psprintf("SELECT '%s'", present)) != 0)
	{
		catalog_valid = false;
		/* between the apostrophes */
		installed += strlen("SELECT '");
		installed[strlen(installed) - 1] = '\0';
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema %s of extension \"pg_clerk\" was renamed to %s", installed, present),
				 errdetail("The extension's functions have the name that the schema had when it was installed."),
				 errhint("Use ALTER SCHEMA %s RENAME TO %s.", present, installed)));
	}
}

const ClerkCatalog *
clerk_catalog(void)
{
	static bool registered = false;
	ClerkCatalog found;

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
	if (!OidIsValid(found.namespace) || !OidIsValid(found.lanes) ||
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
	check_schema_name(found.namespace);
	catalog = found;
	return &catalog;
}
