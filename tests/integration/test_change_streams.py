"""Change streams through rekeyd: documents, dotted update descriptions, images before a change."""

from harness import SECRET

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
