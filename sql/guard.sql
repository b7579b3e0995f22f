-- Nobody's code with the rights of the tables' owner: what a statement of the
-- extension would run must belong to that owner or to a superuser.  Otherwise
-- the statement is refused before anything is sent, with a hint that mends it.
\set home :DBNAME
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests;
\set VERBOSITY default
SET client_min_messages = warning;
SET pg_clerk.on_rollback = ignore;
CREATE ROLE regress_mallory;
CREATE ROLE regress_app;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_app;
CREATE SCHEMA regress_m AUTHORIZATION regress_mallory;
GRANT USAGE, CREATE ON SCHEMA regress_m TO PUBLIC;
CREATE SCHEMA regress_safe;
SELECT create_enterprise_connection(name => 'first')->>'name' AS name;

SET ROLE regress_mallory;
CREATE FUNCTION regress_m.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
CREATE FUNCTION regress_m.yes(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR regress_m.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
CREATE FUNCTION regress_m.eq(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE DOMAIN regress_m.word AS text CHECK (regress_m.yes(VALUE));
RESET ROLE;
CREATE FUNCTION regress_safe.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
CREATE OPERATOR regress_safe.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_m.eq);
CREATE DOMAIN regress_safe.word AS text CHECK (regress_m.yes(VALUE));

-- What a superuser did, the error of a call at once, and what it says; whether
-- enqueueing is refused as well; what the mock got; whether it works after the
-- statement of the hint.  Nothing stays.
CREATE PROCEDURE pg_temp.try(act text) LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    state text;
    message text;
    detail text;
    hint text;
    line text;
BEGIN
    RAISE WARNING '%', act;
    EXECUTE act;
    before := (SELECT count(*) FROM mock.requests());
    BEGIN
        PERFORM create_enterprise_connection(name => 'guarded');
        RAISE WARNING '  allowed';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        -- on 14, what a generated column uses is noted with the column
        RAISE WARNING '  % %', state, regexp_replace(message, '^default value for ', '');
        IF detail !~ '^(It|Its code|That table''s triggers) would run with the rights of role ' THEN
            RAISE WARNING '  % ', detail;
        END IF;
        RAISE WARNING '  %', hint;
    END;
    IF state IS NOT NULL THEN
        BEGIN
            PERFORM enqueue_enterprise_connection('create', '{"name": "guarded"}');
            RAISE WARNING '  but it can be enqueued';
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
        IF before <> (SELECT count(*) FROM mock.requests()) THEN
            RAISE WARNING '  but something was sent';
        END IF;
        EXECUTE substring(hint FROM 'Use (.*?)\.(?: A foreign key .*)?$');
        PERFORM create_enterprise_connection(name => 'mended');
        PERFORM enqueue_enterprise_connection('create', '{"name": "mended"}');
    END IF;
    RAISE SQLSTATE 'UNDO0';
EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
    NULL;
END
$$;

-- the error as it is shown
BEGIN;
CREATE TRIGGER audit BEFORE UPDATE ON enterprise_connection_requests FOR EACH ROW EXECUTE FUNCTION regress_m.fire();
SELECT create_enterprise_connection(name => 'guarded');
ROLLBACK;
BEGIN;
CREATE TABLE regress_m.orgs (server name, id text, FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE);
ALTER TABLE regress_m.orgs OWNER TO regress_mallory;
SELECT enqueue_enterprise_connection('create', '{"name": "guarded"}');
ROLLBACK;

-- triggers
CALL pg_temp.try('CREATE TRIGGER t AFTER INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_m.fire()');
CALL pg_temp.try('CREATE TRIGGER t AFTER DELETE ON enterprise_connections FOR EACH STATEMENT EXECUTE FUNCTION regress_m.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE UPDATE ON enterprise_connection_pauses FOR EACH ROW EXECUTE FUNCTION regress_m.fire()');
CALL pg_temp.try('CREATE CONSTRAINT TRIGGER "T t" AFTER INSERT ON enterprise_connection_requests DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_m.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW WHEN (regress_m.yes(NEW.id)) EXECUTE FUNCTION regress_safe.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW WHEN (NEW.id OPERATOR(regress_m.===) ''x'') EXECUTE FUNCTION regress_safe.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW WHEN (NEW.id OPERATOR(regress_safe.===) ''x'') EXECUTE FUNCTION regress_safe.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_m.fire();
    ALTER TABLE enterprise_connections DISABLE TRIGGER t');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_safe.fire()');
CALL pg_temp.try('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_safe.fire();
    ALTER FUNCTION regress_safe.fire() OWNER TO regress_mallory');

-- foreign keys
CREATE TABLE regress_m.orgs (server name DEFAULT 'clerk', id text);
ALTER TABLE regress_m.orgs OWNER TO regress_mallory;
CREATE TABLE regress_m.parted (server name, id text) PARTITION BY LIST (server);
CREATE TABLE regress_m.part PARTITION OF regress_m.parted FOR VALUES IN ('clerk');
ALTER TABLE regress_m.part OWNER TO regress_mallory;
CREATE TABLE regress_safe.orgs (server name, id text, note text, PRIMARY KEY (server, id));
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE RESTRICT ON UPDATE RESTRICT DEFERRABLE');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE SET DEFAULT NOT VALID');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD CONSTRAINT "K k" FOREIGN KEY (server, id) REFERENCES enterprise_connections ON UPDATE CASCADE');
CALL pg_temp.try('ALTER TABLE regress_m.orgs ADD COLUMN request bigint CONSTRAINT k REFERENCES enterprise_connection_requests ON DELETE CASCADE');
CALL pg_temp.try('ALTER TABLE regress_safe.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE');
CALL pg_temp.try('ALTER TABLE regress_m.parted ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE');
-- and on from there
CALL pg_temp.try('ALTER TABLE regress_safe.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE;
    CREATE TRIGGER t AFTER DELETE ON regress_safe.orgs FOR EACH ROW EXECUTE FUNCTION regress_m.fire()');
CALL pg_temp.try('ALTER TABLE regress_safe.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE;
    ALTER TABLE regress_m.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES regress_safe.orgs ON DELETE CASCADE');
CALL pg_temp.try('ALTER TABLE regress_safe.orgs ADD CONSTRAINT k FOREIGN KEY (server, id) REFERENCES enterprise_connections ON DELETE CASCADE;
    ALTER TABLE regress_safe.orgs ADD CHECK (regress_m.yes(note))');

-- expressions
CALL pg_temp.try('ALTER TABLE enterprise_connections ADD CONSTRAINT c CHECK (regress_m.yes(name))');
CALL pg_temp.try('ALTER TABLE enterprise_connections ALTER COLUMN provider SET DEFAULT regress_m.yes(''x'')::text');
CALL pg_temp.try('ALTER TABLE enterprise_connection_requests ADD COLUMN mine boolean DEFAULT regress_m.yes(''x'')');
CALL pg_temp.try('ALTER TABLE enterprise_connections ADD COLUMN mine boolean GENERATED ALWAYS AS (regress_m.yes(id)) STORED');
CALL pg_temp.try('CREATE INDEX i ON enterprise_connections (regress_m.yes(id))');
CALL pg_temp.try('CREATE INDEX i ON enterprise_connections (id) WHERE regress_m.yes(id)');
CALL pg_temp.try('ALTER TABLE enterprise_connections ADD CONSTRAINT x EXCLUDE USING btree ((regress_m.yes(id)::text || id) WITH =)');
CALL pg_temp.try('CREATE POLICY p ON enterprise_connections USING (regress_m.yes(id))');
CALL pg_temp.try('CREATE RULE r AS ON UPDATE TO enterprise_connections WHERE regress_m.yes(NEW.id) DO INSTEAD NOTHING');
CALL pg_temp.try('CREATE RULE r AS ON INSERT TO enterprise_connections DO ALSO INSERT INTO regress_m.orgs VALUES (NEW.server, NEW.id)');
CALL pg_temp.try('ALTER TABLE enterprise_connections ADD COLUMN mine regress_m.word');
CALL pg_temp.try('ALTER TABLE enterprise_connections ADD COLUMN mine regress_safe.word');

-- whose it is
CALL pg_temp.try('ALTER TABLE enterprise_connection_requests OWNER TO regress_mallory');
CALL pg_temp.try('CREATE TABLE regress_m.child () INHERITS (enterprise_connections); ALTER TABLE regress_m.child OWNER TO regress_mallory');
CALL pg_temp.try('ALTER FUNCTION track_enterprise_connection(jsonb, name, text) OWNER TO regress_mallory');
-- the tables' owner need not be a superuser, and has only its own rights
BEGIN;
CREATE ROLE regress_owner;
SELECT format('ALTER TABLE %s OWNER TO regress_owner', c.oid::regclass) FROM pg_depend d JOIN pg_class c ON d.objid = c.oid
WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind = 'r'
ORDER BY c.relname \gexec
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT d.objid FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        WHERE e.extname = 'pg_clerk' AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO regress_owner', f);
    END LOOP;
END
$$;
SAVEPOINT refused;
CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_safe.fire();
SELECT create_enterprise_connection(name => 'of an owner')->>'name' AS name;
ALTER FUNCTION regress_safe.fire() OWNER TO regress_owner;
SELECT create_enterprise_connection(name => 'of an owner')->>'name' AS name;
ALTER FUNCTION regress_safe.fire() OWNER TO regress_mallory;
SAVEPOINT refused;
SELECT create_enterprise_connection(name => 'of an owner')->>'name' AS name;
ROLLBACK;

-- A view, a function or an index of somebody's that only reads is no matter,
-- nor is a function that depends on the extension.
BEGIN;
CREATE VIEW regress_m.v AS SELECT regress_m.yes(id) FROM enterprise_connections;
ALTER VIEW regress_m.v OWNER TO regress_mallory;
ALTER FUNCTION regress_m.fire() DEPENDS ON EXTENSION pg_clerk;
SELECT create_enterprise_connection(name => 'read')->>'name' AS name;
ROLLBACK;

-- looked at anew in a session that has looked before, and by every way of writing
CREATE TRIGGER t BEFORE UPDATE ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION regress_m.fire();
SELECT mock.forget();
SET ROLE regress_app;
CREATE FUNCTION regress_m.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'allowed';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT call, regress_m.sqlstate_of('SELECT ' || call) AS result FROM unnest(ARRAY[
    $$create_enterprise_connection(name => 'x')$$,
    $$create_enterprise_connections(ARRAY['{"name": "x"}'::jsonb])$$,
    $$update_enterprise_connection('x', '{"name": "x"}')$$,
    $$delete_enterprise_connection('x')$$,
    $$upsert_enterprise_connection('x', '{"name": "x"}')$$,
    $$adopt_enterprise_connection('x', 'x')$$,
    $$mirror_enterprise_connections()$$,
    $$enqueue_enterprise_connection('create', '{"name": "x"}')$$,
    $$count(*) FROM list_enterprise_connections()$$]) call;
RESET ROLE;
SELECT arm_enterprise_connections('clerk');
SELECT method FROM mock.requests();
CALL deliver_enterprise_connections();
DROP TRIGGER t ON enterprise_connections;
SET ROLE regress_app;
SELECT create_enterprise_connection(name => 'last')->>'name' AS name;
RESET ROLE;

-- The schema is not renamed.  Event triggers can be disabled: then its new name
-- is taken up, and nothing is looked for under the old one.
CREATE DATABASE regress_renamed;
SELECT url FROM mock.server \gset
\c regress_renamed
SET client_min_messages = warning;
CREATE SCHEMA "My clerk";
CREATE EXTENSION pg_clerk SCHEMA "My clerk";
CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
SELECT "My clerk".create_enterprise_connection(name => 'before')->>'name' AS name;
ALTER SCHEMA "My clerk" RENAME TO theirs;
ALTER SCHEMA "My clerk" OWNER TO CURRENT_USER;
ALTER SCHEMA public RENAME TO private;
ALTER SCHEMA private RENAME TO public;
ALTER EXTENSION pg_clerk SET SCHEMA public;
ALTER EVENT TRIGGER pg_clerk_schema_renamed DISABLE;
ALTER SCHEMA "My clerk" RENAME TO theirs;
CREATE SCHEMA "My clerk";
CREATE TABLE "My clerk".enterprise_connections (LIKE theirs.enterprise_connections);
CREATE TABLE "My clerk".enterprise_connection_requests (LIKE theirs.enterprise_connection_requests);
SELECT theirs.create_enterprise_connection(name => 'after')->>'name' AS name;
SELECT theirs.enqueue_enterprise_connection('create', '{"name": "after"}');
CALL theirs.deliver_enterprise_connections();
SELECT count(*) FROM (SELECT id FROM "My clerk".enterprise_connections UNION ALL SELECT key FROM "My clerk".enterprise_connection_requests) t;
DROP TABLE "My clerk".enterprise_connections, "My clerk".enterprise_connection_requests;
DROP SCHEMA "My clerk";
ALTER SCHEMA theirs RENAME TO "My clerk";
SELECT "My clerk".create_enterprise_connection(name => 'again')->>'name' AS name;
\c :home
DROP DATABASE regress_renamed;
SELECT body->>'name' AS name FROM mock.requests() WHERE method = 'POST';

DROP SCHEMA regress_m, regress_safe CASCADE;
TRUNCATE enterprise_connections, enterprise_connection_requests;
DROP OWNED BY regress_app;
DROP OWNED BY regress_mallory;
DROP ROLE regress_mallory, regress_app;
