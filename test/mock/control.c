/*-------------------------------------------------------------------------
 *
 * control.c
 *		The endpoints below /_mock/, by which a test steers the mock.
 *
 * Every answer is one line of compact JSON; a refusal is 400 with
 * {"error": "..."}.
 *
 *-------------------------------------------------------------------------
 */
#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "flow.h"
#include "record.h"
#include "script.h"
#include "settings.h"
#include "store.h"
#include "timer.h"
#include "validate.h"

/* Room for a prefix, a number and ".example". */
#define DOMAIN_NAME_SIZE	200

/* Beyond this, a count is a slip of the finger. */
#define SEED_MAX			1000000

typedef struct Control
{
	const char *query;
	struct json_object *body;	/* NULL: none */
	bool		tls;
	Buf		   *out;
	Buf			why;			/* not empty: refused */
} Control;

typedef struct ControlEndpoint
{
	const char *method;
	const char *name;
	void		(*run) (Control *control);
} ControlEndpoint;

static void
write_done(Control *control)
{
	buf_str(control->out, "{\"ok\":true}");
}

static void
run_requests(Control *control)
{
	Buf			name = {0},
				value = {0},
				method = {0};
	uint64_t	since = 0;

	while (query_next(&control->query, &name, &value))
	{
		if (strcmp(name.data, "since") == 0)
			since = strtoull(value.data, NULL, 10);
		else if (strcmp(name.data, "method") == 0)
			buf_add(&method, value.data, value.len);
		else
			buf_printf(&control->why, "unknown parameter %s", name.data);
	}
	record_list(control->out, since, method.data);
	buf_free(&name);
	buf_free(&value);
	buf_free(&method);
}

static void
run_clear_requests(Control *control)
{
	record_clear();
	write_done(control);
}

static void
run_stats(Control *control)
{
	stats_write(control->out);
}

static void
run_connections(Control *control)
{
	buf_char(control->out, '[');
	for (size_t i = 0; i < store_count(); i++)
	{
		if (i > 0)
			buf_char(control->out, ',');
		buf_add(control->out, store_at(i)->text, store_at(i)->text_len);
	}
	buf_char(control->out, ']');
}

static void
run_clear_connections(Control *control)
{
	store_clear();
	write_done(control);
}

static void
run_get_settings(Control *control)
{
	settings_to_json(control->out);
}

static void
run_settings(Control *control)
{
	if (control->body == NULL)
		buf_str(&control->why, "a JSON object is wanted");
	else
		settings_merge(control->body, &control->why);
	settings_to_json(control->out);
}

void
control_reset(void)
{
	/* what still waits belongs to the past: it ends without being applied */
	timer_abort_all();
	flow_epoch++;
	store_clear();
	store_reset_counters();
	script_clear();
	record_reset();
	answer_reset_counters();
	settings_reset();
}

static void
run_reset(Control *control)
{
	control_reset();
	if (control->body != NULL)
		settings_merge(control->body, &control->why);
	settings_to_json(control->out);
}

static void
run_get_script(Control *control)
{
	script_write(control->out);
}

static void
run_add_script(Control *control)
{
	if (control->body == NULL)
		buf_str(&control->why, "a step or an array of steps is wanted");
	else
		script_add(control->body, control->tls, &control->why);
	write_done(control);
}

static void
run_clear_script(Control *control)
{
	script_clear();
	write_done(control);
}

static void
run_release(Control *control)
{
	buf_printf(control->out, "{\"released\":%d}", timer_release_held());
}

/*
 * Seeding
 */
static void
write_seed_head(Buf *b, const char *id, const char *name, const char *provider, const char *domain)
{
	buf_str(b, "{\"object\":\"enterprise_connection\",\"id\":");
	buf_json_cstring(b, id);
	buf_str(b, ",\"name\":");
	buf_json_cstring(b, name);
	buf_str(b, ",\"provider\":");
	buf_json_cstring(b, provider);
	buf_str(b, ",\"logo_public_url\":null,\"active\":false,\"domains\":[");
	buf_json_cstring(b, domain);
	buf_str(b, "],\"sync_user_attributes\":true,\"disable_additional_identifications\":true,"
			"\"allow_organization_account_linking\":false,\"authenticatable\":true,"
			"\"disable_jit_provisioning\":false,\"custom_attributes\":[],");
}

