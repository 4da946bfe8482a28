"""Change streams through rekeyd: documents, dotted update descriptions, images before a change,
several namespaces in one stream, and resuming."""

import time

import pytest
from bson import Binary
from harness import SECRET, key_id, policy, protected
from pymongo.errors import OperationFailure

PERSON = {
    "_id": 1,
    "name": "n",
    "answer": f"{SECRET} a",
    "ssn": f"{SECRET} s",
    "contact": [{"phone": f"{SECRET} p", "mail": f"{SECRET} m"}],
}


def changes(people, stream):
    """A little of everything, and the events of it."""
    people.app.insert_one(PERSON)
    change = {"answer": f"{SECRET} b", "contact.0.phone": f"{SECRET} q", "name": "m"}
    people.app.update_one({"_id": 1}, {"$set": change})
    people.app.replace_one({"_id": 1}, {"ssn": f"{SECRET} t"})
    people.app.delete_one({"ssn": f"{SECRET} t"})
    return [next(stream) for _ in range(4)]


def check_events(events):
    insert, update, replace, delete = events
    assert insert["operationType"] == "insert" and insert["fullDocument"] == PERSON
    assert update["updateDescription"]["updatedFields"] == {
        "answer": f"{SECRET} b",
        "contact.0.phone": f"{SECRET} q",
        "name": "m",
    }
    assert replace["fullDocument"] == {"_id": 1, "ssn": f"{SECRET} t"}
    assert delete["operationType"] == "delete" and delete["documentKey"] == {"_id": 1}


def test_collection(people):
    people.stored_db.create_collection("people")
    with people.app.watch(max_await_time_ms=500) as stream:
        check_events(changes(people, stream))
    people.check()


def test_database(people):
    people.stored_db.create_collection("people")
    with people.app_db.watch(max_await_time_ms=500) as stream:
        check_events(changes(people, stream))


def test_cluster(people):
    people.stored_db.create_collection("people")
    only = [{"$match": {"ns.db": people.app_db.name}}]
    with people.app_client.watch(only, max_await_time_ms=500) as stream:
        check_events(changes(people, stream))


def test_looked_up_and_before(people):
    people.stored_db.create_collection(
        "people", changeStreamPreAndPostImages={"enabled": True}
    )
    options = {"full_document": "required", "full_document_before_change": "whenAvailable"}
    with people.app.watch(max_await_time_ms=500, **options) as stream:
        insert, update, replace, delete = changes(people, stream)
    changed = {
        **PERSON,
        "name": "m",
        "answer": f"{SECRET} b",
        "contact": [{"phone": f"{SECRET} q", "mail": f"{SECRET} m"}],
    }
    assert insert["fullDocument"] == update["fullDocumentBeforeChange"] == PERSON
    assert update["fullDocument"] == replace["fullDocumentBeforeChange"] == changed
    assert delete["fullDocumentBeforeChange"] == {"_id": 1, "ssn": f"{SECRET} t"}


def test_update_lookup_and_resume(people):
    people.stored_db.create_collection("people")
    with people.app.watch(full_document="updateLookup", max_await_time_ms=500) as stream:
        people.app.insert_one(PERSON)
        people.app.update_one({"_id": 1}, {"$set": {"ssn": f"{SECRET} t"}})
        token = next(stream)["_id"]
    with people.app.watch(
        full_document="updateLookup", resume_after=token, max_await_time_ms=500
    ) as stream:
        event = next(stream)
    assert event["fullDocument"] == {**PERSON, "ssn": f"{SECRET} t"}
    assert event["updateDescription"]["updatedFields"] == {"ssn": f"{SECRET} t"}


def test_array_elements_and_truncations(people):
    people.app.insert_one(PERSON)
    with people.app.watch(max_await_time_ms=500) as stream:
        people.app.update_one({}, {"$set": {"contact.1": {"mail": f"{SECRET} new"}}})
        people.app.update_one({}, {"$set": {"contact": [{"mail": f"{SECRET} only"}]}})
        people.app.update_one({}, {"$unset": {"answer": 1}})
        first, second, third = (next(stream)["updateDescription"] for _ in range(3))
    assert list(first["updatedFields"].values()) == [{"mail": f"{SECRET} new"}]
    assert SECRET in str(second["updatedFields"]) and "only" in str(second["updatedFields"])
    assert third["removedFields"] == ["answer"]


