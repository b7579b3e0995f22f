-- update, get, delete, list, adopt and test runs: what goes over the wire, what
-- comes back, what the tracking table says then.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

--
-- Get
--
SELECT mock.call('POST', '/_mock/seed', '{"count": 3, "prefix": "acme"}') IS NOT NULL AS seeded;
SELECT c - 'saml_connection' AS connection, c = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = 'entconn_000002') AS whole_object
FROM get_enterprise_connection('entconn_000002') AS c;
SELECT method, target, status, raw_body, headers ? 'content-type' AS content_type, headers ? 'content-length' AS content_length,
       headers->>'authorization' = 'Bearer sk_test_mock' AS key, headers->>'clerk-api-version' AS version, headers->>'accept' AS accept
FROM mock.requests() \gx
SELECT mock.forget();
-- named arguments, and another server
SELECT url || '/behind/a/prefix' AS url FROM mock.server \gset
CREATE SERVER regress_other FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_other OPTIONS (secret_key 'sk_test_mock');
SELECT get_enterprise_connection(id => 'entconn_000003', server => 'regress_other')->>'name' AS name;
SELECT * FROM mock.sent();
-- nothing was written, not even for a server that was never armed
ALTER SERVER regress_other OPTIONS (DROP origin);
SELECT get_enterprise_connection(id => 'entconn_000003', server => 'regress_other')->>'name' AS name;
SELECT count(*) AS tracked FROM enterprise_connections;
SELECT count(*) AS armed FROM pg_foreign_server WHERE srvname = 'regress_other' AND srvoptions::text LIKE '%origin=%';
SELECT mock.forget();

--
-- Update
--
SELECT u - 'saml_connection' AS updated FROM update_enterprise_connection('entconn_000002', '{"name": "Renamed", "organizationId": "org_1"}') AS u;
-- it is tracked now, as it was answered
SELECT server, id, key, organization_id, name, provider, domains, active, sync_user_attributes,
       connection = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = e.id) AS whole_object,
       created_at, updated_at, synced_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() AS synced_now
FROM enterprise_connections AS e \gx
-- the row is changed, not doubled; what only an update takes is in the same request; false and null are sent
SELECT u->'active' AS active, u->'sync_user_attributes' AS sync_user_attributes, u->'saml_connection'->'name' AS saml_name
FROM update_enterprise_connection('entconn_000002', '{"active": false, "syncUserAttributes": false, "disableAdditionalIdentifications": null,
    "domains": ["Renamed.example", "second.example"], "saml": {"name": "Inner", "idpCertificate": null, "attributeMapping": {"firstName": null}}}') AS u;
SELECT id, name, organization_id, domains, active, sync_user_attributes, updated_at > created_at AS updated FROM enterprise_connections;
SELECT method, target, status, body, headers->>'content-type' AS content_type FROM mock.requests() \gx
SELECT mock.forget();
-- through another server it is another row
SELECT update_enterprise_connection(id => 'entconn_000001', params => '{"name": "Other"}', server => 'regress_other')->>'name' AS name;
SELECT server, id, name FROM enterprise_connections ORDER BY server COLLATE "C", id;
SELECT * FROM mock.sent();
DROP SERVER regress_other CASCADE;
DELETE FROM enterprise_connections WHERE server = 'regress_other';

-- composites are taken as well
SELECT update_enterprise_connection('entconn_000002', jsonb_populate_record(NULL::enterprise_connection_params, '{"name": "Composite"}'))->>'name' AS name;
SELECT * FROM mock.sent();

--
-- Delete
--
SELECT delete_enterprise_connection('entconn_000002');
SELECT count(*) AS tracked FROM enterprise_connections;
SELECT method, target, status, raw_body, headers ? 'content-type' AS content_type FROM mock.requests() \gx
SELECT mock.forget();
SELECT m->>'id' AS at_clerk FROM mock.connections() AS m;
-- one that was never tracked
SELECT delete_enterprise_connection('entconn_000001')->'deleted' AS deleted;
SELECT m->>'id' AS at_clerk FROM mock.connections() AS m;
SELECT mock.forget();

