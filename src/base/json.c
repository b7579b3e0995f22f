/*-------------------------------------------------------------------------
 *
 * json.c
 *		JSON trees: parsed with limits, walked, built, turned into jsonb.
 *
 * json-c holds the trees.  What JSON is, PostgreSQL's own parser decides: the
 * rules of json-c's tokener, strict or not, differ from release to release
 * (NaN, 'single quotes', bare control characters, integers beyond 64 bits).
 * Texts are written here and not by json-c, whose writer leaves pieces out
 * when it runs out of memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include <json-c/json.h>

#include "base/compat.h"
#include "base/json.h"
#include "base/jsonb.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* utils/builtins.h has it too, and a function that is called json_object. */
extern Datum numeric_out(PG_FUNCTION_ARGS);

/* What clerk_json_salvage finds is shown to people: no more than an id. */
#define SALVAGE_MAX_LENGTH 255

/* All that belongs to one root; released with its memory context. */
typedef struct ClerkJsonOwner
{
	MemoryContextCallback callback;
	struct json_object *root;
	struct json_tokener *tokener;
} ClerkJsonOwner;

/* Ownership */

static void
release_owner(void *arg)
{
	ClerkJsonOwner *owner = arg;

	if (owner->tokener)
		json_tokener_free(owner->tokener);
	json_object_put(owner->root);
	owner->tokener = NULL;
	owner->root = NULL;
}

static ClerkJsonOwner *
new_owner(void)
{
	ClerkJsonOwner *owner = palloc0(sizeof(ClerkJsonOwner));

	owner->callback.func = release_owner;
	owner->callback.arg = owner;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &owner->callback);
	return owner;
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while working on a JSON value.")));
}

/* A fresh node; json-c answers NULL only if memory is short. */
static struct json_object *
checked(struct json_object *node)
{
	if (node == NULL)
		out_of_memory();
	return node;
}

static ClerkJson *
own(ClerkJsonOwner *owner, struct json_object *node)
{
	return owner->root = checked(node);
}

/* Build the tree of a text that is known to be JSON. */
static ClerkJson *
parse_valid(const char *text, size_t len)
{
	ClerkJsonOwner *owner = new_owner();
	struct json_object *root;

	owner->tokener = json_tokener_new_ex(CLERK_JSON_MAX_DEPTH + 1);
	if (owner->tokener == NULL)
		out_of_memory();
	root = json_tokener_parse_ex(owner->tokener, text, (int) len);
	/* A number at the end is complete only when something follows it. */
	if (json_tokener_get_error(owner->tokener) == json_tokener_continue)
		root = json_tokener_parse_ex(owner->tokener, "", 1);
	owner->root = root;

	/* Short of memory, some releases report success and return NULL. */
	if (root == NULL)
	{
		while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r')
			text++;
		if (*text != 'n')
			out_of_memory();
	}
	json_tokener_free(owner->tokener);
	owner->tokener = NULL;
	return root;
}

ClerkJson *
clerk_json_parse(const char *text, size_t len, const char **fault)
{
	ClerkJsonScan scan;

	*fault = find_text_fault(text, len, &scan, NULL);
	if (*fault == NULL && !clerk_compat_json_is_valid(unconstify(char *, text), len))
		*fault = not_json;
	if (*fault)
		return NULL;

	if (scan.long_integers)
	{
		/* json-c would clamp them; the way over jsonb keeps their digits. */
		const char *ignored;
		Jsonb	   *jsonb = clerk_json_text_to_jsonb(text, len, &ignored);

		if (jsonb)
			return clerk_json_from_jsonb(jsonb, &ignored);
	}
	return parse_valid(text, len);
}

char *
clerk_json_salvage(const char *text, size_t len, const char *name)
{
	ClerkJsonOwner *owner = new_owner();
	struct json_object *top;
	struct json_object *value;
	char	   *result = NULL;

	owner->tokener = json_tokener_new_ex(CLERK_JSON_MAX_DEPTH);
	if (owner->tokener == NULL)
		out_of_memory();
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

		if (n >= 1 && n <= SALVAGE_MAX_LENGTH)
			result = pnstrdup(string, n);
		for (size_t i = 0; result && i < n; i++)
		{
			if (string[i] <= ' ' || string[i] > '~')
				result = NULL;
		}
	}
	release_owner(owner);
	return result;
}

/* Give parent the node, which it then owns; on failure nobody does. */
static void
add_node(struct json_object *parent, const char *key, struct json_object *node)
{
	int			rc;

	if (json_object_is_type(parent, json_type_array))
		rc = json_object_array_add(parent, node);
	else
		rc = json_object_object_add(parent, key, node);
	if (rc != 0)
	{
		json_object_put(node);
		out_of_memory();
	}
}

