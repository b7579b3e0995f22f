/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Which database has a worker, and waking it: the shared memory of
 *		launcher, workers and sessions.
 *
 * All times are those of clerk_now_ms, a clock that is never set and the
 * same for all processes.
 *
 * This is in base/, not in worker/, because lower layers call it: a change of a
 * server's options, a request that is enqueued or finished, and a session that
 * awaits one.  It knows databases and processes only, nothing of Clerk or of the
 * tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_WAKE_H
#define CLERK_WAKE_H

#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/*
 * How many databases can have a worker or wait for one.  The memory is reserved
 * when the server starts, so there must be a bound.
 */
#define CLERK_MAX_DATABASES 256

/*
 * Condition variables that sessions sleep on while they await a request.  The
 * requests of all databases share them, and a session that is woken for another
 * request looks at the table in vain.  With 1024 of them, that happens about once
 * a second to each session while a thousand requests a second are finished.
 */
#define CLERK_VARIABLES 1024

/* Servers that Clerk can hold back at a time; of more, each process knows its own. */
#define CLERK_MAX_HOLDS 64

#define CLERK_NEVER PG_INT64_MAX

/* A database that has a worker, is to have one, or must not have one now. */
typedef struct ClerkDatabase
{
	Oid			database;		/* InvalidOid: the entry is free */
	int64		wanted;			/* when it should have a worker */
	int64		not_before;		/* but none may be started before */
	bool		woken;			/* something happened that no worker has
								 * looked at */
	bool		starting;		/* a worker is registered and has not started
								 * yet */
	bool		no_process;		/* there was no process for a worker */
	int			failures;		/* workers in a row that did not start, or
								 * ended by an error */

	/* its worker */
	int			pid;			/* 0: none; then what follows means nothing */
	Latch	   *latch;
	int64		since;			/* when it started */
	bool		idle;			/* it has nothing to do */
	bool		leave;			/* it must make room */

	int			mirror_pid;		/* mirrors one of its servers; 0: none does */
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
	Latch	   *launcher;		/* NULL: there is none now */
	bool		launched;		/* there has been one since the server started */
	bool		crowded;		/* a database waits for another's worker to
								 * leave */
	bool		full;			/* there was no free entry for a database */
	ClerkDatabase databases[CLERK_MAX_DATABASES];
	int64		last_hold;		/* when the last of them ends; read without
								 * the lock */
	ClerkHold	holds[CLERK_MAX_HOLDS];
	ConditionVariable finished[CLERK_VARIABLES];	/* not under the lock */
} ClerkWake;

/* pg_clerk.worker. */
extern bool clerk_worker_enabled;

/* In _PG_init, at preload: reserve the memory, and attach to it when it is there. */
extern void clerk_wake_init(void);

/* In _PG_init of any process: install the callbacks for the end of transactions. */
extern void clerk_wake_register(void);

/*-------------------------------------------------------------------------
 * For sessions.  Without preload there is no shared memory, and these do nothing.
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
 * A prepared transaction was committed in this database.  What it has done is not
 * known, so wake the worker and all sessions that await a request.
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
 * Sleep until a request may be finished, or until this time (-1: no limit).  Call
 * it in a loop that looks at the request before each call.  The first call returns
 * at once, so that a request that is finished between the look and the call is not
 * missed.  End with clerk_wake_end_wait; the abort of a (sub)transaction does so,
 * too.
 */
extern void clerk_wake_wait(int64 request, const char *key, int64 until);
extern void clerk_wake_end_wait(void);

/* Cancel the mirror of the database that runs by itself, if there is one. */
extern void clerk_wake_cancel_mirror(Oid database);

/*
 * Make a database's worker leave, and its mirror, and start none until this
 * transaction ends, so that DROP DATABASE and the like are not held up.  Returns
 * when they are gone, or after some seconds if they are not.
 */
extern void clerk_wake_send_away(Oid database);

/*-------------------------------------------------------------------------
 * For workers
 *-------------------------------------------------------------------------
 */

/* Become this database's worker.  False if it has one, or must not have one. */
extern bool clerk_wake_enter(Oid database);

/* The worker is about to look at all that it was woken for until now. */
extern void clerk_wake_looking(void);

/* Was it woken since clerk_wake_looking? */
extern bool clerk_wake_pending(void);

extern void clerk_wake_idle(bool idle);
extern bool clerk_wake_must_leave(void);

/* It is going, by an error or not.  When is the next one wanted, and not before when? */
extern void clerk_wake_part(int64 wanted, int64 not_before, bool failed);

/* Does a process mirror a server of its database? */
extern bool clerk_wake_is_mirroring(void);

/*
 * Be the process that mirrors a server of this database.  False if there is one,
 * or must not be one now.  When it goes, the worker is told.
 */
extern bool clerk_wake_enter_mirror(Oid database);
extern void clerk_wake_part_mirror(Oid database);

/*-------------------------------------------------------------------------
 * For the launcher, which goes through all databases
 *-------------------------------------------------------------------------
 */

extern void clerk_wake_set_launcher(Latch *latch);
extern ClerkWake *clerk_wake_lock(void);
extern void clerk_wake_unlock(void);

/* Call it with the lock.  NULL if there is no entry, or none is free to create it. */
extern ClerkDatabase *clerk_wake_find(Oid database, bool create);

#endif							/* CLERK_WAKE_H */
