# Crashes at every step of a delivery: whatever happens, Clerk has what was
# asked for once, and in order. And what else may not stop a worker: requests
# that take long, rows that nobody can deliver, copies of the database.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $TIMEOUT = 3;    # s, server option: how long a request can be on its way

my $mock = start_mock('--lenient');
my $node = worker_node('main');

# A node with a worker, and server clerk for the mock.
sub worker_node
{
	my ($name) = @_;

	return clerk_node($name, $mock,
		init   => [ allows_streaming => 1 ],
		server => { timeout => "${TIMEOUT}s" },
		conf   => <<'END');
shared_preload_libraries = 'pg_clerk'
restart_after_crash = on
fsync = off
END
}

# The first word of each of its processes of that kind.
sub children
{
	my ($of, $kind) = @_;
	my ($pid) = slurp_file($of->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @found;

	for my $child (split ' ', slurp_file("/proc/$pid/task/$pid/children"))
	{
		my $title = eval { slurp_file("/proc/$child/cmdline") };
		push @found, $child if defined $title && $title =~ /pg_clerk $kind/;
	}
	return @found;
}

# The worker's pid, as soon as there is one.
sub worker
{
	my ($of) = @_;

	return wait_until(sub { (children($of, 'worker'))[0] }, 'a worker', 30);
}

# A query, as soon as the server is there.
sub query
{
	my ($of, $sql, $database) = @_;
	my ($out, $err);

	wait_until(
		sub {
			my $status = $of->psql($database || 'postgres', $sql, stdout => \$out, stderr => \$err);
			die "error of \"$sql\": $err" if $status == 3 || $err =~ /ERROR/;
			return $status == 0;
		},
		'the server', 30);
	return $out;
}

sub enqueue
{
	my ($of, $operation, $key, %params) = @_;
	my $params = %params ? "'" . JSON::PP->new->canonical->encode(\%params) . "'" : 'NULL';

	return query($of, sprintf 'SELECT enqueue_enterprise_connection(%s, %s, %s, server => \'clerk\')', "'$operation'", $params, defined $key ? "'$key'" : 'NULL');
}

sub state_of
{
	my ($of, $request) = @_;

	return query($of, "SELECT state FROM enterprise_connection_requests WHERE id = $request");
}

sub is_delivered
{
	my ($of, $request, $what, $seconds) = @_;
	my $state = '';

	eval { wait_until(sub { ($state = state_of($of, $request)) =~ /delivered|failed|superseded|cancelled/ }, 'the end', $seconds || 30) };
	is($state, 'delivered', $what)
	  or diag(query($of, "SELECT to_jsonb(q) - 'params' FROM enterprise_connection_requests q WHERE id = $request"));
	return;
}

sub sent
{
	my ($method, $contains) = @_;

	return grep { $_->{method} eq $method && (!defined $contains || index($_->{raw_body} // '', $contains) >= 0) } $mock->requests;
}

sub wait_for_sent
{
	my ($method, $contains, $n) = @_;

	wait_until(sub { sent($method, $contains) >= ($n || 1) }, "$method $contains", 30);
	return;
}

sub named
{
	my ($pattern) = @_;

	return grep { $_->{name} =~ $pattern } $mock->connections;
}

# kill_worker($of): as a crash does. All backends go down with it.
sub kill_worker
{
	my ($of) = @_;
	my $pid = worker($of);

	kill_and_restart($of, $pid);
	return;
}

# ---------------------------------------------------------------------------
# A PATCH on its way when its worker ends is not overtaken by a newer one
# ---------------------------------------------------------------------------
is_delivered($node, enqueue($node, 'upsert', 'order', name => 'order 1', provider => 'saml_okta'), 'the connection is there');
for my $signal ('KILL', 'TERM')
{
	my $n = $signal eq 'KILL' ? 1 : 3;

	# the server takes its time before it does it
	$mock->script({ match => { method => 'PATCH' }, delay_ms => 2000 });
	enqueue($node, 'update', 'order', name => "order $n.1");
	wait_for_sent('PATCH', "order $n.1");
	$signal eq 'KILL' ? kill_worker($node) : kill $signal, worker($node);
	my $last = enqueue($node, 'update', 'order', name => "order $n.2");
	is_delivered($node, $last, "SIG$signal: the newer update is delivered");
	wait_until(sub { $mock->stats->{in_flight} == 0 }, 'all requests to end', 10);
	sleep 0.2;
	my ($connection) = named(qr/^order/);
	is($connection->{name}, "order $n.2", "SIG$signal: the newer update holds");
}

# The PATCH that completes a create is sent later than that, and has as long
$mock->script({ match => { method => 'POST' }, delay_ms => 2000 }, { match => { method => 'PATCH' }, delay_ms => 2000 });
enqueue($node, 'create', 'second step', name => 'second step', provider => 'saml_okta', sync_user_attributes => JSON::PP::true);
wait_for_sent('PATCH', 'sync_user_attributes');
kill_worker($node);
is_delivered($node, enqueue($node, 'update', 'second step', sync_user_attributes => JSON::PP::false), 'second step: the newer update is delivered');
wait_until(sub { $mock->stats->{in_flight} == 0 }, 'all requests to end', 10);
ok(!(named(qr/^second step/))[0]{sync_user_attributes}, 'second step: the newer update holds');
$mock->forget;

# ---------------------------------------------------------------------------
# Four creates at different points when it all ends: each is there once
# ---------------------------------------------------------------------------

# Whoever is killed like that leaves a zombie, perhaps, which keeps pg_ctl from
# starting for a while.
sub restart
{
	my ($of) = @_;
	my $end = time + 60;

	until ($of->start(fail_ok => 1))
	{
		die 'the server does not start again' if time > $end;
		undef $of->{_pid};
		sleep 0.2;
	}
	return;
}

sub kill_postmaster
{
	my ($of) = @_;
	my @pids = (children($of, 'worker'), children($of, 'launcher'));
	my ($postmaster) = slurp_file($of->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	cmp_ok(scalar @pids, '>=', 2, 'there are a worker and a launcher');
	my $start = time;
	$of->kill9;
	ok(eval { wait_until(sub { !grep { !process_gone($_) } @pids }, 'the end', 20) }, 'SIGKILL of the postmaster: worker and launcher end');
	note sprintf 'after %.2f s', time - $start;
	eval { wait_until(sub { !kill 0, $postmaster }, 'the postmaster to be reaped', 30) };
	restart($of);
	return;
}

sub stop_fast
{
	my ($of) = @_;
	my $start = time;

	$of->stop('fast');
	cmp_ok(time - $start, '<', 20, 'pg_ctl stop -m fast ends, though Clerk is silent');
	restart($of);
	return;
}

my @endings = (
	[ 'kill9 worker'     => \&kill_worker ],
	[ 'SIGTERM worker'   => sub { kill 'TERM', worker($_[0]) } ],
	[ 'fast shutdown'    => \&stop_fast ],
	[ 'kill9 postmaster' => \&kill_postmaster ],
);
my @points = qw(late lost never patch);

for my $ending (@endings)
{
	my ($name, $end) = @$ending;
	my $round = $name =~ s/ //r;
	my %requests;

	$mock->script(
		# carried out only when the client has gone
		{ match => { method => 'POST', body_contains => "$round late" }, delay_ms => 2000 },
		# carried out, but the answer comes too late
		{ match => { method => 'POST', body_contains => "$round lost" }, delay_after_ms => 2000 },
		# not carried out
		{ match => { method => 'POST', body_contains => "$round never" }, hold => JSON::PP::true },
		# created, but not completed
		{ match => { method => 'PATCH', body_contains => 'sync_user_attributes' }, hold => JSON::PP::true, times => 2 });
	for my $point (@points)
	{
		my %more = $point eq 'patch' ? (sync_user_attributes => JSON::PP::true) : ();

		# with a key and a domain; with neither
		$requests{"$round $point key"} = enqueue($node, 'upsert', "$round $point",
			name => "$round $point key", provider => 'saml_okta', domains => ["$point-$round.example"], %more);
		$requests{"$round $point free"} = enqueue($node, 'create', undef,
			name => "$round $point free", provider => 'saml_okta', %more)
		  if $point eq 'never' || $point eq 'patch';
	}
	wait_for_sent('POST', "$round $_") for @points;
	wait_until(sub { sent('PATCH', 'sync_user_attributes') >= 2 }, 'both PATCHes', 30);
	$end->($node);
	is_delivered($node, $requests{$_}, "$name: $_", 60) for sort keys %requests;
	wait_until(sub { $mock->stats->{in_flight} == 0 }, 'all requests to end', 30);
	for my $request (sort keys %requests)
	{
		my @found = named(qr/^\Q$request\E$/);

		is(scalar @found, 1, "$name: $request exists once");
		ok($found[0]{sync_user_attributes}, "$name: $request is complete") if $request =~ / patch /;
	}
	$mock->unscript;
	$mock->forget;
}

# ---------------------------------------------------------------------------
# A request that takes long holds up nobody
# ---------------------------------------------------------------------------
clerk_server($node, $mock, name => 'patient', server => { timeout => '100s' });
$mock->script({ match => { method => 'POST', body_contains => 'slow one' }, hold => JSON::PP::true });
my $slow = query($node, q{SELECT enqueue_enterprise_connection('upsert', '{"name": "slow one", "provider": "saml_okta"}', key => 'slow', server => 'patient')});
wait_for_sent('POST', 'slow one');
query($node, q{SELECT enqueue_enterprise_connection('upsert', jsonb_build_object('name', format('quick %s', i), 'provider', 'saml_okta'),
	key => format('quick %s', i), server => 'patient') FROM generate_series(1, 30) i});
my $start = time;
eval { wait_until(sub { query($node, q{SELECT count(*) FROM enterprise_connection_requests WHERE key LIKE 'quick%' AND state = 'delivered'}) == 30 }, 'delivery', 30) };
cmp_ok(time - $start, '<', 30, '30 others are delivered meanwhile');
is(state_of($node, $slow), 'sending', 'the slow one is still on its way');

# Whatever wakes the worker in between is over soon.
my $held = 0;
for (1 .. 10)
{
	$held++ if query($node, q{SELECT backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL FROM pg_stat_activity
		WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'}) ne 'f';
	sleep 0.1;
}
cmp_ok($held, '<=', 2, 'it holds neither a snapshot nor a transaction meanwhile');
is(query($node, q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'pg_clerk worker'
	AND a.datname = 'postgres' AND l.locktype NOT IN ('object', 'virtualxid')}), 0, 'nor a lock of a table');
$mock->release;
is_delivered($node, $slow, 'released, it is delivered too', 60);

# ---------------------------------------------------------------------------
# Rows that nobody can deliver fail, and the worker goes on
# ---------------------------------------------------------------------------
my $pid = worker($node);
my $offset = -s $node->logfile;
my @poison = (
	q{params = '[]'},
	q{params = '"text"'},
	q{params = '{"nonsense": [1, {"a": null}]}'},
	q{params = '{"name": 5, "provider": {"x": 1}, "domains": "none"}'},
	q{operation = 'update', connection_id = '../../x', key = NULL, lane = NULL},
	q{role_oid = 0},
	q{params = NULL},
);
my @ids;
for my $poison (@poison)
{
	push @ids, query($node, sprintf q{
		BEGIN;
		SELECT enqueue_enterprise_connection('upsert', '{"name": "poison", "provider": "saml_okta"}', key => 'poison %d', server => 'clerk');
		UPDATE enterprise_connection_requests SET %s WHERE id = (SELECT max(id) FROM enterprise_connection_requests);
		COMMIT}, scalar @ids, $poison);
}
for my $n (0 .. $#poison)
{
	my $state = '';
	eval { wait_until(sub { ($state = state_of($node, $ids[$n])) =~ /failed|delivered/ }, 'the end', 20) };
	is($state, 'failed', "poison: $poison[$n]")
	  or diag(query($node, "SELECT to_jsonb(q) FROM enterprise_connection_requests q WHERE id = $ids[$n]"));
}

# Clerk has done it, but that cannot be written
query($node, q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW
		WHEN (new.state = 'delivered' AND new.key = 'refused') EXECUTE FUNCTION refuse()});
my $refused = enqueue($node, 'upsert', 'refused', name => 'refused', provider => 'saml_okta');
eval { wait_until(sub { state_of($node, $refused) eq 'failed' }, 'the end', 20) };
is(query($node, "SELECT state || ': ' || (error->>'message') FROM enterprise_connection_requests WHERE id = $refused"), 'failed: refused', 'poison: the outcome cannot be written');
query($node, 'DROP TRIGGER refuse ON enterprise_connection_requests; DROP FUNCTION refuse()');
is_delivered($node, enqueue($node, 'upsert', 'after', name => 'after the poison', provider => 'saml_okta'), 'the next one is delivered');
is(worker($node), $pid, 'by the same worker');
unlike(substr(slurp_file($node->logfile), $offset), qr/pg_clerk worker (?:ERROR|FATAL)|terminated by signal/, 'which had no error');

# ---------------------------------------------------------------------------
# A copy holds its requests until it is armed
# ---------------------------------------------------------------------------
my $dump = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$node->append_conf('postgresql.conf', 'pg_clerk.worker = off');
$node->reload;
wait_until(sub { !children($node, 'worker') }, 'the worker to leave', 30);
enqueue($node, 'upsert', 'copied', name => 'copied 1', provider => 'saml_okta');
enqueue($node, 'update', 'copied', name => 'copied 2');
enqueue($node, 'create', undef, name => 'copied free', provider => 'saml_okta');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
query($node, 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
$mock->forget;
$node->append_conf('postgresql.conf', 'pg_clerk.worker = on');
$node->reload;
my $unfinished = q{SELECT coalesce(string_agg(state::text, ' ' ORDER BY id), '') FROM enterprise_connection_requests WHERE finished_at IS NULL};
is(query($node, q{SELECT string_agg(state || ' ' || requests, ', ') FROM enterprise_connection_queue WHERE state NOT IN ('delivered', 'failed')}, 'copy'), 'held 3', 'the copy holds what was unfinished');
eval { wait_until(sub { query($node, $unfinished) eq '' }, 'delivery', 30) };
is(query($node, $unfinished), '', 'the original delivers it');
is(join(', ', sort map { $_->{name} } named(qr/^copied/)), 'copied 2, copied free', 'once');
query($node, q{SELECT arm_enterprise_connections('clerk')}, 'copy');
eval { wait_until(sub { query($node, $unfinished, 'copy') eq '' }, 'delivery', 30) };
is(query($node, $unfinished, 'copy'), '', 'armed, the copy delivers it too');
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal (?!9)/, 'nothing crashed');

done_testing();
