-- pg_clerk.on_rollback: what becomes of a connection whose transaction is
-- rolled back, in each of the ways that PostgreSQL has for that.
SELECT mock.reset();
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

--
-- warn
--
LOAD 'pg_clerk';
SHOW pg_clerk.on_rollback;
BEGIN;
SELECT test.created('acme');
SELECT test.created('beta');
ROLLBACK;
SELECT * FROM test.everything();
-- the hint helps
SELECT delete_enterprise_connection('entconn_000001')->'deleted' AS deleted;
SELECT adopt_enterprise_connection('customer:1', 'entconn_000002')->>'name' AS name;
-- nothing is said of what is committed, nor of a transaction that created none
BEGIN;
SELECT test.created('acme');
COMMIT;
BEGIN;
SELECT update_enterprise_connection('entconn_000003', '{"name": "changed"}')->>'name' AS name;
SELECT delete_enterprise_connection('entconn_000002')->'deleted' AS deleted;
ROLLBACK;
-- what is not a creation is not undone either
SELECT * FROM test.everything();
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1, 2;

-- ROLLBACK TO: only what came after the savepoint
CALL box.start_over();
BEGIN;
SELECT test.created('kept');
SAVEPOINT a;
SELECT test.created('a1');
SAVEPOINT b;
SELECT test.created('b1');
ROLLBACK TO b;
SELECT test.created('b2');
SAVEPOINT c;
SELECT test.created('c1');
RELEASE c;
SELECT test.created('b3');
ROLLBACK TO a;
-- once only
ROLLBACK TO a;
SELECT test.created('a2');
COMMIT;
SELECT * FROM test.everything();
-- RELEASE, then ROLLBACK; and the other way round
CALL box.start_over();
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT test.created('b1');
RELEASE b;
RELEASE a;
SELECT test.created('top');
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT test.created('a1');
ROLLBACK TO a;
RELEASE a;
COMMIT;
-- a savepoint after the create saves nothing
BEGIN;
SELECT test.created('before');
SAVEPOINT a;
SELECT test.created('after');
ROLLBACK AND CHAIN;
SELECT test.created('chained');
COMMIT;
SELECT * FROM test.everything();

-- EXCEPTION blocks
CALL box.start_over();
DO $$
BEGIN
    PERFORM test.created('outer');
    BEGIN
        PERFORM test.created('inner');
        BEGIN
            PERFORM test.created('innermost');
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'never';
        END;
        RAISE NOTICE 'now %', 1 / (SELECT count(*) - 3 FROM enterprise_connections);
    EXCEPTION WHEN division_by_zero THEN
        RAISE NOTICE 'caught, and % row is left', (SELECT count(*) FROM enterprise_connections);
        PERFORM test.created('instead');
    END;
END
$$;
SELECT * FROM test.everything();
-- after a COMMIT or ROLLBACK within the block, the next transaction
CALL box.start_over();
DO $$
BEGIN
    PERFORM test.created('first');
    ROLLBACK;
    PERFORM test.created('second');
    COMMIT;
    PERFORM test.created('third');
    ROLLBACK;
END
$$;
SELECT * FROM test.everything();

-- an error after the create: in the same statement, in the next call of it, in
-- a trigger's row
CALL box.start_over();
CREATE TABLE regress_customer (name text PRIMARY KEY, connection text);
CREATE TRIGGER connects BEFORE INSERT ON regress_customer FOR EACH ROW EXECUTE FUNCTION test.connects();
INSERT INTO regress_customer VALUES ('Acme');
DO $$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'SELECT 1 / (length(test.created(''one'')) - 14)',
        'SELECT test.created(n) FROM unnest(ARRAY[''two'', ''three'', ''two'']) AS n',
        'UPDATE regress_customer SET connection = test.created(''four''), name = NULL',
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
SELECT * FROM test.everything();
SELECT * FROM regress_customer;
DROP TABLE regress_customer;

