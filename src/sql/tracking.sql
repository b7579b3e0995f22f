/*
 * The tracking table: one row for each connection that is known to exist.
 */
CREATE TABLE @extschema@.enterprise_connections (
	server               name NOT NULL,
	id                   text COLLATE "C" NOT NULL,
	key                  text,
	organization_id      text,
	name                 text,
	provider             text,
	domains              text[],
	active               boolean,
	sync_user_attributes boolean,
	connection           jsonb NOT NULL,
	created_at           timestamptz,
	updated_at           timestamptz,
	request              bigint,
	synced_at            timestamptz NOT NULL,
	reactivate           boolean NOT NULL DEFAULT false,
	PRIMARY KEY (server, id)
);
COMMENT ON TABLE @extschema@.enterprise_connections
IS 'enterprise connections as they were last seen at Clerk; only pg_clerk writes to it';
COMMENT ON COLUMN @extschema@.enterprise_connections.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connections.id IS 'id of the connection at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.key IS 'the caller''s own identity for the connection, unique for each server; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connections.organization_id IS 'the Clerk organization that it is linked to';
COMMENT ON COLUMN @extschema@.enterprise_connections.name IS 'display name';
COMMENT ON COLUMN @extschema@.enterprise_connections.provider IS 'identity provider, such as saml_okta or oidc_custom';
COMMENT ON COLUMN @extschema@.enterprise_connections.domains IS 'e-mail domains whose users sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connections.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connections.sync_user_attributes IS 'whether users'' attributes are updated at each sign-in';
COMMENT ON COLUMN @extschema@.enterprise_connections.connection IS 'the whole object, as Clerk''s API answered it';
COMMENT ON COLUMN @extschema@.enterprise_connections.created_at IS 'when it was created at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.updated_at IS 'when it was last changed at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.reactivate IS 'it was active when its row stopped being ready, and is to be active again with the row';
COMMENT ON COLUMN @extschema@.enterprise_connections.request IS 'number of the request of the outbox that was last delivered to it; null if it was changed by direct calls or at Clerk alone';
COMMENT ON COLUMN @extschema@.enterprise_connections.synced_at IS 'when an answer of Clerk was last written to this row';

-- Key first, so that no plan takes it for the primary key.  A row without a key,
-- or without an organization, costs no index entry.
CREATE UNIQUE INDEX enterprise_connections_key_server_key
	ON @extschema@.enterprise_connections (key, server) WHERE key IS NOT NULL;
CREATE INDEX enterprise_connections_organization_id_idx
	ON @extschema@.enterprise_connections (organization_id) WHERE organization_id IS NOT NULL;
CREATE INDEX enterprise_connections_name_idx
	ON @extschema@.enterprise_connections USING hash (name);
-- Finds the connection that has a domain which Clerk refuses.  Not for lists of
-- domains longer than anybody has: writing hundreds of thousands of entries
-- would hold up everybody else.
CREATE INDEX enterprise_connections_domains_idx
	ON @extschema@.enterprise_connections USING gin (domains) WHERE cardinality(domains) <= 5000;
CREATE INDEX enterprise_connections_long_domains_idx
	ON @extschema@.enterprise_connections (server) WHERE cardinality(domains) > 5000;
CREATE STATISTICS @extschema@.enterprise_connections_domains_stats
	ON (cardinality(domains)) FROM @extschema@.enterprise_connections;
COMMENT ON STATISTICS @extschema@.enterprise_connections_domains_stats
IS 'how long the lists of domains are: without this, the planner expects many of more than 5000';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connections', '');

/*
 * A role with USAGE on a server sees the server's rows.  The subquery runs once
 * for each query, not for each row.  A server that was dropped is simply not in
 * it, where has_server_privilege() by name would raise an error.
 */
ALTER TABLE @extschema@.enterprise_connections ENABLE ROW LEVEL SECURITY;
CREATE POLICY server_usage ON @extschema@.enterprise_connections FOR SELECT
USING (server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s
				  WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE')));
GRANT SELECT ON @extschema@.enterprise_connections TO PUBLIC;

/*
 * Merges two documents, at every level.  Of a connection: an answer can lack
 * members that an earlier one had, as Clerk leaves details out of some, and these
 * must stay.  Of parameters: what two upserts of a key, one after the other, ask
 * for.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_merge(older jsonb, newer jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_merge(jsonb, jsonb)
IS 'the older document with the newer one merged in, at every level; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_merge(jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.track_enterprise_connection(connection jsonb, server name, key text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.track_enterprise_connection(jsonb, name, text)
IS 'writes a connection, as Clerk''s API answers it, to the tracking table; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION @extschema@.track_enterprise_connection(jsonb, name, text) FROM PUBLIC;
