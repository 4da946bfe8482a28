/*
 * What Vault answers for one value of a batch: operation 1 | length of what was asked 1 | the
 * item's JSON. Whatever is taken for a sealed value has its length, and is stored under the version
 * that was asked for; a remote envelope that opens holds one well-formed value.
 */
#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>

#include "../../src/vault/item.h"

#include <stdlib.h>
#include <string.h>

#define BYTES_MAX 65536u
#define VERSION 3u
#define KEY_ID 1u

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct rk_aead *aead;
static struct rk_data_key *key;
static struct rk_buf out;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    rk_buf_init(&out, 8 * BYTES_MAX);
    REQUIRE(rk_aead_new(&aead, NULL) == RK_OK);
    REQUIRE(rk_data_key_new_remote(KEY_ID, "transit/rekey:v3", 1, &key, NULL) == RK_OK);
    return 0;
}

/* Asks, has item answer, asks again. */
static enum rk_remote_answer answer_of(struct rk_remote *remote,
                                       const struct rk_remote_value *question, const json_t *item,
                                       const uint8_t **answer, size_t *len)
{
    enum rk_remote_answer is;
    const char *why = NULL;
    REQUIRE(rk_remote_ask(remote, question, &is, answer, len) == RK_OK);
    REQUIRE(is == RK_REMOTE_PROMISED);
    rk_buf_clear(&out);
    REQUIRE(rk_item_put(&out, question));
    json_t *sent = json_loadb((const char *)out.data, out.len, 0, NULL);
    REQUIRE(json_is_object(sent));
    json_decref(sent);
    enum rk_status status = rk_item_take(remote, 0, item, &why);
    rk_remote_rewind(remote);
    REQUIRE(rk_remote_ask(remote, question, &is, answer, len) == RK_OK);
    REQUIRE((is == RK_REMOTE_PROMISED) == (status != RK_OK));
    REQUIRE(status == RK_OK || why != NULL);
    return is;
}

static void one_value(enum rk_remote_op op, size_t asked_len, const json_t *item)
{
    static const uint8_t asked[UINT8_MAX + 4];
    static const uint8_t aad[RK_ENVELOPE_HEADER_LEN];
    struct rk_remote *remote = rk_remote_new(4 * BYTES_MAX, 1);
    const struct rk_remote_value question = {
        .op = op,
        .key = "transit/rekey:v3",
        .aad = aad,
        .aad_len = sizeof aad,
        .in = asked,
        .in_len = op == RK_REMOTE_OPEN_TEXT ? 0 : asked_len + (op == RK_REMOTE_OPEN ? 4 : 0),
    };
    const uint8_t *answer = NULL;
    size_t len = 0;
    REQUIRE(remote != NULL);
    if (answer_of(remote, &question, item, &answer, &len) == RK_REMOTE_DONE &&
        op == RK_REMOTE_SEAL) {
        REQUIRE(len == asked_len + RK_REMOTE_OVERHEAD);
        REQUIRE(rk_load_u32(answer) == VERSION);
    }
    rk_remote_free(remote);
}

static void envelope(uint8_t type, const json_t *item)
{
    uint8_t bytes[RK_ENVELOPE_HEADER_LEN + RK_REMOTE_OVERHEAD] = {
        'R', 'K', 0xE1, 0x1E, 1, RK_ALGORITHM_RANDOM, type, 1, 0, 0, 0, KEY_ID};
    struct rk_envelope parsed;
    struct rk_remote *remote = rk_remote_new(4 * BYTES_MAX, 1);
    const char *why;
    REQUIRE(remote != NULL && rk_envelope_parse(bytes, sizeof bytes, &parsed));
    rk_aead_set_remote(aead, remote);
    rk_buf_clear(&out);
    REQUIRE(rk_envelope_open(aead, key, &parsed, &out) == RK_OK); /* a placeholder */
    enum rk_status taken = rk_item_take(remote, 0, item, &why);
    rk_remote_rewind(remote);
    rk_buf_clear(&out);
    if (taken == RK_OK && rk_envelope_open(aead, key, &parsed, &out) == RK_OK) {
        uint32_t size = 0;
        REQUIRE(rk_bson_value_size(type, out.data, out.len, &size));
        REQUIRE(size == out.len);
    }
    rk_aead_set_remote(aead, NULL);
    rk_remote_free(remote);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2 || len > BYTES_MAX) {
        return 0;
    }
    json_t *item = json_loadb((const char *)data + 2, len - 2, JSON_REJECT_DUPLICATES, NULL);
    if (data[0] % 4 == 3) {
        envelope(data[1], item);
    } else {
        one_value((enum rk_remote_op)(data[0] % 4), data[1], item);
    }
    json_decref(item);
    return 0;
}
