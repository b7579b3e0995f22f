-- upsert_enterprise_connection: one connection for each key, whatever happened
-- to the calls before.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

--
-- The first time it is created, later it is changed
--
SELECT u->>'id' AS id, u->>'name' AS name, u = (SELECT mock.connections()) AS whole_object
FROM upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"], "organizationId": "org_1"}') AS u;
SELECT server, id, key, name, provider, domains, organization_id, active, connection = (SELECT mock.connections()) AS whole_object,
       created_at, updated_at FROM enterprise_connections \gx
SELECT u->>'id' AS id, u->>'name' AS name
FROM upsert_enterprise_connection(key => 'customer:1', params => '{"name": "Acme Inc.", "active": false, "saml": {"idpEntityId": "e"}}', server => 'clerk') AS u;
SELECT server, id, key, name, provider, domains, organization_id, active, connection = (SELECT mock.connections()) AS whole_object,
       created_at, updated_at FROM enterprise_connections \gx
SELECT * FROM mock.sent();
-- another key is another connection; so is the same key of another server
SELECT upsert_enterprise_connection('customer:2', '{"name": "Beta", "provider": "saml_okta", "domains": ["beta.example"]}')->>'id' AS id;
SELECT url FROM mock.server \gset
CREATE SERVER regress_other FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_other OPTIONS (secret_key 'sk_test_mock');
SELECT upsert_enterprise_connection('customer:1', '{"name": "Elsewhere", "provider": "saml_okta", "domains": ["elsewhere.example"]}', 'regress_other')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Elsewhere Inc."}', 'regress_other')->>'id' AS id;
SELECT server, key, id, name FROM enterprise_connections ORDER BY server COLLATE "C", key;
DROP SERVER regress_other CASCADE;
DELETE FROM enterprise_connections WHERE server = 'regress_other';
SELECT mock.forget();
-- any text is a key
SELECT k, upsert_enterprise_connection(k, jsonb_build_object('name', 'Odd', 'provider', 'saml_okta', 'domains', jsonb_build_array(md5(k) || '.example')))->>'id' = r->>'id' AS same
FROM unnest(ARRAY['', ' ', 'a''b"c\d', 'a%_b', '漢', E'a\nb', 'a:b:c']) AS k,
    LATERAL upsert_enterprise_connection(k, jsonb_build_object('name', 'Odd', 'provider', 'saml_okta', 'domains', jsonb_build_array(md5(k) || '.example'))) AS r;
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1 DESC;

--
-- The provider is settled: the same one is left out, another one is an error
--
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme 3", "provider": "saml_okta", "domains": ["acme.example"]}')->>'name' AS name;
SELECT upsert_enterprise_connection('customer:1', '{"provider": "saml_okta"}')->>'name' AS name;
SELECT * FROM mock.sent();
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme 4", "provider": "saml_google"}')$$) \gx
SELECT * FROM mock.sent();
-- if none is given, that of a new one follows from saml and oidc; a known one keeps its own
SELECT upsert_enterprise_connection('customer:5', '{"name": "Five", "domains": ["five.example"], "oidc": {"clientId": "c", "clientSecret": "s3cr3t"}}')->>'provider' AS provider;
SELECT upsert_enterprise_connection('customer:5', '{"oidc": {"clientId": "c2"}}')->>'provider' AS provider;
SELECT * FROM mock.sent();

--
-- Parameters that only an update takes
--
SELECT u->>'sync_user_attributes' AS sync_user_attributes, u->'saml_connection'->>'name' AS saml_name
FROM upsert_enterprise_connection('customer:6', '{"name": "Six", "provider": "saml_okta", "domains": ["six.example"], "syncUserAttributes": false, "saml": {"name": "Inner"}}') AS u;
SELECT u->>'sync_user_attributes' AS sync_user_attributes, u->'saml_connection'->>'name' AS saml_name
FROM upsert_enterprise_connection('customer:6', '{"syncUserAttributes": true, "saml": {"name": "Inner 2"}}') AS u;
SELECT * FROM mock.sent();
SELECT key, name, sync_user_attributes, connection->'saml_connection'->>'name' AS saml_name FROM enterprise_connections WHERE key = 'customer:6';

