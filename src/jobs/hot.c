/*
 * A ring of _ids in the order in which they were noted, and a table that says when each was noted
 * last. The table is direct-mapped: two documents of one slot forget each other, so that one of
 * them may be noted twice; that costs a read.
 *
 * A ring entry that was taken out of turn, for its namespace, is marked by type 0.
 */
#include <rekey/base/clock.h>
#include <rekey/bson/rewrite.h>
#include <rekey/jobs/hot.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_SIZE 320u
#define NAMESPACES_MAX 64u /* that wait at once */
#define TABLE_FACTOR 4u
#define INDEX_KEY_LEN 16u

struct entry {
    uint8_t id[RK_HOT_ID_MAX];
    uint16_t len;
    uint8_t type; /* 0: taken */
    uint8_t ns;   /* index of namespaces */
};

struct noted {
    uint64_t hash;
    uint64_t at_us;
};

struct names {
    char text[NS_SIZE];
    uint32_t waiting;
};

struct rk_hot {
    pthread_mutex_t lock; /* over all but the atomics */
    _Atomic bool wanted;
    uint32_t docs_max;
    uint64_t repeat_us;
    struct entry *ring;
    uint32_t first;
    uint32_t used; /* entries from first on, those that were taken out of turn included */
    uint32_t waiting;
    struct names namespaces[NAMESPACES_MAX];
    struct noted *table;
    size_t table_size; /* a power of two */
    rk_counter noted;
    rk_counter repeated;
    rk_counter dropped;
};

struct rk_hot *rk_hot_new(const struct rk_hot_config *config)
{
    struct rk_hot *hot = calloc(1, sizeof *hot);
    if (hot == NULL) {
        return NULL;
    }
    pthread_mutex_init(&hot->lock, NULL);
    hot->docs_max = config->docs_max;
    hot->repeat_us = (uint64_t)config->repeat_ms * 1000u;
    hot->table_size = 64;
    while (hot->table_size < (size_t)config->docs_max * TABLE_FACTOR) {
        hot->table_size *= 2;
    }
    hot->ring = calloc(hot->docs_max, sizeof *hot->ring);
    hot->table = calloc(hot->table_size, sizeof *hot->table);
    if (hot->ring == NULL || hot->table == NULL) {
        rk_hot_free(hot);
        return NULL;
    }
    return hot;
}

void rk_hot_free(struct rk_hot *hot)
{
    if (hot == NULL) {
        return;
    }
    pthread_mutex_destroy(&hot->lock);
    free(hot->ring);
    free(hot->table);
    free(hot);
}

void rk_hot_set_wanted(struct rk_hot *hot, bool wanted)
{
    atomic_store_explicit(&hot->wanted, wanted, memory_order_relaxed);
}

bool rk_hot_wanted(const struct rk_hot *hot)
{
    return atomic_load_explicit(&hot->wanted, memory_order_relaxed);
}

/* FNV-1a; who makes documents collide keeps them from being noted twice, no more. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

static struct noted *noted_at(struct rk_hot *hot, uint64_t hash)
{
    return &hot->table[(hash ^ hash >> 32) & (hot->table_size - 1)];
}

/* NAMESPACES_MAX: no place. */
static uint8_t namespace_index(struct rk_hot *hot, const char *ns)
{
    uint8_t place = NAMESPACES_MAX;
    for (uint8_t i = 0; i < NAMESPACES_MAX; i++) {
        if (strcmp(hot->namespaces[i].text, ns) == 0) {
            return i;
        }
        if (hot->namespaces[i].waiting == 0 && place == NAMESPACES_MAX) {
            place = i;
        }
    }
    if (place < NAMESPACES_MAX) {
        (void)snprintf(hot->namespaces[place].text, NS_SIZE, "%s", ns);
    }
    return place;
}

