/* The allocators of libcurl and jansson leave nothing behind. */
#include "../../../src/vault/wipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_realloc_keeps_the_content(void **state)
{
    (void)state;
    char *text = rk_wipe_strdup("0123456789");
    text = rk_wipe_realloc(text, 100000);
    assert_string_equal(text, "0123456789");
    text = rk_wipe_realloc(text, 4);
    assert_memory_equal(text, "0123", 4);
    rk_wipe_free(text);
    void *fresh = rk_wipe_realloc(NULL, 8);
    assert_non_null(fresh);
    rk_wipe_free(fresh);
    rk_wipe_free(NULL);
}

static void test_calloc_is_zeroed(void **state)
{
    static const uint8_t zero[64];
    (void)state;
    uint8_t *memory = rk_wipe_calloc(4, 16);
    assert_memory_equal(memory, zero, sizeof zero);
    rk_wipe_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_realloc_keeps_the_content),
        cmocka_unit_test(test_calloc_is_zeroed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
