-- pg_clerk.server in code that runs with the rights of another role: a caller
-- must not choose among that role's servers.
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections;
\set VERBOSITY default
SET client_min_messages = warning;      -- no "drop cascades to"
SELECT current_user AS superuser \gset

CREATE ROLE regress_definer;
CREATE ROLE regress_caller LOGIN;
CREATE ROLE regress_second LOGIN;
CREATE SERVER regress_a FOREIGN DATA WRAPPER pg_clerk;
CREATE SERVER regress_b FOREIGN DATA WRAPPER pg_clerk;
CREATE SERVER regress_c FOREIGN DATA WRAPPER pg_clerk;
GRANT USAGE ON FOREIGN SERVER clerk, regress_a, regress_b, regress_c TO regress_definer, regress_second;
CREATE SCHEMA regress_api AUTHORIZATION regress_definer;
GRANT USAGE ON SCHEMA regress_api TO PUBLIC;
-- Which server is meant: enqueueing says it without asking Clerk.
CREATE FUNCTION regress_api.meant() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    request bigint;
BEGIN
    request := public.enqueue_enterprise_connection('create', '{"name": "x"}');
    RETURN server FROM public.enterprise_connection_requests WHERE id = request;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SET ROLE regress_definer;
CREATE FUNCTION regress_api.by_definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT regress_api.meant()';
CREATE FUNCTION regress_api.pinned() RETURNS text LANGUAGE sql SECURITY DEFINER SET pg_clerk.server = 'regress_c' AS 'SELECT regress_api.meant()';
CREATE FUNCTION regress_api.set_inside() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SET LOCAL pg_clerk.server = 'regress_c';
    RETURN regress_api.meant();
END
$$;
CREATE FUNCTION regress_api.configured() RETURNS text LANGUAGE sql SECURITY DEFINER
AS $$SELECT set_config('pg_clerk.server', 'regress_c', true); SELECT regress_api.by_definer()$$;
CREATE FUNCTION regress_api.plain() RETURNS text LANGUAGE sql AS 'SELECT regress_api.meant()';
CREATE TABLE regress_api.orgs (id int PRIMARY KEY, name text, domains text[]);
GRANT ALL ON regress_api.orgs TO PUBLIC;
RESET ROLE;
CREATE TRIGGER sso AFTER INSERT ON regress_api.orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains');
--
-- Of a caller
--
\c - regress_second
SET client_min_messages = error;
SELECT regress_api.plain(), regress_api.by_definer(), regress_api.pinned();
SET pg_clerk.server = 'regress_a';
SELECT regress_api.plain(), regress_api.by_definer(), regress_api.pinned();
SELECT regress_api.set_inside();
SELECT regress_api.configured();
SELECT regress_api.plain(), regress_api.by_definer();
-- however it is set
BEGIN;
SET LOCAL pg_clerk.server = 'regress_b';
SELECT regress_api.plain(), regress_api.by_definer();
SAVEPOINT s;
SELECT set_config('pg_clerk.server', 'regress_c', false);
SELECT regress_api.plain(), regress_api.by_definer();
ROLLBACK TO s;
SELECT regress_api.plain(), regress_api.by_definer();
COMMIT;
SELECT regress_api.plain(), regress_api.by_definer();
-- a function of the caller's that has it set
CREATE FUNCTION pg_temp.mine() RETURNS text LANGUAGE sql SET pg_clerk.server = 'regress_b' AS $$SELECT regress_api.plain() || ', ' || regress_api.by_definer()$$;
SELECT pg_temp.mine();
-- the owner of a table whose trigger names no server
INSERT INTO regress_api.orgs VALUES (1, 'One', '{one.example}');
RESET pg_clerk.server;
SELECT regress_api.plain(), regress_api.by_definer();

-- nor a role without any server
\c - regress_caller
SET client_min_messages = error;
SET pg_clerk.server = 'regress_a';
SELECT regress_api.by_definer(), regress_api.pinned();
SELECT regress_api.plain();
INSERT INTO regress_api.orgs VALUES (2, 'Two', '{two.example}');

--
-- The definer itself
--
\c - :superuser
SET client_min_messages = error;
SET ROLE regress_definer;
SET pg_clerk.server = 'regress_a';
SELECT regress_api.plain(), regress_api.by_definer(), regress_api.pinned();
INSERT INTO regress_api.orgs VALUES (3, 'Three', '{three.example}');
-- its setting is no other role's
RESET ROLE;
CREATE FUNCTION regress_api.by_superuser() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT regress_api.meant()';
SET ROLE regress_definer;
SELECT regress_api.by_superuser();
RESET ROLE;
SELECT regress_api.by_superuser();
-- and the session's own code goes by what the session has set, under whatever role
SELECT regress_api.plain(), regress_api.by_definer();
SET pg_clerk.server = 'regress_b';
SET ROLE regress_second;
SELECT regress_api.plain(), regress_api.by_definer();
RESET ROLE;
-- nor does what whoever refreshes a materialized view has set count for its owner
SET ROLE regress_definer;
CREATE MATERIALIZED VIEW regress_api.seen AS SELECT regress_api.meant() AS server WITH NO DATA;
RESET ROLE;
REFRESH MATERIALIZED VIEW regress_api.seen;
SELECT * FROM regress_api.seen;
SELECT replace(role, :'superuser', '(superuser)') AS role, server, key FROM enterprise_connection_requests ORDER BY id;

--
-- The configuration counts for everybody; what a role or a client brings along
-- hides it, and then nobody can say
--
DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET pg_clerk.server = %L', current_database(), 'regress_c'); END$$;
\c - regress_second
SET client_min_messages = error;
SELECT regress_api.plain(), regress_api.by_definer(), regress_api.pinned();
SET pg_clerk.server = 'regress_a';
SELECT regress_api.plain(), regress_api.by_definer();
ALTER ROLE regress_second SET pg_clerk.server = 'regress_b';
\c - regress_second
SET client_min_messages = error;
SELECT regress_api.plain(), regress_api.pinned();
SELECT regress_api.by_definer();
SET pg_clerk.server = 'regress_a';
SELECT regress_api.by_definer();
\x on
CREATE FUNCTION pg_temp.failure() RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_api.orgs VALUES (4, 'Four', '{four.example}');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END
$$;
SELECT * FROM pg_temp.failure();
\x off
-- of a function of one's own it counts
CREATE FUNCTION pg_temp.own() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT regress_api.meant()';
SELECT pg_temp.own();
RESET pg_clerk.server;
SELECT pg_temp.own();
\c -reuse-previous=on "user=regress_second options='-c pg_clerk.server=regress_a'"
SET client_min_messages = error;
SELECT regress_api.plain(), regress_api.pinned();
SELECT regress_api.by_definer();
\c -reuse-previous=on "options=''"
\c - :superuser

SET client_min_messages = warning;
DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET pg_clerk.server', current_database()); END$$;
DELETE FROM enterprise_connection_requests;
DROP SCHEMA regress_api CASCADE;
DROP SERVER regress_a, regress_b, regress_c CASCADE;
DROP OWNED BY regress_definer, regress_caller, regress_second;
DROP ROLE regress_definer, regress_caller, regress_second;
