# However a transaction that has created connections ends, but by COMMIT:
# pg_clerk.on_rollback holds. What a regression test cannot do: lost clients,
# terminated backends, cancelled batches, a Clerk that is silent or gone.

use strict;
use warnings;

use ClerkTest;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# What a rollback may take if Clerk is silent: the product's 2 s, and some more
# on a busy machine.
my $LIMIT = 10;
my $GOAL  = 2.5;

my $mock = start_mock();
# So few connections that a lock for each of 4,000 keys would not find room.
my $node = clerk_node(
	'rollback', $mock,
	conf => "fsync = off\nlog_line_prefix = '[%p] '\nmax_connections = 20\nmax_prepared_transactions = 2\n"
	  . "autovacuum = off\n");
my $admin = session($node);
my %took;
my $count = 0;
my ($session, $result, $start);

# The text of a call, and the name by which it is known.
sub call
{
	my ($name, $server) = @_;

	return sprintf q{create_enterprise_connection(name => '%s', provider => 'saml_okta', domains => '{%s.example}', server => '%s')},
	  $name, $name, $server || 'clerk';
}

sub batch
{
	my ($count, $server) = @_;

	return sprintf q{create_enterprise_connections(ARRAY(SELECT jsonb_build_object('name', 'batch ' || n, 'provider', 'saml_okta',
		'domains', jsonb_build_array('batch-' || n || '.example')) FROM generate_series(1, %d) AS n), '%s')}, $count, $server || 'clerk';
}

# A session within a transaction that has created a connection; its id.
sub began
{
	my ($on_rollback, $name) = @_;
	my $session = session($node);

	# before the library is loaded, as applications do
	$session->query("SET pg_clerk.on_rollback = '$on_rollback'");
	$session->query('BEGIN');
	my $id = $session->query('SELECT ' . call($name) . " ->> 'id'");
	return ($session, $id);
}

sub names
{
	return join ' ', sort map { $_->{name} } $mock->connections;
}

# What was logged since the last call; a line can be a moment late.
my $logged = 0;

sub log_since
{
	my $text = slurp_file($node->logfile, $logged);

	return $text;
}

sub forget_log
{
	$logged = -s $node->logfile;
	return;
}

sub warning_of
{
	my ($id, $server) = @_;
	$server ||= 'clerk';

	return qr/WARNING: .*enterprise connection "\Q$id\E" of server "$server" exists at Clerk, although .* rolled back/;
}

# The POSTs that the mock has received.
sub posts
{
	return grep { $_->{method} eq 'POST' } $mock->requests;
}

sub gone
{
	my ($session) = @_;

	wait_until(sub { process_gone($session->pid) }, 'the backend to end', 10);
	return;
}

