/*-------------------------------------------------------------------------
 *
 * judge.c
 *		What an answer, or an error here, means for its request.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/jsonb.h"
#include "base/locks.h"
#include "calls/upsert.h"
#include "catalog/pg_type.h"
#include "clerk/pace.h"
#include "clerk/settings.h"
#include "outbox/claims.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * A domain that may come free: the first pause, in ms, doubled up to the last.
 * So many attempts take two minutes.
 */
#define DOMAIN_FIRST 250
#define DOMAIN_LAST (15 * 1000)
#define DOMAIN_ATTEMPTS 13

/*
 * Of answers that are larger than this, in bytes, one is read in each
 * transaction, after the others: PostgreSQL may take a second to read one of
 * 8 MB, and a server can have as many come at a time as it has places.
 */
#define LARGE_ANSWER (256 * 1024)

typedef struct Holder
{
	char	   *id;				/* NULL: not known */
	char	   *key;
	bool		may_come_free;
} Holder;

static const ClerkColumn holder_columns[] = {
	CLERK_MEMBER("id", CLERK_TEXT, Holder, id),
	CLERK_MEMBER("key", CLERK_TEXT, Holder, key),
	CLERK_MEMBER("may_come_free", CLERK_BOOL, Holder, may_come_free),
	CLERK_MEMBERS_END
};

/*
 * Who has what Clerk refuses, and may it come free?  It may if something
 * unfinished is in the lane of the connection that has it.  If none is tracked:
 * if it was freed since this request was sent, or if a request that was sent
 * may have got it.  Of what is unfinished only the first are looked at.
 */
static ClerkStatement holder_statement = {
	.text = "WITH wanted AS MATERIALIZED (SELECT $4->>'organization_id' AS organization_id, ARRAY(SELECT lower(d COLLATE \"C\")"
	" FROM jsonb_array_elements_text(CASE jsonb_typeof($4->'domains') WHEN 'array' THEN $4->'domains' ELSE '[]' END) d) AS domains),"
	" holder AS MATERIALIZED ("
	"SELECT k.id, k.key FROM ((SELECT k.* FROM %1$s.enterprise_connections k WHERE NOT $3"
	" AND k.domains && (SELECT w.domains FROM wanted w) AND cardinality(k.domains) <= 5000 LIMIT 1000)"
	" UNION ALL (SELECT k.* FROM %1$s.enterprise_connections k WHERE $3"
	" AND k.organization_id = (SELECT w.organization_id FROM wanted w) LIMIT 1000)) k"
	" WHERE k.server = $1 AND k.id <> $5)"
	" SELECT h.id, h.key, CASE WHEN h.id IS NOT NULL THEN EXISTS ("
	"SELECT FROM %1$s.enterprise_connection_requests q WHERE q.server = $1 AND q.state <= 'queued' AND q.id <> $2"
	" AND q.lane IN (concat('key ', h.key), concat('id ', h.id)))"
	" ELSE EXISTS (SELECT FROM %1$s.enterprise_connection_requests q WHERE q.finished_at >= $6 AND NOT q.scrubbed AND q.server = $1"
	" AND q.operation <> 'create' AND q.id <> $2)"
	" OR EXISTS (SELECT FROM (SELECT * FROM %1$s.enterprise_connection_requests q WHERE q.server = $1"
	" AND q.finished_at IS NULL LIMIT 10000) q WHERE q.attempts > 0 AND q.id <> $2"
	" AND CASE WHEN $3 THEN q.params->>'organization_id' = (SELECT w.organization_id FROM wanted w)"
	" ELSE lower((q.params->'domains')::text COLLATE \"C\")::jsonb ?| (SELECT w.domains FROM wanted w) END) END AS may_come_free"
	" FROM (SELECT 1) one LEFT JOIN holder h ON true ORDER BY 3 DESC LIMIT 1",
	.nargs = 6,
	.args = {NAMEOID, INT8OID, BOOLOID, JSONBOID, TEXTOID, TIMESTAMPTZOID},
	.returns = holder_columns,
};

/*
 * Doubled with each attempt, with jitter.
 */
static int64
backoff(int64 first, int64 last, int attempts)
{
	int64		pause = Min(first << Min(attempts - 1, 12), last);

	return pause / 2 + (int64) (clerk_random() * (double) pause / 2);
}

int64
clerk_outbox_backoff(int attempts)
{
	return backoff(CLERK_BACKOFF_FIRST, CLERK_BACKOFF_LAST, attempts);
}

