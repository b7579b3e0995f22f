/*-------------------------------------------------------------------------
 *
 * main.c
 *		A mock of Clerk's enterprise connections API: options and life cycle.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "control.h"
#include "end.h"
#include "flow.h"
#include "record.h"
#include "server.h"
#include "settings.h"
#include "store.h"

#define DEFAULT_SECRET_KEY	"sk_test_mock"

/* A test that was killed must not leave its mock behind for long. */
#define DEFAULT_MAX_SECONDS 1800

/* How often the parent is looked at where the kernel cannot tell us. */
#define PARENT_CHECK_MS		500

/* By how much the heap grows at a time. */
#define HEAP_STEP			(4 * 1024 * 1024)

/* Sockets, and some descriptors for everything else. */
#define WANTED_DESCRIPTORS	4200

typedef struct Options
{
	int			port;
	const char *port_file;
	bool		tls;
	const char *cert_file;
	const char *key_file;
	bool		any_key;
	long		max_seconds;
	pid_t		parent;
} Options;

static const char usage_text[] =
"usage: mock_clerk [--port N] [--port-file FILE] [--lenient]\n"
"                  [--tls --cert FILE --key FILE] [--secret-key KEY]...\n"
"                  [--max-seconds N] [--parent PID]\n";

static void
usage(void)
{
	fputs(usage_text, stderr);
	exit(2);
}

static long
number_option(const char *text, long max)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno != 0 || *text == '\0' || *end != '\0' || n < 0 || n > max)
		usage();
	return n;
}

static void
parse_options(int argc, char **argv, Options *o)
{
	static const struct option names[] = {
		{"port", required_argument, NULL, 'p'},
		{"port-file", required_argument, NULL, 'f'},
		{"lenient", no_argument, NULL, 'l'},
		{"tls", no_argument, NULL, 't'},
		{"cert", required_argument, NULL, 'c'},
		{"key", required_argument, NULL, 'k'},
		{"secret-key", required_argument, NULL, 's'},
		{"max-seconds", required_argument, NULL, 'm'},
		{"parent", required_argument, NULL, 'P'},
		{NULL, 0, NULL, 0}
	};
	int			c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
	{
		switch (c)
		{
			case 'p':
				o->port = (int) number_option(optarg, 65535);
				break;
			case 'f':
				o->port_file = optarg;
				break;
			case 'l':
				settings_set_default_lenient();
				break;
			case 't':
				o->tls = true;
				break;
			case 'c':
				o->cert_file = optarg;
				break;
			case 'k':
				o->key_file = optarg;
				break;
			case 's':
				o->any_key = true;
				settings_add_default_key(optarg);
				break;
			case 'm':
				o->max_seconds = number_option(optarg, INT32_MAX);
				break;
			case 'P':
				o->parent = (pid_t) number_option(optarg, INT32_MAX);
				break;
			default:
				usage();
		}
	}
	if (optind < argc || o->tls != (o->cert_file != NULL && o->key_file != NULL))
		usage();
	if (!o->any_key)
		settings_add_default_key(DEFAULT_SECRET_KEY);
}

static char *
read_file(const char *path)
{
	FILE	   *f = fopen(path, "r");
	Buf			b = {0};
	char		piece[4096];
	size_t		n;

	if (f == NULL)
	{
		fprintf(stderr, "mock_clerk: could not open \"%s\": %s\n", path, strerror(errno));
		exit(1);
	}
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		buf_add(&b, piece, n);
	fclose(f);
	buf_str(&b, "");
	return b.data;
}

/* Whoever sees the file sees the whole number. */
static bool
write_port_file(const char *path, int port)
{
	Buf			temp = {0};
	FILE	   *f;
	bool		good;

	buf_printf(&temp, "%s.%d.tmp", path, (int) getpid());
	f = fopen(temp.data, "w");
	good = f != NULL && fprintf(f, "%d\n", port) > 0;
	if (f != NULL)
		good = fclose(f) == 0 && good;
	good = good && rename(temp.data, path) == 0;
	if (!good)
		fprintf(stderr, "mock_clerk: could not write \"%s\": %s\n", path, strerror(errno));
	buf_free(&temp);
	return good;
}

