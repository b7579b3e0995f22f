# Launcher and workers: a worker for each database that has the extension,
# whatever happens to it, to the server and to the database.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock();
my $count = 0;
my $common = "fsync = off\nshared_preload_libraries = 'pg_clerk'\nlog_line_prefix = '%m [%p] %b '\n";

# The workers of a database, or of all; the launcher.
sub workers
{
	my ($on, $database) = @_;
	my $where = defined $database ? "AND datname = '$database'" : '';

	return split /\n/, $on->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' $where");
}

sub launcher
{
	my ($on) = @_;

	return $on->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk launcher'});
}

# The one worker of a database, once it is there (and is another than before).
sub worker
{
	my ($on, $database, $before) = @_;

	return wait_until(
		sub {
			my @pids = workers($on, $database);
			return @pids == 1 && $pids[0] != ($before || 0) ? $pids[0] : 0;
		},
		"a worker of $database", 20);
}

sub no_worker
{
	my ($on, $database, $what) = @_;

	ok(eval { wait_until(sub { !workers($on, $database) }, 'no worker', 20) }, $what) or note $@;
	return;
}

sub enqueue
{
	my ($on, $database) = @_;

	return $on->safe_psql($database, sprintf
		  q{SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["d%d.example"]}')},
		++$count);
}

sub state_of
{
	my ($on, $database, $request) = @_;

	return $on->safe_psql($database,
		"SELECT state FROM enterprise_connection_requests WHERE id = $request");
}

# Enqueue, and wait until it is delivered.
sub is_served
{
	my ($on, $database, $what) = @_;
	my $request = enqueue($on, $database);

	is(eval { wait_until(sub { state_of($on, $database, $request) eq 'delivered' }, 'delivery', 30) },
		1, "$what: delivered") or diag state_of($on, $database, $request);
	return;
}

# Run a statement; it must succeed, and soon: what waits for a worker that does
# not leave, fails after 5 s, or waits as long as Clerk's answer may take.
sub is_quick
{
	my ($on, $database, $sql, $what) = @_;
	my $start = time;
	my ($status, $out, $err) = $on->psql($database, $sql);
	my $took = time - $start;

	is($status, 0, "$what: succeeds") or diag $err;
	cmp_ok($took, '<', 20, sprintf '%s: %.2f s', $what, $took);
	return;
}

# What a query answers once all that was begun has been done.
sub becomes
{
	my ($on, $sql, $wanted, $what) = @_;
	my $is = '';

	eval { wait_until(sub { ($is = $on->safe_psql('postgres', $sql)) eq $wanted }, $what, 20) };
	is($is, $wanted, $what);
	return;
}

sub add_database
{
	my ($on, $name) = @_;

	$on->safe_psql('postgres', "CREATE DATABASE $name");
	$on->safe_psql($name, 'CREATE EXTENSION pg_clerk');
	clerk_server($on, $mock, dbname => $name);
	return;
}

sub reload
{
	my ($on, $settings) = @_;

	$on->append_conf('postgresql.conf', $settings);
	$on->reload;
	return;
}

# The part of a log that was written since.
sub log_since
{
	my ($on, $offset) = @_;

	return substr slurp_file($on->logfile), $offset;
}

# ---------------------------------------------------------------------------
# A worker where it is wanted
# ---------------------------------------------------------------------------
my $node = clerk_node('worker', $mock, init => [ allows_streaming => 1 ],
	conf => "$common\nrestart_after_crash = on\nmax_prepared_transactions = 5\n");
my ($pid, $new, $request, $offset, $start, $out, $err, $status);

ok(launcher($node), 'there is a launcher');
ok(worker($node, 'postgres'), 'CREATE EXTENSION starts a worker');
is_served($node, 'postgres', 'the first request');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
add_database($node, 'second');
ok(worker($node, 'second'), 'another database has its own');
is_served($node, 'second', 'the second database');

