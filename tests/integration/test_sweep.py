"""The sweep: every record reaches the current key, once, and the application never notices."""

import datetime
import math
import random
import threading
import time
from contextlib import contextmanager

import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.son import SON
from pymongo.errors import OperationFailure

from harness import CtlError
from harness.protected import key_id
from legacy_corpus import encrypt
from sweeping import FAILED, OLD_KEY, STATE, legacy_format, letters, slow

RANGE_FIELDS = {"collectionName", "batchSize", "consumerProcessed", "startId", "endId"}
RANGE_FIELDS |= {"isComplete", "creationTimeStamp"}
pytestmark = pytest.mark.timeout(120)


def every_kind_of_id() -> list:
    when = datetime.datetime(2026, 11, 21)
    ids = [MinKey(), None, math.nan, -math.inf, -1, 0.5, 1, Int64(2**40), Decimal128("7.25")]
    ids += ["", "a", "é", SON([("a", 1)]), SON([("a", "x"), ("b", None)]), SON()]
    ids += [Binary(b"x"), Binary(b"x" * 16, 4), ObjectId(), True, False, when]
    ids += [Timestamp(1, 2), Code("f"), Code("f", {"x": 1}), MaxKey()]
    return ids + list(range(100, 120)) + [f"s{n}" for n in range(20)]


@pytest.mark.tsan
def test_every_type_of_id_is_swept_exactly_once(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"range_docs": 7, "batch_docs": 3}})
    ids = every_kind_of_id()
    documents = swept.insert(ids)
    assert swept.keys_used() == {1}
    assert swept.rotate() == 2
    job = swept.sweep()
    assert (job["state"], job["swept"], job["scanned"]) == ("complete", len(ids), len(ids))
    assert swept.keys_used() == {2}
    ranges = swept.ranges()
    assert len(ranges) == math.ceil(len(ids) / 7)
    for cut in ranges:
        assert RANGE_FIELDS <= cut.keys()
        assert cut["isComplete"] and cut["consumerProcessed"] == cut["batchSize"] <= 7
    assert isinstance(ranges[0]["startId"], MinKey) and isinstance(ranges[-1]["endId"], MaxKey)
    for one, next_one in zip(ranges, ranges[1:]):
        assert repr(one["endId"]) == repr(next_one["startId"])
    answers = sorted(document["answer"] for document in swept.app.find())
    assert answers == sorted(document["answer"] for document in documents)


def test_only_protected_values_change(swept):
    swept.app.insert_one({"_id": 1, "answer": "x", "other": [1, {"answer": 2}], "answers": None})
    before = swept.stored.find_one()
    swept.rotate()
    swept.sweep()
    after = swept.stored.find_one()
    assert before.pop("answer") != after.pop("answer")
    assert before == after and list(before) == list(after)


def test_values_in_arrays_and_sub_documents(start_swept, single_member_set):
    fields = {"contacts.phone": "random", "home.address.street": "deterministic"}
    swept = start_swept(single_member_set, fields=fields)
    documents = [
        {"_id": 1, "contacts": ["x", {"phone": "1"}, 5, {"mail": "m"}, {"phone": ["2", {}]}]},
        {"_id": 2, "contacts": {"phone": {"a": 1}}, "home": {"address": {"street": "s"}}},
        {"_id": 3, "contacts": [{"phone": None}], "home": {"address": [{"street": "t"}] * 3}},
        {"_id": 4, "contacts": [], "home": None},
    ]
    swept.app.insert_many(documents)
    swept.rotate()
    job = swept.sweep()
    assert (job["swept"], job["alreadyCurrent"], job["deadLettered"]) == (3, 1, 0)
    assert list(swept.app.find().sort("_id")) == documents
    fields = {f["path"]: f for f in swept.verify()["fields"]}
    assert fields["contacts.phone"]["keys"] == {"2": 3}
    assert fields["contacts.phone"]["null"] == 1
    assert fields["home.address.street"]["keys"] == {"2": 4}


