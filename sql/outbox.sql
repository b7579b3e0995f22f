-- The outbox: what is enqueued is delivered after commit, once, in order.
-- There is no worker here: CALL deliver_enterprise_connections() delivers.
SET timezone = 'UTC';
SET statement_timeout = '60s';
SET client_min_messages = warning;      -- no "drop cascades to"
\set VERBOSITY default

-- The outbox; what libcurl says, and trace ids, are masked.
CREATE TEMP VIEW outbox AS
SELECT id, operation, key, state, attempts, step, http_status AS http, connection_id,
       regexp_replace(regexp_replace(error->>'message', '^could not (\w+) the enterprise connection: ', '\1: '), '\n.*', '') AS error
FROM enterprise_connection_requests ORDER BY id;
-- Forget everything, here and at Clerk.
CREATE PROCEDURE pg_temp.start_over() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.reset();
    UPDATE asked SET requests = 0;
    TRUNCATE enterprise_connections, enterprise_connection_requests, enterprise_connection_pauses RESTART IDENTITY;
END
$$;
-- The time of what waits has come.
CREATE PROCEDURE pg_temp.hurry() LANGUAGE sql AS $$
    UPDATE enterprise_connection_requests SET next_attempt_at = now()
    WHERE state IN ('queued', 'in_doubt') AND next_attempt_at <> 'infinity'
