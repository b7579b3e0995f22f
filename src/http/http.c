/*-------------------------------------------------------------------------
 *
 * http.c
 *		HTTP requests, many at a time, by libcurl's multi interface.
 *
 * One multi handle for the process, the pool, keeps the connections.  libcurl
 * tells it which sockets to watch and when its next timer is due; the wait
 * itself is a WaitEventSet, together with the latch, which is the caller's to
 * reset, and the postmaster's death.
 *
 * Nothing throws inside a callback of libcurl: callbacks note what happened
 * in the transfer and return.  What libcurl holds is released by a memory
 * context callback, so that an ERROR anywhere leaves nothing behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "http/http.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

/* Header lines beyond this in all are an attack, not an answer. */
#define MAX_HEADER_BYTES (256 * 1024)

/*
 * A server that asks for more patience than an hour, in s, is not obeyed any
 * longer than that: one wrong answer of a proxy must not stop a server for a
 * day.  The outbox's own backoff has the same bound.
 */
#define MAX_RETRY_AFTER (60 * 60)

/*
 * Of the files that PostgreSQL leaves to extensions in each process, so many
 * stay free for others, such as the connections of postgres_fdw.
 */
#define SPARE_FILES 16

/*
 * Once a file could not be had, nothing new is begun for so many ms: one that
 * is open may be closed meanwhile.
 */
#define SHORTAGE_PAUSE 100

/*
 * Connections that stay open while no set needs more.  A session talks to one
 * server, now and then to a second.
 */
#define IDLE_CONNECTIONS 4

/* Easy handles kept for the next request. */
#define SPARE_HANDLES 4

/* The latch is the first event of a wait set. */
#define LATCH_EVENT 0

/* Streams on one HTTP/2 connection; libcurl's default of 100 opens more connections. */
#define MAX_STREAMS 500

/*
 * What libcurl does for a request.  It lives in the memory context of the
 * request, and has a callback there: whichever of the two contexts, this one
 * or the set's, is reset first, takes it out of the other's reach.
 */
typedef struct ClerkHttpTransfer
{
	dlist_node	node;			/* in one of its set's lists */
	ClerkHttpSet *set;
	ClerkHttpRequest *request;
	MemoryContextCallback cleanup;
	CURL	   *easy;			/* NULL once released */
	struct curl_slist *headers;
	bool		in_multi;
	bool		pending;		/* not yet returned by clerk_http_next */
	bool		connecting;		/* may still need a new connection */
	bool		opened;			/* a socket, at least one */
	bool		too_large;
	bool		kept_broke;		/* a kept connection broke before an answer came */
	const char *shortage;		/* why it could not have a socket, in our words */
	const char *own_fault;		/* in our words, of what a callback has refused */
	size_t		header_bytes;
	CURLcode	result;
	char	   *answer;			/* malloc'd: callbacks cannot palloc */
	size_t		answer_len;
	size_t		answer_size;
	char		error[CURL_ERROR_SIZE];
} ClerkHttpTransfer;

struct ClerkHttpSet
{
	dlist_node	node;			/* in the pool's list */
	int			nest_level;		/* of the (sub)transaction that began it */
	dlist_head	running;
	dlist_head	finished;		/* not yet returned by clerk_http_next */
	dlist_head	returned;		/* not yet released */
	int			pending;
	MemoryContextCallback cleanup;
	bool		ended;
};

typedef struct WatchedSocket
{
	curl_socket_t fd;
	int			what;			/* CURL_POLL_IN, _OUT, _INOUT */
} WatchedSocket;

/*
 * A socket that counts against the files that this process may open.  libcurl
 * 7.88.1 and 8.0 to 8.1 close one whose connect is not finished without the
 * close callback.  So a socket is known by its inode, too: where another one,
 * or nothing, has its number, it has been closed.
 */
