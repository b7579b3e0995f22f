# What waits costs nothing while it waits, and holds up nothing else: locked
# rows, a key that is refused, a pause that Clerk asks for, long lanes.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock();
my $node = clerk_node('waiting', $mock, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
fsync = off
autovacuum = off
pg_clerk.naptime = '60s'
END
my $count = 0;
my ($request, $other, $session, $start);

sub enqueue
{
	my ($key) = @_;

	return $node->safe_psql('postgres', sprintf
		  q{SELECT enqueue_enterprise_connection('upsert', '{"name": "N", "provider": "saml_okta", "domains": ["d%d.example"]}', '%s')},
		++$count, $key);
}

sub value
{
	my ($id, $column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM enterprise_connection_requests WHERE id = $id");
}

# Long before pg_clerk.naptime is over, but on a busy machine, too.
sub is_delivered
{
	my ($id, $what) = @_;

	is(eval { wait_until(sub { value($id, 'state') eq 'delivered' }, 'delivery', 40) }, 1, $what)
	  or diag value($id, 'to_jsonb(enterprise_connection_requests)');
	return;
}

# Transactions of the database of the worker, looked at from another one.
sub transactions
{
	return $node->safe_psql('template1', q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'});
}

# For as long as this takes, the worker must not look again and again: every
# 20 ms it would be hundreds.
sub is_quiet
{
	my ($what) = @_;

	sleep 2;
	my $before = transactions();
	sleep 3;
	my $made = transactions() - $before;
	cmp_ok($made, '<', 40, "$what: $made transactions in 3 s");
	return;
}

sub answer
{
	my ($status, %more) = @_;

	return {
		status  => $status,
		headers => { 'Content-Type' => 'application/json', %{ $more{headers} || {} } },
		body    => { errors => [ { message => 'no', code => 'no' } ] },
		%{ $more{step} || {} } };
}

# ---------------------------------------------------------------------------
# Somebody has locked what is due
# ---------------------------------------------------------------------------
$mock->script(answer(503));
$request = enqueue('locked');
wait_until(sub { value($request, "attempts = 1 AND state = 'queued'") eq 't' }, 'the first attempt', 40);
$session = session($node);
$session->query("BEGIN; SELECT cancel_enterprise_connection_request($request)");
wait_until(sub { value($request, 'next_attempt_at < now()') eq 't' }, 'the time of the next one', 40);
is_quiet('locked');
is_delivered(enqueue('not locked'), 'others are delivered meanwhile');
$session->query('ROLLBACK');
is_delivered($request, 'then it is, too');
$session->stop;

# ---------------------------------------------------------------------------
# A key that is refused: one probe a minute, whoever makes it
# ---------------------------------------------------------------------------
sub sent
{
	my $requests = () = $mock->requests;

	return $requests;
}

sub paused
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connection_pauses');
}

$mock->reset({ secret_keys => ['sk_test_new'] });
$request = enqueue('refused');
wait_until(sub { paused() }, 'the pause', 40);
is(sent(), 1, 'a key is refused');
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()') for 1 .. 3;
is(sent(), 1, 'no other process tries again');
is_quiet('refused');
$node->safe_psql('postgres', q{UPDATE enterprise_connection_pauses SET probed_at = probed_at - interval '1 min'});
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()') for 1 .. 3;
is(sent(), 2, 'after a minute one does, once');
$other = enqueue('refused, too');
is(sent(), 2, 'nor is what is new tried');

# Accepted is the key, though the request is not.
$mock->script(answer(422));
$start = time;
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_new')});
is_delivered($other, 'with another key all go on');
cmp_ok(time - $start, '<', 20, 'at once');
is(value($request, 'state'), 'failed', 'the first of them has failed');
is(paused(), 0, 'no pause is left');

# In a session as well, which was not there when the key was refused
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
wait_until(
	sub { !$node->safe_psql('template1', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) },
	'the worker to leave', 20);
$mock->reset;
$request = enqueue('refused again');
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()') for 1 .. 3;
is(sent(), 1, 'refused, and tried once by several sessions');
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_mock')});
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is(value($request, 'state'), 'delivered', 'a new key: a new session tries at once');

# ---------------------------------------------------------------------------
# Long lanes: no claim takes on all of one, and others go on
# ---------------------------------------------------------------------------
$mock->reset;
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "Many %s", "provider": "saml_okta", "domains": ["many.example"]}', n)::jsonb, 'many'))
	FROM generate_series(1, 500) AS n});
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is($node->safe_psql('postgres', q{SELECT state, count(*) FROM enterprise_connection_requests WHERE key = 'many' GROUP BY 1 ORDER BY 1}),
	"delivered|1\nsuperseded|499", 'many upserts become one');
