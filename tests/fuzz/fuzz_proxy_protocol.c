/*
 * A PROXY header as it would arrive in pieces: whatever the parser says of the whole it says of the
 * bytes that it asked for, it never asks for more than it looks at, and never changes its mind.
 */
#include <rekey/wire/proxy_header.h>

#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_part(const uint8_t *data, size_t size)
{
    struct rk_proxy_header header;
    size_t need = 0;
    const char *why = NULL;
    uint8_t *copy = malloc(size > 0 ? size : 1); /* of this size, so that an over-read is seen */
    check(copy != NULL);
    memcpy(copy, data, size);
    enum rk_parse parse = rk_proxy_header_parse(copy, size, &header, &need, &why);
    check((why != NULL) == (parse == RK_PARSE_MALFORMED));
    check(need <= RK_PROXY_SEEN_MAX);
    if (parse == RK_PARSE_INCOMPLETE) {
        check(need > size);
    }
    if (parse == RK_PARSE_OK) {
        check(size >= need && header.len >= RK_PROXY_HEAD_LEN && header.len <= RK_PROXY_LEN_MAX);
        check(!header.has_source || header.source_len > 0);
        check(!header.has_source || header.len >= need);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_proxy_header whole;
    struct rk_proxy_header part;
    size_t need = 0;
    size_t part_need = 0;
    const char *why = NULL;
    if (size > 2 * RK_PROXY_SEEN_MAX) {
        return 0;
    }
    enum rk_parse result = rk_proxy_header_parse(data, size, &whole, &need, &why);
    for (size_t n = 0; n <= size; n++) {
        check_part(data, n);
    }
    if (result == RK_PARSE_OK) {
        check(rk_proxy_header_parse(data, need, &part, &part_need, &why) == RK_PARSE_OK);
        check(part_need == need && part.len == whole.len && part.source_len == whole.source_len);
        check(memcmp(&part.source, &whole.source, whole.source_len) == 0);
    }
    return 0;
}
