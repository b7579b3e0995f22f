/*-------------------------------------------------------------------------
 *
 * search.c
 *		Finding a connection through a view that is a security barrier.
 *
 * The planner moves a condition into such a view only if it is leakproof, which
 * "domains @> ARRAY['acme.example']" is not, as the operator is for arrays of
 * any type, nor "key = 'org:' || o.id", as || is a function that might raise an
 * error.  So it would compute all of the view and then look for the domain, for
 * seconds where there are a million connections.
 *
 * The view has a condition of its own, enterprise_connection_search(lane, key, id,
 * organization_id, name, domains), which is always true.  When the view is
 * planned, the support function below looks at the query that reads it, and if
 * that asks for one of these, it puts the same question into the view in the
 * place of the call: an index can answer it.  The query's condition stays where it
 * is, so this only ever leaves out rows that it would leave out.  Nothing of a row
 * that is not the reader's can leak, since what is put in is PostgreSQL's own
 * operators, with values that do not depend on the row, and no function of the
 * reader's sees one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "tables/search.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(enterprise_connection_domains);
PG_FUNCTION_INFO_V1(enterprise_connection_search);
PG_FUNCTION_INFO_V1(enterprise_connection_search_support);

/* pg_operator: = and || of texts, &&, @> and <@ of arrays, <= and > of integers. */
#define TEXT_EQUALS 98
#define TEXT_CONCATENATE 654
#define ARRAY_OVERLAPS 2750
#define ARRAY_CONTAINS 2751
#define ARRAY_CONTAINED 2752
#define INTEGER_AT_MOST 523
#define INTEGER_ABOVE 521

/* Longer lists of domains are in another index; as in tracking.sql. */
#define LONG_DOMAINS 5000

/* The arguments of the call. */
enum
{
	ARGUMENT_LANE,
	ARGUMENT_KEY,
	ARGUMENT_ID,
	ARGUMENT_ORGANIZATION_ID,
	ARGUMENT_NAME,
	ARGUMENT_DOMAINS,
	ARGUMENTS
};

