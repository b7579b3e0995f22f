# A Clerk that answers anything: real answers, more or less spoilt, on a port of
# 127.0.0.1. What it will say next is determined by the seed that it is told by
# a request for /seed/N.

package Answers;

use strict;
use warnings;

use Encode ();
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Random qw(one_in pick some text json_text name mutate @TEXTS);
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);

my $MAX_SECONDS = 7200;    # however the test ends

my $JSON = JSON::PP->new->utf8->allow_nonref->allow_unknown;

sub start
{
	my ($class, $log) = @_;
	my $self   = bless { owner => $$ }, $class;
	my $socket = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1', LocalPort => 0, ReuseAddr => 1)
	  or die "could not listen: $@\n";

	$self->{port} = $socket->sockport;
	defined($self->{pid} = fork) or die "could not fork: $!\n";
	return $self if $self->{pid};
	$SIG{$_} = 'DEFAULT' for qw(INT TERM);
	$SIG{PIPE} = 'IGNORE';
	eval { serve($socket, $self->{owner}, $log) };
	print STDERR "the server of answers has failed: $@" if $@;
	POSIX::_exit(1);
}

sub url { return "http://127.0.0.1:$_[0]{port}" }

# seed(N): from now on, and what was answered before is not of interest.
sub seed
{
	my ($self, $seed) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 10)
	  or die "the server of answers has ended\n";

	print $socket "GET /seed/$seed HTTP/1.1\r\nHost: fuzz\r\n\r\n";
	local $/;
	<$socket> =~ / 200 / or die "the server of answers does not answer\n";
	return;
}

