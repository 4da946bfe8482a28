/* Documents: what is encrypted, what is refused, what comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../../src/policy/policy_internal.h"
#include "fixture.h"

static struct fixture f;
static struct rk_policy_set *set;
static const struct rk_policy *policy;
static struct rk_buf in, sealed, out;
static struct rk_error err;

/* Key 0x11 x 32, made with the Python package cryptography: version byte 01, iv 00..0f, AES-CBC. */
#define LEGACY_SSN "AQABAgMEBQYHCAkKCwwNDg8h7yrJw4EsTgpUEvRB9KCg"   /* 078-05-1120 */
#define LEGACY_PHONE "AQABAgMEBQYHCAkKCwwNDg83KbVsDJsy3NmUKJ8Gv8eJ" /* 555-0100 */
#define LEGACY_OTHER "AQABAgMEBQYHCAkKCwwNDg+K1MwqJrknkP4ktPInlkfV" /* random bytes, no padding */

static int setup(void **state)
{
    (void)state;
    static const struct rk_legacy_format formats[] = {
        {.cipher = RK_LEGACY_AES_256_GCM,
         .encoding = RK_LEGACY_BINARY,
         .key = (char *)"app",
         .bson_type = RK_BSON_STRING},
        {.cipher = RK_LEGACY_AES_256_CBC,
         .encoding = RK_LEGACY_BASE64,
         .prefix = {0x01},
         .prefix_len = 1,
         .key = (char *)"app",
         .bson_type = RK_BSON_STRING},
    };
    static const struct rk_legacy_format lost = {.cipher = RK_LEGACY_AES_256_GCM,
                                                 .encoding = RK_LEGACY_BINARY,
                                                 .key = (char *)"lost",
                                                 .bson_type = RK_BSON_BINARY};
    static const struct rk_field_spec fields[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "contacts.phone", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "a.b.c", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "old", .algorithm = RK_ALGORITHM_RANDOM, .legacy = formats, .n_legacy = 2},
        {.path = "olds.v", .algorithm = RK_ALGORITHM_RANDOM, .legacy = formats, .n_legacy = 2},
        {.path = "lost", .algorithm = RK_ALGORITHM_RANDOM, .legacy = &lost, .n_legacy = 1},
    };
    static const struct rk_policy_spec spec = {.ns = "db.people", .fields = fields, .n_fields = 6};
    fixture_init(&f);
    rk_buf_init(&in, FIXTURE_BYTES_MAX);
    rk_buf_init(&sealed, FIXTURE_BYTES_MAX);
    rk_buf_init(&out, FIXTURE_BYTES_MAX);
    if (rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &set, &err) != RK_OK) {
        return -1;
    }
    policy = rk_policy_set_at(set, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rk_policy_set_unref(set);
    fixture_deinit(&f);
    rk_buf_deinit(&in);
    rk_buf_deinit(&sealed);
    rk_buf_deinit(&out);
    return 0;
}

static struct rk_bson_view doc(const char *json)
{
    rk_buf_clear(&in);
    return json_doc(&in, json);
}

static enum rk_verdict encrypt(struct rk_bson_view view)
{
    err = (struct rk_error){0};
    return encrypt_doc(&f, policy, view, &sealed, &err);
}

static enum rk_verdict decrypt(struct rk_bson_view view)
{
    err = (struct rk_error){0};
    return decrypt_doc(&f, RK_UNDECRYPTABLE_ERROR, policy, view, &out, &err);
}

static void assert_same(const struct rk_buf *a, struct rk_bson_view b)
{
    assert_int_equal(a->len, b.len);
    assert_memory_equal(a->data, b.data, b.len);
}

