"""Writes: what an application stores through rekeyd comes back as it was, and lies encrypted."""

import datetime

import bson
import pytest
from harness import SECRET, is_envelope
from harness.protected import person
from pymongo import (
    DeleteOne,
    InsertOne,
    ReplaceOne,
    UpdateMany,
    UpdateOne,
    WriteConcern,
)
from pymongo.errors import BulkWriteError, DuplicateKeyError
from wire import RawClient, op_msg, sequence_section


def without_secrets(document):
    """The parts that must be stored as the application wrote them."""
    return {"_id": document["_id"], "name": document["name"], "size": document["size"]}


# Inserts.


def test_insert_one(people):
    people.app.insert_one(person(1))
    assert people.seen() == [person(1)]
    (stored,) = people.check()
    assert without_secrets(stored) == without_secrets(person(1))
    assert [c["kind"] for c in stored["contact"]] == ["home", "work"]
    assert stored["contact"][1]["phone"] is None


@pytest.mark.parametrize("ordered", [True, False])
def test_insert_many(people, ordered):
    wanted = [person(i) for i in range(2500)]
    people.app.insert_many(wanted, ordered=ordered)
    assert people.seen() == wanted
    stored = people.check()
    assert [without_secrets(d) for d in stored] == [without_secrets(d) for d in wanted]
    assert len({d["answer"] for d in stored}) == len(wanted)


def test_random_differs_and_deterministic_does_not(people):
    people.app.insert_many([{"_id": i, "answer": "same", "ssn": "same"} for i in range(10)])
    stored = people.check()
    assert len({d["answer"] for d in stored}) == 10
    assert len({d["ssn"] for d in stored}) == 1


def test_null_and_absent_stay(people):
    wanted = [
        {"_id": 1, "answer": None, "ssn": None, "contact": None},
        {"_id": 2, "contact": {"phone": None, "mail": None}},
        {"_id": 3, "contact": []},
        {"_id": 4, "contact": [None, 1, "x", {}, [], {"phone": None}]},
        {"_id": 5},
    ]
    people.app.insert_many(wanted)
    assert people.seen() == wanted
    assert people.check() == wanted


def test_arrays_within_arrays(people):
    inner = [{"phone": SECRET}, [{"mail": SECRET}]]
    wanted = {"_id": 1, "contact": [inner, {"phone": [SECRET, 1]}]}
    people.app.insert_one(wanted)
    assert people.seen() == [wanted]
    (stored,) = people.check()
    assert is_envelope(stored["contact"][1]["phone"]), "an array at a protected path is one value"