$$;
-- Deliver again and again, as pg_cron would, until a request is in that state.
CREATE PROCEDURE pg_temp.deliver_until(request bigint, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..200 LOOP
        CALL deliver_enterprise_connections();
        IF (SELECT state FROM enterprise_connection_requests WHERE id = request) = wanted THEN
            RETURN;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RAISE 'request % is not %', request, wanted;
END
$$;
-- After ALTER SYSTEM: until a setting is what is wanted.
CREATE PROCEDURE pg_temp.reloaded(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_reload_conf();
    -- delivering, a session takes notice in the middle of a statement, too
    FOR i IN 1..1000 LOOP
        CALL deliver_enterprise_connections();
        EXIT WHEN current_setting(name) = wanted;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
-- What was sent since it was last asked.
CREATE TEMP TABLE asked (requests int);
INSERT INTO asked VALUES (0);
CREATE FUNCTION pg_temp.sent() RETURNS TABLE (method text, target text, body jsonb, status int)
LANGUAGE plpgsql AS $$
DECLARE
    already int := (SELECT requests FROM asked);
    more int;
BEGIN
    RETURN QUERY SELECT r.method, r.target, r.body, r.status FROM mock.requests() AS r OFFSET already;
    GET DIAGNOSTICS more = ROW_COUNT;
    UPDATE asked SET requests = already + more;
END
$$;
-- What a statement fails with.
CREATE FUNCTION pg_temp.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    detail := regexp_replace(detail, '^Trace id: .*', 'Trace id: <id>', 'n');
END
$$;
-- The parameters of a connection with one domain.
CREATE FUNCTION pg_temp.params(name text, domain text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_build_object('name', name, 'provider', 'saml_okta', 'domains', jsonb_build_array(coalesce(domain, lower(name) || '.example'))) || more
$$;
CALL pg_temp.start_over();
-- One at a time, so that what is sent is sent in order.
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
ALTER SYSTEM SET pg_clerk.naptime = '500ms';
CALL pg_temp.reloaded('pg_clerk.naptime', '500ms');

--
-- The four operations
--
-- the first time, somebody has to be told
SELECT enqueue_enterprise_connection('create', '{"name": "Created", "provider": "saml_okta", "domains": ["created.example"]}') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('Keyed'), 'keyed') AS request;
SELECT enqueue_enterprise_connection(operation => 'upsert', params => pg_temp.params('Upserted'), key => 'upserted', server => 'clerk') AS request;
-- nothing is sent before that
SELECT count(*) AS sent FROM pg_temp.sent();
SELECT server, role = current_user AS mine, state, attempts, next_attempt_at = created_at AS due, started_at, finished_at, params FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT * FROM pg_temp.sent();
SELECT id, key, name, connection = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = e.id) AS whole_object FROM enterprise_connections AS e ORDER BY id;
SELECT bool_and(created_at <= started_at AND started_at <= finished_at) AS in_time FROM enterprise_connection_requests;
-- by key or by id; the name of a parameter is spelt as everywhere
SELECT enqueue_enterprise_connection('update', '{"name": "Created 2"}', id => (SELECT id FROM enterprise_connections WHERE name = 'Created')) AS request;
SELECT enqueue_enterprise_connection('update', '{"syncUserAttributes": false}', 'keyed') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Upserted 2"}', 'upserted') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"provider": "saml_okta"}', 'keyed') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
SELECT * FROM pg_temp.sent();
SELECT id, key, name, sync_user_attributes FROM enterprise_connections ORDER BY id;
SELECT enqueue_enterprise_connection('delete', id => (SELECT id FROM enterprise_connections WHERE name = 'Created 2')) AS request;
SELECT enqueue_enterprise_connection('delete', key => 'keyed') AS request;
SELECT enqueue_enterprise_connection('delete', NULL, 'upserted') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 7;
SELECT * FROM pg_temp.sent();
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- nothing left, nothing sent
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM pg_temp.sent();

--
-- What is wrong is found when it is enqueued
--
\x on
SELECT s.statement, f.* FROM (VALUES
    ($$SELECT enqueue_enterprise_connection(NULL)$$),
    ($$SELECT enqueue_enterprise_connection('drop', '{"name": "x"}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('Create', '{"name": "x"}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('create', '{"name": "x"}', id => 'entconn_1')$$),
    ($$SELECT enqueue_enterprise_connection('upsert', '{"name": "x"}', 'k', 'entconn_1')$$),
    ($$SELECT enqueue_enterprise_connection('upsert', '{"name": "x"}')$$),
    ($$SELECT enqueue_enterprise_connection('update', '{"name": "x"}')$$),
    ($$SELECT enqueue_enterprise_connection('update', '{"name": "x"}', 'k', 'entconn_1')$$),
    ($$SELECT enqueue_enterprise_connection('delete')$$),
    ($$SELECT enqueue_enterprise_connection('delete', '{}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('create')$$),
    ($$SELECT enqueue_enterprise_connection('create', '[]')$$),
    ($$SELECT enqueue_enterprise_connection('create', '{"nmae": "x", "provider": "saml_okta", "domains": ["x.example"]}')$$),
    ($$SELECT enqueue_enterprise_connection('create', '{"name": 7, "provider": "saml_okta", "domains": ["x.example"]}')$$),
    ($$SELECT enqueue_enterprise_connection('update', '{}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('update', '{"provider": "saml_okta"}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('upsert', NULL, 'k')$$),
    ($$SELECT enqueue_enterprise_connection('upsert', '{}', 'k')$$),
    ($$SELECT enqueue_enterprise_connection('delete', key => 'k', server => 'no such')$$),
    ($$SELECT await_enterprise_connection(4711)$$),
    ($$SELECT retry_enterprise_connection_request(4711)$$),
    ($$SELECT cancel_enterprise_connection_request(4711)$$)
) AS s (statement), pg_temp.failure(statement) AS f;
\x off
SELECT count(*) AS enqueued FROM outbox WHERE id > 10;
BEGIN READ ONLY;
SELECT enqueue_enterprise_connection('delete', key => 'k');
\echo :SQLSTATE
ROLLBACK;
SELECT await_enterprise_connection(NULL) IS NULL AS nothing, retry_enterprise_connection_request(NULL) AS nothing, cancel_enterprise_connection_request(NULL) AS nothing;
-- it commits as it goes: not in a transaction block, nor in a function
BEGIN;
CALL deliver_enterprise_connections();
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM pg_temp.failure('CALL deliver_enterprise_connections()') \gx
SET default_transaction_read_only = on;
CALL deliver_enterprise_connections();
\echo :SQLSTATE
RESET default_transaction_read_only;

--
-- With its transaction, or not at all
--
CALL pg_temp.start_over();
BEGIN;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Never'), 'never') AS request;
ROLLBACK;
BEGIN;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Kept'), 'kept') AS request;
SAVEPOINT s;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Never'), 'never') AS request;
ROLLBACK TO s;
COMMIT;
CALL deliver_enterprise_connections();
SELECT operation, key, state FROM outbox;
SELECT method, body->>'name' AS name FROM pg_temp.sent();
-- prepared
BEGIN;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Prepared'), 'prepared') > 0 AS enqueued;
PREPARE TRANSACTION 'regress_outbox';
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM pg_temp.sent();
COMMIT PREPARED 'regress_outbox';
CALL deliver_enterprise_connections();
SELECT method, body->>'name' AS name FROM pg_temp.sent();
-- in any isolation level
SET default_transaction_isolation = 'serializable';
SELECT enqueue_enterprise_connection('upsert', '{"name": "Serializable"}', 'kept') > 0 AS enqueued;
CALL deliver_enterprise_connections();
SET default_transaction_isolation = 'repeatable read';
SELECT enqueue_enterprise_connection('upsert', '{"name": "Repeatable"}', 'kept') > 0 AS enqueued;
CALL deliver_enterprise_connections();
RESET default_transaction_isolation;
SELECT method, body->>'name' AS name FROM pg_temp.sent();
-- from PL/pgSQL, too
SELECT enqueue_enterprise_connection('upsert', '{"name": "Done"}', 'kept') > 0 AS enqueued;
DO $$BEGIN CALL deliver_enterprise_connections(); END$$;
SELECT method, body->>'name' AS name FROM pg_temp.sent();

--
-- Refused for good: failed, kept, with the reason
--
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"clerk_trace_id": "t1", "errors": [{"message": "is wrong", "long_message": "Name is wrong.", "code": "form_param_value_invalid", "meta": {"param_name": "name"}}]}}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Wrong', more => '{"organizationId": "org_1"}'), 'wrong') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT jsonb_pretty(error) AS error, finished_at IS NOT NULL AS finished FROM enterprise_connection_requests;
CALL deliver_enterprise_connections();
SELECT method, status FROM pg_temp.sent();
-- it does not block its key
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Right'), 'wrong') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, status, body FROM pg_temp.sent();

--
-- 404
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params(name), lower(name)) AS request FROM unnest('{A,B,C,D}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B 2', 'b.example'), 'b') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'c') AS request;
-- an upsert is enqueued with what it takes to create, but this one was not
SELECT enqueue_enterprise_connection('upsert', '{"name": "D 2"}', 'd') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT * FROM pg_temp.sent();
SELECT id, key, name FROM enterprise_connections ORDER BY key;

