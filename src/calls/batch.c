/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Many connections created by one call, concurrently.
 *
 * One failure does not affect the others: what is wrong with one, here or at
 * Clerk, is in its own row of the result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/progress.h"
#include "calls/connection.h"
#include "calls/rollback.h"
#include "catalog/pg_type.h"
#include "clerk/dispatch.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "tables/tracking.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(create_enterprise_connections);

typedef struct BatchItem
{
	ClerkCall	call;
	ClerkParams *params;
	Jsonb	   *connection;		/* once created */
	char	   *id;				/* of it */
	Jsonb	   *error;			/* why not, or why not completed */
} BatchItem;

typedef struct Batch
{
	ClerkSettings *settings;
	Datum	   *params;
	bool	   *nulls;
	BatchItem  *items;
	int			count;
	int			next;			/* the first that was not yet looked at */
	List	   *uncompleted;	/* items whose PATCH is yet to be sent */
	ClerkProgress progress;
} Batch;

static Jsonb *
faults_to_jsonb(const ClerkParams *params)
{
	ClerkReport report = {.sqlerrcode = ERRCODE_INVALID_PARAMETER_VALUE};

	clerk_params_describe(params, &report.message, &report.detail, &report.hint);
	return clerk_report_to_jsonb(&report);
}

/*-------------------------------------------------------------------------
 * Calls
 *-------------------------------------------------------------------------
 */

/*
 * The PATCH that completes a creation.
 */
static ClerkCall *
completing_call(Batch *batch, BatchItem *item)
{
	item->call = (ClerkCall)
	{
		.settings = batch->settings,
			.endpoint = CLERK_UPDATE,
			.id = item->id,
			.body = item->params->patch,
			.secrets = item->params->secrets,
			.caller = item,
	};
	return &item->call;
}

/*
 * The POST, or NULL if the parameters are wrong.
 */
static ClerkCall *
creating_call(Batch *batch, int n)
{
	BatchItem  *item = &batch->items[n];

	item->params = clerk_params_read(batch->nulls[n] ? NULL : DatumGetJsonbP(batch->params[n]),
									 NULL, CLERK_OPERATION_CREATE, batch->settings->extra_params);
	if (item->params->faults != NIL)
	{
		item->error = faults_to_jsonb(item->params);
		return NULL;
	}
	item->call = (ClerkCall)
	{
		.settings = batch->settings,
			.endpoint = CLERK_CREATE,
			.body = item->params->body,
			.secrets = item->params->secrets,
			.caller = item,
	};
	return &item->call;
}

static void
note_done(Batch *batch, bool failed)
{
	batch->progress.done++;
	batch->progress.failed += failed;
	clerk_progress_show(&batch->progress);
}

static ClerkCall *
batch_next(void *arg)
{
	Batch	   *batch = arg;

	if (batch->uncompleted != NIL)
	{
		BatchItem  *item = linitial(batch->uncompleted);

		batch->uncompleted = list_delete_first(batch->uncompleted);
		return completing_call(batch, item);
	}
	while (batch->next < batch->count)
	{
		ClerkCall  *call = creating_call(batch, batch->next++);

		if (call != NULL)
			return call;
		note_done(batch, true);
	}
	return NULL;
}

static void
batch_done(ClerkCall *call, void *arg)
{
	Batch	   *batch = arg;
	BatchItem  *item = call->caller;

	if (call->report != NULL)
	{
		if (call->endpoint == CLERK_UPDATE)
			call->report->message = psprintf("the enterprise connection \"%s\" was created, but not completed: %s",
											 clerk_report_id(item->id), call->report->message);
		item->error = clerk_report_to_jsonb(call->report);
		note_done(batch, true);
		if (call->report->connection_id != NULL)
			clerk_rollback_note_failed(batch->settings, call->report->connection_id);
		return;
	}
	item->connection = clerk_jsonb_copy(call->result);
	item->id = clerk_jsonb_string(item->connection, "id");
	if (call->endpoint == CLERK_UPDATE)
		clerk_track(item->connection, batch->settings->server_name, NULL);
	else
	{
		clerk_note_creation(batch->settings, item->connection, NULL);
		if (item->params->patch != NULL)
		{
			batch->uncompleted = lappend(batch->uncompleted, item);
			return;
		}
	}
	note_done(batch, false);
}

/*
 * Say of an ERROR, such as a cancel, which connections exist by now.
 */
static void
created_context(void *arg)
{
	Batch	   *batch = arg;
	StringInfoData ids;
	int			created = 0;

	initStringInfo(&ids);
	for (int i = 0; i < batch->count; i++)
		if (batch->items[i].id != NULL)
			appendStringInfo(&ids, "%s\"%s\" (%d)", created++ ? ", " : "",
							 clerk_report_id(batch->items[i].id), i + 1);
	if (created > 0)
		errcontext("creation of enterprise connections; these (by ordinal) exist at Clerk: %s", ids.data);
}

static void
run_batch(Batch *batch)
{
	ClerkDispatch dispatch = {
		.next = batch_next,
		.done = batch_done,
		.arg = batch,
		.concurrency = Max(Min(batch->count, batch->settings->max_concurrency), 1),
	};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = created_context,
		.arg = batch,
	};

	batch->progress.command = "create_enterprise_connections";
	batch->progress.server = batch->settings->server_name;
	clerk_progress_begin(&batch->progress, "connections", 0, batch->count);
	error_context_stack = &callback;
	clerk_dispatch(&dispatch);
	error_context_stack = callback.previous;
	clerk_progress_end();
}

/*
 * create_enterprise_connections(params jsonb[], server name)
 */
Datum
create_enterprise_connections(PG_FUNCTION_ARGS)
{
	Batch		batch = {0};
	ReturnSetInfo *result;

	clerk_prevent_write("create_enterprise_connections()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" cannot be null", "params")));
	batch.settings = clerk_settings(clerk_server_argument(fcinfo, 1), CLERK_USE_WRITE);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), JSONBOID, -1, false, TYPALIGN_INT,
					  &batch.params, &batch.nulls, &batch.count);
	batch.items = palloc0(sizeof(BatchItem) * Max(batch.count, 1));
	run_batch(&batch);

	result = clerk_materialized_result(fcinfo);
	for (int i = 0; i < batch.count; i++)
	{
		BatchItem  *item = &batch.items[i];
		Datum		values[] = {Int32GetDatum(i + 1), JsonbPGetDatum(item->connection), JsonbPGetDatum(item->error)};
		bool		nulls[] = {false, item->connection == NULL, item->error == NULL};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
