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

#include "base/json.h"
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
	CLERK_OPERATION_UPDATE = 2
} ClerkOperation;

/* One thing that is wrong; hint may be NULL.  All palloc'd, server encoding. */
typedef struct ClerkFault
{
	char	   *path;			/* "saml.idp_metadata_url"; "" for the whole */
	char	   *message;		/* in the style of an error message */
	char	   *hint;			/* a sentence, or NULL */
} ClerkFault;

/* A request body: the text that is sent (UTF-8, NUL-terminated). */
typedef struct ClerkBody
{
	char	   *text;
	size_t		len;
} ClerkBody;

typedef struct ClerkParams
{
	List	   *faults;			/* of ClerkFault *; NIL if all is right */
	ClerkBody  *body;			/* NULL if there are faults */

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
 * arguments (a jsonb object with the wire's names, or NULL).  A parameter in
 * both is a fault, as is nothing at all.  extra_params is a list of C strings
 * (server encoding), the paths that are passed on although this table does
 * not know them.  Never throws because of what is in params: everything that
 * is wrong is in ->faults.  The result lives in the current memory context.
 */
extern ClerkParams *clerk_params_read(Jsonb *params, Jsonb *named,
									  ClerkOperation operation, List *extra_params);

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

/* The body as jsonb, palloc'd.  (Most callers only send it.) */
extern Jsonb *clerk_params_body_jsonb(const ClerkBody *body);

/* What a parameter takes, whatever its value is. */
typedef struct ClerkParamInfo
{
	char	   *path;			/* dotted, as on the wire */
	bool		known;			/* false: extra_params has it, and it takes anything */
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
