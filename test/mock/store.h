/*-------------------------------------------------------------------------
 *
 * store.h
 *		The connections that exist, with look-ups by id and by domain.
 *
 * A connection is kept as the JSON text it is answered with, plus the few
 * fields that are searched for: fifty thousand of them stay small, and a GET
 * copies bytes.  Pointers to a Conn are good until it is removed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_STORE_H
#define MOCK_STORE_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

typedef struct TestRun
{
	char	   *text;
	char	   *status;
} TestRun;

typedef struct Conn
{
	char	   *id;
	char	   *text;
	size_t		text_len;
	char	   *organization_id;	/* NULL: not linked */
	bool		active;
	gint64		updated_at;
	char	  **domains;		/* NULL: none */
	GArray	   *runs;			/* of TestRun, oldest first; NULL: none */

	/* What Clerk knows but never sends back. */
	bool		has_client_secret;
	bool		has_idp_metadata;
} Conn;

extern Conn *store_find(const char *id);
extern Conn *store_domain_owner(const char *domain);
extern guint store_count(void);
extern Conn *store_at(guint i); /* 0 is the oldest */

/* Insert, or replace the one with the same id.  The object stays the caller's. */
extern Conn *store_put(struct json_object *object);

/* Insert a new one from its text; much faster, for many. */
extern Conn *store_put_text(const char *id, const GString *text, const char *domain, gint64 at);
extern void store_remove(Conn *conn);
extern void store_clear(void);

extern void store_add_run(Conn *conn, struct json_object *run);

/* The next id of each kind; into a buffer of at least ID_SIZE bytes. */
#define ID_SIZE 32
extern void store_next_id(char *id);
extern void store_next_saml_id(char *id);
extern void store_next_oauth_id(char *id);
extern void store_next_run_id(char *id);
extern void store_reset_counters(void);

#endif							/* MOCK_STORE_H */
