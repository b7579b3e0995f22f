/*-------------------------------------------------------------------------
 *
 * upsert.c
 *		Connections under a key, the caller's own identity for them.
 *
 * A key is locked before anything is sent, so of two sessions with the same
 * one, the second finds what the first has created.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/json.h"
#include "calls/connection.h"
#include "calls/list.h"
#include "calls/upsert.h"
#include "clerk/dispatch.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(upsert_enterprise_connection);
PG_FUNCTION_INFO_V1(adopt_enterprise_connection);

/* Clerk's ways to say that what should be created is there. */
static const char *const duplicate_codes[] = {
	"organization_domain_exists_for_enterprise_connection",
	"organization_already_has_sso_connection",
	"form_identifier_exists",
};

typedef struct Upsert
{
	ClerkSettings *settings;
	const char *key;
	Jsonb	   *params;
} Upsert;

/*-------------------------------------------------------------------------
 * Looking for what a lost create may have left
 *-------------------------------------------------------------------------
 */

bool
clerk_is_duplicate(const ClerkReport *report)
{
	if (report->code != NULL)
		for (size_t i = 0; i < lengthof(duplicate_codes); i++)
			if (strcmp(report->code, duplicate_codes[i]) == 0)
				return true;
	return false;
}

bool
clerk_is_duplicate_organization(const ClerkReport *report)
{
	return report->code != NULL && strcmp(report->code, "organization_already_has_sso_connection") == 0;
}

/*
 * Is a string member the same in a request body and in a connection?  Absent
 * and null are the same.
 */
static bool
same_string(ClerkJson *body, ClerkJson *connection, const char *name)
{
	const char *wanted = clerk_json_get_string(body, name);
	const char *found = clerk_json_get_string(connection, name);

	if (wanted == NULL || found == NULL)
		return wanted == found;
	return strcmp(wanted, found) == 0;
}

/*
 * Clerk lower-cases domains: ASCII's letters, whatever the database's locale.
 */
static int
compare_domains(const void *left, const void *right)
{
	const char *a = *(const char *const *) left;
	const char *b = *(const char *const *) right;

	while (*a != '\0' && pg_ascii_tolower((unsigned char) *a) == pg_ascii_tolower((unsigned char) *b))
	{
		a++;
		b++;
	}
	return (int) pg_ascii_tolower((unsigned char) *a) - (int) pg_ascii_tolower((unsigned char) *b);
}

/*
 * How many of the domains of a body has a connection?  There may be as many as
 * fit into a body, and as many in an answer: so they are sorted.
 */
static int
shared_domains(ClerkJson *body, ClerkJson *connection, int *wanted_count, int *found_count)
{
	ClerkJson  *wanted = NULL;
	ClerkJson  *found = NULL;
	const char **domains;
	int			ndomains = 0;
	int			shared = 0;

	(void) clerk_json_get(body, "domains", &wanted);
	(void) clerk_json_get(connection, "domains", &found);
	*wanted_count = clerk_json_type(wanted) == CLERK_JSON_ARRAY ? clerk_json_length(wanted) : 0;
	*found_count = clerk_json_type(found) == CLERK_JSON_ARRAY ? clerk_json_length(found) : 0;
	if (*wanted_count == 0 || *found_count == 0)
		return 0;
	domains = palloc(sizeof(char *) * *found_count);
	for (int i = 0; i < *found_count; i++)
	{
		const char *domain = clerk_json_string(clerk_json_element(found, i), NULL);

		if (domain != NULL)
			domains[ndomains++] = domain;
	}
	qsort(domains, ndomains, sizeof(char *), compare_domains);
	for (int i = 0; i < *wanted_count; i++)
	{
		const char *domain = clerk_json_string(clerk_json_element(wanted, i), NULL);

		CHECK_FOR_INTERRUPTS();
		if (domain != NULL && bsearch(&domain, domains, ndomains, sizeof(char *), compare_domains) != NULL)
			shared++;
	}
	pfree(domains);
	return shared;
}

bool
clerk_same_connection(ClerkJson *body, ClerkJson *connection)
{
	int			wanted;
	int			found;

	/* What tells most of them apart first: there can be many. */
	return same_string(body, connection, "name") &&
		shared_domains(body, connection, &wanted, &found) == wanted && wanted == found &&
		/* one that was not asked for is Clerk's to choose */
		(clerk_json_get_string(body, "provider") == NULL || same_string(body, connection, "provider")) &&
		same_string(body, connection, "organization_id");
}

