#include <rekey/wire/msg.h>

#define MSG_FIXED_LEN (RK_FRAME_HEADER_LEN + 4u)
#define DOC_MIN 5u
/* Bits 0-15 are required: a bit we do not know changes the meaning of what follows. */
#define FLAGS_REQUIRED_UNKNOWN                                                                     \
    (0xFFFFu & ~(uint32_t)(RK_MSG_CHECKSUM_PRESENT | RK_MSG_MORE_TO_COME))

static enum rk_parse malformed(const char **why, const char *text)
{
    *why = text;
    return RK_PARSE_MALFORMED;
}

/* The length of a document at p when it fits into avail, else 0. */
static uint32_t doc_len(const uint8_t *p, size_t avail)
{
    if (avail < DOC_MIN) {
        return 0;
    }
    uint32_t len = rk_load_u32(p);
    return len < DOC_MIN || len > avail || p[len - 1] != 0 ? 0 : len;
}

static const char *parse_sequence(const uint8_t *p, size_t avail, struct rk_msg *msg,
                                  uint32_t *used)
{
    if (avail < 5) {
        return "document sequence cut short";
    }
    uint32_t size = rk_load_u32(p);
    if (size < 5 || size > avail) {
        return "document sequence length outside the message";
    }
    const char *id = (const char *)p + 4;
    size_t id_len = strnlen(id, size - 4);
    if (id_len == size - 4) {
        return "document sequence identifier without end";
    }
    if (msg->n_sequences == RK_MSG_SECTIONS_MAX) {
        return "too many document sequences";
    }
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        if (strcmp(msg->sequences[i].id, id) == 0) {
            return "document sequence identifier used twice";
        }
    }
    const uint8_t *docs = p + 4 + id_len + 1;
    uint32_t docs_len = size - 4 - (uint32_t)id_len - 1;
    for (uint32_t off = 0; off < docs_len;) {
        uint32_t n = doc_len(docs + off, docs_len - off);
        if (n == 0) {
            return "document in a sequence has a wrong length";
        }
        off += n;
    }
    msg->sequences[msg->n_sequences++] = (struct rk_msg_sequence){
        .id = id, .id_len = (uint32_t)id_len, .docs = docs, .docs_len = docs_len};
    *used = size;
    return NULL;
}

enum rk_parse rk_msg_parse(const uint8_t *data, size_t len, struct rk_msg *msg, const char **why)
{
    *msg = (struct rk_msg){0};
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &msg->frame) != RK_PARSE_OK ||
        msg->frame.len != len || msg->frame.opcode != RK_OP_MSG) {
        return malformed(why, "not one whole OP_MSG");
    }
    if (len < MSG_FIXED_LEN) {
        return malformed(why, "OP_MSG shorter than its flags");
    }
    msg->flags = rk_load_u32(data + RK_FRAME_HEADER_LEN);
    if ((msg->flags & FLAGS_REQUIRED_UNKNOWN) != 0) {
        return malformed(why, "unknown required OP_MSG flag");
    }
    size_t end = len;
    if ((msg->flags & RK_MSG_CHECKSUM_PRESENT) != 0) {
        if (end < MSG_FIXED_LEN + 4) {
            return malformed(why, "OP_MSG shorter than its checksum");
        }
        end -= 4;
        if (rk_crc32c(data, end) != rk_load_u32(data + end)) {
            return malformed(why, "OP_MSG checksum does not match");
        }
    }
    for (size_t off = MSG_FIXED_LEN; off < end;) {
        uint8_t kind = data[off++];
        uint32_t used = 0;
        if (kind == 0) {
            used = doc_len(data + off, end - off);
            if (used == 0) {
                return malformed(why, "OP_MSG body has a wrong length");
            }
            if (msg->body != NULL) {
                return malformed(why, "OP_MSG with two bodies");
            }
            msg->body = data + off;
            msg->body_len = used;
        } else if (kind == 1) {
            const char *problem = parse_sequence(data + off, end - off, msg, &used);
            if (problem != NULL) {
                return malformed(why, problem);
            }
        } else {
            return malformed(why, "unknown OP_MSG section kind");
        }
        off += used;
    }
    return msg->body == NULL ? malformed(why, "OP_MSG without a body") : RK_PARSE_OK;
}

