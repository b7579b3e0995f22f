/*-------------------------------------------------------------------------
 *
 * params.c
 *		The parameters of an enterprise connection: one table of them all;
 *		jsonb in, request body or a list of faults out.
 *
 * What a parameter is called, where it belongs, what type it has and which
 * operation takes it stands in the tables below and nowhere else.  Required
 * parameters, enumerations and the contents of strings are for Clerk to
 * judge, so that its new providers need no new release of this.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/closest.h"
#include "base/json.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* The tables */

#define C CLERK_OPERATION_CREATE
#define U CLERK_OPERATION_UPDATE
#define CU (CLERK_OPERATION_CREATE | CLERK_OPERATION_UPDATE)

typedef enum ParamType
{
	PARAM_TEXT,
	PARAM_BOOLEAN,
	PARAM_TEXT_ARRAY,
	PARAM_OBJECT,
	PARAM_OBJECT_ARRAY
} ParamType;

/* The value must never show up in a message. */
#define PARAM_SECRET 1
/* An update would silently ignore an empty array. */
#define PARAM_FILLED_ON_UPDATE 2

typedef struct ParamLevel ParamLevel;

typedef struct ParamDef
{
	const char *name;			/* as on the wire */
	ParamType	type;
	int			operations;		/* that take it */
	int			nullable;		/* that take an explicit null */
	int			flags;
	const ParamLevel *members;	/* of the object or the array's objects */
} ParamDef;

/* The members of one object, in the order in which they are sent. */
struct ParamLevel
{
	const char *path;			/* dotted, without array positions */
	const ParamDef *params;
	int			count;
};

/* No level may have more; checked where slots are allocated. */
#define MAX_LEVEL_PARAMS 16

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
static const ParamLevel top_level = {
	"", top_params, lengthof(top_params)
};

#undef C
#undef U
#undef CU

static const ParamLevel *const levels[] = {
	&top_level, &custom_attribute_level, &oidc_level, &saml_level,
	&attribute_mapping_level, &login_hint_level,
};

/* What Clerk's answers call differently; somebody will send one back. */
static const struct
{
	const char *name;
	const char *meant;
}			names_in_answers[] =
{
	{"saml_connection", "saml"},
	{"oauth_config", "oidc"},
};

/* Longer than any parameter Clerk has or is likely to get. */
#define MAX_NAME_LENGTH 127

/* Of an unknown name, a message shows about so many bytes. */
#define MAX_SHOWN_LENGTH 64

/*
 * A list of faults is for people; and finding the closest name for each of a
 * million wrong ones would take minutes.
 */
#define MAX_FAULTS 100

/* An error shows no more; check_enterprise_connection() is for the rest. */
#define MAX_FAULTS_IN_ERROR 10

/* Reading */

/* One reading of params, from jsonb to body. */
typedef struct Reader
{
	ClerkOperation operation;	/* create or update */
	bool		upsert;			/* a create that may have the nulls of an update */
	List	   *extra_params;
	ClerkParams *result;
	MemoryContext result_context;
	bool		full;			/* MAX_FAULTS reached: stop */
} Reader;

/* Where in the parameters we are: a member or an array element of parent. */
typedef struct Path
{
	const struct Path *parent;
	const char *name;			/* UTF-8; NULL for an array element */
	int			position;
} Path;

/* A value that was given, and how it was. */
typedef struct Given
{
	const char *spelling;		/* NULL: not given */
	ClerkJson  *value;
	bool		named;			/* as a named argument */
} Given;

/* A parameter that only extra_params knows. */
typedef struct Extra
{
	char	   *name;
	Given		given;
} Extra;

/* The members of one object, sorted into the slots of its table. */
typedef struct Members
{
	Reader	   *reader;
	const ParamLevel *level;
	const Path *path;
	bool		named;
	Given		given[MAX_LEVEL_PARAMS];
	List	   *extras;			/* of Extra * */
} Members;

static void read_object(Reader *reader, const ParamLevel *level, const Path *path,
						ClerkJson *object, ClerkJson *body, ClerkJson **patch);

PG_FUNCTION_INFO_V1(enterprise_connection_body);
PG_FUNCTION_INFO_V1(enterprise_connection_without_secrets);
PG_FUNCTION_INFO_V1(check_enterprise_connection);

/* Spelling */

