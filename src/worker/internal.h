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

/* Set the signal handlers of all our processes; call it before signals are unblocked. */
extern void clerk_worker_set_signals(void);

/* Make the settings of a process that has connected to a database. */
extern void clerk_worker_set_settings(void);

/*
 * In a worker, between transactions: start the mirror of a server that is due.
 * Returns when to call it again, if the latch is not set before.
 */
extern int64 clerk_mirror_tend(void);

/* When is a worker wanted to start the next one? */
extern int64 clerk_mirror_due(void);

/* In _PG_init: install the hook for statements that concern workers. */
extern void clerk_utility_hook_init(void);

#endif							/* CLERK_WORKER_INTERNAL_H */
