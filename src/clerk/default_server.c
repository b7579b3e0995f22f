/*-------------------------------------------------------------------------
 *
 * default_server.c
 *		pg_clerk.server: the foreign server that is meant where a call names
 *		none.
 *
 * Every role can set it.  Where code runs with the rights of another role (a
 * SECURITY DEFINER function, a trigger of ours, which acts as its table's
 * owner, a materialized view that is refreshed), that must not let a caller
 * choose among the servers on which that other role has USAGE.  So there, a
 * value counts only if
 *
 * - it comes from the configuration of the server or the database, or
 * - the role that the code runs as has set it: in that code, or by a SET
 *	 clause of the function, which PostgreSQL executes as the function's owner.
 *
 * Otherwise the value counts with which the session began; and if that is the
 * caller's own, too (ALTER ROLE ... SET, PGOPTIONS), the call is refused:
 * PostgreSQL does not keep what it has replaced.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "base/compat.h"
#include "clerk/default_server.h"

#define SETTING_NAME "pg_clerk.server"

char	   *clerk_default_server = NULL;

/* Where PostgreSQL does not remember it: who has set the current value. */
static Oid	noted_setter = InvalidOid;

#ifdef CLERK_NOTES_SETTER

static bool defining = false;

/*
 * PostgreSQL keeps "extra" beside the value, and restores both together, for
 * example at the end of a function that has a SET clause.
 *
 * What was set before the library was loaded is set again while the variable
 * is defined.  If that happens in code that runs as another role, nobody can
 * tell who has set it.
 */
static bool
check_server(char **value, void **extra, GucSource source)
{
	Oid			user;
	int			sec_context;
	Oid		   *setter = malloc(sizeof(Oid));

	if (setter == NULL)
		return false;
	GetUserIdAndSecContext(&user, &sec_context);
	*setter = defining && sec_context != 0 ? InvalidOid : user;
	*extra = setter;
	return true;
}

static void
assign_server(const char *value, void *extra)
{
	noted_setter = extra ? *(Oid *) extra : InvalidOid;
}

#endif

void
clerk_default_server_init(void)
{
	GucStringCheckHook check = NULL;
	GucStringAssignHook assign = NULL;

#ifdef CLERK_NOTES_SETTER
	check = check_server;
	assign = assign_server;
	defining = true;
#endif

	/*
	 * pg_clerk.server - so that an application with one Clerk instance never
	 * has to name it.
	 */
	DefineCustomStringVariable(SETTING_NAME,
							   "Foreign server that is meant where a call names none.",
							   "In a SECURITY DEFINER function and in a trigger, a setting of the caller's does not count.",
							   &clerk_default_server,
							   "clerk",
							   PGC_USERSET, 0,
							   check, assign, NULL);
#ifdef CLERK_NOTES_SETTER
	defining = false;
#endif
}

/*
 * Does a value count for code that runs as this role?
 */
static bool
counts(GucSource source, Oid setter, Oid role)
{
	switch (source)
	{
		case PGC_S_USER:
		case PGC_S_DATABASE_USER:
		case PGC_S_CLIENT:
			return GetAuthenticatedUserId() == role;
		default:
			return source <= PGC_S_DATABASE || setter == role;
	}
}

const char *
clerk_default_server_name(void)
{
	static const struct config_generic *setting = NULL;
	Oid			role;
	int			sec_context;

	GetUserIdAndSecContext(&role, &sec_context);
	if ((sec_context & (SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION)) == 0)
		return clerk_default_server;

	/* Its place does not change once it is defined. */
	if (setting == NULL)
		setting = clerk_compat_find_setting(SETTING_NAME);
	if (counts(setting->source, clerk_compat_setter(setting, noted_setter), role))
		return clerk_default_server;
	if (counts(setting->reset_source, InvalidOid, role))
		return GetConfigOptionResetString(SETTING_NAME);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no server is named, and the session's %s does not count for role \"%s\"",
					SETTING_NAME, GetUserNameFromId(role, false)),
			 errdetail("Code that runs with the rights of another role does not take the server from its caller's settings."),
			 errhint("Name the server in the call (in a trigger with 'server:=...'), or set it on the function: "
					 "ALTER FUNCTION ... SET %s = '...'.", SETTING_NAME)));
}
