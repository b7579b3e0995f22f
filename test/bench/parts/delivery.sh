# shellcheck shell=bash disable=SC2154,SC2034
#
# Distinct keys, delivered by the worker; beside programs that send the same.

bench_delivery() {
	local round

	new_database delivery "$server_url"
	for ((round = 1; round <= rounds; round++)); do
		start_over
		floor=$(flood "" "$requests_fast" 50)
		sample delivery-multi floor "$floor"
		sample delivery floor "$(flood "" "$requests_fast" 50 "host=$PGHOST dbname=delivery")"
		deliver_like "" 50 "$requests_fast"
		sample delivery-multi ours "$rate"
		sample delivery ours "$rate"
		progress "$round" "$floor and $rate a second"

		sample delivery-slow floor "$(flood /100ms "$requests_slow" 50)"
		deliver_like /100ms 50 "$requests_slow"
		sample delivery-slow ours "$rate"

		sample delivery-wide floor "$(flood /100ms "$requests_wide" 200)"
		deliver_like /100ms 200 "$requests_wide"
		sample delivery-wide ours "$rate"
	done
	drop_database delivery
}

# deliver_like PATH CONCURRENCY COUNT
deliver_like() {
	start_over
	ask "ALTER SERVER clerk OPTIONS (SET api_url '$server_url$1', SET max_concurrency '$2')"
	warm_up
	deliver "$3"
	worker off
}
