# shellcheck shell=bash disable=SC2154,SC2034
#
# What the parts of test/bench/run have in common: a session, samples, and
# deliveries. Each part makes a database of its own and drops it again.

key=sk_test_mock

# One body for all who create: the text of an SQL expression, for number n.
params="jsonb_build_object('name', 'Acme ' || n, 'provider', 'saml_okta', 'domains', jsonb_build_array('flood' || n || '.example'),
	'organization_id', 'org_2xB7', 'saml', jsonb_build_object('idp_entity_id', 'https://idp.acme.example', 'idp_sso_url', 'https://idp.acme.example/sso',
	'attribute_mapping', jsonb_build_object('email_address', 'mail', 'first_name', 'givenName')))"

load() {
	cut -d' ' -f1-3 /proc/loadavg
}

# sample ID floor|ours VALUE
sample() {
	[[ -n $3 ]] || die "nothing was measured: $1, $2"
	printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$work/samples"
}

# progress ROUND TEXT
progress() {
	printf '%s %d: %s; load %s\n' "$part" "$1" "$2" "$(load)" >&2
}

# A sleep without a process: nothing ever comes from this descriptor.
exec {never}<> <(:)
pause() {
	read -rt "$1" -u "$never" _ || true
}

# ---------------------------------------------------------------------------
# The session: one psql for all that is asked, so that looking costs little
# ---------------------------------------------------------------------------

start_session() {
	mkfifo "$work/asked" "$work/answered"
	"${as_postgres[@]}" psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 <"$work/asked" >"$work/answered" 2>"$work/session.log" &
	exec {asked}>"$work/asked" {answered}<"$work/answered"
	ask "SET pg_stat_statements.track = none"
}

# ask STATEMENTS: sets $answer to the rows that they return.
ask() {
	local line

	answer=
	printf '%s\n;\n\\echo -- end\n' "$1" >&"$asked" || die "the session has ended: $(tail -n 5 "$work/session.log")"
	while IFS= read -r -t 900 -u "$answered" line; do
		if [[ $line == '-- end' ]]; then
			answer=${answer%$'\n'}
			return
		fi
		answer+=$line$'\n'
	done
	die "no answer to: $1: $(tail -n 5 "$work/session.log")"
}

# Ask until the answer is t, for ten minutes at most.
ask_until() {
	local deadline=$((SECONDS + 600))

	while ask "$1"; [[ $answer != t ]]; do
		((SECONDS < deadline)) || die "waited in vain for: $1"
		pause 0.1
	done
}

# connect DATABASE: the session and all other programs use it.
connect() {
	export PGDATABASE=$1
	ask "\\c $1
SET pg_stat_statements.track = none"
}

# new_database NAME URL: with the extension, a server and a table to compare with.
new_database() {
	connect postgres
	ask "CREATE DATABASE $1"
	connect "$1"
	ask "CREATE EXTENSION pg_clerk;
		CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url '$2', rate_limit '0', max_concurrency '50');
		CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key '$key');
		CREATE SEQUENCE numbers;
		CREATE TABLE plain (LIKE enterprise_connections INCLUDING ALL)"
}

drop_database() {
	connect postgres
	ask "DROP DATABASE $1"
}

# start_over: the tables as they were at first.
start_over() {
	ask "TRUNCATE enterprise_connections, enterprise_connection_requests, plain; CHECKPOINT"
}

# ---------------------------------------------------------------------------
# Delivery
# ---------------------------------------------------------------------------

# worker on|off
worker() {
	ask "ALTER SYSTEM SET pg_clerk.worker = $1; SELECT pg_reload_conf()"
	[[ $1 == on ]] ||
		ask_until "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_clerk worker')"
}

# enqueue COUNT [STATEMENT [ARGUMENTS]]: upserts of so many keys in one
# transaction, whose last statement is STATEMENT. Sets $requests to a condition.
enqueue() {
	ask "BEGIN;
		SELECT min(r), max(r) FROM (SELECT enqueue_enterprise_connection('upsert', $params, key => 'k' || n${3-}) AS r
			FROM (SELECT nextval('numbers') AS n FROM generate_series(1, $1)) AS s OFFSET 0) AS q;
		${2-}; COMMIT"
	requests="id BETWEEN ${answer%% *} AND $(head -n 1 <<<"${answer#* }")"
}

# All that was enqueued last has an outcome, and a good one.
delivered() {
	ask_until "SELECT NOT EXISTS (SELECT FROM enterprise_connection_requests WHERE $requests AND finished_at IS NULL)"
	ask "SELECT state, error->>'message' FROM enterprise_connection_requests WHERE $requests AND state::text <> 'delivered' LIMIT 1"
	[[ -z $answer ]] || die "not delivered: $answer"
}

# The worker has sockets and plans before anything is measured.
warm_up() {
	worker on
	enqueue 200
	delivered
}

# deliver COUNT [STATEMENT]: sets $rate, from the first claim to the last outcome.
deliver() {
	enqueue "$@"
	delivered
	ask "SELECT round(count(*) / extract(epoch FROM max(finished_at) - min(started_at)), 1) FROM enterprise_connection_requests WHERE $requests"
	rate=$answer
}

# flood PATH COUNT CONCURRENCY [CONNINFO]: the floor of it.
flood() {
	"${as_postgres[@]}" "$work/flood" "$server_url$1" "$key" "${@:2}"
}

# ---------------------------------------------------------------------------
# The two servers
# ---------------------------------------------------------------------------

server_listens() {
	[[ -s $work/server.port ]]
}

start_server() {
	"${as_postgres[@]}" "$work/server" "$work/server.port" 86400 &
	wait_until server_listens || die "the server does not start"
	server_url=http://127.0.0.1:$(<"$work/server.port")
}

control() {
	curl -q -s -S -f --noproxy '*' -o /dev/null -X POST "$CLERK_MOCK_URL/_mock/$1" -H 'Content-Type: application/json' -d "$2"
}

build_program() {
	# shellcheck disable=SC2046 # options, one word each
	"${as_postgres[@]}" cc -O2 -Wall -o "$work/$1" "$source/test/bench/$1.c" $(pkg-config --cflags --libs libcurl libpq) ||
		die "could not build $1"
}
