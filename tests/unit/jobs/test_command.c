/* What a reply says of the statements of a write. */
#include "../../../src/jobs/command_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PRIMARY_STEPPED_DOWN 189
#define FAILED_VALIDATION 121

static struct rk_error err;

/* Takes the reply. */
static enum rk_status check(bson_t *reply)
{
    err = (struct rk_error){0};
    enum rk_status status = rk_reply_check_writes(reply, "a range", &err);
    bson_destroy(reply);
    return status;
}

static bson_t *with_errors(const int32_t *codes, size_t n)
{
    bson_t errors = BSON_INITIALIZER;
    for (size_t i = 0; i < n; i++) {
        bson_t *one = BCON_NEW("index", BCON_INT32((int32_t)i), "code", BCON_INT32(codes[i]),
                               "errmsg", BCON_UTF8("of a plaintext"));
        char buf[16];
        const char *key;
        bson_uint32_to_string((uint32_t)i, &key, buf, sizeof buf);
        BSON_APPEND_DOCUMENT(&errors, key, one);
        bson_destroy(one);
    }
    bson_t *reply =
        BCON_NEW("n", BCON_INT32(0), "writeErrors", BCON_ARRAY(&errors), "ok", BCON_DOUBLE(1));
    bson_destroy(&errors);
    return reply;
}

static void test_all_is_well(void **state)
{
    (void)state;
    assert_int_equal(check(BCON_NEW("n", BCON_INT32(1), "ok", BCON_DOUBLE(1))), RK_OK);
    assert_int_equal(check(with_errors(NULL, 0)), RK_OK);
    assert_int_equal(err.status, RK_OK);
}

/* As a mongos passes on what a shard says in the middle of an election. */
static void test_an_election_of_a_shard_passes(void **state)
{
    (void)state;
    assert_int_equal(check(with_errors((int32_t[]){PRIMARY_STEPPED_DOWN}, 1)), RK_EIO);
    assert_int_equal(err.code, PRIMARY_STEPPED_DOWN);
    assert_string_equal(err.message, "mongod refused a range (code 189)");
}

static void test_a_refusal_stays(void **state)
{
    (void)state;
    assert_int_equal(check(with_errors((int32_t[]){FAILED_VALIDATION}, 1)), RK_EREFUSED);
    assert_int_equal(err.code, FAILED_VALIDATION);
    assert_null(strstr(err.message, "plaintext"));
    assert_false(rk_is_duplicate(RK_EREFUSED, &err));
}

static void test_duplicate_keys_alone_are_known(void **state)
{
    (void)state;
    const int32_t twice[] = {RK_MONGO_DUPLICATE_KEY, RK_MONGO_DUPLICATE_KEY};
    assert_true(rk_is_duplicate(check(with_errors(twice, 1)), &err));
    assert_true(rk_is_duplicate(check(with_errors(twice, 2)), &err));
    assert_false(rk_is_duplicate(RK_OK, &err));
}

/* Unordered statements fail each for itself. */
static void test_a_duplicate_key_hides_nothing(void **state)
{
    (void)state;
    const int32_t before[] = {RK_MONGO_DUPLICATE_KEY, PRIMARY_STEPPED_DOWN};
    const int32_t after[] = {PRIMARY_STEPPED_DOWN, RK_MONGO_DUPLICATE_KEY};
    const int32_t refused[] = {RK_MONGO_DUPLICATE_KEY, FAILED_VALIDATION};
    assert_int_equal(check(with_errors(before, 2)), RK_EIO);
    assert_int_equal(check(with_errors(after, 2)), RK_EIO);
    assert_false(rk_is_duplicate(check(with_errors(refused, 2)), &err));
}

static void test_what_is_malformed_is_no_success(void **state)
{
    (void)state;
    assert_int_equal(check(BCON_NEW("writeErrors", BCON_INT32(0), "ok", BCON_DOUBLE(1))), RK_EIO);
    assert_int_equal(check(BCON_NEW("writeErrors", "[", BCON_UTF8("no"), "]")), RK_EREFUSED);
    assert_int_equal(check(BCON_NEW("writeErrors", "[", "{", "code", BCON_UTF8("x"), "}", "]")),
                     RK_EREFUSED);
}

static void test_nobody_asks_why(void **state)
{
    (void)state;
    bson_t *reply = with_errors((int32_t[]){RK_MONGO_DUPLICATE_KEY, PRIMARY_STEPPED_DOWN}, 2);
    assert_int_equal(rk_reply_check_writes(reply, "a range", NULL), RK_EIO);
    bson_destroy(reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_well),
        cmocka_unit_test(test_an_election_of_a_shard_passes),
        cmocka_unit_test(test_a_refusal_stays),
        cmocka_unit_test(test_duplicate_keys_alone_are_known),
        cmocka_unit_test(test_a_duplicate_key_hides_nothing),
        cmocka_unit_test(test_what_is_malformed_is_no_success),
        cmocka_unit_test(test_nobody_asks_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
