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

SELECT mock.reset();
SELECT mock.call('GET', '/_mock/settings')->>'profile' AS profile;

CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url', rate_limit '0');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
