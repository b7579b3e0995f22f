/*-------------------------------------------------------------------------
 *
 * main.c
 *		A mock of Clerk's enterprise connections API: options and life cycle.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <glib-unix.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "end.h"
#include "record.h"
#include "script.h"
#include "server.h"
#include "settings.h"
#include "store.h"

#define DEFAULT_SECRET_KEY	"sk_test_mock"

/* How often the parent is looked at where the kernel cannot tell us. */
#define PARENT_CHECK_MS		500

/* By how much the heap grows at a time. */
#define HEAP_STEP			(4 * 1024 * 1024)

/* Sockets, and some descriptors for everything else. */
#define WANTED_DESCRIPTORS	4200

static int	port;
static char *port_file;
static gboolean lenient;
static gboolean tls;
static char *cert_file;
static char *key_file;
static char **secret_keys;
static int	max_seconds = 1800; /* one whose test was killed must not stay */
static int	parent;

static const GOptionEntry options[] = {
	{"port", 0, 0, G_OPTION_ARG_INT, &port, "Listen on this port of 127.0.0.1; 0, the default: any", "N"},
	{"port-file", 0, 0, G_OPTION_ARG_FILENAME, &port_file, "Write the port to this file", "FILE"},
	{"lenient", 0, 0, G_OPTION_ARG_NONE, &lenient, "Begin with the lenient profile", NULL},
	{"tls", 0, 0, G_OPTION_ARG_NONE, &tls, "Speak TLS; wants --cert and --key", NULL},
	{"cert", 0, 0, G_OPTION_ARG_FILENAME, &cert_file, "The certificate (PEM)", "FILE"},
	{"key", 0, 0, G_OPTION_ARG_FILENAME, &key_file, "Its private key (PEM)", "FILE"},
	{"secret-key", 0, 0, G_OPTION_ARG_STRING_ARRAY, &secret_keys, "A key that is good; may be repeated (" DEFAULT_SECRET_KEY ")", "KEY"},
	{"max-seconds", 0, 0, G_OPTION_ARG_INT, &max_seconds, "End after this time (1800)", "N"},
	{"parent", 0, 0, G_OPTION_ARG_INT, &parent, "End with this process", "PID"},
	G_OPTION_ENTRY_NULL
};

static GMainLoop *loop;

static void
parse_options(int argc, char **argv)
{
	g_autoptr(GOptionContext) context = g_option_context_new("- a stand-in for Clerk's enterprise connections API");
	g_autoptr(GError) error = NULL;

	g_option_context_add_main_entries(context, options, NULL);
	if (g_option_context_parse(context, &argc, &argv, &error) && argc == 1 &&
		tls == (cert_file != NULL && key_file != NULL) &&
		port >= 0 && port <= 65535 && max_seconds >= 0 && parent >= 0)
		return;
	g_printerr("mock_clerk: %s; see --help\n", error ? error->message : "wrong options");
	exit(2);
}

static char *
read_file(const char *path)
{
	char	   *text;
	g_autoptr(GError) error = NULL;

	if (g_file_get_contents(path, &text, NULL, &error))
		return text;
	g_printerr("mock_clerk: %s\n", error->message);
	exit(1);
}

/* The file appears with the whole number in it. */
static bool
write_port_file(int listening)
{
	g_autofree char *text = g_strdup_printf("%d\n", listening);
	g_autoptr(GError) error = NULL;

	if (port_file == NULL || g_file_set_contents(port_file, text, -1, &error))
		return true;
	g_printerr("mock_clerk: %s\n", error->message);
	return false;
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

/* Signals are read from a descriptor, which tells who sent them. */
static int
open_signals(void)
{
	static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2};
	sigset_t	set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < G_N_ELEMENTS(ending); i++)
		sigaddset(&set, ending[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/*
 * What ends it
 */
static gboolean
time_is_up(void *data)
{
	(void) data;
	g_printerr("mock_clerk: ended: its %d seconds are over\n", max_seconds);
	g_main_loop_quit(loop);
	return G_SOURCE_REMOVE;
}

static gboolean
parent_ended(int fd, GIOCondition condition, void *data)
{
	(void) fd;
	(void) condition;
	(void) data;
	g_printerr("mock_clerk: ended: its parent, process %d, has\n", parent);
	g_main_loop_quit(loop);
	return G_SOURCE_REMOVE;
}

static gboolean
look_at_parent(void *data)
{
	if (kill(parent, 0) < 0 && errno == ESRCH)
		return parent_ended(-1, 0, data);
	return G_SOURCE_CONTINUE;
}

/* A descriptor of a process is readable once that is gone. */
static void
watch_parent(void)
{
	int			fd = (int) syscall(SYS_pidfd_open, parent, 0);

	if (fd >= 0)
		g_unix_fd_add(fd, G_IO_IN, parent_ended, NULL);
	else						/* gone already, or not supported */
		g_timeout_add(PARENT_CHECK_MS, look_at_parent, NULL);
}

/* Says who it was that sent the signal, unless it was the parent, as is usual. */
static gboolean
signal_came(int fd, GIOCondition condition, void *data)
{
	struct signalfd_siginfo info;
	g_autofree char *path = NULL;
	g_autofree char *name = NULL;

	(void) condition;
	(void) data;
	g_main_loop_quit(loop);
	if (read(fd, &info, sizeof(info)) != sizeof(info) || (parent > 0 && (int) info.ssi_pid == parent))
		return G_SOURCE_REMOVE;
	path = g_strdup_printf("/proc/%u/comm", info.ssi_pid);
	g_file_get_contents(path, &name, NULL, NULL);
	g_printerr("mock_clerk: ended: signal %u (%s) from process %u (%s) of user %u\n", info.ssi_signo,
			   g_strsignal((int) info.ssi_signo), info.ssi_pid, name ? g_strchomp(name) : "gone", info.ssi_uid);
	return G_SOURCE_REMOVE;
}

static void
run_until_end(int signal_fd)
{
	loop = g_main_loop_new(NULL, FALSE);
	g_unix_fd_add(signal_fd, G_IO_IN, signal_came, NULL);
	g_timeout_add_seconds((guint) max_seconds, time_is_up, NULL);
	if (parent > 0)
		watch_parent();
	g_main_loop_run(loop);
	g_main_loop_unref(loop);
}

int
main(int argc, char **argv)
{
	g_autofree char *cert = NULL;
	g_autofree char *key = NULL;
	int			signal_fd;
	int			listening;
	bool		good;

	/*
	 * by a page or two at a time, it would be a system call for every other
	 * request
	 */
	mallopt(M_TOP_PAD, HEAP_STEP);
	parse_options(argc, argv);
	if (secret_keys == NULL)
		secret_keys = g_strsplit(DEFAULT_SECRET_KEY, " ", 1);
	end_watch_crashes();
	settings_set_defaults(lenient, secret_keys);
	settings_reset();
	raise_descriptor_limit();
	if (tls)
	{
		cert = read_file(cert_file);
		key = read_file(key_file);
	}
	signal_fd = open_signals();
	listening = server_start(port, cert, key);
	if (listening < 0)
		return 1;
	good = write_port_file(listening);
	if (good)
	{
		printf("port %d\n", listening);
		fflush(stdout);
		run_until_end(signal_fd);
	}
	server_stop();
	store_clear();
	script_clear();
	record_clear();
	settings_free();
	g_strfreev(secret_keys);
	return good ? 0 : 1;
}
