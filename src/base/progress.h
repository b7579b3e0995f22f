/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How far a long command has come, in pg_stat_activity.query.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_PROGRESS_H
#define CLERK_PROGRESS_H

/* All of it is zero at first. */
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
	int64		shown;			/* ms */
} ClerkProgress;

/*
 * Count something else from now on: what may be the same.  The pace is that
 * since this call.
 */
extern void clerk_progress_begin(ClerkProgress *progress, const char *what, int64 done, int64 total);

/* Show it, unless that was done a moment ago. */
extern void clerk_progress_show(ClerkProgress *progress);

/* The session's own statement is shown again. */
extern void clerk_progress_end(void);

#endif							/* CLERK_PROGRESS_H */
