/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *		Clerk's endpoints for enterprise connections: calls and their results.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/json.h"
#include "base/jsonb_read.h"
#include "base/url.h"
#include "catalog/pg_type.h"
#include "clerk/endpoint.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define COLLECTION "/enterprise_connections"

/* What must be in a successful answer for it to be Clerk's. */
typedef enum AnswerShape
{
	SHAPE_CONNECTION,			/* what is sure of a connection; its id is
								 * that of the call */
	SHAPE_CONNECTIONS,			/* an object with an array "data", of
								 * connections */
	SHAPE_PAGE,					/* the same, of whatever */
	SHAPE_DELETED,				/* the object and the id of the call, and
								 * "deleted": true */
	SHAPE_URL					/* an object with a string "url" */
} AnswerShape;

typedef struct Endpoint
{
	const char *method;
	bool		has_id;
	const char *suffix;			/* of the path */
	AnswerShape shape;
	ClerkCounter counter;
	const char *what;			/* "could not ..." */
	ClerkListingInfo listing;
} Endpoint;

static const Endpoint endpoints[] = {
	[CLERK_CREATE] = {"POST", false, "", SHAPE_CONNECTION, CLERK_COUNT_CREATES, "create the enterprise connection", {0}},
	[CLERK_LIST] = {"GET", false, "", SHAPE_CONNECTIONS, CLERK_COUNT_LISTS, "list the enterprise connections",
	{"list_enterprise_connections", "enterprise connection", true, {{"organization_id", TEXTOID}, {"active", BOOLOID}}}},
	[CLERK_GET] = {"GET", true, "", SHAPE_CONNECTION, CLERK_COUNT_GETS, "get the enterprise connection", {0}},
	[CLERK_UPDATE] = {"PATCH", true, "", SHAPE_CONNECTION, CLERK_COUNT_UPDATES, "update the enterprise connection", {0}},
	[CLERK_DELETE] = {"DELETE", true, "", SHAPE_DELETED, CLERK_COUNT_DELETES, "delete the enterprise connection", {0}},
	[CLERK_CREATE_TEST_RUN] = {"POST", true, "/test_runs", SHAPE_URL, CLERK_COUNT_TEST_RUNS, "create a test run of the enterprise connection", {0}},

	/* What a connection has many of: a row here and a CREATE FUNCTION. */
	{"GET", true, "/test_runs", SHAPE_PAGE, CLERK_COUNT_TEST_RUNS, "list the test runs of the enterprise connection",
	{"list_enterprise_connection_test_runs", "test run", false, {{"status", TEXTARRAYOID}}}},
};

bool
clerk_api_has_id(ClerkEndpoint endpoint)
{
	return endpoints[endpoint].has_id;
}

ClerkCounter
clerk_api_counter(ClerkEndpoint endpoint)
{
	return endpoints[endpoint].counter;
}

const char *
clerk_api_what(ClerkEndpoint endpoint)
{
	return endpoints[endpoint].what;
}

const ClerkListingInfo *
clerk_api_listing(ClerkEndpoint endpoint)
{
	return &endpoints[endpoint].listing;
}

ClerkEndpoint
clerk_api_listed_by(const char *function)
{
	for (size_t i = 0; i < lengthof(endpoints); i++)
		if (endpoints[i].listing.function != NULL && strcmp(endpoints[i].listing.function, function) == 0)
			return (ClerkEndpoint) i;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("no listing of Clerk's has the name %s", function),
			 errhint("Give the function the name that it had when the extension was created.")));
}

bool
clerk_api_creates(ClerkEndpoint endpoint)
{
	return endpoint == CLERK_CREATE;
}

void
clerk_api_check_length(const char *what, const char *value)
{
	if (strlen(value) > CLERK_MAX_NAME_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is longer than %d bytes", what, CLERK_MAX_NAME_LENGTH),
				 errdetail("It has %zu bytes.", strlen(value))));
}

/*
 * An id is opaque: whatever it holds, it must address exactly itself.
 */
