# The secret key, and the client secrets among the parameters, are nowhere but
# where they belong: not in the log, however much is logged, in no message, no
# view, no file.

use strict;
use warnings;

use ClerkTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $key           = 'sk_test_006SeenNowhere';
my $file_key      = 'sk_test_006InAFileOnly';
my $client_secret = 'cs-006-keepMeOut';
my $other_secret  = "it's \"006\" \\ quoted";
my $mock = start_mock('--secret-key', $key, '--secret-key', $file_key);
my $node = clerk_node(
	'secrets', $mock,
	key    => $key,
	server => { max_retries => 0 },
	conf   => "fsync = off\n");
my $has_statements = $node->psql('postgres', 'CREATE EXTENSION pg_stat_statements') == 0;
my $key_file = PostgreSQL::Test::Utils::tempdir('key') . '/key';

append_to_file($key_file, "$file_key\n");
chmod 0600, $key_file;

# A key in an option, or in a parameter, is PostgreSQL's to log while it is
# given; that is over when the logging begins.
clerk_server($node, $mock, name => 'redirected', key => $key, server => { max_retries => 0 });
$node->safe_psql('postgres', qq{
	CREATE SERVER by_file FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '@{[ $mock->url ]}', rate_limit '0', max_retries '0');
	CREATE USER MAPPING FOR PUBLIC SERVER by_file OPTIONS (secret_key_file '$key_file');
	CREATE ROLE app LOGIN;
	GRANT USAGE ON FOREIGN SERVER clerk, by_file, redirected TO app;
	CREATE USER MAPPING FOR app SERVER clerk;
	CREATE ROLE owner LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO owner;
	GRANT ALL ON DATABASE postgres TO owner;
});
$node->append_conf(
	'postgresql.conf', q{
log_min_messages = debug5
log_min_error_statement = debug5
client_min_messages = debug5
log_error_verbosity = verbose
log_statement = none
log_connections = on
log_disconnections = on
log_duration = on
log_lock_waits = on
log_temp_files = 0
log_line_prefix = '%m [%p] %q%u@%d %a %i '
debug_print_parse = off
track_activity_query_size = 65536
} . ($has_statements ? "shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.track = all\n" : ''));
$node->stop;
unlink $node->logfile;
$node->start;
$node->safe_psql('postgres', 'SELECT pg_stat_statements_reset()') if $has_statements;

my $seen = '';    # all that any client was told
my $count = 0;

# As an error of psql would be: all of its fields
sub run_as
{
	my ($user, $sql, @more) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $user ], @more);

	$seen .= "$out\n$err\n";
	return $err;
}

# A call whose parameters come as bind parameters, as an application's do.
# Returns what pgbench printed.
sub run_bound
{
	my ($server, %options) = @_;
	my $domain = 'd' . ++$count . '.example';
	my $dir    = PostgreSQL::Test::Utils::tempdir('bound');
	my $sql    = q{SELECT create_enterprise_connection(jsonb_build_object('name', :name::text, 'provider', 'oidc_custom', 'domains', jsonb_build_array(:domain::text),
		'oidc', jsonb_build_object('client_id', 'c', 'discovery_url', 'https://idp.example/d', 'client_secret', :secret::text)), :server);};
	my ($out, $err) = ('', '');

	append_to_file("$dir/script.sql", "$sql\n");
	IPC::Run::run([ 'pgbench', '-n', '-t', 1, '-M', $options{mode} || 'extended', '-f', "$dir/script.sql",
			'-D', 'name=' . ($options{name} || 'Bound'), '-D', "domain=$domain", '-D', "server=$server",
			'-D', 'secret=' . ($options{secret} || $client_secret), '-U', $options{user} || 'app', $node->connstr('postgres') ],
		'<', \'', '>', \$out, '2>', \$err);
	$seen .= "$out\n$err\n";
	return $err;
}

# ---------------------------------------------------------------------------
# Calls that work, and calls that fail, while everything is logged
# ---------------------------------------------------------------------------
run_bound('clerk');
run_bound('clerk', mode => 'prepared');
my ($request) = $mock->requests;
is($request->{headers}{authorization}, "Bearer $key", 'the key is sent to the server');
is($request->{body}{oidc}{client_secret}, $client_secret, 'and so is the client secret');
run_bound('clerk', secret => $other_secret);
is(($mock->requests)[-1]{body}{oidc}{client_secret}, $other_secret, 'one with quotes arrives as it is');
run_bound('by_file');
is(($mock->requests)[-1]{headers}{authorization}, "Bearer $file_key", 'a key from a file is used');

