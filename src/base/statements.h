/*-------------------------------------------------------------------------
 *
 * statements.h
 *		Statements on the extension's own tables, run as their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_STATEMENTS_H
#define CLERK_STATEMENTS_H

#include "executor/spi.h"

#define CLERK_STATEMENT_MAX_ARGS 13

/*
 * A statement, in a static variable: its plan is kept for the life of the
 * process.  In the text, %1$s is the extension's schema, and operators are
 * qualified, as search_path is the caller's.  (A function with a pinned
 * search_path costs several times as much for each call.)
 */
typedef struct ClerkStatement
{
	const char *text;
	int			nargs;
	Oid			args[CLERK_STATEMENT_MAX_ARGS];

	/* private */
	SPIPlanPtr	plan;
	Oid			namespace;		/* the extension's, when the plan was made */
	NameData	schema;			/* that the plan names */
} ClerkStatement;

/*
 * Run it; SPI must be connected, and has the result.  nulls as SPI wants it,
 * or NULL.  latest: with the latest snapshot rather than the transaction's.
 */
extern void clerk_run(ClerkStatement *statement, Datum *values, const char *nulls, bool latest);

/* A name as a Datum, in buf. */
extern Datum clerk_name_datum(NameData *buf, const char *name);

/* Columns of a row that SPI has; palloc'd in the current memory context. */
extern char *clerk_row_text(uint64 row, int column);	/* NULL for null */
extern Datum clerk_row_datum(uint64 row, int column, bool *isnull);

/*
 * Do some work in a subtransaction.  Returns NULL, or the error that it has
 * thrown, after a rollback; in the current memory context.
 */
extern ErrorData *clerk_try(void (*work) (void *arg), void *arg);

/* ReThrowError, of an error that may be in a context that does not live on. */
extern void clerk_rethrow(ErrorData *error);

#endif							/* CLERK_STATEMENTS_H */
