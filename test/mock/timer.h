/*-------------------------------------------------------------------------
 *
 * timer.h
 *		The thread that goes on with requests whose time has come.
 *
 * All functions but timer_start and timer_stop are called with flow_lock
 * held.  Only this thread resumes suspended connections.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_TIMER_H
#define MOCK_TIMER_H

#include "flow.h"

extern void timer_start(void (*resume) (Request *req));

/* Aborts and resumes all that waits; afterwards nothing may be added. */
extern void timer_stop(void);
extern bool timer_stopped(void);

extern void timer_add(Request *req);
extern void timer_abort_all(void);

/* Let held requests go on to their answer; how many there were. */
extern int timer_release_held(void);

#endif							/* MOCK_TIMER_H */
