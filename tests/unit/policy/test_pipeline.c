/* Aggregation pipelines: filters are rewritten, moves followed, everything else refused. */
#include "request.h"

#define AGG(stages) "{'aggregate': 'people', 'pipeline': [" stages "], 'cursor': {}, '$db': 'shop'}"
#define OPEN(stages)                                                                               \
    "{'aggregate': 'orders', 'pipeline': [" stages "], 'cursor': {}, '$db': 'shop'}"

static void test_match(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(AGG("{'$match': {'ssn': 'x'}}, {'$limit': 5}, {'$match': {'contacts.email': "
                       "'y'}}"),
                   AGG("{'$match': {'ssn': <9: 'x'>}}, {'$limit': 5}, {'$match': "
                       "{'contacts.email': <9: 'y'>}}"));
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    assert_replace(AGG("{'$unwind': '$contacts'}, {'$match': {'contacts.email': 'y'}}"),
                   AGG("{'$unwind': '$contacts'}, {'$match': {'contacts.email': <9: 'y'>}}"));
    assert_replace(AGG("{'$facet': {'a': [{'$match': {'ssn': 'x'}}], 'b': [{'$count': 'n'}]}}"),
                   AGG("{'$facet': {'a': [{'$match': {'ssn': <9: 'x'>}}], 'b': [{'$count': "
                       "'n'}]}}"));
    assert_reject(AGG("{'$match': {'note': 'SECRET'}}"), 51158);
    assert_reject("{'aggregate': 'people', 'pipeline': [{'$match': {'ssn': 'SECRET'}}], "
                  "'collation': {'locale': 'en'}, '$db': 'shop'}",
                  31054);
    assert_reject(AGG("'SECRET'"), 14);
    use_two_keys();
}

static void test_harmless_stages_pass(void **state)
{
    (void)state;
    assert_forward(AGG("{'$match': {'a': 1}}, {'$sort': {'a': 1}}, {'$skip': 1}, {'$sample': "
                       "{'size': 3}}, {'$project': {'ssn': 1, 'a': 1}}"));
    assert_forward(AGG("{'$project': {'note': 0}}, {'$unset': 'ssn'}"));
    assert_forward(AGG("{'$addFields': {'id': '$ssn', 'up': {'$toUpper': '$a'}}}"));
    assert_forward(AGG("{'$group': {'_id': '$a', 'n': {'$sum': 1}, 's': {'$first': '$ssn'}, 'all': "
                       "{'$push': '$$ROOT'}}}, {'$match': {'n': 3}}, {'$sort': {'n': 1}}"));
    assert_forward(AGG("{'$replaceRoot': {'newRoot': '$$ROOT'}}, {'$limit': 1}"));
    assert_forward(AGG("{'$geoNear': {'near': [1, 2], 'distanceField': 'd'}}"));
    assert_forward(OPEN("{'$match': {'ssn': 'x'}}, {'$group': {'_id': '$ssn'}}, {'$out': 'x'}"));
    assert_forward(OPEN("{'$notYetInvented': 1}"));
}

