/*-------------------------------------------------------------------------
 *
 * report.h
 *		What went wrong with a call, as PostgreSQL reports it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_REPORT_H
#define CLERK_REPORT_H

#include "http/http.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* Class KC: see the table in README.md.  KCnnn is HTTP status nnn. */
#define ERRCODE_CLERK_ERROR					MAKE_SQLSTATE('K','C','0','0','0')
#define ERRCODE_CLERK_NOT_CONNECTED			MAKE_SQLSTATE('K','C','0','0','1')
#define ERRCODE_CLERK_CONNECTION_BROKEN		MAKE_SQLSTATE('K','C','0','0','6')
#define ERRCODE_CLERK_OUTCOME_UNKNOWN		MAKE_SQLSTATE('K','C','0','0','7')
#define ERRCODE_CLERK_ANSWER_UNREADABLE		MAKE_SQLSTATE('K','C','0','0','8')

typedef enum ClerkRetry
{
	CLERK_RETRY_NEVER,			/* the same request would fail again */
	CLERK_RETRY_AT_ONCE,		/* nothing happened; a direct call tries again */
	CLERK_RETRY_LATER,			/* nothing happened; worth another try some
								 * time */
	CLERK_RETRY_SHORTAGE,		/* nothing was tried, for lack of a socket: no
								 * attempt */
	CLERK_RETRY_IN_DOUBT		/* it may have happened */
} ClerkRetry;

/* All strings in the server's encoding, without secrets; NULL if there is none. */
typedef struct ClerkReport
{
	int			sqlerrcode;
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *code;			/* of Clerk's first error */
	char	   *param_name;		/* of Clerk's first error */
	char	   *trace_id;
	int			status;			/* HTTP status, 0 if there was none */
	bool		of_clerk;		/* the answer is in the shape of Clerk's
								 * errors */
	Jsonb	   *errors;			/* Clerk's array of errors */
	ClerkRetry	retry;
	int64		retry_after;	/* ms, -1: Clerk did not say */
	char	   *connection_id;	/* of a connection that exists in spite of the
								 * error */
	bool		unstorable;		/* the answer is right, but jsonb cannot hold
								 * it here */
} ClerkReport;

/* What the request was, for the words of the report. */
typedef struct ClerkReportSubject
{
	const char *what;			/* "create the enterprise connection" */
	bool		creates;		/* a POST that must not happen twice */
	bool		reads;			/* a GET */
	bool		posts;			/* a POST, of whatever */
	const char *server_name;
	const char *base_url;
	int			timeout;		/* ms */
	int			max_response_size;
	List	   *secrets;		/* UTF-8 strings that no report may show */
} ClerkReportSubject;

/*
 * Why there is no result: the request failed, or its answer is of a status
 * that reports an error.  palloc'd.
 */
extern ClerkReport *clerk_report_failure(const ClerkReportSubject *subject,
										 const ClerkHttpRequest *request);

/*
 * The same of an answer with a status of success that cannot be used; fault
 * says why, to follow "Clerk's answer" (or, for the whole of it, NULL).
 */
extern ClerkReport *clerk_report_unreadable(const ClerkReportSubject *subject,
											const ClerkHttpRequest *request,
											const char *fault);

/*
 * The answer is packed in a way that was not asked for: how, as a clause; NULL
 * if it is not.
 */
extern const char *clerk_report_packed(const ClerkReportSubject *subject,
									   const ClerkHttpRequest *request);

/* A listing that does not end; fault says so, as a sentence. */
extern ClerkReport *clerk_report_endless(const char *server_name, const char *what, const char *fault);

/*
 * An id of Clerk's, in the server's encoding, as a message shows it: opaque as it
 * is, it could have any character.
 */
extern const char *clerk_report_id(const char *id);

/* The trace id that ends a report's detail; NULL if there is none. */
extern const char *clerk_report_trace_id(const char *detail);

/* Did Clerk itself say that it knows no such id? */
extern bool clerk_report_is_gone(const ClerkReport *report);

/* {sqlstate, message, detail, hint, status, trace_id, errors} */
extern Jsonb *clerk_report_to_jsonb(const ClerkReport *report);

/* ereport it; returns only if elevel is below ERROR. */
extern void clerk_report_raise(int elevel, const ClerkReport *report);

#endif							/* CLERK_REPORT_H */
