-- Settings: the options of servers and user mappings, pg_clerk.server, and
-- for which database a server is armed.
SELECT mock.reset('{"profile": "lenient", "secret_keys": ["sk_test_mock", "sk_test_other", "sk_live_mock"]}');
TRUNCATE enterprise_connections;
\set VERBOSITY default
SET client_min_messages = warning;      -- no "drop cascades to"

--
-- Options of a server
--
\pset format unaligned
SELECT option, value, f.state, f.message, f.hint
FROM (VALUES
    ('api_url', 'https://api.clerk.com'), ('api_url', 'https://proxy.example:8443/clerk/v1/'), ('api_url', 'http://127.0.0.1:8080'),
    ('api_url', 'http://127.9.9.9'), ('api_url', 'http://localhost'), ('api_url', 'http://[::1]:80'),
    ('api_url', 'http://api.clerk.com'), ('api_url', 'http://127.0.0.1.evil.example'), ('api_url', 'http://0.0.0.0'),
    ('api_url', 'http://localhost.evil.example'), ('api_url', 'http://127.0.0.1@evil.example'),
    ('api_url', 'ftp://127.0.0.1'), ('api_url', 'file:///etc/passwd'), ('api_url', 'api.clerk.com'), ('api_url', ''),
    ('api_url', 'https://'), ('api_url', 'https://user:pw@api.clerk.com'), ('api_url', 'https://api.clerk.com?x=1'),
    ('api_url', 'https://api.clerk.com#x'), ('api_url', E'https://api.clerk.com\nX-Evil: 1'), ('api_url', 'https://api clerk.com'),
    ('api_version', '2026-05-12'), ('api_version', ''), ('api_version', E'2026\nX-Evil: 1'),
    ('timeout', '30s'), ('timeout', '1500ms'), ('timeout', '1min'), ('timeout', '0.5 s'), ('timeout', '30'), ('timeout', '0s'),
    ('timeout', '-1s'), ('timeout', '2d'), ('timeout', '5 parsecs'), ('timeout', ''), ('timeout', 's'), ('timeout', '1 kB'),
    ('connect_timeout', '5s'), ('connect_timeout', '5'),
    ('max_retries', '0'), ('max_retries', '10'), ('max_retries', '11'), ('max_retries', '-1'), ('max_retries', 'two'), ('max_retries', '1.5'),
    ('max_concurrency', '32'), ('max_concurrency', '0'), ('max_concurrency', '501'),
    ('rate_limit', '0'), ('rate_limit', '50'), ('rate_limit', '-1'), ('rate_limit', '10/s'),
    ('max_response_size', '8MB'), ('max_response_size', '1048576'), ('max_response_size', '1kB'), ('max_response_size', '100'),
    ('max_response_size', '256MB'), ('max_response_size', '8 megabytes'), ('max_response_size', '10s'),
    ('ca_file', '/etc/ssl/ca.pem'), ('ca_file', 'ca.pem'), ('ca_file', ''),
    ('proxy', 'http://proxy.example:3128'), ('proxy', 'socks5h://127.0.0.1:1080'), ('proxy', 'proxy.example:3128'), ('proxy', 'ftp://proxy.example'),
    ('proxy', 'http://user:pw@proxy.example'), ('proxy', ''),
    ('extra_params', 'saml.new_one, foo'), ('extra_params', 'fooBar'), ('extra_params', ''), ('extra_params', 'a..b'), ('extra_params', 'a,,b'),
    ('extra_params', 'saml.new one'),
    ('timeuot', '1s'), ('apiurl', 'x'), ('nothing_like_it', 'x'),
    ('secret_key', 'sk_test_1'), ('secret_key_file', '/x')
) AS v (option, value),
    test.failure(format('CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (%I %L); DROP SERVER regress_try', option, value)) AS f;

-- a version of the server, and options of the wrapper
SELECT f.* FROM (VALUES
    ('CREATE SERVER regress_try TYPE ''t'' VERSION ''1'' FOREIGN DATA WRAPPER pg_clerk; DROP SERVER regress_try'),
    ('ALTER FOREIGN DATA WRAPPER pg_clerk OPTIONS (ADD timeout ''1s'')'),
    ('ALTER FOREIGN DATA WRAPPER pg_clerk OPTIONS (ADD secret_key ''sk_test_1'')'),
    ('ALTER FOREIGN DATA WRAPPER pg_clerk OPTIONS (ADD something ''x'')'),
    ('CREATE FOREIGN TABLE regress_try (x int) SERVER clerk OPTIONS (x ''y'')')
) AS v (statement), test.failure(statement) AS f;

