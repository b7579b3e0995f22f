/*-------------------------------------------------------------------------
 *
 * levers.c
 *		SQL functions for many requests at once: retry, cancel; and to go on
 *		with a server that is held back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/wake.h"
#include "calls/connection.h"
#include "catalog/indexing.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "clerk/settings.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/claims.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(retry_enterprise_connection_requests);
PG_FUNCTION_INFO_V1(cancel_enterprise_connection_requests);
PG_FUNCTION_INFO_V1(resume_enterprise_connections);

#define EQUALS " OPERATOR(pg_catalog.=) "
#define LIKE " OPERATOR(pg_catalog.~~) "

/*
 * Of server $1, with an error like $2, and of a role whose privileges the
 * caller, role $3, has.  Of roles that are gone, superusers may.
 */
#define MEANT " q.server" EQUALS "$1 AND q.state OPERATOR(pg_catalog.<=) 'failed'" \
	" AND ($2 IS NULL OR (q.error OPERATOR(pg_catalog.->>) 'sqlstate')" LIKE "$2" \
	" OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(q.error OPERATOR(pg_catalog.->) 'errors')" \
	" WHEN 'array' THEN q.error OPERATOR(pg_catalog.->) 'errors' END) e WHERE (e OPERATOR(pg_catalog.->>) 'code')" LIKE "$2))" \
	" AND coalesce((SELECT pg_catalog.pg_has_role($3, r.oid, 'USAGE') FROM pg_catalog.pg_roles r" \
	" WHERE CASE WHEN q.origin" EQUALS "pg_catalog.enterprise_connection_origin()" \
	" THEN r.oid" EQUALS "q.role_oid ELSE r.rolname" EQUALS "q.role END)," \
	" (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.oid" EQUALS "$3))"

/* Locked one by one, in the order of their ids, as two of these calls would deadlock otherwise. */
#define LOCKED(condition) " WHERE q.id" EQUALS "ANY (ARRAY(SELECT q.id FROM " REQUESTS " q WHERE" MEANT " AND " condition \
	" ORDER BY q.id FOR UPDATE))"

#define WAITS "q.state" EQUALS "'queued' AND q.next_attempt_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()" \
	" AND q.next_attempt_at OPERATOR(pg_catalog.<) 'infinity'"

/* As retry_enterprise_connection_request() does with each. */
static ClerkStatement retry_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'queued', finished_at = NULL, next_attempt_at = pg_catalog.clock_timestamp(),"
	" attempts = CASE WHEN q.state" EQUALS "'failed' THEN 0 ELSE q.attempts END,"
	" timeline = CASE WHEN q.state" EQUALS "'failed' AND q.doubt_since IS NOT NULL THEN 0 ELSE q.timeline END"
	LOCKED("(q.state" EQUALS "'failed' AND NOT q.scrubbed OR " WAITS ")"),
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, OIDOID},
};

static ClerkStatement cancel_statement = {
	.text = "UPDATE " REQUESTS " q SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
	" params = pg_catalog.enterprise_connection_without_secrets(q.params)"
	LOCKED("q.state OPERATOR(pg_catalog.>=) 'queued' AND ($4 IS NULL OR q.key" LIKE "$4)") " RETURNING q.id, q.key, q.lane",
	.nargs = 4,
	.args = {NAMEOID, TEXTOID, OIDOID, TEXTOID},
};

/* The first of each lane goes on, if it was put at infinity. */
static ClerkStatement advance_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = pg_catalog.clock_timestamp()"
	" WHERE q.next_attempt_at" EQUALS "'infinity' AND q.id" EQUALS "ANY (ARRAY(SELECT n.id FROM pg_catalog.unnest($2) l (lane)"
	" CROSS JOIN LATERAL (SELECT x.id FROM " REQUESTS " x WHERE x.server" EQUALS "$1 AND x.lane" EQUALS "l.lane"
	" AND x.state OPERATOR(pg_catalog.<=) 'queued' ORDER BY x.state, x.id LIMIT 1) n))",
	.nargs = 2,
	.args = {NAMEOID, TEXTARRAYOID},
};