static void assert_rejected(enum rk_verdict verdict, int code, const char *const *words)
{
    assert_int_equal(verdict, RK_VERDICT_REJECT);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, "db.people"));
    for (; *words != NULL; words++) {
        if (strstr(err.message, *words) == NULL) {
            fail_msg("\"%s\" lacks \"%s\"", err.message, *words);
        }
    }
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_round_trip(void **state)
{
    (void)state;
    struct rk_bson_view plain =
        doc("{'_id': 1, 'ssn': 'MARKER', 'n': 5, 'contacts': [{'phone': 'MARKER', 'k': 1}, 'x',"
            " [{'phone': 'MARKER'}], {'phone': null}], 'a': {'b': {'c': {'deep': ['MARKER']}, 'd': "
            "2}, 'x': 'y'}, 'tail': true}");
    uint64_t before = f.crypt.values_encrypted;
    assert_int_equal(encrypt(plain), RK_VERDICT_REPLACE);
    assert_int_equal(f.crypt.values_encrypted - before, 4);
    assert_null(memmem(sealed.data, sealed.len, "MARKER", 6));
    struct rk_bson_view view = view_of(&sealed);
    assert_true(rk_bson_validate(&view, 200));
    assert_true(is_envelope_at(view, "ssn", NEW_KEY));
    assert_true(is_envelope_at(view, "contacts.0.phone", NEW_KEY));
    assert_true(is_envelope_at(view, "contacts.2.0.phone", NEW_KEY));
    assert_true(is_envelope_at(view, "a.b.c", NEW_KEY));
    assert_false(is_envelope_at(view, "contacts.3.phone", NEW_KEY)); /* null stays null */

    before = f.crypt.values_decrypted;
    assert_int_equal(decrypt(view), RK_VERDICT_REPLACE);
    assert_int_equal(f.crypt.values_decrypted - before, 4);
    assert_same(&out, plain);
}

/* Every BSON type at a random field, byte for byte. */
static void test_all_types(void **state)
{
    (void)state;
    static const struct {
        uint8_t type;
        const char *value;
        size_t len;
    } values[] = {
        {RK_BSON_DOUBLE, "\x01\x02\x03\x04\x05\x06\xf8\x7f", 8}, /* a NaN with payload */
        {RK_BSON_STRING, "\x03\0\0\0a\0\0", 7},                  /* holds a NUL */
        {RK_BSON_DOCUMENT, "\x05\0\0\0\0", 5},
        {RK_BSON_ARRAY,
         "\x08\0\0\0\x0A"
         "0\0\0",
         8},
        {RK_BSON_BINARY, "\0\0\0\0\0", 5},
        {RK_BSON_BINARY,
         "\2\0\0\0\x8E"
         "RK",
         7}, /* the envelope's subtype without its magic */
        {RK_BSON_OID, "0123456789ab", 12},
        {RK_BSON_BOOL, "\1", 1},
        {RK_BSON_DATE, "\xff\xff\xff\xff\xff\xff\xff\xff", 8},
        {RK_BSON_REGEX, "a.*\0i\0", 6},
        {RK_BSON_DBPOINTER,
         "\2\0\0\0c\0"
         "0123456789ab",
         18},
        {RK_BSON_CODE, "\2\0\0\0f\0", 6},
        {RK_BSON_SYMBOL, "\2\0\0\0s\0", 6},
        {RK_BSON_CODEWSCOPE, "\x0f\0\0\0\2\0\0\0f\0\5\0\0\0\0", 15},
        {RK_BSON_INT32, "\1\2\3\4", 4},
        {RK_BSON_TIMESTAMP, "\1\2\3\4\5\6\7\x8", 8},
        {RK_BSON_INT64, "\1\2\3\4\5\6\7\x8", 8},
        {RK_BSON_DECIMAL128, "0123456789abcdef", 16},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct rk_bson_writer w;
        rk_buf_clear(&in);
        rk_bson_writer_init(&w, &in);
        rk_bson_begin(&w);
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "contacts", 8);
        rk_bson_put(&w, values[i].type, "phone", 5, values[i].value, values[i].len);
        rk_bson_end(&w);
        rk_bson_end(&w);
        struct rk_bson_view plain = view_of(&in);
        assert_true(rk_bson_validate(&plain, 200));
        if (encrypt(plain) != RK_VERDICT_REPLACE) {
            fail_msg("type %u: %s", values[i].type, err.message);
        }
        assert_true(is_envelope_at(view_of(&sealed), "contacts.phone", NEW_KEY));
        assert_int_equal(decrypt(view_of(&sealed)), RK_VERDICT_REPLACE);
        assert_same(&out, plain);
    }
}

