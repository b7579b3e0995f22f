/*-------------------------------------------------------------------------
 *
 * settings.c
 *		Foreign server, its key and GUCs resolved into one struct, and the
 *		validator of the options.
 *
 * The secret key is read from the server's PUBLIC user mapping and from no
 * other.  A role's own mapping could be read by that role, and any role with
 * USAGE can make one for itself: with the key of another Clerk instance it
 * could lead the mirror astray.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/xact.h"
#include "base/closest.h"
#include "base/compat.h"
#include "base/guard.h"
#include "base/locks.h"
#include "base/url.h"
#include "base/wake.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "clerk/default_server.h"
#include "clerk/origin.h"
#include "clerk/params.h"
#include "clerk/settings.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define FDW_NAME "pg_clerk"
#define DEFAULT_API_URL "https://api.clerk.com"
#define DEFAULT_API_VERSION "2026-05-12"

/*
 * Half of what Clerk grants a whole instance: 1000 requests in 10 s to a
 * production one, 100 to a development one.  The application needs the rest.
 */
#define RATE_LIMIT_LIVE 50
#define RATE_LIMIT_TEST 5

/* A key is some 50 bytes; a longer file is no key file. */
#define MAX_KEY_LENGTH 1024

/* Of a proxy's user and password: what SOCKS5 (RFC 1929) can carry. */
#define MAX_PROXY_LENGTH 255

/* An answer ends up in one jsonb value, whose arrays hold 256 MB at most. */
#define MAX_RESPONSE_SIZE (256 * 1024 * 1024 - 1)

#define HOUR_MS (60 * 60 * 1000)

typedef enum OptionKind
{
	OPTION_STRING,
	OPTION_TIME,				/* milliseconds, a unit is required */
	OPTION_SIZE,				/* bytes */
	OPTION_INT
} OptionKind;

/* Says what is wrong with a value as a sentence; NULL if nothing is. */
typedef const char *(*OptionCheck) (const char *value);

typedef struct Option
{
	const char *name;
	Oid			catalog;		/* which statement may set it */
	OptionKind	kind;
	bool		reads_file;		/* only for those who may read files anyway */
	bool		secret;			/* no message shows its value */
	OptionCheck check;			/* of a string */
	int			min;			/* of a number, in its unit */
	int			max;
	size_t		offset;			/* in ClerkSettings, of a number */
} Option;

static const char *check_api_url(const char *value);
static const char *check_api_version(const char *value);
static const char *check_secret_key(const char *value);
static const char *check_proxy_user(const char *value);
static const char *check_proxy_password(const char *value);
static const char *check_file_name(const char *value);
static const char *check_extra_params(const char *value);

static const Option options[] = {
	{"api_url", ForeignServerRelationId, OPTION_STRING, false, false, check_api_url, 0, 0, 0},
	{"api_version", ForeignServerRelationId, OPTION_STRING, false, false, check_api_version, 0, 0, 0},
	{"timeout", ForeignServerRelationId, OPTION_TIME, false, false, NULL,
	1, HOUR_MS, offsetof(ClerkSettings, timeout)},
	{"connect_timeout", ForeignServerRelationId, OPTION_TIME, false, false, NULL,
	1, HOUR_MS, offsetof(ClerkSettings, connect_timeout)},
	{"max_retries", ForeignServerRelationId, OPTION_INT, false, false, NULL,
	0, 10, offsetof(ClerkSettings, max_retries)},
	{"max_concurrency", ForeignServerRelationId, OPTION_INT, false, false, NULL,
	1, 500, offsetof(ClerkSettings, max_concurrency)},
	{"rate_limit", ForeignServerRelationId, OPTION_INT, false, false, NULL,
	0, 100000, offsetof(ClerkSettings, rate_limit)},
	{"max_response_size", ForeignServerRelationId, OPTION_SIZE, false, false, NULL,
	1024, MAX_RESPONSE_SIZE, offsetof(ClerkSettings, max_response_size)},
	{"ca_file", ForeignServerRelationId, OPTION_STRING, true, false, check_file_name, 0, 0, 0},
	{"proxy", ForeignServerRelationId, OPTION_STRING, false, false, clerk_url_proxy_fault, 0, 0, 0},
	{"extra_params", ForeignServerRelationId, OPTION_STRING, false, false, check_extra_params, 0, 0, 0},
	{"origin", ForeignServerRelationId, OPTION_STRING, false, false, clerk_origin_fault, 0, 0, 0},
	{"secret_key", UserMappingRelationId, OPTION_STRING, false, true, check_secret_key, 0, 0, 0},
	{"secret_key_file", UserMappingRelationId, OPTION_STRING, true, false, check_file_name, 0, 0, 0},
	{"proxy_user", UserMappingRelationId, OPTION_STRING, false, true, check_proxy_user, 0, 0, 0},
	{"proxy_password", UserMappingRelationId, OPTION_STRING, false, true, check_proxy_password, 0, 0, 0},
};

