/* Cursors by their id, and by last use. Not locked: rk_readers' own. */
#ifndef REKEY_KEYS_CURSOR_TABLE_H
#define REKEY_KEYS_CURSOR_TABLE_H

#include <rekey/keys/readers.h>
#include <sys/queue.h>

#define RK_CURSOR_BUCKETS 4096u
/* mongod ends cursors after 10 minutes, and those without a timeout with their session, after 30.
 */
#define RK_CURSOR_UNUSED_MAX_US (31ull * 60 * 1000000)

struct rk_cursor {
    LIST_ENTRY(rk_cursor) chain;
    TAILQ_ENTRY(rk_cursor) age;
    int64_t id;
    struct rk_reader reader;
    uint64_t used_us;
};

LIST_HEAD(rk_cursor_chain, rk_cursor);
TAILQ_HEAD(rk_cursor_ages, rk_cursor);

struct rk_cursor_table {
    size_t count;
    struct rk_cursor_ages ages; /* the longest unused first */
    struct rk_cursor_chain buckets[RK_CURSOR_BUCKETS];
};

void rk_cursor_table_init(struct rk_cursor_table *table); /* zeroed memory */
struct rk_cursor *rk_cursor_find(struct rk_cursor_table *table, int64_t id);
/* NULL: out of memory. */
struct rk_cursor *rk_cursor_add(struct rk_cursor_table *table, int64_t id);
void rk_cursor_touch(struct rk_cursor_table *table, struct rk_cursor *cursor, uint64_t now_us);
/* One that nobody can use any more, or NULL. */
struct rk_cursor *rk_cursor_expired(struct rk_cursor_table *table, uint64_t now_us);
void rk_cursor_drop(struct rk_cursor_table *table, struct rk_cursor *cursor);

#endif