static enum rk_verdict encrypt_type(uint8_t type, const char *path, const char *value, size_t len)
{
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    rk_bson_put(&w, type, path, strlen(path), value, len);
    rk_bson_end(&w);
    return encrypt(view_of(&in));
}

static void test_refused_types(void **state)
{
    (void)state;
    static const char zeros[16] = {0};
    assert_rejected(encrypt_type(RK_BSON_UNDEFINED, "old", "", 0), 31041,
                    WORDS("\"old\"", "undefined", "null"));
    assert_rejected(encrypt_type(RK_BSON_MINKEY, "old", "", 0), 31041, WORDS("minKey"));
    assert_rejected(encrypt_type(RK_BSON_MAXKEY, "ssn", "", 0), 31041, WORDS("\"ssn\"", "maxKey"));

    assert_rejected(encrypt_type(RK_BSON_DOUBLE, "ssn", zeros, 8), 31041,
                    WORDS("\"ssn\"", "double", "algorithm random"));
    assert_rejected(encrypt_type(RK_BSON_DECIMAL128, "ssn", zeros, 16), 31041, WORDS("decimal"));
    assert_rejected(encrypt_type(RK_BSON_DOCUMENT, "ssn", "\5\0\0\0\0", 5), 31041, WORDS("object"));
    assert_rejected(encrypt_type(RK_BSON_ARRAY, "ssn", "\5\0\0\0\0", 5), 31041, WORDS("array"));
    assert_rejected(encrypt_type(RK_BSON_REGEX, "ssn", "\0\0", 2), 31041, WORDS("regex"));
    assert_rejected(encrypt_type(RK_BSON_CODEWSCOPE, "ssn", "\x0f\0\0\0\2\0\0\0f\0\5\0\0\0\0", 15),
                    31041, WORDS("javascriptWithScope"));
    assert_int_equal(encrypt_type(RK_BSON_NULL, "ssn", "", 0), RK_VERDICT_FORWARD);
    assert_same(&sealed, view_of(&in));
    assert_int_equal(encrypt_type(RK_BSON_INT64, "ssn", zeros, 8), RK_VERDICT_REPLACE);
}

static void test_deterministic(void **state)
{
    (void)state;
    struct rk_buf first;
    rk_buf_init(&first, FIXTURE_BYTES_MAX);
    struct rk_bson_view plain = doc("{'ssn': 'x', 'contacts': {'phone': 'y'}}");
    struct rk_bson_elem a, b;
    assert_int_equal(encrypt_doc(&f, policy, plain, &first, &err), RK_VERDICT_REPLACE);
    f.crypt.now_s++;
    assert_int_equal(encrypt(plain), RK_VERDICT_REPLACE);
    assert_true(find_path(view_of(&first), "ssn", &a) && find_path(view_of(&sealed), "ssn", &b));
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.start, b.start, a.len);
    assert_true(find_path(view_of(&first), "contacts.phone", &a) &&
                find_path(view_of(&sealed), "contacts.phone", &b));
    assert_memory_not_equal(a.start, b.start, a.len);
    rk_buf_deinit(&first);
}

