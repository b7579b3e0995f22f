# Sockets are what a process has few of. What libcurl closes without a word is
# not counted for ever, nobody takes more than there are, what finds none waits
# its turn; and what is abandoned in the middle of many transfers leaves no
# memory behind that is used again.

use strict;
use warnings;

use ClerkTest;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;
use Time::HiRes qw(sleep time);

# glibc overwrites what is freed; so what uses it, crashes.
$ENV{MALLOC_PERTURB_} = 85;

my $mock = start_mock();
my $node = clerk_node(
	'sockets', $mock,
	conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\npg_clerk.naptime = '1s'\npg_clerk.max_attempts = 1\nmax_files_per_process = 1000\n");

sub create
{
	my ($n, $server) = @_;

	return sprintf q{create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{c%d.example}', server => '%s') ->> 'id'}, $n, $server || 'clerk';
}

sub batch
{
	my ($name, $count, $more) = @_;

	return sprintf q{create_enterprise_connections(ARRAY(SELECT jsonb_build_object('name', '%s' || i, 'provider', 'saml_okta',
		'domains', ARRAY['%s' || i || '.example']%s) FROM generate_series(1, %d) AS i))}, $name, $name, $more || '', $count;
}

# A port that neither accepts nor refuses: its queue is full.
my $dead = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die;
listen($dead, 0) or die;
my @fillers;
for (1 .. 10)
{
	push @fillers, IO::Socket::INET->new(
		PeerAddr => '127.0.0.1', PeerPort => $dead->sockport, Blocking => 0);
}
clerk_server($node, $mock, name => 'dead', server => {
	api_url => 'http://127.0.0.1:' . $dead->sockport, max_retries => 0, connect_timeout => '20ms' });

# ---------------------------------------------------------------------------
# 500 connects that time out, then a server that answers
# ---------------------------------------------------------------------------
my $session = session($node);
my $result  = $session->query(q{
CREATE FUNCTION pg_temp.states() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	states text[];
BEGIN
	FOR i IN 1 .. 500 LOOP
		BEGIN
			PERFORM public.get_enterprise_connection('a', 'dead');
		EXCEPTION WHEN OTHERS THEN
			states := states || sqlstate;
		END;
	END LOOP;
	RETURN (SELECT string_agg(s || ' ' || n, ', ') FROM (SELECT s, count(*) FROM unnest(states) AS s GROUP BY s) AS c (s, n));
END $$;
SELECT pg_temp.states()});
like($result, qr/^KC001 500$/m, '500 connects that time out: KC001 each');
like($session->query('SELECT ' . create(1)), qr/entconn/, 'then a server that answers, in the same session');

# The same in the worker: each is one attempt, the only one here.
sub finished
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL') eq '0';
}
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('delete', id => 'd' || i, server => 'dead') FROM generate_series(1, 500) AS i});
wait_until(\&finished, 'each to be tried');
is($node->safe_psql('postgres', q{SELECT state, attempts, error ->> 'sqlstate', count(*) FROM enterprise_connection_requests GROUP BY 1, 2, 3}),
	'failed|1|KC001|500', '500 connects of the worker: KC001 each, one attempt each');
my $request = $node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('upsert', '{"name": "W", "provider": "saml_okta", "domains": ["w.example"]}', 'w')});
wait_until(\&finished, 'the server that answers');
is($node->safe_psql('postgres', "SELECT state, attempts FROM enterprise_connection_requests WHERE id = $request"), 'delivered|1',
	'then a server that answers, in the same worker');

# ---------------------------------------------------------------------------
# More at a time than there are files
# ---------------------------------------------------------------------------
$mock->settings({ latency_ms => 200 });
$node->safe_psql('postgres', q{ALTER SERVER clerk OPTIONS (ADD max_concurrency '500')});
is($node->safe_psql('postgres', 'SELECT count(*) FILTER (WHERE error IS NULL), count(*) FILTER (WHERE error IS NOT NULL) FROM ' . batch('b', 700)),
	'700|0', '700 creates, 500 at a time');
cmp_ok($mock->stats->{max_in_flight}, '>', 200, 'a few hundred at a time');

# Others of the same process have most of them
$node->append_conf('postgresql.conf', "max_files_per_process = 64\n");
$node->restart;
is($node->safe_psql('postgres', 'SELECT count(*) FILTER (WHERE error IS NULL), count(*) FILTER (WHERE error IS NOT NULL) FROM ' . batch('s', 100)),
	'100|0', 'where a process may have few files, fewer at a time');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mirror_enterprise_connections()'), '0', 'and a mirror');
$mock->settings({ latency_ms => 0 });
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('create', jsonb_build_object('name', 'q' || i, 'provider', 'saml_okta', 'domains', ARRAY['q' || i || '.example'])) FROM generate_series(1, 200) AS i});
wait_until(\&finished, 'the outbox to be empty');
is($node->safe_psql('postgres', q{SELECT state, attempts, count(*) FROM enterprise_connection_requests WHERE operation = 'create' GROUP BY 1, 2}),
	'delivered|1|200', 'and by the outbox, one attempt each');
$node->append_conf('postgresql.conf', "max_files_per_process = 1000\n");
$node->restart;

