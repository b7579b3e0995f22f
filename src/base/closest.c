/*-------------------------------------------------------------------------
 *
 * closest.c
 *		Which known name was probably meant?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/closest.h"
#include "mb/pg_wchar.h"
#include "utils/varlena.h"

/* More edits than this make it another word, not a misspelling. */
#define MAX_DISTANCE 4

/* varstr_levenshtein's own limit, in characters; bytes are never fewer. */
#define MAX_LENGTH 255

void
clerk_closest_start(ClerkClosest *search, const char *name)
{
	size_t		len = strlen(name);
	size_t		half = pg_mbstrlen(name) / 2;

	search->name = len == 0 || len > MAX_LENGTH ? NULL : name;
	search->best = NULL;
	search->distance = (int) Min(half, MAX_DISTANCE) + 1;
}

void
clerk_closest_offer(ClerkClosest *search, const char *candidate)
{
	size_t		len = strlen(candidate);
	int			distance;

	if (search->name == NULL || search->distance == 0 || len > MAX_LENGTH)
		return;
	distance = varstr_levenshtein_less_equal(search->name, (int) strlen(search->name),
											 candidate, (int) len,
											 1, 1, 1, search->distance - 1, true);
	if (distance < search->distance)
	{
		search->best = candidate;
		search->distance = distance;
	}
}
