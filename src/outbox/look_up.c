/*-------------------------------------------------------------------------
 *
 * look_up.c
 *		Looking up at Clerk what is in doubt: was it made?
 *
 * One listing, newest first, for all that is in doubt at a server.  What is
 * found is adopted; what is not there is sent again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/jsonb.h"
#include "calls/upsert.h"
#include "catalog/pg_type.h"
#include "outbox/outbox.h"
#include "tables/tracking.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A time of Clerk's that is further off, in ms since 1970, is none. */
#define MAX_CLERK_TIME 1e14

/*
 * Has another request made the connection?  It has been created since $4, so of
 * what is finished only that is looked at.  A bound for either: there can be
 * millions.
 */
static ClerkStatement made_by_other_statement = {
	.text = "SELECT EXISTS (SELECT FROM (SELECT * FROM %1$s.enterprise_connection_requests q WHERE q.finished_at >= $4"
	" AND NOT q.scrubbed ORDER BY q.finished_at DESC LIMIT 100000) q WHERE q.connection_id = $3 AND q.server = $1 AND q.id <> $2)"
	" OR EXISTS (SELECT FROM (SELECT * FROM %1$s.enterprise_connection_requests q WHERE q.server = $1"
	" AND q.finished_at IS NULL LIMIT 10000) q WHERE q.connection_id = $3 AND q.id <> $2)",
	.nargs = 4,
	.args = {NAMEOID, INT8OID, TEXTOID, TIMESTAMPTZOID},
};

/* A connection that a look-up has come across. */
typedef struct Candidate
{
	Jsonb	   *connection;
	char	   *id;
	TimestampTz created_at;
} Candidate;

/*
 * What was in doubt still is.  A look-up that failed counts as an attempt, but
 * not one that was refused for the key, or that had no socket.
 */
static void
still_in_doubt(Delivery *delivery, Jsonb *error, bool counted, int64 retry_after)
{
	const ClerkRequestRow *row = &delivery->row;
	int64		delay = counted ? clerk_outbox_backoff(row->attempts) : CLERK_BACKOFF_FIRST;

	delivery->outcome.error = error;
	delivery->outcome.doubt_since = row->doubt_since;
	delivery->outcome.uncounted = !counted;
	if (counted && row->attempts >= clerk_max_attempts)
		clerk_outbox_set(delivery, CLERK_STATE_FAILED, -1);
	else
		clerk_outbox_set(delivery, CLERK_STATE_IN_DOUBT, Max(delay, Min(retry_after, CLERK_BACKOFF_LAST)));
}

/*-------------------------------------------------------------------------
 * Beginning
 *-------------------------------------------------------------------------
 */

/*
 * Whatever is wrong here, what was in doubt still is: a retry looks it up, too.
 */
void
clerk_outbox_prepare_doubt(Loop *loop, Delivery *delivery)
{
	ErrorData  *error;

	delivery->row.connection_id = NULL;
	error = clerk_outbox_try(loop, clerk_outbox_prepare, delivery);
	clerk_call_release(&delivery->call);
	if (error == NULL)
		return;
	clerk_outbox_judge_error(delivery, error);
	delivery->outcome.doubt_since = delivery->row.doubt_since;
	delivery->outcome.uncounted = true;
	if (delivery->outcome.state == CLERK_STATE_QUEUED)
		still_in_doubt(delivery, delivery->outcome.error, false, -1);
}

/*
 * Look it up, with the others of its server that are claimed now.
 */
void
clerk_outbox_look_up(Loop *loop, Delivery *delivery)
{
	Server	   *server = delivery->server;

	if (server->look_up == NULL)
	{
		MemoryContext context = AllocSetContextCreate(loop->context, "pg_clerk look-up", ALLOCSET_SMALL_SIZES);

		server->look_up = MemoryContextAllocZero(context, sizeof(LookUp));
		server->look_up->context = context;
		server->look_up->server = server;
		server->look_up->settings = delivery->settings;
		server->look_up->oldest = PG_INT64_MAX;
	}
	server->look_up->oldest = Min(server->look_up->oldest, delivery->row.doubt_since - CLERK_CLOCK_SKEW);
	clerk_count(delivery->settings->statistics, CLERK_COUNT_LOOKED_UP, 1);
}

void
clerk_outbox_end_look_up(LookUp *look_up)
{
	look_up->server->look_up = NULL;
	MemoryContextDelete(look_up->context);
}

