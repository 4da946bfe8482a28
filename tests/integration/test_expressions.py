"""Aggregation expressions on deterministic fields, under two live keys, compared with the same over
plaintext: constants in them become ciphertext, and nothing of them reaches mongod in the clear."""

import pytest
from bson import SON, Int64
from harness import SECRET
from pymongo.errors import OperationFailure


def person(i):
    document = {
        "_id": i,
        "group": i % 3,
        "answer": f"{SECRET} answer {i}",
        "ssn": f"{SECRET} ssn {i % 4}",
        "contact": [
            {"phone": f"{SECRET} phone {i}", "mail": Int64(i % 4), "kind": "home"},
            {"phone": None, "mail": f"{SECRET} mail {i % 3}", "kind": "work"},
        ],
    }
    if i % 5 == 0:
        document["ssn"] = None
    if i % 5 == 1:
        del document["ssn"]
    if i % 7 == 2:
        document["ssn"] = i  # an int32 in the shell's sense
    if i % 4 == 3:
        document["answer"] = None
    if i % 6 == 3:
        document["contact"] = {"mail": f"{SECRET} alone"}
    if i % 6 == 4:
        document["contact"] = []
    return document


PEOPLE = [person(i) for i in range(24)]
ONE = f"{SECRET} ssn 2"
TWO = f"{SECRET} ssn 3"
MAIL = f"{SECRET} mail 1"
ALONE = f"{SECRET} alone"
IS_ONE = {"$eq": ["$ssn", ONE]}
OR_NONE = {"$ifNull": ["$ssn", f"{SECRET} none"]}
WORK = {"$filter": {"input": "$contact", "as": "c", "cond": {"$eq": ["$$c.mail", MAIL]}}}

# What stands in $expr, and in a computed field: each is true for some documents and false for some.
CONDITIONS = {
    "eq": IS_ONE,
    "eq swapped": {"$eq": [ONE, "$ssn"]},
    "eq literal": {"$eq": ["$ssn", {"$literal": ONE}]},
    "ne": {"$ne": ["$ssn", ONE]},
    "eq null": {"$eq": ["$ssn", None]},
    "ne null": {"$ne": ["$ssn", None]},
    "random null": {"$ne": ["$answer", None]},
    "number": {"$eq": ["$ssn", 2.0]},
    "long": {"$eq": ["$ssn", Int64(9)]},
    "not a number": {"$ne": ["$ssn", 9]},
    "in": {"$in": ["$ssn", [ONE, TWO, 9]]},
    "in literal": {"$in": ["$ssn", {"$literal": [ONE, None]}]},
    "in with null": {"$in": ["$ssn", [None, ONE]]},
    "logic": {"$and": [{"$not": [IS_ONE]}, {"$or": [{"$eq": ["$group", 1]},
                                                    {"$eq": ["$ssn", TWO]}]}]},
    "cond": {"$cond": [IS_ONE, {"$gt": ["$_id", 5]}, {"$lt": ["$_id", 5]}]},
    "cond by name": {"$cond": {"if": IS_ONE, "then": True, "else": {"$eq": ["$group", 0]}}},
    "switch": {"$switch": {"branches": [{"case": IS_ONE, "then": True},
                                        {"case": {"$eq": ["$ssn", TWO]}, "then": "$group"}],
                           "default": False}},
    "compared cond": {"$eq": [{"$cond": [{"$eq": ["$group", 1]}, "$ssn", TWO]}, TWO]},
    "compared ifNull": {"$eq": [OR_NONE, f"{SECRET} none"]},
    "compared ifNull ne": {"$ne": [OR_NONE, f"{SECRET} none"]},
    "compared switch": {"$in": [
        {"$switch": {"branches": [{"case": {"$eq": ["$group", 0]}, "then": "$ssn"},
                                  {"case": {"$eq": ["$group", 1]}, "then": 9}],
                     "default": None}}, [ONE, Int64(9)]]},
    "let": {"$let": {"vars": {"wanted": ONE, "s": "$ssn"}, "in": {"$eq": ["$$s", "$$wanted"]}}},
    "let whole": {"$let": {"vars": {"d": "$$ROOT"}, "in": {"$eq": ["$$d.ssn", ONE]}}},
    "current": {"$eq": ["$$CURRENT.ssn", ONE]},
    "array is not its element": {"$ne": ["$contact.mail", ALONE]},
    "element of an array": {"$in": [MAIL, {"$ifNull": [{"$map": {
        "input": {"$cond": [{"$isArray": "$contact"}, "$contact", []]}, "in": "$$this.mail"}},
        []]}]},
    "number in an array": {"$cond": [{"$isArray": "$contact.mail"},
                                     {"$in": [2, "$contact.mail"]}, False]},
    "empty array": {"$eq": ["$contact", []]},
    "map": {"$anyElementTrue": [{"$cond": [{"$isArray": "$contact"}, {"$map": {
        "input": "$contact", "as": "c", "in": {"$eq": ["$$c.mail", MAIL]}}}, []]}]},
    "filter": {"$cond": [{"$isArray": "$contact"}, {"$gt": [{"$size": WORK}, 0]}, False]},
    "first of an array": {"$cond": [{"$isArray": "$contact.mail"}, {"$eq": [
        {"$arrayElemAt": ["$contact.mail", 0]}, 2]}, False]},
}

