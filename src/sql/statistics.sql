/*
 * What was asked of each server, and how it was answered.  The counters are in
 * shared memory.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_counters(server oid,
	OUT creates bigint,
	OUT updates bigint,
	OUT gets bigint,
	OUT lists bigint,
	OUT deletes bigint,
	OUT test_runs bigint,
	OUT answers_2xx bigint,
	OUT answers_4xx bigint,
	OUT answers_429 bigint,
	OUT answers_5xx bigint,
	OUT answers_other bigint,
	OUT network_failures bigint,
	OUT shortages bigint,
	OUT retries bigint,
	OUT in_doubt bigint,
	OUT looked_up bigint,
	OUT adopted bigint,
	OUT pace_time double precision,
	OUT answer_time double precision,
	OUT max_answer_time double precision,
	OUT answer_time_histogram bigint[],
	OUT last_mirror timestamptz,
	OUT stats_reset timestamptz)
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_counters(oid)
IS 'counters of a server, for who has USAGE on it or is a member of pg_monitor; for pg_clerk''s own use';

CREATE VIEW @extschema@.enterprise_connection_stats WITH (security_barrier) AS
SELECT s.srvname AS server, c.*
FROM pg_catalog.pg_foreign_server s
	JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'pg_clerk'
	CROSS JOIN LATERAL pg_catalog.enterprise_connection_counters(s.oid) c
WHERE pg_has_role('pg_monitor', 'USAGE') OR has_server_privilege(s.oid, 'USAGE');
COMMENT ON VIEW @extschema@.enterprise_connection_stats
IS 'what was asked of each server since the last reset, and how Clerk answered: of all processes with shared_preload_libraries, else of this session';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.server IS 'name of the foreign server, which stands for a Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.creates IS 'POST requests that create a connection; each attempt counts, here and in the next five columns';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.updates IS 'PATCH requests that change a connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.gets IS 'GET requests of one connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.lists IS 'GET requests of a page of connections';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.deletes IS 'DELETE requests of a connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.test_runs IS 'requests that create or list test runs';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answers_2xx IS 'answers with a status of success';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answers_4xx IS 'answers with a status of 400 to 499, but 429';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answers_429 IS 'answers with status 429: too many requests';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answers_5xx IS 'answers with a status of 500 to 599';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answers_other IS 'answers with any other status, such as redirects';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.network_failures IS 'requests without a whole answer: no connection, the time was up, the connection broke, or the answer was too large';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.shortages IS 'requests for which the process had no free socket: nothing was sent';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.retries IS 'requests that were sent again because an attempt before came to nothing';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.in_doubt IS 'creations whose answer did not come, or did not tell whether the connection exists';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.looked_up IS 'requests of the outbox in doubt that were looked up at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.adopted IS 'connections that were found at Clerk, made by an attempt before, and adopted';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.pace_time IS 'time that requests waited for rate_limit, or because Clerk had answered 429, in milliseconds; of each process, the time in which at least one waited';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answer_time IS 'time from sending to the end of the answer, of all answers together, in milliseconds';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.max_answer_time IS 'longest time from sending to the end of an answer, in milliseconds';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.answer_time_histogram IS 'number of answers that took up to 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000 and 10000 milliseconds, and longer; each counts once';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.last_mirror IS 'when mirror_enterprise_connections() last came to its end';
COMMENT ON COLUMN @extschema@.enterprise_connection_stats.stats_reset IS 'when these counters were last reset; they begin anew when PostgreSQL is restarted';
GRANT SELECT ON @extschema@.enterprise_connection_stats TO PUBLIC;

CREATE FUNCTION @extschema@.enterprise_connection_stats_reset(server name DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enterprise_connection_stats_reset(name)
IS 'sets the counters of a server, or of all servers of this database, to zero';
REVOKE EXECUTE ON FUNCTION @extschema@.enterprise_connection_stats_reset(name) FROM PUBLIC;
