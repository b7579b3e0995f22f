/*-------------------------------------------------------------------------
 *
 * trigger.c
 *		sync_enterprise_connection(), the trigger function that makes a row's
 *		connection follow the row, and the backfill of rows that are there.
 *
 * The trigger's arguments are read once, into a plan: which columns are
 * mapped, and the JSON that is made of them.  After that, a row costs no more
 * than its columns: what types and names allow was settled with the plan.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/catalog.h"
#include "base/closest.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/statements.h"
#include "calls/connection.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "outbox/requests.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* The backfill is delivered behind what people wait for. */
#define BULK_PRIORITY 10

/* Rows that the backfill fetches at a time. */
#define BACKFILL_ROWS 1000

/* pg_attribute.attgenerated of a column that is computed when it is read (18). */
#define GENERATED_VIRTUAL 'v'

typedef enum ColumnKind
{
	COLUMN_TEXT,				/* string types and enums */
	COLUMN_BOOLEAN,
	COLUMN_TEXT_ARRAY,
	COLUMN_JSON,
	COLUMN_JSONB,
	COLUMN_INTEGER,
	COLUMN_NUMBER,				/* any other number */
	COLUMN_UUID,
	COLUMN_OTHER
} ColumnKind;

typedef struct Column
{
	AttrNumber	attnum;
	const char *name;
	Oid			type;			/* domains resolved */
	ColumnKind	kind;
	bool		byval;
	int16		len;
	FmgrInfo	output;			/* of an array: of its elements */
	Oid			element;		/* InvalidOid if it is no array */
} Column;

/*
 * The parameters as a tree: an object has members, a leaf has a column or a
 * constant.
 */
typedef struct Member
{
	const char *name;
	char	   *label;			/* "name": */
	List	   *members;		/* of Member *; NIL for a leaf */
	bool		has_columns;	/* of an object: below it */
	Column	   *column;
	char	   *constant;		/* JSON */
	bool		null_on_create; /* may an explicit null be sent? */
	bool		null_on_update;
	bool		top;			/* its object is the whole */
} Member;

typedef enum Removal
{
	REMOVAL_DEACTIVATE,
	REMOVAL_DELETE,
	REMOVAL_KEEP
} Removal;

/* What a trigger's arguments say; all in its own memory context. */
typedef struct SyncPlan
{
	MemoryContext context;
	bool		valid;			/* no relation changed since it was made */
	int			pins;			/* firings that are using it */
	char	   *trigger;		/* its name */
	Oid			owner;			/* as whom it acts */
	char	   *server;			/* NULL: the default */
	Removal		removal;
	char	   *key_prefix;		/* with its colon */
	Column	   *key;
	Column	   *when;			/* NULL: always */
	Column	   *name;			/* NULL: not mapped by a column */
	Column	   *domains;		/* likewise */
	bool		maps_active;
	bool		checked;		/* every row's parameters are right by their types */
	Member		root;
	List	   *columns;		/* all mapped ones and "when", Column * */
} SyncPlan;

typedef struct CachedSync
{
	Oid			trigger;		/* key */
	SyncPlan   *plan;
} CachedSync;

/* A row on its way into the outbox. */
typedef struct Change
{
	const SyncPlan *plan;
	TupleTableSlot *old;		/* NULL: there is none */
	TupleTableSlot *new;		/* likewise */
	char	   *key;
	int			priority;		/* in the outbox */
	bool		replaces;		/* what the key had before must not stay */
	List	   *late_nulls;		/* parameters whose null no create takes, char * */
} Change;

PG_FUNCTION_INFO_V1(sync_enterprise_connection);
PG_FUNCTION_INFO_V1(backfill_enterprise_connections);

static HTAB *cached_plans = NULL;
static uint64 invalidations = 0;

/*
 * The last transaction in which a trigger enqueued a delete: only there, an
 * upsert has to look for one.
 */
static TransactionId deleting_xact = InvalidTransactionId;

#define EQUALS " OPERATOR(pg_catalog.=) "

/* What is unfinished in the outbox's lane of a key. */
#define LANE_OF_KEY " q.lane" EQUALS "pg_catalog.concat('key ', $2) AND q.server" EQUALS "$1" \
	" AND q.state OPERATOR(pg_catalog.<=) 'queued'"

static ClerkStatement known_statement = {
	.text = "SELECT EXISTS (SELECT FROM %1$s.enterprise_connections c WHERE c.server" EQUALS "$1 AND c.key" EQUALS "$2)"
	" OR NOT $3 AND EXISTS (SELECT FROM %1$s.enterprise_connection_requests q WHERE" LANE_OF_KEY ")",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, BOOLOID},
};

