/*-------------------------------------------------------------------------
 *
 * shared.h
 *		Areas of shared memory, each of one file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_SHARED_H
#define CLERK_SHARED_H

#include "storage/lwlock.h"

/* In a static variable. */
typedef struct ClerkSharedArea
{
	const char *name;			/* of the memory and its lock; known to no
								 * other area */
	Size		size;
	void		(*attach) (void *memory, LWLock *lock, bool is_new);	/* new: it is all zeros */

	/* private */
	struct ClerkSharedArea *next;
} ClerkSharedArea;

/*
 * In _PG_init, while shared_preload_libraries are loaded: reserve the memory,
 * and see to it that each process attaches it.
 */
extern void clerk_shared_reserve(ClerkSharedArea *area);

#endif							/* CLERK_SHARED_H */
