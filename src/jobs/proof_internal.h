/* What the parts of proofs share. */
#ifndef REKEY_JOBS_PROOF_INTERNAL_H
#define REKEY_JOBS_PROOF_INTERNAL_H

#include "range_internal.h"

#include <mongoc/mongoc.h>
#include <rekey/jobs/proof.h>

#define RK_DIGEST_LEN 65u /* hexadecimal, with NUL */

/* A pass that this process holds. */
struct rk_pass {
    const struct rk_proof_request *request;
    struct rk_lease lease;
    char owner[128];
    bson_oid_t id;
    int64_t epoch;
    int64_t started_at_ms;
    bool resumed;
    char digest[RK_DIGEST_LEN];
    char keys[RK_DIGEST_LEN]; /* of the registry when it began, */
    int64_t keys_up_to;       /* of the names that had a key up to this one */
    uint64_t saves;
};

/* ---- proof_pass.c: the document of the pass */

/* Goes on with a pass that nobody holds, or begins one; waits for the lease of one who is silent.
 */
RK_MUST_CHECK enum rk_status rk_pass_open(struct rk_pass *pass, mongoc_client_t *client,
                                          const struct rk_proof_request *request,
                                          struct rk_error *err);
/* RK_ESTATE: somebody else holds it now. */
RK_MUST_CHECK enum rk_status rk_pass_renew(const struct rk_pass *pass, struct rk_error *err);
/* Lets others go on with it at once. */
void rk_pass_release(const struct rk_pass *pass);
/* Runs fn again and again while it fails with RK_EIO, unless it has done so too often since
 * something was saved. */
typedef enum rk_status rk_pass_fn(struct rk_pass *pass, void *arg, struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_pass_retry(struct rk_pass *pass, rk_pass_fn *fn, void *arg,
                                           struct rk_error *err);
/* Nobody is to go on with it. */
void rk_pass_abandon(const struct rk_pass *pass, const char *why);

/* ---- proof_keys.c */

void rk_pass_digest(struct rk_pass *pass);
/* Which key each name writes under, and how many are destroyed, of the names that have a key up to
 * *up_to; 0: all, and it becomes the highest id. */
RK_MUST_CHECK enum rk_status rk_pass_keys(const struct rk_lease *lease, int64_t *up_to,
                                          char digest[RK_DIGEST_LEN], struct rk_error *err);

/* ---- proof_part.c: one collection of a pass */

struct rk_pass_uuid {
    uint8_t bytes[16]; /* zeros: there is no collection, or it has none */
};
RK_MUST_CHECK enum rk_status rk_pass_uuid(mongoc_client_t *client, const struct rk_ns *ns,
                                          struct rk_pass_uuid *uuid, struct rk_error *err);

/* Counts all of a collection into part, going on where the pass was, also where it was before a
 * failure. uuid: of the collection. */
RK_MUST_CHECK enum rk_status rk_pass_part(struct rk_pass *pass, const struct rk_ns *ns,
                                          const struct rk_pass_uuid *uuid,
                                          struct rk_proof_part *part, struct rk_error *err);

/* ---- proof_store.c */

/* Writes what was found into the document of the pass. */
RK_MUST_CHECK enum rk_status rk_pass_complete(const struct rk_pass *pass, struct rk_proof *proof,
                                              struct rk_error *err);

#endif
