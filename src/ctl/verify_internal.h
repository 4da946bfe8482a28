/* What the files of rekeyctl verify share. */
#ifndef REKEY_CTL_VERIFY_INTERNAL_H
#define REKEY_CTL_VERIFY_INTERNAL_H

#include "jobs_internal.h"

#include <rekey/jobs/proof.h>

struct rk_ctl_verified {
    const struct rk_proof *proof;
    uint32_t current_key; /* of the name "default" */
    int64_t jobs;         /* signed off */
};
enum rk_ctl_exit rk_ctl_print_verified(const struct rk_ctl *ctl,
                                       const struct rk_ctl_verified *verified);

#endif
