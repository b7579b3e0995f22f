/*
 * The certificates of SAML identity providers, as far as Clerk reports them.
 * A view runs as its owner, to whom row-level security does not apply, so it
 * repeats the predicate of the table's policy.
 */
CREATE VIEW @extschema@.enterprise_connection_certificates WITH (security_barrier) AS
SELECT c.server, c.id, c.key, c.name, c.organization_id, c.domains, c.active,
	c.certificate, c.issued_at, c.expires_at
FROM (
	SELECT k.*, k.connection->'saml_connection'->>'idp_certificate' AS certificate,
		CASE jsonb_typeof(k.connection->'saml_connection'->'idp_certificate_issued_at') WHEN 'number'
			THEN to_timestamp((k.connection->'saml_connection'->'idp_certificate_issued_at')::float8 / 1000) END AS issued_at,
		CASE jsonb_typeof(k.connection->'saml_connection'->'idp_certificate_expires_at') WHEN 'number'
			THEN to_timestamp((k.connection->'saml_connection'->'idp_certificate_expires_at')::float8 / 1000) END AS expires_at
	FROM @extschema@.enterprise_connections k
	WHERE jsonb_typeof(k.connection->'saml_connection') = 'object'
		AND k.server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s
						 WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE'))
) c
WHERE c.certificate IS NOT NULL OR c.expires_at IS NOT NULL;
COMMENT ON VIEW @extschema@.enterprise_connection_certificates
IS 'certificates of SAML identity providers and when they expire, as far as Clerk reports them';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.id IS 'id of the connection at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.key IS 'the caller''s own identity for the connection; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.name IS 'display name of the connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.organization_id IS 'the Clerk organization that it is linked to';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.domains IS 'e-mail domains whose users sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.certificate IS 'the certificate of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.issued_at IS 'when it was issued';
COMMENT ON COLUMN @extschema@.enterprise_connection_certificates.expires_at IS 'when it expires';
GRANT SELECT ON @extschema@.enterprise_connection_certificates TO PUBLIC;

/*
 * The views by which an operator sees how things are.
 */
CREATE VIEW @extschema@.enterprise_connection_status WITH (security_barrier) AS
SELECT coalesce(c.server, q.server) AS server, coalesce(c.key, q.key) AS key,
	coalesce(c.id, q.connection_id) AS id, c.name, c.organization_id, c.domains, c.active,
	q.id AS request, q.operation, q.shown_state AS state, q.attempts,
	-- a request that is held, or waits for another, has no next attempt
	CASE WHEN q.shown_state IN ('queued', 'in_doubt') AND q.next_attempt_at < 'infinity'
			AND NOT EXISTS (SELECT FROM @extschema@.enterprise_connection_requests b WHERE b.server = q.server AND b.lane = q.lane
				AND b.state <= 'queued' AND (b.state, b.id) < (q.state, q.id))
		THEN q.next_attempt_at END AS next_attempt_at, q.created_at AS enqueued_at,
	q.finished_at, q.http_status, q.error->>'message' AS error, q.error->>'hint' AS hint, c.synced_at
FROM (SELECT k.*, coalesce('key ' || k.key, 'id ' || k.id) AS lane FROM @extschema@.enterprise_connections k
	WHERE pg_has_role('pg_monitor', 'USAGE')
		OR k.server IN (SELECT s.srvname FROM pg_foreign_server s WHERE has_server_privilege(s.oid, 'USAGE'))) c
FULL JOIN (SELECT DISTINCT ON (r.server, coalesce(r.lane, 'id ' || r.connection_id, 'request ' || r.id))
		coalesce(r.lane, 'id ' || r.connection_id, 'request ' || r.id) AS request_lane,
		CASE WHEN r.finished_at IS NULL AND NOT @extschema@.enterprise_connection_is_armed(r.server) THEN 'held' ELSE r.state::text END AS shown_state, r.*
	FROM @extschema@.enterprise_connection_requests r
	WHERE pg_has_role('pg_monitor', 'USAGE')
		OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
			THEN r.role_oid IN (SELECT o.oid FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE'))
			ELSE r.role IN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')) END
	ORDER BY r.server, coalesce(r.lane, 'id ' || r.connection_id, 'request ' || r.id), r.id DESC) q
	ON q.server = c.server AND q.request_lane = c.lane;
COMMENT ON VIEW @extschema@.enterprise_connection_status
IS 'each connection, or key, with its last request: its state, and why';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.key IS 'the caller''s own identity for the connection; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.id IS 'id of the connection at Clerk; null as long as it is not created';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.name IS 'display name of the connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.organization_id IS 'the Clerk organization that it is linked to';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.domains IS 'e-mail domains whose users sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.request IS 'number of the last request; null if there is none';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.operation IS 'what the last request does: create, update, upsert or delete';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.state IS 'state of the last request: as in enterprise_connection_requests, or held (unfinished, but the server is not armed for this database)';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.attempts IS 'number of attempts of the last request';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.next_attempt_at IS 'when the last request is sent again, if it is queued or in doubt; null if it is held, or waits for another';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.enqueued_at IS 'when the last request was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.finished_at IS 'when the last request was finished';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.http_status IS 'HTTP status of the last answer to it';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.error IS 'why its last attempt failed';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.hint IS 'what can be done about the error';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.synced_at IS 'when an answer of Clerk was last written to the tracking table';
GRANT SELECT ON @extschema@.enterprise_connection_status TO PUBLIC;

CREATE VIEW @extschema@.enterprise_connection_queue WITH (security_barrier) AS
SELECT r.server, CASE WHEN r.finished_at IS NULL AND NOT a.armed THEN 'held' ELSE r.state::text END AS state, count(*) AS requests, min(r.created_at) AS oldest,
	p.since AS paused_since, p.reason AS paused_why
FROM @extschema@.enterprise_connection_requests r
	CROSS JOIN LATERAL @extschema@.enterprise_connection_is_armed(r.server) a (armed)
	LEFT JOIN @extschema@.enterprise_connection_pauses p ON p.server = r.server
WHERE pg_has_role('pg_monitor', 'USAGE')
	OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
			THEN r.role_oid IN (SELECT o.oid FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE'))
			ELSE r.role IN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')) END
GROUP BY 1, 2, p.since, p.reason;
COMMENT ON VIEW @extschema@.enterprise_connection_queue
IS 'how many requests of each server are in which state, and whether the server is paused';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.state IS 'state of the requests: as in enterprise_connection_requests, or held (unfinished, but the server is not armed for this database)';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.requests IS 'number of requests in this state';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.oldest IS 'when the oldest of them was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.paused_since IS 'since when the server''s requests wait because Clerk does not accept its secret key; null if they do not';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.paused_why IS 'why it is paused';
GRANT SELECT ON @extschema@.enterprise_connection_queue TO PUBLIC;
