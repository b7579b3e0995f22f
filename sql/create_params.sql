-- create_enterprise_connection: each parameter and each text arrives at Clerk as it
-- was given.
SET timezone = 'UTC';
\set VERBOSITY default

--
-- Every parameter, alone, in four forms: the body that is recorded is the one
-- that is expected.  The answers are scripted, so that it is not about what
-- the server accepts.
--
SELECT mock.reset();
SELECT mock.script('[
    {"match": {"method": "POST"}, "times": 0, "status": 201, "body": {"object": "enterprise_connection", "name": "Any", "provider": "saml_custom", "id": "entconn_any"}},
    {"match": {"method": "PATCH"}, "times": 0, "status": 200, "body": {"object": "enterprise_connection", "name": "Any", "provider": "saml_custom", "id": "entconn_any"}}]');

CREATE TEMP TABLE parameter (
    n     int GENERATED ALWAYS AS IDENTITY,
    camel jsonb,                -- as it is written in camelCase
    snake jsonb,                -- and in snake_case
    post  jsonb,                -- NULL: the same as snake
    patch jsonb                 -- NULL: none
);
INSERT INTO parameter (camel, snake, post, patch) VALUES
    ('{"name": "Acme"}', '{"name": "Acme"}', NULL, NULL),
    ('{"name": ""}', '{"name": ""}', NULL, NULL),
    ('{"provider": "saml_okta"}', '{"provider": "saml_okta"}', NULL, NULL),
    ('{"provider": "not_known_yet"}', '{"provider": "not_known_yet"}', NULL, NULL),
    ('{"domains": ["a.example", "b.example"]}', '{"domains": ["a.example", "b.example"]}', NULL, NULL),
    ('{"domains": []}', '{"domains": []}', NULL, NULL),
    ('{"organizationId": "org_1"}', '{"organization_id": "org_1"}', NULL, NULL),
    ('{"active": true}', '{"active": true}', NULL, NULL),
    ('{"active": false}', '{"active": false}', NULL, NULL),
    ('{"syncUserAttributes": false}', '{"sync_user_attributes": false}',
     '{}', '{"sync_user_attributes": false}'),
    ('{"disableAdditionalIdentifications": true}', '{"disable_additional_identifications": true}',
     '{}', '{"disable_additional_identifications": true}'),
    ('{"allowOrganizationAccountLinking": true}', '{"allow_organization_account_linking": true}', NULL, NULL),
    ('{"authenticatable": false}', '{"authenticatable": false}', NULL, NULL),
    ('{"disableJitProvisioning": true}', '{"disable_jit_provisioning": true}', NULL, NULL),
    ('{"customAttributes": []}', '{"custom_attributes": []}', NULL, NULL),
    ('{"customAttributes": [{"name": "Dept"}]}', '{"custom_attributes": [{"name": "Dept"}]}', NULL, NULL),
    ('{"customAttributes": [{"key": "dept"}]}', '{"custom_attributes": [{"key": "dept"}]}', NULL, NULL),
    ('{"customAttributes": [{"ssoPath": "d"}]}', '{"custom_attributes": [{"sso_path": "d"}]}', NULL, NULL),
    ('{"customAttributes": [{"scimPath": "d"}]}', '{"custom_attributes": [{"scim_path": "d"}]}', NULL, NULL),
    ('{"customAttributes": [{"directoryPath": "d"}]}', '{"custom_attributes": [{"directory_path": "d"}]}', NULL, NULL),
    ('{"customAttributes": [{"multiValued": false}, {"multiValued": true}]}',
     '{"custom_attributes": [{"multi_valued": false}, {"multi_valued": true}]}', NULL, NULL),
    ('{"oidc": {}}', '{"oidc": {}}', '{"provider": "oidc_custom", "oidc": {}}', NULL),
    ('{"oidc": {"authUrl": "u"}}', '{"oidc": {"auth_url": "u"}}',
     '{"provider": "oidc_custom", "oidc": {"auth_url": "u"}}', NULL),
    ('{"oidc": {"clientId": "i"}}', '{"oidc": {"client_id": "i"}}',
     '{"provider": "oidc_custom", "oidc": {"client_id": "i"}}', NULL),
    ('{"oidc": {"clientSecret": "s"}}', '{"oidc": {"client_secret": "s"}}',
     '{"provider": "oidc_custom", "oidc": {"client_secret": "s"}}', NULL),
    ('{"oidc": {"discoveryUrl": "u"}}', '{"oidc": {"discovery_url": "u"}}',
     '{"provider": "oidc_custom", "oidc": {"discovery_url": "u"}}', NULL),
    ('{"oidc": {"requiresPkce": false}}', '{"oidc": {"requires_pkce": false}}',
     '{"provider": "oidc_custom", "oidc": {"requires_pkce": false}}', NULL),
    ('{"oidc": {"tokenUrl": "u"}}', '{"oidc": {"token_url": "u"}}',
     '{"provider": "oidc_custom", "oidc": {"token_url": "u"}}', NULL),
    ('{"oidc": {"userInfoUrl": "u"}}', '{"oidc": {"user_info_url": "u"}}',
     '{"provider": "oidc_custom", "oidc": {"user_info_url": "u"}}', NULL),
    ('{"saml": {}}', '{"saml": {}}', '{"provider": "saml_custom", "saml": {}}', NULL),
    ('{"saml": {"allowIdpInitiated": true}}', '{"saml": {"allow_idp_initiated": true}}',
     '{"provider": "saml_custom", "saml": {"allow_idp_initiated": true}}', NULL),
    ('{"saml": {"allowSubdomains": false}}', '{"saml": {"allow_subdomains": false}}',
     '{"provider": "saml_custom", "saml": {"allow_subdomains": false}}', NULL),
    ('{"saml": {"attributeMapping": {"userId": "u"}}}', '{"saml": {"attribute_mapping": {"user_id": "u"}}}',
     '{"provider": "saml_custom", "saml": {"attribute_mapping": {"user_id": "u"}}}', NULL),
    ('{"saml": {"attributeMapping": {"emailAddress": "e"}}}', '{"saml": {"attribute_mapping": {"email_address": "e"}}}',
     '{"provider": "saml_custom", "saml": {"attribute_mapping": {"email_address": "e"}}}', NULL),
    ('{"saml": {"attributeMapping": {"firstName": "f"}}}', '{"saml": {"attribute_mapping": {"first_name": "f"}}}',
     '{"provider": "saml_custom", "saml": {"attribute_mapping": {"first_name": "f"}}}', NULL),
    ('{"saml": {"attributeMapping": {"lastName": "l"}}}', '{"saml": {"attribute_mapping": {"last_name": "l"}}}',
     '{"provider": "saml_custom", "saml": {"attribute_mapping": {"last_name": "l"}}}', NULL),
    ('{"saml": {"forceAuthn": true}}', '{"saml": {"force_authn": true}}',
     '{"provider": "saml_custom", "saml": {"force_authn": true}}', NULL),
    ('{"saml": {"idpCertificate": "c"}}', '{"saml": {"idp_certificate": "c"}}',
     '{"provider": "saml_custom", "saml": {"idp_certificate": "c"}}', NULL),
    ('{"saml": {"idpCertificates": ["c", "d"]}}', '{"saml": {"idp_certificates": ["c", "d"]}}',
     '{"provider": "saml_custom", "saml": {"idp_certificates": ["c", "d"]}}', NULL),
    ('{"saml": {"idpEntityId": "e"}}', '{"saml": {"idp_entity_id": "e"}}',
     '{"provider": "saml_custom", "saml": {"idp_entity_id": "e"}}', NULL),
    ('{"saml": {"idpMetadata": "<m/>"}}', '{"saml": {"idp_metadata": "<m/>"}}',
     '{"provider": "saml_custom", "saml": {"idp_metadata": "<m/>"}}', NULL),
    ('{"saml": {"idpMetadataUrl": "u"}}', '{"saml": {"idp_metadata_url": "u"}}',
     '{"provider": "saml_custom", "saml": {"idp_metadata_url": "u"}}', NULL),
    ('{"saml": {"idpSsoUrl": "u"}}', '{"saml": {"idp_sso_url": "u"}}',
     '{"provider": "saml_custom", "saml": {"idp_sso_url": "u"}}', NULL),
    ('{"saml": {"loginHint": {"mode": "off"}}}', '{"saml": {"login_hint": {"mode": "off"}}}',
     '{"provider": "saml_custom", "saml": {"login_hint": {"mode": "off"}}}', NULL),
    ('{"saml": {"loginHint": {"source": "d"}}}', '{"saml": {"login_hint": {"source": "d"}}}',
     '{"provider": "saml_custom", "saml": {"login_hint": {"source": "d"}}}', NULL),
    ('{"saml": {"name": "N"}}', '{"saml": {"name": "N"}}',
     '{"provider": "saml_custom"}', '{"saml": {"name": "N"}}'),
    ('{"saml": {"name": "N", "forceAuthn": false}}', '{"saml": {"name": "N", "force_authn": false}}',
     '{"provider": "saml_custom", "saml": {"force_authn": false}}', '{"saml": {"name": "N"}}'),
    ('{"provider": "saml_okta", "saml": {}, "oidc": {}}', '{"provider": "saml_okta", "saml": {}, "oidc": {}}', NULL, NULL),
    -- all together
    ('{"name": "All", "provider": "saml_okta", "domains": ["all.example"], "organizationId": "org_1", "active": true,
       "syncUserAttributes": true, "disableAdditionalIdentifications": false, "allowOrganizationAccountLinking": true,
       "authenticatable": true, "disableJitProvisioning": false,
       "customAttributes": [{"name": "Dept", "key": "dept", "ssoPath": "a", "scimPath": "b", "directoryPath": "b", "multiValued": true}],
       "oidc": {"authUrl": "a", "clientId": "b", "clientSecret": "c", "discoveryUrl": "d", "requiresPkce": true,
                "tokenUrl": "e", "userInfoUrl": "f"},
       "saml": {"allowIdpInitiated": true, "allowSubdomains": true, "forceAuthn": true, "idpCertificate": "a",
                "attributeMapping": {"userId": "b", "emailAddress": "c", "firstName": "d", "lastName": "e"},
                "idpCertificates": ["f"], "idpEntityId": "g", "idpMetadata": "h", "idpMetadataUrl": "i", "idpSsoUrl": "j",
                "loginHint": {"mode": "custom_attribute", "source": "dept"}, "name": "k"}}',
     '{"name": "All", "provider": "saml_okta", "domains": ["all.example"], "organization_id": "org_1", "active": true,
       "sync_user_attributes": true, "disable_additional_identifications": false, "allow_organization_account_linking": true,
       "authenticatable": true, "disable_jit_provisioning": false,
       "custom_attributes": [{"name": "Dept", "key": "dept", "sso_path": "a", "scim_path": "b", "directory_path": "b", "multi_valued": true}],
       "oidc": {"auth_url": "a", "client_id": "b", "client_secret": "c", "discovery_url": "d", "requires_pkce": true,
                "token_url": "e", "user_info_url": "f"},
       "saml": {"allow_idp_initiated": true, "allow_subdomains": true, "force_authn": true, "idp_certificate": "a",
                "attribute_mapping": {"user_id": "b", "email_address": "c", "first_name": "d", "last_name": "e"},
                "idp_certificates": ["f"], "idp_entity_id": "g", "idp_metadata": "h", "idp_metadata_url": "i", "idp_sso_url": "j",
                "login_hint": {"mode": "custom_attribute", "source": "dept"}, "name": "k"}}',
     '{"name": "All", "provider": "saml_okta", "domains": ["all.example"], "organization_id": "org_1", "active": true,
       "allow_organization_account_linking": true, "authenticatable": true, "disable_jit_provisioning": false,
       "custom_attributes": [{"name": "Dept", "key": "dept", "sso_path": "a", "scim_path": "b", "directory_path": "b", "multi_valued": true}],
       "oidc": {"auth_url": "a", "client_id": "b", "client_secret": "c", "discovery_url": "d", "requires_pkce": true,
                "token_url": "e", "user_info_url": "f"},
       "saml": {"allow_idp_initiated": true, "allow_subdomains": true, "force_authn": true, "idp_certificate": "a",
                "attribute_mapping": {"user_id": "b", "email_address": "c", "first_name": "d", "last_name": "e"},
                "idp_certificates": ["f"], "idp_entity_id": "g", "idp_metadata": "h", "idp_metadata_url": "i", "idp_sso_url": "j",
                "login_hint": {"mode": "custom_attribute", "source": "dept"}}}',
     '{"sync_user_attributes": true, "disable_additional_identifications": false, "saml": {"name": "k"}}');

