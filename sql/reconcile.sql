-- plan_enterprise_connections() and reconcile_enterprise_connections(): the rows
-- of a trigger's table beside what is tracked.
CALL box.start_over();
\set VERBOSITY default
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') > 0 AS enqueued;
RESET client_min_messages;
SELECT * FROM box.enqueued();
CREATE SCHEMA regress_sync;
CREATE TABLE regress_sync.orgs (dropped int, id int PRIMARY KEY, name text, more int, domains text[], org text, url text, wanted boolean DEFAULT true);
ALTER TABLE regress_sync.orgs DROP dropped, DROP more;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'organization_id=org', 'domains=domains', 'saml.idp_metadata_url=url', 'when=wanted');
-- Rows come and change without the trigger's knowledge, as if by a restore.
ALTER TABLE regress_sync.orgs DISABLE TRIGGER sso;
CREATE FUNCTION pg_temp.plan(refresh boolean DEFAULT false) RETURNS TABLE (key text, id text, change text, path text, wanted jsonb, actual jsonb)
LANGUAGE sql AS $$SELECT * FROM plan_enterprise_connections('regress_sync.orgs', 'sso', refresh)$$;
CREATE FUNCTION pg_temp.reconcile(adopt boolean DEFAULT false, prune boolean DEFAULT false, force boolean DEFAULT false, refresh boolean DEFAULT false)
RETURNS TABLE (key text, id text, change text, path text, wanted jsonb, actual jsonb)
LANGUAGE sql AS $$SELECT * FROM reconcile_enterprise_connections('regress_sync.orgs', 'sso', refresh, adopt, prune, force)$$;
-- What waits; of bulk work.
CREATE FUNCTION pg_temp.waiting() RETURNS TABLE (operation text, key text, params jsonb, priority smallint)
LANGUAGE sql AS $$SELECT q.operation::text, q.key, q.params, q.priority FROM enterprise_connection_requests q WHERE q.finished_at IS NULL ORDER BY q.id$$;

--
-- create, until all is as it should be
--
INSERT INTO regress_sync.orgs VALUES (1, 'One', '{one.example}', 'org_1', 'https://idp.example/1', true), (2, 'Two', '{two.example}', NULL, NULL, true), (3, '', '{three.example}', NULL, NULL, true), (4, 'Four', '{four.example}', NULL, NULL, false);
SELECT * FROM pg_temp.plan();
SELECT * FROM pg_temp.waiting();
SELECT * FROM pg_temp.reconcile();
SELECT * FROM pg_temp.waiting();
-- once more before they are delivered: merged into one, as any upserts of one key
SELECT count(*) FROM pg_temp.reconcile();
CALL deliver_enterprise_connections();
SELECT * FROM box.sent();
SELECT * FROM pg_temp.plan();
SELECT * FROM pg_temp.reconcile(refresh => true);
SELECT * FROM pg_temp.waiting();
SELECT method, target FROM box.sent();

--
-- update: a row for each member that differs
--
UPDATE regress_sync.orgs SET name = 'One 2', org = NULL, url = 'https://idp.example/new', domains = '{one.example,new.example}' WHERE id = 1;
UPDATE regress_sync.orgs SET name = 'Two 2', url = NULL WHERE id = 2;
SELECT * FROM pg_temp.plan();
SELECT count(*) FROM pg_temp.reconcile();
SELECT * FROM pg_temp.waiting();
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
-- organization_id is not taken away by a null
SELECT * FROM pg_temp.plan();
-- a null where Clerk has a text
UPDATE regress_sync.orgs SET url = NULL WHERE id = 1;
SELECT * FROM pg_temp.reconcile();
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
SELECT * FROM pg_temp.plan();
-- domains are a set, in any case
UPDATE regress_sync.orgs SET domains = '{NEW.example,one.Example,new.example}' WHERE id = 1;
SELECT * FROM pg_temp.plan();
UPDATE regress_sync.orgs SET domains = '{new.example}' WHERE id = 1;
SELECT * FROM pg_temp.plan();
UPDATE regress_sync.orgs SET domains = '{one.example,new.example}' WHERE id = 1;

