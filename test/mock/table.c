/*-------------------------------------------------------------------------
 *
 * table.c
 *		A hash table from byte strings to pointers.
 *
 *-------------------------------------------------------------------------
 */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"

#define TABLE_FIRST_SIZE	64

struct TableEntry
{
	TableEntry *next;
	const char *key;
	size_t		len;
	void	   *value;
	uint32_t	hash;
};

/* FNV-1a */
static uint32_t
hash_bytes(const char *key, size_t len)
{
	uint32_t	h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char) key[i]) * 16777619u;
	return h;
}

/* The place that points at the entry for this key, or at the chain's end. */
static TableEntry **
find_slot(const Table *t, const char *key, size_t len, uint32_t hash)
{
	TableEntry **slot = &t->buckets[hash & (t->nbuckets - 1)];

	while (*slot != NULL &&
		   ((*slot)->hash != hash || (*slot)->len != len ||
			memcmp((*slot)->key, key, len) != 0))
		slot = &(*slot)->next;
	return slot;
}

static void
grow(Table *t)
{
	size_t		n = t->nbuckets ? t->nbuckets * 2 : TABLE_FIRST_SIZE;
	TableEntry **buckets = xcalloc(n * sizeof(TableEntry *));

	for (size_t i = 0; i < t->nbuckets; i++)
	{
		TableEntry *e,
				   *next;

		for (e = t->buckets[i]; e != NULL; e = next)
		{
			next = e->next;
			e->next = buckets[e->hash & (n - 1)];
			buckets[e->hash & (n - 1)] = e;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->nbuckets = n;
}

void *
table_get(const Table *t, const char *key, size_t len)
{
	TableEntry *e;

	if (t->count == 0)
		return NULL;
	e = *find_slot(t, key, len, hash_bytes(key, len));
	return e ? e->value : NULL;
}

void
table_put(Table *t, const char *key, size_t len, void *value)
{
	uint32_t	hash = hash_bytes(key, len);
	TableEntry **slot;

	if (t->count >= t->nbuckets)
		grow(t);
	slot = find_slot(t, key, len, hash);
	if (*slot == NULL)
	{
		*slot = xcalloc(sizeof(TableEntry));
		t->count++;
	}
	(*slot)->key = key;
	(*slot)->len = len;
	(*slot)->hash = hash;
	(*slot)->value = value;
}

void
table_remove(Table *t, const char *key, size_t len)
{
	TableEntry **slot;
	TableEntry *e;

	if (t->count == 0)
		return;
	slot = find_slot(t, key, len, hash_bytes(key, len));
	e = *slot;
	if (e == NULL)
		return;
	*slot = e->next;
	free(e);
	t->count--;
}

void
table_clear(Table *t)
{
	for (size_t i = 0; i < t->nbuckets; i++)
	{
		TableEntry *e,
				   *next;

		for (e = t->buckets[i]; e != NULL; e = next)
		{
			next = e->next;
			free(e);
		}
	}
	free(t->buckets);
	memset(t, 0, sizeof(*t));
}
