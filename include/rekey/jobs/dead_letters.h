/*
 * Values that could not be processed: <state db>.deadLetters, one document for each (ns, docId,
 * path), which is unique:
 *
 *   { _id: ObjectId, jobId, ns, docId, path, reason, raw: the stored value as it was found,
 *     transform: the job's (absent: "reencrypt"), attempts: int, firstSeen, lastSeen: Date,
 *     resolved: bool, resolvedAt,
 *     retry: true, retriedAt     -- asked for by rekeyctl dead-letters retry
 *     discarded: {by, at: Date, reason}    -- by rekeyctl dead-letters discard }
 *
 * raw is an envelope; anything else may be plaintext, and is left out (rawOmitted: true), as is
 * what is too large to be stored twice.
 * An entry is open until it is resolved, when a retry, or a later complete job over the namespace,
 * did not meet the problem again; or discarded, which ends when the place is met with another value
 * that cannot be processed, or with any whose raw is left out: it could be another one. No data key
 * is kept for the raw values of entries that are not open.
 */
#ifndef REKEY_JOBS_DEAD_LETTERS_H
#define REKEY_JOBS_DEAD_LETTERS_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct _bson_t;
struct _mongoc_client_t;

/* Those with this id, those of this namespace, all when both are NULL. */
struct rk_dead_letters_which {
    const char *id; /* 24 hex digits */
    const char *ns;
};

/* Adds what selects open entries to a filter. */
void rk_dead_letters_append_open(struct _bson_t *filter);

typedef void rk_dead_letter_fn(void *arg, const struct _bson_t *entry);
/* Calls fn with each open entry of ns (NULL: every namespace; all: those not open as well), newest
 * first, at most max. raw is not read. */
RK_MUST_CHECK enum rk_status rk_dead_letters_list(struct _mongoc_client_t *client,
                                                  const char *state_db, const char *ns, bool all,
                                                  size_t max, rk_dead_letter_fn *fn, void *arg,
                                                  struct rk_error *err);
/* Calls fn with one entry, raw included. RK_ENOENT: there is none; RK_EINVAL: id is no id. */
RK_MUST_CHECK enum rk_status rk_dead_letters_get(struct _mongoc_client_t *client,
                                                 const char *state_db, const char *id,
                                                 rk_dead_letter_fn *fn, void *arg,
                                                 struct rk_error *err);

/* Open entries of ns (NULL: all). */
RK_MUST_CHECK enum rk_status rk_dead_letters_count(struct _mongoc_client_t *client,
                                                   const char *state_db, const char *ns, int64_t *n,
                                                   struct rk_error *err);

/* Both take the open entries among which; *n of them. RK_ENOENT, RK_ESTATE: the one with that id
 * does not exist, is not open. Recorded in the audit log. */

/* Asks the running engines to try them again. */
RK_MUST_CHECK enum rk_status rk_dead_letters_retry(struct _mongoc_client_t *client,
                                                   const char *state_db,
                                                   const struct rk_dead_letters_which *which,
                                                   const char *actor, int64_t *n,
                                                   struct rk_error *err);
/* Gives them up, for a reason that stays with them. */
RK_MUST_CHECK enum rk_status rk_dead_letters_discard(struct _mongoc_client_t *client,
                                                     const char *state_db,
                                                     const struct rk_dead_letters_which *which,
                                                     const char *actor, const char *reason,
                                                     int64_t *n, struct rk_error *err);

#endif
