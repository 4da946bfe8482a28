/*
 * The one description of rekey.yaml. Numbers and switches are listed once, with default and
 * range; libcyaml's fields and the tables that check.c and load.c walk are generated from the
 * lists.
 */
#include "config_internal.h"

#include <string.h>

/* A client may send a document of 16 MiB and the envelope must still fit (mongod's internal
 * limit of 16,793,600 bytes for one object, and 16 KiB for the command around it). */
#define MESSAGE_BYTES_MIN (16793600u + 16384u)
#define HOUR_MS 3600000u

/* X(name, default, min, max) */
#define LIMIT_NUMBERS(X)                                                                           \
    X(workers, 0, 0, 1024)                                                                         \
    X(connections_max, 10000, 1, 1000000)                                                          \
    X(listen_backlog, 1024, 1, 65535)                                                              \
    X(message_bytes_max, 48000000, MESSAGE_BYTES_MIN, 48000000)                                    \
    X(advertised_message_bytes_max, 33554432, MESSAGE_BYTES_MIN, 48000000)                         \
    X(advertised_batch_docs_max, 2000, 1, 100000)                                                  \
    X(buffer_high_bytes, 1048576, 4096, 1073741824)                                                \
    X(buffer_low_bytes, 262144, 0, 1073741824)                                                     \
    X(pipeline_max, 128, 1, 65536)                                                                 \
    X(bound_cursors_max, 100000, 1, 10000000)                                                      \
    X(connect_timeout_ms, 5000, 1, HOUR_MS)                                                        \
    X(handshake_timeout_ms, 10000, 1, HOUR_MS)                                                     \
    X(idle_timeout_ms, 0, 0, 24 * HOUR_MS)                                                         \
    X(drain_timeout_ms, 10000, 0, HOUR_MS)                                                         \
    X(key_wait_timeout_ms, 10000, 1, HOUR_MS)                                                      \
    X(server_wait_timeout_ms, 5000, 0, HOUR_MS)

/* libmongoc takes no monitor interval below 500. */
#define UPSTREAM_NUMBERS(X)                                                                        \
    X(resolve_interval_ms, 30000, 100, HOUR_MS)                                                    \
    X(monitor_interval_ms, 1000, 500, HOUR_MS)                                                     \
    X(latency_window_ms, 15, 0, HOUR_MS)                                                           \
    X(catalog_interval_ms, 10000, 100, HOUR_MS)

#define COMPRESSION_NUMBERS(X)                                                                     \
    X(zlib_level, 1, 1, 9)                                                                         \
    X(zstd_level, 3, 1, 19)                                                                        \
    X(message_bytes_min, 1024, 0, 48000000)                                                        \
    X(message_bytes_max, 4194304, 0, 48000000)

#define KEY_NUMBERS(X)                                                                             \
    X(refresh_interval_ms, 1000, 10, HOUR_MS)                                                      \
    X(negative_cache_ms, 5000, 0, HOUR_MS)                                                         \
    X(instance_lease_ms, 10000, 500, HOUR_MS)                                                      \
    X(cursor_grace_ms, 600000, 0, 24 * HOUR_MS)                                                    \
    X(rotate_after_days, 0, 0, 36500)                                                              \
    X(rotate_after_encryptions, 0, 0, UINT32_MAX)                                                  \
    X(encryption_lease, 1000000, 1, UINT32_MAX)                                                    \
    X(write_settle_ms, 70000, 0, 86400000)                                                         \
    X(tenants_max, 1000, 1, 2000)

#define VAULT_NUMBERS(X)                                                                           \
    X(connect_timeout_ms, 2000, 1, HOUR_MS)                                                        \
    X(request_timeout_ms, 5000, 1, HOUR_MS)                                                        \
    X(retry_timeout_ms, 15000, 1, HOUR_MS)                                                         \
    X(retry_backoff_ms, 100, 1, HOUR_MS)                                                           \
    X(retry_backoff_max_ms, 5000, 1, HOUR_MS)                                                      \
    X(refused_login_pause_ms, 300000, 0, 24 * HOUR_MS)                                             \
    X(health_interval_ms, 2000, 100, HOUR_MS)                                                      \
    X(revoke_timeout_ms, 2000, 0, HOUR_MS)                                                         \
    X(response_bytes_max, 33554432, 65536, 1073741824)                                             \
    X(connections_max, 8, 1, 1024)

