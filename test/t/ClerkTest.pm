# What the TAP tests share: a mock Clerk server to start, steer and ask, and a
# PostgreSQL node that talks to it.
#
#   use ClerkTest;
#
#   my $mock = start_mock();                        # options as mock_clerk has them
#   my $node = clerk_node('main', $mock);
#   $node->safe_psql('postgres', 'SELECT create_enterprise_connection(...)');
#   my ($request) = $mock->requests;
#
# Everything started here ends with the test, however that ends.

package ClerkTest;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  start_mock
  start_tls_mock
  make_certificate
  clerk_node
  clerk_server
  parse_json
  wait_until
  session
  start_server
  process_gone
  kill_and_restart
);

our $SECRET_KEY = 'sk_test_mock';

my (@mocks, @nodes);

# start_mock(OPTION...): a mock on a port of its own, ready for requests.
sub start_mock
{
	my $mock = ClerkTest::Mock->start(@_);

	push @mocks, $mock;
	return $mock;
}

# start_tls_mock(\%certificate, OPTION...): the same with https, showing that
# certificate, or one that is good for 127.0.0.1 and localhost. The server's
# option ca_file is $mock->ca_file then.
sub start_tls_mock
{
	my ($certificate, @options) = @_;
	my $made = make_certificate(%{ $certificate || {} });
	my $mock = start_mock(
		@options, '--tls',
		'--cert' => $made->{cert},
		'--key'  => $made->{key});

	$mock->{scheme}  = 'https';
	$mock->{ca_file} = $made->{ca};
	return $mock;
}

# A server certificate and the authority that signed it, as the paths of
# {cert}, {key} and {ca}. names: what it is valid for; days: how long,
# negative for one that has expired.
sub make_certificate
{
	my (%options) = @_;
	my $names = $options{names} || 'IP:127.0.0.1,DNS:localhost';
	my $days  = defined $options{days} ? $options{days} : 2;
	my $dir   = PostgreSQL::Test::Utils::tempdir('certificate');
	my %made  = map { $_ => "$dir/$_.pem" } qw(ca ca_key cert key request);
	my @key   = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes');

	append_to_file("$dir/ext", "subjectAltName=$names\n");
	system_or_bail('openssl', 'req', '-x509', @key, '-subj', '/CN=Test CA',
		'-days', 2, '-keyout', $made{ca_key}, '-out', $made{ca});
	system_or_bail('openssl', 'req', @key, '-subj', '/CN=mock',
		'-keyout', $made{key}, '-out', $made{request});
	system_or_bail('openssl', 'x509', '-req', '-in', $made{request},
		'-CA', $made{ca}, '-CAkey', $made{ca_key}, '-set_serial', 1,
		'-days', $days, '-extfile', "$dir/ext", '-out', $made{cert});
	return \%made;
}

# clerk_node(NAME, $mock, init => [OPTION...], conf => TEXT,
#            server => {option => value}, key => KEY): a running node whose database postgres has the extension, and server clerk
# for that mock.
sub clerk_node
{
	my ($name, $mock, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	push @nodes, $node;
	$node->init(@{ $options{init} || [] });
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, %options);
	return $node;
}

# clerk_server($node, $mock, name =>, dbname =>, server =>, key =>): a foreign
# server for that mock, and its key.
sub clerk_server
{
	my ($node, $mock, %options) = @_;
	my $name   = $options{name} || 'clerk';
	my $key    = defined $options{key} ? $options{key} : $SECRET_KEY;
	my %server = (api_url => $mock->url, rate_limit => 0, %{ $options{server} || {} });

	$server{ca_file} = $mock->ca_file
	  if defined $mock->ca_file && !exists $server{ca_file};
	delete $server{ca_file} unless defined $server{ca_file};
	$node->safe_psql(
		$options{dbname} || 'postgres',
		sprintf(
			'CREATE SERVER %s FOREIGN DATA WRAPPER pg_clerk OPTIONS (%s);
			 CREATE USER MAPPING FOR PUBLIC SERVER %s OPTIONS (secret_key %s)',
			$name,
			join(', ', map { "$_ " . quote_literal($server{$_}) } sort keys %server),
			$name, quote_literal($key)));
	return;
}

