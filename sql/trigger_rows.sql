-- sync_enterprise_connection(): what a change of a row enqueues.
CALL box.start_over();
\set VERBOSITY default
-- told once in a session, where no worker is
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') > 0 AS enqueued;
RESET client_min_messages;
SELECT * FROM box.enqueued();
CREATE SCHEMA regress_sync;
CREATE TABLE regress_sync.orgs (
    id               bigint PRIMARY KEY,
    name             text,
    clerk_org_id     text,
    email_domains    text[],
    idp_metadata_url text,
    notes            text);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'organization_id=clerk_org_id',
                                            'domains=email_domains', 'saml.idp_metadata_url=idp_metadata_url');
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, 'org_' || n, ARRAY['o' || n || '.example'], CASE n WHEN 1 THEN 'https://idp.example/m' END FROM generate_series(1, 6) AS n;
SELECT count(*) FROM box.enqueued();

--
-- Until it is ready, nothing is enqueued
--
INSERT INTO regress_sync.orgs VALUES (10, NULL, NULL, '{ten.example}'), (11, '', NULL, '{eleven.example}'), (12, 'Twelve', NULL, NULL), (13, 'Thirteen', NULL, '{}');
UPDATE regress_sync.orgs SET clerk_org_id = 'org_x' WHERE id >= 10;
SELECT * FROM box.enqueued();
-- ready for the first time: as it would be inserted
UPDATE regress_sync.orgs SET name = 'Ten' WHERE id = 10;
UPDATE regress_sync.orgs SET email_domains = '{twelve.example}' WHERE id = 12;
SELECT * FROM box.enqueued();

--
-- UPDATE: only if something of it has changed
--
UPDATE regress_sync.orgs SET notes = 'touched';
UPDATE regress_sync.orgs SET name = name, email_domains = email_domains;
SELECT * FROM box.enqueued();
UPDATE regress_sync.orgs SET name = name || CASE id WHEN 1 THEN ' Inc.' ELSE '' END;
SELECT * FROM box.enqueued();
-- the last value of an object goes
UPDATE regress_sync.orgs SET idp_metadata_url = NULL WHERE id = 1;
SELECT * FROM box.enqueued();
UPDATE regress_sync.orgs SET clerk_org_id = 'org_9' WHERE id = 1;
SELECT * FROM box.enqueued();
-- a value stored out of line, untouched and touched
ALTER TABLE regress_sync.orgs ALTER idp_metadata_url SET STORAGE EXTERNAL;
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 10000) WHERE id = 1;
SELECT key, length(params->'saml'->>'idp_metadata_url') FROM box.enqueued();
UPDATE regress_sync.orgs SET notes = 'again' WHERE id = 1;
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 10000) WHERE id = 1;
SELECT count(*) FROM box.enqueued();
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 9999) || 'y' WHERE id = 1;
SELECT count(*) FROM box.enqueued();

--
-- Ready without name and domains: if a mapped column has a value
--
CREATE TABLE regress_sync.bare (id int PRIMARY KEY, org text, url text, mapping jsonb);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.bare FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=bare:id', 'organization_id=org', 'saml.idp_metadata_url=url', 'saml.attribute_mapping=mapping');
INSERT INTO regress_sync.bare VALUES (1, NULL, NULL, NULL), (2, NULL, NULL, 'null'), (3, 'org_3', NULL, NULL), (4, NULL, 'https://idp.example/m', NULL);
SELECT * FROM box.enqueued();
UPDATE regress_sync.bare SET url = 'https://idp.example/m' WHERE id = 1;
UPDATE regress_sync.bare SET org = NULL WHERE id = 3;
SELECT * FROM box.enqueued();
-- a constant is a value
CREATE TRIGGER constant AFTER INSERT ON regress_sync.bare FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=bare:id', 'organization_id=org', 'provider:=saml_okta');
ALTER TABLE regress_sync.bare DISABLE TRIGGER sso;
INSERT INTO regress_sync.bare VALUES (5, NULL, NULL, NULL);
SELECT * FROM box.enqueued();

