/*-------------------------------------------------------------------------
 *
 * script.c
 *		Scripted answers: steps that a test has laid out beforehand.
 *
 *-------------------------------------------------------------------------
 */
#include "script.h"

#include <string.h>

#include "answer.h"
#include "member.h"

static GPtrArray *steps;		/* NULL: none */

/*
 * Members of a step that are not simply stored
 */
static bool
add_header(Step *step, const char *name, struct json_object *value)
{
	StepHeader	header = {0};

	if (json_object_is_type(value, json_type_array) || json_object_is_type(value, json_type_object))
		return false;
	/* a line break would be a header of its own: that is what raw is for */
	if (value != NULL && strpbrk(json_object_get_string(value), "\r\n") != NULL)
		return false;
	header.name = g_strdup(name);
	header.value = value ? g_strdup(json_object_get_string(value)) : NULL;
	g_array_append_val(step->headers, header);
	return true;
}

static bool
read_headers(void *base, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_object))
		return false;
	json_object_object_foreach(value, name, v)
	{
		size_t		n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

		if (*name == '\0' || strpbrk(name, " \t\r\n:") != NULL)
			return false;
		for (size_t i = 0; i < n; i++)
			if (!add_header(base, name, json_object_array_get_idx(v, i)))
				return false;
		if (!json_object_is_type(v, json_type_array) && !add_header(base, name, v))
			return false;
	}
	return true;
}

static void
free_string(GString *string)
{
	if (string != NULL)
		g_string_free(string, TRUE);
}

static bool
read_body(void *base, struct json_object *value)
{
	Step	   *step = base;

	free_string(step->body);
	if (json_object_is_type(value, json_type_string))
		step->body = g_string_new_len(json_object_get_string(value), json_object_get_string_len(value));
	else
		step->body = g_string_new(json_text(value));
	return true;
}

static const Member match_members[] = {
	{"method", MEMBER_TEXT, offsetof(Step, method)},
	{"path", MEMBER_TEXT, offsetof(Step, path)},
	{"path_prefix", MEMBER_TEXT, offsetof(Step, path_prefix)},
	{"body_contains", MEMBER_BYTES, offsetof(Step, body_contains)},
	{NULL}
};

static const Member fill_members[] = {
	{"byte", MEMBER_BYTES, offsetof(Step, fill_byte)},
	{"size", MEMBER_NUMBER, offsetof(Step, fill_size)},
	{"prefix", MEMBER_BYTES, offsetof(Step, body)},
	{NULL}
};

static const Member trickle_members[] = {
	{"bytes", MEMBER_NUMBER, offsetof(Step, trickle_bytes)},
	{"every_ms", MEMBER_NUMBER, offsetof(Step, trickle_ms)},
	{NULL}
};

static const char *const reset_names[] = {"never", "before", "after", NULL};

static const Member step_members[] = {
	{"match", MEMBER_OBJECT,.members = match_members},
	{"skip", MEMBER_NUMBER, offsetof(Step, skip)},
	{"times", MEMBER_NUMBER, offsetof(Step, times)},
	{"delay_ms", MEMBER_NUMBER, offsetof(Step, delay_ms)},
	{"apply", MEMBER_FLAG, offsetof(Step, apply)},
	{"delay_after_ms", MEMBER_NUMBER, offsetof(Step, delay_after_ms)},
	{"status", MEMBER_NUMBER, offsetof(Step, status)},
	{"headers", MEMBER_OTHER,.read = read_headers},
	{"body", MEMBER_OTHER,.read = read_body},
	{"body_base64", MEMBER_BASE64, offsetof(Step, body)},
	{"fill", MEMBER_OBJECT,.members = fill_members},
	{"truncate", MEMBER_NUMBER, offsetof(Step, truncate_at)},
	{"chunked", MEMBER_FLAG, offsetof(Step, chunked)},
	{"trickle", MEMBER_OBJECT,.members = trickle_members},
	{"reset", MEMBER_CHOICE, offsetof(Step, reset),.names = reset_names},
	{"raw", MEMBER_BYTES, offsetof(Step, raw)},
	{"raw_base64", MEMBER_BASE64, offsetof(Step, raw)},
	{"hold", MEMBER_FLAG, offsetof(Step, hold)},
	{"real", MEMBER_FLAG, offsetof(Step, real)},
	{NULL}
};

/*
 * The script
 */
static void
free_header(void *header)
{
	g_free(((StepHeader *) header)->name);
	g_free(((StepHeader *) header)->value);
}

