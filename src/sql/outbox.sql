/*
 * The outbox: requests that are delivered after commit.  The states are drawn
 * in src/outbox/states.c.  Their order matters: a request that may be on its way
 * sorts first, so that the first unfinished row of a lane tells whether the lane
 * is busy, and if it is not, which request is next.  finished_at is null just as
 * long as the state is at most queued.  No CHECK demands it: only pg_clerk writes
 * here, and CHECKs would be a tenth of what enqueueing a row costs.
 */
CREATE TYPE @extschema@.enterprise_connection_operation AS ENUM (
	'create', 'update', 'upsert', 'delete', 'deactivate', 'reactivate');
COMMENT ON TYPE @extschema@.enterprise_connection_operation IS 'what a request of the outbox does; deactivate and reactivate: of a trigger whose row stops being ready, or is ready again';

CREATE TYPE @extschema@.enterprise_connection_step AS ENUM ('create', 'complete', 'update', 'delete');
COMMENT ON TYPE @extschema@.enterprise_connection_step IS 'what one attempt of a request does; complete is the PATCH that follows a create';

CREATE TYPE @extschema@.enterprise_connection_state AS ENUM (
	'sending', 'in_doubt', 'queued', 'failed', 'delivered', 'superseded', 'cancelled');
COMMENT ON TYPE @extschema@.enterprise_connection_state IS 'state of a request of the outbox; the first three are unfinished';

CREATE TABLE @extschema@.enterprise_connection_requests (
	id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server          name NOT NULL,
	server_oid      oid NOT NULL DEFAULT 0,
	role            name NOT NULL,
	role_oid        oid NOT NULL DEFAULT 0,
	origin          bigint NOT NULL DEFAULT 0,
	timeline        integer NOT NULL DEFAULT 0,
	operation       @extschema@.enterprise_connection_operation NOT NULL,
	key             text,
	connection_id   text,
	params          jsonb,
	priority        smallint NOT NULL DEFAULT 0,
	state           @extschema@.enterprise_connection_state NOT NULL DEFAULT 'queued',
	step            @extschema@.enterprise_connection_step,
	attempts        integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
	started_at      timestamptz,
	finished_at     timestamptz,
	http_status     integer,
	error           jsonb,
	doubt_since     timestamptz,
	lane            text COLLATE "C",
	claimer         integer,
	superseded_by   bigint,
	scrubbed        boolean NOT NULL DEFAULT false,
	xact            xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()
)
-- A row is updated twice, which is cheaper where there is room in its page.
WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.enterprise_connection_requests
IS 'the outbox: requests to Clerk, delivered after commit; only pg_clerk writes to it';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.id IS 'number of the request, as enqueue_enterprise_connection() returns it';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.server_oid IS 'oid of the server, in the database in which the request was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role IS 'the role that enqueued it; it needs USAGE on the server at delivery, too';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role_oid IS 'oid of the role, in the database in which the request was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.origin IS 'fingerprint of the database in which it was enqueued; in that database its role is known by role_oid, so that a new role of an old name inherits nothing, elsewhere by name';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.timeline IS 'timeline of the database cluster when it was enqueued; a create of another origin, server_oid or timeline may have been sent from there and is looked up first; 0: it may have been sent from here';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.operation IS 'create, update, upsert or delete';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.key IS 'the caller''s own identity for the connection; requests of one key are delivered in order';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.connection_id IS 'id of the connection at Clerk, once it is known';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.params IS 'the parameters; the secrets in them are removed when the request is delivered, superseded or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.priority IS 'requests that are due are sent in the order of this number; bulk work has a higher one than what people wait for';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.state IS 'queued, sending, in_doubt (the outcome is unknown and is looked up), failed, delivered, superseded or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.step IS 'what the last attempt did: create, complete (the PATCH that follows a create), update or delete';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.attempts IS 'number of attempts that count towards pg_clerk.max_attempts';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.next_attempt_at IS 'not sent before this time; while it is sending: the time after which it cannot be on its way; infinity: queued again when the request before it is finished';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.created_at IS 'when it was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.started_at IS 'when the last attempt began';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.finished_at IS 'when it was delivered, failed, superseded or cancelled; null while it is unfinished';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.http_status IS 'HTTP status of the last answer';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.error IS 'why the last attempt failed: sqlstate, message, detail, hint, status, trace_id, errors';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.doubt_since IS 'when the create was sent whose outcome is unknown';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.lane IS 'what is delivered in order: the requests of a key, or of an id';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.claimer IS 'number of the process that delivers it';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.superseded_by IS 'the later request of its key that took over its parameters, or that was sent after this one had failed';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.scrubbed IS 'whether it failed so long ago that the secrets were removed from its params';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.xact IS 'the transaction that enqueued it';

-- requests that are due
CREATE INDEX enterprise_connection_requests_due_idx ON @extschema@.enterprise_connection_requests
	(server, priority, next_attempt_at, id) WHERE finished_at IS NULL;
