-- Errors: each row of the table of SQLSTATEs, with message, detail and hint;
-- and nothing is ever sent twice that could happen twice.
SELECT mock.reset();
TRUNCATE enterprise_connections;
\set VERBOSITY default

-- What a statement fails with.  What libcurl says differs between its
-- releases, and ports from run to run: both are masked.
CREATE FUNCTION pg_temp.failure(statement text,
    OUT state text, OUT message text, OUT detail text, OUT hint text, OUT "constraint" text, OUT "column" text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        "constraint" = CONSTRAINT_NAME, "column" = COLUMN_NAME;
    message := regexp_replace(message, '127\.0\.0\.1:\d+', '127.0.0.1:<port>');
    detail := regexp_replace(detail,
        '(^|complete: )(Recv failure|Send failure|Empty reply|Operation timed out|Connection timed out|transfer closed|Server returned|Failure when|Illegal)[^\n]*',
        '\1<libcurl>');
    detail := regexp_replace(detail, '\d+ bytes\) is larger', '<n> bytes) is larger');
END
$$;

-- A call of its own domain, so that what happens to it can be scripted and
-- counted; and the next call of the session, which has to work.
CREATE SEQUENCE pg_temp.calls;
CREATE FUNCTION pg_temp.called(domain text,
    OUT state text, OUT message text, OUT detail text, OUT hint text, OUT "constraint" text, OUT "column" text, OUT next_call text)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT f.* INTO state, message, detail, hint, "constraint", "column"
    FROM pg_temp.failure(format($s$SELECT create_enterprise_connection(name => 'Acme', provider => 'oidc_custom',
        domains => '{%s}', oidc => '{"clientId": "client-1", "clientSecret": "s3cr3t-\"value\"", "requiresPkce": true}')$s$, domain)) AS f;
    next_call := create_enterprise_connection(name => 'Next', provider => 'saml_okta', domains => ARRAY['next.' || domain])->>'name';
END
$$;

-- What calls fail with if these are the answers.
CREATE FUNCTION pg_temp.answered(VARIADIC answers jsonb[])
RETURNS TABLE (answer text, state text, message text, detail text, hint text, "constraint" text, "column" text, next_call text)
LANGUAGE plpgsql AS $$
DECLARE
    call record;
BEGIN
    CREATE TEMP TABLE scripted AS
        SELECT n, a, 'call-' || nextval('pg_temp.calls') || '.example' AS domain
        FROM unnest(answers) WITH ORDINALITY AS u (a, n);
    PERFORM mock.script((SELECT jsonb_agg(a || jsonb_build_object('match', jsonb_build_object('body_contains', '"' || domain || '"')) ORDER BY n)
                         FROM scripted));
    FOR call IN SELECT * FROM scripted ORDER BY n LOOP
        answer := left(call.a::text, 70);
        SELECT c.* INTO state, message, detail, hint, "constraint", "column", next_call FROM pg_temp.called(call.domain) AS c;
        RETURN NEXT;
    END LOOP;
    DROP TABLE scripted;
END
$$;

-- Domains that were received more or less than once: none.
CREATE FUNCTION pg_temp.not_once(OUT domain text, OUT received bigint) RETURNS SETOF record
LANGUAGE sql AS $$
    SELECT d, count(method)
    FROM (SELECT 'call-' || i || '.example' AS d
          FROM generate_series(1, (SELECT last_value FROM pg_temp.calls)) AS i) AS made
        LEFT JOIN mock.requests() ON body->'domains'->>0 = d
    GROUP BY d HAVING count(method) <> 1
$$;

--
-- As psql shows it
--
SELECT create_enterprise_connection('{"name": "Acme", "provider": "saml_okta", "domians": ["acme.example"]}');
\echo :SQLSTATE
SELECT create_enterprise_connection('{"name": "Acme", "provider": "saml_octa", "domains": ["acme"], "saml": {"loginHint": {"mode": "custom_attribute"}}}');
\echo :SQLSTATE

--
-- Nothing is sent
--
\x on
-- 22023: wrong parameters (which ones there are is in test params)
SELECT state, message, detail, regexp_replace(hint, 'are .*\. What', 'are .... What') AS hint, "column" FROM (VALUES
    ('{"nmae": "Acme"}'),
    ('{"name": 5}'),
    ('{"domains": "acme.example"}'),
    ('{"active": "true"}'),
    ('{"saml": {"idpMetadataURL": "https://idp.example/md", "idpMetadatUrl": "x"}}'),
    ('{"saml": {"attributeMapping": {"mail": "x"}}}'),
    ('{"idpMetadataUrl": "x"}'),
    ('{"customAttributes": [{"name": "a", "key": "a"}, {"name": "b", "kye": "b"}]}'),
    ('{"nmae": "Acme", "activ": true, "domains": [1], "oidc": {"clientSecret": ["s3cr3t"]}}'),
    ('{"something_entirely_different": 1}')
) AS v (params), pg_temp.failure(format('SELECT create_enterprise_connection(%L)', params));

-- 42704, 42809, 55000, 42501: servers
CREATE FOREIGN DATA WRAPPER regress_other;
CREATE SERVER regress_other FOREIGN DATA WRAPPER regress_other;
CREATE SERVER "regress No key" FOREIGN DATA WRAPPER pg_clerk;
CREATE SERVER regress_own_key FOREIGN DATA WRAPPER pg_clerk;
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_own_key OPTIONS (secret_key 'sk_test_mock');
CREATE ROLE "regress Nobody";
SELECT state, message, detail, hint FROM (VALUES
    ($$SELECT create_enterprise_connection(name => 'x', server => 'No such')$$),
    ($$SELECT create_enterprise_connection(name => 'x', server => '')$$),
    ($$SELECT create_enterprise_connection(name => 'x', server => 'regress_other')$$),
    ($$SELECT create_enterprise_connection(name => 'x', server => 'regress No key')$$),
    ($$SELECT create_enterprise_connection(name => 'x', server => 'regress_own_key')$$)
) AS v (statement), pg_temp.failure(statement);
CREATE USER MAPPING FOR PUBLIC SERVER "regress No key";
SELECT state, message, detail, hint
FROM pg_temp.failure($$SELECT create_enterprise_connection(name => 'x', server => 'regress No key')$$);
SET ROLE "regress Nobody";
SELECT create_enterprise_connection(name => 'x');
\echo :SQLSTATE
RESET ROLE;
DROP ROLE "regress Nobody";
DROP SERVER "regress No key" CASCADE;
DROP SERVER regress_own_key CASCADE;
DROP FOREIGN DATA WRAPPER regress_other CASCADE;

-- 25006: read only
BEGIN READ ONLY;
SELECT create_enterprise_connection(name => 'x');
\echo :SQLSTATE
ROLLBACK;

-- of all that, nothing was sent but the request of the second statement
SELECT method, status FROM mock.requests();

--
-- KC001: no connection
--
CREATE SERVER regress_refused FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url 'http://127.0.0.1:1/', max_retries '1', rate_limit '0');
CREATE SERVER regress_no_such_host FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url 'https://no-such-host.invalid', max_retries '0', connect_timeout '2s');
SELECT replace(url, 'http:', 'https:') AS tls_url FROM mock.server \gset
CREATE SERVER regress_no_tls FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'tls_url', max_retries '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_refused OPTIONS (secret_key 'sk_test_mock');
CREATE USER MAPPING FOR PUBLIC SERVER regress_no_such_host OPTIONS (secret_key 'sk_test_mock');
CREATE USER MAPPING FOR PUBLIC SERVER regress_no_tls OPTIONS (secret_key 'sk_test_mock');
SELECT state, message, detail <> '' AS has_detail, hint
FROM unnest('{regress_refused,regress_no_such_host,regress_no_tls}'::text[]) AS server,
    pg_temp.failure(format('SELECT create_enterprise_connection(name => %L, server => %L)', 'x', server));
