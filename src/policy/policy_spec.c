/*
 * What a configuration says of one namespace, checked and copied.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy_internal.h"

#define DB_MAX 63u  /* bytes of a database name, as mongod has it */
#define NS_MAX 255u /* bytes of a namespace (mongod 4.4 and later) */
#define PATH_BYTES_MAX 512u
#define COMPONENTS_MAX 64u /* of a path; bounds the depth of the tree */

static bool is_one_of(const char *text, size_t len, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strlen(*list) == len && memcmp(*list, text, len) == 0) {
            return true;
        }
    }
    return false;
}

static enum rk_status split_namespace(struct rk_policy_entry *entry, struct rk_error *err)
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
        } else if (from->cipher != RK_LEGACY_AES_256_CBC && from->cipher != RK_LEGACY_AES_256_GCM &&
                   from->cipher != RK_LEGACY_VAULT_TRANSIT) {
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

bool rk_policy_key_valid(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_.-";
    size_t len = strlen(name);
    return len > 0 && len <= RK_KEY_BASE_NAME_MAX && strspn(name, letters) == len;
}

static enum rk_status check_key(const struct rk_policy_entry *entry, const char *name,
                                struct rk_error *err)
{
    return rk_policy_key_valid(name)
               ? RK_OK
               : rk_error_set(err, RK_EINVAL,
                              "policy %s: \"%.80s\" is no name for a key: it has 1 to %u letters, "
                              "digits, _ . or -",
                              entry->ns, name, RK_KEY_BASE_NAME_MAX);
}

static enum rk_status build_key(struct rk_policy_entry *entry, size_t i, const char *name,
                                const struct rk_policy_spec *policy, struct rk_error *err)
{
    struct rk_field *field = &entry->policy.fields[i];
    enum rk_status status = check_key(entry, name, err);
    if (status != RK_OK) {
        return status;
    }
    char *key = strdup(name);
    entry->strings[RK_FIELD_STRINGS * i + 2] = key;
    if (key == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
    }
    field->key = key;
    field->by_tenant = policy->tenant != NULL;
    field->former = calloc(policy->n_former_keys + 2, sizeof(char *));
    if (field->by_tenant && field->former != NULL) {
        field->former[field->n_former++] = key; /* from before there were tenants */
    }
    for (size_t k = 0; k < policy->n_former_keys && field->former != NULL; k++) {
        if (strcmp(entry->former[k], name) != 0) {
            field->former[field->n_former++] = entry->former[k];
        }
    }
    return field->former != NULL
               ? RK_OK
               : rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
}

static enum rk_status copy_former(struct rk_policy_entry *entry, const struct rk_policy_spec *spec,
                                  struct rk_error *err)
{
    if (spec->n_former_keys > RK_FORMER_KEYS_MAX) {
        return rk_error_set(err, RK_EINVAL, "policy %s: has more than %u former keys", entry->ns,
                            RK_FORMER_KEYS_MAX);
    }
    for (size_t i = 0; i < spec->n_former_keys; i++) {
        enum rk_status status = check_key(entry, spec->former_keys[i], err);
        for (size_t k = 0; k < i && status == RK_OK; k++) {
            if (strcmp(entry->former[k], spec->former_keys[i]) == 0) {
                status = rk_error_set(err, RK_EINVAL, "policy %s: former key \"%s\" is there twice",
                                      entry->ns, entry->former[k]);
            }
        }
        if (status != RK_OK) {
            return status;
        }
        entry->former[i] = strdup(spec->former_keys[i]);
        if (entry->former[i] == NULL) {
            return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
        }
    }
    return RK_OK;
}

static enum rk_status build_field(struct rk_policy_entry *entry, size_t i,
                                  const struct rk_policy_spec *policy, struct rk_error *err)
{
    const struct rk_field_spec *spec = &policy->fields[i];
    enum rk_status status = check_path(entry->ns, spec->path, err);
    if (status != RK_OK) {
        return status;
    }
    if (spec->algorithm != RK_ALGORITHM_RANDOM && spec->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        return rk_error_set(err, RK_EINVAL,
                            "policy %s, path \"%s\": algorithm must be random or deterministic",
                            entry->ns, spec->path);
    }
    if (spec->algorithm == RK_ALGORITHM_RANDOM &&
        (spec->bson_type != 0 || spec->accept_plaintext)) {
        return rk_error_set(err, RK_EINVAL,
                            "policy %s, path \"%s\": type and accept_plaintext say how values are "
                            "compared, which needs algorithm deterministic",
                            entry->ns, spec->path);
    }
    char *name = NULL;
    if (spec->name != NULL && spec->name[0] != '\0') {
        name = strdup(spec->name);
    } else if (asprintf(&name, "%s/%s", entry->ns, spec->path) < 0) {
        name = NULL;
    }
    char *path = strdup(spec->path);
    entry->strings[RK_FIELD_STRINGS * i] = path;
    entry->strings[RK_FIELD_STRINGS * i + 1] = name;
    if (path == NULL || name == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
    }
    struct rk_field *field = &entry->policy.fields[i];
    field->path = path;
    field->algorithm = spec->algorithm;
    field->bson_type = spec->bson_type;
    field->accept_plaintext = spec->accept_plaintext;
    field->unique_index = spec->unique_index;
    field->field_id = rk_envelope_field_id(name);
    status = copy_legacy(field, entry->ns, spec, err);
    if (status == RK_OK) {
        const char *own = policy->key != NULL ? policy->key : RK_KEY_NAME_DEFAULT;
        status = build_key(entry, i, spec->key != NULL ? spec->key : own, policy, err);
    }
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

static enum rk_status build_tenant(struct rk_policy_entry *entry, const char *path,
                                   struct rk_error *err)
{
    if (path == NULL) {
        return RK_OK;
    }
    enum rk_status status = check_path(entry->ns, path, err);
    if (status != RK_OK) {
        return status;
    }
    if (rk_path_relate(&entry->policy, path, strlen(path)).relation != RK_PATH_UNRELATED) {
        return rk_error_set(err, RK_EINVAL,
                            "policy %s: the tenant's path \"%s\" must lie neither in nor above a "
                            "protected one: the server has to find documents by it",
                            entry->ns, path);
    }
    entry->tenant = strdup(path);
    entry->policy.tenant = entry->tenant;
    return entry->tenant != NULL
               ? RK_OK
               : rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
}

enum rk_status rk_policy_entry_init(struct rk_policy_entry *entry,
                                    const struct rk_policy_spec *spec, struct rk_error *err)
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
    entry->strings = calloc(spec->n_fields, RK_FIELD_STRINGS * sizeof *entry->strings);
    if (entry->policy.fields == NULL || entry->strings == NULL) {
        return rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns);
    }
    entry->policy.n_fields = spec->n_fields;
    entry->policy.unreadable = spec->unreadable;
    if (spec->unreadable.text != NULL) {
        entry->placeholder = strdup(spec->unreadable.text);
        entry->policy.unreadable.text = entry->placeholder;
    }
    status = spec->unreadable.text != NULL && entry->placeholder == NULL
                 ? rk_error_set(err, RK_ENOMEM, "policy %s: out of memory", entry->ns)
                 : copy_former(entry, spec, err);
    if (status != RK_OK) {
        return status;
    }
    for (size_t i = 0; i < spec->n_fields; i++) {
        status = build_field(entry, i, spec, err);
        if (status != RK_OK) {
            return status;
        }
    }
    rk_path_finish(&entry->policy.root);
    entry->policy.has_legacy = entry->policy.root.has_legacy;
    return build_tenant(entry, spec->tenant, err);
}

void rk_policy_entry_deinit(struct rk_policy_entry *entry)
{
    rk_path_free(&entry->policy.root);
    for (size_t i = 0; i < entry->policy.n_fields; i++) {
        struct rk_field *field = &entry->policy.fields[i];
        for (size_t k = 0; k < field->n_legacy; k++) {
            free(field->legacy[k].key);
        }
        free(field->legacy);
        free(field->former);
        for (size_t k = 0; k < RK_FIELD_STRINGS; k++) {
            free(entry->strings[RK_FIELD_STRINGS * i + k]);
        }
    }
    for (size_t i = 0; i < RK_FORMER_KEYS_MAX; i++) {
        free(entry->former[i]);
    }
    free(entry->placeholder);
    free(entry->tenant);
    free(entry->policy.fields);
    free(entry->strings);
    free(entry->ns);
}
