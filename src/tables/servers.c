/*-------------------------------------------------------------------------
 *
 * servers.c
 *		What becomes of a server's rows when it is created, renamed or dropped;
 *		and that the extension's schema is not renamed.
 *
 * The tables know a server by its name, which a dump carries along.  So a
 * server that is renamed takes its rows along, and when one is dropped, its rows
 * are deleted: another server of the same name inherits nothing.  A transaction
 * that writes rows of a server locks it (locks.h), so that none are added
 * meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/catalog.h"
#include "base/statements.h"
#include "catalog/pg_type.h"
#include "clerk/settings.h"
#include "commands/event_trigger.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(enterprise_connection_ddl_event);

#define EQUALS " OPERATOR(pg_catalog.=) "

#define OF_SERVER " t WHERE t.server" EQUALS "$1"
#define RENAME(table) "UPDATE %1$s." table " t SET server = $2 WHERE t.server" EQUALS "$1"

/* In all tables that know a server by its name. */
static ClerkStatement rename_statement = {
	.text = "WITH c AS (" RENAME("enterprise_connections") "), p AS (" RENAME("enterprise_connection_pauses") ") "
	RENAME("enterprise_connection_requests"),
	.nargs = 2,
	.args = {NAMEOID, NAMEOID},
};

/* Returns how many requests were unfinished. */
static ClerkStatement drop_statement = {
	.text = "WITH c AS (DELETE FROM %1$s.enterprise_connections" OF_SERVER "),"
	" p AS (DELETE FROM %1$s.enterprise_connection_pauses" OF_SERVER "),"
	" r AS (DELETE FROM %1$s.enterprise_connection_requests" OF_SERVER " RETURNING t.finished_at)"
	" SELECT pg_catalog.count(*) FROM r WHERE r.finished_at IS NULL",
	.nargs = 1,
	.args = {NAMEOID},
};

static ClerkStatement rows_statement = {
	.text = "SELECT (SELECT pg_catalog.count(*) FROM %1$s.enterprise_connections" OF_SERVER ")"
	" OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM %1$s.enterprise_connection_requests" OF_SERVER ")",
	.nargs = 1,
	.args = {NAMEOID},
};

/*
 * Run a statement that returns a number of rows.
 */
static int64
count_rows(ClerkStatement *statement, const char *server)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server)};
	bool		isnull;

	clerk_run(statement, values, NULL, true);
	return DatumGetInt64(clerk_row_datum(0, 1, &isnull));
}

/*
 * A new name must have no rows.  If it has, a dump's rows were restored without
 * their server, or the event trigger was switched off.  The tables' owner is
 * trusted to know what it does, and is only warned.
 */
static void
check_new_name(const char *server)
{
	int64		rows = count_rows(&rows_statement, server);
	bool		trusted = has_privs_of_role(GetUserId(), clerk_catalog()->owner);

	if (rows > 0)
		ereport(trusted ? WARNING : ERROR,
				(errcode(trusted ? ERRCODE_WARNING : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 trusted ?
				 errmsg("server \"%s\" takes over the rows of an earlier server of that name: " INT64_FORMAT, server, rows) :
				 errmsg("an earlier server \"%s\" has left rows: " INT64_FORMAT, server, rows),
				 trusted ? 0 :
				 errhint("Choose another name, or have the owner of the extension's tables create the server or delete the rows.")));
}

static void
rename_server(const char *from, const char *to)
{
	NameData	names[2];
	Datum		values[] = {clerk_name_datum(&names[0], from), clerk_name_datum(&names[1], to)};

	check_new_name(to);
	clerk_run(&rename_statement, values, NULL, true);
}

static void
drop_server(const char *server)
{
	int64		unfinished = count_rows(&drop_statement, server);

	if (unfinished > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("requests of server \"%s\" that were not delivered are dropped with it: " INT64_FORMAT,
						server, unfinished)));
}

/*
 * Has the command changed a server?  CREATE SERVER IF NOT EXISTS may have not.
 */
static bool
has_changed_server(void)
{
	if (SPI_execute("SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() c"
					" WHERE c.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_server'::pg_catalog.regclass",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look at the changed objects");
	return SPI_processed > 0;
}

static void
drop_servers(void)
{
	List	   *names = NIL;
	ListCell   *lc;

	if (SPI_execute("SELECT d.object_name FROM pg_catalog.pg_event_trigger_dropped_objects() d"
					" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_server'::pg_catalog.regclass",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look at the dropped objects");
	for (uint64 i = 0; i < SPI_processed; i++)
		names = lappend(names, clerk_row_text(i, 1));
	foreach(lc, names)
		drop_server(lfirst(lc));
}

/*
 * Arm the server from the beginning, so that a copy of the database that is made
 * before the first use does not send either.  A server from a dump has its
 * origin already.
 */
static void
created_server(const char *server)
{
	ClerkOrigin origin;

	check_new_name(server);
	if (clerk_settings_origin(server, &origin) && origin == CLERK_ORIGIN_NONE)
		clerk_origin_arm_first(get_foreign_server_oid(server, false));
}

/*
 * A schema was renamed, which must not be the extension's.  Statements name it,
 * and are analyzed again whenever something changes: a session that was just
 * about to run one would find the tables that somebody has put into a new
 * schema of the old name, and write to them as the owner of the extension's.
 */
static void
check_renamed_schema(const RenameStmt *rename)
{
	if (strcmp(rename->newname, NameStr(clerk_catalog()->schema)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema %s of extension \"pg_clerk\" cannot be renamed", quote_identifier(rename->subname)),
				 errdetail("Statements of other sessions could find a new schema of the old name instead.")));
}

/*
 * enterprise_connection_ddl_event(), an event trigger function
 */
Datum
enterprise_connection_ddl_event(PG_FUNCTION_ARGS)
{
	EventTriggerData *event;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("enterprise_connection_ddl_event() is an event trigger function")));
	event = (EventTriggerData *) fcinfo->context;
	SPI_connect();
	if (strcmp(event->event, "sql_drop") == 0)
		drop_servers();
	else if (IsA(event->parsetree, RenameStmt) &&
			 ((RenameStmt *) event->parsetree)->renameType == OBJECT_SCHEMA)
		check_renamed_schema((RenameStmt *) event->parsetree);
	else if (!has_changed_server())
		;						/* nothing to do */
	else if (IsA(event->parsetree, CreateForeignServerStmt))
		created_server(((CreateForeignServerStmt *) event->parsetree)->servername);
	else if (IsA(event->parsetree, RenameStmt))
		rename_server(strVal(((RenameStmt *) event->parsetree)->object),
					  ((RenameStmt *) event->parsetree)->newname);
	SPI_finish();
	PG_RETURN_VOID();
}
