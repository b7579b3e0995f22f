/*-------------------------------------------------------------------------
 *
 * deliver.c
 *		Delivering what is in the outbox.
 *
 * One loop: claim what is due and commit; send it; take the answers as they
 * come, commit what they mean, and fill the free places.  Between the
 * transactions nothing is held: no snapshot, no lock, no xid.  What a request
 * in a given state may become is drawn in README.md beside this file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api.h"
#include "catalog.h"
#include "commands/async.h"
#include "compat.h"
#include "connections.h"
#include "deliver.h"
#include "dispatch.h"
#include "executor/spi.h"
#include "json.h"
#include "keys.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "guard.h"
#include "lib/ilist.h"
#include "locks.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "origin.h"
#include "outbox.h"
#include "pages.h"
#include "postmaster/interrupt.h"
#include "statements.h"
#include "tracking.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Connections of this process in all, to whatever server. */
#define MAX_CONNECTIONS 500

/* Backoff: the first, in ms, doubled each time up to the last. */
#define BACKOFF_FIRST 1000
#define BACKOFF_LAST (60 * 60 * 1000)
#define BACKOFF_DOMAIN (30 * 1000)

/*
 * A request that waits for another one is queued again when that is finished.
 * As a safety net it also tries again by itself, at intervals (ms) that grow
 * with its age: the domain may have come free in another way.
 */
#define AWAIT_FIRST 1000
#define AWAIT_LAST (60 * 1000)

/* A server whose key is refused is tried again after so many ms. */
#define PROBE_INTERVAL (60 * 1000)

/*
 * What could not be done because something is locked, or raises an error, is
 * tried again after so many ms; twice as long each time up to the last.
 */
#define ASIDE_FIRST 100
#define ASIDE_LAST (60 * 1000)

/* ... up to this, if it is not one row that is concerned. */
#define TRANSACTION_PAUSE_LAST (10 * 1000)

/*
 * Rows are never waited for.  Where PostgreSQL waits by itself (for a row of a
 * foreign key, or a unique key that is being inserted), it is not for long: all
 * others wait meanwhile, and a lock that is held while waiting can deadlock.
 */
#define LOCK_TIMEOUT "10ms"

/* How far Clerk's clock may be off, in us. */
#define CLOCK_SKEW (5 * 60 * USECS_PER_SEC)

/* A time of Clerk's that is further off, in ms since 1970, is none. */
#define MAX_CLERK_TIME 1e14

/* A session that delivers by itself waits so many ms for a server's pace. */
#define SHORT_PAUSE 2000

/* A worker that is asked to leave waits so many ms for what is under way. */
#define LEAVE_TIME 400

/*
 * While more is due than was claimed, it is looked again after so many ms;
 * while nothing can be claimed of it, twice as long each time up to the last.
 */
#define PACE_INTERVAL 20
#define PACE_INTERVAL_LAST 1000

/* While something is under way, lanes are swept every so many ms. */
#define SWEEP_INTERVAL 100

/* Sockets of which a server that has one does not get another. */
#define RESERVED_SOCKETS 16

/*
 * Of answers that are larger than so many bytes, one is read in each
 * transaction, after the others: PostgreSQL may take a second to read one of
 * 8 MB, and a server can have as many come at a time as it has places.
 */
#define LARGE_ANSWER (256 * 1024)

/* A longer id, in bytes, might not fit into a notification. */
#define MAX_NOTIFIED_ID 1000

#define NEVER PG_INT64_MAX

/* A server that has something to deliver. */
typedef struct Server
{
	Oid			oid;
	char		name[NAMEDATALEN];	/* as of the last claim */
	int			active;			/* claimed and not finished */
	int			failures;		/* claims that raised an error, in a row */
	int64		claim_not_before;	/* ms; after such an error */
	int64		not_before;		/* ms; while it is paused */
	bool		paused;			/* no key, or it was refused */
	int64		paused_version; /* of the settings that did not work */
	bool		looking_up;
} Server;

typedef enum DeliveryState
{
	DELIVERY_READY,				/* to be sent */
	DELIVERY_SENT,
	DELIVERY_ANSWERED,			/* to be judged */
	DELIVERY_JUDGED,			/* its outcome is to be written */
	DELIVERY_WRITTEN			/* ... and committed */
} DeliveryState;

/* A claimed request on its way. */
typedef struct Delivery
{
	dlist_node	node;
	MemoryContext context;		/* owns all of it */
	Server	   *server;
	ClerkRequestRow *row;
	DeliveryState state;
	bool		claimed;		/* the claim is committed */
	ClerkSettings *settings;
	ClerkParams *params;
	ClerkCall	call;
	ClerkHttpRequest *request;
	ClerkJson  *wanted;			/* what is looked up: the body, parsed */

	/* what it has come to */
	ClerkOutcome outcome;
	Jsonb	   *track;			/* connection to be tracked */
	const char *untrack;		/* id of a row to be deleted */
	const ClerkBody *next;		/* a PATCH of this follows at once */
	ClerkCall	next_call;		/* the same, ready to be sent */
	ClerkHttpRequest *next_request;
	bool		gives_up;		/* what is sent only gives up domains */
	bool		yields;			/* Clerk refused it: the next of its key takes it over */
	const char *written_state;	/* what was written of it: the state, or "lost" */
	int64		awaits;			/* the request to wait for afterwards */
	int			tries;			/* of judging or writing it, that came to nothing */
	int64		not_before;		/* ms; of the next one */
	bool		sweep;			/* the next of its lane could not be let go on */
} Delivery;

/* A connection that a look-up has come across. */
typedef struct Candidate
{
	Jsonb	   *connection;
	ClerkJson  *json;			/* the same */
	char	   *id;
	TimestampTz created_at;
} Candidate;

/* The look-up of what is in doubt at a server: one listing for all. */
typedef struct LookUp
{
	dlist_node	node;
	MemoryContext context;
	Server	   *server;
	List	   *deliveries;		/* Delivery *, in doubt */
	ClerkSettings *settings;
	ClerkCall	call;
	ClerkHttpRequest *request;
	bool		claimed;		/* the claims are committed */
	int64		offset;
	ClerkListing listing;
	int64		sent_at;		/* ms; the last page */
	TimestampTz oldest;			/* nothing older can be meant */
	bool		page_came;		/* to be looked through */
	bool		answered;		/* every delivery has its outcome */
} LookUp;

/* A request that could not be claimed. */
typedef struct Aside
{
	int64		id;				/* first: claimer.aside points here */
	int			tries;
	int64		not_before;		/* ms */
} Aside;

typedef struct Loop
{
	const ClerkDeliverer *deliverer;
	MemoryContext context;
	ClerkHttpSet *set;
	ClerkClaimer claimer;
	List	   *aside;			/* Aside * */
	int			failures;		/* transactions in a row that came to nothing */
	int64		pause_until;	/* ms; none is begun before */
	List	   *servers;		/* Server * */
	dlist_head	deliveries;
	dlist_head	look_ups;
	int64		next_chores;	/* ms */
	int64		next_claim;		/* ms; when there may be something to claim */
	int64		interval;		/* ms; between claims that had nothing of what is due */
	bool		sweeping;		/* lanes are to be swept */
	bool		sweep_begun;	/* some of them were */
	bool		sweep_again;	/* woken since: perhaps by one that it has passed */
	bool		purging;		/* what is finished is to be deleted */
	int64		next_sweep;		/* ms; of lanes, while something is under way */
	bool		woken;			/* by its latch */
	bool		claimed_any;	/* by the last claim */
	bool		moved_any;		/* by the last claim, which has claimed nothing */
	int64		leave_at;		/* ms; asked to leave, at the latest then; 0: not */
	bool		limited;		/* by a server's limits, the last claim */
	ClerkUser	user;			/* of the transaction, outside of it */
	int			guc_level;		/* settings that are made since go with the transaction */
	List	   *finished;		/* texts for NOTIFY */
} Loop;

PG_FUNCTION_INFO_V1(deliver_enterprise_connections);

/*-------------------------------------------------------------------------
 * Transactions
 *-------------------------------------------------------------------------
 */

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * What is committed here must be known after a crash, whatever the database's
 * default: a claim that is forgotten would be sent twice.
 *
 * Every statement goes by an index.  A plan made while the outbox was short
 * would read all of it when it is long, until it is analyzed.
 *
 * A deferred constraint or trigger of somebody's is checked with the row that
 * it concerns, so that an error concerns that row alone.
 *
 * A foreign key that references our tables is checked as the owner of its own
 * table, and may run code of that role's: a cast, or the expression of an
 * index.  It must not leave anything behind that would run later, with the
 * rights of this process: a deferred trigger, a cursor WITH HOLD.  So the
 * transaction is a security-restricted operation, as for ANALYZE or CREATE
 * INDEX, and what is SET in it is undone.
 */
