/*-------------------------------------------------------------------------
 *
 * store.c
 *		The connections that exist, with look-ups by id and by domain.
 *
 * All connections stand in one array in the order of their creation, so a
 * page from the newest end is arithmetic.  A removal closes the gap, which is
 * cheaper than any tree at the sizes in question.
 *
 *-------------------------------------------------------------------------
 */
#include "store.h"

#include <string.h>

#include "answer.h"

static GPtrArray *all;			/* owns the connections */
static GHashTable *by_id;
static GHashTable *by_domain;

static struct
{
	unsigned long conn;
	unsigned long saml;
	unsigned long oauth;
	unsigned long run;
}			counters;

Conn *
store_find(const char *id)
{
	return all ? g_hash_table_lookup(by_id, id) : NULL;
}

Conn *
store_domain_owner(const char *domain)
{
	return all ? g_hash_table_lookup(by_domain, domain) : NULL;
}

guint
store_count(void)
{
	return all ? all->len : 0;
}

Conn *
store_at(guint i)
{
	return all->pdata[i];
}

static void
drop_domains(Conn *conn)
{
	for (char **domain = conn->domains; domain != NULL && *domain != NULL; domain++)
		/* Seeded objects may share a domain: it belongs to the last one. */
		if (store_domain_owner(*domain) == conn)
			g_hash_table_remove(by_domain, *domain);
	g_clear_pointer(&conn->domains, g_strfreev);
}

static void
free_conn(void *p)
{
	Conn	   *conn = p;

	drop_domains(conn);
	g_hash_table_remove(by_id, conn->id);
	g_clear_pointer(&conn->runs, g_array_unref);
	g_free(conn->id);
	g_free(conn->text);
	g_free(conn->organization_id);
	g_free(conn);
}

static Conn *
new_conn(const char *id)
{
	Conn	   *conn = g_new0(Conn, 1);

	if (all == NULL)
	{
		/* the keys are the connections' own */
		by_id = g_hash_table_new(g_str_hash, g_str_equal);
		by_domain = g_hash_table_new(g_str_hash, g_str_equal);
		all = g_ptr_array_new_with_free_func(free_conn);
	}
	conn->id = g_strdup(id);
	g_ptr_array_add(all, conn);
	g_hash_table_insert(by_id, conn->id, conn);
	return conn;
}

/*
 * Of two seeded objects that share a domain, the older one's key must not
 * stay behind: replace takes the new one's.
 */
static void
set_domains(Conn *conn, char **domains)
{
	drop_domains(conn);
	conn->domains = domains;
	for (char **domain = domains; *domain != NULL; domain++)
		g_hash_table_replace(by_domain, *domain, conn);
}

static char **
domains_of(struct json_object *domains)
{
	g_autoptr(GStrvBuilder) list = g_strv_builder_new();
	size_t		n = json_object_is_type(domains, json_type_array) ? json_object_array_length(domains) : 0;

	for (size_t i = 0; i < n; i++)
		if (json_object_is_type(json_object_array_get_idx(domains, i), json_type_string))
			g_strv_builder_add(list, json_object_get_string(json_object_array_get_idx(domains, i)));
	return g_strv_builder_end(list);
}

/* Take over text and searched fields from the object. */
static void
index_object(Conn *conn, struct json_object *object)
{
	g_free(conn->text);
	conn->text = g_strdup(json_text(object));
	conn->text_len = strlen(conn->text);
	g_free(conn->organization_id);
	conn->organization_id = g_strdup(json_member_text(object, "organization_id"));
	conn->active = json_object_get_boolean(json_object_object_get(object, "active"));
	conn->updated_at = json_object_get_int64(json_object_object_get(object, "updated_at"));
	set_domains(conn, domains_of(json_object_object_get(object, "domains")));
}

Conn *
store_put(struct json_object *object)
{
	const char *id = json_member_text(object, "id");
	Conn	   *conn = store_find(id);

	if (conn == NULL)
		conn = new_conn(id);
	index_object(conn, object);
	return conn;
}

Conn *
store_put_text(const char *id, const GString *text, const char *domain, gint64 at)
{
	Conn	   *conn = new_conn(id);

	conn->text = g_strndup(text->str, text->len);
	conn->text_len = text->len;
	conn->updated_at = at;
	set_domains(conn, g_strsplit(domain, " ", 1));
	return conn;
}

void
store_remove(Conn *conn)
{
	g_ptr_array_remove(all, conn);
}

void
store_clear(void)
{
	if (all == NULL)
		return;
	g_clear_pointer(&all, g_ptr_array_unref);
	g_clear_pointer(&by_domain, g_hash_table_unref);
	g_clear_pointer(&by_id, g_hash_table_unref);
}

static void
free_run(void *run)
{
	g_free(((TestRun *) run)->text);
	g_free(((TestRun *) run)->status);
}

void
store_add_run(Conn *conn, struct json_object *run)
{
	const char *status = json_member_text(run, "status");
	TestRun		r = {.text = g_strdup(json_text(run)),.status = g_strdup(status ? status : "")};

	if (conn->runs == NULL)
	{
		conn->runs = g_array_new(FALSE, FALSE, sizeof(TestRun));
		g_array_set_clear_func(conn->runs, free_run);
	}
	g_array_append_val(conn->runs, r);
}

/* Seeded objects may have taken an id that the counter would give out. */
void
store_next_id(char *id)
{
	do
		g_snprintf(id, ID_SIZE, "entconn_%06lu", ++counters.conn);
	while (store_find(id) != NULL);
}

void
store_next_saml_id(char *id)
{
	g_snprintf(id, ID_SIZE, "samlc_%06lu", ++counters.saml);
}

void
store_next_oauth_id(char *id)
{
	g_snprintf(id, ID_SIZE, "eaoc_%06lu", ++counters.oauth);
}

void
store_next_run_id(char *id)
{
	g_snprintf(id, ID_SIZE, "entctr_%06lu", ++counters.run);
}

void
store_reset_counters(void)
{
	memset(&counters, 0, sizeof(counters));
}
