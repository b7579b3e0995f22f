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

#define CLERK_STATEMENT_MAX_ARGS 20

/*
 * A column of the rows that a statement is given or returns, and the member of
 * a C struct that has its value.
 */
typedef enum ClerkColumnType
{
	CLERK_INT4,					/* int */
	CLERK_INT8,					/* int64 */
	CLERK_BOOL,					/* bool */
	CLERK_OID,					/* Oid */
	CLERK_TIME,					/* TimestampTz; 0 is null */
	CLERK_TEXT,					/* char *; NULL is null */
	CLERK_JSONB,				/* Jsonb *; NULL is null */
	CLERK_WORD					/* an enum, of which words has the names; what
								 * comes after them is null */
} ClerkColumnType;

typedef struct ClerkColumn
{
	const char *name;			/* NULL: the table of columns ends */
	ClerkColumnType type;
	size_t		offset;
	const char *const *words;	/* NULL at the end */
} ClerkColumn;

#define CLERK_MEMBER(name, type, structure, member) {name, type, offsetof(structure, member), NULL}
#define CLERK_MEMBER_WORDS(name, words, structure, member) {name, CLERK_WORD, offsetof(structure, member), words}
#define CLERK_MEMBERS_END {NULL, CLERK_INT4, 0, NULL}

/*
 * A statement, in a static variable: its plan is kept for the life of the
 * process.  In the text, %1$s is the extension's schema, and operators are
 * qualified, as search_path is the caller's.  (A function with a pinned
 * search_path costs several times as much for each call.)
 *
 * One that is given rows has <rows> in its text, in FROM: they are there as o,
 * with the columns of the table given.  One that returns rows may have
 * <columns>: the names of the columns of the table returns, to be selected from
 * q.  A null that is read is 0, false or NULL.
 */
typedef struct ClerkStatement
{
	const char *text;
	int			nargs;
	Oid			args[CLERK_STATEMENT_MAX_ARGS];
	const ClerkColumn *given;
	const ClerkColumn *returns;
	bool		latest;			/* with the latest snapshot, always */

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

/* The same with the rows that it is given, a list of structs. */
extern void clerk_run_rows(ClerkStatement *statement, const Datum *values, const List *rows);

/* Run it for its effect, SPI or not; rows may be NIL.  Returns how many rows it has changed or found. */
extern uint64 clerk_execute(ClerkStatement *statement, const Datum *values, const List *rows);

/*
 * Run it and return its rows, structs of this size in bytes, zero but for the
 * columns, palloc'd in the current memory context.
 */
extern List *clerk_select(ClerkStatement *statement, const Datum *values, const List *rows, size_t size);

/* Run it and return the first column of its first row, of a type by value; 0 if it is null, or there is no row. */
extern Datum clerk_select_datum(ClerkStatement *statement, const Datum *values);

/* Read a row that SPI has into a struct. */
extern void clerk_read_row(const ClerkStatement *statement, uint64 row, void *result);

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
