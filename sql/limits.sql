-- What is too long, or too large: an error of ours, with the limit, before
-- anything is sent or stored.
SELECT mock.reset('{"profile": "lenient"}');
TRUNCATE enterprise_connections, enterprise_connection_requests;
\set VERBOSITY default
SET client_min_messages = error;        -- no word about workers, or what is dropped with a server
--
-- Ids and keys: 255 bytes, however well they compress
--
CREATE TEMP TABLE too_long (what text, value text);
INSERT INTO too_long VALUES ('256', repeat('x', 256)), ('bytes', repeat('é', 128)), ('incompressible', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100) i)),
    ('compressible', repeat('y', 1000000));
CREATE TEMP TABLE statements (n int GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO statements (statement) VALUES
    ('SELECT get_enterprise_connection($1)'), ('SELECT update_enterprise_connection($1, ''{"name": "x"}'')'), ('SELECT delete_enterprise_connection($1)'),
    ('SELECT create_enterprise_connection_test_run($1)'), ('SELECT list_enterprise_connection_test_runs($1)'),
    ('SELECT list_enterprise_connection_test_runs(''x'', ARRAY[''success'', $1])'), ('SELECT list_enterprise_connections($1)'),
    ('SELECT upsert_enterprise_connection($1, ''{"name": "x"}'')'), ('SELECT adopt_enterprise_connection($1, ''x'')'), ('SELECT adopt_enterprise_connection(''x'', $1)'),
    ('SELECT enqueue_enterprise_connection(''create'', ''{"name": "x"}'', key => $1)'), ('SELECT enqueue_enterprise_connection(''upsert'', ''{"name": "x"}'', key => $1)'),
    ('SELECT enqueue_enterprise_connection(''update'', ''{"name": "x"}'', key => $1)'), ('SELECT enqueue_enterprise_connection(''update'', ''{"name": "x"}'', id => $1)'),
    ('SELECT enqueue_enterprise_connection(''delete'', key => $1)'), ('SELECT enqueue_enterprise_connection(''delete'', id => $1)'),
    ('SELECT track_enterprise_connection(''{"id": "x"}'', ''clerk'', $1)'), ('SELECT track_enterprise_connection(jsonb_build_object(''id'', $1), ''clerk'')');
SELECT mock.forget();
SELECT statement, f.state, f.message FROM statements, test.failure(replace(statement, '$1', quote_literal(repeat('x', 256)) || '::text')) AS f ORDER BY n;
-- the same for all of them
SELECT what, f.state, f.detail, count(*) FROM statements, too_long, test.failure(replace(statement, '$1', quote_literal(value) || '::text')) AS f
GROUP BY 1, 2, 3 ORDER BY 1;
SELECT count(*) AS sent FROM mock.requests();
SELECT count(*) AS tracked, (SELECT count(*) FROM enterprise_connection_requests) AS enqueued FROM enterprise_connections;
-- the longest one works in all of them
SELECT statement, f.state, f.message FROM statements, test.failure(replace(statement, '$1', quote_literal((SELECT left(value, 255) FROM too_long WHERE what = 'incompressible')) || '::text')) AS f
WHERE f.state NOT IN ('KC404', '23505') ORDER BY n;
DELETE FROM enterprise_connection_requests;
TRUNCATE enterprise_connections;

-- a trigger's key: its prefix counts; what could never be enqueued can still be deleted
CREATE TABLE regress_orgs (id text PRIMARY KEY, name text, domains text[]);
INSERT INTO regress_orgs VALUES (repeat('o', 300), 'Old', '{old.example}');
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_orgs FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains');
INSERT INTO regress_orgs VALUES (repeat('k', 252), 'Long', '{long.example}');
INSERT INTO regress_orgs VALUES (repeat('k', 251), 'Fits', '{fits.example}');
INSERT INTO regress_orgs VALUES (repeat('u', 252), NULL, NULL);
UPDATE regress_orgs SET name = 'Ready', domains = '{ready.example}' WHERE name IS NULL;
UPDATE regress_orgs SET name = 'Older' WHERE name = 'Old';
-- what could never be enqueued is a conflict
SELECT length(key), change, path FROM reconcile_enterprise_connections('regress_orgs', 'sso', refresh => false);
UPDATE regress_orgs SET domains = NULL WHERE name = 'Old';
DELETE FROM regress_orgs WHERE name = 'Old';
SELECT operation, length(key), params->>'name' AS name FROM enterprise_connection_requests;

--
-- A request body: 8 MB, whatever of it makes it large
--
DELETE FROM enterprise_connection_requests;
CREATE FUNCTION pg_temp.params(what text, bytes int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE what
        WHEN 'name' THEN jsonb_build_object('name', repeat('x', bytes))
        WHEN 'escapes' THEN jsonb_build_object('name', repeat(E'\x01', bytes / 6 + 1))
        WHEN 'secret' THEN jsonb_build_object('oidc', jsonb_build_object('client_secret', repeat('s', bytes)))
        WHEN 'domains' THEN jsonb_build_object('domains', (SELECT jsonb_agg(lpad(i::text, 1000, 'd')) FROM generate_series(1, bytes / 1000 + 1) i))
        WHEN 'extra' THEN jsonb_build_object('foo', (SELECT jsonb_agg(i) FROM generate_series(1, bytes / 7) i))
        -- sent by the PATCH that follows a POST
        WHEN 'patch' THEN jsonb_build_object('name', 'x', 'saml', jsonb_build_object('name', repeat('p', bytes))) END
$$;
SELECT url FROM mock.server \gset
CREATE SERVER regress_extra FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', extra_params 'foo', max_response_size '20MB');
CREATE USER MAPPING FOR PUBLIC SERVER regress_extra OPTIONS (secret_key 'sk_test_mock');
SELECT what, test.failure(format('SELECT enqueue_enterprise_connection(''create'', pg_temp.params(%L, 8388608), server => ''regress_extra'')', what)) AS at_enqueue
FROM unnest('{name,escapes,secret,domains,extra,patch}'::text[]) AS what;
SELECT operation, f.* FROM unnest('{create_enterprise_connection($1),"upsert_enterprise_connection(''k'', $1)","update_enterprise_connection(''x'', $1)","enqueue_enterprise_connection(''upsert'', $1, key => ''k'')",
    "enqueue_enterprise_connection(''update'', $1, key => ''k'')",enterprise_connection_body($1),"enterprise_connection_body($1, ''update'')"}'::text[]) AS operation,
    test.failure(format('SELECT %s', replace(operation, '$1', 'pg_temp.params(''name'', 10000000)'))) AS f;
SELECT * FROM check_enterprise_connection(pg_temp.params('name', 10000000));
SELECT ordinal, connection->>'name' AS name, error->>'sqlstate' AS state, error->>'message' AS message
FROM create_enterprise_connections(ARRAY[pg_temp.params('name', 3), pg_temp.params('name', 10000000), pg_temp.params('name', 4)]);
-- by a trigger, too
SELECT test.failure($$INSERT INTO regress_orgs VALUES ('large', repeat('x', 10000000), '{large.example}')$$);
SELECT test.failure($$INSERT INTO regress_orgs VALUES ('escapes', repeat(E'\x01', 2000000), '{large.example}')$$);
-- up to the last byte
SELECT length(enterprise_connection_body(pg_temp.params('name', 8388608 - 11))->>'name') AS length;
SELECT test.failure('SELECT enterprise_connection_body(pg_temp.params(''name'', 8388608 - 10))');
SELECT length(create_enterprise_connection(pg_temp.params('name', 8388608 - 11), 'regress_extra')->>'name') AS length;
SELECT count(*) AS enqueued FROM enterprise_connection_requests;

DROP TABLE regress_orgs;
DROP SERVER regress_extra CASCADE;
TRUNCATE enterprise_connections;
