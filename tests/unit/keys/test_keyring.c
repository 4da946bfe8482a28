/* The keyring provider: who may read the file, what lines say, wrapping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <rekey/keys/provider.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX_A "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
#define HEX_B "b000000000000000000000000000000000000000000000000000000000000000"

struct fixture {
    char dir[64];
    char path[96]; /* of the keyring */
    struct rk_provider provider;
    struct rk_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/rekey-keyring-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/keyring", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->provider.ops != NULL) {
        f->provider.ops->free(f->provider.self);
    }
    (void)remove(f->path); /* a file, or in one test a directory */
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

static void write_file(const char *path, const void *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void write_keyring(struct fixture *f, const char *text)
{
    write_file(f->path, text, strlen(text), 0600);
}

/* Opens the keyring anew. */
static enum rk_status open_keyring(struct fixture *f)
{
    if (f->provider.ops != NULL) {
        f->provider.ops->free(f->provider.self);
        f->provider.ops = NULL;
    }
    memset(&f->err, 0, sizeof f->err);
    return rk_keyring_open(f->path, &f->provider, &f->err);
}

static void assert_refused(struct fixture *f, enum rk_status status, const char *part)
{
    assert_int_equal(open_keyring(f), status);
    assert_int_equal(f->err.status, status);
    if (strstr(f->err.message, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", f->err.message, part);
    }
}

static void test_create(void **state)
{
    struct fixture *f = *state;
    struct stat info;
    uint8_t root[RK_DATA_KEY_LEN];
    struct rk_wrapped_key wrapped;
    assert_int_equal(rk_keyring_create(f->path, &f->err), RK_OK);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(open_keyring(f), RK_OK);
    assert_int_equal(f->provider.ops->generate(f->provider.self, 1, root, &wrapped, NULL), RK_OK);
    assert_string_equal(wrapped.kek, "kek-1");
    /* An existing keyring is never overwritten. */
    assert_int_equal(rk_keyring_create(f->path, &f->err), RK_ESTATE);
    uint8_t again[RK_DATA_KEY_LEN];
    assert_int_equal(open_keyring(f), RK_OK);
    assert_int_equal(f->provider.ops->unwrap(f->provider.self, 1, &wrapped, again, NULL), RK_OK);
    assert_memory_equal(again, root, sizeof root);
}

static void test_create_without_directory(void **state)
{
    struct fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/none/keyring", f->dir);
    assert_int_equal(rk_keyring_create(path, &f->err), RK_EIO);
}

static void test_lines(void **state)
{
    struct fixture *f = *state;
    const struct rk_legacy_key *legacy = NULL;
    size_t n = 0;
    /* Comments, empty lines, tabs, Windows line ends, and no newline at the end. */
    write_keyring(f, "# comment\n\n  \t\nkek main " HEX_A "\r\n\tlegacy\told.v1  " HEX_B "\n"
                     "legacy main " HEX_A);
    assert_int_equal(open_keyring(f), RK_OK);
    assert_int_equal(f->provider.ops->legacy(f->provider.self, &legacy, &n, NULL), RK_OK);
    assert_int_equal(n, 2);
    assert_string_equal(legacy[0].name, "old.v1");
    assert_int_equal(legacy[0].key[0], 0xB0);
    assert_string_equal(legacy[1].name, "main");
    assert_int_equal(legacy[1].key[31], 0x1F);
}

static void test_bad_lines(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"", "no key-encryption key"},
        {"# nothing\n", "no key-encryption key"},
        {"legacy old " HEX_A "\n", "no key-encryption key"},
        {"kek a " HEX_A "\nkey b " HEX_B "\n", ":2: expected"},
        {"\n\nkek\n", ":3: a name is"},
        {"kek a\n", ":1: the key of a is not 64"},
        {"kek a " HEX_A "0\n", ":1: the key of a is not 64"},
        {"kek a 0" HEX_A "\n", ":1: the key of a is not 64"},
        {"kek a " HEX_A " x\n", ":1: expected"},
        {"kek a g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n", ":1: the key"},
        {"kek a/b " HEX_A "\n", ":1: a name is"},
        {"kek a " HEX_A "\nkek a " HEX_B "\n", ":2: a second kek named a"},
        {"kek a " HEX_A "\nlegacy b " HEX_A "\nlegacy b " HEX_B, ":3: a second legacy key named b"},
        {"KEK a " HEX_A "\n", ":1: expected"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_keyring(f, cases[i].text);
        assert_int_not_equal(open_keyring(f), RK_OK);
        if (strstr(f->err.message, cases[i].says) == NULL) {
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, f->err.message, cases[i].says);
        }
        /* No part of a key is ever in a message. */
        assert_null(strstr(f->err.message, "0102030405"));
        assert_null(strstr(f->err.message, "b00000"));
    }
}

