/*-------------------------------------------------------------------------
 *
 * server.c
 *		A server that costs next to nothing, for the floors and for what is
 *		measured beside them.
 *
 * server PORT_FILE MAX_SECONDS listens on a free port of 127.0.0.1, which it
 *		writes to the file, and ends with its parent or when the time is up.
 *
 * A POST to [/Nms]/v1/enterprise_connections is answered N ms later, or at
 * once, with a connection that has a new id and the name, provider, domains
 * and organization_id of the request's body, which is not checked.  A GET of
 * the same finds no connection.  Everything else is 404.  Nothing is stored.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define IN_SIZE		32768
#define OUT_SIZE	40960
#define EVENTS		256
#define COLLECTION	"/v1/enterprise_connections"

typedef struct Client
{
	int			fd;
	bool		closed;			/* its answer waits; freed when that is due */
	size_t		in_len;
	size_t		out_len;
	int64_t		due;
	struct Client *next;		/* whose answer is due later */
	char		in[IN_SIZE];
	char		out[OUT_SIZE];
} Client;

/* A piece of a request's body. */
typedef struct Piece
{
	const char *text;
	int			len;
} Piece;

static Client *waiting;			/* by due */
static Client *last_waiting;
static int	epoll_fd;
static int	timer_fd;
static unsigned long last_id;

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t
now_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

/* ---------- the body of a request ---------- */

static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p + 1;
}

/* The end of the value that starts here. */
static const char *
skip_value(const char *p, const char *end)
{
	int			depth = 0;

	while (p < end)
	{
		if (*p == '"')
		{
			p = skip_string(p, end);
			continue;
		}
		if (depth == 0 && (*p == ',' || *p == '}'))
			break;
		if (*p == '{' || *p == '[')
			depth++;
		if (*p == '}' || *p == ']')
			depth--;
		p++;
	}
	return p < end ? p : end;
}

/* A top-level member, as it was written; null if it is absent. */
static Piece
member(const char *p, const char *end, const char *name)
{
	size_t		len = strlen(name);
	Piece		piece = {"null", 4};

	while (p < end && (p = memchr(p, '"', end - p)) != NULL)
	{
		const char *start = p + 1;
		bool		found;

		p = skip_string(p, end);
		found = (size_t) (p - 1 - start) == len && memcmp(start, name, len) == 0;
		while (p < end && (*p == ':' || *p == ' '))
			p++;
		start = p;
		p = skip_value(p, end);
		if (found)
		{
			piece.text = start;
			piece.len = (int) (p - start);
			return piece;
		}
	}
	return piece;
}

/* ---------- answers ---------- */

static void
answer(Client *client, int status, const char *body, int len)
{
	client->out_len = snprintf(client->out, OUT_SIZE,
							   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%.*s",
							   status, status == 404 ? "Not Found" : "OK", len, len, body);
	if (client->out_len >= OUT_SIZE)
		fail("answer too long");
}

static void
answer_created(Client *client, const char *body, const char *end)
{
	char		text[OUT_SIZE - 256];
	Piece		name = member(body, end, "name");
	Piece		provider = member(body, end, "provider");
	Piece		domains = member(body, end, "domains");
	Piece		organization = member(body, end, "organization_id");
	long long	now = now_us(CLOCK_REALTIME) / 1000;
	int			len;

	last_id++;
	len = snprintf(text, sizeof(text),
				   "{\"object\":\"enterprise_connection\",\"id\":\"entconn_bench%010lu\",\"name\":%.*s,\"provider\":%.*s,"
				   "\"logo_public_url\":null,\"active\":false,\"domains\":%.*s,\"organization_id\":%.*s,"
				   "\"sync_user_attributes\":true,\"disable_additional_identifications\":true,"
				   "\"allow_organization_account_linking\":false,\"authenticatable\":true,\"disable_jit_provisioning\":false,"
				   "\"custom_attributes\":[],\"oauth_config\":null,\"saml_connection\":{\"id\":\"samlc_bench%010lu\",\"name\":%.*s,"
				   "\"idp_entity_id\":\"https://idp.acme.example\",\"idp_sso_url\":\"https://idp.acme.example/sso\","
				   "\"idp_certificate\":null,\"idp_metadata_url\":null,"
				   "\"acs_url\":\"https://clerk.app.example/v1/saml/acs/samlc_bench%010lu\","
				   "\"sp_entity_id\":\"https://clerk.app.example/saml/samlc_bench%010lu\","
				   "\"sp_metadata_url\":\"https://clerk.app.example/v1/saml/metadata/samlc_bench%010lu\","
				   "\"active\":false,\"allow_idp_initiated\":false,\"allow_subdomains\":false,\"force_authn\":false,"
				   "\"login_hint\":{\"mode\":\"email_address\"}},\"created_at\":%lld,\"updated_at\":%lld}",
				   last_id, name.len, name.text, provider.len, provider.text, domains.len, domains.text,
				   organization.len, organization.text, last_id, name.len, name.text, last_id, last_id, last_id, now, now);
	if (len >= (int) sizeof(text))
		fail("connection too long");
	answer(client, 201, text, len);
}

