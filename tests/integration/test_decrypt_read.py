"""Reads: wherever an envelope stands in a reply, the application gets the value."""

import math
import random
import time
from datetime import datetime

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, ObjectId, Regex, Timestamp
from harness import SECRET, is_envelope, key_id, people_policy, protected
from pymongo import CursorType
from pymongo.errors import OperationFailure


def person(i):
    return {
        "_id": i,
        "group": i % 3,
        "answer": f"{SECRET} answer {i}",
        "ssn": f"{SECRET} ssn {i % 10}",
        "contact": [{"phone": f"{SECRET} phone {i}", "mail": Int64(i % 4)}],
    }


PEOPLE = [person(i) for i in range(50)]


@pytest.fixture
def filled(people):
    people.app.insert_many(PEOPLE)
    people.check()
    return people


@pytest.fixture
def rotated(own_people):
    """Half of the documents under key 1, half under key 2."""
    own_people.app.insert_many(PEOPLE[:25])
    own_people.rotate()
    own_people.app.insert_many(PEOPLE[25:])
    stored = own_people.check()
    assert {key_id(d["ssn"]) for d in stored[:25]} == {1}
    assert {key_id(d["ssn"]) for d in stored[25:]} == {2}
    return own_people


# find.


def test_find_with_projection_and_sort(filled):
    found = filled.app.find({"group": 1}, {"answer": 1}).sort("_id", -1).limit(3)
    assert list(found) == [{"_id": i, "answer": f"{SECRET} answer {i}"} for i in (49, 46, 43)]
    found = filled.app.find({"_id": 7}, {"_id": 0, "contact.phone": 1})
    assert list(found) == [{"contact": [{"phone": f"{SECRET} phone 7"}]}]
    found = filled.app.find({"_id": 7}, {"answer": 0, "contact": 0})
    assert list(found) == [{"_id": 7, "group": 1, "ssn": f"{SECRET} ssn 7"}]
    found = filled.app.find({"_id": 7}, {"_id": 0, "renamed": "$answer"})
    assert list(found) == [{"renamed": f"{SECRET} answer 7"}]


@pytest.mark.parametrize("cursor_type", [CursorType.NON_TAILABLE, CursorType.EXHAUST])
def test_many_batches(filled, cursor_type):
    more = [person(i) for i in range(50, 3000)]
    filled.app.insert_many(more)
    found = filled.app.find(cursor_type=cursor_type, batch_size=100).sort("_id")
    assert list(found) == PEOPLE + more


def test_large_values_over_many_batches(people):
    """Decrypted batches are as full as mongod makes them: close to 16 MiB."""
    wanted = [{"_id": i, "answer": f"{SECRET}{i}" * 200_000} for i in range(20)]
    people.app.insert_many(wanted)
    assert people.seen() == wanted
    assert all(is_envelope(d["answer"]) for d in people.stored.find())


def test_tailable(people):
    people.stored_db.create_collection(people.stored.name, capped=True, size=1 << 20)
    people.app.insert_many(PEOPLE[:5])
    cursor = people.app.find(cursor_type=CursorType.TAILABLE_AWAIT, batch_size=2)
    assert [next(cursor) for _ in range(5)] == PEOPLE[:5]
    people.app.insert_one(PEOPLE[5])
    assert next(cursor) == PEOPLE[5]
    cursor.close()


def test_explain(filled):
    explained = filled.app.find({"ssn": f"{SECRET} ssn 1"}).explain()
    assert explained["executionStats"]["nReturned"] == 5
    assert explained["ok"] == 1


def test_secondary_members(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set, [people_policy(db_name)])
    with protected(rekeyd, db_name) as people:
        people.app.insert_many(PEOPLE)
        with rekeyd.client(readPreference="secondary", readConcernLevel="majority") as client:
            deadline = time.monotonic() + 10
            while client[db_name].people.count_documents({}) < len(PEOPLE):
                assert time.monotonic() < deadline
            assert list(client[db_name].people.find().sort("_id")) == PEOPLE


# aggregate and distinct.