--
-- What is wrong, without asking Clerk
--
\x on
SELECT f.* FROM (VALUES
    ($$SELECT upsert_enterprise_connection(NULL, '{"name": "x"}')$$),
    ($$SELECT upsert_enterprise_connection('customer:1', NULL)$$),
    ($$SELECT upsert_enterprise_connection('customer:1', '{}')$$),
    ($$SELECT upsert_enterprise_connection('customer:1', '[]')$$),
    ($$SELECT upsert_enterprise_connection('customer:1', '{"nmae": "x"}')$$),
    ($$SELECT upsert_enterprise_connection('customer:1', '{"domains": []}')$$),
    ($$SELECT upsert_enterprise_connection('customer:1', '{"provider": 7}')$$),
    ($$SELECT upsert_enterprise_connection('customer:new', NULL)$$),
    ($$SELECT upsert_enterprise_connection('customer:new', '{}')$$),
    ($$SELECT upsert_enterprise_connection('customer:new', '{"nmae": "x"}')$$)
) AS s (statement), test.failure(statement) AS f;
\x off
BEGIN READ ONLY;
SELECT upsert_enterprise_connection('customer:1', '{"name": "x"}');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM mock.sent();

--
-- Gone at Clerk: created anew, under the same key
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}')->>'id' AS id;
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}')->>'id' AS id;
SELECT id, key, name FROM enterprise_connections;
SELECT * FROM mock.sent();
-- it has to be enough for a new one; if it is not, the row stays
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT state, message, detail FROM test.failure($$SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme 2"}')$$) \gx
SELECT id, key, name FROM enterprise_connections;
SELECT * FROM mock.sent();
-- a foreign key holds the row: nothing is created
CREATE TABLE regress_customer (name text, server name DEFAULT 'clerk', connection text,
    FOREIGN KEY (server, connection) REFERENCES enterprise_connections (server, id));
INSERT INTO regress_customer SELECT 'Acme', 'clerk', id FROM enterprise_connections;
SELECT state, message, detail FROM test.failure($$SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}')$$) \gx
SELECT * FROM mock.sent();
DROP TABLE regress_customer;
-- only Clerk can say that it is gone; a page of a proxy's does not
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}')->>'id' AS id;
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 404, "headers": {"Content-Type": "text/html"}, "body": "<h1>404 Not Found</h1>nginx"}');
SELECT mock.forget();
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["other.example"]}')$$) \gx
SELECT id, key FROM enterprise_connections;
SELECT * FROM mock.sent();
-- deleted by ourselves: the key is free
SELECT delete_enterprise_connection(id)->'deleted' AS deleted FROM enterprise_connections WHERE key = 'customer:1';
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"]}')->>'name' AS name;
SELECT key, name FROM enterprise_connections;

--
-- What an earlier call has left is found, not doubled
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
-- of a transaction that was rolled back
SET pg_clerk.on_rollback = 'ignore';
BEGIN;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"], "organizationId": "org_1"}')->>'id' AS id;
ROLLBACK;
RESET pg_clerk.on_rollback;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["acme.example"], "organizationId": "org_1"}')->>'id' AS id;
SELECT id, key, name FROM enterprise_connections;
SELECT * FROM mock.sent();
-- of a call whose answer was lost, with other parameters then, domains in another order and spelling, and a secret that only an update brings to it
SELECT mock.script('{"match": {"method": "POST"}, "reset": "after"}');
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer:2', '{"name": "Beta", "provider": "oidc_custom", "domains": ["beta-1.example", "beta-2.example"],
    "oidc": {"clientId": "old", "clientSecret": "s3cr3t"}}')$$) \gx
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
SELECT u->>'id' AS id, u->'oauth_config'->>'client_id' AS client_id, u->'sync_user_attributes' AS sync_user_attributes
FROM upsert_enterprise_connection('customer:2', '{"name": "Beta", "domains": ["BETA-2.example", "Beta-1.example"], "syncUserAttributes": false,
    "oidc": {"clientId": "new", "clientSecret": "s3cr3t 2"}}') AS u;
SELECT id, key, name, domains, sync_user_attributes FROM enterprise_connections ORDER BY id;
SELECT * FROM mock.sent();
-- among many, and one that was tracked without a key
SELECT create_enterprise_connection(name => 'Gamma', provider => 'saml_okta', domains => '{gamma.example}')->>'id' AS id;
SELECT mock.call('POST', '/_mock/seed', '{"count": 600, "prefix": "more"}') IS NOT NULL AS seeded;
SELECT upsert_enterprise_connection('customer:3', '{"name": "Gamma", "provider": "saml_okta", "domains": ["gamma.example"]}')->>'id' AS id;
SELECT method, target, status FROM mock.sent();
SELECT id, key, name FROM enterprise_connections ORDER BY id;
SELECT count(*) AS at_clerk FROM mock.connections() AS m WHERE m->>'name' !~ '^more';

