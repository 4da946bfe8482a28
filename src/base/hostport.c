#include <rekey/base/hostport.h>

#include <string.h>

static bool parse_port(const char *text, char out[6])
{
    unsigned long port = 0;
    size_t n = strlen(text);
    if (n == 0 || n > 5) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned long)(text[i] - '0');
    }
    memcpy(out, text, n + 1);
    return port >= 1 && port <= 65535;
}

bool rk_hostport_parse(const char *text, struct rk_hostport *out)
{
    const char *host = text;
    size_t host_len;
    const char *colon;
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || close[1] != ':') {
            return false;
        }
        host = text + 1;
        host_len = (size_t)(close - host);
        colon = close + 1;
    } else {
        colon = strchr(text, ':');
        if (colon == NULL || strchr(colon + 1, ':') != NULL) {
            return false;
        }
        host_len = (size_t)(colon - host);
    }
    if (host_len == 0 || host_len >= sizeof out->host) {
        return false;
    }
    memcpy(out->host, host, host_len);
    out->host[host_len] = '\0';
    return parse_port(colon + 1, out->port);
}
