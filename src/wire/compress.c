#include <rekey/wire/compress.h>

#include <snappy-c.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

struct rk_codec {
    z_stream deflate;
    z_stream inflate;
    int deflate_level; /* 0: deflate is not set up */
    bool inflates;     /* inflate is set up */
    ZSTD_CCtx *zstd_c;
    ZSTD_DCtx *zstd_d;
};

/* A buffer's free or used bytes. */
struct span {
    uint8_t *data;
    size_t len;
};

/* unpack: fills out exactly. pack: sets out->len to what was used; RK_ELIMIT when it is too small.
 */
struct compressor_ops {
    const char *name;
    enum rk_status (*unpack)(struct rk_codec *codec, const uint8_t *in, size_t len,
                             struct span out);
    enum rk_status (*pack)(struct rk_codec *codec, const struct rk_codec_levels *levels,
                           const uint8_t *in, size_t len, struct span *out);
};

/* ---- noop */

static enum rk_status noop_unpack(struct rk_codec *codec, const uint8_t *in, size_t len,
                                  struct span out)
{
    (void)codec;
    if (len != out.len) {
        return RK_EINVAL;
    }
    memcpy(out.data, in, len);
    return RK_OK;
}

/* ---- snappy */

static enum rk_status snappy_unpack(struct rk_codec *codec, const uint8_t *in, size_t len,
                                    struct span out)
{
    (void)codec;
    size_t n = 0;
    if (snappy_uncompressed_length((const char *)in, len, &n) != SNAPPY_OK || n != out.len) {
        return RK_EINVAL;
    }
    return snappy_uncompress((const char *)in, len, (char *)out.data, &n) == SNAPPY_OK &&
                   n == out.len
               ? RK_OK
               : RK_EINVAL;
}

static enum rk_status snappy_pack(struct rk_codec *codec, const struct rk_codec_levels *levels,
                                  const uint8_t *in, size_t len, struct span *out)
{
    (void)codec;
    (void)levels;
    return snappy_compress((const char *)in, len, (char *)out->data, &out->len) == SNAPPY_OK
               ? RK_OK
               : RK_ELIMIT;
}

/* ---- zlib */

static enum rk_status zlib_unpack(struct rk_codec *codec, const uint8_t *in, size_t len,
                                  struct span out)
{
    z_stream *z = &codec->inflate;
    if (!codec->inflates && inflateInit(z) != Z_OK) {
        return RK_ENOMEM;
    }
    codec->inflates = true;
    (void)inflateReset(z);
    z->next_in = (z_const Bytef *)in;
    z->avail_in = (uInt)len;
    z->next_out = out.data;
    z->avail_out = (uInt)out.len;
    int result = inflate(z, Z_FINISH);
    if (result == Z_MEM_ERROR) {
        return RK_ENOMEM;
    }
    return result == Z_STREAM_END && z->avail_in == 0 && z->avail_out == 0 ? RK_OK : RK_EINVAL;
}

static enum rk_status zlib_pack(struct rk_codec *codec, const struct rk_codec_levels *levels,
                                const uint8_t *in, size_t len, struct span *out)
{
    z_stream *z = &codec->deflate;
    if (codec->deflate_level != levels->zlib) {
        if (codec->deflate_level != 0) {
            (void)deflateEnd(z);
        }
        codec->deflate_level = 0;
        if (deflateInit(z, levels->zlib) != Z_OK) {
            return RK_ENOMEM;
        }
        codec->deflate_level = levels->zlib;
    }
    (void)deflateReset(z);
    z->next_in = (z_const Bytef *)in;
    z->avail_in = (uInt)len;
    z->next_out = out->data;
    z->avail_out = (uInt)out->len;
    if (deflate(z, Z_FINISH) != Z_STREAM_END) {
        return RK_ELIMIT;
    }
    out->len -= z->avail_out;
    return RK_OK;
}

/* ---- zstd */

