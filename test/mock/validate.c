/*-------------------------------------------------------------------------
 *
 * validate.c
 *		Validation of request bodies, driven by one table of parameters.
 *
 * The tables say of each parameter what type it has, on which operations it
 * is taken and on which of them it may be null.  What a table cannot say
 * (parameters that depend on one another or on the store) follows below.
 *
 *-------------------------------------------------------------------------
 */
#include "validate.h"

#include <string.h>

#include "settings.h"

#define C	OP_CREATE
#define U	OP_UPDATE
#define CU	(OP_CREATE | OP_UPDATE)

/* RFC 1035: a name has at most 253 characters, a label 63. */
#define DOMAIN_MAX	253
#define LABEL_MAX	63

typedef enum ParamType
{
	P_TEXT,
	P_BOOL,
	P_TEXTS,
	P_OBJECT,
	P_OBJECTS
} ParamType;

typedef struct Param
{
	const char *name;
	ParamType	type;
	unsigned	on;				/* operations that take it */
	unsigned	nullable;		/* operations on which null is taken */
	unsigned	required;		/* operations that want it */
	const struct Param *members;
	const char *const *choices;
	bool		not_empty;
} Param;

/* What goes along through one validation. */
typedef struct Check
{
	Operation	op;
	GString    *faults;
	GString    *path;
} Check;

static const char *const type_names[] = {
	"a string", "a boolean", "an array of strings", "an object", "an array of objects"
};

static const char *const providers[] = {
	"saml_custom", "saml_okta", "saml_google", "saml_microsoft",
	"oidc_custom", "oidc_github_enterprise", "oidc_gitlab", NULL
};

static const char *const login_hint_modes[] = {"email_address", "custom_attribute", "off", NULL};

static const Param custom_attribute_params[] = {
	{"name", P_TEXT, CU, 0, CU, NULL, NULL, true},
	{"key", P_TEXT, CU, 0, CU, NULL, NULL, true},
	{"sso_path", P_TEXT, CU, 0, 0, NULL, NULL, false},
	{"scim_path", P_TEXT, CU, 0, 0, NULL, NULL, false},
	{"directory_path", P_TEXT, CU, 0, 0, NULL, NULL, false},
	{"multi_valued", P_BOOL, CU, 0, 0, NULL, NULL, false},
	{0}
};

