"""Every way to change what lies beside, above and at protected fields: the same statement on a
protected collection through rekeyd and on a plain one without it must leave the same documents,
answer the same, and store no secret in the clear."""

import datetime

import pytest
from bson import Int64
from harness import SECRET
from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

PHONE, MAIL = f"{SECRET} phone", f"{SECRET} mail"
START = [
    {
        "_id": i,
        "n": i,
        "ssn": f"{SECRET} {i}",
        "answer": [f"{SECRET} a", i],
        "open": {"a": 1, "list": [3, 1, 2]},
        "contact": [
            {"kind": "home", "rank": 2, "phone": f"{PHONE} {i}", "mail": f"{MAIL} {i}"},
            {"kind": "work", "rank": 1, "mail": MAIL, "tags": ["x"]},
            {"kind": "none", "rank": 3, "phone": None},
            7,
            [{"kind": "deep", "phone": PHONE}],
        ],
    }
    for i in range(3)
]
NEW = {"kind": "new", "rank": 0, "phone": f"{PHONE} new", "mail": f"{MAIL} new"}

UPDATES = {
    "push": {"$push": {"contact": NEW}},
    "push plain": {"$push": {"contact": {"kind": "k"}, "open.list": 4}},
    "push scalar": {"$push": {"contact": 5}},
    "push array": {"$push": {"contact": [NEW, 5]}},
    "push into": {"$push": {"contact.4": NEW, "contact.1.tags": "y"}},
    "push creates": {"$push": {"other": 1}, "$set": {"n": 1}},
    "each": {"$push": {"contact": {"$each": [NEW, 5, None, [NEW]]}}},
    "each position slice": {"$push": {"contact": {"$each": [NEW], "$position": 0, "$slice": 2}}},
    "each slice only": {"$push": {"contact": {"$each": [], "$slice": -1}}},
    "addToSet new": {"$addToSet": {"contact": {"kind": "k"}}},
    "addToSet there": {"$addToSet": {"contact": {"kind": "none", "rank": 3, "phone": None}}},
    "addToSet encrypted there": {
        "$addToSet": {"contact": {"kind": "work", "rank": 1, "mail": MAIL, "tags": ["x"]}}
    },
    "addToSet encrypted new": {"$addToSet": {"contact": {"$each": [{"mail": MAIL}, 7, 8]}}},
    "pull": {"$pull": {"contact": {"kind": "home"}}},
    "pull range": {"$pull": {"contact": {"rank": {"$gte": 2}}}},
    "pull equality": {"$pull": {"contact": {"mail": MAIL}}},
    "pull in": {"$pull": {"contact": {"mail": {"$in": [MAIL, f"{MAIL} 1", None]}}}},
    "pull both": {"$pull": {"contact": {"mail": {"$ne": MAIL}, "rank": 3}}},
    "pull or": {"$pull": {"contact": {"$or": [{"mail": MAIL}, {"kind": "none"}]}}},
    "pull null": {"$pull": {"contact": {"phone": None}}},
    "pull exists": {"$pull": {"contact": {"phone": {"$exists": False}}}},
    "pull scalar": {"$pull": {"contact": 7}},
    "pull all": {"$pull": {"contact": {}}},
    "pull within": {"$pull": {"contact.4": {"kind": "deep"}}},
    "pullAll": {"$pullAll": {"contact": [7, {"kind": "none", "rank": 3, "phone": None}]}},
    "pullAll encrypted": {
        "$pullAll": {"contact": [{"kind": "work", "rank": 1, "mail": MAIL, "tags": ["x"]}]}
    },
    "pop last": {"$pop": {"contact": 1, "open.list": -1}},
    "pop first": {"$pop": {"contact": -1}},
    "unset": {"$unset": {"contact.0.phone": 1, "answer": 1, "open.a": 1}},
    "unset element": {"$unset": {"contact.1": 1}},
    "unset parent": {"$unset": {"contact": 1}},
    "rename sibling": {"$rename": {"open.a": "open.b", "n": "m"}},
    "set parent": {"$set": {"contact": {"phone": PHONE, "kind": [NEW["kind"]]}}},
    "set array": {"$set": {"contact": [NEW, [NEW], 1, None]}},
    "set within": {"$set": {"contact.0.kind": "x", "contact.4.0.phone": PHONE}},
    "set beyond": {"$set": {"contact.7.mail": MAIL}},
    "all elements": {"$set": {"contact.$[].kind": "x"}},
    "inc sibling": {"$inc": {"contact.0.rank": 5, "open.a": 1}},
    "siblings": {"$mul": {"n": 2}, "$min": {"contact.0.rank": 1}, "$max": {"contact.1.rank": 9},
                 "$bit": {"open.a": {"or": 4}}},
    "replace": {"ssn": SECRET, "contact": [NEW]},
    "not possible": {"$push": {"n": 1}},
    "not possible above": {"$push": {"open": 1}},
    "conflict": {"$push": {"contact": NEW}, "$set": {"contact.0.phone": PHONE}},
}

