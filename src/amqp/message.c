#include <rekey/amqp/message.h>

#include <rekey/bson/rewrite.h>
#include <string.h>

#define VERSION 1
#define DEPTH_MAX 100u
#define RETRIES_MAX 1000000

enum key {
    KEY_VERSION,
    KEY_KIND,
    KEY_JOB,
    KEY_RANGE,
    KEY_NS,
    KEY_IS_META,
    KEY_RETRIES,
    KEY_IDS,
    KEYS,
};

static const char *const keys[KEYS] = {
    "v", "kind", "jobId", "jobStatusId", "collectionName", "isMeta", "retries", "documentIds"};
static const uint8_t types[KEYS] = {RK_BSON_INT32,  RK_BSON_STRING, RK_BSON_OID,   RK_BSON_OID,
                                    RK_BSON_STRING, RK_BSON_BOOL,   RK_BSON_INT32, RK_BSON_ARRAY};

#define BIT(key) (1u << (key))

static const struct {
    const char *name;
    unsigned keys; /* all of them, and no other */
} kinds[RK_AMQP_KINDS] = {
    [RK_AMQP_RANGE] = {"range", BIT(KEY_VERSION) | BIT(KEY_KIND) | BIT(KEY_JOB) | BIT(KEY_RANGE) |
                                    BIT(KEY_NS) | BIT(KEY_IS_META) | BIT(KEY_RETRIES)},
    [RK_AMQP_DOCUMENTS] = {"documents", BIT(KEY_VERSION) | BIT(KEY_KIND) | BIT(KEY_NS) |
                                            BIT(KEY_RETRIES) | BIT(KEY_IDS)},
    [RK_AMQP_PLAN] = {"plan", BIT(KEY_VERSION) | BIT(KEY_KIND) | BIT(KEY_JOB) | BIT(KEY_IS_META)},
    [RK_AMQP_PLACE] = {"place", BIT(KEY_VERSION) | BIT(KEY_KIND)},
};

const char *rk_amqp_kind_name(enum rk_amqp_kind kind)
{
    return kinds[kind].name;
}

static void put_value(struct rk_bson_writer *w, enum key key, const struct rk_amqp_message *m)
{
    const char *name = keys[key];
    switch (key) {
    case KEY_VERSION:
        rk_bson_put_int32(w, name, VERSION);
        break;
    case KEY_KIND:
        rk_bson_put_utf8(w, name, kinds[m->kind].name, strlen(kinds[m->kind].name));
        break;
    case KEY_JOB:
    case KEY_RANGE:
        rk_bson_put(w, RK_BSON_OID, name, strlen(name),
                    key == KEY_JOB ? m->job.bytes : m->range.bytes, sizeof m->job.bytes);
        break;
    case KEY_NS:
        rk_bson_put_utf8(w, name, m->ns, strlen(m->ns));
        break;
    case KEY_IS_META:
        rk_bson_put_bool(w, name, m->is_meta);
        break;
    case KEY_RETRIES:
        rk_bson_put_int32(w, name, (int32_t)m->retries);
        break;
    case KEY_IDS:
        rk_bson_put_doc(w, RK_BSON_ARRAY, name, &m->ids);
        break;
    default:
        break;
    }
}

enum rk_status rk_amqp_message_put(struct rk_buf *out, const struct rk_amqp_message *message)
{
    struct rk_bson_writer w;
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    for (unsigned key = 0; key < KEYS; key++) {
        if ((kinds[message->kind].keys & BIT(key)) != 0) {
            put_value(&w, (enum key)key, message);
        }
    }
    rk_bson_end(&w);
    return rk_bson_writer_status(&w);
}