--
-- What is gone at Clerk: 404
--
SELECT update_enterprise_connection('entconn_000003', '{"name": "Tracked"}')->>'name' AS name;
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS deleted_by_somebody_else;
SELECT mock.forget();
-- asking and changing are errors; the row stays
SELECT get_enterprise_connection('entconn_000003');
\echo :SQLSTATE
SELECT update_enterprise_connection('entconn_000003', '{"name": "Gone"}');
\echo :SQLSTATE
SELECT create_enterprise_connection_test_run('entconn_000003');
\echo :SQLSTATE
SELECT * FROM list_enterprise_connection_test_runs('entconn_000003');
\echo :SQLSTATE
SELECT adopt_enterprise_connection('key', 'entconn_000003');
\echo :SQLSTATE
SELECT id, name, key FROM enterprise_connections;
SELECT * FROM mock.sent();
-- deleting what is tracked takes the row away
SELECT delete_enterprise_connection('entconn_000003') IS NULL AS nothing_deleted;
SELECT count(*) AS tracked FROM enterprise_connections;
-- and now it is not tracked any more: an error
SELECT delete_enterprise_connection('entconn_000003');
\echo :SQLSTATE
SELECT * FROM mock.sent();

-- a 404 that is not Clerk's says nothing about a connection: a wrong api_url, a proxy
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1}') IS NOT NULL AS seeded;
SELECT update_enterprise_connection('entconn_000001', '{"name": "Here"}')->>'name' AS name;
SELECT mock.script('{"match": {"method": "DELETE"}, "status": 404, "headers": {"Content-Type": "text/html"}, "body": "<h1>404 Not Found</h1>nginx"}');
SELECT delete_enterprise_connection('entconn_000001');
\echo :SQLSTATE
SELECT id, name FROM enterprise_connections;

--
-- A foreign key that holds the row stops the deletion before anything is sent
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 2}') IS NOT NULL AS seeded;
SELECT update_enterprise_connection(id, '{"name": "Held"}')->>'id' AS id FROM unnest('{entconn_000001,entconn_000002}'::text[]) AS id;
CREATE TABLE regress_customer (name text, server name DEFAULT 'clerk', connection text,
    FOREIGN KEY (server, connection) REFERENCES enterprise_connections (server, id));
INSERT INTO regress_customer VALUES ('Acme', DEFAULT, 'entconn_000001');
SELECT mock.forget();
SELECT state, message, detail FROM test.failure($$SELECT delete_enterprise_connection('entconn_000001')$$);
SELECT * FROM mock.sent();
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk FROM enterprise_connections;
-- the other one is free to go; so is this one, if the key says so
SELECT delete_enterprise_connection('entconn_000002')->'deleted' AS deleted;
ALTER TABLE regress_customer DROP CONSTRAINT regress_customer_server_connection_fkey,
    ADD FOREIGN KEY (server, connection) REFERENCES enterprise_connections (server, id) ON DELETE CASCADE;
SELECT delete_enterprise_connection('entconn_000001')->'deleted' AS deleted;
SELECT count(*) AS tracked, (SELECT count(*) FROM mock.connections()) AS at_clerk, (SELECT count(*) FROM regress_customer) AS customers
FROM enterprise_connections;
DROP TABLE regress_customer;

--
-- Clerk refuses, the connection breaks, the answer is none: nothing changes here
--
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1}') IS NOT NULL AS seeded;
SELECT update_enterprise_connection('entconn_000001', '{"name": "Tracked"}')->>'name' AS name;
CREATE TEMP TABLE before AS SELECT xmin::text AS row_xmin, ctid AS row_ctid, * FROM enterprise_connections;
CREATE TEMP TABLE calls (call text, statement text);
INSERT INTO calls VALUES
    ('get', $$SELECT get_enterprise_connection('entconn_000001')$$),
    ('update', $$SELECT update_enterprise_connection('entconn_000001', '{"name": "New"}')$$),
    ('delete', $$SELECT delete_enterprise_connection('entconn_000001')$$),
    ('adopt', $$SELECT adopt_enterprise_connection('key', 'entconn_000001')$$),
    ('list', $$SELECT * FROM list_enterprise_connections()$$),
    ('test run', $$SELECT create_enterprise_connection_test_run('entconn_000001')$$),
    ('test runs', $$SELECT * FROM list_enterprise_connection_test_runs('entconn_000001')$$);
CREATE FUNCTION pg_temp.answered(answer jsonb)
RETURNS TABLE (call text, state text, message text, detail text, hint text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.script(answer || '{"times": 0}');
    RETURN QUERY SELECT c.call, f.state, f.message, f.detail, f.hint FROM calls AS c, test.failure(c.statement) AS f;
    PERFORM mock.unscript();
END
$$;
-- a refusal: 4xx
SELECT * FROM pg_temp.answered('{"status": 422, "body": {"errors": [{"message": "is wrong", "long_message": "It is wrong.",
    "code": "form_param_value_invalid", "meta": {"param_name": "it"}}], "clerk_trace_id": "trace_1"}}');
