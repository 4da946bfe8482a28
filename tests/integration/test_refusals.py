"""What could store, move or compare a protected value in a way that ciphertext cannot is refused,
in the codes that drivers know, with a message that says where and why; and changes nothing."""

import datetime

import pytest
from bson import SON, Code, ObjectId, Regex
from harness import SECRET
from harness.protected import RAW
from pymongo.errors import OperationFailure, WriteError

COLL = "people"


def update(u, q=None, **options):
    return SON(update=COLL, updates=[{"q": q or {}, "u": u, **options}])


def modify(u, **options):
    return SON(findAndModify=COLL, query={}, update=u, **options)


def find(query=None, **options):
    return SON(find=COLL, filter=query or {}, **options)


def aggregate(*stages, coll=COLL, **options):
    return SON(aggregate=coll, pipeline=list(stages), cursor={}, **options)


def index(keys, **options):
    return SON(createIndexes=COLL, indexes=[{"key": keys, "name": "i", **options}])


# Name: (command, code, what the message must name beside the namespace).
UPDATES = {
    "inc": (update({"$inc": {"answer": 1}}), 51150, ["$inc", "answer"]),
    "mul": (update({"$mul": {"ssn": 2}}), 51150, ["$mul", "ssn"]),
    "min": (update({"$min": {"answer": SECRET}}), 51150, ["$min", "answer"]),
    "max": (update({"$max": {"answer": SECRET}}), 51150, ["$max", "answer"]),
    "bit": (update({"$bit": {"answer": {"and": 1}}}), 51150, ["$bit", "answer"]),
    "push": (update({"$push": {"answer": SECRET}}), 51150, ["$push", "answer"]),
    "push sorted": (update({"$push": {"contact": {"$each": [], "$sort": 1}}}), 51150,
                    ["$sort", "contact"]),
    "push sorted by": (update({"$push": {"contact": {"$each": [], "$sort": {"phone": 1}}}}), 51092,
                       ["$sort", "phone"]),
    "pull": (update({"$pull": {"contact": {"phone": SECRET}}}), 51158, ["phone"]),
    "pull operator": (update({"$pull": {"contact": {"$in": [{"phone": SECRET}]}}}), 51150,
                      ["$pull", "contact"]),
    "pullAll": (update({"$pullAll": {"answer": [SECRET]}}), 51150, ["$pullAll", "answer"]),
    "pop": (update({"$pop": {"answer": 1}}), 51150, ["$pop", "answer"]),
    "addToSet": (update({"$addToSet": {"answer": SECRET}}), 51150, ["$addToSet", "answer"]),
    "addToSet to parent": (update({"$addToSet": {"contact": {"phone": SECRET}}}), 51150,
                           ["$addToSet", "contact"]),
    "currentDate": (update({"$currentDate": {"answer": True}}), 51150, ["$currentDate", "answer"]),
    "set below": (update({"$set": {"answer.part": SECRET}}), 51150, ["$set", "answer.part"]),
    "set index below": (update({"$set": {"answer.0": SECRET}}), 51150, ["$set", "answer.0"]),
    "unset below": (update({"$unset": {"answer.part": 1}}), 51150, ["$unset", "answer.part"]),
    "positional below": (update({"$set": {"answer.$": SECRET}}, {"answer": None}), 51149,
                         ["$set", "answer.$"]),
    "positional all below": (update({"$set": {"contact.$.phone.$[]": SECRET}}), 51149,
                             ["contact.$.phone.$[]"]),
    "arrayFilters": (update({"$set": {"contact.$[c].kind": "x"}},
                            arrayFilters=[{"c.phone": SECRET}]), 51150,
                     ["arrayFilters", "c.phone"]),
    "upsertSupplied": (update([{"$set": {"name": "x"}}], {"_id": 9}, upsert=True,
                              upsertSupplied=True, c={"new": {"_id": 9, "ssn": SECRET}}), 115,
                       ["upsertSupplied"]),
    "rename from": (update({"$rename": {"answer": "other"}}), 51160, ["$rename", "answer"]),
    "rename to": (update({"$rename": {"name": "answer"}}), 51161, ["$rename", "answer"]),
    "rename into parent": (update({"$rename": {"name": "contact.phone"}}), 51161,
                           ["$rename", "contact.phone"]),
    "rename parent": (update({"$rename": {"contact": "other"}}), 51160, ["$rename", "contact"]),
    "pipeline sets": (update([{"$set": {"answer": "$name"}}]), 31146, ["$set", "answer"]),
    "pipeline sets parent": (update([{"$addFields": {"contact": {"phone": "$name"}}}]), 31146,
                             ["$addFields", "contact"]),
    "pipeline copies": (update([{"$set": {"other": "$answer"}}]), 31146, ["$set", "answer"]),
    "pipeline copies all": (update([{"$set": {"other": "$$ROOT"}}]), 31146, ["$set"]),
    "pipeline spreads": (update([{"$set": {"contact.mail": "$contact.mail"}}]), 31146,
                         ["$set", "contact.mail"]),
    "pipeline replaces": (update([{"$replaceWith": {"answer": "$name"}}]), 31146,
                          ["$replaceWith", "answer"]),
    "pipeline projects": (update([{"$project": {"other": "$answer"}}]), 31146,
                          ["$project", "answer"]),
    "findAndModify push": (modify({"$push": {"answer": SECRET}}), 51150, ["$push", "answer"]),
    "findAndModify pipeline": (modify([{"$set": {"answer": "$name"}}]), 31146,
                               ["$set", "answer"]),
    "findAndModify sort": (modify({"$set": {"name": "x"}}, sort={"answer": 1}), 51092,
                           ["sort", "answer"]),
    "upsert in or": (update({"$set": {"name": "x"}}, {"$or": [{"ssn": SECRET}]}, upsert=True),
                     51092, ["$or", "ssn"]),
    "second of a batch": (SON(update=COLL, updates=[
        {"q": {"_id": 1}, "u": {"$set": {"name": "changed"}}},
        {"q": {"_id": 1}, "u": {"$push": {"answer": SECRET}}}]), 51150, ["$push", "answer"]),
}