--
-- Off and on: what is enqueued
--
-- nothing is known of the connection but the request that makes it: it may become active
UPDATE regress_sync.orgs SET email_domains = NULL WHERE id = 2;
-- ... nothing of it is of interest until then
UPDATE regress_sync.orgs SET name = 'Beta 2' WHERE id = 2;
SELECT operation, key, params FROM enterprise_connection_requests;
UPDATE regress_sync.orgs SET email_domains = '{beta.example}' WHERE id = 2;
SELECT * FROM box.enqueued();
-- known by its tracking row, which says that it was not active
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_2", "name": "Beta", "provider": "saml_custom", "active": false, "domains": ["beta.example"], "created_at": 1, "updated_at": 1}', 'clerk', 'org:2');
UPDATE regress_sync.orgs SET name = '' WHERE id = 2;
SELECT * FROM box.enqueued();
UPDATE regress_sync.orgs SET name = 'Beta' WHERE id = 2;
SELECT * FROM box.enqueued();
-- ... that it was
UPDATE enterprise_connections SET reactivate = true WHERE id = 'entconn_2';
UPDATE regress_sync.orgs SET name = '' WHERE id = 2;
UPDATE regress_sync.orgs SET name = 'Beta' WHERE id = 2;
SELECT * FROM box.enqueued();
-- off and on in one transaction
BEGIN;
UPDATE regress_sync.orgs SET name = '' WHERE id = 2;
UPDATE regress_sync.orgs SET name = 'Beta' WHERE id = 2;
SELECT * FROM box.enqueued();
COMMIT;
TRUNCATE enterprise_connections;

--
-- DELETE
--
DELETE FROM regress_sync.orgs WHERE id IN (1, 11);
SELECT * FROM box.enqueued();
-- of a row that is not ready: if there may be a connection
UPDATE regress_sync.orgs SET name = NULL WHERE id = 2;
SELECT * FROM box.enqueued();
DELETE FROM regress_sync.orgs WHERE id = 2;
SELECT * FROM box.enqueued();
-- deleted and inserted anew in one transaction: one upsert, which clears what the old one had; active again if it may be needed
BEGIN;
DELETE FROM regress_sync.orgs WHERE id IN (3, 4);
INSERT INTO regress_sync.orgs VALUES (3, 'New', NULL, '{new.example}');
SELECT * FROM box.enqueued();
COMMIT;
-- not so if the transactions differ
DELETE FROM regress_sync.orgs WHERE id = 3;
INSERT INTO regress_sync.orgs VALUES (3, 'New', NULL, '{new.example}');
SELECT * FROM box.enqueued();
-- a savepoint that is rolled back
BEGIN;
SAVEPOINT s;
DELETE FROM regress_sync.orgs WHERE id = 3;
ROLLBACK TO s;
UPDATE regress_sync.orgs SET name = 'Newer' WHERE id = 3;
SELECT * FROM box.enqueued();
COMMIT;
-- the new one is not ready
BEGIN;
DELETE FROM regress_sync.orgs WHERE id = 3;
INSERT INTO regress_sync.orgs VALUES (3, NULL, NULL, '{new.example}');
SELECT * FROM box.enqueued();
COMMIT;
-- neither was ready: nothing, if nothing is known
BEGIN;
DELETE FROM regress_sync.orgs WHERE id = 3;
INSERT INTO regress_sync.orgs VALUES (3, NULL, NULL, NULL);
SELECT * FROM box.enqueued();
COMMIT;
-- TRUNCATE would leave the connections behind, without a word; it can be refused
CREATE TRIGGER sso_truncate BEFORE TRUNCATE ON regress_sync.orgs EXECUTE FUNCTION sync_enterprise_connection();
SELECT state, message, hint FROM box.row_failure('TRUNCATE regress_sync.orgs');

