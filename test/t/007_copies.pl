# A copy of a database speaks to nobody until its owner says so: a dump that
# was restored, a template copy, another cluster. A standby does not write.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $mock = start_mock();
my $node = clerk_node('original', $mock, init => [ allows_streaming => 1 ], conf => "fsync = off\n", server => { max_retries => 0 });
my $count = 0;

$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE instance_owner LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO instance_owner;
	ALTER SERVER clerk OWNER TO instance_owner;
	GRANT USAGE ON FOREIGN SERVER clerk TO app;
});

sub call
{
	my ($on, $database, $user) = @_;
	my $sql = sprintf q{SELECT create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{d%d.example}')->>'name'}, ++$count;
	my ($status, $out, $err) = $on->psql($database, "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $user || 'app' ]);

	return defined $err && $err =~ /ERROR:/ ? $err : $out;
}

sub sent
{
	return $mock->stats->{requests};
}

sub is_disarmed
{
	my ($on, $database, $what) = @_;
	my $before = sent();
	my $err    = call($on, $database);

	like($err, qr/ERROR:  55000:.*not armed/, "$what: 55000");
	like($err, qr/HINT:.*arm_enterprise_connections\('clerk'\)/, "$what: the hint says what to do");
	unlike($err, qr/sk_test/, "$what: no key is shown");
	like(call($on, $database, 'instance_owner'), qr/ERROR:  55000:/, "$what: not even for the owner");
	is(sent(), $before, "$what: nothing was sent");
	return;
}

# Only the server's owner arms; then it works, here and in the original.
sub arm
{
	my ($on, $database, $what) = @_;
	my $before = sent();
	my ($status, $out, $err) = $on->psql($database, "\\set VERBOSITY verbose\nSELECT arm_enterprise_connections('clerk')", extra_params => [ '-U', 'app' ]);

	like($err, qr/ERROR:  42501:/, "$what: who merely uses the server cannot arm it");
	like(call($on, $database), qr/ERROR:  55000:/, "$what: it is not armed by that");
	is(sent(), $before, "$what: and still nothing was sent");
	$on->safe_psql($database, q{SELECT arm_enterprise_connections('clerk')}, extra_params => [ '-U', 'instance_owner' ]);
	is(call($on, $database), 'N', "$what: armed by its owner, it works");
	is(call($node, 'postgres'), 'N', "$what: the original works on");
	is(sent(), $before + 2, "$what: two requests");
	return;
}

is(call($node, 'postgres'), 'N', 'the original works, being armed at its first use');
is(call($node, 'postgres'), 'N', 'and the second');
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connections');
is($rows, 2, 'two are tracked');

# ---------------------------------------------------------------------------
# A dump, restored beside it and elsewhere
# ---------------------------------------------------------------------------
my $dump = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is($node->safe_psql('restored', 'SELECT count(*) FROM enterprise_connections'), $rows, 'the tracking table is in the dump');
is_disarmed($node, 'restored', 'restored in the same cluster');
arm($node, 'restored', 'restored in the same cluster');

my $fresh = PostgreSQL::Test::Cluster->new('fresh');
$fresh->init;
$fresh->append_conf('postgresql.conf', "fsync = off\n");
$fresh->start;
$fresh->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE instance_owner LOGIN');
# "postgres" may have the same oid in both clusters
$fresh->command_ok([ 'pg_restore', '-d', $fresh->connstr('postgres'), $dump ], 'pg_restore into a fresh cluster');
is_disarmed($fresh, 'postgres', 'restored in a fresh cluster');
arm($fresh, 'postgres', 'restored in a fresh cluster');
$fresh->stop;

# Dropped and restored under its own name: another database all the same
$node->safe_psql('postgres', 'DROP DATABASE restored');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'pg_restore once more');
is_disarmed($node, 'restored', 'restored under the same name');

# ---------------------------------------------------------------------------
# A template copy, and a copy of the copy
# ---------------------------------------------------------------------------
$node->safe_psql('template1', 'CREATE DATABASE template_copy TEMPLATE postgres');
is_disarmed($node, 'template_copy', 'a template copy');
arm($node, 'template_copy', 'a template copy');
$node->safe_psql('template1', 'CREATE DATABASE second_copy TEMPLATE template_copy');
is_disarmed($node, 'second_copy', 'a copy of an armed copy');

# Renaming and moving are no copies
$node->safe_psql('postgres', 'ALTER DATABASE template_copy RENAME TO renamed');
is(call($node, 'renamed'), 'N', 'a renamed database stays armed');

# One server that is armed says nothing about another
$node->safe_psql('renamed', sprintf q{
	CREATE SERVER other FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0');
	CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (secret_key 'sk_test_mock')}, $mock->url);
is($node->safe_psql('renamed', q{SELECT create_enterprise_connection(name => 'O', provider => 'saml_okta', domains => '{o.example}', server => 'other')->>'name'}),
	'O', 'a new server is armed at its own first use');

# An armed state cannot be forged by who only uses the server
for my $sql ('ALTER SERVER clerk OPTIONS (DROP origin)', q{ALTER SERVER clerk OPTIONS (SET origin '1/1/1')})
{
	my ($status, $out, $err) = $node->psql('second_copy', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', 'app' ]);
	like($err, qr/ERROR:  42501:/, "$sql: denied");
}

# ---------------------------------------------------------------------------
# A standby
# ---------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is(call($node, 'postgres'), 'N', 'the primary works');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is( $standby->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connections'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM enterprise_connections'),
	'the standby has the tracking table');
my $before = sent();
for my $user ('app', 'instance_owner')
{
	my $err = call($standby, 'postgres', $user);
	like($err, qr/ERROR:  25006:/, "a standby does not write ($user)");
}
my ($status, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT arm_enterprise_connections('clerk')", extra_params => [ '-U', 'instance_owner' ]);
like($err, qr/ERROR:  25006:/, 'nor is it armed');
is(sent(), $before, 'and nothing was sent');

# It takes the primary's place
$node->stop;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
is(call($standby, 'postgres'), 'N', 'promoted, it works as the primary did');
like(call($standby, 'second_copy'), qr/ERROR:  55000:/, 'and what was not armed is not');

unlike(slurp_file($_->logfile), qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed: ' . $_->name)
  for $node, $fresh, $standby;

done_testing();
