/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *		plan_enterprise_connections() and reconcile_enterprise_connections():
 *		the rows of a trigger's table beside what is tracked; what differs is
 *		said, or enqueued.
 *
 * The table is read in portions by a cursor, and each portion looked up with one
 * statement, so that memory does not grow with the table.  A row that differs is
 * locked and read once more before anything is enqueued for it: what is enqueued
 * then is what the row is when this transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/guard.h"
#include "base/jsonb.h"
#include "base/progress.h"
#include "base/statements.h"
#include "calls/connection.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "outbox/requests.h"
#include "storage/lmgr.h"
#include "tables/search.h"
#include "trigger/compare.h"
#include "trigger/mapping.h"
#include "trigger/source.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

/* Rows that are fetched and looked up at a time. */
#define PORTION 1000

/* Bulk work is delivered behind what people wait for. */
#define BULK_PRIORITY 10

/* Connections that have one of a row's domains, and are looked at. */
#define MAX_HOLDERS 100

/* A notice says how far it is, so often (ms). */
#define NOTICE_MS 10000

PG_FUNCTION_INFO_V1(plan_enterprise_connections);
PG_FUNCTION_INFO_V1(reconcile_enterprise_connections);

#define EQUALS " OPERATOR(pg_catalog.=) "

/*
 * What is tracked of some keys.  As a LATERAL with a LIMIT it is an index scan
 * for each key, never a hash join with all that is tracked.
 */
static ClerkStatement tracked_statement = {
	.text = "SELECT k.n, c.id, c.connection, c.active, c.reactivate"
	" FROM pg_catalog.unnest($2) WITH ORDINALITY AS k (key, n) CROSS JOIN LATERAL"
	" (SELECT * FROM %1$s.enterprise_connections t WHERE t.key" EQUALS "k.key AND t.server" EQUALS "$1 LIMIT 1) c",
	.nargs = 2,
	.args = {NAMEOID, TEXTARRAYOID},
};

/* Which other connections have some of these domains, and which of them? */
static ClerkStatement holders_statement = {
	.text = "SELECT c.id, c.key, c.connection, pg_catalog.to_jsonb(s.shared),"
	" pg_catalog.jsonb_build_object('id', c.id, 'key', c.key) FROM %1$s.enterprise_connections c CROSS JOIN LATERAL"
	" (SELECT pg_catalog.array_agg(d.d ORDER BY d.d) AS shared FROM pg_catalog.unnest($2) AS d (d)"
	" WHERE d.d" EQUALS "ANY (c.domains)) s"
	" WHERE c.domains OPERATOR(pg_catalog.&&) $2 AND pg_catalog.cardinality(c.domains) OPERATOR(pg_catalog.<=) 5000"
	" AND c.server" EQUALS "$1 AND c.id OPERATOR(pg_catalog.<>) $3 ORDER BY c.id LIMIT $4",
	.nargs = 4,
	.args = {NAMEOID, TEXTARRAYOID, TEXTOID, INT4OID},
};

static ClerkStatement adopt_statement = {
	.text = "UPDATE %1$s.enterprise_connections c SET key = $3 WHERE c.server" EQUALS "$1 AND c.id" EQUALS "$2 AND c.key IS NULL",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TEXTOID},
};

typedef struct Options
{
	bool		enqueue;		/* reconcile */
	bool		refresh;
	bool		adopt;
	bool		prune;
	bool		force;
} Options;

/* What is tracked of a row's key. */
typedef struct Known
{
	const char *id;				/* NULL: nothing */
	Jsonb	   *connection;
	bool		active;
	bool		reactivate;
} Known;

typedef struct ClerkPlan
{
	Options		options;
	ClerkSource source;
	const Mapping *mapping;		/* the source's */
	const ClerkSettings *settings;
	ReturnSetInfo *result;
	MemoryContext scratch;		/* of a row */
	uint64		rows;
	uint64		differing;
	uint64		enqueued;
	ClerkProgress progress;
	int64		next_notice;	/* ms */
} ClerkPlan;

/* A row that is compared. */
typedef struct Row
{
	ClerkPlan  *plan;
	const char *key;
	const Known *known;
	Jsonb	   *params;
	bool		silent;			/* only whether it differs */
	int			differences;
	bool		needs_upsert;
	bool		domains_differ;
	bool		blocked;		/* no request could be delivered */
} Row;

