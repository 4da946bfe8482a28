/*
 * The queue of requests without a reply. Nearly always holds none or one, so the first entry is
 * part of the session; the ring behind it comes with the first pipelined request and goes when
 * it is empty again.
 */
#include "session_internal.h"

#include <stdlib.h>

#define RING_FIRST 4u

static void release(struct rk_pending *pending)
{
    if (pending->readers != NULL) {
        rk_readers_leave(pending->readers, &pending->reader);
        pending->readers = NULL;
    }
    rk_policy_set_unref(pending->policies);
    rk_write_errors_free(pending->info.write_errors);
    free(pending->reply);
    pending->policies = NULL;
    pending->info.write_errors = NULL;
    pending->reply = NULL;
    pending->reply_len = 0;
}

struct rk_pending *rk_pending_head(struct rk_pending_queue *queue)
{
    return queue->count == 0 ? NULL : &queue->first;
}

static bool grow(struct rk_pending_queue *queue)
{
    size_t cap = queue->cap == 0 ? RING_FIRST : queue->cap * 2;
    struct rk_pending *more = calloc(cap, sizeof *more);
    if (more == NULL) {
        return false;
    }
    size_t used = queue->count - 1;
    for (size_t i = 0; i < used; i++) {
        more[i] = queue->more[(queue->head + i) % queue->cap];
    }
    free(queue->more);
    queue->more = more;
    queue->cap = cap;
    queue->head = 0;
    return true;
}

struct rk_pending *rk_pending_push(struct rk_pending_queue *queue)
{
    struct rk_pending *entry = &queue->first;
    if (queue->count > 0) {
        size_t used = queue->count - 1;
        if (used == queue->cap && !grow(queue)) {
            return NULL;
        }
        entry = &queue->more[(queue->head + used) % queue->cap];
    }
    queue->count++;
    *entry = (struct rk_pending){0};
    return entry;
}

void rk_pending_pop(struct rk_pending_queue *queue)
{
    release(&queue->first);
    queue->count--;
    if (queue->count > 0) {
        queue->first = queue->more[queue->head];
        queue->head = (queue->head + 1) % queue->cap;
    }
    if (queue->count <= 1 && queue->more != NULL) {
        free(queue->more);
        queue->more = NULL;
        queue->cap = 0;
        queue->head = 0;
    }
}

void rk_pending_deinit(struct rk_pending_queue *queue)
{
    while (queue->count > 0) {
        rk_pending_pop(queue);
    }
}
