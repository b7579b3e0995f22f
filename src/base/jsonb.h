/*-------------------------------------------------------------------------
 *
 * jsonb.h
 *		Untrusted text becomes jsonb; members of jsonb; deep merge.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_JSONB_H
#define CLERK_JSONB_H

#include "utils/jsonb.h"

struct json_object;
struct ClerkJsonCuts;

/*
 * Nesting beyond this is refused: Clerk's deepest answer has five levels, and
 * the readers below us (jsonb_in, json-c) recurse.
 */
#define CLERK_JSON_MAX_DEPTH 64

/*
 * The jsonb value of a JSON text, with every digit of its numbers kept.
 * Returns NULL with *fault set if jsonb cannot hold it (a NUL character, a
 * number out of range, a character that the database's encoding lacks).
 */
extern Jsonb *clerk_json_text_to_jsonb(const char *text, size_t len, const char **fault);

/*
 * The same of an answer, which must not have so many values: within 8 MB there
 * can be millions, for which PostgreSQL takes seconds and hundreds of MB.  A
 * full page of connections has a tenth of this.
 */
#define CLERK_JSON_MANY_VALUES 500000
extern Jsonb *clerk_json_answer_to_jsonb(const char *text, size_t len, const char **fault);

/*
 * The same in pieces, for a listing, whose elements are many and wanted one by
 * one: each container two levels below the root becomes a jsonb of its own,
 * (*parts)[n], and in its place the result has the array [n].  A part that is
 * JSON, but that jsonb cannot hold, is alone in that.
 */
typedef struct ClerkJsonPart
{
	Jsonb	   *jsonb;			/* NULL: it cannot be held */
	const char *fault;			/* why, as above */
	const char *text;			/* in the text that was given */
	size_t		len;
} ClerkJsonPart;

extern Jsonb *clerk_json_answer_to_jsonb_parts(const char *text, size_t len, ClerkJsonPart **parts, const char **fault);

/*
 * Is an answer well-formed JSON within our limits, whether or not jsonb can hold it in
 * this database?
 */
extern bool clerk_json_is_sound(const char *text, size_t len);

/* A copy, palloc'd; NULL for NULL. */
extern Jsonb *clerk_jsonb_copy(const Jsonb *jsonb);

/*
 * The same without the members of one of these names (NULL at the end) at any
 * depth; the value itself if it has none.
 */
extern Jsonb *clerk_jsonb_without(Jsonb *jsonb, const char *const *names);

/*
 * What an older document and a newer one say together: of two objects, each
 * member that only one has, and the members that both have merged in turn, at
 * any depth; of anything else (an array, a scalar, null) the newer one alone.
 * It may be newer itself.  Works in the current memory context.
 */
extern Jsonb *clerk_jsonb_merge(Jsonb *older, Jsonb *newer);

/* A string member of a jsonb object, palloc'd; NULL if there is none. */
extern char *clerk_jsonb_string(Jsonb *object, const char *name);

/* A conversion between a text and jsonb, run under a net. */
typedef struct ClerkJsonConversion
{
	Jsonb	   *jsonb;
	const char *text;
	size_t		len;
	struct json_object *tree;
	int			sqlerrcode;		/* of what was wrong, or 0 */
	const char *fault;
} ClerkJsonConversion;

extern int	run_under_net(void (*work) (ClerkJsonConversion *), ClerkJsonConversion *arg);
/* What is to be known of a text before anything is made of it. */
typedef struct ClerkJsonScan
{
	bool		long_integers;	/* are there numbers that do not fit into 64 bits? */
	int			values;			/* about so many, if it is JSON */
} ClerkJsonScan;

extern const char *find_text_fault(const char *text, size_t len, ClerkJsonScan *scan, struct ClerkJsonCuts *cuts);
extern const char too_deep[];
extern const char too_large[];
extern const char not_json[];

#endif							/* CLERK_JSONB_H */
