/*-------------------------------------------------------------------------
 *
 * object.c
 *		Making and changing the object that describes a connection.
 *
 * Secrets (client_secret, idp_metadata) and attribute_mapping are never part
 * of the object: Clerk does not send them back.
 *
 *-------------------------------------------------------------------------
 */
#include "object.h"

#include <string.h>


#include "store.h"
#include "validate.h"

/* The validity that every certificate is said to have: the year 2026. */
#define CERTIFICATE_ISSUED_AT	1767225600000
#define CERTIFICATE_EXPIRES_AT	1798761600000

#define SP_URL	"https://clerk.app.example"

static const char *const saml_texts[] = {
	"idp_entity_id", "idp_sso_url", "idp_certificate", "idp_metadata_url", NULL
};

static const char *const saml_flags[] = {
	"allow_idp_initiated", "allow_subdomains", "force_authn", NULL
};

static const char *const oidc_texts[] = {
	"client_id", "discovery_url", "auth_url", "token_url", "user_info_url", NULL
};

typedef struct FlagDefault
{
	const char *name;
	bool		value;
} FlagDefault;

static const FlagDefault flag_defaults[] = {
	{"sync_user_attributes", true},
	{"disable_additional_identifications", true},
	{"allow_organization_account_linking", false},
	{"authenticatable", true},
	{"disable_jit_provisioning", false},
	{NULL, false}
};

static void
set(struct json_object *object, const char *name, struct json_object *value)
{
	json_object_object_add(object, name, value);
}

static void
set_text(struct json_object *object, const char *name, const char *text)
{
	set(object, name, json_object_new_string(text));
}

static void
set_bool(struct json_object *object, const char *name, bool value)
{
	set(object, name, json_object_new_boolean(value));
}

static void
set_time(struct json_object *object, const char *name, int64_t at)
{
	set(object, name, json_object_new_int64(at));
}

static struct json_object *
get(struct json_object *object, const char *name)
{
	return object ? json_object_object_get(object, name) : NULL;
}

/* Copy a member unless it is absent or null. */
static bool
take(struct json_object *object, struct json_object *from, const char *name)
{
	struct json_object *value = get(from, name);

	if (value == NULL)
		return false;
	set(object, name, json_object_get(value));
	return true;
}

/* Copy a member that is there; a null clears. */
static void
take_or_clear(struct json_object *object, struct json_object *from, const char *name)
{
	struct json_object *value;

	if (from != NULL && json_object_object_get_ex(from, name, &value))
		set(object, name, json_object_get(value));
}

static struct json_object *
lower_domains(struct json_object *domains)
{
	struct json_object *list = json_object_new_array();
	size_t		n = domains ? json_object_array_length(domains) : 0;

	for (size_t i = 0; i < n; i++)
	{
		g_autofree char *lower = g_ascii_strdown(json_object_get_string(json_object_array_get_idx(domains, i)), -1);

		json_object_array_add(list, json_object_new_string(lower));
	}
	return list;
}

static struct json_object *
custom_attribute(struct json_object *given)
{
	struct json_object *a = json_object_new_object();
	struct json_object *path = get(given, "directory_path");

	if (path == NULL)
		path = get(given, "scim_path");
	take(a, given, "name");
	take(a, given, "key");
	if (!take(a, given, "sso_path"))
		set_text(a, "sso_path", "");
	/* the old and the new name of one thing */
	set(a, "scim_path", path ? json_object_get(path) : json_object_new_string(""));
	set(a, "directory_path", path ? json_object_get(path) : json_object_new_string(""));
	if (!take(a, given, "multi_valued"))
		set_bool(a, "multi_valued", false);
	return a;
}

static struct json_object *
custom_attributes(struct json_object *given)
{
	struct json_object *list = json_object_new_array();
	size_t		n = given ? json_object_array_length(given) : 0;

	for (size_t i = 0; i < n; i++)
		json_object_array_add(list, custom_attribute(json_object_array_get_idx(given, i)));
	return list;
}

static void
update_certificate(struct json_object *saml, struct json_object *given)
{
	struct json_object *list = get(given, "idp_certificates");

	if (list != NULL)
	{
		set(saml, "idp_certificates", json_object_get(list));
		set(saml, "idp_certificate", json_object_get(json_object_array_get_idx(list, 0)));
	}
	if (get(saml, "idp_certificate") == NULL)
		return;
	set_time(saml, "idp_certificate_issued_at", CERTIFICATE_ISSUED_AT);
	set_time(saml, "idp_certificate_expires_at", CERTIFICATE_EXPIRES_AT);
}

static void
update_saml(struct json_object *saml, struct json_object *given)
{
	for (int i = 0; saml_texts[i] != NULL; i++)
		take_or_clear(saml, given, saml_texts[i]);
	for (int i = 0; saml_flags[i] != NULL; i++)
		take(saml, given, saml_flags[i]);
	take(saml, given, "name");
	take(saml, given, "login_hint");
	update_certificate(saml, given);
}

