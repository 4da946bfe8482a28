/* The configuration as settings of the parts, at start and on SIGHUP. */
#include "daemon_internal.h"

#include <sys/resource.h>

/* Descriptors beyond two per connection: listeners, event loops, libmongoc, logs. */
#define SPARE_FILES 512u

void rk_daemon_raise_file_limit(const struct rk_config *config)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)config->limits.connections_max * 2 + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need) {
        return;
    }
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < need) {
        rk_log(RK_LOG_WARN, "file_limit_low", RK_I("limit", limit.rlim_cur), RK_I("needed", need),
               RK_S("advice", "raise the open file limit or lower limits.connections_max"));
    }
}

static bool may_reload(const struct rk_daemon *d, const struct rk_config *next,
                       struct rk_error *err)
{
    const char *key;
    if (!rk_config_reloadable(d->config, next, &key)) {
        (void)rk_error_set(err, RK_ESTATE, "%s cannot change without a restart", key);
        return false;
    }
    if (d->keys == NULL && !rk_policy_set_empty(next->policies)) {
        (void)rk_error_set(err, RK_ESTATE,
                           "first policies need a restart: rekeyd was started without keys");
        return false;
    }
    return true;
}

/* Out of memory: the former ones stay, which protect what they protected. */
static void take_policies(struct rk_daemon *d, const struct rk_config *next)
{
    struct rk_error err = {0};
    if (d->catalog != NULL &&
        rk_catalog_reconfigure(d->catalog, next->policies, next->upstream.catalog_interval_ms,
                               &err) != RK_OK) {
        rk_log(RK_LOG_ERROR, "policies_not_reloaded", RK_S("reason", err.message));
    }
}

void rk_daemon_free_configs(struct rk_daemon *d)
{
    if (d->config != d->started_with) {
        rk_config_free(d->config);
    }
    rk_config_free(d->started_with);
}

void rk_daemon_reload(struct rk_daemon *d)
{
    struct rk_config *next = NULL;
    struct rk_error err = {0};
    if (rk_config_load(d->config_path, &next, &err) != RK_OK ||
        rk_config_check_daemon(next, &err) != RK_OK || !may_reload(d, next, &err) ||
        rk_log_reopen(next->log.level, &err) != RK_OK ||
        rk_server_reload(d->server, next, &err) != RK_OK) {
        enum rk_status level = rk_log_reopen(d->config->log.level, NULL);
        (void)level; /* the level goes back; a file that cannot be reopened stays open */
        rk_log(RK_LOG_ERROR, "reload_refused", RK_S("file", d->config_path),
               RK_S("reason", err.message), RK_S("effect", "the former configuration stays"));
        rk_config_free(next);
        return;
    }
    rk_log_set_limit(next->log.event_lines_per_s);
    take_policies(d, next);
    rk_daemon_raise_file_limit(next);
    if (d->engine != NULL) {
        rk_engine_reconfigure(d->engine, &next->sweep, next->policies);
    }
    if (d->config != d->started_with) {
        rk_config_free(d->config);
    }
    d->config = next;
    rk_server_sync(d->server); /* whoever sees the event may rely on it */
    rk_log(RK_LOG_INFO, "reloaded", RK_S("file", d->config_path));
}