--
-- No connection of that key, or one too many
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('create', pg_temp.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
SELECT enqueue_enterprise_connection('delete', key => 'unknown') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "x"}', 'unknown') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('A 2'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 1;
SELECT count(*) AS sent FROM pg_temp.sent();
SELECT id, error->>'sqlstate' AS sqlstate, error->>'hint' AS hint FROM enterprise_connection_requests WHERE state = 'failed' ORDER BY id;
-- the key is free again
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('A 3', 'a.example'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT id, key, name FROM enterprise_connections;

--
-- No key that works: the server pauses, and nothing is counted
--
CALL pg_temp.start_over();
SELECT mock.settings('{"secret_keys": ["sk_test_rotated"]}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('N' || n), 'n' || n) AS request FROM generate_series(1, 3) AS n;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, http, error FROM outbox;
SELECT method, status FROM pg_temp.sent();
SELECT server, since IS NOT NULL AS since, reason FROM enterprise_connection_pauses;
SELECT server, state, requests, paused_since IS NOT NULL AS paused, paused_why FROM enterprise_connection_queue;
-- at once, when the mapping changes
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_rotated');
CALL deliver_enterprise_connections();
SELECT id, state, attempts, http, error FROM outbox;
SELECT method, status FROM pg_temp.sent();
SELECT count(*) AS paused FROM enterprise_connection_pauses;
SELECT server, state, requests, paused_since, paused_why FROM enterprise_connection_queue;
-- no key at all
SELECT mock.settings('{"secret_keys": ["sk_test_mock"]}');
DROP USER MAPPING FOR PUBLIC SERVER clerk;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('K'), 'k') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, error FROM outbox WHERE id = 4;
SELECT count(*) AS sent FROM pg_temp.sent();
SELECT paused_why FROM enterprise_connection_queue WHERE state = 'queued';
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CALL deliver_enterprise_connections();
SELECT id, state, attempts, error FROM outbox WHERE id = 4;
SELECT count(*) AS paused FROM enterprise_connection_pauses;

--
-- Nothing has happened: again, later
--
CALL pg_temp.start_over();
SELECT mock.script('[
    {"match": {"body_contains": "S503"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}},
    {"match": {"body_contains": "S408"}, "status": 408, "body": ""},
    {"match": {"body_contains": "S409"}, "status": 409, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "locked", "code": "resource_locked"}]}}]');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('S' || s), 's' || s) AS request FROM unnest('{503,408,409}'::text[]) AS s;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '0.4 s' AND r.started_at + '30 s' AS soon FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) ORDER BY id;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();
-- each time, twice as long; then it fails
ALTER SYSTEM SET pg_clerk.max_attempts = 3;
CALL pg_temp.reloaded('pg_clerk.max_attempts', '3');
SELECT mock.script('{"match": {"method": "PATCH"}, "times": 0, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
SELECT enqueue_enterprise_connection('upsert', '{"name": "In vain"}', 's503') AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '0.9 s' AND r.started_at + '30 s' AS later FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) WHERE id = 4;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 4;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();
SELECT mock.unscript();
-- it stays until it is tried again, or cancelled
SELECT retry_enterprise_connection_request(4);
SELECT * FROM outbox WHERE id = 4;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 4;
-- so does a create whose outcome is unknown each time
SELECT mock.script('{"match": {"method": "POST"}, "times": 0, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Never')) AS request;
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(5, 'in_doubt');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(5, 'in_doubt');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(5, 'failed');
SELECT * FROM outbox WHERE id = 5;
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1 DESC;
-- so does an upsert of what Clerk lists, refuses to create, and says is gone
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
DELETE FROM enterprise_connection_requests;
SELECT mock.script('{"match": {"method": "PATCH"}, "times": 0, "status": 404, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "gone", "code": "resource_not_found"}]}}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A', more => '{"active": false}'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox;
SELECT method, status FROM pg_temp.sent();
ALTER SYSTEM RESET pg_clerk.max_attempts;
CALL pg_temp.reloaded('pg_clerk.max_attempts', '20');
-- a server that has said 429 is left alone as long as it wants, but nobody waits for that
SET statement_timeout = '10s';
CALL pg_temp.start_over();
SELECT url FROM mock.server \gset
CREATE SERVER regress_limited FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', max_concurrency '1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_limited OPTIONS (secret_key 'sk_test_mock');
SELECT mock.script('{"status": 429, "headers": {"Retry-After": "120", "Content-Type": "application/json"}, "body": {"errors": [{"message": "Too many requests", "code": "too_many_requests"}]}}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Limited'), 'limited', server => 'regress_limited') AS request;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '119 s' AND r.started_at + '150 s' AS as_told FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id);
-- but the other servers are not
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Free'), 'free') AS request;
CALL deliver_enterprise_connections();
SELECT id, key, state FROM outbox;
DROP SERVER regress_limited CASCADE;
SET statement_timeout = '60s';
-- with a date, too
CREATE SERVER regress_limited FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', max_concurrency '1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_limited OPTIONS (secret_key 'sk_test_mock');
CALL pg_temp.start_over();
SELECT mock.script(jsonb_build_object('status', 503, 'body', '{"errors": [{"message": "busy", "code": "service_unavailable"}]}'::jsonb,
    'headers', jsonb_build_object('Content-Type', 'application/json', 'Retry-After', to_char(now() AT TIME ZONE 'UTC' + '200 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'))));
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Limited'), 'limited', server => 'regress_limited') AS request;
CALL deliver_enterprise_connections();
SELECT o.*, next_attempt_at BETWEEN r.started_at + '150 s' AND r.started_at + '250 s' AS as_told FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id);
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
SELECT id, key, state, attempts FROM outbox;
DROP SERVER regress_limited CASCADE;

