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
