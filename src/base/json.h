/*-------------------------------------------------------------------------
 *
 * json.h
 *		JSON trees of json-c, for answers that jsonb may not be able to hold.
 *
 * An error answer must be understood in any database, and an answer to a
 * deletion in the middle of an abort: so they are read without jsonb and
 * without the database's encoding.  Everything else is jsonb; see jsonb_read.h.
 *
 * json.c is the one file that includes json-c's headers: their typedef
 * json_object collides with a function of the same name in
 * utils/fmgrprotos.h (the struct tag does not).
 *
 * A tree is owned by the memory context in which it was parsed, and is released
 * when that is reset or deleted, also on ERROR.  What is looked up in it is
 * borrowed.  All text is UTF-8.  A NULL pointer stands for the JSON value null,
 * as in json-c.  An integer that does not fit into 64 bits becomes the nearest
 * one that does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_JSON_H
#define CLERK_JSON_H

#include "base/jsonb.h"

struct json_object;
typedef struct json_object ClerkJson;

/*
 * Parse an untrusted text of len bytes.  Returns its root, or NULL with *fault
 * set to a clause as in jsonb_read.h; *fault is NULL if all is well: the text
 * "null" gives NULL and no fault.  Throws only out of memory.
 */
extern ClerkJson *clerk_json_parse(const char *text, size_t len, const char **fault);

/*
 * What can be saved from a text that could not be parsed whole: the string
 * member of that name of the top-level object, if it came before the damage.
 * palloc'd; NULL if there is none, or if it has other than printable ASCII.
 */
extern char *clerk_json_salvage(const char *text, size_t len, const char *name);

extern ClerkJsonType clerk_json_type(ClerkJson *json);

/* A member; false if json is no object or has no such member. */
extern bool clerk_json_get(ClerkJson *json, const char *name, ClerkJson **value);

/* A string member; NULL if there is none.  It can have a NUL, which ends it. */
extern const char *clerk_json_get_string(ClerkJson *json, const char *name);

extern bool clerk_json_boolean(ClerkJson *json);	/* false if it is none */

/* The elements of an array; none if it is something else. */
extern int	clerk_json_length(ClerkJson *array);
extern ClerkJson *clerk_json_element(ClerkJson *array, int n);

/*
 * The tree as jsonb, palloc'd, each string as clean(utf8, arg) returns it,
 * palloc'd.  NULL if jsonb cannot hold it in this database.
 */
extern Jsonb *clerk_json_to_jsonb(ClerkJson *json, char *(*clean) (const char *utf8, void *arg), void *arg);

#endif							/* CLERK_JSON_H */
