"""Each kind of collection is swept, or refused with the reason before anything begins."""

import random

import pytest
from bson import Binary, MaxKey, MinKey, ObjectId

from harness import CtlError, ReplicaSet
from harness.protected import key_id
from legacy_corpus import encrypt
from sweeping import (
    FAILED,
    OLD_KEY,
    PAST,
    former_job,
    former_range,
    legacy_format,
    letters,
    taken,
)

pytestmark = pytest.mark.timeout(120)


def refused(swept, why, namespace=None):
    with pytest.raises(CtlError, match=why):
        swept.rekeyd.ctl("start", namespace or swept.namespace, "--wait")
    assert swept.state.jobs.count_documents({}) == 0


def warned(swept, *options):
    """What start says about the collection, which is in the job and in the log, too."""
    result = swept.rekeyd.ctl("start", swept.namespace, "--wait", *options, check=False)
    assert result.returncode == 0, result.stderr
    job = swept.state.jobs.find_one()
    for text in job["warnings"]:
        assert f"rekeyctl: warning: {text}" in result.stderr
        assert text in swept.rekeyd.logs()
    return job["warnings"]


def test_time_series_and_system_collections_are_refused(swept):
    swept.stored_db.create_collection("people", timeseries={"timeField": "t"})
    swept.stored.insert_one({"t": PAST, "answer": "x"})
    refused(swept, "is a timeseries, not a collection")
    refused(swept, "no policy protects", f"{swept.stored_db.name}.system.buckets.people")


def test_one_that_cannot_be_swept_does_not_stop_the_others(swept):
    swept.insert(range(3))
    swept.stored_db.other.insert_one({"_id": 1})
    sharded = {"_id": f"{swept.stored_db.name}.other", "key": {"answer": 1}}
    swept.direct.config.collections.insert_one(sharded)
    try:
        swept.rotate()
        result = swept.rekeyd.ctl("start", "--wait", check=False)
    finally:
        swept.direct.config.collections.delete_one({"_id": sharded["_id"]})
    assert result.returncode == FAILED
    assert 'is sharded by "answer", which is protected' in result.stderr
    assert swept.keys_used() == {2}


def test_capped_collections_and_validators_are_warned_of(swept):
    validator = {"$jsonSchema": {"properties": {"answer": {"bsonType": "string"}}}}
    swept.stored_db.create_collection(
        "people", capped=True, size=1 << 20, validator=validator, validationAction="error"
    )
    swept.stored.insert_many([{"_id": i, "answer": f"a{i}"} for i in range(10)])
    capped, validated = warned(swept, "--transform", "encrypt")
    assert "is capped" in capped and "has a validator" in validated
    assert {letter["reason"] for letter in letters(swept)} == {"document fails validation"}
    swept.stored_db.command("collMod", "people", validationAction="warn")
    job = swept.rekeyd.ctl("start", swept.namespace, "--transform", "encrypt", "--wait")["jobs"][0]
    assert (job["swept"], job["deadLettered"]) == (10, 0)


def test_a_unique_index_holds_per_key(start_swept, single_member_set):
    swept = start_swept(single_member_set, fields={"answer": "deterministic"})
    swept.stored.create_index("answer", unique=True)
    swept.insert(range(10))
    swept.rotate()
    swept.wait(lambda: swept.app.insert_one({"answer": str(ObjectId())}) and 2 in swept.keys_used())
    swept.stored.delete_many({"_id": {"$type": "objectId"}})
    swept.app.insert_one({"_id": "twin", "answer": "answer 7"})
    (warning,) = warned(swept)
    assert "the unique index answer_1 covers the protected path answer" in warning
    (letter,) = letters(swept)
    assert (letter["docId"], letter["reason"]) == (7, "duplicate key")
    assert swept.job()["swept"] == 9


@pytest.fixture
def expiring_set(tmp_path):
    args = ["--setParameter", "ttlMonitorSleepSecs=1", "--setParameter", "ttlMonitorEnabled=false"]
    with ReplicaSet(1, tmp_path / "expiring", args=args) as servers:
        yield servers


def test_what_expires_meanwhile_is_gone(expiring_set, start_swept):
    swept = start_swept(expiring_set)
    swept.stored.create_index("at", expireAfterSeconds=1)
    swept.app.insert_many([{"_id": i, "answer": "x", "at": PAST} for i in range(7)])
    swept.app.insert_many([{"_id": i, "answer": "x"} for i in [-1, 7, 8, 9]])
    swept.rotate()
    swept.stored_db.command("profile", 2)
    with swept.direct.start_session() as session:
        session.start_transaction()  # the sweep's first update waits for its end
        swept.stored.update_one({"_id": -1}, {"$set": {"n": 1}}, session=session)
        swept.start()
        batch = {"command.find": "people", "command.projection.answer": {"$exists": True}}
        swept.wait(lambda: swept.stored_db.system.profile.find_one(batch))
        swept.direct.admin.command("setParameter", 1, ttlMonitorEnabled=True)
        swept.wait(lambda: swept.stored.count_documents({}) == 4)
        session.abort_transaction()
    swept.wait(lambda: swept.job()["state"] == "complete")
    job = swept.job()
    assert (job["scanned"], job["swept"], job["gone"]) == (11, 4, 7)


SHARD_KEY = {"region": 1, "a.b": "hashed", "_id": 1, "_id.x": 1}


