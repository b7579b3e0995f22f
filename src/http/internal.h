/*-------------------------------------------------------------------------
 *
 * internal.h
 *		What pool.c, transfer.c and set.c share; for no other folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLERK_HTTP_INTERNAL_H
#define CLERK_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "base/compat.h"
#include "http/http.h"
#include "lib/ilist.h"

/*
 * What libcurl does for a request.  It lives in the memory context of the
 * request, and has a callback there: whichever of the two contexts, this one
 * or the set's, is reset first, takes it out of the other's reach.
 */
typedef struct ClerkHttpTransfer
{
	dlist_node	node;			/* in one of its set's lists */
	ClerkHttpSet *set;
	ClerkHttpRequest *request;
	MemoryContextCallback cleanup;
	CURL	   *easy;			/* NULL once released */
	struct curl_slist *headers;
	bool		in_multi;
	bool		pending;		/* not yet returned by clerk_http_next */
	bool		connecting;		/* may still need a new connection */
	bool		opened;			/* a socket, at least one */
	bool		too_large;
	bool		kept_broke;		/* a kept connection broke before an answer
								 * came */
	const char *shortage;		/* why it could not have a socket, in our
								 * words */
	const char *own_fault;		/* in our words, of what a callback has
								 * refused */
	size_t		header_bytes;
	CURLcode	result;
	char	   *answer;			/* malloc'd: callbacks cannot palloc */
	size_t		answer_len;
	size_t		answer_size;
	char		error[CURL_ERROR_SIZE];
} ClerkHttpTransfer;

struct ClerkHttpSet
{
	dlist_node	node;			/* in the pool's list */
	int			nest_level;		/* of the (sub)transaction that began it */
	dlist_head	running;
	dlist_head	finished;		/* not yet returned by clerk_http_next */
	dlist_head	returned;		/* not yet released */
	int			pending;
	MemoryContextCallback cleanup;
	bool		ended;
};

/* Throws 53200. */
pg_noreturn extern void clerk_http_out_of_memory(void);

/*-------------------------------------------------------------------------
 * pool.c
 *-------------------------------------------------------------------------
 */

/* Make the pool ready, if it is not.  Throws 53000. */
extern void clerk_pool_open(void);

/* Keep that many connections open, if there are files for them. */
extern void clerk_pool_keep(int connections);

/* No set is left: keep only a few connections. */
extern void clerk_pool_shrink(void);

/* Easy handles, with no option set; NULL if memory is short. */
extern CURL *clerk_pool_take_handle(void);
extern void clerk_pool_return_handle(CURL *easy);

/* For CURLOPT_OPENSOCKETFUNCTION, whose data is the transfer, and CLOSESOCKET. */
extern curl_socket_t clerk_pool_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address);
extern int	clerk_pool_close_socket(void *arg, curl_socket_t fd);

/* Have libcurl carry out a transfer; it is removed once it has finished. */
extern void clerk_pool_add(ClerkHttpTransfer *transfer);
extern void clerk_pool_remove(ClerkHttpTransfer *transfer);

/* The transfer has an answer, so libcurl needs no new connection for it. */
extern void clerk_pool_connected(ClerkHttpTransfer *transfer);

/*
 * Wait for something to happen, until clerk_now_ms() is until (-1: no limit) at
 * the latest, and let libcurl act on it.  Returns whether the latch is set.
 */
extern bool clerk_pool_wait(int64 until);

/* Let libcurl begin what it is to do at once.  Returns whether there was something. */
extern bool clerk_pool_act_if_due(void);

/* A transfer that libcurl has finished, with its result; NULL if there is none. */
extern ClerkHttpTransfer *clerk_pool_take_finished(void);

/*-------------------------------------------------------------------------
 * transfer.c
 *-------------------------------------------------------------------------
 */

/* Set up a transfer, which must be in its set already, and send it. */
extern void clerk_transfer_start(ClerkHttpTransfer *transfer);

/* Fill in the answering half of its request. */
extern void clerk_transfer_report(ClerkHttpTransfer *transfer);

/* Release what libcurl holds of it, and leave its set.  Throws nothing. */
extern void clerk_transfer_release(ClerkHttpTransfer *transfer);

#endif							/* CLERK_HTTP_INTERNAL_H */