/*
 * The outcome is known.  delay: ms until the next attempt, -1 for none.
 */
void
clerk_outbox_set(Delivery *delivery, ClerkState state, int64 delay)
{
	clerk_check_transition(delivery->row.state, state);
	delivery->outcome.state = state;
	delivery->outcome.delay = delay;
	delivery->state = DELIVERY_JUDGED;
}

/*
 * There is no connection, so nothing to delete or to set: delivered, with a
 * remark.
 */
void
clerk_outbox_nothing_to_do(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;
	ClerkReport remark = {
		.sqlerrcode = ERRCODE_NO_DATA,
		.message = row->connection_id ? psprintf("enterprise connection \"%s\" does not exist any more: there was nothing to do",
												 clerk_report_id(row->connection_id)) :
		row->key ? psprintf("no enterprise connection has the key \"%s\": there was nothing to do", row->key) :
		"there is no such enterprise connection: there was nothing to do",
		.retry_after = -1,
	};

	delivery->outcome.error = clerk_report_to_jsonb(&remark);
	clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
}

static void
set_with_error(Delivery *delivery, const ClerkReport *report, ClerkState state, int64 delay)
{
	ClerkOutcome *outcome = &delivery->outcome;

	outcome->error = clerk_report_to_jsonb(report);
	outcome->http_status = report->status;
	if (state != CLERK_STATE_FAILED)
		outcome->doubt_since = delivery->row.doubt_since;
	clerk_outbox_set(delivery, state, delay);
}

/*
 * Nothing happened: again later, unless that was the last attempt.
 */
static void
try_again(Delivery *delivery, const ClerkReport *report, int64 delay)
{
	const ClerkRequestRow *row = &delivery->row;

	if (row->attempts >= clerk_max_attempts)
	{
		set_with_error(delivery, report, CLERK_STATE_FAILED, -1);
		return;
	}
	delay = Max(delay, Min(report->retry_after, CLERK_BACKOFF_LAST));

	/* A PATCH that is lost may still be on its way: it must not come last. */
	if (report->sqlerrcode == ERRCODE_CLERK_CONNECTION_BROKEN)
		delay = Max(delay, (row->started_at - GetCurrentTimestamp()) / 1000 + delivery->settings->timeout);
	set_with_error(delivery, report, CLERK_STATE_QUEUED, delay);
}

/*
 * Nothing was sent, or Clerk accepts no key: that is no attempt.
 */
static void
try_again_uncounted(Delivery *delivery, const ClerkReport *report, int64 delay)
{
	delivery->outcome.uncounted = true;
	set_with_error(delivery, report, CLERK_STATE_QUEUED, delay);
}

static void
pause_server(Delivery *delivery, const ClerkReport *report)
{
	clerk_outbox_pause_server(delivery->server, report, delivery->settings);
	try_again_uncounted(delivery, report, 0);
}

/*
 * It may have happened: to be looked up when the request cannot be on its way
 * any more, that is, at the end of its lease.
 */
static void
doubt(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = &delivery->row;

	set_with_error(delivery, report, CLERK_STATE_IN_DOUBT, -1);
	delivery->outcome.doubt_since = row->doubt_since ? row->doubt_since : row->started_at;
}

/*-------------------------------------------------------------------------
 * What another connection has
 *-------------------------------------------------------------------------
 */

static const Holder *
find_holder(const Delivery *delivery, bool by_organization)
{
	const ClerkRequestRow *row = &delivery->row;
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, delivery->server->name), Int64GetDatum(row->id),
		BoolGetDatum(by_organization), JsonbPGetDatum(row->params),
		CStringGetTextDatum(row->connection_id ? row->connection_id : ""), TimestampTzGetDatum(row->started_at)
	};

	return linitial(clerk_select(&holder_statement, values, NIL, sizeof(Holder)));
}

/*
 * The same report, with a hint that says what has the domain.
 */
static ClerkReport
with_holder(const ClerkReport *report, const Holder *holder)
{
	ClerkReport copy = *report;

	if (holder->id == NULL)
		return copy;
	copy.hint = psprintf("Enterprise connection \"%s\"%s has it: take it away from that one first. "
						 "Connections that swap domains need two steps, of which the first frees one of them.",
						 clerk_report_id(holder->id),
						 holder->key ? psprintf(" of key \"%s\"", holder->key) : "");
	return copy;
}

/*
 * Clerk refuses what another connection has.  It may be a domain on its way
 * from one to the other: that is tried again for a while.  Or, for a create,
 * what an earlier attempt, or a direct call that was rolled back, has left.
 */
