/*
 * Policy sets: checked, copied and indexed by namespace once; immutable from then on, so that
 * every thread may read one without a lock.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "policy_internal.h"

#define DB_MAX 63u          /* bytes of a database name, as mongod has it */
#define NS_MAX 255u         /* bytes of a namespace (mongod 4.4 and later) */
#define PATH_BYTES_MAX 512u /* bytes of a path */
#define COMPONENTS_MAX 64u

struct entry {
    const char *db; /* into policy.ns */
    size_t db_len;
    const char *coll;
    size_t coll_len;
    struct rk_policy policy;
    char *ns;
    char **strings; /* of each field: path, logical name */
};

struct rk_policy_set {
    atomic_uint refs;
    enum rk_undecryptable undecryptable;
    bool has_legacy;
    size_t n_entries;
    struct entry *entries; /* by database, then collection */
};

static int compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len != b_len) {
        return a_len < b_len ? -1 : 1;
    }
    return memcmp(a, b, a_len);
}

static int compare_entry(const struct entry *entry, const char *db, size_t db_len, const char *coll,
                         size_t coll_len)
{
    int order = compare_bytes(entry->db, entry->db_len, db, db_len);
    return order != 0 ? order : compare_bytes(entry->coll, entry->coll_len, coll, coll_len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *y = b;
    return compare_entry(a, y->db, y->db_len, y->coll, y->coll_len);
}

static bool is_one_of(const char *text, size_t len, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strlen(*list) == len && memcmp(*list, text, len) == 0) {
            return true;
        }
    }
    return false;
}

static enum rk_status split_namespace(struct entry *entry, struct rk_error *err)
{
    static const char *const reserved[] = {"admin", "local", "config", "rekey", NULL};
    const char *ns = entry->ns;
    const char *dot = strchr(ns, '.');
    if (dot == NULL || dot == ns || dot[1] == '\0') {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%s\": write it as database.collection or "
                            "database.*",
                            ns);
    }
    entry->db = ns;
    entry->db_len = (size_t)(dot - ns);
    entry->coll = dot + 1;
    entry->coll_len = strlen(dot + 1);
    if (is_one_of(entry->db, entry->db_len, reserved)) {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%s\": database %.*s holds MongoDB's or Rekey's own "
                            "state and cannot be protected",
                            ns, (int)entry->db_len, entry->db);
    }
    if (entry->db_len > DB_MAX || strlen(ns) > NS_MAX) {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%.64s...\": longer than MongoDB allows", ns);
    }
    if (strcspn(ns, "/\\ \"$") < entry->db_len || strchr(entry->coll, '$') != NULL ||
        entry->coll[0] == '.') {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%s\": has a character that MongoDB does not allow "
                            "there",
                            ns);
    }
    if (strncmp(entry->coll, "system.", 7) == 0) {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%s\": system collections cannot be protected", ns);
    }
    if (strchr(ns, '*') != NULL && strcmp(entry->coll, "*") != 0) {
        return rk_error_set(err, RK_EINVAL,
                            "policy namespace \"%s\": * can only stand for every collection of a "
                            "database, as in %.*s.*",
                            ns, (int)entry->db_len, entry->db);
    }
    return RK_OK;
}

static enum rk_status check_path(const char *ns, const char *path, struct rk_error *err)
{
    if (path == NULL || path[0] == '\0') {
        return rk_error_set(err, RK_EINVAL, "policy %s: a field has no path", ns);
    }
    if (strlen(path) > PATH_BYTES_MAX) {
        return rk_error_set(err, RK_EINVAL, "policy %s: path \"%.64s...\" is longer than %u bytes",
                            ns, path, PATH_BYTES_MAX);
    }
    unsigned components = 0;
    for (const char *p = path;; p++) {
        size_t len = strcspn(p, ".");
        const char *problem = NULL;
        if (len == 0) {
            problem = "has an empty component";
        } else if (rk_path_is_index(p, len)) {
            problem = "has a number as component; paths go through arrays by themselves, leave the "
                      "index out";
        } else if (p[0] == '$') {
            problem = "has a component that starts with $";
        } else if (components == 0 && len == 3 && memcmp(p, "_id", 3) == 0) {
            problem = "is in _id, by which documents are found and cannot change; protect a copy "
                      "of the value under another name";
        } else if (++components > COMPONENTS_MAX) {
            problem = "has too many components";
        }
        if (problem != NULL) {
            return rk_error_set(err, RK_EINVAL, "policy %s, path \"%s\": %s", ns, path, problem);
        }
        p += len;
        if (*p == '\0') {
            return RK_OK;
        }
    }
}

