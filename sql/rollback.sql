-- pg_clerk.on_rollback: what becomes of a connection whose transaction is
-- rolled back, in each of the ways that PostgreSQL has for that.
SELECT mock.reset();
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

-- A create by its name alone: the id.
CREATE FUNCTION pg_temp.created(name text) RETURNS text LANGUAGE sql AS $$
    SELECT create_enterprise_connection(name => created.name, provider => 'saml_okta', domains => ARRAY[replace(created.name, ' ', '-') || '.example'])->>'id'
$$;
-- Params of so many connections.
CREATE FUNCTION pg_temp.params(count int, prefix text) RETURNS jsonb[] LANGUAGE sql AS $$
    SELECT array_agg(jsonb_build_object('name', prefix || ' ' || n, 'provider', 'saml_okta', 'domains', jsonb_build_array(prefix || '-' || n || '.example')) ORDER BY n)
    FROM generate_series(1, count) AS n
$$;
-- What exists, there and here.
CREATE FUNCTION pg_temp.everything() RETURNS TABLE (at_clerk text, id text, tracked text) LANGUAGE sql AS $$
    SELECT m->>'name', coalesce(m->>'id', e.id), e.name
    FROM mock.connections() AS m FULL JOIN enterprise_connections AS e ON e.id = m->>'id' ORDER BY 2
$$;
-- What was sent since it was last asked.
CREATE FUNCTION pg_temp.sent() RETURNS TABLE (method text, target text, status int) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT r.method, r.target, r.status FROM mock.requests() AS r ORDER BY 1 DESC, 2, 3;
    PERFORM mock.forget();
END
$$;
-- All that was there is forgotten, ids begin anew.
CREATE FUNCTION pg_temp.fresh() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.reset();
    TRUNCATE enterprise_connections;
END
$$;

--
-- warn
--
LOAD 'pg_clerk';
SHOW pg_clerk.on_rollback;
BEGIN;
SELECT pg_temp.created('acme');
SELECT pg_temp.created('beta');
ROLLBACK;
SELECT * FROM pg_temp.everything();
-- the hint helps
SELECT delete_enterprise_connection('entconn_000001')->'deleted' AS deleted;
SELECT adopt_enterprise_connection('customer:1', 'entconn_000002')->>'name' AS name;
-- nothing is said of what is committed, nor of a transaction that created none
BEGIN;
SELECT pg_temp.created('acme');
COMMIT;
BEGIN;
SELECT update_enterprise_connection('entconn_000003', '{"name": "changed"}')->>'name' AS name;
SELECT delete_enterprise_connection('entconn_000002')->'deleted' AS deleted;
ROLLBACK;
-- what is not a creation is not undone either
SELECT * FROM pg_temp.everything();
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;

-- ROLLBACK TO: only what came after the savepoint
SELECT pg_temp.fresh();
BEGIN;
SELECT pg_temp.created('kept');
SAVEPOINT a;
SELECT pg_temp.created('a1');
SAVEPOINT b;
SELECT pg_temp.created('b1');
ROLLBACK TO b;
SELECT pg_temp.created('b2');
SAVEPOINT c;
SELECT pg_temp.created('c1');
RELEASE c;
SELECT pg_temp.created('b3');
ROLLBACK TO a;
-- once only
ROLLBACK TO a;
SELECT pg_temp.created('a2');
COMMIT;
SELECT * FROM pg_temp.everything();
-- RELEASE, then ROLLBACK; and the other way round
SELECT pg_temp.fresh();
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT pg_temp.created('b1');
RELEASE b;
RELEASE a;
SELECT pg_temp.created('top');
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT pg_temp.created('a1');
ROLLBACK TO a;
RELEASE a;
COMMIT;
-- a savepoint after the create saves nothing
BEGIN;
SELECT pg_temp.created('before');
SAVEPOINT a;
SELECT pg_temp.created('after');
ROLLBACK AND CHAIN;
SELECT pg_temp.created('chained');
COMMIT;
SELECT * FROM pg_temp.everything();

-- EXCEPTION blocks
SELECT pg_temp.fresh();
DO $$
BEGIN
    PERFORM pg_temp.created('outer');
    BEGIN
        PERFORM pg_temp.created('inner');
        BEGIN
            PERFORM pg_temp.created('innermost');
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'never';
        END;
        RAISE NOTICE 'now %', 1 / (SELECT count(*) - 3 FROM enterprise_connections);
    EXCEPTION WHEN division_by_zero THEN
        RAISE NOTICE 'caught, and % row is left', (SELECT count(*) FROM enterprise_connections);
        PERFORM pg_temp.created('instead');
    END;
