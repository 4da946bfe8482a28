#include <rekey/wire/frame.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static const uint8_t hello_header[] = {
    0x2A, 0x00, 0x00, 0x00, /* messageLength 42 */
    0x01, 0x02, 0x03, 0x04, /* requestID 0x04030201 */
    0xFF, 0xFF, 0xFF, 0xFF, /* responseTo -1 */
    0xDD, 0x07, 0x00, 0x00, /* opCode 2013, OP_MSG */
};

static void test_reads_a_header(void **state)
{
    (void)state;
    struct rk_frame frame;
    assert_int_equal(rk_frame_parse(hello_header, 16, RK_FRAME_LEN_MAX, &frame), RK_PARSE_OK);
    assert_int_equal(frame.len, 42);
    assert_int_equal(frame.request_id, 0x04030201);
    assert_int_equal(frame.response_to, -1);
    assert_int_equal(frame.opcode, RK_OP_MSG);
    uint8_t stored[16];
    rk_frame_store(stored, &frame);
    assert_memory_equal(stored, hello_header, 16);
}

static void test_incomplete_until_the_last_byte(void **state)
{
    (void)state;
    for (size_t n = 0; n < 16; n++) {
        struct rk_frame frame;
        uint8_t *exact = malloc(n + (n == 0)); /* so that an over-read is caught */
        assert_non_null(exact);
        memcpy(exact, hello_header, n);
        assert_int_equal(rk_frame_parse(exact, n, RK_FRAME_LEN_MAX, &frame), RK_PARSE_INCOMPLETE);
        free(exact);
    }
}

/* The length alone decides, before more bytes than the four are awaited or room is made. */
static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t len;
        enum rk_parse expected; /* with 4 bytes */
    } cases[] = {
        {0, RK_PARSE_MALFORMED},          {15, RK_PARSE_MALFORMED},
        {16, RK_PARSE_INCOMPLETE},        {48000000, RK_PARSE_INCOMPLETE},
        {48000001, RK_PARSE_MALFORMED},   {0x7FFFFFFF, RK_PARSE_MALFORMED},
        {0x80000000, RK_PARSE_MALFORMED}, /* most negative */
        {0xFFFFFFFF, RK_PARSE_MALFORMED}, /* -1 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_frame frame;
        uint8_t bytes[16] = {0};
        rk_store_u32(bytes, cases[i].len);
        assert_int_equal(rk_frame_parse(bytes, 4, RK_FRAME_LEN_MAX, &frame), cases[i].expected);
        assert_int_equal(rk_frame_parse(bytes, 16, RK_FRAME_LEN_MAX, &frame),
                         cases[i].expected == RK_PARSE_INCOMPLETE ? RK_PARSE_OK
                                                                  : RK_PARSE_MALFORMED);
    }
}

static void test_a_smaller_limit_holds(void **state)
{
    (void)state;
    struct rk_frame frame;
    assert_int_equal(rk_frame_parse(hello_header, 16, 41, &frame), RK_PARSE_MALFORMED);
    assert_int_equal(rk_frame_parse(hello_header, 16, 42, &frame), RK_PARSE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_header),
        cmocka_unit_test(test_incomplete_until_the_last_byte),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_a_smaller_limit_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
