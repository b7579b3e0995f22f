/*-------------------------------------------------------------------------
 *
 * pg_clerk.c
 *		Loading of the library: settings and transaction callbacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "rollback.h"
#include "settings.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

static const struct config_enum_entry on_rollback_options[] = {
	{"warn", CLERK_ROLLBACK_WARN, false},
	{"delete", CLERK_ROLLBACK_DELETE, false},
	{"ignore", CLERK_ROLLBACK_IGNORE, false},
	{NULL, 0, false}
};

void		_PG_init(void);

void
_PG_init(void)
{
	/*
	 * pg_clerk.server - the foreign server that is meant where a call names
	 * none, so that an application with one Clerk instance never has to.
	 */
	DefineCustomStringVariable("pg_clerk.server",
							   "Foreign server that is meant where a call names none.",
							   NULL,
							   &clerk_default_server,
							   "clerk",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);

	/*
	 * pg_clerk.on_rollback - what becomes of a connection that was created by
	 * a transaction that is rolled back: Clerk keeps it.  "warn" tells its id,
	 * "delete" deletes it there (within two seconds), "ignore" leaves it.
	 */
	DefineCustomEnumVariable("pg_clerk.on_rollback",
							 "What to do with enterprise connections whose transaction is rolled back.",
							 NULL,
							 &clerk_on_rollback,
							 CLERK_ROLLBACK_WARN,
							 on_rollback_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	clerk_reserve_guc_prefix("pg_clerk");
	clerk_rollback_init();
}
