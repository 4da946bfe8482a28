/*
 * The key of a sharded collection: every update names the document's values of it, or mongos would
 * send it to all shards.
 */
#ifndef REKEY_JOBS_SHARD_KEY_INTERNAL_H
#define REKEY_JOBS_SHARD_KEY_INTERNAL_H

#include <rekey/bson/rewrite.h>

#define RK_SHARD_KEY_BYTES_MAX 512u

/* {path: 1 | -1 | "hashed", ...}; len 0: the collection is not sharded. */
struct rk_shard_key {
    uint32_t len;
    uint8_t doc[RK_SHARD_KEY_BYTES_MAX];
};

/* False when it is too long. */
RK_MUST_CHECK bool rk_shard_key_set(struct rk_shard_key *key, const struct rk_bson_view *doc);

/* Calls fn with each path but _id. */
typedef void rk_shard_path_fn(void *arg, const char *path, size_t len);
void rk_shard_key_paths(const struct rk_shard_key *key, rk_shard_path_fn *fn, void *arg);

/* Puts {path: {$eq: value}} for each of them into a filter, with null for what the document does
 * not have, as mongos takes it. */
void rk_shard_key_put(const struct rk_shard_key *key, struct rk_bson_writer *w,
                      const struct rk_bson_view *doc);
/* At least as many bytes as that takes. */
size_t rk_shard_key_size(const struct rk_shard_key *key, const struct rk_bson_view *doc);

#endif
