\echo Use "CREATE EXTENSION pg_clerk" to load this file. \quit

/*
 * CREATE EXTENSION puts the extension's schema first in search_path, and there
 * anybody may have functions and operators of the names that are used here,
 * with arguments that match better than those of pg_catalog: they would run as
 * the superuser who installs.  So each script, an upgrade script too, begins
 * with this statement, and names of the extension's own are qualified.  LOCAL:
 * CREATE EXTENSION restores the path.
 *
 * Functions that statements and functions of the extension call are in
 * pg_catalog: in the extension's schema, somebody could have one with an
 * argument more that has a default, and the call would be ambiguous.
 */
SET LOCAL search_path = pg_catalog, pg_temp;

/*
 * The bodies of functions have the schema's name as text, so it must stay what
 * it is.  The library compares this body with the present name, and runs
 * nothing if they differ; the event trigger says so when the schema is
 * renamed.  (Event triggers can be disabled.)
 */
CREATE FUNCTION @extschema@.enterprise_connection_schema() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT '@extschema@'$$;
COMMENT ON FUNCTION @extschema@.enterprise_connection_schema()
IS 'the schema that the extension was installed in; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION @extschema@.enterprise_connection_schema() FROM PUBLIC;

CREATE FUNCTION @extschema@.enterprise_connection_ddl_schema() RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
			JOIN pg_extension e ON e.extname = 'pg_clerk' AND e.extnamespace = c.objid
		WHERE c.classid = 'pg_namespace'::regclass AND e.extnamespace::regnamespace::text <> '@extschema@')
	THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'schema @extschema@ of extension "pg_clerk" cannot be renamed',
			DETAIL = 'The extension''s functions have the name that the schema had when it was installed.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.enterprise_connection_ddl_schema()
IS 'event trigger function: refuses to rename the extension''s schema';
REVOKE EXECUTE ON FUNCTION @extschema@.enterprise_connection_ddl_schema() FROM PUBLIC;

CREATE EVENT TRIGGER enterprise_connection_ddl_schema ON ddl_command_end WHEN TAG IN ('ALTER SCHEMA')
EXECUTE FUNCTION @extschema@.enterprise_connection_ddl_schema();
COMMENT ON EVENT TRIGGER enterprise_connection_ddl_schema
IS 'refuses to rename the extension''s schema';
-- also where session_replication_role is replica
ALTER EVENT TRIGGER enterprise_connection_ddl_schema ENABLE ALWAYS;
