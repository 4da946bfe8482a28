/*
 * Values that could not be processed: <state db>.deadLetters, one document for each (ns, docId,
 * path), which is unique:
 *
 *   { _id: ObjectId, jobId, ns, docId, path, reason, raw: the stored value as it was found,
 *     attempts: int, firstSeen, lastSeen: Date, resolved: bool, resolvedAt,
 *     retry: true, retriedAt     -- asked for by rekeyctl dead-letters retry }
 *
 * raw is ciphertext; it is left out (rawOmitted: true) when it is too large to be stored twice.
 * An entry is resolved when a retry, or a later complete job over the namespace, did not meet
 * the problem again.
 */
#ifndef REKEY_JOBS_DEAD_LETTERS_H
#define REKEY_JOBS_DEAD_LETTERS_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct _bson_t;
struct _mongoc_client_t;

/* Calls fn with each unresolved entry (all of them when all is set), newest first, at most max.
 * raw is not read. ns NULL: of every namespace. */
typedef void rk_dead_letter_fn(void *arg, const struct _bson_t *entry);
RK_MUST_CHECK enum rk_status rk_dead_letters_list(struct _mongoc_client_t *client,
                                                  const char *state_db, const char *ns, bool all,
                                                  size_t max, rk_dead_letter_fn *fn, void *arg,
                                                  struct rk_error *err);

/* Unresolved entries of ns (NULL: all). */
RK_MUST_CHECK enum rk_status rk_dead_letters_count(struct _mongoc_client_t *client,
                                                   const char *state_db, const char *ns, int64_t *n,
                                                   struct rk_error *err);

/* Asks the running engines to try the unresolved entries of ns (NULL: all) again; *n of them.
 * Recorded in the audit log. */
RK_MUST_CHECK enum rk_status rk_dead_letters_retry(struct _mongoc_client_t *client,
                                                   const char *state_db, const char *ns,
                                                   const char *actor, int64_t *n,
                                                   struct rk_error *err);

#endif
