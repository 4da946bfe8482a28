/* Keysets: built once, then only read; the last reference frees. */
#include <rekey/crypto/keyset.h>

#include <assert.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LEGACY_KEY_LEN 32u

struct legacy {
    char *name;
    uint8_t *key; /* LEGACY_KEY_LEN bytes of secure memory */
};

struct rk_keyset {
    atomic_uint refs;
    uint32_t current_id;
    uint32_t missing_id;       /* 0: none */
    struct rk_data_key **keys; /* in rk_keyset_at's order */
    size_t n_keys;
    struct legacy *legacy;
    size_t n_legacy;
};

static void keyset_free(struct rk_keyset *set)
{
    for (size_t i = 0; i < set->n_keys; i++) {
        rk_data_key_unref(set->keys[i]);
    }
    for (size_t i = 0; i < set->n_legacy; i++) {
        free(set->legacy[i].name);
        OPENSSL_secure_clear_free(set->legacy[i].key, LEGACY_KEY_LEN);
    }
    free(set->keys);
    free(set->legacy);
    free(set);
}

/* Keeps rk_keyset_at's order by insertion; there are few keys. */
static enum rk_status add_key(struct rk_keyset *set, struct rk_data_key *key, struct rk_error *err)
{
    uint32_t id = rk_data_key_id(key);
    if (rk_keyset_find(set, id) != NULL) {
        return rk_error_set(err, RK_EINVAL, "data key %u appears twice in one keyset", id);
    }
    size_t at = set->n_keys;
    while (at > 0) {
        uint32_t before = rk_data_key_id(set->keys[at - 1]);
        if (before == set->current_id || (before > id && id != set->current_id)) {
            break;
        }
        set->keys[at] = set->keys[at - 1];
        at--;
    }
    set->keys[at] = rk_data_key_ref(key);
    set->n_keys++;
    return RK_OK;
}

static enum rk_status add_legacy(struct rk_keyset *set, const struct rk_legacy_key *key,
                                 struct rk_error *err)
{
    if (rk_keyset_legacy(set, key->name) != NULL) {
        return rk_error_set(err, RK_EINVAL, "legacy key \"%s\" appears twice in one keyset",
                            key->name);
    }
    struct legacy *legacy = &set->legacy[set->n_legacy++];
    legacy->name = strdup(key->name);
    legacy->key = OPENSSL_secure_malloc(LEGACY_KEY_LEN);
    if (legacy->name == NULL || legacy->key == NULL) {
        return rk_error_set(err, RK_ENOMEM, "no secure memory left for legacy key \"%s\"",
                            key->name);
    }
    memcpy(legacy->key, key->key, LEGACY_KEY_LEN);
    return RK_OK;
}

enum rk_status rk_keyset_new(struct rk_data_key *const *keys, size_t n_keys, uint32_t current_id,
                             const struct rk_legacy_key *legacy, size_t n_legacy,
                             struct rk_keyset **out, struct rk_error *err)
{
    *out = NULL;
    enum rk_status status = RK_OK;
    struct rk_keyset *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    atomic_init(&set->refs, 1);
    set->current_id = current_id;
    set->keys = calloc(n_keys + 1, sizeof(struct rk_data_key *));
    set->legacy = calloc(n_legacy + 1, sizeof *set->legacy);
    if (set->keys == NULL || set->legacy == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    for (size_t i = 0; i < n_keys && status == RK_OK; i++) {
        status = add_key(set, keys[i], err);
    }
    for (size_t i = 0; i < n_legacy && status == RK_OK; i++) {
        status = add_legacy(set, &legacy[i], err);
    }
    if (status == RK_OK && current_id != 0 && rk_keyset_find(set, current_id) == NULL) {
        status = rk_error_set(err, RK_EINVAL, "the current data key %u is not in the keyset",
                              current_id);
    }
    if (status != RK_OK) {
        keyset_free(set);
        return status;
    }
    *out = set;
    return RK_OK;
}

void rk_keyset_set_missing(struct rk_keyset *set, uint32_t id)
{
    set->missing_id = id;
}

uint32_t rk_keyset_missing(const struct rk_keyset *set)
{
    return set->missing_id;
}

struct rk_keyset *rk_keyset_ref(struct rk_keyset *set)
{
    unsigned before = atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return set;
}

void rk_keyset_unref(struct rk_keyset *set)
{
    if (set != NULL && atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) == 1) {
        keyset_free(set);
    }
}

const struct rk_data_key *rk_keyset_current(const struct rk_keyset *set)
{
    return set->current_id != 0 ? set->keys[0] : NULL;
}

const struct rk_data_key *rk_keyset_find(const struct rk_keyset *set, uint32_t id)
{
    for (size_t i = 0; i < set->n_keys; i++) {
        if (rk_data_key_id(set->keys[i]) == id) {
            return set->keys[i];
        }
    }
    return NULL;
}

size_t rk_keyset_count(const struct rk_keyset *set)
{
    return set->n_keys;
}

const struct rk_data_key *rk_keyset_at(const struct rk_keyset *set, size_t i)
{
    assert(i < set->n_keys);
    return set->keys[i];
}

const uint8_t *rk_keyset_legacy(const struct rk_keyset *set, const char *name)
{
    for (size_t i = 0; i < set->n_legacy; i++) {
        if (strcmp(set->legacy[i].name, name) == 0) {
            return set->legacy[i].key;
        }
    }
    return NULL;
}