--
-- What each member is compared with
--
CREATE TABLE regress_sync.members (id int PRIMARY KEY, name text, params jsonb, saml jsonb, attributes jsonb, enabled boolean);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.members FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=member:id', 'name=name', 'saml=saml', 'custom_attributes=attributes', 'sync_user_attributes=enabled', 'provider:=saml_okta');
CREATE FUNCTION pg_temp.differ(new_saml jsonb, new_attributes jsonb, new_enabled boolean, connection jsonb) RETURNS TABLE (change text, path text, wanted jsonb, actual jsonb) LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE enterprise_connections, regress_sync.members;
    ALTER TABLE regress_sync.members DISABLE TRIGGER sso;
    INSERT INTO regress_sync.members VALUES (1, 'M', NULL, new_saml, new_attributes, new_enabled);
    PERFORM track_enterprise_connection('{"id": "entconn_m", "name": "M", "provider": "saml_okta", "active": false, "domains": [], "created_at": 1, "updated_at": 1}' || connection, 'clerk', 'member:1');
    RETURN QUERY SELECT p.change, p.path, p.wanted, p.actual FROM plan_enterprise_connections('regress_sync.members', 'sso') AS p WHERE p.id = 'entconn_m';
END
$$;
-- what Clerk adds is no difference; what differs inside of an object is named
SELECT * FROM pg_temp.differ('{"idp_sso_url": "https://x"}', NULL, NULL, '{"saml_connection": {"id": "samlc_1", "idp_sso_url": "https://x", "acs_url": "https://acs", "active": true}}');
SELECT * FROM pg_temp.differ('{"idp_sso_url": "https://x", "force_authn": true}', NULL, NULL, '{"saml_connection": {"idp_sso_url": "https://y", "force_authn": false}}');
-- what is seldom in an answer: only if it is there
SELECT * FROM pg_temp.differ('{"attribute_mapping": {"user_id": "uid"}}', NULL, NULL, '{"saml_connection": {}}');
SELECT * FROM pg_temp.differ('{"attribute_mapping": {"user_id": "uid"}}', NULL, NULL, '{"saml_connection": {"attribute_mapping": {"user_id": "other", "email_address": "mail"}}}');
-- a null does not set a boolean
SELECT * FROM pg_temp.differ(NULL, NULL, NULL, '{"sync_user_attributes": true}');
SELECT * FROM pg_temp.differ(NULL, NULL, true, '{"sync_user_attributes": false}');
SELECT * FROM pg_temp.differ(NULL, NULL, false, '{}');
-- what is read from the metadata comes back
SELECT * FROM pg_temp.differ('{"idp_entity_id": null, "idp_metadata_url": "https://m"}', NULL, NULL, '{"saml_connection": {"idp_entity_id": "e", "idp_metadata_url": "https://m"}}');
SELECT * FROM pg_temp.differ('{"idp_entity_id": null}', NULL, NULL, '{"saml_connection": {"idp_entity_id": "e"}}');
-- a certificate in its armor
SELECT * FROM pg_temp.differ(jsonb_build_object('idp_certificate', E'-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n'), NULL, NULL, '{"saml_connection": {"idp_certificate": "AAAABBBB"}}');
SELECT * FROM pg_temp.differ('{"idp_certificate": "AAAA BBBC"}', NULL, NULL, '{"saml_connection": {"idp_certificate": "AAAABBBB"}}');
-- arrays of objects, in order; objects by the members that are wanted
SELECT * FROM pg_temp.differ(NULL, '[{"name": "Dept", "key": "d", "sso_path": "x"}]', NULL, '{"custom_attributes": [{"name": "Dept", "key": "d", "sso_path": "x", "scim_path": null, "added": 1}]}');
SELECT * FROM pg_temp.differ(NULL, '[{"name": "Dept", "key": "d", "sso_path": "x"}]', NULL, '{"custom_attributes": []}');
SELECT * FROM pg_temp.differ(NULL, '[]', NULL, '{}');
-- a provider that differs can't be mended
SELECT * FROM pg_temp.differ('{}', NULL, true, '{"provider": "saml_google"}');
SELECT change, path FROM reconcile_enterprise_connections('regress_sync.members', 'sso', refresh => false);
SELECT * FROM pg_temp.waiting();
-- secrets and raw metadata: never shown, so not compared, and said so; they are in no result
CREATE TABLE regress_sync.secrets (id int PRIMARY KEY, name text, secret text, metadata text);
INSERT INTO regress_sync.secrets VALUES (1, 'S', 'sesame', '<xml/>');
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.secrets FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=secret:id', 'name=name', 'oidc.client_id:=id', 'oidc.client_secret=secret');
SELECT key, change, wanted FROM plan_enterprise_connections('regress_sync.secrets', 'sso');
SELECT track_enterprise_connection('{"id": "entconn_s", "name": "S", "provider": "oidc_custom", "oauth_config": {"client_id": "id"}, "created_at": 1, "updated_at": 1}', 'clerk', 'secret:1');
SELECT * FROM plan_enterprise_connections('regress_sync.secrets', 'sso');
SELECT * FROM reconcile_enterprise_connections('regress_sync.secrets', 'sso', refresh => false, force => true);
SELECT operation, params FROM box.enqueued();
DROP TABLE regress_sync.members, regress_sync.secrets;

