/*-------------------------------------------------------------------------
 *
 * statements.c
 *		Statements on the extension's own tables, run as their owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/catalog.h"
#include "base/guard.h"
#include "base/statements.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static const struct
{
	Oid			element;
	Oid			array;
}			column_types[] =

{
	[CLERK_INT4] = {INT4OID, INT4ARRAYOID},
	[CLERK_INT8] = {INT8OID, INT8ARRAYOID},
	[CLERK_BOOL] = {BOOLOID, BOOLARRAYOID},
	[CLERK_OID] = {OIDOID, OIDARRAYOID},
	[CLERK_TIME] = {TIMESTAMPTZOID, TIMESTAMPTZARRAYOID},
	[CLERK_TEXT] = {TEXTOID, TEXTARRAYOID},
	[CLERK_JSONB] = {JSONBOID, JSONBARRAYOID},
	[CLERK_WORD] = {TEXTOID, TEXTARRAYOID},
};

/*-------------------------------------------------------------------------
 * Plans
 *-------------------------------------------------------------------------
 */

/*
 * The names of columns, each behind a prefix.
 */
static char *
name_list(const ClerkColumn *columns, const char *prefix)
{
	StringInfoData list;

	initStringInfo(&list);
	for (const ClerkColumn *column = columns; column->name != NULL; column++)
		appendStringInfo(&list, "%s%s%s", column == columns ? "" : ", ", prefix, column->name);
	return list.data;
}

/*
 * Rows are given as one array for each column, after the other arguments.
 */
static char *
given_rows(const ClerkStatement *statement, Oid *args)
{
	StringInfoData rows;
	int			nargs = statement->nargs;

	initStringInfo(&rows);
	for (const ClerkColumn *column = statement->given; column->name != NULL; column++)
	{
		Assert(nargs < CLERK_STATEMENT_MAX_ARGS);
		args[nargs++] = column_types[column->type].array;
		appendStringInfo(&rows, "%spg_catalog.unnest($%d)", column == statement->given ? "" : ", ", nargs);
	}
	return psprintf("ROWS FROM (%s) AS o (%s)", rows.data, name_list(statement->given, ""));
}

static char *
replaced(char *text, const char *marker, const char *by)
{
	char	   *found = strstr(text, marker);

	return found == NULL ? text :
		psprintf("%.*s%s%s", (int) (found - text), text, by, found + strlen(marker));
}

static int
column_count(const ClerkColumn *columns)
{
	int			count = 0;

	while (columns != NULL && columns[count].name != NULL)
		count++;
	return count;
}

static SPIPlanPtr
prepare(const ClerkStatement *statement, const char *schema)
{
	Oid			args[CLERK_STATEMENT_MAX_ARGS];
	char	   *text = psprintf(statement->text, schema);

	memcpy(args, statement->args, sizeof(args));
	if (statement->given != NULL)
		text = replaced(text, "<rows>", given_rows(statement, args));
	if (statement->returns != NULL)
		text = replaced(text, "<columns>", name_list(statement->returns, "q."));
	return SPI_prepare(text, statement->nargs + column_count(statement->given), args);
}

/*
 * The kept plan of a statement.
 */
static SPIPlanPtr
kept_plan(ClerkStatement *statement)
{
	const ClerkCatalog *catalog = clerk_catalog();

	/*
	 * Another schema means another extension.  One that was renamed must not
	 * be looked for under its old name: somebody could have a schema of that
	 * name by now.
	 */
	if (statement->plan != NULL &&
		(statement->namespace != catalog->namespace ||
		 strcmp(NameStr(statement->schema), NameStr(catalog->schema)) != 0))
	{
		SPI_freeplan(statement->plan);
		statement->plan = NULL;
	}
	if (statement->plan == NULL)
	{
		ClerkCatalog named = *catalog;	/* preparing may look it up anew */
		SPIPlanPtr	plan = prepare(statement, quote_identifier(NameStr(named.schema)));

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", statement->text);
		statement->plan = plan;
		statement->namespace = named.namespace;
		statement->schema = named.schema;
	}
	return statement->plan;
}

void
clerk_run(ClerkStatement *statement, Datum *values, const char *nulls, bool latest)
{
	ClerkUser	saved;
	Snapshot	snapshot = InvalidSnapshot;
	int			result;

	clerk_become_owner(&saved);
	if (latest || statement->latest)
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(kept_plan(statement), values, nulls, snapshot,
								  InvalidSnapshot, false, true, 0);
	if (snapshot != InvalidSnapshot)
		UnregisterSnapshot(snapshot);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": SPI error %d", statement->text, result);
	clerk_restore_user(&saved);
}

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

/*
 * The value of a column in a struct.
 */
