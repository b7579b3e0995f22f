/*-------------------------------------------------------------------------
 *
 * tracking.c
 *		The tracking table, enterprise_connections: what is known of Clerk's
 *		connections, a row each.
 *
 * Only what is here writes to it, as the tables' owner, so that no user can
 * forge a row.
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
#include "base/json.h"
#include "base/statements.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/endpoint.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "tables/tracking_internal.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(track_enterprise_connection);

#define ROW_COLUMNS "SELECT t.id, t.key, t.provider, t.ctid::pg_catalog.text FROM %1$s.enterprise_connections t"
#define BY_KEY " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.key OPERATOR(pg_catalog.=) $2"

#define TRACK_VALUES "INSERT INTO %1$s.enterprise_connections AS known" ROW_OF_ANSWER \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, pg_catalog.clock_timestamp())"
#define TRACK_TYPES {NAMEOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, \
	BOOLOID, BOOLOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}

static ClerkStatement track_statement = {
	.text = TRACK_VALUES ON_KNOWN,
	.nargs = 13,
	.args = TRACK_TYPES,
};

/* Of a connection that has just been created: it is begun with much less. */
static ClerkStatement track_new_statement = {
	.text = TRACK_VALUES " ON CONFLICT (server, id) DO NOTHING",
	.nargs = 13,
	.args = TRACK_TYPES,
};

static ClerkStatement track_rows_statement = {
	.text = TRACK_GIVEN_ROWS,
};

static ClerkStatement set_key_statement = {
	.text = "UPDATE %1$s.enterprise_connections t SET key = $3" BY_ID
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

static ClerkStatement lock_by_id_statement = {
	.text = ROW_COLUMNS BY_ID " FOR UPDATE",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement lock_by_key_statement = {
	.text = ROW_COLUMNS BY_KEY " FOR UPDATE",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement read_by_id_statement = {
	.text = ROW_COLUMNS BY_ID,
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement read_by_key_statement = {
	.text = ROW_COLUMNS BY_KEY,
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement untrack_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t" BY_ID,
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement untrack_all_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t WHERE t.server OPERATOR(pg_catalog.=) $1"
	" AND t.id OPERATOR(pg_catalog.=) ANY ($2)",
	.nargs = 2,
	.args = {NAMEOID, TEXTARRAYOID},
};

/*
 * Is there a row that cannot be locked?  OFFSET 0 keeps the first look-up from
 * becoming a join, or a hash of the whole table: CASE has each of them done
 * for one row, in this order.
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
 * there must be a row.
 *-------------------------------------------------------------------------
 */

/* The timestamps that Clerk's milliseconds can be: up to the year 9999. */
#define MAX_MILLISECONDS INT64CONST(253402300799999)

/*
 * Clerk never answers a client secret; if it did one day, or if somebody in
 * between echoes ours, it would be where every role with USAGE reads it.
 */
const char *const clerk_secret_members[] = {"client_secret", "clientSecret", NULL};

static void
add_column(ClerkColumns *columns, bool isnull, Datum value)
{
	columns->nulls[columns->count] = isnull ? 'n' : ' ';
	columns->values[columns->count++] = value;
}

JsonbValue *
clerk_member(Jsonb *object, const char *name, enum jbvType type, JsonbValue *buf)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, (int) strlen(name), buf);

	return value != NULL && value->type == type ? value : NULL;
}

static void
add_text(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = clerk_member(connection, name, jbvString, &buf);

	add_column(columns, value == NULL, value == NULL ? (Datum) 0 :
			   PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len)));
}

static void
add_boolean(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = clerk_member(connection, name, jbvBool, &buf);

	add_column(columns, value == NULL, BoolGetDatum(value != NULL && value->val.boolean));
}

static void
add_timestamp(ClerkColumns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = clerk_member(connection, name, jbvNumeric, &buf);
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
	JsonbValue *array = clerk_member(connection, name, jbvBinary, &buf);
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
			texts[count++] = PointerGetDatum(cstring_to_text_with_len(element->val.string.val,
																	  element->val.string.len));
	}
	add_column(columns, false,
			   PointerGetDatum(construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT)));
}

