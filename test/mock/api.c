/*-------------------------------------------------------------------------
 *
 * api.c
 *		Clerk's endpoints, free of HTTP: a request in, an answer out.
 *
 *-------------------------------------------------------------------------
 */
#include "api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "object.h"
#include "settings.h"
#include "store.h"
#include "validate.h"

#define API_VERSION		"2026-05-12"
#define COLLECTION		"/enterprise_connections"
#define TEST_RUNS		"/test_runs"
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
	Buf			id;
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
	long		limit;
	long		offset;
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
static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decode percent escapes, once.  What is no escape stays as it is. */
static void
percent_decode(Buf *out, const char *s, size_t len, bool plus_is_space)
{
	for (size_t i = 0; i < len; i++)
	{
		if (s[i] == '%' && i + 2 < len && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0)
		{
			buf_char(out, (char) (hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2])));
			i += 2;
		}
		else if (s[i] == '+' && plus_is_space)
			buf_char(out, ' ');
		else
			buf_char(out, s[i]);
	}
}

bool
query_next(const char **query, Buf *name, Buf *value)
{
	const char *s = *query;
	size_t		len,
				name_len;

	if (s == NULL || *s == '\0')
		return false;
	len = strcspn(s, "&");
	name_len = strcspn(s, "=&");
	name->len = value->len = 0;
	buf_str(name, "");
	buf_str(value, "");
	percent_decode(name, s, name_len, true);
	if (name_len < len)
		percent_decode(value, s + name_len + 1, len - name_len - 1, true);
	*query = s + len + (s[len] == '&');
	return true;
}

const char *
api_path(const char *target, size_t *len, const char **query)
{
	size_t		end = strcspn(target, "?");
	const char *first = NULL;

	*query = target[end] == '?' ? target + end + 1 : NULL;
	for (const char *p = strstr(target, "/v1/"); p != NULL && p < target + end; p = strstr(p + 1, "/v1/"))
	{
		const char *rest = p + strlen("/v1");

		if (first == NULL)
			first = rest;
		/* a prefix may have a /v1/ of its own, and so may an id */
		if (strncmp(rest, COLLECTION, strlen(COLLECTION)) == 0)
		{
			first = rest;
			break;
		}
	}
	if (first != NULL)
		*len = (size_t) (target + end - first);
	return first;
}

/* Split on '/' first, decode then: an id may hold an escaped slash. */
static Resource
find_resource(const char *target, Call *call)
{
	size_t		len;
	const char *path = api_path(target, &len, &call->query);
	const char *end;
	const char *slash;

	if (path == NULL || len < strlen(COLLECTION) || strncmp(path, COLLECTION, strlen(COLLECTION)) != 0)
		return RES_NONE;
	end = path + len;
	path += strlen(COLLECTION);
	if (path == end)
		return RES_COLLECTION;
	if (*path++ != '/')
		return RES_NONE;
	slash = memchr(path, '/', (size_t) (end - path));
	if (slash == NULL)
		slash = end;
	if (slash == path)
		return RES_NONE;
	percent_decode(&call->id, path, (size_t) (slash - path), false);
	if (slash == end)
		return RES_CONNECTION;
	if ((size_t) (end - slash) == strlen(TEST_RUNS) && strncmp(slash, TEST_RUNS, strlen(TEST_RUNS)) == 0)
		return RES_TEST_RUNS;
	return RES_NONE;
}

/*
 * Checks before an endpoint runs; each answers and returns false when it fails
 */
static bool
check_key(Call *call)
{
	const char *header = call->request->authorization;

	if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0 || header[7] == '\0')
	{
		answer_error(call->answer, 401, "authorization_header_format_invalid", NULL,
					 "Invalid Authorization header format. Must be \"Bearer <YOUR_API_KEY>\".");
		return false;
	}
	for (int i = 0; i < settings.nsecret_keys; i++)
		if (strcmp(header + 7, settings.secret_keys[i]) == 0)
			return true;
	answer_error(call->answer, 401, "clerk_key_invalid", NULL,
				 "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.");
	return false;
}

static bool
check_version(Call *call)
{
	const char *version = call->request->api_version;

	if (version == NULL || strcmp(version, API_VERSION) == 0)
		return true;
	answer_error(call->answer, 400, "api_version_invalid", NULL,
				 "%.100s is not a version of this API.", version);
	return false;
}

