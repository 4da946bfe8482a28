/*
 * Which data keys are needed: every envelope of a document, wherever it stands, counted by the key
 * that it names. No key has to be loaded for that.
 */
#ifndef REKEY_JOBS_USAGE_H
#define REKEY_JOBS_USAGE_H

#include <rekey/base/status.h>
#include <rekey/bson/walk.h>
#include <stddef.h>

/* Calls fn with what claims to be an envelope (the value bytes of a BSON binary, length and subtype
 * first), in sub-documents, arrays and scopes of code as well. Stops at the first status other than
 * RK_OK and returns it; RK_EINVAL for malformed bytes, RK_ELIMIT for nesting that mongod would not
 * store. */
typedef enum rk_status rk_envelope_fn(void *arg, const uint8_t *value, uint32_t len);
RK_MUST_CHECK enum rk_status rk_envelopes_visit(const struct rk_bson_view *doc, rk_envelope_fn *fn,
                                                void *arg);

#define RK_USAGE_ANY 0u
struct rk_key_count {
    uint32_t id;
    int64_t values;
};

/* By rising id. Zeroed is empty. */
struct rk_usage {
    struct rk_key_count *keys;
    size_t n;
    size_t cap;
};

/* Adds the envelopes of doc. Damaged ones count under the key that they name; those of which even
 * that is lost count nowhere: no key opens them. Those of an unknown version of the format, which
 * may need any key, count under RK_USAGE_ANY. */
RK_MUST_CHECK enum rk_status rk_usage_add(struct rk_usage *usage, const struct rk_bson_view *doc);
/* The same for one value as rk_envelope_fn gets it. */
RK_MUST_CHECK enum rk_status rk_usage_add_value(struct rk_usage *usage, const uint8_t *value,
                                                uint32_t len);
RK_MUST_CHECK enum rk_status rk_usage_add_key(struct rk_usage *usage, uint32_t id, int64_t values);
int64_t rk_usage_of(const struct rk_usage *usage, uint32_t key_id);
void rk_usage_deinit(struct rk_usage *usage);

#endif
