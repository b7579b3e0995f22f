/*-------------------------------------------------------------------------
 *
 * script.h
 *		Scripted answers: steps that a test has laid out beforehand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_SCRIPT_H
#define MOCK_SCRIPT_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

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
	struct json_object *source; /* as it was given */

	/* what it matches; NULL: anything */
	char	   *method;
	char	   *path;
	char	   *path_prefix;
	GString    *body_contains;
	gint64		skip;
	gint64		times;			/* 0: for ever */
	gint64		matched;		/* skipped ones included */
	gint64		used;

	/* what happens then */
	gint64		delay_ms;
	gint64		delay_after_ms;
	bool		apply;
	bool		real;			/* answered with the real answer */
	gint64		status;
	GArray	   *headers;		/* of StepHeader */
	GString    *body;			/* NULL: none */
	bool		fill;			/* body is the prefix, then fill_byte to
								 * fill_size */
	GString    *fill_byte;
	gint64		fill_size;
	gint64		truncate_at;	/* -1: not at all */
	bool		chunked;
	gint64		trickle_bytes;	/* 0: as fast as it goes */
	gint64		trickle_ms;
	int			reset;			/* a ResetWhen */
	GString    *raw;			/* NULL: HTTP */
	bool		hold;
} Step;

/* Append a step or an array of them: all or none, with the reason in why. */
extern void script_add(struct json_object *json, bool tls, GString *why);
extern void script_clear(void);
extern void script_write(GString *out);

/* The step for a request, with a reference for the caller; NULL: none. */
extern Step *script_match(const char *method, const char *path, const GString *body);
extern void step_release(Step *step);

/* The i-th header of a step, which may be NULL; NULL after the last. */
extern const StepHeader *step_header(const Step *step, guint i);

#endif							/* MOCK_SCRIPT_H */