--
-- Created and deleted: nothing is left, so nothing is said or done
--
CALL box.start_over();
SET pg_clerk.on_rollback = 'warn';
BEGIN;
SELECT delete_enterprise_connection(test.created('acme'))->'deleted' AS deleted;
ROLLBACK;
-- wherever the deletion was: nothing brings it back
BEGIN;
SELECT test.created('beta') AS id \gset
SAVEPOINT a;
SELECT delete_enterprise_connection(:'id')->'deleted' AS deleted;
ROLLBACK TO a;
ROLLBACK;
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SAVEPOINT a;
SELECT test.created('gamma') AS id \gset
RELEASE a;
SELECT delete_enterprise_connection(:'id')->'deleted' AS deleted;
ROLLBACK;
SELECT * FROM test.everything();
SELECT method, target, status FROM mock.sent() ORDER BY 1 DESC, 2, 3;
-- somebody else has deleted it; a deletion that failed is none
BEGIN;
SELECT test.created('acme') AS id \gset
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT delete_enterprise_connection(:'id');
ROLLBACK;
SELECT method, status FROM mock.sent() ORDER BY 1 DESC, 2;
BEGIN;
SELECT test.created('acme') AS id \gset
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 500, "body": {"errors": [{"message": "no", "code": "internal_error"}]}}');
SAVEPOINT a;
SELECT delete_enterprise_connection(:'id');
ROLLBACK TO a;
ROLLBACK;
SELECT method, status FROM mock.sent() ORDER BY 1 DESC, 2;
SELECT * FROM test.everything();

--
-- ignore
--
SET pg_clerk.on_rollback = 'ignore';
CALL box.start_over();
BEGIN;
SELECT test.created('acme');
SAVEPOINT a;
SELECT test.created('beta');
ROLLBACK TO a;
SELECT 1 / 0;
ROLLBACK;
SELECT * FROM test.everything();
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1, 2;

--
-- As it was at the call
--
CALL box.start_over();
BEGIN;
SET LOCAL pg_clerk.on_rollback = 'delete';
SELECT test.created('deleted');
SET LOCAL pg_clerk.on_rollback = 'warn';
SELECT test.created('warned of');
SET LOCAL pg_clerk.on_rollback = 'ignore';
SELECT test.created('ignored');
ROLLBACK;
SELECT * FROM test.everything();
-- of a function with a setting of its own; the session says ignore
CREATE FUNCTION pg_temp.created_carefully(name text) RETURNS text LANGUAGE plpgsql SET pg_clerk.on_rollback = 'delete' AS $$
BEGIN
    RETURN test.created(name);
END
$$;
BEGIN;
SELECT pg_temp.created_carefully('carefully');
ROLLBACK;
SELECT * FROM test.everything();
SET pg_clerk.on_rollback = 'perhaps';
RESET pg_clerk.on_rollback;

--
-- PREPARE TRANSACTION: nobody would know of it later
--
CALL box.start_over();
-- (psql's releases disagree on the order of an error and the warning that follows it)
SET client_min_messages = error;
SET pg_clerk.on_rollback = 'warn';
BEGIN;
SELECT test.created('warned of');
PREPARE TRANSACTION 'regress_rollback';
\echo :SQLSTATE
RESET client_min_messages;
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SAVEPOINT a;
SELECT test.created('deleted');
RELEASE a;
PREPARE TRANSACTION 'regress_rollback';
\echo :SQLSTATE
SELECT * FROM test.everything();
-- there is nothing left to worry about
BEGIN;
SELECT delete_enterprise_connection(test.created('acme'))->'deleted' AS deleted;
SAVEPOINT a;
SELECT test.created('beta');
ROLLBACK TO a;
PREPARE TRANSACTION 'regress_rollback';
COMMIT PREPARED 'regress_rollback';
-- who knows what he does
SET pg_clerk.on_rollback = 'ignore';
BEGIN;
SELECT test.created('committed');
PREPARE TRANSACTION 'regress_rollback';
SELECT * FROM test.everything();
COMMIT PREPARED 'regress_rollback';
BEGIN;
SELECT test.created('rolled back');
PREPARE TRANSACTION 'regress_rollback';
-- the next transaction is not burdened with it
SET pg_clerk.on_rollback = 'delete';
BEGIN;
SELECT test.created('deleted');
ROLLBACK;
ROLLBACK PREPARED 'regress_rollback';
SELECT * FROM test.everything();
SELECT count(*) AS prepared FROM pg_prepared_xacts;

RESET pg_clerk.on_rollback;
