-- Who may do what: role x object x action, as the catalogs have it and as it is
-- when tried.
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests;
\set VERBOSITY default
SET client_min_messages = warning;
SET pg_clerk.on_rollback = ignore;
\pset null ''
-- the owner of the server, roles with USAGE and without, and with PostgreSQL's
-- own roles for all data and for monitoring
CREATE ROLE regress_m_server;
CREATE ROLE regress_m_usage;
CREATE ROLE regress_m_nobody;
CREATE ROLE regress_m_monitor IN ROLE pg_monitor;
CREATE ROLE regress_m_reader IN ROLE pg_read_all_data;
CREATE ROLE regress_m_writer IN ROLE pg_write_all_data;
SELECT url FROM mock.server \gset
CREATE SERVER regress_m FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_m OPTIONS (secret_key 'sk_test_mock');
ALTER SERVER regress_m OWNER TO regress_m_server;
GRANT USAGE ON FOREIGN SERVER regress_m TO regress_m_usage;
CREATE FUNCTION pg_temp.tables(role name, object oid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(CASE WHEN has_table_privilege(role, object, p) THEN p END, ' ' ORDER BY n)
    FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) WITH ORDINALITY p (p, n)
$$;
CREATE TEMP VIEW member AS
SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'pg_clerk' AND d.deptype = 'e';

-- Tables and views.  What a superuser and the tables' owner may, is everything.
SELECT c.relname AS object, c.relkind AS kind, c.relrowsecurity AS row_security,
    pg_temp.tables('regress_m_nobody', c.oid) AS anybody,
    pg_temp.tables('regress_m_reader', c.oid) AS read_all_data, pg_temp.tables('regress_m_writer', c.oid) AS write_all_data
FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
WHERE c.relkind IN ('r', 'v') ORDER BY 1;
-- as anybody: owner of a server, with USAGE, pg_monitor; nobody can grant on
SELECT c.relname, r.rolname FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid, pg_roles r
WHERE c.relkind IN ('r', 'v') AND r.rolname IN ('regress_m_server', 'regress_m_usage', 'regress_m_monitor')
    AND pg_temp.tables(r.rolname, c.oid) IS DISTINCT FROM pg_temp.tables('regress_m_nobody', c.oid);
SELECT c.relname, a.grantee::regrole, a.privilege_type FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
    aclexplode(c.relacl) a WHERE a.is_grantable AND a.grantee <> c.relowner;
-- sequences
SELECT c.relname AS sequence, r.rolname AS role,
    has_sequence_privilege(r.oid, c.oid, 'USAGE') AS usage, has_sequence_privilege(r.oid, c.oid, 'SELECT') AS "select",
    has_sequence_privilege(r.oid, c.oid, 'UPDATE') AS update
FROM member m JOIN pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype = 'i' AND d.classid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S', pg_roles r
WHERE r.rolname LIKE 'regress\_m\_%' ORDER BY 1, 2;

-- Functions: for everybody, or for the owner alone; none runs as its owner. All that
-- list at Clerk are one C function, and for everybody.
SELECT p.oid::regprocedure AS function, CASE WHEN has_function_privilege('regress_m_nobody', p.oid, 'EXECUTE') THEN 'everybody' ELSE 'owner' END AS execute
FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.proname NOT IN ('enterprise_connection_eq', 'enterprise_connection_ne')
    AND NOT (p.prosrc = 'enterprise_connection_list' AND has_function_privilege('regress_m_nobody', p.oid, 'EXECUTE'))
ORDER BY 2, p.proname, p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure AS "not as for anybody", r.rolname FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid, pg_roles r
WHERE r.rolname LIKE 'regress\_m\_%' AND has_function_privilege(r.oid, p.oid, 'EXECUTE') <> has_function_privilege('regress_m_nobody', p.oid, 'EXECUTE');
SELECT p.oid::regprocedure AS "security definer" FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid WHERE p.prosecdef;
SELECT p.oid::regprocedure AS "path not pinned" FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
    AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);
-- types, the foreign data wrapper
SELECT t.oid::regtype AS type, has_type_privilege('regress_m_nobody', t.oid, 'USAGE') AS everybody
FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid WHERE t.typtype IN ('d', 'e') OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c') ORDER BY 1;
SELECT r.rolname, has_foreign_data_wrapper_privilege(r.oid, 'pg_clerk', 'USAGE') AS wrapper, has_server_privilege(r.oid, 'regress_m', 'USAGE') AS server
FROM pg_roles r WHERE r.rolname LIKE 'regress\_m\_%' ORDER BY 1;

