#!/usr/bin/perl
#
# Throws at an extension whatever comes to its mind, and looks whether the
# server is still there, the session lives, and each error is one that a user
# can be told of: never an internal one (XX000).
#
#   fuzz.pl [--seed N] [--seconds N | --cases N] [--case N] [-v] PART
#
# PART is params, options, trigger or answers. Case N of a seed is always the
# same; --case repeats one. The server is found by PGHOST and PGPORT; database
# pg_clerk_fuzz is made anew. See test/fuzz/run, which starts one.

use strict;
use warnings;

use Encode ();
use FindBin;
use lib $FindBin::Bin;

use Answers;
use File::Temp;
use Getopt::Long;
use Random qw(one_in pick some text json json_text name quote identifier mutate @NAMES @TEXTS);
use Session;
use Time::HiRes qw(time);

my $DATABASE  = 'pg_clerk_fuzz';
my $PATIENCE  = 30;                # s, until a session that says nothing is taken for hung
my $MAX_FAULTS = 10;
my $ENDLESS    = qr/list_|mirror_|DECLARE|FETCH|\bfuzzed'/;    # what may have to be cancelled: an answer always says that there is more

my %option = (seed => 1, seconds => 0, cases => 0, case => undef, v => 0);
GetOptions(\%option, 'seed=i', 'seconds=f', 'cases=i', 'case=i', 'v') && @ARGV == 1 or usage();
my ($part) = @ARGV;
$option{seconds} ||= 10 unless $option{cases};

my $scratch = File::Temp->newdir;
my ($session, $answers);
my (%states, @faults);
my $run = 0;

# Each gives the statements of a case; what they may end in, besides success.
# 22P02, 22P05, 22021, 22003, 54001 and 54000 are PostgreSQL's own words on what
# is no value of a type, or is too large for one.
my $values = '22023|22P02|22P03|22P05|22021|22003|22001|22032|2203[0-9A]|22004|22007|22008|2200[LMNST]|2202E|54000|54001|53200';
my %parts = (
	params  => { statements => \&params_case,  allowed => qr/^(?:$values|42804)$/ },
	options => { statements => \&options_case, allowed => qr/^(?:$values|HV00D|HV024|42710|42704|42601|42622|55000|58P01|F0000|KC\d\d\d|57014)$/ },
	trigger => { statements => \&trigger_case, allowed => qr/^(?:$values|39P01|0A000|42P01|42P07|42P17|42703|42704|42701|42804|42809|42710|42846|42883|55000|42P16|23502|23505|23514|2BP01|42601|42622|428C9)$/ },
	answers => { statements => \&answers_case, allowed => qr/^(?:$values|KC\d\d\d|57014|55000|02000|P0002|23505|25006|42704|40001|55P03)$/, setup => \&answers_setup },
);
$parts{$part} or usage();

sub usage
{
	die "usage: $0 [--seed N] [--seconds N | --cases N] [--case N] [-v] PART\nPART is one of " . join(', ', sort keys %parts) . "\n";
}

# ---------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------
sub array
{
	my (@elements) = @_;

	return 'NULL' if one_in(10);
	return 'ARRAY[' . join(', ', @elements) . ']';
}

