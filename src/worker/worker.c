/*-------------------------------------------------------------------------
 *
 * worker.c
 *		A worker, which delivers what is in the outbox of its database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/statements.h"
#include "base/wake.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "outbox/deliver.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "worker/internal.h"

/*
 * A worker that has nothing to do for at least this time (ms) is idle, and may be
 * asked to make room.  If a worker left that is due again sooner, it would have to
 * be started again almost at once.
 */
#define IDLE_MS 1000

/*
 * A database whose worker has left idle gets one again after this time (ms), even
 * if nothing is due and nothing has woken it.  Whatever is enqueued, armed,
 * altered or committed wakes a worker, so what remains is to delete requests that
 * were finished long ago, and to notice a clock that was set forward.  An hour is
 * also the longest pause between two attempts.
 */
#define REST_MS (60 * 60 * 1000)

int			clerk_max_attempts = 20;
int			clerk_retention = 7 * 24 * 60 * 60;
int			clerk_naptime = 10000;

PGDLLEXPORT void clerk_worker_main(Datum arg);

/* Why the worker ends; an ERROR or SIGTERM, unless it is set. */
static enum
{
	FAILED, LEFT, NOT_INSTALLED, REPLACED
}			parting = FAILED;

static bool is_idle = false;

/* When something is due, if nothing happens before; CLERK_NEVER: nothing is. */
static int64 next_due = 0;

/*
 * The extension that this worker serves, and whether it is known to be there
 * still.  Any change of a relation makes that unknown.
 */
static Oid	served_extension = InvalidOid;
static bool extension_known = false;

static void
forget_extension(Datum arg, Oid relation)
{
	extension_known = false;
}

/*
 * The extension that is there now.  As long as no relation changes, this looks
 * nothing up: beginning a transaction receives the invalidations of others.
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
 * Is the extension gone?  If so, there is nothing to do here until a session
 * wakes a worker of this database again.  If it was dropped and created again in
 * one transaction, the worker must be replaced: all that it has cached or locked
 * belongs to the old tables.
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
	/* This transaction may not see what is committed from now on. */
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
		wanted = Min(Min(next_due, clerk_mirror_due()), now + REST_MS);
	clerk_wake_part(wanted, parting == FAILED ? now + RESTART_MS : 0, parting == FAILED && code != 0);
	if (parting == NOT_INSTALLED || !clerk_worker_enabled)
		clerk_wake_cancel_mirror(MyDatabaseId);
}

/*
 * Settings of the database or the server are meant for sessions; the worker needs
 * its own.
 */
void
clerk_worker_set_settings(void)
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
 * Deliver until it is time to leave.  An error ends the process, unless the
 * reason is that the extension has just been dropped.
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
		.tend = clerk_mirror_tend,
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
 * SIGINT ends a wait for a lock if lock_timeout has sent it.  Any other SIGINT
 * (pg_cancel_backend) is ignored: there is no statement to cancel, and claims
 * must not be lost.
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
clerk_worker_set_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* Up to 18, what is set for SIGTERM ends the process in the handler. */
	pqsignal(SIGTERM, die);
}

void
clerk_worker_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);

	clerk_worker_set_signals();

	pqsignal(SIGINT, end_lock_wait);
	if (!clerk_wake_enter(database))
		return;
	before_shmem_exit(worker_is_gone, (Datum) 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	clerk_worker_set_settings();
	CacheRegisterRelcacheCallback(forget_extension, (Datum) 0);
	pgstat_report_activity(STATE_RUNNING, NULL);
	if (!worker_leave())
		deliver();
	if (parting == FAILED)
		parting = LEFT;
}
