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

#include "base/jsonb.h"
#include "calls/connection.h"
#include "calls/list.h"
#include "calls/upsert.h"
#include "clerk/dispatch.h"
#include "miscadmin.h"
#include "tables/tracking.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(upsert_enterprise_connection);
PG_FUNCTION_INFO_V1(adopt_enterprise_connection);

/* Clerk's codes for "what should be created exists". */
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
same_string(const JsonbValue *body, const JsonbValue *connection, const char *name)
{
	JsonbValue	wanted;
	JsonbValue	found;
	bool		is_wanted = clerk_jsonb_get(body, name, &wanted) && wanted.type == jbvString;
	bool		is_found = clerk_jsonb_get(connection, name, &found) && found.type == jbvString;

	if (!is_wanted || !is_found)
		return is_wanted == is_found;
	return wanted.val.string.len == found.val.string.len &&
		memcmp(wanted.val.string.val, found.val.string.val, wanted.val.string.len) == 0;
}

/*
 * Clerk lower-cases domains: ASCII's letters, whatever the database's locale.
 */
static int
compare_domains(const void *left, const void *right)
{
	const JsonbValue *a = left;
	const JsonbValue *b = right;
	int			len = Min(a->val.string.len, b->val.string.len);

	for (int i = 0; i < len; i++)
	{
		int			order = (int) pg_ascii_tolower((unsigned char) a->val.string.val[i]) -
		(int) pg_ascii_tolower((unsigned char) b->val.string.val[i]);

		if (order != 0)
			return order;
	}
	return a->val.string.len - b->val.string.len;
}

/*
 * The strings of the array "domains" of a body or a connection; *count counts
 * its other elements, too.
 */
static JsonbValue *
domains_of(const JsonbValue *object, int *count, int *strings)
{
	JsonbValue	array;
	JsonbValue *domains = NULL;

	*count = *strings = 0;
	if (clerk_jsonb_get(object, "domains", &array))
		domains = clerk_jsonb_elements(&array, count);
	for (int i = 0; i < *count; i++)
		if (domains[i].type == jbvString)
			domains[(*strings)++] = domains[i];
	return domains;
}

/*
 * How many of a body's domains does a connection have?  Both lists can be
 * long, as long as fits into a body and an answer, so one of them is sorted.
 */
static int
shared_domains(const JsonbValue *body, const JsonbValue *connection, int *wanted_count, int *found_count)
{
	int			nwanted;
	int			nfound;
	JsonbValue *wanted = domains_of(body, wanted_count, &nwanted);
	JsonbValue *found = domains_of(connection, found_count, &nfound);
	int			shared = 0;

	if (nfound > 1)
		qsort(found, nfound, sizeof(JsonbValue), compare_domains);
	for (int i = 0; nfound > 0 && i < nwanted; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (bsearch(&wanted[i], found, nfound, sizeof(JsonbValue), compare_domains) != NULL)
			shared++;
	}
	return shared;
}

bool
clerk_same_connection(const JsonbValue *body, Jsonb *connection)
{
	JsonbValue	object = clerk_jsonb_value(connection);
	JsonbValue	provider;
	int			wanted;
	int			found;

	/* Most selective comparison first; a listing can be long. */
	return same_string(body, &object, "name") &&
		shared_domains(body, &object, &wanted, &found) == wanted && wanted == found &&
	/* one that was not asked for is Clerk's to choose */
		(!clerk_jsonb_get(body, "provider", &provider) || provider.type != jbvString ||
		 same_string(body, &object, "provider")) &&
		same_string(body, &object, "organization_id");
}

/*
 * Find the connection that a create with this body made: the same name,
 * provider, organization and domains, and under no other key.  *other is the
 * id of one that has one of the domains, if there is none.
 */