DROP SERVER regress_refused CASCADE;
DROP SERVER regress_no_such_host CASCADE;
DROP SERVER regress_no_tls CASCADE;

--
-- KC007: it may have happened
--
ALTER SERVER clerk OPTIONS (ADD timeout '1s');
-- broken after and before Clerk took it (which can't be told apart here), and no answer in time
SELECT * FROM pg_temp.answered(
    '{"reset": "after"}',
    '{"reset": "before"}',
    '{"apply": true, "hold": true}');
ALTER SERVER clerk OPTIONS (SET timeout '30s');
-- statuses after which nobody knows
SELECT a.* FROM pg_temp.answered(VARIADIC (
    SELECT array_agg(jsonb_build_object('status', status, 'body', '{"errors": [{"message": "Oops",
        "long_message": "There was an internal error on our servers.", "code": "internal_clerk_error"}], "clerk_trace_id": "trace_1"}'::jsonb))
    FROM unnest('{500,502,504,520,599}'::int[]) AS status)) AS a;
-- an answer of something in between
SELECT * FROM pg_temp.answered(
    '{"status": 502, "headers": {"Content-Type": "text/html", "CF-Ray": "ray-1"},
    "body": "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"}',
    '{"status": 504, "body": ""}',
    '{"status": 503, "headers": {"Content-Type": "text/html", "Retry-After": "0"}, "body": "<html>backend read error</html>"}',
    '{"status": 302, "headers": {"Location": "http://127.0.0.1:1/elsewhere"}, "body": ""}',
    '{"status": 307, "headers": {"Location": "/v1/enterprise_connections"}, "body": ""}',
    '{"status": 204, "body": ""}');

