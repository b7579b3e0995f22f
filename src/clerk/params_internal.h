/*-------------------------------------------------------------------------
 *
 * params_internal.h
 *		What the files that read parameters share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PARAMS_INTERNAL_H
#define CLERK_PARAMS_INTERNAL_H

#include "clerk/params.h"
#include "lib/stringinfo.h"

typedef enum ParamType
{
	PARAM_TEXT,
	PARAM_BOOLEAN,
	PARAM_TEXT_ARRAY,
	PARAM_OBJECT,
	PARAM_OBJECT_ARRAY
} ParamType;

/* The value must never show up in a message. */
#define PARAM_SECRET 1
/* An update would silently ignore an empty array. */
#define PARAM_FILLED_ON_UPDATE 2

typedef struct ParamLevel ParamLevel;

typedef struct ParamDef
{
	const char *name;			/* as on the wire */
	ParamType	type;
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

/* No level may have more; checked where slots are allocated. */
#define MAX_LEVEL_PARAMS 16

extern const ParamLevel top_level;
extern const ParamLevel custom_attribute_level;
#define PARAM_LEVELS 6
extern const ParamLevel *const levels[PARAM_LEVELS];

/* Longer than any parameter Clerk has or is likely to get. */
#define MAX_NAME_LENGTH 127

/* One reading of params, from jsonb to body. */
typedef struct Reader
{
	ClerkOperation operation;
	List	   *extra_params;
	ClerkParams *result;
	MemoryContext result_context;
	bool		full;			/* MAX_FAULTS reached: stop */
} Reader;

/* Where in the parameters we are: a member or an array element of parent. */
typedef struct Path
{
	const struct Path *parent;
	const char *name;			/* UTF-8; NULL for an array element */
	int			position;
} Path;

/* A value that was given, and how it was. */
typedef struct Given
{
	const char *spelling;		/* NULL: not given */
	ClerkJson  *value;
	bool		named;			/* as a named argument */
} Given;

/* params_table.c */
extern const char *const wanted[];
extern const ClerkJsonType json_types[];
extern const char extra_path_fault[];
extern const char *wire_name(const char *name, char buffer[MAX_NAME_LENGTH + 1]);
extern const ParamDef *find_param(const ParamLevel *level, const char *name);
extern bool is_extra_param(const Reader *reader, const ParamLevel *level, const char *name);
extern bool sounds_secret(const char *name);
extern char *read_extra_path(const char *path);

/* params_fault.c */
extern char *path_text(const Path *path);
extern void add_fault(Reader *reader, const Path *path, const char *message, const char *hint);
extern void add_type_fault(Reader *reader, const Path *path, ParamType type, ClerkJson *value);
extern void add_unknown_fault(Reader *reader, const ParamLevel *level, const Path *path);
extern void add_twice_fault(Reader *reader, const Path *path, const Given *first, const Given *second);

#endif							/* CLERK_PARAMS_INTERNAL_H */