/* What is cached of a server: all but what must be looked at in each call. */
typedef struct CachedServer
{
	Oid			server;			/* hash key */
	bool		valid;
	MemoryContext context;		/* holds all that the struct below points to */
	ClerkSettings settings;		/* secret_key is NULL if it is in a file */
	char	   *secret_key_file;
	Oid			owner;
	bool		has_mapping;	/* a PUBLIC mapping exists */
	bool		rate_limit_set;
} CachedServer;

static HTAB *cached_servers = NULL;

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

static const char *
check_secret_key(const char *value)
{
	size_t		len = strlen(value);

	if (len == 0 || len > MAX_KEY_LENGTH)
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

static const char *
check_extra_params(const char *value)
{
	List	   *paths;
	const char *fault;

	return clerk_params_parse_extra(value, &paths, &fault) ? NULL : fault;
}

/*
 * Read a number with PostgreSQL's units.  Returns NULL, or a sentence.
 */
static const char *
parse_number(const Option *option, const char *value, int *result)
{
	static const int flags[] = {
		[OPTION_TIME] = GUC_UNIT_MS,
		[OPTION_SIZE] = GUC_UNIT_BYTE,
		[OPTION_INT] = 0,
	};
	const char *hint = NULL;
	size_t		len = strlen(value);

	if (option->kind == OPTION_TIME && (len == 0 || !isalpha((unsigned char) value[len - 1])))
		return "A time needs a unit: \"us\", \"ms\", \"s\", \"min\", \"h\" or \"d\".";
	if (!parse_int(value, result, flags[option->kind], &hint))
		return hint ? hint : "It must be a whole number.";
	if (*result < option->min || *result > option->max)
		return psprintf("It must be between %d and %d%s.", option->min, option->max,
						option->kind == OPTION_TIME ? " milliseconds" :
						option->kind == OPTION_SIZE ? " bytes" : "");
	return NULL;
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
 * Does a text look as if it held a key, or a URL with a password, where
 * neither belongs?
 */
static bool
looks_secret(const char *text)
{
	return strstr(text, "sk_") != NULL || strchr(text, '@') != NULL;
}

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
 * For an error about options that hold a secret: the statement, in which it
 * is, must not come along, neither in the log nor as the context of a function
 * that has executed it.  (The stack is restored where the error is caught.)
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

static bool
may_read_files(Oid role)
{
	return superuser_arg(role) || has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES);
}

static void
check_option(const Option *option, const char *value, bool hidden)
{
	const char *fault;
	int			number;

	if (option->reads_file && !may_read_files(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("The option makes the server read a file: only a superuser or a member of "
						   "pg_read_server_files may set it, or change other options beside it."),
				 hidden ? hide_statement() : 0));

	fault = option->kind == OPTION_STRING ? option->check(value) :
		parse_number(option, value, &number);

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 option->secret || looks_secret(value) ?
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
 * Called with all the options that an object will have, not only the new
 * ones.
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

	/* Requests that wait because the old ones do not work go on with these. */
	clerk_wake_at_commit();
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * The cache
 *-------------------------------------------------------------------------
 */

static void
forget_servers(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	CachedServer *entry;

	hash_seq_init(&status, cached_servers);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->valid = false;
}

static void
init_cache(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(CachedServer)};

	cached_servers = hash_create("pg_clerk servers", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, forget_servers, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, forget_servers, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, forget_servers, (Datum) 0);
}

/*
 * Take one option over into the entry.  The validator has seen the value; but
 * it may have been another release's.
 */
static void
apply_option(CachedServer *entry, const char *name, const char *value, Oid catalog)
{
	ClerkSettings *settings = &entry->settings;
	const Option *option = find_option(name, catalog);
	const char *fault = NULL;

	if (option == NULL)
		unknown_option(name, catalog, false);
	if (option->kind != OPTION_STRING)
		fault = parse_number(option, value, (int *) ((char *) settings + option->offset));
	else if (strcmp(name, "api_url") == 0)
		settings->base_url = clerk_url_base(value, &fault);
	else if (strcmp(name, "api_version") == 0)
		settings->api_version = pstrdup(value);
	else if (strcmp(name, "ca_file") == 0)
		settings->ca_file = pstrdup(value);
	else if (strcmp(name, "proxy") == 0)
		settings->proxy = pstrdup(value);
	else if (strcmp(name, "extra_params") == 0)
		(void) clerk_params_parse_extra(value, &settings->extra_params, &fault);
	else if (strcmp(name, "origin") == 0)
		settings->origin = clerk_origin(entry->server, value);
	else if (strcmp(name, "secret_key") == 0)
		settings->secret_key = pstrdup(value);
	else if (strcmp(name, "secret_key_file") == 0)
		entry->secret_key_file = pstrdup(value);
	else if (strcmp(name, "proxy_user") == 0)
		settings->proxy_user = pstrdup(value);
	else if (strcmp(name, "proxy_password") == 0)
		settings->proxy_password = pstrdup(value);

	if (strcmp(name, "rate_limit") == 0)
		entry->rate_limit_set = true;
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\" of server \"%s\"",
						name, settings->server_name),
				 errhint("%s", fault)));
}

