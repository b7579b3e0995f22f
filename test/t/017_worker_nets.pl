# A worker that is disturbed: tables that are dropped, rebuilt or locked under
# its feet, rows that nobody can write, cancels, a server that hangs. Each costs
# a row or a step a delay; never the process, nor what others have enqueued.
#
# PG_CLERK_TEST_NUMBER says how often tables are dropped and rebuilt (3).

use strict;
use warnings;

use ClerkTest;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $number = $ENV{PG_CLERK_TEST_NUMBER} || 3;
my $mock   = start_mock('--lenient');
my $node   = clerk_node('nets', $mock, server => { timeout => '5s' }, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
pg_clerk.max_workers = 8
pg_clerk.naptime = '1s'
max_worker_processes = 20
max_connections = 50
deadlock_timeout = '200ms'
fsync = off
autovacuum = off
END
my $version = $node->safe_psql('postgres', q{SELECT current_setting('server_version_num')});

# ---------------------------------------------------------------------------
# Tools
# ---------------------------------------------------------------------------
sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database || 'postgres', $sql);
}

# The SQLSTATE of a statement: 00000 if it succeeds.
sub sqlstate
{
	my ($sql, $database, $user) = @_;
	my ($status, $out, $err) = $node->psql($database || 'postgres', "\\set VERBOSITY verbose\n$sql",
		extra_params => [ $user ? ('-U', $user) : () ]);

	return '00000' unless $err =~ /(?:ERROR|FATAL):  (\w{5}): /;
	note $err;
	return $1;
}

sub worker
{
	my ($database, $before) = @_;

	return wait_until(
		sub {
			my $pid = query(sprintf(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = '%s'}, $database || 'postgres'), 'template1');
			return $pid && $pid ne ($before || '') ? $pid : 0;
		},
		'a worker', 60);
}

sub upsert
{
	my ($key, %more) = @_;

	return sprintf q{SELECT enqueue_enterprise_connection('upsert', '{"name": "%s", "provider": "saml_okta"}', key => '%s', server => '%s')},
	  $more{name} || $key, $key, $more{server} || 'clerk';
}

# That many keys, PREFIX 1 and so on.
sub upserts
{
	my ($prefix, $count, $server, $schema) = @_;

	return sprintf q{SELECT count(%s.enqueue_enterprise_connection('upsert', jsonb_build_object('name', '%s ' || n, 'provider', 'saml_okta'), key => '%s ' || n, server => '%s')) FROM generate_series(1, %d) n},
	  $schema || 'public', $prefix, $prefix, $server || 'clerk', $count;
}

sub state_of
{
	my ($request) = @_;

	return query("SELECT state FROM enterprise_connection_requests WHERE id = $request");
}

sub is_delivered
{
	my ($request, $what, $seconds) = @_;

	ok(eval { wait_until(sub { state_of($request) eq 'delivered' }, 'delivery', $seconds || 30) }, "$what: delivered")
	  or diag query("SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE id = $request");
	return;
}

# All of a prefix are delivered; at Clerk each is there once.
sub all_delivered
{
	my ($prefix, $count, $what, $seconds) = @_;
	my %times;

	ok(eval { wait_until(sub { query("SELECT count(*) FROM enterprise_connection_requests WHERE key LIKE '$prefix %' AND state = 'delivered'") == $count }, 'delivery', $seconds || 120) },
		"$what: all are delivered")
	  or diag query("SELECT state, attempts, error ->> 'message', count(*) FROM enterprise_connection_requests WHERE key LIKE '$prefix %' GROUP BY 1, 2, 3");
	$times{ $_->{name} }++ for grep { $_->{name} =~ /^\Q$prefix\E \d+$/ } $mock->connections;
	is(scalar(keys %times), $count, "$what: all are at Clerk");
	is(join(', ', grep { $times{$_} > 1 } sort keys %times), '', "$what: none twice");
	return;
}

my $log_offset = 0;

