# What the README says of dumps by other roles, of publications, and of an old
# primary that goes on: that it is so, and that the remedy is one.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $mock = start_mock('--lenient');
my $node = clerk_node('primary', $mock,
	init   => [ allows_streaming => 'logical' ],
	server => { timeout => '2s' },
	conf   => "shared_preload_libraries = 'pg_clerk'\npg_clerk.worker = off\npg_clerk.naptime = '1s'\nfsync = off\n");
my $dir     = PostgreSQL::Test::Utils::tempdir('dumps');
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

sub sql
{
	my ($on, $sql, %options) = @_;

	return $on->safe_psql($options{db} || 'postgres', $sql, $options{user} ? (extra_params => [ '-U', $options{user} ]) : ());
}

# dump(USER, FILE, OPTION...): its error, or ''
sub dump_as
{
	my ($user, $file, @options) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'pg_dump', '-f', "$dir/$file", '-U', $user, @options, $node->connstr('postgres') ], '>', \$out, '2>', \$err);

	return $ok ? '' : $err;
}

# How many rows of a table are in a dump of text?
sub rows
{
	my ($file, $table) = @_;
	my ($copy) = slurp_file("$dir/$file") =~ /^COPY public\.\Q$table\E \(.*?FROM stdin;\n(.*?)^\\\.$/ms;

	return defined $copy ? scalar(() = $copy =~ /\n/g) : undef;
}

# ---------------------------------------------------------------------------
# Dumps
# ---------------------------------------------------------------------------
sql($node, q{
	CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE backup LOGIN BYPASSRLS; CREATE ROLE db_owner LOGIN; CREATE ROLE nobody LOGIN;
	GRANT pg_read_all_data TO reader, backup;
	ALTER DATABASE postgres OWNER TO db_owner;
	GRANT USAGE ON FOREIGN SERVER clerk TO app;
	SELECT create_enterprise_connection(name => 'Tracked', domains => '{t.example}', saml => '{}');
	SELECT enqueue_enterprise_connection('create', '{"name": "Mine", "saml": {}}');
	SET ROLE app;
	SELECT enqueue_enterprise_connection('create', '{"name": "Of app", "saml": {}}');
});
my $secret = qr/sk_test_/;
like(dump_as('reader', 'reader'), qr/row-level security/, 'pg_read_all_data alone: pg_dump stops at row-level security');
for my $user (qw(reader db_owner nobody))
{
	is(dump_as($user, $user, '--enable-row-security'), '', "$user, with --enable-row-security: it passes");
	is(rows($user, 'enterprise_connections'), 0, '... without what others track');
	is(rows($user, 'enterprise_connection_requests'), 0, '... and what others have enqueued');
	unlike(slurp_file("$dir/$user"), $secret, '... and without the key');
}
is(dump_as('app', 'app', '--enable-row-security'), '', 'a role with USAGE');
is(rows('app', 'enterprise_connections'), 1, '... dumps what it sees of the server');
is(rows('app', 'enterprise_connection_requests'), 1, '... and what it has enqueued');

is(dump_as('backup', 'backup'), '', 'BYPASSRLS and pg_read_all_data: it passes');
is(rows('backup', 'enterprise_connections'), 1, '... with the tracking table');
is(rows('backup', 'enterprise_connection_requests'), 2, '... and the outbox');
like(slurp_file("$dir/backup"), qr/setval\('public\.enterprise_connection_requests_id_seq', 2, true\)/, '... and its sequence');
unlike(slurp_file("$dir/backup"), $secret, '... but without the key, which only the server\'s owner and superusers dump');
is(dump_as(scalar getpwuid $<, 'superuser'), '', 'a superuser');
like(slurp_file("$dir/superuser"), $secret, '... dumps the key');
sql($node, 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/backup", '-d', $node->connstr('restored') ], 'the backup can be restored');
is(sql($node, 'SELECT (SELECT count(*) FROM enterprise_connections), (SELECT count(*) FROM enterprise_connection_requests)', db => 'restored'),
	'1|2', 'with all of it');
sql($node, 'DROP DATABASE restored; DELETE FROM enterprise_connection_requests');

# ---------------------------------------------------------------------------
# A sequence that was set back
# ---------------------------------------------------------------------------
my $enqueue = q{SELECT enqueue_enterprise_connection('create', '{"name": "a"}')};
sql($node, 'CREATE ROLE etl LOGIN; GRANT pg_write_all_data TO etl');
my $first = sql($node, $enqueue);
my ($status, $out, $err) = $node->psql('postgres', "SELECT setval('enterprise_connection_requests_id_seq', $first, false)", extra_params => [ '-U', 'etl' ]);
is($status, 0, 'pg_write_all_data can set the sequence back');
($status, $out, $err) = $node->psql('postgres', $enqueue);
is($status, 0, 'which does not stop enqueueing');
is(sql($node, $enqueue), $first + 2, 'nor does it change the order');
sql($node, 'DELETE FROM enterprise_connection_requests');

# ---------------------------------------------------------------------------
# Publications
# ---------------------------------------------------------------------------
sql($node, 'CREATE DATABASE publisher');
sql($node, 'CREATE DATABASE subscriber');
sql($node, 'CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION named FOR TABLE t', db => 'publisher');
sql($node, 'CREATE PUBLICATION in_schema FOR TABLES IN SCHEMA public', db => 'publisher') if $version >= 150000;
sql($node, 'CREATE TABLE t (id int PRIMARY KEY)', db => 'subscriber');
my @slots = ('named', $version >= 150000 ? 'in_schema' : ());
for my $slot (@slots)
{
	sql($node, "SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')", db => 'publisher');
}
# ... in a schema of its own, after all of them
sql($node, 'CREATE SCHEMA clerk; CREATE EXTENSION pg_clerk SCHEMA clerk', db => 'publisher');
clerk_server($node, $mock, dbname => 'publisher');
is(sql($node, q{SELECT pubname, string_agg(tablename, ', ' ORDER BY tablename) FROM pg_publication_tables WHERE tablename IN ('t', 'enterprise_connection_requests') GROUP BY 1 ORDER BY 1}, db => 'publisher'),
	join("\n", 'everything|enterprise_connection_requests, t', ($version >= 150000 ? 'in_schema|t' : ()), 'named|t'),
	'FOR ALL TABLES has the outbox, the others do not');
sql($node, q{SELECT clerk.enqueue_enterprise_connection('create', '{"name": "a", "oidc": {"client_secret": "s3cret"}}'); INSERT INTO t VALUES (1)}, db => 'publisher');
for my $slot (@slots)
{
	sql($node, "CREATE SUBSCRIPTION s_$slot CONNECTION @{[ ClerkTest::quote_literal($node->connstr('publisher')) ]} PUBLICATION $slot WITH (create_slot = false, slot_name = '$slot', copy_data = false)",
		db => 'subscriber');
	ok($node->poll_query_until('subscriber', 'SELECT count(*) = 1 FROM t'), "a publication of $slot goes on");
	sql($node, "DROP SUBSCRIPTION s_$slot", db => 'subscriber');
	sql($node, 'TRUNCATE t', db => 'subscriber');
}
sql($node, 'DROP DATABASE publisher');
sql($node, 'DROP DATABASE subscriber');

# ---------------------------------------------------------------------------
# An old primary that goes on: with synchronous replication, it sends nothing
# ---------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''\npg_clerk.worker = on\n");
$standby->start;
$node->append_conf('postgresql.conf', "synchronous_standby_names = '*'\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')}), 'the standby is synchronous');
sql($node, q{SELECT enqueue_enterprise_connection('create', jsonb_build_object('name', 'free' || i)) FROM generate_series(1, 10) i});
$standby->promote;
$node->append_conf('postgresql.conf', "pg_clerk.worker = on\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND wait_event = 'SyncRep')}),
	'the worker of the old primary waits with its claim');
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 10 FROM enterprise_connection_requests WHERE state = 'delivered'}), 'the new one delivers');

sub created
{
	my %times;

	$times{ $_->{name} }++ for grep { $_->{name} =~ /^free/ } $mock->connections;
	return \%times;
}
my $once = { map { ("free$_" => 1) } 1 .. 10 };
is_deeply(created(), $once, 'each was created once');
is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND wait_event = 'SyncRep'}), 1, 'the old one still waits');
$node->stop('fast');
is_deeply(created(), $once, 'nor does it send anything when it is shut down');
$standby->stop;

done_testing();
