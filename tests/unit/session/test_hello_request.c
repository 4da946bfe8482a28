/* hello requests: which compressors of a client's offer reach the member, and in what the reply
 * may answer. */
#include <rekey/session/hello.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>

enum form { AS_MSG, AS_QUERY, AS_WRAPPED_QUERY };

static const struct rk_compressors none;
static const struct rk_compressors zlib_only = {1, {RK_COMPRESSOR_ZLIB}};
static const struct rk_compressors all = {
    3, {RK_COMPRESSOR_SNAPPY, RK_COMPRESSOR_ZSTD, RK_COMPRESSOR_ZLIB}};

static void put_list(struct rk_bson_writer *w, const char *names)
{
    static const char *const index[] = {"0", "1", "2", "3"};
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "compression", strlen("compression"));
    for (unsigned i = 0; names[0] != '\0'; i++) {
        size_t len = strcspn(names, " ");
        rk_bson_put_utf8(w, index[i], names, len);
        names += len + (names[len] == ' ');
    }
    rk_bson_end(w);
}

static void put_command(struct rk_bson_writer *w, const char *names)
{
    rk_bson_put_int32(w, "hello", 1);
    if (names != NULL) {
        put_list(w, names);
    }
    rk_bson_put_utf8(w, "$db", "admin", 5);
}

static void put_load_balanced(struct rk_bson_writer *w, const char *yes)
{
    rk_bson_put_int32(w, "hello", 1);
    rk_bson_put_int32(w, "loadBalanced", yes != NULL);
}

typedef void put_fn(struct rk_bson_writer *w, const char *arg);

static void put_document(struct rk_buf *out, enum form form, put_fn *put, const char *arg)
{
    struct rk_bson_writer w;
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    if (form == AS_WRAPPED_QUERY) {
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "$query", strlen("$query"));
        put(&w, arg);
        rk_bson_end(&w);
        rk_bson_put_int32(&w, "$readPreference", 1);
    } else {
        put(&w, arg);
    }
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
}

static void build_with(struct rk_buf *out, enum form form, put_fn *put, const char *arg)
{
    size_t start;
    rk_buf_init(out, 1 << 16);
    if (form == AS_MSG) {
        assert_int_equal(rk_msg_begin(out, 7, 0, RK_MSG_EXHAUST_ALLOWED, &start), RK_OK);
        assert_int_equal(rk_msg_section_body(out), RK_OK);
        put_document(out, form, put, arg);
    } else {
        static const uint8_t head[] = {
            0x00, 0x00, 0x00, 0x00, /* messageLength, set below */
            0x07, 0x00, 0x00, 0x00, /* requestID 7 */
            0x00, 0x00, 0x00, 0x00, /* responseTo 0 */
            0xD4, 0x07, 0x00, 0x00, /* opCode 2004, OP_QUERY */
            0x04, 0x00, 0x00, 0x00, /* flags: secondaryOk */
            'a',  'd',  'm',  'i',  'n',  '.',  '$',  'c',
            'm',  'd',  0x00, 0x00, 0x00, 0x00, 0x00, /* numberToSkip */
            0xFF, 0xFF, 0xFF, 0xFF,                   /* numberToReturn -1 */
        };
        assert_int_equal(rk_buf_append(out, head, sizeof head), RK_OK);
        put_document(out, form, put, arg);
    }
    rk_store_u32(out->data, (uint32_t)out->len);
}

/* A request as a driver sends it; names separated by spaces, NULL: no list. */
static void build(struct rk_buf *out, enum form form, const char *names)
{
    build_with(out, form, put_command, names);
}

struct names {
    char text[64];
};

static struct names names_of(const struct rk_compressors *set)
{
    struct names names = {{0}};
    for (unsigned i = 0; i < set->n; i++) {
        size_t used = strlen(names.text);
        (void)snprintf(names.text + used, sizeof names.text - used, "%s%s", i > 0 ? " " : "",
                       rk_compressor_name((enum rk_compressor)set->ids[i]));
    }
    return names;
}

/* What goes on must be what a driver with these names would have sent, to the byte. */
static void expect_sent(const struct rk_buf *out, enum form form, const char *names)
{
    struct rk_buf wanted;
    build(&wanted, form, names);
    assert_int_equal(out->len, wanted.len);
    assert_memory_equal(out->data, wanted.data, wanted.len);
    rk_buf_deinit(&wanted);
}

