/* OP_COMPRESSED: the head, what the codecs make of good and of lying bytes. */
#include <rekey/wire/compress.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

/* {ping: 1, s: "a" * 40} as OP_MSG, zlib level 6 by another implementation. */
static const uint8_t zlib_ping[] = {
    0x3A, 0x00, 0x00, 0x00, /* messageLength 58 */
    0x01, 0x02, 0x03, 0x04, /* requestID 0x04030201 */
    0xFF, 0xFF, 0xFF, 0xFF, /* responseTo -1 */
    0xDC, 0x07, 0x00, 0x00, /* opCode 2012, OP_COMPRESSED */
    0xDD, 0x07, 0x00, 0x00, /* originalOpcode 2013, OP_MSG */
    0x44, 0x00, 0x00, 0x00, /* uncompressedSize 68 */
    0x02,                   /* compressorId 2, zlib */
    0x78, 0x9C, 0x63, 0x60, 0x00, 0x02, 0x7B, 0x20, 0x16, 0x28, 0xC8,
    0xCC, 0x4B, 0x67, 0x60, 0x04, 0xB2, 0x98, 0x8A, 0x19, 0x34, 0x81,
    0x54, 0x22, 0x91, 0x80, 0x81, 0x01, 0x00, 0xE4, 0xFF, 0x11, 0xC5,
};

static const uint8_t ping_payload[] = {
    0x00, 0x00, 0x00, 0x00, /* flagBits */
    0x00,                   /* section kind 0 */
    0x3F, 0x00, 0x00, 0x00, 0x10, 0x70, 0x69, 0x6E, 0x67, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x73,
    0x00, 0x29, 0x00, 0x00, 0x00, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61,
    0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61,
    0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x00, 0x00,
};

#define PING_LEN (RK_FRAME_HEADER_LEN + sizeof ping_payload)

static const struct rk_codec_levels levels = {.zlib = 1, .zstd = 3};

struct tools {
    struct rk_codec *codec;
    struct rk_buf out;
    struct rk_buf packed;
};

static int setup(void **state)
{
    struct tools *t = calloc(1, sizeof *t);
    if (t == NULL || (t->codec = rk_codec_new()) == NULL) {
        return -1;
    }
    rk_buf_init(&t->out, RK_FRAME_LEN_MAX);
    rk_buf_init(&t->packed, rk_codec_bound(RK_FRAME_LEN_MAX));
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct tools *t = *state;
    rk_codec_free(t->codec);
    rk_buf_deinit(&t->out);
    rk_buf_deinit(&t->packed);
    free(t);
    return 0;
}

/* A message of exactly its own memory, so that an over-read is caught. */
static uint8_t *exactly(const void *data, size_t len)
{
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    return copy;
}

static enum rk_status unpack(struct tools *t, const uint8_t *data, size_t len)
{
    struct rk_compressed compressed;
    const char *why = NULL;
    uint8_t *copy = exactly(data, len);
    assert_int_equal(rk_compressed_parse(copy, len, RK_FRAME_LEN_MAX, &compressed, &why),
                     RK_PARSE_OK);
    enum rk_status status = rk_codec_unpack(t->codec, &compressed, &t->out);
    free(copy);
    return status;
}

static void expect_ping(const struct rk_buf *out)
{
    struct rk_frame frame;
    assert_int_equal(out->len, PING_LEN);
    assert_int_equal(rk_frame_parse(out->data, out->len, RK_FRAME_LEN_MAX, &frame), RK_PARSE_OK);
    assert_int_equal(frame.len, PING_LEN);
    assert_int_equal(frame.request_id, 0x04030201);
    assert_int_equal(frame.response_to, -1);
    assert_int_equal(frame.opcode, RK_OP_MSG);
    assert_memory_equal(out->data + RK_FRAME_HEADER_LEN, ping_payload, sizeof ping_payload);
}

static void ping_message(uint8_t *out)
{
    const struct rk_frame frame = {
        .len = PING_LEN, .request_id = 0x04030201, .response_to = -1, .opcode = RK_OP_MSG};
    rk_frame_store(out, &frame);
    memcpy(out + RK_FRAME_HEADER_LEN, ping_payload, sizeof ping_payload);
}

static void test_reads_what_another_wrote(void **state)
{
    struct tools *t = *state;
    struct rk_compressed compressed;
    const char *why = NULL;
    assert_int_equal(
        rk_compressed_parse(zlib_ping, sizeof zlib_ping, RK_FRAME_LEN_MAX, &compressed, &why),
        RK_PARSE_OK);
    assert_int_equal(compressed.compressor, RK_COMPRESSOR_ZLIB);
    assert_int_equal(compressed.frame.opcode, RK_OP_MSG);
    assert_int_equal(compressed.frame.len, PING_LEN);
    assert_int_equal(compressed.len, sizeof zlib_ping - RK_COMPRESSED_HEAD_LEN);
    assert_int_equal(unpack(t, zlib_ping, sizeof zlib_ping), RK_OK);
    expect_ping(&t->out);
}

