/*-------------------------------------------------------------------------
 *
 * settings.c
 *		Foreign server, its key and GUCs resolved into one struct.
 *
 * The secret key is read from the server's PUBLIC user mapping and from no
 * other.  A role can read its own mapping, and any role with USAGE can create
 * one for itself: with the key of another Clerk instance, a mirror would delete
 * the rows of all connections.
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
#include "base/compat.h"
#include "base/guard.h"
#include "base/locks.h"
#include "base/url.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "clerk/default_server.h"
#include "clerk/origin.h"
#include "clerk/options.h"
#include "clerk/settings.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define FDW_NAME "pg_clerk"

/*
 * Requests per second, by default: half of what Clerk grants a whole instance,
 * which is 1000 in 10 s for a production instance and 100 for a development one.
 * If the workers used it all, the application's own calls would be refused.
 */
#define RATE_LIMIT_LIVE 50
#define RATE_LIMIT_TEST 5

/* A rate_limit that is not set. */
#define BY_KEY (-1)

/* What is cached of a server: all but what each call must look up anew. */
typedef struct CachedServer
{
	Oid			server;			/* hash key */
	bool		valid;
	MemoryContext context;		/* holds all that the struct below points to */
	ClerkSettings settings;		/* secret_key is NULL if it is in a file */
	Oid			owner;
	bool		has_mapping;	/* a PUBLIC mapping exists */
} CachedServer;

static HTAB *cached_servers = NULL;

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
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(CachedServer)};

	cached_servers = hash_create("pg_clerk servers", 8, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, forget_servers, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, forget_servers, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, forget_servers, (Datum) 0);
}

/*
 * Read the PUBLIC mapping's options.  (GetUserMapping() would prefer the user's
 * own mapping.)
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
		clerk_options_apply(&entry->settings, untransformRelOptions(datum), UserMappingRelationId);
	ReleaseSysCache(tuple);
}

static void
load_server(CachedServer *entry, ForeignServer *server)
{
	ClerkSettings *settings = &entry->settings;
	const char *fault;
	MemoryContext old;

	/* An earlier attempt may have failed halfway. */
	if (entry->context == NULL)
		entry->context = AllocSetContextCreate(CacheMemoryContext, "pg_clerk server",
											   ALLOCSET_SMALL_SIZES);
	MemoryContextReset(entry->context);
	entry->owner = server->owner;

	old = MemoryContextSwitchTo(entry->context);
	*settings = (ClerkSettings)
	{
		.server = server->serverid,
			.server_name = pstrdup(server->servername),
			.rate_limit = BY_KEY,
			.version = clerk_settings_version(server->servername),
			.statistics = clerk_statistics(server->serverid),
	};
	clerk_options_set_defaults(settings);
	clerk_options_apply(settings, server->options, ForeignServerRelationId);
	apply_public_mapping(entry);

	settings->base_url = clerk_url_base(settings->api_url, &fault);
	if (settings->base_url == NULL)
		clerk_option_is_wrong(settings, "api_url", fault);
	settings->origin = clerk_origin(settings->server, settings->armed_for);
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

		/* Set before reading, so that an invalidation meanwhile is not lost. */
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
 * A copy of a database must not send to the original's Clerk instance.
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
 * The server's owner decides where the key is sent, as it can change api_url and
 * proxy.  So a key that is in a file is only used if the owner may read files.
 * This is checked at each use, because a server can get another owner, and an
 * owner can lose the privilege, after the options were set.
 */
static void
check_key_file_owner(const CachedServer *entry)
{
	if (!clerk_may_read_files(entry->owner))
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
 * Read the key's file into buf, at most size bytes.  It must be a regular file:
 * opening or reading anything else, such as a named pipe, may block without end,
 * and cannot be cancelled.
 */
static size_t
read_key_bytes(const CachedServer *entry, char *buf, size_t size)
{
	int			fd = OpenTransientFile(entry->settings.secret_key_file,
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
 * Read the key's file, at each use, so that a rotated key is taken up.  Messages
 * do not name the file: any role with USAGE sees them.
 */
static char *
read_key_file(const CachedServer *entry)
{
	const char *name = entry->settings.server_name;
	char		buf[CLERK_MAX_KEY_LENGTH + 2];
	size_t		len = read_key_bytes(entry, buf, sizeof(buf) - 1);
	const char *fault;

	while (len > 0 && isspace((unsigned char) buf[len - 1]))
		len--;
	buf[len] = '\0';
	fault = strlen(buf) == len ? clerk_secret_key_fault(buf) : "It holds a NUL byte.";
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file with the secret key of server \"%s\" does not hold a key", name),
				 errdetail("%s", fault),
				 errhint("%s", key_file_hint)));
	return pstrdup(buf);
}

ClerkSettings *
clerk_settings_copy(const ClerkSettings *from)
{
	ClerkSettings *to = palloc(sizeof(*to));

	*to = *from;
	to->server_name = pstrdup(from->server_name);
	to->base_url = pstrdup(from->base_url);
	clerk_options_copy(to);
	return to;
}

/*
 * Check proxy and CA file again at each use: the options may have been checked by
 * another release's validator, and a file can change at any time.
 */
static void
check_route(const ClerkSettings *settings)
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
	 * libcurl opens the file itself, and would block without end on a named
	 * pipe.  If the file cannot be opened, libcurl reports the error.
	 */
	if (settings->ca_file != NULL && stat(settings->ca_file, &st) == 0 && !S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file with the CA certificates of server \"%s\" is not a regular file",
						settings->server_name),
				 errhint("See the option ca_file of the server.")));
}

static ClerkSettings *
with_rate_limit(ClerkSettings *settings)
{
	if (settings->rate_limit == BY_KEY)
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
		/* The worker needs the key, this session does not. */
		settings->secret_key = NULL;
		return settings;
	}
	check_route(settings);
	if (settings->secret_key_file != NULL)
	{
		check_key_file_owner(entry);
		settings->secret_key = read_key_file(entry);
	}
	if (settings->secret_key == NULL)
		no_key(entry);
	(void) with_rate_limit(settings);
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
	return with_rate_limit(clerk_settings_copy(&cached_server(serverid)->settings));
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
 * The transaction that wrote a catalog's row, which is released; 0 if there is
 * no row.
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