-- received once each, all of them
SELECT * FROM pg_temp.not_once();

-- 201, but the answer cannot be used: it exists
SELECT * FROM pg_temp.answered(
    '{"status": 201, "body": ""}',
    '{"status": 201, "body": "created"}',
    '{"status": 201, "body": "{\"id\": \"entconn_7\", \"name\": \"Ac"}',
    '{"status": 201, "body": "{\"object\": {\"id\": \"not_this\"}, \"id\": \"entconn_7\"} trailing"}',
    '{"status": 201, "body": {"id": "entconn_7", "name": "Acme"}, "truncate": 20}',
    '{"status": 201, "body": {"id": "entconn_7", "name": "Acme"}, "truncate": 20, "chunked": true}',
    '{"status": 201, "body": {"id": "entconn_7", "name": "Acme"}, "truncate": 5}',
    -- not UTF-8: {"id":"entconn_7","name":"\xff"}
    '{"status": 201, "body_base64": "eyJpZCI6ImVudGNvbm5fNyIsIm5hbWUiOiL/In0="}',
    '{"status": 201, "body": "{\"id\": \"entconn_7\", \"name\": \"a\\u0000b\"}"}',
    -- a NUL byte: {"id":"entconn_7","name":"\x00"}
    '{"status": 201, "body_base64": "eyJpZCI6ImVudGNvbm5fNyIsIm5hbWUiOiIAIn0="}',
    '{"status": 201, "body": "{\"id\": \"entconn_7\", \"name\": \"\\ud800\"}"}',
    '{"status": 201, "body": "{\"id\": \"entconn_7\", \"n\": 1e999999}"}',
    '{"status": 201, "fill": {"size": 104857600, "prefix": "{\"id\": \"entconn_7\", \"name\": \""}}',
    jsonb_build_object('status', 201, 'body', '{"id": "entconn_7", "deep": ' || repeat('[', 100000)),
    jsonb_build_object('status', 201, 'body', '{"id": "entconn_7", "deep": ' || repeat('[', 100) || repeat(']', 100) || '}'),
    '{"status": 201, "body": "[]"}',
    '{"status": 201, "body": "\"entconn_7\""}',
    '{"status": 201, "body": "null"}',
    '{"status": 201, "body": {"object": "enterprise_connection"}}',
    '{"status": 201, "body": {"id": 7}}',
    '{"status": 201, "body": {"id": ""}}',
    '{"status": 201, "body": {"id": null}}',
    -- an id that is not one line of ASCII is not shown
    '{"status": 201, "body": "{\"id\": \"ent\\u001b[31mconn\", \"name\": \"Ac"}');

--
-- KC4xx, KC5xx: Clerk's refusals
--
\x off
CREATE TEMP TABLE refusal (status int, code text, domain text DEFAULT 'call-' || nextval('pg_temp.calls') || '.example');
INSERT INTO refusal VALUES
    (400, 'request_body_invalid'), (400, 'malformed_request_parameters'), (400, 'api_version_invalid'), (400, 'saml_failed_to_fetch_idp_metadata'),
    (401, 'authorization_header_format_invalid'), (401, 'clerk_key_invalid'), (402, 'unsupported_subscription_plan_features'),
    (403, 'feature_not_enabled'), (403, 'authorization_invalid'), (403, 'organization_not_enabled_in_instance'), (403, 'quota_exceeded'),
    (404, 'resource_not_found'), (409, 'conflict'), (409, 'resource_locked'), (413, 'request_body_too_large'), (415, 'unsupported_content_type'),
    (422, 'form_param_missing'), (422, 'form_param_unknown'), (422, 'form_param_value_invalid'), (422, 'form_param_format_invalid'),
    (422, 'form_param_nil'), (422, 'form_param_duplicate'), (422, 'form_conditional_param_missing'),
    (422, 'form_public_client_requires_pkce'), (422, 'form_identifier_exists'), (422, 'saml_connection_cant_be_activated'),
    (422, 'saml_failed_to_parse_idp_metadata'), (422, 'saml_metadata_missing_fields'), (422, 'organization_already_has_sso_connection'),
    (422, 'organization_domain_exists_for_enterprise_connection'), (418, 'not_known_yet'), (503, 'service_unavailable');