# What came in is said again by the other side, in all the places that are
# shown. (It can only repeat what it was sent.)
for my $case ([ 'clerk', $key, $client_secret ], [ 'by_file', $file_key, $client_secret ], [ 'clerk', $key, $other_secret ])
{
	my ($server, $sent_key, $secret) = @$case;
	my $echo = "you said $sent_key and $secret";
	my $word = $secret eq $client_secret ? "$sent_key/$secret" : $sent_key;
	my @errors = map { +{
			status  => $_,
			headers => { 'x-clerk-trace-id' => "x-$word", 'cf-ray' => "ray-$word" },
			body    => {
				errors => [ { code => "c_$word", message => $echo, long_message => $echo, meta => { param_name => "p_$echo" } } ],
				clerk_trace_id => "t-$echo",
			} } } 400, 401, 422, 429, 500, 503;
	my @steps = (
		{ status => 400, headers => { 'cf-ray' => "ray-$word" }, body => '<html>' },
		{ status => 400, body => { error => $echo } },
		{ status => 400, body => { errors => [ { message => 'm' x 980 . $echo } ] } },
		{ status => 201, body => $echo },
		{ status => 201, body => { id => $word, x => 'x' x 1000 }, truncate => 500 },
		{ status => 201, body => "{\"id\": \"x\", \"$echo" },
		{ status => 302, headers => { Location => "http://127.0.0.1:1/$word" }, body => $echo },
		(map { +{ raw => $_ } }
			"HTTP/1.1 $echo\r\n\r\n", "$echo: $echo\r\n\r\n",
			"HTTP/1.1 200 OK\r\n$echo\r\n\r\n{}",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: $echo\r\n\r\n{}",
			"HTTP/1.1 200 OK\r\nContent-Encoding: $echo\r\n\r\n{}",
			"HTTP/1.1 200 OK\r\nContent-Length: $echo\r\n\r\n{}",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n$echo\r\n{}"));

	# all of them once, and of the rest what differs
	@steps = () if $server ne 'clerk' || $secret ne $client_secret;
	@errors = $errors[0] unless @steps;
	for my $step (@errors, @steps)
	{
		$mock->unscript;
		$mock->script($step);
		my $err = run_bound($server, secret => $secret);
		like($err, qr/could not create|cannot be used/, "an error that repeats the secrets of $server: "
			. ($step->{status} // 'raw bytes'));
	}
}
$mock->unscript;

# Faults that are found here, with a secret in the wrong place
run_as('app', q{SELECT create_enterprise_connection('{"name": "x", "nmae": 1}')});
run_as('app', q{SELECT create_enterprise_connection(name => 'x', server => 'none')});
run_as('app', q{SET default_transaction_read_only = on; SELECT create_enterprise_connection(name => 'x')});
run_as('app', q{SELECT arm_enterprise_connections('clerk')});
run_as('app', q{SELECT create_enterprise_connection(name => 'x', provider => 'saml_okta', domains => '{a.example}', sync_user_attributes => false)});
run_bound('clerk', name => 'n' x 300, secret => $client_secret) for 1 .. 2;

# The client secret of the wrong type, or in a place of its own
$mock->settings({ secret_keys => ['sk_test_another'] });
like(run_bound('clerk'), qr/authorization|key/i, 'a withdrawn key is refused');
run_bound('by_file');
$mock->settings({ secret_keys => [ $key, $file_key ] });

# A key that is refused is not shown either
$node->safe_psql('postgres', "SET log_min_error_statement = panic; SET log_min_messages = panic; CREATE SERVER bad FOREIGN DATA WRAPPER pg_clerk");
my $bad_key = "pk_006 not a key \x{7f}";
my ($status, $out, $err) = $node->psql('postgres',
	"SET log_min_messages = panic;\nCREATE USER MAPPING FOR PUBLIC SERVER bad OPTIONS (secret_key '$bad_key')");
isnt($status, 0, 'a key that cannot be one is refused');
my ($message) = $err =~ /(ERROR:.*)/;
unlike($message, qr/\Qpk_006\E/, 'and not repeated in the message');
($status, $out, $err) = $node->psql('postgres',
	"SET log_min_messages = panic;\nCREATE SERVER bad2 FOREIGN DATA WRAPPER pg_clerk OPTIONS (secret_key '$key')");
($message) = $err =~ /(ERROR:.*\n(?:HINT.*)?)/;
isnt($status, 0, 'a key among a server\'s options is refused');
unlike($message, qr/\Q$key\E/, 'and not repeated in the message');

# ---------------------------------------------------------------------------
# Views, as a role with USAGE and as an ordinary owner
# ---------------------------------------------------------------------------
my $session = session($node, user => 'app', env => { PGOPTIONS => '-c client_min_messages=notice' });
$mock->script({ hold => JSON::PP::true });
my $before = $mock->stats->{requests};
$session->send(q{SELECT create_enterprise_connection(name => 'held', provider => 'saml_okta', domains => '{held.example}')});
wait_until(sub { $mock->stats->{requests} > $before }, 'the request to arrive');
my $activity = $node->safe_psql('postgres', 'SELECT * FROM pg_stat_activity');
like($activity, qr/held\.example/, 'pg_stat_activity shows the call');
unlike($activity, qr/\Q$key\E|\Q$file_key\E/, 'and no key');
$mock->unscript;
$mock->release;
$session->finish;

# Every relation that the role may read is searched for every secret. (Each is
# given in two parts: the statement is in some of those views.)
sub search
{
	my ($user, $except) = @_;
	my $secrets = join ', ', map { "'" . substr($_, 0, 6) . "' || '" . substr($_, 6) . "'" } $key, $file_key, $client_secret;
	my ($status, $out, $err) = $node->psql(
		'postgres', qq{
		SET client_min_messages = warning;
		CREATE TEMP TABLE found (name text, secret int);
		DO \$do\$
		DECLARE
			r regclass;
		BEGIN
			FOR r IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname IN ('pg_catalog', 'information_schema', 'public')
				AND has_table_privilege(c.oid, 'SELECT') AND c.relname <> ALL ('$except') AND c.relname NOT LIKE '%\\_numa'
			LOOP
				BEGIN
					EXECUTE format('INSERT INTO found SELECT %L, s.n FROM unnest(ARRAY[$secrets]) WITH ORDINALITY AS s (t, n)'
						' WHERE EXISTS (SELECT FROM %s AS one_row WHERE strpos(one_row::text, s.t) > 0)', r, r);
				EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR object_not_in_prerequisite_state THEN
				END;
			END LOOP;
		END \$do\$;
		SELECT string_agg(name || ' ' || secret, ', ' ORDER BY name, secret) FROM found;
		} =~ s/\Q$secrets\E/$secrets =~ s{'}{''}gr/er, extra_params => [ '-U', $user ]);
	diag $err if $status != 0;
	return $out;
}
my $superuser = getpwuid $<;
is(search('app', '{}'), '', 'a role with USAGE finds no secret in any relation that it may read');
is(search('owner', '{}'), '', 'another owner does not either');
is(search($superuser, '{pg_user_mapping,pg_user_mappings,user_mapping_options,_pg_user_mappings}'),
	'', 'for a superuser the key is in the user mappings, and nothing anywhere else');
is(search($superuser, '{}'), 'information_schema._pg_user_mappings 1, information_schema.user_mapping_options 1, pg_user_mapping 1, pg_user_mappings 1',
	'which is where the search finds it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL}, extra_params => [ '-U', 'app' ]),
	'0', 'pg_user_mappings shows that role no options');

SKIP:
{
	skip 'no pg_stat_statements', 2 unless $has_statements;
	my $statements = $node->safe_psql('postgres', 'SELECT query FROM pg_stat_statements');

	like($statements, qr/create_enterprise_connection/, 'pg_stat_statements has the calls');
	unlike($statements, qr/\Q$key\E|\Q$file_key\E|\Q$client_secret\E/, 'and no secret');
}

# ---------------------------------------------------------------------------
# The key goes to the server that is named, and not where that one points
# ---------------------------------------------------------------------------
my $target = start_mock('--secret-key', $key);
for my $status (301, 302, 303, 307, 308)
{
	$mock->script({ status => $status, headers => { Location => $target->url . '/v1/enterprise_connections' }, body => '' });
	my $err = run_as('app', q{SELECT create_enterprise_connection(name => 'r', provider => 'saml_okta', domains => '{r.example}', server => 'redirected')});
	like($err, qr/ERROR:  KC007:.*\n(?:.*\n)*?DETAIL:.*redirect/, "a redirect ($status) is an error");
}
is($target->stats->{requests}, 0, 'and nobody follows it');

# ---------------------------------------------------------------------------
# What was written
# ---------------------------------------------------------------------------
$session->stop;
$node->stop;
my $log = slurp_file($node->logfile);
# PostgreSQL's own report of a statement that has the key in it: the two
# refusals above.
$log =~ s/^.*STATEMENT:  .*(?:\n\t.*)*//mg;

sub lines_with
{
	my ($text, $what) = @_;

	return join "\n", grep { index($_, $what) >= 0 } split /\n/, $text;
}

like($log, qr/DEBUG:  00000:/, 'the log has debug messages');
is(lines_with($log, $_->[1]), '', "the log does not have $_->[0]")
  for [ 'the key', $key ], [ 'the key in the file', $file_key ], [ 'the client secret', $client_secret ],
  [ 'the header', 'Bearer' ], [ 'the other secret', '"006"' ];
is(lines_with($seen, $_->[1]), '', "no client was told $_->[0]")
  for [ 'the key', $key ], [ 'the key in the file', $file_key ];
is(lines_with($seen, $client_secret), '', 'nor the client secret');
is(lines_with($seen, '"006"'), '', 'nor the one with quotes');
unlike($log, qr/TRAP:|PANIC:|was terminated by signal/, 'nothing crashed');

# No file of the cluster has the key that lives in a file of its own; the
# other one is in the user mapping's table and its write-ahead log.
my @files = split /\n/, `grep -rlaF '$file_key' '@{[ $node->data_dir ]}'`;
is("@files", '', 'the key in the file is in no file of the cluster');
my @places = grep { !m{/(?:base|pg_wal)/} } split /\n/, `grep -rlaF '$key' '@{[ $node->data_dir ]}'`;
is("@places", '', 'the other one in the catalog and the write-ahead log only');

done_testing();
