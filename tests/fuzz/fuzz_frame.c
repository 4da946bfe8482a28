/*
 * A peer's bytes as a stream of messages, and once more as one message whose header is put right,
 * so that the fuzzer reaches the bodies. Whatever parses must lie inside its message, and an
 * OP_MSG that is built again from its views must parse to the same.
 */
#include <rekey/wire/msg.h>

#include <stdlib.h>

#define LEN_MAX 65536u

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static bool inside(const void *part, size_t part_len, const uint8_t *data, size_t len)
{
    const uint8_t *p = part;
    return p >= data && p <= data + len && part_len <= (size_t)(data + len - p);
}

static void check_rebuilt(const struct rk_msg *msg)
{
    struct rk_buf out;
    struct rk_msg again;
    const char *why = NULL;
    size_t off;
    size_t sequence;
    rk_buf_init(&out, 2 * LEN_MAX);
    check(rk_msg_begin(&out, msg->frame.request_id, msg->frame.response_to, msg->flags, &off) ==
          RK_OK);
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        const struct rk_msg_sequence *s = &msg->sequences[i];
        check(rk_msg_section_sequence(&out, s->id, &sequence) == RK_OK);
        check(rk_buf_append(&out, s->docs, s->docs_len) == RK_OK);
        rk_msg_sequence_end(&out, sequence);
    }
    check(rk_msg_section_body(&out) == RK_OK);
    check(rk_buf_append(&out, msg->body, msg->body_len) == RK_OK);
    rk_msg_end(&out, off);
    check(rk_msg_parse(out.data, out.len, &again, &why) == RK_PARSE_OK);
    check(again.flags == (msg->flags & ~(uint32_t)RK_MSG_CHECKSUM_PRESENT));
    check(again.body_len == msg->body_len && again.n_sequences == msg->n_sequences);
    check(memcmp(again.body, msg->body, msg->body_len) == 0);
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        const struct rk_msg_sequence *a = &again.sequences[i];
        const struct rk_msg_sequence *b = &msg->sequences[i];
        check(strcmp(a->id, b->id) == 0 && a->docs_len == b->docs_len);
        check(memcmp(a->docs, b->docs, a->docs_len) == 0);
    }
    rk_buf_deinit(&out);
}

static void check_message(const uint8_t *data, size_t len)
{
    struct rk_msg msg;
    struct rk_op_query query;
    struct rk_op_reply reply;
    const char *why = NULL;
    const uint8_t *body = NULL;
    uint32_t body_len = 0;
    enum rk_parse result = rk_msg_parse(data, len, &msg, &why);
    check((why != NULL) == (result == RK_PARSE_MALFORMED));
    if (result == RK_PARSE_OK) {
        check(inside(msg.body, msg.body_len, data, len));
        for (unsigned i = 0; i < msg.n_sequences; i++) {
            check(inside(msg.sequences[i].id, msg.sequences[i].id_len + 1, data, len));
            check(inside(msg.sequences[i].docs, msg.sequences[i].docs_len, data, len));
        }
        check_rebuilt(&msg);
    }
    if (rk_msg_peek_body(data, len, &body, &body_len)) {
        check(inside(body, body_len, data, len));
        check(result != RK_PARSE_OK || (body == msg.body && body_len == msg.body_len));
    }
    if (rk_op_query_parse(data, len, &query) == RK_PARSE_OK) {
        check(inside(query.ns, query.ns_len + 1, data, len));
        check(inside(query.query, query.query_len, data, len));
        check(inside(query.rest, query.rest_len, data, len));
    }
    if (rk_op_reply_parse(data, len, &reply) == RK_PARSE_OK) {
        check(inside(reply.docs, reply.docs_len, data, len));
    }
}

/* The same bytes with a length that is right and, where one is asked for, a right checksum. */
static void check_repaired(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len);
    check(copy != NULL);
    memcpy(copy, data, len);
    rk_store_u32(copy, (uint32_t)len);
    check_message(copy, len);
    if (len >= 24) {
        rk_store_u32(copy + 12, RK_OP_MSG);
        if ((copy[16] & RK_MSG_CHECKSUM_PRESENT) != 0) {
            rk_store_u32(copy + len - 4, rk_crc32c(copy, len - 4));
        }
        check_message(copy, len);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > LEN_MAX) {
        return 0;
    }
    struct rk_frame frame;
    size_t off = 0;
    while (rk_frame_parse(data + off, size - off, LEN_MAX, &frame) == RK_PARSE_OK &&
           frame.len <= size - off) {
        uint8_t header[RK_FRAME_HEADER_LEN];
        rk_frame_store(header, &frame);
        check(memcmp(header, data + off, sizeof header) == 0);
        check_message(data + off, frame.len);
        off += frame.len;
    }
    if (size >= RK_FRAME_HEADER_LEN) {
        check_repaired(data, size);
    }
    return 0;
}
