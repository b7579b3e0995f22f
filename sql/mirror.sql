-- mirror_enterprise_connections: all that exists at Clerk in the tracking
-- table, while others write there and here.
SELECT mock.reset('{"clock_ms": 1780000000000}');
TRUNCATE enterprise_connections;
SET timezone = 'UTC';
\set VERBOSITY default

-- Somebody else who changes things at Clerk: another server for the same
-- instance, with rows of its own.
SELECT url FROM mock.server \gset
CREATE SERVER regress_else FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_else OPTIONS (secret_key 'sk_test_mock');

-- The table as it was, to see which rows were written since.
CREATE TEMP TABLE seen (row_xmin text, row_ctid tid, server name, id text, synced_at timestamptz);
CREATE FUNCTION pg_temp.look() RETURNS void LANGUAGE sql AS $$
    TRUNCATE seen;
    INSERT INTO seen SELECT xmin::text, ctid, server, id, synced_at FROM enterprise_connections;
$$;
CREATE FUNCTION pg_temp.written() RETURNS TABLE (server name, id text) LANGUAGE sql AS $$
    SELECT e.server, e.id FROM enterprise_connections AS e LEFT JOIN seen AS s
        ON s.server = e.server AND s.id = e.id AND s.row_xmin = e.xmin::text AND s.row_ctid = e.ctid AND s.synced_at = e.synced_at
    WHERE s.id IS NULL ORDER BY 1, 2
$$;

