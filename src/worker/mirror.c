/*-------------------------------------------------------------------------
 *
 * mirror.c
 *		Servers that are mirrored by themselves, every mirror_interval.
 *
 * The worker of a database knows when a server is due, and starts a process that
 * mirrors it and ends, so that deliveries go on meanwhile: one at a time for each
 * database.  That process must leave the database where the worker must, and
 * gets SIGINT then, which cancels its statement.
 *
 * When a server's last mirror began is kept with its counters, in shared memory.
 * After a restart nothing is known, and all are mirrored within a minute, not at
 * once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/wake.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "clerk/log.h"
#include "clerk/settings.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "worker/internal.h"

/* After a restart, servers are mirrored within this time (ms), or within their interval. */
#define FIRST_MS (60 * 1000)

PGDLLEXPORT void clerk_mirror_main(Datum arg);

/*-------------------------------------------------------------------------
 * In the worker
 *-------------------------------------------------------------------------
 */

/* A server that has the option. */
typedef struct Mirrored
{
	Oid			server;
	int			interval;		/* ms */
	int64		first;			/* ms; if it was never mirrored */
	ClerkStatistics *statistics;
} Mirrored;

/* What the process is told. */
typedef struct MirrorOrder
{
	Oid			database;
	Oid			server;
} MirrorOrder;

static List *mirrored = NIL;
static MemoryContext mirrored_context = NULL;
static bool mirrored_known = false;

/* The process that this worker has started, until it has ended. */
static BackgroundWorkerHandle *child = NULL;

/* Where none could be started, ms. */
static int64 not_before = 0;

static void
forget_mirrored(Datum arg, ClerkSysCacheId cache, uint32 hash)
{
	mirrored_known = false;
}

/*
 * A server keeps the time of its first mirror when others change.
 */
static int64
first_time(const List *before, Oid server, int interval)
{
	ListCell   *lc;

	foreach(lc, before)
	{
		const Mirrored *each = lfirst(lc);

		if (each->server == server && each->interval == interval)
			return each->first;
	}
	return clerk_now_ms() + (int64) (clerk_random() * Min(interval, FIRST_MS));
}

static List *
add_if_mirrored(List *list, Form_pg_foreign_server form)
{
	ClerkSettings *settings = clerk_settings_limits(NameStr(form->srvname));
	Mirrored   *each;
	MemoryContext old;

	/* A copy of the database asks Clerk nothing. */
	if (settings == NULL || settings->mirror_interval == 0 || settings->origin == CLERK_ORIGIN_ELSEWHERE)
		return list;
	old = MemoryContextSwitchTo(mirrored_context);
	each = palloc(sizeof(*each));
	each->server = form->oid;
	each->interval = settings->mirror_interval;
	each->first = first_time(mirrored, form->oid, settings->mirror_interval);
	each->statistics = settings->statistics;
	list = lappend(list, each);
	MemoryContextSwitchTo(old);
	return list;
}

