/*-------------------------------------------------------------------------
 *
 * wake.c
 *		Which database has a worker, and waking it: the shared memory of
 *		launcher, workers and sessions.
 *
 * One lock protects all of it and is held for microseconds; nothing is thrown
 * under it.  A latch in it belongs to a process that is still there: whoever
 * leaves takes it away first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/wake.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/*
 * A worker that is sent away may finish what it is at for so long, then it is
 * terminated.
 */
#define GRACE_MS 500

/* How long to wait for it; as long as PostgreSQL itself waits afterwards. */
#define GONE_MS 5000

/*
 * It stays away until the transaction ends, but not longer than this (whoever
 * sent it away may be gone): time enough to find the database unused and lock
 * it.  Then a new worker waits for that lock.
 */
#define AWAY_MS 15000

/* Locks are released a little after the end of a transaction is announced. */
#define RETURN_MS 100

/* A worker that is wanted for less long than this, in ms, is about to come. */
#define TURN_MS 3000

/* After so many failures in a row, a worker is said to fail. */
#define MANY_FAILURES 3

/*
 * Without the memory, or where what is finished comes from another server, who
 * awaits a request looks at it every so many ms.
 */
#define AWAIT_MS 20

bool		clerk_worker_enabled = true;

static ClerkWake *shared = NULL;

static shmem_startup_hook_type previous_startup_hook = NULL;
#if CLERK_HAS_SHMEM_REQUEST_HOOK
static shmem_request_hook_type previous_request_hook = NULL;
#endif

/* To do at the end of this transaction. */
static bool wake_at_commit = false;
static bool any_finished = false;
static bool finished[CLERK_VARIABLES];	/* variables */
static Oid	sent_away = InvalidOid;
static int64 sent_away_until = 0;

/* In a worker: its database. */
static ClerkDatabase *mine = NULL;

/*-------------------------------------------------------------------------
 * Memory
 *-------------------------------------------------------------------------
 */

static void
request_memory(void)
{
#if CLERK_HAS_SHMEM_REQUEST_HOOK
	if (previous_request_hook)
		previous_request_hook();
#endif
	RequestAddinShmemSpace(MAXALIGN(sizeof(ClerkWake)));
	RequestNamedLWLockTranche("pg_clerk", 1);
}

static void
attach_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("pg_clerk", sizeof(ClerkWake), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		shared->lock = &(GetNamedLWLockTranche("pg_clerk"))->lock;
		for (int i = 0; i < CLERK_VARIABLES; i++)
			ConditionVariableInit(&shared->finished[i]);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
clerk_wake_init(void)
{
#if CLERK_HAS_SHMEM_REQUEST_HOOK
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
#else
	request_memory();
#endif
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = attach_memory;
}

ClerkWake *
clerk_wake_lock(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	return shared;
}

void
clerk_wake_unlock(void)
{
	LWLockRelease(shared->lock);
}

static void
wake_launcher(void)
{
	if (shared->launcher != NULL)
		SetLatch(shared->launcher);
}

ClerkDatabase *
clerk_wake_find(Oid database, bool create)
{
	ClerkDatabase *unused = NULL;

	for (int i = 0; i < CLERK_MAX_DATABASES; i++)
	{
		ClerkDatabase *each = &shared->databases[i];

		if (each->database == database)
			return each;
		if (unused == NULL && !OidIsValid(each->database))
			unused = each;
	}
	if (!create || unused == NULL)
		return NULL;
	memset(unused, 0, sizeof(*unused));
	unused->database = database;
	unused->wanted = CLERK_NEVER;
	return unused;
}

/*-------------------------------------------------------------------------
 * Sessions
 *-------------------------------------------------------------------------
 */

/*
 * What a database lacks; with the lock.  One that has waited for so short a time
 * is about to be served.
 */
static const char *
lacks(const ClerkDatabase *each, const char **hint)
{
	if (each == NULL)
		return NULL;
	if (each->failures >= MANY_FAILURES && (each->pid == 0 || each->since + TURN_MS > clerk_now_ms()))
	{
		*hint = "The server log says why; until it is mended, run CALL deliver_enterprise_connections() now and then.";
		return "the worker of this database fails again and again";
	}
	if (each->pid != 0)
		return NULL;
	if (each->no_process)
	{
		*hint = "Increase max_worker_processes and restart, or run CALL deliver_enterprise_connections() now and then.";
		return "there is no free process for a worker (max_worker_processes)";
	}
	if (each->wanted + TURN_MS < clerk_now_ms() && each->not_before + TURN_MS < clerk_now_ms())
	{
		*hint = "Increase pg_clerk.max_workers and reload, or run CALL deliver_enterprise_connections() now and then.";
		return "other databases have all the workers that there may be (pg_clerk.max_workers)";
	}
	return NULL;
}

const char *
clerk_wake_unserved(const char **hint)
{
	const char *reason;

	if (shared == NULL)
	{
		*hint = "Add pg_clerk to shared_preload_libraries and restart, or run CALL deliver_enterprise_connections() now and then.";
		return "pg_clerk is not in shared_preload_libraries";
	}
	if (!clerk_worker_enabled)
	{
		*hint = "Set pg_clerk.worker = on and reload, or run CALL deliver_enterprise_connections() now and then.";
		return "pg_clerk.worker is off";
	}
	LWLockAcquire(shared->lock, LW_SHARED);
	if (shared->launcher == NULL && (max_worker_processes == 0 ||
									 (!shared->launched && TimestampDifferenceExceeds(PgStartTime, GetCurrentTimestamp(), TURN_MS))))
	{
		*hint = "Increase max_worker_processes and restart, or run CALL deliver_enterprise_connections() now and then.";
		reason = "the launcher found no free process when the server started (max_worker_processes)";
	}
	else
		reason = lacks(clerk_wake_find(MyDatabaseId, false), hint);
	LWLockRelease(shared->lock);
	return reason;
}

/*
 * A hold that is over leaves its place to another.  If there is none, the
 * process that was told knows all the same.
 */
void
clerk_wake_hold(Oid server, int64 version, int64 until)
{
	ClerkHold  *place = NULL;
	int64		now = clerk_now_ms();

	if (shared == NULL)
		return;
	clerk_wake_lock();
	for (int i = 0; i < CLERK_MAX_HOLDS; i++)
	{
		ClerkHold  *each = &shared->holds[i];

		if (each->database == MyDatabaseId && each->server == server)
		{
			place = each;
			break;
		}
		if (place == NULL && each->until <= now)
			place = each;
	}
	if (place != NULL)
	{
		*place = (ClerkHold) {.database = MyDatabaseId, .server = server, .version = version, .until = until};
		shared->last_hold = Max(shared->last_hold, until);
	}
	clerk_wake_unlock();
}

int64
clerk_wake_held_until(Oid server, int64 version)
{
	int64		until = 0;

	if (shared == NULL || shared->last_hold <= clerk_now_ms())
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < CLERK_MAX_HOLDS; i++)
	{
		const ClerkHold *each = &shared->holds[i];

		if (each->database == MyDatabaseId && each->server == server && each->version == version)
			until = each->until;
	}
	LWLockRelease(shared->lock);
	return until;
}

