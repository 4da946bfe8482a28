/* A hash table, and a list by last use: who left without closing a cursor does not say so. */
#include "cursor_table.h"

#include <stdlib.h>

void rk_cursor_table_init(struct rk_cursor_table *table)
{
    TAILQ_INIT(&table->ages);
}

/* mongod's ids are random, and so are their lowest bits. */
static struct rk_cursor_chain *bucket_of(struct rk_cursor_table *table, int64_t id)
{
    return &table->buckets[(uint64_t)id % RK_CURSOR_BUCKETS];
}

struct rk_cursor *rk_cursor_find(struct rk_cursor_table *table, int64_t id)
{
    struct rk_cursor *cursor;
    LIST_FOREACH(cursor, bucket_of(table, id), chain)
    {
        if (cursor->id == id) {
            return cursor;
        }
    }
    return NULL;
}

struct rk_cursor *rk_cursor_add(struct rk_cursor_table *table, int64_t id)
{
    struct rk_cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor != NULL) {
        cursor->id = id;
        LIST_INSERT_HEAD(bucket_of(table, id), cursor, chain);
        TAILQ_INSERT_TAIL(&table->ages, cursor, age);
        table->count++;
    }
    return cursor;
}

void rk_cursor_touch(struct rk_cursor_table *table, struct rk_cursor *cursor, uint64_t now_us)
{
    cursor->used_us = now_us;
    TAILQ_REMOVE(&table->ages, cursor, age);
    TAILQ_INSERT_TAIL(&table->ages, cursor, age);
}

struct rk_cursor *rk_cursor_expired(struct rk_cursor_table *table, uint64_t now_us)
{
    struct rk_cursor *oldest = TAILQ_FIRST(&table->ages);
    return oldest != NULL && now_us - oldest->used_us > RK_CURSOR_UNUSED_MAX_US ? oldest : NULL;
}

void rk_cursor_drop(struct rk_cursor_table *table, struct rk_cursor *cursor)
{
    LIST_REMOVE(cursor, chain);
    TAILQ_REMOVE(&table->ages, cursor, age);
    table->count--;
    free(cursor);
}
