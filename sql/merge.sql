-- One merge of an older and a newer document, at any depth: of what is known of
-- a connection and an answer, and of the parameters of two upserts of a key.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;

--
-- The function
--
SELECT older, newer, enterprise_connection_merge(older, newer) AS merged FROM (VALUES
    (1, '{"a": 1}'::jsonb, '{"b": 2}'::jsonb),
    (2, '{"a": 1}', '{"a": 2}'),
    (3, '{"a": {"b": {"c": 1, "d": [1, {"e": 2}]}}}', '{"a": {"b": {"d": 3, "f": {"g": []}}}}'),
    -- anything but an object is replaced, by anything
    (4, '{"a": [1, 2], "b": [{"c": 1}]}', '{"a": [3], "b": [{"d": 1}]}'),
    (5, '{"a": {"b": 1}}', '{"a": null}'),
    (6, '{"a": null}', '{"a": {"b": [[], {}, [null, {"c": {}}]]}}'),
    (7, '{"a": {"b": 1}}', '{"a": [{"b": 2}]}'),
    (8, '{"a": "x"}', '{"a": 1.50}'),
    -- empty ones
    (9, '{}', '{}'),
    (10, '{"a": {}}', '{}'),
    (11, '{}', '{"a": {}}'),
    (12, '{"a": {"b": 1}}', '{"a": {}}'),
    (13, '{"a": {}}', '{"a": {"b": 1}}'),
    -- names of different lengths
    (14, '{"": 0, "bb": 1, "a": 1, "ccc": {"z": 1}}', '{"b": 2, "aaa": 3, "ccc": {"zz": 2, "a": 1}, "ü": 1}'),
    -- no objects
    (15, '1', '{"a": 1}'),
    (16, '{"a": 1}', '[1]'),
    (17, '[1]', '[2]'),
    (18, '"x"', 'null')) AS v (n, older, newer) ORDER BY n;
SELECT enterprise_connection_merge(NULL, '{}') IS NULL AS of_null, enterprise_connection_merge('{}', NULL) IS NULL AS with_null;

-- against the same in PL/pgSQL
CREATE FUNCTION pg_temp.merged(older jsonb, newer jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    k text;
    v jsonb;
BEGIN
    IF jsonb_typeof(older) <> 'object' OR jsonb_typeof(newer) <> 'object' THEN
        RETURN newer;
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(newer) LOOP
        older := older || jsonb_build_object(k, CASE WHEN older ? k THEN pg_temp.merged(older->k, v) ELSE v END);
    END LOOP;
    RETURN older;
END
$$;
CREATE FUNCTION pg_temp.random_document(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF depth = 0 OR random() < 0.2 THEN
        RETURN ('{1,"\"x\"",null,true,[],"{}",1.50,"[1, [2, {\"a\": null}]]"}'::text[])[1 + floor(random() * 8)::int]::jsonb;
    END IF;
    RETURN coalesce((SELECT jsonb_object_agg(substr('abcaabbcc', 1 + floor(random() * 7)::int, 1 + floor(random() * 3)::int),
                                             coalesce(pg_temp.random_document(depth - 1), 'null'))
                     FROM generate_series(1, floor(random() * 6)::int)), '{}');
END
$$;
SELECT setseed(0.10);
SELECT count(*) AS compared, count(*) FILTER (WHERE enterprise_connection_merge(a, b)::text <> pg_temp.merged(a, b)::text
    OR enterprise_connection_merge(a, b) <> pg_temp.merged(a, b)) AS wrong, count(*) FILTER (WHERE pg_temp.merged(a, b) <> a || b) > 500 AS deep
FROM (SELECT coalesce(pg_temp.random_document(4), 'null') AS a, coalesce(pg_temp.random_document(4), 'null') AS b FROM generate_series(1, 3000) OFFSET 0) AS d;

-- deep, and too deep: no crash
CREATE FUNCTION pg_temp.deep(depth int, leaf text) RETURNS jsonb LANGUAGE sql AS
$$SELECT (repeat('{"a":', depth) || leaf || repeat('}', depth))::jsonb$$;
SELECT enterprise_connection_merge(pg_temp.deep(1000, '{"x": 1}'), pg_temp.deep(1000, '{"y": [2]}')) = pg_temp.deep(1000, '{"x": 1, "y": [2]}') AS thousand;
CREATE TEMP TABLE deepest AS SELECT pg_temp.deep(2000, '1') AS document, jsonb_build_object('c', jsonb_build_array(pg_temp.deep(2000, '1'))) AS in_array;
SET max_stack_depth = '100kB';
SELECT enterprise_connection_merge(document, document) FROM deepest;
SELECT enterprise_connection_merge('{"b": 1}', document) FROM deepest;
SELECT enterprise_connection_merge('{"b": 1}', in_array) FROM deepest;
RESET max_stack_depth;

-- large
SELECT enterprise_connection_merge(a, b) = a || b AS right, (SELECT count(*) FROM jsonb_object_keys(enterprise_connection_merge(a, b))) AS members
FROM (SELECT jsonb_object_agg('k' || i, i) AS a FROM generate_series(1, 100000) AS i) AS a,
    (SELECT jsonb_object_agg('k' || i, repeat('x', i % 50)) AS b FROM generate_series(50001, 150000) AS i) AS b;

--
-- Two upserts of a key, of which the newer one supersedes the other
--
SELECT enqueue_enterprise_connection('upsert', '{"name": "Deep", "provider": "saml_okta", "domains": ["deep.example", "old.example"], "saml": {"idpEntityId": "e",
    "attributeMapping": {"emailAddress": "mail", "firstName": "givenName"}, "loginHint": {"mode": "custom_attribute", "source": "dept"}}}', 'deep') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"domains": ["deep.example"], "saml": {"attributeMapping": {"lastName": "sn", "firstName": "cn"}, "loginHint": {"source": "team"}}}', 'deep') AS request;