--
-- Rows that are not ready, or gone
--
CALL box.start_over();
ALTER TABLE regress_sync.orgs ENABLE TRIGGER sso;
TRUNCATE regress_sync.orgs;
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, ARRAY['o' || n || '.example'], NULL, 'https://idp.example/' || n FROM generate_series(1, 5) AS n;
CALL deliver_enterprise_connections();
SELECT count(update_enterprise_connection(id, '{"active": true}')) FROM enterprise_connections WHERE key IN ('org:1', 'org:2', 'org:3');
SELECT count(*) FROM box.sent();
ALTER TABLE regress_sync.orgs DISABLE TRIGGER sso;
UPDATE regress_sync.orgs SET wanted = false WHERE id IN (1, 4);
UPDATE regress_sync.orgs SET domains = NULL WHERE id = 2;
DELETE FROM regress_sync.orgs WHERE id = 5;
SELECT * FROM pg_temp.plan();
-- without prune, what has no row stays
SELECT * FROM pg_temp.reconcile();
SELECT * FROM pg_temp.waiting();
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
SELECT * FROM pg_temp.plan();
-- ready again: active again, whatever else differs
UPDATE regress_sync.orgs SET wanted = true WHERE id IN (1, 4);
UPDATE regress_sync.orgs SET domains = '{o2.example}', name = 'Org 2 b' WHERE id = 2;
SELECT * FROM pg_temp.plan();
SELECT count(*) FROM pg_temp.reconcile(prune => true);
SELECT * FROM pg_temp.waiting();
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent() ORDER BY target, method DESC, body::text;
SELECT * FROM pg_temp.plan();
SELECT key, active, reactivate FROM enterprise_connections ORDER BY key;
-- removal:=delete, removal:=keep
UPDATE regress_sync.orgs SET wanted = false WHERE id = 1;
CREATE TRIGGER deletes AFTER INSERT ON regress_sync.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'when=wanted', 'removal:=delete', 'provider:=saml_custom');
CREATE TRIGGER keeps AFTER INSERT ON regress_sync.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'when=wanted', 'removal:=keep', 'provider:=saml_custom');
SELECT * FROM plan_enterprise_connections('regress_sync.orgs', 'keeps');
SELECT * FROM reconcile_enterprise_connections('regress_sync.orgs', 'deletes', refresh => false);
SELECT * FROM pg_temp.waiting();
CALL deliver_enterprise_connections();
SELECT method, target, body FROM box.sent();
DROP TRIGGER deletes ON regress_sync.orgs;
DROP TRIGGER keeps ON regress_sync.orgs;

--
-- adopt and conflict
--
CALL box.start_over();
TRUNCATE regress_sync.orgs;
-- made in Clerk's dashboard; one of another table's; one with two of a row's domains; one of another provider
SELECT count(create_enterprise_connection(name => n, provider => 'saml_custom', domains => d)) FROM (VALUES ('Made 1', '{one.example,more.example}'::text[]), ('Made 2', '{two.example}'), ('Two a', '{twice-a.example}'), ('Two b', '{twice-b.example}')) AS v (n, d);
SELECT create_enterprise_connection(name => 'Okta', provider => 'saml_okta', domains => '{okta.example}')->>'id' AS okta;
SELECT upsert_enterprise_connection('other:1', '{"name": "Taken", "provider": "saml_custom", "domains": ["taken.example"]}')->>'id' AS id;
SELECT count(*) FROM box.sent();
INSERT INTO regress_sync.orgs VALUES (1, 'One', '{ONE.example}'), (2, 'Made 2', '{two.example}'), (3, 'Three', '{twice-a.example,twice-b.example}'), (4, 'Four', '{taken.example}'), (5, 'Okta', '{okta.example}'), (6, 'Six', '{six.example}');
SELECT * FROM pg_temp.plan();
-- without adopt, only what has no such domain is created
SELECT count(*) FROM pg_temp.reconcile();
SELECT * FROM pg_temp.waiting();
SELECT count(*) FROM pg_temp.reconcile(adopt => true);
SELECT * FROM pg_temp.waiting();
CALL deliver_enterprise_connections();
SELECT method, target, body, status FROM box.sent();
SELECT id, key, name, domains FROM enterprise_connections ORDER BY id;
SELECT * FROM pg_temp.plan();
-- the domain of a row that gives it up moves; of one that does not, not
UPDATE regress_sync.orgs SET domains = '{six.example,two.example}' WHERE id = 6;
SELECT * FROM pg_temp.plan() WHERE key IN ('org:2', 'org:6');
UPDATE regress_sync.orgs SET domains = '{else.example}' WHERE id = 2;
SELECT * FROM pg_temp.plan() WHERE key IN ('org:2', 'org:6');
UPDATE regress_sync.orgs SET wanted = false WHERE id = 2;
SELECT * FROM pg_temp.plan() WHERE key IN ('org:2', 'org:6');
-- ... of one that is gone, only if it is deleted
DELETE FROM regress_sync.orgs WHERE id = 2;
SELECT * FROM pg_temp.plan() WHERE key IN ('org:2', 'org:6');
SELECT * FROM pg_temp.reconcile() WHERE key IN ('org:2', 'org:6');
SELECT * FROM pg_temp.waiting();
SELECT * FROM pg_temp.reconcile(prune => true) WHERE key IN ('org:2', 'org:6');
SELECT * FROM pg_temp.waiting();
CALL box.deliver_all();
SELECT id, key, name, domains FROM enterprise_connections ORDER BY id;

