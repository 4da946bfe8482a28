/* Updates: operators, replacements, pipelines, upserts. */
#include "request.h"

#define UPDATE(u) "{'update': 'people', 'updates': [{'q': {'_id': 1}, 'u': " u "}], '$db': 'shop'}"
#define UPSERT(q, u)                                                                               \
    "{'update': 'people', 'updates': [{'q': " q ", 'u': " u ", 'upsert': true}], '$db': 'shop'}"

static void test_replacement(void **state)
{
    (void)state;
    assert_replace(UPDATE("{'ssn': 'x', 'a': 1}"), UPDATE("{'ssn': <9: 'x'>, 'a': 1}"));
    assert_forward(UPDATE("{'a': 1}"));
    assert_forward(UPDATE("{}"));
}

static void test_set(void **state)
{
    (void)state;
    assert_replace(UPDATE("{'$set': {'ssn': 'x', 'a': 1}, '$inc': {'n': 1}}"),
                   UPDATE("{'$set': {'ssn': <9: 'x'>, 'a': 1}, '$inc': {'n': 1}}"));
    assert_replace(UPDATE("{'$setOnInsert': {'note': {'a': [1]}}}"),
                   UPDATE("{'$setOnInsert': {'note': <9: {'a': [1]}>}}"));
    assert_replace(
        UPDATE("{'$set': {'contacts': [{'phone': '1', 'a': 2}, 'x', [{'phone': '3'}]]}}"),
        UPDATE("{'$set': {'contacts': [{'phone': <9: '1'>, 'a': 2}, 'x', [{'phone': "
               "<9: '3'>}]]}}"));
    assert_replace(UPDATE("{'$set': {'contacts': {'phone': '1'}}}"),
                   UPDATE("{'$set': {'contacts': {'phone': <9: '1'>}}}"));
    assert_replace(UPDATE("{'$set': {'contacts.0': {'phone': '1'}}}"),
                   UPDATE("{'$set': {'contacts.0': {'phone': <9: '1'>}}}"));
    assert_replace(UPDATE("{'$set': {'contacts.0.phone': '1'}}"),
                   UPDATE("{'$set': {'contacts.0.phone': <9: '1'>}}"));
    assert_replace(UPDATE("{'$set': {'contacts.$.phone': '1', 'contacts.$[].email': '2'}}"),
                   UPDATE("{'$set': {'contacts.$.phone': <9: '1'>, 'contacts.$[].email': <9: "
                          "'2'>}}"));
    assert_replace(UPDATE("{'$set': {'contacts.$[c]': {'phone': '1', 'n': 2}}}"),
                   UPDATE("{'$set': {'contacts.$[c]': {'phone': <9: '1'>, 'n': 2}}}"));
    assert_forward(UPDATE("{'$set': {'contacts': 'x', 'ssn': null, 'contacts.name': 'y'}}"));
    assert_forward(UPDATE("{'$unset': {'ssn': '', 'contacts': 1, 'contacts.0.phone': 1}}"));
    assert_forward(UPDATE("{'$set': 5}"));
}

