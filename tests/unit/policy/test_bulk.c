/* bulkWrite: ops of several collections in one command, and its reply. */
#include "request.h"

#include <rekey/policy/reply.h>
#include <rekey/wire/limits.h>
#include <stdlib.h>

#define SPACES "'nsInfo': [{'ns': 'shop.people'}, {'ns': 'shop.orders'}, {'ns': 'crm.x'}]"
#define BULK(ops) "{'bulkWrite': 1, 'ops': [" ops "], " SPACES ", '$db': 'admin'}"

static void test_each_kind(void **state)
{
    (void)state;
    assert_replace(BULK("{'insert': 0, 'document': {'_id': 1, 'ssn': 'x'}}"),
                   BULK("{'insert': 0, 'document': {'_id': 1, 'ssn': <9: 'x'>}}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_int_equal(info.klass, RK_CLASS_WRITE);
    assert_replace(BULK("{'insert': 2, 'document': {'mail': 'm'}}"),
                   BULK("{'insert': 2, 'document': {'mail': <9: 'm'>}}"));
    assert_replace(BULK("{'delete': 0, 'filter': {'ssn': 'x'}, 'multi': true}"),
                   BULK("{'delete': 0, 'filter': {'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}, "
                        "'multi': true}"));
    use_one_key();
    assert_replace(BULK("{'update': 0, 'filter': {'ssn': 'x'}, 'updateMods': {'$set': {'note': "
                        "'n'}}, 'multi': false, 'hint': '_id_'}"),
                   BULK("{'update': 0, 'filter': {'ssn': <9: 'x'>}, 'updateMods': {'$set': "
                        "{'note': <9: 'n'>}}, 'multi': false, 'hint': '_id_'}"));
    assert_replace(BULK("{'update': 0, 'filter': {}, 'updateMods': {'ssn': 'x', 'a': 1}}"),
                   BULK("{'update': 0, 'filter': {}, 'updateMods': {'ssn': <9: 'x'>, 'a': 1}}"));
    assert_replace(BULK("{'update': 0, 'filter': {}, 'updateMods': [{'$set': {'ssn': 'x'}}]}"),
                   BULK("{'update': 0, 'filter': {}, 'updateMods': [{'$set': {'ssn': <9: "
                        "'x'>}}]}"));
    use_two_keys();
    assert_forward(BULK("{'delete': 0, 'filter': {'_id': 1}}"));
}

/* The new document of an upsert gets what mongod can no longer take from the filter. */
static void test_upsert_is_seeded(void **state)
{
    (void)state;
    assert_replace(BULK("{'update': 0, 'filter': {'ssn': 'x'}, 'updateMods': {'$set': {'a': 1}}, "
                        "'upsert': true}"),
                   BULK("{'update': 0, 'filter': {'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}, "
                        "'updateMods': {'$set': {'a': 1}, '$setOnInsert': {'ssn': <9: 'x'>}}, "
                        "'upsert': true}"));
    assert_reject(BULK("{'update': 0, 'filter': {'ssn': 'SECRET'}, 'updateMods': [{'$set': {'a': "
                       "1}}], 'upsert': true}"),
                  31146);
}

/* Other collections' ops are copied, whatever they hold. */
static void test_unprotected_ops(void **state)
{
    (void)state;
    assert_forward("{'bulkWrite': 1, 'ops': [{'insert': 7, 'document': {'ssn': 'x'}, 'novel': 1}, "
                   "{'frobnicate': 0}], 'nsInfo': [{'ns': 'shop.orders'}], '$db': 'admin'}");
    assert_int_equal(info.reply, RK_REPLY_PASS);
    assert_forward("{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'ssn': 'x'}}], '$db': "
                   "'admin'}"); /* without nsInfo there is no collection to write to */
    assert_replace(BULK("{'insert': 1, 'document': {'ssn': 'x'}, 'novel': 1}, {'update': 1, "
                        "'filter': {'ssn': 'x'}, 'updateMods': {'$inc': {'ssn': 1}}}, {'insert': "
                        "2, 'document': {'ssn': 'x', 'mail': 'm'}}"),
                   BULK("{'insert': 1, 'document': {'ssn': 'x'}, 'novel': 1}, {'update': 1, "
                        "'filter': {'ssn': 'x'}, 'updateMods': {'$inc': {'ssn': 1}}}, {'insert': "
                        "2, 'document': {'ssn': 'x', 'mail': <9: 'm'>}}"));
    /* The same name in an op for the protected one is that one's business. */
    assert_reject(BULK("{'update': 0, 'filter': {}, 'updateMods': {'$inc': {'ssn': 1}}}"), 51150);
}

static void test_what_single_statements_refuse(void **state)
{
    (void)state;
    assert_reject(BULK("{'delete': 0, 'filter': {'ssn': {'$gt': 'SECRET'}}}"), 51118);
    assert_reject(BULK("{'delete': 2, 'filter': {'mail': 'SECRET'}, 'collation': {'locale': "
                       "'en'}}"),
                  31054);
    assert_reject(BULK("{'update': 0, 'filter': {}, 'updateMods': {'$set': {'contacts.$[c].x': "
                       "1}}, 'arrayFilters': [{'c.phone': 'SECRET'}]}"),
                  51150);
    assert_reject(BULK("{'update': 0, 'filter': {}, 'updateMods': {'$set': {'a': 1}}, 'sort': "
                       "{'ssn': 1}}"),
                  51092);
    assert_reject(BULK("{'update': 0, 'filter': {}, 'updateMods': [{'$set': {'a': '$$new.a'}}], "
                       "'upsert': true, 'upsertSupplied': true, 'constants': {'new': {'ssn': "
                       "'SECRET'}}}"),
                  115);
    assert_reject("{'bulkWrite': 1, 'ops': [], " SPACES ", '$_originalQuery': {'ssn': 'SECRET'}, "
                  "'$db': 'admin'}",
                  115);
    assert_reject(BULK("{'update': 0, 'filter': {}, 'updateMods': [{'$set': {'a': '$ssn'}}]}"),
                  31146);
    assert_non_null(strstr(err.message, "shop.people"));
}

static void test_what_is_not_understood(void **state)
{
    static const char *const ops[] = {
        "{'insert': 0, 'document': {'ssn': 'SECRET'}, 'novel': 1}",
        "{'insert': 0, 'document': {'a': 1}, 'document': {'ssn': 'SECRET'}}",
        "{'insert': 0, 'filter': {'ssn': 'SECRET'}}",
        "{'delete': 0, 'filter': {}, 'return': true}",
        "{'update': 0, 'filter': {}, 'updateMods': {'$set': {'a': 1}}, 'let': {'a': 'SECRET'}}",
        "{'insert': 1, 'document': {'ssn': 'SECRET'}, 'insert': 0}",
        "{'insert': 1, 'document': {'ssn': 'SECRET'}, 'update': 0}",
        "{'document': {'ssn': 'SECRET'}, 'insert': 0}",
        "{'replace': 0, 'document': {'ssn': 'SECRET'}}",
        "{}",
    };
    static const char *const indexes[] = {"3", "-1", "0.5", "'0'", "4294967296L", "null"};
    char json[512];
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        (void)snprintf(json, sizeof json, BULK("%s"), ops[i]);
        assert_reject(json, 9);
    }
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        (void)snprintf(json, sizeof json, BULK("{'insert': %s, 'document': {'ssn': 'SECRET'}}"),
                       indexes[i]);
        assert_reject(json, 2);
    }
    assert_reject(BULK("{'insert': 0, 'document': 'SECRET'}"), 14);
    assert_reject("{'bulkWrite': 1, 'ops': {'insert': 0}, " SPACES ", '$db': 'admin'}", 14);
}

