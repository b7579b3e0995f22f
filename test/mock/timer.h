/*-------------------------------------------------------------------------
 *
 * timer.h
 *		Requests that wait until they are due; their connections are suspended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_TIMER_H
#define MOCK_TIMER_H

#include "flow.h"

extern void timer_add(Request *req);

/* When the first is due, in monotonic microseconds; G_MAXINT64: none waits. */
extern gint64 timer_next(void);

/* Go on with all that are due; resume is called for what is to be answered. */
extern void timer_run(void (*resume) (Request *req));

/* Let all end unanswered, with the next timer_run. */
extern void timer_abort_all(void);

/* Let held requests go on to their answer; how many there were. */
extern int	timer_release_held(void);

#endif							/* MOCK_TIMER_H */
