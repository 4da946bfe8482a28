/*
 * Values that are sealed and opened outside of this process, by whoever holds their key (Vault's
 * transit engine). Code that meets such a value cannot wait for it, so it works in passes:
 *
 *   rk_remote_rewind     before each pass over a message or batch
 *   rk_remote_ask        for every value, in the order in which the pass meets them: the answer, or
 *                        a promise (the caller goes on with a placeholder of its own)
 *   rk_remote_wanted     after the pass: some of the answers were promises, so what it made is
 *                        to be thrown away. Have them answered (rk_provider_ops.values), begin
 * anew.
 *
 * A pass that asks the same questions gets the answers of the one before; the order counts among
 * those that seal, and among those that open. One that asks others, say because a key has been
 * rotated meanwhile, only loses what was asked from there on. What depends on a promise (to seal
 * what is still to be opened) is better not asked at all.
 *
 * Holds plaintext; all of it is cleansed by rk_remote_free. Belongs to one thread at a time.
 */
#ifndef REKEY_CRYPTO_REMOTE_H
#define REKEY_CRYPTO_REMOTE_H

#include <rekey/base/buf.h>
#include <stdbool.h>

/* A sealed value is: the key's version 4, little-endian | nonce 12 | ciphertext | tag 16. */
#define RK_REMOTE_OVERHEAD 32u

enum rk_remote_op {
    RK_REMOTE_SEAL,
    RK_REMOTE_OPEN,
    RK_REMOTE_OPEN_TEXT, /* in is the provider's own spelling, "vault:v1:..." */
};

/* Borrowed bytes, in questions as in what rk_remote_at shows. */
struct rk_remote_value {
    enum rk_remote_op op;
    const char *key; /* in the provider's terms: "transit/rekey:v3"; opening needs no version */
    const uint8_t *aad;
    size_t aad_len; /* 0: the value was sealed without any */
    const uint8_t *in;
    size_t in_len;
};

enum rk_remote_answer {
    RK_REMOTE_PROMISED,
    RK_REMOTE_DONE,
    RK_REMOTE_REFUSED, /* this one does not open, whatever happens */
};

struct rk_remote;

/* bytes_max: of all questions and answers together. now_s: the time that envelopes carry, the same
 * in every pass. NULL: out of memory. */
struct rk_remote *rk_remote_new(size_t bytes_max, uint32_t now_s);
void rk_remote_free(struct rk_remote *remote); /* NULL is fine */
uint32_t rk_remote_now_s(const struct rk_remote *remote);

/* ---- passes */

void rk_remote_rewind(struct rk_remote *remote);
/* *out and *len: with RK_REMOTE_DONE, the answer; valid until the next call. RK_ENOMEM, or
 * RK_ELIMIT above bytes_max. */
RK_MUST_CHECK enum rk_status rk_remote_ask(struct rk_remote *remote,
                                           const struct rk_remote_value *value,
                                           enum rk_remote_answer *answer, const uint8_t **out,
                                           size_t *len);
/* Was something promised in this pass? NULL: no. */
bool rk_remote_wanted(const struct rk_remote *remote);
/* Was a value that is to be opened? NULL: no. */
bool rk_remote_opening(const struct rk_remote *remote);

/* ---- answers */

size_t rk_remote_count(const struct rk_remote *remote);
/* i < count, in no order that matters. False: it has been answered. */
bool rk_remote_at(const struct rk_remote *remote, size_t i, struct rk_remote_value *value);
/* RK_ENOMEM, or RK_ELIMIT above bytes_max: then it has no answer still. */
RK_MUST_CHECK enum rk_status rk_remote_put(struct rk_remote *remote, size_t i, const void *out,
                                           size_t len);
void rk_remote_refuse(struct rk_remote *remote, size_t i);

#endif
