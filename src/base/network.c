#include <rekey/base/network.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define V4_OFFSET 12u /* of the address in ::ffff:a.b.c.d */
#define V4_BITS 96u

static const uint8_t v4_mapped[V4_OFFSET] = {[10] = 0xFF, [11] = 0xFF};

static bool parse_prefix(const char *text, unsigned max, unsigned *out)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 3 || text[n] != '\0') {
        return false;
    }
    *out = (unsigned)strtoul(text, NULL, 10);
    return *out <= max;
}

/* Are the first bits of both the same? With b NULL: are all bits of a behind them 0? */
static bool same_bits(const uint8_t a[16], const uint8_t *b, unsigned bits)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned here = bits <= i * 8 ? 0 : bits - i * 8 >= 8 ? 8 : bits - i * 8;
        uint8_t mask = (uint8_t)(0xFF00u >> here);
        uint8_t differ = b != NULL ? (uint8_t)((a[i] ^ b[i]) & mask) : (uint8_t)(a[i] & ~mask);
        if (differ != 0) {
            return false;
        }
    }
    return true;
}

bool rk_network_parse(const char *text, struct rk_network *out)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (len >= sizeof address) {
        return false;
    }
    memcpy(address, text, len);
    address[len] = '\0';
    *out = (struct rk_network){.prefix = 128};
    unsigned above = 0; /* bits of the written address that are not part of its prefix length */
    if (inet_pton(AF_INET, address, out->address + V4_OFFSET) == 1) {
        memcpy(out->address, v4_mapped, sizeof v4_mapped);
        above = V4_BITS;
    } else if (inet_pton(AF_INET6, address, out->address) != 1) {
        return false;
    }
    if (slash != NULL) {
        unsigned prefix;
        if (!parse_prefix(slash + 1, 128 - above, &prefix)) {
            return false;
        }
        out->prefix = prefix + above;
    }
    return same_bits(out->address, NULL, out->prefix);
}

bool rk_network_contains(const struct rk_network *network, const struct sockaddr_storage *addr)
{
    uint8_t bytes[16];
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)addr;
        memcpy(bytes, v4_mapped, sizeof v4_mapped);
        memcpy(bytes + V4_OFFSET, &four->sin_addr, 4);
    } else if (addr->ss_family == AF_INET6) {
        memcpy(bytes, &((const struct sockaddr_in6 *)addr)->sin6_addr, 16);
    } else {
        return false;
    }
    return same_bits(network->address, bytes, network->prefix);
}
