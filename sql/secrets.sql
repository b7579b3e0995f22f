-- Where the secret key goes, and where it must not: http:// and proxies, key
-- files and who owns the server, and what an error brings along.
SELECT mock.reset('{"profile": "lenient", "secret_keys": ["sk_test_mock", "sk_test_file"]}');
TRUNCATE enterprise_connections;
\set VERBOSITY default
SET client_min_messages = warning;      -- no "drop cascades to"
SELECT url FROM mock.server \gset
SELECT current_setting('data_directory') || '/regress_clerk_secret' AS file \gset

CREATE FUNCTION pg_temp.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text, OUT context text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    state := 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
END
$$;
CREATE FUNCTION pg_temp.shell(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; ' || command);
END
$$;

--
-- What is a loopback address: as libcurl, which opens the connection, reads it
--
\pset format unaligned
SELECT api_url, f.state
FROM unnest(ARRAY['http://127.0.0.1', 'http://127.255.255.254', 'http://127.1', 'http://0177.0.0.1', 'http://0x7f.1', 'http://2130706433', 'http://017700000001',
    'http://[::1]', 'http://[0:0:0:0:0:0:0:1]', 'http://[::1%25lo]', 'http://LocalHost', 'http://loc%61lhost', 'http:///127.0.0.1',
    -- perhaps loopback, but not for certain
    'http://localhost.', 'http://127.0.0.1.', 'http://[::ffff:127.0.0.1]', 'http://[::ffff:7f00:1]', 'http://[::127.0.0.1]', 'http://a.localhost', 'http://localhost.localdomain',
    'http://ip6-localhost', 'http://0', 'http://0.0.0.0', 'http://[::]',
    -- not at all
    'http://128.0.0.1', 'http://126.255.255.255', 'http://2147483648', 'http://127.0.0.1.example', 'http://127.0.0.1@evil.example', 'http://127.0.0.1:80@evil.example',
    'http://127.0.0.1\@evil.example', 'http://127.0.0.1%2f@evil.example', 'http://evil.example#@127.0.0.1', 'http://evil.example?@127.0.0.1', 'http://evil.example/@127.0.0.1',
    'http://127.0.0.1%00.evil.example', 'http://127.0.0.1%252e.evil.example', 'http://loc%2561lhost', 'http://[::2]', 'http://[fe80::1]', 'http://localhostevil.example',
    E'http://127.0.0.1\n.evil.example', 'http://127.0.0.1 .evil.example', 'http://１２７.0.0.1', 'http:127.0.0.1', 'http:', 'http://',
    -- an address, but somebody's name with it
    'http://user@127.0.0.1', 'http://:pw@127.0.0.1', 'http://@127.0.0.1', 'http://:@localhost']) WITH ORDINALITY AS u (api_url, n),
    pg_temp.failure(format('CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url %L); DROP SERVER regress_try', api_url)) AS f
ORDER BY n;

--
-- An api_url that holds the endpoint's path already
--
SELECT api_url, f.state, f.message, f.hint
FROM unnest(ARRAY['https://api.clerk.com/v1/enterprise_connections', 'https://api.clerk.com/enterprise_connections', 'https://api.clerk.com/v1/enterprise_connections//',
    'https://api.clerk.com/v1/enterprise_connections/v1', 'https://api.clerk.com/v1/enterprise_connections/entconn_1', 'https://gw.example/clerk/v1/enterprise_connections',
    'https://gw.example/enterprise_connections_proxy/v1', 'https://gw.example/my_enterprise_connections']) WITH ORDINALITY AS u (api_url, n),
    pg_temp.failure(format('CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url %L); DROP SERVER regress_try', api_url)) AS f
ORDER BY n;

--
-- A proxy
--
SELECT proxy, f.state, f.message, f.hint
FROM unnest(ARRAY['http://proxy.example:3128', 'http://proxy.example:3128/', 'https://proxy.example', 'socks5h://proxy.example', 'http://user@proxy.example', 'http://:pw@proxy.example',
    'http://@proxy.example', 'http://proxy.example/path', 'http://proxy.example/?token=s3cret', 'http://proxy.example/#x', 'socks5h://localhost/run/socket']) WITH ORDINALITY AS u (proxy, n),
    pg_temp.failure(format('CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (proxy %L); DROP SERVER regress_try', proxy)) AS f
ORDER BY n;
-- with http://: in whatever order they come
CREATE SERVER regress_loop FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_loop OPTIONS (secret_key 'sk_test_mock');
CREATE SERVER regress_proxy FOREIGN DATA WRAPPER pg_clerk OPTIONS (proxy 'http://127.0.0.1:9');
\x on
SELECT n, f.state, f.message, f.detail, f.hint FROM (VALUES
    (1, 'CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url ''http://localhost'', proxy ''http://127.0.0.1:9'')'),
    (2, 'CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (proxy ''socks5h://127.0.0.1:9'', api_url ''HTTP://127.1'')'),
    (3, 'ALTER SERVER regress_loop OPTIONS (ADD proxy ''http://127.0.0.1:9'')'),
    (4, 'ALTER SERVER regress_proxy OPTIONS (ADD api_url ''http://[::1]:80'')'),
    (5, 'ALTER SERVER regress_proxy OPTIONS (ADD api_url ''https://127.0.0.1'')'),
    (6, 'ALTER SERVER regress_proxy OPTIONS (SET api_url ''http://127.0.0.1'')'),
    (7, 'ALTER SERVER regress_proxy OPTIONS (DROP proxy, SET api_url ''http://127.0.0.1'')')
) AS v (n, statement), pg_temp.failure(statement) AS f;
\x off
-- and, of options that another release has let through, at each use; what is enqueued waits
SELECT mock.forget();
SELECT create_enterprise_connection(name => 'before', server => 'regress_loop')->>'name' AS name;
UPDATE pg_foreign_server SET srvoptions = srvoptions || '{proxy=http://127.0.0.1:9}' WHERE srvname = 'regress_loop';
SELECT create_enterprise_connection(name => 'by a proxy', server => 'regress_loop');
SELECT count(*) FROM list_enterprise_connections(server => 'regress_loop');
SELECT enqueue_enterprise_connection('create', '{"name": "enqueued"}', server => 'regress_loop') > 0 AS enqueued;
CALL deliver_enterprise_connections();
SELECT state, attempts, error->>'message' AS message FROM enterprise_connection_requests WHERE server = 'regress_loop';
ALTER SERVER regress_loop OPTIONS (DROP proxy);
CALL deliver_enterprise_connections();
SELECT state, error->>'message' AS message FROM enterprise_connection_requests WHERE server = 'regress_loop';
SELECT method, body->>'name' AS name FROM mock.requests();
DELETE FROM enterprise_connection_requests;

-- its user and password: in the mapping, whose options nobody else can read
SELECT options, f.state, f.message, f.hint
FROM unnest(ARRAY[$$proxy_user 'me', proxy_password 's3cret'$$, $$proxy_user 'me'$$, $$proxy_password 's3cret'$$, $$proxy_user ''$$, $$proxy_user 'me:s3cret'$$,
    $$proxy_user 'me', proxy_password ''$$, $$proxy_user 'me', proxy_password E's3cret\n'$$, $$proxy_user 'me', proxy_password 's3crét'$$, $$proxy_user E'a\tb'$$, $$proxyuser 'me'$$])
        WITH ORDINALITY AS u (options, n),
    pg_temp.failure(format('CREATE USER MAPPING FOR PUBLIC SERVER regress_proxy OPTIONS (%s); DROP USER MAPPING FOR PUBLIC SERVER regress_proxy', options)) AS f
ORDER BY n;
SELECT f.state, f.message, f.hint
FROM pg_temp.failure('CREATE SERVER regress_try FOREIGN DATA WRAPPER pg_clerk OPTIONS (proxy_password ''s3cret'')') AS f;
DROP SERVER regress_proxy;

--
-- No error brings a key along: not in the message, not as the statement in its
-- context, wherever it was put by mistake
--
SELECT statement, f.state, f.message, f.hint, f.context, f::text LIKE '%sk\_test\_7%' AS key_shown
FROM unnest(ARRAY[
    $$CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_7')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_7 ')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (SET secret_key 'sk_test_7', ADD secret_key_file '/x')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (ADD secretkey 'sk_test_7')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (ADD sk_test_7 'secret_key')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (ADD secret_key_file 'sk_test_7')$$,
    $$ALTER USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (ADD proxy_user 'x:sk_test_7')$$,
    $$ALTER SERVER clerk OPTIONS (ADD secret_key 'sk_test_7')$$,
    $$ALTER SERVER clerk OPTIONS (ADD sk_test_7 'x')$$,
    $$ALTER SERVER clerk OPTIONS (ADD timeout 'sk_test_7')$$,
    $$ALTER SERVER clerk OPTIONS (ADD api_version 'sk_test_7 ')$$,
    $$ALTER SERVER clerk OPTIONS (SET api_url 'https://api.clerk.com/?key=sk_test_7')$$,
    $$ALTER SERVER clerk OPTIONS (SET api_url 'https://sk_test_7@api.clerk.com')$$,
    $$ALTER FOREIGN DATA WRAPPER pg_clerk OPTIONS (ADD secret_key 'sk_test_7')$$]) WITH ORDINALITY AS u (statement, n),
    pg_temp.failure(statement) AS f