/* "db.collection", in the lengths that MongoDB has for them. */
static bool take_ns(struct rk_amqp_message *m, const struct rk_bson_elem *elem)
{
    const char *text;
    uint32_t len;
    if (!rk_bson_elem_utf8(elem, &text, &len) || len >= sizeof m->ns || memchr(text, 0, len)) {
        return false;
    }
    const char *dot = memchr(text, '.', len);
    if (dot == NULL || dot == text || dot + 1 == text + len || dot - text > 63) {
        return false;
    }
    memcpy(m->ns, text, len);
    m->ns[len] = '\0';
    return true;
}

static bool take_kind(struct rk_amqp_message *m, const struct rk_bson_elem *elem)
{
    const char *text;
    uint32_t len;
    for (unsigned i = 0; rk_bson_elem_utf8(elem, &text, &len) && i < RK_AMQP_KINDS; i++) {
        if (len == strlen(kinds[i].name) && memcmp(text, kinds[i].name, len) == 0) {
            m->kind = (enum rk_amqp_kind)i;
            return true;
        }
    }
    return false;
}

/* At least one, and only what can be an _id. */
static bool take_ids(struct rk_amqp_message *m, const struct rk_bson_elem *elem)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem id;
    enum rk_bson_step step;
    size_t n = 0;
    if (!rk_bson_elem_view(elem, &m->ids)) {
        return false;
    }
    rk_bson_iter_init(&iter, &m->ids);
    while ((step = rk_bson_next(&iter, &id)) == RK_BSON_STEP_ELEM) {
        if (id.type == RK_BSON_ARRAY || id.type == RK_BSON_REGEX || id.type == RK_BSON_UNDEFINED) {
            return false;
        }
        n++;
    }
    return step == RK_BSON_STEP_END && n > 0;
}

static bool take_value(struct rk_amqp_message *m, enum key key, const struct rk_bson_elem *elem)
{
    int64_t number = 0;
    switch (key) {
    case KEY_VERSION:
        return rk_bson_elem_int(elem, &number) && number == VERSION;
    case KEY_KIND:
        return take_kind(m, elem);
    case KEY_JOB:
        memcpy(m->job.bytes, elem->value, sizeof m->job.bytes);
        return true;
    case KEY_RANGE:
        memcpy(m->range.bytes, elem->value, sizeof m->range.bytes);
        return true;
    case KEY_NS:
        return take_ns(m, elem);
    case KEY_IS_META:
        m->is_meta = rk_bson_elem_truthy(elem);
        return true;
    case KEY_RETRIES:
        if (!rk_bson_elem_int(elem, &number) || number < 0 || number > RETRIES_MAX) {
            return false;
        }
        m->retries = (uint32_t)number;
        return true;
    case KEY_IDS:
        return take_ids(m, elem);
    default:
        return false;
    }
}

/* KEYS: there is no such key. */
static enum key find_key(const struct rk_bson_elem *elem)
{
    unsigned key = 0;
    while (key < KEYS && !rk_bson_key_is(elem, keys[key])) {
        key++;
    }
    return (enum key)key;
}

enum rk_status rk_amqp_message_read(const uint8_t *body, size_t len,
                                    struct rk_amqp_message *message, const char **why)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    unsigned seen = 0;
    *message = (struct rk_amqp_message){0};
    if (len > RK_AMQP_BODY_MAX) {
        *why = "longer than any of Rekey's messages";
        return RK_EINVAL;
    }
    if (!rk_bson_view_init(&view, body, len) || view.len != len ||
        !rk_bson_validate(&view, DEPTH_MAX)) {
        *why = "no BSON document";
        return RK_EINVAL;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        enum key key = find_key(&elem);
        if (key == KEYS || elem.type != types[key] || (seen & BIT(key)) != 0) {
            *why = "a key that does not belong there";
            return RK_EINVAL;
        }
        if (!take_value(message, key, &elem)) {
            *why = key == KEY_VERSION ? "of another version of Rekey" : "a value that cannot be";
            return RK_EINVAL;
        }
        seen |= BIT(key);
    }
    if (seen != kinds[message->kind].keys) {
        *why = "not the keys of its kind";
        return RK_EINVAL;
    }
    return RK_OK;
}
