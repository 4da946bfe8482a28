#include "config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1u << 20)
#define KEY_MAX 160

static enum rk_status read_file(const char *path, struct rk_buf *text, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return rk_error_set(err, RK_EIO, "%s: cannot open: %s", path, strerror(errno));
    }
    for (;;) {
        status = rk_buf_reserve(text, 4096);
        if (status != RK_OK) {
            status = rk_error_set(err, status, "%s: larger than %u bytes", path, FILE_MAX);
            break;
        }
        ssize_t n = read(fd, text->data + text->len, 4096);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            status = rk_error_set(err, RK_EIO, "%s: cannot read: %s", path, strerror(errno));
        }
        if (n <= 0) {
            break;
        }
        text->len += (size_t)n;
    }
    (void)close(fd);
    return status;
}

struct cyaml_message {
    char text[200];
};

/* Keeps libcyaml's first error; the ones that follow are its backtrace. */
static void keep_message(cyaml_log_t level, void *ctx, const char *format, va_list args)
{
    struct cyaml_message *message = ctx;
    if (level == CYAML_LOG_ERROR && message->text[0] == '\0') {
        (void)vsnprintf(message->text, sizeof message->text, format, args);
        message->text[strcspn(message->text, "\n")] = '\0';
    }
}

enum rk_status rk_config_file_read(const char *path, const char *text, size_t len,
                                   struct rk_config_source *source, struct rk_config_file **file,
                                   struct rk_error *err)
{
    struct cyaml_message message = {{0}};
    const cyaml_config_t cyaml = {.log_fn = keep_message,
                                  .log_ctx = &message,
                                  .mem_fn = cyaml_mem,
                                  .log_level = CYAML_LOG_ERROR};
    enum rk_status status = rk_config_source_init(source, path, text, len, err);
    if (status != RK_OK) {
        return status;
    }
    cyaml_err_t problem = cyaml_load_data((const uint8_t *)text, len, &cyaml, &rk_config_schema,
                                          (cyaml_data_t **)file, NULL);
    if (problem != CYAML_OK) {
        return rk_error_set(err, problem == CYAML_ERR_OOM ? RK_ENOMEM : RK_EINVAL, "%s: %s (%s)",
                            path, cyaml_strerror(problem), message.text);
    }
    return RK_OK;
}

void rk_config_file_free(struct rk_config_file *file)
{
    const cyaml_config_t cyaml = {.mem_fn = cyaml_mem};
    (void)cyaml_free(&cyaml, &rk_config_schema, file, 0);
}

void rk_config_set_defaults(struct rk_config *config, const struct rk_config_source *source)
{
    for (size_t i = 0; i < rk_config_numbers_count; i++) {
        const struct rk_config_number *number = &rk_config_numbers[i];
        if (!rk_config_source_has(source, number->key)) {
            memcpy((char *)config + number->offset, &number->value_default, sizeof(uint32_t));
        }
    }
    for (size_t i = 0; i < rk_config_switches_count; i++) {
        const struct rk_config_switch *one = &rk_config_switches[i];
        if (!rk_config_source_has(source, one->key)) {
            memcpy((char *)config + one->offset, &one->value_default, sizeof(bool));
        }
    }
    static const enum rk_compressor compressors[RK_COMPRESSORS_MAX] = {
        RK_COMPRESSOR_SNAPPY, RK_COMPRESSOR_ZSTD, RK_COMPRESSOR_ZLIB};
    struct rk_config_compression *compression = &config->compression;
    if (!rk_config_source_has(source, "compression.client")) {
        memcpy(compression->client, compressors, sizeof compressors);
        compression->client_count = RK_COMPRESSORS_MAX;
    }
    if (!rk_config_source_has(source, "compression.upstream")) {
        memcpy(compression->upstream, compressors, sizeof compressors);
        compression->upstream_count = RK_COMPRESSORS_MAX;
    }
    if (!rk_config_source_has(source, "log.level")) {
        config->log.level = RK_LOG_INFO;
    }
    if (!rk_config_source_has(source, "listener.socket_access")) {
        config->listener.socket_mode = 0600;
    }
    if (!rk_config_source_has(source, "sweep.time_zone")) {
        (void)snprintf(config->sweep.time_zone, sizeof config->sweep.time_zone, "UTC");
    }
}