static void test_offers(void **state)
{
    (void)state;
    static const struct {
        const char *offered;
        const struct rk_compressors *client;
        const struct rk_compressors *upstream;
        const char *told;
        const char *sent; /* NULL: the request goes on as it came */
    } cases[] = {
        {"zlib", &all, &all, "zlib", NULL},
        {"zlib zstd snappy", &all, &all, "zlib zstd snappy", NULL},
        {"", &all, &all, "", NULL},
        {"lz4 zlib", &all, &all, "zlib", "zlib"},
        {"noop", &all, &all, "", ""},
        {"zlib zlib", &all, &all, "zlib", "zlib"},
        {"zstd zlib", &all, &zlib_only, "zstd zlib", "zlib"},
        {"zstd zlib", &zlib_only, &all, "zlib", NULL},
        {"zstd", &all, &zlib_only, "zstd", ""},
        {"zstd zlib", &all, &none, "zstd zlib", ""},
        {"zstd zlib", &none, &all, "", ""}, /* one that may not use any gives no cause to */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (enum form form = AS_MSG; form <= AS_WRAPPED_QUERY; form++) {
            struct rk_buf in;
            struct rk_buf out;
            struct rk_hello_offer offer;
            build(&in, form, cases[i].offered);
            rk_buf_init(&out, 1 << 16);
            assert_int_equal(
                rk_hello_offer(cases[i].client, cases[i].upstream, in.data, in.len, &out, &offer),
                RK_OK);
            assert_true(offer.made);
            assert_string_equal(names_of(&offer.client).text, cases[i].told);
            if (cases[i].sent == NULL) {
                assert_int_equal(out.len, 0);
            } else {
                expect_sent(&out, form, cases[i].sent);
                assert_string_equal(names_of(&offer.upstream).text, cases[i].sent);
            }
            rk_buf_deinit(&in);
            rk_buf_deinit(&out);
        }
    }
}

/* OP_QUERY went on to the member, which knows the mode but not in this way. */
static void test_load_balancer_mode_is_refused(void **state)
{
    (void)state;
    for (enum form form = AS_MSG; form <= AS_WRAPPED_QUERY; form++) {
        struct rk_buf in;
        struct rk_error err = {0};
        build_with(&in, form, put_load_balanced, NULL);
        assert_false(rk_hello_refused(in.data, in.len, &err));
        assert_int_equal(err.code, 0);
        rk_buf_deinit(&in);
        build_with(&in, form, put_load_balanced, "yes");
        assert_true(rk_hello_refused(in.data, in.len, &err));
        assert_int_equal(err.code, 72);
        rk_buf_deinit(&in);
    }
}

/* A list of anything but names is the member's to refuse; without the others it would be a good
 * one. */
static void put_odd_list(struct rk_bson_writer *w, const char *name)
{
    rk_bson_put_int32(w, "hello", 1);
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "compression", strlen("compression"));
    rk_bson_put_utf8(w, "0", name, strlen(name));
    rk_bson_put_int32(w, "1", 1);
    rk_bson_end(w);
}

static void expect_untouched(const struct rk_buf *in)
{
    struct rk_buf out;
    struct rk_hello_offer offer;
    rk_buf_init(&out, 1 << 16);
    assert_int_equal(rk_hello_offer(&all, &none, in->data, in->len, &out, &offer), RK_OK);
    assert_false(offer.made);
    assert_int_equal(offer.client.n, 0);
    assert_int_equal(out.len, 0);
    rk_buf_deinit(&out);
}

static void test_requests_without_an_offer(void **state)
{
    (void)state;
    for (enum form form = AS_MSG; form <= AS_WRAPPED_QUERY; form++) {
        struct rk_buf in;
        build(&in, form, NULL);
        expect_untouched(&in);
        rk_buf_deinit(&in);
        build(&in, form, "zlib");
        in.data[in.len - 1] = 1; /* no end */
        expect_untouched(&in);
        in.data[in.len - 1] = 0;
        in.len--;
        expect_untouched(&in);
        rk_buf_deinit(&in);
        build_with(&in, form, put_odd_list, "zlib");
        expect_untouched(&in);
        rk_buf_deinit(&in);
    }
}

