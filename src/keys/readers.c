/*
 * Epochs are a list, newest first. One that nobody refers to is freed when the next comes, or with
 * its last reader; the newest always stays. All of it is under one mutex: a place is taken and
 * given back once per request that compares protected fields, in well under a microsecond.
 *
 * Why no value is missed: requests enter the newest epoch only, so that the older ones can but
 * empty. The service publishes a keyset with the new key, waits until the older epochs have no
 * finite reader, or outdates those that are left, and only then announces the key (loader.c); while
 * one instance has not announced it nobody writes under it. A reply that is handed on before its
 * reader was outdated therefore was made before anything lay under the key. An instance that fell
 * silent is not waited for without end: when that time is over its replies are no answers any
 * more, until it has read the registry again.
 */
#include "readers_internal.h"

#include "cursor_table.h"

#include <assert.h>
#include <pthread.h>
#include <rekey/base/clock.h>
#include <stdlib.h>
#include <string.h>

struct rk_epoch {
    struct rk_epoch *older;
    uint64_t number;
    uint64_t generation; /* of its first keyset */
    size_t refs;         /* readers and cursors */
    size_t finite;       /* of these */
};

struct rk_readers {
    pthread_mutex_t mutex;
    struct rk_epoch *newest; /* never NULL */
    uint64_t valid_from;     /* number of the first epoch whose finite readers may go on */
    uint64_t trusted_until_us;
    int64_t *outlived; /* sorted */
    size_t n_outlived;
    struct rk_cursor_table cursors;
};

static struct rk_epoch *epoch_new(uint64_t number, uint64_t generation)
{
    struct rk_epoch *epoch = calloc(1, sizeof *epoch);
    if (epoch != NULL) {
        epoch->number = number;
        epoch->generation = generation;
    }
    return epoch;
}

struct rk_readers *rk_readers_new(void)
{
    struct rk_readers *readers = calloc(1, sizeof *readers);
    if (readers == NULL) {
        return NULL;
    }
    readers->trusted_until_us = UINT64_MAX;
    readers->newest = epoch_new(0, 0);
    if (readers->newest == NULL) {
        free(readers);
        return NULL;
    }
    (void)pthread_mutex_init(&readers->mutex, NULL);
    rk_cursor_table_init(&readers->cursors);
    return readers;
}

/* Frees the epochs behind the newest that nobody refers to. */
static void prune(struct rk_readers *readers)
{
    struct rk_epoch **link = &readers->newest->older;
    while (*link != NULL) {
        struct rk_epoch *epoch = *link;
        if (epoch->refs == 0) {
            *link = epoch->older;
            free(epoch);
        } else {
            link = &epoch->older;
        }
    }
}

static void take(struct rk_epoch *epoch, bool endless, struct rk_reader *out)
{
    epoch->refs++;
    epoch->finite += endless ? 0 : 1;
    *out = (struct rk_reader){.epoch = epoch, .endless = endless};
}

static void give_back(struct rk_readers *readers, struct rk_reader *reader)
{
    struct rk_epoch *epoch = reader->epoch;
    if (epoch != NULL) {
        assert(epoch->refs > 0);
        epoch->refs--;
        epoch->finite -= reader->endless ? 0 : 1;
        if (epoch->refs == 0 && epoch != readers->newest) {
            prune(readers);
        }
    }
    *reader = (struct rk_reader){.epoch = NULL};
}

static void close_cursor(struct rk_readers *readers, struct rk_cursor *cursor)
{
    give_back(readers, &cursor->reader);
    rk_cursor_drop(&readers->cursors, cursor);
}

void rk_readers_free(struct rk_readers *readers)
{
    struct rk_cursor *cursor;
    if (readers == NULL) {
        return;
    }
    while ((cursor = TAILQ_FIRST(&readers->cursors.ages)) != NULL) {
        close_cursor(readers, cursor);
    }
    prune(readers);
    free(readers->newest);
    free(readers->outlived);
    (void)pthread_mutex_destroy(&readers->mutex);
    free(readers);
}

