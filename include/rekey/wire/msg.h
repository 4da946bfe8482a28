/*
 * OP_MSG, OP_QUERY and OP_REPLY bodies as views over one complete message. No copies; a view is
 * valid as long as the message's bytes are.
 */
#ifndef REKEY_WIRE_MSG_H
#define REKEY_WIRE_MSG_H

#include <rekey/base/buf.h>
#include <rekey/wire/frame.h>

enum {
    RK_MSG_CHECKSUM_PRESENT = 1u << 0,
    RK_MSG_MORE_TO_COME = 1u << 1,
    RK_MSG_EXHAUST_ALLOWED = 1u << 16,
};

#define RK_MSG_SECTIONS_MAX 16u

/* A kind-1 section: documents under an identifier such as "documents" or "updates". */
struct rk_msg_sequence {
    const char *id; /* NUL-terminated */
    uint32_t id_len;
    const uint8_t *docs; /* the documents, end to end */
    uint32_t docs_len;
};

struct rk_msg {
    struct rk_frame frame;
    uint32_t flags;
    const uint8_t *body; /* the one kind-0 document, its length already checked */
    uint32_t body_len;
    struct rk_msg_sequence sequences[RK_MSG_SECTIONS_MAX];
    unsigned n_sequences;
};

/*
 * Parses a complete OP_MSG (len == its messageLength). Sections come in any order; exactly one
 * is kind 0; identifiers are unique; unknown required flag bits (2-15) are malformed. A CRC-32C
 * that is present is verified. On RK_PARSE_MALFORMED *why says what was wrong.
 */
enum rk_parse rk_msg_parse(const uint8_t *data, size_t len, struct rk_msg *msg, const char **why);

/*
 * Looks at the start of an OP_MSG that may not have arrived whole: true when the kind-0 section
 * comes first and lies complete within avail; then *body and *body_len are set.
 */
bool rk_msg_peek_body(const uint8_t *data, size_t avail, const uint8_t **body, uint32_t *body_len);

struct rk_op_query {
    struct rk_frame frame;
    uint32_t flags;
    const char *ns; /* fullCollectionName, NUL-terminated */
    uint32_t ns_len;
    const uint8_t *query;
    uint32_t query_len;
    const uint8_t *rest; /* returnFieldsSelector or nothing */
    uint32_t rest_len;
    int32_t skip;
    int32_t n_return;
};
enum rk_parse rk_op_query_parse(const uint8_t *data, size_t len, struct rk_op_query *query);

struct rk_op_reply {
    struct rk_frame frame;
    uint32_t flags;
    int64_t cursor_id;
    int32_t starting_from;
    int32_t n_returned;
    const uint8_t *docs;
    uint32_t docs_len;
};
enum rk_parse rk_op_reply_parse(const uint8_t *data, size_t len, struct rk_op_reply *reply);

/*
 * Building. rk_msg_begin appends header and flags and returns the message's offset in out;
 * rk_msg_section_body/_sequence open a section (append the documents to out after it;
 * a sequence must be closed with its returned offset); rk_msg_end patches messageLength.
 * Checksums are never written: the flag is cleared.
 */
RK_MUST_CHECK enum rk_status rk_msg_begin(struct rk_buf *out, int32_t request_id,
                                          int32_t response_to, uint32_t flags, size_t *msg_off);
RK_MUST_CHECK enum rk_status rk_msg_section_body(struct rk_buf *out);
RK_MUST_CHECK enum rk_status rk_msg_section_sequence(struct rk_buf *out, const char *id,
                                                     size_t *seq_off);
void rk_msg_sequence_end(struct rk_buf *out, size_t seq_off);
void rk_msg_end(struct rk_buf *out, size_t msg_off);

/* CRC-32C (Castagnoli) as OP_MSG uses it. */
uint32_t rk_crc32c(const uint8_t *data, size_t len);

#endif