# ---------------------------------------------------------------------------
# Abandoned in the middle, in each way there is
# ---------------------------------------------------------------------------
$mock->script({ match => { method => 'POST' }, times => 0, delay_ms => 20000, real => JSON::PP::true() });
my $large = q{, 'saml', jsonb_build_object('idp_metadata', repeat('y', 100000))};
for my $try (1 .. 3)
{
	my ($status, $out, $err) = $node->psql('postgres', "SET statement_timeout = '700ms'; SELECT count(*) FROM " . batch("x$try", 40, $large));

	like($err, qr/canceling statement due to statement timeout/, "a batch, by statement_timeout ($try)");
}
my ($status, $out, $err);
$mock->unscript;
$mock->script({ match => { method => 'GET' }, times => 0, delay_ms => 20000, real => JSON::PP::true() });
for my $sql ('SELECT count(*) FROM mirror_enterprise_connections()', 'SELECT count(*) FROM list_enterprise_connections()',
	q{SELECT get_enterprise_connection('x')})
{
	($status, $out, $err) = $node->psql('postgres', "SET statement_timeout = '500ms'; $sql");
	like($err, qr/canceling statement due to statement timeout/, $sql);
}
$mock->unscript;

# In a subtransaction, and the session goes on.
$mock->script({ match => { method => 'POST' }, times => 40, delay_ms => 20000, real => JSON::PP::true() });
$session = session($node);
is($session->query(q{
CREATE FUNCTION pg_temp.cancelled() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL pg_clerk.on_rollback = 'delete';
	PERFORM public.create_enterprise_connections(ARRAY['{"name": "z", "provider": "saml_okta", "domains": ["z1.example"]}',
		'{"name": "z", "provider": "saml_okta", "domains": ["z2.example"]}']::jsonb[]);
	RETURN 'done';
EXCEPTION WHEN query_canceled THEN
	RETURN 'cancelled';
END $$;
SET statement_timeout = '500ms';
SELECT pg_temp.cancelled();
RESET statement_timeout}), 'cancelled', 'a subtransaction');
$mock->unscript;
like($session->query('SELECT ' . create(2)), qr/entconn/, 'and the session goes on');

# A session that delivers, and the worker, are ended while requests are under way.
$node->append_conf('postgresql.conf', "pg_clerk.worker = off\n");
$node->restart;
$mock->script({ match => { method => 'POST' }, times => 0, delay_ms => 20000, real => JSON::PP::true() });
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('create', jsonb_build_object('name', 'l' || i, 'provider', 'saml_okta', 'domains', ARRAY['l' || i || '.example'],
	'saml', jsonb_build_object('idp_metadata', repeat('y', 100000)))) FROM generate_series(1, 40) AS i});
($status, $out, $err) = $node->psql('postgres', "SET statement_timeout = '1s';\nCALL deliver_enterprise_connections()");
like($err, qr/canceling statement due to statement timeout/, 'deliver_enterprise_connections()');
$node->append_conf('postgresql.conf', "pg_clerk.worker = on\n");
$node->restart;
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) eq '1' }, 'a worker');
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('create', jsonb_build_object('name', 'm' || i, 'provider', 'saml_okta', 'domains', ARRAY['m' || i || '.example'])) FROM generate_series(1, 40) AS i});
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) > 0 FROM enterprise_connection_requests WHERE state = 'sending'}) eq 't' }, 'requests under way');
my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
wait_until(sub { process_gone($worker) }, 'the worker to end');
$mock->unscript;

my $log = slurp_file($node->logfile);
unlike($log, qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');

# ---------------------------------------------------------------------------
# A libcurl that was built without HTTP/2, which it is an error to ask for
# ---------------------------------------------------------------------------
$node->stop;
my $dir = PostgreSQL::Test::Utils::tempdir('shim');
append_to_file("$dir/shim.c", <<'SHIM');
#define _GNU_SOURCE
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <stdarg.h>
#undef curl_easy_setopt
curl_version_info_data *
curl_version_info(CURLversion version)
{
	static curl_version_info_data data;
	curl_version_info_data *(*real) (CURLversion) = dlsym(RTLD_NEXT, "curl_version_info");

	data = *real(version);
	data.features &= ~CURL_VERSION_HTTP2;
	return &data;
}

CURLcode
curl_easy_setopt(CURL *easy, CURLoption option,...)
{
	CURLcode	(*real) (CURL *, CURLoption,...) = dlsym(RTLD_NEXT, "curl_easy_setopt");
	va_list		args;
	void	   *value;

	va_start(args, option);
	value = va_arg(args, void *);
	va_end(args);
	if (option == CURLOPT_HTTP_VERSION && (long) value > CURL_HTTP_VERSION_1_1)
		return CURLE_UNSUPPORTED_PROTOCOL;
	return real(easy, option, value);
}
SHIM
SKIP:
{
	skip 'no compiler', 1 if system("cc -shared -fPIC -o $dir/shim.so $dir/shim.c -ldl") != 0;
	local $ENV{LD_PRELOAD} = "$dir/shim.so";
	$node->start;
	like($node->safe_psql('postgres', 'SELECT ' . create(3)), qr/entconn/, 'a libcurl without HTTP/2');
	$node->stop;
}

# ---------------------------------------------------------------------------
# Without a postmaster
# ---------------------------------------------------------------------------
my $sql = "SELECT count(*) FROM list_enterprise_connections(max_rows => 3)\n";
my ($single_out, $single_err) = ('', '');
IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], \$sql, \$single_out, \$single_err);
like($single_out, qr/count = "3"/, 'single-user mode');

done_testing();