static const Param attribute_mapping_params[] = {
	{"user_id", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"email_address", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"first_name", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"last_name", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{0}
};

static const Param login_hint_params[] = {
	{"mode", P_TEXT, CU, 0, CU, NULL, login_hint_modes, false},
	{"source", P_TEXT, CU, 0, 0, NULL, NULL, false},
	{0}
};

static const Param saml_params[] = {
	{"name", P_TEXT, U, U, 0, NULL, NULL, false},
	{"idp_entity_id", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"idp_sso_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"idp_certificate", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"idp_certificates", P_TEXTS, CU, CU, 0, NULL, NULL, false},
	{"idp_metadata_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"idp_metadata", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"attribute_mapping", P_OBJECT, CU, CU, 0, attribute_mapping_params, NULL, false},
	{"allow_subdomains", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"allow_idp_initiated", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"force_authn", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"login_hint", P_OBJECT, CU, CU, 0, login_hint_params, NULL, false},
	{0}
};

static const Param oidc_params[] = {
	{"client_id", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"client_secret", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"discovery_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"auth_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"token_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"user_info_url", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"requires_pkce", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{0}
};

static const Param body_params[] = {
	{"name", P_TEXT, CU, U, C, NULL, NULL, false},
	{"provider", P_TEXT, C, 0, C, NULL, providers, false},
	{"domains", P_TEXTS, CU, U, C, NULL, NULL, false},
	{"organization_id", P_TEXT, CU, CU, 0, NULL, NULL, false},
	{"active", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"sync_user_attributes", P_BOOL, U, U, 0, NULL, NULL, false},
	{"disable_additional_identifications", P_BOOL, U, U, 0, NULL, NULL, false},
	{"allow_organization_account_linking", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"authenticatable", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"disable_jit_provisioning", P_BOOL, CU, CU, 0, NULL, NULL, false},
	{"custom_attributes", P_OBJECTS, CU, U, 0, custom_attribute_params, NULL, false},
	{"oidc", P_OBJECT, CU, CU, 0, oidc_params, NULL, false},
	{"saml", P_OBJECT, CU, CU, 0, saml_params, NULL, false},
	{0}
};

static void check_members(Check *check, const Param *params, struct json_object *object);

/*
 * Small readers.  An absent member and a null both read as NULL.
 */
static struct json_object *
member(struct json_object *object, const char *name)
{
	if (!json_object_is_type(object, json_type_object))
		return NULL;
	return json_object_object_get(object, name);
}

static bool
bool_is(struct json_object *object, const char *name, bool wanted)
{
	struct json_object *value = member(object, name);

	return json_object_is_type(value, json_type_boolean) &&
		json_object_get_boolean(value) == wanted;
}

/* Append ".name" to the path; the length before it is what pop_path wants. */
static size_t
push_path(Check *check, const char *name)
{
	size_t		before = check->path->len;

	if (before > 0)
		g_string_append_c(check->path, '.');
	g_string_append(check->path, name);
	return before;
}

static void
pop_path(Check *check, size_t before)
{
	g_string_truncate(check->path, before);
}

static bool
is_taken(const Check *check, const Param *p)
{
	if (p->on & check->op)
		return true;
	/* the first published form took on create what today only an update takes */
	return settings.lenient && check->op == OP_CREATE;
}

static void
check_choice(Check *check, const Param *p, struct json_object *value)
{
	const char *path = check->path->str;
	const char *text = json_object_get_string(value);
	g_autofree char *list = NULL;

	if (p->not_empty && *text == '\0')
		fault_add(check->faults, "form_param_format_invalid", path, "%s must not be empty.", path);
	if (p->choices == NULL)
		return;
	if (g_strv_contains(p->choices, text))
		return;
	list = g_strjoinv(", ", (char **) p->choices);
	fault_add(check->faults, "form_param_value_invalid", path, "%s must be one of: %s.", path, list);
}

static bool
has_type(const Param *p, struct json_object *value)
{
	json_type	item;

	switch (p->type)
	{
		case P_TEXT:
			return json_object_is_type(value, json_type_string);
		case P_BOOL:
			return json_object_is_type(value, json_type_boolean);
		case P_OBJECT:
			return json_object_is_type(value, json_type_object);
		default:
			break;
	}
	if (!json_object_is_type(value, json_type_array))
		return false;
	item = p->type == P_TEXTS ? json_type_string : json_type_object;
	for (size_t i = 0; i < json_object_array_length(value); i++)
		if (!json_object_is_type(json_object_array_get_idx(value, i), item))
			return false;
	return true;
}

static void
check_items(Check *check, const Param *p, struct json_object *array)
{
	for (size_t i = 0; i < json_object_array_length(array); i++)
	{
		char		number[24];
		size_t		before;

		g_snprintf(number, sizeof(number), "%zu", i);
		before = push_path(check, number);
		check_members(check, p->members, json_object_array_get_idx(array, i));
		pop_path(check, before);
	}
}

static void
check_value(Check *check, const Param *p, struct json_object *value)
{
	const char *path = check->path->str;

	if (value == NULL)
	{
		bool		top = strchr(path, '.') == NULL;

		if (!(p->nullable & check->op) && !(settings.lenient && top))
			fault_add(check->faults, "form_param_nil", path, "%s must not be null.", path);
		return;
	}
	if (!has_type(p, value))
	{
		fault_add(check->faults, "form_param_format_invalid", path, "%s must be %s.", path, type_names[p->type]);
		return;
	}
	if (p->type == P_TEXT)
		check_choice(check, p, value);
	else if (p->type == P_OBJECT)
		check_members(check, p->members, value);
	else if (p->type == P_OBJECTS)
		check_items(check, p, value);
}

static void
check_members(Check *check, const Param *params, struct json_object *object)
{
	bool		top = check->path->len == 0;

	json_object_object_foreach(object, name, value)
	{
		const Param *p = params;
		size_t		before = push_path(check, name);

		while (p->name != NULL && strcmp(p->name, name) != 0)
			p++;
		if (p->name == NULL || !is_taken(check, p))
			fault_add(check->faults, "form_param_unknown", check->path->str,
					  "%.200s is not a valid parameter for this request.", check->path->str);
		else
			check_value(check, p, value);
		pop_path(check, before);
	}
	for (const Param *p = params; p->name != NULL; p++)
	{
		size_t		before;

		if (!(p->required & check->op) || (settings.lenient && top) ||
			json_object_object_get_ex(object, p->name, NULL))
			continue;
		before = push_path(check, p->name);
		fault_add(check->faults, "form_param_missing", check->path->str,
				  "%s must be included.", check->path->str);
		pop_path(check, before);
	}
}

/*
 * Beyond the tables: domains
 */
static bool
is_label(const char *s, size_t len)
{
	if (len == 0 || len > LABEL_MAX || s[0] == '-' || s[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!g_ascii_isalnum(s[i]) && s[i] != '-')
			return false;
	return true;
}

/* At least two labels, and the last one is not a number (that is an address). */
static bool
is_fqdn(const char *s)
{
	int			labels = 0;
	size_t		len;

	if (strlen(s) > DOMAIN_MAX)
		return false;
	for (;; s += len + 1)
	{
		len = strcspn(s, ".");
		if (!is_label(s, len))
			return false;
		labels++;
		if (s[len] == '\0')
			break;
	}
	return labels >= 2 && strspn(s, "0123456789") != len;
}

static void
check_domain(Check *check, struct json_object *domains, size_t i, const Conn *conn)
{
	struct json_object *item = json_object_array_get_idx(domains, i);
	const char *domain = json_object_get_string(item);
	g_autofree char *name = g_ascii_strdown(domain, -1);
	Conn	   *owner;

	if (strlen(name) != (size_t) json_object_get_string_len(item) || !is_fqdn(name))
		fault_add(check->faults, "form_param_format_invalid", "domains",
				  "\"%.200s\" is not a fully qualified domain name.", domain);
	for (size_t k = 0; k < i; k++)
		if (g_ascii_strcasecmp(json_object_get_string(json_object_array_get_idx(domains, k)), name) == 0)
		{
			fault_add(check->faults, "form_param_duplicate", "domains",
					  "\"%.200s\" is given more than once.", name);
			break;
		}
	owner = store_domain_owner(name);
	if (owner != NULL && owner != conn)
		fault_add(check->faults, "organization_domain_exists_for_enterprise_connection", "domains",
				  "The domain \"%.200s\" is already used by another enterprise connection.", name);
}

static void
check_domains(Check *check, struct json_object *body, const Conn *conn)
{
	static const Param domains_param = {.type = P_TEXTS};
	struct json_object *domains = member(body, "domains");

	if (domains == NULL || !has_type(&domains_param, domains))
		return;
	if (json_object_array_length(domains) == 0 && check->op == OP_CREATE && !settings.lenient)
		fault_add(check->faults, "form_param_missing", "domains",
				  "domains must have at least one member.");
	for (size_t i = 0; i < json_object_array_length(domains); i++)
		check_domain(check, domains, i, conn);
}

/*
 * Beyond the tables: custom attributes and login hint
 */
static bool
is_attribute_key(const char *key)
{
	static const char allowed[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
	size_t		first = 1;

	if (*key == '\0' || *key == '_')
		return false;
	/* the first may be any character, so step over all of its bytes */
	while (((unsigned char) key[first] & 0xC0) == 0x80)
		first++;
	return key[first + strspn(key + first, allowed)] == '\0';
}

static void
check_custom_attribute(Check *check, struct json_object *attribute, size_t i)
{
	const char *key = json_member_text(attribute, "key");
	const char *scim = json_member_text(attribute, "scim_path");
	const char *directory = json_member_text(attribute, "directory_path");
	char		path[64];

	/* an empty key was reported by its table entry */
	if (key != NULL && *key != '\0' && !is_attribute_key(key))
	{
		g_snprintf(path, sizeof(path), "custom_attributes.%zu.key", i);
		fault_add(check->faults, "form_param_format_invalid", path,
				  "%s must not begin with an underscore, and goes on with letters, digits, _ and - only.", path);
	}
	if (scim != NULL && directory != NULL && strcmp(scim, directory) != 0)
	{
		g_snprintf(path, sizeof(path), "custom_attributes.%zu.directory_path", i);
		fault_add(check->faults, "form_param_value_invalid", path,
				  "%s differs from scim_path; give one of them, or both alike.", path);
	}
}

static void
check_custom_attributes(Check *check, struct json_object *body)
{
	struct json_object *attributes = member(body, "custom_attributes");

	if (!json_object_is_type(attributes, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(attributes); i++)
		check_custom_attribute(check, json_object_array_get_idx(attributes, i), i);
}

static void
check_login_hint(Check *check, struct json_object *body)
{
	struct json_object *hint = member(member(body, "saml"), "login_hint");
	const char *mode = json_member_text(hint, "mode");
	const char *source = json_member_text(hint, "source");
	bool		wanted = mode != NULL && strcmp(mode, "custom_attribute") == 0;

	if (mode == NULL)
		return;
	if (wanted && (source == NULL || *source == '\0'))
		fault_add(check->faults, "form_conditional_param_missing", "saml.login_hint.source",
				  "saml.login_hint.source must be included when mode is custom_attribute.");
	if (!wanted && source != NULL)
		fault_add(check->faults, "form_param_value_invalid", "saml.login_hint.source",
				  "saml.login_hint.source is taken only when mode is custom_attribute.");
}

/*
 * Beyond the tables: what the provider asks for
 */
const char *
validate_provider(struct json_object *body)
{
	const char *provider = json_member_text(body, "provider");

	if (provider != NULL)
		return provider;
	return member(body, "oidc") != NULL ? "oidc_custom" : "saml_custom";
}

/* The text a group's member will have: what the body says, else what is stored. */
static bool
will_have(struct json_object *group, struct json_object *stored, const char *name)
{
	struct json_object *value;

	if (json_object_is_type(group, json_type_object) &&
		json_object_object_get_ex(group, name, &value))
	{
		if (json_object_is_type(value, json_type_array))
			return json_object_array_length(value) > 0;
		return json_object_is_type(value, json_type_string) && json_object_get_string_len(value) > 0;
	}
	return json_member_text(stored, name) != NULL && *json_member_text(stored, name) != '\0';
}

static void
check_pkce(Check *check, struct json_object *body, const Conn *conn, struct json_object *stored)
{
	struct json_object *oidc = member(body, "oidc");
	struct json_object *config = member(stored, "oauth_config");
	bool		secret = conn != NULL && conn->has_client_secret;
	struct json_object *value;

	if (settings.lenient || !json_object_is_type(oidc, json_type_object))
		return;
	if (json_object_object_get_ex(oidc, "client_secret", &value))
		secret = json_object_is_type(value, json_type_string) && json_object_get_string_len(value) > 0;
	if (secret)
		return;
	if (bool_is(oidc, "requires_pkce", false) ||
		(member(oidc, "requires_pkce") == NULL && bool_is(config, "requires_pkce", false)))
		fault_add(check->faults, "form_public_client_requires_pkce", "oidc.requires_pkce",
				  "A client without a client_secret must use PKCE.");
}

static void
check_activation(Check *check, struct json_object *body, const Conn *conn,
				 const char *provider, struct json_object *stored)
{
	struct json_object *saml = member(body, "saml");
	struct json_object *now = member(stored, "saml_connection");
	struct json_object *metadata;
	bool		has_metadata = conn != NULL && conn->has_idp_metadata;

	if (!bool_is(body, "active", true) || strncmp(provider, "saml_", 5) != 0)
		return;
	if (json_object_is_type(saml, json_type_object) &&
		json_object_object_get_ex(saml, "idp_metadata", &metadata))
		has_metadata = will_have(saml, NULL, "idp_metadata");
	if (has_metadata || will_have(saml, now, "idp_metadata_url"))
		return;
	if (will_have(saml, now, "idp_entity_id") && will_have(saml, now, "idp_sso_url") &&
		(will_have(saml, now, "idp_certificate") || will_have(saml, NULL, "idp_certificates")))
		return;
	fault_add(check->faults, "saml_connection_cant_be_activated", "active",
			  "The connection can't be activated before its identity provider is set up.");
}

void
validate_body(struct json_object *body, Operation op, const Conn *conn,
			  struct json_object *stored, GString *faults)
{
	g_autoptr(GString) path = g_string_new(NULL);
	Check		check = {.op = op,.faults = faults,.path = path};
	const char *provider;

	check_members(&check, body_params, body);
	check_domains(&check, body, conn);
	check_custom_attributes(&check, body);
	check_login_hint(&check, body);
	provider = stored != NULL ? json_member_text(stored, "provider") : validate_provider(body);
	if (provider != NULL)
	{
		if (strncmp(provider, "oidc_", 5) == 0)
			check_pkce(&check, body, conn, stored);
		check_activation(&check, body, conn, provider, stored);
	}
}
