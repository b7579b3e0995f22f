/*-------------------------------------------------------------------------
 *
 * server.h
 *		Listening, and serving while the main loop runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_SERVER_H
#define MOCK_SERVER_H

#include <stdbool.h>

/*
 * Listen on 127.0.0.1; port 0 takes any that is free.  cert and key are PEM
 * texts, NULL without TLS.  Returns the port, or -1 with a reason on stderr.
 */
extern int	server_start(int port, const char *cert, const char *key);
extern void server_stop(void);
extern bool server_uses_tls(void);

#endif							/* MOCK_SERVER_H */