typedef struct OpenSocket
{
	curl_socket_t fd;
	dev_t		device;
	ino_t		inode;
	ClerkHttpTransfer *opener;	/* NULL once that is over */
} OpenSocket;

/*
 * The process's one multi handle and what it wants to be woken for.
 */
typedef struct Pool
{
	CURLM	   *multi;
	OpenSocket *open;			/* malloc'd */
	int			nopen;
	int			open_size;
	int64		shortage_until; /* ms; a file could not be had */
	WatchedSocket *sockets;		/* malloc'd */
	int			nsockets;
	int			sockets_size;
	int64		timer;			/* when libcurl wants to run; -1: not */
	WaitEventSet *waits;
	WatchedSocket *waited;		/* the sockets in waits; malloc'd */
	int			nwaited;
	bool		changed;		/* a socket was opened or closed since waits was made */
	CURL	   *spare[SPARE_HANDLES];
	int			nspare;
	int			max_concurrency;	/* largest of the sets since multi was made */
	dlist_head	sets;			/* that have not ended */
	int			nsets;
	int			pending;		/* transfers of all sets that are not finished */
	int			connecting;		/* transfers that may need a new connection */
} Pool;

static Pool pool = {.timer = -1, .sets = DLIST_STATIC_INIT(pool.sets)};

/*
 * libcurl's resolver runs in a thread, which inherits the signal mask.  A
 * thread of a backend must never take a signal, so all are blocked whenever
 * libcurl may start one: until a request has an answer, as a connection that
 * was kept can turn out to be dead.
 */
static CURLMcode
act_with_signals_blocked(curl_socket_t fd, int what)
{
	int			running;
	CURLMcode	code;
	sigset_t	all;
	sigset_t	saved;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &saved);
	code = curl_multi_socket_action(pool.multi, fd, what, &running);
	sigprocmask(SIG_SETMASK, &saved, NULL);
	return code;
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while preparing an HTTP request.")));
}

/*-------------------------------------------------------------------------
 * Callbacks of libcurl: no ereport, no palloc, no interrupts
 *-------------------------------------------------------------------------
 */

static int
socket_callback(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	int			i;

	for (i = 0; i < pool.nsockets && pool.sockets[i].fd != fd; i++)
		;
	if (what == CURL_POLL_REMOVE)
	{
		if (i < pool.nsockets)
			pool.sockets[i] = pool.sockets[--pool.nsockets];
		return 0;
	}
	if (i == pool.sockets_size)
	{
		int			size = pool.sockets_size ? pool.sockets_size * 2 : 16;
		WatchedSocket *larger = realloc(pool.sockets, size * sizeof(*larger));

		if (larger == NULL)
			return -1;
		pool.sockets = larger;
		pool.sockets_size = size;
	}
	if (i == pool.nsockets)
		pool.nsockets++;
	pool.sockets[i] = (WatchedSocket) {.fd = fd, .what = what};
	return 0;
}

static int
timer_callback(CURLM *multi, long timeout_ms, void *arg)
{
	pool.timer = timeout_ms < 0 ? -1 : clerk_now_ms() + timeout_ms;
	return 0;
}

/*
 * Is it still the socket that was opened?
 */
static bool
is_open(const OpenSocket *socket)
{
	struct stat st;

	return fstat(socket->fd, &st) == 0 &&
		st.st_dev == socket->device && st.st_ino == socket->inode;
}

static void
forget_socket(int n)
{
	pool.open[n] = pool.open[--pool.nopen];
	pool.changed = true;
	ReleaseExternalFD();
}

/*
 * Stop counting what libcurl has closed without a word: of one transfer, which
 * is over, or of all.
 */
static void
reconcile_sockets(const ClerkHttpTransfer *opener)
{
	for (int i = pool.nopen - 1; i >= 0; i--)
	{
		if (opener != NULL && pool.open[i].opener != opener)
			continue;
		if (!is_open(&pool.open[i]))
			forget_socket(i);
		else if (opener != NULL)
			pool.open[i].opener = NULL;
	}
}