--
-- What is not the same is not taken for it: the refusal, and a hint
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"connections": [{"object": "enterprise_connection", "id": "entconn_a", "name": "Acme", "provider": "saml_okta", "active": false,
    "domains": ["a1.example", "a2.example"], "organization_id": "org_1", "created_at": 1780000000000, "updated_at": 1780000000000}]}') IS NOT NULL AS seeded;
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer''s 1', '{"name": "ACME", "provider": "saml_okta", "domains": ["a1.example", "a2.example"], "organizationId": "org_1"}')$$) \gx
SELECT what, state, hint FROM (VALUES
    ('provider', '{"name": "Acme", "provider": "saml_google", "domains": ["a1.example", "a2.example"], "organizationId": "org_1"}'),
    ('organization', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example"], "organizationId": "org_2"}'),
    ('no organization', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example"]}'),
    ('null for an organization', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example"], "organizationId": null}'),
    ('fewer domains', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example"], "organizationId": "org_1"}'),
    ('more domains', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example", "a3.example"], "organizationId": "org_1"}'),
    ('other domains', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a3.example"], "organizationId": "org_1"}')
) AS v (what, params), test.failure(format('SELECT upsert_enterprise_connection(''customer:1'', %L)', params));
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- nor is what has another key
SELECT adopt_enterprise_connection('customer:9', 'entconn_a')->>'id' AS id;
SELECT mock.forget();
SELECT state, message, hint FROM test.failure($$SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example"], "organizationId": "org_1"}')$$) \gx
SELECT id, key FROM enterprise_connections;
SELECT method, status FROM mock.sent();
-- the hint helps
SELECT adopt_enterprise_connection('customer:1', 'entconn_a')->>'id' AS id;
SELECT upsert_enterprise_connection('customer:1', '{"name": "Acme", "provider": "saml_okta", "domains": ["a1.example", "a2.example"], "organizationId": "org_1"}')->>'id' AS id;
SELECT id, key FROM enterprise_connections;
-- a domain of one of our own connections under another key
SELECT upsert_enterprise_connection('customer:2', '{"name": "Beta", "provider": "saml_okta", "domains": ["beta.example"]}')->>'name' AS name;
SELECT state, hint FROM test.failure($$SELECT upsert_enterprise_connection('customer:3', '{"name": "Gamma", "provider": "saml_okta", "domains": ["gamma.example", "beta.example"]}')$$);
SELECT state, hint FROM test.failure($$SELECT upsert_enterprise_connection('customer:2', '{"domains": ["a1.example"]}')$$);
-- other refusals, and those of which nothing is to be found, are as they are
SELECT mock.script('[
    {"match": {"method": "POST"}, "status": 422, "body": {"errors": [{"message": "has one", "code": "organization_already_has_sso_connection", "meta": {"param_name": "organization_id"}}]}},
    {"match": {"method": "POST"}, "status": 422, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}]');
SELECT mock.forget();
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer:4', '{"name": "Delta", "provider": "saml_okta", "domains": ["delta.example"]}')$$);
SELECT * FROM test.failure($$SELECT upsert_enterprise_connection('customer:4', '{"name": "Delta", "provider": "saml_okta", "domains": ["delta.example"]}')$$);
SELECT method, status FROM mock.sent();
-- an update that Clerk refuses changes nothing; the next one does
SELECT mock.script('{"match": {"method": "PATCH"}, "status": 422, "body": {"errors": [{"message": "is wrong", "code": "form_param_value_invalid"}]}}');
SELECT state, message FROM test.failure($$SELECT upsert_enterprise_connection('customer:2', '{"name": "Beta 2"}')$$);
SELECT upsert_enterprise_connection('customer:2', '{"name": "Beta 3"}')->>'name' AS name;
SELECT key, name FROM enterprise_connections ORDER BY key;

--
-- Many in one statement, some of them twice: in one transaction, too, the
-- second one finds the first
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT n, upsert_enterprise_connection('customer:' || n % 3, jsonb_build_object('name', 'Name ' || n, 'provider', 'saml_okta', 'domains', jsonb_build_array('c' || n % 3 || '.example')))->>'id' AS id
FROM generate_series(0, 5) AS n ORDER BY n;
SELECT method, status, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1;
SELECT key, id, name FROM enterprise_connections ORDER BY key;
