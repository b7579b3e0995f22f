# A name server that never answers: looking up a name happens in a thread of
# libcurl's, in which getaddrinfo() cannot be interrupted. Nothing may wait for
# it: no cancel, no time-out, no shutdown.
#
# There is no name server here at all. A library, loaded into the server
# before all others, makes getaddrinfo() take as long as the name says.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $LIMIT = 10;
my $GOAL  = 0.1;

my $dir = PostgreSQL::Test::Utils::tempdir('resolver');
append_to_file("$dir/slow.c", <<'END');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* silent-SECONDS.example: no answer for so long, then "no such host" */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		(int (*) (const char *, const char *, const struct addrinfo *, struct addrinfo **)) dlsym(RTLD_NEXT, "getaddrinfo");

	if (node != NULL && strncmp(node, "silent-", 7) == 0)
	{
		struct timespec left = {.tv_sec = atoi(node + 7)};

		while (nanosleep(&left, &left) != 0)
			;
		return EAI_NONAME;
	}
	return real(node, service, hints, result);
}
END
my $compiler = $ENV{CC} || 'cc';
plan skip_all => "there is no C compiler ($compiler)"
  if system("$compiler -shared -fPIC -o '$dir/slow.so' '$dir/slow.c' -ldl >'$dir/cc.log' 2>&1") != 0;

my $mock = start_mock();
my $node;
{
	local $ENV{LD_PRELOAD} = "$dir/slow.so";
	$node = clerk_node('dns', $mock, conf => "fsync = off\nlog_line_prefix = '[%p] '\n");
}
clerk_server($node, $mock, name => 'silent',  server => { api_url => 'https://silent-300.example' });
clerk_server($node, $mock, name => 'slow',    server => { api_url => 'https://silent-2.example' });
clerk_server($node, $mock, name => 'patient', server => { api_url => 'https://silent-300.example', connect_timeout => '400ms', max_retries => 0 });

my %took;

sub measured
{
	my ($what, $seconds, $limit) = @_;

	$took{$what} = $seconds;
	note sprintf '%s: %.1f ms', $what, $seconds * 1000;
	cmp_ok($seconds, '<', $limit || $LIMIT, "$what: at once");
	return;
}

sub call
{
	return "SELECT create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{d.example}', server => '$_[0]')->>'name'";
}

sub threads
{
	my ($session) = @_;

	return map { m{(\d+)\z} } glob '/proc/' . $session->pid . '/task/*';
}

# A look-up under way: there is a thread.
sub looking_up
{
	my ($server) = @_;
	my $session = session($node);

	$session->send(call($server));
	wait_until(sub { threads($session) > 1 }, 'the thread that looks up the name', 10);
	return $session;
}

# statement_timeout
my $session = session($node);
$session->query("SET statement_timeout = '300ms'");
my $result = $session->run(call('silent'));
is($result->{sqlstate}, '57014', 'statement_timeout: query_canceled');
measured('statement_timeout of 300 ms, beyond it', $result->{seconds} - 0.3);
diag sprintf 'statement_timeout = 300ms, dead name server: %.0f ms', $result->{seconds} * 1000;
unlike($result->{err}, qr/may exist/, 'statement_timeout: nothing was sent');

# The session is good for more: the same, another server, no threads piled up for ever
$result = $session->run(call('silent'));
is($result->{sqlstate}, '57014', 'the same again');
$session->query('RESET statement_timeout');
is($session->query(call('clerk')), 'N', 'the same session reaches another server');

# The thread takes no signal that is meant for the backend
my @threads = grep { $_ != $session->pid } threads($session);
is(scalar @threads, 2, 'the abandoned look-ups still have their threads');
for my $thread (@threads)
{
	my ($blocked) = slurp_file('/proc/' . $session->pid . "/task/$thread/status") =~ /^SigBlk:\s*([0-9a-f]+)/m;
	my @open = grep { !(hex(substr $blocked, -8) >> ($_ - 1) & 1) } grep { $_ != 9 && $_ != 19 } 1 .. 31;

	is("@open", '', "a look-up's thread takes no signal (SigBlk $blocked)");
}
my ($blocked) = slurp_file('/proc/' . $session->pid . '/status') =~ /^SigBlk:\s*([0-9a-f]+)/m;
ok(!(hex(substr $blocked, -8) >> 1 & 1), 'the backend itself still takes SIGINT');
my $start = time;
$session->stop;
wait_until(sub { process_gone($session->pid) }, 'the backend to end', 30);
measured('the exit of a backend with look-ups under way', time - $start);

# connect_timeout
$session = session($node);
$result = $session->run(call('patient'));
is($result->{sqlstate}, 'KC001', 'connect_timeout: KC001');
measured('connect_timeout of 400 ms, beyond it', $result->{seconds} - 0.4);
like($result->{err}, qr/HINT:.*Nothing was sent/, 'connect_timeout: the hint says that nothing was sent');
$session->stop;

# A look-up that does end, after its request was cancelled, and one that fails
$session = looking_up('slow');
kill 'INT', $session->pid;
is($session->finish->{sqlstate}, '57014', 'cancelled before the look-up ended');
wait_until(sub { threads($session) == 1 }, 'the look-up to end', 10);
is($session->query('SELECT 1'), 1, 'the session survives its end');
$result = $session->run(call('slow'));
is($result->{sqlstate}, 'KC001', 'an unknown host: KC001');
like($result->{err}, qr/DETAIL:.*resolve/i, 'an unknown host: the detail says so');
like($result->{err}, qr/HINT:.*name server/, 'an unknown host: the hint names the name server');

# Cancels and terminations
$session = looking_up('silent');
$start   = time;
kill 'INT', $session->pid;
$result = $session->finish;
measured('cancel', time - $start);
is($result->{sqlstate}, '57014', 'cancel: query_canceled');

my $admin = session($node);
$session = looking_up('silent');
$start   = time;
is($admin->query('SELECT pg_terminate_backend(' . $session->pid . ')'), 't', 'terminate');
$result = $session->finish;
measured('pg_terminate_backend', time - $start);
is($result->{sqlstate}, '57P01', 'terminate: admin_shutdown');
wait_until(sub { process_gone($session->pid) }, 'the backend to end', 30);
measured('the backend is gone', time - $start);

# Shutdown
$session = looking_up('silent');
$start   = time;
$node->stop('fast');
measured('pg_ctl stop -m fast', time - $start, 20);
is($session->finish->{sqlstate}, '57P01', 'fast shutdown: admin_shutdown');

# The postmaster's death
{
	local $ENV{LD_PRELOAD} = "$dir/slow.so";
	$node->start;
}
$session = looking_up('silent');
$start   = time;
$node->kill9;
wait_until(sub { process_gone($session->pid) }, 'the backend to notice that the postmaster has died', 30);
measured('the postmaster was killed', time - $start);

is(scalar(my @requests = $mock->requests), 1, 'only the one call has reached a server');
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');

my @slow = grep { $took{$_} > $GOAL } sort keys %took;
diag 'slower than ' . $GOAL * 1000 . ' ms: ' . join ', ', map { sprintf '%s (%.0f ms)', $_, $took{$_} * 1000 } @slow if @slow;

done_testing();
