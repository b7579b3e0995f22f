-- update, get, delete, list, adopt and test runs: what goes over the wire, what
-- comes back, what the tracking table says then.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

-- What a statement fails with.  What libcurl says differs between its
-- releases, and ports from run to run: both are masked.
CREATE FUNCTION pg_temp.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    message := regexp_replace(message, '127\.0\.0\.1:\d+', '127.0.0.1:<port>');
    detail := regexp_replace(detail,
        '(^|complete: )(Recv failure|Send failure|Empty reply|Operation timed out|Connection timed out|Failed to connect|transfer closed|Server returned|Failure when|Illegal)[^\n]*',
        '\1<libcurl>');
END
$$;

-- What was sent since it was last asked.
CREATE FUNCTION pg_temp.sent() RETURNS TABLE (method text, target text, body jsonb, status int)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT r.method, r.target, r.body, r.status FROM mock.requests() AS r;
    PERFORM mock.forget();
END
$$;

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
SELECT * FROM pg_temp.sent();
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
SELECT * FROM pg_temp.sent();
DROP SERVER regress_other CASCADE;
DELETE FROM enterprise_connections WHERE server = 'regress_other';

-- composites are taken as well
SELECT update_enterprise_connection('entconn_000002', jsonb_populate_record(NULL::enterprise_connection_params, '{"name": "Composite"}'))->>'name' AS name;
SELECT * FROM pg_temp.sent();

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
SELECT * FROM pg_temp.sent();
-- deleting what is tracked takes the row away
SELECT delete_enterprise_connection('entconn_000003') IS NULL AS nothing_deleted;
SELECT count(*) AS tracked FROM enterprise_connections;
-- and now it is not tracked any more: an error
SELECT delete_enterprise_connection('entconn_000003');
\echo :SQLSTATE
SELECT * FROM pg_temp.sent();

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
SELECT state, message, detail FROM pg_temp.failure($$SELECT delete_enterprise_connection('entconn_000001')$$);
SELECT * FROM pg_temp.sent();
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
    RETURN QUERY SELECT c.call, f.state, f.message, f.detail, f.hint FROM calls AS c, pg_temp.failure(c.statement) AS f;
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
SELECT method, target, count(*) FROM pg_temp.sent() GROUP BY 1, 2 ORDER BY 1, 2;
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
    pg_temp.failure($$SELECT update_enterprise_connection('entconn_000001', '{"name": "New"}')$$) AS f;
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
) AS s (statement), pg_temp.failure(statement) AS f;
-- nothing of that was sent
SELECT * FROM pg_temp.sent();
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
SELECT * FROM pg_temp.sent();

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
-- List
--
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201, "prefix": "acme"}') IS NOT NULL AS seeded;
SELECT count(*), bool_and(c->>'name' = 'acme ' || 1202 - n) AS newest_first FROM list_enterprise_connections() WITH ORDINALITY AS l (c, n);
SELECT * FROM pg_temp.sent();
-- whole objects
SELECT count(*) AS differing FROM list_enterprise_connections() AS c FULL JOIN mock.connections() AS m ON m = c WHERE m IS NULL OR c IS NULL;
SELECT mock.forget();
-- exactly as many as pages hold
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1000}') IS NOT NULL AS seeded;
SELECT count(*) FROM list_enterprise_connections();
SELECT * FROM pg_temp.sent();
-- none
SELECT mock.reset();
SELECT count(*) FROM list_enterprise_connections();
SELECT * FROM pg_temp.sent();

-- no more than wanted is asked for: in the select list a LIMIT is enough
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201}') IS NOT NULL AS seeded;
SELECT list_enterprise_connections()->>'id' AS id LIMIT 2;
SELECT * FROM pg_temp.sent();
SELECT count(*) FROM (SELECT list_enterprise_connections() LIMIT 501) AS l;
SELECT * FROM pg_temp.sent();
SELECT list_enterprise_connections() LIMIT 0;
SELECT EXISTS (SELECT list_enterprise_connections());
SELECT * FROM pg_temp.sent();
-- in FROM it is max_rows
SELECT c->>'id' AS id FROM list_enterprise_connections(max_rows => 2) AS c;
SELECT count(*), min(c->>'id') AS oldest FROM list_enterprise_connections(max_rows => 501) AS c;
SELECT count(*) FROM list_enterprise_connections(max_rows => 500);
SELECT count(*) FROM list_enterprise_connections(max_rows => 2000);
SELECT count(*) FROM list_enterprise_connections(max_rows => 0);
SELECT * FROM pg_temp.sent();

-- filters
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('connections', jsonb_agg(c || '{"provider": "saml_custom"}'))) IS NOT NULL AS seeded
FROM (VALUES ('{"id": "1", "active": true, "organization_id": "org_1"}'::jsonb), ('{"id": "2", "active": false, "organization_id": "org_1"}'),
    ('{"id": "3", "active": true}'), ('{"id": "4", "active": false}'), ('{"id": "5", "active": false, "organization_id": "org &a=b?#%+;é漢/\\\"''"}')) AS v (c);