static ClerkStatement take_back_statement = {
	.text = "DELETE FROM %1$s.enterprise_connection_requests q WHERE" LANE_OF_KEY
	" AND q.state" EQUALS "'queued' AND q.operation" EQUALS "'delete'"
	" AND q.xact" EQUALS "pg_catalog.pg_current_xact_id()",
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

/*-------------------------------------------------------------------------
 * Columns
 *-------------------------------------------------------------------------
 */

static bool
is_text(Oid type)
{
	char		category = TypeCategory(type);

	return category == TYPCATEGORY_STRING || category == TYPCATEGORY_ENUM;
}

static ColumnKind
column_kind(Oid type, Oid element)
{
	switch (type)
	{
		case BOOLOID:
			return COLUMN_BOOLEAN;
		case JSONOID:
			return COLUMN_JSON;
		case JSONBOID:
			return COLUMN_JSONB;
		case UUIDOID:
			return COLUMN_UUID;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return COLUMN_INTEGER;
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return COLUMN_NUMBER;
		default:
			if (OidIsValid(element))
				return is_text(getBaseType(element)) ? COLUMN_TEXT_ARRAY : COLUMN_OTHER;
			return is_text(type) ? COLUMN_TEXT : COLUMN_OTHER;
	}
}

static Column *
make_column(Form_pg_attribute attribute)
{
	Column	   *column = palloc0(sizeof(*column));
	Oid			output;
	bool		is_varlena;

	column->attnum = attribute->attnum;
	column->name = pstrdup(NameStr(attribute->attname));
	column->type = getBaseType(attribute->atttypid);
	column->byval = attribute->attbyval;
	column->len = attribute->attlen;
	column->element = get_element_type(column->type);
	column->kind = column_kind(column->type, column->element);
	getTypeOutputInfo(OidIsValid(column->element) ? column->element : column->type,
					  &output, &is_varlena);
	fmgr_info_cxt(output, &column->output, CurrentMemoryContext);
	return column;
}

/*
 * A value of a string type, or of a key's, as text; without the blanks that
 * fill a character(n) up.
 */
static char *
value_text(FmgrInfo *output, Oid type, Datum value)
{
	char	   *result = type == TEXTOID || type == VARCHAROID ? TextDatumGetCString(value) :
		OutputFunctionCall(output, value);

	if (type == BPCHAROID)
	{
		size_t		len = strlen(result);

		while (len > 0 && result[len - 1] == ' ')
			result[--len] = '\0';
	}
	return result;
}

static void
append_text_array(StringInfo out, Column *column, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int16		len;
	bool		byval;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("column \"%s\" has an array of more than one dimension", column->name)));
	get_typlenbyvalalign(column->element, &len, &byval, &align);
	deconstruct_array(array, column->element, len, byval, align, &elements, &nulls, &count);
	appendStringInfoChar(out, '[');
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%s\" has an array with a null element", column->name)));
		if (i > 0)
			appendStringInfoChar(out, ',');
		escape_json(out, value_text(&column->output, getBaseType(column->element), elements[i]));
	}
	appendStringInfoChar(out, ']');
}

/*
 * Append a value as JSON.  Returns false, and appends nothing, if it is the
 * JSON null.
 */
static bool
append_value(StringInfo out, Column *column, Datum value)
{
	Jsonb	   *jsonb;

	switch (column->kind)
	{
		case COLUMN_TEXT:
		case COLUMN_UUID:
			escape_json(out, value_text(&column->output, column->type, value));
			return true;
		case COLUMN_BOOLEAN:
			appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
			return true;
		case COLUMN_TEXT_ARRAY:
			append_text_array(out, column, value);
			return true;
		case COLUMN_INTEGER:
		case COLUMN_NUMBER:
			appendStringInfoString(out, OutputFunctionCall(&column->output, value));
			return true;
		case COLUMN_JSON:
			value = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(value)));
			/* fall through */
		case COLUMN_JSONB:
			{
				size_t		start = out->len;

				jsonb = DatumGetJsonbP(value);
				(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
				if (strcmp(out->data + start, "null") != 0)
					return true;
				out->len = (int) start;
				out->data[start] = '\0';
				return false;
			}
		case COLUMN_OTHER:
			break;
	}
	elog(ERROR, "column \"%s\" has an unexpected type", column->name);
}

/*
 * Is the column neither null nor empty?
 */
static bool
is_filled(Column *column, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column->attnum, &isnull);
	StringInfoData json;

	if (isnull)
		return false;
	if (column->kind == COLUMN_TEXT_ARRAY)
	{
		ArrayType  *array = DatumGetArrayTypeP(value);

		return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) > 0;
	}
	if (column->kind == COLUMN_TEXT)
		return *value_text(&column->output, column->type, value) != '\0';
	initStringInfo(&json);
	return append_value(&json, column, value) &&
		strcmp(json.data, "\"\"") != 0 && strcmp(json.data, "[]") != 0;
}