/*-------------------------------------------------------------------------
 * Results
 *-------------------------------------------------------------------------
 */

static void
emit(ClerkPlan *plan, const char *key, const char *id, const char *change, const char *path, Jsonb *wanted, Jsonb *actual)
{
	Datum		values[6] = {0};
	bool		nulls[6];
	const char *texts[] = {key, id, change, path};

	for (int i = 0; i < 4; i++)
		if (!(nulls[i] = texts[i] == NULL))
			values[i] = CStringGetTextDatum(texts[i]);
	if (!(nulls[4] = wanted == NULL))
		values[4] = JsonbPGetDatum(wanted);
	if (!(nulls[5] = actual == NULL))
		values[5] = JsonbPGetDatum(actual);
	tuplestore_putvalues(plan->result->setResult, plan->result->setDesc, values, nulls);
}

static Jsonb *
boolean_jsonb(bool value)
{
	JsonbValue	boolean = clerk_jsonb_new_boolean(value);

	return JsonbValueToJsonb(&boolean);
}

static void
differ(Row *row, const char *change, const char *path, Jsonb *wanted, Jsonb *actual)
{
	row->differences++;
	if (!row->silent)
		emit(row->plan, row->key, row->known->id, change, path, wanted, actual);
}

static void
visit_difference(const char *path, JsonbValue *wanted, JsonbValue *actual, void *arg)
{
	Row		   *row = arg;
	bool		provider = strcmp(path, "provider") == 0;

	/* A provider can't be changed. */
	row->blocked |= provider;
	row->needs_upsert = true;
	row->domains_differ |= strcmp(path, "domains") == 0;
	differ(row, provider ? "conflict" : "update", path,
		   wanted ? JsonbValueToJsonb(wanted) : NULL, actual ? JsonbValueToJsonb(actual) : NULL);
}

static void
report_progress(ClerkPlan *plan)
{
	plan->progress.done = (int64) plan->rows;
	clerk_progress_show(&plan->progress);
	if (clerk_now_ms() < plan->next_notice)
		return;
	plan->next_notice = clerk_now_ms() + NOTICE_MS;
	ereport(NOTICE,
			(errmsg("%s, table %s: " UINT64_FORMAT " rows compared, " UINT64_FORMAT " differ, " UINT64_FORMAT " requests enqueued",
					plan->progress.command, RelationGetRelationName(plan->source.rel),
					plan->rows, plan->differing, plan->enqueued)));
}

/*-------------------------------------------------------------------------
 * Domains that other connections have
 *-------------------------------------------------------------------------
 */

/*
 * Do the parameters have one of these domains?
 */
static bool
has_one_of(Jsonb *params, Jsonb *domains)
{
	JsonbValue	whole = clerk_jsonb_value(params);
	JsonbValue	shared = clerk_jsonb_value(domains);
	JsonbValue	own;
	int			counts[2];
	char	  **has = clerk_lower_strings(clerk_jsonb_get(&whole, "domains", &own) ? &own : NULL, &counts[0]);
	char	  **looked_for = clerk_lower_strings(&shared, &counts[1]);

	for (int i = 0; i < counts[0]; i++)
		for (int n = 0; n < counts[1]; n++)
			if (strcmp(has[i], looked_for[n]) == 0)
				return true;
	return false;
}

/*
 * Will the connection of another key of this table give up all of these
 * domains?  Then they move, which the outbox can do.
 */
static bool
frees_domains(ClerkPlan *plan, const char *key, Jsonb *domains)
{
	TupleTableSlot *slot;

	if (key == NULL || strncmp(key, plan->mapping->prefix, strlen(plan->mapping->prefix)) != 0)
		return false;
	slot = clerk_source_row(&plan->source, key);
	if (slot == NULL)
		return plan->options.prune;
	if (!clerk_row_is_ready(plan->mapping, slot))
		return false;
	return !has_one_of(clerk_row_params(plan->mapping, slot, plan->settings), domains);
}

typedef struct Holder
{
	Known		known;
	char	   *key;
	Jsonb	   *shared;			/* the domains, an array */
	Jsonb	   *described;
} Holder;

