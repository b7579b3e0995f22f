-- sync_enterprise_connection() and backfill_enterprise_connections(): what a
-- change of a row enqueues.  Nothing is delivered here.
SELECT mock.reset();
TRUNCATE enterprise_connections, enterprise_connection_requests;
\set VERBOSITY default

-- What a statement fails with.
CREATE FUNCTION pg_temp.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text, OUT context text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    context := (SELECT line FROM regexp_split_to_table(context, '\n') AS line WHERE line LIKE 'enterprise connection %');
END
$$;

-- What was enqueued since it was last asked.
CREATE FUNCTION pg_temp.enqueued() RETURNS TABLE (operation text, key text, params jsonb)
LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM enterprise_connection_requests RETURNING *)
    SELECT t.operation, t.key, t.params FROM taken t ORDER BY t.id
$$;

-- A trigger on regress_sync.wrong with these arguments, fired by an INSERT.
CREATE FUNCTION pg_temp.wrong(VARIADIC arguments text[], OUT state text, OUT message text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE TRIGGER sso AFTER INSERT ON regress_sync.wrong FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('
        || (SELECT string_agg(quote_literal(a), ', ') FROM unnest(arguments) AS a) || ')';
    -- which parameters there are is in test params
    SELECT f.state, f.message, regexp_replace(f.hint, 'are .*\. What', 'are .... What') INTO state, message, hint
    FROM pg_temp.failure('INSERT INTO regress_sync.wrong DEFAULT VALUES') AS f;
    DROP TRIGGER sso ON regress_sync.wrong;
END
$$;

-- told once in a session, where no worker is
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') > 0 AS enqueued;
RESET client_min_messages;
SELECT * FROM pg_temp.enqueued();
CREATE SCHEMA regress_sync;
CREATE TABLE regress_sync.orgs (
    id               bigint PRIMARY KEY,
    name             text,
    clerk_org_id     text,
    email_domains    text[],
    idp_metadata_url text,
    notes            text);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'organization_id=clerk_org_id',
                                            'domains=email_domains', 'saml.idp_metadata_url=idp_metadata_url');

--
-- From the row to the parameters
--
INSERT INTO regress_sync.orgs VALUES (1, 'Acme', 'org_1', '{acme.example,acme.test}', 'https://idp.acme.example/m');
SELECT server, role, operation, key, connection_id, params, state, lane FROM enterprise_connection_requests;
SELECT * FROM pg_temp.enqueued();
-- a null is sent where an update takes one; an object of nothing but nulls is left out
INSERT INTO regress_sync.orgs VALUES (2, 'Beta', NULL, '{beta.example}');
SELECT * FROM pg_temp.enqueued();
-- texts that JSON has to escape
INSERT INTO regress_sync.orgs VALUES (3, E'"\\ \n\t 漢', '', '{"a,b","c\"d"}', '');
SELECT * FROM pg_temp.enqueued();
-- several rows, and the same bodies that a call would send
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, 'org_' || n, ARRAY['o' || n || '.example'] FROM generate_series(4, 6) AS n;
SELECT key, params = enterprise_connection_body(params) - 'provider' AS same FROM pg_temp.enqueued();

--
-- Until it is ready, nothing is enqueued
--
INSERT INTO regress_sync.orgs VALUES (10, NULL, NULL, '{ten.example}'), (11, '', NULL, '{eleven.example}'), (12, 'Twelve', NULL, NULL), (13, 'Thirteen', NULL, '{}');
UPDATE regress_sync.orgs SET clerk_org_id = 'org_x' WHERE id >= 10;
SELECT * FROM pg_temp.enqueued();
-- ready for the first time: as it would be inserted
UPDATE regress_sync.orgs SET name = 'Ten' WHERE id = 10;
UPDATE regress_sync.orgs SET email_domains = '{twelve.example}' WHERE id = 12;
SELECT * FROM pg_temp.enqueued();

--
-- UPDATE: only if something of it has changed
--
UPDATE regress_sync.orgs SET notes = 'touched';
UPDATE regress_sync.orgs SET name = name, email_domains = email_domains;
SELECT * FROM pg_temp.enqueued();
UPDATE regress_sync.orgs SET name = name || CASE id WHEN 1 THEN ' Inc.' ELSE '' END;
SELECT * FROM pg_temp.enqueued();
-- the last value of an object goes
UPDATE regress_sync.orgs SET idp_metadata_url = NULL WHERE id = 1;
SELECT * FROM pg_temp.enqueued();
UPDATE regress_sync.orgs SET clerk_org_id = 'org_9' WHERE id = 1;
SELECT * FROM pg_temp.enqueued();
-- a value stored out of line, untouched and touched
ALTER TABLE regress_sync.orgs ALTER idp_metadata_url SET STORAGE EXTERNAL;
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 10000) WHERE id = 1;
SELECT key, length(params->'saml'->>'idp_metadata_url') FROM pg_temp.enqueued();
UPDATE regress_sync.orgs SET notes = 'again' WHERE id = 1;
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 10000) WHERE id = 1;
SELECT count(*) FROM pg_temp.enqueued();
UPDATE regress_sync.orgs SET idp_metadata_url = repeat('x', 9999) || 'y' WHERE id = 1;
SELECT count(*) FROM pg_temp.enqueued();