static void test_untouched(void **state)
{
    (void)state;
    static const char *const docs[] = {
        "{}",
        "{'x': 1, 'ssnx': 2, 'b': {'ssn': 'not here'}}",
        "{'contacts': 'a scalar above', 'a': [1, 2, [3]], 'ssn': null}",
        "{'contacts': {'other': 1}, 'a': {'b': []}}",
        "{'0': {'ssn': 'the top level is no array'}, '$ref': 'c', 'x.ssn': 1, '.ssn': 1}",
        "{'contacts': {'mail.phone': 1}}",
    };
    for (size_t i = 0; i < sizeof docs / sizeof docs[0]; i++) {
        struct rk_bson_view plain = doc(docs[i]);
        assert_int_equal(encrypt(plain), RK_VERDICT_FORWARD);
        assert_same(&sealed, plain);
        assert_int_equal(decrypt(plain), RK_VERDICT_FORWARD);
        assert_same(&out, plain);
    }
}

/* mongod stores such keys, and no path would ever reach them: the value would stay plaintext. */
static void test_keys_that_spell_paths(void **state)
{
    (void)state;
    static const char *const dotted[] = {
        "{'contacts.phone': 'x'}",
        "{'contacts.0.phone': 'x'}",
        "{'contacts.x': 1, 'a.b': {}}",
        "{'ssn.x': 'x'}",
        "{'ssn.': 'x'}",
        "{'a': {'b.c': 'x'}}",
        "{'a': [{'b.c': 'x'}]}",
        "{'a': {'b': {'c.d': 1}}}",
        "{'contacts': {'0.phone': 1}}",
        "{'contacts': [[{'0.phone': 1}]]}",
    };
    for (size_t i = 0; i < sizeof dotted / sizeof dotted[0]; i++) {
        assert_rejected(encrypt(doc(dotted[i])), 57, WORDS("nest documents"));
        assert_null(strstr(err.message, "'x'"));
    }
    assert_rejected(encrypt(doc("{'$': {'ssn': 'x'}}")), 52, WORDS("\"$\""));
    assert_rejected(encrypt(doc("{'contacts': {'$[]': {'phone': 'x'}}}")), 52, WORDS("\"$[]\""));
}

/* $set of contacts.0.phone makes {contacts: {0: {phone}}} where there is no array. */
static void test_numeric_keys(void **state)
{
    (void)state;
    struct rk_bson_view plain = doc("{'contacts': {'0': {'phone': 'x'}, '1': 'scalar'}}");
    assert_int_equal(encrypt(plain), RK_VERDICT_REPLACE);
    assert_true(is_envelope_at(view_of(&sealed), "contacts.0.phone", NEW_KEY));
    assert_int_equal(decrypt(view_of(&sealed)), RK_VERDICT_REPLACE);
    assert_same(&out, plain);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    struct rk_bson_view plain = doc("{'ssn': 'MARKER', 'x': 1, 'ssn': 'MARKER', 'ssn': null}");
    assert_int_equal(encrypt(plain), RK_VERDICT_REPLACE);
    assert_null(memmem(sealed.data, sealed.len, "MARKER", 6));
    assert_int_equal(decrypt(view_of(&sealed)), RK_VERDICT_REPLACE);
    assert_same(&out, plain);
}

static void put_sealed(struct rk_bson_writer *w, const char *path, const struct rk_data_key *key,
                       const struct rk_field *field, enum rk_algorithm algorithm, size_t flip)
{
    static const uint8_t value[] = {2, 0, 0, 0, 'x', 0};
    struct rk_buf envelope;
    rk_buf_init(&envelope, 4096);
    assert_int_equal(rk_envelope_seal(f.aead, key, algorithm, field->field_id, 1, RK_BSON_STRING,
                                      value, sizeof value, &envelope),
                     RK_OK);
    if (flip > 0) {
        envelope.data[envelope.len - flip] ^= 1;
    }
    rk_bson_put_binary(w, path, strlen(path), RK_ENVELOPE_SUBTYPE, envelope.data, envelope.len);
    rk_buf_deinit(&envelope);
}

/* {path: an envelope} */
static struct rk_bson_view sealed_doc(const char *path, const struct rk_data_key *key,
                                      const struct rk_field *field, size_t flip)
{
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    put_sealed(&w, path, key, field, field->algorithm, flip);
    rk_bson_end(&w);
    return view_of(&in);
}

