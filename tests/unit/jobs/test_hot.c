#include <rekey/bson/walk.h>
#include <rekey/jobs/hot.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOCS_MAX 8u
#define HOUR_MS 3600000u

static struct rk_hot *hot;
static struct rk_buf ids;
static char ns[320];

static int set_up(void **state)
{
    (void)state;
    const struct rk_hot_config config = {.docs_max = DOCS_MAX, .repeat_ms = HOUR_MS};
    hot = rk_hot_new(&config);
    rk_buf_init(&ids, 1u << 16);
    return hot != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    rk_hot_free(hot);
    rk_buf_deinit(&ids);
    return 0;
}

static void note(const char *where, int32_t id)
{
    rk_hot_note(hot, where, RK_BSON_INT32, &id, sizeof id);
}

/* What the next batch holds: "db.coll: 1 2 3". */
static const char *take(uint32_t max)
{
    static char text[512];
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    uint32_t n = 0;
    uint32_t found = 0;
    assert_int_equal(rk_hot_take(hot, max, ns, &ids, &n), RK_OK);
    if (n == 0) {
        return "";
    }
    assert_true(rk_bson_view_init(&view, ids.data, ids.len));
    int len = snprintf(text, sizeof text, "%s:", ns);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        char key[16];
        (void)snprintf(key, sizeof key, "%u", found++);
        assert_true(rk_bson_key_is(&elem, key)); /* as arrays have them */
        assert_int_equal(elem.type, RK_BSON_INT32);
        len += snprintf(text + len, sizeof text - (size_t)len, " %d",
                        (int)(int32_t)rk_load_u32(elem.value));
    }
    assert_int_equal(found, n);
    return text;
}

static void oldest_first_and_each_once(void **state)
{
    (void)state;
    note("a.x", 3);
    note("a.x", 1);
    note("a.x", 3);
    note("a.x", 2);
    assert_int_equal(rk_hot_waiting(hot), 3);
    assert_string_equal(take(2), "a.x: 3 1");
    assert_string_equal(take(2), "a.x: 2");
    assert_string_equal(take(2), "");
    note("a.x", 1); /* a moment ago */
    assert_string_equal(take(2), "");
}

static void a_batch_is_of_one_namespace(void **state)
{
    (void)state;
    note("a.x", 1);
    note("a.y", 1);
    note("a.x", 2);
    note("a.y", 2);
    assert_string_equal(take(10), "a.x: 1 2");
    note("a.z", 1);
    assert_string_equal(take(1), "a.y: 1");
    assert_string_equal(take(10), "a.y: 2");
    assert_string_equal(take(10), "a.z: 1");
    assert_int_equal(rk_hot_waiting(hot), 0);
}

static void equal_bytes_of_two_types_are_two_documents(void **state)
{
    static const uint8_t eight[8] = {1};
    (void)state;
    rk_hot_note(hot, "a.x", RK_BSON_INT64, eight, sizeof eight);
    rk_hot_note(hot, "a.x", RK_BSON_DATE, eight, sizeof eight);
    assert_int_equal(rk_hot_waiting(hot), 2);
}

static void what_finds_no_room_is_dropped(void **state)
{
    static const uint8_t longest[RK_HOT_ID_MAX + 1] = {RK_HOT_ID_MAX - 4};
    (void)state;
    rk_hot_note(hot, "a.x", RK_BSON_BINARY, longest, sizeof longest);
    assert_int_equal(rk_hot_waiting(hot), 0);
    for (int32_t id = 0; id < 100; id++) {
        note("a.x", id);
    }
    assert_int_equal(rk_hot_waiting(hot), DOCS_MAX);
    assert_string_equal(take(100), "a.x: 0 1 2 3 4 5 6 7");
    for (int32_t id = 200; id < 205; id++) { /* around the end of the ring */
        note("b.x", id);
    }
    assert_string_equal(take(100), "b.x: 200 201 202 203 204");
}

static void more_namespaces_than_there_is_room_for(void **state)
{
    const struct rk_hot_config config = {.docs_max = 1000, .repeat_ms = 0};
    (void)state;
    rk_hot_free(hot);
    hot = rk_hot_new(&config);
    assert_non_null(hot);
    for (int i = 0; i < 200; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "a.n%d", i);
        note(name, i);
    }
    uint32_t waiting = rk_hot_waiting(hot);
    assert_in_range(waiting, 1, 199);
    for (uint32_t i = 0; i < waiting; i++) {
        char wanted[32];
        (void)snprintf(wanted, sizeof wanted, "a.n%u: %u", i, i);
        assert_string_equal(take(100), wanted);
    }
    note("a.another", 1);
    assert_string_equal(take(100), "a.another: 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(oldest_first_and_each_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_batch_is_of_one_namespace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(equal_bytes_of_two_types_are_two_documents, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_finds_no_room_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_namespaces_than_there_is_room_for, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
