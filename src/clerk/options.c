/*-------------------------------------------------------------------------
 *
 * options.c
 *		The options of servers and user mappings: one table, and the validator.
 *
 * A new option is a line in the table below and a member of ClerkSettings,
 * which it fills.  All else is made from the table: what the validator checks
 * and suggests, the defaults, reading and copying.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/reloptions.h"
#include "base/closest.h"
#include "base/compat.h"
#include "base/url.h"
#include "base/wake.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "clerk/options.h"
#include "clerk/origin.h"
#include "clerk/params.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* The longest user and password of a proxy that SOCKS5 can carry (RFC 1929). */
#define MAX_PROXY_LENGTH 255

/*
 * An answer becomes one jsonb value, whose arrays hold 256 MB at most; a larger
 * one would be read in vain.
 */
#define MAX_RESPONSE_SIZE (256 * 1024 * 1024 - 1)

#define HOUR_MS (60 * 60 * 1000)
#define WEEK_MS (7 * 24 * HOUR_MS)

typedef enum OptionType
{
	OPTION_TEXT,				/* char * */
	OPTION_PATHS,				/* List of char *: paths of parameters */
	OPTION_INTEGER,				/* int */
	OPTION_TIME,				/* int, in milliseconds; a unit must be given */
	OPTION_SIZE					/* int, in bytes */
} OptionType;

/* Says what is wrong with a value as a sentence; NULL if nothing is. */
typedef const char *(*OptionCheck) (const char *value);

/* It makes the server read a file: only roles that may read files can set it. */
#define READS_FILE	0x1

/* No message shows its value. */
#define SECRET		0x2

typedef struct Option
{
	const char *name;
	Oid			catalog;		/* which statement may set it */
	OptionType	type;
	size_t		member;			/* of ClerkSettings */
	const char *value;			/* the default; NULL: none, or it is not fixed */
	int			min;			/* of a number, in its unit */
	int			max;
	OptionCheck check;			/* of a text, or NULL */
	int			flags;
} Option;

static const char *check_api_url(const char *value);
static const char *check_api_version(const char *value);
static const char *check_file_name(const char *value);
static const char *check_proxy_user(const char *value);
static const char *check_proxy_password(const char *value);

#define SERVER ForeignServerRelationId
#define MAPPING UserMappingRelationId
#define MEMBER(name) offsetof(ClerkSettings, name)

static const Option options[] = {
	{"api_url", SERVER, OPTION_TEXT, MEMBER(api_url), "https://api.clerk.com", 0, 0, check_api_url, 0},
	{"api_version", SERVER, OPTION_TEXT, MEMBER(api_version), "2026-05-12", 0, 0, check_api_version, 0},
	{"timeout", SERVER, OPTION_TIME, MEMBER(timeout), "30s", 1, HOUR_MS, NULL, 0},
	{"connect_timeout", SERVER, OPTION_TIME, MEMBER(connect_timeout), "5s", 1, HOUR_MS, NULL, 0},
	{"max_retries", SERVER, OPTION_INTEGER, MEMBER(max_retries), "2", 0, 10, NULL, 0},
	{"max_concurrency", SERVER, OPTION_INTEGER, MEMBER(max_concurrency), "32", 1, 500, NULL, 0},
	{"rate_limit", SERVER, OPTION_INTEGER, MEMBER(rate_limit), NULL, 0, 100000, NULL, 0},
	{"max_response_size", SERVER, OPTION_SIZE, MEMBER(max_response_size), "8MB", 1024, MAX_RESPONSE_SIZE, NULL, 0},
	{"mirror_interval", SERVER, OPTION_TIME, MEMBER(mirror_interval), NULL, 1000, WEEK_MS, NULL, 0},
	{"ca_file", SERVER, OPTION_TEXT, MEMBER(ca_file), NULL, 0, 0, check_file_name, READS_FILE},
	{"proxy", SERVER, OPTION_TEXT, MEMBER(proxy), NULL, 0, 0, clerk_url_proxy_fault, 0},
	{"extra_params", SERVER, OPTION_PATHS, MEMBER(extra_params), NULL, 0, 0, NULL, 0},
	{"origin", SERVER, OPTION_TEXT, MEMBER(armed_for), NULL, 0, 0, clerk_origin_fault, 0},
	{"secret_key", MAPPING, OPTION_TEXT, MEMBER(secret_key), NULL, 0, 0, clerk_secret_key_fault, SECRET},
	{"secret_key_file", MAPPING, OPTION_TEXT, MEMBER(secret_key_file), NULL, 0, 0, check_file_name, READS_FILE},
	{"proxy_user", MAPPING, OPTION_TEXT, MEMBER(proxy_user), NULL, 0, 0, check_proxy_user, SECRET},
	{"proxy_password", MAPPING, OPTION_TEXT, MEMBER(proxy_password), NULL, 0, 0, check_proxy_password, SECRET},
};

PG_FUNCTION_INFO_V1(pg_clerk_validator);

/*-------------------------------------------------------------------------
 * Checks of single options
 *-------------------------------------------------------------------------
 */

