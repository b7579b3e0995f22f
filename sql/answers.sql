-- Answers: what is not what was asked for, not whole, not storable, without
-- end, or not fit to be shown.
SELECT mock.reset();
TRUNCATE enterprise_connections;
ALTER SERVER clerk OPTIONS (ADD max_retries '0');
\set VERBOSITY default

CREATE TABLE regress_calls (n int, call text, statement text);
INSERT INTO regress_calls VALUES
    (1, 'create', $$SELECT create_enterprise_connection(name => 'N', provider => 'saml_okta', domains => '{n.example}')$$),
    (2, 'get', $$SELECT get_enterprise_connection('entconn_1')$$),
    (3, 'update', $$SELECT update_enterprise_connection('entconn_1', '{"name": "N"}')$$),
    (4, 'delete', $$SELECT delete_enterprise_connection('entconn_1')$$),
    (5, 'list', $$SELECT * FROM list_enterprise_connections()$$),
    (6, 'mirror', $$SELECT * FROM mirror_enterprise_connections()$$),
    (7, 'test run', $$SELECT create_enterprise_connection_test_run('entconn_1')$$),
    (8, 'test runs', $$SELECT * FROM list_enterprise_connection_test_runs('entconn_1')$$);
-- What each call fails with if this is the answer; and the session lives.
CREATE FUNCTION pg_temp.answered(answer jsonb) RETURNS TABLE (call text, state text, detail text, hint text) LANGUAGE plpgsql AS $$
DECLARE
    c regress_calls;
BEGIN
    FOR c IN SELECT * FROM regress_calls ORDER BY n LOOP
        PERFORM mock.unscript();
        PERFORM mock.script(answer);
        call := c.call;
        SELECT f.state, f.detail, f.hint INTO state, detail, hint FROM test.failure(c.statement) AS f;
        RETURN NEXT;
    END LOOP;
    PERFORM mock.unscript();
END
$$;

--
-- Not what was asked for: KC007 of a POST that creates, KC008 of the others
--
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "organization", "id": "entconn_1", "name": "N", "provider": "x", "deleted": true}}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"id": "entconn_1", "name": "N", "provider": "x", "deleted": true}}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "enterprise_connection", "id": "entconn_2", "name": "N", "provider": "x", "deleted": true}}') WHERE call <> 'create';
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "enterprise_connection", "id": "entconn_1"}}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "enterprise_connection", "id": "entconn_1", "name": "N", "provider": null}}') WHERE call <> 'delete';
SELECT call, state, detail FROM pg_temp.answered(jsonb_build_object('status', 201, 'body',
    jsonb_build_object('object', 'enterprise_connection', 'id', repeat('x', 256), 'name', 'N', 'provider', 'x', 'deleted', true)));
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"data": [{"object": "organization", "id": "org_1"}, {"object": "user", "id": "user_1"}], "total_count": 2}}')
WHERE call IN ('list', 'mirror');
-- nothing of that is tracked, but the one creation whose answer was right; an
-- id of 255 bytes is taken
SELECT id AS tracked FROM enterprise_connections;
SELECT mock.script(jsonb_build_object('status', 201, 'body', jsonb_build_object('object', 'enterprise_connection', 'id', repeat('x', 255), 'name', 'N', 'provider', 'x')));
SELECT length(create_enterprise_connection(name => 'N')->>'id') AS length;

--
-- Not whole: a refusal of a POST is one all the same; of the others the
-- connection broke.  429 and 503 say enough.
--
SELECT call, state, detail FROM pg_temp.answered('{"status": 404, "body": {"errors": [{"code": "resource_not_found", "message": "no"}]}, "truncate": 20}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 422, "body": {"errors": [{"code": "form_identifier_exists", "message": "no"}]}, "truncate": 20, "chunked": true}');
SELECT call, state FROM pg_temp.answered('{"status": 429, "body": {"errors": [{"code": "too_many_requests", "message": "no"}]}, "truncate": 20}');
SELECT call, state FROM pg_temp.answered('{"status": 503, "body": {"errors": [{"code": "service_unavailable", "message": "no"}]}, "truncate": 20}');
-- the outbox tries a delete again: it finds 404
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT create_enterprise_connection(name => 'Cut', provider => 'saml_okta', domains => '{cut.example}')->>'id' AS id \gset
SELECT enqueue_enterprise_connection('delete', id => :'id') AS request \gset
SELECT mock.script('{"match": {"method": "DELETE"}, "apply": true, "status": 404, "body": {"errors": [{"code": "resource_not_found", "message": "no"}]}, "truncate": 20}');
CALL deliver_enterprise_connections();
SELECT state, attempts, error->>'sqlstate' AS error FROM enterprise_connection_requests WHERE id = :request;
SELECT cancel_enterprise_connection_request(:request);
TRUNCATE enterprise_connections;