static bool
is_ready(const SyncPlan *plan, TupleTableSlot *slot)
{
	if (plan->when != NULL)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, plan->when->attnum, &isnull);

		if (isnull || !DatumGetBool(value))
			return false;
	}
	return (plan->name == NULL || is_filled(plan->name, slot)) &&
		(plan->domains == NULL || is_filled(plan->domains, slot));
}

/*
 * Has the column changed?  A value that is stored out of line and was not
 * touched has the same pointer: that is seen without reading it.
 */
static bool
has_changed(const Column *column, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		isnull[2];
	Datum		values[2] = {slot_getattr(old, column->attnum, &isnull[0]),
	slot_getattr(new, column->attnum, &isnull[1])};

	if (isnull[0] || isnull[1])
		return isnull[0] != isnull[1];
	if (column->len == -1 &&
		VARATT_IS_EXTERNAL(DatumGetPointer(values[0])) &&
		VARATT_IS_EXTERNAL(DatumGetPointer(values[1])) &&
		VARSIZE_ANY(DatumGetPointer(values[0])) == VARSIZE_ANY(DatumGetPointer(values[1])) &&
		memcmp(DatumGetPointer(values[0]), DatumGetPointer(values[1]),
			   VARSIZE_ANY(DatumGetPointer(values[0]))) == 0)
		return false;
	return !datum_image_eq(values[0], values[1], column->byval, column->len);
}

/*-------------------------------------------------------------------------
 * Reading the arguments
 *-------------------------------------------------------------------------
 */

/* What an argument is read against. */
typedef struct Reader
{
	SyncPlan   *plan;
	TupleDesc	desc;
	List	   *extra_params;
	const char *argument;		/* as a message shows it */
	char	   *name;			/* left of the equals sign */
	char	   *value;			/* right of it */
	bool		constant;		/* it was := */
} Reader;

static const char *const special_arguments[] = {"key", "key_prefix", "server", "when", "removal"};

/*
 * What can be wrong with an argument; message is a clause, hint may be NULL.
 */
static void
refuse(const Reader *reader, int sqlerrcode, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("argument \"%s\" of trigger \"%s\": %s", reader->argument,
					reader->plan->trigger, message),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * The column that an argument names.
 */
static Column *
read_column(const Reader *reader)
{
	ClerkClosest search;

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
		return make_column(attribute);
	}
	refuse(reader, ERRCODE_UNDEFINED_COLUMN, psprintf("there is no column \"%s\"", reader->value),
		   search.best ? psprintf("Perhaps you meant the column \"%s\".", search.best) : NULL);
	return NULL;				/* not reached */
}

static void
read_key(const Reader *reader)
{
	Column	   *column = read_column(reader);

	if (column->kind != COLUMN_TEXT && column->kind != COLUMN_INTEGER && column->kind != COLUMN_UUID)
		refuse(reader, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of type %s cannot be a key", column->name,
						format_type_be(column->type)),
			   "A key is an integer, a uuid or a text.");
	reader->plan->key = column;
}

static void
read_when(const Reader *reader)
{
	Column	   *column = read_column(reader);

	if (column->kind != COLUMN_BOOLEAN)
		refuse(reader, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of type %s is not boolean", column->name,
						format_type_be(column->type)), NULL);
	reader->plan->when = column;
	reader->plan->columns = lappend(reader->plan->columns, column);
}

static void
read_removal(const Reader *reader)
{
	if (strcmp(reader->value, "deactivate") == 0)
		reader->plan->removal = REMOVAL_DEACTIVATE;
	else if (strcmp(reader->value, "delete") == 0)
		reader->plan->removal = REMOVAL_DELETE;
	else if (strcmp(reader->value, "keep") == 0)
		reader->plan->removal = REMOVAL_KEEP;
	else
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE,
			   "it must be deactivate, delete or keep", NULL);
}

/*
 * An argument that is not a parameter of the connection.  key and when name a
 * column; the others are constants, and server has been read before.
 */
static bool
read_special(const Reader *reader)
{
	bool		key = strcmp(reader->name, "key") == 0;
	bool		when = strcmp(reader->name, "when") == 0;
	bool		known = false;

	for (size_t i = 0; i < lengthof(special_arguments); i++)
		known |= strcmp(reader->name, special_arguments[i]) == 0;
	if (!known)
		return false;
	if (reader->constant && (key || when))
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it must name a column",
			   psprintf("Write it as \"%s=column\".", reader->name));
	if (!reader->constant && !key && !when)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it takes a constant, not a column",
			   psprintf("Write it as \"%s:=%s\".", reader->name, reader->value));
	if (key)
		read_key(reader);
	else if (when)
		read_when(reader);
	else if (strcmp(reader->name, "removal") == 0)
		read_removal(reader);
	else if (strcmp(reader->name, "key_prefix") == 0)
		reader->plan->key_prefix = psprintf("%s:", reader->value);
	return true;
}