$node->restart;
ok(worker($node, 'postgres'), 'started with the server');
ok(worker($node, 'second'), 'and for the second database');
no_worker($node, 'plain', 'none where the extension is not');
no_worker($node, 'template1', 'nor in a template');
is(scalar(workers($node)), 2, 'that makes two');
is_served($node, 'postgres', 'after a restart');

# A database that came with the extension
$node->safe_psql('template1', 'CREATE EXTENSION pg_clerk');
worker($node, 'template1');
is_quick($node, $_->[0], "CREATE DATABASE $_->[1]", "CREATE DATABASE in $_->[0], from a template1 that has a worker")
  for [ 'postgres', 'born' ], [ 'template1', 'twin' ];
ok(worker($node, 'template1'), 'the worker comes back');
is_quick($node, 'template1', 'DROP EXTENSION pg_clerk', 'DROP EXTENSION in template1');
no_worker($node, 'template1', 'no worker is left in template1');
clerk_server($node, $mock, dbname => 'born');
is_served($node, 'born', 'a database that was born with the extension');

# Idle, it holds nothing back
$pid = worker($node, 'postgres');
becomes(
	$node, qq{
		SELECT backend_xmin IS NULL, backend_xid IS NULL, state, application_name
		FROM pg_stat_activity WHERE pid = $pid},
	't|t|idle|pg_clerk worker', 'an idle worker holds no snapshot');
becomes($node, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype <> 'object'", 0,
	'and no lock but the one by which others know that it is there');

# A transaction that is prepared is found by and by.
reload($node, "pg_clerk.naptime = '300ms'\n");
$node->safe_psql('postgres', q{
	BEGIN;
	SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["prepared.example"]}');
	PREPARE TRANSACTION 'later'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'later'});
ok( eval {
		wait_until(
			sub {
				$node->safe_psql('postgres', q{SELECT state FROM enterprise_connection_requests
					WHERE params->>'domains' LIKE '%prepared%'}) eq 'delivered';
			},
			'delivery', 10);
	},
	'COMMIT PREPARED: found after naptime');
reload($node, "pg_clerk.naptime = '10s'\n");

# ---------------------------------------------------------------------------
# Ends of a worker
# ---------------------------------------------------------------------------
$pid = worker($node, 'postgres');
$start = time;
kill 'TERM', $pid;
$new = worker($node, 'postgres', $pid);
cmp_ok(time - $start, '>', 0.8, 'SIGTERM: another comes, not at once');
is_served($node, 'postgres', 'after SIGTERM');

$pid = launcher($node);
kill 'TERM', $pid;
wait_until(sub { my $now = launcher($node); $now && $now != $pid }, 'another launcher', 20);
is(worker($node, 'postgres'), $new, 'SIGTERM of the launcher: the worker stays');
add_database($node, 'third');
is_served($node, 'third', 'the new launcher starts workers');
kill 'TERM', $new;
worker($node, 'postgres', $new);
is_served($node, 'postgres', 'the new launcher starts again what the old one had started');

# What fails does not fail all the time
$offset = -s $node->logfile;
$pid = worker($node, 'postgres');
$node->safe_psql('postgres', 'ALTER TABLE enterprise_connection_requests RENAME COLUMN state TO broken');
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["broken.example"]}')});
my $errors = sub { return scalar(() = log_since($node, $offset) =~ /pg_clerk worker LOG:  pg_clerk could not /g) };
wait_until(sub { $errors->() >= 4 }, 'some errors', 30);
cmp_ok($errors->(), '<', 8, 'errors of a worker: less and less often');
$node->safe_psql('postgres', 'ALTER TABLE enterprise_connection_requests RENAME COLUMN broken TO state');
is_served($node, 'postgres', 'after errors');
my ($failing) = log_since($node, $offset) =~ /\[(\d+)\] pg_clerk worker LOG:  pg_clerk could not /;
is(worker($node, 'postgres'), $failing, 'by the same worker');

