/* hello replies: which addresses a driver learns. */
#include <rekey/session/hello.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Two listeners: of members, or of one set as a whole; rk_routes_unref them. */
static struct rk_routes *make_routes(enum rk_role role)
{
    static const char *const members[] = {"db1:1", "db2:2"};
    static const char *const advertised[] = {"proxy:1001", "proxy:1002"};
    struct rk_routes *routes = rk_routes_new(2);
    assert_non_null(routes);
    for (size_t i = 0; i < 2; i++) {
        routes->route[i].role = role;
        routes->route[i].advertise = strdup(advertised[i]);
        routes->route[i].address = role == RK_ROLE_MEMBER ? strdup(members[i]) : NULL;
    }
    return routes;
}

static void put_list(struct rk_bson_writer *w, const char *key, const char *const *items, size_t n)
{
    static const char *const index[] = {"0", "1", "2"};
    rk_bson_begin_sub(w, RK_BSON_ARRAY, key, strlen(key));
    for (size_t i = 0; i < n; i++) {
        rk_bson_put_utf8(w, index[i], items[i], strlen(items[i]));
    }
    rk_bson_end(w);
}

static void put_hello(struct rk_buf *out)
{
    static const char *const hosts[] = {"db1:1", "db3:3", "DB2:2"};
    static const char *const arbiters[] = {"db9:9"};
    static const char *const compression[] = {"zlib"};
    struct rk_bson_writer w;
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    put_list(&w, "hosts", hosts, 3);
    put_list(&w, "arbiters", arbiters, 1);
    rk_bson_put_utf8(&w, "passives", "db1:1", 5); /* no list: must not get through as it is */
    rk_bson_put_utf8(&w, "setName", "rs0", 3);
    rk_bson_put_utf8(&w, "primary", "db2:2", 5);
    rk_bson_put_utf8(&w, "me", "elsewhere:5", 11);
    rk_bson_put_int32(&w, "maxMessageSizeBytes", 48000000);
    rk_bson_put_int32(&w, "maxWriteBatchSize", 100000);
    put_list(&w, "compression", compression, 1);
    rk_bson_put_int32(&w, "unknownField", 7);
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
}

static void build_msg(struct rk_buf *out, uint32_t flags)
{
    size_t start;
    rk_buf_init(out, 1 << 20);
    assert_int_equal(rk_msg_begin(out, 11, 22, flags, &start), RK_OK);
    assert_int_equal(rk_msg_section_body(out), RK_OK);
    put_hello(out);
    rk_msg_end(out, start);
}

static void expect_utf8(const struct rk_bson_view *view, const char *key, const char *text)
{
    struct rk_bson_elem elem;
    const char *found;
    uint32_t len;
    assert_true(rk_bson_find(view, key, &elem));
    assert_true(rk_bson_elem_utf8(&elem, &found, &len));
    assert_string_equal(found, text);
}

static void expect_int(const struct rk_bson_view *view, const char *key, int64_t value)
{
    struct rk_bson_elem elem;
    int64_t found;
    assert_true(rk_bson_find(view, key, &elem));
    assert_true(rk_bson_elem_int(&elem, &found));
    assert_int_equal(found, value);
}

static void expect_rewritten(const struct rk_bson_view *body, int32_t message_max,
                             int32_t batch_max)
{
    struct rk_bson_elem elem;
    struct rk_bson_view hosts;
    assert_true(rk_bson_validate(body, 10));
    assert_true(rk_bson_find(body, "hosts", &elem));
    assert_true(rk_bson_elem_view(&elem, &hosts));
    expect_utf8(&hosts, "0", "proxy:1001");
    expect_utf8(&hosts, "1", "proxy:1002");
    assert_false(rk_bson_find(&hosts, "2", &elem));
    expect_utf8(body, "primary", "proxy:1002");
    expect_utf8(body, "me", "proxy:1001");
    expect_utf8(body, "setName", "rs0");
    assert_false(rk_bson_find(body, "passives", &elem));
    assert_false(rk_bson_find(body, "compression", &elem));
    assert_true(rk_bson_find(body, "unknownField", &elem));
    expect_int(body, "maxMessageSizeBytes", message_max);
    expect_int(body, "maxWriteBatchSize", batch_max);
}

static void rewrites_op_msg(void **state)
{
    (void)state;
    struct rk_routes *routes = make_routes(RK_ROLE_MEMBER);
    struct rk_buf in;
    struct rk_buf out;
    struct rk_msg msg;
    const char *why;
    struct rk_hello_seen seen;
    struct rk_bson_view body;
    build_msg(&in, RK_MSG_MORE_TO_COME);
    rk_buf_init(&out, 1 << 20);
    const struct rk_hello_rules rules = {.routes = routes,
                                         .route = &routes->route[0],
                                         .message_bytes_max = 33554432,
                                         .batch_docs_max = 2000};
    assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len, &out, &seen), RK_OK);
    assert_int_equal(seen.unknown, 3);
    assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.frame.request_id, 11);
    assert_int_equal(msg.frame.response_to, 22);
    assert_int_equal(msg.flags, RK_MSG_MORE_TO_COME);
    assert_true(rk_bson_view_init(&body, msg.body, msg.body_len));
    expect_rewritten(&body, 33554432, 2000);
    rk_buf_deinit(&in);
    rk_buf_deinit(&out);
    rk_routes_unref(routes);
}

