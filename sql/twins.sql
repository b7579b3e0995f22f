-- The install script, and what it leaves behind, in a schema full of functions,
-- operators, types and tables of an ordinary role, with the names that the
-- script uses and arguments that match better than those of pg_catalog.
SELECT mock.reset();
SELECT url FROM mock.server \gset
\set home :DBNAME
SET client_min_messages = warning;
DROP DATABASE IF EXISTS regress_twins;
CREATE DATABASE regress_twins;
\c regress_twins
SET client_min_messages = warning;
CREATE ROLE regress_mallory;
CREATE SCHEMA clerk;
GRANT ALL ON SCHEMA clerk TO PUBLIC;
CREATE TABLE script AS
SELECT string_agg(pg_read_file(dir || '/' || file), '') AS text FROM
    (SELECT setting || '/extension' AS dir FROM pg_config WHERE name = 'SHAREDIR') d, pg_ls_dir(dir) file
WHERE file ~ '^pg_clerk--.*\.sql$';
-- each script, an upgrade script too, begins by pinning the path
SELECT file, (regexp_match(pg_read_file(dir || '/' || file), '^\\echo [^\n]* \\quit\n\s*(?:/\*(?:[^*]|\*[^/])*\*/\s*)?([^;]*;)'))[1] AS first_statement
FROM (SELECT setting || '/extension' AS dir FROM pg_config WHERE name = 'SHAREDIR') d, pg_ls_dir(dir) file
WHERE file ~ '^pg_clerk--.*\.sql$' ORDER BY file;

-- Nothing that the script, or an earlier one or a statement of the library,
-- could mean, and by which types.
CREATE TABLE words AS
SELECT w[1] AS word FROM script, regexp_matches(text, '\w+', 'g') w
UNION SELECT unnest('{unnest,string_agg,array_agg,count,format,replace,jsonb_build_object,jsonb_typeof,cardinality,now,pg_has_role}'::text[]);
CREATE TABLE names AS
SELECT p.proname AS name, min(CASE WHEN p.provariadic = 0 THEN p.pronargs ELSE p.pronargs - 1 END) AS least,
    max(CASE WHEN p.provariadic = 0 THEN p.pronargs ELSE 3 END) AS most
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN (SELECT word FROM words)
GROUP BY p.proname;
CREATE TABLE operators AS
SELECT DISTINCT o.oprname AS name FROM pg_operator o, script s
WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND (strpos(s.text, o.oprname) > 0
    OR o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '||', '+', '-', '*', '/', '->', '->>', '@>', '&&', '~'));
CREATE TABLE types (n serial, name text);
INSERT INTO types (name) VALUES ('text'), ('text[]'), ('jsonb'), ('name'), ('bigint'), ('integer'), ('timestamptz'),
    ('oid'), ('float8'), ('boolean'), ('interval'), ('numeric'), ('xid8'), ('regclass'), ('anyelement'), ('anyarray'), ('record');
CREATE TABLE trap (what text, as_role name DEFAULT current_user);
GRANT ALL ON script, words, names, operators, types, trap TO PUBLIC;
SELECT count(*) > 30 AS many_functions, count(*) FILTER (WHERE name = 'unnest') AS unnest FROM names;
SELECT count(*) > 15 AS many_operators FROM operators;

