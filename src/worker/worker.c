/*-------------------------------------------------------------------------
 *
 * worker.c
 *		Launcher and workers, which deliver what is in the outboxes.
 *
 * With shared_preload_libraries = 'pg_clerk' there is one launcher, connected
 * to no database, and a worker for each database that needs one, as far as
 * pg_clerk.max_workers and max_worker_processes allow.  What they know of each
 * other is in shared memory (wake.h).  A database goes through these states:
 *
 *		unknown <-----------------------------+
 *		   |  the server starts; a session    | no such database, or the
 *		   |  enqueues or creates the         | worker found no extension
 *		   v  extension                       | there
 *		waiting ------------------------------+
 *		   |  ^  until wanted and not_before are past and there is room
 *		   |  |                               ^
 *		   v  | did not start: 1 s            |
 *		starting                              |
 *		   |                                  |
 *		   v       commit                     | made room: when something is
 *		 busy <--------------> idle           | due, or after an hour; busy,
 *		   |  nothing is due     |            | or off: at once; ERROR or
 *		   |                     |            | SIGTERM: after 1 s;
 *		   |                     |            | sent away: when that session's
 *		   +----------+----------+            | transaction ends
 *		              v                       |
 *		           leaving -------------------+
 *
 * unknown:		no entry
 * waiting:		pid = 0, wanted is not CLERK_NEVER
 * starting:	pid = 0, starting
 * busy, idle:	pid > 0, idle is false or true
 * leaving:		pid > 0, leave; then pid = 0 until the process is gone, of which
 *				the launcher is told by the postmaster
 *
 * Where more databases have something to do than there may be workers, those
 * that have been idle or long at work make room.  Those that were at work come
 * back in turn; those that were idle, when they are wanted again, so that
 * databases that have nothing to do cost nothing.
 *
 * Nothing is polled: whoever changes a state sets the latch of whom it
 * concerns.  The only periods are pg_clerk.naptime, after which a worker looks
 * again, and an hour, after which a database without one gets one again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/statements.h"
#include "base/wake.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "http/http.h"
#include "miscadmin.h"
#include "outbox/deliver.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/worker.h"

/*
 * A worker that has nothing to do for so long may be asked to make room.  One
 * that is due again sooner would hardly be gone when it is started again.
 */
#define IDLE_MS 1000

/*
 * A database whose worker has left idle is looked at again after so many ms
 * even if nothing is due and nobody has asked for it.  Whatever is enqueued,
 * armed, altered or committed wakes a worker, so what is left for this is to
 * delete what was finished long ago, and a clock that was set forward.  An hour
 * is also the longest pause between two attempts.
 */
#define REST_MS (60 * 60 * 1000)

/* After an error, and where no process was to be had. */
#define RESTART_MS 1000

/* What a worker may work at a stretch while another database has none. */
#define STINT_MS 60000

/* A launcher that fails is started again after so many seconds. */
#define LAUNCHER_RESTART_S 2

int			clerk_max_workers = 4;
int			clerk_max_attempts = 20;
int			clerk_retention = 7 * 24 * 60 * 60;
int			clerk_naptime = 10000;

PGDLLEXPORT void clerk_launcher_main(Datum arg);
PGDLLEXPORT void clerk_worker_main(Datum arg);

/*-------------------------------------------------------------------------
 * Launcher
 *-------------------------------------------------------------------------
 */

/* A worker that this launcher has asked for, until its process is gone. */
typedef struct Child
{
	Oid			database;
	BackgroundWorkerHandle *handle;
} Child;

/* What all databases come to. */
typedef struct Census
{
	int			workers;		/* processes */
	int			leaving;		/* of them */
	int			due;			/* databases that are to have a worker now */
	Oid			first;			/* the one of them that has waited longest */
	int64		next;			/* when another one is */
} Census;

static List *children = NIL;

/* Databases that may have the extension and were not looked at yet. */
static List *unseen = NIL;

static bool
is_child(Oid database)
{
	ListCell   *lc;

	foreach(lc, children)
	{
		if (((Child *) lfirst(lc))->database == database)
			return true;
	}
	return false;
}

/*
 * The databases that can be connected to; those that are templates too?
 * Without a database there are no indexes and no catalog caches.
 */
static List *
connectable_databases(bool templates)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		/* A limit below -1: it was being dropped when the server crashed. */
		if (!form->datallowconn || form->datconnlimit < -1 || (form->datistemplate && !templates))
			continue;
		old = MemoryContextSwitchTo(caller);
		databases = lappend_oid(databases, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return databases;
}

/*
 * Let go of workers whose processes are gone.
 */
