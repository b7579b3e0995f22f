/*-------------------------------------------------------------------------
 *
 * internal.h
 *		What launcher.c, worker.c and utility_hook.c share; for no other folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WORKER_INTERNAL_H
#define CLERK_WORKER_INTERNAL_H

/* After an error, and where no process was to be had. */
#define RESTART_MS 1000

/* Signal handlers of both kinds of processes, before signals are unblocked. */
extern void clerk_worker_set_signals(void);

/* In _PG_init: be told of the statements that concern workers. */
extern void clerk_utility_hook_init(void);

#endif							/* CLERK_WORKER_INTERNAL_H */