static void test_refused_operators(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int code;
    } cases[] = {
        {UPDATE("{'$set': {'ssn.a': 'SECRET'}}"), 51150},
        {UPDATE("{'$set': {'ssn.0': 'SECRET'}}"), 51150},
        {UPDATE("{'$unset': {'note.a': 'SECRET'}}"), 51150},
        {UPDATE("{'$set': {'note.$': 'SECRET'}}"), 51149},
        {UPDATE("{'$set': {'contacts.$.phone.$[]': 'SECRET'}}"), 51149},
        {UPDATE("{'$unset': {'contacts.phone.$[x].y': 'SECRET'}}"), 51149},
        {UPDATE("{'$rename': {'ssn': 'open'}}"), 51160},
        {UPDATE("{'$rename': {'contacts': 'open'}}"), 51160},
        {UPDATE("{'$rename': {'open': 'ssn'}}"), 51161},
        {UPDATE("{'$inc': {'ssn': 1}}"), 51150},
        {UPDATE("{'$mul': {'ssn': 1}}"), 51150},
        {UPDATE("{'$min': {'ssn': 'SECRET'}}"), 51150},
        {UPDATE("{'$max': {'note': 'SECRET'}}"), 51150},
        {UPDATE("{'$bit': {'ssn': {'or': 1}}}"), 51150},
        {UPDATE("{'$push': {'note': 'SECRET'}}"), 51150},
        {UPDATE("{'$push': {'ssn.list': 'SECRET'}}"), 51150},
        {UPDATE("{'$push': {'contacts': {'$each': [{'phone': 'SECRET'}], '$sort': 1}}}"), 51150},
        {UPDATE("{'$push': {'contacts': {'$each': [], '$sort': {'phone': 1}}}}"), 51092},
        {UPDATE("{'$addToSet': {'contacts': {'phone': 'SECRET'}}}"), 51150},
        {UPDATE("{'$addToSet': {'contacts': {'$each': [{'email': 'SECRET'}]}}}"), 51150},
        {UPDATE("{'$addToSet': {'ssn': 'SECRET'}}"), 51150},
        {UPDATE("{'$pull': {'contacts': {'phone': 'SECRET'}}}"), 51158},
        {UPDATE("{'$pull': {'contacts': {'$or': [{'email': {'$gt': 'SECRET'}}]}}}"), 51118},
        {UPDATE("{'$pull': {'contacts': {'$in': [{'phone': 'SECRET'}]}}}"), 51150},
        {UPDATE("{'$pull': {'contacts': [{'phone': 'SECRET'}]}}"), 51150},
        {UPDATE("{'$pull': {'note': 'SECRET'}}"), 51150},
        {UPDATE("{'$pullAll': {'contacts': [{'email': 'SECRET'}]}}"), 51150},
        {UPDATE("{'$pullAll': {'note': ['SECRET']}}"), 51150},
        {UPDATE("{'$pop': {'note': 1}}"), 51150},
        {UPDATE("{'$currentDate': {'note': true}}"), 51150},
        {UPDATE("{'$notYetInvented': {'note': 'SECRET'}}"), 51150},
        {UPDATE("'SECRET'"), 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_reject(cases[i].json, cases[i].code);
    }
    assert_reject(UPDATE("{'$push': {'note': 'SECRET'}}"), 51150);
    assert_non_null(strstr(err.message, "$set"));
    /* What mongod cannot parse either is an error of its statement alone. */
    assert_failed(UPDATE("{'$set': ['SECRET']}"), 9);
    assert_failed(UPDATE("{'$set': {'a': 1}, 'ssn': 'SECRET'}"), 9);
}

static void test_operators_on_arrays(void **state)
{
    (void)state;
    assert_replace(UPDATE("{'$push': {'contacts': {'phone': '1', 'a': 2}}}"),
                   UPDATE("{'$push': {'contacts': {'phone': <9: '1'>, 'a': 2}}}"));
    assert_replace(UPDATE("{'$push': {'contacts': {'$each': [{'phone': '1'}, 5, [{'email': '2'}]], "
                          "'$slice': -3, '$sort': {'a': 1}, '$position': 0}}}"),
                   UPDATE("{'$push': {'contacts': {'$each': [{'phone': <9: '1'>}, 5, [{'email': "
                          "<9: '2'>}]], '$slice': -3, '$sort': {'a': 1}, '$position': 0}}}"));
    assert_forward(UPDATE("{'$push': {'contacts': {'a': 2}}, '$pop': {'contacts': -1}}"));
    assert_forward(UPDATE("{'$addToSet': {'contacts': {'$each': [{'a': 2, 'phone': null}, 5]}}, "
                          "'$pullAll': {'contacts.0': [5, {'a': 1}]}}"));
    assert_replace(UPDATE("{'$pull': {'contacts': {'a': {'$gt': 5}, 'email': 'x'}}}"),
                   UPDATE("{'$pull': {'contacts': {'a': {'$gt': 5}, 'email': {'$in': [<9: 'x'>, "
                          "<7: 'x'>]}}}}"));
    assert_forward(UPDATE("{'$pull': {'contacts': {'a': 1, 'phone': null}}}"));
    assert_forward(UPDATE("{'$pull': {'contacts': 5, 'tags': {'$in': ['phone']}}}"));
    use_one_key();
    assert_replace(UPDATE("{'$addToSet': {'contacts': {'email': 'x', 'a': 1}}}"),
                   UPDATE("{'$addToSet': {'contacts': {'email': <9: 'x'>, 'a': 1}}}"));
    assert_replace(UPDATE("{'$pullAll': {'contacts': [{'email': 'x'}, [{'email': 'y'}]]}}"),
                   UPDATE("{'$pullAll': {'contacts': [{'email': <9: 'x'>}, [{'email': <9: "
                          "'y'>}]]}}"));
    /* Stored as int or long; and a collation, by which equal strings differ. */
    assert_reject(UPDATE("{'$addToSet': {'contacts': {'email': 5}}}"), 51150);
    assert_reject("{'update': 'people', 'updates': [{'q': {}, 'u': {'$addToSet': {'contacts': "
                  "{'email': 'SECRET'}}}, 'collation': {'locale': 'de'}}], '$db': 'shop'}",
                  51150);
    use_two_keys();
}