static Holder *
holders_of(Row *row, int *count)
{
	NameData	name;
	Datum		values[4] = {clerk_name_datum(&name, row->plan->settings->server_name), clerk_wanted_domains(row->params),
	CStringGetTextDatum(row->known->id ? row->known->id : ""), Int32GetDatum(MAX_HOLDERS)};
	MemoryContext caller = CurrentMemoryContext;
	Holder	   *holders;
	bool		isnull;

	SPI_connect();
	clerk_run(&holders_statement, values, NULL, false);
	MemoryContextSwitchTo(caller);
	*count = (int) SPI_processed;
	holders = palloc0(sizeof(Holder) * (*count + 1));
	for (int i = 0; i < *count; i++)
	{
		holders[i].known.id = clerk_row_text(i, 1);
		holders[i].key = clerk_row_text(i, 2);
		holders[i].known.connection = clerk_jsonb_copy(DatumGetJsonbP(clerk_row_datum(i, 3, &isnull)));
		holders[i].shared = clerk_jsonb_copy(DatumGetJsonbP(clerk_row_datum(i, 4, &isnull)));
		holders[i].described = clerk_jsonb_copy(DatumGetJsonbP(clerk_row_datum(i, 5, &isnull)));
	}
	SPI_finish();
	return holders;
}

/*
 * What has a wanted domain for good is a conflict.  But a row that has no
 * connection may adopt one, if that has no key, and is the only one: that is
 * returned; else NULL.
 */
static const Known *
look_at_holders(Row *row)
{
	int			count;
	Holder	   *holders = holders_of(row, &count);

	if (count == 1 && holders[0].key == NULL && row->known->id == NULL)
		return &holders[0].known;
	for (int i = 0; i < count; i++)
	{
		if (frees_domains(row->plan, holders[i].key, holders[i].shared))
			continue;
		row->blocked = true;
		differ(row, "conflict", "domains", holders[i].shared, holders[i].described);
	}
	return NULL;
}

/*-------------------------------------------------------------------------
 * Comparing
 *-------------------------------------------------------------------------
 */

static void
compare_unready(Row *row)
{
	const Mapping *mapping = row->plan->mapping;

	if (row->known->id == NULL)
		return;
	if (mapping->removal == REMOVAL_DELETE)
		differ(row, "delete", NULL, NULL, NULL);
	else if (mapping->removal == REMOVAL_DEACTIVATE && row->known->active)
		differ(row, "deactivate", "active", boolean_jsonb(false), boolean_jsonb(true));
}

static void
compare_ready(Row *row, const Known **adopted)
{
	if (row->known->id == NULL)
	{
		*adopted = look_at_holders(row);
		if (*adopted != NULL)
		{
			row->known = *adopted;
			differ(row, "adopt", NULL, NULL, NULL);
		}
		else if (!row->blocked)
		{
			row->needs_upsert = true;
			differ(row, "create", NULL, DatumGetJsonbP(DirectFunctionCall1(enterprise_connection_without_secrets, JsonbPGetDatum(row->params))), NULL);
			return;
		}
		else
			return;
	}
	clerk_compare(row->params, row->known->connection, visit_difference, row);
	if (row->domains_differ && *adopted == NULL)
		(void) look_at_holders(row);
	if (row->known->reactivate && !row->known->active && !row->plan->mapping->maps_active)
		differ(row, "update", "active", boolean_jsonb(true), boolean_jsonb(false));
}

static void
adopt(ClerkPlan *plan, const char *key, const char *id)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, plan->settings->server_name), CStringGetTextDatum(id), CStringGetTextDatum(key)};

	SPI_connect();
	clerk_run(&adopt_statement, values, NULL, false);
	SPI_finish();
}

static void
enqueue(ClerkPlan *plan, const char *operation, Jsonb *params, const char *key)
{
	ClerkUser	saved;

	clerk_act_as(plan->mapping->owner, &saved);
	(void) clerk_enqueue_checked(plan->settings, operation, params, key, NULL, BULK_PRIORITY);
	clerk_restore_user(&saved);
	plan->enqueued++;
}

/*
 * The requests that a row's differences need.
 */
