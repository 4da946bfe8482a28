"""What drivers offer beyond reading and writing, on protected collections: GridFS, tailable cursors,
views, explain, and looking after cursors and operations that run."""

import threading
import time

import pytest
from bson import Int64
from bson.son import SON
from gridfs import GridFSBucket, NoFile
from harness import SECRET, is_envelope, key_id, people_policy, policy, protected
from pymongo import CursorType
from pymongo.errors import OperationFailure

# GridFS.

FILES = {"filename": "deterministic", "metadata.owner": "deterministic", "metadata.note": "random"}
CONTENT = SECRET.encode() * 100_000


@pytest.fixture
def files(single_member_set, start_rekeyd, db_name):
    """A bucket whose names, metadata and chunks are protected, and its database on the server."""
    policies = [policy(f"{db_name}.fs.files", FILES), policy(f"{db_name}.fs.chunks", {"data": "random"})]
    rekeyd = start_rekeyd(single_member_set, policies)
    with rekeyd.client() as app, single_member_set.client() as direct:
        yield GridFSBucket(app[db_name]), direct[db_name]
        for name in ("fs.files", "fs.chunks"):
            for raw in direct[db_name][name].find_raw_batches():
                assert SECRET.encode() not in raw
        direct.drop_database(db_name)
    assert SECRET not in rekeyd.logs()


def test_gridfs_with_everything_protected(files):
    bucket, stored = files
    name, owner = f"{SECRET}.txt", f"{SECRET} owner"
    metadata = {"owner": owner, "note": f"{SECRET} note", "open": 1}
    first = bucket.upload_from_stream(name, b"first")
    second = bucket.upload_from_stream(name, CONTENT, metadata=metadata)
    (file,) = stored["fs.files"].find({"_id": second})
    assert is_envelope(file["filename"]) and is_envelope(file["metadata"]["owner"])
    assert file["metadata"]["open"] == 1 and file["length"] == len(CONTENT)
    chunks = list(stored["fs.chunks"].find({"files_id": second}))
    assert len(chunks) == 3 and all(is_envelope(chunk["data"]) for chunk in chunks)

    assert bucket.open_download_stream(second).read() == CONTENT
    assert bucket.open_download_stream_by_name(name).read() == CONTENT
    assert bucket.open_download_stream_by_name(name, revision=0).read() == b"first"
    with bucket.open_download_stream(second) as stream:
        stream.seek(300_000)
        assert stream.read(10) == CONTENT[300_000:300_010]
    (found,) = bucket.find({"metadata.owner": owner})
    assert (found._id, found.metadata) == (second, metadata)

    bucket.rename(second, f"{SECRET} new")
    assert bucket.open_download_stream_by_name(f"{SECRET} new").read() == CONTENT
    assert bucket.open_download_stream_by_name(name).read() == b"first"
    bucket.delete(second)
    with pytest.raises(NoFile):
        bucket.open_download_stream(second)
    assert stored["fs.chunks"].count_documents({}) == 1
    bucket.delete(first)


# Tailable cursors.


def person(i, **more) -> dict:
    return {"_id": i, "ssn": f"{SECRET} ssn {i}", "answer": f"{SECRET} answer {i}", **more}


PEOPLE = [person(i) for i in range(30)]


OPEN_KINDS = {
    CursorType.NON_TAILABLE: "find",
    CursorType.TAILABLE: "tailable",
    CursorType.TAILABLE_AWAIT: "awaiting",
    CursorType.EXHAUST: "exhaust",
}


