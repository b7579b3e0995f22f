/*-------------------------------------------------------------------------
 *
 * jsonb.c
 *		Untrusted text becomes jsonb; members of jsonb; deep merge.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "base/jsonb.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(enterprise_connection_merge);

/* An integer with fewer digits fits into 64 bits. */
#define INT64_SAFE_DIGITS 18

const char too_deep[] = "is nested more than " CppAsString2(CLERK_JSON_MAX_DEPTH) " levels deep";
const char too_large[] = "is too large";
const char not_json[] = "is not valid JSON";

/* The net */

/*
 * Run work(arg).  If it throws what is wrong with the data, or a limit of
 * PostgreSQL's types, swallow that and return its SQLSTATE; else 0.  What is
 * run here does nothing but compute: it takes no lock, pin or other resource
 * that only an abort would release.
 */
int
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
const char *
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
	if (clerk_json_type(json) == CLERK_JSON_ARRAY)
	{
		pruning.to = clerk_json_new_array();
		for (int i = 0; i < clerk_json_length(json); i++)
			clerk_json_append(pruning.to, without(clerk_json_element(json, i), names));
	}
	else if (clerk_json_type(json) == CLERK_JSON_OBJECT)
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
