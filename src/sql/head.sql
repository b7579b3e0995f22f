\echo Use "CREATE EXTENSION pg_clerk" to load this file. \quit

/*
 * CREATE EXTENSION puts the extension's schema first in search_path, and there
 * anybody may have functions and operators of the names that are used here,
 * with arguments that match better than those of pg_catalog: they would run as
 * the superuser who installs.  So each script, an upgrade script too, begins
 * with this statement, and names of the extension's own are qualified.  LOCAL:
 * CREATE EXTENSION restores the path.
 *
 * Functions that statements and functions of the extension call are in
 * pg_catalog: in the extension's schema, somebody could have one with an
 * argument more that has a default, and the call would be ambiguous.
 */
SET LOCAL search_path = pg_catalog, pg_temp;
