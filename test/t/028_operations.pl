# docs/operations.md: each of its ten failures is provoked, seen by the query
# that stands there, and mended by the statement that stands there.

use strict;
use warnings;

use ClerkTest;
use File::Basename qw(dirname);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $mock = start_mock();
my $node = clerk_node('main', $mock, server => { timeout => '2s' }, conf => <<'CONF');
fsync = off
shared_preload_libraries = 'pg_clerk'
pg_clerk.naptime = '1s'
restart_after_crash = on
autovacuum = off
CONF
my %blocks = blocks(slurp_file(dirname(__FILE__) . '/../../docs/operations.md'));

# The SQL blocks of each numbered section: a query, and a statement.
sub blocks
{
	my ($text) = @_;
	my %found;

	while ($text =~ /^### (\d+)\. [^\n]*\n(.*?)(?=^##|\z)/msg)
	{
		my ($number, $section) = ($1, $2);
		$found{$number} = [ $section =~ /^```sql\n(.*?)^```$/msg ];
	}
	return %found;
}

# ask(NUMBER, {variable => value}, database): what the section's query shows.
sub ask
{
	my ($number, $variables, $database) = @_;

	return run_block($number, 0, $variables, $database);
}

# mend(NUMBER, ...): what the section's statement returns.
sub mend
{
	my ($number, $variables, $database) = @_;

	return run_block($number, 1, $variables, $database);
}

sub run_block
{
	my ($number, $which, $variables, $database) = @_;
	my ($out, $err);
	my $status = $node->psql($database || 'postgres', $blocks{$number}[$which],
		stdout => \$out, stderr => \$err,
		extra_params => [ map { ('-v', "$_=$variables->{$_}") } sort keys %{ $variables || {} } ]);

	is($status, 0, "$number: the " . ($which ? 'statement' : 'query') . ' runs') or diag $err;
	return $out;
}

# Until the query shows something like it.
sub shows
{
	my ($number, $like, $what, $variables, $database) = @_;
	my $seen = '';

	ok(eval {
			wait_until(sub {
				$node->psql($database || 'postgres', $blocks{$number}[0], stdout => \$seen, stderr => \my $err,
					extra_params => [ map { ('-v', "$_=$variables->{$_}") } sort keys %{ $variables || {} } ]);
				return $seen =~ $like;
			}, $what, 60);
		}, "$number: $what") or diag $seen;
	return $seen;
}

sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database || 'postgres', $sql);
}

sub enqueue
{
	my ($number, %params) = @_;
	my $json = JSON::PP->new->canonical->encode({ name => "Org $number", provider => 'saml_okta', domains => ["org$number.example"], %params });

	my ($out, $err);
	$node->psql('postgres', "SELECT enqueue_enterprise_connection('upsert', '$json', key => 'org:$number')", stdout => \$out, stderr => \$err);
	return $out;
}

sub becomes
{
	my ($number, $state, $what) = @_;

	is(eval { wait_until(sub { query("SELECT state FROM enterprise_connection_status WHERE key = 'org:$number'") eq $state }, $what, 60) } || 0,
		1, "$number: $what") or diag query("SELECT * FROM enterprise_connection_status WHERE key = 'org:$number'");
	return;
}

sub is_healthy
{
	my ($what) = @_;
	my $seen;

	ok(eval { wait_until(sub { ($seen = query('SELECT what, message FROM enterprise_connection_health')) eq '' }, 'health', 20) },
		"$what: nothing needs a person any more") or diag $seen;
	return;
}

is(join(',', sort { $a <=> $b } keys %blocks), join(',', 1 .. 10), 'the document has ten failures');
is(scalar @{ $blocks{$_} }, 2, "$_: a query and a statement") for 1 .. 10;
is_healthy('at first');