sub stop
{
	my ($self) = @_;

	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

# ---------------------------------------------------------------------------
# One process for all connections
# ---------------------------------------------------------------------------
sub serve
{
	my ($listener, $owner, $log_name) = @_;
	my $end    = time + $MAX_SECONDS;
	my $select = IO::Select->new($listener);
	my %read;

	open my $log, '>', $log_name or die "could not write $log_name: $!\n";
	$log->autoflush(1);
	while (time < $end && getppid == $owner)
	{
		for my $socket ($select->can_read(1))
		{
			if ($socket == $listener)
			{
				my $new = $listener->accept or next;

				$new->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
				$select->add($new);
				$read{$new} = '';
				next;
			}
			my $goes_on = sysread $socket, $read{$socket}, 65536, length $read{$socket};

			while ($goes_on && $read{$socket} =~ /\A(\w+) (\S+) [^\n]*\n(.*?)\r\n\r\n/s)
			{
				my ($method, $path, $head, $whole) = ($1, $2, $3, $+[0]);
				my $body = $head =~ /^content-length: *(\d+)/mi ? $1 : 0;

				last if length $read{$socket} < $whole + $body;
				my $sent = substr $read{$socket}, 0, $whole + $body, '';

				if ($path =~ m{^/seed/(\d+)$})
				{
					srand $1;
					truncate $log, 0;
					seek $log, 0, 0;
					print $socket "HTTP/1.1 200 OK\r\n\r\n";
					$goes_on = 0;
				}
				else
				{
					print $log "<<< $method $path\n";
					$goes_on = answer($socket, $method, $path, substr($sent, $whole), $log);
				}
			}
			next if $goes_on;
			delete $read{$socket};
			$select->remove($socket);
			close $socket;
		}
	}
	return;
}

# ---------------------------------------------------------------------------
# What is right
# ---------------------------------------------------------------------------
sub connection
{
	my ($id, $params) = @_;

	return {
		object => 'enterprise_connection', id => $id, name => 'Acme', provider => 'saml_okta', active => JSON::PP::false,
		domains => ['acme.example'], sync_user_attributes => JSON::PP::true, logo_public_url => undef,
		custom_attributes => [ { name => 'Dept', key => 'dept', sso_path => 'dept', multi_valued => JSON::PP::false } ],
		saml_connection => {
			id => 'samlc_1', name => 'Acme', idp_entity_id => 'https://idp.acme.example', idp_certificate_expires_at => 1798761600000,
			login_hint => { mode => 'email_address' } },
		oauth_config => undef, created_at => 1780000000000, updated_at => 1780000000000 + int rand 1000,
		%{ ref $params eq 'HASH' ? $params : {} } };
}

sub refusal
{
	return {
		errors => [ map { { message => 'is wrong', long_message => text(), code => pick(qw(form_param_missing form_identifier_exists
						resource_not_found too_many_requests conflict resource_locked quota_exceeded), text()), meta => { param_name => Random::name() } } } 0 .. rand 4 ],
		clerk_trace_id => 'trace_1' };
}

# right_answer(METHOD, PATH, BODY): status and data.
sub right_answer
{
	my ($method, $path, $body) = @_;
	my $params = eval { $JSON->decode($body) };

	return (pick(400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 429, 429, 500, 502, 503, 504), refusal()) if one_in(4);
	return ($method eq 'POST' ? 200 : 200,
		$method eq 'POST' ? { url => 'https://example.com/test' } : { data => [ map { { id => "run_$_", status => 'success' } } 1 .. rand 4 ], total_count => int rand 6 })
	  if $path =~ m{/test_runs};
	return (201, connection('entconn_' . int rand 20, $params)) if $method eq 'POST';
	my ($id) = $path =~ m{/enterprise_connections/([^/?]*)};
	if (!defined $id)
	{
		my ($offset) = $path =~ /offset=(\d+)/;
		my $total = pick(0, 1, 2, 5, 20, 600, 501, 1500);
		my $first = $offset || 0;
		my $last  = $first + 499 < $total - 1 ? $first + 499 : $total - 1;

		$total = pick(0, -1, 1, 500, 2_000_000_000, 1e15, 'x', undef) if one_in(15);
		return (200, { data => [ map { connection("entconn_$_") } $first .. $last ], total_count => $total });
	}
	return (200, { object => 'enterprise_connection', id => $id, deleted => JSON::PP::true }) if $method eq 'DELETE';
	return (200, connection($id, $params));
}

# ---------------------------------------------------------------------------
# What is not
# ---------------------------------------------------------------------------

# A member somewhere inside becomes something else.
sub spoil
{
	my ($data) = @_;

	if (ref $data eq 'HASH' && %$data && !one_in(12))
	{
		my $key = pick(sort keys %$data);

		return { %$data, Random::name() => odd() } if one_in(6);
		if (one_in(3)) { my %rest = %$data; delete $rest{$key}; return \%rest }
		return { %$data, $key => one_in(2) ? odd() : spoil($data->{$key}) };
	}
	if (ref $data eq 'ARRAY' && @$data && !one_in(12))
	{
		my @copy = @$data;
		my $at   = int rand @copy;

		$copy[$at] = one_in(3) ? $copy[ rand @copy ] : spoil($copy[$at]);
		return \@copy;
	}
	return odd();
}

# Something of JSON that perl can write.
sub odd
{
	my $value = eval { $JSON->decode(Encode::encode('UTF-8', json_text(2))) } if one_in(2);

	return $value if defined $value;
	return pick(undef, JSON::PP::true, 0, -1, 1.5, 1e300, 1780000000000, '9' x 30, [], {}, [ [] ], text(), text());
}

# Bytes are lost, or others, or twice.
sub spoil_bytes
{
	my ($bytes) = @_;

	for (0 .. rand 3)
	{
		my $at = int rand(length($bytes) + 1);

		substr($bytes, $at, pick(0, 1, 1, 20)) = pick('', chr(rand 256), "\0", "\xff", "\xc3", "\\u0000", "\\ud800", '"', '}', '[' x pick(1, 20000), "\xed\xa0\x80",
			substr($bytes, 0, rand length $bytes)) if $at < length $bytes;
	}
	return $bytes;
}

sub header
{
	my $name = pick('Content-Type', 'Content-Encoding', 'Transfer-Encoding', 'Content-Length', 'Location', 'Connection', 'Set-Cookie', 'cf-ray',
		'x-clerk-trace-id', 'Upgrade', 'Alt-Svc', 'Trailer', 'Date', 'Content-Range', '', 'X-' . 'y' x pick(1, 1000));
	my $value = pick('application/json', 'text/html', '0', '1', '-1', '99999999999999999999', 'Wed, 21 Oct 2015 07:28:00 GMT', 'soon', 'gzip', 'br', 'deflate', 'identity',
		'chunked', 'chunked, chunked', 'close', 'keep-alive', 'http://127.0.0.1:1/', 'h2c', text(), text(), 'z' x pick(100, 20000, 120000));

	$value =~ s/[\r\n]/ /g unless one_in(10);
	utf8::encode($value);
	return pick("$name: $value", "$name:$value", "$name $value", $name, ": $value") if one_in(10);
	return "$name: $value";
}

sub status_line
{
	my ($status) = @_;

	return pick('HTTP/1.1', 'HTTP/1.0', 'HTTP/2', 'HTTP/0.9', 'HTTP/1.1.1', 'ICY', 'http/1.1', '', "\x16\x03\x01") . ' '
	  . pick($status, 0, 99, 100, 101, 103, 204, 205, 206, 226, 299, 300, 304, 307, 399, 418, 499, 505, 599, 600, 999, 1000, -200, 'abc', '') . ' ' . pick('OK', '', text() =~ s/[\r\n]//gr)
	  if one_in(12);
	return "HTTP/1.1 $status OK";
}

# One answer, in how many pieces and how right ever; false if the connection is
# not to be used any more.
sub answer
{
	my ($socket, $method, $path, $sent, $log) = @_;
	my ($status, $data) = right_answer($method, $path, $sent);
	my $kind = int rand 10;

	$data = spoil($data) for grep { $kind < 5 } 0 .. rand 3;
	my $body = $kind == 5 ? Encode::encode('UTF-8', json_text(3)) : eval { $JSON->encode($data) } // '{}';

	$body = spoil_bytes($body) if $kind == 6 || one_in(20);
	$body = pick('', '<html><body>502</body></html>', $body x 3, "\xef\xbb\xbf$body", 'x' x pick(2000, 200000), 'null', '"' . 'x' x 100000 . '"') if one_in(15);

	my @headers = ('Content-Type: application/json', map { header() } 1 .. ($kind == 7 ? rand 5 : 0));
	my $framing = int rand 12;
	my $wire;

	# 100 is beyond any timeout here: what comes next at this server fails at once.
	unshift @headers, 'Retry-After: ' . pick(0, 0, 1, 100) if $status == 429 || $status == 503 || one_in(20);
	if ($framing == 0)
	{
		$wire = join('', map { sprintf("%x%s\r\n", length, one_in(20) ? pick(';a=b', 'zz', '-') : '') . "$_\r\n" } grep { length } unpack "(a@{[ 1 + int rand 3000 ]})*", $body) . (one_in(8) ? '' : "0\r\n\r\n");
		push @headers, 'Transfer-Encoding: chunked';
	}
	else
	{
		$wire = $body;
		push @headers, 'Content-Length: ' . ($framing == 1 ? pick(length($body) - 1, length($body) + 1, 0, 99999999999, -5, 'x') : length $body) if $framing != 2;
	}
	my $line = status_line($status);

	utf8::encode($line);
	$wire = join("\r\n", $line, @headers) . "\r\n\r\n" . $wire;
	$wire = spoil_bytes($wire) if one_in(25);
	$wire = "HTTP/1.1 100 Continue\r\n\r\n" x pick(1, 1, 50) . $wire if one_in(30);
	$wire .= $wire if one_in(40);
	$wire = substr $wire, 0, rand length $wire if one_in(25);

	print $log '>>> ', length $wire, ' bytes: ', substr($wire, 0, 4000) =~ s/([^\x20-\x7e\n])/sprintf '\\x%02x', ord $1/ger, "\n";
	$socket->blocking(1);
	local $SIG{ALRM} = sub { die "nobody reads\n" };
	my $whole = eval
	{
		alarm 2;
		my $at = 0;

		for my $piece (one_in(20) ? unpack("(a@{[ 1 + int(length($wire) / 5) ]})*", $wire) : $wire)
		{
			while (length $piece)
			{
				my $n = syswrite $socket, $piece;

				die "gone\n" unless $n;
				substr $piece, 0, $n, '';
			}
			select undef, undef, undef, 0.01 if one_in(20);
		}
		alarm 0;
		1;
	};
	alarm 0;
	if (one_in(30))
	{
		setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
		return 0;
	}
	return $whole && $framing != 2 && !one_in(10);
}

1;
