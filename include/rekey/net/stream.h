/*
 * A non-blocking byte stream over a connected socket: plain TCP or TLS, chosen by an ops table.
 * Embedded in its owner; belongs to one thread. Owns the file descriptor.
 */
#ifndef REKEY_NET_STREAM_H
#define REKEY_NET_STREAM_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>

enum rk_io {
    RK_IO_OK,   /* *n bytes were moved, or the handshake is done */
    RK_IO_WAIT, /* try again when the socket is ready: readable, or writable if want_write */
    RK_IO_EOF,  /* the peer closed its side in order */
    RK_IO_FAIL, /* broken; rk_stream_why says how */
};

struct rk_stream;
struct rk_prologue;

struct rk_stream_ops {
    enum rk_io (*handshake)(struct rk_stream *stream);
    enum rk_io (*read)(struct rk_stream *stream, void *buf, size_t cap, size_t *n);
    enum rk_io (*write)(struct rk_stream *stream, const void *buf, size_t len, size_t *n);
    /* Tells the peer that no more will be written; reading goes on. */
    void (*shutdown_write)(struct rk_stream *stream);
    /* Bytes that were read from the socket but not yet handed out: no event will tell of them. */
    bool (*has_buffered)(const struct rk_stream *stream);
    void (*deinit)(struct rk_stream *stream);
};

struct rk_stream {
    const struct rk_stream_ops *ops;
    int fd;
    bool want_write;              /* after RK_IO_WAIT: readiness to write is what is missing */
    void *tls;                    /* SSL *, NULL for plain streams */
    struct rk_prologue *prologue; /* what comes before the handshake; NULL: nothing, or done */
    char why[160];                /* after RK_IO_FAIL */
};

void rk_stream_init_plain(struct rk_stream *stream, int fd);
/* Closes the socket; fine on a zeroed struct whose fd is -1. */
void rk_stream_deinit(struct rk_stream *stream);

#endif
