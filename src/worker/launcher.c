/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The launcher, which starts and ends the workers.
 *
 * With shared_preload_libraries = 'pg_clerk' there is one launcher, connected
 * to no database, and a worker for each database that needs one, as far as
 * pg_clerk.max_workers and max_worker_processes allow.  They share the state of
 * each database in shared memory (wake.h):
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
 * leaving:		pid > 0, leave; then pid = 0 until the process is gone, which
 *				the postmaster tells the launcher
 *
 * If more databases have something to do than there may be workers, workers that
 * are idle, or have worked for a minute, make room.  The databases of those that
 * were busy get a worker again in turn.  The others get one when they want one,
 * so that databases that have nothing to do cost nothing.
 *
 * Nothing is polled: a process that changes a state sets the latch of the process
 * that must act on it.  The only periods are pg_clerk.naptime, after which a
 * worker looks again, and an hour, after which a database without a worker gets
 * one again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/wake.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "worker/internal.h"
#include "worker/worker.h"

/*
 * How long a worker may work (ms) while another database waits for one.  Without
 * a bound, a database with a long outbox could starve all others; if it were much
 * shorter, processes would be started and ended all the time.
 */
#define STINT_MS 60000

/* The postmaster starts a launcher that failed again after this time. */
#define LAUNCHER_RESTART_S 2

int			clerk_max_workers = 4;

PGDLLEXPORT void clerk_launcher_main(Datum arg);

/* A worker that this launcher has registered, until its process is gone. */
typedef struct Child
{
	Oid			database;
	BackgroundWorkerHandle *handle;
} Child;

/* Counts over all databases. */
typedef struct Census
{
	int			workers;		/* processes */
	int			leaving;		/* of them */
	int			due;			/* databases that should have a worker now */
	Oid			first;			/* the one of them that has waited longest */
	int64		next;			/* when the next one should have one */
} Census;

static List *children = NIL;

/* Databases that may have the extension, and have had no worker yet. */
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
 * The databases that can be connected to, without templates or with them.  They
 * are read by a scan, as a process that is not connected to a database has
 * neither indexes nor catalog caches.
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
 * Forget the workers whose processes are gone.
 */
static void
reap_children(void)
{
	ListCell   *lc;

	foreach(lc, children)
	{
		Child	   *child = lfirst(lc);
		ClerkDatabase *each;
		bool		missing = false;
		pid_t		pid;

		if (GetBackgroundWorkerPid(child->handle, &pid) != BGWH_STOPPED)
			continue;
		clerk_wake_lock();
		each = clerk_wake_find(child->database, false);
		if (each != NULL && each->starting)
		{
			/* It did not start. */
			missing = true;
			each->starting = false;
			each->failures++;
			each->not_before = Max(each->not_before, clerk_now_ms() + RESTART_MS);
		}
		clerk_wake_unlock();
		if (missing)
			ereport(LOG,
					(errmsg("a worker of pg_clerk did not start in database %u", child->database),
					 errhint("Other lines of this log may say why. It is tried again.")));
		children = foreach_delete_current(children, lc);
		pfree(child->handle);
		pfree(child);
	}
}

/*
 * Make unseen databases wait for a worker, as long as shared memory has free
 * entries.  A worker that finds no extension frees the entry of its database.
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
		{
			/* A mirror sets the latch when it ends. */
			if (each->mirror_pid == 0)
				each->database = InvalidOid;
		}
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
set_starting(Oid database, bool starting, bool no_process)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL)
	{
		each->starting = starting;
		each->no_process = no_process;
	}
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
	set_starting(database, true, false);
	started = RegisterDynamicBackgroundWorker(&worker, &child->handle);
	if (started)
		children = lappend(children, child);
	else
	{
		set_starting(database, false, true);
		pfree(child);
	}
	MemoryContextSwitchTo(old);
	if (!started && !complained)
	{
		/* Say it once only: it will be so until the server is restarted. */
		complained = true;
		ereport(LOG,
				(errmsg("could not start a worker of pg_clerk: there are too many background workers"),
				 errhint("Increase max_worker_processes.")));
	}
	return started;
}

/*
 * Ask this number of workers to leave: first those that are idle, then those that
 * have worked for STINT_MS.  Returns when the next one will have.
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
	if (each != NULL && each->pid == 0 && each->mirror_pid == 0)
		each->database = InvalidOid;
	clerk_wake_unlock();
}

/*
 * Start the workers that are due, and ask others to make room for them.  Returns
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

	/* Workers that are switched off end by themselves. */
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

void
clerk_launcher_main(Datum arg)
{
	MemoryContext context;

	clerk_worker_set_signals();
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

	/* Nothing may write to a cluster while pg_upgrade reads it. */
	if (IsBinaryUpgrade)
		return;
	clerk_wake_init();
	RegisterBackgroundWorker(&launcher);
	clerk_utility_hook_init();
}