static void
reap_children(void)
{
	ListCell   *lc;

	foreach(lc, children)
	{
		Child	   *child = lfirst(lc);
		ClerkDatabase *each;
		pid_t		pid;

		if (GetBackgroundWorkerPid(child->handle, &pid) != BGWH_STOPPED)
			continue;
		clerk_wake_lock();
		each = clerk_wake_find(child->database, false);
		if (each != NULL && each->starting)
		{
			/* It has never come. */
			each->starting = false;
			each->not_before = Max(each->not_before, clerk_now_ms() + RESTART_MS);
		}
		clerk_wake_unlock();
		children = foreach_delete_current(children, lc);
		pfree(child->handle);
		pfree(child);
	}
}

/*
 * Make unseen databases wait for a worker, as long as there are places; those
 * without the extension become free again.
 */
static void
admit_unseen(void)
{
	ClerkWake  *wake = clerk_wake_lock();
	bool		full = wake->full;

	while (unseen != NIL)
	{
		ClerkDatabase *each = clerk_wake_find(llast_oid(unseen), true);

		if (each == NULL)
			break;
		each->wanted = Min(each->wanted, clerk_now_ms());
		unseen = list_truncate(unseen, list_length(unseen) - 1);
	}
	wake->full = false;
	clerk_wake_unlock();
	if (full)
		ereport(LOG,
				(errmsg("pg_clerk cannot serve more than %d databases", CLERK_MAX_DATABASES)));
}

static void
take_census(Census *census)
{
	int64		now = clerk_now_ms();
	int64		longest = CLERK_NEVER;
	ClerkWake  *wake = clerk_wake_lock();

	*census = (Census) {.workers = list_length(children), .next = CLERK_NEVER};
	for (int i = 0; i < CLERK_MAX_DATABASES; i++)
	{
		ClerkDatabase *each = &wake->databases[i];
		bool		child = OidIsValid(each->database) && is_child(each->database);
		int64		from = Max(each->wanted, each->not_before);

		if (!OidIsValid(each->database))
			continue;
		if (each->pid != 0 || child)
		{
			census->workers += child ? 0 : 1;
			census->leaving += each->pid != 0 ? each->leave : !each->starting;
		}
		else if (each->wanted == CLERK_NEVER && each->not_before <= now)
			each->database = InvalidOid;
		else if (from > now)
			census->next = Min(census->next, each->wanted == CLERK_NEVER ? each->not_before : from);
		else
		{
			census->due++;
			if (from < longest)
			{
				longest = from;
				census->first = each->database;
			}
		}
	}
	clerk_wake_unlock();
}

static void
set_starting(Oid database, bool starting)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL)
		each->starting = starting;
	clerk_wake_unlock();
}

/*
 * Start a worker.  False if there is no process for it.
 */
static bool
start_worker(Oid database)
{
	static bool complained = false;
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "pg_clerk",
		.bgw_function_name = "clerk_worker_main",
		.bgw_type = "pg_clerk worker",
		.bgw_main_arg = ObjectIdGetDatum(database),
		.bgw_notify_pid = MyProcPid,
	};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Child	   *child = palloc(sizeof(*child));
	bool		started;

	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_clerk worker for database %u", database);
	child->database = database;
	set_starting(database, true);
	started = RegisterDynamicBackgroundWorker(&worker, &child->handle);
	if (started)
		children = lappend(children, child);
	else
	{
		set_starting(database, false);
		pfree(child);
	}
	MemoryContextSwitchTo(old);
	if (!started && !complained)
	{
		/* Once is enough: it goes on like that until the server is restarted. */
		complained = true;
		ereport(LOG,
				(errmsg("could not start a worker of pg_clerk: there are too many background workers"),
				 errhint("Increase max_worker_processes.")));
	}
	return started;
}

/*
 * Ask so many workers to leave: those that are idle, then those that have
 * worked long enough.  Returns when another one has.
 */
static int64
make_room(int wanted)
{
	int64		now = clerk_now_ms();
	int64		next = CLERK_NEVER;
	ClerkWake  *wake = clerk_wake_lock();

	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < CLERK_MAX_DATABASES && wanted > 0; i++)
		{
			ClerkDatabase *each = &wake->databases[i];

			if (!OidIsValid(each->database) || each->pid == 0 || each->leave)
				continue;
			if (pass == 0 && !each->idle)
				continue;
			if (pass == 1 && each->since + STINT_MS > now)
			{
				next = Min(next, each->since + STINT_MS);
				continue;
			}
			each->leave = true;
			SetLatch(each->latch);
			wanted--;
		}
	}
	wake->crowded = wanted > 0;
	clerk_wake_unlock();
	return next;
}

static void
forget_database(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL && each->pid == 0)
		each->database = InvalidOid;
	clerk_wake_unlock();
}

