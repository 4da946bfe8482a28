/* CRC-32C, reflected polynomial 0x82F63B78 (RFC 3720, appendix B.4). Checksummed messages are
 * rare, so a bit at a time is fast enough. */
#include <rekey/wire/msg.h>

static uint32_t step(uint32_t crc, uint8_t byte)
{
    crc ^= byte;
    for (int i = 0; i < 8; i++) {
        crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
    }
    return crc;
}

uint32_t rk_crc32c(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < len; i++) {
        crc = step(crc, data[i]);
    }
    return ~crc;
}
