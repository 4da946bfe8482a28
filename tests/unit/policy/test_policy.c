/* Policy sets: what is refused, how namespaces are found, how paths relate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rekey/policy/policy.h>
#include <stdio.h>
#include <string.h>

static const struct rk_legacy_format with_key = {.cipher = RK_LEGACY_AES_256_CBC,
                                                 .encoding = RK_LEGACY_BASE64,
                                                 .key = (char *)"app",
                                                 .bson_type = 0x02};

static struct rk_field_spec field(const char *path)
{
    return (struct rk_field_spec){.path = path, .algorithm = RK_ALGORITHM_RANDOM};
}

static void refused(const struct rk_policy_spec *specs, size_t n, const char *const *expected)
{
    struct rk_policy_set *set = NULL;
    struct rk_error err = {0};
    assert_int_equal(rk_policy_set_new(specs, n, RK_UNDECRYPTABLE_ERROR, &set, &err), RK_EINVAL);
    assert_null(set);
    for (; *expected != NULL; expected++) {
        if (strstr(err.message, *expected) == NULL) {
            fail_msg("\"%s\" lacks \"%s\"", err.message, *expected);
        }
    }
    assert_int_equal(rk_policy_set_new(specs, n, RK_UNDECRYPTABLE_ERROR, &set, NULL), RK_EINVAL);
}

static void test_bad_namespaces(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "database.collection"},
        {"nodot", "database.collection"},
        {".coll", "database.collection"},
        {"db.", "database.collection"},
        {"admin.users", "state"},
        {"local.x", "state"},
        {"config.x", "state"},
        {"rekey.keys", "state"},
        {"db.system.users", "system"},
        {"db.sys*", "*"},
        {"d*.coll", "*"},
        {"db.a$b", "character"},
        {"d b.coll", "character"},
        {"db..x", "character"},
        {"db.*.x", "*"},
        {"a123456789012345678901234567890123456789012345678901234567890123.c", "longer"},
    };
    struct rk_field_spec ssn = field("ssn");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct rk_policy_spec spec = {.ns = bad[i][0], .fields = &ssn, .n_fields = 1};
        refused(&spec, 1, (const char *const[]){bad[i][1], NULL});
    }
    const struct rk_policy_spec none = {.ns = NULL, .fields = &ssn, .n_fields = 1};
    refused(&none, 1, (const char *const[]){"database.collection", NULL});
    const struct rk_policy_spec empty = {.ns = "db.c"};
    refused(&empty, 1, (const char *const[]){"db.c", "no fields", NULL});
    const struct rk_policy_spec twice[] = {{.ns = "db.c", .fields = &ssn, .n_fields = 1},
                                           {.ns = "db.c", .fields = &ssn, .n_fields = 1}};
    refused(twice, 2, (const char *const[]){"db.c", "twice", NULL});
}

static void test_bad_paths(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "no path"},
        {"a..b", "empty component"},
        {".a", "empty component"},
        {"a.", "empty"},
        {"a.0.b", "number"},
        {"0", "number"},
        {"a.$.b", "$"},
        {"$a", "$"},
        {"_id", "_id"},
        {"_id.ssn", "_id"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rk_field_spec spec = field(bad[i][0]);
        const struct rk_policy_spec policy = {.ns = "db.c", .fields = &spec, .n_fields = 1};
        refused(&policy, 1, (const char *const[]){"db.c", bad[i][1], NULL});
    }
    char deep[2 * 65];
    for (size_t i = 0; i < 65; i++) {
        memcpy(deep + 2 * i, i < 64 ? "a." : "a", 2);
    }
    struct rk_field_spec spec = field(deep);
    const struct rk_policy_spec policy = {.ns = "db.c", .fields = &spec, .n_fields = 1};
    refused(&policy, 1, (const char *const[]){"db.c", "too many", NULL});
}

static void test_overlapping_paths(void **state)
{
    (void)state;
    static const char *const pairs[][3] = {
        {"a", "a", "twice"},
        {"a", "a.b", "overlaps"},
        {"a.b.c", "a.b", "overlaps"},
        {"a.b.c.d", "a", "overlaps"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct rk_field_spec fields[] = {field(pairs[i][0]), field(pairs[i][1])};
        const struct rk_policy_spec policy = {.ns = "db.c", .fields = fields, .n_fields = 2};
        refused(&policy, 1,
                (const char *const[]){"db.c", pairs[i][0], pairs[i][1], pairs[i][2], NULL});
    }
}

static void test_bad_fields(void **state)
{
    (void)state;
    struct rk_field_spec spec = {.path = "ssn"};
    const struct rk_policy_spec policy = {.ns = "db.c", .fields = &spec, .n_fields = 1};
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "algorithm", NULL});

    struct rk_legacy_format format = with_key;
    spec = (struct rk_field_spec){
        .path = "ssn", .algorithm = RK_ALGORITHM_RANDOM, .legacy = &format, .n_legacy = 1};
    format.key = NULL;
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "legacy format 1", "key", NULL});
    format = with_key;
    format.bson_type = 0x10;
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "string or to binary", NULL});
    format = with_key;
    format.prefix_len = RK_LEGACY_PREFIX_MAX + 1;
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "version bytes", NULL});
    format = with_key;
    format.cipher = (enum rk_legacy_cipher)9;
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "cipher", NULL});
    format = with_key;
    format.encoding = (enum rk_legacy_encoding)9;
    refused(&policy, 1, (const char *const[]){"db.c", "ssn", "encoding", NULL});
}

/* Two names with the same first four bytes of SHA-256, found by search. */
static void test_field_id_collision(void **state)
{
    (void)state;
    char name_a[16] = "";
    char name_b[16] = "";
    enum { SEEN = 1 << 18 };
    static struct {
        uint32_t id;
        uint32_t n;
    } seen[SEEN];
    for (uint32_t n = 1; name_a[0] == '\0'; n++) {
        char name[16];
        (void)snprintf(name, sizeof name, "f%u", n);
        uint32_t id = rk_envelope_field_id(name);
        size_t slot = id % SEEN;
        if (seen[slot].n != 0 && seen[slot].id == id) {
            (void)snprintf(name_a, sizeof name_a, "f%u", seen[slot].n);
            (void)snprintf(name_b, sizeof name_b, "f%u", n);
        }
        seen[slot].id = id;
        seen[slot].n = n;
    }
    struct rk_field_spec a = field("x");
    struct rk_field_spec b = field("y");
    a.name = name_a;
    b.name = name_b;
    const struct rk_policy_spec specs[] = {{.ns = "db.a", .fields = &a, .n_fields = 1},
                                           {.ns = "db.b", .fields = &b, .n_fields = 1}};
    refused(specs, 2, (const char *const[]){"db.a", "db.b", "\"x\"", "\"y\"", "field id", NULL});

    /* One logical name in two places is how values can move between them. */
    b.name = name_a;
    struct rk_policy_set *set = NULL;
    assert_int_equal(rk_policy_set_new(specs, 2, RK_UNDECRYPTABLE_ERROR, &set, NULL), RK_OK);
    rk_policy_set_unref(set);
}

