/*-------------------------------------------------------------------------
 *
 * tracking.c
 *		The tracking table, enterprise_connections: what is known of Clerk's
 *		connections, a row each.
 *
 * Only this file and tracking_mirror.c write to it, as the tables' owner, so
 * that no user can forge a row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/limits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "tables/tracking_internal.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(track_enterprise_connection);

static ClerkStatement track_rows_statement = {
	.text = CLERK_INSERT_GIVEN " SELECT p.*, pg_catalog.clock_timestamp() FROM " CLERK_GIVEN_ROWS " p" CLERK_UPDATE_KNOWN,
};

/* The same for a single row, which need not go through a tuplestore. */
static ClerkStatement track_row_statement = {
	.text = CLERK_INSERT_GIVEN " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, pg_catalog.clock_timestamp())"
	CLERK_UPDATE_KNOWN,
	.nargs = CLERK_ANSWER_COLUMNS,
	.args = {NAMEOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID,
	BOOLOID, BOOLOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID},
};

static ClerkStatement set_key_statement = {
	.text = "UPDATE %1$s.enterprise_connections t SET key = $3" CLERK_BY_ID
	" AND (t.key IS NULL OR t.key OPERATOR(pg_catalog.<>) $3)",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TEXTOID},
};

/* The id of a row that only reserves a key: no id of Clerk's has a space. */
#define RESERVED "'reserved for '::pg_catalog.text OPERATOR(pg_catalog.||) $2"

static ClerkStatement reserve_key_statement = {
	.text = "INSERT INTO %1$s.enterprise_connections (server, id, key, connection, synced_at)"
	" VALUES ($1, " RESERVED ", $2, '{}', pg_catalog.clock_timestamp())"
	" ON CONFLICT (key, server) WHERE key IS NOT NULL DO NOTHING",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement free_key_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t WHERE t.server OPERATOR(pg_catalog.=) $1"
	" AND t.id OPERATOR(pg_catalog.=) (" RESERVED ")",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

#define LOCK_ROW "SELECT t.id, t.key, t.provider, t.ctid FROM %1$s.enterprise_connections t"

static ClerkStatement lock_by_id_statement = {
	.text = LOCK_ROW CLERK_BY_ID " FOR UPDATE",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement lock_by_key_statement = {
	.text = LOCK_ROW " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.key OPERATOR(pg_catalog.=) $2 FOR UPDATE",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement untrack_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t WHERE t.server OPERATOR(pg_catalog.=) $1"
	" AND t.id OPERATOR(pg_catalog.=) ANY ($2)",
	.nargs = 2,
	.args = {NAMEOID, TEXTARRAYOID},
};

/*
 * Does an id or key have a row that cannot be locked?  OFFSET 0 keeps the first
 * look-up from becoming a join, or a hash of the whole table; CASE makes the
 * second one wait for the first, row by row.
 */
#define LOCKED(column) \
	"CASE WHEN EXISTS (SELECT FROM %1$s.enterprise_connections t" \
	" WHERE t.server OPERATOR(pg_catalog.=) $1 AND t." column " OPERATOR(pg_catalog.=) w." column " OFFSET 0)" \
	" THEN NOT EXISTS (SELECT FROM %1$s.enterprise_connections t" \
	" WHERE t.server OPERATOR(pg_catalog.=) $1 AND t." column " OPERATOR(pg_catalog.=) w." column \
	" FOR UPDATE SKIP LOCKED) ELSE false END"

static ClerkStatement try_lock_all_statement = {
	.text = "SELECT w.n FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY w(id, key, n)"
	" WHERE " LOCKED("id") " OR " LOCKED("key"),
	.nargs = 3,
	.args = {NAMEOID, TEXTARRAYOID, TEXTARRAYOID},
};

/*-------------------------------------------------------------------------
 * An answer's columns
 *
 * A member of an unexpected type counts as absent: the connection exists, so
 * it must have a row.
 *-------------------------------------------------------------------------
 */

/* The timestamps that Clerk's milliseconds can be: up to the year 9999. */
#define MAX_MILLISECONDS INT64CONST(253402300799999)

/*
 * Clerk never answers a client secret.  If it did one day, or if something in
 * between echoed ours, every role with USAGE could read it in the table.
 */
static const char *const secret_members[] = {"client_secret", "clientSecret", NULL};

static void
add_column(ClerkColumns *columns, bool isnull, Datum value)
{
	columns->nulls[columns->count] = isnull;
	columns->values[columns->count++] = value;
}

static JsonbValue *
member(Jsonb *object, const char *name, enum jbvType type, JsonbValue *buf)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, (int) strlen(name), buf);

	return value != NULL && value->type == type ? value : NULL;
}

