\echo Use "CREATE EXTENSION pg_clerk" to load this file. \quit

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
 * Which database each server was armed in.  Dumped with the database, so that
 * a copy finds out that it is one.
 */
CREATE TABLE @extschema@.enterprise_connection_origins (
	server            name PRIMARY KEY,
	system_identifier bigint NOT NULL,
	database          oid NOT NULL,
	armed_at          timestamptz NOT NULL,
	armed_by          name NOT NULL
);
COMMENT ON TABLE @extschema@.enterprise_connection_origins
IS 'the database that each server was armed in at its first use; a copy of that database sends nothing';
COMMENT ON COLUMN @extschema@.enterprise_connection_origins.server IS 'name of the foreign server';
COMMENT ON COLUMN @extschema@.enterprise_connection_origins.system_identifier IS 'of the database cluster, as in pg_control_system()';
COMMENT ON COLUMN @extschema@.enterprise_connection_origins.database IS 'oid of the database';
COMMENT ON COLUMN @extschema@.enterprise_connection_origins.armed_at IS 'when the server was first used here, or armed by its owner';
COMMENT ON COLUMN @extschema@.enterprise_connection_origins.armed_by IS 'the role that did so';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.enterprise_connection_origins', '');

CREATE FUNCTION @extschema@.arm_enterprise_connections(server name) RETURNS void
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.arm_enterprise_connections(name)
IS 'lets this copy of a database speak to Clerk through the server; only for the server''s owner';


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
	PRIMARY KEY (server, id),
	-- not the other way round: no plan shall take it for the primary key
	UNIQUE (key, server)
);
CREATE INDEX enterprise_connections_organization_id_idx
	ON @extschema@.enterprise_connections (organization_id);
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

ALTER TABLE @extschema@.enterprise_connection_origins ENABLE ROW LEVEL SECURITY;
CREATE POLICY server_usage ON @extschema@.enterprise_connection_origins FOR SELECT
USING (server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s
				  WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE')));
GRANT SELECT ON @extschema@.enterprise_connection_origins TO PUBLIC;

/*
 * What is known of a connection after an answer: an answer can lack members
 * that an earlier one had (Clerk leaves details out of some), so what is
 * absent stays, also inside saml_connection and oauth_config.
 */
CREATE FUNCTION @extschema@.enterprise_connection_merge(known jsonb, answer jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT $1 || $2
		|| CASE WHEN jsonb_typeof($1->'saml_connection') = 'object' AND jsonb_typeof($2->'saml_connection') = 'object'
			THEN jsonb_build_object('saml_connection', ($1->'saml_connection') || ($2->'saml_connection')) ELSE '{}' END
		|| CASE WHEN jsonb_typeof($1->'oauth_config') = 'object' AND jsonb_typeof($2->'oauth_config') = 'object'
			THEN jsonb_build_object('oauth_config', ($1->'oauth_config') || ($2->'oauth_config')) ELSE '{}' END;
END;
COMMENT ON FUNCTION @extschema@.enterprise_connection_merge(jsonb, jsonb)
IS 'a known connection with a newer answer; for pg_clerk''s own use';

CREATE FUNCTION @extschema@.track_enterprise_connection(connection jsonb, server name, key text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.track_enterprise_connection(jsonb, name, text)
IS 'inserts or updates a tracking row from a connection as Clerk''s API answers it; for pg_clerk''s own use';

REVOKE EXECUTE ON FUNCTION @extschema@.enterprise_connection_merge(jsonb, jsonb) FROM PUBLIC;
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
