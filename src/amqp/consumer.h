/*
 * The consuming connection and its thread: takes messages from plan, work.hot and work.cold, hands
 * them on as hints, and sends the broker what became of them. What others have to say to it goes
 * through a list and an eventfd.
 *
 * The planner's place: plan has a single active consumer. Every instance sends a message to it now
 * and then; whoever gets messages from there is the active one, as long as its connection lives.
 */
#ifndef REKEY_AMQP_CONSUMER_H
#define REKEY_AMQP_CONSUMER_H

#include "endings.h"
#include "publisher.h"

#include <rekey/jobs/transport.h>

struct rk_consumer;

/* Takes over what hint holds. Must not wait. Consumer's thread. */
typedef void rk_consumer_fn(void *arg, struct rk_hint *hint);

/* Wants everything at first; threads: of sweepers, for amqp.prefetch. */
RK_MUST_CHECK enum rk_status rk_consumer_new(const struct rk_config_amqp *config,
                                             const char *secret, uint32_t threads,
                                             struct rk_publisher *publisher,
                                             struct rk_consumer **out, struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_consumer_start(struct rk_consumer *c, rk_consumer_fn *deliver,
                                               void *arg, struct rk_error *err);
/* Joins the thread. What is not ended goes back to its queues. */
void rk_consumer_stop(struct rk_consumer *c);
void rk_consumer_free(struct rk_consumer *c);

/* What to consume from now on, and for how many threads. Any thread, never waits. */
void rk_consumer_want(struct rk_consumer *c, bool ranges, bool docs, uint32_t threads);

bool rk_consumer_connected(const struct rk_consumer *c);
/* Connected, and consuming something. */
bool rk_consumer_ready(const struct rk_consumer *c);
bool rk_consumer_plans(const struct rk_consumer *c);

/* Of the delivery that tag stands for; one of a former connection is ignored: the broker has it
 * back. Any thread, never waits. */
void rk_consumer_end(struct rk_consumer *c, uint64_t tag, enum rk_hint_end end);

uint64_t rk_consumer_losses(const struct rk_consumer *c);
void rk_consumer_metrics(struct rk_consumer *c, struct rk_metrics *m);

#endif
