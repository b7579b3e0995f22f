-- Listings: of connections, page after page, and of test runs.
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

--
-- List
--
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201, "prefix": "acme"}') IS NOT NULL AS seeded;
SELECT count(*), bool_and(c->>'name' = 'acme ' || 1202 - n) AS newest_first FROM list_enterprise_connections() WITH ORDINALITY AS l (c, n);
SELECT * FROM mock.sent();
-- whole objects
SELECT count(*) AS differing FROM list_enterprise_connections() AS c FULL JOIN mock.connections() AS m ON m = c WHERE m IS NULL OR c IS NULL;
SELECT mock.forget();
-- exactly as many as pages hold
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1000}') IS NOT NULL AS seeded;
SELECT count(*) FROM list_enterprise_connections();
SELECT * FROM mock.sent();
-- none
SELECT mock.reset();
SELECT count(*) FROM list_enterprise_connections();
SELECT * FROM mock.sent();

-- no more than wanted is asked for: in the select list a LIMIT is enough
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201}') IS NOT NULL AS seeded;
SELECT list_enterprise_connections()->>'id' AS id LIMIT 2;
SELECT * FROM mock.sent();
SELECT count(*) FROM (SELECT list_enterprise_connections() LIMIT 501) AS l;
SELECT * FROM mock.sent();
SELECT list_enterprise_connections() LIMIT 0;
SELECT EXISTS (SELECT list_enterprise_connections());
SELECT * FROM mock.sent();
-- in FROM it is max_rows
SELECT c->>'id' AS id FROM list_enterprise_connections(max_rows => 2) AS c;
SELECT count(*), min(c->>'id') AS oldest FROM list_enterprise_connections(max_rows => 501) AS c;
SELECT count(*) FROM list_enterprise_connections(max_rows => 500);
SELECT count(*) FROM list_enterprise_connections(max_rows => 2000);
SELECT count(*) FROM list_enterprise_connections(max_rows => 0);
SELECT * FROM mock.sent();

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
SELECT target FROM mock.sent();

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
SELECT * FROM mock.sent();
-- created in between by the session itself
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 501}') IS NOT NULL AS seeded;
BEGIN;
DECLARE list CURSOR FOR SELECT list_enterprise_connections()->>'id' AS id;
MOVE 500 IN list;
SELECT create_enterprise_connection(name => 'New', provider => 'saml_okta', domains => '{new.example}')->>'id' AS id;
FETCH ALL FROM list;
COMMIT;
SELECT method, target FROM mock.sent();

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
SELECT target FROM mock.sent();
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
SELECT target FROM mock.sent();
-- what Clerk does not know it says
SELECT * FROM list_enterprise_connection_test_runs('entconn_000002', ARRAY['failed', 'a&b=c']);
\echo :SQLSTATE
SELECT target FROM mock.sent();
-- pages
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('test_runs', jsonb_build_object('entconn_000001',
    (SELECT jsonb_agg(jsonb_build_object('id', 'run_' || n, 'status', 'failed')) FROM generate_series(1, 600) AS n)))) IS NOT NULL AS seeded;
SELECT count(*), count(DISTINCT r->>'id') AS ids FROM list_enterprise_connection_test_runs('entconn_000001', '{failed}') AS r;
SELECT list_enterprise_connection_test_runs('entconn_000001')->>'id' AS newest LIMIT 1;
SELECT target FROM mock.sent();
-- never stored
SELECT count(*) AS tracked FROM enterprise_connections;

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
