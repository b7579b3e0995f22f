/*-------------------------------------------------------------------------
 *
 * guard.c
 *		Acting as the owner of the extension's tables, if no other role's code
 *		would.
 *
 * The extension writes its tables as their owner, often a superuser, and the
 * worker is one.  Whatever a statement fires then has those rights, too: a
 * trigger of the table, and, after a foreign key's action, the triggers of the
 * table that the action changes.  (The action itself runs as the owner of that
 * table, but the triggers that it fires are run when the statement ends, as
 * the role that runs the statement, and deferred ones at COMMIT.)  So a statement is
 * refused where a function that it would run belongs to a role that is neither
 * the tables' owner nor a superuser.
 *
 * What may stay: a foreign key that only checks (NO ACTION, RESTRICT).  Its
 * query runs as the owner of the referencing table, deferred or not, with
 * row-level security, operators and casts of that role's own choice, and so
 * with no rights but that role's.  What it could leave behind in the session,
 * to run later as somebody else, is prevented where requests are delivered.
 *
 * pg_depend says what an object uses, but for what is built in.  Only names of
 * owners are compared, so what a superuser's function calls is that
 * superuser's own concern.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/guard.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/*
 * Tables whose change makes the answer void.  A few: the extension's own, and
 * what hangs on them.  With more, any relation's change does.
 */
#define MAX_WATCHED 32

static Oid	watched[MAX_WATCHED];
static int	nwatched;
static bool checked = false;

/* One run of the check */
typedef struct Guard
{
	Oid			owner;			/* of the extension's tables */
	List	   *tables;			/* oids of those that were looked at */
	List	   *domains;		/* the same */
} Guard;

static void check_table(Guard *guard, Oid table);
static void check_uses(Guard *guard, const ObjectAddress *object, Oid classid, Oid objid);
static Oid	owner_of(const ObjectAddress *object);

/*-------------------------------------------------------------------------
 * When to look again
 *-------------------------------------------------------------------------
 */

static void
forget_relation(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || nwatched > MAX_WATCHED)
		checked = false;
	for (int i = 0; checked && i < nwatched; i++)
		if (watched[i] == relation)
			checked = false;
}

static void
forget_object(Datum arg, ClerkSysCacheId cache, uint32 hash)
{
	checked = false;
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	registered = true;
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_object, (Datum) 0);
}

static void
watch(Oid table)
{
	if (nwatched < MAX_WATCHED)
		watched[nwatched] = table;
	nwatched = Min(nwatched, MAX_WATCHED) + 1;
}

/*-------------------------------------------------------------------------
 * What to say
 *-------------------------------------------------------------------------
 */

static char *
table_name(Oid table)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
									  get_rel_name(table));
}

/*
 * A row of a catalog by its oid, or NULL.
 */
static HeapTuple
row_by_oid(Oid catalog, Oid index, AttrNumber column, Oid oid)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

static HeapTuple
trigger_row(Oid oid)
{
	return row_by_oid(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, oid);
}

static HeapTuple
constraint_row(Oid oid)
{
	return row_by_oid(ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid, oid);
}

static HeapTuple
rule_row(Oid oid)
{
	return row_by_oid(RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid, oid);
}

static HeapTuple
policy_row(Oid oid)
{
	return row_by_oid(PolicyRelationId, PolicyOidIndexId, Anum_pg_policy_oid, oid);
}

static HeapTuple
default_row(Oid oid)
{
	return row_by_oid(AttrDefaultRelationId, AttrDefaultOidIndexId, Anum_pg_attrdef_oid, oid);
}

static const char *
default_remedy(Form_pg_attrdef value)
{
	return psprintf(get_attgenerated(value->adrelid, value->adnum)
					? "ALTER TABLE %s DROP COLUMN %s" : "ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT",
					table_name(value->adrelid),
					quote_identifier(get_attname(value->adrelid, value->adnum, false)));
}

