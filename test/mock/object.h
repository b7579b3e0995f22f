/*-------------------------------------------------------------------------
 *
 * object.h
 *		Making and changing the object that describes a connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_OBJECT_H
#define MOCK_OBJECT_H

#include <json-c/json.h>

/*
 * A new object for a validated body; the caller frees it.  The ids are taken
 * from the store's counters.
 */
extern struct json_object *object_create(struct json_object *body, int64_t now);

/* Apply a validated body to a stored object. */
extern void object_update(struct json_object *object, struct json_object *body, int64_t now);

/* A pending test run of a connection; the caller frees it. */
extern struct json_object *object_test_run(struct json_object *connection, int64_t now);

#endif							/* MOCK_OBJECT_H */
