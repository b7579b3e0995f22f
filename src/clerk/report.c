/*-------------------------------------------------------------------------
 *
 * report.c
 *		What went wrong with a call, as PostgreSQL reports it.
 *
 * Whatever Clerk, or something that answers in its place, says is untrusted.
 * Before anything of it is shown, the secrets that we sent are taken out, then
 * it is cut to a length, and control characters are replaced.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/json.h"
#include "base/text.h"
#include "clerk/report.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

/* More errors of one answer are only counted. */
#define MAX_ERRORS_SHOWN 20

/*
 * An error answer larger than this, in bytes, is not kept as it came: each
 * request of the outbox keeps its last one.  Clerk's have a hundredth.
 */
#define MAX_ERRORS_KEPT (64 * 1024)

/* Clerk's and Cloudflare's trace ids have 16 to 36 of these characters. */
#define MAX_TRACE_ID 128
#define TRACE_ID "Trace id: "
#define TRACE_ID_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"

#define MIRROR_HINT "Find out with SELECT * FROM mirror_enterprise_connections() before trying again."

/* Clerk's first error, where one more sentence helps. */
typedef struct CodeHint
{
	int			status;			/* 0: any */
	const char *code;			/* NULL: any */
	const char *hint;			/* %s is the server's name, at most once */
} CodeHint;

static const CodeHint code_hints[] = {
	{401, NULL, "Clerk does not accept the secret key. The server's owner sets the right one with "
	"ALTER USER MAPPING FOR PUBLIC SERVER %s OPTIONS (SET secret_key 'sk_...')."},
	{402, NULL, "The instance's Clerk plan does not include this feature."},
	{403, "quota_exceeded", "A development instance can hold 25 enterprise connections."},
	{403, "feature_not_enabled", "Enable the feature for the instance in Clerk's dashboard."},
	{403, "organization_not_enabled_in_instance", "Enable organizations for the instance in Clerk's dashboard."},
	{403, NULL, "The secret key's instance is not allowed to do this."},
	{404, "resource_not_found", "Clerk knows no such id in the instance of server %s."},
	{409, "resource_locked", "The connection is being modified at this moment; try again."},
	{413, NULL, "Shorten the parameters, for example by passing saml.idp_metadata_url instead of saml.idp_metadata."},
	{400, "api_version_invalid", "Check the option api_version of server %s."},
	{407, NULL, "The proxy asks for a user name and password: check the option proxy of server %s."},
	{408, NULL, "The request took too long to arrive, and was not carried out; try again."},
	{400, "saml_failed_to_fetch_idp_metadata", "Clerk could not fetch saml.idp_metadata_url; check it, or pass saml.idp_metadata."},
	{422, "organization_domain_exists_for_enterprise_connection",
	"Each domain can belong to one connection only; SELECT id, domains FROM enterprise_connections shows which has it."},
	{422, "form_param_missing", "Add the parameter that is named in the detail."},
	{422, "form_param_unknown", "Clerk's API does not take this parameter; check the options api_version and extra_params of server %s."},
	{422, "form_public_client_requires_pkce", "Pass oidc.client_secret, or set oidc.requires_pkce to true."},
	{422, "saml_connection_cant_be_activated", "Give the identity provider's metadata in saml first."},
	{429, NULL, "Clerk's rate limit is reached; the option rate_limit of server %s spaces the requests."},
	{503, NULL, "Clerk is not available at this moment; try again."},
};

const char *
clerk_report_id(const char *id)
{
	char	   *utf8 = pg_server_to_any(id, (int) strlen(id), PG_UTF8);
	StringInfoData shown;

	initStringInfo(&shown);
	for (unsigned char *p = (unsigned char *) utf8; *p; p += pg_utf_mblen(p))
	{
		if (clerk_text_is_unprintable(utf8_to_unicode(p)))
			appendStringInfoChar(&shown, '?');
		else
			appendBinaryStringInfo(&shown, (char *) p, pg_utf_mblen(p));
	}
	return pg_any_to_server(shown.data, shown.len, PG_UTF8);
}

static const char *
without_full_stop(const char *sentence)
{
	size_t		len = strlen(sentence);

	return len > 0 && sentence[len - 1] == '.' ? pnstrdup(sentence, len - 1) : sentence;
}

/*-------------------------------------------------------------------------
 * Clerk's own errors
 *-------------------------------------------------------------------------
 */

static char *
member_text(const ClerkReportSubject *subject, ClerkJson *json, const char *name)
{
	const char *value = clerk_json_get_string(json, name);

	return value && *value ? clerk_text_presentable(value, subject->secrets) : NULL;
}