sub quote_literal
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	return "'$text'";
}

# JSON of the mock or of psql, as perl's data.
sub parse_json
{
	return JSON::PP->new->utf8->allow_nonref->decode($_[0]);
}

# wait_until(sub { condition }, WHAT, SECONDS): the condition's value once it
# is true; dies if it does not become so.
sub wait_until
{
	my ($condition, $what, $seconds) = @_;
	my $end = time() + ($seconds || $PostgreSQL::Test::Utils::timeout_default);

	for (;;)
	{
		my $value = $condition->();

		return $value if $value;
		die 'waited in vain for ' . ($what || 'a condition') if time() > $end;
		sleep 0.02;
	}
}

# process_gone(PID): has it ended? A zombie has, whoever forgets to reap it.
sub process_gone
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	my $line = <$stat>;
	return !defined $line || $line =~ /\) [ZX] /;
}

# kill_and_restart($node, PID): one of its processes is killed as a crash does
# it; returns when all others have ended, too, and the server is back. Before
# that, a query may be answered as if nothing had happened, or be lost.
sub kill_and_restart
{
	my ($node, $pid) = @_;
	my $witness = session($node);

	kill 'KILL', $pid;
	wait_until(sub { process_gone($pid) && process_gone($witness->pid) }, 'all processes to end', 60);
	$witness->stop;
	wait_until(sub { scalar $node->psql('postgres', 'SELECT 1', stderr => \my $err) == 0 }, 'the server to be back', 60);
	return;
}

# session($node, dbname =>, user =>, env => {}): a psql that goes on while the
# test does something else.
sub session
{
	my $session = ClerkTest::Session->start(@_);

	push @mocks, $session;
	return $session;
}

# start_server(sub { my ($socket, $n) = @_; ... }): a server that is no Clerk.
# The code gets each connection in a process of its own, and its number.
sub start_server
{
	my $server = ClerkTest::Server->start(@_);

	push @mocks, $server;
	return $server;
}

END
{
	my $status = $?;

	# what a process has run, it writes when it ends in good order
	if ($ENV{CLERK_COVERAGE})
	{
		$_->stop('fast', fail_ok => 1) for grep { $_->{_pid} } @nodes;
	}
	$_->stop for @mocks;
	$? = $status;
}

package ClerkTest::Mock;

use HTTP::Tiny;
use IPC::Run;
use POSIX qw(:sys_wait_h);

my $count = 0;

