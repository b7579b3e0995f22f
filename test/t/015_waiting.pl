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
# time enough to lock it, on a busy machine too
$mock->script(answer(503, headers => { 'Retry-After' => 5 }));
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

# One that somebody has spoilt is taken over by none, and ends nothing but itself
for my $params ('NULL', q{'[1]'}, q{'"x"'})
{
	$node->safe_psql('postgres', qq{
		SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "Spoilt %s", "provider": "saml_okta", "domains": ["spoilt.example"]}', n)::jsonb, 'spoilt'))
		FROM generate_series(1, 3) AS n;
		UPDATE enterprise_connection_requests SET params = $params WHERE key = 'spoilt' AND params->>'name' = 'Spoilt 1'});
	$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
	is($node->safe_psql('postgres', q{SELECT string_agg(state || coalesce(' ' || (error->>'message'), ''), ', ' ORDER BY id) FROM enterprise_connection_requests WHERE key = 'spoilt'}),
		'superseded the request has no parameters, superseded, delivered', "params $params");
	$node->safe_psql('postgres', q{DELETE FROM enterprise_connection_requests WHERE key = 'spoilt'});
}
$mock->reset;

$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Behind"}', 'many')) FROM generate_series(1, 2000);
	UPDATE enterprise_connection_requests SET next_attempt_at = CASE WHEN next_attempt_at < 'infinity' THEN now() + interval '1 h' ELSE now() END,
		started_at = CASE WHEN next_attempt_at < 'infinity' THEN now() END
	WHERE key = 'many' AND state = 'queued'});
$other = enqueue('another');
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is(value($other, 'state'), 'delivered', 'what is due behind a long lane is delivered');
is($node->safe_psql('postgres', q{SELECT next_attempt_at = 'infinity', count(*) FROM enterprise_connection_requests WHERE key = 'many' AND state = 'queued' GROUP BY 1 ORDER BY 1}),
	"f|1\nt|1999", 'the lane stands behind its first');
$node->safe_psql('postgres', q{DELETE FROM enterprise_connection_requests WHERE key = 'many'});

# One whose first is locked
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Behind"}', 'many')) FROM generate_series(1, 400);
	UPDATE enterprise_connection_requests SET next_attempt_at = now() - interval '1 min' WHERE key = 'many'});
$other = enqueue('another again');
$session = session($node);
$session->query(q{BEGIN; SELECT cancel_enterprise_connection_request(min(id)) FROM enterprise_connection_requests WHERE key = 'many'});
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is(value($other, 'state'), 'delivered', 'so is what is due behind a long lane whose first is locked');
$session->query('ROLLBACK');
$session->stop;
$node->safe_psql('postgres', q{DELETE FROM enterprise_connection_requests WHERE key = 'many'});

# Many lanes whose first is tried again later, with one behind each
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Later"}', 'later ' || n)) FROM generate_series(1, 400) AS n;
	UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '1 h', attempts = 1, started_at = now() WHERE key LIKE 'later %'});
$other = enqueue('in the middle');
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Behind"}', 'later ' || n)) FROM generate_series(1, 200) AS n;
	SELECT count(enqueue_enterprise_connection('update', '{"name": "Behind"}', 'later ' || n)) FROM generate_series(201, 400) AS n;
	UPDATE enterprise_connection_requests SET next_attempt_at = now() - interval '1 min' WHERE key LIKE 'later %' AND attempts = 0 AND substr(key, 7)::int > 200});
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is(value($other, 'state'), 'delivered', 'so is what is due between many that stand behind others');

# ... and with all of these locked, it is not looked at again and again
$node->safe_psql('postgres', q{UPDATE enterprise_connection_requests SET next_attempt_at = now() WHERE key LIKE 'later %' AND attempts = 0});
$session = session($node);
$session->query(q{BEGIN; SELECT count(cancel_enterprise_connection_request(id)) FROM enterprise_connection_requests WHERE key LIKE 'later %' AND attempts = 0});
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
is_quiet('many locked behind others');
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
$session->query('ROLLBACK');
$session->stop;
$node->safe_psql('postgres', q{DELETE FROM enterprise_connection_requests WHERE key LIKE 'later %'});

# ---------------------------------------------------------------------------
# Two sessions that deliver, side by side
# ---------------------------------------------------------------------------
sub states_of
{
	my ($key) = @_;

	return $node->safe_psql('postgres', qq{SELECT string_agg(state::text, ' ' ORDER BY id) FROM enterprise_connection_requests WHERE key = '$key' AND operation = 'update'});
}

my $deliver = 'CALL deliver_enterprise_connections()';
$mock->reset;
$node->safe_psql('postgres', q{
	TRUNCATE enterprise_connections, enterprise_connection_requests;
	ALTER SERVER clerk OPTIONS (ADD timeout '2s');
	SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "%s", "provider": "saml_okta", "domains": ["%1$s.example"]}', key)::jsonb, key))
	FROM unnest(ARRAY['a', 'b']) AS key});
$node->safe_psql('postgres', $deliver);
my $id_of_a = $node->safe_psql('postgres', q{SELECT id FROM enterprise_connections WHERE key = 'a'});
my $hold = { match => { method => 'PATCH', path => "/enterprise_connections/$id_of_a" }, hold => \1, real => \1 };
$mock->forget;
$mock->script($hold);
$node->safe_psql('postgres', q{
	SELECT count(enqueue_enterprise_connection('update', jsonb_build_object('name', key || n), key))
	FROM unnest(ARRAY['a', 'b']) AS key, generate_series(1, 2) AS n});
