/*
 * Legacy readers against ciphertexts that Python's cryptography made
 * (tests/integration/legacy_corpus.py wrote legacy_corpus.jsonl), and against odd encodings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hex.h"

#include <openssl/evp.h>
#include <rekey/bson/walk.h>
#include <rekey/crypto/legacy.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS "tests/unit/crypto/legacy_corpus.jsonl"
#define BYTES_MAX 8192u

static struct rk_aead *aead;

static int setup(void **state)
{
    (void)state;
    return rk_aead_new(&aead, NULL) == RK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    rk_aead_free(aead);
    return 0;
}

struct bytes {
    uint8_t data[BYTES_MAX];
    size_t len;
};

/* The text of a member of one flat JSON object: what stands between `"name": ` and , or }. */
static const char *member(const char *line, const char *name, size_t *len)
{
    char quoted[32];
    (void)snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = strstr(line, quoted);
    assert_non_null(at);
    at += strlen(quoted);
    *len = strcspn(at, ",}");
    if (*at == '"') {
        at++;
        *len -= 2;
    }
    return at;
}

static bool member_is(const char *line, const char *name, const char *text)
{
    size_t len;
    const char *at = member(line, name, &len);
    return len == strlen(text) && memcmp(at, text, len) == 0;
}

static void member_hex(const char *line, const char *name, struct bytes *out)
{
    size_t digits;
    const char *at = member(line, name, &digits);
    out->len = unhex_n(at, digits, out->data, sizeof out->data);
}

static struct rk_keyset *keyset_of(const uint8_t *key)
{
    struct rk_legacy_key legacy = {"old", key};
    struct rk_keyset *keys = NULL;
    assert_int_equal(rk_keyset_new(NULL, 0, &legacy, 1, &keys, NULL), RK_OK);
    return keys;
}

/* The bytes as a value of BSON: a binary of this subtype, or (subtype < 0) a string. */
static void as_value(const uint8_t *data, size_t len, int subtype, struct rk_buf *out)
{
    bool string = subtype < 0;
    rk_buf_clear(out);
    assert_int_equal(rk_buf_append_u32(out, (uint32_t)len + (string ? 1 : 0)), RK_OK);
    if (!string) {
        assert_int_equal(rk_buf_append_u8(out, (uint8_t)subtype), RK_OK);
    }
    assert_int_equal(rk_buf_append(out, data, len), RK_OK);
    if (string) {
        assert_int_equal(rk_buf_append_u8(out, 0), RK_OK);
    }
}

static void check_line(const char *line, struct rk_buf *value, struct rk_buf *expect,
                       struct rk_buf *out)
{
    static struct bytes prefix, key, plain, raw;
    struct rk_legacy_format format = {.key = (char *)"old"};
    member_hex(line, "prefix_hex", &prefix);
    member_hex(line, "key_hex", &key);
    member_hex(line, "plaintext_hex", &plain);
    member_hex(line, "value_hex", &raw);
    bool cbc = member_is(line, "cipher", "cbc");
    bool base64 = member_is(line, "encoding", "base64");
    bool string = member_is(line, "bson_type", "2");
    bool valid = member_is(line, "valid", "true");
    format.cipher = cbc ? RK_LEGACY_AES_256_CBC : RK_LEGACY_AES_256_GCM;
    format.encoding = base64 ? RK_LEGACY_BASE64 : RK_LEGACY_BINARY;
    format.bson_type = string ? RK_BSON_STRING : RK_BSON_BINARY;
    format.prefix_len = prefix.len;
    memcpy(format.prefix, prefix.data, prefix.len);

    uint8_t bson_type = base64 ? RK_BSON_STRING : RK_BSON_BINARY;
    struct rk_keyset *keys = keyset_of(key.data);
    as_value(raw.data, raw.len, base64 ? -1 : 0, value);
    rk_buf_clear(out);
    assert_int_equal(rk_buf_append(out, "head", 4), RK_OK);
    enum rk_status status =
        rk_legacy_open(aead, keys, &format, bson_type, value->data, value->len, out);
    bool matches = rk_legacy_matches(&format, bson_type, value->data, value->len);
    if (valid) {
        as_value(plain.data, plain.len, string ? -1 : 0, expect);
        assert_true(matches);
        assert_int_equal(status, RK_OK);
        assert_int_equal(out->len, 4 + expect->len);
        assert_memory_equal(out->data + 4, expect->data, expect->len);
    } else {
        assert_int_equal(status, matches ? RK_EAUTH : RK_EINVAL);
        assert_int_equal(out->len, 4);
    }
    assert_memory_equal(out->data, "head", 4);
    rk_keyset_unref(keys);
}