static Datum
member_datum(const ClerkColumn *column, const void *row, bool *isnull)
{
	const void *member = (const char *) row + column->offset;
	int			word = 0;

	*isnull = false;
	switch (column->type)
	{
		case CLERK_INT4:
			return Int32GetDatum(*(const int *) member);
		case CLERK_INT8:
			return Int64GetDatum(*(const int64 *) member);
		case CLERK_BOOL:
			return BoolGetDatum(*(const bool *) member);
		case CLERK_OID:
			return ObjectIdGetDatum(*(const Oid *) member);
		case CLERK_TIME:
			*isnull = *(const TimestampTz *) member == 0;
			return TimestampTzGetDatum(*(const TimestampTz *) member);
		case CLERK_TEXT:
			*isnull = *(char *const *) member == NULL;
			return *isnull ? (Datum) 0 : CStringGetTextDatum(*(char *const *) member);
		case CLERK_JSONB:
			*isnull = *(Jsonb *const *) member == NULL;
			return PointerGetDatum(*(Jsonb *const *) member);
		case CLERK_WORD:
			word = *(const int *) member;
			*isnull = column->words[word] == NULL;
			return *isnull ? (Datum) 0 : CStringGetTextDatum(column->words[word]);
	}
	pg_unreachable();
}

static Datum
column_array(const ClerkColumn *column, const List *rows)
{
	Oid			element = column_types[column->type].element;
	int			count = list_length(rows);
	Datum	   *datums = palloc(sizeof(Datum) * (count + 1));
	bool	   *nulls = palloc(sizeof(bool) * (count + 1));
	int			lower = 1;
	int16		len;
	bool		byval;
	char		align;

	for (int i = 0; i < count; i++)
		datums[i] = member_datum(column, list_nth(rows, i), &nulls[i]);
	get_typlenbyvalalign(element, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(datums, nulls, 1, &count, &lower, element, len, byval, align));
}

void
clerk_run_rows(ClerkStatement *statement, const Datum *values, const List *rows)
{
	Datum		all[CLERK_STATEMENT_MAX_ARGS];

	if (statement->nargs > 0)
		memcpy(all, values, sizeof(Datum) * statement->nargs);
	for (int i = 0; i < column_count(statement->given); i++)
		all[statement->nargs + i] = column_array(&statement->given[i], rows);
	clerk_run(statement, all, NULL, false);
}

uint64
clerk_execute(ClerkStatement *statement, const Datum *values, const List *rows)
{
	uint64		count;

	SPI_connect();
	clerk_run_rows(statement, values, rows);
	count = SPI_processed;
	SPI_finish();
	return count;
}

List *
clerk_select(ClerkStatement *statement, const Datum *values, const List *rows, size_t size)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *result = NIL;

	SPI_connect();
	clerk_run_rows(statement, values, rows);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		void	   *row = palloc0(size);

		clerk_read_row(statement, i, row);
		result = lappend(result, row);
	}
	SPI_finish();
	return result;
}

Datum
clerk_select_datum(ClerkStatement *statement, const Datum *values)
{
	Datum		datum = (Datum) 0;
	bool		isnull = true;

	SPI_connect();
	clerk_run_rows(statement, values, NIL);
	if (SPI_processed > 0)
		datum = clerk_row_datum(0, 1, &isnull);
	SPI_finish();
	return isnull ? (Datum) 0 : datum;
}

/*
 * The enum's value; that after the last word for NULL.
 */
static int
find_word(const ClerkColumn *column, const char *word)
{
	int			i = 0;

	for (; column->words[i] != NULL; i++)
		if (word != NULL && strcmp(column->words[i], word) == 0)
			return i;
	if (word != NULL)
		elog(ERROR, "column \"%s\" has an unknown word: \"%s\"", column->name, word);
	return i;
}

static void
read_member(const ClerkColumn *column, uint64 row, int number, void *member)
{
	bool		isnull;
	Datum		datum;

	if (column->type == CLERK_TEXT)
	{
		*(char **) member = clerk_row_text(row, number);
		return;
	}
	if (column->type == CLERK_WORD)
	{
		*(int *) member = find_word(column, clerk_row_text(row, number));
		return;
	}
	datum = clerk_row_datum(row, number, &isnull);
	if (isnull)
		datum = (Datum) 0;
	if (column->type == CLERK_INT4)
		*(int *) member = DatumGetInt32(datum);
	else if (column->type == CLERK_BOOL)
		*(bool *) member = DatumGetBool(datum);
	else if (column->type == CLERK_OID)
		*(Oid *) member = DatumGetObjectId(datum);
	else if (column->type == CLERK_JSONB)
		*(Jsonb **) member = isnull ? NULL : DatumGetJsonbPCopy(datum);
	else
		*(int64 *) member = isnull ? 0 : DatumGetInt64(datum);
}

void
clerk_read_row(const ClerkStatement *statement, uint64 row, void *result)
{
	for (int i = 0; i < column_count(statement->returns); i++)
		read_member(&statement->returns[i], row, i + 1, (char *) result + statement->returns[i].offset);
}

Datum
clerk_name_datum(NameData *buf, const char *name)
{
	namestrcpy(buf, name);
	return NameGetDatum(buf);
}

char *
clerk_row_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

Datum
clerk_row_datum(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

static const char *
kept_string(const char *string)
{
	return string ? MemoryContextStrdup(ErrorContext, string) : NULL;
}

/*
 * CopyErrorData copies the names of file, function and domain, too, but
 * ReThrowError takes them for constants: they would be read after the context
 * of the copy is gone.
 */
void
clerk_rethrow(ErrorData *error)
{
	error->filename = kept_string(error->filename);
	error->funcname = kept_string(error->funcname);
	error->domain = kept_string(error->domain);
	error->context_domain = kept_string(error->context_domain);
	error->message_id = kept_string(error->message_id);
	ReThrowError(error);
}

ErrorData *
clerk_try(void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
