/*-------------------------------------------------------------------------
 *
 * pg_clerk.c
 *		Loading of the library: settings and transaction callbacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/wake.h"
#include "calls/rollback.h"
#include "clerk/default_server.h"
#include "clerk/log.h"
#include "clerk/statistics.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/deliver.h"
#include "utils/guc.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

static const struct config_enum_entry on_rollback_options[] = {
	{"warn", CLERK_ROLLBACK_WARN, false},
	{"delete", CLERK_ROLLBACK_DELETE, false},
	{"ignore", CLERK_ROLLBACK_IGNORE, false},
	{NULL, 0, false}
};

void		_PG_init(void);

/*
 * Settings of the workers.  They are the server's: what one session sets, no
 * worker would see.
 */
static void
define_worker_settings(void)
{
	/*
	 * pg_clerk.worker - are there workers?  Off ends them, and starts none
	 * until it is on: for maintenance, and for a clone of a server that must
	 * not speak to Clerk.
	 */
	DefineCustomBoolVariable("pg_clerk.worker",
							 "Delivers in background workers what was enqueued.",
							 "Takes effect if pg_clerk is in shared_preload_libraries.",
							 &clerk_worker_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	/*
	 * pg_clerk.max_workers - one for each database, out of
	 * max_worker_processes.  If there are more databases, they take turns.
	 */
	DefineCustomIntVariable("pg_clerk.max_workers",
							"Maximum number of background workers, each of which serves a database.",
							NULL,
							&clerk_max_workers,
							4, 1, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	/* pg_clerk.max_attempts - after so many, a request has failed. */
	DefineCustomIntVariable("pg_clerk.max_attempts",
							"Number of attempts after which a request has failed.",
							NULL,
							&clerk_max_attempts,
							20, 1, 1000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	/*
	 * pg_clerk.retention - how long finished requests are kept, and the
	 * secrets of failed ones.
	 */
	DefineCustomIntVariable("pg_clerk.retention",
							"How long delivered and cancelled requests are kept.",
							"Failed ones are kept until they are cancelled, without their secrets.",
							&clerk_retention,
							7 * 24 * 60 * 60, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	/*
	 * pg_clerk.naptime - a worker is woken when something is to be done; it
	 * looks all the same when so much time has passed, as the end of a
	 * process that delivers, for one, wakes nobody.
	 */
	DefineCustomIntVariable("pg_clerk.naptime",
							"Time after which a worker looks for requests, although nothing has woken it.",
							NULL,
							&clerk_naptime,
							10000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

/*
 * Settings of the log.  A session must not hide from its operator what it
 * does.
 */
static void
define_log_settings(void)
{
	/*
	 * pg_clerk.log_failures - one line for each request that fails, each
	 * server that is paused or held back, and goes on, each look-up that
	 * fails, and each mirror that changed something.
	 */
	DefineCustomBoolVariable("pg_clerk.log_failures",
							 "Logs requests and look-ups that fail, servers that are paused or held back, and mirrors that changed something.",
							 NULL,
							 &clerk_log_failures,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	/*
	 * pg_clerk.log_min_duration - as log_min_duration_statement, for calls of
	 * Clerk.
	 */
	DefineCustomIntVariable("pg_clerk.log_min_duration",
							"Sets the minimum execution time above which requests to Clerk are logged.",
							"-1 logs none, 0 all.",
							&clerk_log_min_duration,
							-1, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

void
_PG_init(void)
{
	clerk_default_server_init();

	/*
	 * pg_clerk.on_rollback - what becomes of a connection that was created by
	 * a transaction that is rolled back: Clerk keeps it.  "warn" tells its
	 * id, "delete" deletes it there (within two seconds), "ignore" leaves it.
	 */
	DefineCustomEnumVariable("pg_clerk.on_rollback",
							 "What to do with enterprise connections whose transaction is rolled back.",
							 NULL,
							 &clerk_on_rollback,
							 CLERK_ROLLBACK_WARN,
							 on_rollback_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	define_worker_settings();
	define_log_settings();
	clerk_reserve_guc_prefix("pg_clerk");
	clerk_rollback_init();
	clerk_wake_register();
	if (process_shared_preload_libraries_in_progress)
	{
		clerk_statistics_init();
		clerk_worker_init();
	}
}
