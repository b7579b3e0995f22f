/*-------------------------------------------------------------------------
 *
 * settings.c
 *		Everything that can be changed about the mock's behaviour at run time.
 *
 *-------------------------------------------------------------------------
 */
#include "settings.h"

#include <string.h>

#include "chaos.h"
#include "member.h"

static const char *const profile_names[] = {"strict", "lenient", NULL};
static const char *const record_names[] = {"off", "light", "full", NULL};

static const RateLimit rate_limit_defaults = {.on = true,.window_ms = 10000};
static const Chaos chaos_defaults = {.on = true};

static const Member rate_limit_members[] = {
	{"requests", MEMBER_NUMBER, offsetof(RateLimit, requests)},
	{"window_ms", MEMBER_NUMBER, offsetof(RateLimit, window_ms)},
	{"retry_after_s", MEMBER_NUMBER_OR_NULL, offsetof(RateLimit, retry_after_s)},
	{"as_date", MEMBER_FLAG, offsetof(RateLimit, as_date)},
	{NULL}
};

static const Member chaos_members[] = {
	{"seed", MEMBER_NUMBER, offsetof(Chaos, seed)},
	{"p_500", MEMBER_SHARE, offsetof(Chaos, p_500)},
	{"p_429", MEMBER_SHARE, offsetof(Chaos, p_429)},
	{"p_reset_before", MEMBER_SHARE, offsetof(Chaos, p_reset_before)},
	{"p_reset_after", MEMBER_SHARE, offsetof(Chaos, p_reset_after)},
	{"p_slow", MEMBER_SHARE, offsetof(Chaos, p_slow)},
	{"slow_ms", MEMBER_NUMBER, offsetof(Chaos, slow_ms)},
	{"p_slow_after", MEMBER_SHARE, offsetof(Chaos, p_slow_after)},
	{"slow_after_ms", MEMBER_NUMBER, offsetof(Chaos, slow_after_ms)},
	{NULL}
};

static const Member setting_members[] = {
	{"profile", MEMBER_CHOICE, offsetof(Settings, lenient),.names = profile_names},
	{"latency_ms", MEMBER_NUMBER_OR_NULL, offsetof(Settings, latency_ms)},
	{"max_connections", MEMBER_NUMBER_OR_NULL, offsetof(Settings, max_connections)},
	{"record", MEMBER_CHOICE, offsetof(Settings, record),.names = record_names},
	{"clock_ms", MEMBER_NUMBER_OR_NULL, offsetof(Settings, clock_ms)},
	{"secret_keys", MEMBER_TEXTS, offsetof(Settings, secret_keys)},
	{"rate_limit", MEMBER_GROUP, offsetof(Settings, rate_limit),
	.members = rate_limit_members,.defaults = &rate_limit_defaults,.size = sizeof(RateLimit)},
	{"chaos", MEMBER_GROUP, offsetof(Settings, chaos),
	.members = chaos_members,.defaults = &chaos_defaults,.size = sizeof(Chaos)},
	{NULL}
};

Settings	settings;

/* What the command line asked for: a reset goes back to it. */
static bool default_lenient;
static char **default_keys;

void
settings_set_defaults(bool lenient, char **keys)
{
	default_lenient = lenient;
	default_keys = keys;
}

void
settings_reset(void)
{
	settings_free();
	memset(&settings, 0, sizeof(settings));
	settings.lenient = default_lenient;
	settings.record = RECORD_FULL;
	settings.secret_keys = g_strdupv(default_keys);
	chaos_restart();
}

void
settings_free(void)
{
	g_clear_pointer(&settings.secret_keys, g_strfreev);
}

/* On a copy, which replaces the settings only once all of it was good. */
void
settings_merge(struct json_object *json, GString *why)
{
	Settings	fresh = settings;

	fresh.secret_keys = g_strdupv(settings.secret_keys);
	if (!members_read(setting_members, &fresh, json, "", why))
	{
		g_strfreev(fresh.secret_keys);
		return;
	}
	settings_free();
	settings = fresh;
	/* A limit or a seed that was given anew starts from the beginning. */
	if (json_object_object_get_ex(json, "rate_limit", NULL) || json_object_object_get_ex(json, "chaos", NULL))
		chaos_restart();
}

void
settings_to_json(GString *out)
{
	members_write(setting_members, &settings, out);
}
