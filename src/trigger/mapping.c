/*-------------------------------------------------------------------------
 *
 * mapping.c
 *		Mappings of triggers: made when one fires for the first time, checked,
 *		and kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/catalog.h"
#include "base/guard.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "trigger/mapping.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

typedef struct CachedMapping
{
	Oid			trigger;		/* key */
	Mapping    *mapping;
} CachedMapping;

static HTAB *cached_mappings = NULL;
static uint64 invalidations = 0;

bool
clerk_is_sync_trigger(Oid function, int16 type)
{
	return strcmp(get_func_name(function), "sync_enterprise_connection") == 0 &&
		get_func_namespace(function) == clerk_catalog()->namespace &&
		TRIGGER_FOR_ROW(type) && TRIGGER_FOR_AFTER(type);
}

/*
 * Note the trigger that was declared, its table and that one's owner.  The owner
 * of a partition to which it was only handed down may be somebody else.
 */
static void
set_declared(Mapping *mapping, Oid trigger)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	HeapTuple	tuple;

	while (OidIsValid(trigger))
	{
		ScanKeyData key;
		SysScanDesc scan;

		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(trigger));
		scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
		tuple = systable_getnext(scan);
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "could not find trigger %u", trigger);
		mapping->declared = trigger;
		mapping->table = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
		trigger = ((Form_pg_trigger) GETSTRUCT(tuple))->tgparentid;
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(mapping->table));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "could not find relation %u", mapping->table);
	mapping->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
}

Oid
clerk_trigger_owner(Oid trigger)
{
	Mapping		mapping = {0};

	set_declared(&mapping, trigger);
	return mapping.owner;
}

/*-------------------------------------------------------------------------
 * What the catalogs must say
 *-------------------------------------------------------------------------
 */

/*
 * Has the column of a table a unique index of its own?
 */
static bool
has_unique_index(Relation rel, AttrNumber attnum)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		found |= index->indisunique && index->indisvalid && index->indnkeyatts == 1 &&
			index->indkey.values[0] == attnum && heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		ReleaseSysCache(tuple);
	}
	return found;
}

/*
 * Once in a session for each trigger.
 */
static bool
was_warned(Oid trigger)
{
	static List *warned = NIL;
	MemoryContext old;

	if (list_member_oid(warned, trigger))
		return true;
	old = MemoryContextSwitchTo(TopMemoryContext);
	warned = lappend_oid(warned, trigger);
	MemoryContextSwitchTo(old);
	return false;
}

/*
 * Two rows of one key would share a connection, and the first that is deleted
 * would take it away from the other.  A partitioned table may be unable to have
 * the index, so there it is a warning.
 */
static void
check_key_is_unique(const Mapping *mapping)
{
	Relation	rel = table_open(mapping->table, AccessShareLock);
	AttrNumber	attnum = get_attnum(mapping->table, mapping->key->name);
	bool		partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || rel->rd_rel->relispartition;

	if (!has_unique_index(rel, attnum) && !(partitioned && was_warned(mapping->declared)))
		ereport(partitioned ? WARNING : ERROR,
				(errcode(partitioned ? ERRCODE_WARNING : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\", the key of trigger \"%s\", has no unique index of its own",
						mapping->key->name, mapping->trigger),
				 errdetail("Two rows of one key would share a connection."),
				 partitioned ?
				 errhint("See to it that no two partitions have a row of the same key.") :
				 errhint("CREATE UNIQUE INDEX ON %s (%s);",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)),
						 quote_identifier(mapping->key->name))));
	table_close(rel, AccessShareLock);
}

static Oid
topmost_table(Oid table)
{
	return get_rel_relispartition(table) ? llast_oid(get_partition_ancestors(table)) : table;
}

/*
 * The prefix of another trigger of our function, as pg_trigger has it.
 */
static char *
prefix_of(Relation catalog, HeapTuple tuple)
{
	int			nargs = ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs;
	char	  **args = palloc(sizeof(char *) * (nargs + 1));
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_trigger_tgargs, RelationGetDescr(catalog), &isnull);
	char	   *next = isnull ? NULL : VARDATA_ANY(DatumGetByteaPP(datum));

	for (int i = 0; i < nargs && next != NULL; i++)
	{
		args[i] = next;
		next += strlen(next) + 1;
	}
	return next ? clerk_key_prefix(nargs, args) : NULL;
}