PIPELINES = {
    "project": [{"$project": {"x": IS_ONE, "y": {"$cond": [IS_ONE, "one", "$name"]}}}],
    "hands on": [{"$addFields": {"x": {"$ifNull": ["$ssn", "none"]},
                                 "y": {"$cond": [IS_ONE, "$ssn", None]},
                                 "z": ["$ssn", {"a": "$contact"}]}}],
    "redact": [{"$redact": {"$cond": [{"$in": ["$ssn", [ONE, TWO]]}, "$$PRUNE", "$$KEEP"]}}],
    "sum": [{"$group": {"_id": "$group", "n": {"$sum": {"$cond": [IS_ONE, 1, 0]}},
                        "all": {"$push": {"s": "$ssn", "one": IS_ONE}}}}],
    "replace": [{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"one": IS_ONE}]}}],
    "root": [{"$replaceRoot": {"newRoot": {"_id": "$_id", "s": "$ssn", "one": IS_ONE}}}],
    "filtered": [{"$match": {"contact": {"$type": "array"}}}, {"$project": {"c": WORK}}],
    "lookup": [{"$lookup": {"from": "people", "let": {"g": "$group", "wanted": ONE}, "as": "x",
                            "pipeline": [{"$match": {"$expr": {"$and": [
                                {"$eq": ["$group", "$$g"]}, {"$eq": ["$ssn", "$$wanted"]}]}}},
                                {"$sort": {"_id": 1}}]}}],
    "facet": [{"$facet": {"a": [{"$match": {"$expr": IS_ONE}}, {"$sort": {"_id": 1}}]}}],
}

REFUSED = {
    "range": ({"$gt": ["$ssn", ONE]}, 51092),
    "cmp": ({"$cmp": ["$ssn", ONE]}, 51092),
    "random": ({"$eq": ["$answer", ONE]}, 51158),
    "random in": ({"$in": ["$answer", [ONE]]}, 51158),
    "empty against random": ({"$eq": ["$answer", []]}, 51092),
    "two fields": ({"$eq": ["$ssn", "$contact.mail"]}, 51092),
    "same field": ({"$eq": ["$ssn", "$ssn"]}, 51092),
    "unprotected": ({"$eq": ["$ssn", "$name"]}, 51092),
    "computed": ({"$eq": ["$ssn", {"$concat": [ONE, ""]}]}, 51092),
    "parent": ({"$eq": ["$contact", {"mail": ONE}]}, 51092),
    "below": ({"$eq": ["$ssn.part", ONE]}, 51102),
    "truth": ({"$and": ["$ssn", True]}, 51092),
    "condition": ({"$cond": ["$ssn", 1, 2]}, 51092),
    "type": ({"$eq": [{"$type": "$ssn"}, "string"]}, 51092),
    "text": ({"$concat": ["$ssn", ""]}, 51092),
    "double": ({"$eq": ["$ssn", 1.5]}, 31041),
    "array": ({"$in": ["$ssn", [[ONE]]]}, 51092),
    "element of a list": ({"$in": ["$ssn", ["$name", ONE]]}, 51092),
    "getField": ({"$eq": [{"$getField": "ssn"}, ONE]}, 51092),
    "getField of a variable": ({"$let": {"vars": {"d": "$$ROOT"}, "in": {"$eq": [
        {"$getField": {"field": "ssn", "input": "$$d"}}, ONE]}}}, 51092),
    "rebound": ({"$let": {"vars": {"CURRENT": "$contact"}, "in": {"$eq": ["$mail", ONE]}}}, 51092),
    "set": ({"$setIsSubset": [[ONE], "$contact.mail"]}, 51092),
    "reduce": ({"$reduce": {"input": "$contact", "initialValue": 0, "in": "$$this.mail"}}, 51092),
}


@pytest.fixture
def twice(own_people):
    own_people.app.insert_many(PEOPLE[:12])
    own_people.rotate()
    own_people.app.insert_many(PEOPLE[12:])
    mirror = own_people.direct_client[f"{own_people.app_db.name}_mirror"]
    mirror.people.insert_many(PEOPLE)
    (server,) = own_people.rekeyd.upstream.members
    start = len(server.logs())
    own_people.stored_db.command("profile", 0, slowms=-1)
    yield own_people, mirror.people
    own_people.stored_db.command("profile", 0, slowms=100)
    own_people.check()
    said = [line for line in server.logs()[start:].splitlines() if mirror.name not in line]
    assert any(own_people.namespace in line for line in said)
    assert not any(SECRET in line for line in said)
    own_people.direct_client.drop_database(mirror.name)


