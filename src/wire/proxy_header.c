#include <rekey/wire/proxy_header.h>

#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#define VERSION_2 0x20u
#define COMMAND_LOCAL 0x0u
#define COMMAND_PROXY 0x1u
#define FAMILY_NONE 0x00u
#define TCP_OVER_V4 0x11u
#define TCP_OVER_V6 0x21u
#define UNIX_STREAM 0x31u
#define UNIX_PATH_LEN 108u
#define PREFIX_MIN 4u

static const uint8_t signature[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D,
                                      0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};
static const char version_1[] = "PROXY ";

static enum rk_parse malformed(const char **why, const char *text)
{
    *why = text;
    return RK_PARSE_MALFORMED;
}

static bool begins(const uint8_t *data, size_t avail, const void *start, size_t len)
{
    return memcmp(data, start, avail < len ? avail : len) == 0;
}

bool rk_proxy_header_begins(const uint8_t *data, size_t avail)
{
    return avail >= PREFIX_MIN && (begins(data, avail, signature, sizeof signature) ||
                                   begins(data, avail, version_1, sizeof version_1 - 1));
}

static enum rk_parse check_signature(const uint8_t *data, size_t avail, const char **why)
{
    if (begins(data, avail, signature, sizeof signature)) {
        return avail >= sizeof signature ? RK_PARSE_OK : RK_PARSE_INCOMPLETE;
    }
    if (!begins(data, avail, version_1, sizeof version_1 - 1)) {
        return malformed(why, "no PROXY header, which listener.proxy_protocol requires");
    }
    return avail < sizeof version_1 - 1
               ? RK_PARSE_INCOMPLETE
               : malformed(why, "PROXY header of version 1; the load balancer must send version 2 "
                                "(HAProxy: send-proxy-v2)");
}

/* Bytes of the addresses of this family and transport; false when it is none for a stream. */
static bool addresses_len(uint8_t family, size_t *len)
{
    switch (family) {
    case FAMILY_NONE:
        *len = 0;
        return true;
    case TCP_OVER_V4:
        *len = 12;
        return true;
    case TCP_OVER_V6:
        *len = 36;
        return true;
    case UNIX_STREAM:
        *len = 2u * UNIX_PATH_LEN;
        return true;
    default:
        return false;
    }
}

/* Source address, destination address, source port, destination port. */
static void read_source(uint8_t family, const uint8_t *p, struct rk_proxy_header *out)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&out->source;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&out->source;
    struct sockaddr_un *path = (struct sockaddr_un *)&out->source;
    out->has_source = family != FAMILY_NONE;
    if (family == TCP_OVER_V4) {
        four->sin_family = AF_INET;
        memcpy(&four->sin_addr, p, 4);
        memcpy(&four->sin_port, p + 8, 2);
        out->source_len = sizeof *four;
    } else if (family == TCP_OVER_V6) {
        six->sin6_family = AF_INET6;
        memcpy(&six->sin6_addr, p, 16);
        memcpy(&six->sin6_port, p + 32, 2);
        out->source_len = sizeof *six;
    } else if (family == UNIX_STREAM) {
        path->sun_family = AF_UNIX;
        memcpy(path->sun_path, p, UNIX_PATH_LEN);
        out->source_len = sizeof *path;
    }
}

enum rk_parse rk_proxy_header_parse(const uint8_t *data, size_t avail, struct rk_proxy_header *out,
                                    size_t *need, const char **why)
{
    size_t addresses = 0;
    *out = (struct rk_proxy_header){.len = 0};
    *need = RK_PROXY_HEAD_LEN;
    enum rk_parse parse = check_signature(data, avail, why);
    if (parse == RK_PARSE_MALFORMED || avail < RK_PROXY_HEAD_LEN) {
        return parse == RK_PARSE_MALFORMED ? parse : RK_PARSE_INCOMPLETE;
    }
    uint8_t command = data[12] & 0x0Fu;
    if ((data[12] & 0xF0u) != VERSION_2) {
        return malformed(why, "PROXY header of an unknown version");
    }
    if (command != COMMAND_LOCAL && command != COMMAND_PROXY) {
        return malformed(why, "PROXY header with an unknown command");
    }
    uint32_t rest = (uint32_t)data[14] << 8 | data[15];
    out->len = RK_PROXY_HEAD_LEN + rest;
    if (command == COMMAND_LOCAL) {
        return RK_PARSE_OK; /* "must discard the protocol block including the family" */
    }
    if (!addresses_len(data[13], &addresses)) {
        return malformed(why, "PROXY header of an address family or transport that is no stream's");
    }
    if (rest < addresses) {
        return malformed(why, "PROXY header that is too short for its addresses");
    }
    *need = RK_PROXY_HEAD_LEN + addresses;
    if (avail < *need) {
        return RK_PARSE_INCOMPLETE;
    }
    read_source(data[13], data + RK_PROXY_HEAD_LEN, out);
    return RK_PARSE_OK;
}
