/*-------------------------------------------------------------------------
 *
 * arguments.c
 *		From the text of a trigger's arguments to its mapping.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/closest.h"
#include "base/jsonb_read.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "mb/pg_wchar.h"
#include "trigger/mapping.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

/* pg_attribute.attgenerated of a column that is computed when it is read (18). */
#define GENERATED_VIRTUAL 'v'

/* What an argument is read against. */
typedef struct Reader
{
	Mapping    *mapping;
	TupleDesc	desc;
	List	   *extra_params;
	const char *argument;		/* as a message shows it */
	char	   *name;			/* left of the equals sign */
	char	   *value;			/* right of it */
	bool		constant;		/* it was := */
	bool		special;		/* no parameter */
	int			nargs;			/* all of them */
	char	  **args;
} Reader;

static const char *const special_arguments[] = {"key", "server", "when", "removal"};

/*
 * What can be wrong with an argument; message is a clause, hint may be NULL.
 */
static void
refuse(const Reader *reader, int sqlerrcode, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("argument \"%s\" of trigger \"%s\": %s", reader->argument,
					reader->mapping->trigger, message),
			 hint ? errhint("%s", hint) : 0));
}

static char *
trimmed(const char *text, size_t len)
{
	while (len > 0 && isspace((unsigned char) *text))
		text++, len--;
	while (len > 0 && isspace((unsigned char) text[len - 1]))
		len--;
	return pnstrdup(text, len);
}

/*
 * Split an argument.  A message shows the whole of it; but of a parameter's
 * constant only the name, as the value may be a secret.
 */
static void
split_argument(Reader *reader, const char *argument)
{
	const char *equals = strchr(argument, '=');

	reader->argument = argument;
	if (equals == NULL)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it has no equals sign",
			   "Write \"parameter=column\" or \"parameter:=constant\".");
	reader->constant = equals > argument && equals[-1] == ':';
	reader->name = trimmed(argument, (size_t) (equals - argument) - reader->constant);
	reader->value = reader->constant ? pstrdup(equals + 1) : trimmed(equals + 1, strlen(equals + 1));
	reader->special = false;
	for (size_t i = 0; i < lengthof(special_arguments); i++)
		reader->special |= strcmp(reader->name, special_arguments[i]) == 0;
	if (reader->constant && !reader->special)
		reader->argument = psprintf("%s:=", reader->name);
}

/*
 * The statement that makes the trigger anew with another column in this
 * argument, for one that was renamed.  A constant may be a secret: it is left
 * out.  NULL for a constraint trigger, which cannot be replaced.
 */
static char *
mending_statement(const Reader *reader, const char *column)
{
	char	   *definition = TextDatumGetCString(DirectFunctionCall1(pg_get_triggerdef,
																	 ObjectIdGetDatum(reader->mapping->declared)));
	const char *call = strstr(definition, " EXECUTE FUNCTION ");
	const char *arguments = call ? strchr(call, '(') : NULL;
	StringInfoData statement;

	if (strncmp(definition, "CREATE TRIGGER ", 15) != 0 || arguments == NULL)
		return NULL;
	initStringInfo(&statement);
	appendStringInfo(&statement, "CREATE OR REPLACE TRIGGER %.*s(",
					 (int) (arguments - definition) - 15, definition + 15);
	for (int i = 0; i < reader->nargs; i++)
	{
		Reader		other = {.mapping = reader->mapping};
		const char *shown = reader->args[i];

		split_argument(&other, shown);
		if (strcmp(shown, reader->argument) == 0)
			shown = psprintf("%.*s=%s%s", (int) (strchr(shown, '=') - shown), shown,
							 strcmp(other.name, "key") == 0 ? reader->mapping->prefix : "", column);
		else if (other.constant && !other.special)
			shown = psprintf("%s:=...", other.name);
		appendStringInfo(&statement, "%s%s", i > 0 ? ", " : "", quote_literal_cstr(shown));
	}
	appendStringInfoString(&statement, ");");
	return statement.data;
}

/*
 * The column that an argument names.
 */
