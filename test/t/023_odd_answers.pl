# A server whose answers are odd: the worker lives, waits without being busy,
# and goes on with the requests of other servers.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock('--lenient');
my $node = clerk_node('odd', $mock, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
pg_clerk.max_workers = 4
pg_clerk.naptime = '1s'
fsync = off
autovacuum = off
END

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub worker
{
	return wait_until(sub { query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'}) }, 'a worker', 60);
}

sub create
{
	my ($name, $server) = @_;

	return query(sprintf q{SELECT enqueue_enterprise_connection('create', '{"name": "%s", "provider": "saml_okta", "domains": ["%s.example"]}', server => '%s')},
		$name, $name, $server || 'clerk');
}

sub wait_for
{
	my ($request, $condition, $what) = @_;

	return ok(eval { wait_until(sub { query("SELECT $condition FROM enterprise_connection_requests WHERE id = $request") eq 't' }, $what, 180) }, $what)
	  || diag query("SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE id = $request");
}

# An odd server: what the code returns for a request (method, path, body) is
# sent, and the connection goes on.
sub odd_server
{
	my ($code) = @_;

	return start_server(
		sub {
			my ($socket) = @_;
			my $buffer = '';

			$SIG{PIPE} = 'IGNORE';
			for (;;)
			{
				while ($buffer !~ /\r\n\r\n/)
				{
					sysread($socket, $buffer, 65536, length $buffer) or return;
				}
				my ($head) = $buffer =~ /^(.*?\r\n\r\n)/s;
				my $length = $head =~ /^content-length: (\d+)/mi ? $1 : 0;
				while (length($buffer) < length($head) + $length)
				{
					sysread($socket, $buffer, 65536, length $buffer) or return;
				}
				my ($method, $path) = $head =~ /^(\S+) (\S+)/;
				my ($status, $answer) = $code->($method, $path, substr($buffer, length $head, $length));
				$buffer = substr $buffer, length($head) + $length;
				my $text = sprintf "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", $status, length $answer, $answer;
				while (length $text)
				{
					my $sent = syswrite($socket, $text, 65536) or return;
					substr($text, 0, $sent) = '';
				}
			}
		});
}

sub connection
{
	my ($id) = @_;

	return sprintf '{"object": "enterprise_connection", "id": "%s", "name": "N", "provider": "saml_okta", "domains": ["a.example"], "active": false, "created_at": %d, "updated_at": %d}',
	  $id, (time * 1000) x 2;
}

my $worker = worker();

# ---------------------------------------------------------------------------
# An id that no request can name
# ---------------------------------------------------------------------------
for my $id ('.', '..')
{
	my $name   = 'dots' . length $id;
	my $server = odd_server(
		sub {
			my ($method, $path) = @_;

			return (201, connection($id)) if $method eq 'POST';
			return (200, sprintf '{"data": [%s, %s], "total_count": 2}', connection($id), connection('fine')) if $path =~ /\?/;
			return (200, connection($id));
		});
	clerk_server($node, $server, name => $name, server => { timeout => '1s' });
	for (
		[ "create_enterprise_connection('{\"name\": \"N\", \"provider\": \"saml_okta\"}', server => '$name')", 'KC007' ],
		[ "get_enterprise_connection('fine', '$name')", 'KC008' ])
	{
		my ($call, $right) = @$_;
		my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");

		like($err, qr/ERROR:  $right: /, "id $id: $call: $right");
		like($err, qr/has an id that no request can name/, 'and says why');
	}
	is(query("SELECT string_agg(c->>'id', ' ') FROM list_enterprise_connections(server => '$name') c"), 'fine', "id $id: a listing has the others");
	is(query("SELECT count(*) FROM mirror_enterprise_connections('$name')"), 1, "id $id: a mirror, too");

	# a PATCH would follow the create
	my $request = query("SELECT enqueue_enterprise_connection('upsert', '{\"name\": \"N\", \"provider\": \"saml_okta\", \"domains\": [\"$name.example\"], \"sync_user_attributes\": true}', key => '$name', server => '$name')");
	wait_for($request, q{state = 'in_doubt' OR attempts > 1}, "id $id: the outcome of a create is not known");
	is(worker(), $worker, "id $id: the worker lives");
	query("DROP SERVER $name CASCADE");
	$server->stop;
}

# ---------------------------------------------------------------------------
# One of those that are looked up together cannot be written
# ---------------------------------------------------------------------------
{
	clerk_server($node, $mock, name => 'doubtful', server => { timeout => '4s' });
	$mock->script(
		{ match => { method => 'POST' }, times => 2, status => 500, body => '{}' },
		{ match => { method => 'GET' }, hold => JSON::PP::true() });
	my @requests = map { create("doubt$_", 'doubtful') } 1 .. 2;
	wait_for($_, q{state = 'in_doubt'}, 'it is in doubt') for @requests;
	query(q{UPDATE enterprise_connection_requests SET next_attempt_at = clock_timestamp() WHERE state = 'in_doubt'});
	wait_for($_, 'claimer IS NOT NULL', 'it is being looked up') for @requests;
	my $session = session($node);
	$session->query("BEGIN");
	$session->query("SELECT id FROM enterprise_connection_requests WHERE id = $requests[0] FOR UPDATE");
	$mock->release;
	wait_for($requests[1], q{state = 'delivered'}, 'the other one is delivered');

	my $commits = q{SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = 'postgres'};
	my $before = query($commits);
	my $end = time + 2;
	sleep 0.1 while time < $end;
	my $number = query($commits) - $before;
	cmp_ok($number, '<', 200, "a locked row is not tried again all the time ($number transactions)");
	$session->query("ROLLBACK");
	$session->stop;
	wait_for($requests[0], q{state = 'delivered'}, 'then it is delivered');
	query('DROP SERVER doubtful CASCADE');
}

# ---------------------------------------------------------------------------
# None of those that are to be looked up can be claimed
# ---------------------------------------------------------------------------
{
	query('ALTER SYSTEM SET pg_clerk.worker = off');
	query('SELECT pg_reload_conf()');
	wait_until(sub { query(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) eq 't' }, 'the worker to leave', 60);
	clerk_server($node, $mock, name => 'refused', server => { timeout => '1s' });
	$mock->script({ match => { method => 'POST' }, times => 1, status => 500, body => '{}' });
	my $request = create('refused', 'refused');
	query('CALL deliver_enterprise_connections()');
	wait_for($request, q{state = 'in_doubt'}, 'it is in doubt');
	query(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW EXECUTE FUNCTION refuse()});
	wait_for($request, 'next_attempt_at <= clock_timestamp()', 'it is due');
	my ($status, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '20s'; CALL deliver_enterprise_connections()});
	is($err, '', 'a session that can claim nothing ends');
	query('DROP FUNCTION refuse CASCADE');
	wait_until(sub { query('CALL deliver_enterprise_connections()'); query("SELECT state = 'delivered' FROM enterprise_connection_requests WHERE id = $request") eq 't' }, 'delivery', 60);
	query('ALTER SYSTEM RESET pg_clerk.worker');
	query('SELECT pg_reload_conf()');
	$worker = worker();
	query('DROP SERVER refused CASCADE');
}

# ---------------------------------------------------------------------------
# Clerk asks to wait, when it is asked what is in doubt
# ---------------------------------------------------------------------------
{
	clerk_server($node, $mock, name => 'limited', server => { timeout => '3s' });
	$mock->script(
		{ match => { method => 'POST' }, times => 1, status => 500, body => '{}' },
		{ match => { method => 'GET' }, times => 1, status => 429, headers => { 'Retry-After' => '120' }, body => '{"errors": [{"code": "too_many_requests", "message": "slowly"}]}' });
	my $request = create('limited', 'limited');
	wait_for($request, q{state = 'in_doubt' AND claimer IS NULL AND error->>'sqlstate' = 'KC429'}, 'it is looked up, and refused');
	is(query("SELECT next_attempt_at > clock_timestamp() + '100 s' FROM enterprise_connection_requests WHERE id = $request"), 't', 'the look-up waits as long as Clerk asks');
	my $other = create('limited2', 'limited');
	wait_until(sub { sleep 1; 1 }, 'a moment', 10);
	is(query("SELECT attempts FROM enterprise_connection_requests WHERE id = $other"), 0, 'and so does all else of the server');
	query(q{ALTER SERVER limited OPTIONS (SET timeout '4s')});
	wait_for($other, q{state = 'delivered'}, 'a change of the server ends the wait');
	query('DROP SERVER limited CASCADE');
}

# ---------------------------------------------------------------------------
# Answers that take long to be read do not keep others from being read
# ---------------------------------------------------------------------------
{
	my $server = odd_server(sub { return (200, '{"data": [' . ('0,' x ($_[0] eq 'GET' ? 600_000 : 450_000)) . '0]}') });

	clerk_server($node, $server, name => 'large', server => { timeout => '60s', max_concurrency => 100 });
	my ($status, $out, $err) = $node->psql('postgres', "SELECT get_enterprise_connection('x', 'large')");
	like($err, qr/has more than 500000 values/, 'an answer of more than half a million values is not read');
	query("SELECT count(enqueue_enterprise_connection('update', '{\"name\": \"N\"}', id => 'large' || n, server => 'large')) FROM generate_series(1, 100) n");
	wait_until(sub { query(q{SELECT count(*) > 0 FROM enterprise_connection_requests WHERE server = 'large' AND attempts > 0 AND error IS NOT NULL}) eq 't' }, 'the first answer', 60);
	my $start   = query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server = 'large' AND error IS NOT NULL});
	my $request = create('small');
	wait_for($request, q{state = 'delivered'}, 'a request of another server is delivered');
	my $read = query(q{SELECT count(*) FROM enterprise_connection_requests WHERE server = 'large' AND error IS NOT NULL}) - $start;
	cmp_ok($read, '<', 50, "before all large answers are read ($read meanwhile)");
	query('DROP SERVER large CASCADE');
	$server->stop;
}

