/*-------------------------------------------------------------------------
 *
 * wake.c
 *		Which database has a worker, and waking it: the shared memory of
 *		launcher, workers and sessions.
 *
 * One lock protects all of it.  It is held for microseconds, and no error may be
 * thrown while it is held.  A process must remove its latch before it ends, so
 * that a latch in this memory always belongs to a process that is there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/shared.h"
#include "base/wake.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

/*
 * A worker that is sent away has this time (ms) to end its transaction; then it is
 * terminated.
 */
#define GRACE_MS 500

/* How long to wait until it is gone (ms): as long as PostgreSQL waits afterwards. */
#define GONE_MS 5000

/*
 * No worker is started until the transaction that sent it away ends, but for this
 * time (ms) at most: without a bound, a session that was killed would keep workers
 * away for good.  The time is enough for the statement to find the database unused
 * and to lock it; then a new worker waits for that lock.
 */
#define AWAY_MS 15000

/*
 * A worker is started this time (ms) after that transaction has ended, as its
 * locks are released a little later.
 */
#define RETURN_MS 100

/* A worker that is wanted for less long than this, in ms, is about to come. */
#define TURN_MS 3000

/* Failures in a row after which a worker is said to fail. */
#define MANY_FAILURES 3

/*
 * How often a session that awaits a request looks at it (ms) if nothing can wake
 * it: without shared memory, or on a standby, where requests are finished by
 * another server.
 */
#define AWAIT_MS 20

bool		clerk_worker_enabled = true;

static ClerkWake *shared = NULL;

/* To do at the end of this transaction. */
static bool wake_at_commit = false;
static bool any_finished = false;
static bool finished[CLERK_VARIABLES];	/* variables */
static Oid	sent_away = InvalidOid;
static int64 sent_away_until = 0;

/* In a worker: its database. */
static ClerkDatabase *own_entry = NULL;

/*-------------------------------------------------------------------------
 * Memory
 *-------------------------------------------------------------------------
 */

static void
attach_memory(void *memory, LWLock *lock, bool is_new)
{
	shared = memory;
	if (!is_new)
		return;
	shared->lock = lock;
	for (int i = 0; i < CLERK_VARIABLES; i++)
		ConditionVariableInit(&shared->finished[i]);
}

void
clerk_wake_init(void)
{
	static ClerkSharedArea area = {.name = "pg_clerk",.size = sizeof(ClerkWake),.attach = attach_memory};

	clerk_shared_reserve(&area);
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
 * Wake the database's worker, or let the launcher start one.
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
 * All requests of a key have the same variable: a session that awaits a request
 * which was superseded goes on to await the newer one.
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
 * Called after the commit, so it must not throw.
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

/*
 * Wait until this time, even if the latch is set meanwhile; can be cancelled.
 */
static void
pause_until(int64 until)
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
clerk_wake_wait(int64 request, const char *key, int64 until)
{
	int64		now = clerk_now_ms();

	if (shared == NULL || RecoveryInProgress())
		pause_until(until < 0 ? now + AWAIT_MS : Min(now + AWAIT_MS, until));
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
 * Keep workers of the database away, and ask the present one to leave.
 */
static void
begin_away(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, true);
	if (each != NULL)
	{
		/* Each is different, so it shows which session has sent it away last. */
		each->not_before = Max(each->not_before + 1, clerk_now_ms() + AWAY_MS);
		each->leave = true;
		if (each->pid != 0)
			SetLatch(each->latch);
		if (each->mirror_pid != 0)
			kill(each->mirror_pid, SIGINT);
		sent_away = database;
		sent_away_until = each->not_before;
	}
	clerk_wake_unlock();
}

/*
 * Has the database's worker, or its mirror, ended?  If not, terminates it if the
 * caller wants.  last: its pid, once it was seen.
 */
static bool
has_left(Oid database, bool mirror, bool terminate, int *last)
{
	ClerkDatabase *each;
	int			pid = 0;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL)
		pid = mirror ? each->mirror_pid : each->pid;
	if (pid != 0 && terminate)
		kill(pid, SIGTERM);
	clerk_wake_unlock();
	if (pid != 0)
		*last = pid;

	/* It removes its entry before it has disconnected from the database. */
	return pid == 0 && (*last == 0 || BackendPidGetProc(*last) == NULL);
}

