/*
 * The head of an HTTP request as it would arrive in pieces: what is said of the whole is said of it
 * as soon as its end is there and not before, and every view lies within the head.
 */
#include "../../src/admin/request.h"

#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_view(const char *data, size_t len, struct rk_admin_text view)
{
    check(view.data == NULL || (view.data >= data && view.data + view.len <= data + len));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct rk_admin_request request;
    char *data = malloc(size > 0 ? size : 1); /* of this size, so that an over-read is seen */
    check(data != NULL);
    memcpy(data, bytes, size);
    enum rk_parse parse = rk_admin_request_parse(data, size, &request);
    if (parse == RK_PARSE_OK) {
        check_view(data, size, request.method);
        check_view(data, size, request.path);
        check_view(data, size, request.token);
        check(request.method.len > 0 && request.path.len > 0 && request.path.data[0] == '/');
        check(memchr(request.path.data, '?', request.path.len) == NULL);
        check(memchr(request.token.data != NULL ? request.token.data : "", '\n',
                     request.token.len) == NULL);
    }
    const char *end = size > 0 ? memmem(data, size, "\r\n\r\n", 4) : NULL;
    check((end == NULL) == (parse == RK_PARSE_INCOMPLETE));
    if (end != NULL) {
        size_t head = (size_t)(end - data) + 4;
        struct rk_admin_request again;
        check(rk_admin_request_parse(data, head, &again) == parse);
        check(rk_admin_request_parse(data, head - 1, &again) == RK_PARSE_INCOMPLETE);
    }
    free(data);
    return 0;
}
