/*
 * One connection to a broker with one channel, on which exchanges and queues are declared.
 *
 * librabbitmq's connections belong to one thread, and so does a link. What goes wrong on it ends
 * it: its owner closes it and opens the next one.
 *
 * Names, all behind the configured prefix:
 *
 *   <prefix>        direct exchange          plan, work.hot, work.cold are bound by these keys
 *   <prefix>.dead   fanout exchange          queue <prefix>.dead
 *   .plan           single active consumer: its consumer holds the planner's place
 *   .work.hot       documents read under an old key
 *   .work.cold      ranges
 *   .retry.1s, .retry.10s, .retry.60s   nobody consumes; what has lain there goes to work.cold
 *
 * All are quorum queues. What plan and work refuse, or have delivered too often (by the operator's
 * policy), goes to the exchange <prefix>.dead.
 */
#ifndef REKEY_AMQP_LINK_H
#define REKEY_AMQP_LINK_H

#include <amqp.h>
#include <rekey/base/counter.h>
#include <rekey/config/config.h>

#define RK_AMQP_CHANNEL 1
#define RK_AMQP_NAME_SIZE 128u

#define RK_AMQP_PLAN_KEY "plan"
#define RK_AMQP_HOT_KEY "work.hot"
#define RK_AMQP_COLD_KEY "work.cold"

struct rk_amqp_link {
    const struct rk_config_amqp *config;
    const char *secret;           /* the password, where it does not come from a file */
    const char *purpose;          /* for people: "publish" */
    unsigned turn;                /* which address is next */
    amqp_connection_state_t conn; /* NULL: not connected */
    char at[300];                 /* the address that the connection is to, or was tried last */
    char version[32];             /* of the broker */
    uint64_t opened_us;           /* when the last attempt succeeded */
    uint64_t pause_ms;            /* after the last failure; 0: what was opened then has lasted */
    char said[512];               /* why the last attempt failed, as logged */
    rk_counter losses;
};

/* One attempt, at one address: connects, logs in, opens the channel, declares everything. What it
 * comes to is logged, but not the same failure again and again; *pause_ms then says how long to
 * wait before the next one. */
RK_MUST_CHECK bool rk_amqp_link_open(struct rk_amqp_link *link, uint64_t *pause_ms);
/* Without a farewell, which would wait for a broker that may be gone. */
void rk_amqp_link_close(struct rk_amqp_link *link);
/* With one, so that the broker has read all that was sent. Waits a second at most. */
void rk_amqp_link_leave(struct rk_amqp_link *link);
/* Logs the loss of an open connection and closes it. How long to wait before the next attempt, in
 * milliseconds: a broker that takes connections and ends them at once is not called all the time.
 */
uint64_t rk_amqp_link_lose(struct rk_amqp_link *link, const struct rk_error *why);

/*
 * Takes what has come in, without waiting: RK_OK with frame, RK_ENOENT when there is nothing.
 * Anything that ends the channel or the connection is RK_EIO, with the broker's reason.
 */
RK_MUST_CHECK enum rk_status rk_amqp_link_frame(struct rk_amqp_link *link, amqp_frame_t *frame,
                                                struct rk_error *err);
/* Waits for the broker or for wake_fd, which it empties. Heartbeats want a look at frames before
 * half of amqp.heartbeat_s has passed. */
void rk_amqp_link_wait(const struct rk_amqp_link *link, int wake_fd, uint32_t timeout_ms);

/* RK_OK, or RK_EIO with what librabbitmq or the broker has to say. */
RK_MUST_CHECK enum rk_status rk_amqp_check_reply(amqp_rpc_reply_t reply, const char *what,
                                                 struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_amqp_check_status(int status, const char *what,
                                                  struct rk_error *err);

/* Entries of a table: true, and a string that is borrowed. */
amqp_table_entry_t rk_amqp_flag(const char *name);
amqp_table_entry_t rk_amqp_text(const char *name, const char *value);

/* ---- topology.c */

/* "<prefix>.suffix", or the prefix itself where suffix is empty. */
void rk_amqp_name(const struct rk_config_amqp *config, const char *suffix,
                  char out[RK_AMQP_NAME_SIZE]);
/* The queue for what has been put off so many times before. */
const char *rk_amqp_retry_key(uint32_t retries);
/* All exchanges and queues; those that are there already must be the same. */
RK_MUST_CHECK enum rk_status rk_amqp_declare(struct rk_amqp_link *link, struct rk_error *err);

/* ---- tls.c */

/* A socket for the link's connection that takes only what the settings allow. */
RK_MUST_CHECK enum rk_status rk_amqp_tls_socket(struct rk_amqp_link *link, const char *host,
                                                amqp_socket_t **out, struct rk_error *err);
/* Why the last certificate was refused by this thread; NULL: none was. */
const char *rk_amqp_tls_refusal(void);

#endif
