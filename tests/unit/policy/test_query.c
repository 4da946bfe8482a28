/* Filters: what is compared with which ciphertexts, and what is refused. */
#include "request.h"

#define FIND(filter) "{'find': 'people', 'filter': " filter ", '$db': 'shop'}"

static void test_equality_under_every_key(void **state)
{
    (void)state;
    assert_replace(FIND("{'ssn': 'x', 'a': 1}"),
                   FIND("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}, 'a': 1}"));
    assert_replace(FIND("{'ssn': {'$eq': 'x'}}"), FIND("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>]}}"));
    assert_replace(FIND("{'ssn': {'$ne': 'x'}}"), FIND("{'ssn': {'$nin': [<9: 'x'>, <7: 'x'>]}}"));
    assert_replace(FIND("{'ssn': {'$in': ['x', null, 'y']}}"),
                   FIND("{'ssn': {'$in': [<9: 'x'>, <7: 'x'>, null, <9: 'y'>, <7: 'y'>]}}"));
    assert_replace(FIND("{'ssn': {'$not': {'$in': ['x']}, '$exists': true}}"),
                   FIND("{'ssn': {'$not': {'$in': [<9: 'x'>, <7: 'x'>]}, '$exists': true}}"));
    assert_replace(FIND("{'contacts.0.email': true}"),
                   FIND("{'contacts.0.email': {'$in': [<9: true>, <7: true>]}}"));
}

static void test_one_key_stays_an_equality(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(FIND("{'ssn': 'x'}"), FIND("{'ssn': <9: 'x'>}"));
    assert_replace(FIND("{'ssn': {'$eq': 'x'}}"), FIND("{'ssn': {'$eq': <9: 'x'>}}"));
    assert_replace(FIND("{'ssn': {'$nin': ['x']}}"), FIND("{'ssn': {'$nin': [<9: 'x'>]}}"));
    use_two_keys();
}

/* mongod holds 5, NumberLong(5) and 5.0 equal; their ciphertexts are not. */
static void test_integers_of_either_type(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(FIND("{'ssn': 5}"), FIND("{'ssn': {'$in': [<9: 5>, <9: 5L>]}}"));
    assert_replace(FIND("{'ssn': 5L}"), FIND("{'ssn': {'$in': [<9: 5>, <9: 5L>]}}"));
    assert_replace(FIND("{'ssn': 5.0}"), FIND("{'ssn': {'$in': [<9: 5>, <9: 5L>]}}"));
    assert_replace(FIND("{'ssn': 5000000000L}"), FIND("{'ssn': <9: 5000000000L>}"));
    assert_reject(FIND("{'ssn': 5.5}"), 31041);
    assert_reject(FIND("{'ssn': {'$in': ['x', 5.5]}}"), 31041);
    use_two_keys();
}

static void test_logic(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(FIND("{'$or': [{'ssn': 'x'}, {'$and': [{'a': 1}, {'ssn': 'y'}]}], '$nor': "
                        "[{'ssn': 'z'}], '$comment': 'c'}"),
                   FIND("{'$or': [{'ssn': <9: 'x'>}, {'$and': [{'a': 1}, {'ssn': <9: 'y'>}]}], "
                        "'$nor': [{'ssn': <9: 'z'>}], '$comment': 'c'}"));
    assert_reject(FIND("{'$and': [{'$or': [{'note': 'SECRET'}]}]}"), 51158);
    assert_reject(FIND("{'$and': 'SECRET'}"), 14);
    assert_reject(FIND("{'$or': ['SECRET']}"), 14);
    use_two_keys();
}

static void test_null_and_exists_everywhere(void **state)
{
    (void)state;
    assert_forward(FIND("{'ssn': null, 'note': null, 'contacts': null}"));
    assert_forward(FIND("{'note': {'$exists': true}, 'contacts': {'$exists': false}}"));
    assert_forward(FIND("{'note': {'$ne': null}, 'contacts.phone': {'$in': [null]}}"));
    assert_forward(FIND("{'note': {'$not': {'$eq': null}}}"));
    assert_forward(FIND("{'notes': 'x', 'a.ssn': 'y', 'contacts.name': {'$regex': 'z'}}"));
}