def test_legacy_values_become_envelopes(start_swept, single_member_set):
    rng = random.Random(1)
    legacy = [legacy_format(version_hex="01"), legacy_format(cipher="aes-256-gcm")]
    fields = {"answer": {"algorithm": "random", "legacy": legacy}}
    swept = start_swept(single_member_set, fields=fields, legacy_keys={"old": OLD_KEY})
    for i in range(100):
        cipher, prefix = ("cbc", b"\x01") if i % 2 else ("gcm", b"")
        value = Binary(prefix + encrypt(cipher, OLD_KEY, f"answer {i}".encode(), rng))
        swept.stored.insert_one({"_id": i, "answer": value})
    failed = swept.rekeyd.ctl("verify", swept.namespace, check=False)
    assert failed.returncode == FAILED
    assert swept.sweep()["swept"] == 100
    field = swept.verify()["fields"][0]
    assert (field["current"], field["legacy"], field["opened"]) == (100, 0, 100)
    assert [d["answer"] for d in swept.app.find().sort("_id")] == [f"answer {i}" for i in range(100)]


def test_what_is_not_encrypted_is_left_and_reported(swept):
    swept.stored.insert_one({"_id": 1, "answer": "never encrypted"})
    job = swept.sweep()
    assert (job["state"], job["plaintext"]) == ("complete", 1)
    assert swept.stored.find_one()["answer"] == "never encrypted"
    assert swept.rekeyd.ctl("verify", check=False).returncode == FAILED


def test_an_empty_collection_and_one_that_is_current_complete(swept):
    swept.app.insert_one({"_id": 1, "answer": "x"})
    assert swept.sweep()["alreadyCurrent"] == 1
    swept.app.delete_many({})
    assert swept.sweep()["scanned"] == 0


def test_wildcards_cover_collections_but_not_views(swept):
    swept.insert(range(3))
    swept.stored_db.more.insert_one({"_id": 1})
    swept.stored_db.command("create", "view", viewOn="people", pipeline=[])
    swept.rotate()
    jobs = swept.rekeyd.ctl("start", "--wait")["jobs"]
    assert {job["ns"] for job in jobs} == {swept.namespace, f"{swept.stored_db.name}.more"}
    assert {job["state"] for job in jobs} == {"complete"}
    with pytest.raises(CtlError, match="no policy protects"):
        swept.rekeyd.ctl("start", "elsewhere.people")


def test_a_namespace_has_one_active_job(swept):
    swept.insert(range(10))
    swept.rekeyd.reload({"sweep": {"pause": True}})
    swept.rotate()
    swept.start()
    with pytest.raises(CtlError, match="has an active job") as refused:
        swept.start()
    assert refused.value.returncode == STATE
    swept.rekeyd.reload({"sweep": {"pause": False}})
    swept.wait(lambda: swept.job()["state"] == "complete")
    assert len(swept.rekeyd.ctl("jobs")["jobs"]) == 1


def test_the_audit_log_tells_who_did_what(swept):
    swept.insert(range(10))
    swept.rekeyd.reload({"sweep": {"pause": True}})
    job = swept.start()
    swept.rekeyd.ctl("pause", job)
    swept.rekeyd.ctl("resume", job)
    swept.rekeyd.ctl("cancel", job)
    events = [e for e in swept.state.audit.find() if e["action"].startswith("job.")]
    told = [(e["action"], e["target"], e["result"]) for e in events]
    expected = [("job.start", swept.namespace)]
    expected += [(f"job.{verb}", job) for verb in ("pause", "resume", "cancel")]
    assert told == [(*e, result) for e in expected for result in ("started", "ok")]
    assert all(e["actor"] and e["host"] and e["pid"] for e in events)
    with pytest.raises(CtlError, match="cannot resume"):
        swept.rekeyd.ctl("resume", job)
    failed = swept.state.audit.find_one({"result": "failed"})
    assert failed["action"] == "job.resume"
    assert failed["detail"] == "cannot resume a job that is cancelled"


# What an operator can do meanwhile.


