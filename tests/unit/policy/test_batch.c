/* Batches: statements that fail by their own data, and what the reply says about them. */
#include "request.h"

#include <rekey/policy/reply.h>
#include <rekey/wire/limits.h>
#include <stdlib.h>

static void test_statements_in_an_array(void **state)
{
    (void)state;
    assert_replace("{'insert': 'people', 'documents': [{'_id': 1, 'ssn': 'x'}, {'_id': 2, 'ssn': "
                   "1.5}, {'_id': 3}, {'contacts.email': 'y'}], '$db': 'shop'}",
                   "{'insert': 'people', 'documents': [{'_id': 1, 'ssn': <9: 'x'>}, {'_id': []}, "
                   "{'_id': 3}, {'_id': []}], '$db': 'shop'}");
    assert_int_equal(rk_write_errors_count(info.write_errors), 2);
    assert_error(1, 31041, "double");
    assert_error(3, 57, "contacts.email");
    assert_replace("{'update': 'people', 'updates': [{'q': {}, 'u': {'$set': {'ssn': 1.5}}, "
                   "'upsert': true}, {'q': {}, 'u': {'ssn': [1]}}], '$db': 'shop'}",
                   "{'update': 'people', 'updates': [{'q': " REFUSED ", 'u': " REFUSED
                   "}, {'q': " REFUSED ", 'u': " REFUSED "}], '$db': 'shop'}");
    assert_int_equal(rk_write_errors_count(info.write_errors), 2);
    assert_replace("{'delete': 'people', 'deletes': [{'q': {'ssn': 1.5}, 'limit': 0}], '$db': "
                   "'shop'}",
                   "{'delete': 'people', 'deletes': [{'q': " REFUSED
                   ", 'limit': 1}], '$db': 'shop'}");
    assert_error(0, 31041, "double");
}

static void test_statements_in_a_sequence(void **state)
{
    static const char *const docs[] = {"{'ssn': 'x'}", "{'ssn': {'a': 1}}", "{'_id': 3}", NULL};
    size_t msg_off;
    (void)state;
    message_begin(&msg_off);
    message_sequence("documents", docs);
    message_body("{'insert': 'people', '$db': 'shop'}");
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_string_equal(show_rewritten(),
                        "documents{'ssn': <9: 'x'>}documents{'_id': []}documents{'_id': 3}"
                        "{'insert': 'people', '$db': 'shop'}");
    assert_int_equal(rk_write_errors_count(info.write_errors), 1);
    assert_error(1, 31041, "object");
}

/* A command that is itself a mistake, or that has one statement, fails as a whole. */
static void test_whole_commands(void **state)
{
    (void)state;
    assert_reject("{'update': 'people', 'updates': [{'q': {}, 'u': {'$set': {'ssn': 1.5}}}, {'q': "
                  "{}, 'u': {'$inc': {'ssn': 1}}}], '$db': 'shop'}",
                  51150);
    assert_null(info.write_errors);
    assert_reject("{'findAndModify': 'people', 'update': {'$set': {'ssn': 1.5}}, '$db': 'shop'}",
                  31041);
    assert_reject("{'explain': {'delete': 'people', 'deletes': [{'q': {'ssn': 1.5}, 'limit': 1}]}, "
                  "'$db': 'shop'}",
                  31041);
    assert_null(info.write_errors);
}

/* Two statements at the limit in the message, one of which encryption lifts above it. */
static void test_sizes(void **state)
{
    static const char *const outgrown[] = {"", "outgrows"};
    struct rk_bson_writer w;
    size_t msg_off, seq_off;
    (void)state;
    message_begin(&msg_off);
    message_body("{'insert': 'people', '$db': 'shop'}");
    assert_int_equal(rk_msg_section_sequence(&message, "documents", &seq_off), RK_OK);
    char *pad = calloc(1, RK_OBJECT_BYTES_MAX);
    assert_non_null(pad);
    for (size_t i = 0; i < 2; i++) {
        /* Length and end 5; "pad" with type, key, length and subtype 10; "ssn" 10 and its text. */
        size_t text = strlen(outgrown[i]);
        size_t len = RK_OBJECT_BYTES_MAX - 5 - 10 - (i == 0 ? 0 : 10 + text);
        rk_bson_writer_init(&w, &message);
        rk_bson_begin(&w);
        rk_bson_put_binary(&w, "pad", 3, 0, pad, len);
        if (i == 1) {
            rk_bson_put_utf8(&w, "ssn", outgrown[i], text);
        }
        rk_bson_end(&w);
        assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    }
    free(pad);
    rk_msg_sequence_end(&message, seq_off);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_int_equal(rk_write_errors_count(info.write_errors), 1);
    assert_error(1, 2, "too large");
}

