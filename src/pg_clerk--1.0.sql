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

/*
 * The foreign data wrapper: a server is a Clerk instance, its PUBLIC user
 * mapping holds the instance's secret key.  No handler: there are no foreign
 * tables.
 */
CREATE FUNCTION @extschema@.pg_clerk_validator(text[], oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.pg_clerk_validator(text[], oid)
IS 'checks the options of pg_clerk servers and their user mappings';

CREATE FOREIGN DATA WRAPPER pg_clerk VALIDATOR @extschema@.pg_clerk_validator;
COMMENT ON FOREIGN DATA WRAPPER pg_clerk
IS 'Clerk instances: create a server for each, and a PUBLIC user mapping with its secret_key or secret_key_file';


/*
 * Is this the database that a server was armed for?  That is kept in the
 * server's option "origin", beside the way to its secret key: so whatever way a
 * copy of the database is made, it finds out that it is one.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_origin() RETURNS bigint
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_origin()
IS 'a fingerprint of this database: of the cluster''s system identifier and the database''s oid; for pg_clerk''s own use';

CREATE FUNCTION @extschema@.enterprise_connection_is_armed(server name) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enterprise_connection_is_armed(name)
IS 'whether requests of the server are sent from this database; false in a copy of it, until arm_enterprise_connections()';

CREATE FUNCTION @extschema@.arm_enterprise_connections(server name) RETURNS void
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.arm_enterprise_connections(name)
IS 'lets this copy of a database speak to Clerk through the server; only for the server''s owner';


/*
 * A server's rows know it by its name, so that they survive a dump.  A server
 * that is renamed takes them along, and one that is dropped takes them with it:
 * a new server of an old name inherits nothing.
 */
CREATE FUNCTION @extschema@.enterprise_connection_server_event() RETURNS event_trigger
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enterprise_connection_server_event()
IS 'event trigger function: keeps the rows of renamed and dropped servers right, and arms new ones';
REVOKE EXECUTE ON FUNCTION @extschema@.enterprise_connection_server_event() FROM PUBLIC;

CREATE EVENT TRIGGER pg_clerk_server_changed ON ddl_command_end
WHEN TAG IN ('CREATE SERVER', 'ALTER SERVER')
EXECUTE FUNCTION @extschema@.enterprise_connection_server_event();
-- a server can be a member of another extension, and that in a schema
CREATE EVENT TRIGGER pg_clerk_server_dropped ON sql_drop
WHEN TAG IN ('DROP SERVER', 'DROP FOREIGN DATA WRAPPER', 'DROP OWNED', 'DROP EXTENSION', 'DROP SCHEMA')
EXECUTE FUNCTION @extschema@.enterprise_connection_server_event();
-- also where session_replication_role is replica
ALTER EVENT TRIGGER pg_clerk_server_changed ENABLE ALWAYS;
ALTER EVENT TRIGGER pg_clerk_server_dropped ENABLE ALWAYS;
ALTER EVENT TRIGGER enterprise_connection_ddl_schema ENABLE ALWAYS;


/*
 * The tracking table: one row for each connection that is known to exist.
 */
CREATE TABLE @extschema@.enterprise_connections (
	server               name NOT NULL,
	id                   text COLLATE "C" NOT NULL,
	key                  text,
	organization_id      text,
	name                 text,
	provider             text,
	domains              text[],
	active               boolean,
	sync_user_attributes boolean,
	connection           jsonb NOT NULL,
	created_at           timestamptz,
	updated_at           timestamptz,
	synced_at            timestamptz NOT NULL,
	PRIMARY KEY (server, id)
);
-- Not the other way round: no plan shall take it for the primary key. What has
-- no key, or no organization, costs no index entry.
CREATE UNIQUE INDEX enterprise_connections_key_server_key
	ON @extschema@.enterprise_connections (key, server) WHERE key IS NOT NULL;
CREATE INDEX enterprise_connections_organization_id_idx
	ON @extschema@.enterprise_connections (organization_id) WHERE organization_id IS NOT NULL;
-- Who has the domain that Clerk refuses?  Not for more domains than anybody
-- has: hundreds of thousands of entries would hold up all others.
CREATE INDEX enterprise_connections_domains_idx
	ON @extschema@.enterprise_connections USING gin (domains) WHERE cardinality(domains) <= 5000;
COMMENT ON TABLE @extschema@.enterprise_connections
IS 'Clerk enterprise connections as last seen; written by pg_clerk only';
COMMENT ON COLUMN @extschema@.enterprise_connections.server IS 'name of the foreign server, that is, of the Clerk instance';
COMMENT ON COLUMN @extschema@.enterprise_connections.id IS 'the connection''s id at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.key IS 'the caller''s own identity for the connection, unique for each server; null if it has none';
COMMENT ON COLUMN @extschema@.enterprise_connections.organization_id IS 'the Clerk organization it is linked to';
COMMENT ON COLUMN @extschema@.enterprise_connections.name IS 'display name';
COMMENT ON COLUMN @extschema@.enterprise_connections.provider IS 'identity provider, such as saml_okta or oidc_custom';
COMMENT ON COLUMN @extschema@.enterprise_connections.domains IS 'the e-mail domains whose users sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connections.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connections.sync_user_attributes IS 'whether users'' attributes are updated at each sign-in';
COMMENT ON COLUMN @extschema@.enterprise_connections.connection IS 'the whole object, as Clerk''s API answered it';
COMMENT ON COLUMN @extschema@.enterprise_connections.created_at IS 'when it was created at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.updated_at IS 'when it was last changed at Clerk';
COMMENT ON COLUMN @extschema@.enterprise_connections.synced_at IS 'when an answer of Clerk''s was last written to this row';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connections', '');

/*
 * Who may use a server may see what belongs to it.  The subquery runs once
 * for each query, not for each row; a server that was dropped is simply not
 * in it (has_server_privilege() by name would raise an error).
 */
ALTER TABLE @extschema@.enterprise_connections ENABLE ROW LEVEL SECURITY;
CREATE POLICY server_usage ON @extschema@.enterprise_connections FOR SELECT
USING (server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s
				  WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE')));
GRANT SELECT ON @extschema@.enterprise_connections TO PUBLIC;

/*
 * What is known of a connection after an answer: an answer can lack members
 * that an earlier one had (Clerk leaves details out of some), so what is
 * absent stays, also inside saml_connection and oauth_config.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_merge(known jsonb, answer jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT $1 || $2
		|| CASE WHEN jsonb_typeof($1->'saml_connection') = 'object' AND jsonb_typeof($2->'saml_connection') = 'object'
			THEN jsonb_build_object('saml_connection', ($1->'saml_connection') || ($2->'saml_connection')) ELSE '{}' END
		|| CASE WHEN jsonb_typeof($1->'oauth_config') = 'object' AND jsonb_typeof($2->'oauth_config') = 'object'
			THEN jsonb_build_object('oauth_config', ($1->'oauth_config') || ($2->'oauth_config')) ELSE '{}' END;
END;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_merge(jsonb, jsonb)
IS 'a known connection with a newer answer; for pg_clerk''s own use';

CREATE FUNCTION @extschema@.track_enterprise_connection(connection jsonb, server name, key text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.track_enterprise_connection(jsonb, name, text)
IS 'inserts or updates a tracking row from a connection as Clerk''s API answers it; for pg_clerk''s own use';

REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_merge(jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION @extschema@.track_enterprise_connection(jsonb, name, text) FROM PUBLIC;


/*
 * Parameters: composite types, their casts and operators, the request body
 */

CREATE TYPE @extschema@.enterprise_connection_custom_attribute AS (
	name text,
	key text,
	sso_path text,
	scim_path text,
	directory_path text,
	multi_valued boolean,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_custom_attribute
IS 'custom attribute of an enterprise connection; NULL is left out, "more" holds what is newer than this type';

CREATE TYPE @extschema@.enterprise_connection_oidc AS (
	auth_url text,
	client_id text,
	client_secret text,
	discovery_url text,
	requires_pkce boolean,
	token_url text,
	user_info_url text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_oidc
IS 'OIDC parameters of an enterprise connection; NULL is left out, "more" holds what is newer than this type';

CREATE TYPE @extschema@.enterprise_connection_attribute_mapping AS (
	user_id text,
	email_address text,
	first_name text,
	last_name text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_attribute_mapping
IS 'which SAML attribute holds what of a user; NULL is left out, "more" holds what is newer than this type';

CREATE TYPE @extschema@.enterprise_connection_login_hint AS (
	mode text,
	source text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_login_hint
IS 'login hint that a SAML identity provider is sent; NULL is left out, "more" holds what is newer than this type';

CREATE TYPE @extschema@.enterprise_connection_saml AS (
	allow_idp_initiated boolean,
	allow_subdomains boolean,
	attribute_mapping @extschema@.enterprise_connection_attribute_mapping,
	force_authn boolean,
	idp_certificate text,
	idp_certificates text[],
	idp_entity_id text,
	idp_metadata text,
	idp_metadata_url text,
	idp_sso_url text,
	login_hint @extschema@.enterprise_connection_login_hint,
	name text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_saml
IS 'SAML parameters of an enterprise connection; NULL is left out, "more" holds what is newer than this type';

CREATE TYPE @extschema@.enterprise_connection_params AS (
	name text,
	provider text,
	domains text[],
	organization_id text,
	active boolean,
	sync_user_attributes boolean,
	disable_additional_identifications boolean,
	allow_organization_account_linking boolean,
	authenticatable boolean,
	disable_jit_provisioning boolean,
	custom_attributes @extschema@.enterprise_connection_custom_attribute[],
	oidc @extschema@.enterprise_connection_oidc,
	saml @extschema@.enterprise_connection_saml,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_params
IS 'parameters of an enterprise connection; NULL is left out, "more" holds what is newer than this type, and explicit nulls';

/*
 * Casts.  They are implicit, so that what takes jsonb takes these types too.
 *
 * PostgreSQL compares any composite type as a record and any array as an
 * array.  With the casts, comparing as jsonb would be as good a match, and the
 * operators "not unique".  So each type gets operators of its own, which do
 * what PostgreSQL would have done, and operator classes, so that joins on them
 * hash and merge as before.  A cast is found whatever search_path is, so the
 * operators have to be as well: they stand beside those for record.
 */
DO $install$
DECLARE
	cast_template CONSTANT text := $template$
CREATE FUNCTION @extschema@.enterprise_connection_to_jsonb({type})
RETURNS jsonb
AS '{library}', 'enterprise_connection_{kind}_to_jsonb'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.enterprise_connection_to_jsonb({type})
IS 'parameters as jsonb: NULL attributes left out, the members of "more" merged in';

CREATE CAST ({type} AS jsonb)
WITH FUNCTION @extschema@.enterprise_connection_to_jsonb({type}) AS IMPLICIT;
COMMENT ON CAST ({type} AS jsonb)
IS 'parameters as jsonb: NULL attributes left out, the members of "more" merged in';
$template$;
	operator_template CONSTANT text := $template$
CREATE FUNCTION @extschema@.{name}_{suffix}({left}, {right})
RETURNS {result} AS '{function}'
LANGUAGE internal IMMUTABLE {nulls} PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.{name}_{suffix}({left}, {right})
IS 'implementation of {operator} operator';

CREATE OPERATOR pg_catalog.{operator} (
	LEFTARG = {left}, RIGHTARG = {right},
	FUNCTION = @extschema@.{name}_{suffix}{clauses}
);
COMMENT ON OPERATOR pg_catalog.{operator} ({left}, {right}) IS '{description}';
$template$;
	class_template CONSTANT text := $template$
CREATE FUNCTION @extschema@.{name}_cmp({type}, {type})
RETURNS integer AS 'bt{kind}cmp'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.{name}_cmp({type}, {type}) IS 'less-equal-greater';

CREATE FUNCTION @extschema@.{name}_hash({type})
RETURNS integer AS 'hash_{kind}'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.{name}_hash({type}) IS 'hash';

CREATE FUNCTION @extschema@.{name}_hash_extended({type}, bigint)
RETURNS bigint AS 'hash_{kind}_extended'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.{name}_hash_extended({type}, bigint) IS 'hash';

CREATE OPERATOR CLASS @extschema@.{name}_ops
DEFAULT FOR TYPE {type} USING btree AS
	OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=,
	OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
	FUNCTION 1 @extschema@.{name}_cmp({type}, {type});
COMMENT ON OPERATOR CLASS @extschema@.{name}_ops USING btree IS 'compares as any {kind}';
COMMENT ON OPERATOR FAMILY @extschema@.{name}_ops USING btree IS 'compares as any {kind}';

CREATE OPERATOR CLASS @extschema@.{name}_ops
DEFAULT FOR TYPE {type} USING hash AS
	OPERATOR 1 pg_catalog.=,
	FUNCTION 1 @extschema@.{name}_hash({type}),
	FUNCTION 2 @extschema@.{name}_hash_extended({type}, bigint);
COMMENT ON OPERATOR CLASS @extschema@.{name}_ops USING hash IS 'hashes as any {kind}';
COMMENT ON OPERATOR FAMILY @extschema@.{name}_ops USING hash IS 'hashes as any {kind}';
$template$;
	one record;
	op record;
	script text;
BEGIN
	FOR one IN
		SELECT base AS name, '@extschema@.' || base AS type, 'record' AS kind
		FROM unnest(ARRAY['enterprise_connection_params', 'enterprise_connection_oidc',
			'enterprise_connection_saml', 'enterprise_connection_attribute_mapping',
			'enterprise_connection_login_hint', 'enterprise_connection_custom_attribute']) AS base
		UNION ALL
		SELECT 'enterprise_connection_custom_attributes',
			'@extschema@.enterprise_connection_custom_attribute[]', 'array'
	LOOP
		script := replace(cast_template, '{library}', 'MODULE_PATHNAME');

		FOR op IN
			SELECT o.operator, o.suffix, o.description,
				'{type}' AS l, '{type}' AS r, 'boolean' AS result, 'STRICT' AS nulls,
				'{kind}_' || o.suffix AS function,
				', COMMUTATOR = OPERATOR(pg_catalog.' || o.commutator || ')' ||
				', NEGATOR = OPERATOR(pg_catalog.' || o.negator || ')' ||
				', RESTRICT = ' || o.selectivity || 'sel, JOIN = ' || o.selectivity || 'joinsel' ||
				CASE WHEN o.operator = '=' THEN ', HASHES, MERGES' ELSE '' END AS clauses
			FROM (VALUES
				('=', 'eq', '=', '<>', 'eq', 'equal'),
				('<>', 'ne', '<>', '=', 'neq', 'not equal'),
				('<', 'lt', '>', '>=', 'scalarlt', 'less than'),
				('<=', 'le', '>=', '>', 'scalarle', 'less than or equal'),
				('>', 'gt', '<', '<=', 'scalargt', 'greater than'),
				('>=', 'ge', '<=', '<', 'scalarge', 'greater than or equal')
			) AS o (operator, suffix, commutator, negator, selectivity, description)
			UNION ALL
			SELECT o.operator, o.suffix, o.description, o.l, o.r, o.result,
				CASE o.result WHEN 'boolean' THEN 'STRICT' ELSE 'CALLED ON NULL INPUT' END, o.function,
				CASE WHEN o.commutator <> '' THEN ', COMMUTATOR = OPERATOR(pg_catalog.' || o.commutator ||
					'), RESTRICT = contsel, JOIN = contjoinsel' ELSE '' END
			FROM (VALUES
				('||', 'cat', 'concatenate', '{type}', '{type}', '{type}', 'array_cat', ''),
				('||', 'append', 'append element', '{type}', '{element}', '{type}', 'array_append', ''),
				('||', 'prepend', 'prepend element', '{element}', '{type}', '{type}', 'array_prepend', ''),
				('@>', 'contains', 'contains', '{type}', '{type}', 'boolean', 'arraycontains', '<@'),
				('<@', 'contained', 'is contained by', '{type}', '{type}', 'boolean', 'arraycontained', '@>')
			) AS o (operator, suffix, description, l, r, result, function, commutator)
			WHERE one.kind = 'array'
		LOOP
			script := script || replace(replace(replace(replace(replace(replace(replace(replace(replace(
				operator_template, '{operator}', op.operator), '{suffix}', op.suffix),
				'{left}', op.l), '{right}', op.r), '{result}', op.result), '{nulls}', op.nulls),
				'{function}', op.function), '{clauses}', op.clauses), '{description}', op.description);
		END LOOP;

		script := replace(replace(script || class_template, '{kind}', one.kind), '{name}', one.name);
		EXECUTE replace(replace(script, '{type}', one.type), '{element}', rtrim(one.type, '[]'));
	END LOOP;
END
$install$;

/*
 * The request body
 */

CREATE FUNCTION @extschema@.enterprise_connection_body(
	params jsonb,
	operation text DEFAULT 'create',
	extra_params text[] DEFAULT NULL
)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'enterprise_connection_body'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.enterprise_connection_body(jsonb, text, text[])
IS 'the request body of a create or update with these params, or an error; NULL for NULL; without what a create sends in a PATCH of its own (sync_user_attributes, disable_additional_identifications, saml.name)';

CREATE FUNCTION @extschema@.check_enterprise_connection(
	params jsonb,
	operation text DEFAULT 'create',
	extra_params text[] DEFAULT NULL
)
RETURNS TABLE (path text, message text, hint text)
AS 'MODULE_PATHNAME', 'check_enterprise_connection'
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5;
COMMENT ON FUNCTION @extschema@.check_enterprise_connection(jsonb, text, text[])
IS 'all that is wrong with these params for a create or update, a row each; no row if nothing is';


/*
 * Calls at once.
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
IS 'creates an enterprise connection at Clerk, at once, tracks it, and returns it; ROLLBACK does not undo it at Clerk';

CREATE FUNCTION @extschema@.create_enterprise_connections(params jsonb[], server name DEFAULT NULL)
RETURNS TABLE (ordinal integer, connection jsonb, error jsonb)
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.create_enterprise_connections(jsonb[], name)
IS 'creates many enterprise connections at Clerk at once, concurrently; a row for each, in order, with the connection or the error';

CREATE FUNCTION @extschema@.update_enterprise_connection(id text, params jsonb, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.update_enterprise_connection(text, jsonb, name)
IS 'changes an enterprise connection at Clerk, at once, tracks it, and returns it; ROLLBACK does not undo it at Clerk';

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
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000 ROWS 500 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.list_enterprise_connections(text, boolean, integer, name)
IS 'asks Clerk for enterprise connections, newest first, page after page as rows are taken; writes nothing';

CREATE FUNCTION @extschema@.delete_enterprise_connection(id text, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.delete_enterprise_connection(text, name)
IS 'deletes an enterprise connection at Clerk, at once, and its tracking row; ROLLBACK does not undo it at Clerk';

CREATE FUNCTION @extschema@.upsert_enterprise_connection(key text, params jsonb, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.upsert_enterprise_connection(text, jsonb, name)
IS 'creates the enterprise connection of this key, or changes the one that it has, at once, and returns it';

CREATE FUNCTION @extschema@.adopt_enterprise_connection(key text, id text, server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.adopt_enterprise_connection(text, text, name)
IS 'binds a key to an enterprise connection that exists at Clerk, tracks it, and returns it';

CREATE FUNCTION @extschema@.mirror_enterprise_connections(server name DEFAULT NULL, force boolean DEFAULT false)
RETURNS TABLE (id text, change text, key text)
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.mirror_enterprise_connections(name, boolean)
IS 'brings all that exists at Clerk into the tracking table; returns what changed: inserted, updated, deleted or gone';

CREATE FUNCTION @extschema@.create_enterprise_connection_test_run(id text, server name DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.create_enterprise_connection_test_run(text, name)
IS 'starts a test of an enterprise connection and returns the URL to open in a browser';

CREATE FUNCTION @extschema@.list_enterprise_connection_test_runs(
	id     text,
	status text[] DEFAULT NULL,
	server name DEFAULT NULL)
RETURNS SETOF jsonb
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000 ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.list_enterprise_connection_test_runs(text, text[], name)
IS 'asks Clerk for the test runs of an enterprise connection, with what the identity provider sent; never stored or logged';


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
 * The outbox: requests that are delivered after commit.  The states and who
 * changes them are drawn in src/README.md.
 */
CREATE TABLE @extschema@.enterprise_connection_requests (
	id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server          name NOT NULL,
	server_oid      oid NOT NULL,
	role            name NOT NULL,
	role_oid        oid NOT NULL,
	origin          bigint NOT NULL,
	timeline        integer NOT NULL,
	operation       text NOT NULL CHECK (operation IN ('create', 'update', 'upsert', 'delete')),
	key             text,
	connection_id   text,
	params          jsonb,
	state           text NOT NULL DEFAULT 'queued' CHECK (state IN
		('queued', 'sending', 'in_doubt', 'delivered', 'failed', 'superseded', 'cancelled')),
	attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
	next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
	started_at      timestamptz,
	finished_at     timestamptz,
	http_status     integer,
	error           jsonb,
	step            text CHECK (step IN ('create', 'complete', 'update', 'delete')),
	doubt_since     timestamptz,
	lane            text COLLATE "C",
	claimer         integer,
	superseded_by   bigint,
	awaits          bigint,
	scrubbed        boolean NOT NULL DEFAULT false,
	xact            xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	CHECK (state NOT IN ('sending') OR claimer IS NOT NULL AND step IS NOT NULL),
	CHECK ((state IN ('delivered', 'failed', 'superseded', 'cancelled')) = (finished_at IS NOT NULL)),
	CHECK (state <> 'in_doubt' OR doubt_since IS NOT NULL)
);
COMMENT ON TABLE @extschema@.enterprise_connection_requests
IS 'the outbox: requests to Clerk that are delivered after commit; written by pg_clerk only';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role IS 'who enqueued it; needs USAGE on the server when it is delivered';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.origin IS 'the database that it was enqueued in, as enterprise_connection_origin(): here, roles are known by their oids, so that a new role of an old name inherits nothing; elsewhere, by their names';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role_oid IS 'oid of the role, where it was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.server_oid IS 'oid of the server, where it was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.timeline IS 'timeline of the server, when it was enqueued; a create with another origin, server_oid or timeline than today''s may have been sent from there, and is looked up first; 0: it may have been sent from here';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.key IS 'the caller''s own identity for the connection; requests of one key are delivered in order';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.connection_id IS 'the connection''s id at Clerk, once it is known';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.params IS 'the parameters; without their secrets when delivered or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.state IS 'queued, sending, in_doubt (outcome unknown, will be looked up), delivered, failed, superseded or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.next_attempt_at IS 'not before this time; infinity: behind another request of its key';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.error IS 'why the last attempt failed: sqlstate, message, detail, hint, status, trace_id, errors';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.step IS 'what the last attempt was to do: create, complete (a PATCH after a create), update or delete';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.doubt_since IS 'when the create was sent whose outcome is not known';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.lane IS 'what is delivered in order: the key, else the id';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.claimer IS 'the process that delivers it';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.superseded_by IS 'the newer upsert that took over its parameters, or a delete that made it pointless';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.awaits IS 'the unfinished request that will give up the domain which Clerk refused this one';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.scrubbed IS 'failed so long ago that the secrets are gone from its params';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.xact IS 'the transaction that enqueued it';

-- what is due; what stands behind another is at infinity, where nobody looks
CREATE INDEX enterprise_connection_requests_due_idx ON @extschema@.enterprise_connection_requests
	(server, next_attempt_at, id) WHERE state = 'queued';
-- the order in a lane
CREATE INDEX enterprise_connection_requests_lane_idx ON @extschema@.enterprise_connection_requests
	(lane, server, id) WHERE state IN ('queued', 'sending', 'in_doubt') AND lane IS NOT NULL;
-- one at a time in a lane
CREATE UNIQUE INDEX enterprise_connection_requests_sending_idx ON @extschema@.enterprise_connection_requests
	(lane, server) WHERE state IN ('sending', 'in_doubt');
-- what is to be looked up; seldom anything, and looked for at every claim
CREATE INDEX enterprise_connection_requests_doubt_idx ON @extschema@.enterprise_connection_requests
	(server, next_attempt_at) WHERE state = 'in_doubt';
CREATE INDEX enterprise_connection_requests_behind_idx ON @extschema@.enterprise_connection_requests
	(lane, server) WHERE state = 'queued' AND next_attempt_at = 'infinity';
CREATE INDEX enterprise_connection_requests_finished_idx ON @extschema@.enterprise_connection_requests
	(finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX enterprise_connection_requests_connection_idx ON @extschema@.enterprise_connection_requests
	(connection_id) WHERE connection_id IS NOT NULL;
CREATE INDEX enterprise_connection_requests_awaits_idx ON @extschema@.enterprise_connection_requests
	(awaits) WHERE awaits IS NOT NULL;
-- Who may have got a domain, although that is not tracked yet?  Each change of
-- a request writes an entry for each of its domains anew.  So one with more
-- than anybody has is not in it: it would hold up all others for minutes.
CREATE INDEX enterprise_connection_requests_domains_idx ON @extschema@.enterprise_connection_requests
	USING gin ((lower((params->'domains')::text COLLATE "C")::jsonb)) WITH (fastupdate = off)
	WHERE state IN ('queued', 'sending', 'in_doubt') AND attempts > 0
		AND CASE jsonb_typeof(params->'domains') WHEN 'array' THEN jsonb_array_length(params->'domains') <= 5000 END;
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connection_requests', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connection_requests_id_seq', '');

ALTER TABLE @extschema@.enterprise_connection_requests ENABLE ROW LEVEL SECURITY;
CREATE POLICY role_usage ON @extschema@.enterprise_connection_requests FOR SELECT
USING (CASE WHEN origin = pg_catalog.enterprise_connection_origin()
	THEN role_oid IN (SELECT o.oid FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE'))
	ELSE role IN (SELECT o.rolname FROM pg_catalog.pg_roles o WHERE pg_catalog.pg_has_role(o.oid, 'USAGE')) END);
GRANT SELECT ON @extschema@.enterprise_connection_requests TO PUBLIC;
-- pg_dump reads it, whoever runs it
GRANT SELECT ON SEQUENCE @extschema@.enterprise_connection_requests_id_seq TO PUBLIC;

/*
 * Servers that are paused, because Clerk does not accept the key.  Not dumped:
 * it is found out again.
 */
CREATE TABLE @extschema@.enterprise_connection_pauses (
	server    name PRIMARY KEY,
	since     timestamptz NOT NULL,
	reason    text NOT NULL,
	probed_at timestamptz NOT NULL,
	settings  bigint NOT NULL
);
COMMENT ON TABLE @extschema@.enterprise_connection_pauses
IS 'servers whose requests wait because they have no key that Clerk accepts';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.probed_at IS 'when a request was last tried; whichever process does it, it is done once a minute';
COMMENT ON COLUMN @extschema@.enterprise_connection_pauses.settings IS 'version of the server''s settings that did not work; others are tried at once';
ALTER TABLE @extschema@.enterprise_connection_pauses ENABLE ROW LEVEL SECURITY;

/*
 * The parameters of two upserts of a key, one after the other: what the newer
 * one has counts, and what only the older one has stays.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_params_merge(older jsonb, newer jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT $1 || $2
		|| CASE WHEN jsonb_typeof($1->'saml') = 'object' AND jsonb_typeof($2->'saml') = 'object'
			THEN jsonb_build_object('saml', ($1->'saml') || ($2->'saml')) ELSE '{}' END
		|| CASE WHEN jsonb_typeof($1->'oidc') = 'object' AND jsonb_typeof($2->'oidc') = 'object'
			THEN jsonb_build_object('oidc', ($1->'oidc') || ($2->'oidc')) ELSE '{}' END;
END;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_params_merge(jsonb, jsonb)
IS 'the parameters of two upserts in a row; for pg_clerk''s own use';

CREATE FUNCTION pg_catalog.enterprise_connection_without_secrets(params jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_without_secrets(jsonb)
IS 'parameters without the values that are secret';

CREATE FUNCTION pg_catalog.enterprise_connection_domains(params jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT ARRAY(SELECT lower(d.value COLLATE "C") FROM jsonb_array_elements_text(CASE jsonb_typeof($1->'domains')
		WHEN 'array' THEN $1->'domains' ELSE '[]' END) WITH ORDINALITY d (value, n) ORDER BY d.n);
END;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_domains(jsonb)
IS 'the domains that parameters name, as Clerk writes them; for pg_clerk''s own use';

/*
 * Whose is a request?  May the member act for that role?
 */
CREATE FUNCTION pg_catalog.enterprise_connection_is_of(origin bigint, role_oid oid, role name, member oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN $1 = pg_catalog.enterprise_connection_origin()
		THEN EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = $2 AND pg_catalog.pg_has_role($4, r.oid, 'USAGE'))
		ELSE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $3 AND pg_catalog.pg_has_role($4, r.oid, 'USAGE')) END;
END;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_is_of(bigint, oid, name, oid)
IS 'whether a request is of a role that the member can act for; for pg_clerk''s own use';
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_is_of(bigint, oid, name, oid) FROM PUBLIC;

/*
 * Let the first request of a lane go on: it may have stood behind one that is
 * finished.  The row is locked before its time is looked at, because another
 * process may be about to put it behind.  One that was committed late waits
 * for a later one that is on its way.  Returns false if somebody has it locked:
 * then it is for the sweep.
 *
 * Here and below, no plan but the one along the lane's index is left.  A lane
 * is a range: with equality it would be left out of the order, and all requests
 * might be gone through in the order of their ids.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_advance_lane(lane text, server name) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	head record;
BEGIN
	SELECT q.id INTO head
	FROM @extschema@.enterprise_connection_requests q
	WHERE (q.lane, q.server) >= ($1, $2) AND (q.lane, q.server) <= ($1, $2) AND q.lane IS NOT NULL AND q.state IN ('queued', 'sending', 'in_doubt')
	ORDER BY q.lane, q.server, q.id LIMIT 1;
	IF NOT FOUND THEN
		RETURN true;
	END IF;
	-- whoever has it locked must not hold up the others
	SELECT q.id, q.state, q.next_attempt_at INTO head
	FROM @extschema@.enterprise_connection_requests q WHERE q.id = head.id FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	IF head.state = 'queued' AND head.next_attempt_at = 'infinity' AND NOT EXISTS
		(SELECT FROM @extschema@.enterprise_connection_requests q
		WHERE q.lane = $1 AND q.server = $2 AND q.state IN ('sending', 'in_doubt'))
	THEN
		BEGIN
			UPDATE @extschema@.enterprise_connection_requests q SET next_attempt_at = clock_timestamp()
			WHERE q.id = head.id;
		EXCEPTION WHEN OTHERS THEN
			-- what is wrong with it is no fault of the one before
			RAISE DEBUG 'pg_clerk could not let request % go on: %', head.id, SQLERRM USING ERRCODE = SQLSTATE;
			RETURN false;
		END;
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_advance_lane(text, name)
IS 'lets the first request of a lane go on; for pg_clerk''s own use';

/*
 * The same for lanes in which something may stand behind nothing: a request
 * can have been put behind one that was finished before it was committed.
 * Goes on after the lane given, so many lanes a call; NULL at the end.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_sweep_lanes(INOUT lane text, INOUT server name, IN lanes integer)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	head record;
	next record;
BEGIN
	FOR i IN 1..$3 LOOP
		SELECT q.lane, q.server INTO next FROM @extschema@.enterprise_connection_requests q
		WHERE q.state = 'queued' AND q.next_attempt_at = 'infinity'
			AND (q.lane, q.server) > (coalesce($1, ''), coalesce($2, ''))
		ORDER BY q.lane, q.server LIMIT 1;
		$1 := next.lane;
		$2 := next.server;
		EXIT WHEN NOT FOUND;
		SELECT q.state, q.next_attempt_at INTO head FROM @extschema@.enterprise_connection_requests q
		WHERE (q.lane, q.server) >= (next.lane, next.server) AND (q.lane, q.server) <= (next.lane, next.server) AND q.lane IS NOT NULL
			AND q.state IN ('queued', 'sending', 'in_doubt')
		ORDER BY q.lane, q.server, q.id LIMIT 1;
		IF head.state = 'queued' AND head.next_attempt_at = 'infinity' THEN
			PERFORM pg_catalog.enterprise_connection_advance_lane(next.lane, next.server);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_sweep_lanes(text, name, integer)
IS 'lets requests go on that stand behind nothing; for pg_clerk''s own use';

/*
 * Claim requests of a server for delivery: those that are due, oldest first,
 * each the first of its lane.  Of upserts in a row that were not yet sent,
 * the newest takes over the parameters of the others.  The claim must be
 * committed before anything is sent.  Until the lease ends, the request can
 * be on its way.
 *
 * A session that delivers by itself claims only what its role may.  A request
 * that cannot be claimed is returned as it is; in "aside" are those that were.
 *
 * However long a lane is, one call moves a limited number of its requests.
 * Where that ends it, the others are looked for from the newest on.  So there
 * may be more to do even if nothing was claimed.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_claim(server name, server_oid oid, timeline integer,
	wanted integer, claimer integer, role oid, lease interval, aside bigint[], newest_before timestamptz)
RETURNS SETOF @extschema@.enterprise_connection_requests
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	due     @extschema@.enterprise_connection_requests;
	next    @extschema@.enterprise_connection_requests;
	head    bigint;
	claimed integer := 0;
	moved   integer;
	budget  integer := CASE WHEN $9 IS NULL THEN 50 ELSE 10 END;
	here    constant bigint := pg_catalog.enterprise_connection_origin();
	rows    refcursor;
	-- a variable: compared with a volatile function, all of the index would be read
	moment  constant timestamptz := coalesce($9, clock_timestamp());
BEGIN
	IF $9 IS NOT NULL THEN
		OPEN rows NO SCROLL FOR SELECT * FROM @extschema@.enterprise_connection_requests q
		WHERE q.server = $1 AND q.state = 'queued' AND q.next_attempt_at <= moment AND q.id <> ALL ($8)
			AND ($6 IS NULL OR pg_catalog.enterprise_connection_is_of(q.origin, q.role_oid, q.role, $6))
		ORDER BY q.server DESC, q.next_attempt_at DESC, q.id DESC LIMIT $4 * 2 + 32 FOR UPDATE SKIP LOCKED;
	ELSE
		OPEN rows NO SCROLL FOR SELECT * FROM @extschema@.enterprise_connection_requests q
		WHERE q.server = $1 AND q.state = 'queued' AND q.next_attempt_at <= moment AND q.id <> ALL ($8)
			AND ($6 IS NULL OR pg_catalog.enterprise_connection_is_of(q.origin, q.role_oid, q.role, $6))
		ORDER BY q.server, q.next_attempt_at, q.id LIMIT $4 * 2 + 32 FOR UPDATE SKIP LOCKED;
	END IF;
	<<requests>>
	LOOP
		FETCH rows INTO due;
		EXIT WHEN NOT FOUND OR budget <= 0;
		-- whatever is wrong with one request, the others go on
		BEGIN
			IF due.lane IS NOT NULL THEN
				SELECT q.id INTO head FROM @extschema@.enterprise_connection_requests q
				WHERE (q.lane, q.server) >= (due.lane, $1) AND (q.lane, q.server) <= (due.lane, $1) AND q.lane IS NOT NULL
					AND q.state IN ('queued', 'sending', 'in_doubt')
				ORDER BY q.lane, q.server, q.id LIMIT 1;
				IF head <> due.id OR EXISTS (SELECT FROM @extschema@.enterprise_connection_requests q
						WHERE q.lane = due.lane AND q.server = $1 AND q.state IN ('sending', 'in_doubt')) THEN
					-- not only this one: the lane may be long; an array, as a join may read all
					UPDATE @extschema@.enterprise_connection_requests q SET next_attempt_at = 'infinity'
					WHERE q.id = ANY (ARRAY(SELECT b.id FROM @extschema@.enterprise_connection_requests b
						WHERE (b.lane, b.server, b.id) >= (due.lane, $1, due.id) AND (b.lane, b.server) <= (due.lane, $1) AND b.lane IS NOT NULL
							AND b.state IN ('queued', 'sending', 'in_doubt')
							AND b.state = 'queued' AND b.next_attempt_at <> 'infinity'
						ORDER BY b.lane, b.server, b.id LIMIT budget FOR UPDATE SKIP LOCKED));
					GET DIAGNOSTICS moved = ROW_COUNT;
					budget := budget - moved;
					CONTINUE requests;
				END IF;
				-- put behind by the loop's own update a moment ago; by the id, see below
				CONTINUE requests WHEN NOT EXISTS (SELECT FROM @extschema@.enterprise_connection_requests q
					WHERE q.id = due.id AND q.state || '' = 'queued' AND q.next_attempt_at <> 'infinity');
				WHILE due.operation = 'upsert' AND due.attempts = 0 AND due.doubt_since IS NULL
					-- it may have been sent from elsewhere
					AND (due.origin, due.server_oid, due.timeline) = (here, $2, $3) LOOP
					-- the next one, and no other, even if somebody has it locked
					SELECT q.id INTO head FROM @extschema@.enterprise_connection_requests q
					WHERE (q.lane, q.server, q.id) > (due.lane, $1, due.id) AND (q.lane, q.server) <= (due.lane, $1) AND q.lane IS NOT NULL
						AND q.state IN ('queued', 'sending', 'in_doubt')
					ORDER BY q.lane, q.server, q.id LIMIT 1;
					EXIT WHEN NOT FOUND;
					SELECT * INTO next FROM @extschema@.enterprise_connection_requests q
					WHERE q.id = head FOR UPDATE SKIP LOCKED;
					EXIT WHEN NOT FOUND OR next.operation <> 'upsert' OR next.state <> 'queued' OR next.attempts > 0
						-- one's secrets are not for the other, nor are one's privileges
						OR (next.origin, next.role_oid) <> (due.origin, due.role_oid);
					-- the last of them is sent, by a later claim if they are many
					budget := budget - 4;
					EXIT requests WHEN budget <= 0;
					UPDATE @extschema@.enterprise_connection_requests q
					SET state = 'superseded', superseded_by = next.id, finished_at = clock_timestamp(), awaits = NULL,
						params = pg_catalog.enterprise_connection_without_secrets(q.params)
					WHERE q.id = due.id;
					UPDATE @extschema@.enterprise_connection_requests q
					SET params = pg_catalog.enterprise_connection_params_merge(due.params, q.params), next_attempt_at = clock_timestamp()
					WHERE q.id = next.id RETURNING * INTO due;
				END LOOP;
			END IF;

			-- what there is to do depends on whether the connection is known
			IF due.step IS DISTINCT FROM 'complete' AND (due.operation <> 'create' OR due.step IS DISTINCT FROM 'update') THEN
				IF due.connection_id IS NULL AND due.key IS NOT NULL THEN
					-- by the key: written like that, the server leads to no index
					SELECT k.id INTO due.connection_id FROM @extschema@.enterprise_connections k
					WHERE k.key = due.key AND k.server::text = $1::text;
				END IF;
				due.step := CASE WHEN due.operation IN ('create', 'update', 'delete') THEN due.operation
					WHEN due.connection_id IS NULL THEN 'create' ELSE 'update' END;
			END IF;
			IF due.step = 'create' AND (due.origin, due.server_oid, due.timeline) <> (here, $2, $3) THEN
				-- it may have been sent from elsewhere just now; one listing for all of them
				UPDATE @extschema@.enterprise_connection_requests q
				SET state = 'in_doubt', step = 'create', doubt_since = coalesce(q.doubt_since, q.created_at),
					http_status = NULL, next_attempt_at = moment + $7,
					role_oid = CASE WHEN q.origin = here THEN q.role_oid
						ELSE coalesce((SELECT r.oid FROM pg_roles r WHERE r.rolname = q.role), 0::oid) END,
					origin = here, server_oid = $2, timeline = $3
				WHERE q.id = due.id;
				CONTINUE requests;
			END IF;
			UPDATE @extschema@.enterprise_connection_requests q
			SET state = 'sending', step = due.step, connection_id = due.connection_id, attempts = q.attempts + 1,
				started_at = clock_timestamp(), next_attempt_at = clock_timestamp() + $7, claimer = $5,
				http_status = NULL
			WHERE q.id = due.id RETURNING * INTO due;
		EXCEPTION
			WHEN unique_violation OR lock_not_available THEN
				-- another process has just claimed one of its lane, or has it locked
				CONTINUE requests;
			WHEN OTHERS THEN
				RAISE LOG 'pg_clerk could not claim request %: %', due.id, SQLERRM USING ERRCODE = SQLSTATE;
				-- returned as it is: to be set aside
		END;
		RETURN NEXT due;
		claimed := claimed + 1;
		EXIT WHEN claimed >= $4;
	END LOOP;
	CLOSE rows;
	IF budget <= 0 AND claimed < $4 AND $9 IS NULL THEN
		RETURN QUERY SELECT * FROM pg_catalog.enterprise_connection_claim($1, $2, $3, $4 - claimed, $5, $6, $7, $8, moment);
	END IF;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_claim(name, oid, integer, integer, integer, oid, interval, bigint[], timestamptz)
IS 'claims requests for delivery; for pg_clerk''s own use';

/*
 * Requests that wait for what another one gives up may try again.  One that
 * another process has locked just now tries again by itself, a little later.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_wake(request bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.enterprise_connection_requests q SET next_attempt_at = clock_timestamp()
	WHERE q.id = ANY (ARRAY(SELECT w.id FROM @extschema@.enterprise_connection_requests w
		-- written like that, the state leads to no index
		WHERE w.awaits = $1 AND w.state || '' = 'queued' AND w.next_attempt_at < 'infinity' FOR UPDATE SKIP LOCKED));
EXCEPTION WHEN OTHERS THEN
	-- they look again by themselves, later
	RAISE DEBUG 'pg_clerk could not let requests go on that wait for %: %', $1, SQLERRM USING ERRCODE = SQLSTATE;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_wake(bigint)
IS 'lets requests go on that wait for another; for pg_clerk''s own use';

/*
 * The same for those that nobody has woken: what they wait for was superseded,
 * cancelled or purged, or they were locked just then.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_wake_missed() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	moment constant timestamptz := clock_timestamp();
BEGIN
	UPDATE @extschema@.enterprise_connection_requests q SET next_attempt_at = moment
	WHERE q.id = ANY (ARRAY(SELECT w.id FROM @extschema@.enterprise_connection_requests w
		-- in the order of the only index that has nothing else
		WHERE w.awaits IS NOT NULL AND w.state || '' = 'queued' AND w.next_attempt_at > moment AND w.next_attempt_at < 'infinity'
			AND ((SELECT a.state FROM @extschema@.enterprise_connection_requests a WHERE a.id = w.awaits)
				IN ('queued', 'sending', 'in_doubt')) IS NOT TRUE
		ORDER BY w.awaits LIMIT 1000 FOR UPDATE SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_wake_missed()
IS 'lets requests go on that wait for a finished one; for pg_clerk''s own use';

/*
 * Clerk has refused a request because another connection has one of its
 * domains, or its organization.  What next?
 *
 *	wait		awaits will give it up; or it is older, wants it as well, and
 *				has perhaps got it, as its outcome is not known
 *	exchange	each waits for the other: so it gives up first what it does
 *				not want any more, and keeps the domains that nobody else has
 *	again		each waits for the other, nothing can be given up first, and
 *				this is the oldest; or one that has perhaps got it is younger.
 *				Not for long: it is an attempt that counts
 *	refused		nobody is going to give it up
 *
 * Waiting is an edge from a request to awaits, and from there to the first of
 * its lane, which may wait as well: each waits for the other if that leads back
 * to this request.  (Edges of those that are being sent do not count: they will
 * look for themselves.)
 */
CREATE FUNCTION pg_catalog.enterprise_connection_in_the_way(
	request bigint, by_organization boolean, OUT verdict text, OUT awaits bigint, OUT keeps jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
-- a lane can be long: its index has the order
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = on SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	me       @extschema@.enterprise_connection_requests;
	mine     text[];
	holder   record;
	its_lane text;
	behind   record;
	looked   integer;
	gives_up bigint;
	head     record;
	oldest   bigint;
BEGIN
	SELECT * INTO me FROM @extschema@.enterprise_connection_requests q WHERE q.id = $1;
	mine := pg_catalog.enterprise_connection_domains(me.params);

	-- of each connection that is in the way, the first request that makes room
	FOR holder IN
		(SELECT k.server, k.id, k.key, k.domains FROM @extschema@.enterprise_connections k
		WHERE NOT $2 AND k.domains && mine AND cardinality(k.domains) <= 5000 LIMIT 1000)
		UNION ALL
		(SELECT k.server, k.id, k.key, NULL FROM @extschema@.enterprise_connections k
		WHERE $2 AND k.organization_id = me.params->>'organization_id' LIMIT 1000)
	LOOP
		CONTINUE WHEN holder.server <> me.server OR holder.id = me.connection_id;
		FOREACH its_lane IN ARRAY ARRAY['key ' || holder.key, 'id ' || holder.id] LOOP
			looked := 0;
			gives_up := NULL;
			FOR behind IN
				SELECT q.id, q.operation, q.params FROM @extschema@.enterprise_connection_requests q
				WHERE q.lane = its_lane AND q.server = me.server AND q.state IN ('queued', 'sending', 'in_doubt')
				ORDER BY q.lane, q.server, q.id LIMIT 1000
			LOOP
				looked := looked + 1;
				-- nobody looks further behind: it may be there
				IF looked = 1000 OR behind.operation = 'delete'
					OR ($2 AND behind.params->>'organization_id' <> me.params->>'organization_id')
					OR (NOT $2 AND behind.params ? 'domains' AND NOT pg_catalog.enterprise_connection_domains(behind.params) @>
						ARRAY(SELECT d.domain FROM unnest(holder.domains) d (domain) WHERE d.domain = ANY (mine)))
				THEN
					gives_up := behind.id;
					EXIT;
				END IF;
			END LOOP;
			CONTINUE WHEN gives_up IS NULL OR its_lane = me.lane;

			-- where does waiting for it lead to?
			oldest := me.id;
			FOR i IN 1..100 LOOP
				SELECT q.id, q.state, q.awaits INTO head FROM @extschema@.enterprise_connection_requests q
				WHERE q.lane = its_lane AND q.server = me.server AND q.state IN ('queued', 'sending', 'in_doubt')
				ORDER BY q.lane, q.server, q.id LIMIT 1;
				EXIT WHEN head.id = me.id OR head.state IS DISTINCT FROM 'queued' OR head.awaits IS NULL;
				oldest := least(oldest, head.id);
				SELECT q.lane INTO its_lane FROM @extschema@.enterprise_connection_requests q
				WHERE q.id = head.awaits AND q.state IN ('queued', 'sending', 'in_doubt');
				EXIT WHEN its_lane IS NULL;
			END LOOP;
			awaits := gives_up;
			IF head.id IS DISTINCT FROM me.id THEN
				verdict := 'wait';
				RETURN;
			END IF;
			verdict := CASE WHEN oldest < me.id THEN 'wait' ELSE coalesce(verdict, 'again') END;
		END LOOP;
	END LOOP;

	IF verdict IS NOT NULL THEN
		keeps := (SELECT jsonb_agg(d.domain ORDER BY d.n) FROM unnest(mine) WITH ORDINALITY d (domain, n)
			WHERE NOT EXISTS (SELECT FROM (SELECT k.server, k.id FROM @extschema@.enterprise_connections k
					WHERE k.domains && ARRAY[d.domain] AND cardinality(k.domains) <= 5000 LIMIT 1000) k
				WHERE k.server = me.server AND k.id <> me.connection_id));
		IF me.step = 'update' AND keeps IS NOT NULL AND EXISTS (SELECT FROM @extschema@.enterprise_connections k
				WHERE k.server = me.server AND k.id = me.connection_id AND NOT k.domains <@ mine) THEN
			verdict := 'exchange';
		ELSIF verdict = 'again' THEN
			awaits := NULL;
		END IF;
		RETURN;
	END IF;

	-- one that waits was refused itself, and has got nothing
	SELECT min(q.id) INTO awaits FROM (SELECT q.id FROM @extschema@.enterprise_connection_requests q
		WHERE NOT $2 AND lower((q.params->'domains')::text COLLATE "C")::jsonb ?| mine AND q.state IN ('queued', 'sending', 'in_doubt')
			AND CASE jsonb_typeof(q.params->'domains') WHEN 'array' THEN jsonb_array_length(q.params->'domains') <= 5000 END
			AND q.attempts > 0 AND (q.awaits IS NULL OR q.state <> 'queued') AND q.server = me.server AND q.id <> me.id
		UNION ALL
		SELECT q.id FROM @extschema@.enterprise_connection_requests q
		WHERE $2 AND q.state IN ('sending', 'in_doubt') AND q.server = me.server AND q.id <> me.id
			AND q.params->>'organization_id' = me.params->>'organization_id' OFFSET 0) q;
	verdict := CASE WHEN awaits < me.id THEN 'wait' WHEN awaits > me.id THEN 'again' ELSE 'refused' END;
	awaits := CASE WHEN awaits < me.id THEN awaits END;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_in_the_way(bigint, boolean)
IS 'what a request can wait for that Clerk has refused as a duplicate; for pg_clerk''s own use';

/*
 * A request that Clerk has refused: the next one of its key, if that is an
 * upsert or a delete that was not sent yet, takes it over, as if this one had
 * not been sent either.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_hand_over(id bigint, claimer integer, attempt integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	me   @extschema@.enterprise_connection_requests;
	next @extschema@.enterprise_connection_requests;
	head bigint;
BEGIN
	SELECT * INTO me FROM @extschema@.enterprise_connection_requests q
	WHERE q.id = $1 AND q.claimer = $2 AND q.attempts = $3 AND q.state || '' IN ('sending', 'in_doubt')
	FOR UPDATE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	SELECT q.id INTO head FROM @extschema@.enterprise_connection_requests q
	WHERE (q.lane, q.server, q.id) > (me.lane, me.server, me.id) AND (q.lane, q.server) <= (me.lane, me.server) AND q.lane IS NOT NULL
		AND q.state IN ('queued', 'sending', 'in_doubt')
	ORDER BY q.lane, q.server, q.id LIMIT 1;
	SELECT * INTO next FROM @extschema@.enterprise_connection_requests q WHERE q.id = head FOR UPDATE;
	IF head IS NULL OR next.state <> 'queued' OR next.attempts > 0 OR next.operation NOT IN ('upsert', 'delete')
		OR next.operation = 'upsert' AND (next.origin, next.role_oid) <> (me.origin, me.role_oid)
	THEN
		RETURN false;
	END IF;
	UPDATE @extschema@.enterprise_connection_requests q
	SET state = 'superseded', superseded_by = next.id, finished_at = clock_timestamp(), claimer = NULL, awaits = NULL,
		params = pg_catalog.enterprise_connection_without_secrets(q.params)
	WHERE q.id = me.id;
	UPDATE @extschema@.enterprise_connection_requests q
	SET params = CASE WHEN q.operation = 'upsert' THEN pg_catalog.enterprise_connection_params_merge(me.params, q.params) END,
		next_attempt_at = clock_timestamp()
	WHERE q.id = next.id;
	PERFORM pg_catalog.enterprise_connection_wake(me.id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_hand_over(bigint, integer, integer)
IS 'has a refused request taken over by the next one of its key; for pg_clerk''s own use';

/*
 * The outcome of an attempt.  counted: does it count?  Only if the claim is
 * still that of the attempt; null: somebody has the row locked, try again.
 * swept: the next of its lane may go on; false: somebody has that locked, so it
 * is for the sweep.  server: as it is called now.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_finish(
	id bigint, claimer integer, attempt integer, state text, step text, next_attempt_at timestamptz,
	uncounted boolean, connection_id text, http_status integer, error jsonb, doubt_since timestamptz, awaits bigint,
	OUT counted boolean, OUT swept boolean, OUT server name)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	ended constant boolean := $4 IN ('delivered', 'failed', 'cancelled');
	mine  bigint;
	its_lane text;
BEGIN
	SELECT q.id INTO mine FROM @extschema@.enterprise_connection_requests q WHERE q.id = $1 FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		counted := CASE WHEN NOT EXISTS (SELECT FROM @extschema@.enterprise_connection_requests q WHERE q.id = $1) THEN false END;
		RETURN;
	END IF;
	UPDATE @extschema@.enterprise_connection_requests q
	SET state = $4, step = coalesce($5, q.step), awaits = $12,
		-- what it wants to wait for may be finished by now
		next_attempt_at = CASE WHEN $12 IS NOT NULL AND NOT EXISTS (SELECT FROM @extschema@.enterprise_connection_requests a
				WHERE a.id = $12 AND a.state IN ('queued', 'sending', 'in_doubt'))
			THEN clock_timestamp() ELSE coalesce($6, q.next_attempt_at) END,
		attempts = greatest(q.attempts - CASE WHEN $7 THEN 1 ELSE 0 END, 0),
		connection_id = nullif(coalesce($8, q.connection_id), ''), http_status = $9, error = $10, doubt_since = $11,
		claimer = CASE WHEN $4 = 'sending' THEN q.claimer END,
		finished_at = CASE WHEN ended THEN clock_timestamp() END,
		params = CASE WHEN $4 IN ('delivered', 'cancelled')
			THEN pg_catalog.enterprise_connection_without_secrets(q.params) ELSE q.params END
	-- by the id: written like that, the state does not lead to a partial index
	WHERE q.id = $1 AND q.claimer = $2 AND q.attempts = $3 AND q.state || '' IN ('sending', 'in_doubt')
	RETURNING q.lane, q.server INTO its_lane, server;
	counted := FOUND;
	swept := true;
	IF counted AND ended AND its_lane IS NOT NULL THEN
		swept := pg_catalog.enterprise_connection_advance_lane(its_lane, server);
	END IF;
	IF counted AND ended AND EXISTS (SELECT FROM @extschema@.enterprise_connection_requests w WHERE w.awaits = $1) THEN
		PERFORM pg_catalog.enterprise_connection_wake($1);
	END IF;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_finish(bigint, integer, integer, text, text, timestamptz, boolean, text, integer, jsonb, timestamptz, bigint)
IS 'notes the outcome of an attempt to deliver a request; for pg_clerk''s own use';

/*
 * Requests whose process is gone.  A create may have been received, so it is
 * in doubt; the others can be sent again.  Neither before the end of the
 * lease: what is still on its way must not overtake what is sent then.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_recover(claimer integer) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	lost bigint;
BEGIN
	FOR lost IN SELECT q.id FROM @extschema@.enterprise_connection_requests q
		WHERE q.state IN ('sending', 'in_doubt') AND q.claimer = $1 FOR UPDATE SKIP LOCKED
	LOOP
		BEGIN
			UPDATE @extschema@.enterprise_connection_requests q
			SET state = CASE WHEN q.step = 'create' THEN 'in_doubt' ELSE 'queued' END,
				doubt_since = CASE WHEN q.step = 'create' THEN coalesce(q.doubt_since, q.started_at) END,
				claimer = NULL, awaits = NULL
			WHERE q.id = lost;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'pg_clerk could not take back request %: %', lost, SQLERRM USING ERRCODE = SQLSTATE;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_recover(integer)
IS 'takes back the requests of a process that is gone; for pg_clerk''s own use';

/*
 * Requests in doubt whose time to be looked up has come, of one role.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_claim_doubts(server name, claimer integer, role oid, aside bigint[])
RETURNS SETOF @extschema@.enterprise_connection_requests
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	moment constant timestamptz := clock_timestamp();
	first  record;
	doubt  @extschema@.enterprise_connection_requests;
BEGIN
	-- with the key of who enqueued them: so those of one role
	SELECT f.origin, f.role_oid, f.role INTO first FROM @extschema@.enterprise_connection_requests f
	WHERE f.server = $1 AND f.state = 'in_doubt' AND f.claimer IS NULL AND f.next_attempt_at <= moment AND f.id <> ALL ($4)
		AND ($3 IS NULL OR pg_catalog.enterprise_connection_is_of(f.origin, f.role_oid, f.role, $3))
	-- one that somebody has locked must not hold up other roles
	ORDER BY f.id LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	FOR doubt IN SELECT d.* FROM @extschema@.enterprise_connection_requests d
		WHERE d.server = $1 AND d.state = 'in_doubt' AND d.claimer IS NULL AND d.next_attempt_at <= moment AND d.id <> ALL ($4)
			AND (d.origin, d.role_oid, d.role) = (first.origin, first.role_oid, first.role)
		LIMIT 1000 FOR UPDATE SKIP LOCKED
	LOOP
		BEGIN
			UPDATE @extschema@.enterprise_connection_requests q SET claimer = $2, attempts = q.attempts + 1
			WHERE q.id = doubt.id RETURNING * INTO doubt;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'pg_clerk could not claim request %: %', doubt.id, SQLERRM USING ERRCODE = SQLSTATE;
		END;
		RETURN NEXT doubt;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_claim_doubts(name, integer, oid, bigint[])
IS 'claims requests whose outcome is to be looked up; for pg_clerk''s own use';

CREATE FUNCTION pg_catalog.enterprise_connection_purge(finished_before timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	old record;
	n   integer := 0;
BEGIN
	FOR old IN SELECT q.id, q.state FROM @extschema@.enterprise_connection_requests q
		WHERE q.finished_at < $1 AND (q.state <> 'failed' OR q.params IS DISTINCT FROM
			pg_catalog.enterprise_connection_without_secrets(q.params))
		ORDER BY q.finished_at LIMIT 1000 FOR UPDATE SKIP LOCKED
	LOOP
		BEGIN
			-- what failed stays until it is cancelled, but its secrets do not
			IF old.state = 'failed' THEN
				UPDATE @extschema@.enterprise_connection_requests q
				SET params = pg_catalog.enterprise_connection_without_secrets(q.params), scrubbed = true
				WHERE q.id = old.id;
			ELSE
				DELETE FROM @extschema@.enterprise_connection_requests q WHERE q.id = old.id;
			END IF;
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'pg_clerk could not clear request %: %', old.id, SQLERRM USING ERRCODE = SQLSTATE;
		END;
	END LOOP;
	RETURN n < 1000;
END
$$;
COMMENT ON FUNCTION pg_catalog.enterprise_connection_purge(timestamptz)
IS 'deletes finished requests, and the secrets of failed ones; for pg_clerk''s own use';

REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_params_merge(jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_without_secrets(jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_domains(jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_wake(bigint) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_wake_missed() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_in_the_way(bigint, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_hand_over(bigint, integer, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_advance_lane(text, name) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_sweep_lanes(text, name, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_claim(name, oid, integer, integer, integer, oid, interval, bigint[], timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_finish(bigint, integer, integer, text, text, timestamptz, boolean, text, integer, jsonb, timestamptz, bigint) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_recover(integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_claim_doubts(name, integer, oid, bigint[]) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.enterprise_connection_purge(timestamptz) FROM PUBLIC;

CREATE FUNCTION @extschema@.enqueue_enterprise_connection(
	operation text,
	params    jsonb DEFAULT NULL,
	key       text DEFAULT NULL,
	id        text DEFAULT NULL,
	server    name DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.enqueue_enterprise_connection(text, jsonb, text, text, name)
IS 'puts a create, update, upsert or delete into the outbox; it is delivered after this transaction commits';

CREATE FUNCTION @extschema@.await_enterprise_connection(request bigint, timeout interval DEFAULT '30s')
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.await_enterprise_connection(bigint, interval)
IS 'waits until a request is delivered and returns the connection, or that it is deleted; raises the error of one that failed; NULL when the time is up';

CREATE FUNCTION @extschema@.retry_enterprise_connection_request(id bigint, params jsonb DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.retry_enterprise_connection_request(bigint, jsonb)
IS 'queues a failed request again, with new parameters if they are given';

CREATE FUNCTION @extschema@.cancel_enterprise_connection_request(id bigint)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cancel_enterprise_connection_request(bigint)
IS 'cancels a request that is not on its way';

CREATE PROCEDURE @extschema@.deliver_enterprise_connections()
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE @extschema@.deliver_enterprise_connections()
IS 'delivers what is due in the outbox, in this session, as far as the caller has the privileges of who enqueued it';

CREATE FUNCTION @extschema@.sync_enterprise_connection() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.sync_enterprise_connection()
IS 'trigger function: AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW; enqueues what makes the row''s enterprise connection follow the row';
REVOKE EXECUTE ON FUNCTION @extschema@.sync_enterprise_connection() FROM PUBLIC;

CREATE FUNCTION @extschema@.backfill_enterprise_connections("table" regclass, trigger name) RETURNS bigint
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.backfill_enterprise_connections(regclass, name)
IS 'enqueues an upsert for each row that a sync_enterprise_connection trigger would find ready; returns their number';

/*
 * What an operator looks at.
 */
CREATE VIEW @extschema@.enterprise_connection_status WITH (security_barrier) AS
SELECT coalesce(c.server, q.server) AS server, coalesce(c.key, q.key) AS key,
	coalesce(c.id, q.connection_id) AS id, c.name, c.organization_id, c.domains, c.active,
	q.id AS request, q.operation, q.shown_state AS state, q.attempts, q.next_attempt_at, q.created_at AS enqueued_at,
	q.finished_at, q.http_status, q.error->>'message' AS error, q.error->>'hint' AS hint, c.synced_at
FROM (SELECT k.*, coalesce('key ' || k.key, 'id ' || k.id) AS lane FROM @extschema@.enterprise_connections k
	WHERE pg_has_role('pg_monitor', 'USAGE')
		OR k.server IN (SELECT s.srvname FROM pg_foreign_server s WHERE has_server_privilege(s.oid, 'USAGE'))) c
FULL JOIN (SELECT DISTINCT ON (r.server, coalesce(r.lane, 'id ' || r.connection_id, 'request ' || r.id))
		coalesce(r.lane, 'id ' || r.connection_id, 'request ' || r.id) AS request_lane,
		CASE WHEN r.finished_at IS NULL AND NOT @extschema@.enterprise_connection_is_armed(r.server) THEN 'held' ELSE r.state END AS shown_state, r.*
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
SELECT r.server, CASE WHEN r.finished_at IS NULL AND NOT a.armed THEN 'held' ELSE r.state END AS state, count(*) AS requests, min(r.created_at) AS oldest,
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