SELECT mock.script(jsonb_agg(jsonb_build_object('match', jsonb_build_object('body_contains', '"' || domain || '"'),
    'status', status, 'body', jsonb_build_object('clerk_trace_id', 'trace_1', 'errors', jsonb_build_array(
        jsonb_build_object('message', 'short', 'long_message', code || ' in words.', 'code', code,
                           'meta', jsonb_build_object('param_name', 'some.param')))))))
FROM refusal;
SELECT status, code, state, message = 'could not create the enterprise connection: ' || code || ' in words' AS message,
       detail = 'some.param: ' || code || E' in words. (' || code || E')\nTrace id: trace_1' AS detail,
       "constraint" = code AS code_is_constraint, "column" = 'some.param' AS param_is_column, hint
FROM refusal, pg_temp.called(domain);
SELECT * FROM pg_temp.not_once();
\x on

-- the wrong key, the instance's limit, the domain that is taken
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_a_wrong_one');
SELECT * FROM pg_temp.failure($$SELECT create_enterprise_connection(name => 'x')$$);
ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_mock');
SELECT mock.reset('{"max_connections": 1}');
ALTER SEQUENCE pg_temp.calls RESTART;
SELECT create_enterprise_connection(name => 'One', provider => 'saml_okta', domains => '{one.example}')->>'id' AS id;
SELECT * FROM pg_temp.failure($$SELECT create_enterprise_connection(name => 'Two', provider => 'saml_okta', domains => '{two.example}')$$);
SELECT mock.settings('{"max_connections": null}');
SELECT * FROM pg_temp.failure($$SELECT create_enterprise_connection(name => 'One', provider => 'saml_okta', domains => '{One.example}')$$);

-- bodies of other shapes
SELECT * FROM pg_temp.answered(
    ('{"status": 403, "body": {"error": "Forbidden by the proxy."}}'::jsonb),
    ('{"status": 403, "body": "<html>Forbidden</html>"}'),
    ('{"status": 403, "body": "", "headers": {"X-Clerk-Trace-Id": "trace_h", "CF-Ray": "ray_h"}}'),
    ('{"status": 422, "body": {"errors": []}}'),
    ('{"status": 422, "body": {"errors": {"message": "no array"}}}'),
    ('{"status": 422, "body": {"errors": ["a string", null, 5, {}, {"message": 5, "code": [], "meta": "x"}]}}'),
    ('{"status": 422, "body": {"errors": [{"message": "only short", "meta": {}}]}}'),
    ('{"status": 422, "body": [{"message": "an array"}]}')
);
SELECT * FROM pg_temp.answered(
    '{"status": 422, "body_base64": "eyJlcnJvcnMiOlt7Im1lc3NhZ2UiOiL/In1dfQ=="}',
    '{"status": 422, "fill": {"size": 104857600, "prefix": "{\"errors\": ["}}');

-- several errors; of many, the first twenty
SELECT * FROM pg_temp.answered('{"status": 422, "body": {"errors": [
    {"message": "is missing", "long_message": "name must be included.", "code": "form_param_missing", "meta": {"param_name": "name"}},
    {"message": "is wrong", "long_message": "domains is wrong.", "code": "form_param_value_invalid", "meta": {"param_name": "domains"}}]}}');
SELECT state, message, array_length(string_to_array(detail, E'\n'), 1) AS lines,
       (string_to_array(detail, E'\n'))[20:22] AS last_lines
FROM pg_temp.answered(jsonb_build_object('status', 422, 'body', jsonb_build_object('clerk_trace_id', 'trace_1', 'errors',
    (SELECT jsonb_agg(jsonb_build_object('message', 'error ' || i, 'code', 'code_' || i)) FROM generate_series(1, 1000) AS i))));

