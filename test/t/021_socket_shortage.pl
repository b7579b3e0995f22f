# Sockets are not used up: not by connects that time out, in a session or in a
# worker, nor by as many requests at a time as can be asked for.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

my $mock = start_mock('--lenient');
my $node = clerk_node('shortage', $mock, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
pg_clerk.worker = off
pg_clerk.naptime = '1s'
pg_clerk.max_attempts = 1
fsync = off
END
my $outage = 500;    # connects that time out; a third of them is too many for who never counts back

# A port whose backlog is full: it neither accepts nor refuses.
socket my $full, PF_INET, SOCK_STREAM, 0 or die "could not make a socket: $!";
bind $full, pack_sockaddr_in(0, INADDR_LOOPBACK) or die "could not bind: $!";
listen $full, 0 or die "could not listen: $!";
my @backlog;
for (1 .. 4)
{
	socket my $socket, PF_INET, SOCK_STREAM | Socket::SOCK_NONBLOCK(), 0 or die "could not make a socket: $!";
	connect $socket, getsockname $full;
	push @backlog, $socket;
}
my $dead = 'http://127.0.0.1:' . (unpack_sockaddr_in(getsockname $full))[0];
# One for each time that a connection has to be made: none is kept then.
my @untouched = map { start_mock('--lenient') } 1 .. 5;
clerk_server($node, $untouched[$_], name => "untouched$_") for 0 .. $#untouched;
clerk_server($node, $mock, name => 'dead', server => { api_url => $dead, max_retries => 0, connect_timeout => '20ms', max_concurrency => 500 });

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Sockets and other files that a process has open.
sub files
{
	my ($pid) = @_;
	my @files = glob "/proc/$pid/fd/*";

	return scalar @files;
}

# ---------------------------------------------------------------------------
# In a session
# ---------------------------------------------------------------------------
my $session = session($node);
my $good = q{SELECT create_enterprise_connection('{"name": "%s", "provider": "saml_okta"}') ->> 'name'};
is($session->query(sprintf $good, 'before'), 'before', 'a session: before the outage');

sub untouched
{
	my ($n, $what) = @_;
	my $got = $session->run(qq{SELECT create_enterprise_connection('{"name": "anew", "provider": "saml_okta"}', 'untouched$n') ->> 'name'});

	is($got->{out}, 'anew', "$what a good server works, with a new connection") or diag $got->{err};
	return;
}

my $files = files($session->pid);
my $result = $session->run(qq{
	DO \$\$
	DECLARE
		others text;
		detail text;
	BEGIN
		FOR i IN 1..$outage LOOP
			BEGIN
				PERFORM get_enterprise_connection('a', 'dead');
			EXCEPTION WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
				IF SQLSTATE <> 'KC001' OR detail !~* 'time' THEN
					others := concat(i, ': ', SQLSTATE, ' ', SQLERRM, ' ', detail);
				END IF;
			END;
		END LOOP;
		RAISE NOTICE 'others: %', coalesce(others, 'none');
	END \$\$}, 300);
like($result->{err}, qr/others: none/, "$outage connects that time out: KC001 for that reason, each of them") or diag $result->{err};
untouched(0, 'after them');
cmp_ok(files($session->pid), '<', $files + 20, 'nothing is left open');

# as many at a time
$result = $session->run(q{SELECT error ->> 'sqlstate', count(*) FROM create_enterprise_connections(ARRAY(SELECT '{"name": "x"}'::jsonb FROM generate_series(1, 500)), 'dead') GROUP BY 1}, 120);
is($result->{out}, "KC001|$outage", "$outage at a time that time out: KC001, each of them") or diag $result->{err};
untouched(1, 'after them');

# ---------------------------------------------------------------------------
# As many at a time as can be asked for
# ---------------------------------------------------------------------------
clerk_server($node, $mock, name => 'wide', server => { max_concurrency => 500, timeout => '60s' });
$mock->settings({ latency_ms => 300 });
$result = $session->run(q{
	SELECT count(*), count(*) FILTER (WHERE error IS NULL), min(error ->> 'message')
	FROM create_enterprise_connections(ARRAY(SELECT jsonb_build_object('name', 'B' || i, 'provider', 'saml_okta') FROM generate_series(1, 700) i), 'wide')}, 300);
is($result->{out}, '700|700|', '700 creates, max_concurrency 500: all are made') or diag $result->{err};
is(scalar(grep { $_->{name} =~ /^B\d/ } $mock->connections), 700, 'once each');
note "connections: " . $mock->stats->{connections_opened};
untouched(2, 'after the batch');
$session->stop;

# ---------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------
$mock->settings({ latency_ms => 0 });
$node->append_conf('postgresql.conf', "pg_clerk.worker = on\n");
$node->reload;
sub enqueue
{
	my ($name, $server) = @_;

	$server ||= 'clerk';
	return query(qq{SELECT enqueue_enterprise_connection('upsert', '{"name": "$name", "provider": "saml_okta"}', key => '$name', server => '$server')});
}

sub is_delivered
{
	my ($request, $what) = @_;

	eval { wait_until(sub { query("SELECT finished_at IS NOT NULL FROM enterprise_connection_requests WHERE id = $request") eq 't' }, 'the end', 60) };
	is(query("SELECT state, attempts, error ->> 'message' FROM enterprise_connection_requests WHERE id = $request"), 'delivered|1|', "$what: delivered, with one attempt");
	return;
}

sub worker
{
	return wait_until(sub { query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'}) }, 'a worker', 60);
}

is_delivered(enqueue('before the outage'), 'a worker: before the outage');
my $pid = worker();
for my $round (1, 2)
{
	query("SELECT count(enqueue_enterprise_connection('delete', id => 'd$round-' || n, server => 'dead')) FROM generate_series(1, $outage) n");
	ok(eval { wait_until(sub { query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server = 'dead' AND finished_at IS NULL}) == 0 }, 'the end', 120) }, "round $round: all $outage have been tried")
	  or diag query(q{SELECT state, attempts, count(*) FROM enterprise_connection_requests WHERE server = 'dead' GROUP BY 1, 2});
	is(query(qq{SELECT state, attempts, error ->> 'sqlstate', count(*) FROM enterprise_connection_requests WHERE server = 'dead' AND connection_id LIKE 'd$round-%' GROUP BY 1, 2, 3}),
		"failed|1|KC001|$outage", "round $round: each of them once");
	is(query(qq{SELECT count(*) FROM enterprise_connection_requests WHERE connection_id LIKE 'd$round-%' AND error ->> 'detail' !~* 'time'}), 0, "round $round: for that reason");
	is_delivered(enqueue("after round $round", 'untouched' . (2 + $round)), "round $round: then a good server");
}
is(worker(), $pid, 'the worker is the same');

$mock->settings({ latency_ms => 300 });
query(q{SELECT count(enqueue_enterprise_connection('create', jsonb_build_object('name', 'W' || n, 'provider', 'saml_okta'), server => 'wide')) FROM generate_series(1, 700) n});
ok(eval { wait_until(sub { query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server = 'wide' AND finished_at IS NULL}) == 0 }, 'the end', 120) }, '700 requests, max_concurrency 500: all are done');
is(query(q{SELECT state, attempts, error ->> 'message', count(*) FROM enterprise_connection_requests WHERE server = 'wide' GROUP BY 1, 2, 3}), 'delivered|1||700', 'with one attempt each');
is(scalar(grep { $_->{name} =~ /^W\d/ } $mock->connections), 700, 'once each');
is(worker(), $pid, 'by the same worker');
note "connections: " . $mock->stats->{connections_opened};

unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal|exited with exit code [1-9]/, 'nothing crashed');
done_testing();
