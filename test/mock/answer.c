/*-------------------------------------------------------------------------
 *
 * answer.c
 *		What is sent back, the faults an error answer is made of, and JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "answer.h"

#include <stdarg.h>
#include <string.h>

/* Deep enough for any sane body, shallow enough for the stack. */
#define JSON_MAX_DEPTH	64

/* The short message that goes with each code. */
typedef struct Message
{
	const char *code;
	const char *message;
} Message;

static const Message messages[] = {
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
	for (size_t i = 0; i < G_N_ELEMENTS(messages); i++)
		if (strcmp(messages[i].code, code) == 0)
			return messages[i].message;
	return code;
}

static void
add_fault(GString *faults, const char *code, const char *param, const char *fmt, va_list args)
{
	g_autofree char *long_message = g_strdup_vprintf(fmt, args);

	g_string_append(faults, faults->len > 0 ? ",{\"message\":" : "{\"message\":");
	json_append_text(faults, message_of(code));
	g_string_append(faults, ",\"long_message\":");
	json_append_text(faults, long_message);
	g_string_append(faults, ",\"code\":");
	json_append_text(faults, code);
	if (param != NULL)
	{
		g_string_append(faults, ",\"meta\":{\"param_name\":");
		json_append_text(faults, param);
		g_string_append_c(faults, '}');
	}
	g_string_append_c(faults, '}');
}

void
fault_add(GString *faults, const char *code, const char *param, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	add_fault(faults, code, param, fmt, args);
	va_end(args);
}

void
answer_faults(Answer *answer, int status, const GString *faults)
{
	answer->status = status;
	g_string_printf(answer->body, "{\"errors\":[%s],\"clerk_trace_id\":\"%032llx\"}", faults->str, ++last_trace);
}

void
answer_error(Answer *answer, int status, const char *code, const char *fmt,...)
{
	g_autoptr(GString) faults = g_string_new(NULL);
	va_list		args;

	va_start(args, fmt);
	add_fault(faults, code, NULL, fmt, args);
	va_end(args);
	answer_faults(answer, status, faults);
}

void
answer_json(Answer *answer, int status, struct json_object *json)
{
	answer->status = status;
	g_string_assign(answer->body, json_text(json));
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
	if (!good)
		g_clear_pointer(json, json_object_put);
	json_tokener_free(tok);
	return good;
}

const char *
json_text(struct json_object *json)
{
	return json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

/* Most texts need no escape: they take the short way. */
static bool
is_plain(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!g_ascii_isprint(s[i]) || s[i] == '"' || s[i] == '\\')
			return false;
	return true;
}

void
json_append(GString *out, const char *s, size_t len)
{
	g_autofree char *valid = NULL;
	struct json_object *json;

	if (is_plain(s, len))
	{
		g_string_append_c(out, '"');
		g_string_append_len(out, s, (gssize) len);
		g_string_append_c(out, '"');
		return;
	}
	valid = g_utf8_make_valid(s, (gssize) len);
	json = json_object_new_string(valid);
	g_string_append(out, json_text(json));
	json_object_put(json);
}

void
json_append_text(GString *out, const char *s)
{
	if (s == NULL)
		g_string_append(out, "null");
	else
		json_append(out, s, strlen(s));
}

const char *
json_member_text(struct json_object *object, const char *name)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(object, name, &value);
	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}
