-- create_enterprise_connection: every form of the call, what goes over the
-- wire, what comes back, and the row that tracks it.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

--
-- One call, end to end
--
\x on
SELECT jsonb_pretty(create_enterprise_connection('{
    "name": "Acme", "provider": "saml_okta", "domains": ["Acme.example"], "organizationId": "org_1",
    "saml": {"idpMetadataUrl": "https://idp.acme.example/md", "allowSubdomains": true}}')) AS connection;

SELECT method, target, status, jsonb_pretty(body) AS body FROM mock.requests();

-- all headers that were sent; the key and the versions masked
SELECT header,
       CASE header
           WHEN 'authorization' THEN replace(value, 'sk_test_mock', '<key>')
           WHEN 'user-agent' THEN regexp_replace(value, '\(PostgreSQL [0-9][^)]*\)', '(PostgreSQL <version>)')
           WHEN 'content-length' THEN (value = octet_length(raw_body)::text)::text
           ELSE value
       END AS value
FROM mock.requests(), jsonb_each_text(headers) AS h (header, value)
ORDER BY header \g (expanded=off)

SELECT server, id, key, organization_id, name, provider, domains, active, sync_user_attributes,
       connection = (SELECT c FROM mock.connections() AS c) AS whole_object,
       created_at, updated_at, synced_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() AS synced_now
FROM enterprise_connections;
\x off

--
-- The first published usage example, word for word.  The lenient profile
-- takes it without domains, the strict one does not.
--
SELECT mock.reset('{"profile": "lenient", "clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT create_enterprise_connection('{"name": "Google", "organizationId": "org_123",
 "oidc": {"authUrl": "https://example.com/auth", "clientId": "1234567890", "clientSecret": "1234567890",
          "discoveryUrl": "https://example.com/discovery", "requiresPkce": false,
          "tokenUrl": "https://example.com/token", "userInfoUrl": "https://example.com/userinfo"}}')
    - 'custom_attributes' - 'oauth_config' AS connection \gx
SELECT jsonb_pretty(body) AS body FROM mock.requests() \gx

-- the same with named arguments sends the same body
SELECT create_enterprise_connection(name => 'Google', organization_id => 'org_123', oidc => '{
          "authUrl": "https://example.com/auth", "clientId": "1234567890", "clientSecret": "1234567890",
          "discoveryUrl": "https://example.com/discovery", "requiresPkce": false,
          "tokenUrl": "https://example.com/token", "userInfoUrl": "https://example.com/userinfo"}')->>'id' AS id;
SELECT count(*), count(DISTINCT body) AS bodies, count(DISTINCT raw_body) AS texts FROM mock.requests();
SELECT id, name, provider, organization_id, domains FROM enterprise_connections ORDER BY id;

SELECT mock.settings('{"profile": "strict"}');
SELECT create_enterprise_connection('{"name": "Google", "organizationId": "org_123",
 "oidc": {"authUrl": "https://example.com/auth", "clientId": "1234567890", "clientSecret": "1234567890",
          "discoveryUrl": "https://example.com/discovery", "requiresPkce": false,
          "tokenUrl": "https://example.com/token", "userInfoUrl": "https://example.com/userinfo"}}');
\echo :SQLSTATE
SELECT create_enterprise_connection(name => 'Google', organization_id => 'org_123', oidc => '{
          "authUrl": "https://example.com/auth", "clientId": "1234567890", "clientSecret": "1234567890",
          "discoveryUrl": "https://example.com/discovery", "requiresPkce": false,
          "tokenUrl": "https://example.com/token", "userInfoUrl": "https://example.com/userinfo"}');
\echo :SQLSTATE
SELECT count(*) FROM enterprise_connections;

--
-- Forms of the call
--
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections;

-- untyped parameters, as drivers send them
PREPARE whole AS SELECT create_enterprise_connection($1)->>'name';
PREPARE one_by_one AS SELECT create_enterprise_connection(name => $1, domains => $2, active => $3, saml => $4)->>'name';
PREPARE some_of_each AS SELECT create_enterprise_connection($1, $2, domains => $3)->>'name';
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
EXECUTE whole('{"name": "whole"}');
EXECUTE one_by_one('one by one', '{one.example,two.example}', false, '{"idpEntityId": "e"}');
EXECUTE some_of_each('{"name": "both"}', 'clerk', '{three.example}');
DEALLOCATE ALL;

-- a jsonb column, a text literal, jsonb_build_object
CREATE TEMP TABLE incoming (params jsonb, text text, json json);
INSERT INTO incoming VALUES ('{"name": "a column"}', '{"name": "a text column"}', '{"name": "a json column"}');
SELECT create_enterprise_connection(params)->>'name' AS name FROM incoming;
SELECT create_enterprise_connection('{"name": "a literal"}')->>'name' AS name;
SELECT create_enterprise_connection(jsonb_build_object('name', 'built', 'domains', ARRAY['built.example']))->>'name' AS name;

-- json and text are not jsonb: PostgreSQL says so, a cast helps
SELECT state, message FROM test.failure('SELECT create_enterprise_connection(json) FROM incoming');
SELECT state, message FROM test.failure('SELECT create_enterprise_connection(text) FROM incoming');
SELECT create_enterprise_connection(json::jsonb)->>'name' AS json,
       create_enterprise_connection(text::jsonb)->>'name' AS text FROM incoming;

-- composites, also as one of the named arguments
SELECT create_enterprise_connection(
    ROW('a composite', 'saml_custom', '{composite.example}', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        ARRAY[ROW('Dept', 'dept', 'd', NULL, NULL, false, NULL)::enterprise_connection_custom_attribute],
        NULL, NULL, NULL)::enterprise_connection_params)->>'name' AS name;
SELECT create_enterprise_connection(name => 'a composite argument',
    saml => ROW(true, NULL, ROW('uid', NULL, NULL, NULL, NULL), NULL, NULL, '{one,two}', NULL, NULL, NULL, NULL,
                ROW('custom_attribute', 'dept', NULL), NULL, NULL)::enterprise_connection_saml)->>'name' AS name;
SELECT create_enterprise_connection(name => 'composite attributes', custom_attributes =>
    ARRAY[ROW('Dept', 'dept', NULL, NULL, NULL, NULL, NULL)::enterprise_connection_custom_attribute])->>'name' AS name;

-- named arguments complete params
SELECT create_enterprise_connection('{"saml": {"forceAuthn": true}}', name => 'mixed', active => false)->>'name' AS name;
SELECT body FROM mock.requests();

-- what is in both, in two spellings, or nowhere
\x on
SELECT f.* FROM (VALUES
    ($$SELECT create_enterprise_connection('{"name": "a"}', name => 'b')$$),
    ($$SELECT create_enterprise_connection('{"organizationId": "a"}', organization_id => 'b')$$),
    ($$SELECT create_enterprise_connection('{"saml": {}}', saml => '{}')$$),
    ($$SELECT create_enterprise_connection('{"organizationId": "a", "organization_id": "a"}')$$),
    ($$SELECT create_enterprise_connection()$$),
    ($$SELECT create_enterprise_connection(NULL)$$),
    ($$SELECT create_enterprise_connection(server => 'clerk')$$),
    ($$SELECT create_enterprise_connection('{}')$$),
    ($$SELECT create_enterprise_connection('[]')$$),
    ($$SELECT create_enterprise_connection('null')$$),
    ($$SELECT create_enterprise_connection('"name"')$$),
    ($$SELECT create_enterprise_connection(name => 'n', domains => '{{a.example},{b.example}}')$$),
    ($$SELECT create_enterprise_connection(name => 'n', domains => '{a.example,NULL}')$$),
    ($$SELECT create_enterprise_connection(name => 'n', saml => '[]')$$)
) AS s (statement), test.failure(statement) AS f;
\x off
-- nothing of that was sent
SELECT count(*) FROM mock.requests();

--
-- Update-only parameters: a PATCH right after the POST
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT c->>'sync_user_attributes' AS sync_user_attributes, c->>'updated_at' AS updated_at
FROM create_enterprise_connection('{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"],
    "syncUserAttributes": false, "disableAdditionalIdentifications": false, "saml": {"name": "Inner"}}') AS c;
SELECT method, target, body, status FROM mock.requests();
SELECT id, sync_user_attributes, connection->'saml_connection'->>'name' AS saml_name, updated_at > created_at AS updated
FROM enterprise_connections;

-- a PATCH that fails hides nothing: the connection is returned and tracked
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "body": {"errors": [{"message": "is wrong",
    "long_message": "sync_user_attributes is wrong.", "code": "form_param_value_invalid",
    "meta": {"param_name": "sync_user_attributes"}}], "clerk_trace_id": "trace_1"}}');
SELECT c->>'id' AS id, c->>'name' AS name
FROM create_enterprise_connection('{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"],
    "syncUserAttributes": false, "saml": {"name": "Bob''s \"IdP\""}}') AS c;
SELECT id, name FROM enterprise_connections;
-- (terse: the detail is libcurl's)
\set VERBOSITY terse
SELECT mock.script('{"match": {"method": "PATCH"}, "times": 0, "reset": "after"}');
SELECT c->>'id' AS id
FROM create_enterprise_connection('{"name": "Beta", "provider": "saml_okta", "domains": ["beta.example"], "syncUserAttributes": true}') AS c;
\set VERBOSITY default
SELECT mock.unscript();
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 200, "body": "<html>"}');
SELECT c->>'id' AS id
FROM create_enterprise_connection('{"name": "Gamma", "provider": "saml_okta", "domains": ["gamma.example"], "syncUserAttributes": true}') AS c;
SELECT id, name FROM enterprise_connections ORDER BY id;
SELECT method, count(*) FROM mock.requests() GROUP BY method ORDER BY method;

--
-- Results keep every field and every digit
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('{"status": 201, "body": "{\"object\":\"enterprise_connection\",\"id\":\"entconn_n\",\"name\":\"N\",\"provider\":\"saml_custom\",\"new_number\":1234567890123456789012345,\"new_fraction\":0.12345678901234567890,\"new_trailing\":1.50,\"new_exponent\":1e400,\"new_object\":{\"deep\":[1,null,{\"x\":\"\\u00e9\\ud83d\\ude00\"}]},\"new_empty\":\"\",\"new_null\":null,\"created_at\":1780000000123,\"updated_at\":1780000000456}"}');
SELECT c - 'new_exponent' - 'new_object' AS connection,
       c->'new_object' = '{"deep": [1, null, {"x": "\u00e9\ud83d\ude00"}]}' AS new_object
FROM create_enterprise_connection(name => 'Numbers') AS c;
SELECT connection->'new_number' AS new_number, connection->'new_fraction' AS new_fraction,
       length(connection->>'new_exponent') AS exponent_digits, created_at, updated_at
FROM enterprise_connections;

--
-- Tracking: an older answer never wins, what is absent erases nothing
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('[
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "second", "provider": "saml_okta", "domains": ["t.example"], "active": true,
        "organization_id": "org_1", "sync_user_attributes": true, "extra": 1,
        "saml_connection": {"id": "samlc_t", "acs_url": "https://a", "idp_entity_id": "e"},
        "oauth_config": {"id": "o", "client_id": "c"},
        "created_at": 1780000000000, "updated_at": 1780000002000}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "first", "provider": "saml_okta", "active": false, "domains": [],
        "created_at": 1780000000000, "updated_at": 1780000001000}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "third", "provider": "saml_okta", "active": false,
        "saml_connection": {"idp_entity_id": "e3"}, "oauth_config": {"client_id": "c3"}, "updated_at": 1780000003000}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "fourth", "provider": "saml_okta", "saml_connection": null, "updated_at": 1780000003000}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "without a time", "provider": "saml_okta", "organization_id": null}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_t", "name": "sixth", "provider": "saml_okta", "saml_connection": {"new": true}, "oauth_config": [], "updated_at": 1780000004000}}]');
