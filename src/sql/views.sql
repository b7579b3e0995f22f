/*
 * The certificates of SAML identity providers, as far as Clerk reports them.
 * A view runs as its owner, to whom row-level security does not apply, so it
 * repeats the predicate of the table's policy; members of pg_monitor see all.
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
		AND k.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
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
 * The views by which an operator sees how things are, and an application why.
 * Each shows what is of a server on which the reader has USAGE, and the requests
 * of roles whose privileges the reader has; members of pg_monitor see all.  The
 * reader's servers, and roles, are found once for each query.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_server_state(server name,
	OUT armed boolean, OUT held_until timestamptz, OUT rate_limit integer, OUT no_worker text, OUT remedy text)
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_server_state(name)
IS 'whether a server is armed, until when Clerk holds it back, how many requests a second it gets, and why no worker delivers here; for pg_clerk''s own use';

CREATE FUNCTION pg_catalog.enterprise_connection_search_support(internal) RETURNS internal
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_search_support(internal)
IS 'planner support: lets an index find what a query of enterprise_connection_status asks for; for pg_clerk''s own use';

CREATE FUNCTION pg_catalog.enterprise_connection_search(lane text, key text, id text, organization_id text, name text, domains text[])
RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE COST 0.01 SUPPORT pg_catalog.enterprise_connection_search_support AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_search(text, text, text, text, text, text[])
IS 'always true; the planner puts what a query of enterprise_connection_status asks for in its place; for pg_clerk''s own use';

CREATE FUNCTION pg_catalog.enterprise_connection_domains(params jsonb) RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_domains(jsonb)
IS 'the domains that the parameters of a request name, in lower case; for pg_clerk''s own use';

/*
 * Two parts: what is tracked, and the requests that are unfinished or have failed
 * and whose connection, or key, is not tracked.  Of a lane the last request is
 * shown, which is found by the front of the lanes' index, however many there are:
 * the last that is unfinished, or that has failed, whichever came later.  (In the
 * order of state and id, as only that index can answer.)  Otherwise, the one that
 * was delivered last.
 */
CREATE VIEW @extschema@.enterprise_connection_status WITH (security_barrier) AS
SELECT u.server, u.key, u.id, u.name, u.organization_id, u.domains, u.active, u.request, u.operation,
	CASE WHEN u.unfinished AND NOT @extschema@.enterprise_connection_is_armed(u.server) THEN 'held' ELSE u.state END AS state,
	u.attempts,
	CASE WHEN u.unfinished AND u.state <> 'sending' AND u.next_attempt_at < 'infinity' AND u.behind IS NULL
			AND @extschema@.enterprise_connection_is_armed(u.server)
		THEN u.next_attempt_at END AS next_attempt_at,
	CASE WHEN u.unfinished AND u.state <> 'sending' THEN (
		SELECT CASE WHEN NOT s.armed THEN 'until the server is armed in this database: SELECT arm_enterprise_connections(' || quote_literal(u.server) || ')'
			WHEN s.no_worker IS NOT NULL THEN 'for a worker: ' || s.no_worker
			WHEN u.behind IS NOT NULL THEN 'for request ' || u.behind || ' of the same key or connection'
			WHEN p.reason IS NOT NULL THEN 'until Clerk accepts the secret key, since ' || date_trunc('second', p.since) || ': ' || p.reason
			WHEN s.held_until > clock_timestamp() THEN 'until ' || date_trunc('second', s.held_until) || ', as Clerk has answered 429 (too many requests)'
			WHEN u.next_attempt_at > clock_timestamp() AND u.state = 'in_doubt' THEN 'until ' || date_trunc('second', u.next_attempt_at) || ', to look up whether it was made'
			WHEN u.next_attempt_at > clock_timestamp() THEN 'until ' || date_trunc('second', u.next_attempt_at) || ', to be tried again' END
		FROM pg_catalog.enterprise_connection_server_state(u.server) s
			LEFT JOIN @extschema@.enterprise_connection_pauses p ON p.server = u.server) END AS waits,
	u.enqueued_at, u.finished_at, u.http_status, u.error->>'sqlstate' AS sqlstate, u.error->>'message' AS error,
	u.error->>'detail' AS detail, u.error->>'hint' AS hint, u.synced_at
