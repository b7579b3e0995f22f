# What the outbox promises to those who enqueue, listen and administer: how
# soon, of which transactions, with which notification, and that nobody has to
# wait for Clerk.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock();
my $node = clerk_node('main', $mock, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
fsync = off
max_prepared_transactions = 5
END
my $session = session($node);

sub worker
{
	my ($database) = @_;

	return wait_until(
		sub { $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = '$database'") },
		"a worker of $database", 20);
}

# The statement that enqueues a create.
sub create
{
	my ($name, %params) = @_;
	my $json = JSON::PP->new->canonical->encode(
		{ name => $name, provider => 'saml_okta', domains => [ lc($name) =~ s/\W+/-/gr . '.example' ], %params });

	return "SELECT enqueue_enterprise_connection('create', '$json')";
}

sub wait_for_state
{
	my ($request, $state) = @_;

	return eval {
		wait_until(
			sub { $session->query("SELECT state FROM enterprise_connection_requests WHERE id = $request") eq $state },
			$state, 30);
	};
}

sub sent_names
{
	return join ', ', map { $_->{body}{name} } grep { $_->{method} eq 'POST' } $mock->requests;
}

sub wait_for_sent
{
	my ($contains) = @_;

	wait_until(sub { grep { index($_->{raw_body} // '', $contains) >= 0 } $mock->requests }, "request $contains", 30);
	return;
}

# ---------------------------------------------------------------------------
# Sent within 50 ms after commit, by a worker that was idle; asserted is only
# that nothing waits for a poll, as a busy machine takes longer
# ---------------------------------------------------------------------------
wait_for_state($session->query(create('warm')), 'delivered');
$mock->forget;
my %asked;
for my $n (1 .. 30)
{
	wait_until(
		sub { $session->query(q{SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) eq 't' },
		'the worker to be idle', 10);
	# it is committed later than this
	$asked{"soon $n"} = time;
	wait_for_state($session->query(create("soon $n")), 'delivered');
}
my @took = sort { $a <=> $b } map { $_->{received_ms} - $asked{ $_->{body}{name} } * 1000 } $mock->requests;
is(scalar @took, 30, 'each is sent once');
note sprintf 'from statement to receipt: median %.1f ms, maximum %.1f ms', $took[ @took / 2 ], $took[-1];
diag sprintf 'sent after %.1f ms', $took[ @took / 2 ] if $took[ @took / 2 ] > 50;
cmp_ok($took[ @took / 2 ], '<', 2000, 'sent soon after commit');

# ---------------------------------------------------------------------------
# Only what is committed
# ---------------------------------------------------------------------------
$mock->forget;
$session->run($_)
  for 'BEGIN', create('rolled back'), 'ROLLBACK',
  'BEGIN', create('kept'), 'SAVEPOINT s', create('rolled back to'), 'ROLLBACK TO SAVEPOINT s', 'COMMIT',
  'BEGIN', create('prepared'), q{PREPARE TRANSACTION 'p'}, q{ROLLBACK PREPARED 'p'},
  'BEGIN', create('failed'), 'SELECT 1 / 0', 'COMMIT',
  "DO \$\$ BEGIN BEGIN PERFORM enqueue_enterprise_connection('delete', key => 'caught'); RAISE 'x'; EXCEPTION WHEN OTHERS THEN END; END \$\$";
# those who end without a word, too
my $other = session($node);
$other->run($_) for 'BEGIN', create('left');
$other->stop('KILL');
wait_until(sub { process_gone($other->pid) }, 'the session to end', 10);
ok(wait_for_state($session->query(create('last')), 'delivered'), 'what comes last is delivered');
is(sent_names(), 'kept, last', 'nothing is sent of what is rolled back');
is($session->query(q{SELECT count(*) FROM enterprise_connection_requests WHERE state <> 'delivered'}), 0, 'nor left');

# ---------------------------------------------------------------------------
# Notifications
# ---------------------------------------------------------------------------
$session->query('LISTEN pg_clerk');
my %oidc = (
	provider => 'oidc_custom',
	oidc     => { client_id => 'c', client_secret => 'topsecret', discovery_url => 'https://idp.example/topsecret' });
$mock->script(
	{ match => { method => 'POST', body_contains => 'Refused' }, status => 422, headers => { 'Content-Type' => 'application/json' },
		body => { errors => [ { message => 'topsecret', long_message => 'topsecret is no "good" name.', code => 'form_param_value_invalid' } ] } });
# by others, so that they don't come with the answers
my %request = (
	delivered => $node->safe_psql('postgres', create('Told', %oidc)),
	failed    => $node->safe_psql('postgres', create('Refused', %oidc)),
	nothing   => $node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('delete', key => 'nothing')}));
my $text = '';
eval {
	wait_until(
		sub { $text .= $session->query('SELECT 1'); my @all = $text =~ /Asynchronous/g; return @all >= 3 },
		'three notifications', 30);
} or diag $text;
my %told;
while ($text =~ /notification "pg_clerk" with payload "(.*)" received from/g)
{
	my $payload = parse_json($1);

	is(join(', ', sort keys %$payload), 'connection, key, request, state', 'a notification has these members only');
	$told{ $payload->{request} } = $payload;
}
my $id = $session->query("SELECT connection_id FROM enterprise_connection_requests WHERE id = $request{delivered}");
like($id, qr/^entconn_/, 'it was created');
is_deeply($told{ $request{delivered} }, { request => $request{delivered}, key => undef, state => 'delivered', connection => $id }, 'of one that is delivered');
is_deeply($told{ $request{failed} }, { request => $request{failed}, key => undef, state => 'failed', connection => undef }, 'of one that has failed');
is_deeply($told{ $request{nothing} }, { request => $request{nothing}, key => 'nothing', state => 'delivered', connection => undef }, 'of a delete that had nothing to delete');
unlike($text, qr/secret/, 'without a secret');

# one that was taken away meanwhile: its answer counts for nothing
$mock->forget;
$mock->script({ match => { method => 'POST', body_contains => 'Taken away' }, hold => JSON::PP::true });
$node->safe_psql('postgres', create('Taken away', sync_user_attributes => JSON::PP::true));
wait_for_sent('Taken away');
$node->safe_psql('postgres', q{UPDATE enterprise_connection_requests SET state = 'cancelled', finished_at = now(), claimer = NULL WHERE state = 'sending'});
$mock->release;
wait_until(sub { $mock->stats->{in_flight} == 0 }, 'its end', 10);
my $next = $node->safe_psql('postgres', create('Next one'));
$text = '';
eval {
	wait_until(sub { $text .= $session->query('SELECT 1'); return $text =~ /"request":$next\b/ }, 'the next notification', 30);
} or diag $text;
is(scalar(() = $text =~ /Asynchronous/g), 1, 'one that was taken away from it: no notification');
is(join(', ', map { $_->{method} } $mock->requests), 'POST, POST', 'and no PATCH');
$session->query('UNLISTEN *');

# ---------------------------------------------------------------------------
# Refused for being too many: all are delivered, and Clerk is left alone
# ---------------------------------------------------------------------------
$mock->forget;
$mock->settings({ rate_limit => { requests => 10, window_ms => 500, retry_after_s => 1 } });
$session->query("DO \$\$ BEGIN PERFORM enqueue_enterprise_connection('create', jsonb_build_object('name', 'Storm ' || n, 'provider', 'saml_okta',
	'domains', jsonb_build_array('storm' || n || '.example'))) FROM generate_series(1, 40) AS n; END \$\$");
ok(eval { wait_until(sub { $session->query(q{SELECT count(*) FROM enterprise_connection_requests WHERE state NOT IN ('delivered', 'failed', 'cancelled')}) == 0 }, 'delivery', 60) },
	'rate limited: all are delivered');
my %status;
$status{ $_->{status} }++ for $mock->requests;
note join ', ', map { "$status{$_} of $_" } sort keys %status;
is($status{201}, 40, 'each once');
cmp_ok($status{429} || 0, '>', 0, 'though some were refused');
cmp_ok($status{429} || 0, '<', 120, 'but not time and again');
is($session->query(q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'failed'}), 1, 'none has failed');
$mock->settings({ rate_limit => undef });

# ---------------------------------------------------------------------------
# Put behind one that is finished before it is committed, and committed when
# the worker has an answer to take at the same time: that must not make it wait
# for pg_clerk.naptime
# ---------------------------------------------------------------------------
$mock->forget;
$mock->script({ match => { body_contains => 'First of its key' }, hold => JSON::PP::true });
my $first = $session->query(q{SELECT enqueue_enterprise_connection('upsert', '{"name": "First of its key", "provider": "saml_okta", "domains": ["key.example"]}', 'a key')});
wait_for_sent('First of its key');
$other = session($node);
$other->query('BEGIN');
my $behind = $other->query(q{SELECT enqueue_enterprise_connection('update', '{"name": "Second of its key"}', 'a key')});
$mock->release;
ok(wait_for_state($first, 'delivered'), 'the first of a key is delivered');
$mock->script({ match => { body_contains => 'Another' }, hold => JSON::PP::true });
my $another = $session->query(create('Another'));
wait_for_sent('Another');
my $worker = worker('postgres');
kill 'STOP', $worker;
wait_until(sub { slurp_file("/proc/$worker/stat") =~ /\) T / }, 'the worker to stop', 10);
$other->query('COMMIT');
$mock->release;
wait_until(sub { $mock->stats->{in_flight} == 0 }, 'the answer', 10);
kill 'CONT', $worker;
my $start = time;
ok(wait_for_state($another, 'delivered'), 'the answer is taken');
ok(wait_for_state($behind, 'delivered'), 'and the second of the key is delivered');
cmp_ok(time - $start, '<', 8, 'at once');
$other->stop;

# ---------------------------------------------------------------------------
# While a request is on its way, nobody who administers has to wait for it
# ---------------------------------------------------------------------------
sub is_quick
{
	my ($database, $sql, $what) = @_;
	my $start = time;
	my ($status, $out, $err) = $node->psql($database, $sql);
	my $took = time - $start;

	is($status, 0, "$what: succeeds") or diag $err;
	cmp_ok($took, '<', 20, sprintf '%s: %.2f s', $what, $took);
	return;
}

# In a database, one request that Clerk does not answer.
sub held_request
{
	my ($database, $name) = @_;

	$mock->script({ match => { body_contains => "\"$name\"" }, hold => JSON::PP::true });
	$node->safe_psql($database, create($name));
	wait_for_sent("\"$name\"");
	return;
}

sub is_served
{
	my ($database, $name, $what) = @_;
	my $request = $node->safe_psql($database, create($name));

	ok(eval { wait_until(sub { $node->safe_psql($database, "SELECT state FROM enterprise_connection_requests WHERE id = $request") eq 'delivered' }, 'delivery', 30) },
		$what);
	return;
}

my $offset = -s $node->logfile;
for my $database ('second', 'third')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, dbname => $database);
}
held_request('second', 'held 1');
is_quick('second', 'ALTER EXTENSION pg_clerk UPDATE', 'ALTER EXTENSION UPDATE');
is_quick('second', 'VACUUM FULL enterprise_connection_requests', 'VACUUM FULL');
is_quick('second', 'ALTER TABLE enterprise_connections SET (fillfactor = 90)', 'ALTER TABLE');
is_served('second', 'meanwhile', 'others are delivered meanwhile');
is_quick('second', 'DROP EXTENSION pg_clerk CASCADE', 'DROP EXTENSION');
ok(eval { wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'second'}) == 0 }, 'the worker to leave', 10) },
	'its worker leaves');