@pytest.mark.tsan
def test_pause_resume_and_cancel(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow(40))
    swept.insert(range(500))
    swept.rotate()
    job = swept.start()
    swept.wait(lambda: swept.job()["swept"] > 0)
    swept.rekeyd.ctl("pause", job)
    swept.wait(lambda: swept.job()["rangesRunning"] == 0)
    paused = swept.job()
    assert paused["state"] == "paused" and 0 < paused["swept"] < 500
    time.sleep(0.5)  # 20 documents
    assert swept.job()["swept"] == paused["swept"]
    assert [j["id"] for j in swept.rekeyd.ctl("status")["jobs"]] == [job]
    swept.rekeyd.ctl("pause", job)  # for a second time: it is so already

    assert swept.rekeyd.ctl("pause", swept.namespace) == {"paused": 1}
    assert swept.rekeyd.ctl("resume", f"{swept.stored_db.name}.*") == {"resumed": 1}
    swept.wait(lambda: swept.job()["swept"] > paused["swept"])
    assert swept.rekeyd.ctl("cancel", "--all") == {"cancelled": 1}
    with pytest.raises(CtlError, match="cannot pause a job that is cancelled") as refused:
        swept.rekeyd.ctl("pause", job)
    assert refused.value.returncode == STATE
    with pytest.raises(CtlError, match="there is no job over"):
        swept.rekeyd.ctl("pause", swept.namespace)
    swept.wait(lambda: swept.job()["rangesRunning"] == 0)
    cancelled = swept.job()
    assert cancelled["state"] == "cancelled" and cancelled["swept"] < 500
    assert swept.rekeyd.ctl("status")["jobs"] == []

    # What was swept before stays swept, and is not written again.
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    job = swept.sweep()
    assert job["swept"] + job["alreadyCurrent"] == 500
    assert 0 < job["alreadyCurrent"] < 500
    assert swept.keys_used() == {2}


def test_max_rate_and_pause_reload(start_swept, single_member_set):
    swept = start_swept(single_member_set, slow(100))
    swept.insert(range(1000))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["swept"] > 0)
    before, began = swept.job()["swept"], time.monotonic()
    time.sleep(1.5)
    done = swept.job()["swept"] - before
    assert done <= 100 * (time.monotonic() - began) + 100
    swept.rekeyd.reload({"sweep": {"pause": True}})
    swept.rekeyd.wait_event("reloaded")
    time.sleep(0.5)  # for the batch that was let through
    before = swept.job()["swept"]
    time.sleep(1)
    assert swept.job()["swept"] - before <= 30
    swept.rekeyd.reload({"sweep": {"pause": False, "max_rate": 0}})
    swept.wait(lambda: swept.job()["state"] == "complete", 20)
    assert swept.keys_used() == {2}


# The application meanwhile.


@contextmanager
def busy(work):
    """Does work over and over in a thread of its own."""
    stopping, failures = threading.Event(), []

    def loop():
        try:
            while not stopping.is_set():
                work()
        except Exception as failure:
            failures.append(failure)

    thread = threading.Thread(target=loop)
    thread.start()
    yield
    stopping.set()
    thread.join()
    assert not failures, failures


def test_the_foreground_always_wins(start_swept, single_member_set):
    swept = start_swept(single_member_set, {"sweep": {"range_docs": 500, "batch_docs": 500}})
    rng = random.Random(3)
    swept.insert(range(500))
    latest = {i: f"answer {i}" for i in range(500)}

    def work():
        i, new = rng.randrange(500), f"changed {rng.random()}"
        if i in latest and rng.random() < 0.1:
            swept.app.delete_one({"_id": i})
            del latest[i]
        else:
            swept.app.update_one({"_id": i}, {"$set": {"answer": new}}, upsert=True)
            latest[i] = new

    with busy(work):
        for _ in range(4):
            swept.rotate()
            swept.sweep()
        key = swept.rotate()
    time.sleep(0.5)
    swept.sweep()
    assert {d["_id"]: d["answer"] for d in swept.app.find()} == latest
    assert swept.keys_used() == {key}


def test_a_rotation_settles_before_the_sweep_begins(start_swept, single_member_set):
    """Writes under the former key, by an instance that has not heard of the new one, must not
    fall behind the sweep."""
    swept = start_swept(single_member_set, {"keys": {"refresh_interval_ms": 1500}})
    swept.insert(range(100))
    number = iter(range(10**9))

    def work():
        n = next(number)
        swept.app.update_one({"_id": n % 100}, {"$set": {"answer": f"x{n}"}})

    with busy(work):
        key = swept.rotate()
        swept.sweep()
        assert swept.keys_used() == {key}


