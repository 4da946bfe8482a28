/* What the tests of the configuration share: a temporary directory to load rekey.yaml from. */
#ifndef TESTS_CONFIG_FIXTURE_H
#define TESTS_CONFIG_FIXTURE_H

#include <rekey/config/config.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "rekey.yaml"
#define UPSTREAM "upstream: {uri: \"mongodb://h/\"}\n"         /* one line */
#define MEMBERS "upstream:\n  uri: mongodb://h/\n  members:\n" /* three lines */

static char repository[4096];
static char dir[] = "/tmp/rk_test_config_XXXXXX";

static inline void write_bytes(const char *text, size_t len)
{
    FILE *f = fopen(FILE_NAME, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static inline struct rk_config *load_file(const char *path)
{
    struct rk_config *config = NULL;
    struct rk_error err = {0};
    if (rk_config_load(path, &config, &err) != RK_OK) {
        fail_msg("refused: %s", err.message);
    }
    assert_non_null(config->policies);
    return config;
}

static inline struct rk_config *load(const char *text)
{
    write_bytes(text, strlen(text));
    return load_file(FILE_NAME);
}

static inline struct rk_config *load_from_repository(const char *name)
{
    char path[5000];
    (void)snprintf(path, sizeof path, "%s/%s", repository, name);
    return load_file(path);
}

static inline bool enter_directory(void)
{
    return getcwd(repository, sizeof repository) != NULL && mkdtemp(dir) != NULL && chdir(dir) == 0;
}

static inline int leave_directory(int failed)
{
    (void)unlink(FILE_NAME);
    return chdir("/") == 0 && rmdir(dir) == 0 ? failed : 1;
}

/* Runs the tests inside the temporary directory, started from the repository's root. */
#define RUN_IN_DIRECTORY(tests)                                                                    \
    (enter_directory() ? leave_directory(cmocka_run_group_tests(tests, NULL, NULL)) : 1)

#endif
