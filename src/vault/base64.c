#include "base64.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#define BASE64_LEN 44u /* of 32 bytes, with one '=' */

bool rk_base64_key(const char *text, size_t len, uint8_t key[RK_DATA_KEY_LEN])
{
    uint8_t decoded[BASE64_LEN / 4 * 3];
    bool ok =
        len == BASE64_LEN && text[BASE64_LEN - 2] != '=' && text[BASE64_LEN - 1] == '=' &&
        EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)len) == (int)sizeof decoded;
    if (ok) {
        memcpy(key, decoded, RK_DATA_KEY_LEN);
    }
    OPENSSL_cleanse(decoded, sizeof decoded);
    return ok;
}