static void
mend(Row *row, bool ready, const Known *adopted)
{
	ClerkPlan  *plan = row->plan;

	if (!ready)
	{
		enqueue(plan, plan->mapping->removal == REMOVAL_DELETE ? "delete" : "deactivate", NULL, row->key);
		return;
	}
	if (row->blocked || (adopted != NULL && !plan->options.adopt))
		return;
	if (adopted != NULL)
		adopt(plan, row->key, adopted->id);
	if (plan->options.force || row->needs_upsert)
		enqueue(plan, "upsert", row->params, row->key);
	if (row->known->reactivate && !row->known->active && !plan->mapping->maps_active)
		enqueue(plan, "reactivate", NULL, row->key);
}

static bool
compare_row(Row *row, TupleTableSlot *slot, const Known **adopted)
{
	bool		ready = clerk_row_is_ready(row->plan->mapping, slot);

	if (!ready)
	{
		compare_unready(row);
		return false;
	}
	row->params = clerk_row_params(row->plan->mapping, slot, row->plan->settings);
	compare_ready(row, adopted);
	return true;
}

static void
add_context(void *arg)
{
	errcontext("row of key \"%s\"", (const char *) arg);
}

static void
process_row(ClerkPlan *plan, TupleTableSlot *slot, const char *key, const Known *known)
{
	Row			row = {.plan = plan,.key = key,.known = known,.silent = plan->options.enqueue};
	const Known *adopted = NULL;
	bool		ready = compare_row(&row, slot, &adopted);

	if (row.differences == 0 && !(plan->options.force && ready))
		return;
	plan->differing += row.differences > 0;
	if (!plan->options.enqueue)
		return;

	/*
	 * Once more, of the row as it is now and stays until the end of the
	 * transaction.
	 */
	slot = clerk_source_row(&plan->source, key);
	if (slot == NULL)
		return;
	row = (Row) {.plan = plan,.key = key,.known = known};
	adopted = NULL;
	ready = compare_row(&row, slot, &adopted);
	if (row.differences > 0 || (plan->options.force && ready))
		mend(&row, ready, adopted);
	ExecDropSingleTupleTableSlot(slot);
}

/*-------------------------------------------------------------------------
 * All rows
 *-------------------------------------------------------------------------
 */

/*
 * What is tracked of the keys of a portion; in the current memory context.
 */
static Known *
look_up(ClerkPlan *plan, char **keys, int count)
{
	NameData	name;
	Datum	   *datums = palloc(sizeof(Datum) * (count + 1));
	Datum		values[2];
	Known	   *known = palloc0(sizeof(Known) * (count + 1));
	MemoryContext caller = CurrentMemoryContext;
	bool		isnull;

	for (int i = 0; i < count; i++)
		datums[i] = CStringGetTextDatum(keys[i]);
	values[0] = clerk_name_datum(&name, plan->settings->server_name);
	values[1] = PointerGetDatum(construct_array(datums, count, TEXTOID, -1, false, TYPALIGN_INT));
	SPI_connect();
	clerk_run(&tracked_statement, values, NULL, false);
	MemoryContextSwitchTo(caller);
	for (uint64 n = 0; n < SPI_processed; n++)
	{
		Known	   *one = &known[DatumGetInt64(clerk_row_datum(n, 1, &isnull)) - 1];

		one->id = clerk_row_text(n, 2);
		one->connection = clerk_jsonb_copy(DatumGetJsonbP(clerk_row_datum(n, 3, &isnull)));
		one->active = DatumGetBool(clerk_row_datum(n, 4, &isnull)) && !isnull;
		one->reactivate = DatumGetBool(clerk_row_datum(n, 5, &isnull));
	}
	SPI_finish();
	return known;
}

/*
 * A row from before the trigger was made, whose key is null or too long.  Only
 * its owner can mend it.
 */
static void
process_keyless(ClerkPlan *plan, TupleTableSlot *slot, const char *key)
{
	if (!clerk_row_is_ready(plan->mapping, slot))
		return;
	emit(plan, *key ? key : NULL, NULL, "conflict", "key", NULL, NULL);
	plan->differing++;
}

