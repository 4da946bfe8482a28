/* Bodies of messages: what is put is what is read, and nothing else is. */
#include <rekey/amqp/message.h>
#include <rekey/bson/rewrite.h>
#include <rekey/jobs/transport.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

/* ["a", 7] */
static const uint8_t two_ids[] = {21,   0,   0, 0,                  /* length */
                                  0x02, '0', 0, 2, 0, 0, 0, 'a', 0, /* "0": "a" */
                                  0x10, '1', 0, 7, 0, 0, 0,         /* "1": 7 */
                                  0};

static struct rk_amqp_message full(enum rk_amqp_kind kind)
{
    struct rk_amqp_message m = {.kind = kind};
    if (kind == RK_AMQP_RANGE || kind == RK_AMQP_PLAN) {
        memset(m.job.bytes, 0x11, sizeof m.job.bytes);
        m.is_meta = true;
    }
    if (kind == RK_AMQP_RANGE || kind == RK_AMQP_DOCUMENTS) {
        memcpy(m.ns, "app.people.old", sizeof "app.people.old");
        m.retries = 3;
    }
    if (kind == RK_AMQP_RANGE) {
        memset(m.range.bytes, 0x22, sizeof m.range.bytes);
    }
    if (kind == RK_AMQP_DOCUMENTS) {
        m.ids = (struct rk_bson_view){two_ids, sizeof two_ids};
    }
    return m;
}

static void put(struct rk_buf *body, const struct rk_amqp_message *m)
{
    rk_buf_init(body, RK_AMQP_BODY_MAX);
    assert_int_equal(rk_amqp_message_put(body, m), RK_OK);
}

static void test_what_is_put_is_read(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < RK_AMQP_KINDS; kind++) {
        struct rk_amqp_message m = full((enum rk_amqp_kind)kind);
        struct rk_amqp_message got;
        struct rk_buf body;
        const char *why = NULL;
        put(&body, &m);
        assert_int_equal(rk_amqp_message_read(body.data, body.len, &got, &why), RK_OK);
        assert_int_equal(got.kind, m.kind);
        assert_memory_equal(got.job.bytes, m.job.bytes, sizeof m.job.bytes);
        assert_memory_equal(got.range.bytes, m.range.bytes, sizeof m.range.bytes);
        assert_string_equal(got.ns, m.ns);
        assert_int_equal(got.is_meta, m.is_meta);
        assert_int_equal(got.retries, m.retries);
        assert_int_equal(got.ids.len, m.ids.len);
        if (m.ids.len > 0) {
            assert_memory_equal(got.ids.data, m.ids.data, m.ids.len);
        }
        rk_buf_deinit(&body);
    }
}

/* A DOCS hint with all the ids that it may have. */
static void test_the_longest_hint_is_a_message(void **state)
{
    (void)state;
    struct rk_amqp_message m = full(RK_AMQP_DOCUMENTS);
    struct rk_amqp_message got;
    struct rk_bson_writer w;
    struct rk_buf ids;
    struct rk_buf body;
    const char *why = NULL;
    rk_buf_init(&ids, RK_HINT_IDS_MAX);
    rk_bson_writer_init(&w, &ids);
    rk_bson_begin(&w);
    for (unsigned i = 0; i < (RK_HINT_IDS_MAX - 5) / 10; i++) {
        rk_bson_put_int32(&w, "1234", 7);
    }
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    assert_true(ids.len > RK_HINT_IDS_MAX - 10);
    memset(m.ns + 4, 'x', sizeof m.ns - 5);
    m.ids = (struct rk_bson_view){ids.data, (uint32_t)ids.len};
    put(&body, &m);
    assert_int_equal(rk_amqp_message_read(body.data, body.len, &got, &why), RK_OK);
    assert_int_equal(got.ids.len, ids.len);
    rk_buf_deinit(&ids);
    rk_buf_deinit(&body);
}

/* Cut anywhere, or longer by a byte, it is no message. */
static void test_other_lengths_are_refused(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < RK_AMQP_KINDS; kind++) {
        struct rk_amqp_message m = full((enum rk_amqp_kind)kind);
        struct rk_buf body;
        const char *why = NULL;
        put(&body, &m);
        assert_int_equal(rk_buf_append_u8(&body, 0), RK_OK);
        for (size_t len = 0; len <= body.len; len++) {
            struct rk_amqp_message got;
            bool whole = len == body.len - 1;
            assert_int_equal(rk_amqp_message_read(body.data, len, &got, &why),
                             whole ? RK_OK : RK_EINVAL);
        }
        assert_string_equal(why, "no BSON document");
        rk_buf_deinit(&body);
    }
}

