/* Hexadecimal text for test vectors. */
#ifndef REKEY_TESTS_CRYPTO_HEX_H
#define REKEY_TESTS_CRYPTO_HEX_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Decodes digits characters (an even number) of hex; returns the number of bytes. */
static inline size_t unhex_n(const char *hex, size_t digits, uint8_t *out, size_t out_max)
{
    assert(digits % 2 == 0 && digits / 2 <= out_max);
    for (size_t i = 0; i < digits / 2; i++) {
        unsigned byte = 0;
        int n = sscanf(hex + 2 * i, "%2x", &byte);
        assert(n == 1);
        (void)n;
        out[i] = (uint8_t)byte;
    }
    (void)out_max;
    return digits / 2;
}

static inline size_t unhex(const char *hex, uint8_t *out, size_t out_max)
{
    return unhex_n(hex, strlen(hex), out, out_max);
}

#endif
