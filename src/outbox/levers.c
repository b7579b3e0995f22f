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
	" AND ($2" EQUALS "'' OR (q.error OPERATOR(pg_catalog.->>) 'sqlstate')" LIKE "$2" \
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
	.latest = true,
	.text = "UPDATE " REQUESTS " q SET state = 'queued', finished_at = NULL, next_attempt_at = pg_catalog.clock_timestamp(),"
	" attempts = CASE WHEN q.state" EQUALS "'failed' THEN 0 ELSE q.attempts END,"
	" timeline = CASE WHEN q.state" EQUALS "'failed' AND q.doubt_since IS NOT NULL THEN 0 ELSE q.timeline END"
	LOCKED("(q.state" EQUALS "'failed' AND NOT q.scrubbed OR " WAITS ")"),
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, OIDOID},
};

typedef struct Cancelled
{
	int64		id;
	char	   *key;
	char	   *lane;
} Cancelled;

static const ClerkColumn cancelled_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Cancelled, id),
	CLERK_MEMBER("key", CLERK_TEXT, Cancelled, key),
	CLERK_MEMBER("lane", CLERK_TEXT, Cancelled, lane),
	CLERK_MEMBERS_END
};

static ClerkStatement cancel_statement = {
	.latest = true,
	.text = "UPDATE " REQUESTS " q SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
	" params = pg_catalog.enterprise_connection_without_secrets(q.params)"
	LOCKED("q.state OPERATOR(pg_catalog.>=) 'queued' AND ($4" EQUALS "'' OR q.key" LIKE "$4)") " RETURNING <columns>",
	.returns = cancelled_columns,
	.nargs = 4,
	.args = {NAMEOID, TEXTOID, OIDOID, TEXTOID},
};

/* The first of each lane goes on, if it was put at infinity. */
static ClerkStatement advance_statement = {
	.given = cancelled_columns,
	.latest = true,
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = pg_catalog.clock_timestamp()"
	" WHERE q.next_attempt_at" EQUALS "'infinity' AND q.id" EQUALS "ANY (ARRAY(SELECT n.id FROM <rows>"
	" CROSS JOIN LATERAL (SELECT x.id FROM " REQUESTS " x WHERE x.server" EQUALS "$1 AND x.lane" EQUALS "o.lane"
	" AND x.state OPERATOR(pg_catalog.<=) 'queued' ORDER BY x.state, x.id LIMIT 1) n))",
	.nargs = 1,
	.args = {NAMEOID},
};

static ClerkStatement limited_statement = {
	.latest = true,
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

/* A pattern; "" stands for none. */
static Datum
pattern_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? CStringGetTextDatum("") : PG_GETARG_DATUM(n);
}

/*
 * retry_enterprise_connection_requests(server name, error text)
 */
Datum
retry_enterprise_connection_requests(PG_FUNCTION_ARGS)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server_argument(fcinfo, "retry_enterprise_connection_requests()")),
	pattern_argument(fcinfo, 1), ObjectIdGetDatum(GetUserId())};
	uint64		count = clerk_execute(&retry_statement, values, NIL);

	clerk_wake_at_commit();
	PG_RETURN_INT64(count);
}

/*
 * cancel_enterprise_connection_requests(server name, error text, key text): who
 * awaits one of them is told, and what stands behind one goes on.
 */
Datum
cancel_enterprise_connection_requests(PG_FUNCTION_ARGS)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server_argument(fcinfo, "cancel_enterprise_connection_requests()")),
	pattern_argument(fcinfo, 1), ObjectIdGetDatum(GetUserId()), pattern_argument(fcinfo, 2)};
	List	   *cancelled = clerk_select(&cancel_statement, values, NIL, sizeof(Cancelled));
	ListCell   *lc;

	foreach(lc, cancelled)
		clerk_wake_finished(((Cancelled *) lfirst(lc))->id, ((Cancelled *) lfirst(lc))->key);
	if (cancelled != NIL)
		(void) clerk_execute(&advance_statement, values, cancelled);
	clerk_wake_at_commit();
	PG_RETURN_INT64(list_length(cancelled));
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
	(void) clerk_execute(&limited_statement, &value, NIL);
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}