static const struct rk_field *field_of(const char *path)
{
    return rk_path_relate(policy, path, strlen(path)).field;
}

static void test_envelopes_handed_in(void **state)
{
    (void)state;
    const struct rk_field *ssn = field_of("ssn");
    struct rk_bson_view genuine = sealed_doc("ssn", f.old_key, ssn, 0);
    assert_int_equal(encrypt(genuine), RK_VERDICT_FORWARD);
    assert_same(&sealed, genuine);

    assert_rejected(encrypt(sealed_doc("ssn", f.old_key, ssn, 1)), 31041,
                    WORDS("\"ssn\"", "authenticate"));
    assert_rejected(encrypt(sealed_doc("old", f.old_key, ssn, 0)), 31041, WORDS("another field"));
    struct rk_field random = *ssn;
    random.algorithm = RK_ALGORITHM_RANDOM;
    assert_rejected(encrypt(sealed_doc("ssn", f.old_key, &random, 0)), 31041, WORDS("algorithm"));

    struct rk_bson_view unknown = sealed_doc("ssn", f.unknown_key, ssn, 0);
    assert_int_equal(encrypt(unknown), RK_VERDICT_HOLD);
    assert_int_equal(f.crypt.missing_key, UNKNOWN_KEY);
    const uint32_t absent[] = {3, UNKNOWN_KEY};
    f.crypt.absent_keys = absent;
    f.crypt.n_absent = 2;
    assert_rejected(encrypt(unknown), 31041, WORDS("does not exist"));
    f.crypt.n_absent = 0;

    /* Magic, then nothing that parses. */
    assert_rejected(encrypt_type(RK_BSON_BINARY, "ssn", "\4\0\0\0\x8ERK\xE1\x1E", 9), 31041,
                    WORDS("damaged"));
}

static void test_no_current_key(void **state)
{
    (void)state;
    fixture_keys(&f, 0);
    f.crypt.missing_key = 99;
    assert_int_equal(encrypt(doc("{'ssn': 'x'}")), RK_VERDICT_HOLD);
    assert_int_equal(f.crypt.missing_key, 0);
    assert_int_equal(encrypt(doc("{'ssn': null, 'x': 1}")), RK_VERDICT_FORWARD);
    static const uint32_t absent = 0;
    f.crypt.absent_keys = &absent;
    f.crypt.n_absent = 1;
    assert_rejected(encrypt(doc("{'ssn': 'x'}")), 96, WORDS("\"ssn\"", "keys rotate"));
    f.crypt.n_absent = 0;
    fixture_keys(&f, NEW_KEY);
}

static void test_decrypt_anywhere(void **state)
{
    (void)state;
    const struct rk_field *ssn = field_of("ssn");
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    put_sealed(&w, "renamed", f.new_key, ssn, ssn->algorithm, 0);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "list", 4);
    put_sealed(&w, "0", f.old_key, ssn, ssn->algorithm, 0);
    rk_bson_put_int32(&w, "1", 1);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "2", 1);
    put_sealed(&w, "b.c", f.old_key, ssn, RK_ALGORITHM_RANDOM, 0);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_bool(&w, "tail", true);
    rk_bson_end(&w);

    uint64_t old = f.crypt.values_old_key;
    assert_int_equal(decrypt(view_of(&in)), RK_VERDICT_REPLACE);
    assert_int_equal(f.crypt.values_old_key - old, 2);
    assert_same(&out, doc("{'renamed': 'x', 'list': ['x', 1, {'b.c': 'x'}], 'tail': true}"));

    /* Without any path known, too. */
    struct rk_bson_view view = sealed_doc("any", f.new_key, ssn, 0);
    rk_buf_clear(&out);
    rk_bson_writer_init(&w, &out);
    rk_bson_begin(&w);
    assert_int_equal(
        rk_document_decrypt(&f.crypt, RK_UNDECRYPTABLE_ERROR, "db.people", NULL, &view, &w, &err),
        RK_VERDICT_REPLACE);
    rk_bson_end(&w);
    assert_same(&out, doc("{'any': 'x'}"));
}