def test_project_and_rename(filled):
    found = filled.app.aggregate(
        [
            {"$match": {"ssn": f"{SECRET} ssn 3", "group": 0}},
            {"$sort": {"_id": 1}},
            {"$project": {"_id": 0, "a": "$answer", "deep.b": "$ssn", "c": "$contact"}},
        ]
    )
    assert list(found) == [
        {"a": d["answer"], "deep": {"b": d["ssn"]}, "c": d["contact"]}
        for d in PEOPLE
        if d["_id"] % 10 == 3 and d["group"] == 0
    ]


def test_add_fields_and_replace_root(filled):
    found = filled.app.aggregate(
        [{"$match": {"_id": 4}}, {"$set": {"copy": "$answer"}}, {"$unset": ["contact", "group"]}]
    )
    expected = {k: PEOPLE[4][k] for k in ("_id", "answer", "ssn")}
    assert list(found) == [{**expected, "copy": PEOPLE[4]["answer"]}]
    found = filled.app.aggregate(
        [{"$match": {"_id": 4}}, {"$replaceWith": {"$arrayElemAt": [[{"x": 1}], 0]}}]
    )
    assert list(found) == [{"x": 1}]


def test_group_and_push(filled):
    found = filled.app.aggregate(
        [
            {"$sort": {"_id": 1}},
            {"$group": {"_id": "$group", "all": {"$push": "$answer"}, "one": {"$first": "$ssn"}}},
            {"$sort": {"_id": 1}},
        ]
    )
    assert list(found) == [
        {"_id": g, "all": [d["answer"] for d in PEOPLE if d["group"] == g], "one": PEOPLE[g]["ssn"]}
        for g in range(3)
    ]


def test_unwind(filled):
    found = filled.app.aggregate(
        [{"$match": {"_id": {"$lt": 3}}}, {"$unwind": "$contact"}, {"$sort": {"_id": 1}}]
    )
    assert list(found) == [{**d, "contact": d["contact"][0]} for d in PEOPLE[:3]]


def test_lookup(filled):
    """From an unprotected collection, whose replies are then searched for envelopes as well."""
    filled.stored_plain.insert_many([{"_id": i, "person": i} for i in range(5)])
    lookup = {"from": "people", "localField": "person", "foreignField": "_id", "as": "found"}
    stages = [{"$lookup": lookup}, {"$sort": {"_id": 1}}]
    found = filled.plain.aggregate(stages)
    assert list(found) == [{"_id": i, "person": i, "found": [PEOPLE[i]]} for i in range(5)]
    inner = [{"$match": {"ssn": f"{SECRET} ssn 1"}}, {"$sort": {"_id": 1}}, {"$limit": 1}]
    found = filled.plain.aggregate(
        [{"$match": {"_id": 0}}, {"$lookup": {"from": "people", "pipeline": inner, "as": "found"}}]
    )
    assert list(found) == [{"_id": 0, "person": 0, "found": [PEOPLE[1]]}]


def test_views_and_facets(filled):
    group = [{"$match": {"group": 2}}]
    filled.stored_db.create_collection("view", viewOn="people", pipeline=group)
    assert list(filled.app_db.view.find().sort("_id")) == [d for d in PEOPLE if d["group"] == 2]
    filled.stored_db.view.drop()
    facets = {"a": [{"$match": {"_id": 1}}], "n": [{"$count": "n"}]}
    (found,) = filled.app.aggregate([{"$facet": facets}])
    assert found == {"a": [PEOPLE[1]], "n": [{"n": 50}]}


def test_distinct(rotated):
    """Equal values under two keys are one; under random encryption every one differs on disk."""
    wanted = sorted({d["ssn"] for d in PEOPLE})
    assert rotated.app.distinct("ssn") == wanted
    assert len(rotated.stored.distinct("ssn")) == 2 * len(wanted)
    assert rotated.app.distinct("contact.mail") == [0, 1, 2, 3]
    rotated.app.update_many({}, {"$set": {"answer": SECRET}})
    assert rotated.app.distinct("answer") == [SECRET]
    assert rotated.app.distinct("ssn", {"_id": {"$lt": 2}}) == wanted[:2]
    assert sorted(rotated.app.distinct("group")) == [0, 1, 2]


