# Connections are kept between calls; and however a server ends one, no POST is
# ever received twice.

use strict;
use warnings;

use ClerkTest;
use IO::Select;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $mock = start_mock();
my $node = clerk_node('keepalive', $mock, conf => "fsync = off\n");

sub create
{
	my ($server, $name, $domain) = @_;

	return sprintf q{create_enterprise_connection(name => '%s', provider => 'saml_okta', domains => '{%s.example}', server => '%s')},
	  $name, $domain || $name, $server;
}

# ---------------------------------------------------------------------------
# One connection for a session
# ---------------------------------------------------------------------------
my $session = session($node);
$session->query('SELECT ' . create('clerk', "n$_")) for 1 .. 50;
my $stats = $mock->stats;
is($stats->{by_status}{201},      50, 'fifty calls');
is($stats->{connections_opened}, 1,  'use one TCP connection');

# Refusals, rollbacks and other statements do not end it
$session->run('SELECT ' . create('clerk', 'n1'));
$session->run('BEGIN');
$session->run('SELECT ' . create('clerk', 'n51'));
$session->run('ROLLBACK');
$session->run('SELECT ' . create('clerk', 'n52'));
is($mock->stats->{connections_opened}, 1, 'a refusal and a rollback do not end it');

# Other servers of the same session, alternately
clerk_server($node, $mock, name => 'second');
$session->query('SELECT ' . create($_ % 2 ? 'second' : 'clerk', "a$_")) for 1 .. 10;
cmp_ok($mock->stats->{connections_opened}, '<=', 2, 'two servers at one address need no more than two');

# ---------------------------------------------------------------------------
# The mock resets a connection that was used before
# ---------------------------------------------------------------------------
my (%count, %outcome);
for my $try (1 .. 30)
{
	$session->query('SELECT ' . create('clerk', "warm$try"));
	$mock->script({ reset => $try % 2 ? 'after' : 'before' });
	my $result = $session->run('SELECT ' . create('clerk', "reset$try"));
	$outcome{ $result->{sqlstate} // 'ok' }++;
}
$count{ $_->{body}{name} }++ for grep { $_->{body}{name} =~ /^reset/ } $mock->requests;
is_deeply(\%outcome, { KC007 => 30 }, 'a reset connection: KC007');
is(scalar(keys %count), 30, 'all requests came in');
is(scalar(grep { $_ != 1 } values %count), 0, 'and each of them once');

# ---------------------------------------------------------------------------
# A server that answers, and then ends the connection as the request told it
# ---------------------------------------------------------------------------
my $log = PostgreSQL::Test::Utils::tempdir('server') . '/received';
append_to_file($log, '');

sub rst
{
	setsockopt $_[0], SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
	close $_[0];
	return;
}

# name: NUMBER-HOW-MICROSECONDS
my $server = start_server(
	sub {
		my ($socket, $connection) = @_;
		my $text = '';

		open my $out, '>>', $log or die;
		$out->autoflush(1);
		for (my $request = 1;; $request++)
		{
			my ($length, $end);

			until (defined $length && length $text >= $end + $length)
			{
				sysread $socket, $text, 65536, length $text or return;
				$end    = $+[0] if $text =~ /\r\n\r\n/;
				$length = $1    if $text =~ /content-length: (\d+)/i;
			}
			my $body = decode_json(substr $text, $end, $length);
			my ($n, $how, $delay) = split /-/, $body->{name};

			$text = substr $text, $end + $length;
			print $out "$n $how $connection $request\n";
			if ($how eq 'silent')
			{
				# taken, not a word
				return $delay % 2 ? rst($socket) : close $socket;
			}
			my $answer = encode_json({ %$body, id => "c$n", object => 'enterprise_connection' });

			syswrite $socket, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
			  . length($answer) . "\r\n\r\n$answer";
			sleep $delay / 1e6 if $delay;
			return close $socket if $how eq 'close';
			return rst($socket) if $how eq 'rst';
			if ($how eq 'peek')
			{
				# let the next request begin, then end without having read it
				IO::Select->new($socket)->can_read(5);
				return $delay % 2 ? rst($socket) : close $socket;
			}
			if ($how eq 'half')
			{
				sysread $socket, $text, 20;
				return rst($socket);
			}
		}
	});
clerk_server($node, $mock, name => 'odd', server => { api_url => $server->url, max_retries => 2 });

my $n = 0;
my %outcomes;
my %result_of;

# Two calls in a row within one statement are closest to each other.
sub pair
{
	my ($how, $delay, $gap) = @_;
	my $what = $gap ? "$how, pause" : $how;
	my @sql;

	for my $each ("$how-$delay", 'keep-0')
	{
		my $name = ++$n . "-$each";

		push @sql, 'SELECT pg_sleep(' . $gap / 1000 . ')' if $each =~ /keep/ && $gap;
		push @sql, 'SELECT pg_temp.outcome(' . $n . ", '$name')";
		$result_of{$n} = undef;
	}
	for my $line (split /\n/, $session->query(join ";\n", @sql))
	{
		my ($number, $state) = split /\|/, $line or next;

		next unless defined $state;
		$result_of{$number} = $state;
		$outcomes{$what}{$state}++ if $number == $n;
	}
	return;
}

$session->query(q{CREATE FUNCTION pg_temp.outcome(number int, name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.create_enterprise_connection(name => name, provider => 'saml_okta', domains => ARRAY['x' || number || '.example'], server => 'odd');
	RETURN number || '|ok';
EXCEPTION WHEN SQLSTATE 'KC000' OR SQLSTATE 'KC001' OR SQLSTATE 'KC007' THEN
	RETURN number || '|' || sqlstate;
END $$});

my $start = time;
for my $how (qw(close rst))
{
	# the end of the connection meets the next request at all its stages
	pair($how, $_ % 40 * 40, 0) for 1 .. 120;
	pair($how, 0, 5) for 1 .. 20;
}
for my $how (qw(peek half silent))
{
	pair($how, $_ % 2, 0) for 1 .. 30;
}
note sprintf '%d calls in %.1f s', $n, time - $start;

my %received;
for my $line (split /\n/, slurp_file($log))
{
	my ($number, $how, $connection, $request) = split / /, $line;

	push @{ $received{$number} }, [ $connection, $request ];
}
my @twice = grep { @{ $received{$_} } > 1 } sort { $a <=> $b } keys %received;
is("@twice", '', 'no POST was received twice');
my @lost = grep { $result_of{$_} eq 'ok' && !$received{$_} } sort { $a <=> $b } keys %result_of;
is("@lost", '', 'none was answered that was not received');
my @wrong = grep { $result_of{$_} eq 'KC001' && $received{$_} } sort { $a <=> $b } keys %result_of;
is("@wrong", '', 'none that was received is said not to have been sent');
my @odd = grep { ($result_of{$_} // 'nothing') !~ /^(ok|KC007|KC001)\z/ } keys %result_of;
is("@odd", '', 'each call ended well, or in KC007');
my $reused = grep { grep { $_->[1] > 1 } @$_ } values %received;
note "$reused requests came in on a connection that had been used before";

for my $how (sort keys %outcomes)
{
	diag "server: $how: the next POST: " . join ', ', map { "$_ $outcomes{$how}{$_}" } sort keys %{ $outcomes{$how} };
}
is($outcomes{"$_, pause"}{ok}, 20, "a connection that was ended ($_) between two calls does no harm") for qw(close rst);
is($outcomes{silent}{ok}, 30, 'a call after a broken one works');

# The session is none the worse for it
is($session->query('SELECT ' . create('clerk', 'last') . "->>'name'"), 'last', 'the session works');
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');

done_testing();
