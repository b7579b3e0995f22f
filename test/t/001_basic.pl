# A connection created from SQL: the request, the answer, the row; and the key
# in no line of the server's log, however much is logged.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $key  = 'sk_test_001SeenNowhere';
my $mock = start_mock('--secret-key', $key);
my $node = clerk_node(
	'basic', $mock,
	key  => $key,
	conf => "log_min_messages = debug5\nlog_statement = none\n");

my $answer = parse_json(
	$node->safe_psql(
		'postgres', q{
		SELECT create_enterprise_connection(
			name => 'Acme', provider => 'saml_okta', domains => '{acme.example}', organization_id => 'org_1',
			saml => '{"idpMetadataUrl": "https://idp.acme.example/md"}')
	}));

# The request
my @requests = $mock->requests;
is(scalar @requests, 1, 'one request was sent');

my $request = $requests[0];
is($request->{method}, 'POST', 'it is a POST');
is($request->{target}, '/v1/enterprise_connections', 'to the endpoint');
is($request->{status}, 201, 'and was answered 201');
is($request->{headers}{authorization}, "Bearer $key", 'with the key');
is($request->{headers}{'content-type'}, 'application/json', 'as JSON');
is($request->{headers}{'clerk-api-version'}, '2026-05-12', 'for the API version');
like($request->{headers}{'user-agent'}, qr/^pg_clerk/, 'in our name');
is_deeply(
	$request->{body},
	{
		name            => 'Acme',
		provider        => 'saml_okta',
		domains         => ['acme.example'],
		organization_id => 'org_1',
		saml            => { idp_metadata_url => 'https://idp.acme.example/md' },
	},
	'with the parameters');

# The answer and the row
my ($connection) = $mock->connections;
is_deeply($answer, $connection, 'the connection comes back as it is at Clerk');
is( $node->safe_psql(
		'postgres',
		'SELECT server, id, key IS NULL, organization_id, name, provider, domains, active
		 FROM enterprise_connections'),
	"clerk|$connection->{id}|t|org_1|Acme|saml_okta|{acme.example}|f",
	'the tracking table has its row');
is_deeply(
	parse_json($node->safe_psql('postgres', 'SELECT connection FROM enterprise_connections')),
	$connection, 'with all of the connection');

# Errors: one that is found here, one of Clerk's, one for the key itself
my ($status, $out, $err) =
  $node->psql('postgres', q{SELECT create_enterprise_connection('{"nmae": "Acme"}')});
isnt($status, 0, 'an unknown parameter is an error');
like($err, qr/nmae/, 'that names it');
unlike($err, qr/\Q$key\E/, 'and not the key');

($status, $out, $err) = $node->psql(
	'postgres',
	q{\set VERBOSITY verbose
	SELECT create_enterprise_connection(name => 'Acme', provider => 'saml_okta', domains => '{acme.example}')});
isnt($status, 0, 'a domain cannot be used twice');
like($err, qr/KC422/, 'says Clerk');
unlike($err, qr/\Q$key\E/, 'without the key');

$mock->settings({ secret_keys => ['sk_test_another'] });
($status, $out, $err) = $node->psql(
	'postgres',
	q{\set VERBOSITY verbose
	SELECT create_enterprise_connection(name => 'Beta', provider => 'saml_okta', domains => '{beta.example}')});
like($err, qr/KC401/, 'a key that was withdrawn is refused');
unlike($err, qr/\Q$key\E/, 'and not shown');
is($node->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connections'), '1', 'no row came of that');

# An error of a delivery is shown when the memory that it came from is gone.
$node->safe_psql('postgres', 'ALTER TABLE enterprise_connection_requests RENAME COLUMN scrubbed TO scrubbed_once');
my $session = session($node);
for my $try (1 .. 3)
{
	like($session->run('CALL deliver_enterprise_connections()')->{err},
		qr/ERROR:  42703: .*\n(?s:.*)LOCATION:  \w+, [\w.\/]+\.c:\d+/, "with its file and function ($try)");
}
$session->stop;

my $log = slurp_file($node->logfile);
ok($log =~ /DEBUG: /, 'the log has debug messages');
ok($log !~ /\Q$key\E/, 'the key is not in it');
ok($log !~ /Authorization/i, 'nor is the header');

done_testing();
