/* The policies of a file as specifications for rk_policy_set_new, which decides what is valid. */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 160

/* The arrays are owned, their strings belong to the file. Fields of all policies lie in one array,
 * formats of all fields in another. */
struct specs {
    struct rk_policy_spec *policies;
    struct rk_field_spec *fields;
    struct rk_legacy_format *formats;
    size_t n_policies;
    size_t n_fields;
    size_t n_formats;
};

static void specs_deinit(struct specs *specs)
{
    free(specs->policies);
    free(specs->fields);
    free(specs->formats);
}

static bool specs_init(struct specs *specs, const struct rk_config_file *file)
{
    size_t n_fields = 0;
    size_t n_formats = 0;
    for (unsigned i = 0; i < file->policies_count; i++) {
        n_fields += file->policies[i].fields_count;
        for (unsigned j = 0; j < file->policies[i].fields_count; j++) {
            n_formats += file->policies[i].fields[j].legacy_count;
        }
    }
    *specs = (struct specs){
        .policies = calloc((size_t)file->policies_count + 1, sizeof specs->policies[0]),
        .fields = calloc(n_fields + 1, sizeof specs->fields[0]),
        .formats = calloc(n_formats + 1, sizeof specs->formats[0]),
    };
    return specs->policies != NULL && specs->fields != NULL && specs->formats != NULL;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    char lower = c >= 'A' && c <= 'F' ? (char)(c + ('a' - 'A')) : c;
    const char *at = lower != '\0' ? strchr(digits, lower) : NULL;
    return at == NULL ? -1 : (int)(at - digits);
}

/* Digits in pairs, at most size bytes. */
static bool parse_hex(const char *text, uint8_t *out, size_t size, size_t *len)
{
    size_t digits = strlen(text);
    if (digits % 2 != 0 || digits / 2 > size) {
        return false;
    }
    for (size_t i = 0; i < digits; i += 2) {
        int high = hex_digit(text[i]);
        int low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i / 2] = (uint8_t)(high * 16 + low);
    }
    *len = digits / 2;
    return true;
}

/* A fixed iv: as long as the cipher wants it. */
static enum rk_status fill_iv(const struct rk_config_legacy_entry *entry,
                              struct rk_legacy_format *format, const char *key,
                              const struct rk_config_source *source, struct rk_error *err)
{
    char child[KEY_MAX + 16];
    size_t wanted = entry->cipher == RK_LEGACY_AES_256_CBC ? 16 : 12;
    size_t len = 0;
    if (entry->iv_hex == NULL) {
        (void)snprintf(child, sizeof child, "%s.iv_implied", key);
        return !entry->iv_implied ? RK_OK
                                  : rk_config_refuse(source, err, child,
                                                     "needs iv_hex: an iv that is not stored has "
                                                     "to be known");
    }
    (void)snprintf(child, sizeof child, "%s.iv_hex", key);
    if (!parse_hex(entry->iv_hex, format->iv, sizeof format->iv, &len) || len != wanted) {
        return rk_config_refuse(source, err, child, "must be %zu bytes as hexadecimal digits",
                                wanted);
    }
    format->iv_fixed = true;
    format->iv_implied = entry->iv_implied;
    return RK_OK;
}

/* Its key lies in Vault's transit engine, and its text is all Vault's. */
static enum rk_status check_transit(const struct rk_config_legacy_entry *entry, const char *key,
                                    const struct rk_config_source *source, struct rk_error *err)
{
    char child[KEY_MAX + 16];
    const char *slash = strrchr(entry->key, '/');
    if (slash == NULL || slash == entry->key || slash[1] == '\0' || strlen(entry->key) > 120 ||
        strpbrk(entry->key, ":\"\\? #") != NULL || strstr(entry->key, "..") != NULL) {
        (void)snprintf(child, sizeof child, "%s.key", key);
        return rk_config_refuse(source, err, child,
                                "must be MOUNT/KEY of Vault's transit engine for vault-transit");
    }
    if (entry->encoding != RK_LEGACY_BASE64 || entry->version_hex != NULL ||
        entry->iv_hex != NULL || entry->iv_implied) {
        (void)snprintf(child, sizeof child, "%s.cipher", key);
        return rk_config_refuse(source, err, child,
                                "vault-transit goes with encoding: base64, without version_hex and "
                                "iv_hex");
    }
    return RK_OK;
}

static enum rk_status fill_legacy(const struct rk_config_legacy_entry *entry,
                                  struct rk_legacy_format *format, const char *key,
                                  const struct rk_config_source *source, struct rk_error *err)
{
    *format = (struct rk_legacy_format){
        .cipher = entry->cipher,
        .encoding = entry->encoding,
        .key = entry->key,
        .bson_type = entry->type == 0 ? RK_BSON_STRING : (uint8_t)entry->type,
    };
    if (entry->cipher == RK_LEGACY_VAULT_TRANSIT) {
        return check_transit(entry, key, source, err);
    }
    if (entry->version_hex != NULL && !parse_hex(entry->version_hex, format->prefix,
                                                 sizeof format->prefix, &format->prefix_len)) {
        char child[KEY_MAX + 16];
        (void)snprintf(child, sizeof child, "%s.version_hex", key);
        return rk_config_refuse(source, err, child,
                                "must be hexadecimal digits in pairs, at most %u bytes",
                                RK_LEGACY_PREFIX_MAX);
    }
    return fill_iv(entry, format, key, source, err);
}

