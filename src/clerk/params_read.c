/*-------------------------------------------------------------------------
 *
 * params_read.c
 *		Parameters become a request body, or a list of faults.
 *
 * The body is built of values that still lie in the jsonb that was given, and
 * then written as text: that is the only conversion.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clerk/params_internal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

/* A value that was given, and how it was. */
typedef struct Given
{
	const JsonbPair *pair;		/* NULL: not given */
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
	Given		given[MAX_LEVEL_PARAMS];
	List	   *extras;			/* of Extra * */
} Members;

/* Where what is read goes; NULL: that is not sent. */
typedef struct Target
{
	JsonbValue *body;			/* what this operation takes */
	JsonbValue *patch;			/* what a create must send by an update after
								 * it */
} Target;

static void read_object(Reader *reader, const ParamLevel *level, const Path *path,
						const JsonbValue *object, Target target);

/*-------------------------------------------------------------------------
 * Sorting an object's members into the slots of its table
 *-------------------------------------------------------------------------
 */

static Path
member_path(const Path *parent, const JsonbPair *pair)
{
	Path		path = {.parent = parent,.name = pair->key.val.string.val,.len = pair->key.val.string.len};

	return path;
}

static void
add_twice_fault(Members *members, const Given *first, const Given *second)
{
	Path		path = member_path(members->path, first->pair);
	Path		other = member_path(NULL, second->pair);
	Path		alone = member_path(NULL, first->pair);
	char	   *shown = clerk_param_path(&path);

	clerk_param_fault(members->reader, &path,
					  first->named != second->named ?
					  psprintf("parameter \"%s\" is given both in params and as an argument", shown) :
					  psprintf("parameter \"%s\" is given twice, as \"%s\" and as \"%s\"", shown,
							   clerk_param_path(&alone), clerk_param_path(&other)),
					  NULL);
}

static void
collect_extra(Members *members, const char *name, const Given *given)
{
	ListCell   *lc;
	Extra	   *extra;

	foreach(lc, members->extras)
	{
		extra = lfirst(lc);
		if (strcmp(extra->name, name) == 0)
		{
			add_twice_fault(members, &extra->given, given);
			return;
		}
	}
	extra = palloc(sizeof(Extra));
	extra->name = pstrdup(name);
	extra->given = *given;
	members->extras = lappend(members->extras, extra);
}

static void
collect_member(Members *members, const JsonbPair *pair, bool named)
{
	Reader	   *reader = members->reader;
	Path		path = member_path(members->path, pair);
	Given		given = {.pair = pair,.named = named};
	char		wire[MAX_NAME_LENGTH + 1];
	bool		is_name = clerk_param_wire_name(path.name, path.len, wire);
	const ParamDef *param = is_name ? clerk_param_find(members->level, wire) : NULL;

	CHECK_FOR_INTERRUPTS();
	if (param)
	{
		Given	   *slot = &members->given[param - members->level->params];

		if (slot->pair)
			add_twice_fault(members, slot, &given);
		else
			*slot = given;
	}
	else if (is_name && clerk_param_is_extra(reader->extra_params, members->level, wire))
		collect_extra(members, wire, &given);
	else
		clerk_param_unknown(reader, members->level, &path);
}

/* Returns how many members there are. */
static int
collect_members(Members *members, const JsonbValue *object, bool named)
{
	int			count;
	const JsonbPair *pairs = clerk_jsonb_members(object, &count);

	for (int i = 0; i < count && !members->reader->full; i++)
		collect_member(members, &pairs[i], named);
	return count;
}

/*-------------------------------------------------------------------------
 * Checking one value and giving it to the body
 *-------------------------------------------------------------------------
 */

static void
note_secret(Reader *reader, const JsonbValue *value)
{
	char	   *secret;
	int			len;

	if (value->type != jbvString || value->val.string.len == 0)
		return;
	len = value->val.string.len;
	secret = pnstrdup(value->val.string.val, len);
	reader->result->secrets = lappend(reader->result->secrets, pg_server_to_any(secret, len, PG_UTF8));
}

static void
add_null_fault(Reader *reader, const Path *path)
{
	clerk_param_fault(reader, path, psprintf("parameter \"%s\" cannot be null", clerk_param_path(path)), NULL);
}