# What the log has said since the last time about a worker that failed.
sub log_is_clean
{
	my ($what) = @_;
	my $log = substr slurp_file($node->logfile), $log_offset;
	my @bad = grep { /deadlock detected|pg_clerk worker.*(?:exit code [1-9]|terminated by signal)|TRAP:|PANIC:/ } split /\n/, $log;

	is(join("\n", @bad), '', "$what: no deadlock, no worker that ends with an error");
	$log_offset += length $log;
	return;
}

# The same worker as before has delivered something new.
sub same_worker
{
	my ($pid, $what) = @_;
	my $request = query(upsert("the next of $what"));

	is_delivered($request, "$what: the next request");
	is(worker(), $pid, "$what: by the same worker");
	return;
}

is_delivered(query(upsert('first')), 'the first');

# ---------------------------------------------------------------------------
# DROP and maintenance beside a busy worker
# ---------------------------------------------------------------------------
$mock->settings({ latency_ms => 5 });
query('CREATE DATABASE dropped');

sub drop_beside
{
	my ($schema, $drop) = @_;

	for my $n (1 .. $number)
	{
		my $before = $mock->stats->{requests};

		query("CREATE SCHEMA IF NOT EXISTS $schema; CREATE EXTENSION pg_clerk SCHEMA $schema", 'dropped');
		clerk_server($node, $mock, dbname => 'dropped');
		query(upserts("$schema $n", 200, 'clerk', $schema), 'dropped');
		wait_until(sub { $mock->stats->{requests} > $before + 5 + 10 * $n % 150 }, 'the worker to be busy', 60);
		is(sqlstate($drop, 'dropped'), '00000', "$drop ($n)");
		# if it failed, another way to get rid of it
		wait_until(sub { sqlstate('DROP EXTENSION IF EXISTS pg_clerk CASCADE', 'dropped') eq '00000' }, 'it to be gone', 60);
	}
	log_is_clean($drop);
	return;
}

drop_beside('public', 'DROP EXTENSION pg_clerk CASCADE');
drop_beside('of_its_own', 'DROP SCHEMA of_its_own CASCADE');

my @maintenance = (
	'REINDEX TABLE enterprise_connection_requests',
	'REINDEX TABLE enterprise_connections',
	'VACUUM FULL enterprise_connections',
	'VACUUM FULL enterprise_connection_requests',
	'ALTER TABLE enterprise_connection_requests ALTER COLUMN params SET STORAGE EXTENDED',
	'ALTER TABLE enterprise_connections ALTER COLUMN connection SET STORAGE EXTENDED',
	# whoever needs both takes both, in either order
	'BEGIN; LOCK TABLE enterprise_connections; LOCK TABLE enterprise_connection_requests; COMMIT',
	'BEGIN; LOCK TABLE enterprise_connection_requests; LOCK TABLE enterprise_connections; COMMIT');
for my $n (1 .. $number)
{
	my %failed;
	my $prefix = "maintained $n";

	query(upserts($prefix, 300));
	wait_until(sub { query("SELECT count(*) FROM enterprise_connection_requests WHERE key LIKE '$prefix %' AND state = 'delivered'") > 5 }, 'the worker to be busy', 60);
	for (1 .. 3)
	{
		for my $sql (@maintenance)
		{
			my $sqlstate = sqlstate($sql);

			$failed{"$sql: $sqlstate"} = 1 if $sqlstate ne '00000';
		}
	}
	is(join("\n", sort keys %failed), '', "maintenance beside the worker ($n)");
	all_delivered($prefix, 300, "maintenance ($n)");
}
log_is_clean('maintenance');
$mock->settings({ latency_ms => 0 });