static void
begin(Loop *loop)
{
	loop->deliverer->begin();
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		set_local("synchronous_commit", "local");
	set_local("enable_seqscan", "off");
	set_local("enable_bitmapscan", "off");
	set_local("jit", "off");
	set_local("lock_timeout", LOCK_TIMEOUT);
	AfterTriggerSetState(&(ConstraintsSetStmt) {.type = T_ConstraintsSetStmt, .deferred = false});
	loop->guc_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&loop->user.id, &loop->user.sec_context);
	SetUserIdAndSecContext(loop->user.id, loop->user.sec_context | SECURITY_RESTRICTED_OPERATION);
}

static void
commit(Loop *loop)
{
	clerk_restore_user(&loop->user);
	AtEOXact_GUC(false, loop->guc_level);
	loop->deliverer->commit();
}

/*
 * 100, 200, 400 ... ms
 */
static int64
pause_after(int tries)
{
	return Min((int64) ASIDE_FIRST << Min(tries, 12), ASIDE_LAST);
}

/*
 * Is this an error that passes by itself?
 */
static bool
is_transient(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return true;
	}
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/*
 * May the error end this process or call?  What asks a session to stop does.
 */
static bool
ends_all(Loop *loop, const ErrorData *error)
{
	return !loop->deliverer->forever &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		 error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN);
}

/*
 * Run work(loop, arg) in a subtransaction.  Returns the error, or NULL.
 */
typedef void (*Work) (Loop *loop, void *arg);

