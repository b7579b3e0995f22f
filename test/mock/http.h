/*-------------------------------------------------------------------------
 *
 * http.h
 *		Requests coming in: microhttpd's callbacks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_HTTP_H
#define MOCK_HTTP_H

#include <microhttpd.h>

/* The request line was read; makes the Request that the others work on. */
extern void *http_begin(void *cls, const char *uri, struct MHD_Connection *connection);

/* Headers, pieces of the body, the end of the body; again after a wait. */
extern enum MHD_Result http_handle(void *cls, struct MHD_Connection *connection, const char *url,
								   const char *method, const char *version, const char *upload,
								   size_t *upload_len, void **req_cls);

/* It was answered, or will never be. */
extern void http_done(void *cls, struct MHD_Connection *connection, void **req_cls,
					  enum MHD_RequestTerminationCode code);

/* A TCP connection came or went. */
extern void http_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
							enum MHD_ConnectionNotificationCode code);

#endif							/* MOCK_HTTP_H */
