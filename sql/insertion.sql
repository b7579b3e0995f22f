-- A new row of the outbox is inserted without a statement, unless the table was
-- altered in a way that only a statement can honour.  Which of the two it is,
-- debug1 tells.
SET client_min_messages = error;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
-- told once in a session, where no worker is
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') AS request;
\set enqueue 'SET client_min_messages = debug1; SELECT enqueue_enterprise_connection(\'upsert\', \'{"name": "Acme"}\', \'acme\') AS request; SET client_min_messages = error;'

--
-- A row is what a statement would insert, by whichever way it comes
--
CREATE FUNCTION pg_temp.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE DEBUG 'trigger: request %', NEW.id;
    RETURN NULL;
END
$$;
CREATE FUNCTION pg_temp.enqueue_all() RETURNS bigint[] LANGUAGE sql AS $$
    SELECT ARRAY[
        enqueue_enterprise_connection('create', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}'),
        enqueue_enterprise_connection('create', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}', 'key'),
        enqueue_enterprise_connection('upsert', '{"name": "Acme"}', 'key'),
        enqueue_enterprise_connection('update', '{"active": false}', id => 'entconn_1'),
        enqueue_enterprise_connection('update', jsonb_build_object('saml', jsonb_build_object('idp_metadata', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n))), 'long'),
        enqueue_enterprise_connection('delete', id => 'entconn_2'),
        enqueue_enterprise_connection('delete', key => E'\u6f22')]
$$;
-- an id that has a key is in the key's lane
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_2", "name": "Acme", "provider": "saml_okta", "domains": [], "created_at": 1, "updated_at": 1}', 'clerk', 'key');
BEGIN;
SET LOCAL client_min_messages = debug1;
SELECT pg_temp.enqueue_all() AS requests;
SAVEPOINT altered;
SET client_min_messages = error;
CREATE TEMP TABLE directly AS SELECT row_number() OVER (ORDER BY id) AS n, to_jsonb(q) - 'id' AS request FROM enterprise_connection_requests q WHERE id > 1;
DELETE FROM enterprise_connection_requests WHERE id > 1;
CREATE TRIGGER note AFTER INSERT ON enterprise_connection_requests FOR EACH ROW EXECUTE FUNCTION pg_temp.note();
SET client_min_messages = debug1;
SELECT pg_temp.enqueue_all() AS requests;
SET client_min_messages = error;
SELECT n, d.request->>'operation' AS operation, d.request->>'lane' AS lane, d.request->>'next_attempt_at' = 'infinity' AS behind,
    d.request = s.request AS same
FROM directly d FULL JOIN (SELECT row_number() OVER (ORDER BY id) AS n, to_jsonb(q) - 'id' AS request FROM enterprise_connection_requests q WHERE id > 1) s USING (n)
ORDER BY n;
ROLLBACK;
-- with these defaults
BEGIN;
:enqueue
SELECT server, role = current_user AS mine, operation, key, connection_id, params, state, attempts, next_attempt_at = now() AS due, created_at = now() AS now, started_at, finished_at
FROM enterprise_connection_requests WHERE key = 'acme';
SELECT http_status, error, step, doubt_since, lane, claimer, superseded_by, awaits, look_up, scrubbed, xact = pg_current_xact_id() AS mine
FROM enterprise_connection_requests WHERE key = 'acme';
COMMIT;