END
$$;
SELECT * FROM pg_temp.everything();
-- after a COMMIT or ROLLBACK within the block, the next transaction
SELECT pg_temp.fresh();
DO $$
BEGIN
    PERFORM pg_temp.created('first');
    ROLLBACK;
    PERFORM pg_temp.created('second');
    COMMIT;
    PERFORM pg_temp.created('third');
    ROLLBACK;
END
$$;
SELECT * FROM pg_temp.everything();

-- an error after the create: in the same statement, in the next call of it, in
-- a trigger's row
SELECT pg_temp.fresh();
CREATE TABLE regress_customer (name text PRIMARY KEY, connection text);
CREATE FUNCTION regress_customer_connects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.connection := create_enterprise_connection(name => NEW.name, provider => 'saml_okta', domains => ARRAY[lower(NEW.name) || '.example'])->>'id';
    RETURN NEW;
END
$$;
CREATE TRIGGER connects BEFORE INSERT ON regress_customer FOR EACH ROW EXECUTE FUNCTION regress_customer_connects();
INSERT INTO regress_customer VALUES ('Acme');
DO $$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'SELECT 1 / (length(pg_temp.created(''one'')) - 14)',
        'SELECT pg_temp.created(n) FROM unnest(ARRAY[''two'', ''three'', ''two'']) AS n',
        'UPDATE regress_customer SET connection = pg_temp.created(''four''), name = NULL',
        'INSERT INTO regress_customer VALUES (''Five''), (''Six''), (''Acme'')']
    LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE '% %', SQLSTATE, SQLERRM;
        END;
    END LOOP;
END
$$;
SELECT * FROM pg_temp.everything();
SELECT * FROM regress_customer;

--
-- delete
--
SET pg_clerk.on_rollback = 'delete';
SELECT pg_temp.fresh();
TRUNCATE regress_customer;
BEGIN;
SELECT pg_temp.created('acme');
SELECT pg_temp.created('beta');
ROLLBACK;
SELECT * FROM pg_temp.everything();
-- all together, once each, with what each call needed
SELECT * FROM pg_temp.sent();
BEGIN;
SELECT pg_temp.created('acme');
ROLLBACK;
SELECT method, headers->>'authorization' AS key, headers->'clerk-api-version' = '"2026-05-12"' AS version, body FROM mock.requests();
-- nothing is deleted of what is committed
SELECT pg_temp.created('acme');
BEGIN;
SELECT pg_temp.created('beta');
COMMIT;
SELECT * FROM pg_temp.everything();
-- savepoints: at once, not with the transaction's end
SELECT pg_temp.fresh();
BEGIN;
SELECT pg_temp.created('kept');
SAVEPOINT a;
SELECT pg_temp.created('a1');
SAVEPOINT b;
SELECT pg_temp.created('b1');
RELEASE b;
ROLLBACK TO a;
SELECT at_clerk FROM pg_temp.everything();
-- the same domain is free again
SELECT pg_temp.created('a1');
COMMIT;
SELECT * FROM pg_temp.everything();
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;
-- errors: in the same statement, in a later one, in a failed transaction's
-- savepoint, in a trigger, at COMMIT
SELECT pg_temp.fresh();
SELECT 1 / (length(pg_temp.created('one')) - 14);
BEGIN;
SELECT pg_temp.created('two');
SELECT 1 / 0;
COMMIT;
BEGIN;
SELECT pg_temp.created('kept');
SAVEPOINT a;
SELECT pg_temp.created('three');
SELECT pg_temp.created('kept');
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
SELECT * FROM pg_temp.everything();
SELECT * FROM regress_customer;
DROP TABLE regress_customer;
DROP FUNCTION regress_customer_connects();
DO $$
BEGIN
    FOR i IN 1 .. 30 LOOP
        BEGIN
            PERFORM pg_temp.created('loop' || i);
            IF i % 3 = 0 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END
$$;
SELECT count(*) AS at_clerk, count(tracked) AS tracked FROM pg_temp.everything() WHERE at_clerk ~ 'loop';

-- more than are deleted at a time
SELECT pg_temp.fresh();
BEGIN;
SELECT count(pg_temp.created('many' || n)) FROM generate_series(1, 50) AS n;
ROLLBACK;
SELECT * FROM pg_temp.everything();
SELECT method, status, count(*), count(DISTINCT target) AS targets FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1 DESC;

