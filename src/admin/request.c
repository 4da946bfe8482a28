#include "request.h"

#include <string.h>
#include <strings.h>

struct lines {
    const char *at;
    const char *end; /* of the last line's CRLF */
};

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static size_t token_len(struct rk_admin_text text)
{
    size_t n = 0;
    while (n < text.len && is_token_char(text.data[n])) {
        n++;
    }
    return n;
}

/* Every line ends in CRLF; there is at least one more. */
static struct rk_admin_text next_line(struct lines *lines)
{
    const char *end = memmem(lines->at, (size_t)(lines->end - lines->at), "\r\n", 2);
    struct rk_admin_text line = {lines->at, (size_t)(end - lines->at)};
    lines->at = end + 2;
    return line;
}

static bool has_control(struct rk_admin_text text, bool tabs)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == 0x7F || (c < 0x20 && !(tabs && c == '\t'))) {
            return true;
        }
    }
    return false;
}

static struct rk_admin_text skip(struct rk_admin_text text, size_t n)
{
    return (struct rk_admin_text){text.data + n, text.len - n};
}

static struct rk_admin_text trimmed(struct rk_admin_text text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text = skip(text, 1);
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* method SP target SP HTTP/1.x, with a path for target. */
static bool request_line(struct rk_admin_text line, struct rk_admin_request *request)
{
    size_t n = token_len(line);
    request->method = (struct rk_admin_text){line.data, n};
    if (n == 0 || n >= line.len || line.data[n] != ' ') {
        return false;
    }
    line = skip(line, n + 1);
    const char *space = memchr(line.data, ' ', line.len);
    if (space == NULL || line.data[0] != '/') {
        return false;
    }
    struct rk_admin_text target = {line.data, (size_t)(space - line.data)};
    struct rk_admin_text version = skip(line, target.len + 1);
    if (has_control(target, false) ||
        !(rk_admin_text_is(version, "HTTP/1.1") || rk_admin_text_is(version, "HTTP/1.0"))) {
        return false;
    }
    const char *query = memchr(target.data, '?', target.len);
    request->path = target;
    if (query != NULL) {
        request->path.len = (size_t)(query - target.data);
    }
    return true;
}

static bool field_line(struct rk_admin_text line, struct rk_admin_request *request)
{
    static const char name[] = "authorization";
    static const char scheme[] = "bearer ";
    size_t n = token_len(line);
    if (n == 0 || n >= line.len || line.data[n] != ':' || has_control(line, true)) {
        return false;
    }
    if (n != sizeof name - 1 || strncasecmp(line.data, name, n) != 0) {
        return true;
    }
    struct rk_admin_text value = trimmed(skip(line, n + 1));
    if (request->token.data != NULL) {
        return false; /* which of the two would count? */
    }
    bool bearer =
        value.len >= sizeof scheme - 1 && strncasecmp(value.data, scheme, sizeof scheme - 1) == 0;
    request->token = bearer ? trimmed(skip(value, sizeof scheme - 1)) : skip(value, value.len);
    return true;
}

bool rk_admin_text_is(struct rk_admin_text text, const char *wanted)
{
    return text.len == strlen(wanted) && memcmp(text.data, wanted, text.len) == 0;
}

enum rk_parse rk_admin_request_parse(const void *data, size_t len, struct rk_admin_request *request)
{
    const char *blank = memmem(data, len, "\r\n\r\n", 4);
    *request = (struct rk_admin_request){.token = {NULL, 0}};
    if (blank == NULL) {
        return RK_PARSE_INCOMPLETE;
    }
    struct lines lines = {.at = data, .end = blank + 2};
    bool ok = request_line(next_line(&lines), request);
    while (ok && lines.at < lines.end) {
        ok = field_line(next_line(&lines), request);
    }
    return ok ? RK_PARSE_OK : RK_PARSE_MALFORMED;
}
