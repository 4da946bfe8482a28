/* Values that are sealed and opened elsewhere: questions, passes, envelopes, legacy texts. */
#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>
#include <rekey/crypto/legacy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* after the four that it needs */
#include <cmocka.h>

#define FIELD 77u
#define NOW 1700000000u
#define KEY_NAME "transit/rekey:v3"
#define BYTES_MAX 65536u

static struct rk_aead *aead;
static struct rk_data_key *key;
static struct rk_remote *remote;
static struct rk_buf out;

static int setup(void **state)
{
    (void)state;
    rk_buf_init(&out, BYTES_MAX);
    remote = rk_remote_new(BYTES_MAX, NOW);
    if (remote == NULL || rk_aead_new(&aead, NULL) != RK_OK ||
        rk_data_key_new_remote(5, KEY_NAME, 1, &key, NULL) != RK_OK) {
        return -1;
    }
    rk_aead_set_remote(aead, remote);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rk_aead_free(aead);
    rk_data_key_unref(key);
    rk_remote_free(remote);
    rk_buf_deinit(&out);
    return 0;
}

static enum rk_remote_answer ask(enum rk_remote_op op, const char *aad, const char *in,
                                 const char *expected)
{
    const struct rk_remote_value question = {
        op, KEY_NAME, (const uint8_t *)aad, strlen(aad), (const uint8_t *)in, strlen(in)};
    enum rk_remote_answer answer;
    const uint8_t *got;
    size_t len;
    assert_int_equal(rk_remote_ask(remote, &question, &answer, &got, &len), RK_OK);
    if (answer == RK_REMOTE_DONE) {
        assert_int_equal(len, strlen(expected));
        assert_memory_equal(got, expected, len);
    }
    return answer;
}

static void test_passes(void **state)
{
    struct rk_remote_value value;
    (void)state;
    assert_false(rk_remote_wanted(remote));
    assert_int_equal(ask(RK_REMOTE_SEAL, "h1", "one", NULL), RK_REMOTE_PROMISED);
    assert_int_equal(ask(RK_REMOTE_OPEN, "", "two", NULL), RK_REMOTE_PROMISED);
    assert_int_equal(ask(RK_REMOTE_OPEN, "", "three", NULL), RK_REMOTE_PROMISED);
    assert_true(rk_remote_wanted(remote));
    assert_int_equal(rk_remote_count(remote), 3);
    assert_true(rk_remote_at(remote, 0, &value));
    assert_string_equal(value.key, KEY_NAME);
    assert_int_equal(value.aad_len, 2);
    assert_memory_equal(value.in, "one", value.in_len);

    assert_int_equal(rk_remote_put(remote, 1, "zwei", 4), RK_OK);
    assert_int_equal(rk_remote_put(remote, 0, "", 0), RK_OK);
    rk_remote_refuse(remote, 2);
    assert_false(rk_remote_at(remote, 1, &value));
    rk_remote_rewind(remote);
    assert_false(rk_remote_wanted(remote));
    assert_int_equal(ask(RK_REMOTE_SEAL, "h1", "one", ""), RK_REMOTE_DONE);
    assert_int_equal(ask(RK_REMOTE_OPEN, "", "two", "zwei"), RK_REMOTE_DONE);
    assert_int_equal(ask(RK_REMOTE_OPEN, "", "three", NULL), RK_REMOTE_REFUSED);
    assert_false(rk_remote_wanted(remote));
}

