/*-------------------------------------------------------------------------
 *
 * params_table.c
 *		The parameters of an enterprise connection: one table of them all.
 *
 * What a parameter is called, where it belongs, what type it has and which
 * operation takes it stands in the tables below and nowhere else.  Required
 * parameters, enumerations and the contents of strings are for Clerk to
 * judge, so that its new providers need no new release of this.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clerk/params_internal.h"
#include "mb/pg_wchar.h"

/* The tables */

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
const ParamLevel custom_attribute_level = {
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

static const ParamDef top_params[] = {
	{"name", PARAM_TEXT, CU, U, 0, NULL},
	{"provider", PARAM_TEXT, C, 0, 0, NULL},
	{"domains", PARAM_TEXT_ARRAY, CU, U, PARAM_FILLED_ON_UPDATE, NULL},
	{"organization_id", PARAM_TEXT, CU, CU, 0, NULL},
	{"active", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"sync_user_attributes", PARAM_BOOLEAN, U, U, 0, NULL},
	{"disable_additional_identifications", PARAM_BOOLEAN, U, U, 0, NULL},
	{"allow_organization_account_linking", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"authenticatable", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"disable_jit_provisioning", PARAM_BOOLEAN, CU, CU, 0, NULL},
	{"custom_attributes", PARAM_OBJECT_ARRAY, CU, U, 0, &custom_attribute_level},
	{"oidc", PARAM_OBJECT, CU, CU, 0, &oidc_level},
	{"saml", PARAM_OBJECT, CU, CU, 0, &saml_level},
};
const ParamLevel top_level = {
	"", top_params, lengthof(top_params)
};

#undef C
#undef U
#undef CU

const ParamLevel *const levels[PARAM_LEVELS] = {
	&top_level, &custom_attribute_level, &oidc_level, &saml_level,
	&attribute_mapping_level, &login_hint_level,
};

const char *const wanted[] = {
	[PARAM_TEXT] = "a string",
	[PARAM_BOOLEAN] = "a boolean",
	[PARAM_TEXT_ARRAY] = "an array of strings",
	[PARAM_OBJECT] = "an object",
	[PARAM_OBJECT_ARRAY] = "an array of objects",
};

const ClerkJsonType json_types[] = {
	[PARAM_TEXT] = CLERK_JSON_STRING,
	[PARAM_BOOLEAN] = CLERK_JSON_BOOLEAN,
	[PARAM_TEXT_ARRAY] = CLERK_JSON_ARRAY,
	[PARAM_OBJECT] = CLERK_JSON_OBJECT,
	[PARAM_OBJECT_ARRAY] = CLERK_JSON_ARRAY,
};

/* Spelling */

/*
 * A member's name as it goes over the wire, by the rule of Clerk's SDKs:
 * userID and user-id are user_id, idpSSOURL is idp_ssourl.  Names with other
 * than ASCII letters, digits and . - _ stand for themselves: unlike the SDKs
 * we do not take "name?" for "name".
 */
const char *
wire_name(const char *name, char buffer[MAX_NAME_LENGTH + 1])
{
	size_t		n = 0;
	bool		separate = false;

	for (const char *p = name; *p; p++)
	{
		char		before = p > name ? p[-1] : '\0';
		bool		upper = *p >= 'A' && *p <= 'Z';
		bool		before_upper = before >= 'A' && before <= 'Z';

		if (*p == '_' || *p == '-' || *p == '.')
		{
			separate = true;
			continue;
		}
		if (!upper && !(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9'))
			return name;
		if (upper && before && (!before_upper || (p[1] >= 'a' && p[1] <= 'z')))
			separate = true;
		if (n + 2 > MAX_NAME_LENGTH)
			return name;
		if (separate && n > 0)
			buffer[n++] = '_';
		separate = false;
		buffer[n++] = upper ? pg_ascii_tolower((unsigned char) *p) : *p;
	}
	buffer[n] = '\0';
	return n > 0 ? buffer : name;
}

const ParamDef *
find_param(const ParamLevel *level, const char *name)
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
is_extra_param(const Reader *reader, const ParamLevel *level, const char *name)
{
	ListCell   *lc;

	foreach(lc, reader->extra_params)
	{
		if (is_path(lfirst(lc), level, name))
			return true;
	}
	return false;
}

/* Does an unknown name sound like something that nobody should see? */
bool
sounds_secret(const char *name)
{
	return strstr(name, "secret") || strstr(name, "password") || strstr(name, "private");
}

/* Looking one up */

static ClerkParamInfo *
param_info(const char *path, const ParamDef *param)
{
	ClerkParamInfo *info = palloc0(sizeof(*info));

	info->path = pstrdup(path);
	if (param == NULL)
		return info;
	info->known = true;
	info->type = json_types[param->type];
	info->of_strings = param->type == PARAM_TEXT_ARRAY;
	info->wanted = wanted[param->type];
	info->null_on_create = (param->nullable & CLERK_OPERATION_CREATE) != 0;
	info->null_on_update = (param->nullable & CLERK_OPERATION_UPDATE) != 0;
	return info;
}

ClerkParamInfo *
clerk_params_find(const char *given, List *extra_params, ClerkFault **fault)
{
	ClerkParams result = {0};
	Reader		reader = {
		.operation = CLERK_OPERATION_CREATE,
		.extra_params = extra_params,
		.result = &result,
		.result_context = CurrentMemoryContext,
	};
	const ParamLevel *level = &top_level;
	Path	   *path = NULL;
	char	   *next = pstrdup(pg_server_to_any(given, (int) strlen(given), PG_UTF8));

	while (result.faults == NIL)
	{
		char	   *name = strsep(&next, ".");
		Path	   *here = palloc0(sizeof(*here));
		const ParamDef *param;

		here->parent = path;
		here->name = wire_name(name, palloc(MAX_NAME_LENGTH + 1));
		path = here;
		param = find_param(level, path->name);
		if (next == NULL && (param != NULL || is_extra_param(&reader, level, path->name)))
			return param_info(psprintf("%s%s%s", level->path, *level->path ? "." : "", path->name),
							  param);
		if (param == NULL)
			add_unknown_fault(&reader, level, path);
		else if (param->type != PARAM_OBJECT)
			add_fault(&reader, path,
					  psprintf("parameter \"%s\" is %s and has no members of its own",
							   path_text(path), wanted[param->type]), NULL);
		else
			level = param->members;
	}
	*fault = linitial(result.faults);
	return NULL;
}

/* extra_params */

/*
 * Read one path of extra_params: names in any spelling, separated by points,
 * all but the last one known.  Returns it as on the wire, or NULL.
 */
char *
read_extra_path(const char *path)
{
	StringInfoData out;
	const char *name = path;

	initStringInfo(&out);
	for (;;)
	{
		size_t		len = strcspn(name, ".");
		char	   *part = pnstrdup(name, len);
		char		buffer[MAX_NAME_LENGTH + 1];

		/* Left as it is: it has characters that no name has. */
		if (wire_name(part, buffer) != buffer)
			return NULL;
		if (out.len > 0)
			appendStringInfoChar(&out, '.');
		appendStringInfoString(&out, buffer);
		if (name[len] == '\0')
			break;
		name += len + 1;
	}

	/* There must be a level where it can turn up. */
	for (size_t i = 0; i < PARAM_LEVELS; i++)
	{
		const char *last = strrchr(out.data, '.');

		if (is_path(out.data, levels[i], last ? last + 1 : out.data))
			return out.data;
	}
	return NULL;
}

const char extra_path_fault[] =
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
		path = read_extra_path(item);
		if (path == NULL || (next && *next == '\0'))
		{
			*fault = extra_path_fault;
			return false;
		}
		*paths = lappend(*paths, path);
	}
	return true;
}
