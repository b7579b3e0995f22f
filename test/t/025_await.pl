# A session that awaits a request is woken when its outcome is committed,
# whoever commits it, and by nothing else.

use strict;
use warnings;

use ClerkTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# No worker looks in time of its own accord.
my $conf = <<'END';
fsync = off
autovacuum = off
max_prepared_transactions = 5
restart_after_crash = on
pg_clerk.naptime = '10min'
END

my $mock = start_mock();
my $node = clerk_node('await', $mock, conf => "shared_preload_libraries = 'pg_clerk'\n$conf", server => { timeout => '60s' });
my $count = 0;
my ($first, $request, $other, $session, $second, $result, @took);

# An upsert of a key, or of a new one.
sub upsert
{
	my ($key, $server) = @_;

	$count++;
	return sprintf q{SELECT enqueue_enterprise_connection('upsert', '{"name": "N%d", "provider": "saml_okta", "domains": ["%s.example"]}', '%s', server => '%s')},
	  $count, $key || "k$count", $key || "k$count", $server || 'clerk';
}

sub enqueue
{
	my ($key, $server) = @_;

	return $node->safe_psql('postgres', upsert($key, $server));
}

sub await
{
	my ($id, $timeout) = @_;

	return sprintf q{SELECT await_enterprise_connection(%d, '%s') ->> 'object'}, $id, $timeout || '60s';
}

# A session that awaits a request, and sleeps.
sub awaiting
{
	my ($id, $before) = @_;
	my $waiting = session($node);

	$waiting->query($before) if defined $before;
	$waiting->send(await($id));
	wait_until(sub { sleeps($waiting) }, 'it to sleep', 40);
	return $waiting;
}

sub sleeps
{
	my ($waiting) = @_;

	return $node->safe_psql('postgres', sprintf
		  q{SELECT wait_event_type FROM pg_stat_activity WHERE pid = %d}, $waiting->pid) eq 'Extension';
}

sub value
{
	my ($id, $column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM enterprise_connection_requests WHERE id = $id");
}

# A request of a key that is on its way, and held by Clerk.
sub hold
{
	my ($key, $server) = @_;
	my $id;

	$mock->script({ hold => JSON::PP::true });
	$id = enqueue($key, $server);
	wait_until(sub { grep { !defined $_->{status} } $mock->requests }, 'the request to be held', 40);
	return $id;
}

sub is_awaited
{
	my ($waiting, $what) = @_;

	is($waiting->finish->{out}, 'enterprise_connection', $what);
	return;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;

	return $sorted[ @sorted / 2 ];
}

sub worker
{
	return $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'});
}

# ---------------------------------------------------------------------------
# At once
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION await_ms(request bigint) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
	returned timestamptz;
BEGIN
	PERFORM await_enterprise_connection(request);
	returned := clock_timestamp();
	RETURN (SELECT 1000 * extract(epoch FROM returned - q.finished_at)
		FROM enterprise_connection_requests q WHERE q.id = request);
END;
$$;
END
$mock->settings({ latency_ms => 100 });
$session = session($node);
for (1 .. 20)
{
	$request = enqueue();
	push @took, $session->query("SELECT await_ms($request)");
}
$mock->settings({ latency_ms => 0 });
note sprintf 'it took %s ms', join ', ', @took;
cmp_ok(median(@took), '<', 20, sprintf 'await returns %.2f ms after the outcome was written', median(@took));

# ---------------------------------------------------------------------------
# Whoever waits
# ---------------------------------------------------------------------------
$request = hold('two');
($first, $second) = (awaiting($request), awaiting($request));
$mock->release;
is_awaited($first,  'one session that awaits it');
is_awaited($second, 'and another one');

$request = hold('old');
$first = awaiting($request, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$mock->release;
is_awaited($first, 'with an old snapshot');

# An error that is caught ends the wait, and another one can be begun.
$request = enqueue('caught');
is($node->safe_psql('postgres', await($request)), 'enterprise_connection', 'its own, before it sleeps');
$request = hold('caught');
$first = session($node);
$first->send(<<"END");
DO \$\$
BEGIN
	PERFORM await_enterprise_connection($request, '200 ms');
	BEGIN
		PERFORM await_enterprise_connection(0);
	EXCEPTION WHEN no_data_found THEN
		PERFORM pg_advisory_lock(1);
	END;
	RAISE NOTICE '%', await_enterprise_connection($request) ->> 'object';
END;
\$\$
END
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}) }, 'the error', 40);
wait_until(sub { sleeps($first) }, 'it to sleep', 40);
$mock->release;
like($first->finish->{err}, qr/NOTICE.*enterprise_connection/, 'after an error that was caught');

