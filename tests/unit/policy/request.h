/*
 * Requests for the tests of the command side: a message is made from JSON (fixture.h), rewritten,
 * and shown as JSON again, in which an envelope stands as <key id: plaintext>.
 *
 * Policies: shop.people (ssn deterministic; note random; contacts.phone random; contacts.email
 * deterministic), shop.old (ssn deterministic with a legacy reader), crm.* (mail deterministic).
 */
#ifndef REKEY_TEST_POLICY_REQUEST_H
#define REKEY_TEST_POLICY_REQUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"
#include <rekey/policy/command.h>

static struct fixture fx;
static struct rk_policy_set *set;
static struct rk_policy_set *empty_set;
static struct rk_buf message;
static struct rk_buf rewritten;
static struct rk_command_info info;
static struct rk_error err;
static char shown[8192];

static inline int request_setup(void **state)
{
    static const struct rk_legacy_format legacy = {.cipher = RK_LEGACY_AES_256_CBC,
                                                   .encoding = RK_LEGACY_BINARY,
                                                   .key = (char *)"app",
                                                   .bson_type = RK_BSON_STRING};
    static const struct rk_field_spec people[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "note", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "contacts.phone", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "contacts.email", .algorithm = RK_ALGORITHM_DETERMINISTIC},
    };
    static const struct rk_field_spec old[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_DETERMINISTIC, .legacy = &legacy, .n_legacy = 1},
    };
    static const struct rk_field_spec crm[] = {
        {.path = "mail", .algorithm = RK_ALGORITHM_DETERMINISTIC},
    };
    static const struct rk_policy_spec specs[] = {
        {.ns = "shop.people", .fields = people, .n_fields = 4},
        {.ns = "shop.old", .fields = old, .n_fields = 1},
        {.ns = "crm.*", .fields = crm, .n_fields = 1},
    };
    (void)state;
    fixture_init(&fx);
    rk_buf_init(&message, FIXTURE_BYTES_MAX);
    rk_buf_init(&rewritten, FIXTURE_BYTES_MAX);
    if (rk_policy_set_new(specs, 3, RK_UNDECRYPTABLE_ERROR, &set, &err) != RK_OK ||
        rk_policy_set_new(NULL, 0, RK_UNDECRYPTABLE_ERROR, &empty_set, &err) != RK_OK) {
        return -1;
    }
    return 0;
}

static inline int request_teardown(void **state)
{
    (void)state;
    rk_write_errors_free(info.write_errors);
    rk_policy_set_unref(set);
    rk_policy_set_unref(empty_set);
    rk_buf_deinit(&message);
    rk_buf_deinit(&rewritten);
    fixture_deinit(&fx);
    return 0;
}

/* Keysets: both keys (new is current), or the new one alone. */
static inline void use_one_key(void)
{
    const struct rk_keyset_key key = {NEW_KEY, RK_KEY_WRITES, RK_KEY_NAME_DEFAULT, fx.new_key};
    rk_keyset_unref(fx.crypt.keys);
    fx.crypt.keys = NULL;
    assert_int_equal(rk_keyset_new(&key, 1, NULL, 0, &fx.crypt.keys, NULL), RK_OK);
}

static inline void use_two_keys(void)
{
    fixture_keys(&fx, NEW_KEY);
}

/* ---- making messages */

static inline void message_begin(size_t *msg_off)
{
    rk_buf_clear(&message);
    assert_int_equal(rk_msg_begin(&message, 42, 0, 0, msg_off), RK_OK);
}

static inline void message_body(const char *json)
{
    assert_int_equal(rk_msg_section_body(&message), RK_OK);
    (void)json_doc(&message, json);
}

/* docs: JSON documents, one after the other in an array of strings ended by NULL */
static inline void message_sequence(const char *id, const char *const docs[])
{
    size_t off;
    assert_int_equal(rk_msg_section_sequence(&message, id, &off), RK_OK);
    for (size_t i = 0; docs[i] != NULL; i++) {
        (void)json_doc(&message, docs[i]);
    }
    rk_msg_sequence_end(&message, off);
}

