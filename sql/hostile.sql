-- What roles that mean harm have tried
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests;
SET client_min_messages = warning;
SET pg_clerk.on_rollback = ignore;
CREATE ROLE regress_mallory;
CREATE ROLE regress_victim;
CREATE SCHEMA regress_h;
GRANT USAGE, CREATE ON SCHEMA regress_h TO regress_mallory, regress_victim;

-- A foreign key that only checks may run code of the role that has it, as that
-- role.  It leaves nothing behind that runs later, as whoever delivers: no
-- deferred trigger, no cursor; nor does a setting stay.
GRANT REFERENCES ON enterprise_connections TO regress_mallory;
SELECT create_enterprise_connection(name => 'one')->>'id' AS id \gset
SET ROLE regress_mallory;
CREATE TYPE regress_h.id AS ENUM ('x');
CREATE TABLE regress_h.trap (who text);
CREATE FUNCTION regress_h.spring() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE WARNING 'sprung as %', current_user; RETURN NULL; END$$;
CREATE FUNCTION regress_h.spring_later() RETURNS integer LANGUAGE plpgsql AS
    $$BEGIN RAISE WARNING 'fetched as %', current_user; RETURN 1; END$$;
CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON regress_h.trap DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION regress_h.spring();
CREATE FUNCTION regress_h.to_text(regress_h.id) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING 'runs as %', current_user;
    PERFORM set_config('default_transaction_read_only', 'on', false);
    BEGIN
        SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO regress_h.trap VALUES ('trigger');
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING '%', SQLERRM;
    END;
    BEGIN
        EXECUTE 'DECLARE trap CURSOR WITH HOLD FOR SELECT regress_h.spring_later()';
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING '%', SQLERRM;
    END;
    RETURN 'x';
END
$$;
CREATE CAST (regress_h.id AS text) WITH FUNCTION regress_h.to_text(regress_h.id) AS IMPLICIT;
CREATE TABLE regress_h.refers (server name, id regress_h.id);
INSERT INTO regress_h.refers VALUES ('clerk', 'x');
ALTER TABLE regress_h.refers ADD FOREIGN KEY (server, id) REFERENCES enterprise_connections NOT VALID;
RESET ROLE;
SELECT enqueue_enterprise_connection('delete', id => :'id') AS request \gset
CALL deliver_enterprise_connections();
SELECT state, error->>'message' AS error FROM enterprise_connection_requests WHERE id = :request;
SELECT count(*) FROM regress_h.trap;
SHOW default_transaction_read_only;
DROP TABLE regress_h.refers;
REVOKE REFERENCES ON enterprise_connections FROM regress_mallory;

-- To reconcile a partition that is somebody else's: its policy runs as its
-- owner, not as the owner of the trigger
GRANT EXECUTE ON FUNCTION sync_enterprise_connection() TO regress_victim;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_victim;
SET ROLE regress_victim;
CREATE TABLE regress_h.org (id integer, name text, domains text[]) PARTITION BY LIST (id);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_h.org FOR EACH ROW
    EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'server:=clerk');
SET ROLE regress_mallory;
CREATE TABLE regress_h.part (id integer, name text, domains text[]);
CREATE FUNCTION regress_h.look() RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN RAISE WARNING 'looks as %', current_user; RETURN true; END$$;
ALTER TABLE regress_h.part ENABLE ROW LEVEL SECURITY;
CREATE POLICY look ON regress_h.part USING (regress_h.look());
GRANT ALL ON regress_h.part TO regress_victim;
RESET ROLE;
ALTER TABLE regress_h.org ATTACH PARTITION regress_h.part FOR VALUES IN (1);
SET ROLE regress_mallory;
INSERT INTO regress_h.part VALUES (1, 'one', '{one.example}');
SELECT key, change FROM reconcile_enterprise_connections('regress_h.part', 'sso', refresh => false);
RESET ROLE;
SELECT role, operation, key FROM enterprise_connection_requests WHERE key IS NOT NULL ORDER BY id;

-- who may not use the server any more does not see what becomes of a connection
SET ROLE regress_victim;
SELECT enqueue_enterprise_connection('create', '{"name": "two"}', server => 'clerk') AS request \gset
RESET ROLE;
CALL deliver_enterprise_connections();
SET ROLE regress_victim;
SELECT await_enterprise_connection(:request, '0s')->>'name' AS name;
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_victim;
SET ROLE regress_victim;
SELECT await_enterprise_connection(:request, '0s')->>'name' AS name;
RESET ROLE;

-- a session that quotes every name
SET quote_all_identifiers = on;
SELECT enqueue_enterprise_connection('create', '{"name": "quoted"}') IS NOT NULL AS enqueued;
RESET quote_all_identifiers;

-- a server that is dropped where ordinary triggers do not fire leaves no rows
CREATE SERVER regress_gone FOREIGN DATA WRAPPER pg_clerk;
SELECT enqueue_enterprise_connection('create', '{"name": "gone"}', server => 'regress_gone') IS NOT NULL AS enqueued;
SET session_replication_role = replica;
DROP SERVER regress_gone;
RESET session_replication_role;
SELECT count(*) FROM enterprise_connection_requests WHERE server = 'regress_gone';

DROP SCHEMA regress_h CASCADE;
REVOKE ALL ON FUNCTION sync_enterprise_connection() FROM regress_victim;
REVOKE ALL ON FOREIGN SERVER clerk FROM regress_victim;
TRUNCATE enterprise_connections, enterprise_connection_requests;
DROP ROLE regress_mallory, regress_victim;
