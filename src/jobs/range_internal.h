/*
 * Ranges: one document of <state db>.jobStatus each, the truth about what has been swept.
 *
 *   { _id, jobId, seq: int64, collectionName: "db.coll", startId, endId,   -- half-open
 *     batchSize: int64,          documents in the range when it was cut
 *     state: "pending" | "running" | "done" | "failed", isComplete: bool,
 *     creationTimeStamp: Date, finishedAt: Date,
 *     owner, epoch: int64, leaseUntil: Date, attempts: int32, error,
 *     slot: int32,               of a running range of a job with limited concurrency
 *     session: UUID,             in which the owner writes transactions; formerSession: the owner's
 *                                before it, which fell silent
 *     offeredAt: Date,           when other instances were last told of it
 *     position,                  the last processed _id; the checkpoint
 *     splitOff: {_id, seq, endId, batchSize},   what is to become a range of its own (split.c)
 *     cutEndId,                  where a range that was split ended when it was cut
 *     consumerProcessed, scanned, swept, alreadyCurrent, gone, rejected, changedAgain,
 *     deadLettered, plaintext: int64 }
 *
 * startId MinKey and endId MaxKey mean open: the first and last range of a collection have no
 * bound, since a document may itself have the _id MaxKey.
 *
 *   pending -> running   claimed; the epoch grows
 *   running -> pending   given back by its owner (pause, shutdown)
 *   running -> running   taken over after the lease ran out; the epoch grows
 *   running -> running   its session was ended after the lease ran out; it has no owner any more
 *   running -> done      by its owner
 *   running -> failed    by its owner, after attempts_max attempts without progress
 *   failed -> pending    rekeyctl resume
 *
 * Every write of an owner is guarded by {owner, epoch, state: running}, a checkpoint also by what
 * has been scanned, and sets absolute values: repeating it is harmless, and one that comes late
 * changes nothing. Leases run on the server's clock.
 */
#ifndef REKEY_JOBS_RANGE_INTERNAL_H
#define REKEY_JOBS_RANGE_INTERNAL_H

#include "command_internal.h"
#include "transaction_internal.h"

#include <rekey/jobs/store.h>

/* What is to become a range of its own, from where this one ends on. */
struct rk_split_off {
    bson_oid_t id;
    int64_t seq;
    int64_t docs;
    struct rk_id end; /* type 0: nothing is */
};

struct rk_range {
    bson_oid_t id;
    int64_t seq;  /* negative: split off */
    int64_t docs; /* in it, when it was cut or split */
    int64_t epoch;
    int64_t attempts; /* takeovers and failures since the last progress */
    struct rk_id start;
    struct rk_id end;
    struct rk_id position; /* type 0: nothing processed yet */
    struct rk_sweep_counts counts;
    uint64_t claimed_at; /* operation time; 0: the server has none */
    int64_t slot;        /* of those that the job's concurrency gives; -1: none */
    struct rk_split_off split_off;
    bool has_session; /* it names the session of its owner */
};

/* Who works on ranges, and under which terms. */
struct rk_lease {
    mongoc_client_t *client;
    const char *state_db;
    const char *owner;
    uint32_t lease_ms;
    uint32_t wtimeout_ms;
    const uint8_t *session; /* of transactions, RK_SESSION_ID_LEN bytes; NULL: there will be none */
};

void rk_range_init(struct rk_range *range);
void rk_range_deinit(struct rk_range *range);

/*
 * The condition (for $expr; to be destroyed) that the lease whose end is in field has run out. A
 * lease that would last ten times as long as ours has run out, too: the clock of the server that
 * gave it was ahead, and its owner, while it lives, renews it long before. Should that be wrong,
 * an epoch that is fenced off is all that is lost.
 */
bson_t *rk_lease_ran_out(const struct rk_lease *lease, const char *field);

/* ---- range_claim.c */

/*
 * Takes the next range of the job whose owner's lease ran out, or else one that is pending.
 * RK_ENOENT: there is none. RK_ELIMIT: as many are being worked on, by all instances, as
 * concurrency allows (0: any number). That is exact: each has one of so many slots, and a unique
 * index keeps two from having the same one.
 */
RK_MUST_CHECK enum rk_status rk_range_claim(const struct rk_lease *lease, const bson_oid_t *job,
                                            uint32_t concurrency, struct rk_range *range,
                                            struct rk_error *err);

/* The same for that very range. RK_ENOENT: it is done, or somebody else works on it. */
RK_MUST_CHECK enum rk_status rk_range_claim_one(const struct rk_lease *lease, const bson_oid_t *job,
                                                const bson_oid_t *id, uint32_t concurrency,
                                                struct rk_range *range, struct rk_error *err);

