/*-------------------------------------------------------------------------
 *
 * deliver.h
 *		Delivering what is in the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_OUTBOX_DELIVER_H
#define CLERK_OUTBOX_DELIVER_H

/* Who delivers. */
typedef struct ClerkDeliverer
{
	bool		forever;		/* false: until nothing is left that is due */
	Oid			role;			/* what this role may; InvalidOid: all */
	void		(*begin) (void);	/* a transaction, with an active snapshot */
	void		(*commit) (void);
	bool		(*leave) (void);	/* between transactions: is it time to
									 * stop? */
	bool		(*called) (void);	/* did something happen since the last
									 * begin? */
	int64		(*tend) (void); /* between transactions: do what else is to be
								 * done, and say when (ms) more is */
	void		(*idle) (int64 next);	/* before it waits or stops: when (ms)
										 * is something to be done if nothing
										 * happens before?  0: now;
										 * PG_INT64_MAX: never */
} ClerkDeliverer;

/* pg_clerk.max_attempts; pg_clerk.retention, in s; pg_clerk.naptime, in ms. */
extern int	clerk_max_attempts;
extern int	clerk_retention;
extern int	clerk_naptime;

/*
 * Returns when leave says so (forever) or when nothing is left that is due.
 * It waits on MyLatch, which it resets, and reloads the configuration.
 */
extern void clerk_deliver(const ClerkDeliverer *deliverer);

#endif							/* CLERK_OUTBOX_DELIVER_H */
