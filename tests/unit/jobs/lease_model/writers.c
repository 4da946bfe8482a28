/* The foreground: applications that write under the current key. */
#include "world.h"

#include <rekey/bson/rewrite.h>
#include <string.h>

#define IDS 14u
#define IDS_SMALL 7u

static uint32_t ids(const struct world *world)
{
    return world->large ? IDS : IDS_SMALL;
}

static const struct model_actor app = {0, "app"};

/* Of all types, not in their order. */
static void put_id(const struct world *world, struct rk_bson_writer *w, const char *key, uint32_t i)
{
    static const uint8_t nan[8] = {0, 0, 0, 0, 0, 0, 0xf8, 0x7f};
    static const uint8_t date[8] = {0, 0, 0, 0, 1, 0, 0, 0};
    static const uint8_t bytes[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    size_t len = strlen(key);
    if (!world_has(world, FAULT_IDS) || i >= 12) {
        rk_bson_put_int32(w, key, (int32_t)(i * 10));
        return;
    }
    switch (i) {
    case 0:
        rk_bson_put(w, RK_BSON_MINKEY, key, len, NULL, 0);
        return;
    case 1:
        rk_bson_put(w, RK_BSON_MAXKEY, key, len, NULL, 0);
        return;
    case 2:
        rk_bson_put(w, RK_BSON_DOUBLE, key, len, nan, sizeof nan);
        return;
    case 3:
        rk_bson_put(w, RK_BSON_NULL, key, len, NULL, 0);
        return;
    case 4:
        rk_bson_put_utf8(w, key, "a", 1);
        return;
    case 5:
        rk_bson_put_utf8(w, key, "$b", 2);
        return;
    case 6:
        rk_bson_put(w, RK_BSON_OID, key, len, bytes, sizeof bytes);
        return;
    case 7:
        rk_bson_put(w, RK_BSON_DATE, key, len, date, sizeof date);
        return;
    case 8:
        rk_bson_put_bool(w, key, true);
        return;
    case 9:
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, len);
        rk_bson_put_int32(w, "a", 1);
        rk_bson_end(w);
        return;
    case 10:
        rk_bson_put_double(w, key, 125.5);
        return;
    default:
        rk_bson_put_int64(w, key, 115);
        return;
    }
}

static void put_fields(struct rk_bson_writer *w, uint32_t n, const struct rk_buf *value)
{
    rk_bson_put_int32(w, "n", (int32_t)n);
    rk_bson_put(w, RK_BSON_BINARY, "s", 1, value->data, value->len);
}

static void put_document(struct world *world, struct rk_bson_writer *w, const char *key, uint32_t i,
                         uint32_t n, const struct rk_buf *value)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, strlen(key));
    put_id(world, w, "_id", i);
    put_fields(w, n, value);
    rk_bson_end(w);
}

static void put_q(struct world *world, struct rk_bson_writer *w, uint32_t i)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "q", 1);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "_id", 3);
    put_id(world, w, "$eq", i);
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_majority(struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "writeConcern", 12);
    rk_bson_put_utf8(w, "w", "majority", 8);
    rk_bson_end(w);
}

static void run(struct world *world, const char *db, struct rk_bson_writer *w)
{
    struct rk_buf reply;
    if (rk_bson_writer_status(w) != RK_OK) {
        MODEL_DIE("cannot build a command");
    }
    rk_buf_init(&reply, 1u << 20);
    world_apply(world, app, db, w->out, false, &reply);
    rk_buf_deinit(&reply);
}

static void put_key(struct rk_bson_writer *w)
{
    uint8_t now[8];
    rk_store_u64(now, 1700000000000u);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "0", 1);
    rk_bson_put_int64(w, "_id", 2);
    rk_bson_put_utf8(w, "state", "current", 7);
    rk_bson_put(w, RK_BSON_DATE, "activatedAt", 11, now, sizeof now);
    rk_bson_end(w);
}

static void begin_insert(struct rk_bson_writer *w, struct rk_buf *command, const char *coll)
{
    rk_buf_clear(command);
    rk_bson_writer_init(w, command);
    rk_bson_begin(w);
    rk_bson_put_utf8(w, "insert", coll, strlen(coll));
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "documents", 9);
}

