/*-------------------------------------------------------------------------
 *
 * jsonb_read.c
 *		Untrusted JSON text becomes jsonb.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/jsonb_read.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

const char	clerk_jsonb_too_deep[] = "is nested more than " CppAsString2(CLERK_JSON_MAX_DEPTH) " levels deep";
const char	clerk_jsonb_not_json[] = "is not valid JSON";

/* Containers that are nested this deeply are cut out of a listing. */
#define CUT_DEPTH 3

/* Parts that are cut out of a text, and what is left of it. */
typedef struct Cuts
{
	StringInfoData rest;
	const char *taken;			/* the text from here on is not in rest yet */
	const char **begins;
	size_t	   *lens;
	int			count;
	int			room;
} Cuts;

/* A text on its way to jsonb. */
typedef struct Conversion
{
	const char *text;
	size_t		len;
	Jsonb	   *jsonb;
	int			sqlerrcode;		/* of what was wrong, or 0 */
} Conversion;

/*-------------------------------------------------------------------------
 * Errors become faults
 *-------------------------------------------------------------------------
 */

int
clerk_jsonb_try(void (*work) (void *), void *arg)
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
			return clerk_jsonb_not_json;
	}
}

/*-------------------------------------------------------------------------
 * Scanning
 *-------------------------------------------------------------------------
 */

static void
begin_cuts(Cuts *cuts, const char *text)
{
	initStringInfo(&cuts->rest);
	cuts->taken = text;
	cuts->count = 0;
	cuts->room = 512;
	cuts->begins = palloc(sizeof(*cuts->begins) * cuts->room);
	cuts->lens = palloc(sizeof(*cuts->lens) * cuts->room);
}

static void
keep_until(Cuts *cuts, const char *p)
{
	appendBinaryStringInfo(&cuts->rest, cuts->taken, (int) (p - cuts->taken));
	cuts->taken = p;
}

static void
cut_until(Cuts *cuts, const char *p)
{
	if (cuts->count == cuts->room)
	{
		cuts->room *= 2;
		cuts->begins = repalloc(cuts->begins, sizeof(*cuts->begins) * cuts->room);
		cuts->lens = repalloc(cuts->lens, sizeof(*cuts->lens) * cuts->room);
	}
	/* The spaces keep apart a number that stands where none may. */
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
 * Look for what must not reach a parser that recurses or stops at a NUL.
 * *values is about the number of values, if the text is JSON.  cuts, if it is
 * not NULL, gets the parts: if the text is not JSON, neither is one of them, or
 * the rest.
 */
static const char *
scan(const char *text, size_t len, int *values, Cuts *cuts)
{
	const char *end = text + len;
	int			depth = 0;

	*values = 0;
	if (len >= MaxAllocSize)
		return "is too large";
	if (memchr(text, '\0', len))
		return "has a NUL byte";
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
		return "is not valid UTF-8";

	for (const char *p = text; p < end; p++)
	{
		switch (*p)
		{
			case '"':
				p = skip_string(p + 1, end);
				break;
			case ',':
				(*values)++;
				break;
			case '{':
			case '[':
				(*values)++;
				if (++depth > CLERK_JSON_MAX_DEPTH)
					return clerk_jsonb_too_deep;
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

const char *
clerk_jsonb_text_fault(const char *text, size_t len)
{
	int			values;

	return scan(text, len, &values, NULL);
}

static const char *
scan_answer(const char *text, size_t len, Cuts *cuts)
{
	int			values;
	const char *fault = scan(text, len, &values, cuts);

	if (fault == NULL && values >= CLERK_JSON_MANY_VALUES)
		fault = "has more than " CppAsString2(CLERK_JSON_MANY_VALUES) " values";
	return fault;
}

bool
clerk_jsonb_is_sound(const char *text, size_t len)
{
	return scan_answer(text, len, NULL) == NULL &&
		clerk_compat_json_is_valid(unconstify(char *, text), len);
}

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

static void
convert(void *arg)
{
	Conversion *conversion = arg;
	char	   *copy = pnstrdup(conversion->text, conversion->len);
	Datum		jsonb;

	conversion->text = copy;
	/* The text was scanned; only another encoding can still object. */
	if (GetDatabaseEncoding() != PG_UTF8)
		copy = pg_any_to_server(copy, (int) conversion->len, PG_UTF8);
	if (clerk_compat_jsonb_in(copy, &jsonb, &conversion->sqlerrcode))
		conversion->jsonb = DatumGetJsonbP(jsonb);
}

/*
 * The jsonb of a text that was scanned.  work is reset before; jsonb_in leaves
 * several times the size of the text there.
 */
static Jsonb *
read_scanned(const char *text, size_t len, MemoryContext work, const char **fault)
{
	Conversion	conversion = {.text = text,.len = len};
	MemoryContext caller;
	int			sqlerrcode;

	MemoryContextReset(work);
	caller = MemoryContextSwitchTo(work);
	sqlerrcode = clerk_jsonb_try(convert, &conversion);
	MemoryContextSwitchTo(caller);

	if (sqlerrcode == 0)
		sqlerrcode = conversion.sqlerrcode;
	*fault = sqlerrcode != 0 ? fault_of(sqlerrcode, conversion.text) : NULL;
	return *fault ? NULL : clerk_jsonb_copy(conversion.jsonb);
}

Jsonb *
clerk_jsonb_read(const char *text, size_t len, const char **fault)
{
	MemoryContext work;
	Jsonb	   *result;

	*fault = scan_answer(text, len, NULL);
	if (*fault)
		return NULL;
	work = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk jsonb", ALLOCSET_DEFAULT_SIZES);
	result = read_scanned(text, len, work, fault);
	MemoryContextDelete(work);
	return result;
}

Jsonb *
clerk_jsonb_read_parts(const char *text, size_t len, ClerkJsonPart **parts, const char **fault)
{
	Cuts		cuts;
	MemoryContext work;
	Jsonb	   *result;

	begin_cuts(&cuts, text);
	*fault = scan_answer(text, len, &cuts);
	if (*fault)
		return NULL;

	/* Enough for most elements: a reset keeps the first block. */
	work = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk jsonb parts",
								 64 * 1024, 64 * 1024, ALLOCSET_DEFAULT_MAXSIZE);
	result = read_scanned(cuts.rest.data, cuts.rest.len, work, fault);
	*parts = palloc(sizeof(**parts) * Max(cuts.count, 1));
	for (int i = 0; result != NULL && i < cuts.count; i++)
	{
		ClerkJsonPart *part = &(*parts)[i];

		part->text = cuts.begins[i];
		part->len = cuts.lens[i];
		part->jsonb = read_scanned(part->text, part->len, work, &part->fault);
		if (part->fault == clerk_jsonb_not_json)
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