/*-------------------------------------------------------------------------
 * Single rows
 *-------------------------------------------------------------------------
 */

/*
 * The key is the caller's, not the answer's: it is set even if the answer is
 * older than the row.
 */
static void
set_key(Datum server, Datum id, Datum key)
{
	Datum		values[] = {server, id, key};

	clerk_run(&set_key_statement, values, NULL, false);
}

void
clerk_columns_of(ClerkColumns *columns, Jsonb *connection, NameData *server, const char *key, int64 request)
{
	columns->count = 0;
	add_column(columns, false, NameGetDatum(server));
	add_text(columns, connection, "id");
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
	Assert(columns->count == track_statement.nargs);
}

static void
track(Jsonb *connection, const char *server, const char *key, bool created)
{
	ClerkColumns		columns;
	NameData	name;

	namestrcpy(&name, server);
	connection = clerk_jsonb_without(connection, clerk_secret_members);
	SPI_connect();
	clerk_columns_of(&columns, connection, &name, key, 0);
	if (created)
		clerk_run(&track_new_statement, columns.values, columns.nulls, false);
	if (!created || SPI_processed == 0)
		clerk_run(&track_statement, columns.values, columns.nulls, false);
	if (key != NULL && SPI_processed == 0)
		set_key(columns.values[0], columns.values[1], columns.values[2]);
	SPI_finish();
}

void
clerk_track(Jsonb *connection, const char *server, const char *key)
{
	track(connection, server, key, false);
}

void
clerk_track_created(Jsonb *connection, const char *server, const char *key)
{
	track(connection, server, key, true);
}

bool
clerk_untrack(const char *server, const char *id)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(id)};
	bool		result;

	SPI_connect();
	clerk_run(&untrack_statement, values, NULL, false);
	result = SPI_processed > 0;
	SPI_finish();
	return result;
}

/*
 * track_enterprise_connection(connection jsonb, server name, key text), for
 * the extension's owner: by hand, where something has to be mended.
 */
Datum
track_enterprise_connection(PG_FUNCTION_ARGS)
{
	Jsonb	   *connection;
	JsonbValue	buf;
	char	   *key;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("connection and server cannot be null")));
	connection = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(connection) || clerk_member(connection, "id", jbvString, &buf) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connection must be an object with an id")));
	key = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	clerk_api_check_length("the connection's id", clerk_jsonb_string(connection, "id"));
	if (key != NULL)
		clerk_api_check_length("argument \"key\"", key);
	clerk_track(connection, NameStr(*PG_GETARG_NAME(1)), key);
	PG_RETURN_VOID();
}

/*
 * Copy the row that SPI has found out of SPI's memory.
 */
static ClerkTracked *
found_row(MemoryContext context, char **ctid)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ClerkTracked *row = NULL;

	*ctid = NULL;
	if (SPI_processed > 0)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		row = palloc(sizeof(*row));
		row->id = SPI_getvalue(tuple, desc, 1);
		row->key = SPI_getvalue(tuple, desc, 2);
		row->provider = SPI_getvalue(tuple, desc, 3);
		*ctid = SPI_getvalue(tuple, desc, 4);
	}
	MemoryContextSwitchTo(old);
	return row;
}

static ClerkTracked *
lock_row(ClerkStatement *statement, ClerkStatement *read, const char *server, const char *value)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(value)};
	ClerkTracked *row;
	char	   *ctid;

	SPI_connect();
	clerk_run(statement, values, NULL, true);
	row = found_row(caller, &ctid);
	if (IsolationUsesXactSnapshot())
	{
		char	   *visible_ctid;

		clerk_run(read, values, NULL, false);
		(void) found_row(caller, &visible_ctid);
		if (visible_ctid == NULL ? ctid != NULL : ctid == NULL || strcmp(ctid, visible_ctid) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update"),
					 errdetail("The tracking row of \"%s\" has changed since the transaction began; nothing was sent to Clerk.",
							   value)));
	}
	SPI_finish();
	return row;
}