static void
apply_options(CachedServer *entry, List *given, Oid catalog)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		apply_option(entry, def->defname, defGetString(def), catalog);
	}
}

/*
 * Read the PUBLIC mapping's options.  GetUserMapping() would prefer the
 * user's own.
 */
static void
apply_public_mapping(CachedServer *entry)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
										ObjectIdGetDatum(InvalidOid),
										ObjectIdGetDatum(entry->server));
	Datum		datum;
	bool		isnull;

	entry->has_mapping = HeapTupleIsValid(tuple);
	if (!HeapTupleIsValid(tuple))
		return;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		apply_options(entry, untransformRelOptions(datum), UserMappingRelationId);
	ReleaseSysCache(tuple);
}

static void
load_server(CachedServer *entry, ForeignServer *server)
{
	const char *fault;
	MemoryContext old;

	/* An earlier attempt may have failed halfway. */
	if (entry->context == NULL)
		entry->context = AllocSetContextCreate(CacheMemoryContext, "pg_clerk server",
											   ALLOCSET_SMALL_SIZES);
	MemoryContextReset(entry->context);

	entry->secret_key_file = NULL;
	entry->owner = server->owner;
	entry->has_mapping = false;
	entry->rate_limit_set = false;

	old = MemoryContextSwitchTo(entry->context);
	entry->settings = (ClerkSettings)
	{
		.server = server->serverid,
			.server_name = pstrdup(server->servername),
			.base_url = clerk_url_base(DEFAULT_API_URL, &fault),
			.api_version = pstrdup(DEFAULT_API_VERSION),
			.timeout = 30000,
			.connect_timeout = 5000,
			.max_retries = 2,
			.max_concurrency = 32,
			.max_response_size = 8 * 1024 * 1024,
			.version = clerk_settings_version(server->servername),
	};
	apply_options(entry, server->options, ForeignServerRelationId);
	apply_public_mapping(entry);
	MemoryContextSwitchTo(old);
}

static CachedServer *
cached_server(Oid serverid)
{
	CachedServer *entry;
	bool		found;

	if (cached_servers == NULL)
		init_cache();
	entry = hash_search(cached_servers, &serverid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->context = NULL;
	}
	if (!entry->valid)
	{
		ForeignServer *server = GetForeignServer(serverid);

		/* Before reading, so that an invalidation meanwhile is not lost. */
		entry->valid = true;
		PG_TRY();
		{
			load_server(entry, server);
		}
		PG_CATCH();
		{
			entry->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return entry;
}

/*-------------------------------------------------------------------------
 * Resolving
 *-------------------------------------------------------------------------
 */

/*
 * The foreign-data wrapper of a server, without the options that
 * GetForeignServer() would read each time.
 */
static Oid
wrapper_of(Oid serverid)
{
	HeapTuple	tuple = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(serverid));
	Oid			result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for foreign server %u", serverid);
	result = ((Form_pg_foreign_server) GETSTRUCT(tuple))->srvfdw;
	ReleaseSysCache(tuple);
	return result;
}

Oid
clerk_held_server(const char *name)
{
	Oid			serverid = clerk_hold_server(name);
	const char *quoted = quote_identifier(name);

	if (!OidIsValid(serverid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("Create it with CREATE SERVER %s FOREIGN DATA WRAPPER pg_clerk, or name another one "
						 "in the argument \"server\" or in pg_clerk.server.", quoted)));
	if (wrapper_of(serverid) != get_foreign_data_wrapper_oid(FDW_NAME, true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" does not use the foreign-data wrapper \"%s\"", name, FDW_NAME),
				 errhint("Name a server that was created with FOREIGN DATA WRAPPER %s.", FDW_NAME)));
	return serverid;
}

/*
 * Find a server that the current user may use.
 */