--
-- Options of a user mapping; no message shows a key, not even a wrong one
--
CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk;
SELECT options, f.state, f.message, f.detail, f.hint
FROM (VALUES
    ($$secret_key 'sk_test_1'$$), ($$secret_key_file '/etc/clerk/key'$$), ($$secret_key ''$$), ($$secret_key 'pk_test_1'$$),
    ($$secret_key 'sk test 1'$$), ($$secret_key E'sk_test_1\n'$$), ($$secret_key 'sk_tést'$$), ($$secret_key_file 'key'$$), ($$secret_key_file ''$$),
    ($$secret_key 'sk_test_1', secret_key_file '/etc/clerk/key'$$), ($$secretkey 'sk_test_1'$$), ($$password 'sk_test_1'$$),
    ($$api_url 'https://api.clerk.com'$$)
) AS v (options),
    test.failure(format('CREATE USER MAPPING FOR PUBLIC SERVER regress_try OPTIONS (%s); DROP USER MAPPING FOR PUBLIC SERVER regress_try', options)) AS f;
SELECT f.state, f.message, f.hint, f.message || f.detail || f.hint LIKE '%' || repeat('k', 100) || '%' AS key_shown
FROM test.failure(format('CREATE USER MAPPING FOR PUBLIC SERVER regress_try OPTIONS (secret_key %L)', repeat('k', 2000))) AS f;

-- a file is read only for those who may read files anyway
CREATE ROLE regress_owner;
CREATE ROLE regress_reader IN ROLE pg_read_server_files;
GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO regress_owner, regress_reader;
SELECT current_setting('data_directory') || '/regress_clerk_key' AS key_file \gset
SET ROLE regress_owner;
SELECT f.* FROM (VALUES
    ('CREATE SERVER regress_owned FOREIGN DATA WRAPPER pg_clerk OPTIONS (ca_file ''/etc/passwd'')'),
    ('CREATE SERVER regress_owned FOREIGN DATA WRAPPER pg_clerk'),
    ('CREATE USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (secret_key_file ''/etc/passwd'')'),
    ('CREATE USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (secret_key ''sk_test_1'')'),
    ('ALTER USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (DROP secret_key, ADD secret_key_file ''/etc/passwd'')'),
    ('ALTER SERVER regress_owned OPTIONS (ADD ca_file ''/etc/passwd'')'),
    ('ALTER SERVER regress_owned OPTIONS (ADD api_url ''https://elsewhere.example'')')
) AS v (statement), test.failure(statement) AS f;
RESET ROLE;
-- set by a superuser, it can only be dropped
ALTER SERVER regress_owned OPTIONS (ADD ca_file '/etc/clerk/ca.pem');
ALTER USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (DROP secret_key, ADD secret_key_file '/etc/clerk/key');
SET ROLE regress_owner;
SELECT f.* FROM (VALUES
    ('ALTER USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (SET secret_key_file ''/etc/passwd'')'),
    ('ALTER USER MAPPING FOR PUBLIC SERVER regress_owned OPTIONS (DROP secret_key_file)'),
    ('ALTER SERVER regress_owned OPTIONS (SET api_url ''https://again.example'')'),
    ('ALTER SERVER regress_owned OPTIONS (SET api_url ''https://again.example'', DROP ca_file)')
) AS v (statement), test.failure(statement) AS f;
RESET ROLE;
SET ROLE regress_reader;
CREATE SERVER regress_read FOREIGN DATA WRAPPER pg_clerk OPTIONS (ca_file '/etc/ssl/ca.pem');
CREATE USER MAPPING FOR PUBLIC SERVER regress_read OPTIONS (secret_key_file '/etc/clerk/key');
DROP SERVER regress_read CASCADE;
RESET ROLE;
DROP SERVER regress_try, regress_owned CASCADE;
\pset format aligned

--
-- Where requests go
--
SELECT mock.forget();
SELECT url FROM mock.server \gset
DO $$
DECLARE
    u text := mock.url();
    variant text;
