#include <rekey/net/conn.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* An emptied buffer larger than this is given back, so that idle connections stay small. */
#define OUT_KEEP_BYTES 4096u

static void fail(struct rk_conn *conn, const char *why)
{
    conn->handlers->failed(conn->owner, why);
}

static void want(struct rk_conn *conn, bool write)
{
    (void)event_add(write ? &conn->write_event : &conn->read_event, NULL);
}

static void handshake(struct rk_conn *conn)
{
    switch (conn->stream.ops->handshake(&conn->stream)) {
    case RK_IO_OK:
        conn->state = RK_CONN_OPEN;
        (void)event_del(&conn->read_event);
        (void)event_del(&conn->write_event);
        conn->handlers->opened(conn->owner);
        break;
    case RK_IO_WAIT:
        (void)event_del(conn->stream.want_write ? &conn->read_event : &conn->write_event);
        want(conn, conn->stream.want_write);
        break;
    case RK_IO_EOF:
        fail(conn, "closed during the TLS handshake");
        break;
    case RK_IO_FAIL:
        fail(conn, conn->stream.why);
        break;
    }
}

static void finish_connect(struct rk_conn *conn)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(conn->stream.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error != 0) {
        fail(conn, strerror(error));
        return;
    }
    conn->state = RK_CONN_HANDSHAKE;
    (void)event_del(&conn->write_event);
    handshake(conn);
}

/* Writes what is buffered. False after a failure. What went out stays where it is until more is
 * appended: moving the rest to the front each time would cost the square of its length. */
static bool flush(struct rk_conn *conn)
{
    while (rk_conn_unsent(conn) > 0) {
        size_t n = 0;
        enum rk_io io = conn->stream.ops->write(&conn->stream, conn->out.data + conn->out_sent,
                                                rk_conn_unsent(conn), &n);
        if (io != RK_IO_OK) {
            return io == RK_IO_WAIT;
        }
        conn->out_sent += n;
    }
    return true;
}

static void drop_sent(struct rk_conn *conn)
{
    rk_buf_consume(&conn->out, conn->out_sent);
    conn->out_sent = 0;
}

static void on_flushed(struct rk_conn *conn)
{
    (void)event_del(&conn->write_event);
    drop_sent(conn);
    if (conn->out.cap > OUT_KEEP_BYTES) {
        rk_buf_deinit(&conn->out);
    }
    if (conn->shut_pending) {
        conn->shut_pending = false;
        conn->shut_done = true;
        conn->stream.ops->shutdown_write(&conn->stream);
    }
}

static void on_write_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_conn *conn = arg;
    if (conn->state == RK_CONN_CONNECT) {
        finish_connect(conn);
    } else if (conn->state == RK_CONN_HANDSHAKE) {
        handshake(conn);
    } else if (!flush(conn)) {
        fail(conn, conn->stream.why);
    } else {
        if (rk_conn_unsent(conn) == 0) {
            on_flushed(conn);
        }
        if (rk_conn_unsent(conn) <= conn->out_low) {
            conn->handlers->drained(conn->owner);
        }
    }
}

static void on_read_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_conn *conn = arg;
    if (conn->state == RK_CONN_HANDSHAKE) {
        handshake(conn);
    } else if (conn->reading) {
        conn->handlers->readable(conn->owner);
    }
}

enum rk_status rk_conn_init(struct rk_conn *conn, struct event_base *base, struct rk_stream *stream,
                            bool connected, size_t out_max, size_t out_low,
                            const struct rk_conn_handlers *handlers, void *owner)
{
    *conn = (struct rk_conn){.stream = *stream,
                             .state = connected ? RK_CONN_HANDSHAKE : RK_CONN_CONNECT,
                             .out_low = out_low,
                             .handlers = handlers,
                             .owner = owner};
    stream->ops = NULL;
    stream->fd = -1;
    rk_buf_init(&conn->out, out_max);
    if (event_assign(&conn->read_event, base, conn->stream.fd, EV_READ | EV_PERSIST, on_read_event,
                     conn) != 0 ||
        event_assign(&conn->write_event, base, conn->stream.fd, EV_WRITE | EV_PERSIST,
                     on_write_event, conn) != 0) {
        rk_stream_deinit(&conn->stream);
        conn->state = RK_CONN_IDLE;
        return RK_ENOMEM;
    }
    return RK_OK;
}

void rk_conn_deinit(struct rk_conn *conn)
{
    if (conn->state == RK_CONN_IDLE) {
        return;
    }
    (void)event_del(&conn->read_event);
    (void)event_del(&conn->write_event);
    rk_buf_deinit(&conn->out);
    rk_stream_deinit(&conn->stream);
    conn->state = RK_CONN_IDLE;
}

void rk_conn_start(struct rk_conn *conn)
{
    /* Plain accepted sockets have nothing to wait for: let the loop call opened right away. */
    if (conn->state == RK_CONN_HANDSHAKE) {
        event_active(&conn->read_event, EV_READ, 1);
    } else {
        want(conn, true);
    }
}

enum rk_io rk_conn_read(struct rk_conn *conn, void *buf, size_t cap, size_t *n)
{
    enum rk_io io = conn->stream.ops->read(&conn->stream, buf, cap, n);
    if (io == RK_IO_OK && conn->reading && conn->stream.ops->has_buffered(&conn->stream)) {
        event_active(&conn->read_event, EV_READ, 1);
    }
    return io;
}

enum rk_status rk_conn_send(struct rk_conn *conn, const void *data, size_t len)
{
    assert(conn->state == RK_CONN_OPEN);
    const uint8_t *p = data;
    if (rk_conn_unsent(conn) == 0) {
        while (len > 0) {
            size_t n = 0;
            enum rk_io io = conn->stream.ops->write(&conn->stream, p, len, &n);
            if (io == RK_IO_WAIT) {
                break;
            }
            if (io != RK_IO_OK) {
                return RK_EIO;
            }
            p += n;
            len -= n;
        }
        if (len > 0) {
            want(conn, true);
        }
    }
    drop_sent(conn);
    enum rk_status status = rk_buf_append(&conn->out, p, len);
    if (status != RK_OK) {
        (void)snprintf(conn->stream.why, sizeof conn->stream.why, "%s",
                       "no room for what the peer does not read");
    }
    return status;
}

void rk_conn_set_reading(struct rk_conn *conn, bool reading)
{
    if (reading == conn->reading || conn->state != RK_CONN_OPEN) {
        return;
    }
    conn->reading = reading;
    if (!reading) {
        (void)event_del(&conn->read_event);
        return;
    }
    want(conn, false);
    if (conn->stream.ops->has_buffered(&conn->stream)) {
        event_active(&conn->read_event, EV_READ, 1);
    }
}

void rk_conn_shutdown_write(struct rk_conn *conn)
{
    if (conn->shut_done || conn->shut_pending) {
        return;
    }
    if (rk_conn_unsent(conn) > 0) {
        conn->shut_pending = true;
        return;
    }
    conn->shut_done = true;
    conn->stream.ops->shutdown_write(&conn->stream);
}