static void test_refused_stages(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int code;
    } cases[] = {
        {AGG("{'$sort': {'ssn': 1}}"), 51092},
        {AGG("{'$group': {'_id': '$ssn'}}"), 51092},
        {AGG("{'$group': {'_id': {'a': '$ssn'}}}"), 51092},
        {AGG("{'$group': {'_id': 1, 'x': {'$addToSet': '$ssn'}}}"), 51092},
        {AGG("{'$group': {'_id': 1, 'x': {'$max': '$ssn'}}}"), 51092},
        {AGG("{'$group': {'_id': 1, 'x': {'$push': {'a': '$ssn'}}}}, {'$match': {'x.a': "
             "'SECRET'}}"),
         51092},
        {AGG("{'$group': {'_id': 1, 'x': {'$top': {'output': '$a', 'sortBy': {'ssn': 1}}}}}"),
         51092},
        {AGG("{'$sortByCount': '$ssn'}"), 51092},
        {AGG("{'$bucket': {'groupBy': '$ssn', 'boundaries': ['SECRET']}}"), 51092},
        {AGG("{'$densify': {'field': 'ssn', 'range': {'step': 1}}}"), 51092},
        {AGG("{'$fill': {'output': {'ssn': {'value': 'SECRET'}}}}"), 51092},
        {AGG("{'$setWindowFields': {'sortBy': {'ssn': 1}, 'output': {}}}"), 51092},
        {AGG("{'$redact': {'$cond': ['$ssn', '$$KEEP', '$$PRUNE']}}"), 51092},
        {AGG("{'$unwind': '$note'}"), 51092},
        {AGG("{'$project': {'x': {'$concat': ['$ssn', 'SECRET']}}}"), 51092},
        {AGG("{'$addFields': {'x': {'y': '$ssn'}}}, {'$match': {'x.y': 'SECRET'}}"), 51092},
        {AGG("{'$addFields': {'x': {'$ifNull': ['$ssn', 'n']}}}, {'$match': {'x': 'SECRET'}}"),
         51092},
        {AGG("{'$set': {'ssn': 1}}, {'$project': {'x': {'$eq': ['$ssn', 'SECRET']}}}"), 51092},
        {AGG("{'$set': {'x': '$ssn.a'}}"), 51102},
        {AGG("{'$replaceWith': {'$mergeObjects': ['$$ROOT', {'a': 1}]}}, {'$sort': {'ssn': 1}}"),
         51092},
        {AGG("{'$redact': {'$cond': [{'$eq': ['$email', 'SECRET']}, '$$PRUNE', '$$DESCEND']}}"),
         51092},
        {AGG("{'$geoNear': {'query': {'ssn': 'SECRET'}}}"), 51092},
        {AGG("{'$search': {'text': 'SECRET'}}"), 51092},
        {AGG("{'$notYetInvented': 'SECRET'}"), 51092},
        {AGG("{'$out': 'open'}"), 31146},
        {AGG("{'$merge': {'into': 'open'}}"), 31146},
        {OPEN("{'$out': 'people'}"), 31146},
        {OPEN("{'$merge': 'people'}"), 31146},
        {OPEN("{'$merge': {'into': {'db': 'crm', 'coll': 'x'}}}"), 31146},
        {OPEN("{'$lookup': {'from': 'people', 'localField': 'a', 'foreignField': 'a', 'as': "
              "'p'}}, {'$out': 'open'}"),
         31146},
        {"{'aggregate': 'x', 'pipeline': [{'$out': {'db': 'shop', 'coll': 'people'}}], '$db': "
         "'other'}",
         31146},
        {"{'aggregate': 'old', 'pipeline': [{'$project': {'x': '$ssn'}}], '$db': 'shop'}", 51092},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_reject(cases[i].json, cases[i].code);
    }
}

