/*-------------------------------------------------------------------------
 *
 * script.h
 *		Scripted answers: steps that a test has laid out beforehand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_SCRIPT_H
#define MOCK_SCRIPT_H

#include <json-c/json.h>

#include "buf.h"

typedef enum ResetWhen
{
	RESET_NEVER,
	RESET_BEFORE,				/* before the operation was taken */
	RESET_AFTER
} ResetWhen;

typedef struct StepHeader
{
	char	   *name;
	char	   *value;			/* NULL: leave out the header sent otherwise */
} StepHeader;

/*
 * A step is shared by the script and the requests it matched; the last one to
 * release it frees it.  It does not change once it was made, but for counts.
 */
typedef struct Step
{
	int			refs;
	struct json_object *source; /* as it was given */

	/* what it matches */
	char	   *method;
	char	   *path;
	char	   *path_prefix;
	Buf			body_contains;
	long		skip;
	long		times;			/* 0: for ever */
	unsigned long matched;		/* skipped ones included */
	unsigned long used;

	/* what happens then */
	long		delay_ms;
	long		delay_after_ms;
	bool		apply;
	bool		real;			/* answered with the real answer */
	int			status;
	StepHeader *headers;
	int			nheaders;
	Buf			body;
	bool		fill;			/* body is the prefix, then fill_byte to fill_size */
	char		fill_byte;
	uint64_t	fill_size;
	bool		truncate;
	uint64_t	truncate_at;
	bool		chunked;
	long		trickle_bytes;	/* 0: as fast as it goes */
	long		trickle_ms;
	ResetWhen	reset;
	bool		is_raw;
	Buf			raw;
	bool		hold;
} Step;

/* Append a step or an array of them: all or none, with the reason in *why. */
extern bool script_add(struct json_object *json, bool tls, Buf *why);
extern void script_clear(void);
extern void script_write(Buf *out);

/* The step for a request, with a reference for the caller; NULL: none. */
extern Step *script_match(const char *method, const char *path, size_t path_len,
						  const char *body, size_t body_len);
extern void step_release(Step *step);

#endif							/* MOCK_SCRIPT_H */
