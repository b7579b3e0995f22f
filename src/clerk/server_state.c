/*-------------------------------------------------------------------------
 *
 * server_state.c
 *		What the views say of a server beside what is in tables: is it armed, is
 *		it held back, how fast may it be asked, and will a worker do it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/clock.h"
#include "base/wake.h"
#include "clerk/pace.h"
#include "clerk/settings.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(enterprise_connection_server_state);

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/*
 * enterprise_connection_server_state(server name): armed, held_until, rate_limit,
 * no_worker, remedy.
 */
Datum
enterprise_connection_server_state(PG_FUNCTION_ARGS)
{
	ClerkSettings *limits = clerk_settings_limits(NameStr(*PG_GETARG_NAME(0)));
	const char *remedy = NULL;
	const char *no_worker = clerk_wake_unserved(&remedy);
	int64		held = limits ? clerk_pace_paused_until(limits) - clerk_now_ms() : 0;
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = BoolGetDatum(limits != NULL && limits->origin != CLERK_ORIGIN_ELSEWHERE);
	values[1] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), held));
	nulls[1] = held <= 0;
	values[2] = Int32GetDatum(limits ? limits->rate_limit : 0);
	nulls[2] = limits == NULL || limits->rate_limit == 0;
	values[3] = text_or_null(no_worker, &nulls[3]);
	values[4] = text_or_null(no_worker ? remedy : NULL, &nulls[4]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