PIPELINES = {
    "constants": [{"$set": {"ssn": f"{SECRET} const", "answer": None, "n": {"$add": ["$n", 1]}}}],
    "literal": [{"$set": {"answer": {"$literal": {"$a": [SECRET], "b": "$n"}}}}],
    "array": [{"$set": {"answer": [SECRET, 1, [True]]}}],
    "nested": [{"$addFields": {"contact": {"phone": PHONE, "note": {"$concat": ["a", "b"]}}}}],
    "dotted": [{"$set": {"contact.mail": MAIL, "contact.seen": "$n"}}],
    "number": [{"$set": {"contact.mail": Int64(5)}}],
    "of documents": [{"$set": {"contact": [{"phone": PHONE, "n": "$n"}, 5]}}],
    "literal above": [{"$set": {"contact": {"$literal": [NEW, "$n"]}}}],
    "scalar above": [{"$set": {"contact": 5}}],
    "itself": [{"$set": {"answer": "$answer", "contact": "$contact", "x": "$open.a"}}],
    "remove": [{"$set": {"answer": "$$REMOVE", "contact": {"phone": "$$REMOVE"}}}],
    "unset": [{"$unset": ["ssn", "contact.mail"]}, {"$set": {"ssn": SECRET}}],
    "exclude": [{"$project": {"ssn": 0, "contact.phone": 0}}],
    "include": [{"$project": {"ssn": 1, "contact": {"mail": 1}, "m": "$n"}}],
    "include computed": [{"$project": {"n": 1, "answer": f"{SECRET} c"}}],
    "root": [{"$replaceWith": "$$ROOT"}],
    "replace": [{"$replaceWith": {"_id": "$_id", "ssn": "$ssn", "m": "$n", "answer": SECRET}}],
    "defaults": [{"$replaceRoot": {"newRoot": {"$mergeObjects": [
        {"answer": f"{SECRET} default", "extra": 1}, "$$ROOT", {"contact": [NEW]}]}}}],
    "sequence": [{"$set": {"m": "$n"}}, {"$project": {"open": 0}}, {"$unset": "contact"},
                 {"$set": {"contact": {"phone": PHONE}}}],
    "not possible": [{"$set": {"n": {"$add": ["$open", 1]}}}],
}


@pytest.fixture
def pair(people):
    mirror = people.direct_client[f"{people.app_db.name}_mirror"]
    mirror.people.drop()
    for collection in (people.app, mirror.people):
        collection.insert_many([dict(d) for d in START])
    yield people, people.app, mirror.people
    mirror.client.drop_database(mirror.name)


def outcome(operation, collection):
    try:
        return operation(collection)
    except OperationFailure as failure:
        return failure.code


def compare(pair, operation):
    people, app, mirror = pair
    seen, wanted = outcome(operation, app), outcome(operation, mirror)
    assert repr(seen) == repr(wanted)
    assert repr(people.seen()) == repr(list(mirror.find().sort("_id")))
    people.check()
    return seen


def counts(result):
    return result.matched_count, result.modified_count, result.upserted_id


def change(update, **query):
    def operation(collection):
        if isinstance(update, dict) and not next(iter(update)).startswith("$"):
            return counts(collection.replace_one(query, update))
        return counts(collection.update_one(query, update))
    return operation


@pytest.mark.parametrize("name", UPDATES)
def test_update(pair, name):
    compare(pair, change(UPDATES[name], _id=1))


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline(pair, name):
    compare(pair, change(PIPELINES[name], _id=1))


@pytest.mark.parametrize("name", [n for n in UPDATES if n != "replace"])
def test_update_many(pair, name):
    compare(pair, lambda c: counts(c.update_many({"n": {"$gt": 0}}, UPDATES[name])))


@pytest.mark.parametrize("updates", [UPDATES, PIPELINES], ids=["operators", "pipelines"])
def test_find_and_modify(pair, updates):
    for name, update in updates.items():
        if name == "replace" and updates is UPDATES:
            continue
        for document in START:
            compare(pair, lambda c, d=document: c.replace_one({"_id": d["_id"]}, d).matched_count)
        compare(pair, lambda c, u=update: c.find_one_and_update(
            {"n": {"$gt": 0}}, u, projection={"open": 0}, sort=[("n", -1)],
            return_document=ReturnDocument.AFTER,
        ))


