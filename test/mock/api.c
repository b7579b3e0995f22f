/*-------------------------------------------------------------------------
 *
 * api.c
 *		Clerk's endpoints, free of HTTP: a request in, an answer out.
 *
 *-------------------------------------------------------------------------
 */
#include "api.h"

#include <string.h>


#include "object.h"
#include "settings.h"
#include "store.h"
#include "validate.h"

#define API_VERSION		"2026-05-12"
#define COLLECTION		"enterprise_connections"
#define TEST_RUNS		"test_runs"
#define TEST_FLOW_URL	"https://clerk.app.example/v1/enterprise_connection_test_runs/start"
#define LIMIT_DEFAULT	10
#define LIMIT_MAX		500

/* Which resource a path names. */
typedef enum Resource
{
	RES_NONE,
	RES_COLLECTION,
	RES_CONNECTION,
	RES_TEST_RUNS
} Resource;

/* One request on its way through an endpoint. */
typedef struct Call
{
	const ApiRequest *request;
	const char *query;
	char	   *id;				/* NULL: none in the path */
	Conn	   *conn;
	struct json_object *body;
	Answer	   *answer;
} Call;

typedef struct Endpoint
{
	Resource	resource;
	const char *method;
	bool		wants_body;
	bool		refuses_body;
	void		(*run) (Call *call);
} Endpoint;

typedef struct Page
{
	gint64		limit;
	gint64		offset;
} Page;

static void run_create(Call *call);
static void run_list(Call *call);
static void run_get(Call *call);
static void run_update(Call *call);
static void run_delete(Call *call);
static void run_create_test_run(Call *call);
static void run_list_test_runs(Call *call);

static const Endpoint endpoints[] = {
	{RES_COLLECTION, "POST", true, false, run_create},
	{RES_COLLECTION, "GET", false, false, run_list},
	{RES_CONNECTION, "GET", false, false, run_get},
	{RES_CONNECTION, "PATCH", true, false, run_update},
	{RES_CONNECTION, "DELETE", false, true, run_delete},
	{RES_TEST_RUNS, "POST", false, false, run_create_test_run},
	{RES_TEST_RUNS, "GET", false, false, run_list_test_runs},
	{RES_NONE, NULL, false, false, NULL}
};

static const char *const allowed_methods[] = {
	[RES_NONE] = "",
	[RES_COLLECTION] = "GET, POST",
	[RES_CONNECTION] = "GET, PATCH, DELETE",
	[RES_TEST_RUNS] = "GET, POST"
};

/*
 * Targets
 */
char *
api_path(const char *target, const char **query)
{
	size_t		len = strcspn(target, "?");
	g_autofree char *path = g_strndup(target, len);

	/* a prefix may have a /v1/ of its own, and so may an id */
	const char *found = strstr(path, "/v1/" COLLECTION);

	*query = target[len] == '?' ? target + len + 1 : NULL;
	if (found == NULL)
		found = strstr(path, "/v1/");
	return found ? g_strdup(found + strlen("/v1")) : NULL;
}

/* Split on '/' first, decode then: an id may hold an escaped slash. */
static Resource
find_resource(const char *target, Call *call)
{
	g_autofree char *path = api_path(target, &call->query);
	g_auto(GStrv) parts = g_strsplit(path ? path : "", "/", 5);
	guint		n = g_strv_length(parts);

	if (n < 2 || n > 4 || strcmp(parts[1], COLLECTION) != 0)
		return RES_NONE;
	if (n == 2)
		return RES_COLLECTION;
	call->id = g_uri_unescape_string(parts[2], NULL);
	if (call->id == NULL)		/* no escape, or of a NUL: such an id there is
								 * not */
		call->id = g_strdup(parts[2]);
	if (*call->id == '\0')
		return RES_NONE;
	if (n == 3)
		return RES_CONNECTION;
	return strcmp(parts[3], TEST_RUNS) == 0 ? RES_TEST_RUNS : RES_NONE;
}

/*
 * Checks before an endpoint runs; each answers and returns false when it fails
 */