static enum rk_status add_field(struct specs *specs, const struct rk_config_field_entry *entry,
                                const char *key, const struct rk_config_source *source,
                                struct rk_error *err)
{
    struct rk_legacy_format *formats = specs->formats + specs->n_formats;
    specs->n_formats += entry->legacy_count;
    specs->fields[specs->n_fields++] = (struct rk_field_spec){
        .path = entry->path,
        .name = entry->name,
        .algorithm = entry->algorithm == 0 ? RK_ALGORITHM_RANDOM : entry->algorithm,
        .legacy = formats,
        .n_legacy = entry->legacy_count,
        .bson_type = (uint8_t)entry->type,
        .accept_plaintext = entry->accept_plaintext,
        .unique_index = entry->unique_index,
        .key = entry->key,
    };
    enum rk_status status = RK_OK;
    for (unsigned i = 0; i < entry->legacy_count && status == RK_OK; i++) {
        char child[KEY_MAX];
        (void)snprintf(child, sizeof child, "%s.legacy[%u]", key, i);
        status = fill_legacy(&entry->legacy[i], &formats[i], child, source, err);
    }
    return status;
}

static enum rk_status check_key(const char *name, const char *place,
                                const struct rk_config_source *source, struct rk_error *err)
{
    return name == NULL || rk_policy_key_valid(name)
               ? RK_OK
               : rk_config_refuse(source, err, place,
                                  "\"%.80s\" is no name for a key: it has 1 to %u letters, digits, "
                                  "_ . or -",
                                  name, RK_KEY_BASE_NAME_MAX);
}

static enum rk_status add_keys(struct rk_policy_spec *spec, size_t index,
                               const struct rk_config_policy_entry *entry,
                               const struct rk_config_source *source, struct rk_error *err)
{
    static const char *const before[] = {RK_KEY_NAME_DEFAULT};
    char key[KEY_MAX];
    (void)snprintf(key, sizeof key, "policies[%zu].key", index);
    enum rk_status status = check_key(entry->key, key, source, err);
    for (unsigned i = 0; i < entry->former_keys_count && status == RK_OK; i++) {
        (void)snprintf(key, sizeof key, "policies[%zu].former_keys[%u]", index, i);
        status = check_key(entry->former_keys[i], key, source, err);
    }
    (void)snprintf(key, sizeof key, "policies[%zu].former_keys", index);
    bool given = rk_config_source_has(source, key);
    spec->key = entry->key;
    /* If not given, where values lie that were written before the policy named a key. */
    spec->former_keys = given ? (const char *const *)entry->former_keys : before;
    spec->n_former_keys = given ? entry->former_keys_count : 1;
    if (status == RK_OK && spec->n_former_keys > RK_FORMER_KEYS_MAX) {
        status = rk_config_refuse(source, err, key, "more than %u", RK_FORMER_KEYS_MAX);
    }
    return status;
}

static enum rk_status add_policy(struct specs *specs, const struct rk_config_policy_entry *entry,
                                 const char *state_db, const struct rk_config_source *source,
                                 struct rk_error *err)
{
    char key[KEY_MAX];
    size_t index = specs->n_policies++;
    specs->policies[index] = (struct rk_policy_spec){
        .ns = entry->ns,
        .fields = specs->fields + specs->n_fields,
        .n_fields = entry->fields_count,
    };
    specs->policies[index].tenant = entry->tenant;
    specs->policies[index].unreadable = (struct rk_unreadable){
        .placeholder = entry->unreadable == RK_CONFIG_UNREADABLE_PLACEHOLDER,
        .text = entry->placeholder,
    };
    if (entry->placeholder != NULL && entry->unreadable != RK_CONFIG_UNREADABLE_PLACEHOLDER) {
        (void)snprintf(key, sizeof key, "policies[%zu].placeholder", index);
        return rk_config_refuse(source, err, key, "needs unreadable: placeholder");
    }
    size_t db_len = strlen(state_db);
    if (strncmp(entry->ns, state_db, db_len) == 0 && entry->ns[db_len] == '.') {
        (void)snprintf(key, sizeof key, "policies[%zu].namespace", index);
        return rk_config_refuse(source, err, key,
                                "%s is the database of Rekey's own state (upstream.state_db)",
                                state_db);
    }
    enum rk_status status = add_keys(&specs->policies[index], index, entry, source, err);
    for (unsigned j = 0; j < entry->fields_count && status == RK_OK; j++) {
        (void)snprintf(key, sizeof key, "policies[%zu].fields[%u]", index, j);
        status = add_field(specs, &entry->fields[j], key, source, err);
    }
    return status;
}