-- the server as it was at the call, whatever became of it in the same transaction
SELECT url FROM mock.server \gset
BEGIN;
CREATE SERVER regress_new FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_new OPTIONS (secret_key 'sk_test_mock');
SELECT create_enterprise_connection(name => 'new', provider => 'saml_okta', domains => '{new.example}', server => 'regress_new')->>'name' AS name;
SELECT pg_temp.created('old');
ALTER SERVER clerk OPTIONS (SET api_url 'http://127.0.0.1:1');
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_another');
ROLLBACK;
SELECT * FROM pg_temp.everything();

-- a connection that could not be completed
BEGIN;
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT create_enterprise_connection('{"name": "half", "provider": "saml_okta", "domains": ["half.example"], "syncUserAttributes": false}')->>'name' AS name;
ROLLBACK;
SELECT * FROM pg_temp.everything();

--
-- Keys
--
SELECT pg_temp.fresh();
SELECT upsert_enterprise_connection('customer:1', '{"name": "one", "provider": "saml_okta", "domains": ["one.example"]}')->>'id' AS id;
BEGIN;
-- one that is updated stays, one that is created does not
SELECT upsert_enterprise_connection('customer:1', '{"name": "changed"}')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:2', '{"name": "changed, too"}')->>'id' AS id;
ROLLBACK;
SELECT * FROM pg_temp.everything();
-- the key is free after a rollback, in the same transaction, too
BEGIN;
SAVEPOINT a;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
ROLLBACK TO a;
SELECT upsert_enterprise_connection('customer:2', '{"name": "two again", "provider": "saml_okta", "domains": ["two.example"]}')->>'id' AS id;
COMMIT;
SELECT * FROM pg_temp.everything();
SELECT key, id, name FROM enterprise_connections ORDER BY key;
-- one that was only adopted is nobody's creation
BEGIN;
SELECT mock.call('POST', '/_mock/seed', '{"count": 1, "prefix": "foreign"}') IS NOT NULL AS seeded;
SELECT adopt_enterprise_connection('customer:3', m->>'id')->>'name' AS name FROM mock.connections() AS m WHERE m->>'name' ~ 'foreign';
ROLLBACK;
SELECT at_clerk, tracked FROM pg_temp.everything();

--
-- Created and deleted: nothing is left, so nothing is said or done
--
SELECT pg_temp.fresh();
SET pg_clerk.on_rollback = 'warn';
BEGIN;
SELECT delete_enterprise_connection(pg_temp.created('acme'))->'deleted' AS deleted;
ROLLBACK;
-- wherever the deletion was: nothing brings it back
BEGIN;
SELECT pg_temp.created('beta') AS id \gset
SAVEPOINT a;
SELECT delete_enterprise_connection(:'id')->'deleted' AS deleted;
ROLLBACK TO a;
ROLLBACK;
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SAVEPOINT a;
SELECT pg_temp.created('gamma') AS id \gset
RELEASE a;
SELECT delete_enterprise_connection(:'id')->'deleted' AS deleted;
ROLLBACK;
SELECT * FROM pg_temp.everything();
SELECT * FROM pg_temp.sent();
-- somebody else has deleted it; a deletion that failed is none
BEGIN;
SELECT pg_temp.created('acme') AS id \gset
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT delete_enterprise_connection(:'id');
ROLLBACK;
SELECT method, status FROM pg_temp.sent();
BEGIN;
SELECT pg_temp.created('acme') AS id \gset
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 500, "body": {"errors": [{"message": "no", "code": "internal_error"}]}}');
SAVEPOINT a;
SELECT delete_enterprise_connection(:'id');
ROLLBACK TO a;
ROLLBACK;
SELECT method, status FROM pg_temp.sent();
SELECT * FROM pg_temp.everything();

--
-- ignore
--
SET pg_clerk.on_rollback = 'ignore';
SELECT pg_temp.fresh();
BEGIN;
SELECT pg_temp.created('acme');
SAVEPOINT a;
SELECT pg_temp.created('beta');
ROLLBACK TO a;
SELECT 1 / 0;
ROLLBACK;
SELECT * FROM pg_temp.everything();
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;