static enum rk_status zstd_unpack(struct rk_codec *codec, const uint8_t *in, size_t len,
                                  struct span out)
{
    if (codec->zstd_d == NULL && (codec->zstd_d = ZSTD_createDCtx()) == NULL) {
        return RK_ENOMEM;
    }
    size_t n = ZSTD_decompressDCtx(codec->zstd_d, out.data, out.len, in, len);
    return ZSTD_isError(n) || n != out.len ? RK_EINVAL : RK_OK;
}

static enum rk_status zstd_pack(struct rk_codec *codec, const struct rk_codec_levels *levels,
                                const uint8_t *in, size_t len, struct span *out)
{
    if (codec->zstd_c == NULL && (codec->zstd_c = ZSTD_createCCtx()) == NULL) {
        return RK_ENOMEM;
    }
    size_t n = ZSTD_compressCCtx(codec->zstd_c, out->data, out->len, in, len, levels->zstd);
    if (ZSTD_isError(n)) {
        return RK_ELIMIT;
    }
    out->len = n;
    return RK_OK;
}

/* By id. */
static const struct compressor_ops compressors[] = {
    [RK_COMPRESSOR_NOOP] = {NULL, noop_unpack, NULL},
    [RK_COMPRESSOR_SNAPPY] = {"snappy", snappy_unpack, snappy_pack},
    [RK_COMPRESSOR_ZLIB] = {"zlib", zlib_unpack, zlib_pack},
    [RK_COMPRESSOR_ZSTD] = {"zstd", zstd_unpack, zstd_pack},
};
#define N_COMPRESSORS (sizeof compressors / sizeof compressors[0])

/* ---- names and sets */

const char *rk_compressor_name(enum rk_compressor id)
{
    return compressors[id].name;
}

bool rk_compressor_find(const char *name, size_t len, enum rk_compressor *id)
{
    for (size_t i = RK_COMPRESSOR_NOOP + 1; i < N_COMPRESSORS; i++) {
        if (strlen(compressors[i].name) == len && memcmp(compressors[i].name, name, len) == 0) {
            *id = (enum rk_compressor)i;
            return true;
        }
    }
    return false;
}

bool rk_compressors_has(const struct rk_compressors *set, uint8_t id)
{
    return memchr(set->ids, id, set->n) != NULL;
}

void rk_compressors_add(struct rk_compressors *set, enum rk_compressor id)
{
    if (!rk_compressors_has(set, (uint8_t)id)) {
        set->ids[set->n++] = (uint8_t)id;
    }
}

struct rk_compressors rk_compressors_common(const struct rk_compressors *a,
                                            const struct rk_compressors *b)
{
    struct rk_compressors common = {0};
    for (uint8_t i = 0; i < a->n; i++) {
        if (rk_compressors_has(b, a->ids[i])) {
            common.ids[common.n++] = a->ids[i];
        }
    }
    return common;
}

/* ---- messages */

enum rk_parse rk_compressed_parse(const uint8_t *data, size_t avail, uint32_t len_max,
                                  struct rk_compressed *compressed, const char **why)
{
    struct rk_frame outer;
    enum rk_parse parse = rk_frame_parse(data, avail, RK_FRAME_LEN_MAX, &outer);
    if (parse == RK_PARSE_INCOMPLETE) {
        return parse;
    }
    if (parse == RK_PARSE_MALFORMED || outer.len < RK_COMPRESSED_HEAD_LEN) {
        *why = "shorter than its head";
        return RK_PARSE_MALFORMED;
    }
    if (avail < RK_COMPRESSED_HEAD_LEN) {
        return RK_PARSE_INCOMPLETE;
    }
    uint32_t size = rk_load_u32(data + RK_FRAME_HEADER_LEN + 4);
    *compressed = (struct rk_compressed){
        .frame = {.request_id = outer.request_id,
                  .response_to = outer.response_to,
                  .opcode = rk_load_i32(data + RK_FRAME_HEADER_LEN)},
        .compressor = data[RK_FRAME_HEADER_LEN + 8],
        .data = data + RK_COMPRESSED_HEAD_LEN,
        .len = outer.len - RK_COMPRESSED_HEAD_LEN,
    };
    /* A negative size is a huge unsigned one. */
    if (size > len_max - RK_FRAME_HEADER_LEN) {
        *why = "whose declared size is outside the limits";
        return RK_PARSE_MALFORMED;
    }
    compressed->frame.len = RK_FRAME_HEADER_LEN + size;
    if (compressed->frame.opcode == RK_OP_COMPRESSED) {
        *why = "inside a compressed message";
        return RK_PARSE_MALFORMED;
    }
    if (compressed->compressor >= N_COMPRESSORS) {
        *why = "of an unknown compressor";
        return RK_PARSE_MALFORMED;
    }
    return RK_PARSE_OK;
}

