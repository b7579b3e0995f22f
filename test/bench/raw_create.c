/*-------------------------------------------------------------------------
 *
 * raw_create.c
 *		The least that creating enterprise connections can cost: one libcurl
 *		handle, kept alive, that sends the same bodies and reads the answers.
 *
 * raw_create URL KEY COUNT PREFIX prints the microseconds of one request.
 *
 *-------------------------------------------------------------------------
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct Answer
{
	char		text[65536];
	size_t		len;
} Answer;

static size_t
take_answer(char *data, size_t size, size_t count, void *arg)
{
	Answer	   *answer = arg;
	size_t		len = size * count;

	if (answer->len + len > sizeof(answer->text))
		return 0;
	memcpy(answer->text + answer->len, data, len);
	answer->len += len;
	return len;
}

static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

int
main(int argc, char **argv)
{
	struct curl_slist *headers = NULL;
	char		text[4096];
	Answer		answer;
	CURL	   *curl;
	double		start;
	int			count;

	if (argc != 5)
	{
		fprintf(stderr, "usage: raw_create URL KEY COUNT PREFIX\n");
		return 2;
	}
	count = atoi(argv[3]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	curl = curl_easy_init();
	snprintf(text, sizeof(text), "Authorization: Bearer %s", argv[2]);
	headers = curl_slist_append(headers, text);
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Expect:");
	snprintf(text, sizeof(text), "%s/v1/enterprise_connections", argv[1]);
	curl_easy_setopt(curl, CURLOPT_URL, text);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);

	start = now_us();
	for (int i = 0; i < count; i++)
	{
		long		status = 0;

		snprintf(text, sizeof(text),
				 "{\"name\":\"Acme\",\"provider\":\"saml_okta\",\"domains\":[\"%s%d.example\"],"
				 "\"organization_id\":\"org_2xB7\",\"saml\":{\"idp_entity_id\":\"https://idp.acme.example\","
				 "\"idp_sso_url\":\"https://idp.acme.example/sso\",\"attribute_mapping\":"
				 "{\"email_address\":\"mail\",\"first_name\":\"givenName\"}}}", argv[4], i);
		answer.len = 0;
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text);
		if (curl_easy_perform(curl) != CURLE_OK ||
			curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK || status != 201)
		{
			fprintf(stderr, "raw_create: request %d failed with status %ld: %.*s\n",
					i, status, (int) answer.len, answer.text);
			return 1;
		}
	}
	printf("%.1f\n", (now_us() - start) / count);
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	curl_global_cleanup();
	return 0;
}
