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

#include <string.h>

#include "api.h"
#include "flow.h"
#include "record.h"
#include "script.h"
#include "settings.h"
#include "store.h"
#include "timer.h"
#include "validate.h"

/* Beyond this, a count is a slip of the finger. */
#define SEED_MAX			1000000

typedef struct Control
{
	const char *query;
	struct json_object *body;	/* NULL: none */
	bool		tls;
	GString    *out;
	GString    *why;			/* not empty: refused */
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
	g_string_append(control->out, "{\"ok\":true}");
}

static void
run_requests(Control *control)
{
	g_autoptr(GHashTable) query = NULL;
	g_autoptr(GError) error = NULL;
	const char *since;
	const char *method;

	query = g_uri_parse_params(control->query ? control->query : "", -1, "&", G_URI_PARAMS_WWW_FORM, &error);
	if (query == NULL)
	{
		g_string_assign(control->why, error->message);
		return;
	}
	since = g_hash_table_lookup(query, "since");
	method = g_hash_table_lookup(query, "method");
	if (g_hash_table_size(query) > (guint) (since != NULL) + (method != NULL))
		g_string_assign(control->why, "since and method are all that is known here");
	record_list(control->out, since ? g_ascii_strtoull(since, NULL, 10) : 0, method);
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
	g_string_append_c(control->out, '[');
	for (guint i = 0; i < store_count(); i++)
	{
		if (i > 0)
			g_string_append_c(control->out, ',');
		g_string_append_len(control->out, store_at(i)->text, (gssize) store_at(i)->text_len);
	}
	g_string_append_c(control->out, ']');
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
		g_string_assign(control->why, "a JSON object is wanted");
	else
		settings_merge(control->body, control->why);
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
		settings_merge(control->body, control->why);
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
		g_string_assign(control->why, "a step or an array of steps is wanted");
	else
		script_add(control->body, control->tls, control->why);
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
	g_string_append_printf(control->out, "{\"released\":%d}", timer_release_held());
}

/*
 * Seeding
 */
static void
write_seed_head(GString *b, const char *id, const char *name, const char *provider, const char *domain)
{
	g_string_append(b, "{\"object\":\"enterprise_connection\",\"id\":");
	json_append_text(b, id);
	g_string_append(b, ",\"name\":");
	json_append_text(b, name);
	g_string_append(b, ",\"provider\":");
	json_append_text(b, provider);
	g_string_append(b, ",\"logo_public_url\":null,\"active\":false,\"domains\":[");
	json_append_text(b, domain);
	g_string_append(b, "],\"sync_user_attributes\":true,\"disable_additional_identifications\":true,"
					"\"allow_organization_account_linking\":false,\"authenticatable\":true,"
					"\"disable_jit_provisioning\":false,\"custom_attributes\":[],");
}

static void
write_seed_saml(GString *b, const char *name, const char *domain)
{
	char		id[ID_SIZE];

	store_next_saml_id(id);
	g_string_append_printf(b, "\"saml_connection\":{\"id\":\"%s\",\"name\":", id);
	json_append_text(b, name);
	g_string_append_printf(b, ",\"idp_entity_id\":\"https://idp.%s\",\"idp_sso_url\":\"https://idp.%s/sso\","
						   "\"idp_certificate\":null,\"idp_metadata_url\":\"https://idp.%s/metadata\",", domain, domain, domain);
	g_string_append_printf(b, "\"acs_url\":\"https://clerk.app.example/v1/saml/acs/%s\","
						   "\"sp_entity_id\":\"https://clerk.app.example/saml/%s\","
						   "\"sp_metadata_url\":\"https://clerk.app.example/v1/saml/metadata/%s\",", id, id, id);
	g_string_append(b, "\"active\":false,\"allow_idp_initiated\":false,\"allow_subdomains\":false,"
					"\"force_authn\":false,\"login_hint\":{\"mode\":\"email_address\"}},\"oauth_config\":null");
}

