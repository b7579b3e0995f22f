/*-------------------------------------------------------------------------
 *
 * tracking_mirror.c
 *		What a mirror writes to the tracking table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/catalog.h"
#include "base/jsonb.h"
#include "base/locks.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "tables/tracking_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Writes no row that stays as it is.  A page may have an id twice: the newer
 * answer counts.  Returns whether a row was inserted.
 */
static ClerkStatement track_page_statement = {
	.text = CLERK_INSERT_GIVEN " SELECT DISTINCT ON (p.id) p.*, pg_catalog.clock_timestamp()"
	" FROM " CLERK_GIVEN_ROWS " p ORDER BY p.id, p.updated_at DESC NULLS LAST" CLERK_UPDATE_KNOWN
	" AND known.connection OPERATOR(pg_catalog.<>)"
	" pg_catalog.enterprise_connection_merge(known.connection, excluded.connection)"
	" RETURNING known.xmax OPERATOR(pg_catalog.=) 0, known.id, known.key",
};

static ClerkStatement remove_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t" CLERK_BY_ID
	" AND t.synced_at OPERATOR(pg_catalog.<) $3",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TIMESTAMPTZOID},
};

Snapshot
clerk_mirror_begin(const char *server, int64 up_to, int64 *rows)
{
	Snapshot	before;
	Relation	rel;
	NameData	name;
	ScanKeyData key;
	SysScanDesc scan;

	clerk_lock(CLERK_LOCK_MIRROR, get_foreign_server_oid(server, false));

	/* The query's snapshot is older than the wait. */
	before = RegisterSnapshot(GetLatestSnapshot());
	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	ScanKeyInit(&key, CLERK_COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	scan = systable_beginscan(rel, clerk_catalog()->connections_key, true, before, 1, &key);
	*rows = 0;
	while (*rows < up_to && HeapTupleIsValid(systable_getnext(scan)))
	{
		(*rows)++;
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (*rows > 0)
		return before;
	UnregisterSnapshot(before);
	return NULL;
}

/*
 * Does a row have all that an answer says?  Most rows of most pages are the
 * same to the byte.
 */
static bool
has_all_of(Relation rel, HeapTuple tuple, Jsonb *answer)
{
	bool		isnull;
	Jsonb	   *known = DatumGetJsonbP(heap_getattr(tuple, CLERK_COLUMN_CONNECTION, RelationGetDescr(rel), &isnull));
	Jsonb	   *merged;

	if (VARSIZE(known) == VARSIZE(answer) && memcmp(known, answer, VARSIZE(known)) == 0)
		return true;
	merged = clerk_jsonb_merge(known, answer);
	return compareJsonbContainers(&merged->root, &known->root) == 0;
}

/*
 * The rows of a page that may have to be written.  Where the server had none,
 * that is all of them: the statement itself compares the few that were tracked
 * since then.
 */
static int
find_changes(Relation rel, bool had_rows, Jsonb *const *connections, int count, NameData *server,
			 ClerkColumns *changes)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			found = 0;

	for (int i = 0; i < count; i++)
	{
		ClerkColumns *row = &changes[found];
		HeapTuple	tuple = NULL;

		if (!clerk_columns_of(row, connections[i], server, NULL, 0))
			continue;
		if (had_rows)
			tuple = clerk_tracking_find(rel, snapshot, NameStr(*server), CLERK_COLUMN_ID, CLERK_COLUMN(row, ID));
		if (tuple == NULL || !has_all_of(rel, tuple, DatumGetJsonbP(CLERK_COLUMN(row, CONNECTION))))
			found++;
		if (tuple != NULL)
			heap_freetuple(tuple);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

void
clerk_mirror_page(const char *server, Snapshot before, Jsonb *const *connections, int count,
				  ClerkChangeVisitor visit, void *arg)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	MemoryContext caller = CurrentMemoryContext;
	ClerkColumns *changes = palloc(sizeof(*changes) * Max(count, 1));
	NameData	name;
	int			found;

	namestrcpy(&name, server);
	found = find_changes(rel, before != NULL, connections, count, &name, changes);
	if (found > 0)
	{
		SPI_connect();
		clerk_run_with_rows(&track_page_statement, changes, found);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;
			bool		inserted = DatumGetBool(clerk_row_datum(i, 1, &isnull));
			Datum		id = clerk_row_datum(i, 2, &isnull);
			Datum		key = clerk_row_datum(i, 3, &isnull);
			MemoryContext old = MemoryContextSwitchTo(caller);

			/*
			 * A row that was there when the mirror began has been deleted
			 * since, together with its connection: the page is older than
			 * that.
			 */
			if (inserted && before != NULL &&
				clerk_tracking_find(rel, before, server, CLERK_COLUMN_ID, id) != NULL)
				(void) clerk_untrack(server, TextDatumGetCString(id));
			else
				visit(id, isnull ? (Datum) 0 : key, inserted ? CLERK_CHANGE_INSERTED : CLERK_CHANGE_UPDATED, arg);
			MemoryContextSwitchTo(old);
		}
		SPI_finish();
	}
	table_close(rel, AccessShareLock);
}

void
clerk_mirror_each_row(const char *server, ClerkRowVisitor visit, void *arg)
{
	const ClerkCatalog *catalog = clerk_catalog();
	Relation	rel = table_open(catalog->connections, AccessShareLock);
	Relation	index = index_open(catalog->connections_key, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	NameData	name;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, CLERK_COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool		isnull;
		char	   *id = TextDatumGetCString(heap_getattr(tuple, CLERK_COLUMN_ID, RelationGetDescr(rel), &isnull));

		visit(id, DatumGetTimestampTz(heap_getattr(tuple, CLERK_COLUMN_SYNCED_AT, RelationGetDescr(rel), &isnull)), arg);
		pfree(id);
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

typedef struct Removal
{
	Datum		values[3];
	bool		removed;
} Removal;

static void
remove_row(void *arg)
{
	Removal    *removal = arg;

	SPI_connect();
	clerk_run(&remove_statement, removal->values, NULL, false);
	removal->removed = SPI_processed > 0;
	SPI_finish();
}

/*
 * The deletion has a subtransaction of its own, so that the mirror goes on if a
 * foreign key refuses it.
 */
bool
clerk_mirror_remove(const char *server, const char *id, TimestampTz since, bool *held)
{
	NameData	name;
	Removal		removal = {
		.values = {clerk_name_datum(&name, server), CStringGetTextDatum(id), TimestampTzGetDatum(since)},
	};
	ErrorData  *error = clerk_try(remove_row, &removal);

	*held = error != NULL;
	if (error == NULL)
		return removal.removed;
	if (error->sqlerrcode != ERRCODE_FOREIGN_KEY_VIOLATION &&
		error->sqlerrcode != ERRCODE_RESTRICT_VIOLATION)
		clerk_rethrow(error);
	FreeErrorData(error);
	return true;
}