/*
 * A member's name as it goes over the wire, by the rule of Clerk's SDKs:
 * userID and user-id are user_id, idpSSOURL is idp_ssourl.  Names with other
 * than ASCII letters, digits and . - _ stand for themselves: unlike the SDKs
 * we do not take "name?" for "name".
 */
static const char *
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

static const ParamDef *
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

static bool
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

/* Faults */

/* Control characters, and those that hide or turn around what follows. */
static bool
is_invisible(pg_wchar c)
{
	return c < ' ' || (c >= 0x7f && c <= 0xa0) || c == 0xad || c == 0x61c ||
		(c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
		(c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

/*
 * Append a name that may be anything, for a message: in the server's
 * encoding, not too long, and with all its characters to be seen.
 */
static void
append_shown(StringInfo out, const char *utf8)
{
	StringInfoData shown;

	initStringInfo(&shown);
	for (const char *p = utf8; *p; p += pg_encoding_mblen(PG_UTF8, p))
	{
		pg_wchar	c = utf8_to_unicode((const unsigned char *) p);

		if (shown.len >= MAX_SHOWN_LENGTH)
		{
			appendStringInfoString(&shown, "...");
			break;
		}
		if (is_invisible(c))
			appendStringInfo(&shown, "\\u%04x", (unsigned int) c);
		else
			appendBinaryStringInfo(&shown, p, pg_encoding_mblen(PG_UTF8, p));
	}
	appendStringInfoString(out, pg_any_to_server(shown.data, shown.len, PG_UTF8));
}

static void
append_path(StringInfo out, const Path *path)
{
	if (path == NULL)
		return;
	append_path(out, path->parent);
	if (path->name == NULL)
	{
		appendStringInfo(out, "[%d]", path->position);
		return;
	}
	if (out->len > 0)
		appendStringInfoChar(out, '.');
	append_shown(out, path->name);
}

static char *
path_text(const Path *path)
{
	StringInfoData out;

	initStringInfo(&out);
	append_path(&out, path);
	return out.data;
}

static void
add_fault(Reader *reader, const Path *path, const char *message, const char *hint)
{
	MemoryContext caller;
	ClerkFault *fault;

	if (reader->full)
		return;
	caller = MemoryContextSwitchTo(reader->result_context);
	fault = palloc(sizeof(ClerkFault));
	if (list_length(reader->result->faults) == MAX_FAULTS)
	{
		reader->full = true;
		path = NULL;
		message = psprintf("there are more faults than these %d", MAX_FAULTS);
		hint = NULL;
	}
	fault->path = path_text(path);
	fault->message = pstrdup(message);
	fault->hint = hint ? pstrdup(hint) : NULL;
	reader->result->faults = lappend(reader->result->faults, fault);
	MemoryContextSwitchTo(caller);
}

static const char *const wanted[] = {
	[PARAM_TEXT] = "a string",
	[PARAM_BOOLEAN] = "a boolean",
	[PARAM_TEXT_ARRAY] = "an array of strings",
	[PARAM_OBJECT] = "an object",
	[PARAM_OBJECT_ARRAY] = "an array of objects",
};

static const ClerkJsonType json_types[] = {
	[PARAM_TEXT] = CLERK_JSON_STRING,
	[PARAM_BOOLEAN] = CLERK_JSON_BOOLEAN,
	[PARAM_TEXT_ARRAY] = CLERK_JSON_ARRAY,
	[PARAM_OBJECT] = CLERK_JSON_OBJECT,
	[PARAM_OBJECT_ARRAY] = CLERK_JSON_ARRAY,
};

static void
add_type_fault(Reader *reader, const Path *path, ParamType type, ClerkJson *value)
{
	ClerkJsonType given = clerk_json_type(value);
	const char *hint = NULL;

	if (type == PARAM_BOOLEAN && given == CLERK_JSON_STRING)
		hint = "Write true or false, without quotes.";
	else if (type == PARAM_TEXT_ARRAY && given == CLERK_JSON_STRING)
		hint = "Write it as an array, even of one: [\"...\"].";
	else if (type == PARAM_OBJECT_ARRAY && given == CLERK_JSON_OBJECT)
		hint = "Write it as an array, even of one: [{...}].";
	add_fault(reader, path,
			  psprintf("parameter \"%s\" must be %s, not %s",
					   path_text(path), wanted[type], clerk_json_type_name(value)),
			  hint);
}

/* The dotted path of a parameter in its table, for hints. */
static char *
table_path(const ParamLevel *level, const char *name)
{
	if (level == &custom_attribute_level)
		return psprintf("%s[].%s", level->path, name);
	return psprintf("%s%s%s", level->path, *level->path ? "." : "", name);
}

/* Names that a hint may offer: those that this operation takes. */
static bool
is_offered(const Reader *reader, const ParamDef *param)
{
	return (param->operations & CLERK_OPERATION_UPDATE) || reader->operation == CLERK_OPERATION_CREATE;
}

static void
offer_level(const Reader *reader, const ParamLevel *level, ClerkClosest *search,
			const ParamLevel **found)
{
	const char *best = search->best;

	for (int i = 0; i < level->count; i++)
		if (is_offered(reader, &level->params[i]))
			clerk_closest_offer(search, level->params[i].name);
	if (search->best != best)
		*found = level;
}

/*
 * What was probably meant by an unknown name: the same name at another place,
 * else the closest name at this one, else the closest anywhere.
 */
static char *
find_meant(const Reader *reader, const ParamLevel *level, const Path *path, const char *name)
{
	const ParamLevel *found = NULL;
	ClerkClosest search;

	for (size_t i = 0; i < lengthof(names_in_answers); i++)
		if (level == &top_level && strcmp(name, names_in_answers[i].name) == 0)
			return pstrdup(names_in_answers[i].meant);

	for (size_t i = 0; i < lengthof(levels); i++)
	{
		const ParamDef *param = find_param(levels[i], name);

		if (param && is_offered(reader, param))
			return table_path(levels[i], name);
	}

	clerk_closest_start(&search, name);
	offer_level(reader, level, &search, &found);
	if (search.best)
	{
		Path		meant = {.parent = path->parent, .name = search.best};

		return path_text(&meant);
	}
	for (size_t i = 0; i < lengthof(levels); i++)
		offer_level(reader, levels[i], &search, &found);
	return search.best ? table_path(found, search.best) : NULL;
}

/* The hint where no known name is close. */
static char *
list_names(const Reader *reader, const ParamLevel *level)
{
	StringInfoData out;
	const char *separator = "";

	initStringInfo(&out);
	if (*level->path)
		appendStringInfo(&out, "Valid members of \"%s\" are ", level->path);
	else
		appendStringInfoString(&out, "Valid parameters are ");
	for (int i = 0; i < level->count; i++)
	{
		if (!is_offered(reader, &level->params[i]))
			continue;
		appendStringInfo(&out, "%s%s", separator, level->params[i].name);
		separator = ", ";
	}
	appendStringInfoString(&out, ". What is newer than this release can be listed in extra_params.");
	return out.data;
}

static void
add_unknown_fault(Reader *reader, const ParamLevel *level, const Path *path)
{
	StringInfoData name;
	char	   *meant;

	initStringInfo(&name);
	append_shown(&name, path->name);
	meant = find_meant(reader, level, path, name.data);
	add_fault(reader, path,
			  psprintf("unknown parameter \"%s\"", path_text(path)),
			  meant ? psprintf("Perhaps you meant the parameter \"%s\".", meant) :
			  list_names(reader, level));
}

static void
add_twice_fault(Reader *reader, const Path *path, const Given *first, const Given *second)
{
	if (first->named != second->named)
		add_fault(reader, path,
				  psprintf("parameter \"%s\" is given both in params and as an argument",
						   path_text(path)),
				  NULL);
	else
		add_fault(reader, path,
				  psprintf("parameter \"%s\" is given twice, as \"%s\" and as \"%s\"",
						   path_text(path), first->spelling, second->spelling),
				  NULL);
}

/* Sorting an object's members into the slots of its table */

static void
collect_extra(Members *members, const Path *path, const Given *given)
{
	ListCell   *lc;
	Extra	   *extra;

	foreach(lc, members->extras)
	{
		extra = lfirst(lc);
		if (strcmp(extra->name, path->name) == 0)
		{
			add_twice_fault(members->reader, path, &extra->given, given);
			return;
		}
	}
	extra = palloc(sizeof(Extra));
	extra->name = pstrdup(path->name);
	extra->given = *given;
	members->extras = lappend(members->extras, extra);
}

static bool
collect_member(const char *name, ClerkJson *value, void *arg)
{
	Members    *members = arg;
	Reader	   *reader = members->reader;
	char		buffer[MAX_NAME_LENGTH + 1];
	Path		path = {.parent = members->path, .name = wire_name(name, buffer)};
	Given		given = {name, value, members->named};
	const ParamDef *param = find_param(members->level, path.name);

	CHECK_FOR_INTERRUPTS();
	if (param)
	{
		Given	   *slot = &members->given[param - members->level->params];

		if (slot->spelling)
			add_twice_fault(reader, &path, slot, &given);
		else
			*slot = given;
	}
	else if (is_extra_param(reader, members->level, path.name))
		collect_extra(members, &path, &given);
	else
		add_unknown_fault(reader, members->level, &path);
	return !reader->full;
}

/* Checking one value and giving it to the body */

static void
note_secret(Reader *reader, ClerkJson *value)
{
	size_t		len;
	const char *secret = clerk_json_string(value, &len);
	MemoryContext caller;

	if (secret == NULL || len == 0)
		return;
	caller = MemoryContextSwitchTo(reader->result_context);
	reader->result->secrets = lappend(reader->result->secrets, pnstrdup(secret, len));
	MemoryContextSwitchTo(caller);
}

/* Every element must be of one type: a string or, with members, an object. */
static ClerkJson *
read_array(Reader *reader, const ParamDef *param, const Path *path, ClerkJson *array)
{
	int			count = clerk_json_length(array);
	ClerkJson  *copy = NULL;

	if ((param->flags & PARAM_FILLED_ON_UPDATE) && reader->operation == CLERK_OPERATION_UPDATE && count == 0)
		add_fault(reader, path,
				  psprintf("parameter \"%s\" cannot be empty in an update", path_text(path)),
				  "Clerk would ignore it. Leave it out to keep what is there, or name all that shall remain.");
	if (param->type == PARAM_OBJECT_ARRAY)
		copy = clerk_json_new_array();

	for (int i = 0; i < count && !reader->full; i++)
	{
		Path		element_path = {.parent = path, .position = i};
		ClerkJson  *element = clerk_json_element(array, i);
		ClerkJsonType type = clerk_json_type(element);

		CHECK_FOR_INTERRUPTS();
		if (type == CLERK_JSON_NULL)
			add_fault(reader, &element_path,
					  psprintf("parameter \"%s\" cannot be null", path_text(&element_path)), NULL);
		else if (param->type == PARAM_TEXT_ARRAY)
		{
			if (type != CLERK_JSON_STRING)
				add_type_fault(reader, &element_path, PARAM_TEXT, element);
		}
		else if (type != CLERK_JSON_OBJECT)
			add_type_fault(reader, &element_path, PARAM_OBJECT, element);
		else
		{
			ClerkJson  *body = clerk_json_new_object();

			read_object(reader, param->members, &element_path, element, body, NULL);
			clerk_json_append(copy, body);
		}
	}
	return copy ? copy : array;
}

/* Set a member of an object that is made only when it gets one. */
static void
set_lazily(ClerkJson **object, const char *name, ClerkJson *value)
{
	if (*object == NULL)
		*object = clerk_json_new_object();
	clerk_json_set(*object, name, value);
}

static void
set_value(const ParamDef *param, ClerkJson *value, ClerkJson *body, ClerkJson **patch)
{
	Assert(body || patch);
	if (body)
		clerk_json_set(body, param->name, value);
	else
		set_lazily(patch, param->name, value);
}

static void
read_part(Reader *reader, const ParamDef *param, const Path *path, ClerkJson *object,
		  ClerkJson *body, ClerkJson **patch)
{
	ClerkJson  *part = clerk_json_new_object();
	ClerkJson  *patch_part = NULL;

	read_object(reader, param->members, path, object, part, &patch_part);
	if (patch_part)
		set_value(param, patch_part, NULL, patch);
	/* If all that it had goes into the PATCH, nothing is left to say. */
	if (patch_part == NULL || clerk_json_length(part) > 0)
		set_value(param, part, body, patch);
}

/*
 * body gets what this operation takes, *patch what a create must send by an
 * update after it.
 */
static void
read_value(Reader *reader, const ParamDef *param, const Path *path, ClerkJson *value,
		   ClerkJson *body, ClerkJson **patch)
{
	ClerkOperation operation = reader->operation;

	if (!(param->operations & operation))
	{
		if (operation == CLERK_OPERATION_UPDATE)
		{
			add_fault(reader, path,
					  psprintf("parameter \"%s\" cannot be changed", path_text(path)),
					  "It is settled when the connection is created.");
			return;
		}
		operation = CLERK_OPERATION_UPDATE;
		body = NULL;
	}

	if (clerk_json_type(value) == CLERK_JSON_NULL)
	{
		if (param->nullable & (reader->upsert ? CLERK_OPERATION_UPDATE : operation))
			set_value(param, NULL, body, patch);
		else
			add_fault(reader, path,
					  psprintf("parameter \"%s\" cannot be null", path_text(path)), NULL);
	}
	else if (clerk_json_type(value) != json_types[param->type])
		add_type_fault(reader, path, param->type, value);
	else if (param->type == PARAM_OBJECT)
		read_part(reader, param, path, value, body, patch);
	else if (param->type == PARAM_TEXT_ARRAY || param->type == PARAM_OBJECT_ARRAY)
		set_value(param, read_array(reader, param, path, value), body, patch);
	else
	{
		if (param->flags & PARAM_SECRET)
			note_secret(reader, value);
		set_value(param, value, body, patch);
	}
}

/* Does an unknown name sound like something that nobody should see? */
static bool
sounds_secret(const char *name)
{
	return strstr(name, "secret") || strstr(name, "password") || strstr(name, "private");
}

static void
read_members(Members *members, ClerkJson *body, ClerkJson **patch)
{
	const ParamLevel *level = members->level;
	ListCell   *lc;

	for (int i = 0; i < level->count && !members->reader->full; i++)
	{
		Path		path = {.parent = members->path, .name = level->params[i].name};

		if (members->given[i].spelling)
			read_value(members->reader, &level->params[i], &path,
					   members->given[i].value, body, patch);
	}
	foreach(lc, members->extras)
	{
		Extra	   *extra = lfirst(lc);

		if (sounds_secret(extra->name))
			note_secret(members->reader, extra->given.value);
		clerk_json_set(body, extra->name, extra->given.value);
	}
}

static void
start_members(Members *members, Reader *reader, const ParamLevel *level, const Path *path)
{
	Assert(level->count <= MAX_LEVEL_PARAMS);
	memset(members, 0, sizeof(Members));
	members->reader = reader;
	members->level = level;
	members->path = path;
}

static void
read_object(Reader *reader, const ParamLevel *level, const Path *path,
			ClerkJson *object, ClerkJson *body, ClerkJson **patch)
{
	Members		members;

	start_members(&members, reader, level, path);
	clerk_json_each(object, collect_member, &members);
	read_members(&members, body, patch);
}

/* The top level */

static Given *
top_slot(Members *members, const char *name)
{
	return &members->given[find_param(&top_level, name) - top_params];
}

/*
 * The first published form of a create has no provider: it followed from the
 * protocol.  With both protocols or none, it is Clerk's turn to ask for one.
 */
static void
infer_provider(Members *members)
{
	Given	   *provider = top_slot(members, "provider");
	bool		oidc = clerk_json_type(top_slot(members, "oidc")->value) == CLERK_JSON_OBJECT;
	bool		saml = clerk_json_type(top_slot(members, "saml")->value) == CLERK_JSON_OBJECT;
	const char *inferred = oidc ? "oidc_custom" : "saml_custom";

	if (provider->spelling || oidc == saml)
		return;
	provider->spelling = "provider";
	provider->value = clerk_json_new_string(inferred, strlen(inferred));
}

static ClerkJson *
open_params(Reader *reader, Jsonb *params)
{
	const char *fault;
	const char *hint = NULL;
	ClerkJson  *json = clerk_json_from_jsonb(params, &fault);

	if (fault)
		add_fault(reader, NULL, psprintf("params %s", fault), NULL);
	else if (clerk_json_type(json) != CLERK_JSON_OBJECT)
	{
		const char *string = clerk_json_string(json, NULL);

		if (string && *string == '{')
			hint = "It seems to have been encoded as JSON twice.";
		add_fault(reader, NULL,
				  psprintf("params must be a JSON object, not %s", clerk_json_type_name(json)),
				  hint);
	}
	return json;
}

static ClerkBody *
make_body(Reader *reader, ClerkJson *json)
{
	MemoryContext caller = MemoryContextSwitchTo(reader->result_context);
	ClerkBody  *body = palloc(sizeof(ClerkBody));

	body->text = clerk_json_to_text(json, &body->len);
	MemoryContextSwitchTo(caller);
	if (body->len > CLERK_MAX_BODY)
	{
		add_fault(reader, NULL,
				  psprintf("the request body has %zu bytes, but must not have more than %d",
						   body->len, CLERK_MAX_BODY), NULL);
		pfree(body->text);
		pfree(body);
		return NULL;
	}
	return body;
}

static void
read_top(Reader *reader, Jsonb *params, Jsonb *named)
{
	ClerkParams *result = reader->result;
	ClerkJson  *body = clerk_json_new_object();
	ClerkJson  *patch = NULL;
	ClerkJson  *of_params = params ? open_params(reader, params) : NULL;
	ClerkJson  *of_named = named ? open_params(reader, named) : NULL;
	Members		members;

	if (result->faults == NIL &&
		clerk_json_length(of_params) + clerk_json_length(of_named) == 0)
		add_fault(reader, NULL, "no parameters were given",
				  "Give at least one, such as {\"name\": \"Acme\"}.");

	start_members(&members, reader, &top_level, NULL);
	clerk_json_each(of_params, collect_member, &members);
	members.named = true;
	clerk_json_each(of_named, collect_member, &members);
	if (reader->operation == CLERK_OPERATION_CREATE)
		infer_provider(&members);
	read_members(&members, body, &patch);

	if (result->faults != NIL)
		return;
	result->body = make_body(reader, body);
	if (patch)
		result->patch = make_body(reader, patch);
	if (result->faults != NIL)
		result->body = result->patch = NULL;
}

ClerkParams *
clerk_params_read(Jsonb *params, Jsonb *named, ClerkOperation operation, List *extra_params)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "clerk params", ALLOCSET_DEFAULT_SIZES);
	ClerkParams *result = palloc0(sizeof(ClerkParams));
	Reader		reader = {
		.operation = operation == CLERK_OPERATION_UPSERT ? CLERK_OPERATION_CREATE : operation,
		.upsert = operation == CLERK_OPERATION_UPSERT,
		.extra_params = extra_params,
		.result = result,
		.result_context = caller,
	};

	MemoryContextSwitchTo(work);
	read_top(&reader, params, named);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
	return result;
}

Jsonb *
clerk_params_body_jsonb(const ClerkBody *body)
{
	const char *fault;
	Jsonb	   *jsonb = clerk_json_text_to_jsonb(body->text, body->len, &fault);

	if (jsonb == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the request body %s", fault)));
	return jsonb;
}

void
clerk_params_describe(const ClerkParams *params, char **message, char **detail, char **hint)
{
	int			count = list_length(params->faults);
	ClerkFault *first = linitial(params->faults);
	StringInfoData others;

	initStringInfo(&others);
	for (int i = 1; i < count && i < MAX_FAULTS_IN_ERROR; i++)
		appendStringInfo(&others, "%sAlso, %s.", i > 1 ? "\n" : "",
						 ((ClerkFault *) list_nth(params->faults, i))->message);
	if (count > MAX_FAULTS_IN_ERROR)
		appendStringInfoString(&others, "\nMore are listed by check_enterprise_connection().");
	*message = first->message;
	*detail = others.len > 0 ? others.data : NULL;
	*hint = first->hint;
}

void
clerk_params_check(const ClerkParams *params)
{
	ClerkFault *first;
	char	   *message;
	char	   *detail;
	char	   *hint;

	if (params->faults == NIL)
		return;
	first = linitial(params->faults);
	clerk_params_describe(params, &message, &detail, &hint);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 *first->path ? err_generic_string(PG_DIAG_COLUMN_NAME, first->path) : 0));
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
static char *
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
	for (size_t i = 0; i < lengthof(levels); i++)
	{
		const char *last = strrchr(out.data, '.');

		if (is_path(out.data, levels[i], last ? last + 1 : out.data))
			return out.data;
	}
	return NULL;
}