# ---------------------------------------------------------------------------
# What ends the wait
# ---------------------------------------------------------------------------
$request = hold('ends');
$first = awaiting($request);
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $first->pid . ')');
$result = $first->finish;
is($result->{sqlstate}, '57014', 'pg_cancel_backend');
$result = $first->run("SET statement_timeout = '300ms'; " . await($request));
is($result->{sqlstate}, '57014', 'statement_timeout');
cmp_ok($result->{seconds}, '<', 10, sprintf 'after %.2f s', $result->{seconds});
$first->query('RESET statement_timeout');
is($first->query(await($request, '100 ms')), '', 'its own time-out');
$second = awaiting($request);
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $second->pid . ')');
is($second->finish->{sqlstate}, '57P01', 'pg_terminate_backend');

# Cancelled by another session: at its commit.
$other = enqueue('ends');
$second = awaiting($other);
$session->query("BEGIN; SELECT cancel_enterprise_connection_request($other)");
ok(sleeps($second), 'cancelled, but not yet');
$session->query('ROLLBACK');
ok(sleeps($second), 'nor at last');
$session->query("BEGIN; SELECT cancel_enterprise_connection_request($other); COMMIT");
$result = $second->finish;
is($result->{sqlstate}, '55000', 'cancelled');
like($result->{err}, qr/was cancelled/, 'that is what it says');
$other = enqueue('ends');
$second = awaiting($other);
$session->query("BEGIN; SELECT cancel_enterprise_connection_request($other); PREPARE TRANSACTION 'cancel'");
$session->query("COMMIT PREPARED 'cancel'");
is($second->finish->{sqlstate}, '55000', 'cancelled by a prepared transaction');

# ---------------------------------------------------------------------------
# Superseded
# ---------------------------------------------------------------------------
($request, $other) = (enqueue('ends'), enqueue('ends'));
$second = awaiting($request);
$session->send(await($other));
$mock->release;
is_awaited($second,  'a request that is superseded meanwhile');
is_awaited($session, 'and the one that supersedes it');
is(value($request, 'state'), 'superseded', 'it was');

# ---------------------------------------------------------------------------
# Failed
# ---------------------------------------------------------------------------
$request = hold('fails');
$mock->script({ status => 422, body => { errors => [ { message => 'no', code => 'no' } ] } });
$other = enqueue('fails');
$second = awaiting($other);
$mock->release;
is($second->finish->{sqlstate}, 'KC422', 'a request that fails');

# ---------------------------------------------------------------------------
# Enqueued by a transaction that is prepared
# ---------------------------------------------------------------------------
$session->query('BEGIN; ' . upsert('prepared') . q{; PREPARE TRANSACTION 'enqueue'});
$session->query("COMMIT PREPARED 'enqueue'");
$request = $node->safe_psql('postgres', q{SELECT id FROM enterprise_connection_requests WHERE key = 'prepared'});
is($session->query(await($request, '5min')), 'enterprise_connection', 'COMMIT PREPARED wakes the worker');

# ---------------------------------------------------------------------------
# The worker goes
# ---------------------------------------------------------------------------
clerk_server($node, $mock, name => 'hasty', server => { timeout => '3s' });
$request = enqueue('worker', 'hasty');
$node->safe_psql('postgres', await($request));
$request = hold('worker', 'hasty');
$second = awaiting($request);
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . worker() . ')');
$mock->release;
is_awaited($second, 'another worker delivers it');

$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
wait_until(sub { worker() eq '' }, 'no worker', 40);
$request = enqueue('session');
$second = awaiting($request);
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is_awaited($second, 'a session delivers it');
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
wait_until(sub { worker() ne '' }, 'a worker', 40);

$request = hold('killed', 'hasty');
$second = awaiting($request);
kill_and_restart($node, worker());
$mock->release;
ok($second->finish->{ended}, 'a crash ends the session');
$session = session($node);
is($session->query(await($request)), 'enterprise_connection', 'and a new one awaits it');

# ---------------------------------------------------------------------------
# The server stops
# ---------------------------------------------------------------------------
$request = hold('stop');
$second = awaiting($request);
my $start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 20, sprintf 'stopped in %.2f s', time - $start);
is($second->finish->{sqlstate}, '57P01', 'and the wait ended');
$mock->release;

# ---------------------------------------------------------------------------
# Without the shared memory
# ---------------------------------------------------------------------------
$node = clerk_node('alone', $mock, conf => $conf);
$request = enqueue('alone');
$second = awaiting($request);
$node->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
is_awaited($second, 'without shared_preload_libraries');

done_testing();
