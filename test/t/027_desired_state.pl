# The table is the desired state: whatever is done to its rows, in whatever
# transactions, and whatever becomes of the worker meanwhile, in the end Clerk
# has what the rows say, and there is nothing to reconcile.
#
# PG_CLERK_TEST_SEEDS: seeds, separated by spaces (one); PG_CLERK_TEST_OPERATIONS: of each (150).
#
# A domain moves from row to row, always to one with a higher id: two rows that
# come to want what the other has would be a swap, which takes two steps. A row
# that is not ready keeps its domains, as its connection does. What a row does
# not say is whether its connection is active; so some are activated, and have
# to be inactive while the row is not ready, and active again with the row.

use strict;
use warnings;

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my @seeds      = split ' ', $ENV{PG_CLERK_TEST_SEEDS} || 1 + int rand 1_000_000;
my $operations = $ENV{PG_CLERK_TEST_OPERATIONS} || 150;
my $ROWS       = 30;

my $mock = start_mock();
my $node = clerk_node('main', $mock, server => { timeout => '1s' }, conf => <<'END');
shared_preload_libraries = 'pg_clerk'
restart_after_crash = on
fsync = off
END

my ($session, $table, $version, %count);

# A query, as soon as the server is there.
sub query
{
	my ($sql) = @_;
	my ($out, $err);

	wait_until(
		sub {
			my $status = $node->psql('postgres', $sql, stdout => \$out, stderr => \$err);
			die "error of \"$sql\": $err" if $status == 3 || $err =~ /ERROR/;
			return $status == 0;
		},
		'the server', 60);
	return $out;
}

sub run
{
	my ($sql) = @_;

	$session ||= session($node);
	return $session->query($sql);
}

sub pick { return $_[ rand @_ ] }

sub name { my ($id) = @_; return sprintf q{'row %d v%d'}, $id, ++$version }

# Ids of rows of which that is true.
sub ids
{
	my ($condition) = @_;

	return split /\n/, run("SELECT id FROM $table WHERE $condition ORDER BY id");
}

my $READY = q{wanted AND name <> ''};

# The statements of one change.
sub change
{
	my $id   = 1 + int rand $ROWS;
	my $dice = rand;

	if ($dice < 0.22)
	{
		$count{insert}++;
		return sprintf q{INSERT INTO %s VALUES (%d, %s, '{d%d.example}', %s, %s) ON CONFLICT DO NOTHING}, $table, $id, name($id), $id,
		  pick('NULL', "'https://idp.example/$id'"), pick('true', 'true', 'false');
	}
	if ($dice < 0.38)
	{
		$count{name}++;
		return sprintf q{UPDATE %s SET name = %s WHERE id = %d AND name <> ''}, $table, name($id), $id;
	}
	if ($dice < 0.46)
	{
		$count{metadata}++;
		return sprintf q{UPDATE %s SET metadata = 'https://idp.example/v%d' WHERE id = %d}, $table, ++$version, $id;
	}
	if ($dice < 0.54)
	{
		$count{domains}++;
		return sprintf q{UPDATE %s SET domains = ARRAY['d%d.example'] || ARRAY(SELECT d FROM unnest(domains) AS d WHERE d LIKE 'm%%') || ARRAY['%s%d.example'] WHERE id = %d AND %s},
		  $table, $id, pick('m', 'x'), ++$version, $id, $READY;
	}
	if ($dice < 0.64)
	{
		my $from = pick(ids("$READY AND EXISTS (SELECT FROM unnest(domains) AS d WHERE d LIKE 'm%')")) or return;
		my $to = pick(ids("$READY AND id > $from")) or return;
		my $domain = run("SELECT d FROM $table, unnest(domains) AS d WHERE id = $from AND d LIKE 'm%' ORDER BY d LIMIT 1");
		my @both = ("UPDATE $table SET domains = array_remove(domains, '$domain') WHERE id = $from",
			"UPDATE $table SET domains = domains || '$domain'::text WHERE id = $to");

		$count{move}++;
		return rand() < 0.5 ? @both : reverse @both;
	}
	if ($dice < 0.74)
	{
		$count{off}++;
		return sprintf q{UPDATE %s SET %s WHERE id = %d}, $table, pick('wanted = false', q{name = ''}), pick(ids($READY)) // $id;
	}
	if ($dice < 0.86)
	{
		$id = pick(ids("NOT ($READY)")) // $id;
		$count{on}++;
		return sprintf q{UPDATE %s SET wanted = true, name = %s WHERE id = %d}, $table, name($id), $id;
	}
	if ($dice < 0.93)
	{
		$count{delete}++;
		return "DELETE FROM $table WHERE id = $id";
	}
	$count{replace}++;
	return ("DELETE FROM $table WHERE id = $id",
		sprintf q{INSERT INTO %s VALUES (%d, %s, '{d%d.example}', 'https://idp.example/%d', %s)}, $table, $id, name($id), $id, ++$version, pick('true', 'true', 'false'));
}

sub activate
{
	my ($id) = @_;

	$count{activate}++;
	run("BEGIN; INSERT INTO activated VALUES ($id); SELECT enqueue_enterprise_connection('update', '{\"active\": true}', key => 'org:$id'); COMMIT");
	return;
}