--
-- What libcurl would repeat by itself, when a kept connection breaks, is a
-- retry that counts, and none of a POST
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT create_enterprise_connection(name => 'Kept', provider => 'saml_okta', domains => '{kept.example}')->>'id' AS id \gset
CREATE FUNCTION pg_temp.broken(call text, statement text, retries int, OUT state text, OUT sent bigint) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER SERVER clerk OPTIONS (SET max_retries %L)', retries);
    PERFORM mock.unscript();
    PERFORM get_enterprise_connection('entconn_000001');
    PERFORM mock.script('{"reset": "before"}');
    PERFORM mock.forget();
    state := (test.failure(statement)).state;
    sent := (SELECT count(*) FROM mock.requests());
END
$$;
SELECT retries, call, b.* FROM (VALUES
    ('get', $$SELECT get_enterprise_connection('entconn_000001')$$),
    ('update', $$SELECT update_enterprise_connection('entconn_000001', '{"name": "N"}')$$),
    ('create', $$SELECT create_enterprise_connection(name => 'N2', provider => 'saml_okta', domains => '{n2.example}')$$),
    ('test run', $$SELECT create_enterprise_connection_test_run('entconn_000001')$$),
    ('delete', $$SELECT delete_enterprise_connection('entconn_000001')$$)) AS v (call, statement),
    generate_series(0, 1) AS retries, pg_temp.broken(call, statement, retries) AS b
ORDER BY retries, call <> 'get', call = 'delete', call;
ALTER SERVER clerk OPTIONS (SET max_retries '0');

--
-- Compressed
--
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "headers": {"Content-Encoding": "gzip"}, "body_base64": "H4sIAAAAAAAAA6uuBQBDv6ajAgAAAA=="}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 422, "headers": {"Content-Encoding": "br"}, "body_base64": "H4sIAAAAAAAAA6uuBQBDv6ajAgAAAA=="}') WHERE call = 'create';
SELECT call, state FROM pg_temp.answered('{"headers": {"Content-Encoding": "identity"}, "real": true}') WHERE call = 'list';

--
-- Not storable here: that connection is named, alone, and the others go on
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('{"times": 0, "match": {"method": "GET", "path": "/enterprise_connections"}, "status": 200,
    "body": "{\"data\": [{\"object\":\"enterprise_connection\",\"id\":\"a\",\"name\":\"A\",\"provider\":\"x\",\"domains\":[\"a.example\"],\"updated_at\":1},{\"object\":\"enterprise_connection\",\"id\":\"nul\",\"name\":\"\\u0000\"},{\"object\":\"enterprise_connection\",\"id\":\"huge\",\"n\":1e999999},{\"object\":\"enterprise_connection\",\"name\":\"\\u0000\",\"id\":\"\\u00e9\"},{\"object\":\"user\",\"id\":\"u\"},{\"object\":\"enterprise_connection\",\"id\":\"b\",\"name\":\"B\",\"provider\":\"x\",\"domains\":[\"b.example\"],\"updated_at\":1}], \"total_count\": 6}"}');
