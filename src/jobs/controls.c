/*
 * The coordinator's look at what sweeps work by: at each poll, and now and then while it cuts. The
 * file's settings may change at any time on the main thread; what the fleet has set is laid over
 * them anew then, so that nothing else ever holds in between.
 */
#include "engine_internal.h"

#include <rekey/base/clock.h>
#include <rekey/config/sweep.h>
#include <rekey/jobs/settings.h>
#include <rekey/keys/audit.h>
#include <rekey/log/log.h>

#include <stdio.h>
#include <string.h>

#define DETAIL_SIZE 400u

static struct rk_engine_settings engine_settings(const struct rk_config_sweep *sweep)
{
    static const enum rk_sweep_mode modes[] = {
        [RK_CONFIG_SWEEP_PROACTIVE] = RK_SWEEP_PROACTIVE,
        [RK_CONFIG_SWEEP_LAZY] = RK_SWEEP_LAZY,
        [RK_CONFIG_SWEEP_BOTH] = RK_SWEEP_BOTH,
    };
    return (struct rk_engine_settings){
        .mode = modes[sweep->mode],
        .threads = sweep->threads,
        .range_docs = sweep->range_docs,
        .batch_docs = sweep->batch_docs,
        .transactions = sweep->transactions,
        .ranges_ahead = sweep->ranges_ahead,
        .split_after_ms = sweep->split_after_ms,
        .lease_ms = sweep->lease_ms,
        .poll_interval_ms = sweep->poll_interval_ms,
        .attempts_max = sweep->attempts_max,
        .retry_backoff_ms = sweep->retry_backoff_ms,
        .retry_backoff_max_ms = sweep->retry_backoff_max_ms,
        .write_timeout_ms = sweep->write_timeout_ms,
        .read_mode = rk_scan_mode(sweep->read_preference),
        .dead_letters = sweep->dead_letters,
    };
}

static struct rk_config_sweep effective(const struct rk_controls *controls)
{
    struct rk_config_sweep sweep = controls->file;
    rk_config_sweep_take(&sweep, &controls->fleet, controls->by_fleet);
    return sweep;
}

void rk_controls_apply(struct rk_engine *engine)
{
    struct rk_controls *controls = &engine->controls;
    struct rk_config_sweep sweep = effective(controls);
    struct rk_gate_config gate = rk_sweep_gate_config(&sweep);
    engine->settings = engine_settings(&sweep);
    controls->held = sweep.pause || controls->hours.hold != RK_GATE_OPEN;
    rk_gate_reconfigure(engine->gate, &gate);
    rk_gate_set_hours(engine->gate, &controls->hours);
}

static void log_changes(const struct rk_config_sweep *before, const struct rk_config_sweep *after)
{
    char was[RK_SWEEP_VALUE_SIZE];
    char is[RK_SWEEP_VALUE_SIZE];
    for (size_t i = 0; i < rk_config_sweep_count(); i++) {
        if (strcmp(rk_config_sweep_value(before, i, was), rk_config_sweep_value(after, i, is)) !=
            0) {
            rk_log(RK_LOG_INFO, "sweep_setting", RK_S("key", rk_config_sweep_key(i)),
                   RK_S("from", was), RK_S("to", is));
        }
    }
}

static void log_hours(const struct rk_gate_hours *before, const struct rk_gate_hours *after)
{
    if (strcmp(before->why, after->why) == 0) {
        return;
    }
    if (after->hold == RK_GATE_OPEN) {
        rk_log(RK_LOG_INFO, "sweep_allowed", RK_S("after", before->why));
    } else {
        rk_log(after->hold == RK_GATE_NO_SETTINGS ? RK_LOG_ERROR : RK_LOG_INFO, "sweep_held",
               RK_S("reason", after->why));
    }
}

static void describe(const struct rk_config_sweep *before, const struct rk_config_sweep *after,
                     char out[DETAIL_SIZE])
{
    char was[RK_SWEEP_VALUE_SIZE];
    char is[RK_SWEEP_VALUE_SIZE];
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < rk_config_sweep_count() && used < DETAIL_SIZE; i++) {
        if (strcmp(rk_config_sweep_value(before, i, was), rk_config_sweep_value(after, i, is)) !=
            0) {
            used += (size_t)snprintf(out + used, DETAIL_SIZE - used, "%s%s: %s -> %s",
                                     used > 0 ? "; " : "", rk_config_sweep_key(i), was, is);
        }
    }
}

/* What the file has changed since the audit log was last told. */
static enum rk_status audit_file(struct rk_engine *engine, mongoc_client_t *client,
                                 struct rk_error *err)
{
    char detail[DETAIL_SIZE];
    pthread_mutex_lock(&engine->lock);
    const struct rk_config_sweep file = engine->controls.file;
    describe(&engine->controls.audited, &file, detail);
    pthread_mutex_unlock(&engine->lock);
    if (detail[0] == '\0') {
        return RK_OK;
    }
    const struct rk_audit_event event = {.actor = engine->instance,
                                         .action = "config.reload",
                                         .target = "sweep",
                                         .result = "ok",
                                         .detail = detail};
    enum rk_status status = rk_audit_record(client, engine->state_db, &event, err);
    if (status == RK_OK) {
        pthread_mutex_lock(&engine->lock);
        engine->controls.audited = file;
        pthread_mutex_unlock(&engine->lock);
    }
    return status;
}

enum rk_status rk_controls_refresh(struct rk_engine *engine, mongoc_client_t *client,
                                   struct rk_error *err)
{
    struct rk_controls *controls = &engine->controls;
    struct rk_sweep_now now;
    enum rk_status status = audit_file(engine, client, err);
    if (status != RK_OK) {
        return status;
    }
    pthread_mutex_lock(&engine->lock);
    const struct rk_config_sweep file = controls->file;
    const uint64_t generation = controls->generation;
    pthread_mutex_unlock(&engine->lock);
    status = rk_sweep_read(client, engine->state_db, &file, &now, err);
    if (status != RK_OK) {
        return status;
    }
    pthread_mutex_lock(&engine->lock);
    const struct rk_config_sweep before = effective(controls);
    const struct rk_gate_hours hours = controls->hours;
    controls->fleet = now.sweep;
    controls->by_fleet = now.by_fleet;
    controls->hours = now.hours;
    controls->looked_us = rk_clock_mono_us();
    engine->nudged = engine->nudged || generation != controls->generation;
    rk_controls_apply(engine);
    rk_engine_stop_unwanted(engine);
    const struct rk_config_sweep after = effective(controls);
    pthread_mutex_unlock(&engine->lock);
    log_changes(&before, &after);
    log_hours(&hours, &now.hours);
    return RK_OK;
}

void rk_controls_refresh_if_due(struct rk_engine *engine, mongoc_client_t *client)
{
    struct rk_error err;
    pthread_mutex_lock(&engine->lock);
    uint64_t age_us = rk_clock_mono_us() - engine->controls.looked_us;
    bool due = age_us >= (uint64_t)engine->settings.poll_interval_ms * 1000u;
    pthread_mutex_unlock(&engine->lock);
    if (due) {
        enum rk_status status = rk_controls_refresh(engine, client, &err);
        (void)status;
    }
}
