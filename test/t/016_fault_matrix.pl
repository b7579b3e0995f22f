# The fault matrix: every operation meets every fault. Of each cell: the
# SQLSTATE, how many requests the server really saw, what is tracked
# afterwards, that the session lives, and that its next call succeeds.
#
# PG_CLERK_TEST_LONG=1 retries with more operations, and has another round with a
# new session (so a new connection to the server) for each cell.
# PG_CLERK_TEST_ONLY=fault/operation (a regular expression) runs these cells only.

use strict;
use warnings;

use ClerkTest;
use IO::Compress::Gzip ();
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

my $long = $ENV{PG_CLERK_TEST_LONG};
my $only = $ENV{PG_CLERK_TEST_ONLY} // '';

# ---------------------------------------------------------------------------
# The operations. N is the number of the cell, everywhere: connection
# entconn_N, key kN, name "Cell N", domain cN.example.
#
#   kind     which column of the table of faults counts
#   meets    the request that meets the fault
#   exists   at Clerk beforehand: the connection; tracked: here, too
#   right    what the answer would be
#   batch    errors are results; outbox: enqueued, then delivered
# ---------------------------------------------------------------------------
my $params = q{{"name": "Cell N", "provider": "saml_okta", "domains": ["cN.example"]}};
my $change = q{{"name": "Changed N"}};
my $post   = { method => 'POST', path => '/enterprise_connections', body_contains => '"Cell N"' };
my $item   = '/enterprise_connections/entconn_N';
my $list   = { method => 'GET', path => '/enterprise_connections' };

my @operations = (
	{ name => 'create', kind => 'post', meets => $post, right => 'connection',
		sql => "SELECT create_enterprise_connection('$params')" },
	{ name => 'upsert that creates', kind => 'post', meets => $post, right => 'connection',
		sql => "SELECT upsert_enterprise_connection('kN', '$params')" },
	{ name => 'batch', kind => 'post', meets => $post, right => 'connection', batch => 1,
		sql => qq{SELECT error ->> 'sqlstate', error ->> 'message' FROM create_enterprise_connections(ARRAY['$params',
			'{"name": "Beside N", "provider": "saml_okta", "domains": ["beside-N.example"]}']::jsonb[]) ORDER BY ordinal} },
	{ name => 'update', kind => 'write', meets => { method => 'PATCH', path => $item }, right => 'connection', tracked => 1,
		sql => "SELECT update_enterprise_connection('entconn_N', '$change')" },
	{ name => 'upsert that updates', kind => 'write', meets => { method => 'PATCH', path => $item }, right => 'connection', tracked => 1,
		sql => "SELECT upsert_enterprise_connection('kN', '$params')" },
	{ name => 'delete', kind => 'write', meets => { method => 'DELETE', path => $item }, right => 'deleted', tracked => 1,
		sql => q{SELECT delete_enterprise_connection('entconn_N')} },
	{ name => 'test run', kind => 'write', meets => { method => 'POST', path => "$item/test_runs" }, right => 'url', tracked => 1,
		sql => q{SELECT create_enterprise_connection_test_run('entconn_N')} },
	{ name => 'get', kind => 'read', meets => { method => 'GET', path => $item }, right => 'connection', tracked => 1,
		sql => q{SELECT get_enterprise_connection('entconn_N')} },
	{ name => 'adopt', kind => 'read', meets => { method => 'GET', path => $item }, right => 'connection', exists => 1,
		sql => q{SELECT adopt_enterprise_connection('kN', 'entconn_N')} },
	{ name => 'list', kind => 'read', meets => $list, right => 'page', tracked => 1,
		sql => 'SELECT count(*) FROM list_enterprise_connections()' },
	{ name => 'mirror', kind => 'read', meets => $list, right => 'page', tracked => 1,
		sql => 'SELECT count(*) FROM mirror_enterprise_connections()' },
	{ name => 'test runs', kind => 'read', meets => { method => 'GET', path => "$item/test_runs" }, right => 'page', tracked => 1,
		sql => q{SELECT count(*) FROM list_enterprise_connection_test_runs('entconn_N')} },
	{ name => 'outbox: create', kind => 'post', meets => $post, right => 'connection', outbox => 1,
		sql => "SELECT enqueue_enterprise_connection('create', '$params')" },
	{ name => 'outbox: upsert that creates', kind => 'post', meets => $post, right => 'connection', outbox => 1,
		sql => "SELECT enqueue_enterprise_connection('upsert', '$params', key => 'kN')" },
	{ name => 'outbox: upsert that updates', kind => 'write', meets => { method => 'PATCH', path => $item }, right => 'connection', tracked => 1, outbox => 1,
		sql => "SELECT enqueue_enterprise_connection('upsert', '$params', key => 'kN')" },
	{ name => 'outbox: update', kind => 'write', meets => { method => 'PATCH', path => $item }, right => 'connection', tracked => 1, outbox => 1,
		sql => "SELECT enqueue_enterprise_connection('update', '$change', id => 'entconn_N')" },
	{ name => 'outbox: delete', kind => 'write', meets => { method => 'DELETE', path => $item }, right => 'deleted', tracked => 1, outbox => 1,
		sql => q{SELECT enqueue_enterprise_connection('delete', key => 'kN')} },
);

