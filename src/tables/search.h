/*-------------------------------------------------------------------------
 *
 * search.h
 *		The domains that parameters name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_SEARCH_H
#define CLERK_SEARCH_H

#include "utils/jsonb.h"

/* As a text[], in lower case, as Clerk writes them; params is an object. */
extern Datum clerk_wanted_domains(Jsonb *params);

#endif							/* CLERK_SEARCH_H */
