/*
 * Values per second that one thread seals and opens: 64-byte values, both algorithms, through the
 * envelope functions. Prints one JSON object as its last line.
 *
 *     bench_crypto [SECONDS_PER_CELL]        (default 1)
 */
#include <rekey/base/clock.h>
#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>

#include <stdio.h>
#include <stdlib.h>

#define VALUE_LEN 64u
#define BATCH 1000u

struct bench {
    struct rk_aead *aead;
    struct rk_data_key *key;
    struct rk_buf sealed;
    struct rk_buf opened;
    uint8_t value[VALUE_LEN];
    uint64_t duration_us;
};

static enum rk_status seal(struct bench *b, enum rk_algorithm algorithm)
{
    rk_buf_clear(&b->sealed);
    return rk_envelope_seal(b->aead, b->key, algorithm, 1, 1, RK_BSON_STRING, b->value, VALUE_LEN,
                            &b->sealed);
}

static enum rk_status open_again(struct bench *b, enum rk_algorithm algorithm)
{
    struct rk_envelope envelope;
    rk_buf_clear(&b->opened);
    if (!rk_envelope_parse(b->sealed.data, b->sealed.len, &envelope) ||
        envelope.algorithm != algorithm) {
        return RK_EINVAL;
    }
    return rk_envelope_open(b->aead, b->key, &envelope, &b->opened);
}

static double values_per_s(struct bench *b, enum rk_algorithm algorithm,
                           enum rk_status (*step)(struct bench *, enum rk_algorithm))
{
    uint64_t n = 0;
    uint64_t start = rk_clock_mono_us();
    uint64_t took = 0;
    do {
        for (unsigned i = 0; i < BATCH; i++) {
            enum rk_status status = step(b, algorithm);
            if (status != RK_OK) {
                (void)fprintf(stderr, "bench_crypto: %s\n", rk_status_name(status));
                exit(1);
            }
        }
        n += BATCH;
        took = rk_clock_mono_us() - start;
    } while (took < b->duration_us);
    return (double)n * 1e6 / (double)took;
}

int main(int argc, char **argv)
{
    static const uint8_t root[RK_DATA_KEY_LEN] = {1, 2, 3};
    struct bench b = {.duration_us = 1000000};
    struct rk_error err;
    if (argc > 1) {
        double seconds = strtod(argv[1], NULL);
        b.duration_us = seconds > 0 && seconds < 3600 ? (uint64_t)(seconds * 1e6) : 1000000;
    }
    rk_store_u32(b.value, VALUE_LEN - 4); /* a BSON string of NULs */
    rk_buf_init(&b.sealed, 4096);
    rk_buf_init(&b.opened, 4096);
    if (rk_aead_new(&b.aead, &err) != RK_OK || rk_data_key_new(1, root, 1, &b.key, &err) != RK_OK) {
        (void)fprintf(stderr, "bench_crypto: %s\n", err.message);
        return 1;
    }
    double random_seal = values_per_s(&b, RK_ALGORITHM_RANDOM, seal);
    double random_open = values_per_s(&b, RK_ALGORITHM_RANDOM, open_again);
    double deterministic_seal = values_per_s(&b, RK_ALGORITHM_DETERMINISTIC, seal);
    double deterministic_open = values_per_s(&b, RK_ALGORITHM_DETERMINISTIC, open_again);
    printf("{\"bench\": \"crypto\", \"value_bytes\": %u, \"random_seal_values_per_s\": %.0f, "
           "\"random_open_values_per_s\": %.0f, \"deterministic_seal_values_per_s\": %.0f, "
           "\"deterministic_open_values_per_s\": %.0f}\n",
           VALUE_LEN, random_seal, random_open, deterministic_seal, deterministic_open);
    rk_buf_deinit(&b.sealed);
    rk_buf_deinit(&b.opened);
    rk_data_key_unref(b.key);
    rk_aead_free(b.aead);
    return 0;
}
