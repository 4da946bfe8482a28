/* OP_MSG as annotated bytes, after mongo-c-driver's tests/test-mcd-rpc.c. */
#include <rekey/wire/msg.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#define HEADER(len)                                                                                \
    len, 0x00, 0x00, 0x00,      /* messageLength */                                                \
        0x07, 0x00, 0x00, 0x00, /* requestID 7 */                                                  \
        0x00, 0x00, 0x00, 0x00, /* responseTo 0 */                                                 \
        0xDD, 0x07, 0x00, 0x00  /* opCode 2013 */
#define FLAGS(b0, b2) b0, 0x00, b2, 0x00
#define DOC_A 0x0C, 0, 0, 0, 0x10, 'a', 0, 1, 0, 0, 0, 0 /* {a: 1}, 12 bytes */
#define DOC_B 0x0C, 0, 0, 0, 0x10, 'b', 0, 2, 0, 0, 0, 0 /* {b: 2} */
#define DOC_EMPTY 0x05, 0, 0, 0, 0                       /* {} */
#define BODY_A 0x00, DOC_A                               /* kind 0: 13 bytes */
/* kind 1: 1 + 4 + "d\0" + two documents = 31 bytes, of which the size counts 30 */
#define SEQUENCE_D 0x01, 0x1E, 0, 0, 0, 'd', 0, DOC_A, DOC_B
/* kind 1 without documents: size 4 + "e\0" */
#define SEQUENCE_E 0x01, 0x06, 0, 0, 0, 'e', 0

/* Parses a copy of exactly len bytes, so that an over-read is caught. What *msg points to is
 * freed: only numbers may be looked at. */
static enum rk_parse parse_exact(const uint8_t *data, size_t len, struct rk_msg *msg,
                                 const char **why)
{
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    enum rk_parse result = rk_msg_parse(copy, len, msg, why);
    free(copy);
    return result;
}

static void expect_malformed(const uint8_t *data, size_t len, const char *reason)
{
    struct rk_msg msg;
    const char *why = NULL;
    assert_int_equal(parse_exact(data, len, &msg, &why), RK_PARSE_MALFORMED);
    assert_non_null(why);
    assert_string_equal(why, reason);
}

static void test_body_only(void **state)
{
    (void)state;
    static const uint8_t data[] = {HEADER(33), FLAGS(0x02, 0x01), BODY_A};
    struct rk_msg msg;
    const char *why = NULL;
    assert_int_equal(rk_msg_parse(data, sizeof data, &msg, &why), RK_PARSE_OK);
    assert_null(why);
    assert_int_equal(msg.frame.len, sizeof data);
    assert_int_equal(msg.frame.request_id, 7);
    assert_int_equal(msg.flags, RK_MSG_MORE_TO_COME | RK_MSG_EXHAUST_ALLOWED);
    assert_ptr_equal(msg.body, data + 21);
    assert_int_equal(msg.body_len, 12);
    assert_int_equal(msg.n_sequences, 0);
}

static void test_sections_in_any_order(void **state)
{
    (void)state;
    static const uint8_t before[] = {HEADER(71), FLAGS(0, 0), SEQUENCE_D, SEQUENCE_E, BODY_A};
    static const uint8_t around[] = {HEADER(71), FLAGS(0, 0), SEQUENCE_E, BODY_A, SEQUENCE_D};
    struct rk_msg msg;
    const char *why = NULL;
    assert_int_equal(rk_msg_parse(before, sizeof before, &msg, &why), RK_PARSE_OK);
    assert_ptr_equal(msg.body, before + 59);
    assert_int_equal(msg.n_sequences, 2);
    assert_string_equal(msg.sequences[0].id, "d");
    assert_int_equal(msg.sequences[0].id_len, 1);
    assert_ptr_equal(msg.sequences[0].docs, before + 27);
    assert_int_equal(msg.sequences[0].docs_len, 24);
    assert_string_equal(msg.sequences[1].id, "e");
    assert_int_equal(msg.sequences[1].docs_len, 0);
    assert_int_equal(rk_msg_parse(around, sizeof around, &msg, &why), RK_PARSE_OK);
    assert_ptr_equal(msg.body, around + 28);
    assert_string_equal(msg.sequences[1].id, "d");
}