Datum
clerk_wanted_domains(Jsonb *params)
{
	JsonbValue	buf;
	JsonbValue *array = getKeyJsonValueFromContainer(&params->root, "domains", 7, &buf);
	Datum	   *domains;
	int			count = 0;

	if (array == NULL || array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data))
		return PointerGetDatum(construct_empty_array(TEXTOID));
	domains = palloc(sizeof(Datum) * (JsonContainerSize(array->val.binary.data) + 1));
	for (uint32 i = 0; i < JsonContainerSize(array->val.binary.data); i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (value->type == jbvString)
			domains[count++] = CStringGetTextDatum(asc_tolower(value->val.string.val, value->val.string.len));
	}
	return PointerGetDatum(construct_array(domains, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * enterprise_connection_domains(params jsonb)
 */
Datum
enterprise_connection_domains(PG_FUNCTION_ARGS)
{
	Jsonb	   *params = PG_GETARG_JSONB_P(0);

	if (!JB_ROOT_IS_OBJECT(params))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(clerk_wanted_domains(params));
}

/*
 * enterprise_connection_search(lane text, key text, id text, organization_id text, name text, domains text[])
 */
Datum
enterprise_connection_search(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

/*
 * Conditions that must all hold, as a list.
 */
static List *
conditions_of(Node *quals)
{
	if (quals == NULL)
		return NIL;
	if (IsA(quals, List))
		return (List *) quals;
	return is_andclause(quals) ? ((BoolExpr *) quals)->args : list_make1(quals);
}

/*
 * The call in a query's conditions; NULL if there is none.
 */
static FuncExpr *
find_call(const Query *query, Oid function)
{
	ListCell   *lc;

	foreach(lc, query->jointree != NULL ? conditions_of(query->jointree->quals) : NIL)
	{
		Node	   *condition = lfirst(lc);

		if (IsA(condition, FuncExpr) && ((FuncExpr *) condition)->funcid == function)
			return (FuncExpr *) condition;
	}
	return NULL;
}

/*
 * The view in the query that reads it: its number, or 0 if the query reads it
 * twice, as which of them is being planned cannot be told; and the numbers of
 * those of its columns that the call has for arguments, 0 for none.
 */
static Index
find_view(PlannerInfo *reader, Oid function, AttrNumber *columns)
{
	Index		view = 0;
	Index		number = 0;
	ListCell   *lc;

	foreach(lc, reader->parse->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		FuncExpr   *call = NULL;
		ListCell   *target;

		number++;
		if (rte->rtekind == RTE_SUBQUERY && rte->subquery != NULL)
			call = find_call(rte->subquery, function);
		if (call == NULL)
			continue;
		if (view != 0)
			return 0;
		view = number;
		memset(columns, 0, sizeof(AttrNumber) * ARGUMENTS);
		foreach(target, rte->subquery->targetList)
		{
			TargetEntry *entry = lfirst_node(TargetEntry, target);

			for (int i = 0; i < ARGUMENTS && !entry->resjunk; i++)
				if (equal(entry->expr, list_nth(call->args, i)))
					columns[i] = entry->resno;
		}
	}
	return view;
}

/*
 * The column of the view where a comparison has it; NULL if it is about others.
 */
static Node *
find_column(Node *condition, Index view, AttrNumber column)
{
	ListCell   *lc;

	foreach(lc, IsA(condition, OpExpr) ? ((OpExpr *) condition)->args : NIL)
	{
		Var		   *var = lfirst(lc);

		if (IsA(var, Var) && (int) var->varno == (int) view && var->varattno == column && var->varlevelsup == 0)
			return (Node *) var;
	}
	return NULL;
}

/*
 * The same for each row of the query?
 */
static bool
is_fixed(Node *node, Oid type)
{
	return exprType(node) == type && !contain_var_clause(node) && !contain_volatile_functions(node) &&
		!contain_subplans(node);
}

static Node *
operate(Oid operator, Oid result, Node *left, Node *right, Oid collation)
{
	OpExpr	   *op = (OpExpr *) make_opclause(operator, result, false, (Expr *) copyObject(left), (Expr *) copyObject(right),
											  result == TEXTOID ? collation : InvalidOid, collation);

	set_opfuncid(op);
	return (Node *) op;
}

static Node *
length_of(Node *domains, Oid compare)
{
	Node	   *length = (Node *) makeFuncExpr(F_CARDINALITY, INT4OID, list_make1(copyObject(domains)), InvalidOid,
											   DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);

	return operate(compare, BOOLOID, length,
				   (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(LONG_DOMAINS), false, true), InvalidOid);
}

/*
 * Does an array have elements, as far as the planner can know?
 */
static bool
has_elements(Node *array)
{
	if (IsA(array, ArrayExpr))
		return ((ArrayExpr *) array)->elements != NIL && !((ArrayExpr *) array)->multidims;
	return IsA(array, Const) && !((Const *) array)->constisnull &&
		ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(((Const *) array)->constvalue)), ARR_DIMS(DatumGetArrayTypeP(((Const *) array)->constvalue))) > 0;
}

/*
 * Does the list have the domains?  In words that the two indexes can answer; with
 * @> and <@, lest the planner takes out what the two sides have in common.
 *
 * The planner knows little of rare elements and expects thousands of rows, for
 * which it would start workers and a compiler.  && says the same once more, and
 * has it expect few.
 */
static Node *
has_domains(Node *domains, Node *wanted)
{
	Node	   *result = (Node *) make_orclause(list_make2(
														   make_andclause(list_make2(operate(ARRAY_CONTAINS, BOOLOID, domains, wanted, DEFAULT_COLLATION_OID), length_of(domains, INTEGER_AT_MOST))),
														   make_andclause(list_make2(operate(ARRAY_CONTAINED, BOOLOID, wanted, domains, DEFAULT_COLLATION_OID), length_of(domains, INTEGER_ABOVE)))));

	if (!has_elements(wanted))
		return result;
	return (Node *) make_andclause(list_make2(result, operate(ARRAY_OVERLAPS, BOOLOID, domains, wanted, DEFAULT_COLLATION_OID)));
}

/*
 * The lane of a key.  What is tracked has no lane here.
 */
static Node *
is_lane_of(Node *lane, Node *key)
{
	Node	   *prefix = (Node *) makeConst(TEXTOID, -1, C_COLLATION_OID, -1, CStringGetTextDatum("key "), false, false);
	NullTest   *none = makeNode(NullTest);

	none->arg = copyObject((Expr *) lane);
	none->nulltesttype = IS_NULL;
	none->location = -1;
	return (Node *) make_orclause(list_make2(none, operate(TEXT_EQUALS, BOOLOID, lane,
														   operate(TEXT_CONCATENATE, TEXTOID, prefix, key, C_COLLATION_OID), C_COLLATION_OID)));
}

/*
 * What a condition asks of a column: "text = value", "domains @> value" or
 * "domain = ANY (domains)"; NULL if nothing.
 */
static Node *
asked_value(Node *condition, Node *column, bool is_domains)
{
	OpExpr	   *op = (OpExpr *) condition;
	Node	   *value = NULL;

	if (IsA(condition, ScalarArrayOpExpr) && is_domains)
	{
		ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) condition;
		ArrayExpr  *array;

		if (!any->useOr || any->opno != TEXT_EQUALS || !equal(lsecond(any->args), column) || !is_fixed(linitial(any->args), TEXTOID))
			return NULL;
		array = makeNode(ArrayExpr);
		array->array_typeid = TEXTARRAYOID;
		array->array_collid = DEFAULT_COLLATION_OID;
		array->element_typeid = TEXTOID;
		array->elements = list_make1(copyObject(linitial(any->args)));
		array->location = -1;
		return (Node *) array;
	}
	if (!IsA(condition, OpExpr) || list_length(op->args) != 2)
		return NULL;
	if (op->opno == (is_domains ? ARRAY_CONTAINS : TEXT_EQUALS) && equal(linitial(op->args), column))
		value = lsecond(op->args);
	else if (op->opno == (is_domains ? ARRAY_CONTAINED : TEXT_EQUALS) && equal(lsecond(op->args), column))
		value = linitial(op->args);
	return value != NULL && is_fixed(value, is_domains ? TEXTARRAYOID : TEXTOID) ? value : NULL;
}

