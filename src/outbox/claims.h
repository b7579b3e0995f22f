/*-------------------------------------------------------------------------
 *
 * claims.h
 *		What the files that claim share: due.c looks at what is due, supersede.c
 *		at what others make needless, claim.c claims.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OUTBOX_CLAIMS_H
#define CLERK_OUTBOX_CLAIMS_H

#include "outbox/outbox.h"

#define REQUESTS "%1$s.enterprise_connection_requests"

/*
 * Rows are found by their ids one by one, then updated where they are: a join by
 * ids could be done the other way round, by going through all rows.  What else
 * must be true of a row is asked of t, where the primary key has found it; of q,
 * an index could answer it first, with all rows of a state.  A row that was
 * changed since t saw it has another place, and is left out.
 */
#define PLACE(id) " CROSS JOIN LATERAL (SELECT t.ctid AS place, t.* FROM " REQUESTS " t WHERE t.id = " id " LIMIT 1) t"

/* The priorities that the requests of server $1 have, one after the other. */
#define PRIORITIES \
	"WITH RECURSIVE priorities (priority) AS (" \
	" (SELECT q.priority FROM " REQUESTS " q WHERE q.server = $1 AND q.finished_at IS NULL" \
	" ORDER BY q.priority LIMIT 1)" \
	" UNION ALL SELECT (SELECT q.priority FROM " REQUESTS " q WHERE q.server = $1 AND q.finished_at IS NULL" \
	" AND q.priority > p.priority ORDER BY q.priority LIMIT 1)" \
	" FROM priorities p WHERE p.priority IS NOT NULL) "

/* What is due but cannot be claimed, is looked at again after this time (ms). */
#define CLERK_LOOK_AGAIN 1000

/* Another process has the queue just now: it takes milliseconds. */
#define CLERK_QUEUE_BUSY 5

/* The first of a lane, one of which is due. */
typedef struct Due
{
	int64		id;
	int64		due;			/* the one that is due: itself, or one behind
								 * it ... */
	bool		may_wait;		/* ... which may be put out of the way: it is
								 * not of a higher priority */
	ClerkState	state;
	ClerkStep	step;
	ClerkOutboxOperation operation;
	char	   *lane;			/* NULL: none */
	char	   *connection_id;	/* its own, or what is tracked under its key */
	int			claimer;		/* 0: none */
	bool		ready;			/* its own time has come, too */
	int			size;			/* of its document, as stored */
	bool		from_other;		/* another database or timeline may have sent
								 * it */
	bool		followed;		/* an upsert, with another request behind it */
	bool		overtakes;		/* something before it has failed */
	bool		allowed;		/* not left out for a while, and of a role
								 * that is delivered for */
} Due;

/* Ids, or ids and lanes, as a statement is given them. */
extern const ClerkColumn clerk_due_ids[];
extern const ClerkColumn clerk_due_lanes[];

/* What a claim does at one server, in a subtransaction. */
typedef struct Claim
{
	Server	   *server;
	const ClerkSettings *limits;
	TimestampTz moment;
	int			free;			/* places: more could be sent, by the sockets
								 * ... */
	int			wanted;			/* ... and by the pace, too */
	List	   *deliveries;		/* of what was claimed */
	int			sent;			/* of what was claimed: to be sent ... */
	int			taken;			/* ... and in all */
	bool		look_again;		/* others were merged, left out or put out of
								 * the way */
} Claim;

/* due.c */

/* Look at up to this number of rows that are due; a list of Due *.  Notes in the server whether there are more. */
extern List *clerk_due_rows(Loop *loop, const Claim *claim, int limit);

/* Is it to be looked up, not sent? */
extern bool clerk_due_is_doubt(const Due *due);

/*
 * Choose what is claimed of them; doubts need no place: one listing is for all.
 * *lanes: of each lane in which something that is due stands behind another,
 * the first that does, if they are so many that they are to be put behind.
 */
extern List *clerk_due_choose(Loop *loop, const Claim *claim, List *rows, List **lanes);
extern void clerk_due_put_behind(Claim *claim, List *lanes);

/* Leave a request out for a while. */
extern void clerk_due_set_aside(Loop *loop, int64 id);

/* When is the next one of the server due?  To loop->next_claim. */
extern void clerk_due_note_next(Loop *loop, const Claim *claim);

/* How many more may be sent to the server now, by the sockets; and when its pace is to let another one through. */
extern int	clerk_due_places(const Loop *loop, const Server *server, const ClerkSettings *limits);
extern void clerk_due_wait_for_pace(Loop *loop, const ClerkSettings *limits);

/* supersede.c: the id of one that is not to be claimed after all becomes 0 */
extern void clerk_merge_upserts(Claim *claim, List *chosen);
extern void clerk_overtake_failed(Loop *loop, const Claim *claim, List *chosen);

#endif							/* CLERK_OUTBOX_CLAIMS_H */