/* May a range with this slot be worked on? */
bool rk_slot_valid(int64_t slot, uint32_t concurrency);
/* ---- slots.c: the first one that no range has; RK_ELIMIT: there is none. */
RK_MUST_CHECK enum rk_status rk_slot_find(const struct rk_lease *lease, const bson_oid_t *job,
                                          uint32_t concurrency, int32_t *slot,
                                          struct rk_error *err);

enum rk_range_next {
    RK_RANGE_GO_ON,   /* a checkpoint; the lease is renewed */
    RK_RANGE_DONE,    /* finished */
    RK_RANGE_RELEASE, /* for somebody else to go on with */
    RK_RANGE_FAIL,
};
/* Stores position, counts, attempts and error (NULL: none), and what is next. RK_ESTATE: the
 * range belongs to somebody else by now. */
RK_MUST_CHECK enum rk_status rk_range_checkpoint(const struct rk_lease *lease,
                                                 const struct rk_range *range,
                                                 enum rk_range_next next, const char *error,
                                                 struct rk_error *err);

/* Runs an update of jobStatus of one statement and says how many documents it matched. */
RK_MUST_CHECK enum rk_status rk_range_update(const struct rk_lease *lease,
                                             const struct rk_bson_writer *w, int64_t *matched,
                                             struct rk_error *err);

/* Renews the leases of these ranges as far as they are still the owner's. */
RK_MUST_CHECK enum rk_status rk_range_renew(const struct rk_lease *lease, const bson_oid_t *ids,
                                            size_t n_ids, struct rk_error *err);

/* ---- range_insert.c */

struct rk_range_cut {
    bson_oid_t id;
    int64_t seq;
    const struct rk_id *start;
    const struct rk_id *end;
    int64_t docs;
};
/* Adds a pending range. RK_ESTATE: there is one with this id or seq. */
RK_MUST_CHECK enum rk_status rk_range_insert(const struct rk_lease *lease, const bson_oid_t *job,
                                             const struct rk_ns *ns, const struct rk_range_cut *cut,
                                             struct rk_error *err);

/* ---- split.c */

/* end.type 0 where the range has none. */
RK_MUST_CHECK enum rk_status rk_split_off_read(const struct rk_bson_view *range,
                                               struct rk_split_off *off, struct rk_error *err);
/*
 * Shortens a range that lease's owner works on by the second half of what is left of it. *split:
 * there was something to split off, which the range holds from now on. Any failure, also RK_ESTATE
 * (it is somebody else's), leaves it open how far the range goes: the owner must let go of it.
 */
RK_MUST_CHECK enum rk_status rk_range_split(const struct rk_lease *lease, const struct rk_ns *ns,
                                            struct rk_range *range, bool *split,
                                            struct rk_error *err);
/* Makes a range of what was split off; before that, the range is not worked on. May be repeated. */
RK_MUST_CHECK enum rk_status rk_range_complete_split(const struct rk_lease *lease,
                                                     const bson_oid_t *job, const struct rk_ns *ns,
                                                     struct rk_range *range, struct rk_error *err);

/* ---- dead_sessions.c */

/* The id of the session that a range's document names under this key; NULL: none. */
const uint8_t *rk_range_session(const struct rk_bson_view *doc, const char *key);
/*
 * Ends the sessions of the job's ranges whose leases ran out, each once, and takes the ranges from
 * their owners: those are gone, or fenced off by it. meanwhile: called in between, for it may take
 * a while.
 */
RK_MUST_CHECK enum rk_status rk_dead_sessions_end(const struct rk_lease *lease,
                                                  const bson_oid_t *job,
                                                  void (*meanwhile)(void *arg), void *arg,
                                                  struct rk_error *err);

/* ---- planner.c */

/* Ranges of the job in that state, up to limit. */
RK_MUST_CHECK enum rk_status rk_ranges_count(const struct rk_lease *lease, const bson_oid_t *job,
                                             const char *state, uint32_t limit, int64_t *n,
                                             struct rk_error *err);

struct rk_planner_settings {
    uint32_t range_docs;
    uint32_t ranges_ahead;
    void (*range_cut)(void *arg); /* called for each one, so that work on it can start at once */
    void *arg;
};

/*
 * Cuts the job's next ranges, up to ranges_ahead pending ones, if this owner gets the planner
 * lease in the job document. *cut counts them. What has been cut is read from jobStatus, whose
 * unique index {jobId, seq} decides between two planners; the lease only spares useless work.
 */
RK_MUST_CHECK enum rk_status rk_planner_step(const struct rk_lease *lease, const bson_oid_t *job,
                                             const struct rk_ns *ns,
                                             const struct rk_planner_settings *settings,
                                             uint32_t *cut, struct rk_error *err);

#endif
