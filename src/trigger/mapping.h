/*-------------------------------------------------------------------------
 *
 * mapping.h
 *		What the arguments of a sync_enterprise_connection() trigger say: how a
 *		row of its table becomes the parameters of a connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_MAPPING_H
#define CLERK_MAPPING_H

#include "base/guard.h"
#include "clerk/settings.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

typedef enum ColumnKind
{
	COLUMN_TEXT,				/* string types and enums */
	COLUMN_BOOLEAN,
	COLUMN_TEXT_ARRAY,
	COLUMN_JSON,
	COLUMN_JSONB,
	COLUMN_INTEGER,
	COLUMN_NUMBER,				/* any other number */
	COLUMN_UUID,
	COLUMN_OTHER
} ColumnKind;

typedef struct Column
{
	AttrNumber	attnum;
	const char *name;
	Oid			type;			/* domains resolved */
	ColumnKind	kind;
	bool		byval;
	int16		len;
	bool		ignores_case;	/* citext */
	FmgrInfo	output;			/* of an array: of its elements */
	Oid			element;		/* InvalidOid if it is no array */
} Column;

/*
 * The parameters as a tree: an object has members, a leaf has a column or a
 * constant.
 */
typedef struct Member
{
	const char *name;			/* as on the wire */
	char	   *label;			/* "name": */
	List	   *members;		/* of Member *; NIL for a leaf */
	Column	   *column;
	char	   *constant;		/* JSON */
	bool		as_array;		/* a text becomes an array of one */
	bool		null_on_update; /* does Clerk take a null that removes the
								 * value? */
	bool		optional;		/* left out if all columns are null: oidc
								 * beside saml */
} Member;

typedef enum Removal
{
	REMOVAL_DEACTIVATE,
	REMOVAL_DELETE,
	REMOVAL_KEEP
} Removal;

/* All in its own memory context. */
typedef struct Mapping
{
	MemoryContext context;
	bool		cached;			/* it is the one that the cache has */
	bool		valid;			/* its tables have not changed since it was
								 * made */
	int			pins;			/* firings that are using it */
	char	   *trigger;		/* its name */
	Oid			relation;		/* whose trigger fires */
	Oid			declared;		/* the trigger that was declared: of a
								 * partition's, the topmost parent */
	Oid			table;			/* on which that one is */
	Oid			owner;			/* of that table; as whom the trigger acts */
	char	   *server;			/* NULL: the default */
	Removal		removal;
	char	   *prefix;			/* of keys, with its colon */
	Column	   *key;
	Column	   *when;			/* NULL: always */
	Member	   *name;			/* NULL: not mapped by a column */
	Member	   *domains;		/* likewise */
	bool		maps_active;
	bool		checked;		/* every row's parameters are right by their
								 * types */
	Member		root;
	List	   *columns;		/* all mapped ones and "when", Column * */
} Mapping;

/*-------------------------------------------------------------------------
 * mapping.c
 *-------------------------------------------------------------------------
 */

/*
 * The mapping of a trigger that fires, kept until a relation changes.  Pinned:
 * what the trigger does may fire others, and make the mapping stale.
 */
extern Mapping *clerk_pin_mapping(TriggerData *data);
extern void clerk_unpin_mapping(Mapping *mapping);

/*
 * Make a mapping, in a context of its own below the current one.  desc is that
 * of the rows, which need not be the table's.
 */
extern Mapping *clerk_make_mapping(Relation rel, const Trigger *trigger, TupleDesc desc);

/*
 * Act as a role, as referential integrity checks act as a table's owner.  On
 * ERROR the (sub)transaction's abort restores the user; else clerk_restore_user.
 */
extern void clerk_act_as(Oid role, ClerkUser *saved);

/* The owner of the table on which a trigger was declared. */
extern Oid	clerk_trigger_owner(Oid trigger);

/* The function's own triggers: is this one, FOR EACH ROW and AFTER? */
extern bool clerk_is_sync_trigger(Oid function, int16 type);

/*-------------------------------------------------------------------------
 * arguments.c
 *-------------------------------------------------------------------------
 */

/*
 * Read a trigger's arguments into a mapping that has its trigger, table and
 * owner; as that owner.  Throws what is wrong with them.
 */
extern void clerk_read_arguments(Mapping *mapping, TupleDesc desc, int nargs, char **args);

/* The settings of the server that the arguments name; as the current user. */
extern ClerkSettings *clerk_arguments_settings(int nargs, char **args);

/* The prefix of "key=prefix:column", with its colon; NULL if there is none. */
extern char *clerk_key_prefix(int nargs, char **args);

/*-------------------------------------------------------------------------
 * row.c
 *-------------------------------------------------------------------------
 */

extern Column *clerk_make_column(Form_pg_attribute attribute);

/* The key of a row's connection, "prefix:value".  A null is an error, 23502. */
extern char *clerk_row_key(const Mapping *mapping, TupleTableSlot *slot);

/* Should the row have a connection? */
extern bool clerk_row_is_ready(const Mapping *mapping, TupleTableSlot *slot);

/* Visit the dotted paths of the mapped parameters. */
extern void clerk_each_path(const Mapping *mapping, void (*visit) (const char *path, void *arg), void *arg);

/* Has the column's value changed? */
extern bool clerk_column_changed(const Column *column, TupleTableSlot *old, TupleTableSlot *new);

/*
 * The parameters of a row's upsert: in the wire's spelling and checked, with a
 * null for each column that is null, if an update takes it.
 */
extern Jsonb *clerk_row_params(const Mapping *mapping, TupleTableSlot *slot, const ClerkSettings *settings);

#endif							/* CLERK_MAPPING_H */
