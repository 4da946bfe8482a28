/*
 * A link that is kept up by a thread of its own: connects, serves, and when the connection is lost
 * pauses and connects anew.
 */
#ifndef REKEY_AMQP_LINE_H
#define REKEY_AMQP_LINE_H

#include "link.h"

#include <pthread.h>

struct rk_amqp_line_ops {
    /* On a new connection: until it is lost (RK_EIO) or rk_amqp_line_stopping (RK_OK). */
    enum rk_status (*serve)(void *self, struct rk_error *err);
    /* Serving is over; the connection is still open where it was not lost. */
    void (*over)(void *self);
};

struct rk_amqp_line {
    struct rk_amqp_link link; /* the thread's alone */
    const struct rk_amqp_line_ops *ops;
    void *self;
    pthread_t thread;
    bool started;
    _Atomic bool stopping;
    int wake_fd;
};

RK_MUST_CHECK enum rk_status rk_amqp_line_init(struct rk_amqp_line *line,
                                               const struct rk_config_amqp *config,
                                               const char *secret, const char *purpose,
                                               struct rk_error *err);
/* Of one that was initialised, or whose initialisation failed. */
void rk_amqp_line_deinit(struct rk_amqp_line *line);

RK_MUST_CHECK enum rk_status rk_amqp_line_start(struct rk_amqp_line *line,
                                                const struct rk_amqp_line_ops *ops, void *self,
                                                struct rk_error *err);
/* Joins the thread; more than once is fine. */
void rk_amqp_line_stop(struct rk_amqp_line *line);
bool rk_amqp_line_stopping(const struct rk_amqp_line *line);

/* There is something to do besides reading. Any thread. */
void rk_amqp_line_wake(const struct rk_amqp_line *line);
/* Waits for the broker, for a wake, or until heartbeats want a look at what has come in. */
void rk_amqp_line_wait(const struct rk_amqp_line *line);

#endif
