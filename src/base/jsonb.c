/*-------------------------------------------------------------------------
 *
 * jsonb.c
 *		jsonb values: looked into, built, packed, written, merged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "base/jsonb_read.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(enterprise_connection_merge);

/* The room of an object or array that is built, at first. */
#define FIRST_ROOM 8

/*-------------------------------------------------------------------------
 * Looking into values
 *-------------------------------------------------------------------------
 */

JsonbValue
clerk_jsonb_value(Jsonb *jsonb)
{
	JsonbValue	value;

	/* A lone scalar is stored in an array. */
	if (JB_ROOT_IS_SCALAR(jsonb))
		return *getIthJsonbValueFromContainer(&jsonb->root, 0);
	value.type = jbvBinary;
	value.val.binary.data = &jsonb->root;
	value.val.binary.len = (int) VARSIZE(jsonb) - VARHDRSZ;
	return value;
}

ClerkJsonType
clerk_jsonb_type(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return CLERK_JSON_NULL;
		case jbvBool:
			return CLERK_JSON_BOOLEAN;
		case jbvNumeric:
			return CLERK_JSON_NUMBER;
		case jbvString:
			return CLERK_JSON_STRING;
		case jbvArray:
			return CLERK_JSON_ARRAY;
		case jbvObject:
			return CLERK_JSON_OBJECT;
		case jbvBinary:
			return JsonContainerIsObject(value->val.binary.data) ? CLERK_JSON_OBJECT : CLERK_JSON_ARRAY;
		default:
			elog(ERROR, "unexpected jsonb value of type %d", (int) value->type);
	}
}

const char *
clerk_jsonb_type_name(const JsonbValue *value)
{
	static const char *const names[] = {
		[CLERK_JSON_NULL] = "null",
		[CLERK_JSON_BOOLEAN] = "a boolean",
		[CLERK_JSON_NUMBER] = "a number",
		[CLERK_JSON_STRING] = "a string",
		[CLERK_JSON_ARRAY] = "an array",
		[CLERK_JSON_OBJECT] = "an object",
	};

	return names[clerk_jsonb_type(value)];
}

JsonbPair *
clerk_jsonb_members(const JsonbValue *object, int *count)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbPair  *pairs;

	*count = 0;
	if (clerk_jsonb_type(object) != CLERK_JSON_OBJECT)
		return NULL;
	if (object->type == jbvObject)
	{
		*count = object->val.object.nPairs;
		return object->val.object.pairs;
	}
	pairs = palloc(sizeof(JsonbPair) * Max(JsonContainerSize(object->val.binary.data), 1));
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			pairs[*count].key = value;
		else if (token == WJB_VALUE)
			pairs[(*count)++].value = value;
	}
	return pairs;
}

JsonbValue *
clerk_jsonb_elements(const JsonbValue *array, int *count)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue *elements;

	*count = 0;
	if (clerk_jsonb_type(array) != CLERK_JSON_ARRAY)
		return NULL;
	if (array->type == jbvArray)
	{
		*count = array->val.array.nElems;
		return array->val.array.elems;
	}
	elements = palloc(sizeof(JsonbValue) * Max(JsonContainerSize(array->val.binary.data), 1));
	iterator = JsonbIteratorInit(array->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			elements[(*count)++] = value;
	return elements;
}

static bool
is_named(const JsonbValue *key, const char *name, size_t len)
{
	return (size_t) key->val.string.len == len && memcmp(key->val.string.val, name, len) == 0;
}

bool
clerk_jsonb_get(const JsonbValue *object, const char *name, JsonbValue *member)
{
	size_t		len = strlen(name);

	if (clerk_jsonb_type(object) != CLERK_JSON_OBJECT)
		return false;
	if (object->type == jbvBinary)
		return getKeyJsonValueFromContainer(object->val.binary.data, name, (int) len, member) != NULL;
	for (int i = 0; i < object->val.object.nPairs; i++)
	{
		const JsonbPair *pair = &object->val.object.pairs[i];

		if (is_named(&pair->key, name, len))
		{
			*member = pair->value;
			return true;
		}
	}
	return false;
}

