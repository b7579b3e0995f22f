# shellcheck shell=bash disable=SC2154,SC2034
#
# What the trigger costs an INSERT, beside what a trigger of one's own would:
# one in PL/pgSQL that inserts the same columns as a jsonb into a plain outbox
# table with a primary key and one partial index. No worker runs: only the
# enqueueing is measured. All tables are empty at the start of each round.

trigger_tables=(plpgsql clerk)
declare -A side=([plpgsql]=floor [clerk]=ours)

bench_trigger() {
	local round

	new_database trigger "$server_url"
	create_trigger_tables
	for ((round = 1; round <= rounds; round++)); do
		bench_trigger_rows trigger-row off "$transactions"
		bench_trigger_rows trigger-flushed on $((transactions / 5))
		bench_trigger_statement
		progress "$round" "$(tail -n 6 "$work/samples" | cut -f 3 | tr '\n' ' ')"
	done
	drop_database trigger
}

create_trigger_tables() {
	local table

	ask "
CREATE TABLE plpgsql (
	id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name             text,
	clerk_org_id     text,
	email_domains    text[],
	idp_metadata_url text
);
CREATE TABLE clerk (LIKE plpgsql INCLUDING ALL);

CREATE TABLE outbox (
	id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	params       jsonb NOT NULL,
	created_at   timestamptz NOT NULL DEFAULT now(),
	delivered_at timestamptz
);
CREATE INDEX ON outbox (id) WHERE delivered_at IS NULL;
CREATE FUNCTION enqueue() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO outbox (params) VALUES (jsonb_build_object('key', NEW.id, 'name', NEW.name, 'organization_id', NEW.clerk_org_id,
		'domains', NEW.email_domains, 'saml', jsonb_build_object('idp_metadata_url', NEW.idp_metadata_url)));
	RETURN NULL; END \$\$;
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON plpgsql FOR EACH ROW EXECUTE FUNCTION enqueue();

CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON clerk FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'organization_id=clerk_org_id',
                                            'domains=email_domains', 'saml.idp_metadata_url=idp_metadata_url')"

	for table in "${trigger_tables[@]}"; do
		cat >"$work/$table.sql" <<-END
			\\set n random(1, 1000000000)
			INSERT INTO $table (name, clerk_org_id, email_domains, idp_metadata_url) VALUES ('Acme ' || :n, 'org_' || :n, ARRAY['acme' || :n || '.example', 'acme' || :n || '.test'], 'https://idp.acme' || :n || '.example/metadata');
		END
	done
}

empty_trigger_tables() {
	ask "TRUNCATE plpgsql, clerk, outbox, enterprise_connection_requests; CHECKPOINT"
}

# Every row must have come into its outbox, and waits there.
#
# check_outboxes ROWS
check_outboxes() {
	ask "SELECT (SELECT count(*) FROM outbox WHERE delivered_at IS NULL),
		(SELECT count(*) FROM enterprise_connection_requests WHERE state::text = 'queued' AND next_attempt_at < 'infinity')"
	[[ $answer == "$1 $1" ]] || die "the outboxes have $answer rows instead of $1 each"
}

# The latency of a transaction of one row, in microseconds.
#
# row_latency TABLE SYNCHRONOUS_COMMIT TRANSACTIONS
row_latency() {
	PGOPTIONS="-c client_min_messages=error -c synchronous_commit=$2" "${as_postgres[@]}" pgbench -n -M prepared -c 1 -t "$3" -f "$work/$1.sql" 2>/dev/null |
		awk '/^latency average/ { print $4 * 1000 }'
}

# bench_trigger_rows ID SYNCHRONOUS_COMMIT TRANSACTIONS
bench_trigger_rows() {
	local table warm=200

	empty_trigger_tables
	for table in "${trigger_tables[@]}"; do
		row_latency "$table" "$2" "$warm" >/dev/null
		sample "$1" "${side[$table]}" "$(row_latency "$table" "$2" "$3")"
	done
	check_outboxes $(($3 + warm))
}

# The milliseconds of a statement, in a session of its own; the first one, of
# one row, is not measured.
bench_trigger_statement() {
	local table insert

	empty_trigger_tables
	for table in "${trigger_tables[@]}"; do
		insert="INSERT INTO $table (name, clerk_org_id, email_domains, idp_metadata_url)
			SELECT 'Acme ' || n, 'org_' || n, ARRAY['acme' || n || '.example', 'acme' || n || '.test'], 'https://idp.acme' || n || '.example/metadata'"
		sample trigger-statement "${side[$table]}" "$(PGOPTIONS="-c client_min_messages=error" psql -X -q -A -t -v ON_ERROR_STOP=1 \
			-c "$insert FROM generate_series(0, 0) AS n" -c '\timing on' -c "$insert FROM generate_series(1, $statement_rows) AS n" |
			awk '/^Time:/ { print $2 }')"
	done
	check_outboxes $((statement_rows + 1))
}
