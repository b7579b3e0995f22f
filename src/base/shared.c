/*-------------------------------------------------------------------------
 *
 * shared.c
 *		Areas of shared memory, each of one file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

static ClerkSharedArea *areas = NULL;

static shmem_startup_hook_type previous_startup_hook = NULL;
#if CLERK_HAS_SHMEM_REQUEST_HOOK
static shmem_request_hook_type previous_request_hook = NULL;
#endif

static void
request(const ClerkSharedArea *area)
{
	RequestAddinShmemSpace(MAXALIGN(area->size));
	RequestNamedLWLockTranche(area->name, 1);
}

#if CLERK_HAS_SHMEM_REQUEST_HOOK
static void
request_areas(void)
{
	if (previous_request_hook)
		previous_request_hook();
	for (const ClerkSharedArea *area = areas; area != NULL; area = area->next)
		request(area);
}
#endif

static void
attach_areas(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	for (const ClerkSharedArea *area = areas; area != NULL; area = area->next)
	{
		bool		found;
		void	   *memory;

		LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
		memory = ShmemInitStruct(area->name, area->size, &found);
		if (!found)
			memset(memory, 0, area->size);
		area->attach(memory, &(GetNamedLWLockTranche(area->name))->lock, !found);
		LWLockRelease(AddinShmemInitLock);
	}
}

void
clerk_shared_reserve(ClerkSharedArea *area)
{
	if (areas == NULL)
	{
		previous_startup_hook = shmem_startup_hook;
		shmem_startup_hook = attach_areas;
#if CLERK_HAS_SHMEM_REQUEST_HOOK
		previous_request_hook = shmem_request_hook;
		shmem_request_hook = request_areas;
#endif
	}
	area->next = areas;
	areas = area;
#if !CLERK_HAS_SHMEM_REQUEST_HOOK
	request(area);
#endif
}
