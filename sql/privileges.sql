-- Privileges: who may send, who may see, and that nobody can forge, read the
-- key, or make the extension's owner run code.
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections;
\set VERBOSITY default
SET client_min_messages = warning;      -- no "drop cascades to"

-- What a role gets from a statement: the error, or the number of rows.
CREATE FUNCTION pg_temp.attempt(statement text, OUT result text, OUT message text)
LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS n = ROW_COUNT;
    result := n || ' rows';
EXCEPTION WHEN OTHERS THEN
    result := SQLSTATE;
    message := SQLERRM;
END
$$;

CREATE ROLE regress_nobody;
CREATE ROLE regress_app;
CREATE ROLE regress_member IN ROLE regress_app;
CREATE ROLE regress_owner;
-- nobody may create anything anywhere but here
CREATE SCHEMA regress_api AUTHORIZATION regress_app;
GRANT ALL ON SCHEMA regress_api TO PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SELECT url FROM mock.server \gset
CREATE SERVER regress_second FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_second OPTIONS (secret_key 'sk_test_mock');
GRANT USAGE ON FOREIGN SERVER clerk TO regress_app;
ALTER SERVER regress_second OWNER TO regress_owner;
SELECT create_enterprise_connection(name => 'of the second', server => 'regress_second')->>'name' AS name;
SELECT create_enterprise_connection(name => 'of clerk')->>'name' AS name;

