/*-------------------------------------------------------------------------
 *
 * log.c
 *		Lines in the server's log: what has failed, and what took long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/jsonb.h"
#include "clerk/log.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

/* Clerk's codes are words such as form_param_missing; anybody can answer anything. */
#define CODE_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789_"
#define MAX_CODE 64

bool		clerk_log_failures = true;
int			clerk_log_min_duration = -1;

static void
write_line(const char *line)
{
	ereport(LOG_SERVER_ONLY,
			(errmsg_internal("pg_clerk: %s", line),
			 errhidestmt(true),
			 errhidecontext(true)));
}

void
clerk_log(const char *line)
{
	if (clerk_log_failures)
		write_line(line);
}

static bool
is_code(const char *text)
{
	size_t		len = strlen(text);

	return len > 0 && len <= MAX_CODE && strspn(text, CODE_CHARACTERS) == len;
}

/*
 * The code of Clerk's first error, if it looks like one; NULL if not.
 */
static char *
code_of(Jsonb *error)
{
	JsonbValue	buf;
	JsonbValue *errors = getKeyJsonValueFromContainer(&error->root, "errors", 6, &buf);
	JsonbValue *first;
	JsonbValue *code;
	char	   *text;

	if (errors == NULL || errors->type != jbvBinary || !JsonContainerIsArray(errors->val.binary.data))
		return NULL;
	first = getIthJsonbValueFromContainer(errors->val.binary.data, 0);
	if (first == NULL || first->type != jbvBinary || !JsonContainerIsObject(first->val.binary.data))
		return NULL;
	code = getKeyJsonValueFromContainer(first->val.binary.data, "code", 4, &buf);
	if (code == NULL || code->type != jbvString)
		return NULL;
	text = pnstrdup(code->val.string.val, code->val.string.len);
	return is_code(text) ? text : NULL;
}

void
clerk_log_failed(const char *what, Jsonb *error)
{
	StringInfoData line;
	const char *sqlstate;
	const char *code;
	const char *trace_id;

	if (!clerk_log_failures)
		return;
	initStringInfo(&line);
	appendStringInfo(&line, "%s", what);
	if (error != NULL && JB_ROOT_IS_OBJECT(error))
	{
		if ((sqlstate = clerk_jsonb_string(error, "sqlstate")) != NULL)
			appendStringInfo(&line, ": SQLSTATE %s", sqlstate);
		if ((code = code_of(error)) != NULL)
			appendStringInfo(&line, ", code %s", code);
		if ((trace_id = clerk_jsonb_string(error, "trace_id")) != NULL)
			appendStringInfo(&line, ", trace id %s", trace_id);
	}
	write_line(line.data);
	pfree(line.data);
}

void
clerk_log_error(const char *what, const ErrorData *error)
{
	StringInfoData line;

	if (!clerk_log_failures)
		return;
	initStringInfo(&line);
	appendStringInfo(&line, "%s: SQLSTATE %s", what, unpack_sql_state(error->sqlerrcode));
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_TO_CATEGORY(ERRCODE_CLERK_ERROR))
		appendStringInfo(&line, ": %s", error->message);
	else
	{
		const char *trace_id = error->detail ? clerk_report_trace_id(error->detail) : NULL;

		if (error->constraint_name != NULL && is_code(error->constraint_name))
			appendStringInfo(&line, ", code %s", error->constraint_name);
		if (trace_id != NULL)
			appendStringInfo(&line, ", trace id %s", trace_id);
	}
	write_line(line.data);
	pfree(line.data);
}

void
clerk_log_duration(const ClerkCall *call)
{
	const ClerkHttpRequest *request = call->request;
	StringInfoData line;

	if (clerk_log_min_duration < 0 || request->elapsed < (int64) clerk_log_min_duration * 1000)
		return;
	initStringInfo(&line);
	appendStringInfo(&line, "duration: %.3f ms  %s", (double) request->elapsed / 1000, request->method);
	if (call->id != NULL)
		appendStringInfo(&line, " of connection \"%s\"", clerk_report_id(call->id));
	appendStringInfo(&line, ", server \"%s\"", call->settings->server_name);
	if (request->outcome == CLERK_HTTP_ANSWERED)
		appendStringInfo(&line, ", status %d", request->status);
	else
		appendStringInfoString(&line, ", no answer");
	write_line(line.data);
	pfree(line.data);
}
