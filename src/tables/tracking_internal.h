/*-------------------------------------------------------------------------
 *
 * tracking_internal.h
 *		What tracking.c and tracking_mirror.c share; for no other folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_TRACKING_INTERNAL_H
#define CLERK_TRACKING_INTERNAL_H

#include "access/htup.h"
#include "base/statements.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* The columns of the tracking table, numbered as there. */
typedef enum ClerkTrackingColumn
{
	CLERK_COLUMN_SERVER = 1,
	CLERK_COLUMN_ID,
	CLERK_COLUMN_KEY,
	CLERK_COLUMN_ORGANIZATION_ID,
	CLERK_COLUMN_NAME,
	CLERK_COLUMN_PROVIDER,
	CLERK_COLUMN_DOMAINS,
	CLERK_COLUMN_ACTIVE,
	CLERK_COLUMN_SYNC_USER_ATTRIBUTES,
	CLERK_COLUMN_CONNECTION,
	CLERK_COLUMN_CREATED_AT,
	CLERK_COLUMN_UPDATED_AT,
	CLERK_COLUMN_REQUEST,
	CLERK_COLUMN_SYNCED_AT
} ClerkTrackingColumn;

/* Those before synced_at come from an answer, its server, its key and its request. */
#define CLERK_ANSWER_COLUMNS (CLERK_COLUMN_SYNCED_AT - 1)

/* The columns of a row that is to be written. */
typedef struct ClerkColumns
{
	Datum		values[CLERK_ANSWER_COLUMNS];
	bool		nulls[CLERK_ANSWER_COLUMNS];
	int			count;
} ClerkColumns;

#define CLERK_COLUMN(columns, column) ((columns)->values[CLERK_COLUMN_##column - 1])
#define CLERK_COLUMN_IS_NULL(columns, column) ((columns)->nulls[CLERK_COLUMN_##column - 1])

/*
 * The columns of a connection as Clerk answered it, without secrets.  False if
 * it has no id.  They point into the connection and the other arguments.
 * request: of the outbox, that was answered so; 0: none.
 */
extern bool clerk_columns_of(ClerkColumns *columns, Jsonb *connection, NameData *server, const char *key,
							 int64 request);

/*
 * Run a statement that reads rows from CLERK_GIVEN_ROWS.  SPI must be connected,
 * and has the result.
 */
extern void clerk_run_with_rows(ClerkStatement *statement, ClerkColumns *rows, int count);

/* A name for them that no table has. */
#define CLERK_GIVEN_ROWS "pg_clerk_rows"

/* The parts of such a statement.  The order of columns is the table's. */
#define CLERK_INSERT_GIVEN "INSERT INTO %1$s.enterprise_connections AS known"

/* What is absent in an answer stays; an older one changes nothing. */
#define CLERK_NEWER(column) column " = coalesce(excluded." column ", known." column "), "
#define CLERK_UPDATE_KNOWN " ON CONFLICT (server, id) DO UPDATE SET " \
	CLERK_NEWER("key") CLERK_NEWER("organization_id") CLERK_NEWER("name") CLERK_NEWER("provider") \
	CLERK_NEWER("domains") CLERK_NEWER("active") CLERK_NEWER("sync_user_attributes") \
	"connection = pg_catalog.enterprise_connection_merge(known.connection, excluded.connection), " \
	CLERK_NEWER("created_at") CLERK_NEWER("updated_at") CLERK_NEWER("request") \
	"synced_at = excluded.synced_at" \
	" WHERE (known.updated_at OPERATOR(pg_catalog.<=) excluded.updated_at" \
	" OR known.updated_at IS NULL OR excluded.updated_at IS NULL)"

#define CLERK_BY_ID " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.id OPERATOR(pg_catalog.=) $2"

/*
 * The row of an id or a key (the column), as a snapshot has it: a copy in the
 * current memory context, or NULL.  It is found by the index: a plan that was
 * made while the table was empty might read all of it.
 */
extern HeapTuple clerk_tracking_find(Relation rel, Snapshot snapshot, const char *server,
									 ClerkTrackingColumn column, Datum value);

#endif							/* CLERK_TRACKING_INTERNAL_H */
