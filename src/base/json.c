/*-------------------------------------------------------------------------
 *
 * json.c
 *		JSON trees of json-c, for answers that jsonb may not be able to hold.
 *
 * What JSON is, PostgreSQL's own parser decides: the rules of json-c's
 * tokener, strict or not, differ from release to release (NaN, 'single quotes',
 * bare control characters).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include <json-c/json.h>

#include "base/compat.h"
#include "base/json.h"
#include "base/jsonb_read.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

/* utils/builtins.h has it too, and a function that is called json_object. */
extern Datum numeric_in(PG_FUNCTION_ARGS);

/* What clerk_json_salvage finds is shown to people: no more than an id. */
#define SALVAGE_MAX_LENGTH 255

/* All that belongs to one root; released with its memory context. */
typedef struct Owner
{
	MemoryContextCallback callback;
	struct json_object *root;
	struct json_tokener *tokener;
} Owner;

/* A tree on its way to jsonb. */
typedef struct Conversion
{
	ClerkJson  *json;
	char	   *(*clean) (const char *utf8, void *arg);
	void	   *arg;
	Jsonb	   *jsonb;
} Conversion;

/*-------------------------------------------------------------------------
 * Ownership
 *-------------------------------------------------------------------------
 */

static void
release_owner(void *arg)
{
	Owner	   *owner = arg;

	if (owner->tokener)
		json_tokener_free(owner->tokener);
	json_object_put(owner->root);
	owner->tokener = NULL;
	owner->root = NULL;
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while working on a JSON value.")));
}

static Owner *
new_owner(void)
{
	Owner	   *owner = palloc0(sizeof(Owner));

	owner->callback.func = release_owner;
	owner->callback.arg = owner;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &owner->callback);
	owner->tokener = json_tokener_new_ex(CLERK_JSON_MAX_DEPTH + 1);
	if (owner->tokener == NULL)
		out_of_memory();
	return owner;
}

/*-------------------------------------------------------------------------
 * Parsing
 *-------------------------------------------------------------------------
 */

/* Build the tree of a text that is known to be JSON. */
static ClerkJson *
parse_valid(const char *text, size_t len)
{
	Owner	   *owner = new_owner();

	owner->root = json_tokener_parse_ex(owner->tokener, text, (int) len);
	/* A number at the end is complete only when something follows it. */
	if (json_tokener_get_error(owner->tokener) == json_tokener_continue)
		owner->root = json_tokener_parse_ex(owner->tokener, "", 1);

	/* Short of memory, some releases report success and return NULL. */
	if (owner->root == NULL)
	{
		while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r')
			text++;
		if (*text != 'n')
			out_of_memory();
	}
	json_tokener_free(owner->tokener);
	owner->tokener = NULL;
	return owner->root;
}

ClerkJson *
clerk_json_parse(const char *text, size_t len, const char **fault)
{
	*fault = clerk_jsonb_text_fault(text, len);
	if (*fault == NULL && !clerk_compat_json_is_valid(unconstify(char *, text), len))
		*fault = clerk_jsonb_not_json;
	return *fault ? NULL : parse_valid(text, len);
}

static bool
is_printable_ascii(const char *string, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (string[i] <= ' ' || string[i] > '~')
			return false;
	return true;
}

char *
clerk_json_salvage(const char *text, size_t len, const char *name)
{
	Owner	   *owner = new_owner();
	struct json_object *top;
	struct json_object *value;
	char	   *result = NULL;

	owner->root = json_tokener_parse_ex(owner->tokener, text, (int) Min(len, INT_MAX));
	/* A member counts only when something follows it. */
	if (json_tokener_get_error(owner->tokener) == json_tokener_continue)
		owner->root = json_tokener_parse_ex(owner->tokener, ",", 1);

	/* Unfinished or broken: the top-level object, as far as it came. */
	top = owner->root ? owner->root : owner->tokener->stack[0].current;
	if (json_object_is_type(top, json_type_object) &&
		json_object_object_get_ex(top, name, &value) &&
		json_object_is_type(value, json_type_string))
	{
		size_t		n = json_object_get_string_len(value);
		const char *string = json_object_get_string(value);

		if (n >= 1 && n <= SALVAGE_MAX_LENGTH && is_printable_ascii(string, n))
			result = pnstrdup(string, n);
	}
	release_owner(owner);
	return result;
}