def test_deterministic_fields_stay_searchable(start_swept, single_member_set):
    swept = start_swept(single_member_set, fields={"answer": "deterministic"})
    swept.insert(range(50))
    swept.rotate()
    swept.sweep()
    assert swept.app.find_one({"answer": "answer 7"})["_id"] == 7
    assert len(swept.stored.distinct("answer")) == 50


# What cannot be done.


def test_bad_records_stop_nothing_and_can_be_retried(swept):
    swept.insert(range(20))
    good = swept.stored.find_one({"_id": 3})["answer"]
    forged = Binary(good[:-1] + bytes([good[-1] ^ 1]), good.subtype)
    unknown = Binary(good[:8] + (99).to_bytes(4, "big") + good[12:], good.subtype)
    short = Binary(good[:10], good.subtype)
    bad = {3: forged, 4: unknown, 5: short}
    for i, value in bad.items():
        swept.stored.update_one({"_id": i}, {"$set": {"answer": value}})
    swept.rotate()
    job = swept.sweep()
    assert (job["state"], job["swept"], job["deadLettered"]) == ("complete", 17, 3)
    found = {letter["docId"]: letter for letter in letters(swept)}
    assert {i: letter["reason"] for i, letter in found.items()} == {
        3: "envelope does not authenticate",
        4: "unknown data key",
        5: "malformed envelope",
    }
    assert all(letter["path"] == "answer" and letter["attempts"] == 1 for letter in found.values())
    for letter in swept.state.deadLetters.find():
        assert letter["raw"] == bad[letter["docId"]]
        assert swept.stored.find_one({"_id": letter["docId"]})["answer"] == letter["raw"]
    assert swept.rekeyd.ctl("verify", check=False).returncode == FAILED

    # One is repaired; the others are as bad as before.
    swept.stored.update_one({"_id": 3}, {"$set": {"answer": good}})
    assert swept.rekeyd.ctl("dead-letters", "retry")["retrying"] == 3
    swept.wait(lambda: not any(letter["retry"] for letter in letters(swept)))
    assert {letter["docId"]: letter["attempts"] for letter in letters(swept)} == {4: 2, 5: 2}
    assert swept.app.find_one({"_id": 3})["answer"] == "answer 3"
    assert key_id(swept.stored.find_one({"_id": 3})["answer"]) == 2

    # The next job over the namespace resolves what it does not meet again.
    swept.stored.delete_many({"_id": {"$in": [4, 5]}})
    swept.sweep()
    swept.wait(lambda: letters(swept) == [])
    assert len(letters(swept, "--all")) == 3
    swept.verify()


def test_what_mongod_refuses_is_a_dead_letter(swept):
    swept.insert(range(10))
    swept.stored_db.command(
        "collMod", "people", validator={"$or": [{"_id": {"$ne": 6}}, {"answer": "impossible"}]}
    )
    with pytest.raises(OperationFailure):
        swept.stored.update_one({"_id": 6}, {"$set": {"other": 1}})
    swept.rotate()
    job = swept.sweep()
    assert (job["state"], job["swept"], job["deadLettered"]) == ("complete", 9, 1)
    (letter,) = letters(swept)
    assert (letter["docId"], letter["reason"]) == (6, "document fails validation")


def test_documents_near_the_size_limit(swept):
    """The value that is replaced need not fit into the same command."""
    most = 16 * 1024 * 1024 - 400
    swept.app.insert_one({"_id": 1, "answer": "x" * most})
    swept.app.insert_one({"_id": 2, "answer": "y" * (most // 2 + 2**20)})
    swept.rotate()
    job = swept.sweep()
    assert (job["state"], job["swept"], job["deadLettered"]) == ("complete", 2, 0)
    assert [d["answer"][0] * len(d["answer"]) == d["answer"] for d in swept.app.find()] == [True] * 2
    assert swept.keys_used() == {2}
