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
	reactivate           boolean NOT NULL DEFAULT false,
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
COMMENT ON COLUMN @extschema@.enterprise_connections.reactivate IS 'it was active when its row stopped being ready, and is to be active again with the row';
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
 * What an older and a newer document say together, at any depth. Of a
 * connection: an answer can lack members that an earlier one had (Clerk leaves
 * details out of some), so what is absent stays. Of parameters: what two
 * upserts of a key, one after the other, ask for.
 */
CREATE FUNCTION pg_catalog.enterprise_connection_merge(older jsonb, newer jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_merge(jsonb, jsonb)
IS 'an older document with a newer one merged in; for pg_clerk''s own use';

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
 * The outbox: requests that are delivered after commit.  The states are drawn
 * in src/outbox/states.c.  Their order is used: what may be on its way comes
 * first, so that the first unfinished row of a lane says whether the lane is
 * busy, and else is the one whose turn it is.
 */
CREATE TYPE @extschema@.enterprise_connection_operation AS ENUM ('create', 'update', 'upsert', 'delete', 'deactivate', 'reactivate');
CREATE TYPE @extschema@.enterprise_connection_step AS ENUM ('create', 'complete', 'update', 'delete');
CREATE TYPE @extschema@.enterprise_connection_state AS ENUM (
	'sending', 'in_doubt', 'queued', 'failed', 'delivered', 'superseded', 'cancelled');
COMMENT ON TYPE @extschema@.enterprise_connection_operation IS 'what a request of the outbox is to do; deactivate and reactivate: of a trigger whose row stops being ready, or is ready again';
COMMENT ON TYPE @extschema@.enterprise_connection_step IS 'what an attempt of a request is to do; complete: a PATCH that follows a create';
COMMENT ON TYPE @extschema@.enterprise_connection_state IS 'the state of a request of the outbox';

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
	xact            xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	CHECK ((finished_at IS NULL) = (state <= 'queued')),
	CHECK (state <> 'sending' OR claimer IS NOT NULL AND step IS NOT NULL)
)
-- a row is updated twice: in its own page that is cheaper
WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.enterprise_connection_requests
IS 'the outbox: requests to Clerk that are delivered after commit; written by pg_clerk only';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role IS 'who enqueued it; needs USAGE on the server when it is delivered';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.origin IS 'the database that it was enqueued in, as enterprise_connection_origin(): here, roles are known by their oids, so that a new role of an old name inherits nothing; elsewhere, by their names';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.role_oid IS 'oid of the role, where it was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.server_oid IS 'oid of the server, where it was enqueued';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.timeline IS 'timeline of the server, when it was enqueued; a create with another origin, server_oid or timeline than today''s may have been sent from there, and is looked up first; 0: it may have been sent from here';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.key IS 'the caller''s own identity for the connection; requests of one key are delivered in order';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.connection_id IS 'the connection''s id at Clerk, once it is known';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.params IS 'the parameters; without their secrets when delivered, superseded or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.priority IS 'what is due goes out in the order of this number; bulk work has a higher one than what people wait for';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.state IS 'queued, sending, in_doubt (outcome unknown, will be looked up), delivered, failed, superseded or cancelled';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.next_attempt_at IS 'not before this time; of one that is being sent: when it cannot be on its way any more; infinity: when the one of its key before it is finished';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.finished_at IS 'null as long as it is to be delivered';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.error IS 'why the last attempt failed: sqlstate, message, detail, hint, status, trace_id, errors';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.step IS 'what the last attempt was to do: create, complete (a PATCH after a create), update or delete';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.doubt_since IS 'when the create was sent whose outcome is not known';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.lane IS 'what is delivered in order: the key, else the id';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.claimer IS 'the process that delivers it';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.superseded_by IS 'the newer upsert that took over its parameters; of one that had failed: the later request of its key that was sent';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.scrubbed IS 'failed so long ago that the secrets are gone from its params';
COMMENT ON COLUMN @extschema@.enterprise_connection_requests.xact IS 'the transaction that enqueued it';

-- what is due
CREATE INDEX enterprise_connection_requests_due_idx ON @extschema@.enterprise_connection_requests
	(server, priority, next_attempt_at, id) WHERE finished_at IS NULL;
-- the order in a lane, and what has failed there
CREATE INDEX enterprise_connection_requests_lane_idx ON @extschema@.enterprise_connection_requests
	(server, lane, state, id) WHERE lane IS NOT NULL AND state <= 'failed';
-- lanes in which something waits for the one before it
CREATE INDEX enterprise_connection_requests_behind_idx ON @extschema@.enterprise_connection_requests
	(server, lane) WHERE finished_at IS NULL AND next_attempt_at = 'infinity';
-- what is to be cleared away
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

CREATE FUNCTION pg_catalog.enterprise_connection_without_secrets(params jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_without_secrets(jsonb)
IS 'parameters without the values that are secret';

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
IS 'puts a create, update, upsert or delete into the outbox; it is delivered after this transaction commits';

CREATE FUNCTION @extschema@.await_enterprise_connection(request bigint, timeout interval DEFAULT '30s')
RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.await_enterprise_connection(bigint, interval)
IS 'waits until a request is delivered and returns the connection, or that it is deleted; raises the error of one that failed; NULL when the time is up; woken at once with shared_preload_libraries, else it looks every 20 ms';

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