static void test_corpus(void **state)
{
    (void)state;
    struct rk_buf value, expect, out;
    rk_buf_init(&value, 1u << 16);
    rk_buf_init(&expect, 1u << 16);
    rk_buf_init(&out, 1u << 16);
    FILE *file = fopen(CORPUS, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t cap = 0;
    size_t valid = 0;
    size_t invalid = 0;
    while (getline(&line, &cap, file) > 0) {
        check_line(line, &value, &expect, &out);
        *(member_is(line, "valid", "true") ? &valid : &invalid) += 1;
    }
    assert_true(valid >= 2 * 2 * 2 * 7);
    assert_true(invalid >= 50);
    free(line);
    (void)fclose(file);
    rk_buf_deinit(&value);
    rk_buf_deinit(&expect);
    rk_buf_deinit(&out);
}

static const struct rk_legacy_format gcm_base64 = {.cipher = RK_LEGACY_AES_256_GCM,
                                                   .encoding = RK_LEGACY_BASE64,
                                                   .key = (char *)"old",
                                                   .bson_type = RK_BSON_STRING};

static bool text_matches(const char *text)
{
    struct rk_buf value;
    rk_buf_init(&value, 4096);
    as_value((const uint8_t *)text, strlen(text), -1, &value);
    bool matches = rk_legacy_matches(&gcm_base64, RK_BSON_STRING, value.data, value.len);
    rk_buf_deinit(&value);
    return matches;
}

/* 28 bytes (nonce and tag) are 38 digits, the last with 4 unused bits. */
#define DIGITS_36 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static void test_base64_strict(void **state)
{
    (void)state;
    static const char *const good[] = {
        DIGITS_36 "AA==", DIGITS_36 "AA",   DIGITS_36 "AAA=", DIGITS_36 "AAA",
        DIGITS_36 "AAAA", DIGITS_36 "+/AA", DIGITS_36 "-_AA", DIGITS_36 "/w==",
    };
    static const char *const bad[] = {
        DIGITS_36 "A",
        DIGITS_36 "A===",
        DIGITS_36 "AA=",
        DIGITS_36 "AA===",
        DIGITS_36 "AAA==",
        DIGITS_36 "====",
        DIGITS_36 "AAAA=",
        DIGITS_36 "AA==A",
        DIGITS_36 "A A=",
        DIGITS_36 "AA\n=",
        DIGITS_36 "AAAA\n",
        " " DIGITS_36 "AAA",
        DIGITS_36 "+_AA",
        DIGITS_36 "-/AA",
        DIGITS_36 "AB==",
        DIGITS_36 "AAB=",
        DIGITS_36 "AB",
        DIGITS_36 "AAB",
        DIGITS_36 "A\xc3=",
        DIGITS_36 "=AAA",
        DIGITS_36 "AA.A",
        DIGITS_36,
        "",
        "=",
        "==",
        "====",
        "A",
        "AA==",
        "an ordinary text",
        "=" DIGITS_36 "AAA",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(text_matches(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(text_matches(bad[i]));
    }
}

/* Which values can be in a format at all. */
static void test_matches(void **state)
{
    (void)state;
    uint8_t bytes[64] = {0};
    struct rk_buf value;
    struct rk_legacy_format format = gcm_base64;
    rk_buf_init(&value, 4096);
    format.encoding = RK_LEGACY_BINARY;

    as_value(bytes, 28, 0, &value);
    assert_true(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len - 1));
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, 4));
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, 0));
    assert_false(rk_legacy_matches(&format, RK_BSON_STRING, value.data, value.len));
    assert_false(rk_legacy_matches(&format, RK_BSON_NULL, value.data, 0));
    assert_false(rk_legacy_matches(&gcm_base64, RK_BSON_BINARY, value.data, value.len));

    /* CBC wants an iv and whole blocks; the version bytes do not count. */
    format.cipher = RK_LEGACY_AES_256_CBC;
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 16, 0, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 47, 0, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 32, 0, &value);
    assert_true(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    format.prefix_len = 1;
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 33, 0, &value);
    assert_true(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    format.prefix[0] = 1;
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    format.prefix_len = 0;

    /* Envelopes and CSFLE's binaries are never legacy data. */
    as_value(bytes, 32, 0x8E, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 32, 6, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 32, 0x80, &value);
    assert_true(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));

    /* The old binary subtype has its length inside once more. */
    bytes[0] = 32;
    as_value(bytes, 36, 2, &value);
    assert_true(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    bytes[0] = 31;
    as_value(bytes, 36, 2, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    as_value(bytes, 3, 2, &value);
    assert_false(rk_legacy_matches(&format, RK_BSON_BINARY, value.data, value.len));
    rk_buf_deinit(&value);
}

/* Python: AESGCM(bytes(32)).encrypt(bytes(12), b"A", None), behind the nonce. */
#define SEALED_A "0000000000000000000000008ff29cf0c10636ba8916a6fd48b640c026"

static void test_statuses(void **state)
{
    (void)state;
    uint8_t key[32] = {0};
    uint8_t raw[64];
    struct rk_buf value, out;
    struct rk_keyset *keys = keyset_of(key);
    struct rk_legacy_format format = gcm_base64;
    rk_buf_init(&value, 4096);
    rk_buf_init(&out, 5);
    format.encoding = RK_LEGACY_BINARY;
    as_value(raw, unhex(SEALED_A, raw, sizeof raw), 0, &value);

    assert_int_equal(
        rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
        RK_ELIMIT);
    rk_buf_deinit(&out);
    rk_buf_init(&out, 4096);
    assert_int_equal(
        rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out), RK_OK);
    assert_int_equal(out.len, 6);
    assert_memory_equal(out.data,
                        "\x02\x00\x00\x00"
                        "A",
                        6);
    format.key = (char *)"other";
    assert_int_equal(
        rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
        RK_ENOKEY);
    format.key = (char *)"old";
    format.bson_type = RK_BSON_INT32;
    assert_int_equal(
        rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
        RK_EINVAL);
    format.bson_type = RK_BSON_STRING;
    format.prefix_len = RK_LEGACY_PREFIX_MAX + 1;
    assert_int_equal(
        rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
        RK_EINVAL);
    assert_int_equal(out.len, 6);
    rk_buf_deinit(&value);
    rk_buf_deinit(&out);
    rk_keyset_unref(keys);
}

