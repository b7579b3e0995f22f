-- What a null says: the same in a direct upsert, in an enqueued one and in a
-- row's, before and after the connection is there.
CALL box.start_over();
SET client_min_messages = error;
CREATE TABLE regress_nulls (
    id           text PRIMARY KEY,
    name         text,
    domains      text,
    organization text,
    sync         boolean,
    url          text,
    entity       text,
    mapping      jsonb,
    attributes   jsonb);
CREATE TRIGGER sso AFTER INSERT OR UPDATE OR DELETE ON regress_nulls FOR EACH ROW
EXECUTE FUNCTION sync_enterprise_connection('key=row:id', 'name=name', 'domains=domains', 'organization_id=organization', 'sync_user_attributes=sync',
    'saml.idp_metadata_url=url', 'saml.idp_entity_id=entity', 'saml.attribute_mapping=mapping', 'custom_attributes=attributes');

-- The same upsert in three ways, under three keys.
CREATE FUNCTION pg_temp.upsert(id text, name text, organization text, sync boolean, url text, entity text, mapping jsonb, attributes jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    params jsonb := jsonb_build_object('name', name, 'organization_id', organization, 'sync_user_attributes', sync, 'custom_attributes', attributes,
        'saml', jsonb_build_object('idp_metadata_url', url, 'idp_entity_id', entity, 'attribute_mapping', mapping));
BEGIN
    PERFORM upsert_enterprise_connection('direct:' || id, params || jsonb_build_object('domains', jsonb_build_array('direct-' || id || '.example')));
    PERFORM enqueue_enterprise_connection('upsert', params || jsonb_build_object('domains', jsonb_build_array('outbox-' || id || '.example')), key => 'outbox:' || id);
    INSERT INTO regress_nulls VALUES (id, name, 'row-' || id || '.example', organization, sync, url, entity, mapping, attributes)
    ON CONFLICT ON CONSTRAINT regress_nulls_pkey DO UPDATE SET name = excluded.name, organization = excluded.organization, sync = excluded.sync,
        url = excluded.url, entity = excluded.entity, mapping = excluded.mapping, attributes = excluded.attributes;
END
$$;
-- What was sent, and by which of them.
CREATE FUNCTION pg_temp.sent() RETURNS TABLE (ways text, method text, status int, body jsonb) LANGUAGE sql AS $$
    WITH sent AS (SELECT s.*, coalesce(split_part(s.body->'domains'->>0, '-', 1), 'of a step') AS way, row_number() OVER () AS n FROM box.sent() AS s)
    SELECT string_agg(way, ', ' ORDER BY way), method, status, replace(body::text, way || '-', '')::jsonb AS body
    FROM sent GROUP BY 2, 3, 4 ORDER BY min(n)
$$;
-- What Clerk holds of them, the same thrice.
CREATE FUNCTION pg_temp.held() RETURNS TABLE (ways text, connection jsonb) LANGUAGE sql AS $$
    WITH held AS (SELECT split_part(m->'domains'->>0, '-', 1) AS way, m FROM mock.connections() AS m)
    SELECT string_agg(way, ', ' ORDER BY way), replace(jsonb_build_object('name', m->'name', 'provider', m->'provider', 'domains', m->'domains', 'organization_id', m->'organization_id',
        'sync_user_attributes', m->'sync_user_attributes', 'url', m->'saml_connection'->'idp_metadata_url', 'entity', m->'saml_connection'->'idp_entity_id')::text, way || '-', '')::jsonb
    FROM held GROUP BY 2 ORDER BY 2
$$;

-- created with nulls: they are not sent, but they tell the provider
SELECT pg_temp.upsert('a', 'A', NULL, NULL, NULL, NULL, NULL, NULL);
SELECT operation, key, params FROM enterprise_connection_requests ORDER BY id;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
-- updated with values
SELECT pg_temp.upsert('a', 'A', 'org_a', true, 'https://idp.example/a', 'entity', '{"user_id": "uid"}', '[{"name": "Dept", "key": "d", "sso_path": "x"}]');
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
-- updated with nulls: they are sent where Clerk takes them
SELECT pg_temp.upsert('a', 'A', NULL, NULL, NULL, NULL, NULL, NULL);
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
SELECT * FROM pg_temp.held();

-- values, then nulls, before the first delivery: what is enqueued becomes one create, so that the organization is never sent; what calls at once is an update
BEGIN;
SELECT pg_temp.upsert('b', 'B', 'org_b', true, 'https://idp.example/b', 'entity', NULL, NULL);
SELECT pg_temp.upsert('b', 'B 2', NULL, true, NULL, 'entity', NULL, NULL);
COMMIT;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
-- ... and after it, two that become one
BEGIN;
SELECT pg_temp.upsert('b', 'B 3', 'org_b', true, 'https://idp.example/b', NULL, NULL, NULL);
SELECT pg_temp.upsert('b', 'B 4', NULL, NULL, 'https://idp.example/b', NULL, NULL, NULL);
COMMIT;
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
SELECT * FROM pg_temp.held() WHERE connection->>'name' LIKE 'B%';

-- gone at Clerk: created anew, without nulls
SELECT mock.call('DELETE', '/_mock/connections') IS NOT NULL AS gone;
SELECT pg_temp.upsert('a', 'A again', NULL, NULL, NULL, NULL, NULL, NULL);
CALL deliver_enterprise_connections();
SELECT * FROM pg_temp.sent();
SELECT * FROM pg_temp.held();

DROP TABLE regress_nulls;
TRUNCATE enterprise_connections, enterprise_connection_requests;
RESET client_min_messages;