/* What looks like an envelope and does not come from Rekey, in what would be stored. */
static void test_forged_envelopes(void **state)
{
    (void)state;
    assert_failed(BULK("{'insert': 0, 'document': {'a': forged}}"), 31041);
    assert_failed(BULK("{'insert': 2, 'document': {'mail': forged}}"), 31041);
    assert_failed(BULK("{'update': 0, 'filter': {}, 'updateMods': {'$set': {'a': forged}}}"),
                  31041);
    assert_failed(BULK("{'update': 0, 'filter': {'a': forged}, 'updateMods': {'$set': {'b': 1}}, "
                       "'upsert': true}"),
                  31041);
    assert_failed(BULK("{'update': 0, 'filter': {}, 'updateMods': [{'$set': {'a': '$$x'}}], "
                       "'constants': {'x': forged}}"),
                  31041);
    assert_reject("{'bulkWrite': 1, 'ops': [{'update': 0, 'filter': {}, 'updateMods': [{'$set': "
                  "{'a': '$$x'}}]}], 'let': {'x': forged}, " SPACES ", '$db': 'admin'}",
                  31041);
    /* What others store is theirs. */
    assert_forward("{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'a': forged}}], 'let': "
                   "{'x': forged}, 'nsInfo': [{'ns': 'shop.orders'}], '$db': 'admin'}");
    assert_forward(BULK("{'insert': 1, 'document': {'a': forged}}"));
}

