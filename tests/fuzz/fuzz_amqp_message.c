/* Bodies of messages from a broker: what is taken for one is written again, byte by byte the same
 * but for the order of its keys. */
#include <rekey/amqp/message.h>

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rk_amqp_message message;
    struct rk_amqp_message again;
    struct rk_buf out;
    const char *why = NULL;
    if (rk_amqp_message_read(data, len, &message, &why) != RK_OK) {
        REQUIRE(why != NULL);
        return 0;
    }
    rk_buf_init(&out, 2 * RK_AMQP_BODY_MAX);
    REQUIRE(rk_amqp_message_put(&out, &message) == RK_OK);
    REQUIRE(out.len == len);
    REQUIRE(rk_amqp_message_read(out.data, out.len, &again, &why) == RK_OK);
    REQUIRE(again.kind == message.kind && again.retries == message.retries);
    REQUIRE(strcmp(again.ns, message.ns) == 0 && again.ids.len == message.ids.len);
    rk_buf_deinit(&out);
    return 0;
}