#define TRANSIT_NUMBERS(X)                                                                         \
    X(coalesce_us, 500, 0, 1000000)                                                                \
    X(batch_values_max, 1000, 1, 100000)                                                           \
    X(batch_bytes_max, 1048576, 1024, 1073741824)                                                  \
    X(requests_max, 3, 1, 1024)

#define SWEEP_NUMBERS(X)                                                                           \
    X(hot_docs_max, 10000, 1, 10000000)                                                            \
    X(hot_repeat_ms, 10000, 0, HOUR_MS)                                                            \
    X(max_rate, 0, 0, 100000000)                                                                   \
    X(threads, 2, 1, 64)                                                                           \
    X(range_docs, 10000, 1, 10000000)                                                              \
    X(batch_docs, 1000, 1, 100000)                                                                 \
    X(ranges_ahead, 64, 1, 100000)                                                                 \
    X(split_after_ms, 30000, 0, HOUR_MS)                                                           \
    X(lease_ms, 15000, 100, HOUR_MS)                                                               \
    X(poll_interval_ms, 1000, 10, HOUR_MS)                                                         \
    X(attempts_max, 10, 1, 1000000)                                                                \
    X(retry_backoff_ms, 100, 1, HOUR_MS)                                                           \
    X(retry_backoff_max_ms, 10000, 1, HOUR_MS)                                                     \
    X(write_timeout_ms, 30000, 1, HOUR_MS)

#define AMQP_NUMBERS(X)                                                                            \
    X(prefetch, 2, 1, 1000)                                                                        \
    X(heartbeat_s, 10, 1, 3600)                                                                    \
    X(connect_timeout_ms, 5000, 1, HOUR_MS)                                                        \
    X(confirm_timeout_ms, 3000, 1, HOUR_MS)                                                        \
    X(reconnect_backoff_ms, 200, 1, HOUR_MS)                                                       \
    X(reconnect_backoff_max_ms, 10000, 1, HOUR_MS)                                                 \
    X(refeed_interval_ms, 60000, 100, 24 * HOUR_MS)

#define GUARD_NUMBERS(X)                                                                           \
    X(p99_limit_ms, 50, 0, HOUR_MS)                                                                \
    X(interval_ms, 1000, 10, HOUR_MS)                                                              \
    X(samples_min, 50, 1, 1000000)                                                                 \
    X(rate_min, 100, 0, 100000000)

#define DEAD_LETTER_NUMBERS(X)                                                                     \
    X(pause_count, 1000, 0, 1000000000)                                                            \
    X(pause_share_percent, 10, 0, 100)                                                             \
    X(docs_min, 1000, 1, 1000000000)                                                               \
    X(window_docs, 100000, 1, 1000000000)

#define VERIFY_NUMBERS(X)                                                                          \
    X(sample, 1000, 0, 1000000000)                                                                 \
    X(max_rate, 0, 0, 100000000)                                                                   \
    X(batch_docs, 2000, 1, 100000)                                                                 \
    X(checkpoint_interval_ms, 5000, 10, HOUR_MS)                                                   \
    X(lease_ms, 20000, 100, HOUR_MS)

#define LOG_NUMBERS(X) X(event_lines_per_s, 20, 0, 1000000)

#define ADMIN_NUMBERS(X)                                                                           \
    X(connections_max, 64, 1, 1000)                                                                \
    X(request_bytes_max, 8192, 256, 65536)                                                         \
    X(request_timeout_ms, 5000, 10, HOUR_MS)

#define LISTENER_NUMBERS(X) X(proxy_header_bytes_max, 4096, 232, 65551)

#define OPTIONAL CYAML_FLAG_OPTIONAL
#define TEXT(key, flags, type, member)                                                             \
    CYAML_FIELD_STRING_PTR(key, flags, type, member, 0, CYAML_UNLIMITED)
#define CHOICE(key, flags, type, member, words)                                                    \
    CYAML_FIELD_ENUM(key, flags, type, member, words, CYAML_ARRAY_LEN(words))
/* libcyaml's own booleans take any word that is not a known "false" for true, a misspelt "flase"
 * as well; a list of words does not. */
