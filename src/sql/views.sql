/*
 * The certificates of SAML identity providers, as far as Clerk reports them.
 * A view runs as its owner, to whom row-level security does not apply: so it
 * repeats the table's predicate.
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
GRANT SELECT ON @extschema@.enterprise_connection_certificates TO PUBLIC;

/*
 * What an operator looks at.
 */
CREATE VIEW @extschema@.enterprise_connection_status WITH (security_barrier) AS
SELECT coalesce(c.server, q.server) AS server, coalesce(c.key, q.key) AS key,
	coalesce(c.id, q.connection_id) AS id, c.name, c.organization_id, c.domains, c.active,
	q.id AS request, q.operation, q.shown_state AS state, q.attempts,
	-- of what is held, or stands behind another, there is no next attempt
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
IS 'each connection, or key, with its last request: what state it is in, and why';
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
GRANT SELECT ON @extschema@.enterprise_connection_queue TO PUBLIC;