ClerkTracked *
clerk_lock_id(const char *server, const char *id)
{
	return lock_row(&lock_by_id_statement, &read_by_id_statement, server, id);
}

/*
 * Reserve a key that no row has, by a row that nobody else ever sees: it is
 * gone before the transaction commits.  Another transaction that wants the
 * same key waits at the index.  (A heavyweight lock for each key would run out
 * of shared memory.)  False if somebody else has the key by now.
 */
static bool
reserve_key(const char *server, const char *key)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(key)};
	bool		reserved;

	SPI_connect();
	clerk_run(&reserve_key_statement, values, NULL, false);
	reserved = SPI_processed == 1;
	SPI_finish();
	return reserved;
}

ClerkTracked *
clerk_lock_key(const char *server, const char *key)
{
	for (;;)
	{
		ClerkTracked *row = lock_row(&lock_by_key_statement, &read_by_key_statement, server, key);

		if (row != NULL || reserve_key(server, key))
			return row;
		CHECK_FOR_INTERRUPTS();
	}
}

void
clerk_free_key(const char *server, const char *key)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(key)};

	SPI_connect();
	clerk_run(&free_key_statement, values, NULL, false);
	SPI_finish();
}

static ClerkTracked *
tracked(const char *server, const char *id)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(id)};
	ClerkTracked *row;
	char	   *ctid;

	SPI_connect();
	clerk_run(&read_by_id_statement, values, NULL, true);
	row = found_row(caller, &ctid);
	SPI_finish();
	return row;
}

char *
clerk_tracked_key(const char *server, const char *id)
{
	ClerkTracked *row = tracked(server, id);

	return row ? row->key : NULL;
}

/*
 * By the index, whatever a plan would make of a table that was empty.
 */
