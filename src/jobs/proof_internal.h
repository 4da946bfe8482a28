/* What the parts of proofs share. */
#ifndef REKEY_JOBS_PROOF_INTERNAL_H
#define REKEY_JOBS_PROOF_INTERNAL_H

#include <mongoc/mongoc.h>
#include <rekey/jobs/proof.h>

/* Writes the proof, whose times but the end are set. */
RK_MUST_CHECK enum rk_status rk_proof_store(mongoc_client_t *client, const char *state_db,
                                            const char *actor, struct rk_proof *proof,
                                            struct rk_error *err);

#endif
