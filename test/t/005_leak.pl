# Ten thousand calls in one session, half of them failing in every way there
# is: neither memory nor descriptors are left behind.

use strict;
use warnings;

use ClerkTest;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $MAX_GROWTH_KB = 2048;

my $mock = start_mock();
my $node = clerk_node('leak', $mock, conf => "fsync = off\nlog_min_messages = fatal\nlog_statement = none\n");
my %plain = (max_retries => 0);

my $dead = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $@;
clerk_server($node, $mock, name => 'refused', server => { %plain, api_url => 'http://127.0.0.1:' . $dead->sockport });
close $dead;
clerk_server($node, $mock, name => 'main', server => \%plain);
clerk_server($node, $mock, name => 'wrong_key', key => 'sk_test_wrong', server => \%plain);
clerk_server($node, $mock, name => 'no_tls', server => { %plain, connect_timeout => '20ms', api_url => 'https://127.0.0.1:' . $mock->port });
clerk_server($node, $mock, name => 'small', server => { %plain, max_response_size => '2kB' });
clerk_server($node, $mock, name => 'hasty', server => { %plain, timeout => '2ms' });
my $key_file = PostgreSQL::Test::Utils::tempdir('key') . '/key';
append_to_file($key_file, "sk_test_mock\n");
$node->safe_psql('postgres', qq{
	CREATE SERVER keyless FOREIGN DATA WRAPPER pg_clerk;
	CREATE SERVER key_file FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '@{[ $mock->url ]}', rate_limit '0');
	CREATE USER MAPPING FOR PUBLIC SERVER key_file OPTIONS (secret_key_file '$key_file');
	CREATE SERVER lost_file FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '@{[ $mock->url ]}');
	CREATE USER MAPPING FOR PUBLIC SERVER lost_file OPTIONS (secret_key_file '$key_file.gone');
	CREATE ROLE nobody;
	ALTER TABLE enterprise_connections ADD CHECK (name <> 'untrackable');
});

# What the mock does is told by the name in the body.
my $json = '{"id":"c1","object":"enterprise_connection","name":"x","provider":"x"';
my %scripted = (
	reset_before => { reset => 'before' },
	reset_after  => { reset => 'after' },
	truncated    => { status => 201, body => "$json}", truncate => 30 },
	chunks_cut   => { status => 201, body => "$json}", truncate => 30, chunked => JSON::PP::true },
	quota        => { status => 403, body => { errors => [ { code => 'quota_exceeded', message => 'm' } ], clerk_trace_id => 't' } },
	limited      => { status => 429, headers => { 'Retry-After' => '600' }, body => {} },
	html         => { status => 502, body => '<html>' . 'x' x 5000, headers => { 'Content-Type' => 'text/html' } },
	unavailable  => { status => 503, body => { errors => [ { message => 'down', long_message => 'Down.', code => 'service_unavailable' } ] } },
	garbage      => { raw => "\x01\x02 garbage\r\n\r\n" },
	no_json      => { status => 201, body => '{"id":' },
	no_utf8      => { status => 201, body_base64 => 'eyJpZCI6ICL/In0=' },
	nul          => { status => 201, body => '{"id":"a\u0000b"}' },
	deep         => { status => 201, body => '[' x 5000 },
	too_large    => { status => 201, fill => { prefix => "$json,\"x\":\"", size => 10_000_000, byte => 'a' } },
	many_headers => { status => 201, body => "$json}", headers => { map { ("X-$_" => 'v' x 1000) } 1 .. 20 } },
	many_errors  => { status => 422, body => { errors => [ map { { code => "c$_", long_message => 'm' x 500, meta => { param_name => "p$_" } } } 1 .. 50 ] } },
	redirect     => { status => 302, headers => { Location => 'http://127.0.0.1:1/' }, body => '' },
	silent       => { hold => JSON::PP::true },
);
$mock->settings({ record => 'off', profile => 'strict' });
$mock->script(map {
	{ match => { method => 'POST', body_contains => "\"$_\"" }, times => 0, %{ $scripted{$_} } }
} sort keys %scripted);