# 1: wrong key
query(q{ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_wrong')});
enqueue(1);
shows(1, qr/paused.*1 requests wait since.*Secret Key.*ALTER USER MAPPING FOR PUBLIC SERVER clerk/s, 'health shows the pause, and the statement');
like(query(q{SELECT waits FROM enterprise_connection_status WHERE key = 'org:1'}), qr/^until Clerk accepts the secret key, since/, '1: status says why');
mend(1, { secret_key => 'sk_test_mock' });
becomes(1, 'delivered', 'delivered with the right key');
is_healthy('1');

# 2: revoked key, which is valid again later
$mock->call('POST', '/_mock/settings', { secret_keys => ['sk_test_other'] });
enqueue(2);
shows(2, qr/^1\|.*Secret Key/, 'the queue shows the pause');
$mock->call('POST', '/_mock/settings', { secret_keys => ['sk_test_mock'] });
mend(2);
becomes(2, 'delivered', 'the key is tried at once, not after a minute');
is_healthy('2');

# 3: no worker
query('ALTER SYSTEM SET pg_clerk.worker = off');
query('SELECT pg_reload_conf()');
wait_until(sub { query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) == 0 }, 'no worker');
enqueue(3);
like(ask(3), qr/^org:3\|queued\|for a worker: pg_clerk\.worker is off$/, '3: status says why');
like(query('SELECT what, hint FROM enterprise_connection_health'), qr/^no worker\|Set pg_clerk\.worker = on/, '3: and so does health');
mend(3);
becomes(3, 'delivered', 'delivered by the session');
is_healthy('3');
query('ALTER SYSTEM RESET pg_clerk.worker');
query('SELECT pg_reload_conf()');

# 4: refused domain
my $request = enqueue(4, domains => ['localhost']);
like(shows(4, qr/failed/, 'failed, found by the domain of what was never created'), qr/^$request\|org:4\|failed\|KC422\|.*domains/, '4: with the reason');
like(query('SELECT what, key, request, hint FROM enterprise_connection_health'), qr/^failed\|org:4\|$request\|.*retry_enterprise_connection_request\($request\)/, '4: health has the statement');
mend(4, { request => $request });
becomes(4, 'delivered', 'delivered with another domain');
is_healthy('4');

# 5: bad metadata, until the customer mends what is behind the URL
$mock->call('POST', '/_mock/script', { match => { body_contains => 'bad-idp' }, times => 1, status => 422, headers => { 'Content-Type' => 'application/json' },
	body => { errors => [ { message => 'is invalid', long_message => 'metadata could not be fetched', code => 'form_param_value_invalid', meta => { param_name => 'saml.idp_metadata_url' } } ] } });
enqueue(5, saml => { idp_metadata_url => 'https://bad-idp.example/metadata' });
like(shows(5, qr/failed/, 'failed'), qr/KC422\|.*idp_metadata_url/s, '5: with the reason');
is(mend(5), 1, '5: one is retried');
becomes(5, 'delivered', 'delivered');
is_healthy('5');

# 6: Clerk is down
$mock->call('POST', '/_mock/script', { match => { body_contains => 'Org 6' }, times => 4, status => 503, headers => { 'Content-Type' => 'application/json' },
	body => { errors => [ { message => 'is down', code => 'service_unavailable' } ] } });
enqueue(6);
shows(6, qr/^org:6\|queued\|[1-4]\|.*KC503\|.*\|until .* to be tried again$/, 'status shows the error and the next attempt');
wait_until(sub { my $n = mend(6); sleep 0.2; query(q{SELECT state FROM enterprise_connection_status WHERE key = 'org:6'}) eq 'delivered' }, 'Clerk to be back', 60);
becomes(6, 'delivered', 'delivered when Clerk is back');
is_healthy('6');

# 7: 429
$mock->call('POST', '/_mock/script', { match => { body_contains => 'Org 7' }, times => 1, status => 429, headers => { 'Retry-After' => '3000', 'Content-Type' => 'application/json' }, body => { errors => [] } });
enqueue(7);
wait_until(sub { query(q{SELECT attempts FROM enterprise_connection_status WHERE key = 'org:7'}) == 1 }, 'an attempt');
enqueue(71);
shows(7, qr/^queued\|2\|[-+:.\d ]+\|Clerk has answered 429/, 'the queue shows until when the server is held back');
like(query(q{SELECT waits FROM enterprise_connection_status WHERE key = 'org:71'}), qr/^until .*429/, '7: and so does the status of another key');
is(query(q{SELECT what FROM enterprise_connection_health}), 'held back', '7: and health');
is(query(q{SELECT held_until < now() + interval '61 minutes' FROM enterprise_connection_queue}), 't', '7: an hour at most');
mend(7);
becomes($_, 'delivered', 'delivered at once') for 7, 71;
is_healthy('7');

# ALTER SERVER does it, too, but for the request that was answered 429
$mock->call('POST', '/_mock/script', { match => { body_contains => 'Org 72' }, times => 1, status => 429, headers => { 'Retry-After' => '3000', 'Content-Type' => 'application/json' }, body => { errors => [] } });
enqueue(72);
wait_until(sub { query(q{SELECT attempts FROM enterprise_connection_status WHERE key = 'org:72'}) == 1 }, 'an attempt');
enqueue(73);
query(q{ALTER SERVER clerk OPTIONS (ADD max_concurrency '8')});
becomes(73, 'delivered', 'ALTER SERVER lets the others go on');
is(query(q{SELECT state FROM enterprise_connection_status WHERE key = 'org:72'}), 'queued', '7: not the one that was answered 429');
is(query(q{SELECT retry_enterprise_connection_requests('clerk', 'KC4%')}), 1, '7: that is retried by its error');
becomes(72, 'delivered', 'and delivered');

# 8: a worker is killed while a request is on its way
$mock->call('POST', '/_mock/script', { match => { body_contains => 'Org 8' }, times => 1, delay_after_ms => 60000, apply => JSON::PP::true, status => 200 });
$request = enqueue(8);
shows(8, qr/^$request\|sending\|1/, 'it is on its way');
kill_and_restart($node, query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}));
like(ask(8), qr/^$request\|(sending|in_doubt)/, '8: it stays so after the crash');
like(mend(8, { request => $request }), qr/^entconn_/, '8: and is found at Clerk');
is(scalar(grep { $_->{name} eq 'Org 8' } @{ $mock->call('GET', '/_mock/connections') }), 1, '8: once');
is_healthy('8');

