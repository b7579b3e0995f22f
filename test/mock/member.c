/*-------------------------------------------------------------------------
 *
 * member.c
 *		JSON objects that fill a struct, by a table of their members.
 *
 *-------------------------------------------------------------------------
 */
#include "member.h"

#include <string.h>

#include "answer.h"

#define BASE64_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

static bool
read_number(gint64 *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
		return false;
	*target = json_object_get_int64(value);
	return true;
}

static bool
read_share(double *target, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double))
		return false;
	*target = json_object_get_double(value);
	return true;
}

static bool
read_choice(int *target, struct json_object *value, const char *const *names)
{
	for (int i = 0; names[i] != NULL; i++)
		if (json_object_is_type(value, json_type_string) && strcmp(json_object_get_string(value), names[i]) == 0)
		{
			*target = i;
			return true;
		}
	return false;
}

static bool
read_texts(char ***target, struct json_object *value)
{
	g_autoptr(GStrvBuilder) texts = g_strv_builder_new();

	if (!json_object_is_type(value, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(value); i++)
	{
		struct json_object *item = json_object_array_get_idx(value, i);

		if (!json_object_is_type(item, json_type_string))
			return false;
		g_strv_builder_add(texts, json_object_get_string(item));
	}
	g_strfreev(*target);
	*target = g_strv_builder_end(texts);
	return true;
}

static bool
read_string(const Member *m, void *field, struct json_object *value)
{
	const char *text = json_object_get_string(value);
	gsize		len = (gsize) json_object_get_string_len(value);
	GString    *bytes;

	if (!json_object_is_type(value, json_type_string))
		return false;
	if (m->type == MEMBER_TEXT)
	{
		g_free(*(char **) field);
		*(char **) field = g_strdup(text);
		return true;
	}
	if (m->type == MEMBER_BASE64 && (len % 4 != 0 || strspn(text, BASE64_DIGITS) != len))
		return false;
	bytes = g_string_new_len(text, (gssize) len);
	if (m->type == MEMBER_BASE64 && len > 0)
	{
		g_base64_decode_inplace(bytes->str, &len);
		g_string_truncate(bytes, len);
	}
	if (*(GString **) field != NULL)
		g_string_free(*(GString **) field, TRUE);
	*(GString **) field = bytes;
	return true;
}

static bool
read_group(const Member *m, bool *field, struct json_object *value, const char *where, GString *why)
{
	if (value == NULL)
	{
		*field = false;
		return true;
	}
	memcpy(field, m->defaults, m->size);
	return members_read(m->members, field, value, where, why);
}

static bool
read_member(const Member *m, void *base, struct json_object *value, const char *where, GString *why)
{
	g_autofree char *below = g_strdup_printf("%s%s.", where, m->name);
	void	   *field = (char *) base + m->offset;

	switch (m->type)
	{
		case MEMBER_NUMBER_OR_NULL:
			if (value == NULL)
			{
				*(gint64 *) field = 0;
				return true;
			}
			/* FALLTHROUGH */
		case MEMBER_NUMBER:
			return read_number(field, value);
		case MEMBER_SHARE:
			return read_share(field, value);
		case MEMBER_FLAG:
			*(bool *) field = json_object_get_boolean(value);
			return json_object_is_type(value, json_type_boolean);
		case MEMBER_CHOICE:
			return read_choice(field, value, m->names);
		case MEMBER_TEXTS:
			return read_texts(field, value);
		case MEMBER_TEXT:
		case MEMBER_BYTES:
		case MEMBER_BASE64:
			return read_string(m, field, value);
		case MEMBER_OBJECT:
			return members_read(m->members, base, value, below, why);
		case MEMBER_GROUP:
			return read_group(m, field, value, below, why);
		case MEMBER_OTHER:
			break;
	}
	return m->read(base, value);
}

bool
members_read(const Member *members, void *base, struct json_object *json, const char *where, GString *why)
{
	if (!json_object_is_type(json, json_type_object))
	{
		if (*where == '\0')
			g_string_assign(why, "an object is wanted");
		return false;
	}
	json_object_object_foreach(json, name, value)
	{
		const Member *m = members;

		while (m->name != NULL && strcmp(m->name, name) != 0)
			m++;
		if (m->name == NULL)
			g_string_printf(why, "unknown member %s%s", where, name);
		else if (!read_member(m, base, value, where, why) && why->len == 0)
			g_string_printf(why, "wrong value for %s%s", where, name);
		if (why->len > 0)
			return false;
	}
	return true;
}

static void
write_member(const Member *m, const void *field, GString *out)
{
	switch (m->type)
	{
		case MEMBER_NUMBER:
		case MEMBER_NUMBER_OR_NULL:
			g_string_append_printf(out, "%" G_GINT64_FORMAT, *(const gint64 *) field);
			break;
		case MEMBER_SHARE:
			g_string_append_printf(out, "%g", *(const double *) field);
			break;
		case MEMBER_FLAG:
			g_string_append(out, *(const bool *) field ? "true" : "false");
			break;
		case MEMBER_CHOICE:
			json_append_text(out, m->names[*(const int *) field]);
			break;
		case MEMBER_TEXTS:
			g_string_append_c(out, '[');
			for (char **text = *(char **const *) field; *text != NULL; text++)
			{
				if (text != *(char **const *) field)
					g_string_append_c(out, ',');
				json_append_text(out, *text);
			}
			g_string_append_c(out, ']');
			break;
		case MEMBER_GROUP:
			if (*(const bool *) field)
				members_write(m->members, field, out);
			else
				g_string_append(out, "null");
			break;
		default:
			g_assert_not_reached();
	}
}

void
members_write(const Member *members, const void *base, GString *out)
{
	for (const Member *m = members; m->name != NULL; m++)
	{
		g_string_append_printf(out, "%c\"%s\":", m == members ? '{' : ',', m->name);
		write_member(m, (const char *) base + m->offset, out);
	}
	g_string_append_c(out, '}');
}