static const char extra_path_fault[] =
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

/* The functions that SQL calls */

static ClerkOperation
operation_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *operation;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operation cannot be null"),
				 errhint("It must be \"create\" or \"update\".")));
	operation = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(operation, "create") == 0)
		return CLERK_OPERATION_CREATE;
	if (strcmp(operation, "update") == 0)
		return CLERK_OPERATION_UPDATE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown operation \"%s\"", operation),
			 errhint("It must be \"create\" or \"update\".")));
}

static List *
extra_params_argument(FunctionCallInfo fcinfo, int n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	List	   *paths = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *element = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		char	   *path = element ? read_extra_path(element) : NULL;

		if (path == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 element ?
					 errmsg("invalid name in extra_params: \"%s\"", element) :
					 errmsg("extra_params cannot have null elements"),
					 errhint("%s", extra_path_fault)));
		paths = lappend(paths, path);
	}
	return paths;
}

static ClerkParams *
read_arguments(FunctionCallInfo fcinfo)
{
	return clerk_params_read(PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0), NULL,
							 operation_argument(fcinfo, 1),
							 extra_params_argument(fcinfo, 2));
}

/*
 * enterprise_connection_body(params jsonb, operation text, extra_params text[])
 *
 * NULL for NULL, as a CHECK constraint on a nullable column wants it.
 */