def test_projected_events(people):
    people.stored_db.create_collection("people")
    with people.app.watch(
        [{"$match": {"operationType": "insert"}}, {"$project": {"fullDocument.answer": 1}}],
        max_await_time_ms=500,
    ) as stream:
        people.app.insert_one(PERSON)
        assert next(stream)["fullDocument"] == {"answer": f"{SECRET} a"}


def test_truncated_arrays(people):
    """An update that only shortens the array, made where the server can compute with it."""
    people.app.insert_one({**PERSON, "contact": [PERSON["contact"][0], {"kind": "k"}, {"kind": "l"}]})
    with people.app.watch(max_await_time_ms=500) as stream:
        people.stored.update_one({}, [{"$set": {"contact": {"$slice": ["$contact", 1]}}}])
        description = next(stream)["updateDescription"]
    assert description["truncatedArrays"] == [{"field": "contact", "newSize": 1}]
    assert description["updatedFields"] == {}
    assert people.app.find_one()["contact"] == PERSON["contact"]


# Several namespaces.

FORGED = Binary(b"RK\xe1\x1e\1\1\2\0" + bytes(80), 0x8E)


@pytest.fixture
def several(single_member_set, start_rekeyd, db_name):
    """people, with other protected collections in two databases."""
    other = f"{db_name}_other"
    policies = [
        policy(f"{db_name}.people", {"ssn": "deterministic", "contact.phone": "random"}),
        policy(f"{db_name}.orders", {"card": "random"}),
        policy(f"{other}.*", {"card": "deterministic"}),
    ]
    rekeyd = start_rekeyd(single_member_set, policies)
    with protected(rekeyd, db_name) as people:
        people.other = people.app_client[other]
        yield people
        people.direct_client.drop_database(other)


def write_everywhere(people) -> list:
    """One event each; the documents in the clear."""
    people.app_db.orders.insert_one({"_id": 1, "card": SECRET, "ssn": "open"})
    people.plain.insert_one({"_id": 2, "ssn": "open", "card": "open"})
    people.app.insert_one({"_id": 3, "ssn": SECRET, "card": "open"})
    people.other.orders.insert_one({"_id": 4, "card": SECRET})
    people.app.update_one({"_id": 3}, {"$set": {"contact": [{"phone": SECRET}], "card": "b"}})
    people.plain.delete_one({"_id": 2})
    return [
        ("orders", {"_id": 1, "card": SECRET, "ssn": "open"}),
        ("plain", {"_id": 2, "ssn": "open", "card": "open"}),
        ("people", {"_id": 3, "ssn": SECRET, "card": "open"}),
        ("orders", {"_id": 4, "card": SECRET}),
        ("people", {"contact": [{"phone": SECRET}], "card": "b"}),
        ("plain", None),
    ]


def told(event):
    changed = event.get("updateDescription", {}).get("updatedFields")
    return event["ns"]["coll"], event.get("fullDocument", changed)


@pytest.mark.parametrize("over", ["database", "cluster"])
def test_namespaces_of_every_kind_in_one_stream(several, over):
    db_name = several.app_db.name
    several.plain.insert_one({"_id": 0})
    if over == "database":
        stream = several.app_db.watch(max_await_time_ms=500)
    else:
        ours = [{"$match": {"ns.db": {"$in": [db_name, several.other.name]}}}]
        stream = several.app_client.watch(ours, max_await_time_ms=500)
    with stream:
        wanted = write_everywhere(several)
        if over == "database":
            wanted.remove(("orders", {"_id": 4, "card": SECRET}))
        assert [told(next(stream)) for _ in wanted] == wanted
    assert SECRET not in str(list(several.direct_client[several.other.name].orders.find()))
    several.check()


