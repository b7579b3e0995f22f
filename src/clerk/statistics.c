/*-------------------------------------------------------------------------
 *
 * statistics.c
 *		What has been asked of each server, and how it was answered: counters.
 *
 * A process looks for a server's place when it loads its settings, and keeps it
 * with them, so that counting is an addition.  The lock protects whose a place
 * is, not what is counted there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/shared.h"
#include "clerk/statistics.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A place that is not in shared memory. */
typedef struct OwnStatistics
{
	ClerkStatistics statistics;
	struct OwnStatistics *next;
} OwnStatistics;

static ClerkStatistics *places = NULL;
static LWLock *places_lock = NULL;
static OwnStatistics *own = NULL;

static void
init_counters(ClerkStatistics *statistics)
{
	for (int i = 0; i < CLERK_COUNTERS; i++)
		pg_atomic_init_u64(&statistics->counters[i], 0);
	for (int i = 0; i < CLERK_HISTOGRAM_BUCKETS; i++)
		pg_atomic_init_u64(&statistics->histogram[i], 0);
	pg_atomic_init_u64(&statistics->reset_at, 0);
	pg_atomic_init_u64(&statistics->mirrored_at, 0);
	pg_atomic_init_u64(&statistics->mirror_began, 0);
}

static void
attach_memory(void *memory, LWLock *lock, bool is_new)
{
	places = memory;
	places_lock = lock;
	for (int i = 0; is_new && i < CLERK_COUNTED_SERVERS; i++)
		init_counters(&places[i]);
}

void
clerk_statistics_init(void)
{
	static ClerkSharedArea area = {
		.name = "pg_clerk_statistics",
		.size = sizeof(ClerkStatistics) * CLERK_COUNTED_SERVERS,
		.attach = attach_memory,
	};

	clerk_shared_reserve(&area);
}

static void
reset(ClerkStatistics *statistics)
{
	for (int i = 0; i < CLERK_COUNTERS; i++)
		pg_atomic_write_u64(&statistics->counters[i], 0);
	for (int i = 0; i < CLERK_HISTOGRAM_BUCKETS; i++)
		pg_atomic_write_u64(&statistics->histogram[i], 0);
	pg_atomic_write_u64(&statistics->reset_at, (uint64) GetCurrentTimestamp());
}

/*
 * With the lock.  NULL if the server has no place, and none is free or to be
 * made.
 */
static ClerkStatistics *
find_place(Oid database, Oid server, bool create)
{
	ClerkStatistics *unused = NULL;

	for (int i = 0; i < CLERK_COUNTED_SERVERS; i++)
	{
		ClerkStatistics *each = &places[i];

		if (each->database == database && each->server == server)
			return each;
		if (unused == NULL && !OidIsValid(each->database))
			unused = each;
	}
	if (!create || unused == NULL)
		return NULL;
	pg_atomic_write_u64(&unused->mirrored_at, 0);
	pg_atomic_write_u64(&unused->mirror_began, 0);
	reset(unused);
	unused->server = server;
	unused->database = database;
	return unused;
}

static ClerkStatistics *
place_of(Oid server, bool create)
{
	ClerkStatistics *place;

	LWLockAcquire(places_lock, create ? LW_EXCLUSIVE : LW_SHARED);
	place = find_place(MyDatabaseId, server, create);
	LWLockRelease(places_lock);
	return place;
}

/*
 * Free the places of databases that are gone, and of servers of this database.
 * Nothing is looked up under the lock, as that can take a while and fail.
 */
static void
free_places(void)
{
	for (int i = 0; i < CLERK_COUNTED_SERVERS; i++)
	{
		ClerkStatistics *place = &places[i];
		Oid			database = place->database;
		Oid			server = place->server;

		if (SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)) &&
			(database != MyDatabaseId || SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server))))
			continue;
		LWLockAcquire(places_lock, LW_EXCLUSIVE);
		if (place->database == database && place->server == server)
			place->database = InvalidOid;
		LWLockRelease(places_lock);
	}
}

static ClerkStatistics *
find_own(Oid server)
{
	for (OwnStatistics *each = own; each != NULL; each = each->next)
		if (each->statistics.server == server)
			return &each->statistics;
	return NULL;
}

static ClerkStatistics *
make_own(Oid server)
{
	OwnStatistics *each = MemoryContextAllocZero(TopMemoryContext, sizeof(*each));

	init_counters(&each->statistics);
	reset(&each->statistics);
	each->statistics.database = MyDatabaseId;
	each->statistics.server = server;
	each->next = own;
	own = each;
	return &each->statistics;
}

ClerkStatistics *
clerk_statistics_find(Oid server)
{
	ClerkStatistics *place = places ? place_of(server, false) : NULL;

	return place ? place : find_own(server);
}

ClerkStatistics *
clerk_statistics(Oid server)
{
	ClerkStatistics *place = clerk_statistics_find(server);

	if (place == NULL && places != NULL && (place = place_of(server, true)) == NULL)
	{
		free_places();
		place = place_of(server, true);
	}
	return place ? place : make_own(server);
}

void
clerk_statistics_reset(Oid server)
{
	for (int i = 0; places != NULL && i < CLERK_COUNTED_SERVERS; i++)
		if (places[i].database == MyDatabaseId && (!OidIsValid(server) || places[i].server == server))
			reset(&places[i]);
	for (OwnStatistics *each = own; each != NULL; each = each->next)
		if (!OidIsValid(server) || each->statistics.server == server)
			reset(&each->statistics);
}

static ClerkCounter
class_of(int status)
{
	if (status == 429)
		return CLERK_COUNT_429;
	switch (status / 100)
	{
		case 2:
			return CLERK_COUNT_2XX;
		case 4:
			return CLERK_COUNT_4XX;
		case 5:
			return CLERK_COUNT_5XX;
		default:
			return CLERK_COUNT_OTHER;
	}
}

void
clerk_count_answer(ClerkStatistics *statistics, int status, int64 elapsed)
{
	static const int bounds[] = CLERK_HISTOGRAM_BOUNDS;
	pg_atomic_uint64 *max = &statistics->counters[CLERK_COUNT_MAX_ANSWER_TIME];
	uint64		longest = pg_atomic_read_u64(max);
	int			bucket = 0;

	StaticAssertStmt(lengthof(bounds) == CLERK_HISTOGRAM_BUCKETS - 1, "each bucket but the last has a bound");
	while (bucket < CLERK_HISTOGRAM_BUCKETS - 1 && elapsed > (int64) bounds[bucket] * 1000)
		bucket++;
	pg_atomic_fetch_add_u64(&statistics->histogram[bucket], 1);
	clerk_count(statistics, class_of(status), 1);
	clerk_count(statistics, CLERK_COUNT_ANSWER_TIME, elapsed);
	while ((uint64) elapsed > longest && !pg_atomic_compare_exchange_u64(max, &longest, elapsed))
		;
}