static bool append(struct rk_hot *hot, const char *ns, uint8_t type, const void *id, uint32_t len)
{
    uint8_t index = hot->used < hot->docs_max ? namespace_index(hot, ns) : NAMESPACES_MAX;
    if (index == NAMESPACES_MAX) {
        return false;
    }
    struct entry *entry = &hot->ring[(hot->first + hot->used) % hot->docs_max];
    memcpy(entry->id, id, len);
    entry->len = (uint16_t)len;
    entry->type = type;
    entry->ns = index;
    hot->namespaces[index].waiting++;
    hot->used++;
    hot->waiting++;
    return true;
}

void rk_hot_note(struct rk_hot *hot, const char *ns, uint8_t type, const void *id, uint32_t len)
{
    uint64_t hash = hash_bytes(0xcbf29ce484222325u, ns, strlen(ns) + 1);
    if (len > RK_HOT_ID_MAX || pthread_mutex_trylock(&hot->lock) != 0) {
        rk_counter_add_shared(&hot->dropped, 1);
        return;
    }
    hash = hash_bytes(hash_bytes(hash, &type, 1), id, len);
    struct noted *last = noted_at(hot, hash);
    uint64_t now = rk_clock_mono_us();
    if (last->hash == hash && now - last->at_us < hot->repeat_us) {
        rk_counter_add_shared(&hot->repeated, 1);
    } else if (append(hot, ns, type, id, len)) {
        *last = (struct noted){hash, now};
        rk_counter_add_shared(&hot->noted, 1);
    } else {
        rk_counter_add_shared(&hot->dropped, 1);
    }
    pthread_mutex_unlock(&hot->lock);
}

static void skip_taken(struct rk_hot *hot)
{
    while (hot->used > 0 && hot->ring[hot->first].type == 0) {
        hot->first = (hot->first + 1) % hot->docs_max;
        hot->used--;
    }
}

static void put_id(struct rk_bson_writer *w, uint32_t index, const struct entry *entry)
{
    char key[INDEX_KEY_LEN];
    int len = snprintf(key, sizeof key, "%u", index);
    rk_bson_put(w, entry->type, key, (size_t)len, entry->id, entry->len);
}

enum rk_status rk_hot_take(struct rk_hot *hot, uint32_t max, char *ns, struct rk_buf *ids,
                           uint32_t *n)
{
    struct rk_bson_writer w;
    *n = 0;
    rk_buf_clear(ids);
    rk_bson_writer_init(&w, ids);
    pthread_mutex_lock(&hot->lock);
    skip_taken(hot);
    rk_bson_begin(&w);
    uint8_t index = hot->used > 0 ? hot->ring[hot->first].ns : 0;
    (void)snprintf(ns, NS_SIZE, "%s", hot->namespaces[index].text);
    for (uint32_t i = 0; i < hot->used && *n < max; i++) {
        struct entry *entry = &hot->ring[(hot->first + i) % hot->docs_max];
        if (entry->type != 0 && entry->ns == index) {
            put_id(&w, (*n)++, entry);
            entry->type = 0;
        }
    }
    hot->namespaces[index].waiting -= *n;
    hot->waiting -= *n;
    skip_taken(hot);
    pthread_mutex_unlock(&hot->lock);
    rk_bson_end(&w);
    return rk_bson_writer_status(&w);
}

uint32_t rk_hot_waiting(struct rk_hot *hot)
{
    pthread_mutex_lock(&hot->lock);
    uint32_t n = hot->waiting;
    pthread_mutex_unlock(&hot->lock);
    return n;
}

void rk_hot_metrics(struct rk_hot *hot, struct rk_metrics *m)
{
    rk_metrics_one(m, "rekey_sweep_hot_waiting", RK_METRIC_GAUGE,
                   "Documents that were read under an old key and wait to be rewritten first.",
                   rk_hot_waiting(hot));
    rk_metrics_family(m, "rekey_sweep_hot_total", RK_METRIC_COUNTER,
                      "Documents seen under an old key by readers: noted for the sweep, noted a "
                      "short while ago already, or dropped for want of room.");
    rk_metric(m, rk_counter_read(&hot->noted), RK_L("outcome", "noted"));
    rk_metric(m, rk_counter_read(&hot->repeated), RK_L("outcome", "repeated"));
    rk_metric(m, rk_counter_read(&hot->dropped), RK_L("outcome", "dropped"));
}
