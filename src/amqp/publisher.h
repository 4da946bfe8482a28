/*
 * The publishing connection and its thread. Others leave messages with it; each is published
 * persistent and mandatory, and counts as sent when the broker has confirmed it.
 *
 * A broker may be connected and confirm nothing, nor deliver anything, such as one whose quorum
 * queues have lost their majority. It counts as stalled when the oldest message has waited for its
 * confirm twice as long as an offer does (amqp.confirm_timeout_ms), and until confirms come again.
 * After twenty times as long the next address is tried; what was in flight is lost then.
 */
#ifndef REKEY_AMQP_PUBLISHER_H
#define REKEY_AMQP_PUBLISHER_H

#include "line.h"
#include "outbox.h"

#include <rekey/base/metrics.h>

struct rk_publisher;

RK_MUST_CHECK enum rk_status rk_publisher_new(const struct rk_config_amqp *config,
                                              const char *secret, struct rk_publisher **out,
                                              struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_publisher_start(struct rk_publisher *p, rk_settled_fn *settled,
                                                void *arg, struct rk_error *err);
/* Joins the thread; offers that wait fail. What comes later is refused. */
void rk_publisher_stop(struct rk_publisher *p);
void rk_publisher_free(struct rk_publisher *p);

/* Connected, and the broker takes messages and confirms them. Any thread. */
bool rk_publisher_ready(struct rk_publisher *p);
/* How often a broker that had stalled was left for a connection on which confirms come. Any thread.
 */
uint64_t rk_publisher_moves(const struct rk_publisher *p);

/* Publishes messages and waits for their confirms, as long as amqp.confirm_timeout_ms at most;
 * *sent of them are confirmed, from the first on. RK_EIO: not all are. Any thread. */
RK_MUST_CHECK enum rk_status rk_publisher_offer(struct rk_publisher *p,
                                                const struct rk_amqp_message *messages, size_t n,
                                                size_t *sent, struct rk_error *err);
/* Leaves one message and does not wait. tag 0: nobody wants to know what became of it. False when
 * it cannot be taken. Any thread. */
bool rk_publisher_leave(struct rk_publisher *p, const char *key,
                        const struct rk_amqp_message *message, uint64_t tag);

bool rk_publisher_connected(const struct rk_publisher *p);
uint64_t rk_publisher_losses(const struct rk_publisher *p);
void rk_publisher_metrics(struct rk_publisher *p, struct rk_metrics *m);

#endif