static Jsonb *
find_created(const Upsert *upsert, const ClerkBody *body, char **other)
{
	ClerkPager *pager = clerk_pager(upsert->settings, CLERK_LIST, NULL, NULL, -1, false);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "pg_clerk look-up", ALLOCSET_DEFAULT_SIZES);
	Jsonb	   *connection;

	*other = NULL;
	for (;;)
	{
		int			wanted_count;
		int			found_count;
		int			shared = 0;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		connection = clerk_pager_next(pager);
		if (connection != NULL)
		{
			JsonbValue	found = clerk_jsonb_value(connection);

			shared = shared_domains(&body->document, &found, &wanted_count, &found_count);
		}
		MemoryContextSwitchTo(caller);
		if (connection == NULL)
			break;
		if (shared == 0)
			continue;
		*other = clerk_jsonb_string(connection, "id");
		if (*other != NULL && clerk_same_connection(&body->document, connection) &&
			clerk_tracked_key(upsert->settings->server_name, *other) == NULL)
			return clerk_jsonb_copy(connection);
	}
	return NULL;
}

/*-------------------------------------------------------------------------
 * Upsert
 *-------------------------------------------------------------------------
 */

Jsonb *
clerk_params_without_nulls(Jsonb *params)
{
	if (params == NULL || !JB_ROOT_IS_OBJECT(params))
		return params;
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls, JsonbPGetDatum(params)));
}

/*
 * PATCH a known connection with the parameters; NULL if it is gone.
 */
static Jsonb *
update_known(const Upsert *upsert, const char *id, const char *provider)
{
	ClerkParams *params = clerk_read_upsert_params(upsert->settings, upsert->params, provider);
	ClerkReport *report;
	Jsonb	   *known;

	/*
	 * If only the provider was named, there is nothing to change: just read
	 * it.
	 */
	known = clerk_call(upsert->settings, params->body ? CLERK_UPDATE : CLERK_GET, id,
					   params->body, params->secrets, &report);
	if (known != NULL)
		clerk_track(known, upsert->settings->server_name, upsert->key);
	else if (!clerk_report_is_gone(report))
		clerk_report_raise(ERROR, report);
	return known;
}

/*
 * Raise Clerk's refusal, with what is known of the connection that has the domain.
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
 * Clerk refused to create what exists.  If an earlier call made it, whose outcome
 * was lost or whose transaction was rolled back, adopt it.  NULL if it does not
 * exist any more.
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

	/*
	 * The earlier call may have had other values of the parameters that were
	 * not compared.
	 */
	updated = update_known(upsert, id, clerk_jsonb_string(found, "provider"));
	if (updated == NULL)
		(void) clerk_untrack(server, id);
	return updated;
}

/*
 * Add to a failure that the connection that had the key is gone.
 */
static void
add_anew(ClerkReport *report, const char *gone)
{
	char	   *anew = psprintf("Connection \"%s\", which had the key, does not exist at Clerk any more; a new one was to be created.",
								clerk_report_id(gone));

	report->detail = report->detail ? psprintf("%s\n%s", anew, report->detail) : anew;
}

/*
 * gone: the id of the connection that the key had, if that does not exist any more.
 */
static Jsonb *
create_under_key(const Upsert *upsert, const char *gone)
{
	ClerkParams *params;
	ClerkReport *report;
	Jsonb	   *result;

	/*
	 * The nulls are not sent, but must be such that the next call can send
	 * them.
	 */
	(void) clerk_read_params(upsert->settings, upsert->params, NULL, CLERK_OPERATION_UPSERT);
	params = clerk_read_params(upsert->settings, clerk_params_without_nulls(upsert->params), NULL, CLERK_OPERATION_CREATE);
	result = clerk_create(upsert->settings, params, upsert->key, &report);
	if (result == NULL && gone != NULL)
		add_anew(report, gone);
	if (result == NULL && clerk_is_duplicate(report) &&
		(result = adopt_created(upsert, params, report)) == NULL)
	{
		/* The connection that had the domain is gone: try once more. */
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
