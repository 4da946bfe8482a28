#include "transform_fixture.h"

static uint8_t legacy_key[32];

/* Keys 1 and 2, of which 2 is current. */
static int set_up(void **state)
{
    (void)state;
    const struct rk_field_spec fields[] = {
        {.path = "answer",
         .algorithm = RK_ALGORITHM_RANDOM,
         .legacy = &legacy_format,
         .n_legacy = 1},
        {.path = "contacts.phone", .algorithm = RK_ALGORITHM_DETERMINISTIC},
    };
    const struct rk_legacy_key named = {"old", legacy_key};
    make_tools(2, &named, fields, sizeof fields / sizeof *fields);
    return 0;
}

static const struct rk_field *field(const char *path)
{
    return rk_path_relate(policy, path, strlen(path)).field;
}

/* The int32 value under a key, as the policy wants it for path. */
static void put_sealed(const char *name, uint32_t id, const char *path)
{
    uint8_t value[4];
    struct rk_buf sealed;
    rk_store_u32(value, 42);
    rk_buf_init(&sealed, 1000);
    assert_int_equal(rk_envelope_seal(aead, key[id - 1], field(path)->algorithm,
                                      field(path)->field_id, 5, RK_BSON_INT32, value, sizeof value,
                                      &sealed),
                     RK_OK);
    rk_bson_put_binary(&w, name, strlen(name), RK_ENVELOPE_SUBTYPE, sealed.data, sealed.len);
    rk_buf_deinit(&sealed);
}

static enum rk_status examine(void)
{
    return examine_with(&rk_transform_reencrypt);
}

static void assert_path(uint32_t off, uint32_t len, const char *expected)
{
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(plan.arena.data + off, expected, len);
}

/* The i-th change is to path, and its new value is 42 under key 2 in the policy's form. */
static void assert_change(size_t i, const char *concrete, const char *path)
{
    const struct rk_change *change = rk_plan_change(&plan, i);
    struct rk_envelope envelope;
    struct rk_buf plain;
    const uint8_t *value = plan.arena.data + change->value_off;
    assert_path(change->path_off, change->path_len, concrete);
    assert_int_equal(change->type, RK_BSON_BINARY);
    assert_int_equal(rk_load_u32(value) + 5, change->value_len);
    assert_int_equal(value[4], RK_ENVELOPE_SUBTYPE);
    assert_true(rk_envelope_parse(value + 5, change->value_len - 5, &envelope));
    assert_int_equal(envelope.key_id, 2);
    assert_int_equal(envelope.field_id, field(path)->field_id);
    assert_int_equal(envelope.algorithm, field(path)->algorithm);
    rk_buf_init(&plain, 1000);
    assert_int_equal(rk_envelope_open(aead, key[1], &envelope, &plain), RK_OK);
    assert_int_equal(envelope.bson_type, RK_BSON_INT32);
    assert_int_equal(rk_load_u32(plain.data), 42);
    rk_buf_deinit(&plain);
}

static void test_current_null_and_unprotected_values_need_nothing(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 2, "answer");
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "contacts", 8);
    rk_bson_put(&w, RK_BSON_NULL, "phone", 5, NULL, 0);
    rk_bson_put_int32(&w, "mail", 1);
    rk_bson_end(&w);
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_count(&plan), 1);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 0);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_rejects, 0);
    assert_int_equal(plan.plaintext, 0);
    assert_int_equal(rk_load_u32(rk_plan_doc(&plan, 0)->id.data), 7);
}

static void test_an_old_key_is_replaced(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 1, "answer");
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 1);
    assert_change(0, "answer", "answer");
    /* What is compared with is the very old value. */
    const struct rk_change *change = rk_plan_change(&plan, 0);
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, doc.data, doc.len));
    assert_true(rk_bson_find(&view, "answer", &elem));
    assert_ptr_equal(change->old.data, elem.value);
    assert_int_equal(change->old.len, elem.value_len);
}

/* Array elements that are no documents keep their place: paths count all elements. */
static void test_arrays_give_concrete_paths(void **state)
{
    (void)state;
    begin();
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "contacts", 8);
    rk_bson_put_int32(&w, "0", 5);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "1", 1);
    put_sealed("phone", 1, "contacts.phone");
    rk_bson_end(&w);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "2", 1);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    put_sealed("phone", 1, "contacts.phone");
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "3", 1);
    put_sealed("phone", 2, "contacts.phone");
    rk_bson_end(&w);
    rk_bson_end(&w);
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 2);
    assert_change(0, "contacts.1.phone", "contacts.phone");
    assert_change(1, "contacts.2.0.phone", "contacts.phone");
}

static void test_another_algorithm_or_field_is_brought_in_line(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 2, "contacts.phone");
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 1);
    assert_change(0, "answer", "answer");
}

static void test_an_unknown_key_is_rejected_with_its_id(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 3, "answer");
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 0);
    assert_int_equal(rk_plan_rejects(&plan), 1);
    assert_int_equal(rk_plan_reject(&plan, 0)->key_id, 3);
    assert_path(rk_plan_reject(&plan, 0)->path_off, rk_plan_reject(&plan, 0)->path_len, "answer");
}

