# shellcheck shell=bash disable=SC2154,SC2034
#
# What a create costs in one session, beside what it must cost: a raw libcurl
# program that sends the same bodies to the same server over one connection.
# A plain upsert of the same row is taken off: that has to be paid, too.

bench_create() {
	local round raw create upsert

	new_database creates "$CLERK_MOCK_URL"
	control reset '{"record":"off"}'
	write_create_scripts
	for ((round = 1; round <= rounds; round++)); do
		raw=$("${as_postgres[@]}" "$work/raw_create" "$CLERK_MOCK_URL" "$key" "$calls" "raw$round-")
		create=$(call_latency create)
		upsert=$(call_latency upsert)
		sample create floor "$raw"
		sample create ours "$(awk -v a="$create" -v b="$upsert" 'BEGIN { printf "%.1f", a - b }')"
		progress "$round" "raw libcurl $raw us, create $create us, plain upsert $upsert us"
	done
	drop_database creates
}

write_create_scripts() {
	local connection

	cat >"$work/create.sql" <<-'END'
		SELECT create_enterprise_connection(('{"name":"Acme","provider":"saml_okta","domains":["pg' || nextval('numbers') || '.example"],"organization_id":"org_2xB7","saml":{"idp_entity_id":"https://idp.acme.example","idp_sso_url":"https://idp.acme.example/sso","attribute_mapping":{"email_address":"mail","first_name":"givenName"}}}')::jsonb);
	END
	ask "$(<"$work/create.sql")"
	connection=$answer
	cat >"$work/upsert.sql" <<-END
		INSERT INTO plain AS p (server, id, key, organization_id, name, provider, domains, active, sync_user_attributes, connection, created_at, updated_at, synced_at) VALUES ('clerk', 'entconn_' || nextval('numbers'), NULL, 'org_2xB7', 'Acme', 'saml_okta', '{acme.example}', false, true, '$connection', to_timestamp(1780000000), to_timestamp(1780000000), clock_timestamp()) ON CONFLICT (server, id) DO UPDATE SET key = excluded.key, organization_id = excluded.organization_id, name = excluded.name, provider = excluded.provider, domains = excluded.domains, active = excluded.active, sync_user_attributes = excluded.sync_user_attributes, connection = excluded.connection, created_at = excluded.created_at, updated_at = excluded.updated_at, synced_at = excluded.synced_at WHERE p.updated_at <= excluded.updated_at;
	END
}

# The latency of a script in one session, in microseconds; the first calls,
# which connect and plan, are not measured.
call_latency() {
	local times

	for times in 50 "$calls"; do
		PGOPTIONS="-c synchronous_commit=off" "${as_postgres[@]}" pgbench -n -M prepared -c 1 -t "$times" -f "$work/$1.sql" 2>/dev/null
	done | awk '/^latency average/ { us = $4 * 1000 } END { print us }'
}
