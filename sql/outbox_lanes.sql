-- The outbox: requests of a key go in order, and upserts of one become one.
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
-- In order by key
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('create', box.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 3"}', 'a') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('A 4', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', box.params('B'), 'b') AS request;
SELECT mock.script('{"match": {"body_contains": "A 2"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
-- what stands behind waits; the other key does not
SELECT o.*, next_attempt_at = 'infinity' AS behind FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) ORDER BY id;
CALL box.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
SELECT id, key, name FROM enterprise_connections ORDER BY key;
-- by its id, too, it is the same lane
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 2"}', 'b') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "B 3"}', id => id) AS request FROM enterprise_connections WHERE key = 'b';
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 4"}', 'b') AS request;
SELECT mock.script('{"match": {"body_contains": "B 2"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM box.sent();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 6;
SELECT method, body->>'name' AS name, status FROM box.sent();

--
-- Upserts in a row that were not sent yet become one, with the parameters of all
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 1", "provider": "oidc_custom", "domains": ["a1.example"], "oidc": {"clientId": "c1", "clientSecret": "s3cr3t 1", "discoveryUrl": "https://idp.example/1"}}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 2", "syncUserAttributes": false}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"domains": ["a3.example"], "oidc": {"clientId": "c3"}, "organizationId": "org_1"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT id, superseded_by, finished_at IS NOT NULL AS finished, params FROM enterprise_connection_requests ORDER BY id;
SELECT method, body, status FROM box.sent();
-- not over something else, nor one that was sent
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 5"}', 'a') AS request;
SELECT mock.script('{"match": {"body_contains": "A 5"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 6"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 7"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 8"}', 'a') AS request;
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT method, body, status FROM box.sent();

-- deep, and what is null or an array stays one
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', '{"name": "A", "domains": ["a.example", "b.example"], "saml": {"idpEntityId": "one", "idpMetadataUrl": "https://idp.example/1", "attributeMapping": {"userId": "uid", "firstName": "given"}, "loginHint": {"mode": "always", "source": "email"}}, "customAttributes": [{"name": "x", "key": "x"}, {"name": "y", "key": "y"}]}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"saml": {"idpMetadataUrl": null, "attributeMapping": {"firstName": "first"}, "loginHint": null}}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"domains": ["c.example"], "saml": {"attributeMapping": {"lastName": "sn"}}, "customAttributes": [{"name": "z", "key": "z"}]}', 'a') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by, jsonb_pretty(params) AS params FROM enterprise_connection_requests WHERE id = 3;
-- a long row of them
SELECT count(enqueue_enterprise_connection('upsert', jsonb_build_object('name', 'A ' || n), 'a')) FROM generate_series(1, 2500) AS n;
CALL deliver_enterprise_connections();
SELECT state, count(*), max(id) FROM outbox WHERE id > 3 GROUP BY 1 ORDER BY 1;
SELECT await_enterprise_connection(4)->>'name' AS name;
SELECT method, body, status FROM box.sent() OFFSET 1;

--
-- What one transaction enqueues for a key goes in its order
--
CALL box.start_over();
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SAVEPOINT s;
SELECT enqueue_enterprise_connection('update', '{"name": "Never"}', 'a') AS request;
ROLLBACK TO s;
SELECT enqueue_enterprise_connection('update', '{"name": "A 4"}', 'a') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
-- they stand behind the first
SELECT id, next_attempt_at = 'infinity' AS behind FROM enterprise_connection_requests ORDER BY id;
COMMIT;
CALL deliver_enterprise_connections();
SELECT id, state, attempts FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
-- whatever becomes of the one before: cancelled, failed, taken over
SELECT mock.script('{"match": {"body_contains": "Wrong"}, "times": 0, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
SELECT cancel_enterprise_connection_request(6);
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong'), 'c') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'c') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('D'), 'd') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "D 2"}', 'd') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'd') AS request;
COMMIT;
CALL deliver_enterprise_connections();
SELECT id, operation, key, state FROM outbox WHERE id > 5;
SELECT method, body->>'name' AS name, status FROM box.sent();
-- nor do those of another transaction wait for longer than the first
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('E'), 'e') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "E 2"}', 'e') AS request;
COMMIT;
SELECT enqueue_enterprise_connection('update', '{"name": "E 3"}', 'e') AS request;
SELECT cancel_enterprise_connection_request(id) FROM outbox WHERE key = 'e' ORDER BY id LIMIT 1;
SELECT enqueue_enterprise_connection('upsert', box.params('E 4', 'e.example'), 'e') AS request;
CALL deliver_enterprise_connections();
SELECT operation, state, error FROM outbox WHERE key = 'e';