# ---------------------------------------------------------------------------
# The faults, and what is right: the SQLSTATE of a POST that creates, of another
# write and of a read; where a request of the outbox is then, whose step is such
# a POST or another write. "|": either is right. Where no server is named, the
# server sees exactly one request.
#
#   step    of the mock's script, or a function of the operation
#   server  another one than the mock: nothing is seen
#   options of the server
#   again   how many requests there are with one retry: of a POST, another write, a
#           read. (libcurl itself may repeat what harms nobody on a new connection if
#           a kept one broke: it counts as a retry.)
# ---------------------------------------------------------------------------
my $broken = [ 'KC007', 'KC006', 'KC006', 'in_doubt', 'queued' ];
my $server_error = sub { my ($status) = @_; return [ 'KC007', "KC$status", "KC$status", 'in_doubt', 'queued' ] };
my $refusal = sub { my ($status) = @_; return [ ("KC$status") x 3, 'failed', 'failed' ] };
my $later = sub { my ($status) = @_; return [ ("KC$status") x 3, 'queued', 'queued' ] };
my $useless = [ 'KC007', 'KC008', 'KC008', 'in_doubt', 'queued' ];
my %short = (timeout => '250ms');

my @faults = (
	# no connection, or none that lasts
	[ 'connection refused', [ ('KC001') x 3, 'queued', 'queued' ], server => 'closed', again => [ 0, 0, 0 ] ],
	[ 'connect times out', [ ('KC001') x 3, 'queued', 'queued' ], server => 'full', options => { connect_timeout => '50ms' }, again => [ 0, 0, 0 ] ],
	[ 'reset at once', [ 'KC001|KC007', 'KC001|KC006', 'KC001|KC006', 'queued|in_doubt', 'queued' ], server => 'resets' ],
	[ 'reset, not carried out', $broken, step => { reset => 'before' }, again => [ 1, '1|2', 2 ] ],
	[ 'reset, carried out', $broken, step => { reset => 'after' }, again => [ 1, '1|2', 2 ] ],
	[ 'closed without a byte', $broken, step => { raw => '' }, again => [ 1, '1|2', 2 ] ],
	[ 'time-out, not carried out', $broken, step => { hold => \1 }, options => \%short ],
	[ 'time-out, carried out', $broken, step => { apply => \1, hold => \1 }, options => \%short ],
	[ '2xx cut off', $broken, step => { real => \1, truncate => 12 }, again => [ 1, 1, 2 ] ],
	[ '2xx cut off, chunked', $broken, step => { real => \1, truncate => 12, chunked => \1 } ],
	[ '422 cut off', [ 'KC422', 'KC006', 'KC006', 'failed', 'queued' ], step => { error(422, 'form_param_missing'), truncate => 12 }, again => [ 1, 1, 2 ] ],
	[ '404 cut off', [ 'KC404', 'KC006', 'KC006', 'failed', 'queued' ], step => { error(404, 'resource_not_found'), truncate => 12 } ],

	# refusals
	[ '400', $refusal->(400), step => { error(400, 'request_body_invalid') }, again => [ 1, 1, 1 ] ],
	[ '401', [ ('KC401') x 3, 'queued', 'queued' ], step => { error(401, 'clerk_key_invalid') }, uncounted => 1, again => [ 1, 1, 1 ] ],
	[ '403', $refusal->(403), step => { error(403, 'authorization_invalid') }, again => [ 1, 1, 1 ] ],
	[ '404', $refusal->(404), step => { error(404, 'resource_not_found') }, again => [ 1, 1, 1 ] ],
	[ '408', $later->(408), step => { error(408, 'timeout') }, again => [ 1, 1, 2 ] ],
	[ '409 resource_locked', $later->(409), step => { error(409, 'resource_locked') } ],
	[ '409 conflict', $refusal->(409), step => { error(409, 'conflict') } ],
	[ '413', $refusal->(413), step => { error(413, 'request_body_too_large') } ],
	[ '422', $refusal->(422), step => { error(422, 'form_param_missing') }, again => [ 1, 1, 1 ] ],
	[ '429, Retry-After: 0', $later->(429), step => { error(429, 'too_many_requests', 'Retry-After' => '0') }, again => [ 2, 2, 2 ] ],

	# errors of the server's
	[ '500', $server_error->(500), step => { error(500, 'internal_clerk_error') }, again => [ 1, 1, 2 ] ],
	[ '502 in HTML', $server_error->(502), step => { html(502) }, again => [ 1, 1, 2 ] ],
	[ '503', $later->(503), step => { error(503, 'service_unavailable') }, again => [ 1, 1, 2 ] ],
	[ '503, Retry-After: 0', $later->(503), step => { error(503, 'service_unavailable', 'Retry-After' => '0') }, again => [ 2, 2, 2 ] ],
	[ '503 in HTML', $server_error->(503), step => { html(503) } ],
	[ '504', $server_error->(504), step => { error(504, 'gateway_timeout') }, again => [ 1, 1, 2 ] ],

	# answers that are none
	[ 'redirect', $useless, step => { status => 307, headers => { Location => '/v1/enterprise_connections/elsewhere' } } ],
	[ 'empty', $useless, step => success(sub { '' }), again => [ 1, 1, 2 ] ],
	[ 'not JSON', $useless, step => success(sub { 'certainly' }), again => [ 1, 1, 2 ] ],
	[ 'half of the JSON', $useless, step => success(sub { substr $_[0], 0, -5 }) ],
	[ 'an array', $useless, step => success(sub { "[$_[0]]" }) ],
	[ 'not UTF-8', $useless, step => success(sub { $_[0] =~ s/MARK/\xff/gr }) ],
	[ 'a NUL byte', $useless, step => success(sub { $_[0] =~ s/MARK/\0/gr }) ],
	[ 'a NUL in a text', $useless, step => success(sub { $_[0] =~ s/MARK/\\u0000/gr }) ],
	[ 'too large', $useless, step => sub { { status => success_status($_[0]), fill => { size => 100_000, prefix => '{"id": "x", "name": "' } } },
		options => { max_response_size => '64kB' } ],
	[ 'another kind of object', $useless, step => success(sub { $_[1]{right} eq 'page' ? other_object($_[1]) =~ s/"data"/"members"/r : other_object($_[1]) }) ],
	[ 'another id', $useless, step => success(sub { $_[0] =~ s/entconn_\d+/entconn_other/gr }), not_for => qr/post|page|url/ ],
	[ 'gzip', $useless, step => sub { my ($operation, $n) = @_;
			my $text = right($operation, $n);
			IO::Compress::Gzip::gzip(\$text, \my $zipped);
			return { status => success_status($operation), headers => { 'Content-Type' => 'application/json', 'Content-Encoding' => 'gzip' },
				body_base64 => encode_base64($zipped, '') } } ],
);

