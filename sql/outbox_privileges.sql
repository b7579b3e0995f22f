-- The outbox: who sees, delivers and cancels what.
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
-- Privileges
--
CALL box.start_over();
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
SELECT enterprise_connection_without_secrets('{}');
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
SELECT body->>'name' AS name, status FROM box.sent();
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
CALL box.start_over();
SELECT mock.script('{"match": {"method": "POST"}, "status": 500, "body": ""}');
SELECT enqueue_enterprise_connection('create', box.params('Doubtful')) AS request;
CALL deliver_enterprise_connections();
CALL box.hurry();
SELECT count(*) > 0 AS sent FROM box.sent();
SET ROLE regress_app;
CALL deliver_enterprise_connections();
RESET ROLE;
SELECT id, state FROM outbox;
SELECT count(*) AS sent FROM box.sent();
-- upserts of one key become one, but not those of two roles: neither gets the other's parameters, or acts with its privileges
CALL box.start_over();
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
SELECT method, body FROM box.sent();
-- who waits for a request that has failed is told why, although another role's delete has overtaken it
CALL box.start_over();
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
CALL box.start_over();
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
SELECT count(*) AS sent FROM box.sent();
-- only a superuser knows whose it was
SET ROLE regress_app;
SELECT id, role FROM enterprise_connection_requests ORDER BY id;
SELECT cancel_enterprise_connection_request(4);
RESET ROLE;
SELECT cancel_enterprise_connection_request(4);
DROP OWNED BY regress_app;
DROP ROLE regress_nobody, regress_app, regress_both, regress_monitor;

-- as it was
CALL box.start_over();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
ALTER SYSTEM RESET pg_clerk.naptime;
SELECT pg_reload_conf();