# ---------------------------------------------------------------------------
# A row that cannot be claimed, written, or deleted: a superuser's trigger
# ---------------------------------------------------------------------------
query(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no, says the trigger'; END $$});
my @triggers = (
	[ 'a row that cannot be claimed', 'BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW WHEN (OLD.key = $$poison$$)' ],
	[ 'a row whose outcome cannot be written', 'BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW WHEN (OLD.key = $$poison$$ AND NEW.finished_at IS NOT NULL)' ],
	[ 'an error after the row', 'AFTER UPDATE ON enterprise_connection_requests FOR EACH ROW WHEN (OLD.key = $$poison$$)' ],
	[ 'an error at COMMIT', 'AFTER UPDATE ON enterprise_connection_requests DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.key = $$poison$$)', 'CONSTRAINT' ],
	[ 'a connection that cannot be tracked', 'BEFORE INSERT OR UPDATE ON enterprise_connections FOR EACH ROW WHEN (NEW.key = $$poison$$)' ],
	[ 'one that cannot be tracked, at COMMIT', 'AFTER INSERT OR UPDATE ON enterprise_connections DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.key = $$poison$$)', 'CONSTRAINT' ],
	[ 'a connection that cannot be forgotten', 'BEFORE DELETE ON enterprise_connections FOR EACH ROW WHEN (OLD.key = $$poison$$)', '', 'delete' ],
);
for (@triggers)
{
	my ($what, $when, $kind, $operation) = @$_;
	my $pid = worker();
	my ($poison, @innocent);

	is_delivered(query(upsert('poison')), "$what: before") if $operation;
	query(sprintf 'CREATE %s TRIGGER refuse %s EXECUTE FUNCTION refuse()', $kind || '', $when);
	($poison, @innocent) = split /\n/, query(join ';', ($operation ? q{SELECT enqueue_enterprise_connection('delete', key => 'poison')} : upsert('poison')),
		map { upsert("innocent $_") } 1 .. 5);
	push @innocent, query(upsert('innocent later'));
	is_delivered($_, "$what: an innocent one", 30) for @innocent[ 0, 4, 5 ];
	same_worker($pid, $what);
	log_is_clean($what);
	query('DROP TRIGGER refuse ON ' . ($when =~ /ON (\w+)/)[0]);
	ok(eval { wait_until(sub { query("SELECT finished_at IS NOT NULL FROM enterprise_connection_requests WHERE id = $poison") eq 't' }, 'the end', 60) },
		"$what: without the trigger it comes to an end")
	  or diag query("SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE id = $poison");
	query(q{DELETE FROM enterprise_connection_requests WHERE key = 'poison'; DELETE FROM enterprise_connections WHERE key = 'poison'});
}

# One that cannot be purged, and others that can
{
	my $pid = worker();

	query(upserts('purged', 20));
	all_delivered('purged', 20, 'before the purge');
	query(q{CREATE TRIGGER refuse BEFORE DELETE ON enterprise_connection_requests FOR EACH ROW WHEN (OLD.key = 'purged 1') EXECUTE FUNCTION refuse();
		UPDATE enterprise_connection_requests SET finished_at = finished_at - interval '1 year' WHERE key LIKE 'purged %'});
	my $left = q{SELECT count(*) FROM enterprise_connection_requests WHERE key LIKE 'purged %'};
	ok(eval { wait_until(sub { query($left) == 1 }, 'the purge', 60) }, 'a row that cannot be purged: the others are') or diag query($left);
	same_worker($pid, 'a row that cannot be purged');
	query('DROP TRIGGER refuse ON enterprise_connection_requests');
	ok(eval { wait_until(sub { query($left) == 0 }, 'the purge', 60) }, 'then it is, too');
	log_is_clean('a row that cannot be purged');
}

# ---------------------------------------------------------------------------
# Notifications: the longest ids and keys, and a full queue
# ---------------------------------------------------------------------------
{
	my $pid     = worker();
	my $session = session($node);
	my $text    = '';

	for my $sql (
		q{enqueue_enterprise_connection('delete', id => repeat('x', 256))},
		q{enqueue_enterprise_connection('delete', id => repeat('ä', 128))},
		q{enqueue_enterprise_connection('delete', key => repeat('x', 256))},
		q{enqueue_enterprise_connection('update', '{"name": "x"}', id => repeat('x', 8000))},
		q{enqueue_enterprise_connection('upsert', '{"name": "x"}', key => repeat('x', 8000))},
		q{upsert_enterprise_connection(repeat('x', 256), '{"name": "x"}')},
		q{adopt_enterprise_connection(repeat('x', 256), 'x')},
		q{get_enterprise_connection(repeat('x', 256))})
	{
		is(sqlstate("SELECT $sql"), '22023', "too long: $sql: 22023");
	}
	$session->query('LISTEN pg_clerk');
	my @longest = split /\n/, query(q{
		SELECT enqueue_enterprise_connection('upsert', '{"name": "long"}', key => repeat('x', 255));
		SELECT enqueue_enterprise_connection('upsert', '{"name": "quotes"}', key => repeat('"', 255));
		SELECT enqueue_enterprise_connection('upsert', '{"name": "controls"}', key => repeat(chr(1), 255));
		SELECT enqueue_enterprise_connection('delete', id => repeat('x', 255));
		SELECT enqueue_enterprise_connection('delete', id => repeat('"', 255))});
	is_delivered($_, 'the longest keys and ids') for @longest;
	my @told;
	eval {
		wait_until(
			sub {
				$text .= $session->query('SELECT 1');
				@told = grep { $text =~ /"request": ?$_\b/ } @longest;
				return @told == @longest;
			},
			'notifications', 30);
	};
	is("@told", "@longest", 'all of them are told');
	$session->stop;

	# an id of Clerk's that is too long for a notification, or for an index
	for my $length (1000, 8000, 100_000)
	{
		my $name = "too long $length";

		$mock->script({ match => { method => 'POST', body_contains => "\"$name\"" }, status => 201, headers => { 'Content-Type' => 'application/json' },
				body => { object => 'enterprise_connection', id => 'x' x $length, name => $name, provider => 'saml_okta', active => \0,
					domains => [], created_at => 1780000000000, updated_at => 1780000000000 } });
		my $request = query(upsert($name));
		wait_until(sub { query("SELECT finished_at IS NOT NULL OR state = 'in_doubt' OR error IS NOT NULL FROM enterprise_connection_requests WHERE id = $request") eq 't' }, 'its answer', 60);
		same_worker($pid, "an id of $length bytes");
		query("DELETE FROM enterprise_connection_requests WHERE id = $request");
	}
	log_is_clean('long ids');
}

SKIP:
{
	# Before PostgreSQL 17 the queue has 8 GB.
	skip 'the notification queue cannot be made small enough to fill it', 4 if $version < 170000;
	$node->append_conf('postgresql.conf', "max_notify_queue_pages = 64\n");
	$node->restart;
	$log_offset = -s $node->logfile;
	my $pid     = worker();
	my $session = session($node);

	$session->query('LISTEN other');
	$session->query('BEGIN');
	$session->query('SELECT 1');
	wait_until(sub { sqlstate(q{SELECT count(pg_notify('other', repeat('x', 7900) || n)) FROM generate_series(1, 100) n}) ne '00000' }, 'the queue to be full', 60);
	my $request = query(upsert('while the queue is full'));
	is_delivered($request, 'a full notification queue');
	same_worker($pid, 'a full notification queue');
	log_is_clean('a full notification queue');
	$session->stop;
}

# ---------------------------------------------------------------------------
# Rows that somebody has locked delay themselves alone
# ---------------------------------------------------------------------------
{
	my $pid = worker();
	my $session = session($node);
	my ($victim, $start);

	clerk_server($node, $mock, name => 'locked', server => { timeout => '5s', max_concurrency => 300 });
	query(upserts('locked', 200, 'locked'));
	all_delivered('locked', 200, 'before the lock');
	$session->query('BEGIN');
	is($session->query(q{SELECT count(*) FROM (SELECT FROM enterprise_connections WHERE server = 'locked' FOR UPDATE) x}), 200, 'locked: the tracking rows');
	query(upserts('locked', 200, 'locked'));
	for (1 .. 3)
	{
		$start = time;
		$victim = query(upsert("victim $_"));
		is_delivered($victim, 'locked tracking rows: a request of another server', 30);
		cmp_ok(time - $start, '<', 8, sprintf 'at once: %.2f s', time - $start);
	}
	$session->query('ROLLBACK');
	ok(eval { wait_until(sub { query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server = 'locked' AND state = 'delivered'}) == 400 }, 'delivery', 60) },
		'then the locked ones are delivered, too')
	  or diag query(q{SELECT state, count(*) FROM enterprise_connection_requests WHERE server = 'locked' GROUP BY 1});

	# request rows, of the same server as well
	$mock->script({ match => { method => 'POST', body_contains => '"blocker"' }, real => \1, apply => \1, hold => \1 });
	query(q{ALTER SERVER locked OPTIONS (SET max_concurrency '1')});
	query(upsert('blocker', server => 'locked'));
	wait_until(sub { $mock->stats->{in_flight} > 0 }, 'it to be on its way', 30);
	query(upserts('queued', 100, 'locked'));
	$session->query('BEGIN');
	is($session->query(q{SELECT count(*) FROM (SELECT FROM enterprise_connection_requests WHERE key LIKE 'queued %' FOR UPDATE) x}), 100, 'locked: the requests');
	$mock->release;
	$start = time;
	is_delivered(query(upsert('victim of locked requests')), 'locked requests: one of another server', 30);
	is_delivered(query(upsert('another of the locked', server => 'locked')), 'locked requests: another one of the server', 30);
	$session->query('ROLLBACK');
	all_delivered('queued', 100, 'then the locked ones');
	is(worker(), $pid, 'locked rows: the worker goes on');
	$session->stop;
	log_is_clean('locked rows');
}

