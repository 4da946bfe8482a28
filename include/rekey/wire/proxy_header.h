/*
 * The header that a load balancer puts in front of a connection: PROXY protocol, version 2
 * (haproxy.org, doc/proxy-protocol.txt, section 2.2). Version 1, the line of text, is refused.
 *
 *   12 bytes   signature
 *    1         version (2) and command (0 LOCAL, 1 PROXY)
 *    1         address family (0 none, 1 IPv4, 2 IPv6, 3 Unix) and transport (1 stream)
 *    2         length of what follows, big-endian: addresses (12, 36 or 216 bytes), then TLVs
 */
#ifndef REKEY_WIRE_PROXY_HEADER_H
#define REKEY_WIRE_PROXY_HEADER_H

#include <rekey/base/status.h>
#include <rekey/wire/frame.h>
#include <sys/socket.h>

#define RK_PROXY_HEAD_LEN 16u
#define RK_PROXY_LEN_MAX (RK_PROXY_HEAD_LEN + 65535u)
/* As much of a header as the parser ever looks at: with Unix addresses. */
#define RK_PROXY_SEEN_MAX (RK_PROXY_HEAD_LEN + 216u)

struct rk_proxy_header {
    uint32_t len; /* of the whole header; TLVs are not looked at */
    bool has_source;
    struct sockaddr_storage source; /* the client; without it the connection speaks for itself */
    socklen_t source_len;
};

/*
 * avail: of data. RK_PARSE_INCOMPLETE: *need bytes (at most RK_PROXY_SEEN_MAX) must be there from
 * the start of the header; never read more of a socket, TLS may follow. RK_PARSE_MALFORMED: *why is
 * a constant.
 */
RK_MUST_CHECK enum rk_parse rk_proxy_header_parse(const uint8_t *data, size_t avail,
                                                  struct rk_proxy_header *out, size_t *need,
                                                  const char **why);

/* Is this (four bytes or more, as far as there are any) the start of a PROXY header of either
 * version? For telling why a connection on which none is expected cannot be understood. */
bool rk_proxy_header_begins(const uint8_t *data, size_t avail);

#endif
