/* What an answer of Vault means (src/vault/verdict.c), and where its redirects may lead. */
#include "../../../src/vault/client_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PATH "transit/decrypt/rekey"

static enum rk_vault_verdict judge(long status, const char *text, struct rk_error *err)
{
    json_t *body = json_loads(text, 0, NULL);
    const struct rk_http_answer answer = {.failure = RK_HTTP_ANSWERED,
                                          .status = status,
                                          .body = text,
                                          .len = strlen(text),
                                          .reason = ""};
    *err = (struct rk_error){.message = ""};
    enum rk_vault_verdict verdict = rk_vault_judge(PATH, &answer, body, err);
    json_decref(body);
    return verdict;
}

static void test_statuses(void **state)
{
    static const struct {
        long status;
        enum rk_vault_verdict verdict;
        enum rk_status error;
    } cases[] = {
        {200, RK_VAULT_DONE, RK_OK},
        {204, RK_VAULT_DONE, RK_OK},
        {307, RK_VAULT_REDIRECTED, RK_EIO},
        {400, RK_VAULT_FAILED, RK_EINVAL},
        {403, RK_VAULT_LOGIN_AGAIN, RK_EREFUSED},
        {404, RK_VAULT_FAILED, RK_ENOENT},
        {412, RK_VAULT_LATER, RK_EIO},
        {413, RK_VAULT_FAILED, RK_ELIMIT},
        {418, RK_VAULT_FAILED, RK_EIO},
        {429, RK_VAULT_LATER, RK_EIO},
        {472, RK_VAULT_ELSEWHERE, RK_EIO},
        {473, RK_VAULT_ELSEWHERE, RK_EIO},
        {500, RK_VAULT_LATER, RK_EIO},
        {503, RK_VAULT_ELSEWHERE, RK_EIO},
    };
    struct rk_error err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = cases[i].status == 204 ? "" : "{}";
        assert_int_equal(judge(cases[i].status, text, &err), cases[i].verdict);
        assert_int_equal(err.status, cases[i].error);
        if (cases[i].error != RK_OK) {
            assert_non_null(strstr(err.message, PATH));
        }
    }
}

static void test_the_reason_is_vaults(void **state)
{
    struct rk_error err;
    (void)state;
    (void)judge(403, "{\"errors\":[\"permission denied\",\"\",7,\"twice\\nover\"]}", &err);
    assert_non_null(strstr(err.message, ": permission denied; twice over (the policy"));
    (void)judge(503, "no json", &err);
    assert_non_null(strstr(err.message, "HTTP status 503"));
    (void)judge(400, "{\"errors\":\"permission denied\"}", &err);
    assert_non_null(strstr(err.message, "HTTP status 400"));
}

static void test_an_answer_must_be_an_object(void **state)
{
    struct rk_error err;
    (void)state;
    assert_int_equal(judge(200, "[1]", &err), RK_VAULT_FAILED);
    assert_int_equal(judge(200, "<html>", &err), RK_VAULT_FAILED);
    assert_non_null(strstr(err.message, "no JSON object"));
}

static void test_batches_answer_under_any_status(void **state)
{
    static const char batch[] = "{\"data\":{\"batch_results\":[{\"error\":\"no\"}]}}";
    struct rk_error err;
    (void)state;
    assert_int_equal(judge(200, batch, &err), RK_VAULT_DONE);
    assert_int_equal(judge(400, batch, &err), RK_VAULT_DONE);
    assert_int_equal(judge(500, batch, &err), RK_VAULT_DONE);
    assert_int_equal(judge(403, batch, &err), RK_VAULT_LOGIN_AGAIN);
    assert_int_equal(judge(400, "{\"data\":{\"batch_results\":7}}", &err), RK_VAULT_FAILED);
}

static void test_failures_without_an_answer(void **state)
{
    static const struct {
        enum rk_http_failure failure;
        enum rk_vault_verdict verdict;
        enum rk_status error;
    } cases[] = {
        {RK_HTTP_UNREACHABLE, RK_VAULT_ELSEWHERE, RK_EIO},
        {RK_HTTP_TIMEOUT, RK_VAULT_ELSEWHERE, RK_ETIMEOUT},
        {RK_HTTP_UNTRUSTED, RK_VAULT_ELSEWHERE, RK_EAUTH},
        {RK_HTTP_TOO_LARGE, RK_VAULT_FAILED, RK_ELIMIT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct rk_http_answer answer = {
            .failure = cases[i].failure, .body = "", .reason = "curl's words"};
        struct rk_error err;
        assert_int_equal(rk_vault_judge(PATH, &answer, NULL, &err), cases[i].verdict);
        assert_int_equal(err.status, cases[i].error);
    }
}

static void test_where_a_url_leads(void **state)
{
    (void)state;
    assert_true(rk_vault_url_is_at("https://v:8200/v1/x", "v:8200"));
    assert_true(rk_vault_url_is_at("https://V:8200", "v:8200"));
    assert_true(rk_vault_url_is_at("HTTPS://v/v1/x", "v:443"));
    assert_true(rk_vault_url_is_at("https://[::1]:8200/v1", "[::1]:8200"));
    assert_true(rk_vault_url_is_at("https://[::1]/v1", "[::1]:443"));
    assert_false(rk_vault_url_is_at("http://v:8200/v1/x", "v:8200"));
    assert_false(rk_vault_url_is_at("https://v:8201/v1/x", "v:8200"));
    assert_false(rk_vault_url_is_at("https://v:8200@evil/", "v:8200"));
    assert_false(rk_vault_url_is_at("https://v:8200@evil:1/", "evil:1"));
    assert_false(rk_vault_url_is_at("https://v:82000/", "v:8200"));
    assert_false(rk_vault_url_is_at("https://v:8200.evil/", "v:8200"));
    assert_false(rk_vault_url_is_at("https://evil/?v:8200", "v:8200"));
    assert_false(rk_vault_url_is_at("https://evil#v:8200", "v:8200"));
    assert_false(rk_vault_url_is_at("", "v:8200"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_the_reason_is_vaults),
        cmocka_unit_test(test_an_answer_must_be_an_object),
        cmocka_unit_test(test_batches_answer_under_any_status),
        cmocka_unit_test(test_failures_without_an_answer),
        cmocka_unit_test(test_where_a_url_leads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