static void test_operators_on_other_paths_pass(void **state)
{
    (void)state;
    assert_forward(UPDATE("{'$push': {'tags': 'x'}, '$inc': {'n': 1}, '$rename': {'a': 'b'}, "
                          "'$set': {'tags.$[t]': 1}, '$v': 1}"));
}

static void test_pipelines(void **state)
{
    (void)state;
    static const char *const refused[] = {
        UPDATE("[{'$set': {'ssn': '$a'}}]"),
        UPDATE("[{'$set': {'ssn': {'$concat': ['$a', 'SECRET']}}}]"),
        UPDATE("[{'$set': {'ssn': '$$c.new'}}]"),
        UPDATE("[{'$set': {'ssn': ['$a']}}]"),
        UPDATE("[{'$set': {'note': {'a': 'SECRET'}}}]"),
        UPDATE("[{'$set': {'contacts': '$a'}}]"),
        UPDATE("[{'$set': {'contacts': {'$map': {'input': '$a', 'in': 'SECRET'}}}}]"),
        UPDATE("[{'$addFields': {'contacts': {'phone': '$a'}}}]"),
        UPDATE("[{'$addFields': {'contacts': [{'a': '$ssn'}]}}]"),
        UPDATE("[{'$set': {'contacts': {'a': '$contacts.phone'}}}]"),
        UPDATE("[{'$set': {'contacts.phone': '$ssn'}}]"),
        UPDATE("[{'$set': {'note.a': 'SECRET'}}]"),
        UPDATE("[{'$set': {'open': '$ssn'}}]"),
        UPDATE("[{'$set': {'open': '$contacts'}}]"),
        UPDATE("[{'$set': {'open': '$$ROOT'}}]"),
        UPDATE("[{'$set': {'open': {'$getField': 'ssn'}}}]"),
        UPDATE("[{'$set': {'open': {'$objectToArray': '$$CURRENT'}}}]"),
        UPDATE("[{'$set': {'open': {'$let': {'vars': {'x': '$ssn'}, 'in': '$$x'}}}}]"),
        UPDATE("[{'$unset': ['a', 'ssn.b']}]"),
        UPDATE("[{'$project': {'a': '$ssn'}}]"),
        UPDATE("[{'$project': {'ssn': {'$toUpper': 'SECRET'}}}]"),
        UPDATE("[{'$project': {'ssn.a': 1}}]"),
        UPDATE("[{'$replaceRoot': {'newRoot': {'ssn': '$a'}}}]"),
        UPDATE("[{'$replaceRoot': {'newRoot': {'a': '$ssn'}}}]"),
        UPDATE("[{'$replaceWith': '$a'}]"),
        UPDATE("[{'$replaceWith': {'$mergeObjects': ['$$ROOT', '$a']}}]"),
        UPDATE("[{'$replaceWith': {'$mergeObjects': ['$$ROOT', {'ssn': '$a'}]}}]"),
        UPDATE("[{'$replaceWith': {'$setField': {'field': 'ssn', 'input': '$$ROOT', 'value': "
               "'SECRET'}}}]"),
        UPDATE("[{'$replaceWith': {'contacts': {'b': '$$ROOT'}}}]"),
        UPDATE("[{'$notYetInvented': 1}]"),
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_reject(refused[i], 31146);
    }
    assert_reject(UPDATE("['SECRET']"), 14);
    assert_forward(UPDATE("[{'$set': {'a': {'$concat': ['$b', 'x']}}}, {'$unset': 'ssn'}, "
                          "{'$unset': ['b', 'contacts']}]"));
    assert_forward(UPDATE("[{'$set': {'ssn': '$$REMOVE', 'note': '$note', 'contacts': {'a': "
                          "'$b'}}}, {'$project': {'ssn': 0, 'contacts.phone': false, 'contacts': "
                          "{'email': 0}}}, {'$replaceWith': '$$ROOT'}]"));
    assert_forward(UPDATE("[{'$project': {'ssn': 1, 'contacts': 1, 'b': {'$add': ['$a', 1]}}}, "
                          "{'$replaceRoot': {'newRoot': {'ssn': '$ssn', 'b': '$b'}}}]"));
    assert_replace(UPDATE("[{'$set': {'ssn': 'x', 'note': {'$literal': {'a': '$b'}}, 'contacts': "
                          "{'phone': '1', 'a': '$b'}}}]"),
                   UPDATE("[{'$set': {'ssn': <9: 'x'>, 'note': <9: {'a': '$b'}>, 'contacts': "
                          "{'phone': <9: '1'>, 'a': '$b'}}}]"));
    assert_replace(UPDATE("[{'$addFields': {'contacts': [{'phone': ['1', [2]]}, 3], 'note': [1, "
                          "'a']}}, {'$set': {'contacts': {'$literal': [{'email': '$e'}]}}}]"),
                   UPDATE("[{'$addFields': {'contacts': [{'phone': <9: ['1', [2]]>}, 3], 'note': "
                          "<9: [1, 'a']>}}, {'$set': {'contacts': {'$literal': [{'email': <9: "
                          "'$e'>}]}}}]"));
    assert_replace(UPDATE("[{'$replaceWith': {'$mergeObjects': [{'ssn': 'x'}, '$$ROOT', {'b': 1, "
                          "'contacts': [{'phone': '1'}]}]}}, {'$project': {'note': 'n'}}]"),
                   UPDATE("[{'$replaceWith': {'$mergeObjects': [{'ssn': <9: 'x'>}, '$$ROOT', {'b': "
                          "1, 'contacts': [{'phone': <9: '1'>}]}]}}, {'$project': {'note': <9: "
                          "'n'>}}]"));
    assert_failed(UPDATE("[{'$set': {'ssn': {'$literal': {'a': 'SECRET'}}}}]"), 31041);
}

