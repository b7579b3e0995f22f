# The soak: many requests, while workers are killed and Clerk misbehaves. At
# the end Clerk must hold exactly what the committed rows ask for.
#
#   Soak::run(requests => 5000, keys => 200, seconds => 180, seed => 1)
#
# returns a list of violations, empty if all is well. It prints its seed and
# what it has counted.
#
# In each of two databases some sessions enqueue. A request's name has the
# number of its key's version, and a token that is never given again, so that
# what belongs to a transaction that was rolled back can be told. What was
# committed is known from a ledger that is written in the same transaction; so
# a crash at COMMIT leaves no doubt.
#
# Kinds of keys, by k % 4:
#   0	with a domain of their own, and domains that move from key to key
#   1	with a domain of their own
#   2,3	without domains, which Clerk would create twice without a word
# and creates without a key, with and without domains. Beside them are the rows
# of a table with the trigger, which turn unready and ready again.

package Soak;

use strict;
use warnings;

use ClerkTest;
use POSIX qw(:sys_wait_h);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my @DATABASES = qw(soak_a soak_b);

# Sessions that enqueue, for each database.
my $SESSIONS = 3;

# The server option timeout, and how slow Clerk is: within it, or far past it.
my $TIMEOUT_MS    = 1000;
my $SLOW_MS       = 600;
my $SLOW_AFTER_MS = 1500;

my %chaos = (
	p_500          => 0.04,
	p_429          => 0.03,
	p_reset_before => 0.04,
	p_reset_after  => 0.04,
	p_slow         => 0.10,
	slow_ms        => $SLOW_MS,
	p_slow_after   => 0.04,
	slow_after_ms  => $SLOW_AFTER_MS,
);

my $schema = <<'SQL';
CREATE SCHEMA soak;
CREATE SEQUENCE soak.token;
CREATE TABLE soak.keys (key int PRIMARY KEY, version int NOT NULL DEFAULT 0, alive boolean NOT NULL DEFAULT false);
CREATE TABLE soak.moving (domain text PRIMARY KEY, holder int, moved_to int NOT NULL DEFAULT 0);
CREATE TABLE soak.ledger (request bigint PRIMARY KEY, key int, version int, token bigint NOT NULL, operation text NOT NULL, params jsonb);
CREATE TABLE soak.history (at timestamptz DEFAULT clock_timestamp(), pid int DEFAULT pg_backend_pid(), request bigint, text text);

-- Each change of a request, for whoever has to find out what went wrong.
CREATE FUNCTION soak.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO soak.history (request, text) VALUES (new.id, concat_ws(' ', old.state, '->', new.state, 'step', new.step,
		'attempts', new.attempts, 'claimer', coalesce(new.claimer, 0), 'connection', new.connection_id, 'next', new.next_attempt_at::time::text,
		'doubt', new.doubt_since::time::text, new.http_status, left(new.error->>'message', 120), 'by', new.superseded_by));
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON enterprise_connection_requests FOR EACH ROW EXECUTE FUNCTION soak.note();

