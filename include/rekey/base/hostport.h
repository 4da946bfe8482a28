/* "host:port" as MongoDB spells addresses: names, IPv4, and IPv6 in brackets. */
#ifndef REKEY_BASE_HOSTPORT_H
#define REKEY_BASE_HOSTPORT_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>

struct rk_hostport {
    char host[256]; /* without brackets */
    char port[6];
};

/* False unless text is a host, a colon and a port from 1 to 65535. */
RK_MUST_CHECK bool rk_hostport_parse(const char *text, struct rk_hostport *out);

#endif
