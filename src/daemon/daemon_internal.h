/* What the files of the daemon share. All of it is the main thread's. */
#ifndef REKEY_DAEMON_INTERNAL_H
#define REKEY_DAEMON_INTERNAL_H

#include <event2/event.h>
#include <mongoc/mongoc.h>
#include <rekey/admin/admin.h>
#include <rekey/admission/gate.h>
#include <rekey/amqp/amqp.h>
#include <rekey/catalog/catalog.h>
#include <rekey/config/config.h>
#include <rekey/jobs/engine.h>
#include <rekey/keys/service.h>
#include <rekey/session/server.h>
#include <rekey/topology/topology.h>

#define RK_DAEMON_SIGNALS 3u

struct rk_daemon {
    const char *config_path;
    struct rk_config *config;
    struct rk_config *started_with; /* parts borrow from it what takes a restart to change */
    struct rk_admin *admin;         /* NULL: nobody listens */
    struct rk_topology *topology;
    mongoc_client_pool_t *pool;
    struct rk_provider provider;
    struct rk_key_service *keys;
    struct rk_catalog *catalog;
    struct rk_server *server;
    struct rk_gate *gate;
    struct rk_hot *hot;
    struct rk_engine *engine;
    struct rk_amqp *amqp; /* NULL: local */
    struct event_base *base;
    struct event *watched[RK_DAEMON_SIGNALS]; /* signals */
    struct event *drain_timer;
    uint64_t drain_deadline_us;
    char instance[160]; /* unique to this process */
    double started_at_s;
    _Atomic bool draining;
};

/* parts.c: what rekeyd consists of */
RK_MUST_CHECK enum rk_status rk_daemon_start(struct rk_daemon *d, struct rk_error *err);
/* After a start that failed, too. */
void rk_daemon_stop(struct rk_daemon *d);

/* watch.c: whether rekeyd is ready, and its figures */
/* Listens for those who watch, before anything else is started. */
RK_MUST_CHECK enum rk_status rk_daemon_listen(struct rk_daemon *d, struct rk_error *err);
/* Once everything is started. */
void rk_daemon_watch(struct rk_daemon *d);

/* process.c */
void rk_daemon_process_metrics(void *daemon, struct rk_metrics *m);

/* reload.c: settings, and their change while rekeyd runs */
/* As many open files as limits.connections_max needs, if the system lets us. */
void rk_daemon_raise_file_limit(const struct rk_config *config);
/* Reads the configuration anew; what is refused is logged and changes nothing. */
void rk_daemon_reload(struct rk_daemon *d);
void rk_daemon_free_configs(struct rk_daemon *d);

#endif
