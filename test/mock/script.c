/*-------------------------------------------------------------------------
 *
 * script.c
 *		Scripted answers: steps that a test has laid out beforehand.
 *
 * A misspelt member would make a test pass for the wrong reason, so every
 * member is looked up in a table and an unknown one refuses the step.
 *
 *-------------------------------------------------------------------------
 */
#include "script.h"

#include <stdlib.h>
#include <string.h>

#include "answer.h"

typedef bool (*Setter) (Step *step, struct json_object *value);

typedef struct Member
{
	const char *name;
	Setter		set;
} Member;

static Step **steps;
static size_t nsteps;

/*
 * Setters, one for each member; false: wrong value
 */
static bool
set_string(char **target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_string))
		return false;
	free(*target);
	*target = xstrdup(json_object_get_string(value));
	return true;
}

static bool
set_bytes(Buf *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_string))
		return false;
	target->len = 0;
	buf_add(target, json_object_get_string(value), (size_t) json_object_get_string_len(value));
	return true;
}

static bool
set_number(long *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
		return false;
	*target = (long) json_object_get_int64(value);
	return true;
}

static bool
set_flag(bool *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_boolean))
		return false;
	*target = json_object_get_boolean(value);
	return true;
}

static bool
set_method(Step *step, struct json_object *value)
{
	return set_string(&step->method, value);
}

static bool
set_path(Step *step, struct json_object *value)
{
	return set_string(&step->path, value);
}

static bool
set_path_prefix(Step *step, struct json_object *value)
{
	return set_string(&step->path_prefix, value);
}

static bool
set_body_contains(Step *step, struct json_object *value)
{
	return set_bytes(&step->body_contains, value);
}

static const Member match_members[] = {
	{"method", set_method},
	{"path", set_path},
	{"path_prefix", set_path_prefix},
	{"body_contains", set_body_contains},
	{NULL, NULL}
};

static const Member *
find_member(const Member *members, const char *name)
{
	while (members->name != NULL && strcmp(members->name, name) != 0)
		members++;
	return members->name ? members : NULL;
}

/* A member that is an object: each of its own members has a setter, too. */
static bool
set_members(Step *step, const Member *members, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_object))
		return false;
	json_object_object_foreach(value, name, v)
	{
		const Member *m = find_member(members, name);

		if (m == NULL || !m->set(step, v))
			return false;
	}
	return true;
}

static bool
set_match(Step *step, struct json_object *value)
{
	return set_members(step, match_members, value);
}

static bool
set_skip(Step *step, struct json_object *value)
{
	return set_number(&step->skip, value);
}

static bool
set_times(Step *step, struct json_object *value)
{
	return set_number(&step->times, value);
}

static bool
set_delay(Step *step, struct json_object *value)
{
	return set_number(&step->delay_ms, value);
}

static bool
set_delay_after(Step *step, struct json_object *value)
{
	return set_number(&step->delay_after_ms, value);
}

static bool
set_apply(Step *step, struct json_object *value)
{
	return set_flag(&step->apply, value);
}

static bool
set_status(Step *step, struct json_object *value)
{
	long		status;

	if (!set_number(&status, value) || status < 200 || status > 999)
		return false;
	step->status = (int) status;
	return true;
}

static bool
add_header(Step *step, const char *name, struct json_object *value)
{
	const char *text = NULL;

	if (value != NULL)
	{
		if (json_object_is_type(value, json_type_array) || json_object_is_type(value, json_type_object))
			return false;
		text = json_object_get_string(value);
		/* a line break would be a header of its own: that is what raw is for */
		if (strpbrk(text, "\r\n") != NULL)
			return false;
	}
	step->headers = xrealloc(step->headers, (size_t) (step->nheaders + 1) * sizeof(StepHeader));
	step->headers[step->nheaders].name = xstrdup(name);
	step->headers[step->nheaders].value = text ? xstrdup(text) : NULL;
	step->nheaders++;
	return true;
}

static bool
set_headers(Step *step, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_object))
		return false;
	json_object_object_foreach(value, name, v)
	{
		size_t		n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

		if (*name == '\0' || strpbrk(name, " \t\r\n:") != NULL)
			return false;
		for (size_t i = 0; i < n; i++)
			if (!add_header(step, name, json_object_array_get_idx(v, i)))
				return false;
		if (!json_object_is_type(v, json_type_array) && !add_header(step, name, v))
			return false;
	}
	return true;
}