/*
 * Find the connection that a create with this body made: the same name,
 * provider, organization and domains, and under no other key.  *other is the
 * id of one that has one of the domains, if there is none.
 */
static Jsonb *
find_created(const Upsert *upsert, const ClerkBody *body, char **other)
{
	const char *fault;
	ClerkJson  *wanted = clerk_json_parse(body->text, body->len, &fault);
	ClerkPager *pager = clerk_pager(upsert->settings, CLERK_LIST, NULL, NULL, -1, false);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "pg_clerk look-up", ALLOCSET_DEFAULT_SIZES);
	Jsonb	   *connection;

	*other = NULL;
	for (;;)
	{
		ClerkJson  *found;
		int			wanted_count;
		int			found_count;
		int			shared = 0;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		connection = clerk_pager_next(pager);
		found = connection ? clerk_json_from_jsonb(connection, &fault) : NULL;
		if (found != NULL)
			shared = shared_domains(wanted, found, &wanted_count, &found_count);
		MemoryContextSwitchTo(caller);
		if (connection == NULL)
			break;
		if (shared == 0)
			continue;
		*other = clerk_jsonb_string(connection, "id");
		if (*other != NULL && clerk_same_connection(wanted, found) &&
			clerk_tracked_key(upsert->settings->server_name, *other) == NULL)
			return clerk_jsonb_copy(connection);
	}
	return NULL;
}

/*-------------------------------------------------------------------------
 * Upsert
 *-------------------------------------------------------------------------
 */

/*
 * The parameters for a connection that exists.  Its provider may be named,
 * but not changed.
 */
Jsonb *
clerk_params_for_update(Jsonb *params, const char *provider)
{
	char	   *given = params && JB_ROOT_IS_OBJECT(params) ? clerk_jsonb_string(params, "provider") : NULL;

	if (given == NULL)
		return params;
	if (provider != NULL && strcmp(given, provider) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the provider of an enterprise connection cannot be changed from \"%s\" to \"%s\"",
						provider, given),
				 errhint("Delete the connection and create it anew; its URLs at the identity provider will be others."),
				 err_generic_string(PG_DIAG_COLUMN_NAME, "provider")));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(params),
											  CStringGetTextDatum("provider")));
}

/*
 * PATCH a known connection with the parameters; NULL if it is gone.
 */
static Jsonb *
update_known(const Upsert *upsert, const char *id, const char *provider)
{
	Jsonb	   *rest = clerk_params_for_update(upsert->params, provider);
	bool		nothing = rest != upsert->params && JB_ROOT_COUNT(rest) == 0;
	ClerkParams *params = nothing ? NULL :
		clerk_read_params(upsert->settings, rest, NULL, CLERK_OPERATION_UPDATE);
	ClerkReport *report;
	Jsonb	   *known;

	known = clerk_call(upsert->settings, nothing ? CLERK_GET : CLERK_UPDATE, id,
					   nothing ? NULL : params->body, nothing ? NIL : params->secrets, &report);
	if (known != NULL)
		clerk_track(known, upsert->settings->server_name, upsert->key);
	else if (!clerk_report_is_gone(report))
		clerk_report_raise(ERROR, report);
	return known;
}

/*
 * Clerk's refusal, with what is known of the connection in the way.
 */
static void
refuse_duplicate(const Upsert *upsert, ClerkReport *report, const char *other)
{
	char	   *key = other ? clerk_tracked_key(upsert->settings->server_name, other) : NULL;

	if (key != NULL)
		report->hint = psprintf("Connection \"%s\", which has one of the domains, belongs to the key \"%s\".",
								clerk_report_id(other), key);
	else if (other != NULL)
		report->hint = psprintf("Connection \"%s\" has one of the domains. If it is the one that is meant, bind it to the key with "
								"adopt_enterprise_connection(%s, %s%s).", clerk_report_id(other),
								quote_literal_cstr(upsert->key), quote_literal_cstr(other),
								clerk_server_clause(upsert->settings));
	clerk_report_raise(ERROR, report);
}

/*
 * Clerk refused to create what is there.  If an earlier call, whose outcome
 * was lost or whose transaction was rolled back, has made it, it is ours.
 * NULL if it is gone by now.
 */
