/*-------------------------------------------------------------------------
 *
 * settings.c
 *		Everything that can be changed about the mock's behaviour at run time.
 *
 * The members are a table: name, type and where the value goes.  A merge
 * works on a copy that replaces the settings only once all of it was good.
 *
 *-------------------------------------------------------------------------
 */
#include "settings.h"

#include <stdlib.h>
#include <string.h>

#include "chaos.h"

typedef enum MemberType
{
	MEMBER_LONG,
	MEMBER_INT64,
	MEMBER_UINT64,
	MEMBER_BOOL,
	MEMBER_DOUBLE,
	MEMBER_PROFILE,
	MEMBER_RECORD,
	MEMBER_KEYS,
	MEMBER_RATE_LIMIT,
	MEMBER_CHAOS
} MemberType;

typedef struct Member
{
	const char *name;
	MemberType	type;
	size_t		offset;
} Member;

static const Member setting_members[] = {
	{"profile", MEMBER_PROFILE, offsetof(Settings, lenient)},
	{"latency_ms", MEMBER_LONG, offsetof(Settings, latency_ms)},
	{"max_connections", MEMBER_LONG, offsetof(Settings, max_connections)},
	{"record", MEMBER_RECORD, offsetof(Settings, record)},
	{"clock_ms", MEMBER_INT64, offsetof(Settings, clock_ms)},
	{"secret_keys", MEMBER_KEYS, 0},
	{"rate_limit", MEMBER_RATE_LIMIT, offsetof(Settings, rate_limit)},
	{"chaos", MEMBER_CHAOS, offsetof(Settings, chaos)},
	{NULL, 0, 0}
};

static const Member rate_limit_members[] = {
	{"requests", MEMBER_LONG, offsetof(RateLimit, requests)},
	{"window_ms", MEMBER_LONG, offsetof(RateLimit, window_ms)},
	{"retry_after_s", MEMBER_LONG, offsetof(RateLimit, retry_after_s)},
	{"as_date", MEMBER_BOOL, offsetof(RateLimit, as_date)},
	{NULL, 0, 0}
};

static const Member chaos_members[] = {
	{"seed", MEMBER_UINT64, offsetof(Chaos, seed)},
	{"p_500", MEMBER_DOUBLE, offsetof(Chaos, p_500)},
	{"p_429", MEMBER_DOUBLE, offsetof(Chaos, p_429)},
	{"p_reset_before", MEMBER_DOUBLE, offsetof(Chaos, p_reset_before)},
	{"p_reset_after", MEMBER_DOUBLE, offsetof(Chaos, p_reset_after)},
	{"p_slow", MEMBER_DOUBLE, offsetof(Chaos, p_slow)},
	{"slow_ms", MEMBER_LONG, offsetof(Chaos, slow_ms)},
	{"p_slow_after", MEMBER_DOUBLE, offsetof(Chaos, p_slow_after)},
	{"slow_after_ms", MEMBER_LONG, offsetof(Chaos, slow_after_ms)},
	{NULL, 0, 0}
};

static const char *const record_names[] = {"off", "light", "full"};

Settings	settings;

/* What the command line asked for: a reset goes back to it. */
static bool default_lenient;
static char **default_keys;
static int	ndefault_keys;

static bool merge_members(const Member *members, void *base,
						  struct json_object *json, const char *where, Buf *why);

void
settings_add_default_key(const char *key)
{
	default_keys = xrealloc(default_keys, (size_t) (ndefault_keys + 1) * sizeof(char *));
	default_keys[ndefault_keys++] = xstrdup(key);
}

void
settings_set_default_lenient(void)
{
	default_lenient = true;
}

static void
free_keys(char **keys, int n)
{
	for (int i = 0; i < n; i++)
		free(keys[i]);
	free(keys);
}