CREATE FUNCTION pg_temp.tracked() RETURNS TABLE (name text, organization_id text, domains text[], active boolean,
    sync_user_attributes boolean, updated_at timestamptz, saml jsonb, oauth jsonb, extra jsonb)
LANGUAGE sql AS $$
    SELECT name, organization_id, domains, active, sync_user_attributes, updated_at,
           connection->'saml_connection', connection->'oauth_config', connection->'extra'
    FROM enterprise_connections
$$;
\x on
SELECT c->>'name' AS answered, t.* FROM create_enterprise_connection(name => '1') AS c, pg_temp.tracked() AS t;
-- older
SELECT c->>'name' AS answered FROM create_enterprise_connection(name => '2') AS c;
SELECT * FROM pg_temp.tracked();
-- newer, with less in it
SELECT c->>'name' AS answered FROM create_enterprise_connection(name => '3') AS c;
SELECT * FROM pg_temp.tracked();
-- of the same time
SELECT c->>'name' AS answered FROM create_enterprise_connection(name => '4') AS c;
SELECT * FROM pg_temp.tracked();
-- without a time
SELECT c->>'name' AS answered FROM create_enterprise_connection(name => '5') AS c;
SELECT * FROM pg_temp.tracked();
-- parts of other types
SELECT c->>'name' AS answered FROM create_enterprise_connection(name => '6') AS c;
SELECT * FROM pg_temp.tracked();
\x off

