/* Requests as whole messages: which pass, which are rewritten, which are refused. */
#include "request.h"

static void test_peek_passes_what_no_policy_concerns(void **state)
{
    (void)state;
    assert_true(peek("{'find': 'people', 'filter': {'ssn': 'x'}, '$db': 'other'}"));
    assert_int_equal(info.reply, RK_REPLY_PASS);
    assert_int_equal(info.klass, RK_CLASS_READ);
    assert_string_equal(info.name, "find");
    assert_string_equal(info.db, "other");
    assert_string_equal(info.coll, "people");
    assert_true(peek("{'hello': 1, '$db': 'admin'}"));
    assert_int_equal(info.reply, RK_REPLY_HELLO);
    assert_true(peek("{'saslStart': 1, 'payload': 'x', '$db': 'shop'}"));
    assert_int_equal(info.reply, RK_REPLY_PASS);
    assert_true(peek("{'insert': 'orders', '$db': 'shop'}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_int_equal(info.klass, RK_CLASS_WRITE);
    assert_null(info.policy);
    assert_true(peek("{'getMore': 5L, 'collection': 'people', '$db': 'shop'}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_ptr_equal(info.policy, rk_policy_find(set, "shop", 4, "people", 6));
    assert_string_equal(info.coll, "people");
    /* Values of commands that take no collection are neither looked up nor shown. */
    assert_true(peek("{'usersInfo': 'people', '$db': 'crm'}"));
    assert_string_equal(info.coll, "");
    assert_true(peek("{'frobnicate': 'SECRET', '$db': 'shop'}"));
    assert_string_equal(info.coll, "");
    assert_true(peek("{'aggregate': 'x', 'pipeline': [{'$match': {}}], '$db': 'other'}"));
    assert_int_equal(info.reply, RK_REPLY_PASS);
    assert_false(peek("{'aggregate': 1, 'pipeline': [{'$changeStream': {}}], '$db': 'admin'}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
}

static void test_peek_stops_what_needs_a_look(void **state)
{
    (void)state;
    assert_false(peek("{'find': 'people', '$db': 'shop'}"));
    assert_ptr_equal(info.policy, rk_policy_find(set, "shop", 4, "people", 6));
    assert_false(peek("{'insert': 'anything', '$db': 'crm'}"));
    assert_false(peek("{'explain': {'find': 'people'}, '$db': 'shop'}"));
    assert_false(peek("{'aggregate': 'x', 'pipeline': [{'$out': 'y'}], '$db': 'other'}"));
    assert_false(peek("{'aggregate': 'x', 'pipeline': [], '$db': 'shop'}"));
    assert_false(peek("{'bulkWrite': 1, '$db': 'admin'}"));
    assert_false(peek("{'renameCollection': 'a.b', 'to': 'c.d', '$db': 'admin'}"));
    assert_false(peek("{'applyOps': [], '$db': 'admin'}"));
    assert_false(peek("{'find': 'x', '$db': 'other', '$db': 'shop'}"));
    assert_false(rk_command_peek(set, (const uint8_t *)"\x05\0\0\0\0", 5, &info));
    assert_false(rk_command_peek(set, (const uint8_t *)"\x09\0\0\0\0", 5, &info));
    assert_false(rk_command_peek(set, NULL, 0, &info));
}

static void test_without_policies_everything_passes(void **state)
{
    size_t msg_off;
    static const char *const bodies[] = {
        "{'insert': 'people', 'documents': [{'ssn': 'x'}], '$db': 'shop'}",
        "{'applyOps': [], '$db': 'admin'}",
        "{'frobnicate': 'people', '$db': 'shop'}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        message_begin(&msg_off);
        message_body(bodies[i]);
        rk_msg_end(&message, msg_off);
        assert_int_equal(rewrite_message(empty_set), RK_VERDICT_FORWARD);
        assert_int_equal(info.reply, RK_REPLY_PASS);
    }
}

static void test_insert(void **state)
{
    (void)state;
    assert_replace("{'insert': 'people', 'documents': [{'_id': 1, 'ssn': 'x'}, {'_id': 2}], "
                   "'ordered': true, '$db': 'shop'}",
                   "{'insert': 'people', 'documents': [{'_id': 1, 'ssn': <9: 'x'>}, {'_id': 2}], "
                   "'ordered': true, '$db': 'shop'}");
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_forward("{'insert': 'people', 'documents': [{'_id': 1, 'ssn': null}], '$db': 'shop'}");
    assert_replace("{'insert': 'people', 'documents': [{'contacts': [{'phone': '1', 'n': 2}]}], "
                   "'$db': 'shop'}",
                   "{'insert': 'people', 'documents': [{'contacts': [{'phone': <9: '1'>, 'n': "
                   "2}]}], '$db': 'shop'}");
    /* Values lie under other paths there ("data.mail.0"), which no policy names. */
    assert_reject("{'insert': 'system.buckets.x', 'documents': [{'data': {'mail': {'0': 'SECRET'}}}"
                  "], '$db': 'crm'}",
                  73);
    assert_reject("{'find': 'system.buckets.people', 'filter': {'data.ssn.0': 'SECRET'}, '$db': "
                  "'shop'}",
                  73);
    assert_forward("{'find': 'system.buckets.orders', '$db': 'shop'}");
    assert_reject("{'insert': 'people', 'documents': ['SECRET'], '$db': 'shop'}", 14);
    assert_reject("{'insert': 'people', 'documents': [['SECRET']], '$db': 'shop'}", 14);
    assert_reject("{'insert': 'people', 'documents': {'ssn': 'SECRET'}, '$db': 'shop'}", 14);
    assert_failed("{'insert': 'people', 'documents': [{'ssn': 1.5}], '$db': 'shop'}", 31041);
}

static void test_sequences_before_and_after_the_body(void **state)
{
    size_t msg_off;
    static const char *const docs[] = {"{'_id': 1, 'ssn': 'x'}", "{'_id': 2, 'note': 'y'}", NULL};
    (void)state;
    message_begin(&msg_off);
    message_sequence("documents", docs);
    message_body("{'insert': 'people', '$db': 'shop', 'lsid': {'id': 1}}");
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_string_equal(show_rewritten(), "documents{'_id': 1, 'ssn': <9: 'x'>}"
                                          "documents{'_id': 2, 'note': <9: 'y'>}"
                                          "{'insert': 'people', '$db': 'shop', 'lsid': {'id': 1}}");
    message_begin(&msg_off);
    message_body("{'insert': 'people', '$db': 'shop'}");
    message_sequence("documents", docs);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_string_equal(show_rewritten(), "{'insert': 'people', '$db': 'shop'}"
                                          "documents{'_id': 1, 'ssn': <9: 'x'>}"
                                          "documents{'_id': 2, 'note': <9: 'y'>}");
    message_begin(&msg_off);
    message_body("{'insert': 'people', '$db': 'shop'}");
    message_sequence("papers", docs);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 115);
}

static void test_hold_without_a_current_key(void **state)
{
    (void)state;
    fixture_no_keys(&fx);
    fx.crypt.missing_key = 99;
    assert_int_equal(run("{'insert': 'people', 'documents': [{'ssn': 'x'}], '$db': 'shop'}"),
                     RK_VERDICT_HOLD);
    assert_int_equal(fx.crypt.missing_key, 0);
    assert_int_equal(run("{'find': 'people', 'filter': {'ssn': 'x'}, '$db': 'shop'}"),
                     RK_VERDICT_HOLD);
    assert_forward("{'insert': 'people', 'documents': [{'a': 'x'}], '$db': 'shop'}");
    use_two_keys();
}

static void test_limit_and_malformed(void **state)
{
    size_t msg_off;
    struct rk_msg msg;
    const char *why;
    (void)state;
    message_begin(&msg_off);
    message_body("{'insert': 'people', 'documents': [{'ssn': 'SECRET'}], '$db': 'shop'}");
    rk_msg_end(&message, msg_off);
    struct rk_buf small;
    rk_buf_init(&small, message.len + 8);
    assert_int_equal(rk_msg_parse(message.data, message.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(
        rk_command_rewrite(set, &fx.crypt, message.data, message.len, &msg, &small, &info, &err),
        RK_VERDICT_REJECT);
    assert_int_equal(err.code, 10334);
    rk_buf_deinit(&small);

    /* The type byte of ssn becomes one that does not exist. */
    uint8_t *key = memmem(message.data, message.len, "ssn", 4);
    assert_non_null(key);
    key[-1] = 0x66;
    assert_int_equal(rewrite_message(set), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 22);
}

static void test_nesting(void **state)
{
    size_t msg_off;
    char json[8192];
    int n = snprintf(json, sizeof json, "{'insert': 'people', 'documents': [");
    (void)state;
    for (int i = 0; i < 210; i++) {
        n += snprintf(json + n, sizeof json - (size_t)n, "{'a': ");
    }
    n += snprintf(json + n, sizeof json - (size_t)n, "1");
    for (int i = 0; i < 210; i++) {
        n += snprintf(json + n, sizeof json - (size_t)n, "}");
    }
    (void)snprintf(json + n, sizeof json - (size_t)n, "], '$db': 'shop'}");
    message_begin(&msg_off);
    message_body(json);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 22);
}

static void test_find(void **state)
{
    (void)state;
    assert_replace("{'find': 'people', 'filter': {'ssn': 'x'}, 'limit': 1, '$db': 'shop'}",
                   "{'find': 'people', 'filter': {'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}, "
                   "'limit': 1, '$db': 'shop'}");
    assert_forward("{'find': 'people', 'filter': {}, 'sort': {'_id': 1}, 'projection': {'ssn': 1}, "
                   "'$db': 'shop'}");
    assert_forward("{'find': 'people', 'projection': {'contacts.phone': 0}, '$db': 'shop'}");
    assert_forward("{'find': 'people', 'projection': {'id': '$ssn'}, '$db': 'shop'}");
    assert_reject("{'find': 'old', 'projection': {'id': '$ssn'}, '$db': 'shop'}", 51092);
    assert_reject("{'find': 'people', 'projection': {'id': {'$concat': ['$ssn', 'SECRET']}}, "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'find': 'people', 'projection': {'note': {'$slice': 1}}, '$db': 'shop'}",
                  51092);
    assert_reject("{'find': 'people', 'projection': {'ssn.a': 1}, '$db': 'shop'}", 51102);
    assert_reject("{'find': 'people', 'sort': {'ssn': 1}, '$db': 'shop'}", 51092);
    assert_reject("{'find': 'people', 'sort': {'contacts': 1}, '$db': 'shop'}", 51092);
    assert_reject("{'find': 'people', 'min': {'ssn': 'SECRET'}, 'hint': 'x', '$db': 'shop'}",
                  51092);
    assert_reject("{'find': 'people', 'filter': 'SECRET', '$db': 'shop'}", 14);
    assert_reject("{'find': {'uuid': 1}, 'filter': {'ssn': 'SECRET'}, '$db': 'shop'}", 73);
}

static void test_count_distinct_delete(void **state)
{
    (void)state;
    use_one_key();
    assert_replace("{'count': 'people', 'query': {'ssn': 'x'}, '$db': 'shop'}",
                   "{'count': 'people', 'query': {'ssn': <9: 'x'>}, '$db': 'shop'}");
    assert_replace("{'distinct': 'people', 'key': 'ssn', 'query': {'ssn': {'$ne': 'x'}}, '$db': "
                   "'shop'}",
                   "{'distinct': 'people', 'key': 'ssn', 'query': {'ssn': {'$ne': <9: 'x'>}}, "
                   "'$db': 'shop'}");
    assert_non_null(info.distinct_field);
    assert_string_equal(info.distinct_field->path, "ssn");
    assert_forward("{'distinct': 'people', 'key': 'name', '$db': 'shop'}");
    assert_null(info.distinct_field);
    assert_reject("{'distinct': 'people', 'key': 'ssn.a', '$db': 'shop'}", 51102);
    assert_reject("{'distinct': 'people', 'key': 'contacts', '$db': 'shop'}", 51092);
    assert_replace("{'delete': 'people', 'deletes': [{'q': {'ssn': 'x'}, 'limit': 1}], '$db': "
                   "'shop'}",
                   "{'delete': 'people', 'deletes': [{'q': {'ssn': <9: 'x'>}, 'limit': 1}], "
                   "'$db': 'shop'}");
    assert_reject("{'count': 'people', 'query': {'ssn': 'SECRET'}, 'collation': {'locale': 'en'}, "
                  "'$db': 'shop'}",
                  31054);
    use_two_keys();
}

static void test_explain(void **state)
{
    (void)state;
    use_one_key();
    assert_replace("{'explain': {'find': 'people', 'filter': {'ssn': 'x'}}, 'verbosity': "
                   "'queryPlanner', '$db': 'shop'}",
                   "{'explain': {'find': 'people', 'filter': {'ssn': <9: 'x'>}}, 'verbosity': "
                   "'queryPlanner', '$db': 'shop'}");
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_string_equal(info.name, "explain");
    assert_string_equal(info.coll, "people");
    assert_forward("{'explain': {'find': 'orders', 'filter': {'ssn': 'x'}}, '$db': 'shop'}");
    assert_reject("{'explain': {'find': 'people', 'filter': {'ssn': {'$gt': 'SECRET'}}}, '$db': "
                  "'shop'}",
                  51118);
    assert_reject("{'explain': {'explain': {'find': 'people'}}, '$db': 'shop'}", 9);
    assert_reject("{'explain': 'people', '$db': 'shop'}", 9);
    use_two_keys();
}

static void test_definitions(void **state)
{
    (void)state;
    assert_forward("{'createIndexes': 'people', 'indexes': [{'key': {'ssn': 1}, 'name': 'a'}], "
                   "'$db': 'shop'}");
    assert_forward("{'createIndexes': 'people', 'indexes': [{'key': {'name': 1}, 'unique': true, "
                   "'name': 'a'}], '$db': 'shop'}");
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'ssn': 1}, 'unique': true, "
                  "'name': 'a'}], '$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'note': 1}, 'name': 'a'}], "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'contacts': 1}, 'name': "
                  "'a'}], '$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'ssn': 'hashed'}, 'name': "
                  "'a'}], '$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'$**': 1}, 'name': 'a'}], "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'contacts.$**': 1}, 'name': "
                  "'a'}], '$db': 'shop'}",
                  51092);
    assert_reject("{'createIndexes': 'people', 'indexes': [{'key': {'a': 1}, 'name': 'a', "
                  "'partialFilterExpression': {'ssn': 'SECRET'}}], '$db': 'shop'}",
                  51092);
    assert_forward("{'create': 'people', 'validator': {'$jsonSchema': {'required': ['ssn'], "
                   "'properties': {'name': {'bsonType': 'string'}}}}, '$db': 'shop'}");
    assert_reject("{'create': 'people', 'validator': {'$jsonSchema': {'properties': {'ssn': "
                  "{'bsonType': 'string'}}}}, '$db': 'shop'}",
                  51092);
    assert_reject("{'collMod': 'people', 'validator': {'$and': [{'ssn': {'$type': 'string'}}]}, "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'collMod': 'people', 'index': {'name': 'a', 'prepareUnique': true}, '$db': "
                  "'shop'}",
                  51092);
    assert_forward("{'collMod': 'people', 'index': {'name': 'a', 'hidden': true}, '$db': 'shop'}");
    /* Queries would inherit it without naming it. */
    assert_reject("{'create': 'people', 'collation': {'locale': 'en'}, '$db': 'shop'}", 31054);
    assert_forward("{'create': 'people', 'collation': {'locale': 'simple'}, '$db': 'shop'}");
    assert_forward("{'create': 'orders', 'collation': {'locale': 'en'}, '$db': 'shop'}");
}

/* Comparisons with a view's protected fields went to the server as they were. */
static void test_views(void **state)
{
    (void)state;
    assert_forward("{'create': 'v', 'viewOn': 'x', 'pipeline': [{'$match': {'a': 1}}], '$db': "
                   "'crm'}");
    assert_forward("{'create': 'v', 'viewOn': 'orders', 'pipeline': [{'$match': {'ssn': 1}}], "
                   "'$db': 'shop'}");
    assert_forward("{'create': 'v', 'viewOn': 'people', 'pipeline': [{'$project': {'a': 1}}], "
                   "'$db': 'shop'}");
    assert_reject("{'create': 'v', 'viewOn': 'people', '$db': 'shop'}", 51092);
    assert_reject("{'create': 'v', 'viewOn': 'people', 'pipeline': [{'$match': {'a': 1}}], "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'collMod': 'v', 'viewOn': 'people', 'pipeline': [], '$db': 'shop'}", 51092);
    assert_reject("{'create': 'v', 'viewOn': 'orders', 'pipeline': [{'$lookup': {'from': 'people',"
                  " 'localField': 'a', 'foreignField': 'a', 'as': 'p'}}], '$db': 'shop'}",
                  51092);
    assert_reject("{'create': 'v', 'viewOn': 'x', 'pipeline': [{'$match': {'mail': 'SECRET'}}], "
                  "'$db': 'crm'}",
                  51092);
    assert_reject("{'create': 'v', 'viewOn': 'people', 'pipeline': [{'$match': {'ssn': "
                  "'SECRET'}}], '$db': 'shop'}",
                  51092);
}

static void test_ways_around(void **state)
{
    (void)state;
    assert_reject("{'renameCollection': 'shop.people', 'to': 'shop.x', '$db': 'admin'}", 20);
    assert_reject("{'renameCollection': 'shop.x', 'to': 'shop.people', '$db': 'admin'}", 20);
    assert_forward("{'renameCollection': 'shop.x', 'to': 'shop.y', '$db': 'admin'}");
    assert_reject("{'applyOps': [{'op': 'i', 'o': {'ssn': 'SECRET'}}], '$db': 'admin'}", 20);
    assert_reject("{'$eval': 'SECRET', '$db': 'other'}", 20);
    assert_reject("{'setQuerySettings': {'find': 'people', 'filter': {'ssn': 'SECRET'}}, '$db': "
                  "'admin'}",
                  20);
    assert_reject("{'planCacheClear': 'people', 'query': {'note': 'SECRET'}, '$db': 'shop'}",
                  51158);
    assert_reject("{'planCacheSetFilter': 'people', 'query': {'ssn': 'SECRET'}, '$db': 'shop'}",
                  115);
    assert_reject("{'cloneCollectionAsCapped': 'x', 'toCollection': 'people', 'size': 5, '$db': "
                  "'shop'}",
                  20);
    assert_reject("{'convertToCapped': 'people', 'size': 5, '$db': 'shop'}", 115);
    assert_reject("{'mapReduce': 'people', 'map': 'x', 'out': {'inline': 1}, '$db': 'shop'}", 20);
    assert_reject("{'mapReduce': 'x', 'map': 'x', 'out': 'people', '$db': 'shop'}", 20);
    assert_reject("{'mapReduce': 'x', 'map': 'x', 'out': {'merge': 'people', 'db': 'shop'}, "
                  "'$db': 'other'}",
                  20);
    assert_forward("{'mapReduce': 'x', 'map': 'x', 'out': {'inline': 1}, '$db': 'shop'}");
    assert_reject("{'frobnicate': 'people', 'x': 'SECRET', '$db': 'shop'}", 115);
    assert_forward("{'frobnicate': 'orders', '$db': 'shop'}");
}

/* The table is searched by bisection: one misplaced line would hide commands. */
static void test_every_kind_of_command_is_found(void **state)
{
    (void)state;
    static const char *const reads[] = {"aggregate", "count",   "distinct",  "explain",
                                        "find",      "getMore", "mapReduce", "mapreduce"};
    static const char *const writes[] = {"$eval",         "applyOps",      "bulkWrite", "delete",
                                         "findAndModify", "findandmodify", "insert",    "update",
                                         "copydb",        "eval",          "doTxn"};
    char json[128];
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        (void)snprintf(json, sizeof json, "{'%s': 'x', '$db': 'shop'}", reads[i]);
        (void)peek(json);
        assert_int_equal(info.klass, RK_CLASS_READ);
    }
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        (void)snprintf(json, sizeof json, "{'%s': 'x', '$db': 'shop'}", writes[i]);
        (void)peek(json);
        assert_int_equal(info.klass, RK_CLASS_WRITE);
    }
    /* Names that begin like known ones. */
    (void)peek("{'fin': 'x', '$db': 'shop'}");
    assert_int_equal(info.klass, RK_CLASS_OTHER);
    (void)peek("{'finder': 'x', '$db': 'shop'}");
    assert_int_equal(info.klass, RK_CLASS_OTHER);
    assert_true(peek("{'validate': 'people', '$db': 'shop'}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
}

/* ---- opcodes before OP_MSG */

static enum rk_verdict legacy(const struct rk_policy_set *with, int32_t opcode, const char *ns,
                              const char *json)
{
    struct rk_frame frame = {.request_id = 1, .opcode = opcode};
    static const uint8_t zeros[RK_FRAME_HEADER_LEN + 4];
    rk_buf_clear(&message);
    assert_int_equal(rk_buf_append(&message, zeros, sizeof zeros), RK_OK);
    if (ns != NULL) {
        assert_int_equal(rk_buf_append(&message, ns, strlen(ns) + 1), RK_OK);
        assert_int_equal(rk_buf_append(&message, zeros, 8), RK_OK);
    }
    if (json != NULL) {
        (void)json_doc(&message, json);
    }
    frame.len = (uint32_t)message.len;
    rk_frame_store(message.data, &frame);
    return rk_command_legacy_opcode(with, message.data, message.len, &info, &err);
}

static void test_legacy_opcodes(void **state)
{
    (void)state;
    assert_int_equal(legacy(set, RK_OP_QUERY, "admin.$cmd", "{'isMaster': 1}"), RK_VERDICT_FORWARD);
    assert_int_equal(info.reply, RK_REPLY_HELLO);
    assert_int_equal(legacy(set, RK_OP_QUERY, "shop.$cmd", "{'$query': {'hello': 1}}"),
                     RK_VERDICT_FORWARD);
    assert_int_equal(info.reply, RK_REPLY_HELLO);
    assert_int_equal(legacy(set, RK_OP_QUERY, "shop.$cmd", "{'insert': 'people'}"),
                     RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_QUERY, "shop.people", "{}"), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_QUERY, "other.people", "{}"), RK_VERDICT_FORWARD);
    assert_int_equal(legacy(set, RK_OP_QUERY, "admin.$cmd", "{'ping': 1}"), RK_VERDICT_FORWARD);
    assert_int_equal(legacy(set, RK_OP_QUERY, "admin.$cmd", "{'applyOps': []}"), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_QUERY, NULL, NULL), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_INSERT, "shop.people", "{'ssn': 'x'}"), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_INSERT, "other.people", "{'ssn': 'x'}"), RK_VERDICT_FORWARD);
    assert_int_equal(legacy(set, RK_OP_UPDATE, "crm.x", "{}"), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, RK_OP_KILL_CURSORS, NULL, NULL), RK_VERDICT_FORWARD);
    assert_int_equal(legacy(set, RK_OP_COMPRESSED, NULL, NULL), RK_VERDICT_REJECT);
    assert_int_equal(legacy(set, 4711, NULL, NULL), RK_VERDICT_REJECT);
    assert_int_equal(legacy(empty_set, 4711, NULL, NULL), RK_VERDICT_FORWARD);
    assert_int_equal(legacy(empty_set, RK_OP_INSERT, "shop.people", "{}"), RK_VERDICT_FORWARD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peek_passes_what_no_policy_concerns),
        cmocka_unit_test(test_peek_stops_what_needs_a_look),
        cmocka_unit_test(test_without_policies_everything_passes),
        cmocka_unit_test(test_insert),
        cmocka_unit_test(test_sequences_before_and_after_the_body),
        cmocka_unit_test(test_hold_without_a_current_key),
        cmocka_unit_test(test_limit_and_malformed),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_count_distinct_delete),
        cmocka_unit_test(test_explain),
        cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_ways_around),
        cmocka_unit_test(test_every_kind_of_command_is_found),
        cmocka_unit_test(test_legacy_opcodes),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