static struct rk_policy_set *make(const struct rk_policy_spec *specs, size_t n)
{
    struct rk_policy_set *set = NULL;
    struct rk_error err = {0};
    if (rk_policy_set_new(specs, n, RK_UNDECRYPTABLE_LEAVE, &set, &err) != RK_OK) {
        fail_msg("%s", err.message);
    }
    return set;
}

static const char *found(const struct rk_policy_set *set, const char *db, const char *coll)
{
    const struct rk_policy *policy = rk_policy_find(set, db, strlen(db), coll, strlen(coll));
    return policy != NULL ? policy->ns : "none";
}

static void test_find(void **state)
{
    (void)state;
    char ns[] = "shop.people";
    struct rk_field_spec ssn = field("ssn");
    const struct rk_policy_spec specs[] = {
        {.ns = ns, .fields = &ssn, .n_fields = 1},
        {.ns = "shop.*", .fields = &ssn, .n_fields = 1},
        {.ns = "crm.a.b", .fields = &ssn, .n_fields = 1},
        {.ns = "crm.b", .fields = &ssn, .n_fields = 1},
    };
    struct rk_policy_set *set = make(specs, 4);
    memset(ns, 'x', sizeof ns - 1); /* the set has its own copy */
    assert_string_equal(found(set, "shop", "people"), "shop.people");
    assert_string_equal(found(set, "shop", "orders"), "shop.*");
    assert_string_equal(found(set, "shop", "system.views"), "none");
    assert_string_equal(found(set, "shop", ""), "none");
    assert_string_equal(found(set, "crm", "a.b"), "crm.a.b");
    assert_string_equal(found(set, "crm", "b"), "crm.b");
    assert_string_equal(found(set, "crm", "a"), "none");
    assert_string_equal(found(set, "shop2", "people"), "none");
    assert_string_equal(found(set, "sho", "ppeople"), "none");
    assert_true(rk_policy_covers_db(set, "crm", 3));
    assert_false(rk_policy_covers_db(set, "crmx", 4));
    assert_false(rk_policy_covers_db(set, "cr", 2));
    assert_int_equal(rk_policy_set_count(set), 4);
    assert_non_null(rk_policy_set_at(set, 3)->ns);
    assert_false(rk_policy_set_empty(set));
    assert_int_equal(rk_policy_set_undecryptable(set), RK_UNDECRYPTABLE_LEAVE);
    struct rk_policy_set *same = rk_policy_set_ref(set);
    rk_policy_set_unref(set);
    assert_string_equal(found(same, "crm", "b"), "crm.b");
    rk_policy_set_unref(same);

    set = make(NULL, 0);
    assert_true(rk_policy_set_empty(set));
    assert_string_equal(found(set, "shop", "people"), "none");
    assert_false(rk_policy_covers_db(set, "shop", 4));
    rk_policy_set_unref(set);
    rk_policy_set_unref(NULL);
}

