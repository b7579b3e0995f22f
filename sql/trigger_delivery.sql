-- sync_enterprise_connection(), delivered: what becomes of the connections of
-- rows that go off and on, or away.
CALL box.start_over();
SET client_min_messages = error;
CREATE TABLE regress_orgs (id int PRIMARY KEY, name text, domains text[], url text, sso boolean DEFAULT true);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'saml.idp_metadata_url=url', 'when=sso');
CREATE FUNCTION pg_temp.active() RETURNS TABLE (key text, at_clerk boolean, tracked boolean, reactivate boolean) LANGUAGE sql AS $$
    SELECT e.key, (m->>'active')::boolean, e.active, e.reactivate FROM enterprise_connections AS e JOIN mock.connections() AS m ON m->>'id' = e.id ORDER BY 1
$$;
CREATE FUNCTION pg_temp.states() RETURNS TABLE (operation text, key text, state text, error text) LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM enterprise_connection_requests q WHERE q.finished_at IS NOT NULL RETURNING *)
    SELECT t.operation::text, t.key, t.state::text, concat_ws(': ', t.error->>'sqlstate', t.error->>'message') FROM taken AS t ORDER BY t.id
$$;

-- metadata comes later: the connection is there before, of the right provider
INSERT INTO regress_orgs VALUES (1, 'One', '{one.example}', NULL), (2, 'Two', '{two.example}', 'https://idp.example/2');
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
UPDATE regress_orgs SET url = 'https://idp.example/1' WHERE id = 1;
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
-- one that nobody has activated is not set inactive, and not activated
UPDATE regress_orgs SET sso = false WHERE id = 1;
CALL deliver_enterprise_connections();
UPDATE regress_orgs SET sso = true WHERE id = 1;
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
SELECT * FROM pg_temp.active();
-- one that is active, also if that was done in Clerk's dashboard: both
SELECT update_enterprise_connection(id, '{"active": true}')->'active' AS active FROM enterprise_connections WHERE key IN ('org:1', 'org:2');
UPDATE enterprise_connections SET active = false, connection = connection || '{"active": false}' WHERE key = 'org:2';
SELECT count(*) FROM box.sent();
UPDATE regress_orgs SET sso = false;
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent() ORDER BY target, method;
SELECT * FROM pg_temp.active();
-- half of what makes it ready: nothing; ready, it is active as before
UPDATE regress_orgs SET sso = true, name = NULL WHERE id = 1;
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
UPDATE regress_orgs SET sso = true, name = coalesce(name, 'One b');
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent() ORDER BY target, method, body::text;
SELECT * FROM pg_temp.active();
-- off and on before anything is sent
BEGIN;
UPDATE regress_orgs SET sso = false WHERE id = 2;
UPDATE regress_orgs SET sso = true WHERE id = 2;
COMMIT;
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
SELECT * FROM pg_temp.active();
SELECT operation, state, count(*) FROM pg_temp.states() GROUP BY 1, 2 ORDER BY 1, 2;

-- Clerk does not let it be active again: the rest goes through, and plan says what is left
UPDATE regress_orgs SET sso = false WHERE id = 2;
CALL deliver_enterprise_connections();
SELECT mock.script('{"match": {"method": "PATCH", "body_contains": "{\"active\":true}"}, "status": 422, "headers": {"Content-Type": "application/json"},
    "body": {"errors": [{"message": "cannot be active", "long_message": "The connection cannot be active.", "code": "form_param_invalid", "meta": {"param_name": "active"}}]}}');
UPDATE regress_orgs SET sso = true, name = 'Two b' WHERE id = 2;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.states();
SELECT * FROM pg_temp.active();
SELECT key, change, path, wanted, actual FROM plan_enterprise_connections('regress_orgs', 'sso');
SELECT count(*) FROM box.sent();
SELECT key, change, path FROM reconcile_enterprise_connections('regress_orgs', 'sso', refresh => false);
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
SELECT * FROM pg_temp.active();
SELECT count(*) FROM pg_temp.states();

-- what finds nothing says so: gone at Clerk, or never there
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS gone;
UPDATE regress_orgs SET sso = false WHERE id = 1;
DELETE FROM regress_orgs WHERE id = 2;
INSERT INTO regress_orgs VALUES (3, 'Three', '{localhost}', NULL, true);
CALL deliver_enterprise_connections();
UPDATE regress_orgs SET sso = false WHERE id = 3;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('delete', key => 'never') > 0 AS enqueued;
SELECT enqueue_enterprise_connection('delete', id => 'entconn_never') > 0 AS enqueued;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.states();
SELECT key FROM enterprise_connections;

-- a row that is not ready gives up nothing: who wants its domain learns who has it
TRUNCATE regress_orgs;
CALL box.start_over();
INSERT INTO regress_orgs VALUES (1, 'One', '{one.example,moves.example}'), (2, 'Two', '{two.example}');
CALL deliver_enterprise_connections();
UPDATE regress_orgs SET sso = false WHERE id = 1;
UPDATE regress_orgs SET domains = '{one.example}' WHERE id = 1;
UPDATE regress_orgs SET domains = '{two.example,moves.example}' WHERE id = 2;
CALL box.deliver_all();
SELECT key, state, error->>'message' AS message, error->>'hint' AS hint FROM enterprise_connection_requests WHERE state = 'failed' \gx
SELECT key, change, path, wanted, actual FROM plan_enterprise_connections('regress_orgs', 'sso');
-- ready again, it does
UPDATE regress_orgs SET sso = true WHERE id = 1;
CALL deliver_enterprise_connections();
SELECT key, change, path, wanted, actual FROM reconcile_enterprise_connections('regress_orgs', 'sso', refresh => false);
CALL deliver_enterprise_connections();
SELECT key, name, domains FROM enterprise_connections ORDER BY key;

DROP TABLE regress_orgs;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
