/*
 * Direct calls: they wait for Clerk in the caller's session.
 */
CREATE FUNCTION @extschema@.create_enterprise_connection(
	params                             jsonb DEFAULT NULL,
	server                             name DEFAULT NULL,
	name                               text DEFAULT NULL,
	provider                           text DEFAULT NULL,
	domains                            text[] DEFAULT NULL,
	organization_id                    text DEFAULT NULL,
	active                             boolean DEFAULT NULL,
	saml                               jsonb DEFAULT NULL,
	oidc                               jsonb DEFAULT NULL,
	sync_user_attributes               boolean DEFAULT NULL,
	disable_additional_identifications boolean DEFAULT NULL,
	allow_organization_account_linking boolean DEFAULT NULL,
	authenticatable                    boolean DEFAULT NULL,
	disable_jit_provisioning           boolean DEFAULT NULL,
	custom_attributes                  jsonb DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.create_enterprise_connection(jsonb, name, text, text, text[], text, boolean, jsonb, jsonb, boolean, boolean, boolean, boolean, boolean, jsonb)
IS 'creates an enterprise connection at Clerk, tracks it, and returns it; waits for Clerk, and ROLLBACK does not undo it there';

CREATE FUNCTION @extschema@.create_enterprise_connections(params jsonb[], server name DEFAULT NULL)
RETURNS TABLE (ordinal integer, connection jsonb, error jsonb)
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.create_enterprise_connections(jsonb[], name)
IS 'creates many enterprise connections at Clerk, concurrently; a row for each, in order, with the connection or the error';

CREATE FUNCTION @extschema@.update_enterprise_connection(id text, params jsonb, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.update_enterprise_connection(text, jsonb, name)
IS 'changes an enterprise connection at Clerk, tracks it, and returns it; waits for Clerk, and ROLLBACK does not undo it there';

CREATE FUNCTION @extschema@.get_enterprise_connection(id text, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.get_enterprise_connection(text, name)
IS 'asks Clerk for an enterprise connection and returns it; writes nothing';

CREATE FUNCTION @extschema@.list_enterprise_connections(
	organization_id text DEFAULT NULL,
	active          boolean DEFAULT NULL,
	max_rows        integer DEFAULT NULL,
	server          name DEFAULT NULL)
RETURNS SETOF jsonb
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000 ROWS 500 AS 'MODULE_PATHNAME', 'enterprise_connection_list';
COMMENT ON FUNCTION @extschema@.list_enterprise_connections(text, boolean, integer, name)
IS 'asks Clerk for enterprise connections, newest first, page after page as rows are fetched; writes nothing';

CREATE FUNCTION @extschema@.delete_enterprise_connection(id text, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.delete_enterprise_connection(text, name)
IS 'deletes an enterprise connection at Clerk, and its tracking row; waits for Clerk, and ROLLBACK does not undo it there';

CREATE FUNCTION @extschema@.upsert_enterprise_connection(key text, params jsonb, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.upsert_enterprise_connection(text, jsonb, name)
IS 'creates the enterprise connection of a key, or changes the one that it has, and returns it; waits for Clerk, and ROLLBACK does not undo it there';

CREATE FUNCTION @extschema@.adopt_enterprise_connection(key text, id text, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.adopt_enterprise_connection(text, text, name)
IS 'binds a key to an enterprise connection that exists at Clerk, tracks it, and returns it';

CREATE FUNCTION @extschema@.mirror_enterprise_connections(server name DEFAULT NULL, force boolean DEFAULT false)
RETURNS TABLE (id text, change text, key text)
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.mirror_enterprise_connections(name, boolean)
IS 'mirrors all that exists at Clerk into the tracking table; returns what changed: inserted, updated, deleted or gone';

CREATE FUNCTION @extschema@.create_enterprise_connection_test_run(id text, server name DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.create_enterprise_connection_test_run(text, name)
IS 'starts a test run of an enterprise connection and returns the URL to open in a browser';

CREATE FUNCTION @extschema@.list_enterprise_connection_test_runs(
	id     text,
	status text[] DEFAULT NULL,
	server name DEFAULT NULL)
RETURNS SETOF jsonb
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME', 'enterprise_connection_list';
COMMENT ON FUNCTION @extschema@.list_enterprise_connection_test_runs(text, text[], name)
IS 'asks Clerk for the test runs of an enterprise connection, with what the identity provider sent; never stored or logged';