void
settings_reset(void)
{
	free_keys(settings.secret_keys, settings.nsecret_keys);
	memset(&settings, 0, sizeof(settings));
	settings.lenient = default_lenient;
	settings.record = RECORD_FULL;
	settings.secret_keys = xmalloc((size_t) ndefault_keys * sizeof(char *));
	settings.nsecret_keys = ndefault_keys;
	for (int i = 0; i < ndefault_keys; i++)
		settings.secret_keys[i] = xstrdup(default_keys[i]);
	chaos_restart();
}

void
settings_free(void)
{
	free_keys(settings.secret_keys, settings.nsecret_keys);
	free_keys(default_keys, ndefault_keys);
}

static bool
merge_keys(Settings *target, struct json_object *value)
{
	size_t		n;
	char	  **keys;

	if (!json_object_is_type(value, json_type_array))
		return false;
	n = json_object_array_length(value);
	for (size_t i = 0; i < n; i++)
		if (!json_object_is_type(json_object_array_get_idx(value, i), json_type_string))
			return false;
	keys = xmalloc(n * sizeof(char *));
	for (size_t i = 0; i < n; i++)
		keys[i] = xstrdup(json_object_get_string(json_object_array_get_idx(value, i)));
	if (target->secret_keys != settings.secret_keys)
		free_keys(target->secret_keys, target->nsecret_keys);
	target->secret_keys = keys;
	target->nsecret_keys = (int) n;
	return true;
}

static bool
merge_name(int *target, struct json_object *value, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (json_object_is_type(value, json_type_string) &&
			strcmp(json_object_get_string(value), names[i]) == 0)
		{
			*target = i;
			return true;
		}
	return false;
}

/* null turns the group off; an object turns it on, from nothing. */
static bool
merge_rate_limit(RateLimit *target, struct json_object *value, Buf *why)
{
	RateLimit	fresh = {.on = true,.window_ms = 10000};

	if (value == NULL)
	{
		target->on = false;
		return true;
	}
	if (!merge_members(rate_limit_members, &fresh, value, "rate_limit.", why))
		return false;
	*target = fresh;
	return true;
}

static bool
merge_chaos(Chaos *target, struct json_object *value, Buf *why)
{
	Chaos		fresh = {.on = true};

	if (value == NULL)
	{
		target->on = false;
		return true;
	}
	if (!merge_members(chaos_members, &fresh, value, "chaos.", why))
		return false;
	*target = fresh;
	return true;
}

static bool
merge_number(const Member *m, char *field, struct json_object *value)
{
	if (m->type == MEMBER_DOUBLE)
	{
		if (!json_object_is_type(value, json_type_int) &&
			!json_object_is_type(value, json_type_double))
			return false;
		*(double *) field = json_object_get_double(value);
		return true;
	}
	/* null is "none", as for max_connections and clock_ms */
	if (value != NULL && !json_object_is_type(value, json_type_int))
		return false;
	if (json_object_get_int64(value) < 0)
		return false;
	if (m->type == MEMBER_LONG)
		*(long *) field = (long) json_object_get_int64(value);
	else if (m->type == MEMBER_INT64)
		*(int64_t *) field = json_object_get_int64(value);
	else
		*(uint64_t *) field = json_object_get_uint64(value);
	return true;
}

static bool
merge_member(const Member *m, void *base, struct json_object *value, Buf *why)
{
	static const char *const profile_names[] = {"strict", "lenient"};
	char	   *field = (char *) base + m->offset;
	int			choice = 0;

	switch (m->type)
	{
		case MEMBER_BOOL:
			if (!json_object_is_type(value, json_type_boolean))
				return false;
			*(bool *) field = json_object_get_boolean(value);
			return true;
		case MEMBER_PROFILE:
			if (!merge_name(&choice, value, profile_names, 2))
				return false;
			*(bool *) field = choice == 1;
			return true;
		case MEMBER_RECORD:
			if (!merge_name(&choice, value, record_names, 3))
				return false;
			*(RecordLevel *) field = (RecordLevel) choice;
			return true;
		case MEMBER_KEYS:
			return merge_keys(base, value);
		case MEMBER_RATE_LIMIT:
			return merge_rate_limit((RateLimit *) field, value, why);
		case MEMBER_CHAOS:
			return merge_chaos((Chaos *) field, value, why);
		default:
			return merge_number(m, field, value);
	}
}

