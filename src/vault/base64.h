#ifndef REKEY_VAULT_BASE64_H
#define REKEY_VAULT_BASE64_H

#include <rekey/crypto/data_key.h>
#include <stdbool.h>
#include <stddef.h>

/* Exactly the base64 of a key's bytes; leaves nothing on the stack. */
bool rk_base64_key(const char *text, size_t len, uint8_t key[RK_DATA_KEY_LEN]);

#endif
