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

int			clerk_max_attempts = 20;
int			clerk_retention = 7 * 24 * 60 * 60;
int			clerk_naptime = 10000;

PGDLLEXPORT void clerk_worker_main(Datum arg);

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
	clerk_wake_part(wanted, parting == FAILED ? now + RESTART_MS : 0, parting == FAILED && code != 0);
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
	adjust_settings();
	CacheRegisterRelcacheCallback(forget_extension, (Datum) 0);
	pgstat_report_activity(STATE_RUNNING, NULL);
	if (!worker_leave())
		deliver();
	if (parting == FAILED)
		parting = LEFT;
}