-- the members of snake_case params as named arguments
CREATE FUNCTION pg_temp.named_arguments(params jsonb) RETURNS text
LANGUAGE sql AS $$
    SELECT string_agg(format('%I => %L::%s', key,
                             CASE WHEN key = 'domains' THEN ARRAY(SELECT jsonb_array_elements_text(value))::text
                                  ELSE value #>> '{}' END,
                             CASE WHEN key = 'domains' THEN 'text[]'
                                  WHEN key IN ('saml', 'oidc', 'custom_attributes') THEN 'jsonb'
                                  WHEN jsonb_typeof(value) = 'boolean' THEN 'boolean'
                                  ELSE 'text' END), ', ')
    FROM jsonb_each(params)
$$;

CREATE TEMP TABLE sent (call int GENERATED ALWAYS AS IDENTITY, n int, form text, id text);
DO $$
DECLARE
    p parameter;
BEGIN
    FOR p IN SELECT * FROM parameter ORDER BY n LOOP
        INSERT INTO sent (n, form, id) VALUES (p.n, 'camelCase', create_enterprise_connection(p.camel)->>'id');
        INSERT INTO sent (n, form, id) VALUES (p.n, 'snake_case', create_enterprise_connection(p.snake)->>'id');
        -- (a composite without any attribute counts as NULL, and is left out)
        IF p.snake::text NOT LIKE '%{}%' THEN
            INSERT INTO sent (n, form, id) VALUES (p.n, 'composite',
                create_enterprise_connection(jsonb_populate_record(NULL::enterprise_connection_params, p.snake))->>'id');
        END IF;
        EXECUTE format('INSERT INTO sent (n, form, id) VALUES (%s, ''named'', create_enterprise_connection(%s)->>''id'')',
                       p.n, pg_temp.named_arguments(p.snake));
    END LOOP;