static bool
set_body(Step *step, struct json_object *value)
{
	size_t		len;
	const char *text;

	if (json_object_is_type(value, json_type_string))
		return set_bytes(&step->body, value);
	text = value ? json_text(value, &len) : "null";
	step->body.len = 0;
	buf_add(&step->body, text, value ? len : strlen(text));
	return true;
}

static bool
set_base64(Buf *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_string))
		return false;
	target->len = 0;
	buf_str(target, "");
	return buf_unbase64(target, json_object_get_string(value), (size_t) json_object_get_string_len(value));
}

static bool
set_body_base64(Step *step, struct json_object *value)
{
	return set_base64(&step->body, value);
}

static bool
set_fill_byte(Step *step, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_string) || json_object_get_string_len(value) != 1)
		return false;
	step->fill_byte = *json_object_get_string(value);
	return true;
}

static bool
set_fill_size(Step *step, struct json_object *value)
{
	long		size;

	if (!set_number(&size, value))
		return false;
	step->fill_size = (uint64_t) size;
	return true;
}

static bool
set_fill_prefix(Step *step, struct json_object *value)
{
	return set_bytes(&step->body, value);
}

static const Member fill_members[] = {
	{"byte", set_fill_byte},
	{"size", set_fill_size},
	{"prefix", set_fill_prefix},
	{NULL, NULL}
};

static bool
set_fill(Step *step, struct json_object *value)
{
	step->fill = true;
	step->fill_byte = 'a';
	return set_members(step, fill_members, value) && step->fill_size >= step->body.len;
}

static bool
set_trickle_bytes(Step *step, struct json_object *value)
{
	return set_number(&step->trickle_bytes, value);
}

static bool
set_trickle_ms(Step *step, struct json_object *value)
{
	return set_number(&step->trickle_ms, value);
}

static const Member trickle_members[] = {
	{"bytes", set_trickle_bytes},
	{"every_ms", set_trickle_ms},
	{NULL, NULL}
};

static bool
set_trickle(Step *step, struct json_object *value)
{
	return set_members(step, trickle_members, value) &&
		step->trickle_bytes > 0 && step->trickle_ms > 0;
}

static bool
set_truncate(Step *step, struct json_object *value)
{
	long		at;

	if (!set_number(&at, value))
		return false;
	step->truncate = true;
	step->truncate_at = (uint64_t) at;
	return true;
}

static bool
set_chunked(Step *step, struct json_object *value)
{
	return set_flag(&step->chunked, value);
}

static bool
set_reset(Step *step, struct json_object *value)
{
	const char *when = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";

	if (strcmp(when, "before") == 0)
		step->reset = RESET_BEFORE;
	else if (strcmp(when, "after") == 0)
		step->reset = RESET_AFTER;
	else
		return false;
	return true;
}

static bool
set_raw(Step *step, struct json_object *value)
{
	step->is_raw = true;
	return set_bytes(&step->raw, value);
}

static bool
set_raw_base64(Step *step, struct json_object *value)
{
	step->is_raw = true;
	return set_base64(&step->raw, value);
}

static bool
set_hold(Step *step, struct json_object *value)
{
	return set_flag(&step->hold, value);
}

static bool
set_real(Step *step, struct json_object *value)
{
	return set_flag(&step->real, value);
}

static const Member step_members[] = {
	{"match", set_match},
	{"skip", set_skip},
	{"times", set_times},
	{"delay_ms", set_delay},
	{"apply", set_apply},
	{"delay_after_ms", set_delay_after},
	{"status", set_status},
	{"headers", set_headers},
	{"body", set_body},
	{"body_base64", set_body_base64},
	{"fill", set_fill},
	{"truncate", set_truncate},
	{"chunked", set_chunked},
	{"trickle", set_trickle},
	{"reset", set_reset},
	{"raw", set_raw},
	{"raw_base64", set_raw_base64},
	{"hold", set_hold},
	{"real", set_real},
	{NULL, NULL}
};

/*
 * The script
 */
void
step_release(Step *step)
{
	if (step == NULL || --step->refs > 0)
		return;
	for (int i = 0; i < step->nheaders; i++)
	{
		free(step->headers[i].name);
		free(step->headers[i].value);
	}
	free(step->headers);
	free(step->method);
	free(step->path);
	free(step->path_prefix);
	buf_free(&step->body_contains);
	buf_free(&step->body);
	buf_free(&step->raw);
	json_object_put(step->source);
	free(step);
}

