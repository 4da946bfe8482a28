/*
 * What the files of the session area share. A session and its context belong to one worker; the
 * only cross-thread members are the atomics in struct rk_context.
 */
#ifndef REKEY_SESSION_INTERNAL_H
#define REKEY_SESSION_INTERNAL_H

#include <rekey/base/histogram.h>
#include <rekey/config/config.h>
#include <rekey/keys/readers.h>
#include <rekey/keys/service.h>
#include <rekey/net/conn.h>
#include <rekey/net/socket.h>
#include <rekey/net/tls.h>
#include <rekey/net/worker.h>
#include <rekey/policy/command.h>
#include <rekey/session/hello.h>
#include <rekey/session/server.h>
#include <stdatomic.h>
#include <sys/queue.h>

/* Bytes read from a socket in one go. Shared by all sessions of a worker, so its size costs no
 * memory per connection. */
#define RK_SCRATCH_BYTES (256u * 1024u)

/* How Rekey compresses what it writes itself. */
struct rk_compression_settings {
    struct rk_codec_levels levels;
    size_t message_bytes_min;
    size_t message_bytes_max;
    struct rk_compressors client; /* for new sessions */
    struct rk_compressors upstream;
};

/* Log lines that end a session, and "other" (metrics.c). */
#define RK_SESSION_ENDS 12u

/* What a worker has counted; its alone to write. */
struct rk_session_counters {
    rk_counter accepted;
    rk_counter turned_away;     /* limits.connections_max */
    rk_counter client_messages; /* that came from clients and were dealt with */
    rk_counter client_bytes;
    rk_counter upstream_messages;
    rk_counter upstream_bytes;
    rk_counter forwarded; /* requests, as they came */
    rk_counter rewritten;
    struct rk_tally refused;         /* requests, by code */
    struct rk_tally replies_refused; /* by code */
    rk_counter ended[RK_SESSION_ENDS];
    rk_counter key_waits;
    rk_counter key_wait_failures;
    rk_counter values_encrypted; /* these three as struct rk_crypt has them */
    rk_counter values_decrypted;
    rk_counter values_old_key;
};

struct rk_session;
struct rk_acceptor;
struct rk_key_wait;

TAILQ_HEAD(rk_session_list, rk_session);
TAILQ_HEAD(rk_acceptor_list, rk_acceptor);

/* A worker's share of the server. */
struct rk_context {
    struct rk_worker *worker;
    struct event_base *base;
    struct rk_routes *routes;
    struct rk_acceptor_list acceptors;
    struct rk_tls *listener_tls; /* NULL: plain */
    struct rk_tls *upstream_tls;
    struct rk_key_service *keys;
    uint32_t proxy_header_max; /* bytes of a PROXY header that clients begin with; 0: none */
    struct rk_config_limits limits;
    struct rk_policy_set *policies;
    uint64_t keys_generation;
    struct rk_readers *readers; /* the key service's; NULL without one */
    struct rk_crypt crypt;
    struct rk_old_reads old_reads;
    struct rk_compression_settings compression;
    struct rk_codec *codec;
    struct rk_buf inflated; /* the message inside the compressed one at hand */
    struct rk_buf out;      /* the rewritten message */
    struct rk_buf packed;   /* the compressed form of what is being sent */
    uint8_t *scratch;
    struct rk_session_list sessions;
    struct rk_session_list dead; /* closed; freed at the end of the loop's turn */
    struct event *reap;
    bool draining;
    uint64_t unknown_members_logged_us;
    _Atomic size_t *sessions_total; /* of all workers */
    _Atomic size_t load;            /* this worker's sessions, those on their way included */
    struct rk_histogram foreground;
    struct rk_session_counters counters;
};

/* A request that has no complete reply yet, or a reply of our own that waits for its turn. */
struct rk_pending {
    int32_t expected;   /* responseTo of the next reply: a request id, in exhaust streams the id of
                           the reply before */
    bool local;         /* reply holds our own answer */
    bool exhaust;       /* more than one reply may come */
    uint8_t compressor; /* of the request (enum rk_compressor), to be used for the reply */
    struct rk_hello_offer offer; /* of a hello */
    uint64_t sent_us;            /* 0: the reply has begun */
    struct rk_readers *readers;  /* who has this place; NULL: nobody */
    struct rk_reader reader;     /* if its query compares protected fields */
    struct rk_command_info info;
    struct rk_policy_set *policies; /* keeps info.policy alive; NULL when it has none */
    uint8_t *reply;
    size_t reply_len;
};

