/* What rekey.yaml means: defaults, settings, policies, environment, reloading. */
#include "fixture.h"

#include "../../../src/config/config_internal.h"

static void same_text(const char *a, const char *b)
{
    if (a == NULL || b == NULL) {
        assert_true(a == b);
    } else {
        assert_string_equal(a, b);
    }
}

static void same_tls(const struct rk_config_tls *a, const struct rk_config_tls *b)
{
    assert_int_equal(a->enabled, b->enabled);
    assert_int_equal(a->verify, b->verify);
    same_text(a->ca_file, b->ca_file);
    same_text(a->cert_file, b->cert_file);
    same_text(a->key_file, b->key_file);
}

static void test_documented_defaults_are_the_compiled_ones(void **state)
{
    (void)state;
    struct rk_config *a = load_from_repository("conf/rekey.yaml");
    struct rk_config *b = load(UPSTREAM);
    same_tls(&a->upstream.tls, &b->upstream.tls);
    same_tls(&a->listener_tls, &b->listener_tls);
    same_tls(&a->admin.tls, &b->admin.tls);
    same_text(a->admin.address, b->admin.address);
    same_text(a->admin.token_file, b->admin.token_file);
    assert_int_equal(a->admin.connections_max, b->admin.connections_max);
    assert_int_equal(a->admin.request_bytes_max, b->admin.request_bytes_max);
    assert_int_equal(a->admin.request_timeout_ms, b->admin.request_timeout_ms);
    same_text(a->upstream.state_db, b->upstream.state_db);
    assert_int_equal(a->upstream.topology, b->upstream.topology);
    assert_int_equal(a->upstream.resolve_interval_ms, b->upstream.resolve_interval_ms);
    assert_int_equal(a->upstream.monitor_interval_ms, b->upstream.monitor_interval_ms);
    assert_int_equal(a->upstream.latency_window_ms, b->upstream.latency_window_ms);
    /* All members of these are 32 bits wide, so that they can be compared as memory. */
    assert_memory_equal(&a->limits, &b->limits, sizeof a->limits);
    assert_int_equal(a->compression.client_count, 3);
    assert_int_equal(a->compression.upstream_count, 3);
    assert_memory_equal(&a->compression, &b->compression, sizeof a->compression);
    assert_memory_equal(&a->sweep.dead_letters, &b->sweep.dead_letters,
                        sizeof a->sweep.dead_letters);
    assert_memory_equal(&a->verify, &b->verify, sizeof a->verify);
    assert_memory_equal(&a->sweep.guard, &b->sweep.guard, sizeof a->sweep.guard);
    assert_memory_equal(&a->sweep.max_rate, &b->sweep.max_rate,
                        offsetof(struct rk_config_sweep, guard) -
                            offsetof(struct rk_config_sweep, max_rate));
    assert_int_equal(a->sweep.pause, b->sweep.pause);
    assert_int_equal(a->sweep.window_count, b->sweep.window_count);
    assert_string_equal(a->sweep.time_zone, b->sweep.time_zone);
    assert_int_equal(a->sweep.read_preference, b->sweep.read_preference);
    assert_int_equal(a->sweep.transport, b->sweep.transport);
    same_tls(&a->amqp.tls, &b->amqp.tls);
    same_text(a->amqp.vhost, b->amqp.vhost);
    same_text(a->amqp.prefix, b->amqp.prefix);
    assert_memory_equal(&a->amqp.prefetch, &b->amqp.prefetch,
                        sizeof a->amqp - offsetof(struct rk_config_amqp, prefetch));
    assert_int_equal(a->keys.provider, b->keys.provider);
    same_text(a->keys.vault.transit_mount, b->keys.vault.transit_mount);
    same_text(a->keys.vault.key, b->keys.vault.key);
    same_text(a->keys.vault.auth_mount, b->keys.vault.auth_mount);
    assert_int_equal(a->keys.vault.auth, b->keys.vault.auth);
    assert_memory_equal(&a->keys.vault.connect_timeout_ms, &b->keys.vault.connect_timeout_ms,
                        sizeof a->keys.vault -
                            offsetof(struct rk_config_vault, connect_timeout_ms));
    same_text(a->keys.keyring_file, b->keys.keyring_file);
    assert_int_equal(a->keys.refresh_interval_ms, b->keys.refresh_interval_ms);
    assert_int_equal(a->keys.negative_cache_ms, b->keys.negative_cache_ms);
    assert_int_equal(a->keys.instance_lease_ms, b->keys.instance_lease_ms);
    assert_int_equal(a->keys.cursor_grace_ms, b->keys.cursor_grace_ms);
    assert_int_equal(a->keys.rotate_after_days, b->keys.rotate_after_days);
    assert_int_equal(a->keys.rotate_after_encryptions, b->keys.rotate_after_encryptions);
    assert_int_equal(a->keys.encryption_lease, b->keys.encryption_lease);
    assert_int_equal(a->keys.write_settle_ms, b->keys.write_settle_ms);
    assert_int_equal(a->keys.vault.trim, b->keys.vault.trim);
    assert_int_equal(a->keys.create_first_key, b->keys.create_first_key);
    assert_int_equal(a->keys.start_degraded, b->keys.start_degraded);
    assert_string_equal(a->log.file, "-");
    assert_null(b->log.file);
    assert_int_equal(a->log.level, b->log.level);
    assert_int_equal(a->log.event_lines_per_s, b->log.event_lines_per_s);
    assert_int_equal(a->listener.socket_mode, b->listener.socket_mode);
    assert_int_equal(a->listener.proxy_required, b->listener.proxy_required);
    assert_int_equal(a->listener.proxy_header_bytes_max, b->listener.proxy_header_bytes_max);
    assert_true(rk_policy_set_empty(a->policies));
    assert_true(rk_policy_set_empty(b->policies));
    assert_int_equal(rk_policy_set_undecryptable(a->policies),
                     rk_policy_set_undecryptable(b->policies));
    rk_config_free(a);
    rk_config_free(b);
}

