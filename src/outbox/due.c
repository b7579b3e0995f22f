/*-------------------------------------------------------------------------
 *
 * due.c
 *		What is due, and what of it is claimed.
 *
 * Of each lane (the requests of a key, or of an id) the first unfinished one is
 * meant: so one that is due stands for its lane, and a row that people wait for
 * brings forward the bulk work of its own key before it.
 *
 * Where many that are due stand behind others, they are put at infinity, out of
 * the way; the one before brings the next one back when it is finished.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/locks.h"
#include "catalog/pg_type.h"
#include "clerk/origin.h"
#include "clerk/pace.h"
#include "outbox/claims.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* If as many of them do as this, they are put out of the way; and at most as many at a time. */
#define MANY_BEHIND 50
#define PUT_BEHIND 2000

/*
 * Documents on their way, in bytes, all together.  What is stored compressed
 * counts as this number times its size.
 */
#define MAX_DOCUMENTS (64 * 1024 * 1024)
#define COMPRESSION 16

/* A session that delivers by itself waits up to this time (ms) for a server's pace. */
#define SHORT_PAUSE 2000

/* Sockets of which a server that has one does not get another. */
#define RESERVED_SOCKETS 16

/*
 * May the caller, role $5, act for the role that enqueued a request?  0 may for
 * all.  In the database that it was enqueued in, roles are known by their oids;
 * in any other, by their names.
 */
#define IS_OF_CALLER(request) \
	"CASE WHEN $5 = 0::oid THEN true" \
	" WHEN " request ".origin = enterprise_connection_origin() THEN EXISTS (SELECT FROM pg_roles r" \
	" WHERE r.oid = " request ".role_oid AND pg_has_role($5, r.oid, 'USAGE'))" \
	" ELSE EXISTS (SELECT FROM pg_roles r WHERE r.rolname = " request ".role AND pg_has_role($5, r.oid, 'USAGE')) END"

/*
 * What is unfinished in a lane is asked for as state <= 'queued', and in the
 * order of state and id, or by state = 'failed' alone: of all indexes, only that
 * of the lanes can answer, however short the outbox was when the plan was made.
 *
 * Of each that is due, the first of its lane.  The rows come in the order of the
 * priorities.
 */
#define DUE(order) \
	PRIORITIES \
	"SELECT h.id, d.id, d.priority >= h.priority, h.state, h.step, h.operation, h.lane, coalesce(h.connection_id," \
	" (SELECT k.id FROM %1$s.enterprise_connections k WHERE k.server = $1 AND k.key = h.key)), h.claimer," \
	" h.next_attempt_at <= $2 OR h.next_attempt_at = 'infinity', pg_column_size(h.params)," \
	" (h.origin, h.server_oid, h.timeline) IS DISTINCT FROM ($7, $8, $9)," \
	" h.operation = 'upsert' AND h.state = 'queued' AND (SELECT n.id FROM " REQUESTS " n WHERE n.server = $1" \
	" AND n.lane = h.lane AND n.state <= 'queued' ORDER BY n.state, n.id OFFSET 1 LIMIT 1) IS NOT NULL," \
	" (SELECT f.id FROM " REQUESTS " f WHERE f.server = $1 AND f.lane = h.lane AND f.state = 'failed' LIMIT 1) < h.id," \
	" h.id <> ALL ($4) AND " IS_OF_CALLER("h") \
	" FROM priorities p CROSS JOIN LATERAL (SELECT q.* FROM " REQUESTS " q" \
	" WHERE q.server = $1 AND q.priority = p.priority AND q.finished_at IS NULL AND q.next_attempt_at <= $2" \
	" AND q.id <> ALL ($4) AND ($6 OR q.state <> 'in_doubt')" \
	" AND " IS_OF_CALLER("q") \
	" ORDER BY q.next_attempt_at " order ", q.id " order " LIMIT $3) d" \
	" CROSS JOIN LATERAL (SELECT d.* WHERE d.lane IS NULL UNION ALL (SELECT x.* FROM " REQUESTS " x" \
	" WHERE x.server = $1 AND x.lane = d.lane AND x.state <= 'queued' ORDER BY x.state, x.id LIMIT 1)) h LIMIT $3"