static const Endpoint *
find_endpoint(Call *call)
{
	Resource	resource = find_resource(call->request->target, call);

	if (resource == RES_NONE)
	{
		answer_error(call->answer, 404, "resource_not_found", NULL, "There is nothing at this path.");
		return NULL;
	}
	for (const Endpoint *e = endpoints; e->run != NULL; e++)
		if (e->resource == resource && strcmp(e->method, call->request->method) == 0)
			return e;
	answer_error(call->answer, 405, "method_not_allowed", NULL,
				 "%.20s is not allowed here.", call->request->method);
	call->answer->allow = allowed_methods[resource];
	return NULL;
}

static bool
is_json_type(const char *content_type)
{
	size_t		len = strlen("application/json");

	if (content_type == NULL || strncasecmp(content_type, "application/json", len) != 0)
		return false;
	return content_type[len + strspn(content_type + len, " \t")] == '\0' ||
		content_type[len + strspn(content_type + len, " \t")] == ';';
}

static bool
check_body(Call *call, const Endpoint *endpoint)
{
	const ApiRequest *request = call->request;

	if (request->body_too_large)
		answer_error(call->answer, 413, "request_body_too_large", NULL, "The request body is too large.");
	else if (request->body_len > 0 && (endpoint->refuses_body || !is_json_type(request->content_type)))
		answer_error(call->answer, 415, "unsupported_content_type", NULL,
					 endpoint->refuses_body ? "This request takes no body." : "The Content-Type must be application/json.");
	else if (!endpoint->wants_body)
		return true;
	else if (!json_parse(request->body, request->body_len, &call->body) ||
			 !json_object_is_type(call->body, json_type_object))
		answer_error(call->answer, 400, "request_body_invalid", NULL,
					 "The request body is invalid. It must be a JSON object.");
	else
		return true;
	return false;
}

static bool
check_connection(Call *call)
{
	call->conn = store_find(call->id.data, call->id.len);
	if (call->conn != NULL)
		return true;
	answer_error(call->answer, 404, "resource_not_found", NULL,
				 "No enterprise connection was found with id %.200s.", call->id.data);
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
	buf_free(&call.id);
	json_object_put(call.body);
}

/*
 * Pages
 */
static long
page_number(const Buf *text, const char *name, long low, long high, long value, Faults *faults)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(text->data, &end, 10);
	if (text->len == 0 || *end != '\0')
		fault_add(faults, "form_param_format_invalid", name, "%s must be an integer.", name);
	else if (errno != 0 || n < low || n > high)
		fault_add(faults, "form_param_value_invalid", name,
				  high == LIMIT_MAX ? "%s must be between 1 and 500." : "%s must not be negative.", name);
	else
		return n;
	return value;
}

/* True when this parameter was about the page. */
static bool
page_parameter(Page *page, const Buf *name, const Buf *value, Faults *faults)
{
	if (strcmp(name->data, "limit") == 0)
		page->limit = page_number(value, "limit", 1, LIMIT_MAX, page->limit, faults);
	else if (strcmp(name->data, "offset") == 0)
		page->offset = page_number(value, "offset", 0, INT32_MAX, page->offset, faults);
	else
		return false;
	return true;
}

/*
 * One item that passed the filter: append it if it lies on the page.  seen
 * counts all of them, this one included.
 */
static void
page_item(Buf *out, const Page *page, long seen, const char *text, size_t len)
{
	if (seen <= page->offset || seen > page->offset + page->limit)
		return;
	if (seen > page->offset + 1)
		buf_char(out, ',');
	buf_add(out, text, len);
}

/*
 * The endpoints
 */
int64_t
api_write_time(void)
{
	return settings.clock_ms > 0 ? settings.clock_ms++ : clock_wall_ms();
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
	Faults		faults = {0};
	struct json_object *object;

	validate_body(call->body, OP_CREATE, NULL, NULL, &faults);
	if (faults.count > 0)
	{
		answer_faults(call->answer, 422, &faults);
		return;
	}
	if (settings.max_connections > 0 && store_count() >= (size_t) settings.max_connections)
	{
		answer_error(call->answer, 403, "quota_exceeded", NULL,
					 "You have reached the limit of %ld enterprise connections.", settings.max_connections);
		return;
	}
	object = object_create(call->body, api_write_time());
	note_secrets(store_put(object), call->body);
	answer_json(call->answer, 201, object);
	json_object_put(object);
}

typedef struct Filter
{
	Buf			organization_id;
	bool		by_organization;
	bool		by_active;
	bool		active;
} Filter;

static bool
passes(const Filter *filter, const Conn *conn)
{
	if (filter->by_active && conn->active != filter->active)
		return false;
	if (!filter->by_organization)
		return true;
	return conn->organization_id != NULL &&
		strcmp(conn->organization_id, filter->organization_id.data) == 0;
}

