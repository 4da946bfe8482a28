/*
 * Data keys from the keys of the algorithms themselves, without HKDF: what rk_data_key_new comes
 * down to, and how tests put published vectors through the public functions.
 */
#ifndef REKEY_CRYPTO_DATA_KEY_INTERNAL_H
#define REKEY_CRYPTO_DATA_KEY_INTERNAL_H

#include <rekey/crypto/data_key.h>

RK_MUST_CHECK enum rk_status rk_data_key_new_raw(uint32_t id, const uint8_t xaes[RK_XAES_KEY_LEN],
                                                 const uint8_t siv[RK_SIV_KEY_LEN],
                                                 uint32_t activated_at_s, struct rk_data_key **out,
                                                 struct rk_error *err);

#endif