/* Would the first n policies do, the last of them with these fields instead of its own? */
static bool beginning_holds(const struct specs *specs, size_t n, const struct rk_field_spec *fields,
                            size_t n_fields)
{
    struct rk_policy_set *set = NULL;
    const struct rk_policy_spec own = specs->policies[n - 1];
    specs->policies[n - 1].fields = fields;
    specs->policies[n - 1].n_fields = n_fields;
    bool holds = rk_policy_set_new(specs->policies, n, RK_UNDECRYPTABLE_ERROR, &set, NULL) == RK_OK;
    specs->policies[n - 1] = own;
    rk_policy_set_unref(set);
    return holds;
}

/*
 * The policy area gives the reason, and this finds the place: the shortest beginning of the list
 * that is refused ends with it. A namespace is at fault when it is refused with any field.
 */
static enum rk_status refuse_policies(const struct specs *specs,
                                      const struct rk_config_source *source, struct rk_error *err,
                                      const char *reason)
{
    static const struct rk_field_spec any = {.path = "any", .algorithm = RK_ALGORITHM_RANDOM};
    char key[KEY_MAX];
    size_t n = 1;
    while (n < specs->n_policies && beginning_holds(specs, n, specs->policies[n - 1].fields,
                                                    specs->policies[n - 1].n_fields)) {
        n++;
    }
    const struct rk_policy_spec *policy = &specs->policies[n - 1];
    if (!beginning_holds(specs, n, &any, 1)) {
        (void)snprintf(key, sizeof key, "policies[%zu].namespace", n - 1);
        return rk_config_refuse(source, err, key, "%s", reason);
    }
    size_t fields = 1;
    while (fields < policy->n_fields && beginning_holds(specs, n, policy->fields, fields)) {
        fields++;
    }
    (void)snprintf(key, sizeof key, "policies[%zu].fields[%zu]", n - 1, fields - 1);
    return rk_config_refuse(source, err, key, "%s", reason);
}

/* What the key provider cannot do for the fields of a policy. */
static enum rk_status check_provider(const struct rk_config_policy_entry *entry, unsigned index,
                                     const struct rk_config_keys *keys,
                                     const struct rk_config_source *source, struct rk_error *err)
{
    char key[KEY_MAX];
    bool vault = keys->provider == RK_CONFIG_VAULT;
    bool transit = vault && keys->vault.mode == RK_CONFIG_VAULT_TRANSIT;
    for (unsigned i = 0; i < entry->fields_count; i++) {
        const struct rk_config_field_entry *field = &entry->fields[i];
        if (transit && field->algorithm == RK_ALGORITHM_DETERMINISTIC) {
            (void)snprintf(key, sizeof key, "policies[%u].fields[%u].algorithm", index, i);
            return rk_config_refuse(source, err, key,
                                    "deterministic needs the data key at hand, which "
                                    "keys.vault.mode: transit forbids; use random or mode: "
                                    "envelope");
        }
        for (unsigned j = 0; j < field->legacy_count && !vault; j++) {
            if (field->legacy[j].cipher == RK_LEGACY_VAULT_TRANSIT) {
                (void)snprintf(key, sizeof key, "policies[%u].fields[%u].legacy[%u].cipher", index,
                               i, j);
                return rk_config_refuse(source, err, key,
                                        "vault-transit needs keys.provider: vault");
            }
        }
    }
    return RK_OK;
}

enum rk_status rk_config_policies(const struct rk_config_file *file, struct rk_config *config,
                                  const struct rk_config_source *source, struct rk_error *err)
{
    struct specs specs;
    struct rk_error reason = {0};
    enum rk_status status = RK_OK;
    if (!specs_init(&specs, file)) {
        status = rk_error_set(err, RK_ENOMEM, "%s: out of memory", source->path);
        goto done;
    }
    if (file->policies_count > 0 && config->keys.provider == RK_CONFIG_KEYRING &&
        config->keys.keyring_file == NULL) {
        status = rk_config_refuse(source, err, "keys.keyring_file",
                                  "is required when there are policies");
        goto done;
    }
    for (unsigned i = 0; i < file->policies_count && status == RK_OK; i++) {
        status = add_policy(&specs, &file->policies[i], config->upstream.state_db, source, err);
        if (status == RK_OK) {
            status = check_provider(&file->policies[i], i, &config->keys, source, err);
        }
    }
    if (status != RK_OK) {
        goto done;
    }
    status = rk_policy_set_new(specs.policies, specs.n_policies, file->on_undecryptable,
                               &config->policies, &reason);
    if (status == RK_ENOMEM || (status != RK_OK && specs.n_policies == 0)) {
        status = rk_error_set(err, status, "%s: policies: %s", source->path, reason.message);
    } else if (status != RK_OK) {
        status = refuse_policies(&specs, source, err, reason.message);
    }
done:
    specs_deinit(&specs);
    return status;
}
