-- Domains that move from one connection to another, in the outbox.
-- There is no worker here: CALL deliver_enterprise_connections() delivers.
SET timezone = 'UTC';
SET statement_timeout = '60s';
SET client_min_messages = warning;

CREATE TEMP VIEW outbox AS
SELECT id, operation, key, state, attempts, awaits, superseded_by AS by, http_status AS http,
       regexp_replace(regexp_replace(error->>'message', '^could not (\w+) the enterprise connection: ', '\1: '), '\n.*', '') AS error
FROM enterprise_connection_requests ORDER BY id;
CREATE PROCEDURE pg_temp.start_over() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.reset();
    TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
END
$$;
-- The time of what waits has come: of a key, or of all.
CREATE PROCEDURE pg_temp.hurry(key text DEFAULT NULL) LANGUAGE sql AS $$
    UPDATE enterprise_connection_requests q SET next_attempt_at = now()
    WHERE q.key = coalesce($1, q.key) AND state IN ('queued', 'in_doubt') AND next_attempt_at <> 'infinity'
$$;
-- Until nothing is left.
CREATE PROCEDURE pg_temp.deliver_all() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..100 LOOP
        CALL pg_temp.hurry();
        CALL deliver_enterprise_connections();
        EXIT WHEN NOT EXISTS (SELECT FROM enterprise_connection_requests WHERE state IN ('queued', 'in_doubt'));
        COMMIT;
    END LOOP;
