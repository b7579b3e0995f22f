# More databases than workers: those that have nothing to do rest, and are
# served all the same as soon as they have something.

use strict;
use warnings;

use ClerkTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my @databases = map { "rest_$_" } 1 .. 12;
my $mock = start_mock();
my $node = clerk_node('rest', $mock, conf => <<'END');
fsync = off
autovacuum = off
shared_preload_libraries = 'pg_clerk'
max_prepared_transactions = 5
log_min_messages = debug1
pg_clerk.max_workers = 2
pg_clerk.naptime = '500ms'
END
my $count = 0;
my (%request, $database, $session);

sub starts
{
	my $starts = () = slurp_file($node->logfile) =~ /starting background worker process "pg_clerk worker/g;

	return $starts;
}

sub upsert
{
	my ($key) = @_;

	return sprintf q{SELECT enqueue_enterprise_connection('upsert', '{"name": "N", "provider": "saml_okta", "domains": ["d%d.example"]}', '%s')},
	  ++$count, $key;
}

sub value
{
	my ($on, $id, $column) = @_;

	return $node->safe_psql($on, "SELECT $column FROM enterprise_connection_requests WHERE id = $id");
}

sub is_delivered
{
	my ($on, $id, $what) = @_;

	is(eval { wait_until(sub { value($on, $id, 'state') eq 'delivered' }, 'delivery', 60) }, 1, $what)
	  or diag value($on, $id, 'to_jsonb(enterprise_connection_requests)');
	return;
}

sub served
{
	my ($on) = @_;

	return $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = '$on'});
}

# Some database that has no worker now.
sub unserved
{
	return wait_until(sub { (grep { !served($_) } @databases)[0] }, 'a database without a worker');
}

# Once everything was looked at, no worker is started for several naptimes.
sub is_at_rest
{
	my ($what) = @_;
	my ($before, $since) = (-1, time);

	ok( eval {
			wait_until(
				sub {
					my $now = starts();
					($before, $since) = ($now, time) if $now != $before;
					return time - $since > 4;
				},
				'rest', 90);
		}, "$what: no more are started after $before") or note $@;
	return;
}

for my $new (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $new");
	$node->safe_psql($new, 'CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, dbname => $new, server => { timeout => '3s' });
}
is_at_rest('after they were made');
$node->restart;
is_at_rest('after a start of the server');

# ---------------------------------------------------------------------------
# Served all the same
# ---------------------------------------------------------------------------
$request{$_} = $node->safe_psql($_, upsert('a')) for @databases;
is_delivered($_, $request{$_}, "$_ is served") for @databases;
is_at_rest('after they were served');

$database = unserved();
$session = session($node, dbname => $database);
$session->query('BEGIN; ' . upsert('prepared') . q{; PREPARE TRANSACTION 'p'});
is_at_rest('prepared');
$session->query(q{COMMIT PREPARED 'p'});
is_delivered($database, $session->query(q{SELECT id FROM enterprise_connection_requests WHERE key = 'prepared'}), 'committed');

# ---------------------------------------------------------------------------
# Due later
# ---------------------------------------------------------------------------
$mock->script({ status => 503, headers => { 'Content-Type' => 'application/json', 'Retry-After' => '10' },
		body => { errors => [ { message => 'no', code => 'no' } ] } });
$database = unserved();
my $later = $node->safe_psql($database, upsert('later'));
wait_until(sub { value($database, $later, q{state = 'queued' AND attempts = 1}) eq 't' }, 'the first attempt', 60);
for my $try (1 .. 50)
{
	last unless served($database);
	$_ ne $database && $node->safe_psql($_, upsert("more $try")) for @databases;
}
ok(!served($database), 'its worker makes room');
is_delivered($database, $later, 'it is back when the request is due');
cmp_ok(value($database, $later, q{extract(epoch FROM finished_at - started_at)}), '<', 30, 'soon');
is_at_rest('then');

# ---------------------------------------------------------------------------
# A session that delivers, and is killed
# ---------------------------------------------------------------------------
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
wait_until(sub { !grep { served($_) } @databases }, 'no workers', 60);
$mock->script({ hold => JSON::PP::true });
$database = $databases[4];
$later = $node->safe_psql($database, upsert('a'));
$mock->forget;
$session = session($node, dbname => $database);
$session->send('CALL deliver_enterprise_connections()');
wait_until(sub { grep { !defined $_->{status} } $mock->requests }, 'the request to be held', 40);
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
wait_until(sub { served($database) }, 'a worker', 40);
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $session->pid . ')');
$mock->release;
is_delivered($database, $later, 'what it had claimed is taken back');
is_at_rest('at last');

done_testing();