static size_t gcm_seal(const uint8_t key[32], const uint8_t *plain, size_t len, uint8_t *out)
{
    int n = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memset(out, 0, 12);
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, out), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, out + 12, &n, plain, (int)len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, out + 12 + len, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + 12 + len), 1);
    EVP_CIPHER_CTX_free(ctx);
    return 12 + len + 16;
}

/* A string must be UTF-8 as RFC 3629 has it; the same bytes are fine as a binary. */
static void test_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {
        "\x7f",         "\xc2\x80",     "\xdf\xbf",         "\xe0\xa0\x80",     "\xed\x9f\xbf",
        "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xa9z",
    };
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2z",
        "\xe0\x9f\xbf",
        "\xe0\xa0",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf0\x90\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xe2\x82\xc0",
        "\xe2\x82\xac\x80",
    };
    const size_t n_good = sizeof good / sizeof *good;
    const size_t n_bad = sizeof bad / sizeof *bad;
    uint8_t key[32] = {0};
    struct rk_keyset *keys = keyset_of(key);
    struct rk_legacy_format format = gcm_base64;
    struct rk_buf value, out;
    rk_buf_init(&value, 4096);
    rk_buf_init(&out, 4096);
    format.encoding = RK_LEGACY_BINARY;
    for (size_t i = 0; i < n_good + n_bad; i++) {
        const char *text = i < n_good ? good[i] : bad[i - n_good];
        uint8_t raw[64];
        size_t len = gcm_seal(key, (const uint8_t *)text, strlen(text), raw);
        as_value(raw, len, 0, &value);
        rk_buf_clear(&out);
        format.bson_type = RK_BSON_STRING;
        assert_int_equal(
            rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
            i < n_good ? RK_OK : RK_EAUTH);
        assert_int_equal(out.len, i < n_good ? strlen(text) + 5 : 0);
        format.bson_type = RK_BSON_BINARY;
        assert_int_equal(
            rk_legacy_open(aead, keys, &format, RK_BSON_BINARY, value.data, value.len, &out),
            RK_OK);
    }
    rk_buf_deinit(&value);
    rk_buf_deinit(&out);
    rk_keyset_unref(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),  cmocka_unit_test(test_base64_strict),
        cmocka_unit_test(test_matches), cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