void
clerk_wake_cancel_mirror(Oid database)
{
	ClerkDatabase *each;

	if (shared == NULL)
		return;
	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL && each->mirror_pid != 0)
		kill(each->mirror_pid, SIGINT);
	clerk_wake_unlock();
}

void
clerk_wake_send_away(Oid database)
{
	int64		start = clerk_now_ms();
	int64		now;
	int			worker = 0;
	int			mirror = 0;

	if (shared == NULL)
		return;
	begin_away(database);
	while ((now = clerk_now_ms()) < start + GONE_MS)
	{
		bool		terminate = now >= start + GRACE_MS;
		bool		worker_left = has_left(database, false, terminate, &worker);

		if (has_left(database, true, terminate, &mirror) && worker_left)
			break;
		pause_until(now + 5);
	}
}

/*
 * Allow a worker again in the databases from which it was sent away, unless
 * another session has sent it away since.
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
 * A transaction that is prepared wakes nothing: COMMIT PREPARED calls
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
			own_entry = each;
		}
	}
	clerk_wake_unlock();
	return own_entry != NULL;
}

/*
 * Read without the lock: at worst, a stale value makes a worker start once more
 * than necessary.
 */
void
clerk_wake_looking(void)
{
	if (!own_entry->woken)
		return;
	clerk_wake_lock();
	own_entry->woken = false;
	clerk_wake_unlock();
}

bool
clerk_wake_pending(void)
{
	return own_entry->woken;
}

void
clerk_wake_idle(bool idle)
{
	clerk_wake_lock();
	own_entry->idle = idle;
	own_entry->failures = 0;
	if (idle && shared->crowded)
		wake_launcher();
	clerk_wake_unlock();
}

bool
clerk_wake_must_leave(void)
{
	/* Read without the lock: whatever sets it sets the latch afterwards. */
	return own_entry->leave;
}

void
clerk_wake_part(int64 wanted, int64 not_before, bool failed)
{
	clerk_wake_lock();
	own_entry->pid = 0;
	own_entry->latch = NULL;
	own_entry->wanted = own_entry->woken ? Min(wanted, clerk_now_ms()) : wanted;
	own_entry->woken = false;
	own_entry->not_before = Max(own_entry->not_before, not_before);
	own_entry->failures = failed ? own_entry->failures + 1 : 0;
	own_entry = NULL;
	wake_launcher();
	clerk_wake_unlock();
}

bool
clerk_wake_is_mirroring(void)
{
	/* The worker's latch is set when that changes. */
	return own_entry->mirror_pid != 0;
}

bool
clerk_wake_enter_mirror(Oid database)
{
	ClerkDatabase *each;
	bool		enter;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	enter = each != NULL && each->mirror_pid == 0 && clerk_worker_enabled && each->not_before <= clerk_now_ms();
	if (enter)
		each->mirror_pid = MyProcPid;
	clerk_wake_unlock();
	return enter;
}

void
clerk_wake_part_mirror(Oid database)
{
	ClerkDatabase *each;

	clerk_wake_lock();
	each = clerk_wake_find(database, false);
	if (each != NULL && each->mirror_pid == MyProcPid)
	{
		each->mirror_pid = 0;
		if (each->pid != 0)
			SetLatch(each->latch);
	}
	wake_launcher();
	clerk_wake_unlock();
}

/*-------------------------------------------------------------------------
 * Launcher
 *-------------------------------------------------------------------------
 */

/*
 * A new launcher knows nothing of the workers that the last one has registered.
 * If it starts a second worker for a database, clerk_wake_enter makes the later
 * one of the two end.
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