/*
 * The most sockets that this process opens.  One file stays free for the wait
 * set, without which none of them is of any use.
 */
static int
max_sockets(void)
{
	int			files = max_safe_fds / 3 - 1;

	return Max(Max(files - SPARE_FILES, files / 2), 1);
}

static bool
is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/*
 * Take note of a new socket, which has been acquired.  False if memory is
 * short.
 */
static bool
note_socket(curl_socket_t fd, ClerkHttpTransfer *opener)
{
	struct stat st;

	/* Its number is back, so the socket that had it is closed. */
	for (int i = pool.nopen - 1; i >= 0; i--)
		if (pool.open[i].fd == fd)
			forget_socket(i);
	if (pool.nopen == pool.open_size)
	{
		int			size = pool.open_size ? pool.open_size * 2 : 16;
		OpenSocket *larger = realloc(pool.open, size * sizeof(*larger));

		if (larger == NULL)
			return false;
		pool.open = larger;
		pool.open_size = size;
	}
	if (fstat(fd, &st) != 0)
		return false;
	pool.open[pool.nopen++] = (OpenSocket)
	{
		.fd = fd,.device = st.st_dev,.inode = st.st_ino,.opener = opener
	};
	opener->opened = true;
	pool.changed = true;
	return true;
}

static curl_socket_t
refuse_socket(ClerkHttpTransfer *transfer, const char *why)
{
	transfer->shortage = why;
	pool.shortage_until = clerk_now_ms() + SHORTAGE_PAUSE;
	return CURL_SOCKET_BAD;
}

/*
 * Sockets count against the files that this process may open.  Beyond what
 * PostgreSQL leaves to extensions there is none, and the transfer, of which
 * nothing was sent, fails by a local shortage.
 */
static curl_socket_t
open_callback(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	ClerkHttpTransfer *transfer = arg;
	curl_socket_t fd;

	if (pool.nopen >= max_sockets())
		reconcile_sockets(NULL);
	if (pool.nopen >= max_sockets() || !AcquireExternalFD())
		return refuse_socket(transfer, "This process has as many open files as PostgreSQL allows it.");
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd == CURL_SOCKET_BAD)
	{
		int			error = errno;

		ReleaseExternalFD();
		if (is_shortage(error))
			return refuse_socket(transfer, error == EMFILE || error == ENFILE ?
								 "The operating system allows no more open files." :
								 "The operating system is short of memory.");
		return CURL_SOCKET_BAD;
	}
	if (!note_socket(fd, transfer))
	{
		(void) close(fd);
		ReleaseExternalFD();
		return refuse_socket(transfer, "This process is short of memory.");
	}
	return fd;
}

static int
close_callback(void *arg, curl_socket_t fd)
{
	for (int i = pool.nopen - 1; i >= 0; i--)
		if (pool.open[i].fd == fd)
			forget_socket(i);
	return close(fd);
}

static void
connecting_ends(ClerkHttpTransfer *transfer)
{
	if (transfer->connecting)
		pool.connecting--;
	transfer->connecting = false;
}

/*
 * Called when a connection is there and sending begins.  If libcurl comes
 * here twice, it is about to repeat the request on a new connection because
 * an old one broke without an answer.  Of the first attempt, Clerk may have
 * taken all that was sent; so whether it is sent again, the caller decides,
 * and counts.
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

	connecting_ends(transfer);
	transfer->header_bytes += size * count;
	if (transfer->header_bytes > MAX_HEADER_BYTES)
	{
		transfer->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	return size * count;
}

/*-------------------------------------------------------------------------
 * The pool
 *-------------------------------------------------------------------------
 */

static void pool_make_waits(void);

