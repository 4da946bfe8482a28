/*
 * A peer's bytes as OP_COMPRESSED, once as they are and once with a head that is put right, so that
 * the fuzzer reaches the codecs. What unpacks is exactly as long as declared, and comes back the
 * same when it is packed again in each compressor.
 *
 * Input: a message. The byte at the compressor's place chooses it also where the head is put right.
 */
#include <rekey/wire/compress.h>

#include <stdlib.h>

#define LEN_MAX 1048576u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct rk_codec *codec;
static struct rk_buf out;
static struct rk_buf packed;
static struct rk_buf again;

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_packs(void)
{
    static const struct rk_codec_levels levels = {.zlib = 1, .zstd = 1};
    for (int id = RK_COMPRESSOR_SNAPPY; id <= RK_COMPRESSOR_ZSTD; id++) {
        struct rk_compressed compressed;
        const char *why = NULL;
        check(rk_codec_pack(codec, (enum rk_compressor)id, &levels, out.data, out.len, &packed) ==
              RK_OK);
        if (rk_load_i32(out.data + 12) == RK_OP_COMPRESSED) {
            continue; /* nothing that we would send; and nobody takes it */
        }
        check(rk_compressed_parse(packed.data, packed.len, LEN_MAX, &compressed, &why) ==
              RK_PARSE_OK);
        check(compressed.compressor == id);
        check(rk_codec_unpack(codec, &compressed, &again) == RK_OK);
        check(again.len == out.len && memcmp(again.data, out.data, out.len) == 0);
    }
}

static void check_message(const uint8_t *data, size_t len)
{
    struct rk_compressed compressed;
    struct rk_frame frame;
    const char *why = NULL;
    enum rk_parse parse = rk_compressed_parse(data, len, LEN_MAX, &compressed, &why);
    check(parse != RK_PARSE_MALFORMED || why != NULL);
    if (parse != RK_PARSE_OK || RK_COMPRESSED_HEAD_LEN + compressed.len > len) {
        return;
    }
    check(compressed.data + compressed.len <= data + len);
    check(compressed.frame.len <= LEN_MAX);
    if (rk_codec_unpack(codec, &compressed, &out) != RK_OK) {
        return;
    }
    check(out.len == compressed.frame.len);
    check(rk_frame_parse(out.data, out.len, LEN_MAX, &frame) == RK_PARSE_OK);
    check(frame.len == out.len && frame.opcode != RK_OP_COMPRESSED);
    check_packs();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (codec == NULL) {
        codec = rk_codec_new();
        rk_buf_init(&out, LEN_MAX);
        rk_buf_init(&packed, rk_codec_bound(LEN_MAX));
        rk_buf_init(&again, LEN_MAX);
    }
    check_message(data, len);
    if (len >= RK_COMPRESSED_HEAD_LEN && len <= LEN_MAX) {
        uint8_t *copy = malloc(len);
        if (copy == NULL) {
            return 0;
        }
        memcpy(copy, data, len);
        rk_store_u32(copy, (uint32_t)len);
        rk_store_u32(copy + RK_FRAME_HEADER_LEN, RK_OP_MSG);
        copy[RK_COMPRESSED_HEAD_LEN - 1] &= 3;
        check_message(copy, len);
        free(copy);
    }
    return 0;
}
