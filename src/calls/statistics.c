/*-------------------------------------------------------------------------
 *
 * statistics.c
 *		SQL functions of the counters of servers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "clerk/settings.h"
#include "clerk/statistics.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(enterprise_connection_counters);
PG_FUNCTION_INFO_V1(enterprise_connection_stats_reset);

/* The counters, the histogram and two times. */
#define COLUMNS (CLERK_COUNTERS + 3)

static Datum
counter_datum(ClerkStatistics *statistics, ClerkCounter counter)
{
	uint64		value = statistics ? pg_atomic_read_u64(&statistics->counters[counter]) : 0;

	if (counter >= CLERK_COUNT_PACE_TIME)
		return Float8GetDatum((double) value / 1000);
	return Int64GetDatum((int64) value);
}

static Datum
histogram_datum(ClerkStatistics *statistics)
{
	Datum		buckets[CLERK_HISTOGRAM_BUCKETS];

	for (int i = 0; i < CLERK_HISTOGRAM_BUCKETS; i++)
		buckets[i] = Int64GetDatum(statistics ? (int64) pg_atomic_read_u64(&statistics->histogram[i]) : 0);
	return PointerGetDatum(construct_array(buckets, CLERK_HISTOGRAM_BUCKETS, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static Datum
time_datum(pg_atomic_uint64 *time, bool *isnull)
{
	TimestampTz value = time ? (TimestampTz) pg_atomic_read_u64(time) : 0;

	*isnull = value == 0;
	return TimestampTzGetDatum(value);
}

/*
 * enterprise_connection_counters(server oid): null for who may not see them.
 */
Datum
enterprise_connection_counters(PG_FUNCTION_ARGS)
{
	Oid			server = PG_GETARG_OID(0);
	ClerkStatistics *statistics;
	TupleDesc	desc;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};

	/* It may have been dropped since the view's snapshot. */
	if (!SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server)) ||
		(!has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) &&
		 clerk_server_aclcheck(server, GetUserId()) != ACLCHECK_OK))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != COLUMNS)
		elog(ERROR, "return type must be a row type");
	statistics = clerk_statistics_find(server);
	for (int i = 0; i < CLERK_COUNTERS; i++)
		values[i] = counter_datum(statistics, i);
	values[CLERK_COUNTERS] = histogram_datum(statistics);
	values[CLERK_COUNTERS + 1] = time_datum(statistics ? &statistics->mirrored_at : NULL, &nulls[CLERK_COUNTERS + 1]);
	values[CLERK_COUNTERS + 2] = time_datum(statistics ? &statistics->reset_at : NULL, &nulls[CLERK_COUNTERS + 2]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * enterprise_connection_stats_reset(server name)
 */
Datum
enterprise_connection_stats_reset(PG_FUNCTION_ARGS)
{
	clerk_statistics_reset(PG_ARGISNULL(0) ? InvalidOid : clerk_held_server(NameStr(*PG_GETARG_NAME(0))));
	PG_RETURN_VOID();
}
