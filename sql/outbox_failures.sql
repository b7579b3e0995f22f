-- The outbox: what Clerk, or something here, refuses.
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
-- No key that works: the server pauses, and nothing is counted
--
CALL box.start_over();
SELECT mock.settings('{"secret_keys": ["sk_test_rotated"]}');
SELECT enqueue_enterprise_connection('upsert', box.params('N' || n), 'n' || n) AS request FROM generate_series(1, 3) AS n;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, http, error FROM outbox;
SELECT method, status FROM box.sent();
SELECT server, since IS NOT NULL AS since, reason FROM enterprise_connection_pauses;
SELECT server, state, requests, paused_since IS NOT NULL AS paused, paused_why FROM enterprise_connection_queue;
-- at once, when the mapping changes
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_rotated');
CALL deliver_enterprise_connections();
SELECT id, state, attempts, http, error FROM outbox;
SELECT method, status FROM box.sent();
SELECT count(*) AS paused FROM enterprise_connection_pauses;
SELECT server, state, requests, paused_since, paused_why FROM enterprise_connection_queue;
-- no key at all
SELECT mock.settings('{"secret_keys": ["sk_test_mock"]}');
DROP USER MAPPING FOR PUBLIC SERVER clerk;
SELECT enqueue_enterprise_connection('upsert', box.params('K'), 'k') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, error FROM outbox WHERE id = 4;
SELECT count(*) AS sent FROM box.sent();
SELECT paused_why FROM enterprise_connection_queue WHERE state = 'queued';
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CALL deliver_enterprise_connections();
SELECT id, state, attempts, error FROM outbox WHERE id = 4;
SELECT count(*) AS paused FROM enterprise_connection_pauses;

--
-- Nothing has happened: again, later
--
CALL box.start_over();
SELECT mock.script('[
    {"match": {"body_contains": "S503"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}},
    {"match": {"body_contains": "S408"}, "status": 408, "body": ""},
    {"match": {"body_contains": "S409"}, "status": 409, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "locked", "code": "resource_locked"}]}}]');
