/*-------------------------------------------------------------------------
 *
 * compare.c
 *		What a row wants beside what its connection has.
 *
 * Clerk does not give back what it was given: it calls some members otherwise,
 * adds others, and chooses what was left open.  A difference is only what the
 * row's next request would change: else reconciling would never come to an end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "miscadmin.h"
#include "trigger/compare.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/numeric.h"

/* What answers call otherwise. */
static const struct
{
	const char *parameter;
	const char *answer;
}			renamed[] =

{
	{"oidc", "oauth_config"},
	{"saml", "saml_connection"},
};

static const char *const never_shown[] = {"oidc.client_secret", "saml.idp_metadata"};

/* Not in every answer, so that nothing follows from their absence. */
static const char *const seldom_shown[] = {"saml.attribute_mapping", "saml.idp_certificates"};

/* What Clerk reads from the identity provider's metadata. */
static const char *const from_metadata[] = {
	"saml.idp_entity_id", "saml.idp_sso_url", "saml.idp_certificate", "saml.idp_certificates"
};

typedef struct Comparison
{
	Jsonb	   *params;
	ClerkDifference visit;
	void	   *arg;
} Comparison;

#define is_one_of(path, paths) contains_path(path, paths, lengthof(paths))

static bool
contains_path(const char *path, const char *const *paths, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(path, paths[i]) == 0)
			return true;
	return false;
}

bool
clerk_is_never_shown(const char *path)
{
	return is_one_of(path, never_shown);
}

/*-------------------------------------------------------------------------
 * Values
 *-------------------------------------------------------------------------
 */

/*
 * NULL for a member that is absent or null.
 */
static JsonbValue *
member(const JsonbValue *object, const char *name)
{
	JsonbValue *value = palloc(sizeof(*value));

	return object != NULL && clerk_jsonb_get(object, name, value) && value->type != jbvNull ? value : NULL;
}

/*
 * What Clerk shows of something that has no value.
 */
static bool
is_empty(const JsonbValue *value)
{
	if (value == NULL || value->type == jbvNull)
		return true;
	if (value->type == jbvString)
		return value->val.string.len == 0;
	if (value->type == jbvBool)
		return !value->val.boolean;
	return value->type == jbvBinary && JsonContainerSize(value->val.binary.data) == 0;
}

/*
 * The letters of a certificate: without its armor, and without white space.
 */
static char *
certificate_letters(const JsonbValue *value)
{
	char	   *text = pnstrdup(value->val.string.val, value->val.string.len);
	char	   *from = strstr(text, "-----BEGIN");
	char	   *end = strstr(text, "-----END");
	char	   *to = text;

	if (from != NULL && end != NULL && (from = strstr(from + 10, "-----")) != NULL)
		*end = '\0';
	for (from = from ? from + 5 : text; *from != '\0'; from++)
		if (!isspace((unsigned char) *from))
			*to++ = *from;
	*to = '\0';
	return text;
}

static int
compare_strings(const void *left, const void *right)
{
	return strcmp(*(char *const *) left, *(char *const *) right);
}

char	  **
clerk_lower_strings(const JsonbValue *array, int *count)
{
	int			size = 0;
	JsonbValue *values = array ? clerk_jsonb_elements(array, &size) : NULL;
	char	  **strings = palloc(sizeof(char *) * (size + 1));

	*count = 0;
	for (int i = 0; i < size; i++)
		if (values[i].type == jbvString)
			strings[(*count)++] = asc_tolower(values[i].val.string.val, values[i].val.string.len);
	return strings;
}

/*
 * Domains are a set.
 */
static bool
same_domains(const JsonbValue *wanted, const JsonbValue *actual)
{
	int			counts[2];
	char	  **sets[2] = {clerk_lower_strings(wanted, &counts[0]), clerk_lower_strings(actual, &counts[1])};

	for (int i = 0; i < 2; i++)
	{
		int			left = 0;

		qsort(sets[i], counts[i], sizeof(char *), compare_strings);
		for (int n = 0; n < counts[i]; n++)
			if (left == 0 || strcmp(sets[i][left - 1], sets[i][n]) != 0)
				sets[i][left++] = sets[i][n];
		counts[i] = left;
	}
	for (int n = 0; counts[0] == counts[1] && n < counts[0]; n++)
		if (strcmp(sets[0][n], sets[1][n]) != 0)
			return false;
	return counts[0] == counts[1];
}

/*
 * Has the actual value all that is wanted?  Members that Clerk adds to an
 * object do not count.
 */
