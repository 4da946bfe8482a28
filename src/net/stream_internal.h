/* What the kinds of streams share: reading straight from the socket. */
#ifndef REKEY_NET_STREAM_INTERNAL_H
#define REKEY_NET_STREAM_INTERNAL_H

#include <rekey/net/stream.h>

enum rk_io rk_stream_read_socket(struct rk_stream *stream, void *buf, size_t cap, size_t *n);

#endif