/*
 * A trace id that looks like one; a proxy can send anything in its place.
 */
static char *
trace_id(const ClerkReportSubject *subject, const char *value)
{
	char	   *text = value ? clerk_text_take_out(value, subject->secrets) : NULL;
	size_t		len = text ? strlen(text) : 0;

	return len > 0 && len <= MAX_TRACE_ID && strspn(text, TRACE_ID_CHARACTERS) == len ? text : NULL;
}

/*
 * One error of the array, as a line of the detail; the first one gives the
 * report its message, too.
 */
static void
add_error(const ClerkReportSubject *subject, ClerkReport *report, ClerkJson *error,
		  StringInfo detail, const char **first)
{
	char	   *text = member_text(subject, error, "long_message");
	char	   *code = member_text(subject, error, "code");
	char	   *param = NULL;
	ClerkJson  *meta;

	if (text == NULL)
		text = member_text(subject, error, "message");
	if (text == NULL)
		text = "no message";
	if (clerk_json_get(error, "meta", &meta))
		param = member_text(subject, meta, "param_name");

	if (*first == NULL)
	{
		*first = text;
		report->code = code;
		report->param_name = param;
	}
	if (detail->len > 0)
		appendStringInfoChar(detail, '\n');
	if (param != NULL)
		appendStringInfo(detail, "%s: ", param);
	appendStringInfoString(detail, text);
	if (code != NULL)
		appendStringInfo(detail, " (%s)", code);
}

/*
 * Without secrets; for clerk_json_to_jsonb().
 */
static char *
without_secrets(const char *utf8, void *subject)
{
	return clerk_text_take_out(utf8, ((const ClerkReportSubject *) subject)->secrets);
}

/*
 * Read an error answer.  Returns its first message, or NULL if it is not in
 * the shape of Clerk's errors.  The array of errors is kept as it came, but for
 * the secrets, if it is not huge.
 */
static const char *
read_errors(const ClerkReportSubject *subject, ClerkReport *report,
			const ClerkHttpRequest *request, StringInfo detail)
{
	const char *first = NULL;
	const char *fault;
	ClerkJson  *json;
	ClerkJson  *errors;
	int			n;

	if (request->answer_len == 0)
		return NULL;
	json = clerk_json_parse(request->answer, request->answer_len, &fault);
	if (json == NULL)
		return NULL;
	report->trace_id = trace_id(subject, clerk_json_get_string(json, "clerk_trace_id"));
	if (!clerk_json_get(json, "errors", &errors))
		return member_text(subject, json, "error");
	if (request->answer_len <= MAX_ERRORS_KEPT)
		report->errors = clerk_json_to_jsonb(errors, without_secrets, unconstify(ClerkReportSubject *, subject));
	if (clerk_json_type(errors) != CLERK_JSON_ARRAY)
		return member_text(subject, json, "error");
	n = clerk_json_length(errors);
	for (int i = 0; i < Min(n, MAX_ERRORS_SHOWN); i++)
		add_error(subject, report, clerk_json_element(errors, i), detail, &first);
	if (n > MAX_ERRORS_SHOWN)
		appendStringInfo(detail, "\nand %d more", n - MAX_ERRORS_SHOWN);
	return first;
}

/*
 * The server, or something between here and there, failed.  (A create that may
 * have been carried out has another hint.)
 */
static char *
hint_for_failure(const ClerkReportSubject *subject, const ClerkReport *report, bool of_clerk)
{
	const char *again = subject->reads ? "Try again" : subject->posts ?
	"It may have been carried out. Try again" :
	"It may have been carried out, and it does no harm to send it again";

	if (!of_clerk)
		return psprintf("%s; if it goes on, check the options api_url and proxy of server %s.", again,
						quote_identifier(subject->server_name));
	if (report->trace_id != NULL)
		return psprintf("%s; if it goes on, Clerk's support wants the trace id.", again);
	return psprintf("%s.", again);
}

/*
 * If the answer is not Clerk's own, only statuses about the way to Clerk have a
 * hint.
 */
static char *
hint_for(const ClerkReportSubject *subject, const ClerkReport *report, bool of_clerk)
{
	if (report->status >= 500 && report->status != 503)
		return hint_for_failure(subject, report, of_clerk);
	if (!of_clerk && report->status != 429 && report->status != 503 &&
		report->status != 407 && report->status != 408)
		return NULL;

	for (size_t i = 0; i < lengthof(code_hints); i++)
	{
		const CodeHint *hint = &code_hints[i];

		if (hint->status == report->status &&
			(hint->code == NULL || (report->code && strcmp(hint->code, report->code) == 0)))
		{
			const char *place = strstr(hint->hint, "%s");

			if (place == NULL)
				return pstrdup(hint->hint);
			return psprintf("%.*s%s%s", (int) (place - hint->hint), hint->hint,
							quote_identifier(subject->server_name), place + 2);
		}
	}
	return NULL;
}

