/*-------------------------------------------------------------------------
 *
 * upsert.h
 *		Connections under a key: what direct upserts and deliveries share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_UPSERT_H
#define CLERK_UPSERT_H

#include "base/jsonb.h"
#include "clerk/report.h"

/* Did Clerk refuse to create what is there? */
extern bool clerk_is_duplicate(const ClerkReport *report);

/* ... because the organization has one, not because of a domain? */
extern bool clerk_is_duplicate_organization(const ClerkReport *report);

/*
 * Is it the connection that a create with this body makes: the same name,
 * provider, organization and domains?
 */
extern bool clerk_same_connection(const JsonbValue *body, Jsonb *connection);

/*
 * The parameters of an upsert that has to create: without its nulls, which take
 * away what an existing connection has.  An object stays, as it says which
 * provider is meant.
 */
extern Jsonb *clerk_params_without_nulls(Jsonb *params);

#endif							/* CLERK_UPSERT_H */
