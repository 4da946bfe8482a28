/* Lines as a log collector reads them back: valid JSON, whole, escaped, cut where promised. */
#include <rekey/log/log.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX 4000000u

static char dir[] = "/tmp/rk_test_log_XXXXXX";
static char path[64];

static char *slurp(const char *file)
{
    char *text = calloc(1, TEXT_MAX);
    assert_non_null(text);
    FILE *f = fopen(file, "r");
    assert_non_null(f);
    size_t len = fread(text, 1, TEXT_MAX - 1, f);
    assert_int_equal(ferror(f), 0);
    text[len] = '\0';
    (void)fclose(f);
    return text;
}

static int open_log(void **state)
{
    (void)state;
    (void)unlink(path);
    return rk_log_open(path, RK_LOG_INFO, NULL) == RK_OK ? 0 : -1;
}

static int close_log(void **state)
{
    (void)state;
    rk_log_close();
    return 0;
}

static void expect_line(const char *tail)
{
    char *text = slurp(path);
    /* {"ts":"2026-11-21T09:00:00.123Z", */
    assert_memory_equal(text, "{\"ts\":\"2", 8);
    assert_int_equal(text[17], 'T');
    assert_int_equal(text[26], '.');
    assert_memory_equal(text + 30, "Z\",", 3);
    assert_string_equal(text + 33, tail);
    free(text);
}

static void test_fields_of_every_kind(void **state)
{
    (void)state;
    rk_log(RK_LOG_WARN, "kinds", RK_S("s", "text"), RK_S("none", NULL), RK_I("i", INT64_MIN),
           RK_D("d", 1.5), RK_D("nan", NAN), RK_D("inf", INFINITY), RK_B("t", true),
           RK_B("f", false));
    expect_line("\"level\":\"warn\",\"event\":\"kinds\",\"s\":\"text\",\"none\":null,"
                "\"i\":-9223372036854775808,\"d\":1.5,\"nan\":null,\"inf\":null,\"t\":true,"
                "\"f\":false}\n");
}

static void test_escapes(void **state)
{
    (void)state;
    rk_log(RK_LOG_INFO, "escapes", RK_S("quote\"key", "a\"b\\c\nd\te\rf\x01g\x7Fh/i"),
           RK_S("utf8", "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x94\x91"),
           RK_S("bad", "\xFFx\xC3(\xE2\x82 \xED\xA0\x80 \xC0\xAF \xF5"));
    expect_line("\"level\":\"info\",\"event\":\"escapes\","
                "\"quote\\\"key\":\"a\\\"b\\\\c\\nd\\te\\rf\\u0001g\\u007fh/i\","
                "\"utf8\":\"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x94\x91\","
                "\"bad\":\"\\ufffdx\\ufffd(\\ufffd\\ufffd \\ufffd\\ufffd\\ufffd "
                "\\ufffd\\ufffd \\ufffd\"}\n");
}

static void test_strings_are_cut_between_characters(void **state)
{
    (void)state;
    char longer[2001];
    memset(longer, 'x', sizeof longer - 1);
    longer[2000] = '\0';
    /* A two-byte character over bytes 1023 and 1024 does not fit whole. */
    memcpy(longer + 1023, "\xC3\xA9", 2);
    rk_log(RK_LOG_INFO, "cut", RK_S("v", longer));
    char expected[1200];
    (void)snprintf(expected, sizeof expected,
                   "\"level\":\"info\",\"event\":\"cut\",\"v\":\"%.1023s\"}\n", longer);
    expect_line(expected);
}

static void test_exactly_1024_bytes_are_kept(void **state)
{
    (void)state;
    char text[1025];
    memset(text, 'y', 1022);
    memcpy(text + 1022, "\xC3\xA9", 3);
    rk_log(RK_LOG_INFO, "keep", RK_S("v", text));
    char expected[1200];
    (void)snprintf(expected, sizeof expected,
                   "\"level\":\"info\",\"event\":\"keep\",\"v\":\"%s\"}\n", text);
    expect_line(expected);
}

static void test_a_line_too_long_stays_json(void **state)
{
    (void)state;
    char controls[1025];
    memset(controls, 1, sizeof controls - 1);
    controls[1024] = '\0';
    rk_log(RK_LOG_INFO, "long", RK_I("a", 1), RK_S("b", controls), RK_S("c", controls),
           RK_S("d", controls), RK_I("e", 2));
    char *text = slurp(path);
    size_t len = strlen(text);
    assert_true(len <= 16384);
    assert_string_equal(text + len - 20, "\",\"truncated\":true}\n");
    assert_non_null(strstr(text, "\"c\":\""));
    assert_null(strstr(text, "\"d\":"));
    free(text);
}

static void test_levels_filter(void **state)
{
    (void)state;
    assert_false(rk_log_enabled(RK_LOG_DEBUG));
    assert_true(rk_log_enabled(RK_LOG_INFO));
    rk_log(RK_LOG_DEBUG, "hidden");
    rk_log_write(RK_LOG_DEBUG, "hidden", NULL, 0);
    assert_int_equal(rk_log_reopen(RK_LOG_ERROR, NULL), RK_OK);
    rk_log(RK_LOG_WARN, "hidden");
    rk_log(RK_LOG_ERROR, "shown");
    expect_line("\"level\":\"error\",\"event\":\"shown\"}\n");
}