Datum
enterprise_connection_body(PG_FUNCTION_ARGS)
{
	ClerkParams *params;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	params = read_arguments(fcinfo);
	clerk_params_check(params);
	PG_RETURN_JSONB_P(clerk_params_body_jsonb(params->body));
}

/*
 * A copy of a tree without the members that are secret.
 */
typedef struct Scrub
{
	const ParamLevel *level;	/* NULL: below an extra parameter */
	ClerkJson  *to;
} Scrub;

static ClerkJson *scrubbed(ClerkJson *json, const ParamLevel *level);

static bool
scrub_member(const char *name, ClerkJson *value, void *arg)
{
	Scrub	   *scrub = arg;
	const ParamDef *def = NULL;

	for (int i = 0; scrub->level && i < scrub->level->count; i++)
		if (strcmp(scrub->level->params[i].name, name) == 0)
			def = &scrub->level->params[i];
	if (def ? !(def->flags & PARAM_SECRET) : !sounds_secret(name))
		clerk_json_set(scrub->to, name, scrubbed(value, def ? def->members : NULL));
	return true;
}

static ClerkJson *
scrubbed(ClerkJson *json, const ParamLevel *level)
{
	Scrub		scrub = {.level = level};

	if (clerk_json_type(json) != CLERK_JSON_OBJECT)
		return json;
	scrub.to = clerk_json_new_object();
	clerk_json_each(json, scrub_member, &scrub);
	return scrub.to;
}