static const char *
check_api_url(const char *value)
{
	const char *fault;

	(void) clerk_url_base(value, &fault);
	return fault;
}

static const char *
check_api_version(const char *value)
{
	if (*value != '\0' && strspn(value, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_") == strlen(value))
		return NULL;
	return "It must be a version such as 2026-05-12.";
}

static bool
is_printable(const char *value, char first)
{
	for (const char *p = value; *p; p++)
		if (*p < first || *p > '~')
			return false;
	return true;
}

const char *
clerk_secret_key_fault(const char *value)
{
	size_t		len = strlen(value);

	if (len == 0 || len > CLERK_MAX_KEY_LENGTH)
		return "It must be a secret key such as sk_live_... or sk_test_....";
	if (!is_printable(value, '!'))
		return "It must consist of printable ASCII characters without spaces.";
	if (strncmp(value, "pk_", 3) == 0)
		return "This is a publishable key; a secret key begins with sk_.";
	return NULL;
}

static const char *
check_proxy_password(const char *value)
{
	if (*value == '\0' || strlen(value) > MAX_PROXY_LENGTH || !is_printable(value, ' '))
		return "It must be 1 to 255 printable ASCII characters.";
	return NULL;
}

static const char *
check_proxy_user(const char *value)
{
	if (strchr(value, ':') != NULL)
		return "It must not have a colon: that would begin the password.";
	return check_proxy_password(value);
}

static const char *
check_file_name(const char *value)
{
	return is_absolute_path(value) ? NULL : "It must be an absolute path.";
}

/*
 * Read a number with PostgreSQL's units.  Returns NULL, or a sentence that says
 * what is wrong.
 */
static const char *
read_number(const Option *option, const char *value, int *result)
{
	static const int units[] = {
		[OPTION_TIME] = GUC_UNIT_MS,
		[OPTION_SIZE] = GUC_UNIT_BYTE,
		[OPTION_INTEGER] = 0,
	};
	const char *hint = NULL;
	size_t		len = strlen(value);
	int			number;

	if (option->type == OPTION_TIME && (len == 0 || !isalpha((unsigned char) value[len - 1])))
		return "A time needs a unit: \"us\", \"ms\", \"s\", \"min\", \"h\" or \"d\".";
	if (!parse_int(value, &number, units[option->type], &hint))
		return hint ? hint : "It must be a whole number.";
	if (number < option->min || number > option->max)
		return psprintf("It must be between %d and %d%s.", option->min, option->max,
						option->type == OPTION_TIME ? " milliseconds" :
						option->type == OPTION_SIZE ? " bytes" : "");
	*result = number;
	return NULL;
}

static void *
member_of(const Option *option, ClerkSettings *settings)
{
	return (char *) settings + option->member;
}

/*
 * Read a value into its member.  If the value is wrong, the member stays as it
 * is, and a sentence that says so is returned, else NULL.
 */
static const char *
read_option(const Option *option, const char *value, ClerkSettings *settings)
{
	void	   *member = member_of(option, settings);
	const char *fault = NULL;
	List	   *paths;

	switch (option->type)
	{
		case OPTION_TEXT:
			*(char **) member = pstrdup(value);
			break;
		case OPTION_PATHS:
			if (clerk_params_parse_extra(value, &paths, &fault))
				*(List **) member = paths;
			break;
		case OPTION_INTEGER:
		case OPTION_TIME:
		case OPTION_SIZE:
			return read_number(option, value, member);
	}
	return fault;
}

/*-------------------------------------------------------------------------
 * The validator
 *-------------------------------------------------------------------------
 */

static const Option *
find_option(const char *name, Oid catalog)
{
	for (size_t i = 0; i < lengthof(options); i++)
		if (options[i].catalog == catalog && strcmp(options[i].name, name) == 0)
			return &options[i];
	return NULL;
}

/*
 * May a text hold a key, or a URL with a password, where neither belongs?
 */
static bool
looks_secret(const char *text)
{
	return strstr(text, "sk_") != NULL || strchr(text, '@') != NULL;
}

/*
 * Does the statement with these options hold a secret?
 */
static bool
hold_secret(List *given, Oid catalog)
{
	ListCell   *lc;

	if (catalog == UserMappingRelationId)
		return true;
	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (find_option(def->defname, UserMappingRelationId) != NULL ||
			looks_secret(def->defname) || looks_secret(defGetString(def)))
			return true;
	}
	return false;
}

/*
 * For an error about options that hold a secret: keeps the statement out of the
 * log and out of the context of a function that executes it.  (PG_TRY restores
 * error_context_stack where the error is caught.)
 */
static int
hide_statement(void)
{
	error_context_stack = NULL;
	return errhidestmt(true);
}

static void
unknown_option(const char *name, Oid catalog, bool hidden)
{
	ClerkClosest search;
	bool		of_mapping = catalog != UserMappingRelationId &&
	find_option(name, UserMappingRelationId) != NULL;
	bool		of_server = catalog != ForeignServerRelationId &&
	find_option(name, ForeignServerRelationId) != NULL;

	clerk_closest_start(&search, name);
	for (size_t i = 0; i < lengthof(options); i++)
		if (options[i].catalog == catalog)
			clerk_closest_offer(&search, options[i].name);

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 looks_secret(name) ?
			 errmsg("invalid name of an option") :
			 errmsg("invalid option \"%s\"", name),
			 hidden ? hide_statement() : 0,
			 of_mapping ?
			 errhint("Keys and passwords belong in the server's PUBLIC user mapping, which other roles cannot read: "
					 "CREATE USER MAPPING FOR PUBLIC SERVER ... OPTIONS (%s '...').", name) :
			 of_server ?
			 errhint("\"%s\" is an option of the server: ALTER SERVER ... OPTIONS (%s '...').", name, name) :
			 search.best ?
			 errhint("Perhaps you meant the option \"%s\".", search.best) :
			 catalog == ForeignDataWrapperRelationId ?
			 errhint("The foreign-data wrapper has no options; set them on a server.") :
			 0));
}