# ---------------------------------------------------------------------------
# Cancelled in the midst of it
# ---------------------------------------------------------------------------
{
	my $cancels = 0;

	$mock->settings({ latency_ms => 5 });
	query(upserts('cancelled', 400));
	eval {
		wait_until(
			sub {
				$cancels += query(q{SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'});
				return query(q{SELECT count(*) FROM enterprise_connection_requests WHERE key LIKE 'cancelled %' AND state <> 'delivered'}) == 0 || $cancels > 150;
			},
			'delivery', 60);
	};
	note "$cancels cancels";
	cmp_ok($cancels, '>', 0, 'it was cancelled');
	all_delivered('cancelled', 400, 'cancelled');
	is_delivered(query(upsert('after the cancels')), 'cancelled: the next');
	$mock->settings({ latency_ms => 0 });
	$log_offset = -s $node->logfile;
}

# ---------------------------------------------------------------------------
# A server that hangs takes no more than its share
# ---------------------------------------------------------------------------
my $hanging = hanging_server();

# A port that accepts, and says nothing; for as long as the test.
sub hanging_server
{
	my $socket = IO::Socket::INET->new(Listen => 1000, LocalAddr => '127.0.0.1', LocalPort => 0) or die "could not listen: $@";
	my $parent = $$;
	my $pid    = fork;

	die "could not fork: $!" unless defined $pid;
	# what the test does at its end is not for this process
	$SIG{$_} = 'DEFAULT' for $pid ? () : qw(INT TERM);
	return { pid => $pid, url => 'http://127.0.0.1:' . $socket->sockport } if $pid;
	my @held;
	my $end = time + 300;
	while (getppid == $parent && time < $end)
	{
		push @held, scalar $socket->accept if IO::Select->new($socket)->can_read(1);
		shift @held if @held > 900;
	}
	POSIX::_exit(0);
}

sub beside_hanging
{
	my ($what, @servers) = @_;
	my $database = "hanging_" . @servers;

	query("CREATE DATABASE $database");
	query('CREATE EXTENSION pg_clerk', $database);
	clerk_server($node, $mock, dbname => $database);
	for (@servers)
	{
		my ($name, $count, %options) = @$_;

		clerk_server($node, $mock, dbname => $database, name => $name, server => { api_url => $hanging->{url}, timeout => '60s', %options });
		query("SELECT count(enqueue_enterprise_connection('delete', id => 'h' || n, server => '$name')) FROM generate_series(1, $count) n", $database);
	}
	# as many as get a place are on their way
	my $before = -1;
	wait_until(
		sub {
			my $now = query(q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'sending'}, $database);
			my $same = $now == $before && $now > 0;
			$before = $now;
			sleep 0.5 unless $same;
			return $same;
		},
		'them to be on their way', 60);
	note "$before on their way";
	for (1 .. 3)
	{
		my $start   = time;
		my $request = query(upsert("$database victim $_"), $database);

		ok(eval { wait_until(sub { query("SELECT state FROM enterprise_connection_requests WHERE id = $request", $database) eq 'delivered' }, 'delivery', 20) }, "$what: a request of a good server is delivered")
		  or diag query("SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE id = $request", $database);
		is(query("SELECT attempts FROM enterprise_connection_requests WHERE id = $request", $database), 1, "$what: with one attempt");
		cmp_ok(time - $start, '<', 15, sprintf '%s: at once (%.2f s)', $what, time - $start);
	}
	is(query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server <> 'clerk' AND (attempts > 1 OR error IS NOT NULL)}, $database), 0, "$what: no place is no attempt");
	query("DROP DATABASE $database WITH (FORCE)");
	return;
}

