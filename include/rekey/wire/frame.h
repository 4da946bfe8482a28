/*
 * The 16-byte message header of the MongoDB wire protocol
 * (mongodb.com/docs/manual/reference/mongodb-wire-protocol).
 */
#ifndef REKEY_WIRE_FRAME_H
#define REKEY_WIRE_FRAME_H

#include <rekey/base/bytes.h>

#define RK_FRAME_HEADER_LEN 16u
#define RK_FRAME_LEN_MAX 48000000u /* mongod hangs up above this (MaxMessageSizeBytes) */

enum rk_opcode {
    RK_OP_REPLY = 1,
    RK_OP_UPDATE = 2001,
    RK_OP_INSERT = 2002,
    RK_OP_QUERY = 2004,
    RK_OP_GET_MORE = 2005,
    RK_OP_DELETE = 2006,
    RK_OP_KILL_CURSORS = 2007,
    RK_OP_COMPRESSED = 2012,
    RK_OP_MSG = 2013,
};

enum rk_parse {
    RK_PARSE_OK,
    RK_PARSE_INCOMPLETE, /* well-formed so far, more bytes needed */
    RK_PARSE_MALFORMED,
};

struct rk_frame {
    uint32_t len; /* of the whole message, header included */
    int32_t request_id;
    int32_t response_to;
    int32_t opcode;
};

/* Reads a header from data. Malformed when the length is below 16 or above len_max, which is
 * checked before the caller allocates anything. */
enum rk_parse rk_frame_parse(const uint8_t *data, size_t avail, uint32_t len_max,
                             struct rk_frame *frame);

/* Writes the 16 header bytes. */
void rk_frame_store(uint8_t *out, const struct rk_frame *frame);

#endif
