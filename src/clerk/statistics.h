/*-------------------------------------------------------------------------
 *
 * statistics.h
 *		What has been asked of each server, and how it was answered: counters.
 *
 * With shared_preload_libraries they are in shared memory, those of all
 * processes together, until the server is restarted or they are reset; else
 * each session has its own.  Counting takes no lock and throws nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_STATISTICS_H
#define CLERK_STATISTICS_H

#include "datatype/timestamp.h"
#include "port/atomics.h"

/*
 * Servers, of all databases, that have a place in shared memory.  When there are
 * more, places of those that are dropped are taken; if there are none, the next
 * server is counted by each session for itself.
 */
#define CLERK_COUNTED_SERVERS 256

/* In the order of the columns of enterprise_connection_stats. */
typedef enum ClerkCounter
{
	/* requests that were sent, each attempt */
	CLERK_COUNT_CREATES,
	CLERK_COUNT_UPDATES,
	CLERK_COUNT_GETS,
	CLERK_COUNT_LISTS,
	CLERK_COUNT_DELETES,
	CLERK_COUNT_TEST_RUNS,
	/* what became of them */
	CLERK_COUNT_2XX,
	CLERK_COUNT_4XX,			/* but 429 */
	CLERK_COUNT_429,
	CLERK_COUNT_5XX,
	CLERK_COUNT_OTHER,
	CLERK_COUNT_NETWORK_FAILURES,	/* no whole answer */
	CLERK_COUNT_SHORTAGES,		/* no socket: nothing was sent */
	/* and what they were */
	CLERK_COUNT_RETRIES,
	CLERK_COUNT_IN_DOUBT,
	CLERK_COUNT_LOOKED_UP,
	CLERK_COUNT_ADOPTED,
	/* times, in us */
	CLERK_COUNT_PACE_TIME,
	CLERK_COUNT_ANSWER_TIME,
	CLERK_COUNT_MAX_ANSWER_TIME,
	CLERK_COUNTERS
} ClerkCounter;

/* Upper bounds of the histogram's buckets, in ms; the last bucket has none. */
#define CLERK_HISTOGRAM_BOUNDS {5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000}
#define CLERK_HISTOGRAM_BUCKETS 12

/* All of one server.  Zero times: never. */
typedef struct ClerkStatistics
{
	Oid			database;		/* InvalidOid: the place is free */
	Oid			server;
	pg_atomic_uint64 counters[CLERK_COUNTERS];
	pg_atomic_uint64 histogram[CLERK_HISTOGRAM_BUCKETS];
	pg_atomic_uint64 reset_at;	/* TimestampTz */
	pg_atomic_uint64 mirrored_at;	/* TimestampTz: the last one that came to
									 * its end */
	pg_atomic_uint64 mirror_began;	/* ms, by clerk_now_ms(): the last one
									 * that was begun by itself, or came to
									 * its end */
} ClerkStatistics;

/* In _PG_init, while shared_preload_libraries are loaded. */
extern void clerk_statistics_init(void);

/*
 * The counters of a server of this database, made if there are none.  They stay
 * where they are as long as the server exists.  In a transaction.
 */
extern ClerkStatistics *clerk_statistics(Oid server);

/* NULL if there are none yet. */
extern ClerkStatistics *clerk_statistics_find(Oid server);

static inline void
clerk_count(ClerkStatistics *statistics, ClerkCounter counter, uint64 n)
{
	pg_atomic_fetch_add_u64(&statistics->counters[counter], (int64) n);
}

/* A whole answer came after this time (us). */
extern void clerk_count_answer(ClerkStatistics *statistics, int status, int64 elapsed);

/* Of a server of this database; InvalidOid: of all of them. */
extern void clerk_statistics_reset(Oid server);

#endif							/* CLERK_STATISTICS_H */