static const ClerkColumn due_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Due, id),
	CLERK_MEMBER("due", CLERK_INT8, Due, due),
	CLERK_MEMBER("may_wait", CLERK_BOOL, Due, may_wait),
	CLERK_MEMBER_WORDS("state", clerk_state_words, Due, state),
	CLERK_MEMBER_WORDS("step", clerk_step_words, Due, step),
	CLERK_MEMBER_WORDS("operation", clerk_operation_words, Due, operation),
	CLERK_MEMBER("lane", CLERK_TEXT, Due, lane),
	CLERK_MEMBER("connection_id", CLERK_TEXT, Due, connection_id),
	CLERK_MEMBER("claimer", CLERK_INT4, Due, claimer),
	CLERK_MEMBER("ready", CLERK_BOOL, Due, ready),
	CLERK_MEMBER("size", CLERK_INT4, Due, size),
	CLERK_MEMBER("from_other", CLERK_BOOL, Due, from_other),
	CLERK_MEMBER("followed", CLERK_BOOL, Due, followed),
	CLERK_MEMBER("overtakes", CLERK_BOOL, Due, overtakes),
	CLERK_MEMBER("allowed", CLERK_BOOL, Due, allowed),
	CLERK_MEMBERS_END
};

#define DUE_STATEMENT(order) { \
	.text = DUE(order), \
	.nargs = 9, \
	.args = {NAMEOID, TIMESTAMPTZOID, INT4OID, INT8ARRAYOID, OIDOID, BOOLOID, INT8OID, OIDOID, INT4OID}, \
	.returns = due_columns, \
}

/* From the oldest, and from the newest on. */
static ClerkStatement due_statements[] = {DUE_STATEMENT(""), DUE_STATEMENT("DESC")};

static ClerkStatement next_due_statement = {
	.text = PRIORITIES "SELECT min(n.at) FROM priorities p CROSS JOIN LATERAL (SELECT q.next_attempt_at AS at FROM " REQUESTS " q"
	" WHERE q.server = $1 AND q.priority = p.priority AND q.finished_at IS NULL AND q.next_attempt_at > $2"
	" AND q.next_attempt_at < 'infinity' ORDER BY q.next_attempt_at LIMIT 1) n",
	.nargs = 2,
	.args = {NAMEOID, TIMESTAMPTZOID},
};

static const ClerkColumn server_columns[] = {
	{"server", CLERK_TEXT, 0, NULL},
	CLERK_MEMBERS_END
};

static ClerkStatement servers_statement = {
	.text = "WITH RECURSIVE s (server) AS ("
	" (SELECT q.server FROM " REQUESTS " q WHERE q.finished_at IS NULL ORDER BY q.server LIMIT 1)"
	" UNION ALL SELECT (SELECT q.server FROM " REQUESTS " q WHERE q.finished_at IS NULL AND q.server > s.server"
	" ORDER BY q.server LIMIT 1) FROM s WHERE s.server IS NOT NULL)"
	" SELECT server FROM s WHERE server IS NOT NULL",
	.returns = server_columns,
};

static const ClerkColumn behind_columns[] = {
	CLERK_MEMBER("id", CLERK_INT8, Due, due),
	CLERK_MEMBER("lane", CLERK_TEXT, Due, lane),
	CLERK_MEMBERS_END
};

/*
 * What is due but not the first of its lane, from the first one that was seen
 * on; but not what is of a higher priority than the first: that stands for its
 * lane.
 */
static ClerkStatement put_behind_statement = {
	.text = "UPDATE " REQUESTS " q SET next_attempt_at = 'infinity' WHERE q.id = ANY (ARRAY("
	"SELECT l.id FROM " REQUESTS " l WHERE l.state = 'queued' AND l.next_attempt_at <= $2 AND l.id = ANY (ARRAY("
	"SELECT x.id FROM <rows> CROSS JOIN LATERAL (SELECT b.id FROM " REQUESTS " b WHERE b.server = $1"
	" AND b.lane = o.lane AND b.state <= 'queued' AND (b.state, b.id) >= ('queued', o.id)"
	" ORDER BY b.state, b.id LIMIT $3) x)) AND l.priority >= (SELECT f.priority FROM " REQUESTS " f"
	" WHERE f.server = l.server AND f.lane = l.lane AND f.state <= 'queued' ORDER BY f.state, f.id LIMIT 1)"
	" FOR UPDATE OF l SKIP LOCKED))",
	.nargs = 3,
	.args = {NAMEOID, TIMESTAMPTZOID, INT4OID},
	.given = behind_columns,
};