/* What differs in anything is another question, and loses those behind it. */
static void test_other_questions(void **state)
{
    static const struct {
        enum rk_remote_op op;
        const char *aad;
        const char *in;
    } others[] = {
        {RK_REMOTE_SEAL, "i", "one"}, {RK_REMOTE_SEAL, "h", "onE"}, {RK_REMOTE_SEAL, "ho", "ne"},
        {RK_REMOTE_SEAL, "", "hone"}, {RK_REMOTE_SEAL, "h", "on"},  {RK_REMOTE_SEAL, "h", "one1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        rk_remote_rewind(remote);
        (void)ask(RK_REMOTE_SEAL, "h", "one", "A");
        (void)ask(RK_REMOTE_SEAL, "h", "two", "B");
        assert_int_equal(rk_remote_put(remote, 0, "A", 1), RK_OK);
        assert_int_equal(rk_remote_put(remote, 1, "B", 1), RK_OK);
        rk_remote_rewind(remote);
        assert_int_equal(ask(others[i].op, others[i].aad, others[i].in, NULL), RK_REMOTE_PROMISED);
        assert_int_equal(ask(RK_REMOTE_SEAL, "h", "two", NULL), RK_REMOTE_PROMISED);
        assert_int_equal(rk_remote_count(remote), 2);
    }
}

/* To open and to seal do not get in each other's way. */
static void test_two_orders(void **state)
{
    (void)state;
    (void)ask(RK_REMOTE_OPEN, "", "1", NULL);
    (void)ask(RK_REMOTE_OPEN, "", "2", NULL);
    assert_true(rk_remote_opening(remote));
    assert_int_equal(rk_remote_put(remote, 0, "a", 1), RK_OK);
    assert_int_equal(rk_remote_put(remote, 1, "b", 1), RK_OK);
    rk_remote_rewind(remote);
    for (unsigned pass = 0; pass < 2; pass++) {
        const enum rk_remote_answer sealed = pass == 0 ? RK_REMOTE_PROMISED : RK_REMOTE_DONE;
        assert_int_equal(ask(RK_REMOTE_OPEN, "", "1", "a"), RK_REMOTE_DONE);
        assert_int_equal(ask(RK_REMOTE_SEAL, "", "a", "A"), sealed);
        assert_false(rk_remote_opening(remote));
        assert_int_equal(ask(RK_REMOTE_OPEN, "", "2", "b"), RK_REMOTE_DONE);
        assert_int_equal(ask(RK_REMOTE_SEAL, "", "b", "B"), sealed);
        assert_int_equal(rk_remote_wanted(remote), pass == 0);
        assert_int_equal(rk_remote_count(remote), 4);
        assert_int_equal(rk_remote_put(remote, 0, "A", 1), RK_OK);
        assert_int_equal(rk_remote_put(remote, 1, "B", 1), RK_OK);
        rk_remote_rewind(remote);
    }
}

static void test_limit(void **state)
{
    static const uint8_t large[BYTES_MAX];
    enum rk_remote_answer answer;
    const uint8_t *got;
    size_t len;
    struct rk_remote_value question = {RK_REMOTE_SEAL, KEY_NAME, NULL, 0, large, sizeof large};
    (void)state;
    assert_int_equal(rk_remote_ask(remote, &question, &answer, &got, &len), RK_ELIMIT);
    question.in_len = sizeof large / 2;
    assert_int_equal(rk_remote_ask(remote, &question, &answer, &got, &len), RK_OK);
    assert_int_equal(rk_remote_put(remote, 0, large, sizeof large / 2), RK_ELIMIT);
    assert_int_equal(rk_remote_put(remote, 0, large, sizeof large / 4), RK_OK);
}

static enum rk_status seal(uint8_t type, const void *value, size_t len)
{
    rk_buf_clear(&out);
    return rk_envelope_seal(aead, key, RK_ALGORITHM_RANDOM, FIELD, NOW + 9, type, value, len, &out);
}

/* Whoever holds the key: version 3, zeros, the plaintext turned over, zeros. */
static void answer_seal(size_t i)
{
    uint8_t sealed[64] = {3};
    struct rk_remote_value value;
    assert_true(rk_remote_at(remote, i, &value));
    assert_int_equal(value.op, RK_REMOTE_SEAL);
    assert_int_equal(value.aad_len, RK_ENVELOPE_HEADER_LEN);
    for (size_t k = 0; k < value.in_len; k++) {
        sealed[16 + k] = (uint8_t)~value.in[k];
    }
    assert_int_equal(rk_remote_put(remote, i, sealed, value.in_len + RK_REMOTE_OVERHEAD), RK_OK);
}

static void test_envelope(void **state)
{
    static const uint8_t text[] = {3, 0, 0, 0, 'h', 'i', 0};
    struct rk_envelope envelope;
    struct rk_buf plain;
    (void)state;
    assert_int_equal(seal(RK_BSON_STRING, text, sizeof text), RK_OK);
    assert_int_equal(out.len, rk_envelope_size(key, RK_ALGORITHM_RANDOM, sizeof text));
    assert_true(rk_remote_wanted(remote));
    answer_seal(0);
    rk_remote_rewind(remote);
    assert_int_equal(seal(RK_BSON_STRING, text, sizeof text), RK_OK);
    assert_false(rk_remote_wanted(remote));
    assert_true(rk_envelope_parse(out.data, out.len, &envelope));
    assert_true(envelope.remote);
    assert_int_equal(envelope.key_id, 5);
    assert_int_equal(envelope.encrypted_at_s, NOW);
    assert_int_equal(out.data[RK_ENVELOPE_HEADER_LEN + 16 + 4], (uint8_t) ~'h');

    rk_buf_init(&plain, 100);
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_OK);
    assert_true(rk_remote_wanted(remote));
    assert_int_equal(rk_remote_put(remote, 1, text, sizeof text), RK_OK);
    rk_remote_rewind(remote);
    assert_int_equal(seal(RK_BSON_STRING, text, sizeof text), RK_OK);
    rk_buf_clear(&plain);
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_OK);
    assert_int_equal(plain.len, sizeof text);
    assert_memory_equal(plain.data, text, sizeof text);
    rk_buf_deinit(&plain);
}

