/*-------------------------------------------------------------------------
 *
 * reply.h
 *		How a request ends: an answer, raw bytes, a reset, silence.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_REPLY_H
#define MOCK_REPLY_H

#include <microhttpd.h>

#include "flow.h"

/*
 * End a request that is ready.  To be returned to microhttpd, which closes
 * the connection on MHD_NO.
 */
extern enum MHD_Result reply_send(Request *req);

#endif							/* MOCK_REPLY_H */
