/*
 * The opcodes before OP_MSG. Nothing is rewritten in them: what could meet a protected namespace
 * is refused, with the advice to use a driver of this decade (OP_MSG came with MongoDB 3.6).
 */
#include "command_internal.h"

#include <stdio.h>

#define NS_OFFSET 20u /* after the header and flags (or a reserved zero) */
#define ADVICE "this opcode cannot be encrypted; use a driver that speaks OP_MSG (MongoDB 3.6+)"

struct namespace
{
    struct rk_text db;
    struct rk_text coll;
};

static bool namespace_read(const uint8_t *data, size_t len, struct namespace *ns)
{
    if (len <= NS_OFFSET) {
        return false;
    }
    const char *text = (const char *)data + NS_OFFSET;
    size_t n = strnlen(text, len - NS_OFFSET);
    const char *dot = memchr(text, '.', n);
    if (n == len - NS_OFFSET || dot == NULL) {
        return false;
    }
    ns->db = (struct rk_text){text, (uint32_t)(dot - text)};
    ns->coll = (struct rk_text){dot + 1, (uint32_t)(n - ns->db.len - 1)};
    return true;
}

static enum rk_verdict refuse(const char *what, struct rk_error *err)
{
    rk_error_set_code(err, RK_EREFUSED, RK_CODE_NOT_SUPPORTED, "%s: %s", what, ADVICE);
    return RK_VERDICT_REJECT;
}

/* The command in a query of $cmd, also wrapped as {$query: {...}}; NULL: unknown, or no BSON. */
static const struct rk_command_spec *find_command(const struct rk_op_query *query,
                                                  struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    if (!rk_bson_view_init(view, query->query, query->query_len)) {
        return NULL;
    }
    for (unsigned wrapped = 0; wrapped < 2; wrapped++) {
        rk_bson_iter_init(&iter, view);
        if (rk_bson_next(&iter, &first) != RK_BSON_STEP_ELEM) {
            return NULL;
        }
        const struct rk_command_spec *spec = rk_command_spec_find(first.key, first.key_len);
        if (spec != NULL ||
            (!rk_bson_key_is(&first, "$query") && !rk_bson_key_is(&first, "query")) ||
            !rk_bson_elem_view(&first, view)) {
            return spec;
        }
    }
    return NULL;
}

/* A command in the old form: only what a handshake needs may reach a protected database. */
static enum rk_verdict look_at_query(const struct rk_policy_set *set, const uint8_t *data,
                                     size_t len, struct rk_command_info *info, struct rk_error *err)
{
    struct rk_op_query query;
    struct namespace ns;
    if (rk_op_query_parse(data, len, &query) != RK_PARSE_OK || !namespace_read(data, len, &ns)) {
        return rk_policy_set_empty(set) ? RK_VERDICT_FORWARD : refuse("malformed OP_QUERY", err);
    }
    if (rk_text_is(ns.coll, "$cmd")) {
        struct rk_bson_view command;
        const struct rk_command_spec *spec = find_command(&query, &command);
        if (rk_asks_x509(spec, &command)) {
            return rk_refuse_x509(err);
        }
        if (spec != NULL && spec->kind == RK_KIND_HELLO) {
            info->reply = RK_REPLY_HELLO;
            return RK_VERDICT_FORWARD;
        }
    }
    if (rk_policy_covers_db(set, ns.db.at, ns.db.len)) {
        return refuse("OP_QUERY", err);
    }
    if (rk_policy_set_empty(set) || !rk_text_is(ns.coll, "$cmd")) {
        return RK_VERDICT_FORWARD;
    }
    /* A command elsewhere may still reach a protected database: ask of it what OP_MSG is asked,
     * but nothing that would then need a closer look. */
    struct rk_bson_view body;
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    if (!rk_bson_view_init(&body, query.query, query.query_len)) {
        return refuse("malformed OP_QUERY", err);
    }
    rk_bson_iter_init(&iter, &body);
    if (rk_bson_next(&iter, &first) == RK_BSON_STEP_ELEM &&
        (rk_bson_key_is(&first, "$query") || rk_bson_key_is(&first, "query"))) {
        (void)rk_bson_elem_view(&first, &body);
    }
    struct rk_command_info inner;
    if (!rk_command_peek(set, body.data, body.len, &inner)) {
        return refuse("OP_QUERY", err);
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_command_legacy_opcode(const struct rk_policy_set *set, const uint8_t *data,
                                         size_t len, struct rk_command_info *info,
                                         struct rk_error *err)
{
    struct rk_frame frame;
    struct namespace ns;
    bool empty = rk_policy_set_empty(set);
    *info = (struct rk_command_info){.klass = RK_CLASS_OTHER, .reply = RK_REPLY_PASS};
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &frame) != RK_PARSE_OK || frame.len != len) {
        return refuse("malformed message", err);
    }
    switch (frame.opcode) {
    case RK_OP_QUERY:
        return look_at_query(set, data, len, info, err);
    case RK_OP_KILL_CURSORS:
        return RK_VERDICT_FORWARD;
    case RK_OP_INSERT:
    case RK_OP_UPDATE:
    case RK_OP_DELETE:
    case RK_OP_GET_MORE:
        info->klass = frame.opcode == RK_OP_GET_MORE ? RK_CLASS_READ : RK_CLASS_WRITE;
        if (empty) {
            return RK_VERDICT_FORWARD;
        }
        if (!namespace_read(data, len, &ns) || rk_policy_covers_db(set, ns.db.at, ns.db.len)) {
            return refuse("a write or getMore in an old opcode", err);
        }
        return RK_VERDICT_FORWARD;
    case RK_OP_COMPRESSED:
        return empty ? RK_VERDICT_FORWARD : refuse("OP_COMPRESSED was not negotiated", err);
    default:
        return empty ? RK_VERDICT_FORWARD : refuse("an unknown opcode", err);
    }
}
