/* Networks of IP addresses as operators write them: "10.0.0.0/8", "2001:db8::/32", "192.0.2.1". */
#ifndef REKEY_BASE_NETWORK_H
#define REKEY_BASE_NETWORK_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <sys/socket.h>

struct rk_network {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned prefix;     /* bits, of 128 */
};

/* False unless text is an address, or an address and a prefix length without bits behind it. */
RK_MUST_CHECK bool rk_network_parse(const char *text, struct rk_network *out);

/* False for families other than IPv4 and IPv6. */
bool rk_network_contains(const struct rk_network *network, const struct sockaddr_storage *addr);

#endif
