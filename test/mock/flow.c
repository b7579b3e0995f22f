/*-------------------------------------------------------------------------
 *
 * flow.c
 *		A request's way from its arrival to its answer.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include <poll.h>
#include <string.h>

#include "chaos.h"

#include "record.h"
#include "settings.h"

/* How often it is looked whether a held request's client has left. */
#define HOLD_CHECK_MS	100

unsigned long flow_epoch = 1;

static void
wait_ms(Request *req, gint64 ms)
{
	req->due_us = g_get_monotonic_time() + ms * 1000;
}

/* A scripted request follows its step; limits and chaos are not asked. */
static void
plan_step(Request *req)
{
	const Step *step = req->step;

	req->delay_ms += step->delay_ms;
	req->delay_after_ms = step->delay_after_ms;
	req->hold = step->hold;
	req->reset_first = step->reset == RESET_BEFORE;
	req->execute = step->apply || step->reset == RESET_AFTER ||
		(step->real && step->raw == NULL && !step->hold);
	if (step->reset == RESET_AFTER)
		req->ending = ENDING_RESET;
	else if (step->raw != NULL)
		req->ending = ENDING_RAW;
}

static void
plan_unscripted(Request *req)
{
	ChaosDraw	draw;

	if (rate_limit_hit())
	{
		rate_limit_answer(&req->answer);
		return;
	}
	draw = chaos_draw();
	req->delay_ms += draw.slow_ms;
	req->delay_after_ms = draw.slow_after_ms;
	if (draw.outcome == CHAOS_500)
		server_error_answer(&req->answer);
	else if (draw.outcome == CHAOS_429)
		rate_limit_answer(&req->answer);
	else if (draw.outcome == CHAOS_RESET_BEFORE)
		req->reset_first = true;
	else
		req->execute = true;
	if (draw.outcome == CHAOS_RESET_AFTER)
		req->ending = ENDING_RESET;
}

static void
note_arrival(Request *req)
{
	RecordInput input = {
		.method = req->api.method,
		.target = req->target,
		.headers = req->headers,
		.body = req->body,
		.connection = req->connection_number,
		.scripted = req->step != NULL
	};

	req->epoch = flow_epoch;
	req->counted = true;
	stats_request_begins(req->api.method);
	req->seq = record_add(&input);
}

bool
flow_start(Request *req)
{
	const char *query;
	g_autofree char *path = api_path(req->target, &query);

	if (path == NULL)
		path = g_strndup(req->target, strcspn(req->target, "?"));
	req->step = script_match(req->api.method, path, req->body);
	req->delay_ms = settings.latency_ms;
	if (req->step != NULL)
		plan_step(req);
	else
		plan_unscripted(req);
	note_arrival(req);
	return flow_advance(req);
}

/* The operation itself, and the answer unless that is the operation's own. */
static void
take(Request *req)
{
	const Step *step = req->step;

	if (req->execute)
		api_execute(&req->api, &req->answer);
	if (step == NULL || step->real)
		return;
	g_string_truncate(req->answer.body, 0);
	req->answer.retry_after[0] = '\0';
	req->answer.allow = NULL;
	req->answer.status = (int) step->status;
	/* filled and raw bodies are sent from the step */
	if (!step->fill && step->body != NULL)
		g_string_append_len(req->answer.body, step->body->str, (gssize) step->body->len);
}

static bool
client_left(const Request *req)
{
	struct pollfd p = {.fd = req->fd,.events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void
finish(Request *req)
{
	bool		answered = req->ending == ENDING_ANSWER;

	req->stage = STAGE_READY;
	if (req->epoch == flow_epoch)
		record_answered(req->seq, answered ? req->answer.status : 0);
}

bool
flow_advance(Request *req)
{
	switch (req->stage)
	{
		case STAGE_NEW:
			req->stage = STAGE_DUE;
			if (req->delay_ms > 0)
			{
				wait_ms(req, req->delay_ms);
				return false;
			}
			/* FALLTHROUGH */
		case STAGE_DUE:
			if (req->reset_first)
			{
				req->ending = ENDING_RESET;
				break;
			}
			take(req);
			req->stage = STAGE_TAKEN;
			if (req->delay_after_ms > 0)
			{
				wait_ms(req, req->delay_after_ms);
				return false;
			}
			/* FALLTHROUGH */
		case STAGE_TAKEN:
			if (!req->hold)
				break;
			req->stage = STAGE_HELD;
			wait_ms(req, HOLD_CHECK_MS);
			return false;
		case STAGE_HELD:
			if (client_left(req))
				req->ending = ENDING_DROP;
			else if (req->hold)
			{
				wait_ms(req, HOLD_CHECK_MS);
				return false;
			}
			else if (req->ending == ENDING_ANSWER && req->answer.status == 0)
				api_execute(&req->api, &req->answer);	/* let go, after all */
			break;
		case STAGE_READY:
			return true;
	}
	finish(req);
	return true;
}

void
flow_pause(Request *req, gint64 ms)
{
	wait_ms(req, ms);
}

void
flow_abort(Request *req)
{
	req->ending = ENDING_DROP;
	if (req->stage != STAGE_READY)
		finish(req);
}