static void test_checksum(void **state)
{
    (void)state;
    uint8_t data[] = {HEADER(37), FLAGS(0x01, 0), BODY_A, 0, 0, 0, 0 /* CRC-32C */};
    rk_store_u32(data + 33, rk_crc32c(data, 33));
    struct rk_msg msg;
    const char *why = NULL;
    assert_int_equal(rk_msg_parse(data, sizeof data, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.flags, RK_MSG_CHECKSUM_PRESENT);
    for (size_t i = 4; i < sizeof data; i++) {
        if (i == 12 || i == 13 || i == 16) {
            continue; /* opcode and flags have their own errors */
        }
        data[i] ^= 0x10;
        assert_int_equal(parse_exact(data, sizeof data, &msg, &why), RK_PARSE_MALFORMED);
        data[i] ^= 0x10;
    }
    data[36] ^= 1;
    expect_malformed(data, sizeof data, "OP_MSG checksum does not match");
    static const uint8_t cut[] = {HEADER(22), FLAGS(0x01, 0), 0, 0};
    expect_malformed(cut, sizeof cut, "OP_MSG shorter than its checksum");
}

static void test_crc32c_check_value(void **state)
{
    (void)state;
    assert_int_equal(rk_crc32c((const uint8_t *)"123456789", 9), 0xE3069283u);
    assert_int_equal(rk_crc32c((const uint8_t *)"", 0), 0);
    /* RFC 3720, B.4: 32 bytes of zeros; the CRC there is written least significant byte first. */
    static const uint8_t zeros[32] = {0};
    assert_int_equal(rk_crc32c(zeros, 32), 0x8A9136AAu);
}

static void test_malformed_messages(void **state)
{
    (void)state;
    static const uint8_t no_flags[] = {HEADER(18), 0, 0};
    static const uint8_t no_sections[] = {HEADER(20), FLAGS(0, 0)};
    static const uint8_t only_sequence[] = {HEADER(27), FLAGS(0, 0), SEQUENCE_E};
    static const uint8_t two_bodies[] = {HEADER(46), FLAGS(0, 0), BODY_A, BODY_A};
    static const uint8_t twice[] = {HEADER(47), FLAGS(0, 0), SEQUENCE_E, BODY_A, SEQUENCE_E};
    static const uint8_t kind_2[] = {HEADER(33), FLAGS(0, 0), 0x02, DOC_A};
    static const uint8_t flag_2[] = {HEADER(33), FLAGS(0x04, 0), BODY_A};
    static const uint8_t flag_15[] = {HEADER(33), 0, 0x80, 0, 0, BODY_A};
    static const uint8_t flag_17[] = {HEADER(33), FLAGS(0, 0x02), BODY_A}; /* optional: ignored */
    static const uint8_t op_query[] = {33, 0, 0, 0,    7,    0, 0, 0,           0,
                                       0,  0, 0, 0xD4, 0x07, 0, 0, FLAGS(0, 0), BODY_A};
    struct rk_msg msg;
    const char *why = NULL;
    expect_malformed(no_flags, sizeof no_flags, "OP_MSG shorter than its flags");
    expect_malformed(no_sections, sizeof no_sections, "OP_MSG without a body");
    expect_malformed(only_sequence, sizeof only_sequence, "OP_MSG without a body");
    expect_malformed(two_bodies, sizeof two_bodies, "OP_MSG with two bodies");
    expect_malformed(twice, sizeof twice, "document sequence identifier used twice");
    expect_malformed(kind_2, sizeof kind_2, "unknown OP_MSG section kind");
    expect_malformed(flag_2, sizeof flag_2, "unknown required OP_MSG flag");
    expect_malformed(flag_15, sizeof flag_15, "unknown required OP_MSG flag");
    expect_malformed(op_query, sizeof op_query, "not one whole OP_MSG");
    assert_int_equal(rk_msg_parse(flag_17, sizeof flag_17, &msg, &why), RK_PARSE_OK);
}

static void test_lying_lengths(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *reason;
    } cases[] = {
        {0, 70, "not one whole OP_MSG"},
        {0, 72, "not one whole OP_MSG"},
        {21, 4, "document sequence length outside the message"},
        {21, 51, "document sequence length outside the message"},
        {21, 0x80000000, "document sequence length outside the message"},
        {21, 0xFFFFFFFF, "document sequence length outside the message"},
        {21, 29, "document in a sequence has a wrong length"},
        {21, 5, "document sequence identifier without end"},
        {27, 4, "document in a sequence has a wrong length"},
        {27, 25, "document in a sequence has a wrong length"},
        {27, 0xFFFFFFFF, "document in a sequence has a wrong length"},
        {59, 4, "OP_MSG body has a wrong length"},
        {59, 11, "OP_MSG body has a wrong length"},
        {59, 13, "OP_MSG body has a wrong length"},
        {59, 0x7FFFFFFF, "OP_MSG body has a wrong length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t data[] = {HEADER(71), FLAGS(0, 0), SEQUENCE_D, SEQUENCE_E, BODY_A};
        rk_store_u32(data + cases[i].offset, cases[i].value);
        expect_malformed(data, sizeof data, cases[i].reason);
    }
    uint8_t open_end[] = {HEADER(33), FLAGS(0, 0), BODY_A};
    open_end[32] = 1; /* the body's closing NUL */
    expect_malformed(open_end, sizeof open_end, "OP_MSG body has a wrong length");
}

/* Cut anywhere, with a header that agrees with the cut: never accepted, never read past. */
static void test_every_truncation(void **state)
{
    (void)state;
    uint8_t data[] = {HEADER(71), FLAGS(0, 0), BODY_A, SEQUENCE_D, SEQUENCE_E};
    const size_t whole[] = {33, 64, 71}; /* ends of sections */
    for (size_t n = 0; n <= sizeof data; n++) {
        struct rk_msg msg;
        const char *why = NULL;
        rk_store_u32(data, (uint32_t)n);
        bool ends_well = n == whole[0] || n == whole[1] || n == whole[2];
        assert_int_equal(parse_exact(data, n, &msg, &why),
                         ends_well ? RK_PARSE_OK : RK_PARSE_MALFORMED);
    }
}

static void test_too_many_sequences(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 4096);
    for (unsigned n = RK_MSG_SECTIONS_MAX; n <= RK_MSG_SECTIONS_MAX + 1; n++) {
        struct rk_msg msg;
        const char *why = NULL;
        size_t off;
        size_t sequence;
        rk_buf_clear(&buf);
        assert_int_equal(rk_msg_begin(&buf, 1, 0, 0, &off), RK_OK);
        assert_int_equal(rk_msg_section_body(&buf), RK_OK);
        assert_int_equal(rk_buf_append(&buf, "\x05\0\0\0\0", 5), RK_OK);
        for (unsigned i = 0; i < n; i++) {
            const char id[] = {(char)('A' + i), '\0'};
            assert_int_equal(rk_msg_section_sequence(&buf, id, &sequence), RK_OK);
            rk_msg_sequence_end(&buf, sequence);
        }
        rk_msg_end(&buf, off);
        assert_int_equal(rk_msg_parse(buf.data, buf.len, &msg, &why),
                         n == RK_MSG_SECTIONS_MAX ? RK_PARSE_OK : RK_PARSE_MALFORMED);
    }
    rk_buf_deinit(&buf);
}

