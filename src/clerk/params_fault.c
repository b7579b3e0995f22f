/*-------------------------------------------------------------------------
 *
 * params_fault.c
 *		What is wrong with parameters, in words.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/closest.h"
#include "clerk/params_internal.h"
#include "mb/pg_wchar.h"

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

/* Of an unknown name, a message shows about so many bytes. */
#define MAX_SHOWN_LENGTH 64

/*
 * A list of faults is for people; and finding the closest name for each of a
 * million wrong ones would take minutes.
 */
#define MAX_FAULTS 100

/* An error shows no more; check_enterprise_connection() is for the rest. */
#define MAX_FAULTS_IN_ERROR 10

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

char *
path_text(const Path *path)
{
	StringInfoData out;

	initStringInfo(&out);
	append_path(&out, path);
	return out.data;
}

void
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

void
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

	for (size_t i = 0; i < PARAM_LEVELS; i++)
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
	for (size_t i = 0; i < PARAM_LEVELS; i++)
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

void
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

void
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