static void test_noop_frames_only(void **state)
{
    struct tools *t = *state;
    uint8_t noop[RK_COMPRESSED_HEAD_LEN + sizeof ping_payload];
    memcpy(noop, zlib_ping, RK_COMPRESSED_HEAD_LEN);
    noop[RK_COMPRESSED_HEAD_LEN - 1] = RK_COMPRESSOR_NOOP;
    rk_store_u32(noop, sizeof noop);
    memcpy(noop + RK_COMPRESSED_HEAD_LEN, ping_payload, sizeof ping_payload);
    assert_int_equal(unpack(t, noop, sizeof noop), RK_OK);
    expect_ping(&t->out);
    rk_store_u32(noop + 20, sizeof ping_payload - 1);
    assert_int_equal(unpack(t, noop, sizeof noop), RK_EINVAL);
}

static void test_incomplete_until_the_head_is_there(void **state)
{
    (void)state;
    for (size_t n = 0; n < RK_COMPRESSED_HEAD_LEN; n++) {
        struct rk_compressed compressed;
        const char *why = NULL;
        uint8_t *copy = exactly(zlib_ping, n);
        assert_int_equal(rk_compressed_parse(copy, n, RK_FRAME_LEN_MAX, &compressed, &why),
                         RK_PARSE_INCOMPLETE);
        free(copy);
    }
}

static void test_heads_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *why;
    } cases[] = {
        {0, RK_COMPRESSED_HEAD_LEN - 1, "shorter than its head"},
        {0, RK_FRAME_HEADER_LEN, "shorter than its head"},
        {16, RK_OP_COMPRESSED, "inside a compressed message"},
        {20, 48000000 - 15, "whose declared size is outside the limits"},
        {20, 0x7FFFFFFF, "whose declared size is outside the limits"},
        {20, 0x80000000, "whose declared size is outside the limits"},
        {20, 0xFFFFFFFF, "whose declared size is outside the limits"}, /* -1 */
        {24, 4, "of an unknown compressor"},
        {24, 0xFF, "of an unknown compressor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_compressed compressed;
        const char *why = NULL;
        uint8_t head[RK_COMPRESSED_HEAD_LEN + 4] = {0};
        memcpy(head, zlib_ping, RK_COMPRESSED_HEAD_LEN);
        rk_store_u32(head + cases[i].offset, cases[i].value);
        assert_int_equal(
            rk_compressed_parse(head, RK_COMPRESSED_HEAD_LEN, RK_FRAME_LEN_MAX, &compressed, &why),
            RK_PARSE_MALFORMED);
        assert_string_equal(why, cases[i].why);
    }
}

static void test_a_smaller_limit_holds(void **state)
{
    (void)state;
    struct rk_compressed compressed;
    const char *why = NULL;
    assert_int_equal(rk_compressed_parse(zlib_ping, sizeof zlib_ping, PING_LEN, &compressed, &why),
                     RK_PARSE_OK);
    assert_int_equal(
        rk_compressed_parse(zlib_ping, sizeof zlib_ping, PING_LEN - 1, &compressed, &why),
        RK_PARSE_MALFORMED);
}

static const enum rk_compressor real[] = {RK_COMPRESSOR_SNAPPY, RK_COMPRESSOR_ZLIB,
                                          RK_COMPRESSOR_ZSTD};

/* What is declared is what there must be: less or more, cut short or followed by anything. */
static void test_contents_that_lie(void **state)
{
    struct tools *t = *state;
    uint8_t ping[PING_LEN];
    ping_message(ping);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rk_codec_pack(t->codec, real[i], &levels, ping, sizeof ping, &t->packed),
                         RK_OK);
        size_t len = t->packed.len;
        uint8_t *m = exactly(t->packed.data, len);
        for (int off_by = -2; off_by <= 2; off_by++) {
            rk_store_u32(m + 20, (uint32_t)((int)sizeof ping_payload + off_by));
            assert_int_equal(unpack(t, m, len), off_by == 0 ? RK_OK : RK_EINVAL);
        }
        rk_store_u32(m + 20, 0);
        assert_int_equal(unpack(t, m, len), RK_EINVAL);
        rk_store_u32(m + 20, 40000000); /* CVE-2025-14847: more than is there */
        assert_int_equal(unpack(t, m, len), RK_EINVAL);
        rk_store_u32(m + 20, sizeof ping_payload);
        for (size_t cut = RK_COMPRESSED_HEAD_LEN; cut < len; cut++) {
            rk_store_u32(m, (uint32_t)cut);
            assert_int_equal(unpack(t, m, cut), RK_EINVAL);
        }
        free(m);
        assert_int_equal(rk_buf_append_u32(&t->packed, 0x78787878), RK_OK);
        rk_store_u32(t->packed.data, (uint32_t)t->packed.len);
        assert_int_equal(unpack(t, t->packed.data, t->packed.len), RK_EINVAL);
        /* A codec that has met all this still works. */
        assert_int_equal(unpack(t, zlib_ping, sizeof zlib_ping), RK_OK);
        expect_ping(&t->out);
    }
}

