/*
 * Little-endian loads and stores (the byte order of BSON and of the wire protocol), big-endian ones
 * for what is to be ordered bytewise, and checked size arithmetic for lengths that a peer sent.
 */
#ifndef REKEY_BASE_BYTES_H
#define REKEY_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t rk_load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static inline int32_t rk_load_i32(const void *p)
{
    return (int32_t)rk_load_u32(p);
}

static inline uint64_t rk_load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static inline int64_t rk_load_i64(const void *p)
{
    return (int64_t)rk_load_u64(p);
}

static inline void rk_store_u32(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}

static inline uint32_t rk_load_be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline void rk_store_be32(void *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
}

static inline void rk_store_u64(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

/* true and *out = a + b, or false where that overflows. */
static inline bool rk_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
