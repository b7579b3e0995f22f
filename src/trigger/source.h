/*-------------------------------------------------------------------------
 *
 * source.h
 *		The rows of a trigger's table, read by queries.
 *
 * They are read as the owner of the table that has them: a partition can be
 * somebody else's, whose policies and index expressions must not run with the
 * rights of the trigger's owner.  SPI must be connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_SOURCE_H
#define CLERK_SOURCE_H

#include "executor/spi.h"
#include "trigger/mapping.h"

typedef struct ClerkSource
{
	Relation	rel;
	Mapping    *mapping;		/* for the rows of the queries, whose columns
								 * have other numbers */
	bool		lock;			/* a row that is read by its key is locked,
								 * FOR SHARE */
	Portal		cursor;
	SPIPlanPtr	by_key;
} ClerkSource;

/* Begin to read all rows; rel, lock are set.  The trigger must be one of rel's. */
extern void clerk_source_open(ClerkSource *source, const Trigger *trigger);

/* The next rows, at most count, as SPI has them; NULL at the end, which closes it. */
extern SPITupleTable *clerk_source_next(ClerkSource *source, long count);

/*
 * The row of a key as it is now, in a slot of its own; NULL if there is none.
 */
extern TupleTableSlot *clerk_source_row(const ClerkSource *source, const char *key);

/*
 * A query of the keys and ids that a server has tracked with the mapping's
 * prefix ($2; $1 is the server), and that no row has.
 */
extern char *clerk_source_orphans_query(const ClerkSource *source);

/* Prepare it in SPI's present level, or throw. */
extern SPIPlanPtr clerk_source_prepare(const char *text, int nargs, Oid *args);

#endif							/* CLERK_SOURCE_H */
