/*-------------------------------------------------------------------------
 *
 * compat.h
 *		What differs between the versions of PostgreSQL, and the oldest
 *		versions that will do.
 *
 * The only file of the tree that asks for PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_COMPAT_H
#define CLERK_COMPAT_H

/* These two have nothing but the version, so they go with any other header. */
#include <curl/curlver.h>
#include <json-c/json_c_version.h>

#if PG_VERSION_NUM < 140000
#error "pg_clerk needs PostgreSQL 14 or newer"
#endif
/* CURLOPT_QUICK_EXIT, without which a cancelled request can wait for DNS */
#if LIBCURL_VERSION_NUM < 0x075700
#error "pg_clerk needs libcurl 7.87 or newer"
#endif
#if JSON_C_MAJOR_VERSION == 0 && JSON_C_MINOR_VERSION < 15
#error "pg_clerk needs json-c 0.15 or newer"
#endif

#include "common/jsonapi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#endif

/* From 18 on PostgreSQL has it, and 19 has nothing else for it. */
#ifndef pg_noreturn
#define pg_noreturn _Noreturn
#endif

/* utils/builtins.h has it too, but cannot be included beside json-c. */
extern Datum jsonb_in(PG_FUNCTION_ARGS);

/*
 * jsonb_in.  From 16 on, what is wrong with the text makes it return false
 * with the error's code; what is still thrown, the caller has to catch.
 */
static inline bool
clerk_compat_jsonb_in(char *text, Datum *jsonb, int *sqlerrcode)
{
#if PG_VERSION_NUM >= 160000
	ErrorSaveContext soft = {.type = T_ErrorSaveContext,.details_wanted = true};

	if (DirectInputFunctionCallSafe(jsonb_in, text, InvalidOid, -1,
									(struct Node *) &soft, jsonb))
		return true;
	*sqlerrcode = soft.error_data->sqlerrcode;
	return false;
#else
	*jsonb = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
	*sqlerrcode = 0;
	return true;
#endif
}

/* Is this UTF-8 text, free of NUL bytes, what PostgreSQL calls JSON? */
static inline bool
clerk_compat_json_is_valid(char *text, size_t len)
{
#if PG_VERSION_NUM >= 170000
	JsonLexContext *lex = makeJsonLexContextCstringLen(NULL, text, len, PG_UTF8, false);
	bool		valid = pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;

	freeJsonLexContext(lex);
	return valid;
#else
	JsonLexContext *lex = makeJsonLexContextCstringLen(text, (int) len, PG_UTF8, false);
	bool		valid = pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;

	pfree(lex);
	return valid;
#endif
}

/*
 * Where a setting's value comes from, and which role has set it; for files
 * that include utils/guc_tables.h.  14 does not remember the role: there,
 * the caller has to note it.
 */
#ifdef GUC_TABLES_H

#if PG_VERSION_NUM < 150000
#define CLERK_NOTES_SETTER
#endif

/* The setting must exist.  What is returned stays where it is. */
static inline const struct config_generic *
clerk_compat_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, false, ERROR);
#else
	struct config_generic **settings = get_guc_variables();
	int			i = 0;

	while (strcmp(settings[i]->name, name) != 0)
		i++;
	return settings[i];
#endif
}

static inline Oid
clerk_compat_setter(const struct config_generic *setting, Oid noted)
{
#if PG_VERSION_NUM >= 150000
	return setting->srole;
#else
	return noted;
#endif
}

#endif							/* GUC_TABLES_H */

/* Privileges on a foreign server; 16 made one function of all kinds. */
#include "catalog/pg_foreign_server.h"
#include "utils/acl.h"

static inline AclResult
clerk_server_aclcheck(Oid server, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, server, role, ACL_USAGE);
#else
	return pg_foreign_server_aclcheck(server, role, ACL_USAGE);
#endif
}

static inline bool
clerk_server_ownercheck(Oid server, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ForeignServerRelationId, server, role);
#else
	return pg_foreign_server_ownercheck(server, role);
#endif
}

/* A WaitEventSet for the life of the process; the caller frees it. */
#include "storage/latch.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#include "utils/memutils.h"

static inline WaitEventSet *
clerk_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* What pg_stat_activity shows while a process waits for Clerk. */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#else
#include "pgstat.h"
#endif

static inline uint32
clerk_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("ClerkApi");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

#include "utils/guc.h"

static inline void
clerk_reserve_guc_prefix(const char *prefix)
{
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved(prefix);
#else
	EmitWarningsOnPlaceholders(prefix);
#endif
}

/* A random number from 0 to 1, for jitter. */
#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#endif

static inline double
clerk_random(void)
{
#if PG_VERSION_NUM >= 150000
	return pg_prng_double(&pg_global_prng_state);
#else
	return (double) random() / ((double) MAX_RANDOM_VALUE + 1);
#endif
}

/* A set-returning function's result, to be filled with tuplestore_putvalues. */
#include "funcapi.h"
#if PG_VERSION_NUM < 150000
#include "miscadmin.h"
#endif

static inline ReturnSetInfo *
clerk_materialized_result(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
#if PG_VERSION_NUM >= 150000
	InitMaterializedSRF(fcinfo, 0);
#else
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) || !(result->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &result->setDesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	result->returnMode = SFRM_Materialize;
	result->setResult = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(old);
#endif
	return result;
}

/* The next datum of a sort, of a type passed by reference, palloc'd; false at the end. */
#include "utils/tuplesort.h"

static inline bool
clerk_tuplesort_next(Tuplesortstate *sort, Datum *value)
{
	bool		isnull;

#if PG_VERSION_NUM >= 160000
	return tuplesort_getdatum(sort, true, true, value, &isnull, NULL);
#else
	return tuplesort_getdatum(sort, true, value, &isnull, NULL);
#endif
}

/* Shared memory is asked for in a hook of its own from 15 on. */
#if PG_VERSION_NUM >= 150000
#define CLERK_HAS_SHMEM_REQUEST_HOOK 1
#else
#define CLERK_HAS_SHMEM_REQUEST_HOOK 0
#endif

/* What pg_stat_activity shows while the launcher waits. */
static inline uint32
clerk_launcher_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("ClerkLauncherMain");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* ... and a session that awaits a request. */
static inline uint32
clerk_await_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("ClerkAwait");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

#include "catalog/pg_database.h"

static inline bool
clerk_database_ownercheck(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

#include "catalog/pg_extension.h"

static inline bool
clerk_extension_ownercheck(Oid extension, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ExtensionRelationId, extension, role);
#else
	return pg_extension_ownercheck(extension, role);
#endif
}

/* The timeline that this server writes; not in recovery. */
#include "access/xlog.h"

static inline TimeLineID
clerk_timeline(void)
{
#if PG_VERSION_NUM >= 150000
	return GetWALInsertionTimeLine();
#else
	(void) RecoveryInProgress();	/* sets it */
	return ThisTimeLineID;
#endif
}

/* A descriptor that was put together is complete; before 19, without a word. */
#include "access/tupdesc.h"

static inline TupleDesc
clerk_complete_descriptor(TupleDesc desc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(desc);
#endif
	return desc;
}

/* To ignore a signal; a handler has another type from 19 on. */
#include "port.h"

#ifndef PG_SIG_IGN
#define PG_SIG_IGN SIG_IGN
#endif

/* The type of a syscache's number, as its callbacks have it. */
#include "utils/syscache.h"

#if PG_VERSION_NUM >= 190000
typedef SysCacheIdentifier ClerkSysCacheId;
#else
typedef int ClerkSysCacheId;
#endif

#endif							/* CLERK_COMPAT_H */
