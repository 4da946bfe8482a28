/*
 * OP_COMPRESSED (specifications/source/compression/OP_COMPRESSED.md): the header, and the codecs
 * behind it. What is declared is a hard limit and must be met exactly: a reply that filled less
 * than it declared made mongod return bytes it had never written (CVE-2025-14847).
 */
#ifndef REKEY_WIRE_COMPRESS_H
#define REKEY_WIRE_COMPRESS_H

#include <rekey/base/buf.h>
#include <rekey/wire/frame.h>

/* Header, original opcode, uncompressed size, compressor id. */
#define RK_COMPRESSED_HEAD_LEN (RK_FRAME_HEADER_LEN + 9u)

/* The ids of the protocol. NOOP only frames its message; it has no name, so nobody can offer it. */
enum rk_compressor {
    RK_COMPRESSOR_NOOP = 0,
    RK_COMPRESSOR_SNAPPY = 1,
    RK_COMPRESSOR_ZLIB = 2,
    RK_COMPRESSOR_ZSTD = 3,
};
#define RK_COMPRESSORS_MAX 3u

/* Each at most once, the preferred one first. */
struct rk_compressors {
    uint8_t n;
    uint8_t ids[RK_COMPRESSORS_MAX]; /* enum rk_compressor, never NOOP */
};

const char *rk_compressor_name(enum rk_compressor id);
bool rk_compressor_find(const char *name, size_t len, enum rk_compressor *id);
bool rk_compressors_has(const struct rk_compressors *set, uint8_t id);
void rk_compressors_add(struct rk_compressors *set, enum rk_compressor id);
/* What both have, in the order of a. */
struct rk_compressors rk_compressors_common(const struct rk_compressors *a,
                                            const struct rk_compressors *b);

struct rk_compressed {
    struct rk_frame frame; /* of the message inside: its own opcode and length, the outer ids */
    uint8_t compressor;    /* enum rk_compressor */
    const uint8_t *data;   /* the compressed bytes, as far as they are there */
    uint32_t len;          /* of all of them */
};

/*
 * Reads the head of an OP_COMPRESSED whose frame rk_frame_parse has accepted. Malformed: cut short,
 * a message inside of more than len_max bytes, of an unknown compressor, or compressed itself;
 * *why then says which.
 */
enum rk_parse rk_compressed_parse(const uint8_t *data, size_t avail, uint32_t len_max,
                                  struct rk_compressed *compressed, const char **why);

/* The memory of the codecs, made at their first use and kept. For one thread at a time. */
struct rk_codec;

struct rk_codec_levels {
    int zlib; /* 1 to 9 */
    int zstd; /* 1 to 19 */
};

struct rk_codec *rk_codec_new(void); /* NULL: out of memory */
void rk_codec_free(struct rk_codec *codec);

/*
 * Writes the whole message inside, header included, to out (cleared first). All of the compressed
 * bytes must be there. RK_EINVAL: they are not what the head declared; RK_ENOMEM, RK_ELIMIT: out.
 */
RK_MUST_CHECK enum rk_status
rk_codec_unpack(struct rk_codec *codec, const struct rk_compressed *compressed, struct rk_buf *out);

/*
 * Writes one whole message (data, len) as OP_COMPRESSED to out (cleared first). It may have become
 * longer. out needs room for rk_codec_bound(len).
 */
RK_MUST_CHECK enum rk_status rk_codec_pack(struct rk_codec *codec, enum rk_compressor compressor,
                                           const struct rk_codec_levels *levels,
                                           const uint8_t *data, size_t len, struct rk_buf *out);

/* The most bytes that rk_codec_pack uses for a message of len bytes. */
size_t rk_codec_bound(size_t len);

#endif
