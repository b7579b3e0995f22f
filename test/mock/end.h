/*-------------------------------------------------------------------------
 *
 * end.h
 *		Last words: the server never ends without saying why.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_END_H
#define MOCK_END_H

#include <signal.h>

/* From now on, a signal that means a bug leaves a stack behind. */
extern void end_watch_crashes(void);

/* Says why on stderr, and aborts. */
extern void end_badly(const char *why) __attribute__((noreturn));

/* For microhttpd, of which some would abort in silence. */
extern void end_by_panic(void *cls, const char *file, unsigned int line, const char *reason) __attribute__((noreturn));

#endif							/* MOCK_END_H */
