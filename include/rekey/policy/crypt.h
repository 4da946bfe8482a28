/*
 * What encrypting and decrypting a message needs, and what its rewriters report back. Embedded in
 * whoever rewrites (a worker, a sweeper thread); belongs to one thread.
 */
#ifndef REKEY_POLICY_CRYPT_H
#define REKEY_POLICY_CRYPT_H

#include <rekey/crypto/aead.h>
#include <rekey/crypto/keyset.h>
#include <rekey/policy/tenant.h>

/* So many ids of keys that do not exist are remembered while a message waits for keys. */
#define RK_CRYPT_ABSENT_MAX 16u

struct rk_crypt {
    struct rk_aead *aead;
    struct rk_keyset *keys;      /* the set to use for this message */
    uint32_t now_s;              /* stamped into random envelopes */
    struct rk_buf scratch;       /* plaintext on its way, up to a whole reply; cleansed after use */
    const uint32_t *absent_keys; /* ids known not to exist: not held for, but undecryptable */
    size_t n_absent;
    struct rk_tenant tenant; /* of the statement at hand */
    bool keys_bound;         /* out: what was written is right under this key set only */
    uint32_t missing_key; /* out, with RK_VERDICT_HOLD: the id to load; 0: the current key of ... */
    char missing_name[RK_KEY_NAME_SIZE]; /* ... this name */
    uint64_t values_encrypted;           /* counters, ever growing */
    uint64_t values_decrypted;
    uint64_t values_old_key; /* decrypted, but not under the current key */
};

/* What to do next with a message. */
enum rk_verdict {
    RK_VERDICT_FORWARD, /* as it came */
    RK_VERDICT_REPLACE, /* send what was written to out instead */
    RK_VERDICT_HOLD,    /* rewrite the same message again, when what the aead's remote promised has
                           been answered (rk_remote_wanted), or else crypt->missing_key is loaded */
    RK_VERDICT_REJECT,  /* answer the client with err->code and err->message */
};

#endif