SELECT c->>'id' AS id FROM list_enterprise_connections() AS c;
SELECT id, change FROM mirror_enterprise_connections();
-- what was tracked before and is not storable any more keeps its row
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "nul", "name": "before"}', 'clerk', 'nul');
SELECT mock.script('{"match": {"method": "GET", "path": "/enterprise_connections/unreadable"}, "status": 200, "body": "{\"object\":\"enterprise_connection\",\"id\":\"unreadable\",\"name\":\"\\u0000\"}"}');
SELECT track_enterprise_connection('{"object": "enterprise_connection", "id": "unreadable", "name": "before"}', 'clerk', 'unreadable');
SELECT id, change FROM mirror_enterprise_connections();
SELECT id, name FROM enterprise_connections ORDER BY id;
-- a look-up does not even mention them
SELECT mock.script('{"match": {"method": "POST"}, "status": 422, "body": {"errors": [{"code": "form_identifier_exists", "message": "taken"}]}}');
SELECT state, message, hint FROM test.failure($$SELECT upsert_enterprise_connection('c', '{"name": "C", "provider": "x", "domains": ["B.EXAMPLE"]}')$$);

--
-- Without end
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('{"times": 0, "match": {"method": "GET"}, "status": 200, "body": {"data": [{"object": "enterprise_connection", "id": "a", "name": "A", "provider": "x"}], "total_count": 100000000000000}}');
SELECT call, f.* FROM regress_calls, test.failure(statement) AS f WHERE call IN ('list', 'mirror', 'test runs') ORDER BY n;
-- a request in doubt says so
SELECT mock.script('{"match": {"method": "POST"}, "status": 500}');
ALTER SERVER clerk OPTIONS (ADD timeout '100ms');
SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "x", "domains": ["n.example"]}') AS request \gset
CALL deliver_enterprise_connections();
DO $$
BEGIN
    FOR i IN 1 .. 100 LOOP
        EXIT WHEN (SELECT error->>'message' LIKE '%does not end%' FROM enterprise_connection_requests ORDER BY id DESC LIMIT 1);
        COMMIT;
        PERFORM pg_sleep(0.05);
        CALL deliver_enterprise_connections();
    END LOOP;
END
$$;
SELECT state, error->>'message' AS message, error->>'detail' AS detail FROM enterprise_connection_requests WHERE id = :request;
TRUNCATE enterprise_connection_requests;
ALTER SERVER clerk OPTIONS (DROP timeout);

--
-- Words
--
SELECT mock.reset();
-- no DETAIL without a word in it
SELECT state, message, detail FROM mock.script('{"match": {"method": "POST"}, "status": 418, "body": {"error": "tea"}}'),
    test.failure((SELECT statement FROM regress_calls WHERE n = 1));
-- a hint for each 408 and 5xx, of Clerk's own or not
SELECT status, call, state, hint FROM unnest('{408,500,502,503,504,599}'::int[]) AS status,
    pg_temp.answered(jsonb_build_object('status', status, 'body', '{"errors": [{"code": "x", "message": "x"}], "clerk_trace_id": "t"}'::jsonb));
SELECT call, hint FROM pg_temp.answered('{"status": 500, "body": {"errors": [{"code": "x", "message": "x"}]}}') WHERE call IN ('get', 'update');
SELECT status, call, state, hint FROM unnest('{407,408,500,503,599}'::int[]) AS status,
    pg_temp.answered(jsonb_build_object('status', status, 'body', 'proxy')) WHERE call IN ('create', 'get', 'delete', 'test run');
-- an upsert that creates anew says so
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT upsert_enterprise_connection('k', '{"name": "K", "provider": "saml_okta", "domains": ["k.example"]}')->>'id' AS id;
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS all_deleted;
SELECT mock.script('{"match": {"method": "POST"}, "status": 403, "body": {"errors": [{"code": "quota_exceeded", "message": "too many"}]}}');
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('k', '{"name": "K", "provider": "saml_okta", "domains": ["k.example"]}')$$);

