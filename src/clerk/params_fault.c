/*-------------------------------------------------------------------------
 *
 * params_fault.c
 *		What is wrong with parameters, in words.
 *
 * A message names a parameter as the caller spelled it, in camelCase or in
 * snake_case, and a hint offers names in the same way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/closest.h"
#include "base/text.h"
#include "clerk/params_internal.h"
#include "lib/stringinfo.h"

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

/* An unknown name is cut after about this many bytes. */
#define MAX_SHOWN_LENGTH 64

/*
 * A list of faults is for people; and finding the closest name for each of a
 * million wrong ones would take minutes.
 */
#define MAX_FAULTS 100

/* An error shows no more; check_enterprise_connection() is for the rest. */
#define MAX_FAULTS_IN_ERROR 10

/*-------------------------------------------------------------------------
 * Names in messages
 *-------------------------------------------------------------------------
 */

/*
 * Append a name that may be anything: not too long, and with every character
 * visible.
 */
static void
append_shown(StringInfo out, const char *name, size_t len)
{
	char	   *utf8 = pg_server_to_any(pnstrdup(name, len), (int) len, PG_UTF8);
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
		/* A no-break space looks like a space. */
		if (clerk_text_is_unprintable(c) || c == 0xa0)
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
	append_shown(out, path->name, path->len);
}

char *
clerk_param_path(const Path *path)
{
	StringInfoData out;

	initStringInfo(&out);
	append_path(&out, path);
	return out.data;
}

/*-------------------------------------------------------------------------
 * camelCase or snake_case?
 *-------------------------------------------------------------------------
 */

static Spelling
spelling_of_name(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (name[i] >= 'A' && name[i] <= 'Z')
			return SPELLING_CAMEL;
		if (name[i] == '_' || name[i] == '-')
			return SPELLING_SNAKE;
	}
	return SPELLING_EITHER;
}

static Spelling
spelling_of_document(Jsonb *params)
{
	JsonbIterator *iterator = JsonbIteratorInit(&params->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		Spelling	spelling = token == WJB_KEY ?
		spelling_of_name(value.val.string.val, value.val.string.len) : SPELLING_EITHER;

		if (spelling != SPELLING_EITHER)
			return spelling;
	}
	return SPELLING_EITHER;
}

/*
 * How does the caller spell names at path?  The nearest name tells that has
 * more than one word; else any other one.
 */
static bool
is_camel(Reader *reader, const Path *path)
{
	Spelling	spelling = SPELLING_EITHER;

	for (; path != NULL && spelling == SPELLING_EITHER; path = path->parent)
		if (path->name != NULL)
			spelling = spelling_of_name(path->name, path->len);
	if (spelling != SPELLING_EITHER)
		return spelling == SPELLING_CAMEL;
	if (reader->spelling == SPELLING_UNKNOWN)
		reader->spelling = reader->params ? spelling_of_document(reader->params) : SPELLING_EITHER;
	return reader->spelling == SPELLING_CAMEL;
}

/* A name, or a path, of the table in the caller's spelling. */
static const char *
spelled(bool camel, const char *wire)
{
	return camel ? clerk_param_camel_name(wire) : wire;
}

/*-------------------------------------------------------------------------
 * Faults
 *-------------------------------------------------------------------------
 */

void
clerk_param_fault(Reader *reader, const Path *path, const char *message, const char *hint)
{
	ClerkFault *fault;

	if (reader->full)
		return;
	fault = palloc(sizeof(ClerkFault));
	if (list_length(reader->result->faults) == MAX_FAULTS)
	{
		reader->full = true;
		path = NULL;
		message = psprintf("there are more faults than these %d", MAX_FAULTS);
		hint = NULL;
	}
	fault->path = clerk_param_path(path);
	fault->message = pstrdup(message);
	fault->hint = hint ? pstrdup(hint) : NULL;
	reader->result->faults = lappend(reader->result->faults, fault);
}