/*
 * The leaf of a dotted path, made with the objects above it.
 */
static Member *
add_leaf(const Reader *reader, const char *path, bool has_column)
{
	Member	   *node = &reader->plan->root;
	char	   *next = pstrdup(path);
	bool		found = false;
	bool		leaf = false;

	while (next != NULL)
	{
		char	   *name = strsep(&next, ".");
		Member	   *member = NULL;
		ListCell   *lc;

		found = false;
		node->has_columns |= has_column;
		foreach(lc, node->members)
		{
			member = lfirst(lc);
			if ((found = strcmp(member->name, name) == 0))
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

static void
check_type(const Reader *reader, const ClerkParamInfo *info, const Column *column)
{
	bool		fits;

	switch (column->kind)
	{
		case COLUMN_TEXT:
		case COLUMN_UUID:
			fits = !info->known || info->type == CLERK_JSON_STRING;
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
	SyncPlan   *plan = reader->plan;
	Member	   *node = add_leaf(reader, info->path, true);

	node->column = read_column(reader);
	node->null_on_create = !info->known || info->null_on_create;
	node->null_on_update = !info->known || info->null_on_update;
	node->top = strchr(info->path, '.') == NULL;
	check_type(reader, info, node->column);
	if (!info->known || node->column->kind == COLUMN_JSON || node->column->kind == COLUMN_JSONB)
		plan->checked = false;
	if (strcmp(info->path, "name") == 0)
		plan->name = node->column;
	else if (strcmp(info->path, "domains") == 0)
		plan->domains = node->column;
	plan->columns = lappend(plan->columns, node->column);
}

/*
 * Is this JSON, as a parameter's value?  Returns what is wrong, or NULL.
 */
static const char *
json_fault(const char *text)
{
	const char *utf8 = pg_server_to_any(text, (int) strlen(text), PG_UTF8);
	const char *fault;

	(void) clerk_json_parse(utf8, strlen(utf8), &fault);
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
	Member	   *node = add_leaf(reader, info->path, false);
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
		reader->plan->checked = false;
}

static void
read_parameter(const Reader *reader)
{
	ClerkFault *fault;
	ClerkParamInfo *info = clerk_params_find(reader->name, reader->extra_params, &fault);

	if (info == NULL)
	{
		ClerkClosest search;

		clerk_closest_start(&search, reader->name);
		for (size_t i = 0; i < lengthof(special_arguments); i++)
			clerk_closest_offer(&search, special_arguments[i]);
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, fault->message,
			   search.best ? psprintf("Perhaps you meant the argument \"%s\".", search.best) : fault->hint);
	}
	reader->plan->maps_active |= strcmp(info->path, "active") == 0;
	if (reader->constant)
		map_constant(reader, info);
	else
		map_column(reader, info);
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
	bool		special = false;

	reader->argument = argument;
	if (equals == NULL)
		refuse(reader, ERRCODE_INVALID_PARAMETER_VALUE, "it has no equals sign",
			   "Write \"parameter=column\" or \"parameter:=constant\".");
	reader->constant = equals > argument && equals[-1] == ':';
	reader->name = trimmed(argument, (size_t) (equals - argument) - reader->constant);
	reader->value = reader->constant ? pstrdup(equals + 1) : trimmed(equals + 1, strlen(equals + 1));
	for (size_t i = 0; i < lengthof(special_arguments); i++)
		special |= strcmp(reader->name, special_arguments[i]) == 0;
	if (reader->constant && !special)
		reader->argument = psprintf("%s:=", reader->name);
}

/*
 * The server comes first: its extra_params decide which names are known.
 */
static void
read_server(Reader *reader, int nargs, char **args)
{
	for (int i = 0; i < nargs; i++)
	{
		split_argument(reader, args[i]);
		if (reader->constant && strcmp(reader->name, "server") == 0)
			reader->plan->server = reader->value;
	}
	reader->extra_params = clerk_settings(reader->plan->server, CLERK_USE_ENQUEUE)->extra_params;
}

static void
read_arguments(SyncPlan *plan, TupleDesc desc, int nargs, char **args)
{
	Reader		reader = {.plan = plan, .desc = desc};
	List	   *specials = NIL;

	read_server(&reader, nargs, args);
	plan->checked = GetDatabaseEncoding() == PG_UTF8;
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
	if (plan->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" has no argument \"key\"", plan->trigger),
				 errhint("Name the column that identifies a row for ever, such as 'key=id'.")));
	if (plan->root.members == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" maps no parameter", plan->trigger),
				 errhint("Give at least one, such as 'name=name'.")));
}

/*-------------------------------------------------------------------------
 * Plans
 *-------------------------------------------------------------------------
 */

