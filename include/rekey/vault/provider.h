/*
 * The vault provider (see rekey/keys/provider.h): data keys come from Vault's transit engine,
 * datakey/plaintext, and are unwrapped by its decrypt. The key-encryption key never leaves Vault.
 *
 * A wrapped key is: check 16 | Vault's ciphertext ("vault:v1:..."). check is the start of
 * HMAC-SHA256(data key, "rekey key check v1" | key id, 4 bytes little-endian): what Vault wraps
 * does not say which record it belongs to, and a wrapped key that was moved to another id's record
 * must not be used there. kek is "<mount>/<key>:v<version>".
 *
 * In transit mode a data key is one version of Vault's own key: making one rotates it. What is
 * wrapped is then no key but a text that names the key's id, which shows that this Vault still has
 * the version (check is zero). Values under it go to Vault (rekey/crypto/remote.h).
 */
#ifndef REKEY_VAULT_PROVIDER_H
#define REKEY_VAULT_PROVIDER_H

#include <rekey/keys/provider.h>
#include <rekey/vault/client.h>

/* config must outlive the provider. Does not wait for Vault. */
RK_MUST_CHECK enum rk_status rk_vault_open(const struct rk_config_vault *config,
                                           struct rk_provider *out, struct rk_error *err);

/* The provider that keys.provider names. */
RK_MUST_CHECK enum rk_status rk_provider_open(const struct rk_config_keys *config,
                                              struct rk_provider *out, struct rk_error *err);

#endif
