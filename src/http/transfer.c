/*-------------------------------------------------------------------------
 *
 * transfer.c
 *		One HTTP request: what is sent, what is answered, what went wrong.
 *
 * A transfer is libcurl's side of a request.  A callback of libcurl must not
 * throw: a longjmp would leave libcurl's handles in the middle of a call, and
 * unusable.  So callbacks note in the transfer what has happened, and return.
 * What libcurl holds is released by a memory context callback, so that an ERROR
 * anywhere leaves nothing behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/internal.h"
#include "utils/memutils.h"

/*
 * All headers of an answer together.  Clerk's have about 2 kB; libcurl keeps them
 * in memory, of which a hostile server could otherwise use any amount.
 */
#define MAX_HEADER_BYTES (256 * 1024)

/*
 * The longest Retry-After that is obeyed (s).  Without a bound, one wrong answer
 * of a proxy could stop all requests of a server for days.  The outbox's own
 * backoff has the same bound.
 */
#define MAX_RETRY_AFTER (60 * 60)

/*
 * Called when a connection is open and sending begins.  If it is called a second
 * time, libcurl is about to repeat the request on a new connection, because an
 * old one broke before an answer came.  Clerk may have received and carried out
 * the first one; so the caller must decide whether to send it again, and count
 * it.
 */
static int
prereq_callback(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	ClerkHttpTransfer *transfer = arg;
	ClerkHttpRequest *request = transfer->request;
	long		sent = 0;

	if (request->started &&
		(curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent) != CURLE_OK || sent > 0))
	{
		transfer->kept_broke = true;
		transfer->own_fault = "A connection that had been kept open was closed before an answer came";
		return CURL_PREREQFUNC_ABORT;
	}
	request->started = true;
	return CURL_PREREQFUNC_OK;
}

