/* Envelopes: layout, every BSON type, refusals, tampering. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hex.h"

#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>
#include <string.h>

#define KEY_ID 0x01020304u
#define ACTIVATED_AT 1700000000u
#define NOW 1800000000u
#define FIELD 0x9737DBEAu /* of "crm.people/ssn" */

static struct rk_aead *aead;
static struct rk_data_key *key;
static struct rk_buf sealed;
static struct rk_buf opened;

static const enum rk_algorithm algorithms[] = {RK_ALGORITHM_RANDOM, RK_ALGORITHM_DETERMINISTIC};

static int setup(void **state)
{
    (void)state;
    uint8_t root[RK_DATA_KEY_LEN];
    for (size_t i = 0; i < sizeof root; i++) {
        root[i] = (uint8_t)i;
    }
    rk_buf_init(&sealed, 1u << 20);
    rk_buf_init(&opened, 1u << 20);
    return rk_aead_new(&aead, NULL) == RK_OK &&
                   rk_data_key_new(KEY_ID, root, ACTIVATED_AT, &key, NULL) == RK_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    rk_buf_deinit(&sealed);
    rk_buf_deinit(&opened);
    rk_data_key_unref(key);
    rk_aead_free(aead);
    return 0;
}

static enum rk_status seal(enum rk_algorithm algorithm, uint8_t type, const void *value, size_t len)
{
    rk_buf_clear(&sealed);
    return rk_envelope_seal(aead, key, algorithm, FIELD, NOW, type, value, len, &sealed);
}

static enum rk_status open_bytes(const uint8_t *data, size_t len)
{
    struct rk_envelope envelope;
    rk_buf_clear(&opened);
    return rk_envelope_parse(data, len, &envelope) ? rk_envelope_open(aead, key, &envelope, &opened)
                                                   : RK_EINVAL;
}

/* A value of each type that can be encrypted, as BSON lays it out. */
struct value {
    uint8_t type;
    const char *bytes;
    size_t len;
};
#define VALUE(type, bytes)                                                                         \
    {                                                                                              \
        (type), (bytes), sizeof(bytes) - 1                                                         \
    }
static const struct value values[] = {
    VALUE(RK_BSON_DOUBLE, "\x00\x00\x00\x00\x00\x00\xf8\x7f"), /* NaN */
    VALUE(RK_BSON_STRING, "\x01\x00\x00\x00\x00"),
    VALUE(RK_BSON_STRING, "\x07\x00\x00\x00g\x00heim\x00"),
    VALUE(RK_BSON_DOCUMENT, "\x05\x00\x00\x00\x00"),
    VALUE(RK_BSON_DOCUMENT, "\x0c\x00\x00\x00\x10"
                            "a\x00\x01\x00\x00\x00\x00"),
    VALUE(RK_BSON_ARRAY, "\x0b\x00\x00\x00\x0a"
                         "0\x00\x0a"
                         "1\x00\x00"),
    VALUE(RK_BSON_BINARY, "\x00\x00\x00\x00\x00"),
    VALUE(RK_BSON_BINARY, "\x03\x00\x00\x00\x80\x01\x02\x03"),
    VALUE(RK_BSON_OID, "0123456789ab"),
    VALUE(RK_BSON_BOOL, "\x00"),
    VALUE(RK_BSON_BOOL, "\x01"),
    VALUE(RK_BSON_DATE, "\xff\xff\xff\xff\xff\xff\xff\xff"),
    VALUE(RK_BSON_REGEX, "^a.*\x00im\x00"),
    VALUE(RK_BSON_DBPOINTER, "\x02\x00\x00\x00"
                             "c\x00"
                             "0123456789ab"),
    VALUE(RK_BSON_CODE, "\x02\x00\x00\x00;\x00"),
    VALUE(RK_BSON_SYMBOL, "\x02\x00\x00\x00s\x00"),
    VALUE(RK_BSON_CODEWSCOPE, "\x0f\x00\x00\x00\x02\x00\x00\x00;\x00\x05\x00\x00\x00\x00"),
    VALUE(RK_BSON_INT32, "\xff\xff\xff\x7f"),
    VALUE(RK_BSON_TIMESTAMP, "\x01\x00\x00\x00\x02\x00\x00\x00"),
    VALUE(RK_BSON_INT64, "\x00\x00\x00\x00\x00\x00\x00\x80"),
    VALUE(RK_BSON_DECIMAL128, "0123456789abcdef"),
};
#define N_VALUES (sizeof values / sizeof *values)

