# A server or a role is never known by its name alone. One that is dropped and
# made anew under the same name inherits nothing: no rows, no armed state, no
# requests, no secrets. One that is renamed keeps all that is its own, and who
# takes the old name gets none of it.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $mock  = start_mock();
my $thief = start_mock('--secret-key' => 'sk_test_eve');    # another host, by which eve learns what is sent to it
my $node  = PostgreSQL::Test::Cluster->new('identity');
my $database;
my $databases = 0;

$node->init;
$node->append_conf('postgresql.conf', <<'END');
shared_preload_libraries = 'pg_clerk'
pg_clerk.worker = off
pg_clerk.naptime = '1s'
fsync = off
END
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE eve LOGIN');

# As a superuser, or as somebody; an error of it ends the test.
sub query
{
	my ($sql, $user) = @_;

	return $node->safe_psql($database, $sql, extra_params => [ '-U', $user || superuser() ]);
}

my $superuser;

sub superuser
{
	return $superuser ||= $node->safe_psql('postgres', 'SELECT current_user');
}

# The messages of statements that may fail.
sub messages
{
	my ($sql, $user) = @_;
	my ($status, $out, $err) = $node->psql($database, "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $user || superuser() ]);

	return $err;
}

sub worker
{
	my ($on) = @_;

	$node->append_conf('postgresql.conf', "pg_clerk.worker = $on\n");
	$node->reload;
	wait_until(
		sub { $node->safe_psql('template1', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker'}) == 0 },
		'the workers to leave', 60)
	  if $on eq 'off';
	return;
}

# A database of its own, with server clerk, on which alice has USAGE; nothing
# is delivered yet.
sub fresh
{
	worker('off');
	$_->reset for $mock, $thief;
	$database = 'identity_' . ++$databases;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	query('CREATE EXTENSION pg_clerk');
	clerk_server($node, $mock, dbname => $database);
	query('GRANT USAGE ON FOREIGN SERVER clerk TO alice; GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO eve');
	return;
}

sub params
{
	my ($name, $secret) = @_;

	return sprintf q{'{"name": "%s", "provider": "oidc_custom", "domains": ["%s.example"], "oidc": {"client_id": "c", "client_secret": "%s", "discovery_url": "https://idp.example/"}}'},
	  $name, lc($name) =~ s/\W/-/gr, $secret // 'secret';
}

sub state_of
{
	my ($request) = @_;

	return query("SELECT state FROM enterprise_connection_requests WHERE id = $request");
}

sub is_delivered
{
	my ($request, $what) = @_;

	eval { wait_until(sub { query("SELECT finished_at IS NOT NULL FROM enterprise_connection_requests WHERE id = $request") eq 't' }, 'the end', 30) };
	is(state_of($request), 'delivered', "$what: delivered")
	  or diag query("SELECT to_jsonb(r) FROM enterprise_connection_requests r WHERE id = $request");
	return;
}

sub at_clerk
{
	return join ', ', sort map { $_->{name} } $mock->connections;
}

# What a role sees, anywhere.
sub sees
{
	my ($user) = @_;

	return query(
		join(' + ', map { "(SELECT count(*) FROM $_)" } qw(enterprise_connections enterprise_connection_requests
			enterprise_connection_status enterprise_connection_queue enterprise_connection_certificates)) =~ s/^/SELECT /r, $user);
}

# Eve's server of that name, at her own host.
sub eves_server
{
	my ($name) = @_;

	query(sprintf(q{
		CREATE SERVER %s FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0');
		CREATE USER MAPPING FOR PUBLIC SERVER %s OPTIONS (secret_key 'sk_test_eve')}, $name, $thief->url, $name), 'eve');
	return;
}

# She uses it, directly and by the worker; so it is armed, and the worker has
# looked at all that is due.
sub eve_uses
{
	my ($what, $key) = @_;

	like(query(sprintf(q{SELECT create_enterprise_connection(%s)}, params('Eves own')), 'eve'), qr/Eves own/, "$what: the new server works, as any new one");
	worker('on');
	is_delivered(query(sprintf(q{SELECT enqueue_enterprise_connection('upsert', %s, key => 'eves')}, params('Eves second')), 'eve'), "$what: by the worker, too");
	query('CALL deliver_enterprise_connections()');
	# a key of the old server's is a new one here
	is_delivered(query(sprintf(q{SELECT enqueue_enterprise_connection('upsert', %s, key => '%s')}, params('Eves third'), $key), 'eve'), "$what: a key of the old one");
	is_delivered(query(q{SELECT enqueue_enterprise_connection('delete', key => 'alices second')}, 'eve'), "$what: the deletion of a key of the old one");
	return;
}

sub nothing_stolen
{
	my ($what) = @_;
	my @requests = $thief->requests;
	my $all = join "\n", map { "$_->{method} $_->{target} " . ($_->{raw_body} // '') } @requests;

	unlike($all, qr/Alice|alice/i, "$what: nothing of alice's comes to eve");
	unlike($all, qr/s3cr3t/, "$what: nor a secret");
	is(join(' ', map { $_->{method} } @requests), 'POST POST POST', "$what: only what is eve's own");
	return;
}

# ---------------------------------------------------------------------------
# A renamed server keeps its keys, its rows, its requests, and stays armed
# ---------------------------------------------------------------------------
fresh();
query(sprintf q{SELECT upsert_enterprise_connection('%s', %s)}, $_, params($_)) for 'a', 'b', 'c';
my $waiting = query(sprintf(q{SELECT enqueue_enterprise_connection('upsert', %s, key => 'd')}, params('d')), 'alice');
my $before = query(q{SELECT string_agg(key || id, ',' ORDER BY key) FROM enterprise_connections});
query('ALTER SERVER clerk RENAME TO clerk_prod');
query("ALTER DATABASE $database SET pg_clerk.server = 'clerk_prod'");
is(query(q{SELECT string_agg(key || id, ',' ORDER BY key) FROM enterprise_connections WHERE server = 'clerk_prod'}), $before, 'renamed: the rows are under the new name');
is(query('SELECT count(*) FROM enterprise_connections', 'alice'), 3, 'renamed: who has USAGE sees them');
unlike(messages(q{SELECT upsert_enterprise_connection('a', '{"name": "a again"}')}, 'alice'), qr/ERROR/, 'renamed: still armed');
my $deletes = query(q{SELECT enqueue_enterprise_connection('delete', key => 'b')}, 'alice');
my $updates = query(q{SELECT enqueue_enterprise_connection('upsert', '{"name": "c again"}', key => 'c')}, 'alice');
worker('on');
is_delivered($waiting, 'renamed: what was enqueued before');
is_delivered($deletes, 'renamed: a deletion by its key');
is_delivered($updates, 'renamed: an upsert of a key');
is(at_clerk(), 'a again, c again, d', 'renamed: all that, and nothing else, at Clerk');
is(query(q{SELECT string_agg(key, ',' ORDER BY key) FROM enterprise_connections WHERE server = 'clerk_prod'}), 'a,c,d', 'renamed: tracked');
is(query(q{SELECT count(*) FROM mirror_enterprise_connections()}), 0, 'renamed: a mirror finds nothing new');

# and back
query('ALTER SERVER clerk_prod RENAME TO clerk');
query("ALTER DATABASE $database RESET pg_clerk.server");
unlike(messages(q{SELECT upsert_enterprise_connection('a', '{"name": "a back"}')}, 'alice'), qr/ERROR/, 'renamed back: armed');
is(at_clerk(), 'a back, c again, d', 'renamed back: the same connection');

# ---------------------------------------------------------------------------
# A server that is dropped, and another one of its name
# ---------------------------------------------------------------------------
sub alices_database
{
	fresh();
	query(sprintf(q{SELECT upsert_enterprise_connection('alices', %s)}, params('Alice Corp', 's3cr3t-one')), 'alice');
	query(sprintf(q{SELECT upsert_enterprise_connection('alices second', %s)}, params('Alice Second', 's3cr3t-two')), 'alice');
	return query(sprintf(q{SELECT enqueue_enterprise_connection('create', %s)}, params('Alices Free', 's3cr3t-three')), 'alice'),
	  query(sprintf(q{SELECT enqueue_enterprise_connection('upsert', %s, key => 'alices third')}, params('Alices Third', 's3cr3t-four')), 'alice'),
	  query(q{SELECT enqueue_enterprise_connection('delete', key => 'alices second')}, 'alice'),
	  query(q{SELECT enqueue_enterprise_connection('update', '{"name": "Alice again", "oidc": {"client_secret": "s3cr3t-five"}}', key => 'alices')}, 'alice');
}

my @old = alices_database();
query('DROP SERVER clerk CASCADE');
is(sees('eve'), 0, 'dropped: eve sees nothing');
eves_server('clerk');
is(sees('eve'), 0, 'dropped and made anew: nor does the new owner of the name');
eve_uses('dropped and made anew', 'alices');
nothing_stolen('dropped and made anew');
is(query('SELECT string_agg(name, $$, $$ ORDER BY name) FROM enterprise_connections', 'eve'), 'Eves own, Eves second, Eves third', 'dropped and made anew: she sees what is hers');
isnt(state_of($_), 'delivered', 'dropped and made anew: an old request is not delivered') for @old;
is(at_clerk(), 'Alice Corp, Alice Second', 'dropped and made anew: nothing happens at Clerk');
like(messages("SELECT cancel_enterprise_connection_request($old[0])", 'eve'), qr/ERROR:/, 'dropped and made anew: eve cannot touch it');

# The same, in one transaction, by the same owner: it is another one all the same
@old = alices_database();
query(sprintf q{
	BEGIN;
	DROP SERVER clerk CASCADE;
	CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0');
	CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_eve');
	GRANT USAGE ON FOREIGN SERVER clerk TO alice, eve;
	COMMIT}, $thief->url);
is(query('SELECT count(*) FROM enterprise_connections', 'eve'), 0, 'in one transaction: no row is inherited');
eve_uses('in one transaction', 'alices');
nothing_stolen('in one transaction');

# ---------------------------------------------------------------------------
# A renamed server, and another one under its old name: each has its own
# ---------------------------------------------------------------------------
@old = alices_database();
query('ALTER SERVER clerk RENAME TO clerk_old');
is(sees('eve'), 0, 'old name taken: eve sees nothing');
eves_server('clerk');
is(sees('eve'), 0, 'old name taken: nor with a server of that name');
eve_uses('old name taken', 'alices');
is_delivered($_, "old name taken: alice's request") for @old;
nothing_stolen('old name taken');
is(at_clerk(), 'Alice again, Alices Free, Alices Third', "old name taken: alice's requests have gone to her own server");
is(query(q{SELECT string_agg(DISTINCT server::text, ',') FROM enterprise_connections}, 'alice'), 'clerk_old', 'old name taken: she sees what is hers');
is(query(q{SELECT string_agg(DISTINCT server::text, ',') FROM enterprise_connections}, 'eve'), 'clerk', 'old name taken: so does eve');

# The names of two servers exchanged, in one transaction
fresh();
clerk_server($node, $thief, dbname => $database, name => 'second', key => 'sk_test_eve');
query(sprintf q{SELECT upsert_enterprise_connection('same', %s, '%s')}, params("At $_"), $_) for 'clerk', 'second';
my @exchanged = map { query("SELECT enqueue_enterprise_connection('update', '{\"name\": \"Again at $_\"}', key => 'same', server => '$_')") } 'clerk', 'second';
query('BEGIN; ALTER SERVER clerk RENAME TO between; ALTER SERVER second RENAME TO clerk; ALTER SERVER between RENAME TO second; COMMIT');
worker('on');
is_delivered($_, 'names exchanged') for @exchanged;
is(join(', ', map { $_->{name} } $mock->connections), 'Again at clerk', 'names exchanged: the one');
is(join(', ', map { $_->{name} } $thief->connections), 'Again at second', 'names exchanged: the other');
is(query(q{SELECT string_agg(server || ': ' || name, ', ' ORDER BY name) FROM enterprise_connections}), 'second: Again at clerk, clerk: Again at second', 'names exchanged: the rows');

# ---------------------------------------------------------------------------
# Roles
# ---------------------------------------------------------------------------
sub with_role
{
	my ($role) = @_;

	fresh();
	query("CREATE ROLE $role LOGIN; GRANT USAGE ON FOREIGN SERVER clerk TO $role");
	return query(sprintf(q{SELECT enqueue_enterprise_connection('upsert', %s, key => 'k')}, params('Of the first', 's3cr3t-first')), $role);
}

# Dropped, and made anew
my $request = with_role('bob');
query('DROP OWNED BY bob; DROP ROLE bob; CREATE ROLE bob LOGIN; GRANT USAGE ON FOREIGN SERVER clerk TO bob');
is(query('SELECT count(*) FROM enterprise_connection_requests', 'bob'), 0, 'a new role of an old name sees no request');
is(query('SELECT sum(requests) FROM enterprise_connection_queue', 'bob'), 1, 'in the queue it sees no more than how many there are, as it has USAGE');
for my $call ("cancel_enterprise_connection_request($request)", "retry_enterprise_connection_request($request)", "await_enterprise_connection($request, '1 ms')")
{
	like(messages("SELECT $call", 'bob'), qr/ERROR:/, "$call: it cannot");
}
query('CALL deliver_enterprise_connections()', 'bob');
is(scalar($mock->requests), 0, 'it delivers nothing of the old one');
my $own = query(q{SELECT enqueue_enterprise_connection('upsert', '{"name": "Of the second", "provider": "saml_okta", "domains": ["second.example"]}', key => 'k')}, 'bob');
worker('on');
is_delivered($own, 'a new role of an old name: its own request');
my $sent = join "\n", map { $_->{raw_body} // '' } $mock->requests;
unlike($sent, qr/s3cr3t|Of the first/, 'it gets nothing of what the old one had enqueued, and nothing is sent in its name');
isnt(state_of($request), 'delivered', 'the old request is not delivered');
is(at_clerk(), 'Of the second', 'at Clerk there is what is its own');
worker('off');
$node->safe_psql($database, 'DROP OWNED BY bob');
$node->safe_psql('postgres', 'DROP ROLE bob');

# Renamed
$request = with_role('carol');
query('ALTER ROLE carol RENAME TO caroline');
is(query('SELECT count(*) FROM enterprise_connection_requests', 'caroline'), 1, 'a renamed role sees its request');
worker('on');
is_delivered($request, 'a renamed role');
unlike(messages("SELECT await_enterprise_connection($request)", 'caroline'), qr/ERROR/, 'and it may wait for it');
is(at_clerk(), 'Of the first', 'sent');
worker('off');
$node->safe_psql($database, 'DROP OWNED BY caroline');
$node->safe_psql('postgres', 'DROP ROLE caroline');

# Renamed, and another one under the old name, without USAGE
$request = with_role('dave');
query('ALTER ROLE dave RENAME TO david; CREATE ROLE dave LOGIN');
is(query('SELECT count(*) FROM enterprise_connection_requests', 'dave'), 0, 'who takes the name of a role sees nothing');
is(query('SELECT count(*) FROM enterprise_connection_requests', 'david'), 1, 'the renamed one does');
like(messages("SELECT cancel_enterprise_connection_request($request)", 'dave'), qr/ERROR:/, 'nor can it cancel anything');
worker('on');
is_delivered($request, 'with the USAGE of the renamed one');
worker('off');
$node->safe_psql($database, 'DROP OWNED BY david');
$node->safe_psql('postgres', 'DROP ROLE david; DROP ROLE dave');

# ---------------------------------------------------------------------------
# In a dump there are names: restored where a role has another oid, they count
# ---------------------------------------------------------------------------
my $dump = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$request = with_role('frank');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr($database) ], 'pg_dump');
my $fresh = PostgreSQL::Test::Cluster->new('fresh');
$fresh->init;
$fresh->append_conf('postgresql.conf', "fsync = off\n");
$fresh->start;
$fresh->safe_psql('postgres', 'CREATE ROLE somebody; CREATE ROLE another; CREATE ROLE eve; CREATE ROLE frank LOGIN; CREATE ROLE alice');
$fresh->command_ok([ 'pg_restore', '-d', $fresh->connstr('postgres'), $dump ], 'pg_restore in another cluster');
$fresh->safe_psql('postgres', q{SELECT arm_enterprise_connections('clerk')});
is($fresh->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connection_requests', extra_params => [ '-U', 'frank' ]), 1, 'restored elsewhere: a role sees its requests');
ok( eval {
		wait_until(
			sub {
				$fresh->safe_psql('postgres', 'CALL deliver_enterprise_connections()');
				$fresh->safe_psql('postgres', "SELECT state FROM enterprise_connection_requests WHERE id = $request") eq 'delivered';
			},
			'delivery', 60);
	},
	'and they are delivered')
  or diag $fresh->safe_psql('postgres', 'SELECT to_jsonb(r) FROM enterprise_connection_requests r');

unlike(slurp_file($_->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed: ' . $_->name) for $node, $fresh;
done_testing();
