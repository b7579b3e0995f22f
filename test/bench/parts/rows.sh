# shellcheck shell=bash disable=SC2154,SC2034
#
# Delivery in a database that has many rows already, beside one that has none.
# The rows are copies of one that pg_clerk wrote itself, so this does not depend
# on what columns there are.

bench_rows() {
	local situation

	new_database none "$server_url"
	for situation in tracked finished waiting behind; do
		new_database filled "$server_url"
		"fill_$situation"
		ask "VACUUM ANALYZE; CHECKPOINT"
		bench_situation "$situation"
		drop_database filled
	done
	drop_database none
}

bench_situation() {
	local round

	for ((round = 1; round <= rounds; round++)); do
		deliver_in none filled
		sample "rows-$1" floor "$rate"
		deliver_in filled none
		sample "rows-$1" ours "$rate"
		progress "$round" "$1: $rate a second"
	done
}

# deliver_in DATABASE OTHER: only there; a worker is where one may connect.
deliver_in() {
	connect "$1"
	ask "VACUUM enterprise_connections, enterprise_connection_requests; CHECKPOINT;
		ALTER DATABASE $2 ALLOW_CONNECTIONS false"
	warm_up
	deliver "$requests_fast"
	worker off
	ask "ALTER DATABASE $2 ALLOW_CONNECTIONS true"
}

# multiply TABLE CONDITION [COLUMN EXPRESSION]...: copies of the row, with other
# values in some of the columns, as far as there are such columns.
multiply() {
	local table=$1 condition=$2 changes=

	shift 2
	while (($#)); do
		changes+="WHEN '$1' THEN \$\$$2\$\$ "
		shift 2
	done
	ask "SELECT format('INSERT INTO $table (%s) SELECT %s FROM $table AS r, generate_series(1, $many) AS i WHERE %s',
		string_agg(quote_ident(attname), ', ' ORDER BY attnum),
		string_agg(CASE attname ${changes:-WHEN '' THEN ''}ELSE 'r.' || quote_ident(attname) END, ', ' ORDER BY attnum), \$\$$condition\$\$)
	FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
\\gexec"
	ask "SELECT count(*) > $many FROM $table"
	[[ $answer == t ]] || die "$table was not filled"
}

fill_sample() {
	warm_up
	worker off
}

fill_tracked() {
	fill_sample
	multiply enterprise_connections "r.key = 'k1'" id "'entconn_many' || i" key "'many' || i" domains "ARRAY['many' || i || '.example']"
}

fill_finished() {
	fill_sample
	multiply enterprise_connection_requests "r.key = 'k1'" key "'many' || i" lane "'key many' || i" connection_id "'entconn_many' || i"
}

fill_waiting() {
	enqueue 1
	ask "UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '1 hour'"
	multiply enterprise_connection_requests "true" key "'many' || i" lane "'key many' || i"
}

# The first one is backing off, after an attempt.
fill_behind() {
	enqueue 1
	ask "UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '1 hour', attempts = 1;
		SELECT enqueue_enterprise_connection('upsert', params, key => key) FROM enterprise_connection_requests"
	multiply enterprise_connection_requests "r.attempts = 0"
}