SELECT enqueue_enterprise_connection('upsert', box.params('S' || s), 's' || s) AS request FROM unnest('{503,408,409}'::text[]) AS s;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '0.4 s' AND r.started_at + '30 s' AS soon FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) ORDER BY id;
SELECT method, body->>'name' AS name, status FROM box.sent();
CALL box.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
-- each time, twice as long; then it fails
ALTER SYSTEM SET pg_clerk.max_attempts = 3;
CALL box.reloaded('pg_clerk.max_attempts', '3');
SELECT mock.script('{"match": {"method": "PATCH"}, "times": 0, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
SELECT enqueue_enterprise_connection('upsert', '{"name": "In vain"}', 's503') AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '0.9 s' AND r.started_at + '30 s' AS later FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) WHERE id = 4;
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 4;
SELECT method, body->>'name' AS name, status FROM box.sent();
SELECT mock.unscript();
-- it stays until it is tried again, or cancelled
SELECT retry_enterprise_connection_request(4);
SELECT * FROM outbox WHERE id = 4;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 4;
-- so does a create whose outcome is unknown each time
SELECT mock.script('{"match": {"method": "POST"}, "times": 0, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('Never')) AS request;
SELECT count(*) > 0 AS sent FROM box.sent();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL box.deliver_until(5, 'in_doubt');
CALL box.hurry();
CALL box.deliver_until(5, 'in_doubt');
CALL box.hurry();
CALL box.deliver_until(5, 'failed');
SELECT * FROM outbox WHERE id = 5;
SELECT method, status, count(*) FROM box.sent() GROUP BY 1, 2 ORDER BY 1 DESC;
-- so does an upsert of what Clerk lists, refuses to create, and says is gone
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
DELETE FROM enterprise_connection_requests;
SELECT mock.script('{"match": {"method": "PATCH"}, "times": 0, "status": 404, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "gone", "code": "resource_not_found"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('A', more => '{"active": false}'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox;
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox;
SELECT method, status FROM box.sent();
ALTER SYSTEM RESET pg_clerk.max_attempts;
CALL box.reloaded('pg_clerk.max_attempts', '20');
-- a server that has said 429 is left alone as long as it wants, but nobody waits for that
SET statement_timeout = '10s';
CALL box.start_over();
SELECT url FROM mock.server \gset
CREATE SERVER regress_limited FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', max_concurrency '1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_limited OPTIONS (secret_key 'sk_test_mock');
SELECT mock.script('{"status": 429, "headers": {"Retry-After": "120", "Content-Type": "application/json"}, "body": {"errors": [{"message": "Too many requests", "code": "too_many_requests"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('Limited'), 'limited', server => 'regress_limited') AS request;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '119 s' AND r.started_at + '150 s' AS as_told FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id);
-- but the other servers are not
SELECT enqueue_enterprise_connection('upsert', box.params('Free'), 'free') AS request;
CALL deliver_enterprise_connections();
SELECT id, key, state FROM outbox;
DROP SERVER regress_limited CASCADE;
SET statement_timeout = '60s';
-- with a date, too
CREATE SERVER regress_limited FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', max_concurrency '1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_limited OPTIONS (secret_key 'sk_test_mock');
CALL box.start_over();
SELECT mock.script(jsonb_build_object('status', 503, 'body', '{"errors": [{"message": "busy", "code": "service_unavailable"}]}'::jsonb,
    'headers', jsonb_build_object('Content-Type', 'application/json', 'Retry-After', to_char(now() AT TIME ZONE 'UTC' + '200 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'))));
SELECT enqueue_enterprise_connection('upsert', box.params('Limited'), 'limited', server => 'regress_limited') AS request;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '150 s' AND r.started_at + '250 s' AS as_told FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id);
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
SELECT id, key, state, attempts FROM outbox;
DROP SERVER regress_limited CASCADE;

--
-- Clerk asks for no more requests: a direct call does not wait longer than it may take; another setting ends that
--
CALL box.start_over();
SELECT mock.script('{"match": {"body_contains": "Limited"}, "status": 429, "headers": {"Retry-After": "99999"}, "body": {"errors": []}}');
SELECT enqueue_enterprise_connection('create', box.params('Limited')) AS request;
CALL deliver_enterprise_connections();
SELECT state, attempts, next_attempt_at BETWEEN now() + '50 min' AND now() + '61 min' AS within_an_hour FROM enterprise_connection_requests;
SELECT count(*) FROM list_enterprise_connections();
ALTER SERVER clerk OPTIONS (ADD timeout '31s');
SELECT count(*) FROM list_enterprise_connections();
SELECT retry_enterprise_connection_request(1);
CALL deliver_enterprise_connections();
SELECT state FROM enterprise_connection_requests;
ALTER SERVER clerk OPTIONS (DROP timeout);

--
-- A trigger of the user's on the tracking table: the row fails, the server goes on, whatever it raises
--
CALL box.start_over();
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not wanted' USING ERRCODE = '55000'; END$$;
CREATE TRIGGER refuse BEFORE INSERT ON enterprise_connections FOR EACH ROW WHEN (new.name = 'Refused') EXECUTE FUNCTION pg_temp.refuse();
SELECT enqueue_enterprise_connection('create', box.params('Refused')) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Taken')) AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT reason FROM enterprise_connection_pauses;
DROP TRIGGER refuse ON enterprise_connections;
-- it is not made twice
SELECT retry_enterprise_connection_request(1);
CALL deliver_enterprise_connections();
SELECT id, state, r.error->>'message' AS message, r.error->>'hint' AS hint FROM enterprise_connection_requests AS r WHERE id = 1;
SELECT method, body->>'name' AS name, status FROM box.sent();

--
-- Clerk asks to wait: nothing more is sent, although more was due
--
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "status": 429, "headers": {"Retry-After": "120", "Content-Type": "application/json"}, "body": {"errors": [{"message": "Too many requests", "code": "too_many_requests"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('N' || n), 'n' || n) AS request FROM generate_series(1, 3) AS n;
CALL deliver_enterprise_connections();
SELECT id, state, attempts FROM outbox;
SELECT method, status FROM box.sent();
-- another setting ends that
ALTER SERVER clerk OPTIONS (ADD timeout '29s');
ALTER SERVER clerk OPTIONS (DROP timeout);

--
-- The process that had claimed it is gone: at the end of the lease another takes it over
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B,C}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM box.sent();
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
SELECT enqueue_enterprise_connection('create', box.params('Lost')) AS request;
SELECT enqueue_enterprise_connection('create', box.params('Done')) AS request;
SELECT create_enterprise_connection(box.params('Done'))->>'id' AS id;
TRUNCATE enterprise_connections;
SELECT count(*) AS tracked FROM mirror_enterprise_connections();
SELECT adopt_enterprise_connection(key, id)->>'id' AS id FROM (VALUES ('a', 'entconn_000001'), ('b', 'entconn_000002')) AS v (key, id);
DELETE FROM enterprise_connections WHERE name = 'Done';
UPDATE enterprise_connection_requests SET state = 'sending', claimer = 1, attempts = 1, started_at = clock_timestamp(),
    next_attempt_at = clock_timestamp() + interval '30 s', step = CASE operation WHEN 'update' THEN 'update' WHEN 'delete' THEN 'delete' ELSE 'create' END::enterprise_connection_step
WHERE id > 3;
SELECT enqueue_enterprise_connection('update', '{"name": "A 3"}', 'a') AS request;
SELECT count(*) > 0 AS sent FROM box.sent();
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id > 3;
SELECT count(*) AS sent FROM box.sent();
UPDATE enterprise_connection_requests SET next_attempt_at = clock_timestamp() WHERE state = 'sending';
CALL deliver_enterprise_connections();
SELECT id, operation, key, state, attempts, step, http, connection_id, error FROM outbox WHERE id > 3;
SELECT method, regexp_replace(target, '\?.*', '') AS target, body->>'name' AS name, status FROM box.sent() ORDER BY 1, 3;

--
-- What somebody has locked is in nobody's way
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B,C}'::text[]) AS name;
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 2"}', 'b') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 3"}', 'b') AS request;
BEGIN;
SELECT id FROM enterprise_connection_requests WHERE id IN (1, 5) FOR UPDATE;
PREPARE TRANSACTION 'regress_locked';
CALL deliver_enterprise_connections();
SELECT id, key, state FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
COMMIT PREPARED 'regress_locked';
CALL deliver_enterprise_connections();
SELECT id, key, state FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
-- one that has failed is being retried: the later ones of its key do not overtake it
SELECT mock.script('{"match": {"body_contains": "Wrong"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('update', '{"name": "Wrong"}', 'a') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('update', '{"name": "A 4"}', 'a') AS request;
BEGIN;
SELECT retry_enterprise_connection_request(7, '{"name": "A 3"}');
PREPARE TRANSACTION 'regress_locked';
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id > 6;
COMMIT PREPARED 'regress_locked';
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox WHERE id > 6;
SELECT method, body->>'name' AS name, status FROM box.sent();

--
-- Rows that are not as they should be fail alone
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B,C,D,E,F,G,H,I,J}'::text[]) AS name;
UPDATE enterprise_connection_requests SET params = '[]' WHERE id = 1;
UPDATE enterprise_connection_requests SET params = NULL WHERE id = 2;
UPDATE enterprise_connection_requests SET params = '7' WHERE id = 3;
UPDATE enterprise_connection_requests SET params = '{"nmae": 7}' WHERE id = 4;
UPDATE enterprise_connection_requests SET key = NULL, lane = NULL, operation = 'update', connection_id = NULL WHERE id = 5;
UPDATE enterprise_connection_requests SET role_oid = 0 WHERE id = 6;
UPDATE enterprise_connection_requests SET attempts = 2147483647 WHERE id = 7;
UPDATE enterprise_connection_requests SET started_at = 'infinity', created_at = '-infinity' WHERE id = 8;
UPDATE enterprise_connection_requests SET next_attempt_at = '-infinity' WHERE id = 9;
CALL deliver_enterprise_connections();
SELECT id, operation, key, state, error FROM outbox;
-- in a lane, before others
SELECT enqueue_enterprise_connection('upsert', box.params('K', 'k' || n || '.example'), 'k') AS request FROM generate_series(1, 4) AS n;
UPDATE enterprise_connection_requests SET params = '[7]' WHERE id = 11;
UPDATE enterprise_connection_requests SET params = NULL WHERE id = 12;
UPDATE enterprise_connection_requests SET params = '"x"' WHERE id = 13;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by, params, error->>'message' AS error FROM enterprise_connection_requests WHERE id > 10 ORDER BY id;

--
-- A trigger of the user's on the outbox: what cannot be claimed waits, what cannot be written fails; the others go on
--
CALL box.start_over();
CREATE TRIGGER refuse_claim BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW WHEN (new.state = 'sending' AND new.key = 'claim') EXECUTE FUNCTION pg_temp.refuse();
CREATE TRIGGER refuse_outcome BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW WHEN (new.state = 'delivered' AND new.key = 'outcome') EXECUTE FUNCTION pg_temp.refuse();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,Claim,B,Outcome,C}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts, connection_id IS NOT NULL AS known, error FROM outbox;
DROP TRIGGER refuse_claim ON enterprise_connection_requests;
DROP TRIGGER refuse_outcome ON enterprise_connection_requests;
SELECT retry_enterprise_connection_request(4);
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts, error FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();

--
-- A create whose PATCH was refused, and that is tried again with a newer upsert behind it: all that the newer one has is sent
--
CALL box.start_over();
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 403, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "not allowed", "code": "feature_not_enabled"}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('Old', 'old.example', '{"sync_user_attributes": false}'), 'k') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, step FROM enterprise_connection_requests;
BEGIN;
SELECT retry_enterprise_connection_request(1);
SELECT enqueue_enterprise_connection('upsert', box.params('New', 'new.example'), 'k') AS request;
COMMIT;
CALL deliver_enterprise_connections();
SELECT id, state, step, superseded_by AS by FROM enterprise_connection_requests ORDER BY id;
SELECT method, body - 'provider' AS body, status FROM box.sent();

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