static const char *
constraint_remedy(Form_pg_constraint constraint)
{
	return psprintf("ALTER TABLE %s DROP CONSTRAINT %s", table_name(constraint->conrelid),
					quote_identifier(NameStr(constraint->conname)));
}

static const char *
index_remedy(Oid index)
{
	Oid			constraint = get_index_constraint(index);

	if (OidIsValid(constraint))
		return constraint_remedy((Form_pg_constraint) GETSTRUCT(constraint_row(constraint)));
	return psprintf("DROP INDEX %s", table_name(index));
}

/*
 * The statement after which the object does not stand in the way any more.
 */
static const char *
remedy(Guard *guard, const ObjectAddress *object)
{
	HeapTuple	tuple;

	switch (object->classId)
	{
		case TriggerRelationId:
			tuple = trigger_row(object->objectId);
			return psprintf("DROP TRIGGER %s ON %s",
							quote_identifier(NameStr(((Form_pg_trigger) GETSTRUCT(tuple))->tgname)),
							table_name(((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid));
		case RewriteRelationId:
			tuple = rule_row(object->objectId);
			return psprintf("DROP RULE %s ON %s",
							quote_identifier(NameStr(((Form_pg_rewrite) GETSTRUCT(tuple))->rulename)),
							table_name(((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class));
		case PolicyRelationId:
			tuple = policy_row(object->objectId);
			return psprintf("DROP POLICY %s ON %s",
							quote_identifier(NameStr(((Form_pg_policy) GETSTRUCT(tuple))->polname)),
							table_name(((Form_pg_policy) GETSTRUCT(tuple))->polrelid));
		case ConstraintRelationId:
			tuple = constraint_row(object->objectId);
			return constraint_remedy((Form_pg_constraint) GETSTRUCT(tuple));
		case AttrDefaultRelationId:
			tuple = default_row(object->objectId);
			return default_remedy((Form_pg_attrdef) GETSTRUCT(tuple));
		case RelationRelationId:
			if (get_rel_relkind(object->objectId) == RELKIND_INDEX)
				return index_remedy(object->objectId);
			if (object->objectSubId != 0)
				return psprintf("ALTER TABLE %s DROP COLUMN %s", table_name(object->objectId),
								quote_identifier(get_attname(object->objectId, object->objectSubId, false)));
			return psprintf("ALTER TABLE %s OWNER TO %s", table_name(object->objectId),
							quote_identifier(GetUserNameFromId(guard->owner, false)));
		case ProcedureRelationId:
			return psprintf("ALTER ROUTINE %s OWNER TO %s", format_procedure_qualified(object->objectId),
							quote_identifier(GetUserNameFromId(guard->owner, false)));
		case TypeRelationId:
			return psprintf("ALTER TYPE %s OWNER TO %s", format_type_be_qualified(object->objectId),
							quote_identifier(GetUserNameFromId(guard->owner, false)));
		default:
			return psprintf("REASSIGN OWNED BY %s TO %s", quote_identifier(GetUserNameFromId(owner_of(object), false)),
							quote_identifier(GetUserNameFromId(guard->owner, false)));
	}
}

static void
refuse_use(Guard *guard, const ObjectAddress *object, const ObjectAddress *used, Oid role)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s uses %s of role \"%s\"", getObjectDescription(object, false),
					getObjectDescription(used, false), GetUserNameFromId(role, false)),
			 errdetail("It would run with the rights of role \"%s\", the owner of pg_clerk's tables.",
					   GetUserNameFromId(guard->owner, false)),
			 errhint("Use %s.", remedy(guard, object))));
}

static void
refuse_owner(Guard *guard, const ObjectAddress *object, Oid role)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s belongs to role \"%s\"", getObjectDescription(object, false),
					GetUserNameFromId(role, false)),
			 errdetail("Its code would run with the rights of role \"%s\", the owner of pg_clerk's tables.",
					   GetUserNameFromId(guard->owner, false)),
			 errhint("Use %s.", remedy(guard, object))));
}