# kill -9: PostgreSQL starts all processes again
$pid = worker($node, 'postgres');
kill_and_restart($node, $pid);
pass('kill -9 of the worker: the server comes back');
worker($node, 'postgres', $pid);
is_served($node, $_, "after kill -9, in $_") for 'postgres', 'second', 'third';

# ---------------------------------------------------------------------------
# pg_clerk.worker
# ---------------------------------------------------------------------------
reload($node, "pg_clerk.worker = off\n");
no_worker($node, undef, 'pg_clerk.worker = off: all workers leave');
ok(launcher($node), 'the launcher stays');
($status, $out, $err) = $node->psql('postgres', q{
	SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["off.example"]}')});
like($err, qr/WARNING:  no worker/, 'enqueueing says so');
$request = $out;
sleep 0.5;
is(scalar(workers($node)), 0, 'and starts none');
$start = time;
reload($node, "pg_clerk.worker = on\n");
worker($node, $_) for 'postgres', 'second', 'third';
cmp_ok(time - $start, '<', 20, 'pg_clerk.worker = on: they are back');
ok(eval { wait_until(sub { state_of($node, 'postgres', $request) eq 'delivered' }, 'delivery', 10) },
	'and deliver what has waited');

# ---------------------------------------------------------------------------
# Statements on whole databases
# ---------------------------------------------------------------------------
$offset = -s $node->logfile;
worker($node, 'third');
is_quick($node, 'postgres', 'ALTER DATABASE third RENAME TO renamed', 'ALTER DATABASE RENAME');
ok(worker($node, 'renamed'), 'the worker comes back');
is_served($node, 'renamed', 'renamed');

$pid = worker($node, 'renamed');
is_quick($node, 'postgres', 'CREATE DATABASE copy TEMPLATE renamed', 'CREATE DATABASE TEMPLATE');
ok(worker($node, 'renamed', $pid), 'the worker of the template comes back');
is_served($node, 'renamed', 'the template');

my $place = PostgreSQL::Test::Utils::tempdir('tablespace');
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
is_quick($node, 'postgres', 'ALTER DATABASE renamed SET TABLESPACE place', 'ALTER DATABASE SET TABLESPACE');
is_served($node, 'renamed', 'moved');

# Whoever may not, does not
$pid = worker($node, 'renamed');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
for my $sql ('DROP DATABASE renamed', 'ALTER DATABASE renamed RENAME TO mine', 'CREATE DATABASE mine TEMPLATE renamed')
{
	($status, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'nobody' ]);
	isnt($status, 0, "$sql: refused");
}
is(worker($node, 'renamed'), $pid, 'the worker was not sent away');