QUERIES = {
    "random equality": (find({"answer": SECRET}), 51158, ["answer", "deterministic"]),
    "random $in": (find({"answer": {"$in": [SECRET]}}), 51158, ["answer"]),
    "random $ne": (find({"answer": {"$ne": SECRET}}), 51158, ["answer"]),
    "range": (find({"ssn": {"$gt": SECRET}}), 51118, ["$gt", "ssn"]),
    "range in $not": (find({"ssn": {"$not": {"$lte": SECRET}}}), 51118, ["$lte", "ssn"]),
    "regex": (find({"ssn": Regex("^x")}), 51092, ["ssn"]),
    "$regex": (find({"ssn": {"$regex": "^x"}}), 51092, ["$regex", "ssn"]),
    "regex in $in": (find({"ssn": {"$in": [Regex("^x")]}}), 51015, ["ssn"]),
    "$mod": (find({"ssn": {"$mod": [2, 0]}}), 51092, ["$mod", "ssn"]),
    "$size": (find({"answer": {"$size": 1}}), 51092, ["$size", "answer"]),
    "$type": (find({"answer": {"$type": "string"}}), 51092, ["$type", "answer"]),
    "$bitsAllSet": (find({"ssn": {"$bitsAllSet": 1}}), 51092, ["$bitsAllSet", "ssn"]),
    "$geoWithin": (find({"ssn": {"$geoWithin": {"$center": [[0, 0], 1]}}}), 51092, ["$geoWithin"]),
    "$all": (find({"ssn": {"$all": [SECRET]}}), 51092, ["$all", "ssn"]),
    "$elemMatch": (find({"ssn": {"$elemMatch": {"$eq": SECRET}}}), 6890100,
                   ["$elemMatch", "ssn"]),
    "in $elemMatch": (find({"contact": {"$elemMatch": {"phone": SECRET}}}), 51158, ["phone"]),
    "parent": (find({"contact": {"mail": SECRET}}), 31007, ["contact"]),
    "parent array": (find({"contact": [{"mail": SECRET}]}), 31007, ["contact"]),
    "below": (find({"ssn.part": SECRET}), 51102, ["ssn.part"]),
    "in $or": (find({"$or": [{"name": "x"}, {"$and": [{"answer": SECRET}]}]}), 51158, ["answer"]),
    "$where": (find({"$where": "true"}), 51094, ["$where"]),
    "$text": (find({"$text": {"$search": "x"}}), 51094, ["$text"]),
    "$expr": (find({"$expr": {"$gt": ["$ssn", SECRET]}}), 51092, ["$gt", "ssn"]),
    "$jsonSchema": (find({"$jsonSchema": {"required": ["ssn"]}}), 51092, ["$jsonSchema"]),
    "collation": (find({"ssn": SECRET}, collation={"locale": "en"}), 31054, ["ssn"]),
    "uncomparable": (find({"ssn": {"$in": [1.5]}}), 31041, ["ssn", "double"]),
    "sort": (find(sort={"ssn": 1}), 51092, ["sort", "ssn"]),
    "sort by parent": (find(sort={"contact": 1}), 51092, ["sort", "contact"]),
    "min": (find(min={"ssn": SECRET}, hint={"ssn": 1}), 51092, ["min", "ssn"]),
    "projection computes": (find(projection={"x": {"$concat": ["$answer", "!"]}}), 51092,
                            ["answer"]),
    "projection $slice": (find(projection={"answer": {"$slice": 1}}), 51092, ["$slice", "answer"]),
    "projection below": (find(projection={"answer.part": 1}), 51102, ["answer.part"]),
    "count": (SON(count=COLL, query={"answer": SECRET}), 51158, ["answer"]),
    "delete": (SON(delete=COLL, deletes=[{"q": {"ssn": {"$lt": "x"}}, "limit": 0}]), 51118,
               ["$lt", "ssn"]),
    "delete parent": (SON(delete=COLL, deletes=[{"q": {"contact": {"mail": 1}}, "limit": 1}]),
                      31007, ["contact"]),
    "distinct below": (SON(distinct=COLL, key="answer.part"), 51102, ["answer.part"]),
    "distinct parent": (SON(distinct=COLL, key="contact"), 51092, ["contact"]),
    "explain": (SON(explain=find({"answer": SECRET})), 51158, ["answer"]),
    "update's filter": (update({"$set": {"name": "x"}}, {"answer": SECRET}), 51158, ["answer"]),
}