static bool default_text(char **text, const char *value)
{
    if (*text == NULL && value != NULL) {
        *text = strdup(value);
        return *text != NULL;
    }
    return true;
}

/* A relative file name is meant relative to the configuration file, wherever the daemon runs. */
static bool anchor_file(char **file, const char *config_path)
{
    const char *slash = strrchr(config_path, '/');
    if (*file == NULL || (*file)[0] == '/' || strcmp(*file, "-") == 0 || slash == NULL) {
        return true;
    }
    char *anchored = NULL;
    if (asprintf(&anchored, "%.*s/%s", (int)(slash - config_path), config_path, *file) < 0) {
        return false;
    }
    free(*file);
    *file = anchored;
    return true;
}

static bool set_members(struct rk_config_member *members, unsigned n)
{
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++) {
        ok = default_text(&members[i].connect, members[i].address) &&
             default_text(&members[i].advertise, members[i].listen);
    }
    return ok;
}

static bool set_vault_texts(struct rk_config_vault *vault, const char *path)
{
    bool ok = true;
    for (unsigned i = 0; i < vault->legacy_count && ok; i++) {
        ok = default_text(&vault->legacy[i].field, "key");
    }
    return ok && default_text(&vault->transit_mount, "transit") &&
           default_text(&vault->key, "rekey") && default_text(&vault->auth_mount, "approle") &&
           default_text(&vault->key_file, vault->cert_file) && anchor_file(&vault->ca_file, path) &&
           anchor_file(&vault->cert_file, path) && anchor_file(&vault->key_file, path) &&
           anchor_file(&vault->secret_id_file, path) && anchor_file(&vault->token_file, path);
}

static bool set_texts(struct rk_config *config, const char *path)
{
    struct rk_config_tls *tls[] = {&config->upstream.tls, &config->listener_tls, &config->admin.tls,
                                   &config->amqp.tls};
    bool ok = default_text(&config->path, path) && default_text(&config->amqp.vhost, "/") &&
              default_text(&config->amqp.prefix, "rekey") &&
              anchor_file(&config->amqp.password_file, path) &&
              default_text(&config->upstream.state_db, "rekey") &&
              anchor_file(&config->keys.keyring_file, path) &&
              anchor_file(&config->log.file, path) && anchor_file(&config->admin.token_file, path);
    for (size_t i = 0; i < sizeof tls / sizeof tls[0] && ok; i++) {
        ok = default_text(&tls[i]->key_file, tls[i]->cert_file) &&
             anchor_file(&tls[i]->ca_file, path) && anchor_file(&tls[i]->cert_file, path) &&
             anchor_file(&tls[i]->key_file, path);
    }
    return ok && set_vault_texts(&config->keys.vault, path) &&
           set_members(config->upstream.members, config->upstream.members_count) &&
           set_members(config->upstream.listeners, config->upstream.listeners_count);
}

/* Replaces ${NAME} by the environment's value. */
static enum rk_status expand_uri(char **uri, const struct rk_config_source *source,
                                 struct rk_error *err)
{
    struct rk_buf out;
    rk_buf_init(&out, FILE_MAX);
    enum rk_status status = RK_OK;
    for (const char *p = *uri; *p != '\0' && status == RK_OK;) {
        const char *start = strstr(p, "${");
        size_t plain = start == NULL ? strlen(p) : (size_t)(start - p);
        status = rk_buf_append(&out, p, plain);
        p += plain;
        if (start == NULL || status != RK_OK) {
            break;
        }
        const char *end = strchr(p, '}');
        char name[128];
        size_t name_len = end == NULL ? 0 : (size_t)(end - p) - 2;
        if (name_len == 0 || name_len >= sizeof name) {
            status = rk_config_refuse(source, err, "upstream.uri", "a ${ without NAME}");
            goto done;
        }
        memcpy(name, p + 2, name_len);
        name[name_len] = '\0';
        const char *value = getenv(name);
        if (value == NULL || value[0] == '\0') {
            status = rk_config_refuse(source, err, "upstream.uri",
                                      "the environment variable %s is not set", name);
            goto done;
        }
        status = rk_buf_append(&out, value, strlen(value));
        p = end + 1;
    }
    if (status == RK_OK) {
        status = rk_buf_append_u8(&out, 0);
    }
    if (status != RK_OK) {
        status = rk_error_set(err, status, "%s: upstream.uri: out of memory", source->path);
        goto done;
    }
    free(*uri);
    size_t len;
    *uri = (char *)rk_buf_take(&out, &len);
done:
    rk_buf_deinit(&out);
    return status;
}

