/*
 * How instances tell each other what there is to do. A transport carries hints and nothing else:
 * jobStatus is the truth, which decides whether a range is still to be done and by whom. A hint
 * that is lost is offered again, one that comes twice finds its range taken.
 *
 * Without a transport (local), while one is not ready, and when no range has come over it for long,
 * sweepers look into jobStatus by themselves.
 */
#ifndef REKEY_JOBS_TRANSPORT_H
#define REKEY_JOBS_TRANSPORT_H

#include <bson/bson.h>
#include <rekey/base/metrics.h>

#define RK_HINT_IDS_MAX (1u << 19)

enum rk_hint_kind {
    RK_HINT_RANGE, /* a range of a job */
    RK_HINT_DOCS,  /* documents that applications read under an old key */
    RK_HINT_PLAN,  /* ranges of the job are used up: cut the next ones */
};

struct rk_hint {
    enum rk_hint_kind kind;
    bson_oid_t job;    /* not of DOCS */
    bson_oid_t range;  /* RANGE: _id in jobStatus */
    bool is_meta;      /* RANGE: the last one of those that were cut together */
    char ns[320];      /* "db.collection" */
    uint8_t *ids;      /* DOCS: a BSON array of _ids, malloc'ed */
    uint32_t ids_len;  /* bytes, RK_HINT_IDS_MAX at most */
    uint32_t attempts; /* deliveries before this one, as far as the transport knows */
    uint64_t tag;      /* the transport's own */
};

/* What the engine did with a hint that it was given. */
enum rk_hint_end {
    RK_HINT_DONE,   /* nothing is left to do about it */
    RK_HINT_LATER,  /* cannot be done at present, or not here: to be given again after a while */
    RK_HINT_BUSY,   /* the job has no room for one more at present: to be given again soon */
    RK_HINT_BAD,    /* will never make sense to anyone */
    RK_HINT_RETURN, /* the engine stops: to be given to another instance at once */
};

struct rk_transport_ops {
    const char *name; /* as sweep.transport names it */
    /* Can hints be sent and received now? Any thread. */
    bool (*ready)(void *self);
    /* Which hints this instance can do something about at present, and how many of them at once; at
     * first all. Without ranges it is not its turn to plan either. Any thread, never waits. */
    void (*want)(void *self, bool ranges, bool docs, uint32_t threads);
    /* Is it this instance's turn to plan? Asked only while ready. */
    bool (*plans)(void *self);
    /* Sends hints (RANGE and PLAN) and waits until the transport has them for good; *sent of them
     * were, from the first on, also after a failure. On the coordinator's or a sweeper's thread.
     * RK_EIO: not now. */
    enum rk_status (*offer)(void *self, const struct rk_hint *hints, size_t n, size_t *sent,
                            struct rk_error *err);
    /* Sends a DOCS hint and never waits; false: dropped. ids are copied. */
    bool (*offer_docs)(void *self, const char *ns, const uint8_t *ids, uint32_t ids_len);
    /* Ends a hint that was delivered, and frees what it holds. Any thread, never waits. */
    void (*end)(void *self, struct rk_hint *hint, enum rk_hint_end end);
    /* How long an offer of a range may go unheeded until it is made again. */
    uint32_t (*offer_again_ms)(void *self);
};

struct rk_transport {
    const struct rk_transport_ops *ops; /* NULL: local */
    void *self;
};

#endif