/* One update or delete can be explained; mongod refuses the rest. */
static void test_explain(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(
        "{'explain': {'bulkWrite': 1, 'ops': [{'delete': 0, 'filter': {'ssn': 'x'}}], " SPACES
        "}, '$db': 'admin'}",
        "{'explain': {'bulkWrite': 1, 'ops': [{'delete': 0, 'filter': {'ssn': <9: "
        "'x'>}}], " SPACES "}, '$db': 'admin'}");
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    use_two_keys();
    assert_reject("{'explain': {'bulkWrite': 1, 'ops': [{'delete': 0, 'filter': {'ssn': {'$gt': "
                  "'SECRET'}}}], " SPACES "}, '$db': 'admin'}",
                  51118);
    /* no statement of it is refused alone */
    assert_reject(
        "{'explain': {'bulkWrite': 1, 'ops': [{'delete': 0, 'filter': {'ssn': 1.5}}], " SPACES
        "}, '$db': 'admin'}",
        31041);
    assert_forward("{'explain': {'bulkWrite': 1, 'ops': [{'delete': 0, 'filter': {'ssn': 'x'}}], "
                   "'nsInfo': [{'ns': 'shop.orders'}]}, '$db': 'admin'}");
    assert_true(peek("{'explain': {'find': 'people', 'filter': {'ssn': 'x'}}, '$db': 'admin'}"));
}

static void test_what_namespaces_must_be(void **state)
{
    static const char *const infos[] = {
        "{'ns': 5}",        "{}",          "{'ns': 'shop.x', 'ns': 'shop.people'}",
        "{'ns': 'people'}", "{'ns': '.'}", "{'ns': 'shop.'}",
    };
    char json[256];
    (void)state;
    for (size_t i = 0; i < sizeof infos / sizeof infos[0]; i++) {
        (void)snprintf(json, sizeof json, "{'bulkWrite': 1, 'nsInfo': [%s], '$db': 'admin'}",
                       infos[i]);
        assert_reject(json, 73);
    }
    assert_reject("{'bulkWrite': 1, 'nsInfo': 'shop.people', '$db': 'admin'}", 14);
    assert_reject("{'bulkWrite': 1, 'nsInfo': ['shop.people'], '$db': 'admin'}", 14);
    assert_reject("{'bulkWrite': 1, 'nsInfo': [{'ns': 'shop.orders'}], 'nsInfo': [{'ns': "
                  "'shop.people'}], '$db': 'admin'}",
                  9);
    assert_reject("{'bulkWrite': 1, 'ops': [], 'ops': [], " SPACES ", '$db': 'admin'}", 9);
    assert_reject("{'bulkWrite': 1, 'nsInfo': [{'ns': 'crm.system.buckets.x'}], '$db': 'admin'}",
                  73);
}