/* ---- workers ------------------------------------------------------------------------------ */

bool rk_readers_enter(struct rk_readers *readers, uint64_t generation, bool endless,
                      struct rk_reader *out)
{
    (void)pthread_mutex_lock(&readers->mutex);
    bool present = generation >= readers->newest->generation;
    if (present) {
        take(readers->newest, endless, out);
    }
    (void)pthread_mutex_unlock(&readers->mutex);
    return present;
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

void rk_readers_enter_cursor(struct rk_readers *readers, int64_t id, uint64_t now_us,
                             struct rk_reader *out)
{
    *out = (struct rk_reader){.epoch = NULL};
    (void)pthread_mutex_lock(&readers->mutex);
    struct rk_cursor *cursor = rk_cursor_find(&readers->cursors, id);
    if (cursor != NULL) {
        rk_cursor_touch(&readers->cursors, cursor, now_us);
        take(cursor->reader.epoch, cursor->reader.endless, out);
    } else if (readers->n_outlived > 0) {
        out->outlived =
            bsearch(&id, readers->outlived, readers->n_outlived, sizeof id, compare_ids) != NULL;
    }
    (void)pthread_mutex_unlock(&readers->mutex);
}

void rk_readers_leave(struct rk_readers *readers, struct rk_reader *reader)
{
    if (reader->epoch != NULL) {
        (void)pthread_mutex_lock(&readers->mutex);
        give_back(readers, reader);
        (void)pthread_mutex_unlock(&readers->mutex);
    }
}

static bool outdated(const struct rk_readers *readers, const struct rk_reader *reader)
{
    if (reader->epoch == NULL) {
        return reader->outlived;
    }
    if (rk_clock_boot_us() >= readers->trusted_until_us) {
        return true;
    }
    return reader->endless ? reader->epoch != readers->newest
                           : reader->epoch->number < readers->valid_from;
}

bool rk_readers_outdated(struct rk_readers *readers, const struct rk_reader *reader)
{
    (void)pthread_mutex_lock(&readers->mutex);
    bool is = outdated(readers, reader);
    (void)pthread_mutex_unlock(&readers->mutex);
    return is;
}

/* Another member's cursor may have had the same id: the last to take it has it. */
static struct rk_cursor *place_for(struct rk_readers *readers, int64_t id, size_t max,
                                   uint64_t now_us)
{
    struct rk_cursor *cursor = rk_cursor_find(&readers->cursors, id);
    if (cursor != NULL) {
        give_back(readers, &cursor->reader);
        return cursor;
    }
    struct rk_cursor *expired = rk_cursor_expired(&readers->cursors, now_us);
    if (expired != NULL) {
        close_cursor(readers, expired);
    }
    return readers->cursors.count < max ? rk_cursor_add(&readers->cursors, id) : NULL;
}

bool rk_readers_keep_cursor(struct rk_readers *readers, int64_t id, const struct rk_reader *reader,
                            size_t max, uint64_t now_us)
{
    (void)pthread_mutex_lock(&readers->mutex);
    struct rk_cursor *cursor = place_for(readers, id, max, now_us);
    if (cursor != NULL) {
        take(reader->epoch, reader->endless, &cursor->reader);
        rk_cursor_touch(&readers->cursors, cursor, now_us);
    }
    (void)pthread_mutex_unlock(&readers->mutex);
    return cursor != NULL;
}

void rk_readers_forget_cursor(struct rk_readers *readers, int64_t id)
{
    (void)pthread_mutex_lock(&readers->mutex);
    struct rk_cursor *cursor = rk_cursor_find(&readers->cursors, id);
    if (cursor != NULL) {
        close_cursor(readers, cursor);
    }
    (void)pthread_mutex_unlock(&readers->mutex);
}

/* ---- the key service ---------------------------------------------------------------------- */

uint64_t rk_readers_advance(struct rk_readers *readers, uint64_t generation)
{
    struct rk_epoch *epoch = epoch_new(readers->newest->number + 1, generation);
    if (epoch == NULL) {
        abort(); /* out of memory for 40 bytes: the key is in use already */
    }
    (void)pthread_mutex_lock(&readers->mutex);
    epoch->older = readers->newest;
    readers->newest = epoch;
    prune(readers);
    (void)pthread_mutex_unlock(&readers->mutex);
    return epoch->number;
}

size_t rk_readers_before(struct rk_readers *readers, uint64_t epoch)
{
    size_t n = 0;
    (void)pthread_mutex_lock(&readers->mutex);
    for (const struct rk_epoch *e = readers->newest; e != NULL; e = e->older) {
        n += e->number < epoch ? e->finite : 0;
    }
    (void)pthread_mutex_unlock(&readers->mutex);
    return n;
}

uint64_t rk_readers_oldest(struct rk_readers *readers)
{
    uint64_t oldest = UINT64_MAX;
    (void)pthread_mutex_lock(&readers->mutex);
    for (const struct rk_epoch *e = readers->newest; e != NULL; e = e->older) {
        oldest = e->finite > 0 ? e->number : oldest;
    }
    (void)pthread_mutex_unlock(&readers->mutex);
    return oldest;
}

void rk_readers_outdate(struct rk_readers *readers, uint64_t epoch)
{
    (void)pthread_mutex_lock(&readers->mutex);
    if (epoch > readers->valid_from) {
        readers->valid_from = epoch;
    }
    (void)pthread_mutex_unlock(&readers->mutex);
}

bool rk_readers_trust_until(struct rk_readers *readers, uint64_t until_us)
{
    (void)pthread_mutex_lock(&readers->mutex);
    bool in_time = rk_clock_boot_us() < readers->trusted_until_us;
    readers->trusted_until_us = until_us;
    (void)pthread_mutex_unlock(&readers->mutex);
    return in_time;
}

static bool is_open_before(const struct rk_cursor *cursor, uint64_t epoch, uint64_t now_us)
{
    return !cursor->reader.endless && cursor->reader.epoch->number < epoch &&
           now_us - cursor->used_us <= RK_CURSOR_UNUSED_MAX_US;
}

int64_t *rk_readers_cursors(struct rk_readers *readers, bool all, size_t max, size_t *n)
{
    const struct rk_cursor *cursor;
    size_t found = 0;
    size_t at = 0;
    (void)pthread_mutex_lock(&readers->mutex);
    uint64_t now_us = rk_clock_mono_us();
    uint64_t epoch = all ? UINT64_MAX : readers->valid_from;
    TAILQ_FOREACH(cursor, &readers->cursors.ages, age)
    {
        found += is_open_before(cursor, epoch, now_us) ? 1 : 0;
    }
    found = found < max ? found : max;
    int64_t *ids = found > 0 ? malloc(found * sizeof *ids) : NULL;
    TAILQ_FOREACH_REVERSE(cursor, &readers->cursors.ages, rk_cursor_ages, age)
    {
        if (ids != NULL && at < found && is_open_before(cursor, epoch, now_us)) {
            ids[at++] = cursor->id;
        }
    }
    (void)pthread_mutex_unlock(&readers->mutex);
    *n = found;
    return ids;
}

enum rk_status rk_readers_set_outlived(struct rk_readers *readers, const int64_t *ids, size_t n)
{
    int64_t *sorted = NULL;
    if (n > 0) {
        sorted = malloc(n * sizeof *sorted);
        if (sorted == NULL) {
            return RK_ENOMEM;
        }
        memcpy(sorted, ids, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_ids);
    }
    (void)pthread_mutex_lock(&readers->mutex);
    int64_t *former = readers->outlived;
    readers->outlived = sorted;
    readers->n_outlived = n;
    (void)pthread_mutex_unlock(&readers->mutex);
    free(former);
    return RK_OK;
}