/*
 * Start the workers that are wanted, and have others leave for them.  Returns
 * when there may be more to do.
 */
static int64
manage_workers(void)
{
	int			limit = clerk_max_workers;
	int64		until = CLERK_NEVER;
	bool		looked = false;
	List	   *connectable = NIL;
	Census		census;

	reap_children();
	for (;;)
	{
		admit_unseen();
		take_census(&census);
		if (!clerk_worker_enabled || census.due == 0 || census.workers >= limit)
			break;
		if (!looked)
			connectable = connectable_databases(true);
		looked = true;
		if (!list_member_oid(connectable, census.first))
			forget_database(census.first);
		else if (!start_worker(census.first))
		{
			limit = Max(census.workers, 1);
			until = clerk_now_ms() + RESTART_MS;
			break;
		}
	}

	/* Those that are switched off leave of their own accord. */
	if (!clerk_worker_enabled)
		return CLERK_NEVER;
	until = Min(until, census.next);
	return Min(until, make_room(census.workers - census.leaving + census.due - limit));
}

static void
launcher_is_gone(int code, Datum arg)
{
	clerk_wake_set_launcher(NULL);
}

static void
begin_process(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* Up to 18, what is set for SIGTERM ends the process in the handler. */
	pqsignal(SIGTERM, die);
}

void
clerk_launcher_main(Datum arg)
{
	MemoryContext context;

	begin_process();
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(launcher_is_gone, (Datum) 0);
	clerk_wake_set_launcher(MyLatch);
	MemoryContextSwitchTo(TopMemoryContext);
	unseen = connectable_databases(false);

	context = AllocSetContextCreate(TopMemoryContext, "pg_clerk launcher", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		int64		until;
		int64		wait;

		CHECK_FOR_INTERRUPTS();
		ProcessCatchupInterrupt();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(context);
		until = manage_workers();
		MemoryContextReset(context);
		wait = Max(until - clerk_now_ms(), 0);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (until == CLERK_NEVER ? 0 : WL_TIMEOUT),
						 (long) Min(wait, INT_MAX), clerk_launcher_wait_event());
		ResetLatch(MyLatch);
	}
}

/*-------------------------------------------------------------------------
 * Worker
 *-------------------------------------------------------------------------
 */

/* How it goes, if nothing else is said. */
static enum
{
	FAILED, LEFT, NOT_INSTALLED, REPLACED
}			parting = FAILED;

static bool is_idle = false;

/* When there is something to do, if nothing happens before; CLERK_NEVER. */
static int64 next_due = 0;

/*
 * The extension that this worker serves, and whether it is there.  Not known:
 * a relation has changed since.
 */
static Oid	served_extension = InvalidOid;
static bool extension_known = false;

static void
forget_extension(Datum arg, Oid relation)
{
	extension_known = false;
}

/*
 * Costs no look as long as no relation changes: the transaction takes in what
 * others have committed.
 */
static Oid
current_extension(void)
{
	Oid			extension = served_extension;

	StartTransactionCommand();
	if (!extension_known)
		extension = get_extension_oid("pg_clerk", true);
	CommitTransactionCommand();
	if (!OidIsValid(served_extension))
		served_extension = extension;
	extension_known = OidIsValid(extension) && extension == served_extension;
	return extension;
}

/*
 * Is the extension gone?  If so, nothing is left to do here until a session
 * says so after this.  If it was dropped and created in one transaction, what
 * this worker knows of its tables, and locks, is of the old ones.
 */
static bool
extension_is_gone(void)
{
	Oid			extension;

	(void) current_extension();
	if (extension_known)
		return false;
	clerk_wake_looking();
	extension = current_extension();
	if (extension_known)
		return false;
	parting = OidIsValid(extension) ? REPLACED : NOT_INSTALLED;
	return true;
}

static void
worker_begin(void)
{
	/* What is committed from now on may not be seen. */
	clerk_wake_looking();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
worker_commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	(void) pgstat_report_stat(false);
}

static bool
worker_leave(void)
{
	return !clerk_worker_enabled || clerk_wake_must_leave() || extension_is_gone();
}

static bool
worker_called(void)
{
	return ConfigReloadPending || clerk_wake_pending();
}

static void
worker_idle(int64 next)
{
	bool		idle = next > clerk_now_ms() + IDLE_MS;

	next_due = next;
	if (idle == is_idle)
		return;
	is_idle = idle;
	if (idle)
		(void) pgstat_report_stat(true);
	pgstat_report_activity(idle ? STATE_IDLE : STATE_RUNNING, NULL);
	clerk_wake_idle(idle);
}