static void test_names(void **state)
{
    (void)state;
    struct rk_field_spec fields[] = {field("a.b"), field("c")};
    fields[1].name = "person.c";
    fields[1].legacy = &with_key;
    fields[1].n_legacy = 1;
    const struct rk_policy_spec spec = {.ns = "db.*", .fields = fields, .n_fields = 2};
    struct rk_policy_set *set = make(&spec, 1);
    const struct rk_policy *policy = rk_policy_set_at(set, 0);
    assert_int_equal(policy->fields[0].field_id, rk_envelope_field_id("db.*/a.b"));
    assert_int_equal(policy->fields[1].field_id, rk_envelope_field_id("person.c"));
    assert_string_equal(policy->fields[1].legacy[0].key, "app");
    assert_ptr_not_equal(policy->fields[1].legacy[0].key, with_key.key);
    assert_true(policy->has_legacy);
    rk_policy_set_unref(set);
}

/* More children than a linear scan takes, of equal and different lengths. */
static void test_many_children(void **state)
{
    (void)state;
    enum { N = 100 };
    char paths[N][16];
    struct rk_field_spec fields[N];
    for (int i = 0; i < N; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "f%.*s%d", i % 5, "xxxxx", i);
        fields[i] = field(paths[i]);
    }
    const struct rk_policy_spec spec = {.ns = "db.c", .fields = fields, .n_fields = N};
    struct rk_policy_set *set = make(&spec, 1);
    const struct rk_policy *policy = rk_policy_set_at(set, 0);
    for (int i = 0; i < N; i++) {
        const struct rk_path_node *node = rk_path_child(&policy->root, paths[i], strlen(paths[i]));
        assert_non_null(node);
        assert_string_equal(node->field->path, paths[i]);
        paths[i][0] = 'g';
        assert_null(rk_path_child(&policy->root, paths[i], strlen(paths[i])));
    }
    assert_null(rk_path_child(&policy->root, "", 0));
    rk_policy_set_unref(set);
}

