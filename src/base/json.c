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
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* utils/builtins.h has it too, and a function that is called json_object. */
extern Datum numeric_out(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(enterprise_connection_merge);

/* An integer with fewer digits fits into 64 bits. */
#define INT64_SAFE_DIGITS 18

/* What clerk_json_salvage finds is shown to people: no more than an id. */
#define SALVAGE_MAX_LENGTH 255

/* All that belongs to one root; released with its memory context. */
typedef struct ClerkJsonOwner
{
	MemoryContextCallback callback;
	struct json_object *root;
	struct json_tokener *tokener;
} ClerkJsonOwner;

/* A conversion between a text and jsonb, run under a net. */
typedef struct ClerkJsonConversion
{
	Jsonb	   *jsonb;
	const char *text;
	size_t		len;
	ClerkJson  *tree;
	int			sqlerrcode;		/* of what was wrong, or 0 */
	const char *fault;
} ClerkJsonConversion;

static const char too_deep[] = "is nested more than " CppAsString2(CLERK_JSON_MAX_DEPTH) " levels deep";
static const char too_large[] = "is too large";
static const char not_json[] = "is not valid JSON";

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

/* The net */

/*
 * Run work(arg).  If it throws what is wrong with the data, or a limit of
 * PostgreSQL's types, swallow that and return its SQLSTATE; else 0.  What is
 * run here does nothing but compute: it takes no lock, pin or other resource
 * that only an abort would release.
 */
static int
run_under_net(void (*work) (ClerkJsonConversion *), ClerkJsonConversion *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;
	volatile int sqlerrcode = 0;

	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		/* "not supported" is what SQL_ASCII says to an escaped character. */
		if (ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
			code != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		/* Throwing has zeroed it, but our caller still holds what it held. */
		InterruptHoldoffCount = holdoff;
		sqlerrcode = code;
	}
	PG_END_TRY();

	return sqlerrcode;
}

/* The clause that tells a user what such an error means for a JSON text. */
static const char *
fault_of(int sqlerrcode, const char *text)
{
	if (ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return "is larger than jsonb can hold";
	switch (sqlerrcode)
	{
		case ERRCODE_UNTRANSLATABLE_CHARACTER:
			if (strstr(text, "\\u0000"))
				return "has a NUL character, which PostgreSQL cannot store";
			return "has a character that the database's encoding lacks";
		case ERRCODE_CHARACTER_NOT_IN_REPERTOIRE:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return "has a character that the database's encoding lacks";
		case ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE:
			return "has a number that is out of range";
		default:
			return not_json;
	}
}

/* Parsing */

/* What is to be known of a text before anything is made of it. */
typedef struct ClerkJsonScan
{
	bool		long_integers;	/* are there numbers that do not fit into 64 bits? */
	int			values;			/* about so many, if it is JSON */
} ClerkJsonScan;

/* Parts that are cut out of a text, and what is left of it. */
typedef struct ClerkJsonCuts
{
	StringInfoData rest;
	const char *taken;			/* the text from here on is not in rest yet */
	const char **begins;
	size_t	   *lens;
	int			count;
	int			room;
} ClerkJsonCuts;

/* Containers that are nested so deeply are cut out. */
#define CUT_DEPTH 3

static void
begin_cuts(ClerkJsonCuts *cuts, const char *text)
{
	initStringInfo(&cuts->rest);
	cuts->taken = text;
	cuts->count = 0;
	cuts->room = 512;
	cuts->begins = palloc(sizeof(*cuts->begins) * cuts->room);
	cuts->lens = palloc(sizeof(*cuts->lens) * cuts->room);
}

static void
keep_until(ClerkJsonCuts *cuts, const char *p)
{
	appendBinaryStringInfo(&cuts->rest, cuts->taken, (int) (p - cuts->taken));
	cuts->taken = p;
}

static void
cut_until(ClerkJsonCuts *cuts, const char *p)
{
	if (cuts->count == cuts->room)
	{
		cuts->room *= 2;
		cuts->begins = repalloc(cuts->begins, sizeof(*cuts->begins) * cuts->room);
		cuts->lens = repalloc(cuts->lens, sizeof(*cuts->lens) * cuts->room);
	}
	/* The spaces keep a number that stands where none may apart. */
	appendStringInfo(&cuts->rest, " [%d] ", cuts->count);
	cuts->begins[cuts->count] = cuts->taken;
	cuts->lens[cuts->count++] = p - cuts->taken;
	cuts->taken = p;
}

/* The end of a string whose first byte is at p, or of the text. */
static const char *
skip_string(const char *p, const char *end)
{
	for (; p < end && *p != '"'; p++)
		if (*p == '\\' && p + 1 < end)
			p++;
	return p;
}

/*
 * Look for what must not reach a parser that recurses or stops at a NUL.  cuts,
 * if it is not NULL, gets the parts: if the text is not JSON, neither is one of
 * them, or the rest.
 */
static const char *
find_text_fault(const char *text, size_t len, ClerkJsonScan *scan, ClerkJsonCuts *cuts)
{
	const char *end = text + len;
	int			depth = 0;
	int			digits = 0;

	scan->long_integers = false;
	scan->values = 0;
	if (len >= MaxAllocSize)
		return too_large;
	if (memchr(text, '\0', len))
		return "has a NUL byte";
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
		return "is not valid UTF-8";

	for (const char *p = text; p < end; p++)
	{
		if (*p >= '0' && *p <= '9')
		{
			if (++digits > INT64_SAFE_DIGITS)
				scan->long_integers = true;
			continue;
		}
		digits = 0;
		switch (*p)
		{
			case '"':
				p = skip_string(p + 1, end);
				break;
			case ',':
				scan->values++;
				break;
			case '{':
			case '[':
				scan->values++;
				if (++depth > CLERK_JSON_MAX_DEPTH)
					return too_deep;
				if (cuts != NULL && depth == CUT_DEPTH)
					keep_until(cuts, p);
				break;
			case '}':
			case ']':
				if (cuts != NULL && depth == CUT_DEPTH)
					cut_until(cuts, p + 1);
				depth--;
				break;
			default:
				break;
		}
	}
	if (cuts != NULL)
		keep_until(cuts, end);
	return NULL;
}

/*
 * The same for an answer of Clerk's.
 */
static const char *
find_answer_fault(const char *text, size_t len, ClerkJsonCuts *cuts)
{
	ClerkJsonScan scan;
	const char *fault = find_text_fault(text, len, &scan, cuts);

	if (fault == NULL && scan.values >= CLERK_JSON_MANY_VALUES)
		fault = "has more than " CppAsString2(CLERK_JSON_MANY_VALUES) " values";
	return fault;
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

/* jsonb */

static void
text_to_jsonb(ClerkJsonConversion *conversion)
{
	char	   *copy = pnstrdup(conversion->text, conversion->len);
	Datum		jsonb;

	conversion->text = copy;
	/* The text was checked; only another encoding can still object. */
	if (GetDatabaseEncoding() != PG_UTF8)
		copy = pg_any_to_server(copy, (int) conversion->len, PG_UTF8);
	if (clerk_compat_jsonb_in(copy, &jsonb, &conversion->sqlerrcode))
		conversion->jsonb = DatumGetJsonbP(jsonb);
}

Jsonb *
clerk_jsonb_copy(const Jsonb *jsonb)
{
	return jsonb ? memcpy(palloc(VARSIZE(jsonb)), jsonb, VARSIZE(jsonb)) : NULL;
}

bool
clerk_json_is_sound(const char *text, size_t len)
{
	return find_answer_fault(text, len, NULL) == NULL &&
		clerk_compat_json_is_valid(unconstify(char *, text), len);
}

static bool
is_one_of(const JsonbValue *name, const char *const *names)
{
	for (; *names != NULL; names++)
		if (name->val.string.len == (int) strlen(*names) &&
			memcmp(name->val.string.val, *names, name->val.string.len) == 0)
			return true;
	return false;
}

/*
 * Names lie in a jsonb as they are written, so most that have none of them are
 * told by a look at their bytes.
 */
static bool
may_have_member(const Jsonb *jsonb, const char *const *names)
{
	for (; *names != NULL; names++)
		if (memmem(jsonb, VARSIZE(jsonb), *names, strlen(*names)) != NULL)
			return true;
	return false;
}

static bool
has_member(Jsonb *jsonb, const char *const *names)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!may_have_member(jsonb, names))
		return false;
	iterator = JsonbIteratorInit(&jsonb->root);

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
		if (token == WJB_KEY && is_one_of(&value, names))
			return true;
	return false;
}

/* A copy of a tree without members of some names. */
typedef struct ClerkJsonPruning
{
	ClerkJson  *to;
	const char *const *names;
} ClerkJsonPruning;

static ClerkJson *without(ClerkJson *json, const char *const *names);

static bool
copy_unless_named(const char *name, ClerkJson *value, void *arg)
{
	ClerkJsonPruning *pruning = arg;
	const char *const *each = pruning->names;

	while (*each != NULL && strcmp(*each, name) != 0)
		each++;
	if (*each == NULL)
		clerk_json_set(pruning->to, name, without(value, pruning->names));
	return true;
}

static ClerkJson *
without(ClerkJson *json, const char *const *names)
{
	ClerkJsonPruning pruning = {.to = json,.names = names};

	check_stack_depth();
	if (json_object_is_type(json, json_type_array))
	{
		pruning.to = clerk_json_new_array();
		for (int i = 0; i < clerk_json_length(json); i++)
			clerk_json_append(pruning.to, without(clerk_json_element(json, i), names));
	}
	else if (json_object_is_type(json, json_type_object))
	{
		pruning.to = clerk_json_new_object();
		clerk_json_each(json, copy_unless_named, &pruning);
	}
	return pruning.to;
}

Jsonb *
clerk_jsonb_without(Jsonb *jsonb, const char *const *names)
{
	const char *fault;
	ClerkJson  *json;

	if (!has_member(jsonb, names))
		return jsonb;
	json = clerk_json_from_jsonb(jsonb, &fault);
	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the JSON value %s", fault)));
	return clerk_json_to_jsonb(without(json, names));
}

char *
clerk_jsonb_string(Jsonb *object, const char *name)
{
	JsonbValue	buf;
	JsonbValue *value = JB_ROOT_IS_OBJECT(object) ?
		getKeyJsonValueFromContainer(&object->root, name, (int) strlen(name), &buf) : NULL;

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * The jsonb of a text in which find_text_fault has found none.  work is reset
 * before; jsonb_in leaves several times the size of the text there.
 */
static Jsonb *
checked_text_to_jsonb(const char *text, size_t len, MemoryContext work, const char **fault)
{
	ClerkJsonConversion conversion = {.text = text, .len = len};
	MemoryContext caller;
	int			sqlerrcode;

	MemoryContextReset(work);
	caller = MemoryContextSwitchTo(work);
	sqlerrcode = run_under_net(text_to_jsonb, &conversion);
	MemoryContextSwitchTo(caller);

	if (sqlerrcode == 0)
		sqlerrcode = conversion.sqlerrcode;
	*fault = sqlerrcode != 0 ? fault_of(sqlerrcode, conversion.text) : NULL;
	return *fault ? NULL : clerk_jsonb_copy(conversion.jsonb);
}

static Jsonb *
scanned_text_to_jsonb(const char *text, size_t len, const char **fault)
{
	MemoryContext work;
	Jsonb	   *result;

	if (*fault)
		return NULL;
	work = AllocSetContextCreate(CurrentMemoryContext, "clerk jsonb", ALLOCSET_DEFAULT_SIZES);
	result = checked_text_to_jsonb(text, len, work, fault);
	MemoryContextDelete(work);
	return result;
}

Jsonb *
clerk_json_text_to_jsonb(const char *text, size_t len, const char **fault)
{
	ClerkJsonScan scan;

	*fault = find_text_fault(text, len, &scan, NULL);
	return scanned_text_to_jsonb(text, len, fault);
}

Jsonb *
clerk_json_answer_to_jsonb(const char *text, size_t len, const char **fault)
{
	*fault = find_answer_fault(text, len, NULL);
	return scanned_text_to_jsonb(text, len, fault);
}

Jsonb *
clerk_json_answer_to_jsonb_parts(const char *text, size_t len, ClerkJsonPart **parts, const char **fault)
{
	ClerkJsonCuts cuts;
	MemoryContext work;
	Jsonb	   *result;

	begin_cuts(&cuts, text);
	*fault = find_answer_fault(text, len, &cuts);
	if (*fault)
		return NULL;

	/* Enough for most elements: a reset keeps the first block. */
	work = AllocSetContextCreate(CurrentMemoryContext, "clerk jsonb parts",
								 64 * 1024, 64 * 1024, ALLOCSET_DEFAULT_MAXSIZE);
	result = checked_text_to_jsonb(cuts.rest.data, cuts.rest.len, work, fault);
	*parts = palloc(sizeof(**parts) * Max(cuts.count, 1));
	for (int i = 0; result != NULL && i < cuts.count; i++)
	{
		ClerkJsonPart *part = &(*parts)[i];

		part->text = cuts.begins[i];
		part->len = cuts.lens[i];
		part->jsonb = checked_text_to_jsonb(part->text, part->len, work, &part->fault);
		if (part->fault == not_json)
		{
			*fault = part->fault;
			result = NULL;
		}
	}
	MemoryContextDelete(work);
	pfree(cuts.rest.data);
	pfree(cuts.begins);
	pfree(cuts.lens);
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

/* Merging */

/* A container's members in order, their values still packed. */
typedef struct ClerkJsonMembers
{
	JsonbPair  *pairs;
	int			count;
} ClerkJsonMembers;

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static ClerkJsonMembers
members_of(JsonbContainer *object)
{
	ClerkJsonMembers members = {.pairs = palloc(sizeof(JsonbPair) * Max(JsonContainerSize(object), 1))};
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			members.pairs[members.count].key = value;
		else if (token == WJB_VALUE)
			members.pairs[members.count++].value = value;
	}
	return members;
}

/* Turn a packed container into what JsonbValueToJsonb() packs again. */
static void
unpack(JsonbValue *value)
{
	JsonbContainer *container;

	if (value->type != jbvBinary)
		return;
	check_stack_depth();
	container = value->val.binary.data;
	if (JsonContainerIsObject(container))
	{
		ClerkJsonMembers members = members_of(container);

		value->type = jbvObject;
		value->val.object.nPairs = members.count;
		value->val.object.pairs = members.pairs;
		for (int i = 0; i < members.count; i++)
			unpack(&members.pairs[i].value);
	}
	else
	{
		JsonbIterator *iterator = JsonbIteratorInit(container);
		JsonbValue *elements = palloc(sizeof(JsonbValue) * Max(JsonContainerSize(container), 1));
		JsonbIteratorToken token;
		JsonbValue	element;
		int			count = 0;

		while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
			if (token == WJB_ELEM)
				elements[count++] = element;
		value->type = jbvArray;
		value->val.array.nElems = count;
		value->val.array.elems = elements;
		value->val.array.rawScalar = false;
		for (int i = 0; i < count; i++)
			unpack(&elements[i]);
	}
}

/* The order in which an object has its members: that of PostgreSQL's jsonb. */
static int
compare_keys(const JsonbValue *a, const JsonbValue *b)
{
	if (a->val.string.len != b->val.string.len)
		return a->val.string.len < b->val.string.len ? -1 : 1;
	return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
}

/*
 * Both have their members in the same order, so one walk along both of them
 * gives the result in that order, too.
 */
static void
merge_objects(JsonbContainer *older, JsonbContainer *newer, JsonbValue *result)
{
	ClerkJsonMembers a = members_of(older);
	ClerkJsonMembers b = members_of(newer);
	size_t		most = (size_t) a.count + b.count;
	JsonbPair  *pairs;
	int			count = 0;

	check_stack_depth();
	if (most > MaxAllocSize / sizeof(JsonbPair))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the merged JSON object has too many members")));
	pairs = palloc(sizeof(JsonbPair) * Max(most, 1));
	for (int i = 0, j = 0; i < a.count || j < b.count;)
	{
		int			order = i == a.count ? 1 : j == b.count ? -1 : compare_keys(&a.pairs[i].key, &b.pairs[j].key);
		JsonbPair  *pair = &pairs[count++];

		*pair = order < 0 ? a.pairs[i] : b.pairs[j];
		if (order == 0 && is_object(&a.pairs[i].value) && is_object(&b.pairs[j].value))
			merge_objects(a.pairs[i].value.val.binary.data, b.pairs[j].value.val.binary.data, &pair->value);
		else
			unpack(&pair->value);
		i += order <= 0;
		j += order >= 0;
	}
	result->type = jbvObject;
	result->val.object.nPairs = count;
	result->val.object.pairs = pairs;
}

Jsonb *
clerk_jsonb_merge(Jsonb *older, Jsonb *newer)
{
	JsonbValue	merged;

	if (!JB_ROOT_IS_OBJECT(older) || !JB_ROOT_IS_OBJECT(newer))
		return newer;
	merge_objects(&older->root, &newer->root, &merged);
	return JsonbValueToJsonb(&merged);
}

/*
 * enterprise_connection_merge(older jsonb, newer jsonb)
 */
Datum
enterprise_connection_merge(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(clerk_jsonb_merge(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)));
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
