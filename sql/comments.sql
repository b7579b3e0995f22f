-- What the extension consists of, and that \df+, \d+, \dT+ and \do+ explain it.
CREATE TEMP VIEW member AS
SELECT d.classid, d.objid
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'pg_clerk' AND d.deptype = 'e'
    -- not the types of arrays and rows, which newer releases of PostgreSQL count
    AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.oid = d.objid AND (t.typcategory = 'A' OR c.relkind <> 'c')));

-- Few objects, and no operators but = and <> of each composite type.
SELECT count(*) <= 110 AS few, count(*) FILTER (WHERE classid = 'pg_operator'::regclass) AS operators FROM member;
-- what \df shows
SELECT p.proname FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE pg_function_is_visible(p.oid) AND p.pronamespace <> 'pg_catalog'::regnamespace ORDER BY p.proname COLLATE "C";
-- and what it does not: called by statements, policies, casts and operators
SELECT p.proname, count(*) FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.pronamespace = 'pg_catalog'::regnamespace GROUP BY p.proname ORDER BY p.proname COLLATE "C";

-- Each object has a comment, and so has each column of a table, a view and a
-- composite type.
CREATE TEMP VIEW comment AS
SELECT pg_describe_object(classid, objid, 0) AS object, obj_description(objid, classid::regclass::name) AS text FROM member
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, a.attrelid, a.attnum), col_description(a.attrelid, a.attnum)
FROM pg_attribute a
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid IN (
    SELECT c.oid FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION SELECT t.typrelid FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'c');
SELECT object AS "without a comment" FROM comment WHERE coalesce(text, '') = '' ORDER BY object COLLATE "C";
SELECT count(*) > 200 AS many FROM comment;
-- They read alike: no full stop, no line breaks, not longer than three lines.
SELECT object, text FROM comment WHERE text ~ '\.$|\n|\s$' OR text ~ '^[A-Z][a-z]' AND text !~ '^(Clerk|OIDC|SAML|URL|HTTP)' OR length(text) > 220;
-- that a missing one would show
BEGIN;
COMMENT ON COLUMN enterprise_connection_saml.name IS NULL;
COMMENT ON COLUMN enterprise_connection_queue.state IS NULL;
COMMENT ON FUNCTION get_enterprise_connection(text, name) IS NULL;
COMMENT ON OPERATOR = (enterprise_connection_oidc, enterprise_connection_oidc) IS NULL;
SELECT object AS "without a comment" FROM comment WHERE coalesce(text, '') = '' ORDER BY object COLLATE "C";
ROLLBACK;
