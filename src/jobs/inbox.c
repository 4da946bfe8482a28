#include "inbox_internal.h"

bool rk_inbox_put(struct rk_inbox *inbox, const struct rk_hint *hint)
{
    struct rk_inbox_queue *queue = hint->kind == RK_HINT_DOCS ? &inbox->docs : &inbox->ranges;
    if (queue->used == RK_INBOX_MAX) {
        return false;
    }
    queue->hints[(queue->first + queue->used) % RK_INBOX_MAX] = *hint;
    queue->used++;
    return true;
}

bool rk_inbox_take(struct rk_inbox *inbox, struct rk_hint *hint)
{
    struct rk_inbox_queue *queue = inbox->docs.used > 0 ? &inbox->docs : &inbox->ranges;
    if (queue->used == 0) {
        return false;
    }
    *hint = queue->hints[queue->first];
    queue->first = (queue->first + 1) % RK_INBOX_MAX;
    queue->used--;
    return true;
}
