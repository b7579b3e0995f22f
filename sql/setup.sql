-- What all other files stand on: the extension, a Clerk instance named clerk,
-- and schema mock, by which a test steers the mock Clerk server behind it and
-- sees what it got.  test/run starts that server and tells its address in the
-- environment.
CREATE EXTENSION pg_clerk;

\set url `echo "$CLERK_MOCK_URL"`
CREATE SCHEMA mock;
GRANT USAGE ON SCHEMA mock TO PUBLIC;
CREATE TABLE mock.server (url text NOT NULL);
INSERT INTO mock.server VALUES (:'url');

CREATE FUNCTION mock.url() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT url FROM mock.server';

-- A call of a control endpoint, by any role, in any transaction that has not
-- failed, a read-only or a prepared one too: so no temporary table.  The body
-- goes through the program's input, which has no length limit; the answer
-- comes back in a file of the data directory, with the status behind it.
CREATE FUNCTION mock.call(method text, path text, body jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    file text := 'mock_answer.' || pg_backend_pid();
    curl text := 'curl -q -s -S --noproxy ''*'' -X ' || method || ' -w ''\n%{http_code}''';
    url text := '''' || replace(mock.url() || path, '''', '''\''''') || '''';
    answer text;
BEGIN
    IF body IS NULL THEN
        -- somebody has to read the empty line
        curl := 'cat > /dev/null; ' || curl;
    ELSE
        curl := curl || ' -H ''Content-Type: application/json'' -H Expect: --data-binary @-';
    END IF;
    -- No such delimiter or quote is in a JSON text: it is written as it is.
    EXECUTE format('COPY (SELECT %L::text) TO PROGRAM %L (FORMAT csv, DELIMITER %L, QUOTE %L, ENCODING %L)',
                   body, curl || ' ' || url || ' > ' || file, E'\x01', E'\x02', 'UTF8');
    answer := pg_read_file(file);
    IF right(answer, 3) <> '200' THEN
        RAISE EXCEPTION 'mock server: % % was answered %', method, path, answer;
    END IF;
    RETURN left(answer, -3);
END
$$;

-- Forget everything: connections, requests, scripted answers, settings.
CREATE FUNCTION mock.reset(settings jsonb DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$SELECT mock.call('POST', '/_mock/reset', settings)$$;

CREATE FUNCTION mock.settings(settings jsonb) RETURNS void
LANGUAGE sql AS $$SELECT mock.call('POST', '/_mock/settings', settings)$$;

-- Lay out answers: a step, or an array of them.
CREATE FUNCTION mock.script(steps jsonb) RETURNS void
LANGUAGE sql AS $$SELECT mock.call('POST', '/_mock/script', steps)$$;

CREATE FUNCTION mock.unscript() RETURNS void
LANGUAGE sql AS $$SELECT mock.call('DELETE', '/_mock/script')$$;

-- What came in, oldest first.  The port, new each time, is masked.
CREATE FUNCTION mock.requests()
RETURNS TABLE (method text, target text, headers jsonb, body jsonb, status int, raw_body text)
LANGUAGE sql AS $$
    SELECT r->>'method', r->>'target',
           r->'headers' || CASE WHEN r->'headers' ? 'host' THEN '{"host": "mock"}' ELSE '{}' END::jsonb,
           nullif(r->'body', 'null'), (r->>'status')::int, r->>'raw_body'
    FROM jsonb_array_elements(mock.call('GET', '/_mock/requests')) WITH ORDINALITY AS list (r, n)
    ORDER BY n
$$;

CREATE FUNCTION mock.forget() RETURNS void
LANGUAGE sql AS $$SELECT mock.call('DELETE', '/_mock/requests')$$;

-- What exists there, oldest first.
CREATE FUNCTION mock.connections() RETURNS SETOF jsonb
LANGUAGE sql AS $$
    SELECT c FROM jsonb_array_elements(mock.call('GET', '/_mock/connections')) WITH ORDINALITY AS list (c, n)
    ORDER BY n
$$;

CREATE FUNCTION mock.stats() RETURNS jsonb
LANGUAGE sql AS $$SELECT mock.call('GET', '/_mock/stats')$$;

-- What was sent since it was last asked.
CREATE FUNCTION mock.sent() RETURNS TABLE (method text, target text, body jsonb, status int)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT r.method, r.target, r.body, r.status FROM mock.requests() AS r;
    PERFORM mock.forget();
END
$$;

-- Schema test: what several tests need.
CREATE SCHEMA test;
GRANT USAGE ON SCHEMA test TO PUBLIC;
-- What a statement fails with.  Masked are ports and the mock's trace ids, which
-- differ from run to run, and what libcurl says, which differs between releases.
CREATE FUNCTION test.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    message := regexp_replace(message, '127\.0\.0\.1:\d+', '127.0.0.1:<port>');
    detail := regexp_replace(detail, 'Trace id: 0{16}[0-9a-f]{16}$', 'Trace id: <id>', 'n');
    detail := regexp_replace(detail,
        '(Recv failure|Send failure|Empty reply|Operation timed out|Connection timed out|Failed to connect|transfer closed|Server returned|Failure when|Illegal|end of response)[^\n]*',
        '<libcurl>');
END
$$;
-- The parameters of so many connections.
CREATE FUNCTION test.params(count int, prefix text) RETURNS jsonb[] LANGUAGE sql AS $$
    SELECT array_agg(jsonb_build_object('name', prefix || ' ' || n, 'provider', 'saml_okta', 'domains', jsonb_build_array(prefix || '-' || n || '.example')) ORDER BY n)
    FROM generate_series(1, count) AS n
$$;
-- A create by its name alone: the id.
CREATE FUNCTION test.created(name text) RETURNS text LANGUAGE sql AS $$
    SELECT create_enterprise_connection(name => created.name, provider => 'saml_okta', domains => ARRAY[replace(created.name, ' ', '-') || '.example'])->>'id'
$$;
-- What exists, at Clerk and here.
CREATE FUNCTION test.everything() RETURNS TABLE (at_clerk text, id text, tracked text) LANGUAGE sql AS $$
    SELECT m->>'name', coalesce(m->>'id', e.id), e.name
    FROM mock.connections() AS m FULL JOIN enterprise_connections AS e ON e.id = m->>'id' ORDER BY 2
$$;
-- A row's connection is created with it.
CREATE FUNCTION test.connects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.connection := create_enterprise_connection(name => NEW.name, provider => 'saml_okta', domains => ARRAY[lower(NEW.name) || '.example'])->>'id';
    RETURN NEW;
END
$$;

-- Schema box, by which a test steers the outbox.
CREATE SCHEMA box;
CREATE TABLE box.asked (requests int);
INSERT INTO box.asked VALUES (0);
-- Forget everything, here and at Clerk.
CREATE PROCEDURE box.start_over() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mock.reset();
    UPDATE box.asked SET requests = 0;
    TRUNCATE enterprise_connections, enterprise_connection_requests, enterprise_connection_pauses RESTART IDENTITY;
END
$$;
-- The time of what waits has come: of a key, or of all.
CREATE PROCEDURE box.hurry(key text DEFAULT NULL) LANGUAGE sql AS $$
    UPDATE enterprise_connection_requests q SET next_attempt_at = now()
    WHERE (q.key = $1 OR $1 IS NULL) AND q.state IN ('queued', 'in_doubt') AND q.next_attempt_at <> 'infinity'
$$;
-- Deliver again and again, as pg_cron would, until a request is in that state.
CREATE PROCEDURE box.deliver_until(request bigint, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..200 LOOP
        CALL deliver_enterprise_connections();
        IF (SELECT state::text FROM enterprise_connection_requests WHERE id = request) = wanted THEN
            RETURN;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RAISE 'request % is not %', request, wanted;
END
$$;
-- Whatever it waits for: until nothing is left.
CREATE PROCEDURE box.deliver_all() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..100 LOOP
        CALL box.hurry();
        CALL deliver_enterprise_connections();
        EXIT WHEN NOT EXISTS (SELECT FROM enterprise_connection_requests WHERE finished_at IS NULL);
        COMMIT;
    END LOOP;
END
$$;
-- After ALTER SYSTEM: until a setting is what is wanted.
CREATE PROCEDURE box.reloaded(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_reload_conf();
    -- delivering, a session takes notice in the middle of a statement, too
    FOR i IN 1..1000 LOOP
        CALL deliver_enterprise_connections();
        EXIT WHEN current_setting(name) = wanted;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
-- What was sent since it was last asked.
CREATE FUNCTION box.sent() RETURNS TABLE (method text, target text, body jsonb, status int)
LANGUAGE plpgsql AS $$
DECLARE
    already int := (SELECT requests FROM box.asked);
    more int;
BEGIN
    RETURN QUERY SELECT r.method, r.target, r.body, r.status FROM mock.requests() AS r OFFSET already;
    GET DIAGNOSTICS more = ROW_COUNT;
    UPDATE box.asked SET requests = already + more;
END
$$;
-- What a statement fails with.
CREATE FUNCTION box.failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    detail := regexp_replace(detail, '^Trace id: .*', 'Trace id: <id>', 'n');
END
$$;
-- The same with the line that a row's trigger adds.
CREATE FUNCTION box.row_failure(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text, OUT context text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    context := (SELECT line FROM regexp_split_to_table(context, '\n') AS line WHERE line LIKE 'enterprise connection %');
END
$$;
-- What was enqueued since it was last asked; as if it had never been.
CREATE FUNCTION box.enqueued() RETURNS TABLE (operation text, key text, params jsonb)
LANGUAGE sql AS $$
    WITH taken AS (DELETE FROM enterprise_connection_requests RETURNING *)
    SELECT t.operation, t.key, t.params FROM taken t ORDER BY t.id
$$;
-- The parameters of a connection with one domain.
CREATE FUNCTION box.params(name text, domain text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_build_object('name', name, 'provider', 'saml_okta', 'domains', jsonb_build_array(coalesce(domain, lower(name) || '.example'))) || more
$$;
-- Clerk is busy, so many times, if the body of the request has this text.
CREATE FUNCTION box.busy(what text, times int DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    SELECT mock.script(jsonb_build_object('match', jsonb_build_object('body_contains', what), 'times', times,
        'status', 503, 'headers', '{"Content-Type": "application/json"}'::jsonb,
        'body', '{"errors": [{"message": "busy", "code": "service_unavailable"}]}'::jsonb))
$$;

SELECT mock.reset();
SELECT mock.call('GET', '/_mock/settings')->>'profile' AS profile;

CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