END
$$;

-- each PATCH belongs to the POST before it
CREATE TEMP TABLE received AS
    SELECT count(*) FILTER (WHERE method = 'POST') OVER (ORDER BY ordinality) AS call, method, target, body
    FROM mock.requests() WITH ORDINALITY;

SELECT form, count(DISTINCT call) AS calls, count(*) FILTER (WHERE method = 'POST') AS posts,
       count(patch) FILTER (WHERE method = 'POST') AS patches_expected,
       count(*) FILTER (WHERE method = 'PATCH') AS patches
FROM sent JOIN parameter USING (n) JOIN received USING (call)
GROUP BY form ORDER BY form;

-- what is not as expected: nothing
SELECT p.snake, s.form, r.method, r.target, r.body
FROM sent s
    JOIN parameter p USING (n)
    LEFT JOIN received r ON r.call = s.call
WHERE r.body IS DISTINCT FROM CASE r.method WHEN 'POST' THEN coalesce(p.post, p.snake) ELSE p.patch END
   OR r.target IS DISTINCT FROM '/v1/enterprise_connections' || CASE r.method WHEN 'PATCH' THEN '/entconn_any' ELSE '' END
   OR s.id IS DISTINCT FROM 'entconn_any';

-- enterprise_connection_body says the same beforehand
SELECT snake FROM parameter
WHERE enterprise_connection_body(camel) IS DISTINCT FROM coalesce(post, snake)
   OR enterprise_connection_body(snake) IS DISTINCT FROM coalesce(post, snake);

