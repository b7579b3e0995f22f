/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Which database has a worker, and waking it: the shared memory of
 *		launcher, workers and sessions.
 *
 * All times are those of clerk_http_now, a clock that is never set and the
 * same for all processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WAKE_H
#define CLERK_WAKE_H

#include "storage/latch.h"
#include "storage/lwlock.h"

/* Databases that can have a worker or ask for one. */
#define CLERK_MAX_DATABASES 256

#define CLERK_NEVER PG_INT64_MAX

/* A database that has a worker, is to have one, or must not have one now. */
typedef struct ClerkDatabase
{
	Oid			database;		/* InvalidOid: the place is free */
	int64		wanted;			/* when it is to have a worker */
	int64		not_before;		/* but none may come before */
	bool		woken;			/* something happened that no worker has looked at */
	bool		starting;		/* a worker was asked for and has not come yet */

	/* the worker that is there */
	int			pid;			/* 0: none; then what follows means nothing */
	Latch	   *latch;
	int64		since;			/* when it came */
	bool		idle;			/* it has nothing to do */
	bool		leave;			/* it is asked to make room */
} ClerkDatabase;

typedef struct ClerkWake
{
	LWLock	   *lock;
	Latch	   *launcher;		/* NULL: it is not there now */
	bool		crowded;		/* a database waits for another's worker to leave */
	bool		full;			/* a database found no place */
	ClerkDatabase databases[CLERK_MAX_DATABASES];
} ClerkWake;

/* pg_clerk.worker. */
extern bool clerk_worker_enabled;

/* In _PG_init: reserve the memory, and see to it that it is attached. */
extern void clerk_wake_init(void);

/* In _PG_init of any process: act at the end of transactions. */
extern void clerk_wake_register(void);

/*-------------------------------------------------------------------------
 * For sessions; without the memory nothing happens
 *-------------------------------------------------------------------------
 */

/* Will a worker deliver what is enqueued here? */
extern bool clerk_wake_served(void);

/* When this transaction commits, wake this database's worker, or start it. */
extern void clerk_wake_at_commit(void);

/*
 * Make a database's worker leave, and keep it away until this transaction
 * ends, so that DROP DATABASE and the like are not held up.  Returns when it
 * is gone, or after some seconds, in which it has not gone.
 */
extern void clerk_wake_send_away(Oid database);

/*-------------------------------------------------------------------------
 * For workers
 *-------------------------------------------------------------------------
 */

/* Be this database's worker.  False if it has one, or must not have one. */
extern bool clerk_wake_enter(Oid database);

/* What it was woken for until now, it is going to look at. */
extern void clerk_wake_looking(void);

/* Was it woken since? */
extern bool clerk_wake_pending(void);

extern void clerk_wake_idle(bool idle);
extern bool clerk_wake_must_leave(void);

/* It is going.  When is the next one wanted, and not before when? */
extern void clerk_wake_part(int64 wanted, int64 not_before);

/*-------------------------------------------------------------------------
 * For the launcher, which goes through all databases
 *-------------------------------------------------------------------------
 */

extern void clerk_wake_set_launcher(Latch *latch);
extern ClerkWake *clerk_wake_lock(void);
extern void clerk_wake_unlock(void);

/* With the lock; NULL if it is not known, or there is no place for it. */
extern ClerkDatabase *clerk_wake_find(Oid database, bool create);

#endif							/* CLERK_WAKE_H */
