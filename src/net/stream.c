#include "stream_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static enum rk_io plain_handshake(struct rk_stream *stream)
{
    (void)stream;
    return RK_IO_OK;
}

static enum rk_io after_errno(struct rk_stream *stream, bool writing, const char *what)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        stream->want_write = writing;
        return RK_IO_WAIT;
    }
    (void)snprintf(stream->why, sizeof stream->why, "%s: %s", what, strerror(errno));
    return RK_IO_FAIL;
}

enum rk_io rk_stream_read_socket(struct rk_stream *stream, void *buf, size_t cap, size_t *n)
{
    ssize_t got = recv(stream->fd, buf, cap, 0);
    if (got > 0) {
        *n = (size_t)got;
        return RK_IO_OK;
    }
    return got == 0 ? RK_IO_EOF : after_errno(stream, false, "read");
}

static enum rk_io plain_write(struct rk_stream *stream, const void *buf, size_t len, size_t *n)
{
    ssize_t put = send(stream->fd, buf, len, MSG_NOSIGNAL);
    if (put >= 0) {
        *n = (size_t)put;
        return RK_IO_OK;
    }
    return after_errno(stream, true, "write");
}

static void plain_shutdown_write(struct rk_stream *stream)
{
    (void)shutdown(stream->fd, SHUT_WR);
}

static bool plain_has_buffered(const struct rk_stream *stream)
{
    (void)stream;
    return false;
}

static void plain_deinit(struct rk_stream *stream)
{
    (void)stream;
}

static const struct rk_stream_ops plain_ops = {
    .handshake = plain_handshake,
    .read = rk_stream_read_socket,
    .write = plain_write,
    .shutdown_write = plain_shutdown_write,
    .has_buffered = plain_has_buffered,
    .deinit = plain_deinit,
};

void rk_stream_init_plain(struct rk_stream *stream, int fd)
{
    *stream = (struct rk_stream){.ops = &plain_ops, .fd = fd};
}

void rk_stream_deinit(struct rk_stream *stream)
{
    if (stream->ops != NULL) {
        stream->ops->deinit(stream);
    }
    if (stream->fd >= 0) {
        (void)close(stream->fd);
    }
    *stream = (struct rk_stream){.fd = -1};
}