-- Tried: the number of rows, or the error.
SELECT create_enterprise_connection(name => 'one', server => 'regress_m')->>'name' AS name;
SELECT enqueue_enterprise_connection('create', '{"name": "two"}', server => 'regress_m') > 0 AS enqueued;
CREATE FUNCTION pg_temp.try(role name, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE statement;
    GET DIAGNOSTICS n = ROW_COUNT;
    RAISE SQLSTATE 'UNDO0' USING MESSAGE = n;
EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
    RETURN SQLERRM;
WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
CREATE SCHEMA regress_m_api;
GRANT ALL ON SCHEMA regress_m_api TO PUBLIC;
CREATE FUNCTION regress_m_api.request() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT max(id) FROM public.enterprise_connection_requests';
CREATE TABLE regress_m_statement (n serial, statement text);
INSERT INTO regress_m_statement (statement) VALUES
    ('SELECT create_enterprise_connection(name => ''x'', server => ''regress_m'')'),
    ('SELECT list_enterprise_connections(server => ''regress_m'') LIMIT 1'),
    ('SELECT mirror_enterprise_connections(''regress_m'') LIMIT 1'),
    ('SELECT enqueue_enterprise_connection(''create'', ''{"name": "x"}'', server => ''regress_m'')'),
    ('SELECT arm_enterprise_connections(''regress_m'')'),
    ('SELECT retry_enterprise_connection_request(regress_m_api.request())'),
    ('SELECT cancel_enterprise_connection_request(regress_m_api.request())'),
    ('SELECT FROM enterprise_connections WHERE server = ''regress_m'''),
    ('SELECT FROM enterprise_connection_requests WHERE server = ''regress_m'''),
    ('SELECT FROM enterprise_connection_status WHERE server = ''regress_m'''),
    ('SELECT FROM enterprise_connection_queue WHERE server = ''regress_m'''),
    ('SELECT FROM enterprise_connection_pauses'),
    ('INSERT INTO enterprise_connections (server, id, connection, synced_at) VALUES (''regress_m'', ''forged'', ''{}'', now())'),
    ('UPDATE enterprise_connections SET id = ''forged'''),
    ('DELETE FROM enterprise_connections'),
    ('TRUNCATE enterprise_connections'),
    ('INSERT INTO enterprise_connection_requests (server, role, operation) VALUES (''regress_m'', ''postgres'', ''create'')'),
    ('UPDATE enterprise_connection_requests SET params = ''{}'''),
    ('DELETE FROM enterprise_connection_requests'),
    ('SELECT setval(''enterprise_connection_requests_id_seq'', 1)'),
    ('CREATE TRIGGER t BEFORE INSERT ON enterprise_connections FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
    ('CREATE TABLE regress_m_api.t (server name, id text, FOREIGN KEY (server, id) REFERENCES enterprise_connections)'),
    ('SELECT track_enterprise_connection(''{"id": "forged"}'', ''regress_m'', NULL)'),
    ('SELECT FROM pg_user_mapping'),
    ('SELECT FROM pg_user_mappings WHERE array_to_string(umoptions, '' '') LIKE ''%sk_test%'' AND srvname = ''regress_m'''),
    ('ALTER USER MAPPING FOR PUBLIC SERVER regress_m OPTIONS (SET secret_key ''sk_test_mine'')'),
    ('ALTER SERVER regress_m OPTIONS (SET api_url ''https://mine.example'')'),
    ('CREATE SERVER regress_mine FOREIGN DATA WRAPPER pg_clerk'),
    ('ALTER EXTENSION pg_clerk UPDATE');

SELECT statement, pg_temp.try('regress_m_nobody', statement) AS nobody, pg_temp.try('regress_m_usage', statement) AS usage,
    pg_temp.try('regress_m_server', statement) AS server_owner, pg_temp.try('regress_m_monitor', statement) AS monitor,
    pg_temp.try('regress_m_reader', statement) AS read_all, pg_temp.try('regress_m_writer', statement) AS write_all
FROM regress_m_statement ORDER BY n;
SELECT pg_temp.try(r.rolname, 'DROP EXTENSION pg_clerk CASCADE') FROM pg_roles r WHERE r.rolname LIKE 'regress\_m\_%';

DROP TABLE regress_m_statement;
DROP SCHEMA regress_m_api CASCADE;
DROP SERVER regress_m CASCADE;
TRUNCATE enterprise_connections, enterprise_connection_requests;
DROP ROLE regress_m_server, regress_m_usage, regress_m_nobody, regress_m_monitor, regress_m_reader, regress_m_writer;
