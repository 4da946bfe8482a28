#include <rekey/wire/frame.h>

enum rk_parse rk_frame_parse(const uint8_t *data, size_t avail, uint32_t len_max,
                             struct rk_frame *frame)
{
    if (avail < 4) {
        return RK_PARSE_INCOMPLETE;
    }
    /* A negative length is a huge unsigned one, so one comparison refuses both. */
    uint32_t len = rk_load_u32(data);
    if (len < RK_FRAME_HEADER_LEN || len > len_max) {
        return RK_PARSE_MALFORMED;
    }
    if (avail < RK_FRAME_HEADER_LEN) {
        return RK_PARSE_INCOMPLETE;
    }
    frame->len = len;
    frame->request_id = rk_load_i32(data + 4);
    frame->response_to = rk_load_i32(data + 8);
    frame->opcode = rk_load_i32(data + 12);
    return RK_PARSE_OK;
}

void rk_frame_store(uint8_t *out, const struct rk_frame *frame)
{
    rk_store_u32(out, frame->len);
    rk_store_u32(out + 4, (uint32_t)frame->request_id);
    rk_store_u32(out + 8, (uint32_t)frame->response_to);
    rk_store_u32(out + 12, (uint32_t)frame->opcode);
}
