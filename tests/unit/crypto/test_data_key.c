/* Derivation against an independent HKDF and AES (Python's cryptography), and sharing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hex.h"

#include <pthread.h>
#include <rekey/crypto/data_key.h>

static void test_derivation(void **state)
{
    (void)state;
    uint8_t root[RK_DATA_KEY_LEN];
    uint8_t xaes[RK_XAES_KEY_LEN];
    uint8_t siv[RK_SIV_KEY_LEN];
    uint8_t k1[16];
    for (size_t i = 0; i < sizeof root; i++) {
        root[i] = (uint8_t)i;
    }
    unhex("a27ea4fb1a1b95148060d4a2412423341ea9cb91edc7dbe16d057e00c10ccd82", xaes, sizeof xaes);
    unhex("89a033e7291195827718335aba500c6c7a2682a16b18f67912168b50b08997a3"
          "b383edd3ff2f263ac50be620dcdc13ecc5f27bc7e503bc79663dbeca00af3320",
          siv, sizeof siv);
    unhex("1950441de7dec4cb8648bbd8a930ebb3", k1, sizeof k1);

    struct rk_data_key *key = NULL;
    assert_int_equal(rk_data_key_new(0xFFFFFFFFu, root, 1700000000u, &key, NULL), RK_OK);
    assert_int_equal(rk_data_key_id(key), 0xFFFFFFFFu);
    assert_int_equal(rk_data_key_activated_at_s(key), 1700000000u);
    assert_memory_equal(rk_data_key_xaes(key), xaes, sizeof xaes);
    assert_memory_equal(rk_data_key_siv(key), siv, sizeof siv);
    assert_memory_equal(rk_data_key_xaes_k1(key), k1, sizeof k1);
    rk_data_key_unref(key);
}

static void test_id_zero(void **state)
{
    (void)state;
    uint8_t root[RK_DATA_KEY_LEN] = {0};
    struct rk_data_key *key = NULL;
    struct rk_error err;
    assert_int_equal(rk_data_key_new(0, root, 0, &key, &err), RK_EINVAL);
    assert_null(key);
    assert_int_equal(err.status, RK_EINVAL);
    rk_data_key_unref(NULL);
}

static void *hold_and_release(void *arg)
{
    for (int i = 0; i < 10000; i++) {
        struct rk_data_key *key = rk_data_key_ref(arg);
        if (rk_data_key_id(key) != 5) {
            return arg;
        }
        rk_data_key_unref(key);
    }
    rk_data_key_unref(arg);
    return NULL;
}

/* The last of several threads frees; ThreadSanitizer and LeakSanitizer judge. */
static void test_shared_by_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    uint8_t root[RK_DATA_KEY_LEN] = {0};
    struct rk_data_key *key = NULL;
    assert_int_equal(rk_data_key_new(5, root, 0, &key, NULL), RK_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_release, rk_data_key_ref(key)),
                         0);
    }
    rk_data_key_unref(key);
    for (size_t i = 0; i < 4; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivation),
        cmocka_unit_test(test_id_zero),
        cmocka_unit_test(test_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