bool rk_msg_peek_body(const uint8_t *data, size_t avail, const uint8_t **body, uint32_t *body_len)
{
    if (avail <= MSG_FIXED_LEN || data[MSG_FIXED_LEN] != 0) {
        return false;
    }
    if (avail > rk_load_u32(data)) {
        avail = rk_load_u32(data); /* what follows is another message */
    }
    if (avail <= MSG_FIXED_LEN) {
        return false;
    }
    const uint8_t *p = data + MSG_FIXED_LEN + 1;
    uint32_t len = doc_len(p, avail - MSG_FIXED_LEN - 1);
    if (len == 0) {
        return false;
    }
    *body = p;
    *body_len = len;
    return true;
}

enum rk_parse rk_op_query_parse(const uint8_t *data, size_t len, struct rk_op_query *query)
{
    *query = (struct rk_op_query){0};
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &query->frame) != RK_PARSE_OK ||
        query->frame.len != len || query->frame.opcode != RK_OP_QUERY || len < 16 + 4 + 1 + 8) {
        return RK_PARSE_MALFORMED;
    }
    query->flags = rk_load_u32(data + 16);
    query->ns = (const char *)data + 20;
    size_t ns_len = strnlen(query->ns, len - 20);
    if (ns_len == len - 20 || len - 20 - ns_len - 1 < 8) {
        return RK_PARSE_MALFORMED;
    }
    query->ns_len = (uint32_t)ns_len;
    size_t off = 20 + ns_len + 1;
    query->skip = rk_load_i32(data + off);
    query->n_return = rk_load_i32(data + off + 4);
    off += 8;
    query->query = data + off;
    query->query_len = doc_len(data + off, len - off);
    if (query->query_len == 0) {
        return RK_PARSE_MALFORMED;
    }
    off += query->query_len;
    query->rest = data + off;
    query->rest_len = (uint32_t)(len - off);
    return query->rest_len == 0 || doc_len(query->rest, query->rest_len) == query->rest_len
               ? RK_PARSE_OK
               : RK_PARSE_MALFORMED;
}

enum rk_parse rk_op_reply_parse(const uint8_t *data, size_t len, struct rk_op_reply *reply)
{
    *reply = (struct rk_op_reply){0};
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &reply->frame) != RK_PARSE_OK ||
        reply->frame.len != len || reply->frame.opcode != RK_OP_REPLY || len < 36) {
        return RK_PARSE_MALFORMED;
    }
    reply->flags = rk_load_u32(data + 16);
    reply->cursor_id = rk_load_i64(data + 20);
    reply->starting_from = rk_load_i32(data + 28);
    reply->n_returned = rk_load_i32(data + 32);
    reply->docs = data + 36;
    reply->docs_len = (uint32_t)(len - 36);
    int32_t seen = 0;
    for (uint32_t off = 0; off < reply->docs_len; seen++) {
        uint32_t n = doc_len(reply->docs + off, reply->docs_len - off);
        if (n == 0) {
            return RK_PARSE_MALFORMED;
        }
        off += n;
    }
    return seen == reply->n_returned ? RK_PARSE_OK : RK_PARSE_MALFORMED;
}

enum rk_status rk_msg_begin(struct rk_buf *out, int32_t request_id, int32_t response_to,
                            uint32_t flags, size_t *msg_off)
{
    uint8_t head[MSG_FIXED_LEN];
    const struct rk_frame frame = {
        .request_id = request_id, .response_to = response_to, .opcode = RK_OP_MSG};
    rk_frame_store(head, &frame);
    rk_store_u32(head + RK_FRAME_HEADER_LEN, flags & ~(uint32_t)RK_MSG_CHECKSUM_PRESENT);
    *msg_off = out->len;
    return rk_buf_append(out, head, sizeof head);
}

enum rk_status rk_msg_section_body(struct rk_buf *out)
{
    return rk_buf_append_u8(out, 0);
}

enum rk_status rk_msg_section_sequence(struct rk_buf *out, const char *id, size_t *seq_off)
{
    size_t id_size = strlen(id) + 1;
    enum rk_status status = rk_buf_reserve(out, 1 + 4 + id_size);
    if (status != RK_OK) {
        return status;
    }
    uint8_t *p = out->data + out->len;
    p[0] = 1;
    *seq_off = out->len + 1;
    rk_store_u32(p + 1, 0);
    memcpy(p + 5, id, id_size);
    out->len += 5 + id_size;
    return RK_OK;
}

void rk_msg_sequence_end(struct rk_buf *out, size_t seq_off)
{
    rk_store_u32(out->data + seq_off, (uint32_t)(out->len - seq_off));
}

void rk_msg_end(struct rk_buf *out, size_t msg_off)
{
    rk_store_u32(out->data + msg_off, (uint32_t)(out->len - msg_off));
}