/* Every element must be of one type: a string or, with members, an object. */
static JsonbValue
read_array(Reader *reader, const ParamDef *param, const Path *path, const JsonbValue *array)
{
	ClerkParamType type = param->type == PARAM_TEXT_ARRAY ? PARAM_TEXT : PARAM_OBJECT;
	JsonbValue	read = clerk_jsonb_new_array();
	int			count;
	const JsonbValue *elements = clerk_jsonb_elements(array, &count);

	if ((param->flags & PARAM_FILLED_ON_UPDATE) && reader->operation == CLERK_OPERATION_UPDATE && count == 0)
		clerk_param_fault(reader, path,
						  psprintf("parameter \"%s\" cannot be empty in an update", clerk_param_path(path)),
						  "Clerk would ignore it. Leave it out to keep what is there, or name all that shall remain.");

	for (int i = 0; i < count && !reader->full; i++)
	{
		Path		element_path = {.parent = path,.position = i};
		const JsonbValue *element = &elements[i];

		CHECK_FOR_INTERRUPTS();
		if (element->type == jbvNull)
			add_null_fault(reader, &element_path);
		else if (clerk_jsonb_type(element) != clerk_param_json_type(type))
			clerk_param_type_fault(reader, &element_path, type, element);
		else if (type == PARAM_OBJECT)
		{
			JsonbValue	object = clerk_jsonb_new_object();
			Target		target = {.body = &object};

			read_object(reader, param->members, &element_path, element, target);
			clerk_jsonb_append(&read, object);
		}
	}
	return type == PARAM_OBJECT ? read : *array;
}

static void
read_part(Reader *reader, const ParamDef *param, const Path *path, const JsonbValue *object, Target target)
{
	JsonbValue	body = clerk_jsonb_new_object();
	JsonbValue	patch = clerk_jsonb_new_object();
	Target		parts = {.body = target.body ? &body : NULL,.patch = &patch};

	read_object(reader, param->members, path, object, parts);
	if (patch.val.object.nPairs > 0 || target.body == NULL)
		clerk_jsonb_add(target.patch, param->name, patch);
	/* If all its members go into the PATCH, leave it out of the body. */
	if (target.body != NULL && (patch.val.object.nPairs == 0 || body.val.object.nPairs > 0))
		clerk_jsonb_add(target.body, param->name, body);
}

/*
 * The provider is settled when the connection is created.  An upsert may name it.
 */
static void
read_settled(Reader *reader, const Path *path, const JsonbValue *value)
{
	const char *known = reader->known_provider;
	char	   *given;

	if (!reader->upserts || value->type != jbvString)
	{
		clerk_param_fault(reader, path,
						  psprintf("parameter \"%s\" cannot be changed", clerk_param_path(path)),
						  "It is settled when the connection is created.");
		return;
	}
	given = pnstrdup(value->val.string.val, value->val.string.len);
	if (known != NULL && strcmp(given, known) != 0)
		clerk_param_fault(reader, path,
						  psprintf("the provider of an enterprise connection cannot be changed from \"%s\" to \"%s\"",
								   known, given),
						  "Delete the connection and create it anew; its URLs at the identity provider will be others.");
}

static void
read_value(Reader *reader, const ParamDef *param, const Path *path, const JsonbValue *value, Target target)
{
	ClerkOperation operation = reader->operation;
	JsonbValue *to;

	if (!(param->operations & operation))
	{
		if (operation == CLERK_OPERATION_UPDATE)
		{
			read_settled(reader, path, value);
			return;
		}
		operation = CLERK_OPERATION_UPDATE;
		target.body = NULL;
	}
	to = target.body ? target.body : target.patch;
	Assert(to != NULL);

	if (value->type == jbvNull)
	{
		if (param->nullable & (reader->nulls_of_update ? CLERK_OPERATION_UPDATE : operation))
			clerk_jsonb_add(to, param->name, *value);
		else
			add_null_fault(reader, path);
	}
	else if (clerk_jsonb_type(value) != clerk_param_json_type(param->type))
		clerk_param_type_fault(reader, path, param->type, value);
	else if (param->type == PARAM_OBJECT)
		read_part(reader, param, path, value, target);
	else if (param->type == PARAM_TEXT_ARRAY || param->type == PARAM_OBJECT_ARRAY)
		clerk_jsonb_add(to, param->name, read_array(reader, param, path, value));
	else
	{
		if (param->flags & PARAM_SECRET)
			note_secret(reader, value);
		clerk_jsonb_add(to, param->name, *value);
	}
}