CALL deliver_enterprise_connections();
SELECT id, state, superseded_by FROM enterprise_connection_requests ORDER BY id;
SELECT method, jsonb_pretty(body) AS body, status FROM mock.requests() WHERE method <> 'GET';
-- null takes all of it back
SELECT mock.forget();
SELECT enqueue_enterprise_connection('upsert', '{"saml": {"attributeMapping": {"firstName": "first"}, "idpEntityId": "f"}}', 'deep') AS request;
SELECT enqueue_enterprise_connection('upsert', '{"saml": {"attributeMapping": null}}', 'deep') AS request;
CALL deliver_enterprise_connections();
SELECT method, body FROM mock.requests() WHERE method <> 'GET';

--
-- An answer that lacks what an earlier one had
--
SELECT track_enterprise_connection(jsonb_build_object('id', 'x', 'updated_at', 1780000000000 + n, 'name', 'N' || n) || answer, 'clerk')
FROM (VALUES (1, '{"saml_connection": {"id": "s", "attribute_mapping": {"a": 1, "b": 2}}, "list": [1, 2]}'::jsonb),
    (2, '{"saml_connection": {"attribute_mapping": {"b": 3}}, "list": [3]}'),
    (3, '{"saml_connection": {"attribute_mapping": {"c": {}}}}')) AS v (n, answer);
SELECT connection FROM enterprise_connections WHERE id = 'x';

--
-- A create whose answer is of a connection that is tracked already
--
SELECT mock.script('{"status": 201, "body": {"object": "enterprise_connection", "id": "x", "name": "Created", "provider": "p", "updated_at": 1780000000010, "saml_connection": {"id": "t"}}}');
SELECT create_enterprise_connection('{"name": "Created", "provider": "p"}')->>'id' AS id;
SELECT key, name, provider, connection FROM enterprise_connections WHERE id = 'x';
-- an older answer writes nothing, but a key is the caller's
SELECT mock.script('{"status": 201, "body": {"object": "enterprise_connection", "id": "x", "name": "Older", "provider": "p", "updated_at": 1780000000009}}');
SELECT upsert_enterprise_connection('older', '{"name": "Older", "provider": "p"}')->>'id' AS id;
SELECT key, name, provider FROM enterprise_connections WHERE id = 'x';
TRUNCATE enterprise_connections, enterprise_connection_requests RESTART IDENTITY;