static Column *
read_column(const Reader *reader)
{
	ClerkClosest search;
	char	   *mended;

	clerk_closest_start(&search, reader->value);
	for (int i = 0; i < reader->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(reader->desc, i);

		if (attribute->attisdropped)
			continue;
		if (strcmp(NameStr(attribute->attname), reader->value) != 0)
		{
			clerk_closest_offer(&search, NameStr(attribute->attname));
			continue;
		}
		if (attribute->attgenerated == GENERATED_VIRTUAL)
			refuse(reader, ERRCODE_FEATURE_NOT_SUPPORTED,
				   psprintf("column \"%s\" is a virtual generated column", reader->value),
				   "A trigger does not see its value; make it a stored one.");
		return clerk_make_column(attribute);
	}
	mended = mending_statement(reader, search.best ? search.best : "column");
	refuse(reader, ERRCODE_UNDEFINED_COLUMN, psprintf("there is no column \"%s\"", reader->value),
		   psprintf("%s%s%s", search.best ? psprintf("Perhaps you meant the column \"%s\".", search.best) : "",
					search.best && mended ? " " : "", mended ? psprintf("If the column was renamed: %s", mended) : ""));
	return NULL;				/* not reached */
}

/*
 * Split "prefix:column".  The prefix has no colon: so two of them never make one
 * key.  NULL if it is not of this form.
 */
static char *
split_key(const char *value, const char **column)
{
	const char *colon = strchr(value, ':');

	if (colon == NULL || colon == value || colon[1] == '\0' || strchr(colon + 1, ':') != NULL)
		return NULL;
	*column = colon + 1;
	return pnstrdup(value, (Size) (colon - value) + 1);
}

static void
read_key(Reader *reader)
{
	const char *colon = strrchr(reader->value, ':');
	const char *name;
	Column	   *column;

	reader->mapping->prefix = split_key(reader->value, &name);
	if (reader->mapping->prefix == NULL)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE,
			   colon ? "it is not of the form prefix:column" : "it needs a prefix",
			   psprintf("Write \"key=prefix:column\", such as \"key=org:%s\". The prefix begins the keys of the table's "
						"connections for ever, whatever the table is called later, and is used by no other table.",
						colon == NULL ? reader->value : colon[1] == '\0' ? "id" : colon + 1));
	reader->value = pstrdup(name);
	column = read_column(reader);
	if (column->kind != COLUMN_TEXT && column->kind != COLUMN_INTEGER && column->kind != COLUMN_UUID)
		refuse(reader, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of type %s cannot be a key", column->name,
						format_type_be(column->type)),
			   "A key is an integer, a uuid or a text.");
	reader->mapping->key = column;
}

static void
read_when(const Reader *reader)
{
	Column	   *column = read_column(reader);

	if (column->kind != COLUMN_BOOLEAN)
		refuse(reader, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of type %s is not boolean", column->name,
						format_type_be(column->type)), NULL);
	reader->mapping->when = column;
	reader->mapping->columns = lappend(reader->mapping->columns, column);
}

static void
read_removal(const Reader *reader)
{
	if (strcmp(reader->value, "deactivate") == 0)
		reader->mapping->removal = REMOVAL_DEACTIVATE;
	else if (strcmp(reader->value, "delete") == 0)
		reader->mapping->removal = REMOVAL_DELETE;
	else if (strcmp(reader->value, "keep") == 0)
		reader->mapping->removal = REMOVAL_KEEP;
	else
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE,
			   "it must be deactivate, delete or keep", NULL);
}

/*
 * An argument that is not a parameter of the connection.  key and when name a
 * column; the others are constants, and server has been read before.
 */
static bool
read_special(Reader *reader)
{
	bool		key = strcmp(reader->name, "key") == 0;
	bool		when = strcmp(reader->name, "when") == 0;

	if (!reader->special)
		return false;
	if (reader->constant && (key || when))
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it must name a column",
			   psprintf("Write it as \"%s=%scolumn\".", reader->name, key ? "prefix:" : ""));
	if (!reader->constant && !key && !when)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it takes a constant, not a column",
			   psprintf("Write it as \"%s:=%s\".", reader->name, reader->value));
	if (key)
		read_key(reader);
	else if (when)
		read_when(reader);
	else if (strcmp(reader->name, "removal") == 0)
		read_removal(reader);
	return true;
}

/*
 * The leaf of a dotted path, made with the objects above it.
 */
