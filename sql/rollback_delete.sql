-- pg_clerk.on_rollback = delete, in each of the ways that PostgreSQL has for a
-- rollback; keys, batches, and a Clerk that does not delete.
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default
LOAD 'pg_clerk';

--
-- delete
--
SET pg_clerk.on_rollback = 'delete';
CALL box.start_over();
CREATE TABLE regress_customer (name text PRIMARY KEY, connection text);
CREATE TRIGGER connects BEFORE INSERT ON regress_customer FOR EACH ROW EXECUTE FUNCTION test.connects();
BEGIN;
SELECT test.created('acme');
SELECT test.created('beta');
ROLLBACK;
SELECT * FROM test.everything();
-- all together, once each, with what each call needed
SELECT method, target, status FROM mock.sent() ORDER BY 1 DESC, 2, 3;
BEGIN;
SELECT test.created('acme');
ROLLBACK;
SELECT method, headers->>'authorization' AS key, headers->'clerk-api-version' = '"2026-05-12"' AS version, body FROM mock.requests();
-- nothing is deleted of what is committed
SELECT test.created('acme');
BEGIN;
SELECT test.created('beta');
COMMIT;
SELECT * FROM test.everything();
-- savepoints: at once, not with the transaction's end
CALL box.start_over();
BEGIN;
SELECT test.created('kept');
SAVEPOINT a;
SELECT test.created('a1');
SAVEPOINT b;
SELECT test.created('b1');
RELEASE b;
ROLLBACK TO a;
SELECT at_clerk FROM test.everything();
-- the same domain is free again
SELECT test.created('a1');
COMMIT;
SELECT * FROM test.everything();
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1, 2;
-- errors: in the same statement, in a later one, in a failed transaction's
-- savepoint, in a trigger, at COMMIT
CALL box.start_over();
SELECT 1 / (length(test.created('one')) - 14);
BEGIN;
SELECT test.created('two');
SELECT 1 / 0;
COMMIT;
BEGIN;
SELECT test.created('kept');
SAVEPOINT a;
SELECT test.created('three');
SELECT test.created('kept');
\echo :SQLSTATE
ROLLBACK TO a;
COMMIT;
INSERT INTO regress_customer VALUES ('Four'), ('Five'), (NULL);
\echo :SQLSTATE
ALTER TABLE regress_customer ADD CONSTRAINT regress_unique UNIQUE (connection) DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO regress_customer VALUES ('Six'), ('Seven');
UPDATE regress_customer SET connection = 'same';
SELECT count(*) AS at_clerk FROM mock.connections();
COMMIT;
\echo :SQLSTATE
SELECT * FROM test.everything();
SELECT * FROM regress_customer;
DROP TABLE regress_customer;
DO $$
BEGIN
    FOR i IN 1 .. 30 LOOP
        BEGIN
            PERFORM test.created('loop' || i);
            IF i % 3 = 0 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END
$$;
SELECT count(*) AS at_clerk, count(tracked) AS tracked FROM test.everything() WHERE at_clerk ~ 'loop';

-- more than are deleted at a time
CALL box.start_over();
BEGIN;
SELECT count(test.created('many' || n)) FROM generate_series(1, 50) AS n;
ROLLBACK;
SELECT * FROM test.everything();
SELECT method, status, count(*), count(DISTINCT target) AS targets FROM mock.sent() GROUP BY 1, 2 ORDER BY 1 DESC;

-- the server as it was at the call, whatever became of it in the same transaction
SELECT url FROM mock.server \gset
BEGIN;
CREATE SERVER regress_new FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_new OPTIONS (secret_key 'sk_test_mock');
SELECT create_enterprise_connection(name => 'new', provider => 'saml_okta', domains => '{new.example}', server => 'regress_new')->>'name' AS name;
SELECT test.created('old');
ALTER SERVER clerk OPTIONS (SET api_url 'http://127.0.0.1:1');
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_another');
ROLLBACK;
SELECT * FROM test.everything();