/*-------------------------------------------------------------------------
 * Reports
 *-------------------------------------------------------------------------
 */

static ClerkReport *
new_report(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	ClerkReport *report = palloc0(sizeof(*report));

	report->status = request->status;
	report->retry_after = request->retry_after;
	return report;
}

static void
add_trace_id(const ClerkReportSubject *subject, ClerkReport *report,
			 const ClerkHttpRequest *request, StringInfo detail)
{
	static const char *const headers[] = {"x-clerk-trace-id", "cf-ray"};

	for (size_t i = 0; i < lengthof(headers) && report->trace_id == NULL; i++)
		report->trace_id = trace_id(subject, clerk_http_header(request, headers[i]));
	if (report->trace_id != NULL)
		appendStringInfo(detail, "%s" TRACE_ID "%s", detail->len > 0 ? "\n" : "", report->trace_id);
}

/*
 * What Clerk says has no line breaks, so the last line is ours.
 */
const char *
clerk_report_trace_id(const char *detail)
{
	const char *line = strrchr(detail, '\n');

	line = line ? line + 1 : detail;
	return strncmp(line, TRACE_ID, strlen(TRACE_ID)) == 0 ? line + strlen(TRACE_ID) : NULL;
}

/*
 * May the request have been carried out, although this was the answer?  Only
 * a 503 of Clerk's own says that it was not even tried; any other status from
 * 500 on may come from a proxy that stopped waiting for Clerk.
 */
static bool
in_doubt(const ClerkReportSubject *subject, int status, bool of_clerk)
{
	return subject->creates && status >= 500 && !(status == 503 && of_clerk);
}

static ClerkRetry
retry_for_status(const ClerkReportSubject *subject, const ClerkReport *report, bool of_clerk)
{
	if (in_doubt(subject, report->status, of_clerk))
		return CLERK_RETRY_IN_DOUBT;
	switch (report->status)
	{
		case 429:
			return CLERK_RETRY_AT_ONCE;
		case 503:
			return subject->reads || report->retry_after >= 0 ?
				CLERK_RETRY_AT_ONCE : CLERK_RETRY_LATER;
		case 408:
			return subject->reads ? CLERK_RETRY_AT_ONCE : CLERK_RETRY_LATER;
		case 409:
			return report->code && strcmp(report->code, "resource_locked") == 0 ?
				CLERK_RETRY_LATER : CLERK_RETRY_NEVER;
		default:
			if (report->status < 500)
				return CLERK_RETRY_NEVER;
			return subject->reads ? CLERK_RETRY_AT_ONCE : CLERK_RETRY_LATER;
	}
}

const char *
clerk_report_packed(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	char	   *encoding = clerk_http_header(request, "Content-Encoding");

	if (encoding == NULL || *encoding == '\0' || pg_strcasecmp(encoding, "identity") == 0)
		return NULL;
	return psprintf("is compressed (Content-Encoding: %s), which was not asked for",
					clerk_text_presentable(encoding, subject->secrets));
}

/*
 * An answer with a status of 400 to 599.
 */
static ClerkReport *
report_status(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	ClerkReport *report = new_report(subject, request);
	StringInfoData detail;
	const char *text;
	int			status = request->status;

	initStringInfo(&detail);
	text = read_errors(subject, report, request, &detail);
	report->message = text ?
		psprintf("could not %s: %s", subject->what, without_full_stop(text)) :
		psprintf("could not %s: Clerk answered with status %d", subject->what, status);
	if (text == NULL && clerk_report_packed(subject, request) != NULL)
		appendStringInfo(&detail, "The answer %s.", clerk_report_packed(subject, request));
	else if (text == NULL)
		appendStringInfo(&detail, "The answer is not in the shape of Clerk's errors: it may come from a proxy in between.");
	add_trace_id(subject, report, request, &detail);
	report->detail = detail.len > 0 ? detail.data : NULL;
	report->of_clerk = text != NULL;
	report->retry = retry_for_status(subject, report, text != NULL);

	if (report->retry == CLERK_RETRY_IN_DOUBT)
	{
		report->sqlerrcode = ERRCODE_CLERK_OUTCOME_UNKNOWN;
		report->hint = "The connection may exist at Clerk all the same. " MIRROR_HINT;
	}
	else
	{
		report->sqlerrcode = MAKE_SQLSTATE('K', 'C', '0' + status / 100,
										   '0' + status / 10 % 10, '0' + status % 10);
		report->hint = hint_for(subject, report, text != NULL);
	}
	return report;
}

