#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <rekey/net/socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define RIVALS 6u
#define ROUNDS 200u

static char directory[] = "/tmp/rekey-socket.XXXXXX";
static char path[sizeof directory + 8];

static struct sockaddr_un address(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, path, strlen(path));
    return addr;
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL ||
           snprintf(path, sizeof path, "%s/socket", directory) >= (int)sizeof path;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

/* As a killed process leaves it. */
static void leave_stale_socket(void)
{
    const struct sockaddr_un addr = address();
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    (void)close(fd);
}

static bool somebody_listens(void)
{
    const struct sockaddr_un addr = address();
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool connected = connect(fd, (const struct sockaddr *)&addr, sizeof addr) == 0;
    (void)close(fd);
    return connected;
}

struct rival {
    pthread_barrier_t *start;
    struct rk_listen_socket socket;
    enum rk_status status;
};

static void *open_socket(void *arg)
{
    struct rival *rival = arg;
    (void)pthread_barrier_wait(rival->start);
    rival->status = rk_listen_socket_open(path, 8, 0600, &rival->socket, NULL);
    return NULL;
}

static unsigned open_at_once(struct rival rivals[RIVALS])
{
    pthread_t threads[RIVALS];
    pthread_barrier_t start;
    unsigned opened = 0;
    assert_int_equal(pthread_barrier_init(&start, NULL, RIVALS), 0);
    for (unsigned i = 0; i < RIVALS; i++) {
        rivals[i] = (struct rival){.start = &start};
        assert_int_equal(pthread_create(&threads[i], NULL, open_socket, &rivals[i]), 0);
    }
    for (unsigned i = 0; i < RIVALS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        opened += rivals[i].status == RK_OK;
    }
    (void)pthread_barrier_destroy(&start);
    return opened;
}

/* Each found the file stale, and the last to remove it removed what another had just made. */
static void test_one_of_many_replaces_a_stale_socket(void **state)
{
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct rival rivals[RIVALS];
        leave_stale_socket();
        assert_int_equal(open_at_once(rivals), 1);
        assert_true(somebody_listens());
        for (unsigned i = 0; i < RIVALS; i++) {
            rk_listen_socket_close(&rivals[i].socket);
        }
        assert_int_equal(access(path, F_OK), -1);
    }
}

static void test_no_directory(void **state)
{
    (void)state;
    struct rk_listen_socket opened;
    struct rk_error err = {0};
    assert_int_equal(rk_listen_socket_open("/tmp/no-such-directory/socket", 8, 0600, &opened, &err),
                     RK_EIO);
    assert_non_null(strstr(err.message, "No such file"));
    rk_listen_socket_close(&opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_many_replaces_a_stale_socket),
        cmocka_unit_test(test_no_directory),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