-- a connection that could not be completed
BEGIN;
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT create_enterprise_connection('{"name": "half", "provider": "saml_okta", "domains": ["half.example"], "syncUserAttributes": false}')->>'name' AS name;
ROLLBACK;
SELECT * FROM test.everything();

--
-- Keys
--
CALL box.start_over();
SELECT upsert_enterprise_connection('customer:1', '{"name": "one", "provider": "saml_okta", "domains": ["one.example"]}')->>'id' AS id;
BEGIN;
-- one that is updated stays, one that is created does not
SELECT upsert_enterprise_connection('customer:1', '{"name": "changed"}')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:2', '{"name": "changed, too"}')->>'id' AS id;
ROLLBACK;
SELECT * FROM test.everything();
-- the key is free after a rollback, in the same transaction, too
BEGIN;
SAVEPOINT a;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
ROLLBACK TO a;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two again", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
COMMIT;
SELECT * FROM test.everything();
SELECT key, id, name FROM enterprise_connections ORDER BY key;
-- one that was only adopted is nobody's creation
BEGIN;
SELECT mock.call('POST', '/_mock/seed', '{"count": 1, "prefix": "foreign"}') IS NOT NULL AS seeded;
SELECT adopt_enterprise_connection('customer:3', m->>'id')->>'name' AS name FROM mock.connections() AS m WHERE m->>'name' ~ 'foreign';
ROLLBACK;
SELECT at_clerk, tracked FROM test.everything();

--
-- Many at once
--
RESET pg_clerk.on_rollback;
CALL box.start_over();
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
BEGIN;
SELECT ordinal, connection->>'id' AS id, error->>'sqlstate' AS sqlstate
FROM create_enterprise_connections(test.params(2, 'batch') || ARRAY['{"nmae": "x"}', '{"name": "taken", "provider": "saml_okta", "domains": ["batch-1.example"]}', NULL]::jsonb[]);
ROLLBACK;
SELECT * FROM test.everything();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
SET pg_clerk.on_rollback = 'delete';
CALL box.start_over();
BEGIN;
SELECT count(connection) AS created, count(error) AS failed
FROM create_enterprise_connections(test.params(60, 'batch') || ARRAY['{"nmae": "x"}', '{"name": "taken", "provider": "saml_okta", "domains": ["batch"]}']::jsonb[]);
ROLLBACK;
SELECT * FROM test.everything();
SELECT method, status, count(*), count(DISTINCT target) AS targets FROM mock.sent() GROUP BY 1, 2 ORDER BY 1 DESC, 2;
-- an error in the same statement, later in the same transaction, in a savepoint
SELECT 1 / (count(connection) - 5) AS never FROM create_enterprise_connections(test.params(5, 'batch'));
BEGIN;
SELECT count(connection) AS created FROM create_enterprise_connections(test.params(5, 'kept'));
SAVEPOINT a;
SELECT count(connection) AS created FROM create_enterprise_connections(test.params(5, 'batch'));
ROLLBACK TO a;
SELECT count(connection) AS created FROM create_enterprise_connections(test.params(5, 'more'));
COMMIT;
SELECT split_part(at_clerk, ' ', 1) AS at_clerk, count(*), count(tracked) AS tracked FROM test.everything() GROUP BY 1 ORDER BY 1;

--
-- Created, but the answer was cut off: if its id could be read, it is as any other
--
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "real": true, "truncate": 200}');
DO $$
BEGIN
    PERFORM test.created('cut');
EXCEPTION WHEN SQLSTATE 'KC007' THEN
    RAISE NOTICE '%', SQLERRM;
END
$$;
SELECT * FROM test.everything();
SELECT method, target, status FROM mock.sent() ORDER BY 1 DESC, 2, 3;
SET pg_clerk.on_rollback = 'warn';
SELECT mock.script('{"match": {"method": "POST"}, "real": true, "truncate": 200}');
DO $$
BEGIN
    PERFORM upsert_enterprise_connection('customer:1', '{"name": "cut", "provider": "saml_okta", "domains": ["cut.example"]}');