static ErrorData *
run_in_subtransaction(Loop *loop, Work work, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(loop, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (ends_all(loop, error))
			clerk_rethrow(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Without the detail, which may have a whole row, with its secrets.
 */
static void
log_error(const char *what, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("pg_clerk could not %s: %s", what, error->message)));
}

/*
 * Run work in a transaction of its own, that has the tables locked for writing.
 * Returns false if it came to nothing: somebody has a table locked, or there
 * was an error, which is logged as what could not be done.  A session raises
 * it.  The next transaction is begun some time later then.
 */
static bool
run_in_transaction(Loop *loop, const char *what, Work work)
{
	MemoryContext scratch;
	ErrorData  *volatile error = NULL;
	volatile bool done = false;

	if (clerk_http_now() < loop->pause_until)
		return false;
	scratch = AllocSetContextCreate(loop->context, "pg_clerk transaction", ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		begin(loop);
		MemoryContextSwitchTo(scratch);
		if (clerk_try_lock_tables())
		{
			error = run_in_subtransaction(loop, work, NULL);
			done = error == NULL;
		}
		if (error != NULL && !loop->deliverer->forever)
			clerk_rethrow(error);
		commit(loop);
	}
	PG_CATCH();
	{
		if (!loop->deliverer->forever)
			PG_RE_THROW();
		MemoryContextSwitchTo(scratch);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(loop->context);

	/* An error that is owed to the extension being dropped just now is none. */
	if (error != NULL && !loop->deliverer->leave())
		log_error(what, error);
	MemoryContextDelete(scratch);
	loop->pause_until = done ? 0 : clerk_http_now() + Min(pause_after(loop->failures), TRANSACTION_PAUSE_LAST);
	loop->failures = done ? 0 : loop->failures + 1;
	return done;
}

/*-------------------------------------------------------------------------
 * Outcomes
 *-------------------------------------------------------------------------
 */

static int64
backoff(int attempts)
{
	int64		pause = BACKOFF_FIRST << Min(attempts - 1, 12);

	pause = Min(pause, BACKOFF_LAST);
	return pause / 2 + (int64) (clerk_random() * (double) pause / 2);
}

static void
judged(Delivery *delivery, const char *state, int64 delay)
{
	delivery->outcome.state = state;
	delivery->outcome.delay = delay;
	delivery->state = DELIVERY_JUDGED;
}

static void
judged_failed(Delivery *delivery, const ClerkReport *report)
{
	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.http_status = report->status;
	judged(delivery, "failed", -1);
}

/*
 * Nothing happened: again later, unless that was the last attempt.
 */
static void
judged_again(Delivery *delivery, const ClerkReport *report)
{
	int64		delay = Max(backoff(delivery->row->attempts), report->retry_after);

	/* A PATCH that is lost may still be on its way: it must not come last. */
	if (report->sqlerrcode == ERRCODE_CLERK_CONNECTION_BROKEN)
		delay = Max(delay, (delivery->row->started_at - GetCurrentTimestamp()) / 1000 +
					delivery->settings->timeout);
	if (delivery->row->attempts >= clerk_max_attempts)
	{
		judged_failed(delivery, report);
		return;
	}
	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.http_status = report->status;
	delivery->outcome.doubt_since = delivery->row->doubt_since;
	judged(delivery, "queued", delay);
}

/*
 * Nothing was sent, for want of something here: that is no attempt.
 */
static void
judged_short(Delivery *delivery, const ClerkReport *report)
{
	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.doubt_since = delivery->row->doubt_since;
	delivery->outcome.uncounted = true;
	judged(delivery, "queued", backoff(1));
}

/*
 * The server has no key that works.  The attempt does not count, and nothing
 * else is sent until the key has changed, but for one probe a minute.
 */
static void
pause_server(Server *server, const ClerkReport *report, const ClerkSettings *settings)
{
	server->paused = true;
	server->paused_version = settings ? settings->version : clerk_settings_version(server->name);
	server->not_before = clerk_http_now() + PROBE_INTERVAL;
	clerk_outbox_pause(server->name, report->message, server->paused_version);
}

static void
judged_paused(Delivery *delivery, const ClerkReport *report)
{
	pause_server(delivery->server, report, delivery->settings);
	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.http_status = report->status;
	delivery->outcome.doubt_since = delivery->row->doubt_since;
	delivery->outcome.uncounted = true;
	judged(delivery, "queued", 0);
}

/*
 * It may have happened: to be looked up when the request cannot be on its way
 * any more, that is, at the end of its lease.
 */
static void
judged_in_doubt(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = delivery->row;

	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.http_status = report->status;
	delivery->outcome.doubt_since = row->doubt_since ? row->doubt_since : row->started_at;
	judged(delivery, "in_doubt", -1);
}

/*
 * Clerk was not asked in vain, only too early: another request will make room.
 * That does not count, as it ends with the other one.
 */
static void
judged_waiting(Delivery *delivery, const ClerkReport *report, int64 awaits)
{
	int64		delay = (GetCurrentTimestamp() - delivery->row->created_at) / 1000 / 4;

	delay = Max(Min(delay, AWAIT_LAST), AWAIT_FIRST);
	delivery->outcome.error = clerk_report_to_jsonb(report);
	delivery->outcome.http_status = report->status;
	delivery->outcome.doubt_since = delivery->row->doubt_since;
	delivery->outcome.uncounted = true;
	delivery->outcome.awaits = awaits;
	judged(delivery, "queued", delay / 2 + (int64) (clerk_random() * (double) delay / 2));
}

/*
 * Each has what the other one wants.  A PATCH gives up what this one does not
 * want any more, and leaves it what it can have; then the others can go on.
 */
static void
judged_exchange(Delivery *delivery, int64 awaits, Jsonb *keeps)
{
	char	   *text = psprintf("{\"domains\":%s}", JsonbToCString(NULL, &keeps->root, 0));
	ClerkBody  *body = palloc(sizeof(*body));

	body->text = pg_server_to_any(text, strlen(text), PG_UTF8);
	body->len = strlen(body->text);
	delivery->next = body;
	delivery->gives_up = true;
	delivery->awaits = awaits;
	judged(delivery, "sending", delivery->settings->timeout);
}

/*
 * Clerk refuses what another connection has.  It may be a domain on its way
 * from one organization to another; or, for a create, what an earlier attempt,
 * or a call at once that was rolled back, has left.
 */
static void
judge_duplicate(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = delivery->row;
	int64		awaits;
	Jsonb	   *keeps;
	ClerkVerdict verdict = clerk_outbox_in_the_way(row, clerk_is_duplicate_organization(report), &awaits, &keeps);

	delivery->yields = true;

	/* It has given up already what it can, or tried so often. */
	if (verdict == CLERK_EXCHANGE && (delivery->gives_up || row->attempts >= clerk_max_attempts))
		verdict = CLERK_AGAIN;
	switch (verdict)
	{
		case CLERK_WAIT:
			judged_waiting(delivery, report, awaits);
			return;
		case CLERK_EXCHANGE:
			judged_exchange(delivery, awaits, keeps);
			return;
		case CLERK_AGAIN:
			judged_again(delivery, report);
			delivery->outcome.delay = Min(delivery->outcome.delay, BACKOFF_DOMAIN);
			return;
		case CLERK_REFUSED:
			break;
	}
	if (strcmp(row->step, "create") == 0 && (row->doubt_since != 0 || row->key != NULL))
	{
		delivery->outcome.error = clerk_report_to_jsonb(report);
		delivery->outcome.http_status = report->status;
		delivery->outcome.doubt_since = row->doubt_since ? row->doubt_since : time_t_to_timestamptz(0);
		judged(delivery, "in_doubt", 0);
	}
	else
		judged_failed(delivery, report);
}

/*
 * Clerk has asked to wait, which goes for all requests of the server.
 */
static void
note_limit(const ClerkSettings *settings, const ClerkReport *report)
{
	if (report->status == 429)
		clerk_pace_pause(settings, clerk_http_now() + (report->retry_after >= 0 ? Max(report->retry_after, 50) : 1000));
}

static void
judge_failure(Delivery *delivery, const ClerkReport *report)
{
	const ClerkRequestRow *row = delivery->row;

	if (report->retry == CLERK_RETRY_SHORTAGE)
		judged_short(delivery, report);
	else if (report->status == 401 && report->of_clerk)
		judged_paused(delivery, report);
	else if (strcmp(row->step, "delete") == 0 && clerk_report_is_gone(report))
	{
		delivery->outcome.http_status = report->status;
		delivery->untrack = row->connection_id;
		judged(delivery, "delivered", -1);
	}
	else if (strcmp(row->operation, "upsert") == 0 && strcmp(row->step, "update") == 0 &&
			 clerk_report_is_gone(report))
	{
		/* The key gets a new one. */
		delivery->untrack = row->connection_id;
		delivery->outcome.connection_id = "";

		/* At once, but only once: Clerk may list what it says is gone. */
		delivery->outcome.uncounted = row->attempts == 1;
		if (row->attempts == 1)
			judged(delivery, "queued", 0);
		else
			judged_again(delivery, report);
	}
	else if (clerk_is_duplicate(report))
		judge_duplicate(delivery, report);
	else if (report->retry == CLERK_RETRY_IN_DOUBT)
		judged_in_doubt(delivery, report);
	else if (report->retry == CLERK_RETRY_NEVER)
		judged_failed(delivery, report);
	else
		judged_again(delivery, report);
	note_limit(delivery->settings, report);
}

static void
judge_success(Delivery *delivery)
{
	const ClerkRequestRow *row = delivery->row;
	Jsonb	   *result = delivery->call.result;

	delivery->outcome.http_status = delivery->request->status;
	if (strcmp(row->step, "delete") == 0)
	{
		delivery->untrack = row->connection_id;
		judged(delivery, "delivered", -1);
		return;
	}
	delivery->track = result;
	delivery->outcome.connection_id = clerk_jsonb_string(result, "id");
	if (strcmp(row->step, "create") == 0 && delivery->params->patch != NULL)
	{
		/* A step of its own: committed before it is sent. */
		delivery->next = delivery->params->patch;
		delivery->outcome.step = "complete";
		judged(delivery, "sending", delivery->settings->timeout);
	}
	else if (delivery->gives_up)
	{
		/*
		 * The others first, then what it wants.  Counted: Clerk may keep what
		 * it was told to give up.
		 */
		delivery->outcome.awaits = delivery->awaits;
		judged(delivery, "queued", Max(backoff(row->attempts), AWAIT_FIRST));
	}
	else
		judged(delivery, "delivered", -1);
}

/*
 * An error here, as a request's.  The detail of a violated constraint may have
 * a whole row, with its secrets.
 */
static ClerkReport
report_of_error(const ErrorData *error)
{
	return (ClerkReport)
	{
		.sqlerrcode = error->sqlerrcode,
			.message = error->message,
			.detail = ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ?
			NULL : error->detail,
			.hint = error->hint,
			.retry_after = -1,
	};
}

/*
 * An error while preparing, not of Clerk's.
 */
static void
judge_error(Delivery *delivery, const ErrorData *error)
{
	ClerkReport report = report_of_error(error);
	ClerkOrigin origin;

	if (is_transient(error))
		judged_short(delivery, &report);
	else if (error->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		judged_failed(delivery, &report);
	else if (clerk_settings_origin(delivery->row->server, &origin) && origin == CLERK_ORIGIN_ELSEWHERE)
	{
		/* It waits until the server is armed. */
		delivery->outcome.uncounted = true;
		judged(delivery, "queued", 0);
	}
	else
		judged_paused(delivery, &report);
}

/*-------------------------------------------------------------------------
 * Preparing
 *-------------------------------------------------------------------------
 */

/*
 * Settings for who enqueued the request: key and USAGE as they are now.
 */
static ClerkSettings *
settings_of(const ClerkRequestRow *row)
{
	Oid			user;
	int			sec_context;
	ClerkSettings *settings;

	if (!OidIsValid(row->role_oid) || GetUserNameFromId(row->role_oid, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which enqueued the request, does not exist any more", row->role),
				 errhint("Enqueue it again as another role, and cancel this request.")));
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(row->role_oid, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	settings = clerk_settings(row->server, CLERK_USE_WRITE);
	SetUserIdAndSecContext(user, sec_context);
	return settings;
}

typedef struct WithoutNulls
{
	ClerkJson  *to;
} WithoutNulls;

static ClerkJson *without_nulls(ClerkJson *json);

/*
 * An object that has nothing but nulls goes with them.
 */
static bool
copy_unless_null(const char *name, ClerkJson *value, void *arg)
{
	ClerkJson  *copy = without_nulls(value);

	if (clerk_json_type(value) != CLERK_JSON_NULL &&
		(clerk_json_type(value) != CLERK_JSON_OBJECT || clerk_json_length(copy) > 0 ||
		 clerk_json_length(value) == 0))
		clerk_json_set(((WithoutNulls *) arg)->to, name, copy);
	return true;
}

static ClerkJson *
without_nulls(ClerkJson *json)
{
	WithoutNulls copy;

	if (clerk_json_type(json) != CLERK_JSON_OBJECT)
		return json;
	copy.to = clerk_json_new_object();
	clerk_json_each(json, copy_unless_null, &copy);
	return copy.to;
}

/*
 * The null of an upsert takes something away from a connection that exists;
 * for one that does not, there is nothing to take away.
 */
static ClerkParams *
params_for_create(const ClerkSettings *settings, const ClerkRequestRow *row)
{
	const char *fault;
	Jsonb	   *params = row->params;

	if (strcmp(row->operation, "upsert") == 0)
		params = clerk_json_to_jsonb(without_nulls(clerk_json_from_jsonb(params, &fault)));
	return clerk_read_params(settings, params, NULL, CLERK_OPERATION_CREATE);
}

static void
need_connection(const ClerkRequestRow *row)
{
	if (row->connection_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 row->key ?
				 errmsg("no enterprise connection has the key \"%s\"", row->key) :
				 errmsg("the request names no enterprise connection"),
				 errhint("Enqueue an upsert, which creates it.")));
}

/*
 * An id that cannot be one is an error.
 */
static ClerkHttpRequest *
build_request(Delivery *delivery, ClerkCall *call)
{
	ClerkHttpRequest *request;

	call->secrets = delivery->params ? delivery->params->secrets : NIL;
	request = clerk_api_request(delivery->settings, call);
	request->caller = delivery;
	return request;
}

/*
 * The PATCH that follows.  It is built where an error becomes the outcome: when
 * it is sent, there is no transaction.
 */
static void
build_next(Delivery *delivery)
{
	const char *id = delivery->outcome.connection_id ?
		delivery->outcome.connection_id : delivery->row->connection_id;

	delivery->next_call = (ClerkCall)
	{
		.endpoint = CLERK_UPDATE,
			.id = id,
			.body = delivery->next,
	};
	delivery->next_request = build_request(delivery, &delivery->next_call);
}

static void
prepare_create(Delivery *delivery)
{
	const ClerkRequestRow *row = delivery->row;

	if (row->connection_id != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 row->key ?
				 errmsg("key \"%s\" belongs to enterprise connection \"%s\" already", row->key, row->connection_id) :
				 errmsg("the request has made enterprise connection \"%s\" already", row->connection_id),
				 row->key ?
				 errhint("Enqueue an upsert, which changes it.") :
				 errhint("If it is not tracked, run mirror_enterprise_connections(). Then cancel this request.")));
	delivery->params = params_for_create(delivery->settings, row);
	delivery->call.endpoint = CLERK_CREATE;
	delivery->call.body = delivery->params->body;
}

static void
prepare_update(Delivery *delivery)
{
	const ClerkRequestRow *row = delivery->row;
	Jsonb	   *params;

	need_connection(row);
	params = clerk_params_for_update(row->params,
									 clerk_tracked_provider(row->server, row->connection_id));
	delivery->call.id = row->connection_id;
	if (JB_ROOT_COUNT(params) == 0)
	{
		/* Only the provider was named: nothing to change, but to know. */
		delivery->call.endpoint = CLERK_GET;
		return;
	}
	delivery->params = clerk_read_params(delivery->settings, params, NULL, CLERK_OPERATION_UPDATE);
	delivery->call.endpoint = CLERK_UPDATE;
	delivery->call.body = delivery->params->body;
}

static void
prepare_complete(Delivery *delivery)
{
	const ClerkRequestRow *row = delivery->row;

	need_connection(row);
	delivery->params = params_for_create(delivery->settings, row);
	if (delivery->params->patch == NULL)
	{
		/* A retry has brought other parameters. */
		prepare_update(delivery);
		return;
	}
	delivery->call = (ClerkCall)
	{
		.endpoint = CLERK_UPDATE,
			.id = row->connection_id,
			.body = delivery->params->patch,
	};
}

/*
 * Everything that can be wrong with a row is found out here, in a
 * subtransaction, and becomes its outcome.
 */
static void
prepare(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;
	const ClerkRequestRow *row = delivery->row;
	bool		deletes = strcmp(row->step, "delete") == 0;

	if (!deletes && (row->params == NULL || !JB_ROOT_IS_OBJECT(row->params)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the request has no parameters")));
	delivery->settings = settings_of(row);
	if (strcmp(row->step, "create") == 0)
		prepare_create(delivery);
	else if (strcmp(row->step, "update") == 0)
		prepare_update(delivery);
	else if (strcmp(row->step, "complete") == 0)
		prepare_complete(delivery);
	else if (row->connection_id == NULL)
	{
		/* There is nothing to delete. */
		judged(delivery, "delivered", -1);
		return;
	}
	else
	{
		delivery->call.endpoint = CLERK_DELETE;
		delivery->call.id = row->connection_id;
	}
	delivery->request = build_request(delivery, &delivery->call);
}

static Delivery *
new_delivery(Loop *loop, Server *server, ClerkRequestRow *row, MemoryContext context)
{
	Delivery   *delivery = MemoryContextAllocZero(context, sizeof(*delivery));

	delivery->context = context;
	delivery->server = server;
	delivery->row = row;
	delivery->state = DELIVERY_READY;
	delivery->outcome.delay = -1;
	return delivery;
}

/*
 * A claimed row becomes a delivery, in a context of its own.
 */
static void
take_row(Loop *loop, Server *server, const ClerkRequestRow *claimed)
{
	MemoryContext context = AllocSetContextCreate(loop->context, "pg_clerk delivery",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Delivery   *delivery = new_delivery(loop, server, clerk_outbox_copy(claimed), context);
	ErrorData  *error;

	dlist_push_tail(&loop->deliveries, &delivery->node);
	server->active++;
	loop->claimed_any = true;
	error = run_in_subtransaction(loop, prepare, delivery);
	if (error != NULL)
		judge_error(delivery, error);
	MemoryContextSwitchTo(old);
}

/*
 * Requests that cannot be claimed are left out for a while.
 */
static void
set_aside(Loop *loop, const ClerkRequestRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(loop->context);
	Aside	   *aside = NULL;
	ListCell   *lc;

	foreach(lc, loop->aside)
		if (((Aside *) lfirst(lc))->id == row->id)
			aside = lfirst(lc);
	if (aside == NULL)
	{
		aside = palloc0(sizeof(*aside));
		aside->id = row->id;
		loop->aside = lappend(loop->aside, aside);
	}
	aside->not_before = clerk_http_now() + pause_after(3 + aside->tries++);
	MemoryContextSwitchTo(old);
}

/*
 * Those of which it is not time yet; the others are forgotten some time later.
 */
static void
read_aside(Loop *loop)
{
	MemoryContext old = MemoryContextSwitchTo(loop->context);
	int64		now = clerk_http_now();
	ListCell   *lc;

	list_free(loop->claimer.aside);
	loop->claimer.aside = NIL;
	foreach(lc, loop->aside)
	{
		Aside	   *aside = lfirst(lc);

		if (aside->not_before > now)
		{
			loop->claimer.aside = lappend(loop->claimer.aside, aside);
			loop->next_claim = Min(loop->next_claim, aside->not_before);
		}
		else if (aside->not_before + 2 * ASIDE_LAST < now)
		{
			loop->aside = foreach_delete_current(loop->aside, lc);
			pfree(aside);
		}
	}
	MemoryContextSwitchTo(old);
}

/*-------------------------------------------------------------------------
 * Claiming
 *-------------------------------------------------------------------------
 */

/*
 * By its oid: a server that is renamed is the same, and another one of its name
 * is not.
 */
static Server *
find_server(Loop *loop, const char *name)
{
	Oid			oid = get_foreign_server_oid(name, true);
	MemoryContext old;
	Server	   *server;
	ListCell   *lc;

	foreach(lc, loop->servers)
	{
		server = lfirst(lc);
		if (server->oid == oid)
		{
			strlcpy(server->name, name, NAMEDATALEN);
			return server;
		}
	}
	old = MemoryContextSwitchTo(loop->context);
	server = palloc0(sizeof(*server));
	server->oid = oid;
	strlcpy(server->name, name, NAMEDATALEN);
	loop->servers = lappend(loop->servers, server);
	MemoryContextSwitchTo(old);
	return server;
}

/*
 * Requests that are claimed, and will need a socket.
 */
static int
unsent(Loop *loop)
{
	int			count = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
		count += dlist_container(Delivery, node, iter.cur)->state == DELIVERY_READY;
	return count;
}

/*
 * How many more may be sent to the server now?
 *
 * The sockets of this process are shared out: a server has at most twice as
 * many as there are left for the others.  So one that hangs leaves a third of
 * them, the next one a third of that, and so on.  The last ones are for those
 * that have none, one each.
 */
static int
places(Loop *loop, Server *server, const ClerkSettings *limits)
{
	int			room = clerk_http_room() - unsent(loop);
	int			free = limits->max_concurrency - server->active;
	int			share = (2 * (room - RESERVED_SOCKETS) - server->active) / 3;

	free = Min(free, Max(share, room > 0 && server->active == 0));
	if (server->paused)
		free = Min(free, 1);
	return Min(free, clerk_pace_allows(limits));
}

/*
 * When is the server's pace to let another one through?
 */
static void
wait_for_pace(Loop *loop, const ClerkSettings *limits)
{
	int64		now = clerk_http_now();
	int64		next = clerk_pace_next(limits);

	/* By its rate, that is; a pause of Clerk's can be long. */
	loop->limited |= next < now + SHORT_PAUSE;
	if (limits->rate_limit > 0)
		next += 1000 / limits->rate_limit + 1;
	loop->next_claim = Min(loop->next_claim, Max(next, now + 1));
}

/*
 * Returns whether there was a place.  If all are taken, an answer frees one.
 */
static bool
claim_from(Loop *loop, Server *server, const ClerkSettings *limits)
{
	int			wanted = places(loop, server, limits);
	TransactionId xid = GetCurrentTransactionIdIfAny();
	List	   *rows;
	ListCell   *lc;

	if (wanted <= 0)
	{
		if (clerk_pace_allows(limits) <= 0)
			wait_for_pace(loop, limits);
		return false;
	}
	rows = clerk_outbox_claim(limits, wanted, &loop->claimer);
	foreach(lc, rows)
	{
		if (((ClerkRequestRow *) lfirst(lc))->aside)
			set_aside(loop, lfirst(lc));
		else
			take_row(loop, server, lfirst(lc));
	}
	loop->moved_any |= rows == NIL && GetCurrentTransactionIdIfAny() != xid;
	return true;
}

/*
 * A server that is paused: is it time to see whether it works again?
 */
static bool
may_probe(Loop *loop, Server *server)
{
	int64		version = clerk_settings_version(server->name);
	int64		now = clerk_http_now();

	/* What is under way is the probe. */
	if (server->active > 0 || server->looking_up)
		return false;
	if (version != server->paused_version || now >= server->not_before)
	{
		if (clerk_outbox_may_probe(server->name, version, PROBE_INTERVAL))
			return true;
		/* Another process does; what comes of it is read by and by. */
		server->paused_version = version;
		server->not_before = now + clerk_naptime;
	}
	loop->next_claim = Min(loop->next_claim, server->not_before);

	/* The latch is set a moment before a change of the settings is told. */
	if (loop->woken)
		loop->next_claim = Min(loop->next_claim, now + ASIDE_FIRST);
	return false;
}

/*
 * What was in doubt still is.  A look-up that failed counts as an attempt.
 */
static void
judged_still_in_doubt(Delivery *delivery, Jsonb *error, bool counted, int64 retry_after)
{
	const ClerkRequestRow *row = delivery->row;
	int64		delay = counted ? backoff(row->attempts) : BACKOFF_FIRST;

	delivery->outcome.error = error;
	delivery->outcome.doubt_since = row->doubt_since;
	delivery->outcome.uncounted = !counted;
	if (counted && row->attempts >= clerk_max_attempts)
		judged(delivery, "failed", -1);
	else
		judged(delivery, "in_doubt", Max(delay, retry_after));
}

/*
 * Whatever is wrong here, what was in doubt still is: a retry looks it up, too.
 */
static void
judge_doubt_error(Delivery *delivery, const ErrorData *error)
{
	judge_error(delivery, error);
	delivery->outcome.doubt_since = delivery->row->doubt_since;
	delivery->outcome.uncounted = true;
	if (strcmp(delivery->outcome.state, "queued") == 0)
		judged_still_in_doubt(delivery, delivery->outcome.error, false, -1);
}

static void
prepare_doubt(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;
	const char *fault;

	prepare(loop, delivery);
	delivery->wanted = clerk_json_parse(delivery->params->body->text, delivery->params->body->len, &fault);
}

static void
take_doubts(Loop *loop, Server *server, List *rows)
{
	MemoryContext context = AllocSetContextCreate(loop->context, "pg_clerk look-up",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	LookUp	   *look_up = palloc0(sizeof(*look_up));
	ListCell   *lc;

	look_up->context = context;
	look_up->server = server;
	look_up->oldest = PG_INT64_MAX;
	foreach(lc, rows)
	{
		Delivery   *delivery;
		ErrorData  *error;

		if (((ClerkRequestRow *) lfirst(lc))->aside)
		{
			set_aside(loop, lfirst(lc));
			continue;
		}
		delivery = new_delivery(loop, server, clerk_outbox_copy(lfirst(lc)), context);
		delivery->row->step = "create";
		delivery->row->connection_id = NULL;
		look_up->oldest = Min(look_up->oldest, delivery->row->doubt_since - CLOCK_SKEW);
		error = run_in_subtransaction(loop, prepare_doubt, delivery);
		if (error != NULL)
			judge_doubt_error(delivery, error);
		else if (look_up->settings == NULL)
			look_up->settings = delivery->settings;
		look_up->deliveries = lappend(look_up->deliveries, delivery);
	}
	MemoryContextSwitchTo(old);

	/* None could be claimed: nothing would ever end the look-up. */
	if (look_up->deliveries == NIL)
	{
		MemoryContextDelete(context);
		return;
	}
	look_up->answered = look_up->settings == NULL;
	server->looking_up = true;
	dlist_push_tail(&loop->look_ups, &look_up->node);
}

/*
 * due: of what the servers with a place have, after the claim; 0: nothing.
 */
static void
plan_next_claim(Loop *loop, TimestampTz due)
{
	int64		wait = due ? (due - GetCurrentTimestamp()) / 1000 + 1 : NEVER;

	if (loop->moved_any)
		wait = 0;
	else if (wait <= 0 && !loop->claimed_any)
	{
		/* Somebody has it locked, or it is not for this role. */
		loop->interval = Min(Max(loop->interval * 2, PACE_INTERVAL), PACE_INTERVAL_LAST);
		wait = loop->interval;
	}
	else
	{
		loop->interval = 0;
		wait = Max(wait, PACE_INTERVAL);
	}
	if (wait != NEVER)
		loop->next_claim = Min(loop->next_claim, clerk_http_now() + wait);
}

/*
 * Claim what a server has: requests, and what is in doubt.
 */
typedef struct ServerClaim
{
	const char *name;
	bool		open;			/* it had a place */
} ServerClaim;

static void
claim_server(Loop *loop, void *arg)
{
	ServerClaim *claim = arg;
	ClerkSettings *limits = clerk_settings_limits(claim->name);
	Server	   *server;
	List	   *doubts;

	/* Without a server, or in a copy of the database, requests are held. */
	if (limits == NULL || limits->origin == CLERK_ORIGIN_ELSEWHERE)
		return;
	server = find_server(loop, claim->name);
	if (server->paused && !may_probe(loop, server))
		return;

	/* It is being dropped or renamed just now. */
	if (!clerk_try_hold_server(server->oid))
	{
		loop->next_claim = Min(loop->next_claim, clerk_http_now() + ASIDE_FIRST);
		return;
	}
	claim->open = claim_from(loop, server, limits);
	if (!server->looking_up && (!server->paused || server->active == 0) && clerk_pace_allows(limits) > 0 &&
		(doubts = clerk_outbox_claim_doubts(server->name, &loop->claimer)) != NIL)
		take_doubts(loop, server, doubts);
	if (server->paused && (server->active > 0 || server->looking_up))
		clerk_outbox_probed(server->name);
}

/*
 * Forget what was claimed since the last commit, by this server or by all.
 */
static void
drop_claims(Loop *loop, const Server *server)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->claimed || (server != NULL && delivery->server != server))
			continue;
		delivery->server->active--;
		dlist_delete(&delivery->node);
		MemoryContextDelete(delivery->context);
	}
	dlist_foreach_modify(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->claimed || (server != NULL && look_up->server != server))
			continue;
		look_up->server->looking_up = false;
		dlist_delete(&look_up->node);
		MemoryContextDelete(look_up->context);
	}
}

static void
keep_claims(Loop *loop)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
		dlist_container(Delivery, node, iter.cur)->claimed = true;
	dlist_foreach(iter, &loop->look_ups)
		dlist_container(LookUp, node, iter.cur)->claimed = true;
}

/*
 * An error of one server concerns that one alone.
 */
static void
claim_from_all(Loop *loop, void *arg)
{
	List	   *open = NIL;
	ListCell   *lc;

	read_aside(loop);
	foreach(lc, clerk_outbox_servers())
	{
		ServerClaim claim = {.name = lfirst(lc)};
		Server	   *server = find_server(loop, claim.name);
		ErrorData  *error;

		if (clerk_http_now() < server->claim_not_before)
		{
			loop->next_claim = Min(loop->next_claim, server->claim_not_before);
			continue;
		}
		error = run_in_subtransaction(loop, claim_server, &claim);
		if (error == NULL)
			server->failures = 0;
		else if (!loop->deliverer->forever)
			clerk_rethrow(error);
		else
		{
			log_error(psprintf("claim requests of server \"%s\"", claim.name), error);
			drop_claims(loop, server);
			server->claim_not_before = clerk_http_now() + pause_after(3 + server->failures++);
			loop->next_claim = Min(loop->next_claim, server->claim_not_before);
		}
		if (claim.open)
			open = lappend(open, lfirst(lc));
	}
	plan_next_claim(loop, clerk_outbox_next_due(open, &loop->claimer));
}

static void
claim(Loop *loop)
{
	loop->claimed_any = false;
	loop->moved_any = false;
	loop->limited = false;
	loop->next_claim = NEVER;
	if (run_in_transaction(loop, "claim requests", claim_from_all))
		keep_claims(loop);
	else
	{
		drop_claims(loop, NULL);
		loop->claimed_any = false;
		loop->limited = true;
		loop->next_claim = loop->pause_until;
	}
}

/*-------------------------------------------------------------------------
 * Sending
 *-------------------------------------------------------------------------
 */

static void
send_delivery(Loop *loop, Delivery *delivery)
{
	MemoryContextSwitchTo(delivery->context);
	delivery->state = DELIVERY_SENT;
	clerk_pace_count(delivery->settings);
	clerk_http_send(loop->set, delivery->request);
	MemoryContextSwitchTo(loop->context);
}

static void
send_look_up(Loop *loop, LookUp *look_up)
{
	MemoryContextSwitchTo(look_up->context);
	look_up->call = (ClerkCall)
	{
		.endpoint = CLERK_LIST,
			.query = clerk_page_query(NULL, look_up->offset, CLERK_PAGE_SIZE),
	};
	look_up->request = clerk_api_request(look_up->settings, &look_up->call);
	look_up->request->caller = look_up;
	clerk_pace_count(look_up->settings);
	look_up->sent_at = clerk_http_now();
	clerk_http_send(loop->set, look_up->request);
	MemoryContextSwitchTo(loop->context);
}

static void
send_all(Loop *loop)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state == DELIVERY_READY && delivery->claimed)
			send_delivery(loop, delivery);
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (!look_up->answered && look_up->request == NULL && look_up->claimed)
			send_look_up(loop, look_up);
	}
}