static void
act_as(Oid role, ClerkUser *saved)
{
	GetUserIdAndSecContext(&saved->id, &saved->sec_context);
	SetUserIdAndSecContext(role, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

/*
 * The owner of the table on which a trigger was declared.  The owner of a
 * partition to which it was only handed down may be somebody else.
 */
static Oid
declaring_owner(Oid trigger)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	Oid			table = InvalidOid;
	HeapTuple	tuple;
	Oid			owner;

	while (OidIsValid(trigger))
	{
		ScanKeyData key;
		SysScanDesc scan;

		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(trigger));
		scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
		tuple = systable_getnext(scan);
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "could not find trigger %u", trigger);
		table = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
		trigger = ((Form_pg_trigger) GETSTRUCT(tuple))->tgparentid;
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "could not find relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Every partition's rows have the topmost table's name in their keys: a row
 * that moves to another partition keeps its connection.
 */
static char *
default_key_prefix(Relation rel)
{
	Oid			top = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		top = llast_oid(get_partition_ancestors(top));
	return psprintf("%s.%s:", get_namespace_name(get_rel_namespace(top)), get_rel_name(top));
}

/*
 * Make a plan, in a context of its own below the current one.  desc is that
 * of the rows, which need not be the table's.
 */
static SyncPlan *
make_plan(Relation rel, const Trigger *trigger, TupleDesc desc)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk trigger",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SyncPlan   *plan = palloc0(sizeof(*plan));
	ClerkUser	saved;

	plan->context = context;
	plan->trigger = pstrdup(trigger->tgname);
	plan->owner = declaring_owner(trigger->tgoid);
	act_as(plan->owner, &saved);
	read_arguments(plan, desc, trigger->tgnargs, trigger->tgargs);
	clerk_restore_user(&saved);
	if (plan->key_prefix == NULL)
		plan->key_prefix = default_key_prefix(rel);
	MemoryContextSwitchTo(old);
	return plan;
}

/*
 * A key names the table and its schema, and the topmost table may not be the
 * one that the trigger is on: so any change makes every plan stale.
 */
static void
forget_plans(void)
{
	HASH_SEQ_STATUS status;
	CachedSync *entry;

	invalidations++;
	hash_seq_init(&status, cached_plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->plan->valid = false;
}

static void
relation_changed(Datum arg, Oid relation)
{
	forget_plans();
}

static void
namespace_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_plans();
}

static void
init_cache(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(CachedSync)};

	cached_plans = hash_create("pg_clerk triggers", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, namespace_changed, (Datum) 0);
}

static void
drop_stale_plans(void)
{
	HASH_SEQ_STATUS status;
	CachedSync *entry;

	hash_seq_init(&status, cached_plans);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		SyncPlan   *plan = entry->plan;

		if (plan->valid)
			continue;
		hash_search(cached_plans, &entry->trigger, HASH_REMOVE, NULL);
		/* One that is in use goes with its last user. */
		if (plan->pins == 0)
			MemoryContextDelete(plan->context);
	}
}

/*
 * The plan of a trigger that fires, pinned: what it does may fire others, and
 * make the plan stale.
 */
static SyncPlan *
pin_plan(TriggerData *data)
{
	Oid			oid = data->tg_trigger->tgoid;
	uint64		before;
	SyncPlan   *plan;
	CachedSync *entry;
	bool		found;

	if (cached_plans == NULL)
		init_cache();
	entry = hash_search(cached_plans, &oid, HASH_FIND, NULL);
	if (entry == NULL || !entry->plan->valid)
	{
		drop_stale_plans();
		before = invalidations;
		plan = make_plan(data->tg_relation, data->tg_trigger, RelationGetDescr(data->tg_relation));
		plan->valid = before == invalidations;
		entry = hash_search(cached_plans, &oid, HASH_ENTER, &found);
		entry->plan = plan;
		MemoryContextSetParent(plan->context, CacheMemoryContext);
	}
	entry->plan->pins++;
	return entry->plan;
}

static void
unpin_plan(SyncPlan *plan)
{
	CachedSync *entry;
	HASH_SEQ_STATUS status;

	if (--plan->pins > 0 || plan->valid)
		return;
	hash_seq_init(&status, cached_plans);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->plan == plan)
		{
			hash_seq_term(&status);
			return;				/* the next one to make a plan drops it */
		}
	MemoryContextDelete(plan->context);
}

/*-------------------------------------------------------------------------
 * From the row to the parameters
 *-------------------------------------------------------------------------
 */

static bool append_object(StringInfo out, const Member *object, Change *change, bool *tells);

/*
 * Append a null column, if Clerk takes a null.  Where it takes one on update
 * only, that must be one: the update that removes the value.  tells: so that
 * it is worth sending.
 */