char *
clerk_jsonb_string(Jsonb *object, const char *name)
{
	JsonbValue	whole = clerk_jsonb_value(object);
	JsonbValue	value;

	if (!clerk_jsonb_get(&whole, name, &value) || value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/*-------------------------------------------------------------------------
 * Faults
 *-------------------------------------------------------------------------
 */

static void
convert_string(void *arg)
{
	const JsonbValue *string = arg;

	(void) pg_server_to_any(string->val.string.val, string->val.string.len, PG_UTF8);
}

/*
 * A string of an encoding other than UTF-8 can have what Unicode lacks; in
 * SQL_ASCII, any bytes.
 */
static const char *
string_fault(JsonbValue *string)
{
	if (string->type != jbvString || GetDatabaseEncoding() == PG_UTF8)
		return NULL;
	return clerk_jsonb_try(convert_string, string) != 0 ? "has a character that is not in Unicode" : NULL;
}

static const char *
value_fault(JsonbValue *value, int depth)
{
	bool		object = clerk_jsonb_type(value) == CLERK_JSON_OBJECT;
	const char *fault = string_fault(value);
	int			count;

	if (!object && clerk_jsonb_type(value) != CLERK_JSON_ARRAY)
		return fault;
	if (depth > CLERK_JSON_MAX_DEPTH)
		return clerk_jsonb_too_deep;
	if (object)
	{
		JsonbPair  *pairs = clerk_jsonb_members(value, &count);

		for (int i = 0; fault == NULL && i < count; i++)
		{
			fault = string_fault(&pairs[i].key);
			if (fault == NULL)
				fault = value_fault(&pairs[i].value, depth + 1);
		}
		if (value->type == jbvBinary)
			pfree(pairs);
	}
	else
	{
		JsonbValue *elements = clerk_jsonb_elements(value, &count);

		for (int i = 0; fault == NULL && i < count; i++)
			fault = value_fault(&elements[i], depth + 1);
		if (value->type == jbvBinary)
			pfree(elements);
	}
	return fault;
}

const char *
clerk_jsonb_fault(const JsonbValue *value)
{
	JsonbValue	copy = *value;

	return value_fault(&copy, 1);
}

/*-------------------------------------------------------------------------
 * Building
 *-------------------------------------------------------------------------
 */

JsonbValue
clerk_jsonb_new_object(void)
{
	JsonbValue	object = {.type = jbvObject};

	return object;
}

JsonbValue
clerk_jsonb_new_array(void)
{
	JsonbValue	array = {.type = jbvArray};

	return array;
}

static JsonbValue
new_string(const char *string, int len)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = len;
	return value;
}

JsonbValue
clerk_jsonb_new_string(const char *string)
{
	JsonbValue	null = {.type = jbvNull};

	return string ? new_string(string, (int) strlen(string)) : null;
}

JsonbValue
clerk_jsonb_new_text(const void *text)
{
	return new_string(VARDATA_ANY(text), (int) VARSIZE_ANY_EXHDR(text));
}

JsonbValue
clerk_jsonb_new_boolean(bool boolean)
{
	JsonbValue	value = {.type = jbvBool};

	value.val.boolean = boolean;
	return value;
}

JsonbValue
clerk_jsonb_new_integer(int64 integer)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = int64_to_numeric(integer);
	return value;
}

/*
 * Make room for one more in an array of count elements, which is NULL at first.
 * The room is a power of two, so it need not be stored.
 */
static void *
with_room(void *array, int count, size_t size)
{
	if (count == 0)
		return palloc(FIRST_ROOM * size);
	if (count >= FIRST_ROOM && (count & (count - 1)) == 0)
		return repalloc(array, 2 * (size_t) count * size);
	return array;
}

void
clerk_jsonb_add(JsonbValue *object, const char *name, JsonbValue member)
{
	int			count = object->val.object.nPairs++;
	JsonbPair  *pairs = with_room(object->val.object.pairs, count, sizeof(JsonbPair));

	pairs[count].key = new_string(name, (int) strlen(name));
	pairs[count].value = member;
	object->val.object.pairs = pairs;
}

void
clerk_jsonb_append(JsonbValue *array, JsonbValue element)
{
	int			count = array->val.array.nElems++;

	array->val.array.elems = with_room(array->val.array.elems, count, sizeof(JsonbValue));
	array->val.array.elems[count] = element;
}

/*-------------------------------------------------------------------------
 * Packing
 *-------------------------------------------------------------------------
 */