static Datum
string_datum(const JsonbValue *value)
{
	return PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
}

static void
add_text(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = member(connection, name, jbvString, &buf);

	add_column(columns, value == NULL, value == NULL ? (Datum) 0 : string_datum(value));
}

static void
add_boolean(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = member(connection, name, jbvBool, &buf);

	add_column(columns, value == NULL, BoolGetDatum(value != NULL && value->val.boolean));
}

static void
add_timestamp(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = member(connection, name, jbvNumeric, &buf);
	double		ms = -1;

	if (value != NULL)
		ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
												NumericGetDatum(value->val.numeric)));
	if (ms >= 0 && ms <= MAX_MILLISECONDS)
		add_column(columns, false,
				   TimestampTzGetDatum(time_t_to_timestamptz(0) + (TimestampTz) (ms * 1000)));
	else
		add_column(columns, true, (Datum) 0);
}

/*
 * An array of strings; what is none in it is left out.
 */
static void
add_texts(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *array = member(connection, name, jbvBinary, &buf);
	Datum	   *texts;
	int			count = 0;

	if (array == NULL || !JsonContainerIsArray(array->val.binary.data))
	{
		add_column(columns, true, (Datum) 0);
		return;
	}
	texts = palloc(sizeof(Datum) * (JsonContainerSize(array->val.binary.data) + 1));
	for (uint32 i = 0; i < JsonContainerSize(array->val.binary.data); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (element->type == jbvString)
			texts[count++] = string_datum(element);
	}
	add_column(columns, false,
			   PointerGetDatum(construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT)));
}

bool
clerk_columns_of(ClerkColumns *columns, Jsonb *connection, NameData *server, const char *key, int64 request)
{
	JsonbValue	buf;
	JsonbValue *id;

	connection = clerk_jsonb_without(connection, secret_members);
	id = JB_ROOT_IS_OBJECT(connection) ? member(connection, "id", jbvString, &buf) : NULL;
	if (id == NULL || id->val.string.len == 0)
		return false;

	/* In the order of ClerkTrackingColumn. */
	columns->count = 0;
	add_column(columns, false, NameGetDatum(server));
	add_column(columns, false, string_datum(id));
	add_column(columns, key == NULL, key ? CStringGetTextDatum(key) : (Datum) 0);
	add_text(columns, connection, "organization_id");
	add_text(columns, connection, "name");
	add_text(columns, connection, "provider");
	add_texts(columns, connection, "domains");
	add_boolean(columns, connection, "active");
	add_boolean(columns, connection, "sync_user_attributes");
	add_column(columns, false, JsonbPGetDatum(connection));
	add_timestamp(columns, connection, "created_at");
	add_timestamp(columns, connection, "updated_at");
	add_column(columns, request == 0, Int64GetDatum(request));
	Assert(columns->count == CLERK_ANSWER_COLUMNS);
	return true;
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

/*
 * The columns of the rows that a statement is given, as the table has them.
 */
static TupleDesc
given_descriptor(void)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	TupleDesc	desc = CreateTemplateTupleDesc(CLERK_ANSWER_COLUMNS);

	for (int i = 1; i <= desc->natts; i++)
		TupleDescCopyEntry(desc, i, RelationGetDescr(rel), i);
	table_close(rel, AccessShareLock);
	return clerk_complete_descriptor(desc);
}

void
clerk_run_with_rows(ClerkStatement *statement, ClerkColumns *rows, int count)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	EphemeralNamedRelationData given = {
		.md = {
			.name = CLERK_GIVEN_ROWS,
			.tupdesc = given_descriptor(),
			.enrtype = ENR_NAMED_TUPLESTORE,
			.enrtuples = count,
		},
		.reldata = store,
	};

	for (int i = 0; i < count; i++)
		tuplestore_putvalues(store, given.md.tupdesc, rows[i].values, rows[i].nulls);
	if (SPI_register_relation(&given) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\"", given.md.name);
	clerk_run(statement, NULL, NULL, false);
	SPI_unregister_relation(given.md.name);
	tuplestore_end(store);
}

static void
track_row(ClerkColumns *row)
{
	char		nulls[CLERK_ANSWER_COLUMNS];

	for (int i = 0; i < CLERK_ANSWER_COLUMNS; i++)
		nulls[i] = row->nulls[i] ? 'n' : ' ';
	clerk_run(&track_row_statement, row->values, nulls, false);
}

/*
 * Track rows of different ids: a statement can write a row only once.
 */
