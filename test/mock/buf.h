/*-------------------------------------------------------------------------
 *
 * buf.h
 *		Growing byte buffers, and allocation that never returns NULL.
 *
 * A Buf's data is NUL-terminated whenever it is not NULL; the terminator is
 * not part of len.  All memory is malloc'ed, so data may be handed to
 * whoever frees with free().
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_BUF_H
#define MOCK_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Buf
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buf;

extern void *xmalloc(size_t size);
extern void *xcalloc(size_t size);
extern void *xrealloc(void *p, size_t size);
extern char *xstrdup(const char *s);
extern char *xmemdup(const char *s, size_t len);

extern void buf_need(Buf *b, size_t more);
extern void buf_add(Buf *b, const char *s, size_t len);
extern void buf_str(Buf *b, const char *s);
extern void buf_char(Buf *b, char c);
extern void buf_printf(Buf *b, const char *fmt,...) __attribute__((format(printf, 2, 3), nonnull(2)));
extern void buf_json_string(Buf *b, const char *s, size_t len);
extern void buf_json_cstring(Buf *b, const char *s);
extern void buf_base64(Buf *b, const char *s, size_t len);
extern bool buf_unbase64(Buf *b, const char *s, size_t len);
extern void buf_free(Buf *b);

extern bool utf8_valid(const char *s, size_t len);

#endif							/* MOCK_BUF_H */