void
clerk_param_type_fault(Reader *reader, const Path *path, ClerkParamType type, const JsonbValue *value)
{
	ClerkJsonType given = clerk_jsonb_type(value);
	const char *hint = NULL;

	if (type == PARAM_BOOLEAN && given == CLERK_JSON_STRING)
		hint = "Write true or false, without quotes.";
	else if (type == PARAM_TEXT_ARRAY && given == CLERK_JSON_STRING)
		hint = "Write it as an array, even of one: [\"...\"].";
	else if (type == PARAM_OBJECT_ARRAY && given == CLERK_JSON_OBJECT)
		hint = "Write it as an array, even of one: [{...}].";
	clerk_param_fault(reader, path,
					  psprintf("parameter \"%s\" must be %s, not %s",
							   clerk_param_path(path), clerk_param_wanted(type), clerk_jsonb_type_name(value)),
					  hint);
}

/* The dotted path of a parameter in its table. */
static char *
table_path(const ParamLevel *level, const char *name)
{
	if (*level->path == '\0')
		return pstrdup(name);
	return psprintf("%s%s.%s", level->path,
					clerk_param_find(&clerk_param_top, level->path) &&
					clerk_param_find(&clerk_param_top, level->path)->type == PARAM_OBJECT_ARRAY ? "[]" : "", name);
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
 * What was probably meant by an unknown name (in the wire's spelling, if it
 * has one): the same name at another place, else the closest name at this one,
 * else the closest anywhere.
 */
static const char *
find_meant(const Reader *reader, const ParamLevel *level, const Path *path, const char *name, bool camel)
{
	const ParamLevel *found = NULL;
	ClerkClosest search;

	for (size_t i = 0; i < lengthof(names_in_answers); i++)
		if (level == &clerk_param_top && strcmp(name, names_in_answers[i].name) == 0)
			return names_in_answers[i].meant;

	for (int i = 0; clerk_param_levels[i] != NULL; i++)
	{
		const ParamDef *param = clerk_param_find(clerk_param_levels[i], name);

		if (param && is_offered(reader, param))
			return spelled(camel, table_path(clerk_param_levels[i], name));
	}

	clerk_closest_start(&search, name);
	offer_level(reader, level, &search, &found);
	if (search.best)
	{
		Path		meant = {.parent = path->parent,.name = spelled(camel, search.best)};

		meant.len = strlen(meant.name);
		return clerk_param_path(&meant);
	}
	for (int i = 0; clerk_param_levels[i] != NULL; i++)
		offer_level(reader, clerk_param_levels[i], &search, &found);
	return search.best ? spelled(camel, table_path(found, search.best)) : NULL;
}

/* The hint where no known name is close. */
static char *
list_names(const Reader *reader, const ParamLevel *level, bool camel)
{
	StringInfoData out;
	const char *separator = "";

	initStringInfo(&out);
	if (*level->path)
		appendStringInfo(&out, "Valid members of \"%s\" are ", spelled(camel, level->path));
	else
		appendStringInfoString(&out, "Valid parameters are ");
	for (int i = 0; i < level->count; i++)
	{
		if (!is_offered(reader, &level->params[i]))
			continue;
		appendStringInfo(&out, "%s%s", separator, spelled(camel, level->params[i].name));
		separator = ", ";
	}
	appendStringInfoString(&out, ". What is newer than this release can be listed in extra_params.");
	return out.data;
}

void
clerk_param_unknown(Reader *reader, const ParamLevel *level, const Path *path)
{
	char		wire[MAX_NAME_LENGTH + 1];
	bool		camel = is_camel(reader, path);
	StringInfoData shown;
	const char *meant;

	initStringInfo(&shown);
	if (clerk_param_wire_name(path->name, path->len, wire))
		appendStringInfoString(&shown, wire);
	else
		append_shown(&shown, path->name, path->len);
	meant = find_meant(reader, level, path, shown.data, camel);
	clerk_param_fault(reader, path,
					  psprintf("unknown parameter \"%s\"", clerk_param_path(path)),
					  meant ? psprintf("Perhaps you meant the parameter \"%s\".", meant) :
					  list_names(reader, level, camel));
}

/*-------------------------------------------------------------------------
 * Errors
 *-------------------------------------------------------------------------
 */

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