PIPELINES = {
    "$match": (aggregate({"$match": {"answer": SECRET}}), 51158, ["answer"]),
    "$group by": (aggregate({"$group": {"_id": "$ssn"}}), 51092, ["$group", "ssn"]),
    "$group sum": (aggregate({"$group": {"_id": 1, "x": {"$sum": "$answer"}}}), 51092,
                   ["$sum", "answer"]),
    "$group addToSet": (aggregate({"$group": {"_id": 1, "x": {"$addToSet": "$ssn"}}}), 51092,
                        ["$addToSet", "ssn"]),
    "$sortByCount": (aggregate({"$sortByCount": "$ssn"}), 51092, ["$sortByCount", "ssn"]),
    "$sort": (aggregate({"$sort": {"ssn": 1}}), 51092, ["$sort", "ssn"]),
    "$sort renamed": (aggregate({"$project": {"x": "$ssn"}}, {"$sort": {"x": 1}}), 51092,
                      ["$sort", "x"]),
    "$match moved": (aggregate({"$group": {"_id": "$name", "ssn": {"$first": "$ssn"}}},
                               {"$match": {"ssn": SECRET}}), 51092, ["$match", "ssn"]),
    "expression": (aggregate({"$project": {"x": {"$strLenCP": "$answer"}}}), 51092, ["answer"]),
    "$lookup local": (aggregate({"$lookup": {"from": "plain", "localField": "ssn",
                                             "foreignField": "s", "as": "x"}}), 51204,
                      ["$lookup", "ssn"]),
    "$lookup foreign": (aggregate({"$lookup": {"from": COLL, "localField": "s",
                                               "foreignField": "ssn", "as": "x"}}, coll="plain"),
                        51204, ["$lookup", "ssn"]),
    "$lookup pipeline": (aggregate({"$lookup": {"from": COLL, "as": "x",
                                                "pipeline": [{"$match": {"answer": SECRET}}]}},
                                   coll="plain"), 51158, ["answer"]),
    "$unionWith": (aggregate({"$unionWith": {"coll": COLL, "pipeline": [
        {"$match": {"answer": SECRET}}]}}, coll="plain"), 51158, ["answer"]),
    "$graphLookup": (aggregate({"$graphLookup": {
        "from": COLL, "startWith": "$name", "connectFromField": "name", "connectToField": "ssn",
        "as": "x"}}, coll="plain"), 51204, ["$graphLookup", "ssn"]),
    "$out": (aggregate({"$out": "copy"}), 31146, ["$out"]),
    "$merge": (aggregate({"$merge": {"into": "copy"}}), 31146, ["$merge"]),
    "$out into": (aggregate({"$out": COLL}, coll="plain"), 31146, ["$out"]),
    "$merge into": (aggregate({"$merge": {"into": COLL}}, coll="plain"), 31146, ["$merge"]),
    "unknown stage": (aggregate({"$search": {"x": 1}}), 51092, ["$search"]),
    "$facet": (aggregate({"$facet": {"x": [{"$sortByCount": "$ssn"}]}}), 51092,
               ["$sortByCount", "ssn"]),
}