#define SWITCH(key, type, member) CHOICE(key, OPTIONAL, type, member, booleans)

static const cyaml_strval_t booleans[] = {{"false", 0}, {"true", 1}, {"no", 0},
                                          {"yes", 1},   {"off", 0},  {"on", 1}};
static const cyaml_strval_t levels[] = {
    {"debug", RK_LOG_DEBUG}, {"info", RK_LOG_INFO}, {"warn", RK_LOG_WARN}, {"error", RK_LOG_ERROR}};
static const cyaml_strval_t topologies[] = {{"mirror", RK_CONFIG_MIRROR},
                                            {"single", RK_CONFIG_SINGLE}};
static const cyaml_strval_t reads[] = {{"primary", RK_CONFIG_READ_PRIMARY},
                                       {"secondary", RK_CONFIG_READ_SECONDARY},
                                       {"secondaryPreferred", RK_CONFIG_READ_SECONDARY_PREFERRED}};
static const cyaml_strval_t scans[] = {
    {"primary", RK_CONFIG_SCAN_PRIMARY},
    {"secondary", RK_CONFIG_SCAN_SECONDARY},
    {"secondaryPreferred", RK_CONFIG_SCAN_SECONDARY_PREFERRED},
    {"nearest", RK_CONFIG_SCAN_NEAREST},
};
static const cyaml_strval_t unreadables[] = {{"error", RK_CONFIG_UNREADABLE_ERROR},
                                             {"placeholder", RK_CONFIG_UNREADABLE_PLACEHOLDER}};
static const cyaml_strval_t undecryptables[] = {{"error", RK_UNDECRYPTABLE_ERROR},
                                                {"leave", RK_UNDECRYPTABLE_LEAVE}};
static const cyaml_strval_t providers[] = {{"keyring", RK_CONFIG_KEYRING},
                                           {"vault", RK_CONFIG_VAULT}};
static const cyaml_strval_t transports[] = {{"local", RK_CONFIG_TRANSPORT_LOCAL},
                                            {"amqp", RK_CONFIG_TRANSPORT_AMQP}};
static const cyaml_strval_t vault_modes[] = {{"envelope", RK_CONFIG_VAULT_ENVELOPE},
                                             {"transit", RK_CONFIG_VAULT_TRANSIT}};
static const cyaml_strval_t sweep_modes[] = {{"proactive", RK_CONFIG_SWEEP_PROACTIVE},
                                             {"lazy", RK_CONFIG_SWEEP_LAZY},
                                             {"both", RK_CONFIG_SWEEP_BOTH}};
static const cyaml_strval_t vault_auths[] = {{"approle", RK_CONFIG_VAULT_APPROLE},
                                             {"token_file", RK_CONFIG_VAULT_TOKEN_FILE}};
static const cyaml_strval_t algorithms[] = {{"random", RK_ALGORITHM_RANDOM},
                                            {"deterministic", RK_ALGORITHM_DETERMINISTIC}};
static const cyaml_strval_t ciphers[] = {{"aes-256-cbc", RK_LEGACY_AES_256_CBC},
                                         {"aes-256-gcm", RK_LEGACY_AES_256_GCM},
                                         {"vault-transit", RK_LEGACY_VAULT_TRANSIT}};
static const cyaml_strval_t encodings[] = {{"binary", RK_LEGACY_BINARY},
                                           {"base64", RK_LEGACY_BASE64}};
static const cyaml_strval_t types[] = {{"string", RK_BSON_STRING}, {"binary", RK_BSON_BINARY}};

static const cyaml_strval_t socket_modes[] = {{"owner", 0600}, {"group", 0660}, {"everyone", 0666}};
static const cyaml_strval_t proxy_protocols[] = {{"off", 0}, {"required", 1}};
static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};
#define TEXTS(key, type, member)                                                                   \
    CYAML_FIELD_SEQUENCE(key, CYAML_FLAG_POINTER | OPTIONAL, type, member, &text_schema, 0,        \
                         CYAML_UNLIMITED)
static const cyaml_strval_t compressor_words[] = {
    {"snappy", RK_COMPRESSOR_SNAPPY}, {"zlib", RK_COMPRESSOR_ZLIB}, {"zstd", RK_COMPRESSOR_ZSTD}};
