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
 * array.  With the casts, comparing as jsonb would be as good a match, and
 * "=" would be "not unique".  So each type has "=" and "<>" of its own, which
 * are those of records and arrays.  IN, IS DISTINCT FROM, NULLIF and CASE find
 * them by their names.  They are in no operator class: sorting, grouping and
 * unique indexes look for a class instead of a name, and find PostgreSQL's own
 * for records and arrays, whose equality is the same function.
 *
 * A cast is found whatever search_path is, so the operators have to be as
 * well: they stand beside those for record, in pg_catalog, with their
 * functions.
 */
DO $install$
DECLARE
	template CONSTANT text := $template$
CREATE FUNCTION pg_catalog.enterprise_connection_to_jsonb({type}) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS '{library}', 'enterprise_connection_{kind}_to_jsonb';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_to_jsonb({type})
IS 'parameters as jsonb: NULL attributes left out, the members of "more" merged in';

CREATE CAST ({type} AS jsonb) WITH FUNCTION pg_catalog.enterprise_connection_to_jsonb({type}) AS IMPLICIT;
COMMENT ON CAST ({type} AS jsonb)
IS 'parameters as jsonb: NULL attributes left out, the members of "more" merged in';

CREATE FUNCTION pg_catalog.enterprise_connection_eq({type}, {type}) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS '{kind}_eq';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_eq({type}, {type}) IS 'implementation of = operator';

CREATE FUNCTION pg_catalog.enterprise_connection_ne({type}, {type}) RETURNS boolean
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS '{kind}_ne';
COMMENT ON FUNCTION pg_catalog.enterprise_connection_ne({type}, {type}) IS 'implementation of <> operator';

CREATE OPERATOR pg_catalog.= (LEFTARG = {type}, RIGHTARG = {type}, FUNCTION = pg_catalog.enterprise_connection_eq,
	COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= ({type}, {type}) IS 'equal, compared as any {kind}';

CREATE OPERATOR pg_catalog.<> (LEFTARG = {type}, RIGHTARG = {type}, FUNCTION = pg_catalog.enterprise_connection_ne,
	COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> ({type}, {type}) IS 'not equal, compared as any {kind}';
$template$;
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['params', 'oidc', 'saml', 'attribute_mapping', 'login_hint', 'custom_attribute',
		'custom_attribute[]']
	LOOP
		EXECUTE replace(replace(replace(template,
			'{type}', '@extschema@.enterprise_connection_' || name),
			'{kind}', CASE WHEN name = 'custom_attribute[]' THEN 'array' ELSE 'record' END),
			'{library}', 'MODULE_PATHNAME');
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
