/*-------------------------------------------------------------------------
 *
 * outbox.h
 *		Delivering what is in the outbox: what the files of this folder share.
 *
 * loop.c calls the others in turn: claim.c takes rows that are due and makes
 * deliveries of them, prepare.c their requests, judge.c and look_up.c what has
 * become of them, commit.c writes that, upkeep.c does what is done now and then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OUTBOX_H
#define CLERK_OUTBOX_H

#include "base/guard.h"
#include "base/statements.h"
#include "calls/list.h"
#include "clerk/dispatch.h"
#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "outbox/deliver.h"
#include "outbox/states.h"
#include "utils/elog.h"

/* Backoff of an attempt that came to nothing, in ms; Retry-After is obeyed up to that, too. */
#define CLERK_BACKOFF_FIRST 1000
#define CLERK_BACKOFF_LAST (60 * 60 * 1000)

/* How far Clerk's clock may be off, in us. */
#define CLERK_CLOCK_SKEW (5 * 60 * USECS_PER_SEC)

/* What is locked, or raises an error here, is tried again after this time (ms); doubled up to the last. */
#define CLERK_ASIDE_FIRST 100
#define CLERK_ASIDE_LAST (60 * 1000)

#define CLERK_NO_TIME PG_INT64_MAX

/* A server that has something to deliver. */
typedef struct Server
{
	Oid			oid;
	char		name[NAMEDATALEN];	/* as of the last claim */
	int			failures;		/* claims that raised an error, in a row */
	int64		claim_not_before;	/* ms; after such an error */
	int64		probe_not_before;	/* ms; while it is paused */
	bool		paused;			/* no key, or it was refused */
	int64		paused_version; /* of the settings that did not work */
	bool		stopped;		/* until an answer is judged that may pause it */
	struct LookUp *look_up;		/* NULL: none is under way */
	bool		backlog;		/* more is due than the last claim took */
	bool		from_newest;	/* the next claim looks from the other end */
	bool		many_doubts;	/* they are looked up */
	bool		waits;			/* something that is due, for another of its
								 * lane */
} Server;

/* A claimed request; all palloc'd, NULL where the column is null. */
typedef struct ClerkRequestRow
{
	int64		id;
	char	   *role;			/* as it was called when it enqueued the
								 * request */
	Oid			role_oid;		/* InvalidOid: it is gone */
	int64		origin;			/* the database that it was enqueued in */
	ClerkOutboxOperation operation;
	ClerkState	state;
	ClerkStep	step;
	char	   *key;
	char	   *connection_id;
	Jsonb	   *params;
	int			attempts;
	TimestampTz started_at;
	TimestampTz doubt_since;	/* 0: none */
	int			http_status;	/* of the attempt before, 0: none */
	Jsonb	   *error;			/* of the attempt before */
} ClerkRequestRow;

/* What an attempt has come to. */
typedef struct ClerkOutcome
{
	ClerkState	state;			/* the new one */
	ClerkStep	step;			/* CLERK_STEP_NONE: as it was */
	int64		delay;			/* ms until the next attempt; -1: none */
	bool		uncounted;		/* the attempt does not count */
	const char *connection_id;	/* NULL: as it was; "": none */
	int			http_status;	/* 0: none */
	Jsonb	   *error;			/* NULL: none */
	TimestampTz doubt_since;	/* 0: none */
	Jsonb	   *track;			/* connection to be tracked */
	const char *untrack;		/* id of a tracking row to be deleted */
	bool		set_reactivate; /* in the tracking row ... */
	bool		reactivate;		/* ... whether it is to be active again with
								 * its row */
} ClerkOutcome;

#define CLERK_NO_OUTCOME ((ClerkOutcome) {.step = CLERK_STEP_NONE, .delay = -1})

typedef enum DeliveryState
{
	DELIVERY_READY,				/* to be sent */
	DELIVERY_SENT,
	DELIVERY_LOOKED_UP,			/* in doubt: its server's look-up decides */
	DELIVERY_ANSWERED,			/* to be judged */
	DELIVERY_JUDGED				/* its outcome is to be written */
} DeliveryState;

