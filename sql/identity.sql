-- Identity: a server or role of an old name inherits nothing, and one that is
-- renamed keeps what is its own.
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
\set VERBOSITY default
CREATE ROLE regress_alice;
CREATE ROLE regress_eve;
GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO regress_eve;
SELECT url FROM mock.server \gset
CREATE FUNCTION pg_temp.make_server(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url %L, rate_limit ''0'')', name, mock.url());
    EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER %I OPTIONS (secret_key ''sk_test_mock'')', name);
    EXECUTE format('GRANT USAGE ON FOREIGN SERVER %I TO regress_alice, regress_eve', name);
END
$$;
CREATE VIEW pg_temp.kept AS
    SELECT 'connection' AS what, server, key, name FROM enterprise_connections WHERE server LIKE 'regress%'
    UNION ALL SELECT 'request', server, key, params->>'name' FROM enterprise_connection_requests WHERE server LIKE 'regress%'
    ORDER BY 1, 2, 3;
GRANT SELECT ON pg_temp.kept TO PUBLIC;

--
-- A server that is renamed takes its rows along
--
SELECT pg_temp.make_server('regress_a');
SET ROLE regress_alice;
SELECT upsert_enterprise_connection('one', '{"name": "One"}', 'regress_a')->>'name' AS name;
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('update', '{"name": "One 2"}', 'one', server => 'regress_a') AS request;
RESET client_min_messages;
RESET ROLE;
ALTER SERVER regress_a RENAME TO regress_b;
TABLE pg_temp.kept;
CALL deliver_enterprise_connections();
TABLE pg_temp.kept;
SELECT upsert_enterprise_connection('one', '{"name": "One 3"}', 'regress_b')->>'id' = (SELECT id FROM enterprise_connections WHERE key = 'one') AS same;
-- another one of the old name has none of them
SET ROLE regress_eve;
CREATE SERVER regress_a FOREIGN DATA WRAPPER pg_clerk;
SELECT count(*) FROM enterprise_connections WHERE server = 'regress_a';
DROP SERVER regress_a;
RESET ROLE;

--
-- A server that is dropped takes its rows with it
--
SET client_min_messages = error;
SET ROLE regress_alice;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Secret", "oidc": {"client_secret": "s3cr3t"}}', 'two', server => 'regress_b') AS request;
RESET ROLE;
RESET client_min_messages;
BEGIN;
DROP SERVER regress_b CASCADE;
ROLLBACK;
TABLE pg_temp.kept;
DROP SERVER regress_b CASCADE;
TABLE pg_temp.kept;
-- also by way of its owner
SET ROLE regress_eve;
CREATE SERVER regress_c FOREIGN DATA WRAPPER pg_clerk;
RESET ROLE;
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_c", "name": "C", "provider": "saml_okta", "domains": [], "active": false, "created_at": 1, "updated_at": 1}', 'regress_c', 'c');
TABLE pg_temp.kept;
DROP OWNED BY regress_eve;
TABLE pg_temp.kept;
GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO regress_eve;

--
-- Rows without a server, as of a dump that was restored without it: only for whom the tables belong to
--
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_d", "name": "D", "provider": "saml_okta", "domains": [], "active": false, "created_at": 1, "updated_at": 1}', 'regress_d', 'd');
SET ROLE regress_eve;
CREATE SERVER regress_d FOREIGN DATA WRAPPER pg_clerk;
CREATE SERVER regress_e FOREIGN DATA WRAPPER pg_clerk;
ALTER SERVER regress_e RENAME TO regress_d;
RESET ROLE;
CREATE SERVER regress_d FOREIGN DATA WRAPPER pg_clerk;
CREATE SERVER IF NOT EXISTS regress_d FOREIGN DATA WRAPPER pg_clerk;
TABLE pg_temp.kept;
DROP SERVER regress_d, regress_e;

--
-- Nobody drops or renames what a transaction is writing to
--
SELECT pg_temp.make_server('regress_f');
BEGIN;
SET LOCAL client_min_messages = error;
SELECT enqueue_enterprise_connection('delete', key => 'f', server => 'regress_f') AS request;
SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND classid = 'pg_foreign_server'::regclass;
ROLLBACK;

--
-- A role that is renamed keeps its requests; a new one of the name has none of them
--
SET client_min_messages = error;
SET ROLE regress_alice;
SELECT enqueue_enterprise_connection('create', '{"name": "Of Alice"}', server => 'regress_f') AS request \gset
RESET ROLE;
ALTER ROLE regress_alice RENAME TO regress_alicia;
CREATE ROLE regress_alice;
GRANT USAGE ON FOREIGN SERVER regress_f TO regress_alice;
SET ROLE regress_alice;
SELECT count(*) AS seen FROM enterprise_connection_requests;
SELECT count(*) AS seen FROM enterprise_connection_status WHERE request IS NOT NULL;
SELECT await_enterprise_connection(:request);
SELECT cancel_enterprise_connection_request(:request);
CALL deliver_enterprise_connections();
RESET ROLE;
SET ROLE regress_alicia;
SELECT count(*) AS seen FROM enterprise_connection_requests;
CALL deliver_enterprise_connections();
SELECT await_enterprise_connection(:request)->>'name' AS name;
SELECT enqueue_enterprise_connection('create', '{"name": "Of the late Alicia"}', server => 'regress_f') AS request \gset
RESET ROLE;
DROP OWNED BY regress_alicia;
DROP ROLE regress_alicia;
ALTER ROLE regress_alice RENAME TO regress_alicia;
SET ROLE regress_alicia;
SELECT count(*) AS seen FROM enterprise_connection_requests;
CALL deliver_enterprise_connections();
RESET ROLE;
CALL deliver_enterprise_connections();
SELECT state, error->>'sqlstate' AS sqlstate, error->>'message' AS message FROM enterprise_connection_requests WHERE id = :request;
-- where the request was enqueued in another database, it is the name that counts
UPDATE enterprise_connection_requests SET origin = origin + 1, role_oid = 0;
SET ROLE regress_alicia;
SELECT count(*) AS seen FROM enterprise_connection_requests WHERE role = 'regress_alicia';
RESET ROLE;
UPDATE enterprise_connection_requests SET role = 'regress_alicia', state = 'queued', finished_at = NULL, next_attempt_at = now() WHERE id = :request;
SET ROLE regress_alicia;
SELECT count(*) AS seen FROM enterprise_connection_requests WHERE id = :request;
-- and it is looked up before it is sent
CALL deliver_enterprise_connections();
SELECT state, origin = enterprise_connection_origin() AS here, role_oid = current_user::regrole AS mine FROM enterprise_connection_requests WHERE id = :request;
RESET ROLE;
RESET client_min_messages;

\set VERBOSITY terse
SET client_min_messages = error;
DROP SERVER regress_f CASCADE;
DROP OWNED BY regress_alicia, regress_eve;
DROP ROLE regress_alicia, regress_eve;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
RESET client_min_messages;
