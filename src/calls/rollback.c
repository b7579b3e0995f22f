/*-------------------------------------------------------------------------
 *
 * rollback.c
 *		What becomes of a connection whose transaction is rolled back.
 *
 * Clerk knows no transactions: a connection that a direct call has created
 * stays when the transaction goes.  Each creation is noted with the nesting
 * level of its subtransaction; a subtransaction that commits hands its notes
 * to its parent, one that aborts has them acted upon.
 *
 * An abort callback must not throw, runs with interrupts held, and keeps the
 * transaction's locks waiting: so everything that can fail is prepared when
 * the note is made, and deleting has a short time for all ids together.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/json.h"
#include "calls/rollback.h"
#include "clerk/dispatch.h"
#include "utils/memutils.h"

/* For all deletions of one rollback together, in ms. */
#define DELETE_TIME 2000

/* So many at a time, whatever the server's max_concurrency. */
#define DELETE_CONCURRENCY 16

typedef struct Note
{
	int			nest_level;
	ClerkOnRollback action;
	char	   *id;
	const char *shown;			/* the id as a message shows it */
	char	   *server_name;
	ClerkCall	call;			/* the DELETE, if that is the action */
	bool		gone;			/* deleted at Clerk */
} Note;

int			clerk_on_rollback = CLERK_ROLLBACK_WARN;

/* In TopTransactionContext, the newest note last. */
static List *notes = NIL;

void
clerk_rollback_note(const ClerkSettings *settings, const char *id)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Note	   *note = palloc0(sizeof(*note));

	note->nest_level = GetCurrentTransactionNestLevel();
	note->action = clerk_on_rollback;
	note->id = pstrdup(id);
	note->shown = clerk_report_id(note->id);
	note->server_name = pstrdup(settings->server_name);
	if (note->action == CLERK_ROLLBACK_DELETE)
	{
		note->call = (ClerkCall)
		{
			.settings = clerk_settings_copy(settings),
				.endpoint = CLERK_DELETE,
				.id = note->id,
				.caller = note,
		};
		clerk_call_build(&note->call);
	}
	notes = lappend(notes, note);
	MemoryContextSwitchTo(old);
}

void
clerk_rollback_note_failed(const ClerkSettings *settings, const char *id)
{
	if (clerk_on_rollback == CLERK_ROLLBACK_DELETE)
		clerk_rollback_note(settings, id);
}

void
clerk_rollback_forget(const char *server_name, const char *id)
{
	ListCell   *lc;

	foreach(lc, notes)
	{
		Note	   *note = lfirst(lc);

		if (strcmp(note->id, id) == 0 && strcmp(note->server_name, server_name) == 0)
			note->gone = true;
	}
}

/*-------------------------------------------------------------------------
 * Deleting
 *-------------------------------------------------------------------------
 */

/*
 * Did Clerk say that it has deleted the connection, or that it knows none?
 * What somebody in between answers says nothing.  To read it as a call's outcome
 * may need a conversion of its encoding, which is not possible in an abort.
 */
static bool
says_gone(const ClerkHttpRequest *request)
{
	const char *fault;
	ClerkJson  *json;
	ClerkJson  *member;

	if (request->outcome != CLERK_HTTP_ANSWERED || request->answer_len == 0)
		return false;
	json = clerk_json_parse(request->answer, request->answer_len, &fault);
	if (request->status == 404)
		return clerk_json_get(json, "errors", &member);
	return request->status / 100 == 2 && clerk_json_get(json, "deleted", &member) &&
		clerk_json_type(member) == CLERK_JSON_BOOLEAN && clerk_json_boolean(member);
}

/*
 * Send the deletions and wait for the answers, as long as there is time.
 */