/*-------------------------------------------------------------------------
 * Looking up
 *-------------------------------------------------------------------------
 */

/*
 * When was it created?  Where that is not to be read, it may be the one.
 */
static TimestampTz
created_at(Jsonb *connection)
{
	JsonbValue	buf;
	JsonbValue *value = getKeyJsonValueFromContainer(&connection->root, "created_at", 10, &buf);
	double		ms;

	if (value == NULL || value->type != jbvNumeric)
		return PG_INT64_MAX;
	ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (ms < -MAX_CLERK_TIME || ms > MAX_CLERK_TIME)
		return PG_INT64_MAX;
	return time_t_to_timestamptz(0) + (TimestampTz) (ms * 1000);
}

/*
 * Is the connection what this request in doubt has made?
 */
static bool
made_by(const LookUp *look_up, const Delivery *delivery, const Candidate *candidate)
{
	const ClerkRequestRow *row = delivery->row;
	const char *id = candidate->id;
	char	   *key;
	ListCell   *lc;

	if (delivery->state == DELIVERY_JUDGED ||
		candidate->created_at < row->doubt_since - CLOCK_SKEW ||
		!clerk_same_connection(delivery->wanted, candidate->json) ||
		clerk_outbox_made_by_other(row, id))
		return false;
	foreach(lc, look_up->deliveries)
	{
		const char *adopted = ((Delivery *) lfirst(lc))->outcome.connection_id;

		if (adopted != NULL && strcmp(adopted, id) == 0)
			return false;
	}
	key = clerk_tracked_key(row->server, id);
	return key == NULL || (row->key != NULL && strcmp(key, row->key) == 0);
}