void
clerk_wake_at_commit(void)
{
	wake_at_commit = shared != NULL;
}

/*
 * The worker, if there is one, finds its latch set; if not, the launcher
 * finds that one is wanted.
 */
static void
wake_database(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, true);
	if (each == NULL)
		shared->full = true;
	else
	{
		each->woken = true;
		each->wanted = Min(each->wanted, clerk_now_ms());
	}
	if (each != NULL && each->pid != 0)
		SetLatch(each->latch);
	else
		wake_launcher();
	clerk_wake_unlock();
}

/*
 * Requests of one key have one variable: whoever awaits one that was superseded
 * goes on to await the one of its key that has superseded it.
 */
static int
variable_of(int64 request, const char *key)
{
	uint32		hash = key != NULL ? hash_bytes((const unsigned char *) key, strlen(key)) : (uint32) request;

	return hash % CLERK_VARIABLES;
}

void
clerk_wake_finished(int64 request, const char *key)
{
	any_finished = true;
	finished[variable_of(request, key)] = true;
}

/*
 * Nothing in it can fail.
 */
static void
wake_waiting(void)
{
	for (int i = 0; i < CLERK_VARIABLES; i++)
	{
		if (finished[i])
			ConditionVariableBroadcast(&shared->finished[i]);
	}
}

static void
forget_finished(void)
{
	any_finished = false;
	memset(finished, 0, sizeof(finished));
}

void
clerk_wake_prepared(void)
{
	for (int i = 0; i < CLERK_VARIABLES; i++)
		ConditionVariableBroadcast(&shared->finished[i]);
	wake_database(MyDatabaseId);
}

void
clerk_wake_wait(int64 request, const char *key, int64 until)
{
	int64		now = clerk_now_ms();

	if (shared == NULL || RecoveryInProgress())
		clerk_wake_pause(until < 0 ? now + AWAIT_MS : Min(now + AWAIT_MS, until));
	else
		(void) ConditionVariableTimedSleep(&shared->finished[variable_of(request, key)],
										   until < 0 ? -1 : (long) Min(Max(until - now, 0), INT_MAX),
										   clerk_await_wait_event());
}

void
clerk_wake_end_wait(void)
{
	(void) ConditionVariableCancelSleep();
}

/*
 * Keep workers of the database away, and ask the one that is there to go.
 */