--
-- Nobody knows whether it has happened: looked up at Clerk, then sent again only if it is not there
--
CALL pg_temp.start_over();
SELECT mock.script('[
    {"match": {"method": "POST", "body_contains": "U500"}, "status": 500, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N500"}, "status": 500, "body": ""},
    {"match": {"method": "POST", "body_contains": "U502"}, "status": 502, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N502"}, "status": 502, "body": ""},
    {"match": {"method": "POST", "body_contains": "U504"}, "status": 504, "apply": true, "body": ""},
    {"match": {"method": "POST", "body_contains": "N504"}, "status": 504, "body": ""},
    {"match": {"method": "POST", "body_contains": "UReset"}, "reset": "after"},
    {"match": {"method": "POST", "body_contains": "NReset"}, "reset": "before"}]');
SELECT enqueue_enterprise_connection('create', pg_temp.params(name)) AS request FROM unnest('{U500,N500,U502,N502,U504,N504,UReset,NReset}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, step, http, next_attempt_at >= started_at + '29 s' AS lease, doubt_since = started_at AS since FROM outbox JOIN enterprise_connection_requests USING (id, state, attempts, step) ORDER BY id;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- not before the first request cannot be on its way any more
CALL deliver_enterprise_connections();
SELECT count(*) AS received FROM pg_temp.sent();
CALL pg_temp.hurry();
-- one listing for all of them
CALL pg_temp.deliver_until(8, 'delivered');
SELECT id, state, attempts, step, http, connection_id IS NOT NULL AS known, error FROM outbox;
SELECT method, target, body->>'name' AS name, status FROM pg_temp.sent() ORDER BY method, name;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk, bool_and(e.connection = m) AS as_at_clerk
FROM enterprise_connections AS e FULL JOIN mock.connections() AS m ON e.id = m->>'id';
-- the lease is the server's time-out
ALTER SERVER clerk OPTIONS (ADD timeout '500ms');
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Short')) AS request;
CALL deliver_enterprise_connections();
SELECT state, next_attempt_at < started_at + '2 s' AS short FROM enterprise_connection_requests WHERE id = 9;
ALTER SERVER clerk OPTIONS (DROP timeout);
CALL pg_temp.deliver_until(9, 'delivered');
SELECT method, status FROM pg_temp.sent();
-- no answer in that time: the request may still be on its way
ALTER SERVER clerk OPTIONS (ADD timeout '1s');
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "delay_after_ms": 3000}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Late')) AS request;
CALL deliver_enterprise_connections();
ALTER SERVER clerk OPTIONS (DROP timeout);
CALL pg_temp.deliver_until(10, 'delivered');
SELECT method FROM pg_temp.sent();
-- an upsert that is found gets its parameters by a PATCH
SELECT mock.script('{"match": {"method": "POST"}, "reset": "after"}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Lost'), 'lost') AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(11, 'delivered');
SELECT method, status, body FROM pg_temp.sent();
SELECT key, name FROM enterprise_connections WHERE key IS NOT NULL;
-- one that somebody else has made is not taken for it
CALL pg_temp.start_over();
SELECT create_enterprise_connection(name => 'Twin', provider => 'saml_okta', domains => '{twin.example}')->>'id' AS id;
SELECT adopt_enterprise_connection('other', 'entconn_000001')->>'id' AS id;
SELECT mock.script('{"match": {"method": "POST"}, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Twin')) AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'failed');
TABLE outbox;
SELECT id, key FROM enterprise_connections;
-- the look-up fails: again and again
CALL pg_temp.start_over();
SELECT mock.script('[{"match": {"method": "POST"}, "status": 500, "body": ""}, {"match": {"method": "GET"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}, "times": 2}]');
SELECT enqueue_enterprise_connection('create', pg_temp.params('A')) AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step, http, error FROM outbox;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step FROM outbox;
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
SELECT method, status FROM pg_temp.sent();
-- its key is refused meanwhile: the server pauses, the doubt stays
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('A')) AS request;
CALL deliver_enterprise_connections();
SELECT mock.settings('{"secret_keys": ["sk_test_rotated"]}');
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT state, attempts, step FROM outbox;
SELECT server, reason FROM enterprise_connection_pauses;
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_rotated');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
SELECT method, status FROM pg_temp.sent();
SELECT count(*) AS paused FROM enterprise_connection_pauses;
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_mock');
-- there is no key meanwhile, or who enqueued it may not any more: the doubt stays, too
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "times": 2, "apply": true, "status": 500, "body": ""}');
CREATE ROLE regress_doubt;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_doubt;
SELECT enqueue_enterprise_connection('create', pg_temp.params('A')) AS request;
SET ROLE regress_doubt;
SELECT enqueue_enterprise_connection('create', '{"name": "B", "provider": "saml_okta", "domains": ["b.example"]}') AS request;
RESET ROLE;
CALL deliver_enterprise_connections();
DROP USER MAPPING FOR PUBLIC SERVER clerk;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_doubt;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(2, 'failed');
SELECT id, state, attempts, step, doubt_since IS NOT NULL AS doubt, o.error FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id, state, attempts, step) ORDER BY id;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_doubt;
SELECT retry_enterprise_connection_request(2);
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(2, 'delivered');
SELECT id, state, attempts, error FROM outbox;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();
SELECT count(*) AS at_clerk FROM mock.connections();
DROP OWNED BY regress_doubt;
DROP ROLE regress_doubt;
-- an update or a delete may be sent twice
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params(name), lower(name)) AS request FROM unnest('{A,B}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
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
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 2;
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT key, name FROM enterprise_connections;

--
-- A create that needs a PATCH after it: two steps
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('create', pg_temp.params('A', more => '{"syncUserAttributes": false}')) AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM pg_temp.sent();
SELECT sync_user_attributes FROM enterprise_connections;
-- the second fails alone, and is sent again alone; until then the connection is known as it is
SELECT mock.script('[{"match": {"method": "PATCH"}, "status": 500, "body": ""}, {"match": {"method": "PATCH"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B', more => '{"syncUserAttributes": false}'), 'b') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT key, name, sync_user_attributes FROM enterprise_connections WHERE key = 'b';
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT retry_enterprise_connection_request(2);
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 2;
SELECT method, body, status FROM pg_temp.sent();
SELECT key, name, sync_user_attributes FROM enterprise_connections WHERE key = 'b';
-- with other parameters: all of them count
SELECT mock.script('[{"match": {"method": "PATCH"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
SELECT enqueue_enterprise_connection('create', pg_temp.params('C', more => '{"syncUserAttributes": false}')) AS request;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
SELECT retry_enterprise_connection_request(3, pg_temp.params('C 2', 'c.example'));
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id = 3;
SELECT method, body, status FROM pg_temp.sent();
SELECT name FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name);
-- the create was lost: found, then completed
SELECT mock.script('{"match": {"method": "POST"}, "reset": "after"}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('D', more => '{"syncUserAttributes": false}'), 'd') AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(4, 'delivered');
SELECT method, body, status FROM pg_temp.sent();

--
-- In order by key
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('create', pg_temp.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 3"}', 'a') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A 4', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('B'), 'b') AS request;
SELECT mock.script('{"match": {"body_contains": "A 2"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
-- what stands behind waits; the other key does not
SELECT o.*, next_attempt_at = 'infinity' AS behind FROM outbox AS o JOIN enterprise_connection_requests AS r USING (id) ORDER BY id;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();
SELECT id, key, name FROM enterprise_connections ORDER BY key;
-- by its id, too, it is the same lane
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 2"}', 'b') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "B 3"}', id => id) AS request FROM enterprise_connections WHERE key = 'b';
SELECT enqueue_enterprise_connection('upsert', '{"name": "B 4"}', 'b') AS request;
SELECT mock.script('{"match": {"body_contains": "B 2"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM pg_temp.sent();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 6;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();

--
-- Upserts in a row that were not sent yet become one, with the parameters of all
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 1", "provider": "oidc_custom", "domains": ["a1.example"], "oidc": {"clientId": "c1", "clientSecret": "s3cr3t 1", "discoveryUrl": "https://idp.example/1"}}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 2", "syncUserAttributes": false}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"domains": ["a3.example"], "oidc": {"clientId": "c3"}, "organizationId": "org_1"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B'), 'b') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT id, superseded_by, finished_at IS NOT NULL AS finished, params FROM enterprise_connection_requests ORDER BY id;
SELECT method, body, status FROM pg_temp.sent();
-- not over something else, nor one that was sent
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 5"}', 'a') AS request;
SELECT mock.script('{"match": {"body_contains": "A 5"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}');
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 6"}', 'a') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "A 7"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 8"}', 'a') AS request;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT method, body, status FROM pg_temp.sent();

--
-- A domain that moves from one key to another
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A', 'moves.example'), 'a') AS request;
CALL deliver_enterprise_connections();
BEGIN;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B', 'moves.example'), 'b') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A', 'new.example'), 'a') AS request;
COMMIT;
CALL deliver_enterprise_connections();
TABLE outbox;
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
TABLE outbox;
BEGIN;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('C', 'moves.example'), 'c') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b') AS request;
COMMIT;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
SELECT method, body->>'name' AS name, body->'domains' AS domains, status FROM pg_temp.sent();
SELECT key, domains FROM enterprise_connections ORDER BY key;
-- for good: nobody is going to give it up
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('D', 'moves.example'), 'd') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('E', 'moves.example')) AS request;
CALL pg_temp.deliver_until(6, 'failed');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(7, 'failed');
SELECT id, operation, key, state, step, http, connection_id, error FROM outbox WHERE id > 5;