static void
write_seed_saml(Buf *b, const char *name, const char *domain)
{
	char		id[ID_SIZE];

	store_next_saml_id(id);
	buf_printf(b, "\"saml_connection\":{\"id\":\"%s\",\"name\":", id);
	buf_json_cstring(b, name);
	buf_printf(b, ",\"idp_entity_id\":\"https://idp.%s\",\"idp_sso_url\":\"https://idp.%s/sso\","
			   "\"idp_certificate\":null,\"idp_metadata_url\":\"https://idp.%s/metadata\",", domain, domain, domain);
	buf_printf(b, "\"acs_url\":\"https://clerk.app.example/v1/saml/acs/%s\","
			   "\"sp_entity_id\":\"https://clerk.app.example/saml/%s\","
			   "\"sp_metadata_url\":\"https://clerk.app.example/v1/saml/metadata/%s\",", id, id, id);
	buf_str(b, "\"active\":false,\"allow_idp_initiated\":false,\"allow_subdomains\":false,"
			"\"force_authn\":false,\"login_hint\":{\"mode\":\"email_address\"}},\"oauth_config\":null");
}

static void
write_seed_oauth(Buf *b, const char *name, const char *provider, const char *domain, int64_t now)
{
	char		id[ID_SIZE];

	store_next_oauth_id(id);
	buf_printf(b, "\"saml_connection\":null,\"oauth_config\":{\"id\":\"%s\",\"name\":", id);
	buf_json_cstring(b, name);
	buf_printf(b, ",\"provider_key\":\"%s\",\"client_id\":\"client-%s\","
			   "\"discovery_url\":\"https://idp.%s/.well-known/openid-configuration\",", provider, id, domain);
	buf_printf(b, "\"auth_url\":null,\"token_url\":null,\"user_info_url\":null,\"requires_pkce\":true,"
			   "\"logo_public_url\":null,\"created_at\":%lld,\"updated_at\":%lld}", (long long) now, (long long) now);
}

static void
seed_one(long i, const char *prefix, const char *provider)
{
	char		id[ID_SIZE];
	char		name[DOMAIN_NAME_SIZE];
	char		domain[DOMAIN_NAME_SIZE];
	int64_t		now = api_write_time();
	Conn	   *conn;
	Buf			b = {0};

	store_next_id(id);
	snprintf(name, sizeof(name), "%.150s %ld", prefix, i);
	snprintf(domain, sizeof(domain), "%.150s-%ld.example", prefix, i);
	buf_need(&b, 2048);
	write_seed_head(&b, id, name, provider, domain);
	if (strncmp(provider, "saml_", 5) == 0)
		write_seed_saml(&b, name, domain);
	else
		write_seed_oauth(&b, name, provider, domain, now);
	buf_printf(&b, ",\"created_at\":%lld,\"updated_at\":%lld}", (long long) now, (long long) now);
	conn = store_put_text(id, xmemdup(b.data, b.len), b.len, domain, now);
	conn->has_client_secret = true;
	buf_free(&b);
}

