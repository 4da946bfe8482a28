/* AES-256-SIV; see siv_internal.h for why it is not OpenSSL's own. */
#include "siv_internal.h"

#include <openssl/crypto.h>
#include <string.h>

static bool encrypt_block(EVP_CIPHER_CTX *ecb, uint8_t block[RK_BLOCK_LEN])
{
    int len = 0;
    return EVP_EncryptUpdate(ecb, block, &len, block, RK_BLOCK_LEN) == 1;
}

/*
 * CMAC (RFC 4493) of in xorend d (RFC 5297, section 2.1): d is xored into the last 16 bytes of
 * in, so len >= 16 unless d is NULL (none). The message is never copied: all blocks that d does
 * not reach are chained straight from in, the last 17 to 32 bytes go through tail.
 */
static bool cmac(struct rk_siv *siv, const uint8_t *in, size_t len, const uint8_t *d,
                 uint8_t mac[RK_BLOCK_LEN])
{
    uint8_t tail[2 * RK_BLOCK_LEN] = {0};
    size_t tail_len = len <= sizeof tail ? len : RK_BLOCK_LEN + (len - 1) % RK_BLOCK_LEN + 1;
    const uint8_t *end = len > tail_len ? in + (len - tail_len) : in;
    bool ok = true;

    memset(mac, 0, RK_BLOCK_LEN);
    for (; in != end && ok; in += RK_BLOCK_LEN) {
        rk_block_xor(mac, in);
        ok = encrypt_block(siv->ecb, mac);
    }
    if (tail_len > 0) {
        memcpy(tail, end, tail_len);
    }
    if (d != NULL) {
        rk_block_xor(tail + tail_len - RK_BLOCK_LEN, d);
    }
    uint8_t *last = tail;
    if (tail_len > RK_BLOCK_LEN) {
        rk_block_xor(mac, tail);
        ok = ok && encrypt_block(siv->ecb, mac);
        last += RK_BLOCK_LEN;
        tail_len -= RK_BLOCK_LEN;
    }
    if (tail_len == RK_BLOCK_LEN) {
        rk_block_xor(last, siv->cmac_k1);
    } else {
        last[tail_len] = 0x80;
        rk_block_xor(last, siv->cmac_k2);
    }
    rk_block_xor(mac, last);
    ok = ok && encrypt_block(siv->ecb, mac);
    OPENSSL_cleanse(tail, sizeof tail);
    return ok;
}

/* RFC 5297, section 2.4, with two strings: the associated data (empty counts) and the plaintext. */
static bool s2v(struct rk_siv *siv, const uint8_t *aad, size_t aad_len, const uint8_t *in,
                size_t len, uint8_t v[RK_SIV_TAG_LEN])
{
    uint8_t d[RK_BLOCK_LEN];
    uint8_t mac[RK_BLOCK_LEN];
    if (!cmac(siv, aad, aad_len, NULL, mac)) {
        return false;
    }
    memcpy(d, siv->cmac_zero, sizeof d);
    rk_block_double(d);
    rk_block_xor(d, mac);
    bool ok;
    if (len >= RK_BLOCK_LEN) {
        ok = cmac(siv, in, len, d, v);
    } else {
        uint8_t padded[RK_BLOCK_LEN] = {0};
        if (len > 0) {
            memcpy(padded, in, len);
        }
        padded[len] = 0x80;
        rk_block_double(d);
        rk_block_xor(d, padded);
        ok = cmac(siv, d, sizeof d, NULL, v);
        OPENSSL_cleanse(padded, sizeof padded);
    }
    OPENSSL_cleanse(d, sizeof d);
    return ok;
}

