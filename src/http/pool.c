/*-------------------------------------------------------------------------
 *
 * pool.c
 *		The process's connections, and waiting for what happens on them.
 *
 * One multi handle of libcurl for the process, the pool, keeps the connections.
 * libcurl tells it which sockets to watch and when its next timer is due; the
 * wait itself is a WaitEventSet, together with the latch, which is the
 * caller's to reset, and the postmaster's death.
 *
 * Nothing throws inside a callback of libcurl: callbacks note what happened
 * in the transfer and return.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compat.h"
#include "http/internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"

/*
 * PostgreSQL leaves a third of a process's files to extensions.  This number of
 * them stays free: if sockets took them all, other extensions in the session,
 * such as postgres_fdw, could not connect any more.
 */
#define SPARE_FILES 16

/*
 * After a socket could not be opened for lack of files, no new request is begun
 * for this time (ms).  Without it, all requests that are due would fail one after
 * another; meanwhile one that is under way may finish and free its socket.
 */
#define SHORTAGE_PAUSE 100

/*
 * Connections that stay open while no set needs more.  A session usually talks
 * to one server, sometimes to a second.
 */
#define IDLE_CONNECTIONS 4

/* Easy handles kept for the next request. */
#define SPARE_HANDLES 4

/* The latch is the first event of a wait set. */
#define LATCH_EVENT 0

/*
 * Streams on one HTTP/2 connection.  With libcurl's default of 100, a set of 500
 * requests, the most that max_concurrency allows, would open five connections.
 */
#define MAX_STREAMS 500

typedef struct WatchedSocket
{
	curl_socket_t fd;
	int			what;			/* CURL_POLL_IN, _OUT, _INOUT */
} WatchedSocket;

/*
 * A socket that counts against the files that this process may open.  libcurl
 * 7.88.1 and 8.0 to 8.1 close a socket that is still connecting without calling
 * the close callback.  So the inode is kept, too: if the descriptor is closed or
 * belongs to another inode, this socket has been closed.
 */
typedef struct OpenSocket
{
	curl_socket_t fd;
	dev_t		device;
	ino_t		inode;
	ClerkHttpTransfer *opener;	/* NULL once that has finished */
} OpenSocket;

/*
 * The process's only multi handle, and the events that it waits for.
 */
typedef struct Pool
{
	CURLM	   *multi;
	OpenSocket *open;			/* malloc'd */
	int			nopen;
	int			open_size;
	int64		shortage_until; /* ms; until then no new request, see
								 * SHORTAGE_PAUSE */
	WatchedSocket *sockets;		/* that libcurl wants to be watched; malloc'd */
	int			nsockets;
	int			sockets_size;
	int64		timer;			/* ms; when libcurl wants to act, -1: not */
	WaitEventSet *waits;
	WatchedSocket *waited;		/* the sockets in waits; malloc'd */
	int			nwaited;
	bool		changed;		/* a socket was opened or closed since waits
								 * was made */
	CURL	   *spare[SPARE_HANDLES];
	int			nspare;
	int			kept;			/* connections that multi may keep open */
	int			pending;		/* transfers of all sets that are not finished */
	int			connecting;		/* transfers that may need a new connection */
} Pool;

static Pool pool = {.timer = -1};

/*
 * libcurl resolves names in a thread, which inherits the signal mask.  A thread
 * of a backend must never handle a signal, so all signals are blocked whenever
 * libcurl may start one.  That is until a request has an answer: a connection
 * that was kept open may turn out to be dead, and a new one be opened instead.
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

void
clerk_http_out_of_memory(void)
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
 * Is the descriptor still the socket that was opened?
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
 * Stop counting the sockets that libcurl has closed without calling us: those of
 * one transfer, which has finished, or all (NULL).
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
 * The most sockets that this process opens.  One file is left for the wait set:
 * without it, no socket could be waited for.
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
 * Record a new socket, for which AcquireExternalFD was called.  Returns false if
 * memory is short.
 */
