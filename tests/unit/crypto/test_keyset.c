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

static void test_order(void **state)
{
    (void)state;
    static const uint32_t ids[] = {3, 9, 1, 4, 7};
    static const uint32_t expect[] = {4, 9, 7, 3, 1};
    static const uint32_t expect_none[] = {9, 7, 4, 3, 1};
    struct rk_data_key *keys[5];
    struct rk_keyset *set = NULL;
    struct rk_keyset *none = NULL;
    for (size_t i = 0; i < 5; i++) {
        keys[i] = new_key(ids[i]);
    }
    assert_int_equal(rk_keyset_new(keys, 5, 4, NULL, 0, &set, NULL), RK_OK);
    assert_int_equal(rk_keyset_new(keys, 5, 0, NULL, 0, &none, NULL), RK_OK);
    for (size_t i = 0; i < 5; i++) {
        rk_data_key_unref(keys[i]);
    }
    assert_int_equal(rk_keyset_count(set), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(rk_data_key_id(rk_keyset_at(set, i)), expect[i]);
        assert_int_equal(rk_data_key_id(rk_keyset_at(none, i)), expect_none[i]);
        assert_int_equal(rk_data_key_id(rk_keyset_find(set, ids[i])), ids[i]);
    }
    assert_null(rk_keyset_find(set, 2));
    assert_null(rk_keyset_find(set, 0));
    assert_int_equal(rk_keyset_missing(set), 0);
    rk_keyset_set_missing(set, 2);
    assert_int_equal(rk_keyset_missing(set), 2);
    assert_int_equal(rk_data_key_id(rk_keyset_current(set)), 4);
    assert_null(rk_keyset_current(none));
    rk_keyset_unref(none);
    rk_keyset_unref(rk_keyset_ref(set));
    assert_int_equal(rk_data_key_id(rk_keyset_current(set)), 4);
    rk_keyset_unref(set);
}

static void test_empty(void **state)
{
    (void)state;
    struct rk_keyset *set = NULL;
    assert_int_equal(rk_keyset_new(NULL, 0, 0, NULL, 0, &set, NULL), RK_OK);
    assert_int_equal(rk_keyset_count(set), 0);
    assert_null(rk_keyset_current(set));
    assert_null(rk_keyset_find(set, 1));
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
    assert_int_equal(rk_keyset_new(NULL, 0, 0, legacy, 2, &set, NULL), RK_OK);
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
    struct rk_data_key *keys[] = {new_key(1), new_key(2), new_key(1)};
    struct rk_keyset *set = NULL;
    struct rk_error err;
    assert_int_equal(rk_keyset_new(keys, 3, 1, NULL, 0, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "data key 1"));
    assert_int_equal(rk_keyset_new(keys, 2, 3, NULL, 0, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "current data key 3"));
    assert_int_equal(rk_keyset_new(keys, 2, 1, legacy, 3, &set, &err), RK_EINVAL);
    assert_non_null(strstr(err.message, "\"a\""));
    assert_null(set);
    for (size_t i = 0; i < 3; i++) {
        rk_data_key_unref(keys[i]);
    }
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
    assert_int_equal(rk_keyset_new(keys, n, 1, legacy, 2, &set, &err), RK_OK);
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
        cmocka_unit_test(test_order),       cmocka_unit_test(test_empty),
        cmocka_unit_test(test_legacy),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_secure_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
