/*-------------------------------------------------------------------------
 *
 * server.c
 *		Listening, and the thread that serves.
 *
 * microhttpd could run a thread of its own, but its loop (as of 0.9.75) waits
 * a second time, without limit, whenever exactly 128 sockets were ready at
 * once, and with that many clients in step nobody ever wakes it.  Driven from
 * outside it never waits, so the waiting is done here.
 *
 *-------------------------------------------------------------------------
 */
#include "server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "end.h"
#include "http.h"
#include "timer.h"

#define MAX_SOCKETS			4000
#define LISTEN_BACKLOG		4096

/* How long the serving thread sleeps at most. */
#define MAX_WAIT_MS			200

/*
 * Per connection: the request line and all headers, of the answer too, have
 * to fit.  microhttpd clears all of it after each request, so more is slower.
 */
#define CONNECTION_MEMORY	(32 * 1024)

static struct MHD_Daemon *server;
static pthread_t thread;
static int	wake_fd = -1;		/* written to: do not wait now */
static atomic_bool stopping;
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
	struct sockaddr_in addr;
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

/*
 * How long nothing will happen unless a socket is ready.  Out of sockets,
 * microhttpd stops listening; that there is one again it sees in its next
 * run, to which nobody would call it.
 */
static int
wait_limit(void)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (MHD_get_timeout(server, &ms) != MHD_YES || ms > MAX_WAIT_MS)
		return MAX_WAIT_MS;
	return (int) ms;
}

static void *
serve(void *arg)
{
	struct pollfd fds[2] = {
		{.fd = MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,.events = POLLIN},
		{.fd = wake_fd,.events = POLLIN}
	};
	eventfd_t	ignored;

	(void) arg;
	while (!stopping)
	{
		int			limit = wait_limit();

		if (limit != 0 && poll(fds, 2, limit) > 0 && fds[1].revents)
			eventfd_read(wake_fd, &ignored);
		MHD_run(server);
	}
	return NULL;
}

/*
 * microhttpd signals itself, too, but may clear that signal in a run that
 * looked for resumed connections just before.  Ours is cleared before a run.
 */
static void
resume(Request *req)
{
	MHD_resume_connection(req->connection);
	eventfd_write(wake_fd, 1);
}

int
server_start(int port, const char *cert, const char *key)
{
	int			fd = listen_on(port);

	if (fd < 0)
	{
		fprintf(stderr, "mock_clerk: could not listen on port %d: %s\n", port, strerror(errno));
		return -1;
	}
	port = port_of(fd);
	use_tls = cert != NULL;
	MHD_set_panic_func(end_by_panic, NULL);
	server = start_daemon(fd, cert, key);
	wake_fd = eventfd(0, EFD_CLOEXEC);
	if (server == NULL || wake_fd < 0)
	{
		fprintf(stderr, "mock_clerk: could not start the HTTP server\n");
		return -1;
	}
	timer_start(resume);
	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		end_badly("could not start a thread");
	return port;
}

void
server_stop(void)
{
	/* nothing may be suspended any more when the daemon ends */
	timer_stop();
	stopping = true;
	eventfd_write(wake_fd, 1);
	pthread_join(thread, NULL);
	MHD_stop_daemon(server);
	close(wake_fd);
}

bool
server_uses_tls(void)
{
	return use_tls;
}
