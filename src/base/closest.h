/*-------------------------------------------------------------------------
 *
 * closest.h
 *		Which known name was probably meant?
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_CLOSEST_H
#define CLERK_CLOSEST_H

/*
 * The state of one search.  Offer every candidate; best is the closest one
 * within reach, or NULL.  It points at the candidate as it was offered.
 * (PostgreSQL's ClosestMatchState does the same, from version 16 on.)
 */
typedef struct ClerkClosest
{
	const char *name;			/* what was written */
	const char *best;
	int			distance;		/* of best; a farther one does not count */
} ClerkClosest;

extern void clerk_closest_start(ClerkClosest *search, const char *name);
extern void clerk_closest_offer(ClerkClosest *search, const char *candidate);

#endif							/* CLERK_CLOSEST_H */