/* The node of a scalar, unowned. */
static struct json_object *
scalar_to_node(const JsonbValue *value)
{
	char	   *text;
	int			len;
	struct json_object *node;

	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvBool:
			return checked(json_object_new_boolean(value->val.boolean));
		case jbvNumeric:
			/* json-c's way to hold a number by its text */
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
			node = checked(json_object_new_double_s(0, text));
			pfree(text);
			return node;
		case jbvString:
			text = pg_server_to_any(value->val.string.val, value->val.string.len, PG_UTF8);
			len = text == value->val.string.val ? value->val.string.len : (int) strlen(text);
			node = checked(json_object_new_string_len(text, len));
			if (text != value->val.string.val)
				pfree(text);
			return node;
		default:
			elog(ERROR, "unexpected jsonb value of type %d", (int) value->type);
			return NULL;
	}
}

/* Copy a member's name, as UTF-8, into a buffer that is reused. */
static void
copy_key(StringInfo key, const JsonbValue *value)
{
	char	   *text = pg_server_to_any(value->val.string.val, value->val.string.len, PG_UTF8);

	resetStringInfo(key);
	if (text == value->val.string.val)
		appendBinaryStringInfo(key, text, value->val.string.len);
	else
	{
		appendStringInfoString(key, text);
		pfree(text);
	}
}

/* A container or scalar at this token, unowned. */
static struct json_object *
token_to_node(JsonbIteratorToken token, const JsonbValue *value)
{
	if (token == WJB_BEGIN_OBJECT)
		return checked(json_object_new_object());
	if (token == WJB_BEGIN_ARRAY)
		return checked(json_object_new_array());
	return scalar_to_node(value);
}

/*
 * Build the tree of a jsonb value.  Every container is given to its parent
 * while it is still empty, so that nothing is ever unowned.
 */
static void
jsonb_to_tree(ClerkJsonConversion *conversion)
{
	ClerkJsonOwner *owner = new_owner();
	struct json_object *open[CLERK_JSON_MAX_DEPTH];
	int			depth = 0;
	JsonbIterator *iterator = JsonbIteratorInit(&conversion->jsonb->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	StringInfoData key;

	initStringInfo(&key);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		bool		container = token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT;
		struct json_object *node;

		/* A lone scalar comes inside an array that is not there. */
		if (JB_ROOT_IS_SCALAR(conversion->jsonb))
		{
			if (token == WJB_ELEM)
				owner->root = scalar_to_node(&value);
			continue;
		}
		if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
		{
			depth--;
			continue;
		}
		if (token == WJB_KEY)
		{
			copy_key(&key, &value);
			continue;
		}
		if (container && depth == CLERK_JSON_MAX_DEPTH)
		{
			conversion->fault = too_deep;
			return;
		}

		node = token_to_node(token, &value);
		if (depth == 0)
			owner->root = node;
		else
			add_node(open[depth - 1], key.data, node);
		if (container)
			open[depth++] = node;
	}
	pfree(key.data);
	conversion->tree = owner->root;
}

ClerkJson *
clerk_json_from_jsonb(Jsonb *jsonb, const char **fault)
{
	ClerkJsonConversion conversion = {.jsonb = jsonb};
	int			sqlerrcode;

	sqlerrcode = run_under_net(jsonb_to_tree, &conversion);
	*fault = conversion.fault;
	if (ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		*fault = too_large;
	else if (sqlerrcode != 0)
		*fault = "has a character that is not in Unicode";
	return *fault ? NULL : conversion.tree;
}

Jsonb *
clerk_json_to_jsonb(ClerkJson *json)
{
	size_t		len;
	char	   *text = clerk_json_to_text(json, &len);
	const char *fault;
	Jsonb	   *jsonb = clerk_json_text_to_jsonb(text, len, &fault);

	if (jsonb == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the JSON value %s", fault)));
	pfree(text);
	return jsonb;
}

/* Writing */

static void
write_string(StringInfo out, const char *string, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const char *end = string + len;
	const char *run = string;

	appendStringInfoCharMacro(out, '"');
	for (const char *p = string; p < end; p++)
	{
		unsigned char c = (unsigned char) *p;
		char		escape[6] = {'\\', 'u', '0', '0'};
		int			escape_len = 2;

		if (likely(c >= ' ' && c != '"' && c != '\\'))
			continue;
		escape[4] = hex[c >> 4];
		escape[5] = hex[c & 15];
		if (c == '"' || c == '\\')
			escape[1] = c;
		else if (c == '\n')
			escape[1] = 'n';
		else if (c == '\r')
			escape[1] = 'r';
		else if (c == '\t')
			escape[1] = 't';
		else
			escape_len = 6;
		appendBinaryStringInfo(out, run, (int) (p - run));
		appendBinaryStringInfo(out, escape, escape_len);
		run = p + 1;
	}
	appendBinaryStringInfo(out, run, (int) (end - run));
	appendStringInfoCharMacro(out, '"');
}

static void write_json(StringInfo out, struct json_object *json);

static void
write_number(StringInfo out, struct json_object *json)
{
	const char *number = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN);

	if (number == NULL)
		out_of_memory();
	appendStringInfoString(out, number);
}

static void
write_array(StringInfo out, struct json_object *json)
{
	size_t		n = json_object_array_length(json);

	appendStringInfoCharMacro(out, '[');
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		write_json(out, json_object_array_get_idx(json, i));
	}
	appendStringInfoCharMacro(out, ']');
}