static Oid
usable_server(const char *name)
{
	Oid			serverid = clerk_held_server(name);

	if (clerk_server_aclcheck(serverid, GetUserId()) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server \"%s\"", name),
				 errhint("The server's owner can grant it: GRANT USAGE ON FOREIGN SERVER %s TO %s.", quote_identifier(name),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	return serverid;
}

/*
 * A copy of this database must not speak in the original's name.
 */
static void
check_armed(const ClerkSettings *settings, ClerkUse use)
{
	const char *name = settings->server_name;

	switch (settings->origin)
	{
		case CLERK_ORIGIN_HERE:
			break;
		case CLERK_ORIGIN_NONE:
			if (use == CLERK_USE_WRITE)
				clerk_origin_arm_first(settings->server);
			break;
		case CLERK_ORIGIN_ELSEWHERE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("server \"%s\" is not armed in this database", name),
					 errdetail("This database is a copy of the one in which the server was armed; nothing was sent to Clerk."),
					 errhint("If this database is meant to change the same Clerk instance, the server's owner runs "
							 "SELECT arm_enterprise_connections(%s).", quote_literal_cstr(name))));
	}
}

static void
no_key(const CachedServer *entry)
{
	const char *name = entry->settings.server_name;
	bool		own = SearchSysCacheExists2(USERMAPPINGUSERSERVER,
											ObjectIdGetDatum(GetUserId()),
											ObjectIdGetDatum(entry->server));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("server \"%s\" has no secret key", name),
			 own && !entry->has_mapping ?
			 errdetail("The key is read from the server's PUBLIC user mapping only, not from that of a role.") : 0,
			 errhint("The server's owner sets it with %s USER MAPPING FOR PUBLIC SERVER %s OPTIONS (%ssecret_key 'sk_...').",
					 entry->has_mapping ? "ALTER" : "CREATE", quote_identifier(name),
					 entry->has_mapping ? "ADD " : "")));
}

static const char key_file_hint[] = "See the option secret_key_file of the server's PUBLIC user mapping.";

/*
 * The server's owner decides where the key goes: it can change api_url and
 * proxy.  So a file's key goes only where an owner sends it who could have
 * read the file.  That holds at each use, however the owner got the server and
 * whenever its options were set.
 */
static void
check_key_file_owner(const CachedServer *entry)
{
	if (!may_read_files(entry->owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the secret key of server \"%s\" is in a file, which the server's owner may not read",
						entry->settings.server_name),
				 errdetail("The owner can have the key sent anywhere, so it must be a superuser, or a member of pg_read_server_files."),
				 errhint("Use the option secret_key instead; or check where the server's options lead, and then "
						 "give the server to another owner, or the owner the membership.")));
}

static void
key_file_failed(const CachedServer *entry, const char *did)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not %s the file with the secret key of server \"%s\": %m",
					did, entry->settings.server_name),
			 errhint("%s", key_file_hint)));
}

/*
 * Read at most so many bytes of the key's file.  It must be a regular file:
 * opening or reading anything else, such as a named pipe, may take for ever,
 * and cannot be interrupted.
 */
static size_t
read_key_bytes(const CachedServer *entry, char *buf, size_t size)
{
	int			fd = OpenTransientFile(entry->secret_key_file,
									   O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | PG_BINARY);
	struct stat st;
	size_t		len = 0;
	ssize_t		n;

	if (fd < 0 || fstat(fd, &st) != 0)
		key_file_failed(entry, "open");
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file with the secret key of server \"%s\" is not a regular file",
						entry->settings.server_name),
				 errhint("%s", key_file_hint)));
	while (len < size && (n = read(fd, buf + len, size - len)) != 0)
	{
		if (n > 0)
			len += n;
		else if (errno != EINTR)
			key_file_failed(entry, "read");
		CHECK_FOR_INTERRUPTS();
	}
	CloseTransientFile(fd);
	return len;
}

/*
 * Read the key's file anew at each use, so that a rotated key is taken up.
 * Messages do not name the file: whoever has USAGE sees them.
 */
static char *
read_key_file(const CachedServer *entry)
{
	const char *name = entry->settings.server_name;
	char		buf[MAX_KEY_LENGTH + 2];
	size_t		len = read_key_bytes(entry, buf, sizeof(buf) - 1);
	const char *fault;

	while (len > 0 && isspace((unsigned char) buf[len - 1]))
		len--;
	buf[len] = '\0';
	fault = strlen(buf) == len ? check_secret_key(buf) : "It holds a NUL byte.";
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file with the secret key of server \"%s\" does not hold a key", name),
				 errdetail("%s", fault),
				 errhint("%s", key_file_hint)));
	return pstrdup(buf);
}

