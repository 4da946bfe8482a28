/*
 * Reading a collection in the order of its _id index, a batch at a time, without cursors that
 * would have to stay alive while the sweep is throttled or paused.
 *
 * Reads are majority reads: what only a primary had that is lost must not let the position pass a
 * document by. They see all that came before the caller's last majority write, which is the claim
 * of the range, or the update that did not match; from other members than the primary by waiting
 * for the operation time of the claim. Snapshot reads are majority reads that all see one moment.
 *
 * Bounds are index bounds (min inclusive, max exclusive, with a hint), since only these compare
 * across BSON types: {_id: {$gte: 5}} would silently skip strings, NaN and sub-documents.
 */
#ifndef REKEY_JOBS_SCAN_INTERNAL_H
#define REKEY_JOBS_SCAN_INTERNAL_H

#include "command_internal.h"
#include "shard_key_internal.h"

#include <rekey/config/config.h>
#include <rekey/policy/policy.h>

/*
 * Whom to read from. A member that is behind is waited for until it has what a majority had at
 * after: the document that a scan must not miss was written before that.
 */
struct rk_scan_from {
    mongoc_read_mode_t mode;
    uint64_t after;       /* operationTime of a reply; 0: a server without one */
    uint32_t max_time_ms; /* of waiting and reading */
};
mongoc_read_mode_t rk_scan_mode(enum rk_config_scan read_preference);

struct rk_scan {
    const struct rk_id *min; /* NULL, none or MinKey: open */
    const struct rk_id *max; /* NULL, none or MaxKey: open */
    const struct rk_id
        *after; /* NULL or none: start at min; else after this one, which is left out */
    const struct rk_policy *policy; /* project to what holds protected values; NULL: _id alone */
    const struct rk_shard_key *shard_key; /* of the collection; NULL: not sharded */
    bool whole;                           /* do not project */
    uint32_t skip;
    uint32_t limit;
    bool snapshot;                   /* with from: says what time it shows */
    const struct rk_scan_from *from; /* NULL: the primary */
};

/* One batch of documents; owns them. */
struct rk_scan_batch {
    bson_t *reply;            /* NULL: none yet */
    struct rk_bson_view docs; /* the array, into reply */
    uint32_t n;
    bool exhausted; /* nothing follows */
    uint64_t at;    /* the time of a snapshot; 0: none */
};

void rk_scan_batch_init(struct rk_scan_batch *batch);
void rk_scan_batch_deinit(struct rk_scan_batch *batch);

RK_MUST_CHECK enum rk_status rk_scan_read(mongoc_client_t *client, const struct rk_ns *ns,
                                          const struct rk_scan *scan, struct rk_scan_batch *batch,
                                          struct rk_error *err);
/* Of a BSON array of _ids; 0: it is none, or empty. */
uint32_t rk_scan_count_ids(const struct rk_buf *ids);
/* The documents of these _ids, a BSON array, projected as by another scan; those that do not fit
 * into one reply are left out. */
RK_MUST_CHECK enum rk_status rk_scan_read_ids(mongoc_client_t *client, const struct rk_ns *ns,
                                              const struct rk_scan *like, const struct rk_buf *ids,
                                              struct rk_scan_batch *batch, struct rk_error *err);
/* The same for those that the plan wants changed and that did not fail, in any order. */
struct rk_plan;
RK_MUST_CHECK enum rk_status
rk_scan_read_planned(mongoc_client_t *client, const struct rk_ns *ns, const struct rk_scan *like,
                     const struct rk_plan *plan, struct rk_scan_batch *batch, struct rk_error *err);

/*
 * Every document of a collection, whole, in batches of batch_docs, from position on (type 0: the
 * beginning), which is the last document of the batches that were done. Sees whatever was written
 * before it began, from whichever members it reads. first says how many
 * documents there may be, each calls for one, batch_done after a batch; what these return ends the
 * scan, with *err theirs. RK_EIO: to be tried again from a position.
 */
struct rk_scan_visitor {
    void (*first)(void *arg, int64_t documents_estimated);
    enum rk_status (*each)(void *arg, const struct rk_bson_view *doc, struct rk_error *err);
    enum rk_status (*batch_done)(void *arg, uint32_t documents, struct rk_error *err);
    void *arg;
};
RK_MUST_CHECK enum rk_status rk_scan_all(mongoc_client_t *client, const struct rk_ns *ns,
                                         mongoc_read_mode_t mode, uint32_t batch_docs,
                                         const struct rk_scan_visitor *visitor,
                                         struct rk_id *position, struct rk_error *err);

/* Iterates: the next document and its _id, RK_ENOENT at the end, RK_EINVAL when the reply is
 * malformed. */
void rk_scan_iter_init(struct rk_bson_iter *iter, const struct rk_scan_batch *batch);
RK_MUST_CHECK enum rk_status rk_scan_next(struct rk_bson_iter *iter, struct rk_bson_view *doc,
                                          struct rk_bson_elem *id);

#endif