--
-- By priority: what is due goes out by that, then by its time
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM box.sent();
SELECT enqueue_enterprise_connection('create', box.params('Bulk ' || n, 'bulk' || n || '.example'), priority => 10) AS request FROM generate_series(1, 3) AS n;
SELECT enqueue_enterprise_connection('update', '{"name": "A bulk"}', 'a', priority => 10) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Later'), priority => 1000) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Live')) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Live 2', 'live2.example'), priority => NULL) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Urgent'), priority => -1000) AS request;
-- it waits for the bulk work of its own key, which comes forward
SELECT enqueue_enterprise_connection('update', '{"name": "A live"}', 'a') AS request;
-- or takes it over
SELECT enqueue_enterprise_connection('upsert', '{"name": "B bulk", "active": false}', 'b', priority => 10) AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "B live"}', 'b') AS request;
SELECT DISTINCT priority FROM enterprise_connection_requests ORDER BY 1;
CALL deliver_enterprise_connections();
SELECT method, body->>'name' AS name, body->'active' AS active FROM box.sent();
SELECT state, count(*) FROM outbox GROUP BY 1 ORDER BY 1;
SELECT * FROM test.failure($$SELECT enqueue_enterprise_connection('delete', key => 'a', priority => 1001)$$) \gx
SELECT state, message FROM test.failure($$SELECT enqueue_enterprise_connection('delete', key => 'a', priority => -1001)$$);
SELECT state, message FROM test.failure($$SELECT enqueue_enterprise_connection('delete', key => 'a', priority => 2147483647)$$);
-- in one transaction, too
BEGIN;
SELECT count(enqueue_enterprise_connection('create', box.params('More ' || n, 'more' || n || '.example'), priority => 10)) FROM generate_series(1, 20) AS n;
SELECT enqueue_enterprise_connection('update', '{"name": "A bulk 2"}', 'a', priority => 10) AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A bulk 3"}', 'a', priority => 10) AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A live 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A bulk 4"}', 'a', priority => 10) AS request;
SELECT id, next_attempt_at = 'infinity' AS behind FROM enterprise_connection_requests WHERE id > 33 ORDER BY id;
COMMIT;
CALL deliver_enterprise_connections();
SELECT name, n < 10 AS soon FROM (SELECT row_number() OVER () AS n, body->>'name' AS name FROM box.sent()) AS s WHERE name LIKE 'A %' ORDER BY n;
-- what is to be tried again later holds up nothing of a higher number
SELECT box.busy('Live 3', 0);
SELECT enqueue_enterprise_connection('create', box.params('Live 3', 'live3.example')) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Bulk 4', 'bulk4.example'), priority => 10) AS request;
CALL deliver_enterprise_connections();
SELECT state, priority, params->>'name' AS name FROM enterprise_connection_requests WHERE id > 37 ORDER BY id;

--
-- Many of one key, behind one that has to wait, are put out of the way of the others
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT box.busy('A 0', 0);
SELECT enqueue_enterprise_connection('update', '{"name": "A 0"}', 'a') AS request;
CALL deliver_enterprise_connections();
-- a transaction each, as those of one would stand behind each other at once
DO $$
BEGIN
    FOR n IN 1..250 LOOP
        PERFORM enqueue_enterprise_connection('update', jsonb_build_object('name', 'A ' || n), 'a');
        COMMIT;
    END LOOP;
END
$$;
SELECT enqueue_enterprise_connection('update', '{"name": "A 251"}', 'a', priority => -1) AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('B'), 'b') AS request;
CALL deliver_enterprise_connections();
SELECT key, state FROM outbox WHERE key = 'b';
-- but not one that people wait for, which stands for its lane
SELECT next_attempt_at < 'infinity' AS due FROM enterprise_connection_requests WHERE priority = -1;
SELECT count(*) AS waiting, bool_or(next_attempt_at = 'infinity') AS some_out_of_the_way, max(attempts) AS attempts FROM enterprise_connection_requests WHERE key = 'a' AND id > 2;
SELECT mock.unscript();
SELECT count(*) > 0 AS sent FROM box.sent();
CALL box.hurry();
CALL box.deliver_all();
SELECT state, count(*), max(attempts) AS attempts FROM enterprise_connection_requests WHERE id > 2 GROUP BY 1;
SELECT count(*), count(*) FILTER (WHERE n = name) AS in_order
FROM (SELECT row_number() OVER () - 1 AS n, replace(body->>'name', 'A ', '')::int AS name FROM box.sent()) AS s;

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