-- what is hostile: control characters, line breaks, terminal escapes, 100 kB
SELECT * FROM pg_temp.answered('{"status": 422, "body": {"errors": [{"message": "a\u001b[31mred\u0007\r\nERROR:  forged",
    "code": "evil\ncode", "meta": {"param_name": "evil\u001bname"}}], "clerk_trace_id": "evil\ntrace"}}');
-- C1 controls are terminal escapes too
SELECT message ~ '[\u0080-\u009f]' AS in_message, detail ~ '[\u0080-\u009f]' AS in_detail,
       "constraint" ~ '[\u0080-\u009f]' AS in_code, "column" ~ '[\u0080-\u009f]' AS in_param
FROM pg_temp.answered('{"status": 422, "body": {"errors": [{"message": "a\u009b2Jb", "code": "c\u0085d",
    "meta": {"param_name": "p\u009dq"}}], "clerk_trace_id": "t\u0090r"}}');
SELECT state, length(message) AS message, length(detail) AS detail, length("constraint") AS "constraint", length("column") AS "column",
       left(message, 60) AS message_begins, right(message, 10) AS message_ends
FROM pg_temp.answered(jsonb_build_object('status', 422, 'body', jsonb_build_object('clerk_trace_id', repeat('t', 100000), 'errors',
    jsonb_build_array(jsonb_build_object('message', repeat('ä', 50000), 'code', repeat('c', 100000), 'meta',
        jsonb_build_object('param_name', repeat('p', 100000)))))));

-- secrets that the server echoes are not shown
SELECT * FROM pg_temp.answered('{"status": 422, "headers": {"X-Clerk-Trace-Id": "sk_test_mock"}, "body": {"errors": [
    {"message": "no", "long_message": "Bearer sk_test_mock may not use s3cr3t-\"value\".", "code": "s3cr3t-\"value\"",
     "meta": {"param_name": "sk_test_mock"}}]}}');
SELECT state, right(message, 20) AS message_ends, right(detail, 20) AS detail_ends
FROM pg_temp.answered(jsonb_build_object('status', 422, 'body', jsonb_build_object('errors',
    jsonb_build_array(jsonb_build_object('message', repeat('x', 995) || 's3cr3t-"value"')))));
SELECT * FROM pg_temp.answered(
    '{"status": 201, "body": "{\"id\": \"sk_test_mock\", \"name\": \"cut off"}',
    '{"status": 403, "headers": {"CF-Ray": "s3cr3t-\"value\""}, "body": ""}',
    '{"status": 403, "body": {"error": "sk_test_mock is wrong"}}');

SELECT * FROM pg_temp.not_once();

--
-- 429 and 503: tried again where the time allows it, and only there
--
\x off
SELECT mock.reset();
CREATE FUNCTION pg_temp.retried(what text, at_least interval, answer jsonb, OUT result text, OUT hint text, OUT in_time boolean)
LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
BEGIN
    PERFORM mock.script(answer || jsonb_build_object('match', jsonb_build_object('body_contains', what)));
    began := clock_timestamp();
    BEGIN
        result := create_enterprise_connection(name => what, provider => 'saml_okta', domains => ARRAY[md5(what) || '.example'])->>'name';
    EXCEPTION WHEN SQLSTATE 'KC000' THEN
        GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
        result := SQLSTATE;
    END;
    in_time := clock_timestamp() - began BETWEEN at_least AND at_least + interval '10 s';
END
$$;
SELECT * FROM pg_temp.retried('429 in 1 s', '1 s', '{"status": 429, "headers": {"Retry-After": "1"}, "body": ""}');
SELECT * FROM pg_temp.retried('429 at once', '0', '{"status": 429, "headers": {"Retry-After": "0"}, "body": ""}');
SELECT * FROM pg_temp.retried('503 at once', '0', '{"status": 503, "headers": {"Retry-After": "0"}, "body": {"errors": [{"code": "service_unavailable"}]}}');
SELECT * FROM pg_temp.retried('503 alone', '0', '{"status": 503, "body": {"errors": [{"code": "service_unavailable"}]}}');
-- an HTTP date, two seconds ahead
SELECT * FROM pg_temp.retried('429 until a date', '1 s', jsonb_build_object('status', 429, 'body', '', 'headers', jsonb_build_object('Retry-After',
    to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '2 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'))));
