/*
 * Keys from before Rekey that lie in Vault's kv engine, of either version. Blocking.
 */
#ifndef REKEY_VAULT_LEGACY_H
#define REKEY_VAULT_LEGACY_H

#include <rekey/crypto/legacy.h>
#include <rekey/vault/client.h>

/* All of config->legacy, in its order; their names are the configuration's. */
RK_MUST_CHECK enum rk_status rk_vault_legacy_load(struct rk_vault_client *client,
                                                  const struct rk_config_vault *config,
                                                  struct rk_legacy_key **out, struct rk_error *err);
void rk_vault_legacy_free(struct rk_legacy_key *keys, size_t n);

#endif