CREATE FUNCTION soak.put(k int, dice float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t         bigint := nextval('soak.token');
	row       soak.keys;
	op        text;
	params    jsonb;
	request   bigint;
BEGIN
	UPDATE soak.keys SET version = version + 1 WHERE key = k RETURNING * INTO row;
	op := CASE
		WHEN NOT row.alive AND k % 4 = 0 THEN 'upsert'
		WHEN NOT row.alive THEN CASE WHEN dice < 0.7 THEN 'upsert' ELSE 'create' END
		WHEN dice > 0.85 THEN 'delete'
		WHEN k % 4 = 0 OR dice < 0.5 THEN 'upsert'
		ELSE 'update' END;
	IF op = 'delete' THEN
		UPDATE soak.moving SET holder = NULL WHERE holder = k;
	ELSE
		params := jsonb_build_object('name', format('%s k%s v%s t%s', current_database(), k, row.version, t));
		IF k % 4 < 2 THEN
			params := params || jsonb_build_object('domains', to_jsonb(array_prepend(
				format('k%s.%s.example', k, replace(current_database(), '_', '-')),
				(SELECT coalesce(array_agg(m.domain ORDER BY m.domain), '{}') FROM soak.moving m WHERE m.holder = k))));
		END IF;
		IF op <> 'update' THEN
			params := params || '{"provider": "saml_okta"}';
		END IF;
		-- makes a PATCH follow the POST
		IF t % 3 = 0 THEN
			params := params || jsonb_build_object('sync_user_attributes', t % 2 = 0);
		END IF;
		IF t % 5 = 0 THEN
			params := params || jsonb_build_object('saml', jsonb_build_object('idp_entity_id', format('e%s', t)));
		END IF;
	END IF;
	UPDATE soak.keys SET alive = op <> 'delete' WHERE key = k AND alive IS DISTINCT FROM (op <> 'delete');
	request := enqueue_enterprise_connection(op, params, key => format('k%s', k));
	INSERT INTO soak.ledger VALUES (request, k, row.version, t, op, params);
END $$;

-- A domain moves from the key that has it to another one, always to a higher
-- one: else two keys could come to want what the other has, of which Clerk makes
-- nothing. One that would move back is left for good, and a new one begins.
CREATE FUNCTION soak.move(d text, to_key int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	from_key int;
	last_key int;
BEGIN
	SELECT m.holder, m.moved_to INTO from_key, last_key FROM soak.moving m WHERE m.domain = d;
	PERFORM FROM soak.keys WHERE key IN (from_key, to_key) ORDER BY key FOR UPDATE;
	PERFORM FROM soak.moving m WHERE m.domain = d AND m.holder IS NOT DISTINCT FROM from_key AND m.moved_to = last_key FOR UPDATE;
	IF NOT FOUND OR from_key = to_key OR NOT (SELECT alive FROM soak.keys WHERE key = to_key) THEN
		RETURN;
	END IF;
	IF to_key <= last_key THEN
		INSERT INTO soak.moving VALUES (format('n%s.%s.example', nextval('soak.token'), replace(current_database(), '_', '-')), to_key, to_key);
		PERFORM soak.put(to_key, 0);
		RETURN;
	END IF;
	UPDATE soak.moving SET holder = to_key, moved_to = to_key WHERE domain = d;
	-- either may come first
	IF from_key IS NULL THEN
		PERFORM soak.put(to_key, 0);
	ELSIF nextval('soak.token') % 2 = 0 THEN
		PERFORM soak.put(from_key, 0), soak.put(to_key, 0);
	ELSE
		PERFORM soak.put(to_key, 0), soak.put(from_key, 0);
	END IF;
END $$;

CREATE TABLE soak.org_version (id int PRIMARY KEY, version int NOT NULL DEFAULT 0);
CREATE TABLE soak.org_token (token bigint PRIMARY KEY);
CREATE TABLE soak.org (id int PRIMARY KEY, name text, domains text[], made_in bigint NOT NULL DEFAULT txid_current());
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON soak.org FOR EACH ROW
	EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'provider:=saml_okta',
		'saml.idp_metadata_url:=https://idp.example/metadata');

-- A row comes, is called otherwise, goes, or turns unready, but not as long as it
-- is new. Its name is that which it had when it was ready. Its connection is
-- activated at first, and has to be active again whenever the row is ready again.
CREATE FUNCTION soak.change(i int, dice float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t bigint := nextval('soak.token');
	v int;
	new_name text;
	new_domains text[] := ARRAY[format('o%s.%s.example', i, replace(current_database(), '_', '-'))];
BEGIN
	UPDATE soak.org_version SET version = version + 1 WHERE id = i RETURNING version INTO v;
	IF dice < 0.15 THEN
		DELETE FROM soak.org WHERE id = i;
	ELSIF dice < 0.4 THEN
		UPDATE soak.org SET domains = NULL WHERE id = i AND made_in <> txid_current();
	ELSE
		new_name := format('%s o%s v%s t%s', current_database(), i, v, t);
		INSERT INTO soak.org_token VALUES (t);
		UPDATE soak.org SET name = new_name, domains = new_domains WHERE id = i;
		IF NOT FOUND THEN
			INSERT INTO soak.org VALUES (i, new_name, new_domains);
			PERFORM enqueue_enterprise_connection('update', '{"active": true}', key => format('org:%s', i));
		END IF;
	END IF;
END $$;

CREATE FUNCTION soak.create_one() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t      bigint := nextval('soak.token');
	params jsonb := jsonb_build_object('name', format('%s free t%s', current_database(), t), 'provider', 'saml_okta');
BEGIN
	IF t % 2 = 0 THEN
		params := params || jsonb_build_object('domains', jsonb_build_array(format('t%s.%s.example', t, replace(current_database(), '_', '-'))));
	END IF;
	IF t % 3 = 0 THEN
		params := params || '{"sync_user_attributes": true}';
	END IF;
	INSERT INTO soak.ledger VALUES (enqueue_enterprise_connection('create', params), NULL, NULL, t, 'create', params);
END $$;
SQL

my %count;
my @violations;
my $quiet = 0;

sub say_so
{
	my ($text) = @_;

	$text =~ s/^/# /mg if $quiet;
	# standard output is the log file of the test now
	print { Test::More->builder->output } "$text\n";
	print "$text\n";
	return;
}

sub violation
{
	my ($text) = @_;

	push @violations, $text;
	say_so("VIOLATION: $text");
	return;
}

# ---------------------------------------------------------------------------
# Setting up
# ---------------------------------------------------------------------------

sub set_up
{
	my ($mock, $keys) = @_;
	my $node = PostgreSQL::Test::Cluster->new('soak');

	$node->init;
	$node->append_conf('postgresql.conf', <<"END");
shared_preload_libraries = 'pg_clerk'
restart_after_crash = on
fsync = off
autovacuum_naptime = 5s
deadlock_timeout = 200ms
max_connections = 30
log_min_duration_statement = -1
log_statement = 'none'
END
	$node->start;
	for my $database (@DATABASES)
	{
		$node->safe_psql('postgres', "CREATE DATABASE $database");
		$node->safe_psql($database, 'CREATE EXTENSION pg_clerk');
		clerk_server($node, $mock, dbname => $database, server => { timeout => "${TIMEOUT_MS}ms", connect_timeout => '1s' });
		$node->safe_psql($database, $schema);
		$node->safe_psql($database, sprintf q{
			INSERT INTO soak.keys (key) SELECT generate_series(1, %d);
			INSERT INTO soak.org_version (id) SELECT generate_series(1, %d);
			INSERT INTO soak.moving SELECT format('m%%s.%%s.example', i, replace(current_database(), '_', '-')) FROM generate_series(1, %d) i},
			$keys, $keys, $keys / 8 + 1);
	}
	return $node;
}

# ---------------------------------------------------------------------------
# Enqueueing
# ---------------------------------------------------------------------------

# One transaction; its number of requests.
sub transaction
{
	my ($keys) = @_;
	my $n   = 1 + int rand 4;
	my %seen;
	my @statements;

	for (1 .. $n)
	{
		my $dice = rand;
		if ($dice < 0.15)
		{
			push @statements, 'SELECT soak.create_one()';
		}
		elsif ($dice < 0.22)
		{
			push @statements, sprintf "SELECT soak.move((SELECT domain FROM soak.moving ORDER BY moved_to %s OFFSET %d LIMIT 1), %d)",
			  rand() < 0.5 ? '' : 'DESC', int rand($keys / 8 + 1), 4 * (1 + int rand($keys / 4));
		}
		else
		{
			push @statements, sprintf 'SELECT soak.%s(%d, %.4f)', $dice < 0.35 ? 'change' : 'put', 1 + int rand $keys, rand;
		}
	}
	# sometimes only a part is rolled back
	splice @statements, int rand @statements, 0, 'SAVEPOINT s',
	  sprintf('SELECT soak.put(%d, %.4f)', 1 + int rand $keys, rand), 'SELECT soak.create_one()', 'ROLLBACK TO s'
	  if rand() < 0.1;
	return ($n, join('; ', 'BEGIN', @statements, rand() < 0.15 ? 'ROLLBACK' : 'COMMIT'));
}

# In a process of its own: goes on until it has enqueued so many, or the time
# is up.
sub enqueue
{
	my ($node, $database, $seed, $quota, $keys, $seconds) = @_;
	my $start = time;
	my $end   = $start + $seconds * 3 + 60;
	my $done  = 0;
	my $session;

	srand $seed;
	while ($done < $quota && time < $end)
	{
		my ($n, $sql) = transaction($keys);
		my $result = eval {
			$session ||= ClerkTest::Session->start($node, dbname => $database);
			$session->run($sql, 30);
		};
		if (!$result || $result->{ended})
		{
			$session->stop if $session;
			undef $session;
			sleep 0.05;
			next;
		}
		if (defined $result->{sqlstate})
		{
			print STDERR "enqueueing: $result->{err}\n" unless $result->{sqlstate} eq '40P01';
			$session->run('ROLLBACK', 30);
			next;
		}
		$done += $n if $sql =~ /COMMIT$/;
		# evenly over the time
		my $ahead = $done / $quota * $seconds - (time - $start);
		sleep $ahead if $ahead > 0;
	}
	$session->stop if $session;
	return $done >= $quota;
}

sub start_enqueueing
{
	my ($node, %options) = @_;
	my @pids;

	for my $database (@DATABASES)
	{
		for my $n (1 .. $SESSIONS)
		{
			my $pid = fork;
			die "could not fork: $!" unless defined $pid;
			if ($pid == 0)
			{
				$SIG{$_} = 'DEFAULT' for qw(INT TERM);
				my $good = eval {
					enqueue($node, $database, $options{seed} * 100 + @pids,
						$options{requests} / @DATABASES / $SESSIONS, $options{keys}, $options{seconds});
				};
				print STDERR $@ if $@;
				POSIX::_exit($good ? 0 : 1);
			}
			push @pids, $pid;
		}
	}
	return @pids;
}

# ---------------------------------------------------------------------------
# Killing
# ---------------------------------------------------------------------------

sub postmaster
{
	my ($node) = @_;

	open my $file, '<', $node->data_dir . '/postmaster.pid' or return 0;
	my $pid = <$file>;
	return defined $pid && $pid =~ /^(\d+)/ ? $1 : 0;
}

# Its children of that kind.
sub children
{
	my ($node, $kind) = @_;
	my $pid = postmaster($node) or return ();
	my @found;

	open my $file, '<', "/proc/$pid/task/$pid/children" or return ();
	for my $child (split ' ', <$file> // '')
	{
		open my $cmdline, '<', "/proc/$child/cmdline" or next;
		local $/;
		push @found, $child if (<$cmdline> // '') =~ $kind;
	}
	return @found;
}

sub restart
{
	my ($node) = @_;
	my $end = time + 20;

	until ($node->start(fail_ok => 1))
	{
		die 'the server does not start again' if time > $end;
		$count{'start refused'}++;
		# what it has found is the pid file of the one that was killed
		undef $node->{_pid};
		sleep 0.1;
	}
	return;
}

sub kill_something
{
	my ($node) = @_;
	my $dice    = rand;
	my @workers = children($node, qr/pg_clerk worker/);

	if ($dice < 0.04)
	{
		$count{'postmaster killed'}++;
		$node->kill9;
		restart($node);
	}
	elsif ($dice < 0.08)
	{
		$count{'server restarted'}++;
		$node->stop($dice < 0.06 ? 'fast' : 'immediate', fail_ok => 1);
		restart($node);
	}
	elsif (!@workers)
	{
		$count{'no worker to kill'}++;
	}
	elsif ($dice < 0.5)
	{
		$count{'worker terminated'}++;
		kill 'TERM', $workers[ rand @workers ];
	}
	else
	{
		$count{'worker killed'}++;
		kill 'KILL', $workers[ rand @workers ];
	}
	return;
}

# ---------------------------------------------------------------------------
# Watching
# ---------------------------------------------------------------------------

my %version_of;

# What a connection is called goes forward only.
sub look_at_names
{
	my ($mock) = @_;
	my ($status, $text) = $mock->_call('GET', '/_mock/connections');

	my $id;
	while ($text =~ /"id":"(entconn_\d+)"|"name":"(soak_. [ko]\d+) v(\d+) t\d+"/g)
	{
		if (defined $1)
		{
			$id = $1;
			next;
		}
		# the first name is the connection's, others are inside of it
		next unless defined $id;
		violation("connection $id of $2 went back from version $version_of{$id} to $3")
		  if defined $version_of{$id} && $version_of{$id} > $3;
		$version_of{$id} = $3;
		undef $id;
	}
	$count{'times watched'}++;
	return;
}

# A query, as soon as the server is there.
sub query
{
	my ($node, $database, $sql) = @_;
	my ($out, $err);

	wait_until(
		sub {
			my $status = $node->psql($database, $sql, stdout => \$out, stderr => \$err);
			die "error of \"$sql\": $err" if $status == 3;
			return $status == 0;
		},
		'the server', 60);
	return $out;
}

sub history
{
	my ($node, $database, $request) = @_;

	return query($node, $database, <<"SQL");
SELECT concat_ws(' ', 'request', q.id, q.operation, q.key, q.state, q.step, 'attempts', q.attempts, 'claimer', q.claimer, 'next', q.next_attempt_at,
	'doubt', q.doubt_since, 'connection', q.connection_id, q.error->>'message', q.params->>'name')
FROM enterprise_connection_requests q WHERE id = $request;
SELECT '    ' || h.at::time || ' ' || h.pid || ' ' || h.text FROM soak.history h WHERE h.request = $request ORDER BY h.at
SQL
}

# Requests that wanted one of its domains, shortly before and after.
sub rivals
{
	my ($node, $database, $request) = @_;

	return query($node, $database, <<"SQL");
SELECT concat_ws(' ', 'rival', q.id, q.operation, q.key, q.state, 'xact', q.xact, q.created_at::time, q.finished_at::time, q.params->>'domains')
FROM enterprise_connection_requests q, enterprise_connection_requests me
WHERE me.id = $request AND q.server = me.server AND abs(q.id - me.id) < 500
	AND q.lane IN (SELECT r.lane FROM enterprise_connection_requests r
		WHERE abs(r.id - me.id) < 500 AND r.params->'domains' ?| ARRAY(SELECT jsonb_array_elements_text(me.params->'domains')))
ORDER BY q.id
SQL
}

# Until nothing is left to do; is it so?
sub settle
{
	my ($node, $mock, $seconds) = @_;
	my $end = time + $seconds;
	my $unfinished;

	for (;;)
	{
		$unfinished = 0;
		$unfinished += query($node, $_, q{SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL})
		  for @DATABASES;
		return 1 if $unfinished == 0;
		last     if time > $end;
		sleep 0.3;
		look_at_names($mock);
	}
	violation("$unfinished requests are not finished");
	for my $database (@DATABASES)
	{
		say_so("$database: $_")
		  for split /\n/,
		  query($node, $database, q{SELECT concat_ws(' ', state, step, claimer IS NOT NULL, next_attempt_at = 'infinity', next_attempt_at < now(), count(*))
			FROM enterprise_connection_requests GROUP BY state, step, claimer IS NOT NULL, next_attempt_at = 'infinity', next_attempt_at < now()});
		my @ids = split ' ', query($node, $database,
			q{SELECT id FROM enterprise_connection_requests WHERE finished_at IS NULL ORDER BY (next_attempt_at = 'infinity'), id LIMIT 3});
		say_so(history($node, $database, $_)) for @ids;
	}
	return 0;
}

# With nothing left to do, no worker looks again and again.
sub rest
{
	my ($node) = @_;
	my $sql = sprintf 'SELECT sum(xact_commit) FROM pg_stat_database WHERE datname IN (%s)', join ', ', map { "'$_'" } @DATABASES;
	my $before;

	sleep 2;
	$before = query($node, 'template1', $sql);
	sleep 3;
	my $made = query($node, 'template1', $sql) - $before;
	violation("$made transactions in 3 s, with nothing to do") if $made > 60;
	return;
}

# ---------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------

# What the committed requests ask for: by name of key or create.
sub wanted
{
	my ($node, $database) = @_;
	my $json = query($node, $database, q{
		SELECT coalesce(json_agg(to_jsonb(l) ORDER BY l.request), '[]')
		FROM soak.ledger l});
	my (%wanted, %tokens);

	for my $row (@{ parse_json($json) })
	{
		my $name = defined $row->{key} ? "$database k$row->{key}" : "$database free t$row->{token}";

		$count{"$row->{operation} committed"}++;
		$tokens{ $row->{token} } = 1;
		if ($row->{operation} eq 'delete')
		{
			delete $wanted{$name};
			next;
		}
		delete $wanted{$name} if $row->{operation} eq 'create';
		my $to   = $wanted{$name} ||= {};
		my $from = $row->{params};
		$to->{$_} = $from->{$_} for grep { $_ ne 'saml' } keys %$from;
		$to->{idp_entity_id} = $from->{saml}{idp_entity_id} if $from->{saml};
		$to->{request} = $row->{request};
	}
	$json = query($node, $database, q{
		SELECT coalesce(json_agg(json_build_object('id', o.id, 'name', o.name, 'active', o.domains IS NOT NULL, 'request',
			(SELECT max(q.id) FROM enterprise_connection_requests q WHERE q.key = 'org:' || o.id))), '[]')
		FROM soak.org o});
	for my $row (@{ parse_json($json) })
	{
		$wanted{"$database o$row->{id}"} = {
			name    => $row->{name},
			domains => [ sprintf 'o%s.%s.example', $row->{id}, $database =~ s/_/-/r ],
			active  => $row->{active},
			request => $row->{request} };
		$count{ $row->{active} ? 'rows ready' : 'rows not ready' }++;
	}
	$tokens{$_} = 1 for @{ parse_json(query($node, $database, q{SELECT coalesce(json_agg(token), '[]') FROM soak.org_token})) };
	return (\%wanted, \%tokens);
}

sub differences
{
	my ($wanted, $found) = @_;
	my @differences;
	my %have = (
		name                 => $found->{name},
		domains              => join(' ', sort @{ $found->{domains} || [] }),
		sync_user_attributes => $found->{sync_user_attributes} ? 1 : 0,
		idp_entity_id        => $found->{saml_connection}{idp_entity_id},
	);
	my %want = (
		name    => $wanted->{name},
		domains => join(' ', sort @{ $wanted->{domains} || [] }),
	);

	$want{sync_user_attributes} = $wanted->{sync_user_attributes} ? 1 : 0 if exists $wanted->{sync_user_attributes};
	$have{active} = $found->{active} ? 1 : 0;
	$want{active} = $wanted->{active} ? 1 : 0 if exists $wanted->{active};
	$want{idp_entity_id} = $wanted->{idp_entity_id} if exists $wanted->{idp_entity_id};
	for my $what (sort keys %want)
	{
		my $is = $have{$what} // 'nothing';
		push @differences, "$what is $is, not $want{$what}" if $is ne $want{$what};
	}
	return @differences;
}

# What the connection of that name is known by, if by anything.
sub key_of
{
	my ($name) = @_;

	return $name =~ / (k\d+)$/ ? $1 : $name =~ / o(\d+)$/ ? "org:$1" : undef;
}

sub compare
{
	my ($node, $mock) = @_;
	my @found = $mock->connections;
	my (%all, %tokens, %tracked);

	for my $database (@DATABASES)
	{
		my ($wanted, $known) = wanted($node, $database);

		$all{$_} = [ $database, $wanted->{$_} ] for keys %$wanted;
		$tokens{$database} = $known;
		$tracked{$database}{ $_->[0] } = $_ for @{ parse_json(query($node, $database,
				q{SELECT coalesce(json_agg(json_build_array(id, key, name)), '[]') FROM enterprise_connections})) };
	}
	$count{'connections wanted'} = keys %all;
	$count{'connections found'}  = @found;
	my %seen;
	for my $connection (@found)
	{
		my ($name, $database) = $connection->{name} =~ /^((soak_.) (?:[ko]\d+|free t\d+))/;
		my $entry = $all{$name};
		my $tracked = delete $tracked{$database}{ $connection->{id} };

		push @{ $seen{$name} }, $connection->{id};
		if (!$entry)
		{
			violation("connection $connection->{id}, $connection->{name}, should not exist");
			say_so(query($node, $database, sprintf q{SELECT id FROM enterprise_connection_requests WHERE key = '%s' OR params->>'name' = '%s'},
					key_of($name) // 'none', $connection->{name}));
		}
		else
		{
			my @differences = differences($entry->[1], $connection);
			violation("connection $connection->{id}, $connection->{name}: @differences;\n" . history($node, $database, $entry->[1]{request}))
			  if @differences;
		}
		if (!$tracked)
		{
			violation("connection $connection->{id}, $connection->{name}, is not tracked");
		}
		else
		{
			my $key = key_of($name);
			violation("connection $connection->{id}, $connection->{name}, is tracked as $tracked->[2], with key " . ($tracked->[1] // 'null'))
			  if $tracked->[2] ne $connection->{name} || ($tracked->[1] // '') ne ($key // '');
		}
	}
	for my $name (sort keys %all)
	{
		my $ids = $seen{$name} || [];
		violation("$name exists " . @$ids . " times (@$ids);\n" . history($node, @{ $all{$name} }[0], $all{$name}[1]{request}))
		  if @$ids != 1;
	}
	for my $database (@DATABASES)
	{
		violation("$database: tracked, but not there: @$_[0] $_->[2]") for values %{ $tracked{$database} };
	}
	return \%tokens;
}

# What Clerk was sent: nothing of what was rolled back, and names of a key in
# order.
sub read_requests
{
	my ($mock, $tokens) = @_;
	my (%newest, %posts);
	my $since = 0;

	for my $request (sort { $a->{seq} <=> $b->{seq} } map { $mock->requests_of($_) } qw(POST PATCH))
	{
		my $body = $request->{body};

		$count{"$request->{method} sent"}++;
		next unless ref $body && defined $body->{name};
		my ($database, $key, $version, $token) = $body->{name} =~ /^(soak_.) (?:([ko]\d+) v(\d+)|free) t(\d+)$/;
		violation("sent, but not committed: $request->{method} $body->{name}") unless $tokens->{$database}{$token};
		next unless defined $key;
		my $newest = \$newest{"$database $key"};
		violation("$database $key: $request->{method} of version $version after version $$newest was sent")
		  if defined $$newest && $$newest > $version;
		$$newest = $version;
	}
	return;
}

sub ClerkTest::Mock::requests_of { return @{ $_[0]->call('GET', "/_mock/requests?method=$_[1]") } }

# Nothing may fail: at each commit the domains were each one key's.
sub read_failures
{
	my ($node) = @_;

	for my $database (@DATABASES)
	{
		violation("$database: request $_ failed:\n" . history($node, $database, $_) . "\n" . rivals($node, $database, $_))
		  for split /\n/, query($node, $database, q{SELECT id FROM enterprise_connection_requests WHERE state NOT IN ('delivered', 'superseded')});
		$count{"$_"} += query($node, $database, "SELECT count(*) FROM enterprise_connection_requests WHERE state = '$_'") for qw(delivered superseded);
		$count{'looked up'} += query($node, $database, q{SELECT count(*) FROM soak.history WHERE text LIKE 'in_doubt -> in_doubt%'});
		$count{'in doubt'} += query($node, $database, q{SELECT count(*) FROM soak.history WHERE text LIKE 'sending -> in_doubt%'});
		$count{'taken over'} += query($node, $database, q{SELECT count(*) FROM soak.history WHERE text LIKE 'sending -> sending%' AND text NOT LIKE '% step complete %'});
		$count{'waited for a domain'} += query($node, $database, q{SELECT count(*) FROM soak.history WHERE text LIKE 'sending -> queued % 422 %'});
		$count{'refused, then merged'} += query($node, $database, q{SELECT count(*) FROM soak.history WHERE text LIKE 'queued -> superseded % 422 %'});
		my $lost = query($node, $database, q{SELECT count(*) FROM soak.ledger l WHERE NOT EXISTS (SELECT FROM enterprise_connection_requests q WHERE q.id = l.request)});
		violation("$database: $lost requests are lost") if $lost;
		my $extra = query($node, $database, q{SELECT count(*) FROM enterprise_connection_requests q
			WHERE coalesce(q.key, '') NOT LIKE 'org:%' AND NOT EXISTS (SELECT FROM soak.ledger l WHERE q.id = l.request)});
		violation("$database: $extra requests that nobody committed") if $extra;
	}
	return;
}

# ---------------------------------------------------------------------------

sub run
{
	my (%options) = @_;
	my $seed = ($options{seed} || 1 + int rand 1_000_000) + 0;
	my $start = time;

	$quiet = $options{quiet};
	say_so("seed $seed: $options{requests} requests, $options{keys} keys, $options{seconds} s");
	my $mock = start_mock('--lenient');
	my $keys = 4 * int($options{keys} / 8) || 4;    # of each database
	my $node = set_up($mock, $keys);

	$mock->settings({ chaos => { %chaos, seed => $seed } });
	my @enqueuers = start_enqueueing($node, %options, keys => $keys, seed => $seed);
	srand $seed;
	my $next_kill = time + 1;
	my $hard_end  = $start + $options{seconds} * 3 + 120;
	while (@enqueuers)
	{
		@enqueuers = grep {
			my $gone = waitpid($_, WNOHANG);
			violation("enqueuer $_ ended with status $?") if $gone == $_ && $? != 0;
			$gone == 0
		} @enqueuers;
		if (time > $hard_end)
		{
			violation('enqueueing took too long');
			kill 'TERM', @enqueuers;
			waitpid $_, 0 for @enqueuers;
			@enqueuers = ();
		}
		if (time > $next_kill)
		{
			kill_something($node);
			$next_kill = time + 0.5 + rand;
		}
		look_at_names($mock);
		sleep 0.2;
	}
	say_so(sprintf 'all enqueued after %d s', time - $start);
	# Some more killing, of those who have most to do.
	for (1 .. $options{seconds} / 10)
	{
		kill_something($node);
		sleep 0.7;
		look_at_names($mock);
	}
	$mock->settings({ chaos => undef });
	if (!settle($node, $mock, $options{patience} || 120))
	{
		# what there is to compare with would not be right
		say_so(sprintf '%d violations, seed %d', scalar @violations, $seed);
		return @violations;
	}
	say_so(sprintf 'all done after %d s', time - $start);
	rest($node);
	my $tokens = compare($node, $mock);
	read_failures($node);
	read_requests($mock, $tokens);
	say_so(sprintf '%6d %s', $count{$_}, $_) for sort keys %count;
	my $log = slurp_file($node->logfile);
	violation("the server's log: $1") while $log =~ /^(.*(?:TRAP:|PANIC:|terminated by signal (?!9)).*)$/mg;
	my %messages;
	$messages{$1}++ while $log =~ /^.*((?:WARNING|ERROR|FATAL): .*)$/mg;
	say_so("$messages{$_} x $_") for grep { !/terminating (?:connection|background worker) |the database system is|deadlock detected/ } sort keys %messages;
	$mock->settings({ record => 'off' });
	say_so(sprintf '%d violations, seed %d', scalar @violations, $seed);
	return @violations;
}

1;