# What is right in single cells: sqlstate, the number of requests, state, the
# rows that are tracked (as they were before, if not said; either: or not), and a
# text that the messages contain.
my %special = (
	# gone at Clerk: the aim is reached, or the key gets another connection
	'404/delete'                      => { sqlstate => '00000', tracked => 0, says => 'did not exist at Clerk any more' },
	'404/upsert that updates'         => { sqlstate => '00000', seen => 2, tracked => 1 },
	'404/outbox: delete'              => { state => 'delivered', sqlstate => '02000', tracked => 0 },
	'404/outbox: upsert that updates' => { state => 'delivered', sqlstate => '', seen => 2, tracked => 1 },

	# so short a time may be over at once, so that it is looked up in the same
	# turn; whether it was carried out is found out, not guessed
	map({ my $kind = $_; map { ("time-out, $_/outbox: $kind" => { state => 'in_doubt|delivered', sqlstate => 'KC007|', seen => '1|2|3', either => 1,
		posts => $_ eq 'carried out' ? '1' : '1|2' }) } 'carried out', 'not carried out' } 'create', 'upsert that creates'),

	# among many, a 429 holds back all of them, and is tried again
	'429, Retry-After: 0/batch'  => { sqlstate => '', seen => 2, tracked => 2 },
	'429, Retry-After: 0/mirror' => { sqlstate => '00000', seen => 2 },

	# a POST that was refused, but that makes nothing that counts
	'422 cut off/test run' => { sqlstate => 'KC006|KC422' },
	'404 cut off/test run' => { sqlstate => 'KC006|KC404' },

	# one that cannot be stored is named, and the others go on
	map({ ("a NUL in a text/$_" => { sqlstate => '00000', says => 'WARNING' }) } 'list', 'mirror', 'test runs'),
);

