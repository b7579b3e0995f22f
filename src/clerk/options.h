/*-------------------------------------------------------------------------
 *
 * options.h
 *		The options of servers and user mappings: one table, and the validator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OPTIONS_H
#define CLERK_OPTIONS_H

#include "base/compat.h"
#include "clerk/settings.h"

/* A key is some 50 bytes; a longer file is no key file. */
#define CLERK_MAX_KEY_LENGTH 1024

/* Says what is wrong with a secret key as a sentence; NULL if nothing is. */
extern const char *clerk_secret_key_fault(const char *value);

/* May the role set an option that makes the server read a file? */
extern bool clerk_may_read_files(Oid role);

/* Fill in the members of options that have a fixed default. */
extern void clerk_options_set_defaults(ClerkSettings *settings);

/*
 * Fill in the members of the given options, a list of DefElem, in the current
 * memory context.  The validator has seen the values, but it may have been
 * another release's.  Throws HV00D or HV024.
 */
extern void clerk_options_apply(ClerkSettings *settings, List *given, Oid catalog);

/* Throws HV024: the value of a server's option is wrong, which the fault says. */
pg_noreturn extern void clerk_option_is_wrong(const ClerkSettings *settings, const char *name, const char *fault);

/* Copy what the members of all options point to into the current context. */
extern void clerk_options_copy(ClerkSettings *settings);

#endif							/* CLERK_OPTIONS_H */
