-- The outbox: a create whose outcome is not known is looked up at Clerk first.
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
-- Nobody knows whether it has happened: looked up at Clerk, then sent again only if it is not there
--
CALL box.start_over();
SELECT mock.script('[
    {"match": {"method": "POST", "body_contains": "U500"}, "status": 500, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N500"}, "status": 500, "body": ""},
    {"match": {"method": "POST", "body_contains": "U502"}, "status": 502, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N502"}, "status": 502, "body": ""},
    {"match": {"method": "POST", "body_contains": "U504"}, "status": 504, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N504"}, "status": 504, "body": ""},
    {"match": {"method": "POST", "body_contains": "UReset"}, "reset": "after"},
    {"match": {"method": "POST", "body_contains": "NReset"}, "reset": "before"}]');
SELECT enqueue_enterprise_connection('create', box.params(name)) AS request FROM unnest('{U500,N500,U502,N502,U504,N504,UReset,NReset}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, step, http, next_attempt_at >= started_at + '29 s' AS lease, doubt_since = started_at AS since FROM outbox JOIN enterprise_connection_requests USING (id, state, attempts, step) ORDER BY id;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- not before the first request cannot be on its way any more
CALL deliver_enterprise_connections();
SELECT count(*) AS received FROM box.sent();
CALL box.hurry();
-- one listing for all of them
CALL box.deliver_until(8, 'delivered');
SELECT id, state, attempts, step, http, connection_id IS NOT NULL AS known, error FROM outbox;
SELECT method, target, body->>'name' AS name, status FROM box.sent() ORDER BY method, name;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk, bool_and(e.connection = m) AS as_at_clerk
FROM enterprise_connections AS e FULL JOIN mock.connections() AS m ON e.id = m->>'id';
-- the lease is the server's time-out
ALTER SERVER clerk OPTIONS (ADD timeout '500ms');
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('Short')) AS request;
CALL deliver_enterprise_connections();
SELECT state, next_attempt_at < started_at + '2 s' AS short FROM enterprise_connection_requests WHERE id = 9;
ALTER SERVER clerk OPTIONS (DROP timeout);
CALL box.deliver_until(9, 'delivered');
SELECT method, status FROM box.sent();
-- no answer in that time: the request may still be on its way
ALTER SERVER clerk OPTIONS (ADD timeout '1s');
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "delay_after_ms": 3000}');
SELECT enqueue_enterprise_connection('create', box.params('Late')) AS request;
CALL deliver_enterprise_connections();
ALTER SERVER clerk OPTIONS (DROP timeout);
CALL box.deliver_until(10, 'delivered');
SELECT method FROM box.sent();
-- an upsert that is found gets its parameters by a PATCH
SELECT mock.script('{"match": {"method": "POST"}, "reset": "after"}');
SELECT enqueue_enterprise_connection('upsert', box.params('Lost'), 'lost') AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL box.deliver_until(11, 'delivered');
SELECT method, status, body FROM box.sent();
SELECT key, name FROM enterprise_connections WHERE key IS NOT NULL;
-- many of them need few listings
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "times": 0, "apply": true, "status": 500, "body": ""}');
SELECT count(enqueue_enterprise_connection('create', box.params('Many ' || n, 'many' || n || '.example'))) FROM generate_series(1, 300) AS n;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT state, count(*), count(DISTINCT connection_id) FROM outbox GROUP BY 1;
SELECT count(*) FILTER (WHERE method = 'POST') AS posts, count(*) FILTER (WHERE method = 'GET') < 4 AS few_listings FROM box.sent();
-- one that somebody else has made is not taken for it
CALL box.start_over();
SELECT create_enterprise_connection(name => 'Twin', provider => 'saml_okta', domains => '{twin.example}')->>'id' AS id;
SELECT adopt_enterprise_connection('other', 'entconn_000001')->>'id' AS id;
SELECT mock.script('{"match": {"method": "POST"}, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('Twin')) AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL box.deliver_until(1, 'failed');
TABLE outbox;
SELECT id, key FROM enterprise_connections;
-- the look-up fails: again and again
CALL box.start_over();
SELECT mock.script('[{"match": {"method": "POST"}, "status": 500, "body": ""}, {"match": {"method": "GET"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}, "times": 2}]');
SELECT enqueue_enterprise_connection('create', box.params('A')) AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step, http, error FROM outbox;
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step FROM outbox;
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
SELECT method, status FROM box.sent();
-- its key is refused meanwhile: the server pauses, the doubt stays
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('A')) AS request;
CALL deliver_enterprise_connections();
SELECT mock.settings('{"secret_keys": ["sk_test_rotated"]}');
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step FROM outbox;
SELECT server, reason FROM enterprise_connection_pauses;
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_rotated');
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
SELECT method, status FROM box.sent();
SELECT count(*) AS paused FROM enterprise_connection_pauses;
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_mock');
-- there is no key meanwhile, or who enqueued it may not any more: the doubt stays, too
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "times": 2, "apply": true, "status": 500, "body": ""}');
CREATE ROLE regress_doubt;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_doubt;
SELECT enqueue_enterprise_connection('create', box.params('A')) AS request;
SET ROLE regress_doubt;
SELECT enqueue_enterprise_connection('create', '{"name": "B", "provider": "saml_okta", "domains": ["b.example"]}') AS request;
RESET ROLE;
CALL deliver_enterprise_connections();
DROP USER MAPPING FOR PUBLIC SERVER clerk;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_doubt;
CALL box.hurry();
CALL deliver_enterprise_connections();
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CALL box.hurry();
CALL box.deliver_until(2, 'failed');
SELECT id, state, attempts, step, doubt_since IS NOT NULL AS doubt, o.error FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id, state, attempts, step) ORDER BY id;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_doubt;
SELECT retry_enterprise_connection_request(2);
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
CALL box.hurry();
CALL box.deliver_until(2, 'delivered');
SELECT id, state, attempts, error FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent();
SELECT count(*) AS at_clerk FROM mock.connections();
DROP OWNED BY regress_doubt;
DROP ROLE regress_doubt;
-- an update or a delete may be sent twice
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM box.sent();
SELECT mock.script('[
    {"match": {"method": "PATCH"}, "status": 500, "apply": true, "body": ""},
    {"match": {"method": "PATCH"}, "status": 502, "body": ""},
    {"match": {"method": "PATCH"}, "status": 504, "body": ""},
    {"match": {"method": "PATCH"}, "reset": "after"},
    {"match": {"method": "DELETE"}, "reset": "after"}]');
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, step, http, next_attempt_at BETWEEN started_at + '0.4 s' AND started_at + '30 s' AS soon FROM outbox JOIN enterprise_connection_requests USING (id, state, attempts, step) WHERE id > 2 ORDER BY id;
CALL box.hurry();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 2;
SELECT method, status, count(*) FROM box.sent() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT key, name FROM enterprise_connections;

