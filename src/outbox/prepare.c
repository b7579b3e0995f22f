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
#include "miscadmin.h"
#include "outbox/outbox.h"
#include "tables/tracking.h"

/*
 * Settings for who enqueued the request: key and USAGE as they are now.
 */
static ClerkSettings *
settings_of(const Delivery *delivery)
{
	const ClerkRequestRow *row = delivery->row;
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

static bool
has_null(Jsonb *params)
{
	JsonbIterator *it = JsonbIteratorInit(&params->root);
	JsonbValue	value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
		if (token == WJB_VALUE && value.type == jbvNull)
			return true;
	return false;
}

/*
 * An object that has nothing but nulls goes with them.
 */
static JsonbValue
without_nulls(const JsonbValue *value)
{
	JsonbValue	rest = clerk_jsonb_new_object();
	int			count;
	const JsonbPair *pairs = clerk_jsonb_members(value, &count);

	if (clerk_jsonb_type(value) != CLERK_JSON_OBJECT)
		return *value;
	for (int i = 0; i < count; i++)
	{
		JsonbValue	member = without_nulls(&pairs[i].value);
		int			left;

		(void) clerk_jsonb_members(&pairs[i].value, &left);
		if (member.type == jbvNull || (left > 0 && member.val.object.nPairs == 0))
			continue;
		clerk_jsonb_add(&rest, pnstrdup(pairs[i].key.val.string.val, pairs[i].key.val.string.len), member);
	}
	return rest;
}

/*
 * The null of an upsert takes something away from a connection that exists;
 * for one that does not, there is nothing to take away.
 */
static ClerkParams *
params_for_create(const ClerkSettings *settings, const ClerkRequestRow *row)
{
	Jsonb	   *params = row->params;

	if (row->operation == CLERK_REQUEST_UPSERT && has_null(params))
	{
		JsonbValue	value = clerk_jsonb_value(params);

		value = without_nulls(&value);
		params = clerk_jsonb_pack(&value);
	}
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
	const ClerkRequestRow *row = delivery->row;

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
	const ClerkRequestRow *row = delivery->row;

	need_connection(row);
	delivery->params = clerk_read_upsert_params(delivery->settings, row->params,
												clerk_tracked_provider(delivery->server->name, row->connection_id));

	/* If only the provider was named, there is nothing to change: just read it. */
	delivery->call.endpoint = delivery->params->body ? CLERK_UPDATE : CLERK_GET;
	delivery->call.body = delivery->params->body;
}

static void
prepare_complete(Delivery *delivery)
{
	need_connection(delivery->row);
	delivery->params = params_for_create(delivery->settings, delivery->row);
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
	call->retry = delivery->row->attempts > 1 && call == &delivery->call;
	clerk_call_build(call);
}

void
clerk_outbox_prepare(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;
	const ClerkRequestRow *row = delivery->row;

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
			prepare_update(delivery);
			break;
		case CLERK_STEP_COMPLETE:
			prepare_complete(delivery);
			break;
		case CLERK_STEP_DELETE:
			if (row->connection_id == NULL)
			{
				/* There is nothing to delete. */
				clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
				return;
			}
			delivery->call.endpoint = CLERK_DELETE;
			break;
		case CLERK_STEP_NONE:
			elog(ERROR, "request " INT64_FORMAT " has no step", row->id);
	}
	build(delivery, &delivery->call);
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
			.id = delivery->outcome.connection_id ? delivery->outcome.connection_id : delivery->row->connection_id,
			.body = delivery->next,
	};
	build(delivery, &delivery->next_call);
}