@pytest.fixture
def sharded(swept):
    """As mongos leaves it in config.collections; what mongos would get is in the profile."""
    swept.direct.config.collections.insert_one({"_id": swept.namespace, "key": SHARD_KEY})
    yield swept
    swept.direct.config.collections.delete_one({"_id": swept.namespace})


def test_updates_of_a_sharded_collection_name_its_key(sharded):
    documents = [
        {"_id": 0, "region": "eu", "a": {"b": 5, "c": 1}, "answer": "x"},
        {"_id": 1, "region": {"$x": 1}, "a": {"b": None}, "answer": "x"},
        {"_id": 2, "a": {"c": 1}, "answer": "x"},
        {"_id": 3, "a": 5, "answer": "x"},
    ]
    sharded.app.insert_many(documents)
    sharded.rotate()
    sharded.stored_db.command("profile", 2)
    job = sharded.sweep()
    sharded.stored_db.command("profile", 0)
    assert (job["swept"], sharded.keys_used()) == (4, {2})
    assert sharded.state.jobs.find_one()["shardKey"] == SHARD_KEY
    updates = sharded.stored_db.system.profile.find({"op": "update", "ns": sharded.namespace})
    seen = {u["command"]["q"]["_id"]: u["command"]["q"] for u in updates}
    assert {i: (q["region"]["$eq"], q["a.b"]["$eq"]) for i, q in seen.items()} == {
        0: ("eu", 5),
        1: ({"$x": 1}, None),
        2: (None, None),
        3: (None, None),
    }
    assert list(sharded.app.find().sort("_id")) == documents


def test_a_legacy_value_that_outgrows_its_document(start_swept, single_member_set):
    """An envelope has more around its plaintext than the former format."""
    rng = random.Random(1)
    legacy = [legacy_format(version_hex="01")]
    fields = {"answer": {"algorithm": "random", "legacy": legacy}}
    swept = start_swept(single_member_set, fields=fields, legacy_keys={"old": OLD_KEY})
    value = Binary(b"\x01" + encrypt("cbc", OLD_KEY, b"x" * 1000, rng))
    room = 16 * 1024 * 1024 - len(value) - 60
    swept.stored.insert_one({"_id": 1, "answer": value, "rest": "r" * room})
    swept.stored.insert_one({"_id": 2, "answer": value, "rest": "r" * (room - 200)})
    job = swept.sweep()
    assert (job["state"], job["swept"], job["deadLettered"]) == ("complete", 1, 1)
    (letter,) = letters(swept)
    assert (letter["docId"], letter["reason"]) == (1, "document too large")
    assert swept.stored.find_one({"_id": 1}, {"answer": 1})["answer"] == bytes(value)


def test_thousands_of_values_in_one_document(start_swept, single_member_set):
    swept = start_swept(single_member_set, fields={"contacts.phones": "random", "answer": "random"})
    contacts = [{"phones": f"{i}", "at": i} for i in range(5000)]
    deep = {"phones": "deep"}
    for _ in range(60):
        deep = [deep]
    swept.app.insert_one({"_id": 1, "contacts": contacts})
    swept.app.insert_one({"_id": 2, "contacts": deep, "answer": "x"})
    swept.rotate()
    job = swept.sweep()
    assert (job["swept"], job["deadLettered"]) == (2, 0)
    assert swept.app.find_one({"_id": 1})["contacts"] == contacts
    (first, _) = swept.verify()["fields"]
    assert first["keys"] == {"2": 5001}


# Jobs of other versions.


def test_a_job_of_the_former_version_goes_on(swept):
    swept.insert(range(100))
    swept.rotate()
    swept.wait(lambda: swept.app.replace_one({"_id": 0}, {"answer": "n"}) and 2 in swept.keys_used())
    job = former_job(swept)
    done = taken(job, 30, state="done", isComplete=True, finishedAt=PAST, position=29)
    running = taken(job, 10, state="running", position=39)
    ranges = [
        former_range(job, 0, MinKey(), 30, **done),
        former_range(job, 1, 30, 60, **running),
    ]
    swept.state.jobStatus.insert_many(ranges)
    swept.state.jobs.insert_one(job)
    swept.wait(lambda: swept.job()["state"] == "complete")
    job, ranges = swept.job(), swept.ranges()
    assert (job["scanned"], job["swept"]) == (100, 100)
    assert [(r["startId"], r["state"], r["epoch"]) for r in ranges[:3]] == [
        (MinKey(), "done", 1),
        (30, "done", 2),
        (60, "done", 1),
    ]
    assert isinstance(ranges[-1]["endId"], MaxKey)
    # What the former version had swept was not touched again.
    by_id = {d["_id"]: key_id(d["answer"]) for d in swept.stored.find()}
    assert {by_id[i] for i in [*range(1, 30), *range(30, 40)]} == {1}
    assert {by_id[i] for i in range(40, 100)} == {2}


def test_a_job_of_a_later_version_is_left_alone(swept):
    swept.insert(range(10))
    swept.rotate()
    later = former_job(swept, format=99, state="planning")
    swept.state.jobs.insert_one(later)
    swept.stored_db.create_collection("other")
    swept.rekeyd.ctl("start", f"{swept.stored_db.name}.other", "--wait")
    assert swept.state.jobs.find_one({"_id": later["_id"]})["state"] == "planning"
    assert swept.keys_used() == {1}