static void
write_seed_oauth(GString *b, const char *name, const char *provider, const char *domain, gint64 now)
{
	char		id[ID_SIZE];

	store_next_oauth_id(id);
	g_string_append_printf(b, "\"saml_connection\":null,\"oauth_config\":{\"id\":\"%s\",\"name\":", id);
	json_append_text(b, name);
	g_string_append_printf(b, ",\"provider_key\":\"%s\",\"client_id\":\"client-%s\","
						   "\"discovery_url\":\"https://idp.%s/.well-known/openid-configuration\",", provider, id, domain);
	g_string_append_printf(b, "\"auth_url\":null,\"token_url\":null,\"user_info_url\":null,\"requires_pkce\":true,"
						   "\"logo_public_url\":null,\"created_at\":%lld,\"updated_at\":%lld}", (long long) now, (long long) now);
}

static void
seed_one(long i, const char *prefix, const char *provider)
{
	char		id[ID_SIZE];
	g_autofree char *name = g_strdup_printf("%s %ld", prefix, i);
	g_autofree char *domain = g_strdup_printf("%s-%ld.example", prefix, i);
	gint64		now = api_write_time();
	g_autoptr(GString) b = g_string_sized_new(2048);

	store_next_id(id);
	write_seed_head(b, id, name, provider, domain);
	if (g_str_has_prefix(provider, "saml_"))
		write_seed_saml(b, name, domain);
	else
		write_seed_oauth(b, name, provider, domain, now);
	g_string_append_printf(b, ",\"created_at\":%lld,\"updated_at\":%lld}", (long long) now, (long long) now);
	store_put_text(id, b, domain, now)->has_client_secret = true;
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
		g_string_assign(control->why, "wrong value for count");
	else if (prefix == NULL || strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(prefix))
		g_string_assign(control->why, "prefix must be of lower-case letters, digits and -");
	else if (provider == NULL || strspn(provider, "abcdefghijklmnopqrstuvwxyz_") != strlen(provider))
		g_string_assign(control->why, "wrong value for provider");
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
		g_string_assign(control->why, "connections must be an array");
		return;
	}
	for (size_t i = 0; i < json_object_array_length(list); i++)
	{
		struct json_object *object = json_object_array_get_idx(list, i);

		if (!json_object_is_type(object, json_type_object) ||
			!json_object_object_get_ex(object, "id", &id) || !json_object_is_type(id, json_type_string))
		{
			g_string_assign(control->why, "each connection must be an object with an id");
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
		g_string_assign(control->why, "test_runs must be an object of arrays, by connection id");
		return;
	}
	json_object_object_foreach(groups, id, list)
	{
		Conn	   *conn = store_find(id);

		if (conn == NULL || !json_object_is_type(list, json_type_array))
		{
			g_string_append_printf(control->why, "no such connection, or no array: %s", id);
			return;
		}
		for (size_t i = 0; i < json_object_array_length(list); i++)
			store_add_run(conn, json_object_array_get_idx(list, i));
	}
}

static void
run_seed(Control *control)
{
	guint		before = store_count();
	struct json_object *value;

	if (!json_object_is_type(control->body, json_type_object))
	{
		g_string_assign(control->why, "a JSON object is wanted");
		return;
	}
	if (json_object_object_get_ex(control->body, "count", &value))
		seed_many(control, value);
	if (json_object_object_get_ex(control->body, "connections", &value))
		seed_raw(control, value);
	if (json_object_object_get_ex(control->body, "test_runs", &value))
		seed_runs(control, value);
	g_string_append_printf(control->out, "{\"seeded\":%u,\"total\":%u}", store_count() - before, store_count());
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
control_handle(const char *method, const char *target, const GString *body, bool tls, Answer *answer)
{
	const char *name = target + strlen(CONTROL_PREFIX);
	size_t		len = strcspn(name, "?");
	const ControlEndpoint *endpoint = find_endpoint(method, name, len);
	g_autoptr(GString) why = g_string_new(NULL);
	Control		control = {.tls = tls,.out = answer->body,.why = why};

	if (name[len] == '?')
		control.query = name + len + 1;
	answer->status = 200;
	if (endpoint == NULL)
		g_string_append_printf(control.why, "no such control endpoint: %s %.*s", method, (int) len, name);
	else if (body->len > 0 && !json_parse(body->str, body->len, &control.body))
		g_string_append(control.why, "the body is no JSON");
	else
		endpoint->run(&control);
	if (why->len > 0)
	{
		answer->status = 400;
		g_string_assign(answer->body, "{\"error\":");
		json_append_text(answer->body, why->str);
		g_string_append_c(answer->body, '}');
	}
	g_string_append_c(answer->body, '\n');
	json_object_put(control.body);
}