static void test_name_lengths(void **state)
{
    struct fixture *f = *state;
    char text[512];
    char name[129];
    memset(name, 'n', sizeof name);
    (void)snprintf(text, sizeof text, "kek %.127s %s\n", name, HEX_A);
    write_keyring(f, text);
    assert_int_equal(open_keyring(f), RK_OK);
    (void)snprintf(text, sizeof text, "kek %.128s %s\n", name, HEX_A);
    write_keyring(f, text);
    assert_refused(f, RK_EINVAL, ":1: a name is");
}

static void test_embedded_nul(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "kek a\0b " HEX_A "\n";
    write_file(f->path, text, sizeof text - 1, 0600);
    assert_refused(f, RK_EINVAL, ":1: a name is");
}

static void test_too_large(void **state)
{
    struct fixture *f = *state;
    const size_t len = 65537;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '\n', len);
    memcpy(text, "kek a " HEX_A, strlen("kek a " HEX_A));
    write_file(f->path, text, len - 1, 0600);
    assert_int_equal(open_keyring(f), RK_OK);
    write_file(f->path, text, len, 0600);
    assert_refused(f, RK_ELIMIT, "larger than");
    free(text);
}

static void test_too_many_keys(void **state)
{
    struct fixture *f = *state;
    FILE *file = fopen(f->path, "w");
    assert_non_null(file);
    for (int i = 0; i < 257; i++) {
        (void)fprintf(file, "kek k%d %s\n", i, HEX_A);
    }
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(f->path, 0600), 0);
    assert_refused(f, RK_ELIMIT, ":257: more than 256 keys");
}

static void test_access(void **state)
{
    struct fixture *f = *state;
    static const mode_t refused[] = {0640, 0620, 0610, 0604, 0602, 0601, 0644, 0660, 0777, 0404};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        write_file(f->path, "kek a " HEX_A "\n", strlen("kek a " HEX_A "\n"), refused[i]);
        assert_refused(f, RK_EREFUSED, "chmod 600");
        assert_int_equal(remove(f->path), 0);
    }
    write_file(f->path, "kek a " HEX_A "\n", strlen("kek a " HEX_A "\n"), 0400);
    assert_int_equal(open_keyring(f), RK_OK);
    /* Only root can give a file away, so only root can see that case. */
    if (geteuid() == 0) {
        assert_int_equal(chown(f->path, 12345, (gid_t)-1), 0);
        assert_refused(f, RK_EREFUSED, "owned by user 12345");
    }
}

