/*
 * What sweeps work by: the settings of a file, and on top of them those that hold for the whole
 * fleet, which every instance reads at each poll from one document of <state db>.settings:
 *
 *   { _id: "sweep", values: { max_rate: 100, guard: { p99_limit_ms: 20 }, window: ["..."] },
 *     changedAt: Date, changedBy: "..." }
 *
 * values is written as the section sweep of a configuration file. Values that no file could hold
 * are not ignored, since they may be meant to forbid something: nothing is swept then.
 *
 * Whether the window is open is for the server's clock to say, and for its knowledge of time zones.
 * Blocking; a client belongs to one thread.
 */
#ifndef REKEY_JOBS_SETTINGS_H
#define REKEY_JOBS_SETTINGS_H

#include <rekey/admission/gate.h>
#include <rekey/config/config.h>

struct _mongoc_client_t;
struct _bson_t;

struct rk_gate_config rk_sweep_gate_config(const struct rk_config_sweep *sweep);

struct rk_sweep_now {
    struct rk_config_sweep sweep; /* what holds */
    uint64_t by_fleet;            /* bit i: setting i (config/sweep.h) is the fleet's */
    struct rk_gate_hours hours;
    uint32_t week_minute; /* local time, where there is a window */
};
/* What holds now for an instance with these settings in its file. RK_EIO: mongod cannot say. */
RK_MUST_CHECK enum rk_status rk_sweep_read(struct _mongoc_client_t *client, const char *state_db,
                                           const struct rk_config_sweep *file,
                                           struct rk_sweep_now *now, struct rk_error *err);

/* One change of the fleet's settings; value NULL: the files' hold again. */
struct rk_sweep_change {
    const char *key;   /* "max_rate"; NULL, to clear: all of them */
    const char *value; /* "100"; of lists, items with commas between them */
};
/*
 * Makes all of them or none. RK_EINVAL: a file could not hold it either, with the same words, or
 * mongod does not know the time zone. Recorded in the audit log with old and new values.
 */
RK_MUST_CHECK enum rk_status rk_sweep_change(struct _mongoc_client_t *client, const char *state_db,
                                             const struct rk_config_sweep *file,
                                             const struct rk_sweep_change *changes, size_t n,
                                             const char *actor, struct rk_error *err);

/* A setting's value, as config/sweep.h writes it, as what it is: a number, a list, true. */
void rk_sweep_append_value(struct _bson_t *doc, const char *key, size_t setting, const char *text);

#endif