char *
clerk_tracked_id(const char *server, const char *key)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	NameData	name;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;
	char	   *id = NULL;

	ScanKeyInit(&keys[0], COLUMN_KEY, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(key));
	keys[0].sk_collation = DEFAULT_COLLATION_OID;
	ScanKeyInit(&keys[1], COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, clerk_name_datum(&name, server));
	scan = systable_beginscan(rel, clerk_catalog()->connections_by_key, true, snapshot, 2, keys);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		id = TextDatumGetCString(heap_getattr(tuple, COLUMN_ID, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return id;
}

char *
clerk_tracked_provider(const char *server, const char *id)
{
	ClerkTracked *row = tracked(server, id);

	return row ? row->provider : NULL;
}

/*-------------------------------------------------------------------------
 * Many rows of a server
 *-------------------------------------------------------------------------
 */

/*
 * An array of strings, those that are NULL as nulls.
 */
static Datum
texts_datum(const char *const *strings, int count)
{
	Datum	   *texts = palloc(sizeof(Datum) * Max(count, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(count, 1));
	int			dims[] = {count};
	int			lower_bounds[] = {1};

	for (int i = 0; i < count; i++)
	{
		nulls[i] = strings[i] == NULL;
		texts[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(strings[i]);
	}
	return PointerGetDatum(construct_md_array(texts, nulls, 1, dims, lower_bounds,
											  TEXTOID, -1, false, TYPALIGN_INT));
}

void
clerk_try_lock_tracked_all(const char *server, const char *const *ids, const char *const *keys, int count,
						   bool *locked_by_other)
{
	NameData	name;
	Datum		values[3];

	memset(locked_by_other, false, sizeof(bool) * count);
	SPI_connect();
	values[0] = clerk_name_datum(&name, server);
	values[1] = texts_datum(ids, count);
	values[2] = texts_datum(keys, count);
	clerk_run(&try_lock_all_statement, values, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		locked_by_other[DatumGetInt64(clerk_row_datum(i, 1, &isnull)) - 1] = true;
	}
	SPI_finish();
}

void
clerk_untrack_all(const char *server, const char *const *ids, int count)
{
	NameData	name;
	Datum		values[2];

	SPI_connect();
	values[0] = clerk_name_datum(&name, server);
	values[1] = texts_datum(ids, count);
	clerk_run(&untrack_all_statement, values, NULL, false);
	SPI_finish();
}

/*
 * What a statement knows of the rows that it is given: the columns of an
 * answer.
 */
static TupleDesc
rows_descriptor(Relation rel)
{
	TupleDesc	desc = CreateTemplateTupleDesc(track_statement.nargs);

	for (int i = 1; i <= desc->natts; i++)
		TupleDescCopyEntry(desc, i, RelationGetDescr(rel), i);
	return clerk_complete_descriptor(desc);
}

/*
 * Run a statement with rows.  SPI must be connected, and has the result.
 */
void
clerk_run_with_rows(ClerkStatement *statement, Relation rel, ClerkColumns *const *rows, int count)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	EphemeralNamedRelationData given = {
		.md = {
			.name = GIVEN_ROWS,
			.tupdesc = rows_descriptor(rel),
			.enrtype = ENR_NAMED_TUPLESTORE,
			.enrtuples = count,
		},
		.reldata = store,
	};

	for (int i = 0; i < count; i++)
	{
		bool		nulls[CLERK_STATEMENT_MAX_ARGS];

		for (int column = 0; column < rows[i]->count; column++)
			nulls[column] = rows[i]->nulls[column] == 'n';
		tuplestore_putvalues(store, given.md.tupdesc, rows[i]->values, nulls);
	}
	if (SPI_register_relation(&given) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\"", given.md.name);
	clerk_run(statement, NULL, NULL, false);
	SPI_unregister_relation(given.md.name);
	tuplestore_end(store);
}

/*
 * By id, so that all who write several rows write them in the same order, and
 * those of one id in the order in which they were given.
 */
static int
compare_rows(const void *left, const void *right)
{
	const ClerkTrackRow *a = *(const ClerkTrackRow *const *) left;
	const ClerkTrackRow *b = *(const ClerkTrackRow *const *) right;
	int			order = strcmp(a->id, b->id);

	return order != 0 ? order : a < b ? -1 : a > b;
}

/*
 * Track rows of different ids.
 */
static void
track_rows(Relation rel, ClerkColumns *const *rows, int count)
{
	clerk_run_with_rows(&track_rows_statement, rel, rows, count);

	/* One that is older than its row was not written, but sets the key. */
	if (SPI_processed == (uint64) count)
		return;
	for (int i = 0; i < count; i++)
		if (rows[i]->nulls[COLUMN_KEY - 1] != 'n')
			set_key(rows[i]->values[COLUMN_SERVER - 1], rows[i]->values[COLUMN_ID - 1],
					rows[i]->values[COLUMN_KEY - 1]);
}

/*
 * A statement can write a row only once: what comes again for an id is left to
 * the next one.
 */
void
clerk_track_all(const char *server, const ClerkTrackRow *rows, int count)
{
	Relation	rel = table_open(clerk_catalog()->connections, AccessShareLock);
	const ClerkTrackRow **sorted;
	ClerkColumns   **now;
	NameData	name;

	namestrcpy(&name, server);
	SPI_connect();
	sorted = palloc(sizeof(*sorted) * Max(count, 1));
	now = palloc(sizeof(*now) * Max(count, 1));
	for (int i = 0; i < count; i++)
		sorted[i] = &rows[i];
	qsort(sorted, count, sizeof(*sorted), compare_rows);
	while (count > 0)
	{
		int			taken = 0;
		int			left = 0;
		const char *id = NULL;

		for (int i = 0; i < count; i++)
		{
			const ClerkTrackRow *row = sorted[i];

			if (id != NULL && strcmp(row->id, id) == 0)
			{
				sorted[left++] = row;
				continue;
			}
			id = row->id;
			now[taken] = palloc(sizeof(ClerkColumns));
			clerk_columns_of(now[taken++], clerk_jsonb_without(row->connection, clerk_secret_members), &name, row->key,
							 row->request);
		}
		track_rows(rel, now, taken);
		count = left;
	}
	SPI_finish();
	table_close(rel, AccessShareLock);
}
