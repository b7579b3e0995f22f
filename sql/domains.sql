-- Domains that move from one connection to another, in the outbox: what Clerk
-- refuses is tried again for a while, if the domain may come free.
-- There is no worker here: CALL deliver_enterprise_connections() delivers.
SET timezone = 'UTC';
SET statement_timeout = '60s';
SET client_min_messages = warning;

CREATE TEMP VIEW outbox AS
SELECT id, operation, key, state, superseded_by AS by, http_status AS http,
       regexp_replace(regexp_replace(error->>'message', '^could not (\w+) the enterprise connection: ', '\1: '), '\n.*', '') AS error
FROM enterprise_connection_requests ORDER BY id;
-- An upsert of a key whose connection has these domains.
CREATE FUNCTION pg_temp.upsert(key text, VARIADIC domains text[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT enqueue_enterprise_connection('upsert', jsonb_build_object('name', key, 'provider', 'saml_okta', 'domains', domains), key)
$$;
CREATE TEMP VIEW sent AS SELECT method, coalesce(body->>'name', '-') AS name, body->'domains' AS domains, status FROM mock.requests();
CREATE TEMP VIEW at_clerk AS SELECT c->>'name' AS name, c->'domains' AS domains FROM mock.connections() AS c;

-- One at a time, so that what is sent is sent in order.
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
ALTER SYSTEM SET pg_clerk.naptime = '500ms';
CALL box.reloaded('pg_clerk.naptime', '500ms');

--
-- In one transaction, in either order
--
CALL box.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT pg_temp.upsert('b', 'Moves.example', 'b.example') AS taker;
SELECT pg_temp.upsert('a', 'a.example') AS giver;
COMMIT;
CALL box.deliver_until(2, 'delivered');
SELECT DISTINCT method, name, status FROM sent ORDER BY 2, 1, 3;
BEGIN;
SELECT pg_temp.upsert('b', 'b.example') AS giver;
SELECT pg_temp.upsert('a', 'a.example', 'moves.example') AS taker;
COMMIT;
CALL deliver_enterprise_connections();
-- from one that is deleted to one that is created
BEGIN;
SELECT enqueue_enterprise_connection('create', '{"name": "c", "provider": "saml_okta", "domains": ["moves.example"]}') AS taker;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS giver;
COMMIT;
CALL box.deliver_until(6, 'delivered');
-- from one to the next to the next
SELECT enqueue_enterprise_connection('update', '{"domains": ["b.example", "x.example"]}', 'b') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT pg_temp.upsert('d', 'x.example') AS taker;
SELECT enqueue_enterprise_connection('update', '{"domains": ["b.example", "moves.example"]}', 'b') AS both;
SELECT enqueue_enterprise_connection('delete', id => (SELECT id FROM enterprise_connections WHERE name = 'c')) AS giver;
COMMIT;
CALL box.deliver_all();
SELECT id, operation, key, state, http, error FROM outbox;
TABLE at_clerk;

--
-- The giver takes a while: each refusal counts, and the pauses grow
--
CALL box.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
SELECT box.busy('"name":"a"', 0);
SELECT pg_temp.upsert('a', 'a.example') AS giver;
SELECT pg_temp.upsert('b', 'moves.example') AS taker;
CALL deliver_enterprise_connections();
CALL box.hurry('b');
CALL deliver_enterprise_connections();
CALL box.hurry('b');
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT attempts >= 3 AS counted FROM enterprise_connection_requests WHERE key = 'b';
UPDATE enterprise_connection_requests SET attempts = 10 WHERE key = 'b';
CALL box.hurry('b');
CALL deliver_enterprise_connections();
SELECT next_attempt_at - started_at BETWEEN interval '7 s' AND interval '16 s' AS seldom, attempts FROM enterprise_connection_requests WHERE key = 'b';
SELECT mock.unscript();
CALL box.deliver_all();
TABLE outbox;
TABLE at_clerk;
-- and if it fails
SELECT box.busy('"name":"a"', 0);
SELECT enqueue_enterprise_connection('update', '{"name": "a", "domains": ["a2.example"]}', 'a') AS giver;
SELECT enqueue_enterprise_connection('create', '{"name": "c", "provider": "saml_okta", "domains": ["a.example"]}') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
SELECT mock.unscript();
SELECT mock.script('{"match": {"body_contains": "a2.example"}, "status": 403, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "not allowed", "code": "forbidden"}]}}');
CALL box.hurry('a');
CALL deliver_enterprise_connections();
CALL box.deliver_until(5, 'failed');
SELECT * FROM outbox WHERE id > 3;
-- or goes on for longer than two minutes: the taker fails
SELECT box.busy('"name":"a"', 0);
SELECT enqueue_enterprise_connection('update', '{"name": "a", "domains": ["a3.example"]}', 'a') AS giver;
SELECT enqueue_enterprise_connection('update', '{"domains": ["moves.example", "a.example"]}', 'b') AS taker;
CALL deliver_enterprise_connections();
UPDATE enterprise_connection_requests SET attempts = 12 WHERE id = 7;
CALL box.hurry('b');
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;
-- nobody is going to give it up: it fails at once, and says what has the domain
SELECT mock.unscript();
CALL box.deliver_all();
SELECT enqueue_enterprise_connection('update', '{"name": "a", "domains": ["a3.example", "a4.example"]}', 'a') AS keeper;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('create', '{"name": "d", "provider": "saml_okta", "domains": ["D.example", "a3.example"]}') AS taker;
SELECT enqueue_enterprise_connection('update', '{"domains": ["a4.example"]}', 'b') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 7;
SELECT id, error->>'hint' AS hint FROM enterprise_connection_requests WHERE id > 8 ORDER BY id;
-- of one without a key
SELECT create_enterprise_connection(name => 'e', provider => 'saml_okta', domains => '{e.example}')->>'id' AS id;
SELECT enqueue_enterprise_connection('update', '{"domains": ["e.example"]}', 'b') AS taker;
CALL deliver_enterprise_connections();
SELECT id, state, error->>'hint' AS hint FROM enterprise_connection_requests WHERE id > 10 ORDER BY id;
-- of one that is not known here
DELETE FROM enterprise_connections WHERE name = 'e';
SELECT enqueue_enterprise_connection('update', '{"domains": ["e.example"]}', 'b') AS taker;
CALL deliver_enterprise_connections();
SELECT id, state, error->>'hint' AS hint FROM enterprise_connection_requests WHERE id > 11 ORDER BY id;
-- an upsert that has to create looks whether it was itself, first
SELECT pg_temp.upsert('f', 'a3.example') AS taker;
CALL deliver_enterprise_connections();
CALL box.deliver_until(13, 'failed');
SELECT id, state, error->>'message' AS message, error->>'hint' AS hint FROM enterprise_connection_requests WHERE id > 12 ORDER BY id;

--
-- What has it is taken over by a newer request, or cancelled
--
CALL box.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
SELECT box.busy('"name":"first"', 0);
SELECT enqueue_enterprise_connection('update', '{"name": "first"}', 'a') AS first;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('a', 'a.example') AS giver;
SELECT pg_temp.upsert('b', 'moves.example') AS taker;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('a', 'a.example') AS newer;
SELECT mock.unscript();
CALL box.deliver_all();
TABLE outbox;
TABLE at_clerk;
SELECT box.busy('"name":"a"', 0);
SELECT pg_temp.upsert('a', 'a2.example') AS giver;
SELECT pg_temp.upsert('c', 'a.example') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;
SELECT cancel_enterprise_connection_request(6);
CALL box.deliver_until(7, 'failed');
SELECT * FROM outbox WHERE id > 5;

--
-- Each wants what the other has: both fail in the end, and say what is to be done
--
ALTER SYSTEM SET pg_clerk.max_attempts = 4;
CALL box.reloaded('pg_clerk.max_attempts', '4');
CALL box.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
BEGIN;
SELECT pg_temp.upsert('b', 'a.example') AS request;
SELECT pg_temp.upsert('a', 'b.example') AS request;
COMMIT;
CALL box.deliver_all();
TABLE outbox;
SELECT id, attempts, error->>'hint' AS hint FROM enterprise_connection_requests WHERE id > 2 ORDER BY id;
TABLE at_clerk;
-- in two steps it goes
SELECT pg_temp.upsert('a', 'own.example') AS first;
CALL deliver_enterprise_connections();
BEGIN;
SELECT pg_temp.upsert('b', 'a.example') AS second;
SELECT pg_temp.upsert('a', 'own.example', 'b.example') AS second;
COMMIT;
CALL box.deliver_all();
TABLE outbox;
TABLE at_clerk;
ALTER SYSTEM RESET pg_clerk.max_attempts;
CALL box.reloaded('pg_clerk.max_attempts', '20');

--
-- A refused upsert is taken over by a newer one, although it was sent before
--
CALL box.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
SELECT box.busy('"name":"a"', 0);
SELECT pg_temp.upsert('a', 'a2.example') AS giver;
SELECT enqueue_enterprise_connection('upsert', '{"name": "b", "domains": ["a.example"], "syncUserAttributes": false}', 'b') AS request;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('b', 'b2.example') AS request;
CALL box.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM mock.requests();
-- by a delete it is not: it tries again, or fails, first
SELECT mock.forget();
SELECT enqueue_enterprise_connection('update', '{"domains": ["a.example"]}', 'b') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;
SELECT mock.unscript();
CALL box.deliver_all();
SELECT * FROM outbox WHERE id > 2;
TABLE at_clerk;

--
-- Somebody got the domain, but that is not known: its process was killed
--
CALL box.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
SELECT pg_temp.upsert('a', 'a.example', 'Moves.example') AS request;
CALL deliver_enterprise_connections();
UPDATE enterprise_connection_requests SET state = 'queued', finished_at = NULL, next_attempt_at = now() + interval '1 h' WHERE id = 3;
UPDATE enterprise_connections SET domains = '{a.example}' WHERE key = 'a';
SELECT pg_temp.upsert('a', 'a.example') AS giver;
SELECT pg_temp.upsert('b', 'b.example', 'moves.example') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 2;
CALL box.deliver_all();
SELECT * FROM outbox WHERE id > 2;
TABLE at_clerk;
-- or only perhaps, as a create without a key that is in doubt
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('A')) AS request;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('b', 'a.example') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
CALL box.hurry();
CALL box.deliver_until(1, 'delivered');
CALL box.deliver_until(2, 'failed');
TABLE outbox;

--
-- An organization that may have one connection only
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', '{"name": "a", "provider": "saml_okta", "domains": ["a.example"], "organizationId": "org_1"}', 'a') AS request;
CALL deliver_enterprise_connections();
SELECT mock.script('{"match": {"body_contains": "b.example"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "has one", "code": "organization_already_has_sso_connection"}]}}');
BEGIN;
SELECT enqueue_enterprise_connection('create', '{"name": "b", "provider": "saml_okta", "domains": ["b.example"], "organizationId": "org_1"}') AS taker;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS giver;
COMMIT;
CALL box.deliver_until(2, 'delivered');
TABLE outbox;
TABLE at_clerk;

--
-- What an earlier call at once has left is adopted
--
CALL box.start_over();
SET pg_clerk.on_rollback = 'ignore';
BEGIN;
SELECT upsert_enterprise_connection('a', box.params('A'))->>'id' AS id;
ROLLBACK;
RESET pg_clerk.on_rollback;
SELECT enqueue_enterprise_connection('upsert', box.params('A'), 'a') AS request;
CALL box.deliver_until(1, 'delivered');
SELECT state, http FROM outbox;
SELECT method, status FROM sent;
SELECT id, key, name FROM enterprise_connections;

CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();

--
-- A refused upsert hands its parameters on, past what sets its connection inactive
--
SELECT mock.reset();
TRUNCATE enterprise_connections, enterprise_connection_requests;
CREATE TABLE moves (id int PRIMARY KEY, name text, domains text[], sso boolean DEFAULT true);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON moves FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=move:id', 'name=name', 'domains=domains', 'when=sso', 'provider:=saml_okta');
INSERT INTO moves VALUES (1, 'One', '{one.example,first.example}'), (2, 'Two', '{two.example,second.example}');
CALL deliver_enterprise_connections();
-- each wants what the other has: both are tried again
BEGIN;
UPDATE moves SET domains = '{one.example,first.example,second.example}' WHERE id = 1;
UPDATE moves SET domains = '{two.example,first.example}' WHERE id = 2;
COMMIT;
CALL deliver_enterprise_connections();
SELECT operation, key, state, http_status FROM enterprise_connection_requests WHERE finished_at IS NULL ORDER BY id;
-- the first gives it all up, behind a request that sets its connection inactive
UPDATE moves SET sso = false WHERE id = 1;
UPDATE moves SET sso = true, domains = '{one.example}' WHERE id = 1;
CALL box.hurry();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
CALL box.hurry();
CALL deliver_enterprise_connections();
SELECT operation, key, state, error->>'message' AS error FROM enterprise_connection_requests ORDER BY id;
SELECT m->>'name' AS name, m->'domains' AS domains FROM mock.connections() AS m ORDER BY 1;
DROP TABLE moves;
TRUNCATE enterprise_connections, enterprise_connection_requests;