-- A connection as a page has it.
CREATE FUNCTION pg_temp.element(id text, name text, updated_at int, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('object', 'enterprise_connection', 'id', id, 'name', name, 'provider', 'saml_okta', 'active', false,
        'domains', jsonb_build_array(id || '.example'), 'created_at', 1780000000000, 'updated_at', 1780000000000 + updated_at) || more
$$;
-- Pages with these elements, in that order.
CREATE FUNCTION pg_temp.script_pages(total int, VARIADIC pages jsonb[]) RETURNS void LANGUAGE sql AS $$
    SELECT mock.script(jsonb_agg(jsonb_build_object('match', jsonb_build_object('method', 'GET', 'path', '/enterprise_connections'),
        'status', 200, 'body', jsonb_strip_nulls(jsonb_build_object('data', page, 'total_count', total))) ORDER BY n))
    FROM unnest(pages) WITH ORDINALITY AS p (page, n)
$$;

--
-- An empty instance
--
SELECT * FROM mirror_enterprise_connections();
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;

--
-- Inserted, updated, deleted, gone
--
SELECT mock.call('POST', '/_mock/seed', '{"count": 4, "prefix": "acme"}') IS NOT NULL AS seeded;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT server, id, key, name, provider, domains, active, organization_id, sync_user_attributes, created_at, updated_at,
       synced_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() AS synced_now
FROM enterprise_connections ORDER BY id;
SELECT count(*) AS whole_objects FROM enterprise_connections JOIN mock.connections() AS m ON m = connection;
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;

-- nothing has changed: no rows, no writes
SELECT pg_temp.look();
SELECT * FROM mirror_enterprise_connections();
SELECT * FROM mirror_enterprise_connections(server => NULL, force => NULL);
SELECT * FROM pg_temp.written();
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;

-- somebody creates, changes and deletes; a key stays with its connection
SELECT adopt_enterprise_connection('customer:2', 'entconn_000002')->>'id' AS id;
SELECT adopt_enterprise_connection('customer:3', 'entconn_000003')->>'id' AS id;
SELECT update_enterprise_connection('entconn_000002', '{"name": "Changed", "organizationId": "org_1", "active": false, "domains": ["changed.example"]}', 'regress_else')->>'name' AS name;
SELECT delete_enterprise_connection('entconn_000003', 'regress_else')->'deleted' AS deleted;
SELECT create_enterprise_connection(name => 'New', provider => 'oidc_custom', domains => '{new.example}', oidc => '{"clientId": "c", "requiresPkce": true}',
    server => 'regress_else')->>'id' AS id;
SELECT mock.forget();
SELECT pg_temp.look();
SELECT * FROM mirror_enterprise_connections('clerk') ORDER BY id;
SELECT id, key, name, provider, domains, organization_id FROM enterprise_connections WHERE server = 'clerk' ORDER BY id;
-- only what was reported was written; the other server's rows are none of its business
SELECT * FROM pg_temp.written();
-- what was on no page was asked for by its id
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;

-- a user's foreign key holds the row: it stays, and is reported each time
CREATE TABLE regress_customer (name text, server name DEFAULT 'clerk', connection text,
    FOREIGN KEY (server, connection) REFERENCES enterprise_connections (server, id));
INSERT INTO regress_customer VALUES ('Acme', DEFAULT, 'entconn_000002');
SELECT delete_enterprise_connection('entconn_000001', 'regress_else')->'deleted' AS deleted;
SELECT delete_enterprise_connection('entconn_000002', 'regress_else')->'deleted' AS deleted;
SELECT pg_temp.look();
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT server, id, key, name FROM enterprise_connections ORDER BY server COLLATE "C", id;
SELECT * FROM pg_temp.written();
DELETE FROM regress_customer;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
DROP TABLE regress_customer;

-- another server's rows: all it has is gone, and it is left alone
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS all_deleted;
SELECT server, id FROM enterprise_connections ORDER BY server COLLATE "C", id;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT server, id FROM enterprise_connections;
SELECT * FROM mirror_enterprise_connections('regress_else');

--
-- What an answer lacks does not erase what is known; what is older does not
-- overwrite what is newer
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT pg_temp.script_pages(3, jsonb_build_array(
    pg_temp.element('a', 'A', 5, '{"organization_id": "org_1", "sync_user_attributes": true, "extra": 1, "saml_connection": {"id": "s", "acs_url": "u", "idp_entity_id": "e"}}'),
    pg_temp.element('b', 'B', 5), pg_temp.element('c', 'C', 5)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
-- the same with less in it: nothing new
SELECT pg_temp.look();
SELECT pg_temp.script_pages(3, jsonb_build_array(
    pg_temp.element('a', 'A', 5, '{"saml_connection": {"acs_url": "u"}}'), pg_temp.element('b', 'B', 5) - 'active' - 'domains', pg_temp.element('c', 'C', 5)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT * FROM pg_temp.written();
-- newer with less in it; older; of the same time; without a time
SELECT pg_temp.script_pages(3, jsonb_build_array(
    pg_temp.element('a', 'A6', 6, '{"saml_connection": {"idp_entity_id": "e6"}}'), pg_temp.element('b', 'B4', 4), pg_temp.element('c', 'C5', 5)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT id, name, organization_id, sync_user_attributes, connection->'extra' AS extra, connection->'saml_connection' AS saml, updated_at
FROM enterprise_connections ORDER BY id;
SELECT pg_temp.script_pages(3, jsonb_build_array(
    pg_temp.element('a', 'A5', 5, '{"organization_id": "org_0"}'), pg_temp.element('b', 'B0', 0) - 'updated_at', pg_temp.element('c', 'C5', 5)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT id, name, organization_id, updated_at FROM enterprise_connections ORDER BY id;

--
-- Pages that shift: an element that comes twice, and one that comes not at all
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
-- (the first page holds two, so it goes on by two)
SELECT pg_temp.script_pages(4, jsonb_build_array(pg_temp.element('d', 'D', 1), pg_temp.element('c', 'C', 1)),
    jsonb_build_array(pg_temp.element('c', 'C', 1), pg_temp.element('b', 'B', 1)),
    jsonb_build_array(pg_temp.element('a', 'A', 1)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT target FROM mock.sent() ORDER BY method, target;
-- twice on one page, the newer one counts; twice on two, the same
SELECT pg_temp.script_pages(4, jsonb_build_array(pg_temp.element('d', 'D2', 2), pg_temp.element('d', 'D3', 3), pg_temp.element('d', 'D', 1)),
    jsonb_build_array(pg_temp.element('d', 'D2', 2), pg_temp.element('c', 'C', 1), pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1)));
SELECT DISTINCT * FROM mirror_enterprise_connections();
SELECT id, name FROM enterprise_connections ORDER BY id;
-- c and d slipped through the pages, but they exist: asked for by their ids,
-- one of them has changed
SELECT mock.call('POST', '/_mock/seed', jsonb_build_object('connections', jsonb_build_array(
    pg_temp.element('a', 'A', 1), pg_temp.element('b', 'B', 1), pg_temp.element('c', 'C', 1), pg_temp.element('d', 'D9', 9)))) IS NOT NULL AS seeded;
SELECT mock.forget();
SELECT pg_temp.look();
SELECT pg_temp.script_pages(2, jsonb_build_array(pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT * FROM pg_temp.written();
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;
-- what was synced since the mirror began is not even asked for (here: it was, in the future)
UPDATE enterprise_connections SET synced_at = clock_timestamp() + interval '1 hour' WHERE id = 'c';
SELECT pg_temp.script_pages(3, jsonb_build_array(pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1), pg_temp.element('d', 'D9', 9)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;

-- less on a page than was asked for, and more in the end than was said at first
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT pg_temp.script_pages(5, jsonb_build_array(pg_temp.element('e', 'E', 1), pg_temp.element('d', 'D', 1)),
    jsonb_build_array(pg_temp.element('c', 'C', 1), pg_temp.element('b', 'B', 1)), jsonb_build_array(pg_temp.element('a', 'A', 1)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT target FROM mock.sent() ORDER BY method, target;
SELECT mock.reset();
TRUNCATE enterprise_connections;
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
SELECT pg_temp.script_pages(3, jsonb_build_array(pg_temp.element('c', 'C', 1), pg_temp.element('b', 'B', 1)));
SELECT pg_temp.script_pages(6, jsonb_build_array(pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1)),
    jsonb_build_array(pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1)));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT target FROM mock.sent() ORDER BY method, target;
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
-- no total_count; elements that are none
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT pg_temp.script_pages(NULL, jsonb_build_array(pg_temp.element('a', 'A', 1), '{}', '[]', '5', '"b"', 'null', '{"id": ""}', '{"id": null}', '{"id": 7}', '{"id": ["c"]}', '{"id": "d"}'));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT id, name, domains, updated_at FROM enterprise_connections ORDER BY id;
SELECT target FROM mock.sent() ORDER BY method, target;

-- many pages; just as many as pages hold; one by one when they are gone
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201}') IS NOT NULL AS seeded;
SELECT change, count(*), count(DISTINCT id) AS ids FROM mirror_enterprise_connections() GROUP BY change;
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;
SELECT count(*) AS whole_objects FROM enterprise_connections JOIN mock.connections() AS m ON m->>'id' = id AND m = connection;
-- as many as there are rows are asked for at once: none waits for the first page
SELECT mock.settings('{"latency_ms": 150}');
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT mock.stats()->'max_in_flight' AS max_in_flight;
SELECT target FROM mock.sent() ORDER BY target;
-- all but the first are asked for again if the server gives less at a time
UPDATE enterprise_connections SET synced_at = clock_timestamp() + interval '1 hour';
SELECT mock.reset();
SELECT pg_temp.script_pages(6, VARIADIC array_fill(jsonb_build_array(pg_temp.element('b', 'B', 1), pg_temp.element('a', 'A', 1)), ARRAY[5]));
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT target FROM mock.sent() ORDER BY target;
DELETE FROM enterprise_connections WHERE id IN ('a', 'b');
UPDATE enterprise_connections SET synced_at = '-infinity';
SELECT mock.reset();
SELECT mock.call('POST', '/_mock/seed', '{"count": 1000}') IS NOT NULL AS seeded;
SELECT change, count(*), min(id), max(id) FROM mirror_enterprise_connections() GROUP BY change ORDER BY change;
SELECT method, count(*), count(DISTINCT target) AS targets FROM mock.sent() WHERE target ~ 'entconn_' GROUP BY method;
SELECT count(*) AS tracked FROM enterprise_connections;
-- the next page is asked for before one is written
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201}') IS NOT NULL AS seeded;
CREATE TEMP TABLE asked (page int, requests int);
CREATE FUNCTION pg_temp.note_asked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    n int := (SELECT count(*) FROM pg_temp.asked) + 1;
    requests int;
BEGIN
    FOR i IN 1 .. 100 LOOP
        requests := mock.stats()->'requests';
        EXIT WHEN n <> 2 OR requests > 2;
        PERFORM pg_sleep(0.02);
    END LOOP;
    INSERT INTO pg_temp.asked VALUES (n, requests);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_asked AFTER INSERT ON enterprise_connections FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.note_asked();
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT * FROM asked ORDER BY page;
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
DROP TRIGGER note_asked ON enterprise_connections;

--
-- More than half of ten or more gone: rather the key of another instance
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 10}') IS NOT NULL AS seeded;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT count(delete_enterprise_connection(id, 'regress_else')) AS deleted FROM enterprise_connections WHERE id > 'entconn_000004' AND server = 'clerk';
SELECT pg_temp.look();
SELECT mock.forget();
SELECT * FROM mirror_enterprise_connections();
\echo :SQLSTATE
SELECT * FROM pg_temp.written();
SELECT count(*) AS tracked FROM enterprise_connections;
SELECT method, target, status FROM mock.sent() ORDER BY 1, 2;
SELECT * FROM mirror_enterprise_connections(force => true) ORDER BY id;
SELECT id FROM enterprise_connections ORDER BY id;
-- half of ten is not more than half; of nine, all may go
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 10}') IS NOT NULL AS seeded;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT count(delete_enterprise_connection(id, 'regress_else')) AS deleted FROM enterprise_connections WHERE id > 'entconn_000005' AND server = 'clerk';
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT mock.call('POST', '/_mock/seed', '{"count": 4, "prefix": "more"}') IS NOT NULL AS seeded;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS all_deleted;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
-- a swapped key, as it happens: the other instance has many connections of its own
SELECT mock.call('POST', '/_mock/seed', '{"count": 12, "prefix": "mine"}') IS NOT NULL AS seeded;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS all_deleted, mock.call('POST', '/_mock/seed', '{"count": 30, "prefix": "theirs"}') IS NOT NULL AS seeded;
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
\echo :SQLSTATE
SELECT count(*) AS tracked, count(*) FILTER (WHERE name ~ 'mine') AS mine FROM enterprise_connections;

--
-- Errors leave everything as it was
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
SELECT mock.call('POST', '/_mock/seed', '{"count": 1201}') IS NOT NULL AS seeded;
SELECT count(update_enterprise_connection('entconn_00000' || n, '{"name": "Tracked"}')) AS tracked FROM generate_series(1, 3) AS n;
SELECT count(update_enterprise_connection('entconn_00000' || n, '{"name": "Changed"}', 'regress_else')) AS changed FROM generate_series(1, 3) AS n;
SELECT pg_temp.look();
SELECT mock.forget();
-- on a page
SELECT mock.script('{"match": {"method": "GET", "path": "/enterprise_connections"}, "skip": 2, "times": 0, "status": 403, "body": {"errors": [{"message": "no", "code": "authorization_invalid"}]}}');
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
\echo :SQLSTATE
SELECT mock.unscript();
SELECT * FROM pg_temp.written();
SELECT mock.script('{"match": {"method": "GET", "path": "/enterprise_connections"}, "skip": 1, "times": 0, "status": 200, "body": {"total_count": 1201}}');
ALTER SERVER clerk OPTIONS (ADD max_retries '0');
SELECT change, count(*) FROM mirror_enterprise_connections() GROUP BY change;
\echo :SQLSTATE
SELECT mock.unscript();
SELECT * FROM pg_temp.written();
-- on the way to a row that was on no page
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS all_deleted;
SELECT mock.script('{"match": {"method": "GET", "path": "/enterprise_connections/entconn_000002"}, "times": 0, "status": 500, "body": {"errors": [{"message": "Oops", "code": "internal_clerk_error"}]}}');
SELECT * FROM mirror_enterprise_connections();
\echo :SQLSTATE
SELECT mock.unscript();
-- only Clerk can say that one is gone; a page of a proxy's does not
SELECT mock.script('{"match": {"method": "GET", "path": "/enterprise_connections/entconn_000002"}, "times": 0, "status": 404, "headers": {"Content-Type": "text/html"}, "body": "<h1>404 Not Found</h1>nginx"}');
SELECT * FROM mirror_enterprise_connections();
\echo :SQLSTATE
SELECT mock.unscript();
ALTER SERVER clerk OPTIONS (DROP max_retries);
SELECT server, id, name FROM enterprise_connections ORDER BY server COLLATE "C", id;
SELECT * FROM pg_temp.written();
-- nothing may be written
BEGIN READ ONLY;
SELECT * FROM mirror_enterprise_connections();
\echo :SQLSTATE
ROLLBACK;
-- a transaction that is rolled back
BEGIN;
SELECT * FROM mirror_enterprise_connections() ORDER BY id;
SELECT count(*) AS tracked FROM enterprise_connections WHERE server = 'clerk';
ROLLBACK;
SELECT * FROM pg_temp.written();
-- and no warning: what is mirrored was not created here
SELECT mock.call('POST', '/_mock/seed', '{"count": 1}') IS NOT NULL AS seeded;
BEGIN;
SELECT change FROM mirror_enterprise_connections() WHERE change = 'inserted';
ROLLBACK;

DROP SERVER regress_else CASCADE;
DELETE FROM enterprise_connections WHERE server = 'regress_else';