--
-- Not ready any more, and again
--
UPDATE regress_sync.orgs SET email_domains = NULL WHERE id = 2;
-- ... nothing of it is of interest until then
UPDATE regress_sync.orgs SET name = 'Beta 2' WHERE id = 2;
SELECT operation, key, params FROM enterprise_connection_requests;
UPDATE regress_sync.orgs SET email_domains = '{beta.example}' WHERE id = 2;
SELECT * FROM pg_temp.enqueued();
-- known by its tracking row
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "entconn_2", "name": "Beta", "provider": "saml_custom", "active": false, "domains": ["beta.example"], "created_at": 1, "updated_at": 1}', 'clerk', 'regress_sync.orgs:2');
UPDATE regress_sync.orgs SET name = '' WHERE id = 2;
SELECT * FROM pg_temp.enqueued();
UPDATE regress_sync.orgs SET name = 'Beta' WHERE id = 2;
SELECT * FROM pg_temp.enqueued();

--
-- DELETE
--
DELETE FROM regress_sync.orgs WHERE id IN (1, 11);
SELECT * FROM pg_temp.enqueued();
-- of a row that is not ready: if there may be a connection
UPDATE regress_sync.orgs SET name = NULL WHERE id = 2;
SELECT * FROM pg_temp.enqueued();
DELETE FROM regress_sync.orgs WHERE id = 2;
SELECT * FROM pg_temp.enqueued();
-- deleted and inserted anew in one transaction: one upsert, which clears what the old one had
BEGIN;
DELETE FROM regress_sync.orgs WHERE id IN (3, 4);
INSERT INTO regress_sync.orgs VALUES (3, 'New', NULL, '{new.example}');
SELECT * FROM pg_temp.enqueued();
COMMIT;
-- not so if the transactions differ
DELETE FROM regress_sync.orgs WHERE id = 3;
INSERT INTO regress_sync.orgs VALUES (3, 'New', NULL, '{new.example}');
SELECT * FROM pg_temp.enqueued();
-- a savepoint that is rolled back
BEGIN;
SAVEPOINT s;
DELETE FROM regress_sync.orgs WHERE id = 3;
ROLLBACK TO s;
UPDATE regress_sync.orgs SET name = 'Newer' WHERE id = 3;
SELECT * FROM pg_temp.enqueued();
COMMIT;
-- TRUNCATE would leave the connections behind, without a word; it can be refused
CREATE TRIGGER sso_truncate BEFORE TRUNCATE ON regress_sync.orgs EXECUTE FUNCTION sync_enterprise_connection();
SELECT state, message, hint FROM pg_temp.failure('TRUNCATE regress_sync.orgs');

--
-- ROLLBACK
--
BEGIN;
INSERT INTO regress_sync.orgs VALUES (20, 'Twenty', NULL, '{twenty.example}');
SELECT count(*) FROM enterprise_connection_requests;
ROLLBACK;
SELECT * FROM pg_temp.enqueued();

