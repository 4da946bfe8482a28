#include <rekey/net/prologue.h>

#include "stream_internal.h"

#include <rekey/wire/proxy_header.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

struct rk_prologue {
    const struct rk_stream_ops *inner; /* the stream's own */
    uint32_t header_max;
    char *peer;
    uint32_t left; /* of the header, once it is parsed: to be skipped */
    bool parsed;
    size_t have;
    size_t need;
    uint8_t bytes[RK_PROXY_SEEN_MAX];
};

/* Gives the stream back its own ops; the header is done with. */
static void leave(struct rk_stream *stream)
{
    struct rk_prologue *prologue = stream->prologue;
    stream->ops = prologue->inner;
    stream->prologue = NULL;
    free(prologue);
}

static enum rk_io refuse(struct rk_stream *stream, const char *why)
{
    (void)snprintf(stream->why, sizeof stream->why, "%s", why);
    return RK_IO_FAIL;
}

/* An end is no good end here. */
static enum rk_io read_some(struct rk_stream *stream, void *buf, size_t cap, size_t *n)
{
    enum rk_io io = rk_stream_read_socket(stream, buf, cap, n);
    return io == RK_IO_EOF ? refuse(stream, "closed before the end of the PROXY header") : io;
}

static void note_peer(const struct rk_prologue *prologue, const struct rk_proxy_header *header)
{
    if (!header->has_source) {
        return;
    }
    if (header->source.ss_family == AF_UNIX) {
        const struct sockaddr_un *path = (const struct sockaddr_un *)&header->source;
        (void)snprintf(prologue->peer, RK_PEER_MAX, "unix:%.*s", (int)sizeof path->sun_path,
                       path->sun_path);
    } else {
        rk_peer_format(-1, &header->source, header->source_len, prologue->peer);
    }
}

static enum rk_io parse(struct rk_stream *stream)
{
    struct rk_prologue *prologue = stream->prologue;
    struct rk_proxy_header header;
    const char *why = NULL;
    switch (
        rk_proxy_header_parse(prologue->bytes, prologue->have, &header, &prologue->need, &why)) {
    case RK_PARSE_INCOMPLETE:
        return RK_IO_WAIT;
    case RK_PARSE_MALFORMED:
        return refuse(stream, why);
    case RK_PARSE_OK:
        break;
    }
    if (header.len > prologue->header_max) {
        return refuse(stream, "PROXY header longer than listener.proxy_header_bytes_max");
    }
    note_peer(prologue, &header);
    prologue->parsed = true;
    prologue->left = header.len - (uint32_t)prologue->have;
    return RK_IO_OK;
}

static enum rk_io proxy_handshake(struct rk_stream *stream)
{
    struct rk_prologue *prologue = stream->prologue;
    uint8_t skipped[256];
    size_t n = 0;
    while (!prologue->parsed) {
        enum rk_io io = read_some(stream, prologue->bytes + prologue->have,
                                  prologue->need - prologue->have, &n);
        if (io != RK_IO_OK) {
            return io;
        }
        prologue->have += n;
        io = parse(stream);
        if (io == RK_IO_FAIL) {
            return io;
        }
    }
    while (prologue->left > 0) {
        size_t cap = prologue->left < sizeof skipped ? prologue->left : sizeof skipped;
        enum rk_io io = read_some(stream, skipped, cap, &n);
        if (io != RK_IO_OK) {
            return io;
        }
        prologue->left -= (uint32_t)n;
    }
    leave(stream);
    return stream->ops->handshake(stream);
}

static void proxy_deinit(struct rk_stream *stream)
{
    leave(stream);
    stream->ops->deinit(stream);
}

/* Reading and writing are the owner's only after the handshake, when these are gone. */
static const struct rk_stream_ops proxy_ops = {
    .handshake = proxy_handshake,
    .deinit = proxy_deinit,
};

enum rk_status rk_stream_expect_proxy(struct rk_stream *stream, uint32_t header_max,
                                      char peer[RK_PEER_MAX])
{
    struct rk_prologue *prologue = calloc(1, sizeof *prologue);
    if (prologue == NULL) {
        return RK_ENOMEM;
    }
    prologue->inner = stream->ops;
    prologue->header_max = header_max;
    prologue->peer = peer;
    prologue->need = RK_PROXY_HEAD_LEN;
    stream->prologue = prologue;
    stream->ops = &proxy_ops;
    return RK_OK;
}
