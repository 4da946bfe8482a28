/* A hash table, and a list by last use: who left without closing a cursor does not say so. */
#include "cursors_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#define BUCKETS 4096u
/* mongod ends cursors after 10 minutes, and those without a timeout with their session, after 30.
 */
#define UNUSED_MAX_US (31ull * 60 * 1000000)

struct cursor {
    LIST_ENTRY(cursor) chain;
    TAILQ_ENTRY(cursor) age;
    int64_t id;
    uint64_t generation;
    uint64_t used_us;
};

LIST_HEAD(chain, cursor);
TAILQ_HEAD(ages, cursor);

struct rk_cursors {
    pthread_mutex_t mutex;
    size_t count;
    struct ages ages; /* the longest unused first */
    struct chain buckets[BUCKETS];
};

struct rk_cursors *rk_cursors_new(void)
{
    struct rk_cursors *cursors = calloc(1, sizeof *cursors);
    if (cursors != NULL) {
        (void)pthread_mutex_init(&cursors->mutex, NULL);
        TAILQ_INIT(&cursors->ages);
    }
    return cursors;
}

static void drop(struct rk_cursors *cursors, struct cursor *cursor)
{
    LIST_REMOVE(cursor, chain);
    TAILQ_REMOVE(&cursors->ages, cursor, age);
    cursors->count--;
    free(cursor);
}

void rk_cursors_free(struct rk_cursors *cursors)
{
    if (cursors == NULL) {
        return;
    }
    while (!TAILQ_EMPTY(&cursors->ages)) {
        drop(cursors, TAILQ_FIRST(&cursors->ages));
    }
    (void)pthread_mutex_destroy(&cursors->mutex);
    free(cursors);
}

/* mongod's ids are random, and so are their lowest bits. */
static struct chain *bucket_of(struct rk_cursors *cursors, int64_t id)
{
    return &cursors->buckets[(uint64_t)id % BUCKETS];
}

static struct cursor *find(struct rk_cursors *cursors, int64_t id)
{
    struct cursor *cursor;
    LIST_FOREACH(cursor, bucket_of(cursors, id), chain)
    {
        if (cursor->id == id) {
            return cursor;
        }
    }
    return NULL;
}

static void touch(struct rk_cursors *cursors, struct cursor *cursor, uint64_t now_us)
{
    cursor->used_us = now_us;
    TAILQ_REMOVE(&cursors->ages, cursor, age);
    TAILQ_INSERT_TAIL(&cursors->ages, cursor, age);
}

static struct cursor *insert(struct rk_cursors *cursors, int64_t id, size_t max, uint64_t now_us)
{
    struct cursor *oldest = TAILQ_FIRST(&cursors->ages);
    if (oldest != NULL && now_us - oldest->used_us > UNUSED_MAX_US) {
        drop(cursors, oldest);
    }
    struct cursor *cursor = cursors->count < max ? calloc(1, sizeof *cursor) : NULL;
    if (cursor != NULL) {
        cursor->id = id;
        LIST_INSERT_HEAD(bucket_of(cursors, id), cursor, chain);
        TAILQ_INSERT_TAIL(&cursors->ages, cursor, age);
        cursors->count++;
    }
    return cursor;
}

bool rk_cursors_add(struct rk_cursors *cursors, int64_t id, uint64_t generation, size_t max,
                    uint64_t now_us)
{
    (void)pthread_mutex_lock(&cursors->mutex);
    struct cursor *cursor = find(cursors, id); /* another member's may have the same id */
    if (cursor == NULL) {
        cursor = insert(cursors, id, max, now_us);
    }
    if (cursor != NULL) {
        cursor->generation = generation;
        touch(cursors, cursor, now_us);
    }
    (void)pthread_mutex_unlock(&cursors->mutex);
    return cursor != NULL;
}

uint64_t rk_cursors_use(struct rk_cursors *cursors, int64_t id, uint64_t now_us)
{
    uint64_t generation = 0;
    (void)pthread_mutex_lock(&cursors->mutex);
    struct cursor *cursor = find(cursors, id);
    if (cursor != NULL) {
        generation = cursor->generation;
        touch(cursors, cursor, now_us);
    }
    (void)pthread_mutex_unlock(&cursors->mutex);
    return generation;
}

void rk_cursors_forget(struct rk_cursors *cursors, int64_t id)
{
    (void)pthread_mutex_lock(&cursors->mutex);
    struct cursor *cursor = find(cursors, id);
    if (cursor != NULL) {
        drop(cursors, cursor);
    }
    (void)pthread_mutex_unlock(&cursors->mutex);
}