void
clerk_outbox_send_look_up(Loop *loop, LookUp *look_up)
{
	MemoryContextSwitchTo(look_up->context);
	look_up->call = (ClerkCall)
	{
		.settings = look_up->settings,
			.endpoint = CLERK_LIST,
			.query = clerk_page_query(NULL, look_up->offset, CLERK_PAGE_SIZE),
			.caller = look_up,
	};
	clerk_call_build(&look_up->call);
	look_up->sent_at = clerk_now_ms();
	look_up->sent = true;
	clerk_call_send(loop->set, &look_up->call);
	MemoryContextSwitchTo(loop->context);
}

/*-------------------------------------------------------------------------
 * Pages
 *-------------------------------------------------------------------------
 */

/*
 * When was it created?  Where that is not to be read, it may be the one.
 */
static TimestampTz
created_at(Jsonb *connection)
{
	JsonbValue	buf;
	JsonbValue *value = getKeyJsonValueFromContainer(&connection->root, "created_at", 10, &buf);
	double		ms;

	if (value == NULL || value->type != jbvNumeric)
		return PG_INT64_MAX;
	ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (ms < -MAX_CLERK_TIME || ms > MAX_CLERK_TIME)
		return PG_INT64_MAX;
	return time_t_to_timestamptz(0) + (TimestampTz) (ms * 1000);
}

static bool
made_by_other(const Delivery *delivery, const char *id)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, delivery->server->name), Int64GetDatum(delivery->row.id),
	CStringGetTextDatum(id), TimestampTzGetDatum(delivery->row.doubt_since - CLERK_CLOCK_SKEW)};

	return DatumGetBool(clerk_select_datum(&made_by_other_statement, values));
}

/*
 * Has another delivery made or adopted it, whose outcome may not be written yet?
 */
static bool
is_outcome(const Loop *loop, const Server *server, const char *id)
{
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &loop->deliveries)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);
		const char *other = delivery->outcome.connection_id;

		if (delivery->server == server && other != NULL && strcmp(other, id) == 0)
			return true;
	}
	return false;
}

/*
 * Is the connection what this request in doubt has made?
 */
static bool
made_by(const Loop *loop, const Delivery *delivery, const Candidate *candidate)
{
	const ClerkRequestRow *row = &delivery->row;
	char	   *key;

	if (candidate->created_at < row->doubt_since - CLERK_CLOCK_SKEW ||
		!clerk_same_connection(&delivery->params->body->document, candidate->connection) ||
		made_by_other(delivery, candidate->id) ||
		is_outcome(loop, delivery->server, candidate->id))
		return false;
	key = clerk_tracked_key(delivery->server->name, candidate->id);
	return key == NULL || (row->key != NULL && strcmp(key, row->key) == 0);
}

/* Does the delivery wait for this look-up? */
static bool
is_looked_up(const LookUp *look_up, const Delivery *delivery)
{
	return delivery->server == look_up->server && delivery->state == DELIVERY_LOOKED_UP;
}

/*
 * Found: it is adopted.  An upsert goes on with a PATCH of all parameters, as
 * the one that made it may have had others; a create with what is left.
 */
static void
adopt(Delivery *delivery, Jsonb *connection)
{
	MemoryContext old = MemoryContextSwitchTo(delivery->context);
	ClerkOutcome *outcome = &delivery->outcome;

	clerk_count(delivery->settings->statistics, CLERK_COUNT_ADOPTED, 1);
	outcome->track = clerk_jsonb_copy(connection);
	outcome->uncounted = true;
	outcome->connection_id = clerk_jsonb_string(outcome->track, "id");
	if (delivery->row.operation == CLERK_REQUEST_UPSERT)
		outcome->step = CLERK_STEP_UPDATE;
	else if (delivery->params->patch != NULL)
		outcome->step = CLERK_STEP_COMPLETE;
	if (outcome->step == CLERK_STEP_NONE)
		clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
	else
		clerk_outbox_set(delivery, CLERK_STATE_QUEUED, 0);
	MemoryContextSwitchTo(old);
}

/*
 * Look through a page.  Returns whether another is needed.  There can be many
 * on it, and many that are in doubt.
 */
