/* What the readers of legacy values share. */
#ifndef REKEY_CRYPTO_LEGACY_INTERNAL_H
#define REKEY_CRYPTO_LEGACY_INTERNAL_H

#include <rekey/crypto/legacy.h>

/* ---- legacy.c */

/* Appends plaintext bytes as the BSON value of type (string or binary). RK_EAUTH: a string that is
 * no UTF-8. */
RK_MUST_CHECK enum rk_status rk_legacy_put(uint8_t bson_type, const uint8_t *plain, size_t len,
                                           struct rk_buf *out);

/* ---- legacy_transit.c: RK_LEGACY_VAULT_TRANSIT */

bool rk_legacy_transit_matches(const struct rk_legacy_format *format, uint8_t bson_type,
                               const uint8_t *value, size_t value_len);
RK_MUST_CHECK enum rk_status rk_legacy_transit_open(struct rk_remote *remote,
                                                    const struct rk_legacy_format *format,
                                                    const uint8_t *value, size_t value_len,
                                                    struct rk_buf *out);

#endif
