/*
 * Values per second that Vault's transit engine encrypts and decrypts for Rekey, through the
 * provider as rekeyd uses it: SUBMISSIONS messages of VALUES values of 64 bytes are under way at
 * once, and the provider sends them as batches. Prints one JSON object as its last line.
 *
 *     bench_vault_values CONFIG KEY [SECONDS] [VALUES] [SUBMISSIONS]
 *
 * CONFIG: a rekey.yaml with keys.provider: vault. KEY: "transit/rekey:v1".
 */
#include <rekey/base/clock.h>
#include <rekey/config/config.h>
#include <rekey/crypto/remote.h>
#include <rekey/keys/mongo.h>
#include <rekey/keys/secrets.h>
#include <rekey/vault/provider.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_LEN 64u
#define AAD_LEN 20u /* an envelope's header */
#define SEALED_LEN (VALUE_LEN + RK_REMOTE_OVERHEAD)
#define SECURE_HEAP_BYTES (1u << 20)
#define REMOTE_BYTES_MAX (1u << 30)

struct bench {
    struct rk_provider provider;
    const char *key;
    unsigned seconds;
    unsigned values;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    unsigned under_way;
    enum rk_status status;
    char message[256];
};

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_vault_values: %s: %s\n", what, why);
    exit(1);
}

/* One message's questions; sealed: what RK_REMOTE_OPEN asks for. */
static struct rk_remote *message(const struct bench *b, enum rk_remote_op op, const uint8_t *in,
                                 size_t len)
{
    static const uint8_t aad[AAD_LEN] = {'R', 'K'};
    struct rk_remote *remote = rk_remote_new(REMOTE_BYTES_MAX, 0);
    const struct rk_remote_value value = {op, b->key, aad, sizeof aad, in, len};
    enum rk_remote_answer answer;
    const uint8_t *out;
    size_t out_len;
    for (unsigned i = 0; i < b->values; i++) {
        if (remote == NULL || rk_remote_ask(remote, &value, &answer, &out, &out_len) != RK_OK) {
            fail("message", "out of memory");
        }
    }
    return remote;
}

static void on_answer(void *arg, enum rk_status status, const char *text)
{
    struct bench *b = arg;
    (void)pthread_mutex_lock(&b->lock);
    b->under_way--;
    if (status != RK_OK && b->status == RK_OK) {
        b->status = status;
        (void)snprintf(b->message, sizeof b->message, "%s", text);
    }
    (void)pthread_cond_signal(&b->ended);
    (void)pthread_mutex_unlock(&b->lock);
}

static void wait_below(struct bench *b, unsigned most)
{
    (void)pthread_mutex_lock(&b->lock);
    while (b->under_way >= most) {
        (void)pthread_cond_wait(&b->ended, &b->lock);
    }
    (void)pthread_mutex_unlock(&b->lock);
    if (b->status != RK_OK) {
        fail("vault", b->message);
    }
}

static void submit(struct bench *b, struct rk_remote *remote)
{
    (void)pthread_mutex_lock(&b->lock);
    b->under_way++;
    (void)pthread_mutex_unlock(&b->lock);
    b->provider.ops->answer(b->provider.self, remote, on_answer, b);
}

static double values_per_s(struct bench *b, enum rk_remote_op op, const uint8_t *in, size_t len,
                           unsigned submissions)
{
    struct rk_remote **ring = calloc(submissions, sizeof(struct rk_remote *));
    uint64_t n = 0;
    uint64_t start = rk_clock_mono_us();
    if (ring == NULL) {
        fail("ring", "out of memory");
    }
    for (unsigned i = 0; rk_clock_mono_us() - start < b->seconds * 1000000ull || i % submissions;
         i++) {
        struct rk_remote *next = message(b, op, in, len);
        wait_below(b, submissions);
        /* Which of the ring has ended is not known: all of it is freed at the end of a round. */
        if (i % submissions == 0) {
            wait_below(b, 1);
            for (unsigned k = 0; k < submissions; k++) {
                rk_remote_free(ring[k]);
                ring[k] = NULL;
            }
        }
        ring[i % submissions] = next;
        submit(b, next);
        n += b->values;
    }
    wait_below(b, 1);
    double took_s = (double)(rk_clock_mono_us() - start) / 1e6;
    for (unsigned k = 0; k < submissions; k++) {
        rk_remote_free(ring[k]);
    }
    free(ring);
    return (double)n / took_s;
}

/* What a first seal brings. */
static void seal_one(struct bench *b, const uint8_t *value, uint8_t sealed[SEALED_LEN])
{
    unsigned values = b->values;
    enum rk_remote_answer answer;
    const uint8_t *out;
    size_t len;
    b->values = 1;
    struct rk_remote *remote = message(b, RK_REMOTE_SEAL, value, VALUE_LEN);
    submit(b, remote);
    wait_below(b, 1);
    struct rk_remote_value question;
    (void)rk_remote_at(remote, 0, &question);
    rk_remote_rewind(remote);
    if (rk_remote_ask(remote, &question, &answer, &out, &len) != RK_OK ||
        answer != RK_REMOTE_DONE || len != SEALED_LEN) {
        fail("seal", "no answer");
    }
    memcpy(sealed, out, len);
    rk_remote_free(remote);
    b->values = values;
}

static unsigned number(int argc, char **argv, int i, unsigned otherwise)
{
    return argc > i ? (unsigned)strtoul(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    struct rk_config *config = NULL;
    struct rk_error err;
    struct bench b = {.key = argc > 2 ? argv[2] : ""};
    if (argc < 3) {
        fail("usage", "bench_vault_values CONFIG KEY [SECONDS] [VALUES] [SUBMISSIONS]");
    }
    b.seconds = number(argc, argv, 3, 5);
    b.values = number(argc, argv, 4, 1000);
    unsigned submissions = number(argc, argv, 5, 16);
    (void)pthread_mutex_init(&b.lock, NULL);
    (void)pthread_cond_init(&b.ended, NULL);
    if (b.values == 0 || submissions == 0 ||
        rk_secrets_init(SECURE_HEAP_BYTES, NULL, &err) != RK_OK ||
        rk_config_load(argv[1], &config, &err) != RK_OK ||
        rk_provider_open(&config->keys, &b.provider, &err) != RK_OK ||
        b.provider.ops->ready(b.provider.self, &err) != RK_OK) {
        fail("start", err.message);
    }
    uint8_t value[VALUE_LEN] = {'v'};
    uint8_t sealed[SEALED_LEN];
    seal_one(&b, value, sealed);
    double seals = values_per_s(&b, RK_REMOTE_SEAL, value, sizeof value, submissions);
    double opens = values_per_s(&b, RK_REMOTE_OPEN, sealed, sizeof sealed, submissions);
    (void)printf("{\"seal_per_s\": %.0f, \"open_per_s\": %.0f}\n", seals, opens);
    b.provider.ops->free(b.provider.self);
    rk_config_free(config);
    return 0;
}