SELECT list_enterprise_connections(active => true)->>'id' AS active;
SELECT list_enterprise_connections(active => false)->>'id' AS inactive;
SELECT list_enterprise_connections(active => NULL)->>'id' AS "all";
SELECT list_enterprise_connections('org_1')->>'id' AS of_org_1;
SELECT list_enterprise_connections('org_1', true)->>'id' AS active_of_org_1;
SELECT list_enterprise_connections('org_1', false, 1, 'clerk')->>'id' AS inactive_of_org_1;
SELECT list_enterprise_connections(organization_id => 'org &a=b?#%+;é漢/\"''')->>'id' AS special;
SELECT list_enterprise_connections(organization_id => 'org')->>'id' AS none;
SELECT list_enterprise_connections(organization_id => '')->>'id' AS none;
SELECT target FROM pg_temp.sent();

-- Pages go by offset, newest first: what is created between two of them moves
-- the rest back.  What was seen does not come again.
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 750}') IS NOT NULL AS seeded;
BEGIN;
DECLARE list CURSOR FOR SELECT list_enterprise_connections()->>'id' AS id;
MOVE 499 IN list;
FETCH 1 FROM list;
SELECT mock.call('POST', '/_mock/seed', '{"count": 3, "prefix": "new"}') IS NOT NULL AS created_meanwhile;
FETCH 2 FROM list;
SELECT mock.call('POST', '/_mock/seed', '{"count": 3, "prefix": "newer"}') IS NOT NULL AS created_meanwhile;
MOVE 247 IN list;
FETCH ALL FROM list;
COMMIT;
SELECT * FROM pg_temp.sent();
-- created in between by the session itself
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 501}') IS NOT NULL AS seeded;
BEGIN;
DECLARE list CURSOR FOR SELECT list_enterprise_connections()->>'id' AS id;
MOVE 500 IN list;
SELECT create_enterprise_connection(name => 'New', provider => 'saml_okta', domains => '{new.example}')->>'id' AS id;
FETCH ALL FROM list;
COMMIT;
SELECT method, target FROM pg_temp.sent();

-- a server that gives less at a time than it was asked for, and one that
-- counts wrongly or not at all
SELECT mock.reset();
SELECT mock.script('[
    {"status": 200, "body": {"data": [{"id": "1"}, {"id": "2"}], "total_count": 3}},
    {"status": 200, "body": {"data": [{"id": "3"}], "total_count": 3}}]');
SELECT list_enterprise_connections()->>'id' AS id;
SELECT mock.script('{"status": 200, "body": {"data": [{"id": "1"}, {"id": "2"}]}}');
SELECT list_enterprise_connections()->>'id' AS id;
SELECT mock.script('[
    {"status": 200, "body": {"data": [{"id": "1"}], "total_count": 10}},
    {"status": 200, "body": {"data": [], "total_count": 10}}]');
SELECT list_enterprise_connections()->>'id' AS id;
SELECT target FROM pg_temp.sent();
-- an error on a later page is one of the whole
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 501}') IS NOT NULL AS seeded;
SELECT mock.script('{"skip": 1, "status": 403, "body": {"errors": [{"message": "no", "code": "authorization_invalid"}]}}');
SELECT count(*) FROM list_enterprise_connections();
\echo :SQLSTATE
-- of which a page that nobody asks for has none
SELECT mock.script('{"skip": 1, "status": 403, "body": {"errors": [{"message": "no", "code": "authorization_invalid"}]}}');
SELECT count(*) FROM (SELECT list_enterprise_connections() LIMIT 500) AS l;

-- several at a time in one query
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 3}') IS NOT NULL AS seeded;
SELECT list_enterprise_connections()->>'id' AS a, list_enterprise_connections(max_rows => 2)->>'id' AS b;
-- nothing of all that is tracked but what was created
SELECT name FROM enterprise_connections;

--
-- Test runs
--
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 2}') IS NOT NULL AS seeded;
SELECT create_enterprise_connection_test_run('entconn_000001') AS url;
SELECT method, target, status, raw_body, headers->>'content-length' AS content_length, headers ? 'content-type' AS content_type FROM mock.requests() \gx
SELECT mock.forget();
SELECT jsonb_pretty(r) AS run FROM list_enterprise_connection_test_runs('entconn_000001') AS r;
-- of all statuses, newest first
SELECT mock.call('POST', '/_mock/seed', '{"test_runs": {"entconn_000002": [{"id": "r1", "status": "failed", "logs": [{"code": "saml_user_attribute_missing"}]},
    {"id": "r2", "status": "success", "parsed_user_info": {"email_address": "a@acme.example"}}, {"id": "r3", "status": "pending"}]}}') IS NOT NULL AS seeded;