/*-------------------------------------------------------------------------
 * Requests that are left out for a while
 *-------------------------------------------------------------------------
 */

void
clerk_due_set_aside(Loop *loop, int64 id)
{
	MemoryContext old = MemoryContextSwitchTo(loop->context);
	Aside	   *aside = NULL;
	ListCell   *lc;

	foreach(lc, loop->aside)
	{
		if (((Aside *) lfirst(lc))->id == id)
			aside = lfirst(lc);
	}
	if (aside == NULL)
	{
		aside = palloc0(sizeof(*aside));
		aside->id = id;
		loop->aside = lappend(loop->aside, aside);
	}
	aside->not_before = clerk_now_ms() + clerk_outbox_pause(3 + aside->tries++);
	loop->next_claim = Min(loop->next_claim, aside->not_before);
	MemoryContextSwitchTo(old);
}

/*
 * Those of which it is not time yet; the others are forgotten some time later.
 */
static Datum
asides(Loop *loop)
{
	Datum	   *ids = palloc(sizeof(Datum) * (list_length(loop->aside) + 1));
	int64		now = clerk_now_ms();
	int			count = 0;
	ListCell   *lc;

	foreach(lc, loop->aside)
	{
		Aside	   *aside = lfirst(lc);

		if (aside->not_before > now)
		{
			ids[count++] = Int64GetDatum(aside->id);
			loop->next_claim = Min(loop->next_claim, aside->not_before);
		}
		else if (aside->not_before + 2 * CLERK_ASIDE_LAST < now)
		{
			loop->aside = foreach_delete_current(loop->aside, lc);
			pfree(aside);
		}
	}
	return PointerGetDatum(construct_array(ids, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*-------------------------------------------------------------------------
 * How many
 *-------------------------------------------------------------------------
 */

/*
 * Requests that are claimed and will need a socket; and the bytes of all that
 * is on its way.
 */
static int
count_unsent(const Loop *loop, int64 *bytes)
{
	int			count = 0;
	dlist_iter	iter;

	*bytes = 0;
	dlist_foreach(iter, (dlist_head *) &loop->deliveries)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		count += delivery->state == DELIVERY_READY;
		if (delivery->call.body != NULL)
			*bytes += delivery->call.body->len;
	}
	return count;
}

/*
 * How many more may be sent to the server now, by the sockets?
 *
 * The sockets of this process are shared out: a server has at most twice as
 * many as there are left for the others.  So one that hangs leaves a third of
 * them, the next one a third of that, and so on.  The last ones are for those
 * that have none, one each.
 */
int
clerk_due_places(const Loop *loop, const Server *server, const ClerkSettings *limits)
{
	int64		bytes;
	int			sending = clerk_outbox_sending(loop, server);
	int			room = clerk_http_room() - count_unsent(loop, &bytes);
	int			free = limits->max_concurrency - sending;
	int			share = (2 * (room - RESERVED_SOCKETS) - sending) / 3;

	free = Min(free, Max(share, room > 0 && sending == 0));
	if (server->paused || bytes >= MAX_DOCUMENTS)
		free = Min(free, sending == 0);
	return free;
}

/*
 * When is the server's pace to let another one through?
 */
void
clerk_due_wait_for_pace(Loop *loop, const ClerkSettings *limits)
{
	int64		now = clerk_now_ms();
	int64		next = clerk_pace_next(limits);

	/* By its rate, that is; a pause of Clerk's can be long. */
	loop->limited |= next < now + SHORT_PAUSE;
	if (limits->rate_limit > 0)
		next += 1000 / limits->rate_limit + 1;
	loop->next_claim = Min(loop->next_claim, Max(next, now + 1));
}

/*-------------------------------------------------------------------------
 * What is due
 *-------------------------------------------------------------------------
 */

List *
clerk_due_rows(Loop *loop, const Claim *claim, int limit)
{
	Server	   *server = claim->server;
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server->name), TimestampTzGetDatum(claim->moment), Int32GetDatum(limit),
		asides(loop), ObjectIdGetDatum(loop->deliverer->role), BoolGetDatum(server->look_up == NULL),
		Int64GetDatum(clerk_origin_fingerprint()), ObjectIdGetDatum(server->oid), Int32GetDatum((int32) clerk_timeline())
	};
	List	   *rows = clerk_select(&due_statements[server->from_newest], values, NIL, sizeof(Due));

	server->backlog = list_length(rows) == limit;
	return rows;
}

