/*
 * What was read in a snapshot is written as a whole, in a transaction at that snapshot's time:
 * mongod itself refuses it (WriteConflict) when any of the documents has been changed or deleted
 * since. So a statement needs no condition but the _id, and costs mongod a quarter of a
 * compare-and-swap, which it plans anew for each document (docs/benchmarks.md).
 *
 * Whoever writes such a document meanwhile waits for the transaction, which is some milliseconds.
 * One that is left open by a process that died would hold its documents for as long as mongod
 * allows (transactionLifetimeLimitSeconds, 60). So a range names its owner's session, and who takes
 * the range over ends that first.
 *
 * Needs a replica set of MongoDB 5.0 or later; elsewhere there are no such transactions.
 */
#ifndef REKEY_JOBS_TRANSACTION_INTERNAL_H
#define REKEY_JOBS_TRANSACTION_INTERNAL_H

#include "command_internal.h"

#define RK_SESSION_ID_LEN 16u

struct rk_transaction {
    mongoc_client_t *client;          /* borrowed */
    mongoc_client_session_t *session; /* NULL: none yet */
    unsigned given_up;                /* in a row */
    unsigned spared;                  /* batches that are to go without one */
};

/* Whether there can be any, as far as the primary is known now; opens the session. */
bool rk_transaction_possible(struct rk_transaction *t);
/* Whether the next batch is to be one. */
bool rk_transaction_wanted(struct rk_transaction *t);
/* How a batch fared that was to be one. Where they are refused for good (a capped collection) or
 * applications are always faster, only one batch of 64 still tries. */
void rk_transaction_note(struct rk_transaction *t, bool written);
void rk_transaction_deinit(struct rk_transaction *t);

/* The session's id, RK_SESSION_ID_LEN bytes; NULL: there is no session. */
const uint8_t *rk_transaction_session(const struct rk_transaction *t);

/* One at a time; whatever fails, abort follows. The first command has rk_transaction_put_time in
 * it, the time that a snapshot was read at. */
RK_MUST_CHECK enum rk_status rk_transaction_begin(struct rk_transaction *t, uint32_t wtimeout_ms,
                                                  struct rk_error *err);
void rk_transaction_put_time(struct rk_bson_writer *w, uint64_t at);
/* reply is initialised in any case. */
RK_MUST_CHECK enum rk_status rk_transaction_run(struct rk_transaction *t, const char *db,
                                                const struct rk_buf *command, bson_t *reply,
                                                struct rk_error *err);
/* RK_OK: a majority has it. Else *unsure: it may have been committed all the same. */
RK_MUST_CHECK enum rk_status rk_transaction_commit(struct rk_transaction *t, bool *unsure,
                                                   struct rk_error *err);
void rk_transaction_abort(struct rk_transaction *t);

/* Ends what a session, of a process that is gone, has left open. */
void rk_session_kill(mongoc_client_t *client, const uint8_t id[RK_SESSION_ID_LEN]);

#endif
