/*
 * Policy sets: indexed by namespace once; immutable from then on, so that every thread may read
 * one without a lock.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy_internal.h"

struct rk_policy_set {
    atomic_uint refs;
    enum rk_undecryptable undecryptable;
    bool has_legacy;
    bool outside_collation;
    size_t n_entries;
    struct rk_policy_entry *entries; /* by database, then collection */
    struct rk_policy_set *base;      /* NULL, or whose fields and paths the entries share */
};

static int compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len != b_len) {
        return a_len < b_len ? -1 : 1;
    }
    return memcmp(a, b, a_len);
}

static int compare_entry(const struct rk_policy_entry *entry, const char *db, size_t db_len,
                         const char *coll, size_t coll_len)
{
    int order = compare_bytes(entry->db, entry->db_len, db, db_len);
    return order != 0 ? order : compare_bytes(entry->coll, entry->coll_len, coll, coll_len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct rk_policy_entry *y = b;
    return compare_entry(a, y->db, y->db_len, y->coll, y->coll_len);
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
        const struct rk_policy_entry *entry = &set->entries[i];
        for (size_t f = 0; f < entry->policy.n_fields; f++) {
            all[k++] = (struct named){entry->policy.fields[f].field_id,
                                      entry->strings[RK_FIELD_STRINGS * f + 1], entry->ns,
                                      entry->policy.fields[f].path};
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
        status = rk_policy_entry_init(&set->entries[i], &specs[i], err);
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
        if (set->base == NULL) {
            rk_policy_entry_deinit(&set->entries[i]);
        } else {
            free(set->entries[i].marked_ns);
        }
    }
    rk_policy_set_unref(set->base);
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

bool rk_policy_set_outside_collation(const struct rk_policy_set *set)
{
    return set->outside_collation;
}

static struct rk_policy_entry *find_entry(const struct rk_policy_set *set, const char *db,
                                          size_t db_len, const char *coll, size_t coll_len)
{
    size_t low = 0;
    size_t high = set->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_entry(&set->entries[middle], db, db_len, coll, coll_len);
        if (order == 0) {
            return &set->entries[middle];
        }
        if (order > 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

static const struct rk_policy *find_exact(const struct rk_policy_set *set, const char *db,
                                          size_t db_len, const char *coll, size_t coll_len)
{
    const struct rk_policy_entry *entry = find_entry(set, db, db_len, coll, coll_len);
    return entry != NULL ? &entry->policy : NULL;
}

/* Appends an entry for the mark's namespace: a collection's policy with the mark, or a view's. */
static enum rk_status append_mark(struct rk_policy_set *set, const struct rk_policy_mark *mark,
                                  const struct rk_policy *policy)
{
    size_t db_len = strlen(mark->db);
    size_t size = db_len + 1 + strlen(mark->coll) + 1;
    struct rk_policy_entry *entry = &set->entries[set->n_entries];
    char *ns = malloc(size);
    if (ns == NULL) {
        return RK_ENOMEM;
    }
    (void)snprintf(ns, size, "%s.%s", mark->db, mark->coll);
    *entry = (struct rk_policy_entry){.db = ns,
                                      .db_len = db_len,
                                      .coll = ns + db_len + 1,
                                      .coll_len = strlen(mark->coll),
                                      .marked_ns = ns};
    if (policy != NULL) {
        entry->policy = *policy;
    }
    entry->policy.ns = ns;
    entry->policy.view = mark->kind == RK_MARK_VIEW;
    entry->policy.collation = mark->kind == RK_MARK_COLLATION;
    set->n_entries++;
    return RK_OK;
}

enum rk_status rk_policy_set_marked(struct rk_policy_set *base, const struct rk_policy_mark *marks,
                                    size_t n_marks, struct rk_policy_set **out,
                                    struct rk_error *err)
{
    struct rk_policy_set *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policies: out of memory");
    }
    atomic_init(&set->refs, 1);
    set->undecryptable = base->undecryptable;
    set->has_legacy = base->has_legacy;
    set->base = rk_policy_set_ref(base);
    set->entries = calloc(base->n_entries + n_marks + 1, sizeof *set->entries);
    enum rk_status status = set->entries != NULL ? RK_OK : RK_ENOMEM;
    for (size_t i = 0; status == RK_OK && i < base->n_entries; i++) {
        set->entries[i] = base->entries[i];
        set->n_entries++;
    }
    for (size_t i = 0; status == RK_OK && i < n_marks; i++) {
        const struct rk_policy_mark *mark = &marks[i];
        size_t db_len = strlen(mark->db);
        size_t coll_len = strlen(mark->coll);
        struct rk_policy_entry *own = find_entry(base, mark->db, db_len, mark->coll, coll_len);
        const struct rk_policy *policy =
            rk_policy_find(base, mark->db, db_len, mark->coll, coll_len);
        if (mark->kind == RK_MARK_OUTSIDE) {
            set->outside_collation = true;
        } else if (mark->kind == RK_MARK_COLLATION && own != NULL) {
            set->entries[own - base->entries].policy.collation = true;
        } else if ((mark->kind == RK_MARK_COLLATION) == (policy != NULL)) {
            status = append_mark(set, mark, policy);
        }
    }
    if (status != RK_OK) {
        rk_policy_set_unref(set);
        return rk_error_set(err, RK_ENOMEM, "policies: out of memory");
    }
    qsort(set->entries, set->n_entries, sizeof *set->entries, compare_entries);
    *out = set;
    return RK_OK;
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