bool
clerk_due_is_doubt(const Due *due)
{
	return due->state == CLERK_STATE_IN_DOUBT ||
		(due->state == CLERK_STATE_SENDING && due->step == CLERK_STEP_CREATE);
}

/*
 * Can it be claimed?  What a process has claimed that is gone, can be: its lock
 * is free.
 */
static bool
is_free(const Loop *loop, const Server *server, const Due *due)
{
	if (!due->ready || !due->allowed || due->claimer == loop->claimer)
		return false;
	if (clerk_due_is_doubt(due) && server->look_up != NULL)
		return false;
	return due->claimer == 0 || clerk_claimer_is_gone(due->claimer);
}

static bool
has_id(const List *rows, int64 id)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		if (((Due *) lfirst(lc))->id == id)
			return true;
	}
	return false;
}

/*
 * Choose what is claimed.  Doubts need no place: one listing is for all.
 * *lanes: of each lane in which something that is due stands behind another,
 * the first that does.
 */
List *
clerk_due_choose(Loop *loop, const Claim *claim, List *rows, List **lanes)
{
	List	   *chosen = NIL;
	int			places_left = claim->wanted;
	int64		documents = 0;
	int			behind = 0;
	ListCell   *lc;

	*lanes = NIL;
	claim->server->waits = false;
	foreach(lc, rows)
	{
		Due		   *due = lfirst(lc);

		claim->server->waits |= due->due != due->id;
		if (due->due != due->id && due->may_wait)
		{
			behind++;
			if (*lanes == NIL || strcmp(((Due *) llast(*lanes))->lane, due->lane) != 0)
				*lanes = lappend(*lanes, due);
		}
		if (claim->server->waits && has_id(chosen, due->id))
			continue;
		if (!is_free(loop, claim->server, due))
		{
			claim->server->waits = true;
			continue;
		}
		documents += (int64) due->size * COMPRESSION;
		if (!clerk_due_is_doubt(due) && (places_left <= 0 || (chosen != NIL && documents > MAX_DOCUMENTS)))
		{
			claim->server->backlog = true;
			continue;
		}
		places_left -= !clerk_due_is_doubt(due);
		chosen = lappend(chosen, due);
	}
	if (behind < MANY_BEHIND)
		*lanes = NIL;
	return chosen;
}

void
clerk_due_put_behind(Claim *claim, List *lanes)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, claim->server->name), TimestampTzGetDatum(claim->moment),
	Int32GetDatum(Max(PUT_BEHIND / list_length(lanes), 10))};

	claim->look_again |= clerk_execute(&put_behind_statement, values, lanes) > 0;
}

/*
 * When is the next one of the server due?
 */
void
clerk_due_note_next(Loop *loop, const Claim *claim)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, claim->server->name), TimestampTzGetDatum(claim->moment)};
	Datum		next = clerk_select_datum(&next_due_statement, values);

	if (next != (Datum) 0)
		loop->next_claim = Min(loop->next_claim, clerk_now_ms() +
							   (DatumGetTimestampTz(next) - GetCurrentTimestamp()) / 1000 + 1);
}

List *
clerk_outbox_server_names(void)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, clerk_select(&servers_statement, NULL, NIL, sizeof(char *)))
		names = lappend(names, *(char **) lfirst(lc));
	return names;
}