/* Things that are no value of their type: too short, too long, lying inside. */
static const struct value malformed[] = {
    VALUE(RK_BSON_NULL, ""),
    VALUE(RK_BSON_UNDEFINED, ""),
    VALUE(RK_BSON_MINKEY, ""),
    VALUE(RK_BSON_MAXKEY, ""),
    VALUE(0x00, "\x00"),
    VALUE(0x14, "\x00\x00\x00\x00"),
    VALUE(RK_BSON_INT32, ""),
    VALUE(RK_BSON_INT32, "\x01\x02\x03"),
    VALUE(RK_BSON_INT32, "\x01\x02\x03\x04\x05"),
    VALUE(RK_BSON_BOOL, "\x02"),
    VALUE(RK_BSON_STRING, "\x01\x00\x00\x00"),
    VALUE(RK_BSON_STRING, "\x00\x00\x00\x00\x00"),
    VALUE(RK_BSON_STRING, "\x02\x00\x00\x00xy"),
    VALUE(RK_BSON_STRING, "\xff\xff\xff\xffx\x00"),
    VALUE(RK_BSON_STRING, "\x01\x00\x00\x00\x00z"),
    VALUE(RK_BSON_BINARY, "\xff\xff\xff\xff\x00"),
    VALUE(RK_BSON_REGEX, "a\x00"),
    VALUE(RK_BSON_DOCUMENT, "\x06\x00\x00\x00\x00"),
    VALUE(RK_BSON_DOCUMENT, "\x05\x00\x00\x00\x00\x00"),
    VALUE(RK_BSON_DOCUMENT, "\x0c\x00\x00\x00\x08"
                            "a\x00\x02\x00\x00\x00\x00"),
    VALUE(RK_BSON_ARRAY, "\x0c\x00\x00\x00\x02"
                         "0\x00\x09\x00\x00\x00\x00"),
    VALUE(RK_BSON_CODEWSCOPE, "\x0e\x00\x00\x00\x02\x00\x00\x00;\x00\x05\x00\x00\x00\x00"),
    VALUE(RK_BSON_CODEWSCOPE, "\x13\x00\x00\x00\x02\x00\x00\x00;\x00\x09\x00\x00\x00\x08"
                              "a\x00\x05\x00"),
};

/* Both layouts, byte for byte, as an independent program (Python's cryptography) makes them. */
static void test_layout(void **state)
{
    (void)state;
    static const char value[] = "\x08\x00\x00\x00Rek\xc3\xa9y!";
    uint8_t expect[128];
    size_t len = unhex("524be11e0102020001020304eadb379700f15365"
                       "20feb6528d9bae99d550f6a09302eb2662021f44cb8c9d7169a5543c",
                       expect, sizeof expect);
    assert_int_equal(seal(RK_ALGORITHM_DETERMINISTIC, RK_BSON_STRING, value, sizeof value), RK_OK);
    assert_int_equal(sealed.len, len);
    assert_memory_equal(sealed.data, expect, len);

    len = unhex("524be11e0101020001020304eadb379700d2496b6465666768696a6b6c6d6e6f7071727374757677"
                "78797a7b11012ee492e4d3b1baef217df03caec7616e815ef71b871f71a484f1",
                expect, sizeof expect);
    assert_int_equal(open_bytes(expect, len), RK_OK);
    assert_int_equal(opened.len, sizeof value);
    assert_memory_equal(opened.data, value, sizeof value);

    struct rk_envelope envelope;
    assert_true(rk_envelope_parse(expect, len, &envelope));
    assert_int_equal(envelope.algorithm, RK_ALGORITHM_RANDOM);
    assert_int_equal(envelope.bson_type, RK_BSON_STRING);
    assert_int_equal(envelope.key_id, KEY_ID);
    assert_int_equal(envelope.field_id, rk_envelope_field_id("crm.people/ssn"));
    assert_int_equal(envelope.field_id, FIELD);
    assert_int_equal(envelope.encrypted_at_s, NOW);
    assert_ptr_equal(envelope.data, expect);
    assert_int_equal(envelope.len, len);
}