/* A step without content of its own gives the real answer. */
static bool
has_content(struct json_object *json)
{
	static const char *const content[] = {"status", "body", "body_base64", "fill", NULL};

	for (int i = 0; content[i] != NULL; i++)
		if (json_object_object_get_ex(json, content[i], NULL))
			return true;
	return false;
}

static Step *
make_step(struct json_object *json, bool tls, Buf *why)
{
	Step	   *step;

	if (!json_object_is_type(json, json_type_object))
	{
		buf_str(why, "a step must be an object");
		return NULL;
	}
	step = xcalloc(sizeof(Step));
	step->refs = 1;
	step->times = 1;
	step->source = json_object_get(json);
	json_object_object_foreach(json, name, value)
	{
		const Member *m = find_member(step_members, name);

		if (m == NULL)
			buf_printf(why, "unknown member %s", name);
		else if (!m->set(step, value))
			buf_printf(why, "wrong value for %s", name);
		if (why->len > 0)
			break;
	}
	if (why->len == 0 && step->is_raw && tls)
		buf_str(why, "raw bytes cannot be written below TLS");
	if (why->len == 0 && step->real && has_content(json))
		buf_str(why, "real excludes status and body");
	if (why->len > 0)
	{
		step_release(step);
		return NULL;
	}
	if (!has_content(json))
		step->real = true;
	if (step->status == 0)
		step->status = 200;
	return step;
}

bool
script_add(struct json_object *json, bool tls, Buf *why)
{
	bool		many = json_object_is_type(json, json_type_array);
	size_t		n = many ? json_object_array_length(json) : 1;

	steps = xrealloc(steps, (nsteps + n) * sizeof(Step *));
	for (size_t i = 0; i < n; i++)
	{
		Step	   *step = make_step(many ? json_object_array_get_idx(json, i) : json, tls, why);

		if (step == NULL)
		{
			while (i-- > 0)
				step_release(steps[nsteps + i]);
			return false;
		}
		steps[nsteps + i] = step;
	}
	nsteps += n;
	return true;
}

void
script_clear(void)
{
	for (size_t i = 0; i < nsteps; i++)
		step_release(steps[i]);
	free(steps);
	steps = NULL;
	nsteps = 0;
}

void
script_write(Buf *out)
{
	buf_char(out, '[');
	for (size_t i = 0; i < nsteps; i++)
	{
		const Step *step = steps[i];
		size_t		len;
		const char *text = json_text(step->source, &len);

		buf_printf(out, "%s{\"step\":", i > 0 ? "," : "");
		buf_add(out, text, len);
		buf_printf(out, ",\"matched\":%lu,\"used\":%lu}", step->matched, step->used);
	}
	buf_char(out, ']');
}

static bool
matches(const Step *step, const char *method, const char *path, size_t path_len,
		const char *body, size_t body_len)
{
	if (step->method != NULL && strcmp(step->method, method) != 0)
		return false;
	if (step->path != NULL &&
		(strlen(step->path) != path_len || memcmp(step->path, path, path_len) != 0))
		return false;
	if (step->path_prefix != NULL &&
		(strlen(step->path_prefix) > path_len ||
		 memcmp(step->path_prefix, path, strlen(step->path_prefix)) != 0))
		return false;
	return step->body_contains.len == 0 ||
		(body_len > 0 && memmem(body, body_len, step->body_contains.data, step->body_contains.len) != NULL);
}

Step *
script_match(const char *method, const char *path, size_t path_len,
			 const char *body, size_t body_len)
{
	for (size_t i = 0; i < nsteps; i++)
	{
		Step	   *step = steps[i];

		if (!matches(step, method, path, path_len, body, body_len))
			continue;
		/* one that is let through may still be meant by a later step */
		if (step->matched++ < (unsigned long) step->skip)
			continue;
		step->used++;
		step->refs++;
		if (step->times > 0 && step->used >= (unsigned long) step->times)
		{
			memmove(steps + i, steps + i + 1, (nsteps - i - 1) * sizeof(Step *));
			nsteps--;
			step_release(step);
		}
		return step;
	}
	return NULL;
}
