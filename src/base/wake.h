/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Which database has a worker, and waking it: the shared memory of
 *		launcher, workers and sessions.
 *
 * All times are those of clerk_now_ms, a clock that is never set and the
 * same for all processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WAKE_H
#define CLERK_WAKE_H

#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* Databases that can have a worker or ask for one. */
#define CLERK_MAX_DATABASES 256

/*
 * Variables that sessions sleep on while they await a request.  The requests of
 * all databases share them, and a session that is woken for another one looks
 * at the table in vain.  With as many as this, that is about once a second for
 * each session while a thousand requests a second are finished.
 */
#define CLERK_VARIABLES 1024

/* Servers that Clerk can hold back at a time; of more, each process knows its own. */
#define CLERK_MAX_HOLDS 64

#define CLERK_NEVER PG_INT64_MAX

/* A database that has a worker, is to have one, or must not have one now. */
typedef struct ClerkDatabase
{
	Oid			database;		/* InvalidOid: the place is free */
	int64		wanted;			/* when it is to have a worker */
	int64		not_before;		/* but none may come before */
	bool		woken;			/* something happened that no worker has looked at */
	bool		starting;		/* a worker was asked for and has not come yet */
	bool		no_process;		/* ... in vain: there was no process for it */
	int			failures;		/* workers in a row that did not come, or ended by an error */

	/* the worker that is there */
	int			pid;			/* 0: none; then what follows means nothing */
	Latch	   *latch;
	int64		since;			/* when it came */
	bool		idle;			/* it has nothing to do */
	bool		leave;			/* it is asked to make room */
} ClerkDatabase;

/* A server to which nothing may be sent until then, because Clerk has said so. */
typedef struct ClerkHold
{
	Oid			database;		/* InvalidOid: the place is free */
	Oid			server;
	int64		version;		/* of the server's settings: others end it */
	int64		until;
} ClerkHold;

typedef struct ClerkWake
{
	LWLock	   *lock;
	Latch	   *launcher;		/* NULL: it is not there now */
	bool		launched;		/* it has been there since the server started */
	bool		crowded;		/* a database waits for another's worker to leave */
	bool		full;			/* a database found no place */
	ClerkDatabase databases[CLERK_MAX_DATABASES];
	int64		last_hold;		/* when the last of them ends; read without the lock */
	ClerkHold	holds[CLERK_MAX_HOLDS];
	ConditionVariable finished[CLERK_VARIABLES];	/* not under the lock */
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

/*
 * Why no worker will deliver what is enqueued here, or not soon; NULL: one will.
 * *hint: what to do about it, a sentence.  Both are constant texts.
 */
extern const char *clerk_wake_unserved(const char **hint);

/*
 * Nothing may be sent to this database's server until then; and until when
 * that is the case (0, or a time that has passed: it is not).
 */
extern void clerk_wake_hold(Oid server, int64 version, int64 until);
extern int64 clerk_wake_held_until(Oid server, int64 version);

/* When this transaction commits, wake this database's worker, or start it. */
extern void clerk_wake_at_commit(void);

/*
 * A prepared transaction was committed in this database, and what it has done
 * is not known: wake the worker, and all sessions that await something.
 */
extern void clerk_wake_prepared(void);

/*
 * This transaction finishes a request (delivered, failed, superseded or
 * cancelled): when it commits, wake the sessions that await it.  key: its key,
 * NULL if it has none.  All requests of a key are woken together, so those that
 * a newer upsert has superseded need no call of their own.
 */
extern void clerk_wake_finished(int64 request, const char *key);

/*
 * Sleep until a request may be finished, or until then (-1: without end).  To
 * be called in a loop that looks at the request each time before: the first
 * call returns at once, so that nothing that is finished after the look is
 * missed.  End with clerk_wake_end_wait; the abort of a (sub)transaction does
 * it, too.
 */
extern void clerk_wake_wait(int64 request, const char *key, int64 until);
extern void clerk_wake_end_wait(void);

/*
 * Make a database's worker leave, and keep it away until this transaction
 * ends, so that DROP DATABASE and the like are not held up.  Returns when it
 * is gone, or after some seconds, in which it has not gone.
 */
extern void clerk_wake_send_away(Oid database);

/* Wait until then, whatever the latch is set for; ends at once on cancel. */
extern void clerk_wake_pause(int64 until);

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

/* It is going, by an error or not.  When is the next one wanted, and not before when? */
extern void clerk_wake_part(int64 wanted, int64 not_before, bool failed);

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