static void test_every_type(void **state)
{
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        for (size_t i = 0; i < N_VALUES; i++) {
            const struct value *v = &values[i];
            assert_int_equal(seal(algorithms[a], v->type, v->bytes, v->len), RK_OK);
            assert_int_equal(sealed.len, rk_envelope_size(key, algorithms[a], v->len));
            assert_int_equal(open_bytes(sealed.data, sealed.len), RK_OK);
            assert_int_equal(opened.len, v->len);
            assert_memory_equal(opened.data, v->bytes, v->len);
        }
    }
}

/* Not sealed; and where an envelope with a true tag holds such bytes, not opened. */
static void test_malformed_values(void **state)
{
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
            const struct value *v = &malformed[i];
            const uint8_t *value = (const uint8_t *)v->bytes;
            assert_int_equal(seal(algorithms[a], v->type, v->bytes, v->len), RK_EINVAL);
            assert_int_equal(sealed.len, 0);

            uint8_t forged[128] = {'R', 'K', 0xE1, 0x1E, 1, (uint8_t)algorithms[a], v->type};
            uint8_t *body = forged + RK_ENVELOPE_HEADER_LEN;
            rk_store_be32(forged + 8, KEY_ID);
            enum rk_status status =
                algorithms[a] == RK_ALGORITHM_RANDOM
                    ? rk_aead_xaes_seal(aead, key, body, forged, RK_ENVELOPE_HEADER_LEN, value,
                                        v->len, body + RK_XAES_NONCE_LEN)
                    : rk_aead_siv_seal(aead, key, forged, RK_ENVELOPE_HEADER_LEN, value, v->len,
                                       body, body + RK_SIV_TAG_LEN);
            assert_int_equal(status, RK_OK);
            assert_int_equal(open_bytes(forged, rk_envelope_size(key, algorithms[a], v->len)),
                             RK_EAUTH);
            assert_int_equal(opened.len, 0);
        }
    }
    assert_int_equal(seal((enum rk_algorithm)3, RK_BSON_BOOL, "\x01", 1), RK_EINVAL);
    assert_int_equal(seal((enum rk_algorithm)0, RK_BSON_BOOL, "\x01", 1), RK_EINVAL);
}

/* 200 levels are sealed, 201 are not. */
static void test_depth(void **state)
{
    (void)state;
    uint8_t doc[5 + 200 * 8];
    for (size_t levels = 200; levels <= 201; levels++) {
        size_t len = 5 + (levels - 1) * 8;
        size_t size = len;
        uint8_t *p = doc;
        memset(doc, 0, sizeof doc);
        for (size_t i = 0; i < levels; i++, p += 7, size -= 8) {
            rk_store_u32(p, (uint32_t)size);
            if (i + 1 < levels) {
                p[4] = RK_BSON_DOCUMENT;
                p[5] = 'd';
            }
        }
        assert_int_equal(seal(RK_ALGORITHM_RANDOM, RK_BSON_DOCUMENT, doc, len),
                         levels == 200 ? RK_OK : RK_EINVAL);
    }
}

