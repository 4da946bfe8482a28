"""What variables, names and times did that nobody expected: each of these once gave a wrong result
or stored plaintext. Compared with a plain collection where they are possible now."""

import pytest
from bson import SON, Int64, Timestamp
from harness import SECRET
from pymongo.errors import OperationFailure

ONE = "number one"  # also the name, in the clear
PEOPLE = [
    {"_id": 1, "name": ONE, "size": 1, "ssn": ONE, "contact": [{"mail": ONE}, {"mail": None}]},
    {"_id": 2, "name": "n2", "size": 2, "ssn": f"{SECRET} 2", "contact": []},
    {"_id": 3, "name": "n3", "size": 3, "ssn": None},
    {"_id": 4, "name": "n4", "size": 4},
]


def reduce_over(value):
    return {"$reduce": {"input": ["$name"], "initialValue": False, "in": {"$eq": ["$$this", value]}}}


def let(variables, expression):
    return {"$let": {"vars": variables, "in": expression}}


EXACT = {
    # A path into a constant led into the null that was left where it had been bound.
    "into a constant": let({"v": {"$literal": {"a": {"b": 1}}}}, {"$eq": ["$size", "$$v.a.b"]}),
    "a constant itself": let({"v": {"$literal": {"a": 1}}}, {"$eq": ["$$v", {"a": "$size"}]}),
    # $reduce binds $$this and $$value, which hide those around it.
    "reduce in map": {"$map": {"input": {"$ifNull": ["$contact.mail", []]},
                               "in": reduce_over(ONE)}},
    "reduce in let": let({"this": "$ssn"}, reduce_over(ONE)),
    "reduce in let, constant": let({"this": "x", "value": "y"}, reduce_over(ONE)),
    "reduce of a variable": let({"v": ONE}, reduce_over("$$v")),
    "no variable of reduce": let({"v": "$ssn"}, {"$reduce": {
        "input": [1], "initialValue": False, "in": {"$eq": ["$$v", ONE]}}}),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(twins, name):
    pipeline = [{"$sort": {"_id": 1}}, {"$project": {"r": EXACT[name]}}]
    expected = list(twins.stored_plain.aggregate(pipeline))
    assert len({str(d["r"]) for d in expected}) > 1, "says nothing"
    assert list(twins.app.aggregate(pipeline)) == expected


def lookup(variables, *pipeline, source="plain"):
    return [{"$lookup": {"from": source, "let": variables, "pipeline": list(pipeline), "as": "j"}}]


GRAPH = {"$graphLookup": {"from": "plain", "startWith": "$$v", "connectFromField": "_id",
                          "connectToField": "name", "as": "g"}}
TOP = {"$group": {"_id": None, "t": {"$top": {"output": "$$v", "sortBy": {"_id": 1}}}}}
GROUPED = [{"$group": {"_id": "$name"}}, {"$match": {"$expr": {"$eq": ["$_id", "$$v"]}}}]
SET_WINDOW = {"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"w": {"$max": "$$v"}}}}
DEFAULT = {"$ifNull": ["$ssn", "none"]}

REFUSED = {
    # Constants beside a field, bound to a variable, could not be encrypted any more.
    "default in let": [{"$project": {"r": let({"v": DEFAULT}, {"$eq": ["$$v", "none"]})}}],
    "default in map": [{"$match": {"_id": 2}}, {"$project": {"r": {"$map": {
        "input": {"$ifNull": ["$contact.mail", ["none"]]}, "in": {"$eq": ["$$this", "none"]}}}}}],
    "default in lookup": lookup({"v": DEFAULT}, {"$match": {"$expr": {"$eq": ["$$v", "none"]}}}),
    # Stages that are copied saw null in place of a constant, ciphertext in place of a field.
    "match behind group": lookup({"v": "$ssn"}, *GROUPED),
    "constant behind group": lookup({"v": "n2"}, *GROUPED, source="people"),
    "graph": lookup({"v": "$ssn"}, GRAPH),
    "graph, constant": lookup({"v": ONE}, GRAPH),
    "top": lookup({"v": "$ssn"}, TOP),
    "top, constant": lookup({"v": "n"}, TOP, source="people"),
    "window": lookup({"v": "$ssn"}, SET_WINDOW),
    "documents": [{"$lookup": {"let": {"v": "$ssn"}, "as": "j",
                               "pipeline": [{"$documents": [{"a": "$$v"}]}]}}],
    # It was taken for the field.
    "count": [{"$count": "ssn"}, {"$match": {"ssn": 4}}],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(twins, name):
    list(twins.stored_plain.aggregate(REFUSED[name]))  # mongod has no objection
    with pytest.raises(OperationFailure) as failure:
        list(twins.app.aggregate(REFUSED[name]))
    assert failure.value.code == 51092, failure.value
    assert SECRET not in str(failure.value)


def test_nobody_binds_current(twins):
    """"$ssn" means "$$CURRENT.ssn", and commands may bind CURRENT: a pipeline that keeps the field
    stored plaintext, a comparison was made with it."""
    forged = {"CURRENT": {"_id": 1, "ssn": SECRET}}
    before = twins.seen()
    for pipeline in [{"$set": {"ssn": "$ssn"}}], [{"$replaceWith": "$$CURRENT"}]:
        statement = {"q": {"_id": 1}, "u": pipeline}
        for command in (
            SON(update="people", updates=[{**statement, "c": forged}]),
            SON(update="people", updates=[statement], let=forged),
            SON(findAndModify="people", query={"_id": 1}, update=pipeline, let=forged),
        ):
            refused(twins, command, 51092)
    condition = {"$expr": {"$eq": ["$ssn", SECRET]}}
    for command in (
        SON(find="people", filter=condition, let=forged),
        SON(delete="people", deletes=[{"q": condition, "limit": 0}], let=forged),
        SON(aggregate="people", pipeline=[{"$match": condition}], cursor={}, let=forged),
    ):
        refused(twins, command, 51092)
    assert twins.seen() == before
    twins.app.update_one({"$expr": {"$eq": ["$_id", "$$id"]}}, [{"$set": {"name": "$$new"}}],
                         let={"id": 3, "new": "other variables are welcome"})
    assert twins.app.find_one({"_id": 3})["name"] == "other variables are welcome"


def test_nobody_binds_current_around_a_join(twins):
    """Nor in a collection that is not protected, when one is joined further in."""
    compare = [{"$match": {"$expr": {"$eq": ["$ssn", ONE]}}}]
    inner = {"$lookup": {"from": "people", "pipeline": compare, "as": "x"}}
    outer = {"$lookup": {"from": "plain", "let": {"CURRENT": {"ssn": ONE}}, "as": "j",
                         "pipeline": [inner]}}
    refused(twins, SON(aggregate="plain", pipeline=[outer], cursor={}), 51092)
    outer["$lookup"]["let"] = {"other": {"ssn": ONE}}
    (first, *_) = twins.plain.aggregate([outer])
    assert [len(d["x"]) for d in first["j"]] == [1] * len(PEOPLE)


def refused(twins, command, code):
    with pytest.raises(OperationFailure) as failure:
        twins.app_db.command(command)
    assert failure.value.code == code, failure.value


def test_modifiers_of_add_to_set(twins):
    """It has modifiers when $each is its first key; otherwise it adds the document as it is, whose
    fields were taken for modifiers and stored in plaintext."""
    value = SON([("mail", f"{SECRET} new"), ("phone", SECRET), ("$each", [])])
    with pytest.raises(OperationFailure) as failure:
        twins.app.update_one({"_id": 1}, {"$addToSet": {"contact": value}})
    assert failure.value.code == 51150
    del value["phone"]
    for collection in twins.app, twins.stored_plain:
        collection.update_one({"_id": 1}, {"$addToSet": {"contact": value}})
    assert twins.seen() == list(twins.stored_plain.find().sort("_id"))


def test_distinct_with_a_collation(twins):
    """Values that are equal by it were answered as several."""
    twins.app.insert_many([{"_id": 5, "ssn": "a"}, {"_id": 6, "ssn": "A"}])
    primary = {"locale": "en", "strength": 1}
    refused(twins, SON(distinct="people", key="ssn", collation=primary), 31054)
    assert twins.app.distinct("name", {"_id": 2}, collation=primary) == ["n2"]


def test_empty_timestamps(twins):
    """mongod stores the time of the write in their place, which it cannot do once encrypted."""
    with pytest.raises(OperationFailure) as failure:
        twins.app.insert_one({"_id": 5, "ssn": Timestamp(0, 0)})
    assert failure.value.code == 31041
    twins.app.insert_one({"_id": 5, "ssn": Timestamp(0, 1)})
    assert twins.app.find_one({"ssn": Timestamp(0, 1)})["_id"] == 5


def test_upsert_by_a_list_of_equals(twins):
    """Numbers that are equal are one value to mongod, which it takes for the new document."""
    for collection in twins.app, twins.stored_plain:
        collection.update_one({"ssn": {"$in": [5, Int64(5)]}}, {"$set": {"_id": 9}}, upsert=True)
    assert twins.app.find_one({"_id": 9}) == twins.stored_plain.find_one({"_id": 9})
    assert "ssn" in twins.app.find_one({"_id": 9})
