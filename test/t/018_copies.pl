# Copies of a database that has a queue: however a copy was made, it sends
# nothing until the server's owner arms it; then every create that the original
# may have sent is looked up, so that nothing is made twice, and nothing ends in
# "failed" that exists.
#
# The original, meanwhile, delivers all that is in the copy. Twice: with a Clerk
# that refuses nothing (lenient: a second create makes a second connection) and
# CALL deliver_enterprise_connections(), and with one that refuses a domain that
# is taken (strict: a second create fails) and the worker.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock();
my $node = clerk_node('copies', $mock, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
pg_clerk.worker = off
pg_clerk.max_workers = 10
pg_clerk.naptime = '1s'
max_worker_processes = 20
fsync = off
autovacuum = off
END
my $dir     = PostgreSQL::Test::Utils::tempdir('dumps');
my $dumps   = 0;
my $by_worker;

# A query's output; an error of it ends the test.
sub query
{
	my ($database, $sql) = @_;

	return $node->safe_psql($database, $sql);
}

# The messages of statements that may fail.
sub messages
{
	my ($database, $sql) = @_;
	my ($status, $out, $err) = $node->psql($database, "\\set VERBOSITY verbose\n$sql");

	return $err;
}

sub sent
{
	return $mock->stats->{requests};
}

sub worker
{
	my ($database) = @_;

	return query('template1', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = '$database'");
}

sub set_worker
{
	my ($on) = @_;

	$node->append_conf('postgresql.conf', "pg_clerk.worker = $on\n");
	$node->reload;
	wait_until(sub { query('template1', 'SHOW pg_clerk.worker') eq $on && ($on eq 'on' || !worker('original')) }, "worker $on", 60);
	return;
}

# By the worker, or by this.
sub deliver
{
	my ($database) = @_;

	query($database, 'CALL deliver_enterprise_connections()') unless $by_worker;
	return;
}

sub unfinished
{
	my ($database) = @_;

	return query($database, 'SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL');
}

sub deliver_all
{
	my ($database, $what) = @_;
	my $done = eval { wait_until(sub { deliver($database); unfinished($database) == 0 }, 'delivery', 120) };

	ok($done, "$what: all is delivered, or has ended")
	  or diag query($database, 'SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE finished_at IS NULL');
	return;
}

# Requests of all kinds: domains for the strict Clerk, none for the lenient one.
sub params
{
	my ($name, $lenient) = @_;

	return sprintf q{'{"name": "%s"%s}'}, $name,
	  $lenient ? '' : sprintf q{, "provider": "saml_okta", "domains": ["%s.example"]}, lc($name) =~ s/\W/-/gr;
}

sub fill_queue
{
	my ($lenient) = @_;
	my @sql = map { sprintf q{SELECT enqueue_enterprise_connection('create', %s)}, params("Free $_", $lenient) } 1 .. 4;

	push @sql, map { sprintf q{SELECT enqueue_enterprise_connection('upsert', %s, key => 'keyed:%d')}, params("Keyed $_", $lenient), $_ } 1 .. 3;
	push @sql, q{SELECT enqueue_enterprise_connection('update', '{"name": "First again"}', key => 'first')};
	push @sql, q{SELECT enqueue_enterprise_connection('delete', key => 'second')};
	push @sql, q{INSERT INTO organizations SELECT n, 'Organization ' || n FROM generate_series(1, 3) n};
	query('original', join ';', @sql);
	return;
}

# A database with an armed server, a table that enqueues by a trigger of its
# own, and a queue that nobody has delivered yet.
sub make_original
{
	my ($lenient) = @_;

	$mock->reset({ profile => $lenient ? 'lenient' : 'strict' });
	query('postgres', 'DROP DATABASE IF EXISTS original WITH (FORCE)');
	query('postgres', 'CREATE DATABASE original');
	query('original', 'CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, dbname => 'original', server => { timeout => '3s', max_concurrency => 1 });
	query('original', sprintf q{
		SELECT upsert_enterprise_connection('first', %s);
		SELECT upsert_enterprise_connection('second', %s);
		CREATE TABLE organizations (id int PRIMARY KEY, name text);
		CREATE FUNCTION enqueue() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN
			PERFORM enqueue_enterprise_connection('upsert', jsonb_build_object('name', NEW.name)
				|| CASE WHEN %s THEN '{}' ELSE jsonb_build_object('provider', 'saml_okta', 'domains', ARRAY['organization-' || NEW.id || '.example']) END,
				key => 'organization:' || NEW.id);
			RETURN NULL; END $$;
		CREATE TRIGGER enqueue AFTER INSERT OR UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION enqueue()},
		params('First', $lenient), params('Second', $lenient), $lenient ? 'true' : 'false');
	return;
}

# With $flying, one more create is on its way to Clerk while the copy is made.
sub with_queue
{
	my ($lenient, $flying, $copy) = @_;
	my $session;

	if ($flying)
	{
		query('original', sprintf q{SELECT enqueue_enterprise_connection('create', %s)}, params('Flying', $lenient));
		$mock->script({ match => { method => 'POST', body_contains => 'Flying' }, apply => \1, real => \1, hold => \1 });
		$session = session($node, dbname => 'original');
		$session->send('CALL deliver_enterprise_connections()');
		wait_until(sub { $mock->stats->{in_flight} > 0 }, 'it to be on its way', 60);
	}
	fill_queue($lenient);
	$copy->();
	if ($flying)
	{
		$mock->release;
		$session->finish(120);
		$session->stop;
	}
	return;
}

sub dump_of
{
	my ($database, @options) = @_;
	my $file = sprintf '%s/%d', $dir, ++$dumps;

	$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, @options, $node->connstr($database) ], "pg_dump @options");
	return $file;
}

sub restore
{
	my ($database, $file, @options) = @_;

	$node->command_ok([ 'pg_restore', '-d', $node->connstr($database), @options, $file ], "pg_restore @options");
	return;
}

sub create_database
{
	my ($database) = @_;

	query('postgres', "DROP DATABASE IF EXISTS $database WITH (FORCE)");
	query('postgres', "CREATE DATABASE $database");
	return;
}

# ---------------------------------------------------------------------------
# A copy is silent, and says why
# ---------------------------------------------------------------------------
my @calls = (
	q{create_enterprise_connection('{"name": "From the copy", "provider": "saml_okta", "domains": ["copy.example"]}')},
	q{upsert_enterprise_connection('first', '{"name": "From the copy"}')},
	q{upsert_enterprise_connection('new in the copy', '{"name": "From the copy", "provider": "saml_okta", "domains": ["copy.example"]}')},
	q{update_enterprise_connection('entconn_000001', '{"name": "From the copy"}')},
	q{delete_enterprise_connection('entconn_000001')},
	q{get_enterprise_connection('entconn_000001')},
	q{list_enterprise_connections()},
	q{mirror_enterprise_connections()},
	q{adopt_enterprise_connection('adopted', 'entconn_000001')},
	q{create_enterprise_connection_test_run('entconn_000001')},
	q{list_enterprise_connection_test_runs('entconn_000001')},
	q{create_enterprise_connections(ARRAY['{"name": "From the copy"}']::jsonb[])},
);

sub is_silent
{
	my ($database, $what, $rows) = @_;
	my $before = sent();
	my $late   = q{SELECT enqueue_enterprise_connection('upsert', '{"name": "Late", "provider": "saml_okta", "domains": ["late.example"]}', key => 'late')};
	my $err;

	for my $call (@calls)
	{
		my ($function) = $call =~ /^(\w+)/;

		$err = messages($database, "SELECT $call");
		like($err, qr/ERROR:  55000:/, "$what: $function: 55000");
	}
	like($err, qr/HINT:.*arm_enterprise_connections\('clerk'\)/, "$what: the hint says what to do");
	$err = messages($database, $late);
	unlike($err, qr/ERROR:/, "$what: enqueueing works");
	like($err, qr/WARNING:/, "$what: and warns");

	# A worker, if it has one, has had its turn when others of this server have.
	if ($by_worker)
	{
		eval { wait_until(sub { worker($database) }, 'a worker', 5) };
		query($database, q{SELECT enqueue_enterprise_connection('delete', key => 'nothing')});
	}
	query($database, 'CALL deliver_enterprise_connections()') for 1 .. 2;
	is(query($database, 'SELECT string_agg(DISTINCT state::text, $$,$$) FROM enterprise_connection_queue q WHERE EXISTS
		(SELECT FROM enterprise_connection_requests r WHERE r.finished_at IS NULL AND q.server = r.server) AND state::text NOT IN ($$delivered$$, $$superseded$$, $$cancelled$$)'),
		'held', "$what: the queue is shown as held");
	is(query($database, q{SELECT state FROM enterprise_connection_status WHERE key = 'late'}), 'held', "$what: so is each request");
	cmp_ok(unfinished($database), '>=', $rows, "$what: the queue is there, and as long as it was");
	is(sent(), $before, "$what: nothing was sent") or diag join "\n", map { "$_->{method} $_->{target}" } splice @{ [ $mock->requests ] }, $before;
	return;
}

# ---------------------------------------------------------------------------
# Armed, it goes on where the original has got to
# ---------------------------------------------------------------------------
sub is_right_when_armed
{
	my ($database, $what, $lenient, $has_rows) = @_;
	my (%times, @twice);

	query($database, q{SELECT arm_enterprise_connections('clerk')});
	deliver_all($database, $what);
	$times{ $_->{name} }++ for $mock->connections;
	@twice = grep { $times{$_} > 1 } sort keys %times;
	is("@twice", '', "$what: nothing is made twice");
	is(query($database, q{SELECT string_agg(id || ' ' || operation || ' ' || coalesce(key, '') || ': ' || (error ->> 'message'), ', ') FROM enterprise_connection_requests WHERE state = 'failed'}),
		'', "$what: nothing has failed");
	is($times{Late}, 1, "$what: what was enqueued in the copy is there");
	is(query($database, q{SELECT state FROM enterprise_connection_status WHERE key = 'late'}), 'delivered', "$what: and is known to be");
	if ($has_rows)
	{
		my @missing = grep { !$times{$_} } map({ "Free $_" } 1 .. 4), map({ "Keyed $_" } 1 .. 3), map({ "Organization $_" } 1 .. 3), 'First again';

		is("@missing", '', "$what: nothing is missing");
		is(query($database, q{SELECT count(*) FROM enterprise_connections WHERE key LIKE 'keyed:%' OR key LIKE 'organization:%'}), 6, "$what: the keys have their connections");
		is(query($database, q{SELECT count(*) - count(DISTINCT id) FROM enterprise_connections}), 0, "$what: each its own");
	}
	like(query($database, sprintf q{SELECT create_enterprise_connection(%s)}, params('Direct', $lenient)), qr/"id"/, "$what: direct calls work");
	return;
}

# ---------------------------------------------------------------------------
# Ways to make a copy: after each, database "copy" (or the original) is one
# ---------------------------------------------------------------------------
my @ways = (
	{ name => 'full dump', flying => 1, rows => 10, make => sub { my $file = dump_of('original'); return sub { create_database('copy'); restore('copy', $file) } } },
	{ name => 'schema only', rows => 1, make => sub { my $file = dump_of('original', '-s'); return sub { create_database('copy'); restore('copy', $file) } } },
	{ name => 'without the data of the extension', rows => 1,
		make => sub { my $file = dump_of('original', map { "--exclude-table-data=$_" } 'enterprise_connection*', 'organizations');
			return sub { create_database('copy'); restore('copy', $file) } } },
	{ name => 'schema, then data', flying => 1, rows => 10,
		make => sub { my $file = dump_of('original');
			return sub { create_database('copy'); restore('copy', $file, '-s'); restore('copy', $file, '-a', '--disable-triggers') } } },
	{ name => 'over the same database', rows => 10, into => 'original',
		make => sub { my $file = dump_of('original'); return sub { restore('original', $file, '--clean', '--if-exists') } } },
	{ name => 'template copy', rows => 10,
		make => sub { query('postgres', 'DROP DATABASE IF EXISTS copy WITH (FORCE)'); query('postgres', 'CREATE DATABASE copy TEMPLATE original'); return sub { } } },
);

for my $lenient (1, 0)
{
	$by_worker = !$lenient;
	for my $way (@ways)
	{
		my $what     = "$way->{name} (" . ($lenient ? 'lenient' : 'strict') . ')';
		my $database = $way->{into} || 'copy';
		my $restore;

		set_worker('off');
		make_original($lenient);
		with_queue($lenient, $way->{flying}, sub { $restore = $way->{make}->() });
		set_worker('on') if $by_worker;
		deliver_all('original', "$what: the original");
		is(query('original', q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'failed'}), 0, "$what: the original: nothing has failed");
		$restore->();
		is_silent($database, $what, $way->{rows});
		is_right_when_armed($database, $what, $lenient, $way->{rows} > 1);
	}
}

# ---------------------------------------------------------------------------
# Armed while a transaction that has enqueued is open: it can't be stuck, nor
# come after what was enqueued later
# ---------------------------------------------------------------------------
create_database('copy');
make_original(0);
restore('copy', dump_of('original'));
my $session = session($node, dbname => 'copy');
$session->query('BEGIN');
$session->query(q{SELECT enqueue_enterprise_connection('upsert', '{"name": "Before", "provider": "saml_okta", "domains": ["between.example"]}', key => 'between')});
query('copy', q{SELECT arm_enterprise_connections('clerk')});
$session->query('COMMIT');
ok(eval { wait_until(sub { unfinished('copy') == 0 }, 'delivery', 30) }, 'enqueued before, committed after arming: delivered')
  or diag query('copy', 'SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE finished_at IS NULL');
$session->query(q{SELECT enqueue_enterprise_connection('upsert', '{"name": "After"}', key => 'between')});
ok(eval { wait_until(sub { unfinished('copy') == 0 }, 'delivery', 30) }, 'what comes next is delivered, too');
query('copy', q{SELECT arm_enterprise_connections('clerk')});
ok(eval { wait_until(sub { unfinished('copy') == 0 }, 'delivery', 30) }, 'armed once more: all is delivered');
is(query('copy', q{SELECT name FROM enterprise_connections WHERE key = 'between'}), 'After', 'and the newest counts');
is(join(', ', map { $_->{name} } grep { grep { $_ eq 'between.example' } @{ $_->{domains} } } $mock->connections), 'After', 'at Clerk as well');
$session->stop;

unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal|deadlock detected/, 'nothing crashed');
done_testing();
