/*-------------------------------------------------------------------------
 *
 * insertion.c
 *		A new row of the request table, without a statement.
 *
 * An INSERT reads, plans and initializes the table's CHECK constraints and the
 * predicates of its indexes for each statement anew.  For one row, that costs
 * several times what the row does.  Here they are prepared once, and kept as
 * long as the table stays what it is; then each row is checked against them as
 * an INSERT would do it, and goes into those indexes that it belongs to.
 *
 * This knows all columns of the table, and nothing of what somebody may have
 * added to it: see reason_for_statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "compat.h"
#include "executor/executor.h"
#include "insertion.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

/* The columns of enterprise_connection_requests, as the script has them. */
enum
{
	COLUMN_ID = 1,
	COLUMN_SERVER,
	COLUMN_ROLE,
	COLUMN_OPERATION,
	COLUMN_KEY,
	COLUMN_CONNECTION_ID,
	COLUMN_PARAMS,
	COLUMN_STATE,
	COLUMN_ATTEMPTS,
	COLUMN_NEXT_ATTEMPT_AT,
	COLUMN_CREATED_AT,
	COLUMN_STARTED_AT,
	COLUMN_FINISHED_AT,
	COLUMN_HTTP_STATUS,
	COLUMN_ERROR,
	COLUMN_STEP,
	COLUMN_DOUBT_SINCE,
	COLUMN_LANE,
	COLUMN_CLAIMER,
	COLUMN_SUPERSEDED_BY,
	COLUMN_AWAITS,
	COLUMN_LOOK_UP,
	COLUMN_SCRUBBED,
	COLUMN_XACT,
	COLUMNS = COLUMN_XACT
};

static const Oid column_types[] = {
	INT8OID, NAMEOID, NAMEOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID,
	INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	INT4OID, JSONBOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, INT4OID, INT8OID,
	INT8OID, BOOLOID, BOOLOID, XID8OID
};

StaticAssertDecl(lengthof(column_types) == COLUMNS, "a type for each column");

/* What is prepared for all rows; all in the memory context of its estate. */
typedef struct Insertion
{
	Oid			table;
	const char *reason;			/* why a statement has to do it, or NULL */
	EState	   *estate;
	ResultRelInfo *target;		/* for its constraints; without indexes */
	TupleTableSlot *slot;
	Oid			sequence;		/* of the ids */
	Oid			lane_index;
	Oid			lane_collation;
	int			indexes;
	Oid		   *index_oids;
	IndexInfo **index_infos;
	List	   *others;			/* IndexInfo *; what belongs into them, a statement has to insert */
} Insertion;

static Insertion *kept = NULL;
static bool kept_is_valid = false;
static uint64 invalidations = 0;

/*-------------------------------------------------------------------------
 * Is the table as the script made it?
 *-------------------------------------------------------------------------
 */

static bool
is_user_defined(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

/*
 * Could an expression come to mean something else while the table stays as it
 * is?  Not if it has nothing but columns, constants and operators of
 * PostgreSQL's own, as those of the script.
 */
static bool
depends_on_others(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
		case T_Const:
		case T_RelabelType:
		case T_ArrayExpr:
		case T_OpExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_NullTest:
			break;
		case T_Var:
			if (((Var *) node)->varattno <= 0)
				return true;
			break;
		default:
			return true;
	}
	return check_functions_in_node(node, is_user_defined, NULL) ||
		expression_tree_walker(node, depends_on_others, context);
}

/*
 * A foreign key that refers to the table has triggers for other events only.
 */
static bool
has_insert_triggers(const TriggerDesc *triggers)
{
	return triggers != NULL &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		 triggers->trig_insert_before_statement || triggers->trig_insert_after_statement);
}

static bool
columns_differ(TupleDesc desc)
{
	if (desc->natts != COLUMNS ||
		TupleDescAttr(desc, COLUMN_ID - 1)->attidentity != ATTRIBUTE_IDENTITY_ALWAYS)
		return true;
	for (int i = 0; i < COLUMNS; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped || attribute->atttypid != column_types[i] ||
			attribute->attgenerated != '\0')
			return true;
	}
	return false;
}