--
-- What an earlier call at once has left is adopted
--
CALL pg_temp.start_over();
SET pg_clerk.on_rollback = 'ignore';
BEGIN;
SELECT upsert_enterprise_connection('a', pg_temp.params('A'))->>'id' AS id;
ROLLBACK;
RESET pg_clerk.on_rollback;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), 'a') AS request;
CALL pg_temp.deliver_until(1, 'delivered');
SELECT state, attempts, step, connection_id FROM outbox;
SELECT method, status FROM pg_temp.sent();
SELECT id, key, name FROM enterprise_connections;

--
-- Secrets are there as long as they are needed
--
CALL pg_temp.start_over();
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
SELECT body->'oidc' AS oidc, status FROM pg_temp.sent();

--
-- Retention
--
ALTER SYSTEM SET pg_clerk.retention = '1h';
CALL pg_temp.reloaded('pg_clerk.retention', '1h');
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
SELECT body->'oidc' AS oidc, status FROM pg_temp.sent();
ALTER SYSTEM RESET pg_clerk.retention;
CALL pg_temp.reloaded('pg_clerk.retention', '7d');

--
-- Await
--
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), 'a') AS request;
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
SELECT * FROM pg_temp.failure('SELECT await_enterprise_connection(5)') \gx
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
SELECT enqueue_enterprise_connection('create', pg_temp.params('A 6'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.failure('SELECT await_enterprise_connection(6)') \gx
-- cancelled
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 7"}', 'a') AS request;
SELECT cancel_enterprise_connection_request(7);
SELECT * FROM pg_temp.failure('SELECT await_enterprise_connection(7)') \gx
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
CALL pg_temp.start_over();
SELECT mock.script('{"times": 3, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B'), 'b') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('C'), 'c') AS request;
SELECT pg_temp.failure('SELECT retry_enterprise_connection_request(1)');
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
SELECT retry_enterprise_connection_request(1);
SELECT state, attempts, finished_at, next_attempt_at <= clock_timestamp() AS due FROM enterprise_connection_requests WHERE id = 1;
SELECT retry_enterprise_connection_request(2, pg_temp.params('B 2', 'b.example'));
SELECT retry_enterprise_connection_request(id => 3, params => '{"nmae": "x"}');
\echo :SQLSTATE
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, body, status FROM pg_temp.sent();
SELECT pg_temp.failure('SELECT retry_enterprise_connection_request(1)');
-- overtaken
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('C 2'), 'c') AS request;
SELECT * FROM pg_temp.failure('SELECT retry_enterprise_connection_request(3)') \gx
-- but not by one that was cancelled
SELECT cancel_enterprise_connection_request(4);
SELECT retry_enterprise_connection_request(3);
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 2;

