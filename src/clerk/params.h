/*-------------------------------------------------------------------------
 *
 * params.h
 *		The parameters of an enterprise connection: one table of them all;
 *		jsonb in, request body or a list of faults out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PARAMS_H
#define CLERK_PARAMS_H

#include "base/jsonb.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/*
 * A larger request body is a fault.  Clerk refuses one far below, and one of
 * this size costs some fifty megabytes of memory until it is sent.
 */
#define CLERK_MAX_BODY (8 * 1024 * 1024)

typedef enum ClerkOperation
{
	CLERK_OPERATION_CREATE = 1,
	CLERK_OPERATION_UPDATE = 2,
	CLERK_OPERATION_UPSERT = 4	/* a create that may have the nulls of an
								 * update */
} ClerkOperation;

/* One thing that is wrong; hint may be NULL.  All palloc'd, server encoding. */
typedef struct ClerkFault
{
	char	   *path;			/* "saml.idp_metadata_url"; "" for the whole */
	char	   *message;		/* in the style of an error message */
	char	   *hint;			/* a sentence, or NULL */
} ClerkFault;

/* A request body. */
typedef struct ClerkBody
{
	char	   *text;			/* that is sent: UTF-8, NUL-terminated */
	size_t		len;
	JsonbValue	document;		/* the same; points into the params that were
								 * read */
} ClerkBody;

typedef struct ClerkParams
{
	List	   *faults;			/* of ClerkFault *; NIL if all is right */
	ClerkBody  *body;			/* NULL if there are faults, or nothing is
								 * left to be sent */
	bool		inferred;		/* the body's provider was not given: it
								 * follows from the protocol */

	/*
	 * Of a create: the parameters that Clerk takes only on an update, to be
	 * sent as a PATCH after the POST.  NULL if there are none.
	 */
	ClerkBody  *patch;

	/*
	 * The values that must never show up in a message (UTF-8 strings).  Known
	 * also if there are faults.
	 */
	List	   *secrets;
} ClerkParams;

/*
 * Read params (may be NULL) for an operation, completed by the named
 * arguments (an object with the wire's names, or NULL).  A parameter in
 * both is a fault, as is nothing at all.  extra_params is a list of C strings
 * (server encoding), the paths that are passed on although this table does
 * not know them.  Never throws because of what is in params: everything that
 * is wrong is in ->faults.  The result lives in the current memory context, and
 * is valid as long as params and named are.
 */
extern ClerkParams *clerk_params_read(Jsonb *params, const JsonbValue *named,
									  ClerkOperation operation, List *extra_params);

/*
 * Read params that update a connection of this provider (NULL: not known), as
 * an upsert does: the provider may be named, but not changed, and is not sent.
 */
extern ClerkParams *clerk_params_read_upsert(Jsonb *params, const char *provider, List *extra_params);

/*
 * Raise the faults as one error, 22023: the first as message and hint, the
 * others as detail, one a line; its path is the error's column name.  Does
 * nothing if there are none.
 */
extern void clerk_params_check(const ClerkParams *params);

/*
 * The same as texts, palloc'd; detail and hint may be NULL.  There must be a
 * fault.
 */
extern void clerk_params_describe(const ClerkParams *params, char **message,
								  char **detail, char **hint);

/*
 * As jsonb, palloc'd: all that was given, with the wire's names.  There must
 * be no fault.
 */
extern Jsonb *clerk_params_given(const ClerkParams *params);

typedef enum ClerkParamType
{
	PARAM_TEXT,
	PARAM_BOOLEAN,
	PARAM_TEXT_ARRAY,
	PARAM_OBJECT,
	PARAM_OBJECT_ARRAY
} ClerkParamType;

/* The nth named argument of create_enterprise_connection() after params and server. */
extern const char *clerk_params_named(int n, ClerkParamType *type);

/* What a parameter takes, whatever its value is. */
typedef struct ClerkParamInfo
{
	char	   *path;			/* dotted, as on the wire */
	bool		known;			/* false: extra_params has it, and it takes
								 * anything */
	ClerkJsonType type;			/* of its value */
	bool		of_strings;		/* if that is an array */
	const char *wanted;			/* the type in words: "a string" */
	bool		null_on_create; /* does Clerk take an explicit null? */
	bool		null_on_update;
} ClerkParamInfo;

/*
 * Look a parameter up by its dotted path, in any spelling and in the server's
 * encoding.  Returns NULL with *fault set if there is no such parameter.
 */
extern ClerkParamInfo *clerk_params_find(const char *path, List *extra_params, ClerkFault **fault);

/*
 * Split an extra_params value ("saml.new_one, foo") into a list of palloc'd
 * paths in the wire's spelling.  Returns false, with *fault set to a sentence
 * about it ("It ..."), if a path is malformed.
 */
extern bool clerk_params_parse_extra(const char *value, List **paths, const char **fault);

/* The SQL function, for C callers too: stored parameters (jsonb) without what is secret in them. */
extern Datum enterprise_connection_without_secrets(PG_FUNCTION_ARGS);

#endif							/* CLERK_PARAMS_H */
