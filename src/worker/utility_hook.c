/*-------------------------------------------------------------------------
 *
 * utility_hook.c
 *		Statements that concern workers.
 *
 * CREATE, DROP, RENAME and ALTER DATABASE need a database that no
 * process is connected to, so its worker is sent away first.  Other statements
 * give a worker something to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/wake.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/syscache.h"
#include "worker/internal.h"

static ProcessUtility_hook_type previous_utility = NULL;

static const char *
string_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/*
 * May the current user copy the database?  The rule is that of CREATE DATABASE:
 * the user must have CREATEDB, and the database be a template or the user's own.
 */
static bool
may_copy(Oid database)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!may || clerk_database_ownercheck(database, GetUserId()))
		return may;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	may = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * The database that no other process may be connected to while the statement
 * runs, or NULL.
 */
static const char *
exclusive_database(Node *statement)
{
	const char *template;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			if (string_option(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
				return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		case T_CreatedbStmt:
			template = string_option(((CreatedbStmt *) statement)->options, "template");
			return template ? template : "template1";
		default:
			return NULL;
	}
}

/*
 * Make the worker of that database leave, unless the user lacks the privilege for
 * the statement: otherwise any role could stop deliveries.
 */
static void
send_worker_away(Node *statement)
{
	const char *name = exclusive_database(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	if (!OidIsValid(database))
		return;
	if (IsA(statement, CreatedbStmt) ? may_copy(database) :
		database != MyDatabaseId && clerk_database_ownercheck(database, GetUserId()))
		clerk_wake_send_away(database);
}

/*
 * Does the statement rename a server?  Requests that wait for a server of the new
 * name can be sent then.  (For changed options, the validator wakes the worker.)
 */
static bool
renames_server(Node *statement)
{
	return IsA(statement, RenameStmt) && ((RenameStmt *) statement)->renameType == OBJECT_FOREIGN_SERVER;
}

/*
 * Does the statement commit a prepared transaction?  It may have enqueued
 * something; that is not recorded, as the record would have to survive a restart.
 */
static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED &&
		OidIsValid(get_extension_oid("pg_clerk", true));
}

/*
 * Does the statement create or drop the extension?  Then a worker must look.
 */
static bool
is_about_extension(Node *statement)
{
	ListCell   *lc;

	if (IsA(statement, CreateExtensionStmt))
		return strcmp(((CreateExtensionStmt *) statement)->extname, "pg_clerk") == 0;
	if (!IsA(statement, DropStmt) || ((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, ((DropStmt *) statement)->objects)
	{
		if (strcmp(strVal(lfirst(lc)), "pg_clerk") == 0)
			return true;
	}
	return false;
}

/*
 * DROP EXTENSION does not wait for a mirror that runs by itself.
 */
static void
cancel_mirror(Node *statement)
{
	Oid			extension = IsA(statement, DropStmt) ? get_extension_oid("pg_clerk", true) : InvalidOid;

	if (OidIsValid(extension) && clerk_extension_ownercheck(extension, GetUserId()))
		clerk_wake_cancel_mirror(MyDatabaseId);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *completion)
{
	bool		commits = commits_prepared(pstmt->utilityStmt);
	bool		is_about = is_about_extension(pstmt->utilityStmt);

	send_worker_away(pstmt->utilityStmt);
	if (is_about)
		cancel_mirror(pstmt->utilityStmt);
	if (is_about || renames_server(pstmt->utilityStmt))
		clerk_wake_at_commit();
	(previous_utility ? previous_utility : standard_ProcessUtility)
		(pstmt, query_string, read_only_tree, context, params, query_env, dest, completion);
	if (commits)
		clerk_wake_prepared();
}

void
clerk_utility_hook_init(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
