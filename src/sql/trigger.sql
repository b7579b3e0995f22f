CREATE FUNCTION @extschema@.sync_enterprise_connection() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.sync_enterprise_connection()
IS 'trigger function (AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW): enqueues what keeps the enterprise connection of a row equal to the row';
REVOKE EXECUTE ON FUNCTION @extschema@.sync_enterprise_connection() FROM PUBLIC;

CREATE FUNCTION @extschema@.plan_enterprise_connections(
	"table" regclass,
	trigger name,
	refresh boolean DEFAULT false)
RETURNS TABLE (key text, id text, change text, path text, wanted jsonb, actual jsonb)
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.plan_enterprise_connections(regclass, name, boolean)
IS 'what differs between a table with a sync_enterprise_connection trigger and what is tracked, a row for each parameter; refresh: mirrors first';

CREATE FUNCTION @extschema@.reconcile_enterprise_connections(
	"table" regclass,
	trigger name,
	refresh boolean DEFAULT true,
	adopt   boolean DEFAULT false,
	prune   boolean DEFAULT false,
	force   boolean DEFAULT false)
RETURNS TABLE (key text, id text, change text, path text, wanted jsonb, actual jsonb)
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.reconcile_enterprise_connections(regclass, name, boolean, boolean, boolean, boolean)
IS 'enqueues what mends the differences of plan_enterprise_connections(); adopt: connections that have a row''s domains; prune: deletes those whose rows are gone; force: sends every ready row';
