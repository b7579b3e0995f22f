/*-------------------------------------------------------------------------
 *
 * text.c
 *		Untrusted text for messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/text.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

/* A longer text is cut, in bytes: it would bury the rest of the message. */
#define MAX_TEXT_SHOWN 1000

/* A shorter secret protects nothing, and removing it would garble every text. */
#define MIN_SECRET_LENGTH 4

/*
 * Mark the bytes of all occurrences of a secret.
 */
static void
mark_secret(const char *text, const char *secret, bool *marks)
{
	size_t		len = strlen(secret);

	if (len < MIN_SECRET_LENGTH)
		return;
	for (const char *found = strstr(text, secret); found != NULL; found = strstr(found + 1, secret))
		memset(marks + (found - text), true, len);
}

/*
 * Replace all secrets.  All are marked before the first one is taken out: of
 * two that overlap, or of which one holds the other, nothing must be left.
 */
char *
clerk_text_take_out(const char *text, List *secrets)
{
	size_t		len = strlen(text);
	bool	   *marks = MemoryContextAllocExtended(CurrentMemoryContext, len + 1, MCXT_ALLOC_ZERO);
	StringInfoData buf;
	ListCell   *lc;

	foreach(lc, secrets)
		mark_secret(text, lfirst(lc), marks);
	initStringInfo(&buf);
	for (size_t i = 0; i < len; i++)
	{
		if (!marks[i])
			appendStringInfoChar(&buf, text[i]);
		else if (i == 0 || !marks[i - 1])
			appendStringInfoString(&buf, "[secret]");
	}
	pfree(marks);
	return buf.data;
}

/*
 * Characters that command a terminal, show nothing, or change how the text
 * around them is read: all of Unicode's categories Cc, Cf, Zl, Zp, Cs and Co,
 * variation selectors, fillers, and code points that are none.  Unicode 15.1;
 * in order.
 */
typedef struct CharacterRange
{
	pg_wchar	first;
	pg_wchar	last;
} CharacterRange;

static const CharacterRange unprintable[] = {
	{0x0000, 0x001f}, {0x007f, 0x009f}, {0x00ad, 0x00ad}, {0x034f, 0x034f},
	{0x0600, 0x0605}, {0x061c, 0x061c}, {0x06dd, 0x06dd}, {0x070f, 0x070f},
	{0x0890, 0x0891}, {0x08e2, 0x08e2}, {0x115f, 0x1160}, {0x17b4, 0x17b5},
	{0x180b, 0x180f}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
	{0x2800, 0x2800}, {0x3164, 0x3164}, {0xd800, 0xf8ff}, {0xfdd0, 0xfdef},
	{0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff0, 0xfffb},
	{0xfffe, 0xffff}, {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f},
	{0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0x10ffff},
};

bool
clerk_text_is_unprintable(pg_wchar c)
{
	for (size_t i = 0; i < lengthof(unprintable) && unprintable[i].first <= c; i++)
		if (c <= unprintable[i].last)
			return true;
	return (c & 0xfffe) == 0xfffe;
}

/*
 * Replace such characters, and where the database's encoding is another, all
 * that is not ASCII: a conversion could fail while an error is reported.
 */
static void
mask_unprintable(unsigned char *text)
{
	unsigned char *to = text;

	for (unsigned char *p = text; *p;)
	{
		int			len = pg_utf_mblen(p);
		bool		ascii = *p < 0x80;

		if (clerk_text_is_unprintable(utf8_to_unicode(p)) || (!ascii && GetDatabaseEncoding() != PG_UTF8))
			*to++ = *p < ' ' ? ' ' : '?';
		else
		{
			memmove(to, p, len);
			to += len;
		}
		p += len;
	}
	*to = '\0';
}

/*
 * Make UTF-8 text from the network fit for a message.
 */
char *
clerk_text_presentable(const char *utf8, List *secrets)
{
	/* Before cutting, which could leave half a secret. */
	char	   *text = clerk_text_take_out(utf8, secrets);

	if (strlen(text) > MAX_TEXT_SHOWN)
	{
		int			len = pg_encoding_mbcliplen(PG_UTF8, text, (int) strlen(text), MAX_TEXT_SHOWN);

		text = psprintf("%.*s...", len, text);
	}

	mask_unprintable((unsigned char *) text);
	return text;
}
