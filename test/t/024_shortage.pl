# A process that can have no socket, or no memory for one, waits for it as long
# as its time-out allows. What waited in vain was not sent, is no attempt, and
# is not called the network's fault; and all goes on when there are sockets.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir  = PostgreSQL::Test::Utils::tempdir('shim');
my $lack = "$dir/lack";

# As long as there is the file, whose contents are an errno, no socket to
# another machine's address is made.
append_to_file("$dir/shim.c", <<"SHIM");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
int
socket(int domain, int type, int protocol)
{
	int			(*real) (int, int, int) = dlsym(RTLD_NEXT, "socket");
	FILE	   *file = domain == AF_INET ? fopen("$lack", "r") : NULL;
	int			error = 0;

	if (file == NULL)
		return real(domain, type, protocol);
	if (fscanf(file, "%d", &error) != 1)
		error = EMFILE;
	fclose(file);
	errno = error;
	return -1;
}
SHIM
plan skip_all => 'no compiler' if system("cc -shared -fPIC -o $dir/shim.so $dir/shim.c -ldl") != 0;

my $mock = start_mock();
my $node;
{
	local $ENV{LD_PRELOAD} = "$dir/shim.so";

	$node = clerk_node(
		'shortage', $mock,
		conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\npg_clerk.naptime = '1s'\npg_clerk.max_attempts = 1\n");
}
clerk_server($node, $mock, name => 'hasty', server => { timeout => '400ms' });

sub lack
{
	my ($errno) = @_;

	unlink $lack;
	append_to_file("$lack.new", $errno) if defined $errno;
	rename "$lack.new", $lack if defined $errno;
	return;
}

sub create
{
	my ($n, $server) = @_;

	return "create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{s$n.example}', server => '$server')";
}

my %words = (24 => 'no more open files', 105 => 'short of memory');
for my $errno (sort keys %words)
{
	lack($errno);
	$mock->reset;
	for my $sql ('SELECT ' . create(1, 'hasty'), q{SELECT get_enterprise_connection('a', 'hasty')},
		q{SELECT delete_enterprise_connection('a', 'hasty')},
		q{SELECT count(*) FROM list_enterprise_connections(server => 'hasty')},
		q{SELECT count(*) FROM mirror_enterprise_connections('hasty')})
	{
		my $session = session($node);

		like($session->run($sql)->{err}, qr/ERROR:  53000: could not .*: no free socket in this process\nDETAIL:  The operating system .*$words{$errno}/, "$errno: $sql");
		$session->stop;
	}
	is($node->safe_psql('postgres',
			q{SELECT count(*), min(error ->> 'sqlstate'), max(error ->> 'sqlstate') FROM create_enterprise_connections(
				array_fill('{"name": "b", "provider": "saml_okta", "domains": ["b.example"]}'::jsonb, ARRAY[10]), 'hasty')}),
		'10|53000|53000', "$errno: a batch");
	is(scalar $mock->requests, 0, "$errno: nothing was sent");
}

# One call, and many, that wait for it.
for my $sql ('SELECT ' . create(2, 'clerk') . ' IS NOT NULL',
	q{SELECT count(*) = 10 FROM create_enterprise_connections(ARRAY(SELECT jsonb_build_object('name', 'w', 'provider', 'saml_okta',
		'domains', ARRAY['w' || i || '.example']) FROM generate_series(1, 10) AS i)) WHERE error IS NULL},
	q{SELECT count(*) > 10 FROM list_enterprise_connections()})
{
	lack(24);
	my $session = session($node);
	my $pid     = $session->pid;

	$session->send($sql);
	wait_until(sub { $node->safe_psql('postgres', "SELECT state || coalesce(wait_event_type, '') FROM pg_stat_activity WHERE pid = $pid") =~ /^activeExtension/ },
		'it to wait');
	lack();
	is($session->finish->{out}, 't', "there are sockets again: $sql");
	$session->stop;
}

# The worker: no attempt, and the reason is shown meanwhile.
lack(24);
my $request = $node->safe_psql('postgres',
	q{SELECT enqueue_enterprise_connection('upsert', '{"name": "Q", "provider": "saml_okta", "domains": ["q.example"]}', 'q')});
wait_until(sub { $node->safe_psql('postgres', "SELECT state, attempts, error ->> 'sqlstate' FROM enterprise_connection_requests WHERE id = $request") eq 'queued|0|53000' },
	'the request to be put back');
pass('the worker: put back, no attempt');
lack();
is($node->safe_psql('postgres', "SELECT await_enterprise_connection($request) ->> 'name'"), 'Q', 'and delivered when there are sockets');
is($node->safe_psql('postgres', "SELECT state, attempts FROM enterprise_connection_requests WHERE id = $request"), 'delivered|1', 'by one attempt, the only one it has');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP|ERROR:  XX/, 'no process has crashed');

done_testing();