sub start
{
	my ($class, @options) = @_;
	my $program = $ENV{MOCK_CLERK} || die 'MOCK_CLERK does not say where the mock server is';
	my $dir     = PostgreSQL::Test::Utils::tempdir('mock');
	my $self    = bless {
		scheme => 'http',
		owner  => $$,
		log    => sprintf('%s/mock_%d_%d.log', $PostgreSQL::Test::Utils::log_path, $$, ++$count),
	}, $class;
	my @command =
	  ($program, '--port', 0, '--port-file', "$dir/port", '--parent', $$,
		'--max-seconds', 86400, @options);

	defined($self->{pid} = fork) or die "could not fork: $!";
	if ($self->{pid} == 0)
	{
		open STDOUT, '>', $self->{log};
		open STDERR, '>&', \*STDOUT;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	ClerkTest::wait_until(
		sub {
			die "the mock server ended: see $self->{log}" unless $self->is_running;
			return -s "$dir/port";
		},
		'the mock server to start', 30);
	chomp($self->{port} = PostgreSQL::Test::Utils::slurp_file("$dir/port"));
	return $self;
}

sub pid     { return $_[0]{pid} }
sub port    { return $_[0]{port} }
sub ca_file { return $_[0]{ca_file} }
sub log     { return $_[0]{log} }
sub url     { return "$_[0]{scheme}://127.0.0.1:$_[0]{port}" }

sub is_running
{
	my ($self) = @_;

	return 0 unless $self->{pid};
	return 1 if waitpid($self->{pid}, WNOHANG) == 0;
	$self->{pid} = 0;
	return 0;
}

# stop(SIGNAL): a child of the test that was forked leaves it alone.
sub stop
{
	my ($self, $signal) = @_;

	return if !$self->{pid} || $self->{owner} != $$;
	kill $signal || 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

# call(METHOD, PATH, DATA): a control call; its answer, or death.
sub call
{
	my ($self, $method, $path, $data) = @_;
	my $body = defined $data ? JSON::PP->new->utf8->allow_nonref->encode($data) : undef;
	my ($status, $text) =
		$self->{scheme} eq 'https'
	  ? $self->_call_by_curl($method, $path, $body)
	  : $self->_call($method, $path, $body);

	die "mock server: $method $path was answered $status: $text" if $status != 200;
	return ClerkTest::parse_json($text);
}

sub _call
{
	my ($self, $method, $path, $body) = @_;
	my $http = HTTP::Tiny->new(keep_alive => 0, timeout => 30, proxy => undef, http_proxy => undef);
	my $answer = $http->request($method, $self->url . $path,
		defined $body
		? { content => $body, headers => { 'content-type' => 'application/json' } }
		: {});

	return ($answer->{status}, $answer->{content});
}

# perl's own HTTP client has no TLS without more modules.
sub _call_by_curl
{
	my ($self, $method, $path, $body) = @_;
	my @command = ('curl', '-q', '-s', '-S', '-k', '--noproxy', '*', '-X', $method, '-w', '\n%{http_code}');
	my $in = defined $body ? $body : '';
	my ($out, $err);

	push @command, '-H', 'content-type: application/json', '--data-binary', '@-' if defined $body;
	IPC::Run::run([ @command, $self->url . $path ], \$in, \$out, \$err)
	  or die "mock server: $err";
	my ($text, $status) = $out =~ /\A(.*)\n(\d+)\z/s;
	return ($status, $text);
}

# What came in, oldest first, each with method, target, path, query, headers
# (lower-case names), body, raw_body, status, connection and received_ms.
sub requests    { return @{ $_[0]->call('GET', '/_mock/requests') } }
sub forget      { return $_[0]->call('DELETE', '/_mock/requests') }
sub connections { return @{ $_[0]->call('GET', '/_mock/connections') } }
sub stats       { return $_[0]->call('GET', '/_mock/stats') }
sub settings    { return $_[0]->call('POST', '/_mock/settings', $_[1]) }
sub reset       { return $_[0]->call('POST', '/_mock/reset', $_[1]) }
sub script      { my ($self, @steps) = @_; return $self->call('POST', '/_mock/script', \@steps) }
sub unscript    { return $_[0]->call('DELETE', '/_mock/script') }
sub release     { return $_[0]->call('POST', '/_mock/release') }
sub seed        { return $_[0]->call('POST', '/_mock/seed', $_[1]) }

# psql at the end of three pipes. Errors come in its verbose form.
package ClerkTest::Session;

use IO::Handle;
use IO::Select;
use POSIX ();
use Time::HiRes qw(time);

sub start
{
	my ($class, $node, %options) = @_;
	my $self = bless { owner => $$, text => { out => '', err => '' }, number => 0 }, $class;
	my @command = ('psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose',
		'-d', $node->connstr($options{dbname} || 'postgres'));

	push @command, '-U', $options{user} if defined $options{user};
	pipe my $in_read,    my $in      or die "could not make a pipe: $!";
	pipe my $out,        my $out_end or die "could not make a pipe: $!";
	pipe my $err,        my $err_end or die "could not make a pipe: $!";
	defined($self->{psql} = fork) or die "could not fork: $!";
	if ($self->{psql} == 0)
	{
		%ENV = (%ENV, %{ $options{env} || {} });
		open STDIN,  '<&', $in_read;
		open STDOUT, '>&', $out_end;
		open STDERR, '>&', $err_end;
		close $_ for $in, $out, $err;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	close $_ for $in_read, $out_end, $err_end;
	$in->autoflush(1);
	@$self{qw(in out err)} = ($in, $out, $err);
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# The backend's pid, and psql's.
sub pid  { return $_[0]{pid} }
sub psql { return $_[0]{psql} }

# send(SQL): without waiting.
sub send
{
	my ($self, $sql) = @_;
	my $marker = sprintf '--- done %d ---', ++$self->{number};

	$sql =~ s/;\s*\z//;
	$self->{marker}  = $marker;
	$self->{sent_at} = time;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql\n;\n\\echo '$marker'\n\\warn '$marker'\n";
	return;
}

# finish(SECONDS): what came of it: {out}, {err}, the {sqlstate} of the last
# error, how many {seconds} passed since it was sent, and whether psql {ended}.
sub finish
{
	my ($self, $seconds) = @_;
	my $end    = time + ($seconds || 60);
	my $marker = $self->{marker};
	my %open   = map { $_ => 1 } grep { !$self->{eof}{$_} } qw(out err);

	while (my @wanted = grep { $open{$_} && index($self->{text}{$_}, "$marker\n") < 0 } keys %open)
	{
		my $left = $end - time;

		$! = 0;
		my @ready = $left > 0 ? IO::Select->new(map { $self->{$_} } @wanted)->can_read($left) : ();

		next if !@ready && $!{EINTR};
		die "no end of a statement within the time" unless @ready;
		for my $name (@wanted)
		{
			next unless grep { $_ == $self->{$name} } @ready;
			next if sysread $self->{$name}, $self->{text}{$name}, 65536, length $self->{text}{$name};
			$open{$name} = 0;
			$self->{eof}{$name} = 1;
		}
	}
	my %result = (seconds => time - $self->{sent_at}, ended => scalar(grep { $_ } values %{ $self->{eof} }));
	for my $name (qw(out err))
	{
		$self->{text}{$name} =~ s/^\Q$marker\E\n//m;
		($result{$name}, $self->{text}{$name}) = ($self->{text}{$name}, '');
		chomp $result{$name};
	}
	($result{sqlstate}) = $result{err} =~ /.*^(?:psql:\S+ )?(?:ERROR|FATAL|PANIC):  (\w{5}):/ms;
	return \%result;
}

sub run
{
	my ($self, $sql, $seconds) = @_;

	$self->send($sql);
	return $self->finish($seconds);
}

# query(SQL): its output; death if there was an error.
sub query
{
	my ($self, $sql) = @_;
	my $result = $self->run($sql);

	die "error of \"$sql\": $result->{err}" if defined $result->{sqlstate} || $result->{ended};
	return $result->{out};
}

sub stop
{
	my ($self, $signal) = @_;

	return if !$self->{psql} || $self->{owner} != $$;
	close $self->{in};
	kill $signal || 'TERM', $self->{psql};
	waitpid $self->{psql}, 0;
	$self->{psql} = 0;
	return;
}

package ClerkTest::Server;

use IO::Select;
use IO::Socket::INET;
use POSIX ();

sub start
{
	my ($class, $code) = @_;
	my $self   = bless { owner => $$ }, $class;
	my $socket = IO::Socket::INET->new(
		Listen => 100, LocalAddr => '127.0.0.1', LocalPort => 0, ReuseAddr => 1)
	  or die "could not listen: $@";

	$self->{port} = $socket->sockport;
	defined($self->{pid} = fork) or die "could not fork: $!";
	return $self if $self->{pid};

	setpgrp;
	$SIG{$_} = 'DEFAULT' for qw(INT TERM PIPE);
	$SIG{CHLD} = 'IGNORE';
	for (my $n = 1;;)
	{
		# not longer than the test
		POSIX::_exit(0) if getppid() != $self->{owner};
		next unless IO::Select->new($socket)->can_read(1);
		my $connection = $socket->accept or next;
		my $child = fork;
		if (defined $child && $child == 0)
		{
			alarm 120;
			close $socket;
			eval { $code->($connection, $n) };
			print STDERR $@ if $@;
			POSIX::_exit(0);
		}
		close $connection;
		$n++;
	}
}

sub port { return $_[0]{port} }
sub url  { return "http://127.0.0.1:$_[0]{port}" }
sub ca_file { return }

sub stop
{
	my ($self) = @_;

	return if !$self->{pid} || $self->{owner} != $$;
	kill 'TERM', -$self->{pid}, $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

1;