/* The order in which an object has its members: that of PostgreSQL's jsonb. */
static int
compare_keys(const void *left, const void *right)
{
	const JsonbValue *a = &((const JsonbPair *) left)->key;
	const JsonbValue *b = &((const JsonbPair *) right)->key;

	if (a->val.string.len != b->val.string.len)
		return a->val.string.len < b->val.string.len ? -1 : 1;
	return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
}

static bool
is_one_of(const JsonbValue *key, const char *const *names)
{
	for (; *names != NULL; names++)
		if (is_named(key, *names, strlen(*names)))
			return true;
	return false;
}

/*
 * Into jsonb's order.  Of members of one name, jsonb would be corrupt: one of
 * them is kept.
 */
static void
sort_pairs(JsonbValue *object)
{
	JsonbPair  *pairs = object->val.object.pairs;
	int			kept = 0;

	qsort(pairs, object->val.object.nPairs, sizeof(JsonbPair), compare_keys);
	for (int i = 0; i < object->val.object.nPairs; i++)
		if (kept == 0 || compare_keys(&pairs[kept - 1], &pairs[i]) != 0)
			pairs[kept++] = pairs[i];
	object->val.object.nPairs = kept;
}

/*
 * A copy in the form that JsonbValueToJsonb() takes: without jbvBinary, the
 * members in jsonb's order.  Members of one of the names (NULL: of none) are
 * left out.
 */
static JsonbValue
unpacked(const JsonbValue *value, const char *const *without)
{
	ClerkJsonType type = clerk_jsonb_type(value);
	JsonbValue	copy = *value;
	int			count;
	int			kept = 0;

	check_stack_depth();
	if (type == CLERK_JSON_OBJECT)
	{
		const JsonbPair *pairs = clerk_jsonb_members(value, &count);

		copy.type = jbvObject;
		copy.val.object.pairs = palloc(sizeof(JsonbPair) * Max(count, 1));
		for (int i = 0; i < count; i++)
		{
			if (without != NULL && is_one_of(&pairs[i].key, without))
				continue;
			copy.val.object.pairs[kept].key = pairs[i].key;
			copy.val.object.pairs[kept++].value = unpacked(&pairs[i].value, without);
		}
		copy.val.object.nPairs = kept;
		if (value->type == jbvObject)
			sort_pairs(&copy);
	}
	else if (type == CLERK_JSON_ARRAY)
	{
		const JsonbValue *elements = clerk_jsonb_elements(value, &count);

		copy.type = jbvArray;
		copy.val.array.nElems = count;
		copy.val.array.elems = palloc(sizeof(JsonbValue) * Max(count, 1));
		copy.val.array.rawScalar = false;
		for (int i = 0; i < count; i++)
			copy.val.array.elems[i] = unpacked(&elements[i], without);
	}
	return copy;
}

Jsonb *
clerk_jsonb_pack(const JsonbValue *value)
{
	JsonbValue	copy = unpacked(value, NULL);

	return JsonbValueToJsonb(&copy);
}

Jsonb *
clerk_jsonb_copy(const Jsonb *jsonb)
{
	return jsonb ? memcpy(palloc(VARSIZE(jsonb)), jsonb, VARSIZE(jsonb)) : NULL;
}

/*
 * Names lie in a jsonb as they are written, so for most that have none of them
 * a look at their bytes is enough.
 */
static bool
may_have_member(const Jsonb *jsonb, const char *const *names)
{
	for (; *names != NULL; names++)
		if (memmem(jsonb, VARSIZE(jsonb), *names, strlen(*names)) != NULL)
			return true;
	return false;
}

Jsonb *
clerk_jsonb_without(Jsonb *jsonb, const char *const *names)
{
	JsonbValue	value;

	if (!may_have_member(jsonb, names))
		return jsonb;
	value = clerk_jsonb_value(jsonb);
	value = unpacked(&value, names);
	return JsonbValueToJsonb(&value);
}

/*-------------------------------------------------------------------------
 * Merging
 *-------------------------------------------------------------------------
 */

/*
 * Both have their members in the same order, so one walk along both of them
 * gives the result in that order, too.
 */