/*
 * Found: it is adopted.  An upsert goes on with a PATCH of all parameters, as
 * the one that made it may have had others; a create with what is left.
 */
static void
adopt(Delivery *delivery, Jsonb *connection)
{
	MemoryContext old = MemoryContextSwitchTo(delivery->context);

	delivery->track = clerk_jsonb_copy(connection);
	delivery->outcome.uncounted = true;
	delivery->outcome.connection_id = clerk_jsonb_string(delivery->track, "id");
	if (strcmp(delivery->row->operation, "upsert") == 0)
	{
		delivery->outcome.step = "update";
		judged(delivery, "queued", 0);
	}
	else if (delivery->params->patch != NULL)
	{
		delivery->outcome.step = "complete";
		judged(delivery, "queued", 0);
	}
	else
		judged(delivery, "delivered", -1);
	MemoryContextSwitchTo(old);
}

static void
search_candidate(LookUp *look_up, const Candidate *candidate)
{
	ListCell   *lc;

	if (candidate->json == NULL || candidate->id == NULL)
		return;
	foreach(lc, look_up->deliveries)
		if (made_by(look_up, lfirst(lc), candidate))
			adopt(lfirst(lc), candidate->connection);
}

/*
 * Look through a page.  Returns whether another is needed.  There can be many
 * on it, and many that are in doubt.
 */
