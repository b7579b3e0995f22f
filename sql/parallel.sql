-- Parallel plans: each function does there what it does elsewhere, or does not
-- get there.
SELECT mock.reset('{"profile": "lenient"}');
SET client_min_messages = error;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
SELECT create_enterprise_connection(name => 'Parallel', domains => '{parallel.example}', saml => '{}')->>'name' AS name;

-- every plan that can be is a parallel one; the setting has had two names
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'on', false) IS NOT NULL AS forced;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CREATE TABLE regress_parallel AS SELECT n FROM generate_series(1, 3) AS n;
ANALYZE regress_parallel;

-- what each function that may be in such a plan gets
CREATE TABLE regress_call (function text PRIMARY KEY, call text);
INSERT INTO regress_call VALUES
    ('get_enterprise_connection', $$get_enterprise_connection('entconn_000001') ->> 'name'$$),
    ('list_enterprise_connections', $$(list_enterprise_connections()) ->> 'name'$$),
    ('list_enterprise_connection_test_runs', $$(list_enterprise_connection_test_runs('entconn_000001')) ->> 'id'$$),
    ('enterprise_connection_body', $$enterprise_connection_body(jsonb_build_object('name', 'N' || n))$$),
    ('check_enterprise_connection', $$(check_enterprise_connection(jsonb_build_object('nam', 'N' || n))).message$$),
    ('enterprise_connection_origin', $$enterprise_connection_origin() = enterprise_connection_origin()$$),
    ('enterprise_connection_is_armed', $$enterprise_connection_is_armed('clerk')$$),
    ('enterprise_connection_merge', $$enterprise_connection_merge('{"a": 1}', jsonb_build_object('n', n))$$),
    ('enterprise_connection_domains', $$enterprise_connection_domains(jsonb_build_object('domains', jsonb_build_array('D' || n)))$$),
    ('enterprise_connection_search', $$enterprise_connection_search('l', 'k', 'i', 'o', 'n', ARRAY['d' || n])$$),
    ('enterprise_connection_server_state', $$(enterprise_connection_server_state('clerk')).armed$$),
    ('enterprise_connection_without_secrets', $$enterprise_connection_without_secrets(jsonb_build_object('oidc', jsonb_build_object('client_secret', 'x' || n)))$$),
    ('enterprise_connection_to_jsonb', $$(ROW(NULL, 'N' || n, NULL)::enterprise_connection_login_hint)::jsonb$$);

-- those that are not here are operators' and PostgreSQL's own functions, and others
-- of the same C function
SELECT p.proname, p.proparallel FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clerk')
    AND p.proparallel <> 'u' AND p.prorettype <> 'internal'::regtype AND p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'internal')
    AND NOT EXISTS (SELECT FROM regress_call c JOIN pg_proc tried ON tried.proname = c.function
        WHERE tried.prosrc = p.prosrc AND tried.proparallel = p.proparallel);

CREATE FUNCTION pg_temp.is_parallel(call text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) SELECT ' || call || ' FROM regress_parallel' LOOP
        IF line LIKE '%Gather%' THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
CREATE FUNCTION pg_temp.results(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := '';
    x text;
BEGIN
    -- a loop would read through a cursor, for which no plan is parallel
    EXECUTE 'CREATE TEMP TABLE regress_result AS SELECT (' || call || ')::text AS x FROM regress_parallel';
    SELECT string_agg(r.x, ' ' ORDER BY r.x) INTO result FROM regress_result r;
    DROP TABLE regress_result;
    RETURN result;
END
$$;
SELECT function, (SELECT string_agg(DISTINCT proparallel::text, ',') FROM pg_proc WHERE proname = function) AS label,
    pg_temp.is_parallel(call) AS parallel, pg_temp.results(call) AS results
FROM regress_call ORDER BY function COLLATE "C";

-- those that write are never there
SELECT call, pg_temp.is_parallel(call) AS parallel FROM unnest(ARRAY[
    $$create_enterprise_connection(name => 'N' || n)$$, $$update_enterprise_connection('entconn_000001', '{"name": "N"}')$$,
    $$delete_enterprise_connection('x')$$, $$upsert_enterprise_connection('k', '{"name": "N"}')$$, $$adopt_enterprise_connection('k', 'x')$$,
    $$(create_enterprise_connections(ARRAY['{"name": "N"}']::jsonb[])).ordinal$$, $$(mirror_enterprise_connections()).id$$,
    $$create_enterprise_connection_test_run('x')$$, $$enqueue_enterprise_connection('create', '{"name": "N"}')$$,
    $$await_enterprise_connection(1)$$, $$retry_enterprise_connection_request(1)$$, $$cancel_enterprise_connection_request(1)$$,
    $$track_enterprise_connection('{"id": "x"}', 'clerk')$$, $$arm_enterprise_connections('clerk')$$]) AS call;

-- as PostgreSQL itself chooses it, with all that a call needs in the leader
SELECT n, get_enterprise_connection('entconn_000001') ->> 'name' AS name FROM regress_parallel WHERE n > 1 ORDER BY n;

DROP TABLE regress_parallel, regress_call;
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
