-- enterprise_connection_status, _queue and _health: what they show, to whom, and
-- by which indexes; and the levers.
-- There is no worker here: CALL deliver_enterprise_connections() delivers.
SET timezone = 'UTC';
SET statement_timeout = '60s';
SET client_min_messages = warning;
CALL box.start_over();
ALTER SERVER clerk OPTIONS (ADD max_concurrency '1');
CREATE ROLE regress_owner;
CREATE ROLE regress_usage;
CREATE ROLE regress_nobody;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_owner, regress_usage;
GRANT USAGE ON SCHEMA box TO regress_owner;

--
-- What was never created is found, by all that it asked for
--
SET ROLE regress_owner;
SET client_min_messages = error;
SELECT enqueue_enterprise_connection('upsert', '{"name": "Failed", "domains": ["LOCALHOST", "b.example"], "organization_id": "org_f", "saml": {}, "active": true}', key => 'failed') AS request;
SELECT enqueue_enterprise_connection('create', box.params('Keyless', 'localhost')) AS request;
SET client_min_messages = warning;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', box.params('Made'), 'made') AS request;
CALL deliver_enterprise_connections();
SELECT enqueue_enterprise_connection('upsert', '{"name": "Made 2"}', 'made') AS request;
SELECT enqueue_enterprise_connection('delete', key => 'made') AS request;
RESET ROLE;
SELECT key, name, domains, organization_id, active, state, attempts, sqlstate, error, hint FROM enterprise_connection_status WHERE domains @> ARRAY['localhost'] ORDER BY request;
SELECT key FROM enterprise_connection_status WHERE 'b.example' = ANY (domains);
SELECT key FROM enterprise_connection_status WHERE organization_id = 'org_f';
SELECT key FROM enterprise_connection_status WHERE name = 'Failed';
SELECT request, state FROM enterprise_connection_status WHERE name = 'Keyless';
-- what is there shows its last request, and what that waits for
SELECT key, id, name, domains, request, operation, state, next_attempt_at, waits FROM enterprise_connection_status WHERE key = 'made';
SELECT detail FROM enterprise_connection_status WHERE key = 'failed';
-- nothing of this is in more than one row, in whatever way it is asked for
SELECT count(*), count(DISTINCT (key, id, request)) FROM enterprise_connection_status;
SELECT a.key, b.key FROM enterprise_connection_status a JOIN enterprise_connection_status b USING (server)
WHERE a.domains @> ARRAY['b.example'] AND b.domains @> ARRAY['made.example'];
SELECT key FROM enterprise_connection_status WHERE domains @> ARRAY['b.example', 'localhost'];
SELECT count(*) FROM enterprise_connection_status WHERE domains @> '{}';
SELECT count(*) FROM enterprise_connection_status WHERE domains @> NULL;
SELECT count(*) FROM enterprise_connection_status WHERE NOT domains @> ARRAY['b.example'];
SELECT count(*) FROM enterprise_connection_status WHERE domains @> ARRAY['b.example'] OR key = 'made';
SELECT count(*) FROM (VALUES (1)) v LEFT JOIN enterprise_connection_status s ON s.domains @> ARRAY['nobody.example'];

--
-- Who sees what
--
SET ROLE regress_nobody;
SELECT count(*) FROM enterprise_connection_status;
SELECT count(*) FROM enterprise_connection_queue;
SELECT count(*) FROM enterprise_connection_health;
-- not even by a function that costs nothing
CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END$$;
SET client_min_messages = notice;
SELECT count(*) FROM enterprise_connection_status WHERE pg_temp.tell(name) AND domains @> ARRAY['localhost'];
SELECT count(*) FROM enterprise_connection_status WHERE pg_temp.tell(key) AND 'made.example' = ANY (domains);
SET client_min_messages = warning;
DROP FUNCTION pg_temp.tell(text);
-- with USAGE: what others have enqueued, too, so that an application can tell why
SET ROLE regress_usage;
SELECT key, state FROM enterprise_connection_status ORDER BY request;
SELECT state, requests, estimate IS NULL AS none FROM enterprise_connection_queue ORDER BY state;
SELECT what, key FROM enterprise_connection_health ORDER BY request;
SELECT count(*) FROM enterprise_connection_requests;
SET ROLE regress_monitor;
SELECT key, state FROM enterprise_connection_status ORDER BY request;
-- without USAGE: one's own, even of what is tracked
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER clerk FROM regress_owner;
SET ROLE regress_owner;
SELECT key, id, name, state FROM enterprise_connection_status ORDER BY request;
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_owner;
-- a server that is gone is no error
CREATE SERVER regress_gone FOREIGN DATA WRAPPER pg_clerk;
GRANT USAGE ON FOREIGN SERVER regress_gone TO regress_owner;
SELECT enqueue_enterprise_connection('delete', key => 'x', server => 'regress_gone') > 0 AS enqueued;
BEGIN;
ALTER EVENT TRIGGER pg_clerk_server_dropped DISABLE;
DROP SERVER regress_gone CASCADE;
SELECT key, state FROM enterprise_connection_status WHERE server = 'regress_gone';
SELECT state, requests FROM enterprise_connection_queue WHERE server = 'regress_gone';
SELECT what FROM enterprise_connection_health WHERE server = 'regress_gone';
ROLLBACK;
DROP SERVER regress_gone CASCADE;