$node->safe_psql('second', 'CREATE EXTENSION pg_clerk');
clerk_server($node, $mock, dbname => 'second');
$mock->release;
is_served('second', 'again', 'created again, it is served');

# dropped and created in one transaction: the worker would not see it gone
my $pid = worker('second');
held_request('second', 'held 2');
is_quick('second', sprintf(q{
	BEGIN;
	DROP EXTENSION pg_clerk CASCADE;
	CREATE EXTENSION pg_clerk;
	CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0');
	CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
	%s;
	COMMIT}, $mock->url, create('at once')), 'DROP and CREATE EXTENSION in one transaction');
ok(eval { wait_until(sub { $node->safe_psql('second', q{SELECT string_agg(state::text, ' ') FROM enterprise_connection_requests}) eq 'delivered' }, 'delivery', 30) },
	'what was enqueued there is delivered');
ok(eval { wait_until(sub { worker('second') != $pid }, 'another worker', 10) }, 'there is another worker then');
$mock->release;
is_served('second', 'after that', 'and so is the next one');
is($node->safe_psql('second', q{SELECT string_agg(name, ', ' ORDER BY name) FROM enterprise_connections}), 'after that, at once', 'the answer that came then is nobody\'s');

held_request('third', 'held 3');
is_quick('postgres', 'DROP DATABASE third', 'DROP DATABASE');
$mock->release;
unlike(substr(slurp_file($node->logfile), $offset), qr/pg_clerk (worker|launcher) (ERROR|FATAL)|pg_clerk.*ERROR:|FATAL:  database/, 'without an error of a worker');
is_served('postgres', 'the end', 'the other database is served as before');

$session->stop;
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal (?!9)/, 'nothing crashed');

done_testing();