# ---------------------------------------------------------------------------
# A trigger that leaves out what is enqueued
# ---------------------------------------------------------------------------
{
	query(q{CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER leave_out BEFORE INSERT ON enterprise_connection_requests FOR EACH ROW EXECUTE FUNCTION leave_out()});
	my ($status, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
SET statement_timeout = '60s'; SELECT enqueue_enterprise_connection('delete', id => 'x')});
	like($err, qr/ERROR:  55000: could not enqueue the request/, 'is an error');
	query('DROP FUNCTION leave_out CASCADE');
}

# ---------------------------------------------------------------------------
# A refusal with very many errors
# ---------------------------------------------------------------------------
{
	my $server = odd_server(sub { return (422, '{"errors": [' . join(',', map { qq({"code": "c$_", "message": "m"}) } 1 .. 100_000) . ']}') });

	clerk_server($node, $server, name => 'talkative');
	my $request = create('talkative', 'talkative');
	wait_for($request, q{state = 'failed'}, 'it fails');
	is(query("SELECT error->>'sqlstate' || ' ' || (error->>'detail' LIKE '%99980 more') || ' ' || (octet_length(error::text) < 10000) FROM enterprise_connection_requests WHERE id = $request"),
		'KC422 true true', 'and keeps the first errors');
	query('DROP SERVER talkative CASCADE');
	$server->stop;
}

is(worker(), $worker, 'the worker lives');
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal|exited with exit code 1\b/, 'nothing crashed');
done_testing();
