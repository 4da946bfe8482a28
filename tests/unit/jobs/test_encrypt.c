#include "transform_fixture.h"

static int set_up(void **state)
{
    (void)state;
    const struct rk_field_spec fields[] = {
        {.path = "answer",
         .algorithm = RK_ALGORITHM_RANDOM,
         .legacy = &legacy_format,
         .n_legacy = 1},
        {.path = "code", .algorithm = RK_ALGORITHM_DETERMINISTIC, .bson_type = RK_BSON_STRING},
        {.path = "contacts.phone", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "secret", .algorithm = RK_ALGORITHM_RANDOM, .key = "absent"},
    };
    make_tools(1, NULL, fields, sizeof fields / sizeof *fields);
    return 0;
}

static void examine(size_t n_changes, size_t n_rejects, uint64_t plaintext)
{
    assert_int_equal(examine_with(&rk_transform_encrypt), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, n_changes);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_rejects, n_rejects);
    assert_int_equal(plan.plaintext, plaintext);
}

/* The i-th change is to path, and its new value opens to the very value that it replaces. */
static void assert_sealed(size_t i, const char *path)
{
    const struct rk_change *change = rk_plan_change(&plan, i);
    const uint8_t *value = plan.arena.data + change->value_off;
    struct rk_envelope envelope;
    struct rk_buf plain;
    assert_int_equal(change->path_len, strlen(path));
    assert_memory_equal(plan.arena.data + change->path_off, path, change->path_len);
    assert_int_equal(change->type, RK_BSON_BINARY);
    assert_int_equal(value[4], RK_ENVELOPE_SUBTYPE);
    assert_true(rk_envelope_parse(value + 5, change->value_len - 5, &envelope));
    assert_int_equal(envelope.key_id, 1);
    assert_int_equal(envelope.bson_type, change->old.type);
    rk_buf_init(&plain, 1000);
    assert_int_equal(rk_envelope_open(aead, key[0], &envelope, &plain), RK_OK);
    assert_int_equal(plain.len, change->old.len);
    assert_memory_equal(plain.data, change->old.data, plain.len);
    rk_buf_deinit(&plain);
}

static void assert_rejected(const char *reason)
{
    assert_string_equal(rk_plan_reject(&plan, 0)->reason, reason);
}

static void test_plaintext_of_any_type_becomes_an_envelope(void **state)
{
    (void)state;
    begin();
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "answer", 6);
    rk_bson_put_double(&w, "$gt", 0.5);
    rk_bson_end(&w);
    rk_bson_put_utf8(&w, "code", "", 0);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "contacts", 8);
    rk_bson_put_int32(&w, "0", 5);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "1", 1);
    rk_bson_put_int64(&w, "phone", 42);
    rk_bson_end(&w);
    rk_bson_end(&w);
    examine(3, 0, 0);
    assert_sealed(0, "answer");
    assert_sealed(1, "code");
    assert_sealed(2, "contacts.1.phone");
}

static void test_null_envelopes_and_legacy_values_are_left_alone(void **state)
{
    (void)state;
    static const uint8_t legacy[1 + 12 + 20 + 16] = {0xA7};
    begin();
    rk_bson_put_binary(&w, "answer", 6, 0, legacy, sizeof legacy);
    rk_bson_put(&w, RK_BSON_NULL, "code", 4, NULL, 0);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "contacts", 8);
    rk_bson_put_binary(&w, "phone", 5, RK_ENVELOPE_SUBTYPE, "RK\xE1\x1E damaged", 12);
    rk_bson_end(&w);
    rk_bson_put_utf8(&w, "other", "x", 1);
    examine(0, 0, 0);
}

static void test_what_cannot_be_encrypted_is_rejected_and_stays_plaintext(void **state)
{
    (void)state;
    begin();
    rk_bson_put(&w, RK_BSON_MINKEY, "answer", 6, NULL, 0);
    examine(0, 1, 1);
    assert_rejected("a value of this type cannot be encrypted");
    begin();
    rk_bson_put_int32(&w, "code", 5);
    examine(0, 1, 1);
    assert_rejected("the value is not of the policy's type");
    begin();
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "contacts", 8);
    rk_bson_put_double(&w, "phone", 1);
    rk_bson_end(&w);
    examine(0, 1, 1);
    assert_rejected("a value of this type cannot be encrypted deterministically");
}

static void test_a_value_that_is_nested_too_deep_is_rejected_and_leaves_nothing(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 202; i++) {
        rk_bson_begin_sub(&w, RK_BSON_ARRAY, i == 0 ? "answer" : "0", i == 0 ? 6 : 1);
    }
    for (int i = 0; i < 202; i++) {
        rk_bson_end(&w);
    }
    rk_bson_put_utf8(&w, "code", "x", 1);
    examine(1, 1, 1);
    assert_rejected("the value is malformed or nested too deep");
    assert_sealed(0, "code");
}

static void test_a_missing_key_is_asked_for_by_its_name(void **state)
{
    (void)state;
    begin();
    rk_bson_put_int32(&w, "secret", 5);
    examine(0, 1, 1);
    assert_string_equal(plan.missing_name, "absent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plaintext_of_any_type_becomes_an_envelope),
        cmocka_unit_test(test_null_envelopes_and_legacy_values_are_left_alone),
        cmocka_unit_test(test_what_cannot_be_encrypted_is_rejected_and_stays_plaintext),
        cmocka_unit_test(test_a_value_that_is_nested_too_deep_is_rejected_and_leaves_nothing),
        cmocka_unit_test(test_a_missing_key_is_asked_for_by_its_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