static void
track_rows(ClerkColumns *rows, int count)
{
	if (count == 1)
		track_row(rows);
	else
		clerk_run_with_rows(&track_rows_statement, rows, count);
	if (SPI_processed == (uint64) count)
		return;

	/*
	 * An answer that is older than its row was not written.  The key is the
	 * caller's, not the answer's, so it is set all the same.
	 */
	for (int i = 0; i < count; i++)
	{
		Datum		values[] = {CLERK_COLUMN(&rows[i], SERVER), CLERK_COLUMN(&rows[i], ID), CLERK_COLUMN(&rows[i], KEY)};

		if (!CLERK_COLUMN_IS_NULL(&rows[i], KEY))
			clerk_run(&set_key_statement, values, NULL, false);
	}
}

void
clerk_track(Jsonb *connection, const char *server, const char *key)
{
	ClerkColumns row;
	NameData	name;

	namestrcpy(&name, server);
	SPI_connect();
	if (clerk_columns_of(&row, connection, &name, key, 0))
		track_rows(&row, 1);
	SPI_finish();
}

/*
 * By id, so that all processes that write several rows write them in the same
 * order and cannot deadlock; those of one id as they were given.
 */
static int
compare_rows(const void *left, const void *right)
{
	const ClerkTrackRow *a = *(const ClerkTrackRow *const *) left;
	const ClerkTrackRow *b = *(const ClerkTrackRow *const *) right;
	int			order = strcmp(a->id, b->id);

	return order != 0 ? order : a < b ? -1 : a > b;
}

void
clerk_track_all(const char *server, const ClerkTrackRow *rows, int count)
{
	const ClerkTrackRow **sorted;
	ClerkColumns *columns;
	NameData	name;
	int			n = 0;

	namestrcpy(&name, server);
	SPI_connect();
	sorted = palloc(sizeof(*sorted) * Max(count, 1));
	columns = palloc(sizeof(*columns) * Max(count, 1));
	for (int i = 0; i < count; i++)
		sorted[i] = &rows[i];
	qsort(sorted, count, sizeof(*sorted), compare_rows);
	for (int i = 0; i < count; i++)
	{
		/* An id that comes again is left to the next statement. */
		if (n > 0 && strcmp(sorted[i]->id, sorted[i - 1]->id) == 0)
		{
			track_rows(columns, n);
			n = 0;
		}
		if (clerk_columns_of(&columns[n], sorted[i]->connection, &name, sorted[i]->key, sorted[i]->request))
			n++;
	}
	if (n > 0)
		track_rows(columns, n);
	SPI_finish();
}

/*
 * Run a statement on the row of a server that value stands for.  Returns how
 * many rows it has changed.
 */
static uint64
run_for(ClerkStatement *statement, const char *server, Datum value)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), value};
	uint64		changed;

	SPI_connect();
	clerk_run(statement, values, NULL, false);
	changed = SPI_processed;
	SPI_finish();
	return changed;
}

/*
 * An array of strings, those that are NULL as nulls.
 */