my ($first, $second) = map { session($node) } 1 .. 2;
$first->send($deliver);
wait_until(sub { states_of('a') eq 'sending queued' && states_of('b') eq 'delivered delivered' }, 'one that is held', 20);
$second->query($deliver);
is(states_of('a'), 'sending queued', 'the other session leaves what stands behind it alone');
$second->query(q{SELECT enqueue_enterprise_connection('update', '{"name": "a3"}', 'a')});
$mock->release;
$first->finish;
is(states_of('a'), 'delivered delivered delivered', 'the first goes on with it, and with what has come since');
is(join(' ', map { $_->{body}{name} } $mock->requests), 'a1 b1 b2 a2 a3', 'each is sent once, a key\'s in order')
  or diag join ' ', map { $_->{body}{name} } $mock->requests;

# One of them ends: what it had claimed is taken over when its lease is over
$mock->script($hold);
$node->safe_psql('postgres', q{SELECT count(enqueue_enterprise_connection('update', jsonb_build_object('name', 'a' || n), 'a')) FROM generate_series(4, 5) AS n});
$first->send($deliver);
wait_until(sub { states_of('a') =~ /sending queued$/ }, 'one that is held', 20);
$node->safe_psql('postgres', sprintf 'SELECT pg_terminate_backend(%d)', $first->pid);
wait_until(sub { process_gone($first->pid) }, 'the session to end', 20);
$second->query($deliver);
like(states_of('a'), qr/sending queued$/, 'not before');
wait_until(sub { $node->safe_psql('postgres', q{SELECT next_attempt_at < now() FROM enterprise_connection_requests WHERE state = 'sending'}) eq 't' }, 'the end of the lease', 20);
$second->query($deliver);
is(states_of('a'), join(' ', ('delivered') x 5), 'then it is, and what stands behind it');
$first->stop;

# Nothing is left behind in memory by what is delivered
SKIP:
{
	my $status = sprintf '/proc/%d/status', $second->pid;
	my $anonymous = sub { return slurp_file($status) =~ /^RssAnon:\s+(\d+) kB/m ? $1 : 0 };
	my @sizes;

	skip 'no RssAnon', 1 unless -r $status && $anonymous->();
	for my $count (300, 300, 1500)
	{
		$second->query(qq{
			SELECT count(enqueue_enterprise_connection('upsert', format('{"name": "M%s", "provider": "saml_okta", "domains": ["m%1\$s.example"]}', n)::jsonb, 'm:' || n))
			FROM generate_series(1, $count) AS n});
		$second->query($deliver);
		push @sizes, $anonymous->();
	}
	cmp_ok($sizes[2] - $sizes[1], '<', 4000, "memory does not grow: @sizes kB");
}
$second->stop;
$node->safe_psql('postgres', q{ALTER SERVER clerk OPTIONS (DROP timeout)});

# Nothing reads all of the outbox
SKIP: {
	skip 'no auto_explain', 4 if $node->psql('postgres', q{LOAD 'auto_explain'}) != 0;
	$node->safe_psql('postgres', q{
		SELECT enqueue_enterprise_connection('upsert', format('{"name": "%s", "provider": "saml_okta"}', n)::jsonb, 'explained') FROM generate_series(1, 3) AS n;
		UPDATE enterprise_connection_requests SET next_attempt_at = 'infinity' WHERE key = 'explained'});
	my ($status, $out, $err) = $node->psql('postgres', q{
		LOAD 'auto_explain';
		SET auto_explain.log_min_duration = 0;
		SET auto_explain.log_nested_statements = on;
		SET auto_explain.log_level = notice;
		CALL deliver_enterprise_connections()});
	my @scans = $err =~ /(Seq Scan on enterprise_connection_requests.*|(?:Hash|Merge) Join)/g;
	is("@scans", '', 'by indexes') or diag $err;
	my @lanes = $err =~ /Index Cond: .*lane/g;
	ok(@lanes > 3, 'and lanes by theirs');

	# A plan that is made while the outbox is empty is kept: it must not go through all rows of a state
	$node->safe_psql('postgres', 'CREATE DATABASE nothing_yet');
	$node->safe_psql('nothing_yet', 'CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, dbname => 'nothing_yet');
	(undef, undef, $err) = $node->psql('nothing_yet', q{
		SELECT enqueue_enterprise_connection('upsert', format('{"name": "%s", "provider": "saml_okta", "domains": ["empty%s.example"]}', n, n)::jsonb, 'empty ' || n) FROM generate_series(1, 3) AS n;
		LOAD 'auto_explain';
		SET auto_explain.log_min_duration = 0;
		SET auto_explain.log_nested_statements = on;
		SET auto_explain.log_level = notice;
		CALL deliver_enterprise_connections()});
	like($err, qr/WITH written/, 'outcomes are written');
	@scans = $err =~ /(Seq Scan on enterprise_connection_requests.*|(?:Hash|Merge) Join|Index Cond: \(state .*)/g;
	is("@scans", '', 'by indexes, and not by a state') or diag $err;
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
# Domains that move, of which only one request is sent at a time: who gives up
# a domain comes to it
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
  for split /\n/, $node->safe_psql('postgres', upsert('one', 'a', 'x') . upsert('two', 'b') . upsert('three', 'c'));
is_delivered($_, 'a domain moves on along three connections')
  for split /\n/, $node->safe_psql('postgres', 'BEGIN;' . upsert('three', 'c', 'b') . upsert('two', 'x') . upsert('one', 'a') . 'COMMIT');
is($node->safe_psql('postgres', q{SELECT string_agg(key || ' ' || domains::text, ' ' ORDER BY key) FROM enterprise_connections}),
	'one {a.example} three {c.example,b.example} two {x.example}', 'each has its own');
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