SET ROLE regress_mallory;
CREATE FUNCTION clerk.spring(what text) RETURNS text LANGUAGE sql AS 'INSERT INTO public.trap VALUES (what) RETURNING what';
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN
        SELECT n.name, args FROM names n,
            LATERAL (SELECT '' WHERE n.least = 0
                UNION ALL SELECT t.name FROM types t WHERE 1 BETWEEN n.least AND n.most
                UNION ALL SELECT t.name || ', ' || u.name FROM types t, types u WHERE 2 BETWEEN n.least AND n.most
                UNION ALL SELECT t.name || ', ' || u.name || ', ' || v.name FROM types t, types u, types v
                    WHERE 3 BETWEEN n.least AND n.most AND greatest(t.n, u.n, v.n) < 6) a (args)
    LOOP
        EXECUTE format('CREATE FUNCTION clerk.%I(%s) RETURNS text LANGUAGE plpgsql IMMUTABLE AS %L', f.name, f.args,
                       format('BEGIN PERFORM clerk.spring(%L); RETURN NULL; END', f.name));
    END LOOP;
    FOR f IN SELECT t.name AS l, u.name AS r FROM types t, types u
        WHERE t.name NOT IN ('anyarray', 'record') AND u.name NOT IN ('anyarray', 'record')
    LOOP
        EXECUTE format('CREATE FUNCTION clerk.operator_function(%s, %s) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS %L', f.l, f.r,
                       'BEGIN PERFORM clerk.spring(''operator''); RETURN NULL; END');
    END LOOP;
    FOR f IN SELECT o.name, t.name AS l, u.name AS r FROM operators o, types t, types u
        WHERE t.name NOT IN ('anyarray', 'record') AND u.name NOT IN ('anyarray', 'record') AND o.name <> '=>'
    LOOP
        EXECUTE format('CREATE OPERATOR clerk.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = clerk.operator_function)', f.name, f.l, f.r);
    END LOOP;
    -- types and relations of the names that the script uses
    FOR f IN SELECT t.typname AS name FROM pg_type t WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b'
        AND t.typelem = 0 AND t.typname IN (SELECT word FROM words)
    LOOP
        EXECUTE format('CREATE DOMAIN clerk.%I AS pg_catalog.text CHECK (clerk.spring(%L) IS NOT NULL)', f.name, 'type ' || f.name);
    END LOOP;
    FOR f IN SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
        AND c.relname IN (SELECT word FROM words)
    LOOP
        EXECUTE format('CREATE VIEW clerk.%I AS SELECT v.*, clerk.spring(%L) AS sprung FROM pg_catalog.%I v', f.name, 'view ' || f.name, f.name);
    END LOOP;
END
$$;
RESET ROLE;
-- they work, where nothing pins the path
BEGIN;
SET LOCAL search_path = clerk, pg_temp;
DO 'BEGIN PERFORM unnest(ARRAY[''a''::text]); PERFORM 1::bigint || ''a''::text; END';
RESET search_path;
SELECT * FROM trap;
ROLLBACK;
SELECT count(*) > 4000 AS many FROM pg_proc WHERE pronamespace = 'clerk'::regnamespace;
SELECT count(*) > 4000 AS many FROM pg_operator WHERE oprnamespace = 'clerk'::regnamespace;

CREATE EXTENSION pg_clerk SCHEMA clerk;
SELECT * FROM trap;
SHOW search_path;

-- What a member of the extension, or a part of one, depends on: members, parts
-- of them, and pg_catalog.
CREATE VIEW foreign_dependencies AS
WITH RECURSIVE parts (classid, objid) AS (
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'pg_clerk' AND d.deptype = 'e'
    UNION
    SELECT d.classid, d.objid FROM pg_depend d JOIN parts p ON d.refclassid = p.classid AND d.refobjid = p.objid
    WHERE d.deptype IN ('a', 'i', 'P', 'S')
)
SELECT DISTINCT pg_describe_object(p.classid, p.objid, 0) AS part, r.type, r.identity
FROM parts p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid,
    pg_identify_object(d.refclassid, d.refobjid, 0) r
WHERE (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM parts)
    AND r.schema IS DISTINCT FROM 'pg_catalog'
    AND (r.type, r.identity) NOT IN (('schema', 'clerk'), ('extension', 'pg_clerk'), ('extension', 'plpgsql'), ('language', 'plpgsql'));
SELECT * FROM foreign_dependencies;
-- that it would show: a default, a policy, an index, a view, a constraint
BEGIN;
ALTER TABLE clerk.enterprise_connections ADD COLUMN x text DEFAULT clerk.unnest('a'::text);
CREATE INDEX twin_index ON clerk.enterprise_connections ((key OPERATOR(clerk.||) id)) WHERE key OPERATOR(clerk.=) id;
SELECT type, identity FROM foreign_dependencies ORDER BY 1, 2;
ROLLBACK;