/* ---- sections */

static enum rk_verdict run_sections(const char *const before[], const char *body,
                                    const char *const after[])
{
    size_t msg_off;
    message_begin(&msg_off);
    if (before != NULL) {
        message_sequence("ops", before);
    }
    message_body(body);
    if (after != NULL) {
        message_sequence(before != NULL ? "nsInfo" : "ops", after);
    }
    rk_msg_end(&message, msg_off);
    return rewrite_message(set);
}

static void test_sections(void **state)
{
    static const char *const ops[] = {"{'insert': 1, 'document': {'ssn': 'x'}}",
                                      "{'insert': 0, 'document': {'ssn': 'x'}}",
                                      "{'insert': 0, 'document': {'ssn': 1.5}}", NULL};
    static const char *const infos[] = {"{'ns': 'shop.people'}", "{'ns': 'shop.orders'}", NULL};
    (void)state;
    /* ops before the body, nsInfo after it */
    assert_int_equal(run_sections(ops, "{'bulkWrite': 1, '$db': 'admin'}", infos),
                     RK_VERDICT_REPLACE);
    assert_string_equal(show_rewritten(), "ops{'insert': 1, 'document': {'ssn': 'x'}}"
                                          "ops{'insert': 0, 'document': {'ssn': <9: 'x'>}}"
                                          "ops{'insert': 0, 'document': {'_id': []}}"
                                          "{'bulkWrite': 1, '$db': 'admin'}"
                                          "nsInfo{'ns': 'shop.people'}nsInfo{'ns': 'shop.orders'}");
    assert_error(2, 31041, "shop.people");
    /* one of both in the body */
    assert_int_equal(run_sections(NULL, "{'bulkWrite': 1, " SPACES ", '$db': 'admin'}", ops),
                     RK_VERDICT_REPLACE);
    assert_int_equal(rk_write_errors_count(info.write_errors), 1);
    /* there twice */
    assert_int_equal(
        run_sections(NULL, "{'bulkWrite': 1, 'ops': [], " SPACES ", '$db': 'admin'}", ops),
        RK_VERDICT_REJECT);
    assert_int_equal(err.code, 9);
    assert_int_equal(run_sections(ops, "{'bulkWrite': 1, " SPACES ", '$db': 'admin'}", infos),
                     RK_VERDICT_REJECT);
    assert_int_equal(err.code, 9);
    assert_int_equal(run_sections(ops, "{'bulkWrite': 1, '$db': 'admin'}", NULL),
                     RK_VERDICT_FORWARD);
}

static void test_unknown_section(void **state)
{
    static const char *const docs[] = {"{'ssn': 'SECRET'}", NULL};
    size_t msg_off;
    (void)state;
    message_begin(&msg_off);
    message_body("{'bulkWrite': 1, 'ops': [], " SPACES ", '$db': 'admin'}");
    message_sequence("documents", docs);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 115);
}

/* ---- statements that fail alone */

static void test_failed_statements(void **state)
{
    (void)state;
    assert_replace(
        BULK("{'insert': 0, 'document': {'ssn': 1.5}}, {'insert': 1, 'document': {'ssn': 1.5}}, "
             "{'update': 0, 'filter': {}, 'updateMods': {'$set': {'ssn': [1]}}, 'upsert': true}, "
             "{'delete': 0, 'filter': {'ssn': 1.5}, 'multi': true}, {'insert': 2, 'document': "
             "{'mail': 1.5}}"),
        BULK("{'insert': 0, 'document': {'_id': []}}, {'insert': 1, 'document': {'ssn': 1.5}}, "
             "{'update': 0, 'filter': " REFUSED ", 'updateMods': " REFUSED
             "}, {'delete': 0, 'filter': " REFUSED "}, {'insert': 2, 'document': {'_id': []}}"));
    assert_int_equal(rk_write_errors_count(info.write_errors), 4);
    assert_error(0, 31041, "shop.people");
    assert_error(2, 31041, "array");
    assert_error(3, 31041, "double");
    assert_error(4, 31041, "crm.x");
}