static void
judge_duplicate(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = &delivery->row;
	const Holder *holder = find_holder(delivery, clerk_is_duplicate_organization(report));
	ClerkReport explained = with_holder(report, holder);

	if (holder->may_come_free && row->attempts < DOMAIN_ATTEMPTS)
		try_again(delivery, &explained, backoff(DOMAIN_FIRST, DOMAIN_LAST, row->attempts));
	else if (row->step == CLERK_STEP_CREATE && (row->doubt_since != 0 || row->key != NULL))
	{
		set_with_error(delivery, &explained, CLERK_STATE_IN_DOUBT, 0);
		delivery->outcome.doubt_since = row->doubt_since ? row->doubt_since : time_t_to_timestamptz(0);
	}
	else
		set_with_error(delivery, &explained, CLERK_STATE_FAILED, -1);
}

/*-------------------------------------------------------------------------
 * Answers
 *-------------------------------------------------------------------------
 */

/*
 * Clerk has asked to wait, which goes for all requests of the server.
 */
void
clerk_outbox_note_limit(const ClerkSettings *settings, const ClerkReport *report)
{
	if (report->status == 429)
		clerk_pace_pause(settings, clerk_pace_after_limit(report->retry_after));
}

/*
 * An upsert's connection is gone: its key gets a new one.  At once, but only
 * once: Clerk may list what it says is gone.
 */
static void
judge_gone(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = &delivery->row;

	delivery->outcome.untrack = row->connection_id;
	delivery->outcome.connection_id = "";
	delivery->outcome.uncounted = row->attempts == 1;
	if (row->attempts == 1)
		clerk_outbox_set(delivery, CLERK_STATE_QUEUED, 0);
	else
		try_again(delivery, report, clerk_outbox_backoff(row->attempts));
}

static void
judge_failure(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = &delivery->row;

	if (report->retry == CLERK_RETRY_SHORTAGE)
		try_again_uncounted(delivery, report, clerk_outbox_backoff(1));
	else if (report->status == 401 && report->of_clerk)
		pause_server(delivery, report);
	else if (!clerk_operations[row->operation].takes_params && clerk_report_is_gone(report))
	{
		delivery->outcome.http_status = report->status;
		delivery->outcome.untrack = row->connection_id;
		clerk_outbox_nothing_to_do(delivery);
	}
	else if (row->operation == CLERK_REQUEST_UPSERT && row->step == CLERK_STEP_UPDATE && clerk_report_is_gone(report))
		judge_gone(delivery, report);
	else if (clerk_is_duplicate(report))
		judge_duplicate(delivery, report);
	else if (report->retry == CLERK_RETRY_IN_DOUBT)
		doubt(delivery, report);
	else if (report->retry == CLERK_RETRY_NEVER)
		set_with_error(delivery, report, CLERK_STATE_FAILED, -1);
	else
		try_again(delivery, report, clerk_outbox_backoff(row->attempts));
	clerk_outbox_note_limit(delivery->settings, report);
}

/*
 * A step of its own, committed before it is sent: the PATCH that follows.
 */
static void
go_on_with(Delivery *delivery, const ClerkBody *body)
{
	delivery->next = body;
	delivery->outcome.step = CLERK_STEP_COMPLETE;
	clerk_outbox_set(delivery, CLERK_STATE_SENDING, delivery->settings->timeout);
	clerk_outbox_prepare_next(delivery);
}

/*
 * Is the connection active, by what Clerk has answered?
 */
static bool
is_active(Jsonb *connection)
{
	JsonbValue	buf;
	JsonbValue *value = getKeyJsonValueFromContainer(&connection->root, "active", 6, &buf);

	return value != NULL && value->type == jbvBool && value->val.boolean;
}

static void
judge_success(Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;

	delivery->outcome.http_status = delivery->call.status;
	if (row->step == CLERK_STEP_DELETE)
	{
		delivery->outcome.untrack = row->connection_id;
		clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
		return;
	}
	delivery->outcome.track = delivery->call.result;
	delivery->outcome.connection_id = clerk_jsonb_string(delivery->call.result, "id");
	if (row->operation == CLERK_REQUEST_REACTIVATE)
		delivery->outcome.set_reactivate = true;
	if (row->step == CLERK_STEP_CREATE && delivery->params->patch != NULL)
		go_on_with(delivery, delivery->params->patch);
	else if (row->operation == CLERK_REQUEST_DEACTIVATE && row->step == CLERK_STEP_UPDATE && is_active(delivery->call.result))
	{
		/* It was a GET. */
		delivery->outcome.set_reactivate = delivery->outcome.reactivate = true;
		go_on_with(delivery, &clerk_body_inactive);
	}
	else
		clerk_outbox_set(delivery, CLERK_STATE_DELIVERED, -1);
}