# ---------------------------------------------------------------------------
# What they are made of
# ---------------------------------------------------------------------------
sub error
{
	my ($status, $code, %headers) = @_;

	return (
		status  => $status,
		headers => { 'Content-Type' => 'application/json', %headers },
		body    => { errors => [ { message => 'no', long_message => 'Clerk says no.', code => $code } ], clerk_trace_id => 'trace_1' });
}

sub html
{
	my ($status) = @_;

	return (status => $status, headers => { 'Content-Type' => 'text/html' }, body => '<html><body>nginx</body></html>');
}

sub success_status
{
	my ($operation) = @_;

	return $operation->{meets} == $post ? 201 : 200;
}

# The right answer to an operation; MARK is somewhere in a text of it.
sub right
{
	my ($operation, $n) = @_;
	my $connection = sprintf '{"object": "enterprise_connection", "id": "entconn_%d", "name": "MARK", "provider": "saml_okta", "active": false, '
	  . '"domains": ["c%d.example"], "created_at": 1780000000000, "updated_at": 1790000000000}', $n, $n;

	return $connection if $operation->{right} eq 'connection';
	return sprintf '{"object": "enterprise_connection", "id": "entconn_%d", "deleted": true, "note": "MARK"}', $n if $operation->{right} eq 'deleted';
	return '{"url": "https://clerk.example/MARK"}' if $operation->{right} eq 'url';
	$connection = '{"object": "enterprise_connection_test_run", "id": "entctr_1", "status": "MARK"}' if $operation->{name} eq 'test runs';
	return sprintf '{"data": [%s], "total_count": 1}', $connection;
}

# An object of another kind, all else being as it should be.
sub other_object
{
	my ($operation) = @_;

	return '{"object": "organization", "id": "org_1", "name": "MARK"}' if $operation->{right} eq 'url';
	return right($operation, $operation->{n}) =~ s/"enterprise_connection"/"organization"/r;
}

# A step that spoils a right answer.
sub success
{
	my ($spoil) = @_;

	return sub {
		my ($operation, $n) = @_;

		return {
			status      => success_status($operation),
			headers     => { 'Content-Type' => 'application/json' },
			body_base64 => encode_base64($spoil->(right($operation, $n), { %$operation, n => $n }), '') };
	};
}

# N, in whatever there is.
sub number
{
	my ($what, $n) = @_;

	return { map { $_ => number($what->{$_}, $n) } keys %$what } if ref $what eq 'HASH';
	return $what =~ s/(?<=[\w-])N\b|(?<= )N\b|\bc\KN(?=\.)/$n/gr;
}

