/*-------------------------------------------------------------------------
 *
 * source.c
 *		The rows of a trigger's table, read by queries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "trigger/source.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define EQUALS " OPERATOR(pg_catalog.=) "

static char *
table_clause(Relation rel)
{
	return psprintf("%s%s", rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											   RelationGetRelationName(rel)));
}

SPIPlanPtr
clerk_source_prepare(const char *text, int nargs, Oid *args)
{
	SPIPlanPtr	prepared = SPI_prepare(text, nargs, args);

	if (prepared == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", text, SPI_result_code_string(SPI_result));
	return prepared;
}

/*
 * The key's value of a row u, as the trigger has it.
 */
static char *
key_expression(const Mapping *mapping)
{
	const char *column = quote_identifier(mapping->key->name);

	return psprintf(mapping->key->ignores_case ? "pg_catalog.lower(u.%s::pg_catalog.text)" : "u.%s::pg_catalog.text", column);
}

/*
 * The condition that finds the row of a key's value, $1; by the column's index
 * where its type is one of the usual ones.
 */
static char *
key_condition(const Mapping *mapping)
{
	const Column *key = mapping->key;
	const char *column = quote_identifier(key->name);

	if (key->kind == COLUMN_INTEGER)
		return psprintf("u.%s" EQUALS "CASE WHEN $1 OPERATOR(pg_catalog.~) '^-?[0-9]{1,19}$' THEN"
						" CASE WHEN $1::pg_catalog.numeric OPERATOR(pg_catalog.>=) -9223372036854775808"
						" AND $1::pg_catalog.numeric OPERATOR(pg_catalog.<=) 9223372036854775807"
						" THEN $1::pg_catalog.int8 END END", column);
	if (key->kind == COLUMN_UUID)
		return psprintf("u.%s" EQUALS "CASE WHEN $1 OPERATOR(pg_catalog.~) '^[0-9a-f-]{36}$' THEN $1::pg_catalog.uuid END", column);
	if (key->type == TEXTOID || key->type == VARCHAROID)
		return psprintf("u.%s" EQUALS "$1", column);
	return psprintf("%s" EQUALS "$1", key_expression(mapping));
}

void
clerk_source_open(ClerkSource *source, const Trigger *trigger)
{
	Oid			args[] = {TEXTOID};
	const char *table = table_clause(source->rel);
	ClerkUser	saved;

	clerk_act_as(source->rel->rd_rel->relowner, &saved);
	source->cursor = SPI_cursor_open(NULL, clerk_source_prepare(psprintf("SELECT * FROM %s u", table), 0, NULL),
									 NULL, NULL, false);

	/* The query's rows have no dropped columns: positions differ. */
	source->mapping = clerk_make_mapping(source->rel, trigger, source->cursor->tupDesc);
	source->by_key = clerk_source_prepare(psprintf("SELECT * FROM %s u WHERE %s%s", table, key_condition(source->mapping),
												   source->lock ? " FOR SHARE" : ""), 1, args);
	clerk_restore_user(&saved);
}

SPITupleTable *
clerk_source_next(ClerkSource *source, long count)
{
	ClerkUser	saved;

	clerk_act_as(source->rel->rd_rel->relowner, &saved);
	SPI_cursor_fetch(source->cursor, true, count);
	clerk_restore_user(&saved);
	if (SPI_processed > 0)
		return SPI_tuptable;
	SPI_cursor_close(source->cursor);
	return NULL;
}

TupleTableSlot *
clerk_source_row(const ClerkSource *source, const char *key)
{
	Datum		value = CStringGetTextDatum(key + strlen(source->mapping->prefix));
	TupleTableSlot *slot = NULL;
	MemoryContext caller = CurrentMemoryContext;
	ClerkUser	saved;
	int			result;

	clerk_act_as(source->rel->rd_rel->relowner, &saved);
	SPI_connect();
	result = SPI_execute_plan(source->by_key, &value, NULL, !source->lock, 1);
	if (result < 0)
		elog(ERROR, "could not read a row: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(caller);
	if (SPI_processed > 0)
	{
		slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(SPI_tuptable->tupdesc), &TTSOpsHeapTuple);
		ExecForceStoreHeapTuple(heap_copytuple(SPI_tuptable->vals[0]), slot, false);
	}
	SPI_finish();
	clerk_restore_user(&saved);
	return slot;
}

char *
clerk_source_orphans_query(const ClerkSource *source)
{
	return psprintf("SELECT c.key, c.id FROM %s.enterprise_connections c WHERE c.server" EQUALS "$1"
					" AND pg_catalog.starts_with(c.key, $2) AND NOT EXISTS (SELECT FROM %s u"
					" WHERE pg_catalog.concat($2, %s)" EQUALS "c.key) ORDER BY c.key COLLATE pg_catalog.\"C\"",
					quote_identifier(get_namespace_name(clerk_catalog()->namespace)),
					table_clause(source->rel), key_expression(source->mapping));
}
