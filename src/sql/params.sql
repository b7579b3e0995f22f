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
IS 'one element of custom_attributes: an attribute of the identity provider that is copied to the user''s profile; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.name IS 'display name; Clerk requires it';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.key IS 'name of the attribute in the user''s public metadata; Clerk requires it';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.sso_path IS 'path of the value in the SAML assertion or the OIDC claims';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.scim_path IS 'path of the value in SCIM user resources; older name of directory_path';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.directory_path IS 'path of the value in user resources of the directory synchronization';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.multi_valued IS 'whether there can be several values; they are stored as an array';
COMMENT ON COLUMN @extschema@.enterprise_connection_custom_attribute.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

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
IS 'OIDC parameters of an enterprise connection; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.auth_url IS 'authorization endpoint of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.client_id IS 'client id that the identity provider has given';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.client_secret IS 'client secret that the identity provider has given; never shown by pg_clerk';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.discovery_url IS 'discovery document of the identity provider, from which Clerk takes its endpoints';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.requires_pkce IS 'whether PKCE is required; must be true for a client without a secret';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.token_url IS 'token endpoint of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.user_info_url IS 'userinfo endpoint of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_oidc.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

CREATE TYPE @extschema@.enterprise_connection_attribute_mapping AS (
	user_id text,
	email_address text,
	first_name text,
	last_name text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_attribute_mapping
IS 'which SAML attribute has which property of a user; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_attribute_mapping.user_id IS 'SAML attribute with the user''s id';
COMMENT ON COLUMN @extschema@.enterprise_connection_attribute_mapping.email_address IS 'SAML attribute with the e-mail address';
COMMENT ON COLUMN @extschema@.enterprise_connection_attribute_mapping.first_name IS 'SAML attribute with the first name';
COMMENT ON COLUMN @extschema@.enterprise_connection_attribute_mapping.last_name IS 'SAML attribute with the last name';
COMMENT ON COLUMN @extschema@.enterprise_connection_attribute_mapping.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

CREATE TYPE @extschema@.enterprise_connection_login_hint AS (
	mode text,
	source text,
	more jsonb
);
COMMENT ON TYPE @extschema@.enterprise_connection_login_hint
IS 'login hint that a SAML identity provider is sent at sign-in; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_login_hint.mode IS 'email_address, custom_attribute or off';
COMMENT ON COLUMN @extschema@.enterprise_connection_login_hint.source IS 'the custom attribute that is sent, where mode is custom_attribute';
COMMENT ON COLUMN @extschema@.enterprise_connection_login_hint.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

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
IS 'SAML parameters of an enterprise connection; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.allow_idp_initiated IS 'whether a sign-in may begin at the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.allow_subdomains IS 'whether users of subdomains of the domains can sign in, too';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.attribute_mapping IS 'which SAML attribute has which property of a user';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.force_authn IS 'whether the identity provider must ask the user to sign in each time';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_certificate IS 'certificate with which the identity provider signs';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_certificates IS 'certificates with which the identity provider signs, such as an old and a new one; replaces idp_certificate';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_entity_id IS 'entity id of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_metadata IS 'SAML metadata of the identity provider, as XML';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_metadata_url IS 'URL from which Clerk reads the SAML metadata of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.idp_sso_url IS 'sign-in URL of the identity provider';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.login_hint IS 'login hint that the identity provider is sent';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.name IS 'display name of the SAML connection; a create sends it in a PATCH of its own';
COMMENT ON COLUMN @extschema@.enterprise_connection_saml.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

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
IS 'parameters of an enterprise connection; NULL attributes are left out';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.name IS 'display name';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.provider IS 'identity provider, such as saml_okta or oidc_custom; if NULL, it follows from oidc or saml';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.domains IS 'e-mail domains whose users sign in through the connection';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.organization_id IS 'the Clerk organization that it is linked to';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.active IS 'whether users can sign in through it';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.sync_user_attributes IS 'whether users'' attributes are updated at each sign-in; a create sends it in a PATCH of its own';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.disable_additional_identifications IS 'whether its users cannot add other identifications; a create sends it in a PATCH of its own';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.allow_organization_account_linking IS 'whether accounts can be linked by membership in the organization';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.authenticatable IS 'whether the connection can be used to sign in';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.disable_jit_provisioning IS 'whether no user is created at the first sign-in';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.custom_attributes IS 'attributes of the identity provider that are copied to the user''s profile';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.oidc IS 'OIDC parameters';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.saml IS 'SAML parameters';
COMMENT ON COLUMN @extschema@.enterprise_connection_params.more IS 'what is newer than this type, or an explicit null: an object whose members are merged in';

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
IS 'the request body that a create or update with these params would send; raises an error if they are wrong; NULL for NULL; without what a create sends in a PATCH of its own';

CREATE FUNCTION @extschema@.check_enterprise_connection(
	params jsonb,
	operation text DEFAULT 'create',
	extra_params text[] DEFAULT NULL
)
RETURNS TABLE (path text, message text, hint text)
AS 'MODULE_PATHNAME', 'check_enterprise_connection'
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5;
COMMENT ON FUNCTION @extschema@.check_enterprise_connection(jsonb, text, text[])
IS 'every fault in the params of a create or update, a row each; no row if they are right';
