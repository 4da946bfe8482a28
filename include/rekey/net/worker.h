/*
 * A worker: a thread with an event loop. Everything that a loop owns is touched by its thread
 * alone; other threads hand it work with rk_worker_post.
 */
#ifndef REKEY_NET_WORKER_H
#define REKEY_NET_WORKER_H

#include <event2/event.h>
#include <rekey/base/status.h>

struct rk_worker;

typedef void rk_worker_fn(void *arg);

/* Creates the loop; nothing runs before rk_worker_start. */
RK_MUST_CHECK enum rk_status rk_worker_new(struct rk_worker **out, struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_worker_start(struct rk_worker *worker, struct rk_error *err);

/* Any thread. fn runs once on the worker, in order of posting. What is posted after the loop has
 * ended runs in rk_worker_free, on that thread. */
RK_MUST_CHECK enum rk_status rk_worker_post(struct rk_worker *worker, rk_worker_fn *fn, void *arg);

/* Any thread but a worker's, while the loop runs: returns when all that was posted so far has run.
 */
RK_MUST_CHECK enum rk_status rk_worker_sync(struct rk_worker *worker);

/* Any thread: the loop ends after its present turn. */
void rk_worker_stop(struct rk_worker *worker);
void rk_worker_join(struct rk_worker *worker);
/* After join (or before start). Runs what is still posted. */
void rk_worker_free(struct rk_worker *worker);

struct event_base *rk_worker_base(struct rk_worker *worker);

#endif