static void end_insert(struct world *world, const char *db, struct rk_bson_writer *w, bool majority)
{
    rk_bson_end(w);
    if (majority) {
        put_majority(w);
    }
    rk_bson_end(w);
    run(world, db, w);
}

void writers_fill(struct world *world)
{
    const struct check_values *values = &world->tools->values;
    struct rk_buf command;
    struct rk_bson_writer w;
    uint32_t n_docs = 0;
    rk_buf_init(&command, 1u << 20);
    begin_insert(&w, &command, "c");
    uint32_t density = 1 + sim_random(world->sim, 4);
    for (uint32_t i = 0; i < ids(world); i++) {
        uint32_t n = sim_random(world->sim, CHECK_PLAINTEXTS);
        bool damaged = world_has(world, FAULT_DAMAGE) && sim_random(world->sim, 6) == 0;
        bool current = sim_random(world->sim, 6) == 0;
        if (sim_random(world->sim, 5) < density) {
            char key[8];
            (void)snprintf(key, sizeof key, "%u", n_docs++);
            put_document(world, &w, key, i, n,
                         damaged   ? &values->damaged[n]
                         : current ? &values->current[n]
                                   : &values->former[n]);
            world->seen[i] = world->always[i] = true;
        }
    }
    world->check.ids_ever = world->check.ids_always = n_docs;
    if (n_docs > 0) {
        end_insert(world, "app", &w, true);
    } else {
        (void)model_store_collection(&world->store, "c");
    }
    begin_insert(&w, &command, "keys");
    put_key(&w);
    end_insert(world, "state", &w, true);
    rk_buf_deinit(&command);
}

static void insert_one(struct world *world, struct rk_buf *command, uint32_t i, bool majority)
{
    struct rk_bson_writer w;
    uint32_t n = sim_random(world->sim, CHECK_PLAINTEXTS);
    begin_insert(&w, command, "c");
    put_document(world, &w, "0", i, n, &world->tools->values.current[n]);
    world->check.ids_ever += !world->seen[i];
    world->seen[i] = true;
    end_insert(world, "app", &w, majority);
}

static void update_one(struct world *world, struct rk_buf *command, uint32_t i, bool majority)
{
    struct rk_bson_writer w;
    uint32_t n = sim_random(world->sim, CHECK_PLAINTEXTS);
    rk_bson_writer_init(&w, command);
    rk_bson_begin(&w);
    rk_bson_put_utf8(&w, "update", "c", 1);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "updates", 7);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    put_q(world, &w, i);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "u", 1);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "$set", 4);
    put_fields(&w, n, &world->tools->values.current[n]);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    if (majority) {
        put_majority(&w);
    }
    rk_bson_end(&w);
    run(world, "app", &w);
}

static void delete_one(struct world *world, struct rk_buf *command, uint32_t i, bool majority)
{
    struct rk_bson_writer w;
    world->check.ids_always -= world->always[i];
    world->always[i] = false;
    rk_bson_writer_init(&w, command);
    rk_bson_begin(&w);
    rk_bson_put_utf8(&w, "delete", "c", 1);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "deletes", 7);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    put_q(world, &w, i);
    rk_bson_put_int32(&w, "limit", 1);
    rk_bson_end(&w);
    rk_bson_end(&w);
    if (majority) {
        put_majority(&w);
    }
    rk_bson_end(&w);
    run(world, "app", &w);
}

void writers_write(struct world *world)
{
    struct rk_buf command;
    uint32_t i = sim_random(world->sim, ids(world));
    bool majority = sim_random(world->sim, 3) > 0;
    rk_buf_init(&command, 1u << 20);
    switch (sim_random(world->sim, 4)) {
    case 0:
        insert_one(world, &command, i, majority);
        break;
    case 1:
        delete_one(world, &command, i, majority);
        break;
    default:
        update_one(world, &command, i, majority);
        break;
    }
    rk_buf_deinit(&command);
}