static void
worker_is_gone(int code, Datum arg)
{
	int64		now = clerk_now_ms();
	int64		wanted = now;

	if (parting == NOT_INSTALLED)
		wanted = CLERK_NEVER;
	else if (parting == LEFT && is_idle && clerk_worker_enabled)
		wanted = Min(next_due, now + REST_MS);
	clerk_wake_part(wanted, parting == FAILED ? now + RESTART_MS : 0);
}

/*
 * What is set for the database or the server is meant for others.
 */
static void
adjust_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"jit", "off"},
		{"lock_timeout", "0"},
		{"row_security", "on"},
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "origin"},
		{"transaction_timeout", "0"},	/* from 17 on */
	};

	SetConfigOption("application_name", MyBgworkerEntry->bgw_type, PGC_SUSET, PGC_S_OVERRIDE);
	for (size_t i = 0; i < lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

/*
 * Deliver until it is time to leave.  An error ends the process, but one that
 * is owed to the extension being dropped just now is none.
 */
static void
deliver(void)
{
	static const ClerkDeliverer deliverer = {
		.forever = true,
		.begin = worker_begin,
		.commit = worker_commit,
		.leave = worker_leave,
		.called = worker_called,
		.idle = worker_idle,
	};

	PG_TRY();
	{
		clerk_deliver(&deliverer);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		extension_known = false;
		if (!extension_is_gone())
			clerk_rethrow(error);
	}
	PG_END_TRY();
}

/*
 * lock_timeout sends SIGINT.  Nobody else's ends anything: there is no statement
 * to cancel, and what was claimed must not be lost.
 */
static void
end_lock_wait(SIGNAL_ARGS)
{
	if (!get_timeout_indicator(LOCK_TIMEOUT, false))
		return;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

void
clerk_worker_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);

	begin_process();

	pqsignal(SIGINT, end_lock_wait);
	if (!clerk_wake_enter(database))
		return;
	before_shmem_exit(worker_is_gone, (Datum) 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	adjust_settings();
	CacheRegisterRelcacheCallback(forget_extension, (Datum) 0);
	pgstat_report_activity(STATE_RUNNING, NULL);
	if (!worker_leave())
		deliver();
	if (parting == FAILED)
		parting = LEFT;
}

/*-------------------------------------------------------------------------
 * Statements that concern workers
 *-------------------------------------------------------------------------
 */

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
 * May the current user copy the database?  As CREATE DATABASE itself decides
 * it: with CREATEDB, a template, or a database of one's own.
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
 * The database that nobody else may be connected to while the statement runs,
 * or NULL.
 */
static const char *
claimed_database(Node *statement)
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
 * Send its worker away, unless the statement is going to be refused.
 */
static void
send_worker_away(Node *statement)
{
	const char *name = claimed_database(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	if (!OidIsValid(database))
		return;
	if (IsA(statement, CreatedbStmt) ? may_copy(database) :
		database != MyDatabaseId && clerk_database_ownercheck(database, GetUserId()))
		clerk_wake_send_away(database);
}

/*
 * Does it give a server the name that requests may have?  The options of
 * servers are the validator's concern.
 */
static bool
renames_server(Node *statement)
{
	return IsA(statement, RenameStmt) && ((RenameStmt *) statement)->renameType == OBJECT_FOREIGN_SERVER;
}

/*
 * Does it commit what may have been enqueued?  Which prepared transactions have
 * enqueued something is not noted: that would have to outlive the server.
 */
static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED &&
		OidIsValid(get_extension_oid("pg_clerk", true));
}

/*
 * Does it create or drop the extension?  A worker is to find out.
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

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *completion)
{
	bool		commits = commits_prepared(pstmt->utilityStmt);

	send_worker_away(pstmt->utilityStmt);
	if (is_about_extension(pstmt->utilityStmt) || renames_server(pstmt->utilityStmt))
		clerk_wake_at_commit();
	(previous_utility ? previous_utility : standard_ProcessUtility)
		(pstmt, query_string, read_only_tree, context, params, query_env, dest, completion);
	if (commits)
		clerk_wake_prepared();
}

/*-------------------------------------------------------------------------
 * Loading
 *-------------------------------------------------------------------------
 */

void
clerk_worker_init(void)
{
	BackgroundWorker launcher = {
		.bgw_name = "pg_clerk launcher",
		.bgw_type = "pg_clerk launcher",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = LAUNCHER_RESTART_S,
		.bgw_library_name = "pg_clerk",
		.bgw_function_name = "clerk_launcher_main",
	};

	/* pg_upgrade wants to be alone. */
	if (IsBinaryUpgrade)
		return;
	clerk_wake_init();
	RegisterBackgroundWorker(&launcher);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