/* Those of which equal values have equal bytes (policy/document.c). */
static const cyaml_strval_t field_types[] = {
    {"string", RK_BSON_STRING},  {"int", RK_BSON_INT32},          {"long", RK_BSON_INT64},
    {"bool", RK_BSON_BOOL},      {"date", RK_BSON_DATE},          {"objectId", RK_BSON_OID},
    {"binData", RK_BSON_BINARY}, {"timestamp", RK_BSON_TIMESTAMP}};
static const cyaml_strval_t unique_indexes[] = {{"refuse", RK_UNIQUE_INDEX_REFUSE},
                                                {"warn", RK_UNIQUE_INDEX_WARN},
                                                {"allow", RK_UNIQUE_INDEX_ALLOW}};

static const cyaml_schema_field_t member_fields[] = {
    TEXT("address", 0, struct rk_config_member, address),
    TEXT("connect", OPTIONAL, struct rk_config_member, connect),
    TEXT("listen", 0, struct rk_config_member, listen),
    TEXT("advertise", OPTIONAL, struct rk_config_member, advertise),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t member_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_member, member_fields),
};

static const cyaml_schema_field_t single_fields[] = {
    TEXT("listen", 0, struct rk_config_member, listen),
    TEXT("advertise", OPTIONAL, struct rk_config_member, advertise),
    CHOICE("read", OPTIONAL, struct rk_config_member, read, reads),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t single_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_member, single_fields),
};

static const cyaml_schema_field_t tls_fields[] = {
    SWITCH("enabled", struct rk_config_tls, enabled),
    TEXT("ca_file", OPTIONAL, struct rk_config_tls, ca_file),
    TEXT("cert_file", OPTIONAL, struct rk_config_tls, cert_file),
    TEXT("key_file", OPTIONAL, struct rk_config_tls, key_file),
    SWITCH("verify", struct rk_config_tls, verify),
    CYAML_FIELD_END,
};

#define LISTENER_FIELD(name, d, min, max)                                                          \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_listener, name),

static const cyaml_schema_field_t listener_fields[] = {
    CHOICE("socket_access", OPTIONAL, struct rk_config_listener, socket_mode, socket_modes),
    CHOICE("proxy_protocol", OPTIONAL, struct rk_config_listener, proxy_required, proxy_protocols),
    TEXTS("proxy_networks", struct rk_config_listener, proxy_networks),
    LISTENER_NUMBERS(LISTENER_FIELD) CYAML_FIELD_END,
};

#define UPSTREAM_FIELD(name, d, min, max)                                                          \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_upstream, name),

static const cyaml_schema_field_t upstream_fields[] = {
    TEXT("uri", 0, struct rk_config_upstream, uri),
    CHOICE("topology", OPTIONAL, struct rk_config_upstream, topology, topologies),
    TEXT("state_db", OPTIONAL, struct rk_config_upstream, state_db),
    CYAML_FIELD_SEQUENCE("members", CYAML_FLAG_POINTER | OPTIONAL, struct rk_config_upstream,
                         members, &member_schema, 0, CYAML_UNLIMITED),
    CYAML_FIELD_SEQUENCE("listeners", CYAML_FLAG_POINTER | OPTIONAL, struct rk_config_upstream,
                         listeners, &single_schema, 0, CYAML_UNLIMITED),
    CYAML_FIELD_MAPPING("tls", OPTIONAL, struct rk_config_upstream, tls, tls_fields),
    UPSTREAM_NUMBERS(UPSTREAM_FIELD) CYAML_FIELD_END,
};

#define LIMIT_FIELD(name, d, min, max)                                                             \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_limits, name),
#define COMPRESSION_FIELD(name, d, min, max)                                                       \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_compression, name),
#define KEY_FIELD(name, d, min, max) CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_keys, name),
#define VAULT_FIELD(name, d, min, max)                                                             \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_vault, name),
#define TRANSIT_FIELD(name, d, min, max)                                                           \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_transit, name),
#define AMQP_FIELD(name, d, min, max)                                                              \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_amqp, name),
#define SWEEP_FIELD(name, d, min, max)                                                             \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_sweep, name),
#define GUARD_FIELD(name, d, min, max)                                                             \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_guard, name),

