# shellcheck shell=bash disable=SC2154,SC2034
#
# What a delivered request costs the database: the time of the worker's
# statements, planning included, and what they write ahead. The session's own
# statements do not count, and what enqueues comes before.

bench_cost() {
	local round

	new_database cost "$server_url"
	ask "CREATE EXTENSION pg_stat_statements;
		ALTER SYSTEM SET pg_stat_statements.track = 'all'; ALTER SYSTEM SET pg_stat_statements.track_planning = on; SELECT pg_reload_conf()"
	for ((round = 1; round <= rounds; round++)); do
		start_over
		warm_up
		deliver "$requests_fast" "SELECT pg_stat_statements_reset()"
		# what a statement's functions do is in its own time
		ask "SELECT round((sum(total_exec_time + total_plan_time) * 1000 / $requests_fast)::numeric, 1) FROM pg_stat_statements
			WHERE toplevel AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
		sample sql ours "$answer"
		measure_wal
		worker off
		progress "$round" "$(tail -n 5 "$work/samples" | cut -f 1,3 | tr '\t\n' '  ')"
	done
	ask "ALTER SYSTEM RESET pg_stat_statements.track; ALTER SYSTEM RESET pg_stat_statements.track_planning; SELECT pg_reload_conf()"
	drop_database cost
}

# Right after a checkpoint, when the first change of each page writes all of
# it: the most that it can be. Without these images it is the least.
measure_wal() {
	local from to

	enqueue "$requests_fast" "CHECKPOINT; SELECT pg_current_wal_insert_lsn()"
	from=$(tail -n 1 <<<"$answer")
	delivered
	ask "SELECT pg_current_wal_insert_lsn()"
	to=$answer
	# pg_waldump needs a record's beginning, and all on the disk
	ask "CREATE TABLE IF NOT EXISTS flushed (); DROP TABLE flushed; SELECT pg_switch_wal()"
	"${as_postgres[@]}" pg_waldump -p "$work/data/pg_wal" -s "$from" -e "$to" --stats >"$work/wal" 2>/dev/null || true
	# of the last line: records, bytes of records, of images, and of both, with shares
	sample wal-bytes ours "$(awk -v n="$requests_fast" '$1 == "Total" { printf "%.1f", $7 / n }' "$work/wal")"
	sample wal-no-images ours "$(awk -v n="$requests_fast" '$1 == "Total" { printf "%.1f", $3 / n }' "$work/wal")"
	sample wal-records ours "$(awk -v n="$requests_fast" '$1 == "Total" { printf "%.2f", $2 / n }' "$work/wal")"
	sample wal-multixacts ours "$(awk -v n="$requests_fast" '$1 == "MultiXact" { printf "%.3f", $2 / n }' "$work/wal")"
}