-- unexpected types lose neither the row nor the answer
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.script('[
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_u1", "name": "", "provider": "new", "domains": "a.example", "active": "yes",
        "organization_id": {}, "sync_user_attributes": 1, "saml_connection": "x", "created_at": "2026-01-01", "updated_at": -1}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_u2", "name": "2", "provider": "x", "domains": [null], "active": null, "updated_at": 1e300}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "entconn_u3", "name": "3", "provider": "x", "domains": {}, "updated_at": 1780000000000.9}},
    {"status": 201, "body": {"object": "enterprise_connection", "id": "a/b?c#d %41 é", "name": "odd id", "provider": "x"}}]');
SELECT create_enterprise_connection(name => 'types')->>'id' AS id FROM generate_series(1, 4);
SELECT id, name, provider, domains, active, organization_id, sync_user_attributes, created_at, updated_at
FROM enterprise_connections ORDER BY id COLLATE "C";

--
-- In a transaction
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
BEGIN;
SELECT create_enterprise_connection(name => 'Acme', provider => 'saml_okta', domains => '{acme.example}')->>'id' AS id;
SELECT count(*) AS tracked FROM enterprise_connections;
ROLLBACK;
-- it exists at Clerk, and is not tracked any more: design.md, Rollback
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;

--
-- In another schema, with nothing in search_path
--
\set here :DBNAME
CREATE DATABASE regress_clerk_schema TEMPLATE template0;
SELECT url FROM mock.server \gset
\c regress_clerk_schema
CREATE SCHEMA "Clerk X";
CREATE EXTENSION pg_clerk SCHEMA "Clerk X";
SET search_path = '';
CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
SELECT "Clerk X".create_enterprise_connection('{"name": "Elsewhere", "provider": "saml_custom", "domains": ["elsewhere.example"],
    "syncUserAttributes": true}')->>'name' AS name;
SELECT "Clerk X".create_enterprise_connection(name => 'Elsewhere 2', provider => 'saml_custom', domains => '{elsewhere-2.example}',
    custom_attributes => ARRAY[ROW('Dept', 'dept', NULL, NULL, NULL, NULL, NULL)::"Clerk X".enterprise_connection_custom_attribute])->>'name' AS name;
SELECT server, name, domains FROM "Clerk X".enterprise_connections ORDER BY name;
SELECT count(*) AS armed FROM pg_foreign_server WHERE srvoptions::text LIKE '%origin=%';
-- also when it moves
ALTER EXTENSION pg_clerk SET SCHEMA public;
\c :here
DROP DATABASE regress_clerk_schema;
SELECT body FROM mock.requests();
