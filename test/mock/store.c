/*-------------------------------------------------------------------------
 *
 * store.c
 *		The connections that exist, with look-ups by id and by domain.
 *
 * All connections stand in one array in the order of their creation, so a
 * page from the newest end is arithmetic.  A removal closes the gap with one
 * memmove, which is cheaper than any tree at the sizes in question.
 *
 *-------------------------------------------------------------------------
 */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "table.h"

static Conn **all;
static size_t nall;
static size_t all_size;
static Table by_id;
static Table by_domain;
static uint64_t last_order;

static struct
{
	unsigned long conn;
	unsigned long saml;
	unsigned long oauth;
	unsigned long run;
}			counters;

Conn *
store_find(const char *id, size_t len)
{
	return table_get(&by_id, id, len);
}

Conn *
store_domain_owner(const char *domain)
{
	return table_get(&by_domain, domain, strlen(domain));
}

size_t
store_count(void)
{
	return nall;
}

Conn *
store_at(size_t i)
{
	return all[i];
}

static void
append(Conn *conn)
{
	if (nall == all_size)
	{
		all_size = all_size ? all_size * 2 : 256;
		all = xrealloc(all, all_size * sizeof(Conn *));
	}
	conn->order = ++last_order;
	all[nall++] = conn;
	table_put(&by_id, conn->id, conn->id_len, conn);
}

static void
drop_domains(Conn *conn)
{
	for (int i = 0; i < conn->ndomains; i++)
	{
		/* Seeded objects may share a domain: it belongs to the last one. */
		if (store_domain_owner(conn->domains[i]) == conn)
			table_remove(&by_domain, conn->domains[i], strlen(conn->domains[i]));
		free(conn->domains[i]);
	}
	free(conn->domains);
	conn->domains = NULL;
	conn->ndomains = 0;
}

static void
add_domain(Conn *conn, const char *domain)
{
	char	   *copy = xstrdup(domain);

	/*
	 * The table keeps the key it was given; when two seeded objects share a
	 * domain, the older one's key must not stay behind.
	 */
	table_remove(&by_domain, copy, strlen(copy));
	table_put(&by_domain, copy, strlen(copy), conn);
	conn->domains = xrealloc(conn->domains, (size_t) (conn->ndomains + 1) * sizeof(char *));
	conn->domains[conn->ndomains++] = copy;
}

static void
index_domains(Conn *conn, struct json_object *domains)
{
	drop_domains(conn);
	if (!json_object_is_type(domains, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(domains); i++)
	{
		struct json_object *d = json_object_array_get_idx(domains, i);

		if (json_object_is_type(d, json_type_string))
			add_domain(conn, json_object_get_string(d));
	}
}

/* Take over text and searched fields from the object. */
static void
index_object(Conn *conn, struct json_object *object)
{
	struct json_object *value;
	const char *text = json_text(object, &conn->text_len);

	free(conn->text);
	conn->text = xmemdup(text, conn->text_len);
	free(conn->organization_id);
	conn->organization_id = NULL;
	value = json_object_object_get(object, "organization_id");
	if (value != NULL)
		conn->organization_id = xstrdup(json_object_get_string(value));
	conn->active = json_object_get_boolean(json_object_object_get(object, "active"));
	conn->updated_at = json_object_get_int64(json_object_object_get(object, "updated_at"));
	index_domains(conn, json_object_object_get(object, "domains"));
}

Conn *
store_put(struct json_object *object)
{
	struct json_object *id = json_object_object_get(object, "id");
	size_t		len = (size_t) json_object_get_string_len(id);
	Conn	   *conn = store_find(json_object_get_string(id), len);

	if (conn == NULL)
	{
		conn = xcalloc(sizeof(Conn));
		conn->id = xmemdup(json_object_get_string(id), len);
		conn->id_len = len;
		append(conn);
	}
	index_object(conn, object);
	return conn;
}

Conn *
store_put_text(const char *id, char *text, size_t text_len, const char *domain, int64_t at)
{
	Conn	   *conn = xcalloc(sizeof(Conn));

	conn->id = xstrdup(id);
	conn->id_len = strlen(id);
	conn->text = text;
	conn->text_len = text_len;
	conn->updated_at = at;
	append(conn);
	add_domain(conn, domain);
	return conn;
}

static void
free_conn(Conn *conn)
{
	for (int i = 0; i < conn->nruns; i++)
	{
		free(conn->runs[i].text);
		free(conn->runs[i].status);
	}
	free(conn->runs);
	free(conn->id);
	free(conn->text);
	free(conn->organization_id);
	free(conn);
}

/* The array is ordered by creation: find the place by halving. */
static size_t
place_of(const Conn *conn)
{
	size_t		low = 0,
				high = nall;

	while (low < high)
	{
		size_t		mid = low + (high - low) / 2;

		if (all[mid]->order < conn->order)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void
store_remove(Conn *conn)
{
	size_t		i = place_of(conn);

	memmove(all + i, all + i + 1, (nall - i - 1) * sizeof(Conn *));
	nall--;
	drop_domains(conn);
	table_remove(&by_id, conn->id, conn->id_len);
	free_conn(conn);
}

void
store_clear(void)
{
	table_clear(&by_domain);
	table_clear(&by_id);
	for (size_t i = 0; i < nall; i++)
	{
		drop_domains(all[i]);
		free_conn(all[i]);
	}
	free(all);
	all = NULL;
	nall = all_size = 0;
}

void
store_add_run(Conn *conn, struct json_object *run)
{
	struct json_object *status = json_object_object_get(run, "status");
	TestRun    *r;
	size_t		len;
	const char *text = json_text(run, &len);

	conn->runs = xrealloc(conn->runs, (size_t) (conn->nruns + 1) * sizeof(TestRun));
	r = &conn->runs[conn->nruns++];
	r->text = xmemdup(text, len);
	r->status = xstrdup(status ? json_object_get_string(status) : "");
}

/* Seeded objects may have taken an id that the counter would give out. */
void
store_next_id(char *id)
{
	do
		snprintf(id, ID_SIZE, "entconn_%06lu", ++counters.conn);
	while (store_find(id, strlen(id)) != NULL);
}

void
store_next_saml_id(char *id)
{
	snprintf(id, ID_SIZE, "samlc_%06lu", ++counters.saml);
}

void
store_next_oauth_id(char *id)
{
	snprintf(id, ID_SIZE, "eaoc_%06lu", ++counters.oauth);
}

void
store_next_run_id(char *id)
{
	snprintf(id, ID_SIZE, "entctr_%06lu", ++counters.run);
}

void
store_reset_counters(void)
{
	memset(&counters, 0, sizeof(counters));
}
