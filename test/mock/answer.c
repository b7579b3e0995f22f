/*-------------------------------------------------------------------------
 *
 * answer.c
 *		What is sent back, and the faults an error answer is made of.
 *
 *-------------------------------------------------------------------------
 */
#include "answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"

/* Deep enough for any sane body, shallow enough for the stack. */
#define JSON_MAX_DEPTH	64

/* The short message that goes with each code. */
static const struct
{
	const char *code;
	const char *message;
}			messages[] =
{
	{"api_version_invalid", "API version invalid"},
	{"authorization_header_format_invalid", "Invalid Authorization header format"},
	{"clerk_key_invalid", "The provided Clerk Secret Key is invalid"},
	{"form_conditional_param_missing", "is missing"},
	{"form_param_duplicate", "is duplicated"},
	{"form_param_format_invalid", "is invalid"},
	{"form_param_missing", "is missing"},
	{"form_param_nil", "is null"},
	{"form_param_unknown", "is unknown"},
	{"form_param_value_invalid", "has an invalid value"},
	{"form_public_client_requires_pkce", "PKCE is required"},
	{"internal_clerk_error", "Oops, an unexpected error occurred"},
	{"method_not_allowed", "Method not allowed"},
	{"organization_domain_exists_for_enterprise_connection", "domain already in use"},
	{"quota_exceeded", "Quota exceeded"},
	{"request_body_invalid", "Request body invalid"},
	{"request_body_too_large", "Request body too large"},
	{"resource_not_found", "not found"},
	{"saml_connection_cant_be_activated", "SAML connection can't be activated"},
	{"too_many_requests", "Too many requests"},
	{"unsupported_content_type", "Content-Type is unsupported"},
};

static unsigned long long last_trace;

static const char *
message_of(const char *code)
{
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
		if (strcmp(messages[i].code, code) == 0)
			return messages[i].message;
	return code;
}

static void
fault_add_text(Faults *faults, const char *code, const char *param,
			   const char *long_message)
{
	Buf		   *b = &faults->json;

	if (faults->count++ > 0)
		buf_char(b, ',');
	buf_str(b, "{\"message\":");
	buf_json_cstring(b, message_of(code));
	buf_str(b, ",\"long_message\":");
	buf_json_cstring(b, long_message);
	buf_str(b, ",\"code\":");
	buf_json_cstring(b, code);
	if (param != NULL)
	{
		buf_str(b, ",\"meta\":{\"param_name\":");
		buf_json_cstring(b, param);
		buf_char(b, '}');
	}
	buf_char(b, '}');
}

void
fault_add(Faults *faults, const char *code, const char *param, const char *fmt,...)
{
	char		text[512];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fault_add_text(faults, code, param, text);
}

void
answer_faults(Answer *answer, int status, Faults *faults)
{
	buf_free(&answer->body);
	answer->status = status;
	buf_str(&answer->body, "{\"errors\":[");
	if (faults->json.len > 0)
		buf_add(&answer->body, faults->json.data, faults->json.len);
	buf_printf(&answer->body, "],\"clerk_trace_id\":\"%032llx\"}", ++last_trace);
	buf_free(&faults->json);
	faults->count = 0;
}

void
answer_error(Answer *answer, int status, const char *code, const char *param,
			 const char *fmt,...)
{
	Faults		faults = {0};
	char		text[512];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fault_add_text(&faults, code, param, text);
	answer_faults(answer, status, &faults);
}

void
answer_json(Answer *answer, int status, struct json_object *json)
{
	size_t		len;
	const char *text = json_text(json, &len);

	buf_free(&answer->body);
	answer->status = status;
	buf_add(&answer->body, text, len);
}

void
answer_free(Answer *answer)
{
	buf_free(&answer->body);
}

void
answer_reset_counters(void)
{
	last_trace = 0;
}

bool
json_parse(const char *s, size_t len, struct json_object **json)
{
	struct json_tokener *tok;
	bool		good;

	*json = NULL;
	if (len == 0 || len >= INT32_MAX)
		return false;
	tok = json_tokener_new_ex(JSON_MAX_DEPTH);
	if (tok == NULL)
		end_badly("out of memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);

	/*
	 * A lone number is complete only once its end was seen; every text here
	 * is NUL-terminated, and the NUL counts as that end.
	 */
	*json = json_tokener_parse_ex(tok, s, (int) len + 1);
	good = json_tokener_get_error(tok) == json_tokener_success;
	if (good)
	{
		size_t		end = json_tokener_get_parse_end(tok);

		while (end < len && strchr(" \t\r\n", s[end]) != NULL && s[end] != '\0')
			end++;
		good = end >= len;
	}
	if (!good && *json != NULL)
	{
		json_object_put(*json);
		*json = NULL;
	}
	json_tokener_free(tok);
	return good;
}

const char *
json_text(struct json_object *json, size_t *len)
{
	return json_object_to_json_string_length(json,
											 JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
											 len);
}