static void
send_deletions(List *rolled_back)
{
	int64		until = clerk_now_ms() + DELETE_TIME;
	ClerkHttpSet *set = clerk_http_begin(DELETE_CONCURRENCY);
	ListCell   *lc = list_head(rolled_back);
	ClerkCall  *call;

	do
	{
		for (; lc != NULL && clerk_http_pending(set) < DELETE_CONCURRENCY;
			 lc = lnext(rolled_back, lc))
		{
			Note	   *note = lfirst(lc);
			int64		left = until - clerk_now_ms();

			if (note->action != CLERK_ROLLBACK_DELETE || note->gone || left <= 0)
				continue;
			note->call.request->timeout = (int) left;
			clerk_call_send(set, &note->call);
		}
		if (clerk_http_pending(set) == 0)
			break;
		call = clerk_call_next(set, until, NULL);
		if (call != NULL)
			((Note *) call->caller)->gone = says_gone(call->request);
	} while (call != NULL);
	clerk_http_end(set);
}

/*
 * The same without raising an error, which would be fatal during an abort.
 * Nothing is held that only an abort would release.
 */
static void
delete_quietly(List *rolled_back)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext volatile context = NULL;

	PG_TRY();
	{
		context = AllocSetContextCreate(TopTransactionContext, "pg_clerk rollback",
										ALLOCSET_SMALL_SIZES);
		MemoryContextSwitchTo(context);
		send_deletions(rolled_back);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (context != NULL)
		MemoryContextDelete(context);
}

/*-------------------------------------------------------------------------
 * Callbacks
 *-------------------------------------------------------------------------
 */

static void
act_on(List *rolled_back, int nest_level)
{
	bool		deletes = false;
	ListCell   *lc;

	foreach(lc, rolled_back)
	{
		Note	   *note = lfirst(lc);

		deletes |= note->action == CLERK_ROLLBACK_DELETE && !note->gone;
	}
	if (deletes)
	{
		clerk_http_abandon(nest_level);
		delete_quietly(rolled_back);
	}

	foreach(lc, rolled_back)
	{
		Note	   *note = lfirst(lc);

		if (note->gone || note->action == CLERK_ROLLBACK_IGNORE)
			continue;
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("enterprise connection \"%s\" of server \"%s\" exists at Clerk, although the transaction that created it was rolled back",
						note->shown, note->server_name),
				 note->action == CLERK_ROLLBACK_DELETE ?
				 errdetail("One attempt to delete it, of at most %d ms, did not succeed.", DELETE_TIME) : 0,
				 errhint("Delete it with delete_enterprise_connection(), or keep it with adopt_enterprise_connection() or mirror_enterprise_connections().")));
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	int			kept = 0;
	List	   *rolled_back = NIL;
	MemoryContext old;
	ListCell   *lc;

	if (notes == NIL || (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		foreach(lc, notes)
		{
			Note	   *note = lfirst(lc);

			note->nest_level = Min(note->nest_level, level - 1);
		}
		return;
	}

	/* Levels never fall towards the end of the list. */
	foreach(lc, notes)
	{
		if (((Note *) lfirst(lc))->nest_level >= level)
			break;
		kept++;
	}
	if (kept == list_length(notes))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	rolled_back = list_copy_tail(notes, kept);
	notes = list_truncate(notes, kept);
	MemoryContextSwitchTo(old);
	act_on(rolled_back, level);
}

static void
xact_callback(XactEvent event, void *arg)
{
	List	   *mine = notes;
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			foreach(lc, notes)
			{
				Note	   *note = lfirst(lc);

				if (note->action != CLERK_ROLLBACK_IGNORE && !note->gone)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot PREPARE a transaction that has created enterprise connections"),
							 errdetail("If it were rolled back later, nobody would know of connection \"%s\".", note->id),
							 errhint("Set pg_clerk.on_rollback to \"ignore\" before the call, if that is acceptable.")));
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			notes = NIL;
			break;
		case XACT_EVENT_ABORT:
			notes = NIL;
			act_on(mine, 0);
			break;
		default:
			break;
	}
}

void
clerk_rollback_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
