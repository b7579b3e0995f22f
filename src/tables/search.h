/*-------------------------------------------------------------------------
 *
 * search.h
 *		The domains by which a connection is found.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_SEARCH_H
#define CLERK_SEARCH_H

#include "utils/jsonb.h"

/*
 * The domains that parameters (an object) name, as Clerk writes them: a text[]
 * in lower case, empty if there are none.
 */
extern Datum clerk_wanted_domains(Jsonb *params);

#endif							/* CLERK_SEARCH_H */
