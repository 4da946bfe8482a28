/* Arithmetic on 16-byte blocks that XAES-256-GCM and AES-SIV share. */
#ifndef REKEY_CRYPTO_BLOCK_INTERNAL_H
#define REKEY_CRYPTO_BLOCK_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#define RK_BLOCK_LEN 16u

static inline void rk_block_xor(uint8_t block[RK_BLOCK_LEN], const uint8_t other[RK_BLOCK_LEN])
{
    for (size_t i = 0; i < RK_BLOCK_LEN; i++) {
        block[i] ^= other[i];
    }
}

/* Multiplication by x in GF(2^128), as CMAC (RFC 4493, section 2.3) and S2V define it. No branch
 * depends on the secret bits. */
static inline void rk_block_double(uint8_t block[RK_BLOCK_LEN])
{
    uint8_t carry = 0;
    for (size_t i = RK_BLOCK_LEN; i-- > 0;) {
        uint8_t next = (uint8_t)(block[i] >> 7);
        block[i] = (uint8_t)((block[i] << 1) | carry);
        carry = next;
    }
    block[RK_BLOCK_LEN - 1] ^= (uint8_t)(0x87u & (0u - carry));
}

#endif
