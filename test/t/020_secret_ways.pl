# Where secrets go on their way to Clerk, and where they must not: a proxy's
# password, a statement that is refused, a default that a caller has set before
# the library was loaded.

use strict;
use warnings;

use ClerkTest;
use IO::Select;
use IO::Socket::INET;
use MIME::Base64;
use Socket qw(inet_ntoa);
use PostgreSQL::Test::Utils;
use Test::More;

my $key      = 'sk_test_020SeenNowhere';
my $user     = 'proxy user';
my $password = 'pw-020: keep@me/out';
my $tls      = start_tls_mock({}, '--secret-key', $key);
my $log      = PostgreSQL::Test::Utils::tempdir('proxy') . '/log';
my $count    = 0;

sub relay
{
	my ($client, $server) = @_;
	my $select = IO::Select->new($client, $server);

	while (my @ready = $select->can_read)
	{
		for my $from (@ready)
		{
			sysread $from, my $data, 65536 or return;
			syswrite $from == $client ? $server : $client, $data;
		}
	}
	return;
}

# A proxy that knows CONNECT, and wants that user and password.
my $proxy = start_server(
	sub {
		my ($client) = @_;
		my ($head, $sent) = ('', '');

		until ($head =~ /\r\n\r\n/)
		{
			sysread $client, $head, 65536, length $head or return;
		}
		append_to_file($log, $head);
		my ($target) = $head =~ m{^CONNECT ([\d.:]+) HTTP/1\.[01]\r\n};
		my $allowed = 'Basic ' . encode_base64("$user:$password", '');

		if (!defined $target || $head !~ /^Proxy-Authorization: \Q$allowed\E\r$/m)
		{
			syswrite $client, "HTTP/1.1 407 not $password\r\nProxy-Authenticate: Basic realm=\"$password\"\r\nContent-Length: 0\r\n\r\n";
			return;
		}
		my $server = IO::Socket::INET->new(PeerAddr => $target) or return;
		syswrite $client, "HTTP/1.1 200 Connection established\r\n\r\n";
		relay($client, $server);
	});

# The same for SOCKS5 (RFC 1928), with the authentication of RFC 1929.
my $socks = start_server(
	sub {
		my ($client) = @_;
		my $take = sub { my ($n) = @_; my $data = ''; while (length $data < $n) { sysread $client, $data, $n - length $data, length $data or die 'no more' } return $data };

		my (undef, $methods) = unpack 'CC', $take->(2);
		my $with_password = $take->($methods) =~ /\x02/;
		syswrite $client, $with_password ? "\x05\x02" : "\x05\xff";
		return unless $with_password;
		my (undef, $length) = unpack 'CC', $take->(2);
		my $given = $take->($length);
		$given .= ':' . $take->(unpack 'C', $take->(1));
		syswrite $client, $given eq "$user:$password" ? "\x01\x00" : "\x01\x01";
		return unless $given eq "$user:$password";
		my ($address, $port) = unpack 'x4 a4 n', $take->(10);
		my $server = IO::Socket::INET->new(PeerAddr => inet_ntoa($address), PeerPort => $port) or return;
		syswrite $client, "\x05\x00\x00\x01" . $address . pack 'n', $port;
		relay($client, $server);
	});

my $node = clerk_node('ways', $tls, key => $key, conf => "fsync = off\nlog_statement = none\n", server => { proxy => $proxy->url, max_retries => 0 });