/*
 * enterprise_connection_without_secrets(params jsonb), of stored parameters
 */
Datum
enterprise_connection_without_secrets(PG_FUNCTION_ARGS)
{
	Jsonb	   *params = PG_GETARG_JSONB_P(0);
	const char *fault;
	ClerkJson  *tree = clerk_json_from_jsonb(params, &fault);

	if (tree == NULL)
		PG_RETURN_JSONB_P(params);
	PG_RETURN_JSONB_P(clerk_json_to_jsonb(scrubbed(tree, &top_level)));
}

/*
 * check_enterprise_connection(params jsonb, operation text, extra_params text[])
 */
Datum
check_enterprise_connection(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	List	   *faults;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller;
		TupleDesc	desc;

		call = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(desc);
		call->user_fctx = read_arguments(fcinfo)->faults;
		MemoryContextSwitchTo(caller);
	}

	call = SRF_PERCALL_SETUP();
	faults = call->user_fctx;
	if (call->call_cntr < (uint64) list_length(faults))
	{
		ClerkFault *fault = list_nth(faults, (int) call->call_cntr);
		Datum		values[3];
		bool		nulls[3] = {false, false, fault->hint == NULL};

		values[0] = CStringGetTextDatum(fault->path);
		values[1] = CStringGetTextDatum(fault->message);
		values[2] = fault->hint ? CStringGetTextDatum(fault->hint) : (Datum) 0;
		SRF_RETURN_NEXT(call, HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, values, nulls)));
	}
	SRF_RETURN_DONE(call);
}
