-- The outbox: await, retry, cancel, and what an operator looks at.
-- There is no worker here: CALL deliver_enterprise_connections() delivers.
SET timezone = 'UTC';
SET statement_timeout = '60s';
SET client_min_messages = warning;      -- no "drop cascades to"
\set VERBOSITY default
-- What libcurl says, and trace ids, are masked.
CREATE TEMP VIEW outbox AS
SELECT id, operation, key, state, attempts, step, http_status AS http, connection_id,
       regexp_replace(regexp_replace(error->>'message', '^could not (\w+) the enterprise connection: ', '\1: '), '\n.*', '') AS error
FROM enterprise_connection_requests ORDER BY id;
CALL box.start_over();
-- One at a time, so that what is sent is sent in order.
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
ALTER SYSTEM SET pg_clerk.naptime = '500ms';
CALL box.reloaded('pg_clerk.naptime', '500ms');

--
-- Await
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
SELECT await_enterprise_connection(1, '10 ms') IS NULL AS not_yet;
SELECT await_enterprise_connection(1, '0') IS NULL AS not_yet;
SELECT await_enterprise_connection(1, '-1 h') IS NULL AS not_yet;
SET statement_timeout = '200ms';
SELECT await_enterprise_connection(1, NULL);
\echo :SQLSTATE
SET statement_timeout = '60s';
CALL deliver_enterprise_connections();
SELECT await_enterprise_connection(1) = connection AS tracked FROM enterprise_connections;
SELECT await_enterprise_connection(request => 1, timeout => NULL)->>'name' AS name;
-- one's own
BEGIN;
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SAVEPOINT s;
SELECT await_enterprise_connection(2);
\echo :SQLSTATE
ROLLBACK TO s;
COMMIT;
-- superseded: the one that did it is awaited
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 3"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 4"}', 'a') AS request;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox;
SELECT await_enterprise_connection(3)->>'name' AS name;
-- in a snapshot from before the delivery
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 5"}', 'a') AS request;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT state FROM outbox WHERE id = 5;
SELECT await_enterprise_connection(5, '10 ms') IS NULL AS not_yet;
COMMIT;
-- failed
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"clerk_trace_id": "t1", "errors": [{"message": "is wrong", "long_message": "Name is wrong.", "code": "form_param_value_invalid", "meta": {"param_name": "name"}}]}}');
CALL deliver_enterprise_connections();
SELECT * FROM test.failure('SELECT await_enterprise_connection(5)') \gx
-- with what a call at once has in these fields
DO $$
DECLARE
    code text;
    param_name text;
BEGIN
    PERFORM await_enterprise_connection(5);
EXCEPTION WHEN SQLSTATE 'KC422' THEN
    GET STACKED DIAGNOSTICS code = CONSTRAINT_NAME, param_name = COLUMN_NAME;
    RAISE WARNING 'code %, parameter %', code, param_name;