static bool
check_key(Call *call)
{
	const char *header = call->request->authorization;

	if (header == NULL || g_ascii_strncasecmp(header, "Bearer ", 7) != 0 || header[7] == '\0')
	{
		answer_error(call->answer, 401, "authorization_header_format_invalid",
					 "Invalid Authorization header format. Must be \"Bearer <YOUR_API_KEY>\".");
		return false;
	}
	if (g_strv_contains((const char *const *) settings.secret_keys, header + 7))
		return true;
	answer_error(call->answer, 401, "clerk_key_invalid",
				 "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.");
	return false;
}

static bool
check_version(Call *call)
{
	const char *version = call->request->api_version;

	if (version == NULL || strcmp(version, API_VERSION) == 0)
		return true;
	answer_error(call->answer, 400, "api_version_invalid",
				 "%.100s is not a version of this API.", version);
	return false;
}

static const Endpoint *
find_endpoint(Call *call)
{
	Resource	resource = find_resource(call->request->target, call);

	if (resource == RES_NONE)
	{
		answer_error(call->answer, 404, "resource_not_found", "There is nothing at this path.");
		return NULL;
	}
	for (const Endpoint *e = endpoints; e->run != NULL; e++)
		if (e->resource == resource && strcmp(e->method, call->request->method) == 0)
			return e;
	answer_error(call->answer, 405, "method_not_allowed",
				 "%.20s is not allowed here.", call->request->method);
	call->answer->allow = allowed_methods[resource];
	return NULL;
}

static bool
is_json_type(const char *content_type)
{
	size_t		len = strlen("application/json");

	if (content_type == NULL || g_ascii_strncasecmp(content_type, "application/json", len) != 0)
		return false;
	return content_type[len + strspn(content_type + len, " \t")] == '\0' ||
		content_type[len + strspn(content_type + len, " \t")] == ';';
}

static bool
check_body(Call *call, const Endpoint *endpoint)
{
	const ApiRequest *request = call->request;

	if (request->body_too_large)
		answer_error(call->answer, 413, "request_body_too_large", "The request body is too large.");
	else if (request->body->len > 0 && (endpoint->refuses_body || !is_json_type(request->content_type)))
		answer_error(call->answer, 415, "unsupported_content_type",
					 endpoint->refuses_body ? "This request takes no body." : "The Content-Type must be application/json.");
	else if (!endpoint->wants_body)
		return true;
	else if (!json_parse(request->body->str, request->body->len, &call->body) ||
			 !json_object_is_type(call->body, json_type_object))
		answer_error(call->answer, 400, "request_body_invalid",
					 "The request body is invalid. It must be a JSON object.");
	else
		return true;
	return false;
}

static bool
check_connection(Call *call)
{
	call->conn = store_find(call->id);
	if (call->conn != NULL)
		return true;
	answer_error(call->answer, 404, "resource_not_found",
				 "No enterprise connection was found with id %.200s.", call->id);
	return false;
}

void
api_execute(const ApiRequest *request, Answer *answer)
{
	Call		call = {.request = request,.answer = answer};
	const Endpoint *endpoint;

	if (check_key(&call) && check_version(&call))
	{
		endpoint = find_endpoint(&call);
		if (endpoint != NULL && check_body(&call, endpoint) &&
			(endpoint->resource == RES_COLLECTION || check_connection(&call)))
			endpoint->run(&call);
	}
	g_free(call.id);
	json_object_put(call.body);
}

/*
 * Pages
 */
static gint64
page_number(const char *text, const char *name, gint64 low, gint64 high, gint64 value, GString *faults)
{
	g_autoptr(GError) error = NULL;

	if (g_ascii_string_to_signed(text, 10, low, high, &value, &error))
		return value;
	if (error->code == G_NUMBER_PARSER_ERROR_INVALID)
		fault_add(faults, "form_param_format_invalid", name, "%s must be an integer.", name);
	else
		fault_add(faults, "form_param_value_invalid", name,
				  high == LIMIT_MAX ? "%s must be between 1 and 500." : "%s must not be negative.", name);
	return value;
}

/* True when this parameter was about the page. */
static bool
page_parameter(Page *page, const char *name, const char *value, GString *faults)
{
	if (strcmp(name, "limit") == 0)
		page->limit = page_number(value, "limit", 1, LIMIT_MAX, page->limit, faults);
	else if (strcmp(name, "offset") == 0)
		page->offset = page_number(value, "offset", 0, G_MAXINT32, page->offset, faults);
	else
		return false;
	return true;
}

