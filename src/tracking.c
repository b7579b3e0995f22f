/*-------------------------------------------------------------------------
 *
 * tracking.c
 *		The tracking table, enterprise_connections: what is known of Clerk's
 *		connections, a row each.
 *
 * What writes is in the extension's script, as functions that users cannot
 * call; here they are called, and rows are locked and read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tracking.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define MAX_ARGS 3

/* Of a long result. */
#define ROWS_AT_A_TIME 500

/* Locks that are about no row; the sub-id of their lock tags. */
#define LOCK_KEY 1
#define LOCK_MIRROR 2

/*
 * The statements; %s is the extension's schema.  Operators are qualified,
 * as search_path is the caller's.
 */
typedef enum StatementId
{
	LOCK_BY_ID,
	LOCK_BY_KEY,
	READ_BY_ID,
	UNTRACK,
	MIRROR_PAGE,
	MIRROR_ROWS,
	MIRROR_REMOVE
} StatementId;

typedef struct Statement
{
	const char *text;
	int			nargs;
	Oid			args[MAX_ARGS];
} Statement;

#define ROW_COLUMNS "SELECT t.id, t.key, t.provider, t.ctid::pg_catalog.text FROM %s.enterprise_connections t"
#define BY_ID " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.id OPERATOR(pg_catalog.=) $2"
#define BY_KEY " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.key OPERATOR(pg_catalog.=) $2"

static const Statement statements[] = {
	[LOCK_BY_ID] = {ROW_COLUMNS BY_ID " FOR UPDATE", 2, {NAMEOID, TEXTOID}},
	[LOCK_BY_KEY] = {ROW_COLUMNS BY_KEY " FOR UPDATE", 2, {NAMEOID, TEXTOID}},
	[READ_BY_ID] = {ROW_COLUMNS BY_ID, 2, {NAMEOID, TEXTOID}},
	[UNTRACK] = {"SELECT %s.untrack_enterprise_connection($1, $2)", 2, {NAMEOID, TEXTOID}},
	[MIRROR_PAGE] = {"SELECT * FROM %s.mirror_enterprise_connections_page($1, $2)", 2, {JSONBOID, NAMEOID}},
	[MIRROR_ROWS] = {"SELECT t.id, t.synced_at FROM %s.enterprise_connections t"
		" WHERE t.server OPERATOR(pg_catalog.=) $1 ORDER BY t.id USING OPERATOR(pg_catalog.<)", 1, {NAMEOID}},
	[MIRROR_REMOVE] = {"SELECT * FROM %s.mirror_enterprise_connections_remove($1, $2, $3)", 3,
	{NAMEOID, TEXTOID, TIMESTAMPTZOID}},
};

static SPIPlanPtr plans[lengthof(statements)];

/* The schema that the plans name; another one means the extension is another. */
static Oid	plans_namespace = InvalidOid;

/*-------------------------------------------------------------------------
 * Running statements
 *-------------------------------------------------------------------------
 */

static SPIPlanPtr
statement_plan(StatementId id)
{
	const Statement *statement = &statements[id];
	Oid			namespace = clerk_catalog()->namespace;

	if (plans_namespace != namespace)
	{
		for (size_t i = 0; i < lengthof(plans); i++)
		{
			if (plans[i] != NULL)
				SPI_freeplan(plans[i]);
			plans[i] = NULL;
		}
		plans_namespace = namespace;
	}
	if (plans[id] == NULL)
	{
		char	   *schema = pstrdup(quote_identifier(get_namespace_name(namespace)));
		SPIPlanPtr	plan = SPI_prepare(psprintf(statement->text, schema), statement->nargs,
									   (Oid *) statement->args);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", statement->text);
		plans[id] = plan;
	}
	return plans[id];
}

/*
 * Run a statement as the tables' owner; SPI must be connected.  latest: with
 * the latest snapshot rather than that of the transaction.
 */
static void
run_statement(StatementId id, Datum *values, bool latest)
{
	ClerkUser	saved;
	Snapshot	snapshot = InvalidSnapshot;
	int			result;

	clerk_become_owner(&saved);
	if (latest)
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(statement_plan(id), values, NULL, snapshot,
								  InvalidSnapshot, false, false, 0);
	if (snapshot != InvalidSnapshot)
		UnregisterSnapshot(snapshot);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\": SPI error %d", statements[id].text, result);
	clerk_restore_user(&saved);
}

static Datum
name_datum(NameData *buf, const char *name)
{
	namestrcpy(buf, name);
	return NameGetDatum(buf);
}

/*
 * Hand the result's rows over as they are.
 */
static void
put_rows(Tuplestorestate *store)
{
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(store, SPI_tuptable->vals[i]);
}

/*-------------------------------------------------------------------------
 * Single rows
 *-------------------------------------------------------------------------
 */

/*
 * Called directly, not through SPI: this one is in the way of every create.
 * PL/pgSQL keeps the compiled body and its plans in the FmgrInfo.
 */
