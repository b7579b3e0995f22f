/*-------------------------------------------------------------------------
 *
 * http.c
 *		Requests coming in: microhttpd's callbacks.
 *
 * One thread runs all of them.  A request that has to wait is suspended here
 * and resumed by the timer's thread.
 *
 *-------------------------------------------------------------------------
 */
#include "http.h"

#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "flow.h"
#include "record.h"
#include "reply.h"
#include "server.h"
#include "settings.h"
#include "timer.h"

/* Control bodies seed whole stores. */
#define CONTROL_MAX_BODY	((size_t) 256 << 20)

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
	Request    *req = xcalloc(sizeof(Request));

	(void) cls;
	req->connection = connection;
	req->target = xstrdup(uri);
	req->control = strncmp(uri, CONTROL_PREFIX, strlen(CONTROL_PREFIX)) == 0;
	return req;
}

static enum MHD_Result
write_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Buf		   *out = cls;
	size_t		start;

	(void) kind;
	buf_char(out, out->len == 0 ? '{' : ',');
	start = out->len;
	buf_json_cstring(out, name);
	for (size_t i = start; i < out->len; i++)
		if (out->data[i] >= 'A' && out->data[i] <= 'Z')
			out->data[i] += 'a' - 'A';
	buf_char(out, ':');
	buf_json_cstring(out, value ? value : "");
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
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	Peer	   *peer = info->socket_context;

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
	bool		full;

	req->headers_seen = true;
	req->fd = MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	req->api.method = method;
	req->api.target = req->target;
	if (req->control)
		return;
	req->api.authorization = header(req, "Authorization");
	req->api.api_version = header(req, "Clerk-API-Version");
	req->api.content_type = header(req, "Content-Type");
	pthread_mutex_lock(&flow_lock);
	number_peer(req);
	full = settings.record == RECORD_FULL;
	pthread_mutex_unlock(&flow_lock);
	if (!full)
		return;
	MHD_get_connection_values(req->connection, MHD_HEADER_KIND, write_header, &req->headers);
	buf_str(&req->headers, req->headers.len > 0 ? "}" : "{}");
}

/* What is over the cap is read all the same: the client wants its answer. */
static void
take_body(Request *req, const char *data, size_t len)
{
	size_t		max = req->control ? CONTROL_MAX_BODY : API_MAX_BODY;

	if (req->body.len + len > max)
		req->api.body_too_large = true;
	if (!req->api.body_too_large)
		buf_add(&req->body, data, len);
}

/* True: it can be answered; false: it was suspended. */
static bool
process(Request *req)
{
	bool		ready = true;

	req->api.body = req->body.data;
	req->api.body_len = req->body.len;
	pthread_mutex_lock(&flow_lock);
	if (req->control)
	{
		control_handle(req->api.method, req->target, req->body.data, req->body.len,
					   server_uses_tls(), &req->answer);
		req->stage = STAGE_READY;
	}
	else if (!flow_start(req))
	{
		if (timer_stopped())
			flow_abort(req);
		else
		{
			ready = false;
			MHD_suspend_connection(req->connection);
			timer_add(req);
		}
	}
	pthread_mutex_unlock(&flow_lock);
	return ready;
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
	pthread_mutex_lock(&flow_lock);
	if (req->counted)
		stats_request_ends();
	step_release(req->step);
	pthread_mutex_unlock(&flow_lock);
	answer_free(&req->answer);
	buf_free(&req->body);
	buf_free(&req->headers);
	free(req->target);
	free(req);
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
		*socket_context = xcalloc(sizeof(Peer));
		return;
	}
	if (peer->counted)
	{
		pthread_mutex_lock(&flow_lock);
		stats_connection_closed();
		pthread_mutex_unlock(&flow_lock);
	}
	free(peer);
}