static bool
search_page(LookUp *look_up, const ClerkPage *page)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_clerk candidate",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(scratch);
	bool		old = false;

	for (int i = 0; i < page->count; i++)
	{
		Candidate	candidate = {.connection = page->elements[i]};
		const char *fault;

		MemoryContextReset(scratch);
		if (!JB_ROOT_IS_OBJECT(candidate.connection))
			continue;
		candidate.json = clerk_json_from_jsonb(candidate.connection, &fault);
		candidate.id = clerk_jsonb_string(candidate.connection, "id");
		candidate.created_at = created_at(candidate.connection);
		old = candidate.created_at < look_up->oldest;
		search_candidate(look_up, &candidate);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
	look_up->offset += page->received;

	/* A total that is too low must not have anything created twice. */
	return page->received > 0 && !old &&
		(page->received >= CLERK_PAGE_SIZE || look_up->offset < page->total);
}

/*
 * What was not found does not exist: it is sent again, unless Clerk has
 * refused it because something else is in its way.  report: the look-up has
 * failed, so nothing is known.
 */
static void
give_up_search(LookUp *look_up, const ClerkReport *report)
{
	ListCell   *lc;

	if (report != NULL)
		note_limit(look_up->settings, report);
	foreach(lc, look_up->deliveries)
	{
		Delivery   *delivery = lfirst(lc);
		const ClerkRequestRow *row = delivery->row;

		if (delivery->state == DELIVERY_JUDGED)
			continue;
		delivery->outcome.http_status = row->http_status;
		if (report != NULL)
		{
			bool		refused_key = report->status == 401 && report->of_clerk;

			if (refused_key)
				pause_server(delivery->server, report, look_up->settings);
			judged_still_in_doubt(delivery, clerk_report_to_jsonb(report),
								  !refused_key && ERRCODE_TO_CATEGORY(report->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES,
								  report->retry_after);
			continue;
		}
		delivery->outcome.error = row->error;
		delivery->outcome.doubt_since = row->doubt_since;
		delivery->outcome.uncounted = true;
		if (row->http_status == 422 || row->attempts > clerk_max_attempts)
		{
			/* It is known now. */
			delivery->outcome.doubt_since = 0;
			delivery->yields = row->http_status == 422;
			judged(delivery, "failed", -1);
		}
		else
			judged(delivery, "queued", row->attempts > 2 ? backoff(row->attempts - 1) : 0);
	}
	look_up->answered = true;
}

/*
 * A server that is paused goes on if it has accepted the key, whatever it
 * thinks of the request.
 */
static void
note_key(Server *server, const ClerkReport *report)
{
	if (!server->paused ||
		(report != NULL && (!report->of_clerk || report->status == 401 || report->status >= 500)))
		return;
	server->paused = false;
	clerk_outbox_unpause(server->name);
}

static void
take_page(Loop *loop, void *arg)
{
	LookUp	   *look_up = arg;
	MemoryContext old = MemoryContextSwitchTo(look_up->context);
	MemoryContext scratch = AllocSetContextCreate(look_up->context, "pg_clerk page", ALLOCSET_DEFAULT_SIZES);
	ClerkReport *report;
	bool		more = false;

	MemoryContextSwitchTo(scratch);
	clerk_api_read(look_up->settings, &look_up->call, look_up->request);
	clerk_http_release(look_up->request);
	look_up->request = NULL;
	report = look_up->call.report;
	note_key(look_up->server, report);
	if (look_up->call.page != NULL)
		more = search_page(look_up, look_up->call.page);
	if (more)
		report = clerk_listing_bound(&look_up->listing, look_up->settings, "look up what may have been created",
									 look_up->call.page, look_up->sent_at);
	MemoryContextSwitchTo(look_up->context);
	if (!more || report != NULL)
		give_up_search(look_up, report);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/*
 * Whatever is wrong with the page, it concerns this look-up alone.
 */
static void
judge_page(Loop *loop, LookUp *look_up)
{
	ErrorData  *error;
	ClerkReport report;

	MemoryContextSwitchTo(look_up->context);
	error = run_in_subtransaction(loop, take_page, look_up);
	look_up->page_came = false;
	if (error != NULL)
	{
		if (look_up->request != NULL)
			clerk_http_release(look_up->request);
		look_up->request = NULL;
		report = report_of_error(error);
		give_up_search(look_up, &report);
	}
	MemoryContextSwitchTo(loop->context);
}

/*-------------------------------------------------------------------------
 * Committing outcomes
 *-------------------------------------------------------------------------
 */

/*
 * Refused as a duplicate, it lets the next one of its key go on instead.  But
 * what a create meets may be its own, until it has failed.
 */
static bool
yields(const Delivery *delivery)
{
	return delivery->yields &&
		(strcmp(delivery->row->step, "update") == 0 || strcmp(delivery->outcome.state, "failed") == 0);
}

/*
 * In a subtransaction.  A row that somebody has locked is not waited for.
 */
static void
write_outcome(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;
	const ClerkRequestRow *row = delivery->row;
	char	   *server;

	/* The server may be dropped or renamed just now. */
	if ((delivery->track != NULL || delivery->untrack != NULL) &&
		(!clerk_try_hold_server(delivery->server->oid) ||
		 !clerk_try_lock_tracked(delivery->server->name, delivery->untrack ? delivery->untrack :
								 delivery->outcome.connection_id, row->key)))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the tracking row is locked")));
	if (yields(delivery) && clerk_outbox_hand_over(row))
	{
		delivery->written_state = "superseded";
		return;
	}
	switch (clerk_outbox_finish(row, &delivery->outcome, &delivery->sweep, &server))
	{
		case CLERK_FINISH_LOCKED:
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("the request is locked")));
			break;
		case CLERK_FINISH_LOST:
			/* It is somebody else's to go on, and to tell. */
			delivery->written_state = "lost";
			return;
		case CLERK_FINISH_COUNTED:
			delivery->written_state = delivery->outcome.state;
			break;
	}
	if (delivery->untrack != NULL)
		(void) clerk_untrack(server, delivery->untrack);
	if (delivery->track != NULL)
		clerk_track(delivery->track, server, row->key);
	if (delivery->gives_up && delivery->outcome.awaits != 0 && row->attempts == 1)
		clerk_outbox_wake(row);
}

static void
note_finished(Loop *loop, const Delivery *delivery)
{
	const ClerkOutcome *outcome = &delivery->outcome;
	const char *id = outcome->connection_id && *outcome->connection_id ?
		outcome->connection_id : delivery->row->connection_id;
	StringInfoData text;

	if (strcmp(delivery->written_state, "delivered") != 0 && strcmp(delivery->written_state, "failed") != 0)
		return;
	initStringInfo(&text);
	appendStringInfo(&text, "{\"request\":" INT64_FORMAT ",\"state\":\"%s\",\"connection\":",
					 delivery->row->id, delivery->written_state);
	if (id != NULL && strlen(id) <= MAX_NOTIFIED_ID)
		escape_json(&text, id);
	else
		appendStringInfoString(&text, "null");
	appendStringInfoChar(&text, '}');
	loop->finished = lappend(loop->finished, text.data);
}

/*
 * Write the outcome, or, if that cannot be done, that the request has failed
 * for this reason; what Clerk has done stays to be mirrored.  Whatever the
 * reason, it is not the server's key.
 */
static ErrorData *
write_failure(Loop *loop, Delivery *delivery, const ErrorData *error)
{
	ClerkOutcome outcome = delivery->outcome;
	Jsonb	   *track = delivery->track;
	const char *untrack = delivery->untrack;
	bool		yields = delivery->yields;
	ClerkReport report = report_of_error(error);
	ErrorData  *second;

	delivery->track = NULL;
	delivery->untrack = NULL;
	delivery->yields = false;
	delivery->outcome.uncounted = false;
	judged_failed(delivery, &report);
	second = run_in_subtransaction(loop, write_outcome, delivery);
	if (second != NULL)
	{
		delivery->outcome = outcome;
		delivery->track = track;
		delivery->untrack = untrack;
		delivery->yields = yields;
	}
	return second;
}

/*
 * If nothing can be written of it, it is tried again, less and less often: the
 * request is not anybody else's as long as this process is there.
 */