/* name=value pairs of a query, decoded. */
static void
query_init(GUriParamsIter *iter, const char *query)
{
	g_uri_params_iter_init(iter, query ? query : "", -1, "&", G_URI_PARAMS_WWW_FORM | G_URI_PARAMS_PARSE_RELAXED);
}

/*
 * One item that passed the filter: append it if it lies on the page.  seen
 * counts all of them, this one included.
 */
static void
page_item(GString *out, const Page *page, gint64 seen, const char *text, size_t len)
{
	if (seen <= page->offset || seen > page->offset + page->limit)
		return;
	if (seen > page->offset + 1)
		g_string_append_c(out, ',');
	g_string_append_len(out, text, len);
}

/*
 * The endpoints
 */
gint64
api_write_time(void)
{
	return settings.clock_ms > 0 ? settings.clock_ms++ : g_get_real_time() / 1000;
}

/* Remember of the secrets only that they are there. */
static void
note_secrets(Conn *conn, struct json_object *body)
{
	struct json_object *group;
	struct json_object *value;

	if (json_object_object_get_ex(body, "oidc", &group) && group != NULL &&
		json_object_object_get_ex(group, "client_secret", &value))
		conn->has_client_secret = json_object_get_string_len(value) > 0;
	if (json_object_object_get_ex(body, "saml", &group) && group != NULL &&
		json_object_object_get_ex(group, "idp_metadata", &value))
		conn->has_idp_metadata = json_object_get_string_len(value) > 0;
}

static void
run_create(Call *call)
{
	g_autoptr(GString) faults = g_string_new(NULL);
	struct json_object *object;

	validate_body(call->body, OP_CREATE, NULL, NULL, faults);
	if (faults->len > 0)
	{
		answer_faults(call->answer, 422, faults);
		return;
	}
	if (settings.max_connections > 0 && store_count() >= settings.max_connections)
	{
		answer_error(call->answer, 403, "quota_exceeded",
					 "You have reached the limit of %" G_GINT64_FORMAT " enterprise connections.", settings.max_connections);
		return;
	}
	object = object_create(call->body, api_write_time());
	note_secrets(store_put(object), call->body);
	answer_json(call->answer, 201, object);
	json_object_put(object);
}

typedef struct Filter
{
	char	   *organization_id;	/* NULL: any */
	bool		by_active;
	bool		active;
} Filter;

static bool
passes(const Filter *filter, const Conn *conn)
{
	if (filter->by_active && conn->active != filter->active)
		return false;
	return filter->organization_id == NULL || g_strcmp0(conn->organization_id, filter->organization_id) == 0;
}

static void
filter_parameter(Filter *filter, const char *name, const char *value, GString *faults)
{
	if (strcmp(name, "organization_id") == 0)
	{
		g_free(filter->organization_id);
		filter->organization_id = g_strdup(value);
	}
	else if (strcmp(name, "active") == 0)
	{
		filter->by_active = true;
		filter->active = strcmp(value, "true") == 0;
		if (!filter->active && strcmp(value, "false") != 0)
			fault_add(faults, "form_param_value_invalid", "active", "active must be true or false.");
	}
}

/*
 * Newest first.  Without a filter only the page itself is looked at; with
 * one, everything, for the total.
 */
static void
write_connections(GString *out, const Filter *filter, const Page *page)
{
	gint64		total = store_count();
	gint64		seen = 0;

	g_string_append(out, "{\"data\":[");
	if (!filter->by_active && filter->organization_id == NULL)
	{
		for (gint64 i = page->offset; i < total && i < page->offset + page->limit; i++)
		{
			const Conn *conn = store_at((guint) (total - 1 - i));

			page_item(out, page, i + 1, conn->text, conn->text_len);
		}
	}
	else
	{
		for (gint64 i = total - 1; i >= 0; i--)
		{
			const Conn *conn = store_at((guint) i);

			if (passes(filter, conn))
				page_item(out, page, ++seen, conn->text, conn->text_len);
		}
		total = seen;
	}
	g_string_append_printf(out, "],\"total_count\":%" G_GINT64_FORMAT "}", total);
}