--
-- Cancel
--
CALL pg_temp.start_over();
SELECT mock.script('[{"match": {"body_contains": "A 1"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}, {"match": {"body_contains": "Failing"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}},
    {"match": {"body_contains": "Doubtful"}, "status": 500, "body": ""}]');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A 1', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('Failing')) AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('Doubtful')) AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A 2', 'a.example'), 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A 3', 'a.example'), 'a') AS request;
SELECT cancel_enterprise_connection_request(2);
SELECT * FROM pg_temp.failure('SELECT cancel_enterprise_connection_request(3)') \gx
SELECT cancel_enterprise_connection_request(4);
-- the lane is free again
SELECT next_attempt_at FROM enterprise_connection_requests WHERE id = 5;
SELECT cancel_enterprise_connection_request(1);
SELECT next_attempt_at <= clock_timestamp() AS due FROM enterprise_connection_requests WHERE id = 5;
SELECT id, state, finished_at IS NOT NULL AS finished FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts FROM outbox;
SELECT pg_temp.failure('SELECT cancel_enterprise_connection_request(1)');
SELECT pg_temp.failure('SELECT cancel_enterprise_connection_request(5)');
-- rolled back, it is not cancelled
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 4"}', 'a') AS request;
BEGIN;
SELECT cancel_enterprise_connection_request(6);
ROLLBACK;
CALL deliver_enterprise_connections();
SELECT id, key, state, attempts FROM outbox WHERE id = 6;