static bool
append_null(StringInfo out, const Member *member, Change *change, bool *tells)
{
	bool		removed = change->replaces ||
		(change->old != NULL && has_changed(member->column, change->old, change->new));

	if (!member->null_on_update || (!member->null_on_create && !removed))
		return false;
	*tells |= removed;
	if (!member->null_on_create && member->top)
	{
		change->late_nulls = lappend(change->late_nulls, (void *) member->name);
		return false;
	}
	appendStringInfoString(out, "null");
	return true;
}

static bool
append_member(StringInfo out, const Member *member, Change *change, bool *tells)
{
	Datum		value;
	bool		isnull;

	if (member->members != NIL)
		return append_object(out, member, change, tells);
	if (member->constant != NULL)
	{
		appendStringInfoString(out, member->constant);
		return true;
	}
	value = slot_getattr(change->new, member->column->attnum, &isnull);
	if (isnull || !append_value(out, member->column, value))
		return append_null(out, member, change, tells);
	*tells = true;
	return true;
}

/*
 * Append an object.  One whose columns are all null is left out, with its
 * constants: a customer with SAML has nothing to say about OIDC.
 */
static bool
append_object(StringInfo out, const Member *object, Change *change, bool *tells)
{
	bool		mine = false;
	bool		first = true;
	ListCell   *lc;

	appendStringInfoChar(out, '{');
	foreach(lc, object->members)
	{
		const Member *member = lfirst(lc);
		int			before = out->len;

		if (!first)
			appendStringInfoChar(out, ',');
		appendStringInfoString(out, member->label);
		if (append_member(out, member, change, &mine))
			first = false;
		else
			out->len = before;
	}
	appendStringInfoChar(out, '}');
	*tells |= mine;
	return !first && (mine || !object->has_columns);
}

/*
 * The parameters of an upsert.  It is checked as a create, which it may be;
 * what only an update takes comes after that.
 */
static Jsonb *
row_params(Change *change, const ClerkSettings *settings, bool activate)
{
	const SyncPlan *plan = change->plan;
	StringInfoData json;
	bool		tells = false;
	Datum		params;
	ListCell   *lc;

	initStringInfo(&json);
	(void) append_object(&json, &plan->root, change, &tells);
	if (activate)
	{
		json.data[--json.len] = '\0';
		appendStringInfoString(&json, json.len > 1 ? ",\"active\":true}" : "\"active\":true}");
	}
	params = DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));

	/* A character may become four bytes on the way. */
	if (!plan->checked || json.len > CLERK_MAX_BODY / 4)
		params = JsonbPGetDatum(clerk_check_request_params(settings, "upsert", DatumGetJsonbP(params)));
	foreach(lc, change->late_nulls)
	{
		char	   *one = psprintf("{\"%s\":null}", (char *) lfirst(lc));

		params = DirectFunctionCall2(jsonb_concat, params,
									 DirectFunctionCall1(jsonb_in, CStringGetDatum(one)));
	}
	return DatumGetJsonbP(params);
}

static char *
row_key(const SyncPlan *plan, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, plan->key->attnum, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("key column \"%s\" of trigger \"%s\" is null", plan->key->name, plan->trigger)));
	return psprintf("%s%s", plan->key_prefix, value_text(&plan->key->output, plan->key->type, value));
}

/*-------------------------------------------------------------------------
 * Into the outbox
 *-------------------------------------------------------------------------
 */

/*
 * Is it certain that the key has an unfinished request (or that it has none)?
 * Only looked at where a statement that looks would leave a predicate lock, for
 * which serializable transactions that enqueue would fail each other.
 */
static bool
is_certain(const ClerkSettings *settings, const char *key, bool unfinished)
{
	return IsolationIsSerializable() &&
		(clerk_lane(settings->server_name, psprintf("key %s", key), NULL) != CLERK_LANE_FREE) == unfinished;
}

/*
 * Is there a connection of this key, or a request that may make one?
 */