--
-- As it was at the call
--
SELECT pg_temp.fresh();
BEGIN;
SET LOCAL pg_clerk.on_rollback = 'delete';
SELECT pg_temp.created('deleted');
SET LOCAL pg_clerk.on_rollback = 'warn';
SELECT pg_temp.created('warned of');
SET LOCAL pg_clerk.on_rollback = 'ignore';
SELECT pg_temp.created('ignored');
ROLLBACK;
SELECT * FROM pg_temp.everything();
-- of a function with a setting of its own; the session says ignore
CREATE FUNCTION pg_temp.created_carefully(name text) RETURNS text LANGUAGE plpgsql SET pg_clerk.on_rollback = 'delete' AS $$
BEGIN
    RETURN pg_temp.created(name);
END
$$;
BEGIN;
SELECT pg_temp.created_carefully('carefully');
ROLLBACK;
SELECT * FROM pg_temp.everything();
SET pg_clerk.on_rollback = 'perhaps';
RESET pg_clerk.on_rollback;

--
-- Many at once
--
SELECT pg_temp.fresh();
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
BEGIN;
SELECT ordinal, connection->>'id' AS id, error->>'sqlstate' AS sqlstate
FROM create_enterprise_connections(pg_temp.params(2, 'batch') || ARRAY['{"nmae": "x"}', '{"name": "taken", "provider": "saml_okta", "domains": ["batch-1.example"]}', NULL]::jsonb[]);
ROLLBACK;
SELECT * FROM pg_temp.everything();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
SET pg_clerk.on_rollback = 'delete';
SELECT pg_temp.fresh();
BEGIN;
SELECT count(connection) AS created, count(error) AS failed
FROM create_enterprise_connections(pg_temp.params(60, 'batch') || ARRAY['{"nmae": "x"}', '{"name": "taken", "provider": "saml_okta", "domains": ["batch"]}']::jsonb[]);
ROLLBACK;
SELECT * FROM pg_temp.everything();
SELECT method, status, count(*), count(DISTINCT target) AS targets FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1 DESC, 2;
-- an error in the same statement, later in the same transaction, in a savepoint
SELECT 1 / (count(connection) - 5) AS never FROM create_enterprise_connections(pg_temp.params(5, 'batch'));
BEGIN;
SELECT count(connection) AS created FROM create_enterprise_connections(pg_temp.params(5, 'kept'));
SAVEPOINT a;
SELECT count(connection) AS created FROM create_enterprise_connections(pg_temp.params(5, 'batch'));
ROLLBACK TO a;
SELECT count(connection) AS created FROM create_enterprise_connections(pg_temp.params(5, 'more'));
COMMIT;
SELECT split_part(at_clerk, ' ', 1) AS at_clerk, count(*), count(tracked) AS tracked FROM pg_temp.everything() GROUP BY 1 ORDER BY 1;

--
-- Created, but the answer was cut off: if its id could be read, it is as any other
--
SELECT pg_temp.fresh();
SELECT mock.script('{"match": {"method": "POST"}, "real": true, "truncate": 200}');
DO $$
BEGIN
    PERFORM pg_temp.created('cut');
EXCEPTION WHEN SQLSTATE 'KC007' THEN
    RAISE NOTICE '%', SQLERRM;
END
$$;
SELECT * FROM pg_temp.everything();
SELECT * FROM pg_temp.sent();
SET pg_clerk.on_rollback = 'warn';
SELECT mock.script('{"match": {"method": "POST"}, "real": true, "truncate": 200}');
DO $$
BEGIN
    PERFORM upsert_enterprise_connection('customer:1', '{"name": "cut", "provider": "saml_okta", "domains": ["cut.example"]}');
EXCEPTION WHEN SQLSTATE 'KC007' THEN
    RAISE NOTICE '%', SQLERRM;
END
$$;
SELECT * FROM pg_temp.everything();
-- among many
SET pg_clerk.on_rollback = 'delete';
SELECT pg_temp.fresh();
SELECT mock.script('[{"match": {"body_contains": "\"batch 2\""}, "real": true, "truncate": 200},
    {"match": {"body_contains": "\"batch 4\""}, "apply": true, "status": 201, "body": "{\"object\": \"enterprise_connection\", \"id\": \"entconn_"}]');
BEGIN;
SELECT ordinal, connection->>'name' AS name, error->>'sqlstate' AS sqlstate, error->>'message' AS message
FROM create_enterprise_connections(pg_temp.params(4, 'batch'));
ROLLBACK;
-- of the fourth there is no id
SELECT at_clerk FROM pg_temp.everything();
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1;