/* The checksum is not among what is sent, and no flag says so. */
static void test_checksum_is_stripped(void **state)
{
    (void)state;
    struct rk_buf in;
    struct rk_buf out;
    struct rk_hello_offer offer;
    struct rk_msg msg;
    const char *why = NULL;
    build(&in, AS_MSG, "lz4 zlib");
    rk_store_u32(in.data, (uint32_t)in.len + 4);
    rk_store_u32(in.data + 16, RK_MSG_EXHAUST_ALLOWED | RK_MSG_CHECKSUM_PRESENT);
    assert_int_equal(rk_buf_append_u32(&in, rk_crc32c(in.data, in.len)), RK_OK);
    rk_buf_init(&out, 1 << 16);
    assert_int_equal(rk_hello_offer(&all, &all, in.data, in.len, &out, &offer), RK_OK);
    expect_sent(&out, AS_MSG, "zlib");
    assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
    in.data[in.len - 1] ^= 1;
    expect_untouched(&in);
    rk_buf_deinit(&in);
    rk_buf_deinit(&out);
}

/* ---- replies */

static void reply(struct rk_buf *out, double ok, const char *names)
{
    struct rk_bson_writer w;
    size_t start;
    rk_buf_init(out, 1 << 16);
    assert_int_equal(rk_msg_begin(out, 8, 7, 0, &start), RK_OK);
    assert_int_equal(rk_msg_section_body(out), RK_OK);
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "maxWireVersion", 17);
    if (names != NULL) {
        put_list(&w, names);
    }
    rk_bson_put_double(&w, "ok", ok);
    rk_bson_end(&w);
    rk_msg_end(out, start);
}

static void test_replies(void **state)
{
    (void)state;
    static const struct {
        const char *taken;
        double ok;
        const struct rk_compressors *tell;
        const char *seen;
        bool told;
    } cases[] = {
        {"zlib", 1, &all, "zlib", true},      {NULL, 1, &zlib_only, "", true},
        {NULL, 1, &none, "", false},          {"zlib zstd", 1, &none, "zlib zstd", false},
        {"zlib lz4", 1, &all, "zlib", true},  {NULL, 0, &all, "", false},
        {"snappy", 0, &all, "snappy", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_buf in;
        struct rk_buf out;
        struct rk_msg msg;
        struct rk_bson_view body;
        struct rk_bson_elem elem;
        struct rk_hello_seen seen;
        const char *why = NULL;
        const struct rk_route route = {.role = RK_ROLE_MEMBER};
        const struct rk_hello_rules rules = {.route = &route, .compression = *cases[i].tell};
        reply(&in, cases[i].ok, cases[i].taken);
        rk_buf_init(&out, 1 << 16);
        assert_int_equal(rk_hello_rewrite(&rules, in.data, in.len, &out, &seen), RK_OK);
        assert_int_equal(seen.ok, cases[i].ok > 0);
        assert_string_equal(names_of(&seen.compression).text, cases[i].seen);
        assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
        assert_true(rk_bson_view_init(&body, msg.body, msg.body_len));
        assert_true(rk_bson_validate(&body, 10));
        assert_int_equal(rk_bson_find(&body, "compression", &elem), cases[i].told);
        if (cases[i].told) {
            struct rk_bson_view list;
            struct rk_bson_iter iter;
            unsigned n = 0;
            assert_true(rk_bson_elem_view(&elem, &list));
            rk_bson_iter_init(&iter, &list);
            while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
                const char *name;
                uint32_t len;
                enum rk_compressor id;
                assert_true(rk_bson_elem_utf8(&elem, &name, &len));
                assert_true(rk_compressor_find(name, len, &id));
                assert_int_equal(id, cases[i].tell->ids[n++]);
            }
            assert_int_equal(n, cases[i].tell->n);
        }
        rk_buf_deinit(&in);
        rk_buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_requests_without_an_offer),
        cmocka_unit_test(test_load_balancer_mode_is_refused),
        cmocka_unit_test(test_checksum_is_stripped),
        cmocka_unit_test(test_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