# What modifies other than the pairs above: order, and filters beside the update.


def test_push_sorted_by_an_unprotected_member(people):
    people.app.insert_one({"_id": 1, "contact": [{"rank": 3, "phone": PHONE}]})
    people.app.update_one({}, {"$push": {"contact": {
        "$each": [{"rank": 1, "phone": SECRET}, {"rank": 2}], "$sort": {"rank": -1}, "$slice": 2}}})
    assert people.seen() == [{"_id": 1, "contact": [{"rank": 3, "phone": PHONE}, {"rank": 2}]}]
    people.check()


@pytest.mark.parametrize("update", [
    {"$set": {"contact.$.phone": PHONE}},
    {"$set": {"contact.$": NEW}},
    {"$unset": {"contact.$.mail": 1}},
    {"$inc": {"contact.$.rank": 1}},
    {"$push": {"contact.$.tags": "z"}},
])
@pytest.mark.parametrize("query", [
    {"contact.kind": "work"}, {"contact.mail": MAIL}, {"contact": {"$elemMatch": {"rank": 1}}},
    {"contact": {"$elemMatch": {"mail": MAIL, "rank": {"$lt": 5}}}},
])
def test_positional(pair, query, update):
    compare(pair, lambda c: counts(c.update_one({"_id": 1, **query}, update)))


@pytest.mark.parametrize("condition", [
    {"e.kind": "work"}, {"e.rank": {"$gt": 1}}, {"$or": [{"e.kind": "home"}, {"e.rank": 1}]},
])
def test_array_filters(pair, condition):
    for update in ({"$set": {"contact.$[e].phone": PHONE}}, {"$set": {"contact.$[e]": NEW}},
                   {"$unset": {"contact.$[e].mail": 1}}, {"$inc": {"contact.$[e].rank": 1}}):
        def operation(collection, update=update):
            return counts(collection.update_many({}, update, array_filters=[condition]))
        compare(pair, operation)


UPSERTS = {
    "equality": ({"ssn": f"{SECRET} u"}, {"$set": {"n": 9}}),
    "eq": ({"ssn": {"$eq": f"{SECRET} u"}}, {"$setOnInsert": {"contact": [NEW]}}),
    "single in": ({"ssn": {"$in": [f"{SECRET} u"]}}, {"$set": {"n": 9}}),
    "and": ({"$and": [{"ssn": f"{SECRET} u"}, {"n": 9}]}, {"$set": {"answer": SECRET}}),
    "nested": ({"contact.mail": MAIL, "n": 9}, {"$set": {"contact.phone": PHONE}}),
    "decided": ({"ssn": f"{SECRET} u"}, {"$set": {"ssn": f"{SECRET} v"}}),
    "push": ({"n": 9}, {"$push": {"contact": NEW}, "$currentDate": {"open.at": True}}),
    "pipeline": ({"n": 9}, [{"$set": {"ssn": SECRET, "contact": {"phone": PHONE}}}]),
    "pipeline seed": ({"ssn": f"{SECRET} u"}, [{"$set": {"n": 9}}]),
    "replace": ({"ssn": f"{SECRET} u"}, {"ssn": f"{SECRET} u", "n": 9}),
}


@pytest.mark.parametrize("name", UPSERTS)
def test_upsert(pair, name):
    query, update = UPSERTS[name]
    query = {**query, "_id": 50}

    def operation(collection):
        if name == "replace":
            result = collection.replace_one(query, update, upsert=True)
        else:
            result = collection.update_one(query, update, upsert=True)
        found = collection.find_one({"_id": 50})
        if name == "push":
            assert isinstance(found["open"].pop("at"), datetime.datetime)
            collection.update_one({"_id": 50}, {"$unset": {"open": 1}})
        return counts(result), found

    compare(pair, operation)


# Two live keys: what one key allows is exact, or refused.


def test_two_keys(own_people):
    people = own_people
    people.app.insert_one({"_id": 1, "contact": [{"mail": MAIL, "n": 1}, {"mail": SECRET}]})
    people.rotate()
    people.app.update_one({"_id": 1}, {"$push": {"contact": {"mail": MAIL, "n": 2}}})
    for update in ({"$addToSet": {"contact": {"mail": MAIL}}},
                   {"$pullAll": {"contact": [{"mail": SECRET}]}}):
        with pytest.raises(OperationFailure) as refused:
            people.app.update_one({"_id": 1}, update)
        assert refused.value.code == 51150 and "contact" in str(refused.value)
    people.app.update_one({"_id": 1}, {"$pull": {"contact": {"mail": MAIL}}})
    assert people.seen() == [{"_id": 1, "contact": [{"mail": SECRET}]}]
    people.check()
