# enterprise_connection_stats: what all processes have asked, as the mock server
# has counted it.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $mock = start_mock();
my $node = clerk_node('statistics', $mock,
	conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\nmax_worker_processes = 16\n");

sub stats
{
	my ($server) = @_;
	my $json = $node->safe_psql('postgres', sprintf
		q{SELECT to_jsonb(s) FROM enterprise_connection_stats s WHERE server = '%s'}, $server || 'clerk');

	return parse_json($json);
}

sub sum
{
	my $sum = 0;

	$sum += $_ for @_;
	return $sum;
}

# How often the mock got such a request.
sub got
{
	my ($method, $pattern, @requests) = @_;

	return scalar grep { $_->{method} eq $method && $_->{path} =~ $pattern } @requests;
}

# ---------------------------------------------------------------------------
# A thousand requests of all kinds, by a worker, sessions and batches, of a Clerk
# that fails in many ways
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', q{
	CREATE FUNCTION attempt(statement text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN EXECUTE statement; EXCEPTION WHEN SQLSTATE 'KC000' THEN NULL; END $$;
	CREATE FUNCTION params(n text) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('name', n, 'provider', 'saml_okta', 'domains', jsonb_build_array(n || '.example'))$$;
	SELECT enterprise_connection_stats_reset()});
$mock->seed({ count => 40, prefix => 'seeded' });
$mock->settings({ chaos => { seed => 7, p_500 => 0.05, p_429 => 0.05, p_reset_before => 0.03, p_reset_after => 0.03, p_slow => 0.05, slow_ms => 30 } });
my @ids = map { $_->{id} } $mock->connections;
my $ids = join ',', @ids;
my @sessions = map { session($node) } 1 .. 3;
$_->query(q{SET pg_clerk.on_rollback = 'ignore'}) for @sessions;
$sessions[0]->send("SELECT attempt(format('SELECT get_enterprise_connection(%L)', id)) FROM unnest('{$ids}'::text[]) id, generate_series(1, 6)");
$sessions[1]->send("SELECT attempt(format('SELECT update_enterprise_connection(%L, %L)', id, '{\"active\": false}')) FROM unnest('{$ids}'::text[]) id, generate_series(1, 4);
	SELECT attempt(format('SELECT create_enterprise_connection_test_run(%L)', id)) FROM unnest('{$ids}'::text[]) id;
	SELECT attempt(format('SELECT count(*) FROM list_enterprise_connection_test_runs(%L)', id)) FROM unnest('{$ids}'::text[]) id");
$sessions[2]->send("SELECT count(*) FROM create_enterprise_connections(ARRAY(SELECT params('batch' || n) FROM generate_series(1, 200) n));
	SELECT attempt('SELECT count(*) FROM list_enterprise_connections()') FROM generate_series(1, 20);
	SELECT attempt(format('SELECT upsert_enterprise_connection(%L, params(%L))', 'k' || n, 'direct' || n)) FROM generate_series(1, 40) n, generate_series(1, 2);
	SELECT attempt('SELECT count(*) FROM mirror_enterprise_connections(force => true)')");
$node->safe_psql('postgres', q{
	SELECT enqueue_enterprise_connection('upsert', params('queued' || n), 'q' || n) FROM generate_series(1, 150) n});
$node->safe_psql('postgres', q{
	SELECT enqueue_enterprise_connection('delete', key => 'q' || n) FROM generate_series(1, 50) n});
$_->finish(180) for @sessions;
$mock->settings({ chaos => undef });
ok(eval {
	wait_until(
		sub { $node->safe_psql('postgres', q{
			UPDATE enterprise_connection_requests SET next_attempt_at = now() WHERE state IN ('queued', 'in_doubt') AND next_attempt_at < 'infinity' AND next_attempt_at > now();
			SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL}) eq '0' },
		'all deliveries', 90)
}, 'all is delivered') or note $@;

my $counted = $mock->stats;
my @requests = $mock->requests;
my $stats = stats();
my $in_hand = $node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE state = 'failed') FROM enterprise_connection_requests});

note explain $stats, explain $counted;
cmp_ok($counted->{requests}, '>=', 1000, 'a thousand requests');
is($stats->{creates}, got('POST', qr/enterprise_connections$/, @requests), 'creates');
is($stats->{updates}, got('PATCH', qr/./, @requests), 'updates');
is($stats->{deletes}, got('DELETE', qr/./, @requests), 'deletes');
is($stats->{gets}, got('GET', qr/enterprise_connections\/[^\/]+$/, @requests), 'gets');
is($stats->{lists}, got('GET', qr/enterprise_connections$/, @requests), 'lists');
is($stats->{test_runs}, got('GET', qr/test_runs$/, @requests) + got('POST', qr/test_runs$/, @requests), 'test runs');
is(sum(map { $stats->{$_} } qw(creates updates deletes gets lists test_runs)), $counted->{requests}, 'all requests');
my %status = %{ $counted->{by_status} };
my $none = delete $status{none} || 0;
is($stats->{network_failures}, $none, 'network failures');
is($stats->{answers_429}, $status{429} || 0, '429');
is($stats->{answers_2xx}, sum(map { $status{$_} } grep { /^2/ } keys %status), '2xx');
is($stats->{answers_4xx}, sum(map { $status{$_} } grep { /^4/ && $_ != 429 } keys %status), '4xx');
is($stats->{answers_5xx}, sum(map { $status{$_} } grep { /^5/ } keys %status), '5xx');
is($stats->{answers_other} + $stats->{shortages}, 0, 'nothing else');
is(sum(@{ $stats->{answer_time_histogram} }), $counted->{requests} - $none, 'each answer is in the histogram');
cmp_ok($stats->{answer_time}, '>', $stats->{max_answer_time}, 'times');
cmp_ok($stats->{max_answer_time}, '>=', 30, 'the slow ones');
cmp_ok(sum(@{ $stats->{answer_time_histogram} }[3 .. 11]), '>=', 20, 'in their buckets');
cmp_ok($stats->{retries}, '>', 20, 'retries');
cmp_ok($stats->{in_doubt}, '>', 2, 'in doubt');
cmp_ok($stats->{looked_up}, '>=', 1, 'looked up');
cmp_ok($stats->{pace_time}, '>', 0, 'waited after 429');