static const char *
string_or(struct json_object *json, const char *name, const char *otherwise)
{
	struct json_object *value;

	if (!json_object_object_get_ex(json, name, &value))
		return otherwise;
	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

static void
seed_many(Control *control, struct json_object *count)
{
	const char *prefix = string_or(control->body, "prefix", "acme");
	const char *provider = string_or(control->body, "provider", "saml_custom");
	long		n = (long) json_object_get_int64(count);

	if (!json_object_is_type(count, json_type_int) || n < 0 || n > SEED_MAX)
		buf_str(&control->why, "wrong value for count");
	else if (prefix == NULL || strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(prefix))
		buf_str(&control->why, "prefix must be of lower-case letters, digits and -");
	else if (provider == NULL || strspn(provider, "abcdefghijklmnopqrstuvwxyz_") != strlen(provider))
		buf_str(&control->why, "wrong value for provider");
	else
		for (long i = 1; i <= n; i++)
			seed_one(i, prefix, provider);
}

static void
seed_raw(Control *control, struct json_object *list)
{
	struct json_object *id;

	if (!json_object_is_type(list, json_type_array))
	{
		buf_str(&control->why, "connections must be an array");
		return;
	}
	for (size_t i = 0; i < json_object_array_length(list); i++)
	{
		struct json_object *object = json_object_array_get_idx(list, i);

		if (!json_object_is_type(object, json_type_object) ||
			!json_object_object_get_ex(object, "id", &id) || !json_object_is_type(id, json_type_string))
		{
			buf_str(&control->why, "each connection must be an object with an id");
			return;
		}
		store_put(object);
	}
}

static void
seed_runs(Control *control, struct json_object *groups)
{
	if (!json_object_is_type(groups, json_type_object))
	{
		buf_str(&control->why, "test_runs must be an object of arrays, by connection id");
		return;
	}
	json_object_object_foreach(groups, id, list)
	{
		Conn	   *conn = store_find(id, strlen(id));

		if (conn == NULL || !json_object_is_type(list, json_type_array))
		{
			buf_printf(&control->why, "no such connection, or no array: %s", id);
			return;
		}
		for (size_t i = 0; i < json_object_array_length(list); i++)
			store_add_run(conn, json_object_array_get_idx(list, i));
	}
}

static void
run_seed(Control *control)
{
	size_t		before = store_count();
	struct json_object *value;

	if (!json_object_is_type(control->body, json_type_object))
	{
		buf_str(&control->why, "a JSON object is wanted");
		return;
	}
	if (json_object_object_get_ex(control->body, "count", &value))
		seed_many(control, value);
	if (json_object_object_get_ex(control->body, "connections", &value))
		seed_raw(control, value);
	if (json_object_object_get_ex(control->body, "test_runs", &value))
		seed_runs(control, value);
	buf_printf(control->out, "{\"seeded\":%zu,\"total\":%zu}", store_count() - before, store_count());
}

static const ControlEndpoint endpoints[] = {
	{"GET", "requests", run_requests},
	{"DELETE", "requests", run_clear_requests},
	{"GET", "stats", run_stats},
	{"GET", "connections", run_connections},
	{"DELETE", "connections", run_clear_connections},
	{"POST", "seed", run_seed},
	{"POST", "reset", run_reset},
	{"GET", "settings", run_get_settings},
	{"POST", "settings", run_settings},
	{"GET", "script", run_get_script},
	{"POST", "script", run_add_script},
	{"DELETE", "script", run_clear_script},
	{"POST", "release", run_release},
	{NULL, NULL, NULL}
};

static const ControlEndpoint *
find_endpoint(const char *method, const char *name, size_t len)
{
	for (const ControlEndpoint *e = endpoints; e->run != NULL; e++)
		if (strcmp(e->method, method) == 0 && strlen(e->name) == len && memcmp(e->name, name, len) == 0)
			return e;
	return NULL;
}

void
control_handle(const char *method, const char *target, const char *body,
			   size_t body_len, bool tls, Answer *answer)
{
	const char *name = target + strlen(CONTROL_PREFIX);
	size_t		len = strcspn(name, "?");
	const ControlEndpoint *endpoint = find_endpoint(method, name, len);
	Control		control = {.tls = tls,.out = &answer->body};

	if (name[len] == '?')
		control.query = name + len + 1;
	answer->status = 200;
	if (endpoint == NULL)
		buf_printf(&control.why, "no such control endpoint: %s %.*s", method, (int) len, name);
	else if (body_len > 0 && !json_parse(body, body_len, &control.body))
		buf_str(&control.why, "the body is no JSON");
	else
		endpoint->run(&control);
	if (control.why.len > 0)
	{
		answer->status = 400;
		answer->body.len = 0;
		buf_str(&answer->body, "{\"error\":");
		buf_json_cstring(&answer->body, control.why.data);
		buf_char(&answer->body, '}');
	}
	buf_char(&answer->body, '\n');
	buf_free(&control.why);
	json_object_put(control.body);
}
