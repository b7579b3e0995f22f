/*-------------------------------------------------------------------------
 *
 * progress.c
 *		How far a long command has come, in pg_stat_activity.query.
 *
 * PostgreSQL's own pg_stat_progress_* views know its own commands only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/progress.h"
#include "lib/stringinfo.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"

void
clerk_progress_show(const ClerkProgress *progress)
{
	int64		elapsed = clerk_now_ms() - progress->began;
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, progress->command);
	if (progress->server != NULL)
		appendStringInfo(&text, ", server %s", progress->server);
	appendStringInfo(&text, ": " INT64_FORMAT, progress->done);
	if (progress->total > 0)
		appendStringInfo(&text, " of " INT64_FORMAT, Max(progress->total, progress->done));
	appendStringInfo(&text, " %s, " INT64_FORMAT " failed", progress->what, progress->failed);
	if (elapsed > 0 && progress->done > progress->done_before)
	{
		double		pace = (double) (progress->done - progress->done_before) * 1000 / (double) elapsed;

		appendStringInfo(&text, ", %.1f a second", pace);
		if (progress->total > progress->done)
			appendStringInfo(&text, ", %.0f s to go", (double) (progress->total - progress->done) / pace);
	}
	pgstat_report_activity(STATE_RUNNING, text.data);
	pfree(text.data);
}

void
clerk_progress_begin(ClerkProgress *progress, const char *what, int64 done, int64 total)
{
	progress->what = what;
	progress->done = progress->done_before = done;
	progress->failed = 0;
	progress->total = total;
	progress->began = clerk_now_ms();
	clerk_progress_show(progress);
}

void
clerk_progress_end(void)
{
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
}
