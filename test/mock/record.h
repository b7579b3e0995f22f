/*-------------------------------------------------------------------------
 *
 * record.h
 *		What was asked of the API: recorded requests, and counts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_RECORD_H
#define MOCK_RECORD_H

#include <glib.h>
#include <stdbool.h>

/* A request as it came in.  Everything is copied. */
typedef struct RecordInput
{
	const char *method;
	const char *target;
	const GString *headers;		/* a JSON object; empty: not kept */
	const GString *body;		/* empty: there was none */
	unsigned long connection;
	bool		scripted;
} RecordInput;

/* Both return or take the sequence number, from 1; 0 means not recorded. */
extern guint64 record_add(const RecordInput *input);

/* Status 0 stands for a request that got no answer. */
extern void record_answered(guint64 seq, int status);

/* method NULL: any */
extern void record_list(GString *out, guint64 since, const char *method);
extern void record_clear(void);

/* Counts; they are kept whatever the record setting says. */
extern void stats_request_begins(const char *method);
extern void stats_request_ends(void);
extern void stats_connection_opened(void);
extern void stats_connection_closed(void);
extern void stats_write(GString *out);

/* Everything to zero but what is open and in flight right now. */
extern void record_reset(void);

#endif							/* MOCK_RECORD_H */