--
-- Inserted and deleted in one transaction: nothing
--
BEGIN;
INSERT INTO regress_sync.orgs VALUES (30, 'Thirty', NULL, '{thirty.example}');
UPDATE regress_sync.orgs SET name = 'Thirty 2' WHERE id = 30;
DELETE FROM regress_sync.orgs WHERE id = 30;
COMMIT;
SELECT * FROM box.enqueued();
-- by a savepoint, and by one that is rolled back
BEGIN;
INSERT INTO regress_sync.orgs VALUES (30, 'Thirty', NULL, '{thirty.example}'), (31, 'Thirty-one', NULL, '{thirty-one.example}');
SAVEPOINT s;
DELETE FROM regress_sync.orgs WHERE id = 30;
RELEASE s;
SAVEPOINT s;
DELETE FROM regress_sync.orgs WHERE id = 31;
ROLLBACK TO s;
COMMIT;
SELECT * FROM box.enqueued();
-- and inserted once more
BEGIN;
INSERT INTO regress_sync.orgs VALUES (32, 'One', NULL, '{one.example}');
DELETE FROM regress_sync.orgs WHERE id = 32;
INSERT INTO regress_sync.orgs VALUES (32, 'Two', NULL, '{two.example}');
COMMIT;
SELECT * FROM box.enqueued();
-- what was known before is deleted, and only once: a connection, a request
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_33", "name": "Known", "provider": "saml_custom", "active": false, "domains": [], "created_at": 1, "updated_at": 1}', 'clerk', 'org:33');
SELECT enqueue_enterprise_connection('upsert', '{"name": "Queued"}', key => 'org:34') > 0 AS enqueued;
BEGIN;
INSERT INTO regress_sync.orgs VALUES (33, 'X', NULL, '{x.example}'), (34, 'Y', NULL, '{y.example}');
UPDATE regress_sync.orgs SET name = 'Z' WHERE id >= 33;
DELETE FROM regress_sync.orgs WHERE id >= 33;
COMMIT;
SELECT * FROM box.enqueued();
-- a row that is there, changed and deleted: what has changed is taken back
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_31", "name": "Thirty-one", "provider": "saml_custom", "active": true, "domains": [], "created_at": 1, "updated_at": 1}', 'clerk', 'org:31');
BEGIN;
UPDATE regress_sync.orgs SET name = 'Changed' WHERE id = 31;
UPDATE regress_sync.orgs SET name = NULL WHERE id = 31;
SELECT operation, key FROM enterprise_connection_requests ORDER BY id;
DELETE FROM regress_sync.orgs WHERE id = 31;
SELECT * FROM box.enqueued();
COMMIT;
TRUNCATE enterprise_connections;

--
-- ROLLBACK
--
BEGIN;
INSERT INTO regress_sync.orgs VALUES (20, 'Twenty', NULL, '{twenty.example}');
SELECT count(*) FROM enterprise_connection_requests;
ROLLBACK;
SELECT * FROM box.enqueued();

--
-- The key is for ever
--
SELECT * FROM box.row_failure('UPDATE regress_sync.orgs SET id = 77 WHERE id = 5') \gx
SELECT * FROM box.enqueued();