AROUND = {
    "index on random": (index({"answer": 1}), 51092, ["answer"]),
    "index on parent": (index({"contact": 1}), 51092, ["contact"]),
    "unique index": (index({"ssn": 1}, unique=True), 51092, ["unique", "ssn"]),
    "ttl index": (index({"ssn": 1}, expireAfterSeconds=1), 51092, ["TTL", "ssn"]),
    "text index": (index({"ssn": "text"}), 51092, ["ssn"]),
    "wildcard index": (index({"$**": 1}), 51092, ["index"]),
    "partial index": (index({"name": 1}, partialFilterExpression={"ssn": {"$eq": SECRET}}), 51092,
                      ["partialFilterExpression", "ssn"]),
    "collMod validator": (SON(collMod=COLL, validator={"ssn": {"$type": "string"}}), 51092,
                          ["validator", "ssn"]),
    "collMod schema": (SON(collMod=COLL, validator={"$jsonSchema": {"properties": {
        "contact": {"bsonType": "object"}}}}), 51092, ["validator", "contact"]),
    "view": (SON(create="view", viewOn=COLL, pipeline=[{"$match": {"ssn": SECRET}}]), 51092,
             ["view"]),
    "mapReduce": (SON(mapReduce=COLL, map=Code("f"), reduce=Code("f"), out={"inline": 1}), 20,
                  ["mapReduce"]),
    "mapReduce into": (SON(mapReduce="plain", map=Code("f"), reduce=Code("f"), out=COLL), 20,
                       ["mapReduce"]),
    "convertToCapped": (SON(convertToCapped=COLL, size=1000), 115, ["convertToCapped"]),
    "cloneCollectionAsCapped": (SON(cloneCollectionAsCapped=COLL, toCollection="c", size=1000), 20,
                                ["cloneCollectionAsCapped"]),
    "unknown command": (SON(fancyNewWrite=COLL, documents=[{"answer": SECRET}]), 115,
                        ["fancyNewWrite"]),
}


@pytest.fixture
def filled(people):
    people.app.insert_one({"_id": 1, "name": "n", "answer": SECRET, "ssn": SECRET,
                           "contact": [{"kind": "home", "phone": SECRET, "mail": SECRET}]})
    people.stored_plain.insert_one({"_id": 1, "s": "x"})
    return people


def test_dotted_key(filled):
    """An error of that document alone, like all that concerns the data and not the command."""
    before = state(filled)
    with pytest.raises(WriteError) as refused:
        filled.app.insert_one({"contact.phone": SECRET})
    assert refused.value.code == 57 and "contact.phone" in str(refused.value)
    assert SECRET not in refused.value.details["errmsg"]
    assert state(filled) == before


def check_refused(people, db, command, code, named, namespace=None):
    before = state(people)
    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    said = refused.value.details["errmsg"]
    assert refused.value.code == code, said
    for words in [namespace or people.namespace, *named]:
        assert words in said
    assert SECRET not in said
    assert state(people) == before
    people.check()


def state(people):
    names = sorted(people.stored_db.list_collection_names())
    return {name: (list(people.stored_db[name].find()), people.stored_db[name].index_information())
            for name in names}


@pytest.mark.parametrize("name", UPDATES)
def test_updates(filled, name):
    check_refused(filled, filled.app_db, *UPDATES[name])


@pytest.mark.parametrize("name", QUERIES)
def test_queries(filled, name):
    check_refused(filled, filled.app_db, *QUERIES[name])


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines(filled, name):
    check_refused(filled, filled.app_db, *PIPELINES[name])


@pytest.mark.parametrize("name", AROUND)
def test_around_the_proxy(filled, name):
    check_refused(filled, filled.app_db, *AROUND[name])