SELECT r FROM list_enterprise_connection_test_runs('entconn_000002') AS r;
SELECT r->>'id' AS run FROM list_enterprise_connection_test_runs('entconn_000002', '{success}') AS r;
SELECT r->>'id' AS run FROM list_enterprise_connection_test_runs('entconn_000002', '{failed,pending}') AS r;
SELECT r->>'id' AS run FROM list_enterprise_connection_test_runs('entconn_000002', '{}') AS r;
SELECT r->>'id' AS run FROM list_enterprise_connection_test_runs('entconn_000002', '{failed,NULL}') AS r;
SELECT list_enterprise_connection_test_runs(id => 'entconn_000002', status => '{failed}', server => 'clerk')->>'id' AS run;
SELECT target FROM pg_temp.sent();
-- what Clerk does not know it says
SELECT * FROM list_enterprise_connection_test_runs('entconn_000002', ARRAY['failed', 'a&b=c']);
\echo :SQLSTATE
SELECT target FROM pg_temp.sent();
-- pages
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('test_runs', jsonb_build_object('entconn_000001',
    (SELECT jsonb_agg(jsonb_build_object('id', 'run_' || n, 'status', 'failed')) FROM generate_series(1, 600) AS n)))) IS NOT NULL AS seeded;
SELECT count(*), count(DISTINCT r->>'id') AS ids FROM list_enterprise_connection_test_runs('entconn_000001', '{failed}') AS r;
SELECT list_enterprise_connection_test_runs('entconn_000001')->>'id' AS newest LIMIT 1;
SELECT target FROM pg_temp.sent();
-- never stored
SELECT count(*) AS tracked FROM enterprise_connections;

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
SELECT * FROM pg_temp.sent();

--
-- A listing is cut into its elements before it is parsed. Whatever becomes of
-- its text, it is understood as PostgreSQL understands the whole, or refused;
-- elements that are no connections are left out, with a WARNING.
--
SET client_min_messages = error;
SELECT mock.reset();
CREATE FUNCTION pg_temp.understood(body text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb;
BEGIN
    answer := body;
    IF jsonb_typeof(answer) <> 'object' OR jsonb_typeof(answer->'data') IS DISTINCT FROM 'array' THEN
        RETURN '"no listing"';
    END IF;
    answer := answer->'data';
    IF answer = '[]' THEN
        RETURN answer;
    END IF;
    RETURN coalesce((SELECT jsonb_agg(c) FROM jsonb_array_elements(answer) AS c
                     WHERE jsonb_typeof(c) = 'object' AND jsonb_typeof(c->'id') = 'string'), '"no listing"');
EXCEPTION WHEN data_exception OR untranslatable_character THEN
    RETURN '"no listing"';
END
$$;
CREATE FUNCTION pg_temp.listed() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(c), '[]') FROM list_enterprise_connections(max_rows => 500) AS c);
EXCEPTION WHEN SQLSTATE 'KC008' THEN
    RETURN '"no listing"';
END
$$;
CREATE TEMP TABLE bodies AS
WITH pages (page) AS (VALUES
    ('{"data":[{"id":"a","x":[1,{"y":2}]},{"id":"b\"}]{"},7,[3]],"total":1,"m":{"n":{"o":[]}}}'),
    ('{"m":[[],{}] ,"data" : [ {"id":"\u00e9\\","data":[]} , null,"{[" ] }'))
SELECT row_number() OVER (ORDER BY page, n, what) AS n, text AS body
FROM pages, generate_series(1, length(page)) AS n,
    LATERAL (SELECT 'left out', overlay(page PLACING '' FROM n FOR 1) UNION ALL
        SELECT c, overlay(page PLACING c FROM n FOR 0) FROM unnest('{"{","]","}","\"",",","1"," ","[0]"}'::text[]) AS c) AS m (what, text)
WHERE substr(page, n, 1) ~ '[][{},:" \\]';
INSERT INTO bodies SELECT 0, '{"data":[{"id":"a","x":[1,{"y":2}]},{"id":"b\"}]{"},7,[3]],"total":1,"m":{"n":{"o":[]}}}';
SELECT mock.script(jsonb_agg(jsonb_build_object('body', body) ORDER BY n)) FROM bodies;
ALTER SERVER clerk OPTIONS (ADD max_retries '0');
SELECT count(*) AS bodies, count(*) FILTER (WHERE wanted = '"no listing"') AS refused
FROM (SELECT pg_temp.understood(body) AS wanted FROM bodies) AS u;
SELECT n, body, wanted, got
FROM (SELECT n, body, pg_temp.understood(body) AS wanted, pg_temp.listed() AS got FROM (SELECT * FROM bodies ORDER BY n) AS b) AS both_ways
WHERE wanted <> got;
RESET client_min_messages;
ALTER SERVER clerk OPTIONS (DROP max_retries);