--
-- Clerk cannot be reached, or refuses: one attempt, two seconds for all, and a warning
--
SELECT pg_temp.fresh();
BEGIN;
SELECT pg_temp.created('acme');
SELECT mock.script('{"match": {"method": "DELETE"}, "times": 0, "reset": "before"}');
ROLLBACK;
SELECT mock.unscript(), mock.forget();
BEGIN;
SELECT pg_temp.created('beta');
SELECT pg_temp.created('gamma');
SELECT mock.script('[{"match": {"method": "DELETE"}, "status": 500, "body": {"errors": [{"message": "no", "code": "internal_error"}]}},
    {"match": {"method": "DELETE"}, "status": 429, "headers": {"Retry-After": "0"}, "body": {"errors": [{"message": "slow down", "code": "too_many_requests"}]}}]');
ROLLBACK;
SELECT method, status, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT at_clerk FROM pg_temp.everything();
-- silence: the others are deleted all the same
SELECT pg_temp.fresh();
BEGIN;
SELECT count(pg_temp.created('many' || n)) FROM generate_series(1, 40) AS n;
SELECT mock.script('[{"match": {"method": "DELETE", "path": "/enterprise_connections/entconn_000002"}, "hold": true},
    {"match": {"method": "DELETE", "path": "/enterprise_connections/entconn_000039"}, "hold": true}]');
SELECT clock_timestamp() AS start \gset
ROLLBACK;
SELECT clock_timestamp() - :'start' BETWEEN '1.8 s' AND '4 s' AS in_time;
SELECT * FROM pg_temp.everything();
-- and nobody answers at all, to more than go at a time; the session goes on
SELECT pg_temp.fresh();
SET client_min_messages = error;
BEGIN;
SELECT count(pg_temp.created('many' || n)) FROM generate_series(1, 20) AS n;
SELECT mock.script('{"match": {"method": "DELETE"}, "times": 0, "hold": true}');
SELECT clock_timestamp() AS start \gset
ROLLBACK;
SELECT clock_timestamp() - :'start' BETWEEN '1.8 s' AND '4 s' AS in_time;
RESET client_min_messages;
SELECT mock.unscript();
SELECT pg_temp.created('next');
SELECT count(*) AS at_clerk, count(tracked) AS tracked FROM pg_temp.everything();

-- gone already; only Clerk can say so
SELECT pg_temp.fresh();
BEGIN;
SELECT pg_temp.created('gone');
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
ROLLBACK;
SELECT method, status FROM pg_temp.sent();
BEGIN;
SELECT pg_temp.created('acme');
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 404, "headers": {"Content-Type": "text/html"}, "body": "<h1>404 Not Found</h1>nginx"}');
ROLLBACK;
BEGIN;
SELECT pg_temp.created('beta');
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 200, "headers": {"Content-Type": "text/html"}, "body": "<h1>Log in to the hotel</h1>"}');
ROLLBACK;
SELECT at_clerk FROM pg_temp.everything();

--
-- PREPARE TRANSACTION: nobody would know of it later
--
SELECT pg_temp.fresh();
-- (psql's releases disagree on the order of an error and the warning that follows it)
SET client_min_messages = error;
SET pg_clerk.on_rollback = 'warn';
BEGIN;
SELECT pg_temp.created('warned of');
PREPARE TRANSACTION 'regress_rollback';
\echo :SQLSTATE
RESET client_min_messages;
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SAVEPOINT a;
SELECT pg_temp.created('deleted');
RELEASE a;
PREPARE TRANSACTION 'regress_rollback';
\echo :SQLSTATE
SELECT * FROM pg_temp.everything();
-- there is nothing left to worry about
BEGIN;
SELECT delete_enterprise_connection(pg_temp.created('acme'))->'deleted' AS deleted;
SAVEPOINT a;
SELECT pg_temp.created('beta');
ROLLBACK TO a;
PREPARE TRANSACTION 'regress_rollback';
COMMIT PREPARED 'regress_rollback';
-- who knows what he does
SET pg_clerk.on_rollback = 'ignore';
BEGIN;
SELECT pg_temp.created('committed');
PREPARE TRANSACTION 'regress_rollback';
SELECT * FROM pg_temp.everything();
COMMIT PREPARED 'regress_rollback';
BEGIN;
SELECT pg_temp.created('rolled back');
PREPARE TRANSACTION 'regress_rollback';
-- the next transaction is not burdened with it
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SELECT pg_temp.created('deleted');
ROLLBACK;
ROLLBACK PREPARED 'regress_rollback';
SELECT * FROM pg_temp.everything();
SELECT count(*) AS prepared FROM pg_prepared_xacts;

RESET pg_clerk.on_rollback;