--
-- The key is for ever
--
SELECT * FROM pg_temp.failure('UPDATE regress_sync.orgs SET id = 77 WHERE id = 3') \gx
SELECT * FROM pg_temp.enqueued();

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
SELECT regress_sync.with('key=code', 'name=title', 'when=sso', 'removal:=delete', 'key_prefix:=customer');
INSERT INTO regress_sync.customers VALUES ('a', 'A', true), ('b', 'B', false), ('c', 'C', NULL);
SELECT * FROM pg_temp.enqueued();
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM pg_temp.enqueued();
BEGIN;
UPDATE regress_sync.customers SET sso = NOT sso;
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM pg_temp.enqueued();
COMMIT;
SELECT regress_sync.with('key=code', 'name=title', 'when=sso', 'removal:=keep', 'key_prefix:=customer');
UPDATE regress_sync.customers SET sso = NOT sso;
SELECT * FROM pg_temp.enqueued();
DELETE FROM regress_sync.customers;
SELECT * FROM pg_temp.enqueued();
-- active is mapped: it is told, but when the row is not ready
SELECT regress_sync.with('key=code', 'name=title', 'when=sso', 'removal:=deactivate', 'active=is_active');
INSERT INTO regress_sync.customers VALUES ('a', 'A', true, false), ('b', 'B', true, true), ('c', 'C', true, NULL);
SELECT * FROM pg_temp.enqueued();
UPDATE regress_sync.customers SET sso = false WHERE code IN ('a', 'b');
UPDATE regress_sync.customers SET sso = true;
SELECT * FROM pg_temp.enqueued();
-- an UPDATE of a key that was null
CREATE TABLE regress_sync.late (code text, title text);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.late FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=code', 'name=title');
SELECT * FROM pg_temp.failure($$INSERT INTO regress_sync.late VALUES (NULL, 'Late')$$) \gx
INSERT INTO regress_sync.late DEFAULT VALUES;
UPDATE regress_sync.late SET code = 'k';
UPDATE regress_sync.late SET title = 'Late';
SELECT * FROM pg_temp.enqueued();

--
-- Types, spellings, constants
--
CREATE TYPE regress_sync.provider AS ENUM ('saml_okta', 'saml_google');
CREATE DOMAIN regress_sync.domain_list AS text[] CHECK (cardinality(value) < 5);
CREATE TABLE regress_sync.kinds (
    u       uuid PRIMARY KEY,
    dropped integer,
    c       char(10),
    v       varchar(20),
    e       regress_sync.provider,
    d       regress_sync.domain_list,
    gone    text,
    b       boolean,
    j       json,
    jb      jsonb,
    g       text GENERATED ALWAYS AS (upper(v)) STORED);
ALTER TABLE regress_sync.kinds DROP dropped, DROP gone;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.kinds FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=u', 'name=c', 'provider=e', 'domains=d', 'organizationId = v', 'syncUserAttributes=b',
    'customAttributes=j', 'saml.attributeMapping=jb', 'saml.name=g', 'saml.forceAuthn:=true', 'saml.idpCertificates:=["c1", "c2"]',
    'oidc.client_id:=fixed', 'saml.login_hint.mode:=custom=x', 'disable_jit_provisioning:= false', 'server:=clerk');
INSERT INTO regress_sync.kinds (u, c, v, e, d, b, j, jb) VALUES ('00000000-0000-0000-0000-000000000001', 'Padded', 'org', 'saml_okta', '{a.example}',
    false, '[{"name": "Dept", "key": "d", "ssoPath": "x"}]', '{"userId": "uid", "email_address": null}');