my @requests = $mock->requests;
is(join(',', map { $_->{body}{name} } @requests), 'Many 500', 'which is sent once');

$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Behind"}', 'many')) FROM generate_series(1, 2000);
	UPDATE enterprise_connection_requests SET next_attempt_at = CASE WHEN next_attempt_at < 'infinity' THEN now() + interval '1 h' ELSE now() END
	WHERE key = 'many' AND state = 'queued'});
$other = enqueue('another');
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is(value($other, 'state'), 'delivered', 'what is due behind a long lane is delivered');
is($node->safe_psql('postgres', q{SELECT next_attempt_at = 'infinity', count(*) FROM enterprise_connection_requests WHERE key = 'many' AND state = 'queued' GROUP BY 1 ORDER BY 1}),
	"f|1\nt|1999", 'the lane stands behind its first');
$node->safe_psql('postgres', q{DELETE FROM enterprise_connection_requests WHERE key = 'many'});

# No index is left out because the collation of an argument is another one
SKIP: {
	skip 'no auto_explain', 2 if $node->psql('postgres', q{LOAD 'auto_explain'}) != 0;
	for my $statement (
		q{SELECT * FROM enterprise_connection_advance_lane('key a', 'clerk')},
		q{SELECT * FROM enterprise_connection_sweep_lanes('key a', 'clerk', 1)})
	{
		my ($status, $out, $err) = $node->psql('postgres', qq{
			LOAD 'auto_explain';
			SET auto_explain.log_min_duration = 0;
			SET auto_explain.log_nested_statements = on;
			SET auto_explain.log_level = notice;
			$statement});
		my @conditions = $err =~ /(Index Cond: .*lane.*)/g;
		ok(@conditions, "by its index: $statement") or diag $err;
	}
}

# ---------------------------------------------------------------------------
# Much is in doubt, and there is much that it could have made
# ---------------------------------------------------------------------------
$mock->reset;
$mock->seed({ count => 1000, prefix => 'acme' });
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "Doubt %s", "provider": "saml_okta", "domains": ["doubt%s.example"]}', n, n)::jsonb, 'doubt ' || n))
	FROM generate_series(1, 500) AS n;
	UPDATE enterprise_connection_requests SET state = 'in_doubt', step = 'create', attempts = 1, http_status = 500, doubt_since = now()
	WHERE key LIKE 'doubt %'});
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
is_delivered($node->safe_psql('postgres', q{SELECT max(id) FROM enterprise_connection_requests WHERE key LIKE 'doubt %'}),
	'much is looked up in no time');
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM enterprise_connection_requests WHERE state IN ('queued', 'sending', 'in_doubt')}) == 0 },
	'all of it', 60);