BEGIN
    FOREACH variant IN ARRAY ARRAY[u, u || '/', u || '/v1', u || '/v1/', u || '/v1//', u || '/prefix', u || '/prefix/v1', u || '/a/b/',
                                   u || '/v1/v1', u || '/av1', u || '/a%20b', replace(u, '127.0.0.1', 'localhost'), 'HTTP' || substr(u, 5)] LOOP
        EXECUTE format('CREATE SERVER regress_url FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url %L, rate_limit ''0'')', variant);
        CREATE USER MAPPING FOR PUBLIC SERVER regress_url OPTIONS (secret_key 'sk_test_mock');
        PERFORM create_enterprise_connection(name => regexp_replace(variant, ':\d+', ':<port>'), server => 'regress_url');
        DROP SERVER regress_url CASCADE;
    END LOOP;
END
$$;
SELECT body->>'name' AS api_url, target FROM mock.requests();

--
-- Changes are taken up at once, in prepared statements too
--
SELECT mock.forget();
CREATE SERVER regress_b FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0', api_version '2026-05-12');
CREATE USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (secret_key 'sk_test_mock');
PREPARE create_b AS SELECT create_enterprise_connection(name => $1, server => 'regress_b')->>'name' AS name;
EXECUTE create_b('before');
ALTER SERVER regress_b OPTIONS (SET api_version '2027-01-01');
EXECUTE create_b('another version');
ALTER SERVER regress_b OPTIONS (DROP api_version);
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (SET secret_key 'sk_test_other');
EXECUTE create_b('another key');
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (SET secret_key 'sk_test_wrong');
EXECUTE create_b('a wrong key');
-- a change that was rolled back never was
BEGIN;
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (SET secret_key 'sk_test_mock');
EXECUTE create_b('uncommitted');
ROLLBACK;
EXECUTE create_b('rolled back');
DROP USER MAPPING FOR PUBLIC SERVER regress_b;
EXECUTE create_b('no key');
CREATE USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (secret_key 'sk_test_mock');
EXECUTE create_b('again');
SELECT :'url' || '/moved' AS moved \gset
ALTER SERVER regress_b OPTIONS (SET api_url :'moved');
EXECUTE create_b('moved');
ALTER SERVER regress_b RENAME TO regress_c;
EXECUTE create_b('renamed');
ALTER SERVER regress_c RENAME TO regress_b;
SELECT body->>'name' AS name, target, headers->>'authorization' AS authorization, headers->>'clerk-api-version' AS version, status
FROM mock.requests();

-- extra_params
EXECUTE create_b('nothing extra');
PREPARE extra AS SELECT create_enterprise_connection('{"fooBar": {"aB": 1}, "saml": {"newOne": null, "forceAuthn": true}}', 'regress_b')->>'id' IS NOT NULL AS created;
SELECT state, message, detail FROM test.failure('EXECUTE extra');
ALTER SERVER regress_b OPTIONS (ADD extra_params 'foo_bar, saml.newOne');
SELECT mock.script('{"status": 201, "body": {"object": "enterprise_connection", "name": "Any", "provider": "saml_custom", "id": "entconn_extra"}}');
EXECUTE extra;
SELECT body FROM mock.requests() WHERE body ? 'foo_bar';
ALTER SERVER regress_b OPTIONS (SET extra_params 'foo_bar');
SELECT state, message, detail FROM test.failure('EXECUTE extra');
ALTER SERVER regress_b OPTIONS (DROP extra_params);

-- max_response_size and timeout
ALTER SERVER regress_b OPTIONS (ADD max_response_size '1kB', ADD timeout '1s');
SELECT mock.script('[{"status": 201, "fill": {"prefix": "{\"id\": \"entconn_7\", \"name\": \"", "size": 1025}}, {"hold": true}]');
SELECT f.state, f.message, regexp_replace(regexp_replace(f.detail, '^Operation timed out.*', '<libcurl>'),
                                          '201, \d+ bytes\)([^\n]*).*', '201, <n> bytes)\1') AS detail,
       f.detail LIKE '%id is "entconn_7"%' AS id_shown
FROM generate_series(1, 2) AS n, test.failure(format('EXECUTE create_b(%L)', n)) AS f;

--
-- pg_clerk.server
--
SHOW pg_clerk.server;
SELECT mock.reset('{"profile": "lenient"}');
SET pg_clerk.server = 'regress_b';
SELECT create_enterprise_connection(name => 'to b')->>'name' AS name;
SELECT create_enterprise_connection(name => 'to clerk', server => 'clerk')->>'name' AS name;
SET pg_clerk.server = 'no such';
SELECT create_enterprise_connection(name => 'to nowhere');
RESET pg_clerk.server;
SELECT server, name FROM enterprise_connections WHERE name LIKE 'to %' ORDER BY server;
SELECT target, body->>'name' AS name FROM mock.requests();