END
$$;
-- After ALTER SYSTEM: until a setting is what is wanted.
CREATE PROCEDURE pg_temp.reloaded(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_reload_conf();
    FOR i IN 1..1000 LOOP
        CALL deliver_enterprise_connections();
        EXIT WHEN current_setting(name) = wanted;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
-- An upsert of a key whose connection has these domains.
CREATE FUNCTION pg_temp.upsert(key text, VARIADIC domains text[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT enqueue_enterprise_connection('upsert', jsonb_build_object('name', key, 'provider', 'saml_okta', 'domains', domains), key)
$$;
CREATE FUNCTION pg_temp.busy(name text, times int) RETURNS void LANGUAGE sql AS $$
    SELECT mock.script(jsonb_build_object('match', jsonb_build_object('body_contains', format('"name":"%s"', name)), 'times', times,
        'status', 503, 'headers', '{"Content-Type": "application/json"}'::jsonb,
        'body', '{"errors": [{"message": "busy", "code": "service_unavailable"}]}'::jsonb))
$$;
CREATE TEMP VIEW sent AS SELECT method, coalesce(body->>'name', '-') AS name, body->'domains' AS domains, status FROM mock.requests();
CREATE TEMP VIEW at_clerk AS SELECT c->>'name' AS name, c->'domains' AS domains FROM mock.connections() AS c;

-- One at a time, so that what is sent is sent in order.
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
ALTER SYSTEM SET pg_clerk.naptime = '500ms';
ALTER SYSTEM SET pg_clerk.max_attempts = 2;
CALL pg_temp.reloaded('pg_clerk.max_attempts', '2');

--
-- In one transaction, in either order: nothing is left to wait for
--
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT pg_temp.upsert('b', 'Moves.example', 'b.example') AS taker;
SELECT pg_temp.upsert('a', 'a.example') AS giver;
COMMIT;
CALL deliver_enterprise_connections();
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
CALL deliver_enterprise_connections();
-- from one to the next to the next
SELECT enqueue_enterprise_connection('update', '{"domains": ["b.example", "x.example"]}', 'b') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT pg_temp.upsert('d', 'x.example') AS taker;
SELECT enqueue_enterprise_connection('update', '{"domains": ["b.example", "moves.example"]}', 'b') AS both;
SELECT enqueue_enterprise_connection('delete', id => (SELECT id FROM enterprise_connections WHERE name = 'c')) AS giver;
COMMIT;
CALL deliver_enterprise_connections();
TABLE outbox;
TABLE sent;
TABLE at_clerk;

--
-- Waiting is no attempt, however long it takes
--
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
SELECT pg_temp.busy('a', 1);
SELECT pg_temp.upsert('a', 'a.example') AS giver;
SELECT pg_temp.upsert('b', 'moves.example') AS taker;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT next_attempt_at < now() + interval '2 s' AS soon FROM enterprise_connection_requests WHERE key = 'b';
CALL pg_temp.hurry('b');
CALL deliver_enterprise_connections();
CALL pg_temp.hurry('b');
CALL deliver_enterprise_connections();
CALL pg_temp.hurry('b');
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE key = 'b';
SELECT count(*) AS refused FROM sent WHERE name = 'b' AND status = 422;
-- the longer, the less often
UPDATE enterprise_connection_requests SET created_at = created_at - interval '1 h' WHERE key = 'b';
CALL pg_temp.hurry('b');
CALL deliver_enterprise_connections();
SELECT next_attempt_at - now() BETWEEN interval '25 s' AND interval '1 min' AS seldom, attempts FROM enterprise_connection_requests WHERE key = 'b';
-- it is woken by what it waits for
CALL pg_temp.hurry('a');
CALL deliver_enterprise_connections();
TABLE outbox;
TABLE at_clerk;
-- and if that fails
SELECT pg_temp.busy('a', 1);
SELECT enqueue_enterprise_connection('update', '{"name": "a", "domains": ["a2.example"]}', 'a') AS giver;
SELECT enqueue_enterprise_connection('create', '{"name": "c", "provider": "saml_okta", "domains": ["a.example"]}') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
SELECT mock.script('{"match": {"body_contains": "a2.example"}, "status": 403, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "not allowed", "code": "forbidden"}]}}');
CALL pg_temp.hurry('a');
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
-- nobody is going to give it up
SELECT enqueue_enterprise_connection('update', '{"name": "a", "domains": ["a.example", "a3.example"]}', 'a') AS keeper;
SELECT enqueue_enterprise_connection('create', '{"name": "d", "provider": "saml_okta", "domains": ["a.example"]}') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;

--
-- What it waits for is taken over by a newer one
--
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'moves.example', 'a.example') AS request;
CALL deliver_enterprise_connections();
SELECT pg_temp.busy('first', 1);
SELECT enqueue_enterprise_connection('update', '{"name": "first"}', 'a') AS first;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('a', 'a.example') AS giver;
SELECT pg_temp.upsert('b', 'moves.example') AS taker;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('a', 'a.example') AS newer;
CALL pg_temp.hurry('a');
CALL deliver_enterprise_connections();
CALL deliver_enterprise_connections();
TABLE outbox;
TABLE at_clerk;
-- or cancelled
SELECT pg_temp.busy('a', 1);
SELECT pg_temp.upsert('a', 'a2.example') AS giver;
SELECT pg_temp.upsert('c', 'a.example') AS taker;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;
SELECT cancel_enterprise_connection_request(6);
CALL deliver_enterprise_connections();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 5;

--
-- Each wants what the other has.  If one can give it up first, both get it.
--
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example', 'own.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
BEGIN;
SELECT pg_temp.upsert('a', 'b.example') AS request;
SELECT pg_temp.upsert('b', 'a.example', 'own.example') AS request;
COMMIT;
CALL deliver_enterprise_connections();
TABLE outbox;
TABLE sent;
TABLE at_clerk;
-- If none can, they fail in the end.
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
BEGIN;
SELECT pg_temp.upsert('b', 'a.example') AS request;
SELECT pg_temp.upsert('a', 'b.example') AS request;
COMMIT;
CALL deliver_enterprise_connections();
TABLE outbox;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
CALL pg_temp.deliver_all();
TABLE outbox;
TABLE at_clerk;

-- Nor do they go on for ever if Clerk keeps what it was told to give up.
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'a.example', 'x.example') AS a, pg_temp.upsert('b', 'b.example', 'y.example') AS b;
CALL pg_temp.deliver_all();
SELECT mock.script(jsonb_agg(jsonb_build_object('match', jsonb_build_object('method', 'PATCH', 'body_contains', format('{"domains":["%s"]}', domain)),
    'times', 0, 'headers', '{"Content-Type": "application/json"}'::jsonb, 'body', connection)))
FROM enterprise_connections JOIN (VALUES ('a', 'x.example'), ('b', 'y.example')) AS v (key, domain) USING (key);
SELECT pg_temp.upsert('a', 'x.example', 'b.example') AS a, pg_temp.upsert('b', 'y.example', 'a.example') AS b;
CALL pg_temp.deliver_all();
TABLE outbox;
SELECT * FROM sent OFFSET 2;

--
-- A refused upsert is taken over by a newer one, although it was sent before
--
CALL pg_temp.start_over();
SELECT pg_temp.upsert('a', 'a.example') AS request;
SELECT pg_temp.upsert('b', 'b.example') AS request;
CALL deliver_enterprise_connections();
SELECT mock.forget();
SELECT pg_temp.busy('b', 1);
SELECT enqueue_enterprise_connection('upsert', '{"name": "b", "domains": ["a.example"], "syncUserAttributes": false}', 'b') AS request;
CALL deliver_enterprise_connections();
SELECT pg_temp.upsert('b', 'b2.example') AS request;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM mock.requests();

-- or by a delete
SELECT mock.forget();
SELECT enqueue_enterprise_connection('update', '{"domains": ["a.example"]}', 'b') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT enqueue_enterprise_connection('create', '{"name": "c", "provider": "saml_okta", "domains": ["a.example"]}', 'c') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'c') AS request;
COMMIT;
CALL pg_temp.deliver_all();
SELECT * FROM outbox WHERE id > 4;
SELECT method, status FROM mock.requests();
-- not by an update
SELECT pg_temp.upsert('d', 'a.example') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "d"}', 'd') AS request;
CALL pg_temp.deliver_all();
SELECT * FROM outbox WHERE id > 8;

--
-- Somebody got the domain, but that is not known: his worker was killed
--
CALL pg_temp.start_over();
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
CALL pg_temp.hurry('a');
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 2;
TABLE sent;
TABLE at_clerk;

--
-- An organization that may have one connection only
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', '{"name": "a", "provider": "saml_okta", "domains": ["a.example"], "organizationId": "org_1"}', 'a') AS request;
CALL deliver_enterprise_connections();
SELECT mock.script('{"match": {"body_contains": "b.example"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "has one", "code": "organization_already_has_sso_connection"}]}}');
BEGIN;
SELECT enqueue_enterprise_connection('create', '{"name": "b", "provider": "saml_okta", "domains": ["b.example"], "organizationId": "org_1"}') AS taker;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS giver;
COMMIT;
CALL deliver_enterprise_connections();
TABLE outbox;
TABLE at_clerk;

ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
ALTER SYSTEM RESET pg_clerk.max_attempts;
CALL pg_temp.reloaded('pg_clerk.max_attempts', '20');
