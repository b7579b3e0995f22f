/*-------------------------------------------------------------------------
 *
 * params_table.c
 *		The table of all parameters of an enterprise connection, and how they
 *		are spelled.
 *
 * What a parameter is called, where it belongs, what type it has and which
 * operation takes it stands in the table below and nowhere else.  Required
 * parameters, enumerations and the contents of strings are for Clerk to
 * judge, so that its new providers need no new release of this.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clerk/params_internal.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/*-------------------------------------------------------------------------
 * The table
 *-------------------------------------------------------------------------
 */

#define C CLERK_OPERATION_CREATE
#define U CLERK_OPERATION_UPDATE
#define CU (CLERK_OPERATION_CREATE | CLERK_OPERATION_UPDATE)

static const ParamDef custom_attribute_params[] = {
	{"name", PARAM_TEXT, CU, 0, 0, NULL},
	{"key", PARAM_TEXT, CU, 0, 0, NULL},
	{"sso_path", PARAM_TEXT, CU, 0, 0, NULL},
	{"scim_path", PARAM_TEXT, CU, 0, 0, NULL},
	{"directory_path", PARAM_TEXT, CU, 0, 0, NULL},
	{"multi_valued", PARAM_BOOLEAN, CU, 0, 0, NULL},
};
static const ParamLevel custom_attribute_level = {
	"custom_attributes", custom_attribute_params, lengthof(custom_attribute_params)
};

static const ParamDef oidc_params[] = {
	{"auth_url", PARAM_TEXT, CU, CU, 0, NULL},
	{"client_id", PARAM_TEXT, CU, CU, 0, NULL},
	{"client_secret", PARAM_TEXT, CU, CU, PARAM_SECRET, NULL},
	{"discovery_url", PARAM_TEXT, CU, CU, 0, NULL},
	{"requires_pkce", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"token_url", PARAM_TEXT, CU, CU, 0, NULL},
	{"user_info_url", PARAM_TEXT, CU, CU, 0, NULL},
};
static const ParamLevel oidc_level = {
	"oidc", oidc_params, lengthof(oidc_params)
};

static const ParamDef attribute_mapping_params[] = {
	{"user_id", PARAM_TEXT, CU, CU, 0, NULL},
	{"email_address", PARAM_TEXT, CU, CU, 0, NULL},
	{"first_name", PARAM_TEXT, CU, CU, 0, NULL},
	{"last_name", PARAM_TEXT, CU, CU, 0, NULL},
};
static const ParamLevel attribute_mapping_level = {
	"saml.attribute_mapping", attribute_mapping_params, lengthof(attribute_mapping_params)
};

static const ParamDef login_hint_params[] = {
	{"mode", PARAM_TEXT, CU, 0, 0, NULL},
	{"source", PARAM_TEXT, CU, 0, 0, NULL},
};
static const ParamLevel login_hint_level = {
	"saml.login_hint", login_hint_params, lengthof(login_hint_params)
};

static const ParamDef saml_params[] = {
	{"allow_idp_initiated", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"allow_subdomains", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"attribute_mapping", PARAM_OBJECT, CU, CU, 0, &attribute_mapping_level},
	{"force_authn", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"idp_certificate", PARAM_TEXT, CU, CU, 0, NULL},
	{"idp_certificates", PARAM_TEXT_ARRAY, CU, CU, 0, NULL},
	{"idp_entity_id", PARAM_TEXT, CU, CU, 0, NULL},
	{"idp_metadata", PARAM_TEXT, CU, CU, 0, NULL},
	{"idp_metadata_url", PARAM_TEXT, CU, CU, 0, NULL},
	{"idp_sso_url", PARAM_TEXT, CU, CU, 0, NULL},
	{"login_hint", PARAM_OBJECT, CU, CU, 0, &login_hint_level},
	{"name", PARAM_TEXT, U, U, 0, NULL},
};
static const ParamLevel saml_level = {
	"saml", saml_params, lengthof(saml_params)
};

/*
 * create_enterprise_connection() has these as named arguments, in this order.
 * Its signature does not change: a parameter that is added here comes after
 * them, and is given in params.
 */
static const ParamDef top_params[] = {
	{"name", PARAM_TEXT, CU, U, 0, NULL},
	{"provider", PARAM_TEXT, C, 0, 0, NULL},
	{"domains", PARAM_TEXT_ARRAY, CU, U, PARAM_FILLED_ON_UPDATE, NULL},
	{"organization_id", PARAM_TEXT, CU, CU, 0, NULL},
	{"active", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"saml", PARAM_OBJECT, CU, CU, 0, &saml_level},
	{"oidc", PARAM_OBJECT, CU, CU, 0, &oidc_level},
	{"sync_user_attributes", PARAM_BOOLEAN, U, U, 0, NULL},
	{"disable_additional_identifications", PARAM_BOOLEAN, U, U, 0, NULL},
	{"allow_organization_account_linking", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"authenticatable", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"disable_jit_provisioning", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"custom_attributes", PARAM_OBJECT_ARRAY, CU, U, 0, &custom_attribute_level},
};
const ParamLevel clerk_param_top = {
	"", top_params, lengthof(top_params)
};

#undef C
#undef U
#undef CU

const ParamLevel *const clerk_param_levels[] = {
	&clerk_param_top, &custom_attribute_level, &oidc_level, &saml_level,
	&attribute_mapping_level, &login_hint_level, NULL
};

StaticAssertDecl(lengthof(top_params) <= MAX_LEVEL_PARAMS && lengthof(saml_params) <= MAX_LEVEL_PARAMS &&
				 lengthof(oidc_params) <= MAX_LEVEL_PARAMS && lengthof(custom_attribute_params) <= MAX_LEVEL_PARAMS,
				 "a level of parameters has too many");