static inline enum rk_verdict rewrite_message(const struct rk_policy_set *with)
{
    struct rk_msg msg;
    const char *why = "";
    enum rk_parse parsed = rk_msg_parse(message.data, message.len, &msg, &why);
    if (parsed != RK_PARSE_OK) {
        fail_msg("the test's own message is malformed: %s", why);
    }
    err = (struct rk_error){0};
    rk_write_errors_free(info.write_errors);
    info.write_errors = NULL;
    return rk_command_rewrite(with, &fx.crypt, message.data, message.len, &msg, &rewritten, &info,
                              &err);
}

/* ---- showing them */

struct show {
    size_t len;
};

RK_PRINTF(2, 3) static inline void show_text(struct show *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(shown + s->len, sizeof shown - s->len, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof shown - s->len);
    s->len += (size_t)n;
}

static inline void show_view(struct show *s, const struct rk_bson_view *view, bool array);

static inline void show_value(struct show *s, const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    struct rk_envelope envelope;
    const char *text;
    uint32_t len;
    double d;
    if (rk_bson_elem_view(elem, &view)) {
        show_view(s, &view, elem->type == RK_BSON_ARRAY);
    } else if (rk_bson_elem_utf8(elem, &text, &len)) {
        show_text(s, "'%.*s'", (int)len, text);
    } else if (elem->type == RK_BSON_INT32) {
        show_text(s, "%d", rk_load_i32(elem->value));
    } else if (elem->type == RK_BSON_INT64) {
        show_text(s, "%lldL", (long long)rk_load_i64(elem->value));
    } else if (elem->type == RK_BSON_DOUBLE) {
        memcpy(&d, elem->value, sizeof d);
        show_text(s, "%.1f", d);
    } else if (elem->type == RK_BSON_NULL) {
        show_text(s, "null");
    } else if (elem->type == RK_BSON_BOOL) {
        show_text(s, "%s", elem->value[0] != 0 ? "true" : "false");
    } else if (elem->type == RK_BSON_BINARY &&
               rk_envelope_parse(elem->value + 5, elem->value_len - 5, &envelope)) {
        struct rk_buf plain;
        rk_buf_init(&plain, FIXTURE_BYTES_MAX);
        assert_int_equal(rk_envelope_open(fx.aead, rk_keyset_find(fx.crypt.keys, envelope.key_id),
                                          &envelope, &plain),
                         RK_OK);
        const struct rk_bson_elem inner = {
            .type = envelope.bson_type, .value = plain.data, .value_len = (uint32_t)plain.len};
        show_text(s, "<%u: ", envelope.key_id);
        show_value(s, &inner);
        show_text(s, ">");
        rk_buf_deinit(&plain);
    } else {
        show_text(s, "type%u", elem->type);
    }
}

static inline void show_view(struct show *s, const struct rk_bson_view *view, bool array)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    unsigned i = 0;
    show_text(s, array ? "[" : "{");
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        show_text(s, i > 0 ? ", " : "");
        if (array) {
            char index[16];
            (void)snprintf(index, sizeof index, "%u", i);
            assert_string_equal(elem.key, index);
        } else {
            show_text(s, "'%s': ", elem.key);
        }
        show_value(s, &elem);
        i++;
    }
    show_text(s, array ? "]" : "}");
}