/*
 * Rows of two tables must not have the same keys.  The trigger that was there
 * first keeps the prefix, so that nobody can take it away by making another.
 */
static void
check_prefix_is_own(const Mapping *mapping, Oid function)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	Oid			table = topmost_table(mapping->table);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger other = (Form_pg_trigger) GETSTRUCT(tuple);
		char	   *prefix;

		if (other->tgfoid != function || OidIsValid(other->tgparentid) || other->oid >= mapping->declared ||
			other->tgenabled == TRIGGER_DISABLED || topmost_table(other->tgrelid) == table)
			continue;
		prefix = prefix_of(catalog, tuple);
		if (prefix != NULL && strcmp(prefix, mapping->prefix) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("the key prefix \"%s\" of trigger \"%s\" is that of table \"%s\"",
							pnstrdup(prefix, strlen(prefix) - 1), mapping->trigger, get_rel_name(other->tgrelid)),
					 errdetail("Trigger \"%s\" of that table has it.", NameStr(other->tgname)),
					 errhint("Give each table a prefix of its own.")));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*-------------------------------------------------------------------------
 * Mappings
 *-------------------------------------------------------------------------
 */

void
clerk_act_as(Oid role, ClerkUser *saved)
{
	GetUserIdAndSecContext(&saved->id, &saved->sec_context);
	SetUserIdAndSecContext(role, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

Mapping *
clerk_make_mapping(Relation rel, const Trigger *trigger, TupleDesc desc)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk trigger",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Mapping    *mapping = palloc0(sizeof(*mapping));
	ClerkUser	saved;

	mapping->context = context;
	mapping->relation = RelationGetRelid(rel);
	mapping->trigger = pstrdup(trigger->tgname);
	set_declared(mapping, trigger->tgoid);
	clerk_act_as(mapping->owner, &saved);
	clerk_read_arguments(mapping, desc, trigger->tgnargs, trigger->tgargs);
	clerk_restore_user(&saved);
	check_key_is_unique(mapping);
	check_prefix_is_own(mapping, trigger->tgfoid);
	MemoryContextSwitchTo(old);
	return mapping;
}

static void
relation_changed(Datum arg, Oid relation)
{
	HASH_SEQ_STATUS status;
	CachedMapping *entry;

	invalidations++;
	hash_seq_init(&status, cached_mappings);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (relation == InvalidOid || relation == entry->mapping->relation || relation == entry->mapping->table)
			entry->mapping->valid = false;
}

/*
 * Take it out of the cache.  One that is in use goes with its last user.
 */
static void
forget(CachedMapping *entry)
{
	Mapping    *mapping = entry->mapping;

	hash_search(cached_mappings, &entry->trigger, HASH_REMOVE, NULL);
	mapping->cached = false;
	if (mapping->pins == 0)
		MemoryContextDelete(mapping->context);
}

static void
forget_stale_mappings(void)
{
	HASH_SEQ_STATUS status;
	CachedMapping *entry;

	hash_seq_init(&status, cached_mappings);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!entry->mapping->valid)
			forget(entry);
}

static void
init_cache(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(CachedMapping)};

	cached_mappings = hash_create("pg_clerk triggers", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

Mapping *
clerk_pin_mapping(TriggerData *data)
{
	Oid			oid = data->tg_trigger->tgoid;
	CachedMapping *entry;

	if (cached_mappings == NULL)
		init_cache();
	entry = hash_search(cached_mappings, &oid, HASH_FIND, NULL);
	if (entry == NULL || !entry->mapping->valid)
	{
		uint64		before = invalidations;
		Mapping    *mapping;

		forget_stale_mappings();
		mapping = clerk_make_mapping(data->tg_relation, data->tg_trigger, RelationGetDescr(data->tg_relation));
		mapping->valid = before == invalidations;
		mapping->cached = true;
		entry = hash_search(cached_mappings, &oid, HASH_ENTER, NULL);
		entry->mapping = mapping;
		MemoryContextSetParent(mapping->context, CacheMemoryContext);
	}
	entry->mapping->pins++;
	return entry->mapping;
}

void
clerk_unpin_mapping(Mapping *mapping)
{
	if (--mapping->pins == 0 && !mapping->cached)
		MemoryContextDelete(mapping->context);
}