/* What is asked of an array of documents need not concern the protected fields in them. */
static void test_above_protected_fields(void **state)
{
    (void)state;
    use_one_key();
    assert_forward(FIND("{'contacts': {'$elemMatch': {'kind': 'x', 'n': {'$gt': 1}}}}"));
    assert_forward(FIND("{'contacts': {'$size': 2, '$type': 'array'}}"));
    assert_forward(FIND("{'contacts': []}"));
    assert_forward(FIND("{'contacts': {'$ne': [], '$not': {'$size': 1}}}"));
    assert_replace(FIND("{'contacts': {'$elemMatch': {'kind': 'x', 'email': 'y'}}}"),
                   FIND("{'contacts': {'$elemMatch': {'kind': 'x', 'email': <9: 'y'>}}}"));
    assert_replace(FIND("{'contacts': {'$not': {'$elemMatch': {'0.email': {'$ne': 'y'}}}}}"),
                   FIND("{'contacts': {'$not': {'$elemMatch': {'0.email': {'$ne': <9: 'y'>}}}}}"));
    assert_forward("{'find': 'people', 'projection': {'contacts': {'$slice': [0, 5]}}, '$db': "
                   "'shop'}");
    assert_reject("{'find': 'people', 'projection': {'contacts': {'$slice': ['$note', 5]}}, "
                  "'$db': 'shop'}",
                  51092);
    use_two_keys();
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int code;
    } cases[] = {
        {FIND("{'ssn': {'$gt': 'SECRET'}}"), 51118},
        {FIND("{'ssn': {'$lte': 'SECRET'}}"), 51118},
        {FIND("{'ssn': /SECRET/}"), 51092},
        {FIND("{'ssn': {'$regex': 'SECRET'}}"), 51092},
        {FIND("{'ssn': {'$not': /SECRET/}}"), 51092},
        {FIND("{'ssn': {'$in': [/SECRET/]}}"), 51015},
        {FIND("{'note': {'$nin': [/SECRET/]}}"), 51015},
        {FIND("{'ssn': {'$mod': [2, 1]}}"), 51092},
        {FIND("{'ssn': {'$size': 1}}"), 51092},
        {FIND("{'ssn': {'$type': 'string'}}"), 51092},
        {FIND("{'ssn': {'$all': ['SECRET']}}"), 51092},
        {FIND("{'ssn': {'$bitsAllSet': 1}}"), 51092},
        {FIND("{'ssn': {'$near': [1, 2]}}"), 51092},
        {FIND("{'ssn': {'$notYetInvented': 'SECRET'}}"), 51092},
        {FIND("{'ssn': {'$elemMatch': {'$eq': 'SECRET'}}}"), 6890100},
        {FIND("{'contacts': {'$elemMatch': {'phone': 'SECRET'}}}"), 51158},
        {FIND("{'contacts': {'$elemMatch': {'email': {'$gt': 'SECRET'}}}}"), 51118},
        {FIND("{'contacts': {'$elemMatch': {'$eq': 'SECRET'}}}"), 51092},
        {FIND("{'contacts': {'$elemMatch': 'SECRET'}}"), 6890100},
        {FIND("{'contacts': {'$all': [{'$elemMatch': {'email': 'SECRET'}}]}}"), 31007},
        {FIND("{'contacts': {'phone': 'SECRET'}}"), 31007},
        {FIND("{'contacts': {'$eq': {'phone': 'SECRET'}}}"), 31007},
        {FIND("{'contacts': {'$in': [{'phone': 'SECRET'}]}}"), 31007},
        {FIND("{'contacts': {'$gt': {'phone': 'SECRET'}}}"), 31007},
        {FIND("{'contacts': ['SECRET']}"), 31007},
        {FIND("{'': 'SECRET'}"), 31007},
        {FIND("{'note': 'SECRET'}"), 51158},
        {FIND("{'note': {'$ne': 'SECRET'}}"), 51158},
        {FIND("{'contacts.phone': {'$in': ['SECRET', null]}}"), 51158},
        {FIND("{'ssn.a': 'SECRET'}"), 51102},
        {FIND("{'ssn.0': 'SECRET'}"), 51102},
        {FIND("{'note.a.b': {'$exists': true}}"), 51102},
        {FIND("{'ssn': {'a': 'SECRET'}}"), 31041},
        {FIND("{'ssn': ['SECRET']}"), 31041},
        {FIND("{'ssn': {'$in': 'SECRET'}}"), 14},
        {FIND("{'$expr': {'$gt': ['$ssn', 'SECRET']}}"), 51092},
        {FIND("{'$expr': {'$gt': ['$$CURRENT.ssn', 'SECRET']}}"), 51092},
        {FIND("{'$expr': {'$eq': ['$note', 'SECRET']}}"), 51158},
        {FIND("{'$expr': {'$eq': ['$ssn', '$ssn']}}"), 51092},
        {FIND("{'$expr': {'$eq': ['$ssn', '$ssn.a']}}"), 51102},
        {FIND("{'$expr': '$ssn'}"), 51092},
        {FIND("{'$expr': {'$in': ['$ssn', 'SECRET']}}"), 51092},
        {FIND("{'$expr': {'$let': {'vars': {'CURRENT': 1}, 'in': '$ssn'}}}"), 51092},
        {FIND("{'$expr': {'$eq': ['$$ROOT', 'SECRET']}}"), 31007},
        {FIND("{'$expr': {'$eq': [{'$getField': 'ssn'}, 'SECRET']}}"), 51092},
        {FIND("{'$expr': {'$eq': [{'$getField': {'$concat': ['s', 'sn']}}, 1]}}"), 51092},
        {FIND("{'$where': 'SECRET'}"), 51094},
        {FIND("{'$text': {'$search': 'SECRET'}}"), 51094},
        {FIND("{'$jsonSchema': {'properties': {'ssn': {'enum': ['SECRET']}}}}"), 51092},
        {FIND("{'$notYetInvented': 'SECRET'}"), 51092},
        {"{'find': 'old', 'filter': {'ssn': 'SECRET'}, '$db': 'shop'}", 51158},
        {"{'find': 'people', 'filter': {'ssn': 'SECRET'}, 'collation': {'locale': 'fr'}, '$db': "
         "'shop'}",
         31054},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_reject(cases[i].json, cases[i].code);
    }
}