static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= WANTED_DESCRIPTORS)
		return;
	limit.rlim_cur = WANTED_DESCRIPTORS;
	if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < WANTED_DESCRIPTORS)
		limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * Signals are read from a descriptor; they have to be blocked before the
 * first thread starts, so that all threads inherit that.
 */
static int
open_signals(void)
{
	static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2};
	sigset_t	set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
		sigaddset(&set, ending[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Readable once the process is gone; -1: gone already, or not supported. */
static int
open_process(pid_t pid)
{
	return (int) syscall(SYS_pidfd_open, pid, 0);
}

static bool
is_gone(pid_t pid)
{
	return kill(pid, 0) < 0 && errno == ESRCH;
}

/* Who it was that sent the signal, unless it was the parent, as is usual. */
static void
say_signal(int signal_fd, pid_t parent)
{
	struct signalfd_siginfo info;
	char		path[64];
	char		name[64] = "gone";
	FILE	   *f;

	if (read(signal_fd, &info, sizeof(info)) != sizeof(info) || (parent > 0 && (pid_t) info.ssi_pid == parent))
		return;
	snprintf(path, sizeof(path), "/proc/%u/comm", info.ssi_pid);
	f = fopen(path, "r");
	if (f != NULL)
	{
		if (fgets(name, sizeof(name), f) != NULL)
			name[strcspn(name, "\n")] = '\0';
		fclose(f);
	}
	fprintf(stderr, "mock_clerk: ended: signal %u (%s) from process %u (%s) of user %u\n",
			info.ssi_signo, strsignal((int) info.ssi_signo), info.ssi_pid, name, info.ssi_uid);
}

/* Until a signal, the end of the parent or of the time; says which. */
static void
wait_for_end(const Options *o, int signal_fd)
{
	int64_t		end = clock_mono_ns() + (int64_t) o->max_seconds * 1000000000;
	struct pollfd fds[2] = {
		{.fd = signal_fd,.events = POLLIN},
		{.fd = o->parent > 0 ? open_process(o->parent) : -1,.events = POLLIN}
	};
	bool		ask = o->parent > 0 && fds[1].fd < 0;

	for (;;)
	{
		int64_t		left = (end - clock_mono_ns()) / 1000000;

		if (left <= 0)
		{
			fprintf(stderr, "mock_clerk: ended: its %ld seconds are over\n", o->max_seconds);
			break;
		}
		if ((ask && is_gone(o->parent)) || fds[1].revents)
		{
			fprintf(stderr, "mock_clerk: ended: its parent, process %d, has\n", (int) o->parent);
			break;
		}
		if (fds[0].revents)
		{
			say_signal(signal_fd, o->parent);
			break;
		}
		if (left > INT32_MAX)
			left = INT32_MAX;
		if (ask && left > PARENT_CHECK_MS)
			left = PARENT_CHECK_MS;
		if (poll(fds, 2, (int) left) < 0 && errno != EINTR)
			end_badly("could not wait");
	}
	if (fds[1].fd >= 0)
		close(fds[1].fd);
}

int
main(int argc, char **argv)
{
	Options		o = {.max_seconds = DEFAULT_MAX_SECONDS};
	char	   *cert = NULL;
	char	   *key = NULL;
	int			signal_fd;
	int			port;
	bool		good;

	/*
	 * The thread that serves would get an arena of its own, which grows a
	 * page or two at a time: a system call for every other request.
	 */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TOP_PAD, HEAP_STEP);
	parse_options(argc, argv, &o);
	end_watch_crashes();
	settings_reset();
	raise_descriptor_limit();
	if (o.tls)
	{
		cert = read_file(o.cert_file);
		key = read_file(o.key_file);
	}
	signal_fd = open_signals();
	port = server_start(o.port, cert, key);
	if (port < 0)
		return 1;
	good = o.port_file == NULL || write_port_file(o.port_file, port);
	if (good)
	{
		printf("port %d\n", port);
		fflush(stdout);
		wait_for_end(&o, signal_fd);
	}
	server_stop();
	pthread_mutex_lock(&flow_lock);
	store_clear();
	script_clear();
	record_clear();
	pthread_mutex_unlock(&flow_lock);
	settings_free();
	free(cert);
	free(key);
	close(signal_fd);
	return good ? 0 : 1;
}
