\echo Use "CREATE EXTENSION pg_clerk" to load this file. \quit

/*
 * CREATE EXTENSION puts the extension's schema first in search_path.  Other
 * roles may be able to create objects there: functions and operators with the
 * names that are used here, and with arguments that match better than those of
 * pg_catalog.  They would run as the superuser who installs.  So each script, an
 * upgrade script too, must begin with this statement, and must qualify the names
 * of the extension's own objects.  LOCAL: CREATE EXTENSION restores the path.
 *
 * Functions that statements of the library, policies, casts and operators call
 * are in pg_catalog.  In the extension's schema, somebody could add one of the
 * same name that has one more argument with a default, and calls would be
 * ambiguous.
 */
SET LOCAL search_path = pg_catalog, pg_temp;
