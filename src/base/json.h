/*-------------------------------------------------------------------------
 *
 * json.h
 *		JSON trees: parsed with limits, walked, built, turned into jsonb.
 *
 * The one place that knows json-c.  (Its typedef json_object collides with a
 * function of the same name in utils/fmgrprotos.h, so nobody else includes
 * its headers; the struct tag does not collide.)
 *
 * Ownership: a function that returns a new root says so; the root is owned by
 * the memory context that was current, and is released when that context is
 * reset or deleted, also on ERROR.  A node that was set into an object or
 * appended to an array lives as long as that parent, too.  Nodes that are
 * looked up are borrowed.  All text is UTF-8, whatever the database's
 * encoding; only the jsonb functions convert.
 *
 * A NULL ClerkJson pointer stands for the JSON value null, as in json-c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_JSON_H
#define CLERK_JSON_H

#include "base/jsonb.h"

struct json_object;
typedef struct json_object ClerkJson;

typedef enum ClerkJsonType
{
	CLERK_JSON_NULL,
	CLERK_JSON_BOOLEAN,
	CLERK_JSON_NUMBER,
	CLERK_JSON_STRING,
	CLERK_JSON_ARRAY,
	CLERK_JSON_OBJECT
} ClerkJsonType;

/*
 * Parse an untrusted text of len bytes (it may hold NUL bytes).  Returns a new
 * root, or NULL with *fault set to a palloc'd or constant clause that says
 * what is wrong ("is not valid JSON", "is not valid UTF-8", "is nested more
 * than 64 levels deep", ...).  *fault is NULL if all is well: the text "null"
 * gives NULL and no fault.  Trailing white space is allowed, other trailing
 * bytes are not.  Throws only out of memory.
 */
extern ClerkJson *clerk_json_parse(const char *text, size_t len, const char **fault);

/*
 * What can be saved from a text that could not be parsed whole: the string
 * member of that name of the top-level object, if it came before the damage.
 * palloc'd; NULL if there is none, or if it has other than printable ASCII.
 */
extern char *clerk_json_salvage(const char *text, size_t len, const char *name);

/*
 * A new root, every digit of its numbers kept.  NULL with *fault set if it is
 * nested too deeply, or has a character that is not in Unicode.
 */
extern ClerkJson *clerk_json_from_jsonb(Jsonb *jsonb, const char **fault);

/* palloc'd.  Throws if jsonb cannot hold it, as clerk_json_text_to_jsonb says. */
extern Jsonb *clerk_json_to_jsonb(ClerkJson *json);

/* The text as it goes over the wire: no added white space, UTF-8, palloc'd. */
extern char *clerk_json_to_text(ClerkJson *json, size_t *len);

/* Building.  All return new roots. */
extern ClerkJson *clerk_json_new_object(void);
extern ClerkJson *clerk_json_new_array(void);
extern ClerkJson *clerk_json_new_string(const char *utf8, size_t len);
extern ClerkJson *clerk_json_new_boolean(bool value);
extern ClerkJson *clerk_json_new_integer(int64 value);

/* The parent takes its own reference to value, which may belong elsewhere too. */
extern void clerk_json_set(ClerkJson *object, const char *name, ClerkJson *value);
extern void clerk_json_append(ClerkJson *array, ClerkJson *value);

/* Reading.  get returns false if json is no object or has no such member. */
extern ClerkJsonType clerk_json_type(ClerkJson *json);
extern const char *clerk_json_type_name(ClerkJson *json);	/* "a string", "null", ... */
extern bool clerk_json_get(ClerkJson *json, const char *name, ClerkJson **value);
extern const char *clerk_json_string(ClerkJson *json, size_t *len);	/* NULL if no string */
extern const char *clerk_json_get_string(ClerkJson *json, const char *name);	/* NULL if none */
extern bool clerk_json_boolean(ClerkJson *json);
extern int	clerk_json_length(ClerkJson *json);	/* elements or members */
extern ClerkJson *clerk_json_element(ClerkJson *json, int n);

/* Members of an object in order; false from the visitor ends the walk. */
typedef bool (*ClerkJsonVisitor) (const char *name, ClerkJson *value, void *arg);
extern void clerk_json_each(ClerkJson *object, ClerkJsonVisitor visit, void *arg);

#endif							/* CLERK_JSON_H */
