-- sync_enterprise_connection(): what its arguments say, and what a row becomes.
-- Nothing is delivered here.
SELECT mock.reset();
TRUNCATE enterprise_connections, enterprise_connection_requests;
\set VERBOSITY default

-- A trigger on regress_sync.wrong with these arguments, fired by an INSERT.
CREATE FUNCTION pg_temp.wrong(VARIADIC arguments text[], OUT state text, OUT message text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE TRIGGER sso AFTER INSERT ON regress_sync.wrong FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('
        || (SELECT string_agg(quote_literal(a), ', ') FROM unnest(arguments) AS a) || ')';
    SELECT f.state, f.message, f.hint INTO state, message, hint
    FROM box.row_failure('INSERT INTO regress_sync.wrong DEFAULT VALUES') AS f;
    DROP TRIGGER sso ON regress_sync.wrong;
END
$$;

-- told once in a session, where no worker is
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('delete', key => 'warm:up') > 0 AS enqueued;
RESET client_min_messages;
SELECT * FROM box.enqueued();
CREATE SCHEMA regress_sync;

--
-- Wrong arguments: an error at the first firing
--
CREATE TABLE regress_sync.wrong (id int DEFAULT 1 PRIMARY KEY, name text DEFAULT 'W', domains text[] DEFAULT '{w.example}', on_sale boolean, amount numeric, born date, doc jsonb, days int[]);
SELECT * FROM pg_temp.wrong('name=name');
SELECT * FROM pg_temp.wrong('key=w:id');
SELECT * FROM pg_temp.wrong('key=w:id', 'nmae=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=nam');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml.idp_metadata=born');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml.idpMetadataUri=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'idp_metadata_url=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'name.first=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'custom_attributes.key=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml.=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', '=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'Name=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml=doc', 'saml.name=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml.name=name', 'saml=doc');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'key=w:name');
SELECT * FROM pg_temp.wrong('key=w:on_sale', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:amount', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:nope', 'name=name');
SELECT * FROM pg_temp.wrong('key:=1', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'when=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'when:=true');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'removal=keep');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'removal:=kepe');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'remvoal:=keep');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'server:=nowhere');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'server=clerk');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=id');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'active=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'active=amount');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'domains=days');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'custom_attributes=domains');
-- no other parameter that is an array takes a text
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml.idp_certificates=name');
-- the spellings of before
SELECT * FROM pg_temp.wrong('key=id', 'name=name');
SELECT * FROM pg_temp.wrong('key=id', 'key_prefix:=org', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:id', 'key_prefix:=org', 'name=name');
-- a constant may be a secret: no message shows it
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'active:=yes');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'active:="true"');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'saml:={"idpMetadataUri": "x"}');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'oidc.client_secrt:=sesame');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'custom_attributes:=null');
SELECT * FROM pg_temp.wrong('key=w:id', 'name=nam', 'oidc.client_secret:=sesame');
SELECT count(*) FROM box.enqueued();
-- parameters that only extra_params knows take anything
ALTER SERVER clerk OPTIONS (ADD extra_params 'foo, saml.bar');
SELECT state, message FROM pg_temp.wrong('key=w:id', 'name=name', 'foo=amount', 'saml.bar=id');
DELETE FROM regress_sync.wrong;
ALTER TABLE regress_sync.wrong ALTER amount SET DEFAULT 1.50;
SELECT state, message FROM pg_temp.wrong('key=w:id', 'name=name', 'foo=amount', 'saml.bar:=text');
DELETE FROM regress_sync.wrong;
SELECT state, message FROM pg_temp.wrong('key=w:id', 'name=name', 'foo:=12', 'saml.bar:={"a": [1]}');
DELETE FROM regress_sync.wrong;
SELECT * FROM box.enqueued();
ALTER SERVER clerk OPTIONS (DROP extra_params);
SELECT * FROM pg_temp.wrong('key=w:id', 'name=name', 'foo=amount');