static void
write_object(StringInfo out, struct json_object *json)
{
	char		separator = '{';

	if (json_object_object_length(json) == 0)
		appendStringInfoCharMacro(out, separator);
	else
	{
		json_object_object_foreach(json, name, value)
		{
			appendStringInfoCharMacro(out, separator);
			separator = ',';
			write_string(out, name, strlen(name));
			appendStringInfoCharMacro(out, ':');
			write_json(out, value);
		}
	}
	appendStringInfoCharMacro(out, '}');
}

static void
write_json(StringInfo out, struct json_object *json)
{
	check_stack_depth();
	switch (json_object_get_type(json))
	{
		case json_type_null:
			appendBinaryStringInfo(out, "null", 4);
			break;
		case json_type_boolean:
			appendStringInfoString(out, json_object_get_boolean(json) ? "true" : "false");
			break;
		case json_type_int:
		case json_type_double:
			write_number(out, json);
			break;
		case json_type_string:
			write_string(out, json_object_get_string(json), json_object_get_string_len(json));
			break;
		case json_type_array:
			write_array(out, json);
			break;
		case json_type_object:
			write_object(out, json);
			break;
	}
}

char *
clerk_json_to_text(ClerkJson *json, size_t *len)
{
	StringInfoData out;

	initStringInfo(&out);
	write_json(&out, json);
	*len = out.len;
	return out.data;
}

/* Building */

ClerkJson *
clerk_json_new_object(void)
{
	return own(new_owner(), json_object_new_object());
}

ClerkJson *
clerk_json_new_array(void)
{
	return own(new_owner(), json_object_new_array());
}

ClerkJson *
clerk_json_new_string(const char *utf8, size_t len)
{
	if (len > MaxAllocSize)
		elog(ERROR, "string of %zu bytes is too long", len);
	return own(new_owner(), json_object_new_string_len(utf8, (int) len));
}

ClerkJson *
clerk_json_new_boolean(bool value)
{
	return own(new_owner(), json_object_new_boolean(value));
}

ClerkJson *
clerk_json_new_integer(int64 value)
{
	return own(new_owner(), json_object_new_int64(value));
}

void
clerk_json_set(ClerkJson *object, const char *name, ClerkJson *value)
{
	Assert(json_object_is_type(object, json_type_object));
	add_node(object, name, json_object_get(value));
}

void
clerk_json_append(ClerkJson *array, ClerkJson *value)
{
	Assert(json_object_is_type(array, json_type_array));
	add_node(array, NULL, json_object_get(value));
}

/* Reading */

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

const char *
clerk_json_type_name(ClerkJson *json)
{
	static const char *const names[] = {
		[CLERK_JSON_NULL] = "null",
		[CLERK_JSON_BOOLEAN] = "a boolean",
		[CLERK_JSON_NUMBER] = "a number",
		[CLERK_JSON_STRING] = "a string",
		[CLERK_JSON_ARRAY] = "an array",
		[CLERK_JSON_OBJECT] = "an object",
	};

	return names[clerk_json_type(json)];
}

bool
clerk_json_get(ClerkJson *json, const char *name, ClerkJson **value)
{
	*value = NULL;
	return json_object_is_type(json, json_type_object) &&
		json_object_object_get_ex(json, name, value);
}

const char *
clerk_json_string(ClerkJson *json, size_t *len)
{
	if (!json_object_is_type(json, json_type_string))
		return NULL;
	if (len)
		*len = json_object_get_string_len(json);
	return json_object_get_string(json);
}

const char *
clerk_json_get_string(ClerkJson *json, const char *name)
{
	ClerkJson  *value;

	return clerk_json_get(json, name, &value) ? clerk_json_string(value, NULL) : NULL;
}

bool
clerk_json_boolean(ClerkJson *json)
{
	return json_object_is_type(json, json_type_boolean) && json_object_get_boolean(json);
}

int
clerk_json_length(ClerkJson *json)
{
	if (json_object_is_type(json, json_type_array))
		return (int) json_object_array_length(json);
	if (json_object_is_type(json, json_type_object))
		return json_object_object_length(json);
	return 0;
}

ClerkJson *
clerk_json_element(ClerkJson *json, int n)
{
	if (!json_object_is_type(json, json_type_array) || n < 0)
		return NULL;
	return json_object_array_get_idx(json, n);
}

void
clerk_json_each(ClerkJson *object, ClerkJsonVisitor visit, void *arg)
{
	if (json_object_is_type(object, json_type_object))
	{
		json_object_object_foreach(object, name, value)
		{
			if (!visit(name, value, arg))
				return;
		}
	}
}
