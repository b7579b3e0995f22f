# What the server's log says: a line for each failure, and no parameter or secret
# in it.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $mock = start_mock();
my $node = clerk_node('log', $mock,
	conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\nlog_line_prefix = '%m [%p] %b '\nlog_statement = none\npg_clerk.naptime = '200ms'\n",
	server => { timeout => '2s' });
my $offset = -s $node->logfile;

sub lines
{
	return grep { /pg_clerk: / } split /\n/, substr slurp_file($node->logfile), $offset;
}

# Do something, and wait for that many lines of ours; returns them.
sub logged
{
	my ($code, $count) = @_;

	$offset = -s $node->logfile;
	$code->();
	eval { wait_until(sub { scalar(lines()) >= $count }, "$count lines", 30) };
	my @lines = map { s/^.*? LOG:  pg_clerk: //r } lines();
	is(scalar @lines, $count, "$count lines") or diag join "\n", @lines;
	return @lines;
}

sub enqueue
{
	my ($operation, $params, $key) = @_;

	return $node->safe_psql('postgres', sprintf q{SELECT enqueue_enterprise_connection('%s', '%s', %s)},
		$operation, $params, defined $key ? "'$key'" : 'NULL');
}

sub finished
{
	my ($request, $wanted) = @_;
	my $is;

	eval { wait_until(sub { ($is = $node->safe_psql('postgres', "SELECT state FROM enterprise_connection_requests WHERE id = $request")) eq $wanted }, $wanted, 30) };
	is($is, $wanted, "request $request is $wanted");
	return;
}

my $secret = 'client-secret-of-acme';
my $params = qq({"name": "Private Name", "domains": ["private.example"], "oidc": {"client_id": "private-client", "client_secret": "$secret"}});
my ($request, @lines);

# ---------------------------------------------------------------------------
# A request that fails, with an answer that repeats all that was sent
# ---------------------------------------------------------------------------
$mock->script({ match => { body_contains => 'Private Name' }, status => 422, times => 0,
	body => { clerk_trace_id => 'trace0123456789', errors => [ { code => 'form_param_invalid', message => "Private Name is no good",
		long_message => "private.example and $secret are no good", meta => { param_name => 'domains' } } ] } });
@lines = logged(sub { $request = enqueue('upsert', $params, 'org:1') }, 1);
is($lines[0], qq(request $request (upsert, key "org:1") of server "clerk" failed after 1 attempt: SQLSTATE KC422, code form_param_invalid, trace id trace0123456789), 'a request that fails');
# what is no code is not shown, nor is a line ended
$mock->unscript;
$mock->script({ match => { body_contains => 'Private Name' }, status => 422,
	body => { clerk_trace_id => "no\nid", errors => [ { code => "private.example\nfake", message => 'x' } ] } });
@lines = logged(sub { $request = enqueue('create', $params) }, 1);
is($lines[0], qq(request $request (create) of server "clerk" failed after 1 attempt: SQLSTATE KC422), 'nothing that is no code');
# an error here
@lines = logged(sub { $request = enqueue('update', '{"active": true}', "odd\xe2\x80\xaekey") }, 1);
is($lines[0], qq(request $request (update, key "odd?key") of server "clerk" failed after 1 attempt: SQLSTATE P0002), 'an error of this side');

# ---------------------------------------------------------------------------
# A server that is paused, and goes on
# ---------------------------------------------------------------------------
$mock->settings({ secret_keys => ['sk_test_new'] });
@lines = logged(sub { $request = enqueue('create', '{"name": "A", "provider": "saml_okta", "domains": ["a.example"]}') }, 1);
is($lines[0], 'server "clerk" is paused: SQLSTATE KC401', 'paused');
@lines = logged(sub {
	$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_new')});
	finished($request, 'delivered');
}, 1);
is($lines[0], 'server "clerk" is not paused any more', 'resumed');

# ---------------------------------------------------------------------------
# A server that is held back, and goes on
# ---------------------------------------------------------------------------
$mock->script({ match => { method => 'POST' }, status => 429, headers => { 'Retry-After' => 1 }, body => { errors => [] }, times => 2 });
@lines = logged(sub { $request = enqueue('create', '{"name": "B", "provider": "saml_okta", "domains": ["b.example"]}'); finished($request, 'delivered') }, 2);
like($lines[0], qr/^server "clerk" is held back for (1000|9\d\d) ms: Clerk answered 429$/, 'held back');
is($lines[1], 'server "clerk" is not held back any more', 'once, however often Clerk says so');

# ---------------------------------------------------------------------------
# A look-up that fails
# ---------------------------------------------------------------------------
$mock->script(
	{ match => { body_contains => 'Doubt' }, reset => 'after' },
	{ match => { method => 'GET' }, status => 403, body => { clerk_trace_id => 'trace1', errors => [ { code => 'forbidden', message => 'private.example' } ] } });
@lines = logged(sub { $request = enqueue('create', '{"name": "Doubt", "provider": "saml_okta", "domains": ["doubt.example"]}'); finished($request, 'delivered') }, 1);
is($lines[0], 'look-up of 1 request in doubt of server "clerk" failed: SQLSTATE KC403, code forbidden, trace id trace1', 'a look-up that fails');

# ---------------------------------------------------------------------------
# A mirror that changed something, and one that did not
# ---------------------------------------------------------------------------
$mock->seed({ count => 2, prefix => 'seeded' });
@lines = logged(sub { $node->safe_psql('postgres', 'SELECT count(*) FROM mirror_enterprise_connections()') for 1 .. 2 }, 1);
is($lines[0], 'mirror of server "clerk": 2 inserted, 0 updated, 0 deleted, 0 gone', 'a mirror');

# ---------------------------------------------------------------------------
# In a session, to the log alone
# ---------------------------------------------------------------------------
my $session = session($node);
$session->query("SET client_min_messages = debug1; SET log_min_error_statement = log; SET pg_clerk.log_min_duration = 0");
my $result;
@lines = logged(sub { $result = $session->run("SELECT create_enterprise_connection('$params')") }, 1);
like($lines[0], qr/^duration: \d+\.\d{3} ms  POST, server "clerk", status 201$/, 'a slow call');
unlike($result->{err}, qr/pg_clerk: /, 'not to the client');
my ($id) = $result->{out} =~ /"id": "(entconn_\w+)"/;
@lines = logged(sub { $session->run("SELECT get_enterprise_connection('$id')") }, 1);
like($lines[0], qr/^duration: \d+\.\d{3} ms  GET of connection "$id", server "clerk", status 200$/, 'with its id');
@lines = logged(sub { $session->run("SELECT count(*) FROM list_enterprise_connections('org_private')") }, 1);
like($lines[0], qr/^duration: \d+\.\d{3} ms  GET, server "clerk", status 200$/, 'without the query');
$mock->script({ match => { method => 'DELETE' }, reset => 'after' });
@lines = logged(sub { $session->run("SELECT delete_enterprise_connection('$id')") }, 2);
like($lines[0], qr/^duration: \d+\.\d{3} ms  DELETE of connection "$id", server "clerk", no answer$/, 'without an answer');
like($lines[1], qr/^duration: \d+\.\d{3} ms  DELETE of connection "$id", server "clerk", status 404$/, 'each attempt');
$mock->script({ match => { method => 'GET' }, delay_ms => 200 });
@lines = logged(sub {
	$session->query('SET pg_clerk.log_min_duration = 150');
	$session->query('SELECT count(*) FROM list_enterprise_connections()') for 1 .. 3;
}, 1);
like($lines[0], qr/^duration: [2-9]\d\d\.\d{3} ms  GET/, 'only what took long');

# ---------------------------------------------------------------------------
# Off
# ---------------------------------------------------------------------------
$node->append_conf('postgresql.conf', 'pg_clerk.log_failures = off');
$node->reload;
wait_until(sub { $node->safe_psql('postgres', 'SHOW pg_clerk.log_failures') eq 'off' }, 'the setting');
$mock->script({ match => { body_contains => 'Private Name' }, status => 422, body => { errors => [ { code => 'form_param_invalid', message => 'x' } ] } });
@lines = logged(sub {
	finished(enqueue('upsert', $params, 'org:2'), 'failed');
	$mock->seed({ count => 1, prefix => 'more' });
	$node->safe_psql('postgres', 'SELECT count(*) FROM mirror_enterprise_connections()');
}, 0);

# ---------------------------------------------------------------------------
# Nothing that is private was logged by us
# ---------------------------------------------------------------------------
$offset = 0;
my $all = join "\n", lines();
cmp_ok(scalar(lines()), '>', 10, 'there are lines');
unlike($all, qr/private|Private|\Q$secret\E|sk_test|\.example|org_private/, 'no parameter, no secret');

done_testing();
