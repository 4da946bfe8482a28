/* rekeyctl throttle: the sweep's settings for all instances at once. */
#include "jobs_internal.h"

#include <rekey/config/sweep.h>
#include <rekey/jobs/settings.h>

#include <bson/bson.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define CHANGES_MAX 32u

void rk_ctl_sweep_reason(const struct rk_sweep_now *now, char *out, size_t size)
{
    bool by_fleet = (now->by_fleet & UINT64_C(1) << rk_config_sweep_find("pause")) != 0;
    const char *pause = by_fleet ? "paused for all instances (rekeyctl throttle)"
                                 : "paused by the configuration file";
    (void)snprintf(out, size, "%s",
                   now->hours.hold != RK_GATE_OPEN ? now->hours.why
                   : now->sweep.pause              ? pause
                                                   : "");
}

static const char *origin(const struct rk_ctl *ctl, const struct rk_sweep_now *now, size_t i)
{
    uint64_t bit = UINT64_C(1) << i;
    return (now->by_fleet & bit) != 0              ? "throttle"
           : (ctl->config->sweep_given & bit) != 0 ? "file"
                                                   : "default";
}

static enum rk_ctl_exit show_json(const struct rk_ctl *ctl, const struct rk_sweep_now *now,
                                  const char *held)
{
    char value[RK_SWEEP_VALUE_SIZE];
    bson_t doc = BSON_INITIALIZER;
    bson_t settings;
    bson_t entry;
    BSON_APPEND_DOCUMENT_BEGIN(&doc, "settings", &settings);
    for (size_t i = 0; i < rk_config_sweep_count(); i++) {
        if (rk_config_sweep_for_fleet(i)) {
            BSON_APPEND_DOCUMENT_BEGIN(&settings, rk_config_sweep_key(i), &entry);
            rk_sweep_append_value(&entry, "value", i, rk_config_sweep_value(&now->sweep, i, value));
            BSON_APPEND_UTF8(&entry, "from", origin(ctl, now, i));
            bson_append_document_end(&settings, &entry);
        }
    }
    bson_append_document_end(&doc, &settings);
    BSON_APPEND_UTF8(&doc, "held", held);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit show_table(const struct rk_ctl *ctl, const struct rk_sweep_now *now,
                                   const char *held)
{
    static const char *const headers[] = {"SETTING", "VALUE", "FROM"};
    char value[RK_SWEEP_VALUE_SIZE];
    struct rk_ctl_table *table = NULL;
    struct rk_error err;
    enum rk_status status = rk_ctl_table_new(headers, 3, &table);
    for (size_t i = 0; i < rk_config_sweep_count() && status == RK_OK; i++) {
        const char *text = rk_config_sweep_value(&now->sweep, i, value);
        const char *cells[] = {rk_config_sweep_key(i), text[0] != '\0' ? text : "always",
                               origin(ctl, now, i)};
        status = rk_config_sweep_for_fleet(i) ? rk_ctl_table_row(table, cells) : RK_OK;
    }
    if (status == RK_OK) {
        rk_ctl_table_print(table);
    }
    rk_ctl_table_free(table);
    if (status != RK_OK) {
        (void)rk_error_set(&err, status, "out of memory");
        return rk_ctl_fail(&err);
    }
    if (held[0] != '\0') {
        (void)printf("nothing is swept now: %s\n", held);
    }
    return RK_CTL_OK;
}

static enum rk_ctl_exit run_show(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct rk_sweep_now now;
    char held[256];
    if (argc > 1) {
        return rk_ctl_usage("throttle show takes no argument, got %s", argv[1]);
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status =
        rk_sweep_read(client, ctl->config->upstream.state_db, &ctl->config->sweep, &now, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    if (status != RK_OK) {
        return rk_ctl_job_fail(&err);
    }
    rk_ctl_sweep_reason(&now, held, sizeof held);
    return ctl->json ? show_json(ctl, &now, held) : show_table(ctl, &now, held);
}

static enum rk_ctl_exit change(struct rk_ctl *ctl, const struct rk_sweep_change *changes, size_t n)
{
    struct rk_error err;
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_sweep_change(client, ctl->config->upstream.state_db,
                                            &ctl->config->sweep, changes, n, ctl->actor, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    if (status != RK_OK) {
        return rk_ctl_job_fail(&err);
    }
    char *none[] = {NULL};
    return run_show(ctl, 1, none);
}

static enum rk_ctl_exit run_set(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_sweep_change changes[CHANGES_MAX];
    size_t n = (size_t)argc - 1;
    if (n == 0 || n > CHANGES_MAX) {
        return rk_ctl_usage("throttle set takes KEY=VALUE, such as max_rate=1000 or "
                            "window=\"Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00\"");
    }
    for (size_t i = 0; i < n; i++) {
        char *equals = strchr(argv[i + 1], '=');
        if (equals == NULL) {
            return rk_ctl_usage("throttle set takes KEY=VALUE, got %s", argv[i + 1]);
        }
        *equals = '\0';
        changes[i] = (struct rk_sweep_change){argv[i + 1], equals + 1};
    }
    return change(ctl, changes, n);
}

static enum rk_ctl_exit run_clear(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_sweep_change changes[CHANGES_MAX];
    size_t n = 0;
    if ((size_t)argc - 1 > CHANGES_MAX) {
        return rk_ctl_usage("throttle clear takes %u settings at most, or none to clear all",
                            CHANGES_MAX);
    }
    for (int i = 1; i < argc; i++) {
        changes[n++] = (struct rk_sweep_change){argv[i], NULL};
    }
    if (argc == 1) {
        changes[n++] = (struct rk_sweep_change){NULL, NULL};
    }
    return change(ctl, changes, n);
}

const struct rk_ctl_command rk_ctl_throttle_commands[] = {
    {"throttle", "show", "", "show the sweep's settings and where each comes from",
     RK_CTL_NEEDS_SERVER, run_show},
    {"throttle", "set", "KEY=VALUE...",
     "set the sweep's settings for all instances; they win over configuration files",
     RK_CTL_NEEDS_SERVER, run_set},
    {"throttle", "clear", "[KEY...]", "let the configuration files decide again",
     RK_CTL_NEEDS_SERVER, run_clear},
    {NULL, NULL, NULL, NULL, RK_CTL_NEEDS_NOTHING, NULL},
};