static bool
merge_members(const Member *members, void *base, struct json_object *json,
			  const char *where, Buf *why)
{
	if (!json_object_is_type(json, json_type_object))
	{
		if (why->len == 0)
			buf_printf(why, "%s: an object is wanted", where);
		return false;
	}
	json_object_object_foreach(json, name, value)
	{
		const Member *m = members;

		while (m->name != NULL && strcmp(m->name, name) != 0)
			m++;
		if (m->name == NULL)
		{
			buf_printf(why, "unknown member %s%s", where, name);
			return false;
		}
		if (!merge_member(m, base, value, why))
		{
			if (why->len == 0)
				buf_printf(why, "wrong value for %s%s", where, name);
			return false;
		}
	}
	return true;
}

bool
settings_merge(struct json_object *json, Buf *why)
{
	Settings	fresh = settings;
	bool		good = merge_members(setting_members, &fresh, json, "", why);
	bool		new_keys = fresh.secret_keys != settings.secret_keys;

	if (!good)
	{
		if (new_keys)
			free_keys(fresh.secret_keys, fresh.nsecret_keys);
		return false;
	}
	if (new_keys)
		free_keys(settings.secret_keys, settings.nsecret_keys);
	settings = fresh;
	/* A limit or a seed that was given anew starts from the beginning. */
	if (json_object_object_get_ex(json, "rate_limit", NULL) ||
		json_object_object_get_ex(json, "chaos", NULL))
		chaos_restart();
	return true;
}

static void
rate_limit_to_json(Buf *out)
{
	const RateLimit *r = &settings.rate_limit;

	if (!r->on)
		buf_str(out, "null");
	else
		buf_printf(out, "{\"requests\":%ld,\"window_ms\":%ld,\"retry_after_s\":%ld,\"as_date\":%s}",
				   r->requests, r->window_ms, r->retry_after_s, r->as_date ? "true" : "false");
}

static void
chaos_to_json(Buf *out)
{
	const Chaos *c = &settings.chaos;

	if (!c->on)
	{
		buf_str(out, "null");
		return;
	}
	buf_printf(out, "{\"seed\":%llu,\"p_500\":%g,\"p_429\":%g,\"p_reset_before\":%g,\"p_reset_after\":%g,",
			   (unsigned long long) c->seed, c->p_500, c->p_429, c->p_reset_before, c->p_reset_after);
	buf_printf(out, "\"p_slow\":%g,\"slow_ms\":%ld,\"p_slow_after\":%g,\"slow_after_ms\":%ld}",
			   c->p_slow, c->slow_ms, c->p_slow_after, c->slow_after_ms);
}

void
settings_to_json(Buf *out)
{
	buf_printf(out, "{\"profile\":\"%s\",\"latency_ms\":%ld,\"max_connections\":%ld,\"record\":\"%s\",",
			   settings.lenient ? "lenient" : "strict", settings.latency_ms,
			   settings.max_connections, record_names[settings.record]);
	buf_printf(out, "\"clock_ms\":%lld,\"secret_keys\":[", (long long) settings.clock_ms);
	for (int i = 0; i < settings.nsecret_keys; i++)
	{
		if (i > 0)
			buf_char(out, ',');
		buf_json_cstring(out, settings.secret_keys[i]);
	}
	buf_str(out, "],\"rate_limit\":");
	rate_limit_to_json(out);
	buf_str(out, ",\"chaos\":");
	chaos_to_json(out);
	buf_char(out, '}');
}