WHERE n > 1 ORDER BY n;

--
-- A key's file is read only if the server's owner could read it
--
CREATE ROLE regress_owner;
CREATE ROLE regress_reader IN ROLE pg_read_server_files;
CREATE ROLE regress_app;
GRANT USAGE ON FOREIGN DATA WRAPPER pg_clerk TO regress_owner, regress_reader;
SELECT pg_temp.shell(format('printf sk_test_file > %L', :'file')) \g /dev/null
CREATE SERVER regress_file FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER regress_file OPTIONS (secret_key_file :'file');
GRANT USAGE ON FOREIGN SERVER regress_file TO regress_app;
CREATE FUNCTION pg_temp.ask(role name, OUT state text, OUT message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    state := count(*) FROM list_enterprise_connections(server => 'regress_file');
    RESET ROLE;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
END
$$;
SELECT mock.forget();
-- a superuser's
SELECT * FROM pg_temp.ask('regress_app');
-- given to a role that may not read files: it is that owner's to send the key anywhere
ALTER SERVER regress_file OWNER TO regress_owner;
SELECT * FROM list_enterprise_connections(server => 'regress_file');
SELECT * FROM pg_temp.ask('regress_app');
SET ROLE regress_owner;
ALTER SERVER regress_file OPTIONS (SET api_url 'http://127.0.0.1:9/mine');
SELECT * FROM pg_temp.ask('regress_owner');
RESET ROLE;
-- nor under another name, nor with another's mapping
SET ROLE regress_owner;
ALTER SERVER regress_file RENAME TO regress_mine;
CREATE SERVER regress_file FOREIGN DATA WRAPPER pg_clerk;
ALTER USER MAPPING FOR PUBLIC SERVER regress_mine OPTIONS (ADD proxy_user 'x');
CREATE USER MAPPING FOR PUBLIC SERVER regress_file OPTIONS (secret_key_file '/etc/passwd');
DROP SERVER regress_file;
ALTER SERVER regress_mine RENAME TO regress_file;
RESET ROLE;
SELECT * FROM pg_temp.ask('regress_owner');
-- what is enqueued waits
SELECT enqueue_enterprise_connection('create', '{"name": "enqueued"}', server => 'regress_file') > 0 AS enqueued;
CALL deliver_enterprise_connections();
SELECT state, attempts, error->>'message' AS message FROM enterprise_connection_requests WHERE server = 'regress_file';
ALTER SERVER regress_file OPTIONS (SET api_url :'url');
-- to one that may, directly or by membership
ALTER SERVER regress_file OWNER TO regress_reader;
SELECT * FROM pg_temp.ask('regress_app');
ALTER SERVER regress_file OWNER TO regress_owner;
GRANT regress_reader TO regress_owner;
SELECT * FROM pg_temp.ask('regress_app');
CALL deliver_enterprise_connections();
SELECT state, error->>'message' AS message FROM enterprise_connection_requests WHERE server = 'regress_file';
-- looked at in each call
REVOKE regress_reader FROM regress_owner;
SELECT * FROM pg_temp.ask('regress_app');
-- a key in the mapping is the owner's anyway
ALTER USER MAPPING FOR PUBLIC SERVER regress_file OPTIONS (DROP secret_key_file, ADD secret_key 'sk_test_mock');
SELECT * FROM pg_temp.ask('regress_app');
SELECT method, headers->>'authorization' AS authorization FROM mock.requests();
DELETE FROM enterprise_connection_requests;

--
-- It must be a regular file; nothing else is waited for
--
ALTER SERVER regress_file OWNER TO CURRENT_USER;
ALTER USER MAPPING FOR PUBLIC SERVER regress_file OPTIONS (DROP secret_key, ADD secret_key_file :'file');
SET statement_timeout = '20s';
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L; mkfifo %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L; mkdir %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rmdir %1$L; ln -s /dev/zero %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L; ln -s /dev/null %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L; ln -s %1$L %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
-- a link to one is as good
SELECT pg_temp.shell(format('rm %1$L; printf sk_test_file > %2$L; ln -s %2$L %1$L', :'file', :'file' || '_target')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L %2$L', :'file', :'file' || '_target')) \g /dev/null
-- nor is the file of the CA certificates, which libcurl would open
ALTER USER MAPPING FOR PUBLIC SERVER regress_file OPTIONS (DROP secret_key_file, ADD secret_key 'sk_test_mock');
ALTER SERVER regress_file OPTIONS (ADD ca_file :'file', SET api_url 'https://127.0.0.1:9', ADD max_retries '0');
SELECT pg_temp.shell(format('mkfifo %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L; mkdir %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rmdir %1$L; ln -s /dev/zero %1$L', :'file')) \g /dev/null
SELECT * FROM pg_temp.ask('regress_app');
SELECT pg_temp.shell(format('rm %1$L', :'file')) \g /dev/null
SELECT state FROM pg_temp.ask('regress_app');
RESET statement_timeout;

DROP SERVER regress_file, regress_loop CASCADE;
TRUNCATE enterprise_connections;
DROP OWNED BY regress_owner, regress_reader, regress_app;
DROP ROLE regress_owner, regress_reader, regress_app;