static char *
encoded_id(const char *id)
{
	char	   *utf8;
	char	   *segment;

	clerk_api_check_length("argument \"id\"", id);
	utf8 = pg_server_to_any(id, (int) strlen(id), PG_UTF8);
	segment = clerk_url_segment(utf8);
	if (segment == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the id of an enterprise connection", id)));
	return segment;
}

void
clerk_api_check_id(const char *id)
{
	(void) encoded_id(id);
}

static char *
build_url(const ClerkCall *call)
{
	const Endpoint *endpoint = &endpoints[call->endpoint];
	StringInfoData url;

	initStringInfo(&url);
	appendStringInfo(&url, "%s" COLLECTION, call->settings->base_url);
	if (endpoint->has_id)
		appendStringInfo(&url, "/%s", encoded_id(call->id));
	appendStringInfoString(&url, endpoint->suffix);
	if (call->query != NULL && *call->query != '\0')
		appendStringInfo(&url, "?%s", call->query);
	return url.data;
}

static List *
build_headers(const ClerkCall *call)
{
	List	   *headers = NIL;

	headers = lappend(headers, psprintf("Authorization: Bearer %s", call->settings->secret_key));
	headers = lappend(headers, psprintf("Clerk-API-Version: %s", call->settings->api_version));
	headers = lappend(headers, "User-Agent: pg_clerk/" CLERK_VERSION " (PostgreSQL " PG_MAJORVERSION ")");
	headers = lappend(headers, "Accept: application/json");

	/* A compressed answer of a few kilobytes can unpack to gigabytes. */
	headers = lappend(headers, "Accept-Encoding: identity");
	if (call->body != NULL)
		headers = lappend(headers, "Content-Type: application/json");
	return headers;
}

void
clerk_call_build(ClerkCall *call)
{
	const ClerkSettings *settings = call->settings;
	const Endpoint *endpoint = &endpoints[call->endpoint];
	ClerkHttpRequest *request = palloc0(sizeof(*request));

	request->method = endpoint->method;
	request->url = build_url(call);
	request->headers = build_headers(call);
	if (call->body != NULL)
	{
		request->body = call->body->text;
		request->body_len = call->body->len;
	}
	else if (strcmp(endpoint->method, "POST") == 0)
		request->body = "";
	request->timeout = settings->timeout;
	request->connect_timeout = settings->connect_timeout;
	request->max_answer = settings->max_response_size;
	request->ca_file = settings->ca_file;
	request->proxy = settings->proxy;
	request->proxy_user = settings->proxy_user;
	request->proxy_password = settings->proxy_password;
	call->request = request;
}

static JsonbValue *
member(Jsonb *object, const char *name, JsonbValue *buf)
{
	return getKeyJsonValueFromContainer(&object->root, name, (int) strlen(name), buf);
}

/*
 * Can a row have this id?  Otherwise an id is opaque: Clerk decides what is in it.
 */
static const char *
id_fault(const char *id)
{
	if (id == NULL || *id == '\0')
		return "has no member \"id\"";
	if (strlen(id) > CLERK_MAX_ID_LENGTH)
		return "has an id of more than " CppAsString2(CLERK_MAX_ID_LENGTH) " bytes";

	/* Its connection could be neither updated nor deleted, nor read. */
	if (clerk_url_segment(id) == NULL)
		return "has an id that no request can name";
	return NULL;
}

/*
 * An object of Clerk's says what it is, and which one.
 */
static const char *
object_fault(Jsonb *object)
{
	const char *kind;

	if (!JB_ROOT_IS_OBJECT(object))
		return "is not a JSON object";
	kind = clerk_jsonb_string(object, "object");
	if (kind == NULL || strcmp(kind, "enterprise_connection") != 0)
		return "is not about an enterprise connection";
	return id_fault(clerk_jsonb_string(object, "id"));
}

/*
 * The same for an element of a listing, which need not say what it is: it is in
 * a list of connections.
 */
static const char *
element_fault(Jsonb *element)
{
	JsonbValue	buf;

	if (JB_ROOT_IS_OBJECT(element) && member(element, "object", &buf) == NULL)
		return id_fault(clerk_jsonb_string(element, "id"));
	return object_fault(element);
}

/*
 * Is the answer what the endpoint promises?  Returns what is wrong, to follow
 * "the answer", or NULL.
 */
static const char *
shape_fault(const ClerkCall *call, Jsonb *answer)
{
	AnswerShape shape = endpoints[call->endpoint].shape;
	JsonbValue	buf;
	JsonbValue *deleted;
	const char *url;
	const char *fault;

	if (shape == SHAPE_URL)
	{
		url = JB_ROOT_IS_OBJECT(answer) ? clerk_jsonb_string(answer, "url") : NULL;
		return url == NULL || *url == '\0' ? "has no member \"url\"" : NULL;
	}
	fault = object_fault(answer);
	if (fault != NULL)
		return fault;
	if (call->id != NULL && strcmp(clerk_jsonb_string(answer, "id"), call->id) != 0)
		return "is about another connection";
	if (shape == SHAPE_DELETED)
	{
		deleted = member(answer, "deleted", &buf);
		return deleted == NULL || deleted->type != jbvBool || !deleted->val.boolean ?
			"does not say that it is deleted" : NULL;
	}
	if (clerk_jsonb_string(answer, "name") == NULL)
		return "has no member \"name\"";
	if (clerk_jsonb_string(answer, "provider") == NULL)
		return "has no member \"provider\"";
	return NULL;
}

/*
 * The result of a successful answer, or NULL with *fault set.
 */
static Jsonb *
read_result(const ClerkCall *call, const ClerkHttpRequest *request, const char **fault, bool *unstorable)
{
	Jsonb	   *result = clerk_jsonb_read(request->answer, request->answer_len, fault);

	if (result != NULL)
		*fault = shape_fault(call, result);
	else
		*unstorable = clerk_jsonb_is_sound(request->answer, request->answer_len);
	return *fault ? NULL : result;
}

static int64
total_count(Jsonb *answer)
{
	JsonbValue	buf;
	JsonbValue *value = member(answer, "total_count", &buf);
	double		total;

	if (value == NULL || value->type != jbvNumeric)
		return -1;
	total = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(value->val.numeric)));
	return total >= 0 && total < 1e15 ? (int64) total : -1;
}

