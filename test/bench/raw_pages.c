/*-------------------------------------------------------------------------
 *
 * raw_pages.c
 *		The least that reading all connections can cost: the pages of the
 *		listing, so many at a time, read and thrown away.
 *
 * raw_pages URL KEY CONCURRENCY prints the milliseconds of the whole, and
 *		what was read.
 *
 *-------------------------------------------------------------------------
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE_SIZE 500

static struct curl_slist *headers;
static const char *base;
static long offset;
static long total = PAGE_SIZE;

static double bytes;

/* Enough of the first page to see total_count, which ends it. */
static char tail[64];

static size_t
drop(char *data, size_t size, size_t count, void *arg)
{
	size_t		len = size * count;
	size_t		take = len < sizeof(tail) - 1 ? len : sizeof(tail) - 1;
	size_t		old = strlen(tail);
	size_t		keep = old + take < sizeof(tail) - 1 ? old : sizeof(tail) - 1 - take;

	/* It may come in pieces. */
	(void) arg;
	memmove(tail, tail + old - keep, keep);
	memcpy(tail + keep, data + len - take, take);
	tail[keep + take] = '\0';
	bytes += len;
	return len;
}

static void
start(CURLM *multi, CURL *easy)
{
	char		url[512];

	snprintf(url, sizeof(url), "%s/v1/enterprise_connections?limit=%d&offset=%ld", base, PAGE_SIZE, offset);
	offset += PAGE_SIZE;
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
	curl_multi_add_handle(multi, easy);
}

/* Run until all is read; each place is filled anew as it frees. */
static int
run(CURLM *multi, int concurrency)
{
	int			running = 0;

	for (int i = 0; i < concurrency && offset < total; i++)
		start(multi, curl_easy_init());
	do
	{
		CURLMsg    *message;
		int			left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left)) != NULL)
		{
			CURL	   *easy = message->easy_handle;
			long		status = 0;

			curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
			if (message->data.result != CURLE_OK || status != 200)
			{
				fprintf(stderr, "raw_pages: failed with status %ld\n", status);
				return 1;
			}
			curl_multi_remove_handle(multi, easy);
			if (offset < total)
			{
				start(multi, easy);
				running = 1;
			}
			else
				curl_easy_cleanup(easy);
		}
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	} while (running);
	return 0;
}

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int
main(int argc, char **argv)
{
	char		text[256];
	const char *count;
	CURLM	   *multi;
	double		begin = now_ms();

	if (argc != 4)
	{
		fprintf(stderr, "usage: raw_pages URL KEY CONCURRENCY\n");
		return 2;
	}
	base = argv[1];
	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	snprintf(text, sizeof(text), "Authorization: Bearer %s", argv[2]);
	headers = curl_slist_append(NULL, text);

	/* The first page is waited for: it says how many there are. */
	if (run(multi, 1) != 0)
		return 1;
	count = strstr(tail, "\"total_count\":");
	total = count ? atol(count + strlen("\"total_count\":")) : 0;
	if (run(multi, atoi(argv[3])) != 0)
		return 1;
	if (total == 0)
	{
		fprintf(stderr, "raw_pages: there is no total_count\n");
		return 1;
	}
	printf("%.1f ms, %ld connections, %.1f MB\n", now_ms() - begin, total, bytes / 1e6);
	curl_slist_free_all(headers);
	curl_multi_cleanup(multi);
	curl_global_cleanup();
	return 0;
}
