# shellcheck shell=bash disable=SC2154,SC2034
#
# How long a new row waits that comes when a bulk of rows is under way, at 50 a
# second. The bulk has a low priority where there are priorities.

bench_bulk() {
	local round low=

	new_database bulk "$server_url"
	ask "ALTER SERVER clerk OPTIONS (SET rate_limit '50');
		SELECT 'priority' = ANY (proargnames) FROM pg_proc WHERE proname = 'enqueue_enterprise_connection'"
	[[ $answer != t ]] || low=", priority => 10::smallint"
	for ((round = 1; round <= rounds; round++)); do
		start_over
		worker on
		enqueue "$bulk" "" "$low"
		ask_until "SELECT count(*) >= $((bulk < 100 ? bulk / 5 : 20)) FROM enterprise_connection_requests WHERE finished_at IS NOT NULL"
		enqueue 1
		delivered
		ask "SELECT round(extract(epoch FROM finished_at - created_at)::numeric, 3) FROM enterprise_connection_requests WHERE $requests"
		sample bulk ours "$answer"
		progress "$round" "$answer s"
		worker off
	done
	drop_database bulk
}
