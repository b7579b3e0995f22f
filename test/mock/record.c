/*-------------------------------------------------------------------------
 *
 * record.c
 *		What was asked of the API: recorded requests, and counts.
 *
 * Records stand in a ring, addressed by sequence number.  Two caps keep a
 * long run from eating memory: on the number of records (the oldest go) and
 * on the bytes of headers and bodies (new records go without).
 *
 *-------------------------------------------------------------------------
 */
#include "record.h"

#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "api.h"
#include "clock.h"
#include "settings.h"

#define MAX_RECORDS			((size_t) 1 << 19)
#define MAX_BODY_KEPT		((size_t) 1 << 20)
#define MAX_DETAIL_BYTES	((size_t) 256 << 20)
#define MAX_STATUS			1000

typedef struct Record
{
	char	   *method;			/* start of the one allocation */
	char	   *target;
	char	   *headers;		/* NULL: not kept */
	char	   *body;			/* NULL: none, or not kept */
	size_t		body_len;
	size_t		body_total;
	size_t		detail;			/* bytes that count against the cap */
	int64_t		received_ms;
	unsigned long connection;
	int			status;
	bool		scripted;
} Record;

static Record *ring;
static size_t ring_size;
static uint64_t last_seq;
static uint64_t first_seq = 1;	/* the oldest that is kept */
static size_t detail_bytes;

static struct
{
	unsigned long opened;
	unsigned long open;
	unsigned long requests;
	unsigned long in_flight;
	unsigned long max_in_flight;
	unsigned long by_status[MAX_STATUS];
	unsigned long dropped;
}			stats;

static const char *const method_names[] = {"GET", "POST", "PATCH", "DELETE", "other"};

#define NMETHODS	(sizeof(method_names) / sizeof(method_names[0]))

static unsigned long by_method[NMETHODS];

static Record *
record_at(uint64_t seq)
{
	return &ring[seq & (ring_size - 1)];
}

static void
drop_oldest(void)
{
	Record	   *r = record_at(first_seq++);

	detail_bytes -= r->detail;
	free(r->method);
}

/* Make room for one more: double the ring, or let go of the oldest. */
static void
make_room(void)
{
	size_t		kept = (size_t) (last_seq + 1 - first_seq);
	size_t		size = ring_size ? ring_size * 2 : 1024;
	Record	   *grown;

	if (kept < ring_size)
		return;
	if (ring_size >= MAX_RECORDS)
	{
		drop_oldest();
		stats.dropped++;
		return;
	}
	grown = xmalloc(size * sizeof(Record));
	for (uint64_t seq = first_seq; seq <= last_seq; seq++)
		grown[seq & (size - 1)] = *record_at(seq);
	free(ring);
	ring = grown;
	ring_size = size;
}

/* Copy one part behind the others of a record's allocation. */
static char *
place(char **at, const char *s, size_t len)
{
	char	   *start = *at;

	if (len > 0)
		memcpy(start, s, len);
	start[len] = '\0';
	*at += len + 1;
	return start;
}

uint64_t
record_add(const RecordInput *in)
{
	size_t		method_len = strlen(in->method);
	size_t		target_len = strlen(in->target);
	size_t		headers_len = in->headers ? in->headers->len : 0;
	size_t		body_len = in->body_len > MAX_BODY_KEPT ? 0 : in->body_len;
	bool		full = settings.record == RECORD_FULL;
	Record	   *r;
	char	   *at;

	if (settings.record == RECORD_OFF)
		return 0;
	if (detail_bytes + headers_len + body_len > MAX_DETAIL_BYTES)
		full = false;
	if (!full)
		headers_len = body_len = 0;
	make_room();
	r = record_at(++last_seq);
	memset(r, 0, sizeof(*r));
	at = xmalloc(method_len + target_len + headers_len + body_len + 4);
	r->method = place(&at, in->method, method_len);
	r->target = place(&at, in->target, target_len);
	if (headers_len > 0)
		r->headers = place(&at, in->headers->data, headers_len);
	if (body_len > 0)
		r->body = place(&at, in->body, body_len);
	r->body_len = body_len;
	r->body_total = in->body_len;
	r->detail = headers_len + body_len;
	detail_bytes += r->detail;
	r->received_ms = clock_wall_ms();
	r->connection = in->connection;
	r->scripted = in->scripted;
	return last_seq;
}

void
record_answered(uint64_t seq, int status)
{
	if (status >= 0 && status < MAX_STATUS)
		stats.by_status[status]++;
	/* it may have been cleared, or dropped, in the meantime */
	if (seq >= first_seq && seq <= last_seq)
		record_at(seq)->status = status;
}

