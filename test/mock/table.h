/*-------------------------------------------------------------------------
 *
 * table.h
 *		A hash table from byte strings to pointers.
 *
 * Chained, so that a long run of insertions and removals leaves no
 * tombstones behind.  Keys are not copied: they must live as long as their
 * entry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_TABLE_H
#define MOCK_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct TableEntry TableEntry;

typedef struct Table
{
	TableEntry **buckets;
	size_t		nbuckets;		/* a power of two, or 0 before first use */
	size_t		count;
} Table;

extern void *table_get(const Table *t, const char *key, size_t len);
extern void table_put(Table *t, const char *key, size_t len, void *value);
extern void table_remove(Table *t, const char *key, size_t len);
extern void table_clear(Table *t);

#endif							/* MOCK_TABLE_H */
