/*
 * What comes before a stream's own handshake: the PROXY header of a load balancer, TLS inside of
 * which only begins behind it.
 */
#ifndef REKEY_NET_PROLOGUE_H
#define REKEY_NET_PROLOGUE_H

#include <rekey/net/socket.h>
#include <rekey/net/stream.h>

/*
 * The stream's handshake first takes a PROXY header of at most header_max bytes off the socket and
 * puts the client's address, where the header has one, into peer (which outlives the stream).
 * Costs memory only until then. RK_ENOMEM leaves the stream as it was.
 */
RK_MUST_CHECK enum rk_status rk_stream_expect_proxy(struct rk_stream *stream, uint32_t header_max,
                                                    char peer[RK_PEER_MAX]);

#endif