static List *
servers_mirrored(void)
{
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *list = NIL;

	while ((tuple = systable_getnext(scan)) != NULL)
		list = add_if_mirrored(list, (Form_pg_foreign_server) GETSTRUCT(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return list;
}

/*
 * An error, such as a server that is being dropped, is no reason to end: the list
 * is made anew when a server has changed.
 */
static void
read_mirrored(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *list = NIL;

	if (mirrored_context == NULL)
	{
		mirrored_context = AllocSetContextCreate(TopMemoryContext, "pg_clerk mirrored servers", ALLOCSET_SMALL_SIZES);
		CacheRegisterSyscacheCallback(FOREIGNSERVEROID, forget_mirrored, (Datum) 0);
	}

	/* Before reading, so that an invalidation meanwhile is not lost. */
	mirrored_known = true;
	PG_TRY();
	{
		StartTransactionCommand();
		list = servers_mirrored();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		list = NIL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	list_free_deep(mirrored);
	mirrored = list;
}

static int64
due(const Mirrored *each)
{
	int64		began = (int64) pg_atomic_read_u64(&each->statistics->mirror_began);

	return began == 0 ? each->first : began + each->interval;
}

static bool
is_running(void)
{
	pid_t		pid;

	if (child != NULL && GetBackgroundWorkerPid(child, &pid) == BGWH_STOPPED)
	{
		pfree(child);
		child = NULL;
	}
	return child != NULL || clerk_wake_is_mirroring();
}

static bool
start(const Mirrored *each)
{
	BackgroundWorker worker = {
		.bgw_name = "pg_clerk mirror",
		.bgw_type = "pg_clerk mirror",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "pg_clerk",
		.bgw_function_name = "clerk_mirror_main",
		.bgw_notify_pid = MyProcPid,
	};
	MirrorOrder order = {.database = MyDatabaseId,.server = each->server};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	memcpy(worker.bgw_extra, &order, sizeof(order));
	started = RegisterDynamicBackgroundWorker(&worker, &child);
	MemoryContextSwitchTo(old);
	if (started)
		pg_atomic_write_u64(&each->statistics->mirror_began, (uint64) clerk_now_ms());
	else
		child = NULL;
	return started;
}

/*
 * The server that is due first; NULL if there is none.
 */
static const Mirrored *
first_due(void)
{
	const Mirrored *first = NULL;
	ListCell   *lc;

	foreach(lc, mirrored)
		if (first == NULL || due(lfirst(lc)) < due(first))
		first = lfirst(lc);
	return first;
}

/*
 * A worker that makes room leaves its mirror at work, and another is not started
 * before that one has ended.
 */
int64
clerk_mirror_due(void)
{
	const Mirrored *first = first_due();

	if (first == NULL)
		return CLERK_NEVER;
	return Max(Max(due(first), not_before), is_running() ? clerk_now_ms() + RESTART_MS : 0);
}

int64
clerk_mirror_tend(void)
{
	static bool complained = false;
	int64		now = clerk_now_ms();
	const Mirrored *first;

	if (!mirrored_known)
		read_mirrored();
	first = first_due();

	/* When one that runs ends, the latch is set. */
	if (first == NULL || is_running())
		return CLERK_NEVER;
	if (Max(due(first), not_before) > now)
		return Max(due(first), not_before);
	if (start(first))
		return CLERK_NEVER;
	if (!complained)
		ereport(LOG,
				(errmsg("could not start a mirror of pg_clerk: there are too many background workers"),
				 errhint("Increase max_worker_processes.")));
	complained = true;
	not_before = now + FIRST_MS;
	return not_before;
}

/*-------------------------------------------------------------------------
 * The process that mirrors
 *-------------------------------------------------------------------------
 */

/* What has changed. */
typedef struct Changes
{
	char	   *server;			/* its name; NULL: it is gone */
	ClerkStatistics *statistics;
	int64		inserted;
	int64		updated;
	int64		deleted;
} Changes;

static int64
count_at(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull));
}

/*
 * As the server's owner: what it may not do, is not done.  Nothing of it lives on
 * in this process.
 */
static void
run_mirror(Oid server, Changes *changes)
{
	MemoryContext caller = CurrentMemoryContext;
	ForeignServer *found;
	Oid			types[] = {NAMEOID};
	Datum		values[1];
	NameData	name;
	Oid			user;
	int			sec_context;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	found = GetForeignServerExtended(server, FSV_MISSING_OK);
	if (found != NULL)
	{
		changes->server = MemoryContextStrdup(caller, found->servername);
		changes->statistics = clerk_statistics(server);
		GetUserIdAndSecContext(&user, &sec_context);
		SetUserIdAndSecContext(found->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
		namestrcpy(&name, found->servername);
		values[0] = NameGetDatum(&name);
		SPI_connect();
		if (SPI_execute_with_args(psprintf("SELECT count(*) FILTER (WHERE m.change = 'inserted'), count(*) FILTER (WHERE m.change = 'updated'),"
										   " count(*) FILTER (WHERE m.change = 'deleted') FROM %s.mirror_enterprise_connections($1, false) m",
										   quote_identifier(NameStr(clerk_catalog()->schema))),
								  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not mirror");
		changes->inserted = count_at(1);
		changes->updated = count_at(2);
		changes->deleted = count_at(3);
		SPI_finish();
		SetUserIdAndSecContext(user, sec_context);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
}

/*
 * In a transaction of its own: if it cannot be told, it has been mirrored all the
 * same.
 */
static void
notify(const Changes *changes)
{
	StringInfoData text;

	if (changes->inserted + changes->updated + changes->deleted == 0)
		return;
	StartTransactionCommand();
	initStringInfo(&text);
	appendStringInfoString(&text, "{\"mirror\":");
	escape_json(&text, changes->server);
	appendStringInfo(&text, ",\"inserted\":" INT64_FORMAT ",\"updated\":" INT64_FORMAT ",\"deleted\":" INT64_FORMAT "}",
					 changes->inserted, changes->updated, changes->deleted);
	Async_Notify("pg_clerk", text.data);
	CommitTransactionCommand();
}

/*
 * Is the error one to be told?  A process that is sent away has not failed: the
 * server is mirrored soon.  Nor has one whose server was dropped meanwhile.
 */
static bool
is_failure(const Changes *changes, Oid server, const ErrorData *error)
{
	bool		exists;

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		if (changes->statistics != NULL)
			pg_atomic_write_u64(&changes->statistics->mirror_began, 0);
		return false;
	}
	StartTransactionCommand();
	exists = SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server));
	CommitTransactionCommand();
	return exists;
}

static void
mirror(Oid server)
{
	MemoryContext context = CurrentMemoryContext;
	Changes    *changes = palloc0(sizeof(*changes));

	PG_TRY();
	{
		run_mirror(server, changes);
		if (changes->server != NULL)
			notify(changes);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		if (is_failure(changes, server, error))
			clerk_log_error(psprintf("mirror of server \"%s\" failed", changes->server ? changes->server : psprintf("%u", server)), error);
	}
	PG_END_TRY();
	(void) pgstat_report_stat(true);
}

static void
mirror_is_gone(int code, Datum database)
{
	clerk_wake_part_mirror(DatumGetObjectId(database));
}

void
clerk_mirror_main(Datum arg)
{
	MirrorOrder order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	clerk_worker_set_signals();
	pqsignal(SIGINT, StatementCancelHandler);
	if (!clerk_wake_enter_mirror(order.database))
		return;
	before_shmem_exit(mirror_is_gone, ObjectIdGetDatum(order.database));
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(order.database, InvalidOid, 0);
	clerk_worker_set_settings();
	mirror(order.server);
}