static bool
is_known(const ClerkSettings *settings, const char *key)
{
	NameData	server;
	Datum		values[] = {clerk_name_datum(&server, settings->server_name), CStringGetTextDatum(key), (Datum) 0};
	bool		isnull;
	bool		known;

	/* Nothing has been delivered from a copy of a database, so it can't be told. */
	if (settings->origin == CLERK_ORIGIN_ELSEWHERE)
		return true;

	if (is_certain(settings, key, true))
		return true;
	values[2] = BoolGetDatum(is_certain(settings, key, false));
	SPI_connect();
	clerk_run(&known_statement, values, NULL, false);
	known = DatumGetBool(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return known;
}

/*
 * Take back a delete of the key that this transaction has enqueued: a row that
 * moves to another partition is deleted there and inserted here.
 */
static bool
take_back_delete(const ClerkSettings *settings, const char *key)
{
	NameData	server;
	Datum		values[] = {clerk_name_datum(&server, settings->server_name), CStringGetTextDatum(key)};
	bool		taken;

	if (is_certain(settings, key, false))
		return false;
	SPI_connect();
	clerk_run(&take_back_statement, values, NULL, false);
	taken = SPI_processed > 0;
	SPI_finish();
	return taken;
}

static bool
enqueue_delete(const ClerkSettings *settings, const char *key)
{
	(void) clerk_enqueue_checked(settings, "delete", NULL, key, NULL, 0);
	deleting_xact = GetTopTransactionId();
	return true;
}

static bool
enqueue_upsert(Change *change, const ClerkSettings *settings)
{
	const SyncPlan *plan = change->plan;
	bool		activate = false;

	if (deleting_xact == GetTopTransactionId())
		change->replaces = take_back_delete(settings, change->key);

	/*
	 * The connection may have been set inactive when the row was not ready. A
	 * new one, of a row that is ready for the first time, has Clerk's default.
	 */
	if (change->old != NULL && plan->removal == REMOVAL_DEACTIVATE && !plan->maps_active &&
		!is_ready(plan, change->old))
		activate = is_known(settings, change->key);
	(void) clerk_enqueue_checked(settings, "upsert", row_params(change, settings, activate),
								 change->key, NULL, change->priority);
	return true;
}

static bool
enqueue_removal(const Change *change, const ClerkSettings *settings)
{
	switch (change->plan->removal)
	{
		case REMOVAL_DEACTIVATE:
			(void) clerk_enqueue_checked(settings, "update",
										 DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"active\":false}"))),
										 change->key, NULL, change->priority);
			return true;
		case REMOVAL_DELETE:
			return enqueue_delete(settings, change->key);
		case REMOVAL_KEEP:
			break;
	}
	return false;
}

static bool
is_worth_a_look(const Change *change)
{
	const SyncPlan *plan = change->plan;
	ListCell   *lc;

	if (change->new == NULL)
		return plan->removal != REMOVAL_KEEP;
	if (change->old == NULL)
		return true;
	foreach(lc, plan->columns)
		if (has_changed(lfirst(lc), change->old, change->new))
			return true;
	return false;
}

/*
 * A row's key is for ever; only one that had none can get one.
 */
static void
check_key(const Change *change)
{
	const SyncPlan *plan = change->plan;

	if (change->old != NULL && change->new != NULL &&
		!slot_attisnull(change->old, plan->key->attnum) &&
		has_changed(plan->key, change->old, change->new))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change column \"%s\", the key of trigger \"%s\"", plan->key->name, plan->trigger),
				 errdetail("It identifies the row's enterprise connection."),
				 errhint("Delete the row and insert it anew; it gets a new connection.")));
}

static void
add_context(void *arg)
{
	const Change *change = arg;

	errcontext("enterprise connection \"%s\" of trigger \"%s\"", change->key, change->plan->trigger);
}

/*
 * Enqueue what a change of a row means for its connection; false if it is
 * nothing.
 */
static bool
sync_row(Change *change)
{
	const SyncPlan *plan = change->plan;
	ErrorContextCallback callback = {
		.callback = add_context,
		.arg = change,
	};
	bool		was_ready;
	bool		ready;
	bool		enqueued;
	ClerkSettings *settings;

	check_key(change);
	if (!is_worth_a_look(change))
		return false;
	was_ready = change->old != NULL && is_ready(plan, change->old);
	ready = change->new != NULL && is_ready(plan, change->new);
	if (!was_ready && !ready &&
		(change->new != NULL || slot_attisnull(change->old, plan->key->attnum)))
		return false;

	change->key = row_key(plan, change->new != NULL ? change->new : change->old);
	if (strlen(change->key) > CLERK_MAX_NAME_LENGTH)
	{
		/* From before the trigger was made: there is nothing to take back. */
		if (!ready)
			return false;
		clerk_api_check_length(psprintf("the key that trigger \"%s\" makes of column \"%s\"",
										plan->trigger, plan->key->name), change->key);
	}
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	settings = clerk_settings(plan->server, CLERK_USE_ENQUEUE);
	if (ready)
		enqueued = enqueue_upsert(change, settings);
	else if (change->new != NULL)
		enqueued = enqueue_removal(change, settings);
	else
		enqueued = (was_ready || is_known(settings, change->key)) &&
			enqueue_delete(settings, change->key);
	error_context_stack = callback.previous;
	return enqueued;
}

/*-------------------------------------------------------------------------
 * The trigger
 *-------------------------------------------------------------------------
 */

static void
check_firing(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("sync_enterprise_connection() can only be called as a trigger")));
	if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate table \"%s\", whose rows have enterprise connections",
						RelationGetRelationName(data->tg_relation)),
				 errhint("Use DELETE, or disable the trigger \"%s\".", data->tg_trigger->tgname)));
	if (!TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be an AFTER trigger, FOR EACH ROW",
						data->tg_trigger->tgname)));
}

