-- Counters of what was asked of a server, here those of this session: the
-- library is not preloaded.  A session begins with none.
\c -
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests, enterprise_connection_pauses RESTART IDENTITY;
SELECT server, creates, answers_2xx, answer_time, answer_time_histogram, last_mirror, stats_reset
FROM enterprise_connection_stats WHERE server = 'clerk';

-- Each request, and what became of it
CREATE VIEW regress_counted AS
SELECT creates, updates, gets, lists, deletes, test_runs, answers_2xx AS "2xx", answers_4xx AS "4xx", answers_429 AS "429",
    answers_5xx AS "5xx", answers_other AS other, network_failures AS network, shortages, retries, in_doubt, looked_up, adopted
FROM enterprise_connection_stats WHERE server = 'clerk';
SELECT create_enterprise_connection(name => 'A', domains => '{a.example}')->>'id' AS id \gset
SELECT update_enterprise_connection(:'id', '{"active": false}') IS NOT NULL AS updated;
SELECT get_enterprise_connection(:'id') IS NOT NULL AS got;
SELECT count(*) AS listed FROM list_enterprise_connections();
SELECT create_enterprise_connection_test_run(:'id') IS NOT NULL AS test_run;
SELECT count(*) AS test_runs FROM list_enterprise_connection_test_runs(:'id');
SELECT delete_enterprise_connection(:'id') IS NOT NULL AS deleted;
SELECT get_enterprise_connection(:'id');
SELECT * FROM regress_counted \gx

-- An upsert is what it sends; 429 and a broken connection are tried again, and a
-- create whose answer does not come is in doubt
SELECT enterprise_connection_stats_reset('clerk');
SELECT mock.script('[{"match": {"method": "POST"}, "status": 429, "headers": {"Retry-After": "0"}, "body": {"errors": []}},
    {"match": {"method": "GET"}, "reset": "before"}, {"match": {"method": "PATCH"}, "status": 307},
    {"match": {"method": "POST", "body_contains": "Lost"}, "reset": "after"},
    {"match": {"method": "POST", "body_contains": "Broken"}, "status": 502}]');
SELECT upsert_enterprise_connection('b', '{"name": "B", "domains": ["b.example"]}')->>'id' AS id \gset
SELECT get_enterprise_connection(:'id') IS NOT NULL AS got;
\set VERBOSITY sqlstate
SELECT upsert_enterprise_connection('b', '{"active": false}');
SELECT create_enterprise_connection(name => 'Lost', domains => '{lost.example}');
SELECT create_enterprise_connection(name => 'Broken', domains => '{broken.example}');
\set VERBOSITY default
-- what was lost is adopted
SELECT upsert_enterprise_connection('lost', '{"name": "Lost", "domains": ["lost.example"]}') IS NOT NULL AS adopted;
SELECT * FROM regress_counted \gx

-- The outbox counts, too: a retry, a look-up, an adoption
SELECT enterprise_connection_stats_reset();
SELECT box.busy('Busy');
SELECT mock.script('{"match": {"body_contains": "Doubt"}, "reset": "after"}');
ALTER SERVER clerk OPTIONS (timeout '1s');
SELECT enqueue_enterprise_connection('create', '{"name": "Busy", "domains": ["busy.example"]}') AS busy \gset
SELECT enqueue_enterprise_connection('create', '{"name": "Doubt", "domains": ["doubt.example"]}') AS doubt \gset
CALL box.deliver_until(:busy, 'delivered');
CALL box.deliver_until(:doubt, 'delivered');
ALTER SERVER clerk OPTIONS (DROP timeout);
SELECT creates, retries, in_doubt, looked_up, adopted, lists > 0 AS lists FROM enterprise_connection_stats WHERE server = 'clerk';