static bool
note_socket(curl_socket_t fd, ClerkHttpTransfer *opener)
{
	struct stat st;

	/* A socket that had the same descriptor has been closed. */
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
 * Sockets count against the files that this process may open.  If none is left
 * for extensions, nothing is sent, and the transfer fails with a local shortage.
 */
curl_socket_t
clerk_pool_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
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

int
clerk_pool_close_socket(void *arg, curl_socket_t fd)
{
	for (int i = pool.nopen - 1; i >= 0; i--)
		if (pool.open[i].fd == fd)
			forget_socket(i);
	return close(fd);
}

void
clerk_pool_connected(ClerkHttpTransfer *transfer)
{
	if (transfer->connecting)
		pool.connecting--;
	transfer->connecting = false;
}

/*-------------------------------------------------------------------------
 * The pool
 *-------------------------------------------------------------------------
 */

static void pool_make_waits(void);

void
clerk_pool_open(void)
{
	static bool global_done = false;

	/* Reserve its file first: sockets may take all the others later. */
	if (pool.waits == NULL)
		pool_make_waits();
	if (pool.multi != NULL)
		return;

	/* Never in the postmaster, whose children would share the state. */
	if (!global_done && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libcurl")));
	global_done = true;

	pool.multi = curl_multi_init();
	if (pool.multi == NULL)
		clerk_http_out_of_memory();
	curl_multi_setopt(pool.multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(pool.multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(pool.multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	curl_multi_setopt(pool.multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long) MAX_STREAMS);

	/* At this number libcurl closes idle connections to open a new one. */
	curl_multi_setopt(pool.multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) max_sockets());
	curl_multi_setopt(pool.multi, CURLMOPT_MAXCONNECTS, (long) IDLE_CONNECTIONS);
	pool.kept = IDLE_CONNECTIONS;
}

/*
 * libcurl's limit counts busy connections, too.  If it were smaller than the
 * number of requests under way, each connection would be closed with its request.
 */
void
clerk_pool_keep(int connections)
{
	connections = Min(connections, max_sockets());
	if (connections <= pool.kept)
		return;
	curl_multi_setopt(pool.multi, CURLMOPT_MAXCONNECTS, (long) connections);
	pool.kept = connections;
}

/*
 * Close all connections, so that a session that has sent many requests at a time
 * once does not keep all those sockets.
 */
void
clerk_pool_shrink(void)
{
	if (pool.kept <= IDLE_CONNECTIONS)
		return;
	curl_multi_cleanup(pool.multi);
	pool.multi = NULL;
	pool.timer = -1;
	pool.nsockets = 0;
	reconcile_sockets(NULL);
}

CURL *
clerk_pool_take_handle(void)
{
	if (pool.nspare > 0)
		return pool.spare[--pool.nspare];
	return curl_easy_init();
}

void
clerk_pool_return_handle(CURL *easy)
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
 * The timer goes off once; libcurl sets it again where needed.
 */
static void
pool_act_on_timer(void)
{
	pool.timer = -1;
	pool_act(CURL_SOCKET_TIMEOUT, 0);
}

/*
 * Does the wait set have exactly the sockets that are to be watched?  Between two
 * requests libcurl often removes a kept connection's socket and adds it again,
 * which needs no new wait set.  But the kernel removes a closed socket from the
 * set by itself: then a new one is needed even if a new socket has the same
 * descriptor.
 */
static bool
waits_are_current(void)
{
	return pool.waits != NULL && !pool.changed && pool.nwaited == pool.nsockets &&
		(pool.nsockets == 0 ||
		 memcmp(pool.waited, pool.sockets, pool.nsockets * sizeof(WatchedSocket)) == 0);
}

/*
 * A new, empty wait set.  If there is no file for it, PostgreSQL itself would
 * raise XX000, and without a hint.
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
 * A socket cannot be removed from a WaitEventSet, so a new set is made whenever
 * the sockets change.
 */
static void
pool_make_waits(void)
{
	WatchedSocket *waited = realloc(pool.waited, (pool.nsockets + 1) * sizeof(*waited));

	if (waited == NULL)
		clerk_http_out_of_memory();
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
 * Let libcurl act on the events of its sockets.  Returns whether the latch is
 * set; resetting it is left to the caller of clerk_http_next.
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

bool
clerk_pool_wait(int64 until)
{
	WaitEvent	events[32];
	int64		now = clerk_now_ms();
	int64		wake = pool.timer >= 0 && (until < 0 || pool.timer < until) ? pool.timer : until;
	int			nevents;
	bool		latch_set;

	/* A new request starts here, so there is nothing to wait for yet. */
	if (pool.timer >= 0 && pool.timer <= now)
	{
		pool_act_on_timer();
		return false;
	}
	if (!waits_are_current())
		pool_make_waits();
	nevents = WaitEventSetWait(pool.waits,
							   wake < 0 ? -1L : (long) Min(Max(wake - now, 0), INT_MAX),
							   events, lengthof(events), clerk_wait_event());
	latch_set = pool_act_on_events(events, nevents);

	/*
	 * Up to PostgreSQL 15, a latch that is set hides the events of sockets.
	 * Look at those separately, or a latch that is set all the time would
	 * keep answers from ever being read.
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
 * libcurl sends a new request only when it is called the next time.  While
 * finished requests are still to be taken from a set, there is no wait that
 * would do so.
 */
bool
clerk_pool_act_if_due(void)
{
	if (pool.timer < 0 || pool.timer > clerk_now_ms())
		return false;
	pool_act_on_timer();
	return true;
}

/*-------------------------------------------------------------------------
 * Transfers in the pool
 *-------------------------------------------------------------------------
 */

int
clerk_http_room(void)
{
	/*
	 * If nothing is under way, no answer will free a socket: then only trying
	 * shows whether there is one.
	 */
	if (pool.pending > 0 && clerk_now_ms() < pool.shortage_until)
		return 0;
	return Max(max_sockets() - pool.pending, 0);
}

void
clerk_pool_add(ClerkHttpTransfer *transfer)
{
	if (curl_multi_add_handle(pool.multi, transfer->easy) != CURLM_OK)
		clerk_http_out_of_memory();
	transfer->in_multi = true;
	pool.pending++;
	transfer->connecting = true;
	pool.connecting++;
}

void
clerk_pool_remove(ClerkHttpTransfer *transfer)
{
	if (!transfer->in_multi)
		return;
	curl_multi_remove_handle(pool.multi, transfer->easy);
	transfer->in_multi = false;
	pool.pending--;
	if (transfer->opened)
		reconcile_sockets(transfer);
}

ClerkHttpTransfer *
clerk_pool_take_finished(void)
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
		clerk_pool_remove(transfer);
		return transfer;
	}
	return NULL;
}
