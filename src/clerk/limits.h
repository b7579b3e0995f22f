/*-------------------------------------------------------------------------
 *
 * limits.h
 *		How long an id or a key may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_LIMITS_H
#define CLERK_LIMITS_H

/* Ids and keys are in indexes, whose rows hold no more than some kilobytes. */
#define CLERK_MAX_NAME_LENGTH 255

/* Throws 22023 if it has more bytes.  what names it: "argument \"key\"". */
extern void clerk_api_check_length(const char *what, const char *value);

#endif							/* CLERK_LIMITS_H */
