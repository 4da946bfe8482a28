#include "newcomers_internal.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>

void rk_newcomers_deinit(struct rk_newcomers *newcomers)
{
    free(newcomers->list);
}

enum rk_status rk_newcomers_add(struct rk_newcomers *newcomers, uint32_t id, uint64_t epoch)
{
    struct rk_newcomer *grown =
        realloc(newcomers->list, (newcomers->n + 1) * sizeof *newcomers->list);
    if (grown == NULL) {
        return RK_ENOMEM;
    }
    newcomers->list = grown;
    grown[newcomers->n++] = (struct rk_newcomer){
        .id = id, .epoch = epoch, .until_us = rk_clock_mono_us() + newcomers->grace_us};
    return RK_OK;
}

/* Is everybody through who reads without it, or is it over with them? */
static bool is_over(struct rk_newcomers *newcomers, const struct rk_newcomer *newcomer,
                    bool pending)
{
    size_t n = rk_readers_before(newcomers->readers, newcomer->epoch);
    bool waits = pending && n > 0 && rk_clock_mono_us() < newcomer->until_us;
    newcomers->waiting_for = waits ? n : 0;
    if (!waits && n > 0) {
        rk_log(RK_LOG_WARN, "readers_outdated", RK_I("key_id", newcomer->id),
               RK_I("readers", (int64_t)n),
               RK_S("reason", pending ? "they were older than keys.cursor_grace_ms"
                                      : "the key became current without this instance"));
    }
    return !waits;
}

bool rk_newcomers_settled(struct rk_newcomers *newcomers, uint32_t id, bool pending)
{
    for (size_t i = 0; i < newcomers->n; i++) {
        struct rk_newcomer *newcomer = &newcomers->list[i];
        if (newcomer->id != id) {
            continue;
        }
        if (!is_over(newcomers, newcomer, pending)) {
            return false;
        }
        /* Whether or not there is somebody left: none can come. */
        rk_readers_outdate(newcomers->readers, newcomer->epoch);
        *newcomer = newcomers->list[--newcomers->n];
        return true;
    }
    return true;
}
