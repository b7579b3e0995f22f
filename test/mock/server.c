/*-------------------------------------------------------------------------
 *
 * server.c
 *		Listening, and serving: microhttpd as a source of the main loop.
 *
 * microhttpd could wait for itself, but its loop (as of 0.9.75) waits a second
 * time, without limit, whenever exactly 128 sockets were ready at once, and
 * with that many clients in step nobody ever wakes it.  Driven from outside it
 * never waits.
 *
 *-------------------------------------------------------------------------
 */
#include "server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "end.h"
#include "http.h"
#include "timer.h"

#define MAX_SOCKETS			4000
#define LISTEN_BACKLOG		4096

/*
 * How long the loop sleeps at most.  Out of descriptors, microhttpd stops
 * listening; that there are some again it sees in its next run only.
 */
#define MAX_WAIT_MS			200

/*
 * Per connection: the request line and all headers, of the answer too, have
 * to fit.  microhttpd clears all of it after each request, so more is slower.
 */
#define CONNECTION_MEMORY	(32 * 1024)

static struct MHD_Daemon *server;
static bool use_tls;

static int
listen_on(int port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t) port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int			on = 1;
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* accepted sockets inherit it */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *) &addr, sizeof(addr)) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
	{
		close(fd);
		return -1;
	}
	return fd;
}

static int
port_of(int fd)
{
	struct sockaddr_in addr = {0};
	socklen_t	len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *) &addr, &len) < 0)
		return -1;
	return ntohs(addr.sin_port);
}

static struct MHD_Daemon *
start_daemon(int fd, const char *cert, const char *key)
{
	unsigned	flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
	struct MHD_OptionItem tls_options[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *) cert},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *) key},
		{MHD_OPTION_END, 0, NULL}
	};
	struct MHD_OptionItem no_options[] = {{MHD_OPTION_END, 0, NULL}};

	if (use_tls)
		flags |= MHD_USE_TLS;
	return MHD_start_daemon(flags, 0, NULL, NULL, http_handle, NULL,
							MHD_OPTION_LISTEN_SOCKET, fd,
							MHD_OPTION_CONNECTION_LIMIT, (unsigned) MAX_SOCKETS,
							MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_MEMORY,
							MHD_OPTION_URI_LOG_CALLBACK, http_begin, NULL,
							MHD_OPTION_NOTIFY_COMPLETED, http_done, NULL,
							MHD_OPTION_NOTIFY_CONNECTION, http_connection, NULL,
							MHD_OPTION_ARRAY, use_tls ? tls_options : no_options,
							MHD_OPTION_END);
}

/* For microhttpd's own work, MAX_WAIT_MS at most. */
static gint
http_timeout(void)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (MHD_get_timeout(server, &ms) != MHD_YES || ms > MAX_WAIT_MS)
		return MAX_WAIT_MS;
	return (gint) ms;
}

static gboolean
prepare(GSource *source, gint *timeout)
{
	gint64		left_ms = 0;

	(void) source;
	if (timer_next() > g_get_monotonic_time())
		left_ms = (timer_next() - g_get_monotonic_time() + 999) / 1000;
	*timeout = (gint) MIN(left_ms, http_timeout());
	return *timeout == 0;
}

/* Whatever ended the wait: microhttpd wants to run once a round. */
static gboolean
check(GSource *source)
{
	(void) source;
	return TRUE;
}

static void
resume(Request *req)
{
	MHD_resume_connection(req->connection);
}

static gboolean
dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
	(void) source;
	(void) callback;
	(void) data;
	timer_run(resume);
	MHD_run(server);
	return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_functions = {.prepare = prepare,.check = check,.dispatch = dispatch};

int
server_start(int port, const char *cert, const char *key)
{
	int			fd = listen_on(port);
	GSource    *source;

	if (fd < 0)
	{
		g_printerr("mock_clerk: could not listen on port %d: %s\n", port, g_strerror(errno));
		return -1;
	}
	port = port_of(fd);
	use_tls = cert != NULL;
	MHD_set_panic_func(end_by_panic, NULL);
	server = start_daemon(fd, cert, key);
	if (server == NULL)
	{
		g_printerr("mock_clerk: could not start the HTTP server\n");
		return -1;
	}
	source = g_source_new(&source_functions, sizeof(GSource));
	g_source_add_unix_fd(source, MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, G_IO_IN);

	/*
	 * GLib would block it while it runs, which wakes the loop once more each
	 * time
	 */
	g_source_set_can_recurse(source, TRUE);
	g_source_attach(source, NULL);
	g_source_unref(source);
	return port;
}

/* Nothing may be suspended any more when the daemon ends. */
void
server_stop(void)
{
	timer_abort_all();
	timer_run(resume);
	MHD_stop_daemon(server);
}

bool
server_uses_tls(void)
{
	return use_tls;
}
