-- How pg_clerk is doing in this database, on a page: psql -f docs/report.sql, or
-- \i docs/report.sql; as a superuser or a member of pg_monitor. It changes nothing.
-- If pg_clerk is in a schema of its own, put that on search_path first.
\pset footer off

\echo
\echo '== What needs a person (none: all is well)'
SELECT severity, what, server, key, request, message, hint
FROM enterprise_connection_health ORDER BY severity, what, server LIMIT 20;

\echo '== Version, settings, processes'
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'pg_clerk') AS pg_clerk,
    current_setting('server_version') AS postgresql,
    current_setting('pg_clerk.worker', true) AS worker, current_setting('pg_clerk.max_workers', true) AS max_workers,
    count(*) FILTER (WHERE backend_type = 'pg_clerk launcher') AS launchers,
    count(*) FILTER (WHERE backend_type = 'pg_clerk worker') AS workers,
    count(*) FILTER (WHERE backend_type = 'pg_clerk worker' AND datname = current_database()) AS "of this database"
FROM pg_stat_activity;

\echo '== Queue'
SELECT * FROM enterprise_connection_queue ORDER BY server, state;

\echo '== Long commands under way'
SELECT pid, now() - query_start AS since, query FROM pg_stat_activity
WHERE datname = current_database() AND query ~ '^[a-z_]+(, server .*)?: \d+ ' ORDER BY query_start;

\echo '== Requests, since stats_reset'
SELECT server, creates, updates, gets, lists, deletes, test_runs, retries, in_doubt, looked_up, adopted, stats_reset
FROM enterprise_connection_stats ORDER BY server;

\echo '== Answers; times in ms (p50 to p99: not longer than)'
SELECT s.server, s.answers_2xx AS "2xx", s.answers_4xx AS "4xx", s.answers_429 AS "429", s.answers_5xx AS "5xx",
    s.answers_other AS other, s.network_failures AS none, round((s.answer_time / nullif(h.answers, 0))::numeric, 1) AS mean,
    h.p50, h.p95, h.p99, round(s.max_answer_time::numeric, 1) AS max, round(s.pace_time::numeric) AS pace, s.last_mirror
FROM enterprise_connection_stats s CROSS JOIN LATERAL (
    SELECT max(c.sum) AS answers, min(c.bound) FILTER (WHERE c.sum >= 0.5 * c.total) AS p50,
        min(c.bound) FILTER (WHERE c.sum >= 0.95 * c.total) AS p95, min(c.bound) FILTER (WHERE c.sum >= 0.99 * c.total) AS p99
    FROM (SELECT b.bound, sum(n.n) OVER (ORDER BY n.i) AS sum, nullif(sum(n.n) OVER (), 0) AS total
        FROM unnest(s.answer_time_histogram) WITH ORDINALITY n (n, i)
        JOIN unnest('{5,10,25,50,100,250,500,1000,2500,5000,10000,Infinity}'::float8[]) WITH ORDINALITY b (bound, i) USING (i)) c) h
ORDER BY s.server;

\echo '== The last that failed'
SELECT server, key, id, request, operation, finished_at, http_status AS status, left(error, 100) AS error
FROM enterprise_connection_status WHERE state::text = 'failed' ORDER BY finished_at DESC NULLS LAST LIMIT 10;