/* FIFO; the first entry is inline, so that one request at a time allocates nothing. */
struct rk_pending_queue {
    struct rk_pending first;
    struct rk_pending *more; /* ring of cap entries behind first */
    size_t cap;
    size_t head;
    size_t count; /* first included */
};

struct rk_pending *rk_pending_head(struct rk_pending_queue *queue);
/* NULL when out of memory; the caller has checked the count against pipeline_max. */
struct rk_pending *rk_pending_push(struct rk_pending_queue *queue);
void rk_pending_pop(struct rk_pending_queue *queue);
void rk_pending_deinit(struct rk_pending_queue *queue);

/* What a message handler made of the message at the front. */
enum rk_step {
    RK_STEP_MORE,  /* needs more of its bytes */
    RK_STEP_PASS,  /* forward all of it as it comes */
    RK_STEP_DONE,  /* was complete, is dealt with */
    RK_STEP_WAIT,  /* leave it; rk_flow_resume will be called */
    RK_STEP_CLOSE, /* the session is closed */
};

/* Deals with the message at data, of which avail bytes are there. */
typedef enum rk_step (*rk_message_handler)(struct rk_session *session, const uint8_t *data,
                                           size_t avail, const struct rk_frame *frame);

/* One direction: what was read from one side and has not gone on to the other. */
struct rk_flow {
    struct rk_conn *from;
    struct rk_conn *to;
    rk_counter *messages; /* counts them */
    rk_counter *bytes;
    struct rk_buf in;   /* the start of a message that is not complete, or that waits */
    uint32_t pass_left; /* bytes of the present message still to be forwarded as they come */
    bool waiting;       /* the message at the front waits: for a key, a place in the pipeline, or
                           room on the other side */
    bool eof;           /* from has ended */
    struct rk_key_wait *key_wait;
    struct rk_remote *remote; /* what the provider seals or opens for this message; NULL: nothing */
    uint32_t absent[RK_CRYPT_ABSENT_MAX]; /* ids that the registry says do not exist */
    unsigned n_absent;
    rk_message_handler on_message;
    void (*on_passed)(struct rk_session *session); /* the last byte of a passed message is sent */
};

/* Who may use which compressors. */
struct rk_session_compression {
    struct rk_compressors client_allowed; /* the configuration when the session began */
    struct rk_compressors upstream_allowed;
    struct rk_compressors client;   /* what the client was told: it may use these, and so may we */
    struct rk_compressors upstream; /* what the member took: we may use these */
    uint8_t request;                /* that of the request at hand */
};

struct rk_session {
    TAILQ_ENTRY(rk_session) link;
    struct rk_context *ctx;
    unsigned route_id;
    struct rk_endpoint *endpoint; /* where upstream leads; NULL: nowhere yet */
    size_t choice;                /* of the route's servers, the one to try next */
    size_t sockaddr_next;         /* and of the endpoint's socket addresses */
    struct rk_conn client;
    struct rk_conn upstream;
    struct rk_flow request;
    struct rk_flow reply;
    struct rk_pending_queue pending;
    struct rk_session_compression compression;
    struct event timer;
    uint64_t ready_us; /* when the client was through its prologue */
    uint64_t active_us;
    size_t unsent_seen; /* for the client, when the timer was set for the end of the session */
    bool closed;
    bool greeted;       /* a whole first message has come */
    bool retiring;      /* close once no command is in flight: its route leads elsewhere now */
    bool last_words;    /* close once the client has what is buffered for it */
    bool more_to_come;  /* the reply being passed has the flag */
    int32_t passing_id; /* and this request id */
    char peer[RK_PEER_MAX];
};

/* session.c: life of a session */
/* Takes a place within limits.connections_max; false (and logged) when there is none. ctx: the
 * caller's own. */
bool rk_session_admit(struct rk_context *ctx, const char *peer);
/* Starts a session for a connection that has its place and is counted in ctx->load. Owns fd. */
void rk_session_accept(struct rk_context *ctx, unsigned route_id, int fd, const char *peer);
/* Gives place and load back. */
void rk_session_leave(struct rk_context *ctx);
/* Marks it closed and hands it to the reaper; safe in any handler, idempotent. why NULL: normal. */
void rk_session_close(struct rk_session *session, const char *event, const char *why);
bool rk_session_idle(const struct rk_session *session);
void rk_session_reap(struct rk_context *ctx);
/* Closes once the client has taken what is buffered for it. */
void rk_session_close_after_flush(struct rk_session *session);
/* Closes when no command is in flight any more, at the latest after limits.drain_timeout_ms. */
void rk_session_retire(struct rk_session *session);
void rk_session_set_timer(struct rk_session *session, uint64_t ms); /* 0: none */
size_t rk_session_out_max(const struct rk_context *ctx);
/* The member's address for a log line. */
static inline const char *rk_session_member(const struct rk_session *session)
{
    return session->endpoint != NULL ? session->endpoint->address : NULL;
}
extern const struct rk_conn_handlers rk_session_upstream_handlers;

