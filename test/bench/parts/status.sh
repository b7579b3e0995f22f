# shellcheck shell=bash disable=SC2154,SC2034
#
# What enterprise_connection_status costs, planning included, with many
# connections tracked and as many finished requests, for a role that has USAGE;
# and that no plan reads one of the large tables from end to end.

bench_status() {
	local round each id query n

	new_database status "$server_url"
	ask "CREATE ROLE bench_reader; GRANT USAGE ON FOREIGN SERVER clerk TO bench_reader;
INSERT INTO enterprise_connections (server, id, key, organization_id, name, domains, active, connection, synced_at, request)
SELECT 'clerk', 'entconn_' || n, 'org:' || n, 'org_' || n, 'Name ' || n, ARRAY['d' || n || '.example'], true, '{}', now(), n FROM generate_series(1, $many) AS n;
INSERT INTO enterprise_connection_requests (server, role, origin, operation, key, lane, params, state, finished_at, step)
SELECT 'clerk', current_user, enterprise_connection_origin(), 'upsert', 'org:' || n, 'key org:' || n, '{}', 'delivered', now(), 'update' FROM generate_series(1, $many) AS n;
INSERT INTO enterprise_connection_requests (server, role, origin, operation, key, lane, params, state, finished_at, step, error)
SELECT 'clerk', current_user, enterprise_connection_origin(), 'upsert', 'failed:' || n, 'key failed:' || n,
	jsonb_build_object('name', 'Failed ' || n, 'domains', jsonb_build_array('f' || n || '.example')), 'failed', now(), 'create', '{}' FROM generate_series(1, 100) AS n;
CREATE TABLE organizations AS SELECT n AS id FROM generate_series(1, $many) AS n;
ALTER TABLE organizations ADD PRIMARY KEY (id);
GRANT SELECT ON organizations TO bench_reader;
CREATE FUNCTION took(query text) RETURNS numeric LANGUAGE plpgsql AS \$\$
DECLARE
	since timestamptz := clock_timestamp();
BEGIN
	EXECUTE query;
	RETURN round(extract(epoch FROM clock_timestamp() - since)::numeric * 1000, 3);
END \$\$;
CREATE FUNCTION scans(query text) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
		IF line ~ 'Seq Scan on (enterprise_connections|enterprise_connection_requests|organizations)' THEN
			RETURN line;
		END IF;
	END LOOP;
	RETURN '';
END \$\$"
	ask "VACUUM ANALYZE; CHECKPOINT"
	ask "SET ROLE bench_reader"
	for ((round = 1; round <= rounds; round++)); do
		while IFS='|' read -r id query; do
			for ((each = 0; each < awaits; each++)); do
				n=$((1 + RANDOM % (many < 100 ? many : 100)))
				ask "SELECT scans(\$q\$${query//NNN/$n}\$q\$), took(\$q\$${query//NNN/$n}\$q\$)"
				[[ $answer == " "* ]] || die "a plan reads all of a table: $answer: $query"
				sample "status-$id" ours "${answer# }"
			done
		done <<'QUERIES'
key|SELECT * FROM enterprise_connection_status WHERE key = 'org:NNN'
id|SELECT * FROM enterprise_connection_status WHERE id = 'entconn_NNN'
domain|SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY['dNNN.example']
failed|SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY['fNNN.example']
organization|SELECT * FROM enterprise_connection_status WHERE organization_id = 'org_NNN'
name|SELECT * FROM enterprise_connection_status WHERE name = 'Name NNN'
join|SELECT o.id, s.state FROM organizations o CROSS JOIN LATERAL (SELECT * FROM enterprise_connection_status s WHERE s.key = 'org:' || o.id LIMIT 1) s WHERE o.id = NNN
QUERIES
		progress "$round" "${answer# } ms"
	done
	ask "RESET ROLE"
	drop_database status
	ask "DROP ROLE bench_reader"
}