# Of a composite type, as text.
sub record_text
{
	my ($depth) = @_;
	my @fields = map {
		my $field = one_in(3) ? '' : $depth && one_in(3) ? record_text($depth - 1) : pick('t', 'f', text(), json(1), '{a,b}', '{}', '{"(a,b,,,,,)"}');
		$field =~ tr/\0//d;
		$field =~ s/(["\\])/\\$1/g;
		one_in(3) && $field eq '' ? '' : "\"$field\"";
	} 1 .. pick(3, 5, 7, 8, 13, 14);

	return '(' . join(',', @fields) . ')';
}

my @types = map { "enterprise_connection_$_" } qw(params oidc saml attribute_mapping login_hint custom_attribute);

sub params_case
{
	my $params    = quote(one_in(40) ? undef : json_text(4)) . '::jsonb';
	my $operation = one_in(10) ? quote(pick(undef, '', 'delete', 'CREATE', text())) : quote(pick('create', 'update'));
	my $extra     = array(map { quote(one_in(10) ? undef : pick(name(), text(), name() . '.' . name(), 'saml.' . name())) } 1 .. rand 4) . '::text[]';
	my $type      = pick(@types);
	my $kind      = int rand 8;

	# what one finds, the other has to find
	return ("WITH p AS MATERIALIZED (SELECT $params AS p, $operation AS o, $extra AS e) "
		  . 'SELECT CASE WHEN p IS NOT NULL AND NOT EXISTS (SELECT FROM check_enterprise_connection(p, o, e)) '
		  . 'THEN enterprise_connection_body(p, o, e) IS NULL END AS wrong FROM p', qr/t/) if $kind < 2;
	return "SELECT enterprise_connection_body($params, $operation, $extra)" if $kind < 4;
	return "SELECT * FROM check_enterprise_connection($params, $operation, $extra)" if $kind == 4;
	return "SELECT enterprise_connection_body(jsonb_populate_record(NULL::enterprise_connection_params, $params), $operation, $extra)" if $kind == 5;
	return 'SELECT ' . quote(record_text(2)) . "::${type}::jsonb" if $kind == 6;
	return 'SELECT ' . array(map { quote(record_text(1)) . '::enterprise_connection_custom_attribute' } 0 .. rand 3) . '::enterprise_connection_custom_attribute[]::jsonb' if one_in(2);
	return "SELECT jsonb_populate_record(NULL::$type, $params)::jsonb, jsonb_populate_record(NULL::$type, $params) = jsonb_populate_record(NULL::$type, $params)";
}

# ---------------------------------------------------------------------------
# Options: the validator alone; a server that it takes is not spoken to, unless
# its address is one of this machine.
# ---------------------------------------------------------------------------
my @options = qw(api_url api_version timeout connect_timeout max_retries max_concurrency rate_limit max_response_size mirror_interval
  ca_file proxy extra_params secret_key secret_key_file);

sub url
{
	my $url = pick('http', 'https', 'HTTP', 'socks5', 'file', 'ftp', '') . pick('://', ':', '//', ':///') . pick('', '', 'user@', 'user:pass@', ':@')
	  . pick('127.0.0.1', 'localhost', '[::1]', '[::1', '127.1', '0x7f.1', '2130706433', '127.0.0.1.example', 'x' x 300, '', text()) . pick('', ':', ':1', ':0', ':65536', ':99999999999', ':x')
	  . pick('', '/', '/v1', '/v1/', '/a/../b', '/%00', '/?q', '/#f', '//', text());

	return one_in(4) ? mutate($url) : $url;
}

sub option_value
{
	return url() if one_in(4);
	return pick(0, 1, -1, 5, 500, 2147483647, 2147483648, '1e3', '0x10', ' 1', '1 ', '١', 'NaN', '1.5') . pick('', '', 'ms', 's', ' s', 'min', 'd', 'kB', 'MB', 'B', 'x') if one_in(3);
	return pick('/', '/dev/null', '/nonexistent', 'relative', '/tmp', '2026-05-12', 'saml.new, foo', 'a,,b', ',', '.', 'a.b.c.d', 'sk_test_x', 'pk_test_x') if one_in(3);
	return text();
}

sub option_list
{
	my ($verbs) = @_;

	return join ', ', map {
		my $verb = $verbs ? pick('ADD ', 'SET ', 'DROP ', '') : '';
		my $name = one_in(6) ? mutate(pick(@options)) : one_in(12) ? text() : pick(@options);
		$verb . identifier($name) . ($verb eq 'DROP ' ? '' : ' ' . quote(option_value()));
	} 1 .. 1 + rand 3;
}

sub options_case
{
	my $kind = int rand 7;
	my $local = 'CREATE SERVER fuzzed FOREIGN DATA WRAPPER pg_clerk';

	return ("$local OPTIONS (" . option_list() . ')', 'DROP SERVER IF EXISTS fuzzed CASCADE') if $kind < 2;
	return ($local, map({ 'ALTER SERVER fuzzed OPTIONS (' . option_list(1) . ')' } 1 .. 3), 'DROP SERVER fuzzed CASCADE') if $kind < 4;
	return ($local, 'CREATE USER MAPPING FOR ' . pick('PUBLIC', 'CURRENT_USER') . ' SERVER fuzzed OPTIONS (' . option_list() . ')', 'DROP SERVER fuzzed CASCADE') if $kind == 4;
	return ('SET pg_clerk.' . pick(qw(server on_rollback)) . ' = ' . quote(text()), 'SELECT get_enterprise_connection(' . quote(text()) . ')', 'RESET ALL') if $kind == 5;
	# port 1 of this machine: nobody is there
	return ("$local OPTIONS (api_url 'http://127.0.0.1:1', " . join(', ', map { identifier($_) . ' ' . quote(option_value()) } pick(@options[ 1 .. 3, 5 .. 7 ])) . ", max_retries '0')",
		"CREATE USER MAPPING FOR PUBLIC SERVER fuzzed OPTIONS (secret_key 'sk_test_x')", "SET statement_timeout = '3s'",
		'SELECT get_enterprise_connection(' . quote(text()) . ", 'fuzzed')", 'RESET ALL', 'DROP SERVER IF EXISTS fuzzed CASCADE');
}

# ---------------------------------------------------------------------------
# Trigger arguments, and the rows and tables under them
# ---------------------------------------------------------------------------
my %columns = (
	id => [ 'int', 'bigint', 'smallint', 'uuid DEFAULT gen_random_uuid()', 'text', 'varchar(20)', 'numeric', 'timestamptz', 'char(5)', 'bytea' ],
	name => [ 'text', 'varchar(50)', 'name', 'fuzz_enum', 'fuzz_domain', 'jsonb', 'int' ],
	domains => [ 'text[]', 'varchar[]', 'jsonb', 'json', 'text', 'int[]', 'fuzz_domains', 'text[][]' ],
	active => [ 'boolean', 'text', 'int', 'jsonb' ],
	meta => [ 'text', 'jsonb', 'json', 'fuzz_composite', 'xml', 'int4range', 'text GENERATED ALWAYS AS (\'x\') STORED' ],
	'Odd "one"' => [ 'text', 'boolean', 'jsonb' ],
);
my %literals = (
	int => [ 0, 1, -5, 2147483647 ], 'uuid' => ["'00000000-0000-0000-0000-000000000001'"], boolean => [ 'true', 'false' ],
	array => [ "'{}'", "'{a.example}'", "'{a.example,NULL}'", "'{\"\"}'", "'{{a,b},{c,d}}'", "'[5:6]={a,b}'" ]);

sub trigger_argument
{
	my $column = pick(sort keys %columns);

	return pick('key=p:id', 'key=p:id', 'key=id', 'name=name', 'domains=domains', 'when=active', 'removal:=delete', 'removal:=keep', 'removal:=deactivate',
		'provider:=saml_okta', 'server:=clerk', 'active=active', 'active:=true', 'saml=meta', 'saml.idp_metadata_url=meta') if !one_in(4);
	my $argument = pick(name(), name(), 'saml.' . name(), 'oidc.' . name(), 'key', 'when', 'server', 'removal', 'key=p:', text())
	  . pick('=', '=', ':=', ':=', '', '==', ':', ' = ') . pick($column, $column, text(), json(2));

	return one_in(5) ? mutate($argument) : $argument;
}

sub value
{
	my ($type) = @_;

	return 'NULL' if one_in(5);
	return 'DEFAULT' if $type =~ /GENERATED|DEFAULT/;
	return pick(@{ $literals{array} }) if $type =~ /\[\]|domains/ && !one_in(8);
	return pick(@{ $literals{boolean} }) if $type =~ /^bool/;
	return quote(json(2)) if $type =~ /^json/;
	return pick(@{ $literals{int} }) if $type =~ /^(?:int|bigint|smallint|numeric)$/;
	return "'a'" if $type =~ /enum/;
	return "'2026-05-12'" if $type =~ /^timestamp/;
	return "'[1,5)'" if $type =~ /range/;
	return quote(text());
}

sub reconcile_statement
{
	return 'SELECT plan_enterprise_connections(\'fuzzed\', \'sso\')' if one_in(2);
	return sprintf 'SELECT reconcile_enterprise_connections(\'fuzzed\', \'sso\', false, %s, %s, %s)', map { pick('true', 'false') } 1 .. 3;
}

# Types of columns are what the table has at that moment, or had.
sub trigger_case
{
	my %type = map { $_ => pick(@{ $columns{$_} }[ 0, 0 .. $#{ $columns{$_} } ]) } keys %columns;
	my @names = grep { $_ eq 'id' || !one_in(12) } sort keys %type;
	my $partitioned = one_in(5);
	my $when = one_in(15) ? pick('BEFORE', 'INSTEAD OF') : 'AFTER';
	my @statements = (
		'CREATE TABLE fuzzed (' . join(', ', map { identifier($_) . " $type{$_}" } @names) . ')' . ($partitioned ? ' PARTITION BY LIST (id)' : ''));

	push @statements, 'CREATE TABLE fuzzed_1 PARTITION OF fuzzed DEFAULT' if $partitioned;
	push @statements, 'CREATE UNIQUE INDEX ON fuzzed (id)' unless one_in(12);
	my $arguments = join ', ', map { quote($_) } (one_in(6) ? () : 'key=p:id'), some(6, \&trigger_argument);
	my $deferred  = one_in(6) ? 'CONSTRAINT' : '';
	push @statements, "CREATE $deferred TRIGGER sso $when INSERT OR UPDATE OR DELETE" . (one_in(20) ? ' OR TRUNCATE' : '') . ' ON fuzzed '
	  . ($deferred && one_in(2) ? 'DEFERRABLE INITIALLY DEFERRED ' : '') . (one_in(20) ? '' : 'FOR EACH ROW ') . "EXECUTE FUNCTION sync_enterprise_connection($arguments)";
	push @statements, reconcile_statement() if one_in(4);
	for (1 .. 2 + rand 5)
	{
		my $kind   = int rand 10;
		my $column = pick(@names);

		push @statements, 'INSERT INTO fuzzed (' . join(', ', map { identifier($_) } @names) . ') VALUES '
		  . join(', ', map { '(' . join(', ', map { value($type{$_}) } @names) . ')' } 0 .. rand 3) if $kind < 4;
		push @statements, 'UPDATE fuzzed SET ' . identifier($column) . ' = ' . value($type{$column}) if $kind == 4 || $kind == 5;
		push @statements, 'DELETE FROM fuzzed' if $kind == 6;
		push @statements, 'ALTER TABLE fuzzed ' . pick('DROP COLUMN ' . identifier($column), 'RENAME COLUMN ' . identifier($column) . ' TO other',
			'ALTER COLUMN ' . identifier($column) . ' TYPE text', 'ADD COLUMN more text DEFAULT \'x\'', 'DISABLE TRIGGER sso') if $kind == 7;
		push @statements, "DO \$fuzz\$BEGIN EXECUTE " . quote('UPDATE fuzzed SET ' . identifier($column) . ' = ' . value($type{$column})) . "; EXCEPTION WHEN others THEN IF SQLSTATE ~ '^XX' THEN RAISE; END IF; END\$fuzz\$" if $kind == 8;
		push @statements, 'BEGIN', 'SAVEPOINT s', 'UPDATE fuzzed SET ' . identifier($column) . ' = ' . value($type{$column}), 'ROLLBACK TO s', 'DELETE FROM fuzzed', pick('COMMIT', 'ROLLBACK') if $kind == 9;
	}
	push @statements, reconcile_statement() if one_in(4);
	# what a transaction that has failed says to all the rest
	return (@statements, 'ROLLBACK', 'DROP TABLE IF EXISTS fuzzed', 'TRUNCATE enterprise_connection_requests');
}

# ---------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------
sub answers_setup
{
	$answers = Answers->start("$scratch/answers");
	return (sprintf(q{CREATE SERVER answers FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '%s', rate_limit '0', timeout '500ms', connect_timeout '5s', max_retries '1', max_response_size '1MB')}, $answers->url),
		q{CREATE USER MAPPING FOR PUBLIC SERVER answers OPTIONS (secret_key 'sk_test_x')},
		q{SET pg_clerk.server = 'answers'},
		q{SET statement_timeout = '5s'});
}

sub answers_case
{
	my $id     = quote(one_in(8) ? text() : 'entconn_' . int rand 20);
	my $key    = quote(one_in(8) ? text() : 'key_' . int rand 5);
	my $params = q{'{"name": "N", "provider": "saml_okta", "domains": ["n.example"]} '::jsonb} . (one_in(4) ? q{ || '{"sync_user_attributes": true}'} : '');
	my $kind   = int rand 18;
	my @statements =
		$kind == 0 ? "SELECT create_enterprise_connection($params)"
	  : $kind == 1 ? "SELECT * FROM create_enterprise_connections(array_fill($params, ARRAY[" . int(rand 12) . ']))'
	  : $kind == 2 ? "SELECT update_enterprise_connection($id, '{\"active\": true}')"
	  : $kind == 3 ? "SELECT get_enterprise_connection($id)"
	  : $kind == 4 ? 'SELECT list_enterprise_connections(max_rows => ' . pick('NULL', 0, 1, 3, 700) . ')'
	  : $kind == 5 ? ('BEGIN', 'DECLARE c CURSOR FOR SELECT list_enterprise_connections()', 'FETCH ' . pick(1, 5, 600) . ' FROM c', pick('CLOSE c', 'ROLLBACK'), 'ROLLBACK')
	  : $kind == 6 ? "SELECT delete_enterprise_connection($id)"
	  : $kind == 7 ? "SELECT upsert_enterprise_connection($key, $params)"
	  : $kind == 8 ? "SELECT adopt_enterprise_connection($key, $id)"
	  : $kind < 11 ? 'SELECT * FROM mirror_enterprise_connections(force => ' . pick('true', 'false') . ')'
	  : $kind == 11 ? pick("SELECT create_enterprise_connection_test_run($id)", "SELECT list_enterprise_connection_test_runs($id)")
	  : $kind == 12 ? ("SET pg_clerk.on_rollback = '" . pick('warn', 'delete') . "'", 'BEGIN', "SELECT create_enterprise_connection($params)", 'ROLLBACK')
	  : $kind == 13 ? "DO \$fuzz\$BEGIN PERFORM upsert_enterprise_connection($key, $params); PERFORM list_enterprise_connections(); EXCEPTION WHEN others THEN IF SQLSTATE ~ '^XX' THEN RAISE; END IF; END\$fuzz\$"
	  : (map({
			my $what = pick('create', 'update', 'upsert', 'delete');
			"SELECT enqueue_enterprise_connection('$what', " . ($what eq 'delete' ? 'NULL' : $what eq 'update' ? q{'{"active": true}'} : $params) . ', key => ' . ($what eq 'create' ? 'NULL' : $key) . ')' } 0 .. rand 6),
		q{UPDATE enterprise_connection_requests SET next_attempt_at = now() WHERE state IN ('queued', 'in_doubt')},
		'CALL deliver_enterprise_connections()', 'CALL deliver_enterprise_connections()', one_in(3) ? 'DELETE FROM enterprise_connection_requests' : (),
		# held back, too, by an answer 429 to one of these
		one_in(2) ? "SELECT get_enterprise_connection($id)" : ());

	# A hold by 429 ends with it; where it goes on, calls fail at once.
	unshift @statements, q{ALTER SERVER answers OPTIONS (SET rate_limit '0')} unless one_in(4);
	return @statements;
}

# ---------------------------------------------------------------------------
# Around
# ---------------------------------------------------------------------------
sub psql
{
	my (@options) = @_;

	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	system('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', @options) == 0 or die "could not prepare the database\n";
	return;
}

sub connect_again
{
	my ($first) = @_;
	my $end = time + 60;

	$session->stop if $session;
	# after a crash, the server takes its time
	until (system(qq{psql -X -q -d $DATABASE -c '' >/dev/null 2>&1}) == 0)
	{
		die "the server does not come back\n" if time > $end;
		select undef, undef, undef, 0.1;
	}
	$session = Session->start('-d', $DATABASE);
	$session->run(10, q{SET client_min_messages = 'error'}, q{SET extra_float_digits = 0}) or die "no session\n";
	return;
}

sub prepare
{
	psql('-d', 'postgres', '-c', "DROP DATABASE IF EXISTS $DATABASE", '-c', "CREATE DATABASE $DATABASE TEMPLATE template0 ENCODING 'UTF8'");
	psql('-d', $DATABASE, '-c', q{
		CREATE EXTENSION pg_clerk;
		CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url 'http://127.0.0.1:1');
		CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
		CREATE TYPE fuzz_enum AS ENUM ('a', 'b');
		CREATE DOMAIN fuzz_domain AS text CHECK (VALUE <> 'forbidden');
		CREATE DOMAIN fuzz_domains AS text[];
		CREATE TYPE fuzz_composite AS (a text, b int)});
	return;
}

# Something that a user must not see; goes on with a new session.
sub fault
{
	my ($case, $what, @statements) = @_;

	print "--- fault in case $case of seed $option{seed}, part $part: $what\n";
	print "once more: fuzz.pl --seed $option{seed} --case $case $part\n";
	print map { (length > 5000 ? substr($_, 0, 5000) . "... (@{[ length ]})" : $_) . ";\n" } map { Encode::encode('UTF-8', $_) } @statements;
	if ($answers && open my $log, '<', "$scratch/answers")
	{
		local $/;
		print 'what was answered: ', <$log> // '', "\n";
	}
	push @faults, $case;
	return;
}

sub run_case
{
	my ($case, $kind) = @_;

	srand(($option{seed} * 1_000_003 + $case) % 4_294_967_291);
	$answers->seed(int rand 2**31) if $answers;
	my @statements = $kind->{statements}->();
	my $wrong = ref $statements[-1] ? pop @statements : qr/\A(?!)/;

	print "case $case\n" if $option{v};
	print join(";\n", map { Encode::encode('UTF-8', $_) } @statements), ";\n" if $option{v};
	$run++;
	my $start   = time;
	my @results = $session->run($PATIENCE, @statements);

	printf "  %.1f s\n", time - $start if $option{v};

	if (!@results)
	{
		fault($case, sprintf('the session ended, or has hung, after %.1f s: %s', time - $start, $session->rest), @statements);
		$session = undef;
		connect_again();
		setup($kind);
		return;
	}
	for my $i (0 .. $#results)
	{
		my $result = $results[$i];

		fault($case, "an answer that is wrong: $result->{out}", $statements[$i]) if $result->{out} =~ /\A$wrong$/;
		for my $error (@{ $result->{errors} })
		{
			my ($state, $message) = @$error;

			$states{$state}++;
			print "  $state: $message\n" if $option{v};
			next if $state eq '25P02' || $state =~ $kind->{allowed} && !($state eq '57014' && $statements[$i] !~ $ENDLESS);
			fault($case, "$state: $message", @statements[ 0 .. $i ]);
			return;
		}
	}
	return;
}

my @setup;

sub setup
{
	my ($kind) = @_;

	@setup = $kind->{setup}->() if $kind->{setup} && !@setup;
	$session->run($PATIENCE, @setup) if @setup;
	return;
}

$| = 1;
binmode STDOUT, ':raw';
prepare();
connect_again();
setup($parts{$part});

my $end   = time + $option{seconds};
my $first = $option{case} // 1;
for (my $case = $first;; $case++)
{
	run_case($case, $parts{$part});
	last if defined $option{case} || @faults >= $MAX_FAULTS;
	last if $option{cases} ? $case >= $option{cases} : time > $end;
}
$session->stop;
$answers->stop if $answers;
printf "fuzz %s: seed %d, %d cases, %d faults; errors: %s\n", $part, $option{seed}, $run, scalar @faults,
  join(', ', map { "$_ $states{$_}" } sort { $states{$b} <=> $states{$a} || $a cmp $b } keys %states) || 'none';
exit(@faults ? 1 : 0);