/* upstream.c: the connection to the server that the session's route leads to */
/* Connects, or holds the session until there is a server. May close the session. */
void rk_upstream_connect(struct rk_session *session);
/* After a failed attempt: tries what comes next. */
void rk_upstream_next(struct rk_session *session, const char *why);
/* After new routes: a session whose route leads elsewhere moves, or ends when it has begun. */
void rk_upstream_reroute(struct rk_session *session);
void rk_upstream_deinit(struct rk_session *session);

/* metrics.c: counting */
/* A session that ended by event, the name of its log line. */
void rk_count_end(struct rk_session_counters *counters, const char *event);
/* After a message was rewritten: brings the counters of values up to date. */
static inline void rk_count_values(struct rk_context *ctx)
{
    rk_counter_set(&ctx->counters.values_encrypted, ctx->crypt.values_encrypted);
    rk_counter_set(&ctx->counters.values_decrypted, ctx->crypt.values_decrypted);
    rk_counter_set(&ctx->counters.values_old_key, ctx->crypt.values_old_key);
}

/* flow.c: moving bytes */
void rk_flow_readable(struct rk_session *session, struct rk_flow *flow);
void rk_flow_resume(struct rk_session *session, struct rk_flow *flow);
/* Resumes a flow that waits for room on the other side, if there is some now. */
void rk_flow_drained(struct rk_session *session, struct rk_flow *flow);
/* Turns reading on either side on or off, as watermarks, waits and ends demand. */
void rk_flow_update(struct rk_session *session);

/* request.c, reply.c: message handlers */
enum rk_step rk_request_message(struct rk_session *session, const uint8_t *data, size_t avail,
                                const struct rk_frame *frame);
enum rk_step rk_reply_message(struct rk_session *session, const uint8_t *data, size_t avail,
                              const struct rk_frame *frame);
void rk_reply_passed(struct rk_session *session);
/* Our own answer to a request, in its turn. */
enum rk_step rk_reply_local(struct rk_session *session, const struct rk_frame *request,
                            const struct rk_error *err);

/* compressed.c: OP_COMPRESSED */
/* Reads the head of the compressed message at the front of flow: DONE when *compressed is filled,
 * else MORE or CLOSE. */
enum rk_step rk_compressed_look(struct rk_session *session, const struct rk_flow *flow,
                                const uint8_t *data, size_t avail,
                                struct rk_compressed *compressed);
/* Unpacks a whole compressed message (outer, at data) and has the handler deal with what is inside.
 * What it passes is sent on here. */
enum rk_step rk_compressed_message(struct rk_session *session, struct rk_flow *flow,
                                   const uint8_t *data, const struct rk_frame *outer,
                                   const struct rk_compressed *compressed,
                                   rk_message_handler handler);
/* The compressor to use towards a side that has negotiated these, where the message that is
 * replaced or answered came in wanted; NOOP: none. */
uint8_t rk_compressed_choice(const struct rk_compressors *negotiated, uint8_t wanted);
/* Is a message of this length to be compressed at all? */
bool rk_compressed_worth(const struct rk_session *session, const struct rk_conn *to,
                         uint8_t compressor, size_t len);
/* Sends one whole message of our own, compressed where that is worth it. False: session closed. */
bool rk_compressed_send(struct rk_session *session, struct rk_conn *to, uint8_t compressor,
                        const uint8_t *data, size_t len);

/* key_wait.c: messages that wait for a key, or for values that its provider seals and opens */
/* Brings ctx->crypt up to date for the message at the front of flow. */
void rk_key_wait_prepare(struct rk_session *session, struct rk_flow *flow);
/* Starts what RK_VERDICT_HOLD asks for; the flow is resumed when it is there. */
enum rk_step rk_key_wait_start(struct rk_session *session, struct rk_flow *flow);
/* True (once) with the failure when that went wrong; the message is then to be refused. */
bool rk_key_wait_failed(struct rk_flow *flow, struct rk_error *err);
/* The message at the front of flow is dealt with, or nobody cares any more. */
void rk_key_wait_cancel(struct rk_session *session, struct rk_flow *flow);
/* Is the end of the wait, and so the resumption of the flow, still to come? */
bool rk_key_wait_pending(const struct rk_flow *flow);

#endif