--
-- Privileges
--
CALL pg_temp.start_over();
SELECT url FROM mock.server \gset
CREATE SERVER regress_other FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', max_concurrency '1');
CREATE USER MAPPING FOR PUBLIC SERVER regress_other OPTIONS (secret_key 'sk_test_mock');
CREATE ROLE regress_nobody;
CREATE ROLE regress_app;
CREATE ROLE regress_app_2;
CREATE ROLE regress_both IN ROLE regress_app, regress_app_2;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_app, regress_app_2;
GRANT USAGE ON FOREIGN SERVER regress_other TO regress_app;
SET ROLE regress_nobody;
SELECT enqueue_enterprise_connection('delete', key => 'a');
\echo :SQLSTATE
SET ROLE regress_app;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App", "provider": "saml_okta", "domains": ["app.example"]}', 'app') AS request;
SET ROLE regress_app_2;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App 2", "provider": "saml_okta", "domains": ["app2.example"]}', 'app 2') AS request;
RESET ROLE;
-- each sees its own
SET ROLE regress_nobody;
SELECT id, role FROM enterprise_connection_requests;
SELECT request FROM enterprise_connection_status;
SELECT * FROM enterprise_connection_queue;
SELECT await_enterprise_connection(1);
SELECT retry_enterprise_connection_request(1);
SELECT cancel_enterprise_connection_request(1);
SELECT FROM enterprise_connection_pauses;
SELECT enterprise_connection_claim('clerk', 1, 1, 1, 1, NULL, '1 s', '{}', NULL);
UPDATE enterprise_connection_requests SET state = 'cancelled';
SET ROLE regress_app;
SELECT id, role FROM enterprise_connection_requests;
SELECT request FROM enterprise_connection_status;
SELECT server, state, requests FROM enterprise_connection_queue;
SELECT cancel_enterprise_connection_request(2);
DELETE FROM enterprise_connection_requests;
SET ROLE regress_both;
SELECT id, role FROM enterprise_connection_requests ORDER BY id;
SELECT server, state, requests FROM enterprise_connection_queue;
-- who watches sees how many, but no parameters
SET ROLE regress_monitor;
SELECT id FROM enterprise_connection_requests;
SELECT request, key FROM enterprise_connection_status ORDER BY request;
SELECT server, state, requests FROM enterprise_connection_queue;
-- each delivers its own
SET ROLE regress_nobody;
CALL deliver_enterprise_connections();
SET ROLE regress_app;
CALL deliver_enterprise_connections();
RESET ROLE;
SELECT id, key, state FROM outbox;
SET ROLE regress_both;
CALL deliver_enterprise_connections();
RESET ROLE;
SELECT id, key, state FROM outbox;
SELECT body->>'name' AS name, status FROM pg_temp.sent();
-- all of them, even if they may not all go at once
ALTER SERVER clerk OPTIONS (SET rate_limit '20');
SET ROLE regress_app;
SELECT count(enqueue_enterprise_connection('delete', key => 'unknown ' || n)) FROM generate_series(1, 3) AS n;
SELECT count(enqueue_enterprise_connection('update', '{"name": "App"}', id => 'entconn_000001')) FROM generate_series(1, 25) AS n;
CALL deliver_enterprise_connections();
RESET ROLE;
ALTER SERVER clerk OPTIONS (SET rate_limit '0');
SELECT state, count(*) FROM outbox WHERE id > 2 GROUP BY 1;
-- nor does it look up what is others'
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Doubtful')) AS request;
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
SET ROLE regress_app;
CALL deliver_enterprise_connections();
RESET ROLE;
SELECT id, state FROM outbox;
SELECT count(*) AS sent FROM pg_temp.sent();
-- upserts of one key become one, but not those of two roles: neither gets the other's parameters, or acts with its privileges
CALL pg_temp.start_over();
SET ROLE regress_app;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App", "provider": "oidc_custom", "domains": ["shared.example"], "oidc": {"clientId": "c", "clientSecret": "s3cr3t", "discoveryUrl": "https://idp.example"}}', 'shared') AS request;
SET ROLE regress_app_2;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App 2"}', 'shared') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"syncUserAttributes": false}', 'shared') AS request;
SET ROLE regress_app;
CALL deliver_enterprise_connections();
RESET ROLE;
SELECT id, role, state, superseded_by, params FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT id, role, state, superseded_by, params FROM enterprise_connection_requests ORDER BY id;
SELECT method, body FROM pg_temp.sent();
-- who waits for a request that another role's delete has superseded, is told so
CALL pg_temp.start_over();
SET ROLE regress_app;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App", "provider": "saml_okta", "domains": ["app.example"]}', 'shared') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Other", "provider": "saml_okta", "domains": ["other.example"]}', 'other') AS request;
RESET ROLE;
CALL deliver_enterprise_connections();
SET ROLE regress_app;
SELECT enqueue_enterprise_connection('update', '{"domains": ["other.example"]}', 'shared') AS request;
SET ROLE regress_app_2;
SELECT enqueue_enterprise_connection('delete', key => 'shared') AS request;
RESET ROLE;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox;
SET ROLE regress_app;
SELECT await_enterprise_connection(3);
RESET ROLE;
-- what is not allowed any more, or not there any more
CALL pg_temp.start_over();
SET ROLE regress_app;
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Other", "provider": "saml_okta", "domains": ["other.example"]}', 'a', server => 'regress_other') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'b', server => 'regress_other') AS request;
SET ROLE regress_app_2;
SELECT enqueue_enterprise_connection('upsert', '{"name": "App 2", "provider": "saml_okta", "domains": ["app2.example"]}', 'b') AS request;
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_app;
DROP OWNED BY regress_app_2;
DROP ROLE regress_app_2;
DROP SERVER regress_other CASCADE;
CALL deliver_enterprise_connections();
SELECT id, state, attempts, r.error->>'sqlstate' AS sqlstate, r.error->>'message' AS message, r.error->>'hint' AS hint FROM enterprise_connection_requests AS r ORDER BY id;
SELECT count(*) AS sent FROM pg_temp.sent();
-- only a superuser knows whose it was
SET ROLE regress_app;
SELECT id, role FROM enterprise_connection_requests ORDER BY id;
SELECT cancel_enterprise_connection_request(4);
RESET ROLE;
SELECT cancel_enterprise_connection_request(4);
DROP OWNED BY regress_app;
DROP ROLE regress_nobody, regress_app, regress_both, regress_monitor;

--
-- Clerk asks for no more requests: a direct call does not wait longer than it may take; another setting ends that
--
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"body_contains": "Limited"}, "status": 429, "headers": {"Retry-After": "99999"}, "body": {"errors": []}}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Limited')) AS request;
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
-- In a copy of the database nothing is sent until it is armed
--
CALL pg_temp.start_over();
SELECT mock.script('[{"match": {"body_contains": "Lost"}, "reset": "after"}, {"match": {"body_contains": "Later"}, "status": 503, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "busy", "code": "service_unavailable"}]}}]');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Lost')) AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Later'), 'later') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('New'), 'new') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "Later 2"}', 'later') AS request;
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
ALTER SERVER clerk OPTIONS (SET origin '1/1/1');
CALL deliver_enterprise_connections();
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT count(*) AS sent FROM pg_temp.sent();
-- what is enqueued here is held at once
SET client_min_messages = notice;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Held'), 'held') AS request;
SET client_min_messages = warning;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Cancelled'), 'cancelled') AS request;
SELECT state, shown FROM outbox JOIN (SELECT request AS id, state AS shown FROM enterprise_connection_status) s USING (id) WHERE id = 5;
SELECT await_enterprise_connection(5, '10 ms') IS NULL AS not_yet;
SELECT cancel_enterprise_connection_request(6);
SELECT server, state, requests FROM enterprise_connection_queue ORDER BY state;
-- armed, they go on: what may have been created is looked up
SELECT arm_enterprise_connections('clerk');
CALL deliver_enterprise_connections();
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(5, 'delivered');
SELECT id, operation, key, state, connection_id IS NOT NULL AS known, error FROM outbox;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent() ORDER BY method, name;
SELECT name, count(*) FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name) GROUP BY 1 ORDER BY 1;

