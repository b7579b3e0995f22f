/*-------------------------------------------------------------------------
 *
 * prepare.c
 *		From a claimed row to the request that is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "calls/connection.h"
#include "calls/upsert.h"
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "tables/activity.h"
#include "tables/tracking.h"

/*
 * Settings for who enqueued the request: key and USAGE as they are now.
 */
static ClerkSettings *
settings_of(const Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;
	Oid			user;
	int			sec_context;
	ClerkSettings *settings;

	if (!OidIsValid(row->role_oid) || GetUserNameFromId(row->role_oid, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which enqueued the request, does not exist any more", row->role),
				 errhint("Enqueue it again as another role, and cancel this request.")));
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(row->role_oid, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	settings = clerk_settings(delivery->server->name, CLERK_USE_WRITE);
	SetUserIdAndSecContext(user, sec_context);
	return settings;
}

const ClerkBody clerk_body_inactive = {.text = "{\"active\":false}",.len = 16};
static const ClerkBody body_active = {.text = "{\"active\":true}",.len = 15};

/*
 * What an upsert's null takes away is not there yet.
 */
static ClerkParams *
params_for_create(const ClerkSettings *settings, const ClerkRequestRow *row)
{
	Jsonb	   *params = row->operation == CLERK_REQUEST_UPSERT ? clerk_params_without_nulls(row->params) : row->params;

	return clerk_read_params(settings, params, NULL, CLERK_OPERATION_CREATE);
}

static void
need_connection(const ClerkRequestRow *row)
{
	if (row->connection_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 row->key ?
				 errmsg("no enterprise connection has the key \"%s\"", row->key) :
				 errmsg("the request names no enterprise connection"),
				 errhint("Enqueue an upsert, which creates it.")));
}

static void
prepare_create(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;

	if (row->connection_id != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 row->key ?
				 errmsg("key \"%s\" belongs to enterprise connection \"%s\" already", row->key, row->connection_id) :
				 errmsg("the request has made enterprise connection \"%s\" already", row->connection_id),
				 row->key ?
				 errhint("Enqueue an upsert, which changes it.") :
				 errhint("If it is not tracked, run mirror_enterprise_connections(). Then cancel this request.")));
	delivery->params = params_for_create(delivery->settings, row);
	delivery->call.endpoint = CLERK_CREATE;
	delivery->call.body = delivery->params->body;
}

static void
prepare_update(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;

	need_connection(row);
	delivery->params = clerk_read_upsert_params(delivery->settings, row->params,
												clerk_tracked_provider(delivery->server->name, row->connection_id));

	/*
	 * If only the provider was named, there is nothing to change: just read
	 * it.
	 */
	delivery->call.endpoint = delivery->params->body ? CLERK_UPDATE : CLERK_GET;
	delivery->call.body = delivery->params->body;
}

/*
 * A connection is set inactive only if it is active, which is asked first, and
 * active only if it was set inactive so.
 */
static void
prepare_activity(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;

	if (row->connection_id == NULL)
		clerk_outbox_nothing_to_do(delivery);
	else if (row->operation == CLERK_REQUEST_REACTIVATE && !clerk_tracked_reactivate(delivery->server->name, row->connection_id))
		clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
	else if (row->operation == CLERK_REQUEST_DEACTIVATE && row->step == CLERK_STEP_UPDATE)
		delivery->call.endpoint = CLERK_GET;
	else
	{
		delivery->call.endpoint = CLERK_UPDATE;
		delivery->call.body = row->operation == CLERK_REQUEST_REACTIVATE ? &body_active : &clerk_body_inactive;
	}
}

static void
prepare_complete(Delivery *delivery)
{
	need_connection(&delivery->row);
	delivery->params = params_for_create(delivery->settings, &delivery->row);
	if (delivery->params->patch == NULL)
	{
		/* A retry has brought other parameters. */
		prepare_update(delivery);
		return;
	}
	delivery->call.endpoint = CLERK_UPDATE;
	delivery->call.body = delivery->params->patch;
}

static void
build(Delivery *delivery, ClerkCall *call)
{
	call->settings = delivery->settings;
	call->secrets = delivery->params ? delivery->params->secrets : NIL;
	call->caller = delivery;
	call->retry = delivery->row.attempts > 1 && call == &delivery->call;
	clerk_call_build(call);
}

void
clerk_outbox_prepare(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;
	const ClerkRequestRow *row = &delivery->row;

	if (clerk_operations[row->operation].takes_params && (row->params == NULL || !JB_ROOT_IS_OBJECT(row->params)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the request has no parameters")));
	delivery->settings = settings_of(delivery);
	delivery->call.id = row->step == CLERK_STEP_CREATE ? NULL : row->connection_id;
	switch (row->step)
	{
		case CLERK_STEP_CREATE:
			prepare_create(delivery);
			break;
		case CLERK_STEP_UPDATE:
		case CLERK_STEP_COMPLETE:
			if (clerk_operations[row->operation].of_trigger)
				prepare_activity(delivery);
			else if (row->step == CLERK_STEP_UPDATE)
				prepare_update(delivery);
			else
				prepare_complete(delivery);
			break;
		case CLERK_STEP_DELETE:
			delivery->call.endpoint = CLERK_DELETE;
			if (row->connection_id == NULL)
				clerk_outbox_nothing_to_do(delivery);
			break;
		case CLERK_STEP_NONE:
			elog(ERROR, "request " INT64_FORMAT " has no step", row->id);
	}
	if (delivery->state == DELIVERY_READY)
		build(delivery, &delivery->call);
	delivery->has_secrets = delivery->params == NULL || delivery->params->secrets != NIL;
}

/*
 * When it is sent, there is no transaction.
 */
void
clerk_outbox_prepare_next(Delivery *delivery)
{
	delivery->next_call = (ClerkCall)
	{
		.endpoint = CLERK_UPDATE,
			.id = delivery->outcome.connection_id ? delivery->outcome.connection_id : delivery->row.connection_id,
			.body = delivery->next,
	};
	build(delivery, &delivery->next_call);
}