/*
 * Nothing was even tried.
 */
static ClerkReport *
report_shortage(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	ClerkReport *report = new_report(subject, request);

	report->sqlerrcode = ERRCODE_INSUFFICIENT_RESOURCES;
	report->message = psprintf("could not %s: no free socket in this process", subject->what);
	report->detail = pstrdup(request->fault);
	report->hint = psprintf("Nothing was sent. Lower the option max_concurrency of server %s, or raise max_files_per_process.",
							quote_identifier(subject->server_name));
	report->retry = CLERK_RETRY_SHORTAGE;
	return report;
}

/*
 * No connection: nothing was sent.
 */
static ClerkReport *
report_not_sent(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	ClerkReport *report = new_report(subject, request);
	static const char *const hints[] = {
		[CLERK_HTTP_FAULT_OTHER] = "Nothing was sent. Check the network, and the options api_url and proxy of server %s.",
		[CLERK_HTTP_FAULT_RESOLVE] = "Nothing was sent. Check the name server, and the option api_url of server %s.",
		[CLERK_HTTP_FAULT_TLS] = "Nothing was sent. No TLS connection could be trusted: check the options api_url and ca_file of server %s, "
		"and the machine's CA certificates.",
		[CLERK_HTTP_FAULT_TIMEOUT] = "Nothing was sent. Check the network; the options connect_timeout and timeout of server %s "
		"say how long to wait.",
	};

	report->sqlerrcode = ERRCODE_CLERK_NOT_CONNECTED;
	report->message = psprintf("could not %s: no connection to %s", subject->what, subject->base_url);
	report->detail = psprintf("%s.", clerk_text_presentable(request->fault, subject->secrets));
	report->hint = psprintf(hints[request->fault_kind], quote_identifier(subject->server_name));
	report->retry = CLERK_RETRY_AT_ONCE;
	return report;
}

/*
 * The connection broke, or the request timed out, before the whole answer had
 * come.  If it broke in the middle of an answer, the status is known.
 */
static ClerkReport *
report_broken(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	ClerkReport *report = new_report(subject, request);

	report->message = request->fault_kind == CLERK_HTTP_FAULT_TIMEOUT ?
		psprintf("could not %s: no answer from Clerk within %d ms", subject->what, subject->timeout) :
		psprintf("could not %s: the connection to Clerk broke before the answer was complete", subject->what);
	report->detail = psprintf("%s.", clerk_text_presentable(request->fault, subject->secrets));
	if (subject->creates)
	{
		report->sqlerrcode = ERRCODE_CLERK_OUTCOME_UNKNOWN;
		report->hint = "The request had been sent, so the connection may exist at Clerk. " MIRROR_HINT;
		report->retry = CLERK_RETRY_IN_DOUBT;
	}
	else
	{
		report->sqlerrcode = ERRCODE_CLERK_CONNECTION_BROKEN;
		report->hint = subject->reads ? "Try again." :
			"The request had been sent, so it may have been carried out; it does no harm to send it again.";

		/*
		 * A kept connection may be closed at any time: that is no sign of
		 * trouble.
		 */
		report->retry = subject->reads || (request->kept_broke && !subject->posts) ?
			CLERK_RETRY_AT_ONCE : CLERK_RETRY_LATER;
	}
	return report;
}

ClerkReport *
clerk_report_unreadable(const ClerkReportSubject *subject,
						const ClerkHttpRequest *request, const char *fault)
{
	ClerkReport *report = new_report(subject, request);
	bool		created = subject->creates && request->status == 201;
	StringInfoData detail;

	if (created && request->answer_len > 0)
		report->connection_id = clerk_json_salvage(request->answer, request->answer_len, "id");
	if (report->connection_id != NULL)
		report->connection_id = clerk_text_presentable(report->connection_id, subject->secrets);

	report->message = created ?
		psprintf("the enterprise connection was created, but Clerk's answer cannot be used") :
		psprintf("could not %s: Clerk's answer cannot be used", subject->what);

	initStringInfo(&detail);
	appendStringInfo(&detail, "The answer, with status %d, %s.", request->status, fault);
	if (report->connection_id != NULL)
		appendStringInfo(&detail, "\nThe connection's id is \"%s\".", report->connection_id);
	add_trace_id(subject, report, request, &detail);
	report->detail = detail.data;

	report->sqlerrcode = subject->creates ? ERRCODE_CLERK_OUTCOME_UNKNOWN : ERRCODE_CLERK_ANSWER_UNREADABLE;
	report->hint = created ?
		"The connection exists at Clerk. SELECT * FROM mirror_enterprise_connections() brings it into the tracking table." :
		subject->creates ?
		"The connection may exist at Clerk. " MIRROR_HINT :
		psprintf("Check that the option api_url of server %s leads to Clerk's API.",
				 quote_identifier(subject->server_name));
	report->retry = subject->creates ? CLERK_RETRY_IN_DOUBT :
		subject->reads ? CLERK_RETRY_AT_ONCE : CLERK_RETRY_LATER;
	return report;
}