/* Results that are fetched later cannot be corrected. */
static void test_results_in_parts(void **state)
{
    (void)state;
    assert_reject("{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'ssn': 1.5}}], " SPACES
                  ", 'cursor': {'batchSize': 5}, '$db': 'admin'}",
                  31041);
    assert_replace("{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'ssn': 'x'}}], " SPACES
                   ", 'cursor': {'batchSize': 5}, '$db': 'admin'}",
                   "{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'ssn': <9: 'x'>}}], " SPACES
                   ", 'cursor': {'batchSize': 5}, '$db': 'admin'}");
    assert_failed("{'bulkWrite': 1, 'ops': [{'insert': 0, 'document': {'ssn': 1.5}}], " SPACES
                  ", 'cursor': {}, '$db': 'admin'}",
                  31041);
    assert_true(peek("{'getMore': 5L, 'collection': '$cmd.bulkWrite', '$db': 'admin'}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
}

/* ops that are an array of the body become a sequence when they no longer fit. */
static void test_ops_move_out_of_the_body(void **state)
{
    struct rk_bson_writer w;
    struct rk_msg msg;
    const char *why;
    char key[16];
    size_t msg_off;
    const unsigned ops = 200;
    const size_t pad_len = RK_OBJECT_BYTES_MAX / (ops - 1) - 80; /* 80: for all else */
    (void)state;
    uint8_t *pad = calloc(1, pad_len);
    assert_non_null(pad);
    message_begin(&msg_off);
    assert_int_equal(rk_msg_section_body(&message), RK_OK);
    rk_bson_writer_init(&w, &message);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "bulkWrite", 1);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "ops", 3);
    for (unsigned n = 0; n < ops; n++) {
        int len = snprintf(key, sizeof key, "%u", n);
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, key, (size_t)len);
        rk_bson_put_int32(&w, "insert", 0);
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "document", 8);
        if (n == 1) {
            rk_bson_put_double(&w, "ssn", 1.5);
        } else {
            rk_bson_put_utf8(&w, "ssn", "the value of a record", 21);
            rk_bson_put_binary(&w, "pad", 3, 0, pad, pad_len);
        }
        rk_bson_end(&w);
        rk_bson_end(&w);
    }
    free(pad);
    rk_bson_end(&w);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "nsInfo", 6);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    rk_bson_put_utf8(&w, "ns", "shop.people", 11);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_utf8(&w, "$db", "admin", 5);
    rk_bson_end(&w);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_int_equal(rk_msg_parse(rewritten.data, rewritten.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.n_sequences, 1);
    assert_string_equal(msg.sequences[0].id, "ops");
    assert_true(message.len < RK_OBJECT_BYTES_MAX);
    assert_true(msg.sequences[0].docs_len > RK_OBJECT_BYTES_MAX);
    assert_int_equal(rk_write_errors_count(info.write_errors), 1);
    assert_error(1, 31041, "shop.people");
}

/* An insert that encryption lifts above what an object may be. */
static void test_outgrown(void **state)
{
    static const char text[] = "outgrows";
    static const char *const infos[] = {"{'ns': 'shop.people'}", NULL};
    struct rk_bson_writer w;
    size_t msg_off, seq_off;
    (void)state;
    char *pad = calloc(1, RK_OBJECT_BYTES_MAX);
    assert_non_null(pad);
    message_begin(&msg_off);
    message_body("{'bulkWrite': 1, '$db': 'admin'}");
    message_sequence("nsInfo", infos);
    assert_int_equal(rk_msg_section_sequence(&message, "ops", &seq_off), RK_OK);
    rk_bson_writer_init(&w, &message);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "insert", 0);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "document", strlen("document"));
    rk_bson_put_utf8(&w, "ssn", text, strlen(text));
    rk_bson_put_binary(&w, "pad", 3, 0, pad, RK_OBJECT_BYTES_MAX - 100);
    rk_bson_end(&w);
    rk_bson_end(&w);
    free(pad);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    rk_msg_sequence_end(&message, seq_off);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_error(0, 2, "shop.people: object to insert too large");
}