static void test_filters_of_updates(void **state)
{
    (void)state;
    use_one_key();
    assert_replace("{'update': 'people', 'updates': [{'q': {'ssn': 'x'}, 'u': {'$set': {'a': 1}}, "
                   "'multi': true}, {'q': {}, 'u': {'note': 'y'}}], '$db': 'shop'}",
                   "{'update': 'people', 'updates': [{'q': {'ssn': <9: 'x'>}, 'u': {'$set': {'a': "
                   "1}}, 'multi': true}, {'q': {}, 'u': {'note': <9: 'y'>}}], '$db': 'shop'}");
    assert_reject("{'update': 'people', 'updates': [{'q': {'note': 'SECRET'}, 'u': {'$set': {'a': "
                  "1}}}], '$db': 'shop'}",
                  51158);
    assert_reject("{'update': 'people', 'updates': [{'q': {'ssn': 'SECRET'}, 'u': {}, 'collation': "
                  "{'locale': 'de'}}], '$db': 'shop'}",
                  31054);
    use_two_keys();
}

/* mongod takes an equality for the new document's field, but not an $in of two ciphertexts. */
static void test_upserts(void **state)
{
    (void)state;
    assert_replace(UPSERT("{'ssn': 'x'}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}",
                          "{'$set': {'a': 1}, '$setOnInsert': {'ssn': <9: 'x'>}}"));
    assert_replace(
        UPSERT("{'$and': [{'ssn': {'$eq': 'x'}}]}", "{'$setOnInsert': {'b': 2}, '$set': {'a': 1}}"),
        UPSERT("{'$and': [{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}]}",
               "{'$setOnInsert': {'b': 2, 'ssn': <9: 'x'>}, '$set': {'a': 1}}"));
    assert_replace(UPSERT("{'ssn': {'$in': ['x']}}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}",
                          "{'$set': {'a': 1}, '$setOnInsert': {'ssn': <9: 'x'>}}"));
    assert_replace(UPSERT("{'ssn': {'$in': ['x', 'x']}}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>, <9: 'x'>, <7: 'x'>]}}",
                          "{'$set': {'a': 1}, '$setOnInsert': {'ssn': <9: 'x'>}}"));
    assert_replace(
        UPSERT("{'ssn': {'$in': ['x', 'y']}}", "{'$set': {'a': 1}}"),
        UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>, <9: 'y'>, <7: 'y'>]}}", "{'$set': {'a': 1}}"));
    /* The update decides about the path itself. */
    assert_replace(UPSERT("{'ssn': 'x'}", "{'$set': {'ssn': 'y'}}"),
                   UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}", "{'$set': {'ssn': <9: 'y'>}}"));
    assert_replace(
        UPSERT("{'contacts.email': 'x'}", "{'$unset': {'contacts': 1}}"),
        UPSERT("{'contacts.email': {'$in': [<9: 'x'>, <7: 'x'>]}}", "{'$unset': {'contacts': 1}}"));
    /* Nothing is taken from these. */
    assert_replace(UPSERT("{'ssn': {'$ne': 'x'}}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': {'$nin': [<9: 'x'>, <7: 'x'>]}}", "{'$set': {'a': 1}}"));
    assert_replace(UPSERT("{'ssn': 'x'}", "{'ssn': 'x'}"),
                   UPSERT("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}", "{'ssn': <9: 'x'>}"));
    assert_reject(UPSERT("{'ssn': 'SECRET'}", "[{'$set': {'a': 1}}]"), 31146);
    assert_reject(UPSERT("{'$or': [{'ssn': 'SECRET'}]}", "{'$set': {'a': 1}}"), 51092);
    use_one_key();
    assert_replace(UPSERT("{'ssn': 'x'}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': <9: 'x'>}", "{'$set': {'a': 1}}"));
    assert_replace(UPSERT("{'ssn': 5}", "{'$set': {'a': 1}}"),
                   UPSERT("{'ssn': {'$in': [<9: 5>, <9: 5L>]}}",
                          "{'$set': {'a': 1}, '$setOnInsert': {'ssn': <9: 5>}}"));
    assert_failed(UPSERT("{'ssn': 5.0}", "{'$set': {'a': 1}}"), 31041);
    assert_failed(UPDATE("{'$set': {'ssn': 1.5}}"), 31041);
    use_two_keys();
}