static void rewrites_op_reply(void **state)
{
    (void)state;
    struct rk_routes *routes = make_routes(RK_ROLE_MEMBER);
    const struct rk_hello_rules rules = {.routes = routes, .route = &routes->route[0]};
    struct rk_buf in;
    struct rk_buf out;
    struct rk_op_reply reply;
    struct rk_bson_view body;
    struct rk_hello_seen seen;
    const struct rk_frame frame = {.request_id = 1, .response_to = 2, .opcode = RK_OP_REPLY};
    uint8_t head[36] = {0};
    rk_frame_store(head, &frame);
    rk_store_u32(head + 32, 1); /* numberReturned */
    rk_buf_init(&in, 1 << 20);
    rk_buf_init(&out, 1 << 20);
    assert_int_equal(rk_buf_append(&in, head, sizeof head), RK_OK);
    put_hello(&in);
    rk_store_u32(in.data, (uint32_t)in.len);
    assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len, &out, &seen), RK_OK);
    assert_int_equal(rk_op_reply_parse(out.data, out.len, &reply), RK_PARSE_OK);
    assert_true(rk_bson_view_init(&body, reply.docs, reply.docs_len));
    expect_rewritten(&body, 48000000, 100000);
    rk_buf_deinit(&in);
    rk_buf_deinit(&out);
    rk_routes_unref(routes);
}

static void single_tells_of_itself_alone(void **state)
{
    (void)state;
    static const char *const hosts[] = {"db1:1", "db2:2"};
    const struct {
        const char *me;
        bool primary_told;
    } cases[] = {{"db2:2", true}, {"db1:1", false}};
    struct rk_routes *routes = make_routes(RK_ROLE_PRIMARY);
    const struct rk_hello_rules rules = {.routes = routes, .route = &routes->route[1]};
    for (size_t i = 0; i < 2; i++) {
        struct rk_buf in;
        struct rk_buf out;
        struct rk_bson_writer w;
        struct rk_bson_view body;
        struct rk_bson_view list;
        struct rk_bson_elem elem;
        struct rk_msg msg;
        const char *why;
        struct rk_hello_seen seen;
        size_t start;
        rk_buf_init(&in, 1 << 20);
        rk_buf_init(&out, 1 << 20);
        assert_int_equal(rk_msg_begin(&in, 1, 2, 0, &start), RK_OK);
        assert_int_equal(rk_msg_section_body(&in), RK_OK);
        rk_bson_writer_init(&w, &in);
        rk_bson_begin(&w);
        put_list(&w, "hosts", hosts, 2);
        put_list(&w, "passives", hosts, 1);
        put_list(&w, "arbiters", hosts, 1);
        rk_bson_put_utf8(&w, "setName", "rs0", 3);
        rk_bson_put_utf8(&w, "primary", "db2:2", 5);
        rk_bson_put_utf8(&w, "me", cases[i].me, 5);
        rk_bson_end(&w);
        rk_msg_end(&in, start);
        assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len, &out, &seen), RK_OK);
        assert_int_equal(seen.unknown, 0);
        assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
        assert_true(rk_bson_view_init(&body, msg.body, msg.body_len));
        assert_true(rk_bson_find(&body, "hosts", &elem));
        assert_true(rk_bson_elem_view(&elem, &list));
        expect_utf8(&list, "0", "proxy:1002");
        assert_false(rk_bson_find(&list, "1", &elem));
        assert_false(rk_bson_find(&body, "passives", &elem));
        assert_false(rk_bson_find(&body, "arbiters", &elem));
        expect_utf8(&body, "setName", "rs0");
        expect_utf8(&body, "me", "proxy:1002");
        assert_int_equal(rk_bson_find(&body, "primary", &elem), cases[i].primary_told);
        if (cases[i].primary_told) {
            expect_utf8(&body, "primary", "proxy:1002");
        }
        rk_buf_deinit(&in);
        rk_buf_deinit(&out);
    }
    rk_routes_unref(routes);
}

static void refuses_malformed_replies(void **state)
{
    (void)state;
    struct rk_routes *routes = make_routes(RK_ROLE_MEMBER);
    const struct rk_hello_rules rules = {.routes = routes, .route = &routes->route[0]};
    struct rk_buf in;
    struct rk_buf out;
    struct rk_hello_seen seen;
    build_msg(&in, 0);
    rk_buf_init(&out, 1 << 20);
    in.data[25] = 0x77; /* the type of the first element */
    assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len, &out, &seen), RK_EINVAL);
    assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len - 1, &out, &seen), RK_EINVAL);
    assert_int_equal(rk_hello_rewrite(&rules, in.data, 3, &out, &seen), RK_EINVAL);
    rk_buf_deinit(&in);
    rk_buf_deinit(&out);
    rk_routes_unref(routes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewrites_op_msg),
        cmocka_unit_test(rewrites_op_reply),
        cmocka_unit_test(single_tells_of_itself_alone),
        cmocka_unit_test(refuses_malformed_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
