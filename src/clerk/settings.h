/*-------------------------------------------------------------------------
 *
 * settings.h
 *		Foreign server, its key and GUCs resolved into one struct.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_SETTINGS_H
#define CLERK_SETTINGS_H

#include "clerk/origin.h"
#include "clerk/statistics.h"
#include "nodes/pg_list.h"

/* The members that options fill are those that options.c names. */
typedef struct ClerkSettings
{
	Oid			server;
	char	   *server_name;
	char	   *api_url;
	char	   *base_url;		/* of api_url: normalised, ends in /v1 */
	char	   *api_version;
	char	   *secret_key;		/* printable ASCII; no message may show it */
	char	   *secret_key_file;	/* NULL: the key is in the mapping */
	int			timeout;		/* ms, of a call with all its retries */
	int			connect_timeout;	/* ms */
	int			max_retries;
	int			max_concurrency;
	int			rate_limit;		/* requests per second, 0 = none */
	int			max_response_size;	/* bytes */
	int			mirror_interval;	/* ms; 0: it is not mirrored by itself */
	char	   *ca_file;		/* NULL: the system's */
	char	   *proxy;			/* NULL: none */
	char	   *proxy_user;		/* printable ASCII; NULL: none */
	char	   *proxy_password; /* the same; no message may show it */
	List	   *extra_params;	/* of char *, see params.h */
	char	   *armed_for;		/* the option "origin", NULL: never armed */
	ClerkOrigin origin;			/* of armed_for: is this the database that it
								 * was armed for? */
	int64		version;		/* see clerk_settings_version */
	ClerkStatistics *statistics;	/* of the server */
} ClerkSettings;

typedef enum ClerkUse
{
	CLERK_USE_READ,				/* writes nothing: does not arm the server
								 * either */
	CLERK_USE_WRITE,
	CLERK_USE_ENQUEUE			/* needs neither a key nor to be armed */
} ClerkUse;

/*
 * Resolve a server's settings for the current user.  NULL stands for the server
 * that pg_clerk.server names, see default_server.h.  Throws
 * 42704 (no such server), 42809 (not a pg_clerk server), 42501 (no USAGE),
 * 55000 (no key, or none that may be sent there; not armed for this database).
 * The result, in the current memory context, is the caller's own copy.
 */
extern ClerkSettings *clerk_settings(const char *server_name, ClerkUse use);

/* A deep copy in the current memory context. */
extern ClerkSettings *clerk_settings_copy(const ClerkSettings *from);

/*
 * The oid of a pg_clerk server, which is locked until the transaction ends
 * (locks.h), so that it is not dropped or renamed.  Throws 42704 or 42809.
 */
extern Oid	clerk_held_server(const char *name);

/* For which database a server was armed.  False if there is no such pg_clerk server. */
extern bool clerk_settings_origin(const char *server_name, ClerkOrigin *origin);

/*
 * The limits of a server (times, concurrency, rate) for a worker, without a check
 * of privileges.  NULL if there is no such pg_clerk server.
 */
extern ClerkSettings *clerk_settings_limits(const char *server_name);

/*
 * A number that changes with the server and its PUBLIC mapping, and is the same
 * in all processes.
 */
extern int64 clerk_settings_version(const char *server_name);

#endif							/* CLERK_SETTINGS_H */
