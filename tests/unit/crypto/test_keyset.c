/* Keysets: order, look-up, refusals, with and without a secure heap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/crypto.h>
#include <rekey/crypto/keyset.h>
#include <string.h>

static struct rk_data_key *new_key(uint32_t id)
{
    uint8_t root[RK_DATA_KEY_LEN] = {(uint8_t)id};
    struct rk_data_key *key = NULL;
    assert_int_equal(rk_data_key_new(id, root, 0, &key, NULL), RK_OK);
    return key;
}

static struct rk_keyset_key known(uint32_t id, enum rk_key_role role, const char *name)
{
    return (struct rk_keyset_key){id, role, name, new_key(id)};
}

static void unref_all(const struct rk_keyset_key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rk_data_key_unref(keys[i].key);
    }
}

static void assert_versions(const struct rk_keyset *set, const char *name, const uint32_t *ids,
                            size_t n)
{
    const struct rk_key_versions versions = rk_keyset_versions(set, name);
    assert_int_equal(versions.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rk_data_key_id(versions.keys[i]), ids[i]);
    }
}

/* Of each name the current key first, the others by falling id, wherever they stood. */
static void test_order(void **state)
{
    (void)state;
    char name[] = "people";
    const struct rk_keyset_key keys[] = {
        known(3, RK_KEY_READS, "default"),     known(9, RK_KEY_UNUSED, "default"),
        known(5, RK_KEY_READS, name),          known(4, RK_KEY_WRITES, "default"),
        known(8, RK_KEY_WRITES, name),         known(1, RK_KEY_READS, "default"),
        known(2, RK_KEY_READS, "people:acme"),
    };
    struct rk_keyset *set = NULL;
    assert_int_equal(rk_keyset_new(keys, 7, NULL, 0, &set, NULL), RK_OK);
    unref_all(keys, 7);
    memset(name, 'x', sizeof name - 1);
    assert_versions(set, "default", (const uint32_t[]){4, 9, 3, 1}, 4);
    assert_versions(set, "people", (const uint32_t[]){8, 5}, 2);
    assert_versions(set, "people:acme", (const uint32_t[]){2}, 1);
    assert_versions(set, "peopl", NULL, 0);
    assert_versions(set, "people:", NULL, 0);
    assert_int_equal(rk_data_key_id(rk_keyset_current(set, "default")), 4);
    assert_int_equal(rk_data_key_id(rk_keyset_current(set, "people")), 8);
    assert_null(rk_keyset_current(set, "people:acme"));
    assert_null(rk_keyset_current(set, "other"));
    for (uint32_t id = 1; id <= 9; id++) {
        const struct rk_data_key *key = rk_keyset_find(set, id);
        assert_int_equal(key != NULL, id != 6 && id != 7);
        assert_true(key == NULL || rk_data_key_id(key) == id);
    }
    assert_null(rk_keyset_find(set, 0));
    assert_int_equal(rk_keyset_newest(set), 9);
    assert_string_equal(rk_keyset_known(set, 8)->name, "people");
    rk_keyset_unref(rk_keyset_ref(set));
    assert_int_equal(rk_data_key_id(rk_keyset_current(set, "default")), 4);
    rk_keyset_unref(set);
}

/* Keys that are known and not loaded: missing where values may lie under them. */
static void test_not_loaded(void **state)
{
    (void)state;
    struct rk_data_key *gone = new_key(7);
    const struct rk_keyset_key keys[] = {
        {1, RK_KEY_READS, "a", NULL}, known(2, RK_KEY_WRITES, "a"),  {3, RK_KEY_WRITES, "b", NULL},
        known(4, RK_KEY_READS, "b"),  {5, RK_KEY_UNUSED, "c", NULL}, known(6, RK_KEY_WRITES, "c"),
        {7, RK_KEY_GONE, "c", gone},
    };
    struct rk_keyset *set = NULL;
    assert_int_equal(rk_keyset_new(keys, 7, NULL, 0, &set, NULL), RK_OK);
    unref_all(keys, 7);
    assert_int_equal(rk_keyset_versions(set, "a").missing_id, 1);
    assert_int_equal(rk_data_key_id(rk_keyset_current(set, "a")), 2);
    assert_int_equal(rk_keyset_versions(set, "b").missing_id, 3);
    assert_null(rk_keyset_current(set, "b"));
    assert_versions(set, "b", (const uint32_t[]){4}, 1);
    assert_int_equal(rk_keyset_versions(set, "c").missing_id, 0);
    assert_versions(set, "c", (const uint32_t[]){6}, 1);
    assert_null(rk_keyset_find(set, 7));
    assert_int_equal(rk_keyset_known(set, 7)->role, RK_KEY_GONE);
    assert_null(rk_keyset_find(set, 5));
    assert_int_equal(rk_keyset_known(set, 5)->role, RK_KEY_UNUSED);
    assert_null(rk_keyset_known(set, 8));
    rk_keyset_unref(set);
}