def wait_next(cursor, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return next(cursor)
        except StopIteration:
            assert cursor.alive and time.monotonic() < deadline


@pytest.mark.parametrize("kind", [CursorType.TAILABLE, CursorType.TAILABLE_AWAIT])
def test_tailable_over_a_rotation(own_people, kind):
    people = own_people
    people.stored_db.create_collection("people", capped=True, size=1 << 20)
    people.app.insert_many(PEOPLE[:4])
    with people.app.find(cursor_type=kind, batch_size=1) as cursor:
        assert [next(cursor) for _ in range(4)] == PEOPLE[:4]
        with pytest.raises(StopIteration):
            next(cursor)
        assert cursor.alive
        people.rekeyd.ctl("keys", "rotate")
        people.rekeyd.wait_event("current_key_changed", count=2)
        people.app.insert_one(PEOPLE[4])
        assert key_id(people.stored.find_one(PEOPLE[4]["_id"])["ssn"]) == 2
        assert wait_next(cursor) == PEOPLE[4]


@pytest.mark.tsan
@pytest.mark.parametrize("kind", list(OPEN_KINDS), ids=OPEN_KINDS.values())
def test_condition_does_not_outlive_its_keys(own_people, kind):
    """An open cursor's filter has the ciphertext of its time: it missed what came after."""
    people = own_people
    capped = kind in (CursorType.TAILABLE, CursorType.TAILABLE_AWAIT)
    people.stored_db.create_collection("people", **({"capped": True, "size": 1 << 20} if capped else {}))
    people.app.insert_many({**p, "ssn": SECRET} for p in PEOPLE)
    conditioned = people.app.find({"ssn": SECRET}, batch_size=2, cursor_type=kind)
    other = people.app.find({"size": {"$ne": 5}}, batch_size=2, cursor_type=kind)
    assert next(conditioned) == next(other) == {**PEOPLE[0], "ssn": SECRET}
    people.rekeyd.ctl("keys", "rotate")
    people.rekeyd.wait_event("current_key_changed", count=2)
    people.app.insert_one({**person(99), "ssn": SECRET})
    assert next(conditioned)["_id"] == 1
    if kind == CursorType.NON_TAILABLE:
        with pytest.raises(OperationFailure) as ended:
            next(conditioned)
        assert ended.value.code == 43 and "keys changed" in str(ended.value)
    else:
        with pytest.raises((OperationFailure, StopIteration)):
            next(conditioned)
    assert not conditioned.alive
    assert people.rekeyd.wait_event("cursor_ended")["collection"] == "people"
    assert [next(other)["_id"] for _ in range(30)] == [*range(1, 30), 99]
    again = people.app.find({"ssn": SECRET}, batch_size=2, cursor_type=kind)
    assert [next(again)["_id"] for _ in range(31)] == [*range(30), 99]


def test_bound_cursors_are_limited(single_member_set, start_rekeyd, db_name):
    limits = {"limits": {"bound_cursors_max": 2}}
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=limits)
    with protected(rekeyd, db_name) as people:
        people.app.insert_many({**p, "ssn": SECRET} for p in PEOPLE)

        def opened():
            cursor = people.app.find({"ssn": SECRET}, batch_size=2)
            next(cursor)
            return cursor

        cursors = [opened(), opened()]
        with pytest.raises(OperationFailure) as refused:
            opened()
        assert refused.value.code == 96 and "bound_cursors_max" in str(refused.value)
        assert people.app.count_documents({"ssn": SECRET}) == 30
        assert len(list(people.app.find({"ssn": SECRET}))) == 30, "one batch needs no cursor"
        assert len(list(cursors.pop())) == 29
        opened().close()
        cursors.append(opened())
        for cursor in cursors:
            cursor.close()


def test_tailable_that_was_overtaken(people):
    """As without rekeyd: the position is gone, and the cursor with it."""
    people.stored_db.create_collection("people", capped=True, size=1 << 20, max=3)
    people.app.insert_many(PEOPLE[:3])
    with people.app.find(cursor_type=CursorType.TAILABLE_AWAIT, batch_size=1) as cursor:
        assert next(cursor) == PEOPLE[0]
        people.app.insert_many(PEOPLE[3:9])
        with pytest.raises(StopIteration):  # what PyMongo makes of CappedPositionLost
            next(cursor)
        assert not cursor.alive


# Cursors and operations, looked after by others.


def test_cursor_is_killed(people):
    people.app.insert_many(PEOPLE)
    cursor = people.app.find(batch_size=2)
    assert next(cursor) == PEOPLE[0]
    killed = people.app_db.command("killCursors", "people", cursors=[cursor.cursor_id, Int64(12345)])
    assert (killed["cursorsKilled"], killed["cursorsNotFound"]) == ([cursor.cursor_id], [12345])
    assert next(cursor) == PEOPLE[1]
    with pytest.raises(OperationFailure) as gone:
        next(cursor)
    assert gone.value.code == 43


def open_cursors(people) -> list:
    found = people.direct_client.admin.aggregate(
        [{"$currentOp": {"idleCursors": True}}, {"$match": {"ns": people.namespace}}]
    )
    return [operation for operation in found if operation["type"] == "idleCursor"]


def test_cursor_that_is_closed_is_gone_on_the_server(people):
    people.app.insert_many(PEOPLE)
    with people.app.find({"ssn": {"$ne": f"{SECRET} ssn 7"}}, batch_size=2) as cursor:
        assert next(cursor) == PEOPLE[0]
        (idle,) = open_cursors(people)
        assert idle["cursor"]["cursorId"] == cursor.cursor_id
        assert SECRET not in str(idle)
    assert open_cursors(people) == []


