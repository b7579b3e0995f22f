/*-------------------------------------------------------------------------
 *
 * pause.c
 *		Servers that are paused, because Clerk does not accept their key.
 *
 * Nothing is sent to one until its settings change, but for one probe a minute,
 * whichever process does it; no attempt is counted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/pg_type.h"
#include "clerk/log.h"
#include "outbox/outbox.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* A server whose key is refused is tried again after this time (ms). */
#define PROBE_INTERVAL (60 * 1000)

#define PAUSES "%1$s.enterprise_connection_pauses"

static ClerkStatement pause_statement = {
	.text = "INSERT INTO " PAUSES " AS p (server, since, reason, probed_at, settings)"
	" VALUES ($1, clock_timestamp(), $2, clock_timestamp(), $3)"
	" ON CONFLICT (server) DO UPDATE SET reason = excluded.reason, probed_at = excluded.probed_at,"
	" settings = excluded.settings",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, INT8OID},
};

typedef struct Pause
{
	char	   *server;
	TimestampTz probed_at;
	int64		settings;
} Pause;

static const ClerkColumn pause_columns[] = {
	CLERK_MEMBER("server", CLERK_TEXT, Pause, server),
	CLERK_MEMBER("probed_at", CLERK_TIME, Pause, probed_at),
	CLERK_MEMBER("settings", CLERK_INT8, Pause, settings),
	CLERK_MEMBERS_END
};

static ClerkStatement pauses_statement = {
	.text = "SELECT <columns> FROM " PAUSES " q",
	.returns = pause_columns,
};

static ClerkStatement may_probe_statement = {
	.text = "SELECT FROM " PAUSES " p WHERE p.server = $1 AND (p.settings <> $2 OR p.probed_at <= $3) FOR UPDATE SKIP LOCKED",
	.nargs = 3,
	.args = {NAMEOID, INT8OID, TIMESTAMPTZOID},
};

static ClerkStatement probed_statement = {
	.text = "UPDATE " PAUSES " p SET probed_at = clock_timestamp() WHERE p.server = $1",
	.nargs = 1,
	.args = {NAMEOID},
};

static ClerkStatement unpause_statement = {
	.text = "DELETE FROM " PAUSES " p WHERE p.server = $1",
	.nargs = 1,
	.args = {NAMEOID},
};

static void
note_paused(Server *server, int64 version, int64 not_before)
{
	server->paused = true;
	server->paused_version = version;
	server->probe_not_before = not_before;
}

/*
 * Another process may have found out that a server has to pause, or that it
 * need not any more.
 */
void
clerk_outbox_read_pauses(Loop *loop, void *arg)
{
	ListCell   *lc;

	foreach(lc, loop->servers)
		((Server *) lfirst(lc))->paused = false;
	foreach(lc, clerk_select(&pauses_statement, NULL, NIL, sizeof(Pause)))
	{
		const Pause *pause = lfirst(lc);

		note_paused(clerk_outbox_server(loop, pause->server), pause->settings,
					clerk_now_ms() + PROBE_INTERVAL - (GetCurrentTimestamp() - pause->probed_at) / 1000);
	}
}

/*
 * settings: those that did not work; NULL: as they are now.
 */
void
clerk_outbox_pause_server(Server *server, const ClerkReport *report, const ClerkSettings *settings)
{
	int64		version = settings ? settings->version : clerk_settings_version(server->name);
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server->name), CStringGetTextDatum(report->message), Int64GetDatum(version)};

	if (!server->paused)
		clerk_log(psprintf("server \"%s\" is paused: SQLSTATE %s", server->name, unpack_sql_state(report->sqlerrcode)));
	note_paused(server, version, clerk_now_ms() + PROBE_INTERVAL);
	(void) clerk_execute(&pause_statement, values, NIL);
}

/*
 * A server that is paused is resumed once Clerk has accepted the key, even if
 * it refused the request.
 */
void
clerk_outbox_note_key(Server *server, const ClerkReport *report)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server->name)};

	if (!server->paused ||
		(report != NULL && (!report->of_clerk || report->status == 401 || report->status >= 500)))
		return;
	(void) clerk_execute(&unpause_statement, values, NIL);
	server->paused = false;
	clerk_log(psprintf("server \"%s\" is not paused any more", server->name));
}

/*
 * Is it time to see whether a server that is paused works again?  If so, no
 * other process may until the transaction ends.
 */
bool
clerk_outbox_may_probe(Loop *loop, Server *server)
{
	int64		version = clerk_settings_version(server->name);
	int64		now = clerk_now_ms();

	/* What is under way is the probe. */
	if (clerk_outbox_sending(loop, server) > 0 || server->look_up != NULL)
		return false;
	if (version != server->paused_version || now >= server->probe_not_before)
	{
		NameData	name;
		Datum		values[] = {clerk_name_datum(&name, server->name), Int64GetDatum(version),
		TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -PROBE_INTERVAL))};

		if (clerk_execute(&may_probe_statement, values, NIL) > 0)
			return true;
		/* Another process does; the upkeep reads what comes of it. */
		note_paused(server, version, now + clerk_naptime);
	}
	loop->next_claim = Min(loop->next_claim, server->probe_not_before);

	/* The latch is set a moment before a change of the settings can be seen. */
	if (loop->woken)
		loop->next_claim = Min(loop->next_claim, now + CLERK_ASIDE_FIRST);
	return false;
}

void
clerk_outbox_probed(const Server *server)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server->name)};

	(void) clerk_execute(&probed_statement, values, NIL);
}
