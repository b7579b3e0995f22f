-- What an administrator has done before, and what the examples wait with.
CREATE EXTENSION pg_clerk;
\set url `echo "$CLERK_MOCK_URL"`
CREATE SERVER clerk FOREIGN DATA WRAPPER pg_clerk OPTIONS (api_url :'url');
CREATE USER MAPPING FOR PUBLIC SERVER clerk OPTIONS (secret_key 'sk_test_mock');
CREATE ROLE app LOGIN;
GRANT USAGE ON FOREIGN SERVER clerk TO app;

-- Returns once the session with this application name waits for Clerk.
CREATE FUNCTION until_waiting(application text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN EXISTS (SELECT FROM pg_stat_activity
                          WHERE application_name = application AND wait_event_type = 'Extension');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
