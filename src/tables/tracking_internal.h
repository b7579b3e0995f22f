/*-------------------------------------------------------------------------
 *
 * tracking_internal.h
 *		What tracking.c and tracking_mirror.c share; for no other folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_TRACKING_INTERNAL_H
#define CLERK_TRACKING_INTERNAL_H

#include "base/statements.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

/* Columns of the tracking table that are read directly. */
enum
{
	COLUMN_SERVER = 1,
	COLUMN_ID = 2,
	COLUMN_KEY = 3,
	COLUMN_CONNECTION = 10,
	COLUMN_UPDATED_AT = 12,
	COLUMN_SYNCED_AT = 14
};

#define BY_ID " WHERE t.server OPERATOR(pg_catalog.=) $1 AND t.id OPERATOR(pg_catalog.=) $2"

/* What is absent in an answer stays; an older one changes nothing. */
#define ROW_OF_ANSWER " (server, id, key, organization_id, name, provider, domains, active," \
	" sync_user_attributes, connection, created_at, updated_at, request, synced_at)"
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
	" request = coalesce(excluded.request, known.request)," \
	" synced_at = excluded.synced_at" \
	" WHERE (known.updated_at OPERATOR(pg_catalog.<=) excluded.updated_at" \
	" OR known.updated_at IS NULL OR excluded.updated_at IS NULL)"

/* The name that a statement has for the rows that it is given; no table's. */
#define GIVEN_ROWS "pg_clerk_rows"

#define TRACK_GIVEN_ROWS "INSERT INTO %1$s.enterprise_connections AS known" ROW_OF_ANSWER \
	" SELECT p.server, p.id, p.key, p.organization_id, p.name, p.provider, p.domains, p.active," \
	" p.sync_user_attributes, p.connection, p.created_at, p.updated_at, p.request, pg_catalog.clock_timestamp()" \
	" FROM " GIVEN_ROWS " p" ON_KNOWN

typedef struct ClerkColumns
{
	Datum		values[CLERK_STATEMENT_MAX_ARGS];
	char		nulls[CLERK_STATEMENT_MAX_ARGS];
	int			count;
} ClerkColumns;

/* Members of an answer that are not stored; NULL at the end. */
extern const char *const clerk_secret_members[];

/* A member of an object; NULL if there is none, or one of another type. */
extern JsonbValue *clerk_member(Jsonb *object, const char *name, enum jbvType type, JsonbValue *buf);

/* The columns of a connection as Clerk answered it, to a request of the outbox or to another one (0). */
extern void clerk_columns_of(ClerkColumns *columns, Jsonb *connection, NameData *server, const char *key, int64 request);

/* Run a statement with rows.  SPI must be connected, and has the result. */
extern void clerk_run_with_rows(ClerkStatement *statement, Relation rel, ClerkColumns *const *rows, int count);

#endif							/* CLERK_TRACKING_INTERNAL_H */
