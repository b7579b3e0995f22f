/*-------------------------------------------------------------------------
 *
 * sync.c
 *		sync_enterprise_connection(), the trigger function that makes a row's
 *		connection follow the row: from a change to requests in the outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/guard.h"
#include "base/statements.h"
#include "calls/connection.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "outbox/requests.h"
#include "trigger/mapping.h"
#include "utils/builtins.h"
#include "utils/rel.h"

/* A change of a row, on its way into the outbox. */
typedef struct Change
{
	const Mapping *mapping;
	const ClerkSettings *settings;
	TupleTableSlot *old;		/* NULL: there is none */
	TupleTableSlot *new;		/* likewise */
	bool		old_is_ours;	/* the old version was written by this
								 * transaction */
	char	   *key;
} Change;

PG_FUNCTION_INFO_V1(sync_enterprise_connection);

/*
 * The last transaction in which a trigger enqueued a delete: only there, an
 * insert has to look for one.
 */
static TransactionId deleting_xact = InvalidTransactionId;

#define EQUALS " OPERATOR(pg_catalog.=) "

/* The outbox's lane of a key. */
#define LANE_OF_KEY " q.lane" EQUALS "pg_catalog.concat('key ', $2) AND q.server" EQUALS "$1"

/* What has failed counts, too: what comes later overtakes it. */
static ClerkStatement known_statement = {
	.text = "SELECT EXISTS (SELECT FROM %1$s.enterprise_connections c WHERE c.server" EQUALS "$1 AND c.key" EQUALS "$2"
	" AND (c.reactivate OR NOT $4))"
	" OR NOT $3 AND EXISTS (SELECT FROM %1$s.enterprise_connection_requests q WHERE" LANE_OF_KEY
	" AND q.state OPERATOR(pg_catalog.<=) 'failed')",
	.nargs = 4,
	.args = {NAMEOID, TEXTOID, BOOLOID, BOOLOID},
};

static ClerkStatement take_back_statement = {
	.text = "DELETE FROM %1$s.enterprise_connection_requests q WHERE" LANE_OF_KEY
	" AND q.state" EQUALS "'queued' AND ($3 IS NULL OR q.operation::pg_catalog.text" EQUALS "$3)"
	" AND q.xact" EQUALS "pg_catalog.pg_current_xact_id()",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, TEXTOID},
};

/*
 * Is it certain that the key has an unfinished request (or that it has none)?
 * Only looked at where a statement that looks would leave a predicate lock, for
 * which serializable transactions that enqueue would fail each other.
 */
static bool
is_certain(const Change *change, bool unfinished)
{
	return IsolationIsSerializable() &&
		(clerk_lane(change->settings->server_name, psprintf("key %s", change->key), NULL) != CLERK_LANE_FREE) == unfinished;
}

/*
 * Is there a connection of this key, or a request that may make one?  Or,
 * inactive: one that is to be active again, or a request that may lead to that?
 */
static bool
is_known(const Change *change, bool inactive)
{
	NameData	server;
	Datum		values[] = {clerk_name_datum(&server, change->settings->server_name), CStringGetTextDatum(change->key), (Datum) 0,
	BoolGetDatum(inactive)};
	bool		isnull;
	bool		known;

	/*
	 * Nothing has been delivered from a copy of a database, so it can't be
	 * told.
	 */
	if (change->settings->origin == CLERK_ORIGIN_ELSEWHERE)
		return true;

	if (is_certain(change, true))
		return true;
	values[2] = BoolGetDatum(is_certain(change, false));
	SPI_connect();
	clerk_run(&known_statement, values, NULL, false);
	known = DatumGetBool(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return known;
}

/*
 * Take back what this transaction has enqueued for the key; or of that only one
 * operation.
 */
static bool
take_back(const Change *change, const char *operation)
{
	NameData	server;
	Datum		values[] = {clerk_name_datum(&server, change->settings->server_name), CStringGetTextDatum(change->key),
	operation ? CStringGetTextDatum(operation) : (Datum) 0};
	bool		taken;

	if (is_certain(change, false))
		return false;
	SPI_connect();
	clerk_run(&take_back_statement, values, operation ? NULL : "  n", false);
	taken = SPI_processed > 0;
	SPI_finish();
	return taken;
}

static void
enqueue(const Change *change, const char *operation, Jsonb *params)
{
	(void) clerk_enqueue_checked(change->settings, operation, params, change->key, NULL, 0);
}

static void
enqueue_delete(const Change *change)
{
	enqueue(change, "delete", NULL);
	deleting_xact = GetTopTransactionId();
}

/*
 * A row that was deleted before in this transaction is the same one: it has
 * moved to another partition, or was replaced.
 */
static bool
replaces_row(const Change *change)
{
	return change->old == NULL && TransactionIdIsValid(deleting_xact) &&
		deleting_xact == GetTopTransactionIdIfAny() && take_back(change, "delete");
}

/*
 * back: the row was not ready, and its connection may have been set inactive
 * meanwhile.  That it is active again is a request of its own, so that the rest
 * goes through if Clerk refuses it; it does nothing unless the connection was
 * active before.
 */
static void
enqueue_upsert(const Change *change, bool back)
{
	const Mapping *mapping = change->mapping;
	bool		reactivate;

	/* Off and on in one transaction: it never was off. */
	if (change->old_is_ours && back)
		(void) take_back(change, "deactivate");
	reactivate = back && mapping->removal == REMOVAL_DEACTIVATE && !mapping->maps_active && is_known(change, true);

	enqueue(change, "upsert", clerk_row_params(mapping, change->new, change->settings));
	if (reactivate)
		enqueue(change, "reactivate", NULL);
}

static void
enqueue_removal(const Change *change)
{
	if (change->mapping->removal == REMOVAL_DEACTIVATE)
		enqueue(change, "deactivate", NULL);
	else if (change->mapping->removal == REMOVAL_DELETE)
		enqueue_delete(change);
}

/*
 * What was inserted in this transaction never was; what was there before it is
 * deleted.
 */
static void
enqueue_deletion(const Change *change, bool was_ready)
{
	bool		taken = change->old_is_ours && take_back(change, NULL);

	if ((was_ready && !taken) || is_known(change, false))
		enqueue_delete(change);
}

static bool
is_worth_a_look(const Change *change)
{
	const Mapping *mapping = change->mapping;
	ListCell   *lc;

	if (change->new == NULL)
		return mapping->removal != REMOVAL_KEEP;
	if (change->old == NULL)
		return true;
	foreach(lc, mapping->columns)
		if (clerk_column_changed(lfirst(lc), change->old, change->new))
		return true;
	return false;
}

/*
 * A row's key is for ever; only one that had none can get one.
 */
static void
check_key(const Change *change)
{
	const Mapping *mapping = change->mapping;

	if (change->old != NULL && change->new != NULL &&
		!slot_attisnull(change->old, mapping->key->attnum) &&
		clerk_column_changed(mapping->key, change->old, change->new) &&
		(slot_attisnull(change->new, mapping->key->attnum) ||
		 strcmp(clerk_row_key(mapping, change->old), clerk_row_key(mapping, change->new)) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change column \"%s\", the key of trigger \"%s\"", mapping->key->name, mapping->trigger),
				 errdetail("It identifies the row's enterprise connection."),
				 errhint("Delete the row and insert it anew; it gets a new connection.")));
}