# 9: a locked row
query('ALTER SYSTEM SET pg_clerk.worker = off');
query('SELECT pg_reload_conf()');
wait_until(sub { query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) == 0 }, 'no worker');
$request = enqueue(9);
my $locker = session($node);
$locker->query('BEGIN');
$locker->query("SELECT id FROM enterprise_connection_requests WHERE id = $request FOR UPDATE");
query('ALTER SYSTEM RESET pg_clerk.worker');
query('SELECT pg_reload_conf()');
enqueue(91);
becomes(91, 'delivered', 'others go on');
is(query(q{SELECT state FROM enterprise_connection_status WHERE key = 'org:9'}), 'queued', '9: not this one');
my ($pid) = ask(9) =~ /^(\d+)\|/;
is($pid, $locker->pid, '9: the query shows who has it locked');
is(mend(9, { pid => $pid }), 't', '9: which is ended');
becomes(9, 'delivered', 'delivered');
$locker->stop;
is_healthy('9');

# 10: a restored copy
query('ALTER SYSTEM SET pg_clerk.worker = off');
query('SELECT pg_reload_conf()');
wait_until(sub { query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) == 0 }, 'no worker');
enqueue(10);
query('CREATE DATABASE copy TEMPLATE postgres', 'template1');
query(q{SELECT cancel_enterprise_connection_requests('clerk')});
query('ALTER SYSTEM RESET pg_clerk.worker');
query('SELECT pg_reload_conf()');
shows(10, qr/^not armed\|1 requests are held.*\|.*arm_enterprise_connections\('clerk'\)/, 'the copy holds what it has', {}, 'copy');
is(query(q{SELECT state, waits FROM enterprise_connection_status WHERE key = 'org:10'}, 'copy'),
	"held|until the server is armed in this database: SELECT arm_enterprise_connections('clerk')", '10: status says so');
mend(10, {}, 'copy');
ok(eval { wait_until(sub { query(q{SELECT state FROM enterprise_connection_status WHERE key = 'org:10'}, 'copy') eq 'delivered' }, 'delivery', 60) }, '10: delivered from the copy');

unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:/, 'nothing crashed but what was killed');
done_testing();
