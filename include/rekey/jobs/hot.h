/*
 * Documents that applications have read under an old key, by their _id: the sweeper's first
 * choice. Bounded, each document once within a while, and lossy: what finds no place, or finds the
 * set busy, is left to the sweep, or to its next reader.
 *
 * Noted by workers, which must never wait; taken by sweepers.
 */
#ifndef REKEY_JOBS_HOT_H
#define REKEY_JOBS_HOT_H

#include <rekey/base/metrics.h>
#include <rekey/base/status.h>
#include <stdbool.h>

/* A longer _id is not kept. */
#define RK_HOT_ID_MAX 64u

struct rk_hot;

struct rk_hot_config {
    uint32_t docs_max;  /* that wait at once, at least 1 */
    uint32_t repeat_ms; /* a document that was noted is not noted again sooner */
};

/* NULL: out of memory. */
struct rk_hot *rk_hot_new(const struct rk_hot_config *config);
void rk_hot_free(struct rk_hot *hot);

/* Is anybody going to take what is noted? Any thread. */
void rk_hot_set_wanted(struct rk_hot *hot, bool wanted);
bool rk_hot_wanted(const struct rk_hot *hot);

/* An _id (its BSON type and bytes) of "db.collection". Any thread; never waits. */
void rk_hot_note(struct rk_hot *hot, const char *ns, uint8_t type, const void *id, uint32_t len);

/*
 * Takes up to max documents of one namespace, that of the oldest; ns has room for 320 bytes. ids
 * becomes a BSON array of them. *n is 0 when there is none. Any thread. RK_ENOMEM, RK_ELIMIT: they
 * are lost.
 */
struct rk_buf;
RK_MUST_CHECK enum rk_status rk_hot_take(struct rk_hot *hot, uint32_t max, char *ns,
                                         struct rk_buf *ids, uint32_t *n);
/* Documents that wait now. */
uint32_t rk_hot_waiting(struct rk_hot *hot);
void rk_hot_metrics(struct rk_hot *hot, struct rk_metrics *m);

#endif