static bool
constraints_differ(TupleDesc desc)
{
	if (desc->constr == NULL)
		return true;
	for (int i = 0; i < desc->constr->num_check; i++)
		if (depends_on_others(stringToNode(desc->constr->check[i].ccbin), NULL))
			return true;
	return false;
}

/*
 * Comparing by a function of the user's would run it as who enqueues.
 */
static bool
index_differs(Relation index, IndexInfo *info)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		if (index->rd_opfamily[i] >= FirstNormalObjectId)
			return true;
	return index->rd_rel->relam != BTREE_AM_OID || info->ii_Expressions != NIL ||
		info->ii_ExclusionOps != NULL || !index->rd_index->indimmediate;
}

/*
 * Why must a statement insert?  An index or a constraint that was added to the
 * table is honoured here, if it is of the kinds that the script has.
 */
static const char *
reason_for_statement(Relation rel, const Insertion *insertion)
{
	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relispartition)
		return "partitions";
	if (has_insert_triggers(rel->trigdesc))
		return "triggers";
	if (rel->rd_rules != NULL)
		return "rules";
	if (columns_differ(RelationGetDescr(rel)))
		return "columns";
	if (constraints_differ(RelationGetDescr(rel)))
		return "constraints";
	if (!OidIsValid(insertion->lane_index))
		return "indexes";
	return NULL;
}

/*-------------------------------------------------------------------------
 * Preparing
 *-------------------------------------------------------------------------
 */

/*
 * The index by which the unfinished requests of a lane are found.
 */
static bool
is_lane_index(Relation index)
{
	return index->rd_index->indnkeyatts >= 2 &&
		index->rd_index->indkey.values[0] == COLUMN_LANE &&
		index->rd_index->indkey.values[1] == COLUMN_SERVER &&
		strcmp(RelationGetRelationName(index), "enterprise_connection_requests_lane_idx") == 0;
}

/*
 * Returns false if there is one that only a statement can maintain, other
 * than for rows that its predicate excludes.
 */
static bool
prepare_indexes(Insertion *insertion, Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	insertion->index_oids = palloc(sizeof(Oid) * (list_length(oids) + 1));
	insertion->index_infos = palloc(sizeof(IndexInfo *) * (list_length(oids) + 1));
	foreach(lc, oids)
	{
		Relation	index = index_open(lfirst_oid(lc), RowExclusiveLock);
		IndexInfo  *info = BuildIndexInfo(index);
		bool		differs = index_differs(index, info);

		if (is_lane_index(index) && info->ii_ReadyForInserts && index->rd_index->indisvalid)
		{
			insertion->lane_index = RelationGetRelid(index);
			insertion->lane_collation = index->rd_indcollation[0];
		}
		index_close(index, NoLock);
		if ((differs && info->ii_Predicate == NIL) || depends_on_others((Node *) info->ii_Predicate, NULL))
			return false;
		if (!info->ii_ReadyForInserts)
			continue;
		info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, insertion->estate);
		if (differs)
		{
			insertion->others = lappend(insertion->others, info);
			continue;
		}
		insertion->index_oids[insertion->indexes] = lfirst_oid(lc);
		insertion->index_infos[insertion->indexes++] = info;
	}
	return true;
}

/*
 * In a memory context below the current one.
 */
static Insertion *
prepare(Relation rel)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	Insertion  *insertion = palloc0(sizeof(*insertion));

	insertion->table = RelationGetRelid(rel);
	insertion->estate = estate;
	if (!prepare_indexes(insertion, rel))
		insertion->reason = "indexes";
	else
		insertion->reason = reason_for_statement(rel, insertion);
	if (insertion->reason == NULL)
	{
		insertion->sequence = clerk_identity_sequence(rel, COLUMN_ID);
		insertion->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
												   table_slot_callbacks(rel));
		insertion->target = makeNode(ResultRelInfo);
		InitResultRelInfo(insertion->target, rel, 0, NULL, 0);
	}
	MemoryContextSwitchTo(old);
	return insertion;
}

