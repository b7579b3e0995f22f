/*-------------------------------------------------------------------------
 *
 * activity.c
 *		Which connections were active when their rows stopped being ready.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/statements.h"
#include "catalog/pg_type.h"
#include "tables/activity.h"
#include "utils/builtins.h"

#define EQUALS " OPERATOR(pg_catalog.=) "
#define BY_ID " WHERE t.server" EQUALS "$1 AND t.id" EQUALS "$2"

static ClerkStatement read_statement = {
	.text = "SELECT t.reactivate FROM %1$s.enterprise_connections t" BY_ID,
	.nargs = 2,
	.args = {NAMEOID, TEXTOID},
};

static ClerkStatement set_statement = {
	.text = "UPDATE %1$s.enterprise_connections t SET reactivate = $3" BY_ID " AND t.reactivate OPERATOR(pg_catalog.<>) $3",
	.nargs = 3,
	.args = {NAMEOID, TEXTOID, BOOLOID},
};

bool
clerk_tracked_reactivate(const char *server, const char *id)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(id)};
	bool		isnull;
	bool		result;

	SPI_connect();
	clerk_run(&read_statement, values, NULL, true);
	result = SPI_processed > 0 && DatumGetBool(clerk_row_datum(0, 1, &isnull));
	SPI_finish();
	return result;
}

void
clerk_track_reactivate(const char *server, const char *id, bool reactivate)
{
	NameData	name;
	Datum		values[] = {clerk_name_datum(&name, server), CStringGetTextDatum(id), BoolGetDatum(reactivate)};

	SPI_connect();
	clerk_run(&set_statement, values, NULL, false);
	SPI_finish();
}