static void
write_delivery(Loop *loop, Delivery *delivery)
{
	ErrorData  *error;

	MemoryContextSwitchTo(delivery->context);
	error = run_in_subtransaction(loop, write_outcome, delivery);
	if (error != NULL && !is_transient(error))
		error = write_failure(loop, delivery, error);
	if (error == NULL)
		delivery->state = DELIVERY_WRITTEN;
	else
	{
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			log_error(psprintf("note the outcome of request " INT64_FORMAT, delivery->row->id), error);
		delivery->not_before = clerk_http_now() + pause_after(delivery->tries++);
	}
	MemoryContextSwitchTo(loop->context);
}

/*
 * The PATCH that completes a create, or that gives up domains: the same claim
 * goes on.
 */
static void
go_on(Delivery *delivery)
{
	if (delivery->outcome.step != NULL)
		delivery->row->step = delivery->outcome.step;
	if (delivery->outcome.connection_id != NULL)
		delivery->row->connection_id = MemoryContextStrdup(delivery->context, delivery->outcome.connection_id);
	delivery->row->started_at = GetCurrentTimestamp();
	memset(&delivery->outcome, 0, sizeof(delivery->outcome));
	delivery->outcome.delay = -1;
	delivery->track = NULL;
	delivery->yields = false;
	delivery->tries = 0;
	delivery->state = DELIVERY_READY;
	delivery->call = delivery->next_call;
	delivery->request = delivery->next_request;
	delivery->next = NULL;
}

/*
 * Write the outcome of each delivery that has one and may be written now.
 * Those that were tried before come last: what they wait for may take a while.
 */
static void
write_deliveries(Loop *loop)
{
	int64		now = clerk_http_now();

	for (int pass = 0; pass < 2; pass++)
	{
		dlist_iter	iter;
		ListCell   *lc;

		dlist_foreach(iter, &loop->deliveries)
		{
			Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

			if (delivery->state == DELIVERY_JUDGED && delivery->not_before <= now &&
				(delivery->tries > 0) == (pass > 0))
				write_delivery(loop, delivery);
		}
		dlist_foreach(iter, &loop->look_ups)
		{
			LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

			foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			{
				Delivery   *delivery = lfirst(lc);

				if (delivery->state == DELIVERY_JUDGED && delivery->not_before <= now &&
					(delivery->tries > 0) == (pass > 0))
					write_delivery(loop, delivery);
			}
		}
	}
}

/*
 * What was written is committed: let go of it.
 */
static void
end_deliveries(Loop *loop)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_WRITTEN)
			continue;
		loop->sweeping |= delivery->sweep;
		note_finished(loop, delivery);
		if (delivery->next != NULL && strcmp(delivery->written_state, "sending") == 0)
		{
			go_on(delivery);
			continue;
		}
		delivery->server->active--;
		dlist_delete(&delivery->node);
		MemoryContextDelete(delivery->context);
	}
}

static void
end_look_ups(Loop *loop)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);
		ListCell   *lc;
		bool		done = look_up->answered;

		foreach(lc, look_up->deliveries)
		{
			Delivery   *delivery = lfirst(lc);

			if (delivery->state == DELIVERY_WRITTEN)
			{
				loop->sweeping |= delivery->sweep;
				note_finished(loop, delivery);
				delivery->state = DELIVERY_SENT;	/* done with */
			}
			done &= delivery->state != DELIVERY_JUDGED;
		}
		if (done)
		{
			look_up->server->looking_up = false;
			dlist_delete(&look_up->node);
			MemoryContextDelete(look_up->context);
		}
	}
}

/*
 * Nothing was committed after all.
 */
static void
unwrite_deliveries(Loop *loop)
{
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state == DELIVERY_WRITTEN)
			delivery->state = DELIVERY_JUDGED;
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		foreach(lc, dlist_container(LookUp, node, iter.cur)->deliveries)
		{
			if (((Delivery *) lfirst(lc))->state == DELIVERY_WRITTEN)
				((Delivery *) lfirst(lc))->state = DELIVERY_JUDGED;
		}
	}
}

/*
 * Is there something to judge or to write?
 */
static bool
is_open(const Delivery *delivery)
{
	return delivery->state == DELIVERY_ANSWERED || delivery->state == DELIVERY_JUDGED;
}

static bool
has_outcome(const Delivery *delivery, int64 now)
{
	return is_open(delivery) && delivery->not_before <= now;
}

static bool
has_outcomes(Loop *loop)
{
	int64		now = clerk_http_now();
	dlist_iter	iter;
	ListCell   *lc;

	dlist_foreach(iter, &loop->deliveries)
		if (has_outcome(dlist_container(Delivery, node, iter.cur), now))
			return true;
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->page_came)
			return true;
		foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			if (has_outcome(lfirst(lc), now))
				return true;
	}
	return false;
}

/*
 * What does the answer mean?
 */
static void
judge(Loop *loop, void *arg)
{
	Delivery   *delivery = arg;

	if (delivery->call.result == NULL && delivery->call.report == NULL)
		clerk_api_read(delivery->settings, &delivery->call, delivery->request);
	note_key(delivery->server, delivery->call.report);
	if (delivery->call.result != NULL)
		judge_success(delivery);
	else
		judge_failure(delivery, delivery->call.report);
	if (delivery->next != NULL)
		build_next(delivery);
}

/*
 * An answer that cannot be judged now is judged later; one that never can is a
 * failure.
 */
static void
judge_delivery(Loop *loop, Delivery *delivery)
{
	ErrorData  *error;

	MemoryContextSwitchTo(delivery->context);
	error = run_in_subtransaction(loop, judge, delivery);
	if (error != NULL && is_transient(error))
	{
		memset(&delivery->outcome, 0, sizeof(delivery->outcome));
		delivery->outcome.delay = -1;
		delivery->state = DELIVERY_ANSWERED;
		delivery->not_before = clerk_http_now() + pause_after(delivery->tries++);
	}
	else
	{
		if (error != NULL)
			judge_error(delivery, error);
		if (delivery->request != NULL)
			clerk_http_release(delivery->request);
		delivery->request = NULL;
	}
	MemoryContextSwitchTo(loop->context);
}

/*
 * Judge one answer that is large, or all those that are not.
 */
static void
judge_deliveries(Loop *loop, bool large)
{
	int64		now = clerk_http_now();
	dlist_iter	iter;

	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->state != DELIVERY_ANSWERED || delivery->not_before > now ||
			(delivery->request->answer_len > LARGE_ANSWER) != large)
			continue;
		judge_delivery(loop, delivery);
		if (large)
			return;
	}
}

/*
 * A server has one look-up at a time, so all their pages.
 */
static void
judge_answers(Loop *loop)
{
	dlist_iter	iter;

	judge_deliveries(loop, false);
	judge_deliveries(loop, true);
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->page_came)
			judge_page(loop, look_up);
	}
}

static void
write_outcomes(Loop *loop, void *arg)
{
	MemoryContextSwitchTo(loop->context);
	judge_answers(loop);
	write_deliveries(loop);
}

static void
send_notifications(Loop *loop, void *arg)
{
	ListCell   *lc;

	foreach(lc, loop->finished)
		Async_Notify("pg_clerk", lfirst(lc));
}

/*
 * Tell who listens, best effort, in a transaction of its own: the queue of
 * notifications may be full, of which only the commit takes notice.
 */
static void
notify(Loop *loop)
{
	int			failures = loop->failures;

	if (loop->finished == NIL)
		return;
	(void) run_in_transaction(loop, "notify of what was delivered", send_notifications);
	list_free_deep(loop->finished);
	loop->finished = NIL;

	/* Nothing else waits for that. */
	loop->failures = failures;
	loop->pause_until = 0;
}

static bool
commit_outcomes(Loop *loop)
{
	if (!has_outcomes(loop))
		return false;
	if (!run_in_transaction(loop, "note outcomes", write_outcomes))
	{
		unwrite_deliveries(loop);
		return false;
	}
	end_deliveries(loop);
	end_look_ups(loop);
	notify(loop);
	return true;
}

/*-------------------------------------------------------------------------
 * The loop
 *-------------------------------------------------------------------------
 */

/*
 * Note which delivery or look-up the answer is for.
 */
static void
note_answer(Loop *loop, ClerkHttpRequest *request)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		if (look_up->request == request)
		{
			look_up->page_came = true;
			return;
		}
	}
	((Delivery *) request->caller)->state = DELIVERY_ANSWERED;
}

/*
 * Wait until an answer has come, or there is something else to do; then take
 * all the answers that are there, so that they are committed together.
 */
static void
take_answers(Loop *loop, int64 until)
{
	ClerkHttpRequest *request = clerk_http_next_or_latch(loop->set, until);

	for (; request != NULL; request = clerk_http_next_or_latch(loop->set, 0))
		note_answer(loop, request);
	loop->woken = clerk_http_was_woken();
}

/*
 * Take back what a process that is gone has claimed: it holds its lock no
 * more.
 */
static void
recover(Loop *loop, void *arg)
{
	ListCell   *lc;

	foreach(lc, clerk_outbox_claimers())
	{
		int			claimer = lfirst_int(lc);

		if (claimer != loop->claimer.number && clerk_claimer_is_gone(claimer))
			clerk_outbox_recover(claimer);
	}
}

