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
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

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
		SPIPlanPtr	plan = SPI_prepare(psprintf(statement->text, quote_identifier(NameStr(named.schema))),
									   statement->nargs, statement->args);

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
	if (latest)
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(kept_plan(statement), values, nulls, snapshot,
								  InvalidSnapshot, false, true, 0);
	if (snapshot != InvalidSnapshot)
		UnregisterSnapshot(snapshot);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": SPI error %d", statement->text, result);
	clerk_restore_user(&saved);
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