static void
pool_init(void)
{
	static bool global_done = false;

	/* First of all its file: later there may be only as many as sockets take. */
	if (pool.waits == NULL)
		pool_make_waits();
	if (pool.multi != NULL)
		return;

	/* Never in the postmaster: what it initialised, children would share. */
	if (!global_done && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libcurl")));
	global_done = true;

	pool.multi = curl_multi_init();
	if (pool.multi == NULL)
		out_of_memory();
	curl_multi_setopt(pool.multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(pool.multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(pool.multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	curl_multi_setopt(pool.multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long) MAX_STREAMS);

	/* Beyond it, idle connections are closed to make room for a new one. */
	curl_multi_setopt(pool.multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) max_sockets());
	pool.max_concurrency = 0;
}

/*
 * Close all connections, so that a session that once sent many requests at a
 * time does not keep that many sockets.
 */
static void
pool_close(void)
{
	curl_multi_cleanup(pool.multi);
	pool.multi = NULL;
	pool.timer = -1;
	pool.nsockets = 0;
	reconcile_sockets(NULL);
}

static CURL *
take_handle(void)
{
	if (pool.nspare > 0)
		return pool.spare[--pool.nspare];
	return curl_easy_init();
}

static void
give_handle_back(CURL *easy)
{
	if (pool.nspare < SPARE_HANDLES)
	{
		curl_easy_reset(easy);
		pool.spare[pool.nspare++] = easy;
	}
	else
		curl_easy_cleanup(easy);
}

/*
 * Let libcurl act on a socket, or on its timers.
 */
static void
pool_act(curl_socket_t fd, int what)
{
	int			running;
	CURLMcode	code;

	code = pool.connecting > 0 ? act_with_signals_blocked(fd, what) :
		curl_multi_socket_action(pool.multi, fd, what, &running);
	if (code != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not send requests: %s", curl_multi_strerror(code))));
}

/*
 * libcurl's timer goes off once; it sets it again if it wants to.
 */
static void
pool_act_on_timer(void)
{
	pool.timer = -1;
	pool_act(CURL_SOCKET_TIMEOUT, 0);
}

/*
 * Does waits hold just the sockets to watch?  Between two requests libcurl
 * forgets a kept connection's socket and remembers it; nothing has changed
 * then.  A closed one has left the kernel's set, even if its number is back.
 */
static bool
waits_are_right(void)
{
	return pool.waits != NULL && !pool.changed && pool.nwaited == pool.nsockets &&
		(pool.nsockets == 0 ||
		 memcmp(pool.waited, pool.sockets, pool.nsockets * sizeof(WatchedSocket)) == 0);
}

/*
 * An empty set of what to wait for.  PostgreSQL would say XX000 if there is no
 * file for it.
 */
static WaitEventSet *
new_waits(int nevents)
{
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no free file descriptor to wait for Clerk"),
				 errdetail("This process has as many open files as PostgreSQL allows it."),
				 errhint("Close other connections of this session, such as those of foreign tables, or raise max_files_per_process.")));
	ReleaseExternalFD();
	return clerk_create_wait_event_set(nevents);
}

/*
 * A WaitEventSet cannot forget a socket, so it is made anew when they change.
 */
static void
pool_make_waits(void)
{
	WatchedSocket *waited = realloc(pool.waited, (pool.nsockets + 1) * sizeof(*waited));

	if (waited == NULL)
		out_of_memory();
	pool.waited = waited;
	if (pool.waits != NULL)
		FreeWaitEventSet(pool.waits);
	pool.waits = NULL;
	pool.waits = new_waits(pool.nsockets + 2);
	AddWaitEventToSet(pool.waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	if (IsUnderPostmaster)
		AddWaitEventToSet(pool.waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < pool.nsockets; i++)
	{
		int			what = pool.sockets[i].what;

		AddWaitEventToSet(pool.waits,
						  ((what & CURL_POLL_IN) ? WL_SOCKET_READABLE : 0) |
						  ((what & CURL_POLL_OUT) ? WL_SOCKET_WRITEABLE : 0),
						  pool.sockets[i].fd, NULL, NULL);
		pool.waited[i] = pool.sockets[i];
	}
	pool.nwaited = pool.nsockets;
	pool.changed = false;
}

/*
 * Let libcurl act on what has happened to its sockets.  Returns whether the
 * latch was among it, which is left as it is.
 */
static bool
pool_act_on_events(const WaitEvent *events, int nevents)
{
	bool		latch_set = false;

	for (int i = 0; i < nevents; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			latch_set = true;
		else
			pool_act(events[i].fd,
					 ((events[i].events & WL_SOCKET_READABLE) ? CURL_CSELECT_IN : 0) |
					 ((events[i].events & WL_SOCKET_WRITEABLE) ? CURL_CSELECT_OUT : 0));
	}
	return latch_set;
}

/*
 * Wait for something to happen, at the latest at until, and let libcurl act
 * on it.  Returns whether the latch is set.
 */
static bool
pool_wait(int64 until)
{
	WaitEvent	events[32];
	int64		now = clerk_now_ms();
	int64		wake = pool.timer >= 0 && (until < 0 || pool.timer < until) ? pool.timer : until;
	int			nevents;
	bool		latch_set;

	/* A new request starts here: there is nothing to wait for yet. */
	if (pool.timer >= 0 && pool.timer <= now)
	{
		pool_act_on_timer();
		return false;
	}
	if (!waits_are_right())
		pool_make_waits();
	nevents = WaitEventSetWait(pool.waits,
							   wake < 0 ? -1L : (long) Min(Max(wake - now, 0), INT_MAX),
							   events, lengthof(events), clerk_wait_event());
	latch_set = pool_act_on_events(events, nevents);

	/*
	 * Up to PostgreSQL 15, a latch that is set hides the sockets.  One that is
	 * set again and again must not keep answers from being seen.
	 */
	if (latch_set && nevents == 1 && pool.nwaited > 0)
	{
		ModifyWaitEvent(pool.waits, LATCH_EVENT, WL_LATCH_SET, NULL);
		nevents = WaitEventSetWait(pool.waits, 0, events, lengthof(events), clerk_wait_event());
		ModifyWaitEvent(pool.waits, LATCH_EVENT, WL_LATCH_SET, MyLatch);
		(void) pool_act_on_events(events, nevents);
	}
	if (pool.timer >= 0 && pool.timer <= clerk_now_ms())
		pool_act_on_timer();
	return latch_set;
}

/*
 * libcurl has nothing more to do for a transfer.
 */
static void
take_from_multi(ClerkHttpTransfer *transfer)
{
	if (!transfer->in_multi)
		return;
	curl_multi_remove_handle(pool.multi, transfer->easy);
	transfer->in_multi = false;
	pool.pending--;
	if (transfer->opened)
		reconcile_sockets(transfer);
}

/*
 * Move the transfers that libcurl has finished to their sets' finished lists.
 */
static void
pool_collect(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(pool.multi, &left)) != NULL)
	{
		ClerkHttpTransfer *transfer;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &transfer);
		transfer->result = message->data.result;
		take_from_multi(transfer);
		dlist_delete(&transfer->node);
		dlist_push_tail(&transfer->set->finished, &transfer->node);
	}
}

