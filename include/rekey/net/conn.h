/*
 * A connection on an event loop: a stream, its two events and the bytes that the socket did not
 * take yet. Embedded in its owner (a session has two); belongs to the loop's thread.
 *
 * Sending tries the socket at once and only what it refuses is buffered, so that the common case
 * costs one system call and no event change. Handlers never run inside rk_conn_send: a failed
 * send is reported by its return value.
 */
#ifndef REKEY_NET_CONN_H
#define REKEY_NET_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <rekey/base/buf.h>
#include <rekey/net/stream.h>

struct rk_conn_handlers {
    void (*opened)(void *owner);   /* connected and shaken hands */
    void (*readable)(void *owner); /* rk_conn_read will give something */
    void (*drained)(void *owner);  /* buffered bytes went out, at most out_low are left */
    void (*failed)(void *owner, const char *why);
};

enum rk_conn_state {
    RK_CONN_IDLE,      /* no socket */
    RK_CONN_CONNECT,   /* connect() under way; left for HANDSHAKE or failure */
    RK_CONN_HANDSHAKE, /* TLS under way (passed at once by plain streams); left for OPEN */
    RK_CONN_OPEN,
};

struct rk_conn {
    struct rk_stream stream;
    enum rk_conn_state state;
    bool reading;      /* the owner wants readable calls */
    bool shut_pending; /* close the writing side once out is empty */
    bool shut_done;
    struct event read_event;
    struct event write_event;
    struct rk_buf out;
    size_t out_sent; /* of out, what the socket has taken already */
    size_t out_low;
    const struct rk_conn_handlers *handlers;
    void *owner;
};

/* Takes stream (moved in). connected: false when connect() is still under way. out_max, out_low:
 * bytes; the most that may wait to be sent, and the rest at which drained is called. */
RK_MUST_CHECK enum rk_status rk_conn_init(struct rk_conn *conn, struct event_base *base,
                                          struct rk_stream *stream, bool connected, size_t out_max,
                                          size_t out_low, const struct rk_conn_handlers *handlers,
                                          void *owner);
void rk_conn_deinit(struct rk_conn *conn); /* fine on a zeroed struct */

/* Starts what init left: connect, handshake. opened or failed will be called, from the loop. */
void rk_conn_start(struct rk_conn *conn);

RK_MUST_CHECK enum rk_io rk_conn_read(struct rk_conn *conn, void *buf, size_t cap, size_t *n);

/* Sends or buffers all of data. RK_EIO: the connection is broken. RK_ELIMIT: out_max passed. */
RK_MUST_CHECK enum rk_status rk_conn_send(struct rk_conn *conn, const void *data, size_t len);

/* Bytes that the socket did not take yet. */
static inline size_t rk_conn_unsent(const struct rk_conn *conn)
{
    return conn->out.len - conn->out_sent;
}

/* Turns readable calls on and off; turning on also delivers what TLS had buffered. */
void rk_conn_set_reading(struct rk_conn *conn, bool reading);

/* Half-close after the buffered bytes have gone out. */
void rk_conn_shutdown_write(struct rk_conn *conn);

#endif
