/*-------------------------------------------------------------------------
 *
 * log.h
 *		Lines in the server's log: what has failed, and what took long.
 *
 * They have names of servers, keys, ids, SQLSTATEs, Clerk's error codes and trace
 * ids; no parameters, no secrets, and so not Clerk's messages, which can have
 * either.  They go to the log alone, not to the client.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_LOG_H
#define CLERK_LOG_H

#include "clerk/endpoint.h"
#include "utils/jsonb.h"

/* pg_clerk.log_failures */
extern bool clerk_log_failures;

/* pg_clerk.log_min_duration, in ms; -1: none */
extern int	clerk_log_min_duration;

/* One line, if pg_clerk.log_failures is on. */
extern void clerk_log(const char *line);

/*
 * The same, of something that has failed: "WHAT: ", and why.  error is what
 * clerk_report_to_jsonb makes.
 */
extern void clerk_log_failed(const char *what, Jsonb *error);

/* The same of an error that was caught, whose message is shown unless it is Clerk's. */
extern void clerk_log_error(const char *what, const ErrorData *error);

/* A call has come to its end: log it, if it took long. */
extern void clerk_log_duration(const ClerkCall *call);

#endif							/* CLERK_LOG_H */
