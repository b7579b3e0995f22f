/*-------------------------------------------------------------------------
 *
 * answer.h
 *		What is sent back, and the faults an error answer is made of.
 *
 * Whoever owns an Answer or a Faults frees it with the function here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_ANSWER_H
#define MOCK_ANSWER_H

#include <json-c/json.h>

#include "buf.h"

typedef struct Answer
{
	int			status;
	Buf			body;
	char		retry_after[40];	/* empty: no such header */
	const char *allow;			/* NULL: no such header */
} Answer;

/* All the faults of one request, reported together. */
typedef struct Faults
{
	int			count;
	Buf			json;			/* the members of the errors array */
} Faults;

extern void fault_add(Faults *faults, const char *code, const char *param,
					  const char *fmt,...) __attribute__((format(printf, 4, 5)));
extern void answer_faults(Answer *answer, int status, Faults *faults);
extern void answer_error(Answer *answer, int status, const char *code,
						 const char *param, const char *fmt,...) __attribute__((format(printf, 5, 6)));
extern void answer_json(Answer *answer, int status, struct json_object *json);
extern void answer_free(Answer *answer);
extern void answer_reset_counters(void);

/* Parse a whole text as strict JSON; false when it is not. */
extern bool json_parse(const char *s, size_t len, struct json_object **json);
extern const char *json_text(struct json_object *json, size_t *len);

#endif							/* MOCK_ANSWER_H */
