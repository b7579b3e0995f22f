/*-------------------------------------------------------------------------
 *
 * reply.c
 *		How a request ends: an answer, raw bytes, a reset, silence.
 *
 *-------------------------------------------------------------------------
 */
#include "reply.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "timer.h"

/* Bodies that are streamed go out in pieces of this size. */
#define STREAM_BLOCK		(64 * 1024)

/* How long raw bytes may wait for a client that does not read. */
#define RAW_SEND_TIMEOUT_MS 1000

#define DEFAULT_CONTENT_TYPE	"application/json; charset=utf-8"

/* A body that is made while it is sent: head, then byte up to size. */
typedef struct Stream
{
	GString    *head;
	char		byte;
	uint64_t	size;
	uint64_t	limit;			/* break off here */
	Request    *req;			/* which this answers; it lives longer */
	size_t		piece;			/* trickle: bytes at a time, or 0 */
	gint64		pause_ms;
	bool		paused;
} Stream;

/*
 * Ways to end a connection other than by an answer
 */

/*
 * Dissolving the association makes Linux send RST at once, whatever close()
 * would do later and whatever microhttpd does before it.
 */
static void
reset_connection(int fd)
{
	struct linger now = {.l_onoff = 1,.l_linger = 0};
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	(void) connect(fd, &none, sizeof(none));
}

static void
send_raw(int fd, const GString *raw)
{
	size_t		done = 0;

	while (done < raw->len)
	{
		struct pollfd p = {.fd = fd,.events = POLLOUT};
		ssize_t		n = send(fd, raw->str + done, raw->len - done, MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t) n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno != EAGAIN)
			return;
		else if (poll(&p, 1, RAW_SEND_TIMEOUT_MS) <= 0)
			return;
	}
}

/*
 * Answers
 */

/*
 * A trickled body is suspended before each piece but the first.  True: go on
 * and send one.
 */
static bool
stream_may_go(Stream *stream, uint64_t pos)
{
	if (stream->piece == 0 || pos == 0)
		return true;
	stream->paused = !stream->paused;
	if (!stream->paused)
		return true;
	flow_pause(stream->req, stream->pause_ms);
	MHD_suspend_connection(stream->req->connection);
	timer_add(stream->req);
	return false;
}

static ssize_t
stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	Stream	   *stream = cls;
	size_t		n = max;

	if (stream->req->ending == ENDING_DROP)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (pos >= stream->limit)
		return stream->limit < stream->size ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
	if (!stream_may_go(stream, pos))
		return 0;
	if (stream->piece > 0)
		n = MIN(n, stream->piece);
	n = MIN(n, stream->limit - pos);
	if (pos < stream->head->len)
	{
		n = MIN(n, stream->head->len - pos);
		memcpy(buf, stream->head->str + pos, n);
	}
	else
		memset(buf, stream->byte, n);
	return (ssize_t) n;
}

static void
stream_free(void *cls)
{
	Stream	   *stream = cls;

	g_string_free(stream->head, TRUE);
	g_free(stream);
}

static struct MHD_Response *
stream_response(Request *req)
{
	const Step *step = req->step;
	Stream	   *stream = g_new0(Stream, 1);

	if (step->fill)
	{
		stream->head = step->body ? g_string_new_len(step->body->str, (gssize) step->body->len) : g_string_new(NULL);
		stream->byte = step->fill_byte->str[0];
		stream->size = (uint64_t) step->fill_size;
	}
	else
	{
		stream->head = g_steal_pointer(&req->answer.body);
		stream->size = stream->head->len;
	}
	stream->req = req;
	stream->piece = (size_t) step->trickle_bytes;
	stream->pause_ms = step->trickle_ms;
	stream->limit = stream->size;
	if (step->truncate_at >= 0)
		stream->limit = MIN(stream->size, (uint64_t) step->truncate_at);
	return MHD_create_response_from_callback(step->chunked ? MHD_SIZE_UNKNOWN : stream->size,
											 STREAM_BLOCK, stream_read, stream, stream_free);
}

static struct MHD_Response *
plain_response(Answer *answer)
{
	size_t		len = answer->body->len;

	return MHD_create_response_from_buffer_with_free_callback(len, g_string_free(g_steal_pointer(&answer->body), FALSE),
															  g_free);
}

static bool
step_has_header(const Step *step, const char *name)
{
	const StepHeader *header;

	for (guint i = 0; (header = step_header(step, i)) != NULL; i++)
		if (g_ascii_strcasecmp(header->name, name) == 0)
			return true;
	return false;
}

static void
add_headers(struct MHD_Response *response, const Step *step, const Answer *answer)
{
	const StepHeader *header;

	if (!step_has_header(step, "Content-Type"))
		MHD_add_response_header(response, "content-type", DEFAULT_CONTENT_TYPE);
	if (answer->retry_after[0] != '\0' && !step_has_header(step, "Retry-After"))
		MHD_add_response_header(response, "retry-after", answer->retry_after);
	if (answer->allow != NULL)
		MHD_add_response_header(response, "allow", answer->allow);
	for (guint i = 0; (header = step_header(step, i)) != NULL; i++)
		if (header->value != NULL)
			MHD_add_response_header(response, header->name, header->value);
}

static enum MHD_Result
send_answer(Request *req)
{
	const Step *step = req->step;
	struct MHD_Response *response;
	enum MHD_Result queued;

	if (step != NULL && (step->fill || step->truncate_at >= 0 || step->chunked || step->trickle_bytes > 0))
		response = stream_response(req);
	else
		response = plain_response(&req->answer);
	if (response == NULL)
		return MHD_NO;
	add_headers(response, step, &req->answer);
	queued = MHD_queue_response(req->connection, (unsigned) req->answer.status, response);
	MHD_destroy_response(response);
	return queued;
}

enum MHD_Result
reply_send(Request *req)
{
	switch (req->ending)
	{
		case ENDING_RESET:
			reset_connection(req->fd);
			return MHD_NO;
		case ENDING_RAW:
			send_raw(req->fd, req->step->raw);
			return MHD_NO;
		case ENDING_DROP:
			return MHD_NO;
		case ENDING_ANSWER:
			break;
	}
	return send_answer(req);
}