def test_out_of_joined_documents(filled):
    joined = {"$lookup": {"from": COLL, "pipeline": [], "as": "x"}}
    command = aggregate(joined, {"$out": "copy"}, coll="plain")
    plain = filled.plain.full_name
    check_refused(filled, filled.app_db, command, 31146, ["$out"], namespace=plain)


def test_create_with_validator(people):
    command = SON(create=COLL, validator={"answer": {"$type": "string"}})
    check_refused(people, people.app_db, command, 51092, ["validator", "answer"])
    assert people.stored_db.list_collection_names() == []


def test_buckets_of_a_time_series(people):
    """The same fields in a shape of their own: $set or insert would store them in the clear."""
    series = {"timeField": "t", "metaField": "m"}
    people.stored_db.create_collection("people", timeseries=series)
    wanted = {"_id": 1, "t": datetime.datetime(2020, 1, 1), "m": 1, "answer": SECRET}
    people.app.insert_one(wanted)
    assert people.app.find_one() == wanted
    bucket = people.stored_db["system.buckets.people"].find_one()
    bucket["_id"], bucket["data"]["answer"]["0"] = ObjectId(), SECRET
    for refused in (
        SON(insert="system.buckets.people", documents=[bucket]),
        SON(update="system.buckets.people",
            updates=[{"q": {}, "u": {"$set": {"data.answer.0": SECRET}}}]),
    ):
        with pytest.raises(OperationFailure) as failure:
            people.app_db.command(refused)
        assert "buckets" in str(failure.value)
    raw = people.stored_db["system.buckets.people"].with_options(RAW).find_one().raw
    assert SECRET.encode() not in raw


def test_commands_of_other_databases(filled):
    ns = filled.namespace
    db = filled.app_db.name
    admin = filled.app_client.admin
    outside = filled.app_client[f"{db}_outside"]
    outside.c.insert_one({"_id": 1, "answer": "x"})
    insert = {"op": "i", "ns": ns, "o": {"_id": 9, "answer": SECRET}}
    try:
        for where, command, code, named in [
            (admin, SON(renameCollection=ns, to=f"{db}.other"), 20, ["renameCollection"]),
            (admin, SON(renameCollection=f"{db}.plain", to=ns, dropTarget=True), 20,
             ["renameCollection"]),
            (admin, SON(bulkWrite=1, nsInfo=[{"ns": ns}],
                        ops=[{"delete": 0, "filter": {"answer": SECRET}}]), 51158, ["answer"]),
            (outside, aggregate({"$out": {"db": db, "coll": COLL}}, coll="c"), 31146, ["$out"]),
            (outside, aggregate({"$merge": {"into": {"db": db, "coll": COLL}}}, coll="c"), 31146,
             ["$merge"]),
            (outside, SON(mapReduce="c", map=Code("f"), reduce=Code("f"),
                          out={"replace": COLL, "db": db}), 20, ["mapReduce"]),
        ]:
            check_refused(filled, where, command, code, named)
        before = state(filled)
        with pytest.raises(OperationFailure) as refused:
            admin.command(SON(applyOps=[insert]))
        assert refused.value.code == 20 and "applyOps" in str(refused.value)
        assert state(filled) == before
    finally:
        filled.direct_client.drop_database(outside.name)


def test_the_connection_goes_on(filled):
    """A refusal is an answer to its own request only."""
    for _ in range(3):
        with pytest.raises(OperationFailure):
            filled.app.update_one({}, {"$push": {"answer": SECRET}})
        assert filled.app.find_one({"ssn": SECRET})["answer"] == SECRET


def test_the_same_is_allowed_elsewhere(filled):
    """An unprotected collection of the same database may do all of that."""
    filled.plain.insert_one({"_id": 2, "answer": ["a"], "ssn": 1})
    filled.plain.update_one({"_id": 2}, {"$push": {"answer": "b"}, "$inc": {"ssn": 1}})
    filled.plain.update_one({"_id": 2}, [{"$set": {"copy": "$answer"}}])
    filled.plain.update_one({"_id": 2}, {"$rename": {"copy": "contact"}})
    filled.plain.create_index("answer", unique=True, sparse=True)
    seen = filled.plain.find_one({"answer": {"$size": 2}, "ssn": {"$gt": 1}})
    assert seen == {"_id": 2, "answer": ["a", "b"], "ssn": 2, "contact": ["a", "b"]}