/*-------------------------------------------------------------------------
 * Whose it is
 *-------------------------------------------------------------------------
 */

static bool
is_trusted(Guard *guard, Oid role)
{
	return !OidIsValid(role) || role == guard->owner || superuser_arg(role);
}

/*
 * Who can change what the object does; InvalidOid where only superusers can.
 */
static Oid
owner_of(const ObjectAddress *object)
{
	HeapTuple	tuple = NULL;
	Oid			owner = InvalidOid;

	switch (object->classId)
	{
		case ProcedureRelationId:
			tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(object->objectId));
			if (HeapTupleIsValid(tuple))
				owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
			break;
		case OperatorRelationId:
			tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(object->objectId));
			if (HeapTupleIsValid(tuple))
				owner = ((Form_pg_operator) GETSTRUCT(tuple))->oprowner;
			break;
		case TypeRelationId:
			tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(object->objectId));
			if (HeapTupleIsValid(tuple))
				owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
			break;
		case RelationRelationId:
			tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(object->objectId));
			if (HeapTupleIsValid(tuple))
				owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
			break;
	}
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return owner;
}

/*
 * Rows of pg_depend, as ObjectAddress *: what the object uses, or what uses
 * it.  Either way, objectSubId is the column of the one that uses the other.
 */
static List *
dependencies(Oid classid, Oid objid, bool used)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	List	   *result = NIL;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], used ? Anum_pg_depend_classid : Anum_pg_depend_refclassid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(classid));
	ScanKeyInit(&keys[1], used ? Anum_pg_depend_objid : Anum_pg_depend_refobjid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(objid));
	scan = systable_beginscan(rel, used ? DependDependerIndexId : DependReferenceIndexId,
							  true, NULL, lengthof(keys), keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress *other;

		/* What only depends on an extension is not a part of it. */
		if (row->refclassid == ExtensionRelationId && (used || row->deptype != DEPENDENCY_EXTENSION))
			continue;
		other = palloc(sizeof(ObjectAddress));
		other->classId = used ? row->refclassid : row->classid;
		other->objectId = used ? row->refobjid : row->objid;
		other->objectSubId = row->objsubid;
		result = lappend(result, other);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static void
check_domain(Guard *guard, const ObjectAddress *object, Oid type)
{
	List	   *users;
	ListCell   *lc;

	/* Its constraints depend on it in turn. */
	if (list_member_oid(guard->domains, type))
		return;
	guard->domains = lappend_oid(guard->domains, type);
	users = dependencies(TypeRelationId, type, false);
	foreach(lc, users)
	{
		ObjectAddress *user = lfirst(lc);
		HeapTuple	tuple;

		if (user->classId != ConstraintRelationId)
			continue;
		tuple = constraint_row(user->objectId);
		if (HeapTupleIsValid(tuple) && ((Form_pg_constraint) GETSTRUCT(tuple))->contypid == type)
			check_uses(guard, object, ConstraintRelationId, user->objectId);
	}
}

/*
 * Everything that one object uses, for the sake of another one or of itself.
 */
static void
check_uses(Guard *guard, const ObjectAddress *object, Oid classid, Oid objid)
{
	List	   *uses = dependencies(classid, objid, true);
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, uses)
	{
		ObjectAddress *use = lfirst(lc);
		ObjectAddress culprit = *object;
		ObjectAddress used;
		Oid			owner;

		ObjectAddressSet(used, use->classId, use->objectId);
		if (object->classId == RelationRelationId && object->objectId == objid)
			culprit.objectSubId = use->objectSubId;
		/* A trigger uses other tables only in its function, and in its name. */
		if (used.classId == RelationRelationId &&
			(classid == TriggerRelationId || list_member_oid(guard->tables, used.objectId)))
			continue;
		owner = owner_of(&used);
		if (!is_trusted(guard, owner))
			refuse_use(guard, &culprit, &used, owner);
		if (used.classId == OperatorRelationId)
		{
			ObjectAddress function;

			ObjectAddressSet(function, ProcedureRelationId, get_opcode(used.objectId));
			owner = owner_of(&function);
			if (!is_trusted(guard, owner))
				refuse_use(guard, &culprit, &function, owner);
		}
		if (used.classId == TypeRelationId && get_typtype(used.objectId) == TYPTYPE_DOMAIN)
			check_domain(guard, &culprit, used.objectId);
	}
}