static ClerkStatement limited_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = pg_catalog.clock_timestamp() WHERE q.id" EQUALS "ANY (ARRAY(SELECT q.id FROM "
	REQUESTS " q WHERE q.server" EQUALS "$1 AND q.finished_at IS NULL AND q.http_status" EQUALS "429 AND " WAITS
	" ORDER BY q.id FOR UPDATE SKIP LOCKED))",
	.nargs = 1,
	.args = {NAMEOID},
};

/*
 * The server, by name.  Requests of one that is gone are gone, too.
 */
static const char *
server_argument(FunctionCallInfo fcinfo, const char *function)
{
	char	   *name;

	clerk_prevent_write(function);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"server\" of %s must not be null", function)));
	name = NameStr(*PG_GETARG_NAME(0));
	(void) clerk_held_server(name);
	return name;
}

/*
 * retry_enterprise_connection_requests(server name, error text)
 */
Datum
retry_enterprise_connection_requests(PG_FUNCTION_ARGS)
{
	const char *server = server_argument(fcinfo, "retry_enterprise_connection_requests()");
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1), ObjectIdGetDatum(GetUserId())};
	uint64		count;

	SPI_connect();
	clerk_run(&retry_statement, values, PG_ARGISNULL(1) ? " n " : NULL, true);
	count = SPI_processed;
	SPI_finish();
	clerk_wake_at_commit();
	PG_RETURN_INT64(count);
}

/*
 * Who awaits one of them is told, and what stands behind one goes on.
 */
static void
let_go_on(Datum server)
{
	const char **lanes = palloc(sizeof(char *) * (SPI_processed + 1));
	int			count = 0;
	Datum		values[] = {server, (Datum) 0};

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const char *lane = clerk_row_text(i, 3);

		clerk_wake_finished(DatumGetInt64(clerk_row_value(i, 1)), clerk_row_text(i, 2));
		if (lane != NULL)
			lanes[count++] = lane;
	}
	values[1] = clerk_texts_datum(lanes, count);
	clerk_run(&advance_statement, values, NULL, true);
}

/*
 * cancel_enterprise_connection_requests(server name, error text, key text)
 */
Datum
cancel_enterprise_connection_requests(PG_FUNCTION_ARGS)
{
	const char *server = server_argument(fcinfo, "cancel_enterprise_connection_requests()");
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1),
	ObjectIdGetDatum(GetUserId()), PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2)};
	char		nulls[] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', ' ', PG_ARGISNULL(2) ? 'n' : ' ', '\0'};
	uint64		count;

	SPI_connect();
	clerk_run(&cancel_statement, values, nulls, true);
	count = SPI_processed;
	if (count > 0)
		let_go_on(values[0]);
	SPI_finish();
	clerk_wake_at_commit();
	PG_RETURN_INT64(count);
}

/*
 * Write the server's row in the catalog as it is.  To all processes these are
 * other settings, with which they try anew; and it counts only when this
 * transaction commits.
 */
static void
renew_settings(Oid server)
{
	Relation	rel = table_open(ForeignServerRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(FOREIGNSERVEROID, ObjectIdGetDatum(server));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for foreign server %u", server);
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * resume_enterprise_connections(server name)
 */
Datum
resume_enterprise_connections(PG_FUNCTION_ARGS)
{
	const char *server = NameStr(*PG_GETARG_NAME(0));
	Oid			oid = clerk_held_server(server);
	NameData	name;
	Datum		value = clerk_name_datum(&name, server);

	if (!clerk_server_ownercheck(oid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, server);
	clerk_prevent_write("resume_enterprise_connections()");
	clerk_lock(CLERK_LOCK_ARMING, oid);
	renew_settings(oid);
	SPI_connect();
	clerk_run(&limited_statement, &value, NULL, true);
	SPI_finish();
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