static Jsonb *
adopt_created(const Upsert *upsert, const ClerkParams *params, ClerkReport *report)
{
	const char *server = upsert->settings->server_name;
	char	   *other;
	Jsonb	   *found = find_created(upsert, params->body, &other);
	Jsonb	   *updated;
	char	   *id;

	if (found == NULL)
		refuse_duplicate(upsert, report, other);

	/*
	 * Tracking it locks its row, and waits for another session that may be
	 * about to give it another key: so that is looked at afterwards.
	 */
	id = clerk_jsonb_string(found, "id");
	clerk_count(upsert->settings->statistics, CLERK_COUNT_ADOPTED, 1);
	clerk_track(found, server, NULL);
	if (clerk_tracked_key(server, id) != NULL)
		refuse_duplicate(upsert, report, id);
	clerk_free_key(server, upsert->key);
	clerk_track(found, server, upsert->key);

	/* The earlier call may have had other parameters beside those. */
	updated = update_known(upsert, id, clerk_jsonb_string(found, "provider"));
	if (updated == NULL)
		(void) clerk_untrack(server, id);
	return updated;
}

/*
 * Say of a failure that it is not the connection that was known.
 */
static void
add_anew(ClerkReport *report, const char *gone)
{
	char	   *anew = psprintf("Connection \"%s\", which had the key, does not exist at Clerk any more; a new one was to be created.",
								clerk_report_id(gone));

	report->detail = report->detail ? psprintf("%s\n%s", anew, report->detail) : anew;
}

/*
 * gone: the id of the connection that the key had, if Clerk knows it no more.
 */
static Jsonb *
create_under_key(const Upsert *upsert, const char *gone)
{
	ClerkParams *params = clerk_read_params(upsert->settings, upsert->params, NULL,
											CLERK_OPERATION_CREATE);
	ClerkReport *report;
	Jsonb	   *result = clerk_create(upsert->settings, params, upsert->key, &report);

	if (result == NULL && gone != NULL)
		add_anew(report, gone);
	if (result == NULL && clerk_is_duplicate(report) &&
		(result = adopt_created(upsert, params, report)) == NULL)
	{
		/* What was in the way is gone: once more. */
		(void) clerk_lock_key(upsert->settings->server_name, upsert->key);
		result = clerk_create(upsert->settings, params, upsert->key, &report);
		if (result == NULL && gone != NULL)
			add_anew(report, gone);
	}
	if (result == NULL)
		clerk_report_raise(ERROR, report);
	return result;
}

/*
 * upsert_enterprise_connection(key text, params jsonb, server name)
 */
Datum
upsert_enterprise_connection(PG_FUNCTION_ARGS)
{
	Upsert		upsert;
	ClerkTracked *known;
	Jsonb	   *result;

	clerk_prevent_write("upsert_enterprise_connection()");
	upsert.key = clerk_text_argument(fcinfo, 0, "key");
	clerk_api_check_length("argument \"key\"", upsert.key);
	upsert.params = clerk_jsonb_argument(fcinfo, 1);
	upsert.settings = clerk_settings(clerk_server_argument(fcinfo, 2), CLERK_USE_WRITE);
	known = clerk_lock_key(upsert.settings->server_name, upsert.key);
	if (known != NULL)
	{
		result = update_known(&upsert, known->id, known->provider);
		if (result != NULL)
			PG_RETURN_JSONB_P(result);

		/* Gone at Clerk: the key gets a new one. */
		(void) clerk_untrack(upsert.settings->server_name, known->id);
		(void) clerk_lock_key(upsert.settings->server_name, upsert.key);
	}
	PG_RETURN_JSONB_P(create_under_key(&upsert, known ? known->id : NULL));
}

/*
 * adopt_enterprise_connection(key text, id text, server name)
 */
Datum
adopt_enterprise_connection(PG_FUNCTION_ARGS)
{
	ClerkSettings *settings;
	ClerkTracked *known;
	Jsonb	   *connection;
	char	   *key;
	char	   *id;

	clerk_prevent_write("adopt_enterprise_connection()");
	key = clerk_text_argument(fcinfo, 0, "key");
	id = clerk_text_argument(fcinfo, 1, "id");
	clerk_api_check_length("argument \"key\"", key);
	clerk_api_check_id(id);
	settings = clerk_settings(clerk_server_argument(fcinfo, 2), CLERK_USE_WRITE);
	known = clerk_lock_key(settings->server_name, key);
	if (known != NULL && strcmp(known->id, id) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("key \"%s\" belongs to enterprise connection \"%s\" already", key, known->id),
				 errhint("Delete that one, or give it another key with adopt_enterprise_connection(), first.")));
	(void) clerk_lock_id(settings->server_name, id);
	connection = clerk_call(settings, CLERK_GET, id, NULL, NIL, NULL);
	clerk_free_key(settings->server_name, key);
	clerk_track(connection, settings->server_name, key);
	PG_RETURN_JSONB_P(connection);
}
