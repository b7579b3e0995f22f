/*-------------------------------------------------------------------------
 *
 * member.h
 *		JSON objects that fill a struct, by a table of their members.
 *
 * A misspelt member would make a test pass for the wrong reason: one that is
 * not in the table, or of the wrong type, is refused.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_MEMBER_H
#define MOCK_MEMBER_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

/* What a member must be, and what it is stored as. */
typedef enum MemberType
{
	MEMBER_NUMBER,				/* not negative; gint64 */
	MEMBER_NUMBER_OR_NULL,		/* the same; null is 0 */
	MEMBER_SHARE,				/* any number; double */
	MEMBER_FLAG,				/* bool */
	MEMBER_CHOICE,				/* one of names; int, its index */
	MEMBER_TEXT,				/* char * */
	MEMBER_TEXTS,				/* an array; char ** */
	MEMBER_BYTES,				/* GString * */
	MEMBER_BASE64,				/* GString * */
	MEMBER_OBJECT,				/* its members are stored in the same struct */
	MEMBER_GROUP,				/* a struct that begins with a bool: false, if
								 * null; else its defaults, and what is given */
	MEMBER_OTHER				/* what read makes of it */
} MemberType;

typedef struct Member
{
	const char *name;			/* NULL: the end of the table */
	MemberType	type;
	size_t		offset;
	const char *const *names;
	const struct Member *members;
	const void *defaults;
	size_t		size;			/* of the group */
	bool		(*read) (void *base, struct json_object *value);
} Member;

/* False with a reason in why, when a member is wrong; earlier ones are stored. */
extern bool members_read(const Member *members, void *base, struct json_object *json,
						 const char *where, GString *why);

/* The JSON object that members_read would read the same from. */
extern void members_write(const Member *members, const void *base, GString *out);

#endif							/* MOCK_MEMBER_H */