static enum rk_status copy_legacy(struct rk_field *field, const char *ns,
                                  const struct rk_field_spec *spec, struct rk_error *err)
{
    if (spec->n_legacy == 0) {
        return RK_OK;
    }
    field->legacy = calloc(spec->n_legacy, sizeof *field->legacy);
    if (field->legacy == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", ns);
    }
    for (size_t i = 0; i < spec->n_legacy; i++) {
        const struct rk_legacy_format *from = &spec->legacy[i];
        const char *problem = NULL;
        if (from->key == NULL || from->key[0] == '\0') {
            problem = "names no key";
        } else if (from->cipher != RK_LEGACY_AES_256_CBC && from->cipher != RK_LEGACY_AES_256_GCM) {
            problem = "has an unknown cipher";
        } else if (from->encoding != RK_LEGACY_BINARY && from->encoding != RK_LEGACY_BASE64) {
            problem = "has an unknown encoding";
        } else if (from->prefix_len > RK_LEGACY_PREFIX_MAX) {
            problem = "has more version bytes than a reader takes (16)";
        } else if (from->bson_type != RK_BSON_STRING && from->bson_type != RK_BSON_BINARY) {
            problem = "must decrypt to a string or to binary";
        }
        if (problem != NULL) {
            return rk_error_set(err, RK_EINVAL, "policy %s, path \"%s\": legacy format %zu %s", ns,
                                spec->path, i + 1, problem);
        }
        field->legacy[i] = *from;
        field->legacy[i].key = strdup(from->key);
        field->n_legacy = i + 1;
        if (field->legacy[i].key == NULL) {
            return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", ns);
        }
    }
    return RK_OK;
}

static enum rk_status build_field(struct entry *entry, size_t i, const struct rk_field_spec *spec,
                                  struct rk_error *err)
{
    enum rk_status status = check_path(entry->ns, spec->path, err);
    if (status != RK_OK) {
        return status;
    }
    if (spec->algorithm != RK_ALGORITHM_RANDOM && spec->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        return rk_error_set(err, RK_EINVAL,
                            "policy %s, path \"%s\": algorithm must be random or deterministic",
                            entry->ns, spec->path);
    }
    char *name = NULL;
    if (spec->name != NULL && spec->name[0] != '\0') {
        name = strdup(spec->name);
    } else if (asprintf(&name, "%s/%s", entry->ns, spec->path) < 0) {
        name = NULL;
    }
    char *path = strdup(spec->path);
    entry->strings[2 * i] = path;
    entry->strings[2 * i + 1] = name;
    if (path == NULL || name == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
    }
    struct rk_field *field = &entry->policy.fields[i];
    field->path = path;
    field->algorithm = spec->algorithm;
    field->field_id = rk_envelope_field_id(name);
    status = copy_legacy(field, entry->ns, spec, err);
    if (status != RK_OK) {
        return status;
    }
    const char *other = NULL;
    status = rk_path_insert(&entry->policy.root, field, &other);
    if (status == RK_EINVAL && strcmp(other, path) == 0) {
        return rk_error_set(err, status, "policy %s: path \"%s\" is there twice", entry->ns, path);
    }
    if (status == RK_EINVAL) {
        return rk_error_set(err, status,
                            "policy %s: path \"%s\" overlaps with path \"%s\"; the outer one is "
                            "encrypted whole, keep only one of them",
                            entry->ns, path, other);
    }
    return status == RK_OK ? RK_OK
                           : rk_error_set(err, status, "policy %s: out of memory", entry->ns);
}

static enum rk_status build_entry(struct entry *entry, const struct rk_policy_spec *spec,
                                  struct rk_error *err)
{
    entry->ns = strdup(spec->ns != NULL ? spec->ns : "");
    if (entry->ns == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policies: out of memory");
    }
    enum rk_status status = split_namespace(entry, err);
    if (status != RK_OK) {
        return status;
    }
    if (spec->n_fields == 0) {
        return rk_error_set(err, RK_EINVAL, "policy %s: has no fields", entry->ns);
    }
    entry->policy.ns = entry->ns;
    entry->policy.fields = calloc(spec->n_fields, sizeof *entry->policy.fields);
    entry->strings = calloc(spec->n_fields, 2 * sizeof *entry->strings);
    if (entry->policy.fields == NULL || entry->strings == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
    }
    entry->policy.n_fields = spec->n_fields;
    for (size_t i = 0; i < spec->n_fields; i++) {
        status = build_field(entry, i, &spec->fields[i], err);
        if (status != RK_OK) {
            return status;
        }
    }
    rk_path_finish(&entry->policy.root);
    entry->policy.has_legacy = entry->policy.root.has_legacy;
    return RK_OK;
}

static void deinit_entry(struct entry *entry)
{
    rk_path_free(&entry->policy.root);
    for (size_t i = 0; i < entry->policy.n_fields; i++) {
        struct rk_field *field = &entry->policy.fields[i];
        for (size_t k = 0; k < field->n_legacy; k++) {
            free(field->legacy[k].key);
        }
        free(field->legacy);
        free(entry->strings[2 * i]);
        free(entry->strings[2 * i + 1]);
    }
    free(entry->policy.fields);
    free(entry->strings);
    free(entry->ns);
}

/* Every logical name of the set with its id, to find two names that share one. */
struct named {
    uint32_t field_id;
    const char *name;
    const char *ns;
    const char *path;
};

