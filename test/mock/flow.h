/*-------------------------------------------------------------------------
 *
 * flow.h
 *		A request's way from its arrival to its answer.
 *
 *	NEW ──delay_ms──▶ DUE ──operation, delay_after_ms──▶ TAKEN ──▶ READY
 *											   │                     ▲
 *											   └──hold──▶ HELD ──────┘
 *
 * Each arrow that waits leaves the connection suspended and the request with
 * the timer, which goes on whether or not the client is still there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_FLOW_H
#define MOCK_FLOW_H

#include "answer.h"
#include "api.h"
#include "script.h"

typedef enum Stage
{
	STAGE_NEW,
	STAGE_DUE,
	STAGE_TAKEN,
	STAGE_HELD,
	STAGE_READY
} Stage;

typedef enum Ending
{
	ENDING_ANSWER,
	ENDING_RAW,
	ENDING_RESET,
	ENDING_DROP					/* close without a word */
} Ending;

typedef struct Request
{
	/* from HTTP; the pointers in api live as long as the request */
	void	   *connection;
	int			fd;
	char	   *target;
	bool		headers_seen;
	bool		control;
	GString    *body;
	GString    *headers;		/* a JSON object */
	ApiRequest	api;
	unsigned long connection_number;

	/* what is to become of it */
	Stage		stage;
	Ending		ending;
	bool		execute;		/* carry out the operation */
	bool		reset_first;
	bool		hold;
	gint64		delay_ms;
	gint64		delay_after_ms;
	Step	   *step;			/* NULL: not scripted */
	Answer		answer;

	/* where it is noted */
	unsigned long epoch;
	guint64		seq;
	bool		counted;

	/* for the timer */
	gint64		due_us;
	guint64		turn;
} Request;

/* Goes up with each reset: what began before it must not be noted after. */
extern unsigned long flow_epoch;

/* Take in a request that has arrived; false: it waits until due_us. */
extern bool flow_start(Request *req);

/* Its time has come: go on; false: it waits again. */
extern bool flow_advance(Request *req);

/* Put off what is being streamed; flow_advance will report it ready. */
extern void flow_pause(Request *req, gint64 ms);

/* Let it end now, unanswered. */
extern void flow_abort(Request *req);

#endif							/* MOCK_FLOW_H */
