/*-------------------------------------------------------------------------
 *
 * note.c
 *		What the log, and who looks at pg_stat_activity, is told of deliveries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/progress.h"
#include "clerk/log.h"
#include "outbox/outbox.h"

/* Of CALL deliver_enterprise_connections(). */
static ClerkProgress progress = {.command = "deliver_enterprise_connections"};

void
clerk_outbox_note_begin(void)
{
	clerk_progress_begin(&progress, "requests", 0, 0);
}

static void
log_failed(const Delivery *delivery)
{
	const ClerkRequestRow *row = &delivery->row;
	const char *id = delivery->outcome.connection_id && *delivery->outcome.connection_id ?
	delivery->outcome.connection_id : row->connection_id;

	clerk_log_failed(psprintf("request " INT64_FORMAT " (%s%s%s) of server \"%s\" failed after %d attempt%s",
							  row->id, clerk_operation_words[row->operation],
							  row->key ? psprintf(", key \"%s\"", clerk_report_id(row->key)) : "",
							  id ? psprintf(", connection \"%s\"", clerk_report_id(id)) : "",
							  delivery->server->name, row->attempts, row->attempts == 1 ? "" : "s"),
					 delivery->outcome.error);
}

/*
 * Its outcome is committed.
 */
void
clerk_outbox_note_written(const Loop *loop, const Delivery *delivery)
{
	bool		failed = delivery->outcome.state == CLERK_STATE_FAILED;
	MemoryContext old;

	if (delivery->lost || !clerk_state_is_final(delivery->outcome.state))
		return;
	old = MemoryContextSwitchTo(delivery->context);
	if (failed)
		log_failed(delivery);
	if (!loop->deliverer->forever)
	{
		progress.done++;
		progress.failed += failed;
		clerk_progress_show(&progress);
	}
	MemoryContextSwitchTo(old);
}

void
clerk_outbox_note_look_up_failed(const LookUp *look_up, int count, const ClerkReport *report)
{
	clerk_log_failed(psprintf("look-up of %d request%s in doubt of server \"%s\" failed",
							  count, count == 1 ? "" : "s", look_up->server->name),
					 clerk_report_to_jsonb(report));
}