# A transaction of some changes; or something that is done beside them.
sub operation
{
	my $dice = rand;

	if ($dice < 0.05)
	{
		my $pid = query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker' AND datname = 'postgres'}) || return;

		if (rand() < 0.7)
		{
			$count{'worker terminated'}++;
			query("SELECT pg_terminate_backend($pid)");
			return;
		}
		$count{'worker killed'}++;
		undef $session;
		kill_and_restart($node, $pid);
		return;
	}
	if ($dice < 0.08)
	{
		my $new = $table eq 'org' ? 'organisation' : 'org';

		$count{rename}++;
		run("ALTER TABLE $table RENAME TO $new");
		$table = $new;
		return;
	}
	if ($dice < 0.16)
	{
		# one that is not there yet could be refused, and the update has nothing to set then
		my $id = pick(ids("$READY AND metadata IS NOT NULL AND id NOT IN (SELECT id FROM activated) AND EXISTS (SELECT FROM enterprise_connections AS c WHERE c.key = 'org:' || id)")) or return;

		activate($id);
		return;
	}
	run('BEGIN');
	for (1 .. pick(1, 1, 1, 2, 3, 5))
	{
		my $undone = rand() < 0.15;

		run('SAVEPOINT s') if rand() < 0.3 || $undone;
		run($_) for change();
		$count{'savepoint rolled back'} += $undone;
		run('ROLLBACK TO s') if $undone;
	}
	# a row that was inserted anew in its transaction keeps its connection
	run("DELETE FROM activated AS a WHERE NOT EXISTS (SELECT FROM $table AS t WHERE t.id = a.id)");
	my $end = rand() < 0.12 ? 'ROLLBACK' : 'COMMIT';
	run($end);
	$count{$end}++;
	return;
}

sub differences
{
	my @wrong;
	my %there = map { $_->{id} => $_ } $mock->connections;
	my $rows  = parse_json(query("SELECT coalesce(json_agg(json_build_object('id', t.id, 'name', t.name, 'domains', (SELECT array_agg(d ORDER BY d) FROM unnest(t.domains) AS d),
		'metadata', t.metadata, 'ready', t.ready, 'activated', a.id IS NOT NULL, 'connection', c.id)), '[]')
		FROM (SELECT *, $READY AS ready FROM org) AS t LEFT JOIN activated AS a ON a.id = t.id LEFT JOIN enterprise_connections AS c ON c.key = 'org:' || t.id"));

	for my $row (@$rows)
	{
		my $connection = delete $there{ $row->{connection} // '' };

		if (!$connection)
		{
			push @wrong, "row $row->{id} has no connection" if $row->{ready};
			next;
		}
		my %is     = (active => $connection->{active} ? 1 : 0);
		my %wanted = (active => $row->{ready} && $row->{activated} ? 1 : 0);

		if ($row->{ready})
		{
			%is = (%is, name => $connection->{name}, domains => join(' ', sort @{ $connection->{domains} }),
				metadata => $connection->{saml_connection}{idp_metadata_url} // '');
			%wanted = (%wanted, name => $row->{name}, domains => join(' ', @{ $row->{domains} }), metadata => $row->{metadata} // '');
			$count{'connections compared'}++;
			$count{'that are active'} += $is{active};
		}
		push @wrong, map { $is{$_} eq $wanted{$_} ? () : "row $row->{id}: $_ is $is{$_}, not $wanted{$_}" } sort keys %wanted;
	}
	push @wrong, map { "$_->{name} ($_->{id}) should not be there" } values %there;
	return @wrong;
}

sub test_seed
{
	my ($seed) = @_;
	my $start = time;

	srand $seed;
	($table, $version, %count) = ('org', 0);
	# slow enough that requests are on their way when a worker ends
	$mock->reset({ latency_ms => 20 });
	query(<<'SQL');
DROP TABLE IF EXISTS org, activated;
TRUNCATE enterprise_connections, enterprise_connection_requests;
CREATE TABLE org (id int PRIMARY KEY, name text NOT NULL, domains text[] NOT NULL, metadata text, wanted boolean NOT NULL);
CREATE TABLE activated (id int PRIMARY KEY);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON org FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'saml.idp_metadata_url=metadata', 'when=wanted');
SQL
	run(sprintf q{INSERT INTO org VALUES (%d, %s, '{d%d.example,m%d.example}', 'https://idp.example/%d', true)}, $_, name($_), $_, $_, $_) for 1 .. $ROWS / 2;
	activate($_) for 1 .. $ROWS / 3;
	operation() for 1 .. $operations;
	run('ALTER TABLE organisation RENAME TO org') if $table ne 'org';
	note sprintf 'seed %d: %d operations in %.1f s: %s', $seed, $operations, time - $start, join ', ', map { "$count{$_} x $_" } sort keys %count;

	my $unfinished = 'SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL';
	eval { wait_until(sub { query($unfinished) == 0 }, 'delivery', 120) };
	is(query($unfinished), 0, "seed $seed: all is delivered");
	is(query(q{SELECT string_agg(concat_ws(' ', id, operation, key, error->>'message'), E'\n') FROM enterprise_connection_requests WHERE state = 'failed'}), '', "seed $seed: nothing has failed");
	is(join("\n", differences()), '', "seed $seed: Clerk has what the rows say");
	is(query(q{SELECT * FROM plan_enterprise_connections('org', 'sso')}), '', "seed $seed: there is nothing to reconcile");
	is(query(q{SELECT * FROM reconcile_enterprise_connections('org', 'sso', adopt => true, prune => true)}), '', "seed $seed: nor after a mirror");
	note sprintf 'seed %d: %d connections compared, of which %d are active; %d requests, after %.1f s', $seed, $count{'connections compared'} // 0,
	  $count{'that are active'} // 0, query('SELECT count(*) FROM enterprise_connection_requests'), time - $start;
	return;
}

test_seed($_) for @seeds;
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|was terminated by signal (?!9)/, 'nothing crashed');
done_testing();