/* A claimed request on its way. */
typedef struct Delivery
{
	dlist_node	node;
	MemoryContext context;		/* owns all of it */
	Server	   *server;
	ClerkRequestRow row;
	DeliveryState state;
	bool		claimed;		/* the claim is committed */
	bool		written;		/* its outcome is, by the transaction that is
								 * under way */
	bool		lost;			/* its claim was lost: nothing was written */
	bool		has_secrets;	/* its parameters may have */
	ClerkSettings *settings;
	ClerkParams *params;
	ClerkCall	call;
	ClerkOutcome outcome;
	const ClerkBody *next;		/* a PATCH of this follows at once ... */
	ClerkCall	next_call;		/* ... which is built */
	int			tries;			/* of judging or writing it, that came to
								 * nothing */
	int64		not_before;		/* ms; of the next one */
} Delivery;

/*
 * The look-up of what is in doubt at a server: one listing for all that was in
 * doubt when it began.
 */
typedef struct LookUp
{
	MemoryContext context;
	Server	   *server;
	const ClerkSettings *settings;	/* of one of the deliveries */
	ClerkCall	call;
	int64		offset;
	ClerkListing listing;
	int64		sent_at;		/* ms; the last page */
	TimestampTz oldest;			/* nothing older can be meant */
	bool		sent;
	bool		page_came;		/* to be looked through ... */
	int64		not_before;		/* ... but not before this, in ms */
	bool		answered;		/* every delivery has its outcome */
} LookUp;

/* A request that could not be claimed: left out for a while. */
typedef struct Aside
{
	int64		id;
	int			tries;
	int64		not_before;		/* ms */
} Aside;

typedef struct Loop
{
	const ClerkDeliverer *deliverer;
	MemoryContext context;
	ClerkHttpSet *set;
	int			claimer;		/* no other process has this number now */
	List	   *aside;			/* Aside * */
	List	   *servers;		/* Server * */
	dlist_head	deliveries;
	int			failures;		/* transactions in a row that came to nothing */
	int64		pause_until;	/* ms; none is begun before */
	int64		next_claim;		/* ms; when there may be something to claim */
	int64		next_chores;	/* ms */
	int64		next_sweep;		/* ms */
	int64		next_tend;		/* ms; the deliverer's own */
	int64		leave_at;		/* ms; asked to leave, at the latest then; 0:
								 * not */
	int64		clock_ahead;	/* ms; the wall's clock of the monotonic one,
								 * at the last chores */
	bool		purging;		/* more is to be cleared away */
	bool		woken;			/* by its latch */
	bool		look_again;		/* something was claimed by the last claim, or
								 * answered since */
	bool		limited;		/* the last claim, by a server's pace or
								 * another process: not for long */
	bool		crowded;		/* a server that has something due found no
								 * socket */
	bool		silent;			/* outcomes are written without notifications */
	bool		announced;		/* the transaction has notifications */
	char	   *swept_lane;		/* the last that was looked at; NULL: begin
								 * anew */
	NameData	swept_server;
	ClerkUser	user;			/* of the transaction, outside of it */
	int			guc_level;		/* settings that are made since go with the
								 * transaction */
} Loop;

/* try.c */
typedef void (*ClerkWork) (Loop *loop, void *arg);

/*
 * Run work in a subtransaction.  Returns the error, or NULL; one that asks a
 * session to stop is raised.
 */
extern ErrorData *clerk_outbox_try(Loop *loop, ClerkWork work, void *arg);

/*
 * The same for several items: all together; if that raises an error, without
 * those of which somebody has locked the row; if it still does, each alone.
 * work gets the ClerkItems, and must leave the items as they are if it raises
 * an error.  failed is called for what could not be done, with the reason; NULL: its row
 * is locked.
 */
typedef struct ClerkItems
{
	List	   *items;
	void	   *arg;
	ClerkWork	work;
	const ClerkColumn *id;		/* where an item has the id of its request;
								 * NULL: the rows are locked already */
	void		(*failed) (Loop *loop, void *arg, void *item, const ErrorData *error);
} ClerkItems;

