/*
 * Watching the servers behind a connection string, by libmongoc: its pool's threads hold an
 * awaitable hello open to every member, so that a change of the primary is known when mongod says
 * so. It sorts out primaries that do not know yet that they were replaced, follows members that
 * join and leave, and looks names of mongodb+srv up again.
 *
 * No login: hello needs none.
 */
#include "topology_internal.h"

#include <mongoc/mongoc.h>
#include <rekey/keys/mongo.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is logged. Compared as memory: no padding. */
struct summary {
    char primary[RK_ADDRESS_MAX];
    uint32_t n[RK_SERVER_TYPES];
};

struct rk_monitor {
    mongoc_client_pool_t *pool;
    mongoc_client_t *client; /* taken: the pool monitors as long as it is out */
    rk_monitor_fn *fn;
    void *arg;
    struct summary logged; /* by libmongoc's threads, under its lock */
};

static enum rk_server_type type_of(const char *name)
{
    static const struct {
        const char *name; /* libmongoc's */
        enum rk_server_type type;
    } types[] = {
        {"RSPrimary", RK_SERVER_PRIMARY},     {"RSSecondary", RK_SERVER_SECONDARY},
        {"RSArbiter", RK_SERVER_ARBITER},     {"Mongos", RK_SERVER_ROUTER},
        {"Standalone", RK_SERVER_STANDALONE}, {"RSOther", RK_SERVER_OTHER},
        {"RSGhost", RK_SERVER_OTHER},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return types[i].type;
        }
    }
    return RK_SERVER_UNKNOWN;
}

/* free() it; NULL when there is none, or no memory. */
static struct rk_server_seen *convert(mongoc_server_description_t *const *descriptions, size_t n)
{
    struct rk_server_seen *seen = calloc(n > 0 ? n : 1, sizeof *seen);
    for (size_t i = 0; seen != NULL && i < n; i++) {
        const mongoc_host_list_t *host = mongoc_server_description_host(descriptions[i]);
        (void)snprintf(seen[i].address, sizeof seen[i].address, "%s", host->host_and_port);
        seen[i].type = type_of(mongoc_server_description_type(descriptions[i]));
        seen[i].rtt_ms = mongoc_server_description_round_trip_time(descriptions[i]);
    }
    return seen;
}

static struct summary summarise(const struct rk_server_seen *servers, size_t n)
{
    struct summary summary = {.primary = ""};
    for (size_t i = 0; i < n; i++) {
        summary.n[servers[i].type]++;
        if (servers[i].type == RK_SERVER_PRIMARY) {
            memcpy(summary.primary, servers[i].address, sizeof summary.primary);
        }
    }
    return summary;
}

/* Most changes that libmongoc tells of change nothing for us: a new topologyVersion, say. */
static void log_servers(struct rk_monitor *monitor, const struct rk_server_seen *servers, size_t n)
{
    const struct summary now = summarise(servers, n);
    if (memcmp(&now, &monitor->logged, sizeof now) == 0) {
        return;
    }
    monitor->logged = now;
    rk_log(RK_LOG_INFO, "topology_changed",
           RK_S("primary", now.primary[0] != '\0' ? now.primary : NULL),
           RK_I("secondaries", now.n[RK_SERVER_SECONDARY]),
           RK_I("arbiters", now.n[RK_SERVER_ARBITER]), RK_I("routers", now.n[RK_SERVER_ROUTER]),
           RK_I("standalones", now.n[RK_SERVER_STANDALONE]),
           RK_I("others", now.n[RK_SERVER_OTHER]));
}

static void on_changed(const mongoc_apm_topology_changed_t *event)
{
    struct rk_monitor *monitor = mongoc_apm_topology_changed_get_context(event);
    size_t n = 0;
    mongoc_server_description_t **descriptions = mongoc_topology_description_get_servers(
        mongoc_apm_topology_changed_get_new_description(event), &n);
    struct rk_server_seen *seen = convert(descriptions, n);
    if (seen != NULL) {
        log_servers(monitor, seen, n);
        monitor->fn(monitor->arg, seen, n);
    }
    free(seen);
    mongoc_server_descriptions_destroy_all(descriptions, n);
}

struct rk_server_seen *rk_monitor_look(struct rk_monitor *monitor, size_t *n)
{
    mongoc_server_description_t **descriptions =
        mongoc_client_get_server_descriptions(monitor->client, n);
    struct rk_server_seen *seen = convert(descriptions, *n);
    mongoc_server_descriptions_destroy_all(descriptions, *n);
    return seen;
}

enum rk_status rk_monitor_start(const char *uri, uint32_t interval_ms, rk_monitor_fn *fn, void *arg,
                                struct rk_monitor **out, struct rk_error *err)
{
    struct rk_monitor *monitor = calloc(1, sizeof *monitor);
    if (monitor == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    monitor->fn = fn;
    monitor->arg = arg;
    enum rk_status status =
        rk_mongo_pool_new(uri, "rekeyd-topology", interval_ms, &monitor->pool, err);
    if (status != RK_OK) {
        free(monitor);
        return status;
    }
    mongoc_apm_callbacks_t *callbacks = mongoc_apm_callbacks_new();
    mongoc_apm_set_topology_changed_cb(callbacks, on_changed);
    (void)mongoc_client_pool_set_apm_callbacks(monitor->pool, callbacks, monitor);
    mongoc_apm_callbacks_destroy(callbacks);
    monitor->client = mongoc_client_pool_pop(monitor->pool);
    *out = monitor;
    return RK_OK;
}

void rk_monitor_stop(struct rk_monitor *monitor)
{
    if (monitor == NULL) {
        return;
    }
    mongoc_client_pool_push(monitor->pool, monitor->client);
    mongoc_client_pool_destroy(monitor->pool); /* joins its threads */
    free(monitor);
}