-- Nothing of it is lost: each has an answer, or none; each answer a bucket
SELECT creates + updates + gets + lists + deletes + test_runs = answers_2xx + answers_4xx + answers_429 + answers_5xx + answers_other + network_failures AS requests,
    answers_2xx + answers_4xx + answers_429 + answers_5xx + answers_other = (SELECT sum(n) FROM unnest(answer_time_histogram) n) AS answers,
    cardinality(answer_time_histogram) AS buckets, max_answer_time > 0 AND max_answer_time <= answer_time AS times,
    stats_reset BETWEEN now() - interval '1 min' AND clock_timestamp() AS reset
FROM enterprise_connection_stats WHERE server = 'clerk';

-- How long: in the right bucket
SELECT enterprise_connection_stats_reset('clerk');
SELECT mock.script('{"match": {"method": "GET"}, "delay_ms": 120}');
SELECT get_enterprise_connection(:'id') IS NOT NULL AS got;
SELECT answer_time_histogram[6] + answer_time_histogram[7] AS "100 to 500 ms", max_answer_time BETWEEN 120 AND 500 AS max, answer_time = max_answer_time AS sum
FROM enterprise_connection_stats WHERE server = 'clerk';

-- The time that requests waited for the pace
\set url `echo "$CLERK_MOCK_URL"`
CREATE SERVER regress_pace FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '10');
CREATE USER MAPPING FOR PUBLIC SERVER regress_pace OPTIONS (secret_key 'sk_test_mock');
SELECT count(get_enterprise_connection(:'id', 'regress_pace')) FROM generate_series(1, 14);
SELECT gets, pace_time BETWEEN 200 AND 500 AS waited FROM enterprise_connection_stats WHERE server = 'regress_pace';

-- A mirror
SELECT last_mirror FROM enterprise_connection_stats WHERE server = 'regress_pace';
SELECT count(*) FROM mirror_enterprise_connections('regress_pace');
SELECT last_mirror BETWEEN now() - interval '1 min' AND now() AS mirrored FROM enterprise_connection_stats WHERE server = 'regress_pace';

-- A server that is created anew begins anew
DROP SERVER regress_pace CASCADE;
CREATE SERVER regress_pace FOREIGN DATA WRAPPER pg_clerk;
SELECT gets, last_mirror FROM enterprise_connection_stats WHERE server = 'regress_pace';

-- Who sees them: USAGE on the server, or pg_monitor; who resets them: superusers,
-- and whom they let
CREATE ROLE regress_stats_app;
CREATE ROLE regress_stats_other;
CREATE ROLE regress_stats_monitor IN ROLE pg_monitor;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_stats_app;
SET ROLE regress_stats_app;
SELECT server, gets FROM enterprise_connection_stats;
SELECT pg_catalog.enterprise_connection_counters(s.oid) IS NULL AS hidden FROM pg_foreign_server s WHERE srvname = 'regress_pace';
SELECT enterprise_connection_stats_reset();
SET ROLE regress_stats_other;
SELECT server, gets FROM enterprise_connection_stats;
SET ROLE regress_stats_monitor;
SELECT server, gets FROM enterprise_connection_stats ORDER BY server;
RESET ROLE;
GRANT EXECUTE ON FUNCTION enterprise_connection_stats_reset(name) TO regress_stats_monitor;
SET ROLE regress_stats_monitor;
SELECT enterprise_connection_stats_reset('no_such');
SELECT enterprise_connection_stats_reset();
SELECT gets FROM enterprise_connection_stats WHERE server = 'clerk';
RESET ROLE;
-- of a server that is none of pg_clerk, and of one that is gone
SELECT pg_catalog.enterprise_connection_counters(1) IS NULL AS none;

-- Settings of the log are the operator's
SET ROLE regress_stats_app;
SET pg_clerk.log_failures = off;
SET pg_clerk.log_min_duration = 0;
RESET ROLE;
SHOW pg_clerk.log_failures;
SHOW pg_clerk.log_min_duration;

DROP VIEW regress_counted;
DROP SERVER regress_pace CASCADE;
DROP OWNED BY regress_stats_app, regress_stats_other, regress_stats_monitor;
DROP ROLE regress_stats_app, regress_stats_other, regress_stats_monitor;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
SELECT mock.reset();
