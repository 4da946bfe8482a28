/*
 * Keysets: built once, then only read; the last reference frees.
 *
 * Every key lies in two orders: by id for what is read, by name for what is written and compared.
 * There may be one name for each tenant, so both are searched by halves.
 */
#include <rekey/crypto/keyset.h>

#include <assert.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LEGACY_KEY_LEN 32u

struct legacy {
    char *name;
    uint8_t *key; /* LEGACY_KEY_LEN bytes of secure memory */
};

struct named {
    const char *name;
    struct rk_key_versions versions;
};

struct rk_keyset {
    atomic_uint refs;
    struct rk_keyset_key *keys; /* by rising id */
    size_t n_keys;
    struct named *names; /* in strcmp's order */
    size_t n_names;
    struct rk_data_key **loaded; /* of one name after the other: what its versions point to */
    char *text;                  /* the names themselves */
    struct legacy *legacy;
    size_t n_legacy;
};

static void keyset_free(struct rk_keyset *set)
{
    for (size_t i = 0; i < set->n_keys; i++) {
        rk_data_key_unref(set->keys[i].key);
    }
    for (size_t i = 0; i < set->n_legacy; i++) {
        free(set->legacy[i].name);
        OPENSSL_secure_clear_free(set->legacy[i].key, LEGACY_KEY_LEN);
    }
    free(set->keys);
    free(set->names);
    free(set->loaded);
    free(set->text);
    free(set->legacy);
    free(set);
}

static int by_id(const void *a, const void *b)
{
    const struct rk_keyset_key *x = a;
    const struct rk_keyset_key *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool is_remote(const struct rk_keyset_key *key)
{
    return key->key != NULL && rk_data_key_remote(key->key) != NULL;
}

/* By name; within one the key for writes first, then those at hand, then by falling id. */
static int by_name(const void *a, const void *b)
{
    const struct rk_keyset_key *x = *(const struct rk_keyset_key *const *)a;
    const struct rk_keyset_key *y = *(const struct rk_keyset_key *const *)b;
    int order = strcmp(x->name, y->name);
    if (order == 0) {
        order = (y->role == RK_KEY_WRITES) - (x->role == RK_KEY_WRITES);
    }
    if (order == 0) {
        order = is_remote(x) - is_remote(y);
    }
    return order != 0 ? order : by_id(y, x);
}

/* Copies the keys, their names one after the other, by rising id. */
static enum rk_status copy_keys(struct rk_keyset *set, const struct rk_keyset_key *keys, size_t n,
                                struct rk_error *err)
{
    size_t text_len = 1;
    for (size_t i = 0; i < n; i++) {
        text_len += strlen(keys[i].name) + 1;
    }
    set->keys = calloc(n + 1, sizeof *set->keys);
    set->names = calloc(n + 1, sizeof *set->names);
    set->loaded = calloc(n + 1, sizeof(struct rk_data_key *));
    set->text = malloc(text_len);
    if (set->keys == NULL || set->names == NULL || set->loaded == NULL || set->text == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    char *text = set->text;
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(keys[i].name) + 1;
        memcpy(text, keys[i].name, size);
        set->keys[i] = keys[i];
        set->keys[i].name = text;
        text += size;
        if (keys[i].key != NULL) {
            (void)rk_data_key_ref(keys[i].key);
        }
        set->n_keys = i + 1;
    }
    qsort(set->keys, n, sizeof *set->keys, by_id);
    for (size_t i = 1; i < n; i++) {
        if (set->keys[i].id == set->keys[i - 1].id) {
            return rk_error_set(err, RK_EINVAL, "data key %u appears twice in one keyset",
                                set->keys[i].id);
        }
    }
    return RK_OK;
}

static enum rk_status add_version(struct rk_keyset *set, const struct rk_keyset_key *key,
                                  size_t *n_loaded, struct rk_error *err)
{
    struct named *named = set->n_names > 0 ? &set->names[set->n_names - 1] : NULL;
    bool another = named == NULL || strcmp(named->name, key->name) != 0;
    if (another) {
        named = &set->names[set->n_names++];
        named->name = key->name;
        named->versions.keys = set->loaded + *n_loaded;
    } else if (key->role == RK_KEY_WRITES) {
        return rk_error_set(err, RK_EINVAL, "data key %u: \"%s\" has another current key", key->id,
                            key->name);
    }
    struct rk_key_versions *versions = &named->versions;
    bool used = key->role == RK_KEY_WRITES || key->role == RK_KEY_READS;
    if (key->key == NULL) {
        versions->missing_id = used && versions->missing_id == 0 ? key->id : versions->missing_id;
    } else if (key->role != RK_KEY_GONE) {
        set->loaded[(*n_loaded)++] = key->key;
        versions->n++;
        versions->current = key->role == RK_KEY_WRITES ? key->key : versions->current;
    }
    return RK_OK;
}

static enum rk_status index_names(struct rk_keyset *set, struct rk_error *err)
{
    size_t n_loaded = 0;
    enum rk_status status = RK_OK;
    const struct rk_keyset_key **order = calloc(set->n_keys + 1, sizeof(struct rk_keyset_key *));
    if (order == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    for (size_t i = 0; i < set->n_keys; i++) {
        order[i] = &set->keys[i];
    }
    qsort(order, set->n_keys, sizeof *order, by_name);
    for (size_t i = 0; i < set->n_keys && status == RK_OK; i++) {
        status = add_version(set, order[i], &n_loaded, err);
    }
    free(order);
    return status;
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

enum rk_status rk_keyset_new(const struct rk_keyset_key *keys, size_t n_keys,
                             const struct rk_legacy_key *legacy, size_t n_legacy,
                             struct rk_keyset **out, struct rk_error *err)
{
    *out = NULL;
    struct rk_keyset *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    atomic_init(&set->refs, 1);
    enum rk_status status = copy_keys(set, keys, n_keys, err);
    if (status == RK_OK) {
        status = index_names(set, err);
    }
    set->legacy = calloc(n_legacy + 1, sizeof *set->legacy);
    if (status == RK_OK && set->legacy == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory for a keyset");
    }
    for (size_t i = 0; i < n_legacy && status == RK_OK; i++) {
        status = add_legacy(set, &legacy[i], err);
    }
    if (status != RK_OK) {
        keyset_free(set);
        return status;
    }
    *out = set;
    return RK_OK;
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

static int name_of(const void *name, const void *named)
{
    return strcmp(name, ((const struct named *)named)->name);
}

struct rk_key_versions rk_keyset_versions(const struct rk_keyset *set, const char *name)
{
    static const struct rk_key_versions none = {0};
    const struct named *named =
        bsearch(name, set->names, set->n_names, sizeof *set->names, name_of);
    return named != NULL ? named->versions : none;
}

const struct rk_data_key *rk_keyset_current(const struct rk_keyset *set, const char *name)
{
    return rk_keyset_versions(set, name).current;
}

const struct rk_keyset_key *rk_keyset_known(const struct rk_keyset *set, uint32_t id)
{
    const struct rk_keyset_key wanted = {.id = id};
    return bsearch(&wanted, set->keys, set->n_keys, sizeof *set->keys, by_id);
}

const struct rk_data_key *rk_keyset_find(const struct rk_keyset *set, uint32_t id)
{
    const struct rk_keyset_key *known = rk_keyset_known(set, id);
    return known != NULL && known->role != RK_KEY_GONE ? known->key : NULL;
}

uint32_t rk_keyset_newest(const struct rk_keyset *set)
{
    return set->n_keys > 0 ? set->keys[set->n_keys - 1].id : 0;
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