/*-------------------------------------------------------------------------
 * Looking into trees
 *-------------------------------------------------------------------------
 */

ClerkJsonType
clerk_json_type(ClerkJson *json)
{
	switch (json_object_get_type(json))
	{
		case json_type_null:
			return CLERK_JSON_NULL;
		case json_type_boolean:
			return CLERK_JSON_BOOLEAN;
		case json_type_int:
		case json_type_double:
			return CLERK_JSON_NUMBER;
		case json_type_string:
			return CLERK_JSON_STRING;
		case json_type_array:
			return CLERK_JSON_ARRAY;
		case json_type_object:
			return CLERK_JSON_OBJECT;
	}
	elog(ERROR, "unexpected type of JSON node");
	return CLERK_JSON_NULL;
}

bool
clerk_json_get(ClerkJson *json, const char *name, ClerkJson **value)
{
	*value = NULL;
	return json_object_is_type(json, json_type_object) &&
		json_object_object_get_ex(json, name, value);
}

const char *
clerk_json_get_string(ClerkJson *json, const char *name)
{
	ClerkJson  *value;

	return clerk_json_get(json, name, &value) && json_object_is_type(value, json_type_string) ?
		json_object_get_string(value) : NULL;
}

bool
clerk_json_boolean(ClerkJson *json)
{
	return json_object_is_type(json, json_type_boolean) && json_object_get_boolean(json);
}

int
clerk_json_length(ClerkJson *array)
{
	return json_object_is_type(array, json_type_array) ? (int) json_object_array_length(array) : 0;
}

ClerkJson *
clerk_json_element(ClerkJson *array, int n)
{
	return json_object_array_get_idx(array, n);
}

/*-------------------------------------------------------------------------
 * A tree as jsonb
 *-------------------------------------------------------------------------
 */

/*
 * A string in the server's encoding.  It throws what jsonb cannot hold.
 */
static char *
server_string(const Conversion *conversion, const char *utf8, size_t len)
{
	char	   *clean = conversion->clean(utf8, conversion->arg);

	if (strlen(utf8) != len)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("jsonb cannot hold a NUL character")));
	return pg_any_to_server(clean, (int) strlen(clean), PG_UTF8);
}

static JsonbValue
number_value(ClerkJson *number)
{
	const char *text = json_object_to_json_string_ext(number, JSON_C_TO_STRING_PLAIN);
	JsonbValue	value = {.type = jbvNumeric};

	if (text == NULL)
		out_of_memory();
	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
															ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return value;
}

static JsonbValue tree_value(const Conversion *conversion, ClerkJson *json);

static JsonbValue
object_value(const Conversion *conversion, ClerkJson *json)
{
	JsonbValue	value = clerk_jsonb_new_object();

	json_object_object_foreach(json, name, member)
	{
		clerk_jsonb_add(&value, server_string(conversion, name, strlen(name)),
						tree_value(conversion, member));
	}
	return value;
}

static JsonbValue
tree_value(const Conversion *conversion, ClerkJson *json)
{
	JsonbValue	value;

	check_stack_depth();
	switch (clerk_json_type(json))
	{
		case CLERK_JSON_NULL:
			break;
		case CLERK_JSON_BOOLEAN:
			return clerk_jsonb_new_boolean(json_object_get_boolean(json));
		case CLERK_JSON_NUMBER:
			return number_value(json);
		case CLERK_JSON_STRING:
			return clerk_jsonb_new_string(server_string(conversion, json_object_get_string(json),
														json_object_get_string_len(json)));
		case CLERK_JSON_ARRAY:
			value = clerk_jsonb_new_array();
			for (int i = 0; i < clerk_json_length(json); i++)
				clerk_jsonb_append(&value, tree_value(conversion, clerk_json_element(json, i)));
			return value;
		case CLERK_JSON_OBJECT:
			return object_value(conversion, json);
	}
	return clerk_jsonb_new_string(NULL);
}

static void
convert(void *arg)
{
	Conversion *conversion = arg;
	JsonbValue	value = tree_value(conversion, conversion->json);

	conversion->jsonb = clerk_jsonb_pack(&value);
}

Jsonb *
clerk_json_to_jsonb(ClerkJson *json, char *(*clean) (const char *utf8, void *arg), void *arg)
{
	Conversion	conversion = {.json = json,.clean = clean,.arg = arg};

	return clerk_jsonb_try(convert, &conversion) == 0 ? conversion.jsonb : NULL;
}
