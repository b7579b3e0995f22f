/*-------------------------------------------------------------------------
 *
 * clock.h
 *		Milliseconds on a clock that is never set, the same for all processes
 *		of the machine.  Waits and deadlines use it; what is stored uses
 *		PostgreSQL's timestamps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_CLOCK_H
#define CLERK_CLOCK_H

#include <time.h>

static inline int64
clerk_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif							/* CLERK_CLOCK_H */
