/*-------------------------------------------------------------------------
 *
 * settings.h
 *		Everything that can be changed about the mock's behaviour at run time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MOCK_SETTINGS_H
#define MOCK_SETTINGS_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

typedef enum RecordLevel
{
	RECORD_OFF,
	RECORD_LIGHT,				/* no headers, no bodies */
	RECORD_FULL
} RecordLevel;

typedef struct RateLimit
{
	bool		on;
	gint64		requests;
	gint64		window_ms;
	gint64		retry_after_s;	/* 0: until the window ends */
	bool		as_date;
} RateLimit;

typedef struct Chaos
{
	bool		on;
	gint64		seed;
	double		p_500;
	double		p_429;
	double		p_reset_before;
	double		p_reset_after;
	double		p_slow;
	gint64		slow_ms;
	double		p_slow_after;
	gint64		slow_after_ms;
} Chaos;

typedef struct Settings
{
	int			lenient;		/* 0 or 1 */
	gint64		latency_ms;
	gint64		max_connections;	/* 0: no cap */
	int			record;			/* a RecordLevel */
	gint64		clock_ms;		/* the next write's time; 0: the real clock */
	RateLimit	rate_limit;
	Chaos		chaos;
	char	  **secret_keys;
} Settings;

extern Settings settings;

/* What a reset goes back to; keys are the caller's for ever. */
extern void settings_set_defaults(bool lenient, char **keys);
extern void settings_reset(void);
extern void settings_free(void);

/* Merge the members given; with a reason in why, nothing was changed. */
extern void settings_merge(struct json_object *json, GString *why);
extern void settings_to_json(GString *out);

#endif							/* MOCK_SETTINGS_H */
