/*
 * The foreign data wrapper: a server is a Clerk instance, its PUBLIC user
 * mapping holds the instance's secret key.  No handler: there are no foreign
 * tables.
 */
CREATE FUNCTION @extschema@.pg_clerk_validator(text[], oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.pg_clerk_validator(text[], oid)
IS 'checks the options of servers of pg_clerk and of their user mappings';

CREATE FOREIGN DATA WRAPPER pg_clerk VALIDATOR @extschema@.pg_clerk_validator;
COMMENT ON FOREIGN DATA WRAPPER pg_clerk
IS 'Clerk instances: each is a server, with a PUBLIC user mapping that has its secret_key or secret_key_file';

/*
 * Is this the database that a server was armed for?  That is kept in the
 * server's option "origin", in the same DDL that leads to its secret key.  So a
 * copy of the database, however it is made, finds out that it is a copy.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_origin() RETURNS bigint
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_origin()
IS 'fingerprint of this database, made from the cluster''s system identifier and the database''s oid; for pg_clerk''s own use';

CREATE FUNCTION @extschema@.enterprise_connection_is_armed(server name) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enterprise_connection_is_armed(name)
IS 'whether requests of the server are sent from this database; false in a copy of it, until arm_enterprise_connections()';

CREATE FUNCTION @extschema@.arm_enterprise_connections(server name) RETURNS void
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.arm_enterprise_connections(name)
IS 'lets this copy of a database send the requests of a server; only for the server''s owner';

/*
 * A server's rows know it by its name, so that they survive a dump.  A server
 * that is renamed takes them along, and one that is dropped takes them with it:
 * a new server of an old name inherits nothing.  And the extension's schema
 * keeps its name.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_ddl_event() RETURNS event_trigger
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_ddl_event()
IS 'event trigger function: keeps the rows of renamed and dropped servers right, arms new ones, and refuses to rename the extension''s schema; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_ddl_event() FROM PUBLIC;

-- Each of them is enabled also where session_replication_role is replica.
CREATE EVENT TRIGGER pg_clerk_server_changed ON ddl_command_end
WHEN TAG IN ('CREATE SERVER', 'ALTER SERVER')
EXECUTE FUNCTION pg_catalog.enterprise_connection_ddl_event();
ALTER EVENT TRIGGER pg_clerk_server_changed ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER pg_clerk_server_changed
IS 'arms new servers of pg_clerk, and lets renamed ones take their rows along';

-- A server can be a member of another extension, and goes with that one's schema.
CREATE EVENT TRIGGER pg_clerk_server_dropped ON sql_drop
WHEN TAG IN ('DROP SERVER', 'DROP FOREIGN DATA WRAPPER', 'DROP OWNED', 'DROP EXTENSION', 'DROP SCHEMA')
EXECUTE FUNCTION pg_catalog.enterprise_connection_ddl_event();
ALTER EVENT TRIGGER pg_clerk_server_dropped ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER pg_clerk_server_dropped
IS 'deletes the rows of dropped servers of pg_clerk';

CREATE EVENT TRIGGER pg_clerk_schema_renamed ON ddl_command_end
WHEN TAG IN ('ALTER SCHEMA')
EXECUTE FUNCTION pg_catalog.enterprise_connection_ddl_event();
ALTER EVENT TRIGGER pg_clerk_schema_renamed ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER pg_clerk_schema_renamed
IS 'refuses to rename the schema of pg_clerk';
