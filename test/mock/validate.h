/*-------------------------------------------------------------------------
 *
 * validate.h
 *		Validation of request bodies, driven by one table of parameters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_VALIDATE_H
#define MOCK_VALIDATE_H

#include <json-c/json.h>

#include "answer.h"
#include "store.h"

typedef enum Operation
{
	OP_CREATE = 1,
	OP_UPDATE = 2
} Operation;

/*
 * Add every fault of the body.  For an update, conn is what is stored and
 * stored its parsed text; both are NULL for a create.
 */
extern void validate_body(struct json_object *body, Operation op, const Conn *conn,
						  struct json_object *stored, GString *faults);

/* The provider a create is for: the one given, else the one that fits. */
extern const char *validate_provider(struct json_object *body);

#endif							/* MOCK_VALIDATE_H */