static void
write_body(Buf *out, const Record *r)
{
	struct json_object *json = NULL;
	size_t		len;
	const char *text;

	buf_str(out, ",\"body\":");
	if (r->body != NULL && json_parse(r->body, r->body_len, &json) && json != NULL)
	{
		text = json_text(json, &len);
		buf_add(out, text, len);
		json_object_put(json);
	}
	else
		buf_str(out, "null");
	buf_str(out, ",\"raw_body\":");
	if (r->body == NULL)
		buf_str(out, "null");
	else
		buf_json_string(out, r->body, r->body_len);
	if (r->body != NULL && !utf8_valid(r->body, r->body_len))
	{
		buf_str(out, ",\"raw_body_base64\":\"");
		buf_base64(out, r->body, r->body_len);
		buf_char(out, '"');
	}
	buf_printf(out, ",\"body_length\":%zu", r->body_total);
}

static void
write_record(Buf *out, uint64_t seq)
{
	const Record *r = record_at(seq);
	size_t		path_len = strcspn(r->target, "?");

	buf_printf(out, "{\"seq\":%llu,\"method\":", (unsigned long long) seq);
	buf_json_cstring(out, r->method);
	buf_str(out, ",\"target\":");
	buf_json_cstring(out, r->target);
	buf_str(out, ",\"path\":");
	buf_json_string(out, r->target, path_len);
	buf_str(out, ",\"query\":");
	buf_json_cstring(out, r->target[path_len] == '?' ? r->target + path_len + 1 : NULL);
	buf_str(out, ",\"headers\":");
	buf_str(out, r->headers ? r->headers : "null");
	write_body(out, r);
	buf_printf(out, ",\"connection\":%lu,\"received_ms\":%lld,\"status\":",
			   r->connection, (long long) r->received_ms);
	if (r->status > 0)
		buf_printf(out, "%d", r->status);
	else
		buf_str(out, "null");
	buf_printf(out, ",\"scripted\":%s}", r->scripted ? "true" : "false");
}

void
record_list(Buf *out, uint64_t since, const char *method)
{
	uint64_t	seq = since >= first_seq ? since + 1 : first_seq;
	bool		any = false;

	buf_char(out, '[');
	for (; seq <= last_seq; seq++)
	{
		if (method != NULL && strcmp(record_at(seq)->method, method) != 0)
			continue;
		if (any)
			buf_char(out, ',');
		any = true;
		write_record(out, seq);
	}
	buf_char(out, ']');
}

/* Sequence numbers go on: "since" stays meaningful over a clear. */
void
record_clear(void)
{
	while (first_seq <= last_seq)
		drop_oldest();
	free(ring);
	ring = NULL;
	ring_size = 0;
}

void
record_reset(void)
{
	unsigned long open = stats.open;
	unsigned long in_flight = stats.in_flight;

	record_clear();
	last_seq = 0;
	first_seq = 1;
	memset(&stats, 0, sizeof(stats));
	memset(by_method, 0, sizeof(by_method));
	stats.open = open;
	stats.in_flight = stats.max_in_flight = in_flight;
}

void
stats_request_begins(const char *method)
{
	size_t		i = 0;

	while (i < NMETHODS - 1 && strcmp(method_names[i], method) != 0)
		i++;
	by_method[i]++;
	stats.requests++;
	if (++stats.in_flight > stats.max_in_flight)
		stats.max_in_flight = stats.in_flight;
}

void
stats_request_ends(void)
{
	stats.in_flight--;
}

void
stats_connection_opened(void)
{
	stats.opened++;
	stats.open++;
}

void
stats_connection_closed(void)
{
	stats.open--;
}

void
stats_write(Buf *out)
{
	const char *sep = "";

	buf_printf(out, "{\"connections_opened\":%lu,\"open_connections\":%lu,\"requests\":%lu,\"by_method\":{",
			   stats.opened, stats.open, stats.requests);
	for (size_t i = 0; i < NMETHODS; i++)
	{
		if (by_method[i] == 0)
			continue;
		buf_printf(out, "%s\"%s\":%lu", sep, method_names[i], by_method[i]);
		sep = ",";
	}
	buf_printf(out, "},\"in_flight\":%lu,\"max_in_flight\":%lu,\"by_status\":{",
			   stats.in_flight, stats.max_in_flight);
	sep = "";
	for (int i = 0; i < MAX_STATUS; i++)
	{
		if (stats.by_status[i] == 0)
			continue;
		if (i == 0)
			buf_printf(out, "%s\"none\":%lu", sep, stats.by_status[i]);
		else
			buf_printf(out, "%s\"%d\":%lu", sep, i, stats.by_status[i]);
		sep = ",";
	}
	buf_printf(out, "},\"records_dropped\":%lu}", stats.dropped);
}