/* What a protected value is called later is followed, and so is what its path then holds. */
static void test_moves_are_followed(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(AGG("{'$project': {'id': '$ssn'}}, {'$match': {'id': 'x'}}"),
                   AGG("{'$project': {'id': '$ssn'}}, {'$match': {'id': <9: 'x'>}}"));
    assert_reject(AGG("{'$addFields': {'id': '$ssn'}}, {'$group': {'_id': '$id'}}"), 51092);
    assert_reject(AGG("{'$addFields': {'id': '$ssn'}}, {'$addFields': {'b': '$id'}}, {'$sort': "
                      "{'b': 1}}"),
                  51092);
    assert_reject(AGG("{'$addFields': {'a.b': '$ssn'}}, {'$sort': {'a.0.b': 1}}"), 51092);
    assert_reject(AGG("{'$addFields': {'ssn': 'fixed'}}, {'$match': {'ssn': 'SECRET'}}"), 51092);
    assert_reject(AGG("{'$group': {'_id': '$a', 'ssn': {'$first': '$b'}}}, {'$match': {'ssn': "
                      "'SECRET'}}"),
                  51092);
    /* A path that is no longer there is still one whose values the server must not see. */
    assert_replace(AGG("{'$project': {'a': 1}}, {'$match': {'ssn': 'x'}}"),
                   AGG("{'$project': {'a': 1}}, {'$match': {'ssn': <9: 'x'>}}"));
    /* Stages that make documents of their own leave no protected value behind. */
    assert_forward(AGG("{'$group': {'_id': '$a', 'n': {'$sum': 1}}}, {'$out': 'totals'}"));
    assert_forward(AGG("{'$project': {'a': 1, '_id': 0}}, {'$out': 'names'}"));
    assert_forward(AGG("{'$count': 'n'}, {'$unionWith': 'orders'}, {'$out': 'x'}"));
    assert_forward(AGG("{'$facet': {'a': [{'$count': 'n'}]}}"));
    assert_reject(AGG("{'$count': 'n'}, {'$unionWith': 'people'}, {'$out': 'x'}"), 31146);
    assert_reject(AGG("{'$count': 'n'}, {'$lookup': {'from': 'people', 'pipeline': [], 'as': 'p'}},"
                      " {'$out': 'x'}"),
                  31146);
    assert_reject(AGG("{'$replaceWith': '$$ROOT'}, {'$group': {'_id': '$a', 'x': {'$first': "
                      "'$$ROOT'}}}, {'$out': 'x'}"),
                  51092);
    assert_reject(AGG("{'$facet': {'a': [{'$count': 'n'}], 'b': [{'$limit': 1}]}}, {'$out': 'x'}"),
                  31146);
    assert_reject(AGG("{'$project': {'a': 0}}, {'$out': 'names'}"), 31146);
    assert_reject(AGG("{'$project': {'_id': 1}}, {'$out': 'names'}"), 31146);
    assert_reject(AGG("{'$project': {'a': 1, 'contacts.name': 1, 'contacts.phone': 1}}, {'$out': "
                      "'names'}"),
                  31146);
    assert_reject(AGG("{'$project': {'a': 1, 'b': '$ssn'}}, {'$out': 'names'}"), 31146);
    assert_reject(AGG("{'$project': {'a': 1}}, {'$out': 'people'}"), 31146);
    assert_reject(AGG("{'$group': {'_id': '$a', 'all': {'$push': '$$ROOT'}}}, {'$out': 'x'}"),
                  31146);
    assert_reject(AGG("{'$group': {'_id': '$a', 'ssn': {'$first': '$ssn'}}}, {'$match': {'ssn': "
                      "'SECRET'}}"),
                  51092);
    assert_reject(AGG("{'$group': {'_id': '$a', 'd': {'$first': '$$ROOT'}}}, {'$sort': {'d.ssn': "
                      "1}}"),
                  51092);
    assert_reject(AGG("{'$replaceRoot': {'newRoot': '$contacts'}}, {'$match': {'email': "
                      "'SECRET'}}"),
                  51092);
    assert_reject(AGG("{'$facet': {'a': [{'$limit': 1}]}}, {'$sortByCount': '$a.ssn'}"), 51102);
    use_two_keys();
}

static void test_joins(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(OPEN("{'$lookup': {'from': 'people', 'localField': 'a', 'foreignField': 'a', "
                        "'as': 'p'}}, {'$unwind': '$p'}, {'$match': {'p.ssn': 'x'}}"),
                   OPEN("{'$lookup': {'from': 'people', 'localField': 'a', 'foreignField': 'a', "
                        "'as': 'p'}}, {'$unwind': '$p'}, {'$match': {'p.ssn': <9: 'x'>}}"));
    assert_replace(OPEN("{'$lookup': {'from': 'people', 'pipeline': [{'$match': {'ssn': 'x'}}], "
                        "'as': 'p'}}"),
                   OPEN("{'$lookup': {'from': 'people', 'pipeline': [{'$match': {'ssn': <9: "
                        "'x'>}}], 'as': 'p'}}"));
    assert_forward(AGG("{'$lookup': {'from': 'orders', 'localField': 'a', 'foreignField': 'ssn', "
                       "'as': 'o'}}, {'$sort': {'o.n': 1}}"));
    assert_reject(OPEN("{'$lookup': {'from': 'people', 'localField': 'a', 'foreignField': 'ssn', "
                       "'as': 'p'}}"),
                  51204);
    assert_reject(AGG("{'$lookup': {'from': 'orders', 'localField': 'ssn', 'foreignField': 'b', "
                      "'as': 'p'}}"),
                  51204);
    assert_reject(
        AGG("{'$lookup': {'from': 'orders', 'let': {'s': '$ssn'}, 'pipeline': [{'$match': "
            "{'$expr': {'$eq': ['$b', '$$s']}}}], 'as': 'p'}}"),
        51092);
    assert_replace(AGG("{'$lookup': {'from': 'people', 'let': {'v': 'x', 'a': '$a'}, 'pipeline': "
                       "[{'$match': {'$expr': {'$eq': ['$ssn', '$$v']}}}], 'as': 'p'}}"),
                   AGG("{'$lookup': {'let': {'v': null, 'a': '$a'}, 'from': 'people', 'pipeline': "
                       "[{'$match': {'$expr': {'$eq': ['$ssn', <9: 'x'>]}}}], 'as': 'p'}}"));
    assert_reject(OPEN("{'$lookup': {'from': 'old', 'localField': 'a', 'foreignField': 'a', 'as': "
                       "'p'}}"),
                  51204);
    assert_reject(OPEN("{'$lookup': {'from': 'people', 'localField': 'a', 'foreignField': 'a', "
                       "'as': 'p'}}, {'$group': {'_id': '$p.ssn'}}"),
                  51092);
    assert_reject(OPEN("{'$graphLookup': {'from': 'people', 'startWith': '$a', "
                       "'connectFromField': 'ssn', 'connectToField': 'b', 'as': 'p'}}"),
                  51204);
    assert_reject(AGG("{'$graphLookup': {'from': 'orders', 'startWith': '$ssn', "
                      "'connectFromField': 'b', 'connectToField': 'b', 'as': 'p'}}"),
                  51204);
    assert_reject(OPEN("{'$graphLookup': {'from': 'people', 'startWith': '$a', "
                       "'connectFromField': 'b', 'connectToField': 'b', 'as': 'p', "
                       "'restrictSearchWithMatch': {'ssn': 'SECRET'}}}"),
                  51204);
    assert_replace(OPEN("{'$unionWith': {'coll': 'people', 'pipeline': [{'$match': {'ssn': "
                        "'x'}}]}}"),
                   OPEN("{'$unionWith': {'coll': 'people', 'pipeline': [{'$match': {'ssn': <9: "
                        "'x'>}}]}}"));
    assert_reject(OPEN("{'$unionWith': 'people'}, {'$sort': {'anything': 1}}"), 51092);
    assert_reject(AGG("{'$unionWith': 'orders'}, {'$match': {'ssn': 'SECRET'}}"), 51092);
    use_two_keys();
}

