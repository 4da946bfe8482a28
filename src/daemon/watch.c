/* What the admin thread is given: figures, and whether rekeyd is ready. */
#include "daemon_internal.h"

#include <rekey/base/clock.h>

static void server_metrics(void *arg, struct rk_metrics *m)
{
    rk_server_metrics(arg, m);
}

static void key_metrics(void *arg, struct rk_metrics *m)
{
    rk_key_service_metrics(arg, m);
}

static void gate_metrics(void *arg, struct rk_metrics *m)
{
    rk_gate_metrics(arg, m);
}

static void amqp_metrics(void *arg, struct rk_metrics *m)
{
    rk_amqp_metrics(arg, m);
}

static void engine_metrics(void *arg, struct rk_metrics *m)
{
    rk_engine_metrics(arg, m);
}

/* On the admin thread. */
static size_t missing(void *arg, struct rk_admin_missing out[RK_ADMIN_MISSING_MAX])
{
    const struct rk_daemon *d = arg;
    size_t n = 0;
    if (atomic_load(&d->draining)) {
        out[n++] = (struct rk_admin_missing){"listeners", "rekeyd is draining"};
    }
    if (d->keys != NULL && !d->started_with->keys.start_degraded) {
        const char *why = rk_key_service_missing(d->keys);
        if (why != NULL) {
            out[n++] = (struct rk_admin_missing){"keys", why};
        }
    }
    return n;
}

enum rk_status rk_daemon_listen(struct rk_daemon *d, struct rk_error *err)
{
    d->started_at_s = (double)rk_clock_wall_ms() / 1e3;
    return rk_admin_start(&d->started_with->admin, &d->admin, err);
}

void rk_daemon_watch(struct rk_daemon *d)
{
    rk_admin_collect(d->admin, rk_daemon_process_metrics, d);
    rk_admin_collect(d->admin, rk_log_metrics, NULL);
    rk_admin_collect(d->admin, server_metrics, d->server);
    if (d->keys != NULL) {
        rk_admin_collect(d->admin, key_metrics, d->keys);
        rk_admin_collect(d->admin, gate_metrics, d->gate);
        rk_admin_collect(d->admin, engine_metrics, d->engine);
        if (d->amqp != NULL) {
            rk_admin_collect(d->admin, amqp_metrics, d->amqp);
        }
        if (d->provider.ops->metrics != NULL) {
            rk_admin_collect(d->admin, d->provider.ops->metrics, d->provider.self);
        }
    }
    rk_admin_started(d->admin, d->topology, missing, d);
}
