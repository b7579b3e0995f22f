-- The outbox: what is cleared away, and what is brought back.
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
-- Secrets are there as long as they are needed
--
CALL box.start_over();
SELECT mock.script('{"match": {"body_contains": "Failing"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('create', jsonb_build_object('name', name, 'provider', 'oidc_custom', 'domains', ARRAY[lower(name) || '.example'],
    'oidc', '{"clientId": "c", "clientSecret": "s3cr3t", "discoveryUrl": "https://idp.example"}'::jsonb)) AS request
FROM unnest('{Delivered,Failing,Cancelled}'::text[]) AS name;
SELECT enqueue_enterprise_connection('upsert', '{"oidc": {"clientSecret": "s3cr3t"}}', 'superseded') AS request;
SELECT cancel_enterprise_connection_request(3);
SELECT enqueue_enterprise_connection('upsert', '{"name": "Superseding", "domains": ["superseding.example"], "oidc": {"clientId": "c", "discoveryUrl": "https://idp.example"}}', 'superseded') AS request;
SELECT id, state, params->'oidc' AS oidc FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by, params->'oidc' AS oidc FROM enterprise_connection_requests ORDER BY id;
SELECT body->'oidc' AS oidc, status FROM box.sent();

--
-- Retention
--
ALTER SYSTEM SET pg_clerk.retention = '1h';
CALL box.reloaded('pg_clerk.retention', '1h');
CALL deliver_enterprise_connections();
SELECT count(*) FROM outbox;
UPDATE enterprise_connection_requests SET finished_at = finished_at - interval '61 min';
CALL deliver_enterprise_connections();
SELECT id, state, params->'oidc' AS oidc, error->>'message' AS message FROM enterprise_connection_requests ORDER BY id;
-- what failed stays until it is cancelled; to try it again, its secret has to be given again
SELECT retry_enterprise_connection_request(2);
SELECT retry_enterprise_connection_request(2, '{"name": "Failing", "provider": "oidc_custom", "domains": ["failing.example"], "oidc": {"clientId": "c", "clientSecret": "s3cr3t 2", "discoveryUrl": "https://idp.example"}}');
CALL deliver_enterprise_connections();
SELECT id, state, params->'oidc' AS oidc FROM enterprise_connection_requests ORDER BY id;
SELECT body->'oidc' AS oidc, status FROM box.sent();
-- what is deleted was overtaken, or came to an end
SELECT retry_enterprise_connection_request(1, '{"name": "Delivered"}');
SELECT retry_enterprise_connection_request(1000000);
ALTER SYSTEM RESET pg_clerk.retention;
CALL box.reloaded('pg_clerk.retention', '7d');

--
-- A sweep of many lanes that is interrupted does not go on in their middle the next time
--
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "hold": true}');
SELECT enqueue_enterprise_connection('upsert', box.params('A'), '0') AS request;
SELECT count(enqueue_enterprise_connection('delete', key => 'lane ' || n)) FROM generate_series(1, 10000) AS n;
UPDATE enterprise_connection_requests SET next_attempt_at = 'infinity' WHERE id > 1;
SET statement_timeout = '500ms';
\set VERBOSITY sqlstate
CALL deliver_enterprise_connections();
\set VERBOSITY default
SET statement_timeout = '60s';
SELECT count(*) > 0 AS some, count(*) < 10000 AS not_all FROM enterprise_connection_requests WHERE next_attempt_at < 'infinity';
DELETE FROM enterprise_connection_requests;
SELECT enqueue_enterprise_connection('delete', key => '0') AS request;
UPDATE enterprise_connection_requests SET next_attempt_at = 'infinity';
CALL deliver_enterprise_connections();
SELECT key, state FROM enterprise_connection_requests;

--
-- What stays, as it has failed, is looked at once
--
CALL box.start_over();
SELECT mock.script('{"match": {"body_contains": "Wrong"}, "times": 0, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong'), 'b') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('C'), 'c') AS request;
CALL deliver_enterprise_connections();
UPDATE enterprise_connection_requests SET finished_at = finished_at - interval '8 days';
CALL deliver_enterprise_connections();
SELECT id, state, scrubbed FROM enterprise_connection_requests ORDER BY id;
SELECT xmin AS writer FROM enterprise_connection_requests WHERE id = 1 \gset
CALL deliver_enterprise_connections();
SELECT xmin = :'writer' AS untouched FROM enterprise_connection_requests WHERE id = 1;
-- overtaken, it goes with all others
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by, scrubbed FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT id, state FROM enterprise_connection_requests ORDER BY id;
-- tried again, it has another time to go
SELECT retry_enterprise_connection_request(2, box.params('Wrong'));
CALL deliver_enterprise_connections();
SELECT id, state, scrubbed, finished_at > now() - interval '1 h' AS now FROM enterprise_connection_requests WHERE id = 2;

--
-- The clock was ahead, and was set right
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B,C,D}'::text[]) AS name;
SELECT box.busy('"name":"C"', 0);
UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '10 min', created_at = now() + interval '10 min' WHERE id = 1;
UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '3 years' WHERE id = 2;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox;
-- what was tried waits with reason, for an hour at most
UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '50 min' WHERE id = 3;
SELECT mock.unscript();
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id = 3;
UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '70 min' WHERE id = 3;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id = 3;
-- of bulk work, too
SELECT enqueue_enterprise_connection('update', '{"name": "D 2"}', 'd', priority => 10) AS request;
UPDATE enterprise_connection_requests SET next_attempt_at = now() + interval '3 years' WHERE id = 5;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id = 5;

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