beside_hanging('one that hangs', [ 'hang', 700, max_concurrency => 500 ]);
beside_hanging('twelve that hang', map { [ "hang$_", 40 ] } 1 .. 12);
kill 'TERM', $hanging->{pid};
waitpid $hanging->{pid}, 0;
log_is_clean('servers that hang');

# ---------------------------------------------------------------------------
# CREATE, ALTER and DROP DATABASE: the worker leaves for who may do it
# ---------------------------------------------------------------------------
{
	my $pid = worker();
	my %right = (
		'CREATE DATABASE copied TEMPLATE postgres' => 'may_create',
		'ALTER DATABASE postgres RENAME TO renamed' => 'may_create',
		'DROP DATABASE postgres' => 'may_create',
		'ALTER DATABASE postgres SET TABLESPACE pg_default' => 'may_create');

	query('CREATE ROLE may_create LOGIN CREATEDB; CREATE ROLE may_nothing LOGIN; CREATE ROLE owns LOGIN; CREATE ROLE owns_and_creates LOGIN CREATEDB');
	query('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	for my $role ('may_create', 'may_nothing')
	{
		for my $sql (sort keys %right)
		{
			is(sqlstate($sql, 'template1', $role), '42501', "$sql by $role: refused");
			same_worker($pid, "$sql by $role");
		}
	}

	# the owner may not create databases, so nor copy one
	query('CREATE DATABASE owned OWNER owns');
	query('CREATE EXTENSION pg_clerk', 'owned');
	clerk_server($node, $mock, dbname => 'owned');
	$pid = worker('owned');
	is(sqlstate('CREATE DATABASE copied TEMPLATE owned', 'template1', 'owns'), '42501', 'CREATE DATABASE by an owner without CREATEDB: refused');
	my $request = query(upsert('owned'), 'owned');
	wait_until(sub { query("SELECT state FROM enterprise_connection_requests WHERE id = $request", 'owned') eq 'delivered' }, 'delivery', 60);
	is(worker('owned'), $pid, 'and the worker is the same');

	# who may, need not wait; and the worker comes back
	query('ALTER DATABASE owned OWNER TO owns_and_creates');
	is(sqlstate('CREATE DATABASE copied TEMPLATE owned', 'template1', 'owns_and_creates'), '00000', 'CREATE DATABASE by who may: done');
	ok(worker('owned'), 'the worker comes back');
	query('ALTER DATABASE owned IS_TEMPLATE true', 'template1');
	is(sqlstate('CREATE DATABASE copied_too TEMPLATE owned', 'template1', 'may_create'), '00000', 'CREATE DATABASE from a template, which all may copy: done');
	$request = query(upsert('owned once more'), 'owned');
	ok(eval { wait_until(sub { query("SELECT state FROM enterprise_connection_requests WHERE id = $request", 'owned') eq 'delivered' }, 'delivery', 60) }, 'the worker comes back, and delivers');
	log_is_clean('CREATE DATABASE');
}

unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');
done_testing();
