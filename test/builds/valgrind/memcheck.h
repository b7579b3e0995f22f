/*-------------------------------------------------------------------------
 *
 * memcheck.h
 *	  PostgreSQL tells Valgrind which parts of its memory contexts are in
 *	  use; this tells AddressSanitizer instead.
 *
 * AddressSanitizer knows malloc() and free().  A memory context asks malloc()
 * for large blocks and hands out parts of them, so what is used after pfree(),
 * or after its context was reset, goes unseen.  With this file in the place of
 * Valgrind's own of that name, and USE_VALGRIND, it is seen.
 *
 * What is freed needs no call of its own: CLOBBER_FREED_MEMORY, which
 * assertions include, wipes it and makes it inaccessible before.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ASAN_MEMCHECK_H
#define ASAN_MEMCHECK_H

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_NOACCESS(addr, size) \
	ASAN_POISON_MEMORY_REGION((addr), (size))
#define VALGRIND_MAKE_MEM_DEFINED(addr, size) \
	ASAN_UNPOISON_MEMORY_REGION((addr), (size))
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) \
	ASAN_UNPOISON_MEMORY_REGION((addr), (size))
#define VALGRIND_MEMPOOL_ALLOC(context, addr, size) \
	ASAN_UNPOISON_MEMORY_REGION((addr), (size))
#define VALGRIND_MEMPOOL_CHANGE(context, old, new, size) \
	ASAN_UNPOISON_MEMORY_REGION((new), (size))

/* whether it was ever written to, it does not know */
#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size)	do {} while (0)
#define VALGRIND_GET_VBITS(addr, bits, size)		do {} while (0)
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed)	do {} while (0)
#define VALGRIND_DESTROY_MEMPOOL(context)			do {} while (0)
#define VALGRIND_MEMPOOL_FREE(context, addr)		do {} while (0)
#define VALGRIND_MEMPOOL_TRIM(context, addr, size)	do {} while (0)
#define VALGRIND_COUNT_ERRORS						0
#define VALGRIND_PRINTF(...)						do {} while (0)

#endif							/* ASAN_MEMCHECK_H */