/* The rewritten message: its sections in their order, a sequence as id[documents]. */
static inline const char *show_rewritten(void)
{
    struct show s = {0};
    struct rk_msg msg;
    struct rk_bson_view view;
    const char *why;
    bool body_done = false;
    assert_int_equal(rk_msg_parse(rewritten.data, rewritten.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.frame.request_id, 42);
    for (unsigned i = 0; i <= msg.n_sequences; i++) {
        bool after = i == msg.n_sequences || msg.sequences[i].docs > msg.body;
        if (after && !body_done) {
            assert_true(rk_bson_view_init(&view, msg.body, msg.body_len));
            assert_true(rk_bson_validate(&view, RK_COMMAND_DEPTH_MAX + 4));
            show_view(&s, &view, false);
            body_done = true;
        }
        for (uint32_t off = 0; i < msg.n_sequences && off < msg.sequences[i].docs_len;
             off += view.len) {
            assert_true(rk_bson_view_init(&view, msg.sequences[i].docs + off,
                                          msg.sequences[i].docs_len - off));
            assert_true(rk_bson_validate(&view, RK_COMMAND_DEPTH_MAX + 4));
            show_text(&s, "%s", msg.sequences[i].id);
            show_view(&s, &view, false);
        }
    }
    return shown;
}

/* ---- one-line checks; json is the whole body */

static inline bool peek(const char *json)
{
    struct rk_buf body;
    rk_buf_init(&body, FIXTURE_BYTES_MAX);
    struct rk_bson_view view = json_doc(&body, json);
    rk_write_errors_free(info.write_errors);
    bool pass = rk_command_peek(set, view.data, view.len, &info);
    rk_buf_deinit(&body);
    return pass;
}

static inline enum rk_verdict run(const char *json)
{
    size_t msg_off;
    message_begin(&msg_off);
    message_body(json);
    rk_msg_end(&message, msg_off);
    return rewrite_message(set);
}

#define assert_forward(json)                                                                       \
    do {                                                                                           \
        enum rk_verdict verdict_ = run(json);                                                      \
        if (verdict_ != RK_VERDICT_FORWARD) {                                                      \
            fail_msg("verdict %d (%s) for %s", verdict_, err.message, json);                       \
        }                                                                                          \
    } while (0)

#define assert_replace(json, expected)                                                             \
    do {                                                                                           \
        enum rk_verdict verdict_ = run(json);                                                      \
        if (verdict_ != RK_VERDICT_REPLACE) {                                                      \
            fail_msg("verdict %d (%s) for %s", verdict_, err.message, json);                       \
        }                                                                                          \
        assert_string_equal(show_rewritten(), expected);                                           \
    } while (0)

/* Of the statement at this index. */
static inline void assert_error(uint32_t index, int code, const char *words)
{
    struct rk_write_error error;
    assert_true(rk_write_errors_find(info.write_errors, index, &error));
    assert_int_equal(error.index, index);
    assert_int_equal(error.code, code);
    assert_non_null(memmem(error.message, error.message_len, words, strlen(words)));
}

/* What stands for a filter or an update that was refused alone. */
#define REFUSED "{'$rekeyRefused': {}}"

/* Every refusal names a namespace and never holds the value, which tests spell SECRET. */
#define assert_reject(json, expected_code)                                                         \
    do {                                                                                           \
        enum rk_verdict verdict_ = run(json);                                                      \
        if (verdict_ != RK_VERDICT_REJECT) {                                                       \
            fail_msg("verdict %d for %s", verdict_, json);                                         \
        }                                                                                          \
        if (err.code != (expected_code)) {                                                         \
            fail_msg("code %d (%s) for %s", err.code, err.message, json);                          \
        }                                                                                          \
        assert_null(strstr(err.message, "SECRET"));                                                \
        assert_true(strchr(err.message, '.') != NULL);                                             \
    } while (0)

/* The only statement of a batch has an error of its own. */
#define assert_failed(json, expected_code)                                                         \
    do {                                                                                           \
        struct rk_write_error error_;                                                              \
        enum rk_verdict verdict_ = run(json);                                                      \
        if (verdict_ != RK_VERDICT_REPLACE ||                                                      \
            !rk_write_errors_find(info.write_errors, 0, &error_)) {                                \
            fail_msg("verdict %d (%s), no error for %s", verdict_, err.message, json);             \
        }                                                                                          \
        assert_int_equal(error_.code, expected_code);                                              \
        assert_null(memmem(error_.message, error_.message_len, "SECRET", strlen("SECRET")));       \
    } while (0)

#endif