/* 47 MB that come as a few kilobytes to some megabytes: exact, and one byte less is refused. */
static void test_bomb(void **state)
{
    struct tools *t = *state;
    const size_t len = 47000000;
    uint8_t *message = calloc(1, len);
    assert_non_null(message);
    const struct rk_frame frame = {.len = (uint32_t)len, .opcode = RK_OP_MSG};
    rk_frame_store(message, &frame);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rk_codec_pack(t->codec, real[i], &levels, message, len, &t->packed),
                         RK_OK);
        assert_in_range(t->packed.len, 1, len / 10);
        assert_int_equal(unpack(t, t->packed.data, t->packed.len), RK_OK);
        assert_int_equal(t->out.len, len);
        assert_memory_equal(t->out.data, message, len);
        rk_store_u32(t->packed.data + 20, (uint32_t)len - RK_FRAME_HEADER_LEN - 1);
        assert_int_equal(unpack(t, t->packed.data, t->packed.len), RK_EINVAL);
        rk_buf_deinit(&t->out);
    }
    free(message);
}

static void test_round_trips(void **state)
{
    struct tools *t = *state;
    uint8_t ping[PING_LEN];
    ping_message(ping);
    for (size_t i = 0; i < 3; i++) {
        for (int level = 1; level <= 9; level += 4) {
            const struct rk_codec_levels other = {.zlib = level, .zstd = level};
            assert_int_equal(
                rk_codec_pack(t->codec, real[i], &other, ping, sizeof ping, &t->packed), RK_OK);
            assert_int_equal(t->packed.data[24], real[i]);
            assert_int_equal(rk_load_i32(t->packed.data + 12), RK_OP_COMPRESSED);
            assert_int_equal(rk_load_u32(t->packed.data), t->packed.len);
            assert_int_equal(unpack(t, t->packed.data, t->packed.len), RK_OK);
            expect_ping(&t->out);
        }
    }
}

static void test_noise_grows_within_the_bound(void **state)
{
    struct tools *t = *state;
    static uint8_t noise[100000];
    uint32_t seed = 12345;
    for (size_t i = 0; i < sizeof noise; i++) {
        seed = seed * 1664525u + 1013904223u;
        noise[i] = (uint8_t)(seed >> 24);
    }
    for (size_t i = 0; i < 3; i++) {
        static const uint32_t lens[] = {RK_FRAME_HEADER_LEN, RK_FRAME_HEADER_LEN + 1, 50, 5000,
                                        sizeof noise};
        for (size_t k = 0; k < sizeof lens / sizeof lens[0]; k++) {
            const struct rk_frame frame = {.len = lens[k], .opcode = RK_OP_MSG};
            rk_frame_store(noise, &frame);
            assert_int_equal(rk_codec_pack(t->codec, real[i], &levels, noise, lens[k], &t->packed),
                             RK_OK);
            assert_in_range(t->packed.len, lens[k], rk_codec_bound(lens[k]));
            assert_int_equal(unpack(t, t->packed.data, t->packed.len), RK_OK);
            assert_int_equal(t->out.len, lens[k]);
            assert_memory_equal(t->out.data, noise, lens[k]);
        }
    }
}

static void test_names_and_sets(void **state)
{
    (void)state;
    enum rk_compressor id;
    for (size_t i = 0; i < 3; i++) {
        const char *name = rk_compressor_name(real[i]);
        assert_true(rk_compressor_find(name, strlen(name), &id));
        assert_int_equal(id, real[i]);
        assert_false(rk_compressor_find(name, strlen(name) - 1, &id));
    }
    assert_false(rk_compressor_find("noop", 4, &id));
    assert_false(rk_compressor_find("zlib\0", 5, &id));
    assert_false(rk_compressor_find("", 0, &id));
    struct rk_compressors a = {0};
    struct rk_compressors b = {0};
    rk_compressors_add(&a, RK_COMPRESSOR_ZSTD);
    rk_compressors_add(&a, RK_COMPRESSOR_SNAPPY);
    rk_compressors_add(&a, RK_COMPRESSOR_ZSTD);
    assert_int_equal(a.n, 2);
    assert_false(rk_compressors_has(&a, RK_COMPRESSOR_NOOP));
    assert_int_equal(rk_compressors_common(&a, &b).n, 0);
    rk_compressors_add(&b, RK_COMPRESSOR_SNAPPY);
    rk_compressors_add(&b, RK_COMPRESSOR_ZLIB);
    rk_compressors_add(&b, RK_COMPRESSOR_ZSTD);
    const struct rk_compressors both = rk_compressors_common(&a, &b);
    assert_int_equal(both.n, 2);
    assert_int_equal(both.ids[0], RK_COMPRESSOR_ZSTD);
    assert_int_equal(both.ids[1], RK_COMPRESSOR_SNAPPY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads_what_another_wrote),
        TEST(test_noop_frames_only),
        TEST(test_incomplete_until_the_head_is_there),
        TEST(test_heads_that_are_refused),
        TEST(test_a_smaller_limit_holds),
        TEST(test_contents_that_lie),
        TEST(test_bomb),
        TEST(test_round_trips),
        TEST(test_noise_grows_within_the_bound),
        TEST(test_names_and_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
