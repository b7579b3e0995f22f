# A server that says nothing: whatever ends a call ends it at once, in
# PostgreSQL's own words, and says whether a connection may exist at Clerk.

use strict;
use warnings;

use ClerkTest;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# What is asserted, and what is meant: only a busy machine needs the first.
# Whatever is not ended would take 30 s or more.
my $LIMIT = 10;
my $GOAL  = 0.1;

my $key  = 'sk_test_002SeenNowhere';
my $mock = start_mock('--secret-key', $key);
my $node = clerk_node(
	'cancel', $mock,
	key  => $key,
	conf => "fsync = off\nlog_line_prefix = '[%p] '\nlog_error_verbosity = verbose\n");
my $may_exist = qr/CONTEXT:.*the connection may exist at Clerk/;
my ($admin, $session, $result, $start);
my %took;
my $count = 0;

sub call
{
	my ($server) = @_;

	return sprintf q{create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{c%d.example}', server => '%s')},
	  ++$count, $server || 'clerk';
}

sub measured
{
	my ($what, $seconds, $limit) = @_;

	$took{$what} = $seconds;
	note sprintf '%s: %.1f ms', $what, $seconds * 1000;
	cmp_ok($seconds, '<', $limit || $LIMIT, "$what: at once");
	return;
}

# Hold the next request; a session that waits for its answer.
sub waiting_session
{
	my ($sql, %options) = @_;
	my $session = session($node, %options);

	start_waiting($session, $sql);
	return $session;
}

sub start_waiting
{
	my ($session, $sql) = @_;

	$mock->unscript;
	$mock->script({ hold => JSON::PP::true });
	my $before = $mock->stats->{requests};
	$session->send($sql);
	wait_until(sub { $mock->stats->{requests} > $before }, 'the request to arrive');
	return;
}

sub parent_of
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 0;
	my ($parent) = (<$stat> // '') =~ /\) \w (\d+)/;
	return $parent // 0;
}

sub wait_until_paused
{
	# what the mock has sent is not yet what the session has read
	my $port = sprintf '%04X', $mock->port;
	wait_until(
		sub {
			open my $sockets, '<', '/proc/net/tcp' or die "could not open /proc/net/tcp: $!";
			return !grep { /^\s*\d+: \S+ [0-9A-F]+:$port \S+ [0-9A-F]+:(?!00000000)/ } <$sockets>;
		},
		'the answer to be read');
	wait_until(
		sub {
			$admin->query('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid) eq 'Extension';
		},
		'the wait');
	return;
}

# The mock has noticed that nobody waits any more, and a fresh session works.
sub works_again
{
	my ($what) = @_;

	$mock->unscript;
	wait_until(sub { $mock->stats->{in_flight} == 0 }, 'the request to end');
	my ($status, $out, $err) = $node->psql('postgres', 'SELECT ' . call() . " ->> 'name'");
	is($out, 'N', "$what: the next call works") or diag $err;
	return;
}

$admin = session($node);

# ---------------------------------------------------------------------------
# What is seen meanwhile
# ---------------------------------------------------------------------------
$session = waiting_session('SELECT ' . call());
my $activity = wait_until(
	sub {
		my $row = $admin->query(
			"SELECT wait_event_type || ':' || wait_event || ' ' || query FROM pg_stat_activity WHERE pid = "
			  . $session->pid);
		return $row =~ /^Extension/ && $row;
	},
	'the wait event');
my $event = $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000 ? 'ClerkApi' : 'Extension';
like($activity, qr/^Extension:$event /, "the wait event is Extension:$event");
like($activity, qr/create_enterprise_connection/, 'the activity is the query');
unlike($activity, qr/\Q$key\E/, 'without the key');

# ---------------------------------------------------------------------------
# pg_cancel_backend
# ---------------------------------------------------------------------------
$start = time;
$admin->query('SELECT pg_cancel_backend(' . $session->pid . ')');
$result = $session->finish;
measured('pg_cancel_backend', time - $start);
is($result->{sqlstate}, '57014', 'pg_cancel_backend: query_canceled');
like($result->{err}, qr/canceling statement due to user request/, 'pg_cancel_backend: in core\'s words');
like($result->{err}, $may_exist, 'pg_cancel_backend: the connection may exist');
is(scalar(my @sent = $mock->requests), 1, 'pg_cancel_backend: the request was not repeated');
works_again('pg_cancel_backend');

my @figures;
for (1 .. 10)
{
	start_waiting($session, 'SELECT ' . call());
	$start = time;
	kill 'INT', $session->pid;
	$result = $session->finish;
	push @figures, time - $start;
	last if $result->{sqlstate} ne '57014';
}
is($result->{sqlstate}, '57014', 'SIGINT ten times');
@figures = sort { $a <=> $b } @figures;
measured('SIGINT, the slowest of ten', $figures[-1]);
diag sprintf 'from SIGINT to the error at the client: median %.1f ms, slowest %.1f ms',
  $figures[4] * 1000, $figures[-1] * 1000;
works_again('SIGINT');

# ---------------------------------------------------------------------------
# statement_timeout
# ---------------------------------------------------------------------------
$session->query("SET statement_timeout = '300ms'");
start_waiting($session, 'SELECT ' . call());
$result = $session->finish;
measured('statement_timeout of 300 ms, beyond it', $result->{seconds} - 0.3);
cmp_ok($result->{seconds}, '>', 0.29, 'statement_timeout: not before');
is($result->{sqlstate}, '57014', 'statement_timeout: query_canceled');
like($result->{err}, qr/statement timeout/, 'statement_timeout: says so');
like($result->{err}, $may_exist, 'statement_timeout: the connection may exist');
works_again('statement_timeout');
$session->query('RESET statement_timeout');

# ---------------------------------------------------------------------------
# The same session goes on, inside a transaction too
# ---------------------------------------------------------------------------
$mock->reset;
$session->query('BEGIN');
$session->query('SELECT ' . call());
$session->query('SAVEPOINT s');
start_waiting($session, 'SELECT ' . call());
kill 'INT', $session->pid;
is($session->finish->{sqlstate}, '57014', 'cancelled after a savepoint');
$session->query('ROLLBACK TO s');
$mock->unscript;
$session->query('SELECT ' . call()) for 1 .. 3;
$session->query('COMMIT');
my @connections = map { $_->{connection} } $mock->requests;
is_deeply(\@connections, [ 1, 1, 2, 2, 2 ], 'a kept connection is reused; the cancelled call took its own along');
is($session->query(q{SELECT count(*) FROM enterprise_connections WHERE id IN (SELECT connection->>'id' FROM enterprise_connections ORDER BY synced_at DESC LIMIT 4)}),
	4, 'and what was created before and after it is tracked');

# WHEN OTHERS does not swallow a cancel; WHEN query_canceled does catch it
for my $try ([ 'OTHERS', '57014' ], [ 'query_canceled', undef ], [ q{SQLSTATE 'KC000'}, '57014' ])
{
	my ($condition, $state) = @$try;

	start_waiting(
		$session, 'DO $$ BEGIN PERFORM ' . call() . "; EXCEPTION WHEN $condition THEN RAISE NOTICE 'caught %', sqlstate; END \$\$");
	kill 'INT', $session->pid;
	$result = $session->finish;
	is($result->{sqlstate}, $state,
		"WHEN $condition " . ($state ? 'does not swallow' : 'catches') . ' a cancel');
	like($result->{err}, qr/caught 57014/, 'under its own code') unless $state;
}
$mock->unscript;
is($session->query('SELECT ' . call() . "->>'name'"), 'N', 'and the session works');

# ---------------------------------------------------------------------------
# Nothing had been sent: no such context
# ---------------------------------------------------------------------------

# Nobody accepts, and the queue is full: connecting hangs.
my $full = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $@;
my @fill = map {
	IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $full->sockport, Blocking => 0)
} 1 .. 4;
my $silent = IO::Socket::INET->new(Listen => 10, LocalAddr => '127.0.0.1', LocalPort => 0) or die $@;
clerk_server($node, $mock, key => $key, name => 'no_accept', server => { api_url => 'http://127.0.0.1:' . $full->sockport });
clerk_server($node, $mock, key => $key, name => 'no_tls', server => { api_url => 'https://127.0.0.1:' . $silent->sockport });
clerk_server($node, $mock, key => $key, name => 'paced', server => { rate_limit => 1 });
clerk_server($node, $mock, key => $key, name => 'limited');

$session = session($node);
for my $try ([ 'no_accept', 'connecting' ], [ 'no_tls', 'the TLS handshake' ])
{
	my ($server, $what) = @$try;

	$session->send('SELECT ' . call($server));
	wait_until_paused();
	$start = time;
	kill 'INT', $session->pid;
	$result = $session->finish;
	measured("cancel during $what", time - $start);
	is($result->{sqlstate}, '57014', "cancel during $what: query_canceled");
	unlike($result->{err}, qr/may exist|exists/, "cancel during $what: nothing was sent");
}

# In a pause that the rate limit or Clerk asks for, nothing is on its way: at
# one request per second, the third one waits. The second one returns as soon
# as it is answered: a cancel would find it done already, and lose it.
for my $n (1, 2)
{
	$result = $session->run('SELECT ' . call('paced'));
	measured("call $n within the rate limit", $result->{seconds});
}
$session->send('SELECT ' . call('paced'));
wait_until_paused();
$start = time;
kill 'INT', $session->pid;
$result = $session->finish;
measured('cancel in a pause for the rate limit', time - $start);
is($result->{sqlstate}, '57014', 'cancel in a pause for the rate limit: query_canceled');
unlike($result->{err}, qr/may exist/, 'cancel in a pause for the rate limit: nothing was sent');

$mock->script({ status => 429, headers => { 'Retry-After' => '20' }, body => {} });
$session->send('SELECT ' . call('limited'));
wait_until(sub { $mock->stats->{by_status}{429} && $mock->stats->{in_flight} == 0 }, 'the refusal');
wait_until_paused();
$start = time;
kill 'INT', $session->pid;
$result = $session->finish;
measured('cancel in a Retry-After', time - $start);
is($result->{sqlstate}, '57014', 'cancel in a Retry-After: query_canceled');
unlike($result->{err}, qr/may exist/, 'cancel in a Retry-After: it was refused, nothing is in doubt');
works_again('pauses');

# ---------------------------------------------------------------------------
# pg_terminate_backend
# ---------------------------------------------------------------------------
$session = waiting_session('SELECT ' . call());
$start = time;
$admin->query('SELECT pg_terminate_backend(' . $session->pid . ')');
$result = $session->finish;
measured('pg_terminate_backend', time - $start);
is($result->{sqlstate}, '57P01', 'pg_terminate_backend: admin_shutdown');
like($result->{err}, $may_exist, 'pg_terminate_backend: the connection may exist');
wait_until(sub { process_gone($session->pid) }, 'the backend to end', 5);
measured('the backend is gone', time - $start);
works_again('pg_terminate_backend');

# ---------------------------------------------------------------------------
# The client has gone
# ---------------------------------------------------------------------------
$session = session($node);
$session->query("SET client_connection_check_interval = '100ms'");
start_waiting($session, 'SELECT ' . call());
$start = time;
$session->stop('KILL');
wait_until(sub { process_gone($session->pid) }, 'the backend to notice that its client has gone', 10);
measured('client_connection_check_interval of 100 ms, beyond it', time - $start - 0.1);
works_again('a client gone');

# ---------------------------------------------------------------------------
# Shutdown
# ---------------------------------------------------------------------------
$session = waiting_session('SELECT ' . call());
$start = time;
$node->stop('fast');
my $stopped = time - $start;
$result = $session->finish;
is($result->{sqlstate}, '57P01', 'fast shutdown: admin_shutdown');
like($result->{err}, $may_exist, 'fast shutdown: the connection may exist');
measured('pg_ctl stop -m fast', $stopped, 20);
$node->start;
works_again('fast shutdown');

# ---------------------------------------------------------------------------
# The postmaster is killed: no orphan holds up the restart
# ---------------------------------------------------------------------------
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
$session = waiting_session('SELECT ' . call());
my @children = grep { parent_of($_) == $postmaster } map { m{(\d+)} } glob '/proc/[0-9]*';
cmp_ok(scalar(@children), '>', 2, 'the postmaster has children');
$start = time;
$node->kill9;
wait_until(sub { process_gone($session->pid) }, 'the backend to notice that the postmaster has died', 10);
measured('the postmaster was killed', time - $start);
ok($session->finish->{ended}, 'its client learns of it');
wait_until(sub { !grep { !process_gone($_) } @children }, 'the others to end', 10);
wait_until(sub { !kill 0, $postmaster }, 'somebody to reap the postmaster', 30);
$node->start;
works_again('a killed postmaster');

# ---------------------------------------------------------------------------
my $log = slurp_file($node->logfile);
like($log, qr/FATAL:  57P01: .*\n(?:.*\n)*?.*CONTEXT:  .*may exist at Clerk/, 'the log says of a shutdown that a connection may exist');
unlike($log, qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');
unlike($log, qr/\Q$key\E.*SELECT/, 'no key in a statement');

my @slow = grep { $took{$_} > $GOAL } sort keys %took;
diag 'slower than ' . $GOAL * 1000 . ' ms: ' . join ', ', map { sprintf '%s (%.0f ms)', $_, $took{$_} * 1000 } @slow if @slow;

done_testing();