-- longer than the call may take
SELECT * FROM pg_temp.retried('429 in 31 s', '0', '{"status": 429, "headers": {"Retry-After": "31"}, "body": ""}');
SELECT * FROM pg_temp.retried('429 in an eternity', '0', '{"status": 429, "headers": {"Retry-After": "99999999999999999999"}, "body": ""}');
-- what is neither seconds nor a date says nothing
SELECT * FROM pg_temp.retried('503 soon', '0', '{"status": 503, "headers": {"Retry-After": "soon"}, "body": {"errors": [{"code": "service_unavailable"}]}}');
SELECT * FROM pg_temp.retried('503 in 1 h', '0', '{"status": 503, "headers": {"Retry-After": "3600"}, "body": {"errors": [{"code": "service_unavailable"}]}}');
-- no more than max_retries times
SELECT * FROM pg_temp.retried('429 for ever', '0', '{"times": 0, "status": 429, "headers": {"Retry-After": "0"}, "body": ""}');
ALTER SERVER clerk OPTIONS (ADD max_retries '0');
SELECT * FROM pg_temp.retried('429 without retries', '0', '{"times": 0, "status": 429, "headers": {"Retry-After": "0"}, "body": ""}');
ALTER SERVER clerk OPTIONS (DROP max_retries);
SELECT body->>'name' AS call, count(*) AS received FROM mock.requests() GROUP BY 1 ORDER BY 1;

--
-- A connection that was kept open, and breaks: the POST is not sent again on
-- a new one by anybody
--
SELECT mock.reset();
SELECT create_enterprise_connection(name => 'Warm', provider => 'saml_okta', domains => '{warm.example}')->>'name' AS name;
SELECT mock.script('[{"match": {"body_contains": "broken"}, "reset": "before"}, {"match": {"body_contains": "broken"}, "reset": "after"},
    {"match": {"body_contains": "broken"}, "raw": ""}]');
SELECT n, f.state, create_enterprise_connection(name => 'Warm', provider => 'saml_okta', domains => ARRAY['warm-' || n || '.example'])->>'name' AS next
FROM generate_series(1, 3) AS n, pg_temp.failure(format($$SELECT create_enterprise_connection(name => 'Broken', provider => 'saml_okta',
    domains => '{broken-%s.example}')$$, n)) AS f;
SELECT r->'body'->'domains'->>0 AS domain, count(*) AS received FROM jsonb_array_elements(mock.call('GET', '/_mock/requests')) AS r GROUP BY 1 ORDER BY 1;
-- each of them on a connection that had been used before
SELECT count(DISTINCT r->>'connection') AS connections FROM jsonb_array_elements(mock.call('GET', '/_mock/requests')) AS r;
SELECT count(*) AS at_clerk FROM mock.connections();

--
-- Catching them
--
SELECT mock.reset();
DO $$
DECLARE
    statuses int[] := '{401,404,422,429,500,503}';
    s int;
    code text;
    param text;
BEGIN
    FOREACH s IN ARRAY statuses LOOP
        PERFORM mock.script(jsonb_build_object('times', 3, 'status', s, 'headers', '{"Retry-After": 100}'::jsonb, 'body',
            '{"errors": [{"message": "m", "code": "a_code", "meta": {"param_name": "a_param"}}]}'::jsonb));
        -- all of the class, by its first code
        BEGIN
            PERFORM create_enterprise_connection(name => 'x');
        EXCEPTION WHEN SQLSTATE 'KC000' THEN
            GET STACKED DIAGNOSTICS code = CONSTRAINT_NAME, param = COLUMN_NAME;
            RAISE NOTICE 'KC000 caught %, code %, parameter %', SQLSTATE, code, param;
        END;
        -- one alone
        BEGIN
            BEGIN
                PERFORM create_enterprise_connection(name => 'x');
            EXCEPTION WHEN SQLSTATE 'KC422' THEN
                RAISE NOTICE 'KC422 caught %', SQLSTATE;
            END;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'KC422 let % through', SQLSTATE;
        END;
        PERFORM mock.unscript();
    END LOOP;
END
$$;

-- no row came of any failure
SELECT name FROM enterprise_connections WHERE name IN ('Acme', 'Broken', 'x');
ALTER SERVER clerk OPTIONS (DROP timeout);
