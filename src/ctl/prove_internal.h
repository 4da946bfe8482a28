/*
 * Scans, as rekeyctl makes them: with the configuration's settings, and progress on a terminal.
 */
#ifndef REKEY_CTL_PROVE_INTERNAL_H
#define REKEY_CTL_PROVE_INTERNAL_H

#include <rekey/ctl/ctl.h>
#include <rekey/jobs/proof.h>

/* A request with all that does not differ from command to command. */
struct rk_proof_request rk_ctl_proof_request(const struct rk_ctl *ctl);

/* rk_proof_make. */
RK_MUST_CHECK enum rk_status rk_ctl_prove(const struct rk_ctl *ctl, struct _mongoc_client_t *client,
                                          struct rk_proof_request *request, struct rk_proof *proof,
                                          struct rk_error *err);

#endif
