/*-------------------------------------------------------------------------
 *
 * outbox.h
 *		The outbox, enterprise_connection_requests: requests that are delivered
 *		after commit.
 *
 * The states and their transitions are drawn in README.md beside this file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OUTBOX_H
#define CLERK_OUTBOX_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "settings.h"
#include "utils/jsonb.h"

/* A claimed request; all palloc'd, NULL where the column is null. */
typedef struct ClerkRequestRow
{
	int64		id;
	char	   *server;
	char	   *role;			/* as it was called when it enqueued the request */
	Oid			role_oid;		/* InvalidOid: it is gone */
	bool		aside;			/* it could not be claimed */
	char	   *operation;
	char	   *key;
	char	   *connection_id;
	Jsonb	   *params;
	const char *step;
	int			attempts;
	int			claimer;
	TimestampTz created_at;
	TimestampTz started_at;
	TimestampTz doubt_since;	/* 0: none */
	int			http_status;	/* of the attempt before, 0: none */
	Jsonb	   *error;			/* of the attempt before */
} ClerkRequestRow;

/* What an attempt has come to, for clerk_outbox_finish. */
typedef struct ClerkOutcome
{
	const char *state;			/* the new one */
	const char *step;			/* NULL: as it was */
	int64		delay;			/* ms until the next attempt; -1: none */
	bool		uncounted;		/* the attempt does not count */
	const char *connection_id;	/* NULL: as it was; "": none */
	int			http_status;	/* 0: none */
	Jsonb	   *error;			/* NULL: none */
	TimestampTz doubt_since;	/* 0: none */
	int64		awaits;			/* the request that it waits for, 0: none */
} ClerkOutcome;

/* What a request can do that Clerk has refused as a duplicate. */
typedef enum ClerkVerdict
{
	CLERK_REFUSED,				/* nothing */
	CLERK_WAIT,					/* wait for another one */
	CLERK_AGAIN,				/* try again, not for long */
	CLERK_EXCHANGE				/* give up what the other one wants, then wait */
} ClerkVerdict;

/* Who claims. */
typedef struct ClerkClaimer
{
	int			number;			/* no other process has it now */
	Oid			role;			/* only what this role may; InvalidOid: all */
	List	   *aside;			/* int64 *: requests that are not to be claimed now */
} ClerkClaimer;

/* What has become of an outcome. */
typedef enum ClerkFinish
{
	CLERK_FINISH_COUNTED,		/* it is written */
	CLERK_FINISH_LOST,			/* the claim was lost, so it does not count */
	CLERK_FINISH_LOCKED			/* the row is locked: try again */
} ClerkFinish;

/*
 * Enqueue a request of the current user, whose params were checked; returns
 * its id.  It wakes the worker at commit.
 */
extern int64 clerk_enqueue(const ClerkSettings *settings, const char *operation, Jsonb *params,
						   const char *key, const char *connection_id);

/* Does a lane have an unfinished request?  As of now, without a predicate lock. */
extern bool clerk_lane_is_taken(const char *server, const char *lane);

/* Names of the servers that have something to deliver or to look up. */
extern List *clerk_outbox_servers(void);

/*
 * Claim up to so many requests of the server whose limits these are.  A
 * request can be on its way for limits->timeout ms.
 */
extern List *clerk_outbox_claim(const ClerkSettings *limits, int wanted, const ClerkClaimer *claimer);
extern List *clerk_outbox_claim_doubts(const char *server, const ClerkClaimer *claimer);

/* A copy in the current memory context. */
extern ClerkRequestRow *clerk_outbox_copy(const ClerkRequestRow *row);

/* When the next one of these servers is due, 0 if none is. */
extern TimestampTz clerk_outbox_next_due(List *servers, const ClerkClaimer *claimer);

/*
 * Write an outcome.  *sweep is set if the next of its lane could not be let go
 * on, and lanes are to be swept; *server, if it counts, to the server's name
 * of now.
 */
extern ClerkFinish clerk_outbox_finish(const ClerkRequestRow *row, const ClerkOutcome *outcome,
									   bool *sweep, char **server);

/*
 * What it is refused for is another connection's.  Will that give it up?
 * by_organization: the organization; else a domain.  *awaits is the request
 * that will, or 0; *keeps, to exchange, the domains to keep meanwhile.
 */
extern ClerkVerdict clerk_outbox_in_the_way(const ClerkRequestRow *row, bool by_organization,
											int64 *awaits, Jsonb **keeps);

/* Those that wait for it may try again. */
extern void clerk_outbox_wake(const ClerkRequestRow *row);

/* ... and all that wait for what is finished. */
extern void clerk_outbox_wake_missed(void);

/*
 * Have the next request of the key take over what Clerk has refused, if it is
 * an upsert or a delete; false if it is not.
 */
extern bool clerk_outbox_hand_over(const ClerkRequestRow *row);

/* Has another request made this connection? */
extern bool clerk_outbox_made_by_other(const ClerkRequestRow *row, const char *connection_id);

/* Claimers that have requests now; ints. */
extern List *clerk_outbox_claimers(void);
extern void clerk_outbox_recover(int claimer);

/*
 * Let go what stands behind nothing, in a part of the lanes: the first ones, or
 * those after the last call's.  True if there are more.
 */
extern bool clerk_outbox_sweep(bool from_start);

/* Delete what was finished before so many seconds ago; false if there is more. */
extern bool clerk_outbox_purge(int retention);

/* A server that is paused. */
typedef struct ClerkPause
{
	char	   *server;
	TimestampTz probed_at;		/* last tried */
	int64		version;		/* of the settings that did not work */
} ClerkPause;

extern List *clerk_outbox_pauses(void); /* ClerkPause * */
extern void clerk_outbox_pause(const char *server, const char *reason, int64 version);
extern void clerk_outbox_unpause(const char *server);

/*
 * May this process try whether a server that is paused works again?  If the
 * settings are others than those, or so many ms after the last time.  Until
 * the end of the transaction no other may.  Then say that it was done.
 */
extern bool clerk_outbox_may_probe(const char *server, int64 version, int interval);
extern void clerk_outbox_probed(const char *server);

#endif							/* CLERK_OUTBOX_H */
