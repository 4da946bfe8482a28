#include "client_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REASON_MAX 300

/* What Vault said: its errors, joined. */
static void reason_of(const struct rk_http_answer *answer, const json_t *body, char *out,
                      size_t size)
{
    const json_t *errors = json_object_get(body, "errors");
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(errors) && used + 3 < size; i++) {
        const char *text = json_string_value(json_array_get(errors, i));
        if (text == NULL || text[0] == '\0') {
            continue;
        }
        int n = snprintf(out + used, size - used, "%s%.200s", used == 0 ? "" : "; ", text);
        used = n < 0 || (size_t)n >= size - used ? size - 1 : used + (size_t)n;
    }
    for (char *p = out; *p != '\0'; p++) {
        *p = *p == '\n' || *p == '\t' ? ' ' : *p;
    }
    if (out[0] == '\0') {
        (void)snprintf(out, size, "HTTP status %ld", answer->status);
    }
}

static const char *advice(long status)
{
    switch (status) {
    case 403:
        return " (the policy of Rekey's role must allow update on this path, and nothing may have "
               "revoked its token)";
    case 404:
        return " (is the mount enabled, and does the key exist?)";
    case 405:
        return " (is this the right kind of mount?)";
    case 429:
        return " (a rate limit quota; Rekey waits)";
    case 501:
        return " (the server is not initialized)";
    default:
        return "";
    }
}

/* Items of a batch fail one by one, under any of these. */
static bool is_batch(const struct rk_http_answer *answer, const json_t *body)
{
    return (answer->status == 400 || answer->status == 500) &&
           json_is_array(json_object_get(json_object_get(body, "data"), "batch_results"));
}

static enum rk_vault_verdict judge_failure(const char *path, const struct rk_http_answer *answer,
                                           struct rk_error *err)
{
    switch (answer->failure) {
    case RK_HTTP_TOO_LARGE:
        (void)rk_error_set(err, RK_ELIMIT,
                           "vault: %s: the answer is larger than keys.vault.response_bytes_max",
                           path);
        return RK_VAULT_FAILED;
    case RK_HTTP_UNTRUSTED:
        (void)rk_error_set(err, RK_EAUTH, "vault: %s: TLS failed: %.300s", path, answer->reason);
        return RK_VAULT_ELSEWHERE;
    case RK_HTTP_TIMEOUT:
        (void)rk_error_set(err, RK_ETIMEOUT, "vault: %s: %.300s", path, answer->reason);
        return RK_VAULT_ELSEWHERE;
    default:
        (void)rk_error_set(err, RK_EIO, "vault: %s: %.300s", path, answer->reason);
        return RK_VAULT_ELSEWHERE;
    }
}

enum rk_vault_verdict rk_vault_judge(const char *path, const struct rk_http_answer *answer,
                                     const json_t *body, struct rk_error *err)
{
    static const struct {
        long status;
        enum rk_vault_verdict verdict;
        enum rk_status error;
    } table[] = {
        {307, RK_VAULT_REDIRECTED, RK_EIO},       /* a standby names the active server */
        {308, RK_VAULT_REDIRECTED, RK_EIO},       /**/
        {400, RK_VAULT_FAILED, RK_EINVAL},        /**/
        {403, RK_VAULT_LOGIN_AGAIN, RK_EREFUSED}, /* token revoked or expired, or not allowed */
        {404, RK_VAULT_FAILED, RK_ENOENT},        /**/
        {405, RK_VAULT_FAILED, RK_EINVAL},        /**/
        {412, RK_VAULT_LATER, RK_EIO},            /* this server has not seen our last write yet */
        {413, RK_VAULT_FAILED, RK_ELIMIT},        /**/
        {429, RK_VAULT_LATER, RK_EIO},            /* rate limit quota */
        {472, RK_VAULT_ELSEWHERE, RK_EIO},        /* disaster recovery secondary */
        {473, RK_VAULT_ELSEWHERE, RK_EIO},        /* performance standby */
        {500, RK_VAULT_LATER, RK_EIO},            /**/
        {501, RK_VAULT_ELSEWHERE, RK_EIO},        /* not initialized */
        {502, RK_VAULT_LATER, RK_EIO},            /* a third party behind Vault */
        {503, RK_VAULT_ELSEWHERE, RK_EIO},        /* sealed */
        {504, RK_VAULT_LATER, RK_EIO},            /* a load balancer's timeout */
    };
    char reason[REASON_MAX];
    if (answer->failure != RK_HTTP_ANSWERED) {
        return judge_failure(path, answer, err);
    }
    if (answer->status >= 200 && answer->status < 300) {
        if (answer->len > 0 && !json_is_object(body)) {
            (void)rk_error_set(err, RK_EIO, "vault: %s: the answer is no JSON object", path);
            return RK_VAULT_FAILED;
        }
        return RK_VAULT_DONE;
    }
    if (is_batch(answer, body)) {
        return RK_VAULT_DONE;
    }
    reason_of(answer, body, reason, sizeof reason);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == answer->status) {
            (void)rk_error_set(err, table[i].error, "vault: %s: %s%s", path, reason,
                               advice(answer->status));
            return table[i].verdict;
        }
    }
    (void)rk_error_set(err, RK_EIO, "vault: %s: HTTP status %ld: %s", path, answer->status, reason);
    return RK_VAULT_FAILED;
}

bool rk_vault_url_is_at(const char *url, const char *host)
{
    static const char scheme[] = "https://";
    char with_port[300];
    if (strncasecmp(url, scheme, sizeof scheme - 1) != 0) {
        return false;
    }
    url += sizeof scheme - 1;
    size_t len = strcspn(url, "/?#");
    if (memchr(url, '@', len) != NULL) { /* user:password@host */
        return false;
    }
    const char *bracket = memchr(url, ']', len); /* of an IPv6 address */
    const char *rest = bracket != NULL ? bracket : url;
    bool has_port = memchr(rest, ':', len - (size_t)(rest - url)) != NULL;
    int n = snprintf(with_port, sizeof with_port, "%.*s%s", (int)len, url, has_port ? "" : ":443");
    return n > 0 && (size_t)n < sizeof with_port && strcasecmp(with_port, host) == 0;
}
