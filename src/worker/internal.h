/*-------------------------------------------------------------------------
 *
 * internal.h
 *		What launcher.c, worker.c and utility_hook.c share; for no other folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WORKER_INTERNAL_H
#define CLERK_WORKER_INTERNAL_H

/* When to try again after an error, or if no process was free. */
#define RESTART_MS 1000

/* Set the signal handlers of launcher and workers; call it before signals are unblocked. */
extern void clerk_worker_set_signals(void);

/* In _PG_init: install the hook for statements that concern workers. */
extern void clerk_utility_hook_init(void);

#endif							/* CLERK_WORKER_INTERNAL_H */