--
-- refresh: mirrors first
--
CALL box.start_over();
TRUNCATE regress_sync.orgs;
INSERT INTO regress_sync.orgs VALUES (1, 'One', '{one.example}');
SELECT count(*) FROM pg_temp.reconcile();
CALL deliver_enterprise_connections();
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('connections', jsonb_build_array((SELECT m || '{"name": "Changed elsewhere", "updated_at": 9999999999999}' FROM mock.connections() AS m))));
SELECT * FROM pg_temp.plan();
SELECT * FROM pg_temp.plan(refresh => true);
SELECT * FROM pg_temp.waiting();
SELECT count(*) FROM pg_temp.reconcile(refresh => true);
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.plan(refresh => true);
-- force: each row that is ready
INSERT INTO regress_sync.orgs VALUES (2, 'Two', NULL);
SELECT * FROM pg_temp.reconcile(force => true);
SELECT * FROM pg_temp.waiting();
SELECT count(*) FROM box.enqueued();

--
-- More than it fetches at a time; heirs are other tables
--
CREATE TABLE regress_sync.heirs () INHERITS (regress_sync.orgs);
INSERT INTO regress_sync.heirs VALUES (1, 'Heir', '{heir.example}');
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, ARRAY['o' || n || '.example'] FROM generate_series(1001, 3500) AS n;
SELECT change, count(*), count(DISTINCT key), min(key COLLATE "C"), max(key COLLATE "C") FROM pg_temp.reconcile() GROUP BY 1;
SELECT count(*), count(DISTINCT key), count(*) FILTER (WHERE params->>'name' = 'Heir') AS heirs FROM pg_temp.waiting();
SELECT count(*) FROM box.enqueued();
-- partitions: of one alone, the others' keys are not said to be without a row
CREATE TABLE regress_sync.parted (id int, region text, name text, domain text) PARTITION BY LIST (region);
CREATE TABLE regress_sync.eu (name text, domain text, gone int, id int, region text);
ALTER TABLE regress_sync.eu DROP gone;
ALTER TABLE regress_sync.parted ATTACH PARTITION regress_sync.eu FOR VALUES IN ('eu');
CREATE TABLE regress_sync.us PARTITION OF regress_sync.parted FOR VALUES IN ('us');
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.parted FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=part:id', 'name=name', 'domains=domain', 'provider:=saml_okta');
INSERT INTO regress_sync.parted VALUES (1, 'eu', 'One', 'eu.example'), (2, 'us', 'Two', 'us.example');
CALL deliver_enterprise_connections();
SELECT * FROM plan_enterprise_connections('regress_sync.parted', 'sso');
SELECT * FROM plan_enterprise_connections('regress_sync.eu', 'sso');
ALTER TABLE regress_sync.parted DISABLE TRIGGER sso;
UPDATE regress_sync.parted SET name = name || ' b';
SELECT key, change, path, wanted FROM reconcile_enterprise_connections('regress_sync.us', 'sso', refresh => false);
SELECT key, change, path, wanted FROM plan_enterprise_connections('regress_sync.parted', 'sso');
DELETE FROM regress_sync.parted WHERE id = 1;
SELECT key, change, path, wanted FROM plan_enterprise_connections('regress_sync.parted', 'sso');
SELECT count(*) FROM box.enqueued();