static void test_undecryptable(void **state)
{
    (void)state;
    const struct rk_field *ssn = field_of("ssn");
    struct rk_bson_view bad = sealed_doc("x", f.old_key, ssn, 1);
    assert_rejected(decrypt(bad), 96, WORDS("\"x\"", "key 7", "authenticate"));
    assert_int_equal(decrypt_doc(&f, RK_UNDECRYPTABLE_LEAVE, policy, bad, &out, &err),
                     RK_VERDICT_FORWARD);
    assert_same(&out, bad);

    bad = sealed_doc("x", f.unknown_key, ssn, 0);
    assert_int_equal(decrypt(bad), RK_VERDICT_HOLD);
    assert_int_equal(f.crypt.missing_key, UNKNOWN_KEY);
    assert_int_equal(decrypt_doc(&f, RK_UNDECRYPTABLE_LEAVE, policy, bad, &out, &err),
                     RK_VERDICT_HOLD);
    static const uint32_t absent = UNKNOWN_KEY;
    f.crypt.absent_keys = &absent;
    f.crypt.n_absent = 1;
    assert_int_equal(decrypt(bad), RK_VERDICT_REPLACE);
    assert_same(&out, doc("{'x': {'rekeyError': 'key missing', 'keyId': 11L}}"));
    bad = sealed_doc("x", f.unknown_key, ssn, 0);
    assert_int_equal(decrypt_doc(&f, RK_UNDECRYPTABLE_LEAVE, policy, bad, &out, &err),
                     RK_VERDICT_FORWARD);
    assert_same(&out, bad);
    f.crypt.n_absent = 0;

    /* What starts as an envelope and is none is an error as well, deep inside. */
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "list", 4);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    rk_bson_put_binary(&w, "v", 1, RK_ENVELOPE_SUBTYPE, "RK\xE1\x1E\x01", 5);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    assert_rejected(decrypt(view_of(&in)), 96, WORDS("\"list.0.v\"", "damaged"));
}

/* Values whose keys were destroyed are no reason to keep the others from their readers. */
static void test_unreadable(void **state)
{
    (void)state;
    const struct rk_field *ssn = field_of("ssn");
    const struct rk_keyset_key keys[] = {{NEW_KEY, RK_KEY_WRITES, RK_KEY_NAME_DEFAULT, f.new_key},
                                         {UNKNOWN_KEY, RK_KEY_GONE, "people:acme", NULL}};
    struct rk_bson_writer w;
    rk_keyset_unref(f.crypt.keys);
    assert_int_equal(rk_keyset_new(keys, 2, NULL, 0, &f.crypt.keys, NULL), RK_OK);
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    put_sealed(&w, "gone", f.unknown_key, ssn, ssn->algorithm, 0);
    put_sealed(&w, "unlisted", f.old_key, ssn, ssn->algorithm, 0);
    put_sealed(&w, "ssn", f.new_key, ssn, ssn->algorithm, 0);
    rk_bson_end(&w);
    struct rk_bson_view stored = view_of(&in);
    assert_int_equal(decrypt(stored), RK_VERDICT_REPLACE);
    struct rk_buf shown;
    rk_buf_init(&shown, FIXTURE_BYTES_MAX);
    assert_int_equal(rk_buf_append(&shown, out.data, out.len), RK_OK);
    assert_same(&shown, doc("{'gone': {'rekeyError': 'key destroyed', 'keyId': 11L, 'key': "
                            "'people:acme'}, 'unlisted': {'rekeyError': 'key missing', 'keyId': "
                            "7L}, 'ssn': 'x'}"));
    rk_buf_deinit(&shown);

    /* Written back it would replace what is stored. */
    assert_rejected(encrypt(doc("{'ssn': {'rekeyError': 'key destroyed', 'keyId': 11L}}")), 31041,
                    WORDS("\"ssn\"", "cannot be read any more"));
    rk_keyset_unref(f.crypt.keys);
    f.crypt.keys = NULL;
    fixture_keys(&f, NEW_KEY);
}