--
-- The wrong trigger
--
SELECT * FROM box.row_failure('SELECT sync_enterprise_connection()') \gx
CREATE TRIGGER sso BEFORE INSERT ON regress_sync.wrong FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=w:id', 'name=name');
SELECT state, message FROM box.row_failure('INSERT INTO regress_sync.wrong DEFAULT VALUES');
DROP TRIGGER sso ON regress_sync.wrong;
CREATE TRIGGER sso AFTER INSERT ON regress_sync.wrong EXECUTE FUNCTION sync_enterprise_connection('key=w:id', 'name=name');
SELECT state, message FROM box.row_failure('INSERT INTO regress_sync.wrong DEFAULT VALUES');
DROP TRIGGER sso ON regress_sync.wrong;

--
-- Prefixes: each table has its own, so that no two rows have one key
--
SELECT * FROM pg_temp.wrong('key=:id', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:', 'name=name');
SELECT * FROM pg_temp.wrong('key=w:1:id', 'name=name');
SELECT * FROM pg_temp.wrong('key = w:id ', 'name = name');
DELETE FROM regress_sync.wrong;
SELECT * FROM pg_temp.wrong('key=Näme "x":id', 'name=name');
DELETE FROM regress_sync.wrong;
SELECT key FROM box.enqueued();
CREATE TABLE regress_sync.first (id int PRIMARY KEY, name text);
CREATE TABLE regress_sync.second (id int PRIMARY KEY, name text);
CREATE TRIGGER one AFTER INSERT ON regress_sync.first FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=shared:id', 'name=name');
CREATE TRIGGER two AFTER INSERT ON regress_sync.second FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=shared:id', 'name=name');
-- who was there first has it, whoever fires first
SELECT * FROM box.row_failure($$INSERT INTO regress_sync.second VALUES (1, 'Second')$$) \gx
INSERT INTO regress_sync.first VALUES (1, 'First');
-- also for what reads the arguments without firing
SELECT state, message FROM box.row_failure($$SELECT * FROM plan_enterprise_connections('regress_sync.second', 'two')$$);
-- one that is disabled, or gone, does not have it
ALTER TABLE regress_sync.first DISABLE TRIGGER one;
INSERT INTO regress_sync.second VALUES (1, 'Second');
ALTER TABLE regress_sync.first ENABLE TRIGGER one;
\c
SELECT state FROM box.failure($$INSERT INTO regress_sync.second VALUES (2, 'Second')$$);
DROP TRIGGER one ON regress_sync.first;
SET client_min_messages = error;
INSERT INTO regress_sync.second VALUES (2, 'Second');
-- two triggers of one table may share it
CREATE TRIGGER three AFTER UPDATE ON regress_sync.second FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=shared:id', 'name=name');
UPDATE regress_sync.second SET name = 'Again' WHERE id = 2;
SELECT key, params FROM box.enqueued();
RESET client_min_messages;

--
-- The key column has a unique index of its own
--
CREATE TABLE regress_sync.doubled (id int, region text, name text, PRIMARY KEY (id, region));
CREATE TRIGGER sso AFTER INSERT ON regress_sync.doubled FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=doubled:id', 'name=name');
SELECT * FROM box.failure($$INSERT INTO regress_sync.doubled VALUES (1, 'eu', 'D')$$) \gx
CREATE INDEX plain ON regress_sync.doubled (id);
CREATE UNIQUE INDEX partial ON regress_sync.doubled (id) WHERE region <> 'us';
CREATE UNIQUE INDEX expression ON regress_sync.doubled ((id + 0));
SELECT state, message FROM box.failure($$INSERT INTO regress_sync.doubled VALUES (1, 'eu', 'D')$$);
SELECT state, message FROM box.failure($$SELECT * FROM plan_enterprise_connections('regress_sync.doubled', 'sso')$$);
-- one that includes others is one
CREATE UNIQUE INDEX own ON regress_sync.doubled (id) INCLUDE (region);
INSERT INTO regress_sync.doubled VALUES (1, 'eu', 'D');
DROP INDEX regress_sync.own;
SELECT state, message FROM box.failure($$INSERT INTO regress_sync.doubled VALUES (2, 'eu', 'D')$$);
SELECT operation, key FROM box.enqueued();
-- a partitioned table may be unable to have it: a warning, once
CREATE TABLE regress_sync.split (id int, region text, name text) PARTITION BY LIST (region);
CREATE TABLE regress_sync.split_eu PARTITION OF regress_sync.split FOR VALUES IN ('eu');
CREATE TRIGGER sso AFTER INSERT ON regress_sync.split FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=split:id', 'name=name');
INSERT INTO regress_sync.split VALUES (1, 'eu', 'S');
ALTER TABLE regress_sync.split ADD more int;
INSERT INTO regress_sync.split VALUES (2, 'eu', 'S');
SELECT operation, key FROM box.enqueued();
-- one whose key is that of the partitions has none to warn of
CREATE TABLE regress_sync.ranges (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE regress_sync.ranges_1 PARTITION OF regress_sync.ranges FOR VALUES FROM (0) TO (100);
CREATE TRIGGER sso AFTER INSERT ON regress_sync.ranges FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=ranges:id', 'name=name');
INSERT INTO regress_sync.ranges VALUES (1, 'R');
-- a trigger of a partition alone
CREATE TABLE regress_sync.split_us PARTITION OF regress_sync.split FOR VALUES IN ('us');
DROP TRIGGER sso ON regress_sync.split;
CREATE TRIGGER sso AFTER INSERT ON regress_sync.split_us FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=us:id', 'name=name');
INSERT INTO regress_sync.split_us VALUES (1, 'us', 'S');
SELECT operation, key FROM box.enqueued();

--
-- A mapped column that was renamed or dropped: the statement that mends it
--
CREATE TABLE regress_sync."Odd orgs" (id int PRIMARY KEY, name text, domains text[], "client secret" text, metadata text);
CREATE TRIGGER "s s o" AFTER INSERT OR UPDATE OR DELETE ON regress_sync."Odd orgs" FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=odd:id', 'name=name', 'domains=domains', 'oidc.client_id:=it''s me', 'oidc.client_secret=client secret', 'removal:=delete', 'server:=clerk');
INSERT INTO regress_sync."Odd orgs" VALUES (1, 'Odd', '{odd.example}', 'x');
ALTER TABLE regress_sync."Odd orgs" RENAME domains TO "mail domains";
SELECT * FROM box.failure($$UPDATE regress_sync."Odd orgs" SET metadata = 'touched'$$) \gx
SELECT * FROM box.failure($$DELETE FROM regress_sync."Odd orgs"$$) \gx
-- it can be run as it stands, but for the constants
CREATE OR REPLACE TRIGGER "s s o" AFTER INSERT OR DELETE OR UPDATE ON regress_sync."Odd orgs" FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=odd:id', 'name=name', 'domains=mail domains', 'oidc.client_id:=it''s me', 'oidc.client_secret=client secret', 'removal:=delete', 'server:=clerk');
UPDATE regress_sync."Odd orgs" SET "mail domains" = '{new.example}';
-- the key, with its prefix; a column that is gone without a name like it
ALTER TABLE regress_sync."Odd orgs" RENAME id TO ide;
SELECT state, message, hint FROM box.failure($$UPDATE regress_sync."Odd orgs" SET metadata = 'touched'$$) \gx
ALTER TABLE regress_sync."Odd orgs" RENAME ide TO id;
ALTER TABLE regress_sync."Odd orgs" DROP "client secret";
SELECT state, message, hint FROM box.failure($$UPDATE regress_sync."Odd orgs" SET metadata = 'touched'$$) \gx
SELECT state, message FROM box.failure($$SELECT * FROM plan_enterprise_connections('regress_sync."Odd orgs"', 's s o')$$);
SELECT operation, key FROM box.enqueued();
-- of a partition's trigger it is the parent's; of a constraint trigger there is none
ALTER TABLE regress_sync.ranges RENAME name TO title;
SELECT state, message, hint FROM box.failure($$INSERT INTO regress_sync.ranges VALUES (2, 'R')$$) \gx
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON regress_sync.first DEFERRABLE FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=first:id', 'name=name');
ALTER TABLE regress_sync.first RENAME name TO title;
SELECT state, message, hint FROM box.failure($$INSERT INTO regress_sync.first VALUES (2, 'F')$$) \gx

--
-- From the row to the parameters
--
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
INSERT INTO regress_sync.orgs VALUES (1, 'Acme', 'org_1', '{acme.example,acme.test}', 'https://idp.acme.example/m');
SELECT server, role, operation, key, connection_id, params, state, lane, priority FROM enterprise_connection_requests;
SELECT * FROM box.enqueued();
-- a null is there where an update takes one
INSERT INTO regress_sync.orgs VALUES (2, 'Beta', NULL, '{beta.example}');
SELECT * FROM box.enqueued();
-- texts that JSON has to escape
INSERT INTO regress_sync.orgs VALUES (3, E'"\\ \n\t 漢', '', '{"a,b","c\"d"}', '');
SELECT * FROM box.enqueued();
-- several rows, and the same bodies that a call would send
INSERT INTO regress_sync.orgs SELECT n, 'Org ' || n, 'org_' || n, ARRAY['o' || n || '.example'] FROM generate_series(4, 6) AS n;
SELECT key, params = enterprise_connection_body(params) - 'provider' AS same FROM box.enqueued();

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
EXECUTE FUNCTION sync_enterprise_connection('key=kind:u', 'name=c', 'provider=e', 'domains=d', 'organizationId = v', 'syncUserAttributes=b',
    'customAttributes=j', 'saml.attributeMapping=jb', 'saml.name=g', 'saml.forceAuthn:=true', 'saml.idpCertificates:=["c1", "c2"]',
    'oidc.client_id:=fixed', 'saml.login_hint.mode:=custom=x', 'disable_jit_provisioning:= false', 'server:=clerk');
INSERT INTO regress_sync.kinds (u, c, v, e, d, b, j, jb) VALUES ('00000000-0000-0000-0000-000000000001', 'Padded', 'org', 'saml_okta', '{a.example}',
    false, '[{"name": "Dept", "key": "d", "ssoPath": "x"}]', '{"userId": "uid", "email_address": null}');
SELECT key, jsonb_pretty(params) FROM box.enqueued();
-- nulls: an update says so where it takes one, a create does not
INSERT INTO regress_sync.kinds (u, c, d) VALUES ('00000000-0000-0000-0000-000000000002', 'Nulls', '{b.example}');
INSERT INTO regress_sync.kinds (u, c, d, j, jb) VALUES ('00000000-0000-0000-0000-000000000003', 'JSON nulls', '{c.example}', 'null', 'null');
UPDATE regress_sync.kinds SET v = NULL, e = NULL, b = NULL, j = NULL, jb = 'null' WHERE c = 'Padded';
SELECT * FROM box.enqueued();
-- what is wrong in a row's JSON or array
SELECT * FROM box.row_failure($$UPDATE regress_sync.kinds SET jb = '{"usrId": "uid"}' WHERE c = 'Padded'$$) \gx
SELECT * FROM box.row_failure($$UPDATE regress_sync.kinds SET j = '{"name": "Dept"}' WHERE c = 'Padded'$$) \gx
SELECT * FROM box.row_failure($$UPDATE regress_sync.kinds SET d = '{a,NULL}' WHERE c = 'Padded'$$) \gx
SELECT * FROM box.row_failure($$UPDATE regress_sync.kinds SET d = '{{a,b},{c,d}}' WHERE c = 'Padded'$$) \gx
-- domains in a jsonb column
CREATE TABLE regress_sync.lists (id int PRIMARY KEY, name jsonb, domains jsonb);
CREATE TRIGGER sso AFTER INSERT OR UPDATE ON regress_sync.lists FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=list:id', 'name=name', 'domains=domains');
INSERT INTO regress_sync.lists VALUES (1, '"L"', '[]'), (2, '"L"', 'null'), (3, '""', '["l.example"]'), (4, 'null', '["l.example"]'), (5, '"L"', '["l.example"]');
SELECT * FROM box.enqueued();

-- one domain a row: a text, a varchar, a character(n), an enum, a citext, a domain of one
CREATE TYPE regress_sync.one_of AS ENUM ('enum.example');
CREATE DOMAIN regress_sync.mail_domain AS varchar(100) CHECK (value ~ '[.]');
-- stands for the extension's, which need not be installed here
SET client_min_messages = warning;
CREATE TYPE regress_sync.citext;
CREATE FUNCTION regress_sync.citextin(cstring) RETURNS regress_sync.citext LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION regress_sync.citextout(regress_sync.citext) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE regress_sync.citext (INPUT = regress_sync.citextin, OUTPUT = regress_sync.citextout, LIKE = text, CATEGORY = 'S', COLLATABLE = true);
CREATE CAST (regress_sync.citext AS text) WITHOUT FUNCTION AS IMPLICIT;
RESET client_min_messages;
CREATE TABLE regress_sync.single (code varchar(10) UNIQUE, name text DEFAULT 'Single', t text, v varchar(30), c char(30), e regress_sync.one_of, ci regress_sync.citext, d regress_sync.mail_domain);
CREATE FUNCTION pg_temp.single(argument text, value text) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.single FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection(''key=single:code'', ''name=name'', %L)', 'domains=' || argument);
    EXECUTE format('INSERT INTO regress_sync.single (code, %I) VALUES (''1'', %L)', argument, value);
    RETURN QUERY SELECT params FROM box.enqueued();
    EXECUTE format('UPDATE regress_sync.single SET %I = NULL', argument);
    RETURN QUERY SELECT to_jsonb(operation) FROM box.enqueued();
    DROP TRIGGER sso ON regress_sync.single;
    TRUNCATE regress_sync.single;
END
$$;
SELECT pg_temp.single('t', 'Text.example');
SELECT pg_temp.single('v', 'varchar.example');
SELECT pg_temp.single('c', 'char.example');
SELECT pg_temp.single('e', 'enum.example');
SELECT pg_temp.single('ci', 'Citext.example');
SELECT pg_temp.single('d', 'domain.example');
-- an empty one is none
SELECT pg_temp.single('t', '');
SELECT pg_temp.single('c', '');

--
-- Kinds of keys
--
CREATE DOMAIN regress_sync.code AS varchar(10);
CREATE TABLE regress_sync.keys (s smallint UNIQUE, b bigint UNIQUE, u uuid UNIQUE, t text UNIQUE, v varchar(10) UNIQUE, c char(10) UNIQUE, e regress_sync.provider UNIQUE, d regress_sync.code UNIQUE,
    ci regress_sync.citext, g text GENERATED ALWAYS AS ('g' || t) STORED UNIQUE, name text);
CREATE UNIQUE INDEX ON regress_sync.keys (ci);
CREATE FUNCTION pg_temp.key(argument text, value text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.keys FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection(%L, ''name=name'')', 'key=k:' || argument);
    EXECUTE format('INSERT INTO regress_sync.keys (%I, name) VALUES (%L, ''Key'')', CASE argument WHEN 'g' THEN 't' ELSE argument END, value);
    -- what plan finds by it
    RETURN QUERY SELECT 'plan: ' || key FROM plan_enterprise_connections('regress_sync.keys', 'sso');
    RETURN QUERY SELECT 'reconcile: ' || key FROM reconcile_enterprise_connections('regress_sync.keys', 'sso', refresh => false);
    RETURN QUERY SELECT operation || ' ' || key FROM box.enqueued();
    DROP TRIGGER sso ON regress_sync.keys;
    TRUNCATE regress_sync.keys;
END
$$;
SELECT pg_temp.key('s', '-7');
SELECT pg_temp.key('b', '-9223372036854775808');
SELECT pg_temp.key('u', '00000000-0000-0000-0000-00000000000A');
SELECT pg_temp.key('t', 'a:B ''c" %s');
SELECT pg_temp.key('v', 'Ab');
SELECT pg_temp.key('c', 'Ab');
SELECT pg_temp.key('e', 'saml_okta');
SELECT pg_temp.key('d', 'Ab');
SELECT pg_temp.key('ci', 'ÄbC');
SELECT pg_temp.key('g', 'x');
-- of a citext, the case is no change
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_sync.keys FOR EACH ROW EXECUTE FUNCTION sync_enterprise_connection('key=k:ci', 'name=name');
INSERT INTO regress_sync.keys (ci, name) VALUES ('Acme', 'Key');
UPDATE regress_sync.keys SET ci = 'ACME';
UPDATE regress_sync.keys SET name = 'Renamed';
SELECT operation, key, params FROM box.enqueued();
SELECT * FROM box.row_failure($$UPDATE regress_sync.keys SET ci = 'Acme2'$$) \gx

SET client_min_messages = error;
DROP SCHEMA regress_sync CASCADE;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