def test_conditions(twice):
    people, mirror = twice
    for name, condition in CONDITIONS.items():
        for query in ({"$expr": condition}, {"$nor": [{"$expr": condition}]}):
            wanted = list(mirror.find(query).sort("_id"))
            assert 0 < len(wanted) < len(PEOPLE), f"{name} tells nothing apart"
            assert list(people.app.find(query).sort("_id")) == wanted, name
            assert people.app.count_documents(query) == len(wanted), name
        computed = [{"$project": {"x": condition}}, {"$sort": {"_id": 1}}]
        assert list(people.app.aggregate(computed)) == list(mirror.aggregate(computed)), name


def test_pipelines(twice):
    people, mirror = twice
    for name, stages in PIPELINES.items():
        stages = [{"$sort": {"_id": 1}}, *stages]
        if name == "sum":
            stages.append({"$sort": {"_id": 1}})
        assert list(people.app.aggregate(stages)) == list(mirror.aggregate(stages)), name


def test_projection_of_find(twice):
    people, mirror = twice
    for projection in (
        {"x": IS_ONE, "y": {"$cond": [IS_ONE, "$ssn", "other"]}},
        {"contact": {"$elemMatch": {"mail": MAIL}}},
        {"contact": {"$slice": [0, 1]}},
        {"c": {"$slice": [{"$cond": [{"$isArray": "$contact"}, "$contact", []]}, 1]}},
    ):
        wanted = list(mirror.find({}, projection).sort("_id"))
        assert list(people.app.find({}, projection).sort("_id")) == wanted, projection


def test_writes_by_expressions(twice):
    people, mirror = twice
    for collection in (people.app, mirror):
        collection.update_many({"$expr": IS_ONE}, {"$set": {"touched": True}})
        collection.delete_many({"$expr": {"$in": ["$ssn", [TWO]]}})
        collection.find_one_and_update(
            {"$expr": {"$eq": [OR_NONE, f"{SECRET} none"]}}, {"$set": {"touched": 2}},
            sort=[("_id", 1)])
    assert people.seen() == list(mirror.find().sort("_id"))


def test_change_streams(twice):
    people, _ = twice
    wanted = {"$expr": {"$eq": ["$fullDocument.ssn", ONE]}}
    changed = {"updateDescription.updatedFields.ssn": TWO}
    with people.app.watch([{"$match": {"$or": [wanted, changed]}}],
                          max_await_time_ms=500) as stream:
        people.app.insert_one({"_id": 100, "ssn": TWO})
        people.app.insert_one({"_id": 101, "ssn": ONE})
        people.app.update_one({"_id": 101}, {"$set": {"ssn": TWO}})
        assert next(stream)["fullDocument"] == {"_id": 101, "ssn": ONE}
        assert next(stream)["updateDescription"]["updatedFields"] == {"ssn": TWO}


def test_explain(twice):
    """Rewritten like the command itself; the reply is decrypted, the log holds no plaintext."""
    people, _ = twice
    for command in (
        SON(find="people", filter={"ssn": ONE}),
        SON(aggregate="people", pipeline=[{"$match": {"$expr": IS_ONE}}], cursor={}),
        SON(count="people", query={"ssn": ONE}),
        SON(distinct="people", key="ssn", query={"ssn": ONE}),
        SON(update="people", updates=[{"q": {"ssn": ONE}, "u": {"$set": {"ssn": TWO}}}]),
        SON(delete="people", deletes=[{"q": {"ssn": ONE}, "limit": 1}]),
        SON(findAndModify="people", query={"ssn": ONE}, update={"$set": {"ssn": TWO}}),
    ):
        for verbosity in ("queryPlanner", "executionStats"):
            said = people.app_db.command(SON(explain=command, verbosity=verbosity))
            assert ONE in str(said), command


@pytest.mark.parametrize("name", REFUSED)
def test_refused(people, name):
    expression, code = REFUSED[name]
    people.app.insert_many(PEOPLE[:3])
    for run in (lambda: list(people.app.find({"$expr": expression})),
                lambda: list(people.app.aggregate([{"$match": {"$expr": expression}}])),
                lambda: people.app.delete_many({"$expr": expression})):
        with pytest.raises(OperationFailure) as refused:
            run()
        assert refused.value.code == code, refused.value
        assert people.namespace in str(refused.value) and SECRET not in str(refused.value)


def test_descending(people):
    """$redact asks $$DESCEND of sub-documents, where "$mail" is an encrypted field."""
    people.app.insert_one(PEOPLE[0])
    for name in ("mail", "ssn"):
        stage = {"$redact": {"$cond": [{"$eq": [f"${name}", 1]}, "$$PRUNE", "$$DESCEND"]}}
        with pytest.raises(OperationFailure) as refused:
            list(people.app.aggregate([stage]))
        assert refused.value.code == 51092 and name in str(refused.value)
    stage = {"$redact": {"$cond": [{"$eq": ["$kind", "work"]}, "$$PRUNE", "$$DESCEND"]}}
    assert len(list(people.app.aggregate([stage]))[0]["contact"]) == 1