static void test_expressions(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(FIND("{'$expr': {'$eq': ['$ssn', 'x']}}"),
                   FIND("{'$expr': {'$eq': ['$ssn', <9: 'x'>]}}"));
    assert_replace(FIND("{'$expr': {'$in': ['$ssn', ['x', {'$literal': '$y'}, null]]}}"),
                   FIND("{'$expr': {'$in': ['$ssn', [<9: 'x'>, <9: '$y'>, null]]}}"));
    use_two_keys();
    assert_replace(FIND("{'$expr': {'$eq': ['$ssn', 'x']}}"),
                   FIND("{'$expr': {'$or': [{'$eq': ['$ssn', <9: 'x'>]}, {'$eq': ['$ssn', <7: "
                        "'x'>]}]}}"));
    assert_replace(FIND("{'$expr': {'$ne': ['x', '$ssn']}}"),
                   FIND("{'$expr': {'$and': [{'$ne': ['$ssn', <9: 'x'>]}, {'$ne': ['$ssn', <7: "
                        "'x'>]}]}}"));
    assert_replace(FIND("{'$expr': {'$eq': [{'$ifNull': ['$ssn', 'n']}, 'x']}}"),
                   FIND("{'$expr': {'$in': [{'$ifNull': ['$ssn', <9: 'n'>]}, [<9: 'x'>, <7: "
                        "'x'>]]}}"));
    assert_replace(FIND("{'$expr': {'$let': {'vars': {'v': 'x', 's': '$ssn'}, 'in': {'$ne': "
                        "['$$s', '$$v']}}}}"),
                   FIND("{'$expr': {'$let': {'vars': {'v': null, 's': '$ssn'}, 'in': {'$and': "
                        "[{'$ne': ['$$s', <9: 'x'>]}, {'$ne': ['$$s', <7: 'x'>]}]}}}}"));
    assert_replace(FIND("{'$expr': {'$in': ['x', '$contacts.email']}}"),
                   FIND("{'$expr': {'$or': [{'$in': [<9: 'x'>, '$contacts.email']}, {'$in': [<7: "
                        "'x'>, '$contacts.email']}]}}"));
    assert_forward(FIND("{'$expr': {'$and': [{'$ne': ['$note', null]}, {'$eq': ['$contacts', "
                        "[]]}, {'$gt': [{'$size': '$contacts'}, 1]}]}}"));
}