@pytest.mark.parametrize("ordered", [True, False])
def test_bulk_write(people, ordered):
    people.app.insert_many([person(i) for i in range(10)])
    result = people.app.bulk_write(
        [
            InsertOne(person(10)),
            UpdateOne({"_id": 1}, {"$set": {"answer": f"{SECRET} changed"}}),
            ReplaceOne({"_id": 2}, {"ssn": f"{SECRET} replaced"}),
            DeleteOne({"ssn": f"{SECRET} ssn 3"}),
            UpdateMany({"_id": {"$gte": 5, "$lt": 8}}, {"$set": {"contact.0.phone": SECRET}}),
            UpdateOne({"_id": 11}, {"$set": {"ssn": f"{SECRET} upserted"}}, upsert=True),
            InsertOne(person(12)),
        ],
        ordered=ordered,
    )
    counts = (result.inserted_count, result.modified_count, result.deleted_count)
    assert counts + (result.upserted_count,) == (2, 5, 1, 1)
    people.check()
    seen = {d["_id"]: d for d in people.seen()}
    assert seen.keys() == {0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert seen[1]["answer"] == f"{SECRET} changed"
    assert seen[2] == {"_id": 2, "ssn": f"{SECRET} replaced"}
    assert [seen[i]["contact"][0]["phone"] for i in (5, 6, 7)] == [SECRET] * 3
    assert seen[11] == {"_id": 11, "ssn": f"{SECRET} upserted"}


def test_bulk_errors_keep_their_index(people):
    people.app.insert_one(person(3))
    with pytest.raises(BulkWriteError) as refused:
        people.app.insert_many([person(i) for i in range(6)], ordered=False)
    errors = refused.value.details["writeErrors"]
    assert [(e["index"], e["code"]) for e in errors] == [(3, 11000)]
    assert refused.value.details["nInserted"] == 5
    with pytest.raises(BulkWriteError) as refused:
        people.app.insert_many([person(6), person(0), person(7)])
    assert [e["index"] for e in refused.value.details["writeErrors"]] == [1]
    updates = [
        UpdateOne({"_id": 1}, {"$set": {"answer": SECRET}}),
        UpdateOne({"_id": 2}, {"$set": {"_id": 99, "answer": SECRET}}),
    ]
    with pytest.raises(BulkWriteError) as refused:
        people.app.bulk_write(updates)
    assert [e["index"] for e in refused.value.details["writeErrors"]] == [1]
    with pytest.raises(DuplicateKeyError):
        people.app.insert_one(person(1))
    people.check()
    assert [d["_id"] for d in people.seen()] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.timeout(60)
def test_many_short_values(people):
    """One message of 100,000 such documents would outgrow mongod's 48,000,000 bytes."""
    short = {"answer": "a", "ssn": "b", "contact": {"phone": "c", "mail": "d"}, "pad": "p" * 200}
    people.app.insert_many([dict(short) for _ in range(100_000)])
    assert people.stored.count_documents({}) == 100_000
    assert people.app.find_one({}, {"_id": 0}) == short


def test_document_that_outgrows_the_limit(people):
    """As large as mongod takes, before encryption: its own error, and the rest goes on."""
    size = 16 * 1024 * 1024 - len(bson.encode({"_id": 2, "answer": ""}))
    large = [{"_id": i, "answer": "x" * length} for i, length in ((1, 5), (2, size), (3, 5))]
    with pytest.raises(BulkWriteError) as refused:
        people.app.insert_many(large, ordered=False)
    assert [(e["index"], e["code"]) for e in refused.value.details["writeErrors"]] == [(1, 2)]
    assert [d["_id"] for d in people.seen()] == [1, 3]
    with people.rekeyd.client(compressors="zlib") as client:
        large[1]["answer"] = "x" * (size - 100)
        client[people.app_db.name].people.insert_one(large[1])
    assert people.seen() == large
    people.check()


def test_pipelined_batches_of_several_namespaces(people):
    """Sections and arrays, protected and not, one connection, nothing awaited in between."""
    db, other = people.app_db.name, f"{people.app_db.name}_other"
    try:
        with RawClient(people.rekeyd.addresses[0]) as client:
            sent = []
            for i in range(20):
                for name, database in (("people", db), ("plain", db), ("people", other)):
                    document = person(i) if (name, database) == ("people", db) else {"_id": i}
                    insert = {"insert": name, "$db": database}
                    if i % 2:
                        sent.append(op_msg(insert, sequence_section("documents", [document])))
                    else:
                        sent.append(op_msg({**insert, "documents": [document]}))
            client.send(b"".join(sent))
            assert [client.receive().document["n"] for _ in sent] == [1] * 60
        assert people.seen() == [person(i) for i in range(20)]
        people.check()
        assert list(people.stored_plain.find().sort("_id")) == [{"_id": i} for i in range(20)]
        assert people.direct_client[other].people.count_documents({}) == 20
    finally:
        people.direct_client.drop_database(other)


def test_unacknowledged_writes(people):
    quiet = people.app.with_options(write_concern=WriteConcern(w=0))
    quiet.insert_many([person(i) for i in range(50)])
    quiet.update_many({}, {"$set": {"answer": f"{SECRET} quiet"}})
    quiet.update_one({"_id": 1}, {"$push": {"answer": SECRET}})
    quiet.insert_one({"_id": "last"})
    for _ in range(100):
        if people.stored.find_one({"_id": "last"}) and people.stored.count_documents({}) == 51:
            break
        people.app_client.admin.command("ping")
    assert {d.get("answer") for d in people.seen()} == {f"{SECRET} quiet", None}
    people.check()
    dropped = people.rekeyd.wait_event("unacknowledged_request_dropped")
    assert (dropped["code"], dropped["collection"]) == (51150, "people")
    people.check()


# Updates.

SET_CASES = {
    "exact": ({"answer": SECRET}, lambda d: d.update(answer=SECRET)),
    "null": ({"answer": None}, lambda d: d.update(answer=None)),
    "deterministic": ({"ssn": SECRET}, lambda d: d.update(ssn=SECRET)),
    "index": ({"contact.0.phone": SECRET}, lambda d: d["contact"][0].update(phone=SECRET)),
    "element": (
        {"contact.1": {"kind": "new", "phone": SECRET, "mail": SECRET}},
        lambda d: d["contact"].__setitem__(1, {"kind": "new", "phone": SECRET, "mail": SECRET}),
    ),
    "appended": (
        {"contact.2": {"mail": SECRET}},
        lambda d: d["contact"].append({"mail": SECRET}),
    ),
    "parent as array": (
        {"contact": [{"phone": SECRET}, {"mail": SECRET, "kind": "x"}]},
        lambda d: d.update(contact=[{"phone": SECRET}, {"mail": SECRET, "kind": "x"}]),
    ),
    "parent as document": (
        {"contact": {"phone": SECRET, "kind": "x"}},
        lambda d: d.update(contact={"phone": SECRET, "kind": "x"}),
    ),
    "parent as scalar": ({"contact": 7}, lambda d: d.update(contact=7)),
    "unprotected": ({"name": "other"}, lambda d: d.update(name="other")),
    "mixed": (
        {"name": "other", "answer": SECRET, "contact.0.kind": "k"},
        lambda d: (d.update(name="other", answer=SECRET), d["contact"][0].update(kind="k")),
    ),
}


@pytest.mark.parametrize("case", SET_CASES)
def test_set(people, case):
    changes, expect = SET_CASES[case]
    people.app.insert_many([person(1), person(2)])
    assert people.app.update_one({"_id": 1}, {"$set": changes}).modified_count == 1
    wanted = person(1)
    expect(wanted)
    assert people.seen() == [wanted, person(2)]
    people.check()


def test_replace(people):
    people.app.insert_many([person(1), person(2)])
    people.app.replace_one({"_id": 1}, {"ssn": SECRET, "contact": {"mail": SECRET}, "x": 1})
    wanted = {"_id": 1, "ssn": SECRET, "contact": {"mail": SECRET}, "x": 1}
    assert people.seen() == [wanted, person(2)]
    people.check()


def test_unset(people):
    people.app.insert_one(person(1))
    people.app.update_one({}, {"$unset": {"answer": "", "contact.0.phone": "", "ssn": 1}})
    wanted = person(1)
    del wanted["answer"], wanted["ssn"], wanted["contact"][0]["phone"]
    assert people.seen() == [wanted]
    people.app.update_one({}, {"$unset": {"contact": ""}})
    del wanted["contact"]
    assert people.seen() == [wanted]
    assert people.check() == [wanted]


def test_other_operators_on_unprotected_fields(people):
    people.app.insert_one(person(1, tags=["a"]))
    people.app.update_one(
        {"_id": 1},
        {
            "$inc": {"size": 5},
            "$push": {"tags": "b"},
            "$rename": {"name": "title"},
            "$currentDate": {"at": True},
            "$set": {"answer": f"{SECRET} new"},
        },
    )
    (seen,) = people.seen()
    assert (seen["size"], seen["tags"], seen["title"]) == (6, ["a", "b"], "name 1")
    assert seen["answer"] == f"{SECRET} new" and isinstance(seen["at"], datetime.datetime)
    people.check()


def test_pipeline_update_may_leave_protected_fields_alone(people):
    people.app.insert_one(person(1))
    people.app.update_one({}, [{"$set": {"size": {"$add": ["$size", 1]}}}, {"$unset": "answer"}])
    wanted = person(1, size=2)
    del wanted["answer"]
    assert people.seen() == [wanted]
    people.check()


def test_update_many(people):
    people.app.insert_many([person(i) for i in range(30)])
    result = people.app.update_many({"size": {"$lt": 20}}, {"$set": {"answer": f"{SECRET} many"}})
    assert result.modified_count == 20
    assert [d["answer"] for d in people.seen()[:20]] == [f"{SECRET} many"] * 20
    people.check()