static void
table_changed(Datum arg, Oid relation)
{
	if (kept == NULL || relation == kept->table || relation == InvalidOid)
	{
		invalidations++;
		kept_is_valid = false;
	}
}

/*
 * What is kept for the table, which is locked; else prepare it.
 */
static Insertion *
insertion_for(Relation rel)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
		registered = true;
	}
	if (kept != NULL && kept_is_valid && kept->table == RelationGetRelid(rel))
		return kept;
	if (kept != NULL)
	{
		Insertion  *stale = kept;

		kept = NULL;
		FreeExecutorState(stale->estate);
	}
	return prepare(rel);
}

/*
 * Only what has inserted a row is complete: ExecConstraints() prepares the
 * constraints at the first one, and may be interrupted by an error.
 */
static void
keep(Insertion *insertion, uint64 before)
{
	if (kept == insertion)
		return;
	MemoryContextSetParent(insertion->estate->es_query_cxt, CacheMemoryContext);
	kept = insertion;
	kept_is_valid = before == invalidations;
}

/*-------------------------------------------------------------------------
 * A row
 *-------------------------------------------------------------------------
 */

/*
 * Does an unfinished request stand before a new one of the lane?
 *
 * As of now, whatever the transaction's snapshot, and without a predicate
 * lock.  An answer that is wrong a moment later does no harm: the request is
 * looked at too early, and put behind then; or too late, by the sweep.
 */
static bool
lane_is_taken(const Insertion *insertion, Relation rel, Datum lane, Datum server)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		taken;

	ScanKeyEntryInitialize(&keys[0], 0, COLUMN_LANE, BTEqualStrategyNumber, InvalidOid,
						   insertion->lane_collation, F_TEXTEQ, lane);
	ScanKeyInit(&keys[1], COLUMN_SERVER, BTEqualStrategyNumber, F_NAMEEQ, server);
	scan = systable_beginscan(rel, insertion->lane_index, true, SnapshotSelf, 2, keys);
	taken = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return taken;
}