static void test_relate(void **state)
{
    (void)state;
    struct rk_field_spec fields[] = {field("ssn"), field("contacts.phone"), field("a.b.c")};
    const struct rk_policy_spec spec = {.ns = "db.c", .fields = fields, .n_fields = 3};
    struct rk_policy_set *set = make(&spec, 1);
    const struct rk_policy *policy = rk_policy_set_at(set, 0);
    static const struct {
        const char *path;
        enum rk_path_relation relation;
        const char *field;
        bool positional;
    } cases[] = {
        {"ssn", RK_PATH_EXACT, "ssn", false},
        {"ssn.x", RK_PATH_BELOW, "ssn", false},
        {"ssn.0", RK_PATH_BELOW, "ssn", false},
        {"ssn.", RK_PATH_BELOW, "ssn", false},
        {"ssn.$[]", RK_PATH_BELOW, "ssn", true},
        {"ssn.x.y", RK_PATH_BELOW, "ssn", false},
        {"ss", RK_PATH_UNRELATED, NULL, false},
        {"ssnx", RK_PATH_UNRELATED, NULL, false},
        {".ssn", RK_PATH_UNRELATED, NULL, false},
        {"contacts", RK_PATH_ABOVE, NULL, false},
        {"contacts.0", RK_PATH_ABOVE, NULL, false},
        {"contacts.$", RK_PATH_ABOVE, NULL, true},
        {"contacts.mail", RK_PATH_UNRELATED, NULL, false},
        {"contacts.0.mail", RK_PATH_UNRELATED, NULL, false},
        {"contacts.phone", RK_PATH_EXACT, "contacts.phone", false},
        {"contacts.0.phone", RK_PATH_EXACT, "contacts.phone", false},
        {"contacts.0.1.phone", RK_PATH_EXACT, "contacts.phone", false},
        {"contacts.$.phone", RK_PATH_EXACT, "contacts.phone", true},
        {"contacts.$[].phone", RK_PATH_EXACT, "contacts.phone", true},
        {"contacts.$[elem].phone", RK_PATH_EXACT, "contacts.phone", true},
        {"contacts.phone.x", RK_PATH_BELOW, "contacts.phone", false},
        {"contacts.$elem.phone", RK_PATH_UNRELATED, NULL, false},
        {"a", RK_PATH_ABOVE, NULL, false},
        {"a.b", RK_PATH_ABOVE, NULL, false},
        {"a.b.c", RK_PATH_EXACT, "a.b.c", false},
        {"a.c", RK_PATH_UNRELATED, NULL, false},
        {"", RK_PATH_ABOVE, NULL, false},
        {"other", RK_PATH_UNRELATED, NULL, false},
        /* The top level is a document: a number there is a name like any other. */
        {"0", RK_PATH_UNRELATED, NULL, false},
        {"0.ssn", RK_PATH_UNRELATED, NULL, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_path_match match = rk_path_relate(policy, cases[i].path, strlen(cases[i].path));
        if (match.relation != cases[i].relation) {
            fail_msg("%s: relation %d", cases[i].path, (int)match.relation);
        }
        assert_int_equal(match.positional, cases[i].positional);
        bool has_field = match.relation == RK_PATH_EXACT || match.relation == RK_PATH_BELOW;
        bool has_node = match.relation == RK_PATH_EXACT || match.relation == RK_PATH_ABOVE;
        assert_int_equal(match.field != NULL, has_field);
        assert_int_equal(match.node != NULL, has_node);
        if (has_field) {
            assert_string_equal(match.field->path, cases[i].field);
        }
    }
    /* Only len bytes of the path count. */
    assert_int_equal(rk_path_relate(policy, "ssn.x", 3).relation, RK_PATH_EXACT);
    rk_policy_set_unref(set);
}

static void test_step(void **state)
{
    (void)state;
    struct rk_field_spec fields[] = {field("ssn"), field("contacts.phone")};
    const struct rk_policy_spec spec = {.ns = "db.c", .fields = fields, .n_fields = 2};
    struct rk_policy_set *set = make(&spec, 1);
    const struct rk_path_node *root = &rk_policy_set_at(set, 0)->root;
    const struct rk_path_node *contacts = rk_path_step(root, false, "contacts", 8);
    assert_non_null(contacts);
    assert_ptr_equal(rk_path_step(contacts, true, "0", 1), contacts);
    assert_ptr_equal(rk_path_step(contacts, false, "0", 1), contacts);
    assert_null(rk_path_step(contacts, false, "0x", 2));
    assert_non_null(rk_path_step(contacts, false, "phone", 5)->field);
    assert_null(rk_path_step(root, false, "0", 1));
    const struct rk_path_node *ssn = rk_path_step(root, false, "ssn", 3);
    assert_ptr_equal(rk_path_step(ssn, true, "0", 1), ssn);
    assert_null(rk_path_step(ssn, false, "0", 1));
    rk_policy_set_unref(set);
}

static void test_marks(void **state)
{
    (void)state;
    struct rk_field_spec ssn = field("ssn");
    const struct rk_policy_spec specs[] = {{.ns = "db.a", .fields = &ssn, .n_fields = 1},
                                           {.ns = "wide.*", .fields = &ssn, .n_fields = 1}};
    const struct rk_policy_mark marks[] = {{"db", "a", RK_MARK_COLLATION},
                                           {"db", "v", RK_MARK_VIEW},
                                           {"wide", "c", RK_MARK_COLLATION},
                                           {"db", "unprotected", RK_MARK_OUTSIDE},
                                           {"wide", "view", RK_MARK_VIEW}};
    struct rk_policy_set *base = NULL;
    struct rk_policy_set *set = NULL;
    assert_int_equal(rk_policy_set_new(specs, 2, RK_UNDECRYPTABLE_LEAVE, &base, NULL), RK_OK);
    assert_int_equal(rk_policy_set_marked(base, marks, 5, &set, NULL), RK_OK);
    assert_false(rk_policy_find(base, "db", 2, "a", 1)->collation);
    assert_false(rk_policy_set_outside_collation(base));
    rk_policy_set_unref(base); /* the marked set keeps what it shares */
    assert_int_equal(rk_policy_set_undecryptable(set), RK_UNDECRYPTABLE_LEAVE);

    const struct rk_policy *a = rk_policy_find(set, "db", 2, "a", 1);
    assert_true(a->collation && !a->view);
    assert_string_equal(a->fields[0].path, "ssn");
    const struct rk_policy *view = rk_policy_find(set, "db", 2, "v", 1);
    assert_true(view->view && !view->collation && view->n_fields == 0);
    assert_string_equal(view->ns, "db.v");
    /* One collection of a wildcard; a view under it has its policy already. */
    assert_true(rk_policy_find(set, "wide", 4, "c", 1)->collation);
    assert_false(rk_policy_find(set, "wide", 4, "d", 1)->collation);
    assert_false(rk_policy_find(set, "wide", 4, "view", 4)->view);
    assert_null(rk_policy_find(set, "db", 2, "unprotected", 11));
    assert_true(rk_policy_set_outside_collation(set));
    rk_policy_set_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_namespaces),
        cmocka_unit_test(test_bad_paths),
        cmocka_unit_test(test_overlapping_paths),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_field_id_collision),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_many_children),
        cmocka_unit_test(test_relate),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