static char *
copy_string(const char *string)
{
	return string ? pstrdup(string) : NULL;
}

ClerkSettings *
clerk_settings_copy(const ClerkSettings *from)
{
	ClerkSettings *to = palloc(sizeof(*to));
	ListCell   *lc;

	*to = *from;
	to->server_name = copy_string(from->server_name);
	to->base_url = copy_string(from->base_url);
	to->api_version = copy_string(from->api_version);
	to->secret_key = copy_string(from->secret_key);
	to->ca_file = copy_string(from->ca_file);
	to->proxy = copy_string(from->proxy);
	to->proxy_user = copy_string(from->proxy_user);
	to->proxy_password = copy_string(from->proxy_password);
	to->extra_params = NIL;
	foreach(lc, from->extra_params)
		to->extra_params = lappend(to->extra_params, pstrdup(lfirst(lc)));
	return to;
}

/*
 * The way to Clerk, once more at each use: the options may have been checked by
 * another release's validator, and a file can change at any time.
 */
static void
check_way(const ClerkSettings *settings)
{
	struct stat st;

	if (settings->proxy != NULL && !clerk_url_is_encrypted(settings->base_url))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" has a proxy, and an api_url of http://", settings->server_name),
				 errdetail("The secret key would travel to the proxy unencrypted; nothing was sent to Clerk."),
				 errhint("The server's owner drops one of them: ALTER SERVER %s OPTIONS (DROP proxy).",
						 quote_identifier(settings->server_name))));

	/*
	 * libcurl opens the file by itself, and would wait for ever for a named
	 * pipe.  A file that cannot be opened at all is an error there.
	 */
	if (settings->ca_file != NULL && stat(settings->ca_file, &st) == 0 && !S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file with the CA certificates of server \"%s\" is not a regular file",
						settings->server_name),
				 errhint("See the option ca_file of the server.")));
}

static ClerkSettings *
with_rate_limit(ClerkSettings *settings, const CachedServer *entry)
{
	if (!entry->rate_limit_set)
		settings->rate_limit = settings->secret_key && strncmp(settings->secret_key, "sk_live_", 8) == 0 ?
			RATE_LIMIT_LIVE : RATE_LIMIT_TEST;
	return settings;
}

ClerkSettings *
clerk_settings(const char *server_name, ClerkUse use)
{
	const char *name = server_name ? server_name : clerk_default_server_name();
	CachedServer *entry;
	ClerkSettings *settings;

	entry = cached_server(usable_server(name));
	settings = clerk_settings_copy(&entry->settings);
	if (use != CLERK_USE_READ)
		clerk_check_tables();
	if (use == CLERK_USE_ENQUEUE)
	{
		/* Key and network are the worker's concern. */
		settings->secret_key = NULL;
		return settings;
	}
	check_way(settings);
	if (entry->secret_key_file != NULL)
	{
		check_key_file_owner(entry);
		settings->secret_key = read_key_file(entry);
	}
	if (settings->secret_key == NULL)
		no_key(entry);
	(void) with_rate_limit(settings, entry);
	check_armed(settings, use);
	return settings;
}

ClerkSettings *
clerk_settings_limits(const char *server_name)
{
	Oid			serverid = get_foreign_server_oid(server_name, true);

	if (!OidIsValid(serverid) ||
		wrapper_of(serverid) != get_foreign_data_wrapper_oid(FDW_NAME, true))
		return NULL;
	return with_rate_limit(clerk_settings_copy(&cached_server(serverid)->settings), cached_server(serverid));
}

bool
clerk_settings_origin(const char *server_name, ClerkOrigin *origin)
{
	Oid			serverid = get_foreign_server_oid(server_name, true);

	if (!OidIsValid(serverid) ||
		wrapper_of(serverid) != get_foreign_data_wrapper_oid(FDW_NAME, true))
		return false;
	*origin = cached_server(serverid)->settings.origin;
	return true;
}

/*
 * The transaction that wrote a catalog's row; 0: there is none.
 */
static uint32
written_by(HeapTuple tuple)
{
	TransactionId xmin = InvalidTransactionId;

	if (HeapTupleIsValid(tuple))
	{
		xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		ReleaseSysCache(tuple);
	}
	return (uint32) xmin;
}

int64
clerk_settings_version(const char *server_name)
{
	Datum		server = ObjectIdGetDatum(get_foreign_server_oid(server_name, true));
	uint64		version = written_by(SearchSysCache1(FOREIGNSERVEROID, server));

	return (int64) (version << 32 |
					written_by(SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), server)));
}