/* The text of a file of the repository; free() it. */
static char *read_from_repository(const char *name)
{
    char path[5000];
    char *text = calloc(1, 65536);
    assert_non_null(text);
    (void)snprintf(path, sizeof path, "%s/%s", repository, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_in_range(fread(text, 1, 65535, f), 1, 65534);
    (void)fclose(f);
    return text;
}

static void must_hold(const struct rk_config_source *source, const char *key)
{
    for (size_t i = 0; i < source->n_lines; i++) {
        if (strcmp(source->lines[i].key, key) == 0) {
            return;
        }
    }
    fail_msg("conf/rekey.yaml does not explain %s", key);
}

static void test_every_number_and_switch_is_documented(void **state)
{
    (void)state;
    struct rk_error err;
    struct rk_config_source source;
    char *text = read_from_repository("conf/rekey.yaml");
    assert_int_equal(rk_config_source_init(&source, "", text, strlen(text), &err), RK_OK);
    for (size_t i = 0; i < rk_config_numbers_count; i++) {
        must_hold(&source, rk_config_numbers[i].key);
    }
    for (size_t i = 0; i < rk_config_switches_count; i++) {
        must_hold(&source, rk_config_switches[i].key);
    }
    rk_config_source_deinit(&source);
    free(text);
}

/* Some of these have no default that could stand there: the example is a comment. */
static void test_every_other_setting_is_documented(void **state)
{
    (void)state;
    char names[] =
        "uri topology listeners read members address listen advertise enabled state_db ca_file "
        "cert_file key_file verify provider keyring_file mode file level on_undecryptable "
        "namespace fields path algorithm name legacy cipher encoding version_hex key type "
        "former_keys unreadable placeholder tenant accept_plaintext unique_index socket_access "
        "proxy_protocol proxy_networks vault addresses redirect_hosts transit_mount auth "
        "auth_mount role_id secret_id_file secret_id_env token_file field transport amqp vhost "
        "user password_file password_env prefix window time_zone read_preference";
    char *text = read_from_repository("conf/rekey.yaml");
    char *rest = NULL;
    for (char *name = strtok_r(names, " ", &rest); name != NULL;
         name = strtok_r(NULL, " ", &rest)) {
        char first[64];
        char other[64];
        (void)snprintf(first, sizeof first, "\n%s:", name);
        (void)snprintf(other, sizeof other, " %s:", name);
        if (strstr(text, first) == NULL && strstr(text, other) == NULL) {
            fail_msg("conf/rekey.yaml does not explain %s", name);
        }
    }
    free(text);
}

static void test_the_documented_policies_are_valid(void **state)
{
    (void)state;
    char *text = read_from_repository("conf/rekey.yaml");
    char *example = strstr(text, "\n# policies:\n");
    char *rest = NULL;
    assert_non_null(example);
    char file[8192] = UPSTREAM "keys: {keyring_file: k}\n";
    for (char *line = strtok_r(example, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#') {
            size_t used = strlen(file);
            (void)snprintf(file + used, sizeof file - used, "%s\n", line + 2);
        }
    }
    struct rk_config *c = load(file);
    assert_int_equal(rk_policy_set_count(c->policies), 1);
    assert_int_equal(rk_policy_set_at(c->policies, 0)->n_fields, 2);
    rk_config_free(c);
    free(text);
}

static void test_compressors(void **state)
{
    (void)state;
    struct rk_config *c = load(UPSTREAM "compression: {client: [zlib, snappy], upstream: []}\n");
    assert_int_equal(c->compression.client_count, 2);
    assert_int_equal(c->compression.client[0], RK_COMPRESSOR_ZLIB);
    assert_int_equal(c->compression.client[1], RK_COMPRESSOR_SNAPPY);
    assert_int_equal(c->compression.upstream_count, 0);
    assert_int_equal(c->compression.zlib_level, 1);
    rk_config_free(c);
    c = load(UPSTREAM "compression: {upstream: [zstd], zlib_level: 9}\n");
    assert_int_equal(c->compression.client_count, 3);
    assert_int_equal(c->compression.upstream_count, 1);
    assert_int_equal(c->compression.upstream[0], RK_COMPRESSOR_ZSTD);
    assert_int_equal(c->compression.zlib_level, 9);
    rk_config_free(c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct rk_config *c = load(UPSTREAM);
    assert_string_equal(c->path, FILE_NAME);
    assert_string_equal(c->upstream.uri, "mongodb://h/");
    assert_string_equal(c->upstream.state_db, "rekey");
    assert_int_equal(c->upstream.members_count, 0);
    assert_false(c->upstream.tls.enabled);
    assert_true(c->upstream.tls.verify);
    assert_false(c->listener_tls.verify);
    assert_int_equal(c->limits.workers, 0);
    assert_int_equal(c->limits.message_bytes_max, 48000000);
    assert_int_equal(c->limits.advertised_message_bytes_max, 33554432);
    assert_int_equal(c->limits.advertised_batch_docs_max, 2000);
    assert_int_equal(c->keys.provider, RK_CONFIG_KEYRING);
    assert_true(c->keys.create_first_key);
    assert_int_equal(c->sweep.batch_docs, 1000);
    assert_int_equal(c->sweep.guard.p99_limit_ms, 50);
    assert_int_equal(c->log.level, RK_LOG_INFO);
    assert_int_equal(rk_policy_set_undecryptable(c->policies), RK_UNDECRYPTABLE_ERROR);
    rk_config_free(c);
}

static void test_zero_and_false_are_not_mistaken_for_absent(void **state)
{
    (void)state;
    struct rk_config *c = load("upstream:\n"
                               "  uri: mongodb://h/\n"
                               "  tls: {verify: false}\n"
                               "keys: {create_first_key: no, negative_cache_ms: 0}\n"
                               "sweep: {pause: on, guard: {p99_limit_ms: 0, rate_min: 0}}\n"
                               "log: {level: debug}\n");
    assert_false(c->upstream.tls.verify);
    assert_false(c->keys.create_first_key);
    assert_int_equal(c->keys.negative_cache_ms, 0);
    assert_true(c->sweep.pause);
    assert_int_equal(c->sweep.guard.p99_limit_ms, 0);
    assert_int_equal(c->sweep.guard.rate_min, 0);
    assert_int_equal(c->log.level, RK_LOG_DEBUG);
    rk_config_free(c);
}

static void test_members_and_tls(void **state)
{
    (void)state;
    struct rk_config *c = load("upstream:\n"
                               "  uri: mongodb://h/?tls=true\n"
                               "  members:\n"
                               "  - {address: 'h:27017', listen: '127.0.0.1:1'}\n"
                               "  - {address: '[::1]:27017', listen: '0.0.0.0:65535',"
                               " advertise: 'proxy.example.net:27017'}\n"
                               "  tls: {enabled: true, ca_file: /ca.pem, cert_file: c.pem}\n"
                               "listener_tls: {enabled: yes, cert_file: s.pem, key_file: s.key}\n");
    assert_int_equal(c->upstream.members_count, 2);
    assert_string_equal(c->upstream.members[0].address, "h:27017");
    assert_string_equal(c->upstream.members[0].advertise, "127.0.0.1:1");
    assert_string_equal(c->upstream.members[1].address, "[::1]:27017");
    assert_string_equal(c->upstream.members[1].listen, "0.0.0.0:65535");
    assert_string_equal(c->upstream.members[1].advertise, "proxy.example.net:27017");
    assert_string_equal(c->upstream.tls.key_file, "c.pem");
    assert_string_equal(c->listener_tls.key_file, "s.key");
    assert_int_equal(rk_config_check_daemon(c, NULL), RK_OK);
    rk_config_free(c);
}

static void test_single(void **state)
{
    (void)state;
    struct rk_config *c = load("upstream:\n"
                               "  uri: mongodb://h,i/\n"
                               "  topology: single\n"
                               "  listeners:\n"
                               "  - {listen: '0.0.0.0:1', advertise: 'proxy:1'}\n"
                               "  - {listen: 'a:2', read: secondary}\n"
                               "  - {listen: /tmp/x.sock, read: secondaryPreferred}\n");
    unsigned n;
    const struct rk_config_member *listeners = rk_config_listeners(c, &n);
    assert_int_equal(c->upstream.topology, RK_CONFIG_SINGLE);
    assert_int_equal(n, 3);
    assert_null(listeners[0].address);
    assert_string_equal(listeners[0].advertise, "proxy:1");
    assert_int_equal(listeners[0].read, RK_CONFIG_READ_PRIMARY);
    assert_string_equal(listeners[1].advertise, "a:2");
    assert_int_equal(listeners[1].read, RK_CONFIG_READ_SECONDARY);
    assert_int_equal(listeners[2].read, RK_CONFIG_READ_SECONDARY_PREFERRED);
    rk_config_free(c);
}

static void test_relative_files_are_relative_to_the_configuration(void **state)
{
    (void)state;
    char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", dir, FILE_NAME);
    rk_config_free(load(UPSTREAM "keys: {keyring_file: sub/keyring}\n"
                                 "log: {file: /var/log/rekey.log}\n"
                                 "listener_tls: {cert_file: s.pem}\n"));
    struct rk_config *c = load_file(path);
    char expected[100];
    (void)snprintf(expected, sizeof expected, "%s/sub/keyring", dir);
    assert_string_equal(c->keys.keyring_file, expected);
    (void)snprintf(expected, sizeof expected, "%s/s.pem", dir);
    assert_string_equal(c->listener_tls.cert_file, expected);
    assert_string_equal(c->listener_tls.key_file, expected);
    assert_string_equal(c->log.file, "/var/log/rekey.log");
    rk_config_free(c);
}

static void test_policies(void **state)
{
    (void)state;
    struct rk_config *c = load(UPSTREAM "keys: {keyring_file: k}\n"
                                        "on_undecryptable: leave\n"
                                        "policies:\n"
                                        "- namespace: a.b\n"
                                        "  fields:\n"
                                        "  - path: x.y\n"
                                        "    algorithm: deterministic\n"
                                        "    legacy:\n"
                                        "    - {cipher: aes-256-cbc, encoding: base64,"
                                        " key: old, version_hex: 01fE}\n"
                                        "    - {cipher: aes-256-gcm, encoding: binary,"
                                        " key: older, type: binary}\n"
                                        "  - path: z\n"
                                        "- namespace: c.*\n"
                                        "  fields: [{path: w, name: logical}]\n");
    assert_int_equal(rk_policy_set_undecryptable(c->policies), RK_UNDECRYPTABLE_LEAVE);
    assert_int_equal(rk_policy_set_count(c->policies), 2);
    const struct rk_policy *p = rk_policy_find(c->policies, "a", 1, "b", 1);
    assert_non_null(p);
    assert_int_equal(p->n_fields, 2);
    assert_string_equal(p->fields[0].path, "x.y");
    assert_int_equal(p->fields[0].algorithm, RK_ALGORITHM_DETERMINISTIC);
    assert_int_equal(p->fields[0].n_legacy, 2);
    const struct rk_legacy_format *legacy = p->fields[0].legacy;
    assert_int_equal(legacy[0].cipher, RK_LEGACY_AES_256_CBC);
    assert_int_equal(legacy[0].encoding, RK_LEGACY_BASE64);
    assert_int_equal(legacy[0].prefix_len, 2);
    assert_memory_equal(legacy[0].prefix, "\x01\xFE", 2);
    assert_string_equal(legacy[0].key, "old");
    assert_int_equal(legacy[0].bson_type, 0x02);
    assert_int_equal(legacy[1].cipher, RK_LEGACY_AES_256_GCM);
    assert_int_equal(legacy[1].encoding, RK_LEGACY_BINARY);
    assert_int_equal(legacy[1].prefix_len, 0);
    assert_int_equal(legacy[1].bson_type, 0x05);
    assert_int_equal(p->fields[1].algorithm, RK_ALGORITHM_RANDOM);
    assert_non_null(rk_policy_find(c->policies, "c", 1, "any", 3));
    rk_config_free(c);
}

static void test_keys_of_policies(void **state)
{
    (void)state;
    struct rk_config *c = load(UPSTREAM "keys: {keyring_file: k}\n"
                                        "policies:\n"
                                        "- namespace: a.a\n"
                                        "  fields: [{path: x}, {path: y, key: own}]\n"
                                        "- namespace: a.b\n"
                                        "  key: b.k-1_\n"
                                        "  fields: [{path: x}, {path: y, key: own}]\n"
                                        "- namespace: a.c\n"
                                        "  key: b.k-1_\n"
                                        "  former_keys: []\n"
                                        "  fields: [{path: x}]\n"
                                        "- namespace: a.d\n"
                                        "  former_keys: [one, two]\n"
                                        "  fields: [{path: x, key: two}]\n");
    static const struct {
        const char *coll;
        size_t field;
        const char *key;
        size_t n_former;
        const char *former;
    } expected[] = {
        {"a", 0, "default", 0, NULL},     {"a", 1, "own", 1, "default"},
        {"b", 0, "b.k-1_", 1, "default"}, {"b", 1, "own", 1, "default"},
        {"c", 0, "b.k-1_", 0, NULL},      {"d", 0, "two", 1, "one"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct rk_policy *p = rk_policy_find(c->policies, "a", 1, expected[i].coll, 1);
        assert_non_null(p);
        const struct rk_field *field = &p->fields[expected[i].field];
        assert_string_equal(field->key, expected[i].key);
        assert_int_equal(field->n_former, expected[i].n_former);
        assert_true(field->n_former == 0 || strcmp(field->former[0], expected[i].former) == 0);
    }
    rk_config_free(c);
}

static void test_examples_load(void **state)
{
    (void)state;
    assert_int_equal(setenv("REKEY_PASSWORD", "p%40ss", 1), 0);
    struct rk_config *c = load_from_repository("conf/examples/tls.yaml");
    assert_non_null(strstr(c->upstream.uri, "://rekey:p%40ss@db1"));
    rk_config_free(c);
    c = load_from_repository("conf/examples/demo.yaml");
    assert_int_equal(c->upstream.members_count, 3);
    rk_config_free(c);
    c = load_from_repository("conf/examples/minimal.yaml");
    assert_int_equal(rk_config_check_daemon(c, NULL), RK_OK);
    rk_config_free(c);
    assert_int_equal(unsetenv("REKEY_PASSWORD"), 0);
}

static void test_environment(void **state)
{
    (void)state;
    assert_int_equal(setenv("RK_TEST_A", "user", 1), 0);
    assert_int_equal(setenv("RK_TEST_B", "pa$s", 1), 0);
    struct rk_config *c = load("upstream: {uri: 'mongodb://${RK_TEST_A}:${RK_TEST_B}@h$/{x}'}\n");
    assert_string_equal(c->upstream.uri, "mongodb://user:pa$s@h$/{x}");
    rk_config_free(c);
}

static void test_reload_names_what_needs_a_restart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *key; /* NULL: reloadable */
    } cases[] = {
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n", NULL},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nsweep: {pause: true, threads: 9}\n"
                 "log: {level: error}\nlimits: {connections_max: 5}\non_undecryptable: leave\n",
         NULL},
        {MEMBERS "  - {address: 'h:1', listen: 'a:2'}\n", NULL},
        {MEMBERS "  - {address: 'h:2', listen: 'a:1'}\n  - {address: 'h:1', listen: 'a:2'}\n",
         NULL},
        {"upstream:\n  uri: mongodb://h/\n  topology: single\n  listeners: [{listen: 'a:1'}]\n",
         "upstream.topology"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n  resolve_interval_ms: 500\n",
         "upstream.resolve_interval_ms"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n  state_db: x\n", "upstream.state_db"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n  tls: {enabled: true}\n", "upstream.tls"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nlistener_tls: {ca_file: x}\n",
         "listener_tls"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nadmin: {address: '127.0.0.1:9'}\n", "admin"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nlimits: {workers: 3}\n", "limits.workers"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nlimits: {listen_backlog: 3}\n",
         "limits.listen_backlog"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nkeys: {negative_cache_ms: 3}\n", "keys"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nkeys: {vault: {mode: transit}}\n", "keys"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nkeys: {vault: {trim: false}}\n", "keys"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n"
                 "keys: {vault: {transit: {coalesce_us: 3}}}\n",
         "keys"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\nlog: {file: x}\n", "log.file"},
    };
    struct rk_config *now = load(cases[0].text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_config *next = load(cases[i].text);
        const char *key = NULL;
        assert_int_equal(rk_config_reloadable(now, next, &key), cases[i].key == NULL);
        same_text(key, cases[i].key);
        rk_config_free(next);
    }
    rk_config_free(now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documented_defaults_are_the_compiled_ones),
        cmocka_unit_test(test_every_number_and_switch_is_documented),
        cmocka_unit_test(test_every_other_setting_is_documented),
        cmocka_unit_test(test_the_documented_policies_are_valid),
        cmocka_unit_test(test_compressors),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_zero_and_false_are_not_mistaken_for_absent),
        cmocka_unit_test(test_members_and_tls),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_relative_files_are_relative_to_the_configuration),
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_keys_of_policies),
        cmocka_unit_test(test_examples_load),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_reload_names_what_needs_a_restart),
    };
    return RUN_IN_DIRECTORY(tests);
}