-- An overload beside a function that the extension calls: with one argument
-- more, that has a default, a call could mean either.  So such functions are
-- where nobody else can put one.
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT p.proname AS name, (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n)) AS arguments
        FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        WHERE e.extname = 'pg_clerk' AND NOT has_function_privilege('regress_mallory', p.oid, 'EXECUTE') AND p.pronargs > 0
    LOOP
        SET LOCAL ROLE regress_mallory;
        EXECUTE format('CREATE FUNCTION clerk.%I(%s, "more" integer DEFAULT 0) RETURNS text LANGUAGE plpgsql IMMUTABLE AS %L',
                       f.name, f.arguments, format('BEGIN PERFORM clerk.spring(%L); RETURN NULL; END', f.name));
        RESET ROLE;
    END LOOP;
END
$$;
SELECT count(*) AS overloads FROM pg_proc WHERE pronamespace = 'clerk'::regnamespace AND proname LIKE 'enterprise\_connection\_%'
    AND proowner = 'regress_mallory'::regrole;
SET ROLE regress_mallory;
CREATE FUNCTION pg_catalog.enterprise_connection_merge(known jsonb, answer jsonb, "more" integer DEFAULT 0) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS 'SELECT $1';
RESET ROLE;

-- Later, too: everything that runs statements, with the twins in the path.
CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CREATE TABLE public.orgs (id bigint PRIMARY KEY, name text, domains text[], saml_url text);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON public.orgs FOR EACH ROW
EXECUTE FUNCTION clerk.sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'saml.idp_metadata_url=saml_url');
SET search_path = clerk, pg_catalog, pg_temp;
DO $$
DECLARE
    x pg_catalog.jsonb;
    request bigint;
BEGIN
    x := clerk.create_enterprise_connection(name => 'twin', provider => 'saml_custom', domains => '{twin.example}');
    x := clerk.upsert_enterprise_connection('k', '{"name": "one", "provider": "saml_custom", "domains": ["one.example"]}');
    x := clerk.upsert_enterprise_connection('k', '{"name": "two", "saml": {"idp_entity_id": "x"}}');
    PERFORM clerk.list_enterprise_connections();
    PERFORM clerk.mirror_enterprise_connections();
    PERFORM clerk.check_enterprise_connection('{"name": 1}');
    PERFORM clerk.arm_enterprise_connections('clerk');
    request := clerk.enqueue_enterprise_connection('upsert', '{"name": "three", "saml": {"idp_entity_id": "y"}}', key => 'k');
    request := clerk.enqueue_enterprise_connection('upsert', '{"name": "four", "saml": {"idp_sso_url": "https://y"}}', key => 'k');
    request := clerk.enqueue_enterprise_connection('update', '{"name": ""}', id => 'entconn_none');
    request := clerk.enqueue_enterprise_connection('create', '{"name": "gone"}', key => 'gone');
    PERFORM clerk.cancel_enterprise_connection_request(request);
    INSERT INTO public.orgs VALUES (1, 'org', '{org.example}', 'https://org.example/m');
    UPDATE public.orgs SET name = 'organization';
END
$$;
CALL clerk.deliver_enterprise_connections();
DELETE FROM public.orgs;
CALL clerk.deliver_enterprise_connections();
RESET search_path;
-- a statement of ours with qualified names, as the twins are in no path now
SELECT server, key, name FROM clerk.enterprise_connections ORDER BY name COLLATE "C";
SELECT operation, key, state, error->>'message' AS error FROM clerk.enterprise_connection_requests ORDER BY id;
SET search_path = clerk, pg_catalog, pg_temp;
DO $$
DECLARE
    failed bigint;
BEGIN
    SELECT q.id INTO failed FROM clerk.enterprise_connection_requests q WHERE q.state OPERATOR(pg_catalog.=) 'failed';
    PERFORM clerk.retry_enterprise_connection_request(failed, '{"name": "again"}');
    PERFORM clerk.cancel_enterprise_connection_request(failed);
    PERFORM FROM clerk.enterprise_connection_status;
    PERFORM FROM clerk.enterprise_connection_queue;
    PERFORM FROM clerk.enterprise_connection_certificates;
END
$$;
RESET search_path;
SELECT * FROM trap;
\c :home
DROP DATABASE regress_twins;
DROP ROLE regress_mallory;
