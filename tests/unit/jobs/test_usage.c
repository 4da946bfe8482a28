#include <rekey/bson/rewrite.h>
#include <rekey/crypto/envelope.h>
#include <rekey/jobs/usage.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define KEY_ID_AT 8u

static struct rk_buf doc;
static struct rk_bson_writer w;
static struct rk_usage usage;

static int set_up(void **state)
{
    (void)state;
    rk_buf_init(&doc, 1u << 20);
    rk_bson_writer_init(&w, &doc);
    rk_bson_begin(&w);
    usage = (struct rk_usage){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rk_usage_deinit(&usage);
    rk_buf_deinit(&doc);
    return 0;
}

/* An envelope of a version under key id, cut to len bytes. */
static void put(const char *name, uint8_t version, uint32_t id, uint32_t len)
{
    uint8_t value[5 + 64] = {0, 0, 0, 0, RK_ENVELOPE_SUBTYPE, 'R', 'K', 0xE1, 0x1E};
    rk_store_u32(value, len);
    value[5 + 4] = version;
    value[5 + 5] = RK_ALGORITHM_RANDOM;
    rk_store_be32(value + 5 + KEY_ID_AT, id);
    rk_bson_put(&w, RK_BSON_BINARY, name, strlen(name), value, 5 + len);
}

static void count(void)
{
    struct rk_bson_view view;
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    assert_true(rk_bson_view_init(&view, doc.data, doc.len));
    assert_int_equal(rk_usage_add(&usage, &view), RK_OK);
}

static void test_wherever_it_stands(void **state)
{
    (void)state;
    put("a", RK_ENVELOPE_VERSION, 7, 64);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "b", 1);
    put("c", RK_ENVELOPE_VERSION, 3, 64);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "d", 1);
    put("0", RK_ENVELOPE_VERSION, 7, 64);
    put("1", RK_ENVELOPE_VERSION, UINT32_MAX, 64);
    rk_bson_end(&w);
    rk_bson_end(&w);
    /* code with scope: total 4 | code's length 4 | "" | {x: envelope of 20 bytes} */
    uint8_t scope[4 + 4 + 1 + 4 + 3 + 5 + 20 + 1] = {0};
    rk_store_u32(scope, sizeof scope);
    rk_store_u32(scope + 4, 1);
    rk_store_u32(scope + 9, sizeof scope - 9);
    scope[13] = RK_BSON_BINARY;
    scope[14] = 'x';
    rk_store_u32(scope + 16, 20);
    memcpy(scope + 20, (uint8_t[]){RK_ENVELOPE_SUBTYPE, 'R', 'K', 0xE1, 0x1E, RK_ENVELOPE_VERSION},
           6);
    scope[21 + KEY_ID_AT + 3] = 9;
    rk_bson_put(&w, RK_BSON_CODEWSCOPE, "e", 1, scope, sizeof scope);
    count();
    assert_int_equal(usage.n, 4);
    assert_int_equal(rk_usage_of(&usage, 3), 1);
    assert_int_equal(rk_usage_of(&usage, 7), 2);
    assert_int_equal(rk_usage_of(&usage, 9), 1);
    assert_int_equal(rk_usage_of(&usage, UINT32_MAX), 1);
    assert_int_equal(rk_usage_of(&usage, 8), 0);
    for (size_t i = 1; i < usage.n; i++) {
        assert_true(usage.keys[i - 1].id < usage.keys[i].id);
    }
}

static void test_damaged_envelopes_need_the_key_that_they_name(void **state)
{
    (void)state;
    put("short", RK_ENVELOPE_VERSION, 5, KEY_ID_AT + 4);
    put("shorter", RK_ENVELOPE_VERSION, 5, KEY_ID_AT + 3);
    put("shortest", RK_ENVELOPE_VERSION, 5, 4);
    put("none", RK_ENVELOPE_VERSION, 0, 64);
    count();
    assert_int_equal(usage.n, 1);
    assert_int_equal(rk_usage_of(&usage, 5), 1);
}

static void test_unknown_versions_may_need_any_key(void **state)
{
    (void)state;
    put("later", RK_ENVELOPE_VERSION + 1, 5, 64);
    put("shortest", RK_ENVELOPE_VERSION + 1, 5, 5);
    count();
    assert_int_equal(rk_usage_of(&usage, RK_USAGE_ANY), 2);
    assert_int_equal(rk_usage_of(&usage, 5), 0);
}

static void test_other_binaries_do_not_count(void **state)
{
    (void)state;
    uint8_t value[5 + 64] = {64, 0, 0, 0, 0, 'R', 'K', 0xE1, 0x1E, RK_ENVELOPE_VERSION, 1, 2, 0, 5};
    rk_bson_put(&w, RK_BSON_BINARY, "subtype", 7, value, sizeof value);
    value[4] = RK_ENVELOPE_SUBTYPE;
    value[5] = 'r';
    rk_bson_put(&w, RK_BSON_BINARY, "magic", 5, value, sizeof value);
    count();
    assert_int_equal(usage.n, 0);
}

static void test_many_keys(void **state)
{
    (void)state;
    for (uint32_t i = 1000; i > 0; i--) {
        assert_int_equal(rk_usage_add_key(&usage, (i * 7919u) % 1009u + 1, i), RK_OK);
    }
    assert_int_equal(usage.n, 1000);
    for (uint32_t i = 1000; i > 0; i--) {
        assert_int_equal(rk_usage_of(&usage, (i * 7919u) % 1009u + 1), i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wherever_it_stands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_envelopes_need_the_key_that_they_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_versions_may_need_any_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_binaries_do_not_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_keys, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