# A port that refuses, one whose backlog is full, one that resets.
my $closed = bound();
my ($full, @backlog) = (bound());
listen $full, 0 or die "could not listen: $!";
for (1 .. 4)
{
	socket my $socket, PF_INET, SOCK_STREAM | Socket::SOCK_NONBLOCK(), 0 or die "could not make a socket: $!";
	connect $socket, getsockname $full;
	push @backlog, $socket;
}
my $resets = start_server(
	sub {
		my ($socket) = @_;
		setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
		close $socket;
	});

sub bound
{
	socket my $socket, PF_INET, SOCK_STREAM, 0 or die "could not make a socket: $!";
	bind $socket, pack_sockaddr_in(0, INADDR_LOOPBACK) or die "could not bind: $!";
	return $socket;
}

sub url_of
{
	my ($socket) = @_;

	return 'http://127.0.0.1:' . (unpack_sockaddr_in(getsockname $socket))[0];
}

my $mock = start_mock('--secret-key' => 'sk_test_mock', '--secret-key' => 'sk_test_other');
my $node = clerk_node('matrix', $mock, conf => "fsync = off\nautovacuum = off\n",
	server => { timeout => '60s', connect_timeout => '30s', max_retries => 0, max_response_size => '8MB' });
my %urls = (closed => url_of($closed), full => url_of($full), resets => $resets->url);
my $session = session($node);
my $cells = 0;
my $wrong = 0;
our $again = '';

# ---------------------------------------------------------------------------
# One cell
# ---------------------------------------------------------------------------
sub alter
{
	my (%options) = @_;

	return '' unless %options;
	return 'ALTER SERVER clerk OPTIONS (' . join(', ', map { "SET $_ '$options{$_}'" } sort keys %options) . ");\n";
}

sub statements
{
	my ($operation, $fault, $n) = @_;
	my %normal  = (api_url => $mock->url, timeout => '60s', connect_timeout => '30s', max_response_size => '8MB');
	my %options = %{ $fault->{options} || {} };
	my $track   = sprintf q{SELECT FROM track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_%d", "name": "Known %d",
		"provider": "saml_okta", "domains": ["c%d.example"], "updated_at": 1780000000000}', 'clerk', 'k%d');}, ($n) x 4;

	$options{api_url} = $urls{ $fault->{server} } if $fault->{server};
	$track = '' unless $operation->{tracked};
	return join "\n",
	  'DELETE FROM enterprise_connection_requests; DELETE FROM enterprise_connections;', $track,
	  q{\echo @before}, 'SELECT count(*), md5(string_agg(c::text, chr(10) ORDER BY id)) FROM enterprise_connections c;',
	  alter(%options), q{\echo @call}, $operation->{sql} . ';', q{\echo @sqlstate :SQLSTATE},
	  ($operation->{outbox} ? 'CALL deliver_enterprise_connections();' : ()), q{\echo @called :SQLSTATE},
	  alter(map { $_ => $normal{$_} } keys %options),
	  'SELECT state, attempts, error ->> $$sqlstate$$ FROM enterprise_connection_requests;',
	  q{\echo @after}, 'SELECT count(*), md5(string_agg(c::text, chr(10) ORDER BY id)) FROM enterprise_connections c;',
	  q{\echo @lives}, 'SELECT pg_backend_pid();';
}

# Either of several, separated by "|".
sub one_of
{
	my ($value, $right) = @_;

	return grep { $_ eq $value } split(/\|/, $right, -1), $right eq '' ? '' : ();
}

# What is wrong with the texts of an error, whatever error it is.
sub faults_of_texts
{
	my ($texts) = @_;
	my @wrong;

	push @wrong, 'it shows the key' if $texts =~ /sk_test/;
	push @wrong, "it speaks of libcurl's insides" if $texts =~ /pre-request|callback|curl/i;
	push @wrong, 'an empty DETAIL' if $texts =~ /^DETAIL:\s*(?:\.|$)/m;
	push @wrong, 'no HINT' if $texts =~ /ERROR:  KC(?:408|5\d\d|00[167])/ && $texts !~ /^HINT:  ./m;
	return @wrong;
}