sub call
{
	my ($server) = @_;
	my ($status, $out, $err) = $node->psql('postgres', sprintf
		q{\set VERBOSITY verbose
		SELECT create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{w%d.example}', server => '%s')->>'name'}, ++$count, $server);

	return defined $err && $err =~ /ERROR:/ ? $err : $out;
}

# ---------------------------------------------------------------------------
# A proxy with a password
# ---------------------------------------------------------------------------
like(call('clerk'), qr/ERROR:  KC001:/, 'a proxy that wants a password: no connection');
is($tls->stats->{requests}, 0, 'nothing got to Clerk');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (ADD proxy_user '$user', ADD proxy_password 'wrong')");
my $err = call('clerk');
like($err, qr/ERROR:  KC001:/, 'a wrong one: no connection');
unlike($err, qr/wrong/, 'the error does not show it');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET proxy_password '$password')");
is(call('clerk'), 'N', 'with user and password in the mapping it works');
is(call('clerk'), 'N', 'and again');
my ($request) = $tls->requests;
is($request->{headers}{authorization}, "Bearer $key", 'the key came to Clerk');
ok(!exists $request->{headers}{'proxy-authorization'}, 'the proxy\'s password did not');
unlike(slurp_file($log), qr/\Q$key\E|Bearer/, 'the proxy has seen no key');
$node->safe_psql('postgres', q{SET pg_clerk.on_rollback = 'delete'; BEGIN;
	SELECT create_enterprise_connection(name => 'Gone', provider => 'saml_okta', domains => '{gone.example}'); ROLLBACK});
is_deeply([ grep { $_->{name} eq 'Gone' } $tls->connections ], [], 'a clean-up after a rollback goes through it, too');
$node->safe_psql('postgres', q{
	SELECT enqueue_enterprise_connection('create', '{"name": "Q", "provider": "saml_okta", "domains": ["q.example"]}');
	CALL deliver_enterprise_connections()});
is($node->safe_psql('postgres', 'SELECT state FROM enterprise_connection_requests'), 'delivered', 'and so does what is enqueued');

(my $socks_url = $socks->url) =~ s/^http/socks5/;
clerk_server($node, $tls, name => 'by_socks', key => $key, server => { proxy => $socks_url, max_retries => 0 });
like(call('by_socks'), qr/ERROR:  KC001:/, 'a SOCKS proxy that wants a password: no connection');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR PUBLIC SERVER by_socks OPTIONS (ADD proxy_user '$user', ADD proxy_password '$password')");
is(call('by_socks'), 'N', 'and with it, it works');
$node->safe_psql('postgres', 'DROP SERVER by_socks CASCADE');

# The password where the other side says it, and who may read it
$tls->script({ status => 422, body => { errors => [ { code => 'c', message => "you said $password", long_message => "you said $password" } ] } });
$err = call('clerk');
like($err, qr/KC422/, 'an answer that repeats the password');
unlike($err, qr/\Q$password\E/, 'is not shown with it');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; GRANT USAGE ON FOREIGN SERVER clerk TO app; CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL', extra_params => [ '-U', 'app' ]),
	'0', 'a role with USAGE does not see the mapping\'s options');
like($node->safe_psql('postgres', 'SELECT umoptions FROM pg_user_mapping', extra_params => [ '-U', 'reader' ]),
	qr/\Q$key\E/, 'a member of pg_read_all_data sees the key, as the README says');

# ... and not if it is in a file
my $dir = PostgreSQL::Test::Utils::tempdir('key');
append_to_file("$dir/key", "$key\n");
chmod 0600, "$dir/key";
$node->safe_psql('postgres', "ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (DROP secret_key, ADD secret_key_file '$dir/key')");
is(call('clerk'), 'N', 'the key in a file');
unlike($node->safe_psql('postgres', 'SELECT umoptions FROM pg_user_mapping', extra_params => [ '-U', 'reader' ]),
	qr/\Q$key\E/, 'that role sees its name only');
isnt($node->psql('postgres', "SELECT pg_read_file('$dir/key')", extra_params => [ '-U', 'reader' ]), 0, 'and cannot read it');

