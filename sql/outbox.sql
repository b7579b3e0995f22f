-- The outbox: what is enqueued is delivered after commit, once.
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
-- The four operations
--
-- the first time, somebody has to be told
SELECT enqueue_enterprise_connection('create', '{"name": "Created", "provider": "saml_okta", "domains": ["created.example"]}') AS request;
SELECT enqueue_enterprise_connection('create', box.params('Keyed'), 'keyed') AS request;
SELECT enqueue_enterprise_connection(operation => 'upsert', params => box.params('Upserted'), key => 'upserted', server => 'clerk') AS request;
-- nothing is sent before that
SELECT count(*) AS sent FROM box.sent();
SELECT server, role = current_user AS mine, state, attempts, next_attempt_at = created_at AS due, started_at, finished_at, params FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT * FROM box.sent();
SELECT id, key, name, connection = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = e.id) AS whole_object FROM enterprise_connections AS e ORDER BY id;
SELECT bool_and(created_at <= started_at AND started_at <= finished_at) AS in_time FROM enterprise_connection_requests;
-- by key or by id; the name of a parameter is spelt as everywhere
SELECT enqueue_enterprise_connection('update', '{"name": "Created 2"}', id => (SELECT id FROM enterprise_connections WHERE name = 'Created')) AS request;
SELECT enqueue_enterprise_connection('update', '{"syncUserAttributes": false}', 'keyed') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Upserted 2"}', 'upserted') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"provider": "saml_okta"}', 'keyed') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 3;
SELECT * FROM box.sent();
SELECT id, key, name, sync_user_attributes FROM enterprise_connections ORDER BY id;
SELECT enqueue_enterprise_connection('delete', id => (SELECT id FROM enterprise_connections WHERE name = 'Created 2')) AS request;
SELECT enqueue_enterprise_connection('delete', key => 'keyed') AS request;
SELECT enqueue_enterprise_connection('delete', NULL, 'upserted') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 7;
SELECT * FROM box.sent();
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- nothing left, nothing sent
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM box.sent();

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
) AS s (statement), test.failure(statement) AS f;
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
SELECT * FROM test.failure('CALL deliver_enterprise_connections()') \gx
SET default_transaction_read_only = on;
CALL deliver_enterprise_connections();
\echo :SQLSTATE
RESET default_transaction_read_only;

--
-- With its transaction, or not at all
--
CALL box.start_over();
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('Never'), 'never') AS request;
ROLLBACK;
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('Kept'), 'kept') AS request;
SAVEPOINT s;
SELECT enqueue_enterprise_connection('upsert', box.params('Never'), 'never') AS request;
ROLLBACK TO s;
COMMIT;
CALL deliver_enterprise_connections();
SELECT operation, key, state FROM outbox;
SELECT method, body->>'name' AS name FROM box.sent();
-- prepared
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('Prepared'), 'prepared') > 0 AS enqueued;
PREPARE TRANSACTION 'regress_outbox';
CALL deliver_enterprise_connections();
SELECT count(*) AS sent FROM box.sent();
COMMIT PREPARED 'regress_outbox';
CALL deliver_enterprise_connections();
SELECT method, body->>'name' AS name FROM box.sent();
-- in any isolation level
SET default_transaction_isolation = 'serializable';
SELECT enqueue_enterprise_connection('upsert', '{"name": "Serializable"}', 'kept') > 0 AS enqueued;
CALL deliver_enterprise_connections();
SET default_transaction_isolation = 'repeatable read';
SELECT enqueue_enterprise_connection('upsert', '{"name": "Repeatable"}', 'kept') > 0 AS enqueued;
CALL deliver_enterprise_connections();
RESET default_transaction_isolation;
SELECT method, body->>'name' AS name FROM box.sent();
-- from PL/pgSQL, too
SELECT enqueue_enterprise_connection('upsert', '{"name": "Done"}', 'kept') > 0 AS enqueued;
DO $$BEGIN CALL deliver_enterprise_connections(); END$$;
SELECT method, body->>'name' AS name FROM box.sent();

--
-- Refused for good: failed, kept, with the reason
--
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "status": 422, "headers": {"Content-Type": "application/json"}, "body": {"clerk_trace_id": "t1", "errors": [{"message": "is wrong", "long_message": "Name is wrong.", "code": "form_param_value_invalid", "meta": {"param_name": "name"}}]}}');
SELECT enqueue_enterprise_connection('upsert', box.params('Wrong', more => '{"organizationId": "org_1"}'), 'wrong') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT jsonb_pretty(error) AS error, finished_at IS NOT NULL AS finished FROM enterprise_connection_requests;
CALL deliver_enterprise_connections();
SELECT method, status FROM box.sent();
-- it does not block its key
SELECT enqueue_enterprise_connection('upsert', box.params('Right'), 'wrong') AS request;
CALL deliver_enterprise_connections();
TABLE outbox;
SELECT method, status, body FROM box.sent();

--
-- 404
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('upsert', box.params(name), lower(name)) AS request FROM unnest('{A,B,C,D}'::text[]) AS name;
CALL deliver_enterprise_connections();
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT count(*) > 0 AS sent FROM box.sent();
SELECT enqueue_enterprise_connection('update', '{"name": "A 2"}', 'a') AS request;
SELECT enqueue_enterprise_connection('upsert', box.params('B 2', 'b.example'), 'b') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'c') AS request;
-- an upsert is enqueued with what it takes to create, but this one was not
SELECT enqueue_enterprise_connection('upsert', '{"name": "D 2"}', 'd') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT * FROM box.sent();
SELECT id, key, name FROM enterprise_connections ORDER BY key;

--
-- No connection of that key, or one too many
--
CALL box.start_over();
SELECT enqueue_enterprise_connection('create', box.params('A'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT count(*) > 0 AS sent FROM box.sent();
SELECT enqueue_enterprise_connection('delete', key => 'unknown') AS request;
SELECT enqueue_enterprise_connection('update', '{"name": "x"}', 'unknown') AS request;
SELECT enqueue_enterprise_connection('create', box.params('A 2'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 1;
SELECT count(*) AS sent FROM box.sent();
SELECT id, error->>'sqlstate' AS sqlstate, error->>'hint' AS hint FROM enterprise_connection_requests WHERE state = 'failed' ORDER BY id;
-- the key is free again
SELECT enqueue_enterprise_connection('delete', key => 'a') AS request;
SELECT enqueue_enterprise_connection('create', box.params('A 3', 'a.example'), 'a') AS request;
CALL deliver_enterprise_connections();
SELECT * FROM outbox WHERE id > 4;
SELECT id, key, name FROM enterprise_connections;

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