/*
 * An element of the array "data": one of the parts, or a scalar.
 */
static ClerkJsonPart
page_element(JsonbContainer *data, int n, const ClerkJsonPart *parts)
{
	JsonbValue *element = getIthJsonbValueFromContainer(data, n);
	JsonbValue *number;

	if (element->type != jbvBinary)
		return (ClerkJsonPart) {.jsonb = JsonbValueToJsonb(element)};
	number = getIthJsonbValueFromContainer(element->val.binary.data, 0);
	return parts[DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(number->val.numeric)))];
}

static void
add_element(ClerkPage *page, const ClerkCall *call, const ClerkJsonPart *part, int position)
{
	const char *fault = part->fault;
	ClerkLeftOut *left_out;

	if (part->jsonb != NULL && endpoints[call->endpoint].shape == SHAPE_CONNECTIONS)
		fault = element_fault(part->jsonb);
	if (fault == NULL)
	{
		page->elements[page->count++] = part->jsonb;
		return;
	}
	left_out = palloc0(sizeof(*left_out));
	left_out->fault = fault;
	left_out->position = position;
	if (part->text != NULL)
		left_out->id = clerk_json_salvage(part->text, part->len, "id");
	page->left_out = lappend(page->left_out, left_out);
}

/*
 * The same for a listing.  An element that cannot be used is left out, and does
 * not affect the others; but if none can, this is not a list of connections.
 */