/* CTR from the synthetic IV with bits 31 and 63 cleared (RFC 5297, section 2.5). */
static bool crypt_ctr(struct rk_siv *siv, const uint8_t v[RK_SIV_TAG_LEN], const uint8_t *in,
                      size_t len, uint8_t *out)
{
    uint8_t q[RK_BLOCK_LEN];
    int n = 0;
    memcpy(q, v, sizeof q);
    q[8] &= 0x7F;
    q[12] &= 0x7F;
    return len == 0 || (EVP_EncryptInit_ex(siv->ctr, NULL, NULL, NULL, q) == 1 &&
                        EVP_EncryptUpdate(siv->ctr, out, &n, in, (int)len) == 1 && n == (int)len);
}

enum rk_status rk_siv_init(struct rk_siv *siv)
{
    *siv = (struct rk_siv){.ecb = EVP_CIPHER_CTX_new(), .ctr = EVP_CIPHER_CTX_new()};
    return siv->ecb != NULL && siv->ctr != NULL ? RK_OK : RK_ENOMEM;
}

void rk_siv_deinit(struct rk_siv *siv)
{
    EVP_CIPHER_CTX_free(siv->ecb);
    EVP_CIPHER_CTX_free(siv->ctr);
    OPENSSL_cleanse(siv, sizeof *siv);
}

void rk_siv_forget(struct rk_siv *siv)
{
    (void)EVP_CIPHER_CTX_reset(siv->ecb);
    (void)EVP_CIPHER_CTX_reset(siv->ctr);
    OPENSSL_cleanse(siv->cmac_k1, sizeof siv->cmac_k1);
    OPENSSL_cleanse(siv->cmac_k2, sizeof siv->cmac_k2);
    OPENSSL_cleanse(siv->cmac_zero, sizeof siv->cmac_zero);
}

enum rk_status rk_siv_set_key(struct rk_siv *siv, const EVP_CIPHER *ecb, const EVP_CIPHER *ctr,
                              const uint8_t key[RK_SIV_KEY_LEN])
{
    static const uint8_t zero[RK_BLOCK_LEN];
    memset(siv->cmac_k1, 0, sizeof siv->cmac_k1);
    if (EVP_EncryptInit_ex(siv->ecb, ecb, NULL, key, NULL) != 1 ||
        EVP_CIPHER_CTX_set_padding(siv->ecb, 0) != 1 ||
        EVP_EncryptInit_ex(siv->ctr, ctr, NULL, key + RK_SIV_KEY_LEN / 2, zero) != 1 ||
        !encrypt_block(siv->ecb, siv->cmac_k1)) {
        return RK_ENOMEM;
    }
    rk_block_double(siv->cmac_k1);
    memcpy(siv->cmac_k2, siv->cmac_k1, sizeof siv->cmac_k2);
    rk_block_double(siv->cmac_k2);
    return cmac(siv, zero, sizeof zero, NULL, siv->cmac_zero) ? RK_OK : RK_ENOMEM;
}

enum rk_status rk_siv_seal(struct rk_siv *siv, const uint8_t *aad, size_t aad_len,
                           const uint8_t *in, size_t len, uint8_t tag[RK_SIV_TAG_LEN], uint8_t *out)
{
    bool ok = s2v(siv, aad, aad_len, in, len, tag) && crypt_ctr(siv, tag, in, len, out);
    return ok ? RK_OK : RK_ENOMEM;
}

enum rk_status rk_siv_open(struct rk_siv *siv, const uint8_t *aad, size_t aad_len,
                           const uint8_t tag[RK_SIV_TAG_LEN], const uint8_t *in, size_t len,
                           uint8_t *out)
{
    uint8_t v[RK_SIV_TAG_LEN];
    enum rk_status status = RK_OK;
    if (!crypt_ctr(siv, tag, in, len, out) || !s2v(siv, aad, aad_len, out, len, v)) {
        status = RK_ENOMEM;
    } else if (CRYPTO_memcmp(v, tag, sizeof v) != 0) {
        status = RK_EAUTH;
    }
    if (status != RK_OK && len > 0) {
        OPENSSL_cleanse(out, len);
    }
    return status;
}
