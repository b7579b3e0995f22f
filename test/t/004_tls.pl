# https: only to a server that proves who it is, and nothing is sent to another.

use strict;
use warnings;

use ClerkTest;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $key = 'sk_test_004SeenNowhere';
my $tls = start_tls_mock({}, '--secret-key', $key);

# Clerk behind a proxy is for those who ask for one: whatever the environment
# of the server says, it leads nowhere.
my $dead = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $@;
my $nowhere = 'http://127.0.0.1:' . $dead->sockport;
close $dead;
my $node;
{
	local @ENV{qw(http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY)} = ($nowhere) x 5;
	local @ENV{qw(no_proxy NO_PROXY)} = ('', '');
	$node = clerk_node('tls', $tls, key => $key, conf => "fsync = off\n");
}
my $count = 0;
my @helpers;

sub call
{
	return sprintf q{SELECT create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{t%d.example}', server => '%s')->>'name'},
	  ++$count, $_[0];
}

my $session = session($node);

# ---------------------------------------------------------------------------
# It works
# ---------------------------------------------------------------------------
is($session->run(call('clerk'))->{out}, 'N', 'a certificate of the authority in ca_file');
my ($request) = $tls->requests;
is($request->{headers}{authorization}, "Bearer $key", 'the key is sent');
$session->run(call('clerk')) for 1 .. 19;
is($tls->stats->{by_status}{201}, 20, 'twenty calls');
is($tls->stats->{connections_opened}, 1, 'over one connection');
(my $by_name = $tls->url) =~ s/127\.0\.0\.1/localhost/;
clerk_server($node, $tls, name => 'by_name', key => $key, server => { api_url => $by_name });
is($session->run(call('by_name'))->{out}, 'N', 'the same by its name');

my $plain = start_mock('--secret-key', $key);
clerk_server($node, $plain, name => 'plain', key => $key);
is($session->run(call('plain'))->{out}, 'N', 'the environment\'s proxies are not used for http either');

# A reset connection, below TLS
$tls->reset;
for my $try (1 .. 5)
{
	$session->run(call('clerk'));
	$tls->script({ match => { method => 'POST' }, reset => 'after' });
	is($session->run(call('clerk'))->{sqlstate}, 'KC007', 'a connection that is reset: KC007');
}
is($tls->stats->{by_method}{POST}, 10, 'and no POST came twice');

# ---------------------------------------------------------------------------
# It must not work
# ---------------------------------------------------------------------------
sub refused
{
	my ($server, $what, $mock, $detail) = @_;
	my $start  = time;
	my $result = $session->run(call($server));

	is($result->{sqlstate}, 'KC001', "$what: KC001") or diag $result->{err};
	like($result->{err}, $detail || qr/DETAIL:.*(SSL|TLS|certificate)/i, "$what: the detail names TLS");
	like($result->{err}, qr/HINT:  Nothing was sent.*ca_file/, "$what: the hint says what to check");
	like($result->{err}, qr/"?\Q$server\E/, "$what: and for which server");
	unlike($result->{err}, qr/\Q$key\E/, "$what: the key is not shown");
	cmp_ok(time - $start, '<', 25, "$what: in good time");
	is($mock->stats->{requests}, 0, "$what: nothing was received") if $mock;
	return;
}

my $untouched = start_tls_mock();
clerk_server($node, $untouched, name => 'unknown', key => $key, server => { ca_file => undef, max_retries => 0 });
refused('unknown', 'an authority that is not known', $untouched);

# The same server, without its ca_file: a connection that is open already must
# not be used for it.
clerk_server($node, $tls, name => 'again', key => $key, server => { ca_file => undef, max_retries => 0 });
$tls->reset;
is($session->run(call('clerk'))->{out}, 'N', 'a connection is open');
refused('again', 'a second server with other ideas of trust');
is($tls->stats->{requests}, 1, 'a kept connection is not used by it');

my $elsewhere = start_tls_mock({ names => 'DNS:api.clerk.example,IP:127.0.0.2' });
clerk_server($node, $elsewhere, name => 'elsewhere', key => $key, server => { max_retries => 0 });
refused('elsewhere', 'a certificate for another host', $elsewhere);

my $expired = start_tls_mock({ days => -1 });
clerk_server($node, $expired, name => 'expired', key => $key, server => { max_retries => 0 });
refused('expired', 'a certificate that has expired', $expired, qr/DETAIL:.*expired/);

my $dir = PostgreSQL::Test::Utils::tempdir('self_signed');
system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
	'-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', 2,
	'-keyout', "$dir/key.pem", '-out', "$dir/cert.pem");
my $self_signed = start_mock('--secret-key', $key, '--tls', '--cert', "$dir/cert.pem", '--key', "$dir/key.pem");
$self_signed->{scheme} = 'https';
clerk_server($node, $self_signed, name => 'self_signed', key => $key, server => { max_retries => 0 });
refused('self_signed', 'a self-signed certificate', $self_signed, qr/DETAIL:.*self.signed/i);
clerk_server($node, $self_signed, name => 'pinned', key => $key, server => { ca_file => "$dir/cert.pem" });
is($session->run(call('pinned'))->{out}, 'N', 'a self-signed certificate that is itself in ca_file');

clerk_server($node, $tls, name => 'no_file', key => $key, server => { ca_file => "$dir/none.pem", max_retries => 0 });
$tls->reset;
refused('no_file', 'a ca_file that is not there', $tls);

# ---------------------------------------------------------------------------
# Servers that do not speak TLS
# ---------------------------------------------------------------------------
my $http = start_server(sub {
	my ($socket) = @_;

	sysread $socket, my $in, 1000;
	syswrite $socket, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
});
clerk_server($node, $plain, name => 'wrong_port', key => $key, server => { api_url => 'https://127.0.0.1:' . $http->port, max_retries => 0 });
refused('wrong_port', 'https to a port that speaks http');

my $garbage = start_server(sub {
	my ($socket) = @_;

	syswrite $socket, "\x16\x03\x03\x00\x05\xff\xff\xff\xff\xff" . "\x00garbage\xff\r\n" x 100;
	sysread $socket, my $in, 1000;
});
clerk_server($node, $plain, name => 'garbage', key => $key, server => { api_url => "https://127.0.0.1:" . $garbage->port, max_retries => 0 });
refused('garbage', 'a server that sends garbage');

my $closing = start_server(sub { sysread $_[0], my $in, 1000 });
clerk_server($node, $plain, name => 'closing', key => $key, server => { api_url => "https://127.0.0.1:" . $closing->port, max_retries => 0 });
refused('closing', 'a server that closes during the handshake');

# https spoken to as http
clerk_server($node, $tls, name => 'not_http', key => $key,
	server => { api_url => 'http://127.0.0.1:' . $tls->port, ca_file => undef, max_retries => 0 });
$tls->reset;
my $result = $session->run(call('not_http'));
like($result->{sqlstate}, qr/^KC00[17]$/, 'http to a port that speaks https is an error');
is($tls->stats->{requests}, 0, 'and not a request');

# TLS 1.1 is too old
SKIP:
{
	my $old = start_openssl('-tls1_1', '-cipher', 'ALL:@SECLEVEL=0');

	skip 'this openssl has no TLS 1.1', 5 unless $old;
	clerk_server($node, $plain, name => 'tls_1_1', key => $key,
		server => { api_url => "https://127.0.0.1:$old", ca_file => "$dir/cert.pem", max_retries => 0 });
	refused('tls_1_1', 'a server that knows TLS 1.1 only');
}

# ---------------------------------------------------------------------------
# HTTP/2, if there is something that speaks it
# ---------------------------------------------------------------------------
SKIP:
{
	my $log = "$dir/nghttpx.log";
	my $port = start_nghttpx($log);

	skip 'no nghttpx (package nghttp2-proxy)', 6 unless $port;
	$plain->reset;
	clerk_server($node, $plain, name => 'h2', key => $key,
		server => { api_url => "https://127.0.0.1:$port", ca_file => "$dir/cert.pem", max_retries => 0 });
	is($session->run(call('h2'))->{out}, 'N', 'HTTP/2: a call');
	$session->run(call('h2')) for 1 .. 19;
	is($plain->stats->{by_status}{201}, 20, 'HTTP/2: twenty calls');
	my @lines = split /\n/, wait_until(
		sub {
			my $text = -e $log ? slurp_file($log) : '';
			return $text =~ /(?:.*\n){20}/ && $text;
		},
		'the proxy\'s log');
	is(scalar(grep { / HTTP\/2/ } @lines), 20, 'HTTP/2: all of them in HTTP/2');
	my %clients = map { (split / /)[0] => 1 } @lines;
	is(scalar(keys %clients), 1, 'HTTP/2: over one connection');

	# the same in trouble
	$plain->script({ match => { method => 'POST' }, hold => JSON::PP::true });
	my $before = $plain->stats->{requests};
	$session->send(call('h2'));
	wait_until(sub { $plain->stats->{requests} > $before }, 'the request to arrive');
	my $start = time;
	kill 'INT', $session->pid;
	$result = $session->finish;
	is($result->{sqlstate}, '57014', 'HTTP/2: a cancel');
	cmp_ok(time - $start, '<', 10, 'HTTP/2: at once');
	is($session->run(call('h2'))->{out}, 'N', 'HTTP/2: the next call works');
}

is($session->run('SELECT 1')->{out}, 1, 'the session lives');
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');

done_testing();

sub free_port
{
	my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $@;

	return $socket->sockport;
}

# Run a program until the test ends; true once its port answers.
sub start_helper
{
	my ($port, $log, @command) = @_;

	defined(my $pid = fork) or die "could not fork: $!";
	if ($pid == 0)
	{
		open STDIN,  '<', '/dev/null';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	push @helpers, $pid;
	for (1 .. 250)
	{
		return $port if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		last if waitpid($pid, POSIX::WNOHANG()) != 0;
		Time::HiRes::sleep(0.02);
	}
	return 0;
}

sub start_openssl
{
	my (@options) = @_;
	my $port = free_port();

	return start_helper($port, "$dir/openssl.log", 'openssl', 's_server', '-accept', "127.0.0.1:$port",
		'-cert', "$dir/cert.pem", '-key', "$dir/key.pem", '-quiet', @options);
}

sub start_nghttpx
{
	my ($log) = @_;
	my $port = free_port();
	my ($program) = grep { -x } map { "$_/nghttpx" } split(/:/, $ENV{PATH}), '/usr/sbin';

	return 0 unless $program;
	return start_helper($port, "$dir/nghttpx.out", $program, '--conf=/dev/null', '--no-ocsp', '--workers=1', '--single-process',
		"--frontend=127.0.0.1,$port", '--backend=127.0.0.1,' . $plain->port,
		"--accesslog-file=$log", '--accesslog-format=$remote_port "$request" $status',
		"$dir/key.pem", "$dir/cert.pem");
}

END
{
	my $status = $?;

	for my $pid (@helpers)
	{
		kill 'TERM', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}