static int compare_named(const void *a, const void *b)
{
    const struct named *x = a;
    const struct named *y = b;
    if (x->field_id != y->field_id) {
        return x->field_id < y->field_id ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static enum rk_status check_field_ids(const struct rk_policy_set *set, struct rk_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n_entries; i++) {
        n += set->entries[i].policy.n_fields;
    }
    if (n == 0) {
        return RK_OK;
    }
    struct named *all = calloc(n, sizeof *all);
    if (all == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policies: out of memory");
    }
    size_t k = 0;
    for (size_t i = 0; i < set->n_entries; i++) {
        const struct entry *entry = &set->entries[i];
        for (size_t f = 0; f < entry->policy.n_fields; f++) {
            all[k++] = (struct named){entry->policy.fields[f].field_id, entry->strings[2 * f + 1],
                                      entry->ns, entry->policy.fields[f].path};
        }
    }
    qsort(all, n, sizeof *all, compare_named);
    enum rk_status status = RK_OK;
    for (size_t i = 1; i < n && status == RK_OK; i++) {
        const struct named *x = &all[i - 1];
        const struct named *y = &all[i];
        if (x->field_id == y->field_id && strcmp(x->name, y->name) != 0) {
            status = rk_error_set(err, RK_EINVAL,
                                  "policy %s, path \"%s\": its logical name has the same field id "
                                  "as that of policy %s, path \"%s\"; give one of them another "
                                  "name",
                                  y->ns, y->path, x->ns, x->path);
        }
    }
    free(all);
    return status;
}

static enum rk_status index_entries(struct rk_policy_set *set, struct rk_error *err)
{
    qsort(set->entries, set->n_entries, sizeof *set->entries, compare_entries);
    for (size_t i = 0; i < set->n_entries; i++) {
        if (i > 0 && compare_entries(&set->entries[i - 1], &set->entries[i]) == 0) {
            return rk_error_set(err, RK_EINVAL,
                                "policy namespace \"%s\" is there twice; put its fields together",
                                set->entries[i].ns);
        }
        set->has_legacy = set->has_legacy || set->entries[i].policy.has_legacy;
    }
    return check_field_ids(set, err);
}

enum rk_status rk_policy_set_new(const struct rk_policy_spec *specs, size_t n_specs,
                                 enum rk_undecryptable undecryptable, struct rk_policy_set **out,
                                 struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_policy_set *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policies: out of memory");
    }
    atomic_init(&set->refs, 1);
    set->undecryptable = undecryptable;
    if (n_specs > 0) {
        set->entries = calloc(n_specs, sizeof *set->entries);
        if (set->entries == NULL) {
            status = rk_error_set(err, RK_ENOMEM, "policies: out of memory");
            goto done;
        }
    }
    for (size_t i = 0; i < n_specs; i++) {
        set->n_entries = i + 1;
        status = build_entry(&set->entries[i], &specs[i], err);
        if (status != RK_OK) {
            goto done;
        }
    }
    if (n_specs > 0) {
        status = index_entries(set, err);
    }

done:
    if (status != RK_OK) {
        rk_policy_set_unref(set);
        return status;
    }
    *out = set;
    return RK_OK;
}

struct rk_policy_set *rk_policy_set_ref(struct rk_policy_set *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void rk_policy_set_unref(struct rk_policy_set *set)
{
    if (set == NULL || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < set->n_entries; i++) {
        deinit_entry(&set->entries[i]);
    }
    free(set->entries);
    free(set);
}

bool rk_policy_set_empty(const struct rk_policy_set *set)
{
    return set->n_entries == 0;
}

enum rk_undecryptable rk_policy_set_undecryptable(const struct rk_policy_set *set)
{
    return set->undecryptable;
}

size_t rk_policy_set_count(const struct rk_policy_set *set)
{
    return set->n_entries;
}

const struct rk_policy *rk_policy_set_at(const struct rk_policy_set *set, size_t i)
{
    return &set->entries[i].policy;
}

bool rk_policy_set_has_legacy(const struct rk_policy_set *set)
{
    return set->has_legacy;
}

static const struct rk_policy *find_exact(const struct rk_policy_set *set, const char *db,
                                          size_t db_len, const char *coll, size_t coll_len)
{
    size_t low = 0;
    size_t high = set->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_entry(&set->entries[middle], db, db_len, coll, coll_len);
        if (order == 0) {
            return &set->entries[middle].policy;
        }
        if (order > 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

const struct rk_policy *rk_policy_find(const struct rk_policy_set *set, const char *db,
                                       size_t db_len, const char *coll, size_t coll_len)
{
    const struct rk_policy *policy = find_exact(set, db, db_len, coll, coll_len);
    if (policy != NULL || coll_len == 0) {
        return policy;
    }
    if (coll_len >= 7 && memcmp(coll, "system.", 7) == 0) {
        return NULL;
    }
    return find_exact(set, db, db_len, "*", 1);
}

bool rk_policy_covers_db(const struct rk_policy_set *set, const char *db, size_t db_len)
{
    for (size_t i = 0; i < set->n_entries; i++) {
        if (compare_bytes(set->entries[i].db, set->entries[i].db_len, db, db_len) == 0) {
            return true;
        }
    }
    return false;
}
