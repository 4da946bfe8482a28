/*
 * The transport over RabbitMQ: ranges and hot documents as messages on quorum queues, a single
 * active consumer as planner. Two threads, one for each of its connections: one publishes, one
 * consumes, so that a broker that blocks publishers still delivers.
 *
 * Losing the broker loses nothing: the transport is not ready then, and sweepers look into
 * jobStatus by themselves; what was lost with it is offered again.
 */
#ifndef REKEY_AMQP_AMQP_H
#define REKEY_AMQP_AMQP_H

#include <rekey/config/config.h>
#include <rekey/jobs/transport.h>

struct rk_amqp;

/* As rk_engine_deliver: takes over what hint holds, or says that there is no room. Must not wait.
 * On a thread of the transport. */
typedef bool rk_amqp_deliver_fn(void *arg, const struct rk_hint *hint);

/* config is borrowed; threads: of sweepers, until the engine says what it wants. Takes the password
 * out of the environment where amqp.password_env names it. */
RK_MUST_CHECK enum rk_status rk_amqp_new(const struct rk_config_amqp *config, uint32_t threads,
                                         struct rk_amqp **out, struct rk_error *err);
/* NULL: the local one. */
struct rk_transport rk_amqp_transport(struct rk_amqp *amqp);

/* Does not wait for a broker. */
RK_MUST_CHECK enum rk_status rk_amqp_start(struct rk_amqp *amqp, rk_amqp_deliver_fn *deliver,
                                           void *arg, struct rk_error *err);
/* Before the engine: nothing is delivered any more, and the broker has back what was not ended. The
 * transport's operations may still be called. NULL is fine, here and below. */
void rk_amqp_stop(struct rk_amqp *amqp);
void rk_amqp_free(struct rk_amqp *amqp);

/* Any thread. */
void rk_amqp_metrics(struct rk_amqp *amqp, struct rk_metrics *m);

#endif
