/* Addresses: "host:port" as MongoDB spells it (names, IPv4, and IPv6 in brackets), or the absolute
 * path of a Unix socket. */
#ifndef REKEY_BASE_HOSTPORT_H
#define REKEY_BASE_HOSTPORT_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>

/* Longest path of a Unix socket that Linux takes, its NUL included (unix(7), sun_path). */
#define RK_SOCKET_PATH_MAX 108u

struct rk_hostport {
    char host[256]; /* without brackets */
    char port[6];
};

/* False unless text is a host, a colon and a port from 1 to 65535. */
RK_MUST_CHECK bool rk_hostport_parse(const char *text, struct rk_hostport *out);

static inline bool rk_address_is_path(const char *text)
{
    return text[0] == '/';
}

#endif