# All that was sent to it is read: it waits, and goes on waiting.
sub wait_until_idle
{
	my ($session) = @_;
	my $times = 0;

	wait_until(
		sub {
			my $event = $admin->query('SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid);

			$times = $event eq 'ClerkApi' || $event eq 'Extension' ? $times + 1 : 0;
			return $times >= 5;
		},
		'all answers to be read');
	return;
}

sub in_time
{
	my ($seconds, $what) = @_;

	$took{$what} = $seconds;
	cmp_ok($seconds, '<', $LIMIT, "$what: in time");
	return;
}

# ---------------------------------------------------------------------------
# The backend ends in the middle of the transaction
# ---------------------------------------------------------------------------
my %ends = (
	'a terminated backend' => sub {
		my ($session) = @_;
		$admin->query('SELECT pg_terminate_backend(' . $session->pid . ')');
	},
	'a terminated backend, busy' => sub {
		my ($session) = @_;
		$session->send('SELECT pg_sleep(60)');
		wait_until(
			sub { $admin->query('SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid) eq 'PgSleep' },
			'the wait');
		$admin->query('SELECT pg_terminate_backend(' . $session->pid . ')');
	},
	'a lost client'      => sub { $_[0]->stop('KILL') },
	'a client that quits' => sub { $_[0]->send("\\q\n") },
	'a failed transaction, then a lost client' => sub {
		my ($session) = @_;
		$session->run('SELECT 1 / 0');
		$session->stop('KILL');
	});

for my $what (sort keys %ends)
{
	for my $on_rollback (qw(warn delete ignore))
	{
		$mock->reset;
		forget_log();
		my ($session, $id) = began($on_rollback, 'acme');
		$ends{$what}->($session);
		gone($session);

		is(names(), $on_rollback eq 'delete' ? '' : 'acme', "$what, $on_rollback: what is left at Clerk");
		if ($on_rollback eq 'warn')
		{
			like(log_since(), warning_of($id), "$what, $on_rollback: the log says so");
		}
		else
		{
			unlike(log_since(), qr/exists at Clerk/, "$what, $on_rollback: nothing is logged");
		}
		$session->stop;
	}
}
is($admin->query('SELECT count(*) FROM enterprise_connections'), 0, 'nothing is tracked');

# Several, some of them released or committed
$mock->reset;
forget_log();
$session = session($node);
$session->query("SET pg_clerk.on_rollback = 'delete'");
$session->query('SELECT ' . call('committed'));
$session->query('BEGIN');
$session->query('SELECT ' . call('one'));
$session->query('SAVEPOINT a');
$session->query('SELECT ' . call('two'));
$session->query('RELEASE a');
$session->query('SAVEPOINT b');
$session->query('SELECT ' . batch(20));
$session->stop('KILL');
gone($session);
is(names(), 'committed', 'a lost client deletes all of its transaction, and no more');

# Shutdown
$mock->reset;
forget_log();
my ($deleting, $warning);
($deleting) = began('delete', 'deleted');
($warning, my $warned_id) = began('warn', 'warned');
$node->stop('fast');
is(names(), 'warned', 'fast shutdown: what is left at Clerk');
like(log_since(), warning_of($warned_id), 'fast shutdown: the log says so');
$_->stop for $deleting, $warning, $admin;
$node->start;
$admin = session($node);
$admin->query('TRUNCATE enterprise_connections');

# ---------------------------------------------------------------------------
# To the client: the error, and then what it has left behind
# ---------------------------------------------------------------------------
$mock->reset;
($session, my $id) = began('warn', 'acme');
$result = $session->run('SELECT 1 / 0');
like($result->{err}, qr/22012/,         'an error');
like($result->{err}, warning_of($id),   'and its warning, at once');
$result = $session->run('ROLLBACK');
is($result->{err}, '', 'and not again');

($session, $id) = began('warn', 'prepared');
$result = $session->run(q{PREPARE TRANSACTION 'p'});
is($result->{sqlstate}, '0A000', 'PREPARE TRANSACTION is refused');
like($result->{err}, qr/"\Q$id\E"/,   'it says because of which one');
like($result->{err}, warning_of($id), 'and what has become of it');
is($session->query('SELECT count(*) FROM pg_prepared_xacts'), 0, 'nothing is prepared');

$result = $session->run('SELECT 1 / length(' . call('statement') . "::text) - 1 / 0");
like($result->{err}, qr/22012/, 'an error in the same statement, without a transaction block');

# ---------------------------------------------------------------------------
# A batch that is cancelled
# ---------------------------------------------------------------------------
clerk_server($node, $mock, name => 'pairs', server => { max_concurrency => 2 });

sub held_batch
{
	my ($on_rollback) = @_;
	my $session = session($node);

	$mock->reset;
	forget_log();
	# The fifth one hangs; of eight, two at a time, the others get by.
	$mock->script({ match => { method => 'POST', body_contains => '"batch 5"' }, hold => JSON::PP::true });
	$session->query("SET pg_clerk.on_rollback = '$on_rollback'");
	return $session;
}

sub accounted_for
{
	my ($err, $what) = @_;
	my %id = map { $_->{body}{name} => $_ } posts();
	my ($list) = $err =~ /these \(by ordinal\) exist at Clerk: (.*)/;

	is(join(' ', map { /\((\d+)\)/ ? $1 : () } split /, /, $list || ''), '1 2 3 4 6 7 8',
		"$what: the context lists by ordinal what exists");
	like($err, qr/creation of an enterprise connection, which had been sent: the connection may exist/,
		"$what: and says of the one that hangs that it may");
	return map { /"([^"]+)"/ ? $1 : () } split /, /, $list || '';
}

for my $on_rollback (qw(warn delete ignore))
{
	for my $what ('statement_timeout', 'pg_cancel_backend')
	{
		my $name = "$what of a batch, $on_rollback";

		$session = held_batch($on_rollback);
		$session->query("SET statement_timeout = '2s'") if $what eq 'statement_timeout';
		$session->send('SELECT * FROM ' . batch(8, 'pairs'));
		if ($what eq 'pg_cancel_backend')
		{
			wait_until(sub { my @c = $mock->connections; @c == 7 && $mock->stats->{in_flight} == 1 }, 'the other creations');
			wait_until_idle($session);
			$admin->query('SELECT pg_cancel_backend(' . $session->pid . ')');
		}
		$result = $session->finish;
		is($result->{sqlstate}, '57014', "$name: query_canceled");
		my @ids = accounted_for($result->{err}, $name);
		is(join(' ', sort @ids), join(' ', sort map { $_->{id} } $mock->connections), "$name: those are all that exist")
		  if $on_rollback ne 'delete';
		is(names(), '', "$name: nothing is left at Clerk") if $on_rollback eq 'delete';
		is(scalar(grep { $result->{err} !~ warning_of($_, 'pairs') } @ids),
			$on_rollback eq 'warn' ? 0 : 7, "$name: a warning for each, or for none");
		is(scalar(posts()), 8, "$name: each was sent once");
		$mock->unscript;
		is($session->query('SELECT ' . call('next') . " ->> 'name'"), 'next', "$name: the session goes on");
		$admin->query('TRUNCATE enterprise_connections');
		$session->stop;
	}
}

# terminated, or its client lost, in the middle of it
for my $what ('terminated', 'lost')
{
	$session = held_batch('delete');
	$session->query("SET client_connection_check_interval = '100ms'");
	$session->send('SELECT * FROM ' . batch(8, 'pairs'));
	wait_until(sub { my @c = $mock->connections; @c == 7 }, 'the other creations');
	if ($what eq 'lost')
	{
		$session->stop('KILL');
	}
	else
	{
		$admin->query('SELECT pg_terminate_backend(' . $session->pid . ')');
	}
	gone($session);
	is(names(), '', "a batch whose session was $what: nothing is left at Clerk");
	like(log_since(), qr/these \(by ordinal\) exist at Clerk: ".*\(1\)/, "a batch whose session was $what: the log has the account");
}

# What was not sent when it was cancelled is not sent afterwards, while the
# deletions are waited for: here, all but the first connection through a proxy
# take their time.
my $tls   = start_tls_mock();
my $proxy = start_server(
	sub {
		my ($client, $n) = @_;
		my $request = '';

		while ($request !~ /\r\n\r\n/)
		{
			sysread $client, $request, 4096, length $request or return;
		}
		sleep 0.7 if $n > 1;
		my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls->port) or return;
		syswrite $client, "HTTP/1.1 200 Connection established\r\n\r\n";
		my $select = IO::Select->new($client, $server);
		for (;;)
		{
			for my $from ($select->can_read(60))
			{
				sysread $from, my $bytes, 65536 or return;
				syswrite $from == $client ? $server : $client, $bytes;
			}
		}
	});
clerk_server($node, $tls, name => 'slow', server => { proxy => $proxy->url, max_concurrency => 10 });
$tls->script({ match => { method => 'POST' }, skip => 1, hold => JSON::PP::true });
$session = session($node);
$session->query("SET pg_clerk.on_rollback = 'delete'");
$session->query("SET statement_timeout = '400ms'");
$session->query('BEGIN');
$result = $session->run(
	'DO $$ BEGIN PERFORM ' . call('first', 'slow') . '; PERFORM count(*) FROM ' . batch(10, 'slow')
	  . '; EXCEPTION WHEN query_canceled THEN RAISE NOTICE \'caught\'; END $$');
like($result->{err}, qr/caught/, 'a cancel that is caught');
$session->query("SET statement_timeout = 0");
$session->query('COMMIT');
sleep 1;
my %methods;
$methods{ $_->{method} }++ for $tls->requests;
is($methods{POST},   2, 'nothing more is sent after it');
is($methods{DELETE}, 1, 'but the deletion of what was created before');
is(scalar(my @rest = $tls->connections), 0, 'and nothing is left at Clerk');

# ---------------------------------------------------------------------------
# A mirror that is cancelled leaves the table as it was
# ---------------------------------------------------------------------------
my $table = q{SELECT md5(string_agg(e::text || xmin || ctid, '' ORDER BY id)) || ' ' || count(*) FROM enterprise_connections AS e};
$mock->reset;
$admin->query('TRUNCATE enterprise_connections');
$mock->seed({ count => 1201 });
$admin->query('SELECT count(*) FROM mirror_enterprise_connections()');
$mock->reset;
$mock->seed({ count => 2000, prefix => 'other' });
my $before = $admin->query($table);
like($before, qr/ 1201$/, 'a mirrored table');

# All pages but one come; that one is held.
for my $what ('statement_timeout', 'pg_cancel_backend', 'pg_terminate_backend')
{
	$mock->unscript;
	$mock->script({ match => { method => 'GET' }, skip => 2, hold => JSON::PP::true });
	$session = session($node);
	$session->query("SET statement_timeout = '2s'") if $what eq 'statement_timeout';
	$session->send('SELECT count(*) FROM mirror_enterprise_connections()');
	if ($what ne 'statement_timeout')
	{
		wait_until(sub { my $s = $mock->stats; $s->{in_flight} == 1 }, 'the held page');
		# ... and the others are in the table
		wait_until(
			sub { $admin->query('SELECT query FROM pg_stat_activity WHERE pid = ' . $session->pid) =~ /: (\d+) of \d+ connections,/ && $1 > 1000 },
			'the other pages', 20);
		$admin->query("SELECT $what(" . $session->pid . ')');
	}
	$result = $session->finish;
	is($result->{sqlstate}, $what eq 'pg_terminate_backend' ? '57P01' : '57014', "$what of a mirror");
	unlike($result->{err}, qr/may exist/, "$what of a mirror: it creates nothing");
	gone($session) if $what eq 'pg_terminate_backend';
	is($admin->query($table), $before, "$what of a mirror: the table is as it was");
	$session->stop;
}
$mock->unscript;
is($admin->query('SELECT count(*) FROM mirror_enterprise_connections(force => true)') > 0, 1, 'and the next mirror is not kept out');

# ---------------------------------------------------------------------------
# A Clerk that is silent, or gone
# ---------------------------------------------------------------------------
my %silent = (
	'ROLLBACK' => sub { $_[0]->run('ROLLBACK') },
	'ROLLBACK, with a statement_timeout' => sub {
		my ($session) = @_;
		$session->query("SET statement_timeout = '300ms'");
		my $result = $session->run('ROLLBACK');
		$session->run('SET statement_timeout = 0');
		return $result;
	},
	'an error' => sub { my $result = $_[0]->run('SELECT 1 / 0'); $_[0]->query('ROLLBACK'); return $result });
for my $what (sort keys %silent)
{
	$mock->reset;
	($session, $id) = began('delete', 'acme');
	$mock->script({ match => { method => 'DELETE' }, times => 0, hold => JSON::PP::true });
	$start  = time;
	$result = $silent{$what}->($session);
	in_time(time - $start, "$what with a silent Clerk");
	like($result->{err}, warning_of($id), "$what with a silent Clerk: a warning");
	$mock->unscript;
	is($session->query('SELECT ' . call('next') . " ->> 'name'"), 'next', "$what with a silent Clerk: the session goes on");
	$session->stop;
}
$mock->reset;
forget_log();
($session, $id) = began('delete', 'acme');
$mock->script({ match => { method => 'DELETE' }, times => 0, hold => JSON::PP::true });
$start = time;
$admin->query('SELECT pg_terminate_backend(' . $session->pid . ')');
gone($session);
in_time(time - $start, 'a terminated backend with a silent Clerk');
like(log_since(), warning_of($id), 'a terminated backend with a silent Clerk: the log says so');
$session->stop;

# 200 of them have no more time than one
$mock->reset;
($session, $id) = began('delete', 'acme');
$session->query('SELECT count(*) FROM ' . batch(200));
$mock->script({ match => { method => 'DELETE' }, times => 0, hold => JSON::PP::true });
$start  = time;
$result = $session->run('ROLLBACK');
in_time(time - $start, '201 deletions with a silent Clerk');
is(scalar(() = $result->{err} =~ /exists at Clerk, although/g), 201, '201 deletions with a silent Clerk: a warning for each');
$session->stop;

# 201 with a Clerk that answers within 50 ms
$mock->reset;
($session, $id) = began('delete', 'acme');
$session->query('SELECT count(*) FROM ' . batch(200));
$mock->settings({ latency_ms => 50 });
$result = $session->run('ROLLBACK');
is($result->{err}, '', '201 deletions with a Clerk that answers: no warning');
is(names(), '', '201 deletions with a Clerk that answers: nothing is left');
$session->stop;

# gone: no need to wait
my $other = start_mock();
clerk_server($node, $other, name => 'other');
$session = session($node);
$session->query("SET pg_clerk.on_rollback = 'delete'");
$session->query('BEGIN');
$id = $session->query('SELECT ' . call('acme', 'other') . " ->> 'id'");
$other->stop;
$start  = time;
$result = $session->run('ROLLBACK');
cmp_ok(time - $start, '<', 1.9, 'a Clerk that is gone is not waited for');
like($result->{err}, warning_of($id, 'other'), 'a Clerk that is gone: a warning');
$session->stop;

# ---------------------------------------------------------------------------
# Many keys in one transaction
# ---------------------------------------------------------------------------
$mock->reset({ record => 'off' });
$admin->query('TRUNCATE enterprise_connections');
my %session = map { $_ => session($node) } qw(a b);
for my $name (sort keys %session)
{
	$session{$name}->query('BEGIN');
	$session{$name}->query("SET statement_timeout = '120s'");
	$session{$name}->send(
		qq{SELECT count(upsert_enterprise_connection('$name:' || n, jsonb_build_object('name', '$name ' || n, 'provider', 'saml_okta',
			'domains', jsonb_build_array('$name-' || n || '.example')))) FROM generate_series(1, 2000) AS n});
}
for my $name (sort keys %session)
{
	$result = $session{$name}->finish(180);
	is($result->{out}, 2000, "2,000 new keys in one transaction, session $name") or diag substr $result->{err}, 0, 1000;
}
$_->run('COMMIT') for values %session;
is($admin->query('SELECT count(*) || \' \' || count(DISTINCT key) FROM enterprise_connections'), '4000 4000', 'all are there');
is(scalar(my @all = $mock->connections), 4000, 'at Clerk, too');

# ---------------------------------------------------------------------------
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:|was terminated by signal|WARNING: .*(?:leak|already)/, 'nothing crashed, nothing leaked');


diag sprintf 'longer than %.1f s: %s', $GOAL,
  join ', ', map { sprintf '%s (%.1f s)', $_, $took{$_} } grep { $took{$_} > $GOAL } sort keys %took
  if grep { $_ > $GOAL } values %took;
note sprintf '%s: %.2f s', $_, $took{$_} for sort keys %took;

done_testing();