CREATE TABLE regress_statement (n int GENERATED ALWAYS AS IDENTITY, statement text);
GRANT SELECT ON regress_statement TO PUBLIC;
INSERT INTO regress_statement (statement) VALUES
    -- send
    ('SELECT create_enterprise_connection(name => ''x'')'),
    ('SELECT create_enterprise_connection(name => ''x'', server => ''regress_second'')'),
    -- read
    ('SELECT FROM enterprise_connections'),
    ('SELECT FROM enterprise_connections WHERE server = ''regress_second'''),
    ('SELECT FROM enterprise_connections FOR UPDATE'),
    -- forge
    ('INSERT INTO enterprise_connections (server, id, connection, synced_at) VALUES (''clerk'', ''forged'', ''{}'', now())'),
    ('UPDATE enterprise_connections SET organization_id = ''org_forged'''),
    ('DELETE FROM enterprise_connections'),
    ('TRUNCATE enterprise_connections'),
    ('LOCK TABLE enterprise_connections IN ACCESS EXCLUSIVE MODE'),
    ('ALTER TABLE enterprise_connections DISABLE ROW LEVEL SECURITY'),
    ('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
    ('CREATE POLICY p ON enterprise_connections USING (true)'),
    ('CREATE TABLE regress_api.t (server name, id text, FOREIGN KEY (server, id) REFERENCES enterprise_connections)'),
    ('SELECT track_enterprise_connection(''{"id": "forged"}'', ''clerk'', NULL)'),
    -- arm, or make believe
    ('SELECT arm_enterprise_connections(''clerk'')'),
    ('ALTER SERVER clerk OPTIONS (SET origin ''1/1/1'')'),
    ('ALTER SERVER clerk OPTIONS (DROP origin)'),
    -- the key
    ('SELECT FROM pg_user_mapping'),
    ('SELECT FROM pg_user_mappings WHERE array_to_string(umoptions, '' '') LIKE ''%sk_test%'''),
    ('SELECT FROM information_schema.user_mapping_options WHERE option_value LIKE ''%sk_test%'''),
    ('SELECT FROM information_schema._pg_user_mappings WHERE array_to_string(umoptions, '' '') LIKE ''%sk_test%'''),
    ('ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key ''sk_test_mine'')'),
    ('DROP USER MAPPING FOR PUBLIC SERVER clerk'),
    ('CREATE USER MAPPING FOR PUBLIC SERVER regress_second OPTIONS (secret_key ''sk_test_mine'')'),
    -- the server
    ('ALTER SERVER clerk OPTIONS (SET api_url ''https://mine.example'')'),
    ('ALTER SERVER clerk OWNER TO CURRENT_USER'),
    ('DROP SERVER clerk CASCADE'),
    ('CREATE SERVER regress_mine FOREIGN DATA WRAPPER pg_clerk');

--
-- Without USAGE
--
SET ROLE regress_nobody;
SELECT statement, result, message FROM regress_statement, pg_temp.attempt(statement) ORDER BY n;
RESET ROLE;

--
-- With USAGE of one server
--
SELECT mock.forget();
SET ROLE regress_app;
SELECT statement, result, message FROM regress_statement, pg_temp.attempt(statement) ORDER BY n;
SELECT server, name FROM enterprise_connections ORDER BY name;
-- a member of such a role
SET ROLE regress_member;
SELECT create_enterprise_connection(name => 'of a member')->>'name' AS name;
SELECT server, name FROM enterprise_connections ORDER BY name;
-- the owner of the other server
SET ROLE regress_owner;
SELECT server, name FROM enterprise_connections ORDER BY name;
RESET ROLE;
-- all of it that was sent, and all that it changed
SELECT body->>'name' AS name, headers->>'authorization' AS authorization FROM mock.requests();
SELECT server, name, organization_id FROM enterprise_connections ORDER BY name;

-- row-level security does not hide that it hides something
SET ROLE regress_app;
SET row_security = off;
SELECT count(*) FROM enterprise_connections;
RESET row_security;

-- a mapping of one's own is no way to the key of all, nor around it
CREATE USER MAPPING FOR CURRENT_USER SERVER clerk OPTIONS (secret_key 'sk_test_mine');
SELECT result FROM pg_temp.attempt('SELECT create_enterprise_connection(name => ''own mapping'')');
SELECT usename, umoptions FROM pg_user_mappings WHERE srvname = 'clerk' ORDER BY usename;
SELECT authorization_identifier, option_name, option_value FROM information_schema.user_mapping_options
WHERE foreign_server_name = 'clerk' ORDER BY 1;
DROP USER MAPPING FOR CURRENT_USER SERVER clerk;
RESET ROLE;
SELECT headers->>'authorization' AS authorization, status FROM mock.requests() WHERE body->>'name' = 'own mapping';

--
-- USAGE is looked at in each call
--
SET ROLE regress_app;
PREPARE create_it AS SELECT create_enterprise_connection(name => $1)->>'name' AS name;
EXECUTE create_it('before');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_app;
SET ROLE regress_app;
EXECUTE create_it('revoked');
SELECT count(*) FROM enterprise_connections;
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_app;
SET ROLE regress_app;
EXECUTE create_it('granted again');
SET ROLE regress_nobody;
EXECUTE create_it('another role');
RESET ROLE;

-- through a function of somebody who has it
SET ROLE regress_app;
CREATE FUNCTION regress_api.create_for_me(name text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS 'SELECT create_enterprise_connection(name => create_for_me.name)->>''name''';
CREATE FUNCTION regress_api.create_as_me(name text) RETURNS text
LANGUAGE sql AS 'SELECT public.create_enterprise_connection(name => create_as_me.name)->>''name''';
CREATE VIEW regress_api.mine AS SELECT server, name FROM enterprise_connections;
GRANT SELECT ON regress_api.mine TO PUBLIC;
SET ROLE regress_nobody;
SELECT regress_api.create_for_me('for nobody') AS name;
SELECT regress_api.create_as_me('as nobody') AS name;
SELECT current_user, count(*) AS own_rows, (SELECT count(*) > 0 FROM regress_api.mine) AS rows_of_view FROM enterprise_connections;
RESET ROLE;

--
-- A hostile search_path: nothing that a user planted runs as the owner
--
CREATE SCHEMA regress_evil AUTHORIZATION regress_app;
SET ROLE regress_app;
CREATE TABLE regress_evil.trap (what text, as_role name DEFAULT current_user);
GRANT ALL ON regress_evil.trap TO PUBLIC;
GRANT USAGE ON SCHEMA regress_evil TO PUBLIC;
CREATE FUNCTION regress_evil.spring(what text) RETURNS boolean LANGUAGE sql VOLATILE
AS 'INSERT INTO regress_evil.trap VALUES (what); SELECT true';
DO $$
DECLARE
    f record;
BEGIN
    -- every function and operator on the types that the extension's SQL works
    -- with, under its own name, in a schema in front of pg_catalog
    FOR f IN SELECT proname, pg_get_function_identity_arguments(oid) AS args, prorettype::regtype AS result
             FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
                AND proname IN ('jsonb_typeof', 'to_timestamp', 'clock_timestamp', 'now', 'jsonb_build_object', 'has_server_privilege',
                                'jsonb_concat', 'jsonb_object_field', 'jsonb_object_field_text', 'timestamptz_le', 'numeric_ge', 'numeric_le',
                                'texteq', 'nameeq')
                AND provariadic = 0 LOOP
        EXECUTE format('CREATE FUNCTION regress_evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.args, f.result,
                       format('BEGIN PERFORM regress_evil.spring(%L); RETURN NULL; END', f.proname));
    END LOOP;
    FOR f IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprcode::regproc, oprresult::regtype AS result
             FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
                AND (oprname::text, oprleft::regtype::text, oprright::regtype::text) IN (('->', 'jsonb', 'text'), ('->>', 'jsonb', 'text'), ('||', 'jsonb', 'jsonb'),
                    ('=', 'text', 'text'), ('=', 'name', 'name'), ('<=', 'timestamp with time zone', 'timestamp with time zone'), ('<=', 'numeric', 'numeric'),
                    ('>=', 'numeric', 'numeric'), ('/', 'double precision', 'double precision')) LOOP
        EXECUTE format('CREATE FUNCTION regress_evil.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', md5(f::text), f.l, f.r, f.result,
                       format('BEGIN PERFORM regress_evil.spring(%L); RETURN NULL; END', 'operator ' || f.oprname));
        EXECUTE format('CREATE OPERATOR regress_evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = regress_evil.op_%s)',
                       f.oprname, f.l, f.r, md5(f::text));
    END LOOP;
END
$$;
CREATE TABLE regress_evil.enterprise_connections (LIKE public.enterprise_connections);
CREATE TABLE regress_evil.enterprise_connection_requests (LIKE public.enterprise_connection_requests);
CREATE TEMP TABLE enterprise_connections (LIKE public.enterprise_connections);
CREATE TEMP TABLE pg_foreign_server AS SELECT oid, 'regress_second'::name AS srvname FROM pg_catalog.pg_foreign_server;
CREATE FUNCTION regress_evil.track_enterprise_connection(jsonb, name, text) RETURNS void LANGUAGE sql
AS $$SELECT regress_evil.spring('track_enterprise_connection')$$;
RESET ROLE;
SELECT (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'regress_evil'::regnamespace) AS operators,
       count(*) > 20 AS functions FROM pg_proc WHERE pronamespace = 'regress_evil'::regnamespace;
SELECT mock.script('{"match": {"body_contains": "trapped"}, "times": 0, "status": 201, "body": {"object": "enterprise_connection", "id": "entconn_trapped", "name": "trapped", "provider": "saml_okta",
    "domains": ["a"], "active": true, "saml_connection": {"a": 1}, "oauth_config": {"b": 1}, "created_at": 1780000000000, "updated_at": 1780000000000}}');
SET ROLE regress_app;
SET search_path = regress_evil, pg_temp, pg_catalog, public;
SELECT public.create_enterprise_connection(name := 'trapped') IS NOT NULL AS created;
SELECT public.create_enterprise_connection(name := 'trapped') IS NOT NULL AS created;
SELECT count(*) FROM public.enterprise_connections WHERE server OPERATOR(pg_catalog.=) 'regress_second';
-- and in a session that has cached nothing yet
\c -
SET ROLE regress_app;
CREATE TEMP TABLE enterprise_connections (LIKE public.enterprise_connections);
SET search_path = regress_evil, pg_temp, pg_catalog, public;
SELECT public.create_enterprise_connection(name := 'trapped') IS NOT NULL AS created;
SELECT public.create_enterprise_connection(ROW('trapped', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
                                           ::public.enterprise_connection_params) IS NOT NULL AS created;
SELECT count(*) FROM pg_temp.enterprise_connections;
DROP TABLE pg_temp.enterprise_connections;
RESET search_path;
RESET ROLE;
SET client_min_messages = warning;
SELECT * FROM regress_evil.trap;
SELECT (SELECT count(*) FROM regress_evil.enterprise_connections) AS connections,
       (SELECT count(*) FROM regress_evil.enterprise_connection_requests) AS requests;
-- that it would have: the trap works
SET ROLE regress_app;
SET search_path = regress_evil, pg_catalog;
SELECT '{"a": 1}'::jsonb -> 'a'::text IS NULL AS sprung;
RESET search_path;
RESET ROLE;
DELETE FROM regress_evil.trap RETURNING *;
SELECT id, domains FROM enterprise_connections WHERE name = 'trapped';

-- a function that leaks what it is shown gets nothing that the policy hides
SET ROLE regress_app;
CREATE FUNCTION regress_evil.leak(server name) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    INSERT INTO regress_evil.trap VALUES ('saw ' || server);
    RETURN true;
END
$$;
SELECT count(*) > 0 AS some FROM enterprise_connections WHERE regress_evil.leak(server);
SELECT DISTINCT what FROM regress_evil.trap;
RESET ROLE;

--
-- A server that was dropped
--
DROP SERVER regress_second CASCADE;
SELECT server, count(*) FROM enterprise_connections WHERE server = 'regress_second' GROUP BY server;
SET ROLE regress_owner;
SELECT count(*) FROM enterprise_connections;
SET ROLE regress_app;
SELECT DISTINCT server FROM enterprise_connections;
RESET ROLE;

--
-- What is granted
--
SELECT c.relname, c.relrowsecurity AS row_security, p AS privilege,
       has_table_privilege('regress_nobody', c.oid, p) AS nobody, has_table_privilege('regress_app', c.oid, p) AS app
FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e',
    unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p
WHERE c.relkind = 'r' ORDER BY 1, array_position('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}', p);
-- functions that are not for everybody, run as their owner, or have settings
SELECT p.oid::regprocedure AS function, has_function_privilege('regress_nobody', p.oid, 'EXECUTE') AS nobody,
       prosecdef AS security_definer, proconfig
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE NOT has_function_privilege('regress_nobody', p.oid, 'EXECUTE') OR prosecdef OR proconfig IS NOT NULL;
SELECT fdwname, coalesce(fdwacl, acldefault('F', fdwowner)) AS fdwacl, fdwoptions FROM pg_foreign_data_wrapper WHERE fdwname = 'pg_clerk';

DROP SCHEMA regress_evil, regress_api CASCADE;
DROP TABLE regress_statement;
TRUNCATE enterprise_connections;
DROP OWNED BY regress_nobody, regress_app, regress_member, regress_owner;
DROP ROLE regress_nobody, regress_app, regress_member, regress_owner;
