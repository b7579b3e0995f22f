/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How far a long command has come, in pg_stat_activity.query.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PROGRESS_H
#define CLERK_PROGRESS_H

/* All that is not set is zero. */
typedef struct ClerkProgress
{
	const char *command;		/* "mirror_enterprise_connections" */
	const char *server;			/* its name; NULL: of several */
	const char *what;			/* what is counted, in plural: "rows" */
	int64		done;			/* failed ones too */
	int64		failed;
	int64		total;			/* 0: not known */

	/* private */
	int64		began;			/* ms */
	int64		done_before;	/* when it began */
} ClerkProgress;

/*
 * Begin to count, or to count something else.  The pace is that since this call.
 */
extern void clerk_progress_begin(ClerkProgress *progress, const char *what, int64 done, int64 total);

/* Show it: some microseconds, so for each row, but not for each byte. */
extern void clerk_progress_show(const ClerkProgress *progress);

/* The session's own statement is shown again. */
extern void clerk_progress_end(void);

#endif							/* CLERK_PROGRESS_H */
