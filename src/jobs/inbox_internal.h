/*
 * Hints that a transport has delivered and no sweeper has taken yet: those of documents first.
 * Under the engine's lock.
 */
#ifndef REKEY_JOBS_INBOX_INTERNAL_H
#define REKEY_JOBS_INBOX_INTERNAL_H

#include <rekey/jobs/transport.h>
#include <stddef.h>

/* Of each kind; a transport's prefetch stays below it. */
#define RK_INBOX_MAX 256u

struct rk_inbox_queue {
    struct rk_hint hints[RK_INBOX_MAX];
    size_t first;
    size_t used;
};

struct rk_inbox {
    struct rk_inbox_queue docs;
    struct rk_inbox_queue ranges;
};

/* Takes hint over; false: there is no room. */
bool rk_inbox_put(struct rk_inbox *inbox, const struct rk_hint *hint);
/* False: there is none. */
bool rk_inbox_take(struct rk_inbox *inbox, struct rk_hint *hint);

#endif
