/*
 * The proxy's own error replies, in the shape of mongod's.
 */
#include <rekey/policy/reply.h>
#include <stdio.h>

#include "policy_internal.h"

#define QUERY_FAILURE 2u

/* Names from mongod's src/mongo/base/error_codes.yml; its numbered assertions have none. */
static const struct {
    int code;
    const char *name;
} names[] = {
    {1, "InternalError"},
    {2, "BadValue"},
    {6, "HostUnreachable"},
    {7, "HostNotFound"},
    {8, "UnknownError"},
    {9, "FailedToParse"},
    {13, "Unauthorized"},
    {14, "TypeMismatch"},
    {18, "AuthenticationFailed"},
    {20, "IllegalOperation"},
    {22, "InvalidBSON"},
    {50, "MaxTimeMSExpired"},
    {52, "DollarPrefixedFieldName"},
    {57, "DottedFieldName"},
    {59, "CommandNotFound"},
    {72, "InvalidOptions"},
    {73, "InvalidNamespace"},
    {89, "NetworkTimeout"},
    {91, "ShutdownInProgress"},
    {96, "OperationFailed"},
    {115, "CommandNotSupported"},
    {146, "ExceededMemoryLimit"},
    {166, "CommandNotSupportedOnView"},
    {186, "ClientMetadataCannotBeMutated"},
    {189, "PrimarySteppedDown"},
    {262, "ExceededTimeLimit"},
    {391, "ReauthenticationRequired"},
    {462, "IngressRequestRateLimitExceeded"},
    {9001, "SocketException"},
    {10107, "NotWritablePrimary"},
    {10334, "BSONObjectTooLarge"},
    {11600, "InterruptedAtShutdown"},
    {11602, "InterruptedDueToReplStateChange"},
    {13435, "NotPrimaryNoSecondaryOk"},
    {13436, "NotPrimaryOrSecondary"},
};

static void code_name(int code, char *out, size_t size)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].code == code) {
            (void)snprintf(out, size, "%s", names[i].name);
            return;
        }
    }
    (void)snprintf(out, size, "Location%d", code);
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t avail)
{
    if (p[0] < 0x80) {
        return 1;
    }
    size_t len = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || avail < len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xED && p[1] > 0x9F;
    bool too_high = p[0] == 0xF4 && p[1] > 0x8F;
    return overlong || surrogate || too_high ? 0 : len;
}

void rk_reply_make_utf8(char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence((const unsigned char *)text + i, len - i);
        if (n == 0) {
            text[i] = '?';
            n = 1;
        }
        i += n;
    }
}

static void put_error(struct rk_bson_writer *w, const char *text_key, const struct rk_error *err)
{
    char message[sizeof err->message];
    char name[40];
    int code = err->code != 0 ? err->code : RK_CODE_INTERNAL;
    (void)snprintf(message, sizeof message, "%s", err->message);
    rk_reply_make_utf8(message, strlen(message));
    code_name(code, name, sizeof name);
    rk_bson_begin(w);
    rk_bson_put_double(w, "ok", 0.0);
    rk_bson_put_utf8(w, text_key, message, strlen(message));
    rk_bson_put_int32(w, "code", code);
    rk_bson_put_utf8(w, "codeName", name, strlen(name));
    rk_bson_end(w);
}

enum rk_status rk_reply_error_to_query(struct rk_buf *out, int32_t response_to,
                                       const struct rk_error *err)
{
    /* flags, cursor id, starting from, number of documents. QueryFailure and $err, so that nobody
     * takes the error for a document that was found. */
    static const uint8_t head[20] = {[0] = QUERY_FAILURE, [16] = 1};
    uint8_t header[RK_FRAME_HEADER_LEN] = {0};
    size_t start = out->len;
    struct rk_bson_writer w;
    rk_bson_writer_init(&w, out);
    w.status = rk_buf_append(out, header, sizeof header);
    if (w.status == RK_OK) {
        w.status = rk_buf_append(out, head, sizeof head);
    }
    put_error(&w, "$err", err);
    if (w.status != RK_OK) {
        out->len = start;
        return w.status;
    }
    const struct rk_frame frame = {
        .len = (uint32_t)(out->len - start), .response_to = response_to, .opcode = RK_OP_REPLY};
    rk_frame_store(out->data + start, &frame);
    return RK_OK;
}

enum rk_status rk_reply_error(struct rk_buf *out, int32_t request_id, int32_t response_to,
                              const struct rk_error *err)
{
    size_t rollback = out->len;
    size_t start = 0;
    struct rk_bson_writer w;
    rk_bson_writer_init(&w, out);
    w.status = rk_msg_begin(out, request_id, response_to, 0, &start);
    if (w.status == RK_OK) {
        w.status = rk_msg_section_body(out);
    }
    put_error(&w, "errmsg", err);
    if (w.status != RK_OK) {
        out->len = rollback;
        return w.status;
    }
    rk_msg_end(out, start);
    return RK_OK;
}
