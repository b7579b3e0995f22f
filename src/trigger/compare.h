/*-------------------------------------------------------------------------
 *
 * compare.h
 *		What a row wants beside what its connection has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_COMPARE_H
#define CLERK_COMPARE_H

#include "utils/jsonb.h"

/* A parameter that differs; wanted and actual are NULL where they are null. */
typedef void (*ClerkDifference) (const char *path, JsonbValue *wanted, JsonbValue *actual, void *arg);

/*
 * Visit the parameters of which the connection, as Clerk has answered it, has
 * other values.  What the parameters do not name is no difference.
 */
extern void clerk_compare(Jsonb *params, Jsonb *connection, ClerkDifference visit, void *arg);

/* Does Clerk never show the value of this parameter ("oidc.client_secret")? */
extern bool clerk_is_never_shown(const char *path);

/* The strings of an array, in lower case, as Clerk writes domains; palloc'd. */
extern char **clerk_lower_strings(const JsonbValue *array, int *count);

#endif							/* CLERK_COMPARE_H */