def test_distinct_in_the_order_of_plain_values(people):
    """mongod sorts; ciphertext would come in an order that means nothing."""
    values = [
        *["b", "a", "", "\u00e9", "a\0b", Int64(2**53 + 1), 2.0**53, 2.5, -1, -0.0, math.inf, -math.inf],
        *[Decimal128("0.1"), 0.1, Decimal128("1E+40"), Decimal128("NaN"), Int64(-(2**63)), Int64(7)],
        *[{"b": 1}, {"a": 2}, {"a": 1, "b": 0}, {}, {"a": {"b": [1, 2]}}, {"a": {"b": [1]}}],
        *[b"12", b"2", Binary(b"1", 5), ObjectId("f" * 24), ObjectId("0" * 24), True, False],
        *[datetime(2020, 1, 1), datetime(1960, 1, 1), Timestamp(2, 1), Timestamp(1, 9)],
        *[Regex("a", "i"), Regex("aa"), Regex("a"), Code("b"), Code("a"), Code("a", {"x": 1})],
        *[DBRef("c", 1), None, 7, 7.0, Decimal128("7.0"), [3, "c", None, [9, 8]], ["c", 3]],
    ]
    random.Random(4).shuffle(values)
    documents = [{"_id": i, "answer": v, "same": v} for i, v in enumerate(values)]
    people.app.insert_many(documents)
    plain = people.app.distinct("same")
    assert len(plain) > 45
    assert [repr(v) for v in people.app.distinct("answer")] == [repr(v) for v in plain]


# Equality on deterministic fields.


def by_ssn(number):
    return [d for d in PEOPLE if d["_id"] % 10 == number]


def check_equality(people):
    def found(query):
        result = list(people.app.find(query).sort("_id"))
        assert people.app.count_documents(query) == len(result)
        return result

    one, two = f"{SECRET} ssn 1", f"{SECRET} ssn 2"
    others = [d for d in PEOPLE if d["ssn"] not in (one, two)]
    assert found({"ssn": one}) == by_ssn(1)
    assert found({"ssn": {"$eq": one}}) == by_ssn(1)
    assert found({"ssn": {"$in": [one, "none", None]}}) == by_ssn(1)
    assert found({"ssn": {"$ne": one}}) == [d for d in PEOPLE if d["ssn"] != one]
    assert found({"ssn": {"$nin": [one, two]}}) == others
    assert found({"ssn": {"$not": {"$in": [one, two]}}}) == others
    assert found({"$nor": [{"ssn": one}, {"ssn": two}]}) == others
    assert found({"$or": [{"ssn": one}, {"_id": 2}]}) == [PEOPLE[1], PEOPLE[2], *by_ssn(1)[1:]]
    assert found({"$and": [{"ssn": one}, {"ssn": {"$exists": True}}, {"group": 2}]}) == [PEOPLE[11],
                                                                                     PEOPLE[41]]
    assert found({"ssn": "none"}) == found({"ssn": None}) == []
    assert found({"answer": {"$exists": True}}) == found({"answer": {"$ne": None}}) == PEOPLE
    for three in (3, Int64(3), 3.0):
        assert [d["_id"] for d in found({"contact.mail": three})] == list(range(3, 50, 4))
        assert [d["_id"] for d in found({"contact.mail": {"$nin": [0, 1, three]}})] == list(
            range(2, 50, 4)
        )
    assert people.app.count_documents({"ssn": one}, hint="_id_") == 5
    assert people.app.estimated_document_count() == 50


def check_writes_by_value(people):
    one, two = f"{SECRET} ssn 1", f"{SECRET} ssn 2"
    assert people.app.update_many({"ssn": one}, {"$set": {"size": 1}}).modified_count == 5
    assert [d["_id"] for d in people.seen(size=1)] == [1, 11, 21, 31, 41]
    assert people.app.update_one({"ssn": two}, {"$set": {"size": 2}}).modified_count == 1
    assert people.app.find_one_and_update({"ssn": one}, {"$inc": {"size": 1}})["ssn"] == one
    assert people.app.delete_many({"ssn": {"$in": [one, two]}}).deleted_count == 10
    assert people.app.delete_one({"ssn": f"{SECRET} ssn 3", "_id": 43}).deleted_count == 1
    assert len(people.seen()) == 39
    people.check()


def test_equality_under_one_key(filled):
    check_equality(filled)
    check_writes_by_value(filled)