static size_t
write_callback(char *data, size_t size, size_t count, void *arg)
{
	ClerkHttpTransfer *transfer = arg;
	size_t		room = transfer->request->max_answer - transfer->answer_len;
	size_t		len = Min(size * count, room);
	size_t		needed = transfer->answer_len + len + 1;

	if (needed > transfer->answer_size)
	{
		size_t		larger = Max(needed, Max(transfer->answer_size * 2, 4096));
		char	   *moved = realloc(transfer->answer, larger);

		if (moved == NULL)
		{
			transfer->own_fault = "This process is short of memory for the answer";
			return CURL_WRITEFUNC_ERROR;
		}
		transfer->answer = moved;
		transfer->answer_size = larger;
	}
	memcpy(transfer->answer + transfer->answer_len, data, len);
	transfer->answer_len += len;
	transfer->answer[transfer->answer_len] = '\0';
	if (len < size * count)
	{
		transfer->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	return len;
}

static size_t
header_callback(char *data, size_t size, size_t count, void *arg)
{
	ClerkHttpTransfer *transfer = arg;

	clerk_pool_connected(transfer);
	transfer->header_bytes += size * count;
	if (transfer->header_bytes > MAX_HEADER_BYTES)
	{
		transfer->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	return size * count;
}

/*
 * Release what libcurl holds of a transfer, and remove it from its set.  This is
 * also called from memory context callbacks, so it must not throw.  Afterwards
 * the set may be freed.
 */
void
clerk_transfer_release(ClerkHttpTransfer *transfer)
{
	if (transfer->easy == NULL)
		return;
	clerk_pool_remove(transfer);
	clerk_pool_connected(transfer);
	if (transfer->pending)
		transfer->set->pending--;
	transfer->pending = false;
	clerk_pool_return_handle(transfer->easy);
	transfer->easy = NULL;
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	free(transfer->answer);
	transfer->answer = NULL;
	dlist_delete(&transfer->node);
	transfer->set = NULL;
}

#define SET_OPTION(option, value) \
	do { \
		CURLcode	code_ = curl_easy_setopt(easy, option, value); \
		if (code_ == CURLE_OUT_OF_MEMORY) \
			clerk_http_out_of_memory(); \
		if (code_ != CURLE_OK) \
			elog(ERROR, "could not set %s: %s", #option, curl_easy_strerror(code_)); \
	} while (0)

static void
add_header(ClerkHttpTransfer *transfer, const char *header)
{
	struct curl_slist *longer = curl_slist_append(transfer->headers, header);

	if (longer == NULL)
		clerk_http_out_of_memory();
	transfer->headers = longer;
}

static void
set_headers(ClerkHttpTransfer *transfer)
{
	ListCell   *lc;
	CURL	   *easy = transfer->easy;

	foreach(lc, transfer->request->headers)
		add_header(transfer, lfirst(lc));

	/*
	 * By itself libcurl waits for a 100 Continue before it sends a large
	 * body, and calls an empty one a form.
	 */
	add_header(transfer, "Expect:");
	if (transfer->request->body != NULL && transfer->request->body_len == 0)
		add_header(transfer, "Content-Type:");
	SET_OPTION(CURLOPT_HTTPHEADER, transfer->headers);
}

/*
 * HTTP/2 where libcurl was built with it: otherwise asking for it is an error.
 */
static long
http_version(void)
{
	static long version = 0;

	/* libcurl builds its answer anew at each call. */
	if (version == 0)
		version = (curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_HTTP2) ?
			CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
	return version;
}

static void
set_method(ClerkHttpTransfer *transfer)
{
	ClerkHttpRequest *request = transfer->request;
	CURL	   *easy = transfer->easy;

	if (request->body != NULL)
	{
		SET_OPTION(CURLOPT_POSTFIELDS, request->body);
		SET_OPTION(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
	}
	SET_OPTION(CURLOPT_CUSTOMREQUEST, request->method);
	SET_OPTION(CURLOPT_URL, request->url);
	SET_OPTION(CURLOPT_PATH_AS_IS, 1L);
	SET_OPTION(CURLOPT_PROTOCOLS_STR, strncmp(request->url, "https:", 6) == 0 ? "https" : "http");
	SET_OPTION(CURLOPT_FOLLOWLOCATION, 0L);
	SET_OPTION(CURLOPT_HTTP_VERSION, http_version());
	SET_OPTION(CURLOPT_PIPEWAIT, strncmp(request->url, "https:", 6) == 0 ? 1L : 0L);
	SET_OPTION(CURLOPT_TIMEOUT_MS, (long) request->timeout);
	SET_OPTION(CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout);

	/* An empty string: do not take a proxy from the environment either. */
	SET_OPTION(CURLOPT_PROXY, request->proxy ? request->proxy : "");
	SET_OPTION(CURLOPT_NOPROXY, "");
	if (request->proxy != NULL && request->proxy_user != NULL)
	{
		SET_OPTION(CURLOPT_PROXYUSERNAME, request->proxy_user);
		SET_OPTION(CURLOPT_PROXYPASSWORD, request->proxy_password ? request->proxy_password : "");
	}

	SET_OPTION(CURLOPT_SSL_VERIFYPEER, 1L);
	SET_OPTION(CURLOPT_SSL_VERIFYHOST, 2L);
	SET_OPTION(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (request->ca_file != NULL)
	{
		SET_OPTION(CURLOPT_CAINFO, request->ca_file);
		SET_OPTION(CURLOPT_CAPATH, NULL);
	}
}

static void
set_callbacks(ClerkHttpTransfer *transfer)
{
	CURL	   *easy = transfer->easy;

	SET_OPTION(CURLOPT_PRIVATE, (void *) transfer);
	SET_OPTION(CURLOPT_ERRORBUFFER, transfer->error);
	SET_OPTION(CURLOPT_WRITEFUNCTION, write_callback);
	SET_OPTION(CURLOPT_WRITEDATA, (void *) transfer);
	SET_OPTION(CURLOPT_HEADERFUNCTION, header_callback);
	SET_OPTION(CURLOPT_HEADERDATA, (void *) transfer);
	SET_OPTION(CURLOPT_PREREQFUNCTION, prereq_callback);
	SET_OPTION(CURLOPT_PREREQDATA, (void *) transfer);
	SET_OPTION(CURLOPT_OPENSOCKETFUNCTION, clerk_pool_open_socket);
	SET_OPTION(CURLOPT_OPENSOCKETDATA, (void *) transfer);
	SET_OPTION(CURLOPT_CLOSESOCKETFUNCTION, clerk_pool_close_socket);

	/* SIGALRM is PostgreSQL's. */
	SET_OPTION(CURLOPT_NOSIGNAL, 1L);

	/* Without it, abandoning a request waits for its name look-up to end. */
	SET_OPTION(CURLOPT_QUICK_EXIT, 1L);
}

/*
 * Set up a transfer, which must be in its set already, and give it to libcurl.
 */
void
clerk_transfer_start(ClerkHttpTransfer *transfer)
{
	set_callbacks(transfer);
	set_method(transfer);
	set_headers(transfer);
	clerk_pool_add(transfer);
}

static ClerkHttpFault
fault_kind(CURLcode result)
{
	switch (result)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return CLERK_HTTP_FAULT_RESOLVE;
		case CURLE_OPERATION_TIMEDOUT:
			return CLERK_HTTP_FAULT_TIMEOUT;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
			return CLERK_HTTP_FAULT_TLS;
		default:
			return CLERK_HTTP_FAULT_OTHER;
	}
}

/*
 * The answer's Retry-After in ms; -1 if there is none, or it cannot be read.
 * libcurl reads both forms, but returns 0 for what it cannot read.
 */
static int64
retry_after(ClerkHttpTransfer *transfer)
{
	struct curl_header *header;
	curl_off_t	seconds = 0;

	if (curl_easy_header(transfer->easy, "Retry-After", 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return -1;
	if (*header->value != '\0' && strspn(header->value, "0123456789") == strlen(header->value))
		seconds = strlen(header->value) > 9 ? MAX_RETRY_AFTER : atol(header->value);
	else if (curl_getdate(header->value, NULL) != -1)
		curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &seconds);
	else
		return -1;
	return Max(Min(seconds, MAX_RETRY_AFTER), 0) * (int64) 1000;
}

/*
 * Why there is no answer, as a sentence without its full stop: in libcurl's
 * words, unless a callback of ours was the reason.  A text that fills libcurl's
 * buffer was cut off; it could end in a part of a secret, which would not be
 * found and removed any more.
 */
static char *
fault_text(const ClerkHttpTransfer *transfer)
{
	const char *text = transfer->error;
	char	   *fault;

	if (transfer->own_fault != NULL)
		return pstrdup(transfer->own_fault);
	if (*text == '\0' || strlen(text) >= CURL_ERROR_SIZE - 1)
		text = curl_easy_strerror(transfer->result);
	fault = pstrdup(text);

	/* libcurl may quote bytes from the network, in whatever encoding. */
	for (char *p = fault; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return fault;
}

/*
 * Did this process or this machine lack something, so that nothing was sent?
 * Returns what, as a sentence, or NULL.
 */
static const char *
shortage_of(const ClerkHttpTransfer *transfer)
{
	if (transfer->request->started || transfer->result == CURLE_OK)
		return NULL;
	if (transfer->shortage != NULL)
		return transfer->shortage;
	if (transfer->result == CURLE_OUT_OF_MEMORY)
		return "This process is short of memory.";
	if (strstr(transfer->error, "thread failed to start") != NULL)
		return "The operating system allows no more threads.";
	return NULL;
}

/*
 * Fill in the answering half of the request, in its memory context: the
 * current one may live as long as the process.
 */
void
clerk_transfer_report(ClerkHttpTransfer *transfer)
{
	ClerkHttpRequest *request = transfer->request;
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(request));
	long		status = 0;
	curl_off_t	elapsed = 0;

	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(transfer->easy, CURLINFO_TOTAL_TIME_T, &elapsed);
	request->status = (int) status;
	request->elapsed = elapsed;
	request->answer = transfer->answer;
	request->answer_len = transfer->answer_len;
	request->retry_after = retry_after(transfer);
	request->kept_broke = transfer->kept_broke;
	request->fault = NULL;
	request->fault_kind = fault_kind(transfer->result);

	if (transfer->result != CURLE_OK)
		request->fault = fault_text(transfer);
	if (transfer->result == CURLE_OK)
		request->outcome = CLERK_HTTP_ANSWERED;
	else if (transfer->too_large)
		request->outcome = CLERK_HTTP_TOO_LARGE;
	else if (request->started)
		request->outcome = CLERK_HTTP_BROKEN;
	else if (shortage_of(transfer) != NULL)
	{
		request->outcome = CLERK_HTTP_SHORTAGE;
		request->fault = pstrdup(shortage_of(transfer));
	}
	else
		request->outcome = CLERK_HTTP_NOT_SENT;
	MemoryContextSwitchTo(old);
}

char *
clerk_http_header(const ClerkHttpRequest *request, const char *name)
{
	struct curl_header *header;
	char	   *value;

	if (request->transfer == NULL || request->transfer->easy == NULL ||
		curl_easy_header(request->transfer->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	if (curl_easy_header(request->transfer->easy, name, header->amount - 1,
						 CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	value = pstrdup(header->value);
	for (char *p = value; *p; p++)
		if (*p < ' ' || *p > '~')
			return NULL;
	return value;
}

void
clerk_http_release(ClerkHttpRequest *request)
{
	if (request->transfer != NULL)
		clerk_transfer_release(request->transfer);
	request->transfer = NULL;
	request->answer = NULL;
	request->answer_len = 0;
}