SKIP:
{
	my $pid = $node->safe_psql('template1', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'});

	skip 'no /proc', 1 unless -r "/proc/$pid/status";
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	cmp_ok($peak, '<', 200_000, "with little memory: $peak kB");
}

# ---------------------------------------------------------------------------
# Who gives up domains first is not refused any more: what Clerk answers counts,
# although another of the key has been enqueued meanwhile
# ---------------------------------------------------------------------------
sub upsert
{
	my ($key, @domains) = @_;

	return sprintf q{SELECT enqueue_enterprise_connection('upsert', '{"name": "%s", "provider": "saml_okta", "domains": [%s]}', '%s');},
	  $key, join(',', map { "\"$_.example\"" } @domains), $key;
}

$mock->reset;
$node->safe_psql('postgres', 'TRUNCATE enterprise_connections, enterprise_connection_requests; ALTER SERVER clerk OPTIONS (ADD max_concurrency $$1$$)');
is_delivered($_, 'a connection')
  for split /\n/, $node->safe_psql('postgres', upsert('one', 'a', 'x') . upsert('two', 'b', 'y'));
$mock->script({ match => { method => 'PATCH', body_contains => '["y.example"]' }, hold => \1, real => \1 },
	{ match => { method => 'PATCH', body_contains => '["x.example","b.example"]' }, skip => 1, hold => \1, real => \1 },
	{ match => { method => 'PATCH', body_contains => 'two again' }, hold => \1, real => \1 });
my ($one, $two) = split /\n/, $node->safe_psql('postgres', 'BEGIN;' . upsert('one', 'x', 'b') . upsert('two', 'y', 'a') . 'COMMIT');
wait_until(sub { grep { $_->{method} eq 'PATCH' && $_->{raw_body} !~ /name/ } $mock->requests }, 'what gives up a domain', 40);
$request = $node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('upsert', '{"name": "two again"}', 'two')});
$mock->release;
wait_until(sub { value($two, 'awaits') || value($two, 'state') ne 'sending' }, 'its answer', 40);
is($node->safe_psql('postgres', q{SELECT domains FROM enterprise_connections WHERE key = 'two'}), '{y.example}', 'what is left is tracked');
wait_until(sub { $mock->release; value($request, 'state') eq 'delivered' }, 'both', 40);
is_delivered($one, 'the other one has it now');
$node->safe_psql('postgres', 'ALTER SERVER clerk OPTIONS (DROP max_concurrency)');

# ---------------------------------------------------------------------------
# A session that has the next of many lanes locked takes no place away
# ---------------------------------------------------------------------------
$mock->reset;
$mock->script({ match => { method => 'POST' }, times => 40, real => JSON::PP::true, delay_ms => 1000 });
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "Lane %s", "provider": "saml_okta", "domains": ["lane%s.example"]}', n, n)::jsonb, 'lane:' || n))
	FROM generate_series(1, 40) AS n});
wait_until(sub { $mock->stats->{in_flight} > 0 }, 'them to be on their way', 40);
$node->safe_psql('postgres', q{SELECT count(enqueue_enterprise_connection('update', '{"name": "Next"}', 'lane:' || n)) FROM generate_series(1, 40) AS n});
$session = session($node);
$session->query('BEGIN');
$session->query(q{SELECT count(cancel_enterprise_connection_request(id)) FROM enterprise_connection_requests WHERE key LIKE 'lane:%' AND operation = 'update'});
is(eval { wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM enterprise_connection_requests
	WHERE key LIKE 'lane:%' AND operation = 'upsert' AND state = 'delivered'}) == 40 }, 'delivery', 40) }, 1, 'what stands before locked requests is delivered');
is_delivered(enqueue('beside locked lanes'), 'so are others');
$session->query('ROLLBACK');
$session->stop;
is_delivered(enqueue('a wake-up'), 'after ROLLBACK too');
is(eval { wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM enterprise_connection_requests
	WHERE key LIKE 'lane:%' AND state = 'delivered'}) == 80 }, 'delivery', 40) }, 1, 'and what was locked, then');

# ---------------------------------------------------------------------------
# A pause that Clerk asks for
# ---------------------------------------------------------------------------
$mock->reset;
$mock->script(answer(429, headers => { 'Retry-After' => '30' }));
$request = enqueue('limited');
wait_until(sub { value($request, 'http_status') eq '429' }, 'the refusal', 40);
enqueue('limited, too');
is_quiet('Retry-After');
is(sent(), 1, 'nothing is sent');

done_testing();
