/*-------------------------------------------------------------------------
 *
 * text.h
 *		Untrusted text for messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_TEXT_H
#define CLERK_TEXT_H

#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"

/* Replace all occurrences of all secrets (UTF-8 strings).  palloc'd. */
extern char *clerk_text_take_out(const char *text, List *secrets);

/*
 * A character that commands a terminal, shows nothing, or changes how the text
 * around it is read?
 */
extern bool clerk_text_is_unprintable(pg_wchar c);

/*
 * UTF-8 text from the network, fit for a message: without secrets, not too
 * long, with nothing unprintable, in the server's encoding.  palloc'd.
 */
extern char *clerk_text_presentable(const char *utf8, List *secrets);

#endif							/* CLERK_TEXT_H */