static bool
has_wanted(const JsonbValue *wanted, const JsonbValue *actual)
{
	int			count;
	int			found = 0;

	check_stack_depth();
	if (clerk_jsonb_type(wanted) == CLERK_JSON_OBJECT)
	{
		JsonbPair  *pairs = clerk_jsonb_members(wanted, &count);

		for (int i = 0; i < count; i++)
			if (!has_wanted(&pairs[i].value, member(actual, pnstrdup(pairs[i].key.val.string.val, pairs[i].key.val.string.len))))
				return false;
		return true;
	}
	if (clerk_jsonb_type(wanted) == CLERK_JSON_ARRAY)
	{
		JsonbValue *elements = clerk_jsonb_elements(wanted, &count);
		JsonbValue *others = actual ? clerk_jsonb_elements(actual, &found) : NULL;

		for (int i = 0; i < count && count == found; i++)
			if (!has_wanted(&elements[i], &others[i]))
				return false;
		return count == found && (count > 0 || is_empty(actual));
	}
	if (is_empty(wanted) || actual == NULL || actual->type != wanted->type || wanted->type == jbvBinary)
		return is_empty(wanted) && is_empty(actual);
	if (wanted->type == jbvNumeric)
		return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(wanted->val.numeric),
												NumericGetDatum(actual->val.numeric)));
	if (wanted->type == jbvBool)
		return wanted->val.boolean == actual->val.boolean;
	return wanted->val.string.len == actual->val.string.len &&
		memcmp(wanted->val.string.val, actual->val.string.val, wanted->val.string.len) == 0;
}

/*-------------------------------------------------------------------------
 * Parameters
 *-------------------------------------------------------------------------
 */

/*
 * Does the null of a parameter remove the value that Clerk shows?  A boolean
 * then gets Clerk's default, an organization stays, and what is read from the
 * metadata comes back.
 */
static bool
null_removes(const Comparison *comparison, const char *path, const JsonbValue *actual)
{
	JsonbValue	params = clerk_jsonb_value(comparison->params);
	JsonbValue *saml;

	if (is_empty(actual) || actual->type == jbvBool || strcmp(path, "organization_id") == 0)
		return false;
	if (!is_one_of(path, from_metadata))
		return true;
	saml = member(&params, "saml");
	return member(saml, "idp_metadata_url") == NULL && member(saml, "idp_metadata") == NULL;
}

static bool
is_same(const Comparison *comparison, const char *path, JsonbValue *wanted, JsonbValue *actual)
{
	if (is_one_of(path, never_shown) || (actual == NULL && is_one_of(path, seldom_shown)))
		return true;
	if (wanted == NULL)
		return !null_removes(comparison, path, actual);
	if (strcmp(path, "domains") == 0)
		return same_domains(wanted, actual);
	if (strcmp(path, "saml.idp_certificate") == 0 && wanted->type == jbvString && actual != NULL && actual->type == jbvString)
		return strcmp(certificate_letters(wanted), certificate_letters(actual)) == 0;
	return has_wanted(wanted, actual);
}

static void
compare_members(const Comparison *comparison, const char *above, const JsonbValue *object, const JsonbValue *connection)
{
	int			count;
	JsonbPair  *pairs = clerk_jsonb_members(object, &count);

	for (int n = 0; n < count; n++)
	{
		const char *shown = pnstrdup(pairs[n].key.val.string.val, pairs[n].key.val.string.len);
		char	   *path = psprintf("%s%s", above, shown);
		JsonbValue *wanted = pairs[n].value.type == jbvNull ? NULL : &pairs[n].value;
		JsonbValue *actual;

		for (size_t i = 0; i < lengthof(renamed); i++)
			if (strcmp(path, renamed[i].parameter) == 0)
				shown = renamed[i].answer;
		actual = member(connection, shown);
		if (wanted != NULL && clerk_jsonb_type(wanted) == CLERK_JSON_OBJECT &&
			!(actual == NULL && is_one_of(path, seldom_shown)))
			compare_members(comparison, psprintf("%s.", path), wanted, actual);
		else if (!is_same(comparison, path, wanted, actual))
			comparison->visit(path, wanted, actual, comparison->arg);
	}
}

void
clerk_compare(Jsonb *params, Jsonb *connection, ClerkDifference visit, void *arg)
{
	Comparison	comparison = {.params = params,.visit = visit,.arg = arg};
	JsonbValue	wanted = clerk_jsonb_value(params);
	JsonbValue	actual = clerk_jsonb_value(connection);

	compare_members(&comparison, "", &wanted, &actual);
}