/*
 * Put in what is asked of a column.
 */
static List *
add_question(List *questions, List *arguments, int argument, Node *value)
{
	Node	   *column = list_nth(arguments, argument);

	if (argument == ARGUMENT_DOMAINS)
		return lappend(questions, has_domains(column, value));
	if (argument == ARGUMENT_KEY)
		questions = lappend(questions, is_lane_of(list_nth(arguments, ARGUMENT_LANE), value));
	return lappend(questions, operate(TEXT_EQUALS, BOOLOID, column, value, exprCollation(column)));
}

/*
 * What the query that reads the view asks for, as conditions.  What is leakproof
 * is in the view already, but for a key it can be said better, and for a domain.
 */
static List *
questions_of(SupportRequestSimplify *request)
{
	PlannerInfo *reader = request->root->parent_root;
	Query	   *view = request->root->parse;
	List	   *arguments = request->fcall->args;
	AttrNumber	columns[ARGUMENTS];
	Index		number = reader != NULL && reader->simple_rel_array != NULL ? find_view(reader, request->fcall->funcid, columns) : 0;
	List	   *questions = NIL;
	ListCell   *lc;

	foreach(lc, view->jointree != NULL ? conditions_of(view->jointree->quals) : NIL)
		for (int i = ARGUMENT_KEY; i < ARGUMENTS; i++)
	{
		Node	   *value = asked_value(lfirst(lc), list_nth(arguments, i), i == ARGUMENT_DOMAINS);

		if (value != NULL)
			questions = add_question(questions, arguments, i, value);
	}
	if (number == 0 || (int) number >= reader->simple_rel_array_size || reader->simple_rel_array[number] == NULL)
		return questions;
	foreach(lc, reader->simple_rel_array[number]->baserestrictinfo)
		for (int i = ARGUMENT_KEY; i < ARGUMENTS; i++)
	{
		Node	   *condition = (Node *) lfirst_node(RestrictInfo, lc)->clause;
		Node	   *column = columns[i] != 0 ? find_column(condition, number, columns[i]) : NULL;
		Node	   *value = column ? asked_value(condition, column, i == ARGUMENT_DOMAINS) : NULL;

		if (value != NULL)
			questions = add_question(questions, arguments, i, value);
	}
	return questions;
}

/*
 * enterprise_connection_search_support(internal)
 */
Datum
enterprise_connection_search_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	List	   *questions;

	if (!IsA(request, SupportRequestSimplify) || ((SupportRequestSimplify *) request)->root == NULL)
		PG_RETURN_POINTER(NULL);
	questions = questions_of((SupportRequestSimplify *) request);
	PG_RETURN_POINTER(questions == NIL ? makeBoolConst(true, false) :
					  list_length(questions) == 1 ? linitial(questions) : (Node *) make_andclause(questions));
}