static void
process_portion(ClerkPlan *plan, SPITupleTable *rows, uint64 count)
{
	MemoryContext portion = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk portion", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(portion);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->tupdesc, &TTSOpsHeapTuple);
	char	  **keys = palloc(sizeof(char *) * count);
	Known	   *known;
	ErrorContextCallback callback = {.callback = add_context,.previous = error_context_stack};

	for (uint64 i = 0; i < count; i++)
	{
		ExecStoreHeapTuple(rows->vals[i], slot, false);
		keys[i] = slot_attisnull(slot, plan->mapping->key->attnum) ? pstrdup("") : clerk_row_key(plan->mapping, slot);
	}
	known = look_up(plan, keys, (int) count);
	MemoryContextSwitchTo(plan->scratch);
	error_context_stack = &callback;
	for (uint64 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ExecStoreHeapTuple(rows->vals[i], slot, false);
		callback.arg = keys[i];
		if (*keys[i] != '\0' && strlen(keys[i]) <= CLERK_MAX_NAME_LENGTH)
			process_row(plan, slot, keys[i], &known[i]);
		else
			process_keyless(plan, slot, keys[i]);
		MemoryContextReset(plan->scratch);
	}
	error_context_stack = callback.previous;
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(portion);
	plan->rows += count;
	report_progress(plan);
}

static void
process_rows(ClerkPlan *plan)
{
	SPITupleTable *rows;

	while ((rows = clerk_source_next(&plan->source, PORTION)) != NULL)
	{
		process_portion(plan, rows, SPI_processed);
		SPI_freetuptable(rows);
	}
}

/*-------------------------------------------------------------------------
 * Keys without a row
 *-------------------------------------------------------------------------
 */

/*
 * A key of the prefix that no row has.  Read as the trigger's owner, who has
 * USAGE on the server, and so sees what is tracked.
 */
static void
process_orphans(ClerkPlan *plan)
{
	Oid			args[] = {NAMEOID, TEXTOID};
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, plan->settings->server_name), CStringGetTextDatum(plan->mapping->prefix)};
	Portal		cursor;
	ClerkUser	saved;

	/* Of a partition, the others' keys have no row here. */
	if (RelationGetRelid(plan->source.rel) != plan->mapping->table || plan->source.rel->rd_rel->relispartition)
		return;
	clerk_act_as(plan->mapping->owner, &saved);
	cursor = SPI_cursor_open(NULL, clerk_source_prepare(clerk_source_orphans_query(&plan->source), 2, args), values, NULL, false);
	clerk_restore_user(&saved);
	for (;;)
	{
		SPITupleTable *rows;

		clerk_act_as(plan->mapping->owner, &saved);
		SPI_cursor_fetch(cursor, true, PORTION);
		clerk_restore_user(&saved);
		rows = SPI_tuptable;
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0, count = SPI_processed; i < count; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(plan->scratch);
			char	   *key = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);

			CHECK_FOR_INTERRUPTS();
			emit(plan, key, SPI_getvalue(rows->vals[i], rows->tupdesc, 2), "delete", NULL, NULL, NULL);
			plan->differing++;
			if (plan->options.enqueue && plan->options.prune)
				enqueue(plan, "delete", NULL, key);
			MemoryContextSwitchTo(old);
			MemoryContextReset(plan->scratch);
		}
		SPI_freetuptable(rows);
		report_progress(plan);
	}
	SPI_cursor_close(cursor);
}

/*-------------------------------------------------------------------------
 * SQL functions
 *-------------------------------------------------------------------------
 */

/*
 * A copy, as the relation's own can change when the catalogs do.
 */
static const Trigger *
find_trigger(Relation rel, const char *name)
{
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);
	const Trigger *found = NULL;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (strcmp(triggers->triggers[i].tgname, name) == 0)
			found = &triggers->triggers[i];
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("trigger \"%s\" for table \"%s\" does not exist", name,
						RelationGetRelationName(rel))));
	if (!clerk_is_sync_trigger(found->tgfoid, found->tgtype))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("trigger \"%s\" does not execute sync_enterprise_connection() AFTER a change, FOR EACH ROW", name)));
	if (found->tgqual != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("trigger \"%s\" has a WHEN condition", name),
				 errhint("Put the condition into a boolean column, and name it in an argument: 'when=column'.")));
	return found;
}

/*
 * As the caller, who needs USAGE on the server for it.
 */