/*-------------------------------------------------------------------------
 * Transfers
 *-------------------------------------------------------------------------
 */

/*
 * Release what libcurl holds of a transfer, and leave its set.  Called from
 * memory context callbacks too, so it throws nothing; once it is released, the
 * set may be gone.
 */
static void
transfer_release(ClerkHttpTransfer *transfer)
{
	if (transfer->easy == NULL)
		return;
	take_from_multi(transfer);
	connecting_ends(transfer);
	if (transfer->pending)
		transfer->set->pending--;
	transfer->pending = false;
	give_handle_back(transfer->easy);
	transfer->easy = NULL;
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	free(transfer->answer);
	transfer->answer = NULL;
	dlist_delete(&transfer->node);
	transfer->set = NULL;
}

static void
transfer_cleanup(void *arg)
{
	transfer_release(arg);
}

#define SET_OPTION(option, value) \
	do { \
		CURLcode	code_ = curl_easy_setopt(easy, option, value); \
		if (code_ == CURLE_OUT_OF_MEMORY) \
			out_of_memory(); \
		if (code_ != CURLE_OK) \
			elog(ERROR, "could not set %s: %s", #option, curl_easy_strerror(code_)); \
	} while (0)

static void
add_header(ClerkHttpTransfer *transfer, const char *header)
{
	struct curl_slist *longer = curl_slist_append(transfer->headers, header);

	if (longer == NULL)
		out_of_memory();
	transfer->headers = longer;
}

static void
set_headers(ClerkHttpTransfer *transfer)
{
	ListCell   *lc;
	CURL	   *easy = transfer->easy;

	foreach(lc, transfer->request->headers)
		add_header(transfer, lfirst(lc));

	/* A large body would wait for a 100 Continue; an empty one is no form. */
	add_header(transfer, "Expect:");
	if (transfer->request->body != NULL && transfer->request->body_len == 0)
		add_header(transfer, "Content-Type:");
	SET_OPTION(CURLOPT_HTTPHEADER, transfer->headers);
}

/*
 * A libcurl that was built without HTTP/2 refuses to be asked for it.
 */
static long
http_version(void)
{
	static long version = 0;

	/* libcurl puts its answer together at each call. */
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

	/* An empty string: not even what the environment says. */
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
	SET_OPTION(CURLOPT_OPENSOCKETFUNCTION, open_callback);
	SET_OPTION(CURLOPT_OPENSOCKETDATA, (void *) transfer);
	SET_OPTION(CURLOPT_CLOSESOCKETFUNCTION, close_callback);

	/* SIGALRM is PostgreSQL's. */
	SET_OPTION(CURLOPT_NOSIGNAL, 1L);

	/* Else an abandoned request would wait for its name look-up to end. */
	SET_OPTION(CURLOPT_QUICK_EXIT, 1L);
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
 * The answer's Retry-After in ms, -1 if there is none that can be read.
 * libcurl reads both forms, but gives 0 for what it cannot read.
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
 * words, unless a callback of ours was the reason.  What fills its buffer was
 * cut, and could end in a part of a secret that is not found any more.
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
 * Was it a lack of something in this process or on this machine that stopped
 * the transfer before it began?
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
static void
transfer_report(ClerkHttpTransfer *transfer)
{
	ClerkHttpRequest *request = transfer->request;
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(request));
	long		status = 0;

	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	request->status = (int) status;
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

/*-------------------------------------------------------------------------
 * Sets
 *-------------------------------------------------------------------------
 */

static void
set_cleanup(void *arg)
{
	ClerkHttpSet *set = arg;
	dlist_mutable_iter iter;

	if (set->ended)
		return;
	set->ended = true;
	dlist_delete(&set->node);
	dlist_foreach_modify(iter, &set->running)
		transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	dlist_foreach_modify(iter, &set->finished)
		transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	dlist_foreach_modify(iter, &set->returned)
		transfer_release(dlist_container(ClerkHttpTransfer, node, iter.cur));
	if (--pool.nsets == 0 && pool.max_concurrency > IDLE_CONNECTIONS)
		pool_close();
}

ClerkHttpSet *
clerk_http_begin(int concurrency)
{
	ClerkHttpSet *set = palloc0(sizeof(*set));

	pool_init();
	dlist_init(&set->running);
	dlist_init(&set->finished);
	dlist_init(&set->returned);
	concurrency = Min(concurrency, max_sockets());
	set->cleanup.func = set_cleanup;
	set->cleanup.arg = set;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &set->cleanup);
	set->nest_level = GetCurrentTransactionNestLevel();
	dlist_push_tail(&pool.sets, &set->node);
	pool.nsets++;

	/*
	 * libcurl counts busy connections too: with a smaller number it would
	 * close each one as its request ends.
	 */
	if (concurrency > pool.max_concurrency || pool.nsets == 1)
	{
		pool.max_concurrency = Max(concurrency, pool.max_concurrency);
		curl_multi_setopt(pool.multi, CURLMOPT_MAXCONNECTS,
						  (long) Max(pool.max_concurrency, IDLE_CONNECTIONS));
	}
	return set;
}

void
clerk_http_send(ClerkHttpSet *set, ClerkHttpRequest *request)
{
	MemoryContext context = GetMemoryChunkContext(request);
	ClerkHttpTransfer *transfer = MemoryContextAllocZero(context, sizeof(*transfer));
	CURLMcode	code;

	Assert(!set->ended);
	transfer->set = set;
	transfer->request = request;
	transfer->cleanup.func = transfer_cleanup;
	transfer->cleanup.arg = transfer;
	MemoryContextRegisterResetCallback(context, &transfer->cleanup);
	transfer->easy = take_handle();
	if (transfer->easy == NULL)
		out_of_memory();

	/* From here on either callback releases it. */
	dlist_push_tail(&set->running, &transfer->node);
	set->pending++;
	transfer->pending = true;
	request->transfer = transfer;
	request->started = false;

	set_callbacks(transfer);
	set_method(transfer);
	set_headers(transfer);

	code = curl_multi_add_handle(pool.multi, transfer->easy);
	if (code != CURLM_OK)
		out_of_memory();
	transfer->in_multi = true;
	pool.pending++;
	transfer->connecting = true;
	pool.connecting++;
}

int
clerk_http_room(void)
{
	/* If nothing is under way, only trying shows, and no answer frees a socket. */
	if (pool.pending > 0 && clerk_now_ms() < pool.shortage_until)
		return 0;
	return Max(max_sockets() - pool.pending, 0);
}

/*
 * The first finished request, if there is one.
 */
static ClerkHttpRequest *
take_finished(ClerkHttpSet *set)
{
	ClerkHttpTransfer *transfer;

	if (dlist_is_empty(&set->finished))
		return NULL;
	transfer = dlist_head_element(ClerkHttpTransfer, node, &set->finished);
	dlist_delete(&transfer->node);
	dlist_push_tail(&set->returned, &transfer->node);
	set->pending--;
	transfer->pending = false;
	transfer_report(transfer);
	return transfer->request;
}

ClerkHttpRequest *
clerk_http_next(ClerkHttpSet *set, int64 until, bool *latch_set)
{
	*latch_set = false;
	for (;;)
	{
		ClerkHttpRequest *request;
		bool		latch;

		CHECK_FOR_INTERRUPTS();
		if ((request = take_finished(set)) != NULL)
			return request;
		latch = pool_wait(until);
		pool_collect();
		if ((request = take_finished(set)) != NULL)
			return request;
		*latch_set = latch;
		if (latch || (until >= 0 && clerk_now_ms() >= until))
			return NULL;
	}
}

/*
 * libcurl sends when it is next let act.  Among finished requests that wait to
 * be taken, that would be only after the last of them.
 */
void
clerk_http_push(void)
{
	if (pool.timer >= 0 && pool.timer <= clerk_now_ms())
	{
		pool_act_on_timer();
		pool_collect();
	}
}

int
clerk_http_pending(const ClerkHttpSet *set)
{
	return set->pending;
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
		transfer_release(request->transfer);
	request->transfer = NULL;
	request->answer = NULL;
	request->answer_len = 0;
}

void
clerk_http_end(ClerkHttpSet *set)
{
	set_cleanup(set);
}

void
clerk_http_abandon(int nest_level)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool.sets)
	{
		ClerkHttpSet *set = dlist_container(ClerkHttpSet, node, iter.cur);

		if (set->nest_level >= nest_level)
			set_cleanup(set);
	}
}
