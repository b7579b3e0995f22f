/*-------------------------------------------------------------------------
 *
 * record.c
 *		What was asked of the API: recorded requests, and counts.
 *
 * Two caps keep a long run from eating memory: on the number of records (the
 * oldest go) and on the bytes of headers and bodies (new records go without).
 *
 *-------------------------------------------------------------------------
 */
#include "record.h"

#include <string.h>

#include "answer.h"
#include "settings.h"

#define MAX_RECORDS			(1 << 19)
#define MAX_BODY_KEPT		((gsize) 1 << 20)
#define MAX_DETAIL_BYTES	((gsize) 256 << 20)
#define MAX_STATUS			1000

/* How many go at a time when there are too many: each time costs a move. */
#define DROPPED_AT_ONCE		(MAX_RECORDS / 8)

typedef struct Record
{
	char	   *method;
	char	   *target;
	char	   *headers;		/* NULL: not kept */
	char	   *body;			/* NULL: none, or not kept */
	gsize		body_len;
	gsize		body_total;
	gint64		received_ms;
	unsigned long connection;
	int			status;
	bool		scripted;
} Record;

static GArray *records;			/* NULL: none */
static guint64 last_seq;		/* of the last one that was ever added */
static gsize detail_bytes;		/* of headers and bodies that are kept */

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

#define NMETHODS	G_N_ELEMENTS(method_names)

static unsigned long by_method[NMETHODS];

static guint
count(void)
{
	return records ? records->len : 0;
}

/* The sequence number of the oldest that is kept. */
static guint64
first_seq(void)
{
	return last_seq + 1 - count();
}

static Record *
record_at(guint64 seq)
{
	return &g_array_index(records, Record, seq - first_seq());
}

static void
free_record(void *p)
{
	Record	   *r = p;

	detail_bytes -= r->body_len + (r->headers ? strlen(r->headers) : 0);
	g_free(r->method);
	g_free(r->target);
	g_free(r->headers);
	g_free(r->body);
}

static void
make_room(void)
{
	if (records == NULL)
	{
		records = g_array_new(FALSE, FALSE, sizeof(Record));
		g_array_set_clear_func(records, free_record);
	}
	if (records->len < MAX_RECORDS)
		return;
	g_array_remove_range(records, 0, DROPPED_AT_ONCE);
	stats.dropped += DROPPED_AT_ONCE;
}

guint64
record_add(const RecordInput *in)
{
	gsize		detail = in->headers->len + in->body->len;
	Record		r = {
		.body_total = in->body->len,
		.received_ms = g_get_real_time() / 1000,
		.connection = in->connection,
		.scripted = in->scripted
	};

	if (settings.record == RECORD_OFF)
		return 0;
	make_room();
	r.method = g_strdup(in->method);
	r.target = g_strdup(in->target);
	if (settings.record == RECORD_FULL && detail_bytes + detail <= MAX_DETAIL_BYTES)
	{
		if (in->headers->len > 0)
			r.headers = g_strdup(in->headers->str);
		if (in->body->len > 0 && in->body->len <= MAX_BODY_KEPT)
		{
			/* with the NUL behind it */
			r.body = g_memdup2(in->body->str, in->body->len + 1);
			r.body_len = in->body->len;
		}
		detail_bytes += in->headers->len + r.body_len;
	}
	g_array_append_val(records, r);
	return ++last_seq;
}

void
record_answered(guint64 seq, int status)
{
	if (status >= 0 && status < MAX_STATUS)
		stats.by_status[status]++;
	/* it may have been cleared, or dropped, in the meantime */
	if (seq >= first_seq() && seq <= last_seq)
		record_at(seq)->status = status;
}

static void
write_body(GString *out, const Record *r)
{
	struct json_object *json = NULL;

	g_string_append(out, ",\"body\":");
	if (r->body != NULL && json_parse(r->body, r->body_len, &json) && json != NULL)
	{
		g_string_append(out, json_text(json));
		json_object_put(json);
	}
	else
		g_string_append(out, "null");
	g_string_append(out, ",\"raw_body\":");
	if (r->body == NULL)
		g_string_append(out, "null");
	else
		json_append(out, r->body, r->body_len);
	if (r->body != NULL && !g_utf8_validate_len(r->body, r->body_len, NULL))
	{
		g_autofree char *base64 = g_base64_encode((const guchar *) r->body, r->body_len);

		g_string_append_printf(out, ",\"raw_body_base64\":\"%s\"", base64);
	}
	g_string_append_printf(out, ",\"body_length\":%zu", r->body_total);
}

static void
write_record(GString *out, guint64 seq)
{
	const Record *r = record_at(seq);
	size_t		path_len = strcspn(r->target, "?");

	g_string_append_printf(out, "{\"seq\":%llu,\"method\":", (unsigned long long) seq);
	json_append_text(out, r->method);
	g_string_append(out, ",\"target\":");
	json_append_text(out, r->target);
	g_string_append(out, ",\"path\":");
	json_append(out, r->target, path_len);
	g_string_append(out, ",\"query\":");
	json_append_text(out, r->target[path_len] == '?' ? r->target + path_len + 1 : NULL);
	g_string_append(out, ",\"headers\":");
	g_string_append(out, r->headers ? r->headers : "null");
	write_body(out, r);
	g_string_append_printf(out, ",\"connection\":%lu,\"received_ms\":%lld,\"status\":",
						   r->connection, (long long) r->received_ms);
	if (r->status > 0)
		g_string_append_printf(out, "%d", r->status);
	else
		g_string_append(out, "null");
	g_string_append_printf(out, ",\"scripted\":%s}", r->scripted ? "true" : "false");
}

void
record_list(GString *out, guint64 since, const char *method)
{
	const char *sep = "";

	g_string_append_c(out, '[');
	for (guint64 seq = MAX(since + 1, first_seq()); seq <= last_seq; seq++)
	{
		if (method != NULL && strcmp(record_at(seq)->method, method) != 0)
			continue;
		g_string_append(out, sep);
		write_record(out, seq);
		sep = ",";
	}
	g_string_append_c(out, ']');
}

/* Sequence numbers go on: "since" stays meaningful over a clear. */
void
record_clear(void)
{
	g_clear_pointer(&records, g_array_unref);
}

void
record_reset(void)
{
	unsigned long open = stats.open;
	unsigned long in_flight = stats.in_flight;

	record_clear();
	last_seq = 0;
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
stats_write(GString *out)
{
	const char *sep = "";

	g_string_append_printf(out, "{\"connections_opened\":%lu,\"open_connections\":%lu,\"requests\":%lu,\"by_method\":{",
						   stats.opened, stats.open, stats.requests);
	for (size_t i = 0; i < NMETHODS; i++)
	{
		if (by_method[i] == 0)
			continue;
		g_string_append_printf(out, "%s\"%s\":%lu", sep, method_names[i], by_method[i]);
		sep = ",";
	}
	g_string_append_printf(out, "},\"in_flight\":%lu,\"max_in_flight\":%lu,\"by_status\":{",
						   stats.in_flight, stats.max_in_flight);
	sep = "";
	for (int i = 0; i < MAX_STATUS; i++)
	{
		if (stats.by_status[i] == 0)
			continue;
		if (i == 0)
			g_string_append_printf(out, "%s\"none\":%lu", sep, stats.by_status[i]);
		else
			g_string_append_printf(out, "%s\"%d\":%lu", sep, i, stats.by_status[i]);
		sep = ",";
	}
	g_string_append_printf(out, "},\"records_dropped\":%lu}", stats.dropped);
}