SELECT key, jsonb_pretty(params) FROM pg_temp.enqueued();
-- nulls: an update says so where it takes one, a create does not
INSERT INTO regress_sync.kinds (u, c, d) VALUES ('00000000-0000-0000-0000-000000000002', 'Nulls', '{b.example}');
INSERT INTO regress_sync.kinds (u, c, d, j, jb) VALUES ('00000000-0000-0000-0000-000000000003', 'JSON nulls', '{c.example}', 'null', 'null');
UPDATE regress_sync.kinds SET v = NULL, e = NULL, b = NULL, j = NULL, jb = 'null' WHERE c = 'Padded';
SELECT * FROM pg_temp.enqueued();
-- what is wrong in a row's JSON or array
SELECT * FROM pg_temp.failure($$UPDATE regress_sync.kinds SET jb = '{"usrId": "uid"}' WHERE c = 'Padded'$$) \gx
SELECT * FROM pg_temp.failure($$UPDATE regress_sync.kinds SET j = '{"name": "Dept"}' WHERE c = 'Padded'$$) \gx
SELECT * FROM pg_temp.failure($$UPDATE regress_sync.kinds SET d = '{a,NULL}' WHERE c = 'Padded'$$) \gx
SELECT * FROM pg_temp.failure($$UPDATE regress_sync.kinds SET d = '{{a,b},{c,d}}' WHERE c = 'Padded'$$) \gx
-- domains in a jsonb column
CREATE TABLE regress_sync.lists (id int PRIMARY KEY, name jsonb, domains jsonb);
CREATE TRIGGER sso AFTER INSERT OR UPDATE ON regress_sync.lists FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'domains=domains');
INSERT INTO regress_sync.lists VALUES (1, '"L"', '[]'), (2, '"L"', 'null'), (3, '""', '["l.example"]'), (4, 'null', '["l.example"]'), (5, '"L"', '["l.example"]');
SELECT * FROM pg_temp.enqueued();

--
-- Wrong arguments: an error at the first firing
--
CREATE TABLE regress_sync.wrong (id int DEFAULT 1, name text DEFAULT 'W', domains text[] DEFAULT '{w.example}', on_sale boolean, amount numeric, born date, doc jsonb, days int[]);
SELECT * FROM pg_temp.wrong('name=name');
SELECT * FROM pg_temp.wrong('key=id');
SELECT * FROM pg_temp.wrong('key=id', 'nmae=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=nam');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml.idp_metadata=born');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml.idpMetadataUri=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'idp_metadata_url=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'name.first=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'custom_attributes.key=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml.=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', '=name');
SELECT * FROM pg_temp.wrong('key=id', 'name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'Name=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml=doc', 'saml.name=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml.name=name', 'saml=doc');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'key=name');
SELECT * FROM pg_temp.wrong('key=on_sale', 'name=name');
SELECT * FROM pg_temp.wrong('key=amount', 'name=name');
SELECT * FROM pg_temp.wrong('key:=1', 'name=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'when=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'when:=true');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'removal=keep');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'removal:=kepe');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'remvoal:=keep');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'server:=nowhere');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'server=clerk');
SELECT * FROM pg_temp.wrong('key=id', 'name=id');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'active=name');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'active=amount');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'domains=days');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'custom_attributes=domains');
-- a constant may be a secret: no message shows it
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'active:=yes');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'active:="true"');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'saml:={"idpMetadataUri": "x"}');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'oidc.client_secrt:=sesame');
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'custom_attributes:=null');
SELECT count(*) FROM pg_temp.enqueued();
-- parameters that only extra_params knows take anything
ALTER SERVER clerk OPTIONS (ADD extra_params 'foo, saml.bar');
SELECT state, message FROM pg_temp.wrong('key=id', 'name=name', 'foo=amount', 'saml.bar=id');
ALTER TABLE regress_sync.wrong ALTER amount SET DEFAULT 1.50;
SELECT state, message FROM pg_temp.wrong('key=id', 'name=name', 'foo=amount', 'saml.bar:=text');
SELECT state, message FROM pg_temp.wrong('key=id', 'name=name', 'foo:=12', 'saml.bar:={"a": [1]}');
SELECT * FROM pg_temp.enqueued();
ALTER SERVER clerk OPTIONS (DROP extra_params);
SELECT * FROM pg_temp.wrong('key=id', 'name=name', 'quux=amount');

--
-- The wrong trigger
--
SELECT * FROM pg_temp.failure('SELECT sync_enterprise_connection()') \gx
CREATE TRIGGER sso BEFORE INSERT ON regress_sync.wrong FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name');
SELECT state, message FROM pg_temp.failure('INSERT INTO regress_sync.wrong DEFAULT VALUES');
DROP TRIGGER sso ON regress_sync.wrong;
CREATE TRIGGER sso AFTER INSERT ON regress_sync.wrong EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name');
SELECT state, message FROM pg_temp.failure('INSERT INTO regress_sync.wrong DEFAULT VALUES');
DROP TRIGGER sso ON regress_sync.wrong;

