/*-------------------------------------------------------------------------
 *
 * params_internal.h
 *		What the files that read parameters share: the table, and faults.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PARAMS_INTERNAL_H
#define CLERK_PARAMS_INTERNAL_H

#include "clerk/params.h"

/*-------------------------------------------------------------------------
 * params_table.c
 *-------------------------------------------------------------------------
 */

/* The value must never show up in a message. */
#define PARAM_SECRET 1
/* An update would silently ignore an empty array. */
#define PARAM_FILLED_ON_UPDATE 2

typedef struct ParamLevel ParamLevel;

typedef struct ParamDef
{
	const char *name;			/* as on the wire */
	ClerkParamType type;
	int			operations;		/* that take it */
	int			nullable;		/* that take an explicit null */
	int			flags;
	const ParamLevel *members;	/* of the object or the array's objects */
} ParamDef;

/* The members of one object, in the order in which they are sent. */
struct ParamLevel
{
	const char *path;			/* dotted, without array positions */
	const ParamDef *params;
	int			count;
};

/* No level may have more. */
#define MAX_LEVEL_PARAMS 24

/* Longer than any parameter Clerk has or is likely to get. */
#define MAX_NAME_LENGTH 127

extern const ParamLevel clerk_param_top;

/* All levels, the top one first; NULL at the end. */
extern const ParamLevel *const clerk_param_levels[];

/* The type that a parameter must have, and the same in words. */
extern ClerkJsonType clerk_param_json_type(ClerkParamType type);
extern const char *clerk_param_wanted(ClerkParamType type);

extern const ParamDef *clerk_param_find(const ParamLevel *level, const char *name);

/* Is it one that extra_params lists? */
extern bool clerk_param_is_extra(List *extra_params, const ParamLevel *level, const char *name);

/* Does an unknown name sound like something that nobody should see? */
extern bool clerk_param_sounds_secret(const char *name, size_t len);

/*
 * A name as it goes over the wire, by the rule of Clerk's SDKs: userID and
 * user-id are user_id, idpSSOURL is idp_ssourl.  False for a name with other
 * than ASCII letters, digits and . - _, which no parameter has.  (Unlike the
 * SDKs we do not take "name?" for "name".)
 */
extern bool clerk_param_wire_name(const char *name, size_t len, char wire[MAX_NAME_LENGTH + 1]);

/* The other way: user_id is userId.  palloc'd. */
extern char *clerk_param_camel_name(const char *wire);

/* One path of extra_params as on the wire, palloc'd; NULL if it is malformed. */
extern char *clerk_param_extra_path(const char *path);

/* ... which this says, as a sentence ("It ..."). */
extern const char clerk_param_extra_path_fault[];

/*-------------------------------------------------------------------------
 * params_fault.c
 *-------------------------------------------------------------------------
 */

/* How a caller spells names of more than one word. */
typedef enum Spelling
{
	SPELLING_UNKNOWN,			/* not yet looked for */
	SPELLING_EITHER,			/* single words, in which there is no
								 * difference */
	SPELLING_CAMEL,
	SPELLING_SNAKE
} Spelling;

/* One reading of params, from jsonb to body. */
typedef struct Reader
{
	ClerkOperation operation;
	List	   *extra_params;
	Jsonb	   *params;			/* NULL: none */
	bool		nulls_of_update;	/* also of a create, which is an upsert's */
	bool		upserts;		/* an update that may name the provider ... */
	const char *known_provider; /* ... which is this; NULL: not known */
	Spelling	spelling;		/* of params */
	ClerkParams *result;
	bool		full;			/* there are as many faults as are listed:
								 * stop */
} Reader;

/* Where in the parameters we are: a member or an array element of parent. */
typedef struct Path
{
	const struct Path *parent;
	const char *name;			/* as it was spelled; NULL for an array
								 * element */
	size_t		len;
	int			position;
} Path;

/* For messages, as the caller spelled it. */
extern char *clerk_param_path(const Path *path);

/* path: NULL for the whole of the parameters. */
extern void clerk_param_fault(Reader *reader, const Path *path, const char *message, const char *hint);
extern void clerk_param_type_fault(Reader *reader, const Path *path, ClerkParamType type, const JsonbValue *value);
extern void clerk_param_unknown(Reader *reader, const ParamLevel *level, const Path *path);

#endif							/* CLERK_PARAMS_INTERNAL_H */