--
-- All constraints hold
--
SELECT count(*) > 0 AS rows FROM enterprise_connection_requests;
CREATE FUNCTION pg_temp.violations(condition text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE 'SELECT count(*) FROM enterprise_connection_requests WHERE NOT ' || condition INTO result;
    RETURN result;
END
$$;
SELECT count(*) > 5 AS several, sum(pg_temp.violations(substr(pg_get_constraintdef(oid), 6))) AS violations
FROM pg_constraint WHERE conrelid = 'enterprise_connection_requests'::regclass AND contype = 'c';

--
-- In order, and seen at once
--
TRUNCATE enterprise_connection_requests RESTART IDENTITY;
SELECT count(*), count(*) FILTER (WHERE id = n) AS in_order
FROM (SELECT n, enqueue_enterprise_connection('delete', key => 'many:' || n) AS id FROM generate_series(1, 1000) AS n) AS q;
-- in its lane, behind one that the same statement has enqueued
SELECT enqueue_enterprise_connection('delete', key => key) > 0 AS enqueued FROM unnest(ARRAY['a', 'b', 'a']) AS key;
SELECT lane, next_attempt_at = 'infinity' AS behind FROM enterprise_connection_requests WHERE id > 1000 ORDER BY id;
-- by what the same statement calls next
SELECT cancel_enterprise_connection_request(enqueue_enterprise_connection('delete', key => 'undone'));
SELECT state FROM enterprise_connection_requests WHERE key = 'undone';
-- not, if it was rolled back
BEGIN;
SAVEPOINT s;
SELECT enqueue_enterprise_connection('delete', key => 'again') > 0 AS enqueued;
ROLLBACK TO s;
SELECT enqueue_enterprise_connection('delete', key => 'again') > 0 AS enqueued;
SELECT key, next_attempt_at = 'infinity' AS behind FROM enterprise_connection_requests WHERE key = 'again';
COMMIT;
-- whatever the transaction's snapshot
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM enterprise_connection_requests WHERE key = 'again';
SELECT enqueue_enterprise_connection('delete', key => 'again') > 0 AS enqueued;
SELECT key, next_attempt_at = 'infinity' AS behind FROM enterprise_connection_requests WHERE key = 'again' ORDER BY id;
-- nothing was read, so nobody can have changed it
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'SIReadLock' AND relation = 'enterprise_connection_requests_lane_idx'::regclass;
COMMIT;

--
-- What was added to the table
--
\set VERBOSITY terse
-- an index: maintained, if the row belongs to it
CREATE INDEX regress_deletes ON enterprise_connection_requests (key, role, id) WHERE operation = 'delete';
CREATE UNIQUE INDEX regress_once ON enterprise_connection_requests (key) WHERE key LIKE 'once%';
CREATE INDEX regress_operation ON enterprise_connection_requests USING hash (operation);
:enqueue
DROP INDEX regress_operation;
CREATE INDEX regress_length ON enterprise_connection_requests (length(key));
:enqueue
DROP INDEX regress_length;
CREATE INDEX regress_params ON enterprise_connection_requests USING gin (params) WHERE operation = 'delete';
:enqueue
SET client_min_messages = debug1;
SELECT enqueue_enterprise_connection('delete', key => 'by a statement') > 0 AS enqueued;
SET client_min_messages = error;
DROP INDEX regress_params;
:enqueue
SELECT enqueue_enterprise_connection('delete', key => 'indexed') > 0 AS enqueued;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT key FROM enterprise_connection_requests WHERE operation = 'delete' AND key > 'b' AND key < 'n' AND key NOT LIKE 'many%' ORDER BY key;
SELECT key FROM enterprise_connection_requests WHERE operation = 'delete' AND key > 'b' AND key < 'n' AND key NOT LIKE 'many%' ORDER BY key;
RESET enable_seqscan;
RESET enable_bitmapscan;
SELECT enqueue_enterprise_connection('delete', key => 'once and') > 0 AS enqueued;
SELECT enqueue_enterprise_connection('delete', key => 'once and') > 0 AS enqueued;
-- a constraint: checked, also for the first row after it was added
ALTER TABLE enterprise_connection_requests ADD CONSTRAINT regress_check CHECK (key <> 'forbidden') NOT VALID;
SELECT enqueue_enterprise_connection('delete', key => 'forbidden');
:enqueue
SELECT enqueue_enterprise_connection('delete', key => 'forbidden');
ALTER TABLE enterprise_connection_requests DROP CONSTRAINT regress_check;
SELECT enqueue_enterprise_connection('delete', key => 'forbidden') > 0 AS enqueued;
ALTER TABLE enterprise_connection_requests ALTER lane SET NOT NULL;
SELECT enqueue_enterprise_connection('create', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}');
ALTER TABLE enterprise_connection_requests ALTER lane DROP NOT NULL;
-- one that calls a function, which can be replaced
CREATE FUNCTION pg_temp.accepted(key text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
ALTER TABLE enterprise_connection_requests ADD CONSTRAINT regress_check CHECK (pg_temp.accepted(key));
:enqueue
CREATE OR REPLACE FUNCTION pg_temp.accepted(key text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
:enqueue
ALTER TABLE enterprise_connection_requests DROP CONSTRAINT regress_check;
-- a column, a rule
BEGIN;
ALTER TABLE enterprise_connection_requests ADD regress_column text DEFAULT 'default';
:enqueue
SELECT DISTINCT regress_column FROM enterprise_connection_requests;
ROLLBACK;
BEGIN;
CREATE RULE regress_rule AS ON INSERT TO enterprise_connection_requests DO ALSO NOTIFY regress_rule;
:enqueue
ROLLBACK;
-- a foreign key that refers to it
CREATE TABLE regress_references (request bigint REFERENCES enterprise_connection_requests ON DELETE CASCADE);
:enqueue
INSERT INTO regress_references SELECT enqueue_enterprise_connection('delete', key => 'referenced');
DROP TABLE regress_references;
DROP INDEX regress_deletes, regress_once;
:enqueue

--
-- Where nothing can be written
--
CREATE TEMP TABLE regress_orgs (id int PRIMARY KEY, name text);
CREATE TRIGGER sso AFTER INSERT ON regress_orgs FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'key_prefix:=orgs');
BEGIN READ ONLY;
INSERT INTO regress_orgs VALUES (1, 'Acme');
ROLLBACK;
INSERT INTO regress_orgs VALUES (1, 'Acme');
SELECT operation, key, state FROM enterprise_connection_requests WHERE key LIKE 'orgs:%';

DROP TABLE regress_orgs;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