/* Placeholders have to pass for values of their type. */
static void test_placeholders(void **state)
{
    static const struct {
        uint8_t type;
        uint8_t len;
        uint8_t value[20];
    } values[] = {
        {RK_BSON_DOUBLE, 8, {0}},
        {RK_BSON_STRING, 5, {1}},
        {RK_BSON_DOCUMENT, 5, {5}},
        {RK_BSON_ARRAY, 5, {5}},
        {RK_BSON_BINARY, 5, {0}},
        {RK_BSON_OID, 12, {0}},
        {RK_BSON_BOOL, 1, {1}},
        {RK_BSON_DATE, 8, {0}},
        {RK_BSON_REGEX, 2, {0}},
        {RK_BSON_DBPOINTER, 17, {1}},
        {RK_BSON_CODE, 5, {1}},
        {RK_BSON_SYMBOL, 5, {1}},
        {RK_BSON_CODEWSCOPE, 14, {14, 0, 0, 0, 1, 0, 0, 0, 0, 5}},
        {RK_BSON_INT32, 4, {0}},
        {RK_BSON_TIMESTAMP, 8, {1}},
        {RK_BSON_INT64, 8, {0}},
        {RK_BSON_DECIMAL128, 16, {0}},
    };
    struct rk_envelope envelope;
    struct rk_buf plain;
    (void)state;
    rk_buf_init(&plain, 100);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        uint32_t size = 0;
        assert_int_equal(seal(values[i].type, values[i].value, values[i].len), RK_OK);
        assert_true(rk_envelope_parse(out.data, out.len, &envelope));
        rk_buf_clear(&plain);
        assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_OK);
        assert_true(rk_bson_value_size(values[i].type, plain.data, plain.len, &size));
        assert_int_equal(size, plain.len);
    }
    rk_buf_deinit(&plain);
}

static void test_refusals(void **state)
{
    static const uint8_t number[4] = {7};
    static const uint8_t root[RK_DATA_KEY_LEN] = {1};
    struct rk_envelope envelope;
    struct rk_data_key *local;
    (void)state;
    assert_int_equal(rk_envelope_seal(aead, key, RK_ALGORITHM_DETERMINISTIC, FIELD, NOW,
                                      RK_BSON_INT32, number, sizeof number, &out),
                     RK_ESTATE);
    assert_int_equal(seal(RK_BSON_INT32, number, sizeof number), RK_OK);
    struct rk_buf plain;
    rk_buf_init(&plain, 100);
    assert_true(rk_envelope_parse(out.data, out.len, &envelope));
    /* A key of the same id whose bytes are here, and the other way round. */
    assert_int_equal(rk_data_key_new(5, root, 1, &local, NULL), RK_OK);
    assert_int_equal(rk_envelope_open(aead, local, &envelope, &plain), RK_EAUTH);
    rk_buf_clear(&out);
    assert_int_equal(rk_envelope_seal(aead, local, RK_ALGORITHM_RANDOM, FIELD, NOW, RK_BSON_INT32,
                                      number, sizeof number, &out),
                     RK_OK);
    assert_true(rk_envelope_parse(out.data, out.len, &envelope));
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_EAUTH);
    rk_data_key_unref(local);
    /* Refused by its provider; of a type that it is not. */
    rk_remote_rewind(remote);
    assert_int_equal(seal(RK_BSON_INT32, number, sizeof number), RK_OK);
    assert_true(rk_envelope_parse(out.data, out.len, &envelope));
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_OK);
    rk_remote_refuse(remote, 1);
    rk_remote_rewind(remote);
    assert_int_equal(seal(RK_BSON_INT32, number, sizeof number), RK_OK);
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_EAUTH);
    assert_int_equal(rk_remote_put(remote, 1, "12345", 5), RK_OK);
    rk_remote_rewind(remote);
    assert_int_equal(seal(RK_BSON_INT32, number, sizeof number), RK_OK);
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_EAUTH);
    /* Nobody to ask. */
    rk_aead_set_remote(aead, NULL);
    assert_int_equal(seal(RK_BSON_INT32, number, sizeof number), RK_ENOKEY);
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &plain), RK_ENOKEY);
    /* No name. */
    assert_int_equal(rk_data_key_new_remote(1, "", 1, &local, NULL), RK_EINVAL);
    rk_buf_deinit(&plain);
}

