/*-------------------------------------------------------------------------
 *
 * settings.h
 *		Everything that can be changed about the mock's behaviour at run time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_SETTINGS_H
#define MOCK_SETTINGS_H

#include <json-c/json.h>

#include "buf.h"

typedef enum RecordLevel
{
	RECORD_OFF,
	RECORD_LIGHT,				/* no headers, no bodies */
	RECORD_FULL
} RecordLevel;

typedef struct RateLimit
{
	bool		on;
	long		requests;
	long		window_ms;
	long		retry_after_s;	/* 0: until the window ends */
	bool		as_date;
} RateLimit;

typedef struct Chaos
{
	bool		on;
	uint64_t	seed;
	double		p_500;
	double		p_429;
	double		p_reset_before;
	double		p_reset_after;
	double		p_slow;
	long		slow_ms;
	double		p_slow_after;
	long		slow_after_ms;
} Chaos;

typedef struct Settings
{
	bool		lenient;
	long		latency_ms;
	long		max_connections;	/* 0: no cap */
	RecordLevel record;
	int64_t		clock_ms;		/* the next write's time; 0: the real clock */
	RateLimit	rate_limit;
	Chaos		chaos;
	char	  **secret_keys;
	int			nsecret_keys;
} Settings;

extern Settings settings;

extern void settings_add_default_key(const char *key);
extern void settings_set_default_lenient(void);
extern void settings_reset(void);
extern void settings_free(void);

/* Merge the members given; false with a reason in *why when one is wrong. */
extern bool settings_merge(struct json_object *json, Buf *why);
extern void settings_to_json(Buf *out);

#endif							/* MOCK_SETTINGS_H */
