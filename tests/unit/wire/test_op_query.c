/* OP_QUERY and OP_REPLY: what drivers still use for their first handshake. */
#include <rekey/wire/msg.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#define DOC_A 0x0C, 0, 0, 0, 0x10, 'a', 0, 1, 0, 0, 0, 0 /* {a: 1} */

static const uint8_t query_bytes[] = {
    0x33,  0x00, 0x00, 0x00,            /* messageLength 51 */
    0x01,  0x00, 0x00, 0x00,            /* requestID */
    0x00,  0x00, 0x00, 0x00,            /* responseTo */
    0xD4,  0x07, 0x00, 0x00,            /* opCode 2004 */
    0x04,  0x00, 0x00, 0x00,            /* flags: SlaveOk */
    'a',   'd',  '.',  '$',  'c',  0x0, /* fullCollectionName */
    0x02,  0x00, 0x00, 0x00,            /* numberToSkip */
    0xFF,  0xFF, 0xFF, 0xFF,            /* numberToReturn -1 */
    DOC_A,                              /* query */
    0x05,  0x00, 0x00, 0x00, 0x00,      /* returnFieldsSelector {} */
};

static const uint8_t reply_bytes[] = {
    0x3C,  0x00,  0x00, 0x00,                         /* messageLength 60 */
    0x09,  0x00,  0x00, 0x00,                         /* requestID */
    0x01,  0x00,  0x00, 0x00,                         /* responseTo */
    0x01,  0x00,  0x00, 0x00,                         /* opCode 1 */
    0x08,  0x00,  0x00, 0x00,                         /* responseFlags: AwaitCapable */
    0x08,  0x07,  0x06, 0x05, 0x04, 0x03, 0x02, 0x01, /* cursorID */
    0x03,  0x00,  0x00, 0x00,                         /* startingFrom */
    0x02,  0x00,  0x00, 0x00,                         /* numberReturned */
    DOC_A, DOC_A,
};

static enum rk_parse parse_query(const uint8_t *data, size_t len)
{
    struct rk_op_query query;
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    enum rk_parse result = rk_op_query_parse(copy, len, &query);
    free(copy);
    return result;
}

static enum rk_parse parse_reply(const uint8_t *data, size_t len)
{
    struct rk_op_reply reply;
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    enum rk_parse result = rk_op_reply_parse(copy, len, &reply);
    free(copy);
    return result;
}

static void test_query(void **state)
{
    (void)state;
    struct rk_op_query query;
    assert_int_equal(rk_op_query_parse(query_bytes, sizeof query_bytes, &query), RK_PARSE_OK);
    assert_int_equal(query.frame.request_id, 1);
    assert_int_equal(query.flags, 4);
    assert_string_equal(query.ns, "ad.$c");
    assert_int_equal(query.ns_len, 5);
    assert_int_equal(query.skip, 2);
    assert_int_equal(query.n_return, -1);
    assert_ptr_equal(query.query, query_bytes + 34);
    assert_int_equal(query.query_len, 12);
    assert_ptr_equal(query.rest, query_bytes + 46);
    assert_int_equal(query.rest_len, 5);
}

static void test_reply(void **state)
{
    (void)state;
    struct rk_op_reply reply;
    assert_int_equal(rk_op_reply_parse(reply_bytes, sizeof reply_bytes, &reply), RK_PARSE_OK);
    assert_int_equal(reply.frame.response_to, 1);
    assert_int_equal(reply.flags, 8);
    assert_true(reply.cursor_id == 0x0102030405060708);
    assert_int_equal(reply.starting_from, 3);
    assert_int_equal(reply.n_returned, 2);
    assert_ptr_equal(reply.docs, reply_bytes + 36);
    assert_int_equal(reply.docs_len, 24);
}

static void test_every_truncation(void **state)
{
    (void)state;
    uint8_t query[sizeof query_bytes];
    uint8_t reply[sizeof reply_bytes];
    memcpy(query, query_bytes, sizeof query);
    memcpy(reply, reply_bytes, sizeof reply);
    for (size_t n = 0; n < sizeof query; n++) {
        rk_store_u32(query, (uint32_t)n);
        /* Without its last document the query is whole as well. */
        assert_int_equal(parse_query(query, n), n == 46 ? RK_PARSE_OK : RK_PARSE_MALFORMED);
    }
    for (size_t n = 0; n < sizeof reply; n++) {
        rk_store_u32(reply, (uint32_t)n);
        assert_int_equal(parse_reply(reply, n), RK_PARSE_MALFORMED);
    }
}

static void test_lies(void **state)
{
    (void)state;
    uint8_t query[sizeof query_bytes];
    memcpy(query, query_bytes, sizeof query);
    memset(query + 20, 'x', sizeof query - 20); /* a name without end */
    assert_int_equal(parse_query(query, sizeof query), RK_PARSE_MALFORMED);
    memcpy(query, query_bytes, sizeof query);
    rk_store_u32(query + 34, 0xFFFFFFFFu);
    assert_int_equal(parse_query(query, sizeof query), RK_PARSE_MALFORMED);
    memcpy(query, query_bytes, sizeof query);
    rk_store_u32(query + 46, 4);
    assert_int_equal(parse_query(query, sizeof query), RK_PARSE_MALFORMED);

    static const uint32_t counts[] = {0, 1, 3, 0x80000000u, 0xFFFFFFFFu};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint8_t reply[sizeof reply_bytes];
        memcpy(reply, reply_bytes, sizeof reply);
        rk_store_u32(reply + 32, counts[i]);
        assert_int_equal(parse_reply(reply, sizeof reply), RK_PARSE_MALFORMED);
        memcpy(reply, reply_bytes, sizeof reply);
        rk_store_u32(reply + 48, counts[i]);
        assert_int_equal(parse_reply(reply, sizeof reply), RK_PARSE_MALFORMED);
    }
    assert_int_equal(parse_reply(query_bytes, sizeof query_bytes), RK_PARSE_MALFORMED);
    assert_int_equal(parse_query(reply_bytes, sizeof reply_bytes), RK_PARSE_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