static Member *
add_leaf(const Reader *reader, const char *path)
{
	Member	   *node = &reader->mapping->root;
	char	   *next = pstrdup(path);
	bool		found = false;
	bool		leaf = false;

	while (next != NULL)
	{
		char	   *name = strsep(&next, ".");
		Member	   *member = NULL;
		ListCell   *lc;

		found = false;
		foreach(lc, node->members)
		{
			member = lfirst(lc);
			found = strcmp(member->name, name) == 0;
			if (found)
				break;
		}
		leaf = found && member->members == NIL;
		if (leaf)
			break;				/* it was given before */
		if (!found)
		{
			member = palloc0(sizeof(*member));
			member->name = name;
			member->label = psprintf("\"%s\":", name);
			node->members = lappend(node->members, member);
		}
		node = member;
	}
	if (found)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("parameter \"%s\" is given twice%s", path,
						leaf && next == NULL ? "" : ", in part and as a whole"),
			   NULL);
	return node;
}

/*
 * Many tables have one domain a row.
 */
static bool
stands_for_array(const ClerkParamInfo *info, const Column *column)
{
	return column->kind == COLUMN_TEXT && strcmp(info->path, "domains") == 0;
}

static void
check_type(const Reader *reader, const ClerkParamInfo *info, const Column *column)
{
	bool		fits;

	switch (column->kind)
	{
		case COLUMN_TEXT:
		case COLUMN_UUID:
			fits = !info->known || info->type == CLERK_JSON_STRING || stands_for_array(info, column);
			break;
		case COLUMN_BOOLEAN:
			fits = !info->known || info->type == CLERK_JSON_BOOLEAN;
			break;
		case COLUMN_TEXT_ARRAY:
			fits = !info->known || info->of_strings;
			break;
		case COLUMN_JSON:
		case COLUMN_JSONB:
			fits = true;
			break;
		case COLUMN_INTEGER:
		case COLUMN_NUMBER:
			fits = !info->known;
			break;
		default:
			fits = false;
	}
	if (!fits)
		refuse(reader, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of type %s cannot be parameter \"%s\"", column->name,
						format_type_be(column->type), info->path),
			   info->known ? psprintf("The parameter must be %s; a jsonb column can hold any.", info->wanted) : NULL);
}

static void
map_column(const Reader *reader, const ClerkParamInfo *info)
{
	Mapping    *mapping = reader->mapping;
	Member	   *leaf = add_leaf(reader, info->path);

	leaf->column = read_column(reader);
	leaf->as_array = stands_for_array(info, leaf->column);
	leaf->null_on_update = !info->known || info->null_on_update;
	check_type(reader, info, leaf->column);
	if (!info->known || leaf->column->kind == COLUMN_JSON || leaf->column->kind == COLUMN_JSONB)
		mapping->checked = false;
	if (strcmp(info->path, "name") == 0)
		mapping->name = leaf;
	else if (strcmp(info->path, "domains") == 0)
		mapping->domains = leaf;
	mapping->columns = lappend(mapping->columns, leaf->column);
}

/*
 * Is this JSON, as a parameter's value?  Returns what is wrong, or NULL.
 */
static const char *
json_fault(const char *text)
{
	const char *utf8 = pg_server_to_any(text, (int) strlen(text), PG_UTF8);
	const char *fault;

	(void) clerk_jsonb_read(utf8, strlen(utf8), &fault);
	return fault;
}

/*
 * Check a constant as it would be in a call.
 */
static void
check_constant(const Reader *reader, const ClerkParamInfo *info, const char *json)
{
	StringInfoData params;
	int			depth = 0;
	char	   *next = pstrdup(info->path);
	ClerkParams *read;

	initStringInfo(&params);
	for (; next != NULL; depth++)
		appendStringInfo(&params, "{\"%s\":", strsep(&next, "."));
	appendStringInfoString(&params, json);
	while (depth-- > 0)
		appendStringInfoChar(&params, '}');

	read = clerk_params_read(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(params.data))),
							 NULL, CLERK_OPERATION_CREATE, reader->extra_params);
	if (read->faults != NIL)
	{
		ClerkFault *first = linitial(read->faults);

		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, first->message, first->hint);
	}
}

/*
 * A constant is text where the parameter is, else JSON.
 */