$node->safe_psql('postgres', q{
CREATE FUNCTION create_one(server name, name text, domain text) RETURNS void LANGUAGE sql
AS $$ SELECT create_enterprise_connection(name => name, provider => 'saml_okta', domains => ARRAY[domain], server => server) $$;

-- What went wrong, by kind
CREATE FUNCTION fail_one(kind text, n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CASE kind
	WHEN 'refused', 'wrong_key', 'no_tls', 'keyless', 'lost_file' THEN
		PERFORM create_one(kind, 'n', 'x.example');
	WHEN 'too_large', 'many_headers' THEN
		PERFORM create_one('small', kind, 'x.example');
	WHEN 'silent' THEN
		PERFORM create_one('hasty', kind, 'x.example');
	WHEN 'unknown_server' THEN
		PERFORM create_one('nowhere', 'n', 'x.example');
	WHEN 'duplicate' THEN
		PERFORM create_one('main', 'n', 'taken.example');
	WHEN 'unknown_parameter' THEN
		PERFORM create_enterprise_connection('{"nmae": "x", "saml": {"idp": [1, {"deep": null}]}}', server => 'main');
	WHEN 'wrong_type' THEN
		PERFORM create_enterprise_connection('{"name": 1, "domains": {}, "oidc": [], "active": "yes"}', server => 'main');
	WHEN 'both_spellings' THEN
		PERFORM create_enterprise_connection('{"organizationId": "1", "organization_id": "2"}', server => 'main');
	WHEN 'nothing' THEN
		PERFORM create_enterprise_connection(server => 'main');
	WHEN 'read_only' THEN
		PERFORM set_config('transaction_read_only', 'on', true);
		PERFORM create_one('main', 'n', 'x.example');
	WHEN 'no_usage' THEN
		PERFORM set_config('role', 'nobody', true);
		PERFORM create_one('main', 'n', 'x.example');
	WHEN 'untrackable' THEN
		PERFORM create_one('main', kind, 'u' || n || '.example');
	WHEN 'later_error' THEN
		PERFORM create_one('main', kind, 'l' || n || '.example');
		PERFORM 1 / (n - n);
	ELSE
		PERFORM create_one('main', kind, 'x.example');
	END CASE;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;

-- not a temporary table: its buffers would be the session's own memory
CREATE UNLOGGED TABLE seen (kind text, state text, n bigint, PRIMARY KEY (kind, state));
SELECT create_one('main', 'n', 'taken.example');
});

my %expected = (
	refused => 'KC001', no_tls => 'KC001', wrong_key => 'KC401', keyless => '55000', lost_file => '55000',
	unknown_server => '42704', duplicate => 'KC422', unknown_parameter => '22023', wrong_type => '22023',
	both_spellings => '22023', nothing => '22023', read_only => '25006', no_usage => '42501',
	untrackable => '23514', later_error => '22012',
	reset_before => 'KC007', reset_after => 'KC007', truncated => 'KC007', chunks_cut => 'KC007', quota => 'KC403',
	limited => 'KC429', html => 'KC007', unavailable => 'KC503', garbage => 'KC007', no_json => 'KC007', no_utf8 => 'KC007',
	nul => 'KC007', deep => 'KC007', too_large => 'KC007', many_headers => 'ok', many_errors => 'KC422', redirect => 'KC007',
	silent => 'KC007',
);
my @kinds = sort keys %expected;
my $session = session($node);

sub thousand
{
	my ($round) = @_;
	my $kinds = join ',', map { "'$_'" } @kinds;

	$session->query("DO \$\$
DECLARE
	kinds text[] := ARRAY[$kinds];
	k text;
	s text;
BEGIN
	FOR i IN 1 .. 500 LOOP
		PERFORM create_one(CASE WHEN i % 5 = 0 THEN 'key_file' ELSE 'main' END, 'good', 'g' || ($round * 1000 + i) || '.example');
		k := kinds[1 + i % cardinality(kinds)];
		s := fail_one(k, $round * 1000 + i);
		INSERT INTO seen AS t VALUES (k, s, 1) ON CONFLICT (kind, state) DO UPDATE SET n = t.n + 1;
	END LOOP;
END \$\$");
	return;
}

sub rss
{
	my ($kb) = slurp_file('/proc/' . $session->pid . '/status') =~ /^RssAnon:\s*(\d+) kB/m;

	return $kb;
}

# But for the files of tables, which PostgreSQL keeps open.
sub descriptors
{
	my $data = $node->data_dir;
	my @open = grep { !m{^\Q$data\E|^base/} } map { readlink($_) // () } glob '/proc/' . $session->pid . '/fd/*';

	return scalar @open;
}

my $start = time;
thousand(0);
my ($rss, $fds) = (rss(), descriptors());
my @figures = ($rss);
for my $round (1 .. 9)
{
	thousand($round);
	push @figures, rss();
}
my $seconds = time - $start;
# malloc gives some back now and then: what stays is the least of the later ones
my ($least) = sort { $a <=> $b } @figures[ 5 .. 9 ];
diag sprintf 'RssAnon after each thousand, kB: %s; growth %d kB; descriptors %d, then %d; %.1f s',
  join(' ', @figures), $least - $rss, $fds, descriptors(), $seconds;
cmp_ok($least - $rss, '<', $MAX_GROWTH_KB, 'RssAnon after the first thousand calls grows by less than 2 MB');
cmp_ok(descriptors(), '<=', $fds, 'no descriptor is left open');
my @threads = glob '/proc/' . $session->pid . '/task/*';
is(scalar @threads, 1, 'no thread either');

my %seen = map { my ($kind, $state) = split /\|/; ($kind => ($_[0]{$kind} // '') . $state) } split /\n/,
  $session->query('SELECT kind, string_agg(state, $$ $$ ORDER BY state) FROM seen GROUP BY kind');
is_deeply(\%seen, \%expected, 'each call failed as it was meant to') or diag explain \%seen;
is($session->query('SELECT sum(n) FROM seen'), 5000, 'five thousand of them');
cmp_ok($session->query(q{SELECT count(*) FROM enterprise_connections WHERE name = 'good'}), '==', 5000, 'and five thousand worked');

# Cancels leave nothing behind either
$session->query(q{SET statement_timeout = '5ms'});
my $cancelled = 0;
sub cancels
{
	for (1 .. 100)
	{
		$cancelled++
		  if ($session->run(q{SELECT create_one('main', 'silent', 'x.example')})->{sqlstate} // '') eq '57014';
	}
	return;
}
cancels();
($rss, $fds) = (rss(), descriptors());
cancels() for 1 .. 3;
diag sprintf '300 cancels: RssAnon grew by %d kB, descriptors from %d to %d', rss() - $rss, $fds, descriptors();
is($cancelled, 400, 'four hundred cancels');
cmp_ok(rss() - $rss, '<', $MAX_GROWTH_KB, 'RssAnon did not grow by cancels');
cmp_ok(descriptors(), '<=', $fds, 'nor did the open descriptors');

$session->query('RESET statement_timeout');
$session->query(q{SELECT create_one('main', 'good', 'last.example')});
pass('the session works');
my $open = wait_until(sub { my $n = $mock->stats->{open_connections}; $n <= 5 && "$n " }, 'the connections to be closed', 10);
note "connections open at the mock: $open";

done_testing();