static void
begin_away(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, true);
	if (each != NULL)
	{
		/* No two are the same: they tell who has sent it away last. */
		each->not_before = Max(each->not_before + 1, clerk_now_ms() + AWAY_MS);
		each->leave = true;
		if (each->pid != 0)
			SetLatch(each->latch);
		sent_away = database;
		sent_away_until = each->not_before;
	}
	clerk_wake_unlock();
}

/*
 * The pid of the database's worker, or 0; terminate it if that is wanted.
 */
static int
worker_of(Oid database, bool terminate)
{
	ClerkDatabase *each;
	int			pid;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	pid = each != NULL ? each->pid : 0;
	if (pid != 0 && terminate)
		kill(pid, SIGTERM);
	clerk_wake_unlock();
	return pid;
}

void
clerk_wake_pause(int64 until)
{
	int64		now;

	while ((now = clerk_now_ms()) < until)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(until - now, INT_MAX), clerk_wait_event());
		ResetLatch(MyLatch);
	}
}

void
clerk_wake_send_away(Oid database)
{
	int64		start = clerk_now_ms();
	int64		now;
	int			pid;
	int			last = 0;

	if (shared == NULL)
		return;
	begin_away(database);
	while ((now = clerk_now_ms()) < start + GONE_MS)
	{
		pid = worker_of(database, now >= start + GRACE_MS);
		/* It takes leave before it has left the database. */
		if (pid == 0 && (last == 0 || BackendPidGetProc(last) == NULL))
			break;
		if (pid != 0)
			last = pid;
		clerk_wake_pause(now + 5);
	}
}

/*
 * Whoever was sent away may come back, unless another session has sent it
 * away since.
 */
static void
end_away(void)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(sent_away, false);
	if (each != NULL && each->not_before == sent_away_until)
	{
		each->not_before = clerk_now_ms() + RETURN_MS;
		if (each->wanted != CLERK_NEVER)
			each->wanted = Min(each->wanted, each->not_before);
		wake_launcher();
	}
	clerk_wake_unlock();
	sent_away = InvalidOid;
}

/*
 * A transaction that is prepared wakes nobody; who commits it calls
 * clerk_wake_prepared.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (any_finished && event == XACT_EVENT_COMMIT && shared != NULL)
		wake_waiting();
	if (any_finished)
		forget_finished();
	if (wake_at_commit && event == XACT_EVENT_COMMIT)
		wake_database(MyDatabaseId);
	wake_at_commit = false;
	if (OidIsValid(sent_away))
		end_away();
}

void
clerk_wake_register(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/*-------------------------------------------------------------------------
 * Workers
 *-------------------------------------------------------------------------
 */

bool
clerk_wake_enter(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL)
	{
		each->starting = false;
		if (each->pid == 0 && each->not_before <= clerk_now_ms())
		{
			each->pid = MyProcPid;
			each->latch = MyLatch;
			each->since = clerk_now_ms();
			each->idle = false;
			each->leave = false;
			mine = each;
		}
	}
	clerk_wake_unlock();
	return mine != NULL;
}

/*
 * Read without the lock: a stale value makes a worker be started once more
 * than necessary, no less.
 */
void
clerk_wake_looking(void)
{
	if (!mine->woken)
		return;
	clerk_wake_lock();
	mine->woken = false;
	clerk_wake_unlock();
}

bool
clerk_wake_pending(void)
{
	return mine->woken;
}

void
clerk_wake_idle(bool idle)
{
	clerk_wake_lock();
	mine->idle = idle;
	mine->failures = 0;
	if (idle && shared->crowded)
		wake_launcher();
	clerk_wake_unlock();
}

bool
clerk_wake_must_leave(void)
{
	/* Whoever sets it sets the latch afterwards. */
	return mine->leave;
}

void
clerk_wake_part(int64 wanted, int64 not_before, bool failed)
{
	clerk_wake_lock();
	mine->pid = 0;
	mine->latch = NULL;
	mine->wanted = mine->woken ? Min(wanted, clerk_now_ms()) : wanted;
	mine->woken = false;
	mine->not_before = Max(mine->not_before, not_before);
	mine->failures = failed ? mine->failures + 1 : 0;
	mine = NULL;
	wake_launcher();
	clerk_wake_unlock();
}

/*-------------------------------------------------------------------------
 * Launcher
 *-------------------------------------------------------------------------
 */

/*
 * A new launcher knows nothing of the workers that the last one has asked
 * for: if one of them comes yet, it or its double finds the other there.
 */
void
clerk_wake_set_launcher(Latch *latch)
{
	clerk_wake_lock();
	shared->launcher = latch;
	shared->launched |= latch != NULL;
	for (int i = 0; i < CLERK_MAX_DATABASES; i++)
		shared->databases[i].starting = false;
	clerk_wake_unlock();
}
