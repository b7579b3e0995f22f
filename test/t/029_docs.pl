# The SQL of the README and of docs/, as a reader would type it: each block in
# order, no block fails, and what is shown as its output is what comes out.
#
# In the files, a comment before a block says what is special:
#   <!-- wait -->            until everything in the outbox is finished
#   <!-- not run: why -->    it cannot be run here
# A block ```output after a block ```sql is compared with what psql shows.

use strict;
use warnings;

use ClerkTest;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top  = abs_path(dirname(__FILE__) . '/../..');
my $mock = start_mock();
my $node = PostgreSQL::Test::Cluster->new('docs');

$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_clerk'\nfsync = off\n");
$node->start;

my $settle = q{DO $wait$
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM clerk.enterprise_connection_requests WHERE finished_at IS NULL);
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$wait$;};
my $server = sprintf q{CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');}, $mock->url;
my $prelude = qq{CREATE SCHEMA clerk;
CREATE EXTENSION pg_clerk SCHEMA clerk;
SET search_path = "\$user", public, clerk;
$server};

# The blocks of a file: {kind, text, line, wait, not_run, output}
sub blocks
{
	my ($file) = @_;
	my (@blocks, $block, $wait, $not_run);
	my $number = 0;

	for my $line (split /\n/, slurp_file("$top/$file"))
	{
		$number++;
		if ($block)
		{
			if ($line eq '```')
			{
				if ($block->{kind} eq 'output') { $blocks[-1]{output} = $block->{text} }
				else                            { push @blocks, $block }
				undef $block;
			}
			else { $block->{text} .= "$line\n" }
		}
		elsif ($line =~ /^<!-- wait -->$/)         { $wait    = 1 }
		elsif ($line =~ /^<!-- not run: (.+) -->$/) { $not_run = $1 }
		elsif ($line =~ /^```(sql|sh|output)$/)
		{
			$block = { kind => $1, text => '', line => $number, wait => $wait, not_run => $not_run };
			($wait, $not_run) = ();
		}
		elsif ($line =~ /^```./) { fail("$file:$number: a block of an unknown kind") }
		elsif ($line eq '```')   { $block = { kind => 'text', text => '', line => $number } }
	}
	return grep { $_->{kind} ne 'text' } @blocks;
}

# Run the blocks in one session: what psql shows, for each.
sub run_blocks
{
	my ($file, @blocks) = @_;
	my $script = "\\set ON_ERROR_STOP off\n\\set VERBOSITY terse\n";
	my $db     = lc($file =~ s/\W+/_/gr);
	my ($out, $err);

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$script .= "$prelude\n" unless $file eq 'README.md';
	for my $n (0 .. $#blocks)
	{
		my $block = $blocks[$n];
		my $text  = $block->{text};

		$text   = $text =~ /^CREATE SERVER clerk /m ? $server : '' if $block->{not_run};
		$script .= "$settle\n" if $block->{wait};
		$script .= "\\echo ==block $n==\n$text\n\\echo ==end $n==\n";
	}
	$ENV{PGCLIENTENCODING} = 'UTF8';
	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr($db) ], '<', \$script, '>', \$out, '2>&1');
	for my $n (0 .. $#blocks)
	{
		($blocks[$n]{shown}) = $out =~ /^==block $n==\n(.*?)^==end $n==$/ms;
	}
	$node->safe_psql('postgres', "DROP DATABASE $db WITH (FORCE)");
	return;
}

# Blanks at the end of a line do not count, nor empty lines at the end.
sub trimmed
{
	my ($text) = @_;

	return $text =~ s/[ \t]+$//mgr =~ s/\s+\z//r;
}

for my $file ('README.md', map { s{^\Q$top\E/}{}r } sort glob("$top/docs/*.md"))
{
	my @blocks = blocks($file);

	next if $file =~ /operations|reference|security|internals/;    # operations.md: t/028
	$mock->reset if $mock->can('reset');
	run_blocks($file, @blocks);
	for my $block (@blocks)
	{
		my $name = "$file:$block->{line}";

		if ($block->{not_run})
		{
			pass("$name is not run: $block->{not_run}");
			next;
		}
		is($block->{kind}, 'sql', "$name can be run");
		unlike($block->{shown} // 'ERROR: nothing', qr/^(?:psql:\S+ )?(?:ERROR|FATAL)|^invalid /m, "$name works");
		note($block->{shown} // '');
		is(trimmed($block->{shown}), trimmed($block->{output}), "$name shows what it says") if defined $block->{output};
	}
}

# What the reference must name: everything that a user can call, read or set.
$node->safe_psql('postgres', "CREATE SCHEMA clerk; CREATE EXTENSION pg_clerk SCHEMA clerk");
my $reference = slurp_file("$top/docs/reference.md");
my @names     = split /\n/, $node->safe_psql('postgres', q{
	SELECT proname FROM pg_proc WHERE pronamespace = 'clerk'::regnamespace
		AND proname NOT IN ('pg_clerk_validator', 'track_enterprise_connection', 'enterprise_connection_is_armed')
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'clerk'::regnamespace AND relkind IN ('r', 'v', 'c')
		AND relname <> 'enterprise_connection_pauses'
	UNION SELECT name FROM pg_settings WHERE name LIKE 'pg\_clerk.%'
	UNION SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'clerk'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
	ORDER BY 1});
my @unnamed = grep { $reference !~ /\b\Q$_\E\b/ } @names;

cmp_ok(scalar(@names), '>', 60, 'there is a lot to name');
is("@unnamed", '', 'the reference names every function, view, column of a view, type and setting');

done_testing();