--
-- when and removal
--
CREATE TABLE regress_sync.customers (code text PRIMARY KEY, title text, sso boolean, is_active boolean);
CREATE FUNCTION regress_sync.with(VARIADIC arguments text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DROP TRIGGER IF EXISTS sso ON regress_sync.customers;
    EXECUTE 'CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.customers FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('
        || (SELECT string_agg(quote_literal(a), ', ') FROM unnest(arguments) AS a) || ')';
END
$$;
SET client_min_messages = warning;
SELECT regress_sync.with('key=customer:code', 'name=title', 'when=sso', 'removal:=delete');
INSERT INTO regress_sync.customers VALUES ('a', 'A', true), ('b', 'B', false), ('c', 'C', NULL);
SELECT * FROM box.enqueued();
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM box.enqueued();
BEGIN;
UPDATE regress_sync.customers SET sso = NOT sso;
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM box.enqueued();
COMMIT;
SELECT regress_sync.with('key=customer:code', 'name=title', 'when=sso', 'removal:=keep');
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM box.enqueued();
DELETE FROM regress_sync.customers;
SELECT * FROM box.enqueued();
-- active is mapped: it is told, but when the row is not ready
SELECT regress_sync.with('key=customer:code', 'name=title', 'when=sso', 'removal:=deactivate', 'active=is_active');
INSERT INTO regress_sync.customers VALUES ('a', 'A', true, false), ('b', 'B', true, true), ('c', 'C', true, NULL);
SELECT * FROM box.enqueued();
UPDATE regress_sync.customers SET sso = false WHERE code IN ('a', 'b');
UPDATE regress_sync.customers SET sso = true;
SELECT * FROM box.enqueued();
-- an UPDATE of a key that was null
CREATE TABLE regress_sync.late (code text UNIQUE, title text);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.late FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=late:code', 'name=title');
SELECT * FROM box.row_failure($$INSERT INTO regress_sync.late VALUES (NULL, 'Late')$$) \gx
INSERT INTO regress_sync.late DEFAULT VALUES;
UPDATE regress_sync.late SET code = 'k';
UPDATE regress_sync.late SET title = 'Late';
SELECT * FROM box.enqueued();

--
-- Partitions, whatever a row's own table is like
--
CREATE TABLE regress_sync.parted (id int, region text, name text, domains text[]) PARTITION BY LIST (region);
CREATE TABLE regress_sync.eu (domains text[], gone int, name text, id int, region text);
ALTER TABLE regress_sync.eu DROP gone;
ALTER TABLE regress_sync.parted ATTACH PARTITION regress_sync.eu FOR VALUES IN ('eu');
CREATE TABLE regress_sync.us PARTITION OF regress_sync.parted FOR VALUES IN ('us', 'ca') PARTITION BY LIST (region);
CREATE TABLE regress_sync.us_us PARTITION OF regress_sync.us FOR VALUES IN ('us');
CREATE TABLE regress_sync.us_ca PARTITION OF regress_sync.us FOR VALUES IN ('ca');
SET client_min_messages = error;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.parted FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=part:id', 'name=name', 'domains=domains');
INSERT INTO regress_sync.parted VALUES (1, 'eu', 'One', '{one.example}'), (2, 'us', 'Two', '{two.example}');
INSERT INTO regress_sync.us_ca VALUES (3, 'ca', 'Three', '{three.example}');
SELECT * FROM box.enqueued();
-- a move is a DELETE, then an INSERT: one upsert; also of a row that is new, or changes before
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_p2", "name": "Two", "provider": "saml_custom", "active": true, "domains": [], "created_at": 1, "updated_at": 1}', 'clerk', 'part:2');
BEGIN;
INSERT INTO regress_sync.parted VALUES (4, 'eu', 'Four', '{four.example}');
UPDATE regress_sync.parted SET region = 'us' WHERE id = 4;
UPDATE regress_sync.parted SET name = 'Three 2' WHERE id = 3;
UPDATE regress_sync.parted SET region = 'us' WHERE id = 3;
UPDATE regress_sync.parted SET domains = NULL WHERE id = 2;
UPDATE regress_sync.parted SET region = 'eu' WHERE id = 2;
COMMIT;
SELECT * FROM box.enqueued();
DELETE FROM regress_sync.parted WHERE id = 4;
UPDATE regress_sync.parted SET region = 'us', domains = '{two.example}' WHERE id = 2;
UPDATE regress_sync.parted SET region = 'ca' WHERE id = 3;
SELECT * FROM box.enqueued();
UPDATE regress_sync.parted SET region = CASE region WHEN 'eu' THEN 'us' WHEN 'us' THEN 'eu' ELSE 'us' END;
SELECT * FROM box.enqueued();
BEGIN;
UPDATE regress_sync.parted SET region = 'eu', name = 'Moved' WHERE id = 1;
DELETE FROM regress_sync.parted WHERE id = 1;
SELECT * FROM box.enqueued();
COMMIT;

--
-- Renamed things: nothing happens to connections
--
UPDATE regress_sync.parted SET name = 'Two 2' WHERE id = 2;
ALTER TABLE regress_sync.parted RENAME TO divided;
UPDATE regress_sync.divided SET name = 'Two 3' WHERE id = 2;
ALTER SCHEMA regress_sync RENAME TO regress_synced;
UPDATE regress_synced.divided SET name = 'Two 4' WHERE id = 2;
ALTER TRIGGER sso ON regress_synced.divided RENAME TO renamed;
UPDATE regress_synced.divided SET name = 'Two 5' WHERE id = 2;
ALTER SCHEMA regress_synced RENAME TO regress_sync;
ALTER TABLE regress_sync.divided DETACH PARTITION regress_sync.eu;
UPDATE regress_sync.eu SET name = 'Not any more';
SELECT key, params->'name' AS name FROM box.enqueued();
ALTER TABLE regress_sync.divided ATTACH PARTITION regress_sync.eu FOR VALUES IN ('eu');
ALTER TRIGGER renamed ON regress_sync.divided RENAME TO sso;
ALTER TABLE regress_sync.divided RENAME TO parted;

--
-- Privileges: what counts is the table's owner
--
CREATE ROLE regress_trigger_owner;
CREATE ROLE regress_trigger_app;
CREATE SCHEMA regress_owned AUTHORIZATION regress_trigger_owner;
GRANT USAGE ON SCHEMA regress_owned TO regress_trigger_app;
-- EXECUTE on the function is what it takes to create such a trigger
SET ROLE regress_trigger_owner;
CREATE TABLE regress_owned.orgs (id int PRIMARY KEY, name text, domains text[]);
GRANT SELECT, INSERT, UPDATE, DELETE ON regress_owned.orgs TO regress_trigger_app;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_owned.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=owned:id', 'name=name', 'domains=domains');
RESET ROLE;
GRANT EXECUTE ON FUNCTION sync_enterprise_connection() TO regress_trigger_owner;
SET ROLE regress_trigger_owner;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_owned.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=owned:id', 'name=name', 'domains=domains');
-- the owner without USAGE
SET ROLE regress_trigger_app;
INSERT INTO regress_owned.orgs VALUES (1, 'Owned', '{owned.example}');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_trigger_owner;
-- an application's role without anything
SET ROLE regress_trigger_app;
INSERT INTO regress_owned.orgs VALUES (1, 'Owned', '{owned.example}');
UPDATE regress_owned.orgs SET name = 'Owned 2';
SELECT current_user, count(*) FROM enterprise_connection_requests GROUP BY 1;
-- an error inside a savepoint gives the role back
BEGIN;
SAVEPOINT s;
UPDATE regress_owned.orgs SET id = 2;
ROLLBACK TO s;
SELECT current_user;
COMMIT;
RESET ROLE;
SELECT role, operation, key, params FROM enterprise_connection_requests ORDER BY id;
SELECT count(*) FROM box.enqueued();
-- a partition of somebody else's: it is the trigger's table that counts
CREATE TABLE regress_owned.parted (id int, name text) PARTITION BY LIST (id);
CREATE TABLE regress_owned.leaf PARTITION OF regress_owned.parted DEFAULT;
ALTER TABLE regress_owned.parted OWNER TO regress_trigger_owner;
CREATE TRIGGER sso AFTER INSERT ON regress_owned.parted FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=leaf:id', 'name=name');
ALTER TABLE regress_owned.leaf OWNER TO regress_trigger_app;
SET ROLE regress_trigger_owner;
GRANT INSERT ON regress_owned.parted TO regress_trigger_app;
SET ROLE regress_trigger_app;
INSERT INTO regress_owned.parted VALUES (1, 'Parted');
RESET ROLE;
SELECT role, key, params FROM enterprise_connection_requests;
SELECT count(*) FROM box.enqueued();

--
-- Other servers
--
CREATE SERVER regress_other FOREIGN DATA WRAPPER pg_clerk;
GRANT USAGE ON FOREIGN SERVER regress_other TO regress_trigger_owner;
-- what the table's owner has set counts, not what another role has
SET pg_clerk.server = 'regress_other';
UPDATE regress_owned.orgs SET name = 'Still at clerk';
SET ROLE regress_trigger_owner;
SET pg_clerk.server = 'regress_other';
UPDATE regress_owned.orgs SET name = 'Elsewhere';
RESET ROLE;
RESET pg_clerk.server;
SELECT server, key FROM enterprise_connection_requests ORDER BY id;
SELECT count(*) FROM box.enqueued();

--
-- A copy of a database holds them, and a move is one upsert there, too
--
SELECT arm_enterprise_connections('clerk');
ALTER SERVER clerk OPTIONS (SET origin '1/1/1');
SET client_min_messages = error;
UPDATE regress_sync.parted SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END WHERE id = 2;
RESET client_min_messages;
SELECT operation, key, params, state FROM enterprise_connection_requests;
SELECT count(*) FROM box.enqueued();
SELECT arm_enterprise_connections('clerk');

--
-- Deferred, and one that fires another
--
CREATE TABLE regress_sync.later (id int PRIMARY KEY, name text);
CREATE CONSTRAINT TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=later:id', 'name=name');
BEGIN;
INSERT INTO regress_sync.later VALUES (1, 'Later');
SELECT count(*) FROM enterprise_connection_requests;
COMMIT;
SELECT * FROM box.enqueued();

SET client_min_messages = error;
DROP SERVER regress_other;
DROP SCHEMA regress_sync, regress_owned CASCADE;
REVOKE ALL ON FUNCTION sync_enterprise_connection() FROM regress_trigger_owner;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_trigger_owner;
DROP ROLE regress_trigger_owner, regress_trigger_app;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