static void test_a_forged_envelope_is_rejected(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 1, "answer");
    doc.data[doc.len - 1] ^= 1;
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 0);
    assert_int_equal(rk_plan_rejects(&plan), 1);
    assert_int_equal(rk_plan_reject(&plan, 0)->key_id, 0);
}

static void test_what_only_claims_to_be_an_envelope_is_rejected(void **state)
{
    (void)state;
    begin();
    rk_bson_put_binary(&w, "answer", 6, RK_ENVELOPE_SUBTYPE, "RK\xE1\x1E", 4);
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_rejects(&plan), 1);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 0);
}

static void test_plaintext_is_counted_and_left(void **state)
{
    (void)state;
    begin();
    rk_bson_put_utf8(&w, "answer", "hello", 5);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "contacts", 8);
    rk_bson_put_binary(&w, "phone", 5, 0, "", 0);
    rk_bson_end(&w);
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(plan.plaintext, 2);
    assert_int_equal(rk_plan_doc(&plan, 0)->n_changes, 0);
    assert_int_equal(rk_plan_rejects(&plan), 0);
}

static void test_a_legacy_value_that_does_not_open_is_rejected(void **state)
{
    (void)state;
    uint8_t bytes[1 + 12 + 20 + 16] = {0xA7};
    begin();
    rk_bson_put_binary(&w, "answer", 6, 0, bytes, sizeof bytes);
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(rk_plan_rejects(&plan), 1);
    assert_int_equal(plan.plaintext, 0);
}

static void test_documents_without_id_and_malformed_ones_fail(void **state)
{
    (void)state;
    struct rk_transform_keys tools = {.aead = aead, .keys = keys, .now_s = 77};
    struct rk_bson_view view;
    /* {"a": <int32>} */
    const uint8_t without[] = {12, 0, 0, 0, 0x10, 'a', 0, 1, 0, 0, 0, 0};
    rk_plan_clear(&plan);
    assert_true(rk_bson_view_init(&view, without, sizeof without));
    assert_int_equal(rk_transform_document(&rk_transform_reencrypt, &tools, policy, &view, &plan),
                     RK_EINVAL);
    /* {"_id": 1, <type 0x42>} */
    const uint8_t bad[] = {21, 0, 0,    0,   0x10, '_', 'i', 'd', 0, 1, 0,
                           0,  0, 0x42, 'x', 0,    0,   0,   0,   0, 0};
    rk_plan_clear(&plan);
    assert_true(rk_bson_view_init(&view, bad, sizeof bad));
    assert_int_equal(rk_transform_document(&rk_transform_reencrypt, &tools, policy, &view, &plan),
                     RK_EINVAL);
}

static void test_endless_nesting_is_refused(void **state)
{
    (void)state;
    begin();
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "contacts", 8);
    for (int i = 0; i < 220; i++) {
        rk_bson_begin_sub(&w, RK_BSON_ARRAY, "0", 1);
    }
    for (int i = 0; i < 221; i++) {
        rk_bson_end(&w);
    }
    assert_int_equal(examine(), RK_ELIMIT);
}

static void test_a_plan_holds_many_documents(void **state)
{
    (void)state;
    struct rk_transform_keys tools = {.aead = aead, .keys = keys, .now_s = 77};
    struct rk_bson_view view;
    begin();
    put_sealed("answer", 1, "answer");
    rk_bson_end(&w);
    assert_true(rk_bson_view_init(&view, doc.data, doc.len));
    for (int i = 0; i < 500; i++) {
        assert_int_equal(
            rk_transform_document(&rk_transform_reencrypt, &tools, policy, &view, &plan), RK_OK);
    }
    assert_int_equal(rk_plan_count(&plan), 500);
    assert_int_equal(rk_plan_doc(&plan, 499)->first_change, 499);
    assert_change(499, "answer", "answer");
}

static void test_no_plaintext_stays_in_the_scratch_space(void **state)
{
    (void)state;
    begin();
    put_sealed("answer", 1, "answer");
    assert_int_equal(examine(), RK_OK);
    assert_int_equal(plan.scratch.len, 0);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(plan.scratch.data[i], 0);
    }
}

static void test_transforms_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(rk_transform_find("reencrypt"), &rk_transform_reencrypt);
    assert_null(rk_transform_find("anonymize"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_current_null_and_unprotected_values_need_nothing),
        cmocka_unit_test(test_an_old_key_is_replaced),
        cmocka_unit_test(test_arrays_give_concrete_paths),
        cmocka_unit_test(test_another_algorithm_or_field_is_brought_in_line),
        cmocka_unit_test(test_an_unknown_key_is_rejected_with_its_id),
        cmocka_unit_test(test_a_forged_envelope_is_rejected),
        cmocka_unit_test(test_what_only_claims_to_be_an_envelope_is_rejected),
        cmocka_unit_test(test_plaintext_is_counted_and_left),
        cmocka_unit_test(test_a_legacy_value_that_does_not_open_is_rejected),
        cmocka_unit_test(test_documents_without_id_and_malformed_ones_fail),
        cmocka_unit_test(test_endless_nesting_is_refused),
        cmocka_unit_test(test_a_plan_holds_many_documents),
        cmocka_unit_test(test_no_plaintext_stays_in_the_scratch_space),
        cmocka_unit_test(test_transforms_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