struct rk_codec *rk_codec_new(void)
{
    return calloc(1, sizeof(struct rk_codec));
}

void rk_codec_free(struct rk_codec *codec)
{
    if (codec == NULL) {
        return;
    }
    if (codec->deflate_level != 0) {
        (void)deflateEnd(&codec->deflate);
    }
    if (codec->inflates) {
        (void)inflateEnd(&codec->inflate);
    }
    (void)ZSTD_freeCCtx(codec->zstd_c);
    (void)ZSTD_freeDCtx(codec->zstd_d);
    free(codec);
}

enum rk_status rk_codec_unpack(struct rk_codec *codec, const struct rk_compressed *compressed,
                               struct rk_buf *out)
{
    rk_buf_clear(out);
    enum rk_status status = rk_buf_reserve(out, compressed->frame.len);
    if (status != RK_OK) {
        return status;
    }
    const struct span room = {out->data + RK_FRAME_HEADER_LEN,
                              compressed->frame.len - RK_FRAME_HEADER_LEN};
    status =
        compressors[compressed->compressor].unpack(codec, compressed->data, compressed->len, room);
    if (status != RK_OK) {
        return status;
    }
    rk_frame_store(out->data, &compressed->frame);
    out->len = compressed->frame.len;
    return RK_OK;
}

/* Snappy's is the largest of the three (snappy_max_compressed_length). */
size_t rk_codec_bound(size_t len)
{
    return RK_COMPRESSED_HEAD_LEN + 32 + len + len / 6;
}

enum rk_status rk_codec_pack(struct rk_codec *codec, enum rk_compressor compressor,
                             const struct rk_codec_levels *levels, const uint8_t *data, size_t len,
                             struct rk_buf *out)
{
    struct rk_frame frame;
    rk_buf_clear(out);
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &frame) != RK_PARSE_OK || frame.len != len) {
        return RK_EINVAL;
    }
    enum rk_status status = rk_buf_reserve(out, rk_codec_bound(len));
    if (status != RK_OK) {
        return status;
    }
    struct span room = {out->data + RK_COMPRESSED_HEAD_LEN,
                        rk_codec_bound(len) - RK_COMPRESSED_HEAD_LEN};
    status = compressors[compressor].pack(codec, levels, data + RK_FRAME_HEADER_LEN,
                                          len - RK_FRAME_HEADER_LEN, &room);
    if (status != RK_OK) {
        return status;
    }
    const int32_t original = frame.opcode;
    frame.opcode = RK_OP_COMPRESSED;
    frame.len = (uint32_t)(RK_COMPRESSED_HEAD_LEN + room.len);
    rk_frame_store(out->data, &frame);
    rk_store_u32(out->data + RK_FRAME_HEADER_LEN, (uint32_t)original);
    rk_store_u32(out->data + RK_FRAME_HEADER_LEN + 4, (uint32_t)(len - RK_FRAME_HEADER_LEN));
    out->data[RK_FRAME_HEADER_LEN + 8] = (uint8_t)compressor;
    out->len = frame.len;
    return RK_OK;
}
