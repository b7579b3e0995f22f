-- create_enterprise_connections: many at once, each one faring by itself.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

-- What libcurl says differs between its releases: it is masked, as are ports
-- and trace ids.
CREATE FUNCTION pg_temp.masked(error jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN error IS NOT NULL THEN error ||
        jsonb_build_object('detail', regexp_replace(regexp_replace(error->>'detail',
            '^(Recv failure|Send failure|Empty reply|transfer closed|Server returned|Failed to connect|Failure when)[^\n]*', '<libcurl>'),
            'Trace id: \w+', 'Trace id: <id>')) ||
        CASE WHEN error->>'trace_id' ~ '^0+' THEN '{"trace_id": "<id>"}'::jsonb ELSE '{}' END END
$$;
-- What was received more or less than once: nothing.
CREATE FUNCTION pg_temp.not_once(count int, prefix text) RETURNS TABLE (name text, received bigint) LANGUAGE sql AS $$
    SELECT p->>'name', count(r.method) FROM unnest(test.params(count, prefix)) AS p
        LEFT JOIN mock.requests() AS r ON r.method = 'POST' AND r.body->>'name' = p->>'name'
    GROUP BY 1 HAVING count(r.method) <> 1
$$;

--
-- All kinds together, in order
--
SELECT create_enterprise_connection(name => 'First', provider => 'saml_okta', domains => '{taken.example}')->>'id' AS id;
SELECT mock.forget();
CREATE TEMP TABLE result AS
SELECT * FROM create_enterprise_connections(ARRAY[
    '{"name": "One", "provider": "saml_okta", "domains": ["one.example"], "organizationId": "org_1"}',
    '{"name": "Taken", "provider": "saml_okta", "domains": ["taken.example"]}',
    '{"nmae": "Misspelt", "activ": true}',
    NULL,
    '{"name": "Completed", "provider": "saml_okta", "domains": ["completed.example"], "syncUserAttributes": false, "saml": {"name": "Inner"}}',
    '{}',
    '[]',
    '{"name": "Nothing else"}',
    '{"name": "Last", "domains": ["last.example"], "oidc": {"clientId": "c", "requiresPkce": true}}']::jsonb[]);
SELECT ordinal, connection->>'name' AS name, connection->>'provider' AS provider, connection->'sync_user_attributes' AS sync_user_attributes,
       error->>'sqlstate' AS sqlstate, error->>'message' AS message
FROM result;
-- the errors are whole
SELECT ordinal, jsonb_pretty(pg_temp.masked(error)) AS error FROM result WHERE error IS NOT NULL;
-- what was created is returned as it is, and tracked
SELECT ordinal, r.connection = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = r.connection->>'id') AS whole_object,
       e.name, e.key, e.domains, e.organization_id, e.sync_user_attributes, e.connection = r.connection AS tracked
FROM result AS r LEFT JOIN enterprise_connections AS e ON e.id = r.connection->>'id' WHERE r.connection IS NOT NULL ORDER BY ordinal;
-- a POST for each that was right, and a PATCH for the one that needed it
SELECT method, body, status FROM mock.requests() ORDER BY method DESC, body->>'name';
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;

-- none; nothing; no array
SELECT mock.forget();
SELECT * FROM create_enterprise_connections('{}');
SELECT ordinal, connection, error->>'message' AS message FROM create_enterprise_connections('{NULL}');
SELECT * FROM create_enterprise_connections(NULL);
\echo :SQLSTATE
SELECT * FROM create_enterprise_connections(test.params(1, 'x'), 'No such');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT * FROM create_enterprise_connections(test.params(1, 'x'));
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) AS sent FROM mock.requests();

-- as it is used: rows in, rows out
CREATE TEMP TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, domain text, connection text);
INSERT INTO customer (name, domain) VALUES ('A', 'a.example'), ('B', 'taken.example'), ('C', 'c.example');
WITH listed AS (SELECT row_number() OVER (ORDER BY id) AS ordinal, * FROM customer),
    created AS (SELECT * FROM create_enterprise_connections(
        ARRAY(SELECT jsonb_build_object('name', name, 'provider', 'saml_custom', 'domains', jsonb_build_array(domain)) FROM listed ORDER BY ordinal)))
