-- The parameters of a connection: what becomes of them on their way into a
-- request body, and what is said when they are wrong.
SET client_min_messages = warning;

--
-- The first published form of a create, word for word.
--
SELECT jsonb_pretty(enterprise_connection_body('{"name": "Google", "organizationId": "org_123",
 "oidc": {"authUrl": "https://example.com/auth", "clientId": "1234567890", "clientSecret": "1234567890",
          "discoveryUrl": "https://example.com/discovery", "requiresPkce": false,
          "tokenUrl": "https://example.com/token", "userInfoUrl": "https://example.com/userinfo"}}'));

--
-- Every parameter: alone and together, in both spellings, for both operations.
--
-- "on": c = create, u = update.  "nulls": where an explicit null is taken.
CREATE TEMP TABLE parameter (n serial, path text, type text, "on" text, nulls text);
INSERT INTO parameter (path, type, "on", nulls) VALUES
	('name', 'text', 'cu', 'u'),
	('provider', 'text', 'c', ''),
	('domains', 'text[]', 'cu', 'u'),
	('organization_id', 'text', 'cu', 'cu'),
	('active', 'boolean', 'cu', 'cu'),
	('sync_user_attributes', 'boolean', 'u', 'u'),
	('disable_additional_identifications', 'boolean', 'u', 'u'),
	('allow_organization_account_linking', 'boolean', 'cu', 'cu'),
	('authenticatable', 'boolean', 'cu', 'cu'),
	('disable_jit_provisioning', 'boolean', 'cu', 'cu'),
	('custom_attributes', 'object[]', 'cu', 'u'),
	('custom_attributes.name', 'text', 'cu', ''),
	('custom_attributes.key', 'text', 'cu', ''),
	('custom_attributes.sso_path', 'text', 'cu', ''),
	('custom_attributes.scim_path', 'text', 'cu', ''),
	('custom_attributes.directory_path', 'text', 'cu', ''),
	('custom_attributes.multi_valued', 'boolean', 'cu', ''),
	('oidc', 'object', 'cu', 'cu'),
	('oidc.auth_url', 'text', 'cu', 'cu'),
	('oidc.client_id', 'text', 'cu', 'cu'),
	('oidc.client_secret', 'text', 'cu', 'cu'),
	('oidc.discovery_url', 'text', 'cu', 'cu'),
	('oidc.requires_pkce', 'boolean', 'cu', 'cu'),
	('oidc.token_url', 'text', 'cu', 'cu'),
	('oidc.user_info_url', 'text', 'cu', 'cu'),
	('saml', 'object', 'cu', 'cu'),
	('saml.allow_idp_initiated', 'boolean', 'cu', 'cu'),
	('saml.allow_subdomains', 'boolean', 'cu', 'cu'),
	('saml.attribute_mapping', 'object', 'cu', 'cu'),
	('saml.attribute_mapping.user_id', 'text', 'cu', 'cu'),
	('saml.attribute_mapping.email_address', 'text', 'cu', 'cu'),
	('saml.attribute_mapping.first_name', 'text', 'cu', 'cu'),
	('saml.attribute_mapping.last_name', 'text', 'cu', 'cu'),
	('saml.force_authn', 'boolean', 'cu', 'cu'),
	('saml.idp_certificate', 'text', 'cu', 'cu'),
	('saml.idp_certificates', 'text[]', 'cu', 'cu'),
	('saml.idp_entity_id', 'text', 'cu', 'cu'),
	('saml.idp_metadata', 'text', 'cu', 'cu'),
	('saml.idp_metadata_url', 'text', 'cu', 'cu'),
	('saml.idp_sso_url', 'text', 'cu', 'cu'),
	('saml.login_hint', 'object', 'cu', 'cu'),
	('saml.login_hint.mode', 'text', 'cu', ''),
	('saml.login_hint.source', 'text', 'cu', ''),
	('saml.name', 'text', 'u', 'u');

CREATE FUNCTION pg_temp.camel(name text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN n = 1 THEN part ELSE initcap(part) END, '' ORDER BY n)
	FROM regexp_split_to_table(name, '_') WITH ORDINALITY AS t (part, n)
$$;

-- An object with one value at a dotted path, in one of the spellings.
CREATE FUNCTION pg_temp.nested(path text, value jsonb, camel boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	part text;
	name text;
	result jsonb := value;
	first boolean := true;
BEGIN
	FOR part IN SELECT p FROM regexp_split_to_table(path, '\.') WITH ORDINALITY AS t (p, n) ORDER BY n DESC
	LOOP
		IF NOT first AND part = 'custom_attributes' THEN
			result := jsonb_build_array(result);
		END IF;
		name := CASE WHEN camel THEN pg_temp.camel(part) ELSE part END;
		result := jsonb_build_object(name, result);
		first := false;
	END LOOP;
	RETURN result;
END
$$;

CREATE FUNCTION pg_temp.example(type text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE type
		WHEN 'text' THEN '"x"' WHEN 'boolean' THEN 'false' WHEN 'text[]' THEN '["a", "b"]'
		WHEN 'object' THEN '{}' WHEN 'object[]' THEN '[]' WHEN 'number' THEN '1.50' END::jsonb
$$;

-- What a create sends, alone.  (What only an update takes is not in its POST.)
SELECT path, enterprise_connection_body(pg_temp.nested(path, pg_temp.example(type)))
FROM parameter ORDER BY n;

-- camelCase is the same as snake_case.
SELECT operation, count(*) AS tried,
	count(*) FILTER (WHERE enterprise_connection_body(pg_temp.nested(path, pg_temp.example(type), true), operation) =
		enterprise_connection_body(pg_temp.nested(path, pg_temp.example(type)), operation)) AS same
FROM parameter, (VALUES ('create', 'c'), ('update', 'u')) AS o (operation, letter)
WHERE "on" LIKE '%' || letter || '%' GROUP BY operation ORDER BY operation;

-- An update sends what it gets; a create adds no more than the provider.
SELECT count(*) AS tried,
	count(*) FILTER (WHERE enterprise_connection_body(p, 'update') = p) AS verbatim
FROM (SELECT pg_temp.nested(path, pg_temp.example(type)) AS p FROM parameter WHERE "on" LIKE '%u%') AS t;
SELECT count(*) AS tried,
	count(*) FILTER (WHERE enterprise_connection_body(p) - 'provider' = p - 'provider') AS verbatim
FROM (SELECT pg_temp.nested(path, pg_temp.example(type)) AS p FROM parameter WHERE "on" LIKE '%c%') AS t;

-- All together.
CREATE TEMP TABLE complete AS SELECT camel,
	lower(regexp_replace(camel, '([a-z])([A-Z])(?=[A-Za-z]*":)', '\1_\2', 'g'))::jsonb AS snake
FROM (VALUES (
	'{"name": "acme", "provider": "saml_okta", "domains": ["acme.example", "acme.test"], "organizationId": "org_1",
	  "active": true, "syncUserAttributes": true, "disableAdditionalIdentifications": false,
	  "allowOrganizationAccountLinking": true, "authenticatable": true, "disableJitProvisioning": false,
	  "customAttributes": [{"name": "dept", "key": "dept", "ssoPath": "d", "scimPath": "e", "directoryPath": "e",
	                        "multiValued": true}, {"name": "cost", "key": "cost"}],
	  "oidc": {"authUrl": "a", "clientId": "b", "clientSecret": "c", "discoveryUrl": "d", "requiresPkce": true,
	           "tokenUrl": "e", "userInfoUrl": "f"},
	  "saml": {"allowIdpInitiated": true, "allowSubdomains": true, "forceAuthn": true,
	           "attributeMapping": {"userId": "u", "emailAddress": "e", "firstName": "f", "lastName": null},
	           "idpCertificate": "g", "idpCertificates": ["h", "i"], "idpEntityId": "j", "idpMetadata": "k",
	           "idpMetadataUrl": "l", "idpSsoUrl": "m", "name": "n",
	           "loginHint": {"mode": "custom_attribute", "source": "s"}}}')) AS t (camel);
SELECT jsonb_pretty(enterprise_connection_body(camel::jsonb)) FROM complete;
SELECT enterprise_connection_body(snake) = enterprise_connection_body(camel::jsonb) AS same_in_snake_case,
	enterprise_connection_body(camel::jsonb - 'provider', 'update') = snake - 'provider' AS update_sends_all,
	enterprise_connection_body(camel::jsonb) = snake - 'sync_user_attributes' - 'disable_additional_identifications'
		#- '{saml,name}' AS create_sends_the_rest
FROM complete;

--
-- Spelling, as Clerk's SDKs convert it.
--
SELECT key, enterprise_connection_body(jsonb_build_object(key, 'x')) AS body
FROM (VALUES ('organizationId'), ('organization_id'), ('organizationID'), ('OrganizationId'), ('organization-id'),
	('organization.id'), ('ORGANIZATION_ID'), ('organization__id'), ('_organization_id')) AS t (key);
SELECT key, enterprise_connection_body(jsonb_build_object(key, 'x'), 'create',
	'{user_id, x509_cert, foo_bar, idp_ssourl, already_snake, nested_2}') AS body
FROM (VALUES ('userID'), ('x509Cert'), ('foo-bar'), ('foo.bar'), ('idpSSOURL'), ('already_snake'), ('nested_2')) AS t (key);

--
-- The provider follows from the protocol; with both or none Clerk has to ask.
--
SELECT p AS params, enterprise_connection_body(p)->'provider' AS provider
FROM unnest(ARRAY['{"name": "x"}', '{"oidc": {}}', '{"saml": {}}', '{"saml": {}, "oidc": {}}', '{"saml": null, "oidc": {}}',
	'{"saml": {}, "oidc": null}', '{"saml": null}', '{"saml": {"name": "x"}}', '{"saml": {}, "provider": "saml_google"}',
	'{"saml": {}, "provider": "from_next_year"}']::jsonb[]) AS p;
SELECT enterprise_connection_body('{"saml": {}}', 'update');

-- What only an update takes is left out of a create: a PATCH follows it.
SELECT p AS params, enterprise_connection_body(p) AS body
FROM unnest(ARRAY['{"name": "x", "syncUserAttributes": true, "disableAdditionalIdentifications": null}',
	'{"saml": {"name": "x"}}', '{"saml": {}}', '{"saml": {"name": "x", "force_authn": true}}',
	'{"sync_user_attributes": true}']::jsonb[]) AS p;

--
-- An explicit null is sent where Clerk takes one.
--
SELECT operation, path, message
FROM parameter, (VALUES ('create', 'c'), ('update', 'u')) AS o (operation, letter),
	check_enterprise_connection(pg_temp.nested(parameter.path, 'null'), operation) AS fault (at, message, hint)
ORDER BY operation, n;
SELECT operation, count(*) AS tried,
	count(*) FILTER (WHERE pg_temp.nested(path, 'null') = enterprise_connection_body(pg_temp.nested(path, 'null'), operation)
		- CASE operation WHEN 'create' THEN 'provider' ELSE '' END) AS sent
FROM parameter, (VALUES ('create', 'c'), ('update', 'u')) AS o (operation, letter)
WHERE nulls LIKE '%' || letter || '%' GROUP BY operation ORDER BY operation;
SELECT enterprise_connection_body('{"domains": ["a", null]}');
SELECT enterprise_connection_body('{"custom_attributes": [null]}');

--
-- Types.
--
SELECT path, message, hint
FROM (SELECT DISTINCT ON (type) n, path, type FROM parameter ORDER BY type, n) AS p,
	(VALUES ('text'), ('number'), ('boolean'), ('text[]'), ('object')) AS g (given),
	check_enterprise_connection(pg_temp.nested(p.path, pg_temp.example(given))) AS fault (at, message, hint)
WHERE p.type <> given
ORDER BY n, given;
-- each parameter refuses each other type, naming itself
SELECT count(*) AS tried, count(*) FILTER (WHERE replace(at, '[0]', '') = path) AS refused
FROM parameter,
	(VALUES ('text'), ('number'), ('boolean'), ('text[]'), ('object')) AS g (given),
	LATERAL (SELECT (array_agg(f.path))[1] AS at
		FROM check_enterprise_connection(pg_temp.nested(parameter.path, pg_temp.example(given))) AS f) AS fault
WHERE type <> given AND NOT (type = 'object[]' AND given = 'text[]');
SELECT enterprise_connection_body('{"domains": ["a", 1], "custom_attributes": [{}, "x", {"key": {}}]}');

--
-- Unknown names, and what was probably meant.
--
\pset format unaligned
SELECT f.* FROM unnest(ARRAY[
	'{"nmae": 1}', '{"domain": []}', '{"organisationId": ""}', '{"syncUserAttribute": true}',
	'{"saml": {"idpMetdataUrl": ""}}', '{"saml": {"idp_metdata_url": ""}}', '{"saml": {"loginHint": {"modus": ""}}}',
	'{"saml": {"attributeMapping": {"mail_address": ""}}}', '{"customAttributes": [{}, {"multiValue": true}]}',
	'{"idp_metadata_url": ""}', '{"idpMetdataUrl": ""}', '{"clientSecret": ""}', '{"userId": ""}', '{"ssoPath": ""}',
	'{"saml": {"organization_id": ""}}', '{"saml": {"client_id": ""}}', '{"oidc": {"name": ""}}',
	'{"saml_connection": {}}', '{"oauth_config": {}}',
	'{"quux": 1}', '{"saml": {"quux": 1}}', '{"custom_attributes": [{"quux": 1}]}', '{"": 1}', '{"-": 1}',
	'{"name\n": 1}', '{"n\u00e4me": 1}', '{"name\u00e9": 1}', '{"\u200bname": 1}', '{"\"name\"": 1}']::jsonb[]) AS p,
	check_enterprise_connection(p) AS f;
-- a name that is much too long is cut
SELECT path, message FROM check_enterprise_connection(jsonb_build_object(repeat('long', 1000), 1));
-- create-only names are not offered to an update
SELECT * FROM check_enterprise_connection('{"provder": "x"}', 'update');
SELECT message FROM check_enterprise_connection('{"provder": "x"}', 'create');

-- the names in a hint are spelled as the caller does: as in the unknown name, else
-- as around it, else as anywhere
SELECT f.path, left(f.hint, 90) AS hint FROM unnest(ARRAY[
	'{"organizationId": "x", "quux": 1}', '{"organization_id": "x", "quux": 1}',
	'{"quux": 1, "saml": {"idpSsoUrl": "x"}}', '{"organizationId": "x", "saml": {"idp_sso": "x"}}',
	'{"organization_id": "x", "saml": {"idpSso": "x"}}', '{"organizationId": "x", "saml": {"sso_path": "x", "ssoPath": "x", "source": "x"}}',
	'{"saml": {"loginHint": {"client_secret": "x", "ssopath": "x"}}}', '{"saml": {"login-hint": {"ssopath": "x"}}}',
	'{"customAttributes": [{"ssopath": "x"}]}']::jsonb[]) AS p, check_enterprise_connection(p) AS f;

\pset format aligned

--
-- Other faults.
--
SELECT enterprise_connection_body('{"organizationId": "a", "organization_id": "b"}');
SELECT f.* FROM check_enterprise_connection('{"saml": {"idpSsoUrl": "a", "idp_sso_url": "a", "idp-sso-url": "b"}}') AS f;
SELECT enterprise_connection_body('{}');
SELECT enterprise_connection_body('[]');
SELECT enterprise_connection_body('null');
SELECT enterprise_connection_body('"{\"name\": \"Acme\"}"');
SELECT enterprise_connection_body('{"domains": []}', 'update');
SELECT enterprise_connection_body('{"domains": []}', 'create');
SELECT enterprise_connection_body('{"provider": "saml_okta"}', 'update');
SELECT enterprise_connection_body('{"name": "x"}', 'delete');
SELECT enterprise_connection_body('{"name": "x"}', NULL);
-- several at once: one error; all of them as a table
SELECT enterprise_connection_body('{"name": 1, "active": "true", "domains": "x", "nmae": 1, "saml": {"force_authn": 0}}');
SELECT * FROM check_enterprise_connection('{"name": 1, "active": "true", "domains": "x", "nmae": 1, "saml": {"force_authn": 0}}');
SELECT * FROM check_enterprise_connection('{"name": "fine"}');
-- the path is the error's column name, for programs
DO $$
DECLARE
	at text;
BEGIN
	PERFORM enterprise_connection_body('{"saml": {"forceAuthn": 1}}');
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS at = COLUMN_NAME;
	RAISE WARNING 'at %', at;
END
$$;
-- the value is in no message
SELECT enterprise_connection_body('{"oidc": {"clientSecret": ["sk-very-secret"], "client_secrt": "sk-very-secret"}}');

-- NULL is not a connection with nothing given: a CHECK wants NULL for NULL.
SELECT enterprise_connection_body(NULL) IS NULL AS body, message FROM check_enterprise_connection(NULL);
CREATE TEMP TABLE customer (sso jsonb CHECK (enterprise_connection_body(sso) <> '{}'));
INSERT INTO customer VALUES ('{"name": "Acme", "domains": ["acme.example"]}'), (NULL);
INSERT INTO customer VALUES ('{"name": "Acme", "domians": ["acme.example"]}');
CREATE INDEX ON customer (enterprise_connection_body(sso));

--
-- extra_params: what is newer than this release.
--
SELECT enterprise_connection_body('{"newOne": {"deepKey": [1.10, null]}, "name": "x",
	"saml": {"newTwo": null, "loginHint": {"new-three": "x", "mode": "off"}, "attribute_mapping": {"new_six": 1}},
	"oidc": {"newFour": 123456789012345678901234567890.123456789},
	"custom_attributes": [{"new_five": 1e300}, {"newFive": []}]}', 'create',
	'{newOne, saml.new_two, saml.loginHint.newThree, oidc.new_four, custom_attributes.new_five, saml.attribute_mapping.new_six}');
-- only at their place, in one spelling at a time
SELECT message FROM check_enterprise_connection('{"new_one": 1, "saml": {"new_one": 1, "new_two": 2, "newTwo": 2}}', 'update',
	'{saml.new_two,new_one}') AS f;
-- one that is known by now
SELECT enterprise_connection_body('{"saml": {"force_authn": 1}}', 'create', '{saml.force_authn}');
SELECT enterprise_connection_body('{"name": "x"}', 'create', '{foo.bar}');
SELECT enterprise_connection_body('{"name": "x"}', 'create', '{"foo, bar"}');
SELECT enterprise_connection_body('{"name": "x"}', 'create', '{saml.}');
SELECT enterprise_connection_body('{"name": "x"}', 'create', '{NULL}');
SELECT enterprise_connection_body('{"name": "x"}', 'create', '{}'), enterprise_connection_body('{"name": "x"}', 'create', NULL);

--
-- Values arrive as they are.
--
SELECT what, enterprise_connection_body(p) = p AS unchanged
FROM (SELECT what, jsonb_build_object('name', value, 'domains', jsonb_build_array(value)) AS p FROM (VALUES
	('empty', ''),
	('emoji', U&'\+01F600 \+01F468\200D\+01F469'),
	('right to left', U&'\202Eabc\05D0\05D1'),
	('line separators', U&'a\2028b\2029c\0085'),
	('quotes', $q$"'\/\\"$q$),
	('noncharacter', U&'\FFFF\+10FFFF\FFFD'),
	('del', E'\x7f')) AS v (what, value)
	UNION ALL
	SELECT 'control characters', jsonb_build_object('name', c, 'domains', jsonb_build_array(c))
	FROM (SELECT string_agg(chr(i), '') FROM generate_series(1, 31) AS i) AS t (c)) AS t;
SELECT enterprise_connection_body(jsonb_build_object('saml', jsonb_build_object('idp_certificate',
	E'-----BEGIN CERTIFICATE-----\r\nMIIC+/=\n\n-----END CERTIFICATE-----\n')), 'update');
SELECT enterprise_connection_body('{"name": "\u0001\b\t\n\f\r\u001f\"\\/"}');

-- Several megabytes, some of it to be escaped.
SELECT length(m), md5(m) = md5(enterprise_connection_body(jsonb_build_object('saml', jsonb_build_object('idpMetadata', m)))
	#>> '{saml,idp_metadata}') AS unchanged
FROM (SELECT repeat(E'<md:Entity id="\u00e4">\n\t', 300000)) AS t (m);
SELECT length(m), md5(m) = md5(enterprise_connection_body(jsonb_build_object('name', m)) ->> 'name') AS unchanged
FROM (SELECT repeat(E'\x01"', 1000000)) AS t (m);

-- Hostile shapes: nested too deeply, too many members, too many elements.
CREATE FUNCTION pg_temp.deep(levels int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT ('{"deep": ' || repeat('[', levels - 1) || repeat(']', levels - 1) || '}')::jsonb
$$;
SELECT jsonb_typeof(enterprise_connection_body(pg_temp.deep(64), 'create', '{deep}'));
SELECT enterprise_connection_body(pg_temp.deep(65), 'create', '{deep}');
SELECT enterprise_connection_body(pg_temp.deep(2000), 'create', '{deep}');
SELECT * FROM check_enterprise_connection(pg_temp.deep(2000));
SELECT count(*), min(message), (array_agg(message))[101] AS last
FROM check_enterprise_connection((SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 100000) AS i));
SELECT enterprise_connection_body((SELECT jsonb_object_agg('k' || i, i) FROM generate_series(10, 25) AS i));
SELECT count(*), (array_agg(path))[100] AS path, (array_agg(message))[101] AS last
FROM check_enterprise_connection(jsonb_build_object('domains', (SELECT jsonb_agg(i) FROM generate_series(1, 100000) AS i)));
SELECT jsonb_array_length(enterprise_connection_body(jsonb_build_object('customAttributes',
	(SELECT jsonb_agg(jsonb_build_object('name', 'n' || i, 'ssoPath', i::text)) FROM generate_series(1, 20000) AS i))) -> 'custom_attributes');

--
-- Untyped parameters, as drivers send them.
--
PREPARE body AS SELECT enterprise_connection_body($1);
EXECUTE body('{"name": "x"}');
PREPARE body_update AS SELECT enterprise_connection_body($1, $2, $3);
EXECUTE body_update('{"organizationId": null, "new": 1}', 'update', '{new}');
PREPARE problems AS SELECT count(*) FROM check_enterprise_connection($1);
EXECUTE problems('{"nmae": "x"}');
SELECT enterprise_connection_body(operation => 'update', params => '{"active": false}');

--
-- A short fuzz: names, spellings and values put together at random (the same
-- ones each time, on each release).  Nothing crashes; what is right stays as
-- it is when it is read again; the two functions agree.
--
CREATE FUNCTION pg_temp.dice(seed text, sides int) RETURNS int LANGUAGE sql IMMUTABLE AS $$
	SELECT (('x' || substr(md5(seed), 1, 7))::bit(28)::int % sides)
$$;
CREATE FUNCTION pg_temp.random_value(seed text, type text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE WHEN pg_temp.dice(seed || 'right', 12) > 0 THEN pg_temp.example(type)
		ELSE (ARRAY['null', '"x"', '1e5', 'true', '[]', '{}', '[null]', '{"name": {}}', '"\u00e4\n"', '[[1]]'])[1 + pg_temp.dice(seed || 'value', 10)]::jsonb END
$$;
CREATE FUNCTION pg_temp.merged(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE WHEN jsonb_typeof(a) = 'object' AND jsonb_typeof(b) = 'object' THEN
		(SELECT coalesce(jsonb_object_agg(key, CASE WHEN a ? key AND b ? key AND jsonb_typeof(a -> key) = 'object' AND jsonb_typeof(b -> key) = 'object'
				THEN (a -> key) || (b -> key) ELSE coalesce(b -> key, a -> key) END), '{}')
		 FROM (SELECT jsonb_object_keys(a) UNION SELECT jsonb_object_keys(b)) AS k (key))
	ELSE b END
$$;
CREATE FUNCTION pg_temp.random_params(seed text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result jsonb := '{}';
	p record;
BEGIN
	FOR i IN 1 .. pg_temp.dice(seed || 'count', 6) LOOP
		SELECT path, type INTO p FROM parameter WHERE n = 1 + pg_temp.dice(seed || i, 44);
		IF pg_temp.dice(seed || i || 'typo', 40) = 0 THEN
			p.path := overlay(p.path PLACING '~' FROM 1 + pg_temp.dice(seed || i || 'at', length(p.path)) FOR 1);
		END IF;
		result := pg_temp.merged(result, pg_temp.nested(p.path, pg_temp.random_value(seed || i, p.type), pg_temp.dice(seed || i || 'camel', 2) = 0));
	END LOOP;
	RETURN result;
END
$$;
CREATE FUNCTION pg_temp.fuzz(rounds int, OUT valid boolean, OUT refused boolean, OUT disagree int, OUT changed int) LANGUAGE plpgsql AS $$
DECLARE
	params jsonb;
	body jsonb;
	operation text;
	faults int;
	n_valid int := 0;
	n_refused int := 0;
BEGIN
	disagree := 0;
	changed := 0;
	FOR i IN 1 .. rounds LOOP
		params := pg_temp.random_params(i::text);
		operation := (ARRAY['create', 'update'])[1 + i % 2];
		SELECT count(*) INTO faults FROM check_enterprise_connection(params, operation);
		BEGIN
			body := enterprise_connection_body(params, operation);
			n_valid := n_valid + 1;
			disagree := disagree + (faults > 0)::int;
			-- with both protocols the one that goes into the PATCH is not in the body
			IF body <> '{}' AND NOT params ?& '{oidc,saml}' THEN
				changed := changed + (enterprise_connection_body(body, operation) <> body)::int;
			END IF;
		EXCEPTION WHEN invalid_parameter_value THEN
			n_refused := n_refused + 1;
			disagree := disagree + (faults = 0)::int;
		END;
	END LOOP;
	valid := n_valid > rounds / 5;
	refused := n_refused > rounds / 5;
END
$$;
SELECT * FROM pg_temp.fuzz(2000);
