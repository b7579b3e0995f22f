/*-------------------------------------------------------------------------
 *
 * params_read.c
 *		jsonb in, request body or a list of faults out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clerk/params_internal.h"
#include "miscadmin.h"
#include "utils/memutils.h"

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
		if (param->nullable & operation)
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
	return &members->given[find_param(&top_level, name) - top_level.params];
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
		.operation = operation,
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
