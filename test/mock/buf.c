/*-------------------------------------------------------------------------
 *
 * buf.c
 *		Growing byte buffers, JSON strings and base64.
 *
 *-------------------------------------------------------------------------
 */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"

#define BUF_FIRST_SIZE	256

static const char base64_digits[] =
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* A test tool that runs out of memory has nothing better to do than end. */
static void *
checked(void *p)
{
	if (p == NULL)
		end_badly("out of memory");
	return p;
}

void *
xmalloc(size_t size)
{
	return checked(malloc(size ? size : 1));
}

void *
xcalloc(size_t size)
{
	return checked(calloc(1, size ? size : 1));
}

void *
xrealloc(void *p, size_t size)
{
	return checked(realloc(p, size ? size : 1));
}

char *
xstrdup(const char *s)
{
	return xmemdup(s, strlen(s));
}

char *
xmemdup(const char *s, size_t len)
{
	char	   *copy = xmalloc(len + 1);

	if (len > 0)
		memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

void
buf_need(Buf *b, size_t more)
{
	size_t		size = b->size ? b->size : BUF_FIRST_SIZE;

	if (b->data != NULL && b->len + more < b->size)
		return;
	while (size <= b->len + more)
		size *= 2;
	b->data = xrealloc(b->data, size);
	b->size = size;
}

void
buf_add(Buf *b, const char *s, size_t len)
{
	buf_need(b, len);
	if (len > 0)
		memcpy(b->data + b->len, s, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void
buf_str(Buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_char(Buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_printf(Buf *b, const char *fmt,...)
{
	va_list		args;
	int			n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0)
		return;
	buf_need(b, (size_t) n + 1);
	va_start(args, fmt);
	vsnprintf(b->data + b->len, (size_t) n + 1, fmt, args);
	va_end(args);
	b->len += (size_t) n;
}

/*
 * Length of the well-formed UTF-8 sequence at s, or 0.  Overlong forms,
 * surrogates and values past U+10FFFF are not well-formed (RFC 3629).
 */
static size_t
utf8_sequence(const unsigned char *s, size_t left)
{
	size_t		n;
	unsigned char low = 0x80,
				high = 0xBF;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		n = 2;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
		n = 3;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		n = 4;
	else
		return 0;
	if (s[0] == 0xE0)
		low = 0xA0;
	else if (s[0] == 0xED)
		high = 0x9F;
	else if (s[0] == 0xF0)
		low = 0x90;
	else if (s[0] == 0xF4)
		high = 0x8F;
	if (left < n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	return n;
}

bool
utf8_valid(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *) s;

	for (size_t i = 0, n; i < len; i += n)
	{
		n = utf8_sequence(u + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}

static void
json_escape(Buf *b, unsigned char c)
{
	switch (c)
	{
		case '"':
			buf_str(b, "\\\"");
			break;
		case '\\':
			buf_str(b, "\\\\");
			break;
		case '\n':
			buf_str(b, "\\n");
			break;
		case '\r':
			buf_str(b, "\\r");
			break;
		case '\t':
			buf_str(b, "\\t");
			break;
		default:
			buf_printf(b, "\\u%04x", c);
	}
}

/*
 * Append s as a JSON string.  Bytes that are not UTF-8 become U+FFFD, so that
 * whatever came over the wire, what goes out is JSON.
 */
void
buf_json_string(Buf *b, const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *) s;
	size_t		done = 0;
	size_t		i = 0;

	buf_char(b, '"');
	while (i < len)
	{
		size_t		n = utf8_sequence(u + i, len - i);

		if (n > 0 && u[i] >= 0x20 && u[i] != '"' && u[i] != '\\')
		{
			i += n;
			continue;
		}
		buf_add(b, s + done, i - done);
		if (n == 0)
			buf_str(b, "\xEF\xBF\xBD");
		else
			json_escape(b, u[i]);
		done = ++i;
	}
	buf_add(b, s + done, i - done);
	buf_char(b, '"');
}

void
buf_json_cstring(Buf *b, const char *s)
{
	if (s == NULL)
		buf_str(b, "null");
	else
		buf_json_string(b, s, strlen(s));
}

void
buf_base64(Buf *b, const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *) s;

	for (size_t i = 0; i < len; i += 3)
	{
		size_t		left = len - i;
		uint32_t	v = (uint32_t) u[i] << 16;

		if (left > 1)
			v |= (uint32_t) u[i + 1] << 8;
		if (left > 2)
			v |= u[i + 2];
		buf_char(b, base64_digits[v >> 18]);
		buf_char(b, base64_digits[v >> 12 & 63]);
		buf_char(b, left > 1 ? base64_digits[v >> 6 & 63] : '=');
		buf_char(b, left > 2 ? base64_digits[v & 63] : '=');
	}
}

bool
buf_unbase64(Buf *b, const char *s, size_t len)
{
	uint32_t	v = 0;
	int			bits = 0;

	for (size_t i = 0; i < len && s[i] != '='; i++)
	{
		const char *digit = s[i] ? strchr(base64_digits, s[i]) : NULL;

		if (digit == NULL)
			return false;
		v = v << 6 | (uint32_t) (digit - base64_digits);
		bits += 6;
		if (bits >= 8)
		{
			bits -= 8;
			buf_char(b, (char) (v >> bits & 0xFF));
		}
	}
	return true;
}

void
buf_free(Buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->size = 0;
}