UPDATE customer SET connection = created.connection->>'id' FROM listed JOIN created USING (ordinal) WHERE customer.id = listed.id;
SELECT c.name, e.name AS tracked FROM customer AS c LEFT JOIN enterprise_connections AS e ON e.id = c.connection ORDER BY c.id;
-- composites; an array of two dimensions is one of all its elements
SELECT ordinal, connection->>'name' AS name FROM create_enterprise_connections(
    ARRAY[jsonb_populate_record(NULL::enterprise_connection_params, '{"name": "Composite", "provider": "saml_okta", "domains": ["composite.example"]}')::jsonb]);
SELECT ordinal, connection->>'name' AS name FROM create_enterprise_connections(ARRAY[test.params(2, 'two'), test.params(2, 'dimensions')]);

--
-- What goes wrong with one goes wrong with no other
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT mock.script('[
    {"match": {"body_contains": "\"mixed 2\""}, "reset": "after"},
    {"match": {"body_contains": "\"mixed 3\""}, "reset": "before"},
    {"match": {"body_contains": "\"mixed 4\""}, "status": 500, "body": {"errors": [{"message": "Oops", "code": "internal_clerk_error"}], "clerk_trace_id": "trace_4"}},
    {"match": {"body_contains": "\"mixed 5\""}, "status": 201, "body": "{\"id\": \"entconn_5\", \"name\": \"Cut o"},
    {"match": {"body_contains": "\"mixed 6\""}, "status": 422, "body": {"errors": [{"message": "is wrong", "long_message": "It is wrong.", "code": "form_param_value_invalid", "meta": {"param_name": "it"}}], "clerk_trace_id": "trace_6"}},
    {"match": {"body_contains": "\"mixed 7\""}, "status": 503, "headers": {"Retry-After": "0"}, "body": {"errors": [{"message": "not now", "code": "service_unavailable"}]}}]');
SELECT ordinal, connection->>'name' AS name, jsonb_pretty(pg_temp.masked(error)) AS error FROM create_enterprise_connections(test.params(8, 'mixed'));
-- sent once each, but for the one of which Clerk said that it was not even tried
SELECT * FROM pg_temp.not_once(8, 'mixed');
SELECT name FROM enterprise_connections ORDER BY name;
-- no connection at all
CREATE SERVER regress_refused FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url 'http://127.0.0.1:1/', max_retries '0', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_refused OPTIONS (secret_key 'sk_test_mock');
SELECT ordinal, connection, error->>'sqlstate' AS sqlstate, error->>'message' AS message, error->'status' AS status, error->'errors' AS errors
FROM create_enterprise_connections(test.params(2, 'refused'), 'regress_refused');
DROP SERVER regress_refused CASCADE;
-- created, but not completed: both
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "body": {"errors": [{"message": "is wrong", "long_message": "It is wrong.", "code": "form_param_value_invalid"}]}}');
SELECT ordinal, connection->>'name' AS name, error->>'sqlstate' AS sqlstate, error->>'message' AS message
FROM create_enterprise_connections(ARRAY['{"name": "Half", "provider": "saml_okta", "domains": ["half.example"], "syncUserAttributes": false}']::jsonb[]);
SELECT name, sync_user_attributes FROM enterprise_connections WHERE name = 'Half';
-- secrets that the server echoes are not shown
SELECT mock.script('{"match": {"method": "POST"}, "status": 422, "body": {"errors": [{"message": "s3cr3t-value is wrong", "code": "s3cr3t-value", "meta": {"param_name": "sk_test_mock"}}]}}');
SELECT error FROM create_enterprise_connections(ARRAY['{"name": "Secret", "oidc": {"clientId": "c", "clientSecret": "s3cr3t-value"}}']::jsonb[]);