void
clerk_track(Jsonb *connection, const char *server, const char *key)
{
	static FmgrInfo info;
	static MemoryContext context = NULL;
	LOCAL_FCINFO(fcinfo, 3);
	Oid			function = clerk_catalog()->track;
	NameData	name;
	ClerkUser	saved;

	if (info.fn_oid != function)
	{
		if (context == NULL)
			context = AllocSetContextCreate(TopMemoryContext, "pg_clerk tracking",
											ALLOCSET_SMALL_SIZES);
		info.fn_oid = InvalidOid;
		MemoryContextReset(context);
		fmgr_info_cxt(function, &info, context);
	}

	InitFunctionCallInfoData(*fcinfo, &info, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(connection);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = name_datum(&name, server);
	fcinfo->args[1].isnull = false;
	fcinfo->args[2].value = key ? CStringGetTextDatum(key) : (Datum) 0;
	fcinfo->args[2].isnull = key == NULL;

	clerk_become_owner(&saved);
	(void) FunctionCallInvoke(fcinfo);
	clerk_restore_user(&saved);
}

bool
clerk_untrack(const char *server, const char *id)
{
	NameData	name;
	Datum		values[] = {name_datum(&name, server), CStringGetTextDatum(id)};
	bool		isnull;
	bool		result;

	SPI_connect();
	run_statement(UNTRACK, values, false);
	result = SPI_processed == 1 &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return result;
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
lock_row(StatementId statement, const char *server, const char *value)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	name;
	Datum		values[] = {name_datum(&name, server), CStringGetTextDatum(value)};
	ClerkTracked *row;
	char	   *ctid;

	SPI_connect();
	run_statement(statement, values, true);
	row = found_row(caller, &ctid);
	if (row != NULL && IsolationUsesXactSnapshot())
	{
		Datum		by_id[] = {values[0], CStringGetTextDatum(row->id)};
		char	   *visible_ctid;

		run_statement(READ_BY_ID, by_id, false);
		(void) found_row(caller, &visible_ctid);
		if (visible_ctid == NULL || strcmp(ctid, visible_ctid) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update"),
					 errdetail("The tracking row of enterprise connection \"%s\" has changed since the transaction began; nothing was sent to Clerk.",
							   row->id)));
	}
	SPI_finish();
	return row;
}

/*
 * Lock something of a server that has no row; released with the transaction.
 */
static void
lock_object(const char *server, const char *object, uint16 kind)
{
	LOCKTAG		tag;
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) server, (int) strlen(server)),
									hash_bytes((const unsigned char *) object, (int) strlen(object)));

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, clerk_catalog()->origins, hash, kind);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

ClerkTracked *
clerk_lock_id(const char *server, const char *id)
{
	return lock_row(LOCK_BY_ID, server, id);
}

ClerkTracked *
clerk_lock_key(const char *server, const char *key)
{
	lock_object(server, key, LOCK_KEY);
	return lock_row(LOCK_BY_KEY, server, key);
}

char *
clerk_tracked_key(const char *server, const char *id)
{
	MemoryContext caller = CurrentMemoryContext;
	NameData	name;
	Datum		values[] = {name_datum(&name, server), CStringGetTextDatum(id)};
	ClerkTracked *row;
	char	   *ctid;

	SPI_connect();
	run_statement(READ_BY_ID, values, true);
	row = found_row(caller, &ctid);
	SPI_finish();
	return row ? row->key : NULL;
}

/*-------------------------------------------------------------------------
 * The mirror
 *-------------------------------------------------------------------------
 */

void
clerk_mirror_lock(const char *server)
{
	lock_object(server, "", LOCK_MIRROR);
}

void
clerk_mirror_page(Jsonb *connections, const char *server, Tuplestorestate *changes)
{
	NameData	name;
	Datum		values[] = {JsonbPGetDatum(connections), name_datum(&name, server)};

	SPI_connect();
	run_statement(MIRROR_PAGE, values, false);
	put_rows(changes);
	SPI_finish();
}

void
clerk_mirror_each_row(const char *server, ClerkRowVisitor visit, void *arg)
{
	NameData	name;
	Datum		values[] = {name_datum(&name, server)};
	ClerkUser	saved;
	Portal		portal;

	SPI_connect();
	clerk_become_owner(&saved);
	portal = SPI_cursor_open(NULL, statement_plan(MIRROR_ROWS), values, NULL, false);
	clerk_restore_user(&saved);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_A_TIME);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			char	   *id = SPI_getvalue(tuple, desc, 1);
			bool		isnull;

			visit(id, DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull)), arg);
			pfree(id);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
}

void
clerk_mirror_remove(const char *server, const char *id, TimestampTz since, Tuplestorestate *changes)
{
	NameData	name;
	Datum		values[] = {name_datum(&name, server), CStringGetTextDatum(id), TimestampTzGetDatum(since)};

	SPI_connect();
	run_statement(MIRROR_REMOVE, values, false);
	put_rows(changes);
	SPI_finish();
}