static void test_building_gives_the_same_bytes(void **state)
{
    (void)state;
    static const uint8_t expected[] = {HEADER(64), FLAGS(0x02, 0), BODY_A, SEQUENCE_D};
    static const uint8_t docs[] = {DOC_A, DOC_B};
    struct rk_buf buf;
    size_t off;
    size_t sequence;
    rk_buf_init(&buf, 1000);
    assert_int_equal(rk_buf_append(&buf, "xyz", 3), RK_OK); /* an earlier message */
    assert_int_equal(rk_msg_begin(&buf, 7, 0, RK_MSG_MORE_TO_COME | RK_MSG_CHECKSUM_PRESENT, &off),
                     RK_OK);
    assert_int_equal(rk_msg_section_body(&buf), RK_OK);
    assert_int_equal(rk_buf_append(&buf, docs, 12), RK_OK);
    assert_int_equal(rk_msg_section_sequence(&buf, "d", &sequence), RK_OK);
    assert_int_equal(rk_buf_append(&buf, docs, sizeof docs), RK_OK);
    rk_msg_sequence_end(&buf, sequence);
    rk_msg_end(&buf, off);
    assert_int_equal(off, 3);
    assert_int_equal(buf.len, 3 + sizeof expected);
    assert_memory_equal(buf.data + 3, expected, sizeof expected);
    rk_buf_deinit(&buf);
    rk_buf_init(&buf, 19);
    assert_int_equal(rk_msg_begin(&buf, 7, 0, 0, &off), RK_ELIMIT);
    rk_buf_deinit(&buf);
}

static void test_peeking_at_the_body(void **state)
{
    (void)state;
    static const uint8_t data[] = {HEADER(64), FLAGS(0, 0), BODY_A, SEQUENCE_D};
    static const uint8_t sequence_first[] = {HEADER(64), FLAGS(0, 0), SEQUENCE_D, BODY_A};
    const uint8_t *body = NULL;
    uint32_t body_len = 0;
    for (size_t n = 0; n <= sizeof data; n++) {
        uint8_t *exact = malloc(n + (n == 0));
        assert_non_null(exact);
        memcpy(exact, data, n);
        assert_int_equal(rk_msg_peek_body(exact, n, &body, &body_len), n >= 33);
        if (n >= 33) {
            assert_ptr_equal(body, exact + 21);
            assert_int_equal(body_len, 12);
        }
        free(exact);
    }
    assert_false(rk_msg_peek_body(sequence_first, sizeof sequence_first, &body, &body_len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_body_only),
        cmocka_unit_test(test_sections_in_any_order),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_crc32c_check_value),
        cmocka_unit_test(test_malformed_messages),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_too_many_sequences),
        cmocka_unit_test(test_building_gives_the_same_bytes),
        cmocka_unit_test(test_peeking_at_the_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
