# shellcheck shell=bash disable=SC2154,SC2034
#
# How long after the outcome await_enterprise_connection returns, with a server
# that takes 100 ms; one request at a time.

bench_await() {
	local round each

	new_database await "$server_url/100ms"
	ask "CREATE TABLE awaited (ms numeric);
CREATE PROCEDURE await(n bigint) LANGUAGE plpgsql AS \$\$
DECLARE
	request bigint := enqueue_enterprise_connection('upsert', $params, key => 'k' || n);
	returned timestamptz;
BEGIN
	COMMIT;
	PERFORM await_enterprise_connection(request);
	returned := clock_timestamp();
	INSERT INTO awaited SELECT round(extract(epoch FROM returned - finished_at)::numeric * 1000, 3) FROM enterprise_connection_requests WHERE id = request;
END \$\$"
	warm_up
	for ((round = 1; round <= rounds; round++)); do
		ask "TRUNCATE awaited"
		for ((each = 0; each < awaits; each++)); do
			ask "CALL await(nextval('numbers'))"
		done
		ask "SELECT ms FROM awaited"
		for each in $answer; do
			sample await ours "$each"
		done
		progress "$round" "$each ms"
	done
	worker off
	drop_database await
}