ClerkReport *
clerk_report_endless(const char *server_name, const char *what, const char *fault)
{
	ClerkReport *report = palloc0(sizeof(*report));

	report->sqlerrcode = ERRCODE_CLERK_ANSWER_UNREADABLE;
	report->message = psprintf("could not %s: the listing does not end", what);
	report->detail = pstrdup(fault);
	report->hint = psprintf("Check that the option api_url of server %s leads to Clerk's API.",
							quote_identifier(server_name));
	report->retry_after = -1;
	report->retry = CLERK_RETRY_LATER;
	return report;
}

/*
 * Can the answer be judged by its status, even if the rest of it is lost?  One
 * that refuses a POST can, because a POST must not be sent again; so can 429 and
 * 503, which ask to try again, whatever else they say.  A PATCH or DELETE is
 * sent again: that does no harm, and its error would lack the reason.
 */
static bool
status_is_enough(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	return request->outcome == CLERK_HTTP_ANSWERED || subject->posts ||
		request->status == 429 || request->status == 503;
}

ClerkReport *
clerk_report_failure(const ClerkReportSubject *subject, const ClerkHttpRequest *request)
{
	if (request->status >= 400 && request->status <= 599 && status_is_enough(subject, request))
		return report_status(subject, request);

	switch (request->outcome)
	{
		case CLERK_HTTP_NOT_SENT:
			return report_not_sent(subject, request);
		case CLERK_HTTP_SHORTAGE:
			return report_shortage(subject, request);
		case CLERK_HTTP_TOO_LARGE:
			return clerk_report_unreadable(subject, request,
										   psprintf("is larger than the %d bytes of max_response_size",
													subject->max_response_size));
		case CLERK_HTTP_BROKEN:
			if (subject->creates && request->status == 201)
				return clerk_report_unreadable(subject, request,
											   psprintf("ended before it was complete: %s",
														clerk_text_presentable(request->fault, subject->secrets)));
			return report_broken(subject, request);
		case CLERK_HTTP_ANSWERED:
			break;
	}
	return clerk_report_unreadable(subject, request,
								   request->status / 100 == 3 ?
								   "is a redirect, which is not followed" :
								   "has a status that Clerk does not use");
}

bool
clerk_report_is_gone(const ClerkReport *report)
{
	return report->status == 404 && report->of_clerk;
}

Jsonb *
clerk_report_to_jsonb(const ClerkReport *report)
{
	JsonbValue	object = clerk_jsonb_new_object();
	JsonbValue	null = clerk_jsonb_new_string(NULL);

	clerk_jsonb_add(&object, "sqlstate", clerk_jsonb_new_string(unpack_sql_state(report->sqlerrcode)));
	clerk_jsonb_add(&object, "message", clerk_jsonb_new_string(report->message));
	clerk_jsonb_add(&object, "detail", clerk_jsonb_new_string(report->detail));
	clerk_jsonb_add(&object, "hint", clerk_jsonb_new_string(report->hint));
	clerk_jsonb_add(&object, "status", report->status ? clerk_jsonb_new_integer(report->status) : null);
	clerk_jsonb_add(&object, "trace_id", clerk_jsonb_new_string(report->trace_id));
	clerk_jsonb_add(&object, "errors", report->errors ? clerk_jsonb_value(report->errors) : null);
	return clerk_jsonb_pack(&object);
}

void
clerk_report_raise(int elevel, const ClerkReport *report)
{
	ereport(elevel,
			(errcode(report->sqlerrcode),
			 errmsg("%s", report->message),
			 report->detail && *report->detail ? errdetail("%s", report->detail) : 0,
			 report->hint ? errhint("%s", report->hint) : 0,
			 report->code ? err_generic_string(PG_DIAG_CONSTRAINT_NAME, report->code) : 0,
			 report->param_name ? err_generic_string(PG_DIAG_COLUMN_NAME, report->param_name) : 0));
}
