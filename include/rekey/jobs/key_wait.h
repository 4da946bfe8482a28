/*
 * Loading a key, or having its provider seal and open values, from a thread that may block.
 */
#ifndef REKEY_JOBS_KEY_WAIT_H
#define REKEY_JOBS_KEY_WAIT_H

#include <rekey/keys/service.h>
#include <rekey/policy/policy.h>

/* Loads a key and waits for it. RK_OK, RK_ENOENT (it does not exist),
 * RK_EIO (registry or provider failed), RK_ESTATE (*cancel became true). */
RK_MUST_CHECK enum rk_status rk_key_wait(struct rk_key_service *keys, uint32_t key_id,
                                         const _Atomic bool *cancel, struct rk_error *err);
/* The same for the current key of that name. */
RK_MUST_CHECK enum rk_status rk_key_wait_name(struct rk_key_service *keys, const char *name,
                                              const _Atomic bool *cancel, struct rk_error *err);
/* The same for the current keys of all names that the policy gives to its fields. */
RK_MUST_CHECK enum rk_status rk_key_wait_policy(struct rk_key_service *keys,
                                                const struct rk_policy *policy,
                                                const _Atomic bool *cancel, struct rk_error *err);

/* Of one batch's questions and answers (rk_remote_new): a batch is one reply of mongod's. */
#define RK_JOBS_REMOTE_BYTES_MAX (192u << 20)

/* Has the provider answer what was promised in *remote, and waits for it. RK_OK; RK_EIO (may pass),
 * RK_EREFUSED and the like; RK_ESTATE (*cancel became true): *remote is then NULL and freed later.
 */
RK_MUST_CHECK enum rk_status rk_values_wait(struct rk_key_service *keys, struct rk_remote **remote,
                                            const _Atomic bool *cancel, struct rk_error *err);

#endif
