/*-------------------------------------------------------------------------
 *
 * states.h
 *		The words of the outbox: operations, steps and states, as enums here
 *		and in SQL, and what may become of what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OUTBOX_STATES_H
#define CLERK_OUTBOX_STATES_H

typedef enum ClerkOutboxOperation
{
	CLERK_REQUEST_CREATE,
	CLERK_REQUEST_UPDATE,
	CLERK_REQUEST_UPSERT,
	CLERK_REQUEST_DELETE,
	CLERK_REQUEST_DEACTIVATE,	/* and remember whether it was active */
	CLERK_REQUEST_REACTIVATE	/* if it was active before */
} ClerkOutboxOperation;

typedef enum ClerkStep
{
	CLERK_STEP_CREATE,			/* a POST */
	CLERK_STEP_COMPLETE,		/* a PATCH of what a POST does not take */
	CLERK_STEP_UPDATE,			/* a PATCH */
	CLERK_STEP_DELETE,			/* a DELETE */
	CLERK_STEP_NONE				/* not claimed yet: null */
} ClerkStep;

/* In the order of the enum in SQL. */
typedef enum ClerkState
{
	CLERK_STATE_SENDING,
	CLERK_STATE_IN_DOUBT,
	CLERK_STATE_QUEUED,
	CLERK_STATE_FAILED,
	CLERK_STATE_DELIVERED,
	CLERK_STATE_SUPERSEDED,
	CLERK_STATE_CANCELLED
} ClerkState;

/* Their names in SQL, in the order of the enums; NULL at the end. */
extern const char *const clerk_operation_words[];
extern const char *const clerk_step_words[];
extern const char *const clerk_state_words[];

/* What an operation needs and does. */
typedef struct ClerkOperationInfo
{
	bool		takes_id;		/* an id in place of a key */
	bool		needs_key;
	bool		takes_params;
	bool		of_trigger;		/* not to be enqueued by a user */
	ClerkStep	known;			/* what to do if the connection is known ... */
	ClerkStep	unknown;		/* ... and if it is not */
} ClerkOperationInfo;

extern const ClerkOperationInfo clerk_operations[];

/* Is there such an operation? */
extern bool clerk_find_operation(const char *name, ClerkOutboxOperation *operation);

/* Nothing more comes of it by itself. */
extern bool clerk_state_is_final(ClerkState state);

/* Assert that the outcome of an attempt may take a request from here to there. */
extern void clerk_check_transition(ClerkState from, ClerkState to);

#endif							/* CLERK_OUTBOX_STATES_H */