static void
read_members(Members *members, Target target)
{
	ListCell   *lc;

	for (int i = 0; i < members->level->count && !members->reader->full; i++)
	{
		const JsonbPair *pair = members->given[i].pair;
		Path		path;

		if (pair == NULL)
			continue;
		path = member_path(members->path, pair);
		read_value(members->reader, &members->level->params[i], &path, &pair->value, target);
	}
	foreach(lc, members->extras)
	{
		Extra	   *extra = lfirst(lc);
		const JsonbValue *value = &extra->given.pair->value;

		if (clerk_param_sounds_secret(extra->name, strlen(extra->name)))
			note_secret(members->reader, value);
		clerk_jsonb_add(target.body ? target.body : target.patch, extra->name, *value);
	}
}

static void
start_members(Members *members, Reader *reader, const ParamLevel *level, const Path *path)
{
	memset(members, 0, sizeof(Members));
	members->reader = reader;
	members->level = level;
	members->path = path;
}

static void
read_object(Reader *reader, const ParamLevel *level, const Path *path, const JsonbValue *object, Target target)
{
	Members		members;

	start_members(&members, reader, level, path);
	(void) collect_members(&members, object, false);
	read_members(&members, target);
}

/*-------------------------------------------------------------------------
 * The top level
 *-------------------------------------------------------------------------
 */

static Given *
top_slot(Members *members, const char *name)
{
	return &members->given[clerk_param_find(&clerk_param_top, name) - clerk_param_top.params];
}

static bool
is_object(const Given *given)
{
	return given->pair != NULL && clerk_jsonb_type(&given->pair->value) == CLERK_JSON_OBJECT;
}

/*
 * A create need not name the provider: it follows from the protocol.  With both
 * protocols or none, Clerk will ask for one.
 */
static void
infer_provider(Members *members)
{
	Given	   *provider = top_slot(members, "provider");
	bool		oidc = is_object(top_slot(members, "oidc"));
	bool		saml = is_object(top_slot(members, "saml"));
	JsonbPair  *pair;

	if (provider->pair || oidc == saml)
		return;
	pair = palloc0(sizeof(*pair));
	pair->key = clerk_jsonb_new_string("provider");
	pair->value = clerk_jsonb_new_string(oidc ? "oidc_custom" : "saml_custom");
	provider->pair = pair;
	members->reader->result->inferred = true;
}

/*
 * False, and a fault, if they are no object, or cannot be written.
 */
static bool
check_params(Reader *reader, const JsonbValue *params)
{
	const char *fault = clerk_jsonb_fault(params);
	const char *hint = NULL;

	if (fault)
		clerk_param_fault(reader, NULL, psprintf("params %s", fault), NULL);
	else if (clerk_jsonb_type(params) != CLERK_JSON_OBJECT)
	{
		if (params->type == jbvString && params->val.string.len > 0 && *params->val.string.val == '{')
			hint = "It seems to have been encoded as JSON twice.";
		clerk_param_fault(reader, NULL,
						  psprintf("params must be a JSON object, not %s", clerk_jsonb_type_name(params)),
						  hint);
	}
	return reader->result->faults == NIL;
}

/*
 * The same of each named argument, which can be a whole document.
 */
static bool
check_named(Reader *reader, const JsonbValue *named)
{
	int			count;
	const JsonbPair *pairs = clerk_jsonb_members(named, &count);

	for (int i = 0; i < count; i++)
	{
		const char *fault = clerk_jsonb_fault(&pairs[i].value);
		Path		path = member_path(NULL, &pairs[i]);

		if (fault)
			clerk_param_fault(reader, &path, psprintf("parameter \"%s\" %s", clerk_param_path(&path), fault), NULL);
	}
	return reader->result->faults == NIL;
}

static ClerkBody *
make_body(Reader *reader, JsonbValue document)
{
	ClerkBody  *body;

	if (document.val.object.nPairs == 0 && reader->operation == CLERK_OPERATION_UPDATE)
		return NULL;
	body = palloc(sizeof(ClerkBody));
	body->document = document;
	body->text = clerk_jsonb_write(&document, &body->len);
	if (body->len > CLERK_MAX_BODY)
		clerk_param_fault(reader, NULL,
						  psprintf("the request body has %zu bytes, but must not have more than %d",
								   body->len, CLERK_MAX_BODY), NULL);
	return body;
}

