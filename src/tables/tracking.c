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
#include "base/jsonb.h"
#include "base/locks.h"
#include "base/statements.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "clerk/endpoint.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Columns of the tracking table that are read directly. */
enum
{
	COLUMN_SERVER = 1,
	COLUMN_ID = 2,
	COLUMN_KEY = 3,
	COLUMN_CONNECTION = 10,
	COLUMN_UPDATED_AT = 12,
	COLUMN_SYNCED_AT = 13
};

PG_FUNCTION_INFO_V1(track_enterprise_connection);

#define ROW_COLUMNS "SELECT t.id, t.key, t.provider, t.ctid::pg_catalog.text FROM %1$s.enterprise_connections t"
#define BY_ID " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.id OPERATOR(pg_catalog.=) $2"
#define BY_KEY " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.key OPERATOR(pg_catalog.=) $2"

/* What is absent in an answer stays; an older one changes nothing. */
#define ROW_OF_ANSWER " (server, id, key, organization_id, name, provider, domains, active," \
	" sync_user_attributes, connection, created_at, updated_at, synced_at)"
#define ON_KNOWN " ON CONFLICT (server, id) DO UPDATE SET" \
	" key = coalesce(excluded.key, known.key)," \
	" organization_id = coalesce(excluded.organization_id, known.organization_id)," \
	" name = coalesce(excluded.name, known.name)," \
	" provider = coalesce(excluded.provider, known.provider)," \
	" domains = coalesce(excluded.domains, known.domains)," \
	" active = coalesce(excluded.active, known.active)," \
	" sync_user_attributes = coalesce(excluded.sync_user_attributes, known.sync_user_attributes)," \
	" connection = pg_catalog.enterprise_connection_merge(known.connection, excluded.connection)," \
	" created_at = coalesce(excluded.created_at, known.created_at)," \
	" updated_at = coalesce(excluded.updated_at, known.updated_at)," \
	" synced_at = excluded.synced_at" \
	" WHERE (known.updated_at OPERATOR(pg_catalog.<=) excluded.updated_at" \
	" OR known.updated_at IS NULL OR excluded.updated_at IS NULL)"

#define TRACK_VALUES "INSERT INTO %1$s.enterprise_connections AS known" ROW_OF_ANSWER \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, pg_catalog.clock_timestamp())"
#define TRACK_TYPES {NAMEOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, \
	BOOLOID, BOOLOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID}

static ClerkStatement track_statement = {
	.text = TRACK_VALUES ON_KNOWN,
	.nargs = 12,
	.args = TRACK_TYPES,
};

/* Of a connection that has just been created: it is begun with much less. */
static ClerkStatement track_new_statement = {
	.text = TRACK_VALUES " ON CONFLICT (server, id) DO NOTHING",
	.nargs = 12,
	.args = TRACK_TYPES,
};

/* The name that a statement has for the rows that it is given; no table's. */
#define GIVEN_ROWS "pg_clerk_rows"

#define TRACK_GIVEN_ROWS "INSERT INTO %1$s.enterprise_connections AS known" ROW_OF_ANSWER \
	" SELECT p.server, p.id, p.key, p.organization_id, p.name, p.provider, p.domains, p.active," \
	" p.sync_user_attributes, p.connection, p.created_at, p.updated_at, pg_catalog.clock_timestamp()" \
	" FROM " GIVEN_ROWS " p" ON_KNOWN

static ClerkStatement track_rows_statement = {
	.text = TRACK_GIVEN_ROWS,
};