/* Each is a whole message but for one thing. */
enum flaw {
    NONE,
    NO_VERSION,
    OTHER_VERSION,
    UNKNOWN_KEY,
    TWICE,
    OTHER_TYPE,
    NO_DOT,
    LONG_NS,
    BELOW_0
};

static void put_flawed(struct rk_buf *body, enum flaw flaw)
{
    struct rk_bson_writer w;
    char long_ns[400];
    uint8_t oid[12] = {1};
    memset(long_ns, 'x', sizeof long_ns);
    long_ns[3] = '.';
    const char *ns = flaw == NO_DOT ? "people" : "app.people";
    rk_buf_init(body, RK_AMQP_BODY_MAX);
    rk_bson_writer_init(&w, body);
    rk_bson_begin(&w);
    if (flaw != NO_VERSION) {
        rk_bson_put_int32(&w, "v", flaw == OTHER_VERSION ? 2 : 1);
    }
    rk_bson_put_utf8(&w, "kind", "range", 5);
    rk_bson_put(&w, RK_BSON_OID, "jobId", 5, oid, sizeof oid);
    if (flaw == OTHER_TYPE) {
        rk_bson_put_utf8(&w, "jobStatusId", "111111111111", 12);
    } else {
        rk_bson_put(&w, RK_BSON_OID, "jobStatusId", 11, oid, sizeof oid);
    }
    rk_bson_put_utf8(&w, "collectionName", flaw == LONG_NS ? long_ns : ns,
                     flaw == LONG_NS ? sizeof long_ns : strlen(ns));
    rk_bson_put_bool(&w, "isMeta", false);
    rk_bson_put_int32(&w, "retries", flaw == BELOW_0 ? -1 : 0);
    if (flaw == TWICE) {
        rk_bson_put_int32(&w, "retries", 1);
    }
    if (flaw == UNKNOWN_KEY) {
        rk_bson_put_int32(&w, "priority", 1);
    }
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
}

static void test_flaws_are_refused(void **state)
{
    (void)state;
    static const char *const reasons[] = {
        NULL,
        "not the keys of its kind",
        "of another version of Rekey",
        "a key that does not belong there",
        "a key that does not belong there",
        "a key that does not belong there",
        "a value that cannot be",
        "a value that cannot be",
        "a value that cannot be",
    };
    for (unsigned flaw = NONE; flaw <= BELOW_0; flaw++) {
        struct rk_amqp_message got;
        struct rk_buf body;
        const char *why = NULL;
        put_flawed(&body, (enum flaw)flaw);
        assert_int_equal(rk_amqp_message_read(body.data, body.len, &got, &why),
                         flaw == NONE ? RK_OK : RK_EINVAL);
        if (flaw == NONE) {
            assert_null(why);
        } else {
            assert_string_equal(why, reasons[flaw]);
        }
        rk_buf_deinit(&body);
    }
}

static void test_ids_are_checked(void **state)
{
    (void)state;
    static const uint8_t none[] = {5, 0, 0, 0, 0};
    static const uint8_t an_array[] = {13, 0, 0, 0, 0x04, '0', 0, 5, 0, 0, 0, 0, 0};
    static const uint8_t undefined[] = {8, 0, 0, 0, 0x06, '0', 0, 0};
    const struct rk_bson_view bad[] = {
        {none, sizeof none}, {an_array, sizeof an_array}, {undefined, sizeof undefined}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rk_amqp_message m = full(RK_AMQP_DOCUMENTS);
        struct rk_amqp_message got;
        struct rk_buf body;
        const char *why = NULL;
        m.ids = bad[i];
        put(&body, &m);
        assert_int_equal(rk_amqp_message_read(body.data, body.len, &got, &why), RK_EINVAL);
        assert_string_equal(why, "a value that cannot be");
        rk_buf_deinit(&body);
    }
}

static void test_long_bodies_are_refused(void **state)
{
    (void)state;
    static uint8_t body[RK_AMQP_BODY_MAX + 1];
    struct rk_amqp_message got;
    const char *why = NULL;
    assert_int_equal(rk_amqp_message_read(body, sizeof body, &got, &why), RK_EINVAL);
    assert_string_equal(why, "longer than any of Rekey's messages");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_put_is_read),
        cmocka_unit_test(test_the_longest_hint_is_a_message),
        cmocka_unit_test(test_other_lengths_are_refused),
        cmocka_unit_test(test_flaws_are_refused),
        cmocka_unit_test(test_ids_are_checked),
        cmocka_unit_test(test_long_bodies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
