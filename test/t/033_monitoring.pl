# docs/monitoring and docs/report.sql: each query runs as a member of pg_monitor,
# and what alerts and dashboard ask for is what the queries give.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);

use ClerkTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $docs = abs_path(dirname(__FILE__) . '/../../docs');
my $mock = start_mock();
my $node = clerk_node('monitoring', $mock, conf => "fsync = off\nshared_preload_libraries = 'pg_clerk'\n");

$node->safe_psql('postgres', 'CREATE ROLE exporter LOGIN IN ROLE pg_monitor');
$mock->seed({ count => 3, prefix => 'seeded' });
$node->safe_psql('postgres', 'SELECT count(*) FROM mirror_enterprise_connections()');
$node->safe_psql('postgres', q{SELECT enqueue_enterprise_connection('update', '{"active": true}', 'none')});
wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM enterprise_connection_requests WHERE state = 'failed'}) }, 'a failure');

# As in the file: name => { query =>, columns => [[name, usage], ...] }. Its YAML is
# plain enough to be read without a module.
sub read_queries
{
	my (%queries, $name, $in_query);

	for my $line (split /\n/, slurp_file("$docs/monitoring/queries.yaml"))
	{
		next if $line =~ /^#|^\s*$/;
		if    ($line =~ /^(\w+):$/)          { $name = $1; $in_query = 0; }
		elsif ($line =~ /^  query: \|$/)     { $in_query = 1; }
		elsif ($line =~ /^  metrics:$/)      { $in_query = 0; }
		elsif ($in_query && $line =~ /^    (.*)/) { $queries{$name}{query} .= "$1\n"; }
		elsif ($line =~ /^    - (\w+): \{usage: (LABEL|COUNTER|GAUGE|HISTOGRAM), description: "[^"]+"\}$/)
		{
			push @{ $queries{$name}{columns} }, [ $1, $2 ];
		}
		else { fail "a line that is none: $line"; }
	}
	return %queries;
}

my %queries = read_queries();
my %metrics;

cmp_ok(scalar keys %queries, '>=', 8, 'the queries');
for my $name (sort keys %queries)
{
	my ($query, $columns) = @{ $queries{$name} }{qw(query columns)};
	my @names = map { $_->[0] } @$columns;

	for my $column (@$columns)
	{
		my ($metric, $usage) = ("${name}_$column->[0]", $column->[1]);

		next if $usage eq 'LABEL';
		$metrics{$metric} = $usage;
		$metrics{"${metric}_$_"} = $usage for $usage eq 'HISTOGRAM' ? qw(bucket sum count) : ();
		push @names, map { "$column->[0]_$_" } $usage eq 'HISTOGRAM' ? qw(bucket sum count) : ();
		like($metric, qr/_total$/, "$metric: the name of a counter") if $usage eq 'COUNTER';
	}
	my ($status, $out, $err) = $node->psql('postgres', $query, extra_params => [ '-U', 'exporter', '--csv', '-P', 'tuples_only=off' ]);

	is($status, 0, "$name runs as a member of pg_monitor") or diag $err;
	my ($head) = $out =~ /^(.*)$/m;
	is(join(',', sort split /,/, $head), join(',', sort @names), "$name has the columns that are said");
}

# what it says is so
sub exporter
{
	my ($name, $expression, $where) = @_;

	return $node->safe_psql('postgres', "SELECT $expression FROM ($queries{$name}{query}) q $where", extra_params => [ '-U', 'exporter' ]);
}
is(exporter('pg_clerk_requests', 'total', q{WHERE operation = 'list'}), '1', 'a listing is counted');
is(exporter('pg_clerk_answers', 'total', q{WHERE class = '2xx'}), '1', 'so is its answer');
is(exporter('pg_clerk_answer_time', 'cardinality(seconds) = cardinality(seconds_bucket) AND seconds_bucket[11] = seconds_count AND seconds_count = 1 AND seconds_sum > 0', ''), 't', 'a histogram');
is(exporter('pg_clerk_queue', 'requests', q{WHERE state = 'failed'}), '1', 'the queue');
is(exporter('pg_clerk_mirror', 'last_timestamp_seconds > extract(epoch FROM now()) - 60', ''), 't', 'the mirror');
is(exporter('pg_clerk_processes', 'running', q{WHERE type = 'launcher'}), '1', 'the launcher');

# alerts and dashboard
my $alerts = slurp_file("$docs/monitoring/alerts.yaml");
my $dashboard = slurp_file("$docs/monitoring/dashboard.json");
ok(eval { parse_json($dashboard)->{panels}[0] }, 'the dashboard is JSON');
for my $file ([ 'alerts', $alerts ], [ 'dashboard', $dashboard ])
{
	my ($name, $text) = @$file;
	my %asked = map { $_ => 1 } $text =~ /\b(pg_clerk_\w+)/g;

	cmp_ok(scalar keys %asked, '>', 5, "$name: metrics");
	is(join(' ', grep { !$metrics{$_} } sort keys %asked), '', "$name: each of them is one of the queries'");
}
unlike($alerts, qr/\t/, 'no tab in YAML');
is(scalar(() = $alerts =~ /- alert:/g), scalar(() = $alerts =~ /expr:/g), 'each alert has an expression');

# the report
my $report = slurp_file("$docs/report.sql");
my ($status, $out, $err) = $node->psql('postgres', $report, extra_params => [ '-U', 'exporter' ]);
is($status, 0, 'the report runs');
is($err, '', 'without an error');
like($out, qr/^== Queue\n/m, 'its parts have names');
like($out, qr/no enterprise connection has the key/, 'it shows what failed');

done_testing();