-- 500: what only asks is tried again
ALTER SERVER clerk OPTIONS (ADD max_retries '1');
SELECT mock.forget();
SELECT call, state, detail, hint FROM pg_temp.answered('{"status": 500, "body": {"errors": [{"message": "Oops", "code": "internal_clerk_error"}]}}');
SELECT method, target, count(*) FROM mock.sent() GROUP BY 1, 2 ORDER BY 1, 2;
ALTER SERVER clerk OPTIONS (SET max_retries '0');
-- KC006: it broke
SELECT call, state, message, detail, hint FROM pg_temp.answered('{"reset": "before"}');
-- KC008: no JSON; of another kind; about another one, or not in the shape that was asked for; nothing
SELECT call, state, message, detail, hint FROM pg_temp.answered('{"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>welcome</html>"}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "organization", "id": "entconn_000009", "name": "Another", "deleted": false}}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": {"object": "enterprise_connection", "id": "entconn_000009", "name": "Another", "deleted": false}}');
SELECT call, state, detail FROM pg_temp.answered('{"status": 200, "body": ""}');
-- KC006: no answer in time
ALTER SERVER clerk OPTIONS (ADD timeout '500ms', DROP max_retries);
SELECT f.state, f.message, f.hint FROM mock.script('{"match": {"method": "PATCH"}, "hold": true}'),
    test.failure($$SELECT update_enterprise_connection('entconn_000001', '{"name": "New"}')$$) AS f;
ALTER SERVER clerk OPTIONS (DROP timeout);
-- the row is as it was, untouched
SELECT count(*) AS rows FROM (SELECT xmin::text, ctid, * FROM enterprise_connections INTERSECT SELECT * FROM before) AS untouched;

--
-- NULL arguments, and what is wrong without asking Clerk
--
SELECT mock.forget();
SELECT f.* FROM (VALUES
    ($$SELECT get_enterprise_connection(NULL)$$),
    ($$SELECT update_enterprise_connection(NULL, '{"name": "x"}')$$),
    ($$SELECT update_enterprise_connection('entconn_000001', NULL)$$),
    ($$SELECT update_enterprise_connection('entconn_000001', '{}')$$),
    ($$SELECT update_enterprise_connection('entconn_000001', '{"nmae": "x"}')$$),
    ($$SELECT update_enterprise_connection('entconn_000001', '{"provider": "saml_okta"}')$$),
    ($$SELECT update_enterprise_connection('entconn_000001', '{"domains": []}')$$),
    ($$SELECT delete_enterprise_connection(NULL)$$),
    ($$SELECT create_enterprise_connection_test_run(NULL)$$),
    ($$SELECT * FROM list_enterprise_connection_test_runs(NULL)$$),
    ($$SELECT adopt_enterprise_connection(NULL, 'entconn_000001')$$),
    ($$SELECT adopt_enterprise_connection('key', NULL)$$),
    ($$SELECT * FROM list_enterprise_connections(max_rows => -1)$$),
    ($$SELECT get_enterprise_connection('entconn_000001', 'No such')$$),
    -- no id of a resource: a URL cannot say it
    ($$SELECT get_enterprise_connection('')$$),
    ($$SELECT get_enterprise_connection('.')$$),
    ($$SELECT update_enterprise_connection('..', '{"name": "x"}')$$),
    ($$SELECT delete_enterprise_connection('')$$),
    ($$SELECT delete_enterprise_connection('.')$$),
    ($$SELECT delete_enterprise_connection('..')$$),
    ($$SELECT create_enterprise_connection_test_run('..')$$),
    ($$SELECT * FROM list_enterprise_connection_test_runs('.')$$),
    ($$SELECT adopt_enterprise_connection('key', '..')$$)
) AS s (statement), test.failure(statement) AS f;
-- nothing of that was sent
SELECT * FROM mock.sent();
-- NULL for a server is the default one
SELECT get_enterprise_connection('entconn_000001', NULL)->>'id' AS id;
SELECT mock.forget();

-- a transaction that may not write sends nothing that does
BEGIN READ ONLY;
SAVEPOINT s;
SELECT update_enterprise_connection('entconn_000001', '{"name": "x"}');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT delete_enterprise_connection('entconn_000001');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT adopt_enterprise_connection('key', 'entconn_000001');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT create_enterprise_connection_test_run('entconn_000001');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT count(*) AS sent FROM mock.requests();
-- and may ask
SELECT get_enterprise_connection('entconn_000001')->>'id' AS id;
SELECT c->>'id' AS id FROM list_enterprise_connections() AS c;
SELECT r FROM list_enterprise_connection_test_runs('entconn_000001') AS r;
COMMIT;
SELECT * FROM mock.sent();