/* The document that mongod then inserts came in as a constant ("c.new"), past encryption. */
static void test_supplied_documents(void **state)
{
    (void)state;
    assert_reject("{'update': 'people', 'updates': [{'q': {'_id': 9}, 'u': [{'$set': {'a': 1}}], "
                  "'upsert': true, 'upsertSupplied': true, 'c': {'new': {'ssn': 'SECRET'}}}], "
                  "'$db': 'shop'}",
                  115);
}

/* Conditions on elements went to the server in plaintext, and matched nothing. */
static void test_array_filters(void **state)
{
#define FILTERED(path, filter)                                                                     \
    "{'update': 'people', 'updates': [{'q': {}, 'u': {'$set': {'" path                             \
    "': 1}}, 'arrayFilters': [" filter "]}], '$db': 'shop'}"
    (void)state;
    assert_reject(FILTERED("contacts.$[c].kind", "{'c.phone': 'SECRET'}"), 51150);
    assert_reject(FILTERED("contacts.$[c].kind", "{'c': {'$elemMatch': {'email': 'SECRET'}}}"),
                  51150);
    assert_reject(FILTERED("contacts.$[c].kind", "{'$or': [{'c.a': 1}, {'c.email': 'SECRET'}]}"),
                  51150);
    assert_reject(FILTERED("contacts.$[cc].x.$[c]", "{'c': 1}, {'cc.phone': 'SECRET'}"), 51150);
    assert_reject("{'findAndModify': 'people', 'update': {'$unset': {'contacts.$[c].a': 1}}, "
                  "'arrayFilters': [{'c.email.x': 'SECRET'}], '$db': 'shop'}",
                  51150);
    assert_forward(FILTERED("contacts.$[c].kind", "{'c.kind': 'x', 'c.phones': 1}"));
    assert_forward(FILTERED("scores.$[c]", "{'c': {'$gt': 1}}"));
    assert_forward(FILTERED("scores.$[c].x", "{'c.phone': 'x', 'unused.phone': 1}"));
#undef FILTERED
}

