#include <rekey/net/worker.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct post {
    struct post *next;
    rk_worker_fn *fn;
    void *arg;
};

struct rk_worker {
    struct event_base *base;
    struct event *wakeup;
    int wakeup_fd;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards the mailbox and stopping */
    struct post *head;
    struct post **tail;
    bool stopping;
};

static void run_mailbox(struct rk_worker *worker)
{
    (void)pthread_mutex_lock(&worker->lock);
    struct post *list = worker->head;
    worker->head = NULL;
    worker->tail = &worker->head;
    bool stopping = worker->stopping;
    (void)pthread_mutex_unlock(&worker->lock);
    while (list != NULL) {
        struct post *post = list;
        list = post->next;
        post->fn(post->arg);
        free(post);
    }
    if (stopping && worker->started) {
        (void)event_base_loopbreak(worker->base);
    }
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got; /* the mailbox says what there is to do; the counter only woke us */
    run_mailbox(arg);
}

enum rk_status rk_worker_new(struct rk_worker **out, struct rk_error *err)
{
    struct rk_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return rk_error_set(err, RK_ENOMEM, "worker: out of memory");
    }
    (void)pthread_mutex_init(&worker->lock, NULL);
    worker->tail = &worker->head;
    worker->wakeup_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    /* Other threads never touch the base itself, so it needs no locks. */
    struct event_config *config = event_config_new();
    if (config != NULL) {
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        worker->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (worker->base != NULL && worker->wakeup_fd >= 0) {
        worker->wakeup =
            event_new(worker->base, worker->wakeup_fd, EV_READ | EV_PERSIST, on_wakeup, worker);
    }
    if (worker->wakeup == NULL || event_add(worker->wakeup, NULL) != 0) {
        rk_worker_free(worker);
        return rk_error_set(err, RK_EIO, "worker: cannot create an event loop");
    }
    *out = worker;
    return RK_OK;
}

static void *run(void *arg)
{
    struct rk_worker *worker = arg;
    (void)event_base_dispatch(worker->base);
    return NULL;
}

enum rk_status rk_worker_start(struct rk_worker *worker, struct rk_error *err)
{
    if (pthread_create(&worker->thread, NULL, run, worker) != 0) {
        return rk_error_set(err, RK_EIO, "worker: cannot start a thread");
    }
    worker->started = true;
    return RK_OK;
}

static void wake(struct rk_worker *worker)
{
    const uint64_t one = 1;
    ssize_t put = write(worker->wakeup_fd, &one, sizeof one);
    (void)put; /* a full counter means that a wakeup is already due */
}

enum rk_status rk_worker_post(struct rk_worker *worker, rk_worker_fn *fn, void *arg)
{
    struct post *post = malloc(sizeof *post);
    if (post == NULL) {
        return RK_ENOMEM;
    }
    *post = (struct post){.fn = fn, .arg = arg};
    (void)pthread_mutex_lock(&worker->lock);
    *worker->tail = post;
    worker->tail = &post->next;
    (void)pthread_mutex_unlock(&worker->lock);
    wake(worker);
    return RK_OK;
}

static void on_sync(void *arg)
{
    (void)sem_post(arg);
}

enum rk_status rk_worker_sync(struct rk_worker *worker)
{
    sem_t reached;
    (void)sem_init(&reached, 0, 0);
    enum rk_status status = rk_worker_post(worker, on_sync, &reached);
    while (status == RK_OK && sem_wait(&reached) != 0) {
        /* interrupted by a signal */
    }
    (void)sem_destroy(&reached);
    return status;
}

void rk_worker_stop(struct rk_worker *worker)
{
    (void)pthread_mutex_lock(&worker->lock);
    worker->stopping = true;
    (void)pthread_mutex_unlock(&worker->lock);
    wake(worker);
}

void rk_worker_join(struct rk_worker *worker)
{
    if (worker->started) {
        (void)pthread_join(worker->thread, NULL);
        worker->started = false;
    }
}

void rk_worker_free(struct rk_worker *worker)
{
    if (worker == NULL) {
        return;
    }
    run_mailbox(worker);
    if (worker->wakeup != NULL) {
        event_free(worker->wakeup);
    }
    if (worker->base != NULL) {
        event_base_free(worker->base);
    }
    if (worker->wakeup_fd >= 0) {
        (void)close(worker->wakeup_fd);
    }
    (void)pthread_mutex_destroy(&worker->lock);
    free(worker);
}

struct event_base *rk_worker_base(struct rk_worker *worker)
{
    return worker->base;
}