def test_equality_under_two_keys(rotated):
    check_equality(rotated)
    check_writes_by_value(rotated)


def test_integers_of_both_widths(people):
    people.app.insert_many([{"_id": 1, "ssn": 5}, {"_id": 2, "ssn": Int64(5)}])
    for five in (5, Int64(5), 5.0):
        assert people.app.count_documents({"ssn": five}) == 2
    assert people.app.count_documents({"ssn": {"$ne": 5}}) == 0
    assert [type(d["ssn"]) for d in people.seen()] == [int, Int64]
    assert people.app.distinct("ssn") == [5], "equal numbers came back once for each width"


def test_index_serves_equality(rotated):
    rotated.app.create_index("ssn")
    plan = rotated.app.find({"ssn": f"{SECRET} ssn 1"}).explain()
    assert plan["executionStats"]["totalDocsExamined"] == 5
    rotated.app.find({"ssn": f"{SECRET} ssn 1"}).hint("ssn_1").next()


# A second rekeyd.


def test_sibling_reads_a_new_key_at_once(own_people):
    sibling = own_people.rekeyd.sibling()
    with sibling, sibling.client() as client:
        other = client[own_people.app_db.name].people
        other.insert_one(PEOPLE[0])
        assert own_people.seen() == PEOPLE[:1]
        for key in (2, 3):
            own_people.rotate()
            own_people.app.insert_one(PEOPLE[key])
            assert other.find_one({"_id": key}) == PEOPLE[key]
        stored = {d["_id"]: key_id(d["ssn"]) for d in own_people.stored.find()}
        assert stored == {0: 1, 2: 2, 3: 3}
        own_people.check()


# Replies that cannot be decrypted.


def tamper(people, _id, at, new):
    """Replaces bytes of the stored answer."""
    stored = people.stored.find_one({"_id": _id})["answer"]
    value = bytearray(stored)
    value[at] = new(value[at])
    changed = Binary(bytes(value), stored.subtype)
    people.stored.update_one({"_id": _id}, {"$set": {"answer": changed}})


LAST_BYTE = slice(-1, None)
KEY_ID = slice(8, 12)


def flipped(part):
    return bytes(byte ^ 1 for byte in part)


def test_damaged_envelope_is_an_error_that_names_it(filled):
    tamper(filled, 3, LAST_BYTE, flipped)
    with pytest.raises(OperationFailure) as refused:
        filled.app.find_one({"_id": 3})
    assert filled.namespace in str(refused.value) and "answer" in str(refused.value)
    assert filled.app.find_one({"_id": 4}) == PEOPLE[4]
    assert filled.app.find_one({"_id": 3}, {"answer": 0})["ssn"] == PEOPLE[3]["ssn"]


def test_unknown_key_id_is_told_in_the_place_of_the_value(filled):
    tamper(filled, 3, KEY_ID, lambda _: (77).to_bytes(4, "big"))
    for _ in range(2):
        expected = {**PEOPLE[3], "answer": {"rekeyError": "key missing", "keyId": 77}}
        assert filled.app.find_one({"_id": 3}) == expected
    assert filled.app.find_one({"_id": 4}) == PEOPLE[4]


def test_undecryptable_left_by_configuration(own_people):
    own_people.app.insert_many(PEOPLE[:5])
    tamper(own_people, 3, LAST_BYTE, flipped)
    tamper(own_people, 1, KEY_ID, lambda _: (77).to_bytes(4, "big"))
    own_people.rekeyd.reload({"on_undecryptable": "leave"})
    own_people.rekeyd.wait_event("reloaded")
    left = {i: own_people.stored.find_one({"_id": i})["answer"] for i in (1, 3)}
    assert all(map(is_envelope, left.values()))
    assert own_people.seen() == [
        {**d, "answer": left.get(d["_id"], d["answer"])} for d in PEOPLE[:5]
    ]


def test_envelope_moved_to_another_field_still_opens(filled):
    """It says which field it was made for: renames and restores must work."""
    filled.stored.update_one({"_id": 1}, {"$rename": {"answer": "elsewhere"}})
    seen = filled.app.find_one({"_id": 1})
    assert seen["elsewhere"] == PEOPLE[1]["answer"]
