/*
 * Arbitrary bytes as hello requests and replies. Beyond not crashing:
 *   - a request that is changed parses, is valid BSON, and offers again exactly what was found to
 *     be on offer: nothing is left for a second look to take away;
 *   - a reply that is rewritten, in either topology, is valid BSON without an address of a member.
 *
 * Input: one byte that chooses, then a document
 *   0  the request as OP_MSG      1  the request as OP_QUERY
 *   2  the reply as OP_MSG        3  the reply as OP_REPLY
 *   4  a whole request            5  a whole reply
 */
#include <rekey/session/hello.h>

#include <stdlib.h>

#define LEN_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct rk_compressors client = {2, {RK_COMPRESSOR_ZLIB, RK_COMPRESSOR_ZSTD}};
static const struct rk_compressors upstream = {2, {RK_COMPRESSOR_ZSTD, RK_COMPRESSOR_SNAPPY}};
static struct rk_routes *mirror;
static struct rk_routes *single;
static struct rk_buf in;
static struct rk_buf out;
static struct rk_buf again;

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static struct rk_routes *routes_of(enum rk_role role)
{
    struct rk_routes *routes = rk_routes_new(1);
    check(routes != NULL);
    routes->route[0].role = role;
    routes->route[0].advertise = strdup("proxy:1001");
    routes->route[0].address = role == RK_ROLE_MEMBER ? strdup("db1:1") : NULL;
    return routes;
}

static void setup(void)
{
    mirror = routes_of(RK_ROLE_MEMBER);
    single = routes_of(RK_ROLE_PRIMARY);
    rk_buf_init(&in, LEN_MAX);
    rk_buf_init(&out, 2 * LEN_MAX);
    rk_buf_init(&again, 2 * LEN_MAX);
}

/* The document of a message that was written here. */
static struct rk_bson_view document(const struct rk_buf *message)
{
    struct rk_bson_view view = {0};
    struct rk_msg msg;
    struct rk_op_query query;
    struct rk_op_reply reply;
    const char *why = NULL;
    if (rk_msg_parse(message->data, message->len, &msg, &why) == RK_PARSE_OK) {
        check(rk_bson_view_init(&view, msg.body, msg.body_len));
    } else if (rk_op_query_parse(message->data, message->len, &query) == RK_PARSE_OK) {
        check(rk_bson_view_init(&view, query.query, query.query_len));
    } else {
        check(rk_op_reply_parse(message->data, message->len, &reply) == RK_PARSE_OK);
        check(rk_bson_view_init(&view, reply.docs, reply.docs_len));
    }
    return view;
}

static bool same(const struct rk_compressors *a, const struct rk_compressors *b)
{
    return a->n == b->n && memcmp(a->ids, b->ids, a->n) == 0;
}

static void check_request(const uint8_t *data, size_t len)
{
    struct rk_hello_offer offer;
    struct rk_hello_offer second;
    check(rk_hello_offer(&client, &upstream, data, len, &out, &offer) == RK_OK);
    check(offer.made || (offer.client.n == 0 && offer.upstream.n == 0 && out.len == 0));
    if (out.len == 0) {
        return;
    }
    struct rk_bson_view view = document(&out);
    check(rk_bson_validate(&view, RK_HELLO_DEPTH_MAX));
    check(rk_hello_offer(&upstream, &upstream, out.data, out.len, &again, &second) == RK_OK);
    check(second.made && same(&second.upstream, &offer.upstream) && again.len == 0);
}

static void check_text(const struct rk_bson_elem *elem)
{
    const char *text;
    uint32_t len;
    if (rk_bson_elem_utf8(elem, &text, &len)) {
        check(len == strlen("proxy:1001") && memcmp(text, "proxy:1001", len) == 0);
    }
}

static void check_reply(const struct rk_routes *routes, const uint8_t *data, size_t len)
{
    static const char *const lists[] = {"hosts", "passives", "arbiters"};
    const struct rk_hello_rules rules = {
        .routes = routes, .route = &routes->route[0], .compression = client};
    struct rk_hello_seen seen;
    struct rk_bson_elem elem;
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    if (rk_hello_rewrite(&rules, data, len, &out, &seen) != RK_OK) {
        return;
    }
    struct rk_bson_view view = document(&out);
    check(rk_bson_find(&view, "compression", &elem) == seen.ok);
    for (size_t i = 0; i < 3; i++) {
        if (rk_bson_find(&view, lists[i], &elem)) {
            check(rk_bson_elem_view(&elem, &list));
            rk_bson_iter_init(&iter, &list);
            while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
                check_text(&elem);
            }
        }
    }
    if (rk_bson_find(&view, "primary", &elem)) {
        check_text(&elem);
    }
    if (rk_bson_find(&view, "me", &elem)) {
        check_text(&elem);
    }
}

/* A message of these bytes before, and the fuzzer's document. */
static void build(int32_t opcode, const uint8_t *before, size_t before_len, const uint8_t *data,
                  size_t len)
{
    uint8_t head[RK_FRAME_HEADER_LEN];
    const struct rk_frame frame = {
        .len = (uint32_t)(sizeof head + before_len + len), .request_id = 1, .opcode = opcode};
    rk_frame_store(head, &frame);
    rk_buf_clear(&in);
    check(rk_buf_append(&in, head, sizeof head) == RK_OK);
    check(rk_buf_append(&in, before, before_len) == RK_OK);
    check(rk_buf_append(&in, data, len) == RK_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t msg[] = {0, 0, 0, 0, 0};                              /* flags, kind 0 */
    static const uint8_t query[] = "\4\0\0\0admin.$cmd\0\0\0\0\0\xFF\xFF\xFF"; /* and one 0xFF */
    static const uint8_t reply[20] = {[16] = 1};                               /* one document */
    if (mirror == NULL) {
        setup();
    }
    if (len == 0 || len > LEN_MAX - 256) {
        return 0;
    }
    uint8_t kind = (uint8_t)(data[0] % 6);
    data++;
    len--;
    switch (kind) {
    case 0:
        build(RK_OP_MSG, msg, sizeof msg, data, len);
        break;
    case 1:
        build(RK_OP_QUERY, query, sizeof query, data, len);
        in.data[RK_FRAME_HEADER_LEN + sizeof query - 1] = 0xFF;
        break;
    case 2:
        build(RK_OP_MSG, msg, sizeof msg, data, len);
        break;
    case 3:
        build(RK_OP_REPLY, reply, sizeof reply, data, len);
        break;
    default:
        rk_buf_clear(&in);
        check(rk_buf_append(&in, data, len) == RK_OK);
        break;
    }
    if (kind == 0 || kind == 1 || kind == 4) {
        struct rk_error err;
        (void)rk_hello_refused(in.data, in.len, &err);
        check_request(in.data, in.len);
    } else {
        check_reply(mirror, in.data, in.len);
        check_reply(single, in.data, in.len);
    }
    return 0;
}