static void test_find_and_modify(void **state)
{
    (void)state;
    assert_replace("{'findAndModify': 'people', 'query': {'ssn': 'x'}, 'update': {'$set': {'note': "
                   "'n'}}, 'upsert': true, 'new': true, '$db': 'shop'}",
                   "{'findAndModify': 'people', 'query': {'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}, "
                   "'update': {'$set': {'note': <9: 'n'>}, '$setOnInsert': {'ssn': <9: 'x'>}}, "
                   "'upsert': true, 'new': true, '$db': 'shop'}");
    assert_replace("{'findandmodify': 'people', 'query': {}, 'update': {'note': 'n'}, '$db': "
                   "'shop'}",
                   "{'findandmodify': 'people', 'query': {}, 'update': {'note': <9: 'n'>}, '$db': "
                   "'shop'}");
    assert_int_equal(info.klass, RK_CLASS_WRITE);
    assert_forward("{'findAndModify': 'people', 'query': {'_id': 1}, 'remove': true, '$db': "
                   "'shop'}");
    assert_reject("{'findAndModify': 'people', 'query': {}, 'sort': {'ssn': 1}, 'remove': true, "
                  "'$db': 'shop'}",
                  51092);
    assert_reject("{'findAndModify': 'people', 'query': {}, 'fields': {'x': {'$toUpper': '$ssn'}}, "
                  "'remove': true, '$db': 'shop'}",
                  51092);
}

static void test_sequence_of_updates(void **state)
{
    size_t msg_off;
    static const char *const updates[] = {"{'q': {'_id': 1}, 'u': {'$set': {'ssn': 'x'}}}",
                                          "{'q': {'_id': 2}, 'u': {'$set': {'a': 1}}}", NULL};
    static const char *const bad[] = {"{'q': {'_id': 1}, 'u': {'$set': {'ssn': 'x'}}}",
                                      "{'q': {'_id': 2}, 'u': {'$inc': {'ssn': 1}}}", NULL};
    (void)state;
    message_begin(&msg_off);
    message_body("{'update': 'people', '$db': 'shop'}");
    message_sequence("updates", updates);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REPLACE);
    assert_string_equal(show_rewritten(),
                        "{'update': 'people', '$db': 'shop'}"
                        "updates{'q': {'_id': 1}, 'u': {'$set': {'ssn': <9: 'x'>}}}"
                        "updates{'q': {'_id': 2}, 'u': {'$set': {'a': 1}}}");
    message_begin(&msg_off);
    message_body("{'update': 'people', '$db': 'shop'}");
    message_sequence("updates", bad);
    rk_msg_end(&message, msg_off);
    assert_int_equal(rewrite_message(set), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 51150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replacement),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_refused_operators),
        cmocka_unit_test(test_operators_on_arrays),
        cmocka_unit_test(test_operators_on_other_paths_pass),
        cmocka_unit_test(test_pipelines),
        cmocka_unit_test(test_filters_of_updates),
        cmocka_unit_test(test_upserts),
        cmocka_unit_test(test_supplied_documents),
        cmocka_unit_test(test_array_filters),
        cmocka_unit_test(test_find_and_modify),
        cmocka_unit_test(test_sequence_of_updates),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