extern void clerk_outbox_try_all(Loop *loop, ClerkItems *items);

/*
 * Run work in a transaction that has the tables locked for writing.  False if
 * it came to nothing: a table is locked, or there was an error, which is logged
 * as what could not be done.  A session raises it.
 */
extern bool clerk_outbox_transaction(Loop *loop, const char *what, ClerkWork work);

/* Such a transaction by itself. */
extern void clerk_outbox_begin(Loop *loop);
extern void clerk_outbox_end(Loop *loop);

/* Log what could not be done, and why: without a detail that may have secrets. */
extern void clerk_outbox_log(const char *what, const ErrorData *error);

/* Does it pass by itself: a lock, a shortage, a cancel? */
extern bool clerk_outbox_is_transient(const ErrorData *error);

/* 100, 200, 400 ... ms */
extern int64 clerk_outbox_pause(int tries);

/* loop.c */
extern Server *clerk_outbox_server(Loop *loop, const char *name);
extern int	clerk_outbox_sending(const Loop *loop, const Server *server);
extern bool clerk_outbox_completes(const Delivery *delivery);
extern void clerk_outbox_place_is_free(Loop *loop, const Server *server);
extern bool clerk_outbox_nothing_under_way(const Loop *loop);

/* claim.c */
extern void clerk_outbox_claim(Loop *loop);

/* The servers (char *) that have something unfinished. */
extern List *clerk_outbox_server_names(void);

/* prepare.c: make the request.  Everything that is wrong with the row is an error. */
extern void clerk_outbox_prepare(Loop *loop, void *delivery);

extern const ClerkBody clerk_body_inactive;

/* The PATCH that follows, built where an error becomes the outcome. */
extern void clerk_outbox_prepare_next(Delivery *delivery);

/* judge.c: from what has happened to delivery->outcome; in the delivery's context. */
extern void clerk_outbox_judge_all(Loop *loop);
extern void clerk_outbox_nothing_to_do(Delivery *delivery);
extern void clerk_outbox_judge_error(Delivery *delivery, const ErrorData *error);
extern void clerk_outbox_fail(Delivery *delivery, const ErrorData *error);
extern ClerkReport clerk_outbox_report(const ErrorData *error);
extern void clerk_outbox_set(Delivery *delivery, ClerkState state, int64 delay);
extern int64 clerk_outbox_backoff(int attempts);
extern void clerk_outbox_note_limit(const ClerkSettings *settings, const ClerkReport *report);

/* look_up.c */
extern void clerk_outbox_prepare_doubt(Loop *loop, Delivery *delivery);
extern void clerk_outbox_look_up(Loop *loop, Delivery *delivery);
extern void clerk_outbox_send_look_up(Loop *loop, LookUp *look_up);
extern void clerk_outbox_judge_page(Loop *loop, LookUp *look_up);
extern void clerk_outbox_end_look_up(LookUp *look_up);

/* commit.c */
extern bool clerk_outbox_commit(Loop *loop);

/* When there is an outcome to judge or to write, in ms; CLERK_NO_TIME: none. */
extern int64 clerk_outbox_next_outcome(const Loop *loop);

/* pause.c: servers whose key is refused */
extern void clerk_outbox_read_pauses(Loop *loop, void *arg);
extern void clerk_outbox_pause_server(Server *server, const ClerkReport *report, const ClerkSettings *settings);
extern void clerk_outbox_note_key(Server *server, const ClerkReport *report);
extern bool clerk_outbox_may_probe(Loop *loop, Server *server);
extern void clerk_outbox_probed(const Server *server);

/* note.c: what the log and pg_stat_activity are told */
extern void clerk_outbox_note_begin(void);
extern void clerk_outbox_note_written(const Loop *loop, const Delivery *delivery);
extern void clerk_outbox_note_look_up_failed(const LookUp *look_up, int count, const ClerkReport *report);

/* upkeep.c */
extern void clerk_outbox_chores(Loop *loop);

#endif							/* CLERK_OUTBOX_H */