static void test_reopen_follows_rotation(void **state)
{
    (void)state;
    char rotated[80];
    (void)snprintf(rotated, sizeof rotated, "%s.1", path);
    rk_log(RK_LOG_INFO, "first");
    assert_int_equal(rename(path, rotated), 0);
    rk_log(RK_LOG_INFO, "second"); /* still into the renamed file */
    assert_int_equal(rk_log_reopen(RK_LOG_INFO, NULL), RK_OK);
    rk_log(RK_LOG_INFO, "third");
    expect_line("\"level\":\"info\",\"event\":\"third\"}\n");
    char *old = slurp(rotated);
    assert_non_null(strstr(old, "first"));
    assert_non_null(strstr(old, "second"));
    assert_null(strstr(old, "third"));
    free(old);
    (void)unlink(rotated);
}

static void test_failed_reopen_changes_nothing(void **state)
{
    (void)state;
    struct rk_error err;
    rk_log(RK_LOG_INFO, "first");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(rk_log_reopen(RK_LOG_ERROR, &err), RK_EIO);
    assert_non_null(strstr(err.message, path));
    assert_true(rk_log_enabled(RK_LOG_INFO));
    rk_log(RK_LOG_INFO, "second"); /* into the unlinked file; must not crash */
    assert_int_equal(rmdir(path), 0);
}

static void test_unopenable_file_is_an_error_and_keeps_the_old_one(void **state)
{
    (void)state;
    struct rk_error err;
    assert_int_equal(rk_log_open("/nonexistent/dir/x.log", RK_LOG_INFO, &err), RK_EIO);
    assert_non_null(strstr(err.message, "/nonexistent/dir/x.log"));
    assert_non_null(strstr(err.message, "No such file"));
    rk_log(RK_LOG_INFO, "still_here");
    expect_line("\"level\":\"info\",\"event\":\"still_here\"}\n");
}

#define THREADS 4
#define LINES 500

static void *chatter(void *arg)
{
    char text[600];
    memset(text, *(char *)arg, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < LINES; i++) {
        rk_log(RK_LOG_INFO, "chatter", RK_S("text", text), RK_I("i", i));
        if (i % 50 == 0) {
            assert_int_equal(rk_log_reopen(RK_LOG_INFO, NULL), RK_OK);
        }
    }
    return NULL;
}

static void test_threads_never_mix_lines(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    char letters[] = "abcd";
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chatter, &letters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    char *text = slurp(path);
    int lines = 0;
    for (char *p = text; *p != '\0'; lines++) {
        char *end = strchr(p, '\n');
        assert_non_null(end);
        assert_memory_equal(p, "{\"ts\":", 6);
        char *value = strstr(p, "\"text\":\"") + 8;
        for (int i = 0; i < 599; i++) {
            assert_int_equal(value[i], value[0]);
        }
        assert_int_equal(end[-1], '}');
        p = end + 1;
    }
    assert_int_equal(lines, THREADS * LINES);
    free(text);
}

#define FLOOD 50
#define FLOOD_MAX 3

static long sum_of(const char *text, const char *key)
{
    long sum = 0;
    for (const char *p = strstr(text, key); p != NULL; p = strstr(p, key)) {
        p += strlen(key);
        sum += strtol(p, NULL, 10);
    }
    return sum;
}

static void test_a_flood_of_one_event_is_cut_and_counted(void **state)
{
    (void)state;
    rk_log_set_limit(FLOOD_MAX);
    for (int i = 0; i < FLOOD; i++) {
        rk_log(RK_LOG_WARN, "flood", RK_I("one", 1));
        rk_log(RK_LOG_INFO, "normal", RK_I("usual", 1));
    }
    rk_log(RK_LOG_ERROR, "other", RK_I("shown", 1));
    rk_log_close();
    rk_log_set_limit(0);
    char *text = slurp(path);
    long shown = sum_of(text, "\"event\":\"flood\",\"one\":");
    /* A slow machine may see more than one second begin. */
    assert_in_range(shown, FLOOD_MAX, FLOOD - 1);
    assert_int_equal(shown + sum_of(text, "\"of\":\"flood\",\"lines\":"), FLOOD);
    assert_int_equal(sum_of(text, "\"usual\":"), FLOOD);
    assert_int_equal(sum_of(text, "\"shown\":"), 1);
    free(text);
}

#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, open_log, close_log)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LOG(test_fields_of_every_kind),
        WITH_LOG(test_escapes),
        WITH_LOG(test_strings_are_cut_between_characters),
        WITH_LOG(test_exactly_1024_bytes_are_kept),
        WITH_LOG(test_a_line_too_long_stays_json),
        WITH_LOG(test_levels_filter),
        WITH_LOG(test_reopen_follows_rotation),
        WITH_LOG(test_failed_reopen_changes_nothing),
        WITH_LOG(test_unopenable_file_is_an_error_and_keeps_the_old_one),
        WITH_LOG(test_threads_never_mix_lines),
        WITH_LOG(test_a_flood_of_one_event_is_cut_and_counted),
    };
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s/x.log", dir);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(dir);
    return failed;
}