--
-- Partitions: the topmost table's name, whatever a row's own table is like
--
CREATE TABLE regress_sync.parted (id int, region text, name text, domains text[]) PARTITION BY LIST (region);
CREATE TABLE regress_sync.eu (domains text[], gone int, name text, id int, region text);
ALTER TABLE regress_sync.eu DROP gone;
ALTER TABLE regress_sync.parted ATTACH PARTITION regress_sync.eu FOR VALUES IN ('eu');
CREATE TABLE regress_sync.us PARTITION OF regress_sync.parted FOR VALUES IN ('us', 'ca') PARTITION BY LIST (region);
CREATE TABLE regress_sync.us_us PARTITION OF regress_sync.us FOR VALUES IN ('us');
CREATE TABLE regress_sync.us_ca PARTITION OF regress_sync.us FOR VALUES IN ('ca');
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.parted FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'domains=domains');
INSERT INTO regress_sync.parted VALUES (1, 'eu', 'One', '{one.example}'), (2, 'us', 'Two', '{two.example}');
INSERT INTO regress_sync.us_ca VALUES (3, 'ca', 'Three', '{three.example}');
SELECT * FROM pg_temp.enqueued();
-- a move is a DELETE, then an INSERT: one upsert
UPDATE regress_sync.parted SET region = CASE region WHEN 'eu' THEN 'us' WHEN 'us' THEN 'eu' ELSE 'us' END;
SELECT * FROM pg_temp.enqueued();
BEGIN;
UPDATE regress_sync.parted SET region = 'eu', name = 'Moved' WHERE id = 1;
DELETE FROM regress_sync.parted WHERE id = 1;
SELECT * FROM pg_temp.enqueued();
COMMIT;

--
-- Renamed things: the key follows at once, unless its prefix is fixed
--
UPDATE regress_sync.parted SET name = 'Two 2' WHERE id = 2;
ALTER TABLE regress_sync.parted RENAME TO divided;
UPDATE regress_sync.divided SET name = 'Two 3' WHERE id = 2;
ALTER SCHEMA regress_sync RENAME TO regress_synced;
UPDATE regress_synced.divided SET name = 'Two 4' WHERE id = 2;
ALTER SCHEMA regress_synced RENAME TO regress_sync;
ALTER TABLE regress_sync.divided RENAME name TO title;
SELECT state, message, hint FROM pg_temp.failure($$UPDATE regress_sync.divided SET title = 'Two 5' WHERE id = 2$$);
ALTER TABLE regress_sync.divided RENAME title TO name;
ALTER TABLE regress_sync.divided RENAME TO parted;
UPDATE regress_sync.parted SET name = 'Two 6' WHERE id = 2;
SELECT * FROM pg_temp.enqueued();