--
-- Levers
--
SET ROLE regress_nobody;
SELECT retry_enterprise_connection_requests('clerk');
SELECT cancel_enterprise_connection_requests('clerk');
SELECT resume_enterprise_connections('clerk');
SELECT retry_enterprise_connection_requests(NULL);
SELECT retry_enterprise_connection_requests('no_such_server');
SET ROLE regress_owner;
SELECT retry_enterprise_connection_requests('clerk', 'KC5%') AS retried;
SELECT retry_enterprise_connection_requests('clerk', 'form_%') AS retried;
SELECT key, state, attempts FROM enterprise_connection_status WHERE domains @> ARRAY['localhost'] ORDER BY request;
CALL deliver_enterprise_connections();
SELECT retry_enterprise_connection_requests('clerk', 'KC4__') AS retried;
SELECT cancel_enterprise_connection_requests('clerk', NULL, 'fail%') AS cancelled;
SELECT cancel_enterprise_connection_requests('clerk') AS cancelled;
SELECT key, state, waits FROM enterprise_connection_status ORDER BY request;
-- what stands behind goes on, and what was cancelled has no secrets
SELECT enqueue_enterprise_connection('upsert', '{"name": "Secret", "provider": "oidc_custom", "domains": ["s.example"], "oidc": {"client_id": "c", "client_secret": "very secret", "discovery_url": "https://s.example"}}', key => 's') AS first \gset
BEGIN;
SELECT enqueue_enterprise_connection('upsert', box.params('One'), 'one') AS one \gset
SELECT enqueue_enterprise_connection('update', '{"name": "Two"}', 'one') AS two \gset
COMMIT;
RESET ROLE;
UPDATE enterprise_connection_requests SET error = '{"sqlstate": "KC500"}', next_attempt_at = now() + '1 hour' WHERE id IN (:one, :first);
SET ROLE regress_owner;
SELECT cancel_enterprise_connection_requests('clerk', 'KC5%') AS cancelled;
SELECT id = :two AS second, state, next_attempt_at <= now() AS due FROM enterprise_connection_requests WHERE state = 'queued';
SELECT count(*) FROM enterprise_connection_requests WHERE params::text LIKE '%very secret%';
SELECT cancel_enterprise_connection_requests('clerk') AS cancelled;
-- what waits for another attempt is tried now
SELECT enqueue_enterprise_connection('upsert', box.params('Three'), 'three') AS three \gset
RESET ROLE;
UPDATE enterprise_connection_requests SET error = '{"sqlstate": "KC429"}', http_status = 429, attempts = 3, next_attempt_at = now() + '1 hour' WHERE id = :three;
SELECT resume_enterprise_connections('clerk');
SELECT attempts, next_attempt_at <= clock_timestamp() AS due FROM enterprise_connection_requests WHERE id = :three;
SELECT cancel_enterprise_connection_requests('clerk') AS cancelled;

