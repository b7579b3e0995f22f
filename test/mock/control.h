/*-------------------------------------------------------------------------
 *
 * control.h
 *		The endpoints below /_mock/, by which a test steers the mock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_CONTROL_H
#define MOCK_CONTROL_H

#include "answer.h"

#define CONTROL_PREFIX	"/_mock/"

extern void control_handle(const char *method, const char *target, const GString *body, bool tls, Answer *answer);

/* Back to the beginning: store, script, records, counters, settings. */
extern void control_reset(void);

#endif							/* MOCK_CONTROL_H */