--
-- After a failover: creates from before may have been sent
--
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"body_contains": "Sent"}, "status": 500, "apply": true, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('Sent')) AS request;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Unsent'), 'unsent') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Unsent 2', 'unsent2.example'), 'unsent 2') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "Unsent 3"}', 'unsent') AS request;
SELECT count(*) > 0 AS sent FROM pg_temp.sent();
-- the claim of the first one was lost
UPDATE enterprise_connection_requests SET state = 'queued', attempts = 0, started_at = NULL, step = NULL, claimer = NULL, doubt_since = NULL, http_status = NULL, error = NULL, next_attempt_at = created_at WHERE id = 1;
UPDATE enterprise_connection_requests SET timeline = timeline + 1 WHERE id <> 2;
-- perhaps just now: not before that cannot be on its way any more
CALL deliver_enterprise_connections();
SELECT id, state, next_attempt_at > clock_timestamp() + '20 s' AS lease FROM enterprise_connection_requests ORDER BY id;
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(1, 'delivered');
CALL pg_temp.deliver_until(3, 'delivered');
SELECT id, state, connection_id IS NOT NULL AS known FROM outbox;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent() ORDER BY method, name;
SELECT name, count(*) FROM mock.connections() AS m, LATERAL (SELECT m->>'name') AS n (name) GROUP BY 1 ORDER BY 1;
-- nor may a newer one of its key take it over before
CALL pg_temp.start_over();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Lost'), 'lost') AS request;
CALL deliver_enterprise_connections();
TRUNCATE enterprise_connections;
UPDATE enterprise_connection_requests SET state = 'queued', attempts = 0, started_at = NULL, finished_at = NULL, step = NULL, http_status = NULL, connection_id = NULL, next_attempt_at = created_at;
UPDATE enterprise_connection_requests SET timeline = timeline + 1;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('Renamed'), 'lost') AS request;
CALL deliver_enterprise_connections();
SELECT id, state FROM outbox;
CALL pg_temp.hurry();
CALL pg_temp.deliver_until(2, 'delivered');
SELECT id, state FROM outbox;
SELECT m->>'name' AS name FROM mock.connections() AS m;

--
-- A trigger of the user's on the tracking table: the row fails, the server goes on, whatever it raises
--
CALL pg_temp.start_over();
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not wanted' USING ERRCODE = '55000'; END$$;
CREATE TRIGGER refuse BEFORE INSERT ON enterprise_connections FOR EACH ROW WHEN (new.name = 'Refused') EXECUTE FUNCTION pg_temp.refuse();
SELECT enqueue_enterprise_connection('create', pg_temp.params('Refused')) AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('Taken')) AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT reason FROM enterprise_connection_pauses;
DROP TRIGGER refuse ON enterprise_connections;
-- it is not made twice
SELECT retry_enterprise_connection_request(1);
CALL deliver_enterprise_connections();
SELECT id, state, r.error->>'message' AS message, r.error->>'hint' AS hint FROM enterprise_connection_requests AS r WHERE id = 1;
SELECT method, body->>'name' AS name, status FROM pg_temp.sent();

--
-- Who waits for a create without a key goes on as soon as that is finished
--
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "apply": true, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', pg_temp.params('A')) AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B', 'a.example'), 'b') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, awaits FROM enterprise_connection_requests ORDER BY id;
UPDATE enterprise_connection_requests SET next_attempt_at = CASE id WHEN 1 THEN now() ELSE now() + '1 h' END;
CALL pg_temp.deliver_until(1, 'delivered');
TABLE outbox;

--
-- A sweep of many lanes that is interrupted does not go on in their middle the next time
--
CALL pg_temp.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "hold": true}');
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), '0') AS request;
SELECT count(enqueue_enterprise_connection('delete', key => 'lane ' || n)) FROM generate_series(1, 10000) AS n;
UPDATE enterprise_connection_requests SET next_attempt_at = 'infinity' WHERE id > 1;
SET statement_timeout = '1s';
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
-- What an operator looks at
--
CALL pg_temp.start_over();
SELECT create_enterprise_connection(name => 'At once', provider => 'saml_okta', domains => '{atonce.example}')->>'id' AS id;
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('A'), 'a') AS request;
SELECT enqueue_enterprise_connection('create', pg_temp.params('Failing')) AS request;
SELECT mock.script('[{"match": {"body_contains": "Failing"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', pg_temp.params('B'), 'b') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "At once 2"}', id => 'entconn_000001') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "A 3"}', 'a') AS request;
SELECT server, key, id, name, domains, active, request, operation, state, attempts, enqueued_at IS NOT NULL AS enqueued, finished_at IS NOT NULL AS finished, http_status, error, synced_at IS NOT NULL AS synced
FROM enterprise_connection_status ORDER BY request;
SELECT server, state, requests, oldest IS NOT NULL AS oldest, paused_since, paused_why FROM enterprise_connection_queue ORDER BY state;
CALL deliver_enterprise_connections();
SELECT key, id, name, request, operation, state FROM enterprise_connection_status ORDER BY request;

-- as it was
CALL pg_temp.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