static void test_empty(void **state)
{
    (void)state;
    struct rk_keyset *set = NULL;
    assert_int_equal(rk_keyset_new(NULL, 0, NULL, 0, &set, NULL), RK_OK);
    assert_versions(set, "default", NULL, 0);
    assert_null(rk_keyset_current(set, "default"));
    assert_null(rk_keyset_find(set, 1));
    assert_int_equal(rk_keyset_newest(set), 0);
    assert_null(rk_keyset_legacy(set, "a"));
    rk_keyset_unref(set);
    rk_keyset_unref(NULL);
}

/* Names and key bytes are copies: the caller's may go. */
static void test_legacy(void **state)
{
    (void)state;
    char name[] = "crm-2019";
    uint8_t first[32];
    uint8_t second[32];
    uint8_t kept[32];
    memset(first, 1, sizeof first);
    memset(second, 2, sizeof second);
    memset(kept, 1, sizeof kept);
    struct rk_legacy_key legacy[] = {{name, first}, {"other", second}};
    struct rk_keyset *set = NULL;
    assert_int_equal(rk_keyset_new(NULL, 0, legacy, 2, &set, NULL), RK_OK);
    memset(name, 'x', sizeof name - 1);
    memset(first, 0, sizeof first);
    assert_memory_equal(rk_keyset_legacy(set, "crm-2019"), kept, sizeof kept);
    assert_memory_equal(rk_keyset_legacy(set, "other"), second, sizeof second);
    assert_null(rk_keyset_legacy(set, "crm"));
    rk_keyset_unref(set);
}

static void test_refused(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    struct rk_legacy_key legacy[] = {{"a", bytes}, {"b", bytes}, {"a", bytes}};
    const struct rk_keyset_key keys[] = {known(1, RK_KEY_WRITES, "x"), known(2, RK_KEY_READS, "x"),
                                         known(1, RK_KEY_READS, "y"), known(3, RK_KEY_WRITES, "x")};
    struct rk_keyset *set = NULL;
    struct rk_error err;
    assert_int_equal(rk_keyset_new(keys, 3, NULL, 0, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "data key 1"));
    const struct rk_keyset_key two[] = {keys[0], keys[1], keys[3]};
    assert_int_equal(rk_keyset_new(two, 3, NULL, 0, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "another current key"));
    assert_int_equal(rk_keyset_new(keys, 2, legacy, 3, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "\"a\""));
    assert_null(set);
    unref_all(keys, 4);
}

/* A full secure heap is an error, never a key outside it; freeing gives the room back. */
static void test_secure_heap(void **state)
{
    (void)state;
    enum { KEYS = 64 };
    struct rk_data_key *keys[KEYS];
    uint8_t root[RK_DATA_KEY_LEN] = {0};
    struct rk_error err;
    size_t n = 0;
    assert_true(CRYPTO_secure_malloc_init(4096, 32) != 0);
    enum rk_status status = RK_OK;
    while (n < KEYS && status == RK_OK) {
        status = rk_data_key_new((uint32_t)n + 1, root, 0, &keys[n], &err);
        n += status == RK_OK;
    }
    assert_int_equal(status, RK_ENOMEM);
    assert_true(n > 0 && CRYPTO_secure_allocated(keys[0]));

    struct rk_legacy_key legacy[2];
    static const char *names[] = {"a", "b"};
    for (size_t i = 0; i < 2; i++) {
        legacy[i] = (struct rk_legacy_key){names[i], root};
    }
    rk_data_key_unref(keys[--n]);
    struct rk_keyset *set = NULL;
    struct rk_keyset_key listed[KEYS];
    for (size_t i = 0; i < n; i++) {
        listed[i] = (struct rk_keyset_key){(uint32_t)i + 1, RK_KEY_READS, "x", keys[i]};
    }
    assert_int_equal(rk_keyset_new(listed, n, legacy, 2, &set, &err), RK_OK);
    assert_true(CRYPTO_secure_allocated(rk_keyset_legacy(set, "b")));
    rk_keyset_unref(set);
    while (n > 0) {
        rk_data_key_unref(keys[--n]);
    }
    assert_int_equal(CRYPTO_secure_used(), 0);
    assert_int_equal(CRYPTO_secure_malloc_done(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),   cmocka_unit_test(test_not_loaded),
        cmocka_unit_test(test_empty),   cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_secure_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
