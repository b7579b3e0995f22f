/*-------------------------------------------------------------------------
 *
 * states.c
 *		The words of the outbox: operations, steps and states, as enums here
 *		and in SQL, and what may become of what.
 *
 *                 enqueue
 *                    |
 *                    v
 *      +--------> queued ------------> superseded   a newer upsert of the key took it over
 *      |             |    \----------> cancelled    (cancel_...)
 *      |             | claim, committed before anything is sent
 *      |             v
 *      |          sending --- 2xx ---> delivered
 *      |           |  |  |
 *      +-----------+  |  +-----------> failed ----> queued       (retry_...)
 *      |  nothing     |  a refusal, or      \-----> superseded   a later one of the key was sent
 *      |  happened    |  the last attempt    \----> cancelled    (cancel_...)
 *      |              v
 *      +---------- in_doubt ---------> delivered    found at Clerk
 *        not there            \------> failed
 *
 * A create whose process is gone is in doubt when its lease is over; so is one
 * that may have been sent from another database or timeline, from its claim on.
 * Whatever else was on its way then is sent again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/states.h"

const ClerkOperationInfo clerk_operations[] = {
	[CLERK_REQUEST_CREATE] = {"create", false, false, true, false, CLERK_STEP_CREATE, CLERK_STEP_CREATE},
	[CLERK_REQUEST_UPDATE] = {"update", true, false, true, false, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
	[CLERK_REQUEST_UPSERT] = {"upsert", false, true, true, false, CLERK_STEP_UPDATE, CLERK_STEP_CREATE},
	[CLERK_REQUEST_DELETE] = {"delete", true, false, false, false, CLERK_STEP_DELETE, CLERK_STEP_DELETE},
	[CLERK_REQUEST_DEACTIVATE] = {"deactivate", false, true, false, true, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
	[CLERK_REQUEST_REACTIVATE] = {"reactivate", false, true, false, true, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
};

static const char *const steps[] = {
	[CLERK_STEP_CREATE] = "create",
	[CLERK_STEP_COMPLETE] = "complete",
	[CLERK_STEP_UPDATE] = "update",
	[CLERK_STEP_DELETE] = "delete",
};

static const char *const states[] = {
	[CLERK_STATE_SENDING] = "sending",
	[CLERK_STATE_IN_DOUBT] = "in_doubt",
	[CLERK_STATE_QUEUED] = "queued",
	[CLERK_STATE_FAILED] = "failed",
	[CLERK_STATE_DELIVERED] = "delivered",
	[CLERK_STATE_SUPERSEDED] = "superseded",
	[CLERK_STATE_CANCELLED] = "cancelled",
};

static int
find(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return (int) i;
	elog(ERROR, "unknown word in the outbox: \"%s\"", name);
}

bool
clerk_find_operation(const char *name, ClerkOutboxOperation *operation)
{
	for (size_t i = 0; i < lengthof(clerk_operations); i++)
	{
		if (strcmp(clerk_operations[i].name, name) == 0)
		{
			*operation = (ClerkOutboxOperation) i;
			return true;
		}
	}
	return false;
}

ClerkOutboxOperation
clerk_operation_of(const char *name)
{
	ClerkOutboxOperation operation;

	if (!clerk_find_operation(name, &operation))
		elog(ERROR, "unknown operation in the outbox: \"%s\"", name);
	return operation;
}

ClerkStep
clerk_step_of(const char *name)
{
	return name ? (ClerkStep) find(steps, lengthof(steps), name) : CLERK_STEP_NONE;
}

ClerkState
clerk_state_of(const char *name)
{
	return (ClerkState) find(states, lengthof(states), name);
}

const char *
clerk_step_name(ClerkStep step)
{
	return step == CLERK_STEP_NONE ? NULL : steps[step];
}

const char *
clerk_state_name(ClerkState state)
{
	return states[state];
}

bool
clerk_state_is_final(ClerkState state)
{
	return state > CLERK_STATE_QUEUED;
}

void
clerk_check_transition(ClerkState from, ClerkState to)
{
	/* A claim that goes on: the PATCH that completes a create. */
	Assert(from != CLERK_STATE_SENDING || to <= CLERK_STATE_DELIVERED);
	Assert(from != CLERK_STATE_IN_DOUBT || to == CLERK_STATE_IN_DOUBT || to == CLERK_STATE_QUEUED ||
		   to == CLERK_STATE_FAILED || to == CLERK_STATE_DELIVERED);
	Assert(from == CLERK_STATE_SENDING || from == CLERK_STATE_IN_DOUBT);
}