/* Whatever single bit is wrong, or however much is missing: refused, and nothing comes out. */
static void test_altered(void **state)
{
    (void)state;
    static const char value[] = "\x0e\x00\x00\x00secret marker";
    uint8_t copy[128];
    /* All of the buffer's memory is known from here on, so that a plaintext left in it shows. */
    assert_int_equal(rk_buf_reserve(&opened, 512), RK_OK);
    rk_buf_cleanse(&opened);
    for (size_t a = 0; a < 2; a++) {
        assert_int_equal(seal(algorithms[a], RK_BSON_STRING, value, sizeof value), RK_OK);
        for (size_t bit = 0; bit < sealed.len * 8; bit++) {
            memcpy(copy, sealed.data, sealed.len);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            enum rk_status status = open_bytes(copy, sealed.len);
            assert_true(status == RK_EINVAL || status == RK_EAUTH || status == RK_ENOKEY);
            assert_int_equal(opened.len, 0);
            assert_null(memmem(opened.data, opened.cap, "marker", 6));
        }
        for (size_t len = 0; len < sealed.len; len++) {
            assert_int_not_equal(open_bytes(sealed.data, len), RK_OK);
        }
        memcpy(copy, sealed.data, sealed.len);
        copy[sealed.len] = 0;
        assert_int_equal(open_bytes(copy, sealed.len + 1), RK_EAUTH);
    }
}

static void test_parse_refuses(void **state)
{
    (void)state;
    struct rk_envelope envelope;
    uint8_t copy[64];
    static const struct {
        size_t at;
        uint8_t byte;
    } wrong[] = {{0, 'r'}, {3, 0x1F}, {4, 0}, {4, 2}, {5, 0}, {5, 3}, {7, 1}, {7, 0x80}};
    assert_int_equal(seal(RK_ALGORITHM_DETERMINISTIC, RK_BSON_BOOL, "\x01", 1), RK_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(copy, sealed.data, sealed.len);
        copy[wrong[i].at] = wrong[i].byte;
        assert_false(rk_envelope_parse(copy, sealed.len, &envelope));
    }
    memcpy(copy, sealed.data, sealed.len);
    memset(copy + 8, 0, 4); /* key id 0 */
    assert_false(rk_envelope_parse(copy, sealed.len, &envelope));
    /* Shortest: header, tag, and for random ones the nonce. */
    assert_true(rk_envelope_parse(sealed.data, 36, &envelope));
    assert_false(rk_envelope_parse(sealed.data, 35, &envelope));
    memcpy(copy, sealed.data, sealed.len);
    copy[5] = RK_ALGORITHM_RANDOM;
    assert_true(rk_envelope_parse(copy, 60, &envelope));
    assert_false(rk_envelope_parse(copy, 59, &envelope));
    assert_false(rk_envelope_parse(NULL, 0, &envelope));
}

static void test_equality(void **state)
{
    (void)state;
    uint8_t first[64];
    for (size_t a = 0; a < 2; a++) {
        rk_buf_clear(&sealed);
        assert_int_equal(rk_envelope_seal(aead, key, algorithms[a], FIELD, 1, RK_BSON_INT32,
                                          (const uint8_t *)"\1\2\3\4", 4, &sealed),
                         RK_OK);
        size_t len = sealed.len;
        memcpy(first, sealed.data, len);
        rk_buf_clear(&sealed);
        assert_int_equal(rk_envelope_seal(aead, key, algorithms[a], FIELD, 2, RK_BSON_INT32,
                                          (const uint8_t *)"\1\2\3\4", 4, &sealed),
                         RK_OK);
        if (algorithms[a] == RK_ALGORITHM_DETERMINISTIC) {
            assert_memory_equal(sealed.data, first, len);
        } else {
            assert_memory_not_equal(sealed.data + 20, first + 20, RK_XAES_NONCE_LEN);
            assert_memory_not_equal(sealed.data + 44, first + 44, 4);
        }
        /* Another field, another type: another ciphertext. */
        rk_buf_clear(&sealed);
        assert_int_equal(rk_envelope_seal(aead, key, algorithms[a], FIELD + 1, 2, RK_BSON_INT32,
                                          (const uint8_t *)"\1\2\3\4", 4, &sealed),
                         RK_OK);
        assert_memory_not_equal(sealed.data + 20, first + 20, len - 20);
    }
}