/* The path in a message is bounded and keeps its end. */
static void test_long_path(void **state)
{
    (void)state;
    char key[120];
    struct rk_bson_writer w;
    memset(key, 'k', sizeof key);
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, key, sizeof key);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, key, sizeof key);
    rk_bson_put_binary(&w, "end", 3, RK_ENVELOPE_SUBTYPE, "RK\xE1\x1E\x01", 5);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    assert_rejected(decrypt(view_of(&in)), 96, WORDS("\"...kkk", "kkk.end\""));
}

static void test_legacy(void **state)
{
    (void)state;
    uint64_t old = f.crypt.values_old_key;
    struct rk_bson_view legacy =
        doc("{'_id': '" LEGACY_SSN "', 'old': '" LEGACY_SSN "', 'olds': [{'v': '" LEGACY_PHONE
            "', 'w': '" LEGACY_PHONE "'}, {'v': ['" LEGACY_SSN "', null, 'plain']}, {'v': null}]}");
    assert_int_equal(decrypt(legacy), RK_VERDICT_REPLACE);
    assert_int_equal(f.crypt.values_old_key - old, 3);
    assert_same(&out, doc("{'_id': '" LEGACY_SSN "', 'old': '078-05-1120', 'olds': [{'v': "
                          "'555-0100', 'w': '" LEGACY_PHONE
                          "'}, {'v': ['078-05-1120', null, 'plain']}, {'v': null}]}"));

    /* The second format's turn comes when the first does not match: GCM in a binary. */
    static const uint8_t gcm[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                  0x09, 0x0a, 0x0b, 0x60, 0x86, 0xd5, 0x61, 0x1e, 0xd7,
                                  0x69, 0xd8, 0x6a, 0x63, 0x91, 0x27, 0x42, 0xf1, 0x8f,
                                  0xcc, 0x11, 0x05, 0x7b, 0x6e, 0x99, 0x74};
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    rk_bson_put_binary(&w, "old", 3, 0, gcm, sizeof gcm);
    rk_bson_end(&w);
    assert_int_equal(decrypt(view_of(&in)), RK_VERDICT_REPLACE);
    assert_same(&out, doc("{'old': 'secret'}"));

    /* Plaintext that was never encrypted. */
    struct rk_bson_view plain = doc("{'old': 'plain', 'olds': {'v': 5}, 'lost': 1}");
    assert_int_equal(decrypt(plain), RK_VERDICT_FORWARD);
    assert_same(&out, plain);

    struct rk_bson_view bad = doc("{'olds': [{'v': '" LEGACY_OTHER "'}]}");
    assert_rejected(decrypt(bad), 96, WORDS("\"olds.0.v\"", "legacy"));
    assert_int_equal(decrypt_doc(&f, RK_UNDECRYPTABLE_LEAVE, policy, bad, &out, &err),
                     RK_VERDICT_FORWARD);
    assert_same(&out, bad);
}

static void test_legacy_key_missing(void **state)
{
    (void)state;
    static const uint8_t bytes[64] = {1};
    struct rk_bson_writer w;
    rk_buf_clear(&in);
    rk_bson_writer_init(&w, &in);
    rk_bson_begin(&w);
    rk_bson_put_binary(&w, "lost", 4, 0, bytes, sizeof bytes);
    rk_bson_end(&w);
    assert_rejected(decrypt(view_of(&in)), 96, WORDS("\"lost\"", "no legacy key named \"lost\""));

    /* Before the first keys are loaded, no legacy key can be missing for good. */
    fixture_no_keys(&f);
    assert_int_equal(decrypt(view_of(&in)), RK_VERDICT_HOLD);
    assert_int_equal(f.crypt.missing_key, 0);
    fixture_keys(&f, NEW_KEY);
}