@pytest.mark.parametrize("over", ["database", "cluster"])
def test_poison_beside_protected_collections(several, over):
    """What an unprotected collection holds cannot end the streams over all of them."""
    several.plain.insert_one({"_id": 0})
    watched = several.app_db if over == "database" else several.app_client
    ours = [{"$match": {"ns.db": several.app_db.name}}]
    with watched.watch(ours, max_await_time_ms=500) as stream:
        several.plain.insert_one({"_id": 1, "x": FORGED, "y": [{"z": FORGED}]})
        several.plain.update_one({"_id": 1}, {"$set": {"x": [FORGED]}})
        several.app.insert_one({"_id": 2, "ssn": SECRET})
        assert next(stream)["fullDocument"] == {"_id": 1, "x": FORGED, "y": [{"z": FORGED}]}
        assert next(stream)["updateDescription"]["updatedFields"] == {"x": [FORGED]}
        assert next(stream)["fullDocument"] == {"_id": 2, "ssn": SECRET}
        several.stored.update_one({"_id": 2}, {"$set": {"ssn": FORGED}})
        with pytest.raises(OperationFailure) as damaged:
            next(stream)
        assert "cannot be decrypted" in str(damaged.value)


# Resuming.


def rotate(people):
    """Without a write that the stream would see."""
    people.rekeyd.ctl("keys", "rotate")
    people.rekeyd.wait_event("current_key_changed", count=2)


def test_resumed_after_a_rotation(own_people):
    people = own_people
    people.stored_db.create_collection(
        "people", changeStreamPreAndPostImages={"enabled": True}
    )
    images = {"full_document": "required", "full_document_before_change": "whenAvailable"}
    with people.app.watch(max_await_time_ms=500, **images) as stream:
        people.app.insert_one({"_id": 1, "ssn": f"{SECRET} 1"})
        token = next(stream)["_id"]
        rotate(people)
        people.app.update_one({"_id": 1}, {"$set": {"ssn": f"{SECRET} 2"}})
        assert key_id(people.stored.find_one({"_id": 1})["ssn"]) == 2
    for resume in ("resume_after", "start_after"):
        with people.app.watch(max_await_time_ms=500, **{resume: token}, **images) as stream:
            event = next(stream)
        assert event["fullDocumentBeforeChange"] == {"_id": 1, "ssn": f"{SECRET} 1"}
        assert event["fullDocument"] == {"_id": 1, "ssn": f"{SECRET} 2"}
        assert event["updateDescription"]["updatedFields"] == {"ssn": f"{SECRET} 2"}


def test_started_after_the_collection_was_dropped(people):
    people.app.insert_one(PERSON)
    with people.app.watch(max_await_time_ms=500) as stream:
        people.app.drop()
        assert next(stream)["operationType"] == "drop"
        invalidate = next(stream)
        assert invalidate["operationType"] == "invalidate"
    people.app.insert_one(PERSON)
    with people.app.watch(start_after=invalidate["_id"], max_await_time_ms=500) as stream:
        assert next(stream)["fullDocument"] == PERSON
    with pytest.raises(OperationFailure) as refused:
        people.app.watch(resume_after=invalidate["_id"])
    assert refused.value.code == 260  # InvalidResumeToken, as without rekeyd


def test_rekeyd_restarts_under_a_stream(own_people):
    """The driver resumes by itself, and nothing that happened meanwhile is missing."""
    people = own_people
    people.stored_db.create_collection("people")
    with people.app.watch(max_await_time_ms=500) as stream:
        people.app.insert_one({"_id": 1, "ssn": f"{SECRET} 1"})
        assert next(stream)["fullDocument"]["_id"] == 1
        people.app.insert_one({"_id": 2, "ssn": f"{SECRET} 2"})
        people.rekeyd.terminate()
        people.rekeyd.start()
        assert next(stream)["fullDocument"] == {"_id": 2, "ssn": f"{SECRET} 2"}


def test_condition_outlives_a_rotation(own_people):
    """The filter of an open stream knows the keys of its time only: it missed what came after."""
    people = own_people
    people.stored_db.create_collection("people")
    with people.app.watch([{"$match": {"fullDocument.ssn": SECRET}}], max_await_time_ms=500) as stream:
        people.app.insert_many([{"_id": 1, "ssn": SECRET}, {"_id": 2, "ssn": "other"}])
        assert next(stream)["fullDocument"]["_id"] == 1
        rotate(people)
        people.app.insert_many([{"_id": 3, "ssn": "other"}, {"_id": 4, "ssn": SECRET}])
        assert key_id(people.stored.find_one({"_id": 4})["ssn"]) == 2
        assert next_within(stream, 15)["fullDocument"] == {"_id": 4, "ssn": SECRET}


def next_within(stream, timeout_s):
    deadline = time.monotonic() + timeout_s
    while (event := stream.try_next()) is None:
        assert time.monotonic() < deadline, "no event"
    return event
