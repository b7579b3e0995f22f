-- Composite parameters: what they become, and that having a cast to jsonb took
-- nothing away from them.
SET client_min_messages = warning;

-- Somebody's function of jsonb, for all that follows.
CREATE FUNCTION pg_temp.takes_jsonb(j jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT j';

--
-- NULL is left out, at every level; attributes appear under their names.
--
SELECT pg_temp.takes_jsonb(ROW('Acme', 'saml_okta', '{acme.example,acme.test}', NULL, false, NULL, NULL, NULL, NULL, NULL,
	NULL, NULL, NULL, NULL)::enterprise_connection_params);
SELECT ROW('https://a', 'id', 'secret', NULL, true, NULL, NULL, NULL)::enterprise_connection_oidc::jsonb;
SELECT ROW(NULL, false, ROW('u', NULL, NULL, NULL, NULL), NULL, NULL, '{c1,c2}', 'e', NULL, NULL, NULL,
	ROW('off', NULL, NULL), NULL, NULL)::enterprise_connection_saml::jsonb;
SELECT ROW(NULL, 'e', NULL, NULL, NULL)::enterprise_connection_attribute_mapping::jsonb;
SELECT ROW('custom_attribute', 'dept', NULL)::enterprise_connection_login_hint::jsonb;
SELECT ROW('Dept', 'dept', NULL, NULL, NULL, true, NULL)::enterprise_connection_custom_attribute::jsonb;
SELECT ARRAY[ROW('Dept', 'dept', NULL, NULL, NULL, true, NULL), ROW('Cost', 'cost', NULL, NULL, NULL, NULL, NULL)]::enterprise_connection_custom_attribute[]::jsonb;

-- A row of NULLs is null to SQL, and so it is here; with "more" it is not.
SELECT ROW(NULL, NULL, NULL)::enterprise_connection_login_hint::jsonb AS all_null,
	NULL::enterprise_connection_login_hint::jsonb AS is_null,
	ROW(NULL, NULL, '{}')::enterprise_connection_login_hint::jsonb AS with_more;
SELECT ROW(NULL, NULL, ROW(NULL, NULL, NULL, NULL, NULL), NULL, NULL, '{}', NULL, NULL, NULL, NULL,
	ROW(NULL, NULL, '{}'), NULL, NULL)::enterprise_connection_saml::jsonb;
-- NULL elements are no attributes: they are shown, and refused.
SELECT enterprise_connection_body(ROW('x', NULL, '{a,NULL}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	NULL)::enterprise_connection_params);

-- Attribute by attribute, the way PL/pgSQL fills one.
DO $$
DECLARE
	p enterprise_connection_params;
BEGIN
	p.name := 'Acme';
	p.domains := '{acme.example}';
	p.sync_user_attributes := true;
	p.saml.idp_metadata_url := 'https://idp.acme.example/md';
	p.saml.login_hint.mode := 'off';
	p.custom_attributes := array_append(p.custom_attributes, ROW('Dept', 'dept', NULL, NULL, NULL, NULL, NULL)::enterprise_connection_custom_attribute);
	RAISE WARNING '%', p::jsonb;
	RAISE WARNING '%', enterprise_connection_body(p);
	RAISE WARNING '%', enterprise_connection_body(p, 'update');
END
$$;

-- Each parameter has its attribute: any attribute, alone, is a valid update.
CREATE TEMP TABLE attribute AS
WITH RECURSIVE a (path, type) AS (
	SELECT '{}'::text[] COLLATE "C", 'enterprise_connection_params'::regtype
	UNION ALL
	SELECT path || attname::text, CASE WHEN atttypid = 'enterprise_connection_custom_attribute[]'::regtype
		THEN 'enterprise_connection_custom_attribute'::regtype ELSE atttypid::regtype END
	FROM a JOIN pg_type t ON t.oid = a.type AND t.typtype = 'c' JOIN pg_attribute ON attrelid = t.typrelid AND attnum > 0
)
SELECT array_to_string(path, '.') AS path, type FROM a WHERE path <> '{}';
SELECT type, count(*) FROM attribute GROUP BY type ORDER BY type::text COLLATE "C";
SELECT path FROM attribute WHERE path ~ '(^|\.)more$' ORDER BY path COLLATE "C";
SELECT attribute.path, message
FROM attribute, check_enterprise_connection(
	(SELECT CASE split_part(path, '.', 1) WHEN 'custom_attributes' THEN
			jsonb_build_object('custom_attributes', jsonb_build_array(jsonb_build_object(split_part(path, '.', 2), value)))
		ELSE (SELECT jsonb_object_agg(a, v) FROM (SELECT split_part(path, '.', 1) AS a,
			CASE WHEN split_part(path, '.', 2) = '' THEN value
				WHEN split_part(path, '.', 3) = '' THEN jsonb_build_object(split_part(path, '.', 2), value)
				ELSE jsonb_build_object(split_part(path, '.', 2), jsonb_build_object(split_part(path, '.', 3), value)) END AS v) AS o) END
	 FROM (SELECT CASE type WHEN 'text'::regtype THEN '"x"' WHEN 'boolean'::regtype THEN 'true'
		WHEN 'text[]'::regtype THEN '["x"]' ELSE '{}' END::jsonb) AS v (value)), 'update') AS fault (at, message, hint)
WHERE path !~ '(^|\.)more$' AND path <> 'custom_attributes';

--
-- "more": merged into its level, explicit nulls kept.
--
SELECT enterprise_connection_body(ROW('x', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	ROW(NULL, NULL, NULL, NULL, NULL, NULL, 'e', NULL, NULL, NULL, NULL, NULL, '{"newTwo": [1.10], "idpMetadata": null}'),
	'{"newOne": {"a": null}, "organizationId": null}')::enterprise_connection_params, 'update', '{new_one, saml.new_two}');
SELECT ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	'{"name": "x", "saml": {"force_authn": true}}')::enterprise_connection_params::jsonb;
-- a name in both
SELECT ROW('x', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	'{"name": "y"}')::enterprise_connection_params::jsonb;
SELECT ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	ROW(NULL, NULL, NULL, NULL, NULL, NULL, 'e', NULL, NULL, NULL, NULL, NULL, '{"idp_entity_id": null}'), NULL)::enterprise_connection_params::jsonb;
SELECT enterprise_connection_body(ROW(NULL, NULL, NULL, 'org_1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	'{"organizationId": "org_2"}')::enterprise_connection_params);
SELECT ROW(NULL, NULL, '[1]')::enterprise_connection_login_hint::jsonb;
SELECT ROW(NULL, NULL, 'null')::enterprise_connection_login_hint::jsonb;
SELECT ROW(NULL, NULL, ('{"deep": ' || repeat('[', 64) || repeat(']', 64) || '}')::jsonb)::enterprise_connection_login_hint::jsonb;
-- what is wrong is found behind the cast, too
SELECT enterprise_connection_body(ROW('x', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	'{"domians": []}')::enterprise_connection_params);
SELECT * FROM check_enterprise_connection(ROW(NULL, 'saml_okta', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	NULL)::enterprise_connection_params, 'update');

-- Arrays have one dimension.
SELECT ROW('x', NULL, '{{a,b},{c,d}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::enterprise_connection_params::jsonb;
SELECT '{}'::enterprise_connection_custom_attribute[]::jsonb AS empty, '{NULL}'::enterprise_connection_custom_attribute[]::jsonb AS null_element;

-- Values arrive as they are.
SELECT (p::jsonb ->> 'name') = (p).name AS name, p::jsonb -> 'domains' = to_jsonb((p).domains) AS domains,
	md5(p::jsonb #>> '{saml,idp_metadata}') = md5((p).saml.idp_metadata) AS metadata
FROM (SELECT ROW(U&'"\+01F600\2028\202E\05D0' || E'\x01\n\\', NULL, ARRAY[U&'\00FC.example', '', 'null'], NULL, NULL, NULL, NULL, NULL,
	NULL, NULL, NULL, NULL, ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, repeat(E'<a b="c">\r\n', 300000), NULL, NULL, NULL, NULL, NULL),
	NULL)::enterprise_connection_params) AS t (p);

-- Whatever a table does with them, TOAST and dropped attributes included.
CREATE TEMP TABLE stored (id int, p enterprise_connection_params, a enterprise_connection_custom_attribute[]);
INSERT INTO stored (id, p.name, p.saml.idp_metadata, a)
SELECT i, 'n' || i, (SELECT string_agg(md5(i || '.' || j), '') FROM generate_series(1, 1000) AS j),
	ARRAY[ROW('k' || i, 'k', NULL, NULL, NULL, NULL, NULL)::enterprise_connection_custom_attribute]
FROM generate_series(1, 3) AS i;
SELECT id, p::jsonb ->> 'name' AS name, length(enterprise_connection_body(p) #>> '{saml,idp_metadata}'), a::jsonb
FROM stored ORDER BY id;

--
-- Comparing still works: by name ("=", "<>", IN, IS DISTINCT FROM), and where
-- PostgreSQL looks for an operator class.  All ways agree, whatever is NULL or
-- in "more".
--
CREATE FUNCTION pg_temp.samples(type text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	element text := rtrim(type, '[]');
	attributes int := (SELECT relnatts FROM pg_class WHERE oid = element::regclass);
BEGIN
	RETURN QUERY EXECUTE format($q$
		SELECT CASE WHEN %L <> %L THEN ARRAY[v::%s]::text ELSE v END
		FROM (SELECT format('(%%s%%s%%s)', first, repeat(',', %s), more)
			FROM unnest('{t,f,""}'::text[]) first,
				unnest(ARRAY['', '{}', '"{""x"": 1}"', '"{""x"": 1.0}"', '"{""x"": null}"']) more) AS s (v)
		UNION ALL SELECT NULL $q$, type, element, element, attributes - 1);
	IF type = 'enterprise_connection_params' THEN
		RETURN QUERY SELECT * FROM unnest(ARRAY['(,,,,,,,,,,,,"(,,,,,,,,,,,,)",)', '(,,,,,,,,,,,,"(,,,,,,,,,,,,{})",)',
			'(,,,,,,,,,,{},,,)', '(,,"{a,NULL}",,,,,,,,{NULL},,,)']);
	ELSIF type <> element THEN
		RETURN QUERY SELECT * FROM unnest('{"{}","{NULL}","{NULL,NULL}"}'::text[]);
	END IF;
END
$$;
-- Each sample is there twice: so each group has two rows, or more where two
-- samples are equal (1 and 1.0 in "more").
CREATE FUNCTION pg_temp.comparisons(type text, OUT samples bigint, OUT distincts bigint, OUT disagreements bigint,
	OUT joined bigint, OUT using_joined bigint, OUT grouped numeric, OUT in_list bigint, OUT in_query bigint, OUT not_distinct bigint,
	OUT ordered boolean, OUT uniques bigint, OUT violation text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TEMP TABLE sample AS SELECT n AS copy, s::%s AS v FROM generate_series(1, 2) n, pg_temp.samples(%L) s', type, type);
	SELECT count(v), count(DISTINCT v) FROM sample INTO samples, distincts;
	SELECT count(*) FROM sample x, sample y,
		LATERAL (SELECT count(DISTINCT w) = 1 FROM (VALUES (x.v), (y.v)) AS u (w)) AS c (same)
	WHERE x.v IS DISTINCT FROM NULL AND y.v IS DISTINCT FROM NULL
		AND ((x.v = y.v) <> same OR (x.v <> y.v) = same OR (x.v IS DISTINCT FROM y.v) = same) INTO disagreements;
	SELECT count(*) FROM sample x JOIN sample y ON x.v = y.v INTO joined;
	SELECT count(*) FROM sample x JOIN sample y USING (v) INTO using_joined;
	SELECT sum(n * n) FROM (SELECT count(v) AS n FROM sample GROUP BY v) AS g INTO grouped;
	SELECT count(*) FROM sample x, sample y WHERE x.v IN (y.v, y.v) INTO in_list;
	SELECT count(*) FROM sample x WHERE x.v IN (SELECT v FROM sample) INTO in_query;
	SELECT count(*) FROM sample x, sample y WHERE x.v IS NOT DISTINCT FROM y.v INTO not_distinct;
	-- what is equal stands together
	SELECT count(*) FILTER (WHERE changed) = distincts
	FROM (SELECT v IS DISTINCT FROM lag(v) OVER (ORDER BY v, copy) AS changed FROM sample WHERE v IS DISTINCT FROM NULL) AS o
	INTO ordered;
	EXECUTE format('CREATE TEMP TABLE uniquely (v %s CONSTRAINT only_one UNIQUE)', type);
	INSERT INTO uniquely SELECT v FROM sample WHERE v IS DISTINCT FROM NULL ON CONFLICT (v) DO NOTHING;
	SELECT count(*) FROM uniquely INTO uniques;
	BEGIN
		INSERT INTO uniquely SELECT v FROM sample WHERE v IS DISTINCT FROM NULL LIMIT 1;
	EXCEPTION WHEN unique_violation THEN
		GET STACKED DIAGNOSTICS violation = CONSTRAINT_NAME;
	END;
	CREATE UNIQUE INDEX ON uniquely (v, (v IS NULL));
	DROP TABLE sample, uniquely;
END
$$;
\x
SELECT type, c.*
FROM unnest('{params,oidc,saml,attribute_mapping,login_hint,custom_attribute,custom_attribute[]}'::text[]) WITH ORDINALITY AS t (type, n),
	pg_temp.comparisons('enterprise_connection_' || type) AS c
ORDER BY n;
\x

CREATE TEMP TABLE pair (l enterprise_connection_params, r enterprise_connection_params);
INSERT INTO pair (l.name, r.name) VALUES ('a', 'a'), ('a', 'b'), ('b', 'a');
SELECT (l).name, (r).name, l = r AS eq, l <> r AS ne, l IN (r) AS is_in, l NOT IN (r) AS not_in, l IS DISTINCT FROM r AS "distinct",
	l = ANY (ARRAY[r]) AS "any", l <> ALL (ARRAY[r]) AS "all", nullif(l, r) IS NULL AS "nullif",
	CASE l WHEN r THEN 'same' ELSE 'other' END AS "case", l = '(a,,,,,,,,,,,,,)' AS literal
FROM pair ORDER BY l, r;
SELECT l::jsonb, count(*) FROM pair GROUP BY l ORDER BY l;
SELECT u::jsonb FROM (SELECT l FROM pair UNION SELECT r FROM pair) AS t (u) ORDER BY u;
SELECT l FROM pair EXCEPT SELECT r FROM pair;
SELECT (x).name, row_number() OVER (PARTITION BY x ORDER BY x) FROM (SELECT l FROM pair) AS t (x) ORDER BY 1, 2;
SELECT greatest(l, r)::jsonb FROM pair ORDER BY 1;
-- What there is no operator for: compared as what, it does not say.  It can
-- be said.
\set VERBOSITY terse
SELECT l < r FROM pair;
SELECT a || one FROM (SELECT '{"(a,,,,,,)"}'::enterprise_connection_custom_attribute[], '(a,,,,,,)'::enterprise_connection_custom_attribute) AS t (a, one);
SELECT (1, l) = (1, r) FROM pair;
\set VERBOSITY default
SELECT (1, l) IS DISTINCT FROM (1, r) AS rows, x = y AS of_tables, x.* IS DISTINCT FROM y.* AS expanded
FROM pair AS x JOIN pair AS y USING (l, r) ORDER BY l, r;
SELECT l::jsonb < r::jsonb AS as_jsonb, record_lt(l, r) AS as_records FROM pair ORDER BY l, r;

-- arrays: by functions
SELECT array_append(a, one) AS append, array_prepend(one, a) AS prepend, array_cat(a, a) AS concat, arraycontains(a, a) AS contains,
	one = ANY (a) AS "any", array_append(NULL, one) AS onto_null, array_position(a, one), array_remove(a, one)
FROM (SELECT '{"(a,,,,,,)"}'::enterprise_connection_custom_attribute[], '(a,,,,,,)'::enterprise_connection_custom_attribute) AS t (a, one);

-- text is still text, and a comparison with jsonb one of jsonb
SELECT 'x' || p AS text, p || '{"b": 1}'::jsonb AS merged, p = '{"mode": "a"}'::jsonb AS as_jsonb, p -> 'mode' AS member
FROM (SELECT '(a,,)'::enterprise_connection_login_hint) AS t (p);

-- all of it whatever the search path is
CREATE VIEW pg_temp.here AS SELECT '(a,,)'::enterprise_connection_login_hint AS l, '{"(a,,,,,,)"}'::enterprise_connection_custom_attribute[] AS a;
SET search_path = pg_catalog;
SELECT l = l AS eq, l IS DISTINCT FROM l AS "distinct", l IN (l, l) AS is_in, a = a AS array_eq, a IN (a) AS array_in, l::jsonb, a::jsonb
FROM pg_temp.here;
RESET search_path;

-- Untyped and typed parameters.
PREPARE typed (enterprise_connection_params) AS SELECT enterprise_connection_body($1);
EXECUTE typed('(Acme,,{acme.example},,,,,,,,,"(,,s,,,,,)",,)');
PREPARE same (enterprise_connection_login_hint) AS SELECT $1 = $2;
EXECUTE same('(a,,)', '(a,,)');
