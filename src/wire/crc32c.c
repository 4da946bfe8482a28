/*
 * CRC-32C, reflected polynomial 0x82F63B78 (RFC 3720, appendix B.4), eight bytes a step with
 * eight tables ("slicing by 8", Kounavis and Berry 2005): a checksummed message of 48 MB must not
 * hold up the other sessions of its worker.
 */
#include <rekey/wire/msg.h>

#include <pthread.h>

#define POLYNOMIAL 0x82F63B78u
#define SLICES 8u

/* tables[n][b]: the CRC of byte b followed by n zero bytes. */
static uint32_t tables[SLICES][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1u)));
        }
        tables[0][b] = crc;
    }
    for (uint32_t n = 1; n < SLICES; n++) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = tables[n - 1][b];
            tables[n][b] = (crc >> 8) ^ tables[0][crc & 0xFF];
        }
    }
}

static uint32_t eight_bytes(uint32_t crc, const uint8_t *data)
{
    uint32_t low = rk_load_u32(data) ^ crc;
    uint32_t high = rk_load_u32(data + 4);
    return tables[7][low & 0xFF] ^ tables[6][(low >> 8) & 0xFF] ^ tables[5][(low >> 16) & 0xFF] ^
           tables[4][low >> 24] ^ tables[3][high & 0xFF] ^ tables[2][(high >> 8) & 0xFF] ^
           tables[1][(high >> 16) & 0xFF] ^ tables[0][high >> 24];
}

uint32_t rk_crc32c(const uint8_t *data, size_t len)
{
    (void)pthread_once(&tables_once, make_tables);
    uint32_t crc = 0xFFFFFFFFu;
    for (; len >= 8; data += 8, len -= 8) {
        crc = eight_bytes(crc, data);
    }
    for (; len > 0; data++, len--) {
        crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 0xFF];
    }
    return ~crc;
}