FROM (SELECT NULL::text COLLATE "C" AS lane, c.server, c.key, c.id, c.name, c.organization_id, c.domains, c.active,
		coalesce(r.id, c.request) AS request, r.operation::text AS operation,
		CASE WHEN r.id IS NOT NULL THEN r.state::text WHEN c.request IS NOT NULL THEN 'delivered' END AS state,
		r.id IS NOT NULL AND r.finished_at IS NULL AS unfinished, r.attempts, r.next_attempt_at,
		CASE WHEN r.state IN ('queued', 'in_doubt') THEN nullif((
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = r.server AND x.lane = r.lane
					AND x.state <= 'queued' ORDER BY x.state, x.id LIMIT 1), r.id) END AS behind,
		r.created_at AS enqueued_at, r.finished_at, r.http_status, r.error, c.synced_at
	FROM @extschema@.enterprise_connections c
		LEFT JOIN @extschema@.enterprise_connection_requests o ON o.server = c.server AND o.lane = coalesce('key ' || c.key, 'id ' || c.id)
			AND o.state <= 'failed' AND o.id = greatest((
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = o.server AND x.lane = o.lane
					AND x.state <= 'queued' ORDER BY x.state DESC, x.id DESC LIMIT 1), (
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = o.server AND x.lane = o.lane
					AND x.state > 'queued' AND x.state <= 'failed' ORDER BY x.state DESC, x.id DESC LIMIT 1))
		LEFT JOIN @extschema@.enterprise_connection_requests r ON r.id = coalesce(o.id, c.request)
	WHERE c.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
	UNION ALL
	SELECT r.lane, r.server, coalesce(r.key, CASE WHEN r.lane LIKE 'key %' THEN substr(r.lane, 5) END COLLATE "default"),
		r.connection_id COLLATE "C", r.params->>'name', r.params->>'organization_id',
		pg_catalog.enterprise_connection_domains(r.params),
		CASE jsonb_typeof(r.params->'active') WHEN 'boolean' THEN (r.params->'active')::boolean END,
		r.id, r.operation::text, r.state::text, r.finished_at IS NULL, r.attempts, r.next_attempt_at,
		CASE WHEN r.state IN ('queued', 'in_doubt') THEN nullif((
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = r.server AND x.lane = r.lane
					AND x.state <= 'queued' ORDER BY x.state, x.id LIMIT 1), r.id) END,
		r.created_at, r.finished_at, r.http_status, r.error, NULL::timestamptz
	FROM @extschema@.enterprise_connection_requests r
		CROSS JOIN LATERAL (SELECT greatest((
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = r.server AND x.lane = r.lane
					AND x.state <= 'queued' ORDER BY x.state DESC, x.id DESC LIMIT 1), (
				SELECT x.id FROM @extschema@.enterprise_connection_requests x WHERE x.server = r.server AND x.lane = r.lane
					AND x.state > 'queued' AND x.state <= 'failed' ORDER BY x.state DESC, x.id DESC LIMIT 1)) AS id,
			CASE WHEN r.lane LIKE 'key %' THEN EXISTS (SELECT FROM @extschema@.enterprise_connections c
					WHERE c.server = r.server AND c.key = substr(r.lane, 5) COLLATE "default" OFFSET 0)
				ELSE EXISTS (SELECT FROM @extschema@.enterprise_connections c
					WHERE c.server = r.server AND c.id = substr(r.lane, 4) AND c.key IS NULL OFFSET 0) END AS tracked OFFSET 0) l
	WHERE r.state <= 'failed' AND (r.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
			OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
				THEN r.role_oid IN (SELECT o.oid FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE'))
				ELSE r.role IN (SELECT o.rolname FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE')) END)
		AND (r.lane IS NULL OR r.id = l.id)
		AND NOT (l.tracked AND r.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))))
) u
WHERE pg_catalog.enterprise_connection_search(u.lane, u.key, u.id, u.organization_id, u.name, u.domains);
COMMENT ON VIEW @extschema@.enterprise_connection_status
IS 'each connection and each key, created or not, with its last request: its state, and why; found by key, id, domain (domains @> ARRAY[...]), organization_id or name in milliseconds';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.key IS 'the caller''s own identity for the connection; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.id IS 'id of the connection at Clerk; null as long as it is not known';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.name IS 'display name of the connection, or the one that was asked for if it was never created';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.organization_id IS 'the Clerk organization that it is linked to, or is to be';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.domains IS 'e-mail domains whose users sign in through it, or that were asked for, in lower case';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.request IS 'number of the last request; null if there was none';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.operation IS 'what the last request does; null if it was deleted after pg_clerk.retention';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.state IS 'state of the last request: as in enterprise_connection_requests, or held (unfinished, but the server is not armed for this database)';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.attempts IS 'number of attempts of the last request';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.next_attempt_at IS 'not sent before this time, if it is queued or in doubt; null if it is held, or stands behind another';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.waits IS 'what an unfinished request waits for; null if for nothing but its turn';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.enqueued_at IS 'when the last request was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.finished_at IS 'when the last request was finished';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.http_status IS 'HTTP status of the last answer to it';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.sqlstate IS 'SQLSTATE of the error of its last attempt, which await_enterprise_connection() would raise';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.error IS 'why its last attempt failed';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.detail IS 'each of Clerk''s errors, and the trace id';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.hint IS 'what can be done about the error';
COMMENT ON COLUMN @extschema@.enterprise_connection_status.synced_at IS 'when an answer of Clerk was last written to the tracking table';
GRANT SELECT ON @extschema@.enterprise_connection_status TO PUBLIC;