--
-- Wrong calls
--
SELECT state, message FROM box.failure($$SELECT plan_enterprise_connections('regress_sync.orgs', 'nosuch')$$);
SELECT state, message FROM box.failure($$SELECT plan_enterprise_connections(NULL, 'sso')$$);
SELECT state, message FROM box.failure($$SELECT reconcile_enterprise_connections('regress_sync.orgs', NULL)$$);
CREATE TRIGGER sso_truncate BEFORE TRUNCATE ON regress_sync.orgs EXECUTE FUNCTION sync_enterprise_connection();
SELECT state, message FROM box.failure($$SELECT plan_enterprise_connections('regress_sync.orgs', 'sso_truncate')$$);
CREATE TRIGGER conditional AFTER INSERT ON regress_sync.orgs FOR EACH ROW WHEN (NEW.id > 5) EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name');
SELECT state, message, hint FROM box.failure($$SELECT plan_enterprise_connections('regress_sync.orgs', 'conditional')$$);
CREATE TRIGGER wrong AFTER INSERT ON regress_sync.orgs FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'nmae=name');
SELECT state, message, hint FROM box.failure($$SELECT reconcile_enterprise_connections('regress_sync.orgs', 'wrong', false)$$);
-- a row from before the trigger, whose key is null
CREATE TABLE regress_sync.keyless (id text UNIQUE, name text);
INSERT INTO regress_sync.keyless VALUES (NULL, 'Keyless'), (NULL, '');
CREATE TRIGGER sso AFTER INSERT ON regress_sync.keyless FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=keyless:id', 'name=name');
SELECT * FROM plan_enterprise_connections('regress_sync.keyless', 'sso');
-- only a trigger enqueues these
SELECT state, message FROM box.failure($$SELECT enqueue_enterprise_connection('deactivate', key => 'org:1')$$);
SELECT state, message FROM box.failure($$SELECT enqueue_enterprise_connection('reactivate', key => 'org:1')$$);
-- nothing can be written: plan works
BEGIN READ ONLY;
SELECT count(*) > 0 AS planned FROM pg_temp.plan();
SELECT pg_temp.plan(refresh => true);
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.reconcile();
ROLLBACK;

--
-- Privileges: for the table's owner; as whom its rows are read
--
CREATE ROLE regress_reconcile_owner;
CREATE ROLE regress_reconcile_app;
GRANT USAGE ON SCHEMA regress_sync TO regress_reconcile_owner, regress_reconcile_app;
GRANT EXECUTE ON FUNCTION sync_enterprise_connection() TO regress_reconcile_owner;
CREATE TABLE regress_sync.owned (id int PRIMARY KEY, name text, domain text DEFAULT 'owned.example');
ALTER TABLE regress_sync.owned OWNER TO regress_reconcile_owner;
GRANT ALL ON regress_sync.owned TO regress_reconcile_app;
CREATE TRIGGER sso AFTER DELETE ON regress_sync.owned FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=owned:id', 'name=name', 'domains=domain', 'provider:=saml_okta');
INSERT INTO regress_sync.owned VALUES (1, 'Owned');
SET ROLE regress_reconcile_app;
SELECT plan_enterprise_connections('regress_sync.owned', 'sso');
SELECT reconcile_enterprise_connections('regress_sync.owned', 'sso');
SET ROLE regress_reconcile_owner;
-- without USAGE
SELECT plan_enterprise_connections('regress_sync.owned', 'sso');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_reconcile_owner;
SET ROLE regress_reconcile_owner;
SELECT * FROM plan_enterprise_connections('regress_sync.owned', 'sso');
SET client_min_messages = error;
SELECT key, change FROM reconcile_enterprise_connections('regress_sync.owned', 'sso');
RESET client_min_messages;
RESET ROLE;
-- the requests are the owner's, whoever reconciles
SELECT count(*) FROM reconcile_enterprise_connections('regress_sync.owned', 'sso', refresh => false);
SELECT role, operation, key, params, priority FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT * FROM plan_enterprise_connections('regress_sync.owned', 'sso');

SET client_min_messages = error;
DROP SCHEMA regress_sync CASCADE;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_reconcile_owner;
REVOKE ALL ON FUNCTION sync_enterprise_connection() FROM regress_reconcile_owner;
DROP ROLE regress_reconcile_owner, regress_reconcile_app;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
