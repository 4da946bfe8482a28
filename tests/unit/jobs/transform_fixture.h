/* What the tests of transforms share: keys, a policy, and one document that is looked at. */
#ifndef TESTS_JOBS_TRANSFORM_FIXTURE_H
#define TESTS_JOBS_TRANSFORM_FIXTURE_H

#include <rekey/bson/rewrite.h>
#include <rekey/jobs/transform.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define KEYS 3

static struct rk_aead *aead;
static struct rk_keyset *keys;
static struct rk_data_key *key[KEYS]; /* by id - 1 */
static struct rk_policy_set *set;
static const struct rk_policy *policy;
static struct rk_plan plan;
static struct rk_buf doc;
static struct rk_bson_writer w;

static struct rk_legacy_format legacy_format = {.cipher = RK_LEGACY_AES_256_GCM,
                                                .encoding = RK_LEGACY_BINARY,
                                                .prefix = {0xA7},
                                                .prefix_len = 1,
                                                .key = (char[]){"old"},
                                                .bson_type = RK_BSON_STRING};

/* Keys up to the current one are in the keyset, the others in none. legacy: may be NULL. */
static inline void make_tools(uint32_t current, const struct rk_legacy_key *legacy,
                              const struct rk_field_spec *fields, size_t n_fields)
{
    struct rk_error err;
    struct rk_keyset_key known[KEYS];
    const struct rk_policy_spec spec = {.ns = "app.people", .fields = fields, .n_fields = n_fields};
    for (uint32_t id = 1; id <= KEYS; id++) {
        uint8_t root[RK_DATA_KEY_LEN];
        memset(root, (int)id, sizeof root);
        assert_int_equal(rk_data_key_new(id, root, 1000 + id, &key[id - 1], &err), RK_OK);
        known[id - 1] = (struct rk_keyset_key){id, id == current ? RK_KEY_WRITES : RK_KEY_READS,
                                               RK_KEY_NAME_DEFAULT, key[id - 1]};
    }
    assert_int_equal(rk_keyset_new(known, current, legacy, legacy != NULL, &keys, &err), RK_OK);
    assert_int_equal(rk_aead_new(&aead, &err), RK_OK);
    assert_int_equal(rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &set, &err), RK_OK);
    policy = rk_policy_find(set, "app", 3, "people", 6);
    assert_non_null(policy);
    rk_plan_init(&plan);
    rk_buf_init(&doc, 1u << 20);
}

static inline int tear_down(void **state)
{
    (void)state;
    rk_plan_deinit(&plan);
    rk_buf_deinit(&doc);
    rk_policy_set_unref(set);
    rk_keyset_unref(keys);
    rk_aead_free(aead);
    for (size_t i = 0; i < KEYS; i++) {
        rk_data_key_unref(key[i]);
    }
    return 0;
}

static inline void begin(void)
{
    rk_buf_clear(&doc);
    rk_plan_clear(&plan);
    rk_bson_writer_init(&w, &doc);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "_id", 7);
}

static inline enum rk_status examine_with(const struct rk_transform_ops *ops)
{
    struct rk_transform_keys tools = {.aead = aead, .keys = keys, .now_s = 77};
    struct rk_bson_view view;
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    assert_true(rk_bson_view_init(&view, doc.data, doc.len));
    return rk_transform_document(ops, &tools, policy, &view, &plan);
}

#endif