/*-------------------------------------------------------------------------
 * What hangs on a table
 *-------------------------------------------------------------------------
 */

static bool
is_action(char action)
{
	return action != FKCONSTR_ACTION_NOACTION && action != FKCONSTR_ACTION_RESTRICT;
}

/*
 * A foreign key that references the table: an action changes the referencing
 * table, and so fires that table's triggers.
 */
static void
check_foreign_key(Guard *guard, const ObjectAddress *object, Form_pg_constraint key)
{
	ObjectAddress table;
	Oid			owner;

	/*
	 * A partition's is looked at with its parent's, which alone can be
	 * dropped.
	 */
	if (OidIsValid(key->conparentid))
		return;
	if (!is_action(key->confdeltype) && !is_action(key->confupdtype))
		return;
	ObjectAddressSet(table, RelationRelationId, key->conrelid);
	owner = owner_of(&table);
	if (!is_trusted(guard, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("foreign key \"%s\" has an action on table %s, which belongs to role \"%s\"",
						NameStr(key->conname), table_name(key->conrelid), GetUserNameFromId(owner, false)),
				 errdetail("That table's triggers would run with the rights of role \"%s\", the owner of pg_clerk's tables.",
						   GetUserNameFromId(guard->owner, false)),
				 errhint("Use %s. A foreign key without ON DELETE and ON UPDATE is allowed.",
						 remedy(guard, object))));
	check_table(guard, key->conrelid);
}

static void
check_constraint(Guard *guard, const ObjectAddress *object, Oid table)
{
	HeapTuple	tuple = constraint_row(object->objectId);
	Form_pg_constraint constraint;

	if (!HeapTupleIsValid(tuple))
		return;
	constraint = (Form_pg_constraint) GETSTRUCT(tuple);
	if (constraint->contype == CONSTRAINT_FOREIGN)
	{
		/*
		 * One of the table's own only checks, as the referenced table's
		 * owner.
		 */
		if (constraint->confrelid == table)
			check_foreign_key(guard, object, constraint);
	}
	else if (constraint->conrelid == table)
		check_uses(guard, object, ConstraintRelationId, object->objectId);
}

