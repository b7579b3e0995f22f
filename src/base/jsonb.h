/*-------------------------------------------------------------------------
 *
 * jsonb.h
 *		jsonb values: looked into, built, packed, written, merged.
 *
 * A JsonbValue is a scalar, a container inside a jsonb (jbvBinary), or an
 * object or array that was built here (jbvObject, jbvArray).  Every function
 * takes all of them.  Strings are in the server's encoding, point into the
 * jsonb that they were read from, and are not NUL-terminated.  Nothing is copied
 * before clerk_jsonb_pack() or clerk_jsonb_write(): until then, whatever a value
 * was built from must live.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_JSONB_H
#define CLERK_JSONB_H

#include "utils/jsonb.h"

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
 * Nesting beyond this is refused: Clerk's deepest answer has five levels, and
 * a document of many thousand levels would exhaust the stack of the parsers
 * and writers, which recurse.
 */
#define CLERK_JSON_MAX_DEPTH 64

/*-------------------------------------------------------------------------
 * Looking into values
 *-------------------------------------------------------------------------
 */

/* The whole of a jsonb as a value. */
extern JsonbValue clerk_jsonb_value(Jsonb *jsonb);

extern ClerkJsonType clerk_jsonb_type(const JsonbValue *value);
extern const char *clerk_jsonb_type_name(const JsonbValue *value);	/* "a string", "null",
																	 * ... */

/*
 * The members of an object, or the elements of an array.  *count is 0 if value
 * is something else.
 */
extern JsonbPair *clerk_jsonb_members(const JsonbValue *object, int *count);
extern JsonbValue *clerk_jsonb_elements(const JsonbValue *array, int *count);

/* A member of an object.  False if value is no object, or has no such member. */
extern bool clerk_jsonb_get(const JsonbValue *object, const char *name, JsonbValue *member);

/* A string member of a jsonb object, palloc'd; NULL if there is none. */
extern char *clerk_jsonb_string(Jsonb *object, const char *name);

/*
 * Why clerk_jsonb_write() could not write the value, as a clause ("is nested
 * more than 64 levels deep"), or NULL.
 */
extern const char *clerk_jsonb_fault(const JsonbValue *value);

/*-------------------------------------------------------------------------
 * Building
 *-------------------------------------------------------------------------
 */

extern JsonbValue clerk_jsonb_new_object(void);
extern JsonbValue clerk_jsonb_new_array(void);
extern JsonbValue clerk_jsonb_new_string(const char *string);	/* null for NULL */
extern JsonbValue clerk_jsonb_new_text(const void *text);	/* a text datum, as it
															 * is */
extern JsonbValue clerk_jsonb_new_boolean(bool value);
extern JsonbValue clerk_jsonb_new_integer(int64 value);

/* Add a member, which the object must not have yet; or an element. */
extern void clerk_jsonb_add(JsonbValue *object, const char *name, JsonbValue member);
extern void clerk_jsonb_append(JsonbValue *array, JsonbValue element);

/*-------------------------------------------------------------------------
 * Whole documents
 *-------------------------------------------------------------------------
 */

/* The value as jsonb, palloc'd.  Throws 54000 if it is larger than jsonb can be. */
extern Jsonb *clerk_jsonb_pack(const JsonbValue *value);

/*
 * The value as text, palloc'd, as it goes over the wire: UTF-8 without added
 * white space, every digit of a number kept, members of an object that was
 * built here in the order in which they were added.
 */
extern char *clerk_jsonb_write(const JsonbValue *value, size_t *len);

/* A copy, palloc'd; NULL for NULL. */
extern Jsonb *clerk_jsonb_copy(const Jsonb *jsonb);

/*
 * The same without the members of one of these names (NULL at the end) at any
 * depth; the jsonb itself if it has none.
 */
extern Jsonb *clerk_jsonb_without(Jsonb *jsonb, const char *const *names);

/*
 * What an older document and a newer one say together: of two objects, each
 * member that only one has, and the members that both have merged in turn, at
 * any depth; of anything else (an array, a scalar, null) the newer one alone.
 * The result may be newer itself.
 */
extern Jsonb *clerk_jsonb_merge(Jsonb *older, Jsonb *newer);

#endif							/* CLERK_JSONB_H */
