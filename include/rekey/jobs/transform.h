/*
 * A transform decides what one document needs: which values are to be replaced, and which ones
 * cannot be. The engine does the rest, the same for every transform: reading, compare-and-swap
 * updates, retries, dead letters, checkpoints. Transforms are pure: no I/O.
 */
#ifndef REKEY_JOBS_TRANSFORM_H
#define REKEY_JOBS_TRANSFORM_H

#include <rekey/bson/walk.h>
#include <rekey/policy/policy.h>
#include <rekey/policy/tenant.h>

/* One BSON value inside somebody else's bytes. */
struct rk_value {
    uint8_t type; /* enum rk_bson_type */
    const uint8_t *data;
    uint32_t len;
};

/* A value to replace. Offsets point into the plan's arena, which moves while it grows. */
struct rk_change {
    uint32_t path_off; /* concrete dotted path with array indexes: "contacts.0.phone" */
    uint32_t path_len;
    struct rk_value old; /* borrowed from the document */
    uint8_t type;        /* of the new value */
    uint32_t value_off;
    uint32_t value_len;
};

/* A value that should be replaced and cannot be. */
struct rk_reject {
    uint32_t path_off;
    uint32_t path_len;
    struct rk_value old;
    uint32_t key_id;    /* the data key that was not loaded, 0 when that is not the reason */
    const char *reason; /* a constant */
};

struct rk_doc_plan {
    struct rk_bson_view doc; /* borrowed */
    struct rk_value id;      /* borrowed from the document */
    uint32_t first_change;
    uint32_t n_changes;
    uint32_t first_reject;
    uint32_t n_rejects;
    const char *failure; /* a constant: why mongod will never take the changes; NULL: it may */
};

/* What a batch of documents needs. Belongs to one thread. */
struct rk_plan {
    struct rk_buf arena;   /* paths and new values; ciphertext only */
    struct rk_buf docs;    /* struct rk_doc_plan */
    struct rk_buf changes; /* struct rk_change */
    struct rk_buf rejects; /* struct rk_reject */
    struct rk_buf path;    /* of the value being looked at */
    struct rk_buf scratch; /* a plaintext on its way from key to key; always cleansed */
    uint64_t plaintext;    /* protected values found unencrypted, and left so */
    char missing_name[RK_KEY_NAME_SIZE]; /* a name whose current key is not there; empty: none */
};

void rk_plan_init(struct rk_plan *plan);
void rk_plan_deinit(struct rk_plan *plan);
void rk_plan_clear(struct rk_plan *plan);

size_t rk_plan_count(const struct rk_plan *plan);
struct rk_doc_plan *rk_plan_doc(const struct rk_plan *plan, size_t i);
const struct rk_change *rk_plan_change(const struct rk_plan *plan, size_t i);
const struct rk_reject *rk_plan_reject(const struct rk_plan *plan, size_t i);
size_t rk_plan_rejects(const struct rk_plan *plan);
/* Both also file the entry under the last document of the plan. */
RK_MUST_CHECK enum rk_status rk_plan_add_change(struct rk_plan *plan, struct rk_change *change);
RK_MUST_CHECK enum rk_status rk_plan_add_reject(struct rk_plan *plan, struct rk_reject *reject);

/* What a transform works with. */
struct rk_transform_keys {
    struct rk_aead *aead;
    const struct rk_keyset *keys; /* has a current key of each name without a tenant */
    uint32_t now_s;
    const struct rk_tenant *tenant; /* of the document; set by rk_transform_document */
};

struct rk_transform_ops {
    const char *name; /* as jobs name it */
    /*
     * Adds what the values of doc below node need to the plan, whose last document is doc. What
     * cannot be done is a reject, not a failure: only memory, limits or the cipher itself fail.
     */
    enum rk_status (*examine)(const struct rk_transform_keys *keys, const struct rk_path_node *node,
                              const struct rk_bson_view *doc, struct rk_plan *plan);
};

/* Every protected value under another key, algorithm or field id than the policy's present one,
 * and every legacy value, becomes an envelope under the current key. */
extern const struct rk_transform_ops rk_transform_reencrypt;
/* Every protected value that was never encrypted becomes an envelope under the current key. */
extern const struct rk_transform_ops rk_transform_encrypt;

/* NULL when there is no such transform. */
const struct rk_transform_ops *rk_transform_find(const char *name);

/* Starts a document of the plan and examines it. RK_EINVAL when it has no _id or is malformed. */
RK_MUST_CHECK enum rk_status rk_transform_document(const struct rk_transform_ops *ops,
                                                   const struct rk_transform_keys *keys,
                                                   const struct rk_policy *policy,
                                                   const struct rk_bson_view *doc,
                                                   struct rk_plan *plan);

/*
 * Calls fn for every value at a protected path below node, arrays element by element, with its
 * concrete path in plan->path. Stops at the first status other than RK_OK and returns it;
 * RK_EINVAL for malformed bytes, RK_ELIMIT for nesting that mongod would not store.
 */
typedef enum rk_status rk_value_fn(void *arg, const struct rk_field *field,
                                   const struct rk_value *value, const char *path, size_t path_len);
RK_MUST_CHECK enum rk_status rk_protected_values(const struct rk_path_node *node,
                                                 const struct rk_bson_view *doc,
                                                 struct rk_buf *path, rk_value_fn *fn, void *arg);

#endif
