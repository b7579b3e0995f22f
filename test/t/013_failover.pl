# What was sent, but is not known to have been: a standby that is promoted, or
# a server recovered to a point in time, without the last claims; and a worker
# killed right after a commit, before it sends what that commit allows it to.
# Whatever was lost, Clerk has everything once.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $TIMEOUT = 3;    # s, server option: how long a request can be on its way

# It insists on no domains, so nothing but the outbox prevents duplicates.
my $mock = start_mock('--lenient');
my $node = clerk_node('primary', $mock,
	init   => [ allows_streaming => 1, has_archiving => 1 ],
	server => { timeout => "${TIMEOUT}s" },
	conf   => <<'END');
shared_preload_libraries = 'pg_clerk'
restart_after_crash = on
fsync = off
pg_clerk.naptime = '1s'
END

# A query, as soon as the server is there.
sub query
{
	my ($of, $sql) = @_;
	my ($out, $err);

	wait_until(
		sub {
			my $status = $of->psql('postgres', $sql, stdout => \$out, stderr => \$err);
			die "error of \"$sql\": $err" if $status == 3 || $err =~ /ERROR/;
			return $status == 0;
		},
		'the server', 60);
	return $out;
}

sub reload
{
	my ($of, $settings) = @_;

	$of->append_conf('postgresql.conf', $settings);
	$of->reload;
	return;
}