/* Runs of the same expression do not multiply: comparisons in comparisons are bounded. */
static void test_nested_comparisons(void **state)
{
    static char json[8192];
    (void)state;
    for (unsigned depth = 1; depth <= 30; depth += 29) {
        size_t n = (size_t)snprintf(json, sizeof json, "{'find': 'people', 'filter': {'$expr': ");
        for (unsigned i = 0; i < depth; i++) {
            n += (size_t)snprintf(json + n, sizeof json - n, "{'$eq': [{'$cond': [");
        }
        n += (size_t)snprintf(json + n, sizeof json - n, "true");
        for (unsigned i = 0; i < depth; i++) {
            n += (size_t)snprintf(json + n, sizeof json - n, ", '$ssn', 'c']}, 'x']}");
        }
        (void)snprintf(json + n, sizeof json - n, "}, '$db': 'shop'}");
        assert_int_equal(run(json), depth == 1 ? RK_VERDICT_REPLACE : RK_VERDICT_REJECT);
    }
    assert_int_equal(err.code, 51092);
    assert_non_null(strstr(err.message, "nested"));
}

static void test_harmless_expressions_pass(void **state)
{
    (void)state;
    assert_forward(FIND("{'$expr': {'$eq': ['$name', {'$literal': '$ssn'}]}}"));
    assert_forward(FIND("{'$expr': {'$eq': [{'$getField': 'name'}, 'x']}}"));
    assert_forward("{'find': 'old', 'filter': {'ssn': null}, '$db': 'shop'}");
    assert_forward("{'find': 'people', 'filter': {'a': 'x'}, 'collation': {'locale': 'fr'}, "
                   "'$db': 'shop'}");
    assert_replace("{'find': 'people', 'filter': {'ssn': 5000000000L}, 'collation': {'locale': "
                   "'simple'}, '$db': 'shop'}",
                   "{'find': 'people', 'filter': {'ssn': {'$in': [<9: 5000000000L>, <7: "
                   "5000000000L>]}}, 'collation': {'locale': 'simple'}, '$db': 'shop'}");
}

/* A refusal must say where, what and what to do. */
static void test_messages(void **state)
{
    (void)state;
    assert_reject(FIND("{'ssn': {'$gt': 'SECRET'}}"), 51118);
    assert_non_null(strstr(err.message, "shop.people"));
    assert_non_null(strstr(err.message, "\"ssn\""));
    assert_non_null(strstr(err.message, "$gt"));
    assert_non_null(strstr(err.message, "$in"));
    assert_reject(FIND("{'note.\x01\xff': 1}"), 51102);
    assert_non_null(strstr(err.message, "\"note.??\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equality_under_every_key),
        cmocka_unit_test(test_one_key_stays_an_equality),
        cmocka_unit_test(test_integers_of_either_type),
        cmocka_unit_test(test_logic),
        cmocka_unit_test(test_null_and_exists_everywhere),
        cmocka_unit_test(test_above_protected_fields),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_nested_comparisons),
        cmocka_unit_test(test_harmless_expressions_pass),
        cmocka_unit_test(test_messages),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
