/*
 * The data plane: workers, listeners and sessions. One listener per route; a session
 * per client connection, each with its own upstream connection.
 *
 * All functions are for the main thread, where nothing else is said.
 */
#ifndef REKEY_SESSION_SERVER_H
#define REKEY_SESSION_SERVER_H

#include <rekey/base/metrics.h>
#include <rekey/config/config.h>
#include <rekey/keys/service.h>
#include <rekey/topology/topology.h>

struct rk_server;

/* Who is told of documents that were read under an old key. Called on workers: never waits. */
struct rk_old_reads {
    bool (*wanted)(void *arg);
    /* An _id (BSON type and bytes) of ns, "db.collection". */
    void (*note)(void *arg, const char *ns, uint8_t type, const void *id, uint32_t len);
    void *arg;
};

struct rk_server_config {
    const struct rk_config *config; /* read during start only */
    struct rk_policy_set *policies; /* until rk_server_set_policies; the server takes a reference */
    struct rk_topology *topology;   /* borrowed: outlives the server */
    struct rk_key_service *keys;    /* borrowed; NULL only when no policies are configured */
    struct rk_old_reads old_reads;  /* note NULL: nobody */
};

RK_MUST_CHECK enum rk_status rk_server_start(const struct rk_server_config *config,
                                             struct rk_server **out, struct rk_error *err);

/* For every message from now on. Any thread; the last call wins on every worker. */
void rk_server_set_policies(struct rk_server *server, struct rk_policy_set *policies);

/* New limits, for every message from now on; new listeners open, removed ones close
 * and their sessions end with the reply they wait for. Fails (a listener cannot be opened) without
 * effect. */
RK_MUST_CHECK enum rk_status rk_server_reload(struct rk_server *server,
                                              const struct rk_config *config, struct rk_error *err);

/* Returns when every worker has done what was asked before: policies and limits hold, removed
 * listeners are closed. */
void rk_server_sync(struct rk_server *server);

/* The listeners of a configuration, without ids; *n of them, borrowed strings; free() the array.
 * NULL: out of memory. */
struct rk_route_spec *rk_server_route_specs(const struct rk_config *config, size_t *n);

/* Closes the listeners and idle sessions; the others end with the reply they wait for. */
void rk_server_drain(struct rk_server *server);
/* Sessions still open. */
size_t rk_server_sessions(const struct rk_server *server);
/* Closes what is left and joins the workers. Key loads that were under way may still call back. */
void rk_server_stop(struct rk_server *server);
/* After rk_server_stop and, when there is one, after the key service has stopped. */
void rk_server_free(struct rk_server *server);

/* Adds the upstream round-trips of foreground reads and writes so far (crypto and key waits
 * excluded; getMore, hello and streams not counted). Any thread. */
void rk_server_foreground(const struct rk_server *server, struct rk_histogram_snapshot *into);
/* Sessions, messages, values, latency. Any thread. */
void rk_server_metrics(const struct rk_server *server, struct rk_metrics *m);

#endif
