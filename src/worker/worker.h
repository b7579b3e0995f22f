/*-------------------------------------------------------------------------
 *
 * worker.h
 *		Launcher and workers, which deliver what is in the outboxes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WORKER_H
#define CLERK_WORKER_H

/* pg_clerk.max_workers. */
extern int	clerk_max_workers;

/* In _PG_init, while shared_preload_libraries are loaded. */
extern void clerk_worker_init(void);

#endif							/* CLERK_WORKER_H */