EXCEPTION WHEN SQLSTATE 'KC007' THEN
    RAISE NOTICE '%', SQLERRM;
END
$$;
SELECT * FROM test.everything();
-- among many
SET pg_clerk.on_rollback = 'delete';
CALL box.start_over();
SELECT mock.script('[{"match": {"body_contains": "\"batch 2\""}, "real": true, "truncate": 200},
    {"match": {"body_contains": "\"batch 4\""}, "apply": true, "status": 201, "body": "{\"object\": \"enterprise_connection\", \"id\": \"entconn_"}]');
BEGIN;
SELECT ordinal, connection->>'name' AS name, error->>'sqlstate' AS sqlstate, error->>'message' AS message
FROM create_enterprise_connections(test.params(4, 'batch'));
ROLLBACK;
-- of the fourth there is no id
SELECT at_clerk FROM test.everything();
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1;

--
-- Clerk cannot be reached, or refuses: one attempt, two seconds for all, and a warning
--
CALL box.start_over();
BEGIN;
SELECT test.created('acme');
SELECT mock.script('{"match": {"method": "DELETE"}, "times": 0, "reset": "before"}');
ROLLBACK;
SELECT mock.unscript(), mock.forget();
BEGIN;
SELECT test.created('beta');
SELECT test.created('gamma');
SELECT mock.script('[{"match": {"method": "DELETE"}, "status": 500, "body": {"errors": [{"message": "no", "code": "internal_error"}]}},
    {"match": {"method": "DELETE"}, "status": 429, "headers": {"Retry-After": "0"}, "body": {"errors": [{"message": "slow down", "code": "too_many_requests"}]}}]');
ROLLBACK;
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT at_clerk FROM test.everything();
-- silence: the others are deleted all the same
CALL box.start_over();
BEGIN;
SELECT count(test.created('many' || n)) FROM generate_series(1, 40) AS n;
SELECT mock.script('[{"match": {"method": "DELETE", "path": "/enterprise_connections/entconn_000002"}, "hold": true},
    {"match": {"method": "DELETE", "path": "/enterprise_connections/entconn_000039"}, "hold": true}]');
SELECT clock_timestamp() AS start \gset
ROLLBACK;
SELECT clock_timestamp() - :'start' BETWEEN '1.8 s' AND '4 s' AS in_time;
SELECT * FROM test.everything();
-- and nobody answers at all, to more than go at a time; the session goes on
CALL box.start_over();
SET client_min_messages = error;
BEGIN;
SELECT count(test.created('many' || n)) FROM generate_series(1, 20) AS n;
SELECT mock.script('{"match": {"method": "DELETE"}, "times": 0, "hold": true}');
SELECT clock_timestamp() AS start \gset
ROLLBACK;
SELECT clock_timestamp() - :'start' BETWEEN '1.8 s' AND '4 s' AS in_time;
RESET client_min_messages;
SELECT mock.unscript();
SELECT test.created('next');
SELECT count(*) AS at_clerk, count(tracked) AS tracked FROM test.everything();

-- gone already; only Clerk can say so
CALL box.start_over();
BEGIN;
SELECT test.created('gone');
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
ROLLBACK;
SELECT method, status FROM mock.sent() ORDER BY 1 DESC, 2;
BEGIN;
SELECT test.created('acme');
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 404, "headers": {"Content-Type": "text/html"}, "body": "<h1>404 Not Found</h1>nginx"}');
ROLLBACK;
BEGIN;
SELECT test.created('beta');
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 200, "headers": {"Content-Type": "text/html"}, "body": "<h1>Log in to the hotel</h1>"}');
ROLLBACK;
SELECT at_clerk FROM test.everything();
RESET pg_clerk.on_rollback;