static const struct
{
	ClerkJsonType json;
	const char *wanted;
}			types[] =

{
	[PARAM_TEXT] = {CLERK_JSON_STRING, "a string"},
	[PARAM_BOOLEAN] = {CLERK_JSON_BOOLEAN, "a boolean"},
	[PARAM_TEXT_ARRAY] = {CLERK_JSON_ARRAY, "an array of strings"},
	[PARAM_OBJECT] = {CLERK_JSON_OBJECT, "an object"},
	[PARAM_OBJECT_ARRAY] = {CLERK_JSON_ARRAY, "an array of objects"},
};

ClerkJsonType
clerk_param_json_type(ClerkParamType type)
{
	return types[type].json;
}

const char *
clerk_param_wanted(ClerkParamType type)
{
	return types[type].wanted;
}

const char *
clerk_params_named(int n, ClerkParamType *type)
{
	*type = top_params[n].type;
	return top_params[n].name;
}

const ParamDef *
clerk_param_find(const ParamLevel *level, const char *name)
{
	for (int i = 0; i < level->count; i++)
		if (strcmp(level->params[i].name, name) == 0)
			return &level->params[i];
	return NULL;
}

/* Is path (of extra_params) the one of that name at that level? */
static bool
is_path(const char *path, const ParamLevel *level, const char *name)
{
	size_t		len = strlen(level->path);

	if (len > 0)
	{
		if (strncmp(path, level->path, len) != 0 || path[len] != '.')
			return false;
		path += len + 1;
	}
	return strcmp(path, name) == 0;
}

bool
clerk_param_is_extra(List *extra_params, const ParamLevel *level, const char *name)
{
	ListCell   *lc;

	foreach(lc, extra_params)
	{
		if (is_path(lfirst(lc), level, name))
			return true;
	}
	return false;
}

bool
clerk_param_sounds_secret(const char *name, size_t len)
{
	static const char *const sounds[] = {"secret", "password", "private"};

	for (size_t i = 0; i < lengthof(sounds); i++)
		if (memmem(name, len, sounds[i], strlen(sounds[i])) != NULL)
			return true;
	return false;
}

/*-------------------------------------------------------------------------
 * Spelling
 *-------------------------------------------------------------------------
 */

static bool
is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool
is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

bool
clerk_param_wire_name(const char *name, size_t len, char wire[MAX_NAME_LENGTH + 1])
{
	size_t		n = 0;
	bool		separate = false;

	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];
		char		before = i > 0 ? name[i - 1] : '\0';
		char		after = i + 1 < len ? name[i + 1] : '\0';

		if (c == '_' || c == '-' || c == '.')
		{
			separate = true;
			continue;
		}
		if (!is_upper(c) && !is_lower(c) && !(c >= '0' && c <= '9'))
			return false;
		if (is_upper(c) && before && (!is_upper(before) || is_lower(after)))
			separate = true;
		if (n + 2 > MAX_NAME_LENGTH)
			return false;
		if (separate && n > 0)
			wire[n++] = '_';
		separate = false;
		wire[n++] = is_upper(c) ? pg_ascii_tolower((unsigned char) c) : c;
	}
	wire[n] = '\0';
	return n > 0;
}

char *
clerk_param_camel_name(const char *wire)
{
	StringInfoData camel;

	initStringInfo(&camel);
	for (const char *p = wire; *p; p++)
	{
		if (*p != '_')
			appendStringInfoChar(&camel, p > wire && p[-1] == '_' ? pg_ascii_toupper((unsigned char) *p) : *p);
	}
	return camel.data;
}

/*-------------------------------------------------------------------------
 * extra_params
 *-------------------------------------------------------------------------
 */

/*
 * Names in any spelling, separated by points, all but the last one known.
 */
char *
clerk_param_extra_path(const char *path)
{
	StringInfoData out;
	const char *last;

	initStringInfo(&out);
	for (;;)
	{
		size_t		len = strcspn(path, ".");
		char		wire[MAX_NAME_LENGTH + 1];

		if (!clerk_param_wire_name(path, len, wire))
			return NULL;
		if (out.len > 0)
			appendStringInfoChar(&out, '.');
		appendStringInfoString(&out, wire);
		if (path[len] == '\0')
			break;
		path += len + 1;
	}

	/* There must be a level where it can turn up. */
	last = strrchr(out.data, '.');
	for (int i = 0; clerk_param_levels[i] != NULL; i++)
		if (is_path(out.data, clerk_param_levels[i], last ? last + 1 : out.data))
			return out.data;
	return NULL;
}

const char	clerk_param_extra_path_fault[] =
"It must list names of parameters, such as \"foo\" or \"saml.foo\"; "
"before the point stands custom_attributes, oidc, saml, saml.attribute_mapping or saml.login_hint.";

bool
clerk_params_parse_extra(const char *value, List **paths, const char **fault)
{
	char	   *copy = pstrdup(value);
	char	   *next = copy;

	*paths = NIL;
	*fault = NULL;
	while (isspace((unsigned char) *next))
		next++;
	while (next && *next)
	{
		char	   *item = next;
		char	   *path;
		size_t		len;

		next = strchr(item, ',');
		if (next)
			*next++ = '\0';
		while (isspace((unsigned char) *item))
			item++;
		len = strlen(item);
		while (len > 0 && isspace((unsigned char) item[len - 1]))
			item[--len] = '\0';
		path = clerk_param_extra_path(item);
		if (path == NULL || (next && *next == '\0'))
		{
			*fault = clerk_param_extra_path_fault;
			return false;
		}
		*paths = lappend(*paths, path);
	}
	return true;
}