/* Makes the answer, and returns the milliseconds that it has to wait. */
static int
serve(Client *client, const char *body, const char *end)
{
	static const char empty[] = "{\"data\":[],\"total_count\":0}";
	static const char unknown[] = "{\"errors\":[{\"message\":\"not found\",\"long_message\":\"Nothing is here.\",\"code\":\"resource_not_found\"}]}";
	char		method[16];
	char		path[256];
	char	   *rest = path;
	int			latency = 0;
	int			len = 0;

	if (sscanf(client->in, "%15s %255s", method, path) != 2)
		fail("no request line");
	if (sscanf(path, "/%dms%n", &latency, &len) == 1 && len > 0)
		rest += len;
	if (strcmp(method, "POST") == 0 && strcmp(rest, COLLECTION) == 0)
		answer_created(client, body, end);
	else if (strcmp(method, "GET") == 0 && strncmp(rest, COLLECTION, strlen(COLLECTION)) == 0 && rest[strlen(COLLECTION)] != '/')
		answer(client, 200, empty, sizeof(empty) - 1);
	else
		answer(client, 404, unknown, sizeof(unknown) - 1);
	return len > 0 ? latency : 0;
}

/* ---------- clients ---------- */

static void
close_client(Client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	client->closed = true;
	if (client->due == 0)
		free(client);
}

/* An answer fits in the socket's buffer: a client has one request at a time. */
static bool
send_answer(Client *client)
{
	client->due = 0;
	if (client->closed || send(client->fd, client->out, client->out_len, MSG_NOSIGNAL) != (ssize_t) client->out_len)
	{
		close_client(client);
		return false;
	}
	return true;
}

static void
set_timer(void)
{
	struct itimerspec when = {0};

	if (waiting != NULL)
	{
		when.it_value.tv_sec = waiting->due / 1000000;
		when.it_value.tv_nsec = waiting->due % 1000000 * 1000;
	}
	timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void
wait_for(Client *client, int ms)
{
	client->due = now_us(CLOCK_MONOTONIC) + ms * INT64_C(1000);
	if (last_waiting == NULL || last_waiting->due <= client->due)
	{
		client->next = NULL;
		if (last_waiting == NULL)
			waiting = client;
		else
			last_waiting->next = client;
		last_waiting = client;
	}
	else
	{
		Client	  **place = &waiting;

		while ((*place)->due <= client->due)
			place = &(*place)->next;
		client->next = *place;
		*place = client;
	}
	if (waiting == client)
		set_timer();
}

static void
send_due(void)
{
	int64_t		now = now_us(CLOCK_MONOTONIC);

	while (waiting != NULL && waiting->due <= now)
	{
		Client	   *client = waiting;

		waiting = client->next;
		if (waiting == NULL)
			last_waiting = NULL;
		send_answer(client);
	}
	set_timer();
}

/* Answer what is complete. */
static void
take_requests(Client *client)
{
	char	   *body;

	client->in[client->in_len] = '\0';
	while (client->due == 0 && (body = strstr(client->in, "\r\n\r\n")) != NULL)
	{
		const char *length = strcasestr(client->in, "\r\nContent-Length:");
		size_t		len;
		int			ms;

		body += 4;
		len = length != NULL && length < body ? strtoul(length + 17, NULL, 10) : 0;
		if (client->in_len - (body - client->in) < len)
			break;
		ms = serve(client, body, body + len);
		client->in_len -= body + len - client->in;
		memmove(client->in, body + len, client->in_len + 1);
		if (ms > 0)
			wait_for(client, ms);
		else if (!send_answer(client))
			return;
	}
}

static void
read_client(Client *client)
{
	ssize_t		len = read(client->fd, client->in + client->in_len, IN_SIZE - 1 - client->in_len);

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len <= 0)
	{
		close_client(client);
		return;
	}
	client->in_len += len;
	take_requests(client);
}

static void
watch(int fd, void *arg)
{
	struct epoll_event event = {.events = EPOLLIN,.data.ptr = arg};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		fail("epoll_ctl");
}

static void
accept_client(int listener)
{
	int			one = 1;
	int			fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	Client	   *client;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	client = malloc(sizeof(Client));
	if (client == NULL)
		fail("malloc");
	client->fd = fd;
	client->closed = false;
	client->in_len = client->out_len = 0;
	client->due = 0;
	watch(fd, client);
}

/* ---------- beginning ---------- */

static int
listen_somewhere(const char *file)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE	   *out;

	if (fd < 0 || bind(fd, (struct sockaddr *) &address, len) != 0 || listen(fd, 1024) != 0 ||
		getsockname(fd, (struct sockaddr *) &address, &len) != 0)
		fail("cannot listen");
	out = fopen(file, "w");
	if (out == NULL || fprintf(out, "%d\n", ntohs(address.sin_port)) < 0 || fclose(out) != 0)
		fail(file);
	return fd;
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	int			listener;

	if (argc != 3)
	{
		fprintf(stderr, "usage: server PORT_FILE MAX_SECONDS\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	alarm(atoi(argv[2]));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	listener = listen_somewhere(argv[1]);
	watch(listener, &listener);
	watch(timer_fd, &timer_fd);
	for (;;)
	{
		int			n = epoll_wait(epoll_fd, events, EVENTS, -1);
		bool		due = false;

		for (int i = 0; i < n; i++)
		{
			if (events[i].data.ptr == &listener)
				accept_client(listener);
			else if (events[i].data.ptr == &timer_fd)
				due = true;
			else
				read_client(events[i].data.ptr);
		}
		if (due)
			send_due();			/* it can free clients: after their events */
	}
}