static void
map_constant(const Reader *reader, const ClerkParamInfo *info)
{
	Member	   *node = add_leaf(reader, info->path);
	bool		text = info->known && info->type == CLERK_JSON_STRING;
	const char *fault = text ? NULL : json_fault(reader->value);
	StringInfoData json;

	if (fault != NULL && info->known)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, psprintf("the constant %s", fault),
			   psprintf("The parameter must be %s.", info->wanted));
	initStringInfo(&json);
	if (text || fault != NULL)
		escape_json(&json, reader->value);
	else
		appendStringInfoString(&json, reader->value);
	node->constant = json.data;
	check_constant(reader, info, json.data);

	/* Members of an object can be spelled in several ways. */
	if (!info->known || info->type == CLERK_JSON_OBJECT ||
		(info->type == CLERK_JSON_ARRAY && !info->of_strings))
		reader->mapping->checked = false;
}

static void
read_parameter(const Reader *reader)
{
	ClerkFault *fault;
	ClerkParamInfo *info = clerk_params_find(reader->name, reader->extra_params, &fault);

	if (info == NULL)
	{
		ClerkClosest search;

		if (strcmp(reader->name, "key_prefix") == 0)
			refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "the prefix is part of the argument \"key\"",
				   psprintf("Write \"key=%s:column\".", reader->value));

		clerk_closest_start(&search, reader->name);
		for (size_t i = 0; i < lengthof(special_arguments); i++)
			clerk_closest_offer(&search, special_arguments[i]);
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, fault->message,
			   search.best ? psprintf("Perhaps you meant the argument \"%s\".", search.best) : fault->hint);
	}
	reader->mapping->maps_active |= strcmp(info->path, "active") == 0;
	if (reader->constant)
		map_constant(reader, info);
	else
		map_column(reader, info);
}

static const char *
server_argument(int nargs, char **args)
{
	const char *server = NULL;

	for (int i = 0; i < nargs; i++)
	{
		const char *equals = strchr(args[i], '=');

		if (equals != NULL && equals > args[i] && equals[-1] == ':' &&
			strcmp(trimmed(args[i], (size_t) (equals - args[i]) - 1), "server") == 0)
			server = equals + 1;
	}
	return server;
}

ClerkSettings *
clerk_arguments_settings(int nargs, char **args)
{
	return clerk_settings(server_argument(nargs, args), CLERK_USE_ENQUEUE);
}

/*
 * A row that has nothing for one of the two kinds of parameters leaves it out,
 * if the other is mapped, too.
 */
static void
mark_optional(Mapping *mapping)
{
	Member	   *kinds[2];
	int			count = 0;
	ListCell   *lc;

	foreach(lc, mapping->root.members)
	{
		Member	   *member = lfirst(lc);

		if (strcmp(member->name, "saml") == 0 || strcmp(member->name, "oidc") == 0)
			kinds[count++] = member;
	}
	if (count == 2)
		kinds[0]->optional = kinds[1]->optional = true;
}

void
clerk_read_arguments(Mapping *mapping, TupleDesc desc, int nargs, char **args)
{
	Reader		reader = {.mapping = mapping,.desc = desc,.nargs = nargs,.args = args};
	List	   *specials = NIL;

	/* The server's extra_params decide which names are known. */
	mapping->server = server_argument(nargs, args) ? pstrdup(server_argument(nargs, args)) : NULL;
	reader.extra_params = clerk_arguments_settings(nargs, args)->extra_params;
	mapping->checked = GetDatabaseEncoding() == PG_UTF8;
	for (int i = 0; i < nargs; i++)
	{
		ListCell   *lc;

		split_argument(&reader, args[i]);
		if (!read_special(&reader))
		{
			read_parameter(&reader);
			continue;
		}
		foreach(lc, specials)
			if (strcmp(lfirst(lc), reader.name) == 0)
			refuse(&reader, ERRCODE_INVALID_PARAMETER_VALUE, "it is given twice", NULL);
		specials = lappend(specials, reader.name);
	}
	if (mapping->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" has no argument \"key\"", mapping->trigger),
				 errhint("Name a prefix of the table's own and the column that identifies a row for ever, such as 'key=org:id'.")));
	mark_optional(mapping);
	if (mapping->root.members == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" maps no parameter", mapping->trigger),
				 errhint("Give at least one, such as 'name=name'.")));
}


char *
clerk_key_prefix(int nargs, char **args)
{
	for (int i = 0; i < nargs; i++)
	{
		Reader		reader = {.mapping = NULL};
		const char *column;

		if (strchr(args[i], '=') == NULL)
			continue;
		split_argument(&reader, args[i]);
		if (!reader.constant && strcmp(reader.name, "key") == 0)
			return split_key(reader.value, &column);
	}
	return NULL;
}