-- explicit nulls are sent where the API takes them
SELECT mock.forget();
SELECT create_enterprise_connection('{"organizationId": null, "active": null, "saml": {"idpCertificate": null,
    "attributeMapping": {"firstName": null}, "loginHint": null}, "syncUserAttributes": null}')->>'id' AS id;
SELECT create_enterprise_connection('{"saml": null, "oidc": null}')->>'id' AS id;
SELECT method, body FROM mock.requests();
SELECT f.state, f.message FROM (VALUES
    ('{"name": null}'), ('{"provider": null}'), ('{"domains": null}'), ('{"domains": [null]}'),
    ('{"customAttributes": null}'), ('{"customAttributes": [{"name": null}]}'), ('{"saml": {"loginHint": {"mode": null}}}')
) AS v (params), test.failure(format('SELECT create_enterprise_connection(%L)', params)) AS f;

--
-- Texts arrive unchanged
--
SELECT mock.reset();
TRUNCATE enterprise_connections;
CREATE TEMP TABLE words (what text, word text);
INSERT INTO words VALUES
    ('emoji', '👩‍👩‍👧‍👦 🔐'),
    ('right to left', 'شركة ‏אקמה‎ "x"'),
    ('line separators', U&'a\2028b\2029c\0085d'),
    ('beyond the BMP', U&'\+01D11E\+10FFFF'),
    ('combining', U&'e\0301 is not \00e9'),
    ('quotes', $q$"double" 'single' `back` \backslash\\ \" \u0041 $1 %s %d {{x}}$q$),
    ('control characters', (SELECT string_agg(chr(i), '' ORDER BY i) FROM generate_series(1, 31) AS i) || chr(127)),
    ('PEM', E'-----BEGIN CERTIFICATE-----\r\nMIIC+/==\r\n-----END CERTIFICATE-----\n'),
    ('markup', '<a href="x">&amp;</a>/</script>'),
    ('blanks', E'  \t leading and trailing \n\n '),
    ('noncharacter', U&'\FFFE\FFFF\FEFF');
SELECT mock.script('{"match": {"method": "POST"}, "times": 0, "status": 201, "body": {"object": "enterprise_connection", "name": "Any", "provider": "saml_custom", "id": "entconn_any"}}');
DO $$
DECLARE
    w words;
BEGIN
    FOR w IN SELECT * FROM words LOOP
        PERFORM create_enterprise_connection(jsonb_build_object('name', w.word, 'saml', jsonb_build_object('idp_certificate', w.word)));
        PERFORM create_enterprise_connection(name => w.word, saml => jsonb_build_object('idpCertificate', w.word));
    END LOOP;
END
$$;
SELECT what, count(*) AS arrived
FROM words LEFT JOIN mock.requests() ON body->>'name' = word AND body->'saml'->>'idp_certificate' = word
GROUP BY what ORDER BY what COLLATE "C";
-- and come back unchanged
SELECT mock.reset();
CREATE TEMP TABLE returned AS
    SELECT create_enterprise_connection(name => word, provider => 'saml_custom',
                                        domains => ARRAY[md5(what) || '.example']) AS connection FROM words;
SELECT count(*) AS words, count(connection) AS returned,
       (SELECT count(*) FROM words JOIN enterprise_connections c ON c.name = word AND connection->>'name' = word) AS tracked
FROM words LEFT JOIN returned ON connection->>'name' = word;

-- several MB of metadata
SELECT mock.reset();
SELECT length(create_enterprise_connection(name => 'Big', provider => 'saml_custom', domains => '{big.example}',
    saml => jsonb_build_object('idpMetadata', repeat('<EntityDescriptor>é"', 300000)))->>'name') AS name_length;
SELECT r->>'status' AS status, r->>'body_length' AS body_length,
       octet_length(enterprise_connection_body(jsonb_build_object('name', 'Big', 'provider', 'saml_custom',
           'domains', ARRAY['big.example'],
           'saml', jsonb_build_object('idpMetadata', repeat('<EntityDescriptor>é"', 300000))))::text)
       - (r->>'body_length')::int AS blanks_in_jsonb_text
FROM jsonb_array_elements(mock.call('GET', '/_mock/requests')) AS r;
