/*-------------------------------------------------------------------------
 *
 * url.h
 *		URLs, by libcurl's URL parser.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_URL_H
#define CLERK_URL_H

/*
 * Normalise an api_url: scheme, host and port, a path prefix, no trailing
 * slash or /v1.  Returns it palloc'd with "/v1" appended, or NULL with *fault
 * set to a sentence that says what is wrong.
 */
extern char *clerk_url_base(const char *api_url, const char **fault);

/*
 * Is what such a base URL is sent encrypted?  If not, it is a loopback
 * address, and the request must not leave this machine by way of a proxy.
 */
extern bool clerk_url_is_encrypted(const char *base_url);

/*
 * Check a proxy's URL.  Returns NULL if it is good, else a sentence.
 */
extern const char *clerk_url_proxy_fault(const char *proxy);

/*
 * Percent-encode UTF-8 text as one path segment or query value.  Returns NULL
 * if the text cannot be a segment of its own: it is empty, "." or "..", which
 * URL normalisation would take away.  palloc'd.
 */
extern char *clerk_url_segment(const char *utf8);
extern char *clerk_url_query_value(const char *utf8);

#endif							/* CLERK_URL_H */
