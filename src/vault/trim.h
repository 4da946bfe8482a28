/*
 * Raising min_decryption_version of the transit key (developer.hashicorp.com/vault/api-docs/secret/
 * transit#update-key-configuration), so that nothing wrapped with a former version can be unwrapped
 * any more. Blocking.
 */
#ifndef REKEY_VAULT_TRIM_H
#define REKEY_VAULT_TRIM_H

#include "transit.h"

#include <rekey/keys/provider.h>

/* As rk_provider_ops.trim. */
RK_MUST_CHECK enum rk_status rk_transit_trim(const struct rk_transit *transit, const char *past,
                                             const struct rk_needed_key *needed, size_t n,
                                             char *note, size_t size, struct rk_error *err);

#endif