--
-- Secrets: out before anything is cut, also of those that overlap; what is
-- no trace id is not shown
--
SELECT mock.reset();
CREATE FUNCTION pg_temp.refused(answer jsonb, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.script(answer);
    SELECT f.message, f.detail INTO message, detail
    FROM test.failure($s$SELECT create_enterprise_connection(name => 'N', provider => 'oidc_custom', domains => '{n.example}',
        oidc => '{"clientId": "c", "clientSecret": "sk_test_mock_and_more", "requiresPkce": false}')$s$) AS f;
END
$$;
SELECT * FROM pg_temp.refused('{"status": 422, "body": {"errors": [{"code": "c", "message": "sk_test_mock_and_more, sk_test_mock"}], "clerk_trace_id": "sk_test_mock"}}');
SELECT n, d.* FROM unnest('{200,245,250,256,300,2000}'::int[]) AS n, pg_temp.refused(jsonb_build_object('status', 422, 'headers',
    jsonb_build_object('x-clerk-trace-id', repeat('t', n) || 'sk_test_mock'), 'body', '{"errors": [{"code": "c", "message": "m"}]}'::jsonb)) AS d;
SELECT trace, d.detail FROM unnest('{abc-DEF_1.2:3,"evil trace","<b>",""}'::text[]) AS trace, pg_temp.refused(jsonb_build_object('status', 422, 'headers',
    jsonb_build_object('cf-ray', trace), 'body', '{"errors": [{"code": "c", "message": "m"}]}'::jsonb)) AS d;
-- a text that is cut in the middle of a secret
SELECT n, strpos(d.message, 'sk_te') AS at FROM unnest('{980,990,995,1000}'::int[]) AS n, pg_temp.refused(jsonb_build_object('status', 422, 'body',
    jsonb_build_object('errors', jsonb_build_array(jsonb_build_object('code', 'c', 'message', repeat('m', n) || 'sk_test_mock_and_more'))))) AS d;
-- a client secret that comes back is not stored
SELECT mock.script('{"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_s", "name": "S", "provider": "oidc_custom",
    "oauth_config": {"client_id": "c", "client_secret": "echoed"}, "more": [{"client_secret": "echoed", "kept": 1}]}}');
SELECT create_enterprise_connection(name => 'S') IS NOT NULL AS created;
SELECT connection FROM enterprise_connections WHERE id = 'entconn_s';
SELECT mock.script('{"status": 200, "body": {"data": [{"object": "enterprise_connection", "id": "entconn_s", "name": "S2", "provider": "oidc_custom",
    "oauth_config": {"client_id": "c", "client_secret": "echoed"}}], "total_count": 1}}');
SELECT id, change FROM mirror_enterprise_connections(force => true) WHERE id = 'entconn_s';
SELECT connection FROM enterprise_connections WHERE id = 'entconn_s';

--
-- Characters that show nothing or turn the line: none is left
--
SELECT mock.script(jsonb_build_object('status', 422, 'body', jsonb_build_object('errors', jsonb_build_array(jsonb_build_object('code', 'c', 'message',
    '<' || (SELECT string_agg(chr(c), '' ORDER BY c) FROM (SELECT unnest('{127,133,173,847,1536,1564,1757,1807,6068,6158,8203,8206,8232,8238,8288,8294,10240,12644,57344,65024,65039,65279,65529,65535,69821,78896,113824,119155,917505,917569,917631,917760,983040,1114109}'::int[])) AS u (c)) || '>')))));
SELECT message FROM test.failure((SELECT statement FROM regress_calls WHERE n = 1));
-- and what shows something is
SELECT mock.script(jsonb_build_object('status', 422, 'body', jsonb_build_object('errors', jsonb_build_array(jsonb_build_object('code', 'c', 'message', 'é 漢 🔑 مرحبا e' || chr(769))))));
-- how wide these are depends on the version
\pset format unaligned
SELECT message FROM test.failure((SELECT statement FROM regress_calls WHERE n = 1));
\pset format aligned

--
-- Retry-After is obeyed for an hour at most
--
SELECT mock.reset();
SELECT enqueue_enterprise_connection('create', '{"name": "N", "provider": "x", "domains": ["n.example"]}') AS request \gset
SELECT mock.script('{"match": {"method": "POST"}, "status": 503, "headers": {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, "body": {"errors": [{"code": "x", "message": "x"}]}}');
CALL deliver_enterprise_connections();
SELECT state, next_attempt_at - now() BETWEEN '59min' AND '1h' AS within_an_hour FROM enterprise_connection_requests WHERE id = :request;
SELECT cancel_enterprise_connection_request(:request);

ALTER SERVER clerk OPTIONS (DROP max_retries);
DROP TABLE regress_calls;
TRUNCATE enterprise_connections;