--
-- A role's own mapping counts for nothing
--
CREATE ROLE regress_app;
GRANT USAGE ON FOREIGN SERVER clerk TO regress_app;
SELECT mock.forget();
SET ROLE regress_app;
CREATE USER MAPPING FOR CURRENT_USER SERVER clerk OPTIONS (secret_key 'sk_test_of_another_instance');
SELECT create_enterprise_connection(name => 'with the key of all')->>'name' AS name;
RESET ROLE;
SELECT headers->>'authorization' AS authorization, status FROM mock.requests();
DROP USER MAPPING FOR regress_app SERVER clerk;

--
-- The key in a file: read at each use; no message names it
--
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (DROP secret_key, ADD secret_key_file :'key_file');
ALTER SERVER regress_b OPTIONS (SET api_url :'url', SET timeout '30s');
SELECT mock.reset('{"profile": "lenient", "secret_keys": ["sk_test_1", "sk_test_2"]}');
CREATE FUNCTION pg_temp.write_key(content bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    file text := current_setting('data_directory') || '/regress_clerk_key';
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', translate(encode(content, 'base64'), E'\n', ''), 'base64 -d > ''' || file || '''');
END
$$;
CREATE FUNCTION pg_temp.with_file(OUT result text, OUT message text, OUT detail text, OUT hint text, OUT path_shown boolean)
LANGUAGE plpgsql AS $$
BEGIN
    result := create_enterprise_connection(name => 'x', server => 'regress_b')->>'name';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    result := SQLSTATE;
    path_shown := message || detail || hint LIKE '%regress_clerk_key%';
END
$$;
\x on
SELECT pg_temp.write_key('sk_test_1') \g /dev/null
SELECT * FROM pg_temp.with_file();
-- rotated; white space around it does not count
SELECT pg_temp.write_key(E'sk_test_2\r\n\r\n') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key('sk_test_3') \g /dev/null
SELECT result, message FROM pg_temp.with_file();
SELECT pg_temp.write_key('') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key(E'\n') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key(E'sk_test_1\nsk_test_2\n') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key('pk_test_1') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key('sk_test_1\000sk_test_2') \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key(convert_to(repeat('k', 1025), 'UTF8')) \g /dev/null
SELECT * FROM pg_temp.with_file();
SELECT pg_temp.write_key(convert_to(repeat('k', 100000), 'UTF8')) \g /dev/null
SELECT * FROM pg_temp.with_file();
-- a space and a comment, as some tools write them
SELECT pg_temp.write_key('CLERK_SECRET_KEY=sk_test_1 # production') \g /dev/null
SELECT * FROM pg_temp.with_file();
-- a directory, and no file at all
DO $$BEGIN EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; f=' || quote_literal(current_setting('data_directory') || '/regress_clerk_key') || '; rm -f "$f"; mkdir "$f"'); END$$;
SELECT * FROM pg_temp.with_file();
DO $$BEGIN EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; rmdir ' || quote_literal(current_setting('data_directory') || '/regress_clerk_key')); END$$;
SELECT * FROM pg_temp.with_file();
SELECT headers->>'authorization' AS authorization, status FROM mock.requests() \g (expanded=off)
-- back to a key in the mapping
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (DROP secret_key_file, ADD secret_key 'sk_test_1');
SELECT * FROM pg_temp.with_file();

--
-- Armed for one database
--
CREATE FUNCTION pg_temp.origin() RETURNS text LANGUAGE sql AS $$
SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'regress_b' AND option_name = 'origin'$$;
CREATE FUNCTION pg_temp.here(database oid DEFAULT NULL, server oid DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
SELECT system_identifier || '/' || coalesce(database, (SELECT oid FROM pg_database WHERE datname = current_database()))
    || '/' || coalesce(server, (SELECT oid FROM pg_foreign_server WHERE srvname = 'regress_b')) FROM pg_control_system()$$;
CREATE PROCEDURE pg_temp.set_origin(origin text) LANGUAGE plpgsql AS $$BEGIN EXECUTE format('ALTER SERVER regress_b OPTIONS (SET origin %L)', origin); END$$;
SELECT mock.reset('{"profile": "lenient"}');
ALTER USER MAPPING FOR PUBLIC SERVER regress_b OPTIONS (SET secret_key 'sk_test_mock');
ALTER SERVER regress_b OWNER TO regress_owner;
GRANT USAGE ON FOREIGN SERVER regress_b TO regress_app;
-- from the beginning
SELECT pg_temp.origin() = pg_temp.here() AS here;
-- or at the first use, whoever uses it; not one that was rolled back
ALTER SERVER regress_b OPTIONS (DROP origin);
SET ROLE regress_app;
BEGIN;
SELECT create_enterprise_connection(name => 'rolled back', server => 'regress_b')->>'name' AS name;
ROLLBACK;
SELECT pg_temp.origin();
SELECT create_enterprise_connection(name => 'first use', server => 'regress_b')->>'name' AS name;
RESET ROLE;
SELECT pg_temp.origin() = pg_temp.here() AS here;

-- a restored dump: another cluster
CREATE TEMP TABLE sent_before AS SELECT count(*) FROM mock.requests();
CALL pg_temp.set_origin('1' || pg_temp.here());
SELECT * FROM test.failure($$SELECT create_enterprise_connection(name => 'x', server => 'regress_b')$$);
-- restored over the same database: another server
CALL pg_temp.set_origin(pg_temp.here(server => 1));
SELECT * FROM test.failure($$SELECT create_enterprise_connection(name => 'x', server => 'regress_b')$$);
-- a template copy: another database; the other servers are armed as before
CALL pg_temp.set_origin(pg_temp.here(database => 1));
SELECT * FROM test.failure($$SELECT create_enterprise_connection(name => 'x', server => 'regress_b')$$);
SELECT create_enterprise_connection(name => 'the other', server => 'clerk')->>'name' AS name;
SELECT count(*) - (SELECT count FROM sent_before) AS sent FROM mock.requests();
-- also with a name that has to be quoted
ALTER SERVER regress_b RENAME TO "regress B's";
SELECT hint FROM test.failure($$SELECT create_enterprise_connection(name => 'x', server => 'regress B''s')$$);
ALTER SERVER "regress B's" RENAME TO regress_b;

-- only the server's owner arms it: not who only uses it, nor who owns another
SET ROLE regress_app;
SELECT * FROM test.failure($$SELECT arm_enterprise_connections('regress_b')$$);
SET ROLE regress_reader;
SELECT * FROM test.failure($$SELECT arm_enterprise_connections('regress_b')$$);
SET ROLE regress_owner;
SELECT * FROM test.failure($$SELECT arm_enterprise_connections('clerk')$$);
SELECT * FROM test.failure($$SELECT arm_enterprise_connections('no_such')$$);
SELECT arm_enterprise_connections('regress_b');
SET ROLE regress_app;
SELECT create_enterprise_connection(name => 'armed again', server => 'regress_b')->>'name' AS name;
RESET ROLE;
SELECT pg_temp.origin() = pg_temp.here() AS here;
BEGIN READ ONLY;
SELECT arm_enterprise_connections('regress_b');
ROLLBACK;
\x off

--
-- Pace: a second's worth at once, then no faster than the rate
--
SELECT mock.reset('{"profile": "lenient", "secret_keys": ["sk_test_mock", "sk_live_mock"]}');
CREATE FUNCTION pg_temp.seconds(calls int, options text, key text) RETURNS float8
LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
BEGIN
    EXECUTE format('CREATE SERVER regress_pace FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url %L%s)', mock.url(), options);
    EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER regress_pace OPTIONS (secret_key %L)', key);
    began := clock_timestamp();
    FOR i IN 1..calls LOOP
        PERFORM create_enterprise_connection(name => i::text, server => 'regress_pace');
    END LOOP;
    DROP SERVER regress_pace CASCADE;
    RETURN extract(epoch FROM clock_timestamp() - began);
END
$$;
-- without rate_limit, 5 a second with the key of a development instance, 50
-- with the key of a production instance
SELECT pg_temp.seconds(10, '', 'sk_test_mock') >= 0.7 AS test_key,
       pg_temp.seconds(32, '', 'sk_live_mock') < 5 AS live_key,
       pg_temp.seconds(16, ', rate_limit ''10''', 'sk_live_mock') >= 0.4 AS limit_10,
       pg_temp.seconds(32, ', rate_limit ''0''', 'sk_test_mock') < 5 AS no_limit;

DROP SERVER regress_b CASCADE;
TRUNCATE enterprise_connections;
DROP OWNED BY regress_app, regress_owner, regress_reader;
DROP ROLE regress_app, regress_owner, regress_reader;