--
-- A create that needs a PATCH after it: two steps
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('create', box.params('A', more => '{"syncUserAttributes": false}')) AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM box.sent();
SELECT sync_user_attributes FROM enterprise_connections;
-- the second fails alone, and is sent again alone; until then the connection is known as it is
SELECT mock.script('[{"match": {"method": "PATCH"}, "status": 500, "body": ""}, {"match": {"method": "PATCH"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
SELECT enqueue_enterprise_connection('upsert', box.params('B', more => '{"syncUserAttributes": false}'), 'b') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT key, name, sync_user_attributes FROM enterprise_connections WHERE key = 'b';
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT retry_enterprise_connection_request(2);
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT method, body, status FROM box.sent();
SELECT key, name, sync_user_attributes FROM enterprise_connections WHERE key = 'b';
-- with other parameters: all of them count
SELECT mock.script('[{"match": {"method": "PATCH"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
SELECT enqueue_enterprise_connection('create', box.params('C', more => '{"syncUserAttributes": false}')) AS request;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM box.sent();
SELECT retry_enterprise_connection_request(3, box.params('C 2', 'c.example'));
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 3;
SELECT method, body, status FROM box.sent();
SELECT name FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name);
-- the create was lost: found, then completed
SELECT mock.script('{"match": {"method": "POST"}, "reset": "after"}');
SELECT enqueue_enterprise_connection('create', box.params('D', more => '{"syncUserAttributes": false}'), 'd') AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL box.deliver_until(4, 'delivered');
SELECT method, body, status FROM box.sent();

--
-- In a copy of the database nothing is sent until it is armed
--
CALL box.start_over();
SELECT mock.script('[{"match": {"body_contains": "Lost"}, "reset": "after"}, {"match": {"body_contains": "Later"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}]');
SELECT enqueue_enterprise_connection('create', box.params('Lost')) AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('Later'), 'later') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('New'), 'new') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "Later 2"}', 'later') AS request;
SELECT count(*) > 0 AS sent FROM box.sent();
ALTER SERVER clerk OPTIONS (SET origin '1/1/1');
CALL deliver_enterprise_connections();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT count(*) AS sent FROM box.sent();
-- what is enqueued here is held at once
SET client_min_messages = notice;
SELECT enqueue_enterprise_connection('upsert', box.params('Held'), 'held') AS request;
SET client_min_messages = warning;
SELECT enqueue_enterprise_connection('upsert', box.params('Cancelled'), 'cancelled') AS request;
SELECT state, shown FROM outbox JOIN (SELECT request AS id, state AS shown FROM enterprise_connection_status) s USING (id) WHERE id = 5;
SELECT await_enterprise_connection(5, '10 ms') IS NULL AS not_yet;
SELECT cancel_enterprise_connection_request(6);
SELECT server, state, requests FROM enterprise_connection_queue ORDER BY state;
-- armed, they go on: what may have been created is looked up
SELECT arm_enterprise_connections('clerk');
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
CALL box.hurry();
CALL box.deliver_until(5, 'delivered');
SELECT id, operation, key, state, connection_id IS NOT NULL AS known, error FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent() ORDER BY method, name;
SELECT name, count(*) FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name) GROUP BY 1 ORDER BY 1;

