# shellcheck shell=bash disable=SC2154,SC2034
#
# What many connections at once cost, beside what they must cost.
#
# A mirror, beside a raw libcurl program that fetches the same pages from the
# same server with the same concurrency and throws them away: the first mirror,
# into an empty table, and a repeated one, when nothing has changed; and beside
# what PostgreSQL alone needs for it, a COPY of the same rows into the same
# table. Then the memory of a mirror's backend, of more connections than fill
# the pages in flight. Then a batch of creates, beside the time that its waves
# alone take.

mirror="SELECT count(*) FROM mirror_enterprise_connections()"
batch_latency=100
batch_concurrency=50

# With so many pages in flight, a tenth of the connections fills them all: what
# is more with many times as many is not that of pages.
memory_concurrency=4

bench_many() {
	new_database many "$CLERK_MOCK_URL"
	bench_mirror
	bench_mirror_memory
	bench_batch
	drop_database many
}

seed() {
	control reset '{"record":"off"}'
	control seed "{\"count\":$1,\"prefix\":\"acme\"}"
}

sql() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -c "SET statement_timeout = '300s'" "$@"
}

# The milliseconds of a statement, in a session of its own; dies if it does not
# return what it should.
#
# timed WANTED STATEMENT
timed() {
	local out

	out=$(sql -c '\timing on' -c "$2") || return 1
	[[ ${out%%$'\n'*} == "$1" ]] || die "$2 returned ${out%%$'\n'*} instead of $1"
	awk '/^Time:/ { print $2 }' <<<"$out"
}

bench_mirror() {
	local round latency concurrency raw id

	seed "$connections"
	for ((round = 1; round <= rounds; round++)); do
		for latency in 0 100; do
			control settings "{\"latency_ms\":$latency}"
			for concurrency in 8 32; do
				id=$latency-$concurrency
				ask "ALTER SERVER clerk OPTIONS (SET max_concurrency '$concurrency')"
				start_over
				raw=$("$work/raw_pages" "$CLERK_MOCK_URL" "$key" "$concurrency" | awk '{ print $1 }')
				sample "mirror-$id" floor "$raw"
				sample "mirror-$id" ours "$(timed "$connections" "$mirror")"
				[[ $id != 0-32 ]] || sample mirror-copy ours "$(tail -n 1 "$work/samples" | cut -f 3)"
				# not the dirty pages of the first one
				ask "CHECKPOINT"
				sample "mirror-again-$id" floor "$raw"
				sample "mirror-again-$id" ours "$(timed 0 "$mirror")"
				[[ $id != 0-32 ]] || sample mirror-copy floor "$(copy_rows)"
			done
		done
		progress "$round" "raw $raw ms, again $(tail -n 1 "$work/samples" | cut -f 3) ms"
	done
}

# The rows there are, once more.
copy_rows() {
	sql -c "COPY enterprise_connections TO '$work/rows'" -c "TRUNCATE enterprise_connections"
	sql -c '\timing on' -c "COPY enterprise_connections FROM '$work/rows'" | awk '/^Time:/ { print $2 }'
}

bench_mirror_memory() {
	local round

	ask "ALTER SERVER clerk OPTIONS (SET max_concurrency '$memory_concurrency')"
	for ((round = 1; round <= rounds; round++)); do
		sample mirror-memory floor "$(mirror_memory "$connections")"
		sample mirror-memory ours "$(mirror_memory $((connections * 4)))"
	done
}

mirror_memory() {
	seed "$1"
	ask "TRUNCATE enterprise_connections"
	peak_memory "$mirror"
}

# The most RssAnon of the backend of a statement, in MB. Shared buffers that
# it has touched do not count there.
#
# peak_memory STATEMENT
peak_memory() {
	local pid='' name value peak=0 client

	PGAPPNAME=peak_memory sql -c "SET work_mem = '1MB'" -c "SELECT pg_sleep(1)" -c "$1" >/dev/null &
	client=$!
	while [[ -z $pid ]]; do
		kill -0 "$client" 2>/dev/null || die "could not measure: $1"
		pid=$(sql -c "SELECT pid FROM pg_stat_activity WHERE application_name = 'peak_memory'")
	done
	while [[ -r /proc/$pid/status ]]; do
		while read -r name value _; do
			if [[ $name == RssAnon: ]]; then
				((value <= peak)) || peak=$value
				break
			fi
		done 2>/dev/null <"/proc/$pid/status" || break
		pause 0.002
	done
	wait "$client" || die "failed: $1"
	awk -v kb="$peak" 'BEGIN { printf "%.1f", kb / 1024 }'
}

bench_batch() {
	local round statement waves=$(((creates + batch_concurrency - 1) / batch_concurrency))

	statement="SELECT count(connection) FROM create_enterprise_connections(ARRAY(SELECT $params FROM generate_series(1, $creates) AS n))"
	ask "ALTER SERVER clerk OPTIONS (SET max_concurrency '$batch_concurrency')"
	for ((round = 1; round <= rounds; round++)); do
		control reset "{\"record\":\"off\",\"latency_ms\":$batch_latency}"
		ask "TRUNCATE enterprise_connections"
		sample batch floor $((waves * batch_latency))
		sample batch ours "$(timed "$creates" "$statement")"
	done
}