bool
clerk_may_read_files(Oid role)
{
	return superuser_arg(role) || has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES);
}

static void
check_option(const Option *option, const char *value, bool hidden)
{
	const char *fault;
	ClerkSettings scratch;		/* only to read the value into */

	if ((option->flags & READS_FILE) && !clerk_may_read_files(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("The option makes the server read a file: only a superuser or a member of "
						   "pg_read_server_files may set it, or change other options beside it."),
				 hidden ? hide_statement() : 0));

	fault = option->check ? option->check(value) : read_option(option, value, &scratch);
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 (option->flags & SECRET) || looks_secret(value) ?
				 errmsg("invalid value for option \"%s\"", option->name) :
				 errmsg("invalid value for option \"%s\": \"%s\"", option->name, value),
				 errhint("%s", fault),
				 hidden ? hide_statement() : 0));
}

static const char *
given_value(List *given, const char *name)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

/*
 * Options that exclude or need each other.
 */
static void
check_together(List *given, bool hidden)
{
	const char *api_url = given_value(given, "api_url");
	const char *fault;

	if (given_value(given, "secret_key") && given_value(given, "secret_key_file"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("options \"secret_key\" and \"secret_key_file\" exclude each other"),
				 hidden ? hide_statement() : 0));
	if (given_value(given, "proxy_password") && !given_value(given, "proxy_user"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"proxy_password\" needs the option \"proxy_user\""),
				 hidden ? hide_statement() : 0));
	if (api_url != NULL && given_value(given, "proxy") &&
		!clerk_url_is_encrypted(clerk_url_base(api_url, &fault)))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("options \"proxy\" and \"api_url\" exclude each other if the latter is an http:// address"),
				 errdetail("The secret key would travel to the proxy unencrypted."),
				 errhint("http:// is only for a loopback address, which needs no proxy."),
				 hidden ? hide_statement() : 0));
}

/*
 * pg_clerk_validator(options text[], catalog oid)
 *
 * Called with all options that the object will have, not only the new ones.
 */
Datum
pg_clerk_validator(PG_FUNCTION_ARGS)
{
	List	   *given = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	bool		hidden = hold_secret(given, catalog);
	ListCell   *lc;

	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const Option *option = find_option(def->defname, catalog);

		if (option == NULL)
			unknown_option(def->defname, catalog, hidden);
		check_option(option, defGetString(def), hidden);
	}
	check_together(given, hidden);

	/* Requests of a server whose old options did not work can be sent now. */
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * Into the settings
 *-------------------------------------------------------------------------
 */

void
clerk_options_set_defaults(ClerkSettings *settings)
{
	for (size_t i = 0; i < lengthof(options); i++)
		if (options[i].value != NULL)
			(void) read_option(&options[i], options[i].value, settings);
}

void
clerk_options_apply(ClerkSettings *settings, List *given, Oid catalog)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const Option *option = find_option(def->defname, catalog);
		const char *fault;

		if (option == NULL)
			unknown_option(def->defname, catalog, false);
		fault = read_option(option, defGetString(def), settings);
		if (fault != NULL)
			clerk_option_is_wrong(settings, option->name, fault);
	}
}

void
clerk_option_is_wrong(const ClerkSettings *settings, const char *name, const char *fault)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\" of server \"%s\"",
					name, settings->server_name),
			 errhint("%s", fault)));
}

static List *
copy_strings(List *strings)
{
	List	   *copy = NIL;
	ListCell   *lc;

	foreach(lc, strings)
		copy = lappend(copy, pstrdup(lfirst(lc)));
	return copy;
}

void
clerk_options_copy(ClerkSettings *to)
{
	for (size_t i = 0; i < lengthof(options); i++)
	{
		void	   *member = member_of(&options[i], to);

		if (options[i].type == OPTION_TEXT && *(char **) member != NULL)
			*(char **) member = pstrdup(*(char **) member);
		else if (options[i].type == OPTION_PATHS)
			*(List **) member = copy_strings(*(List **) member);
	}
}
