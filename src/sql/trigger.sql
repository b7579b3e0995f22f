CREATE FUNCTION @extschema@.sync_enterprise_connection() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.sync_enterprise_connection()
IS 'trigger function (AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW): enqueues what keeps the enterprise connection of a row equal to the row';
REVOKE EXECUTE ON FUNCTION @extschema@.sync_enterprise_connection() FROM PUBLIC;

CREATE FUNCTION @extschema@.backfill_enterprise_connections("table" regclass, trigger name) RETURNS bigint
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.backfill_enterprise_connections(regclass, name)
IS 'enqueues an upsert for each row that its sync_enterprise_connection trigger finds ready; returns their number';