static bool
search_page(Loop *loop, LookUp *look_up, const ClerkPage *page)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk candidate", ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(scratch);
	bool		old = false;

	for (int i = 0; i < page->count; i++)
	{
		Candidate	candidate = {.connection = page->elements[i]};
		dlist_iter	iter;

		MemoryContextReset(scratch);
		if (!JB_ROOT_IS_OBJECT(candidate.connection))
			continue;
		candidate.id = clerk_jsonb_string(candidate.connection, "id");
		candidate.created_at = created_at(candidate.connection);
		old = candidate.created_at < look_up->oldest;
		if (candidate.id == NULL)
			continue;
		dlist_foreach(iter, &loop->deliveries)
		{
			Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

			if (is_looked_up(look_up, delivery) && made_by(loop, delivery, &candidate))
				adopt(delivery, candidate.connection);
		}
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
	look_up->offset += page->received;

	/* A total that is too low must not have anything created twice. */
	return page->received > 0 && !old &&
		(page->received >= CLERK_PAGE_SIZE || look_up->offset < page->total);
}

/*
 * It does not exist: it is sent again, unless Clerk has refused it because
 * something else is in its way.
 */
static void
not_found(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;
	ClerkOutcome *outcome = &delivery->outcome;

	outcome->http_status = row->http_status;
	outcome->error = row->error;
	outcome->uncounted = true;
	if (row->http_status == 422 || row->attempts > clerk_max_attempts)
		clerk_outbox_set(delivery, CLERK_STATE_FAILED, -1);
	else
	{
		outcome->doubt_since = row->doubt_since;
		clerk_outbox_set(delivery, CLERK_STATE_QUEUED, row->attempts > 2 ? clerk_outbox_backoff(row->attempts - 1) : 0);
	}
}

/*
 * The look-up has failed, so nothing is known.
 */
static void
not_looked_up(LookUp *look_up, Delivery *delivery, const ClerkReport *report)
{
	bool		refused_key = report->status == 401 && report->of_clerk;

	if (refused_key)
		clerk_outbox_pause_server(delivery->server, report, look_up->settings);
	delivery->outcome.http_status = delivery->row.http_status;
	still_in_doubt(delivery, clerk_report_to_jsonb(report),
				   !refused_key && ERRCODE_TO_CATEGORY(report->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES,
				   report->retry_after);
}

/*
 * The search is over.  report: why it has failed; NULL if it has not.
 */
static void
end_search(Loop *loop, LookUp *look_up, const ClerkReport *report)
{
	dlist_iter	iter;
	int			count = 0;

	if (report != NULL)
		clerk_outbox_note_limit(look_up->settings, report);
	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);
		MemoryContext old = MemoryContextSwitchTo(delivery->context);

		count += is_looked_up(look_up, delivery);
		if (is_looked_up(look_up, delivery) && report != NULL)
			not_looked_up(look_up, delivery, report);
		else if (is_looked_up(look_up, delivery))
			not_found(delivery);
		MemoryContextSwitchTo(old);
	}
	if (report != NULL)
		clerk_outbox_note_look_up_failed(look_up, count, report);
	look_up->answered = true;
}

static void
take_page(Loop *loop, void *arg)
{
	LookUp	   *look_up = arg;
	MemoryContext old = MemoryContextSwitchTo(look_up->context);
	MemoryContext scratch = AllocSetContextCreate(look_up->context, "pg_clerk page", ALLOCSET_DEFAULT_SIZES);
	ClerkReport *report;
	bool		more = false;

	MemoryContextSwitchTo(scratch);
	clerk_call_read(&look_up->call);
	report = look_up->call.report;
	clerk_outbox_note_key(look_up->server, report);
	if (look_up->call.page != NULL)
		more = search_page(loop, look_up, look_up->call.page);
	if (more)
		report = clerk_listing_bound(&look_up->listing, look_up->settings, "look up what may have been created",
									 look_up->call.page, look_up->sent_at);
	MemoryContextSwitchTo(look_up->context);
	if (!more || report != NULL)
		end_search(loop, look_up, report);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/*
 * Whatever is wrong with the page, it concerns this look-up alone.
 */
void
clerk_outbox_judge_page(Loop *loop, LookUp *look_up)
{
	ErrorData  *error;

	MemoryContextSwitchTo(look_up->context);
	error = clerk_outbox_try(loop, take_page, look_up);
	look_up->page_came = false;
	look_up->sent = false;
	if (error != NULL)
	{
		ClerkReport report = clerk_outbox_report(error);

		clerk_call_release(&look_up->call);
		end_search(loop, look_up, &report);
	}
	MemoryContextSwitchTo(loop->context);
}