static ClerkPage *
read_page(const ClerkCall *call, const ClerkHttpRequest *request, const char **fault)
{
	ClerkJsonPart *parts;
	Jsonb	   *answer = clerk_jsonb_read_parts(request->answer, request->answer_len, &parts, fault);
	JsonbValue	buf;
	JsonbValue *data;
	ClerkPage  *page;
	int			count;
	bool		storable = false;

	if (answer == NULL)
		return NULL;
	data = JB_ROOT_IS_OBJECT(answer) ? member(answer, "data", &buf) : NULL;
	if (data == NULL || data->type != jbvBinary || !JsonContainerIsArray(data->val.binary.data))
	{
		*fault = JB_ROOT_IS_OBJECT(answer) ? "has no array \"data\"" : "is not a JSON object";
		return NULL;
	}
	count = (int) JsonContainerSize(data->val.binary.data);
	page = palloc0(sizeof(*page));
	page->total = total_count(answer);
	page->received = count;
	page->elements = palloc(sizeof(Jsonb *) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		ClerkJsonPart part = page_element(data->val.binary.data, i, parts);

		storable |= part.jsonb != NULL;
		add_element(page, call, &part, i);
	}
	if (page->count == 0 && storable)
	{
		*fault = "is not a list of enterprise connections";
		return NULL;
	}
	return page;
}

void
clerk_call_held_back(ClerkCall *call, int64 wait)
{
	ClerkReport *report = palloc0(sizeof(*report));

	report->sqlerrcode = MAKE_SQLSTATE('K', 'C', '4', '2', '9');
	report->message = psprintf("could not %s: Clerk has asked for no more requests for " INT64_FORMAT " s",
							   endpoints[call->endpoint].what, (wait + 999) / 1000);
	report->hint = psprintf("Nothing was sent. Try again later; a change of server %s, by ALTER SERVER, ends the wait.",
							quote_identifier(call->settings->server_name));
	report->retry_after = wait;
	report->retry = CLERK_RETRY_NEVER;
	call->result = NULL;
	call->page = NULL;
	call->report = report;
}

static void
read_answer(ClerkCall *call)
{
	const ClerkSettings *settings = call->settings;
	const ClerkHttpRequest *request = call->request;
	const Endpoint *endpoint = &endpoints[call->endpoint];
	ClerkReportSubject subject = {
		.what = endpoint->what,
		.creates = clerk_api_creates(call->endpoint),
		.reads = strcmp(endpoint->method, "GET") == 0,
		.posts = strcmp(endpoint->method, "POST") == 0,
		.server_name = settings->server_name,
		.base_url = settings->base_url,
		.timeout = settings->timeout,
		.max_response_size = settings->max_response_size,
		.secrets = lcons(settings->secret_key, list_copy(call->secrets)),
	};
	const char *fault = NULL;
	bool		unstorable = false;

	if (settings->proxy_password != NULL)
		subject.secrets = lappend(subject.secrets, settings->proxy_password);
	call->status = request->status;
	call->result = NULL;
	call->page = NULL;
	call->report = NULL;
	if (request->outcome != CLERK_HTTP_ANSWERED || request->status / 100 != 2)
	{
		call->report = clerk_report_failure(&subject, request);
		return;
	}
	if (request->answer_len == 0)
		fault = "is empty";
	else if ((fault = clerk_report_packed(&subject, request)) != NULL)
		 /* not to be read */ ;
	else if (endpoint->shape == SHAPE_PAGE || endpoint->shape == SHAPE_CONNECTIONS)
		call->page = read_page(call, request, &fault);
	else
		call->result = read_result(call, request, &fault, &unstorable);
	if (fault != NULL)
	{
		call->report = clerk_report_unreadable(&subject, request, fault);
		call->report->unstorable = unstorable;
		if (unstorable)
			call->report->hint = endpoint->shape == SHAPE_URL ? NULL :
				"The connection exists at Clerk. Change there what this database cannot store, or use one whose encoding is UTF8.";
	}
}

void
clerk_call_read(ClerkCall *call)
{
	read_answer(call);
	if (call->report != NULL && call->report->retry == CLERK_RETRY_IN_DOUBT)
		clerk_count(call->settings->statistics, CLERK_COUNT_IN_DOUBT, 1);
	clerk_call_release(call);
}

void
clerk_call_release(ClerkCall *call)
{
	if (call->request != NULL)
		clerk_http_release(call->request);
	call->request = NULL;
}