# ---------------------------------------------------------------------------
# A statement that is refused does not get into the log with its key
# ---------------------------------------------------------------------------
my $before = -s $node->logfile;
for my $sql (
	'CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (secret_key \'sk_test_020 ToTheLog\')',
	'CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (secret_key \'sk_test_020ToTheLog\', secret_key_file \'/x\')',
	'CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (secretkey \'sk_test_020ToTheLog\')',
	'CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (proxy_password \'sk_test_020ToTheLog\')',
	'DO $$BEGIN EXECUTE \'CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (secret_key \'\'sk_test_020 ToTheLog\'\')\'; END$$',
	'CREATE SERVER t FOREIGN DATA WRAPPER pg_clerk OPTIONS (secret_key \'sk_test_020ToTheLog\')',
	'CREATE SERVER t FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url \'https://sk_test_020ToTheLog@api.clerk.com\')')
{
	my ($status, $out, $err) = $node->psql('postgres', "CREATE SERVER IF NOT EXISTS s FOREIGN DATA WRAPPER pg_clerk;\n$sql");

	like($err, qr/ERROR: /, "refused: $sql");
	unlike($err =~ s/^LINE .*//mr, qr/ToTheLog/, 'the client is not told the key');
}
my $logged = substr(slurp_file($node->logfile), $before);
is(scalar(() = $logged =~ /ERROR: /g), 7, 'the errors are in the log');
unlike($logged, qr/ToTheLog/, 'without the key');
$node->psql('postgres', 'ALTER SERVER s OPTIONS (ADD nothing_like_it \'x\')');
like(substr(slurp_file($node->logfile), $before), qr/STATEMENT:  ALTER SERVER s/, 'another statement is logged as ever');

# ---------------------------------------------------------------------------
# pg_clerk.server, set before the library was loaded: which is here by the first
# call of a session, in the definer's function
# ---------------------------------------------------------------------------
$node->safe_psql('postgres', q{
	CREATE ROLE definer; GRANT CREATE ON SCHEMA public TO definer;
	CREATE SERVER first FOREIGN DATA WRAPPER pg_clerk; CREATE SERVER second FOREIGN DATA WRAPPER pg_clerk;
	GRANT USAGE ON FOREIGN SERVER clerk, first, second TO definer;
	SET ROLE definer;
	CREATE FUNCTION meant() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$
		SELECT enqueue_enterprise_connection('create', '{"name": "x"}');
		SELECT server FROM enterprise_connection_requests ORDER BY id DESC LIMIT 1 $$;
	CREATE FUNCTION pinned() RETURNS text LANGUAGE sql SECURITY DEFINER SET pg_clerk.server = 'second' AS $$
		SELECT enqueue_enterprise_connection('create', '{"name": "x"}');
		SELECT server FROM enterprise_connection_requests ORDER BY id DESC LIMIT 1 $$;
});

sub meant
{
	my ($sql, %env) = @_;
	local @ENV{ keys %env } = values %env;
	my ($status, $out, $err) = $node->psql('postgres', "$sql", extra_params => [ '-U', 'app' ]);

	return $status == 0 ? $out : $err =~ /ERROR:  (.*)/ ? $1 : $err;
}
my $remembers = $node->safe_psql('postgres', 'SHOW server_version_num') >= 150000;
my $unknown   = qr/^no server is named, and the session's pg_clerk.server does not count for role "definer"/;

is(meant('SELECT meant()'), 'clerk', 'nothing set');
is(meant(q{SET pg_clerk.server = 'first'; SELECT meant()}), 'clerk', 'set before the library was there: it does not count');
is(meant(q{BEGIN; SET LOCAL pg_clerk.server = 'first'; SELECT meant()}), 'clerk', 'nor in a transaction');
like(meant('SELECT meant()', PGOPTIONS => '-c pg_clerk.server=first'), $unknown, 'nor by PGOPTIONS');
SKIP:
{
	skip 'PostgreSQL 14 does not remember who has set it', 3 unless $remembers;
	is(meant('SELECT pinned()'), 'second', 'a function\'s own counts from the first call on');
	is(meant(q{SET pg_clerk.server = 'first'; SELECT pinned(), meant()}), 'second|clerk', 'whatever was set before');
	is(meant('SELECT pinned()', PGOPTIONS => '-c pg_clerk.server=first'), 'second', 'or came with the connection');
}
like(meant(q{SELECT FROM check_enterprise_connection('{"name": "x"}'); SET pg_clerk.server = 'first'; SELECT pinned(), meant()}), qr/second\|clerk$/,
	'or is set later');

done_testing();
