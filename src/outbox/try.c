/*-------------------------------------------------------------------------
 *
 * try.c
 *		Transactions of a delivery, and what becomes of errors in them.
 *
 * An error concerns what has raised it alone: a row, a server, or one step of
 * the upkeep.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/locks.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "outbox/claims.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/*
 * The longest time (ms) for which no transaction is begun after one that came to
 * nothing.
 */
#define TRANSACTION_PAUSE_LAST (10 * 1000)

/* Those of the requests that somebody has locked. */
static ClerkStatement locked_statement = {
	.text = "SELECT o.id FROM <rows> WHERE NOT EXISTS (SELECT FROM (SELECT q.id FROM " REQUESTS " q"
	" WHERE q.id = o.id FOR UPDATE SKIP LOCKED) q) AND EXISTS (SELECT FROM " REQUESTS " q WHERE q.id = o.id)",
};

int64
clerk_outbox_pause(int tries)
{
	return Min((int64) CLERK_ASIDE_FIRST << Min(tries, 12), CLERK_ASIDE_LAST);
}

bool
clerk_outbox_is_transient(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return true;
	}
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/*
 * May the error end this process or call?  What asks a session to stop does.
 */
static bool
ends_all(const Loop *loop, const ErrorData *error)
{
	return !loop->deliverer->forever &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		 error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN);
}

typedef struct Trial
{
	Loop	   *loop;
	ClerkWork	work;
	void	   *arg;
} Trial;

static void
run_trial(void *arg)
{
	const Trial *trial = arg;

	trial->work(trial->loop, trial->arg);
}

ErrorData *
clerk_outbox_try(Loop *loop, ClerkWork work, void *arg)
{
	Trial		trial = {.loop = loop,.work = work,.arg = arg};
	ErrorData  *error = clerk_try(run_trial, &trial);

	if (error != NULL && ends_all(loop, error))
		clerk_rethrow(error);
	return error;
}

void
clerk_outbox_log(const char *what, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("pg_clerk could not %s: %s", what, error->message)));
}

/*-------------------------------------------------------------------------
 * Several items
 *-------------------------------------------------------------------------
 */

/*
 * Leave out what somebody has locked.
 */
static void
leave_out_locked(Loop *loop, void *arg)
{
	ClerkItems *items = arg;
	List	   *free = NIL;
	MemoryContext caller = CurrentMemoryContext;
	ListCell   *lc;

	/* The plan is the same, whatever has the ids. */
	locked_statement.given = items->id;
	SPI_connect();
	clerk_run_rows(&locked_statement, NULL, items->items);
	MemoryContextSwitchTo(caller);
	foreach(lc, items->items)
	{
		int64		id = *(int64 *) ((char *) lfirst(lc) + items->id->offset);
		bool		locked = false;
		bool		isnull;

		for (uint64 i = 0; i < SPI_processed; i++)
			locked |= DatumGetInt64(clerk_row_datum(i, 1, &isnull)) == id;
		if (locked)
			items->failed(loop, items->arg, lfirst(lc), NULL);
		else
			free = lappend(free, lfirst(lc));
	}
	SPI_finish();
	items->items = free;
}

void
clerk_outbox_try_all(Loop *loop, ClerkItems *items)
{
	ErrorData  *error = items->items == NIL ? NULL : clerk_outbox_try(loop, items->work, items);
	int			count = list_length(items->items);
	ListCell   *lc;

	if (error != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && items->id != NULL &&
		clerk_outbox_try(loop, leave_out_locked, items) == NULL && list_length(items->items) < count)
		error = items->items == NIL ? NULL : clerk_outbox_try(loop, items->work, items);
	if (error == NULL)
		return;
	foreach(lc, items->items)
	{
		ClerkItems	alone = *items;

		alone.items = list_make1(lfirst(lc));
		error = clerk_outbox_try(loop, items->work, &alone);
		if (error != NULL)
			items->failed(loop, items->arg, lfirst(lc), error);
	}
}

/*-------------------------------------------------------------------------
 * Transactions
 *-------------------------------------------------------------------------
 */

/*
 * Settings of a delivery's transactions, the one place that changes settings of the
 * planner.
 *
 * Each statement goes by an index, and its plan is made once.  A plan that was
 * made while the outbox was short would read all of it when it is long, until
 * it is analyzed; and a join by a hash table, or a sort, reads all of an index,
 * which is cheap as long as there is nothing in it.
 *
 * Rows are never waited for.  Where PostgreSQL waits by itself (for a row that
 * is updated, for one of a foreign key, or for a unique key that is being
 * inserted), it is not for long: all others wait meanwhile, and a lock that is
 * held while waiting can deadlock.
 */
static const char *const settings[][2] = {
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"enable_seqscan", "off"},
	{"enable_sort", "off"},
	{"jit", "off"},
	{"lock_timeout", "10ms"},
	{"plan_cache_mode", "force_generic_plan"},
	{"search_path", "pg_catalog, pg_temp"},
};

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * What is committed here must be known after a crash, whatever the database's
 * default: a claim that is forgotten would be sent twice.
 *
 * A deferred constraint or trigger of somebody's is checked with the row that
 * it concerns, so that an error concerns that row alone.
 *
 * A foreign key that references our tables is checked as the owner of its own
 * table, and may run code of that role's: a cast, or the expression of an
 * index.  It must not leave anything behind that would run later, with the
 * rights of this process: a deferred trigger, a cursor WITH HOLD.  So the
 * transaction is a security-restricted operation, as for ANALYZE or CREATE
 * INDEX, and what is SET in it is undone.
 */
void
clerk_outbox_begin(Loop *loop)
{
	loop->deliverer->begin();
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		set_local("synchronous_commit", "local");
	for (size_t i = 0; i < lengthof(settings); i++)
		set_local(settings[i][0], settings[i][1]);
	AfterTriggerSetState(&(ConstraintsSetStmt) {.type = T_ConstraintsSetStmt, .deferred = false});
	loop->guc_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&loop->user.id, &loop->user.sec_context);
	SetUserIdAndSecContext(loop->user.id, loop->user.sec_context | SECURITY_RESTRICTED_OPERATION);
}

void
clerk_outbox_end(Loop *loop)
{
	clerk_restore_user(&loop->user);
	AtEOXact_GUC(false, loop->guc_level);
	loop->deliverer->commit();
}

bool
clerk_outbox_transaction(Loop *loop, const char *what, ClerkWork work)
{
	MemoryContext scratch;
	ErrorData  *volatile error = NULL;
	volatile bool done = false;

	if (clerk_now_ms() < loop->pause_until)
		return false;
	scratch = AllocSetContextCreate(loop->context, "pg_clerk transaction", ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		clerk_outbox_begin(loop);
		MemoryContextSwitchTo(scratch);
		if (clerk_try_lock_tables())
		{
			error = clerk_outbox_try(loop, work, NULL);
			done = error == NULL;
		}
		if (error != NULL && !loop->deliverer->forever)
			clerk_rethrow(error);
		clerk_outbox_end(loop);
	}
	PG_CATCH();
	{
		if (!loop->deliverer->forever)
			PG_RE_THROW();
		MemoryContextSwitchTo(scratch);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(loop->context);

	/* An error that is owed to the extension being dropped just now is none. */
	if (error != NULL && !loop->deliverer->leave())
		clerk_outbox_log(what, error);
	MemoryContextDelete(scratch);
	loop->pause_until = done ? 0 : clerk_now_ms() + Min(clerk_outbox_pause(loop->failures), TRANSACTION_PAUSE_LAST);
	loop->failures = done ? 0 : loop->failures + 1;
	return done;
}