static void test_not_a_file(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, RK_ENOENT, "No such file");
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_refused(f, RK_EREFUSED, "not a regular file"); /* and does not hang */
    assert_int_equal(remove(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_refused(f, RK_EREFUSED, "not a regular file");
}

/* A symbolic link is followed; what counts is the file behind it. */
static void test_symlink(void **state)
{
    struct fixture *f = *state;
    char target[128];
    (void)snprintf(target, sizeof target, "%s/target", f->dir);
    write_file(target, "kek a " HEX_A "\n", strlen("kek a " HEX_A "\n"), 0600);
    assert_int_equal(symlink(target, f->path), 0);
    assert_int_equal(open_keyring(f), RK_OK);
    assert_int_equal(chmod(target, 0644), 0);
    assert_refused(f, RK_EREFUSED, "chmod 600");
    assert_int_equal(remove(target), 0);
}

/* Computed with Python's cryptography: AESSIV(HKDF(kek, 64, "rekey aes-256-siv v1")) of root 80..9f
 * with associated data "rekey wrap v1" and 07 00 00 00. What is in registries must stay readable.
 */
static const uint8_t known[] = {
    0x79, 0xb6, 0x56, 0xae, 0x2b, 0x5b, 0x58, 0x66, 0x61, 0xf0, 0x54, 0x5c, 0x91, 0x67, 0xea, 0x65,
    0x15, 0x34, 0x4d, 0xc7, 0xeb, 0xe3, 0x3f, 0xe3, 0xec, 0x5f, 0x38, 0xee, 0xe4, 0xfd, 0x2f, 0x7d,
    0x14, 0xa0, 0xc8, 0xf7, 0x19, 0x65, 0xfc, 0xfb, 0x38, 0x77, 0x34, 0xac, 0xdb, 0xb6, 0xcc, 0x8c,
};

static struct rk_wrapped_key known_wrapped(void)
{
    struct rk_wrapped_key wrapped = {.kek = "a", .len = sizeof known};
    memcpy(wrapped.data, known, sizeof known);
    return wrapped;
}

static void test_known_wrap(void **state)
{
    struct fixture *f = *state;
    struct rk_wrapped_key wrapped = known_wrapped();
    uint8_t root[RK_DATA_KEY_LEN];
    write_keyring(f, "kek a " HEX_A "\n");
    assert_int_equal(open_keyring(f), RK_OK);
    assert_int_equal(f->provider.ops->unwrap(f->provider.self, 7, &wrapped, root, &f->err), RK_OK);
    for (unsigned i = 0; i < sizeof root; i++) {
        assert_int_equal(root[i], 0x80 + i);
    }
}

static void assert_no_unwrap(struct fixture *f, uint32_t id, const struct rk_wrapped_key *wrapped,
                             enum rk_status status)
{
    uint8_t root[RK_DATA_KEY_LEN];
    struct rk_error err = {.status = RK_OK};
    memset(root, 0, sizeof root);
    assert_int_equal(f->provider.ops->unwrap(f->provider.self, id, wrapped, root, &err), status);
    assert_int_equal(err.status, status);
    for (size_t i = 0; i < sizeof root; i++) {
        assert_int_equal(root[i], 0);
    }
}

static void test_unwrap_refusals(void **state)
{
    struct fixture *f = *state;
    struct rk_wrapped_key wrapped = known_wrapped();
    write_keyring(f, "kek a " HEX_A "\nkek b " HEX_B "\n");
    assert_int_equal(open_keyring(f), RK_OK);
    assert_no_unwrap(f, 8, &wrapped, RK_EAUTH); /* moved to another key's record */
    for (size_t i = 0; i < sizeof known; i++) {
        wrapped = known_wrapped();
        wrapped.data[i] ^= 0x01;
        assert_no_unwrap(f, 7, &wrapped, RK_EAUTH);
    }
    wrapped = known_wrapped();
    (void)snprintf(wrapped.kek, sizeof wrapped.kek, "b");
    assert_no_unwrap(f, 7, &wrapped, RK_EAUTH);
    (void)snprintf(wrapped.kek, sizeof wrapped.kek, "c");
    assert_no_unwrap(f, 7, &wrapped, RK_ENOKEY);
    static const size_t lengths[] = {0, 16, 47, 49, RK_WRAPPED_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        wrapped = known_wrapped();
        wrapped.len = lengths[i];
        assert_no_unwrap(f, 7, &wrapped, RK_EINVAL);
    }
}

/* Rotating the key-encryption key: a line is added, old data keys stay readable. */
static void test_last_kek_wraps(void **state)
{
    struct fixture *f = *state;
    struct rk_wrapped_key old = known_wrapped();
    struct rk_wrapped_key fresh[2];
    uint8_t root[2][RK_DATA_KEY_LEN];
    uint8_t again[RK_DATA_KEY_LEN];
    write_keyring(f, "kek a " HEX_A "\nkek b " HEX_B "\n");
    assert_int_equal(open_keyring(f), RK_OK);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(
            f->provider.ops->generate(f->provider.self, 8 + i, root[i], &fresh[i], &f->err), RK_OK);
        assert_string_equal(fresh[i].kek, "b");
        assert_int_equal(
            f->provider.ops->unwrap(f->provider.self, 8 + i, &fresh[i], again, &f->err), RK_OK);
        assert_memory_equal(again, root[i], sizeof again);
    }
    assert_memory_not_equal(root[0], root[1], sizeof again);
    assert_int_equal(f->provider.ops->unwrap(f->provider.self, 7, &old, again, &f->err), RK_OK);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_create),          CASE(test_create_without_directory),
        CASE(test_lines),           CASE(test_bad_lines),
        CASE(test_name_lengths),    CASE(test_embedded_nul),
        CASE(test_too_large),       CASE(test_too_many_keys),
        CASE(test_access),          CASE(test_not_a_file),
        CASE(test_symlink),         CASE(test_known_wrap),
        CASE(test_unwrap_refusals), CASE(test_last_kek_wraps),
    };
    /* Secure memory is set up as in the programs, so that its limits are met here first. OpenSSL's
     * random number generators take some of it for good, with their first use. */
    uint8_t random[32];
    if (CRYPTO_secure_malloc_init(1u << 20, 32) == 0 || RAND_priv_bytes(random, 32) != 1 ||
        RAND_bytes(random, 32) != 1) {
        return 1;
    }
    size_t used = CRYPTO_secure_used();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (CRYPTO_secure_used() != used) {
        (void)fprintf(stderr, "secure memory leaked: %zu bytes before, %zu after\n", used,
                      CRYPTO_secure_used());
        return 1;
    }
    return failed;
}