END
$$;
SELECT enqueue_enterprise_connection('create', box.params('A 6'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM test.failure('SELECT await_enterprise_connection(6)') \gx
-- cancelled
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 7"}', 'a') AS request;
SELECT cancel_enterprise_connection_request(7);
SELECT * FROM test.failure('SELECT await_enterprise_connection(7)') \gx
-- deleted
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
CALL deliver_enterprise_connections();
SELECT await_enterprise_connection(8);
-- what was updated before that is gone, too; there was nothing to delete
SELECT await_enterprise_connection(2);
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT await_enterprise_connection(9, '10 ms') IS NULL AS not_yet;
CALL deliver_enterprise_connections();
SELECT await_enterprise_connection(9);

--
-- Retry
--
CALL box.start_over();
SELECT mock.script('{"times": 3, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('C'), 'c') AS request;
SELECT test.failure('SELECT retry_enterprise_connection_request(1)');
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM box.sent();
SELECT retry_enterprise_connection_request(1);
SELECT state, attempts, finished_at, next_attempt_at <= clock_timestamp() AS due FROM enterprise_connection_requests WHERE id = 1;
SELECT retry_enterprise_connection_request(2, box.params('B 2', 'b.example'));
SELECT retry_enterprise_connection_request(id => 3, params => '{"nmae": "x"}');
\echo :SQLSTATE
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM box.sent();
SELECT test.failure('SELECT retry_enterprise_connection_request(1)');
-- as long as a later one of its key is only queued, it goes first, and is taken over
SELECT enqueue_enterprise_connection('upsert', '{"domains": ["c2.example"]}', 'c') AS request;
SELECT retry_enterprise_connection_request(3);
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by, http_status, error FROM enterprise_connection_requests WHERE id > 2 ORDER BY id;
SELECT method, body, status FROM box.sent();
-- a later one was sent: overtaken, for ever
SELECT mock.script('{"match": {"body_contains": "Wrong"}, "times": 0, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('update', '{"name": "Wrong"}', 'c') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', '{"name": "C 3"}', 'c') AS request;
SELECT id, state FROM outbox WHERE id > 4;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by FROM enterprise_connection_requests WHERE id > 4 ORDER BY id;
SELECT * FROM test.failure('SELECT retry_enterprise_connection_request(5)') \gx
SELECT message FROM test.failure('SELECT cancel_enterprise_connection_request(5)');
SELECT message FROM test.failure('SELECT await_enterprise_connection(5)');
-- whatever was purged since
DELETE FROM enterprise_connection_requests WHERE id = 6;
SELECT message FROM test.failure('SELECT retry_enterprise_connection_request(5)');
-- by one that has failed itself, or that has another operation, or was enqueued by the id
SELECT enqueue_enterprise_connection('update', '{"name": "Wrong 2"}', 'c') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('update', '{"name": "Wrong 3"}', id => id) AS request FROM enterprise_connections WHERE key = 'c';
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by FROM enterprise_connection_requests WHERE id > 6 ORDER BY id;
SELECT enqueue_enterprise_connection('delete', key => 'c') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by FROM enterprise_connection_requests WHERE id > 6 ORDER BY id;
-- by one that has taken over an older one, which was committed after it had failed
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('L'), 'late') AS request;
PREPARE TRANSACTION 'regress_late';
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong'), 'late') AS request;
CALL deliver_enterprise_connections();
COMMIT PREPARED 'regress_late';
SELECT enqueue_enterprise_connection('upsert', '{"name": "L 3"}', 'late') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by FROM enterprise_connection_requests WHERE id > 9 ORDER BY id;
-- but not by one that was cancelled, nor by one of another key
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong'), 'd') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('D'), 'd') AS request;
SELECT cancel_enterprise_connection_request(14);
SELECT enqueue_enterprise_connection('upsert', box.params('E'), 'e') AS request;
CALL deliver_enterprise_connections();
SELECT retry_enterprise_connection_request(13, box.params('D'));
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 12;

--
-- Cancel
--
CALL box.start_over();
SELECT mock.script('[{"match": {"body_contains": "A 1"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}, {"match": {"body_contains": "Failing"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}},
    {"match": {"body_contains": "Doubtful"}, "status": 500, "body": ""}]');
SELECT enqueue_enterprise_connection('upsert', box.params('A 1', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', box.params('Failing')) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Doubtful')) AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('A 2', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('A 3', 'a.example'), 'a') AS request;
SELECT cancel_enterprise_connection_request(2);
SELECT * FROM test.failure('SELECT cancel_enterprise_connection_request(3)') \gx
SELECT cancel_enterprise_connection_request(4);
-- the lane is free again
SELECT cancel_enterprise_connection_request(1);
SELECT next_attempt_at <= clock_timestamp() AS due FROM enterprise_connection_requests WHERE id = 5;
SELECT id, state, finished_at IS NOT NULL AS finished FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts FROM outbox;
SELECT test.failure('SELECT cancel_enterprise_connection_request(1)');
SELECT test.failure('SELECT cancel_enterprise_connection_request(5)');
-- rolled back, it is not cancelled
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 4"}', 'a') AS request;
BEGIN;
SELECT cancel_enterprise_connection_request(6);
ROLLBACK;
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts FROM outbox WHERE id = 6;

--
-- What an operator looks at
--
CALL box.start_over();
SELECT create_enterprise_connection(name => 'At once', provider => 'saml_okta', domains => '{atonce.example}')->>'id' AS id;
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', box.params('Failing')) AS request;
SELECT mock.script('[{"match": {"body_contains": "Failing"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "At once 2"}', id => 'entconn_000001') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 3"}', 'a') AS request;
SELECT server, key, id, name, domains, active, request, operation, state, attempts, enqueued_at IS NOT NULL AS enqueued, finished_at IS NOT NULL AS finished, http_status, error, synced_at IS NOT NULL AS synced
FROM enterprise_connection_status ORDER BY request;
SELECT server, state, requests, oldest IS NOT NULL AS oldest, paused_since, paused_why FROM enterprise_connection_queue ORDER BY state;
CALL deliver_enterprise_connections();
SELECT key, id, name, request, operation, state FROM enterprise_connection_status ORDER BY request;
-- when is the next attempt? Of what is on its way, or stands behind another, there is none.
SELECT box.busy('A 4', 0);
BEGIN;
SELECT enqueue_enterprise_connection('update', '{"name": "A 4"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "B 2"}', 'b') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "B 3"}', 'b') AS request;
SELECT key, state, next_attempt_at FROM enterprise_connection_status WHERE key = 'b';
COMMIT;
CALL deliver_enterprise_connections();
SELECT key, state, next_attempt_at > now() AS next FROM enterprise_connection_status WHERE key IN ('a', 'b') ORDER BY key;
SELECT enqueue_enterprise_connection('update', '{"name": "A 5"}', 'a') AS request;
SELECT request, state, next_attempt_at FROM enterprise_connection_status WHERE key = 'a';

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