static Datum
texts_datum(const char *const *strings, int count)
{
	Datum	   *texts = palloc(sizeof(Datum) * Max(count, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(count, 1));
	int			lower_bound = 1;

	for (int i = 0; i < count; i++)
	{
		nulls[i] = strings[i] == NULL;
		texts[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(strings[i]);
	}
	return PointerGetDatum(construct_md_array(texts, nulls, 1, &count, &lower_bound,
											  TEXTOID, -1, false, TYPALIGN_INT));
}

uint64
clerk_untrack_all(const char *server, const char *const *ids, int count)
{
	return run_for(&untrack_statement, server, texts_datum(ids, count));
}

bool
clerk_untrack(const char *server, const char *id)
{
	return clerk_untrack_all(server, &id, 1) > 0;
}

/*
 * track_enterprise_connection(connection jsonb, server name, key text), for
 * the extension's owner: by hand, where something has to be mended.
 */
Datum
track_enterprise_connection(PG_FUNCTION_ARGS)
{
	Jsonb	   *connection;
	char	   *id;
	char	   *key;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("connection and server cannot be null")));
	connection = PG_GETARG_JSONB_P(0);
	id = JB_ROOT_IS_OBJECT(connection) ? clerk_jsonb_string(connection, "id") : NULL;
	if (id == NULL || *id == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connection must be an object with an id")));
	key = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	clerk_api_check_length("the connection's id", id);
	if (key != NULL)
		clerk_api_check_length("argument \"key\"", key);
	clerk_track(connection, NameStr(*PG_GETARG_NAME(1)), key);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

HeapTuple
clerk_tracking_find(Relation rel, Snapshot snapshot, const char *server, ClerkTrackingColumn column, Datum value)
{
	bool		by_key = column == CLERK_COLUMN_KEY;
	NameData	name;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	/* In the order of the index. */
	ScanKeyInit(&keys[by_key ? 1 : 0], CLERK_COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ,
				clerk_name_datum(&name, server));
	ScanKeyEntryInitialize(&keys[by_key ? 0 : 1], 0, column, BTEqualStrategyNumber, InvalidOid,
						   by_key ? DEFAULT_COLLATION_OID : C_COLLATION_OID, F_TEXTEQ, value);
	scan = systable_beginscan(rel, by_key ? clerk_catalog()->connections_by_key : clerk_catalog()->connections_key,
							  true, snapshot, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	return tuple;
}

/*
 * A text of the row of an id or key, as it was committed last; NULL if there is
 * no row, or no text in it.
 */
static char *
tracked_text(const char *server, ClerkTrackingColumn by, const char *value, ClerkTrackingColumn wanted)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	HeapTuple	tuple = clerk_tracking_find(rel, snapshot, server, by, CStringGetTextDatum(value));
	Datum		datum = (Datum) 0;
	bool		isnull = true;
	char	   *result;

	if (HeapTupleIsValid(tuple))
		datum = heap_getattr(tuple, wanted, RelationGetDescr(rel), &isnull);
	result = isnull ? NULL : TextDatumGetCString(datum);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

char *
clerk_tracked_key(const char *server, const char *id)
{
	return tracked_text(server, CLERK_COLUMN_ID, id, CLERK_COLUMN_KEY);
}

char *
clerk_tracked_provider(const char *server, const char *id)
{
	return tracked_text(server, CLERK_COLUMN_ID, id, CLERK_COLUMN_PROVIDER);
}

/*-------------------------------------------------------------------------
 * Locking
 *-------------------------------------------------------------------------
 */

/*
 * Is the row that was locked (NULL: none) the one that the transaction's
 * snapshot has?
 */
static bool
is_visible(ItemPointer locked, const char *server, ClerkTrackingColumn column, Datum value)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	HeapTuple	tuple = clerk_tracking_find(rel, snapshot, server, column, value);

	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	if (!HeapTupleIsValid(tuple) || locked == NULL)
		return !HeapTupleIsValid(tuple) && locked == NULL;
	return ItemPointerEquals(&tuple->t_self, locked);
}

static ClerkTracked *
lock_row(const char *server, ClerkTrackingColumn column, const char *value)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(value)};
	ClerkTracked *row = NULL;
	ItemPointer locked = NULL;

	SPI_connect();
	clerk_run(column == CLERK_COLUMN_KEY ? &lock_by_key_statement : &lock_by_id_statement, values, NULL, true);
	if (SPI_processed > 0)
	{
		bool		isnull;
		MemoryContext spi = MemoryContextSwitchTo(caller);

		row = palloc(sizeof(*row));
		row->id = clerk_row_text(0, 1);
		row->key = clerk_row_text(0, 2);
		row->provider = clerk_row_text(0, 3);
		MemoryContextSwitchTo(spi);
		locked = (ItemPointer) DatumGetPointer(clerk_row_datum(0, 4, &isnull));
	}
	if (IsolationUsesXactSnapshot() && !is_visible(locked, server, column, values[1]))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("The tracking row of \"%s\" has changed since the transaction began; nothing was sent to Clerk.",
						   value)));
	SPI_finish();
	return row;
}

ClerkTracked *
clerk_lock_id(const char *server, const char *id)
{
	return lock_row(server, CLERK_COLUMN_ID, id);
}

/*
 * A key that no row has is reserved by a row that no other transaction ever
 * sees, as it is deleted before the commit.  Another transaction that wants the
 * same key waits at the index.  (A heavyweight lock for each key would run out
 * of shared memory.)
 */
ClerkTracked *
clerk_lock_key(const char *server, const char *key)
{
	for (;;)
	{
		ClerkTracked *row = lock_row(server, CLERK_COLUMN_KEY, key);

		/* If it cannot be reserved, another transaction has just tracked it. */
		if (row != NULL || run_for(&reserve_key_statement, server, CStringGetTextDatum(key)) == 1)
			return row;
		CHECK_FOR_INTERRUPTS();
	}
}

void
clerk_free_key(const char *server, const char *key)
{
	(void) run_for(&free_key_statement, server, CStringGetTextDatum(key));
}

void
clerk_try_lock_tracked_all(const char *server, const char *const *ids, const char *const *keys, int count,
						   bool *locked_by_other)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), texts_datum(ids, count), texts_datum(keys, count)};

	memset(locked_by_other, false, sizeof(bool) * count);
	SPI_connect();
	clerk_run(&try_lock_all_statement, values, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		locked_by_other[DatumGetInt64(clerk_row_datum(i, 1, &isnull)) - 1] = true;
	}
	SPI_finish();
}