sub worker
{
	my ($of) = @_;

	return wait_until(
		sub { query($of, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'}) },
		'a worker', 30);
}

sub no_worker
{
	my ($of) = @_;

	wait_until(
		sub { query($of, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) == 0 },
		'the worker to leave', 30);
	return;
}

# enqueue($of, OPERATION, KEY, name => ...)
sub enqueue
{
	my ($of, $operation, $key, %params) = @_;
	my $params = %params ? JSON::PP->new->canonical->encode(\%params) : undef;

	# not waiting for any standby
	return query($of, sprintf q{SET synchronous_commit = local; SELECT enqueue_enterprise_connection('%s', %s, %s)},
		$operation, map { defined $_ ? "'$_'" : 'NULL' } $params, $key);
}

sub states
{
	my ($of, @requests) = @_;

	return query($of, sprintf q{SELECT string_agg(state::text, ' ' ORDER BY id) FROM enterprise_connection_requests WHERE id IN (%s)}, join ', ', @requests);
}

sub are_delivered
{
	my ($of, $what, @requests) = @_;
	my $wanted = join ' ', ('delivered') x @requests;
	my $states = '';

	eval { wait_until(sub { ($states = states($of, @requests)) eq $wanted }, 'delivery', 60) };
	is($states, $wanted, $what)
	  or diag(query($of, q{SELECT jsonb_pretty(jsonb_agg(to_jsonb(q) - 'params')) FROM enterprise_connection_requests q WHERE state <> 'delivered'}));
	return;
}

sub sent
{
	my ($method, $contains) = @_;

	return grep { $_->{method} eq $method && (!defined $contains || index($_->{raw_body} // '', $contains) >= 0) } $mock->requests;
}

sub wait_for_sent
{
	my ($method, $contains) = @_;

	wait_until(sub { sent($method, $contains) > 0 }, "$method $contains", 30);
	return;
}

# The names of what is there, each as often as it is.
sub names
{
	return join ', ', sort map { $_->{name} } $mock->connections;
}

# ---------------------------------------------------------------------------
# Promoted without the last claims
# ---------------------------------------------------------------------------
my %saml = (provider => 'saml_okta');
my @before = map { enqueue($node, 'upsert', $_, name => "$_ 1", %saml) } 'changed', 'removed';

are_delivered($node, 'two are there', @before);
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# enqueued on both
reload($node, "pg_clerk.worker = off\n");
no_worker($node);
my %request = (
	key      => enqueue($node, 'upsert', 'key', name => 'key', %saml, domains => ['key.example']),
	free     => enqueue($node, 'create', undef, name => 'free', %saml),
	complete => enqueue($node, 'create', undef, name => 'complete', %saml, sync_user_attributes => JSON::PP::true),
	halfway  => enqueue($node, 'upsert', 'halfway', name => 'halfway', %saml, sync_user_attributes => JSON::PP::true),
	behind   => enqueue($node, 'update', 'key', disable_additional_identifications => JSON::PP::true),
	late     => enqueue($node, 'create', undef, name => 'late', %saml),
	unsent   => enqueue($node, 'upsert', 'unsent', name => 'unsent', %saml),
	changed  => enqueue($node, 'update', 'changed', name => 'changed 2'),
	removed  => enqueue($node, 'delete', 'removed'));
my @all = values %request;
query($node, q{SELECT pg_create_restore_point('before')});
my $segment = query($node, q{SELECT pg_walfile_name(pg_switch_wal())});
$node->wait_for_catchup($standby, 'replay', query($node, 'SELECT pg_current_wal_lsn()'));

# what is claimed now, the standby does not learn
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$standby->reload;
wait_until(sub { query($standby, 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 }, 'the end of streaming', 30);
$mock->script(
	{ match => { method => 'POST', body_contains => '"unsent"' }, status => 503, headers => { 'Retry-After' => '100' }, body => '' },
	# carried out when the primary is gone
	{ match => { method => 'POST', body_contains => '"late"' }, delay_ms => 2500 },
	{ match => { method => 'PATCH', body_contains => 'sync_user_attributes' }, skip => 1, hold => JSON::PP::true });
reload($node, "pg_clerk.worker = on\n");
are_delivered($node, 'the primary delivers some', @request{qw(key free behind changed removed)});
wait_for_sent('POST', '"unsent"');
wait_for_sent('POST', '"late"');
wait_until(sub { sent('PATCH', 'sync_user_attributes') == 2 }, 'both PATCHes', 30);
wait_until(sub { -e $node->archive_dir . "/$segment" }, 'archiving', 30);
is(query($standby, q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'queued' AND attempts = 0}), scalar @all,
	'of which the standby knows nothing');
is(query($standby, "SELECT await_enterprise_connection($before[0])->>'name'"), 'changed 1', 'one can await there what was delivered');
is(query($standby, "SELECT await_enterprise_connection($request{free}, '10 ms') IS NULL"), 't', 'and in vain what was not');
$node->stop('immediate');
$mock->unscript;

$standby->promote;
are_delivered($standby, 'promoted, the standby delivers all', @all);
my $there = 'changed 2, complete, free, halfway, key, late, unsent';
is(names(), $there, 'each is there once');
is(join(', ', map { scalar sent('POST', "\"$_\"") } qw(key free complete halfway late unsent)), '1, 1, 1, 1, 1, 2',
	'and was created once, the one that Clerk had refused for the second time');
is(scalar(grep { $_->{name} =~ /complete|halfway/ && !$_->{sync_user_attributes} } $mock->connections), 0, 'and is complete');
is(query($standby, q{SELECT count(*) FROM enterprise_connections}), scalar $mock->connections, 'and tracked');
is(query($standby, q{SELECT string_agg(key, ', ' ORDER BY key) FROM enterprise_connections WHERE key IS NOT NULL}), 'changed, halfway, key, unsent',
	'under its key');

# what is enqueued from now on is not looked up
$mock->forget;
are_delivered($standby, 'a new one', enqueue($standby, 'create', undef, name => 'new', %saml));
is(scalar sent('GET'), 0, 'is not looked up');
$standby->stop('immediate');

# ---------------------------------------------------------------------------
# Recovered to a point in time before the claims
# ---------------------------------------------------------------------------
my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', <<'END');
recovery_target_name = 'before'
recovery_target_action = 'promote'
recovery_target_timeline = 'current'
archive_mode = off
END
$mock->forget;
$recovered->start;
$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
are_delivered($recovered, 'recovered to a point in time, it delivers all again', @all);
is(names(), join(', ', sort 'new', split /, /, $there), 'each is still there once');
is(scalar sent('POST'), 0, 'none was created');
# one for all that are due; they come to be so within milliseconds
cmp_ok(scalar(grep { $_->{query} =~ /limit/ } sent('GET')), '<=', 3, 'a listing or a few for all')
  or diag(map { "$_->{target}\n" } sent('GET'));
is(query($recovered, q{SELECT count(*) FROM enterprise_connection_requests q LEFT JOIN enterprise_connections c ON c.id = q.connection_id
	WHERE q.operation <> 'delete' AND c.id IS NULL}), 1, 'and all are tracked, but the one that was deleted');
$recovered->stop('immediate');

# ---------------------------------------------------------------------------
# Killed between a commit and what it allows. The worker waits for a standby
# that never comes: then its commit is done, and it does not know that yet.
# ---------------------------------------------------------------------------
$node->start;
are_delivered($node, 'the old primary delivers the rest', @all);
my $probes = 0;

sub wait_in_commit
{
	my ($of) = @_;
	my $session = session($of);
	my $pid = $session->pid;

	reload($of, "synchronous_standby_names = 'nobody'\n");
	wait_until(
		sub {
			$session->send('CREATE TABLE probe_' . ++$probes . ' ()');
			return eval { $session->finish(1); 1 } ? 0 : in_commit($of, $pid);
		},
		'commits to wait', 30);
	$session->stop;
	return;
}

sub in_commit
{
	my ($of, $pid) = @_;

	return query($of, "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid") eq 't';
}

# The worker has written to the request, but nobody can see that yet.
sub is_written
{
	my ($of, $request) = @_;

	return query($of, qq{SET synchronous_commit = local;
		SELECT count(*) FROM (SELECT FROM enterprise_connection_requests WHERE id = $request FOR UPDATE SKIP LOCKED) q}) == 0;
}

# Killed when it is about to commit what it has written to the request. Until
# commits need no standby any more, no other worker sends anything: so there is
# time to look.
sub kill_in_commit
{
	my ($of, $request, $look) = @_;
	my $pid = worker($of);

	wait_until(sub { in_commit($of, $pid) && is_written($of, $request) }, 'the worker to commit', 30);
	kill_and_restart($of, $pid);
	$look->();
	reload($of, "synchronous_standby_names = ''\n");
	return;
}

worker($node);
$mock->forget;
wait_in_commit($node);
my $claimed = enqueue($node, 'create', undef, name => 'claimed', %saml);
kill_in_commit(
	$node, $claimed,
	sub {
		is(scalar sent('POST', 'claimed'), 0, 'killed after its claim, before it has sent it');
		like(states($node, $claimed), qr/^(?:sending|in_doubt)$/, 'the claim is known');
	});
are_delivered($node, 'it is delivered', $claimed);
is(scalar(sent('GET')), 1, 'looked up first');
is(scalar(grep { $_->{name} eq 'claimed' } $mock->connections), 1, 'it exists once');

$mock->forget;
$mock->script({ match => { method => 'POST', body_contains => 'created' }, hold => JSON::PP::true });
my $created = enqueue($node, 'create', undef, name => 'created', %saml, sync_user_attributes => JSON::PP::true);
wait_for_sent('POST', 'created');
wait_in_commit($node);
$mock->release;
kill_in_commit(
	$node, $created,
	sub {
		is(scalar sent('PATCH'), 0, 'killed when the connection is created, before it is completed');
		is(query($node, "SELECT step FROM enterprise_connection_requests WHERE id = $created"), 'complete', 'that is known');
	});
are_delivered($node, 'it is delivered', $created);
is(join(', ', map { $_->{method} } $mock->requests), 'POST, PATCH', 'by one POST and one PATCH');
is(scalar(grep { $_->{name} eq 'created' && $_->{sync_user_attributes} } $mock->connections), 1, 'it exists once, complete');

unlike(slurp_file($_->logfile), qr/TRAP:|PANIC:|was terminated by signal (?!9)/, 'nothing crashed: ' . $_->name)
  for $node, $standby, $recovered;

done_testing();