/*
 * Another process may have found out that a server has to pause, or that it
 * need not any more.
 */
static void
read_pauses(Loop *loop, void *arg)
{
	ListCell   *lc;

	foreach(lc, loop->servers)
	{
		((Server *) lfirst(lc))->paused = false;
	}
	foreach(lc, clerk_outbox_pauses())
	{
		ClerkPause *pause = lfirst(lc);
		Server	   *server = find_server(loop, pause->server);

		server->paused = true;
		server->paused_version = pause->version;
		server->not_before = clerk_http_now() + PROBE_INTERVAL -
			(GetCurrentTimestamp() - pause->probed_at) / 1000;
	}
}

static void
wake_missed(Loop *loop, void *arg)
{
	clerk_outbox_wake_missed();
}

/*
 * Each for itself: an error of one is none of the others.
 */
static void
chores(Loop *loop, void *arg)
{
	static const struct
	{
		const char *what;
		Work		work;
	}			steps[] = {
		{"find out which servers are paused", read_pauses},
		{"take back requests of a process that is gone", recover},
		{"let requests go on that wait for another", wake_missed},
	};

	for (size_t i = 0; i < lengthof(steps); i++)
	{
		ErrorData  *error = run_in_subtransaction(loop, steps[i].work, NULL);

		if (error != NULL && !loop->deliverer->forever)
			clerk_rethrow(error);
		if (error != NULL)
			log_error(steps[i].what, error);
	}
}

/*
 * What has to be done now and then, and at the beginning.
 */
static void
do_chores(Loop *loop)
{
	if (clerk_http_now() < loop->next_chores ||
		!run_in_transaction(loop, "look after the outbox", chores))
		return;
	loop->next_chores = clerk_http_now() + clerk_naptime;
	loop->sweeping = true;
	loop->purging = true;
}

static bool
nothing_under_way(Loop *loop)
{
	return dlist_is_empty(&loop->deliveries) && dlist_is_empty(&loop->look_ups);
}

static void
sweep_some(Loop *loop, void *arg)
{
	if (loop->sweeping)
	{
		/* If that is an error, it is tried again with the next chores. */
		loop->sweeping = false;
		loop->sweep_begun = clerk_outbox_sweep(!loop->sweep_begun);
		loop->sweeping = loop->sweep_begun || loop->sweep_again;
		loop->sweep_again &= loop->sweep_begun;
	}
	if (loop->purging)
	{
		loop->purging = false;
		loop->purging = !clerk_outbox_purge(clerk_retention);
	}
}

/*
 * A part of the lanes and of what is to be deleted, which can be many: what
 * is under way must not wait for all of them.
 */
static void
sweep(Loop *loop)
{
	loop->sweep_again |= loop->woken && loop->sweep_begun;
	loop->sweeping |= loop->woken;
	if ((!loop->sweeping && !loop->purging) ||
		(clerk_http_now() < loop->next_sweep && !nothing_under_way(loop)))
		return;
	(void) run_in_transaction(loop, "clear up the outbox", sweep_some);
	loop->next_sweep = clerk_http_now() + SWEEP_INTERVAL;
}

/*
 * When is there something to do, if nothing happens before?  After an error
 * not before the pause is over; but whoever asked the process to leave does not
 * wait for that.
 */
static int64
next_wake(Loop *loop)
{
	int64		now = clerk_http_now();
	int64		wake = Min(loop->next_chores, loop->next_claim);
	dlist_iter	iter;
	ListCell   *lc;

	if (loop->sweeping || loop->purging)
		wake = Min(wake, nothing_under_way(loop) ? now : loop->next_sweep);
	wake = loop->leave_at != 0 ? NEVER : Max(wake, now);
	dlist_foreach(iter, &loop->deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (is_open(delivery))
			wake = Min(wake, Max(delivery->not_before, now));
	}
	dlist_foreach(iter, &loop->look_ups)
	{
		LookUp	   *look_up = dlist_container(LookUp, node, iter.cur);

		foreach(lc, look_up->answered ? look_up->deliveries : NIL)
			if (is_open(lfirst(lc)))
				wake = Min(wake, Max(((Delivery *) lfirst(lc))->not_before, now));
	}
	wake = Max(wake, loop->pause_until);
	return loop->leave_at != 0 ? Min(wake, loop->leave_at) : wake;
}

/*
 * Is there nothing left that a session that delivers by itself should wait
 * for?
 */
static bool
drained(Loop *loop)
{
	return nothing_under_way(loop) && !loop->claimed_any && !loop->moved_any && !loop->limited &&
		!loop->sweeping;
}

/*
 * Nothing is under way, and nothing will be for a while.
 */
static bool
is_idle(Loop *loop)
{
	return nothing_under_way(loop) && !loop->sweeping && !loop->purging &&
		loop->next_claim > clerk_http_now() + clerk_naptime;
}

/*
 * Asked to leave: nothing more is claimed, but what is under way gets a
 * little time, as it would be in doubt otherwise.
 */
static bool
may_leave(Loop *loop)
{
	if (loop->leave_at == 0)
		loop->leave_at = clerk_http_now() + LEAVE_TIME;
	return nothing_under_way(loop) || clerk_http_now() >= loop->leave_at;
}

/*
 * Has something happened that the loop has not looked at?  Then it must not
 * wait: whoever told it has set the latch, but a wait for a lock, in one of the
 * transactions, may have reset it.
 */
static bool
is_called(Loop *loop)
{
	return loop->deliverer->called != NULL && clerk_http_now() >= loop->pause_until &&
		loop->leave_at == 0 && (loop->deliverer->called() || loop->deliverer->leave());
}

static void
run_loop(Loop *loop)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			loop->next_chores = Min(loop->next_chores, clerk_http_now() + clerk_naptime);
		}
		if (loop->deliverer->leave == NULL || !loop->deliverer->leave())
			loop->leave_at = 0;
		else if (may_leave(loop))
			break;
		if (loop->leave_at == 0)
		{
			do_chores(loop);
			sweep(loop);
			claim(loop);
		}
		send_all(loop);

		/* What had an outcome without being sent may let others go on. */
		if (commit_outcomes(loop))
		{
			send_all(loop);
			if (nothing_under_way(loop))
				continue;
		}
		if (!loop->deliverer->forever && drained(loop))
			break;
		if (is_called(loop))
		{
			loop->woken = true;
			continue;
		}
		if (loop->deliverer->idle)
			loop->deliverer->idle(is_idle(loop));
		take_answers(loop, next_wake(loop));
		(void) commit_outcomes(loop);
		send_all(loop);
	}
}

/*
 * Take a number that nobody else has, locked as long as this process delivers.
 */
static void
begin_claiming(Loop *loop)
{
	int			claimer;

	loop->set = clerk_http_begin(MAX_CONNECTIONS);
	begin(loop);
	do
		claimer = 1 + (int) (clerk_random() * (PG_INT32_MAX - 1));
	while (!clerk_try_lock(CLERK_LOCK_CLAIMER, claimer));
	loop->claimer.number = claimer;
	commit(loop);
	MemoryContextSwitchTo(loop->context);
}

void
clerk_deliver(const ClerkDeliverer *deliverer)
{
	MemoryContext old = CurrentMemoryContext;
	Loop	   *volatile loop;
	MemoryContext volatile context = AllocSetContextCreate(TopMemoryContext, "pg_clerk deliver",
														   ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	loop = palloc0(sizeof(Loop));
	loop->context = context;
	loop->deliverer = deliverer;
	loop->claimer.role = deliverer->role;
	dlist_init(&loop->deliveries);
	dlist_init(&loop->look_ups);

	PG_TRY();
	{
		begin_claiming(loop);
		run_loop(loop);
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(old);
		if (loop->claimer.number != 0)
			clerk_unlock_claimer(loop->claimer.number);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

/*-------------------------------------------------------------------------
 * In a session
 *-------------------------------------------------------------------------
 */

static void
procedure_begin(void)
{
	/*
	 * What the session has for default would fail where another process
	 * delivers beside this one.  Only the caller's own transaction, the first
	 * one, which looks at nothing, has a snapshot already.
	 */
	if (!FirstSnapshotSet)
		XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
procedure_commit(void)
{
	PopActiveSnapshot();
	SPI_commit();
}

/*
 * deliver_enterprise_connections()
 */
Datum
deliver_enterprise_connections(PG_FUNCTION_ARGS)
{
	ClerkDeliverer deliverer = {
		.begin = procedure_begin,
		.commit = procedure_commit,
	};
	bool		atomic = fcinfo->context && IsA(fcinfo->context, CallContext) ?
		castNode(CallContext, fcinfo->context)->atomic : true;

	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("cannot deliver in a transaction block"),
				 errhint("CALL deliver_enterprise_connections() commits as it goes: call it outside of transaction blocks and functions.")));
	clerk_prevent_write("deliver_enterprise_connections()");
	if (!superuser())
		deliverer.role = GetUserId();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	clerk_deliver(&deliverer);
	SPI_finish();
	PG_RETURN_VOID();
}
