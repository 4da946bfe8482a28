"""Pipelines whose later stages still know what protected values they hold, under two live keys,
compared with the same pipelines over plaintext."""

import pytest
from bson import Int64
from harness import SECRET
from pymongo.errors import OperationFailure


def person(i):
    return {
        "_id": i,
        "group": i % 3,
        "answer": f"{SECRET} answer {i}",
        "ssn": f"{SECRET} ssn {i % 4}",
        "contact": [
            {"phone": f"{SECRET} phone {i}", "mail": Int64(i % 4), "kind": "home"},
            {"phone": None, "mail": Int64(7), "kind": "work"},
        ],
        "parent": i - 1,
    }


PEOPLE = [person(i) for i in range(20)]
ONE = f"{SECRET} ssn 1"
BY_ID = {"$sort": {"_id": 1}}

SAME = {
    "match after unwind": [
        {"$unwind": "$contact"}, {"$match": {"contact.mail": 3}}, {"$sort": {"_id": 1}}],
    "match after rename": [{"$project": {"x": "$ssn"}}, {"$match": {"x": ONE}}, BY_ID],
    "match after inclusion": [{"$project": {"ssn": 1}}, {"$match": {"ssn": {"$ne": ONE}}}, BY_ID],
    "match twice": [{"$match": {"ssn": ONE}}, {"$match": {"contact.mail": {"$in": [1, 2]}}}, BY_ID],
    "match in facet": [
        {"$facet": {"a": [{"$match": {"ssn": ONE}}, BY_ID], "n": [{"$count": "n"}]}}],
    "count": [{"$match": {"ssn": {"$nin": [ONE]}}}, {"$count": "n"}],
    "group by unprotected": [
        BY_ID,
        {"$group": {"_id": "$group", "last": {"$last": "$answer"}, "n": {"$sum": 1},
                    "documents": {"$push": "$$ROOT"}}},
        BY_ID],
    "sort by unprotected": [{"$sort": {"group": -1, "_id": 1}}, {"$skip": 3}, {"$limit": 5}],
    "sortByCount": [{"$sortByCount": "$group"}, BY_ID],
    "unset": [{"$unset": ["contact", "answer"]}, BY_ID],
    "root under a name": [{"$project": {"whole": "$$ROOT"}}, BY_ID],
    "replace root": [
        {"$match": {"_id": 5}}, {"$project": {"w": "$$ROOT"}}, {"$replaceRoot": {"newRoot": "$w"}}],
    "self lookup": [
        {"$lookup": {"from": "people", "localField": "parent", "foreignField": "_id",
                     "as": "above", "pipeline": [{"$match": {"ssn": ONE}}]}},
        BY_ID],
    "graphLookup": [
        {"$match": {"_id": 4}},
        {"$graphLookup": {"from": "people", "startWith": "$parent", "connectFromField": "parent",
                          "connectToField": "_id", "as": "above", "maxDepth": 0}}],
    "unionWith": [
        {"$match": {"_id": {"$lt": 3}}},
        {"$unionWith": {"coll": "people", "pipeline": [{"$match": {"ssn": ONE}}]}}, BY_ID],
    "redact": [{"$redact": {"$cond": [{"$eq": ["$group", 1]}, "$$PRUNE", "$$KEEP"]}}, BY_ID],
    "computed from unprotected": [
        {"$addFields": {"double": {"$multiply": ["$group", 2]}, "copy": "$ssn"}}, BY_ID],
    "copied into an array": [{"$project": {"x": ["$ssn"]}}, BY_ID],
    "let": [{"$project": {"x": {"$let": {"vars": {"d": "$$ROOT"}, "in": "$$d.ssn"}}}}, BY_ID],
    "map": [{"$project": {"x": {"$map": {"input": "$contact", "in": "$$this.mail"}}}}, BY_ID],
    "sample of all": [{"$sample": {"size": 20}}, BY_ID],
    "top by unprotected": [
        {"$group": {"_id": None, "x": {"$top": {"output": "$_id", "sortBy": {"_id": -1}}}}}],
}

REFUSED = {
    "top sorts": [
        {"$group": {"_id": None, "x": {"$top": {"output": "$_id", "sortBy": {"ssn": 1}}}}}],
    "bottomN sorts": [
        {"$group": {"_id": None, "x": {"$bottomN": {
            "n": 2, "output": "$_id", "sortBy": {"group": 1, "contact.mail": 1}}}}}],
    "window sorts": [
        {"$setWindowFields": {"sortBy": {"ssn": 1}, "output": {"x": {"$sum": 1}}}}],
    "overwritten": [{"$set": {"ssn": "$group"}}, {"$match": {"ssn": 1}}],
    "pushed": [
        {"$group": {"_id": "$group", "x": {"$push": "$ssn"}}}, {"$match": {"x": ONE}}],
    "getField": [{"$project": {"x": {"$toUpper": {"$getField": "ssn"}}}}],
    "map": [{"$project": {"x": {"$map": {"input": "$contact", "in": {
        "$toString": "$$this.mail"}}}}}],
    "bucket": [{"$bucket": {"groupBy": "$ssn", "boundaries": [0, 1]}}],
    "unwind": [{"$unwind": "$answer"}],
    "unwind pushed": [{"$group": {"_id": 1, "x": {"$push": "$ssn"}}}, {"$unwind": "$x"}],
}


@pytest.fixture
def twice(own_people):
    """The same documents protected, under two keys, and in the clear past the proxy."""
    own_people.app.insert_many(PEOPLE[:10])
    own_people.rotate()
    own_people.app.insert_many(PEOPLE[10:])
    own_people.check()
    mirror = own_people.direct_client[f"{own_people.app_db.name}_mirror"]
    mirror.people.insert_many(PEOPLE)
    yield own_people, mirror.people
    own_people.direct_client.drop_database(mirror.name)


def test_same_as_over_plaintext(twice):
    people, mirror = twice
    for name, stages in SAME.items():
        assert list(people.app.aggregate(stages)) == list(mirror.aggregate(stages)), name


@pytest.mark.parametrize("name", REFUSED)
def test_refused(people, name):
    people.app.insert_many(PEOPLE[:3])
    with pytest.raises(OperationFailure) as refused:
        list(people.app.aggregate(REFUSED[name]))
    assert people.namespace in str(refused.value)
    assert refused.value.code == 51092