enum rk_status rk_config_load(const char *path, struct rk_config **out, struct rk_error *err)
{
    struct rk_buf text;
    struct rk_config_source source = {0};
    struct rk_config_file *file = NULL;
    struct rk_config *config = NULL;
    rk_buf_init(&text, FILE_MAX + 4096);
    enum rk_status status = read_file(path, &text, err);
    if (status == RK_OK) {
        status = rk_config_file_read(path, (const char *)text.data, text.len, &source, &file, err);
    }
    if (status != RK_OK) {
        goto done;
    }
    config = malloc(sizeof *config);
    if (config == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    *config = file->config;
    memset(&file->config, 0, sizeof file->config); /* its strings moved */
    rk_config_set_defaults(config, &source);
    config->sweep_given = rk_config_sweep_given(&source);
    if (!set_texts(config, path)) {
        status = rk_error_set(err, RK_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    status = expand_uri(&config->upstream.uri, &source, err);
    if (status == RK_OK) {
        status = rk_config_check(config, &source, err);
    }
    if (status == RK_OK) {
        status = rk_config_policies(file, config, &source, err);
    }
    if (status == RK_OK) {
        status = rk_config_take_terms(file, config, &source, err);
    }
    if (status == RK_OK) {
        *out = config;
        config = NULL;
    }
done:
    rk_config_free(config);
    rk_config_file_free(file);
    rk_config_source_deinit(&source);
    rk_buf_deinit(&text);
    return status;
}

static void free_tls(struct rk_config_tls *tls)
{
    free(tls->ca_file);
    free(tls->cert_file);
    free(tls->key_file);
}

static void free_members(struct rk_config_member *members, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(members[i].address);
        free(members[i].connect);
        free(members[i].listen);
        free(members[i].advertise);
    }
    free(members);
}

static void free_texts(char **texts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(texts[i]);
    }
    free(texts);
}

static void free_vault(struct rk_config_vault *vault)
{
    free_texts(vault->addresses, vault->addresses_count);
    free_texts(vault->redirect_hosts, vault->redirect_hosts_count);
    for (unsigned i = 0; i < vault->legacy_count; i++) {
        free(vault->legacy[i].name);
        free(vault->legacy[i].path);
        free(vault->legacy[i].field);
    }
    free(vault->legacy);
    free(vault->ns);
    free(vault->ca_file);
    free(vault->cert_file);
    free(vault->key_file);
    free(vault->transit_mount);
    free(vault->key);
    free(vault->auth_mount);
    free(vault->role_id);
    free(vault->secret_id_file);
    free(vault->secret_id_env);
    free(vault->token_file);
}

static void free_amqp(struct rk_config_amqp *amqp)
{
    free_texts(amqp->addresses, amqp->addresses_count);
    free(amqp->vhost);
    free(amqp->user);
    free(amqp->password_file);
    free(amqp->password_env);
    free_tls(&amqp->tls);
    free(amqp->prefix);
}

void rk_config_free(struct rk_config *config)
{
    if (config == NULL) {
        return;
    }
    free_members(config->upstream.members, config->upstream.members_count);
    free_members(config->upstream.listeners, config->upstream.listeners_count);
    free(config->upstream.uri);
    free(config->upstream.state_db);
    free_tls(&config->upstream.tls);
    free_tls(&config->listener_tls);
    free_tls(&config->admin.tls);
    free(config->admin.address);
    free(config->admin.token_file);
    free_texts(config->listener.proxy_networks, config->listener.proxy_networks_count);
    free_vault(&config->keys.vault);
    free_amqp(&config->amqp);
    free(config->keys.keyring_file);
    free(config->log.file);
    rk_policy_set_unref(config->policies);
    rk_config_free_terms(config);
    free(config->path);
    free(config);
}

const struct rk_config_member *rk_config_listeners(const struct rk_config *config, unsigned *n)
{
    const struct rk_config_upstream *upstream = &config->upstream;
    bool single = upstream->topology == RK_CONFIG_SINGLE;
    *n = single ? upstream->listeners_count : upstream->members_count;
    return single ? upstream->listeners : upstream->members;
}