--
-- Backfill
--
SELECT backfill_enterprise_connections('regress_sync.parted', 'sso');
SELECT * FROM pg_temp.enqueued();
SELECT backfill_enterprise_connections('regress_sync.us', 'sso');
SELECT * FROM pg_temp.enqueued();
-- rows that are not ready are not counted; dropped columns shift positions
INSERT INTO regress_sync.kinds (u, c) VALUES ('00000000-0000-0000-0000-000000000009', 'No domains');
SELECT backfill_enterprise_connections('regress_sync.kinds', 'sso');
SELECT key, params->>'name' AS name, params->'saml'->>'name' AS saml_name FROM pg_temp.enqueued();
-- more than it fetches at a time; only of this table
CREATE TABLE regress_sync.heirs () INHERITS (regress_sync.orgs);
INSERT INTO regress_sync.heirs VALUES (1, 'Heir', NULL, '{heir.example}');
ALTER TABLE regress_sync.orgs DISABLE TRIGGER sso;
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, NULL, ARRAY['o' || n || '.example'] FROM generate_series(1001, 3500) AS n;
SELECT backfill_enterprise_connections('regress_sync.orgs', 'sso') - 2500 AS others;
SELECT count(*), count(DISTINCT key), min(key COLLATE "C"), count(*) FILTER (WHERE params->>'name' = 'Heir') AS heirs FROM pg_temp.enqueued();
-- wrong calls
SELECT state, message FROM pg_temp.failure($$SELECT backfill_enterprise_connections('regress_sync.orgs', 'nosuch')$$);
SELECT state, message FROM pg_temp.failure($$SELECT backfill_enterprise_connections('regress_sync.orgs', 'sso_truncate')$$);
CREATE TRIGGER conditional AFTER INSERT ON regress_sync.orgs FOR EACH ROW WHEN (NEW.id > 5) EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name');
SELECT state, message, hint FROM pg_temp.failure($$SELECT backfill_enterprise_connections('regress_sync.orgs', 'conditional')$$);
CREATE TRIGGER wrong AFTER INSERT ON regress_sync.orgs FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=id', 'nmae=name');
SELECT state, message, hint FROM pg_temp.failure($$SELECT backfill_enterprise_connections('regress_sync.orgs', 'wrong')$$);
SELECT backfill_enterprise_connections(NULL, 'sso') IS NULL AS strict;
BEGIN READ ONLY;
SELECT backfill_enterprise_connections('regress_sync.orgs', 'sso');
ROLLBACK;
SELECT count(*) FROM pg_temp.enqueued();

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
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'domains=domains');
RESET ROLE;
GRANT EXECUTE ON FUNCTION sync_enterprise_connection() TO regress_trigger_owner;
SET ROLE regress_trigger_owner;
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_owned.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name', 'domains=domains');
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
SELECT backfill_enterprise_connections('regress_owned.orgs', 'sso');
-- an error inside a savepoint gives the role back
BEGIN;
SAVEPOINT s;
UPDATE regress_owned.orgs SET id = 2;
ROLLBACK TO s;
SELECT current_user;
COMMIT;
SET ROLE regress_trigger_owner;
SELECT backfill_enterprise_connections('regress_owned.orgs', 'sso');
RESET ROLE;
SELECT role, operation, key, params FROM enterprise_connection_requests ORDER BY id;
SELECT backfill_enterprise_connections('regress_owned.orgs', 'sso');
SELECT role, count(*) FROM enterprise_connection_requests GROUP BY 1;
SELECT count(*) FROM pg_temp.enqueued();
-- a partition of somebody else's: it is the trigger's table that counts
CREATE TABLE regress_owned.parted (id int, name text) PARTITION BY LIST (id);
CREATE TABLE regress_owned.leaf PARTITION OF regress_owned.parted DEFAULT;
ALTER TABLE regress_owned.parted OWNER TO regress_trigger_owner;
CREATE TRIGGER sso AFTER INSERT ON regress_owned.parted FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name');
ALTER TABLE regress_owned.leaf OWNER TO regress_trigger_app;
SET ROLE regress_trigger_owner;
GRANT INSERT ON regress_owned.parted TO regress_trigger_app;
SET ROLE regress_trigger_app;
INSERT INTO regress_owned.parted VALUES (1, 'Parted');
RESET ROLE;
SELECT role, key, params FROM enterprise_connection_requests;
SELECT count(*) FROM pg_temp.enqueued();

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
SELECT count(*) FROM pg_temp.enqueued();

--
-- A copy of a database holds them, and a move is one upsert there, too
--
SELECT arm_enterprise_connections('clerk');
ALTER SERVER clerk OPTIONS (SET origin '1/1/1');
SET client_min_messages = error;
UPDATE regress_sync.parted SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END WHERE id = 2;
RESET client_min_messages;
SELECT operation, key, params, state FROM enterprise_connection_requests;
SELECT count(*) FROM pg_temp.enqueued();
SELECT arm_enterprise_connections('clerk');

--
-- Deferred, and one that fires another
--
CREATE TABLE regress_sync.later (id int PRIMARY KEY, name text);
CREATE CONSTRAINT TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=id', 'name=name');
BEGIN;
INSERT INTO regress_sync.later VALUES (1, 'Later');
SELECT count(*) FROM enterprise_connection_requests;
COMMIT;
SELECT * FROM pg_temp.enqueued();

SET client_min_messages = error;
DROP SERVER regress_other;
DROP SCHEMA regress_sync, regress_owned CASCADE;
REVOKE ALL ON FUNCTION sync_enterprise_connection() FROM regress_trigger_owner;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_trigger_owner;
DROP ROLE regress_trigger_owner, regress_trigger_app;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
