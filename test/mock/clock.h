/*-------------------------------------------------------------------------
 *
 * clock.h
 *		The time, in the two kinds that are needed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_CLOCK_H
#define MOCK_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds since 1970: what goes into answers and records. */
static inline int64_t
clock_wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Nanoseconds that never jump: what delays and windows are measured with. */
static inline int64_t
clock_mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

#endif							/* MOCK_CLOCK_H */
