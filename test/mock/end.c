/*-------------------------------------------------------------------------
 *
 * end.c
 *		Last words: the server never ends without saying why.
 *
 *-------------------------------------------------------------------------
 */
#include "end.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_FRAMES			64

static const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};

#define NCRASHES	(sizeof(crashes) / sizeof(crashes[0]))

/* addr2line -e mock_clerk makes lines of what is in brackets. */
static void
crashed(int number, siginfo_t *info, void *context)
{
	void	   *frames[MAX_FRAMES];

	(void) context;
	dprintf(STDERR_FILENO, "mock_clerk: crashed: signal %d, code %d, ", number, info->si_code);
	if (info->si_code <= 0)
		dprintf(STDERR_FILENO, "from process %d\n", (int) info->si_pid);
	else
		dprintf(STDERR_FILENO, "at address %p\n", info->si_addr);
	backtrace_symbols_fd(frames, backtrace(frames, MAX_FRAMES), STDERR_FILENO);

	/*
	 * reset by now: this one ends the process, with a core if there may be
	 * one
	 */
	raise(number);
}

/* A sanitizer that watches already knows more. */
void
end_watch_crashes(void)
{
	struct sigaction ours = {.sa_sigaction = crashed,.sa_flags = SA_SIGINFO | SA_RESETHAND};
	struct sigaction before;
	void	   *frame;

	/* the first call loads a library, which is nothing for a handler */
	backtrace(&frame, 1);
	for (size_t i = 0; i < NCRASHES; i++)
		if (sigaction(crashes[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
			sigaction(crashes[i], &ours, NULL);
}

void
end_badly(const char *why)
{
	fprintf(stderr, "mock_clerk: ended: %s\n", why);
	abort();
}

void
end_by_panic(void *cls, const char *file, unsigned int line, const char *reason)
{
	(void) cls;
	fprintf(stderr, "mock_clerk: ended: microhttpd gave up at %s:%u: %s\n", file, line, reason ? reason : "");
	abort();
}
