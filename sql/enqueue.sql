-- A new row of the outbox: what is in it, in which order, and what others may
-- have added to the table.
SET client_min_messages = error;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
-- told once in a session, where no worker is
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') AS request;
\set enqueue 'SELECT enqueue_enterprise_connection(\'upsert\', \'{"name": "Acme"}\', \'acme\') AS request;'

--
-- A row
--
-- an id that has a key is in the key's lane
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_2", "name": "Acme", "provider": "saml_okta", "domains": [], "created_at": 1, "updated_at": 1}', 'clerk', 'key');
SELECT enqueue_enterprise_connection('delete', id => 'entconn_2') AS request;
SELECT key, connection_id, lane FROM enterprise_connection_requests ORDER BY id DESC LIMIT 1;
-- with these defaults
BEGIN;
:enqueue
SELECT server, role = current_user AS mine, operation, key, connection_id, params, state, attempts, next_attempt_at = now() AS due, created_at = now() AS now, started_at, finished_at
FROM enterprise_connection_requests WHERE key = 'acme';
SELECT server_oid = (SELECT oid FROM pg_foreign_server WHERE srvname = 'clerk') AS server, role_oid = current_user::regrole AS role, origin = enterprise_connection_origin() AS here, timeline,
    http_status, error, step, doubt_since, lane, claimer, superseded_by, priority, scrubbed, xact = pg_current_xact_id() AS mine
FROM enterprise_connection_requests WHERE key = 'acme';
COMMIT;

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

-- a sequence that was set back orders nothing anew
SELECT setval('enterprise_connection_requests_id_seq', 5) AS set_back;
SELECT enqueue_enterprise_connection('delete', key => 'after') = max(id) + 1 AS next FROM enterprise_connection_requests;

--
-- What was added to the table
--
\set VERBOSITY terse
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
-- a column
BEGIN;
ALTER TABLE enterprise_connection_requests ADD regress_column text DEFAULT 'default';
:enqueue
SELECT DISTINCT regress_column FROM enterprise_connection_requests;
ROLLBACK;

--
-- Where nothing can be written
--
CREATE TEMP TABLE regress_orgs (id int PRIMARY KEY, name text);
CREATE TRIGGER sso AFTER INSERT ON regress_orgs FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=orgs:id', 'name=name');
BEGIN READ ONLY;
INSERT INTO regress_orgs VALUES (1, 'Acme');
ROLLBACK;
INSERT INTO regress_orgs VALUES (1, 'Acme');
SELECT operation, key, state FROM enterprise_connection_requests WHERE key LIKE 'orgs:%';

DROP TABLE regress_orgs;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