static void
add_context(void *arg)
{
	const Change *change = arg;

	errcontext("enterprise connection \"%s\" of trigger \"%s\"", change->key, change->mapping->trigger);
}

static void
enqueue_change(Change *change, bool was_ready, bool ready)
{
	if (ready)
		enqueue_upsert(change, replaces_row(change) || (change->old != NULL && !was_ready));
	else if (change->new == NULL)
		enqueue_deletion(change, was_ready);
	else if (was_ready || replaces_row(change))
		enqueue_removal(change);
}

/*
 * Enqueue what a change of a row means for its connection.
 */
static void
sync_row(Change *change)
{
	const Mapping *mapping = change->mapping;
	TupleTableSlot *row = change->new != NULL ? change->new : change->old;
	ErrorContextCallback callback = {
		.callback = add_context,
		.arg = change,
	};
	bool		was_ready;
	bool		ready;

	check_key(change);
	if (!is_worth_a_look(change))
		return;
	was_ready = change->old != NULL && clerk_row_is_ready(mapping, change->old);
	ready = change->new != NULL && clerk_row_is_ready(mapping, change->new);
	if (!ready && !was_ready &&
		(slot_attisnull(row, mapping->key->attnum) ||
		 (change->new != NULL && (change->old != NULL || !TransactionIdIsValid(deleting_xact) ||
								  deleting_xact != GetTopTransactionIdIfAny()))))
		return;

	change->key = clerk_row_key(mapping, row);
	if (strlen(change->key) > CLERK_MAX_NAME_LENGTH)
	{
		/* From before the trigger was made: there is nothing to take back. */
		if (!ready)
			return;
		clerk_api_check_length(psprintf("the key that trigger \"%s\" makes of column \"%s\"",
										mapping->trigger, mapping->key->name), change->key);
	}
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	change->settings = clerk_settings(mapping->server, CLERK_USE_ENQUEUE);
	enqueue_change(change, was_ready, ready);
	error_context_stack = callback.previous;
}

/*-------------------------------------------------------------------------
 * The trigger
 *-------------------------------------------------------------------------
 */

static void
check_firing(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("sync_enterprise_connection() can only be called as a trigger")));
	if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate table \"%s\", whose rows have enterprise connections",
						RelationGetRelationName(data->tg_relation)),
				 errhint("Use DELETE, or disable the trigger \"%s\".", data->tg_trigger->tgname)));
	if (!TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be an AFTER trigger, FOR EACH ROW",
						data->tg_trigger->tgname)));
}

Datum
sync_enterprise_connection(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Change		change = {0};
	Mapping    *mapping;
	ClerkUser	saved;

	check_firing(fcinfo);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		change.new = data->tg_trigslot;
	else
	{
		change.old = data->tg_trigslot;
		change.old_is_ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(data->tg_trigtuple->t_data));
	}
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		change.new = data->tg_newslot;

	mapping = clerk_pin_mapping(data);
	PG_TRY();
	{
		change.mapping = mapping;
		clerk_act_as(mapping->owner, &saved);
		sync_row(&change);
		clerk_restore_user(&saved);
	}
	PG_FINALLY();
	{
		clerk_unpin_mapping(mapping);
	}
	PG_END_TRY();
	return PointerGetDatum(NULL);
}