--
-- An id is opaque: whatever is in it, it addresses itself, and no other
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
CREATE TEMP TABLE odd (n int GENERATED ALWAYS AS IDENTITY, id text);
INSERT INTO odd (id) VALUES ('a/b'), ('a?b'), ('a#b'), ('a%b'), ('a b'), ('a%2Fb'), ('a%3Fb'), ('a%23b'), ('%'), ('%25'), ('%00'), ('é'), (U&'e\0301'),
    ('漢'), ('👩‍👧'), ('...'), ('./a'), ('../a'), ('a/..'), ('a/../../b'), ('/'), ('//'), ('?'), ('#'), (' '), ('+'), ('a+b'), ('a&active=true'), ('a;b=c'),
    ('a\b'), ('a"b'), ('a''b'), ('<a>'), ('{a}'), ('a:b@c'), ('~'), ('*'), (E'a\nb'), (E'a\tb'), (chr(127)), ('a/test_runs'), ('enterprise_connections'),
    (repeat('long ', 51));
-- what a slip in the encoding would hit
CREATE TEMP TABLE decoy (id text);
INSERT INTO decoy VALUES ('a'), ('b'), ('ab'), ('test_runs');
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('connections',
    (SELECT jsonb_agg(jsonb_build_object('object', 'enterprise_connection', 'id', id, 'name', left('of ' || id, 50), 'provider', 'saml_custom', 'active', false,
        'domains', jsonb_build_array(md5(id) || '.example'), 'created_at', 1780000000000, 'updated_at', 1780000000000))
     FROM (SELECT id FROM odd UNION ALL SELECT id FROM decoy) AS all_of_them))) IS NOT NULL AS seeded;
-- asked for, changed, tested, adopted: each is the one that was meant, or is listed here
SELECT id, got, updated FROM odd,
    LATERAL (SELECT get_enterprise_connection(id)->>'id' AS got, update_enterprise_connection(id, '{"name": "New"}')->>'id' AS updated) AS c
WHERE got <> id OR updated <> id;
SELECT id, url FROM odd, LATERAL create_enterprise_connection_test_run(id) AS url WHERE url !~ '^https://';
SELECT id FROM odd WHERE (SELECT count(*) FROM list_enterprise_connection_test_runs(id)) <> 1;
SELECT id FROM odd WHERE adopt_enterprise_connection(id, id)->>'id' <> id;
SELECT count(*) AS tracked, count(*) FILTER (WHERE name = 'New' AND key = id) AS new FROM enterprise_connections;
-- the decoys are as they were
SELECT m->>'id' AS id, m->>'name' AS name FROM mock.connections() AS m WHERE m->>'name' <> 'New';
-- deleted one after the other; had one hit another, that one would be 404 then
SELECT id, deleted FROM odd, LATERAL (SELECT delete_enterprise_connection(id)->>'id' AS deleted) AS d WHERE deleted IS DISTINCT FROM id;
SELECT m->>'id' AS left_at_clerk FROM mock.connections() AS m ORDER BY 1;
SELECT count(*) AS tracked FROM enterprise_connections;
-- how they look on the wire
SELECT target FROM mock.requests() WHERE method = 'DELETE' AND length(target) < 100;

--
-- Adopt
--
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 2}') IS NOT NULL AS seeded;
SELECT a = (SELECT m FROM mock.connections() AS m WHERE m->>'id' = 'entconn_000001') AS whole_object
FROM adopt_enterprise_connection('customer:1', 'entconn_000001') AS a;
SELECT server, id, key, name FROM enterprise_connections;
-- again, it is the same
SELECT adopt_enterprise_connection(key => 'customer:1', id => 'entconn_000001', server => 'clerk')->>'id' AS id;
-- another connection cannot have the key; the connection can have another key
SELECT adopt_enterprise_connection('customer:1', 'entconn_000002');
\echo :SQLSTATE
SELECT adopt_enterprise_connection('customer:1b', 'entconn_000001')->>'id' AS id;
SELECT adopt_enterprise_connection('customer:1', 'entconn_000002')->>'id' AS id;
SELECT id, key FROM enterprise_connections ORDER BY id;
SELECT * FROM mock.sent();
