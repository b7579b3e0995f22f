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
#include "access/xact.h"
#include "base/catalog.h"
#include "base/json.h"
#include "base/locks.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "tables/tracking_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Says whether a row was inserted, and writes none that has nothing to learn. */
static ClerkStatement track_page_statement = {
	.text = TRACK_GIVEN_ROWS " AND known.connection OPERATOR(pg_catalog.<>)"
	" pg_catalog.enterprise_connection_merge(known.connection, excluded.connection)"
	" RETURNING known.xmax OPERATOR(pg_catalog.=) 0, known.id, known.key",
};

static ClerkStatement merge_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_merge(t.connection, $3)"
	" OPERATOR(pg_catalog.<>) t.connection FROM %1$s.enterprise_connections t" BY_ID,
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, JSONBOID},
};

static ClerkStatement mirror_remove_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t" BY_ID
	" AND t.synced_at OPERATOR(pg_catalog.<) $3",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TIMESTAMPTZOID},
};

/*
 * Is there a row of this id, and does it hold just this connection (if that is
 * not NULL)?  By the index, whatever the statistics of a table that is just
 * being filled would make of it.
 */
static bool
is_as_known(Relation rel, Snapshot snapshot, Datum server, Datum id, const Jsonb *connection, bool *known)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&keys[0], COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, server);
	ScanKeyEntryInitialize(&keys[1], 0, COLUMN_ID, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, id);
	scan = systable_beginscan(rel, clerk_catalog()->connections_key, true, snapshot, 2, keys);
	tuple = systable_getnext(scan);
	*known = HeapTupleIsValid(tuple);
	if (*known)
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, COLUMN_CONNECTION, RelationGetDescr(rel), &isnull);
		Jsonb	   *other = isnull ? NULL : DatumGetJsonbP(datum);

		result = other != NULL && connection != NULL && VARSIZE(other) == VARSIZE(connection) &&
			memcmp(other, connection, VARSIZE(other)) == 0;
		if (other != (Jsonb *) DatumGetPointer(datum))
			pfree(other);
	}
	systable_endscan(scan);
	return result;
}

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
	ScanKeyInit(&key, COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
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
 * Would the row be another one with this answer merged in?
 */
static bool
learns(Datum server, Datum id, Jsonb *connection)
{
	Datum		values[] = {server, id, JsonbPGetDatum(connection)};
	bool		isnull;
	bool		result;

	SPI_connect();
	clerk_run(&merge_statement, values, NULL, false);
	result = SPI_processed == 0 || DatumGetBool(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return result;
}

/*
 * Order by id, then the newest first.
 */
static int
compare_news(const void *left, const void *right)
{
	const ClerkColumns *a = *(ClerkColumns *const *) left;
	const ClerkColumns *b = *(ClerkColumns *const *) right;
	const text *a_id = DatumGetTextPP(a->values[COLUMN_ID - 1]);
	const text *b_id = DatumGetTextPP(b->values[COLUMN_ID - 1]);
	int			a_len = VARSIZE_ANY_EXHDR(a_id);
	int			b_len = VARSIZE_ANY_EXHDR(b_id);
	int			order = memcmp(VARDATA_ANY(a_id), VARDATA_ANY(b_id), Min(a_len, b_len));
	TimestampTz a_time = a->nulls[COLUMN_UPDATED_AT - 1] == 'n' ? PG_INT64_MIN :
		DatumGetTimestampTz(a->values[COLUMN_UPDATED_AT - 1]);
	TimestampTz b_time = b->nulls[COLUMN_UPDATED_AT - 1] == 'n' ? PG_INT64_MIN :
		DatumGetTimestampTz(b->values[COLUMN_UPDATED_AT - 1]);

	if (order != 0 || a_len != b_len)
		return order != 0 ? order : a_len - b_len;
	return a_time > b_time ? -1 : a_time < b_time;
}

static bool
same_id(const ClerkColumns *a, const ClerkColumns *b)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
												a->values[COLUMN_ID - 1], b->values[COLUMN_ID - 1]));
}

