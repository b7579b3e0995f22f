/*-------------------------------------------------------------------------
 *
 * url.c
 *		URLs, by libcurl's URL parser.
 *
 * Nothing here touches the network; curl's URL functions need no global
 * initialisation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "base/url.h"

/* What is appended to an api_url, behind /v1. */
#define ENDPOINT "/enterprise_connections"

/*
 * The parts of a URL.  They are copied out of curl's memory at once, so that
 * nothing of curl's is held while something here may throw.
 */
typedef struct UrlParts
{
	char	   *scheme;
	char	   *user;
	char	   *host;
	char	   *port;
	char	   *path;
	char	   *query;
	char	   *fragment;
} UrlParts;

/*
 * Copy one part, or NULL if the URL has none.  Out of memory must not leak
 * the parser's string, hence the non-throwing allocation.
 */
static char *
url_part(CURLU *parser, CURLUPart part, bool *oom)
{
	char	   *value = NULL;
	char	   *copy = NULL;

	if (curl_url_get(parser, part, &value, 0) == CURLUE_OK && value != NULL)
	{
		copy = palloc_extended(strlen(value) + 1, MCXT_ALLOC_NO_OOM);
		if (copy != NULL)
			strcpy(copy, value);
		else
			*oom = true;
	}
	curl_free(value);
	return copy;
}

/*
 * Take a URL apart.  Returns false if it is none.
 */
static bool
url_parse(const char *url, unsigned int flags, UrlParts *parts)
{
	CURLU	   *parser = curl_url();
	bool		oom = (parser == NULL);
	bool		parsed = false;

	memset(parts, 0, sizeof(*parts));
	if (parser != NULL)
	{
		parsed = curl_url_set(parser, CURLUPART_URL, url, flags) == CURLUE_OK;
		if (parsed)
		{
			parts->scheme = url_part(parser, CURLUPART_SCHEME, &oom);
			parts->user = url_part(parser, CURLUPART_USER, &oom);
			parts->host = url_part(parser, CURLUPART_HOST, &oom);
			parts->port = url_part(parser, CURLUPART_PORT, &oom);
			parts->path = url_part(parser, CURLUPART_PATH, &oom);
			parts->query = url_part(parser, CURLUPART_QUERY, &oom);
			parts->fragment = url_part(parser, CURLUPART_FRAGMENT, &oom);
		}
		curl_url_cleanup(parser);
	}
	if (oom)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return parsed;
}

/*
 * Does the host part name this machine for certain?  Only then may a key go
 * over an unencrypted connection.  (curl resolves localhost by itself.)
 *
 * The host is as curl's parser gives it, and that is what requests are sent
 * to: it has made 127.0.0.1 of spellings such as 127.1 and 0x7f000001.  What
 * is left in another form, such as "localhost." or [::ffff:127.0.0.1], is
 * refused, although it may be a loopback address.
 */
static bool
host_is_loopback(const char *host)
{
	struct in_addr v4;

	if (pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

/*
 * Cut slashes and one /v1 off the end of a path.
 */
static void
trim_path(char *path)
{
	size_t		len = strlen(path);

	while (len > 0 && path[len - 1] == '/')
		path[--len] = '\0';
	if (len >= 3 && strcmp(path + len - 3, "/v1") == 0)
		path[len -= 3] = '\0';
	while (len > 0 && path[len - 1] == '/')
		path[--len] = '\0';
}

/*
 * Does a path hold the endpoint's own segment?  Requests would go to
 * .../enterprise_connections/v1/enterprise_connections, where nothing is.
 */
static bool
has_endpoint(const char *path)
{
	const size_t len = strlen(ENDPOINT);

	for (const char *p = strstr(path, ENDPOINT); p != NULL; p = strstr(p + len, ENDPOINT))
		if (p[len] == '\0' || p[len] == '/')
			return true;
	return false;
}

char *
clerk_url_base(const char *api_url, const char **fault)
{
	UrlParts	parts;

	*fault = NULL;
	if (!url_parse(api_url, 0, &parts) || parts.host == NULL || parts.path == NULL)
		*fault = "It must be a URL such as https://api.clerk.com.";
	else if (strcmp(parts.scheme, "https") != 0 && strcmp(parts.scheme, "http") != 0)
		*fault = "Its scheme must be https.";
	else if (strcmp(parts.scheme, "http") == 0 && !host_is_loopback(parts.host))
		*fault = "The secret key would travel unencrypted: http:// is only for a loopback address.";
	else if (parts.user != NULL)
		*fault = "It must not hold a user name or a password.";
	else if (parts.query != NULL || parts.fragment != NULL)
		*fault = "It must not have a query or a fragment.";
	else if (has_endpoint(parts.path))
		*fault = "It must end before " ENDPOINT ", which is appended: https://api.clerk.com, for example.";
	if (*fault != NULL)
		return NULL;

	trim_path(parts.path);
	return psprintf("%s://%s%s%s%s/v1", parts.scheme, parts.host,
					parts.port ? ":" : "", parts.port ? parts.port : "",
					parts.path);
}

bool
clerk_url_is_encrypted(const char *base_url)
{
	return strncmp(base_url, "https:", 6) == 0;
}

const char *
clerk_url_proxy_fault(const char *proxy)
{
	static const char *const schemes[] = {
		"http", "https", "socks4", "socks4a", "socks5", "socks5h"
	};
	UrlParts	parts;

	if (!url_parse(proxy, CURLU_NON_SUPPORT_SCHEME, &parts) || parts.host == NULL)
		return "It must be a URL such as http://proxy.example:3128.";
	if (parts.user != NULL)
		return "It must not hold a user name or a password, as every role can read the options of a server: "
			"set proxy_user and proxy_password in the server's PUBLIC user mapping.";
	if (parts.query != NULL || parts.fragment != NULL ||
		(parts.path != NULL && strcmp(parts.path, "/") != 0))
		return "It must not have a path, a query or a fragment.";
	for (size_t i = 0; i < lengthof(schemes); i++)
		if (strcmp(parts.scheme, schemes[i]) == 0)
			return NULL;
	return "Its scheme must be http, https, socks4, socks4a, socks5 or socks5h.";
}

char *
clerk_url_query_value(const char *utf8)
{
	/* All but RFC 3986's unreserved characters; a length of 0 means strlen. */
	char	   *escaped = curl_easy_escape(NULL, utf8, 0);
	char	   *copy = NULL;

	if (escaped != NULL)
		copy = palloc_extended(strlen(escaped) + 1, MCXT_ALLOC_NO_OOM);
	if (copy != NULL)
		strcpy(copy, escaped);
	curl_free(escaped);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return copy;
}

char *
clerk_url_segment(const char *utf8)
{
	if (*utf8 == '\0' || strcmp(utf8, ".") == 0 || strcmp(utf8, "..") == 0)
		return NULL;
	return clerk_url_query_value(utf8);
}