--
-- So many at a time as the server's max_concurrency says
--
SELECT mock.reset('{"latency_ms": 30}');
TRUNCATE enterprise_connections;
ALTER SERVER clerk OPTIONS (ADD max_concurrency '4');
SELECT count(connection) AS created, count(error) AS failed, bool_and(connection->>'name' = 'four ' || ordinal) AS in_order FROM create_enterprise_connections(test.params(20, 'four'));
SELECT mock.stats()->'max_in_flight' AS max_in_flight, mock.stats()->'requests' AS requests;
ALTER SERVER clerk OPTIONS (SET max_concurrency '1');
SELECT mock.reset();
SELECT count(connection) AS created FROM create_enterprise_connections(test.params(5, 'one'));
SELECT mock.stats()->'max_in_flight' AS max_in_flight;
SELECT string_agg(body->>'name', ', ') AS in_order FROM mock.requests();
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
-- no barriers: one that is answered last holds up no other; if it did, it would time out
SELECT mock.reset('{"latency_ms": 20}');
ALTER SERVER clerk OPTIONS (ADD max_concurrency '2');
SELECT mock.script('{"match": {"body_contains": "\"slow 1\""}, "hold": true}');
\! (for try in $(seq 900); do stats=$(curl -q -s -f --noproxy '*' "$CLERK_MOCK_URL/_mock/stats") || break; echo "$stats" | grep -Eq '"201": ?9\b' && break; sleep 0.05; done; curl -q -s --noproxy '*' -X POST "$CLERK_MOCK_URL/_mock/release") >/dev/null 2>&1 &
SELECT count(connection) AS created, bool_or(connection->>'name' = 'slow 1') AS slow_one FROM create_enterprise_connections(test.params(10, 'slow'));
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
-- the 32 of the default
SELECT mock.reset('{"latency_ms": 150}');
SELECT count(connection) AS created, count(error) AS failed FROM create_enterprise_connections(test.params(64, 'default'));
SELECT mock.stats()->'max_in_flight' AS max_in_flight;
SELECT * FROM pg_temp.not_once(64, 'default');

--
-- 429: one pauses all, and all end well
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
ALTER SERVER clerk OPTIONS (ADD max_concurrency '4');
SELECT mock.script('{"skip": 3, "status": 429, "headers": {"Retry-After": "1"}, "body": {"errors": [{"code": "too_many_requests"}]}}');
SELECT count(connection) AS created, count(error) AS failed FROM create_enterprise_connections(test.params(20, 'limited'));
CREATE TEMP TABLE received AS
    SELECT r->'body'->>'name' AS name, (r->>'received_ms')::bigint AS at, (r->>'status')::int AS status, n
    FROM jsonb_array_elements(mock.call('GET', '/_mock/requests')) WITH ORDINALITY AS l (r, n);
SELECT status, count(*), count(DISTINCT name) AS names FROM received GROUP BY status ORDER BY status;
-- but for those that went out before it was read, nothing was sent until the second was over
SELECT count(*) FILTER (WHERE at < refused + 900) <= 21 - 4 AS on_their_way, count(*) FILTER (WHERE at >= refused + 900) >= 4 AS afterwards
FROM received, (SELECT at AS refused FROM received WHERE status = 429) AS r;
SELECT count(*) AS tracked FROM enterprise_connections;
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
-- a limit that all run into, again and again
SELECT mock.reset('{"rate_limit": {"requests": 20, "window_ms": 500}}');
SELECT count(connection) AS created, count(error) AS failed FROM create_enterprise_connections(test.params(50, 'window'));
SELECT count(*) FILTER (WHERE status = 201) AS created, count(DISTINCT body->>'name') FILTER (WHERE status = 201) AS names, count(*) FILTER (WHERE status = 429) > 0 AS refused
FROM mock.requests();
-- it ends with the time, and "at once" is not without any pause
SELECT mock.reset();
ALTER SERVER clerk OPTIONS (ADD timeout '500ms');
SET statement_timeout = '3s';
SELECT mock.script('{"times": 0, "status": 429, "headers": {"Retry-After": "0"}, "body": {"errors": [{"message": "slow down", "code": "too_many_requests"}]}}');
SELECT connection, error - 'errors' AS error, count(*) FROM create_enterprise_connections(test.params(3, 'never')) GROUP BY 1, 2;
RESET statement_timeout;
ALTER SERVER clerk OPTIONS (DROP timeout);
SELECT (mock.stats()->>'requests')::int < 200 AS patient;

--
-- A retry that is due while all places are taken waits for one, and for the
-- answers that free them
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('[{"match": {"method": "POST", "body_contains": "again"}, "status": 503, "headers": {"Retry-After": "0"}, "body": {"errors": [{"code": "x", "message": "x"}]}},
    {"match": {"method": "POST", "body_contains": "slow"}, "times": 0, "delay_ms": 800, "real": true}]');
ALTER SERVER clerk OPTIONS (ADD max_concurrency '2');
SET statement_timeout = '30s';
SELECT ordinal, connection->>'name' AS name, error FROM create_enterprise_connections(ARRAY(
    SELECT jsonb_build_object('name', name, 'provider', 'saml_okta', 'domains', jsonb_build_array(name || '.example')) FROM unnest('{again,slow1,slow2,slow3}'::text[]) AS name));
RESET statement_timeout;
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
