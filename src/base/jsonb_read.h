/*-------------------------------------------------------------------------
 *
 * jsonb_read.h
 *		Untrusted JSON text becomes jsonb.
 *
 * What JSON is, PostgreSQL's own parser decides.  A fault is a clause that
 * follows "the answer": "is not valid JSON", "is not valid UTF-8", "is nested
 * more than 64 levels deep".
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_JSONB_READ_H
#define CLERK_JSONB_READ_H

#include "base/jsonb.h"

/*
 * An answer must not have more values than this: within 8 MB there can be
 * millions, for which PostgreSQL takes seconds and hundreds of MB.  A full page
 * of connections has a tenth of it.
 */
#define CLERK_JSON_MANY_VALUES 500000

/*
 * The jsonb of an answer of len bytes, which may hold anything, with every
 * digit of its numbers kept.  palloc'd; NULL with *fault set if it is not JSON,
 * beyond our limits, or if jsonb cannot hold it in this database (a NUL
 * character, a number out of range, a character that the database's encoding
 * lacks).  Throws only out of memory.
 */
extern Jsonb *clerk_jsonb_read(const char *text, size_t len, const char **fault);

/*
 * The same in pieces, for a listing, whose elements are many and wanted one by
 * one: each container two levels below the root becomes a jsonb of its own,
 * (*parts)[n], and in its place the result has the array [n].  A part that
 * is JSON, but that jsonb cannot hold, does not affect the others.
 */
typedef struct ClerkJsonPart
{
	Jsonb	   *jsonb;			/* NULL: jsonb cannot hold it */
	const char *fault;			/* why, as above */
	const char *text;			/* in the text that was given */
	size_t		len;
} ClerkJsonPart;

extern Jsonb *clerk_jsonb_read_parts(const char *text, size_t len, ClerkJsonPart **parts, const char **fault);

/*
 * Is an answer well-formed JSON within our limits, whether or not jsonb can hold
 * it in this database?
 */
extern bool clerk_jsonb_is_sound(const char *text, size_t len);

/*-------------------------------------------------------------------------
 * For the other files that read or build documents
 *-------------------------------------------------------------------------
 */

/*
 * The fault of a text before anything is made of it: its bytes and its nesting;
 * or NULL.  No parser, all of which recurse, must see a text that has one.
 */
extern const char *clerk_jsonb_text_fault(const char *text, size_t len);

/*
 * Run work(arg).  If it throws what is wrong with the data, or a limit of
 * PostgreSQL's types, swallow that and return its SQLSTATE; else 0.  work must
 * only compute: it takes no lock, pin or other resource that only an abort
 * would release.
 */
extern int	clerk_jsonb_try(void (*work) (void *), void *arg);

extern const char clerk_jsonb_too_deep[];
extern const char clerk_jsonb_not_json[];

#endif							/* CLERK_JSONB_READ_H */