--
-- After a failover: creates from before may have been sent
--
CALL box.start_over();
SELECT mock.script('{"match": {"body_contains": "Sent"}, "status": 500, "apply": true, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('Sent')) AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('Unsent'), 'unsent') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('Unsent 2', 'unsent2.example'), 'unsent 2') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "Unsent 3"}', 'unsent') AS request;
SELECT count(*) > 0 AS sent FROM box.sent();
-- the claim of the first one was lost
UPDATE enterprise_connection_requests SET state = 'queued', attempts = 0, started_at = NULL, step = NULL, claimer = NULL, doubt_since = NULL, http_status = NULL, error = NULL, next_attempt_at = created_at WHERE id = 1;
UPDATE enterprise_connection_requests SET timeline = timeline + 1 WHERE id <> 2;
-- perhaps just now: not before that cannot be on its way any more
CALL deliver_enterprise_connections();
SELECT id, state, next_attempt_at > clock_timestamp() + '20 s' AS lease FROM enterprise_connection_requests ORDER BY id;
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
CALL box.deliver_until(3, 'delivered');
SELECT id, state, connection_id IS NOT NULL AS known FROM outbox;
SELECT method, body->>'name' AS name, status FROM box.sent() ORDER BY method, name;
SELECT name, count(*) FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name) GROUP BY 1 ORDER BY 1;
-- nor may a newer one of its key take it over before
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params('Lost'), 'lost') AS request;
CALL deliver_enterprise_connections();
TRUNCATE enterprise_connections;
UPDATE enterprise_connection_requests SET state = 'queued', attempts = 0, started_at = NULL, finished_at = NULL, step = NULL, http_status = NULL, connection_id = NULL, next_attempt_at = created_at;
UPDATE enterprise_connection_requests SET timeline = timeline + 1;
SELECT enqueue_enterprise_connection('upsert', box.params('Renamed'), 'lost') AS request;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox;
CALL box.hurry();
CALL box.deliver_until(2, 'delivered');
SELECT id, state FROM outbox;
SELECT m->>'name' AS name FROM mock.connections() AS m;

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