static JsonbValue
merged(const JsonbValue *older, const JsonbValue *newer)
{
	JsonbValue	result = {.type = jbvObject};
	int			na;
	int			nb;
	JsonbPair  *a;
	JsonbPair  *b;
	JsonbPair  *pairs;
	size_t		most;
	int			count = 0;

	check_stack_depth();
	if (clerk_jsonb_type(older) != CLERK_JSON_OBJECT || clerk_jsonb_type(newer) != CLERK_JSON_OBJECT)
		return unpacked(newer, NULL);
	a = clerk_jsonb_members(older, &na);
	b = clerk_jsonb_members(newer, &nb);
	most = (size_t) na + nb;
	if (most > MaxAllocSize / sizeof(JsonbPair))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the merged JSON object has too many members")));
	pairs = palloc(sizeof(JsonbPair) * Max(most, 1));
	for (int i = 0, j = 0; i < na || j < nb; count++)
	{
		int			order = i == na ? 1 : j == nb ? -1 : compare_keys(&a[i], &b[j]);

		pairs[count].key = order < 0 ? a[i].key : b[j].key;
		if (order == 0)
			pairs[count].value = merged(&a[i].value, &b[j].value);
		else
			pairs[count].value = unpacked(order < 0 ? &a[i].value : &b[j].value, NULL);
		i += order <= 0;
		j += order >= 0;
	}
	result.val.object.nPairs = count;
	result.val.object.pairs = pairs;
	return result;
}

Jsonb *
clerk_jsonb_merge(Jsonb *older, Jsonb *newer)
{
	JsonbValue	a;
	JsonbValue	b;

	if (!JB_ROOT_IS_OBJECT(older) || !JB_ROOT_IS_OBJECT(newer))
		return newer;
	a = clerk_jsonb_value(older);
	b = clerk_jsonb_value(newer);
	a = merged(&a, &b);
	return JsonbValueToJsonb(&a);
}

/*
 * enterprise_connection_merge(older jsonb, newer jsonb)
 */
Datum
enterprise_connection_merge(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(clerk_jsonb_merge(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)));
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

/* Append a UTF-8 string as JSON has it. */
static void
quote(StringInfo out, const char *string, size_t len)
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

static void
write_string(StringInfo out, const JsonbValue *value)
{
	const char *string = value->val.string.val;
	char	   *utf8 = pg_server_to_any(string, value->val.string.len, PG_UTF8);

	if (utf8 == string)
		quote(out, string, value->val.string.len);
	else
	{
		quote(out, utf8, strlen(utf8));
		pfree(utf8);
	}
}

static void
write_number(StringInfo out, Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	appendStringInfoString(out, text);
	pfree(text);
}

static void write_value(StringInfo out, const JsonbValue *value);

static void
write_object(StringInfo out, const JsonbValue *object)
{
	int			count;
	JsonbPair  *pairs = clerk_jsonb_members(object, &count);

	appendStringInfoCharMacro(out, '{');
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		write_string(out, &pairs[i].key);
		appendStringInfoCharMacro(out, ':');
		write_value(out, &pairs[i].value);
	}
	appendStringInfoCharMacro(out, '}');
	if (object->type == jbvBinary)
		pfree(pairs);
}

static void
write_array(StringInfo out, const JsonbValue *array)
{
	int			count;
	JsonbValue *elements = clerk_jsonb_elements(array, &count);

	appendStringInfoCharMacro(out, '[');
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		write_value(out, &elements[i]);
	}
	appendStringInfoCharMacro(out, ']');
	if (array->type == jbvBinary)
		pfree(elements);
}

static void
write_value(StringInfo out, const JsonbValue *value)
{
	check_stack_depth();
	switch (clerk_jsonb_type(value))
	{
		case CLERK_JSON_NULL:
			appendBinaryStringInfo(out, "null", 4);
			break;
		case CLERK_JSON_BOOLEAN:
			appendStringInfoString(out, value->val.boolean ? "true" : "false");
			break;
		case CLERK_JSON_NUMBER:
			write_number(out, value->val.numeric);
			break;
		case CLERK_JSON_STRING:
			write_string(out, value);
			break;
		case CLERK_JSON_ARRAY:
			write_array(out, value);
			break;
		case CLERK_JSON_OBJECT:
			write_object(out, value);
			break;
	}
}

char *
clerk_jsonb_write(const JsonbValue *value, size_t *len)
{
	StringInfoData out;

	initStringInfo(&out);
	write_value(&out, value);
	*len = out.len;
	return out.data;
}