#define DEAD_LETTER_FIELD(name, d, min, max)                                                       \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_dead_letters, name),
#define VERIFY_FIELD(name, d, min, max)                                                            \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_verify, name),

#define LOG_FIELD(name, d, min, max) CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_log, name),

static const cyaml_schema_field_t limit_fields[] = {LIMIT_NUMBERS(LIMIT_FIELD) CYAML_FIELD_END};

static const cyaml_schema_value_t compressor_schema = {
    CYAML_VALUE_ENUM(CYAML_FLAG_DEFAULT, enum rk_compressor, compressor_words,
                     CYAML_ARRAY_LEN(compressor_words)),
};
#define COMPRESSORS(key, member)                                                                   \
    CYAML_FIELD_SEQUENCE(key, OPTIONAL, struct rk_config_compression, member, &compressor_schema,  \
                         0, RK_COMPRESSORS_MAX)
static const cyaml_schema_field_t compression_fields[] = {
    COMPRESSORS("client", client), COMPRESSORS("upstream", upstream),
    COMPRESSION_NUMBERS(COMPRESSION_FIELD) CYAML_FIELD_END};

static const cyaml_schema_field_t vault_legacy_fields[] = {
    TEXT("name", 0, struct rk_config_vault_legacy, name),
    TEXT("path", 0, struct rk_config_vault_legacy, path),
    TEXT("field", OPTIONAL, struct rk_config_vault_legacy, field),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t vault_legacy_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_vault_legacy, vault_legacy_fields),
};

static const cyaml_schema_field_t transit_fields[] = {TRANSIT_NUMBERS(TRANSIT_FIELD)
                                                          CYAML_FIELD_END};

