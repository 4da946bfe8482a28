/* RFC 4648, section 4: the standard alphabet with padding, as Vault writes it. */
#ifndef REKEY_VAULT_BASE64_H
#define REKEY_VAULT_BASE64_H

#include <rekey/base/buf.h>
#include <rekey/crypto/data_key.h>
#include <stdbool.h>

/* Exactly the base64 of a key's bytes; leaves nothing on the stack. */
bool rk_base64_key(const char *text, size_t len, uint8_t key[RK_DATA_KEY_LEN]);

/* Appends the text, without a closing NUL. */
RK_MUST_CHECK enum rk_status rk_base64_encode(const uint8_t *data, size_t len, struct rk_buf *out);
/* Appends the bytes. RK_EINVAL: no base64. */
RK_MUST_CHECK enum rk_status rk_base64_decode(const char *text, size_t len, struct rk_buf *out);

#endif
