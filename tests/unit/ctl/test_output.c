/* What rekeyctl prints: tables, times, JSON, exit codes of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bson/bson.h>
#include <rekey/ctl/ctl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct capture {
    int fd;    /* the stream's descriptor */
    int saved; /* what it was */
    FILE *file;
    FILE *stream;
    char text[1024];
};

static void capture_start(struct capture *capture, FILE *stream)
{
    assert_int_equal(fflush(stream), 0);
    capture->stream = stream;
    capture->fd = fileno(stream);
    capture->saved = dup(capture->fd);
    capture->file = tmpfile();
    assert_non_null(capture->file);
    assert_true(dup2(fileno(capture->file), capture->fd) >= 0);
}

static void capture_end(struct capture *capture)
{
    (void)fflush(capture->stream);
    (void)dup2(capture->saved, capture->fd);
    (void)close(capture->saved);
    rewind(capture->file);
    size_t n = fread(capture->text, 1, sizeof capture->text - 1, capture->file);
    capture->text[n] = '\0';
    (void)fclose(capture->file);
}

static void test_table(void **state)
{
    (void)state;
    static const char *const headers[] = {"ID", "NAME", "LAST"};
    static const char *const first[] = {"1", "käse", "x"};
    static const char *const second[] = {"1000", "", "a longer last one"};
    /* A name from a database that would clear the screen. */
    static const char *const third[] = {"2", "a\x1b[2Jb\nc", ""};
    struct rk_ctl_table *table = NULL;
    struct capture capture;
    assert_int_equal(rk_ctl_table_new(headers, 3, &table), RK_OK);
    assert_int_equal(rk_ctl_table_row(table, first), RK_OK);
    assert_int_equal(rk_ctl_table_row(table, second), RK_OK);
    assert_int_equal(rk_ctl_table_row(table, third), RK_OK);
    capture_start(&capture, stdout);
    rk_ctl_table_print(table);
    capture_end(&capture);
    rk_ctl_table_free(table);
    assert_string_equal(capture.text, "ID    NAME      LAST\n"
                                      "1     käse      x\n"
                                      "1000            a longer last one\n"
                                      "2     a?[2Jb?c  \n");
}

static void test_table_limits(void **state)
{
    (void)state;
    static const char *const cells[RK_CTL_COLUMNS_MAX + 1] = {"a"};
    struct rk_ctl_table *table = NULL;
    assert_int_equal(rk_ctl_table_new(cells, 0, &table), RK_ELIMIT);
    assert_int_equal(rk_ctl_table_new(cells, RK_CTL_COLUMNS_MAX + 1, &table), RK_ELIMIT);
    rk_ctl_table_free(NULL);
}

static void test_large_table(void **state)
{
    (void)state;
    static const char *const cells[] = {"a", "b"};
    struct rk_ctl_table *table = NULL;
    assert_int_equal(rk_ctl_table_new(cells, 2, &table), RK_OK);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rk_ctl_table_row(table, cells), RK_OK);
    }
    rk_ctl_table_free(table);
}

static void test_time(void **state)
{
    (void)state;
    char out[RK_CTL_TIME_LEN];
    assert_string_equal(rk_ctl_time(1795251600123, out), "2026-11-21T09:00:00Z");
    assert_string_equal(rk_ctl_time(0, out), "-");
    /* Years that no strftime buffer was made for still end inside it. */
    assert_true(strlen(rk_ctl_time(INT64_MAX, out)) < RK_CTL_TIME_LEN);
    assert_true(strlen(rk_ctl_time(INT64_MIN, out)) < RK_CTL_TIME_LEN);
    assert_string_equal(rk_ctl_time(-1000, out), "1969-12-31T23:59:59Z");
}

static void test_json(void **state)
{
    (void)state;
    struct capture capture;
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, "n", 3000000000);
    BSON_APPEND_UTF8(&doc, "s", "a\"b\n");
    capture_start(&capture, stdout);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    capture_end(&capture);
    bson_destroy(&doc);
    assert_int_equal(code, RK_CTL_OK);
    assert_string_equal(capture.text, "{ \"n\" : 3000000000, \"s\" : \"a\\\"b\\n\" }\n");
}

static void test_exit_codes(void **state)
{
    (void)state;
    static const struct {
        enum rk_status status;
        enum rk_ctl_exit code;
    } cases[] = {
        {RK_EIO, RK_CTL_FAILED},      {RK_EINVAL, RK_CTL_FAILED}, {RK_ENOMEM, RK_CTL_FAILED},
        {RK_EREFUSED, RK_CTL_FAILED}, {RK_ESTATE, RK_CTL_STATE},  {RK_ETIMEOUT, RK_CTL_UNREACHABLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct capture capture;
        struct rk_error err;
        (void)rk_error_set(&err, cases[i].status, "what went wrong");
        capture_start(&capture, stderr);
        enum rk_ctl_exit code = rk_ctl_fail(&err);
        capture_end(&capture);
        assert_int_equal(code, cases[i].code);
        assert_string_equal(capture.text, "rekeyctl: what went wrong\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),       cmocka_unit_test(test_table_limits),
        cmocka_unit_test(test_large_table), cmocka_unit_test(test_time),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
