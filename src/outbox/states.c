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

const char *const clerk_operation_words[] = {
	"create", "update", "upsert", "delete", "deactivate", "reactivate", NULL
};
const char *const clerk_step_words[] = {"create", "complete", "update", "delete", NULL};
const char *const clerk_state_words[] = {
	"sending", "in_doubt", "queued", "failed", "delivered", "superseded", "cancelled", NULL
};

const ClerkOperationInfo clerk_operations[] = {
	[CLERK_REQUEST_CREATE] = {false, false, true, false, CLERK_STEP_CREATE, CLERK_STEP_CREATE},
	[CLERK_REQUEST_UPDATE] = {true, false, true, false, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
	[CLERK_REQUEST_UPSERT] = {false, true, true, false, CLERK_STEP_UPDATE, CLERK_STEP_CREATE},
	[CLERK_REQUEST_DELETE] = {true, false, false, false, CLERK_STEP_DELETE, CLERK_STEP_DELETE},
	[CLERK_REQUEST_DEACTIVATE] = {false, true, false, true, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
	[CLERK_REQUEST_REACTIVATE] = {false, true, false, true, CLERK_STEP_UPDATE, CLERK_STEP_UPDATE},
};

bool
clerk_find_operation(const char *name, ClerkOutboxOperation *operation)
{
	for (int i = 0; clerk_operation_words[i] != NULL; i++)
	{
		if (strcmp(clerk_operation_words[i], name) == 0)
		{
			*operation = (ClerkOutboxOperation) i;
			return true;
		}
	}
	return false;
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