-- the order in a lane, and what has failed there; and all that is unfinished or has failed
CREATE INDEX enterprise_connection_requests_lane_idx ON @extschema@.enterprise_connection_requests
	(server, lane, state, id) WHERE state <= 'failed';
-- lanes in which something waits for the one before it
CREATE INDEX enterprise_connection_requests_behind_idx ON @extschema@.enterprise_connection_requests
	(server, lane) WHERE finished_at IS NULL AND next_attempt_at = 'infinity';
-- requests to be purged or scrubbed
CREATE INDEX enterprise_connection_requests_finished_idx ON @extschema@.enterprise_connection_requests
	(finished_at) WHERE finished_at IS NOT NULL AND NOT scrubbed;
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connection_requests', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connection_requests_id_seq', '');

ALTER TABLE @extschema@.enterprise_connection_requests ENABLE ROW LEVEL SECURITY;
CREATE POLICY role_usage ON @extschema@.enterprise_connection_requests FOR SELECT
USING (CASE WHEN origin = pg_catalog.enterprise_connection_origin()
	THEN role_oid IN (SELECT o.oid FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE'))
	ELSE role IN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')) END);
GRANT SELECT ON @extschema@.enterprise_connection_requests TO PUBLIC;
-- pg_dump reads it, run by any role
GRANT SELECT ON SEQUENCE @extschema@.enterprise_connection_requests_id_seq TO PUBLIC;
COMMENT ON SEQUENCE @extschema@.enterprise_connection_requests_id_seq
IS 'numbers of requests of the outbox';

/*
 * Servers that are paused, because Clerk does not accept the secret key.  Not
 * dumped: a copy finds out for itself.
 */
CREATE TABLE @extschema@.enterprise_connection_pauses (
	server    name PRIMARY KEY,
	since     timestamptz NOT NULL,
	reason    text NOT NULL,
	probed_at timestamptz NOT NULL,
	settings  bigint NOT NULL
);
COMMENT ON TABLE @extschema@.enterprise_connection_pauses
IS 'servers whose requests wait because Clerk does not accept their secret key';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.server IS 'name of the foreign server';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.since IS 'when it was paused';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.reason IS 'why it was paused';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.probed_at IS 'when a request was last sent to find out whether the key is accepted; one a minute';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.settings IS 'version of the server''s settings that did not work; new settings are tried at once';
ALTER TABLE @extschema@.enterprise_connection_pauses ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION pg_catalog.enterprise_connection_without_secrets(params jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_without_secrets(jsonb)
IS 'parameters without the values that are secret; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_without_secrets(jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.enqueue_enterprise_connection(
	operation text,
	params    jsonb DEFAULT NULL,
	key       text DEFAULT NULL,
	id        text DEFAULT NULL,
	server    name DEFAULT NULL,
	priority  integer DEFAULT 0)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enqueue_enterprise_connection(text, jsonb, text, text, name, integer)
IS 'puts a create, update, upsert or delete into the outbox and returns its number; it is delivered after this transaction commits';

CREATE FUNCTION @extschema@.await_enterprise_connection(request bigint, timeout interval DEFAULT '30s')
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.await_enterprise_connection(bigint, interval)
IS 'waits until a request is delivered and returns the connection, or that it is deleted; raises the error of one that failed; NULL if the time is up';

CREATE FUNCTION @extschema@.retry_enterprise_connection_request(id bigint, params jsonb DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.retry_enterprise_connection_request(bigint, jsonb)
IS 'queues a failed request again, with new parameters if they are given; a queued one is tried now, unless it stands behind another; what may have been made is looked up first';

CREATE FUNCTION @extschema@.cancel_enterprise_connection_request(id bigint)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cancel_enterprise_connection_request(bigint)
IS 'cancels a request that is not being sent';

CREATE FUNCTION @extschema@.retry_enterprise_connection_requests(server name, error text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.retry_enterprise_connection_requests(name, text)
IS 'retries what has failed or waits for another attempt, in the order of each key; error: LIKE pattern of SQLSTATE or Clerk''s code; what may have been made is looked up first; returns how many';

CREATE FUNCTION @extschema@.cancel_enterprise_connection_requests(server name, error text DEFAULT NULL, key text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cancel_enterprise_connection_requests(name, text, text)
IS 'cancels what is queued or has failed, not what is sent or in doubt; error: LIKE pattern of SQLSTATE or Clerk''s code; key: LIKE pattern; what stands behind goes on; returns how many';

CREATE FUNCTION @extschema@.resume_enterprise_connections(server name)
RETURNS void
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.resume_enterprise_connections(name)
IS 'ends a hold by 429, or the wait for the next try of a refused key, as ALTER SERVER does; what was answered 429 is due now; changes no order and no doubt; only for the server''s owner';

CREATE PROCEDURE @extschema@.deliver_enterprise_connections()
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE @extschema@.deliver_enterprise_connections()
IS 'delivers in this session what is due in the outbox, of roles whose privileges the caller has';