# ---------------------------------------------------------------------------
# Progress of what takes long, while one of its requests waits
# ---------------------------------------------------------------------------
sub is_shown
{
	my ($session, $pattern, $what) = @_;
	my $query = '';

	eval { wait_until(sub { ($query = $node->safe_psql('postgres', 'SELECT query FROM pg_stat_activity WHERE pid = ' . $session->pid)) =~ $pattern }, $what, 20) };
	like($query, $pattern, $what);
	return;
}
$mock->script({ match => { body_contains => 'waits' }, hold => JSON::PP::true },
	{ match => { body_contains => 'refused' }, status => 422, body => { errors => [] } });
$sessions[0]->send(q{SELECT count(*) FROM create_enterprise_connections(ARRAY[params('p1'), params('waits'), params('refused'), '{}', params('p2')])});
is_shown($sessions[0], qr/^create_enterprise_connections, server clerk: 4 of 5 connections, 2 failed, \d+\.\d a second, \d+ s to go$/, 'a batch');
$mock->release;
is($sessions[0]->finish->{out}, '5', 'it ends');
is_shown($sessions[0], qr/^SELECT count.*create_enterprise_connections/, 'and its statement is shown again');
$mock->script({ match => { body_contains => 'waits' }, hold => JSON::PP::true });
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) eq '0' }, 'no worker');
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('upsert', params(n), n) FROM unnest('{waits2,d1,d2}'::text[]) n;
	SELECT enqueue_enterprise_connection('update', '{"active": true}', 'no such')});
$sessions[0]->send('CALL deliver_enterprise_connections()');
is_shown($sessions[0], qr/^deliver_enterprise_connections: 3 requests, 1 failed, \d+\.\d a second$/, 'CALL');
$mock->release;
$sessions[0]->finish;
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;

# ---------------------------------------------------------------------------
# Databases do not see each other's; a reset is for all sessions
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION pg_clerk');
is($node->safe_psql('other', 'SELECT count(*) FROM enterprise_connection_stats'), '0', 'of this database alone');
clerk_server($node, $mock, dbname => 'other');
is($node->safe_psql('other', 'SELECT creates FROM enterprise_connection_stats'), '0', 'its own counters');
$node->safe_psql('other', 'SELECT count(*) FROM list_enterprise_connections()');
is(stats()->{lists}, $stats->{lists}, 'another database counts for itself');
$node->safe_psql('other', 'SELECT enterprise_connection_stats_reset()');
is(stats()->{lists}, $stats->{lists}, 'and resets its own');
$node->safe_psql('postgres', q{SELECT enterprise_connection_stats_reset('clerk')});
is(stats()->{lists}, 0, 'reset');
$sessions[0]->query('SELECT count(*) FROM list_enterprise_connections()');
is(stats()->{lists}, 1, 'a session that was there before goes on');

# ---------------------------------------------------------------------------
# More servers than places: those of servers and databases that are gone are
# taken, and then each session counts for itself
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', q{DO $$BEGIN FOR i IN 1..250 LOOP
	EXECUTE format('CREATE SERVER gone%s FOREIGN DATA WRAPPER pg_clerk', i); EXECUTE format('DROP SERVER gone%s', i); END LOOP; END$$});
$node->safe_psql('postgres', q{DO $$BEGIN FOR i IN 1..100 LOOP EXECUTE format('CREATE SERVER many%s FOREIGN DATA WRAPPER pg_clerk', i); END LOOP; END$$});
clerk_server($node, $mock, name => 'last');
$sessions[0]->query(q{SELECT count(*) FROM list_enterprise_connections(server => 'last')});
is(stats('last')->{lists}, 1, 'places of servers that are gone are taken');
$node->safe_psql('postgres', q{DO $$BEGIN FOR i IN 101..300 LOOP EXECUTE format('CREATE SERVER many%s FOREIGN DATA WRAPPER pg_clerk', i); END LOOP; END$$});
clerk_server($node, $mock, name => 'beyond');
$sessions[0]->query(q{SELECT count(*) FROM list_enterprise_connections(server => 'beyond')});
is($sessions[0]->query(q{SELECT lists FROM enterprise_connection_stats WHERE server = 'beyond'}), '1', 'beyond them, a session has its own');
is(stats('beyond')->{lists}, 0, 'and others theirs');
is(stats('last')->{lists}, 1, 'the rest goes on');

done_testing();