static void
filter_parameter(Filter *filter, const Buf *name, const Buf *value, Faults *faults)
{
	if (strcmp(name->data, "organization_id") == 0)
	{
		filter->by_organization = true;
		filter->organization_id.len = 0;
		buf_add(&filter->organization_id, value->data, value->len);
	}
	else if (strcmp(name->data, "active") == 0)
	{
		filter->by_active = true;
		filter->active = strcmp(value->data, "true") == 0;
		if (!filter->active && strcmp(value->data, "false") != 0)
			fault_add(faults, "form_param_value_invalid", "active", "active must be true or false.");
	}
}

/*
 * Newest first.  Without a filter only the page itself is looked at; with
 * one, everything, for the total.
 */
static void
write_connections(Buf *out, const Filter *filter, const Page *page)
{
	long		total = (long) store_count();
	long		seen = 0;

	buf_str(out, "{\"data\":[");
	if (!filter->by_active && !filter->by_organization)
	{
		for (long i = page->offset; i < total && i < page->offset + page->limit; i++)
		{
			const Conn *conn = store_at((size_t) (total - 1 - i));

			page_item(out, page, i + 1, conn->text, conn->text_len);
		}
	}
	else
	{
		for (long i = total - 1; i >= 0; i--)
		{
			const Conn *conn = store_at((size_t) i);

			if (passes(filter, conn))
				page_item(out, page, ++seen, conn->text, conn->text_len);
		}
		total = seen;
	}
	buf_printf(out, "],\"total_count\":%ld}", total);
}

static void
run_list(Call *call)
{
	Page		page = {.limit = LIMIT_DEFAULT};
	Filter		filter = {0};
	Faults		faults = {0};
	Buf			name = {0},
				value = {0};

	while (query_next(&call->query, &name, &value))
		if (!page_parameter(&page, &name, &value, &faults))
			filter_parameter(&filter, &name, &value, &faults);
	if (faults.count > 0)
		answer_faults(call->answer, 422, &faults);
	else
	{
		call->answer->status = 200;
		write_connections(&call->answer->body, &filter, &page);
	}
	buf_free(&name);
	buf_free(&value);
	buf_free(&filter.organization_id);
}

static void
run_get(Call *call)
{
	call->answer->status = 200;
	buf_add(&call->answer->body, call->conn->text, call->conn->text_len);
}

static void
run_update(Call *call)
{
	Faults		faults = {0};
	struct json_object *stored;
	int64_t		now;

	json_parse(call->conn->text, call->conn->text_len, &stored);
	validate_body(call->body, OP_UPDATE, call->conn, stored, &faults);
	if (faults.count > 0)
	{
		answer_faults(call->answer, 422, &faults);
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
	Buf		   *out = &call->answer->body;

	call->answer->status = 200;
	buf_str(out, "{\"object\":\"enterprise_connection\",\"id\":");
	buf_json_string(out, call->conn->id, call->conn->id_len);
	buf_str(out, ",\"deleted\":true}");
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
	buf_printf(&call->answer->body, "{\"url\":\"" TEST_FLOW_URL "?ticket=%s\"}",
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
write_test_runs(Buf *out, const Conn *conn, unsigned statuses, const Page *page)
{
	long		seen = 0;

	buf_str(out, "{\"data\":[");
	for (int i = conn->nruns - 1; i >= 0; i--)
		if (statuses == 0 || (statuses & status_bit(conn->runs[i].status)))
			page_item(out, page, ++seen, conn->runs[i].text, strlen(conn->runs[i].text));
	buf_printf(out, "],\"total_count\":%ld}", seen);
}

static void
run_list_test_runs(Call *call)
{
	Page		page = {.limit = LIMIT_DEFAULT};
	Faults		faults = {0};
	unsigned	statuses = 0;
	Buf			name = {0},
				value = {0};

	while (query_next(&call->query, &name, &value))
	{
		if (page_parameter(&page, &name, &value, &faults) || strcmp(name.data, "status") != 0)
			continue;
		if (status_bit(value.data) == 0)
			fault_add(&faults, "form_param_value_invalid", "status",
					  "status must be one of: pending, success, failed.");
		statuses |= status_bit(value.data);
	}
	if (faults.count > 0)
		answer_faults(call->answer, 422, &faults);
	else
	{
		call->answer->status = 200;
		write_test_runs(&call->answer->body, call->conn, statuses, &page);
	}
	buf_free(&name);
	buf_free(&value);
}
