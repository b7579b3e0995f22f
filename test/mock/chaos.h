/*-------------------------------------------------------------------------
 *
 * chaos.h
 *		Rate limiting, and faults at random.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_CHAOS_H
#define MOCK_CHAOS_H

#include "answer.h"

typedef enum ChaosOutcome
{
	CHAOS_NONE,
	CHAOS_500,
	CHAOS_429,
	CHAOS_RESET_BEFORE,
	CHAOS_RESET_AFTER
} ChaosOutcome;

typedef struct ChaosDraw
{
	ChaosOutcome outcome;
	gint64		slow_ms;
	gint64		slow_after_ms;
} ChaosDraw;

/* Start windows and random numbers anew. */
extern void chaos_restart(void);

/* Count a request; true when it is over the limit. */
extern bool rate_limit_hit(void);
extern void rate_limit_answer(Answer *answer);
extern void server_error_answer(Answer *answer);

/* What happens to this request.  Same seed, same order: same draws. */
extern ChaosDraw chaos_draw(void);

#endif							/* MOCK_CHAOS_H */