static void
clear_step(void *p)
{
	Step	   *step = p;

	g_free(step->method);
	g_free(step->path);
	g_free(step->path_prefix);
	free_string(step->body_contains);
	g_array_unref(step->headers);
	free_string(step->body);
	free_string(step->fill_byte);
	free_string(step->raw);
	json_object_put(step->source);
}

void
step_release(Step *step)
{
	if (step != NULL)
		g_rc_box_release_full(step, clear_step);
}

static bool
has(struct json_object *json, const char *name)
{
	return json_object_object_get_ex(json, name, NULL);
}

/* What is wrong with the members together; NULL: nothing. */
static const char *
find_fault(const Step *step, struct json_object *json, bool tls)
{
	if (step->status < 200 || step->status > 999)
		return "wrong value for status";
	if (step->fill && (step->fill_byte->len != 1 || (step->body && step->fill_size < (gint64) step->body->len)))
		return "wrong value for fill";
	if (has(json, "trickle") && (step->trickle_bytes == 0 || step->trickle_ms == 0))
		return "wrong value for trickle";
	if (step->raw != NULL && tls)
		return "raw bytes cannot be written below TLS";
	if (step->real && (has(json, "status") || step->body != NULL || step->fill))
		return "real excludes status and body";
	return NULL;
}

static Step *
make_step(struct json_object *json, bool tls, GString *why)
{
	Step	   *step = g_rc_box_new0(Step);
	const char *fault;

	step->source = json_object_get(json);
	step->times = 1;
	step->status = 200;
	step->truncate_at = -1;
	step->fill_byte = g_string_new("a");
	step->headers = g_array_new(FALSE, FALSE, sizeof(StepHeader));
	g_array_set_clear_func(step->headers, free_header);
	if (!json_object_is_type(json, json_type_object))
		g_string_assign(why, "a step must be an object");
	else if (members_read(step_members, step, json, "", why))
	{
		step->fill = has(json, "fill");
		fault = find_fault(step, json, tls);
		if (fault != NULL)
			g_string_assign(why, fault);
		/* a step without content of its own gives the real answer */
		if (!has(json, "status") && step->body == NULL && !step->fill)
			step->real = true;
	}
	return step;
}

void
script_add(struct json_object *json, bool tls, GString *why)
{
	bool		many = json_object_is_type(json, json_type_array);
	size_t		n = many ? json_object_array_length(json) : 1;
	GPtrArray  *added = g_ptr_array_new_with_free_func((GDestroyNotify) step_release);

	for (size_t i = 0; i < n && why->len == 0; i++)
		g_ptr_array_add(added, make_step(many ? json_object_array_get_idx(json, i) : json, tls, why));
	if (why->len > 0)
	{
		g_ptr_array_unref(added);
		return;
	}
	if (steps == NULL)
		steps = g_ptr_array_new_with_free_func((GDestroyNotify) step_release);
	g_ptr_array_extend_and_steal(steps, added);
}

void
script_clear(void)
{
	g_clear_pointer(&steps, g_ptr_array_unref);
}

void
script_write(GString *out)
{
	g_string_append_c(out, '[');
	for (guint i = 0; steps != NULL && i < steps->len; i++)
	{
		const Step *step = steps->pdata[i];

		g_string_append_printf(out, "%s{\"step\":%s", i > 0 ? "," : "", json_text(step->source));
		g_string_append_printf(out, ",\"matched\":%" G_GINT64_FORMAT ",\"used\":%" G_GINT64_FORMAT "}",
							   step->matched, step->used);
	}
	g_string_append_c(out, ']');
}

static bool
matches(const Step *step, const char *method, const char *path, const GString *body)
{
	if (step->method != NULL && strcmp(step->method, method) != 0)
		return false;
	if (step->path != NULL && strcmp(step->path, path) != 0)
		return false;
	if (step->path_prefix != NULL && !g_str_has_prefix(path, step->path_prefix))
		return false;
	return step->body_contains == NULL ||
		memmem(body->str, body->len, step->body_contains->str, step->body_contains->len) != NULL;
}

Step *
script_match(const char *method, const char *path, const GString *body)
{
	for (guint i = 0; steps != NULL && i < steps->len; i++)
	{
		Step	   *step = steps->pdata[i];

		if (!matches(step, method, path, body))
			continue;
		/* one that is let through may still be meant by a later step */
		if (step->matched++ < step->skip)
			continue;
		step->used++;
		g_rc_box_acquire(step);
		if (step->times > 0 && step->used >= step->times)
			g_ptr_array_remove_index(steps, i);
		return step;
	}
	return NULL;
}

const StepHeader *
step_header(const Step *step, guint i)
{
	return step != NULL && i < step->headers->len ? &g_array_index(step->headers, StepHeader, i) : NULL;
}