static void
set_column(TupleTableSlot *slot, int column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

static void
set_text(TupleTableSlot *slot, int column, const char *value)
{
	if (value != NULL)
		set_column(slot, column, CStringGetTextDatum(value));
}

/*
 * What a statement would insert, with the script's defaults.  The slot points
 * to both names.
 */
static void
fill_slot(const Insertion *insertion, Relation rel, const ClerkNewRequest *request,
		  NameData *server, NameData *role)
{
	TupleTableSlot *slot = insertion->slot;
	TimestampTz next_attempt_at = GetCurrentTransactionStartTimestamp();

	ExecClearTuple(slot);
	memset(slot->tts_values, 0, sizeof(Datum) * COLUMNS);
	memset(slot->tts_isnull, true, sizeof(bool) * COLUMNS);

	namestrcpy(server, request->server);
	namestrcpy(role, request->role);
	set_column(slot, COLUMN_ID, Int64GetDatum(nextval_internal(insertion->sequence, false)));
	set_column(slot, COLUMN_SERVER, NameGetDatum(server));
	set_column(slot, COLUMN_ROLE, NameGetDatum(role));
	set_text(slot, COLUMN_OPERATION, request->operation);
	set_text(slot, COLUMN_KEY, request->key);
	set_text(slot, COLUMN_CONNECTION_ID, request->connection_id);
	if (request->params != NULL)
		set_column(slot, COLUMN_PARAMS, JsonbPGetDatum(request->params));
	set_text(slot, COLUMN_STATE, request->held ? "held" : "queued");
	set_column(slot, COLUMN_ATTEMPTS, Int32GetDatum(0));
	set_text(slot, COLUMN_LANE, request->lane);

	/* A held one has no turn; it gets one when it is released. */
	if (request->lane != NULL && !request->held &&
		lane_is_taken(insertion, rel, slot->tts_values[COLUMN_LANE - 1], NameGetDatum(server)))
		TIMESTAMP_NOEND(next_attempt_at);
	set_column(slot, COLUMN_NEXT_ATTEMPT_AT, TimestampTzGetDatum(next_attempt_at));
	set_column(slot, COLUMN_CREATED_AT, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	set_column(slot, COLUMN_LOOK_UP, BoolGetDatum(false));
	set_column(slot, COLUMN_SCRUBBED, BoolGetDatum(false));
	set_column(slot, COLUMN_XACT, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = insertion->table;
}

static void
insert_into_index(Relation rel, Oid oid, IndexInfo *info, TupleTableSlot *slot)
{
	Relation	index = index_open(oid, RowExclusiveLock);
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	FormIndexDatum(info, slot, NULL, values, isnull);
	(void) index_insert(index, values, isnull, &slot->tts_tid, rel,
						info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
	index_close(index, NoLock);
}

/*
 * Does the row belong into an index that only a statement can maintain?
 */
static bool
belongs_into_others(const Insertion *insertion)
{
	ExprContext *econtext = GetPerTupleExprContext(insertion->estate);
	ListCell   *lc;
	bool		result = false;

	econtext->ecxt_scantuple = insertion->slot;
	foreach(lc, insertion->others)
		result |= ExecQual(((IndexInfo *) lfirst(lc))->ii_PredicateState, econtext);
	ResetPerTupleExprContext(insertion->estate);
	return result;
}

static void
insert_slot(const Insertion *insertion, Relation rel)
{
	TupleTableSlot *slot = insertion->slot;
	ExprContext *econtext = GetPerTupleExprContext(insertion->estate);

	insertion->target->ri_RelationDesc = rel;
	ExecConstraints(insertion->target, slot, insertion->estate);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);

	econtext->ecxt_scantuple = slot;
	for (int i = 0; i < insertion->indexes; i++)
		if (ExecQual(insertion->index_infos[i]->ii_PredicateState, econtext))
			insert_into_index(rel, insertion->index_oids[i], insertion->index_infos[i], slot);
	ResetPerTupleExprContext(insertion->estate);

	/* As after a statement: what follows in this transaction sees the row. */
	CommandCounterIncrement();
}

bool
clerk_insert_request(const ClerkNewRequest *request, int64 *id)
{
	Relation	rel = table_open(clerk_catalog()->requests, RowExclusiveLock);
	uint64		before = invalidations;
	Insertion  *insertion = insertion_for(rel);
	NameData	server;
	NameData	role;

	if (insertion->reason == NULL)
	{
		PreventCommandIfReadOnly("INSERT");
		fill_slot(insertion, rel, request, &server, &role);

		/* Where one does, others will. */
		if (belongs_into_others(insertion))
			insertion->reason = "indexes";
	}
	if (insertion->reason == NULL)
	{
		*id = DatumGetInt64(insertion->slot->tts_values[COLUMN_ID - 1]);
		insert_slot(insertion, rel);
		ExecClearTuple(insertion->slot);
	}
	else
		elog(DEBUG1, "a statement inserts the request, because of the table's %s", insertion->reason);
	keep(insertion, before);
	table_close(rel, NoLock);
	return insertion->reason == NULL;
}

bool
clerk_lane_is_taken(const char *server, const char *lane, bool *taken)
{
	Relation	rel = table_open(clerk_catalog()->requests, AccessShareLock);
	Insertion  *insertion = insertion_for(rel);
	bool		known = insertion->reason == NULL;
	NameData	name;

	namestrcpy(&name, server);
	if (known)
		*taken = lane_is_taken(insertion, rel, CStringGetTextDatum(lane), NameGetDatum(&name));
	if (insertion != kept)
		FreeExecutorState(insertion->estate);
	table_close(rel, NoLock);
	return known;
}