/* A body may not be longer than an object, a sequence may. */
static void test_batch_moves_out_of_the_body(void **state)
{
    struct rk_bson_writer w;
    struct rk_msg msg;
    const char *why;
    char key[16];
    size_t msg_off;
    unsigned n = 0;
    (void)state;
    message_begin(&msg_off);
    assert_int_equal(rk_msg_section_body(&message), RK_OK);
    rk_bson_writer_init(&w, &message);
    rk_bson_begin(&w);
    rk_bson_put_utf8(&w, "insert", "people", 6);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "documents", 9);
    while (message.len < RK_OBJECT_BYTES_MAX - 1000) {
        int len = snprintf(key, sizeof key, "%u", n);
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, key, (size_t)len);
        if (n++ == 1) {
            rk_bson_put_double(&w, "ssn", 1.5);
        } else {
            rk_bson_put_utf8(&w, "ssn", "the value of a record", 21);
        }
        rk_bson_end(&w);
    }
    rk_bson_end(&w);
    rk_bson_put_utf8(&w, "$db", "shop", 4);
    rk_bson_end(&w);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_int_equal(rk_msg_parse(rewritten.data, rewritten.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.n_sequences, 1);
    assert_string_equal(msg.sequences[0].id, "documents");
    assert_true(msg.body_len < 100);
    assert_true(msg.sequences[0].docs_len > RK_OBJECT_BYTES_MAX);
    assert_int_equal(rk_write_errors_count(info.write_errors), 1);
    assert_error(1, 31041, "double");
}

static void test_errors_have_an_end(void **state)
{
    struct rk_write_errors *errors = NULL;
    struct rk_write_error error;
    struct rk_error one = {.code = 31041};
    enum rk_status status = RK_OK;
    uint32_t n = 0;
    (void)state;
    assert_int_equal(rk_write_errors_count(NULL), 0);
    assert_false(rk_write_errors_find(NULL, 0, &error));
    assert_int_equal(rk_write_errors_new(&errors), RK_OK);
    for (; status == RK_OK && n < 200000; n++) {
        (void)snprintf(one.message, sizeof one.message, "no %u \xC3", n / 2);
        status = rk_write_errors_add(errors, n * 2, &one);
    }
    assert_int_equal(status, RK_ELIMIT);
    assert_int_equal(rk_write_errors_count(errors), n - 1);
    assert_false(rk_write_errors_find(errors, 1001, &error));
    assert_true(rk_write_errors_find(errors, 1002, &error));
    assert_int_equal(error.message_len, strlen("no 250 ?"));
    assert_memory_equal(error.message, "no 250 ?", error.message_len);
    rk_write_errors_free(errors);
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
    assert_failed("{'insert': 'people', 'documents': [{'contacts.email': 1}], '$db': 'shop'}", 57);
    assert_int_equal(reply("{'n': 3, 'opTime': {'t': 1}, 'upserted': [{'index': 0, '_id': 7}], "
                           "'writeErrors': [{'index': 0, 'code': 53, 'errmsg': 'its own', "
                           "'errInfo': {'a': 1}}, {'index': 1, 'code': 11000, 'errmsg': 'dup', "
                           "'keyValue': {'_id': 1}}, 7, {'code': 5}, {'index': -1}, {'index': "
                           "'0'}], 'ok': 1.0}"),
                     RK_VERDICT_REPLACE);
    const char *text = show_rewritten();
    assert_non_null(strstr(text, "{'n': 3, 'opTime': {'t': 1}, 'upserted': [{'index': 0, '_id': "
                                 "7}], 'writeErrors': [{'index': 0, 'code': 57, 'errmsg': 'shop."
                                 "people: the key"));
    assert_non_null(strstr(text, "the key'}, {'index': 1, 'code': 11000, 'errmsg': 'dup', "
                                 "'keyValue': {'_id': 1}}, 7, {'code': 5}, {'index': -1}, "
                                 "{'index': '0'}], 'ok': 1.0}"));
    /* The command failed, or the batch ended before it came to that statement. */
    assert_int_equal(reply("{'ok': 0.0, 'code': 13, 'errmsg': 'no'}"), RK_VERDICT_FORWARD);
    assert_int_equal(reply("{'writeErrors': [{'index': 1, 'code': 53}], 'ok': 1.0}"),
                     RK_VERDICT_FORWARD);
    assert_int_equal(reply("{'writeErrors': 5, 'ok': 1.0}"), RK_VERDICT_FORWARD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements_in_an_array),
        cmocka_unit_test(test_statements_in_a_sequence),
        cmocka_unit_test(test_whole_commands),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_batch_moves_out_of_the_body),
        cmocka_unit_test(test_errors_have_an_end),
        cmocka_unit_test(test_replies),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