static void
check_dependent(Guard *guard, const ObjectAddress *object, Oid table)
{
	HeapTuple	tuple;

	switch (object->classId)
	{
		case ConstraintRelationId:
			check_constraint(guard, object, table);
			return;
		case TriggerRelationId:
			/* Those of foreign keys are PostgreSQL's own. */
			tuple = trigger_row(object->objectId);
			if (!HeapTupleIsValid(tuple) ||
				((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid != table ||
				((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled == TRIGGER_DISABLED)
				return;
			break;
		case RewriteRelationId:
			/* A view that reads the table has one, too. */
			tuple = rule_row(object->objectId);
			if (!HeapTupleIsValid(tuple) || ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class != table)
				return;
			break;
		case PolicyRelationId:
			tuple = policy_row(object->objectId);
			if (!HeapTupleIsValid(tuple) || ((Form_pg_policy) GETSTRUCT(tuple))->polrelid != table)
				return;
			break;
		case AttrDefaultRelationId:
			break;
		default:
			return;
	}
	check_uses(guard, object, object->classId, object->objectId);
}

/*
 * An index depends on its table only where it is on a plain column and of no
 * constraint, so the indexes are looked for in pg_index.
 */
static void
check_indexes(Guard *guard, Oid table)
{
	Relation	rel = table_open(IndexRelationId, AccessShareLock);
	List	   *indexes = NIL;
	ListCell   *lc;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
	scan = systable_beginscan(rel, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		indexes = lappend_oid(indexes, ((Form_pg_index) GETSTRUCT(tuple))->indexrelid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	foreach(lc, indexes)
	{
		ObjectAddress index;

		ObjectAddressSet(index, RelationRelationId, lfirst_oid(lc));
		check_uses(guard, &index, RelationRelationId, index.objectId);
	}
}

/*
 * A table that a statement of ours changes: one of the extension's, a child of
 * one, or one that a foreign key's action changes.
 */
static void
check_table(Guard *guard, Oid table)
{
	ObjectAddress object;
	List	   *dependents;
	List	   *children;
	ListCell   *lc;
	Oid			owner;

	check_stack_depth();
	if (list_member_oid(guard->tables, table))
		return;
	guard->tables = lappend_oid(guard->tables, table);
	watch(table);
	ObjectAddressSet(object, RelationRelationId, table);
	owner = owner_of(&object);
	if (!is_trusted(guard, owner))
		refuse_owner(guard, &object, owner);

	check_uses(guard, &object, RelationRelationId, table);
	check_indexes(guard, table);
	dependents = dependencies(RelationRelationId, table, false);
	foreach(lc, dependents)
		check_dependent(guard, lfirst(lc), table);
	children = find_inheritance_children(table, NoLock);
	foreach(lc, children)
		check_table(guard, lfirst_oid(lc));
}

/*
 * Is its owner that of another member?  Sequences and row types have that of
 * their table, array types that of their element.
 */
static bool
follows_another(const ObjectAddress *member)
{
	Oid			relation;

	if (member->classId == RelationRelationId)
		return get_rel_relkind(member->objectId) == RELKIND_SEQUENCE;
	if (member->classId != TypeRelationId)
		return false;
	relation = get_typ_typrelid(member->objectId);
	return OidIsValid(get_element_type(member->objectId)) ||
		(OidIsValid(relation) && get_rel_relkind(relation) != RELKIND_COMPOSITE_TYPE);
}

/*
 * Every object of the extension is its tables' owner's or a superuser's.
 * Otherwise the role could replace a function that is called here.
 */
static void
check_members(Guard *guard)
{
	List	   *members = dependencies(ExtensionRelationId, get_extension_oid("pg_clerk", false), false);
	ListCell   *lc;

	foreach(lc, members)
	{
		ObjectAddress *member = lfirst(lc);
		Oid			owner = owner_of(member);

		if (follows_another(member))
			continue;
		if (!is_trusted(guard, owner))
			refuse_owner(guard, member, owner);
		if (member->classId == RelationRelationId && get_rel_relkind(member->objectId) == RELKIND_RELATION)
			check_table(guard, member->objectId);
	}
}

void
clerk_check_tables(void)
{
	Guard		guard = {.owner = clerk_catalog()->owner};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work;

	register_callbacks();
	if (checked)
		return;
	work = AllocSetContextCreate(caller, "clerk guard", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work);
	nwatched = 0;

	/*
	 * Valid before the look-ups: a change that is seen during one of them
	 * must not be lost.
	 */
	checked = true;
	PG_TRY();
	{
		check_members(&guard);
	}
	PG_CATCH();
	{
		checked = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
}

void
clerk_become_owner(ClerkUser *saved)
{
	clerk_check_tables();
	GetUserIdAndSecContext(&saved->id, &saved->sec_context);
	SetUserIdAndSecContext(clerk_catalog()->owner,
						   saved->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

void
clerk_restore_user(const ClerkUser *saved)
{
	SetUserIdAndSecContext(saved->id, saved->sec_context);
}