sub cell
{
	my ($operation, $fault, $columns, $n) = @_;
	my $cell    = "$fault->{name}/$operation->{name}";
	my $special = $special{$cell} || {};
	my $kind    = { post => 0, write => 1, read => 2 }->{ $operation->{kind} };
	my $step    = ref $fault->{step} eq 'CODE' ? $fault->{step}->($operation, $n) : $fault->{step};
	my $numbered = { map { $_ => number($operation->{$_}, $n) } grep { $_ ne 'n' } keys %$operation };
	my %right   = (
		sqlstate => $columns->[$kind],
		seen     => $fault->{server} ? 0 : 1,
		state    => $operation->{outbox} ? $columns->[ 3 + ($operation->{kind} eq 'write') ] : undef,
		attempts => $fault->{uncounted} ? 0 : 1,
		%$special);

	$mock->reset;
	$mock->seed({ connections => [ { object => 'enterprise_connection', id => "entconn_$n", name => "Known $n", provider => 'saml_okta',
		active => \0, domains => ["c$n.example"], created_at => 1780000000000, updated_at => 1780000000000 } ] })
	  if ($operation->{tracked} || $operation->{exists}) && $fault->{name} ne '404';
	$mock->script({ %$step, match => $numbered->{meets} }) if $step;
	my $result = $session->run(statements($numbered, $fault, $n), 120);
	my ($seen, $beside, $posts) = (0, 0, 0);
	for ($mock->requests)
	{
		($_->{raw_body} // '') =~ /Beside/ ? $beside++ : $seen++;
		$posts++ if $_->{method} eq 'POST';
	}
	my $made = grep { $_->{name} eq "Cell $n" } $mock->connections;

	# what is left of the fault, and the next call
	$mock->unscript;
	my $next = $session->run(($fault->{name} eq '401' ? sprintf(q{ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key '%s');},
		$n % 2 ? 'sk_test_other' : 'sk_test_mock') : '') . 'SELECT count(*) >= 0 FROM list_enterprise_connections()', 120);

	my %part = $result->{out} =~ /^\@(\w+) ?((?:.*\n(?!\@))*.*)/mg;
	my ($before, $after) = map { [ split /\|/, $part{$_} =~ s/\A\s+|\s+\z//gr ] } qw(before after);
	my ($sqlstate) = $part{sqlstate} =~ /\A(\w+)/;
	my @wrong;

	if ($operation->{batch})
	{
		my ($first, $second) = split /\n/, $part{call} =~ s/\A\n//r;
		$sqlstate = (split /\|/, $first // '')[0] // '';
		push @wrong, 'the other one failed: ' . ($second // '') if $beside != 1 && !$fault->{server} || ($second // '') ne '|' && !$fault->{server};
	}
	if ($operation->{outbox})
	{
		my ($row) = $part{called} =~ /\n(.*)/;
		my ($state, $attempts, $error) = split /\|/, $row // '', -1;

		push @wrong, "enqueueing or delivering: $sqlstate $part{called}" if $sqlstate ne '00000' || $part{called} !~ /\A00000/;
		push @wrong, 'state ' . ($state // '-') . ", not $right{state}" unless one_of($state // '', $right{state});
		push @wrong, ($attempts // '-') . " attempts, not $right{attempts}" if ($attempts // '') ne $right{attempts} && ($state // '') ne 'delivered';
		$sqlstate = $error // '';
	}
	if ($fault->{name} eq 'gzip' && ($sqlstate eq '00000' || $sqlstate eq ''))
	{
		# asked for, and understood
		$right{sqlstate} = $sqlstate;
		@wrong = grep { !/^state delivered/ } @wrong;
		$right{changed} = 1;
	}
	elsif ($fault->{name} eq 'gzip')
	{
		push @wrong, 'it does not say that the answer is compressed'
		  unless "$result->{err} $part{call} " . ($operation->{outbox} ? $node->safe_psql('postgres', 'SELECT error FROM enterprise_connection_requests') : '') =~ /gzip|compress/i;
	}
	push @wrong, "SQLSTATE $sqlstate, not $right{sqlstate}" unless one_of($sqlstate, $right{sqlstate});
	push @wrong, "$seen requests seen, not $right{seen}" unless one_of($seen, $right{seen}) || $fault->{name} eq 'reset at once';
	push @wrong, "$posts POSTs, not $right{posts}" unless one_of($posts, $right{posts} // $posts);
	push @wrong, 'it was made twice' if $made > 1;
	if (defined $right{tracked})
	{
		push @wrong, "$after->[0] rows tracked, not $right{tracked}" if $after->[0] != $right{tracked};
	}
	elsif (!$right{changed} && !$right{either} && !$operation->{batch} && $right{sqlstate} ne '00000')
	{
		push @wrong, "tracked before: @$before, after: @$after" if "@$before" ne "@$after";
	}
	push @wrong, "the session is another" if ($part{lives} // '') !~ /\A\s*@{[$session->pid]}\b/;
	push @wrong, "the next call: $next->{err}" if defined $next->{sqlstate} || $next->{out} ne 't';
	push @wrong, faults_of_texts($result->{err});
	push @wrong, "it does not say $right{says}" if defined $right{says} && $result->{err} !~ /$right{says}/;
	ok(!@wrong, "$cell$again") or do { $wrong++; diag join("\n", @wrong), "\n", $result->{out} =~ /\@(call.*)/s, "\n", $result->{err} };
	return;
}

# ---------------------------------------------------------------------------
# The matrix
# ---------------------------------------------------------------------------
sub each_cell
{
	my ($code) = @_;

	for (@faults)
	{
		my ($name, $columns, %fault) = @$_;

		for my $operation (@operations)
		{
			next if $fault{not_for} && "$operation->{kind} $operation->{right}" =~ $fault{not_for};
			next if $only ne '' && "$name/$operation->{name}" !~ /$only/;
			$code->($operation, { name => $name, %fault }, $columns, ++$cells);
		}
	}
	return;
}

each_cell(\&cell);

# Retries: where nothing can happen twice, as often as max_retries says. The
# fault lasts.
sub retried
{
	my ($operation, $fault, $columns, $n) = @_;
	my $step = ref $fault->{step} eq 'CODE' ? $fault->{step}->($operation, $n) : $fault->{step};
	my $kind = { post => 0, write => 1, read => 2 }->{ $operation->{kind} };
	my $meets = number($operation->{meets}, $n);

	$mock->reset;
	$mock->seed({ connections => [ { object => 'enterprise_connection', id => "entconn_$n", name => "Known $n", provider => 'saml_okta',
		active => \0, domains => ["c$n.example"], created_at => 1780000000000, updated_at => 1780000000000 } ] })
	  if $operation->{tracked} || $operation->{exists};
	$mock->script({ %$step, match => $meets, times => 0 }) if $step;
	my $result = $session->run(statements({ %$operation, sql => number($operation->{sql}, $n), tracked => 0 }, $fault, $n), 120);
	my ($sqlstate) = $result->{out} =~ /^\@sqlstate (\w+)/m;
	my $seen = () = $mock->requests;

	ok(one_of($sqlstate, $columns->[$kind]), "one retry, $fault->{name}/$operation->{name}: $sqlstate")
	  or diag "not $columns->[$kind]", "\n", $result->{err};
	ok(one_of($seen, $fault->{again}[$kind]), "one retry, $fault->{name}/$operation->{name}: $seen requests seen");
	return;
}

my %with_retry = map { $_ => 1 } 'create', 'update', 'get', $long ? ('list', 'test run', 'delete') : ();
$session->query(q{ALTER SERVER clerk OPTIONS (SET max_retries '1')});
each_cell(sub { retried(@_) if $_[1]{again} && $with_retry{ $_[0]{name} } && !($_[1]{name} eq '404' && $_[0]{name} eq 'delete') });
$session->query(q{ALTER SERVER clerk OPTIONS (SET max_retries '0')});

# Once more, each with a connection of its own
if ($long)
{
	each_cell(
		sub {
			$session->stop;
			$session = session($node);
			local $again = ', in a new session';
			cell(@_);
		});
}

note "$cells cells, $wrong wrong";
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');
done_testing();