static size_t as_string(const char *text, uint8_t *value)
{
    size_t len = strlen(text);
    rk_store_u32(value, (uint32_t)len + 1);
    memcpy(value + 4, text, len + 1);
    return len + 5;
}

#define BASE64_40 "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYQ=="

static void test_legacy_texts(void **state)
{
    static const char *const no_match[] = {
        "",
        "vault:v1:",
        "vault:v1:YWFhYQ==", /* no room for nonce and tag */
        "vault:v:" BASE64_40,
        "vault:v0:" BASE64_40,
        "vault:v12345678901:" BASE64_40,
        "vault:v1" BASE64_40,
        "Vault:v1:" BASE64_40,
        "vault:v1:\"" BASE64_40,
        "vault:v1:" BASE64_40 "=",
        "vault:v1:" BASE64_40 "YQ",
        "vault:v1:-_" BASE64_40,
        " vault:v1:" BASE64_40,
    };
    const struct rk_legacy_format format = {
        .cipher = RK_LEGACY_VAULT_TRANSIT,
        .encoding = RK_LEGACY_BASE64,
        .key = (char *)(uintptr_t) "transit/app",
        .bson_type = RK_BSON_STRING,
    };
    uint8_t value[200];
    struct rk_keyset *keys;
    struct rk_remote_value question;
    (void)state;
    assert_int_equal(rk_keyset_new(NULL, 0, NULL, 0, &keys, NULL), RK_OK);
    for (size_t i = 0; i < sizeof no_match / sizeof no_match[0]; i++) {
        size_t len = as_string(no_match[i], value);
        assert_false(rk_legacy_matches(&format, RK_BSON_STRING, value, len));
        assert_int_equal(rk_legacy_open(aead, keys, &format, RK_BSON_STRING, value, len, &out),
                         RK_EINVAL);
    }
    size_t len = as_string("vault:v12:" BASE64_40, value);
    assert_true(rk_legacy_matches(&format, RK_BSON_STRING, value, len));
    assert_false(rk_legacy_matches(&format, RK_BSON_CODE, value, len));
    assert_int_equal(rk_legacy_open(aead, keys, &format, RK_BSON_STRING, value, len, &out), RK_OK);
    assert_int_equal(out.len, 5); /* "" for now */
    assert_true(rk_remote_at(remote, 0, &question));
    assert_int_equal(question.op, RK_REMOTE_OPEN_TEXT);
    assert_string_equal(question.key, "transit/app");
    assert_int_equal(question.aad_len, 0);
    assert_int_equal(question.in_len, len - 5);

    assert_int_equal(rk_remote_put(remote, 0, "gr\xc3\xbc\xc3\x9f", 6), RK_OK);
    rk_remote_rewind(remote);
    rk_buf_clear(&out);
    assert_int_equal(rk_legacy_open(aead, keys, &format, RK_BSON_STRING, value, len, &out), RK_OK);
    assert_int_equal(out.len, 11);
    assert_memory_equal(out.data, "\7\0\0\0gr\xc3\xbc\xc3\x9f", 11);
    /* What is no UTF-8 is no string. */
    assert_int_equal(rk_remote_put(remote, 0, "\xff", 1), RK_OK);
    rk_remote_rewind(remote);
    assert_int_equal(rk_legacy_open(aead, keys, &format, RK_BSON_STRING, value, len, &out),
                     RK_EAUTH);
    rk_aead_set_remote(aead, NULL);
    assert_int_equal(rk_legacy_open(aead, keys, &format, RK_BSON_STRING, value, len, &out),
                     RK_ENOKEY);
    rk_keyset_unref(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_passes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_questions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_orders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_envelope, setup, teardown),
        cmocka_unit_test_setup_teardown(test_placeholders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_legacy_texts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
