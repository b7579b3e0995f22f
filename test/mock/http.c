/*-------------------------------------------------------------------------
 *
 * http.c
 *		Requests coming in: microhttpd's callbacks.
 *
 * A request that has to wait is suspended here and resumed by the timer.
 *
 *-------------------------------------------------------------------------
 */
#include "http.h"

#include <string.h>

#include "control.h"
#include "flow.h"
#include "record.h"
#include "reply.h"
#include "server.h"
#include "settings.h"
#include "timer.h"

/* Control bodies seed whole stores. */
#define CONTROL_MAX_BODY	((gsize) 256 << 20)

/* One TCP connection. */
typedef struct Peer
{
	unsigned long number;		/* 0: no API request on it yet */
	unsigned long epoch;		/* in which the number was given */
	bool		counted;
} Peer;

static unsigned long last_peer;
static unsigned long last_peer_epoch;

void *
http_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
	Request    *req = g_new0(Request, 1);

	(void) cls;
	req->connection = connection;
	req->target = g_strdup(uri);
	req->control = g_str_has_prefix(uri, CONTROL_PREFIX);
	req->body = g_string_new(NULL);
	req->headers = g_string_new(NULL);
	req->answer.body = g_string_new(NULL);
	return req;
}

static enum MHD_Result
write_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	GString    *out = cls;
	g_autofree char *lower = g_ascii_strdown(name, -1);

	(void) kind;
	g_string_append_c(out, out->len == 0 ? '{' : ',');
	json_append_text(out, lower);
	g_string_append_c(out, ':');
	json_append_text(out, value ? value : "");
	return MHD_YES;
}

static const char *
header(Request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

/* Numbers are given to connections in the order of their first API request. */
static void
number_peer(Request *req)
{
	Peer	   *peer = MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

	if (last_peer_epoch != flow_epoch)
	{
		last_peer_epoch = flow_epoch;
		last_peer = 0;
	}
	if (!peer->counted)
	{
		peer->counted = true;
		stats_connection_opened();
	}
	if (peer->epoch != flow_epoch)
	{
		peer->epoch = flow_epoch;
		peer->number = ++last_peer;
	}
	req->connection_number = peer->number;
}

static void
note_head(Request *req, const char *method)
{
	req->headers_seen = true;
	req->fd = MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	req->api.method = method;
	req->api.target = req->target;
	req->api.body = req->body;
	if (req->control)
		return;
	req->api.authorization = header(req, "Authorization");
	req->api.api_version = header(req, "Clerk-API-Version");
	req->api.content_type = header(req, "Content-Type");
	number_peer(req);
	if (settings.record != RECORD_FULL)
		return;
	MHD_get_connection_values(req->connection, MHD_HEADER_KIND, write_header, req->headers);
	g_string_append(req->headers, req->headers->len > 0 ? "}" : "{}");
}

/* What is over the cap is read all the same: the client wants its answer. */
static void
take_body(Request *req, const char *data, size_t len)
{
	gsize		max = req->control ? CONTROL_MAX_BODY : API_MAX_BODY;

	if (req->body->len + len > max)
		req->api.body_too_large = true;
	if (!req->api.body_too_large)
		g_string_append_len(req->body, data, (gssize) len);
}

/* True: it can be answered; false: it was suspended. */
static bool
process(Request *req)
{
	if (req->control)
	{
		control_handle(req->api.method, req->target, req->body, server_uses_tls(), &req->answer);
		req->stage = STAGE_READY;
		return true;
	}
	if (flow_start(req))
		return true;
	MHD_suspend_connection(req->connection);
	timer_add(req);
	return false;
}

enum MHD_Result
http_handle(void *cls, struct MHD_Connection *connection, const char *url,
			const char *method, const char *version, const char *upload,
			size_t *upload_len, void **req_cls)
{
	Request    *req = *req_cls;

	(void) cls;
	(void) connection;
	(void) url;
	(void) version;
	if (!req->headers_seen)
	{
		note_head(req, method);
		return MHD_YES;
	}
	if (*upload_len > 0)
	{
		take_body(req, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	if (req->stage == STAGE_NEW && !process(req))
		return MHD_YES;
	return reply_send(req);
}

void
http_done(void *cls, struct MHD_Connection *connection, void **req_cls,
		  enum MHD_RequestTerminationCode code)
{
	Request    *req = *req_cls;

	(void) cls;
	(void) connection;
	(void) code;
	if (req == NULL)
		return;
	*req_cls = NULL;
	if (req->counted)
		stats_request_ends();
	step_release(req->step);
	if (req->answer.body != NULL)
		g_string_free(req->answer.body, TRUE);
	g_string_free(req->body, TRUE);
	g_string_free(req->headers, TRUE);
	g_free(req->target);
	g_free(req);
}

void
http_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
				enum MHD_ConnectionNotificationCode code)
{
	Peer	   *peer = *socket_context;

	(void) cls;
	(void) connection;
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		*socket_context = g_new0(Peer, 1);
		return;
	}
	if (peer->counted)
		stats_connection_closed();
	g_free(peer);
}