# A statement that fails
my $other = session($node, dbname => 'renamed');
($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE renamed');
like($err, qr/is being accessed by other users/, 'DROP DATABASE fails, if there are sessions');
ok(worker($node, 'renamed', $pid), 'then the worker comes back');
is_served($node, 'renamed', 'not dropped');
$other->stop;
wait_until(sub { process_gone($other->pid) }, 'the session to end', 10);

is_quick($node, 'postgres', 'DROP DATABASE renamed', 'DROP DATABASE');
$node->safe_psql('postgres', 'DROP TABLESPACE place');
is_quick($node, 'postgres', 'DROP DATABASE copy', 'DROP DATABASE that has no worker');
sleep 1.5;
unlike(log_since($node, $offset), qr/does not exist|FATAL:  database/, 'no worker looks for a database that is gone');

# The extension is dropped and created again
$offset = -s $node->logfile;
worker($node, 'second');
$start = time;
$node->safe_psql('second', 'DROP EXTENSION pg_clerk CASCADE');
cmp_ok(time - $start, '<', 20, 'DROP EXTENSION is not held up');
no_worker($node, 'second', 'the worker leaves');
unlike(log_since($node, $offset), qr/pg_clerk worker (ERROR|FATAL)/, 'without an error');
sleep 0.5;
is(scalar(workers($node, 'second')), 0, 'and does not come back');
$node->safe_psql('second', 'CREATE EXTENSION pg_clerk');
clerk_server($node, $mock, dbname => 'second');
ok(worker($node, 'second'), 'CREATE EXTENSION: it does');
is_served($node, 'second', 'created again');

# ---------------------------------------------------------------------------
# Fewer workers than databases
# ---------------------------------------------------------------------------
reload($node, "pg_clerk.max_workers = 1\n");
wait_until(sub { workers($node) == 1 }, 'one worker to be left', 20);
pass('max_workers is lowered: one worker is left');
my $most = 0;
for my $round (1 .. 3)
{
	for my $database ('postgres', 'second')
	{
		is_served($node, $database, "max_workers = 1, $database");
		my $now = workers($node);
		$most = $now if $now > $most;
	}
}
is($most, 1, 'never more than one worker');

# One with nothing to do gets none before it is wanted.
reload($node, "pg_clerk.max_workers = 4\n");
for my $database ('postgres', 'second')
{
	is_served($node, $database, "max_workers is raised, $database");
	ok(worker($node, $database), "$database has a worker");
}

# ---------------------------------------------------------------------------
# A standby, and its promotion
# ---------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(launcher($standby), '', 'a standby has no launcher');
is(scalar(workers($standby)), 0, 'and no worker');

# ---------------------------------------------------------------------------
# Ends of the server
# ---------------------------------------------------------------------------
$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 20, 'pg_ctl stop -m fast');

$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
ok(worker($standby, 'postgres'), 'promoted, it has workers');
ok(launcher($standby), 'and a launcher');
is_served($standby, 'postgres', 'promoted');
$standby->stop;

$node->start;
my @pids = (launcher($node), worker($node, 'postgres'), worker($node, 'second'));
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
$start = time;
$node->kill9;
ok(eval { wait_until(sub { !grep { !process_gone($_) } @pids }, 'the end', 10) }, 'SIGKILL of the postmaster: launcher and workers end');
note sprintf 'after %.2f s', time - $start;
# a zombie keeps pg_ctl from starting
wait_until(sub { !kill 0, $postmaster }, 'the postmaster to be reaped', 60);
$node->start;
is_served($node, 'postgres', 'after SIGKILL of the postmaster');
$node->stop;

# ---------------------------------------------------------------------------
# Too few processes: the launcher, that of logical replication and one more
# ---------------------------------------------------------------------------
$node->append_conf('postgresql.conf', "max_worker_processes = 3\n");
$offset = -s $node->logfile;
$node->start;
for my $database ('postgres', 'second', 'postgres')
{
	is_served($node, $database, "max_worker_processes is too small, $database");
}
my @complaints = log_since($node, $offset) =~ /could not start a worker of pg_clerk/g;
is(scalar @complaints, 1, 'the log says so, once');
like(log_since($node, $offset), qr/HINT:  Increase max_worker_processes/, 'and what to do');
$node->stop;

# ---------------------------------------------------------------------------
# Not preloaded
# ---------------------------------------------------------------------------
my $bare = clerk_node('bare', $mock, conf => "fsync = off\n");
my $session = session($bare);
my @warnings = map {
	$session->run(sprintf q{SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["bare%d.example"]}')}, $_)->{err}
} 1 .. 2;
like($warnings[0], qr/WARNING:.*no worker of pg_clerk/, 'not preloaded: enqueueing warns');
unlike($warnings[1], qr/WARNING/, 'once a session');
is_quick($bare, 'postgres', 'CREATE DATABASE x', 'not preloaded: CREATE DATABASE');
is($session->query('SHOW pg_clerk.max_workers'), 4, 'the settings are known');
$session->stop;

unlike(slurp_file($_->logfile), qr/TRAP:|PANIC:|was terminated by signal (?!9)/, 'nothing crashed: ' . $_->name)
  for $node, $standby, $bare;

done_testing();