@pytest.mark.parametrize("look", ["command", "aggregate"])
def test_operation_is_seen_and_killed(people, look):
    """currentOp through rekeyd names the client; on the server nothing of it is readable."""
    people.stored_db.create_collection("people", capped=True, size=1 << 20)
    people.app.insert_one(PEOPLE[0])
    ended = []

    def follow():
        query = {"ssn": {"$ne": f"{SECRET} nobody"}}
        with people.rekeyd.client(appName="follower") as client:
            collection = client[people.app_db.name].people
            cursor = collection.find(query, cursor_type=CursorType.TAILABLE_AWAIT)
            cursor.max_await_time_ms(3000)  # a killed one sleeps on until then
            try:
                while True:
                    next(cursor)
            except (OperationFailure, StopIteration) as end:
                ended.append(end)

    def running(client) -> list:
        wanted = {"appName": "follower", "cursor.originatingCommand.find": "people"}
        if look == "command":
            return client.admin.command("currentOp", **wanted)["inprog"]
        return list(client.admin.aggregate([{"$currentOp": {}}, {"$match": wanted}]))

    thread = threading.Thread(target=follow)
    thread.start()
    deadline = time.monotonic() + 15
    while not (found := running(people.app_client)):
        assert time.monotonic() < deadline and thread.is_alive()
    (operation,) = found
    (as_stored,) = running(people.direct_client)
    assert as_stored["opid"] == operation["opid"] and SECRET not in str(as_stored)
    assert people.app_client.admin.command("killOp", op=operation["opid"])["ok"] == 1
    thread.join(20)
    assert [end.code for end in ended] == [11601]
    people.check()


# Explain.

ONE = f"{SECRET} ssn 1"
EXPLAINED = [
    SON(find="people", filter={"ssn": ONE}),
    SON(aggregate="people", pipeline=[{"$match": {"ssn": ONE}}, {"$count": "n"}], cursor={}),
    SON(count="people", query={"ssn": {"$in": [ONE, f"{SECRET} 2"]}}),
    SON(distinct="people", key="name", query={"ssn": ONE}),
    SON(update="people", updates=[{"q": {"ssn": ONE}, "u": {"$set": {"answer": SECRET}}}]),
    SON(delete="people", deletes=[{"q": {"ssn": ONE}, "limit": 1}]),
    SON(findAndModify="people", query={"ssn": ONE}, update={"$set": {"answer": SECRET}}),
]


@pytest.mark.parametrize("verbosity", ["queryPlanner", "executionStats", "allPlansExecution"])
def test_explain_shows_the_server_nothing(people, verbosity):
    """Neither its log nor its profile, which see every command; and nothing is carried out."""
    people.app.insert_many(PEOPLE)
    people.app.create_index("ssn")
    people.app.create_index([("ssn", 1), ("name", 1)])  # so that there are plans to choose from
    (server,) = people.rekeyd.upstream.members
    start = len(server.logs())
    people.stored_db.command("profile", 2, slowms=-1)
    try:
        for command in EXPLAINED:
            said = people.app_db.command("explain", command, verbosity=verbosity)
            assert said["ok"] == 1 and "winningPlan" in str(said), command
            assert ("executionStats" in str(said)) == (verbosity != "queryPlanner")
    finally:
        people.stored_db.command("profile", 0, slowms=100)
    assert people.stored_db["system.profile"].count_documents({"command.explain.find": "people"}) == 1
    assert people.stored_db.name in server.logs()[start:]
    assert SECRET not in server.logs()[start:]
    assert people.seen() == PEOPLE
    people.check()
    people.stored_db["system.profile"].drop()


# Views.


def test_views_of_a_protected_collection(people):
    """Made through rekeyd where they show nothing protected, listed and read; joined with."""
    db = people.app_db
    people.app.insert_many(PEOPLE[:3])
    people.plain.insert_many([{"_id": i, "who": i} for i in range(3)])
    shown = [{"$project": {"size": 1}}, {"$set": {"twice": {"$multiply": ["$_id", 2]}}}]
    db.command(SON(create="numbers", viewOn="people", pipeline=shown))
    (listed,) = db.list_collections(filter={"name": "numbers"})
    assert (listed["type"], listed["options"]["viewOn"]) == ("view", "people")
    assert sorted(d["twice"] for d in db.numbers.find(batch_size=1)) == [0, 2, 4]
    whole = {"from": "people", "localField": "who", "foreignField": "_id", "as": "person"}
    joined = list(people.plain.aggregate([{"$lookup": whole}, {"$sort": {"_id": 1}}]))
    assert [d["person"] for d in joined] == [[p] for p in PEOPLE[:3]]
    with pytest.raises(OperationFailure) as refused:
        db.numbers.insert_one({"_id": 9})
    assert refused.value.code == 166  # CommandNotSupportedOnView
    db.numbers.drop()
    assert "numbers" not in db.list_collection_names()
