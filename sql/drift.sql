-- Drift: what is changed at Clerk behind the table's back is listed, and mended
-- with exactly the requests that it takes.
CALL box.start_over();
SET client_min_messages = error;
CREATE TABLE regress_drift (id int PRIMARY KEY, name text, domains text[], url text, sync boolean);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_drift FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=org:id', 'name=name', 'domains=domains', 'saml.idp_metadata_url=url', 'sync_user_attributes=sync');
INSERT INTO regress_drift SELECT n, 'Org ' || n, ARRAY['o' || n || '.example'], 'https://idp.example/' || n, true FROM generate_series(1, 40) AS n;
CALL deliver_enterprise_connections();
SELECT count(*) FROM plan_enterprise_connections('regress_drift', 'sso', refresh => true);
SELECT count(*) > 0 AS sent FROM box.sent();

-- A server that is the same instance, and of which the table knows nothing.
SELECT mock.url() AS url \gset
CREATE SERVER regress_behind FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_behind OPTIONS (secret_key 'sk_test_mock');
CREATE FUNCTION pg_temp.behind(org int, params jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT update_enterprise_connection((SELECT id FROM enterprise_connections WHERE server = 'clerk' AND key = 'org:' || org), params, 'regress_behind')
$$;
-- ten are changed
SELECT pg_temp.behind(1, '{"name": "Changed"}'), pg_temp.behind(2, '{"domains": ["changed.example"]}'), pg_temp.behind(3, '{"domains": ["o3.example", "more.example"]}'),
    pg_temp.behind(4, '{"saml": {"idp_metadata_url": "https://changed.example/m"}}'), pg_temp.behind(5, '{"saml": {"idp_metadata_url": null}}'),
    pg_temp.behind(6, '{"sync_user_attributes": false}'), pg_temp.behind(7, '{"name": "Changed", "domains": ["seven.example"], "sync_user_attributes": false}'),
    pg_temp.behind(8, '{"name": "org 8"}'), pg_temp.behind(9, '{"name": ""}'), pg_temp.behind(10, '{"domains": ["other.example"]}');
-- what the rows do not say may be as it likes
SELECT pg_temp.behind(11, '{"active": true, "organization_id": "org_x", "saml": {"force_authn": true}}'), pg_temp.behind(12, '{"domains": ["O12.EXAMPLE"]}');
-- two are deleted
SELECT delete_enterprise_connection(id, 'regress_behind') FROM enterprise_connections WHERE server = 'clerk' AND key IN ('org:21', 'org:22');
-- one is made, with the domain of a row that has none: it came as in a restore
ALTER TABLE regress_drift DISABLE TRIGGER sso;
INSERT INTO regress_drift VALUES (41, 'Org 41', '{o41.example}', 'https://idp.example/41', true);
ALTER TABLE regress_drift ENABLE TRIGGER sso;
SELECT create_enterprise_connection(name => 'Made there', domains => '{o41.example}', saml => '{"idp_metadata_url": "https://idp.example/41"}', sync_user_attributes => true, server => 'regress_behind') ->> 'id' AS id;
DROP SERVER regress_behind CASCADE;
SELECT count(*) > 0 AS sent FROM box.sent();

-- nothing of this is known until the connections are mirrored
SELECT key, change FROM plan_enterprise_connections('regress_drift', 'sso');
SELECT key, change, path, wanted, actual FROM plan_enterprise_connections('regress_drift', 'sso', refresh => true);
SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL;
SELECT method, count(*) FROM box.sent() GROUP BY 1 ORDER BY 1;
SELECT count(*), count(DISTINCT key) FROM reconcile_enterprise_connections('regress_drift', 'sso', adopt => true);
SELECT method, target FROM box.sent();
CALL deliver_enterprise_connections();
SELECT method, target, body, status FROM box.sent() ORDER BY method, target, body::text;
SELECT key, state, error->>'message' AS error FROM enterprise_connection_requests WHERE state NOT IN ('delivered', 'superseded');

-- a second run does nothing
SELECT * FROM reconcile_enterprise_connections('regress_drift', 'sso', adopt => true);
SELECT count(*) FROM enterprise_connection_requests WHERE finished_at IS NULL;
SELECT method, count(*) FROM box.sent() GROUP BY 1;
-- at Clerk is what the rows say
SELECT count(*), count(*) FILTER (WHERE m->>'name' = o.name AND m->'domains' = to_jsonb(o.domains) AND m->'saml_connection'->>'idp_metadata_url' = o.url AND (m->>'sync_user_attributes')::boolean = o.sync) AS as_wanted
FROM regress_drift AS o LEFT JOIN (enterprise_connections AS e JOIN mock.connections() AS m ON m->>'id' = e.id) ON e.key = 'org:' || o.id;
SELECT count(*) FROM mock.connections();

DROP TABLE regress_drift;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