static void test_keys(void **state)
{
    (void)state;
    uint8_t root[RK_DATA_KEY_LEN] = {1};
    struct rk_data_key *other = NULL;
    struct rk_data_key *impostor = NULL;
    struct rk_envelope envelope;
    assert_int_equal(rk_data_key_new(KEY_ID + 1, root, 0, &other, NULL), RK_OK);
    assert_int_equal(rk_data_key_new(KEY_ID, root, 0, &impostor, NULL), RK_OK);
    for (size_t a = 0; a < 2; a++) {
        assert_int_equal(seal(algorithms[a], RK_BSON_BOOL, "\x01", 1), RK_OK);
        assert_true(rk_envelope_parse(sealed.data, sealed.len, &envelope));
        rk_buf_clear(&opened);
        assert_int_equal(rk_envelope_open(aead, NULL, &envelope, &opened), RK_ENOKEY);
        assert_int_equal(rk_envelope_open(aead, other, &envelope, &opened), RK_ENOKEY);
        assert_int_equal(rk_envelope_open(aead, impostor, &envelope, &opened), RK_EAUTH);
        assert_int_equal(opened.len, 0);
    }
    rk_data_key_unref(other);
    rk_data_key_unref(impostor);
}

/* Appends, and at the buffer's cap leaves what was there. */
static void test_append_and_limit(void **state)
{
    (void)state;
    struct rk_buf small;
    struct rk_envelope envelope;
    rk_buf_init(&small, 4 + rk_envelope_size(key, RK_ALGORITHM_RANDOM, 1));
    assert_int_equal(rk_buf_append(&small, "head", 4), RK_OK);
    assert_int_equal(rk_envelope_seal(aead, key, RK_ALGORITHM_RANDOM, FIELD, NOW, RK_BSON_INT32,
                                      (const uint8_t *)"\1\2\3\4", 4, &small),
                     RK_ELIMIT);
    assert_int_equal(small.len, 4);
    assert_int_equal(rk_envelope_seal(aead, key, RK_ALGORITHM_RANDOM, FIELD, NOW, RK_BSON_BOOL,
                                      (const uint8_t *)"\1", 1, &small),
                     RK_OK);
    assert_int_equal(small.len, small.max);
    assert_memory_equal(small.data, "head", 4);
    assert_true(rk_envelope_parse(small.data + 4, small.len - 4, &envelope));
    assert_int_equal(rk_envelope_open(aead, key, &envelope, &small), RK_ELIMIT);
    assert_int_equal(small.len, small.max);
    rk_buf_deinit(&small);
}

static void test_claims_and_scan(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0x8E, 'R', 'K', 0x8E, 'R', 'K', 0xE1, 0x1E, 9};
    assert_true(rk_envelope_claims(0x8E, bytes + 5, 4));
    assert_true(rk_envelope_claims(0x8E, bytes + 5, 5));
    assert_false(rk_envelope_claims(0x8E, bytes + 5, 3));
    assert_false(rk_envelope_claims(0x8E, bytes + 4, 5));
    assert_false(rk_envelope_claims(0x80, bytes + 5, 5));
    assert_false(rk_envelope_claims(0x8E, NULL, 0));
    assert_ptr_equal(rk_envelope_scan(bytes, sizeof bytes), bytes + 4);
    assert_ptr_equal(rk_envelope_scan(bytes, 9), bytes + 4);
    assert_null(rk_envelope_scan(bytes, 8));
    assert_null(rk_envelope_scan(bytes + 5, 5));
    assert_null(rk_envelope_scan(NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),           cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_malformed_values), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_altered),          cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_equality),         cmocka_unit_test(test_keys),
        cmocka_unit_test(test_append_and_limit), cmocka_unit_test(test_claims_and_scan),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