/*
 * What is news of a page.  Most rows of most pages are as they were, to the
 * byte; but where there was none, the statement itself finds out about the
 * few that came since.
 */
static int
find_news(Relation rel, bool had_rows, Jsonb *const *connections, int count, NameData *server,
		  ClerkColumns **news)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			found = 0;

	for (int i = 0; i < count; i++)
	{
		JsonbValue	buf;
		Jsonb	   *connection = clerk_jsonb_without(connections[i], clerk_secret_members);
		JsonbValue *value = JB_ROOT_IS_OBJECT(connection) ? clerk_member(connection, "id", jbvString, &buf) : NULL;
		Datum		id;
		bool		known = false;

		if (value == NULL || value->val.string.len == 0)
			continue;
		id = PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
		if (had_rows &&
			(is_as_known(rel, snapshot, NameGetDatum(server), id, connection, &known) ||
			 (known && !learns(NameGetDatum(server), id, connection))))
			continue;
		news[found] = palloc(sizeof(ClerkColumns));
		clerk_columns_of(news[found++], connection, server, NULL, 0);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * A server may have an id twice on a page: the newer one counts.
 */
static int
sort_news(ClerkColumns **news, int count)
{
	int			kept = 0;

	qsort(news, count, sizeof(*news), compare_news);
	for (int i = 0; i < count; i++)
		if (kept == 0 || !same_id(news[i], news[kept - 1]))
			news[kept++] = news[i];
	return kept;
}

/*
 * Had an id that was just inserted a row when the mirror began?  Then its
 * connection has been deleted since, and the page was older than that.
 */
static bool
deleted_meanwhile(Relation rel, Snapshot before, NameData *server, Datum id)
{
	bool		known;

	(void) is_as_known(rel, before, NameGetDatum(server), id, NULL, &known);
	return known;
}

void
clerk_mirror_page(const char *server, Snapshot before, Jsonb *const *connections, int count,
				  ClerkChangeVisitor visit, void *arg)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	MemoryContext caller = CurrentMemoryContext;
	ClerkColumns   **news = palloc(sizeof(*news) * Max(count, 1));
	NameData	name;
	int			found;

	namestrcpy(&name, server);
	found = sort_news(news, find_news(rel, before != NULL, connections, count, &name, news));
	if (found > 0)
	{
		SPI_connect();
		clerk_run_with_rows(&track_page_statement, rel, news, found);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;
			bool		inserted = DatumGetBool(clerk_row_datum(i, 1, &isnull));
			Datum		id = clerk_row_datum(i, 2, &isnull);
			Datum		key = clerk_row_datum(i, 3, &isnull);
			MemoryContext old = MemoryContextSwitchTo(caller);

			if (inserted && before != NULL && deleted_meanwhile(rel, before, &name, id))
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

	ScanKeyInit(&key, COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool		isnull;
		char	   *id = TextDatumGetCString(heap_getattr(tuple, COLUMN_ID, RelationGetDescr(rel), &isnull));

		visit(id, DatumGetTimestampTz(heap_getattr(tuple, COLUMN_SYNCED_AT, RelationGetDescr(rel), &isnull)), arg);
		pfree(id);
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * A foreign key's refusal must not end the mirror: so the deletion has a
 * subtransaction of its own.
 */
bool
clerk_mirror_remove(const char *server, const char *id, TimestampTz since, bool *held)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(id), TimestampTzGetDatum(since)};
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool removed = false;

	*held = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		SPI_connect();
		clerk_run(&mirror_remove_statement, values, NULL, false);
		removed = SPI_processed > 0;
		SPI_finish();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_FOREIGN_KEY_VIOLATION &&
			error->sqlerrcode != ERRCODE_RESTRICT_VIOLATION)
		{
			MemoryContextSwitchTo(context);
			CurrentResourceOwner = owner;
			clerk_rethrow(error);
		}
		FreeErrorData(error);
		*held = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return removed || *held;
}