static struct json_object *
create_saml(struct json_object *given, struct json_object *name)
{
	struct json_object *saml = json_object_new_object();
	struct json_object *hint;
	char		id[ID_SIZE];
	char		url[128];

	store_next_saml_id(id);
	set_text(saml, "id", id);
	set(saml, "name", json_object_get(name));
	for (int i = 0; saml_texts[i] != NULL; i++)
		set(saml, saml_texts[i], NULL);
	g_snprintf(url, sizeof(url), SP_URL "/v1/saml/acs/%s", id);
	set_text(saml, "acs_url", url);
	g_snprintf(url, sizeof(url), SP_URL "/saml/%s", id);
	set_text(saml, "sp_entity_id", url);
	g_snprintf(url, sizeof(url), SP_URL "/v1/saml/metadata/%s", id);
	set_text(saml, "sp_metadata_url", url);
	set_bool(saml, "active", false);
	for (int i = 0; saml_flags[i] != NULL; i++)
		set_bool(saml, saml_flags[i], false);
	hint = json_object_new_object();
	set_text(hint, "mode", "email_address");
	set(saml, "login_hint", hint);
	update_saml(saml, given);
	return saml;
}

static void
update_oauth(struct json_object *oauth, struct json_object *given, int64_t now)
{
	for (int i = 0; oidc_texts[i] != NULL; i++)
		take_or_clear(oauth, given, oidc_texts[i]);
	take(oauth, given, "requires_pkce");
	set_time(oauth, "updated_at", now);
}

static struct json_object *
create_oauth(struct json_object *given, struct json_object *name, const char *provider, int64_t now)
{
	struct json_object *oauth = json_object_new_object();
	struct json_object *secret = get(given, "client_secret");
	char		id[ID_SIZE];

	store_next_oauth_id(id);
	set_text(oauth, "id", id);
	set(oauth, "name", json_object_get(name));
	set_text(oauth, "provider_key", provider);
	for (int i = 0; oidc_texts[i] != NULL; i++)
		set(oauth, oidc_texts[i], NULL);
	/* without a secret, PKCE is all that protects the code */
	set_bool(oauth, "requires_pkce", given != NULL && json_object_get_string_len(secret) == 0);
	set(oauth, "logo_public_url", NULL);
	set_time(oauth, "created_at", now);
	update_oauth(oauth, given, now);
	return oauth;
}

static void
set_provider_parts(struct json_object *object, struct json_object *body, const char *provider, int64_t now)
{
	struct json_object *name = get(object, "name");
	bool		saml = strncmp(provider, "saml_", 5) == 0;

	set(object, "saml_connection", saml ? create_saml(get(body, "saml"), name) : NULL);
	set(object, "oauth_config", saml ? NULL : create_oauth(get(body, "oidc"), name, provider, now));
	if (saml)
		set_bool(get(object, "saml_connection"), "active", json_object_get_boolean(get(object, "active")));
}

struct json_object *
object_create(struct json_object *body, int64_t now)
{
	struct json_object *object = json_object_new_object();
	const char *provider = validate_provider(body);
	char		id[ID_SIZE];

	store_next_id(id);
	set_text(object, "object", "enterprise_connection");
	set_text(object, "id", id);
	/* only the lenient profile gets here without a name */
	if (!take(object, body, "name"))
		set_text(object, "name", "");
	set_text(object, "provider", provider);
	set(object, "logo_public_url", NULL);
	if (!take(object, body, "active"))
		set_bool(object, "active", false);
	set(object, "domains", lower_domains(get(body, "domains")));
	take(object, body, "organization_id");
	for (int i = 0; flag_defaults[i].name != NULL; i++)
		if (!take(object, body, flag_defaults[i].name))
			set_bool(object, flag_defaults[i].name, flag_defaults[i].value);
	set(object, "custom_attributes", custom_attributes(get(body, "custom_attributes")));
	set_provider_parts(object, body, provider, now);
	set_time(object, "created_at", now);
	set_time(object, "updated_at", now);
	return object;
}

void
object_update(struct json_object *object, struct json_object *body, int64_t now)
{
	struct json_object *domains = get(body, "domains");
	struct json_object *saml = get(object, "saml_connection");
	struct json_object *oauth = get(object, "oauth_config");

	if (take(object, body, "name") && oauth != NULL)
		take(oauth, body, "name");
	take(object, body, "active");
	/* linking an organization only goes one way, and so does setting domains */
	take(object, body, "organization_id");
	if (domains != NULL && json_object_array_length(domains) > 0)
		set(object, "domains", lower_domains(domains));
	for (int i = 0; flag_defaults[i].name != NULL; i++)
		take(object, body, flag_defaults[i].name);
	if (get(body, "custom_attributes") != NULL)
		set(object, "custom_attributes", custom_attributes(get(body, "custom_attributes")));
	if (saml != NULL)
	{
		if (get(body, "saml") != NULL)
			update_saml(saml, get(body, "saml"));
		take(saml, body, "active");
	}
	if (oauth != NULL && get(body, "oidc") != NULL)
		update_oauth(oauth, get(body, "oidc"), now);
	set_time(object, "updated_at", now);
}

struct json_object *
object_test_run(struct json_object *connection, int64_t now)
{
	struct json_object *run = json_object_new_object();
	char		id[ID_SIZE];

	store_next_run_id(id);
	set_text(run, "id", id);
	set_text(run, "status", "pending");
	set_text(run, "connection_type", get(connection, "oauth_config") != NULL ? "oauth" : "saml");
	set(run, "parsed_user_info", NULL);
	set(run, "logs", json_object_new_array());
	set_time(run, "created_at", now);
	return run;
}
