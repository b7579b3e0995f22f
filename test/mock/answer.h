/*-------------------------------------------------------------------------
 *
 * answer.h
 *		What is sent back, the faults an error answer is made of, and JSON.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_ANSWER_H
#define MOCK_ANSWER_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

typedef struct Answer
{
	int			status;
	GString    *body;
	char		retry_after[40];	/* empty: no such header */
	const char *allow;			/* NULL: no such header */
} Answer;

/* Append a fault to the members of an errors array: all are reported together. */
extern void fault_add(GString *faults, const char *code, const char *param,
					  const char *fmt,...) G_GNUC_PRINTF(4, 5);

/* Each of these replaces what the body held before. */
extern void answer_faults(Answer *answer, int status, const GString *faults);
extern void answer_error(Answer *answer, int status, const char *code,
						 const char *fmt,...) G_GNUC_PRINTF(4, 5);
extern void answer_json(Answer *answer, int status, struct json_object *json);
extern void answer_reset_counters(void);

/* Parse a whole text as strict JSON; false when it is not. */
extern bool json_parse(const char *s, size_t len, struct json_object **json);
extern const char *json_text(struct json_object *json);

/*
 * Append s as a JSON string, or null.  What is not UTF-8, and NUL, becomes
 * U+FFFD: whatever came over the wire, what goes out is JSON.
 */
extern void json_append(GString *out, const char *s, size_t len);
extern void json_append_text(GString *out, const char *s);

/* The member's text; NULL: there is none, or it is no string. */
extern const char *json_member_text(struct json_object *object, const char *name);

#endif							/* MOCK_ANSWER_H */