static void
judge(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;

	if (delivery->call.request != NULL)
		clerk_call_read(&delivery->call);
	clerk_outbox_note_key(delivery->server, delivery->call.report);
	if (delivery->call.result != NULL)
		judge_success(delivery);
	else
		judge_failure(delivery, delivery->call.report);
}

/*-------------------------------------------------------------------------
 * Errors here
 *-------------------------------------------------------------------------
 */

/*
 * An error here, as a request's.  The detail of a violated constraint may have
 * a whole row, with its secrets.
 */
ClerkReport
clerk_outbox_report(const ErrorData *error)
{
	return (ClerkReport)
	{
		.sqlerrcode = error->sqlerrcode,
			.message = error->message,
			.detail = ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ?
			NULL : error->detail,
			.hint = error->hint,
			.retry_after = -1,
	};
}

void
clerk_outbox_fail(Delivery *delivery, const ErrorData *error)
{
	ClerkReport report = clerk_outbox_report(error);

	set_with_error(delivery, &report, CLERK_STATE_FAILED, -1);
}

/*
 * An error while preparing, not of Clerk's.
 */
void
clerk_outbox_judge_error(Delivery *delivery, const ErrorData *error)
{
	ClerkReport report = clerk_outbox_report(error);
	ClerkOrigin origin;

	if (clerk_outbox_is_transient(error))
		try_again_uncounted(delivery, &report, clerk_outbox_backoff(1));
	else if (error->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		clerk_outbox_fail(delivery, error);
	else if (clerk_settings_origin(delivery->server->name, &origin) && origin == CLERK_ORIGIN_ELSEWHERE)
	{
		/* It waits until the server is armed. */
		delivery->outcome.uncounted = true;
		clerk_outbox_set(delivery, CLERK_STATE_QUEUED, 0);
	}
	else
		pause_server(delivery, &report);
}

/*
 * An answer that cannot be judged now is judged later; one that never can is a
 * failure.
 */
static void
judge_delivery(Loop *loop, Delivery *delivery)
{
	ErrorData  *error;

	MemoryContextSwitchTo(delivery->context);
	error = clerk_outbox_try(loop, judge, delivery);
	if (error != NULL && clerk_outbox_is_transient(error))
	{
		delivery->outcome = CLERK_NO_OUTCOME;
		delivery->next = NULL;
		delivery->state = DELIVERY_ANSWERED;
		delivery->not_before = clerk_now_ms() + clerk_outbox_pause(delivery->tries++);
	}
	else
	{
		if (error != NULL)
		{
			const ClerkRequestRow *row = &delivery->row;

			clerk_outbox_fail(delivery, error);

			/* A create that was sent: a retry has to look it up. */
			if (row->step == CLERK_STEP_CREATE && delivery->outcome.connection_id == NULL)
				delivery->outcome.doubt_since = row->doubt_since ? row->doubt_since : row->started_at;
		}
		clerk_call_release(&delivery->call);
	}
	MemoryContextSwitchTo(loop->context);
}

/*
 * Judge all answers that are not large, and one that is.
 */
static void
judge_deliveries(Loop *loop)
{
	int64		now = clerk_now_ms();
	Delivery   *large = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_ANSWERED || delivery->not_before > now)
			continue;
		if (delivery->call.request != NULL && delivery->call.request->answer_len > LARGE_ANSWER)
			large = large ? large : delivery;
		else
			judge_delivery(loop, delivery);
	}
	if (large != NULL)
		judge_delivery(loop, large);
}

/*
 * A server has one look-up at a time, so all their pages.  What is found there
 * must be no other process's to adopt: that one's outcomes are to be committed.
 */
void
clerk_outbox_judge_all(Loop *loop)
{
	int64		now = clerk_now_ms();
	ListCell   *lc;

	judge_deliveries(loop);
	foreach(lc, loop->servers)
	{
		LookUp	   *look_up = ((Server *) lfirst(lc))->look_up;

		if (look_up == NULL || !look_up->page_came || look_up->not_before > now)
			continue;
		if (clerk_try_lock(CLERK_LOCK_QUEUE, look_up->server->oid))
			clerk_outbox_judge_page(loop, look_up);
		else
			look_up->not_before = now + CLERK_QUEUE_BUSY;
	}
}