static void
refresh(const char *server)
{
	Oid			args[] = {NAMEOID};
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server)};
	char	   *query = psprintf("SELECT pg_catalog.count(*) FROM %s.mirror_enterprise_connections($1)",
								 quote_identifier(get_namespace_name(clerk_catalog()->namespace)));

	if (SPI_execute_with_args(query, 1, args, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
}

static void
append_if_never_shown(const char *path, void *arg)
{
	StringInfo	paths = arg;

	if (clerk_is_never_shown(path))
		appendStringInfo(paths, "%s%s", paths->len > 0 ? ", " : "", path);
}

static void
tell_not_compared(const ClerkPlan *plan)
{
	StringInfoData paths;

	initStringInfo(&paths);
	clerk_each_path(plan->mapping, append_if_never_shown, &paths);
	if (paths.len > 0)
		ereport(NOTICE,
				(errmsg("not compared, as Clerk does not show them: %s", paths.data),
				 errhint("reconcile_enterprise_connections(..., force => true) sends them again.")));
}

/*
 * The server is that of the trigger's owner, as when the trigger fires.
 */
static ClerkSettings *
trigger_settings(const Trigger *trigger)
{
	ClerkUser	saved;
	ClerkSettings *settings;

	clerk_act_as(clerk_trigger_owner(trigger->tgoid), &saved);
	settings = clerk_arguments_settings(trigger->tgnargs, trigger->tgargs);
	clerk_restore_user(&saved);
	return settings;
}

/*
 * A key without a row is deleted only if no transaction is about to insert the
 * row: its upsert would be sent before the delete.  As the row is not there to
 * be locked, the table is; at once, as a writer that waits for a row which this
 * transaction has locked would be a deadlock.
 */
static void
lock_out_writers(Oid table)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot prune in a transaction whose isolation level is higher than READ COMMITTED"),
				 errdetail("It would not see rows that were inserted since it began.")));
	LockRelationOid(table, ShareLock);
	list_free(find_all_inheritors(table, ShareLock, NULL));
}

static void
run(FunctionCallInfo fcinfo, const Options *options, const char *function)
{
	ClerkPlan	plan = {.options = *options};
	const Trigger *trigger;
	Relation	rel;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("table and trigger must not be null")));
	if (options->enqueue || options->refresh)
		clerk_prevent_write(psprintf("%s()", function));
	plan.result = clerk_materialized_result(fcinfo);
	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	trigger = find_trigger(rel, NameStr(*PG_GETARG_NAME(1)));
	plan.scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk row", ALLOCSET_DEFAULT_SIZES);
	plan.next_notice = clerk_now_ms() + NOTICE_MS;
	plan.progress.command = function;
	plan.settings = trigger_settings(trigger);
	SPI_connect();
	if (options->refresh)
		refresh(plan.settings->server_name);
	if (options->prune)
		lock_out_writers(RelationGetRelid(rel));
	plan.source.rel = rel;
	plan.source.lock = options->enqueue;
	clerk_source_open(&plan.source, trigger);
	plan.mapping = plan.source.mapping;
	plan.progress.server = plan.settings->server_name;
	clerk_progress_begin(&plan.progress, "rows", 0, (int64) Max(rel->rd_rel->reltuples, 0));
	process_rows(&plan);
	process_orphans(&plan);
	tell_not_compared(&plan);
	SPI_finish();
	table_close(rel, NoLock);
	clerk_progress_end();
}

static bool
flag(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/*
 * plan_enterprise_connections(table regclass, trigger name, refresh boolean)
 */
Datum
plan_enterprise_connections(PG_FUNCTION_ARGS)
{
	Options		options = {.refresh = flag(fcinfo, 2)};

	run(fcinfo, &options, "plan_enterprise_connections");
	return (Datum) 0;
}

/*
 * reconcile_enterprise_connections(table regclass, trigger name, refresh boolean,
 *								   adopt boolean, prune boolean, force boolean)
 */
Datum
reconcile_enterprise_connections(PG_FUNCTION_ARGS)
{
	Options		options = {
		.enqueue = true,
		.refresh = flag(fcinfo, 2),
		.adopt = flag(fcinfo, 3),
		.prune = flag(fcinfo, 4),
		.force = flag(fcinfo, 5),
	};

	run(fcinfo, &options, "reconcile_enterprise_connections");
	return (Datum) 0;
}