Datum
sync_enterprise_connection(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Change		change = {0};
	SyncPlan   *plan;
	ClerkUser	saved;

	check_firing(fcinfo);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		change.new = data->tg_trigslot;
	else
		change.old = data->tg_trigslot;
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		change.new = data->tg_newslot;

	plan = pin_plan(data);
	PG_TRY();
	{
		change.plan = plan;
		act_as(plan->owner, &saved);
		sync_row(&change);
		clerk_restore_user(&saved);
	}
	PG_FINALLY();
	{
		unpin_plan(plan);
	}
	PG_END_TRY();
	return PointerGetDatum(NULL);
}

/*-------------------------------------------------------------------------
 * Backfill
 *-------------------------------------------------------------------------
 */

static const Trigger *
find_trigger(Relation rel, const char *name)
{
	const Trigger *found = NULL;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (strcmp(rel->trigdesc->triggers[i].tgname, name) == 0)
			found = &rel->trigdesc->triggers[i];
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("trigger \"%s\" for table \"%s\" does not exist", name,
						RelationGetRelationName(rel))));
	if (strcmp(get_func_name(found->tgfoid), "sync_enterprise_connection") != 0 ||
		get_func_namespace(found->tgfoid) != clerk_catalog()->namespace ||
		!TRIGGER_FOR_ROW(found->tgtype) || !TRIGGER_FOR_AFTER(found->tgtype))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("trigger \"%s\" does not execute sync_enterprise_connection() AFTER a change, FOR EACH ROW", name)));
	if (found->tgqual != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("trigger \"%s\" has a WHEN condition", name),
				 errhint("Put the condition into a boolean column, and name it in an argument: 'when=column'.")));
	return found;
}

/*
 * Rows are locked, so that a change cannot slip in between reading a row and
 * enqueueing what it was.
 */
static char *
backfill_query(Relation rel)
{
	return psprintf("SELECT * FROM %s%s FOR SHARE",
					rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											   RelationGetRelationName(rel)));
}

static uint64
backfill_rows(const SyncPlan *plan, SPITupleTable *rows, uint64 count)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->tupdesc, &TTSOpsHeapTuple);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk backfill",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	uint64		enqueued = 0;

	for (uint64 i = 0; i < count; i++)
	{
		Change		change = {.plan = plan, .new = slot, .priority = BULK_PRIORITY};

		CHECK_FOR_INTERRUPTS();
		ExecStoreHeapTuple(rows->vals[i], slot, false);
		enqueued += sync_row(&change);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(slot);
	return enqueued;
}

/*
 * As the trigger does it, as its owner.  But rows are read as the owner of the
 * table that has them: a partition can be somebody else's, whose policies and
 * index expressions must not run with the rights of the trigger's owner.
 */
static uint64
backfill(Relation rel, const Trigger *trigger)
{
	SyncPlan   *plan = make_plan(rel, trigger, RelationGetDescr(rel));
	SPIPlanPtr	query;
	Portal		cursor;
	Oid			reader = rel->rd_rel->relowner;
	uint64		enqueued = 0;
	ClerkUser	saved;

	act_as(reader, &saved);
	SPI_connect();
	query = SPI_prepare(backfill_query(rel), 0, NULL);
	if (query == NULL)
		elog(ERROR, "could not prepare the backfill: %s", SPI_result_code_string(SPI_result));
	cursor = SPI_cursor_open(NULL, query, NULL, NULL, false);

	/* The query's rows have no dropped columns: positions differ. */
	plan = make_plan(rel, trigger, cursor->tupDesc);
	for (;;)
	{
		SPITupleTable *rows;

		SPI_cursor_fetch(cursor, true, BACKFILL_ROWS);
		rows = SPI_tuptable;
		if (SPI_processed == 0)
			break;
		clerk_restore_user(&saved);
		act_as(plan->owner, &saved);
		enqueued += backfill_rows(plan, rows, SPI_processed);
		clerk_restore_user(&saved);
		act_as(reader, &saved);
		SPI_freetuptable(rows);
	}
	SPI_cursor_close(cursor);
	SPI_finish();
	clerk_restore_user(&saved);
	return enqueued;
}

/*
 * backfill_enterprise_connections(table regclass, trigger name)
 */
Datum
backfill_enterprise_connections(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	char	   *name = NameStr(*PG_GETARG_NAME(1));
	Relation	rel;
	uint64		enqueued;

	clerk_prevent_write("backfill_enterprise_connections()");
	rel = table_open(oid, AccessShareLock);
	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	enqueued = backfill(rel, find_trigger(rel, name));
	table_close(rel, NoLock);
	PG_RETURN_INT64((int64) enqueued);
}
