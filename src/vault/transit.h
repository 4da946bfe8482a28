/*
 * Vault's transit engine, blocking: what the provider asks of it.
 */
#ifndef REKEY_VAULT_TRANSIT_H
#define REKEY_VAULT_TRANSIT_H

#include <rekey/crypto/data_key.h>
#include <rekey/vault/client.h>

struct rk_transit {
    struct rk_vault_client *client;
    const char *mount;
    const char *key;
};

/* "vault:v<version>:<base64>" */
struct rk_transit_text {
    char bytes[512];
    size_t len;
    unsigned version;
};

/* A fresh data key and what wraps it. */
RK_MUST_CHECK enum rk_status rk_transit_data_key(const struct rk_transit *transit,
                                                 uint8_t root[RK_DATA_KEY_LEN],
                                                 struct rk_transit_text *wrapped,
                                                 struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_transit_decrypt(const struct rk_transit *transit,
                                                const struct rk_transit_text *wrapped,
                                                uint8_t root[RK_DATA_KEY_LEN],
                                                struct rk_error *err);
/* A new version of the key itself, of which later calls take the newest. */
RK_MUST_CHECK enum rk_status rk_transit_rotate(const struct rk_transit *transit,
                                               struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_transit_encrypt(const struct rk_transit *transit,
                                                const uint8_t plain[RK_DATA_KEY_LEN],
                                                struct rk_transit_text *text, struct rk_error *err);
/* Under the key's newest version; *text is both the old and the new one. */
RK_MUST_CHECK enum rk_status rk_transit_rewrap(const struct rk_transit *transit,
                                               struct rk_transit_text *text, struct rk_error *err);

#endif