--
-- Plans, where there is much
--
CALL box.start_over();
INSERT INTO enterprise_connections (server, id, key, organization_id, name, domains, active, connection, synced_at, request)
SELECT 'clerk', 'entconn_' || n, 'org:' || n, 'org_' || n, 'Name ' || n, ARRAY['d' || n || '.example', 'e' || n || '.example'], true, '{}', now(), n
FROM generate_series(1, 20000) n;
INSERT INTO enterprise_connections (server, id, key, domains, connection, synced_at)
SELECT 'clerk', 'entconn_long', 'long', array_agg('l' || n || '.example'), '{}', now() FROM generate_series(1, 5001) n;
INSERT INTO enterprise_connection_requests (server, role, origin, operation, key, lane, params, state, finished_at, step, error)
SELECT 'clerk', current_user, enterprise_connection_origin(), 'upsert', 'org:' || n, 'key org:' || n, '{}', CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'delivered' END::enterprise_connection_state, now(), 'update', '{}'
FROM generate_series(1, 20000) n;
INSERT INTO enterprise_connection_requests (server, role, origin, operation, key, lane, params)
SELECT 'clerk', current_user, enterprise_connection_origin(), 'upsert', 'new:' || n, 'key new:' || n, jsonb_build_object('name', 'New ' || n, 'domains', jsonb_build_array('N' || n || '.example'))
FROM generate_series(1, 500) n;
CREATE TABLE regress_orgs AS SELECT n AS id, 'org:' || n AS key FROM generate_series(1, 20000) n;
ALTER TABLE regress_orgs ADD PRIMARY KEY (id);
VACUUM ANALYZE enterprise_connections, enterprise_connection_requests, regress_orgs;
GRANT SELECT ON regress_orgs TO regress_usage;
CREATE FUNCTION pg_temp.plan(query text, OUT rows bigint, OUT scans text, OUT jit boolean) LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    jit := false;
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        IF line ~ 'Seq Scan on (enterprise_connections|enterprise_connection_requests|regress_orgs)' THEN
            scans := concat_ws(', ', scans, trim(line));
        END IF;
        jit := jit OR line ~ '^ *JIT|Gather';
    END LOOP;
    EXECUTE 'SELECT count(*) FROM (' || query || ') q' INTO rows;
END
$$;
SET ROLE regress_usage;
SELECT query, (pg_temp.plan(query)).* FROM (VALUES
    ('SELECT * FROM enterprise_connection_status WHERE key = ''org:5000'''),
    ('SELECT * FROM enterprise_connection_status WHERE key = ''new:50'''),
    ('SELECT * FROM enterprise_connection_status WHERE id = ''entconn_5000'''),
    ('SELECT * FROM enterprise_connection_status WHERE organization_id = ''org_5000'''),
    ('SELECT * FROM enterprise_connection_status WHERE name = ''Name 5000'''),
    ('SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY[''d5000.example'']'),
    ('SELECT * FROM enterprise_connection_status WHERE domains @> ''{d5000.example, e5000.example}'''),
    ('SELECT * FROM enterprise_connection_status WHERE ARRAY[''d5000.example''] <@ domains'),
    ('SELECT * FROM enterprise_connection_status WHERE ''d5000.example'' = ANY (domains)'),
    ('SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY[''n50.example'']'),
    ('SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY[''l77.example'']'),
    ('SELECT * FROM enterprise_connection_status WHERE domains @> ARRAY[''nobody.example'']'),
    ('SELECT o.id, s.state FROM regress_orgs o CROSS JOIN LATERAL (SELECT * FROM enterprise_connection_status s WHERE s.key = ''org:'' || o.id LIMIT 1) s WHERE o.id = 77'),
    ('SELECT o.id, (SELECT s.state FROM enterprise_connection_status s WHERE s.key = o.key) FROM regress_orgs o WHERE o.id < 10'),
    ('SELECT * FROM enterprise_connection_queue')) q (query);
-- with parameters, in a generic plan
SET plan_cache_mode = force_generic_plan;
PREPARE by_domain(text) AS SELECT key, state FROM enterprise_connection_status WHERE domains @> ARRAY[$1];
PREPARE by_domains(text[]) AS SELECT key, state FROM enterprise_connection_status WHERE domains @> $1;
EXECUTE by_domain('d300.example');
EXECUTE by_domain(NULL);
EXECUTE by_domains('{d400.example}');
EXECUTE by_domains(NULL);
RESET plan_cache_mode;
RESET ROLE;

-- as it was
DROP TABLE regress_orgs;
ALTER SERVER clerk OPTIONS (DROP max_concurrency);
REVOKE ALL ON FOREIGN SERVER clerk FROM regress_owner, regress_usage;
REVOKE ALL ON SCHEMA box FROM regress_owner;
DROP ROLE regress_owner, regress_usage, regress_nobody, regress_monitor;
CALL box.start_over();