static void
run_list(Call *call)
{
	Page		page = {.limit = LIMIT_DEFAULT};
	Filter		filter = {0};
	g_autoptr(GString) faults = g_string_new(NULL);
	GUriParamsIter iter;
	char	   *name;
	char	   *value;

	query_init(&iter, call->query);
	while (g_uri_params_iter_next(&iter, &name, &value, NULL))
	{
		if (!page_parameter(&page, name, value, faults))
			filter_parameter(&filter, name, value, faults);
		g_free(name);
		g_free(value);
	}
	if (faults->len > 0)
		answer_faults(call->answer, 422, faults);
	else
	{
		call->answer->status = 200;
		write_connections(call->answer->body, &filter, &page);
	}
	g_free(filter.organization_id);
}

static void
run_get(Call *call)
{
	call->answer->status = 200;
	g_string_append_len(call->answer->body, call->conn->text, call->conn->text_len);
}

static void
run_update(Call *call)
{
	g_autoptr(GString) faults = g_string_new(NULL);
	struct json_object *stored;
	gint64		now;

	json_parse(call->conn->text, call->conn->text_len, &stored);
	validate_body(call->body, OP_UPDATE, call->conn, stored, faults);
	if (faults->len > 0)
	{
		answer_faults(call->answer, 422, faults);
		json_object_put(stored);
		return;
	}
	now = api_write_time();
	if (now <= call->conn->updated_at)
		now = call->conn->updated_at + 1;
	object_update(stored, call->body, now);
	note_secrets(store_put(stored), call->body);
	answer_json(call->answer, 200, stored);
	json_object_put(stored);
}

static void
run_delete(Call *call)
{
	GString    *out = call->answer->body;

	call->answer->status = 200;
	g_string_append(out, "{\"object\":\"enterprise_connection\",\"id\":");
	json_append_text(out, call->conn->id);
	g_string_append(out, ",\"deleted\":true}");
	store_remove(call->conn);
	api_write_time();
}

static void
run_create_test_run(Call *call)
{
	struct json_object *stored;
	struct json_object *run;

	json_parse(call->conn->text, call->conn->text_len, &stored);
	run = object_test_run(stored, api_write_time());
	store_add_run(call->conn, run);
	call->answer->status = 200;
	g_string_append_printf(call->answer->body, "{\"url\":\"" TEST_FLOW_URL "?ticket=%s\"}",
						   json_object_get_string(json_object_object_get(run, "id")));
	json_object_put(run);
	json_object_put(stored);
}

/* The statuses asked for, one bit each; 0 means all. */
static unsigned
status_bit(const char *status)
{
	static const char *const names[] = {"pending", "success", "failed"};

	for (unsigned i = 0; i < 3; i++)
		if (strcmp(names[i], status) == 0)
			return 1u << i;
	return 0;
}

static void
write_test_runs(GString *out, const Conn *conn, unsigned statuses, const Page *page)
{
	gint64		seen = 0;

	g_string_append(out, "{\"data\":[");
	for (guint i = conn->runs ? conn->runs->len : 0; i-- > 0;)
	{
		const TestRun *run = &g_array_index(conn->runs, TestRun, i);

		if (statuses == 0 || (statuses & status_bit(run->status)))
			page_item(out, page, ++seen, run->text, strlen(run->text));
	}
	g_string_append_printf(out, "],\"total_count\":%" G_GINT64_FORMAT "}", seen);
}

static void
run_list_test_runs(Call *call)
{
	Page		page = {.limit = LIMIT_DEFAULT};
	g_autoptr(GString) faults = g_string_new(NULL);
	unsigned	statuses = 0;
	GUriParamsIter iter;
	char	   *name;
	char	   *value;

	query_init(&iter, call->query);
	while (g_uri_params_iter_next(&iter, &name, &value, NULL))
	{
		if (!page_parameter(&page, name, value, faults) && strcmp(name, "status") == 0)
		{
			if (status_bit(value) == 0)
				fault_add(faults, "form_param_value_invalid", "status",
						  "status must be one of: pending, success, failed.");
			statuses |= status_bit(value);
		}
		g_free(name);
		g_free(value);
	}
	if (faults->len > 0)
		answer_faults(call->answer, 422, faults);
	else
	{
		call->answer->status = 200;
		write_test_runs(call->answer->body, call->conn, statuses, &page);
	}
}