/* Says whether a row was inserted, and writes none that has nothing to learn. */
static ClerkStatement track_page_statement = {
	.text = TRACK_GIVEN_ROWS " AND known.connection OPERATOR(pg_catalog.<>)"
	" pg_catalog.enterprise_connection_merge(known.connection, excluded.connection)"
	" RETURNING known.xmax OPERATOR(pg_catalog.=) 0, known.id, known.key",
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

static ClerkStatement merge_statement = {
	.text = "SELECT pg_catalog.enterprise_connection_merge(t.connection, $3)"
	" OPERATOR(pg_catalog.<>) t.connection FROM %1$s.enterprise_connections t" BY_ID,
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, JSONBOID},
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

static ClerkStatement mirror_remove_statement = {
	.text = "DELETE FROM %1$s.enterprise_connections t" BY_ID
	" AND t.synced_at OPERATOR(pg_catalog.<) $3",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TIMESTAMPTZOID},
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
static const char *const secret_members[] = {"client_secret", "clientSecret", NULL};

typedef struct Columns
{
	Datum		values[CLERK_STATEMENT_MAX_ARGS];
	char		nulls[CLERK_STATEMENT_MAX_ARGS];
	int			count;
} Columns;

static void
add_column(Columns *columns, bool isnull, Datum value)
{
	columns->nulls[columns->count] = isnull ? 'n' : ' ';
	columns->values[columns->count++] = value;
}

static JsonbValue *
member(Jsonb *object, const char *name, enum jbvType type, JsonbValue *buf)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, (int) strlen(name), buf);

	return value != NULL && value->type == type ? value : NULL;
}

static void
add_text(Columns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = member(connection, name, jbvString, &buf);

	add_column(columns, value == NULL, value == NULL ? (Datum) 0 :
			   PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len)));
}

static void
add_boolean(Columns *columns, Jsonb *connection, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = member(connection, name, jbvBool, &buf);

	add_column(columns, value == NULL, BoolGetDatum(value != NULL && value->val.boolean));
}

static void
add_timestamp(Columns *columns, Jsonb *connection, const char *name)
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
add_texts(Columns *columns, Jsonb *connection, const char *name)
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

static void
columns_of(Columns *columns, Jsonb *connection, NameData *server, const char *key)
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
	Assert(columns->count == track_statement.nargs);
}

static void
track(Jsonb *connection, const char *server, const char *key, bool created)
{
	Columns		columns;
	NameData	name;

	namestrcpy(&name, server);
	connection = clerk_jsonb_without(connection, secret_members);
	SPI_connect();
	columns_of(&columns, connection, &name, key);
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
	if (!JB_ROOT_IS_OBJECT(connection) || member(connection, "id", jbvString, &buf) == NULL)
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
static void
run_with_rows(ClerkStatement *statement, Relation rel, Columns *const *rows, int count)
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
track_rows(Relation rel, Columns *const *rows, int count)
{
	run_with_rows(&track_rows_statement, rel, rows, count);

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
	Columns   **now;
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
			now[taken] = palloc(sizeof(Columns));
			columns_of(now[taken++], clerk_jsonb_without(row->connection, secret_members), &name, row->key);
		}
		track_rows(rel, now, taken);
		count = left;
	}
	SPI_finish();
	table_close(rel, AccessShareLock);
}

/*-------------------------------------------------------------------------
 * The mirror
 *-------------------------------------------------------------------------
 */

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
	const Columns *a = *(Columns *const *) left;
	const Columns *b = *(Columns *const *) right;
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
same_id(const Columns *a, const Columns *b)
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
		  Columns **news)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			found = 0;

	for (int i = 0; i < count; i++)
	{
		JsonbValue	buf;
		Jsonb	   *connection = clerk_jsonb_without(connections[i], secret_members);
		JsonbValue *value = JB_ROOT_IS_OBJECT(connection) ? member(connection, "id", jbvString, &buf) : NULL;
		Datum		id;
		bool		known = false;

		if (value == NULL || value->val.string.len == 0)
			continue;
		id = PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
		if (had_rows &&
			(is_as_known(rel, snapshot, NameGetDatum(server), id, connection, &known) ||
			 (known && !learns(NameGetDatum(server), id, connection))))
			continue;
		news[found] = palloc(sizeof(Columns));
		columns_of(news[found++], connection, server, NULL);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * A server may have an id twice on a page: the newer one counts.
 */
static int
sort_news(Columns **news, int count)
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
	Columns   **news = palloc(sizeof(*news) * Max(count, 1));
	NameData	name;
	int			found;

	namestrcpy(&name, server);
	found = sort_news(news, find_news(rel, before != NULL, connections, count, &name, news));
	if (found > 0)
	{
		SPI_connect();
		run_with_rows(&track_page_statement, rel, news, found);
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
