# The server option mirror_interval: a process of its own mirrors a server now
# and then, beside the worker, and is in nobody's way.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $mock = start_mock();
my $node = clerk_node('mirror', $mock,
	init => [ allows_streaming => 1 ],
	conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\nlog_line_prefix = '%m [%p] %b '\npg_clerk.naptime = '200ms'\n");
my ($offset, $start, $pid);

sub log_since
{
	return substr slurp_file($node->logfile), $offset;
}

# Wait for a line in the log, and return it.
sub logged
{
	my ($pattern, $what) = @_;
	my $line;

	eval { wait_until(sub { ($line) = log_since() =~ /^(.*$pattern.*)$/m; return defined $line }, $what, 30) };
	ok(defined $line, $what) or diag log_since();
	return $line;
}

sub becomes
{
	my ($sql, $wanted, $what, $database) = @_;
	my $is = '';

	eval { wait_until(sub { ($is = $node->safe_psql($database || 'postgres', $sql)) eq $wanted }, $what, 30) };
	is($is, $wanted, $what);
	return;
}

sub mirrors
{
	return split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk mirror'});
}

sub count_lists
{
	return scalar grep { $_->{method} eq 'GET' && $_->{path} =~ /enterprise_connections$/ } $mock->requests;
}

# ---------------------------------------------------------------------------
# It mirrors, tells what changed, and does so again
# ---------------------------------------------------------------------------
is($node->safe_psql('postgres', 'SELECT last_mirror IS NULL FROM enterprise_connection_stats'), 't', 'no mirror without the option');
my $listener = session($node);
$listener->query('LISTEN pg_clerk');
$mock->seed({ count => 3, prefix => 'first' });
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{ALTER SERVER clerk OPTIONS (ADD mirror_interval '1s')});
becomes('SELECT count(*) FROM enterprise_connections', 3, 'all that is at Clerk is mirrored');
like(logged('pg_clerk: mirror of server', 'a line in the log'),
	qr/mirror LOG:  pg_clerk: mirror of server "clerk": 3 inserted, 0 updated, 0 deleted, 0 gone/, 'it says what changed');
$mock->seed({ count => 2, prefix => 'second' });
becomes('SELECT count(*) FROM enterprise_connections', 5, 'and again after a second');
my $notified = '';
wait_until(sub { $notified .= $listener->query('SELECT 1'); my @all = $notified =~ /"mirror"/g; return @all >= 2 }, 'notifications', 20);
like($notified, qr/"pg_clerk" with payload "\{"mirror":"clerk","inserted":3,"updated":0,"deleted":0\}"/, 'a notification');
like($notified, qr/"pg_clerk" with payload "\{"mirror":"clerk","inserted":2,"updated":0,"deleted":0\}"/, 'and another');
my @made = $mock->connections;
is($node->safe_psql('postgres', q{SELECT last_mirror > now() - interval '1 min' FROM enterprise_connection_stats}), 't', 'last_mirror');
# nothing changed: nothing is said
my $lists = count_lists();
$offset = -s $node->logfile;
wait_until(sub { count_lists() > $lists + 1 }, 'two more mirrors', 30);
unlike(log_since(), qr/pg_clerk: mirror|pg_clerk mirror (?!LOG)/, 'a mirror that changed nothing is not logged');
unlike(log_since(), qr/exited with/, 'its process ends in good order');

# ---------------------------------------------------------------------------
# Deliveries go on while one waits for Clerk; it is the only one
# ---------------------------------------------------------------------------
$mock->script({ match => { method => 'GET' }, hold => JSON::PP::true, times => 0 });
wait_until(sub { scalar mirrors() }, 'a mirror that waits', 30);
($pid) = mirrors();
my $request = $node->safe_psql('postgres',
	q{SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "saml_okta", "domains": ["n.example"]}')});
$start = time;
becomes("SELECT state FROM enterprise_connection_requests WHERE id = $request", 'delivered', 'a request is delivered while a mirror waits');
cmp_ok(time - $start, '<', 10, 'soon');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND xact_start IS NOT NULL}), '0',
	'the worker has no transaction meanwhile');
like($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"),
	qr/^mirror_enterprise_connections, server clerk: 0 of \d+ connections, 0 failed$/, 'its progress is in pg_stat_activity');
$node->safe_psql('postgres', q{CREATE SERVER other FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url 'http://127.0.0.1:1', mirror_interval '1s')});
is(join(',', mirrors()), $pid, 'one at a time');

# ---------------------------------------------------------------------------
# Nothing is held up by one that waits
# ---------------------------------------------------------------------------
sub is_quick
{
	my ($database, $sql, $what) = @_;
	my $began = time;
	my ($status, $out, $err) = $node->psql($database, $sql);

	is($status, 0, $what) or diag $err;
	cmp_ok(time - $began, '<', 5, sprintf "$what: %.2f s", time - $began);
	return;
}