CREATE VIEW @extschema@.enterprise_connection_queue WITH (security_barrier) AS
SELECT q.server, CASE WHEN s.armed OR q.state = 'failed' THEN q.state::text ELSE 'held' END AS state,
	sum(q.requests)::bigint AS requests, min(q.oldest) AS oldest,
	s.held_until, CASE WHEN s.held_until IS NOT NULL THEN 'Clerk has answered 429 (too many requests)' END AS held_why,
	p.since AS paused_since, p.reason AS paused_why,
	CASE WHEN s.armed AND q.state IN ('queued', 'in_doubt') AND p.server IS NULL
		THEN date_trunc('second', make_interval(secs => ceil(sum(q.requests)::float8 / s.rate_limit)) + coalesce(s.held_until - clock_timestamp(), '0')) END AS estimate
FROM (SELECT r.server, r.state, count(*) AS requests, min(r.created_at) AS oldest
		FROM @extschema@.enterprise_connection_requests r
		WHERE r.state <= 'failed' AND (r.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
			OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
				THEN r.role_oid IN (SELECT o.oid FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE'))
				ELSE r.role IN (SELECT o.rolname FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE')) END)
		GROUP BY r.server, r.state) q
	CROSS JOIN LATERAL pg_catalog.enterprise_connection_server_state(q.server) s
	LEFT JOIN @extschema@.enterprise_connection_pauses p ON p.server = q.server
GROUP BY q.server, CASE WHEN s.armed OR q.state = 'failed' THEN q.state::text ELSE 'held' END, q.state IN ('queued', 'in_doubt'),
	s.armed, s.held_until, s.rate_limit, p.server;
COMMENT ON VIEW @extschema@.enterprise_connection_queue
IS 'how many requests of each server are unfinished, or have failed, and what holds them up';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.state IS 'sending, in_doubt, queued, failed, or held (unfinished, but the server is not armed for this database)';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.requests IS 'number of requests in this state';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.oldest IS 'when the oldest of them was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.held_until IS 'until when nothing is sent to the server because Clerk has said so, unless resume_enterprise_connections() ends it; null if it is not held back, and without preload if no call of this session was';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.held_why IS 'why it is held back';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.paused_since IS 'since when the server''s requests wait because Clerk does not accept its secret key; null if they do not';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.paused_why IS 'why it is paused';
COMMENT ON COLUMN @extschema@.enterprise_connection_queue.estimate IS 'the least time that they need, by the server''s rate_limit; null without one, or if nothing is sent';
GRANT SELECT ON @extschema@.enterprise_connection_queue TO PUBLIC;

-- What waits too long, so that somebody should look: no one waits on purpose for
-- what is not bulk work.
CREATE VIEW @extschema@.enterprise_connection_health WITH (security_barrier) AS
WITH work AS (
	SELECT w.*, s.*, p.since, p.reason
	FROM (SELECT r.server, count(*) AS requests, min(r.id) AS request,
			min(r.created_at) FILTER (WHERE r.priority <= 0) AS oldest,
			min(greatest(r.created_at, r.next_attempt_at)) FILTER (WHERE r.state = 'queued' AND r.next_attempt_at <= clock_timestamp()) AS due,
			count(*) FILTER (WHERE r.state = 'in_doubt' AND r.attempts > 1 AND r.error->>'sqlstate' NOT IN ('KC007', 'KC422')) AS doubts,
			max(r.id) FILTER (WHERE r.state = 'in_doubt' AND r.attempts > 1 AND r.error->>'sqlstate' NOT IN ('KC007', 'KC422')) AS doubt
		FROM @extschema@.enterprise_connection_requests r
		WHERE r.finished_at IS NULL AND (r.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
			OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
				THEN r.role_oid IN (SELECT o.oid FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE'))
				ELSE r.role IN (SELECT o.rolname FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE')) END)
		GROUP BY r.server) w
	CROSS JOIN LATERAL pg_catalog.enterprise_connection_server_state(w.server) s
	LEFT JOIN @extschema@.enterprise_connection_pauses p ON p.server = w.server
)
SELECT h.severity, h.what, h.server, r.key, h.request, h.message, h.hint
FROM (SELECT 'error' AS severity, 'failed' AS what, r.server, r.id AS request, r.error->>'message' AS message,
		concat_ws(' ', r.error->>'hint', CASE WHEN r.scrubbed THEN format('Enqueue it anew, or SELECT cancel_enterprise_connection_request(%s).', r.id)
			ELSE format('SELECT retry_enterprise_connection_request(%s) tries it again; cancel_enterprise_connection_request(%s) gives it up.', r.id, r.id) END) AS hint
	FROM @extschema@.enterprise_connection_requests r
	WHERE r.state > 'queued' AND r.state <= 'failed' AND (r.server = ANY (ARRAY(SELECT s.srvname FROM pg_foreign_server s
				WHERE has_server_privilege(s.oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')))
			OR CASE WHEN r.origin = pg_catalog.enterprise_connection_origin()
				THEN r.role_oid IN (SELECT o.oid FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE'))
				ELSE r.role IN (SELECT o.rolname FROM pg_roles o WHERE pg_has_role(o.oid, 'USAGE')) END)
	UNION ALL
	SELECT 'error', 'not armed', w.server, w.request, format('%s requests are held: the server is not armed in this database', w.requests),
		format('In a copy, leave it so. If this database is the one that speaks to Clerk: SELECT arm_enterprise_connections(%L).', w.server)
	FROM work w WHERE NOT w.armed
	UNION ALL
	SELECT 'error', 'no worker', w.server, w.request, format('%s requests wait: %s', w.requests, w.no_worker), w.remedy
	-- without preload, something calls deliver_enterprise_connections() now and then
	FROM work w WHERE w.armed AND w.no_worker IS NOT NULL
		AND (w.due < clock_timestamp() - interval '1 minute' OR w.no_worker NOT LIKE 'pg_clerk is not in%')
	UNION ALL
	SELECT 'error', 'paused', w.server, w.request, format('%s requests wait since %s: %s', w.requests, date_trunc('second', w.since), w.reason),
		format('Set the right key: ALTER USER MAPPING FOR PUBLIC SERVER %I OPTIONS (SET secret_key ''...''). If the key was right: SELECT resume_enterprise_connections(%L).', w.server, w.server)
	FROM work w WHERE w.armed AND w.since IS NOT NULL
	UNION ALL
	SELECT 'warning', 'held back', w.server, w.request, format('%s requests wait until %s: Clerk has answered 429 (too many requests)', w.requests, date_trunc('second', w.held_until)),
		format('Lower the option rate_limit of server %I. SELECT resume_enterprise_connections(%L) does not wait.', w.server, w.server)
	FROM work w WHERE w.armed AND w.since IS NULL AND w.held_until > clock_timestamp() + interval '30 seconds'
	UNION ALL
	SELECT 'error', 'look-up', w.server, w.doubt, format('%s requests may have made a connection, and looking that up fails: %s', w.doubts, r.error->>'message'),
		concat_ws(' ', r.error->>'hint', 'It is looked up again, less and less often. ALTER SERVER or ALTER USER MAPPING may mend the cause.')
	FROM work w JOIN @extschema@.enterprise_connection_requests r ON r.id = w.doubt WHERE w.armed AND w.since IS NULL
	UNION ALL
	SELECT CASE WHEN w.oldest < clock_timestamp() - interval '1 hour' THEN 'error' ELSE 'warning' END, 'waiting', w.server, w.request,
		format('%s requests are unfinished, the oldest since %s', w.requests, date_trunc('second', w.oldest)),
		format('Why: SELECT * FROM enterprise_connection_status WHERE state IN (''queued'', ''in_doubt''). SELECT retry_enterprise_connection_requests(%L) tries at once what waits for another attempt.', w.server)
	FROM work w WHERE w.armed AND w.since IS NULL AND w.no_worker IS NULL AND w.held_until IS NULL
		AND w.oldest < clock_timestamp() - interval '5 minutes') h
	LEFT JOIN LATERAL (SELECT q.key FROM @extschema@.enterprise_connection_requests q WHERE q.id = h.request LIMIT 1) r ON true
UNION ALL
SELECT CASE WHEN c.expires_at < clock_timestamp() THEN 'error' ELSE 'warning' END, 'certificate', c.server, c.key, NULL,
	format('the certificate of %s (%s) expires at %s', c.name, c.id, date_trunc('second', c.expires_at)),
	'The customer''s identity provider has to renew it: update saml.idp_certificate or saml.idp_metadata.'
FROM @extschema@.enterprise_connection_certificates c
WHERE c.expires_at < clock_timestamp() + interval '30 days' AND c.active IS NOT FALSE;
COMMENT ON VIEW @extschema@.enterprise_connection_health
IS 'a row for each thing that needs a person, none if all is well; to be alerted on';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.severity IS 'error or warning';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.what IS 'failed, not armed, no worker, paused, held back, look-up, waiting or certificate';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.key IS 'the caller''s own identity for the connection; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.request IS 'number of the request, or of the first of them; null if it is about none';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.message IS 'what is wrong';
COMMENT ON COLUMN @extschema@.enterprise_connection_health.hint IS 'what to do about it, with the statement';
GRANT SELECT ON @extschema@.enterprise_connection_health TO PUBLIC;