static void
read_top(Reader *reader, const JsonbValue *named)
{
	ClerkParams *result = reader->result;
	JsonbValue	body = clerk_jsonb_new_object();
	JsonbValue	patch = clerk_jsonb_new_object();
	Target		target = {.body = &body,.patch = &patch};
	JsonbValue	params;
	int			count = 0;
	Members		members;

	start_members(&members, reader, &clerk_param_top, NULL);
	if (reader->params)
	{
		params = clerk_jsonb_value(reader->params);
		if (check_params(reader, &params))
			count += collect_members(&members, &params, false);
	}
	if (named && check_named(reader, named))
		count += collect_members(&members, named, true);
	if (result->faults == NIL && count == 0)
		clerk_param_fault(reader, NULL, "no parameters were given",
						  "Give at least one, such as {\"name\": \"Acme\"}.");
	if (reader->operation == CLERK_OPERATION_CREATE)
		infer_provider(&members);
	read_members(&members, target);

	if (result->faults != NIL)
		return;
	result->body = make_body(reader, body);
	if (patch.val.object.nPairs > 0)
		result->patch = make_body(reader, patch);
	if (result->faults != NIL)
		result->body = result->patch = NULL;
}

ClerkParams *
clerk_params_read(Jsonb *params, const JsonbValue *named, ClerkOperation operation, List *extra_params)
{
	Reader		reader = {
		.operation = operation == CLERK_OPERATION_UPSERT ? CLERK_OPERATION_CREATE : operation,
		.nulls_of_update = operation == CLERK_OPERATION_UPSERT,
		.extra_params = extra_params,
		.params = params,
		.result = palloc0(sizeof(ClerkParams)),
	};

	read_top(&reader, named);
	return reader.result;
}

ClerkParams *
clerk_params_read_upsert(Jsonb *params, const char *provider, List *extra_params)
{
	Reader		reader = {
		.operation = CLERK_OPERATION_UPDATE,
		.extra_params = extra_params,
		.params = params,
		.upserts = true,
		.known_provider = provider,
		.result = palloc0(sizeof(ClerkParams)),
	};

	read_top(&reader, NULL);
	return reader.result;
}

Jsonb *
clerk_params_given(const ClerkParams *params)
{
	JsonbValue	body = params->body->document;
	JsonbValue	given = clerk_jsonb_new_object();
	Jsonb	   *packed;

	for (int i = 0; i < body.val.object.nPairs; i++)
	{
		const JsonbPair *pair = &body.val.object.pairs[i];
		char	   *name = pnstrdup(pair->key.val.string.val, pair->key.val.string.len);

		if (!params->inferred || strcmp(name, "provider") != 0)
			clerk_jsonb_add(&given, name, pair->value);
	}
	packed = clerk_jsonb_pack(&given);
	return params->patch ? clerk_jsonb_merge(packed, clerk_jsonb_pack(&params->patch->document)) : packed;
}

/*-------------------------------------------------------------------------
 * Looking one up
 *-------------------------------------------------------------------------
 */

static ClerkParamInfo *
param_info(const char *path, const ParamDef *param)
{
	ClerkParamInfo *info = palloc0(sizeof(*info));

	info->path = pstrdup(path);
	if (param == NULL)
		return info;
	info->known = true;
	info->type = clerk_param_json_type(param->type);
	info->of_strings = param->type == PARAM_TEXT_ARRAY;
	info->wanted = clerk_param_wanted(param->type);
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
	};
	const ParamLevel *level = &clerk_param_top;
	Path	   *path = NULL;

	while (result.faults == NIL)
	{
		Path	   *here = palloc0(sizeof(*here));
		const ParamDef *param = NULL;
		char		wire[MAX_NAME_LENGTH + 1];
		bool		last;

		here->parent = path;
		here->name = given;
		here->len = strcspn(given, ".");
		path = here;
		last = given[path->len] == '\0';
		given += path->len + !last;
		if (clerk_param_wire_name(path->name, path->len, wire))
			param = clerk_param_find(level, wire);
		else
			*wire = '\0';
		if (last && (param != NULL || clerk_param_is_extra(extra_params, level, wire)))
			return param_info(psprintf("%s%s%s", level->path, *level->path ? "." : "", wire), param);
		if (param == NULL)
			clerk_param_unknown(&reader, level, path);
		else if (param->type != PARAM_OBJECT)
			clerk_param_fault(&reader, path,
							  psprintf("parameter \"%s\" is %s and has no members of its own",
									   clerk_param_path(path), clerk_param_wanted(param->type)), NULL);
		else
			level = param->members;
	}
	*fault = linitial(result.faults);
	return NULL;
}