static void test_change_streams(void **state)
{
    (void)state;
    use_one_key();
    assert_replace(AGG("{'$changeStream': {}}, {'$match': {'fullDocument.ssn': 'x', "
                       "'operationType': 'insert'}}"),
                   AGG("{'$changeStream': {}}, {'$match': {'fullDocument.ssn': <9: 'x'>, "
                       "'operationType': 'insert'}}"));
    assert_forward(AGG("{'$changeStream': {}}, {'$match': {'updateDescription.updatedFields.ssn': "
                       "{'$exists': true}, 'ns.coll': 'people'}}"));
    assert_reject(AGG("{'$changeStream': {}}, {'$match': {'fullDocument.note': 'SECRET'}}"), 51158);
    assert_reject(AGG("{'$changeStream': {}}, {'$match': {'fullDocumentBeforeChange.ssn': "
                      "{'$gt': 'SECRET'}}}"),
                  51118);
    assert_forward("{'aggregate': 1, 'pipeline': [{'$changeStream': {}}], '$db': 'shop'}");
    assert_int_equal(info.reply, RK_REPLY_SCAN);
    use_two_keys();
}

/* Such filters went to the server as they were: the stream then showed nothing, for ever. */
static void test_streams_over_many_collections(void **state)
{
    (void)state;
    assert_reject("{'aggregate': 1, 'pipeline': [{'$changeStream': {}}, {'$match': "
                  "{'fullDocument.ssn': 'SECRET'}}], '$db': 'shop'}",
                  51092);
    assert_reject("{'aggregate': 1, 'pipeline': [{'$changeStream': {'allChangesForCluster': true}}"
                  ", {'$match': {'fullDocumentBeforeChange.mail': 'SECRET'}}], '$db': 'admin'}",
                  51092);
    assert_forward("{'aggregate': 1, 'pipeline': [{'$changeStream': {}}, {'$match': "
                   "{'fullDocument.mail': 'x', 'operationType': 'insert'}}], '$db': 'shop'}");
    assert_forward("{'aggregate': 1, 'pipeline': [{'$changeStream': {}}, {'$match': "
                   "{'fullDocument.ssn': 'x'}}], '$db': 'other'}");
    assert_forward("{'aggregate': 1, 'pipeline': [{'$changeStream': {'allChangesForCluster': true}}"
                   ", {'$match': {'ns.db': 'shop'}}], '$db': 'admin'}");
    assert_int_equal(info.reply, RK_REPLY_SCAN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_harmless_stages_pass),
        cmocka_unit_test(test_refused_stages),
        cmocka_unit_test(test_moves_are_followed),
        cmocka_unit_test(test_joins),
        cmocka_unit_test(test_change_streams),
        cmocka_unit_test(test_streams_over_many_collections),
    };
    return cmocka_run_group_tests(tests, request_setup, request_teardown);
}
