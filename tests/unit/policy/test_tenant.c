/* Names of tenants, from documents and from filters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"
#include <rekey/policy/tenant.h>

static struct rk_policy_set *set;
static const struct rk_policy *policy;
static struct rk_buf buf;

static int set_up(void **state)
{
    static const struct rk_field_spec fields[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_DETERMINISTIC}};
    static const struct rk_policy_spec spec = {
        .ns = "db.c", .fields = fields, .n_fields = 1, .key = "k", .tenant = "meta.org"};
    (void)state;
    rk_buf_init(&buf, FIXTURE_BYTES_MAX);
    assert_int_equal(rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &set, NULL), RK_OK);
    policy = rk_policy_find(set, "db", 2, "c", 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rk_policy_set_unref(set);
    rk_buf_deinit(&buf);
    return 0;
}

/* "": not known; "!": a problem. */
static const char *shown(const struct rk_tenant *tenant)
{
    static char name[RK_KEY_NAME_SIZE];
    const char *key = rk_tenant_key(tenant, &policy->fields[0], name);
    return tenant->problem != NULL ? "!" : key != NULL ? key : "";
}

static const char *of_document(const char *json)
{
    static struct rk_tenant tenant;
    rk_buf_clear(&buf);
    struct rk_bson_view view = json_doc(&buf, json);
    rk_tenant_of_document(policy, &view, &tenant);
    return shown(&tenant);
}

static const char *of_filter(const char *json, bool collation)
{
    static struct rk_tenant tenant;
    rk_buf_clear(&buf);
    struct rk_bson_view view = json_doc(&buf, json);
    rk_tenant_of_filter(policy, &view, collation, &tenant);
    return shown(&tenant);
}

static void test_documents(void **state)
{
    (void)state;
    assert_string_equal(of_document("{'meta': {'org': 'acme'}}"), "k:acme");
    assert_string_equal(of_document("{'meta': {'org': 'a:b'}}"), "k:a%3Ab");
    assert_string_equal(of_document("{'meta': {'org': 5}}"), "k:int:5");
    assert_string_equal(of_document("{'meta': {'org': 5L}}"), "k:int:5");
    assert_string_equal(of_document("{'meta': {'org': 5.0}}"), "k:int:5");
    assert_string_equal(of_document("{'meta': {'org': 5.5}}"), "!");
    assert_string_equal(of_document("{'meta': {'org': ['acme']}}"), "!");
    assert_string_equal(of_document("{'meta': [{'org': 'acme'}]}"), "!");
    assert_string_equal(of_document("{'meta': {'org': 'a', 'org': 'a'}}"), "!");
    assert_string_equal(of_document("{'meta': {'org': 'a'}, 'meta': 1}"), "!");
    assert_string_equal(of_document("{'meta': {'org': null}}"), "!");
    assert_string_equal(of_document("{'meta': {'org': ''}}"), "!");
    assert_string_equal(of_document("{'meta': 1, 'org': 'acme'}"), "");
    assert_string_equal(of_document("{'meta.org': 'acme'}"), "");
}

static void test_filters(void **state)
{
    (void)state;
    assert_string_equal(of_filter("{'meta.org': 'acme', 'ssn': 'x'}", false), "k:acme");
    assert_string_equal(of_filter("{'meta.org': {'$eq': 'acme'}}", false), "k:acme");
    assert_string_equal(of_filter("{'$and': [{'a': 1}, {'meta.org': 5}]}", true), "k:int:5");
    assert_string_equal(of_filter("{'meta.org': 5, '$and': [{'meta.org': 5L}]}", false), "k:int:5");
    assert_string_equal(of_filter("{'meta.org': 'a', '$and': [{'meta.org': 'b'}]}", false), "!");
    assert_string_equal(of_filter("{'meta.org': 'acme'}", true), "!");
    assert_string_equal(of_filter("{'meta.org': /a/}", false), "!");
    assert_string_equal(of_filter("{'meta.org': {'$in': ['acme']}}", false), "");
    assert_string_equal(of_filter("{'meta.org': {'$ne': 'acme'}}", false), "");
    assert_string_equal(of_filter("{'$or': [{'meta.org': 'acme'}]}", false), "");
    assert_string_equal(of_filter("{'meta': {'org': 'acme'}}", false), "");
}

/* Another policy's tenant says nothing of a field. */
static void test_another_policy(void **state)
{
    (void)state;
    const struct rk_field other = {.key = "k", .by_tenant = true};
    const struct rk_field plain = {.key = "plain"};
    const struct rk_tenant tenant = {
        .fields = policy->fields, .n_fields = policy->n_fields, .name = "acme"};
    char name[RK_KEY_NAME_SIZE];
    assert_string_equal(rk_tenant_key(&tenant, &policy->fields[0], name), "k:acme");
    assert_null(rk_tenant_key(&tenant, &other, name));
    assert_string_equal(rk_tenant_key(&tenant, &plain, name), "plain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_another_policy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
