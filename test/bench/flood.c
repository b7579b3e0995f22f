/*-------------------------------------------------------------------------
 *
 * flood.c
 *		The least that creating many enterprise connections can cost: a
 *		libcurl multi handle that has so many requests under way at a time,
 *		and reads the answers.
 *
 * flood URL KEY COUNT CONCURRENCY [CONNINFO] prints the requests per second,
 *		from the first one sent to the last answer.  With a connection string,
 *		each answer is upserted into the table "plain", one transaction for
 *		each burst of answers, and the last one's commit is the end.
 *
 *-------------------------------------------------------------------------
 */
#include <curl/curl.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ANSWER 8192

typedef struct Place
{
	CURL	   *easy;
	int			number;			/* of the request */
	size_t		len;
	char		body[1024];
	char		answer[MAX_ANSWER];
} Place;

typedef struct Answer
{
	int			number;
	char		text[MAX_ANSWER];
} Answer;

static const char *const upsert =
"INSERT INTO plain AS p (server, id, key, organization_id, name, provider, domains, active, sync_user_attributes,"
" connection, created_at, updated_at, synced_at)"
" SELECT 'clerk', c->>'id', $2, c->>'organization_id', c->>'name', c->>'provider',"
" ARRAY(SELECT jsonb_array_elements_text(c->'domains')), (c->'active')::bool, (c->'sync_user_attributes')::bool,"
" c, to_timestamp((c->'created_at')::float8 / 1000), to_timestamp((c->'updated_at')::float8 / 1000), clock_timestamp()"
" FROM (VALUES ($1)) AS v (c)"
" ON CONFLICT (server, id) DO UPDATE SET key = excluded.key, organization_id = excluded.organization_id,"
" name = excluded.name, provider = excluded.provider, domains = excluded.domains, active = excluded.active,"
" sync_user_attributes = excluded.sync_user_attributes, connection = excluded.connection,"
" created_at = excluded.created_at, updated_at = excluded.updated_at, synced_at = excluded.synced_at"
" WHERE p.updated_at <= excluded.updated_at";

static CURLM *multi;
static struct curl_slist *headers;
static char url[512];
static PGconn *conn;
static Answer *burst;
static int	burst_len;
static int	sent;
static int	count;

static void
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fputs("flood: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---------- HTTP ---------- */

static size_t
take(char *data, size_t size, size_t n, void *arg)
{
	Place	   *place = arg;
	size_t		len = size * n;

	if (place->len + len >= MAX_ANSWER)
		return 0;
	memcpy(place->answer + place->len, data, len);
	place->len += len;
	return len;
}

static void
start(Place *place)
{
	place->number = sent++;
	place->len = 0;
	snprintf(place->body, sizeof(place->body),
			 "{\"name\":\"Acme %d\",\"provider\":\"saml_okta\",\"domains\":[\"flood%d.example\"],"
			 "\"organization_id\":\"org_2xB7\",\"saml\":{\"idp_entity_id\":\"https://idp.acme.example\","
			 "\"idp_sso_url\":\"https://idp.acme.example/sso\",\"attribute_mapping\":"
			 "{\"email_address\":\"mail\",\"first_name\":\"givenName\"}}}", place->number, place->number);
	curl_easy_setopt(place->easy, CURLOPT_POSTFIELDS, place->body);
	if (curl_multi_add_handle(multi, place->easy) != CURLM_OK)
		fail("could not add a request");
}

static void
prepare(Place *place)
{
	place->easy = curl_easy_init();
	curl_easy_setopt(place->easy, CURLOPT_URL, url);
	curl_easy_setopt(place->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(place->easy, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(place->easy, CURLOPT_WRITEDATA, place);
	curl_easy_setopt(place->easy, CURLOPT_PRIVATE, place);
	curl_easy_setopt(place->easy, CURLOPT_NOSIGNAL, 1L);
}

/* Each place is filled anew as it frees.  Returns the number of answers. */
static int
take_answers(void)
{
	CURLMsg    *message;
	int			left;
	int			n = 0;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		Place	   *place;
		long		status = 0;

		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &place);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		place->answer[place->len] = '\0';
		if (message->data.result != CURLE_OK || status / 100 != 2)
			fail("request %d failed with status %ld: %s", place->number, status, place->answer);
		curl_multi_remove_handle(multi, easy);
		if (conn != NULL)
		{
			burst[burst_len].number = place->number;
			memcpy(burst[burst_len++].text, place->answer, place->len + 1);
		}
		if (sent < count)
			start(place);
		n++;
	}
	return n;
}

/* ---------- the table ---------- */

static void
connect_to(const char *conninfo)
{
	static const Oid types[] = {3802 /* jsonb */ , 25 /* text */ };
	PGresult   *result;

	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		fail("%s", PQerrorMessage(conn));
	result = PQprepare(conn, "upsert", upsert, 2, types);
	if (PQresultStatus(result) != PGRES_COMMAND_OK || !PQenterPipelineMode(conn))
		fail("%s", PQerrorMessage(conn));
	PQclear(result);
}

/* What is between two synchronizations of a pipeline is one transaction. */
static void
write_burst(void)
{
	PGresult   *result;
	bool		more = true;

	if (burst_len == 0)
		return;
	for (int i = 0; i < burst_len; i++)
	{
		char		key[32];
		const char *values[] = {burst[i].text, key};

		snprintf(key, sizeof(key), "flood%d", burst[i].number);
		if (!PQsendQueryPrepared(conn, "upsert", 2, values, NULL, NULL, 0))
			fail("%s", PQerrorMessage(conn));
	}
	if (!PQpipelineSync(conn))
		fail("%s", PQerrorMessage(conn));
	while (more)
	{
		if ((result = PQgetResult(conn)) == NULL)
			continue;
		more = PQresultStatus(result) != PGRES_PIPELINE_SYNC;
		if (more && PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("%s", PQerrorMessage(conn));
		PQclear(result);
	}
	burst_len = 0;
}

int
main(int argc, char **argv)
{
	char		text[256];
	Place	   *places;
	int			concurrency;
	int			done = 0;
	int			running;
	double		begin;

	if (argc != 5 && argc != 6)
	{
		fprintf(stderr, "usage: flood URL KEY COUNT CONCURRENCY [CONNINFO]\n");
		return 2;
	}
	count = atoi(argv[3]);
	concurrency = atoi(argv[4]);
	if (concurrency > count)
		concurrency = count;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) concurrency);
	snprintf(url, sizeof(url), "%s/v1/enterprise_connections", argv[1]);
	snprintf(text, sizeof(text), "Authorization: Bearer %s", argv[2]);
	headers = curl_slist_append(NULL, text);
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Clerk-API-Version: 2026-05-12");
	headers = curl_slist_append(headers, "Expect:");
	places = calloc(concurrency, sizeof(Place));
	burst = calloc(concurrency, sizeof(Answer));
	if (argc == 6)
		connect_to(argv[5]);

	begin = now();
	for (int i = 0; i < concurrency; i++)
	{
		prepare(&places[i]);
		start(&places[i]);
	}
	while (done < count)
	{
		curl_multi_perform(multi, &running);
		done += take_answers();
		/* the next ones are under way while these are written */
		if (burst_len > 0)
		{
			curl_multi_perform(multi, &running);
			write_burst();
		}
		else if (done < count)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	printf("%.1f\n", count / (now() - begin));
	return 0;
}