static const cyaml_schema_field_t vault_fields[] = {
    TEXTS("addresses", struct rk_config_vault, addresses),
    TEXTS("redirect_hosts", struct rk_config_vault, redirect_hosts),
    TEXT("namespace", OPTIONAL, struct rk_config_vault, ns),
    TEXT("ca_file", OPTIONAL, struct rk_config_vault, ca_file),
    TEXT("cert_file", OPTIONAL, struct rk_config_vault, cert_file),
    TEXT("key_file", OPTIONAL, struct rk_config_vault, key_file),
    TEXT("transit_mount", OPTIONAL, struct rk_config_vault, transit_mount),
    TEXT("key", OPTIONAL, struct rk_config_vault, key),
    CHOICE("mode", OPTIONAL, struct rk_config_vault, mode, vault_modes),
    CYAML_FIELD_MAPPING("transit", OPTIONAL, struct rk_config_vault, transit, transit_fields),
    CYAML_FIELD_SEQUENCE("legacy", CYAML_FLAG_POINTER | OPTIONAL, struct rk_config_vault, legacy,
                         &vault_legacy_schema, 0, CYAML_UNLIMITED),
    CHOICE("auth", OPTIONAL, struct rk_config_vault, auth, vault_auths),
    TEXT("auth_mount", OPTIONAL, struct rk_config_vault, auth_mount),
    TEXT("role_id", OPTIONAL, struct rk_config_vault, role_id),
    TEXT("secret_id_file", OPTIONAL, struct rk_config_vault, secret_id_file),
    TEXT("secret_id_env", OPTIONAL, struct rk_config_vault, secret_id_env),
    TEXT("token_file", OPTIONAL, struct rk_config_vault, token_file),
    SWITCH("trim", struct rk_config_vault, trim),
    VAULT_NUMBERS(VAULT_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t key_fields[] = {
    CHOICE("provider", OPTIONAL, struct rk_config_keys, provider, providers),
    TEXT("keyring_file", OPTIONAL, struct rk_config_keys, keyring_file),
    CYAML_FIELD_MAPPING("vault", OPTIONAL, struct rk_config_keys, vault, vault_fields),
    SWITCH("create_first_key", struct rk_config_keys, create_first_key),
    SWITCH("create_tenant_keys", struct rk_config_keys, create_tenant_keys),
    SWITCH("start_degraded", struct rk_config_keys, start_degraded),
    KEY_NUMBERS(KEY_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t guard_fields[] = {GUARD_NUMBERS(GUARD_FIELD) CYAML_FIELD_END};

static const cyaml_schema_value_t span_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_DEFAULT, struct rk_config_span, 0, RK_WINDOW_TEXT_SIZE - 1),
};

static const cyaml_schema_field_t amqp_fields[] = {
    TEXTS("addresses", struct rk_config_amqp, addresses),
    TEXT("vhost", OPTIONAL, struct rk_config_amqp, vhost),
    TEXT("user", OPTIONAL, struct rk_config_amqp, user),
    TEXT("password_file", OPTIONAL, struct rk_config_amqp, password_file),
    TEXT("password_env", OPTIONAL, struct rk_config_amqp, password_env),
    CYAML_FIELD_MAPPING("tls", OPTIONAL, struct rk_config_amqp, tls, tls_fields),
    TEXT("prefix", OPTIONAL, struct rk_config_amqp, prefix),
    AMQP_NUMBERS(AMQP_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t dead_letter_fields[] = {DEAD_LETTER_NUMBERS(DEAD_LETTER_FIELD)
                                                              CYAML_FIELD_END};

static const cyaml_schema_field_t sweep_fields[] = {
    CHOICE("transport", OPTIONAL, struct rk_config_sweep, transport, transports),
    SWITCH("pause", struct rk_config_sweep, pause),
    SWITCH("transactions", struct rk_config_sweep, transactions),
    CHOICE("mode", OPTIONAL, struct rk_config_sweep, mode, sweep_modes),
    CYAML_FIELD_SEQUENCE("window", OPTIONAL, struct rk_config_sweep, window, &span_schema, 0,
                         RK_WINDOW_SPANS_MAX),
    CYAML_FIELD_STRING("time_zone", OPTIONAL, struct rk_config_sweep, time_zone, 0),
    CHOICE("read_preference", OPTIONAL, struct rk_config_sweep, read_preference, scans),
    CYAML_FIELD_MAPPING("guard", OPTIONAL, struct rk_config_sweep, guard, guard_fields),
    CYAML_FIELD_MAPPING("dead_letters", OPTIONAL, struct rk_config_sweep, dead_letters,
                        dead_letter_fields),
    SWEEP_NUMBERS(SWEEP_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t verify_fields[] = {
    CHOICE("read_preference", OPTIONAL, struct rk_config_verify, read_preference, scans),
    VERIFY_NUMBERS(VERIFY_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t log_fields[] = {
    TEXT("file", OPTIONAL, struct rk_config_log, file),
    CHOICE("level", OPTIONAL, struct rk_config_log, level, levels),
    LOG_NUMBERS(LOG_FIELD) CYAML_FIELD_END,
};

#define ADMIN_FIELD(name, d, min, max)                                                             \
    CYAML_FIELD_UINT(#name, OPTIONAL, struct rk_config_admin, name),

static const cyaml_schema_field_t admin_fields[] = {
    TEXT("address", OPTIONAL, struct rk_config_admin, address),
    TEXT("token_file", OPTIONAL, struct rk_config_admin, token_file),
    CYAML_FIELD_MAPPING("tls", OPTIONAL, struct rk_config_admin, tls, tls_fields),
    ADMIN_NUMBERS(ADMIN_FIELD) CYAML_FIELD_END,
};

static const cyaml_schema_field_t legacy_fields[] = {
    CHOICE("cipher", 0, struct rk_config_legacy_entry, cipher, ciphers),
    CHOICE("encoding", 0, struct rk_config_legacy_entry, encoding, encodings),
    TEXT("key", 0, struct rk_config_legacy_entry, key),
    TEXT("version_hex", OPTIONAL, struct rk_config_legacy_entry, version_hex),
    TEXT("iv_hex", OPTIONAL, struct rk_config_legacy_entry, iv_hex),
    SWITCH("iv_implied", struct rk_config_legacy_entry, iv_implied),
    CHOICE("type", OPTIONAL, struct rk_config_legacy_entry, type, types),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t legacy_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_legacy_entry, legacy_fields),
};

static const cyaml_schema_field_t field_fields[] = {
    TEXT("path", 0, struct rk_config_field_entry, path),
    TEXT("name", OPTIONAL, struct rk_config_field_entry, name),
    CHOICE("algorithm", OPTIONAL, struct rk_config_field_entry, algorithm, algorithms),
    CHOICE("type", OPTIONAL, struct rk_config_field_entry, type, field_types),
    SWITCH("accept_plaintext", struct rk_config_field_entry, accept_plaintext),
    CHOICE("unique_index", OPTIONAL, struct rk_config_field_entry, unique_index, unique_indexes),
    CYAML_FIELD_SEQUENCE("legacy", CYAML_FLAG_POINTER | OPTIONAL, struct rk_config_field_entry,
                         legacy, &legacy_schema, 0, CYAML_UNLIMITED),
    TEXT("key", OPTIONAL, struct rk_config_field_entry, key),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t field_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_field_entry, field_fields),
};

static const cyaml_schema_field_t terms_fields[] = {
    CYAML_FIELD_INT("priority", OPTIONAL, struct rk_config_terms, priority),
    CYAML_FIELD_UINT("concurrency", OPTIONAL, struct rk_config_terms, concurrency),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t policy_fields[] = {
    CYAML_FIELD_MAPPING("sweep", OPTIONAL, struct rk_config_policy_entry, sweep, terms_fields),
    TEXT("namespace", 0, struct rk_config_policy_entry, ns),
    CYAML_FIELD_SEQUENCE("fields", CYAML_FLAG_POINTER, struct rk_config_policy_entry, fields,
                         &field_schema, 1, CYAML_UNLIMITED),
    TEXT("key", OPTIONAL, struct rk_config_policy_entry, key),
    CHOICE("unreadable", OPTIONAL, struct rk_config_policy_entry, unreadable, unreadables),
    TEXT("tenant", OPTIONAL, struct rk_config_policy_entry, tenant),
    TEXT("placeholder", OPTIONAL, struct rk_config_policy_entry, placeholder),
    TEXTS("former_keys", struct rk_config_policy_entry, former_keys),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t policy_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rk_config_policy_entry, policy_fields),
};

static const cyaml_schema_field_t file_fields[] = {
    CYAML_FIELD_MAPPING("upstream", 0, struct rk_config_file, config.upstream, upstream_fields),
    CYAML_FIELD_MAPPING("listener_tls", OPTIONAL, struct rk_config_file, config.listener_tls,
                        tls_fields),
    CYAML_FIELD_MAPPING("listener", OPTIONAL, struct rk_config_file, config.listener,
                        listener_fields),
    CYAML_FIELD_MAPPING("limits", OPTIONAL, struct rk_config_file, config.limits, limit_fields),
    CYAML_FIELD_MAPPING("compression", OPTIONAL, struct rk_config_file, config.compression,
                        compression_fields),
    CYAML_FIELD_MAPPING("keys", OPTIONAL, struct rk_config_file, config.keys, key_fields),
    CYAML_FIELD_MAPPING("sweep", OPTIONAL, struct rk_config_file, config.sweep, sweep_fields),
    CYAML_FIELD_MAPPING("amqp", OPTIONAL, struct rk_config_file, config.amqp, amqp_fields),
    CYAML_FIELD_MAPPING("verify", OPTIONAL, struct rk_config_file, config.verify, verify_fields),
    CYAML_FIELD_MAPPING("admin", OPTIONAL, struct rk_config_file, config.admin, admin_fields),
    CYAML_FIELD_MAPPING("log", OPTIONAL, struct rk_config_file, config.log, log_fields),
    CHOICE("on_undecryptable", OPTIONAL, struct rk_config_file, on_undecryptable, undecryptables),
    CYAML_FIELD_SEQUENCE("policies", CYAML_FLAG_POINTER | OPTIONAL, struct rk_config_file, policies,
                         &policy_schema, 0, CYAML_UNLIMITED),
    CYAML_FIELD_END,
};
const cyaml_schema_value_t rk_config_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct rk_config_file, file_fields),
};

#define NUMBER(group, name, d, min, max)                                                           \
    {#group "." #name, offsetof(struct rk_config, group.name), d, min, max},
#define UPSTREAM_NUMBER(...) NUMBER(upstream, __VA_ARGS__)
#define LIMIT_NUMBER(...) NUMBER(limits, __VA_ARGS__)
#define COMPRESSION_NUMBER(...) NUMBER(compression, __VA_ARGS__)
#define KEY_NUMBER(...) NUMBER(keys, __VA_ARGS__)
#define VAULT_NUMBER(...) NUMBER(keys.vault, __VA_ARGS__)
#define TRANSIT_NUMBER(...) NUMBER(keys.vault.transit, __VA_ARGS__)
#define SWEEP_NUMBER(...) NUMBER(sweep, __VA_ARGS__)
#define AMQP_NUMBER(...) NUMBER(amqp, __VA_ARGS__)
#define GUARD_NUMBER(...) NUMBER(sweep.guard, __VA_ARGS__)
#define DEAD_LETTER_NUMBER(...) NUMBER(sweep.dead_letters, __VA_ARGS__)
#define VERIFY_NUMBER(...) NUMBER(verify, __VA_ARGS__)
#define LOG_NUMBER(...) NUMBER(log, __VA_ARGS__)
#define ADMIN_NUMBER(...) NUMBER(admin, __VA_ARGS__)
#define LISTENER_NUMBER(...) NUMBER(listener, __VA_ARGS__)

const struct rk_config_number rk_config_numbers[] = {
    UPSTREAM_NUMBERS(UPSTREAM_NUMBER) LIMIT_NUMBERS(LIMIT_NUMBER)
        COMPRESSION_NUMBERS(COMPRESSION_NUMBER) KEY_NUMBERS(KEY_NUMBER) VAULT_NUMBERS(VAULT_NUMBER)
            TRANSIT_NUMBERS(TRANSIT_NUMBER) SWEEP_NUMBERS(SWEEP_NUMBER) GUARD_NUMBERS(GUARD_NUMBER)
                DEAD_LETTER_NUMBERS(DEAD_LETTER_NUMBER) VERIFY_NUMBERS(VERIFY_NUMBER)
                    LOG_NUMBERS(LOG_NUMBER) LISTENER_NUMBERS(LISTENER_NUMBER)
                        ADMIN_NUMBERS(ADMIN_NUMBER) AMQP_NUMBERS(AMQP_NUMBER)};
const size_t rk_config_numbers_count = CYAML_ARRAY_LEN(rk_config_numbers);

const struct rk_config_switch rk_config_switches[] = {
    {"upstream.tls.enabled", offsetof(struct rk_config, upstream.tls.enabled), false},
    {"upstream.tls.verify", offsetof(struct rk_config, upstream.tls.verify), true},
    {"listener_tls.enabled", offsetof(struct rk_config, listener_tls.enabled), false},
    {"listener.proxy_protocol", offsetof(struct rk_config, listener.proxy_required), false},
    {"listener_tls.verify", offsetof(struct rk_config, listener_tls.verify), false},
    {"amqp.tls.enabled", offsetof(struct rk_config, amqp.tls.enabled), false},
    {"amqp.tls.verify", offsetof(struct rk_config, amqp.tls.verify), true},
    {"admin.tls.enabled", offsetof(struct rk_config, admin.tls.enabled), false},
    {"admin.tls.verify", offsetof(struct rk_config, admin.tls.verify), false},
    {"keys.create_first_key", offsetof(struct rk_config, keys.create_first_key), true},
    {"keys.create_tenant_keys", offsetof(struct rk_config, keys.create_tenant_keys), true},
    {"keys.start_degraded", offsetof(struct rk_config, keys.start_degraded), false},
    {"keys.vault.trim", offsetof(struct rk_config, keys.vault.trim), true},
    {"sweep.pause", offsetof(struct rk_config, sweep.pause), false},
    {"sweep.transactions", offsetof(struct rk_config, sweep.transactions), true},
};
const size_t rk_config_switches_count = CYAML_ARRAY_LEN(rk_config_switches);

const char *rk_config_sweep_word(const char *key, uint32_t value)
{
    for (const cyaml_schema_field_t *f = sweep_fields; f->key != NULL; f++) {
        if (strcmp(f->key, key) != 0 || f->value.type != CYAML_ENUM) {
            continue;
        }
        for (uint32_t i = 0; i < f->value.enumeration.count; i++) {
            if (f->value.enumeration.strings[i].val == (int64_t)value) {
                return f->value.enumeration.strings[i].str;
            }
        }
    }
    return "";
}