/* ---- replies */

static enum rk_verdict reply(const char *json)
{
    struct rk_msg msg;
    const char *why;
    size_t msg_off;
    message_begin(&msg_off);
    message_body(json);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rk_msg_parse(message.data, message.len, &msg, &why), RK_PARSE_OK);
    return rk_reply_rewrite(set, &fx.crypt, &info, message.data, message.len, &msg, &rewritten,
                            &err);
}

static void test_replies(void **state)
{
    (void)state;
    assert_failed(BULK("{'insert': 0, 'document': {'contacts.email': 1}}"), 57);
    assert_int_equal(
        reply("{'cursor': {'id': 0L, 'firstBatch': [{'ok': 0.0, 'idx': 0, 'code': 53, 'errmsg': "
              "'its own', 'errInfo': {'a': 1}, 'n': 0, 'nModified': 0}, {'ok': 0.0, 'idx': 1, "
              "'code': 11000, 'errmsg': 'dup', 'keyValue': {'_id': 1}, 'n': 0}, {'ok': 1.0, "
              "'idx': 2, 'n': 1, 'upserted': {'_id': 7}}, {'ok': 1.0, 'idx': 0, 'n': 1}, 7, "
              "{'code': 5}, {'idx': -1, 'code': 5}], 'ns': 'admin.$cmd.bulkWrite'}, 'nErrors': 2, "
              "'nInserted': 0, 'ok': 1.0}"),
        RK_VERDICT_REPLACE);
    const char *text = show_rewritten();
    assert_ptr_equal(strstr(text, "{'cursor': {'id': 0L, 'firstBatch': [{'ok': 0.0, 'idx': 0, "
                                  "'code': 57, 'errmsg': 'shop.people: the key"),
                     text);
    assert_non_null(
        strstr(text, "the key', 'n': 0, 'nModified': 0}, {'ok': 0.0, 'idx': 1, 'code': 11000, "
                     "'errmsg': 'dup', 'keyValue': {'_id': 1}, 'n': 0}, {'ok': 1.0, 'idx': 2, "
                     "'n': 1, 'upserted': {'_id': 7}}, {'ok': 1.0, 'idx': 0, 'n': 1}, 7, {'code': "
                     "5}, {'idx': -1, 'code': 5}], 'ns': 'admin.$cmd.bulkWrite'}, 'nErrors': 2, "
                     "'nInserted': 0, 'ok': 1.0}"));
    /* Where mongod ends because of too many results, it is not about the statement. */
    assert_int_equal(
        reply("{'cursor': {'firstBatch': [{'ok': 0.0, 'idx': 0, 'code': 146, 'errmsg': "
              "'exceeded'}]}, 'ok': 1.0}"),
        RK_VERDICT_FORWARD);
    assert_int_equal(reply("{'ok': 0.0, 'code': 13, 'errmsg': 'no'}"), RK_VERDICT_FORWARD);
    assert_int_equal(reply("{'cursor': {'firstBatch': 5}, 'ok': 1.0}"), RK_VERDICT_FORWARD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test(test_upsert_is_seeded),
        cmocka_unit_test(test_unprotected_ops),
        cmocka_unit_test(test_what_single_statements_refuse),
        cmocka_unit_test(test_what_is_not_understood),
        cmocka_unit_test(test_forged_envelopes),
        cmocka_unit_test(test_explain),
        cmocka_unit_test(test_what_namespaces_must_be),
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_unknown_section),
        cmocka_unit_test(test_failed_statements),
        cmocka_unit_test(test_results_in_parts),
        cmocka_unit_test(test_ops_move_out_of_the_body),
        cmocka_unit_test(test_outgrown),
        cmocka_unit_test(test_replies),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
