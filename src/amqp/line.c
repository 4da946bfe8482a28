#include "line.h"

#include <rekey/base/clock.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WAIT_MAX_MS 1000u

enum rk_status rk_amqp_line_init(struct rk_amqp_line *line, const struct rk_config_amqp *config,
                                 const char *secret, const char *purpose, struct rk_error *err)
{
    *line = (struct rk_amqp_line){
        .link = {.config = config, .secret = secret, .purpose = purpose},
        .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
    };
    return line->wake_fd >= 0 ? RK_OK
                              : rk_error_set(err, RK_EIO, "amqp: no file descriptor is left");
}

void rk_amqp_line_deinit(struct rk_amqp_line *line)
{
    if (line->wake_fd >= 0) {
        (void)close(line->wake_fd);
        line->wake_fd = -1;
    }
}

bool rk_amqp_line_stopping(const struct rk_amqp_line *line)
{
    return atomic_load(&line->stopping);
}

void rk_amqp_line_wake(const struct rk_amqp_line *line)
{
    const uint64_t one = 1;
    if (write(line->wake_fd, &one, sizeof one) < 0) {
        return; /* it is awake: the counter is full */
    }
}

void rk_amqp_line_wait(const struct rk_amqp_line *line)
{
    uint32_t ms = line->link.config->heartbeat_s * 250u;
    rk_amqp_link_wait(&line->link, line->wake_fd, ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS);
}

static void pause_for(const struct rk_amqp_line *line, uint64_t ms)
{
    uint64_t until = rk_clock_mono_us() + ms * 1000u;
    uint64_t now;
    while ((now = rk_clock_mono_us()) < until && !rk_amqp_line_stopping(line)) {
        rk_amqp_link_wait(&line->link, line->wake_fd, (uint32_t)((until - now) / 1000u) + 1);
    }
}

static void *line_main(void *arg)
{
    struct rk_amqp_line *line = arg;
    while (!rk_amqp_line_stopping(line)) {
        struct rk_error err;
        uint64_t pause_ms = 0;
        if (!rk_amqp_link_open(&line->link, &pause_ms)) {
            pause_for(line, pause_ms);
            continue;
        }
        enum rk_status status = line->ops->serve(line->self, &err);
        line->ops->over(line->self);
        if (status == RK_OK) {
            rk_amqp_link_leave(&line->link);
        } else {
            pause_for(line, rk_amqp_link_lose(&line->link, &err));
        }
    }
    return NULL;
}

enum rk_status rk_amqp_line_start(struct rk_amqp_line *line, const struct rk_amqp_line_ops *ops,
                                  void *self, struct rk_error *err)
{
    line->ops = ops;
    line->self = self;
    line->started = pthread_create(&line->thread, NULL, line_main, line) == 0;
    return line->started ? RK_OK : rk_error_set(err, RK_ENOMEM, "amqp: cannot start a thread");
}

void rk_amqp_line_stop(struct rk_amqp_line *line)
{
    atomic_store(&line->stopping, true);
    if (line->started) {
        rk_amqp_line_wake(line);
        pthread_join(line->thread, NULL);
        line->started = false;
    }
}