is_quick('postgres', 'DROP EXTENSION pg_clerk CASCADE', 'DROP EXTENSION');
ok(process_gone($pid) || eval { wait_until(sub { process_gone($pid) }, 'the end of the mirror', 20) }, 'the mirror is gone');
$mock->reset;
$node->safe_psql('postgres', 'CREATE DATABASE apart');
$node->safe_psql('apart', 'CREATE EXTENSION pg_clerk');
$mock->script({ match => { method => 'GET' }, hold => JSON::PP::true, times => 0 });
clerk_server($node, $mock, dbname => 'apart', server => { mirror_interval => '1s' });
wait_until(sub { scalar mirrors() }, 'a mirror in another database', 30);
($pid) = mirrors();
$offset = -s $node->logfile;
is_quick('postgres', 'ALTER DATABASE apart RENAME TO elsewhere', 'ALTER DATABASE RENAME');
wait_until(sub { my @m = mirrors(); return @m && $m[0] != $pid }, 'a mirror after it', 30);
pass('it comes back');
is_quick('postgres', 'CREATE DATABASE copy TEMPLATE elsewhere', 'CREATE DATABASE TEMPLATE');
wait_until(sub { scalar mirrors() }, 'a mirror again', 30);
# the copy is not armed: nothing is asked from there
is($node->safe_psql('copy', 'SELECT last_mirror IS NULL FROM enterprise_connection_stats'), 't', 'a copy mirrors nothing');
is_quick('postgres', 'DROP DATABASE copy', 'DROP DATABASE of the copy');
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
becomes(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('pg_clerk mirror', 'pg_clerk worker')}, '0', 'pg_clerk.worker = off ends it');
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
wait_until(sub { scalar mirrors() }, 'a mirror once it is on', 30);
unlike(log_since(), qr/pg_clerk: mirror|FATAL/, 'nothing of that is a failure');
is_quick('postgres', 'DROP DATABASE elsewhere', 'DROP DATABASE');

# ---------------------------------------------------------------------------
# One that fails: a line, and again at the next interval
# ---------------------------------------------------------------------------
$mock->reset({ secret_keys => ['sk_test_other'] });
$node->safe_psql('postgres', 'CREATE EXTENSION pg_clerk');
$offset = -s $node->logfile;
clerk_server($node, $mock, server => { mirror_interval => '1s' });
like(logged('pg_clerk: mirror of server', 'a mirror that fails is logged'),
	qr/pg_clerk: mirror of server "clerk" failed: SQLSTATE KC401, code \w+, trace id \w+$/, 'with SQLSTATE, code and trace id');
is(scalar(grep { /\] pg_clerk/ && !/KC401/ } split /\n/, log_since()), 0, 'and nothing else');
$mock->settings({ secret_keys => ['sk_test_mock'] });
$mock->seed({ count => 1, prefix => 'third' });
becomes('SELECT count(*) FROM enterprise_connections', 1, 'the next one succeeds');

# as the server's owner, who may not use it
$node->safe_psql('postgres', q{CREATE ROLE mirror_owner; GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO mirror_owner; ALTER SERVER clerk OWNER TO mirror_owner});
$mock->seed({ count => 1, prefix => 'fourth' });
becomes('SELECT count(*) FROM enterprise_connections', 2, 'as an owner that is no superuser, and cannot log in');
$offset = -s $node->logfile;
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER clerk FROM mirror_owner');
like(logged('pg_clerk: mirror of server', 'without USAGE'), qr/failed: SQLSTATE 42501: permission denied for foreign server/, 'as the owner, and no more');
$node->safe_psql('postgres', 'ALTER SERVER clerk OWNER TO CURRENT_USER');

# ---------------------------------------------------------------------------
# After a restart; an idle database whose worker has left; a standby
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->safe_psql('busy', 'CREATE EXTENSION pg_clerk');
clerk_server($node, $mock, dbname => 'busy');
$node->append_conf('postgresql.conf', "pg_clerk.max_workers = 1\n");
$node->restart;
$mock->seed({ count => 1, prefix => 'fifth' });
becomes('SELECT count(*) FROM enterprise_connections', 3, 'after a restart');
# the one worker goes to and fro
for my $n (1 .. 2)
{
	$node->safe_psql('busy', qq{SELECT enqueue_enterprise_connection('create', '{"name": "B", "provider": "saml_okta", "domains": ["b$n.example"]}')});
	becomes(q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'delivered'}, $n, "the other database is served, $n", 'busy');
	$mock->seed({ count => 1, prefix => "turn$n" });
	becomes('SELECT count(*) FROM enterprise_connections', 3 + 2 * $n, "with one worker for two databases, $n");
}

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'pg_clerk'}), '0', 'none on a standby');
$standby->stop('immediate');

# ends with the postmaster
$mock->script({ match => { method => 'GET' }, hold => JSON::PP::true, times => 0 });
wait_until(sub { scalar mirrors() }, 'a mirror that waits', 30);
($pid) = mirrors();
$node->stop('fast');
ok(process_gone($pid), 'gone after a fast shutdown');
$node->start;
wait_until(sub { scalar mirrors() }, 'a mirror that waits', 60);
($pid) = mirrors();
my $postmaster = $node->{_pid};
kill 'KILL', $postmaster;
ok(eval { wait_until(sub { process_gone($pid) }, 'its end', 20) }, 'gone when the postmaster is killed');
$node->{_pid} = undef;
unlink $node->data_dir . '/postmaster.pid';

done_testing();