static void test_malformed(void **state)
{
    (void)state;
    uint8_t bytes[] = {0x12, 0,   0,   0, /* string ssn longer than the document */
                       0x02, 's', 's', 'n', 0, 0x99, 0, 0, 0, 'x', 0, 0, 0, 0};
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, bytes, sizeof bytes));
    assert_rejected(encrypt(view), 22, WORDS("BSON"));
    assert_rejected(decrypt(view), 22, WORDS("BSON"));

    /* A malformed value at a protected path is not sealed: nobody could open it again. */
    assert_rejected(encrypt_type(RK_BSON_DOCUMENT, "old", "\x06\0\0\0x\0", 6), 22, WORDS("BSON"));
}

/* Thousands of levels must end in an error and not in the stack. */
static void test_depth(void **state)
{
    (void)state;
    enum { LEVELS = 100000, EACH = 4 + 3 + 1 };
    static uint8_t bytes[LEVELS * EACH + 5];
    for (uint32_t i = 0; i <= LEVELS; i++) {
        uint8_t *p = bytes + i * 7;
        uint32_t len = (uint32_t)(LEVELS - i) * EACH + 5;
        rk_store_u32(p, len);
        if (i < LEVELS) {
            memcpy(p + 4, "\4a", 3);
        }
    }
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, bytes, sizeof bytes));
    assert_rejected(encrypt(view), 10334, WORDS("size"));
    /* An envelope's mark at the bottom makes decryption go down, too. */
    assert_int_equal(decrypt(view), RK_VERDICT_FORWARD);
    memcpy(bytes + (size_t)LEVELS * 7 - 1, "\x8ERK\xE1\x1E", 5);
    assert_int_equal(decrypt(view), RK_VERDICT_REJECT);
}

static void test_out_of_room(void **state)
{
    (void)state;
    struct rk_buf small;
    struct rk_bson_view plain = doc("{'ssn': 'x', 'old': 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyy'}");
    for (size_t max = 4; max < 160; max++) {
        rk_buf_init(&small, max);
        assert_rejected(encrypt_doc(&f, policy, plain, &small, &err), 10334, WORDS("outgrew"));
        rk_buf_deinit(&small);
    }
    assert_int_equal(encrypt(plain), RK_VERDICT_REPLACE);
    for (size_t max = 4; max < plain.len - 1; max++) {
        rk_buf_init(&small, max);
        assert_rejected(
            decrypt_doc(&f, RK_UNDECRYPTABLE_LEAVE, policy, view_of(&sealed), &small, &err), 10334,
            WORDS("outgrew"));
        rk_buf_deinit(&small);
    }
}

static void test_encrypt_value(void **state)
{
    (void)state;
    struct rk_bson_elem elem, found;
    struct rk_bson_writer w;
    assert_true(
        rk_bson_find(&(struct rk_bson_view){doc("{'v': 'x'}").data, in.data[0]}, "v", &elem));
    rk_buf_clear(&out);
    rk_bson_writer_init(&w, &out);
    rk_bson_begin(&w);
    assert_int_equal(rk_document_encrypt_value(&f.crypt, "db.people", field_of("contacts.phone"),
                                               &elem, "contacts.0.phone", 16, &w, &err),
                     RK_VERDICT_REPLACE);
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    struct rk_bson_view view = view_of(&out);
    assert_true(rk_bson_find(&view, "contacts.0.phone", &found));
    assert_true(is_envelope(&found, NEW_KEY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_all_types),
        cmocka_unit_test(test_refused_types),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_keys_that_spell_paths),
        cmocka_unit_test(test_numeric_keys),
        cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_envelopes_handed_in),
        cmocka_unit_test(test_no_current_key),
        cmocka_unit_test(test_decrypt_anywhere),
        cmocka_unit_test(test_undecryptable),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_legacy_key_missing),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_out_of_room),
        cmocka_unit_test(test_encrypt_value),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
